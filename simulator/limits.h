/* Limits that hold: what each key may ask in any minute and at once, as a provider counts it. What
 * exceeds them is answered 429 with the time to wait. */
#ifndef SIMULATOR_LIMITS_H
#define SIMULATOR_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "schemas/buf.h"

struct sim_limit {            /* of one key; 0: none */
    int64_t requests, tokens; /* in any window; tokens: of prompts and answers */
    int64_t concurrency;
    int64_t window_ms; /* 0: a minute */
};

struct sim_limits;    /* of all keys */
struct sim_limit_key; /* what one key has used */

/* What a call was told, and what its end is counted by. */
struct sim_permit {
    struct sim_limit_key *key; /* NULL: nothing to count */
    struct sim_limit limit;
    uint64_t number; /* among the key's calls */
    bool admitted;
    int64_t retry_ms; /* not admitted: when there is room again */
};

struct sim_limits *sim_limits_new(void);
void sim_limits_free(struct sim_limits **limits); /* accepts NULL */
/* A call comes that will use at least so many tokens. */
struct sim_permit sim_limits_admit(struct sim_limits *limits, const struct sim_limit *limit,
                                   const char *key, int64_t tokens);
/* It is over, and has made so many tokens more. */
void sim_limits_end(struct sim_permit *permit, int64_t tokens);
/* Forgets what was used; calls in flight stay counted. */
void sim_limits_reset(struct sim_limits *limits);

enum sim_limit_style { SIM_LIMIT_OPENAI, SIM_LIMIT_ANTHROPIC };
/* Whether there are limits that headers tell of. */
bool sim_limits_told(const struct sim_permit *permit);
/* The headers of rate limits: OpenAI's with durations, Anthropic's with dates. */
void sim_limits_headers(const struct sim_permit *permit, enum sim_limit_style style,
                        struct buf *out);
/* Appends a JSON array: each key (by its hash) with its counts. */
void sim_limits_print(const struct sim_limits *limits, struct buf *out);

#endif
