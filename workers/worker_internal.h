/* What the parts of a worker process share. */
#ifndef WORKERS_WORKER_INTERNAL_H
#define WORKERS_WORKER_INTERNAL_H

#include "common/answer_cache.h"
#include "common/governor.h"
#include "common/peer.h"
#include "workers/accounts.h"
#include "workers/arms.h"
#include "workers/attempt.h"
#include "workers/backlog.h"
#include "workers/gpu.h"
#include "workers/keys.h"
#include "workers/plugin.h"
#include "workers/replay.h"
#include "workers/runtime.h"
#include "workers/worker.h"

struct worker {
    uv_loop_t *loop;             /* borrowed */
    const struct config *config; /* borrowed, and so is what follows up to provider */
    const struct config_worker *self;
    const struct config_provider *settings; /* of the provider that answers */
    const struct config_provider *search;   /* that wraps it with web search; NULL: none does */
    const struct provider *provider;
    struct plugin *plugin; /* owns the provider; NULL: it is built in */
    char host[128];
    char boot[17];
    int ready_fd;
    int64_t drain_ms;
    struct arms arms;
    struct keys *keys, *search_keys;
    struct spool *spool;
    struct exchanges *exchanges;
    struct searches *searches;
    struct queue *queue;
    struct governor *governor;
    struct answer_cache *cache;
    struct attempts *attempts;
    struct replay *replay;
    struct peer *peer; /* NULL until the spool is replayed */
    struct runtime *runtime;
    struct gpu *gpu;
    int gpu_lock; /* descriptor; -1: none */
    char *runtime_log;
    const char **hidden; /* environment variables with keys, borrowed; the runtime has no use for */
    size_t n_hidden;
    struct accounts *accounts;
    struct backlog *backlog;
    struct loop_timer *room_timer, *pause_timer, *drain_timer;
    char (*keys_out)[KEY_FINGERPRINT_SIZE]; /* refused by the provider */
    size_t n_keys_out;
    uv_prepare_t *turn;     /* sends what is owed before the loop waits */
    uv_signal_t *reload;    /* SIGHUP */
    bool welcomed, healthy; /* a broker answered; the runtime (if any) is usable */
    char halted[600];       /* why no call is begun, whatever a broker offers; "": nothing */
    bool news_due;          /* what its runtime does is to be told to who came meanwhile */
    bool draining, aborted, stopped;
    char failure[1024];
};

/* --- worker_bus.c: credit, dispatches, what brokers hear -----------------------------------------
 */

extern const struct peer_callbacks worker_peer_callbacks;
void worker_open_backlog(struct worker *worker);
/* Tells all brokers what they may send from now on. */
void worker_introduce(struct worker *worker);
void worker_tell_ready(struct worker *worker);
/* Gives back what waits, unclaimed. */
void worker_decline_all(struct worker *worker, const char *reason);
void worker_check_drained(struct worker *worker);
attempts_end_fn worker_attempt_ended;
/* An event for taps; what: as in the table of messages. */
void worker_news(struct worker *worker, const char *what, const char *text);

/* --- worker_limits.c: the governor's changes, paused arms, keys --------------------------------
 */

int worker_open_limits(struct worker *worker, struct err *err);
/* SIGHUP: reads all keys again. */
void worker_reload_keys(struct worker *worker);

#endif
