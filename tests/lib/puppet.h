/* A worker inside of the test: it claims and commits at once whatever is dispatched to it, and
 * remembers what it was given. A planner's subtask gets a plan of three subtasks. */
#ifndef TESTS_LIB_PUPPET_H
#define TESTS_LIB_PUPPET_H

#include "common/config.h"
#include "common/peer.h"
#include "common/queue.h"

struct puppet;

/* Serves arm `m@p` of provider `p`. All are borrowed. */
struct puppet *puppet_new(uv_loop_t *loop, const struct config *config, struct queue *queue);
void puppet_free(struct puppet **puppet);

struct puppet_counts {
    size_t subtasks;   /* different ones that were dispatched */
    size_t dispatches; /* of all of them */
    size_t committed;  /* commits that were OK */
    size_t twice;      /* subtasks of which more than one commit was OK */
};
struct puppet_counts puppet_counts(const struct puppet *puppet);

#endif
