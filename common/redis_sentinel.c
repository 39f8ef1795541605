/* Asks sentinels in turn which server is the master, and listens to one of them for the news that
 * it is another. Each is asked over a client of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/redis_internal.h"
#include "schemas/mem.h"

#define PATIENCE_MS 1000 /* with one sentinel */
#define LISTEN_MS 1000   /* until the next one is listened to */
#define NEWS "+switch-master"

struct redis_sentinel {
    struct redis *client; /* whose node's address is asked for */
    size_t at;            /* the sentinel that is asked, or was last */
    size_t tried;         /* in this round */
    struct redis *asked, *listener;
    size_t listens_to;
    struct loop_timer *patience, *listen;
    char why[512]; /* of the last that did not help */
};

static const char *name_at(const struct redis_sentinel *sentinel, size_t at)
{
    return sentinel->client->options.sentinels[at];
}

/* A client of one sentinel. NULL: it cannot even be tried. */
static struct redis *open_client(struct redis_sentinel *sentinel, size_t at,
                                 const struct redis_callbacks *callbacks)
{
    const struct redis_options *all = &sentinel->client->options;
    struct redis_place place = {0};
    struct redis *redis = NULL;
    struct err err = {""};
    redis_place_parse(name_at(sentinel, at), strlen(name_at(sentinel, at)), &place);
    struct redis_options options = {.host = place.host,
                                    .port = place.port,
                                    .user = all->sentinel_user,
                                    .password = all->sentinel_password,
                                    .tls = all->tls,
                                    .ca = all->ca,
                                    .cert = all->cert,
                                    .key = all->key};
    if (redis_open(&redis, sentinel->client->loop, &options, callbacks, sentinel, &err) != 0)
        snprintf(sentinel->why, sizeof sentinel->why, "%.500s", err.text);
    redis_place_release(&place);
    return redis;
}

/* --- listening ---------------------------------------------------------------------------- */

static void unheard(void *ctx, const char *why)
{
    struct redis_sentinel *sentinel = ctx;
    (void)why;
    sentinel->listens_to = (sentinel->listens_to + 1) % sentinel->client->options.n_sentinels;
    loop_timer_start(sentinel->listen, LISTEN_MS, 0);
}

/* Whether the text ends with the address that the node has. */
static bool leads_to(const char *text, const struct redis_node *node)
{
    char end[300];
    int n = snprintf(end, sizeof end, " %.255s %d",
                     node->place.host != NULL ? node->place.host : "", node->place.port);
    size_t len = strlen(text);
    return len > (size_t)n && strcmp(text + len - (size_t)n, end) == 0;
}

/* value: ["message", channel, "<name> <old ip> <old port> <new ip> <new port>"] */
static void heard(void *ctx, const struct redis_value *value)
{
    struct redis_sentinel *sentinel = ctx;
    struct redis_node *node = sentinel->client->node;
    const char *text = redis_str(redis_at(value, 2), NULL), *master;
    char why[512];
    master = sentinel->client->options.master;
    size_t len = strlen(master);
    bool ours = strcmp(redis_str(redis_at(value, 0), NULL), "message") == 0 &&
                strncmp(text, master, len) == 0 && text[len] == ' ';
    if (!ours)
        return;
    sentinel->at = sentinel->listens_to; /* it knows */
    snprintf(why, sizeof why, "the sentinels made another server the master: %.300s", text);
    if (node->state == NODE_DOWN || leads_to(text, node))
        return; /* it will ask again; or it knows already */
    node->backoff_ms = 0;
    redis_node_drop(node, why, 0);
}

static void listen_now(void *ctx)
{
    static const struct redis_callbacks callbacks = {.down = unheard};
    struct redis_sentinel *sentinel = ctx;
    redis_close(&sentinel->listener);
    sentinel->listener = open_client(sentinel, sentinel->listens_to, &callbacks);
    if (sentinel->listener != NULL)
        redis_subscribe(sentinel->listener, NEWS, heard, sentinel);
}

/* --- asking ------------------------------------------------------------------------------- */

static void ask_next(struct redis_sentinel *sentinel);

static void no_use(struct redis_sentinel *sentinel, const char *why)
{
    snprintf(sentinel->why, sizeof sentinel->why, "%.500s", why);
    redis_close(&sentinel->asked);
    sentinel->at = (sentinel->at + 1) % sentinel->client->options.n_sentinels;
    sentinel->tried++;
    ask_next(sentinel);
}

static void silent(void *ctx)
{
    struct redis_sentinel *sentinel = ctx;
    char why[512];
    snprintf(why, sizeof why, "the sentinel at %.200s did not answer for %d ms",
             name_at(sentinel, sentinel->at), PATIENCE_MS);
    no_use(sentinel, why);
}

static void unreachable(void *ctx, const char *why)
{
    no_use(ctx, why);
}

/* value: [ip, port]; NIL: it knows no such master */
static void told(void *ctx, const struct redis_value *value)
{
    struct redis_sentinel *sentinel = ctx;
    struct redis *client = sentinel->client;
    char why[512], text[300];
    if (redis_is_error(value, "CLOSED"))
        return;
    size_t len;
    const char *host = redis_str(redis_at(value, 0), &len);
    int64_t port = redis_int(redis_at(value, 1));
    snprintf(text, sizeof text, "%.255s:%lld", host, (long long)port);
    struct redis_place place = {0};
    if (redis_type(value) == REDIS_ERR)
        snprintf(why, sizeof why, "the sentinel at %.200s refuses this client: %.200s",
                 name_at(sentinel, sentinel->at), redis_str(value, NULL));
    else if (redis_len(value) != 2)
        snprintf(why, sizeof why, "the sentinel at %.200s watches no master called %.100s",
                 name_at(sentinel, sentinel->at), client->options.master);
    else if (len > 255 || !redis_place_parse(text, strlen(text), &place))
        snprintf(why, sizeof why, "the sentinel at %.200s named no valid address",
                 name_at(sentinel, sentinel->at));
    if (place.host == NULL) {
        no_use(sentinel, why);
        return;
    }
    loop_timer_stop(sentinel->patience);
    redis_close(&sentinel->asked);
    if (sentinel->listener == NULL && !loop_timer_active(sentinel->listen)) {
        sentinel->listens_to = sentinel->at;
        loop_timer_start(sentinel->listen, 0, 0);
    }
    redis_node_connect(client->node, place.host, place.port);
    redis_place_release(&place);
}

static void ask_next(struct redis_sentinel *sentinel)
{
    static const struct redis_callbacks callbacks = {.down = unreachable};
    struct redis *client = sentinel->client;
    const struct redis_options *options = &client->options;
    if (sentinel->tried == options->n_sentinels) {
        char why[768];
        loop_timer_stop(sentinel->patience);
        snprintf(why, sizeof why, "no sentinel names the master %.100s: %s", options->master,
                 sentinel->why);
        redis_node_fail(client->node, why);
        return;
    }
    loop_timer_start(sentinel->patience, PATIENCE_MS, 0);
    sentinel->asked = open_client(sentinel, sentinel->at, &callbacks);
    if (sentinel->asked != NULL)
        redis_command(sentinel->asked, told, sentinel, 3,
                      (const char *[]){"SENTINEL", "GET-MASTER-ADDR-BY-NAME", options->master},
                      NULL);
}

void redis_sentinel_ask(struct redis_sentinel *sentinel)
{
    redis_close(&sentinel->asked);
    sentinel->tried = 0;
    ask_next(sentinel);
}

/* --- making and freeing ------------------------------------------------------------------- */

struct redis_sentinel *redis_sentinel_new(struct redis *redis)
{
    struct redis_sentinel *sentinel = mem_must_zalloc(sizeof *sentinel);
    sentinel->client = redis;
    sentinel->patience = loop_timer_new(redis->loop, silent, sentinel);
    sentinel->listen = loop_timer_new(redis->loop, listen_now, sentinel);
    return sentinel;
}

void redis_sentinel_free(struct redis_sentinel **ret)
{
    struct redis_sentinel *sentinel = *ret;
    *ret = NULL;
    if (sentinel == NULL)
        return;
    redis_close(&sentinel->asked);
    redis_close(&sentinel->listener);
    loop_timer_free(&sentinel->patience);
    loop_timer_free(&sentinel->listen);
    free(sentinel);
}
