/* Two versions together: next-* are these programs with messages and records that have unknown
 * fields, and messages of unknown types. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/lib/stage.h"

#define TASKS 3
#define SUBTASKS 60

static const char yaml[] =
    "providers:\n  sim: {api: openai, base_url: \"http://127.0.0.1:%d\", key: 'env:UPGRADE_KEY'}\n"
    "models:\n  m: {provider: sim, name: sim}\n"
    "workers:\n  - {name: w1, provider: sim, concurrency: 6}\n"
    "  - {name: w2, provider: sim, concurrency: 6}\n"
    "roles:\n  general: {models: [m]}\n"
    "queue: {lease_ms: 60000}\n"; /* what a shutdown leaves behind would hold up the test */
static const char scenario[] = "rules:\n  - {match: {}, tokens: 10, timing: {decode_tps: 20}}\n";

static struct stage stage;

enum part { BROKER, DAEMON, WORKER_1, WORKER_2, PARTS };

static pid_t *pid_of(enum part part)
{
    struct testbed *testbed = &stage.testbed;
    pid_t *const pids[PARTS] = {&testbed->broker, &testbed->daemon, &testbed->workers[0],
                                &testbed->workers[1]};
    return pids[part];
}

static pid_t start(enum part part, bool next)
{
    static const char *const words[PARTS][4] = {{"orchestrator-broker"},
                                                {"orchestrator", "serve"},
                                                {"orchestrator-worker", "--name", "w1"},
                                                {"orchestrator-worker", "--name", "w2"}};
    const char *argv[10];
    char program[64], log[32];
    size_t n = 0;
    for (; n < 4 && words[part][n] != NULL; n++)
        argv[n] = words[part][n];
    snprintf(program, sizeof program, "%s%s", next ? "next-" : "", argv[0]);
    snprintf(log, sizeof log, "part-%d.log", ++stage.testbed.starts);
    argv[0] = program;
    argv[n++] = "--config";
    argv[n++] = stage.testbed.config;
    argv[n++] = "--ready-fd";
    argv[n++] = "1";
    argv[n] = NULL;
    pid_t pid = fixture_spawn(&stage.testbed.fixture, log, argv);
    assert_true(fixture_wait_text(&stage.testbed.fixture, log, "ready\n", STAGE_WAIT_MS));
    return pid;
}

/* SIGTERM, then the other version. */
static void replace(enum part part, bool next)
{
    pid_t *pid = pid_of(part);
    kill(*pid, SIGTERM);
    assert_int_equal(fixture_wait_exit(&stage.testbed.fixture, *pid, STAGE_WAIT_MS), 0);
    *pid = start(part, next);
}

static int count_done(char (*ids)[TASK_ID_SIZE])
{
    int n = 0;
    for (int i = 0; i < TASKS; i++)
        n += stage_read(&stage, ids[i]).n_done;
    return n;
}

static void wait_for_done(char (*ids)[TASK_ID_SIZE], int n)
{
    bool never = false;
    for (int i = 0; i < STAGE_WAIT_MS / 20 && count_done(ids) < n; i++)
        loop_run_until(&stage.loop, &never, 20);
    assert_true(count_done(ids) >= n);
}

static void each_process_is_replaced_there_and_back_under_load(void **state)
{
    (void)state;
    char ids[TASKS][TASK_ID_SIZE];
    static const char *const marks[TASKS] = {"one", "two", "three"};
    static const enum part order[] = {WORKER_1, BROKER, DAEMON, WORKER_2};
    for (int i = 0; i < TASKS; i++)
        stage_submit(&stage, &(struct stage_task){.mark = marks[i], .n = SUBTASKS}, ids[i]);
    int step = 0;
    for (int next = 1; next >= 0; next--)
        for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
            wait_for_done(ids, ++step * TASKS * SUBTASKS / 12);
            replace(order[i], next == 1);
        }
    for (int i = 0; i < TASKS; i++) {
        struct stage_view view = stage_wait(&stage, ids[i]);
        assert_int_equal(view.state, TASK_DONE);
        assert_int_equal(view.n_done, SUBTASKS);
        assert_int_equal(stage_count_log(&stage, ids[i], "done", ""), SUBTASKS);
    }
    json_t *calls = stage_calls(&stage);
    assert_int_equal(json_array_size(calls), TASKS * SUBTASKS);
    json_decref(calls);
    assert_int_equal(stage_cli(&stage, (const char *[]){"fsck", NULL}, NULL), 0);
}

/* A daemon and workers of this version with a broker of the next, so that all that passes through
 * it is answered in the next version's words; then a worker of the next one alone. */
static void either_version_serves_the_other(void **state)
{
    (void)state;
    char id[TASK_ID_SIZE];
    replace(BROKER, true);
    stage_submit(&stage, &(struct stage_task){.mark = "broker", .n = 10}, id);
    assert_int_equal(stage_wait(&stage, id).state, TASK_DONE);
    replace(BROKER, false);
    replace(WORKER_1, true);
    fixture_kill(&stage.testbed.fixture, stage.testbed.workers[1], SIGKILL);
    stage_submit(&stage, &(struct stage_task){.mark = "worker", .n = 10}, id);
    assert_int_equal(stage_wait(&stage, id).state, TASK_DONE);
    replace(WORKER_1, false);
    replace(DAEMON, true);
    stage_submit(&stage, &(struct stage_task){.mark = "daemon", .n = 10}, id);
    assert_int_equal(stage_wait(&stage, id).state, TASK_DONE);
    json_t *calls = stage_calls(&stage);
    assert_int_equal(json_array_size(calls), 30);
    json_decref(calls);
}

static int setup(void **state)
{
    (void)state;
    setenv("UPGRADE_KEY", "none", 1);
    stage_open(&stage, yaml, scenario, (const char *[]){"w1", "w2", NULL});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stage_close(&stage);
    return 0;
}

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_process_is_replaced_there_and_back_under_load, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(either_version_serves_the_other, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
