/* The p95 of arms that hedges wait for. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/pace.h"

static struct pace *pace;

static int set_up(void **state)
{
    (void)state;
    pace = pace_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pace_free(&pace);
    pace_free(&pace);
    return 0;
}

static int64_t n_attempts;

static void add_attempt(int64_t attempt, const char *role, const char *arm, double total_ms)
{
    pace_add(pace, &(struct msg_timing){.task = "t",
                                        .sub = "s",
                                        .attempt = attempt,
                                        .role = role,
                                        .arm = arm,
                                        .result = "done",
                                        .total_ms = total_ms});
}

static void add(const char *role, const char *arm, double total_ms)
{
    add_attempt(++n_attempts, role, arm, total_ms);
}

static void nothing_is_said_of_an_arm_before_it_has_answered_twenty_times(void **state)
{
    (void)state;
    for (int i = 1; i < 20; i++)
        add("coder", "m@p", i);
    assert_int_equal(pace_p95_ms(pace, "coder", "m@p"), -1);
    add("coder", "m@p", 20);
    assert_int_equal(pace_p95_ms(pace, "coder", "m@p"), 19);
    assert_int_equal(pace_p95_ms(pace, "coder", "other@p"), -1);
}

static void an_attempt_that_is_told_twice_counts_once(void **state)
{
    (void)state;
    for (int times = 0; times < 2; times++)
        for (int i = 1; i < 20; i++)
            add_attempt(i, "coder", "m@p", i);
    assert_int_equal(pace_p95_ms(pace, "coder", "m@p"), -1);
    add_attempt(20, "coder", "m@p", 20);
    assert_int_equal(pace_p95_ms(pace, "coder", "m@p"), 19);
}

static void a_roles_own_answers_are_preferred_to_those_of_all(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        add("fast", "m@p", 10);
    for (int i = 0; i < 19; i++)
        add("slow", "m@p", 1000);
    assert_int_equal(pace_p95_ms(pace, "fast", "m@p"), 10);
    assert_int_equal(pace_p95_ms(pace, "slow", "m@p"), 1000); /* of both together */
    assert_int_equal(pace_p95_ms(pace, "unseen", "m@p"), 1000);
}

static void failures_and_cached_answers_do_not_count(void **state)
{
    (void)state;
    struct msg_timing odd[] = {
        {.role = "r", .arm = "m@p", .result = "failed", .total_ms = 1},
        {.role = "r", .arm = "m@p", .result = "cancelled", .total_ms = 1},
        {.role = "r", .arm = "m@p", .result = "done", .cached = true, .total_ms = 1},
        {.role = "r", .arm = "m@p", .result = "done", .total_ms = -1},
        {.role = "r", .arm = "m@p", .result = "done", .total_ms = INFINITY},
        {.role = "r", .arm = "m@p", .result = "done", .total_ms = NAN},
        {.role = "r", .arm = "", .result = "done", .total_ms = 1},
    };
    for (int i = 0; i < 200; i++)
        pace_add(pace, &odd[i % 7]);
    assert_int_equal(pace_p95_ms(pace, "r", "m@p"), -1);
    assert_int_equal(pace_p95_ms(pace, "r", ""), -1);
}

static void old_answers_are_forgotten(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        add("r", "m@p", 5000);
    assert_int_equal(pace_p95_ms(pace, "r", "m@p"), 5000);
    for (int i = 0; i < 200; i++)
        add("r", "m@p", 3.2);
    assert_int_equal(pace_p95_ms(pace, "r", "m@p"), 4);
}

static void names_are_bounded_in_length_and_number(void **state)
{
    (void)state;
    char name[600], arm[32];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    for (int i = 0; i < 30; i++)
        add(name, name, 5);
    assert_int_equal(pace_p95_ms(pace, name, name), -1);
    for (int i = 0; i < 12000; i++) {
        snprintf(arm, sizeof arm, "m%d@p", i);
        add("", arm, 5);
    }
    for (int i = 0; i < 30; i++)
        add("", "m11999@p", 5);
    assert_int_equal(pace_p95_ms(pace, "", "m11999@p"), -1);
    for (int i = 0; i < 30; i++)
        add("", "m1@p", 5);
    assert_int_equal(pace_p95_ms(pace, "", "m1@p"), 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_said_of_an_arm_before_it_has_answered_twenty_times),
        TEST(an_attempt_that_is_told_twice_counts_once),
        TEST(a_roles_own_answers_are_preferred_to_those_of_all),
        TEST(failures_and_cached_answers_do_not_count),
        TEST(old_answers_are_forgotten),
        TEST(names_are_bounded_in_length_and_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
