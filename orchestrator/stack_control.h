/* The supervisor's control socket: one line asks, one line answers, then it is closed.
 *
 *   status      -> the JSON object of stack_status()
 *   ready       -> "ready" or the error sentence, once it is known
 *   stop MS     -> begins to end; the connection closes when the supervisor is gone */
#ifndef ORCHESTRATOR_STACK_CONTROL_H
#define ORCHESTRATOR_STACK_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"
#include "schemas/buf.h"

struct stack_control;

struct stack_control_events {
    void (*status)(void *ctx, struct buf *out);
    void (*stop)(void *ctx, int64_t drain_ms);
};

/* Replaces a stale socket: call it only with the lock of the home. 0 or negative errno. */
int stack_control_open(struct stack_control **ret, uv_loop_t *loop, const char *path,
                       const struct stack_control_events *events, void *ctx, struct err *err);
/* Answers all that wait for `ready`, now and from now on. */
void stack_control_ready(struct stack_control *control, const char *answer);
void stack_control_close(struct stack_control **control); /* removes the socket; accepts NULL */

/* The other side: sends a line and appends the answer until the connection ends. 0; -ESRCH when
 * nobody listens; -ETIMEDOUT; -ECONNRESET when there is no answer (a supervisor that ends). */
int stack_control_ask(const char *path, const char *line, int64_t timeout_ms, struct buf *answer);

#endif
