#include "orchestrator/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "schemas/mem.h"

struct values {
    double *items;
    size_t count, cap;
};

struct collected {
    UT_hash_handle hh;
    char *arm;
    int64_t calls, done, failed, cancelled, cached, prompt_tokens, output_tokens;
    double cost_usd;
    struct values queue_ms, ttft_ms, total_ms;
    double prefill_tokens, prefill_ms, decode_tokens, decode_ms;
};

struct stats {
    struct collected *by_arm;
    struct stats_arm *rows;
};

struct stats *stats_new(void)
{
    return mem_must_zalloc(sizeof(struct stats));
}

void stats_free(struct stats **stats)
{
    struct collected *arm, *next;
    if (*stats == NULL)
        return;
    HASH_ITER (hh, (*stats)->by_arm, arm, next) {
        HASH_DEL((*stats)->by_arm, arm);
        free(arm->queue_ms.items);
        free(arm->ttft_ms.items);
        free(arm->total_ms.items);
        free(arm->arm);
        free(arm);
    }
    free((*stats)->rows);
    free(*stats);
    *stats = NULL;
}

static void add_value(struct values *values, double value)
{
    if (value < 0)
        return; /* unknown */
    if (values->count == values->cap) {
        values->cap = values->cap == 0 ? 16 : values->cap * 2;
        values->items = mem_must_realloc(values->items, values->cap * sizeof *values->items);
    }
    values->items[values->count++] = value;
}

static struct collected *collected_of(struct stats *stats, const char *name)
{
    struct collected *arm;
    HASH_FIND_STR(stats->by_arm, name, arm);
    if (arm != NULL)
        return arm;
    arm = mem_must_zalloc(sizeof *arm);
    arm->arm = mem_must_strdup(name);
    HASH_ADD_KEYPTR(hh, stats->by_arm, arm->arm, strlen(arm->arm), arm);
    return arm;
}

/* The runtime's own time where it reports it; else the time to the first token stands for the
 * evaluation of the prompt. */
static void add_rates(struct collected *arm, const struct msg_timing *attempt)
{
    double prompt_ms = attempt->prompt_ms > 0 ? attempt->prompt_ms : attempt->ttft_ms;
    int64_t cached = attempt->cached_tokens > 0 ? attempt->cached_tokens : 0;
    if (prompt_ms > 0 && attempt->prompt_tokens > cached) {
        arm->prefill_tokens += (double)(attempt->prompt_tokens - cached);
        arm->prefill_ms += prompt_ms;
    }
    if (attempt->generate_ms > 0 && attempt->output_tokens > 0) {
        arm->decode_tokens += (double)attempt->output_tokens;
        arm->decode_ms += attempt->generate_ms;
    }
}

void stats_add(struct stats *stats, const struct msg_timing *attempt)
{
    struct collected *arm = collected_of(stats, attempt->arm);
    bool done = strcmp(attempt->result, "done") == 0;
    bool failed = strcmp(attempt->result, "failed") == 0;
    if (attempt->cached) {
        arm->cached++;
        return;
    }
    arm->calls++;
    arm->done += done;
    arm->failed += failed;
    arm->cancelled += !done && !failed;
    add_value(&arm->queue_ms, attempt->queue_ms);
    if (attempt->cost_usd > 0)
        arm->cost_usd += attempt->cost_usd;
    if (!done)
        return; /* times of failures say nothing about how long an answer takes */
    add_value(&arm->ttft_ms, attempt->ttft_ms);
    add_value(&arm->total_ms, attempt->total_ms);
    arm->prompt_tokens += attempt->prompt_tokens > 0 ? attempt->prompt_tokens : 0;
    arm->output_tokens += attempt->output_tokens > 0 ? attempt->output_tokens : 0;
    add_rates(arm, attempt);
}

void stats_wilson(int64_t done, int64_t calls, double *ret_low, double *ret_high)
{
    const double z = 1.959963984540054; /* 97.5% of the normal distribution */
    if (calls <= 0) {
        *ret_low = *ret_high = -1;
        return;
    }
    double n = (double)calls, p = (double)done / n;
    double middle = p + z * z / (2 * n);
    double spread = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    *ret_low = fmax(0, (middle - spread) / (1 + z * z / n));
    *ret_high = fmin(1, (middle + spread) / (1 + z * z / n));
}

static int by_value(const void *a, const void *b)
{
    const double *left = a, *right = b;
    return (*left > *right) - (*left < *right);
}

double stats_percentile(double *values, size_t count, double share)
{
    if (count == 0)
        return -1;
    qsort(values, count, sizeof *values, by_value);
    size_t rank = (size_t)ceil(share * (double)count);
    return values[rank > 0 ? rank - 1 : 0];
}

static struct stats_spread spread_of(const struct values *values)
{
    return (struct stats_spread){.p50 = stats_percentile(values->items, values->count, 0.50),
                                 .p95 = stats_percentile(values->items, values->count, 0.95)};
}

static int by_calls(const void *a, const void *b)
{
    const struct stats_arm *left = a, *right = b;
    if (left->calls != right->calls)
        return left->calls > right->calls ? -1 : 1;
    return strcmp(left->arm, right->arm);
}

const struct stats_arm *stats_arms(struct stats *stats, size_t *ret_count)
{
    size_t count = 0;
    struct collected *arm, *next;
    stats->rows =
        mem_must_realloc(stats->rows, (HASH_COUNT(stats->by_arm) + 1) * sizeof *stats->rows);
    HASH_ITER (hh, stats->by_arm, arm, next) {
        struct stats_arm *row = &stats->rows[count++];
        int64_t judged = arm->done + arm->failed;
        *row = (struct stats_arm){
            .arm = arm->arm,
            .calls = arm->calls,
            .done = arm->done,
            .failed = arm->failed,
            .cancelled = arm->cancelled,
            .cached = arm->cached,
            .success = judged > 0 ? (double)arm->done / (double)judged : -1,
            .queue_ms = spread_of(&arm->queue_ms),
            .ttft_ms = spread_of(&arm->ttft_ms),
            .total_ms = spread_of(&arm->total_ms),
            .prefill_tps = arm->prefill_ms > 0 ? arm->prefill_tokens / arm->prefill_ms * 1000 : -1,
            .decode_tps = arm->decode_ms > 0 ? arm->decode_tokens / arm->decode_ms * 1000 : -1,
            .prompt_tokens = arm->prompt_tokens,
            .output_tokens = arm->output_tokens,
            .cost_usd = arm->cost_usd,
        };
        stats_wilson(arm->done, judged, &row->success_low, &row->success_high);
    }
    qsort(stats->rows, count, sizeof *stats->rows, by_calls);
    *ret_count = count;
    return stats->rows;
}
