#include "workers/arms.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "schemas/mem.h"

static char *arm_name(const struct config_model *model, const struct config_worker *worker,
                      bool local, const char *host)
{
    if (!local)
        return mem_must_printf("%s@%s", model->alias, worker->provider);
    if (worker->gpu == NULL || worker->gpu[0] == '\0')
        return mem_must_printf("%s@%s", model->alias, host);
    const char *gpu = isdigit((unsigned char)worker->gpu[0]) ? "gpu" : "";
    return mem_must_printf("%s@%s/%s%s", model->alias, host, gpu, worker->gpu);
}

static void add(struct arms *arms, const struct config_model *model,
                const struct config_worker *worker, const char *api, bool provider_local,
                const char *host)
{
    bool local = model->local || provider_local;
    struct arm_state *state = mem_must_zalloc(sizeof *state);
    arm_state_init(state, api, model->keep_alive, local, worker->n_launch > 0);
    arms->items = mem_must_realloc(arms->items, (arms->n + 1) * sizeof *arms->items);
    arms->items[arms->n++] = (struct arm){
        .name = arm_name(model, worker, local, host),
        .model = model,
        .local = local,
        .state = state,
    };
}

static const char *api_of(const struct config *config, const struct config_worker *worker)
{
    const struct config_provider *provider = config_provider(config, worker->provider);
    return provider != NULL && provider->api != NULL ? provider->api : "";
}

static int add_listed(struct arms *arms, const struct config *config,
                      const struct config_worker *worker, bool provider_local, const char *host,
                      struct err *err)
{
    for (size_t i = 0; i < worker->n_models; i++) {
        const struct config_model *model = config_model(config, worker->models[i]);
        if (model == NULL)
            return err_set(err, -EINVAL,
                           "worker %s lists the model %s, which is not under models:", worker->name,
                           worker->models[i]);
        if (strcmp(model->provider, worker->provider) != 0)
            return err_set(err, -EINVAL,
                           "worker %s serves %s, but its model %s belongs to %s: list it under "
                           "a worker of that provider",
                           worker->name, worker->provider, model->alias, model->provider);
        add(arms, model, worker, api_of(config, worker), provider_local, host);
    }
    return 0;
}

int arms_init(struct arms *ret, const struct config *config, const struct config_worker *worker,
              bool provider_local, const char *host, struct err *err)
{
    struct arms arms = {0};
    int rc = add_listed(&arms, config, worker, provider_local, host, err);
    for (size_t i = 0; worker->n_models == 0 && i < config->n_models; i++)
        if (strcmp(config->models[i].provider, worker->provider) == 0)
            add(&arms, &config->models[i], worker, api_of(config, worker), provider_local, host);
    if (rc == 0 && arms.n == 0)
        rc = err_set(err, -EINVAL,
                     "worker %s has nothing to serve: add a model with provider: %s under models:",
                     worker->name, worker->provider);
    if (rc == 0 && arms.n > ARMS_MAX)
        rc = err_set(err, -E2BIG,
                     "worker %s serves %zu models, more than %d: list some under its "
                     "models:",
                     worker->name, arms.n, ARMS_MAX);
    if (rc != 0)
        arms_release(&arms);
    else
        *ret = arms;
    return rc;
}

void arms_release(struct arms *arms)
{
    for (size_t i = 0; i < arms->n; i++) {
        free(arms->items[i].name);
        free(arms->items[i].paused);
        free(arms->items[i].state);
    }
    free(arms->items);
    *arms = (struct arms){0};
}

const struct arm *arms_find(const struct arms *arms, const char *name)
{
    for (size_t i = 0; i < arms->n; i++)
        if (strcmp(arms->items[i].name, name) == 0)
            return &arms->items[i];
    return NULL;
}

static struct arm *find(struct arms *arms, const char *name)
{
    for (size_t i = 0; i < arms->n; i++)
        if (strcmp(arms->items[i].name, name) == 0)
            return &arms->items[i];
    return NULL;
}

bool arms_pause(struct arms *arms, const char *name, const char *reason)
{
    struct arm *arm = find(arms, name);
    if (arm == NULL || (arm->paused != NULL && strcmp(arm->paused, reason) == 0))
        return false;
    free(arm->paused);
    arm->paused = mem_must_strdup(reason);
    return true;
}

bool arms_resume(struct arms *arms, const char *name)
{
    struct arm *arm = find(arms, name);
    if (arm == NULL || arm->paused == NULL)
        return false;
    free(arm->paused);
    arm->paused = NULL;
    return true;
}

bool arms_serves(const struct config_model *model, const char *served)
{
    if (arms_model_matches(model->name, served))
        return true;
    for (size_t i = 0; i < model->n_served; i++)
        if (arms_model_matches(model->served[i], served))
            return true;
    return false;
}

/* The name without what stands before its last slash, and its length without ".gguf". */
static const char *base_name(const char *name, size_t *ret_len)
{
    const char *slash = strrchr(name, '/');
    const char *base = slash != NULL ? slash + 1 : name;
    size_t len = strlen(base);
    if (len > 5 && strcasecmp(base + len - 5, ".gguf") == 0)
        len -= 5;
    *ret_len = len;
    return base;
}

/* Whether the rest of a name only says which build of the same model it is. */
static bool is_snapshot(const char *rest, size_t len)
{
    static const char *const words[] = {"latest", "default"};
    if (len == 0)
        return true;
    if (strchr("-:@", rest[0]) == NULL)
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (len - 1 == strlen(words[i]) && strncasecmp(rest + 1, words[i], len - 1) == 0)
            return true;
    size_t digits = 0;
    for (size_t i = 1; i < len; i++) {
        if (!isdigit((unsigned char)rest[i]) && rest[i] != '-')
            return false;
        digits += isdigit((unsigned char)rest[i]) != 0;
    }
    return digits >= 3; /* -001, -0613, -20250929, -2026-09-22; not the -4 of gpt-4 */
}

bool arms_model_matches(const char *asked, const char *served)
{
    size_t asked_len, served_len;
    asked = base_name(asked, &asked_len);
    served = base_name(served, &served_len);
    size_t common = asked_len < served_len ? asked_len : served_len;
    if (common == 0)
        return asked_len == served_len;
    if (strncasecmp(asked, served, common) != 0)
        return false;
    if (served_len > common)
        return is_snapshot(served + common, served_len - common);
    /* asked for a snapshot, or for one provider of a router (name:provider) */
    return is_snapshot(asked + common, asked_len - common) ||
           (asked[common] == ':' && strchr(asked + common, '/') == NULL &&
            isalpha((unsigned char)asked[common + 1]));
}
