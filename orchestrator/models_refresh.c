/* `models --refresh`: what providers really serve, compared with the configuration. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/model_registry.h"
#include "common/price.h"
#include "common/yaml.h"
#include "orchestrator/models.h"
#include "orchestrator/questions.h"
#include "orchestrator/render.h"
#include "orchestrator/task_json.h"
#include "schemas/mem.h"

#define SHOWN 20       /* models that are not configured, for people */
#define NAME_BYTES 256 /* bytes of a name; longer ones are no names */
#define LIST_MAX 5000

/* One provider's list. */
struct listing {
    const struct config_provider *provider;
    const char *arm; /* of which it is asked; NULL: none is served */
    const json_t *answer;
    char **names;
    size_t n_names;
};

struct listings {
    const struct config *config;
    struct listing *items;
    size_t n_items;
    bool quiet;
};

static const char *why_not(const struct listing *listing)
{
    if (listing->arm == NULL)
        return "no connected worker serves one of its models";
    if (listing->answer == NULL)
        return "no answer within the time limit";
    if (strcmp(json_str(listing->answer, "state", ""), "DONE") != 0)
        return json_str(listing->answer, "error", "it failed");
    return "";
}

/* --- names -------------------------------------------------------------------------------- */

/* Whether two names are the same model to the provider: `models/x` and x, a date, Ollama's tag. */
static bool same_model(const char *api, const char *a, const char *b)
{
    size_t a_len, b_len;
    const char *a_core = model_registry_name_core(api, a, &a_len);
    const char *b_core = model_registry_name_core(api, b, &b_len);
    if (a_len == b_len && memcmp(a_core, b_core, a_len) == 0)
        return true;
    const char *longer = a_len > b_len ? a_core : b_core;
    size_t shorter = a_len > b_len ? b_len : a_len;
    return strcmp(api, "ollama") == 0 && strcmp(longer + shorter, ":latest") == 0 &&
           memcmp(a_core, b_core, shorter) == 0;
}

static bool is_served(const struct listing *listing, const char *name)
{
    for (size_t i = 0; i < listing->n_names; i++)
        if (same_model(listing->provider->api, name, listing->names[i]))
            return true;
    return false;
}

static bool is_configured(const struct listings *listings, const struct listing *listing,
                          const char *name)
{
    const struct config *config = listings->config;
    for (size_t i = 0; i < config->n_models; i++)
        if (strcmp(config->models[i].provider, listing->provider->name) == 0 &&
            same_model(listing->provider->api, config->models[i].name, name))
            return true;
    return false;
}

static const char *nearest_name(const struct listing *listing, const char *name)
{
    const char **names = mem_must_zalloc((listing->n_names + 1) * sizeof *names);
    for (size_t i = 0; i < listing->n_names; i++)
        names[i] = listing->names[i];
    const char *nearest = yaml_nearest(name, names);
    free(names);
    return nearest;
}

/* One a line. What a stranger sends is cut to what can be a name. */
static void read_names(struct listing *listing)
{
    const char *text = json_str(listing->answer, "output", "");
    listing->names = mem_must_zalloc((LIST_MAX + 1) * sizeof *listing->names);
    for (size_t len; *text != '\0' && listing->n_names < LIST_MAX; text += len + (text[len] != 0)) {
        len = strcspn(text, "\n");
        size_t name = strcspn(text, "\t\r\n"); /* more may follow the name */
        if (name > 0 && name < NAME_BYTES)
            listing->names[listing->n_names++] = mem_must_strndup(text, name);
    }
}

/* --- what to put into the configuration --------------------------------------------------- */

/* An alias from the last part of the name, unlike those there are. */
static void make_alias(const struct config *config, const char *name, char *ret, size_t size)
{
    const char *slash = strrchr(name, '/');
    size_t len = 0;
    for (const char *at = slash != NULL ? slash + 1 : name; *at != '\0' && len + 8 < size; at++) {
        bool fine = isalnum((unsigned char)*at) || (len > 0 && strchr("._-:", *at) != NULL);
        if (fine || len > 0)
            ret[len++] = fine ? *at : '-';
    }
    ret[len] = '\0';
    if (len == 0)
        len = (size_t)snprintf(ret, size, "model");
    for (int n = 2; config_model(config, ret) != NULL; n++)
        snprintf(ret + len, size - len, "-%d", n);
}

/* name: "..." needs no escapes but these; control characters are in no name. */
static void yaml_line(const struct listings *listings, const struct listing *listing,
                      const char *name, struct buf *out)
{
    char alias[64];
    make_alias(listings->config, name, alias, sizeof alias);
    buf_printf(out, "%s: {provider: %s, name: ", alias, listing->provider->name);
    buf_add_json(out, name, strlen(name));
    buf_add_char(out, '}');
}

static const struct model_registry_row *row_of(const struct listing *listing, const char *name)
{
    const struct model_registry *registry = model_registry_shipped();
    return registry != NULL ? model_registry_find(registry, listing->provider->api, name) : NULL;
}

/* --- JSON --------------------------------------------------------------------------------- */

static json_t *text(const char *words)
{
    return words != NULL && *words != '\0' ? task_json_text(words, strlen(words)) : json_null();
}

static json_t *missing_json(const struct listings *listings, const struct listing *listing)
{
    const struct config *config = listings->config;
    json_t *list = json_array();
    for (size_t i = 0; i < config->n_models; i++) {
        const struct config_model *model = &config->models[i];
        if (strcmp(model->provider, listing->provider->name) == 0 &&
            !is_served(listing, model->name))
            json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "alias", model->alias, "name",
                                                  model->name, "nearest",
                                                  text(nearest_name(listing, model->name))));
    }
    return list;
}

static json_t *known_json(const struct model_registry_row *row)
{
    if (row == NULL)
        return json_null();
    const struct config_price *price = price_at(&row->model, clock_wall_ms(), 0);
    json_t *can = json_array();
    for (size_t i = 0; i < row->model.n_capabilities; i++)
        json_array_append_new(can, json_string(row->model.capabilities[i]));
    return json_pack("{s:s, s:I, s:I, s:o, s:o, s:o, s:b}", "name", row->model.name, "context",
                     (json_int_t)row->model.context, "max_output",
                     (json_int_t)row->model.max_output, "capabilities", can, "input",
                     price != NULL ? json_real(price->input) : json_null(), "output",
                     price != NULL ? json_real(price->output) : json_null(), "sure", row->sure);
}

static json_t *new_json(const struct listings *listings, const struct listing *listing)
{
    json_t *list = json_array();
    for (size_t i = 0; i < listing->n_names; i++) {
        struct buf line = {0};
        if (is_configured(listings, listing, listing->names[i]))
            continue;
        yaml_line(listings, listing, listing->names[i], &line);
        json_array_append_new(list, json_pack("{s:o, s:o, s:o}", "name", text(listing->names[i]),
                                              "yaml", text(line.data), "registry",
                                              known_json(row_of(listing, listing->names[i]))));
        buf_release(&line);
    }
    return list;
}

static void print_json(const struct listings *listings)
{
    json_t *list = json_array();
    for (size_t i = 0; i < listings->n_items; i++) {
        const struct listing *listing = &listings->items[i];
        const char *why = why_not(listing);
        bool asked = *why == '\0';
        json_t *object = json_object();
        json_object_set_new(object, "provider", json_string(listing->provider->name));
        json_object_set_new(object, "ok", json_boolean(asked));
        json_object_set_new(object, "error", text(why));
        json_object_set_new(object, "served", json_integer((json_int_t)listing->n_names));
        json_object_set_new(object, "not_served",
                            asked ? missing_json(listings, listing) : json_array());
        json_object_set_new(object, "not_configured",
                            asked ? new_json(listings, listing) : json_array());
        json_array_append_new(list, object);
    }
    char *dump = task_json_dump(list, false);
    puts(dump);
    free(dump);
    json_decref(list);
}

/* --- for people --------------------------------------------------------------------------- */

/* A line of strings from elsewhere: harmless. */
static void print_safe(const struct buf *line)
{
    struct buf safe = {0};
    render_safe(&safe, line->data, line->len, true);
    printf("%s\n", safe.data);
    buf_release(&safe);
}

static size_t print_missing(const struct listings *listings, const struct listing *listing)
{
    const struct config *config = listings->config;
    size_t count = 0;
    for (size_t i = 0; i < config->n_models; i++) {
        const struct config_model *model = &config->models[i];
        struct buf line = {0};
        if (strcmp(model->provider, listing->provider->name) != 0 ||
            is_served(listing, model->name))
            continue;
        const char *nearest = nearest_name(listing, model->name);
        buf_printf(&line, "  not served: %s (%s)", model->alias, model->name);
        if (nearest != NULL)
            buf_printf(&line, "; the nearest is %s", nearest);
        print_safe(&line);
        buf_release(&line);
        count++;
    }
    return count;
}

static void print_new(const struct listings *listings, const struct listing *listing)
{
    size_t count = 0;
    for (size_t i = 0; i < listing->n_names; i++) {
        struct buf line = {0};
        const char *name = listing->names[i];
        if (is_configured(listings, listing, name) || ++count > SHOWN)
            continue;
        const struct model_registry_row *row = row_of(listing, name);
        const struct config_price *price =
            row != NULL ? price_at(&row->model, clock_wall_ms(), 0) : NULL;
        buf_add_str(&line, "  not configured: ");
        yaml_line(listings, listing, name, &line);
        if (row != NULL && row->model.context > 0)
            buf_printf(&line, "  # %lld tokens", (long long)row->model.context);
        if (price != NULL)
            buf_printf(&line, "%s %g / %g USD/M", row->model.context > 0 ? "," : "  #",
                       price->input, price->output);
        print_safe(&line);
        buf_release(&line);
    }
    if (count > SHOWN)
        printf("  and %zu more that are not configured; --json has all\n", count - SHOWN);
}

static void print_text(const struct listings *listings)
{
    for (size_t i = 0; i < listings->n_items; i++) {
        const struct listing *listing = &listings->items[i];
        struct buf line = {0};
        const char *why = why_not(listing);
        if (*why != '\0')
            buf_printf(&line, "%s: cannot be asked: %s", listing->provider->name, why);
        else
            buf_printf(&line, "%s: serves %zu model%s", listing->provider->name, listing->n_names,
                       listing->n_names == 1 ? "" : "s");
        print_safe(&line);
        buf_release(&line);
        if (*why != '\0')
            continue;
        if (print_missing(listings, listing) == 0)
            puts("  all that is configured is served");
        print_new(listings, listing);
    }
}

/* --- all of it ---------------------------------------------------------------------------- */

/* What answers through another provider, or never asks anybody, has no list. */
static bool has_list(const struct config_provider *provider)
{
    return strcmp(provider->api, "search") != 0 && strcmp(provider->api, "noop") != 0;
}

static void choose(struct listings *listings, const struct models_arms *arms, const char *wanted)
{
    const struct config *config = listings->config;
    listings->items = mem_must_zalloc((config->n_providers + 1) * sizeof *listings->items);
    for (size_t i = 0; i < config->n_providers; i++) {
        const struct config_provider *provider = &config->providers[i];
        struct listing *listing = &listings->items[listings->n_items];
        bool named = wanted != NULL && strcmp(wanted, provider->name) == 0;
        if (!named && (wanted != NULL || !has_list(provider)))
            continue;
        *listing = (struct listing){.provider = provider};
        for (size_t a = 0; a < arms->n_items && listing->arm == NULL; a++)
            if (arms->items[a].paused == NULL &&
                strcmp(arms->items[a].model->provider, provider->name) == 0)
                listing->arm = arms->items[a].arm;
        listings->n_items++;
    }
}

static void answered(void *ctx, const struct question *question)
{
    const struct listings *listings = ctx;
    if (!listings->quiet)
        fprintf(stderr, "%s\n", question->title);
}

static int unknown(const struct invocation *invocation, const struct config *config,
                   const char *wanted)
{
    const char **names = mem_must_zalloc((config->n_providers + 1) * sizeof *names);
    for (size_t i = 0; i < config->n_providers; i++)
        names[i] = config->providers[i].name;
    const char *nearest = yaml_nearest(wanted, names);
    free(names);
    return command_fail(invocation, EXIT_USAGE, "there is no provider \"%.64s\" in %s%s%s%s",
                        wanted, config->path, nearest != NULL ? "; did you mean " : "",
                        nearest != NULL ? nearest : "", nearest != NULL ? "?" : "");
}

static int ask(struct client *client, const struct invocation *invocation,
               struct listings *listings, struct question *questions, int64_t timeout_ms)
{
    size_t count = 0;
    for (size_t i = 0; i < listings->n_items; i++)
        if (listings->items[i].arm != NULL)
            questions[count++] = (struct question){
                .kind = "list",
                .arm = listings->items[i].arm,
                .title = mem_must_printf("models of %s", listings->items[i].provider->name),
                .prompt = "models"};
    int code = questions_ask(client, invocation, questions, count, clock_ms() + timeout_ms,
                             answered, listings);
    for (size_t i = 0, q = 0; i < listings->n_items; i++) {
        if (listings->items[i].arm == NULL)
            continue;
        listings->items[i].answer = questions[q++].answer;
        read_names(&listings->items[i]);
    }
    return code;
}

static int compare(struct client *client, const struct invocation *invocation,
                   struct listings *listings, int64_t timeout_ms)
{
    size_t most = listings->n_items;
    struct question *questions = mem_must_zalloc((most + 1) * sizeof *questions);
    int code = ask(client, invocation, listings, questions, timeout_ms);
    if (code == EXIT_DONE && invocation_has(invocation, "json"))
        print_json(listings);
    else if (code == EXIT_DONE)
        print_text(listings);
    for (size_t i = 0; code == EXIT_DONE && i < listings->n_items; i++) {
        json_t *missing = missing_json(listings, &listings->items[i]);
        if (*why_not(&listings->items[i]) != '\0' || json_array_size(missing) > 0)
            code = EXIT_FAILED;
        json_decref(missing);
    }
    for (size_t i = 0; i < most; i++)
        free((void *)(uintptr_t)questions[i].title);
    questions_release(questions, most);
    free(questions);
    return code;
}

int models_refresh(struct client *client, const struct invocation *invocation, const char *wanted,
                   int64_t timeout_ms)
{
    struct listings listings = {.config = client->config,
                                .quiet = invocation_has(invocation, "quiet")};
    struct models_arms arms = {0};
    struct roster roster = {0};
    if (wanted != NULL && config_provider(client->config, wanted) == NULL)
        return unknown(invocation, client->config, wanted);
    int code = models_ask_roster(client, invocation, &roster);
    if (code == EXIT_DONE) {
        models_arms_find(&arms, client->config, &roster);
        choose(&listings, &arms, wanted);
        code = compare(client, invocation, &listings, timeout_ms);
    }
    for (size_t i = 0; i < listings.n_items; i++) {
        for (size_t n = 0; n < listings.items[i].n_names; n++)
            free(listings.items[i].names[n]);
        free(listings.items[i].names);
    }
    free(listings.items);
    models_arms_release(&arms);
    roster_release(&roster);
    return code;
}
