/* What most commands need: configuration, loop and queue, opened and closed together. */
#ifndef ORCHESTRATOR_CLIENT_H
#define ORCHESTRATOR_CLIENT_H

#include "common/config.h"
#include "common/loop.h"
#include "common/queue.h"
#include "orchestrator/command.h"

struct client {
    uv_loop_t loop;
    struct config *config;
    struct queue *queue; /* NULL before client_connect() */
};

/* Reads the configuration; an error is printed. Returns EXIT_DONE or the exit code. */
int client_open(struct client *client, const struct invocation *invocation);
/* Connects to Redis and waits until it answers, at most timeout_ms. With start_stack, a configured
 * local stack that does not run is started first. Errors are printed. */
int client_connect(struct client *client, const struct invocation *invocation, bool start_stack);
void client_close(struct client *client); /* accepts one that was only partly opened */

#endif
