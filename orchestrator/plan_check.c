#include "orchestrator/plan_check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "common/model_registry.h"
#include "common/task_id.h"
#include "schemas/mem.h"

/* A plan under examination: the ids as a hash and the dependencies as indexes. */
struct id_entry {
    const char *id; /* borrowed */
    size_t index;
    UT_hash_handle hh;
};

struct check {
    struct plan *plan;
    const struct config *config;
    const struct plan_source *source;
    struct err *err;
    struct id_entry *entries, *ids;
    size_t **deps;   /* per subtask: indexes of its dependencies */
    size_t *waiting; /* per subtask: dependencies not yet ordered */
    size_t *depth;   /* per subtask: longest chain that ends in it */
};

static int check_fail(const struct check *check, size_t index, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int check_fail(const struct check *check, size_t index, const char *format, ...)
{
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (check->source->yaml == NULL)
        return err_set(check->err, -EINVAL, "%s", text);
    return yaml_fail(check->source->yaml, check->source->at[index], check->err, "%s", text);
}

const struct config_role *plan_default_role(const struct config *config)
{
    const struct config_role *role = config_role(config, CONFIG_DEFAULT_ROLE);
    for (size_t i = 0; role == NULL && i < config->n_roles; i++)
        if (plan_role_assignable(config->roles[i].name))
            role = &config->roles[i];
    return role != NULL ? role : &config->roles[0]; /* planner and synthesizer are always there */
}

bool plan_role_assignable(const char *role)
{
    return strcmp(role, "planner") != 0 && strcmp(role, "synthesizer") != 0;
}

int plan_check_role(const struct config *config, const char *role, struct err *err)
{
    if (role == NULL || *role == '\0' || config_role(config, role) != NULL)
        return 0;
    const char **names = mem_must_zalloc((config->n_roles + 1) * sizeof *names);
    for (size_t i = 0; i < config->n_roles; i++)
        names[i] = config->roles[i].name;
    const char *nearest = yaml_nearest(role, names);
    if (nearest != NULL)
        err_set(err, -EINVAL, "unknown role `%.64s`; did you mean `%s`?", role, nearest);
    else
        err_set(err, -EINVAL, "unknown role `%.64s`: define it under roles: in %s", role,
                config->path);
    free(names);
    return -EINVAL;
}

int plan_check_model(const struct config *config, const char *model, struct err *err)
{
    if (model == NULL || *model == '\0' || config_model(config, model) != NULL)
        return 0;
    const char **names = mem_must_zalloc((config->n_models + 1) * sizeof *names);
    for (size_t i = 0; i < config->n_models; i++)
        names[i] = config->models[i].alias;
    const char *nearest = yaml_nearest(model, names);
    if (nearest != NULL)
        err_set(err, -EINVAL, "unknown model `%.64s`; did you mean `%s`?", model, nearest);
    else
        err_set(err, -EINVAL, "unknown model `%.64s`: define it under models: in %s", model,
                config->path);
    free(names);
    return -EINVAL;
}

void plan_dedupe_deps(struct plan_subtask *subtask)
{
    struct id_entry *entries = mem_must_zalloc((subtask->n_deps + 1) * sizeof *entries);
    struct id_entry *seen = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < subtask->n_deps; i++) {
        struct id_entry *found;
        HASH_FIND_STR(seen, subtask->deps[i], found);
        if (found != NULL) {
            free(subtask->deps[i]);
            continue;
        }
        entries[kept] = (struct id_entry){.id = subtask->deps[i]};
        HASH_ADD_KEYPTR(hh, seen, entries[kept].id, strlen(entries[kept].id), &entries[kept]);
        subtask->deps[kept++] = subtask->deps[i];
    }
    HASH_CLEAR(hh, seen);
    free(entries);
    subtask->n_deps = kept;
}

static int check_count(const struct check *check)
{
    size_t count = check->plan->n_subtasks;
    bool is_file = check->source->yaml != NULL;
    size_t most = is_file ? PLAN_FILE_MAX : (size_t)check->config->max_subtasks;
    if (count == 0)
        return check_fail(check, 0, "the plan has no subtasks");
    if (count > most)
        return check_fail(check, 0, "the plan has more than %zu subtasks", most);
    return 0;
}

static int check_id(const struct check *check, size_t index)
{
    const char *id = check->plan->subtasks[index].id;
    if (*id == '\0')
        return check_fail(check, index, "subtask %zu has no id", index + 1);
    if (*id == '_')
        return check_fail(check, index, "id `%.64s`: ids that start with `_` are the system's own",
                          id);
    if (!sub_id_valid(id))
        return check_fail(check, index,
                          "id `%.80s` is not valid: 1 to %d of letters, digits, `.`, `_` and `-`",
                          id, SUB_ID_MAX);
    return 0;
}

static int check_ids(struct check *check)
{
    for (size_t i = 0; i < check->plan->n_subtasks; i++) {
        int rc = check_id(check, i);
        if (rc != 0)
            return rc;
        struct id_entry *entry = &check->entries[i], *other;
        *entry = (struct id_entry){.id = check->plan->subtasks[i].id, .index = i};
        HASH_FIND_STR(check->ids, entry->id, other);
        if (other != NULL)
            return check_fail(check, i, "two subtasks have the id `%s`", entry->id);
        HASH_ADD_KEYPTR(hh, check->ids, entry->id, strlen(entry->id), entry);
    }
    return 0;
}

static int check_role(const struct check *check, size_t index)
{
    struct plan_subtask *subtask = &check->plan->subtasks[index];
    struct err why;
    if (check->source->yaml == NULL) {
        if (config_role(check->config, subtask->role) == NULL ||
            !plan_role_assignable(subtask->role)) {
            free(subtask->role);
            subtask->role = mem_must_strdup(plan_default_role(check->config)->name);
        }
        return 0;
    }
    if (plan_check_role(check->config, subtask->role, &why) != 0 ||
        plan_check_model(check->config, subtask->model, &why) != 0)
        return check_fail(check, index, "subtask `%s`: %s", subtask->id, why.text);
    return 0;
}

/* What the subtask asks of a model that it names, or that must be found for it. */
static int check_models(const struct check *check, size_t index)
{
    struct plan_subtask *subtask = &check->plan->subtasks[index];
    const struct config_model *model = config_model(check->config, subtask->model);
    struct err why;
    if (subtask->embed && plan_settings_embed(subtask, check->config, &why) != 0)
        return check_fail(check, index, "subtask `%s`: %s", subtask->id, why.text);
    if (subtask->images != NULL && model != NULL && model->n_capabilities > 0 &&
        !model_registry_has(model->capabilities, model->n_capabilities, "images"))
        return check_fail(check, index, "subtask `%s`: model `%s` takes no images", subtask->id,
                          subtask->model);
    return 0;
}

static int check_fields(const struct check *check)
{
    for (size_t i = 0; i < check->plan->n_subtasks; i++) {
        const struct plan_subtask *subtask = &check->plan->subtasks[i];
        if (subtask->prompt[strspn(subtask->prompt, " \t\r\n")] == '\0')
            return check_fail(check, i, "subtask `%s` has an empty prompt", subtask->id);
        int rc = check_role(check, i);
        if (rc == 0)
            rc = check_models(check, i);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int unknown_dep(const struct check *check, size_t index, const char *dep)
{
    const struct plan *plan = check->plan;
    const char **ids = mem_must_zalloc((plan->n_subtasks + 1) * sizeof *ids);
    for (size_t i = 0; i < plan->n_subtasks; i++)
        ids[i] = plan->subtasks[i].id;
    const char *nearest = yaml_nearest(dep, ids);
    int rc =
        nearest != NULL
            ? check_fail(check, index,
                         "subtask `%s` depends on `%.64s`, which is not in the plan; did you "
                         "mean `%s`?",
                         ids[index], dep, nearest)
            : check_fail(check, index, "subtask `%s` depends on `%.64s`, which is not in the plan",
                         ids[index], dep);
    free(ids);
    return rc;
}

static int resolve_deps(struct check *check)
{
    for (size_t i = 0; i < check->plan->n_subtasks; i++) {
        const struct plan_subtask *subtask = &check->plan->subtasks[i];
        check->deps[i] = mem_must_zalloc((subtask->n_deps + 1) * sizeof **check->deps);
        for (size_t j = 0; j < subtask->n_deps; j++) {
            struct id_entry *entry;
            HASH_FIND_STR(check->ids, subtask->deps[j], entry);
            if (entry == NULL)
                return unknown_dep(check, i, subtask->deps[j]);
            if (entry->index == i)
                return check_fail(check, i, "subtask `%s` depends on itself", subtask->id);
            check->deps[i][j] = entry->index;
        }
    }
    return 0;
}

/* Names a cycle: follows unordered dependencies from `from` until a subtask comes again. */
static int fail_with_cycle(const struct check *check, size_t from)
{
    const struct plan *plan = check->plan;
    bool *seen = mem_must_zalloc(plan->n_subtasks * sizeof *seen);
    size_t at = from;
    while (!seen[at]) {
        seen[at] = true;
        for (size_t j = 0; j < plan->subtasks[at].n_deps; j++)
            if (check->waiting[check->deps[at][j]] > 0) {
                at = check->deps[at][j];
                break;
            }
    }
    size_t start = at, shown = 0;
    char text[700] = "";
    do { /* `at` is on the cycle now */
        size_t len = strlen(text);
        if (++shown <= 8)
            snprintf(text + len, sizeof text - len, "%s -> ", plan->subtasks[at].id);
        else if (shown == 9)
            snprintf(text + len, sizeof text - len, "... -> ");
        for (size_t j = 0; j < plan->subtasks[at].n_deps; j++)
            if (check->waiting[check->deps[at][j]] > 0) {
                at = check->deps[at][j];
                break;
            }
    } while (at != start);
    free(seen);
    return check_fail(check, start, "the dependencies form a cycle: %s%s", text,
                      plan->subtasks[start].id);
}

/* Orders the subtasks by Kahn's algorithm and measures the longest chain on the way. edges holds,
 * per subtask, who depends on it. */
static int order(struct check *check, size_t **users, const size_t *n_users)
{
    size_t count = check->plan->n_subtasks, head = 0, tail = 0;
    size_t *queue = mem_must_zalloc((count + 1) * sizeof *queue);
    size_t longest = 0, deepest = 0;
    for (size_t i = 0; i < count; i++)
        if (check->waiting[i] == 0)
            queue[tail++] = i;
    while (head < tail) {
        size_t at = queue[head++];
        if (check->depth[at] + 1 > longest) {
            longest = check->depth[at] + 1;
            deepest = at;
        }
        for (size_t j = 0; j < n_users[at]; j++) {
            size_t user = users[at][j];
            if (check->depth[user] < check->depth[at] + 1)
                check->depth[user] = check->depth[at] + 1;
            if (--check->waiting[user] == 0)
                queue[tail++] = user;
        }
    }
    free(queue);
    for (size_t i = 0; tail < count && i < count; i++)
        if (check->waiting[i] > 0)
            return fail_with_cycle(check, i);
    if (check->source->yaml == NULL && longest > PLAN_ANSWER_DEPTH)
        return check_fail(check, deepest, "the plan is %zu subtasks deep; at most %d are allowed",
                          longest, PLAN_ANSWER_DEPTH);
    return 0;
}

static int check_graph(struct check *check)
{
    int rc = resolve_deps(check);
    if (rc != 0)
        return rc;
    size_t count = check->plan->n_subtasks;
    size_t **users = mem_must_zalloc(count * sizeof *users);
    size_t *n_users = mem_must_zalloc(count * sizeof *n_users);
    for (size_t i = 0; i < count; i++) {
        check->waiting[i] = check->plan->subtasks[i].n_deps;
        for (size_t j = 0; j < check->waiting[i]; j++)
            n_users[check->deps[i][j]]++;
    }
    for (size_t i = 0; i < count; i++) {
        users[i] = mem_must_zalloc((n_users[i] + 1) * sizeof **users);
        n_users[i] = 0;
    }
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < check->waiting[i]; j++) {
            size_t dep = check->deps[i][j];
            users[dep][n_users[dep]++] = i;
        }
    rc = order(check, users, n_users);
    for (size_t i = 0; i < count; i++)
        free(users[i]);
    free(users);
    free(n_users);
    return rc;
}

int plan_check(struct plan *plan, const struct config *config, const struct plan_source *source,
               struct err *err)
{
    struct check check = {.plan = plan, .config = config, .source = source, .err = err};
    int rc = check_count(&check);
    if (rc != 0)
        return rc;
    size_t count = plan->n_subtasks;
    check.entries = mem_must_zalloc(count * sizeof *check.entries);
    check.deps = mem_must_zalloc(count * sizeof *check.deps);
    check.waiting = mem_must_zalloc(count * sizeof *check.waiting);
    check.depth = mem_must_zalloc(count * sizeof *check.depth);
    rc = check_ids(&check);
    if (rc == 0)
        rc = check_fields(&check);
    if (rc == 0)
        rc = check_graph(&check);
    HASH_CLEAR(hh, check.ids);
    for (size_t i = 0; i < count; i++)
        free(check.deps[i]);
    free(check.entries);
    free(check.deps);
    free(check.waiting);
    free(check.depth);
    return rc;
}
