/* From the submit call to the committed result seen by the client, one task at a time: broker,
 * daemon, worker and a provider over real HTTP that answers at once; every write fsynced. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "tests/bench/bench.h"

#define JOBS 2000
#define WARM_UP 100

static const char yaml[] =
    "providers:\n  sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
    "models:\n  fast: {provider: sim, name: fast, local: true}\n"
    "workers:\n  - {name: sim-0, provider: sim, concurrency: 64}\n"
    "roles:\n  general: {models: [fast]}\n";
static const char scenario[] =
    "rules:\n  - reply: {text: ok}\n    timing: {decode_tps: 0, prefill_tps: 0}\n";

struct run {
    uv_loop_t loop;
    struct queue *queue;
    bool finished, settled;
    struct queue_node node;
};

static void logged(void *ctx, const struct queue_log_entry *entry)
{
    struct run *run = ctx;
    run->finished = run->finished || strcmp(entry->what, "task-done") == 0;
}

static void settle(void *ctx)
{
    ((struct run *)ctx)->settled = true;
}

/* The follower is connected before the clock starts, as a client that submits many tasks has it. */
static double once(struct run *run)
{
    char id[TASK_ID_SIZE];
    task_id_make(id);
    struct queue_log_follow *follow;
    struct loop_timer *timer = loop_timer_new(&run->loop, settle, run);
    run->finished = run->settled = false;
    if (queue_log_open(&follow, run->queue, id, "0", logged, run, NULL) != 0)
        abort();
    loop_timer_start(timer, 3, 0);
    loop_run_until(&run->loop, &run->settled, 1000);
    loop_timer_free(&timer);
    struct queue_task task = {.id = id,
                              .digest = "d",
                              .title = "bench",
                              .info = {.data = "{}", .len = 2},
                              .nodes = &run->node,
                              .n_nodes = 1};
    double started = clock_ms_f();
    queue_submit(run->queue, &task, NULL, NULL);
    if (loop_run_until(&run->loop, &run->finished, 20000) != 0) {
        fprintf(stderr, "bench: a task did not finish within 20 s\n");
        exit(2);
    }
    double ms = clock_ms_f() - started;
    queue_log_close(&follow);
    return ms;
}

static void measure(double samples[JOBS])
{
    struct testbed stack;
    testbed_init(&stack, yaml, scenario);
    testbed_start(&stack, (const char *[]){"sim-0", NULL});
    struct run run = {.node = testbed_node("n", BENCH_PROMPT)};
    loop_init(&run.loop);
    struct redis_options options = fixture_redis_options(&stack.fixture);
    if (queue_open(&run.queue, &run.loop, &options, NULL, NULL, NULL) != 0)
        abort();
    for (int i = 0; i < WARM_UP; i++)
        once(&run);
    for (int i = 0; i < JOBS; i++)
        samples[i] = once(&run);
    queue_close(&run.queue);
    loop_finish(&run.loop);
    testbed_release(&stack);
}

static void run_latency(void)
{
    double p50 = 0, p99 = 0;
    bool has_peer = bench_bullmq("latency", JOBS, "p50_ms", &p50, "p99_ms", &p99);
    const char *peer = has_peer ? "BullMQ add->finished" : NULL;
    static double samples[JOBS];
    measure(samples);
    double own50 = bench_quantile(samples, JOBS, 0.5), own99 = bench_quantile(samples, JOBS, 0.99);
    figure_print(&(struct figure){"latency: submit -> result, p50", own50, "ms", peer, p50, true,
                                  "<= 1 ms", own50 <= 1});
    figure_print(&(struct figure){"latency: submit -> result, p99", own99, "ms", peer, p99, true,
                                  "<= 5 ms", own99 <= 5});
}

const struct benchmark benchmark_latency = {
    "latency", "submit to committed result through real HTTP, one at a time, against BullMQ",
    run_latency};
