/* What the parts of the daemon share; nobody else includes this. */
#ifndef ORCHESTRATOR_DAEMON_STATE_H
#define ORCHESTRATOR_DAEMON_STATE_H

#include "common/config.h"
#include "common/loop.h"
#include "common/peer.h"
#include "common/queue.h"
#include "common/queue_daemon.h"
#include "orchestrator/archive.h"
#include "orchestrator/daemon_keys.h"
#include "orchestrator/flow.h"
#include "orchestrator/pace.h"
#include "orchestrator/plan.h"
#include "orchestrator/route.h"
#include "orchestrator/store_writer.h"

#define DAEMON_NAME_SIZE 128

struct daemon_broker {
    bool up;
    int64_t max_offers;
};

/* A planner's answer that has been read and judged; the EXPAND action that follows at once uses
 * it. */
struct judged {
    struct plan *plan; /* NULL: the answer is no plan */
    const char *text;  /* the task's */
    const char *role, *model;
    bool synthesize;
    int64_t priority;
    struct plan_overrides overrides; /* of the submitter */
};

struct daemon_shards {
    struct loop_timer *timer;   /* NULL: no lease is asked for */
    int64_t terms[SHARD_COUNT]; /* of those that this daemon has, also while they leave; else 0 */
    bool given[SHARD_COUNT];    /* nothing of it is under way: the next call gives it back */
    int64_t members;            /* orchestrators that live */
    int64_t asked_ms, end_ms;   /* end of the lease by our clock; 0: nothing is held */
    bool asking, refused, lapsed;
};

/* Timing records on their way to other daemons. */
struct daemon_learn {
    struct bytes *records; /* owned */
    size_t n, cap;
    char after[48];        /* where reading goes on; "": at the beginning */
    int64_t next_ms;       /* when to read on */
    int64_t tell_until_ms; /* others live, or did a while ago */
    bool asking;
};

struct daemon {
    uv_loop_t loop;
    const struct config *config;
    char name[DAEMON_NAME_SIZE]; /* for people */
    char id[DAEMON_NAME_SIZE];   /* with the boot nonce: the holder of shards */
    char boot[17], host[128];
    int ready_fd;
    int64_t started_ms; /* wall clock */
    struct queue *queue;
    struct peer *peer;
    struct access *access;    /* keeps the Redis users of who was invited */
    struct daemon_keys *keys; /* tells brokers of their keys; NULL: they ask for none */
    struct daemon_broker *brokers;
    struct store_writer *store;
    struct loop_timer *tick, *stop_timer;
    struct daemon_shards shards;
    struct daemon_learn learn;
    struct flow *flow;
    struct archive *archive;
    struct pace *pace;           /* NULL: no role wants hedges */
    bool reading_pace;           /* from the store, in the thread pool */
    const struct judged *judged; /* during the step that judges; else NULL */

    bool foreign; /* Redis is not the one that it should be: nothing is done */
    bool refused; /* Redis did not take the last move of a subtask */
    bool stopping, stopped;
    int exit_code;
    int64_t redis_down_ms; /* since when, monotonic; 0: it answers */
    char redis_why[256];
    int64_t expand_told_ms;
};

/* daemon.c */
void daemon_finish(struct daemon *daemon, int exit_code);

/* daemon_shards.c */
void daemon_shards_start(struct daemon *daemon); /* begins to ask for its share */
void daemon_shards_stop(struct daemon *daemon);  /* drops all shards at once, asks no more */
void daemon_shards_leave(struct daemon *daemon); /* gives all back: the last call */
/* Drops all shards when the lease has ended. Before anything is done. */
void daemon_shards_check(struct daemon *daemon, int64_t now_ms);
void daemon_release(struct daemon *daemon, const struct flow_action *action);
bool daemon_holds(void *ctx, int shard);                /* ctx: the daemon */
void daemon_welcome(struct daemon *daemon, int broker); /* tells the flow its window */
void daemon_say_ready(struct daemon *daemon, const char *text);

/* daemon_learn.c */
void daemon_record(struct daemon *daemon, struct bytes record);
void daemon_tell_records(struct daemon *daemon); /* those so far: before a checkpoint passes them */
void daemon_learn_tick(struct daemon *daemon);
void daemon_learn_release(struct daemon *daemon);

/* daemon_flow.c */
void daemon_step(struct daemon *daemon, struct flow_event event);
void daemon_queue_event(void *ctx, const struct queue_event *event);
extern const struct peer_callbacks daemon_peer_callbacks;

/* daemon_offers.c */
/* Which arms may run the action's subtask: as route_arms(). The route borrows from meta, which is
 * to be released in any case. */
int daemon_route(struct daemon *daemon, const struct flow_action *action, struct message *meta,
                 struct route *ret, struct err *err);
/* Something to tell the flow after the actions at hand: the offer did not go out. */
#define DAEMON_NO_REFUSAL FLOW_EVENT_QUEUE
struct refusal {
    enum flow_event_kind kind;
    char reason[256];
};
struct refusal daemon_offer(struct daemon *daemon, const struct flow_action *action);
void daemon_withdraw(struct daemon *daemon, const struct flow_action *action);
void daemon_cancel(struct daemon *daemon, const struct flow_action *action);

/* daemon_hedges.c */
void daemon_hedges_start(struct daemon *daemon); /* reads what is known of the arms */
void daemon_hedges_record(struct daemon *daemon, struct bytes timing);
int64_t daemon_hedge_ms(void *ctx, struct bytes meta, const char *arm); /* see flow_options */

/* daemon_publish.c */
void daemon_publish(struct daemon *daemon, const struct flow_action *action);
void daemon_note(struct daemon *daemon, const struct flow_action *action);
void daemon_wait(struct daemon *daemon, const struct flow_action *action);

/* daemon_expand.c */
void daemon_read(struct daemon *daemon, const struct flow_action *action);
void daemon_expand(struct daemon *daemon, const struct flow_action *action);

#endif
