#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "broker/taps.h"

static bool frame(struct taps *taps, char action, const char *prefix)
{
    uint8_t bytes[512];
    size_t len = strlen(prefix);
    bytes[0] = (uint8_t)action;
    memcpy(bytes + 1, prefix, len);
    return taps_frame(taps, bytes, len + 1);
}

static void taps_want_what_a_prefix_covers(void **state)
{
    struct taps taps = {0};
    (void)state;
    assert_false(taps_want(&taps, "task.t1.done"));
    assert_true(frame(&taps, 1, "task.t1."));
    assert_true(taps_want(&taps, "task.t1.done"));
    assert_false(taps_want(&taps, "task.t2.done"));
    assert_false(taps_want(&taps, "task.t1"));
    assert_true(frame(&taps, 0, "task.t1."));
    assert_false(taps_want(&taps, "task.t1.done"));
    taps_release(&taps);
}

static void taps_announce_their_prefixes(void **state)
{
    struct taps taps = {0};
    struct msg_topics topics;
    (void)state;
    frame(&taps, 1, "task.");
    frame(&taps, 1, "worker.w1.");
    taps_fill(&taps, &topics);
    assert_false(topics.all);
    assert_int_equal(topics.n_prefixes, 2);
    assert_string_equal(topics.prefixes[0], "task.");
    assert_string_equal(topics.prefixes[1], "worker.w1.");
    taps_release(&taps);
}

static void taps_of_everything_are_announced_as_all(void **state)
{
    struct taps taps = {0};
    struct msg_topics topics;
    (void)state;
    frame(&taps, 1, "task.");
    frame(&taps, 1, "");
    assert_true(taps_want(&taps, "broker.full"));
    taps_fill(&taps, &topics);
    assert_true(topics.all);
    assert_int_equal(topics.n_prefixes, 0);
    frame(&taps, 0, "");
    taps_fill(&taps, &topics);
    assert_false(topics.all);
    assert_int_equal(topics.n_prefixes, 1);
    taps_release(&taps);
}

static void taps_past_the_listed_limit_are_announced_as_all(void **state)
{
    struct taps taps = {0};
    struct msg_topics topics;
    char prefix[32];
    (void)state;
    for (int i = 0; i <= TAPS_LISTED_MAX; i++) {
        taps_fill(&taps, &topics);
        assert_false(topics.all);
        snprintf(prefix, sizeof prefix, "task.t%d.", i);
        frame(&taps, 1, prefix);
    }
    taps_fill(&taps, &topics);
    assert_true(topics.all);
    taps_release(&taps);
}

static void taps_past_the_kept_limit_want_everything_until_all_are_gone(void **state)
{
    struct taps taps = {0};
    char prefix[32];
    (void)state;
    for (int i = 0; i <= TAPS_KEPT_MAX; i++) {
        snprintf(prefix, sizeof prefix, "task.t%d.", i);
        assert_true(frame(&taps, 1, prefix));
    }
    assert_true(taps_want(&taps, "worker.w.beat"));
    for (int i = 0; i <= TAPS_KEPT_MAX; i++) {
        snprintf(prefix, sizeof prefix, "task.t%d.", i);
        frame(&taps, 0, prefix);
    }
    assert_false(taps_want(&taps, "worker.w.beat"));
    taps_release(&taps);
}

static void taps_ignore_what_is_no_subscription(void **state)
{
    struct taps taps = {0};
    uint8_t bytes[TOPIC_MAX_BYTES + 2] = {0};
    (void)state;
    assert_false(taps_frame(&taps, bytes, 0));
    assert_false(taps_frame(&taps, (const uint8_t *)"\x02task", 5));
    assert_false(taps_frame(&taps, (const uint8_t *)"\x01ta\0sk", 6));
    memset(bytes, 'a', sizeof bytes);
    bytes[0] = 1;
    assert_false(taps_frame(&taps, bytes, sizeof bytes));
    assert_false(frame(&taps, 0, "never.subscribed"));
    assert_true(frame(&taps, 1, "task."));
    assert_false(frame(&taps, 1, "task."));
    taps_release(&taps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taps_want_what_a_prefix_covers),
        cmocka_unit_test(taps_announce_their_prefixes),
        cmocka_unit_test(taps_of_everything_are_announced_as_all),
        cmocka_unit_test(taps_past_the_listed_limit_are_announced_as_all),
        cmocka_unit_test(taps_past_the_kept_limit_want_everything_until_all_are_gone),
        cmocka_unit_test(taps_ignore_what_is_no_subscription),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
