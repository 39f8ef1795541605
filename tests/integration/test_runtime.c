#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/lib/fixture.h"
#include "tests/lib/http_server.h"
#include "workers/runtime.h"

static struct fixture fixture;
static uv_loop_t loop;
static struct http *http;
static struct http_server *server;
static struct runtime *runtime;
static char log_path[128], pid_path[128], health_url[96];
static int ups, downs;

static void health_changed(void *ctx, bool healthy)
{
    (void)ctx;
    ups += healthy;
    downs += !healthy;
}

static int setup(void **state)
{
    (void)state;
    fixture_init(&fixture);
    loop = (uv_loop_t){0};
    loop_init(&loop);
    server = http_server_start();
    ups = downs = 0;
    snprintf(log_path, sizeof log_path, "%s/runtime.log", fixture.dir);
    snprintf(pid_path, sizeof pid_path, "%s/pids", fixture.dir);
    return http_open(&http, &loop, NULL);
}

static int teardown(void **state)
{
    (void)state;
    runtime_close(&runtime);
    http_close(&http);
    loop_finish(&loop);
    http_server_stop(&server);
    fixture_release(&fixture);
    return 0;
}

/* A script in the place of a model server: says who it is, then stays. */
static void open_runtime(const char *script, const char *manner, struct err *err, int expected)
{
    static char *argv[3];
    static char sh[] = "/bin/sh", c[] = "-c", command[512];
    snprintf(command, sizeof command, "%s", script);
    argv[0] = sh, argv[1] = c, argv[2] = command;
    snprintf(health_url, sizeof health_url, "http://127.0.0.1:%d/%s/health",
             http_server_port(server), manner != NULL ? manner : "");
    struct runtime_options options = {
        .loop = &loop,
        .http = http,
        .name = "w1",
        .argv = argv,
        .n_argv = 3,
        .health = manner != NULL ? health_url : NULL,
        .gpu = "3",
        .log = log_path,
        .first_backoff_ms = 20,
    };
    assert_int_equal(runtime_open(&runtime, &options, health_changed, NULL, err), expected);
}

static bool wait_count(const int *count, int n)
{
    bool never = false;
    for (int i = 0; i < 4000 && *count < n; i++)
        loop_run_until(&loop, &never, 5);
    return *count >= n;
}

struct wait_pid {
    int line; /* from 1 */
    pid_t pid;
};

/* Whether the script has said its process id for the line-th time. */
static bool said_pid(void *ctx)
{
    struct wait_pid *wait = ctx;
    struct buf text = {0};
    const char *at = fixture_read(pid_path, &text) ? text.data : NULL;
    for (int line = 1; at != NULL && line < wait->line; line++) {
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    bool whole = at != NULL && strchr(at, '\n') != NULL;
    wait->pid = whole ? (pid_t)strtol(at, NULL, 10) : 0;
    buf_release(&text);
    return wait->pid > 0;
}

static pid_t said(int line)
{
    struct wait_pid wait = {.line = line};
    assert_true(fixture_wait(said_pid, &wait, 20000));
    return wait.pid;
}

static const char *stay(void)
{
    static char script[256];
    snprintf(script, sizeof script,
             "echo $$ >> %s; echo gpu $CUDA_VISIBLE_DEVICES; exec sleep 1000", pid_path);
    return script;
}

static void a_runtime_is_usable_once_its_health_url_answers(void **state)
{
    (void)state;
    open_runtime(stay(), "whole", NULL, 0);
    assert_false(runtime_healthy(runtime));
    assert_true(wait_count(&ups, 1));
    assert_true(runtime_healthy(runtime));
    assert_true(fixture_wait_text(&fixture, "runtime.log", "gpu 3", 10000));
}

static void one_that_does_not_answer_well_is_not(void **state)
{
    (void)state;
    open_runtime(stay(), "broken", NULL, 0);
    bool never = false;
    for (int i = 0; i < 2000 && http_server_requests(server) < 4; i++)
        loop_run_until(&loop, &never, 5);
    assert_true(http_server_requests(server) >= 4);
    assert_int_equal(ups, 0);
}

static void one_that_dies_is_started_again(void **state)
{
    (void)state;
    open_runtime(stay(), "whole", NULL, 0);
    assert_true(wait_count(&ups, 1));
    kill(said(1), SIGKILL);
    assert_true(wait_count(&downs, 1));
    assert_true(wait_count(&ups, 2));
    assert_int_not_equal(said(2), said(1));
    assert_int_equal(kill(said(2), 0), 0);
}

/* Also when nobody has reaped it yet. */
static bool is_gone(void *ctx)
{
    char path[64];
    struct buf stat = {0};
    snprintf(path, sizeof path, "/proc/%d/stat", (int)*(pid_t *)ctx);
    bool gone = !fixture_read(path, &stat) || stat.len == 0 || strstr(stat.data, ") Z") != NULL;
    buf_release(&stat);
    return gone;
}

static void closing_ends_the_whole_process_group(void **state)
{
    (void)state;
    char script[256];
    snprintf(script, sizeof script, "sleep 1000 & echo $! >> %s; trap '' TERM; wait", pid_path);
    open_runtime(script, NULL, NULL, 0);
    assert_true(wait_count(&ups, 1));
    pid_t child = said(1);
    runtime_close(&runtime);
    assert_true(fixture_wait(is_gone, &child, 10000));
}

static void a_command_that_does_not_exist_is_told(void **state)
{
    (void)state;
    static char name[] = "/nonexistent/llama-server";
    char *argv[] = {name};
    struct err err = {0};
    struct runtime_options options = {
        .loop = &loop, .http = http, .name = "w1", .argv = argv, .n_argv = 1, .log = log_path};
    assert_int_equal(runtime_open(&runtime, &options, health_changed, NULL, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/llama-server"));
    assert_non_null(strstr(err.text, "launch"));
}

#define RUNTIME_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        RUNTIME_TEST(a_runtime_is_usable_once_its_health_url_answers),
        RUNTIME_TEST(one_that_does_not_answer_well_is_not),
        RUNTIME_TEST(one_that_dies_is_started_again),
        RUNTIME_TEST(closing_ends_the_whole_process_group),
        RUNTIME_TEST(a_command_that_does_not_exist_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
