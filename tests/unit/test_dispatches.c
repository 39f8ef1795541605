/* The broker's memory of what it dispatched to whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "broker/dispatches.h"

static int w1, w2, o1, o2;

static struct dispatch_key key(const char *sub, const int *worker)
{
    return (struct dispatch_key){.task = "t", .sub = sub, .arm = "m@h", .worker = worker};
}

static void dispatch_can_be_declined_once_and_only_by_its_worker(void **state)
{
    (void)state;
    struct dispatches *dispatches = dispatches_new(8);
    struct dispatch_key given = key("a", &w1), other = key("a", &w2);
    void *owner = NULL;
    dispatches_add(dispatches, &given, &o1);
    assert_false(dispatches_take(dispatches, &other, &owner));
    assert_true(dispatches_take(dispatches, &given, &owner));
    assert_ptr_equal(owner, &o1);
    assert_false(dispatches_take(dispatches, &given, &owner));
    dispatches_free(&dispatches);
}

static void dispatch_is_told_apart_by_all_that_names_it(void **state)
{
    (void)state;
    struct dispatches *dispatches = dispatches_new(8);
    struct dispatch_key given = key("a", &w1);
    struct dispatch_key others[] = {given, given, given, given};
    others[0].task = "ta", others[0].sub = "";
    others[1].sub = "b";
    others[2].arm = "n@h";
    others[3].hedge = true;
    void *owner;
    dispatches_add(dispatches, &given, &o1);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(dispatches_take(dispatches, &others[i], &owner));
    assert_true(dispatches_take(dispatches, &given, &owner));
    dispatches_free(&dispatches);
}

static void only_the_last_dispatches_are_remembered(void **state)
{
    (void)state;
    enum { MAX = 5, ROUNDS = 1000 };
    struct dispatches *dispatches = dispatches_new(MAX);
    char sub[16];
    void *owner;
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(sub, sizeof sub, "s%d", i);
        struct dispatch_key given = key(sub, &w1);
        dispatches_add(dispatches, &given, &o1);
    }
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(sub, sizeof sub, "s%d", i);
        struct dispatch_key given = key(sub, &w1);
        assert_int_equal(dispatches_take(dispatches, &given, &owner), i >= ROUNDS - MAX);
    }
    dispatches_free(&dispatches);
    dispatches_free(&dispatches);
}

static void the_gone_are_forgotten(void **state)
{
    (void)state;
    struct dispatches *dispatches = dispatches_new(8);
    struct dispatch_key a = key("a", &w1), b = key("b", &w2), c = key("c", &w2);
    void *owner = &o1;
    dispatches_add(dispatches, &a, &o1);
    dispatches_add(dispatches, &b, &o1);
    dispatches_add(dispatches, &c, &o2);
    dispatches_forget(dispatches, &w1);
    dispatches_forget(dispatches, &o1);
    assert_false(dispatches_take(dispatches, &a, &owner));
    assert_true(dispatches_take(dispatches, &b, &owner));
    assert_null(owner);
    assert_true(dispatches_take(dispatches, &c, &owner));
    assert_ptr_equal(owner, &o2);
    dispatches_free(&dispatches);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dispatch_can_be_declined_once_and_only_by_its_worker),
        cmocka_unit_test(dispatch_is_told_apart_by_all_that_names_it),
        cmocka_unit_test(only_the_last_dispatches_are_remembered),
        cmocka_unit_test(the_gone_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
