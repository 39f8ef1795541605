/* What another machine needs of the configuration: a copy of it, from which all else is removed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "common/paths.h"
#include "schemas/mem.h"

/* --- removing --------------------------------------------------------------------------------- */

static void release_item(const struct config_section *section, char *item)
{
    char *name;
    memcpy(&name, item, sizeof name);
    if (!section->list)
        free(name);
    for (size_t i = 0; i < section->n_fields; i++)
        if (section->fields[i].kind->release != NULL)
            section->fields[i].kind->release(&section->fields[i], item);
}

/* A worker, and what its provider needs of another one. */
struct needs {
    struct config_worker worker; /* outside of the array, from which others are removed */
    char *base;                  /* copy: whom it searches for, or NULL */
};

typedef bool keep_fn(const struct needs *needs, const void *item);

/* Keeps those of a section that are needed. */
static void keep_items(struct config *config, const char *key, keep_fn *needed,
                       const struct needs *needs)
{
    for (size_t s = 0; s < config_n_sections; s++) {
        const struct config_section *section = &config_sections[s];
        if (strcmp(section->key, key) != 0)
            continue;
        size_t count, kept = 0;
        char *items = config_items(config, section, &count);
        for (size_t i = 0; i < count; i++) {
            char *item = items + i * section->size;
            if (!needed(needs, item))
                release_item(section, item);
            else
                memmove(items + kept++ * section->size, item, section->size);
        }
        memcpy((char *)config + section->count_offset, &kept, sizeof kept);
    }
}

static bool nothing(const struct needs *needs, const void *item)
{
    (void)needs, (void)item;
    return false;
}

static bool needed_provider(const struct needs *needs, const void *item)
{
    const struct config_provider *provider = item;
    return strcmp(provider->name, needs->worker.provider) == 0 ||
           (needs->base != NULL && strcmp(provider->name, needs->base) == 0);
}

static bool needed_model(const struct needs *needs, const void *item)
{
    const struct config_worker *worker = &needs->worker;
    const struct config_model *model = item;
    bool listed = worker->n_models == 0;
    for (size_t i = 0; i < worker->n_models && !listed; i++)
        listed = strcmp(worker->models[i], model->alias) == 0;
    return listed && strcmp(model->provider, worker->provider) == 0;
}

static bool needed_worker(const struct needs *needs, const void *item)
{
    return strcmp(((const struct config_worker *)item)->name, needs->worker.name) == 0;
}

/* The fields of the top level to their defaults, but for those that begin with a prefix. */
static int reset_top(struct config *config, const char *const *prefixes, size_t n)
{
    struct config_reader reader = {.config = config};
    for (size_t i = 0; i < config_n_fields; i++) {
        const struct config_field *field = &config_fields[i];
        bool kept = field->fallback == NULL;
        for (size_t k = 0; k < n && !kept; k++)
            kept = strncmp(field->key, prefixes[k], strlen(prefixes[k])) == 0;
        if (kept)
            continue;
        int rc = config_defaults(&reader, field, 1, config);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int keep_worker(struct config *config, const char *name)
{
    static const char *const prefixes[] = {"bus.", "redis", "queue.", "cache.", "budget."};
    struct needs needs = {.worker = *config_worker(config, name)};
    const struct config_provider *provider = config_provider(config, needs.worker.provider);
    if (provider != NULL && provider->base != NULL &&
        (needs.base = mem_strndup(provider->base, strlen(provider->base))) == NULL)
        return -ENOMEM;
    keep_items(config, "models", needed_model, &needs);
    keep_items(config, "providers", needed_provider, &needs);
    keep_items(config, "workers", needed_worker, &needs);
    keep_items(config, "roles", nothing, NULL);
    free(needs.base);
    return reset_top(config, prefixes, sizeof prefixes / sizeof *prefixes);
}

static int keep_bus(struct config *config)
{
    static const char *const prefixes[] = {"bus."};
    static const char *const sections[] = {"models", "providers", "workers", "roles"};
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        keep_items(config, sections[i], nothing, NULL);
    return reset_top(config, prefixes, 1);
}

/* Prompts that every program has. */
static void leave_presets(struct config *config)
{
    for (size_t i = 0; i < config->n_roles; i++)
        for (size_t p = 0; p < config_n_role_presets; p++) {
            struct config_role *role = &config->roles[i];
            if (role->system == NULL || strcmp(role->name, config_role_presets[p].name) != 0 ||
                strcmp(role->system, config_role_presets[p].system) != 0)
                continue;
            free(role->system);
            role->system = NULL; /* not printed, and filled in when it is read */
        }
}

/* --- putting in ------------------------------------------------------------------------------- */

static int copy_text(char **at, const char *text)
{
    return config_replace_text(at, text, strlen(text));
}

/* The worker, new if need be. */
static int set_worker(struct config *config, const struct config_share *share, struct err *err)
{
    struct config_worker *worker = NULL;
    for (size_t i = 0; i < config->n_workers; i++)
        if (strcmp(config->workers[i].name, share->worker) == 0)
            worker = &config->workers[i];
    if (worker == NULL && share->provider == NULL)
        return err_set(err, -EINVAL,
                       "there is no worker `%.100s` under `workers` in %s: add it, or say with "
                       "--provider what it serves",
                       share->worker, config->path);
    if (share->provider != NULL && config_provider(config, share->provider) == NULL)
        return err_set(err, -EINVAL, "there is no provider `%.100s` under `providers` in %s",
                       share->provider, config->path);
    if (worker != NULL && share->provider != NULL && strcmp(worker->provider, share->provider) != 0)
        return err_set(err, -EINVAL,
                       "worker `%.100s` in %s serves `%.64s`: leave --provider out, or choose "
                       "another name",
                       share->worker, config->path, worker->provider);
    if (worker == NULL) {
        size_t n = config->n_workers;
        struct config_worker *workers = mem_realloc(config->workers, (n + 1) * sizeof *workers);
        if (workers == NULL)
            return -ENOMEM;
        config->workers = workers;
        worker = &workers[n];
        *worker = (struct config_worker){0};
        config->n_workers = n + 1;
        worker->start_ms = 600000;
        worker->hang_ms = 60000;
        worker->concurrency = 4;
        if (copy_text(&worker->name, share->worker) != 0 ||
            copy_text(&worker->provider, share->provider) != 0)
            return -ENOMEM;
    }
    if (share->concurrency > 0)
        worker->concurrency = share->concurrency;
    return 0;
}

/* One field of the top level from text; the sentence is that of the configuration. */
static int set_field(struct config *config, const char *key, const struct yaml_node *node,
                     struct err *err)
{
    struct yaml *yaml = NULL;
    int rc = yaml_read(&yaml, "--", "", 0, err); /* whose places are told */
    struct config_reader reader = {.yaml = yaml, .config = config, .err = err};
    for (size_t i = 0; rc == 0 && i < config_n_fields; i++)
        if (strcmp(config_fields[i].key, key) == 0)
            rc = config_fields[i].kind->set(&reader, &config_fields[i], node, config);
    yaml_release(&yaml);
    return rc;
}

static int set_redis(struct config *config, const struct config_share *share, struct err *err)
{
    struct redis_options *redis = &config->redis;
    int64_t replicas = redis->replicas, timeout_ms = redis->replicas_timeout_ms;
    int rc = 0;
    if (share->redis != NULL) {
        struct yaml_node node = {.text = share->redis, .len = strlen(share->redis)};
        rc = set_field(config, "redis", &node, err);
        redis->replicas = replicas;
        redis->replicas_timeout_ms = timeout_ms;
    }
    if (rc == 0 && share->user != NULL)
        rc = copy_text(&redis->user, share->user);
    if (rc == 0 && share->user != NULL)
        rc = copy_text(&redis->password, share->password);
    /* Files of this machine are not there. */
    free(redis->ca);
    free(redis->cert);
    free(redis->key);
    redis->ca = redis->cert = redis->key = NULL;
    if (rc == 0 && share->redis_ca != NULL && redis->tls)
        rc = copy_text(&redis->ca, share->redis_ca);
    return rc;
}

static int set_brokers(struct config *config, const struct config_share *share, struct err *err)
{
    struct yaml_node list = {.type = YAML_SEQ, .text = "", .count = share->n_brokers};
    if (share->n_brokers == 0)
        return 0;
    struct yaml_node *items = mem_zalloc(share->n_brokers * sizeof *items);
    if (items == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < share->n_brokers; i++) {
        items[i].text = share->brokers[i];
        items[i].len = strlen(share->brokers[i]);
        items[i].next = i + 1 < share->n_brokers ? &items[i + 1] : NULL;
    }
    list.first = items;
    int rc = set_field(config, "bus.brokers", &list, err);
    free(items);
    return rc;
}

/* What is of this machine alone. */
static int leave_here(struct config *config)
{
    free(config->listen);
    free(config->store);
    free(config->simulator_scenario);
    config->listen = config->store = config->simulator_scenario = NULL;
    config->simulator_port = 0;
    config->broker_local = false;
    config->redis_local = false;
    config->curve = true;
    return copy_text(&config->curve_keys, PATH_KEYS);
}

static int change(struct config *config, const struct config_share *share, struct err *err)
{
    int rc = share->what == CONFIG_SHARE_WORKER ? set_worker(config, share, err) : 0;
    if (rc == 0 && share->what == CONFIG_SHARE_WORKER)
        rc = keep_worker(config, share->worker);
    if (rc == 0 && share->what == CONFIG_SHARE_BUS)
        rc = keep_bus(config);
    leave_presets(config);
    if (rc == 0)
        rc = set_brokers(config, share, err);
    if (rc == 0)
        rc = leave_here(config);
    if (share->what == CONFIG_SHARE_BUS)
        config->redis_local = true; /* which nobody asks */
    else if (rc == 0)
        rc = set_redis(config, share, err);
    return rc;
}

int config_share(const struct config *config, const struct config_share *share, struct buf *out,
                 struct err *err)
{
    struct config *copy = NULL;
    struct buf text = {0};
    config_print(config, &text);
    int rc = text.failed ? -ENOMEM : config_parse(&copy, config->path, text.data, text.len, err);
    if (rc == 0)
        rc = change(copy, share, err);
    if (rc == 0) {
        config_print_terse(copy, out);
        rc = out->failed ? -ENOMEM : 0;
    }
    config_free(&copy);
    if (text.data != NULL)
        explicit_bzero(text.data, text.len);
    buf_release(&text);
    return rc;
}
