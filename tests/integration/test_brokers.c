/* Two brokers under load, one of which is killed: the other one goes on with all of the work, at
 * once. Heartbeats are so rare here that nobody could wait for three of them to be missed. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "schemas/mem.h"
#include "tests/lib/testbed.h"

#define SUBTASKS 2000
#define KILL_AFTER 400
#define PATIENCE_MS 60000

/* 5 tokens at 100 a second: each call takes about 50 ms. */
static const char scenario[] = "rules:\n"
                               "  - tokens: 5\n"
                               "    timing: {decode_tps: 100, prefill_tps: 0}\n";

struct scene {
    struct testbed testbed;
    uv_loop_t loop;
    struct queue *queue;
    pid_t brokers[2];
    char task[TASK_ID_SIZE];
    int done, killed_at;
    bool enough, over, submitted;
    int64_t last_ms, longest_before_ms, longest_after_ms; /* between commits, by Redis's clock */
};

static void start_broker(struct scene *scene, int index)
{
    char endpoint[128], log[32];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/b%d.sock", scene->testbed.fixture.dir, index);
    snprintf(log, sizeof log, "b%d.%d.log", index, ++scene->testbed.starts);
    const char *argv[] = {"orchestrator-broker", "--config", scene->testbed.config,
                          "--endpoint",          endpoint,   NULL};
    scene->brokers[index] = fixture_spawn(&scene->testbed.fixture, log, argv);
    assert_true(fixture_wait_text(&scene->testbed.fixture, log, "serves", 30000));
}

static void scene_open(struct scene *scene)
{
    struct err err;
    *scene = (struct scene){0};
    testbed_init(&scene->testbed, "", scenario);
    struct buf yaml = {0};
    const char *dir = scene->testbed.fixture.dir;
    buf_printf(&yaml,
               "redis: unix://%s\n"
               "bus: {brokers: ['ipc://%s/b0.sock', 'ipc://%s/b1.sock'], heartbeat_ms: 30000}\n"
               "providers:\n"
               "  sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
               "models:\n"
               "  m: {provider: sim, name: m, local: true}\n"
               "workers:\n"
               "  - {name: w0, provider: sim, concurrency: 16}\n"
               "  - {name: w1, provider: sim, concurrency: 16}\n"
               "roles:\n"
               "  general: {models: [m]}\n",
               scene->testbed.fixture.redis_socket, dir, dir, scene->testbed.sim_port);
    fixture_write(&scene->testbed.fixture, "config.yaml", yaml.data);
    buf_release(&yaml);
    start_broker(scene, 0);
    start_broker(scene, 1);
    testbed_start_daemon(&scene->testbed);
    testbed_start_worker(&scene->testbed, 0, "w0");
    testbed_start_worker(&scene->testbed, 1, "w1");
    loop_init(&scene->loop);
    struct redis_options redis = fixture_redis_options(&scene->testbed.fixture);
    if (queue_open(&scene->queue, &scene->loop, &redis, NULL, NULL, &err) != 0)
        fail_msg("%s", err.text);
}

static void scene_close(struct scene *scene)
{
    queue_close(&scene->queue);
    loop_finish(&scene->loop);
    testbed_release(&scene->testbed);
}

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    struct scene *scene = ctx;
    if (status != QUEUE_OK)
        fail_msg("%s", err);
    scene->submitted = true;
}

static void logged(void *ctx, const struct queue_log_entry *entry)
{
    struct scene *scene = ctx;
    scene->over |= strncmp(entry->what, "task-", 5) == 0;
    if (strcmp(entry->what, "done") != 0)
        return;
    int64_t now_ms = strtoll(entry->id, NULL, 10), pause_ms = now_ms - scene->last_ms;
    int64_t *longest = scene->killed_at == 0 ? &scene->longest_before_ms : &scene->longest_after_ms;
    if (scene->last_ms != 0 && pause_ms > *longest)
        *longest = pause_ms;
    scene->last_ms = now_ms;
    scene->enough = ++scene->done >= KILL_AFTER;
}

static void submit(struct scene *scene)
{
    struct queue_node *nodes = mem_must_zalloc(SUBTASKS * sizeof *nodes);
    char(*names)[16] = mem_must_zalloc(SUBTASKS * sizeof *names);
    for (int i = 0; i < SUBTASKS; i++) {
        snprintf(names[i], sizeof names[i], "s%d", i);
        nodes[i] = testbed_node(names[i], "Say something.");
    }
    task_id_make(scene->task);
    struct queue_task task = {.id = scene->task,
                              .digest = "d",
                              .title = "many",
                              .info = {"{}", 2},
                              .nodes = nodes,
                              .n_nodes = SUBTASKS};
    queue_submit(scene->queue, &task, submitted, scene);
    assert_int_equal(loop_run_until(&scene->loop, &scene->submitted, PATIENCE_MS), 0);
    free(nodes);
    free(names);
}

static void a_killed_broker_leaves_all_of_the_work_to_the_other(void **state)
{
    struct scene scene;
    struct queue_log_follow *follow;
    struct err err;
    (void)state;
    scene_open(&scene);
    submit(&scene);
    assert_int_equal(queue_log_open(&follow, scene.queue, scene.task, "0", logged, &scene, &err),
                     0);
    assert_int_equal(loop_run_until(&scene.loop, &scene.enough, PATIENCE_MS), 0);
    fixture_kill(&scene.testbed.fixture, scene.brokers[0], SIGKILL);
    scene.killed_at = scene.done;
    assert_int_equal(loop_run_until(&scene.loop, &scene.over, PATIENCE_MS), 0);
    assert_int_equal(scene.done, SUBTASKS);
    printf(
        "longest pause between commits: %lld ms with two brokers, %lld ms after one was killed\n",
        (long long)scene.longest_before_ms, (long long)scene.longest_after_ms);
    queue_log_close(&follow);
    scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_broker_leaves_all_of_the_work_to_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
