/* Submitting: chunks of a task and children of a plan. */
#include "common/queue_internal.h"

#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"

#define CHUNK_NODES 1000
#define CHUNK_BYTES                                                                                \
    ((size_t)32 * 1024 * 1024) /* then the next chunk begins; Redis allows 512 MB                  \
                                */
#define PRIORITY_MAX 127       /* see common/scripts/lib_ready.lua */

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static void add_node(struct queue_args *args, const struct queue_node *node)
{
    queue_args_str(args, node->id);
    queue_args_printf(args, "%lld %lld %d", (long long)clamp(node->max_attempts, 1, 1000000),
                      (long long)clamp(node->priority, -PRIORITY_MAX, PRIORITY_MAX), node->expands);
    struct buf deps = {0};
    for (size_t i = 0; i < node->n_deps; i++) {
        if (i > 0)
            buf_add_char(&deps, ' ');
        buf_add_str(&deps, node->deps[i]);
    }
    queue_args_printf(args, "%s", deps.data != NULL ? deps.data : "");
    buf_release(&deps);
    queue_args_bytes(args, node->work.data, node->work.len);
    queue_args_bytes(args, node->meta.data, node->meta.len);
}

/* --- limits --------------------------------------------------------------------------------- */

/* What is counted of the nodes of a task. A plan's are bounded by whoever reads it. */
struct amount {
    size_t subs, deps, edges, work, bytes;
    const char *widest, *largest; /* ids of the nodes with most dependencies, and most bytes */
};

static struct amount amount_of(const struct queue_node *nodes, size_t n)
{
    struct amount amount = {.subs = n, .widest = "", .largest = ""};
    for (size_t i = 0; i < n; i++) {
        size_t bytes = nodes[i].work.len + nodes[i].meta.len;
        if (nodes[i].n_deps > amount.deps) {
            amount.deps = nodes[i].n_deps;
            amount.widest = nodes[i].id;
        }
        if (bytes > amount.work) {
            amount.work = bytes;
            amount.largest = nodes[i].id;
        }
        amount.edges += nodes[i].n_deps;
        amount.bytes += bytes;
    }
    return amount;
}

/* Whether all is within the limits of queue.h; else why not. */
static bool within_limits(const struct queue_node *nodes, size_t n, struct err *err)
{
    struct amount has = amount_of(nodes, n);
    if (has.subs > QUEUE_SUBS_MAX)
        err_set(err, 0, "%zu subtasks are more than the %d that a task may have: split it",
                has.subs, QUEUE_SUBS_MAX);
    else if (has.deps > QUEUE_DEPS_MAX)
        err_set(err, 0,
                "subtask %s has %zu dependencies, of %d that it may have: join some of them in "
                "subtasks between",
                has.widest, has.deps, QUEUE_DEPS_MAX);
    else if (has.edges > QUEUE_EDGES_MAX)
        err_set(err, 0, "%zu dependencies are more than the %d that a task may have: split it",
                has.edges, QUEUE_EDGES_MAX);
    else if (has.work > QUEUE_WORK_MAX)
        err_set(err, 0, "subtask %s has %zu MiB, of %zu that it may have: give it less",
                has.largest, has.work >> 20, QUEUE_WORK_MAX >> 20);
    else if (has.bytes > QUEUE_BYTES_MAX)
        err_set(err, 0, "%zu MiB are more than the %zu that a task may have: split it",
                has.bytes >> 20, QUEUE_BYTES_MAX >> 20);
    else
        return true;
    return false;
}

static void add_limits(struct queue_args *args, const struct queue_spend *limit)
{
    if (limit->nano_usd <= 0 && limit->tokens <= 0)
        queue_args_str(args, "");
    else
        queue_args_spend(args, limit);
}

/* How many of the nodes make the next chunk. */
static size_t chunk_size(const struct queue_node *nodes, size_t n)
{
    size_t bytes = 0, i = 0;
    while (i < n && i < CHUNK_NODES && (i == 0 || bytes < CHUNK_BYTES)) {
        bytes += nodes[i].work.len + nodes[i].meta.len;
        i++;
    }
    return i;
}

static size_t count_chunks(const struct queue_task *task)
{
    size_t chunks = 0;
    for (size_t at = 0; at < task->n_nodes; chunks++)
        at += chunk_size(task->nodes + at, task->n_nodes - at);
    return chunks;
}

/* The chunks' answers, until all are there. */
struct submission {
    queue_fn *fn;
    void *ctx;
    size_t missing;
    bool activated;
    enum queue_status worst; /* OK while no chunk failed */
    struct err err;
};

static void chunk_answered(void *ctx, const struct redis_value *value)
{
    struct submission *submission = ctx;
    /* MORE: stored, and other chunks are still missing. */
    bool more = strcmp(redis_str(value, NULL), "MORE") == 0;
    struct err err = {""};
    enum queue_status status = more ? QUEUE_DUP : queue_status_of(value, &err);
    submission->activated = submission->activated || status == QUEUE_OK;
    if (status != QUEUE_OK && status != QUEUE_DUP && submission->worst == QUEUE_OK) {
        submission->worst = status;
        submission->err = err;
    }
    if (--submission->missing > 0)
        return;
    if (submission->worst == QUEUE_OK && !submission->activated)
        submission->worst = QUEUE_DUP;
    if (submission->fn != NULL)
        submission->fn(submission->ctx, submission->worst, submission->err.text);
    free(submission);
}

void queue_submit(struct queue *queue, const struct queue_task *task, queue_fn *fn, void *ctx)
{
    size_t chunks = count_chunks(task);
    if (chunks == 0) {
        fn(ctx, QUEUE_ERROR, "a task needs at least one subtask");
        return;
    }
    struct err err;
    if (!within_limits(task->nodes, task->n_nodes, &err)) {
        fn(ctx, QUEUE_ERROR, err.text);
        return;
    }
    struct submission *submission = mem_must_zalloc(sizeof *submission);
    *submission = (struct submission){.fn = fn, .ctx = ctx, .missing = chunks};
    size_t at = 0;
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        size_t n = chunk_size(task->nodes + at, task->n_nodes - at);
        struct queue_args *args = queue_begin(queue, task->id);
        queue_args_str(args, task->digest);
        queue_args_str(args, task->title);
        queue_args_bytes(args, task->info.data, task->info.len);
        queue_args_printf(args, "%zu", chunks);
        queue_args_printf(args, "%zu", chunk);
        queue_args_printf(args, "%zu", at);
        add_limits(args, &task->budget);
        for (size_t i = 0; i < n; i++)
            add_node(args, &task->nodes[at + i]);
        queue_run(queue, SCRIPT_submit, task->id, chunk_answered, submission);
        at += n;
    }
}

void queue_expand(struct queue *queue, const char *task, const char *parent,
                  const struct queue_node *nodes, size_t n_nodes, queue_fn *fn, void *ctx)
{
    struct queue_args *args = queue_begin(queue, task);
    queue_args_str(args, parent);
    for (size_t i = 0; i < n_nodes; i++)
        add_node(args, &nodes[i]);
    queue_run_plain(queue, SCRIPT_expand, task, fn, ctx);
}
