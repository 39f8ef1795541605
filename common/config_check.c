/* What deserves a word once a configuration is complete: roles that cannot be served, settings
 * that do nothing, budgets that cannot be kept. */
#include <string.h>

#include "common/config_tables.h"
#include "common/model_registry.h"

#define STOP_MAX 4
#define STOP_BYTES 1024 /* what a record may hold */

static bool has_all(const struct config_model *model, const struct config_role *role)
{
    for (size_t i = 0; i < role->n_tags; i++)
        if (!model_registry_has(model->tags, model->n_tags, role->tags[i]))
            return false;
    return true;
}

/* Tags that nothing has, and models in a role's list that lack one. */
static void check_tags(struct config_reader *reader, const struct config_role *role,
                       const struct yaml_node *node)
{
    const struct config *config = reader->config;
    size_t suiting = 0;
    if (role->n_tags == 0)
        return;
    for (size_t t = 0; t < role->n_tags; t++) {
        bool any = false;
        for (size_t i = 0; i < config->n_models && !any; i++)
            any =
                model_registry_has(config->models[i].tags, config->models[i].n_tags, role->tags[t]);
        if (!any)
            config_warning(reader, config_node_of(node, "tags"), "no model has the tag `%.64s`",
                           role->tags[t]);
    }
    for (size_t i = 0; i < role->n_models; i++) {
        const struct config_model *model = config_model(config, role->models[i]);
        if (model == NULL || has_all(model, role))
            suiting++;
        else
            config_warning(reader, config_node_of(node, "models"),
                           "role `%s` never uses model `%s`, which lacks one of its tags",
                           role->name, model->alias);
    }
    if (suiting == 0 && config->n_models > 0)
        config_warning(reader, config_node_of(node, "tags"),
                       "no model has all tags of role `%s`: nothing can run its subtasks",
                       role->name);
}

static bool may_think(const struct config_model *model)
{
    return (model->n_capabilities == 0 ||
            model_registry_has(model->capabilities, model->n_capabilities, "thinking")) &&
           !model_registry_has(model->refuses, model->n_refuses, "effort");
}

static void check_effort(struct config_reader *reader, const struct config_role *role,
                         const struct yaml_node *node)
{
    bool any = role->n_models == 0;
    for (size_t i = 0; i < role->n_models && !any; i++) {
        const struct config_model *model = config_model(reader->config, role->models[i]);
        any = model == NULL || may_think(model);
    }
    if (role->effort != NULL && strcmp(role->effort, "none") != 0 && !any)
        config_warning(reader, config_node_of(node, "effort"),
                       "`effort` does nothing: no model of role `%s` has the capability `thinking`",
                       role->name);
}

static void check_embeds(struct config_reader *reader, const struct config_role *role,
                         const struct yaml_node *node)
{
    for (size_t i = 0; i < role->n_models; i++) {
        const struct config_model *model = config_model(reader->config, role->models[i]);
        if (model != NULL && model_registry_only_embeds(model))
            config_warning(reader, config_node_of(node, "models"),
                           "model `%s` of role `%s` makes embeddings and answers no prompts",
                           model->alias, role->name);
    }
}

static void check_offline(struct config_reader *reader, const struct config_role *role,
                          const struct yaml_node *node)
{
    for (size_t i = 0; i < role->n_models; i++) {
        const struct config_model *model = config_model(reader->config, role->models[i]);
        if (model == NULL || model->local)
            return;
    }
    config_warning(reader, config_node_of(node, "models"),
                   "`routing.mode` is offline and role `%s` has no local model: nothing can run "
                   "its subtasks",
                   role->name);
}

static void check_role(struct config_reader *reader, const struct config_role *role,
                       const struct yaml_node *node)
{
    const struct config_budget *own = &role->budget, *all = &reader->config->budget;
    if (role->temperature < 0 && role->temperature > -1)
        config_problem(reader, config_node_of(node, "temperature"),
                       "`temperature` must be a number from 0 to 2");
    if (role->n_stop > STOP_MAX)
        config_problem(reader, config_node_of(node, "stop"), "`stop` has more than %d strings",
                       STOP_MAX);
    for (size_t i = 0; i < role->n_stop; i++)
        if (strlen(role->stop[i]) > STOP_BYTES)
            config_problem(reader, config_node_of(node, "stop"),
                           "a string of `stop` has more than %d bytes", STOP_BYTES);
    if ((all->task_usd > 0 && own->task_usd > all->task_usd) ||
        (all->task_tokens > 0 && own->task_tokens > all->task_tokens) ||
        (all->day_usd > 0 && own->day_usd > all->day_usd) ||
        (all->day_tokens > 0 && own->day_tokens > all->day_tokens))
        config_warning(reader, config_node_of(node, "budget"),
                       "the `budget` of role `%s` is more than that of everything: it is never "
                       "reached",
                       role->name);
    check_tags(reader, role, node);
    check_effort(reader, role, node);
    check_embeds(reader, role, node);
    if (reader->config->offline && !yaml_is_null(yaml_map_get(node, "models")))
        check_offline(reader, role, node);
}

void config_check_roles(struct config_reader *reader, const struct yaml_node *roles)
{
    const struct config *config = reader->config;
    const struct yaml_node *node = roles != NULL ? roles->first : NULL;
    for (size_t i = 0; i < config->n_roles && node != NULL; i++, node = node->next)
        check_role(reader, &config->roles[i], node);
}

/* A call without a price costs nothing, as far as a budget can tell. */
static void check_prices(struct config_reader *reader)
{
    const struct config *config = reader->config;
    const struct yaml *outer = reader->yaml;
    bool limited = config->budget.task_usd > 0 || config->budget.day_usd > 0;
    for (size_t i = 0; i < config->n_roles; i++)
        limited |= config->roles[i].budget.task_usd > 0 || config->roles[i].budget.day_usd > 0;
    for (size_t i = 0; limited && i < config->n_models; i++) {
        const struct config_model *model = &config->models[i];
        if (model->local || model->n_prices > 0)
            continue;
        reader->yaml = reader->models[i].yaml;
        config_warning(reader, reader->models[i].node->key,
                       "the price of model `%s` is not known, so its calls count as free in every "
                       "`budget`: give it a `price`",
                       model->alias);
    }
    reader->yaml = outer;
}

void config_check_limits(struct config_reader *reader, const struct yaml_node *root)
{
    const struct config *config = reader->config;
    const struct config_budget *budget = &config->budget;
    const struct yaml_node *node = config_node_of(root, "budget");
    bool local = config->n_models == 0;
    if (budget->day_usd > 0 && budget->task_usd > budget->day_usd)
        config_warning(reader, config_node_of(node, "task_usd"),
                       "`budget.task_usd` is more than `budget.day_usd`: it is never reached");
    if (budget->day_tokens > 0 && budget->task_tokens > budget->day_tokens)
        config_warning(reader, config_node_of(node, "task_tokens"),
                       "`budget.task_tokens` is more than `budget.day_tokens`: it is never "
                       "reached");
    config_check_redis(reader, root);
    check_prices(reader);
    for (size_t i = 0; i < config->n_models; i++)
        local |= config->models[i].local;
    if (config->offline && !local)
        config_warning(reader, config_node_of(config_node_of(root, "routing"), "mode"),
                       "`routing.mode` is offline and no model is local: nothing can run");
}
