/* `orchestrator serve`: follows the queue's outboxes, offers what is ready, expands plans, keeps
 * profiles, archives what is finished. */
#ifndef ORCHESTRATOR_DAEMON_H
#define ORCHESTRATOR_DAEMON_H

#include "common/config.h"

/* Runs until SIGTERM or SIGINT; returns an exit code. ready_fd: -1, or where "ready\n" is written
 * once the daemon leads and follows. */
int daemon_run(const struct config *config, const char *name, int ready_fd);

#endif
