/* The queue as orchestrators share it: who has which shards, whose outboxes are followed, what they
 * tell each other. */
#ifndef COMMON_QUEUE_DAEMON_H
#define COMMON_QUEUE_DAEMON_H

#include "common/queue.h"

/* --- whose a shard is --------------------------------------------------------------------- */

/* What an orchestrator holds, at the time of the call. */
struct queue_share {
    int64_t members;            /* orchestrators that live, this one too */
    int64_t due;                /* shards that are due to this one: 64 divided by the members */
    int64_t held;               /* that it holds */
    int64_t free;               /* that nobody holds */
    int64_t terms[SHARD_COUNT]; /* 0: not held; else grows with each new holder of the shard */
};
/* share is NULL unless status is QUEUE_OK. */
typedef void queue_share_fn(void *ctx, enum queue_status status, const struct queue_share *share,
                            const char *err);
/* Makes or keeps `member` (a name of this start of the process) an orchestrator for lease_ms by
 * Redis's clock, gives the shards in `given` back, and takes what is due and nobody's. What it
 * holds beyond its due it keeps until it gives it back. A shard is nobody's when its holder has
 * given it back, or is no longer a member. lease_ms 0: it leaves, and gives all back. A holder must
 * count the lease from before the call. OK, REFUSED, ERROR. */
void queue_share(struct queue *queue, const char *member, int64_t lease_ms, const int *given,
                 size_t n_given, queue_share_fn *fn, void *ctx);

/* --- following ---------------------------------------------------------------------------- */

/* As queue_follow(), but follows only the shards of which queue_follow_gain() tells. */
int queue_follow_begin(struct queue *queue, queue_event_fn *fn, void *ctx, struct err *err);
/* Follows the shard from its checkpoint. From then on queue_checkpoint() of this queue sets it as
 * the holder with that term, and those with an earlier one are refused. */
void queue_follow_gain(struct queue *queue, int shard, int64_t term);
/* Events of the shard come no more. Its checkpoint may still be set. */
void queue_follow_drop(struct queue *queue, int shard);

/* --- what orchestrators tell each other ---------------------------------------------------- */

/* Records `timing` for the others. The latest few thousand are kept. */
void queue_timings_tell(struct queue *queue, const char *member, const struct bytes *records,
                        size_t n_records);
/* What others told after `after` ("0": all that is kept): a call for each record, those of `member`
 * left out. Then once with record NULL, when *more says whether there may be more behind `after`,
 * the new position. */
struct queue_timings {
    const struct bytes *record; /* NULL: the end */
    const char *after;          /* at the end: where to go on */
    bool more;                  /* at the end */
};
typedef void queue_timings_fn(void *ctx, const struct queue_timings *timings);
void queue_timings_read(struct queue *queue, const char *member, const char *after,
                        queue_timings_fn *fn, void *ctx);

/* Before queue_forget(): which archive has the task, as words for people. Remembered for a week,
 * for the last 500 of each shard. */
void queue_archived(struct queue *queue, const char *task, const char *archive);
/* GONE: nobody has said. */
void queue_archive_of(struct queue *queue, const char *task, queue_bytes_fn *fn, void *ctx);

#endif
