/* A world in memory around flow_step(): the queue as the scripts have it, brokers, workers, users,
 * and orchestrators whose flow is the real one.
 *
 * From a seed, faults included: bus messages that are lost, late, twice or in another order; reads
 * that race with events; processes that die. After every step the rules are checked that hold in
 * each of them. A step is one move of one of its inhabitants. */
#ifndef TESTS_LIB_WORLD_H
#define TESTS_LIB_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "orchestrator/flow.h"

enum {
    WORLD_SHARDS = 2, /* that have tasks */
    WORLD_TASKS = 3,
    WORLD_SUBS = 10, /* of one task: the planner, its repair, others */
    WORLD_BROKERS = 2,
    WORLD_DAEMONS = 2,
    WORLD_SLOTS = 5, /* of all workers together */
    WORLD_EVENTS = 1024,
    WORLD_REQUESTS = 160,
    WORLD_MESSAGES = 256,
};

/* --- the queue (world_queue.c) ---------------------------------------------------------------- */

struct world_name {
    int task, sub; /* sub -1: all of the task */
};

struct world_sub {
    bool exists, bad_plan; /* bad_plan: what it answers is no plan */
    enum sub_state state;
    int expands; /* 1: its result is a plan; 2: which has been carried out */
    int indegree, moves, commits;
    unsigned deps; /* bits of subtasks */
    int64_t attempt, left, max, priority;
    int64_t tokens[2]; /* of what runs: the attempt, a hedge */
    int n_tokens;
    int64_t lease_ms, due_ms;
    uint64_t order; /* in the ready index, for one priority */
};

struct world_task {
    enum task_state state; /* TASK_LOADING: not yet submitted */
    int remaining, retries;
    bool was_cancelled;
    struct world_sub subs[WORLD_SUBS];
};

/* One event of an outbox; an entry can have several. */
struct world_event {
    enum queue_event_kind kind;
    struct world_name name;
    enum task_state state;
    int64_t attempt, priority;
    int entry, moves;
    bool expands, timing;
    bool kept;    /* its timing is in a store for good */
    bool settled; /* its plan was carried out, or needs not be */
};

struct world_outbox {
    struct world_event events[WORLD_EVENTS];
    int n_events, n_entries;
    int checkpoint; /* entries up to here are applied for good */
    int furthest;   /* the last checkpoint that was ever written */
    int owner;      /* boot of the daemon that has the lease; 0: none */
};

struct world_item {
    struct world_name name;
    int64_t attempt, priority;
    int moves;
};

/* --- those who live in it (world_daemon.c, world_bus.c) --------------------------------------- */

enum world_ask { WORLD_SCAN, WORLD_READ, WORLD_EXPAND, WORLD_BARRIER, WORLD_COMMAND };

/* What a daemon asks of Redis or its store: done at one time, answered at another. */
struct world_request {
    enum world_ask ask;
    int daemon, boot, shard, term;
    struct world_name name;
    bool executed;
    enum queue_index index;     /* SCAN */
    int64_t offset, limit;      /* SCAN */
    enum flow_expand expand;    /* EXPAND */
    int64_t serial;             /* READ, EXPAND */
    enum flow_action_kind kind; /* COMMAND */
    int moves, entry, sequence; /* BURY; CHECKPOINT; BARRIER */
    enum flow_verdict verdict;  /* the answers */
    enum queue_status status;
    struct world_item items[WORLD_TASKS * WORLD_SUBS];
    int n_items;
};

/* What a flow has been told and has said of a subtask, to judge what it says next. */
struct world_known {
    int offered;      /* to the broker of this number less one; 0: to none */
    int hedged;       /* likewise */
    bool hedge_used;  /* one was offered beside the attempt */
    bool over;        /* it was told that no offer is needed */
    bool may_run;     /* but what runs goes on, and may be hedged: of a task that failed */
    bool carried_out; /* it was told that the plan is */
    bool expanding;   /* an EXPAND is under way */
};

struct world_daemon {
    struct flow *flow; /* NULL: dead */
    int boot;
    bool odd_config;                /* some subtasks can be run by no arm */
    bool holds[WORLD_SHARDS];       /* as it believes */
    int applied[WORLD_SHARDS];      /* entries */
    int term[WORLD_SHARDS];         /* counts times of holding */
    int broker_boot[WORLD_BROKERS]; /* as it knows it; 0: it does not */
    int64_t limit[WORLD_BROKERS];   /* 0: not welcomed */
    struct world_known known[WORLD_TASKS][WORLD_SUBS];
    struct world_event *recorded[WORLD_EVENTS]; /* not yet durable */
    int n_recorded;
    const struct world_event *telling; /* during its step */
};

enum world_message_kind {
    WORLD_HELLO,
    WORLD_OFFER,
    WORLD_WITHDRAW,
    WORLD_CANCEL,
    WORLD_WELCOME,
    WORLD_TAKEN,
    WORLD_DECLINED,
    WORLD_UNSERVED,
    WORLD_WINDOW,
};

struct world_message {
    enum world_message_kind kind;
    int broker, daemon;
    int broker_boot, daemon_boot;
    struct world_name name;
    bool hedge, slow;
    int64_t after_ms;
};

struct world_offer {
    struct world_name name;
    int daemon, daemon_boot;
    bool hedge;
};

struct world_broker {
    int boot;
    int knows[WORLD_DAEMONS]; /* boots that said hello */
    bool refused[WORLD_DAEMONS];
    struct world_offer offers[8];
    int n_offers, max;
};

enum world_slot_state { WORLD_FREE, WORLD_DISPATCHED, WORLD_RUNS };

struct world_slot {
    enum world_slot_state state;
    struct world_name name;
    int64_t token;
    int daemon, daemon_boot, broker;
    bool hedge, slow;
};

struct world {
    uint64_t seed, random;
    int64_t now_ms;
    bool trace, calm; /* calm: faults have stopped */
    bool workers;     /* some live */
    uint64_t order;
    int64_t steps;
    struct world_task tasks[WORLD_TASKS];
    struct world_outbox outboxes[WORLD_SHARDS];
    struct world_daemon daemons[WORLD_DAEMONS];
    struct world_broker brokers[WORLD_BROKERS];
    struct world_slot slots[WORLD_SLOTS];
    struct world_request requests[WORLD_REQUESTS];
    int n_requests;
    struct world_message messages[WORLD_MESSAGES];
    int n_messages;
    int boots; /* the last one given */
    int n_daemons;
    bool entry_open; /* the script that runs has an entry in the outbox */
};

/* world.c */
void world_init(struct world *world, uint64_t seed, bool trace);
void world_release(struct world *world);
unsigned world_chance(struct world *world, unsigned sides); /* 0..sides-1 */
bool world_rarely(struct world *world, unsigned sides);     /* once in so many; never when calm */
/* Fails the test with the sentence and how to repeat it. */
void world_wrong(const struct world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));
void world_say(const struct world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
const char *world_task_name(int task);
const char *world_sub_name(int sub); /* -1: "" */
struct world_name world_name_of(const char *task, const char *sub);
struct world_sub *world_sub(struct world *world, struct world_name name);
/* One move of somebody. */
void world_move(struct world *world);
/* Faults stop, time goes on: fails the test when something is not finished. */
void world_settle(struct world *world);

/* world_queue.c: as the scripts of these names; see common/queue.h */
void world_submit(struct world *world, int task);
void world_cancel(struct world *world, int task);
void world_retry(struct world *world, int task);
enum queue_status world_claim(struct world *world, struct world_name name, bool hedge,
                              int64_t *ret_token);
enum queue_status world_commit(struct world *world, struct world_name name, int64_t token);
/* token 0: its lease ran out. */
enum queue_status world_fail(struct world *world, struct world_name name, int64_t token,
                             enum error_action action, int64_t backoff_ms);
void world_renew(struct world *world, struct world_name name, int64_t token);
enum queue_status world_promote(struct world *world, struct world_name name);
enum queue_status world_bury(struct world *world, struct world_name name, int moves);
enum queue_status world_expand(struct world *world, struct world_name name, enum flow_expand how);
enum flow_verdict world_judge(struct world *world, struct world_name name);
int world_index(struct world *world, int shard, enum queue_index index, int64_t offset,
                int64_t limit, struct world_item *items);
bool world_finished(const struct world *world); /* all tasks, and all that ran in them */

/* world_steps.c */
void world_daemon_start(struct world *world, int daemon);
void world_daemon_stop(struct world *world, int daemon, bool gracefully);
void world_daemon_step(struct world *world, int daemon, struct flow_event event);
/* The next entry of the outbox, or one again that it knows. False: there is none. */
bool world_daemon_deliver(struct world *world, int daemon, int shard, bool again);
void world_daemon_hear(struct world *world, const struct world_message *message);
void world_request_execute(struct world *world, struct world_request *request);
void world_request_answer(struct world *world, int at); /* and forgets it */
void world_daemon_introduce(struct world *world, int daemon, int broker, bool lost_first);

/* world_leases.c */
/* The daemon learns what its leases are: gains a shard that nobody has, drops one that another has;
 * or takes one from another that does not know yet, or gives one back. */
void world_leases_learn(struct world *world, int daemon);
void world_leases_take(struct world *world, int daemon, int shard);
void world_leases_leave(struct world *world, int daemon, int shard);
void world_leases_released(struct world *world, int daemon, int shard); /* FLOW_RELEASE */

/* world_daemon.c */
/* Carries out what the flow says, and judges it. 1: `ret` is to be told next. */
size_t world_daemon_apply(struct world *world, int daemon, const struct flow_action *action,
                          struct flow_event *ret);
void world_daemon_judge(struct world *world, int daemon);
const char *world_daemon_avoids(int moves);

/* world_bus.c */
void world_send(struct world *world, struct world_message message);
void world_message_deliver(struct world *world, int at, bool keep); /* keep: it comes again */
void world_broker_restart(struct world *world, int broker);
void world_broker_serve(struct world *world, int broker);
void world_slot_move(struct world *world, int slot);
void world_workers_die(struct world *world);

#endif
