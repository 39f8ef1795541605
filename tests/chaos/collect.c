/* Everything that was, and is there, goes to the oracle: tasks, their logs, the profile store, the
 * simulator's calls, what fsck finds. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/queue_internal.h"
#include "common/task_id.h"
#include "orchestrator/store.h"
#include "schemas/mem.h"
#include "tests/chaos/rig.h"

#define WAIT_MS 60000
#define AT_ONCE 64

struct collecting {
    struct rig *rig;
    size_t pending;
    bool done;
    int failed;
};

struct asked {
    struct collecting *collecting;
    const char *task; /* borrowed */
};

static struct asked *asked_new(struct collecting *collecting, const char *task)
{
    struct asked *asked = mem_must_zalloc(sizeof *asked);
    *asked = (struct asked){collecting, task};
    collecting->pending++;
    collecting->done = false;
    return asked;
}

static struct asked asked_take(void *ctx)
{
    struct asked asked = *(struct asked *)ctx;
    free(ctx);
    asked.collecting->done = --asked.collecting->pending == 0;
    return asked;
}

static void task_read(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    struct asked asked = asked_take(ctx);
    if (status == QUEUE_OK)
        oracle_task(asked.collecting->rig->oracle, view);
    else if (status != QUEUE_GONE) {
        fprintf(stderr, "chaos: cannot read task %s: %s\n", asked.task, err);
        asked.collecting->failed++;
    }
}

static void log_read(void *ctx, const struct redis_value *value)
{
    struct asked asked = asked_take(ctx);
    struct rig *rig = asked.collecting->rig;
    for (size_t i = 0; i < redis_len(value); i++) {
        struct queue_log_line line;
        size_t len;
        const char *text = redis_str(redis_at(value, i), &len);
        if (queue_log_parse(&line, (int64_t)i, text, len)) {
            oracle_log(rig->oracle, asked.task, &line.entry);
            continue;
        }
        oracle_finding(rig->oracle, asked.task, "", "a line of its log cannot be read");
    }
}

static bool wait_for(struct collecting *collecting)
{
    return loop_run_until(&collecting->rig->loop, &collecting->done, WAIT_MS) == 0;
}

static int collect_tasks(struct collecting *collecting, const char (*tasks)[24], size_t n_tasks)
{
    struct queue *queue = collecting->rig->queue;
    for (size_t i = 0; i < n_tasks; i++) {
        char key[QUEUE_KEY_SIZE];
        queue_task_key(key, tasks[i], "log");
        queue_read(queue, tasks[i], false, task_read, asked_new(collecting, tasks[i]));
        redis_command(queue_redis(queue), log_read, asked_new(collecting, tasks[i]), 4,
                      (const char *[]){"LRANGE", key, "0", "-1"}, NULL);
        if ((i % AT_ONCE == AT_ONCE - 1 || i + 1 == n_tasks) && !wait_for(collecting))
            return -ETIMEDOUT;
    }
    return collecting->failed > 0 ? -EIO : 0;
}

static void take_row(void *ctx, const struct msg_timing *row)
{
    if (strcmp(row->result, "done") == 0)
        oracle_row(ctx, row);
}

static int collect_rows(struct rig *rig)
{
    char path[128];
    struct store *store = NULL;
    struct err err = {0};
    snprintf(path, sizeof path, "%s/profile.db", rig->testbed.fixture.dir);
    int rc = store_open_read(&store, path, &err);
    if (rc == 0)
        rc = store_attempts(store, 0, NULL, take_row, rig->oracle, &err);
    if (rc != 0)
        fprintf(stderr, "chaos: %s\n", err.text);
    store_close(&store);
    return rc;
}

static void found(void *ctx, const char *task, const char *sub, const char *finding)
{
    oracle_finding(ctx, task, sub, finding);
}

static void checked(void *ctx, int64_t tasks, int64_t findings, const char *err)
{
    struct collecting *collecting = ctx;
    (void)tasks, (void)findings;
    collecting->done = true;
    if (err[0] == '\0')
        return;
    fprintf(stderr, "chaos: fsck: %s\n", err);
    collecting->failed++;
}

static void collect_calls(struct rig *rig)
{
    for (size_t i = 1; i <= rig->n_calls; i++) {
        const struct rig_call *call = &rig->calls[i];
        if (call->task[0] != '\0')
            oracle_call(rig->oracle, call->task, call->sub, call->time_ms, call->end);
        else
            oracle_finding(rig->oracle, "", "", "a call that belongs to no subtask");
    }
}

int rig_collect(struct rig *rig, const char (*tasks)[24], size_t n_tasks)
{
    struct collecting collecting = {.rig = rig};
    int rc = collect_tasks(&collecting, tasks, n_tasks);
    if (rc != 0)
        return rc;
    collecting.done = false;
    queue_fsck(rig->queue, found, checked, &collecting);
    if (loop_run_until(&rig->loop, &collecting.done, WAIT_MS) != 0 || collecting.failed > 0)
        return -EIO;
    collect_calls(rig);
    return collect_rows(rig);
}
