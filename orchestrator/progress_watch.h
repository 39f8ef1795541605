/* Follows one task until it has ended, and shows its progress. */
#ifndef ORCHESTRATOR_PROGRESS_WATCH_H
#define ORCHESTRATOR_PROGRESS_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "orchestrator/client.h"

struct watch_options {
    bool quiet;       /* no progress; what matters is said all the same */
    bool cancels;     /* the first Ctrl-C cancels the task; else it only ends the watching */
    int64_t until_ms; /* monotonic clock; 0: no limit */
};

/* EXIT_DONE when the task has ended, however: *ret is its object (see task_json.h), the caller
 * json_decref()s it. EXIT_STOPPED when time ran out or a signal came; else what went wrong.
 * Everything but EXIT_DONE has been printed, and the task is left as it is. */
int watch_task(struct client *client, const struct invocation *invocation, const char *task,
               const struct watch_options *options, json_t **ret);

#endif
