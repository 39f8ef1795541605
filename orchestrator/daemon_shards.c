/* Which shards are this daemon's. All daemons share them by leases: each calls queue_share() again
 * and again, acts on what it was given last, and gives back what is beyond its due once nothing of
 * it is under way. Who could not renew its lease stops by its own clock before the others begin. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "orchestrator/command.h"
#include "orchestrator/daemon_state.h"

/* A daemon that is gone is noticed after LEASE_MS, the others take its shards at their next call:
 * within 4 s. A pause of the loop, or of Redis, that is shorter than LEASE_MS - MARGIN_MS changes
 * nothing. */
#define LEASE_MS 3500
#define MARGIN_MS 500 /* it stops so long before its lease ends by Redis's clock */
#define SHARE_MS 500  /* how often the lease is renewed */
#define ANNOUNCE_TTL_MS 5000

static const char ready_text[] = "ready";

void daemon_say_ready(struct daemon *daemon, const char *text)
{
    if (daemon->ready_fd < 0)
        return;
    if (dprintf(daemon->ready_fd, "%s\n", text) < 0)
        log_warn("nobody reads descriptor %d: %s", daemon->ready_fd, strerror(errno));
    close(daemon->ready_fd);
    daemon->ready_fd = -1;
}

static size_t count_held(const struct daemon *daemon)
{
    size_t count = 0;
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        count += flow_holds(daemon->flow, shard);
    return count;
}

static void announce(struct daemon *daemon)
{
    struct store_counts counts = store_writer_counts(daemon->store);
    size_t offers = 0;
    for (int i = 0; i < peer_brokers(daemon->peer); i++)
        offers += flow_offered(daemon->flow, i);
    json_t *object =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", daemon->name, "host",
                  daemon->host, "pid", (json_int_t)getpid(), "shards",
                  (json_int_t)count_held(daemon), "started_ms", (json_int_t)daemon->started_ms,
                  "offers", (json_int_t)offers, "plans", (json_int_t)flow_expanding(daemon->flow),
                  "rows_kept", (json_int_t)counts.kept, "rows_dropped", (json_int_t)counts.dropped);
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    if (text != NULL)
        queue_announce(daemon->queue, daemon->id, text, ANNOUNCE_TTL_MS);
    free(text);
    json_decref(object);
}

/* --- one shard ------------------------------------------------------------------------------- */

static void gain(struct daemon *daemon, int shard, int64_t term)
{
    struct daemon_shards *shards = &daemon->shards;
    shards->terms[shard] = term;
    queue_follow_gain(daemon->queue, shard, term);
    daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_GAINED, .shard = shard});
}

static void drop(struct daemon *daemon, int shard)
{
    struct daemon_shards *shards = &daemon->shards;
    shards->terms[shard] = 0;
    shards->given[shard] = false;
    queue_follow_drop(daemon->queue, shard);
    daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_DROPPED, .shard = shard});
}

void daemon_release(struct daemon *daemon, const struct flow_action *action)
{
    daemon->shards.given[action->shard] = true; /* the next call says so */
    if (!daemon->stopping && daemon->shards.timer != NULL)
        loop_timer_start(daemon->shards.timer, 0, SHARE_MS);
}

bool daemon_holds(void *ctx, int shard)
{
    struct daemon *daemon = ctx;
    return !daemon->stopping && clock_ms() < daemon->shards.end_ms &&
           flow_holds(daemon->flow, shard);
}

/* --- the lease ------------------------------------------------------------------------------- */

static void drop_all(struct daemon *daemon)
{
    daemon->shards.end_ms = INT64_MAX; /* nothing is held: nothing can lapse */
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        if (daemon->shards.terms[shard] != 0)
            drop(daemon, shard);
    daemon->shards.end_ms = 0;
}

void daemon_shards_check(struct daemon *daemon, int64_t now_ms)
{
    struct daemon_shards *shards = &daemon->shards;
    if (shards->end_ms == 0 || now_ms < shards->end_ms)
        return;
    log_warn("the lease of its shards could not be renewed for %d ms: %s stops until it is; "
             "another orchestrator may take them",
             LEASE_MS - MARGIN_MS, daemon->name);
    shards->lapsed = true;
    drop_all(daemon);
}

/* Each orchestrator fills no more of a broker's window than its part. */
static int64_t window(const struct daemon *daemon, int broker)
{
    int64_t limit = daemon->brokers[broker].max_offers / daemon->shards.members;
    return limit > 0 ? limit : 1;
}

void daemon_welcome(struct daemon *daemon, int broker)
{
    daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_WELCOME,
                                            .broker = broker,
                                            .limit = window(daemon, broker)});
}

static void set_members(struct daemon *daemon, int64_t members)
{
    if (members < 1 || members == daemon->shards.members)
        return;
    log_info("%lld orchestrators share the shards", (long long)members);
    daemon->shards.members = members;
    for (int i = 0; i < peer_brokers(daemon->peer); i++)
        if (daemon->brokers[i].up)
            daemon_welcome(daemon, i);
}

/* The last ones, when there are more than are due. */
static void leave_surplus(struct daemon *daemon, int64_t due)
{
    int64_t surplus = (int64_t)count_held(daemon) - due;
    for (int shard = SHARD_COUNT - 1; shard >= 0 && surplus > 0; shard--) {
        if (!flow_holds(daemon->flow, shard))
            continue;
        queue_follow_drop(daemon->queue, shard);
        daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_LEAVE, .shard = shard});
        surplus--;
    }
}

static void apply_share(struct daemon *daemon, const struct queue_share *share)
{
    struct daemon_shards *shards = &daemon->shards;
    size_t before = count_held(daemon);
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        if (shards->terms[shard] != 0 && shards->terms[shard] != share->terms[shard])
            drop(daemon, shard); /* given back, or another one has had it */
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        if (share->terms[shard] != 0 && shards->terms[shard] == 0)
            gain(daemon, shard, share->terms[shard]);
    set_members(daemon, share->members);
    leave_surplus(daemon, share->due);
    size_t held = count_held(daemon);
    if (held != before)
        log_info("%s has %zu of %d shards", daemon->name, held, SHARD_COUNT);
    if (held != before)
        announce(daemon);
    if ((int64_t)held >= share->due || share->free == 0)
        daemon_say_ready(daemon, ready_text);
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        if (shards->given[shard]) /* since the call was sent */
            loop_timer_start(shards->timer, 0, SHARE_MS);
}

static void tell_refusal(struct daemon *daemon, const char *err)
{
    struct daemon_shards *shards = &daemon->shards;
    if (!shards->refused)
        log_warn("Redis refuses the lease of the shards: %s; trying again until it is granted",
                 err);
    shards->refused = true;
}

static void share_answered(void *ctx, enum queue_status status, const struct queue_share *share,
                           const char *err)
{
    struct daemon *daemon = ctx;
    struct daemon_shards *shards = &daemon->shards;
    shards->asking = false;
    if (daemon->stopping || daemon->stopped || shards->timer == NULL)
        return;
    if (status != QUEUE_OK) {
        tell_refusal(daemon, err);
        return;
    }
    int64_t now = clock_ms(), end_ms = shards->asked_ms + LEASE_MS - MARGIN_MS;
    daemon_shards_check(daemon, now);
    if (now >= end_ms) { /* it came too late to count */
        loop_timer_start(shards->timer, 0, SHARE_MS);
        return;
    }
    if (shards->lapsed || shards->refused)
        log_info("the lease is renewed again");
    shards->lapsed = shards->refused = false;
    shards->end_ms = end_ms;
    apply_share(daemon, share);
}

static void ask(void *ctx)
{
    struct daemon *daemon = ctx;
    struct daemon_shards *shards = &daemon->shards;
    int given[SHARD_COUNT];
    size_t n_given = 0;
    if (shards->asking)
        return;
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        if (shards->given[shard])
            given[n_given++] = shard;
    shards->asking = true;
    shards->asked_ms = clock_ms();
    queue_share(daemon->queue, daemon->id, LEASE_MS, given, n_given, share_answered, daemon);
    announce(daemon);
}

void daemon_shards_start(struct daemon *daemon)
{
    if (daemon->shards.timer != NULL)
        return;
    daemon->shards.timer = loop_timer_new(&daemon->loop, ask, daemon);
    loop_timer_start(daemon->shards.timer, SHARE_MS, SHARE_MS);
    ask(daemon);
}

void daemon_shards_stop(struct daemon *daemon)
{
    loop_timer_free(&daemon->shards.timer);
    drop_all(daemon);
}

static void left(void *ctx, enum queue_status status, const struct queue_share *share,
                 const char *err)
{
    (void)ctx, (void)status, (void)share, (void)err;
}

void daemon_shards_leave(struct daemon *daemon)
{
    queue_share(daemon->queue, daemon->id, 0, NULL, 0, left, NULL);
}
