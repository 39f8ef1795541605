/* What a subtask of a plan's file says besides text, role and dependencies. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/model_registry.h"
#include "orchestrator/plan_check.h"
#include "orchestrator/plan_images.h"
#include "schemas/mem.h"

#define STOP_MAX 4
#define STOP_BYTES 1024 /* what a record may hold */
#define SEED_MAX 1000000000000

const char *const plan_subtask_keys[] = {"id",         "title",  "role", "model",  "prompt",
                                         "depends_on", "kind",   "seed", "images", "temperature",
                                         "max_tokens", "effort", "stop", "cache",  NULL};

static const char *const kinds[] = {"run", "embed", NULL};
static const char *const efforts[] = {CONFIG_EFFORTS, NULL};
static const char *const caches[] = {"auto", "on", "off", NULL};

static bool is_one_of(const char *word, const char *const *choices)
{
    while (*choices != NULL && strcmp(*choices, word) != 0)
        choices++;
    return *choices != NULL;
}

/* A member that must be one of the choices; *ret is borrowed, and as it was when it is missing. */
static int get_choice(const struct yaml *yaml, const struct yaml_node *map, const char *key,
                      const char *const *choices, const char **ret, struct err *err)
{
    char all[128] = "";
    int rc = yaml_get_str(yaml, map, key, ret, err);
    if (rc != 0 || *ret == NULL || is_one_of(*ret, choices))
        return rc;
    for (size_t i = 0; choices[i] != NULL; i++) {
        const char *before = i == 0 ? "" : choices[i + 1] == NULL ? " or " : ", ";
        strncat(all, before, sizeof all - strlen(all) - 1);
        strncat(all, choices[i], sizeof all - strlen(all) - 1);
    }
    return yaml_fail(yaml, yaml_map_get(map, key), err, "`%s` must be %s", key, all);
}

static int read_stop(struct plan_settings *settings, const struct yaml *yaml,
                     const struct yaml_node *node, struct err *err)
{
    const char **stop = NULL;
    size_t n_stop = 0;
    const struct yaml_node *at = yaml_map_get(node, "stop");
    int rc = yaml_get_strs(yaml, node, "stop", &stop, &n_stop, err);
    if (rc == 0 && n_stop > STOP_MAX)
        rc = yaml_fail(yaml, at, err, "`stop` has more than %d strings", STOP_MAX);
    for (size_t i = 0; rc == 0 && i < n_stop; i++)
        if (*stop[i] == '\0' || strlen(stop[i]) > STOP_BYTES)
            rc = yaml_fail(yaml, at, err, "each of `stop` must have 1 to %d bytes", STOP_BYTES);
    if (rc == 0 && n_stop > 0) {
        settings->stop = mem_must_zalloc(n_stop * sizeof *settings->stop);
        for (settings->n_stop = 0; settings->n_stop < n_stop; settings->n_stop++)
            settings->stop[settings->n_stop] = mem_must_strdup(stop[settings->n_stop]);
    }
    free(stop);
    return rc;
}

static int read_images(struct plan_subtask *ret, const struct yaml *yaml,
                       const struct yaml_node *node, const char *folder, struct err *err)
{
    const struct yaml_node *list = yaml_map_get(node, "images");
    struct plan_images images = {0};
    const char **where = NULL;
    size_t count = 0;
    int rc = yaml_get_strs(yaml, node, "images", &where, &count, err);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct err why = {""};
        const struct yaml_node *at = list->type == YAML_SEQ ? yaml_at(list, i) : list;
        if (plan_images_add(&images, where[i], folder, &why) != 0)
            rc = yaml_fail(yaml, at, err, "%s", why.text);
    }
    if (rc == 0 && count > 0)
        ret->images = plan_images_take(&images);
    plan_images_release(&images);
    free(where);
    return rc;
}

/* What a vector is made without. */
static int check_embed(const struct yaml *yaml, const struct yaml_node *node, struct err *err)
{
    static const char *const idle[] = {"images", "temperature", "max_tokens", "seed",
                                       "stop",   "effort",      "cache"};
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) {
        const struct yaml_node *at = yaml_map_get(node, idle[i]);
        if (!yaml_is_null(at))
            return yaml_fail(yaml, at, err, "`%s` does nothing with `kind: embed`", idle[i]);
    }
    return 0;
}

int plan_settings_read(struct plan_subtask *ret, const struct yaml *yaml,
                       const struct yaml_node *node, const char *folder, struct err *err)
{
    struct plan_settings *settings = &ret->settings;
    const char *kind = NULL, *effort = NULL, *cache = NULL;
    int rc = get_choice(yaml, node, "kind", kinds, &kind, err);
    ret->embed = kind != NULL && strcmp(kind, "embed") == 0;
    if (rc == 0 && ret->embed)
        rc = check_embed(yaml, node, err);
    if (rc == 0)
        rc = yaml_get_num(yaml, node, "temperature", 0, 2, &settings->temperature, err);
    if (rc == 0)
        rc = yaml_get_int(yaml, node, "max_tokens", 1, 1000000000, &settings->max_tokens, err);
    if (rc == 0)
        rc = yaml_get_int(yaml, node, "seed", 0, SEED_MAX, &settings->seed, err);
    if (rc == 0)
        rc = get_choice(yaml, node, "effort", efforts, &effort, err);
    if (rc == 0)
        rc = get_choice(yaml, node, "cache", caches, &cache, err);
    if (rc == 0)
        rc = read_stop(settings, yaml, node, err);
    if (rc == 0)
        rc = read_images(ret, yaml, node, folder, err);
    if (rc == 0 && effort != NULL)
        settings->effort = mem_must_strdup(effort);
    if (rc == 0 && cache != NULL)
        settings->cache = mem_must_strdup(cache);
    return rc;
}

void plan_settings_release(struct plan_settings *settings)
{
    for (size_t i = 0; i < settings->n_stop; i++)
        free(settings->stop[i]);
    free(settings->stop);
    free(settings->effort);
    free(settings->cache);
    *settings = (struct plan_settings)PLAN_SETTINGS_NONE;
}

int plan_check_effort(const char *effort, struct err *err)
{
    if (is_one_of(effort, efforts))
        return 0;
    return err_set(err, -EINVAL, "`%.32s` is no effort: none, minimal, low, medium or high",
                   effort);
}

static bool embeds(const struct config_model *model)
{
    return model_registry_has(model->capabilities, model->n_capabilities, "embeddings");
}

/* Whether the role names a model that makes embeddings, or that nothing is known of. */
static bool role_embeds(const struct config *config, const char *name)
{
    const struct config_role *role = config_role(config, name);
    for (size_t i = 0; role != NULL && i < role->n_models; i++) {
        const struct config_model *model = config_model(config, role->models[i]);
        if (model != NULL && (model->n_capabilities == 0 || embeds(model)))
            return true;
    }
    return false;
}

int plan_settings_embed(struct plan_subtask *subtask, const struct config *config, struct err *err)
{
    const struct config_model *found = NULL;
    if (*subtask->model == '\0' && role_embeds(config, subtask->role))
        return 0;
    if (*subtask->model != '\0') {
        const struct config_model *model = config_model(config, subtask->model);
        if (model != NULL && model->n_capabilities > 0 && !embeds(model))
            return err_set(err, -EINVAL, "model `%s` makes no embeddings", subtask->model);
        return 0;
    }
    for (int local = 1; local >= 0; local--)
        for (size_t i = 0; found == NULL && i < config->n_models; i++)
            if (config->models[i].local == (local == 1) && embeds(&config->models[i]))
                found = &config->models[i];
    if (found == NULL)
        return err_set(err, -EINVAL,
                       "no model of %s has the capability `embeddings`: name one with `model`",
                       config->path);
    free(subtask->model);
    subtask->model = mem_must_strdup(found->alias);
    return 0;
}

int plan_embed(struct plan *plan, const struct config *config, struct err *err)
{
    int rc = 0;
    plan->synthesize = false;
    for (size_t i = 0; rc == 0 && i < plan->n_subtasks; i++) {
        plan->subtasks[i].embed = true;
        rc = plan_settings_embed(&plan->subtasks[i], config, err);
    }
    return rc;
}
