/* Who is on the bus now: the workers that the brokers know, asked for once. */
#ifndef ORCHESTRATOR_ROSTER_H
#define ORCHESTRATOR_ROSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/loop.h"

struct roster_worker {
    char *name, *provider, *host;
    char **arms; /* model@place */
    size_t n_arms;
    char **states; /* of each arm: cold, loading, warm, or ""; n_states 0: not known */
    size_t n_states;
    char **paused; /* `arm: reason`, of those that it does not serve for now; not among arms */
    size_t n_paused;
    int64_t running, concurrency;
};

struct roster {
    int brokers; /* that answered */
    struct roster_worker *workers;
    size_t n_workers;
};

/* Asks every broker and waits until all have answered, at most timeout_ms. 0, also when only some
 * or none answered: see brokers; what peer_open() fails with. */
int roster_ask(struct roster *ret, uv_loop_t *loop, const struct config *config, int64_t timeout_ms,
               struct err *err);
void roster_release(struct roster *roster);
/* Whether the worker serves the model, by the part of its arms before the @. */
bool roster_serves(const struct roster_worker *worker, const char *alias);
/* Why it does not serve an arm of the model for now; NULL: it does not say so. Borrowed. */
const char *roster_paused(const struct roster_worker *worker, const char *alias);
/* cold, loading or warm: of its arm of the model; "": not known. Borrowed. */
const char *roster_state(const struct roster_worker *worker, const char *alias);

#endif
