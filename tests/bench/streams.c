/* Calls in flight in one worker process: 10,000 streams of 30 tokens/s each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "tests/bench/bench.h"

#define STREAMS 10000

static const char yaml[] =
    "providers:\n  sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
    "models:\n  slow: {provider: sim, name: slow, local: true}\n"
    "workers:\n  - {name: sim-0, provider: sim, concurrency: 10000}\n"
    "roles:\n  general: {models: [slow]}\n";
/* 30 tokens/s for 15 s, written once a second: what arrives together is read together. */
static const char scenario[] = "rules:\n  - tokens: 450\n    timing: {decode_tps: 30, "
                               "prefill_tps: 0, burst_ms: 1000}\n";

struct streams {
    uv_loop_t loop;
    struct queue *queue;
    int unanswered;
    struct queue_depths depths;
    bool read;
};

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    struct streams *streams = ctx;
    streams->unanswered--;
    if (status != QUEUE_OK)
        fprintf(stderr, "bench: submit: %s %s\n", queue_status_name(status), err);
}

static void have_depths(void *ctx, const struct queue_depths *depths, const char *err)
{
    (void)err;
    struct streams *streams = ctx;
    if (depths != NULL)
        streams->depths = *depths;
    streams->read = true;
}

static void submit_all(struct streams *streams)
{
    struct queue_node node = testbed_node("n", BENCH_PROMPT);
    streams->unanswered = STREAMS;
    for (int i = 0; i < STREAMS; i++) {
        char id[TASK_ID_SIZE];
        task_id_make(id);
        queue_submit(streams->queue,
                     &(struct queue_task){.id = id,
                                          .digest = "d",
                                          .title = "bench",
                                          .info = {"{}", 2},
                                          .nodes = &node,
                                          .n_nodes = 1},
                     submitted, streams);
    }
    while (streams->unanswered > 0)
        uv_run(&streams->loop, UV_RUN_ONCE);
}

static void nothing(void *ctx)
{
    (void)ctx;
}

static void run(void)
{
    struct testbed stack;
    testbed_init(&stack, yaml, scenario);
    testbed_start(&stack, (const char *[]){"sim-0", NULL});
    struct streams streams = {0};
    loop_init(&streams.loop);
    struct redis_options options = fixture_redis_options(&stack.fixture);
    if (queue_open(&streams.queue, &streams.loop, &options, NULL, NULL, NULL) != 0)
        abort();
    struct loop_timer *tick = loop_timer_new(&streams.loop, nothing, NULL);
    loop_timer_start(tick, 100, 100);
    submit_all(&streams);
    double rss = 0, started = clock_ms_f();
    int64_t peak = 0, failures = 0;
    do {
        json_t *stats = testbed_sim(&stack, "stats");
        int64_t in_flight = json_int(stats, "in_flight", 0);
        failures = json_int(stats, "requests", 0) - STREAMS;
        json_decref(stats);
        peak = in_flight > peak ? in_flight : peak;
        double now = bench_rss_mb(stack.workers[0]);
        rss = now > rss ? now : rss;
        streams.read = false;
        queue_depths(streams.queue, have_depths, &streams);
        while (!streams.read)
            uv_run(&streams.loop, UV_RUN_ONCE);
        for (int i = 0; i < 5; i++)
            uv_run(&streams.loop, UV_RUN_ONCE);
    } while (streams.depths.ready + streams.depths.running + streams.depths.delayed > 0 &&
             clock_ms_f() - started < 240000);
    double seconds = (clock_ms_f() - started) / 1000;
    fprintf(
        stderr,
        "bench: %d streams in %.1f s, peak %lld in flight, %lld calls repeated, %lld dead; worker "
        "CPU %.1f s, simulator CPU %.1f s\n",
        STREAMS, seconds, (long long)peak, (long long)failures, (long long)streams.depths.dead,
        bench_cpu_seconds(stack.workers[0]), bench_cpu_seconds(stack.sim));
    bool clean = failures == 0 && streams.depths.dead == 0;
    figure_print(&(struct figure){"streams: calls in flight, no error", (double)peak, "calls", NULL,
                                  0, false, "10,000", peak >= STREAMS && clean});
    figure_print(&(struct figure){"streams: worker's memory at the peak", rss, "MB", NULL, 0, true,
                                  "<= 200 MB", rss <= 200 && peak >= STREAMS});
    loop_timer_free(&tick);
    queue_close(&streams.queue);
    loop_finish(&streams.loop);
    testbed_release(&stack);
}

const struct benchmark benchmark_streams = {
    "streams", "10,000 streams of 30 tokens/s in one worker process", run};
