/* Calls that are made in one turn of the loop and run the same script go to Redis as one EVALSHA:
 * what a script costs before it does anything, the reading of the clock and the commands that take
 * many values are then paid once for many. A call that is alone is a batch of one.
 *
 * The calls of one task stand together, and a subtask (of submits: a task) is at most once in a
 * batch. The scripts read and validate everything before they write. When Redis answers a whole
 * batch with an error (a key of one task has the wrong type, say), each call is sent again alone,
 * so that it harms no other: calls are safe to repeat.
 *
 * Where something may have to be settled, the keys of accounts follow those of the tasks; a call
 * that is answered with the names of further ones is sent again alone (queue_run_settling()).
 *
 * A batch spans shards, which a single server allows. In a Redis Cluster it must not: there is one
 * for each shard of the turn. */
#include "common/queue_internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/task_id.h"
#include "schemas/mem.h"

#define BATCH_CALLS 256
#define BATCH_BYTES ((size_t)256 * 1024) /* a batch that has so many is sent */

struct call {
    redis_reply_fn *fn;
    void *ctx;
    size_t first, n_args; /* in the batch's args */
    int next;             /* of the same task; -1: none */
};

struct group {
    char task[TASK_ID_SIZE];
    size_t n_args; /* of all its calls */
    int first, last;
};

struct queue_batch {
    struct queue *queue;      /* borrowed */
    struct queue_batch *next; /* being filled, of the same script and another shard */
    int shard;                /* that all its tasks are of; -1: of any */
    enum queue_script script;
    struct queue_args args; /* of the calls, without the task */
    struct call calls[BATCH_CALLS];
    int n_calls;
    struct group groups[BATCH_CALLS];
    int n_groups;
    int order[BATCH_CALLS]; /* of the answers */
    int answered;
    bool known;  /* the keys of known accounts go with it */
    size_t sent; /* so many */
    bool closed; /* the queue was, by one of the callbacks */
};

static struct queue_batch *batch_new(struct queue *queue, enum queue_script script)
{
    struct queue_batch *batch = mem_must_realloc(NULL, sizeof *batch);
    batch->queue = queue;
    batch->next = NULL;
    batch->shard = -1;
    batch->script = script;
    batch->args = (struct queue_args){0};
    batch->n_calls = batch->n_groups = batch->answered = 0;
    batch->known = batch->closed = false;
    return batch;
}

static void batch_free(struct queue_batch *batch)
{
    queue_args_release(&batch->args);
    free(batch);
}

/* Puts n_args arguments, from `first` on, into the batch; group NULL: a new one. */
static void put_call(struct queue_batch *batch, struct group *group, const char *task,
                     const struct queue_args *args, size_t first, size_t n_args, redis_reply_fn *fn,
                     void *ctx)
{
    int index = batch->n_calls++;
    batch->calls[index] = (struct call){fn, ctx, batch->args.n, n_args, -1};
    for (size_t i = 0; i < n_args; i++) {
        size_t len;
        const char *data = queue_arg(args, first + i, &len);
        queue_args_copy(&batch->args, data, len);
    }
    if (group == NULL) {
        group = &batch->groups[batch->n_groups++];
        *group = (struct group){.n_args = 0, .first = index};
        strncat(group->task, task, sizeof group->task - 1);
    } else {
        batch->calls[group->last].next = index;
    }
    group->last = index;
    group->n_args += n_args;
}

/* --- answers ------------------------------------------------------------------------------ */

static void batch_send(struct queue_batch *batch);

static void send_alone(struct queue_batch *batch, const struct group *group,
                       const struct call *call, bool known)
{
    struct queue_batch *alone = batch_new(batch->queue, batch->script);
    alone->known = known;
    put_call(alone, NULL, group->task, &batch->args, call->first, call->n_args, call->fn,
             call->ctx);
    batch_send(alone);
}

static const struct group *group_of(const struct queue_batch *batch, int call)
{
    for (int i = 0; i < batch->n_groups; i++)
        for (int at = batch->groups[i].first; at >= 0; at = batch->calls[at].next)
            if (at == call)
                return &batch->groups[i];
    return NULL; /* each is in one */
}

/* value NULL: the queue was closed. */
static void answer_next(struct queue_batch *batch, const struct redis_value *value)
{
    int index = batch->answered++;
    const struct call *call = &batch->calls[batch->order[index]];
    if (value == NULL) {
        redis_answer_closed(call->fn, call->ctx);
        return;
    }
    const struct redis_value *answer =
        redis_type(value) == REDIS_ERR ? value : redis_at(value, (size_t)index);
    if (queue_known_missing(batch->queue, answer, batch->sent))
        send_alone(batch, group_of(batch, batch->order[index]), call, true);
    else if (call->fn != NULL)
        call->fn(call->ctx, answer);
}

static bool is_to_be_repeated(const struct queue_batch *batch, const struct redis_value *value)
{
    struct err err;
    return batch->n_calls > 1 && redis_type(value) == REDIS_ERR &&
           strncmp(redis_str(value, NULL), "CLOSED", 6) != 0 &&
           queue_status_of(value, &err) == QUEUE_ERROR;
}

static void send_each_alone(struct queue_batch *batch)
{
    for (int i = 0; i < batch->n_groups; i++)
        for (int at = batch->groups[i].first; at >= 0; at = batch->calls[at].next)
            send_alone(batch, &batch->groups[i], &batch->calls[at], batch->known);
}

static void batch_answered(void *ctx, const struct redis_value *value)
{
    struct queue_batch *batch = ctx;
    if (is_to_be_repeated(batch, value)) {
        send_each_alone(batch);
        batch_free(batch);
        return;
    }
    batch->queue->answering = batch;
    while (batch->answered < batch->n_calls)
        answer_next(batch, value);
    if (!batch->closed)
        batch->queue->answering = NULL;
    batch_free(batch);
}

/* --- sending ------------------------------------------------------------------------------ */

/* Takes the batch. */
static void batch_send(struct queue_batch *batch)
{
    struct queue_args *out = &batch->queue->batch_args;
    char keys[QUEUE_KEYS_MAX][QUEUE_KEY_SIZE];
    int n_keys = 0, n_answers = 0;
    queue_args_clear(out);
    for (int i = 0; i < batch->n_groups; i++) {
        int n = queue_keys(batch->script, batch->groups[i].task, keys);
        for (int key = 0; key < n; key++)
            queue_args_copy(out, keys[key], strlen(keys[key]));
        n_keys += n;
    }
    batch->sent = batch->known ? queue_known_keys(batch->queue, out) : 0;
    n_keys += (int)batch->sent;
    for (int i = 0; i < batch->n_groups; i++) {
        const struct group *group = &batch->groups[i];
        queue_args_str(out, group->task);
        queue_args_printf(out, "%zu", group->n_args);
        for (int at = group->first; at >= 0; at = batch->calls[at].next) {
            const struct call *call = &batch->calls[at];
            batch->order[n_answers++] = at;
            for (size_t arg = 0; arg < call->n_args; arg++) {
                size_t len;
                const char *data = queue_arg(&batch->args, call->first + arg, &len);
                queue_args_bytes(out, data, len);
            }
        }
    }
    queue_eval(batch->queue, out, batch->script, n_keys, batch_answered, batch);
}

/* Takes it out of those that are being filled, and sends it. */
static void flush_one(struct queue_batch *batch)
{
    struct queue_batch **at = &batch->queue->batches[batch->script];
    while (*at != batch)
        at = &(*at)->next;
    *at = batch->next;
    batch_send(batch);
}

void queue_batch_flush(struct queue *queue)
{
    for (int script = 0; script < QUEUE_BATCH_COUNT; script++)
        while (queue->batches[script] != NULL)
            flush_one(queue->batches[script]);
}

static struct group *find_group(struct queue_batch *batch, const char *task)
{
    for (int i = batch->n_groups - 1; i >= 0; i--)
        if (strcmp(batch->groups[i].task, task) == 0)
            return &batch->groups[i];
    return NULL;
}

/* Whether the subtask in the arguments to come has a call in the group. */
static bool has_sub(const struct queue_batch *batch, const struct group *group,
                    const struct queue_args *args)
{
    size_t len, other_len;
    const char *sub = queue_arg(args, 1, &len);
    for (int at = group->first; at >= 0; at = batch->calls[at].next) {
        const char *other = queue_arg(&batch->args, batch->calls[at].first, &other_len);
        if (other_len == len && memcmp(other, sub, len) == 0)
            return true;
    }
    return false;
}

/* The batch that takes calls of the task, or NULL: none does yet. */
static struct queue_batch *find_batch(const struct queue *queue, enum queue_script script,
                                      int shard)
{
    struct queue_batch *batch = queue->batches[script];
    while (batch != NULL && batch->shard != shard)
        batch = batch->next;
    return batch;
}

void queue_batch_add(struct queue *queue, enum queue_script script, const char *task, bool known,
                     redis_reply_fn *fn, void *ctx)
{
    const struct queue_args *args = &queue->args; /* of which the first is the task */
    int shard = redis_is_cluster(queue->redis) ? task_shard(task) : -1;
    struct queue_batch *batch = find_batch(queue, script, shard);
    struct group *group = batch != NULL ? find_group(batch, task) : NULL;
    if (group != NULL && (script == SCRIPT_submit || has_sub(batch, group, args))) {
        flush_one(batch);
        batch = NULL;
        group = NULL;
    }
    if (batch == NULL) {
        batch = batch_new(queue, script);
        batch->shard = shard;
        batch->next = queue->batches[script];
        queue->batches[script] = batch;
    }
    put_call(batch, group, task, args, 1, args->n - 1, fn, ctx);
    batch->known = batch->known || known;
    if (batch->n_calls == BATCH_CALLS || batch->args.text.len >= BATCH_BYTES)
        flush_one(batch);
}

void queue_batch_close(struct queue *queue)
{
    struct queue_batch *batch = queue->answering;
    queue_batch_flush(queue); /* the client will answer these */
    if (batch == NULL)
        return;
    batch->closed = true;
    while (batch->answered < batch->n_calls)
        answer_next(batch, NULL);
    queue->answering = NULL;
}
