/* Monotonic and wall clocks. */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>

int64_t clock_ns(void);      /* monotonic */
int64_t clock_ms(void);      /* monotonic */
double clock_ms_f(void);     /* monotonic, with microseconds behind the point */
int64_t clock_wall_ms(void); /* Unix epoch */

#endif
