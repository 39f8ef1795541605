/* After a restart: commits the answers that the spool still has, and fails the attempts that died.
 */
#ifndef WORKERS_REPLAY_H
#define WORKERS_REPLAY_H

#include "common/loop.h"
#include "common/queue.h"
#include "workers/spool.h"

struct replay;

/* Every record is settled, or left in the spool for the next start because Redis answered with
 * errors (which were logged). */
typedef void replay_done_fn(void *ctx);

/* Starts at once; done() comes exactly once, before the return when there is nothing to do. While
 * Redis is away or refuses, it goes on trying. */
struct replay *replay_new(uv_loop_t *loop, struct queue *queue, struct spool *spool,
                          replay_done_fn *done, void *ctx);
/* After queue_close(), when it may still wait for answers. Accepts NULL. */
void replay_free(struct replay **replay);

#endif
