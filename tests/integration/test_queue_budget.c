/* Budgets are promises: what is spent and reserved never exceeds a limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "tests/lib/probe.h"

#define T "t0000000000000001"
#define U "t0000000000000002"
#define CENT INT64_C(10000000) /* in nano USD */

static struct probe probe;

static int setup(void **state)
{
    (void)state;
    probe_open(&probe);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    probe_close(&probe);
    return 0;
}

/* A task of n subtasks s0, s1, ... */
static void submit(const char *task, int n, struct queue_spend budget)
{
    struct probe_node nodes[256];
    static char ids[256][16];
    for (int i = 0; i < n; i++) {
        snprintf(ids[i], sizeof ids[i], "s%d", i);
        nodes[i] = (struct probe_node){.id = ids[i], .max_attempts = 9};
    }
    probe.budget = budget;
    assert_int_equal(probe_submit(&probe, task, "d", nodes, (size_t)n), QUEUE_OK);
}

static void claim(const char *task, const char *sub)
{
    assert_int_equal(probe_claim(&probe, task, sub, "n"), QUEUE_OK);
}

static enum queue_status reserve(const char *sub, const char *token, int64_t cents, int64_t tokens)
{
    return probe_reserve(&probe, T, sub, token, NULL, 0,
                         (struct queue_spend){cents * CENT, tokens});
}

static enum queue_status __attribute__((unused))
reserve_of(const char *task, const char *sub, const char *account, int64_t limit_cents,
           int64_t cents)
{
    struct queue_account accounts[] = {{account, {limit_cents * CENT, 0}}};
    return probe_reserve(&probe, task, sub, "1-n", accounts, 1,
                         (struct queue_spend){cents * CENT, 0});
}

static void spends(int64_t cents, int64_t tokens)
{
    static struct queue_spend spent;
    spent = (struct queue_spend){cents * CENT, tokens};
    probe.spent = &spent;
}

static void assert_sums(int64_t spent_cents, int64_t held_cents)
{
    assert_true(probe.view_spent.nano_usd == spent_cents * CENT);
    assert_true(probe.view_held.nano_usd == held_cents * CENT);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void assert_task(int64_t spent_cents, int64_t held_cents)
{
    probe_read(&probe, T);
    assert_sums(spent_cents, held_cents);
}

static void __attribute__((unused))
assert_account(const char *name, int64_t spent_cents, int64_t held_cents)
{
    probe_account(&probe, name);
    assert_sums(spent_cents, held_cents);
}

static void a_call_is_reserved_and_settled(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){100 * CENT, 1000});
    claim(T, "s0");
    assert_true(probe.budgeted);
    assert_int_equal(reserve("s0", "1-n", 40, 500), QUEUE_OK);
    assert_task(0, 40);
    spends(25, 300);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_task(25, 0);
    assert_int_equal(probe.view_spent.tokens, 300);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_DUP);
    assert_task(25, 0);
}

static void a_task_without_a_budget_reserves_nothing(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){0, 0});
    claim(T, "s0");
    assert_false(probe.budgeted);
    assert_int_equal(reserve("s0", "1-n", 4000000, 500), QUEUE_OK);
    assert_task(0, 0);
    spends(25, 300);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_task(0, 0);
}

static void what_does_not_fit_now_waits_and_what_never_fits_is_told(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){100 * CENT, 0});
    claim(T, "s0");
    claim(T, "s1");
    assert_int_equal(reserve("s0", "1-n", 97, 0), QUEUE_OK);
    assert_int_equal(reserve("s1", "1-n", 12, 0), QUEUE_WAIT);
    assert_string_equal(probe.err, "the task's budget of $1.00 has $0.03 left beside the $0.97 of "
                                   "calls under way, and this call could cost up to $0.12");
    assert_task(0, 97);
    spends(97, 0);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_int_equal(reserve("s1", "1-n", 12, 0), QUEUE_BUDGET);
    assert_string_equal(
        probe.err,
        "the task's budget of $1.00 has $0.03 left, and this call could cost up to $0.12");
    assert_int_equal(reserve("s1", "1-n", 3, 0), QUEUE_OK);
    assert_task(97, 3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_call_is_reserved_and_settled),
        TEST(a_task_without_a_budget_reserves_nothing),
        TEST(what_does_not_fit_now_waits_and_what_never_fits_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
