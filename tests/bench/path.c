/* What the way through broker, daemon and worker adds to a provider's call: streams of 20 chunks
 * offered at a fixed rate, timed from the acknowledged submit until the commit is seen in the
 * outbox, against the same calls made straight to the provider at the same rate. Then how many such
 * streams a second go through one worker. Every write is fsynced. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/containers.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "schemas/mem.h"
#include "tests/bench/bench.h"
#include "workers/exchange.h"

#define RATE 500  /* calls a second */
#define JOBS 5000 /* of which the first WARM_UP don't count */
#define WARM_UP 500
#define BURST 40000 /* streams of the second figure */
#define IN_FLIGHT 2000
#define PATIENCE_MS 120000

static const char yaml[] =
    "providers:\n  sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
    "models:\n  fast: {provider: sim, name: fast, local: true}\n"
    "workers:\n  - {name: sim-0, provider: sim, concurrency: 256}\n"
    "roles:\n  general: {models: [fast]}\n";
/* 20 chunks within 50 ms; all of them at once. */
static const char paced[] =
    "rules:\n  - tokens: 20\n    timing: {decode_tps: 400, prefill_tps: 0}\n";
static const char at_once[] =
    "rules:\n  - tokens: 20\n    timing: {decode_tps: 0, prefill_tps: 0}\n";

struct job {
    char task[TASK_ID_SIZE];
    double started_ms; /* submit acknowledged, or call started */
    double ended_ms;   /* 0: not yet */
    struct path *path;
    UT_hash_handle hh;
};

struct path {
    uv_loop_t loop;
    struct queue *queue;
    struct queue_node node;
    struct job *jobs, *by_task;
    int n_jobs, sent, done, unanswered;
    double began_ms;
    /* straight to the provider */
    struct exchanges *exchanges;
    char base_url[64];
};

static void ended(struct job *job)
{
    if (job->ended_ms > 0)
        return;
    job->ended_ms = clock_ms_f();
    job->path->done++;
}

static void job_submitted(void *ctx, enum queue_status status, const char *err)
{
    struct job *job = ctx;
    job->path->unanswered--;
    job->started_ms = clock_ms_f();
    if (status != QUEUE_OK)
        fprintf(stderr, "bench: submit: %s %s\n", queue_status_name(status), err);
}

static void event_seen(void *ctx, const struct queue_event *event)
{
    struct path *path = ctx;
    struct job *job;
    if (event->kind != QUEUE_EVENT_DONE)
        return;
    HASH_FIND_STR(path->by_task, event->task, job);
    if (job != NULL)
        ended(job);
}

static void submit_one(struct path *path)
{
    struct job *job = &path->jobs[path->sent++];
    job->path = path;
    task_id_make(job->task);
    HASH_ADD_STR(path->by_task, task, job);
    path->unanswered++;
    queue_submit(path->queue,
                 &(struct queue_task){.id = job->task,
                                      .digest = "d",
                                      .title = "bench",
                                      .info = {"{}", 2},
                                      .nodes = &path->node,
                                      .n_nodes = 1},
                 job_submitted, job);
}

static void call_done(void *ctx, struct exchange_report *report)
{
    if (report->reply->error != CLASS_NONE)
        fprintf(stderr, "bench: call: %s\n", report->reply->error_text);
    ended(ctx);
}

static void call_one(struct path *path)
{
    struct job *job = &path->jobs[path->sent++];
    struct exchange *exchange;
    struct err err = {0};
    job->path = path;
    job->started_ms = clock_ms_f();
    struct exchange_options options = {
        .provider = provider_find("openai-compatible"),
        .call = {.base_url = path->base_url,
                 .model = "fast",
                 .system = "",
                 .prompt = BENCH_PROMPT,
                 .prompt_len = sizeof BENCH_PROMPT - 1,
                 .temperature = -1,
                 .effort = "",
                 .keep_alive = "",
                 .stream = true},
    };
    if (exchange_start(&exchange, path->exchanges, &options, call_done, job, &err) != 0) {
        fprintf(stderr, "bench: %s\n", err.text);
        exit(2);
    }
}

/* Starts what is due by now: an open loop, whatever the answers do. */
static void pace(void *ctx)
{
    struct path *path = ctx;
    double due = (clock_ms_f() - path->began_ms) * RATE / 1000;
    while (path->sent < path->n_jobs && path->sent < due)
        (path->exchanges != NULL ? call_one : submit_one)(path);
}

static void rush(void *ctx)
{
    struct path *path = ctx;
    while (path->sent < path->n_jobs && path->sent - path->done < IN_FLIGHT)
        submit_one(path);
}

static void run_jobs(struct path *path, int n, void (*more)(void *ctx))
{
    path->n_jobs = n;
    path->jobs = mem_must_zalloc((size_t)n * sizeof *path->jobs);
    struct loop_timer *timer = loop_timer_new(&path->loop, more, path);
    path->began_ms = clock_ms_f();
    loop_timer_start(timer, 1, 1);
    while (path->done < n && clock_ms_f() - path->began_ms < PATIENCE_MS)
        uv_run(&path->loop, UV_RUN_ONCE);
    loop_timer_free(&timer);
    if (path->done < n) {
        fprintf(stderr, "bench: %d of %d are not done\n", n - path->done, n);
        exit(2);
    }
}

static void open_queue(struct path *path, struct testbed *stack)
{
    struct redis_options options = fixture_redis_options(&stack->fixture);
    path->node = testbed_node("n", BENCH_PROMPT);
    if (queue_open(&path->queue, &path->loop, &options, NULL, NULL, NULL) != 0 ||
        queue_follow(path->queue, event_seen, path, NULL) != 0)
        abort();
}

static void close_path(struct path *path)
{
    HASH_CLEAR(hh, path->by_task);
    exchanges_close(&path->exchanges);
    queue_close(&path->queue);
    free(path->jobs);
    loop_finish(&path->loop);
}

static size_t samples_of(const struct path *path, double *samples)
{
    size_t n = 0;
    for (int i = WARM_UP; i < path->n_jobs; i++)
        samples[n++] = path->jobs[i].ended_ms - path->jobs[i].started_ms;
    return n;
}

static void config_set(void *ctx, const struct redis_value *value)
{
    if (redis_type(value) == REDIS_ERR) {
        fprintf(stderr, "bench: %s\n", redis_str(value, NULL));
        exit(2);
    }
    *(bool *)ctx = true;
}

/* What Redis does before it acknowledges a write. */
static void set_fsync(struct path *path, const char *policy)
{
    bool done = false;
    redis_command(queue_redis(path->queue), config_set, &done, 4,
                  (const char *[]){"CONFIG", "SET", "appendfsync", policy}, NULL);
    loop_run_until(&path->loop, &done, PATIENCE_MS);
}

/* Rows of the figure at both policies; only the default has a goal. */
static void print_added(const char *policy, double added50, double added99, double direct50,
                        double direct99)
{
    bool counts = strcmp(policy, "always") == 0;
    figure_print(&(struct figure){
        counts ? "path: added at 500/s, p50" : "path: added, everysec, p50", added50, "ms",
        "direct calls", direct50, true, counts ? "<= 0.5 ms" : NULL, added50 <= 0.5});
    figure_print(&(struct figure){
        counts ? "path: added at 500/s, p99" : "path: added, everysec, p99", added99, "ms",
        "direct calls", direct99, true, counts ? "<= 2 ms" : NULL, added99 <= 2});
}

static void run_added(const char *policy)
{
    static double own[JOBS], floor_ms[JOBS];
    struct testbed stack;
    testbed_init(&stack, yaml, paced);
    struct path direct = {0};
    loop_init(&direct.loop);
    snprintf(direct.base_url, sizeof direct.base_url, "http://127.0.0.1:%d", stack.sim_port);
    if (exchanges_open(&direct.exchanges, &direct.loop, NULL) != 0)
        abort();
    run_jobs(&direct, JOBS, pace);
    size_t n = samples_of(&direct, floor_ms);
    close_path(&direct);

    testbed_start(&stack, (const char *[]){"sim-0", NULL});
    struct path path = {0};
    loop_init(&path.loop);
    open_queue(&path, &stack);
    set_fsync(&path, policy);
    run_jobs(&path, JOBS, pace);
    samples_of(&path, own);
    double direct50 = bench_quantile(floor_ms, n, 0.5),
           direct99 = bench_quantile(floor_ms, n, 0.99);
    double added50 = bench_quantile(own, n, 0.5) - direct50;
    /* Against the usual call, so that the jitter of calls counts against us. */
    double added99 = bench_quantile(own, n, 0.99) - direct50;
    fprintf(stderr,
            "bench: appendfsync %s: direct p50 %.2f p99 %.2f ms, whole path p50 %.2f p99 %.2f ms; "
            "worker CPU %.2f s, "
            "simulator %.2f s\n",
            policy, direct50, direct99, added50 + direct50, added99 + direct50,
            bench_cpu_seconds(stack.workers[0]), bench_cpu_seconds(stack.sim));
    print_added(policy, added50, added99, direct50, direct99);
    close_path(&path);
    testbed_release(&stack);
}

static void run_rate(void)
{
    struct testbed stack;
    testbed_init(&stack, yaml, at_once);
    testbed_start(&stack, (const char *[]){"sim-0", NULL});
    struct path path = {0};
    loop_init(&path.loop);
    open_queue(&path, &stack);
    run_jobs(&path, BURST, rush);
    double per_second = BURST / ((clock_ms_f() - path.began_ms) / 1000);
    fprintf(stderr,
            "bench: CPU per stream in us: worker %.0f, simulator %.0f, daemon %.0f, broker %.0f, "
            "redis %.0f\n",
            bench_cpu_seconds(stack.workers[0]) * 1e6 / BURST,
            bench_cpu_seconds(stack.sim) * 1e6 / BURST,
            bench_cpu_seconds(stack.daemon) * 1e6 / BURST,
            bench_cpu_seconds(stack.broker) * 1e6 / BURST,
            bench_cpu_seconds(stack.fixture.redis_pid) * 1e6 / BURST);
    figure_print(&(struct figure){"path: streams through one worker", per_second, "/s", NULL, 0,
                                  false, "2,000 /s", per_second >= 2000});
    close_path(&path);
    testbed_release(&stack);
}

static void run(void)
{
    run_added("always");
    run_added("everysec");
    run_rate();
}

const struct benchmark benchmark_path = {
    "path", "what the way to a provider adds at 500 streams/s, and streams/s through one worker",
    run};
