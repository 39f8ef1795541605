/* What a worker must not forget when it dies: the attempts it has begun, and the answers it has
 * paid for and not yet committed. An append-only file, home/spool/NAME.spool.
 *
 * A response is in the kernel's hands when spool_response() returns, so a kill of the process loses
 * nothing. Against a crash of the machine, responses that have not been committed within
 * SPOOL_SYNC_DELAY_MS are brought to the disk by a group fdatasync in libuv's thread pool: one that
 * the queue has acknowledged by then needs none. The file is cut to nothing when nothing is
 * outstanding, and rewritten when most of it is history. */
#ifndef WORKERS_SPOOL_H
#define WORKERS_SPOOL_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/loop.h"
#include "workers/blame.h"
#include "workers/spool_record.h"

#define SPOOL_SYNC_DELAY_MS 5

struct spool;

struct spool_options {
    const char *home; /* the spool's directory is made below it */
    const char *name; /* of the worker */
    bool durable;     /* false: answers cost nothing, so fdatasync is not worth it */
};

/* Opens and reads the file; damaged records are skipped and a torn end is dropped, each with a line
 * in the log. 0; -EBUSY when another worker of that name runs on this host, with a sentence;
 * -EINVAL for a name that cannot be a file's; another negative errno. */
int spool_open(struct spool **ret, uv_loop_t *loop, const struct spool_options *options,
               struct err *err);
/* Writes what is pending. Accepts NULL. The loop must run once more afterwards. */
void spool_close(struct spool **spool);

/* Calls fn for every attempt that has not ended, in order: with its RESPONSE, or its CLAIM when it
 * has none. The record is gone after the call. fn may end it, and must add no other. */
typedef void spool_replay_fn(void *ctx, const struct spool_record *record);
void spool_replay(struct spool *spool, spool_replay_fn *fn, void *ctx);

/* Told from the loop when records cannot be written (why: a sentence's part), and with "" when they
 * can again, which is tried every second. Until then a crash costs the answers that are not yet
 * committed, so no call should be begun that is paid for. */
typedef void spool_news_fn(void *ctx, const char *why);
void spool_watch(struct spool *spool, spool_news_fn *fn, void *ctx);

/* These never fail the caller: a full disk is logged (once, and when it is over), and what runs
 * goes on unprotected. CLAIM and END reach the file with the loop's turn, a RESPONSE before the
 * return. The token names the attempt. */
void spool_claim(struct spool *spool, const char *task, const char *sub, const char *token,
                 const char *arm);
void spool_response(struct spool *spool, const char *task, const char *sub, const char *token,
                    const char *arm, struct bytes outcome, struct bytes timing);
void spool_end(struct spool *spool, const char *token); /* of an unknown token: nothing */
/* Writes pending records now. */
void spool_flush(struct spool *spool);
size_t spool_outstanding(const struct spool *spool);
size_t spool_file_bytes(const struct spool *spool);
/* Which attempt is being worked on, and was when the worker last died; lives as long as the spool.
 */
struct blame *spool_blame(const struct spool *spool);

#endif
