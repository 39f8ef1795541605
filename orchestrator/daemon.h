/* `orchestrator serve`: follows the queue's outboxes, offers what is ready, expands plans, keeps
 * profiles, archives what is finished. */
#ifndef ORCHESTRATOR_DAEMON_H
#define ORCHESTRATOR_DAEMON_H

#include "common/config.h"

/* Runs until SIGTERM or SIGINT; returns an exit code. name: NULL for the host's. ready_fd: -1, or
 * where "ready\n" is written once the daemon leads and follows, or stands by for one that does; a
 * sentence instead when Redis cannot be reached at first. Of several daemons one is active; the
 * others take over within 5 s of its end. */
int daemon_run(const struct config *config, const char *name, int ready_fd);

#endif
