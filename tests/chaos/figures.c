/* How long the work of what was killed stands still: measured, printed, judged by nobody. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "tests/chaos/chaos.h"

#define WAIT_MS 60000
#define HELD 6        /* subtasks that the killed worker has under way */
#define WATCH_MS 3000 /* after a broker's death, and until two daemons have shared the shards */
#define SPREAD 256    /* tasks over all shards */

static const char long_calls[] = "rules:\n"
                                 "  - reply: {text: ok}\n"
                                 "    timing: {load_ms: 4000}\n";
static const char short_calls[] = "rules:\n"
                                  "  - reply: {text: ok}\n"
                                  "    timing: {load_ms: 40}\n";

struct figure {
    struct rig rig;
    struct load load;
    size_t want; /* calls */
};

static bool has_calls(void *ctx)
{
    struct figure *figure = ctx;
    return figure->rig.n_calls >= figure->want;
}

static bool wait_calls(struct figure *figure, size_t want)
{
    figure->want = want;
    return rig_wait(&figure->rig, has_calls, figure, WAIT_MS);
}

static int open_figure(struct figure *figure, const struct rig_options *options)
{
    int rc = rig_open(&figure->rig, options);
    load_open(&figure->load, &figure->rig, 1);
    return rc;
}

static void close_figure(struct figure *figure)
{
    load_close(&figure->load);
    rig_close(&figure->rig);
}

static int print(const char *what, const char *goal, double seconds)
{
    if (rig_interrupted())
        return -1;
    if (seconds >= 0)
        printf("| %s | %s | %.2f s |\n", what, goal, seconds);
    else
        printf("| %s | %s | not within %d s |\n", what, goal, WAIT_MS / 1000);
    fflush(stdout);
    return 0;
}

static void watch(struct rig *rig)
{
    for (int64_t until = clock_ms() + WATCH_MS; clock_ms() < until && !rig_interrupted();)
        rig_turn(rig);
}

static double since(int64_t from_ms, int64_t to_ms)
{
    return (double)(to_ms - from_ms) / 1000;
}

enum after { COMES_BACK, STAYS_AWAY, STAYS_AWAY_UNSEEN };

/* w0 has HELD calls under way when w1 comes; then w0 is killed, in the last case with the broker,
 * too, so that nobody knows that it was ever there. */
static int worker_figure(const char *what, const char *goal, enum after after)
{
    struct figure figure;
    double seconds = -1;
    int rc = open_figure(&figure, &(struct rig_options){.workers = 2,
                                                        .brokers = 1,
                                                        .daemons = 1,
                                                        .concurrency = 2 * HELD,
                                                        .scenario = long_calls});
    struct rig_process *first = rig_process(&figure.rig, RIG_WORKER, 0);
    struct rig_process *second = rig_process(&figure.rig, RIG_WORKER, 1);
    if (rc == 0) {
        second->held_down = true;
        rig_kill(&figure.rig, second);
        load_add_single(&figure.load, HELD);
    }
    if (rc == 0 && wait_calls(&figure, HELD)) {
        second->held_down = false;
        rig_wait(&figure.rig, rig_all_up, &figure.rig, WAIT_MS);
        first->held_down = after != COMES_BACK;
        int64_t killed_ms = clock_wall_ms();
        if (after == STAYS_AWAY_UNSEEN)
            rig_kill(&figure.rig, rig_process(&figure.rig, RIG_BROKER, 0));
        rig_kill(&figure.rig, first);
        if (wait_calls(&figure, (size_t)2 * HELD))
            seconds = since(killed_ms, figure.rig.calls[2 * HELD].time_ms);
    }
    close_figure(&figure);
    return rc == 0 ? print(what, goal, seconds) : rc;
}

/* From the broker's return until the first call that begins after it. */
static int broker_figure(void)
{
    struct figure figure;
    double seconds = -1;
    int rc = open_figure(
        &figure,
        &(struct rig_options){
            .workers = 2, .brokers = 1, .daemons = 1, .concurrency = 4, .scenario = short_calls});
    if (rc == 0)
        load_add_single(&figure.load, 2000);
    if (rc == 0 && wait_calls(&figure, 200)) {
        struct rig_process *broker = rig_process(&figure.rig, RIG_BROKER, 0);
        rig_kill(&figure.rig, broker);
        while (broker->state != RIG_UP && !rig_interrupted())
            rig_turn(&figure.rig);
        int64_t back_ms = clock_wall_ms();
        size_t before = figure.rig.n_calls;
        if (wait_calls(&figure, before + 1))
            seconds = since(back_ms, figure.rig.calls[before + 1].time_ms);
    }
    close_figure(&figure);
    return rc == 0 ? print("a killed broker: first call after its return", "<= 1 s",
                           seconds > 0 ? seconds : 0)
                   : rc;
}

/* The longest time without a new call after one of two brokers is gone for good. */
static int brokers_figure(void)
{
    struct figure figure;
    double seconds = 0;
    int rc = open_figure(
        &figure,
        &(struct rig_options){
            .workers = 2, .brokers = 2, .daemons = 1, .concurrency = 4, .scenario = short_calls});
    if (rc == 0)
        load_add_single(&figure.load, 2000);
    if (rc == 0 && wait_calls(&figure, 200)) {
        struct rig *rig = &figure.rig;
        struct rig_process *broker = rig_process(rig, RIG_BROKER, 0);
        broker->held_down = true;
        size_t from = rig->n_calls;
        rig_kill(rig, broker);
        watch(rig);
        int64_t end_ms = clock_wall_ms();
        for (size_t i = from; i <= rig->n_calls; i++) {
            int64_t next_ms = i < rig->n_calls ? rig->calls[i + 1].time_ms : end_ms;
            double gap = since(rig->calls[i].time_ms, next_ms);
            seconds = gap > seconds ? gap : seconds;
        }
    }
    close_figure(&figure);
    return rc == 0
               ? print("one of two brokers killed: longest time without a call", "at once", seconds)
               : rc;
}

/* One of two orchestrators is gone for good: until tasks of all shards that are submitted then have
 * a call. */
static int daemon_figure(void)
{
    struct figure figure;
    double seconds = -1;
    int rc = open_figure(
        &figure,
        &(struct rig_options){
            .workers = 2, .brokers = 1, .daemons = 2, .concurrency = 32, .scenario = short_calls});
    if (rc == 0) {
        load_add_single(&figure.load, SPREAD);
        wait_calls(&figure, SPREAD);
        watch(&figure.rig); /* meanwhile the two have shared the shards */
        struct rig_process *daemon = rig_process(&figure.rig, RIG_DAEMON, 0);
        daemon->held_down = true;
        int64_t killed_ms = clock_wall_ms();
        rig_kill(&figure.rig, daemon);
        load_add_single(&figure.load, SPREAD);
        if (wait_calls(&figure, (size_t)2 * SPREAD))
            seconds = since(killed_ms, figure.rig.calls[2 * SPREAD].time_ms);
    }
    close_figure(&figure);
    return rc == 0 ? print("a killed orchestrator, a second one there: its shards work again",
                           "<= 5 s", seconds)
                   : rc;
}

int figures_run(const struct chaos_options *options)
{
    (void)options;
    char unseen[32];
    snprintf(unseen, sizeof unseen, "<= %d s", RIG_LEASE_MS / 1000 + 1);
    printf("| what | goal | measured |\n|---|---|---|\n");
    int rc = worker_figure("a killed worker's subtasks run again, its supervisor starts it again",
                           "<= 2 s", COMES_BACK);
    if (rc == 0)
        rc = worker_figure("the same, it stays away, and the broker sees it go", "<= 2 s",
                           STAYS_AWAY);
    if (rc == 0)
        rc = worker_figure("the same, it stays away, and nobody sees it go (lease + 1 s)", unseen,
                           STAYS_AWAY_UNSEEN);
    if (rc == 0)
        rc = broker_figure();
    if (rc == 0)
        rc = brokers_figure();
    if (rc == 0)
        rc = daemon_figure();
    return rc;
}
