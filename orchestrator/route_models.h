/* The models that a subtask may be run by: the candidates of route.h. */
#ifndef ORCHESTRATOR_ROUTE_MODELS_H
#define ORCHESTRATOR_ROUTE_MODELS_H

#include "orchestrator/route.h"

struct route_models {
    const struct config_model **items; /* in order of preference; owned, the models are not */
    size_t count;
    const struct config_role *role;
    const char *pinned; /* the arm asked for; NULL: any */
};

/* The model of an arm, `alias@place` or `alias` alone; NULL: the config has none. */
const struct config_model *route_model(const struct config *config, const char *arm);
/* Keeps the models that a test is true for; the others' order stays. */
typedef bool route_test_fn(const struct config_model *model, const void *ctx);
void route_models_keep(struct route_models *models, route_test_fn *test, const void *ctx);
/* The same, unless that would leave none. */
void route_models_prefer(struct route_models *models, route_test_fn *test, const void *ctx);
/* Who may run it whatever happened before. -ENOENT with the reason: nobody. To be released in any
 * case. */
int route_models_find(struct route_models *ret, const struct config *config,
                      const struct route_ask *ask, struct err *err);
void route_models_release(struct route_models *models);

#endif
