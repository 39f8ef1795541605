#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/lib/fixture.h"
#include "workers/gpu.h"

static struct fixture fixture;
static uv_loop_t loop;
static char library[512];

static int setup(void **state)
{
    (void)state;
    fixture_init(&fixture);
    loop = (uv_loop_t){0};
    loop_init(&loop);
    snprintf(library, sizeof library, "%s/fake-nvml.so", getenv("ORCH_BIN"));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_finish(&loop);
    fixture_release(&fixture);
    return 0;
}

static void usage_is(const char *name, int64_t total, int64_t used, int64_t percent,
                     int64_t degrees, int64_t power_mw)
{
    struct gpu *gpu = gpu_new_from(&loop, name, library);
    bool never = false;
    for (int i = 0; i < 20 || (i < 400 && gpu_usage(gpu).memory_total != total); i++)
        loop_run_until(&loop, &never, 5);
    struct gpu_usage usage = gpu_usage(gpu);
    assert_int_equal(usage.memory_total, total);
    assert_int_equal(usage.memory_used, used);
    assert_int_equal(usage.utilization, percent);
    assert_int_equal(usage.temperature, degrees);
    assert_int_equal(usage.power_mw, power_mw);
    gpu_free(&gpu);
}

static void nvml_tells_memory_load_temperature_and_power(void **state)
{
    (void)state;
    usage_is("0", 80LL << 30, 30LL << 30, 42, 61, 250000);
    usage_is("GPU-1234", 80LL << 30, 30LL << 30, 42, 61, 250000);
}

static void a_gpu_that_nvml_does_not_know_is_unknown(void **state)
{
    (void)state;
    usage_is("1", 0, 0, -1, 0, 0);
    usage_is("GPU-none", 0, 0, -1, 0, 0);
}

static void without_a_driver_everything_is_unknown(void **state)
{
    (void)state;
    snprintf(library, sizeof library, "/nonexistent/libnvidia-ml.so.1");
    usage_is("0", 0, 0, -1, 0, 0);
}

static void two_workers_on_one_gpu_are_refused_unless_both_share_it(void **state)
{
    (void)state;
    static const struct {
        bool first, second, third;
        int second_rc;
    } cases[] = {{false, false, false, -EBUSY},
                 {false, true, true, -EBUSY},
                 {true, false, false, -EBUSY},
                 {true, true, true, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int first, second = -1, other;
        struct err err = {0};
        assert_int_equal(gpu_lock(&first, fixture.dir, "", "GPU-x", cases[i].first, NULL), 0);
        assert_int_equal(gpu_lock(&second, fixture.dir, "", "GPU-x", cases[i].second, &err),
                         cases[i].second_rc);
        assert_int_equal(cases[i].second_rc != 0, strstr(err.text, "share: true") != NULL);
        assert_int_equal(gpu_lock(&other, fixture.dir, "", "GPU-y", false, NULL), 0);
        close(other);
        close(first);
        if (second >= 0)
            close(second);
        assert_int_equal(gpu_lock(&first, fixture.dir, "", "GPU-x", false, NULL),
                         0); /* all are gone */
        close(first);
    }
}

static void a_lock_follows_no_link(void **state)
{
    (void)state;
    char path[256];
    int fd;
    struct err err = {0};
    snprintf(path, sizeof path, "%s/orchestrator-gpu-7.lock", fixture.dir);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_true(gpu_lock(&fd, fixture.dir, "", "7", false, &err) < 0);
    assert_true(gpu_lock(&fd, "/nonexistent", "", "7", false, &err) < 0);
}

static void an_index_and_the_uuid_of_one_gpu_are_one_lock(void **state)
{
    (void)state;
    int first, second;
    fixture_write(&fixture, "proc/driver/nvidia/gpus/0000:1A:00.0/information", "UUID: GPU-aaaa\n");
    fixture_write(&fixture, "proc/driver/nvidia/gpus/0000:b3:00.0/information", "UUID: GPU-bbbb\n");
    assert_int_equal(gpu_lock(&first, fixture.dir, fixture.dir, "1", false, NULL), 0);
    assert_int_equal(gpu_lock(&second, fixture.dir, fixture.dir, "GPU-bbbb", false, NULL), -EBUSY);
    assert_int_equal(gpu_lock(&second, fixture.dir, fixture.dir, "GPU-aaaa", false, NULL), 0);
    close(second);
    close(first);
}

/* Workers may run as different users, with any umask. */
static void the_lock_of_another_user_counts(void **state)
{
    (void)state;
    char dir[] = "/tmp/orchestrator-locks-XXXXXX", path[128];
    int fd, status;
    struct stat stat_of_lock;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 01777), 0);
    mode_t before = umask(077);
    assert_int_equal(gpu_lock(&fd, dir, "", "7", false, NULL), 0);
    umask(before);
    snprintf(path, sizeof path, "%s/orchestrator-gpu-7.lock", dir);
    assert_int_equal(stat(path, &stat_of_lock), 0);
    assert_int_equal(stat_of_lock.st_mode & 0777, 0644);
    pid_t pid = fork();
    if (pid == 0) {
        int other;
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(2);
        _exit(gpu_lock(&other, dir, "", "7", false, NULL) == -EBUSY ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    close(fd);
    unlink(path);
    rmdir(dir);
    assert_int_equal(status, 0);
}

#define GPU_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        GPU_TEST(nvml_tells_memory_load_temperature_and_power),
        GPU_TEST(a_gpu_that_nvml_does_not_know_is_unknown),
        GPU_TEST(without_a_driver_everything_is_unknown),
        GPU_TEST(two_workers_on_one_gpu_are_refused_unless_both_share_it),
        GPU_TEST(a_lock_follows_no_link),
        GPU_TEST(an_index_and_the_uuid_of_one_gpu_are_one_lock),
        GPU_TEST(the_lock_of_another_user_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
