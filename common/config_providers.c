/* What must be true of a provider beyond its table: keys, headers, search, plug-ins. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/config_tables.h"
#include "schemas/mem.h"

static bool is_loopback(const char *url)
{
    static const char *const hosts[] = {"http://127.", "http://localhost", "http://[::1]"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (strncmp(url, hosts[i], strlen(hosts[i])) == 0)
            return true;
    return false;
}

static int default_key(struct config_provider *provider, const struct config_api *api)
{
    if (api->key_env == NULL)
        return 0;
    provider->keys = mem_zalloc(sizeof *provider->keys);
    char *key = config_text("env:%s", api->key_env);
    if (provider->keys == NULL || key == NULL) {
        free(key);
        return -ENOMEM;
    }
    provider->keys[provider->n_keys++] = key;
    return 0;
}

static int absolute_keys(struct config_reader *reader, char **keys, size_t n_keys)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n_keys; i++)
        if (strncmp(keys[i], "file:", 5) == 0)
            rc = config_make_absolute(reader, &keys[i], 5);
    return rc;
}

/* --- headers ------------------------------------------------------------------------------ */

static bool is_one_of(const char *word, size_t len, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strlen(*words) == len && strncasecmp(word, *words, len) == 0)
            return true;
    return false;
}

/* RFC 9110: a token, a colon, and a value without control characters. */
static bool is_header(const char *text)
{
    static const char token[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "!#$%&'*+-.^_`|~";
    size_t name = strspn(text, token);
    if (name == 0 || text[name] != ':')
        return false;
    const char *value = text + name + 1;
    value += strspn(value, " \t");
    for (const char *at = value; *at != '\0'; at++)
        if (((unsigned char)*at < ' ' && *at != '\t') || *at == 0x7f)
            return false;
    return *value != '\0';
}

/* What goes wrong is never repeated: it may hold a key. */
static void check_headers(struct config_reader *reader, const struct config_provider *provider,
                          const struct yaml_node *node)
{
    static const char *const keys[] = {"Authorization",
                                       "Proxy-Authorization",
                                       "x-api-key",
                                       "x-goog-api-key",
                                       "api-key",
                                       "Cookie",
                                       NULL};
    static const char *const ours[] = {"Host",       "Content-Type",      "Content-Length",
                                       "Connection", "Transfer-Encoding", NULL};
    const struct yaml_node *list = config_node_of(node, "headers");
    for (size_t i = 0; i < provider->n_headers; i++) {
        const char *header = provider->headers[i];
        const struct yaml_node *at = list->type == YAML_SEQ ? yaml_at(list, i) : list;
        size_t name = strcspn(header, ":");
        if (!is_header(header))
            config_problem(reader, at, "each of `headers` must be `Name: value`");
        else if (is_one_of(header, name, keys))
            config_problem(reader, at, "`headers`: %.*s: keys belong under `key`", (int)name,
                           header);
        else if (is_one_of(header, name, ours))
            config_problem(reader, at, "`headers`: %.*s is set for each request", (int)name,
                           header);
    }
}

/* --- search and plug-ins ------------------------------------------------------------------ */

static void check_base(struct config_reader *reader, const struct config_provider *provider,
                       const struct yaml_node *node)
{
    const struct yaml_node *at = config_node_of(node, "base");
    if (provider->base == NULL) {
        config_problem(reader, node, "a provider with `api: search` needs `base`");
        return;
    }
    const struct config_provider *base = config_provider(reader->config, provider->base);
    if (base == NULL)
        config_dangling(reader, at, "provider", provider->base, "providers");
    else if (base->api != NULL && strcmp(base->api, "search") == 0)
        config_problem(reader, at, "`base` must be a provider that answers itself: `%s` searches",
                       provider->base);
}

static void check_engine(struct config_reader *reader, const struct config_provider *provider,
                         const struct yaml_node *node)
{
    const struct yaml_node *at = config_node_of(node, "engine");
    const char *engine = provider->engine != NULL ? provider->engine : "duckduckgo";
    if (strcmp(engine, "searxng") == 0 && provider->engine_url == NULL)
        config_problem(reader, at, "`engine: searxng` needs `engine_url`");
    if (strcmp(engine, "google") == 0 && provider->n_engine_keys == 0)
        config_problem(reader, at, "`engine: google` needs `engine_key`");
    if (strcmp(engine, "google") == 0 && provider->engine_cx == NULL)
        config_problem(reader, at, "`engine: google` needs `engine_cx`, the id of a search engine");
    if (strcmp(engine, "google") != 0 && (provider->n_engine_keys > 0 || provider->engine_cx))
        config_warning(reader, at, "`engine_key` and `engine_cx` do nothing with `engine: %s`",
                       engine);
}

/* Keys that only one api has. */
static void warn_idle(struct config_reader *reader, const struct config_provider *provider,
                      const struct config_api *api, const struct yaml_node *node)
{
    const struct {
        const char *key, *api;
        bool set;
    } special[] = {
        {"base", "search", provider->base != NULL},
        {"engine", "search", provider->engine != NULL},
        {"engine_url", "search", provider->engine_url != NULL},
        {"engine_key", "search", provider->n_engine_keys > 0},
        {"engine_cx", "search", provider->engine_cx != NULL},
        {"plugin", "plugin", provider->plugin != NULL},
    };
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (special[i].set && strcmp(special[i].api, api->name) != 0)
            config_warning(reader, config_node_of(node, special[i].key),
                           "`%s` does nothing with `api: %s`: it belongs to `api: %s`",
                           special[i].key, api->name, special[i].api);
}

static int complete_plugin(struct config_reader *reader, struct config_provider *provider,
                           const struct yaml_node *node)
{
    if (provider->plugin == NULL) {
        config_problem(reader, node,
                       "a provider with `api: plugin` needs `plugin`, a shared object");
        return 0;
    }
    int rc = config_make_absolute(reader, &provider->plugin, 0);
    if (rc == 0 && access(provider->plugin, R_OK) != 0)
        config_warning(reader, config_node_of(node, "plugin"), "cannot read the plug-in %.256s: %s",
                       provider->plugin, strerror(errno));
    return rc;
}

int config_complete_provider(struct config_reader *reader, struct config_provider *provider,
                             const struct yaml_node *node)
{
    const struct config_api *api = provider->api != NULL ? config_api(provider->api) : NULL;
    int rc = 0;
    if (api == NULL)
        return 0; /* told already */
    if (provider->base_url == NULL && api->base_url == NULL && !api->wraps)
        config_problem(reader, node, "a provider with `api: %s` needs `base_url`", api->name);
    if (yaml_is_null(yaml_map_get(node, "key")))
        rc = default_key(provider, api);
    if (provider->n_keys > 0 && provider->base_url != NULL &&
        strncmp(provider->base_url, "http://", 7) == 0 && !is_loopback(provider->base_url))
        config_warning(reader, config_node_of(node, "base_url"),
                       "the key of `%s` would travel unencrypted: use https://", provider->name);
    check_headers(reader, provider, node);
    warn_idle(reader, provider, api, node);
    if (strcmp(api->name, "search") == 0) {
        check_base(reader, provider, node);
        check_engine(reader, provider, node);
    } else if (rc == 0 && strcmp(api->name, "plugin") == 0) {
        rc = complete_plugin(reader, provider, node);
    }
    if (rc == 0)
        rc = absolute_keys(reader, provider->keys, provider->n_keys);
    return rc != 0 ? rc : absolute_keys(reader, provider->engine_keys, provider->n_engine_keys);
}
