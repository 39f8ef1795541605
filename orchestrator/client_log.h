/* A task's log as it is now, for `show --log`. */
#ifndef ORCHESTRATOR_CLIENT_LOG_H
#define ORCHESTRATOR_CLIENT_LOG_H

#include <stdio.h>

#include "orchestrator/client.h"

/* task: its object, as client_task() gave it. *ret: an array of {ts, what, sub, worker, arm,
 * attempt, error_class, text}; empty when the task has no log (any more). Returns an exit code;
 * what goes wrong has been printed. */
int client_log_read(struct client *client, const struct invocation *invocation, const json_t *task,
                    json_t **ret);
/* The lines of such an array; nothing for NULL. */
void client_log_print(const json_t *log, FILE *stream);

#endif
