/* The local stack: redis-server, broker, workers, daemon (and simulator), started, supervised and
 * ended together by `orchestrator up`. */
#ifndef ORCHESTRATOR_STACK_H
#define ORCHESTRATOR_STACK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "schemas/buf.h"

#define STACK_DRAIN_MS 30000 /* what `down` grants running subtasks */

/* Whether a supervisor answers on home/run/stack.sock. */
bool stack_running(const struct config *config);
/* Runs the supervisor in the foreground until it is told to stop; returns an exit code. ready_fd:
 * -1, or where lines are written: "warning: ..." for a worker that does not get ready, and last
 * "ready" once everything answers, "running" when another supervisor has this home, else the error
 * sentence. */
int stack_run(const struct config *config, int ready_fd);
/* Starts the supervisor in the background and waits until everything is ready. Fine when it runs
 * already, also when two start at once. 0, -ETIMEDOUT, or what the supervisor reported. */
int stack_start(const struct config *config, int64_t timeout_ms, struct err *err);
/* Drains (workers finish what runs, at most drain_ms), ends everything, waits for it. -ESRCH: none
 * runs. */
int stack_stop(const struct config *config, int64_t drain_ms, struct err *err);
/* Appends one JSON object: pid, state (starting, ready, stopping), home, simulated, and processes:
 * name, kind, pid, state (starting, ready, waiting, ended), restarts, uptime_ms, log. -ESRCH: none
 * runs. */
int stack_status(const struct config *config, struct buf *out, struct err *err);
/* Whether sockets below the home can have names at all. 0 or -ENAMETOOLONG. */
int stack_check_home(const char *home, struct err *err);

#endif
