/* Orchestrators around the real flow: carry out what it decides, and judge it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/world.h"

/* Arms that a subtask avoids, by how many have refused it. */
static const char *const avoids[] = {"", "m1@p", "m1@p m2@p"};
enum { MOVES_MAX = sizeof avoids / sizeof *avoids - 1 };

static int moves_of(const char *avoid)
{
    for (int i = 0; i <= MOVES_MAX; i++)
        if (strcmp(avoids[i], avoid) == 0)
            return i;
    return -1;
}

const char *world_daemon_avoids(int moves)
{
    return avoids[moves < MOVES_MAX ? moves : MOVES_MAX];
}

static struct world_known *known_of(struct world_daemon *daemon, struct world_name name)
{
    return &daemon->known[name.task][name.sub];
}

/* --- what a flow must not do ------------------------------------------------------------------ */

static void judge_offer(struct world *world, int index, const struct flow_action *action)
{
    struct world_daemon *daemon = &world->daemons[index];
    struct world_name name = world_name_of(action->task, action->sub);
    struct world_known *known = known_of(daemon, name);
    if (daemon->limit[action->broker] == 0)
        world_wrong(world, "an offer goes to broker %d, which has not welcomed us", action->broker);
    if (known->over && !(action->hedge && known->may_run))
        world_wrong(world, "%s/%s is offered, which is known to need no offer", action->task,
                    action->sub);
    if (!action->hedge) {
        known->offered = action->broker + 1;
        return;
    }
    if (known->hedge_used && known->hedged != action->broker + 1) /* else it is repeated */
        world_wrong(world, "%s/%s is hedged twice", action->task, action->sub);
    known->hedge_used = true;
    known->hedged = action->broker + 1;
}

/* The windows, and that the flow counts what it offers. */
void world_daemon_judge(struct world *world, int index)
{
    struct world_daemon *daemon = &world->daemons[index];
    size_t all_offers[WORLD_BROKERS + 1] = {0}, all_hedges[WORLD_BROKERS + 1] = {0};
    for (int i = 0; i < WORLD_TASKS * WORLD_SUBS; i++) {
        const struct world_known *known = &daemon->known[i / WORLD_SUBS][i % WORLD_SUBS];
        all_offers[known->offered]++;
        all_hedges[known->hedged]++;
    }
    for (int broker = 0; broker < WORLD_BROKERS; broker++) {
        size_t offers = all_offers[broker + 1], hedges = all_hedges[broker + 1];
        size_t counted = flow_offered(daemon->flow, broker);
        if (counted != offers)
            world_wrong(world, "broker %d has %zu offers, the flow counts %zu", broker, offers,
                        counted);
        if (daemon->limit[broker] > 0 && offers + hedges > (size_t)daemon->limit[broker])
            world_wrong(world, "broker %d has %zu offers and %zu hedges, its window is %lld",
                        broker, offers, hedges, (long long)daemon->limit[broker]);
    }
}

static void judge_expand(struct world *world, int index, const struct flow_action *action)
{
    struct world_known *known =
        known_of(&world->daemons[index], world_name_of(action->task, action->sub));
    if (known->expanding || known->carried_out)
        world_wrong(world, "%s/%s is expanded twice", action->task, action->sub);
    known->expanding = true;
}

/* Entry number of a checkpoint; everything up to there must be applied for good. */
static int judge_checkpoint(struct world *world, int index, const struct flow_action *action)
{
    const struct world_daemon *daemon = &world->daemons[index];
    const struct world_outbox *outbox = &world->outboxes[action->shard];
    int entry = atoi(action->id + 2);
    if (strncmp(action->id, "1-", 2) != 0 || entry > daemon->applied[action->shard])
        world_wrong(world, "checkpoint %s of shard %d is beyond what was told", action->id,
                    action->shard);
    for (int i = outbox->n_events - 1; i >= 0; i--) {
        const struct world_event *event = &outbox->events[i];
        if (event->entry <= outbox->checkpoint)
            break;
        if (event->entry > entry)
            continue;
        if (event->timing && !event->kept)
            world_wrong(world, "checkpoint %s of shard %d passes a record that is not kept",
                        action->id, action->shard);
        if (event->kind == QUEUE_EVENT_DONE && event->expands && !event->settled)
            world_wrong(world, "checkpoint %s of shard %d passes a plan that is not carried out",
                        action->id, action->shard);
    }
    return entry;
}

/* --- what a flow does ------------------------------------------------------------------------- */

static struct world_request *request(struct world *world, int index, enum world_ask ask)
{
    if (world->n_requests == WORLD_REQUESTS)
        world_wrong(world, "too many requests are under way");
    struct world_request *request = &world->requests[world->n_requests++];
    request->ask = ask;
    request->daemon = index;
    request->boot = world->daemons[index].boot;
    request->executed = false;
    request->n_items = 0;
    return request;
}

/* False: it can't go out, or no arm may run it; the event says so. */
static bool offer(struct world *world, int index, const struct flow_action *action,
                  struct flow_event *ret)
{
    struct world_daemon *daemon = &world->daemons[index];
    struct world_name name = world_name_of(action->task, action->sub);
    bool exhausted = moves_of(action->avoid) >= MOVES_MAX;
    bool unroutable = daemon->odd_config && name.sub % 3 == 2;
    judge_offer(world, index, action);
    *ret = (struct flow_event){.broker = action->broker, .hedge = action->hedge};
    if (action->hedge && (exhausted || unroutable || world_rarely(world, 10)))
        ret->kind = FLOW_EVENT_UNHEDGED;
    else if (exhausted || unroutable)
        ret->kind = exhausted ? FLOW_EVENT_EXHAUSTED : FLOW_EVENT_UNROUTABLE;
    else if (world_rarely(world, 30))
        ret->kind = FLOW_EVENT_UNSENT;
    else {
        world_send(world, (struct world_message){.kind = WORLD_OFFER,
                                                 .broker = action->broker,
                                                 .daemon = index,
                                                 .name = name,
                                                 .hedge = action->hedge});
        return true;
    }
    ret->task = world_task_name(name.task);
    ret->sub = world_sub_name(name.sub);
    return false;
}

static void withdraw(struct world *world, int index, const struct flow_action *action)
{
    struct world_name name = world_name_of(action->task, action->sub);
    struct world_known *known = known_of(&world->daemons[index], name);
    if (known->offered == action->broker + 1)
        known->offered = 0;
    if (known->hedged == action->broker + 1)
        known->hedged = 0;
    world_send(world, (struct world_message){.kind = WORLD_WITHDRAW,
                                             .broker = action->broker,
                                             .daemon = index,
                                             .name = name});
}

static void cancel(struct world *world, int index, const struct flow_action *action)
{
    struct world_name name = world_name_of(action->task, action->sub);
    for (int i = 0; i < WORLD_BROKERS; i++)
        world_send(world, (struct world_message){
                              .kind = WORLD_CANCEL, .broker = i, .daemon = index, .name = name});
}

static void record(struct world *world, int index)
{
    struct world_daemon *daemon = &world->daemons[index];
    if (daemon->telling == NULL || !daemon->telling->timing)
        world_wrong(world, "a record is kept that no event has");
    if (daemon->n_recorded < WORLD_EVENTS)
        daemon->recorded[daemon->n_recorded++] = (struct world_event *)daemon->telling;
}

static void ask(struct world *world, int index, const struct flow_action *action)
{
    static const enum world_ask asks[] = {[FLOW_SCAN] = WORLD_SCAN,
                                          [FLOW_READ] = WORLD_READ,
                                          [FLOW_EXPAND] = WORLD_EXPAND,
                                          [FLOW_BARRIER] = WORLD_BARRIER};
    struct world_request *asked = request(world, index, asks[action->kind]);
    asked->shard = action->shard;
    asked->index = action->index;
    asked->offset = action->offset;
    asked->limit = action->limit;
    asked->expand = action->expand;
    asked->serial = action->serial;
    asked->sequence = world->daemons[index].n_recorded;
    if (action->kind == FLOW_SCAN)
        world_say(world, "daemon %d scans index %d of shard %d: %d from %d", index,
                  (int)action->index, action->shard, (int)action->limit, (int)action->offset);
    if (*action->task != '\0') {
        asked->name = world_name_of(action->task, action->sub);
        asked->shard = asked->name.task % WORLD_SHARDS;
    }
    asked->term = world->daemons[index].term[asked->shard];
    if (action->kind == FLOW_EXPAND)
        judge_expand(world, index, action);
}

static void command(struct world *world, int index, const struct flow_action *action)
{
    struct world_request *asked = request(world, index, WORLD_COMMAND);
    asked->kind = action->kind;
    asked->shard = action->shard;
    if (action->kind == FLOW_CHECKPOINT) {
        asked->entry = judge_checkpoint(world, index, action);
        return;
    }
    asked->name = world_name_of(action->task, action->sub);
    asked->moves = moves_of(action->avoid);
}

size_t world_daemon_apply(struct world *world, int index, const struct flow_action *action,
                          struct flow_event *ret)
{
    switch (action->kind) {
    case FLOW_OFFER:
        return offer(world, index, action, ret) ? 0 : 1;
    case FLOW_WITHDRAW:
        withdraw(world, index, action);
        break;
    case FLOW_CANCEL:
        cancel(world, index, action);
        break;
    case FLOW_SCAN:
        ask(world, index, action);
        break;
    case FLOW_READ:
    case FLOW_EXPAND:
    case FLOW_BARRIER:
        ask(world, index, action);
        break;
    case FLOW_RELEASE:
        world_leases_released(world, index, action->shard);
        break;
    case FLOW_RECORD:
        record(world, index);
        break;
    case FLOW_EXPIRE:
    case FLOW_PROMOTE:
    case FLOW_BURY:
    case FLOW_CHECKPOINT:
        command(world, index, action);
        break;
    default: /* what people are told */
        break;
    }
    return 0;
}
