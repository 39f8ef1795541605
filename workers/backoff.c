#include "workers/backoff.h"

int64_t backoff_ms(int64_t first_ms, int64_t max_ms, int64_t times)
{
    int64_t delay_ms = first_ms;
    while (times-- > 0 && delay_ms < max_ms)
        delay_ms *= 2;
    return delay_ms < max_ms ? delay_ms : max_ms;
}

int64_t backoff_jitter(uint64_t *random, int64_t delay_ms)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return delay_ms - (int64_t)(*random % (uint64_t)(delay_ms / 4 + 1));
}
