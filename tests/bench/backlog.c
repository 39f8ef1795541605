/* A backlog of 200,000 subtasks lives in Redis: the broker's memory doesn't grow with it. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "tests/bench/bench.h"

#define BACKLOG 200000
#define IN_FLIGHT 2000

/* No worker: everything waits. */
static const char yaml[] = "providers:\n  noop: {api: noop}\n"
                           "models:\n  noop: {provider: noop, name: noop, local: true}\n"
                           "workers:\n  - {name: noop-0, provider: noop, concurrency: 8}\n"
                           "roles:\n  general: {models: [noop]}\n";

struct filler {
    uv_loop_t loop;
    struct queue *queue;
    int unanswered, failed;
};

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    (void)err;
    struct filler *filler = ctx;
    filler->unanswered--;
    filler->failed += status != QUEUE_OK;
}

static void fill(struct filler *filler, int n)
{
    struct queue_node node = testbed_node("n", BENCH_PROMPT);
    for (int i = 0; i < n; i++) {
        char id[TASK_ID_SIZE];
        task_id_make(id);
        filler->unanswered++;
        queue_submit(filler->queue,
                     &(struct queue_task){.id = id,
                                          .digest = "d",
                                          .title = "bench",
                                          .info = {"{}", 2},
                                          .nodes = &node,
                                          .n_nodes = 1},
                     submitted, filler);
        while (filler->unanswered >= IN_FLIGHT)
            uv_run(&filler->loop, UV_RUN_ONCE);
    }
    while (filler->unanswered > 0)
        uv_run(&filler->loop, UV_RUN_ONCE);
}

static void run(void)
{
    struct testbed stack;
    testbed_init(&stack, yaml, NULL);
    testbed_start(&stack, NULL);
    struct filler filler = {0};
    loop_init(&filler.loop);
    struct redis_options options = fixture_redis_options(&stack.fixture);
    if (queue_open(&filler.queue, &filler.loop, &options, NULL, NULL, NULL) != 0)
        abort();
    fill(&filler, BACKLOG / 4); /* past the broker's limit already */
    poll(NULL, 0, 2000);
    double broker = bench_rss_mb(stack.broker), daemon = bench_rss_mb(stack.daemon);
    double redis = bench_rss_mb(stack.fixture.redis_pid);
    fill(&filler, BACKLOG - BACKLOG / 4);
    poll(NULL, 0, 2000);
    double broker_growth = bench_rss_mb(stack.broker) - broker;
    double daemon_growth = bench_rss_mb(stack.daemon) - daemon;
    double per_subtask = (bench_rss_mb(stack.fixture.redis_pid) - redis) * 1e6 / (BACKLOG * 0.75);
    fprintf(stderr, "bench: backlog: broker %.1f MB, daemon %.1f MB, %d submits refused\n",
            bench_rss_mb(stack.broker), bench_rss_mb(stack.daemon), filler.failed);
    figure_print(&(struct figure){"backlog: broker's growth, 50k -> 200k", broker_growth, "MB",
                                  NULL, 0, true, "none (<= 1 MB)",
                                  broker_growth <= 1 && filler.failed == 0});
    figure_print(&(struct figure){"backlog: daemon's growth, 50k -> 200k", daemon_growth, "MB",
                                  NULL, 0, true, NULL, false});
    figure_print(&(struct figure){"backlog: Redis memory per subtask", per_subtask, "bytes", NULL,
                                  0, true, NULL, false});
    queue_close(&filler.queue);
    loop_finish(&filler.loop);
    testbed_release(&stack);
}

const struct benchmark benchmark_backlog = {"backlog",
                                            "200,000 waiting subtasks: who pays for them", run};
