/* The local stack: redis-server, broker, workers, daemon (and simulator), started, supervised and
 * ended together by `orchestrator up`. */
#ifndef ORCHESTRATOR_STACK_H
#define ORCHESTRATOR_STACK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"

/* Whether a supervisor answers on home/run/stack.sock. */
bool stack_running(const struct config *config);
/* Runs the supervisor in the foreground until it is told to stop; returns an exit code. ready_fd:
 * -1, or where one line is written: "ready" once everything answers, else the error sentence. */
int stack_run(const struct config *config, int ready_fd);
/* Starts the supervisor in the background and waits until everything is ready. Fine when it runs
 * already, also when two start at once. 0, -ETIMEDOUT, or what the supervisor reported. */
int stack_start(const struct config *config, int64_t timeout_ms, struct err *err);
/* Drains (workers finish what runs, at most drain_ms), ends everything, waits for it. -ESRCH: none
 * runs. */
int stack_stop(const struct config *config, int64_t drain_ms, struct err *err);

#endif
