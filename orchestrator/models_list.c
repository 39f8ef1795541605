/* The models of the configuration, as a table and as JSON. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/model_registry.h"
#include "common/price.h"
#include "orchestrator/doctor.h"
#include "orchestrator/models.h"
#include "orchestrator/render.h"
#include "orchestrator/task_json.h"
#include "schemas/mem.h"

/* The api whose registry knows the model: of a search, that of its base. */
static const char *api_of(const struct config *config, const struct config_model *model)
{
    const struct config_provider *provider = config_provider(config, model->provider);
    if (provider != NULL && strcmp(provider->api, "search") == 0 && provider->base != NULL)
        provider = config_provider(config, provider->base);
    return provider != NULL ? provider->api : "";
}

/* --- JSON --------------------------------------------------------------------------------- */

static json_t *text_or_null(const char *text)
{
    return text != NULL && *text != '\0' ? task_json_text(text, strlen(text)) : json_null();
}

static json_t *words(char *const *texts, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, text_or_null(texts[i]));
    return list;
}

static json_t *amount(double usd)
{
    return usd >= 0 ? json_real(usd) : json_null();
}

static json_t *price_json(const struct config_price *price)
{
    if (price == NULL)
        return json_null();
    return json_pack("{s:o, s:I, s:f, s:f, s:o, s:o}", "from", text_or_null(price->from),
                     "above_tokens", (json_int_t)price->above_tokens, "input", price->input,
                     "output", price->output, "cached", amount(price->cached), "cache_write",
                     amount(price->cache_write));
}

static json_t *prices_json(const struct config_model *model)
{
    json_t *list = json_array();
    for (size_t i = 0; i < model->n_prices; i++)
        json_array_append_new(list, price_json(&model->prices[i]));
    return list;
}

static json_t *registry_json(const struct config *config, const struct config_model *model)
{
    const struct model_registry *registry = model_registry_shipped();
    const struct model_registry_row *row =
        registry != NULL ? model_registry_find(registry, api_of(config, model), model->name) : NULL;
    if (row == NULL)
        return json_null();
    const char *as_of = row->as_of != NULL ? row->as_of : model_registry_as_of(registry);
    return json_pack("{s:s, s:s, s:b, s:o}", "name", row->model.name, "as_of", as_of, "sure",
                     row->sure, "efforts", words(row->efforts, row->n_efforts));
}

static json_t *arms_json(const struct models_arms *arms, const struct config_model *model)
{
    json_t *list = json_array();
    for (size_t i = 0; i < arms->n_items; i++) {
        const struct models_arm *arm = &arms->items[i];
        if (arm->model == model)
            json_array_append_new(
                list, json_pack("{s:o, s:o, s:o, s:o}", "arm", text_or_null(arm->arm), "worker",
                                text_or_null(arm->worker), "state", text_or_null(arm->state),
                                "paused", text_or_null(arm->paused)));
    }
    return list;
}

static json_t *workers_json(const struct roster *roster, const char *alias)
{
    json_t *list = json_array();
    for (size_t i = 0; i < roster->n_workers; i++)
        if (roster_serves(&roster->workers[i], alias))
            json_array_append_new(list, json_string(roster->workers[i].name));
    return list;
}

static json_t *model_json(const struct config *config, const struct config_model *model,
                          const struct roster *roster, const struct models_arms *arms)
{
    const struct config_provider *provider = config_provider(config, model->provider);
    json_t *object = json_object();
    json_object_set_new(object, "alias", json_string(model->alias));
    json_object_set_new(object, "provider", json_string(model->provider));
    json_object_set_new(object, "api", json_string(provider->api));
    json_object_set_new(object, "name", text_or_null(model->name));
    json_object_set_new(object, "served", words(model->served, model->n_served));
    json_object_set_new(object, "context", json_integer(model->context));
    json_object_set_new(object, "max_output", json_integer(model->max_output));
    json_object_set_new(object, "local", json_boolean(model->local));
    json_object_set_new(object, "price", price_json(price_at(model, clock_wall_ms(), 0)));
    json_object_set_new(object, "prices", prices_json(model));
    json_object_set_new(object, "capabilities", words(model->capabilities, model->n_capabilities));
    json_object_set_new(object, "refuses", words(model->refuses, model->n_refuses));
    json_object_set_new(object, "tags", words(model->tags, model->n_tags));
    json_object_set_new(object, "endpoint", text_or_null(model->endpoint));
    json_object_set_new(object, "effort", text_or_null(model->effort));
    json_object_set_new(object, "keep_alive", text_or_null(model->keep_alive));
    json_object_set_new(object, "strict", json_boolean(model->strict));
    json_object_set_new(object, "key", json_string(doctor_key_state(provider)));
    json_object_set_new(object, "registry", registry_json(config, model));
    json_object_set_new(object, "workers", workers_json(roster, model->alias));
    json_object_set_new(object, "arms", arms_json(arms, model));
    return object;
}

void models_print_json(const struct config *config, const struct roster *roster)
{
    struct models_arms arms;
    json_t *list = json_array();
    models_arms_find(&arms, config, roster);
    for (size_t i = 0; i < config->n_models; i++)
        json_array_append_new(list, model_json(config, &config->models[i], roster, &arms));
    char *text = task_json_dump(list, false);
    puts(text);
    free(text);
    json_decref(list);
    models_arms_release(&arms);
}

/* --- the table ---------------------------------------------------------------------------- */

static void add_words(struct render_table *table, char *const *texts, size_t count)
{
    struct buf out = {0};
    for (size_t i = 0; i < count; i++)
        buf_printf(&out, "%s%s", i > 0 ? "," : "", texts[i]);
    render_table_add(table, out.len > 0 ? out.data : "-");
    buf_release(&out);
}

static void add_price(struct render_table *table, const struct config_model *model)
{
    const struct config_price *price = price_at(model, clock_wall_ms(), 0);
    if (price != NULL)
        render_table_addf(table, "%g / %g", price->input, price->output);
    else
        render_table_add(table, model->local ? "free" : "?");
}

/* place (state), place (paused: reason), ... */
static void add_arms(struct render_table *table, const struct models_arms *arms,
                     const struct config_model *model)
{
    struct buf out = {0};
    for (size_t i = 0; i < arms->n_items; i++) {
        const struct models_arm *arm = &arms->items[i];
        if (arm->model != model)
            continue;
        buf_printf(&out, "%s%s", out.len > 0 ? ", " : "", arm->arm + strlen(model->alias) + 1);
        if (arm->paused != NULL)
            buf_printf(&out, " (paused: %s)", arm->paused);
        else if (arm->state[0] != '\0')
            buf_printf(&out, " (%s)", arm->state);
    }
    render_table_add(table, out.len > 0 ? out.data : "-");
    buf_release(&out);
}

void models_print(const struct config *config, const struct roster *roster)
{
    static const struct render_column columns[] = {
        {"alias", false, 40},
        {"provider", false, 0},
        {"name", false, 50},
        {"context", true, 0},
        {"USD/M in / out", true, 0},
        {"can", false, 0},
        {"tags", false, 30},
        {"local", false, 0},
        {"key", false, 0},
        {"arms", false, 80},
        {0},
    };
    struct models_arms arms;
    struct render_table *table = render_table_new(columns);
    models_arms_find(&arms, config, roster);
    for (size_t i = 0; i < config->n_models; i++) {
        const struct config_model *model = &config->models[i];
        render_table_add(table, model->alias);
        render_table_add(table, model->provider);
        render_table_add(table, model->name);
        if (model->context > 0)
            render_table_addf(table, "%lld", (long long)model->context);
        else
            render_table_add(table, "-");
        add_price(table, model);
        add_words(table, model->capabilities, model->n_capabilities);
        add_words(table, model->tags, model->n_tags);
        render_table_add(table, model->local ? "yes" : "no");
        render_table_add(table, doctor_key_state(config_provider(config, model->provider)));
        add_arms(table, &arms, model);
    }
    render_table_print(&table, stdout, 0);
    models_arms_release(&arms);
}
