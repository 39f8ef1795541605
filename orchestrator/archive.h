/* Moves finished tasks from Redis to the profile store, so that the queue never grows with
 * history. */
#ifndef ORCHESTRATOR_ARCHIVE_H
#define ORCHESTRATOR_ARCHIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/queue.h"
#include "orchestrator/store_writer.h"

struct archive;

struct archive_options {
    struct queue *queue;                 /* borrowed */
    struct store_writer *store;          /* borrowed */
    const char *where;                   /* this archive, for people who ask elsewhere; copied */
    int64_t retain_s;                    /* how long finished tasks stay */
    bool (*holds)(void *ctx, int shard); /* whose tasks are to be moved */
    void *ctx;
};
struct archive *archive_new(const struct archive_options *options);
/* Only after queue and store have answered or dropped everything. Accepts NULL. */
void archive_free(struct archive **archive);

/* To be called every now and then: looks at a few shards of those that are held, at most once a
 * second, and moves what is old enough. A task is forgotten by the queue only after the store has
 * committed it; then the queue knows where it is. */
void archive_tick(struct archive *archive);
/* Begins nothing more until the next tick. */
void archive_stop(struct archive *archive);

#endif
