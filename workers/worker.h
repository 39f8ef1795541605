/* The worker process: takes dispatches from brokers and runs them as attempts. */
#ifndef WORKERS_WORKER_H
#define WORKERS_WORKER_H

#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/loop.h"

#define WORKER_DRAIN_MS 30000 /* how long running attempts may take after the signal to stop */

struct worker;

struct worker_options {
    const struct config *config; /* borrowed */
    const char *name;            /* under workers: */
    int ready_fd;                /* told when the worker can serve, then closed; -1: nobody */
    int64_t drain_ms;
};

/* Opens everything; the loop then does the work. 0 or a negative errno with a sentence. */
int worker_open(struct worker **ret, uv_loop_t *loop, const struct worker_options *options,
                struct err *err);
/* Stop taking work, finish what runs within drain_ms, then stop the loop. Called again: fail what
 * runs, so that others do it at once. */
void worker_stop(struct worker *worker);
/* Why it stopped by itself: "" when it was told to. */
const char *worker_failure(const struct worker *worker);
/* Frees it. Accepts NULL; the loop must run once more (loop_finish()). */
void worker_close(struct worker **worker);

#endif
