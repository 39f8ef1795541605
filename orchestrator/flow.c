#include "orchestrator/flow.h"

#include <stdarg.h>
#include <stdlib.h>

#include "orchestrator/flow_state.h"
#include "schemas/mem.h"

const struct flow_options flow_defaults = {
    .brokers = 1,
    .grace_ms = 3000,
    .reoffer_ms = 5000,
    .scan_ms = 1000,
    .idle_scan_ms = 5000,
    .delay_scan_ms = 100,
    .checkpoint_ms = 500,
    .again_ms = 1000,
    .parked_max = 100000,
    .reserve_max = 50000, /* some 250 bytes each */
};

struct flow *flow_new(const struct flow_options *options)
{
    struct flow *flow = mem_must_zalloc(sizeof *flow);
    flow->options = *options;
    flow->brokers = mem_must_zalloc(((size_t)options->brokers + 1) * sizeof *flow->brokers);
    TAILQ_INIT(&flow->done);
    flow_offers_init(flow);
    flow_shards_init(flow);
    return flow;
}

static void free_texts(struct flow *flow)
{
    while (flow->n_texts > 0)
        free(flow->texts[--flow->n_texts]);
}

void flow_free(struct flow **flow)
{
    if (*flow == NULL)
        return;
    flow_offers_release(*flow);
    flow_hedges_release(*flow);
    flow_expand_release(*flow);
    free_texts(*flow);
    free((*flow)->texts);
    free((*flow)->brokers);
    free((*flow)->actions);
    free(*flow);
    *flow = NULL;
}

struct flow_action *flow_act(struct flow *flow, enum flow_action_kind kind)
{
    if (flow->n_actions == flow->cap_actions) {
        flow->cap_actions = flow->cap_actions < 16 ? 32 : flow->cap_actions * 2;
        flow->actions = mem_must_realloc(flow->actions, flow->cap_actions * sizeof *flow->actions);
    }
    struct flow_action *action = &flow->actions[flow->n_actions++];
    *action = (struct flow_action){
        .kind = kind,
        .task = "",
        .sub = "",
        .what = "",
        .text = "",
        .avoid = "",
        .error_class = "",
        .arm = "",
        .worker = "",
        .running = "",
    };
    return action;
}

const char *flow_text(struct flow *flow, const char *format, ...)
{
    struct buf text = {0};
    size_t len;
    va_list args;
    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    if (flow->n_texts == flow->cap_texts) {
        flow->cap_texts = flow->cap_texts < 8 ? 16 : flow->cap_texts * 2;
        flow->texts = mem_must_realloc(flow->texts, flow->cap_texts * sizeof *flow->texts);
    }
    return flow->texts[flow->n_texts++] = buf_take(&text, &len);
}

/* --- the outbox ------------------------------------------------------------------------------ */

static void publish(struct flow *flow, const struct queue_event *event, const char *what)
{
    struct flow_action *action = flow_act(flow, FLOW_PUBLISH);
    action->task = event->task;
    action->sub = event->sub;
    action->what = what;
    action->text = event->reason;
    action->meta = event->meta;
    action->queue = event;
}

static void record(struct flow *flow, const struct queue_event *event)
{
    if (event->timing.len > 0)
        flow_act(flow, FLOW_RECORD)->timing = event->timing;
}

static void on_ready(struct flow *flow, struct shard *shard, const struct queue_event *event)
{
    struct queue_item item = {
        .task = event->task,
        .sub = event->sub,
        .attempt = event->attempt,
        .priority = event->priority,
        .meta = event->meta,
        .avoid = event->avoid,
        .error_class = event->error_class,
    };
    publish(flow, event, "ready");
    if (!flow_entry_ready(flow, event->shard, &item))
        flow_shard_more(flow, shard, true);
}

static void on_done(struct flow *flow, struct shard *shard, const struct queue_event *event)
{
    flow_entry_finished(flow, event->task, event->sub, INT64_MAX);
    flow_hedges_finished(flow, event->task, event->sub);
    record(flow, event);
    publish(flow, event, "done");
    if (event->expands)
        flow_expand_start(flow, shard, event->task, event->sub, shard->before);
}

static void on_fail(struct flow *flow, struct shard *shard, const struct queue_event *event)
{
    flow_entry_finished(flow, event->task, event->sub, event->attempt);
    flow_hedges_failed(flow, event->task, event->sub, event->attempt);
    record(flow, event);
    publish(flow, event, "retry");
    shard->failed_ms = flow->now_ms;
    shard->next_ms[QUEUE_INDEX_DELAY] = flow->now_ms;
}

static void on_dead(struct flow *flow, struct shard *shard, const struct queue_event *event)
{
    (void)shard;
    const struct entry *entry = flow_entry_find(flow, event->task, event->sub);
    bool buried = entry != NULL && entry->buried;
    flow_entry_finished(flow, event->task, event->sub, INT64_MAX);
    flow_hedges_finished(flow, event->task, event->sub);
    record(flow, event);
    publish(flow, event, "dead");
    flow->actions[flow->n_actions - 1].alone = buried;
}

/* An attempt that another one made needless: it changes nothing, but was paid for. */
static void on_lost(struct flow *flow, struct shard *shard, const struct queue_event *event)
{
    (void)shard;
    record(flow, event);
}

static void on_submitted(struct flow *flow, struct shard *shard, const struct queue_event *event)
{
    (void)shard;
    publish(flow, event, "submitted");
}

static void on_task(struct flow *flow, struct shard *shard, const struct queue_event *event)
{
    (void)shard;
    static const char *const whats[TASK_STATE_COUNT] = {
        [TASK_LOADING] = "submitted", [TASK_RUNNING] = "retried",     [TASK_DONE] = "done",
        [TASK_FAILED] = "failed",     [TASK_CANCELLED] = "cancelled",
    };
    if (event->state < TASK_STATE_COUNT)
        publish(flow, event, whats[event->state]);
    if (event->state == TASK_CANCELLED)
        flow_act(flow, FLOW_CANCEL)->task = event->task;
    if (event->state == TASK_CANCELLED || event->state == TASK_FAILED)
        flow_entries_drop_task(flow, event->shard, event->task);
    if (event->state == TASK_CANCELLED || event->state == TASK_FAILED)
        flow_hedges_drop_task(flow, event->task, event->state == TASK_CANCELLED);
}

static void on_queue(struct flow *flow, const struct flow_event *event)
{
    static void (*const handlers[QUEUE_EVENT_KIND_COUNT])(struct flow *, struct shard *,
                                                          const struct queue_event *) = {
        [QUEUE_EVENT_READY] = on_ready,         [QUEUE_EVENT_DONE] = on_done,
        [QUEUE_EVENT_FAIL] = on_fail,           [QUEUE_EVENT_DEAD] = on_dead,
        [QUEUE_EVENT_SUBMITTED] = on_submitted, [QUEUE_EVENT_TASK] = on_task,
        [QUEUE_EVENT_LOST] = on_lost,
    };
    const struct queue_event *queue = event->queue;
    struct shard *shard = &flow->shards[queue->shard];
    struct stream_id id = flow_stream_id(queue->id);
    if (shard->state != SHARD_HELD)
        return; /* another orchestrator's */
    if (flow_stream_cmp(id, shard->last) < 0)
        return; /* the connection was lost and this came again */
    if (flow_stream_cmp(id, shard->last) > 0)
        shard->before = shard->last;
    shard->last = id;
    shard->active_ms = flow->now_ms;
    if (queue->kind < QUEUE_EVENT_KIND_COUNT && handlers[queue->kind] != NULL)
        handlers[queue->kind](flow, shard, queue);
}

/* --- everything ------------------------------------------------------------------------------ */

static void on_introduce(struct flow *flow, const struct flow_event *event)
{
    flow_broker_gone(flow, event->broker);
}

static void on_durable(struct flow *flow, const struct flow_event *event)
{
    (void)event;
    flow_shards_durable(flow);
}

static void on_tick(struct flow *flow, const struct flow_event *event)
{
    (void)event;
    flow_offers_tick(flow);
    flow_hedges_tick(flow);
    flow_shards_tick(flow);
}

static void on_stop(struct flow *flow, const struct flow_event *event)
{
    (void)event;
    flow_shards_stop(flow);
}

const struct flow_action *flow_step(struct flow *flow, const struct flow_event *event,
                                    size_t *ret_count)
{
    static void (*const handlers[])(struct flow *, const struct flow_event *) = {
        [FLOW_EVENT_QUEUE] = on_queue,
        [FLOW_EVENT_ITEMS] = flow_shards_items,
        [FLOW_EVENT_INTRODUCE] = on_introduce,
        [FLOW_EVENT_WELCOME] = flow_broker_welcome,
        [FLOW_EVENT_LOST] = on_introduce,
        [FLOW_EVENT_TAKEN] = flow_entry_taken,
        [FLOW_EVENT_DECLINED] = flow_entry_declined,
        [FLOW_EVENT_UNSERVED] = flow_entry_unserved,
        [FLOW_EVENT_WINDOW] = flow_broker_window,
        [FLOW_EVENT_UNSENT] = flow_entry_unsent,
        [FLOW_EVENT_UNROUTABLE] = flow_entry_unroutable,
        [FLOW_EVENT_EXHAUSTED] = flow_entry_exhausted,
        [FLOW_EVENT_UNHEDGED] = flow_hedges_unhedged,
        [FLOW_EVENT_PLAN] = flow_expand_judged,
        [FLOW_EVENT_EXPANDED] = flow_expand_finished,
        [FLOW_EVENT_DURABLE] = on_durable,
        [FLOW_EVENT_GAINED] = flow_shards_gained,
        [FLOW_EVENT_LEAVE] = flow_shards_leave,
        [FLOW_EVENT_DROPPED] = flow_shards_dropped,
        [FLOW_EVENT_TICK] = on_tick,
        [FLOW_EVENT_STOP] = on_stop,
    };
    flow_offers_bury(flow);
    flow_expand_bury(flow);
    flow_hedges_bury(flow);
    free_texts(flow);
    flow->n_actions = 0;
    flow->now_ms = event->now_ms;
    handlers[event->kind](flow, event);
    flow_shards_refill(flow);
    *ret_count = flow->n_actions;
    return flow->actions;
}

size_t flow_offered(const struct flow *flow, int broker)
{
    return flow->brokers[broker].n_offered;
}

bool flow_holds(const struct flow *flow, int shard)
{
    return flow->shards[shard].state == SHARD_HELD;
}

size_t flow_expanding(const struct flow *flow)
{
    size_t count = 0;
    for (int i = 0; i < SHARD_COUNT; i++)
        count += flow->shards[i].n_expansions;
    return count;
}
