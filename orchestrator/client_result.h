/* What a finished task is handed over as: the result on stdout, its files below a directory, the
 * rest on stderr. */
#ifndef ORCHESTRATOR_CLIENT_RESULT_H
#define ORCHESTRATOR_CLIENT_RESULT_H

#include <stdbool.h>

#include "common/json.h"
#include "orchestrator/command.h"

struct client_delivery {
    const char *out; /* directory; NULL: files are not written */
    bool force;      /* replace files that exist */
    bool lines;      /* with json: the object in one line, because there are several */
    bool json;       /* one object on stdout instead of the text */
    bool quiet;      /* nothing on stderr but what went wrong */
    bool timing;     /* the timing table */
    bool simulated;
};

/* Adds files, files_skipped, out and simulated to the task's object and prints. Returns the exit
 * code: that of the task; EXIT_FAILED when a file could not be written. */
int client_deliver(const struct invocation *invocation, json_t *task,
                   const struct client_delivery *delivery);
/* Fills `files` and `files_skipped` of the object with what its outputs hold; nothing is written.
 */
void client_list_files(json_t *task);
/* Says on stderr that nothing real answers. */
void client_announce_simulator(void);

#endif
