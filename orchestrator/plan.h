/* A plan: the DAG of subtasks that a planner model or a person wrote, checked. */
#ifndef ORCHESTRATOR_PLAN_H
#define ORCHESTRATOR_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/err.h"
#include "common/queue.h"

struct plan_subtask {
    char *id, *title, *role, *model, *prompt; /* role and model may be ""; never NULL */
    char **deps;
    size_t n_deps;
};

struct plan {
    char *title; /* may be "" */
    bool synthesize;
    struct plan_subtask *subtasks;
    size_t n_subtasks;
};

/* From a person's file (YAML or JSON). name appears in errors with line and column. Checks ids,
 * unknown keys, roles and models against the config, missing and cyclic dependencies (names the
 * cycle), size (config max_subtasks). */
int plan_parse_file(struct plan **ret, const struct config *config, const char *name,
                    const char *text, size_t len, struct err *err);
/* From a model's answer: the same, but a JSON object anywhere in the text is found (code fences
 * too), and an unknown role becomes the default role. */
int plan_parse_answer(struct plan **ret, const struct config *config, const char *text, size_t len,
                      struct err *err);
/* One subtask with that text; role may be NULL (the default role), model may be NULL. */
int plan_single(struct plan **ret, const struct config *config, const char *text, const char *role,
                const char *model, struct err *err);
void plan_free(struct plan **plan); /* accepts NULL */

/* The nodes of a plan, with roles resolved from the config: `work` and `meta` records encoded. When
 * the plan synthesizes and has more than one subtask, a last node "_synthesis" depends on all
 * leaves... */
struct plan_nodes {
    struct queue_node *nodes;
    size_t n_nodes;
};
int plan_to_nodes(struct plan_nodes *ret, const struct plan *plan, const struct config *config,
                  const char *task_text, struct err *err);
/* The one node "_plan" (expands) that asks the planner to decompose the text. complaint: NULL, or
 * why the answer of `previous` (a node id) was no plan: then the node is "_plan2", depends on it
 * and asks for repair. */
int plan_to_planner_nodes(struct plan_nodes *ret, const struct config *config,
                          const char *task_text, const char *previous, const char *complaint,
                          struct err *err);
void plan_nodes_release(struct plan_nodes *nodes);

#define PLAN_NODE "_plan"
#define PLAN_REPAIR_NODE "_plan2"
#define PLAN_SYNTHESIS_NODE "_synthesis"

/* Members of the JSON object stored as the task's `info`. The daemon reads these when it
 * expands a plan; the CLI may add members of its own. */
#define PLAN_INFO_TEXT "text"             /* what the user asked for */
#define PLAN_INFO_PLANNED "planned"       /* bool: a planner decomposes it */
#define PLAN_INFO_ROLE "role"             /* --role; missing or "": the default role */
#define PLAN_INFO_MODEL "model"           /* --model; missing or "": by role */
#define PLAN_INFO_SYNTHESIZE "synthesize" /* bool, true when missing */
#define PLAN_INFO_PRIORITY "priority"     /* of every subtask; 0 when missing */

#endif
