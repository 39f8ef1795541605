/* Carries out what the flow decides, and tells it what happens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/task_id.h"
#include "orchestrator/daemon_state.h"
#include "schemas/mem.h"

struct scanning {
    struct daemon *daemon;
    enum queue_index index;
};

/* --- the queue ------------------------------------------------------------------------------- */

static void items_answered(void *ctx, int shard, const struct queue_item *items, size_t n_items,
                           const char *err)
{
    struct scanning scanning = *(struct scanning *)ctx;
    free(ctx);
    bool failed = err != NULL && *err != '\0';
    if (scanning.daemon->stopping)
        return;
    daemon_step(scanning.daemon, (struct flow_event){.kind = FLOW_EVENT_ITEMS,
                                                     .shard = shard,
                                                     .index = scanning.index,
                                                     .items = items,
                                                     .n_items = failed ? 0 : n_items,
                                                     .failed = failed});
}

static void scan(struct daemon *daemon, const struct flow_action *action)
{
    struct scanning *scanning = mem_must_zalloc(sizeof *scanning);
    *scanning = (struct scanning){daemon, action->index};
    queue_scan(daemon->queue, action->shard, action->index, action->offset, action->limit,
               items_answered, scanning);
}

/* Said once, until something was moved again. */
static void moved(void *ctx, enum queue_status status, const char *err)
{
    struct daemon *daemon = ctx;
    bool refused = status == QUEUE_REFUSED;
    if (refused && !daemon->refused && !daemon->stopping)
        log_warn("Redis refuses to move subtasks on: %s; trying again until it takes it", err);
    daemon->refused = refused || (daemon->refused && status == QUEUE_ERROR);
}

static void expire(struct daemon *daemon, const struct flow_action *action)
{
    queue_expire(daemon->queue, action->task, action->sub, moved, daemon);
}

static void promote(struct daemon *daemon, const struct flow_action *action)
{
    queue_promote(daemon->queue, action->task, action->sub, moved, daemon);
}

static void bury(struct daemon *daemon, const struct flow_action *action)
{
    queue_bury(daemon->queue, action->task, action->sub, action->avoid, action->text, moved,
               daemon);
}

static void checkpoint(struct daemon *daemon, const struct flow_action *action)
{
    queue_checkpoint(daemon->queue, action->shard, action->id);
}

static void record(struct daemon *daemon, const struct flow_action *action)
{
    daemon_record(daemon, action->timing);
}

static void rows_kept(void *ctx, int rc)
{
    struct daemon *daemon = ctx;
    (void)rc; /* what cannot be kept must not hold the outbox */
    if (!daemon->stopping)
        daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_DURABLE});
}

static void barrier(struct daemon *daemon, const struct flow_action *action)
{
    (void)action;
    daemon_tell_records(daemon);
    store_writer_barrier(daemon->store, rows_kept, daemon);
}

/* --- steps ----------------------------------------------------------------------------------- */

typedef void act_fn(struct daemon *daemon, const struct flow_action *action);

static act_fn *const acts[] = {
    [FLOW_WITHDRAW] = daemon_withdraw,
    [FLOW_CANCEL] = daemon_cancel,
    [FLOW_SCAN] = scan,
    [FLOW_BURY] = bury,
    [FLOW_EXPIRE] = expire,
    [FLOW_PROMOTE] = promote,
    [FLOW_READ] = daemon_read,
    [FLOW_EXPAND] = daemon_expand,
    [FLOW_RECORD] = record,
    [FLOW_BARRIER] = barrier,
    [FLOW_CHECKPOINT] = checkpoint,
    [FLOW_RELEASE] = daemon_release,
    [FLOW_NOTE] = daemon_note,
    [FLOW_WAIT] = daemon_wait,
    [FLOW_PUBLISH] = daemon_publish,
};

/* An offer that did not go out, with copies of its names: the next step ends the action's life. */
struct refused {
    struct refusal refusal;
    int broker;
    bool hedge;
    char task[65], sub[65];
};

static void apply(struct daemon *daemon, const struct flow_action *actions, size_t n_actions,
                  struct refused **ret_refused, size_t *ret_n_refused)
{
    for (size_t i = 0; i < n_actions; i++) {
        const struct flow_action *action = &actions[i];
        if (action->kind != FLOW_OFFER) {
            acts[action->kind](daemon, action);
            continue;
        }
        struct refusal refusal = daemon_offer(daemon, action);
        if (refusal.kind == DAEMON_NO_REFUSAL) {
            if (!action->hedge) /* that is told when a worker has it */
                daemon_publish(daemon, action);
            continue;
        }
        *ret_refused = mem_must_realloc(*ret_refused, (*ret_n_refused + 1) * sizeof **ret_refused);
        struct refused *refused = &(*ret_refused)[(*ret_n_refused)++];
        *refused =
            (struct refused){.refusal = refusal, .broker = action->broker, .hedge = action->hedge};
        snprintf(refused->task, sizeof refused->task, "%s", action->task);
        snprintf(refused->sub, sizeof refused->sub, "%s", action->sub);
    }
}

void daemon_step(struct daemon *daemon, struct flow_event event)
{
    struct refused *refused = NULL;
    size_t n_refused = 0, n_actions;
    event.now_ms = clock_ms();
    daemon_shards_check(daemon, event.now_ms);
    const struct flow_action *actions = flow_step(daemon->flow, &event, &n_actions);
    apply(daemon, actions, n_actions, &refused, &n_refused);
    for (size_t i = 0; i < n_refused; i++)
        daemon_step(daemon, (struct flow_event){.kind = refused[i].refusal.kind,
                                                .broker = refused[i].broker,
                                                .hedge = refused[i].hedge,
                                                .task = refused[i].task,
                                                .sub = refused[i].sub,
                                                .text = refused[i].refusal.reason});
    free(refused);
}

void daemon_queue_event(void *ctx, const struct queue_event *event)
{
    struct daemon *daemon = ctx;
    if (!daemon->stopping)
        daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_QUEUE, .queue = event});
}

/* --- brokers --------------------------------------------------------------------------------- */

static void introduce(void *ctx, int broker)
{
    struct daemon *daemon = ctx;
    struct message hello = {
        .type = MESSAGE_hello,
        .hello = {
            .name = daemon->name, .boot = daemon->boot, .host = daemon->host, .pid = getpid()}};
    daemon->brokers[broker].up = false;
    peer_send(daemon->peer, broker, &hello);
    if (!daemon->stopping)
        daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_INTRODUCE, .broker = broker});
}

static void welcomed(void *ctx, int broker, const struct msg_welcome *welcome)
{
    struct daemon *daemon = ctx;
    int64_t limit = welcome->max_offers;
    if (limit > daemon->config->max_offers && daemon->config->max_offers > 0)
        limit = daemon->config->max_offers;
    daemon->brokers[broker] = (struct daemon_broker){.up = true, .max_offers = limit};
    daemon_keys_welcome(daemon->keys, broker);
    if (!daemon->stopping)
        daemon_welcome(daemon, broker);
}

static void lost(void *ctx, int broker)
{
    struct daemon *daemon = ctx;
    daemon->brokers[broker].up = false;
    log_warn("broker %s does not answer", daemon->config->brokers[broker]);
    if (!daemon->stopping)
        daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_LOST, .broker = broker});
}

static void broker_said(void *ctx, int broker, const struct message *message)
{
    struct daemon *daemon = ctx;
    struct flow_event event = {.broker = broker};
    if (daemon->stopping)
        return;
    switch (message->type) {
    case MESSAGE_taken:
        event.kind = FLOW_EVENT_TAKEN;
        event.task = message->taken.task;
        event.sub = message->taken.sub;
        event.arm = message->taken.arm;
        event.worker = message->taken.worker;
        event.hedge = message->taken.hedge;
        break;
    case MESSAGE_decline:
        event.kind = FLOW_EVENT_DECLINED;
        event.task = message->decline.task;
        event.sub = message->decline.sub;
        event.arm = message->decline.arm;
        event.after_ms = message->decline.after_ms;
        event.text = message->decline.reason;
        event.hedge = message->decline.hedge;
        break;
    case MESSAGE_unserved:
        event.kind = FLOW_EVENT_UNSERVED;
        event.task = message->unserved.task;
        event.sub = message->unserved.sub;
        event.text = message->unserved.reason;
        break;
    case MESSAGE_window:
        event.kind = FLOW_EVENT_WINDOW;
        event.task = message->window.task;
        event.sub = message->window.sub;
        break;
    case MESSAGE_admitted:
        daemon_keys_admitted(daemon->keys, &message->admitted);
        return;
    default:
        return; /* a newer broker's */
    }
    daemon_step(daemon, event);
}

const struct peer_callbacks daemon_peer_callbacks = {
    .introduce = introduce,
    .message = broker_said,
    .welcome = welcomed,
    .lost = lost,
};
