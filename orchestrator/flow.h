/* The flow of work as a pure function: what happened goes in, what is to be done comes out.
 *
 * No I/O, no clock, no randomness: every event brings the time, so a run can be replayed. Redis is
 * the truth; this state is a cache of which ready subtasks have been offered to which broker, and
 * of how far each shard's outbox has been applied. Losing it loses nothing but time.
 *
 * It acts on the shards that it holds, and on no others: at first on none. */
#ifndef ORCHESTRATOR_FLOW_H
#define ORCHESTRATOR_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/queue.h"

struct flow;

struct flow_options {
    int brokers;
    int64_t grace_ms;      /* from `taken` until a subtask that is still READY is offered again */
    int64_t reoffer_ms;    /* first repetition of an offer that nobody takes; doubles up to 60 s */
    int64_t scan_ms;       /* how often a shard's indexes are read while it is active */
    int64_t idle_scan_ms;  /* and while it is quiet */
    int64_t delay_scan_ms; /* how often due retries are looked for after a failure */
    int64_t checkpoint_ms;
    int64_t again_ms;   /* until a refused read or expand is tried again */
    size_t parked_max;  /* subtasks remembered that no worker serves, beyond the broker's window */
    size_t reserve_max; /* ready ones remembered beyond the window; the rest is read again later */
    /* How long after it was taken by the arm a subtask is hedged: offered to other arms too.
     * Negative: never. A table of what was measured, asked once for each TAKEN; NULL: no hedges. */
    int64_t (*hedge_ms)(void *ctx, struct bytes meta, const char *arm);
    void *hedge_ctx;
};
extern const struct flow_options flow_defaults; /* one broker */

enum flow_event_kind {
    FLOW_EVENT_QUEUE,      /* queue */
    FLOW_EVENT_ITEMS,      /* answer to FLOW_SCAN: index, shard, items, n_items; failed */
    FLOW_EVENT_INTRODUCE,  /* broker: it holds no offers of ours */
    FLOW_EVENT_WELCOME,    /* broker, limit: it takes that many */
    FLOW_EVENT_LOST,       /* broker */
    FLOW_EVENT_TAKEN,      /* broker, task, sub, arm, worker, hedge */
    FLOW_EVENT_DECLINED,   /* broker, task, sub, arm, after_ms, text (reason), hedge */
    FLOW_EVENT_UNSERVED,   /* broker, task, sub, text: why; "": nobody serves it */
    FLOW_EVENT_WINDOW,     /* broker, task and sub or "": refused, or there is room again */
    FLOW_EVENT_UNSENT,     /* broker, task, sub, hedge: the offer could not be sent */
    FLOW_EVENT_UNROUTABLE, /* task, sub, text: no arm may run it */
    FLOW_EVENT_EXHAUSTED,  /* task, sub: no arm is left that may run it; text: why, "": it failed */
    FLOW_EVENT_UNHEDGED,   /* task, sub: no other arm may run it */
    FLOW_EVENT_PLAN,       /* answer to FLOW_READ: task, sub, serial, verdict, text (complaint) */
    FLOW_EVENT_EXPANDED,   /* answer to FLOW_EXPAND: task, sub, serial, status */
    FLOW_EVENT_DURABLE,    /* answer to FLOW_BARRIER */
    FLOW_EVENT_GAINED,     /* shard: ours from now on; its outbox comes from the checkpoint */
    FLOW_EVENT_LEAVE,      /* shard: nothing more is done for it; RELEASE follows when all that was
                              done is kept and its checkpoint written */
    FLOW_EVENT_DROPPED,    /* shard: not ours any more: forgotten at once, offers included */
    FLOW_EVENT_TICK,
    FLOW_EVENT_STOP, /* all records are durable: the last checkpoints are written */
};

enum flow_verdict {
    FLOW_VERDICT_PLAN,  /* the answer is a plan */
    FLOW_VERDICT_BAD,   /* it is none; text says why */
    FLOW_VERDICT_MOOT,  /* nothing to expand: the task is gone, or the node is not DONE */
    FLOW_VERDICT_LATER, /* it could not be read now */
};

struct flow_event {
    enum flow_event_kind kind;
    int64_t now_ms; /* monotonic */
    int broker;
    int shard;
    int64_t limit, after_ms;
    int64_t serial; /* of the action that is answered: PLAN, EXPANDED */
    const char *task, *sub, *text, *arm, *worker; /* never NULL where the kind has them */
    bool hedge;
    enum flow_verdict verdict;
    enum queue_status status;
    const struct queue_event *queue;
    enum queue_index index;
    const struct queue_item *items;
    size_t n_items;
    bool failed;
};

enum flow_action_kind {
    FLOW_OFFER,      /* broker, shard, task, sub, priority, meta, avoid, error_class, hedge */
    FLOW_WITHDRAW,   /* broker, task, sub */
    FLOW_CANCEL,     /* task, sub or "": to all brokers */
    FLOW_SCAN,       /* shard, index, offset, limit */
    FLOW_EXPIRE,     /* task, sub */
    FLOW_PROMOTE,    /* task, sub */
    FLOW_BURY,       /* task, sub, avoid (as the queue has it), text: why, "": its last failure */
    FLOW_READ,       /* task, sub, serial: read the outcome of a plan node and judge it */
    FLOW_EXPAND,     /* task, sub, serial, expand, text (complaint); follows PLAN at once */
    FLOW_RECORD,     /* timing: keep it */
    FLOW_BARRIER,    /* answer DURABLE once all records so far are kept, or cannot be */
    FLOW_CHECKPOINT, /* shard, id */
    FLOW_RELEASE,    /* shard: answer to LEAVE; another orchestrator may have it */
    FLOW_PUBLISH,    /* task, sub, what, text, alone; meta, queue, arm, worker where there are */
    FLOW_NOTE,       /* task, sub, meta, avoid, text: say why it waits ("" : nobody serves it) */
    FLOW_WAIT,       /* the same, unless an arm may run it now */
};

enum flow_expand {
    FLOW_EXPAND_PLAN,   /* into the plan's nodes */
    FLOW_EXPAND_REPAIR, /* into a node that asks again */
    FLOW_EXPAND_SINGLE, /* into one subtask with the original text */
};

struct flow_action {
    enum flow_action_kind kind;
    int broker, shard;
    const char *task, *sub, *what, *text;
    const char *avoid; /* arms, separated by spaces; `arm=ms`: for so long from now */
    const char *error_class, *arm, *worker;
    const char *running; /* OFFER with hedge: the arm that runs it */
    int64_t priority, attempt;
    struct bytes meta, timing;
    enum queue_index index;
    int64_t offset, limit;
    int64_t serial; /* READ, EXPAND: the answer bears it too */
    enum flow_expand expand;
    const struct queue_event *queue;
    bool hedge; /* OFFER: beside the attempt that runs */
    bool alone; /* PUBLISH: no worker tells of it */
    char id[48];
};

struct flow *flow_new(const struct flow_options *options);
void flow_free(struct flow **flow); /* accepts NULL */

/* Applies one event. The actions, and what they point to, are valid until the next step; what they
 * borrow from the event, as long as the event. */
const struct flow_action *flow_step(struct flow *flow, const struct flow_event *event,
                                    size_t *ret_count);

/* For tests and statistics: offers now with brokers, hedges not counted; hedges that may come, are
 * offered or run; and plans not yet expanded. */
size_t flow_offered(const struct flow *flow, int broker);
size_t flow_hedges(const struct flow *flow);
size_t flow_expanding(const struct flow *flow);
/* Whether it acts on the shard: gained, and neither leaving nor dropped. */
bool flow_holds(const struct flow *flow, int shard);

#endif
