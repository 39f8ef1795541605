/* Durable subtasks per second: submitted by one client, offered by the daemon, dispatched by the
 * broker, claimed and committed by no-op workers; every write fsynced before it is acknowledged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "schemas/mem.h"
#include "tests/bench/bench.h"

#define JOBS 100000
#define BULLMQ_JOBS 30000
#define DAG_NODES 100
#define IN_FLIGHT 2000 /* submits without an answer yet, at most */

static const char yaml[] = "providers:\n  noop: {api: noop}\n"
                           "models:\n  noop: {provider: noop, name: noop, local: true}\n"
                           "workers:\n  - {name: noop-0, provider: noop, concurrency: 256}\n"
                           "roles:\n  general: {models: [noop]}\n";

struct submitter {
    struct queue *queue;
    int to_send, unanswered, failed;
    int nodes; /* per task */
    struct queue_node *node;
};

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    struct submitter *submitter = ctx;
    submitter->unanswered--;
    if (status != QUEUE_OK && submitter->failed++ == 0)
        fprintf(stderr, "bench: submit: %s %s\n", queue_status_name(status), err);
}

static void submit_more(struct submitter *submitter)
{
    while (submitter->to_send > 0 && submitter->unanswered < IN_FLIGHT / submitter->nodes + 1) {
        char id[TASK_ID_SIZE];
        task_id_make(id);
        struct queue_task task = {.id = id,
                                  .digest = "d",
                                  .title = "bench",
                                  .info = {.data = "{}", .len = 2},
                                  .nodes = submitter->node,
                                  .n_nodes = (size_t)submitter->nodes};
        submitter->unanswered++;
        submitter->to_send--;
        queue_submit(submitter->queue, &task, submitted, submitter);
    }
}

/* One node, or a graph of DAG_NODES: ten layers of ten, each node depending on two of the layer
 * before. */
static struct queue_node *make_nodes(int n)
{
    struct queue_node *nodes = mem_must_zalloc((size_t)n * sizeof *nodes);
    for (int i = 0; i < n; i++) {
        nodes[i] = testbed_node(mem_must_printf("n%d", i), BENCH_PROMPT);
        if (i < 10)
            continue;
        const char **deps = mem_must_zalloc(2 * sizeof *deps);
        deps[0] = nodes[i - 10].id;
        deps[1] = nodes[i / 10 * 10 - 10 + (i + 1) % 10].id;
        nodes[i].deps = deps;
        nodes[i].n_deps = 2;
    }
    return nodes;
}

struct finished {
    int64_t tasks;
    int waiting;
};

static void count_finished(void *ctx, const struct redis_value *value)
{
    struct finished *finished = ctx;
    finished->tasks += redis_int(value);
    finished->waiting--;
}

static int64_t finished_tasks(uv_loop_t *loop, struct redis *redis)
{
    struct finished finished = {.waiting = SHARD_COUNT};
    for (int shard = 0; shard < SHARD_COUNT; shard++) {
        char key[32];
        snprintf(key, sizeof key, "orch:{s%d}:fin", shard);
        redis_command(redis, count_finished, &finished, 2, (const char *[]){"ZCARD", key}, NULL);
    }
    while (finished.waiting > 0)
        uv_run(loop, UV_RUN_ONCE);
    return finished.tasks;
}

static void nothing(void *ctx)
{
    (void)ctx;
}

/* Subtasks per second of `tasks` tasks with `nodes` nodes each. */
static double measure(int tasks, int nodes)
{
    struct testbed stack;
    testbed_init(&stack, yaml, NULL);
    testbed_start(&stack, (const char *[]){"noop-0", NULL});
    uv_loop_t loop;
    loop_init(&loop);
    struct redis_options options = fixture_redis_options(&stack.fixture);
    struct submitter submitter = {.to_send = tasks, .nodes = nodes, .node = make_nodes(nodes)};
    if (queue_open(&submitter.queue, &loop, &options, NULL, NULL, NULL) != 0)
        abort();
    struct loop_timer *tick = loop_timer_new(&loop, nothing, NULL);
    loop_timer_start(tick, 10, 10);
    double cpu_daemon = bench_cpu_seconds(stack.daemon),
           cpu_broker = bench_cpu_seconds(stack.broker);
    double cpu_worker = bench_cpu_seconds(stack.workers[0]);
    double cpu_redis = bench_cpu_seconds(stack.fixture.redis_pid),
           cpu_self = bench_cpu_seconds(getpid());
    double started = clock_ms_f();
    while (submitter.to_send > 0 || submitter.unanswered > 0) {
        submit_more(&submitter);
        uv_run(&loop, UV_RUN_ONCE);
    }
    double sent = clock_ms_f() - started, checked = 0;
    for (;;) {
        if (clock_ms_f() - checked > 20) {
            checked = clock_ms_f();
            if (finished_tasks(&loop, queue_redis(submitter.queue)) >= tasks - submitter.failed)
                break;
        }
        if (clock_ms_f() - started > 120000) {
            fprintf(stderr, "bench: not all tasks finished within 120 s\n");
            break;
        }
        uv_run(&loop, UV_RUN_ONCE);
    }
    double seconds = (clock_ms_f() - started) / 1000;
    double n = (double)tasks * nodes;
    fprintf(stderr,
            "bench: %d tasks of %d: %.2f s (submitted after %.2f s); CPU per subtask in us: redis "
            "%.1f, daemon %.1f, broker %.1f, worker %.1f, submitter %.1f\n",
            tasks, nodes, seconds, sent / 1000,
            (bench_cpu_seconds(stack.fixture.redis_pid) - cpu_redis) * 1e6 / n,
            (bench_cpu_seconds(stack.daemon) - cpu_daemon) * 1e6 / n,
            (bench_cpu_seconds(stack.broker) - cpu_broker) * 1e6 / n,
            (bench_cpu_seconds(stack.workers[0]) - cpu_worker) * 1e6 / n,
            (bench_cpu_seconds(getpid()) - cpu_self) * 1e6 / n);
    loop_timer_free(&tick);
    queue_close(&submitter.queue);
    loop_finish(&loop);
    testbed_release(&stack);
    return n / seconds;
}

static void print_rate(const char *name, double value, double peer)
{
    figure_print(&(struct figure){name, value, "subtasks/s", peer > 0 ? "BullMQ add+process" : NULL,
                                  peer, false, ">= 3x peer", peer > 0 && value >= 3 * peer});
}

static void run(void)
{
    double bulk = 0, add = 0; /* the better of BullMQ's two ways to add is the peer */
    bench_bullmq("bulk", BULLMQ_JOBS, "per_second", &bulk, NULL, NULL);
    bench_bullmq("single", BULLMQ_JOBS, "per_second", &add, NULL, NULL);
    double peer = bulk > add ? bulk : add;
    print_rate("throughput: single-node tasks", measure(JOBS, 1), peer);
    print_rate("throughput: 100-node DAGs", measure(JOBS / DAG_NODES, DAG_NODES), peer);
}

const struct benchmark benchmark_throughput = {
    "throughput", "durable subtasks per second with a no-op worker, against BullMQ", run};
