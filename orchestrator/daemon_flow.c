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

/* An answer that is waited for, and the term it belongs to. */
struct answer {
    struct daemon *daemon;
    int64_t term;
    enum queue_index index;
};

static struct answer *answer_new(struct daemon *daemon, enum queue_index index)
{
    struct answer *answer = mem_must_zalloc(sizeof *answer);
    *answer = (struct answer){daemon, daemon->term, index};
    return answer;
}

/* Frees the answer; NULL when it is of an earlier term. */
static struct daemon *answer_take(struct answer *answer)
{
    struct daemon *daemon = answer->daemon;
    bool current = daemon->leading && !daemon->stopped && answer->term == daemon->term;
    free(answer);
    return current ? daemon : NULL;
}

/* --- the queue ------------------------------------------------------------------------------- */

static void items_answered(void *ctx, int shard, const struct queue_item *items, size_t n_items,
                           const char *err)
{
    enum queue_index index = ((struct answer *)ctx)->index;
    struct daemon *daemon = answer_take(ctx);
    if (daemon == NULL)
        return;
    bool failed = err != NULL && *err != '\0';
    daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_ITEMS,
                                            .shard = shard,
                                            .index = index,
                                            .items = items,
                                            .n_items = failed ? 0 : n_items,
                                            .failed = failed});
}

static void scan(struct daemon *daemon, const struct flow_action *action)
{
    queue_scan(daemon->queue, action->shard, action->index, action->offset, action->limit,
               items_answered, answer_new(daemon, action->index));
}

static void moved(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx;
    if (status == QUEUE_REFUSED)
        log_warn("Redis refuses to move subtasks on: %s", err);
}

static void expire(struct daemon *daemon, const struct flow_action *action)
{
    queue_expire(daemon->queue, action->task, action->sub, moved, NULL);
}

static void promote(struct daemon *daemon, const struct flow_action *action)
{
    queue_promote(daemon->queue, action->task, action->sub, moved, NULL);
}

static void bury(struct daemon *daemon, const struct flow_action *action)
{
    queue_bury(daemon->queue, action->task, action->sub, action->avoid, action->text, moved, NULL);
}

static void checkpoint(struct daemon *daemon, const struct flow_action *action)
{
    queue_checkpoint(daemon->queue, action->shard, action->id);
}

static void record(struct daemon *daemon, const struct flow_action *action)
{
    store_writer_timing(daemon->store, action->timing);
    daemon_hedges_record(daemon, action->timing);
}

static void rows_kept(void *ctx, int rc)
{
    struct daemon *daemon = answer_take(ctx);
    (void)rc; /* what cannot be kept must not hold the outbox */
    if (daemon != NULL)
        daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_DURABLE});
}

static void barrier(struct daemon *daemon, const struct flow_action *action)
{
    (void)action;
    store_writer_barrier(daemon->store, rows_kept, answer_new(daemon, QUEUE_INDEX_READY));
}

static void release(struct daemon *daemon, const struct flow_action *action)
{
    (void)daemon, (void)action;
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
    [FLOW_RELEASE] = release,
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
    if (daemon->flow == NULL)
        return;
    event.now_ms = clock_ms();
    const struct flow_action *actions = flow_step(daemon->flow, &event, &n_actions);
    apply(daemon, actions, n_actions, &refused, &n_refused);
    for (size_t i = 0; i < n_refused && daemon->flow != NULL; i++)
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
    if (daemon->leading && !daemon->stopping)
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
    if (daemon->leading)
        daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_INTRODUCE, .broker = broker});
}

static void welcomed(void *ctx, int broker, const struct msg_welcome *welcome)
{
    struct daemon *daemon = ctx;
    int64_t limit = welcome->max_offers;
    if (limit > daemon->config->max_offers && daemon->config->max_offers > 0)
        limit = daemon->config->max_offers;
    daemon->brokers[broker] = (struct daemon_broker){.up = true, .max_offers = limit};
    if (daemon->leading && !daemon->stopping)
        daemon_step(daemon, (struct flow_event){
                                .kind = FLOW_EVENT_WELCOME, .broker = broker, .limit = limit});
}

static void lost(void *ctx, int broker)
{
    struct daemon *daemon = ctx;
    daemon->brokers[broker].up = false;
    log_warn("broker %s does not answer", daemon->config->brokers[broker]);
    if (daemon->leading && !daemon->stopping)
        daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_LOST, .broker = broker});
}

static void broker_said(void *ctx, int broker, const struct message *message)
{
    struct daemon *daemon = ctx;
    struct flow_event event = {.broker = broker};
    if (!daemon->leading || daemon->stopping)
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
