#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/paths.h"
#include "common/peer.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "tests/lib/fixture.h"
#include "tests/lib/http_server.h"

/* Real worker, broker and Redis; the test itself is orchestrator and provider. */
struct bench {
    struct fixture fixture;
    uv_loop_t loop;
    struct http_server *server;
    struct config *config;
    struct queue *queue;
    struct peer *peer;
    char config_path[128], task[TASK_ID_SIZE];
    int starts;
    bool welcomed;
    bool answered;
    enum queue_status status;
    enum sub_state state;
    int64_t attempts_made;
    char error_class[64], text[128];
    int workers; /* seen by a status */
    int64_t credit, running;
    bool status_done;
};

static struct bench *bench;

static void introduce(void *ctx, int broker)
{
    (void)ctx;
    struct message hello = {.type = MESSAGE_hello,
                            .hello = {.name = "test", .boot = "b1", .host = "h", .pid = 1}};
    peer_send(bench->peer, broker, &hello);
}

static void welcome(void *ctx, int broker, const struct msg_welcome *message)
{
    (void)ctx, (void)broker, (void)message;
    bench->welcomed = true;
}

static void take_message(void *ctx, int broker, const struct message *message)
{
    (void)ctx, (void)broker;
    if (message->type == MESSAGE_worker_info) {
        bench->workers++;
        bench->credit = message->worker_info.credit;
        bench->running = message->worker_info.running;
    }
    bench->status_done |= message->type == MESSAGE_broker_info;
}

static pid_t spawn(const char *const *argv, const char *log, int *ret_ready)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    char ready[16];
    snprintf(ready, sizeof ready, "%d", fds[1]);
    const char *args[16];
    size_t n = 0;
    for (; argv[n] != NULL; n++)
        args[n] = argv[n];
    args[n++] = "--ready-fd";
    args[n++] = ready;
    args[n] = NULL;
    pid_t pid = fixture_spawn(&bench->fixture, log, args);
    close(fds[1]);
    *ret_ready = fds[0];
    return pid;
}

/* The line that a program writes to its ready descriptor; the test's loop runs meanwhile. */
static const char *ready_line(int fd)
{
    static char line[1024];
    bool never = false;
    ssize_t len = -1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 6000 && (len = read(fd, line, sizeof line - 1)) < 0; i++)
        loop_run_until(&bench->loop, &never, 5);
    line[len > 0 ? len : 0] = '\0';
    close(fd);
    return line;
}

static pid_t start_worker_with(const char *name, const char *drain_ms, int *ret_ready)
{
    char log[32];
    snprintf(log, sizeof log, "worker-%d.log", ++bench->starts);
    const char *argv[] = {"orchestrator-worker", "--name",     name,     "--config",
                          bench->config_path,    "--drain-ms", drain_ms, NULL};
    return spawn(argv, log, ret_ready);
}

static pid_t start_worker(const char *name)
{
    int ready;
    pid_t pid = start_worker_with(name, "30000", &ready);
    const char *line = ready_line(ready);
    if (strcmp(line, "ready\n") != 0)
        fail_msg("worker %s: %s", name, line);
    return pid;
}

static const char yaml[] =
    "redis: unix://%s\n"
    "bus: {brokers: [local], heartbeat_ms: 200}\n"
    "queue: {lease_ms: 15000, renew_ms: 5000, abandon_ms: 10000}\n"
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
    "  - {name: w-gpu, provider: hold, concurrency: 1, gpu: 0, launch: [/bin/sh, -c, 'exec sleep "
    "1000'],\n"
    "     health: 'http://127.0.0.1:%d/whole/health'}\n";

static int setup(void **state)
{
    (void)state;
    struct err err = {0};
    bench = calloc(1, sizeof *bench);
    fixture_init(&bench->fixture);
    fixture_redis_start(&bench->fixture);
    loop_init(&bench->loop);
    bench->server = http_server_start();
    setenv("WORKER_TEST_KEY", "sk-secret-1234567890", 1);
    unsetenv("WORKER_NO_KEY");
    unsetenv("ORCH_FAILPOINT");
    int port = http_server_port(bench->server);
    struct buf text = {0};
    buf_printf(&text, yaml, bench->fixture.redis_socket, port, port, port, port);
    snprintf(bench->config_path, sizeof bench->config_path, "%s",
             fixture_write(&bench->fixture, "config.yaml", text.data));
    buf_release(&text);
    char run[96];
    snprintf(run, sizeof run, "%s/" PATH_RUN, bench->fixture.dir);
    path_make(run, NULL);
    int ready;
    const char *broker[] = {"orchestrator-broker", "--config", bench->config_path, NULL};
    spawn(broker, "broker.log", &ready);
    assert_string_equal(ready_line(ready), "ready\n");
    static const struct peer_callbacks callbacks = {
        .introduce = introduce, .message = take_message, .welcome = welcome};
    struct redis_options redis = fixture_redis_options(&bench->fixture);
    if (config_load(&bench->config, bench->config_path, &err) != 0 ||
        queue_open(&bench->queue, &bench->loop, &redis, NULL, NULL, &err) != 0 ||
        peer_open(&bench->peer, &bench->loop, bench->config, "orchestrator/test", "b1", &callbacks,
                  NULL, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(loop_run_until(&bench->loop, &bench->welcomed, 20000), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    peer_close(&bench->peer);
    queue_close(&bench->queue);
    config_free(&bench->config);
    loop_finish(&bench->loop);
    fixture_release(&bench->fixture);
    http_server_stop(&bench->server);
    free(bench);
    return 0;
}

/* --- helpers ------------------------------------------------------------------------------------
 */

static void answered(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx, (void)err;
    bench->answered = true;
    bench->status = status;
}

static struct bytes bytes_of(const char *value)
{
    return (struct bytes){value, strlen(value)};
}

static enum queue_status answer(void)
{
    assert_int_equal(loop_run_until(&bench->loop, &bench->answered, 20000), 0);
    bench->answered = false;
    return bench->status;
}

static void submit(void)
{
    struct message work = {.type = MESSAGE_work,
                           .work = {.kind = "run",
                                    .title = "Title",
                                    .role = "coder",
                                    .system = bytes_of(""),
                                    .prompt = bytes_of("do it"),
                                    .task_text = bytes_of(""),
                                    .json_schema = bytes_of(""),
                                    .temperature = -1}};
    struct buf record = {0};
    assert_int_equal(message_encode(&work, &record), 0);
    struct queue_node node = {
        .id = "a", .work = {record.data, record.len}, .meta = bytes_of(""), .max_attempts = 5};
    task_id_make(bench->task);
    struct queue_task task = {.id = bench->task,
                              .digest = "d",
                              .title = "t",
                              .info = bytes_of(""),
                              .nodes = &node,
                              .n_nodes = 1};
    queue_submit(bench->queue, &task, answered, NULL);
    assert_int_equal(answer(), QUEUE_OK);
    buf_release(&record);
}

static void offer(const char *model)
{
    int64_t after_ms = 0;
    struct message message = {.type = MESSAGE_offer,
                              .offer = {.task = bench->task,
                                        .sub = "a",
                                        .shard = task_shard(bench->task),
                                        .arms = &model,
                                        .n_arms = 1,
                                        .after_ms = &after_ms,
                                        .n_after_ms = 1}};
    assert_int_equal(peer_send(bench->peer, 0, &message), 0);
}

static void take_view(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    (void)ctx, (void)err;
    bench->answered = true;
    if (status != QUEUE_OK || view->n_subs != 1)
        return;
    struct message outcome = {0};
    const struct queue_sub_view *sub = view->subs;
    bench->state = sub->state;
    bench->attempts_made = sub->attempts;
    snprintf(bench->error_class, sizeof bench->error_class, "%s", sub->error_class);
    bench->text[0] = '\0';
    if (sub->outcome.len > 0 &&
        message_decode_as(&outcome, MESSAGE_outcome, sub->outcome.data, sub->outcome.len) == 0)
        snprintf(bench->text, sizeof bench->text, "%s", outcome.outcome.text.data);
    message_release(&outcome);
}

static bool reaches(enum sub_state state)
{
    bool never = false;
    for (int i = 0; i < 2000; i++) {
        bench->state = SUB_STATE_COUNT;
        queue_read(bench->queue, bench->task, false, take_view, NULL);
        answer();
        if (bench->state == state)
            return true;
        loop_run_until(&bench->loop, &never, 10);
    }
    return false;
}

static void wait_request(size_t n)
{
    bool never = false;
    for (int i = 0; i < 4000 && http_server_requests(bench->server) < n; i++)
        loop_run_until(&bench->loop, &never, 5);
    assert_true(http_server_requests(bench->server) >= n);
}

static void read_status(void)
{
    struct message message = {.type = MESSAGE_status};
    bench->workers = 0;
    bench->credit = bench->running = -1;
    bench->status_done = false;
    if (peer_send(bench->peer, 0, &message) == 0) /* without an answer, nothing was seen */
        loop_run_until(&bench->loop, &bench->status_done, 1000);
}

static bool credit_becomes(int64_t credit)
{
    bool never = false;
    for (int i = 0; i < 2000; i++) {
        read_status();
        if (bench->credit == credit)
            return true;
        loop_run_until(&bench->loop, &never, 10);
    }
    return false;
}

static void kill_at(const char *failpoint)
{
    setenv("ORCH_FAILPOINT", failpoint, 1);
    pid_t worker = start_worker("w-ok");
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
    start_worker("w-ok");
    assert_true(credit_becomes(4));
    for (int i = 0; i < 10; i++) {
        submit();
        offer("m-ok");
        assert_true(reaches(SUB_DONE));
        assert_string_equal(bench->text, "one two three");
    }
    assert_true(credit_becomes(4));
    assert_int_equal(http_server_requests(bench->server), 10);
}

static void a_worker_killed_after_the_answer_commits_it_when_it_is_back(void **state)
{
    (void)state;
    kill_at("spooled:1");
    assert_int_equal(http_server_requests(bench->server), 1);
    start_worker("w-ok");
    assert_true(reaches(SUB_DONE));
    assert_string_equal(bench->text, "one two three");
    assert_int_equal(bench->attempts_made, 1);
    assert_int_equal(http_server_requests(bench->server), 1);
}

static void a_worker_killed_after_the_commit_does_no_harm_when_it_is_back(void **state)
{
    (void)state;
    kill_at("committed:1");
    assert_true(reaches(SUB_DONE));
    start_worker("w-ok");
    submit();
    offer("m-ok");
    assert_true(reaches(SUB_DONE));
    assert_int_equal(http_server_requests(bench->server), 2);
}

static void a_lost_claim_fails_at_once_when_the_worker_is_back(void **state)
{
    (void)state;
    pid_t worker = start_worker("w-hold");
    submit();
    offer("m-hold");
    wait_request(1);
    fixture_kill(&bench->fixture, worker, SIGKILL);
    assert_true(reaches(SUB_RUNNING)); /* its lease still runs */
    start_worker("w-hold");
    bool never = false;
    for (int i = 0; i < 1000 && bench->state == SUB_RUNNING; i++) {
        queue_read(bench->queue, bench->task, false, take_view, NULL);
        answer();
        loop_run_until(&bench->loop, &never, 5);
    }
    assert_true(bench->state == SUB_READY || bench->state == SUB_DELAYED);
    assert_string_equal(bench->error_class, "worker_lost");
}

static void a_drain_lets_what_runs_finish(void **state)
{
    (void)state;
    pid_t worker = start_worker("w-hold");
    submit();
    offer("m-hold");
    wait_request(1);
    kill(worker, SIGTERM);
    assert_true(fixture_wait_text(&bench->fixture, "worker-1.log", "stops: 1 attempts", 20000));
    http_server_release(bench->server);
    assert_true(reaches(SUB_DONE));
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 0);
    assert_int_equal(http_server_requests(bench->server), 1);
}

static void a_second_signal_gives_the_work_back(void **state)
{
    (void)state;
    pid_t worker = start_worker("w-hold");
    submit();
    offer("m-hold");
    wait_request(1);
    kill(worker, SIGTERM);
    assert_true(fixture_wait_text(&bench->fixture, "worker-1.log", "stops: 1 attempts", 20000));
    kill(worker, SIGINT);
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 0);
    queue_read(bench->queue, bench->task, false, take_view, NULL);
    answer();
    assert_int_not_equal(bench->state, SUB_RUNNING);
    assert_string_equal(bench->error_class, "worker_lost");
}

static void a_drain_that_takes_too_long_gives_the_work_back(void **state)
{
    (void)state;
    int ready;
    pid_t worker = start_worker_with("w-hold", "300", &ready);
    assert_string_equal(ready_line(ready), "ready\n");
    submit();
    offer("m-hold");
    wait_request(1);
    kill(worker, SIGTERM);
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 0);
    queue_read(bench->queue, bench->task, false, take_view, NULL);
    answer();
    assert_string_equal(bench->error_class, "worker_lost");
}

static void a_drain_message_stops_the_worker(void **state)
{
    (void)state;
    pid_t worker = start_worker("w-ok");
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
    start_worker("w-hold");
    submit();
    offer("m-hold");
    wait_request(1);
    queue_cancel(bench->queue, bench->task, answered, NULL);
    assert_int_equal(answer(), QUEUE_OK);
    struct message message = {.type = MESSAGE_cancel, .cancel = {.task = bench->task, .sub = ""}};
    peer_send(bench->peer, 0, &message);
    bool never = false;
    for (int i = 0; i < 600 && http_server_hangups(bench->server) == 0; i++) /* before a renewal */
        loop_run_until(&bench->loop, &never, 5);
    assert_int_equal(http_server_hangups(bench->server), 1);
    assert_true(credit_becomes(4));
}

static void a_restarted_broker_is_introduced_to_again(void **state)
{
    (void)state;
    start_worker("w-ok");
    read_status();
    assert_int_equal(bench->workers, 1);
    fixture_kill(&bench->fixture, bench->fixture.pids[0], SIGKILL);
    int ready;
    const char *broker[] = {"orchestrator-broker", "--config", bench->config_path, NULL};
    spawn(broker, "broker.log", &ready);
    assert_string_equal(ready_line(ready), "ready\n");
    assert_true(credit_becomes(4));
    submit();
    offer("m-ok");
    assert_true(reaches(SUB_DONE));
}

static void two_workers_of_one_name_refuse(void **state)
{
    (void)state;
    start_worker("w-ok");
    int ready;
    pid_t second = start_worker_with("w-ok", "0", &ready);
    assert_non_null(strstr(ready_line(ready), "runs on this host already"));
    assert_int_equal(fixture_wait_exit(&bench->fixture, second, 20000), 1);
}

static void a_missing_key_is_told_at_the_start(void **state)
{
    (void)state;
    int ready;
    pid_t worker = start_worker_with("w-poor", "0", &ready);
    const char *line = ready_line(ready);
    assert_non_null(strstr(line, "WORKER_NO_KEY"));
    assert_non_null(strstr(line, "poor"));
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 1);
    worker = start_worker_with("nobody", "0", &ready);
    assert_non_null(strstr(ready_line(ready), "nobody"));
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 1);
}

static void without_redis_a_worker_waits_for_it(void **state)
{
    (void)state;
    fixture_redis_kill(&bench->fixture, SIGKILL);
    int ready;
    start_worker_with("w-ok", "0", &ready);
    assert_true(fixture_wait_text(&bench->fixture, "worker-1.log", "trying again", 20000));
    fixture_redis_start(&bench->fixture);
    assert_string_equal(ready_line(ready), "ready\n");
    submit();
    offer("m-ok");
    assert_true(reaches(SUB_DONE));
}

static void a_worker_with_a_runtime_is_ready_when_the_runtime_is(void **state)
{
    (void)state;
    pid_t worker = start_worker("w-gpu");
    assert_true(fixture_wait_text(&bench->fixture, "worker-1.log", "is healthy", 20000));
    assert_true(credit_becomes(1));
    kill(worker, SIGTERM);
    assert_int_equal(fixture_wait_exit(&bench->fixture, worker, 20000), 0);
}

static void a_worker_without_http_needs_no_server(void **state)
{
    (void)state;
    start_worker("w-null");
    submit();
    offer("m-null");
    assert_true(reaches(SUB_DONE));
    assert_string_equal(bench->text, "ok");
}

static void the_key_is_nowhere_to_be_seen(void **state)
{
    (void)state;
    pid_t worker = start_worker("w-ok");
    submit();
    offer("m-ok");
    assert_true(reaches(SUB_DONE));
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
