/* Keeps a provider's limits per minute: requests, which are counted as they start, and tokens,
 * which are known only afterwards. Each is a bucket that fills evenly. */
#ifndef WORKERS_LIMITER_H
#define WORKERS_LIMITER_H

#include <stdint.h>

/* Plain data. A limit of 0 is none. */
struct limiter {
    int64_t requests_per_minute, tokens_per_minute;
    double requests, tokens; /* that may be used now; tokens may be overdrawn */
    int64_t filled_ms;       /* monotonic */
};

void limiter_init(struct limiter *limiter, int64_t requests_per_minute, int64_t tokens_per_minute,
                  int64_t now_ms);
/* 0 when a request may start now; else in how many ms to ask again (> 0). */
int64_t limiter_delay_ms(struct limiter *limiter, int64_t now_ms);
void limiter_request(struct limiter *limiter);
void limiter_tokens(struct limiter *limiter, int64_t tokens); /* < 0 counts as none */

#endif
