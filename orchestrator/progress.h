/* What happens to a task, live: on a terminal a row per subtask, redrawn in place; elsewhere one
 * plain line per transition. Everything shown is made harmless first. */
#ifndef ORCHESTRATOR_PROGRESS_H
#define ORCHESTRATOR_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/queue.h"
#include "orchestrator/render.h"
#include "schemas/buf.h"

struct progress;

struct progress_options {
    struct render_terminal terminal; /* live: rows; else lines */
    int fd;                          /* where it goes; -1: nowhere, what was written is in out() */
    bool quiet;                      /* only notes */
};

struct progress *progress_new(const struct progress_options *options);
void progress_free(
    struct progress **progress); /* accepts NULL; the rows are gone from the screen */

/* Subtasks as they are stored: titles, roles, states. */
void progress_view(struct progress *progress, const struct queue_task_view *view);
/* A line of the task's log. wall_ms: now. */
void progress_entry(struct progress *progress, const struct queue_log_entry *entry,
                    int64_t wall_ms);
/* Text streams in: tokens so far, since the request was sent. */
void progress_chunk(struct progress *progress, const char *sub, int64_t attempt, int64_t tokens,
                    double elapsed_ms);
/* A sentence for the person; stays above the rows. */
void progress_note(struct progress *progress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Draws the rows again where they are live; call it about ten times a second. */
void progress_draw(struct progress *progress, int64_t wall_ms);
/* With fd -1: what has been written so far. */
const struct buf *progress_out(const struct progress *progress);

#endif
