#include "orchestrator/route.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "orchestrator/plan_check.h"

struct candidates {
    const struct config_model *models[ROUTE_MAX];
    size_t count;
};

static void add(struct candidates *candidates, const struct config_model *model)
{
    for (size_t i = 0; i < candidates->count; i++)
        if (candidates->models[i] == model)
            return;
    if (model != NULL && candidates->count < ROUTE_MAX)
        candidates->models[candidates->count++] = model;
}

static void add_role(struct candidates *candidates, const struct config *config,
                     const struct config_role *role)
{
    for (size_t i = 0; i < role->n_models; i++)
        add(candidates, config_model(config, role->models[i]));
    for (size_t i = 0; role->n_models == 0 && i < config->n_models; i++)
        add(candidates, &config->models[i]);
}

/* How many arms `alias@...` are in `avoid`. */
static size_t avoided(const char *avoid, const char *alias)
{
    size_t len = strlen(alias), count = 0;
    while (*avoid != '\0') {
        size_t word = strcspn(avoid, " ");
        count +=
            word >= len && memcmp(avoid, alias, len) == 0 && (word == len || avoid[len] == '@');
        avoid += word;
        avoid += strspn(avoid, " ");
    }
    return count;
}

static bool serves(const struct config_worker *worker, const struct config_model *model)
{
    if (strcmp(worker->provider, model->provider) != 0)
        return false;
    for (size_t i = 0; i < worker->n_models; i++)
        if (strcmp(worker->models[i], model->alias) == 0)
            return true;
    return worker->n_models == 0;
}

/* How many arms the model may have: a remote one has its provider's alone, a local one a place for
 * each of its workers. */
static size_t most_arms(const struct config *config, const struct config_model *model)
{
    size_t count = 0;
    for (size_t i = 0; model->local && i < config->n_workers; i++)
        count += serves(&config->workers[i], model);
    return count > 1 ? count : 1;
}

/* Leaves out models of which at least one arm is avoided, or, when that would leave nothing, those
 * of which every arm is. */
static void keep_wanted(struct candidates *candidates, const struct config *config,
                        const char *avoid)
{
    size_t kept = 0, possible = 0;
    const struct config_model *others[ROUTE_MAX];
    for (size_t i = 0; i < candidates->count; i++) {
        const struct config_model *model = candidates->models[i];
        size_t arms = avoided(avoid, model->alias);
        if (arms == 0)
            candidates->models[kept++] = model;
        else if (arms < most_arms(config, model))
            others[possible++] = model;
    }
    if (kept == 0)
        memcpy(candidates->models, others, possible * sizeof *others);
    candidates->count = kept > 0 ? kept : possible;
}

static void keep_local(struct candidates *candidates)
{
    size_t kept = 0;
    for (size_t i = 0; i < candidates->count; i++)
        if (candidates->models[i]->local)
            candidates->models[kept++] = candidates->models[i];
    candidates->count = kept;
}

int route_arms(const struct config *config, const struct msg_meta *meta, const char *avoid,
               struct route *ret, struct err *err)
{
    struct candidates candidates = {.count = 0};
    const struct config_role *role = config_role(config, meta->role);
    if (role == NULL)
        role = plan_default_role(config);
    if (*meta->model != '\0')
        add(&candidates, config_model(config, meta->model));
    else
        add_role(&candidates, config, role);
    if (candidates.count == 0 && *meta->model != '\0')
        return err_set(err, -ENOENT,
                       "model `%.64s` is not in %s: define it under models:", meta->model,
                       config->path);
    if (candidates.count == 0)
        return err_set(err, -ENOENT,
                       "no model is configured for role `%s`: add one under models:", role->name);
    if (config->offline)
        keep_local(&candidates);
    if (candidates.count == 0 && *meta->model != '\0')
        return err_set(err, -ENOENT,
                       "routing.mode is offline and model `%.64s` is not local: choose a local one",
                       meta->model);
    if (candidates.count == 0)
        return err_set(err, -ENOENT,
                       "routing.mode is offline and role `%s` has no local model: give it one",
                       role->name);
    keep_wanted(&candidates, config, avoid);
    if (candidates.count == 0)
        return err_set(err, -ENODATA, "it has failed on every model that may run it");
    bool behind_local = false;
    *ret = (struct route){.n_arms = candidates.count};
    for (size_t i = 0; i < candidates.count; i++) {
        ret->arms[i] = candidates.models[i]->alias;
        ret->after_ms[i] = behind_local ? role->spill_ms : 0;
        behind_local = behind_local || candidates.models[i]->local;
    }
    return 0;
}

/* A configured worker that would serve the model; NULL when there is none. */
static const struct config_worker *worker_of(const struct config *config, const char *alias)
{
    const struct config_model *model = config_model(config, alias);
    for (size_t i = 0; model != NULL && i < config->n_workers; i++) {
        const struct config_worker *worker = &config->workers[i];
        if (serves(worker, model))
            return worker;
    }
    return NULL;
}

void route_unserved(const struct config *config, const struct route *route, struct buf *out)
{
    const struct config_worker *worker = NULL;
    buf_add_str(out, "no worker serves ");
    for (size_t i = 0; i < route->n_arms; i++) {
        const char *comma = i == 0 ? "" : i + 1 == route->n_arms ? " or " : ", ";
        buf_printf(out, "%s%s", comma, route->arms[i]);
        if (worker == NULL)
            worker = worker_of(config, route->arms[i]);
    }
    if (worker != NULL)
        buf_printf(out, "; start one: orchestrator-worker --name %s", worker->name);
    else
        buf_add_str(out, "; add a worker of its provider under workers: and start it");
}
