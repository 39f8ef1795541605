/* What answers at the addresses of local runtimes and search engines, and whether it has what is
 * configured. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/yaml.h"
#include "orchestrator/doctor.h"
#include "orchestrator/runtime_look.h"
#include "schemas/mem.h"

#define LOOK_MS 1000
#define USUAL_MAX 16

/* A configured provider that lists its models without a key. */
struct place {
    const struct config_provider *provider;
    struct detect_runtime own;   /* asked as its api is */
    struct detect_runtime other; /* asked as another one is */
    char where[32];              /* address:port */
};

struct places {
    const struct config *config;
    struct place *items;
    size_t n_items;
    struct detect_runtime usual[USUAL_MAX]; /* what runs at the usual places */
    size_t n_usual;
};

/* --- asking ------------------------------------------------------------------------------- */

static void find_places(struct places *places)
{
    const struct config *config = places->config;
    places->items = mem_must_zalloc((config->n_providers + 1) * sizeof *places->items);
    for (size_t i = 0; i < config->n_providers && !config->simulated; i++) {
        struct place *place = &places->items[places->n_items];
        if (!runtime_look_target(&place->own, &config->providers[i]))
            continue;
        bool ollama = strcmp(place->own.api, "ollama") == 0;
        struct in_addr address = {place->own.address};
        char text[INET_ADDRSTRLEN];
        place->provider = &config->providers[i];
        place->other = place->own;
        place->other.api = ollama ? "openai-compatible" : "ollama";
        place->other.path = ollama ? "/v1/models" : "/api/tags";
        inet_ntop(AF_INET, &address, text, sizeof text);
        snprintf(place->where, sizeof place->where, "%s:%d", text, place->own.port);
        places->n_items++;
    }
}

static void ask_places(struct places *places)
{
    size_t count = places->n_items, usual;
    struct detect_runtime *all = mem_must_zalloc((2 * count + 1) * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        all[i] = places->items[i].own;
        all[count + i] = places->items[i].other;
    }
    runtime_look_ask(all, 2 * count, LOOK_MS);
    for (size_t i = 0; i < count; i++) {
        places->items[i].own = all[i];
        places->items[i].other = all[count + i];
    }
    free(all);
    const struct detect_runtime *table = detect_runtimes(&usual);
    places->n_usual = usual < USUAL_MAX ? usual : USUAL_MAX;
    memcpy(places->usual, table, places->n_usual * sizeof *table);
    detect_probe(places->usual, places->n_usual, DETECT_BUDGET_MS);
}

/* --- what runs here ----------------------------------------------------------------------- */

/* Runtimes that run here but are not configured are worth a word. */
static void tell_usual(struct doctor *doctor, const struct places *places)
{
    char detail[512] = "";
    for (size_t i = 0; i < places->n_usual; i++) {
        const struct detect_runtime *runtime = &places->usual[i];
        size_t len = strlen(detail);
        if (runtime->found)
            snprintf(detail + len, sizeof detail - len, "%s%s on port %d (%zu models)",
                     len > 0 ? ", " : "", runtime->api, runtime->port, runtime->n_models);
    }
    bool any = detail[0] != '\0';
    doctor_add(doctor, any ? DOCTOR_OK : DOCTOR_NOTE, "local runtimes",
               any ? detail : "none on the usual ports",
               "to use your own hardware, start Ollama, LM Studio, llama-server or vLLM");
}

/* --- each provider ------------------------------------------------------------------------ */

/* The api that a list of models says it comes from; NULL: it says nothing that is known. */
static const char *api_of_owner(const char *owner)
{
    static const struct {
        const char *owner, *api;
    } owners[] = {{"llamacpp", "llamacpp"},
                  {"vllm", "vllm"},
                  {"organization_owner", "lmstudio"},
                  {"library", "ollama"}};
    for (size_t i = 0; i < sizeof owners / sizeof *owners; i++)
        if (strcmp(owners[i].owner, owner) == 0)
            return owners[i].api;
    return NULL;
}

static const char *launched_by(const struct config *config, const char *provider)
{
    for (size_t i = 0; i < config->n_workers; i++)
        if (config->workers[i].n_launch > 0 && strcmp(config->workers[i].provider, provider) == 0)
            return config->workers[i].name;
    return NULL;
}

/* Nothing answers: perhaps it runs on another port, or something else does. */
static void tell_silent(struct doctor *doctor, const struct places *places,
                        const struct place *place, const char *name)
{
    char detail[256], cure[512];
    const struct detect_runtime *same = NULL, *any = NULL;
    const char *worker = launched_by(places->config, place->provider->name);
    for (size_t i = 0; i < places->n_usual; i++) {
        if (!places->usual[i].found)
            continue;
        any = &places->usual[i];
        if (strcmp(any->api, place->own.api) == 0)
            same = any;
    }
    snprintf(detail, sizeof detail, "nothing answers at %s", place->where);
    if (worker != NULL)
        snprintf(cure, sizeof cure, "worker `%.64s` starts it: start the worker, or read its log",
                 worker);
    else if (same != NULL)
        snprintf(cure, sizeof cure,
                 "%s answers on port %d: set `base_url: \"http://127.0.0.1:%d\"`", same->api,
                 same->port, same->port);
    else if (any != NULL)
        snprintf(cure, sizeof cure,
                 "start it, or correct `base_url`; on port %d answers %s: for that set `api: %s` "
                 "and `base_url: \"http://127.0.0.1:%d\"`",
                 any->port, any->api, any->api, any->port);
    else
        snprintf(cure, sizeof cure, "start the runtime, or correct `base_url`");
    doctor_add(doctor, worker != NULL ? DOCTOR_NOTE : DOCTOR_BAD, name, detail, cure);
}

/* Something answers, but not as the api does. */
static void tell_stranger(struct doctor *doctor, const struct place *place, const char *name)
{
    char detail[256], cure[256];
    const struct detect_runtime *own = &place->own, *other = &place->other;
    if (own->status == 401 || own->status == 403) {
        snprintf(detail, sizeof detail, "%s wants a key (HTTP %d)", place->where, own->status);
        snprintf(cure, sizeof cure,
                 place->provider->n_keys > 0
                     ? "`orchestrator models --test` tries the one configured"
                     : "give the provider a `key`");
        doctor_add(doctor, DOCTOR_NOTE, name, detail, cure);
        return;
    }
    const char *owner = other->found ? api_of_owner(other->owner) : NULL;
    const char *api = owner != NULL ? owner : other->api;
    if (other->found) {
        snprintf(detail, sizeof detail, "%s answers, but as `api: %s`, not as `api: %s`",
                 place->where, api, own->api);
        snprintf(cure, sizeof cure, "set `api: %s`, or correct `base_url`", api);
    } else {
        snprintf(detail, sizeof detail, "%s answers (HTTP %d), but not as `api: %s`", place->where,
                 own->status, own->api);
        snprintf(cure, sizeof cure, "something else has that port: correct `base_url`");
    }
    doctor_add(doctor, DOCTOR_BAD, name, detail, cure);
}

static void tell_found(struct doctor *doctor, const struct place *place, const char *name)
{
    char detail[256], cure[256];
    const char *api = api_of_owner(place->own.owner);
    if (api != NULL && strcmp(api, place->own.api) != 0 && strcmp(api, "ollama") != 0) {
        snprintf(detail, sizeof detail, "%s answers, but says that it is %s, not %s", place->where,
                 api, place->own.api);
        snprintf(cure, sizeof cure, "set `api: %s`: it knows more of it", api);
        doctor_add(doctor, DOCTOR_NOTE, name, detail, cure);
        return;
    }
    snprintf(detail, sizeof detail, "%s answers as %s (%zu models)", place->where, place->own.api,
             place->own.n_models);
    doctor_add(doctor, DOCTOR_OK, name, detail, "");
}

/* --- models ------------------------------------------------------------------------------- */

static void nearest_model(const struct detect_runtime *runtime, const char *name, char *ret,
                          size_t size)
{
    const char **names = mem_must_zalloc((runtime->n_models + 1) * sizeof *names);
    for (size_t i = 0; i < runtime->n_models; i++)
        names[i] = runtime->models[i].name;
    const char *nearest = yaml_nearest(name, names);
    /* A server of one model can only mean that one. */
    if (nearest == NULL && runtime->n_models == 1)
        nearest = names[0];
    snprintf(ret, size, "%s", nearest != NULL ? nearest : "");
    free(names);
}

static void check_model(struct doctor *doctor, const struct place *place,
                        const struct config_model *model)
{
    static const struct {
        const char *api, *missing, *cure; /* cure: with the model's name, twice if need be */
        enum doctor_level level;
    } runtimes[] = {
        {"ollama", "is not pulled", "ollama pull %s", DOCTOR_BAD},
        {"lmstudio", "is not there", "download it: lms get %s", DOCTOR_BAD},
        {"llamacpp", "is not what it serves", "start llama-server with --alias %s", DOCTOR_NOTE},
        {"vllm", "is not what it serves", "start vllm with --served-model-name %s", DOCTOR_BAD},
    };
    char name[80], detail[512], cure[512], command[256], nearest[DETECT_NAME_SIZE];
    if (runtime_look_model(&place->own, model->name) != NULL)
        return;
    size_t i = 0, last = sizeof runtimes / sizeof *runtimes - 1;
    while (i < last && strcmp(runtimes[i].api, place->own.api) != 0)
        i++;
    nearest_model(&place->own, model->name, nearest, sizeof nearest);
    const char *mark = strchr(runtimes[i].cure, '%');
    snprintf(command, sizeof command, "%.*s%.128s%s", (int)(mark - runtimes[i].cure),
             runtimes[i].cure, model->name, mark + 2);
    snprintf(name, sizeof name, "model %.64s", model->alias);
    snprintf(detail, sizeof detail, "`%.128s` %s at %s%s%s%s", model->name, runtimes[i].missing,
             place->where, nearest[0] != '\0' ? "; it has `" : "", nearest,
             nearest[0] != '\0' ? "`" : "");
    if (nearest[0] != '\0')
        snprintf(cure, sizeof cure, "%s; or set `name: %s`", command, nearest);
    else
        snprintf(cure, sizeof cure, "%s", command);
    doctor_add(doctor, runtimes[i].level, name, detail, cure);
}

static void check_place(struct doctor *doctor, const struct places *places,
                        const struct place *place)
{
    char name[80];
    const struct config *config = places->config;
    snprintf(name, sizeof name, "provider %.50s", place->provider->name);
    if (place->own.status == 0) {
        tell_silent(doctor, places, place, name);
    } else if (!place->own.found) {
        tell_stranger(doctor, place, name);
    } else {
        tell_found(doctor, place, name);
        for (size_t i = 0; i < config->n_models; i++)
            if (strcmp(config->models[i].provider, place->provider->name) == 0)
                check_model(doctor, place, &config->models[i]);
    }
}

void doctor_runtimes(struct doctor *doctor, const struct config *config)
{
    struct places places = {.config = config};
    find_places(&places);
    ask_places(&places);
    tell_usual(doctor, &places);
    for (size_t i = 0; i < places.n_items; i++) {
        check_place(doctor, &places, &places.items[i]);
        detect_release(&places.items[i].own, 1);
        detect_release(&places.items[i].other, 1);
    }
    detect_release(places.usual, places.n_usual);
    free(places.items);
}

/* --- search engines and plug-ins ---------------------------------------------------------- */

/* Asked without a query, SearXNG first says whether it gives JSON at all, and then 400. */
static void check_searxng(struct doctor *doctor, const struct config_provider *provider)
{
    char name[80], detail[256], path[512];
    struct detect_runtime engine = {.api = "searxng", .path = path};
    const char *host = strstr(provider->engine_url, "://");
    if (host == NULL || !runtime_look_address(provider->engine_url, &engine.address, &engine.port))
        return;
    const char *folder = strchr(host + 3, '/');
    snprintf(path, sizeof path, "%.200s/search?format=json", folder != NULL ? folder : "");
    snprintf(name, sizeof name, "search %.50s", provider->name);
    detect_probe(&engine, 1, LOOK_MS);
    if (engine.status == 0) {
        snprintf(detail, sizeof detail, "SearXNG does not answer at %.180s", provider->engine_url);
        doctor_add(doctor, DOCTOR_BAD, name, detail,
                   "start it, or correct `engine_url`; until then answers come without a search");
    } else if (engine.status == 403) {
        snprintf(detail, sizeof detail, "SearXNG at %.180s refuses JSON", provider->engine_url);
        doctor_add(doctor, DOCTOR_BAD, name, detail,
                   "add json in its settings.yml: search: {formats: [html, json]}");
    } else {
        bool usual = engine.status == 200 || engine.status == 400;
        snprintf(detail, sizeof detail, "SearXNG at %.180s answers (HTTP %d)", provider->engine_url,
                 engine.status);
        doctor_add(doctor, usual ? DOCTOR_OK : DOCTOR_NOTE, name, detail,
                   "429 is its limiter: allow this address there; else read its log");
    }
    detect_release(&engine, 1);
}

static void check_plugin(struct doctor *doctor, const struct config_provider *provider)
{
    char name[80], detail[512];
    bool readable = access(provider->plugin, R_OK) == 0;
    snprintf(name, sizeof name, "plug-in %.50s", provider->name);
    snprintf(detail, sizeof detail, "%.400s%s%s", provider->plugin,
             readable ? " is there" : " cannot be read: ", readable ? "" : strerror(errno));
    doctor_add(doctor, readable ? DOCTOR_OK : DOCTOR_BAD, name, detail,
               "build it, or correct `plugin`; `orchestrator providers` says whether it loads");
}

void doctor_extras(struct doctor *doctor, const struct config *config)
{
    for (size_t i = 0; i < config->n_providers; i++) {
        const struct config_provider *provider = &config->providers[i];
        if (provider->engine != NULL && strcmp(provider->engine, "searxng") == 0 &&
            provider->engine_url != NULL)
            check_searxng(doctor, provider);
        if (strcmp(provider->api, "plugin") == 0 && provider->plugin != NULL)
            check_plugin(doctor, provider);
    }
}
