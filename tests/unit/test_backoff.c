/* How long a failed attempt waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/backoff.h"

static uint64_t seed = 1;

/* Up to a quarter is taken off. */
static void assert_about(int64_t delay_ms, int64_t expected_ms)
{
    assert_in_range(delay_ms, expected_ms * 3 / 4, expected_ms);
}

static void what_waits_backs_off_further_than_what_fails(void **state)
{
    (void)state;
    assert_about(backoff_failed(&seed, CLASS_RETRY, -1, 1), 500);
    assert_about(backoff_failed(&seed, CLASS_RETRY, -1, 3), 2000);
    assert_about(backoff_failed(&seed, CLASS_RETRY, -1, 99), 8000);
    assert_about(backoff_failed(&seed, CLASS_RATE_LIMITED, -1, 1), 1000);
    assert_about(backoff_failed(&seed, CLASS_OVERLOADED, -1, 4), 8000);
    assert_about(backoff_failed(&seed, CLASS_RATE_LIMITED, -1, 99), 60000);
}

static void the_server_s_own_delay_is_obeyed_up_to_an_hour(void **state)
{
    (void)state;
    assert_int_equal(backoff_failed(&seed, CLASS_RATE_LIMITED, 1234, 9), 1234);
    assert_int_equal(backoff_failed(&seed, CLASS_RETRY, 0, 9), 0);
    assert_int_equal(backoff_failed(&seed, CLASS_RATE_LIMITED, 86400000, 1), 3600000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_waits_backs_off_further_than_what_fails),
        cmocka_unit_test(the_server_s_own_delay_is_obeyed_up_to_an_hour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
