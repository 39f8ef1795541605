#include "orchestrator/plan.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "common/json.h"
#include "common/task_id.h"
#include "common/yaml.h"
#include "orchestrator/plan_check.h"
#include "orchestrator/prompt.h"
#include "schemas/mem.h"

static struct plan *plan_new(size_t n_subtasks)
{
    struct plan *plan = mem_must_zalloc(sizeof *plan);
    plan->synthesize = true;
    plan->n_subtasks = n_subtasks;
    plan->subtasks = mem_must_zalloc((n_subtasks + 1) * sizeof *plan->subtasks);
    for (size_t i = 0; i < n_subtasks; i++)
        plan->subtasks[i].settings = (struct plan_settings)PLAN_SETTINGS_NONE;
    return plan;
}

void plan_free(struct plan **plan)
{
    if (*plan == NULL)
        return;
    for (size_t i = 0; i < (*plan)->n_subtasks; i++) {
        struct plan_subtask *subtask = &(*plan)->subtasks[i];
        for (size_t j = 0; j < subtask->n_deps; j++)
            free(subtask->deps[j]);
        free(subtask->deps);
        free(subtask->id);
        free(subtask->title);
        free(subtask->role);
        free(subtask->model);
        free(subtask->prompt);
        free(subtask->images);
        plan_settings_release(&subtask->settings);
    }
    free((*plan)->subtasks);
    free((*plan)->title);
    free(*plan);
    *plan = NULL;
}

#define PLAN_TITLE_BYTES 200

/* Every subtask has a title to show: without one, its prompt's first line. */
static void fill_title(struct plan_subtask *subtask)
{
    if (*subtask->title == '\0') {
        free(subtask->title);
        subtask->title = prompt_title(subtask->prompt);
    }
    subtask->title[prompt_cut(subtask->title, strlen(subtask->title), PLAN_TITLE_BYTES)] = '\0';
}

/* --- a person's file ------------------------------------------------------------------------ */

static int read_file_subtask(struct plan_subtask *ret, const struct yaml *yaml,
                             const struct yaml_node *node, const char *folder, struct err *err)
{
    const char *id = "", *title = "", *role = "", *model = "", *prompt = "";
    const char **deps = NULL;
    size_t n_deps = 0;
    int rc = yaml_check_keys(yaml, node, "a subtask", plan_subtask_keys, err);
    if (rc != 0 || (rc = yaml_get_str(yaml, node, "id", &id, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "title", &title, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "role", &role, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "model", &model, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "prompt", &prompt, err)) != 0 ||
        (rc = yaml_get_strs(yaml, node, "depends_on", &deps, &n_deps, err)) != 0)
        return rc;
    *ret = (struct plan_subtask){.id = mem_must_strdup(id),
                                 .title = mem_must_strdup(title),
                                 .role = mem_must_strdup(role),
                                 .model = mem_must_strdup(model),
                                 .prompt = mem_must_strdup(prompt),
                                 .n_deps = n_deps,
                                 .settings = PLAN_SETTINGS_NONE};
    ret->deps = mem_must_zalloc((n_deps + 1) * sizeof *ret->deps);
    for (size_t i = 0; i < n_deps; i++)
        ret->deps[i] = mem_must_strdup(deps[i]);
    free(deps);
    plan_dedupe_deps(ret);
    fill_title(ret);
    return plan_settings_read(ret, yaml, node, folder, err);
}

static int read_file_root(struct plan **ret, const struct yaml *yaml, struct err *err)
{
    static const char *const keys[] = {"title", "subtasks", "synthesize", NULL};
    const struct yaml_node *root = yaml_root(yaml);
    int rc = yaml_check_keys(yaml, root, "a plan", keys, err);
    if (rc != 0)
        return rc;
    const struct yaml_node *list = yaml_map_get(root, "subtasks");
    if (list == NULL || list->type != YAML_SEQ || list->count == 0)
        return yaml_fail(yaml, list != NULL ? list : root, err,
                         "a plan needs `subtasks`, a list with at least one subtask");
    const char *title = "";
    *ret = plan_new(list->count);
    rc = yaml_get_str(yaml, root, "title", &title, err);
    if (rc == 0)
        rc = yaml_get_bool(yaml, root, "synthesize", &(*ret)->synthesize, err);
    (*ret)->title = mem_must_strdup(title);
    return rc;
}

int plan_parse_file(struct plan **ret, const struct config *config, const char *name,
                    const char *text, size_t len, struct err *err)
{
    struct yaml *yaml = NULL;
    struct plan *plan = NULL;
    int rc = yaml_read(&yaml, name, text, len, err);
    if (rc != 0)
        return rc;
    struct plan_source source = {.yaml = yaml};
    const char *slash = strrchr(name, '/');
    char *folder = slash != NULL ? mem_must_strndup(name, (size_t)(slash - name) + 1) : NULL;
    rc = read_file_root(&plan, yaml, err);
    if (rc != 0)
        goto out;
    source.at = mem_must_zalloc((plan->n_subtasks + 1) * sizeof *source.at);
    const struct yaml_node *node = yaml_at(yaml_map_get(yaml_root(yaml), "subtasks"), 0);
    for (size_t i = 0; node != NULL && rc == 0; node = node->next, i++) {
        source.at[i] = node;
        rc = read_file_subtask(&plan->subtasks[i], yaml, node, folder, err);
    }
    if (rc == 0)
        rc = plan_check(plan, config, &source, err);
out:
    free(folder);
    free(source.at);
    yaml_release(&yaml);
    if (rc == 0)
        *ret = plan;
    else
        plan_free(&plan);
    return rc;
}

/* --- a model's answer ----------------------------------------------------------------------- */

#define ANSWER_TRIES 200 /* opening braces examined: prose may hold some, a bomb many */

static bool is_plan(const json_t *value)
{
    return json_is_array(json_get(value, "subtasks"));
}

/* The last JSON object with a list `subtasks`: drafts come before the answer. A new reference. */
static json_t *find_object(const char *text, size_t len, struct err *err)
{
    json_t *found = NULL;
    json_error_t error = {.text = ""}, first = {.text = ""};
    const char *at = text, *end = text + len;
    for (int tries = 0; tries < ANSWER_TRIES; tries++) {
        at = at < end ? memchr(at, '{', (size_t)(end - at)) : NULL;
        if (at == NULL)
            break;
        json_t *value = json_loadb(at, (size_t)(end - at), JSON_DISABLE_EOF_CHECK, &error);
        if (value == NULL && tries == 0)
            first = error;
        /* position: bytes read when it succeeded */
        at += value != NULL && error.position > 0 ? (size_t)error.position : 1;
        if (is_plan(value)) {
            json_decref(found);
            found = json_incref(value);
        }
        json_decref(value);
    }
    if (found == NULL && *first.text != '\0')
        err_set(err, -EINVAL, "the answer has no valid JSON object with a list `subtasks` (%s)",
                first.text);
    else if (found == NULL)
        err_set(err, -EINVAL, "the answer has no JSON object with a list `subtasks`");
    return found;
}

/* Text of a string or a whole number: models write ids as either. Caller frees. */
static char *scalar_text(const json_t *value)
{
    if (json_is_integer(value))
        return mem_must_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return mem_must_strdup(json_is_string(value) ? json_string_value(value) : "");
}

static void read_answer_deps(struct plan_subtask *ret, const json_t *list)
{
    size_t count = json_is_array(list) ? json_array_size(list) : 0;
    ret->deps = mem_must_zalloc((count + 1) * sizeof *ret->deps);
    for (size_t i = 0; i < count; i++)
        ret->deps[ret->n_deps++] = scalar_text(json_array_get(list, i));
    plan_dedupe_deps(ret);
}

static void read_answer_subtask(struct plan_subtask *ret, const json_t *object, size_t index)
{
    ret->id = scalar_text(json_get(object, "id"));
    if (*ret->id == '\0') {
        free(ret->id);
        ret->id = mem_must_printf("s%zu", index + 1);
    }
    ret->title = mem_must_strdup(json_str(object, "title", ""));
    ret->role = mem_must_strdup(json_str(object, "role", ""));
    ret->model = mem_must_strdup("");
    ret->prompt = mem_must_strdup(json_str(object, "prompt", ""));
    read_answer_deps(ret, json_get(object, "depends_on"));
    fill_title(ret);
}

/* What a model called a subtask, and what it is called here. */
struct rename {
    const char *from; /* borrowed from the plan until all are renamed */
    char *to;
    UT_hash_handle by_from, by_to;
};

/* `_x` and `API design!` become `x` and `API-design`. Caller frees. */
static char *clean_id(const char *id, size_t index)
{
    char *clean = mem_must_zalloc(SUB_ID_MAX + 1);
    size_t len = 0;
    for (id += strspn(id, "_ "); *id != '\0' && len < SUB_ID_MAX - 8; id++) {
        bool fine = isalnum((unsigned char)*id) || strchr("._-", *id) != NULL;
        if (fine || (len > 0 && clean[len - 1] != '-'))
            clean[len++] = fine ? *id : '-';
    }
    while (len > 0 && clean[len - 1] == '-')
        clean[--len] = '\0';
    if (len == 0)
        snprintf(clean, SUB_ID_MAX, "s%zu", index + 1);
    return clean;
}

static void replace(char **text, const char *by)
{
    char *copy = mem_must_strdup(by);
    free(*text);
    *text = copy;
}

/* Gives every subtask a valid id that is nobody else's, also where others depend on it. -EINVAL
 * when the model itself used an id twice. */
static int rename_ids(struct plan *plan, struct err *err)
{
    struct rename *renames = mem_must_zalloc((plan->n_subtasks + 1) * sizeof *renames);
    struct rename *from = NULL, *to = NULL, *found;
    int rc = 0;
    for (size_t i = 0; i < plan->n_subtasks && rc == 0; i++) {
        struct rename *rename = &renames[i];
        rename->from = plan->subtasks[i].id;
        HASH_FIND(by_from, from, rename->from, strlen(rename->from), found);
        if (found != NULL)
            rc = err_set(err, -EINVAL, "two subtasks have the id `%.80s`", rename->from);
        HASH_ADD_KEYPTR(by_from, from, rename->from, strlen(rename->from), rename);
        rename->to = clean_id(rename->from, i);
        size_t stem = strlen(rename->to);
        for (int n = 2;; n++) {
            HASH_FIND(by_to, to, rename->to, strlen(rename->to), found);
            if (found == NULL)
                break;
            snprintf(rename->to + stem, SUB_ID_MAX + 1 - stem, "-%d", n);
        }
        HASH_ADD_KEYPTR(by_to, to, rename->to, strlen(rename->to), rename);
    }
    for (size_t i = 0; i < plan->n_subtasks && rc == 0; i++)
        for (size_t j = 0; j < plan->subtasks[i].n_deps; j++) {
            char **dep = &plan->subtasks[i].deps[j];
            HASH_FIND(by_from, from, *dep, strlen(*dep), found);
            if (found != NULL)
                replace(dep, found->to);
        }
    HASH_CLEAR(by_from, from);
    HASH_CLEAR(by_to, to);
    for (size_t i = 0; i < plan->n_subtasks; i++) {
        if (rc == 0)
            replace(&plan->subtasks[i].id, renames[i].to);
        free(renames[i].to);
    }
    free(renames);
    return rc;
}

int plan_parse_answer(struct plan **ret, const struct config *config, const char *text, size_t len,
                      struct err *err)
{
    json_t *root = find_object(text, len, err);
    if (root == NULL)
        return -EINVAL;
    json_t *list = json_get(root, "subtasks");
    size_t count = json_array_size(list);
    /* Not one more is read than needed to say that they are too many. */
    size_t most = (size_t)config->max_subtasks + 1;
    struct plan *plan = plan_new(count < most ? count : most);
    plan->title = mem_must_strdup(json_str(root, "title", ""));
    for (size_t i = 0; i < plan->n_subtasks; i++)
        read_answer_subtask(&plan->subtasks[i], json_array_get(list, i), i);
    json_decref(root);
    int rc = rename_ids(plan, err);
    if (rc == 0)
        rc = plan_check(plan, config, &(struct plan_source){0}, err);
    if (rc == 0)
        *ret = plan;
    else
        plan_free(&plan);
    return rc;
}

/* --- one subtask ---------------------------------------------------------------------------- */

int plan_single(struct plan **ret, const struct config *config, const char *text, const char *role,
                const char *model, struct err *err)
{
    int rc = plan_check_role(config, role, err);
    if (rc == 0)
        rc = plan_check_model(config, model, err);
    if (rc != 0)
        return rc;
    if (text[strspn(text, " \t\r\n")] == '\0')
        return err_set(err, -EINVAL, "the task is empty: say what is to be done");
    bool has_role = role != NULL && *role != '\0';
    struct plan *plan = plan_new(1);
    plan->synthesize = false;
    plan->title = prompt_title(text);
    plan->subtasks[0] = (struct plan_subtask){
        .id = mem_must_strdup("main"),
        .title = prompt_title(text),
        .role = mem_must_strdup(has_role ? role : plan_default_role(config)->name),
        .model = mem_must_strdup(model != NULL ? model : ""),
        .prompt = mem_must_strdup(text),
        .settings = PLAN_SETTINGS_NONE,
    };
    *ret = plan;
    return 0;
}
