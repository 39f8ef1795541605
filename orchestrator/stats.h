/* What attempts tell about an arm: counts, rates and percentiles. */
#ifndef ORCHESTRATOR_STATS_H
#define ORCHESTRATOR_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "schemas/message.h"

struct stats_spread {
    double p50, p95; /* -1: nothing was measured */
};

struct stats_arm {
    const char *arm; /* lives as long as the stats */
    int64_t calls;   /* attempts, whatever became of them; not what the response cache had */
    int64_t done, failed;
    int64_t
        cancelled;  /* by people, or because another attempt was faster: they cost all the same */
    int64_t cached; /* answers that the response cache had; nothing else counts them */
    double success, success_low, success_high; /* done of done + failed, 95% interval; -1: none */
    struct stats_spread queue_ms, ttft_ms, total_ms;
    double prefill_tps, decode_tps; /* tokens a second over all calls; -1: not measured */
    int64_t prompt_tokens, output_tokens;
    double cost_usd;
};

struct stats;
struct stats *stats_new(void);
void stats_free(struct stats **stats); /* accepts NULL */
void stats_add(struct stats *stats, const struct msg_timing *attempt);
/* One row per arm, most calls first; valid until the next stats_add(). */
const struct stats_arm *stats_arms(struct stats *stats, size_t *ret_count);

/* Wilson's score interval of `done` successes in `calls` trials at 95%. */
void stats_wilson(int64_t done, int64_t calls, double *ret_low, double *ret_high);
/* The value below which a share of the values lies, by nearest rank; sorts them. -1: no values. */
double stats_percentile(double *values, size_t count, double share);

#endif
