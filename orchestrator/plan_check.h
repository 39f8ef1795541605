/* What a plan must be, whoever wrote it: complete, acyclic, of known roles, within limits. */
#ifndef ORCHESTRATOR_PLAN_CHECK_H
#define ORCHESTRATOR_PLAN_CHECK_H

#include "common/config.h"
#include "common/err.h"
#include "common/yaml.h"
#include "orchestrator/plan.h"

/* Where the subtasks of a file stand, for errors. All NULL for a model's answer. */
struct plan_source {
    const struct yaml *yaml;
    const struct yaml_node **at; /* by index of the subtask */
};

#define PLAN_FILE_MAX 10000  /* subtasks of a person's file */
#define PLAN_ANSWER_DEPTH 64 /* longest chain in a model's answer: deeper is a loop of thought */

/* Checks count, ids (unique; in files also their characters), prompts, roles and models, and that
 * dependencies exist and form no cycle. In answers an unknown role is replaced. 0 or -EINVAL. */
int plan_check(struct plan *plan, const struct config *config, const struct plan_source *source,
               struct err *err);
/* Reads what a subtask of a file says besides text, role and dependencies: kind, images, settings.
 * folder: of relative images; NULL: the working directory. 0 or -EINVAL with its place. */
extern const char *const plan_subtask_keys[]; /* all that a subtask may have */
int plan_settings_read(struct plan_subtask *ret, const struct yaml *yaml,
                       const struct yaml_node *node, const char *folder, struct err *err);
void plan_settings_release(struct plan_settings *settings);
#define PLAN_SETTINGS_NONE                                                                         \
    {                                                                                              \
        .temperature = -1, .seed = -1                                                              \
    }
/* A model for vectors: the one that the subtask names, else the first of the config that makes
 * them, which becomes its model. 0 or -EINVAL with the reason. */
int plan_settings_embed(struct plan_subtask *subtask, const struct config *config, struct err *err);

/* Drops repeated dependencies of one subtask. */
void plan_dedupe_deps(struct plan_subtask *subtask);

/* The role of a subtask that names none. */
const struct config_role *plan_default_role(const struct config *config);
/* Whether a planner may give work to the role: planner and synthesizer are the system's own. */
bool plan_role_assignable(const char *role);
/* -EINVAL with the nearest name when there is no such role or model; NULL and "" are fine. */
int plan_check_role(const struct config *config, const char *role, struct err *err);
int plan_check_model(const struct config *config, const char *model, struct err *err);

#endif
