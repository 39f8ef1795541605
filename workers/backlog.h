/* Dispatches that wait in the worker: for a free place, or for the provider's limits. */
#ifndef WORKERS_BACKLOG_H
#define WORKERS_BACKLOG_H

#include <stddef.h>

#include "common/task_id.h"
#include "workers/arms.h"

struct backlog_item {
    char task[TASK_ID_SIZE];
    char sub[SUB_ID_MAX + 1];
    const struct arm *arm; /* borrowed */
    int broker;
};

struct backlog;

struct backlog *backlog_new(void);
void backlog_free(struct backlog **backlog); /* accepts NULL */
size_t backlog_size(const struct backlog *backlog);
/* task and sub must be valid ids. */
void backlog_push(struct backlog *backlog, const char *task, const char *sub, const struct arm *arm,
                  int broker);
/* The oldest one; false when there is none. */
bool backlog_pop(struct backlog *backlog, struct backlog_item *ret);
/* Takes out the first one of the task (sub "": any of its subtasks); false when there is none. */
bool backlog_remove(struct backlog *backlog, const char *task, const char *sub,
                    struct backlog_item *ret);

#endif
