/* What an orchestrator of the world is told: events with what they teach, requests with answers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"
#include "tests/lib/world.h"

/* --- what an event teaches -------------------------------------------------------------------- */

static void learn_of_task(struct world_daemon *daemon, const struct world_event *event)
{
    bool over = event->kind == QUEUE_EVENT_TASK &&
                (event->state == TASK_FAILED || event->state == TASK_CANCELLED);
    for (int i = 0; i < WORLD_SUBS && over; i++) {
        struct world_known *known = &daemon->known[event->name.task][i];
        known->may_run = !known->over && event->state == TASK_FAILED;
        known->over = true;
    }
}

/* It is READY, as an event or a scan says. */
static void learn_ready(struct world_known *known)
{
    known->over = false;
}

static void learn_of_queue(struct world_daemon *daemon, const struct world_event *event)
{
    if (event->name.sub < 0) {
        learn_of_task(daemon, event);
        return;
    }
    struct world_known *known = &daemon->known[event->name.task][event->name.sub];
    if (event->kind == QUEUE_EVENT_READY)
        learn_ready(known);
    if (event->kind != QUEUE_EVENT_DONE && event->kind != QUEUE_EVENT_DEAD)
        return;
    known->over = true;
    known->may_run = false;
    known->hedged = 0;
    known->carried_out = false; /* it may be told again, to be tried again */
}

static void learn_of_broker(struct world_daemon *daemon, int broker)
{
    for (int i = 0; i < WORLD_TASKS * WORLD_SUBS; i++) {
        struct world_known *known = &daemon->known[i / WORLD_SUBS][i % WORLD_SUBS];
        if (known->offered == broker + 1)
            known->offered = 0;
        if (known->hedged == broker + 1) {
            known->hedged = 0;
            known->hedge_used = false;
        }
    }
}

static void learn_unsent(struct world_known *known, const struct flow_event *event)
{
    int broker = event->broker + 1;
    if ((event->hedge || known->offered == 0) && known->hedged == broker) {
        known->hedged = 0;
        known->hedge_used = false;
    } else if (!event->hedge && known->offered == broker) {
        known->offered = 0;
    }
}

static void learn_declined(struct world_known *known, const struct flow_event *event)
{
    if (event->hedge) {
        known->hedged = 0;
        known->hedge_used = false;
    }
}

static void learn_taken(struct world_known *known, const struct flow_event *event)
{
    if (event->hedge) {
        known->hedged = 0;
        return;
    }
    known->offered = 0;
    known->hedge_used = known->hedged != 0;
}

static void learn(struct world *world, int index, const struct flow_event *event)
{
    struct world_daemon *daemon = &world->daemons[index];
    struct world_known none = {0}, *known = &none;
    if (event->task != NULL && *event->task != '\0') {
        struct world_name name = world_name_of(event->task, event->sub);
        known = name.sub >= 0 ? &daemon->known[name.task][name.sub] : &none;
    }
    switch (event->kind) {
    case FLOW_EVENT_QUEUE:
        learn_of_queue(daemon, daemon->telling);
        break;
    case FLOW_EVENT_LOST:
    case FLOW_EVENT_INTRODUCE:
        learn_of_broker(daemon, event->broker);
        break;
    case FLOW_EVENT_TAKEN:
        learn_taken(known, event);
        break;
    case FLOW_EVENT_DECLINED:
        learn_declined(known, event);
        break;
    case FLOW_EVENT_UNSENT:
    case FLOW_EVENT_WINDOW:
        if (*event->task != '\0')
            learn_unsent(known, event);
        break;
    case FLOW_EVENT_UNROUTABLE:
    case FLOW_EVENT_EXHAUSTED:
        known->offered = 0;
        break;
    case FLOW_EVENT_UNHEDGED:
        known->hedged = 0;
        break;
    default:
        break;
    }
}

/* --- steps ------------------------------------------------------------------------------------ */

static void fill(struct flow_event *event)
{
    const char **texts[] = {&event->task, &event->sub, &event->text, &event->arm, &event->worker};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (*texts[i] == NULL)
            *texts[i] = "";
}

void world_daemon_step(struct world *world, int index, struct flow_event event)
{
    struct world_daemon *daemon = &world->daemons[index];
    struct flow_event more[WORLD_TASKS * WORLD_SUBS * 2 + 64];
    size_t n_actions, n_more = 0;
    fill(&event);
    event.now_ms = world->now_ms;
    world->steps++;
    learn(world, index, &event);
    const struct flow_action *actions = flow_step(daemon->flow, &event, &n_actions);
    for (size_t i = 0; i < n_actions; i++)
        n_more += world_daemon_apply(world, index, &actions[i], &more[n_more]);
    world_daemon_judge(world, index);
    for (size_t i = 0; i < n_more; i++)
        world_daemon_step(world, index, more[i]);
}

static int64_t hedge_ms(void *ctx, struct bytes meta, const char *arm)
{
    (void)ctx, (void)meta;
    return strcmp(arm, "slow@p") == 0 ? 300 : -1;
}

void world_daemon_start(struct world *world, int index)
{
    struct world_daemon *daemon = &world->daemons[index];
    struct flow_options options = flow_defaults;
    options.brokers = WORLD_BROKERS;
    options.hedge_ms = hedge_ms;
    options.scan_ms = 400;
    options.idle_scan_ms = 2000;
    options.grace_ms = 500;
    options.reoffer_ms = 800;
    options.checkpoint_ms = 200;
    options.again_ms = 300;
    options.reserve_max = world_chance(world, 4) * 2;
    options.parked_max = world_chance(world, 3) * 2;
    memset(daemon, 0, sizeof *daemon);
    daemon->flow = flow_new(&options);
    daemon->boot = ++world->boots;
    daemon->odd_config = world_rarely(world, 8);
    for (int i = 0; i < WORLD_BROKERS; i++)
        world_daemon_introduce(world, index, i, false);
    world_say(world, "daemon %d starts%s", index, daemon->odd_config ? " with odd roles" : "");
}

static void keep_records(struct world_daemon *daemon, int n)
{
    for (int i = 0; i < n; i++)
        daemon->recorded[i]->kept = true;
    daemon->n_recorded -= n;
    memmove(daemon->recorded, daemon->recorded + n,
            (size_t)daemon->n_recorded * sizeof *daemon->recorded);
}

static void forget_request(struct world *world, int at)
{
    world->n_requests--;
    memmove(&world->requests[at], &world->requests[at + 1],
            (size_t)(world->n_requests - at) * sizeof *world->requests);
}

void world_daemon_stop(struct world *world, int index, bool gracefully)
{
    struct world_daemon *daemon = &world->daemons[index];
    if (daemon->flow == NULL)
        return;
    world_say(world, "daemon %d %s", index, gracefully ? "stops" : "dies");
    if (gracefully) {
        keep_records(daemon, daemon->n_recorded);
        world_daemon_step(world, index, (struct flow_event){.kind = FLOW_EVENT_STOP});
    }
    for (int i = world->n_requests - 1; i >= 0; i--) {
        struct world_request *request = &world->requests[i];
        if (request->boot != daemon->boot)
            continue;
        if (!request->executed && (gracefully || world_chance(world, 2) == 0))
            world_request_execute(world, request);
        forget_request(world, i);
    }
    flow_free(&daemon->flow);
}

void world_daemon_introduce(struct world *world, int index, int broker, bool lost_first)
{
    struct world_daemon *daemon = &world->daemons[index];
    daemon->limit[broker] = 0;
    if (lost_first)
        world_daemon_step(world, index,
                          (struct flow_event){.kind = FLOW_EVENT_LOST, .broker = broker});
    world_daemon_step(world, index,
                      (struct flow_event){.kind = FLOW_EVENT_INTRODUCE, .broker = broker});
    world_send(world,
               (struct world_message){.kind = WORLD_HELLO, .broker = broker, .daemon = index});
}

/* --- the outbox ------------------------------------------------------------------------------- */

static void tell(struct world *world, int index, int shard, const struct world_event *event)
{
    struct world_daemon *daemon = &world->daemons[index];
    char id[24];
    snprintf(id, sizeof id, "1-%d", event->entry);
    struct queue_event queue = {.kind = event->kind,
                                .id = id,
                                .shard = shard,
                                .task = world_task_name(event->name.task),
                                .sub = world_sub_name(event->name.sub),
                                .attempt = event->attempt,
                                .priority = event->priority,
                                .expands = event->expands,
                                .state = event->state,
                                .avoid = world_daemon_avoids(event->moves),
                                .error_class = "",
                                .reason = ""};
    if (event->timing)
        queue.timing = (struct bytes){"x", 1};
    world_say(world, "daemon %d hears %s: event %d of %s/%s, attempt %d", index, id,
              (int)event->kind, queue.task, queue.sub, (int)event->attempt);
    daemon->telling = event;
    world_daemon_step(world, index, (struct flow_event){.kind = FLOW_EVENT_QUEUE, .queue = &queue});
    daemon->telling = NULL;
}

bool world_daemon_deliver(struct world *world, int index, int shard, bool again)
{
    struct world_daemon *daemon = &world->daemons[index];
    struct world_outbox *outbox = &world->outboxes[shard];
    int entry = daemon->applied[shard] + !again;
    if (!flow_holds(daemon->flow, shard) || entry < 1 || entry > outbox->n_entries)
        return false;
    int at = outbox->n_events - 1;
    while (at > 0 && outbox->events[at - 1].entry >= entry)
        at--;
    daemon->applied[shard] = entry;
    for (; at < outbox->n_events && outbox->events[at].entry <= entry; at++)
        if (outbox->events[at].entry == entry)
            tell(world, index, shard, &outbox->events[at]);
    return true;
}

/* --- requests --------------------------------------------------------------------------------- */

/* One that thinks it still holds the shard may set it back: then some is applied again. */
static void checkpoint(struct world_outbox *outbox, int entry)
{
    outbox->checkpoint = entry;
    outbox->furthest = entry > outbox->furthest ? entry : outbox->furthest;
}

static void execute_command(struct world *world, const struct world_request *request)
{
    switch (request->kind) {
    case FLOW_EXPIRE:
        world_fail(world, request->name, 0, ERROR_RETRY, 0);
        break;
    case FLOW_PROMOTE:
        world_promote(world, request->name);
        break;
    case FLOW_BURY:
        world_bury(world, request->name, request->moves);
        break;
    default:
        checkpoint(&world->outboxes[request->shard], request->entry);
    }
}

static void execute_expand(struct world *world, struct world_request *request)
{
    request->status = QUEUE_REFUSED;
    if (world_rarely(world, 5))
        return;
    request->status = world_expand(world, request->name, request->expand);
    if (world_rarely(world, 10)) /* the answer was lost, the call is repeated */
        request->status = world_expand(world, request->name, request->expand);
    world_say(world, "%s/%s is expanded: %s", world_task_name(request->name.task),
              world_sub_name(request->name.sub), queue_status_name(request->status));
}

void world_request_execute(struct world *world, struct world_request *request)
{
    request->executed = true;
    if (request->ask == WORLD_SCAN)
        request->n_items = world_index(world, request->shard, request->index, request->offset,
                                       request->limit, request->items);
    if (request->ask == WORLD_COMMAND)
        execute_command(world, request);
    if (request->ask == WORLD_EXPAND)
        execute_expand(world, request);
    if (request->ask == WORLD_READ)
        request->verdict =
            world_rarely(world, 5) ? FLOW_VERDICT_LATER : world_judge(world, request->name);
    request->entry = world->outboxes[request->shard].n_entries;
}

static void answer_scan(struct world *world, const struct world_request *request)
{
    struct queue_item items[WORLD_TASKS * WORLD_SUBS];
    bool failed = world_rarely(world, 20);
    bool current = request->term == world->daemons[request->daemon].term[request->shard];
    for (int i = 0; i < request->n_items; i++) {
        const struct world_item *item = &request->items[i];
        items[i] = (struct queue_item){.task = world_task_name(item->name.task),
                                       .sub = world_sub_name(item->name.sub),
                                       .attempt = item->attempt,
                                       .priority = item->priority,
                                       .avoid = world_daemon_avoids(item->moves),
                                       .error_class = ""};
        if (!failed && current && request->index == QUEUE_INDEX_READY)
            learn_ready(&world->daemons[request->daemon].known[item->name.task][item->name.sub]);
    }
    world_daemon_step(world, request->daemon,
                      (struct flow_event){.kind = FLOW_EVENT_ITEMS,
                                          .shard = request->shard,
                                          .index = request->index,
                                          .items = items,
                                          .n_items = failed ? 0 : (size_t)request->n_items,
                                          .failed = failed});
}

/* The plans of this subtask that were told of before the request was carried out are settled. */
static void settle(struct world *world, const struct world_request *request)
{
    struct world_outbox *outbox = &world->outboxes[request->shard];
    for (int i = 0; i < outbox->n_events; i++) {
        struct world_event *event = &outbox->events[i];
        if (event->kind != QUEUE_EVENT_DONE || !event->expands ||
            event->name.task != request->name.task || event->name.sub != request->name.sub)
            continue;
        event->settled = event->settled || event->entry <= request->entry;
    }
}

static void answer_read(struct world *world, const struct world_request *request)
{
    if (request->verdict == FLOW_VERDICT_MOOT)
        settle(world, request);
    world_daemon_step(world, request->daemon,
                      (struct flow_event){.kind = FLOW_EVENT_PLAN,
                                          .serial = request->serial,
                                          .shard = request->shard,
                                          .task = world_task_name(request->name.task),
                                          .sub = world_sub_name(request->name.sub),
                                          .verdict = request->verdict});
}

static void answer_expand(struct world *world, const struct world_request *request)
{
    struct world_daemon *daemon = &world->daemons[request->daemon];
    struct world_known *known = &daemon->known[request->name.task][request->name.sub];
    if (request->term == daemon->term[request->shard]) {
        known->expanding = false;
        known->carried_out = request->status == QUEUE_OK || request->status == QUEUE_DUP;
    }
    if (request->status != QUEUE_REFUSED)
        settle(world, request);
    world_daemon_step(world, request->daemon,
                      (struct flow_event){.kind = FLOW_EVENT_EXPANDED,
                                          .serial = request->serial,
                                          .shard = request->shard,
                                          .task = world_task_name(request->name.task),
                                          .sub = world_sub_name(request->name.sub),
                                          .status = request->status});
}

void world_request_answer(struct world *world, int at)
{
    struct world_request request = world->requests[at];
    forget_request(world, at);
    if (request.ask == WORLD_SCAN)
        answer_scan(world, &request);
    if (request.ask == WORLD_READ)
        answer_read(world, &request);
    if (request.ask == WORLD_EXPAND)
        answer_expand(world, &request);
    if (request.ask != WORLD_BARRIER)
        return;
    keep_records(&world->daemons[request.daemon], request.sequence);
    world_daemon_step(world, request.daemon, (struct flow_event){.kind = FLOW_EVENT_DURABLE});
}

/* --- what brokers say ------------------------------------------------------------------------- */

void world_daemon_hear(struct world *world, const struct world_message *message)
{
    static const enum flow_event_kind kinds[] = {[WORLD_WELCOME] = FLOW_EVENT_WELCOME,
                                                 [WORLD_TAKEN] = FLOW_EVENT_TAKEN,
                                                 [WORLD_DECLINED] = FLOW_EVENT_DECLINED,
                                                 [WORLD_UNSERVED] = FLOW_EVENT_UNSERVED,
                                                 [WORLD_WINDOW] = FLOW_EVENT_WINDOW};
    struct world_daemon *daemon = &world->daemons[message->daemon];
    const struct world_broker *broker = &world->brokers[message->broker];
    bool welcome = message->kind == WORLD_WELCOME;
    if (daemon->flow == NULL || message->daemon_boot != daemon->boot ||
        (welcome && message->broker_boot != broker->boot))
        return;
    if (welcome) {
        daemon->limit[message->broker] = broker->max;
        daemon->broker_boot[message->broker] = broker->boot;
    }
    bool named = message->name.task >= 0;
    world_daemon_step(world, message->daemon,
                      (struct flow_event){
                          .kind = kinds[message->kind],
                          .broker = message->broker,
                          .limit = broker->max,
                          .task = named ? world_task_name(message->name.task) : "",
                          .sub = named ? world_sub_name(message->name.sub) : "",
                          .hedge = message->hedge,
                          .arm = message->slow ? "slow@p" : "m3@p",
                          .after_ms = message->after_ms,
                      });
}
