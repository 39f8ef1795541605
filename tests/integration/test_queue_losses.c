/* Attempts whose worker was lost: they do not count, but do not go on for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "common/task_id.h"
#include "tests/lib/probe.h"

#define T "t00000000000000aa"

static struct probe probe;
static const struct queue_spend nothing;

static int setup(void **state)
{
    (void)state;
    static const struct probe_node nodes[] = {{.id = "a"}, {.id = "b"}};
    probe_open(&probe);
    assert_int_equal(probe_submit(&probe, T, "d", nodes, 2), QUEUE_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(probe_fsck(&probe), 0);
    probe_close(&probe);
    return 0;
}

static void answered(void *ctx, enum queue_status status, const char *err)
{
    struct probe *at = ctx;
    (void)err;
    at->status = status;
    at->done = true;
}

/* The worker of attempt `number` of "a" is gone. action: RETRY when it died of this subtask. */
static enum queue_status lose(int number, enum error_action action)
{
    char token[32];
    snprintf(token, sizeof token, "%d-n", number);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_string_equal(probe.token, token);
    queue_fail(probe.queue, T, "a", token, CLASS_WORKER_LOST, action, "gone", "m@p", 0,
               (struct bytes){"", 0}, &nothing, answered, &probe);
    probe_wait(&probe);
    return probe.status;
}

/* Where the subtask waits, its time comes now. */
static void end_the_wait(void)
{
    char command[128];
    snprintf(command, sizeof command, "ZADD orch:{s%d}:delay XX 1 " T "/a", task_shard(T));
    probe_redis(&probe, command);
    probe_sub(&probe, queue_promote, T, "a");
}

static void a_lost_worker_uses_up_no_attempt(void **state)
{
    (void)state;
    for (int number = 1; number <= 10; number++) {
        assert_int_equal(lose(number, ERROR_WAIT), QUEUE_RETRY);
        end_the_wait();
    }
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_commit(&probe, T, "a", "11-n"), QUEUE_OK);
}

static void two_losses_run_again_at_once_and_the_third_waits(void **state)
{
    (void)state;
    lose(1, ERROR_WAIT);
    assert_string_equal(probe_read(&probe, T), "RUNNING 2/2 a=READY b=READY");
    lose(2, ERROR_WAIT);
    assert_string_equal(probe_read(&probe, T), "RUNNING 2/2 a=READY b=READY");
    lose(3, ERROR_WAIT);
    assert_string_equal(probe_read(&probe, T), "RUNNING 2/2 a=DELAYED b=READY");
}

static void so_many_losses_are_the_end(void **state)
{
    (void)state;
    for (int number = 1; number < QUEUE_LOSSES_MAX; number++) {
        assert_int_equal(lose(number, ERROR_WAIT), QUEUE_RETRY);
        end_the_wait();
    }
    assert_int_equal(lose(QUEUE_LOSSES_MAX, ERROR_WAIT), QUEUE_DEAD);
    assert_string_equal(probe_read(&probe, T), "FAILED 2/2 a=DEAD b=CANCELLED");
}

static void what_the_worker_died_of_is_dead_after_its_attempts(void **state)
{
    (void)state;
    assert_int_equal(lose(1, ERROR_RETRY), QUEUE_RETRY);
    assert_int_equal(lose(2, ERROR_WAIT), QUEUE_RETRY);
    assert_int_equal(lose(3, ERROR_RETRY), QUEUE_RETRY);
    assert_int_equal(lose(4, ERROR_RETRY), QUEUE_DEAD);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_lost_worker_uses_up_no_attempt),
        TEST(two_losses_run_again_at_once_and_the_third_waits),
        TEST(so_many_losses_are_the_end),
        TEST(what_the_worker_died_of_is_dead_after_its_attempts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
