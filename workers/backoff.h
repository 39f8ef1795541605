/* How long to wait before trying again. */
#ifndef WORKERS_BACKOFF_H
#define WORKERS_BACKOFF_H

#include <stdint.h>

#include "schemas/error_class.h"

/* first_ms, doubled `times` times, at most max_ms. */
int64_t backoff_ms(int64_t first_ms, int64_t max_ms, int64_t times);
/* Takes up to a quarter off, so that those who failed together do not come back together. *random
 * is the state of the generator, not 0 (xorshift64, Marsaglia 2003). */
int64_t backoff_jitter(uint64_t *random, int64_t delay_ms);
/* Until the next try after a failed attempt (from 1): what the server asked for, if server_ms >= 0,
 * at most an hour; else it grows with the attempts, further for what has to wait. */
int64_t backoff_failed(uint64_t *random, enum error_class class_, int64_t server_ms,
                       int64_t attempt);

#endif
