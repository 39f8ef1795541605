/* Moves finished tasks from Redis to the profile store, so that the queue never grows with
 * history. */
#ifndef ORCHESTRATOR_ARCHIVE_H
#define ORCHESTRATOR_ARCHIVE_H

#include "common/queue.h"
#include "orchestrator/store_writer.h"

struct archive;

/* Both are borrowed. retain_s: how long finished tasks stay. */
struct archive *archive_new(struct queue *queue, struct store_writer *store, int64_t retain_s);
/* Only after queue and store have answered or dropped everything. Accepts NULL. */
void archive_free(struct archive **archive);

/* To be called every now and then while this daemon leads: looks at a few shards, at most once a
 * second, and moves what is old enough. A task is forgotten by the queue only after the store has
 * committed it. */
void archive_tick(struct archive *archive);
/* Begins nothing more until the next tick. */
void archive_stop(struct archive *archive);

#endif
