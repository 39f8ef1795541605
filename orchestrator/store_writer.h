/* Writes to the profile store off the path of the work: rows are collected on the loop and written
 * in batches in the thread pool. A store that is damaged, locked or full never stops the work: rows
 * are dropped, which is logged once and counted. */
#ifndef ORCHESTRATOR_STORE_WRITER_H
#define ORCHESTRATOR_STORE_WRITER_H

#include "common/loop.h"
#include "orchestrator/store.h"

struct store_writer;

struct store_counts {
    int64_t kept, dropped, batches;
};

/* The file is opened with the first batch. */
struct store_writer *store_writer_new(uv_loop_t *loop, const char *path);
/* What was not written is dropped, and who waits for it is told so (-ECANCELED), at the latest when
 * the loop is finished: wait for a barrier first. Accepts NULL. */
void store_writer_close(struct store_writer **writer);

/* Arguments are copied. */
void store_writer_timing(struct store_writer *writer, struct bytes record);
void store_writer_decision(struct store_writer *writer, const char *task, const char *sub,
                           int64_t attempt, const char *candidates);
void store_writer_task(struct store_writer *writer, const struct store_task *task, const char *json,
                       store_kept_fn *fn, void *ctx);
/* fn is called, never at once, when all rows before are kept or dropped. */
void store_writer_barrier(struct store_writer *writer, store_kept_fn *fn, void *ctx);

struct store_counts store_writer_counts(const struct store_writer *writer);

#endif
