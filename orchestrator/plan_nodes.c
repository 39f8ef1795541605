/* From a plan to the nodes that the queue stores: roles resolved, records encoded. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "orchestrator/plan.h"
#include "orchestrator/plan_check.h"
#include "orchestrator/prompt.h"
#include "schemas/mem.h"

#define TITLE_MAX_BYTES 256 /* of the records */

/* What one node is made from; all borrowed. */
struct node_source {
    const char *id, *kind, *title, *role, *model;
    const char *system, *prompt, *task_text, *json_schema;
    const char *const *dep_ids, *const *dep_titles;
    size_t n_deps;
    const struct plan_settings *settings; /* NULL: the role's */
    const char *images;                   /* NULL: none */
    const struct config_role *as;         /* NULL: the role of that name */
    bool expands;
};

static struct bytes text_bytes(const char *text)
{
    return (struct bytes){text, strlen(text)};
}

static int encode(struct bytes *ret, const struct message *message, const char *id, struct err *err)
{
    struct buf out = {0};
    int rc = message_encode(message, &out);
    size_t len = 0;
    if (rc == -E2BIG)
        err_set(err, rc, "subtask `%s` is too large: its prompt may have at most 16 MiB", id);
    else if (rc != 0)
        err_set(err, rc, "subtask `%s` cannot be encoded: %s", id, strerror(-rc));
    if (rc == 0)
        ret->data = buf_take(&out, &len);
    ret->len = len;
    buf_release(&out);
    return rc;
}

/* `auto`, which is where temperature is 0, is an empty word to the workers. */
static const char *cache_word(const struct config *config, const char *cache)
{
    if (!config->cache)
        return "off";
    return cache == NULL || strcmp(cache, "auto") == 0 ? "" : cache;
}

/* What the role says, and the subtask itself instead. */
static void set_settings(struct msg_work *work, const struct config *config,
                         const struct config_role *role, const struct plan_settings *own)
{
    bool seeds = own != NULL && own->seed >= 0, stops = own != NULL && own->n_stop > 0;
    const char *effort = own != NULL && own->effort != NULL ? own->effort : role->effort;
    work->temperature = own != NULL && own->temperature >= 0 ? own->temperature : role->temperature;
    work->max_tokens = own != NULL && own->max_tokens > 0 ? own->max_tokens : role->max_tokens;
    work->seed = seeds ? own->seed : role->seed;
    work->has_seed = work->seed >= 0;
    work->stop = (const char **)(stops ? own->stop : role->stop);
    work->n_stop = stops ? own->n_stop : role->n_stop;
    work->effort = effort != NULL ? effort : "";
    work->cache = cache_word(config, own != NULL && own->cache != NULL ? own->cache : role->cache);
}

#define TOKEN_BYTES 4 /* of usual text, about */

static int encode_records(struct queue_node *node, const struct config *config,
                          const struct node_source *source, const struct config_role *role,
                          struct err *err)
{
    char title[TITLE_MAX_BYTES + 1];
    size_t len = prompt_cut(source->title, strlen(source->title), TITLE_MAX_BYTES);
    memcpy(title, source->title, len);
    title[len] = '\0';
    struct message work = {.type = MESSAGE_work};
    work.work = (struct msg_work){
        .kind = source->kind,
        .title = title,
        .role = source->role,
        .model = source->model,
        .system = text_bytes(source->system),
        .prompt = text_bytes(source->prompt),
        .task_text = text_bytes(source->task_text),
        .json_schema = text_bytes(source->json_schema),
        .dep_ids = (const char **)(uintptr_t)source->dep_ids,
        .n_dep_ids = source->n_deps,
        .dep_titles = (const char **)(uintptr_t)source->dep_titles,
        .n_dep_titles = source->n_deps,
        .images = text_bytes(source->images != NULL ? source->images : ""),
    };
    set_settings(&work.work, config, role, source->settings);
    size_t bytes = work.work.system.len + work.work.prompt.len + work.work.task_text.len;
    struct message meta = {.type = MESSAGE_meta};
    meta.meta =
        (struct msg_meta){.kind = source->kind,
                          .role = source->role,
                          .model = source->model,
                          .title = title,
                          .offline = config->offline,
                          .images = work.work.images.len > 0,
                          .prompt_tokens = (int64_t)((bytes + TOKEN_BYTES - 1) / TOKEN_BYTES)};
    int rc = encode(&node->work, &work, source->id, err);
    return rc != 0 ? rc : encode(&node->meta, &meta, source->id, err);
}

static int add_node(struct plan_nodes *nodes, const struct config *config,
                    const struct node_source *source, struct err *err)
{
    struct queue_node *node = &nodes->nodes[nodes->n_nodes++];
    const struct config_role *role =
        source->as != NULL ? source->as : config_role(config, source->role);
    if (role == NULL)
        role = plan_default_role(config);
    const char **deps = mem_must_zalloc((source->n_deps + 1) * sizeof *deps);
    for (size_t i = 0; i < source->n_deps; i++)
        deps[i] = mem_must_strdup(source->dep_ids[i]);
    *node = (struct queue_node){
        .id = mem_must_strdup(source->id),
        .deps = deps,
        .n_deps = source->n_deps,
        .max_attempts = config->max_attempts,
        .expands = source->expands,
    };
    return encode_records(node, config, source, role, err);
}

void plan_nodes_release(struct plan_nodes *nodes)
{
    for (size_t i = 0; i < nodes->n_nodes; i++) {
        struct queue_node *node = &nodes->nodes[i];
        for (size_t j = 0; j < node->n_deps; j++)
            free((void *)(uintptr_t)node->deps[j]);
        free((void *)(uintptr_t)node->deps);
        free((void *)(uintptr_t)node->id);
        free((void *)(uintptr_t)node->work.data);
        free((void *)(uintptr_t)node->meta.data);
    }
    free(nodes->nodes);
    *nodes = (struct plan_nodes){0};
}

/* The titles of subtasks by their ids. */
struct title_entry {
    const struct plan_subtask *subtask;
    bool has_dependents;
    UT_hash_handle hh;
};

struct titles {
    struct title_entry *entries, *by_id;
};

static void titles_init(struct titles *titles, const struct plan *plan)
{
    *titles = (struct titles){
        .entries = mem_must_zalloc((plan->n_subtasks + 1) * sizeof *titles->entries)};
    for (size_t i = 0; i < plan->n_subtasks; i++) {
        struct title_entry *entry = &titles->entries[i];
        entry->subtask = &plan->subtasks[i];
        HASH_ADD_KEYPTR(hh, titles->by_id, plan->subtasks[i].id, strlen(plan->subtasks[i].id),
                        entry);
    }
}

static void titles_release(struct titles *titles)
{
    HASH_CLEAR(hh, titles->by_id);
    free(titles->entries);
}

static int add_subtask(struct plan_nodes *nodes, const struct config *config,
                       const struct plan_subtask *subtask, const struct titles *titles,
                       struct err *err)
{
    const struct config_role *role = config_role(config, subtask->role);
    if (role == NULL)
        role = plan_default_role(config);
    const char **dep_titles = mem_must_zalloc((subtask->n_deps + 1) * sizeof *dep_titles);
    for (size_t i = 0; i < subtask->n_deps; i++) {
        struct title_entry *entry;
        HASH_FIND_STR(titles->by_id, subtask->deps[i], entry);
        dep_titles[i] = entry != NULL ? entry->subtask->title : "";
        if (entry != NULL)
            entry->has_dependents = true;
    }
    struct node_source source = {.id = subtask->id,
                                 .kind = subtask->embed ? "embed" : "run",
                                 .title = subtask->title,
                                 .role = role->name,
                                 .model = subtask->model,
                                 .system = subtask->embed ? "" : role->system,
                                 .prompt = subtask->prompt,
                                 .settings = &subtask->settings,
                                 .images = subtask->images,
                                 .task_text = "",
                                 .json_schema = "",
                                 .dep_ids = (const char *const *)subtask->deps,
                                 .dep_titles = dep_titles,
                                 .n_deps = subtask->n_deps};
    int rc = add_node(nodes, config, &source, err);
    free(dep_titles);
    return rc;
}

static int add_synthesis(struct plan_nodes *nodes, const struct plan *plan,
                         const struct config *config, const struct titles *titles,
                         const char *task_text, struct err *err)
{
    const char **ids = mem_must_zalloc((plan->n_subtasks + 1) * sizeof *ids);
    const char **names = mem_must_zalloc((plan->n_subtasks + 1) * sizeof *names);
    struct buf system = {0}, prompt = {0};
    struct node_source source = {.id = PLAN_SYNTHESIS_NODE,
                                 .kind = "synthesize",
                                 .title = "Put the results together",
                                 .role = "synthesizer",
                                 .model = "",
                                 .task_text = task_text,
                                 .json_schema = "",
                                 .dep_ids = ids,
                                 .dep_titles = names};
    for (size_t i = 0; i < plan->n_subtasks; i++) {
        if (titles->entries[i].has_dependents || plan->subtasks[i].embed)
            continue; /* a vector says nothing to a model */
        ids[source.n_deps] = plan->subtasks[i].id;
        names[source.n_deps++] = plan->subtasks[i].title;
    }
    prompt_synthesizer_system(config, &system);
    prompt_synthesis(plan, &prompt);
    source.system = system.data;
    source.prompt = prompt.data;
    int rc = 0;
    if (system.failed || prompt.failed)
        rc = err_set(err, -ENOMEM, "memory is out");
    else if (source.n_deps > 0)
        rc = add_node(nodes, config, &source, err);
    buf_release(&system);
    buf_release(&prompt);
    free(ids);
    free(names);
    return rc;
}

int plan_to_nodes(struct plan_nodes *ret, const struct plan *plan, const struct config *config,
                  const char *task_text, struct err *err)
{
    struct plan_nodes nodes = {.nodes =
                                   mem_must_zalloc((plan->n_subtasks + 1) * sizeof *nodes.nodes)};
    struct titles titles;
    int rc = 0;
    titles_init(&titles, plan);
    for (size_t i = 0; i < plan->n_subtasks && rc == 0; i++)
        rc = add_subtask(&nodes, config, &plan->subtasks[i], &titles, err);
    if (rc == 0 && plan->synthesize && plan->n_subtasks > 1)
        rc = add_synthesis(&nodes, plan, config, &titles, task_text, err);
    titles_release(&titles);
    if (rc == 0)
        *ret = nodes;
    else
        plan_nodes_release(&nodes);
    return rc;
}

int plan_to_planner_nodes(struct plan_nodes *ret, const struct config *config,
                          const char *task_text, const char *previous, const char *complaint,
                          struct err *err)
{
    struct plan_nodes nodes = {.nodes = mem_must_zalloc(sizeof *nodes.nodes)};
    struct buf system = {0}, prompt = {0}, schema = {0};
    bool repairs = previous != NULL && complaint != NULL;
    static const char *const titles[] = {"The plan that was refused"};
    prompt_planner_system(config, &system);
    prompt_plan_schema(config, &schema);
    if (repairs)
        prompt_repair(task_text, complaint, &prompt);
    else
        buf_add_str(&prompt, task_text);
    struct node_source source = {.id = repairs ? PLAN_REPAIR_NODE : PLAN_NODE,
                                 .kind = "plan",
                                 .title = repairs ? "Repair the plan" : "Plan",
                                 .role = "planner",
                                 .model = "",
                                 .system = system.data,
                                 .prompt = prompt.data,
                                 .task_text = "",
                                 .json_schema = schema.data,
                                 .dep_ids = &previous,
                                 .dep_titles = titles,
                                 .n_deps = repairs,
                                 .expands = true};
    int rc = system.failed || prompt.failed || schema.failed
                 ? err_set(err, -ENOMEM, "memory is out")
                 : add_node(&nodes, config, &source, err);
    buf_release(&system);
    buf_release(&prompt);
    buf_release(&schema);
    if (rc == 0)
        *ret = nodes;
    else
        plan_nodes_release(&nodes);
    return rc;
}

int plan_to_question_node(struct plan_nodes *ret, const struct config *config,
                          const struct plan_question *question, struct err *err)
{
    struct plan_nodes nodes = {.nodes = mem_must_zalloc(sizeof *nodes.nodes)};
    const struct config_role bare = {.temperature = -1,
                                     .max_tokens = question->max_tokens,
                                     .seed = -1,
                                     .cache = (char[]){"off"}};
    const struct node_source source = {.id = "main",
                                       .kind = question->kind,
                                       .title = question->title,
                                       .role = plan_default_role(config)->name,
                                       .model = question->arm,
                                       .system = "",
                                       .prompt = question->prompt,
                                       .task_text = "",
                                       .json_schema = "",
                                       .as = &bare};
    int rc = add_node(&nodes, config, &source, err);
    nodes.nodes[0].max_attempts = 1;
    if (rc == 0)
        *ret = nodes;
    else
        plan_nodes_release(&nodes);
    return rc;
}
