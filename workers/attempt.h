/* Attempts: claim a subtask, compose its prompt, call the provider, spool the answer, commit it.
 *
 * The way of a dispatch, one file for each part of it:
 *     backlog.c         a place and a permit
 *     attempt_queue.c   claim; later reserve, commit, fail, lose: all that the queue is asked
 *     attempt_call.c    what is asked for: cache, budget, search, call
 *     attempt_result.c  what came of it: records and costs, and the queue is told
 *     attempt.c         states, leases, the end */
#ifndef WORKERS_ATTEMPT_H
#define WORKERS_ATTEMPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/answer_cache.h"
#include "common/config.h"
#include "common/governor.h"
#include "common/loop.h"
#include "common/peer.h"
#include "common/queue.h"
#include "workers/arms.h"
#include "workers/dispatch.h"
#include "workers/exchange.h"
#include "workers/keys.h"
#include "workers/provider.h"
#include "workers/search.h"
#include "workers/spool.h"

struct attempts; /* all attempts of a worker */

/* An attempt is over, whatever came of it: its place is free. broker: that dispatched it. */
typedef void attempts_end_fn(void *ctx, int broker);

/* Everything is borrowed for the life of the attempts. */
struct attempts_options {
    uv_loop_t *loop;
    struct queue *queue;
    struct spool *spool;
    struct exchanges *exchanges;
    struct governor *governor;   /* NULL: no limits */
    struct answer_cache *cache;  /* NULL: every call is made */
    const struct config *config; /* budgets; NULL: only those of tasks */
    const struct provider *provider;
    const struct config_provider *settings; /* base_url, stream, limits in time */
    const char *name;                       /* of the provider that the arms belong to */
    /* The search-augmented provider; NULL: none. */
    const struct config_provider *search;
    struct searches *searches;
    struct keys *search_keys; /* of the engine; NULL: none */
    const char *worker, *host;
    const char *boot; /* nonce of this start: makes claims unique */
    int64_t lease_ms, renew_ms, abandon_ms;
    attempts_end_fn *end; /* may be NULL */
    void *ctx;
};

struct attempts *attempts_new(const struct attempts_options *options);
/* Call queue_close() first: its last answers free what waits for them. Attempts then leave no trace
 * but their spool records. Accepts NULL. */
void attempts_free(struct attempts **attempts);
/* Before governor, cache and queue are closed: they are asked nothing more, and what the queue
 * answers from now on ends the attempt where it stands. */
void attempts_closing(struct attempts *attempts);
/* Where events go; NULL: nowhere. */
void attempts_publish(struct attempts *attempts, struct peer *peer);
size_t attempts_running(const struct attempts *attempts);

/* Begins with the claim. Ids must be valid (task_id.h). permit: granted; it is settled when the
 * attempt has no more use for it. key: that the permit names; taken; NULL: none. end() comes later,
 * never before the return. */
void attempts_start(struct attempts *attempts, const struct dispatch *dispatch,
                    const struct governor_permit *permit, struct key **key);
/* Hint that the task or subtask (sub "": all of the task) was cancelled. The queue is asked at
 * once, and the call is stopped when it says so. */
void attempts_cancel(struct attempts *attempts, const char *task, const char *sub);
/* The worker must go: calls are stopped and fail as worker_lost without backoff, so that they run
 * elsewhere at once. Answers that are being committed still are. */
void attempts_abort(struct attempts *attempts);

#endif
