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

/* A runtime that reports how long a call waited for the model counts its own overhead, too: what is
 * shorter was no load. */
#define ARM_STATE_LOAD_MS 500

/* Plain data; times are monotonic ms. */
struct arm_state {
    bool local;
    bool owned;               /* the worker has launched its runtime: healthy is warm */
    bool healthy;             /* owned: now */
    int64_t keep_ms;          /* unloaded after so long without a call; -1: never */
    int64_t calls;            /* under way */
    bool loaded;              /* some call had a token since it was last cold */
    int64_t used_ms;          /* end of the last call */
    double load_ms;           /* the last load, as the runtime reported it; 0: none known */
    int64_t reloads;          /* loads in spite of being warm */
    int64_t told_reloads;     /* that others have heard of */
    enum arm_state_name told; /* what others have heard */
};

/* api: what its runtime does by itself (Ollama unloads after 5 min, LM Studio after 60, the others
 * never); keep_alive: the model's setting, "10m", "300s", "1h30m", seconds as a number, negative:
 * for ever; NULL: none. */
void arm_state_init(struct arm_state *state, const char *api, const char *keep_alive, bool local,
                    bool owned);
/* A call begins. Returns whether it can count on a loaded model. */
bool arm_state_call(struct arm_state *state, int64_t now_ms);
void arm_state_token(struct arm_state *state); /* its first token came */
/* It has told how long it waited for the model, -1: it has not; warm: what arm_state_call() said. A
 * model that was warm was loaded anew: another context, another model or another client took its
 * place. */
void arm_state_load(struct arm_state *state, bool warm, double load_ms);
void arm_state_lost(struct arm_state *state); /* nothing listens: no model is loaded */
void arm_state_end(struct arm_state *state, int64_t now_ms);  /* it ended */
void arm_state_health(struct arm_state *state, bool healthy); /* of our own runtime */
enum arm_state_name arm_state_at(const struct arm_state *state, int64_t now_ms);
/* "10m" and its like in ms; -1: for ever; -2: not readable. */
int64_t arm_state_keep_ms(const char *keep_alive);

#endif
