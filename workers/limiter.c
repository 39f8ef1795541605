#include "workers/limiter.h"

#define MINUTE_MS 60000.0
/* What may be used at once after a pause: a burst of this part of a minute's allowance. */
#define BURST 0.1

static double capacity(int64_t per_minute)
{
    double most = (double)per_minute * BURST;
    return most < 1 ? 1 : most;
}

void limiter_init(struct limiter *limiter, int64_t requests_per_minute, int64_t tokens_per_minute,
                  int64_t now_ms)
{
    *limiter = (struct limiter){
        .requests_per_minute = requests_per_minute,
        .tokens_per_minute = tokens_per_minute,
        .requests = capacity(requests_per_minute),
        .tokens = capacity(tokens_per_minute),
        .filled_ms = now_ms,
    };
}

static void fill(double *level, int64_t per_minute, double elapsed_ms)
{
    *level += (double)per_minute * elapsed_ms / MINUTE_MS;
    if (*level > capacity(per_minute))
        *level = capacity(per_minute);
}

/* Time until the level reaches `needed`. */
static int64_t until(double level, double needed, int64_t per_minute)
{
    if (per_minute <= 0 || level >= needed)
        return 0;
    return (int64_t)((needed - level) * MINUTE_MS / (double)per_minute) + 1;
}

int64_t limiter_delay_ms(struct limiter *limiter, int64_t now_ms)
{
    double elapsed_ms = (double)(now_ms - limiter->filled_ms);
    limiter->filled_ms = now_ms;
    fill(&limiter->requests, limiter->requests_per_minute, elapsed_ms);
    fill(&limiter->tokens, limiter->tokens_per_minute, elapsed_ms);
    int64_t requests_ms = until(limiter->requests, 1, limiter->requests_per_minute);
    int64_t tokens_ms = until(limiter->tokens, 0, limiter->tokens_per_minute);
    return requests_ms > tokens_ms ? requests_ms : tokens_ms;
}

void limiter_request(struct limiter *limiter)
{
    if (limiter->requests_per_minute > 0)
        limiter->requests -= 1;
}

void limiter_tokens(struct limiter *limiter, int64_t tokens)
{
    if (limiter->tokens_per_minute > 0 && tokens > 0)
        limiter->tokens -= (double)tokens;
}
