#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "workers/accounts.h"
#include "workers/backoff.h"

static void one_broker_gets_all_places(void **state)
{
    (void)state;
    struct accounts *accounts = accounts_new(1);
    accounts_divide(accounts, 5, INT64_MAX);
    assert_int_equal(accounts_credit(accounts, 0), 0); /* it does not know us yet */
    accounts_introduce(accounts, 0);
    accounts_divide(accounts, 5, INT64_MAX);
    assert_int_equal(accounts_credit(accounts, 0), 5);
    accounts_free(&accounts);
}

static void places_are_divided_and_each_broker_gets_one(void **state)
{
    (void)state;
    struct accounts *accounts = accounts_new(3);
    for (int i = 0; i < 3; i++)
        accounts_introduce(accounts, i);
    accounts_divide(accounts, 9, INT64_MAX);
    assert_int_equal(accounts_credit(accounts, 2), 3);
    accounts_divide(accounts, 1, INT64_MAX);
    for (int i = 0; i < 3; i++)
        assert_int_equal(accounts_credit(accounts, i), 1);
    accounts_divide(accounts, 0, INT64_MAX);
    assert_int_equal(accounts_credit(accounts, 0), 0);
    accounts_divide(accounts, -2, INT64_MAX);
    assert_int_equal(accounts_credit(accounts, 0), 0);
    accounts_free(&accounts);
}

static void credit_goes_round(void **state)
{
    (void)state;
    struct accounts *accounts = accounts_new(2);
    accounts_introduce(accounts, 0);
    accounts_introduce(accounts, 1);
    accounts_divide(accounts, 4, INT64_MAX);
    accounts_spend(accounts, 0);
    assert_int_equal(accounts_credit(accounts, 0), 1);
    assert_int_equal(accounts_least(accounts), 1);
    accounts_owe(accounts, 0);
    assert_int_equal(accounts_owed(accounts, 0), 1);
    assert_int_equal(accounts_owed(accounts, 1), 0);
    accounts_pay(accounts, 0, 1);
    assert_int_equal(accounts_credit(accounts, 0), 2);
    assert_int_equal(accounts_owed(accounts, 0), 0);
    for (int i = 0; i < 5; i++)
        accounts_spend(accounts, 1); /* a broker that sends too much */
    assert_int_equal(accounts_credit(accounts, 1), 0);
    accounts_free(&accounts);
}

/* It came back while all places were used by the others. */
static void a_broker_that_has_nothing_gets_the_next_place(void **state)
{
    (void)state;
    struct accounts *accounts = accounts_new(2);
    accounts_introduce(accounts, 0);
    accounts_introduce(accounts, 1);
    accounts_divide(accounts, 0, INT64_MAX);
    accounts_owe(accounts, 1);
    accounts_owe(accounts, 1);
    accounts_owe(accounts, 1);
    assert_int_equal(accounts_owed(accounts, 0), 1);
    assert_int_equal(accounts_owed(accounts, 1), 2);
    accounts_free(&accounts);
}

static void credit_that_one_lacks_and_another_does_not_use_is_uneven(void **state)
{
    (void)state;
    struct accounts *accounts = accounts_new(2);
    accounts_introduce(accounts, 0);
    assert_false(accounts_uneven(accounts));
    accounts_introduce(accounts, 1);
    accounts_divide(accounts, 4, INT64_MAX);
    assert_false(accounts_uneven(accounts));
    accounts_spend(accounts, 0);
    accounts_spend(accounts, 0);
    assert_true(accounts_uneven(accounts));
    accounts_spend(accounts, 1);
    assert_false(accounts_uneven(accounts)); /* the last one stays where it is */
    accounts_free(&accounts);
}

static void places_of_a_lost_broker_go_to_another(void **state)
{
    (void)state;
    struct accounts *accounts = accounts_new(2);
    accounts_introduce(accounts, 0);
    accounts_introduce(accounts, 1);
    accounts_divide(accounts, 4, INT64_MAX);
    accounts_lose(accounts, 0);
    assert_int_equal(accounts_credit(accounts, 0), 0);
    accounts_owe(accounts, 0);
    assert_int_equal(accounts_owed(accounts, 1), 1);
    accounts_lose(accounts, 1);
    accounts_owe(accounts, 0);
    assert_int_equal(accounts_owed(accounts, 0), 0);
    assert_int_equal(accounts_least(accounts), 0);
    accounts_free(&accounts);
}

static void what_the_limits_hold_back_is_owed(void **state)
{
    (void)state;
    struct accounts *accounts = accounts_new(2);
    accounts_introduce(accounts, 0);
    accounts_introduce(accounts, 1);
    accounts_divide(accounts, 8, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(accounts_credit(accounts, i), 1);
        assert_int_equal(accounts_owed(accounts, i), 3);
    }
    assert_int_equal(accounts_granted(accounts), 2);
    accounts_pay(accounts, 1, 2);
    assert_int_equal(accounts_credit(accounts, 1), 3);
    assert_int_equal(accounts_owed(accounts, 1), 1);
    accounts_divide(accounts, 8, 0);
    assert_int_equal(accounts_granted(accounts), 0);
    assert_int_equal(accounts_owed(accounts, 0), 4);
    accounts_free(&accounts);
}

static void backoff_doubles_up_to_its_most(void **state)
{
    (void)state;
    assert_int_equal(backoff_ms(500, 8000, 0), 500);
    assert_int_equal(backoff_ms(500, 8000, 3), 4000);
    assert_int_equal(backoff_ms(500, 8000, 4), 8000);
    assert_int_equal(backoff_ms(500, 8000, INT64_MAX), 8000);
    uint64_t random = 1;
    int64_t least = 8000;
    for (int i = 0; i < 1000; i++) {
        int64_t delay_ms = backoff_jitter(&random, 8000);
        assert_in_range(delay_ms, 6000, 8000);
        least = delay_ms < least ? delay_ms : least;
    }
    assert_true(least < 6200);
    assert_int_equal(backoff_jitter(&random, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_broker_gets_all_places),
        cmocka_unit_test(places_are_divided_and_each_broker_gets_one),
        cmocka_unit_test(credit_goes_round),
        cmocka_unit_test(places_of_a_lost_broker_go_to_another),
        cmocka_unit_test(a_broker_that_has_nothing_gets_the_next_place),
        cmocka_unit_test(credit_that_one_lacks_and_another_does_not_use_is_uneven),
        cmocka_unit_test(what_the_limits_hold_back_is_owed),
        cmocka_unit_test(backoff_doubles_up_to_its_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
