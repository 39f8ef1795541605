/* The clock of Redis's machine is set, an hour forward or back, while subtasks run: leases and
 * delays keep what is left of them. Only redis-server's clock is
 * moved. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
/* cmocka wants the three above first. */
#include <cmocka.h>

#include "common/task_id.h"
#include "tests/lib/probe.h"

#define T "t0000000000000001"
#define LEASE_MS 20000
#define SHORT_MS 1000

static struct probe probe;

static volatile int64_t *offset_ms; /* that redis-server's clock is set by */

static void map_offset(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, sizeof *offset_ms), 0);
    offset_ms = mmap(NULL, sizeof *offset_ms, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(offset_ms, MAP_FAILED);
    close(fd);
}

static long long redis_time(void)
{
    return atoll(probe_redis(&probe, "EVAL return(redis.call('TIME')[1]) 0"));
}

static int setup(void **state)
{
    (void)state;
    probe_open(&probe);
    const char *bin = getenv("ORCH_BIN");
    char file[128], preload[512];
    snprintf(file, sizeof file, "%s/clock", probe.fixture.dir);
    snprintf(preload, sizeof preload, "%s/clock-jump.so", bin != NULL ? bin : "build/bin");
    map_offset(file);
    fixture_redis_kill(&probe.fixture, SIGKILL);
    setenv("LD_PRELOAD", preload, 1);
    setenv("ORCH_CLOCK_FILE", file, 1);
    setenv("ORCH_CLOCK_OF", "redis-server", 1);
    fixture_redis_start(&probe.fixture);
    unsetenv("LD_PRELOAD");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    munmap((void *)(uintptr_t)offset_ms, sizeof *offset_ms);
    probe_close(&probe);
    return 0;
}

static void set_clock(long long seconds)
{
    long long before = redis_time() - *offset_ms / 1000;
    *offset_ms = seconds * 1000;
    assert_true(llabs(redis_time() - before - seconds) < 60);
}

/* --- scanning, as a daemon does ----------------------------------------------------------------
 */

static bool scanned;
static int n_items;

static void items_answered(void *ctx, int shard, const struct queue_item *items, size_t n,
                           const char *err)
{
    (void)ctx, (void)shard, (void)items;
    assert_string_equal(err, "");
    n_items = (int)n;
    scanned = true;
}

static int scan(enum queue_index index)
{
    scanned = false;
    queue_scan(probe.queue, task_shard(T), index, 0, 100, items_answered, NULL);
    probe_wait_for(&probe, &scanned);
    return n_items;
}

static void scan_until_found(enum queue_index index)
{
    for (int tries = 0; scan(index) == 0; tries++) {
        assert_true(tries < 2000);
        usleep(10000); /* what is waited for is time itself */
    }
}

static const struct probe_node two[] = {{.id = "a"}, {.id = "b"}};

static void leases_outlive_a_clock_that_is_set_forward(void **state)
{
    (void)state;
    assert_int_equal(probe_submit(&probe, T, "d", two, 2), QUEUE_OK);
    assert_int_equal(probe_claim_for(&probe, T, "a", "n", LEASE_MS), QUEUE_OK);
    assert_int_equal(scan(QUEUE_INDEX_LEASE), 0);
    set_clock(3600);
    assert_int_equal(scan(QUEUE_INDEX_LEASE), 0);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_STALE);
    assert_int_equal(probe_commit(&probe, T, "a", probe.token), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void leases_and_delays_end_in_time_when_the_clock_is_set_back(void **state)
{
    (void)state;
    set_clock(3600);
    assert_int_equal(probe_submit(&probe, T, "d", two, 2), QUEUE_OK);
    assert_int_equal(probe_claim_for(&probe, T, "b", "n", LEASE_MS), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "b", probe.token, ERROR_RETRY, SHORT_MS), QUEUE_RETRY);
    assert_int_equal(probe_claim_for(&probe, T, "a", "n", SHORT_MS), QUEUE_OK);
    assert_int_equal(scan(QUEUE_INDEX_LEASE), 0);
    set_clock(0);
    scan_until_found(QUEUE_INDEX_LEASE);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_RETRY);
    scan_until_found(QUEUE_INDEX_DELAY);
    assert_int_equal(probe_sub(&probe, queue_promote, T, "b"), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void another_observer_does_not_take_time_that_passed_for_a_jump(void **state)
{
    (void)state;
    assert_int_equal(probe_submit(&probe, T, "d", two, 2), QUEUE_OK);
    assert_int_equal(probe_claim_for(&probe, T, "a", "n", SHORT_MS), QUEUE_OK);
    assert_int_equal(scan(QUEUE_INDEX_LEASE), 0);
    struct redis_options options = fixture_redis_options(&probe.fixture);
    queue_close(&probe.queue);
    assert_int_equal(queue_open(&probe.queue, &probe.loop, &options, NULL, NULL, NULL), 0);
    set_clock(60); /* as if it had been gone for a minute */
    assert_int_equal(scan(QUEUE_INDEX_LEASE), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(leases_outlive_a_clock_that_is_set_forward, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(leases_and_delays_end_in_time_when_the_clock_is_set_back,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(another_observer_does_not_take_time_that_passed_for_a_jump,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
