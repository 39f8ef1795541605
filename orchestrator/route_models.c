#include "orchestrator/route_models.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/price.h"
#include "orchestrator/plan_check.h"
#include "schemas/mem.h"

const struct config_model *route_model(const struct config *config, const char *arm)
{
    char alias[256];
    const struct config_model *model = config_model(config, arm);
    const char *at = strrchr(arm, '@');
    if (model != NULL || at == NULL || (size_t)(at - arm) >= sizeof alias)
        return model;
    memcpy(alias, arm, (size_t)(at - arm));
    alias[at - arm] = '\0';
    return config_model(config, alias);
}

void route_models_keep(struct route_models *models, route_test_fn *test, const void *ctx)
{
    size_t kept = 0;
    for (size_t i = 0; i < models->count; i++)
        if (test(models->items[i], ctx))
            models->items[kept++] = models->items[i];
    models->count = kept;
}

void route_models_prefer(struct route_models *models, route_test_fn *test, const void *ctx)
{
    for (size_t i = 0; i < models->count; i++)
        if (test(models->items[i], ctx)) {
            route_models_keep(models, test, ctx);
            return;
        }
}

static void add(struct route_models *models, const struct config_model *model)
{
    for (size_t i = 0; i < models->count; i++)
        if (models->items[i] == model)
            return;
    if (model != NULL)
        models->items[models->count++] = model;
}

/* --- when the role names no models -------------------------------------------------------- */

struct ranked {
    const struct config_model *model;
    double usd; /* of a million tokens each way; infinite: not known */
    size_t place;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *left = a, *right = b;
    if (left->model->local != right->model->local)
        return left->model->local ? -1 : 1;
    if (!left->model->local && left->usd != right->usd)
        return left->usd < right->usd ? -1 : 1;
    return left->place < right->place ? -1 : 1;
}

static void add_all(struct route_models *models, const struct config *config,
                    const struct route_ask *ask)
{
    struct ranked *ranked = mem_must_zalloc((config->n_models + 1) * sizeof *ranked);
    for (size_t i = 0; i < config->n_models; i++) {
        const struct config_model *model = &config->models[i];
        const struct config_price *price = price_at(model, ask->wall_ms, ask->meta->prompt_tokens);
        double usd = price != NULL ? price->input + price->output : INFINITY;
        ranked[i] = (struct ranked){model, usd, i};
    }
    qsort(ranked, config->n_models, sizeof *ranked, by_rank);
    for (size_t i = 0; i < config->n_models; i++)
        models->items[models->count++] = ranked[i].model;
    free(ranked);
}

static void collect(struct route_models *models, const struct config *config,
                    const struct route_ask *ask)
{
    const char *asked = ask->meta->model;
    if (*asked != '\0') {
        const struct config_model *model = route_model(config, asked);
        models->pinned = model != NULL && strcmp(model->alias, asked) != 0 ? asked : NULL;
        add(models, model);
        return;
    }
    for (size_t i = 0; i < models->role->n_models; i++)
        add(models, config_model(config, models->role->models[i]));
    if (models->role->n_models == 0)
        add_all(models, config, ask);
}

/* --- tests ------------------------------------------------------------------------------------ */

static bool has_word(char *const *words, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(words[i], word) == 0)
            return true;
    return false;
}

static bool is_tagged(const struct config_model *model, const void *tag)
{
    return has_word(model->tags, model->n_tags, tag);
}

static bool is_local(const struct config_model *model, const void *ctx)
{
    (void)ctx;
    return model->local;
}

static bool may_embed(const struct config_model *model, const void *ctx)
{
    (void)ctx;
    return model->n_capabilities == 0 ||
           has_word(model->capabilities, model->n_capabilities, "embeddings");
}

/* One of which nothing is known is tried. */
static bool may_see(const struct config_model *model, const void *ctx)
{
    (void)ctx;
    return model->n_capabilities == 0 ||
           has_word(model->capabilities, model->n_capabilities, "images");
}

/* What can embed and nothing else is no model to talk to. */
static bool may_talk(const struct config_model *model, const void *ctx)
{
    (void)ctx;
    return model->n_capabilities != 1 || !may_embed(model, NULL);
}

static bool may_hold(const struct config_model *model, const void *tokens)
{
    return model->context == 0 || model->context >= *(const int64_t *)tokens;
}

/* --- finding ---------------------------------------------------------------------------------- */

static int refuse_absent(const struct route_models *models, const struct config *config,
                         const char *asked, struct err *err)
{
    if (*asked != '\0')
        return err_set(err, -ENOENT, "model `%.64s` is not in %s: define it under models:", asked,
                       config->path);
    return err_set(err, -ENOENT, "no model is configured for role `%s`: add one under models:",
                   models->role->name);
}

static int keep_tagged(struct route_models *models, const char *asked, struct err *err)
{
    const struct config_role *role = models->role;
    for (size_t i = 0; i < role->n_tags; i++) {
        route_models_keep(models, is_tagged, role->tags[i]);
        if (models->count > 0)
            continue;
        if (*asked != '\0')
            return err_set(err, -ENOENT,
                           "role `%s` asks for the tag `%s`, which model `%.64s` does not have: "
                           "choose another model or role",
                           role->name, role->tags[i], asked);
        return err_set(err, -ENOENT,
                       "role `%s` asks for the tag `%s`, which none of its models has%s: give it "
                       "to one under models:",
                       role->name, role->tags[i], i > 0 ? " besides the others" : "");
    }
    return 0;
}

static int keep_embedders(struct route_models *models, const char *asked, struct err *err)
{
    route_models_keep(models, may_embed, NULL);
    if (models->count > 0)
        return 0;
    if (*asked != '\0')
        return err_set(err, -ENOENT,
                       "model `%.64s` makes no embeddings: choose one that has embeddings among "
                       "its capabilities",
                       asked);
    return err_set(err, -ENOENT,
                   "no model of role `%s` makes embeddings: give it one that has them among its "
                   "capabilities",
                   models->role->name);
}

static int keep_seeing(struct route_models *models, const char *asked, struct err *err)
{
    route_models_keep(models, may_see, NULL);
    if (models->count > 0)
        return 0;
    if (*asked != '\0')
        return err_set(err, -ENOENT,
                       "model `%.64s` reads no images: choose one that has images among its "
                       "capabilities",
                       asked);
    return err_set(err, -ENOENT,
                   "no model of role `%s` reads images: give it one that has them among its "
                   "capabilities",
                   models->role->name);
}

static int keep_local(struct route_models *models, const struct route_ask *ask, struct err *err)
{
    const char *who = ask->meta->offline ? "the task" : "routing.mode";
    route_models_keep(models, is_local, NULL);
    if (models->count > 0)
        return 0;
    if (*ask->meta->model != '\0')
        return err_set(err, -ENOENT,
                       "%s is offline and model `%.64s` is not local: choose a local one", who,
                       ask->meta->model);
    return err_set(err, -ENOENT, "%s is offline and role `%s` has no local model: give it one", who,
                   models->role->name);
}

int route_models_find(struct route_models *ret, const struct config *config,
                      const struct route_ask *ask, struct err *err)
{
    const struct msg_meta *meta = ask->meta;
    const struct config_role *role = config_role(config, meta->role);
    bool embeds = strcmp(meta->kind, "embed") == 0;
    int rc = 0;
    *ret = (struct route_models){.role = role != NULL ? role : plan_default_role(config)};
    ret->items = mem_must_zalloc((config->n_models + 1) * sizeof *ret->items);
    collect(ret, config, ask);
    if (ret->count == 0)
        return refuse_absent(ret, config, meta->model, err);
    rc = keep_tagged(ret, meta->model, err);
    if (rc == 0 && embeds)
        rc = keep_embedders(ret, meta->model, err);
    if (rc == 0 && meta->images)
        rc = keep_seeing(ret, meta->model, err);
    if (rc == 0 && (config->offline || meta->offline))
        rc = keep_local(ret, ask, err);
    if (rc != 0)
        return rc;
    if (!embeds)
        route_models_prefer(ret, may_talk, NULL);
    if (meta->prompt_tokens > 0)
        route_models_prefer(ret, may_hold, &meta->prompt_tokens);
    return 0;
}

void route_models_release(struct route_models *models)
{
    free(models->items);
    *models = (struct route_models){0};
}
