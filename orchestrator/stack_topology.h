/* Which processes a configuration makes, and how each is called. */
#ifndef ORCHESTRATOR_STACK_TOPOLOGY_H
#define ORCHESTRATOR_STACK_TOPOLOGY_H

#include "common/config.h"
#include "orchestrator/stack_child.h"

/* Calls add for each process in the order of starting. Borrowed options; argv is handed over.
 * lock_fd: kept open by redis-server. */
typedef void stack_topology_fn(void *ctx, const struct stack_child_options *options);
void stack_topology(const struct config *config, int lock_fd, stack_topology_fn *add, void *ctx);

/* Path of one of our programs, which lie side by side; caller frees. */
char *stack_program(const char *name);

#endif
