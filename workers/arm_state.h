/* Whether the model of a local arm is loaded, as far as calls and our own runtime tell: what to
 * expect of the next call. */
#ifndef WORKERS_ARM_STATE_H
#define WORKERS_ARM_STATE_H

#include <stdbool.h>
#include <stdint.h>

enum arm_state_name {
    ARM_STATE_UNKNOWN, /* not local */
    ARM_STATE_COLD,    /* not loaded, or unloaded by now */
    ARM_STATE_LOADING, /* a call waits for it, or the runtime starts */
    ARM_STATE_WARM,
};
const char *arm_state_text(enum arm_state_name state); /* "", cold, loading, warm */

/* Plain data; times are monotonic ms. */
struct arm_state {
    bool local;
    bool owned;               /* the worker has launched its runtime: healthy is warm */
    bool healthy;             /* owned: now */
    int64_t keep_ms;          /* unloaded after so long without a call; -1: never */
    int64_t calls;            /* under way */
    bool loaded;              /* some call had a token since it was last cold */
    int64_t used_ms;          /* end of the last call */
    enum arm_state_name told; /* what others have heard */
};

/* api: what its runtime does by itself (Ollama unloads after 5 min, LM Studio after 60, the others
 * never); keep_alive: the model's setting, "10m", "300s", "1h30m", seconds as a number, negative:
 * for ever; NULL: none. */
void arm_state_init(struct arm_state *state, const char *api, const char *keep_alive, bool local,
                    bool owned);
void arm_state_call(struct arm_state *state, int64_t now_ms); /* a call begins */
void arm_state_token(struct arm_state *state);                /* its first token came */
void arm_state_end(struct arm_state *state, int64_t now_ms);  /* it ended */
void arm_state_health(struct arm_state *state, bool healthy); /* of our own runtime */
enum arm_state_name arm_state_at(const struct arm_state *state, int64_t now_ms);
/* "10m" and its like in ms; -1: for ever; -2: not readable. */
int64_t arm_state_keep_ms(const char *keep_alive);

#endif
