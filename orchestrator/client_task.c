/* Tasks for commands: found by id or its beginning, in Redis or in the archive. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/queue_daemon.h"
#include "orchestrator/client.h"
#include "orchestrator/client_archive.h"
#include "orchestrator/task_json.h"

#define LIST_MOST 100000 /* tasks looked at to complete an id */

/* --- one task --------------------------------------------------------------------------------- */

struct task_answer {
    struct client_answer answer;
    json_t *task;
};

static void task_answered(void *ctx, enum queue_status status, const struct queue_task_view *view,
                          const char *err)
{
    struct task_answer *answer = ctx;
    if (view != NULL)
        answer->task = task_json(view);
    client_answered(&answer->answer, status, err);
}

struct archive_answer {
    struct client_answer answer;
    char where[512];
};

static void archive_answered(void *ctx, enum queue_status status, struct bytes bytes,
                             const char *err)
{
    struct archive_answer *answer = ctx;
    snprintf(answer->where, sizeof answer->where, "%.*s", (int)bytes.len, bytes.data);
    client_answered(&answer->answer, status, err);
}

/* Neither Redis nor the archive here has it: says where it is, if somebody noted that. */
static int explain_gone(struct client *client, const struct invocation *invocation, const char *id,
                        const struct client_answer *gone)
{
    struct archive_answer answer = {0};
    queue_archive_of(client->queue, id, archive_answered, &answer);
    int code = client_wait(client, invocation, &answer.answer.done);
    if (code != EXIT_DONE)
        return code;
    if (answer.answer.status != QUEUE_OK)
        return client_explain(client, invocation, id, gone);
    return command_fail(invocation, EXIT_UNREACHABLE,
                        "task %s has finished and was archived by orchestrator %s: ask there", id,
                        answer.where);
}

int client_task(struct client *client, const struct invocation *invocation, const char *id,
                json_t **ret)
{
    struct task_answer answer = {0};
    queue_read(client->queue, id, false, task_answered, &answer);
    int code = client_wait(client, invocation, &answer.answer.done);
    if (code != EXIT_DONE)
        return code;
    if (answer.answer.status == QUEUE_GONE) {
        struct err err = {0};
        int rc = client_archive_task(client->config, id, ret, &err);
        if (rc == 0)
            return EXIT_DONE;
        if (rc != -ENOENT)
            return command_fail(invocation, EXIT_FAILED, "%s", err.text);
        return explain_gone(client, invocation, id, &answer.answer);
    }
    if (answer.task == NULL)
        return client_explain(client, invocation, id, &answer.answer);
    *ret = answer.task;
    return EXIT_DONE;
}

/* --- lists ------------------------------------------------------------------------------------ */

struct list_answer {
    struct client_answer answer;
    json_t *tasks;
};

static json_t *time_json(int64_t ms)
{
    return ms > 0 ? json_integer(ms) : json_null();
}

static void list_answered(void *ctx, const struct queue_task_item *items, size_t n_items,
                          const char *err)
{
    struct list_answer *answer = ctx;
    for (size_t i = 0; i < n_items; i++) {
        const struct queue_task_item *item = &items[i];
        json_t *task = json_object();
        json_object_set_new(task, "task_id", task_json_text(item->id, strlen(item->id)));
        json_object_set_new(task, "state", json_string(task_state_name(item->state)));
        json_object_set_new(task, "title", task_json_text(item->title, strlen(item->title)));
        json_object_set_new(task, "created_ms", time_json(item->created_ms));
        json_object_set_new(task, "finished_ms", time_json(item->finished_ms));
        json_object_set_new(task, "total", json_integer(item->total));
        json_object_set_new(task, "remaining", json_integer(item->remaining));
        json_object_set_new(task, "archived", json_false());
        json_array_append_new(answer->tasks, task);
    }
    bool failed = err != NULL && *err != '\0';
    client_answered(&answer->answer, failed ? QUEUE_ERROR : QUEUE_OK, err);
}

static int newest_first(const void *a, const void *b)
{
    json_t *const *left = a, *const *right = b;
    int64_t x = json_int(*left, "created_ms", 0), y = json_int(*right, "created_ms", 0);
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Sorted, without tasks that were archived but not yet forgotten by Redis, at most `limit`. */
static json_t *merge(json_t *tasks, json_t *archived, int64_t limit)
{
    json_t *ids = json_object(), *merged = json_array(), *task;
    size_t n = 0, i;
    json_t **sorted =
        calloc(json_array_size(tasks) + json_array_size(archived) + 1, sizeof *sorted);
    if (sorted == NULL)
        abort();
    json_array_foreach (tasks, i, task) {
        json_object_set_new(ids, json_str(task, "task_id", ""), json_true());
        sorted[n++] = task;
    }
    json_array_foreach (archived, i, task) {
        if (json_get(ids, json_str(task, "task_id", "")) == NULL)
            sorted[n++] = task;
    }
    qsort(sorted, n, sizeof *sorted, newest_first);
    for (i = 0; i < n && (int64_t)i < limit; i++)
        json_array_append(merged, sorted[i]);
    free(sorted);
    json_decref(ids);
    return merged;
}

int client_list(struct client *client, const struct invocation *invocation, int64_t limit,
                json_t **ret)
{
    struct list_answer answer = {.tasks = json_array()};
    queue_list(client->queue, limit, list_answered, &answer);
    int code = client_wait(client, invocation, &answer.answer.done);
    if (code == EXIT_DONE)
        code = client_explain(client, invocation, "", &answer.answer);
    if (code == EXIT_DONE) {
        json_t *archived = client_archive_list(client->config, limit);
        *ret = merge(answer.tasks, archived, limit);
        json_decref(archived);
    }
    json_decref(answer.tasks);
    return code;
}

/* --- ids -------------------------------------------------------------------------------------- */

int client_resolve(struct client *client, const struct invocation *invocation, const char *given,
                   char ret[TASK_ID_SIZE])
{
    if (task_id_valid(given)) {
        snprintf(ret, TASK_ID_SIZE, "%s", given);
        return EXIT_DONE;
    }
    json_t *tasks, *task;
    int code = client_list(client, invocation, LIST_MOST, &tasks);
    if (code != EXIT_DONE)
        return code;
    size_t i, n = 0, len = strlen(given);
    json_array_foreach (tasks, i, task) {
        const char *id = json_str(task, "task_id", "");
        if (len == 0 || strncmp(id, given, len) != 0)
            continue;
        snprintf(ret, TASK_ID_SIZE, "%s", id);
        n++;
    }
    json_decref(tasks);
    if (n == 1)
        return EXIT_DONE;
    return command_fail(invocation, EXIT_USAGE,
                        n == 0
                            ? "no task's id is or begins with \"%.40s\"; `orchestrator list --all` "
                              "shows what there is"
                            : "more than one task's id begins with \"%.40s\"; give more of it",
                        given);
}
