/* One daemon is active: who holds the lease leads, the others ask for it again and again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/log.h"
#include "common/task_id.h"
#include "orchestrator/command.h"
#include "orchestrator/daemon_state.h"

#define LEASE_MS 3000
#define LEAD_MS 500 /* how often the lease is asked for or renewed */
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

static void announce(struct daemon *daemon)
{
    struct store_counts counts = store_writer_counts(daemon->store);
    size_t offers = 0;
    for (int i = 0; daemon->leading && i < peer_brokers(daemon->peer); i++)
        offers += flow_offered(daemon->flow, i);
    json_t *object =
        json_pack("{s:s, s:s, s:I, s:b, s:I, s:I, s:I, s:I, s:I}", "name", daemon->name, "host",
                  daemon->host, "pid", (json_int_t)getpid(), "leading", daemon->leading,
                  "started_ms", (json_int_t)daemon->started_ms, "offers", (json_int_t)offers,
                  "plans", (json_int_t)(daemon->leading ? flow_expanding(daemon->flow) : 0),
                  "rows_kept", (json_int_t)counts.kept, "rows_dropped", (json_int_t)counts.dropped);
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    if (text != NULL)
        queue_announce(daemon->queue, daemon->id, text, ANNOUNCE_TTL_MS);
    free(text);
    json_decref(object);
}

/* --- leading --------------------------------------------------------------------------------- */

static void welcome_known_brokers(struct daemon *daemon)
{
    for (int i = 0; i < peer_brokers(daemon->peer); i++)
        if (daemon->brokers[i].up)
            daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_WELCOME,
                                                    .broker = i,
                                                    .limit = daemon->brokers[i].max_offers});
}

static void lead(struct daemon *daemon)
{
    struct flow_options options = flow_defaults;
    struct err err;
    options.brokers = peer_brokers(daemon->peer);
    daemon_hedges_start(daemon);
    options.hedge_ms = daemon->pace != NULL ? daemon_hedge_ms : NULL;
    options.hedge_ctx = daemon;
    int rc = queue_open(&daemon->follow, &daemon->loop, &daemon->config->redis, NULL, NULL, &err);
    if (rc == 0)
        rc = queue_follow(daemon->follow, daemon_queue_event, daemon, &err);
    if (rc != 0) {
        log_error("cannot follow the queue: %s", err.text);
        queue_close(&daemon->follow);
        return;
    }
    daemon->leading = true;
    daemon->term++;
    daemon->flow = flow_new(&options);
    log_info("%s leads", daemon->name);
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_GAINED, .shard = shard});
    announce(daemon); /* it did not lead when it did so last */
    welcome_known_brokers(daemon);
}

void daemon_lead_stop(struct daemon *daemon)
{
    daemon->leading = false;
    daemon->term++;
    queue_close(&daemon->follow);
    flow_free(&daemon->flow);
    if (daemon->archive != NULL)
        archive_stop(daemon->archive);
}

static void lease_answered(void *ctx, enum queue_status status, const char *err)
{
    struct daemon *daemon = ctx;
    daemon->asking = false;
    if (daemon->stopping || daemon->stopped)
        return;
    if (status == QUEUE_OK && !daemon->leading)
        lead(daemon);
    if (status == QUEUE_TAKEN && daemon->leading) {
        log_warn("another orchestrator leads now: this one stands by");
        daemon_lead_stop(daemon);
    }
    if (status == QUEUE_REFUSED || status == QUEUE_ERROR)
        log_warn("cannot get the lease of the active orchestrator: %s", err);
    if (daemon->leading || status == QUEUE_TAKEN)
        daemon_say_ready(daemon, ready_text);
}

static void ask_for_lease(void *ctx)
{
    struct daemon *daemon = ctx;
    if (daemon->asking)
        return;
    daemon->asking = true;
    queue_lead(daemon->queue, daemon->id, LEASE_MS, lease_answered, daemon);
    announce(daemon);
}

void daemon_lead_start(struct daemon *daemon)
{
    daemon->lead_timer = loop_timer_new(&daemon->loop, ask_for_lease, daemon);
    loop_timer_start(daemon->lead_timer, LEAD_MS, LEAD_MS);
    ask_for_lease(daemon);
}
