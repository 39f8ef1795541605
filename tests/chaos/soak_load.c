/* orch-soak-load RATE SECONDS: submits tasks of ten subtasks at a steady rate for so long, waits
 * until all have finished, and says how it went. For soak.sh. */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "tests/bench/bench.h"

#define NODES 10
#define TICK_MS 10
#define UNANSWERED_MAX 2000
#define DRAIN_MS 120000

struct load {
    struct queue *queue;
    struct queue_node nodes[NODES];
    int64_t sent, failed;
    int unanswered;
    bool counted;
    struct queue_depths depths;
};

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    struct load *load = ctx;
    load->unanswered--;
    if (status != QUEUE_OK && status != QUEUE_DUP && load->failed++ == 0)
        fprintf(stderr, "submit: %s %s\n", queue_status_name(status), err);
}

static void submit_one(struct load *load)
{
    char id[TASK_ID_SIZE];
    task_id_make(id);
    struct queue_task task = {.id = id,
                              .digest = "d",
                              .title = "soak",
                              .info = {.data = "{}", .len = 2},
                              .nodes = load->nodes,
                              .n_nodes = NODES};
    load->unanswered++;
    load->sent++;
    queue_submit(load->queue, &task, submitted, load);
}

static void counted(void *ctx, const struct queue_depths *depths, const char *err)
{
    struct load *load = ctx;
    (void)err;
    load->counted = true;
    if (depths != NULL)
        load->depths = *depths;
}

static int64_t waiting(struct load *load, uv_loop_t *loop)
{
    load->counted = false;
    load->depths = (struct queue_depths){.ready = -1};
    queue_depths(load->queue, counted, load);
    loop_run_until(loop, &load->counted, DRAIN_MS);
    const struct queue_depths *depths = &load->depths;
    return depths->ready + depths->running + depths->delayed + depths->dead;
}

int main(int argc, char **argv)
{
    static char ids[NODES][8];
    double rate = argc == 3 ? atof(argv[1]) / NODES : 0, seconds = argc == 3 ? atof(argv[2]) : 0;
    struct load load = {0};
    struct config *config;
    struct err err = {0};
    uv_loop_t loop;
    bool never = false;
    if (rate <= 0 || seconds <= 0) {
        fprintf(stderr, "usage: orch-soak-load SUBTASKS-PER-SECOND SECONDS\n");
        return 2;
    }
    loop_init(&loop);
    if (config_load(&config, NULL, &err) != 0 ||
        queue_open(&load.queue, &loop, &config->redis, NULL, NULL, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        return 2;
    }
    for (int i = 0; i < NODES; i++) {
        snprintf(ids[i], sizeof ids[i], "n%d", i);
        load.nodes[i] = testbed_node(ids[i], BENCH_PROMPT);
    }
    double from_ms = clock_ms_f(), now_ms;
    while ((now_ms = clock_ms_f()) < from_ms + seconds * 1000) {
        int64_t due = (int64_t)((now_ms - from_ms) / 1000 * rate);
        while (load.sent < due && load.unanswered < UNANSWERED_MAX)
            submit_one(&load);
        loop_run_until(&loop, &never, TICK_MS);
    }
    double took_s = (clock_ms_f() - from_ms) / 1000;
    int64_t left = -1;
    for (double until_ms = clock_ms_f() + DRAIN_MS; left != 0 && clock_ms_f() < until_ms;) {
        loop_run_until(&loop, &never, 200);
        left = waiting(&load, &loop);
    }
    printf("%lld subtasks in %.0f s: %.0f /s of %.0f wanted; %lld submits failed, %lld subtasks "
           "are left\n",
           (long long)load.sent * NODES, took_s, (double)load.sent * NODES / took_s, rate * NODES,
           (long long)load.failed, (long long)left);
    queue_close(&load.queue);
    config_free(&config);
    loop_finish(&loop);
    return load.failed > 0 || left != 0;
}
