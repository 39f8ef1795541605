/* Keys of workers that run where the brokers' keys are: made here, allowed by a file beside them
 * (keyring.h). Workers elsewhere are invited. */
#ifndef ORCHESTRATOR_KEY_FILES_H
#define ORCHESTRATOR_KEY_FILES_H

#include <stdbool.h>

#include "common/config.h"
#include "common/err.h"

/* Makes worker-NAME.key and .pub where they are missing, and allow/worker-NAME.pub where the
 * brokers' secret key is, too. 0 or a negative errno with a sentence. */
int key_files_worker(const char *dir, const char *name, struct err *err);
/* The keys of brokers, orchestrator and all workers of the local stack, where they are missing. */
int key_files_stack(const struct config *config, struct err *err);
/* Removes what lets ROLE-NAME in. Whether there was something. */
bool key_files_forbid(const char *dir, const char *name);

#endif
