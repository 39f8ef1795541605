/* What a model gets from its provider and from the shipped registry, and what must be true of it
 * beyond its table. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "common/model_registry.h"
#include "schemas/mem.h"

static bool unset(const struct yaml_node *node, const char *key)
{
    return yaml_is_null(yaml_map_get(node, key));
}

/* --- the registry ------------------------------------------------------------------------- */

static int copy_texts(char ***ret, size_t *ret_count, char *const *texts, size_t count)
{
    if (count == 0)
        return 0;
    char **copy = mem_zalloc((count + 1) * sizeof *copy);
    if (copy == NULL)
        return -ENOMEM;
    *ret = copy;
    for (*ret_count = 0; *ret_count < count; ++*ret_count)
        if (config_replace_text(&copy[*ret_count], texts[*ret_count], strlen(texts[*ret_count])))
            return -ENOMEM;
    return 0;
}

static int copy_prices(struct config_model *model, const struct config_model *from)
{
    if (from->n_prices == 0)
        return 0;
    model->prices = mem_zalloc((from->n_prices + 1) * sizeof *model->prices);
    if (model->prices == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < from->n_prices; i++) {
        struct config_price *price = &model->prices[model->n_prices++];
        *price = from->prices[i];
        price->from = NULL;
        if (from->prices[i].from != NULL &&
            config_replace_text(&price->from, from->prices[i].from, strlen(from->prices[i].from)))
            return -ENOMEM;
    }
    return 0;
}

/* What the file does not set. A model on own hardware costs nothing. */
static int fill(struct config_model *model, const struct model_registry_row *row,
                const struct yaml_node *node)
{
    const struct config_model *known = &row->model;
    int rc = 0;
    if (unset(node, "context"))
        model->context = known->context;
    if (unset(node, "max_output"))
        model->max_output = known->max_output;
    if (unset(node, "capabilities"))
        rc = copy_texts(&model->capabilities, &model->n_capabilities, known->capabilities,
                        known->n_capabilities);
    if (rc == 0 && unset(node, "refuses"))
        rc = copy_texts(&model->refuses, &model->n_refuses, known->refuses, known->n_refuses);
    if (rc == 0 && unset(node, "price") && !model->local)
        rc = copy_prices(model, known);
    if (rc == 0 && known->endpoint != NULL && strcmp(model->endpoint, "auto") == 0)
        rc = config_replace_text(&model->endpoint, known->endpoint, strlen(known->endpoint));
    return rc;
}

/* --- checks ------------------------------------------------------------------------------- */

/* Seconds, or what Ollama reads as a duration: 10m, 1h30m, 1.5s, -1 (for ever). */
static bool is_keep_alive(const char *text)
{
    static const char *const units[] = {"ns", "us", "ms", "s", "m", "h"};
    text += *text == '-';
    size_t digits = strspn(text, "0123456789");
    if (digits > 0 && text[digits] == '\0')
        return digits <= 9;
    for (; *text != '\0';) {
        digits = strspn(text, "0123456789.");
        size_t unit = 0;
        while (unit < sizeof units / sizeof *units &&
               strncmp(text + digits, units[unit], strlen(units[unit])) != 0)
            unit++;
        if (digits == 0 || digits > 9 || unit == sizeof units / sizeof *units)
            return false;
        text += digits + strlen(units[unit]);
    }
    return digits > 0;
}

static void check_model(struct config_reader *reader, const struct config_model *model,
                        const struct model_registry_row *row, const struct yaml_node *node)
{
    const struct yaml_node *effort = config_node_of(node, "effort");
    if (model->keep_alive != NULL && !is_keep_alive(model->keep_alive))
        config_problem(reader, config_node_of(node, "keep_alive"),
                       "`keep_alive` must be a duration such as 10m or 300s, a number of seconds, "
                       "or -1");
    if (model->context > 0 && model->max_output > model->context)
        config_warning(reader, config_node_of(node, "max_output"),
                       "`max_output` is more than the `context` of %lld",
                       (long long)model->context);
    for (size_t i = 0; i < model->n_served; i++)
        if (strcmp(model->served[i], model->name) == 0)
            config_warning(reader, config_node_of(node, "served"),
                           "`served` has the model's own name: it only needs further ones");
    if (model->effort == NULL)
        return;
    if (model_registry_has(model->refuses, model->n_refuses, "effort"))
        config_warning(reader, effort, "model `%s` takes no `effort`: it is left out",
                       model->alias);
    else if (model->n_capabilities > 0 &&
             !model_registry_has(model->capabilities, model->n_capabilities, "thinking"))
        config_warning(reader, effort,
                       "`effort` does nothing: model `%s` has no capability "
                       "`thinking`",
                       model->alias);
    else if (row != NULL && row->n_efforts > 0 &&
             !model_registry_has(row->efforts, row->n_efforts, model->effort))
        config_warning(reader, effort, "`%s` refuses `effort: %s`, as far as the registry knows",
                       model->name, model->effort);
}

int config_complete_model(struct config_reader *reader, struct config_model *model,
                          const struct yaml_node *node)
{
    if (model->name == NULL &&
        (model->name = mem_strndup(model->alias, strlen(model->alias))) == NULL)
        return -ENOMEM;
    if (model->provider == NULL)
        return 0;
    const struct config_provider *provider = config_provider(reader->config, model->provider);
    if (provider == NULL) {
        config_dangling(reader, config_node_of(node, "provider"), "provider", model->provider,
                        "providers");
        return 0;
    }
    if (provider->base != NULL && provider->api != NULL && strcmp(provider->api, "search") == 0)
        provider = config_provider(reader->config, provider->base); /* who really answers */
    const struct config_api *api =
        provider != NULL && provider->api != NULL ? config_api(provider->api) : NULL;
    if (unset(node, "local"))
        model->local = api != NULL && api->local;
    const struct model_registry *registry = model_registry_shipped();
    if (registry == NULL)
        return -ENOMEM;
    const struct model_registry_row *row =
        api != NULL ? model_registry_find(registry, api->name, model->name) : NULL;
    int rc = row != NULL ? fill(model, row, node) : 0;
    if (rc == 0)
        check_model(reader, model, row, node);
    return rc;
}
