/* How a node comes to its connection: its address, a tunnel where TLS is wanted, the greeting. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/redis_internal.h"
#include "common/tunnel.h"
#include "schemas/mem.h"

#define TUNNEL_POLL_MS 10
#define TUNNEL_MS 10000 /* most time until a tunnel that was started is there */

static void greet(struct redis_node *node, enum redis_command_kind kind, int argc,
                  const char *const *argv)
{
    struct redis_command *command = redis_command_new(argc, argv, NULL);
    command->kind = kind;
    redis_node_insert(node, command);
}

/* Puts the greeting before all else; each insert goes before the one before it. */
static void connected(void *ctx)
{
    struct redis_node *node = ctx;
    const struct redis *redis = node->redis;
    const struct redis_options *options = &redis->options;
    node->state = NODE_GREETING;
    node->asked_ms = clock_ms();
    if (redis->channel != NULL)
        greet(node, COMMAND_SUBSCRIBE, 2, (const char *[]){"SUBSCRIBE", redis->channel});
    greet(node, COMMAND_PING, 1, (const char *[]){"PING"});
    for (size_t i = 0; i < redis->n_scripts; i++)
        redis_node_insert(node, redis_command_load(redis->scripts[i]));
    if (node->hooks->master)
        greet(node, COMMAND_ROLE, 1, (const char *[]){"ROLE"});
    char database[16];
    snprintf(database, sizeof database, "%d", options->database);
    if (options->database != 0)
        greet(node, COMMAND_GREETING, 2, (const char *[]){"SELECT", database});
    if (options->password != NULL && options->user != NULL)
        greet(node, COMMAND_GREETING, 3,
              (const char *[]){"AUTH", options->user, options->password});
    else if (options->password != NULL)
        greet(node, COMMAND_GREETING, 2, (const char *[]){"AUTH", options->password});
    redis_node_write(node);
}

static void broken(void *ctx, const char *why)
{
    struct redis_node *node = ctx;
    const char *tunnel = node->tunnel != NULL ? tunnel_trouble(node->tunnel) : "";
    redis_node_drop(node, tunnel[0] != '\0' ? tunnel : why, 0);
}

static const struct redis_link_callbacks link_callbacks = {connected, redis_node_write,
                                                           redis_node_reply, broken};

static void open_link(struct redis_node *node, const struct redis_place *place)
{
    struct err err = {""};
    node->link = redis_link_open(node->redis->loop, place, node->name, node->connects++,
                                 &link_callbacks, node, &err);
    if (node->link == NULL)
        redis_node_drop(node, err.text, 0);
}

/* Through a tunnel, which takes a moment to be there. */
static void open_tunnelled(struct redis_node *node)
{
    const struct redis_options *options = &node->redis->options;
    struct tunnel_options wanted = {.host = node->place.host,
                                    .port = node->place.port,
                                    .ca = options->ca,
                                    .cert = options->cert,
                                    .key = options->key};
    struct err err = {""};
    if (node->tunnel == NULL) {
        node->tunnel_ms = clock_ms();
        if (tunnel_open(&node->tunnel, node->redis->loop, &wanted, &err) != 0) {
            redis_node_drop(node, err.text, REDIS_BACKOFF_MAX_MS);
            return;
        }
    }
    if (tunnel_ready(node->tunnel)) {
        node->tunnel_ms = clock_ms();
        open_link(node,
                  &(struct redis_place){.socket = (char *)(uintptr_t)tunnel_path(node->tunnel)});
        return;
    }
    const char *trouble = tunnel_trouble(node->tunnel);
    if (trouble[0] == '\0' && clock_ms() - node->tunnel_ms < TUNNEL_MS) {
        loop_timer_start(node->reconnect, TUNNEL_POLL_MS, 0);
        return;
    }
    char why[640];
    snprintf(why, sizeof why, "%s",
             trouble[0] != '\0' ? trouble : "the tunnel to Redis does not get ready");
    redis_node_drop(node, why, REDIS_BACKOFF_MAX_MS);
}

static void go(struct redis_node *node)
{
    node->state = NODE_CONNECTING;
    if (node->redis->options.tls)
        open_tunnelled(node);
    else
        open_link(node, &node->place);
}

void redis_node_try(void *ctx)
{
    struct redis_node *node = ctx;
    bool waits_for_tunnel = node->state == NODE_CONNECTING;
    if (node->hooks->find == NULL || waits_for_tunnel) {
        go(node);
        return;
    }
    node->state = NODE_FINDING;
    node->hooks->find(node);
}

void redis_node_connect(struct redis_node *node, const char *host, int port)
{
    if (node->state != NODE_FINDING)
        return;
    bool same =
        node->place.host != NULL && strcmp(node->place.host, host) == 0 && node->place.port == port;
    if (!same) {
        struct redis_place place = {.host = mem_must_strdup(host), .port = port};
        redis_place_release(&node->place);
        node->place = place;
        free(node->name);
        node->name = redis_place_name(&place);
        tunnel_close(&node->tunnel);
    }
    go(node);
}

void redis_node_fail(struct redis_node *node, const char *why)
{
    if (node->state == NODE_FINDING)
        redis_node_drop(node, why, REDIS_READONLY_MS);
}

void redis_node_start(struct redis_node *node)
{
    if (node->state != NODE_IDLE)
        return;
    node->state = NODE_DOWN;
    /* From the loop, so that callbacks never run before the caller is ready for them. */
    loop_timer_start(node->reconnect, 0, 0);
}
