/* Follows the log of one task. The log is a list; scripts publish what they have added to it on the
 * channel of its name, and the follower reads what it has missed. */
#include "common/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "schemas/mem.h"

#define BATCH 500
#define POLL_MS 1000 /* hints may be lost */

struct queue_log_follow {
    struct redis *redis;    /* reads */
    struct redis *listener; /* hears the hints */
    struct loop_timer *poll;
    queue_log_fn *fn;
    void *ctx;
    char *task;
    char log_key[QUEUE_KEY_SIZE], task_key[QUEUE_KEY_SIZE];
    int64_t next; /* number of the next entry */
    bool reading; /* an answer is awaited */
    bool hinted;  /* there was a hint meanwhile */
    bool *closed; /* set when it is closed within a callback; NULL: outside */
    struct queue_log_line line;
};

static void read_more(void *ctx);

static void deliver(struct queue_log_follow *follow, const char *text, size_t len,
                    const bool *closed)
{
    struct queue_log_line *line = &follow->line;
    if (!queue_log_parse(line, follow->next++, text, len)) {
        log_warn("skipped a damaged entry of %s", follow->log_key);
        return;
    }
    follow->fn(follow->ctx, &line->entry);
    if (*closed || !line->task_after)
        return;
    struct queue_log_entry entry = {.id = line->id,
                                    .what = "task-done",
                                    .sub = "",
                                    .worker = "",
                                    .arm = "",
                                    .error_class = "",
                                    .text = ""};
    follow->fn(follow->ctx, &entry);
}

/* value: [number of the first, entry, ...] */
static void entries_answered(void *ctx, const struct redis_value *value)
{
    struct queue_log_follow *follow = ctx;
    if (redis_type(value) == REDIS_ERR) {
        const char *text = redis_str(value, NULL);
        if (strncmp(text, "CLOSED", 6) == 0)
            return;
        log_warn("cannot read the log of task %s: %s", follow->task, text);
        follow->reading = false;
        return; /* until the next poll */
    }
    bool closed = false;
    follow->closed = &closed;
    size_t n = redis_len(value);
    if (n > 0 && redis_int(redis_at(value, 0)) > follow->next)
        follow->next = redis_int(redis_at(value, 0));
    for (size_t i = 1; i < n && !closed; i++) {
        size_t len;
        const char *text = redis_str(redis_at(value, i), &len);
        deliver(follow, text, len, &closed);
    }
    if (closed)
        return;
    follow->closed = NULL;
    follow->reading = false;
    if (follow->hinted || n > 1)
        read_more(follow);
}

static void read_more(void *ctx)
{
    struct queue_log_follow *follow = ctx;
    follow->hinted = follow->reading;
    if (follow->reading)
        return;
    follow->reading = true;
    char from[24], limit[24];
    snprintf(from, sizeof from, "%lld", (long long)follow->next);
    snprintf(limit, sizeof limit, "%d", BATCH);
    const char *args[] = {follow->task_key, follow->log_key, follow->task, from, limit};
    redis_eval(follow->redis, queue_script(SCRIPT_log), entries_answered, follow, 2, 5, args, NULL);
}

/* value: ["subscribe", ...] or ["message", channel, text], the text being the number of the first
 * line, NUL, line, NUL, line and so on. What is not the next is read. */
static void hint(void *ctx, const struct redis_value *value)
{
    struct queue_log_follow *follow = ctx;
    size_t len;
    const char *text = redis_str(redis_at(value, 2), &len);
    const char *end = text + len, *at = memchr(text, '\0', len);
    if (follow->reading || at == NULL || strtoll(text, NULL, 10) != follow->next) {
        read_more(follow);
        return;
    }
    bool closed = false;
    follow->closed = &closed;
    while (at != NULL && !closed) {
        const char *line = at + 1;
        at = memchr(line, '\0', (size_t)(end - line));
        deliver(follow, line, (size_t)((at != NULL ? at : end) - line), &closed);
    }
    if (closed)
        return;
    follow->closed = NULL;
    if (follow->hinted)
        read_more(follow);
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
    follow->reading = false;
    read_more(follow);
}

/* The number of the entry behind that of the id: an id is "<ms>-<number + 1>", and "<ms>-0" is that
 * of "submitted". */
static int64_t number_after(const char *id)
{
    const char *dash = strchr(id, '-');
    return dash != NULL ? strtoll(dash + 1, NULL, 10) : 0;
}

int queue_log_open(struct queue_log_follow **ret, struct queue *queue, const char *task,
                   const char *after, queue_log_fn *fn, void *ctx, struct err *err)
{
    struct redis *redis, *listener;
    int rc = redis_open(&redis, queue->loop, &queue->options, NULL, NULL, err);
    if (rc != 0)
        return rc;
    rc = redis_open(&listener, queue->loop, &queue->options, NULL, NULL, err);
    if (rc != 0) {
        redis_close(&redis);
        return rc;
    }
    struct queue_log_follow *follow = mem_must_zalloc(sizeof *follow);
    follow->redis = redis;
    follow->listener = listener;
    follow->fn = fn;
    follow->ctx = ctx;
    follow->task = mem_must_strdup(task);
    follow->next = number_after(after);
    queue_task_key(follow->log_key, task, "log");
    queue_task_key(follow->task_key, task, "task");
    follow->poll = loop_timer_new(queue->loop, read_more, follow);
    loop_timer_start(follow->poll, POLL_MS, POLL_MS);
    redis_subscribe(listener, follow->log_key, hint, follow);
    *ret = follow;
    if (strcmp(after, "0") == 0) {
        follow->reading = true;
        redis_command(redis, created_answered, follow, 3,
                      (const char *[]){"HGET", follow->task_key, "created"}, NULL);
    } else {
        read_more(follow);
    }
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
    redis_close(&follow->listener);
    loop_timer_free(&follow->poll);
    free(follow->task);
    free(follow);
}
