/* A task for people, from its object (task_json.h): timing table, reasons of failure, summary. */
#ifndef ORCHESTRATOR_RENDER_TASK_H
#define ORCHESTRATOR_RENDER_TASK_H

#include <stdio.h>

#include "common/json.h"

/* subtask, role, arm, queue, ttft, total, tok/s, tokens, cost; then the sums. */
void render_task_timing(const json_t *task, FILE *stream);
/* Which subtasks failed, of which class, why, and what to do. */
void render_task_failure(const json_t *task, FILE *stream);
/* Head, subtasks with states, errors: `show`. */
void render_task_summary(const json_t *task, FILE *stream);
/* The exit code that a task's state stands for; EXIT_DONE while it runs. */
int render_task_exit(const json_t *task);

#endif
