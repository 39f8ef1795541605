/* Programs that run out of file descriptors neither die nor spin, and go on when there are some
 * again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/lib/stage.h"

#define STRANGERS 100 /* that connect and say nothing */
#define LOOK_MS 1500  /* of CPU time used without descriptors */
#define MOST_CPU 0.5  /* part of it */

static const char yaml[] =
    "providers:\n  sim: {api: openai, base_url: \"http://127.0.0.1:%d\", key: 'env:FD_KEY',\n"
    "    breaker: {failures: 0}}\n"
    "models:\n  m: {provider: sim, name: sim}\n"
    "workers:\n  - {name: w1, provider: sim, concurrency: 6}\n"
    "  - {name: w2, provider: sim, concurrency: 6}\n"
    "roles:\n  general: {models: [m]}\n";
static const char scenario[] = "rules:\n  - {match: {}, tokens: 2}\n";

static struct stage stage;

static rlim_t open_descriptors(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    rlim_t n = 0;
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n - 2;
}

/* more: than are open now; RLIM_INFINITY: as many as it may have at all. */
static void limit(pid_t pid, rlim_t more)
{
    struct rlimit now;
    assert_int_equal(prlimit(pid, RLIMIT_NOFILE, NULL, &now), 0);
    now.rlim_cur = more == RLIM_INFINITY ? now.rlim_max : open_descriptors(pid) + more;
    assert_int_equal(prlimit(pid, RLIMIT_NOFILE, &now, NULL), 0);
}

static double cpu_seconds(pid_t pid)
{
    char path[64], line[1024] = "";
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file));
    fclose(file);
    const char *behind = strrchr(line, ')');
    assert_non_null(behind);
    assert_int_equal(
        sscanf(behind + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system),
        2);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void assert_does_not_spin(pid_t pid)
{
    bool never = false;
    double before = cpu_seconds(pid);
    int64_t until_ms = clock_ms() + LOOK_MS;
    while (clock_ms() < until_ms)
        loop_run_until(&stage.loop, &never, 50);
    assert_true(cpu_seconds(pid) - before < LOOK_MS / 1000.0 * MOST_CPU);
}

static void submit(const char *mark, char id[TASK_ID_SIZE])
{
    stage_submit(&stage, &(struct stage_task){.mark = mark, .n = 6}, id);
}

static void assert_done(const char *id)
{
    struct stage_view view = stage_wait(&stage, id);
    assert_int_equal(view.state, TASK_DONE);
    assert_int_equal(view.n_done, 6);
}

static void a_worker_without_descriptors_tries_again(void **state)
{
    (void)state;
    char id[TASK_ID_SIZE];
    pid_t worker = stage.testbed.workers[0];
    limit(worker, 0);
    submit("worker", id);
    assert_does_not_spin(worker);
    limit(worker, RLIM_INFINITY);
    assert_done(id);
}

static void a_daemon_without_descriptors_goes_on(void **state)
{
    (void)state;
    char id[TASK_ID_SIZE], later[TASK_ID_SIZE];
    pid_t daemon = stage.testbed.daemon;
    limit(daemon, 0);
    submit("daemon", id);
    assert_done(id);
    fixture_kill(&stage.testbed.fixture, stage.testbed.broker, SIGKILL);
    testbed_start_broker(&stage.testbed);
    assert_does_not_spin(daemon);
    limit(daemon, RLIM_INFINITY);
    submit("later", later);
    assert_done(later);
}

/* Connections to the broker's socket that never say a word; as many as it takes. */
static int connect_strangers(int *fds)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = 0;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/run/broker.sock",
             stage.testbed.fixture.dir);
    for (; n < STRANGERS; n++) {
        fds[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_true(fds[n] >= 0);
        if (connect(fds[n], (struct sockaddr *)&address, sizeof address) == 0)
            continue;
        close(fds[n]); /* the queue of new connections is full */
        break;
    }
    return n;
}

static void a_broker_without_descriptors_serves_those_it_has(void **state)
{
    (void)state;
    char id[TASK_ID_SIZE], later[TASK_ID_SIZE];
    int fds[STRANGERS];
    pid_t broker = stage.testbed.broker;
    limit(broker, 4);
    int n = connect_strangers(fds);
    assert_true(n > 4);
    submit("broker", id);
    assert_done(id);
    assert_does_not_spin(broker);
    for (int i = 0; i < n; i++)
        close(fds[i]);
    limit(broker, RLIM_INFINITY);
    fixture_kill(&stage.testbed.fixture, stage.testbed.workers[0], SIGKILL);
    testbed_start_worker(&stage.testbed, 1, "w2");
    submit("later", later);
    assert_done(later);
}

static int setup(void **state)
{
    (void)state;
    setenv("FD_KEY", "none", 1);
    stage_open(&stage, yaml, scenario, (const char *[]){"w1", NULL});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stage_close(&stage);
    return 0;
}

#define DESCRIPTORS_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        DESCRIPTORS_TEST(a_worker_without_descriptors_tries_again),
        DESCRIPTORS_TEST(a_daemon_without_descriptors_goes_on),
        DESCRIPTORS_TEST(a_broker_without_descriptors_serves_those_it_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
