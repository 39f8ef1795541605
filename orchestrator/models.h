/* The parts of `orchestrator models`: the registry with live state, tests of arms, what providers
 * really serve. */
#ifndef ORCHESTRATOR_MODELS_H
#define ORCHESTRATOR_MODELS_H

#include <stdint.h>

#include "orchestrator/client.h"
#include "orchestrator/roster.h"

#define MODELS_ASK_MS 500 /* for brokers to say who is there */

/* Prints all models of the configuration, and who serves them by the roster. */
void models_print(const struct config *config, const struct roster *roster);
void models_print_json(const struct config *config, const struct roster *roster);

/* One arm that somebody may serve; model and place of `model@place`. */
struct models_arm {
    char *arm;
    const struct config_model *model; /* borrowed from the config; never NULL */
    const char *worker;               /* borrowed from the roster; "" */
    const char *state;                /* cold, loading, warm; "" */
    char *paused;                     /* why it is not served for now; NULL: it is */
};
struct models_arms {
    struct models_arm *items;
    size_t n_items;
};
/* The arms that are served or paused, each once, in the order of the configuration's models. */
void models_arms_find(struct models_arms *ret, const struct config *config,
                      const struct roster *roster);
void models_arms_release(struct models_arms *arms);

/* `models --test`: asks each arm, or those of `wanted` (an alias or an arm; NULL: all), a trivial
 * question, prints a table or JSON, and returns the exit code. client: connected. */
int models_test(struct client *client, const struct invocation *invocation, const char *wanted,
                int64_t timeout_ms);
/* `models --refresh`: asks each provider, or one, for its list of models, and compares. */
int models_refresh(struct client *client, const struct invocation *invocation, const char *wanted,
                   int64_t timeout_ms);
/* Asks the brokers; EXIT_DONE, or what is wrong, which has been printed. */
int models_ask_roster(struct client *client, const struct invocation *invocation,
                      struct roster *ret);

/* What is known of a model's size: by its runtime, when that is local, else by its name, which
 * often ends in it (qwen3:8b, gpt-oss-120b). */
struct models_size {
    char parameters[16]; /* "8.2B"; "": not known */
    int64_t bytes;       /* 0: not known */
};
struct models_sizes; /* what local runtimes say */
struct models_sizes *models_sizes_ask(const struct config *config);
struct models_size models_size_of(const struct models_sizes *sizes,
                                  const struct config_model *model);
void models_sizes_free(struct models_sizes **sizes);

#endif
