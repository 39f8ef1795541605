/* Plans on their way from a planner's outcome to children in the queue. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/flow_state.h"
#include "orchestrator/plan.h"
#include "schemas/mem.h"

static struct expansion *find(struct shard *shard, const char *task, const char *sub)
{
    struct expansion *expansion;
    TAILQ_FOREACH (expansion, &shard->expansions, link)
        if (strcmp(expansion->task, task) == 0 && strcmp(expansion->sub, sub) == 0)
            return expansion;
    return NULL;
}

static void ask(struct flow *flow, struct expansion *expansion)
{
    struct flow_action *action = flow_act(flow, FLOW_READ);
    expansion->state = EXPANSION_ASKED;
    expansion->serial = action->serial = ++flow->serial;
    action->task = expansion->task;
    action->sub = expansion->sub;
}

static void try_later(struct flow *flow, struct expansion *expansion)
{
    expansion->state = EXPANSION_WAITS;
    expansion->again_ms = flow->now_ms + flow->options.again_ms;
}

static void finish(struct flow *flow, struct shard *shard, struct expansion *expansion)
{
    if (expansion->again) {
        expansion->again = false;
        ask(flow, expansion);
        return;
    }
    TAILQ_REMOVE(&shard->expansions, expansion, link);
    shard->n_expansions--;
    TAILQ_INSERT_TAIL(&flow->done, expansion, link);
}

void flow_expand_start(struct flow *flow, struct shard *shard, const char *task, const char *sub,
                       struct stream_id before)
{
    struct expansion *expansion = find(shard, task, sub);
    if (expansion != NULL) { /* told again: what is under way may have found the task cancelled */
        expansion->again = expansion->again || flow_stream_cmp(before, expansion->before) > 0;
        return;
    }
    expansion = mem_must_zalloc(sizeof *expansion);
    expansion->task = mem_must_strdup(task);
    expansion->sub = mem_must_strdup(sub);
    expansion->before = before;
    TAILQ_INSERT_TAIL(&shard->expansions, expansion, link);
    shard->n_expansions++;
    ask(flow, expansion);
}

void flow_expand_judged(struct flow *flow, const struct flow_event *event)
{
    struct shard *shard = &flow->shards[event->shard];
    struct expansion *expansion = find(shard, event->task, event->sub);
    if (expansion == NULL || expansion->serial != event->serial || shard->state != SHARD_HELD)
        return;
    if (event->verdict == FLOW_VERDICT_LATER) {
        try_later(flow, expansion);
        return;
    }
    if (event->verdict == FLOW_VERDICT_MOOT) {
        finish(flow, shard, expansion);
        return;
    }
    bool first = strcmp(expansion->sub, PLAN_NODE) == 0;
    struct flow_action *action = flow_act(flow, FLOW_EXPAND);
    action->serial = expansion->serial;
    action->task = expansion->task;
    action->sub = expansion->sub;
    action->text = event->text;
    action->expand = event->verdict == FLOW_VERDICT_PLAN ? FLOW_EXPAND_PLAN
                     : first                             ? FLOW_EXPAND_REPAIR
                                                         : FLOW_EXPAND_SINGLE;
}

void flow_expand_finished(struct flow *flow, const struct flow_event *event)
{
    struct shard *shard = &flow->shards[event->shard];
    struct expansion *expansion = find(shard, event->task, event->sub);
    if (expansion == NULL || expansion->serial != event->serial)
        return; /* of an earlier time of holding the shard */
    if (event->status == QUEUE_OK || event->status == QUEUE_DUP)
        expansion->again = false; /* it is carried out, once for all */
    if (event->status == QUEUE_REFUSED || event->status == QUEUE_ERROR)
        try_later(flow, expansion);
    else
        finish(flow, shard, expansion);
    if (event->status != QUEUE_OK)
        return;
    struct flow_action *action = flow_act(flow, FLOW_PUBLISH);
    action->task = expansion->task;
    action->what = "planned";
    action->text = event->text;
}

void flow_expand_tick(struct flow *flow, struct shard *shard)
{
    struct expansion *expansion;
    TAILQ_FOREACH (expansion, &shard->expansions, link)
        if (expansion->state == EXPANSION_WAITS && flow->now_ms >= expansion->again_ms)
            ask(flow, expansion);
}

static void free_list(struct expansion_list *list)
{
    struct expansion *expansion;
    while ((expansion = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, expansion, link);
        free(expansion->task);
        free(expansion->sub);
        free(expansion);
    }
}

void flow_expand_bury(struct flow *flow)
{
    free_list(&flow->done);
}

void flow_expand_drop_shard(struct flow *flow, struct shard *shard)
{
    TAILQ_CONCAT(&flow->done, &shard->expansions, link);
    shard->n_expansions = 0;
}

void flow_expand_release(struct flow *flow)
{
    free_list(&flow->done);
    for (int i = 0; i < SHARD_COUNT; i++)
        free_list(&flow->shards[i].expansions);
}
