/* The time for 20,000 subtasks of 200 ms with the credit of 1 to 16 hosts, each one worker of 50
 * calls at a time. The calls are the simulator's, so the time is spent waiting: what the ratio
 * loses is what this machine cannot do at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/task_id.h"
#include "schemas/mem.h"
#include "tests/bench/bench.h"

#define SUBTASKS 20000
#define NODES 100 /* of a task */
#define CREDIT 50
#define CALL_MS 200
#define HOSTS_MAX 16
#define GIVE_UP_MS 300000

static const char head[] =
    "providers:\n  sim: {api: openai, base_url: \"http://127.0.0.1:%d\", key: \"cmd:echo none\"}\n"
    "models:\n  m: {provider: sim, name: sim, local: true}\n"
    "roles:\n  general: {models: [m]}\nworkers:\n";
static const char scenario[] =
    "rules:\n  - {match: {}, tokens: 1, timing: {load_ms: 200, prefill_tps: 0, decode_tps: 0}}\n";

/* CPU time of each part, in seconds. */
struct usage {
    double redis, daemon, broker, workers, sim, self;
};

static struct usage usage_of(const struct testbed *stack, int hosts)
{
    struct usage usage = {.redis = bench_cpu_seconds(stack->fixture.redis_pid),
                          .daemon = bench_cpu_seconds(stack->daemon),
                          .broker = bench_cpu_seconds(stack->broker),
                          .sim = bench_cpu_seconds(stack->sim),
                          .self = bench_cpu_seconds(getpid())};
    for (int i = 0; i < hosts; i++)
        usage.workers += bench_cpu_seconds(stack->workers[i]);
    return usage;
}

static void print_usage(int hosts, double seconds, const struct usage *from, const struct usage *to)
{
    fprintf(stderr,
            "bench: %2d hosts: %.2f s, %.0f subtasks/s; cores used: redis %.2f, daemon %.2f, "
            "broker %.2f, workers %.2f, simulator %.2f\n",
            hosts, seconds, SUBTASKS / seconds, (to->redis - from->redis) / seconds,
            (to->daemon - from->daemon) / seconds, (to->broker - from->broker) / seconds,
            (to->workers - from->workers) / seconds, (to->sim - from->sim) / seconds);
}

struct load {
    struct queue *queue;
    struct queue_node nodes[NODES];
    int unanswered, failed;
    bool counted;
    int64_t left;
};

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    struct load *load = ctx;
    load->unanswered--;
    if (status != QUEUE_OK && status != QUEUE_DUP && load->failed++ == 0)
        fprintf(stderr, "bench: submit: %s %s\n", queue_status_name(status), err);
}

static void submit_all(struct load *load, uv_loop_t *loop)
{
    for (int i = 0; i < SUBTASKS / NODES; i++) {
        char id[TASK_ID_SIZE];
        task_id_make(id);
        struct queue_task task = {.id = id,
                                  .digest = "d",
                                  .title = "scale",
                                  .info = {.data = "{}", .len = 2},
                                  .nodes = load->nodes,
                                  .n_nodes = NODES};
        load->unanswered++;
        queue_submit(load->queue, &task, submitted, load);
    }
    while (load->unanswered > 0)
        uv_run(loop, UV_RUN_ONCE);
}

static void counted(void *ctx, const struct queue_depths *depths, const char *err)
{
    struct load *load = ctx;
    (void)err;
    load->counted = true;
    load->left = depths != NULL ? depths->ready + depths->running + depths->delayed : -1;
}

static void wait_until_done(struct load *load, uv_loop_t *loop)
{
    bool never = false;
    double until_ms = clock_ms_f() + GIVE_UP_MS;
    for (load->left = -1; load->left != 0 && clock_ms_f() < until_ms;) {
        loop_run_until(loop, &never, 20);
        load->counted = false;
        queue_depths(load->queue, counted, load);
        loop_run_until(loop, &load->counted, GIVE_UP_MS);
    }
    if (load->left != 0)
        fprintf(stderr, "bench: %lld subtasks are left\n", (long long)load->left);
}

/* Seconds from the first submit to the last commit. */
static double measure(int hosts)
{
    struct testbed stack;
    struct buf yaml = {0};
    char name[16];
    buf_add_str(&yaml, head);
    for (int i = 0; i < hosts; i++)
        buf_printf(&yaml, "  - {name: h%d, provider: sim, concurrency: %d}\n", i, CREDIT);
    testbed_init(&stack, yaml.data, scenario);
    buf_release(&yaml);
    testbed_start_broker(&stack);
    testbed_start_daemon(&stack);
    for (int i = 0; i < hosts; i++) {
        snprintf(name, sizeof name, "h%d", i);
        testbed_start_worker(&stack, i, name);
    }
    uv_loop_t loop;
    loop_init(&loop);
    struct load load = {0};
    struct redis_options redis = fixture_redis_options(&stack.fixture);
    if (queue_open(&load.queue, &loop, &redis, NULL, NULL, NULL) != 0)
        abort();
    for (int i = 0; i < NODES; i++)
        load.nodes[i] = testbed_node(mem_must_printf("n%d", i), BENCH_PROMPT);
    struct usage from = usage_of(&stack, hosts);
    double started_ms = clock_ms_f();
    submit_all(&load, &loop);
    wait_until_done(&load, &loop);
    double seconds = (clock_ms_f() - started_ms) / 1000;
    struct usage to = usage_of(&stack, hosts);
    print_usage(hosts, seconds, &from, &to);
    queue_close(&load.queue);
    loop_finish(&loop);
    testbed_release(&stack);
    return seconds;
}

static void run(void)
{
    double one = 0;
    for (int hosts = 1; hosts <= HOSTS_MAX; hosts *= 2) {
        char name[64];
        double seconds = measure(hosts), ideal = SUBTASKS * CALL_MS / 1000.0 / CREDIT / hosts;
        one = hosts == 1 ? seconds : one;
        snprintf(name, sizeof name, "scale: %d hosts, %.1fx as fast as one", hosts, one / seconds);
        figure_print(&(struct figure){name, seconds, "s", "calls alone", ideal, true,
                                      "in proportion", seconds <= 1.25 * ideal});
    }
}

const struct benchmark benchmark_scale = {
    "scale", "time for 20,000 subtasks of 200 ms with the credit of 1 to 16 hosts", run};
