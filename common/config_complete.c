/* What the tables cannot say: references between sections, defaults that depend on other values,
 * and warnings. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_tables.h"
#include "schemas/mem.h"

/* A node to point at: the member of a map, else the map itself. */
static const struct yaml_node *node_of(const struct yaml_node *map, const char *key)
{
    const struct yaml_node *node = yaml_map_get(map, key);
    return node != NULL ? node : map;
}

/* Tells that `name` is none of the names of the section, and which is near. */
static int dangling(struct config_reader *reader, const struct yaml_node *at, const char *what,
                    const char *name, const char *section_key)
{
    const char *names[257] = {0};
    for (size_t s = 0; s < config_n_sections; s++) {
        size_t count;
        const struct config_section *section = &config_sections[s];
        const char *items = config_items(reader->config, section, &count);
        if (strcmp(section->key, section_key) != 0)
            continue;
        size_t n = 0;
        for (size_t i = 0; i < count && n < 256; i++) {
            memcpy(&names[n], items + i * section->size, sizeof names[n]);
            n += names[n] != NULL;
        }
    }
    const char *nearest = yaml_nearest(name, names);
    if (nearest != NULL)
        return config_problem(reader, at, "there is no %s `%.64s` under `%s`; did you mean `%s`?",
                              what, name, section_key, nearest);
    return config_problem(reader, at, "there is no %s `%.64s` under `%s`", what, name, section_key);
}

/* Relative paths are relative to the folder of the configuration. */
static int make_absolute(const struct config_reader *reader, char **path, size_t prefix)
{
    if (*path == NULL || (*path)[prefix] == '/')
        return 0;
    const char *file = yaml_name(reader->yaml);
    const char *slash = strrchr(file, '/');
    char *cwd = getcwd(NULL, 0);
    char *made = NULL;
    if (cwd != NULL && slash != NULL && file[0] == '/')
        made = config_text("%.*s%.*s/%s", (int)prefix, *path, (int)(slash - file), file,
                           *path + prefix);
    else if (cwd != NULL && slash != NULL)
        made = config_text("%.*s%s/%.*s/%s", (int)prefix, *path, cwd, (int)(slash - file), file,
                           *path + prefix);
    else if (cwd != NULL)
        made = config_text("%.*s%s/%s", (int)prefix, *path, cwd, *path + prefix);
    free(cwd);
    if (made == NULL)
        return -ENOMEM;
    free(*path);
    *path = made;
    return 0;
}

static int complete_top(struct config_reader *reader, const struct yaml_node *root)
{
    struct config *config = reader->config;
    const struct yaml_node *queue = node_of(root, "queue");
    if (config->curve)
        config_problem(reader, node_of(node_of(node_of(root, "bus"), "curve"), "enabled"),
                       "`bus.curve.enabled`: this version cannot encrypt the bus: leave it false "
                       "and keep the bus on one machine or a private network");
    if (config->renew_ms >= config->lease_ms)
        config_problem(reader, node_of(queue, "renew_ms"),
                       "`queue.renew_ms` must be less than `queue.lease_ms`, which is %lld",
                       (long long)config->lease_ms);
    if (config->abandon_ms >= config->lease_ms)
        config_problem(reader, node_of(queue, "abandon_ms"),
                       "`queue.abandon_ms` must be less than `queue.lease_ms`, which is %lld",
                       (long long)config->lease_ms);
    for (size_t i = 0; i < config->n_brokers; i++)
        if (strncmp(config->brokers[i], "tcp://", 6) == 0 &&
            strncmp(config->brokers[i], "tcp://127.", 10) != 0)
            config_warning(reader, node_of(node_of(root, "bus"), "brokers"),
                           "%s is not encrypted and asks nobody for a key: keep it on a private "
                           "network",
                           config->brokers[i]);
    if (config->store == NULL &&
        (config->store = config_text("%s/profile.db", config->home)) == NULL)
        return -ENOMEM;
    config->simulated = config->simulator_port != 0;
    int rc = make_absolute(reader, &config->store, 0);
    return rc != 0 ? rc : make_absolute(reader, &config->simulator_scenario, 0);
}

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

static int complete_provider(struct config_reader *reader, struct config_provider *provider,
                             const struct yaml_node *node)
{
    const struct config_api *api = provider->api != NULL ? config_api(provider->api) : NULL;
    if (api == NULL)
        return 0; /* told already */
    if (provider->base_url == NULL && api->base_url == NULL && !api->wraps)
        config_problem(reader, node, "a provider with `api: %s` needs `base_url`", api->name);
    if (yaml_is_null(yaml_map_get(node, "key"))) {
        int rc = default_key(provider, api);
        if (rc != 0)
            return rc;
    }
    if (provider->n_keys > 0 && provider->base_url != NULL &&
        strncmp(provider->base_url, "http://", 7) == 0 && !is_loopback(provider->base_url))
        config_warning(reader, node_of(node, "base_url"),
                       "the key of `%s` would travel unencrypted: use https://", provider->name);
    for (size_t i = 0; i < provider->n_keys; i++)
        if (strncmp(provider->keys[i], "file:", 5) == 0) {
            int rc = make_absolute(reader, &provider->keys[i], 5);
            if (rc != 0)
                return rc;
        }
    return 0;
}

static int complete_model(struct config_reader *reader, struct config_model *model,
                          const struct yaml_node *node)
{
    if (model->name == NULL &&
        (model->name = mem_strndup(model->alias, strlen(model->alias))) == NULL)
        return -ENOMEM;
    if (model->provider == NULL)
        return 0;
    const struct config_provider *provider = config_provider(reader->config, model->provider);
    if (provider == NULL) {
        dangling(reader, node_of(node, "provider"), "provider", model->provider, "providers");
        return 0;
    }
    const struct config_api *api = provider->api != NULL ? config_api(provider->api) : NULL;
    if (yaml_is_null(yaml_map_get(node, "local")))
        model->local = api != NULL && api->local;
    return 0;
}

static void check_aliases(struct config_reader *reader, const struct yaml_node *list,
                          char *const *aliases, size_t count, const char *provider)
{
    const struct yaml_node *item = list->type == YAML_SEQ ? list->first : list;
    for (size_t i = 0; i < count; i++) {
        const struct config_model *model = config_model(reader->config, aliases[i]);
        if (model == NULL)
            dangling(reader, item, "model", aliases[i], "models");
        else if (provider != NULL && model->provider != NULL &&
                 strcmp(model->provider, provider) != 0)
            config_problem(reader, item, "model `%s` belongs to provider `%s`, not to `%s`",
                           aliases[i], model->provider, provider);
        item = item->next != NULL ? item->next : item;
    }
}

static int complete_worker(struct config_reader *reader, struct config_worker *worker,
                           const struct yaml_node *node)
{
    const char *reason;
    if (worker->provider != NULL && config_provider(reader->config, worker->provider) == NULL)
        dangling(reader, node_of(node, "provider"), "provider", worker->provider, "providers");
    else
        check_aliases(reader, node_of(node, "models"), worker->models, worker->n_models,
                      worker->provider);
    if (worker->health != NULL && !config_url_check(worker->health, &reason))
        config_problem(reader, node_of(node, "health"), "`health` is not a usable URL: %s", reason);
    if (worker->health != NULL && worker->n_launch == 0)
        config_warning(reader, node_of(node, "health"), "`health` does nothing without `launch`");
    return 0;
}

static int complete_role(struct config_reader *reader, struct config_role *role,
                         const struct yaml_node *node)
{
    if (role->temperature < 0 && role->temperature > -1)
        config_problem(reader, node_of(node, "temperature"),
                       "`temperature` must be a number from 0 to 2");
    check_aliases(reader, node_of(node, "models"), role->models, role->n_models, NULL);
    return 0;
}

/* Models that nobody would ever run. */
static void warn_unserved(struct config_reader *reader, const struct yaml_node *models)
{
    const struct config *config = reader->config;
    const struct yaml_node *node = models != NULL ? models->first : NULL;
    for (size_t i = 0; i < config->n_models && node != NULL; i++, node = node->next) {
        bool served = config->models[i].provider == NULL;
        for (size_t w = 0; w < config->n_workers && !served; w++) {
            const struct config_worker *worker = &config->workers[w];
            served = worker->provider != NULL &&
                     strcmp(worker->provider, config->models[i].provider) == 0 &&
                     worker->n_models == 0;
            for (size_t m = 0; m < worker->n_models && !served; m++)
                served = strcmp(worker->models[m], config->models[i].alias) == 0;
        }
        if (!served)
            config_warning(reader, node->key, "no worker under `workers` serves model `%s`",
                           config->models[i].alias);
    }
}

#define COMPLETE_EACH(member, type)                                                                \
    static int complete_##member(struct config_reader *reader, const struct yaml_node *node)       \
    {                                                                                              \
        struct config *config = reader->config;                                                    \
        const struct yaml_node *child = node != NULL ? node->first : NULL;                         \
        for (size_t i = 0; i < config->n_##member && child != NULL; i++, child = child->next) {    \
            int rc = complete_##type(reader, &config->member[i], child);                           \
            if (rc != 0)                                                                           \
                return rc;                                                                         \
        }                                                                                          \
        return 0;                                                                                  \
    }
COMPLETE_EACH(providers, provider)
COMPLETE_EACH(models, model)
COMPLETE_EACH(workers, worker)
COMPLETE_EACH(roles, role)

int config_complete(struct config_reader *reader, const struct yaml_node *root)
{
    const struct yaml_node *models = yaml_map_get(root, "models");
    int rc = complete_top(reader, root);
    if (rc == 0)
        rc = complete_providers(reader, yaml_map_get(root, "providers"));
    if (rc == 0)
        rc = complete_models(reader, models);
    if (rc == 0)
        rc = complete_workers(reader, yaml_map_get(root, "workers"));
    if (rc == 0)
        rc = complete_roles(reader, yaml_map_get(root, "roles"));
    if (rc != 0)
        return rc;
    warn_unserved(reader, models);
    if (reader->config->n_models == 0)
        config_warning(reader, root, "there are no `models`: nothing can run");
    return config_complete_roles(reader);
}
