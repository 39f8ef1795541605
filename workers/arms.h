/* The arms that a worker serves: which model, and where. */
#ifndef WORKERS_ARMS_H
#define WORKERS_ARMS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/err.h"
#include "workers/arm_state.h"

#define ARMS_MAX 256 /* what a `ready` message holds */

struct arm {
    char *name;                       /* alias@place */
    const struct config_model *model; /* borrowed from the config */
    bool local;                       /* runs on the team's own hardware */
    char *paused;                     /* why it is not served for now; NULL: it is */
    struct arm_state *state;          /* whether its model is loaded; changes with each call */
};

struct arms {
    struct arm *items;
    size_t n;
};

/* The arms of the worker's models: list, or of all models of its provider. place is the provider's
 * name for a remote model, <host> or <host>/gpu<N> (a UUID: <host>/<UUID>) for a local one.
 * provider_local: the provider's kind only runs locally. -EINVAL with a sentence when there is
 * none, or a listed model belongs to another provider; -E2BIG over ARMS_MAX. */
int arms_init(struct arms *ret, const struct config *config, const struct config_worker *worker,
              bool provider_local, const char *host, struct err *err);
void arms_release(struct arms *arms);
const struct arm *arms_find(const struct arms *arms, const char *name); /* NULL: none */

/* Stops serving the arm for now, and serves it again. False: nothing has changed. */
bool arms_pause(struct arms *arms, const char *name, const char *reason);
bool arms_resume(struct arms *arms, const char *name);

/* Whether a model that the provider says has answered is the one asked for: by its own name, or by
 * one of its `served` names. */
bool arms_serves(const struct config_model *model, const char *served);
/* Whether the served model is the one asked for. Case, a path before it, ".gguf", a dated snapshot
 * or "latest" behind it make no difference: gpt-6-sol and gpt-6-sol-2026-09-22 are one. */
bool arms_model_matches(const char *asked, const char *served);

#endif
