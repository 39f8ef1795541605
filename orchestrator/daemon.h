/* `orchestrator serve`: follows the queue's outboxes, offers what is ready, expands plans, keeps
 * profiles, archives what is finished. */
#ifndef ORCHESTRATOR_DAEMON_H
#define ORCHESTRATOR_DAEMON_H

#include "common/config.h"

/* Runs until SIGTERM or SIGINT; returns an exit code. name: NULL for the host's. ready_fd: -1, or
 * where "ready\n" is written once the daemon has its share of the shards, or others have them all;
 * a sentence instead when Redis cannot be reached at first. Several daemons share the shards. */
int daemon_run(const struct config *config, const char *name, int ready_fd);

#endif
