/* A backlog of subtasks lives in Redis, with so many bytes each: the broker's memory doesn't grow
 * with it. ORCH_BENCH_BACKLOG: how many there are (200,000). */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "schemas/mem.h"
#include "tests/bench/bench.h"

#define BACKLOG 200000
#define IN_FLIGHT 2000
#define WIDE 1000 /* subtasks of a large task */
#define WIDE_TASKS 50

/* No worker: everything waits. */
static const char yaml[] = "providers:\n  noop: {api: noop}\n"
                           "models:\n  noop: {provider: noop, name: noop, local: true}\n"
                           "workers:\n  - {name: noop-0, provider: noop, concurrency: 8}\n"
                           "roles:\n  general: {models: [noop]}\n";

struct filler {
    uv_loop_t loop;
    struct queue *queue;
    int unanswered, failed;
    bool told;
    double used; /* Redis's used_memory */
};

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    (void)err;
    struct filler *filler = ctx;
    filler->unanswered--;
    filler->failed += status != QUEUE_OK;
}

static void submit(struct filler *filler, const struct queue_node *nodes, size_t n)
{
    char id[TASK_ID_SIZE];
    task_id_make(id);
    filler->unanswered++;
    queue_submit(filler->queue,
                 &(struct queue_task){.id = id,
                                      .digest = "d",
                                      .title = "bench",
                                      .info = {"{}", 2},
                                      .nodes = nodes,
                                      .n_nodes = n},
                 submitted, filler);
    while (filler->unanswered >= (n > 1 ? 4 : IN_FLIGHT))
        uv_run(&filler->loop, UV_RUN_ONCE);
}

static void settle(struct filler *filler)
{
    while (filler->unanswered > 0)
        uv_run(&filler->loop, UV_RUN_ONCE);
}

static void fill(struct filler *filler, int n)
{
    struct queue_node node = testbed_node("n", BENCH_PROMPT);
    for (int i = 0; i < n; i++)
        submit(filler, &node, 1);
    settle(filler);
}

static void fill_wide(struct filler *filler)
{
    static char ids[WIDE][8];
    struct queue_node *nodes = mem_must_zalloc(WIDE * sizeof *nodes);
    for (int i = 0; i < WIDE; i++) {
        snprintf(ids[i], sizeof ids[i], "n%d", i);
        nodes[i] = testbed_node(ids[i], BENCH_PROMPT);
    }
    for (int i = 0; i < WIDE_TASKS; i++)
        submit(filler, nodes, WIDE);
    settle(filler);
    free(nodes);
}

static void memory_told(void *ctx, const struct redis_value *value)
{
    struct filler *filler = ctx;
    const char *at = strstr(redis_str(value, NULL), "used_memory:");
    filler->used = at != NULL ? strtod(at + strlen("used_memory:"), NULL) : 0;
    filler->told = true;
}

static double used_memory(struct filler *filler)
{
    filler->told = false;
    redis_simple(queue_redis(filler->queue), memory_told, filler, "INFO memory");
    loop_run_until(&filler->loop, &filler->told, -1);
    return filler->used;
}

static int backlog_size(void)
{
    const char *text = getenv("ORCH_BENCH_BACKLOG");
    int n = text != NULL ? atoi(text) : 0;
    return n >= 1000 ? n : BACKLOG;
}

static void done(void *ctx, const struct redis_value *value)
{
    (void)value;
    *(bool *)ctx = true;
}

static void command(struct filler *filler, const char *words)
{
    bool answered = false;
    redis_simple(queue_redis(filler->queue), done, &answered, words);
    loop_run_until(&filler->loop, &answered, -1);
}

/* As a daemon does when it has applied them. */
static void trim_outboxes(struct filler *filler)
{
    for (int shard = 0; shard < SHARD_COUNT; shard++) {
        char words[64];
        snprintf(words, sizeof words, "XTRIM orch:{s%d}:ev MAXLEN 0", shard);
        command(filler, words);
    }
}

static void print_bytes(const char *name, double bytes)
{
    figure_print(&(struct figure){name, bytes, "bytes", NULL, 0, true, "< 600", bytes < 600});
}

/* What Redis stores of subtasks that wait, and of nothing else. */
static void measure_redis(struct filler *filler, int n)
{
    double used = used_memory(filler);
    fill_wide(filler);
    trim_outboxes(filler);
    double wide = (used_memory(filler) - used) / (WIDE * WIDE_TASKS);
    command(filler, "FLUSHALL");
    used = used_memory(filler);
    fill(filler, n);
    trim_outboxes(filler);
    double all = used_memory(filler) - used;
    fprintf(stderr, "bench: backlog: %d tasks, Redis has %.1f MB\n", n, all / 1e6);
    print_bytes("backlog: Redis, tasks of one", all / n);
    print_bytes("backlog: Redis, tasks of 1,000", wide);
    command(filler, "FLUSHALL");
}

/* Who else grows. Without a worker the daemon tells each task that it waits for one, so Redis does
 * too. */
static void measure_programs(struct testbed *stack, struct filler *filler, int n)
{
    testbed_start(stack, NULL);
    fill(filler, n / 4); /* past the broker's limit already */
    poll(NULL, 0, 2000);
    double broker = bench_rss_mb(stack->broker), daemon = bench_rss_mb(stack->daemon);
    fill(filler, n - n / 4);
    poll(NULL, 0, 2000);
    double broker_growth = bench_rss_mb(stack->broker) - broker;
    double daemon_growth = bench_rss_mb(stack->daemon) - daemon;
    fprintf(stderr, "bench: backlog: broker %.1f MB, daemon %.1f MB, %d submits refused\n",
            bench_rss_mb(stack->broker), bench_rss_mb(stack->daemon), filler->failed);
    figure_print(&(struct figure){"backlog: broker's growth, 1/4 -> all", broker_growth, "MB", NULL,
                                  0, true, "none (<= 1 MB)",
                                  broker_growth <= 1 && filler->failed == 0});
    figure_print(&(struct figure){"backlog: daemon's growth, 1/4 -> all", daemon_growth, "MB", NULL,
                                  0, true, NULL, false});
}

static void run(void)
{
    struct testbed stack;
    struct filler filler = {0};
    int n = backlog_size();
    testbed_init(&stack, yaml, NULL);
    loop_init(&filler.loop);
    struct redis_options options = fixture_redis_options(&stack.fixture);
    if (queue_open(&filler.queue, &filler.loop, &options, NULL, NULL, NULL) != 0)
        abort();
    measure_redis(&filler, n);
    measure_programs(&stack, &filler, n);
    queue_close(&filler.queue);
    loop_finish(&filler.loop);
    testbed_release(&stack);
}

const struct benchmark benchmark_backlog = {"backlog", "waiting subtasks: who pays for them", run};
