/* The texts that planner and synthesizer are asked with. */
#ifndef ORCHESTRATOR_PROMPT_H
#define ORCHESTRATOR_PROMPT_H

#include "common/config.h"
#include "orchestrator/plan.h"
#include "schemas/buf.h"

/* System prompt of the planner: how to decompose, which roles there are, which JSON to answer. */
void prompt_planner_system(const struct config *config, struct buf *out);
/* JSON schema of a plan, strict: all members required, no others. */
void prompt_plan_schema(const struct config *config, struct buf *out);
/* What the planner is asked when its previous answer (which the worker adds) was no plan. */
void prompt_repair(const char *task_text, const char *complaint, struct buf *out);

void prompt_synthesizer_system(const struct config *config, struct buf *out);
/* What the synthesizer is asked: the outline of the plan; task and results are added by the
 * worker. */
void prompt_synthesis(const struct plan *plan, struct buf *out);

/* The first line of a text, shortened to a title of at most 80 characters. Caller frees. */
char *prompt_title(const char *text);
/* len, or less, such that text[0..len) ends between characters and has at most `most` bytes. */
size_t prompt_cut(const char *text, size_t len, size_t most);

#endif
