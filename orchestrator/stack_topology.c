#include "orchestrator/stack_topology.h"

#include <libgen.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/paths.h"
#include "orchestrator/stack_listen.h"
#include "schemas/mem.h"

char *stack_program(const char *name)
{
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len <= 0)
        return mem_must_strdup(name); /* by PATH */
    self[len] = '\0';
    return mem_must_printf("%s/%s", dirname(self), name);
}

static char **add_arguments(char **argv, va_list args)
{
    size_t count = 0;
    while (argv[count] != NULL)
        count++;
    for (const char *arg; (arg = va_arg(args, const char *)) != NULL; count++) {
        argv = mem_must_realloc(argv, (count + 2) * sizeof *argv);
        argv[count] = mem_must_strdup(arg);
        argv[count + 1] = NULL;
    }
    return argv;
}

/* Takes over `first`; copies the rest, up to NULL. */
static char **arguments(char *first, ...)
{
    char **argv = mem_must_zalloc(2 * sizeof *argv);
    argv[0] = first;
    va_list args;
    va_start(args, first);
    argv = add_arguments(argv, args);
    va_end(args);
    return argv;
}

/* Copies further ones behind them. */
static char **with_arguments(char **argv, ...)
{
    va_list args;
    va_start(args, argv);
    argv = add_arguments(argv, args);
    va_end(args);
    return argv;
}

/* Whether one of the sources takes its key from this entry of the environment, NAME=value. */
static bool takes(char *const *sources, size_t n, const char *entry)
{
    for (size_t i = 0; i < n; i++) {
        const char *name = sources[i];
        size_t len = strncmp(name, "env:", 4) == 0 ? strlen(name += 4) : 0;
        if (len > 0 && strncmp(entry, name, len) == 0 && entry[len] == '=')
            return true;
    }
    return false;
}

/* Whether an entry of the environment is a key that the configuration takes from there, and that
 * the workers of `provider` (NULL: of none) have no use for. A provider that searches calls the one
 * that it wraps. */
static bool is_foreign_key(const struct config *config, const char *entry, const char *provider)
{
    const struct config_provider *self =
        provider != NULL ? config_provider(config, provider) : NULL;
    bool own = false, key = false;
    for (size_t i = 0; i < config->n_providers; i++) {
        const struct config_provider *row = &config->providers[i];
        bool wrapped = self != NULL && self->base != NULL && strcmp(self->base, row->name) == 0;
        bool asks = takes(row->keys, row->n_keys, entry);
        bool searches = takes(row->engine_keys, row->n_engine_keys, entry);
        key = key || asks || searches;
        own = own || (row == self && (asks || searches)) || (wrapped && asks);
    }
    return key && !own;
}

/* Our environment without the keys that the process has no use for: /proc shows it. */
static char **environment(const struct config *config, const char *provider)
{
    size_t n = 0, used = 0;
    while (environ[n] != NULL)
        n++;
    char **kept = mem_must_zalloc((n + 1) * sizeof *kept);
    for (size_t i = 0; i < n; i++)
        if (!is_foreign_key(config, environ[i], provider))
            kept[used++] = environ[i];
    return kept;
}

/* The same with TLS on the address for other machines; passwords are in the file of users. */
static char **listening(const struct config *config, char **argv)
{
    char *address = config_listen_redis(config), *colon = strrchr(address, ':');
    char *certificate = stack_listen_certificate(config), *key = stack_listen_key(config);
    char *users = stack_listen_users(config);
    *colon = '\0';
    char *host = address[0] == '[' ? address + 1 : address;
    host[strcspn(host, "]")] = '\0';
    argv = with_arguments(argv, "--bind", host, "--tls-port", colon + 1, "--tls-cert-file",
                          certificate, "--tls-key-file", key, "--tls-auth-clients", "no",
                          "--tls-protocols", "TLSv1.2 TLSv1.3", "--aclfile", users, NULL);
    free(address);
    free(certificate);
    free(key);
    free(users);
    return argv;
}

static void add_redis(const struct config *config, int lock_fd, struct stack_child_options options,
                      stack_topology_fn *add, void *ctx)
{
    char *dir = path_of(config->home, PATH_REDIS);
    options.kind = STACK_REDIS;
    options.name = "redis";
    options.inherit_fd = lock_fd;
    options.socket = config->redis.socket;
    options.environment = environment(config, NULL);
    /* maxmemory is not set: noeviction makes a full machine refuse, never forget. */
    options.argv =
        arguments(mem_must_strdup("redis-server"), "--port", "0", "--unixsocket",
                  config->redis.socket, "--unixsocketperm", "700", "--dir", dir, "--daemonize",
                  "no", "--supervised", "no", "--appendonly", "yes", "--appendfsync",
                  config->appendfsync, "--save", "", "--maxmemory-policy", "noeviction",
                  "--auto-aof-rewrite-percentage", "100", "--auto-aof-rewrite-min-size", "256mb",
                  /* A small task is one flat block of memory; a large one is looked up. */
                  "--hash-max-listpack-value", "1024", "--hash-max-listpack-entries", "64",
                  "--stop-writes-on-bgsave-error", "no", "--loglevel", "notice", NULL);
    if (config->listen != NULL)
        options.argv = listening(config, options.argv);
    add(ctx, &options);
    free(dir);
}

static void add_simulator(const struct config *config, struct stack_child_options options,
                          stack_topology_fn *add, void *ctx)
{
    char port[16];
    snprintf(port, sizeof port, "%d", (int)config->simulator_port);
    const char *scenario = config->simulator_scenario;
    options.kind = STACK_SIMULATOR;
    options.name = "simulator";
    options.environment = environment(config, NULL);
    options.argv = arguments(stack_program("orchestrator-sim"), "--port", port, "--ready-fd", "3",
                             scenario != NULL ? "--scenario" : NULL, scenario, NULL);
    add(ctx, &options);
}

/* Programs want to hear that an open bus is meant, as `up` has. */
static const char *insecure(const struct config *config)
{
    return config_check_exposure(config, false, NULL) != 0 ? "--insecure" : NULL;
}

void stack_topology(const struct config *config, int lock_fd, stack_topology_fn *add, void *ctx)
{
    char *log_dir = path_of(config->home, PATH_LOG), *run = path_of(config->home, PATH_RUN_CONFIG);
    struct stack_child_options options = {.log_dir = log_dir, .inherit_fd = -1};
    if (config->redis_local)
        add_redis(config, lock_fd, options, add, ctx);
    if (config->broker_local) {
        options.kind = STACK_BROKER;
        options.name = "broker";
        options.environment = environment(config, NULL);
        options.argv = arguments(stack_program("orchestrator-broker"), "--config", run,
                                 "--ready-fd", "3", insecure(config), NULL);
        add(ctx, &options);
    }
    if (config->simulated)
        add_simulator(config, options, add, ctx);
    options.kind = STACK_DAEMON;
    options.name = "daemon";
    options.environment = environment(config, NULL);
    options.argv = arguments(stack_program("orchestrator"), "serve", "--config", run, "--ready-fd",
                             "3", insecure(config), NULL);
    add(ctx, &options);
    for (size_t i = 0; i < config->n_workers; i++) {
        const char *worker = config->workers[i].name;
        char *name = mem_must_printf("worker-%s", worker);
        options.kind = STACK_WORKER;
        options.name = name;
        options.environment = environment(config, config->workers[i].provider);
        options.argv = arguments(stack_program("orchestrator-worker"), "--name", worker, "--config",
                                 run, "--ready-fd", "3", insecure(config), NULL);
        add(ctx, &options);
        free(name);
    }
    free(log_dir);
    free(run);
}
