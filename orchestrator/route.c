#include "orchestrator/route.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "orchestrator/route_models.h"
#include "schemas/error_class.h"

#define OTHER_PLACE_MS                                                                             \
    1000 /* an offer can't name the other places of a model: it tries so soon                      \
          */
#define AFTER_MAX_MS ((int64_t)24 * 3600 * 1000)

/* --- what is avoided -------------------------------------------------------------------------- */

/* A word of `avoid`. */
struct avoided {
    const char *arm;
    size_t len;
    int64_t ms; /* left; -1: for good */
};

/* False at the end. at: behind the word. */
static bool next_avoided(const char **at, struct avoided *ret)
{
    *at += strspn(*at, " ");
    size_t word = strcspn(*at, " ");
    *ret = (struct avoided){*at, word, -1};
    for (size_t i = word; i > 0; i--) {
        char c = (*at)[i - 1];
        if (c >= '0' && c <= '9')
            continue;
        if (c == '=' && i < word) {
            ret->len = i - 1;
            ret->ms = strtoll(*at + i, NULL, 10);
        }
        break;
    }
    if (ret->ms > AFTER_MAX_MS)
        ret->ms = AFTER_MAX_MS;
    *at += word;
    return word > 0;
}

static bool is_arm_of(const struct avoided *avoided, const char *alias)
{
    size_t len = strlen(alias);
    return avoided->len >= len && memcmp(avoided->arm, alias, len) == 0 &&
           (avoided->len == len || avoided->arm[len] == '@');
}

/* What concerns one model, or the one arm of it that may run the subtask. */
struct history {
    size_t failed;   /* arms that are avoided for good */
    size_t blocked;  /* for a while */
    int64_t left_ms; /* until the last of them may be used */
};

static struct history history_of(const char *avoid, const char *name, bool pinned)
{
    struct history history = {0};
    struct avoided avoided;
    while (next_avoided(&avoid, &avoided)) {
        bool same = avoided.len == strlen(name) && memcmp(avoided.arm, name, avoided.len) == 0;
        if (!(pinned ? same : is_arm_of(&avoided, name)))
            continue;
        history.failed += avoided.ms < 0;
        history.blocked += avoided.ms > 0;
        history.left_ms = avoided.ms > history.left_ms ? avoided.ms : history.left_ms;
    }
    return history;
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

/* --- choosing --------------------------------------------------------------------------------- */

struct choice {
    const struct config *config;
    const struct route_ask *ask;
    struct route_models models;
    const char *avoid;
};

static const char *name_of(const struct choice *choice, const struct config_model *model)
{
    return choice->models.pinned != NULL ? choice->models.pinned : model->alias;
}

static struct history history(const struct choice *choice, const struct config_model *model)
{
    return history_of(choice->avoid, name_of(choice, model), choice->models.pinned != NULL);
}

static bool has_not_failed(const struct config_model *model, const void *ctx)
{
    return history(ctx, model).failed == 0;
}

static bool has_places_left(const struct config_model *model, const void *ctx)
{
    const struct choice *choice = ctx;
    size_t most = choice->models.pinned != NULL ? 1 : most_arms(choice->config, model);
    return history(choice, model).failed < most;
}

static bool is_other_model(const struct config_model *model, const void *running)
{
    return model != running;
}

static void keep_wanted(struct choice *choice)
{
    route_models_prefer(&choice->models, has_not_failed, choice);
    route_models_keep(&choice->models, has_places_left, choice);
}

static bool has_larger_window(const struct config_model *model, const void *ctx)
{
    const struct config_model *failed = ctx;
    return model != failed &&
           (model->context == 0 || failed->context == 0 || model->context > failed->context);
}

/* The model of the arm that was avoided last: what the last failure was of. */
static const struct config_model *last_failed(const struct choice *choice)
{
    const char *at = choice->avoid;
    struct avoided avoided, last = {.arm = ""};
    char arm[256];
    while (next_avoided(&at, &avoided))
        if (avoided.ms < 0)
            last = avoided;
    if (last.len == 0 || last.len >= sizeof arm)
        return NULL;
    memcpy(arm, last.arm, last.len);
    arm[last.len] = '\0';
    return route_model(choice->config, arm);
}

static int refuse_window(const struct choice *choice, const struct config_model *failed,
                         struct err *err)
{
    int64_t tokens = choice->ask->meta->prompt_tokens, window = failed->context;
    int64_t needed = tokens > window ? tokens : window;
    if (needed == 0)
        return err_set(err, -EMSGSIZE,
                       "its prompt does not fit the window of %s, and no other model may run it: "
                       "add one with a larger window",
                       failed->alias);
    return err_set(err, -EMSGSIZE,
                   "its prompt does not fit the window of %s, and no other model that may run it "
                   "has a larger one: it needs a window of more than %" PRId64 " tokens",
                   failed->alias, needed);
}

/* Leaves those that are worth another attempt. */
static int keep_promising(struct choice *choice, struct err *err)
{
    const struct route_ask *ask = choice->ask;
    const char *too_long = error_class_name(CLASS_CONTEXT_TOO_LONG);
    const struct config_model *failed = NULL;
    if (ask->error_class != NULL && strcmp(ask->error_class, too_long) == 0)
        failed = last_failed(choice);
    if (ask->running != NULL && *ask->running != '\0')
        route_models_keep(&choice->models, is_other_model,
                          route_model(choice->config, ask->running));
    if (choice->models.count == 0)
        return err_set(err, -ENODATA, "no other model may run it beside %.128s", ask->running);
    keep_wanted(choice);
    if (failed != NULL)
        route_models_keep(&choice->models, has_larger_window, failed);
    if (choice->models.count == 0 && failed != NULL)
        return refuse_window(choice, failed, err);
    if (choice->models.count == 0)
        return err_set(err, -ENODATA, "it has failed on every model that may run it");
    return 0;
}

/* How long the model must not be used. */
static int64_t blocked_ms(const struct choice *choice, const struct config_model *model)
{
    struct history known = history(choice, model);
    bool elsewhere = choice->models.pinned == NULL &&
                     known.blocked + known.failed < most_arms(choice->config, model);
    return elsewhere && known.left_ms > OTHER_PLACE_MS ? OTHER_PLACE_MS : known.left_ms;
}

static void put(struct route *route, const char *arm, int64_t after_ms)
{
    if (route->n_arms == ROUTE_MAX)
        return;
    route->arms[route->n_arms] = arm;
    route->after_ms[route->n_arms++] = after_ms;
}

/* Those that must not be used yet in front, then the others in their order. */
static void order(const struct choice *choice, struct route *ret)
{
    const struct route_models *models = &choice->models;
    int64_t spill_ms = models->role->spill_ms;
    *ret = (struct route){0};
    for (int blocked = 1; blocked >= 0; blocked--) {
        bool behind_local = false;
        for (size_t i = 0; i < models->count; i++) {
            const struct config_model *model = models->items[i];
            int64_t left_ms = blocked_ms(choice, model), usual_ms = behind_local ? spill_ms : 0;
            behind_local = behind_local || (model->local && left_ms == 0);
            if ((left_ms > 0) == (blocked != 0))
                put(ret, name_of(choice, model), left_ms > usual_ms ? left_ms : usual_ms);
        }
    }
}

int route_arms(const struct config *config, const struct route_ask *ask, struct route *ret,
               struct err *err)
{
    struct choice choice = {
        .config = config, .ask = ask, .avoid = ask->avoid != NULL ? ask->avoid : ""};
    int rc = route_models_find(&choice.models, config, ask, err);
    if (rc == 0)
        rc = keep_promising(&choice, err);
    if (rc == 0)
        order(&choice, ret);
    route_models_release(&choice.models);
    return rc;
}

int route_check(const struct config *config, const struct queue_node *node, struct err *err)
{
    struct route_models models;
    struct message meta;
    if (config->n_models == 0)
        return 0;
    if (message_decode_as(&meta, MESSAGE_meta, node->meta.data, node->meta.len) != 0)
        return err_set(err, -EINVAL, "subtask `%s` cannot be read", node->id);
    struct route_ask ask = {.meta = &meta.meta, .wall_ms = clock_wall_ms()};
    int rc = route_models_find(&models, config, &ask, err);
    route_models_release(&models);
    message_release(&meta);
    return rc;
}

/* --- saying why ------------------------------------------------------------------------------- */

/* A configured worker that would serve the arm; NULL when there is none. */
static const struct config_worker *worker_of(const struct config *config, const char *arm)
{
    const struct config_model *model = route_model(config, arm);
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
