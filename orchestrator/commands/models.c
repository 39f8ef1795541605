#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/loop.h"
#include "common/price.h"
#include "orchestrator/command.h"
#include "orchestrator/doctor.h"
#include "orchestrator/render.h"
#include "orchestrator/roster.h"
#include "orchestrator/stack.h"

#define ASK_MS 300

static const struct command_option options[] = {
    {"json", 0, NULL, "print a JSON array", false},
    {0},
};

/* Names of the workers that serve the model now, separated by commas. */
static void add_workers(const struct roster *roster, const char *alias, bool json, struct buf *out)
{
    bool any = false;
    for (size_t i = 0; i < roster->n_workers; i++) {
        if (!roster_serves(&roster->workers[i], alias))
            continue;
        if (any)
            buf_add_char(out, ',');
        if (json)
            buf_add_json(out, roster->workers[i].name, strlen(roster->workers[i].name));
        else
            buf_add_str(out, roster->workers[i].name);
        any = true;
    }
}

static void add_string(struct buf *out, const char *key, const char *text)
{
    buf_printf(out, "\"%s\":", key);
    buf_add_json(out, text, strlen(text));
    buf_add_char(out, ',');
}

static void add_json(const struct config *config, const struct config_model *model,
                     const struct roster *roster, struct buf *out)
{
    const struct config_provider *provider = config_provider(config, model->provider);
    buf_add_char(out, '{');
    const struct config_price *price = price_at(model, clock_wall_ms(), 0);
    add_string(out, "alias", model->alias);
    add_string(out, "provider", model->provider);
    add_string(out, "api", provider->api);
    add_string(out, "name", model->name);
    buf_printf(out,
               "\"context\":%lld,\"max_output\":%lld,\"local\":%s,\"price\":{\"input\":%.15g,"
               "\"output\":%.15g,\"cached\":%.15g},\"key\":\"%s\",\"workers\":[",
               (long long)model->context, (long long)model->max_output,
               model->local ? "true" : "false", price != NULL ? price->input : 0,
               price != NULL ? price->output : 0, price != NULL ? price->cached : 0,
               doctor_key_state(provider));
    add_workers(roster, model->alias, true, out);
    buf_add_str(out, "]}");
}

static void print_json(const struct config *config, const struct roster *roster)
{
    struct buf out = {0};
    buf_add_char(&out, '[');
    for (size_t i = 0; i < config->n_models; i++) {
        if (i > 0)
            buf_add_char(&out, ',');
        add_json(config, &config->models[i], roster, &out);
    }
    buf_add_char(&out, ']');
    puts(out.data);
    buf_release(&out);
}

static void add_row(const struct config *config, const struct config_model *model,
                    const struct roster *roster, struct render_table *table)
{
    struct buf workers = {0};
    render_table_add(table, model->alias);
    render_table_add(table, model->provider);
    render_table_add(table, model->name);
    if (model->context > 0)
        render_table_addf(table, "%lld", (long long)model->context);
    else
        render_table_add(table, "-");
    const struct config_price *price = price_at(model, clock_wall_ms(), 0);
    render_table_addf(table, "%g / %g", price != NULL ? price->input : 0,
                      price != NULL ? price->output : 0);
    render_table_add(table, model->local ? "yes" : "no");
    render_table_add(table, doctor_key_state(config_provider(config, model->provider)));
    add_workers(roster, model->alias, false, &workers);
    render_table_add(table, workers.len > 0 ? workers.data : "-");
    buf_release(&workers);
}

static void print_table(const struct config *config, const struct roster *roster)
{
    static const struct render_column columns[] = {
        {"alias", false, 40}, {"provider", false, 0},      {"name", false, 60},
        {"context", true, 0}, {"USD/M in / out", true, 0}, {"local", false, 0},
        {"key", false, 0},    {"workers", false, 60},      {0},
    };
    struct render_table *table = render_table_new(columns);
    for (size_t i = 0; i < config->n_models; i++)
        add_row(config, &config->models[i], roster, table);
    render_table_print(&table, stdout, 0);
}

static int exec(struct invocation *invocation)
{
    struct config *config;
    struct err err = {""};
    struct roster roster = {0};
    if (config_load(&config, invocation_config(invocation), &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    bool running = !config->broker_local || config->n_brokers > 1 || stack_running(config);
    if (running) {
        uv_loop_t loop;
        loop_init(&loop);
        roster_ask(&roster, &loop, config, ASK_MS, NULL);
        loop_finish(&loop);
    }
    if (invocation_has(invocation, "json"))
        print_json(config, &roster);
    else if (config->n_models == 0)
        fprintf(stderr, "there are no models in %s\n", config->path);
    else
        print_table(config, &roster);
    if (config->simulated)
        fputs("these models are SIMULATED\n", stderr);
    if (roster.brokers == 0)
        fputs("no broker answers, so no worker serves them now; `orchestrator up -d` starts the "
              "local stack\n",
              stderr);
    roster_release(&roster);
    config_free(&config);
    return EXIT_DONE;
}

const struct command command_models = {
    .name = "models",
    .args = "",
    .summary = "the models that are configured or found, and who serves them now",
    .options = options,
    .exec = exec,
};
