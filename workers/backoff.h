/* How long to wait before trying again. */
#ifndef WORKERS_BACKOFF_H
#define WORKERS_BACKOFF_H

#include <stdint.h>

/* first_ms, doubled `times` times, at most max_ms. */
int64_t backoff_ms(int64_t first_ms, int64_t max_ms, int64_t times);
/* Takes up to a quarter off, so that those who failed together do not come back together. *random
 * is the state of the generator, not 0 (xorshift64, Marsaglia 2003). */
int64_t backoff_jitter(uint64_t *random, int64_t delay_ms);

#endif
