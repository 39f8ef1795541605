/* Follows the log of one task. */
#include "common/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "schemas/mem.h"

#define BATCH "500"
#define BLOCK_MS "3000" /* below what the client takes for a dead server */

struct queue_log_follow {
    struct redis *redis;
    queue_log_fn *fn;
    void *ctx;
    char log_key[QUEUE_KEY_SIZE], task_key[QUEUE_KEY_SIZE];
    char seen[48];            /* id of the last entry */
    struct loop_timer *again; /* after an error */
    bool *closed;             /* set when it is closed within a callback; NULL: outside */
    struct queue_log_line line;
};

static void read_more(struct queue_log_follow *follow);

static void deliver(struct queue_log_follow *follow, const struct redis_value *value,
                    const bool *closed)
{
    struct queue_log_line *line = &follow->line;
    if (!queue_log_parse(line, value)) {
        log_warn("skipped a damaged entry of %s", follow->log_key);
        return;
    }
    struct queue_log_entry entry = line->entry;
    follow->fn(follow->ctx, &entry);
    if (*closed || !line->task_after)
        return;
    entry = (struct queue_log_entry){.id = line->id,
                                     .what = "task-done",
                                     .sub = "",
                                     .worker = "",
                                     .arm = "",
                                     .error_class = "",
                                     .text = ""};
    follow->fn(follow->ctx, &entry);
}

static void entries_answered(void *ctx, const struct redis_value *value)
{
    struct queue_log_follow *follow = ctx;
    if (redis_type(value) == REDIS_ERR) {
        const char *text = redis_str(value, NULL);
        if (strncmp(text, "CLOSED", 6) == 0)
            return;
        log_warn("cannot read the log of the task: %s", text);
        loop_timer_start(follow->again, 1000, 0);
        return;
    }
    bool closed = false;
    follow->closed = &closed;
    const struct redis_value *entries = redis_at(redis_at(value, 0), 1);
    for (size_t i = 0; i < redis_len(entries) && !closed; i++) {
        const struct redis_value *entry = redis_at(entries, i);
        snprintf(follow->seen, sizeof follow->seen, "%.40s", redis_str(redis_at(entry, 0), NULL));
        deliver(follow, entry, &closed);
    }
    if (closed)
        return;
    follow->closed = NULL;
    read_more(follow);
}

static void read_more(struct queue_log_follow *follow)
{
    const char *argv[] = {"XREAD",  "COUNT",   BATCH,           "BLOCK",
                          BLOCK_MS, "STREAMS", follow->log_key, follow->seen};
    redis_command(follow->redis, entries_answered, follow, 8, argv, NULL);
}

static void read_again(void *ctx)
{
    read_more(ctx);
}

/* The first entry is not stored but told from the task itself: a task that waits has no log. */
static void created_answered(void *ctx, const struct redis_value *value)
{
    struct queue_log_follow *follow = ctx;
    if (redis_type(value) == REDIS_ERR && strncmp(redis_str(value, NULL), "CLOSED", 6) == 0)
        return;
    bool closed = false;
    char id[48];
    snprintf(id, sizeof id, "%lld-0", (long long)redis_int(value));
    struct queue_log_entry entry = {.id = id,
                                    .what = "submitted",
                                    .sub = "",
                                    .worker = "",
                                    .arm = "",
                                    .error_class = "",
                                    .text = ""};
    follow->closed = &closed;
    if (redis_int(value) > 0)
        follow->fn(follow->ctx, &entry);
    if (closed)
        return;
    follow->closed = NULL;
    read_more(follow);
}

int queue_log_open(struct queue_log_follow **ret, struct queue *queue, const char *task,
                   const char *after, queue_log_fn *fn, void *ctx, struct err *err)
{
    struct redis *redis;
    int rc = redis_open(&redis, queue->loop, &queue->options, NULL, NULL, err);
    if (rc != 0)
        return rc;
    struct queue_log_follow *follow = mem_must_zalloc(sizeof *follow);
    follow->redis = redis;
    follow->fn = fn;
    follow->ctx = ctx;
    follow->again = loop_timer_new(queue->loop, read_again, follow);
    queue_task_key(follow->log_key, task, "log");
    queue_task_key(follow->task_key, task, "task");
    snprintf(follow->seen, sizeof follow->seen, "%.40s", after);
    *ret = follow;
    if (strcmp(after, "0") == 0)
        redis_command(redis, created_answered, follow, 3,
                      (const char *[]){"HGET", follow->task_key, "created"}, NULL);
    else
        read_more(follow);
    return 0;
}

void queue_log_close(struct queue_log_follow **ret)
{
    struct queue_log_follow *follow = *ret;
    *ret = NULL;
    if (follow == NULL)
        return;
    if (follow->closed != NULL)
        *follow->closed = true;
    redis_close(&follow->redis);
    loop_timer_free(&follow->again);
    free(follow);
}
