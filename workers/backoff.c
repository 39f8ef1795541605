#include "workers/backoff.h"

#include <stdbool.h>

#define SERVER_MAX_MS (3600 * 1000) /* a server that asks for more gets this */

#define FIRST_MS 500
#define MAX_MS 8000
#define WAIT_FIRST_MS 1000 /* a limit per minute is over after a minute */
#define WAIT_MAX_MS 60000

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

int64_t backoff_failed(uint64_t *random, enum error_class class_, int64_t server_ms,
                       int64_t attempt)
{
    if (server_ms >= 0)
        return server_ms < SERVER_MAX_MS ? server_ms : SERVER_MAX_MS;
    bool waits = error_class_action(class_) == ERROR_WAIT;
    int64_t first_ms = waits ? WAIT_FIRST_MS : FIRST_MS, max_ms = waits ? WAIT_MAX_MS : MAX_MS;
    return backoff_jitter(random, backoff_ms(first_ms, max_ms, attempt - 1));
}
