/* A task as the one JSON object that `submit --json` and `show --json` print and the archive
 * keeps. */
#ifndef ORCHESTRATOR_TASK_JSON_H
#define ORCHESTRATOR_TASK_JSON_H

#include "common/json.h"
#include "common/queue.h"

/* A new reference; never NULL. The fields:
 *   task_id, title, state, text, result, error, files, created_ms, finished_ms, wall_ms, cost_usd,
 *   prompt_tokens, output_tokens, subtasks
 * and of each subtask: id, title, kind, role, state, depends_on, provider, model, served_model,
 *   worker, arm, attempts, queue_ms, ttft_ms, load_ms, prompt_ms, generate_ms, total_ms,
 *   prompt_tokens, output_tokens, cost_usd, finish, output, error, error_class
 * What is unknown is null. States are spelled as in the queue ("DONE"). `result` is null until the
 * task is DONE: then the synthesis, else what the last subtasks returned, under headings when there
 * are several. `files` is an empty array: who writes files fills it. Times are milliseconds. */
json_t *task_json(const struct queue_task_view *view);

/* Text as a JSON string; what is no UTF-8 becomes U+FFFD. A new reference. */
json_t *task_json_text(const char *text, size_t len);
/* As printed and archived: one object, indented or in one line. Caller frees. */
char *task_json_dump(const json_t *task, bool indent);

#endif
