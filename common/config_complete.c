/* What the tables cannot say: references between sections, defaults that depend on other values,
 * and warnings. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_tables.h"
#include "schemas/mem.h"

const struct yaml_node *config_node_of(const struct yaml_node *map, const char *key)
{
    const struct yaml_node *node = yaml_map_get(map, key);
    return node != NULL ? node : map;
}

int config_dangling(struct config_reader *reader, const struct yaml_node *at, const char *what,
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

int config_make_absolute(const struct config_reader *reader, char **path, size_t prefix)
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
    const struct yaml_node *queue = config_node_of(root, "queue");
    if (config->renew_ms >= config->lease_ms)
        config_problem(reader, config_node_of(queue, "renew_ms"),
                       "`queue.renew_ms` must be less than `queue.lease_ms`, which is %lld",
                       (long long)config->lease_ms);
    if (config->abandon_ms >= config->lease_ms)
        config_problem(reader, config_node_of(queue, "abandon_ms"),
                       "`queue.abandon_ms` must be less than `queue.lease_ms`, which is %lld",
                       (long long)config->lease_ms);
    if (config->store == NULL &&
        (config->store = config_text("%s/profile.db", config->home)) == NULL)
        return -ENOMEM;
    config->simulated = config->simulator_port != 0;
    int rc = config_complete_bus(reader, root);
    if (rc == 0)
        rc = config_make_absolute(reader, &config->store, 0);
    return rc != 0 ? rc : config_make_absolute(reader, &config->simulator_scenario, 0);
}

static void check_aliases(struct config_reader *reader, const struct yaml_node *list,
                          char *const *aliases, size_t count, const char *provider)
{
    const struct yaml_node *item = list->type == YAML_SEQ ? list->first : list;
    for (size_t i = 0; i < count; i++) {
        const struct config_model *model = config_model(reader->config, aliases[i]);
        if (model == NULL)
            config_dangling(reader, item, "model", aliases[i], "models");
        else if (provider != NULL && model->provider != NULL &&
                 strcmp(model->provider, provider) != 0)
            config_problem(reader, item, "model `%s` belongs to provider `%s`, not to `%s`",
                           aliases[i], model->provider, provider);
        item = item->next != NULL ? item->next : item;
    }
}

/* Where the provider of a worker answers: host of its URL, or the loopback. */
static size_t host_of(const struct config *config, const struct config_worker *worker,
                      const char **ret)
{
    const struct config_provider *provider = config_provider(config, worker->provider);
    const struct config_api *api =
        provider != NULL && provider->api != NULL ? config_api(provider->api) : NULL;
    const char *url = provider != NULL ? provider->base_url : NULL;
    if (url == NULL && api != NULL)
        url = api->base_url;
    const char *host = url != NULL ? strstr(url, "://") : NULL;
    *ret = host != NULL ? host + 3 : "127.0.0.1";
    size_t len = (*ret)[0] == '[' ? strcspn(*ret, "]") : strcspn(*ret, ":/");
    if (len == strlen("localhost") && memcmp(*ret, "localhost", len) == 0) {
        *ret = "127.0.0.1";
        len = strlen(*ret);
    }
    return len;
}

/* Two runtimes on one GPU take each other's memory. Runtimes on other hosts have other GPUs. */
static void check_gpu(struct config_reader *reader, const struct config_worker *worker,
                      const struct yaml_node *node)
{
    const struct config *config = reader->config;
    if (worker->gpu == NULL || worker->provider == NULL)
        return;
    for (const struct config_worker *other = config->workers; other < worker; other++) {
        const char *here, *there;
        if (other->gpu == NULL || other->provider == NULL || other->name == NULL ||
            strcmp(other->gpu, worker->gpu) != 0 || (worker->share && other->share))
            continue;
        size_t len = host_of(config, worker, &here);
        if (len == host_of(config, other, &there) && memcmp(here, there, len) == 0)
            config_problem(reader, config_node_of(node, "gpu"),
                           "workers `%s` and `%s` are both pinned to GPU `%s`: give one of them "
                           "another, or set `share: true` on both",
                           other->name, worker->name != NULL ? worker->name : "", worker->gpu);
    }
}

int config_complete_worker(struct config_reader *reader, struct config_worker *worker,
                           const struct yaml_node *node)
{
    const char *reason;
    if (worker->provider != NULL && config_provider(reader->config, worker->provider) == NULL)
        config_dangling(reader, config_node_of(node, "provider"), "provider", worker->provider,
                        "providers");
    else
        check_aliases(reader, config_node_of(node, "models"), worker->models, worker->n_models,
                      worker->provider);
    if (worker->health != NULL && !config_url_check(worker->health, &reason))
        config_problem(reader, config_node_of(node, "health"), "`health` is not a usable URL: %s",
                       reason);
    if (worker->health != NULL && worker->n_launch == 0)
        config_warning(reader, config_node_of(node, "health"),
                       "`health` does nothing without `launch`");
    check_gpu(reader, worker, node);
    return 0;
}

/* Models that nobody would ever run. */
static void warn_unserved(struct config_reader *reader)
{
    const struct config *config = reader->config;
    const struct yaml *outer = reader->yaml;
    for (size_t i = 0; i < config->n_models; i++) {
        bool served = config->models[i].provider == NULL;
        for (size_t w = 0; w < config->n_workers && !served; w++) {
            const struct config_worker *worker = &config->workers[w];
            served = worker->provider != NULL &&
                     strcmp(worker->provider, config->models[i].provider) == 0 &&
                     worker->n_models == 0;
            for (size_t m = 0; m < worker->n_models && !served; m++)
                served = strcmp(worker->models[m], config->models[i].alias) == 0;
        }
        reader->yaml = reader->models[i].yaml;
        if (!served)
            config_warning(reader, reader->models[i].node->key,
                           "no worker under `workers` serves model `%s`", config->models[i].alias);
    }
    reader->yaml = outer;
}

#define COMPLETE_EACH(member, type)                                                                \
    static int complete_##member(struct config_reader *reader, const struct yaml_node *node)       \
    {                                                                                              \
        struct config *config = reader->config;                                                    \
        const struct yaml_node *child = node != NULL ? node->first : NULL;                         \
        for (size_t i = 0; i < config->n_##member && child != NULL; i++, child = child->next) {    \
            int rc = config_complete_##type(reader, &config->member[i], child);                    \
            if (rc != 0)                                                                           \
                return rc;                                                                         \
        }                                                                                          \
        return 0;                                                                                  \
    }
COMPLETE_EACH(providers, provider)
COMPLETE_EACH(workers, worker)

/* They may be in several files. */
static int complete_models(struct config_reader *reader)
{
    const struct yaml *outer = reader->yaml;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < reader->config->n_models; i++) {
        reader->yaml = reader->models[i].yaml;
        rc = config_complete_model(reader, &reader->config->models[i], reader->models[i].node);
    }
    reader->yaml = outer;
    return rc;
}

static void check_role_aliases(struct config_reader *reader, const struct yaml_node *roles)
{
    const struct config *config = reader->config;
    const struct yaml_node *node = roles != NULL ? roles->first : NULL;
    for (size_t i = 0; i < config->n_roles && node != NULL; i++, node = node->next)
        check_aliases(reader, config_node_of(node, "models"), config->roles[i].models,
                      config->roles[i].n_models, NULL);
}

int config_complete(struct config_reader *reader, const struct yaml_node *root)
{
    const struct yaml_node *roles = yaml_map_get(root, "roles");
    int rc = complete_top(reader, root);
    if (rc == 0)
        rc = complete_providers(reader, yaml_map_get(root, "providers"));
    if (rc == 0)
        rc = complete_models(reader);
    if (rc == 0)
        rc = complete_workers(reader, yaml_map_get(root, "workers"));
    if (rc != 0)
        return rc;
    check_role_aliases(reader, roles);
    warn_unserved(reader);
    if (reader->config->n_models == 0)
        config_warning(reader, root, "there are no `models`: nothing can run");
    rc = config_complete_roles(reader);
    if (rc != 0)
        return rc;
    config_check_roles(reader, roles);
    config_check_limits(reader, root);
    return 0;
}
