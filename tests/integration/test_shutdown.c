/* SIGTERM ends every program, whatever else has failed; and what they leave behind is as private as
 * it should be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "tests/lib/stage.h"

#define END_MS 60000 /* far beyond any deadline, for busy machines */

static const char yaml[] =
    "providers:\n  sim: {api: openai, base_url: \"http://127.0.0.1:%d\", key: 'env:SHUTDOWN_KEY'}\n"
    "models:\n  m: {provider: sim, name: sim}\n"
    "workers:\n  - {name: w1, provider: sim, concurrency: 6}\n"
    "roles:\n  general: {models: [m]}\n";
/* The first calls never end by themselves. */
static const char scenario[] =
    "rules:\n  - {match: {prompt: hangs}, tokens: 10, fault: {stall_after: 1}}\n"
    "  - {match: {}, tokens: 2}\n";

static struct stage stage;

static bool hangs(void *ctx)
{
    (void)ctx;
    json_t *calls = testbed_sim(&stage.testbed, "requests");
    bool any = json_array_size(calls) > 0;
    json_decref(calls);
    return any;
}

static void hang_one(void)
{
    char id[TASK_ID_SIZE];
    stage_submit(&stage, &(struct stage_task){.mark = "hangs", .n = 1}, id);
    assert_true(fixture_wait(hangs, NULL, STAGE_WAIT_MS));
}

static int end(pid_t pid)
{
    kill(pid, SIGTERM);
    int status = fixture_wait_exit(&stage.testbed.fixture, pid, END_MS);
    if (status != 0)
        fixture_run(&stage.testbed.fixture,
                    (const char *[]){"/bin/sh", "-c", "cat $ORCHESTRATOR_HOME/*.log >&2", NULL},
                    NULL, NULL);
    return status;
}

/* A worker of its own, whose deadline is short. */
static pid_t start_worker(void)
{
    struct testbed *testbed = &stage.testbed;
    pid_t pid = fixture_spawn(&testbed->fixture, "worker.log",
                              (const char *[]){"orchestrator-worker", "--name", "w1", "--config",
                                               testbed->config, "--ready-fd", "1", "--drain-ms",
                                               "300", NULL});
    assert_true(fixture_wait_text(&testbed->fixture, "worker.log", "ready\n", STAGE_WAIT_MS));
    return pid;
}

static void a_worker_whose_call_hangs_ends_at_its_deadline(void **state)
{
    (void)state;
    pid_t worker = start_worker();
    hang_one();
    assert_int_equal(end(worker), 0);
}

static void a_worker_ends_at_its_deadline_when_redis_does_not_answer(void **state)
{
    (void)state;
    pid_t worker = start_worker();
    hang_one();
    kill(stage.testbed.fixture.redis_pid, SIGSTOP);
    int status = end(worker);
    kill(stage.testbed.fixture.redis_pid, SIGCONT);
    assert_int_equal(status, 0);
}

static void a_worker_ends_at_its_deadline_when_redis_is_gone(void **state)
{
    (void)state;
    pid_t worker = start_worker();
    hang_one();
    fixture_redis_kill(&stage.testbed.fixture, SIGKILL);
    int status = end(worker);
    fixture_redis_start(&stage.testbed.fixture);
    assert_int_equal(status, 0);
}

static void a_worker_ends_at_its_deadline_when_the_broker_is_gone(void **state)
{
    (void)state;
    pid_t worker = start_worker();
    hang_one();
    fixture_kill(&stage.testbed.fixture, stage.testbed.broker, SIGKILL);
    assert_int_equal(end(worker), 0);
}

static void a_second_signal_ends_a_worker_before_its_deadline(void **state)
{
    (void)state;
    struct testbed *testbed = &stage.testbed;
    testbed_start_worker(testbed, 0, "w1"); /* 30 s */
    hang_one();
    char log[32];
    snprintf(log, sizeof log, "w1.%d.log", testbed->starts);
    kill(testbed->workers[0], SIGTERM);
    assert_true(fixture_wait_text(&testbed->fixture, log, "stops", STAGE_WAIT_MS));
    kill(testbed->workers[0], SIGTERM);
    assert_int_equal(fixture_wait_exit(&testbed->fixture, testbed->workers[0], 25000), 0);
}

static void a_daemon_ends_when_redis_does_not_answer(void **state)
{
    (void)state;
    kill(stage.testbed.fixture.redis_pid, SIGSTOP);
    int status = end(stage.testbed.daemon);
    kill(stage.testbed.fixture.redis_pid, SIGCONT);
    assert_int_equal(status, 0);
    testbed_start_daemon(&stage.testbed);
}

static void a_daemon_ends_when_the_broker_is_gone(void **state)
{
    (void)state;
    fixture_kill(&stage.testbed.fixture, stage.testbed.broker, SIGKILL);
    assert_int_equal(end(stage.testbed.daemon), 0);
    testbed_start_broker(&stage.testbed);
    testbed_start_daemon(&stage.testbed);
}

static void a_broker_ends_while_others_are_connected(void **state)
{
    (void)state;
    start_worker();
    assert_int_equal(end(stage.testbed.broker), 0);
}

/* --- what is left behind ------------------------------------------------------------------------
 */

static int too_open;

/* Everything but the test's own logs and the folder of the fixture's redis-server. */
static int look(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)type;
    bool own = ftw->level == 0 || strstr(path, "/run") != NULL || strstr(path, "/spool") != NULL ||
               strstr(path, ".db") != NULL;
    if (!own || (st->st_mode & 077) == 0)
        return 0;
    print_error("%s has mode %o\n", path, st->st_mode & 07777u);
    too_open++;
    return 0;
}

static void folders_files_and_sockets_are_for_their_owner_alone(void **state)
{
    (void)state;
    char id[TASK_ID_SIZE];
    mode_t mask = umask(0);
    start_worker();
    fixture_kill(&stage.testbed.fixture, stage.testbed.broker, SIGKILL);
    testbed_start_broker(&stage.testbed);
    umask(mask);
    stage_submit(&stage, &(struct stage_task){.mark = "ends", .n = 3}, id);
    assert_int_equal(stage_wait(&stage, id).state, TASK_DONE);
    too_open = 0;
    assert_int_equal(nftw(stage.testbed.fixture.dir, look, 16, FTW_PHYS), 0);
    assert_int_equal(too_open, 0);
}

static int setup(void **state)
{
    (void)state;
    setenv("SHUTDOWN_KEY", "none", 1);
    stage_open(&stage, yaml, scenario, (const char *[]){NULL});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stage_close(&stage);
    return 0;
}

#define SHUTDOWN_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        SHUTDOWN_TEST(a_worker_whose_call_hangs_ends_at_its_deadline),
        SHUTDOWN_TEST(a_worker_ends_at_its_deadline_when_redis_does_not_answer),
        SHUTDOWN_TEST(a_worker_ends_at_its_deadline_when_redis_is_gone),
        SHUTDOWN_TEST(a_worker_ends_at_its_deadline_when_the_broker_is_gone),
        SHUTDOWN_TEST(a_second_signal_ends_a_worker_before_its_deadline),
        SHUTDOWN_TEST(a_daemon_ends_when_redis_does_not_answer),
        SHUTDOWN_TEST(a_daemon_ends_when_the_broker_is_gone),
        SHUTDOWN_TEST(a_broker_ends_while_others_are_connected),
        SHUTDOWN_TEST(folders_files_and_sockets_are_for_their_owner_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
