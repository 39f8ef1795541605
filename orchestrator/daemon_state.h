/* What the parts of the daemon share; nobody else includes this. */
#ifndef ORCHESTRATOR_DAEMON_STATE_H
#define ORCHESTRATOR_DAEMON_STATE_H

#include "common/config.h"
#include "common/loop.h"
#include "common/peer.h"
#include "common/queue.h"
#include "orchestrator/archive.h"
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

struct daemon {
    uv_loop_t loop;
    const struct config *config;
    char name[DAEMON_NAME_SIZE]; /* for people */
    char id[DAEMON_NAME_SIZE];   /* with the boot nonce: the holder of the lease */
    char boot[17], host[128];
    int ready_fd;
    int64_t started_ms; /* wall clock */
    struct queue *queue;
    struct peer *peer;
    struct access *access; /* keeps the Redis users of who was invited */
    struct daemon_broker *brokers;
    struct store_writer *store;
    struct loop_timer *tick, *lead_timer, *stop_timer;

    bool asking; /* for the lease */
    bool leading;
    int64_t term; /* counts times of leading: answers from an earlier one are ignored */
    struct queue *follow;
    struct flow *flow;
    struct archive *archive;
    struct pace *pace;           /* NULL: no role wants hedges */
    bool reading_pace;           /* from the store, in the thread pool */
    const struct judged *judged; /* during the step that judges; else NULL */

    bool foreign; /* Redis is not the one that it should be: nothing is done */
    bool stopping, stopped;
    int exit_code;
    int64_t redis_down_ms; /* since when, monotonic; 0: it answers */
    char redis_why[256];
    int64_t expand_told_ms;
};

/* daemon.c */
void daemon_finish(struct daemon *daemon, int exit_code);

/* daemon_lead.c */
void daemon_lead_start(struct daemon *daemon); /* begins to ask for the lease */
void daemon_lead_stop(struct daemon *daemon);  /* no longer leads: forgets the flow */
void daemon_say_ready(struct daemon *daemon, const char *text);

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
