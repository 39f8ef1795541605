/* Any bytes are a plan or an error with a sentence, as a person's file (first byte f) or as a
 * planner's answer; a plan becomes records that decode. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/task_id.h"
#include "orchestrator/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config_role roles[] = {
    {.name = "planner", .system = "", .temperature = 0.2, .max_tokens = 4096},
    {.name = "synthesizer", .system = "", .temperature = -1},
    {.name = "writer", .system = "You write.", .temperature = -1},
};
static struct config_model models[] = {{.alias = "sonnet"}};
static struct config config = {.path = "fuzz.yaml",
                               .max_subtasks = 20,
                               .max_attempts = 3,
                               .roles = roles,
                               .n_roles = sizeof roles / sizeof *roles,
                               .models = models,
                               .n_models = sizeof models / sizeof *models};

static void check_node(const struct queue_node *node)
{
    struct message message;
    if (message_decode_as(&message, MESSAGE_work, node->work.data, node->work.len) != 0)
        abort();
    if (message.work.n_dep_ids != node->n_deps)
        abort();
    message_release(&message);
    if (message_decode_as(&message, MESSAGE_meta, node->meta.data, node->meta.len) != 0)
        abort();
    message_release(&message);
    if (!sub_id_valid(node->id))
        abort();
}

static void check(const struct plan *plan)
{
    struct plan_nodes nodes = {0};
    struct plan_overrides overrides = {.no_cache = true, .has_seed = true, .seed = 7};
    struct err err = {""};
    if (plan->n_subtasks == 0 || plan->n_subtasks > (size_t)config.max_subtasks)
        abort();
    int rc = plan_to_nodes(&nodes, plan, &config, "the task", &err);
    if (rc == 0)
        rc = plan_overrides_apply(&nodes, &overrides, &err);
    for (size_t i = 0; i < nodes.n_nodes && rc == 0; i++)
        check_node(&nodes.nodes[i]);
    if (rc != 0 && err.text[0] == '\0')
        abort();
    plan_nodes_release(&nodes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plan *plan = NULL;
    struct err err = {""};
    if (size == 0)
        return 0;
    char *copy = malloc(size); /* an exact end, for the sanitizer */
    memcpy(copy, data + 1, size - 1);
    int rc = data[0] == 'f' ? plan_parse_file(&plan, &config, "p.yaml", copy, size - 1, &err)
                            : plan_parse_answer(&plan, &config, copy, size - 1, &err);
    free(copy);
    if ((rc == 0) != (plan != NULL) || (rc != 0) != (err.text[0] != '\0'))
        abort();
    if (plan != NULL)
        check(plan);
    plan_free(&plan);
    return 0;
}
