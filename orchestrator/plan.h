/* A plan: the DAG of subtasks that a planner model or a person wrote, checked. */
#ifndef ORCHESTRATOR_PLAN_H
#define ORCHESTRATOR_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/json.h"
#include "common/queue.h"

/* What a subtask of a file says itself; else its role counts. */
struct plan_settings {
    double temperature; /* -1: the role's */
    int64_t max_tokens; /* 0: the role's */
    int64_t seed;       /* -1: the role's */
    char **stop;        /* n_stop 0: the role's */
    size_t n_stop;
    char *effort; /* NULL: the role's */
    char *cache;  /* auto, on, off; NULL: the role's */
};

struct plan_subtask {
    char *id, *title, *role, *model, *prompt; /* role and model may be ""; never NULL */
    char **deps;
    size_t n_deps;
    bool embed;   /* its prompt becomes a vector: the model makes embeddings */
    char *images; /* JSON array as in the record `work`; NULL: none */
    struct plan_settings settings;
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
/* Turns every subtask into one whose prompt becomes a vector, by the model that it names, those of
 * its role that may make embeddings, or else the first that does; nothing is synthesized. 0;
 * -EINVAL: there is no such model. */
int plan_embed(struct plan *plan, const struct config *config, struct err *err);
void plan_free(struct plan **plan); /* accepts NULL */

/* The nodes of a plan, with roles resolved from the config: `work` and `meta` records encoded. When
 * the plan synthesizes and has more than one subtask, a last node "_synthesis" depends on all
 * leaves but those that make vectors. */
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
/* One node "main" with a question of the system's own to one arm: no role's prompt or settings, no
 * cache, one attempt. */
struct plan_question {
    const char *kind; /* run, embed, list */
    const char *title, *arm, *prompt;
    int64_t max_tokens; /* 0: no limit */
};
int plan_to_question_node(struct plan_nodes *ret, const struct config *config,
                          const struct plan_question *question, struct err *err);
void plan_nodes_release(struct plan_nodes *nodes);

/* What a submitter asks of all subtasks of a task, whoever plans them: wins over roles and plans.
 * All zero asks for nothing. */
struct plan_overrides {
    bool no_cache; /* every call is made */
    bool offline;  /* local arms only */
    bool has_seed;
    int64_t seed;
    const char *effort; /* of reasoning; NULL or "": as roles and plans say. Borrowed */
    /* Only of the nodes at hand, not of those that are planned later: planner and subtasks of kind
     * run get them. plan_images_take(); NULL or "": none. Borrowed */
    const char *images;
};
/* Changes the records of the nodes. 0; -EINVAL, -E2BIG with a sentence, and the nodes are still to
 * be released. */
int plan_overrides_apply(struct plan_nodes *nodes, const struct plan_overrides *overrides,
                         struct err *err);
/* As PLAN_INFO_OVERRIDES of a task's info: what nodes that are planned later must know. A new
 * reference. */
json_t *plan_overrides_json(const struct plan_overrides *overrides);
/* Reads it back from the info; effort is borrowed from it. */
struct plan_overrides plan_overrides_of(const json_t *info);
/* For an option: -EINVAL with a sentence when it is none of CONFIG_EFFORTS. */
int plan_check_effort(const char *effort, struct err *err);

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
#define PLAN_INFO_OVERRIDES "overrides"   /* plan_overrides_json(); nothing when missing */

#endif
