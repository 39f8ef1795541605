#include "tests/lib/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/plan.h"

/* --- chance and words ------------------------------------------------------------------------- */

unsigned world_chance(struct world *world, unsigned sides)
{
    world->random = world->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(world->random >> 33) % sides;
}

bool world_rarely(struct world *world, unsigned sides)
{
    return !world->calm && world_chance(world, sides) == 0;
}

void world_say(const struct world *world, const char *format, ...)
{
    if (!world->trace)
        return;
    va_list args;
    fprintf(stderr, "%7lld ms  ", (long long)world->now_ms);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

void world_wrong(const struct world *world, const char *format, ...)
{
    char text[500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fail_msg("history %llu, %lld ms, step %lld: %s; ORCH_SEED=%llu repeats it with its steps",
             (unsigned long long)world->seed, (long long)world->now_ms, (long long)world->steps,
             text, (unsigned long long)world->seed);
    abort();
}

static const char *const task_names[WORLD_TASKS] = {"t0", "t1", "t2"};
static const char *const sub_names[WORLD_SUBS] = {
    PLAN_NODE, PLAN_REPAIR_NODE, "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"};

const char *world_task_name(int task)
{
    return task_names[task];
}

const char *world_sub_name(int sub)
{
    return sub >= 0 ? sub_names[sub] : "";
}

struct world_name world_name_of(const char *task, const char *sub)
{
    struct world_name name = {task[1] - '0', -1};
    if (*sub == 's')
        name.sub = sub[1] - '0';
    else if (*sub != '\0')
        name.sub = strcmp(sub, PLAN_NODE) == 0 ? 0 : 1;
    return name;
}

/* --- moves ------------------------------------------------------------------------------------ */

void world_init(struct world *world, uint64_t seed, bool trace)
{
    memset(world, 0, sizeof *world);
    world->seed = seed;
    world->random = seed * 0x9e3779b97f4a7c15u + 1;
    world->trace = trace;
    world->workers = true;
    world->now_ms = 100000; /* a while after the start of the clock */
    for (int i = 0; i < WORLD_BROKERS; i++)
        world_broker_restart(world, i);
    world->n_daemons = 1 + (int)world_chance(world, WORLD_DAEMONS);
    for (int i = 0; i < world->n_daemons; i++) {
        world_daemon_start(world, i);
        world_leases_learn(world, i);
    }
}

void world_release(struct world *world)
{
    for (int i = 0; i < WORLD_DAEMONS; i++)
        flow_free(&world->daemons[i].flow);
}

static void tick(struct world *world, int64_t ms)
{
    world->now_ms += ms;
    for (int i = 0; i < WORLD_DAEMONS; i++)
        if (world->daemons[i].flow != NULL)
            world_daemon_step(world, i, (struct flow_event){.kind = FLOW_EVENT_TICK});
}

static void move_people(struct world *world)
{
    int index = (int)world_chance(world, WORLD_TASKS);
    struct world_task *task = &world->tasks[index];
    if (task->state == TASK_LOADING) {
        world_say(world, "%s is submitted", task_names[index]);
        world_submit(world, index);
    } else if (task->state == TASK_RUNNING && world_rarely(world, 12)) {
        world_say(world, "%s is cancelled", task_names[index]);
        world_cancel(world, index);
    } else if (task->state != TASK_DONE && task->retries < 3 && world_rarely(world, 3)) {
        world_say(world, "%s is retried", task_names[index]);
        world_retry(world, index);
    }
}

/* Checkpoints of one shard come in order. */
static int first_alike(const struct world *world, int at)
{
    const struct world_request *request = &world->requests[at];
    for (int i = 0; i < at && request->ask == WORLD_COMMAND; i++) {
        const struct world_request *other = &world->requests[i];
        if (other->ask == request->ask && other->kind == request->kind &&
            other->shard == request->shard && other->boot == request->boot)
            return i;
    }
    return at;
}

/* Requests are carried out and answered in any order; mostly in that of asking. */
static void move_request(struct world *world)
{
    if (world->n_requests == 0)
        return;
    int at = world_rarely(world, 2) ? (int)world_chance(world, (unsigned)world->n_requests) : 0;
    at = first_alike(world, at);
    struct world_request *request = &world->requests[at];
    if (!request->executed) {
        world_request_execute(world, request);
        if (!world->calm && world_chance(world, 3) != 0)
            return;
    }
    world_request_answer(world, at);
}

static void move_message(struct world *world)
{
    if (world->n_messages == 0)
        return;
    int at = world_rarely(world, 4) ? (int)world_chance(world, (unsigned)world->n_messages) : 0;
    world_message_deliver(world, at, world_rarely(world, 25));
}

static void move_lease(struct world *world, int index)
{
    int shard = (int)world_chance(world, WORLD_SHARDS);
    if (world_rarely(world, 4)) /* its holder was too slow, and does not know */
        world_leases_take(world, index, shard);
    else if (world_rarely(world, 5))
        world_leases_leave(world, index, shard);
    else
        world_leases_learn(world, index);
}

static void move_daemon(struct world *world)
{
    int index = (int)world_chance(world, (unsigned)world->n_daemons);
    if (world->daemons[index].flow == NULL)
        world_daemon_start(world, index);
    else if (world_rarely(world, 20))
        world_daemon_stop(world, index, world_chance(world, 3) == 0);
    else if (world_rarely(world, 6))
        move_lease(world, index);
    else
        world_daemon_deliver(world, index, (int)world_chance(world, WORLD_SHARDS),
                             world_rarely(world, 30));
}

/* What peer.c does: says hello until it is welcomed, and when the broker is another one. */
static void greet(struct world *world, int broker)
{
    for (int i = 0; i < WORLD_DAEMONS; i++) {
        struct world_daemon *daemon = &world->daemons[i];
        if (daemon->flow == NULL)
            continue;
        bool restarted = daemon->broker_boot[broker] != world->brokers[broker].boot;
        bool lost = world_rarely(world, 5);
        if (daemon->limit[broker] == 0 || restarted || lost)
            world_daemon_introduce(world, i, broker, lost);
    }
}

static void move_broker(struct world *world)
{
    int broker = (int)world_chance(world, WORLD_BROKERS);
    if (world_rarely(world, 30))
        world_broker_restart(world, broker);
    else if (world_rarely(world, 8))
        greet(world, broker);
    else
        world_broker_serve(world, broker);
}

static void move_workers(struct world *world)
{
    if (!world->workers) {
        world->workers = world_chance(world, 5) == 0;
        return;
    }
    if (world_rarely(world, 60))
        world_workers_die(world);
    else
        world_slot_move(world, (int)world_chance(world, WORLD_SLOTS));
}

void world_move(struct world *world)
{
    unsigned move = world_chance(world, 100);
    if (move < 4)
        move_people(world);
    else if (move < 30)
        move_request(world);
    else if (move < 50)
        move_message(world);
    else if (move < 68)
        move_daemon(world);
    else if (move < 78)
        move_broker(world);
    else if (move < 94)
        move_workers(world);
    else
        tick(world, 20 + world_chance(world, 200));
}

/* --- the end ---------------------------------------------------------------------------------- */

#define ROUNDS 1000
#define HOUR_MS 3600000

static bool round_of_brokers(struct world *world)
{
    bool moved = false;
    for (int i = 0; i < WORLD_BROKERS; i++) {
        greet(world, i);
        for (int j = 0; j < WORLD_SLOTS; j++) {
            moved = moved || world->brokers[i].n_offers > 0;
            world_broker_serve(world, i);
        }
    }
    for (int i = 0; i < WORLD_SLOTS; i++) {
        moved = moved || world->slots[i].state != WORLD_FREE;
        world_slot_move(world, i);
        world_slot_move(world, i);
    }
    return moved;
}

/* Everything that can be done without time passing. True: something was. */
static bool round_of_all(struct world *world)
{
    bool moved = world->n_requests > 0 || world->n_messages > 0;
    while (world->n_requests > 0)
        move_request(world);
    while (world->n_messages > 0)
        move_message(world);
    for (int i = 0; i < world->n_daemons; i++) {
        if (world->daemons[i].flow == NULL)
            continue;
        world_leases_learn(world, i);
        for (int j = 0; j < WORLD_SHARDS; j++)
            while (world_daemon_deliver(world, i, j, false))
                moved = true;
    }
    return round_of_brokers(world) || moved;
}

static bool daemon_at_rest(const struct world_daemon *daemon)
{
    return daemon->flow == NULL ||
           (flow_hedges(daemon->flow) == 0 && flow_expanding(daemon->flow) == 0 &&
            flow_offered(daemon->flow, 0) == 0 && flow_offered(daemon->flow, 1) == 0);
}

/* Nothing is left to be done, known, or applied. */
static bool at_rest(const struct world *world)
{
    if (!world_finished(world) || world->n_requests > 0 || world->n_messages > 0)
        return false;
    for (int i = 0; i < world->n_daemons; i++)
        if (!daemon_at_rest(&world->daemons[i]))
            return false;
    for (int i = 0; i < WORLD_BROKERS; i++)
        if (world->brokers[i].n_offers > 0)
            return false;
    for (int i = 0; i < WORLD_SHARDS; i++)
        if (world->outboxes[i].furthest < world->outboxes[i].n_entries)
            return false;
    return true;
}

static void say_what_is_left(struct world *world)
{
    for (int i = 0; i < WORLD_TASKS * WORLD_SUBS; i++) {
        const struct world_task *task = &world->tasks[i / WORLD_SUBS];
        const struct world_sub *sub = &task->subs[i % WORLD_SUBS];
        bool plan = sub->state == SUB_DONE && sub->expands == 1 && task->state == TASK_RUNNING;
        if (sub->exists && (!sub_state_terminal(sub->state) || plan))
            world_wrong(world, "%s/%s (%s) is forgotten", task_names[i / WORLD_SUBS],
                        sub_names[i % WORLD_SUBS], sub_state_name(sub->state));
    }
    for (int i = 0; i < world->n_daemons; i++) {
        const struct flow *flow = world->daemons[i].flow;
        if (!daemon_at_rest(&world->daemons[i]))
            world_wrong(world, "daemon %d has %zu and %zu offers, %zu hedges, %zu plans for ever",
                        i, flow_offered(flow, 0), flow_offered(flow, 1), flow_hedges(flow),
                        flow_expanding(flow));
    }
    world_wrong(world, "no rest: %d requests, %d messages; checkpoints %d of %d, %d of %d",
                world->n_requests, world->n_messages, world->outboxes[0].checkpoint,
                world->outboxes[0].n_entries, world->outboxes[1].checkpoint,
                world->outboxes[1].n_entries);
}

static void check_ends(const struct world *world)
{
    for (int i = 0; i < WORLD_TASKS; i++) {
        const struct world_task *task = &world->tasks[i];
        bool dead = false, all_done = true;
        for (int j = 0; j < WORLD_SUBS; j++) {
            const struct world_sub *sub = &task->subs[j];
            dead = dead || (sub->exists && sub->state == SUB_DEAD);
            all_done = all_done && (!sub->exists || (sub->state == SUB_DONE && sub->expands != 1));
        }
        bool right = task->state == TASK_DONE     ? all_done
                     : task->state == TASK_FAILED ? dead
                                                  : task->was_cancelled;
        if (!right)
            world_wrong(world, "%s is %s without a reason", task_names[i],
                        task_state_name(task->state));
    }
}

static void settle_daemons(struct world *world)
{
    bool lives = false;
    for (int i = 0; i < world->n_daemons; i++) {
        if (world->daemons[i].flow != NULL && world->daemons[i].odd_config)
            world_daemon_stop(world, i, false); /* somebody corrects the roles */
        lives = lives || world->daemons[i].flow != NULL;
    }
    if (!lives)
        world_daemon_start(world, 0);
}

void world_settle(struct world *world)
{
    world->calm = true;
    world->workers = true;
    world_say(world, "calm");
    for (int i = 0; i < WORLD_TASKS; i++)
        if (world->tasks[i].state == TASK_LOADING)
            world_submit(world, i);
    settle_daemons(world);
    int rounds = 0;
    for (bool moved = round_of_all(world); !at_rest(world); moved = round_of_all(world)) {
        if (rounds++ == ROUNDS)
            say_what_is_left(world);
        bool idle = world_finished(world) && rounds % 50 == 49;
        tick(world, idle ? HOUR_MS : moved ? 100 : 500); /* what is held for an hour goes, too */
    }
    check_ends(world);
}
