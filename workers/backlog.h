/* Dispatches that wait in the worker: for a free place, then for the provider's limits to let them
 * start. What would have to wait for long goes back, so that another arm can take it. */
#ifndef WORKERS_BACKLOG_H
#define WORKERS_BACKLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/governor.h"
#include "common/loop.h"
#include "workers/dispatch.h"

#define BACKLOG_WAIT_MS 250 /* how long a dispatch may wait for the limits */

struct backlog;

struct backlog_options {
    uv_loop_t *loop;           /* borrowed */
    struct governor *governor; /* borrowed */
    /* Whether one more may start while permits are asked for `asking` others. */
    bool (*has_place)(void *ctx, size_t asking);
    /* Its permit is there: it is to be claimed at once. permit: valid during the call. */
    void (*start)(void *ctx, const struct dispatch *dispatch, const struct governor_permit *permit);
    /* It is not to be run now; its arm may be tried again after so long. */
    void (*decline)(void *ctx, const struct dispatch *dispatch, int64_t after_ms,
                    const char *reason);
    void *ctx;
};

struct backlog *backlog_new(const struct backlog_options *options);
void backlog_free(struct backlog **backlog); /* accepts NULL; before the governor's end */
size_t backlog_size(const struct backlog *backlog);
/* Copied. backlog_pump() starts it, or declines it. */
void backlog_push(struct backlog *backlog, const struct dispatch *dispatch);
/* Starts what waits, oldest first, as far as there are places and permits. To be called when there
 * may be more of either. */
void backlog_pump(struct backlog *backlog);
/* Takes out the first one of the task (sub "": any of its subtasks; task "": any); false when there
 * is none. */
bool backlog_remove(struct backlog *backlog, const char *task, const char *sub,
                    struct dispatch *ret);

#endif
