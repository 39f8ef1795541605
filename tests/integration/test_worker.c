#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/log.h"
#include "tests/lib/workbench.h"

static struct workbench bench_, *const bench = &bench_;

static const char yaml[] =
    "providers:\n"
    "  ok:    {api: openai, base_url: 'http://127.0.0.1:%d/ok', key: 'env:WORKER_TEST_KEY'}\n"
    "  hold:  {api: openai, base_url: 'http://127.0.0.1:%d/hold', key: 'env:WORKER_TEST_KEY'}\n"
    "  poor:  {api: openai, base_url: 'http://127.0.0.1:%d/ok', key: 'env:WORKER_NO_KEY'}\n"
    "  null:  {api: noop}\n"
    "models:\n"
    "  m-ok:   {provider: ok, name: test-model}\n"
    "  m-hold: {provider: hold, name: test-model}\n"
    "  m-poor: {provider: poor, name: test-model}\n"
    "  m-null: {provider: 'null', name: nothing}\n"
    "workers:\n"
    "  - {name: w-ok, provider: ok, concurrency: 4}\n"
    "  - {name: w-hold, provider: hold, concurrency: 4}\n"
    "  - {name: w-poor, provider: poor}\n"
    "  - {name: w-null, provider: 'null', concurrency: 50}\n"
    "  - {name: w-gpu, provider: hold, concurrency: 1, gpu: 0, start_ms: 60000,\n"
    "     launch: [/bin/sh, -c, 'exec $ORCH_BIN/test-runtime %p %s'],\n"
    "     health: 'http://127.0.0.1:%p/health'}\n";

static int setup(void **state)
{
    (void)state;
    setenv("WORKER_TEST_KEY", "sk-secret-1234567890", 1);
    unsetenv("WORKER_NO_KEY");
    workbench_open(bench, yaml);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    workbench_close(bench);
    return 0;
}

/* --- helpers ------------------------------------------------------------------------------------
 */

static void submit(void)
{
    struct msg_work work = workbench_work();
    workbench_submit(bench, &work, NULL);
}

static void offer(const char *model)
{
    workbench_offer(bench, model, false);
}

static void kill_at(const char *failpoint)
{
    setenv("ORCH_FAILPOINT", failpoint, 1);
    pid_t worker = workbench_start_worker(bench, "w-ok");
    unsetenv("ORCH_FAILPOINT");
    submit();
    offer("m-ok");
    bool never = false;
    int status = -1;
    for (int i = 0; i < 2000 && status == -1; i++) {
        loop_run_until(&bench->loop, &never, 10);
        status = fixture_wait_exit(&bench->fixture, worker, 0);
    }
    assert_int_equal(status, 128 + SIGKILL);
}

/* --- tests --------------------------------------------------------------------------------------
 */

static void a_dispatched_subtask_is_done_and_its_credit_comes_back(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-ok");
    assert_true(workbench_credit_becomes(bench, 4));
    for (int i = 0; i < 10; i++) {
        submit();
        offer("m-ok");
        assert_true(workbench_reaches(bench, SUB_DONE));
        assert_string_equal(workbench_text(bench), "one two three");
    }
    assert_true(workbench_credit_becomes(bench, 4));
    assert_int_equal(http_server_requests(bench->server), 10);
}

static void a_worker_killed_after_the_answer_commits_it_when_it_is_back(void **state)
{
    (void)state;
    kill_at("spooled:1");
    assert_int_equal(http_server_requests(bench->server), 1);
    workbench_start_worker(bench, "w-ok");
    assert_true(workbench_reaches(bench, SUB_DONE));
    assert_string_equal(workbench_text(bench), "one two three");
    assert_int_equal(bench->attempts_made, 1);
    assert_int_equal(http_server_requests(bench->server), 1);
}

static void a_worker_killed_after_the_commit_does_no_harm_when_it_is_back(void **state)
{
    (void)state;
    kill_at("committed:1");
    assert_true(workbench_reaches(bench, SUB_DONE));
    workbench_start_worker(bench, "w-ok");
    submit();
    offer("m-ok");
    assert_true(workbench_reaches(bench, SUB_DONE));
    assert_int_equal(http_server_requests(bench->server), 2);
}

static void a_lost_claim_fails_at_once_when_the_worker_is_back(void **state)
{
    (void)state;
    pid_t worker = workbench_start_worker(bench, "w-hold");
    submit();
    offer("m-hold");
    workbench_wait_requests(bench, 1);
    fixture_kill(&bench->fixture, worker, SIGKILL);
    assert_true(workbench_reaches(bench, SUB_RUNNING)); /* its lease still runs */
    workbench_start_worker(bench, "w-hold");
    bool never = false;
    for (int i = 0; i < 1000 && bench->state == SUB_RUNNING; i++) {
        workbench_read(bench);
        loop_run_until(&bench->loop, &never, 5);
    }
    assert_true(bench->state == SUB_READY || bench->state == SUB_DELAYED);
    assert_string_equal(bench->error_class, "worker_lost");
}

static void a_drain_lets_what_runs_finish(void **state)
{
    (void)state;
    pid_t worker = workbench_start_worker(bench, "w-hold");
    submit();
    offer("m-hold");
    workbench_wait_requests(bench, 1);
    kill(worker, SIGTERM);
    assert_true(fixture_wait_text(&bench->fixture, "worker-1.log", "stops: 1 attempts", 20000));
    http_server_release(bench->server);
    assert_true(workbench_reaches(bench, SUB_DONE));
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 0);
    assert_int_equal(http_server_requests(bench->server), 1);
}

static void a_second_signal_gives_the_work_back(void **state)
{
    (void)state;
    pid_t worker = workbench_start_worker(bench, "w-hold");
    submit();
    offer("m-hold");
    workbench_wait_requests(bench, 1);
    kill(worker, SIGTERM);
    assert_true(fixture_wait_text(&bench->fixture, "worker-1.log", "stops: 1 attempts", 20000));
    kill(worker, SIGINT);
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 0);
    workbench_read(bench);
    assert_int_not_equal(bench->state, SUB_RUNNING);
    assert_string_equal(bench->error_class, "worker_lost");
}

static void a_drain_that_takes_too_long_gives_the_work_back(void **state)
{
    (void)state;
    int ready;
    pid_t worker = workbench_start_worker_with(bench, "w-hold", "300", &ready);
    assert_string_equal(workbench_ready_line(bench, ready), "ready\n");
    submit();
    offer("m-hold");
    workbench_wait_requests(bench, 1);
    kill(worker, SIGTERM);
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 0);
    workbench_read(bench);
    assert_string_equal(bench->error_class, "worker_lost");
}

static void a_drain_message_stops_the_worker(void **state)
{
    (void)state;
    pid_t worker = workbench_start_worker(bench, "w-ok");
    struct message message = {.type = MESSAGE_drain, .drain = {.worker = "w-ok"}};
    peer_send(bench->peer, 0, &message);
    bool never = false;
    int status = -1;
    for (int i = 0; i < 2000 && status == -1; i++) {
        loop_run_until(&bench->loop, &never, 10);
        status = fixture_wait_exit(&bench->fixture, worker, 0);
    }
    assert_int_equal(status, 0);
}

static void a_cancel_stops_the_call(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-hold");
    submit();
    offer("m-hold");
    workbench_wait_requests(bench, 1);
    queue_cancel(bench->queue, bench->task, workbench_answered, bench);
    assert_int_equal(workbench_answer(bench), QUEUE_OK);
    struct message message = {.type = MESSAGE_cancel, .cancel = {.task = bench->task, .sub = ""}};
    peer_send(bench->peer, 0, &message);
    bool never = false;
    for (int i = 0; i < 600 && http_server_hangups(bench->server) == 0; i++) /* before a renewal */
        loop_run_until(&bench->loop, &never, 5);
    assert_int_equal(http_server_hangups(bench->server), 1);
    assert_true(workbench_credit_becomes(bench, 4));
}

static void limit_files(pid_t pid, rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(prlimit(pid, RLIMIT_FSIZE, NULL, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(prlimit(pid, RLIMIT_FSIZE, &limit, NULL), 0);
}

static bool is_halted(struct workbench *own)
{
    workbench_status(own);
    return strstr(own->paused, "cannot be written") != NULL && own->credit == 0;
}

static bool is_open(struct workbench *own)
{
    workbench_status(own);
    return own->paused[0] == '\0' && own->credit == 4;
}

/* A limit of file sizes stands for a full disk. */
static void with_a_full_disk_what_runs_is_committed_and_nothing_is_begun(void **state)
{
    (void)state;
    pid_t worker = workbench_start_worker(bench, "w-hold");
    submit();
    offer("m-hold");
    workbench_wait_requests(bench, 1);
    limit_files(worker, 0);
    http_server_release(bench->server);
    assert_true(workbench_reaches(bench, SUB_DONE));
    workbench_wait(bench, is_halted);
    submit();
    offer("m-hold");
    bool never = false;
    loop_run_until(&bench->loop, &never, 500);
    assert_int_equal(http_server_requests(bench->server), 1);
    limit_files(worker, RLIM_INFINITY);
    assert_true(workbench_reaches(bench, SUB_DONE));
    assert_int_equal(http_server_requests(bench->server), 2);
    workbench_wait(bench, is_open);
}

static void a_restarted_broker_is_introduced_to_again(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-ok");
    workbench_status(bench);
    assert_int_equal(bench->workers, 1);
    fixture_kill(&bench->fixture, bench->fixture.pids[0], SIGKILL);
    int ready;
    const char *broker[] = {"orchestrator-broker", "--config", bench->config_path, NULL};
    workbench_spawn(bench, broker, "broker.log", &ready);
    assert_string_equal(workbench_ready_line(bench, ready), "ready\n");
    assert_true(workbench_credit_becomes(bench, 4));
    submit();
    offer("m-ok");
    assert_true(workbench_reaches(bench, SUB_DONE));
}

static void two_workers_of_one_name_refuse(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-ok");
    int ready;
    pid_t second = workbench_start_worker_with(bench, "w-ok", "0", &ready);
    assert_non_null(strstr(workbench_ready_line(bench, ready), "runs on this host already"));
    assert_int_equal(fixture_wait_exit(&bench->fixture, second, 20000), 1);
}

static void a_missing_key_is_told_at_the_start(void **state)
{
    (void)state;
    int ready;
    pid_t worker = workbench_start_worker_with(bench, "w-poor", "0", &ready);
    const char *line = workbench_ready_line(bench, ready);
    assert_non_null(strstr(line, "WORKER_NO_KEY"));
    assert_non_null(strstr(line, "poor"));
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 1);
    worker = workbench_start_worker_with(bench, "nobody", "0", &ready);
    assert_non_null(strstr(workbench_ready_line(bench, ready), "nobody"));
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 1);
}

static void without_redis_a_worker_waits_for_it(void **state)
{
    (void)state;
    fixture_redis_kill(&bench->fixture, SIGKILL);
    int ready;
    workbench_start_worker_with(bench, "w-ok", "0", &ready);
    assert_true(fixture_wait_text(&bench->fixture, "worker-1.log", "trying again", 20000));
    fixture_redis_start(&bench->fixture);
    assert_string_equal(workbench_ready_line(bench, ready), "ready\n");
    submit();
    offer("m-ok");
    assert_true(workbench_reaches(bench, SUB_DONE));
}

static void a_worker_with_a_runtime_is_ready_when_the_runtime_is(void **state)
{
    (void)state;
    int ready;
    pid_t worker = workbench_start_worker_with(bench, "w-gpu", "30000", &ready);
    assert_true(fixture_wait_text(&bench->fixture, "pids", "\n", 20000));
    fixture_write(&bench->fixture, "loaded", "");
    assert_string_equal(workbench_ready_line(bench, ready), "ready\n");
    assert_true(fixture_wait_text(&bench->fixture, "worker-1.log", "is healthy", 20000));
    assert_true(workbench_credit_becomes(bench, 1));
    kill(worker, SIGTERM);
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 0);
}

static void a_worker_without_http_needs_no_server(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-null");
    submit();
    offer("m-null");
    assert_true(workbench_reaches(bench, SUB_DONE));
    assert_string_equal(workbench_text(bench), "ok");
}

static void the_key_is_nowhere_to_be_seen(void **state)
{
    (void)state;
    pid_t worker = workbench_start_worker(bench, "w-ok");
    submit();
    offer("m-ok");
    assert_true(workbench_reaches(bench, SUB_DONE));
    kill(worker, SIGHUP);
    kill(worker, SIGTERM);
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 0);
    struct buf out = {0};
    char command[128];
    snprintf(command, sizeof command, "grep -rl sk-secret %s", bench->fixture.dir);
    const char *argv[] = {"/bin/sh", "-c", command, NULL};
    assert_int_equal(fixture_run(&bench->fixture, argv, &out, NULL), 1);
    buf_release(&out);
}

#define WORKER_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        WORKER_TEST(a_dispatched_subtask_is_done_and_its_credit_comes_back),
        WORKER_TEST(a_worker_killed_after_the_answer_commits_it_when_it_is_back),
        WORKER_TEST(a_worker_killed_after_the_commit_does_no_harm_when_it_is_back),
        WORKER_TEST(a_lost_claim_fails_at_once_when_the_worker_is_back),
        WORKER_TEST(a_drain_lets_what_runs_finish),
        WORKER_TEST(a_second_signal_gives_the_work_back),
        WORKER_TEST(a_drain_that_takes_too_long_gives_the_work_back),
        WORKER_TEST(a_drain_message_stops_the_worker),
        WORKER_TEST(a_cancel_stops_the_call),
        WORKER_TEST(with_a_full_disk_what_runs_is_committed_and_nothing_is_begun),
        WORKER_TEST(a_restarted_broker_is_introduced_to_again),
        WORKER_TEST(two_workers_of_one_name_refuse),
        WORKER_TEST(a_missing_key_is_told_at_the_start),
        WORKER_TEST(without_redis_a_worker_waits_for_it),
        WORKER_TEST(a_worker_with_a_runtime_is_ready_when_the_runtime_is),
        WORKER_TEST(a_worker_without_http_needs_no_server),
        WORKER_TEST(the_key_is_nowhere_to_be_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
