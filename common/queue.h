/* The task queue in Redis: tasks, their subtasks, leases. Redis is the only truth.
 *
 * Every call is asynchronous, is one script (or one pipelined read), and is safe to repeat. Task
 * and subtask ids are checked by the caller (task_id.h). The record arguments are msgpack records
 * of schemas/messages.def, opaque to the queue. See docs/architecture.md for keys and states. */
#ifndef COMMON_QUEUE_H
#define COMMON_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"
#include "common/redis.h"
#include "schemas/error_class.h"
#include "schemas/message.h"

/* X(constant, text in Redis, terminal) */
#define SUB_STATES(X)                                                                              \
    X(BLOCKED, "BLOCKED", false)                                                                   \
    X(READY, "READY", false)                                                                       \
    X(RUNNING, "RUNNING", false)                                                                   \
    X(DELAYED, "DELAYED", false)                                                                   \
    X(HELD, "HELD", false)                                                                         \
    X(DONE, "DONE", true)                                                                          \
    X(DEAD, "DEAD", true)                                                                          \
    X(CANCELLED, "CANCELLED", true)
enum sub_state {
#define X(constant, text, terminal) SUB_##constant,
    SUB_STATES(X)
#undef X
        SUB_STATE_COUNT
};
const char *sub_state_name(enum sub_state state);
enum sub_state sub_state_parse(const char *text, size_t len); /* SUB_STATE_COUNT: none of them */
bool sub_state_terminal(enum sub_state state);
/* The table of legal moves of the design; the scripts obey it and fsck checks it. */
bool sub_state_may_move(enum sub_state from, enum sub_state to);

/* LOADING: chunks of a large submit still come. FAILED: a subtask is dead; what had run stays. */
#define TASK_STATES(X)                                                                             \
    X(LOADING, "LOADING", false)                                                                   \
    X(RUNNING, "RUNNING", false)                                                                   \
    X(DONE, "DONE", true)                                                                          \
    X(FAILED, "FAILED", true)                                                                      \
    X(CANCELLED, "CANCELLED", true)
enum task_state {
#define X(constant, text, terminal) TASK_##constant,
    TASK_STATES(X)
#undef X
        TASK_STATE_COUNT
};
const char *task_state_name(enum task_state state);
enum task_state task_state_parse(const char *text, size_t len);
bool task_state_terminal(enum task_state state);

enum queue_status {
    QUEUE_OK,
    QUEUE_DUP,       /* the same was done before: as good as OK */
    QUEUE_CONFLICT,  /* submit: the task id exists with another digest */
    QUEUE_TAKEN,     /* claim: someone else runs it, or it is no longer ready */
    QUEUE_GONE,      /* no such task or subtask */
    QUEUE_CANCEL,    /* claim, renew: the task was cancelled: stop */
    QUEUE_STALE,     /* renew, commit, fail: the token is no longer the owner's: nothing changed */
    QUEUE_CANCELLED, /* commit: the subtask was cancelled: nothing changed */
    QUEUE_RETRY,     /* fail, expire: will run again */
    QUEUE_DEAD,      /* fail, expire: no attempts left, or not worth one */
    QUEUE_WAIT,   /* reserve: no room now, perhaps once calls under way are settled; err says why */
    QUEUE_BUDGET, /* reserve: a budget has no room for it, ever; err says which */
    QUEUE_REFUSED, /* Redis refuses writes (memory, disk, replicas): repeat later; err says which */
    QUEUE_ERROR,   /* Redis answered an error, or the client was closed; err says which */
};
const char *queue_status_name(enum queue_status status);

struct queue;

/* Opens a client of its own for commands. The loop must outlive it. */
int queue_open(struct queue **ret, uv_loop_t *loop, const struct redis_options *options,
               const struct redis_callbacks *callbacks, void *ctx, struct err *err);
void queue_close(struct queue **queue);
struct redis *queue_redis(struct queue *queue);

/* The plain answer of a script. err: sentence when status is QUEUE_REFUSED or QUEUE_ERROR, else
 * "". */
typedef void queue_fn(void *ctx, enum queue_status status, const char *err);

/* --- submitting ------------------------------------------------------------------------- */

/* One subtask as it is stored. Everything is borrowed until the call returns. */
struct queue_node {
    const char *id;
    const char *const *deps; /* ids of dependencies, each in the same submit or expand, or already
                                in the task */
    size_t n_deps;
    struct bytes work;    /* record `work` */
    struct bytes meta;    /* record `meta` */
    int64_t priority;     /* -127..127; beyond, it counts as the nearest of them */
    int64_t max_attempts; /* at least 1 */
    bool expands;         /* its result is a plan: the task is not finished before expand() */
};

/* Most of one submit; more is an ERROR with a sentence, at once, and nothing is stored. */
#define QUEUE_SUBS_MAX 100000
#define QUEUE_DEPS_MAX 10000 /* of one subtask: what the record `work` holds */
#define QUEUE_EDGES_MAX 1000000
#define QUEUE_WORK_MAX ((size_t)64 << 20) /* bytes of one subtask's records */
#define QUEUE_BYTES_MAX ((size_t)512 << 20)

/* Money in 1e-9 USD, and tokens. */
struct queue_spend {
    int64_t nano_usd;
    int64_t tokens;
};

struct queue_task {
    const char *id;
    const char *digest; /* of the content: the same id and digest again is DUP */
    const char *title;
    struct bytes info; /* opaque to the queue: JSON of what the submitter wants remembered */
    struct queue_spend budget; /* of the task; 0: no limit */
    const struct queue_node *nodes;
    size_t n_nodes;
};

/* Sends chunks of 1,000 nodes, then activates; the graph must be acyclic and complete (the caller
 * validated it). OK, DUP, CONFLICT. */
void queue_submit(struct queue *queue, const struct queue_task *task, queue_fn *fn, void *ctx);
/* Adds children when `parent` (an expanding node) is DONE and not yet expanded. The first call
 * wins; a repeated one is DUP. With n_nodes == 0 it only marks the parent as expanded. OK, DUP,
 * STALE (not DONE, not expanding, or the task is over), CONFLICT (a child's id exists), GONE. */
void queue_expand(struct queue *queue, const char *task, const char *parent,
                  const struct queue_node *nodes, size_t n_nodes, queue_fn *fn, void *ctx);

/* --- working ------------------------------------------------------------------------------ */

struct queue_claim {
    const char *token;
    int64_t attempt;   /* from 1 */
    double queue_ms;   /* READY until now, by Redis's clock; of a hedge 0 */
    bool budgeted;     /* the task has a budget of its own */
    struct bytes work; /* record `work` */
    size_t n_deps;
    const struct bytes *deps; /* records `outcome`, in the order of work.dep_ids */
};
/* claim is NULL unless status is QUEUE_OK; valid during the call. */
typedef void queue_claim_fn(void *ctx, enum queue_status status, const struct queue_claim *claim,
                            const char *err);
/* nonce: unique for this attempt of claiming, made by the claimant: a repeated call with the same
 * nonce gets the same answer again. The token is "<attempt>-<nonce>". hedge: a second attempt
 * beside the one that runs; it uses up none of max_attempts. TAKEN when none runs, another hedge
 * does, the task is over, or the one that runs is a QUEUE_WAITS_MAX-th. */
void queue_claim(struct queue *queue, const char *task, const char *sub, const char *worker,
                 const char *arm, const char *nonce, int64_t lease_ms, bool hedge,
                 queue_claim_fn *fn, void *ctx);

/* A budget besides the task's. name: "day", "role:<name>" (of a day), "task-role:<name>" (of this
 * task). */
struct queue_account {
    const char *name;
    struct queue_spend limit; /* 0: no limit */
};
/* Reserves the worst case of a call that the attempt is about to make, of the task's budget and of
 * all accounts, or of none: what is spent and reserved never exceeds a limit, unless a provider
 * charges more than the worst case. It replaces what was reserved for the token: an attempt that
 * makes a further call reserves what it has spent so far and the worst case of that call. Commit,
 * fail and lose settle it, in the same script as the state; an attempt that was cancelled, or lost
 * against another, and is not settled until its lease runs out, has spent what was reserved. An
 * account is charged on the day of the reservation. OK (also where there is no limit), WAIT, BUDGET
 * (err says which budget, what it has left, and what the call could cost), STALE, CANCEL, GONE. */
void queue_reserve(struct queue *queue, const char *task, const char *sub, const char *token,
                   const struct queue_account *accounts, size_t n_accounts,
                   struct queue_spend worst, queue_fn *fn, void *ctx);
/* A subtask that only waits is dead after so many attempts, unless it waits for a budget. */
#define QUEUE_WAITS_MAX 100
/* Nor does it count when a worker was lost, and nobody knows that it died of this subtask: every
 * QUEUE_LOSSES_MAX-th time is the last one nevertheless, and from the third on it waits. */
#define QUEUE_LOSSES_MAX 20
/* The lease is one per subtask: the later expiry of an attempt and its hedge counts. OK, STALE,
 * CANCEL, GONE. */
void queue_renew(struct queue *queue, const char *task, const char *sub, const char *token,
                 int64_t lease_ms, queue_fn *fn, void *ctx);
/* spent: what the attempt has cost; NULL: nothing, and nothing was reserved. OK, DUP (the same
 * token again), STALE (a hedge, or the attempt that it was beside, was faster: call queue_lose()),
 * CANCELLED, GONE. */
void queue_commit(struct queue *queue, const char *task, const char *sub, const char *token,
                  struct bytes outcome, struct bytes timing, const struct queue_spend *spent,
                  queue_fn *fn, void *ctx);
/* An attempt that was stopped because the subtask needs it no longer (another attempt committed,
 * the task was cancelled): changes no state, records the timing and settles what it has cost. OK,
 * DUP, GONE (also when there was no such attempt), STALE (it still runs: queue_fail()). */
void queue_lose(struct queue *queue, const char *task, const char *sub, const char *token,
                struct bytes timing, const struct queue_spend *spent, queue_fn *fn, void *ctx);
/* A failed attempt. action RETRY: after backoff_ms; WAIT: READY at once, with `arm=backoff_ms`
 * among the arms that it avoids: others may run it now, this one after so long; it does not count
 * against max_attempts, but for every QUEUE_WAITS_MAX-th attempt, which is the last one; MOVE: at
 * once, and `arm` is added to the arms this subtask avoids; DEAD: never. While a hedge (or the
 * attempt beside it) still runs, only this attempt ends: RETRY. spent: as for commit; what was
 * reserved and is not settled, because nobody knows (an expired lease), counts as spent. RETRY,
 * DEAD, STALE, CANCELLED (also when the task is over, so that there is no further attempt), GONE.
 * reason: for people. A dead subtask makes its task FAILED; the rest of it that does not run is
 * CANCELLED, and what runs may still commit. */
void queue_fail(struct queue *queue, const char *task, const char *sub, const char *token,
                enum error_class class_, enum error_action action, const char *reason,
                const char *arm, int64_t backoff_ms, struct bytes timing,
                const struct queue_spend *spent, queue_fn *fn, void *ctx);

/* --- the orchestrator's side ------------------------------------------------------------- */

/* Takes back an attempt whose lease has run out, and its hedge: RETRY, DEAD (no attempts left),
 * CANCELLED (the task is over), STALE (it was renewed or finished meanwhile; what was still
 * reserved for it is settled), GONE. */
void queue_expire(struct queue *queue, const char *task, const char *sub, queue_fn *fn, void *ctx);
/* A delayed subtask whose time has come becomes READY: OK, STALE, GONE. */
void queue_promote(struct queue *queue, const char *task, const char *sub, queue_fn *fn, void *ctx);
/* READY becomes DEAD, with the class of its last failure: nobody is left to run it. avoid: the arms
 * that it avoided when that was decided. reason: "": that of the last failure. OK, DUP, STALE (in
 * another state, or it avoids other arms now), GONE. */
void queue_bury(struct queue *queue, const char *task, const char *sub, const char *avoid,
                const char *reason, queue_fn *fn, void *ctx);
/* READY waits for a person, until it is released: OK, DUP, STALE (in another state), GONE. */
void queue_hold(struct queue *queue, const char *task, const char *sub, queue_fn *fn, void *ctx);
void queue_release(struct queue *queue, const char *task, const char *sub, queue_fn *fn, void *ctx);
/* Everything of the task that is not terminal becomes CANCELLED. OK, DUP, GONE; STALE when the
 * task has finished otherwise. */
void queue_cancel(struct queue *queue, const char *task, queue_fn *fn, void *ctx);
/* Dead and cancelled subtasks of a FAILED or CANCELLED task run again, with fresh attempts (their
 * numbers go on); what is done stays done, and a DONE event without timing is sent again for a plan
 * that was not expanded. OK, GONE, STALE when the task is not in such a state. */
void queue_retry(struct queue *queue, const char *task, queue_fn *fn, void *ctx);
/* The same with another budget: of the task from now on; -1: that stays. Tokens of a
 * task that had none count from now. CONFLICT, and nothing changed, when more is spent and held
 * already. */
void queue_retry_within(struct queue *queue, const char *task, const struct queue_spend *budget,
                        queue_fn *fn, void *ctx);

/* One entry of a shard's outbox. */
enum queue_event_kind {
    QUEUE_EVENT_READY, /* sub may be offered; meta and avoid are set */
    QUEUE_EVENT_DONE,  /* a commit; timing is set; expands tells whether its result is a plan */
    QUEUE_EVENT_FAIL,  /* an attempt failed or expired; timing may be empty */
    QUEUE_EVENT_DEAD,  /* a subtask is dead */
    QUEUE_EVENT_SUBMITTED,
    QUEUE_EVENT_TASK, /* the task reached the state in `state` */
    QUEUE_EVENT_LOST, /* queue_lose(); timing is set. No failure, and no state has changed. */
    QUEUE_EVENT_KIND_COUNT
};
struct queue_event {
    enum queue_event_kind kind;
    const char *id; /* stream id; the shard's checkpoint */
    int shard;
    const char *task;
    const char *sub; /* "" where it has none */
    int64_t attempt;
    int64_t priority;
    bool expands;
    enum task_state state;
    struct bytes meta;   /* record `meta` */
    struct bytes timing; /* record `timing` */
    const char *avoid;   /* arms to avoid, separated by spaces; `arm=ms`: only for so long from the
                            moment it was READY */
    const char *error_class; /* READY too: of the last failure */
    const char *reason;
};
typedef void queue_event_fn(void *ctx, const struct queue_event *event);
/* Damaged entries are skipped, logged once and counted. */

/* Follows the outboxes of all shards from their checkpoints, on a connection of its own, until
 * queue_close(). fn is called in order per shard; between batches nothing is buffered.
 * Orchestrators divide the shards among themselves: queue_daemon.h. */
int queue_follow(struct queue *queue, queue_event_fn *fn, void *ctx, struct err *err);
/* Everything of the shard up to and with stream id `id` has been applied: stored as the shard's
 * checkpoint, and the outbox is trimmed. Nothing happens when it stands there or later already, or
 * when another orchestrator has held the shard since (queue_follow_gain()). */
void queue_checkpoint(struct queue *queue, int shard, const char *id);

/* An index entry of a shard, with what an offer needs. */
struct queue_item {
    const char *task;
    const char *sub;
    double score; /* ready: order; lease: expiry, delay: due, both ms by Redis's clock */
    int64_t attempt;
    int64_t priority;
    struct bytes meta;
    const char *avoid;
    const char *error_class; /* of the last failure; "" */
};
enum queue_index {
    QUEUE_INDEX_READY,
    QUEUE_INDEX_LEASE, /* only entries that have expired */
    QUEUE_INDEX_DELAY, /* only entries that are due */
};
typedef void queue_items_fn(void *ctx, int shard, const struct queue_item *items, size_t n_items,
                            const char *err);
/* The first `limit` entries from position `offset`; meta and avoid only for READY. LEASE and DELAY:
 * when Redis's clock was set by more than 2 s since the last call, leases and delays keep what is
 * left of them. */
void queue_scan(struct queue *queue, int shard, enum queue_index index, int64_t offset,
                int64_t limit, queue_items_fn *fn, void *ctx);

/* What was spent of the accounts "day" and "role:..." today; 0 where nothing was. */
typedef void queue_spent_fn(void *ctx, const struct queue_spend *spent,
                            const struct queue_spend *held, size_t n, const char *err);
void queue_accounts(struct queue *queue, const char *const *names, size_t n, queue_spent_fn *fn,
                    void *ctx);

struct queue_depths {
    /* Subtasks; running: also those that are over, but for what a stopped attempt has cost. */
    int64_t ready, running, delayed, held, dead;
    int64_t tasks; /* tasks in Redis, finished ones too */
};
typedef void queue_depths_fn(void *ctx, const struct queue_depths *depths, const char *err);
void queue_depths(struct queue *queue, queue_depths_fn *fn, void *ctx);

/* --- reading ------------------------------------------------------------------------------ */

struct queue_sub_view {
    const char *id;
    enum sub_state state;
    int64_t attempts;
    const char *owner; /* worker that runs or ran it; "" */
    const char *arm;   /* on which arm; "" */
    double queue_ms;   /* it waited before its last attempt */
    const char *const *deps;
    size_t n_deps;
    struct bytes meta, work, outcome, timing; /* records; len 0 when there is none */
    const char *error_class;                  /* of the last failure; "" */
    const char *reason;
};
struct queue_task_view {
    const char *id;
    enum task_state state;
    const char *title;
    const char *digest;
    struct bytes info;
    int64_t created_ms, finished_ms; /* by Redis's clock; 0: not yet */
    int64_t total, remaining;
    int64_t cost_nano_usd; /* of all its attempts, as far as commit, fail and lose told it */
    struct queue_spend budget, spent,
        held;                          /* held: reserved by calls under way; budget 0: no limit */
    const struct queue_sub_view *subs; /* in the order they were added */
    size_t n_subs;
};
/* view is NULL with status GONE, REFUSED or ERROR; valid during the call. */
typedef void queue_task_fn(void *ctx, enum queue_status status, const struct queue_task_view *view,
                           const char *err);
/* with_work: also the inputs, which may be large. */
void queue_read(struct queue *queue, const char *task, bool with_work, queue_task_fn *fn,
                void *ctx);
/* One committed result: the record `outcome`; QUEUE_GONE when there is none. */
typedef void queue_bytes_fn(void *ctx, enum queue_status status, struct bytes bytes,
                            const char *err);
void queue_result(struct queue *queue, const char *task, const char *sub, queue_bytes_fn *fn,
                  void *ctx);
void queue_work(struct queue *queue, const char *task, const char *sub, queue_bytes_fn *fn,
                void *ctx);

/* A line of a task's log: what `submit` follows and `show --log` prints. */
struct queue_log_entry {
    const char *id;   /* stream id; its part before "-" is Redis's clock in ms */
    const char *what; /* submitted, ready, running, hedged, done, retry, lost, dead, cancelled,
                         expanded, task-done, task-failed, task-cancelled, retried, note. "lost" is
                         an attempt that ended beside another one, which goes on or has committed.
                         No "ready" for what is ready on submitting, no "cancelled" for what did not
                         run. */
    const char *sub;
    const char *worker;
    const char *arm;
    int64_t attempt;
    const char *error_class;
    const char *text;
};
typedef void queue_log_fn(void *ctx, const struct queue_log_entry *entry);
struct queue_log_follow;
/* Follows the log of a task from stream id `after` ("0": the beginning) on a connection of its own,
 * until queue_log_close(). Nothing is lost over reconnects. */
int queue_log_open(struct queue_log_follow **ret, struct queue *queue, const char *task,
                   const char *after, queue_log_fn *fn, void *ctx, struct err *err);
void queue_log_close(struct queue_log_follow **follow);
/* Adds a line for people (what "note"). */
void queue_log_note(struct queue *queue, const char *task, const char *sub, const char *text);

struct queue_task_item {
    const char *id;
    enum task_state state;
    const char *title;
    int64_t created_ms, finished_ms, total, remaining;
};
typedef void queue_list_fn(void *ctx, const struct queue_task_item *items, size_t n_items,
                           const char *err);
/* Newest first, over all shards. */
void queue_list(struct queue *queue, int64_t limit, queue_list_fn *fn, void *ctx);
/* Tasks that finished more than older_than_ms ago, by Redis's clock; at most limit, one shard. */
void queue_finished(struct queue *queue, int shard, int64_t older_than_ms, int64_t limit,
                    queue_list_fn *fn, void *ctx);
/* Removes every key of a finished task: OK, GONE, STALE when it is not finished. */
void queue_forget(struct queue *queue, const char *task, queue_fn *fn, void *ctx);

/* Tells that an orchestrator lives (name, host, pid, as JSON), for `status`; gone after ttl_ms. */
void queue_announce(struct queue *queue, const char *name, const char *json, int64_t ttl_ms);
/* It ends: no longer told. OK. */
void queue_withdraw(struct queue *queue, const char *name, queue_fn *fn, void *ctx);
typedef void queue_names_fn(void *ctx, const char *const *jsons, size_t n, const char *err);
void queue_orchestrators(struct queue *queue, queue_names_fn *fn, void *ctx);

/* --- which Redis this is ------------------------------------------------------------------- */

/* From now on the queue makes sure that Redis is the one that this process knows: that it was not
 * emptied, replaced or put back to an older copy by mistake. The first to come gives Redis an
 * epoch; `path` is where this process remembers it, with the latest time that it was seen at. In
 * another Redis, calls that change something are answered REFUSED, with a sentence, and are not
 * made; an answer GONE or STALE is passed on only when Redis is known to be the right one. It is
 * looked at on each connection, every 5 s, and by who leads every second, who also notes the time.
 * An older copy is noticed when it is more than a minute older. fn is called once it is known and
 * on each change, why: "" when all is well. It must not close the queue. */
typedef void queue_epoch_fn(void *ctx, const char *why);
void queue_guard(struct queue *queue, const char *path, bool leads, queue_epoch_fn *fn, void *ctx);
/* Gives Redis a new epoch which all processes take, whatever they remember: OK. */
void queue_accept_epoch(struct queue *queue, queue_fn *fn, void *ctx);

/* --- checking ------------------------------------------------------------------------------ */

/* Checks stored tasks against the invariants of docs/architecture.md. Each finding is a sentence.
 */
typedef void queue_finding_fn(void *ctx, const char *task, const char *sub, const char *finding);
typedef void queue_fsck_fn(void *ctx, int64_t tasks, int64_t findings, const char *err);
void queue_fsck(struct queue *queue, queue_finding_fn *finding, queue_fsck_fn *done, void *ctx);

#endif
