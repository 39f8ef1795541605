#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/loop.h"
#include "orchestrator/command.h"
#include "orchestrator/doctor.h"
#include "orchestrator/reach.h"
#include "orchestrator/render.h"
#include "orchestrator/roster.h"
#include "orchestrator/stack.h"
#include "schemas/mem.h"

#define ASK_MS 300
#define REACH_MS 3000

static const struct command_option options[] = {
    {"json", 0, NULL, "print one JSON object: providers, apis", false},
    {0},
};

/* One configured provider, and what stands in its way on this machine. */
struct finding {
    const struct config_provider *provider;
    const struct config_api *api;
    char why[1024];                 /* "": usable; else what is missing, and the cure */
    const struct reach_target *url; /* of its server or, for a search, its engine; NULL: none */
};

struct survey {
    const struct config *config;
    struct roster roster;
    struct finding *findings; /* one for each provider of the config, in its order */
    struct reach_target *targets;
};

/* --- what is missing ------------------------------------------------------------------------ */

static bool add_target(struct survey *survey, size_t *n, struct finding *finding, const char *url)
{
    if (url == NULL || !reach_target_of_url(&survey->targets[*n], url))
        return false;
    finding->url = &survey->targets[(*n)++];
    return true;
}

/* Where a connection is tried; doctor tries the same. */
static void choose_targets(struct survey *survey)
{
    size_t n = 0;
    for (size_t i = 0; i < survey->config->n_providers && !survey->config->simulated; i++) {
        struct finding *finding = &survey->findings[i];
        const struct config_provider *provider = finding->provider;
        const char *url = provider->base_url;
        if (strcmp(provider->api, "noop") == 0)
            continue;
        if (strcmp(provider->api, "search") == 0)
            url = provider->engine_url;
        else if (url == NULL)
            url = finding->api->base_url;
        add_target(survey, &n, finding, url);
    }
    reach_all(survey->targets, n, REACH_MS);
}

/* The cure for a place where no key was found. */
static void say_key(char *why, size_t size, const char *what, const char *place)
{
    if (strncmp(place, "env:", 4) == 0)
        snprintf(why, size, "%s is missing: export %s", what, place + 4);
    else
        snprintf(why, size, "%s is missing: it is looked for in %s", what, place);
}

static void check_key(struct finding *finding)
{
    const struct config_provider *provider = finding->provider;
    if (finding->api->key_env != NULL && provider->n_keys == 0)
        snprintf(finding->why, sizeof finding->why, "its key is missing: set `key: env:%s`",
                 finding->api->key_env);
    else if (strcmp(doctor_key_state(provider), "missing") == 0)
        say_key(finding->why, sizeof finding->why, "its key", provider->keys[0]);
}

static void check_plugin(struct finding *finding)
{
    const char *path = finding->provider->plugin;
    if (strcmp(finding->provider->api, "plugin") != 0)
        return;
    if (path == NULL)
        snprintf(finding->why, sizeof finding->why, "`plugin` names no shared object");
    else if (path[0] != '/')
        snprintf(finding->why, sizeof finding->why, "the plug-in %s is no absolute path", path);
    else if (access(path, R_OK) != 0)
        snprintf(finding->why, sizeof finding->why, "the plug-in %s cannot be read: %s", path,
                 strerror(errno));
}

static void check_engine(struct finding *finding)
{
    const struct config_provider *provider = finding->provider;
    const char *engine = provider->engine != NULL ? provider->engine : "duckduckgo";
    const struct config_provider keys = {.keys = provider->engine_keys,
                                         .n_keys = provider->n_engine_keys};
    if (strcmp(provider->api, "search") != 0)
        return;
    if (strcmp(engine, "searxng") == 0 && provider->engine_url == NULL)
        snprintf(finding->why, sizeof finding->why, "the engine searxng needs `engine_url`");
    else if (strcmp(engine, "google") == 0 &&
             (provider->engine_cx == NULL || provider->n_engine_keys == 0))
        snprintf(finding->why, sizeof finding->why, "the engine google needs `%s`",
                 provider->engine_cx == NULL ? "engine_cx" : "engine_key");
    else if (strcmp(doctor_key_state(&keys), "missing") == 0)
        say_key(finding->why, sizeof finding->why, "the engine's key", provider->engine_keys[0]);
}

static void check_reach(struct finding *finding)
{
    const struct reach_target *url = finding->url;
    if (url == NULL || url->reached)
        return;
    snprintf(finding->why, sizeof finding->why, "%s does not answer at %s:%d (%s): %s",
             strcmp(finding->provider->api, "search") == 0 ? "the search engine" : "the server",
             url->host, url->port, url->why,
             finding->api->local ? "start it, or correct `base_url`"
                                 : "check the network, a proxy or a firewall, and the URL");
}

static struct finding *finding_of(const struct survey *survey, const char *name)
{
    for (size_t i = 0; i < survey->config->n_providers; i++)
        if (strcmp(survey->config->providers[i].name, name) == 0)
            return &survey->findings[i];
    return NULL;
}

/* A search is as good as the provider that answers. After all others were looked at. */
static void check_base(const struct survey *survey, struct finding *finding)
{
    const char *base = finding->provider->base;
    if (strcmp(finding->provider->api, "search") != 0 || finding->why[0] != '\0')
        return;
    const struct finding *answers = base != NULL ? finding_of(survey, base) : NULL;
    if (answers == NULL) {
        snprintf(finding->why, sizeof finding->why, "`base` names no provider that answers");
    } else if (answers->why[0] != '\0') {
        char *why = mem_must_strdup(answers->why); /* gcc cannot see that it is another's */
        snprintf(finding->why, sizeof finding->why, "its base is not usable: %.500s: %.400s", base,
                 why);
        free(why);
    }
}

static void look(struct survey *survey)
{
    static void (*const checks[])(struct finding *) = {check_key, check_plugin, check_engine,
                                                       check_reach};
    const struct config *config = survey->config;
    survey->findings = mem_must_zalloc((config->n_providers + 1) * sizeof *survey->findings);
    survey->targets = mem_must_zalloc((config->n_providers + 1) * sizeof *survey->targets);
    for (size_t i = 0; i < config->n_providers; i++)
        survey->findings[i] = (struct finding){.provider = &config->providers[i],
                                               .api = config_api(config->providers[i].api)};
    choose_targets(survey);
    for (size_t i = 0; i < config->n_providers; i++)
        for (size_t j = 0; j < sizeof checks / sizeof *checks; j++)
            if (survey->findings[i].why[0] == '\0')
                checks[j](&survey->findings[i]);
    for (size_t i = 0; i < config->n_providers; i++)
        check_base(survey, &survey->findings[i]);
}

/* --- words ---------------------------------------------------------------------------------- */

/* Names of the workers that serve the provider now, separated by commas. */
static void add_workers(const struct survey *survey, const char *provider, bool json,
                        struct buf *out)
{
    bool any = false;
    for (size_t i = 0; i < survey->roster.n_workers; i++) {
        const struct roster_worker *worker = &survey->roster.workers[i];
        if (strcmp(worker->provider, provider) != 0)
            continue;
        if (any)
            buf_add_char(out, ',');
        if (json)
            buf_add_json(out, worker->name, strlen(worker->name));
        else
            buf_add_str(out, worker->name);
        any = true;
    }
}

static const struct {
    const char *key, *unit;
    size_t offset;
} limits[] = {
#define LIMIT(key, unit)                                                                           \
    {                                                                                              \
#key, unit, offsetof(struct config_provider, key)                                          \
    }
    LIMIT(requests_per_minute, "requests/min"),
    LIMIT(tokens_per_minute, "tokens/min"),
    LIMIT(concurrency, "at once"),
    LIMIT(key_requests_per_minute, "requests/min per key"),
    LIMIT(key_tokens_per_minute, "tokens/min per key"),
    LIMIT(key_concurrency, "at once per key"),
#undef LIMIT
};
#define N_LIMITS (sizeof limits / sizeof *limits)

static int64_t limit_of(const struct config_provider *provider, size_t i)
{
    return *(const int64_t *)(const void *)((const char *)provider + limits[i].offset);
}

static void add_limits(const struct config_provider *provider, struct buf *out)
{
    for (size_t i = 0; i < N_LIMITS; i++)
        if (limit_of(provider, i) > 0)
            buf_printf(out, "%s%lld %s", out->len > 0 ? ", " : "", (long long)limit_of(provider, i),
                       limits[i].unit);
}

static bool is_configured(const struct config *config, const char *api)
{
    for (size_t i = 0; i < config->n_providers; i++)
        if (strcmp(config->providers[i].api, api) == 0)
            return true;
    return false;
}

/* The line below providers: that configures it. */
static void add_recipe(const struct config_api *api, struct buf *out)
{
    if (strcmp(api->name, "search") == 0)
        buf_add_str(out, "research: {api: search, base: PROVIDER, engine: duckduckgo}");
    else if (strcmp(api->name, "plugin") == 0)
        buf_add_str(out, "mine: {api: plugin, plugin: /path/to/provider.so}");
    else if (api->key_env != NULL)
        buf_printf(out, "%s: {api: %s, key: env:%s}", api->name, api->name, api->key_env);
    else if (api->base_url == NULL)
        buf_printf(out, "%s: {api: %s, base_url: \"http://HOST:PORT\"}", api->name, api->name);
    else
        buf_printf(out, "%s: {api: %s}", api->name, api->name);
}

/* --- printing ------------------------------------------------------------------------------- */

static void add_string(struct buf *out, const char *key, const char *text)
{
    buf_printf(out, "\"%s\":", key);
    if (text != NULL)
        buf_add_json(out, text, strlen(text));
    else
        buf_add_str(out, "null");
    buf_add_char(out, ',');
}

static void add_json(const struct survey *survey, const struct finding *finding, struct buf *out)
{
    const struct config_provider *provider = finding->provider;
    bool search = strcmp(provider->api, "search") == 0;
    buf_add_char(out, '{');
    add_string(out, "name", provider->name);
    add_string(out, "api", provider->api);
    add_string(out, "title", finding->api->title);
    buf_printf(out, "\"usable\":%s,", finding->why[0] == '\0' ? "true" : "false");
    add_string(out, "why", finding->why);
    add_string(out, "key", doctor_key_state(provider));
    add_string(out, "base_url",
               provider->base_url != NULL ? provider->base_url : finding->api->base_url);
    add_string(out, "plugin", provider->plugin);
    add_string(out, "base", provider->base);
    add_string(out, "engine", search && provider->engine == NULL ? "duckduckgo" : provider->engine);
    buf_add_str(out, "\"limits\":{");
    for (size_t i = 0; i < N_LIMITS; i++)
        buf_printf(out, "%s\"%s\":%lld", i > 0 ? "," : "", limits[i].key,
                   (long long)limit_of(provider, i));
    buf_add_str(out, "},\"workers\":[");
    add_workers(survey, provider->name, true, out);
    buf_add_str(out, "]}");
}

static void print_json(const struct survey *survey)
{
    size_t count;
    const struct config_api *apis = config_apis(&count);
    struct buf out = {0};
    buf_add_str(&out, "{\"providers\":[");
    for (size_t i = 0; i < survey->config->n_providers; i++) {
        buf_add_str(&out, i > 0 ? "," : "");
        add_json(survey, &survey->findings[i], &out);
    }
    buf_add_str(&out, "],\"apis\":[");
    for (size_t i = 0; i < count; i++) {
        struct buf recipe = {0};
        add_recipe(&apis[i], &recipe);
        buf_add_str(&out, i > 0 ? ",{" : "{");
        add_string(&out, "name", apis[i].name);
        add_string(&out, "title", apis[i].title);
        add_string(&out, "recipe", recipe.data);
        buf_printf(&out, "\"local\":%s,\"configured\":%s}", apis[i].local ? "true" : "false",
                   is_configured(survey->config, apis[i].name) ? "true" : "false");
        buf_release(&recipe);
    }
    buf_add_str(&out, "]}");
    puts(out.data);
    buf_release(&out);
}

static void add_row(const struct survey *survey, const struct finding *finding,
                    struct render_table *table)
{
    struct buf workers = {0}, kept = {0};
    add_workers(survey, finding->provider->name, false, &workers);
    add_limits(finding->provider, &kept);
    render_table_add(table, finding->provider->name);
    render_table_add(table, finding->provider->api);
    render_table_add(table, finding->why[0] == '\0' ? "yes" : "no");
    render_table_add(table, doctor_key_state(finding->provider));
    render_table_add(table, workers.len > 0 ? workers.data : "-");
    render_table_add(table, kept.len > 0 ? kept.data : "-");
    buf_release(&workers);
    buf_release(&kept);
}

static void print_configured(const struct survey *survey)
{
    static const struct render_column columns[] = {
        {"provider", false, 40},
        {"api", false, 0},
        {"usable", false, 0},
        {"key", false, 0},
        {"workers", false, 60},
        {"limits", false, 100},
        {0},
    };
    const struct config *config = survey->config;
    struct render_table *table = render_table_new(columns);
    for (size_t i = 0; i < config->n_providers; i++)
        add_row(survey, &survey->findings[i], table);
    render_table_print(&table, stdout, 0);
    for (size_t i = 0; i < config->n_providers; i++)
        if (survey->findings[i].why[0] != '\0') {
            struct buf line = {0};
            buf_printf(&line, "%s: %s", config->providers[i].name, survey->findings[i].why);
            render_model_text(stdout, line.data, line.len);
            buf_release(&line);
        }
}

static void print_others(const struct survey *survey)
{
    static const struct render_column columns[] = {
        {"api", false, 0}, {"what it is", false, 72}, {"below providers:", false, 0}, {0}};
    size_t count;
    const struct config_api *apis = config_apis(&count);
    struct render_table *table = render_table_new(columns);
    for (size_t i = 0; i < count; i++) {
        struct buf recipe = {0};
        if (is_configured(survey->config, apis[i].name))
            continue;
        add_recipe(&apis[i], &recipe);
        render_table_add(table, apis[i].name);
        render_table_add(table, apis[i].title);
        render_table_add(table, recipe.data);
        buf_release(&recipe);
    }
    if (render_table_rows(table) > 0)
        puts("\nnot configured:");
    render_table_print(&table, stdout, 0);
}

static int exec(struct invocation *invocation)
{
    struct config *config;
    struct err err = {""};
    struct survey survey = {0};
    if (config_load(&config, invocation_config(invocation), &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    survey.config = config;
    look(&survey);
    if (!config->broker_local || config->n_brokers > 1 || stack_running(config)) {
        uv_loop_t loop;
        loop_init(&loop);
        roster_ask(&survey.roster, &loop, config, ASK_MS, NULL);
        loop_finish(&loop);
    }
    if (invocation_has(invocation, "json")) {
        print_json(&survey);
    } else {
        print_configured(&survey);
        print_others(&survey);
    }
    if (config->simulated)
        fputs("these providers are SIMULATED\n", stderr);
    if (survey.roster.brokers == 0)
        fputs("no broker answers, so no worker serves them now; `orchestrator up -d` starts the "
              "local stack\n",
              stderr);
    roster_release(&survey.roster);
    free(survey.findings);
    free(survey.targets);
    config_free(&config);
    return EXIT_DONE;
}

const struct command command_providers = {
    .name = "providers",
    .args = "",
    .summary = "the providers that are compiled in and configured, and what stands in their way",
    .details =
        "A provider is usable when its key is there, its server (or search engine) accepts\n"
        "connections, its plug-in can be read, and the provider that a search asks is usable,\n"
        "all seen from this machine; workers elsewhere may have what is missing here.",
    .options = options,
    .exec = exec,
};
