/* Second attempts beside ones that take longer than their arm usually does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/flow_state.h"
#include "schemas/mem.h"

#define HEDGES_MAX 100000 /* running subtasks that are watched; the others are not hedged */
#define AGAIN_MS 1000     /* until an offer is tried again that found no room, or was declined */
#define FORGET_MS 3600000 /* of one that runs: nothing more was heard of its subtask */
#define REPEAT_MS 10000   /* of an offer that may have been lost */

static struct hedge *find(struct flow *flow, const char *task, const char *sub)
{
    struct entry_key key;
    struct hedge *hedge = NULL;
    if (flow->hedges != NULL && flow_key_make(&key, task, sub))
        HASH_FIND(hh, flow->hedges, key.bytes, key.len, hedge);
    return hedge;
}

static void leave_broker(struct flow *flow, const struct hedge *hedge)
{
    if (hedge->state == HEDGE_OFFERED)
        flow->brokers[hedge->broker].n_hedges--;
}

static void try_later(struct flow *flow, struct hedge *hedge, int64_t after_ms)
{
    leave_broker(flow, hedge);
    hedge->state = HEDGE_LATER;
    hedge->due_ms = flow->now_ms + (after_ms > AGAIN_MS ? after_ms : AGAIN_MS);
}

/* It is freed at the next step: actions may point to it. */
static void forget(struct flow *flow, struct hedge *hedge)
{
    leave_broker(flow, hedge);
    HASH_DEL(flow->hedges, hedge);
    hedge->hh.next = flow->dead_hedges;
    flow->dead_hedges = hedge;
}

static struct flow_action *act_on(struct flow *flow, enum flow_action_kind kind,
                                  const struct hedge *hedge)
{
    struct flow_action *action = flow_act(flow, kind);
    action->broker = hedge->broker;
    action->shard = hedge->shard;
    action->task = hedge->task;
    action->sub = hedge->sub;
    action->priority = hedge->priority;
    action->attempt = hedge->attempt;
    action->meta = hedge->meta;
    action->avoid = hedge->avoid;
    return action;
}

static char *put(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    char *start = memcpy(*at, text, size);
    *at += size;
    return start;
}

/* The arms that are blocked for a while now will hardly be so when the hedge comes. */
static void watch(struct flow *flow, const struct entry *entry, const char *arm, int64_t after_ms)
{
    const char *avoid = flow_blocks_avoid(flow, entry->blocks, entry->avoid);
    size_t size = strlen(entry->task) + strlen(entry->sub) + strlen(avoid) + strlen(arm) + 4;
    struct hedge *hedge = mem_must_zalloc(sizeof *hedge + size + entry->meta.len);
    char *at = hedge->data;
    hedge->task = put(&at, entry->task);
    hedge->sub = put(&at, entry->sub);
    size_t key_len = (size_t)(at - hedge->data) - 1;
    hedge->avoid = put(&at, avoid);
    hedge->arm = put(&at, arm);
    if (entry->meta.len > 0)
        memcpy(at, entry->meta.data, entry->meta.len);
    hedge->meta = (struct bytes){at, entry->meta.len};
    hedge->state = HEDGE_LATER;
    hedge->broker = entry->broker;
    hedge->shard = entry->shard;
    hedge->attempt = entry->attempt;
    hedge->priority = entry->priority;
    hedge->taken_ms = flow->now_ms;
    hedge->due_ms = flow->now_ms + after_ms;
    HASH_ADD_KEYPTR(hh, flow->hedges, hedge->data, key_len, hedge);
}

void flow_hedges_watch(struct flow *flow, const struct entry *entry, const char *arm)
{
    const struct flow_options *options = &flow->options;
    flow_hedges_forget(flow, entry->task, entry->sub);
    if (options->hedge_ms == NULL || HASH_COUNT(flow->hedges) >= HEDGES_MAX)
        return;
    int64_t after_ms = options->hedge_ms(options->hedge_ctx, entry->meta, arm);
    if (after_ms >= 0)
        watch(flow, entry, arm, after_ms);
}

void flow_hedges_taken(struct flow *flow, const struct flow_event *event)
{
    struct hedge *hedge = find(flow, event->task, event->sub);
    if (hedge == NULL || hedge->state == HEDGE_RUNS)
        return;
    leave_broker(flow, hedge);
    hedge->state = HEDGE_RUNS;
    struct flow_action *publish = act_on(flow, FLOW_PUBLISH, hedge);
    publish->what = "hedged";
    publish->attempt = hedge->attempt + 2; /* the first one, and this one */
    publish->arm = flow_text(flow, "%s", event->arm);
    publish->worker = flow_text(flow, "%s", event->worker);
    publish->text = flow_text(flow, "hedged on %s: %s has taken %.1f s", event->arm, hedge->arm,
                              (double)(flow->now_ms - hedge->taken_ms) / 1000);
    const char *text = publish->text;
    act_on(flow, FLOW_NOTE, hedge)->text = text;
}

void flow_hedges_declined(struct flow *flow, const struct flow_event *event)
{
    struct hedge *hedge = find(flow, event->task, event->sub);
    if (hedge != NULL)
        try_later(flow, hedge, event->after_ms);
}

bool flow_hedges_unsent(struct flow *flow, const struct flow_event *event)
{
    struct hedge *hedge = find(flow, event->task, event->sub);
    if (hedge == NULL || hedge->state != HEDGE_OFFERED || hedge->broker != event->broker)
        return false;
    try_later(flow, hedge, AGAIN_MS);
    return true;
}

void flow_hedges_unhedged(struct flow *flow, const struct flow_event *event)
{
    struct hedge *hedge = find(flow, event->task, event->sub);
    if (hedge != NULL && hedge->state == HEDGE_OFFERED)
        forget(flow, hedge);
}

/* --- the end ---------------------------------------------------------------------------------- */

static void withdraw(struct flow *flow, struct hedge *hedge)
{
    if (hedge->state == HEDGE_OFFERED)
        act_on(flow, FLOW_WITHDRAW, hedge);
    forget(flow, hedge);
}

void flow_hedges_forget(struct flow *flow, const char *task, const char *sub)
{
    struct hedge *hedge = find(flow, task, sub);
    if (hedge != NULL)
        withdraw(flow, hedge);
}

void flow_hedges_failed(struct flow *flow, const char *task, const char *sub, int64_t attempt)
{
    struct hedge *hedge = find(flow, task, sub);
    if (hedge != NULL && attempt > hedge->attempt)
        withdraw(flow, hedge);
}

/* One that is still an offer may have gone out a moment ago. */
void flow_hedges_finished(struct flow *flow, const char *task, const char *sub)
{
    struct hedge *hedge = find(flow, task, sub);
    if (hedge == NULL)
        return;
    if (hedge->state != HEDGE_LATER)
        act_on(flow, FLOW_CANCEL, hedge);
    forget(flow, hedge);
}

void flow_hedges_drop_task(struct flow *flow, const char *task, bool running)
{
    struct hedge *hedge, *next;
    HASH_ITER (hh, flow->hedges, hedge, next)
        if (strcmp(hedge->task, task) == 0 && (running || hedge->state != HEDGE_RUNS))
            withdraw(flow, hedge);
}

void flow_hedges_drop_shard(struct flow *flow, int shard, bool withdraw_them)
{
    struct hedge *hedge, *next;
    HASH_ITER (hh, flow->hedges, hedge, next) {
        if (hedge->shard != shard)
            continue;
        if (withdraw_them)
            withdraw(flow, hedge);
        else
            forget(flow, hedge);
    }
}

void flow_hedges_broker_gone(struct flow *flow, int broker)
{
    struct hedge *hedge, *next;
    HASH_ITER (hh, flow->hedges, hedge, next)
        if (hedge->state == HEDGE_OFFERED && hedge->broker == broker)
            try_later(flow, hedge, 0);
}

static void offer(struct flow *flow, struct hedge *hedge)
{
    struct flow_action *action = act_on(flow, FLOW_OFFER, hedge);
    action->hedge = true;
    action->running = hedge->arm;
    hedge->due_ms = flow->now_ms + REPEAT_MS;
}

/* False: there is no room. */
static bool offer_first(struct flow *flow, struct hedge *hedge)
{
    int broker = flow_choose_broker(flow, hedge->hh.hashv);
    if (broker < 0)
        return false;
    hedge->state = HEDGE_OFFERED;
    hedge->broker = broker;
    flow->brokers[broker].n_hedges++;
    offer(flow, hedge);
    return true;
}

void flow_hedges_tick(struct flow *flow)
{
    struct hedge *hedge, *next;
    bool room = true; /* the next tick may find some */
    HASH_ITER (hh, flow->hedges, hedge, next) {
        if (hedge->state == HEDGE_RUNS) {
            if (flow->now_ms - hedge->taken_ms >= FORGET_MS)
                forget(flow, hedge);
        } else if (flow->now_ms < hedge->due_ms) {
            continue;
        } else if (hedge->state == HEDGE_OFFERED) {
            offer(flow, hedge);
        } else if (room) {
            room = offer_first(flow, hedge);
        }
    }
}

void flow_hedges_bury(struct flow *flow)
{
    struct hedge *hedge;
    while ((hedge = flow->dead_hedges) != NULL) {
        flow->dead_hedges = hedge->hh.next;
        free(hedge);
    }
}

void flow_hedges_release(struct flow *flow)
{
    struct hedge *hedge, *next;
    flow_hedges_bury(flow);
    HASH_ITER (hh, flow->hedges, hedge, next) {
        HASH_DEL(flow->hedges, hedge);
        free(hedge);
    }
}

size_t flow_hedges(const struct flow *flow)
{
    return HASH_COUNT(flow->hedges);
}
