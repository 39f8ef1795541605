/* The client: what is the same whether it has one server, sentinels that name it, or a cluster. */
#include "common/redis.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/redis_internal.h"
#include "common/sha1.h"
#include "common/tunnel.h"
#include "schemas/mem.h"

#define WATCH_MS 1000
#define MAX_REPLICAS_MS 5000 /* well below what the client takes for a dead server */

/* --- commands ----------------------------------------------------------------------------- */

static void submit(struct redis *redis, struct redis_command *command, redis_reply_fn *fn,
                   void *ctx)
{
    command->fn = fn;
    command->ctx = ctx;
    if (redis->closed) {
        free(command);
        redis_answer_closed(fn, ctx);
        return;
    }
    redis->pending++;
    FAILPOINT_OF("redis.send", redis_command_label(command));
    if (redis->cluster != NULL)
        redis_cluster_send(redis->cluster, command);
    else
        redis_node_add(redis->node, command);
}

static struct redis_command *command_of(const struct redis *redis, int argc,
                                        const char *const *argv, const size_t *lens)
{
    struct redis_command *command = redis_command_new(argc, argv, lens);
    if (redis->cluster != NULL)
        command->slot = redis_command_slot(argc, argv, lens);
    return command;
}

void redis_command(struct redis *redis, redis_reply_fn *fn, void *ctx, int argc,
                   const char *const *argv, const size_t *lens)
{
    submit(redis, command_of(redis, argc, argv, lens), fn, ctx);
}

void redis_command_blocking(struct redis *redis, redis_reply_fn *fn, void *ctx, int argc,
                            const char *const *argv, const size_t *lens)
{
    struct redis_command *command = command_of(redis, argc, argv, lens);
    command->blocks = true;
    submit(redis, command, fn, ctx);
}

void redis_command_at(struct redis *redis, const char *key, redis_reply_fn *fn, void *ctx, int argc,
                      const char *const *argv, const size_t *lens)
{
    struct redis_command *command = redis_command_new(argc, argv, lens);
    command->slot = redis_slot(key, strlen(key));
    submit(redis, command, fn, ctx);
}

void redis_simple(struct redis *redis, redis_reply_fn *fn, void *ctx, const char *words)
{
    const char *argv[32];
    size_t lens[32];
    int argc = 0;
    while (*words != '\0' && argc < 32) {
        size_t len = strcspn(words, " ");
        if (len > 0) {
            argv[argc] = words;
            lens[argc++] = len;
        }
        words += len + strspn(words + len, " ");
    }
    redis_command(redis, fn, ctx, argc, argv, lens);
}

void redis_subscribe(struct redis *redis, const char *channel, redis_reply_fn *fn, void *ctx)
{
    redis->message_fn = fn;
    redis->message_ctx = ctx;
    free(redis->channel);
    redis->channel = mem_must_strdup(channel);
    if (!redis_node_greeted(redis->node))
        return; /* the greeting will do it */
    struct redis_command *command =
        redis_command_new(2, (const char *[]){"SUBSCRIBE", channel}, NULL);
    command->kind = COMMAND_SUBSCRIBE;
    redis_node_add(redis->node, command);
}

/* Remembers a script that is used for the first time, and loads it before that use. */
static void know_script(struct redis *redis, struct redis_script *script)
{
    if (script->sha[0] == '\0')
        sha1_hex(script->source, strlen(script->source), script->sha);
    for (size_t i = 0; i < redis->n_scripts; i++)
        if (redis->scripts[i] == script)
            return;
    redis->scripts =
        mem_must_realloc(redis->scripts, (redis->n_scripts + 1) * sizeof *redis->scripts);
    redis->scripts[redis->n_scripts++] = script;
    if (redis_node_greeted(redis->node))
        redis_node_add(redis->node, redis_command_load(script));
    if (redis->cluster != NULL)
        redis_cluster_load(redis->cluster, script);
}

void redis_eval(struct redis *redis, struct redis_script *script, redis_reply_fn *fn, void *ctx,
                int n_keys, int n_args, const char *const *args, const size_t *lens)
{
    if (!redis->closed)
        know_script(redis, script);
    size_t argc = 3 + (size_t)n_args;
    const char *few_argv[64], **argv = few_argv;
    size_t few_lens[64], *all_lens = few_lens;
    if (argc > 64) {
        argv = mem_must_realloc(NULL, argc * sizeof *argv);
        all_lens = mem_must_realloc(NULL, argc * sizeof *all_lens);
    }
    char keys[16];
    snprintf(keys, sizeof keys, "%d", n_keys);
    argv[0] = "EVALSHA", argv[1] = script->sha, argv[2] = keys;
    for (size_t i = 0; i < 3; i++)
        all_lens[i] = strlen(argv[i]);
    for (size_t i = 0; i < (size_t)n_args; i++) {
        argv[3 + i] = args[i];
        all_lens[3 + i] = lens != NULL ? lens[i] : strlen(args[i]);
    }
    struct redis_command *command = command_of(redis, (int)argc, argv, all_lens);
    command->script = script;
    command->survives = script->survives && redis->options.replicas > 0;
    submit(redis, command, fn, ctx);
    if (argv != few_argv) {
        free(argv);
        free(all_lens);
    }
}

/* --- answers ------------------------------------------------------------------------------ */

/* Errors that a person must act on: what stands behind the server's own words. */
static const struct {
    const char *word, *cure;
} cures[] = {
    {"MOVED", "this Redis is a part of a Redis Cluster: write its nodes into the configuration, as "
              "`redis: {cluster: [host:port, ...]}`"},
    {"ASK", "this Redis is a part of a Redis Cluster: write its nodes into the configuration, as "
            "`redis: {cluster: [host:port, ...]}`"},
    {"NOPERM", "the ACL of this client's user does not allow that: docs/operations.md lists what a "
               "user needs"},
    {"NOAUTH", "Redis demands a password: write it into the configuration's `redis`, as "
               "redis://user:password@host"},
    {"CROSSSLOT", "this command is about several slots of a Redis Cluster"},
};

void redis_answer(struct redis *redis, struct redis_command *command,
                  const struct redis_value *value)
{
    redis_reply_fn *fn = command->fn;
    void *ctx = command->ctx;
    redis->pending--;
    free(command);
    if (redis_type(value) == REDIS_ERR)
        for (size_t i = 0; i < sizeof cures / sizeof *cures; i++)
            if (redis_is_error(value, cures[i].word)) {
                char text[768];
                snprintf(text, sizeof text, "%.300s; %s", redis_str(value, NULL), cures[i].cure);
                redis_answer_error(fn, ctx, text);
                return;
            }
    if (fn != NULL)
        fn(ctx, value);
}

/* --- one server --------------------------------------------------------------------------- */

static void node_find(struct redis_node *node)
{
    redis_sentinel_ask(node->redis->sentinel);
}

static void node_up(struct redis_node *node)
{
    struct redis *redis = node->redis;
    if (redis->callbacks.up != NULL)
        redis->callbacks.up(redis->ctx);
}

static void node_down(struct redis_node *node, const char *why, bool news)
{
    struct redis *redis = node->redis;
    if (news && redis->callbacks.down != NULL)
        redis->callbacks.down(redis->ctx, why);
}

static const struct redis_node_hooks plain_hooks = {.up = node_up, .down = node_down};
static const struct redis_node_hooks sentinel_hooks = {
    .find = node_find, .up = node_up, .down = node_down, .master = true};

/* --- the loop ----------------------------------------------------------------------------- */

static void flush_turn(uv_prepare_t *handle)
{
    struct redis *redis = handle->data;
    redis_node_reap(redis);
    if (redis->turn_fn != NULL)
        redis->turn_fn(redis->turn_ctx);
    if (redis->closed)
        return;
    redis_node_flush(redis->node);
    if (redis->cluster != NULL && !redis->closed)
        redis_cluster_flush(redis->cluster);
}

void redis_on_turn(struct redis *redis, void (*fn)(void *ctx), void *ctx)
{
    redis->turn_fn = fn;
    redis->turn_ctx = ctx;
}

static void watch(void *ctx)
{
    struct redis *redis = ctx;
    redis_node_watch(redis->node);
    if (!redis->closed && redis->cluster != NULL)
        redis_cluster_watch(redis->cluster);
}

/* --- opening and closing ------------------------------------------------------------------ */

/* "unix:/path", "host:port", "master NAME of host:port, ...", "the cluster of host:port, ..." */
static char *name_of(const struct redis_options *options)
{
    struct redis_place place = {options->socket, options->host, options->port};
    size_t n = options->n_sentinels > 0 ? options->n_sentinels : options->n_cluster;
    char *const *nodes = options->n_sentinels > 0 ? options->sentinels : options->cluster;
    if (n == 0)
        return redis_place_name(&place);
    char *name = options->n_sentinels > 0 ? mem_must_printf("master %s of ", options->master)
                                          : mem_must_strdup("the cluster of ");
    for (size_t i = 0; i < n; i++) {
        char *longer = mem_must_printf("%s%s%s", name, i > 0 ? ", " : "", nodes[i]);
        free(name);
        name = longer;
    }
    return name;
}

static int check_nodes(const char *what, char *const *nodes, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        struct redis_place place = {0};
        if (!redis_place_parse(nodes[i], strlen(nodes[i]), &place))
            return err_set(err, -EINVAL, "\"%s\" is no address of a %s: it must be host:port",
                           nodes[i], what);
        redis_place_release(&place);
    }
    return 0;
}

static int check(const struct redis_options *options, struct err *err)
{
    if ((options->socket != NULL) + (options->host != NULL) + (options->n_sentinels > 0) +
            (options->n_cluster > 0) !=
        1)
        return err_set(err, -EINVAL,
                       "the address of Redis must be one of a host, a socket path, sentinels and "
                       "nodes of a cluster");
    if (options->n_sentinels > 0 && options->master == NULL)
        return err_set(err, -EINVAL, "the name of the master that the sentinels watch is missing");
    if (options->n_cluster > 0 && options->database != 0)
        return err_set(err, -EINVAL, "a Redis Cluster has no databases but 0");
    if (options->replicas < 0 || options->replicas_timeout_ms < 0 ||
        options->replicas_timeout_ms > MAX_REPLICAS_MS)
        return err_set(err, -EINVAL, "replicas must not be negative, nor their timeout above %d ms",
                       MAX_REPLICAS_MS);
    if (options->tls && options->socket != NULL)
        return err_set(err, -EINVAL, "TLS to Redis needs a host: a unix socket is on this machine");
    int rc = options->tls ? tunnel_check(err) : 0;
    if (rc == 0)
        rc = check_nodes("sentinel", options->sentinels, options->n_sentinels, err);
    return rc == 0 ? check_nodes("cluster's node", options->cluster, options->n_cluster, err) : rc;
}

int redis_open(struct redis **ret, uv_loop_t *loop, const struct redis_options *options,
               const struct redis_callbacks *callbacks, void *ctx, struct err *err)
{
    int rc = check(options, err);
    if (rc != 0)
        return rc;
    struct redis *redis = mem_must_zalloc(sizeof *redis);
    redis->loop = loop;
    redis_options_copy(&redis->options, options);
    if (redis->options.replicas_timeout_ms == 0)
        redis->options.replicas_timeout_ms = REDIS_REPLICAS_MS;
    redis->name = name_of(options);
    TAILQ_INIT(&redis->dead);
    if (callbacks != NULL)
        redis->callbacks = *callbacks;
    redis->ctx = ctx;
    redis->watch = loop_timer_new(loop, watch, redis);
    loop_timer_start(redis->watch, WATCH_MS, WATCH_MS);
    uv_prepare_init(loop, &redis->flush);
    redis->flush.data = redis;
    uv_prepare_start(&redis->flush, flush_turn);
    struct redis_place place = {options->socket, options->host, options->port};
    if (options->n_cluster > 0) {
        redis->cluster = redis_cluster_new(redis);
    } else if (options->n_sentinels > 0) {
        redis->node = redis_node_new(redis, &sentinel_hooks, NULL);
        redis->sentinel = redis_sentinel_new(redis);
    } else {
        redis->node = redis_node_new(redis, &plain_hooks, &place);
    }
    redis_node_start(redis->node);
    *ret = redis;
    return 0;
}

static void redis_closed(uv_handle_t *handle)
{
    struct redis *redis = handle->data;
    redis_node_reap(redis);
    redis_options_release(&redis->options);
    free(redis->cluster);
    free(redis->name);
    free(redis->channel);
    free(redis->scripts);
    free(redis);
}

void redis_close(struct redis **ret)
{
    struct redis *redis = *ret;
    *ret = NULL;
    if (redis == NULL || redis->closed)
        return;
    redis->closed = true;
    loop_timer_free(&redis->watch);
    redis_sentinel_free(&redis->sentinel);
    redis_cluster_close(redis->cluster);
    redis_node_free(&redis->node);
    uv_close((uv_handle_t *)&redis->flush, redis_closed);
}

bool redis_connected(const struct redis *redis)
{
    if (redis->cluster != NULL)
        return redis_cluster_up(redis->cluster);
    return redis->node->state == NODE_UP;
}

bool redis_is_cluster(const struct redis *redis)
{
    return redis->options.n_cluster > 0;
}

size_t redis_pending(const struct redis *redis)
{
    return redis->pending;
}

const char *redis_name(const struct redis *redis)
{
    return redis->name;
}
