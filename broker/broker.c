#include "broker/broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "broker/state.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/task_id.h"
#include "schemas/mem.h"

#define DEFAULT_BEAT_MS 1000
#define DEFAULT_MAX_OFFERS 10000
#define ROUTER_MAX_BYTES (2 * 1024 * 1024) /* the largest message to a broker has 10,000 keys */
#define XPUB_MAX_BYTES 4096                /* subscriptions */
#define TOPICS_DELAY_MS 1
#define DEFAULT_MAX_RATE 50000
#define DEFAULT_INTRODUCE_MS 15000
#define CONNECTIONS_MAX 16384 /* to each socket, where there are descriptors for as many */
#define DISPATCHES_MAX 16384  /* remembered, until a worker that declines one must have done so */

/* --- what offers.c decides ---------------------------------------------------------------- */

static bool dispatch(void *ctx, const struct offer_view *offer, struct worker *worker,
                     const char *arm)
{
    struct broker *broker = ctx;
    struct message dispatched = {.type = MESSAGE_dispatch,
                                 .trace = offer->trace,
                                 .dispatch = {.task = offer->task,
                                              .sub = offer->sub,
                                              .shard = offer->shard,
                                              .arm = arm,
                                              .hedge = offer->hedge}};
    if (worker->member == NULL || !broker_send(broker, worker->member, &dispatched))
        return false;
    broker->dispatched++;
    broker_seen(broker, offer->task, worker->name);
    dispatches_add(broker->dispatches,
                   &(struct dispatch_key){.task = offer->task,
                                          .sub = offer->sub,
                                          .arm = arm,
                                          .hedge = offer->hedge,
                                          .worker = worker},
                   offer->owner);
    struct message taken = {.type = MESSAGE_taken,
                            .trace = offer->trace,
                            .taken = {.task = offer->task,
                                      .sub = offer->sub,
                                      .arm = arm,
                                      .worker = worker->name,
                                      .hedge = offer->hedge}};
    broker_send(broker, offer->owner, &taken);
    return true;
}

/* The orchestrator knows better than we what to start when nobody serves it: no reason then. */
static void unserved(void *ctx, const struct offer_view *offer, const char *paused)
{
    char reason[PAUSED_MAX + 32] = "";
    const char *why = paused != NULL ? strstr(paused, ": ") : NULL;
    if (why != NULL)
        snprintf(reason, sizeof reason, "%.*s is paused: %s", (int)(why - paused), paused, why + 2);
    else if (paused != NULL)
        snprintf(reason, sizeof reason, "%s is paused", paused);
    struct message message = {
        .type = MESSAGE_unserved,
        .trace = offer->trace,
        .unserved = {.task = offer->task, .sub = offer->sub, .reason = reason}};
    broker_send(ctx, offer->owner, &message);
}

static const struct offers_hooks hooks = {.dispatch = dispatch, .unserved = unserved};

/* --- around every turn -------------------------------------------------------------------- */

static void sweep_gone(struct broker *broker)
{
    struct member *member, *next;
    while (broker->any_gone) {
        broker->any_gone = false; /* a removal moves offers, which may find more */
        HASH_ITER (hh, broker->members.by_id, member, next)
            if (member->gone)
                broker_remove(broker, member, "lost", "its connection is gone");
    }
}

/* Room is announced when a quarter is free, so that a full broker isn't refilled one by one. */
static void announce_room(struct broker *broker)
{
    size_t max = offers_max(broker->offers), quarter = max / 4 > 0 ? max / 4 : 1;
    if (!broker->full || offers_count(broker->offers) + quarter > max)
        return;
    broker->full = false;
    for (struct member *at = broker->members.by_id; at != NULL; at = at->hh.next) {
        if (!at->refused)
            continue;
        at->refused = false;
        broker_send_window(broker, at, NULL);
    }
    broker_tell(broker, "room", "offers are taken again");
}

static void set_due_timer(struct broker *broker)
{
    int64_t due_ms = offers_due_ms(broker->offers);
    if (due_ms == broker->due_ms)
        return;
    broker->due_ms = due_ms;
    if (due_ms < 0)
        loop_timer_stop(broker->due_timer);
    else
        loop_timer_start(broker->due_timer, due_ms - clock_ms(), 0);
}

static void begin_turn(struct broker *broker)
{
    broker->now_ms = clock_ms();
}

static void end_turn(struct broker *broker)
{
    sweep_gone(broker);
    announce_room(broker);
    set_due_timer(broker);
}

static void on_due(void *ctx)
{
    struct broker *broker = ctx;
    begin_turn(broker);
    broker->due_ms = -1; /* the timer has fired: it must be set again */
    offers_tick(broker->offers, broker->now_ms);
    end_turn(broker);
}

static void on_tick(void *ctx)
{
    struct broker *broker = ctx;
    begin_turn(broker);
    int64_t now = broker->now_ms;
    /* After a pause of this process (a stopped machine), what came meanwhile is not read yet. */
    bool paused = now - broker->ticked_ms > 2 * broker->beat_ms;
    broker->ticked_ms = now;
    struct member *member, *next;
    HASH_ITER (hh, broker->members.by_id, member, next) {
        if (paused)
            member->heard_ms = now;
        if (now - member->heard_ms > MISSED_BEATS * broker->beat_ms)
            broker_remove(broker, member, "lost", "it missed three heartbeats");
    }
    bus_sweep(broker->router, broker->introduce_ms);
    broker_refresh_keys(broker);
    broker_reconsider(broker);
    struct message beat = {.type = MESSAGE_beat, .beat = {.boot = broker->boot}};
    broker_send_everybody(broker, &beat);
    end_turn(broker);
}

static void on_topics_changed(void *ctx)
{
    struct broker *broker = ctx;
    begin_turn(broker);
    broker_send_topics(broker, NULL);
    end_turn(broker);
}

/* --- frames ------------------------------------------------------------------------------- */

static void forward_event(struct broker *broker, const struct bus_peer *id, const uint8_t *data,
                          size_t len)
{
    if (event_topic_len(data, len) == 0) {
        broker_reject(broker, "bytes that are no event");
        return;
    }
    if (!broker_may_publish(broker, id, data, len) || broker->xpub == NULL)
        return;
    broker->events++;
    bus_send(broker->xpub, NULL, data, len);
}

static void on_router_frame(void *ctx, const struct bus_peer *id, const uint8_t *data, size_t len)
{
    struct broker *broker = ctx;
    begin_turn(broker);
    struct member *member = members_find(&broker->members, id);
    int64_t rejected = broker->rejected;
    if (member != NULL)
        member->heard_ms = broker->now_ms;
    if (broker_floods(broker, id))
        ; /* nothing of it is read any more */
    else if (frame_is_event(data, len))
        forward_event(broker, id, data, len);
    else
        broker_handle(broker, id, member, data, len);
    if (broker->rejected != rejected)
        broker_blame(broker, id, "it keeps sending what is malformed or not allowed");
    end_turn(broker);
}

static void on_xpub_frame(void *ctx, const struct bus_peer *id, const uint8_t *data, size_t len)
{
    struct broker *broker = ctx;
    (void)id;
    if (!taps_frame(&broker->taps, data, len))
        return;
    if (!loop_timer_active(broker->topics_timer))
        loop_timer_start(broker->topics_timer, TOPICS_DELAY_MS, 0);
    /* Nobody could hear it when it was true: the first tap to ask is told. */
    if (!broker->told_started && taps_want(&broker->taps, "broker.started")) {
        broker->told_started = true;
        broker_tell(broker, "started", "");
    }
}

/* --- opening and closing ------------------------------------------------------------------ */

/* Some descriptors are for other things than connections. */
static size_t connections_max(const struct broker_options *options)
{
    struct rlimit limit;
    if (options->max_connections > 0)
        return options->max_connections;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > 2 * CONNECTIONS_MAX)
        return CONNECTIONS_MAX;
    return limit.rlim_cur > 128 ? (size_t)(limit.rlim_cur - 64) / 2 : 32;
}

static const char *secret_of(const struct broker *broker)
{
    return broker->admission.keyring != NULL ? broker->admission.pair.secret_key : NULL;
}

int broker_open_taps(struct broker *broker, struct err *err)
{
    struct bus_options xpub = {.kind = BUS_XPUB,
                               .endpoint = broker->taps_endpoint,
                               .max_bytes = XPUB_MAX_BYTES,
                               .secret_key = secret_of(broker),
                               .admit = broker_admit_tap,
                               .max_connections = broker->max_taps};
    return bus_open(&broker->xpub, broker->loop, &xpub, on_xpub_frame, broker, err);
}

static int open_sockets(struct broker *broker, const struct broker_options *options,
                        struct err *err)
{
    bool tcp =
        strncmp(options->endpoint, "tcp://", 6) == 0 || strncmp(options->taps, "tcp://", 6) == 0;
    int rc = admission_open(&broker->admission, tcp ? options->keys : NULL, broker->now_ms, err);
    if (rc != 0)
        return rc;
    struct bus_options router = {.kind = BUS_ROUTER,
                                 .endpoint = options->endpoint,
                                 .max_bytes = ROUTER_MAX_BYTES,
                                 .secret_key = secret_of(broker),
                                 .admit = broker_admit_peer,
                                 .max_connections = connections_max(options)};
    rc = bus_open(&broker->router, broker->loop, &router, on_router_frame, broker, err);
    if (rc == 0)
        rc = broker_open_taps(broker, err);
    return rc == 0 ? broker_self_test(broker, broker->loop, err) : rc;
}

static void broker_free(struct broker *broker)
{
    bus_close(&broker->router);
    bus_close(&broker->xpub);
    admission_release(&broker->admission);
    loop_timer_free(&broker->reopen_timer);
    loop_timer_free(&broker->beat_timer);
    loop_timer_free(&broker->due_timer);
    loop_timer_free(&broker->topics_timer);
    offers_free(&broker->offers);
    dispatches_free(&broker->dispatches);
    dispatches_free(&broker->seen);
    members_release(&broker->members);
    registry_release(&broker->registry);
    taps_release(&broker->taps);
    buf_release(&broker->out);
    free(broker->taps_endpoint);
    free(broker);
}

int broker_open(struct broker **ret, uv_loop_t *loop, const struct broker_options *options,
                struct err *err)
{
    struct broker *broker = mem_must_zalloc(sizeof *broker);
    int64_t max_offers = options->max_offers > 0 ? options->max_offers : DEFAULT_MAX_OFFERS;
    broker->beat_ms = options->beat_ms > 0 ? options->beat_ms : DEFAULT_BEAT_MS;
    broker->started_ms = broker->ticked_ms = broker->now_ms = clock_ms();
    broker->due_ms = -1;
    broker->loop = loop;
    broker->taps_endpoint = mem_must_strdup(options->taps);
    broker->max_taps = connections_max(options);
    broker->max_rate = options->max_rate > 0 ? options->max_rate : DEFAULT_MAX_RATE;
    broker->introduce_ms = options->introduce_ms > 0 ? options->introduce_ms : DEFAULT_INTRODUCE_MS;
    boot_nonce_make(broker->boot);
    if (gethostname(broker->host, sizeof broker->host - 1) != 0)
        snprintf(broker->host, sizeof broker->host, "localhost");
    snprintf(broker->source, sizeof broker->source, "broker/%s", broker->host);
    registry_init(&broker->registry);
    broker->offers = offers_new(&broker->registry, (size_t)max_offers, &hooks, broker);
    broker->dispatches = dispatches_new(DISPATCHES_MAX);
    broker->beat_timer = loop_timer_new(loop, on_tick, broker);
    broker->due_timer = loop_timer_new(loop, on_due, broker);
    broker->topics_timer = loop_timer_new(loop, on_topics_changed, broker);
    broker->reopen_timer = loop_timer_new(loop, broker_try_taps, broker);
    int rc = open_sockets(broker, options, err);
    if (rc != 0) {
        broker_free(broker);
        return rc;
    }
    loop_timer_start(broker->beat_timer, broker->beat_ms, broker->beat_ms);
    log_info("serves %s, taps at %s%s", options->endpoint, options->taps,
             bus_secure(broker->router) ? ", to known keys only" : "");
    *ret = broker;
    return 0;
}

void broker_close(struct broker **broker)
{
    if (*broker == NULL)
        return;
    broker_tell(*broker, "stopping", "it was told to stop");
    broker_free(*broker);
    *broker = NULL;
}
