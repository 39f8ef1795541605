#include "common/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus.h"
#include "common/clock.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "schemas/mem.h"

#define MISSED_BEATS 3
/* A silent broker's socket is opened anew, first after the one, at most after the other: zmq gives
 * a connection up for good once a handshake has failed (session_base.cpp: engine_error). */
#define REOPEN_MIN_MS 1000
#define REOPEN_MAX_MS 10000
#define ROUTES 4096 /* tasks whose broker is remembered */

/* What one broker's taps want. */
struct wanted {
    bool all;
    char **prefixes; /* owned */
    size_t n_prefixes;
};

struct link {
    struct peer *peer; /* borrowed */
    int broker;
    char *endpoint;
    struct bus *bus;
    char boot[33];         /* of the broker that we introduced ourselves to */
    bool connected;        /* it answered, and the connection stands since */
    bool heard_once;       /* connected at least once and not reported as lost since */
    int64_t heard_ms;      /* when its last frame came */
    int64_t introduced_ms; /* when introduce() was last called on this connection; 0: not yet */
    int64_t beat_ms;       /* the broker's */
    int64_t opened_ms;     /* when the socket was opened */
    int64_t reopen_ms;     /* how long it may be silent then */
    struct wanted wanted;
};

/* Which broker dispatched a task; another task may take the place. */
struct route {
    uint64_t hash;
    int broker;
};

struct peer {
    char *source, *boot;
    struct peer_callbacks callbacks;
    void *ctx;
    uv_loop_t *loop;
    struct bus_keys key_store;
    const struct bus_keys *keys; /* NULL: not encrypted */
    int64_t beat_ms;
    struct loop_timer *timer;
    int64_t ticked_ms;
    int64_t sequence; /* of the last event */
    struct buf out;   /* reused by every send */
    int busy;         /* callbacks on the stack: peer_close() in one of them frees at its end */
    bool closed;
    int n_links;
    struct link *links;
    struct route *routes; /* NULL: one broker only */
};

/* --- sending ------------------------------------------------------------------------------ */

static int send_encoded(struct peer *peer, struct link *link)
{
    return bus_send(link->bus, NULL, peer->out.data, peer->out.len);
}

static int encode(struct peer *peer, struct message *message)
{
    buf_clear(&peer->out);
    message->source = peer->source;
    message->time_ms = clock_wall_ms();
    return message_encode(message, &peer->out);
}

int peer_send(struct peer *peer, int broker, struct message *message)
{
    if (peer->closed || broker < 0 || broker >= peer->n_links)
        return -EAGAIN;
    int rc = encode(peer, message);
    FAILPOINT_OF("bus.send", message_name(message->type));
    return rc == 0 ? send_encoded(peer, &peer->links[broker]) : rc;
}

void peer_send_all(struct peer *peer, struct message *message)
{
    if (peer->closed || encode(peer, message) != 0)
        return;
    FAILPOINT_OF("bus.send", message_name(message->type));
    for (int i = 0; i < peer->n_links; i++)
        send_encoded(peer, &peer->links[i]);
}

static void send_beat(struct peer *peer, struct link *link)
{
    struct message beat = {.type = MESSAGE_beat,
                           .beat = {.boot = peer->boot, .gpu_utilization = -1}};
    if (peer->callbacks.beat != NULL)
        peer->callbacks.beat(peer->ctx, &beat.beat);
    peer_send(peer, link->broker, &beat);
}

/* --- events ------------------------------------------------------------------------------- */

static void wanted_clear(struct wanted *wanted)
{
    for (size_t i = 0; i < wanted->n_prefixes; i++)
        free(wanted->prefixes[i]);
    free(wanted->prefixes);
    *wanted = (struct wanted){0};
}

static void wanted_set(struct wanted *wanted, const struct msg_topics *topics)
{
    wanted_clear(wanted);
    wanted->all = topics->all;
    if (topics->n_prefixes == 0)
        return;
    wanted->prefixes = mem_must_zalloc(topics->n_prefixes * sizeof *wanted->prefixes);
    for (size_t i = 0; i < topics->n_prefixes; i++)
        wanted->prefixes[i] = mem_must_strdup(topics->prefixes[i]);
    wanted->n_prefixes = topics->n_prefixes;
}

static bool wanted_has(const struct wanted *wanted, const char *topic)
{
    for (size_t i = 0; i < wanted->n_prefixes; i++)
        if (strncmp(topic, wanted->prefixes[i], strlen(wanted->prefixes[i])) == 0)
            return true;
    return wanted->all;
}

/* FNV-1a of the task's id. */
static uint64_t route_hash(const char *task, size_t len)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)task[i]) * 1099511628211u;
    return hash;
}

static void remember_route(struct link *link, const char *task)
{
    struct route *routes = link->peer->routes;
    uint64_t hash = route_hash(task, strlen(task));
    if (routes != NULL)
        routes[hash % ROUTES] = (struct route){hash, link->broker};
}

/* The broker that dispatched the task of a topic task.<id>.<what>; NULL: not known. */
static struct link *routed_link(const struct peer *peer, const char *topic)
{
    if (peer->routes == NULL || strncmp(topic, "task.", 5) != 0)
        return NULL;
    uint64_t hash = route_hash(topic + 5, strcspn(topic + 5, "."));
    const struct route *route = &peer->routes[hash % ROUTES];
    struct link *link = &peer->links[route->broker];
    return route->hash == hash && link->connected ? link : NULL;
}

/* Events travel through one broker, so its taps are the ones that count. A broker takes events of
 * a task only from workers to whom it has dispatched it. */
static struct link *event_link(const struct peer *peer, const char *topic)
{
    struct link *routed = routed_link(peer, topic);
    if (routed != NULL)
        return routed;
    for (int i = 0; i < peer->n_links; i++)
        if (peer->links[i].connected)
            return &peer->links[i];
    return NULL;
}

bool peer_wanted(const struct peer *peer, const char *topic)
{
    const struct link *link = event_link(peer, topic);
    return link != NULL && wanted_has(&link->wanted, topic);
}

void peer_event(struct peer *peer, const char *topic, struct message *message)
{
    struct link *link = peer->closed ? NULL : event_link(peer, topic);
    if (link == NULL || !wanted_has(&link->wanted, topic))
        return;
    message->source = peer->source;
    message->time_ms = clock_wall_ms();
    message->sequence = peer->sequence + 1;
    buf_clear(&peer->out);
    if (event_encode(topic, message, &peer->out) != 0)
        return;
    peer->sequence++; /* also when the queue is full: the gap tells the tap what it missed */
    send_encoded(peer, link);
}

/* --- receiving ---------------------------------------------------------------------------- */

static void peer_destroy(struct peer *peer)
{
    for (int i = 0; i < peer->n_links; i++) {
        struct link *link = &peer->links[i];
        bus_close(&link->bus);
        wanted_clear(&link->wanted);
        free(link->endpoint);
    }
    loop_timer_free(&peer->timer);
    buf_release(&peer->out);
    explicit_bzero(&peer->key_store, sizeof peer->key_store);
    free(peer->routes);
    free(peer->links);
    free(peer->source);
    free(peer->boot);
    free(peer);
}

static void enter(struct peer *peer)
{
    peer->busy++;
}

static void leave(struct peer *peer)
{
    if (--peer->busy == 0 && peer->closed)
        peer_destroy(peer);
}

static void introduce(struct link *link, const char *boot)
{
    size_t len = strnlen(boot, sizeof link->boot - 1);
    memcpy(link->boot, boot, len);
    link->boot[len] = '\0';
    link->introduced_ms = clock_ms();
    link->peer->callbacks.introduce(link->peer->ctx, link->broker);
}

static void on_who(struct link *link, const struct message *message)
{
    /* Each message sent before the introduction arrived brings one who: the first is enough. */
    if (link->introduced_ms != 0 && strcmp(message->who.boot, link->boot) == 0 &&
        clock_ms() - link->introduced_ms < link->peer->beat_ms)
        return;
    introduce(link, message->who.boot);
}

static void on_boot(struct link *link, const char *boot)
{
    if (boot[0] != '\0' && strcmp(boot, link->boot) != 0)
        introduce(link, boot);
}

static void on_welcome(struct link *link, const struct message *message)
{
    const struct peer *peer = link->peer;
    if (message->welcome.beat_ms > 0)
        link->beat_ms = message->welcome.beat_ms;
    on_boot(link, message->welcome.boot);
    if (peer->callbacks.welcome != NULL && !peer->closed)
        peer->callbacks.welcome(peer->ctx, link->broker, &message->welcome);
}

static void on_beat(struct link *link, const struct message *message)
{
    on_boot(link, message->beat.boot);
}

static void on_topics(struct link *link, const struct message *message)
{
    wanted_set(&link->wanted, &message->topics);
}

static void on_other(struct link *link, const struct message *message)
{
    if (message->type == MESSAGE_dispatch)
        remember_route(link, message->dispatch.task);
    link->peer->callbacks.message(link->peer->ctx, link->broker, message);
}

static void on_frame(void *ctx, const struct bus_peer *from, const uint8_t *data, size_t len)
{
    static void (*const handlers[MESSAGE_TYPE_COUNT])(struct link *, const struct message *) = {
        [MESSAGE_who] = on_who,
        [MESSAGE_welcome] = on_welcome,
        [MESSAGE_beat] = on_beat,
        [MESSAGE_topics] = on_topics,
    };
    struct link *link = ctx;
    struct peer *peer = link->peer;
    struct message message;
    (void)from;
    if (message_decode(&message, data, len) != 0) {
        log_debug("broker %s sent a message that cannot be read", link->endpoint);
        return;
    }
    FAILPOINT_OF("bus.got", message_name(message.type));
    link->heard_ms = clock_ms();
    link->connected = link->heard_once = true;
    link->reopen_ms = REOPEN_MIN_MS;
    enter(peer);
    (handlers[message.type] != NULL ? handlers[message.type] : on_other)(link, &message);
    message_release(&message);
    leave(peer);
}

/* What was with the broker has to go elsewhere. */
static void lose(struct link *link)
{
    struct peer *peer = link->peer;
    bool heard = link->heard_once;
    link->connected = link->heard_once = false;
    link->introduced_ms = 0;
    /* The broker may know us all the while: when it is heard again, we introduce ourselves. */
    link->boot[0] = '\0';
    if (heard && peer->callbacks.lost != NULL)
        peer->callbacks.lost(peer->ctx, link->broker);
}

/* A connection came or went. A new one is a stranger to the broker, even to one that knows us: the
 * beat brings its who. */
static void on_link(void *ctx, bool up)
{
    struct link *link = ctx;
    struct peer *peer = link->peer;
    enter(peer);
    lose(link);
    if (up && !peer->closed)
        send_beat(peer, link);
    leave(peer);
}

/* --- time --------------------------------------------------------------------------------- */

static void check_lost(struct link *link, int64_t now)
{
    if (link->heard_once && now - link->heard_ms > MISSED_BEATS * link->beat_ms)
        lose(link);
}

static int open_socket(struct link *link, struct bus **ret, struct err *err)
{
    struct peer *peer = link->peer;
    struct bus_options options = {
        .kind = BUS_DEALER, .endpoint = link->endpoint, .keys = peer->keys};
    int rc = bus_open(ret, peer->loop, &options, on_frame, link, err);
    if (rc != 0)
        return rc;
    bus_watch(*ret, on_link);
    link->opened_ms = clock_ms();
    return 0;
}

static void tell_silence(const struct link *link)
{
    const struct bus_keys *keys = link->peer->keys;
    if (keys != NULL && strncmp(link->endpoint, "tcp://", 6) == 0)
        log_warn("broker %s does not answer: it does not run, or the key %s is not known there "
                 "(any more): `orchestrator invite` makes keys known",
                 link->endpoint, keys->own.public_key);
    else
        log_debug("broker %s does not answer", link->endpoint);
}

/* In between the old socket may still come through by itself. */
static void reopen_silent(struct link *link, int64_t now)
{
    struct bus *fresh;
    if (now - link->heard_ms <= MISSED_BEATS * link->beat_ms ||
        now - link->opened_ms <= link->reopen_ms)
        return;
    if (open_socket(link, &fresh, NULL) != 0) {
        link->opened_ms = now; /* no descriptors, perhaps: later */
        return;
    }
    bus_close(&link->bus);
    link->bus = fresh;
    link->connected = false;
    link->introduced_ms = 0;
    if (link->reopen_ms < REOPEN_MAX_MS && 2 * link->reopen_ms >= REOPEN_MAX_MS)
        tell_silence(link);
    link->reopen_ms = 2 * link->reopen_ms < REOPEN_MAX_MS ? 2 * link->reopen_ms : REOPEN_MAX_MS;
}

static void tick(void *ctx)
{
    struct peer *peer = ctx;
    int64_t now = clock_ms();
    /* After a pause of this process (a stopped machine), what came meanwhile is not read yet. */
    bool paused = now - peer->ticked_ms > 2 * peer->beat_ms;
    peer->ticked_ms = now;
    enter(peer);
    for (int i = 0; i < peer->n_links && !peer->closed; i++) {
        if (paused)
            peer->links[i].heard_ms = now;
        check_lost(&peer->links[i], now);
        if (!peer->closed)
            reopen_silent(&peer->links[i], now);
        if (!peer->closed)
            send_beat(peer, &peer->links[i]);
    }
    leave(peer);
}

/* --- opening ------------------------------------------------------------------------------ */

int peer_open(struct peer **ret, uv_loop_t *loop, const struct config *config, const char *source,
              const char *boot, const struct peer_callbacks *callbacks, void *ctx, struct err *err)
{
    struct peer *peer = mem_must_zalloc(sizeof *peer);
    peer->source = mem_must_strdup(source);
    peer->boot = mem_must_strdup(boot);
    peer->callbacks = *callbacks;
    peer->ctx = ctx;
    peer->beat_ms = config->beat_ms > 0 ? config->beat_ms : 1000;
    peer->ticked_ms = clock_ms();
    peer->loop = loop;
    if (config->n_brokers > 1)
        peer->routes = mem_must_zalloc(ROUTES * sizeof *peer->routes);
    peer->links = mem_must_zalloc((config->n_brokers + 1) * sizeof *peer->links);
    int rc = peer_keys(config, source, &peer->key_store, &peer->keys, err);
    for (size_t i = 0; i < config->n_brokers && rc == 0; i++) {
        struct link *link = &peer->links[peer->n_links];
        link->peer = peer;
        link->broker = peer->n_links++;
        link->endpoint = mem_must_strdup(config->brokers[i]);
        link->beat_ms = peer->beat_ms;
        link->reopen_ms = REOPEN_MIN_MS;
        rc = open_socket(link, &link->bus, err);
    }
    if (rc != 0) {
        peer_destroy(peer);
        return rc;
    }
    peer->timer = loop_timer_new(loop, tick, peer);
    loop_timer_start(peer->timer, peer->beat_ms, peer->beat_ms);
    *ret = peer;
    return 0;
}

void peer_close(struct peer **peer_ptr)
{
    struct peer *peer = *peer_ptr;
    if (peer == NULL)
        return;
    *peer_ptr = NULL;
    peer->closed = true;
    if (peer->busy == 0)
        peer_destroy(peer);
}

int peer_brokers(const struct peer *peer)
{
    return peer->n_links;
}

bool peer_connected(const struct peer *peer, int broker)
{
    return broker >= 0 && broker < peer->n_links && peer->links[broker].connected;
}
