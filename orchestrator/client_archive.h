/* Finished tasks that Redis no longer has: read from the profile store. */
#ifndef ORCHESTRATOR_CLIENT_ARCHIVE_H
#define ORCHESTRATOR_CLIENT_ARCHIVE_H

#include "common/config.h"
#include "common/err.h"
#include "common/json.h"

/* 0; -ENOENT when the archive has no such task or there is no archive on this machine; another
 * negative errno with a sentence. */
int client_archive_task(const struct config *config, const char *id, json_t **ret, struct err *err);
/* An array as client_list() makes, of at most `limit`; empty where there is no archive. */
json_t *client_archive_list(const struct config *config, int64_t limit);

#endif
