#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/lib/fixture.h"
#include "workers/process_group.h"
#include "workers/runtime.h"

#define PATIENCE 4000 /* turns of 5 ms */

static struct fixture fixture;
static uv_loop_t loop;
static struct http *http;
static struct runtime *runtime;
static char log_path[128], pid_path[128], health_url[96], port_text[16], program[512];
static int port, ups, downs;
static bool busy;
static struct buf news; /* "what: text" lines */

static void health_changed(void *ctx, bool healthy)
{
    (void)ctx;
    ups += healthy;
    downs += !healthy;
}

static void take_news(void *ctx, const char *what, const char *text)
{
    (void)ctx;
    buf_printf(&news, "%s: %s\n", what, text);
}

static bool is_busy(void *ctx)
{
    (void)ctx;
    return busy;
}

static int setup(void **state)
{
    (void)state;
    fixture_init(&fixture);
    loop = (uv_loop_t){0};
    loop_init(&loop);
    ups = downs = 0;
    busy = false;
    port = fixture_free_port();
    snprintf(port_text, sizeof port_text, "%d", port);
    snprintf(program, sizeof program, "%s/test-runtime", getenv("ORCH_BIN"));
    snprintf(log_path, sizeof log_path, "%s/runtime.log", fixture.dir);
    snprintf(pid_path, sizeof pid_path, "%s/pids", fixture.dir);
    snprintf(health_url, sizeof health_url, "http://127.0.0.1:%d/health", port);
    return http_open(&http, &loop, NULL);
}

static int teardown(void **state)
{
    (void)state;
    runtime_close(&runtime);
    http_close(&http);
    loop_finish(&loop);
    fixture_release(&fixture);
    buf_release(&news);
    return 0;
}

/* Our model server, healthy once the file `loaded` is there. */
static void open_runtime(const struct runtime_options *more)
{
    static char *argv[3];
    static const char *const hidden[] = {"PLANTED_SECRET"};
    argv[0] = program, argv[1] = port_text, argv[2] = fixture.dir;
    struct runtime_options options = *more;
    options.loop = &loop;
    options.http = http;
    options.name = "w1";
    options.argv = argv;
    options.n_argv = 3;
    options.health = health_url;
    options.gpu = "3";
    options.log = log_path;
    options.hidden = hidden;
    options.n_hidden = 1;
    options.first_backoff_ms = 20;
    options.news = take_news;
    options.busy = is_busy;
    assert_int_equal(runtime_open(&runtime, &options, health_changed, NULL, NULL), 0);
}

static void tell(const char *what)
{
    fixture_write(&fixture, what, "");
}

static void untell(const char *what)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", fixture.dir, what);
    unlink(path);
}

static bool wait_count(const int *count, int n)
{
    bool never = false;
    for (int i = 0; i < PATIENCE && *count < n; i++)
        loop_run_until(&loop, &never, 5);
    return *count >= n;
}

static bool wait_news(const char *text)
{
    bool never = false;
    for (int i = 0; i < PATIENCE && (news.data == NULL || strstr(news.data, text) == NULL); i++)
        loop_run_until(&loop, &never, 5);
    return news.data != NULL && strstr(news.data, text) != NULL;
}

/* The process id that the runtime said at its line-th start, from 1; 0: not yet. */
static pid_t said_already(int line)
{
    struct buf text = {0};
    const char *at = fixture_read(pid_path, &text) ? text.data : NULL;
    for (int i = 1; at != NULL && i < line; i++) {
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    bool whole = at != NULL && strchr(at, '\n') != NULL;
    pid_t pid = whole ? (pid_t)strtol(at, NULL, 10) : 0;
    buf_release(&text);
    return pid;
}

static pid_t said(int line)
{
    bool never = false;
    for (int i = 0; i < PATIENCE && said_already(line) == 0; i++)
        loop_run_until(&loop, &never, 5);
    assert_true(said_already(line) > 0);
    return said_already(line);
}

static void a_runtime_is_usable_once_its_health_url_answers_well(void **state)
{
    (void)state;
    open_runtime(&(struct runtime_options){0});
    said(1);
    assert_false(runtime_healthy(runtime));
    assert_int_equal(runtime_load_ms(runtime), -1);
    tell("loaded");
    assert_true(wait_count(&ups, 1));
    assert_true(runtime_healthy(runtime));
    assert_true(runtime_load_ms(runtime) >= 0);
    assert_true(wait_news("warm: healthy after "));
}

static void it_sees_its_gpu_and_no_keys(void **state)
{
    (void)state;
    setenv("PLANTED_SECRET", "sk-planted", 1);
    open_runtime(&(struct runtime_options){0});
    assert_true(said(1) > 0);
    assert_true(fixture_wait_text(&fixture, "runtime.log", "gpu 3 secret (null)", 10000));
    unsetenv("PLANTED_SECRET");
}

static void one_that_dies_is_started_again_and_its_last_words_are_told(void **state)
{
    (void)state;
    tell("loaded");
    open_runtime(&(struct runtime_options){0});
    assert_true(wait_count(&ups, 1));
    tell("die");
    assert_true(wait_count(&downs, 1));
    untell("die");
    assert_true(wait_news("note: the runtime ended with status 3, last saying: dying"));
    assert_true(wait_count(&ups, 2));
    pid_t now = runtime_healthy(runtime) ? said(2) : 0;
    assert_int_not_equal(now, said(1));
}

static void one_that_hangs_is_ended_and_started_again(void **state)
{
    (void)state;
    tell("loaded");
    open_runtime(&(struct runtime_options){.hang_ms = 1, .watch_ms = 200});
    assert_true(wait_count(&ups, 1));
    pid_t first = said(1);
    tell("hang");
    assert_true(wait_news("note: has not answered for 1 ms"));
    untell("hang");
    assert_true(wait_count(&ups, 2));
    assert_int_not_equal(said(2), first);
}

static void one_that_never_becomes_healthy_is_started_again(void **state)
{
    (void)state;
    open_runtime(&(struct runtime_options){.start_ms = 300});
    assert_true(wait_news("note: is not healthy 300 ms after its start"));
    said(2);
    assert_int_equal(ups, 0);
    tell("loaded");
    assert_true(wait_count(&ups, 1));
}

static void one_that_takes_too_much_memory_is_started_again_when_it_is_idle(void **state)
{
    (void)state;
    tell("loaded");
    busy = true;
    tell("leak");
    open_runtime(&(struct runtime_options){.memory_max_bytes = (int64_t)48 << 20});
    assert_true(wait_news("of memory, more than 48"));
    assert_int_equal(downs, 1); /* no more work, but what runs may end */
    bool never = false;
    loop_run_until(&loop, &never, 600);
    assert_int_equal(said_already(2), 0);
    untell("leak");
    busy = false;
    assert_true(wait_count(&ups, 2));
    assert_true(said(2) > 0);
    assert_true(runtime_memory_bytes(runtime) > 0);
}

static void a_taken_port_is_told_and_waited_for(void **state)
{
    (void)state;
    const char *argv[] = {program, port_text, fixture.dir, NULL};
    tell("loaded");
    pid_t other = fixture_spawn(&fixture, "other.log", argv);
    assert_true(fixture_wait_listen(NULL, port, 10000));
    open_runtime(&(struct runtime_options){0});
    assert_true(wait_news("something else answers at http://127.0.0.1:"));
    assert_int_equal(ups, 0); /* the other's health is not ours */
    assert_int_equal(said_already(2), 0);
    fixture_kill(&fixture, other, SIGKILL);
    assert_true(wait_count(&ups, 1));
    assert_true(said(2) > 0);
}

static bool is_gone(void *ctx)
{
    char path[64];
    struct buf stat = {0};
    snprintf(path, sizeof path, "/proc/%d/stat", (int)*(pid_t *)ctx);
    bool gone = !fixture_read(path, &stat) || stat.len == 0 || strstr(stat.data, ") Z") != NULL;
    buf_release(&stat);
    return gone;
}

/* A runtime that is a shell script, without a health URL. */
static void open_script(const char *text, const struct runtime_options *more)
{
    static char sh[] = "/bin/sh", c[] = "-c", script[256];
    static char *argv[] = {sh, c, script};
    snprintf(script, sizeof script, "%s", text);
    struct runtime_options options = *more;
    options.loop = &loop;
    options.http = http;
    options.name = "w1";
    options.argv = argv;
    options.n_argv = 3;
    options.log = log_path;
    options.news = take_news;
    assert_int_equal(runtime_open(&runtime, &options, health_changed, NULL, NULL), 0);
}

static void closing_lets_it_end_well_and_ends_what_is_left_of_its_group(void **state)
{
    (void)state;
    open_script("sh -c 'trap \"\" TERM; echo $$ >> $ORCHESTRATOR_HOME/pids; exec sleep 1000' & "
                "trap 'echo ending well; exit 0' TERM; echo ready; wait",
                &(struct runtime_options){0});
    assert_true(wait_count(&ups, 1));
    pid_t child = said(1);
    assert_true(fixture_wait_text(&fixture, "runtime.log", "ready", 10000));
    runtime_close(&runtime);
    assert_true(fixture_wait_text(&fixture, "runtime.log", "ending well", 10000));
    assert_true(fixture_wait(is_gone, &child, 10000));
}

static void one_that_ignores_the_signal_is_killed(void **state)
{
    (void)state;
    open_script("trap '' TERM; echo $$ >> $ORCHESTRATOR_HOME/pids; exec sleep 1000",
                &(struct runtime_options){0});
    pid_t leader = said(1);
    runtime_close(&runtime);
    assert_true(is_gone(&leader));
}

static void it_runs_on_the_cpus_near_its_gpu(void **state)
{
    (void)state;
    cpu_set_t ours;
    char list[16], line[64];
    int cpu = CPU_SETSIZE - 1;
    assert_int_equal(sched_getaffinity(0, sizeof ours, &ours), 0);
    while (cpu > 0 && !CPU_ISSET((size_t)cpu, &ours))
        cpu--;
    snprintf(list, sizeof list, "%d\n", cpu);
    snprintf(line, sizeof line, "Cpus_allowed_list:\t%d\n", cpu);
    fixture_write(&fixture, "proc/driver/nvidia/gpus/0000:1A:00.0/information", "UUID: GPU-a\n");
    fixture_write(&fixture, "sys/bus/pci/devices/0000:1a:00.0/local_cpulist", list);
    open_script("grep Cpus_allowed_list /proc/self/status; exec sleep 1000",
                &(struct runtime_options){.gpu = "GPU-a", .root = fixture.dir});
    bool never = false;
    for (int i = 0; i < 20 && ups == 0; i++)
        loop_run_until(&loop, &never, 5);
    assert_true(fixture_wait_text(&fixture, "runtime.log", line, 10000));
    if (CPU_COUNT(&ours) == 1)
        print_message("with one CPU this says little\n");
}

static void one_that_dies_at_once_is_started_again_ever_more_slowly(void **state)
{
    (void)state;
    open_script("exit 7", &(struct runtime_options){.first_backoff_ms = 100});
    assert_true(wait_news("note: the runtime ended with status 7; started again in 0.1 s"));
    assert_true(wait_news("note: the runtime ended with status 7; started again in 0.2 s"));
    assert_true(wait_news("note: the runtime ended with status 7; started again in 0.4 s"));
}

static void who_comes_later_can_be_told(void **state)
{
    (void)state;
    open_runtime(&(struct runtime_options){0});
    said(1);
    buf_clear(&news);
    runtime_tell(runtime);
    assert_true(wait_news("loading: 0 s"));
    tell("loaded");
    assert_true(wait_count(&ups, 1));
    buf_clear(&news);
    runtime_tell(runtime);
    assert_true(wait_news("warm: healthy after "));
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
        RUNTIME_TEST(a_runtime_is_usable_once_its_health_url_answers_well),
        RUNTIME_TEST(it_sees_its_gpu_and_no_keys),
        RUNTIME_TEST(one_that_dies_is_started_again_and_its_last_words_are_told),
        RUNTIME_TEST(one_that_hangs_is_ended_and_started_again),
        RUNTIME_TEST(one_that_never_becomes_healthy_is_started_again),
        RUNTIME_TEST(one_that_takes_too_much_memory_is_started_again_when_it_is_idle),
        RUNTIME_TEST(a_taken_port_is_told_and_waited_for),
        RUNTIME_TEST(it_runs_on_the_cpus_near_its_gpu),
        RUNTIME_TEST(one_that_dies_at_once_is_started_again_ever_more_slowly),
        RUNTIME_TEST(who_comes_later_can_be_told),
        RUNTIME_TEST(closing_lets_it_end_well_and_ends_what_is_left_of_its_group),
        RUNTIME_TEST(one_that_ignores_the_signal_is_killed),
        RUNTIME_TEST(a_command_that_does_not_exist_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
