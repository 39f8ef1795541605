/* What the parts of an attempt share. */
#ifndef WORKERS_ATTEMPT_INTERNAL_H
#define WORKERS_ATTEMPT_INTERNAL_H

#include "common/containers.h"
#include "workers/ask.h"
#include "workers/attempt.h"
#include "workers/record.h"

#define ATTEMPT_BACKOFF_MS 500 /* where the worker itself is short of something */

/* X(state, whether something is under way that can be stopped, what to send to the queue) */
#define ATTEMPT_STATES(X)                                                                          \
    X(CLAIMING, false, attempt_send_claim)                                                         \
    X(LOOKING, true, NULL) /* into the response cache, or waiting for an equal call */             \
    X(RESERVING, true, attempt_send_reserve)                                                       \
    X(SEARCHING, true, NULL)                                                                       \
    X(CALLING, true, NULL)                                                                         \
    X(COMMITTING, false, attempt_send_commit)                                                      \
    X(FAILING, false, attempt_send_fail)                                                           \
    X(LOSING, false, attempt_send_lose)                                                            \
    X(OVER, false, NULL) /* only waits for answers of the queue */
enum attempt_state {
#define X(state, stoppable, send) ATTEMPT_##state,
    ATTEMPT_STATES(X)
#undef X
};

struct attempt_failure {
    enum error_class class_;
    enum error_action action;
    int64_t backoff_ms;
    char *reason;
};

/* What a search has found, as long as the call needs it. */
struct attempt_sources {
    struct search_result *results; /* one block */
    size_t n;
};

struct attempt {
    struct attempts *all; /* borrowed */
    enum attempt_state state;
    struct dispatch dispatch;
    int pending;      /* answers of the queue to come */
    bool asked;       /* the state's own request is one of them */
    bool renewing;    /* a renewal is one of them */
    bool reclaimed;   /* the first answer to the claim came late */
    int repeats;      /* of the state's request */
    int64_t again_ms; /* when it is repeated; 0: not waiting */
    char nonce[40];
    char token[64];
    char *kind, *role, *title;
    int64_t attempt, started_ms;
    double queue_ms, claim_ms, limit_ms, search_ms;
    double claimed_ms;            /* monotonic */
    int64_t asked_ms, renewed_ms; /* sent: the claim or renewal under way, the last good one */

    struct governor_permit permit;
    bool permitted;  /* to be settled */
    struct key *key; /* for the call; NULL: none */
    struct ask *ask; /* from the claim until the call has started; NULL */

    char cache_key[ANSWER_KEY_SIZE]; /* "": the answer is not cached */
    bool looking;                    /* the cache has not answered */
    bool owner;                      /* others may wait for this attempt's answer */
    bool cached;                     /* it came from there */

    bool budgeted;            /* the task has a budget */
    bool reserved;            /* of the budgets; cost: what is to be settled */
    struct queue_spend worst; /* known when reserved */
    struct queue_spend cost;

    bool structured;       /* the answer follows a JSON schema */
    bool searches;         /* the call begins with a search of the web */
    struct search *search; /* under way; NULL */
    double search_from_ms;
    struct attempt_sources sources;
    struct buf citations;
    char *note; /* for the reader of the answer; NULL: nothing */

    struct exchange *exchange; /* NULL: none in flight */
    bool calling;              /* the arm's state counts it */
    bool warm;                 /* so was the arm when the call began */
    size_t chunk_at;           /* bytes of the text that taps have had */
    struct attempt_failure failure;
    struct buf outcome, timing; /* encoded, while they are committed */
    LIST_ENTRY(attempt) link;
    TAILQ_ENTRY(attempt) line;
    bool in_line; /* waits for its turn to commit */
};

struct attempts {
    struct attempts_options options;
    struct peer *peer; /* borrowed; NULL: nobody listens */
    struct loop_timer *sweep;
    int64_t sweep_ms;
    LIST_HEAD(, attempt) list;
    TAILQ_HEAD(, attempt) line;
    size_t running, commits; /* commits: under way */
    uint64_t claims;         /* so far: makes nonces unique */
    uint64_t random;
    bool aborting, closing;
};

/* --- attempt.c -------------------------------------------------------------------------------- */

void attempt_enter(struct attempt *attempt, enum attempt_state state);
/* Stops what is under way: lookup, search, call. */
void attempt_halt(struct attempt *attempt);
/* The place is free; the memory is, once the queue has answered everything. */
void attempt_over(struct attempt *attempt);
/* The queue needs nothing more of it: the spool forgets it, too. */
void attempt_finish(struct attempt *attempt);
/* To be called first for every answer of the queue. False when nobody waits for it any more. */
bool attempt_answered(struct attempt *attempt);
/* For the arm's state: a call begins, gives its first token, has its report, ends. */
void attempt_call_begins(struct attempt *attempt);
void attempt_call_speaks(struct attempt *attempt);
void attempt_call_reports(struct attempt *attempt, const struct exchange_report *report);
void attempt_call_ends(struct attempt *attempt);
/* The permit has no more use. report NULL: no call was made, or the one under way is stopped. */
void attempt_settle_permit(struct attempt *attempt, const struct governor_report *report);
struct record_facts attempt_facts(const struct attempt *attempt);
/* text: NULL: that of the timing record. */
void attempt_publish(const struct attempt *attempt, const char *what, const char *text);
static inline struct bytes attempt_bytes(const struct buf *buf)
{
    return (struct bytes){buf->data != NULL ? buf->data : "", buf->len};
}

/* --- attempt_queue.c: one function for each thing that the queue is asked -----------------------
 */

void attempt_send_claim(struct attempt *attempt);
void attempt_send_reserve(struct attempt *attempt);
void attempt_send_commit(struct attempt *attempt);
void attempt_send_fail(struct attempt *attempt);
void attempt_send_lose(struct attempt *attempt);
void attempt_send_renew(struct attempt *attempt, int64_t now_ms);

/* --- attempt_call.c ----------------------------------------------------------------------------
 */

/* It is claimed: makes the call, or finds that it needs none. */
void attempt_run(struct attempt *attempt, const struct queue_claim *claim);
/* The budgets have room for it. */
void attempt_reserved(struct attempt *attempt);
/* The accounts besides the task's that the call is counted in: at most ATTEMPT_ACCOUNTS. */
#define ATTEMPT_ACCOUNTS 3
struct attempt_accounts {
    struct queue_account list[ATTEMPT_ACCOUNTS];
    char names[ATTEMPT_ACCOUNTS][96];
    size_t n;
};
void attempt_accounts(const struct attempt *attempt, struct attempt_accounts *ret);

/* --- attempt_result.c ---------------------------------------------------------------------------
 */

/* The call is answered: spools and commits. */
void attempt_succeed(struct attempt *attempt, struct exchange_report *report);
/* The outcome of an equal call: commits it as this attempt's. -EBADMSG when it is none. */
int attempt_succeed_cached(struct attempt *attempt, struct bytes outcome);
/* action: what the queue does with it. report NULL: the call that is under way, if any, is stopped.
 */
struct attempt_verdict {
    const char *result; /* failed, abandoned */
    enum error_class class_;
    enum error_action action;
    int64_t backoff_ms;
    const char *reason;
};
void attempt_fail_with(struct attempt *attempt, const struct attempt_verdict *verdict,
                       const struct exchange_report *report);
/* The usual case: nothing was called, and the class decides what the queue does. */
void attempt_fail(struct attempt *attempt, enum error_class class_, int64_t backoff_ms,
                  const char *reason);
/* The attempt is not to go on, and fails as worker_lost without backoff. */
void attempt_abandon(struct attempt *attempt, const char *reason);
/* The subtask needs this attempt no longer: stops it, and settles what it has cost. */
void attempt_lose(struct attempt *attempt, const char *reason);

#endif
