/* The invited keys in Redis: named, replaced, seen, removed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "common/queue_keys.h"
#include "tests/lib/probe.h"

#define KEY_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define KEY_B "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"

static struct probe probe;
static int64_t changes_seen;

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

static void answered(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx;
    probe.status = status;
    snprintf(probe.err, sizeof probe.err, "%s", err);
    probe.done = true;
}

static enum queue_status put(const char *name, const char *key, int64_t expires_ms)
{
    queue_keys_put(probe.queue, name, KEYRING_WORKER, key, expires_ms, answered, NULL);
    probe_wait(&probe);
    return probe.status;
}

static enum queue_status removed(const char *name)
{
    queue_keys_remove(probe.queue, name, answered, NULL);
    probe_wait(&probe);
    return probe.status;
}

static enum queue_status joined(const char *name, const char *key)
{
    queue_keys_joined(probe.queue, name, key, answered, NULL);
    probe_wait(&probe);
    return probe.status;
}

static void listed(void *ctx, const struct queue_key *keys, size_t n, const char *err)
{
    (void)ctx;
    assert_non_null(keys);
    buf_clear(&probe.text);
    buf_add_str(&probe.text, "");
    for (size_t i = 0; i < n; i++)
        buf_printf(&probe.text, "%s %s %.1s %lld %d\n", keys[i].name,
                   keyring_role_name(keys[i].role), keys[i].public_key,
                   (long long)keys[i].expires_ms, keys[i].joined);
    snprintf(probe.err, sizeof probe.err, "%s", err);
    probe.done = true;
}

static const char *list(void)
{
    queue_keys_list(probe.queue, listed, NULL);
    probe_wait(&probe);
    return probe.text.data != NULL ? probe.text.data : "";
}

static void counted(void *ctx, int64_t changes)
{
    (void)ctx;
    changes_seen = changes;
    probe.done = true;
}

static int64_t changes(void)
{
    queue_keys_changes(probe.queue, counted, NULL);
    probe_wait(&probe);
    return changes_seen;
}

static void keys_are_put_replaced_and_removed(void **state)
{
    (void)state;
    assert_string_equal(list(), "");
    assert_int_equal(removed("b"), QUEUE_GONE);
    assert_int_equal(put("b", KEY_B, 5), QUEUE_OK);
    assert_int_equal(put("a", KEY_A, 0), QUEUE_OK);
    assert_string_equal(list(), "a worker A 0 0\nb worker B 5 0\n");
    assert_int_equal(joined("b", KEY_B), QUEUE_OK);
    assert_int_equal(put("b", KEY_A, 7), QUEUE_OK);
    assert_string_equal(list(), "a worker A 0 0\nb worker A 7 0\n");
    assert_int_equal(removed("b"), QUEUE_OK);
    assert_string_equal(list(), "a worker A 0 0\n");
}

static void a_key_that_was_seen_does_not_expire(void **state)
{
    (void)state;
    assert_int_equal(put("a", KEY_A, 5000), QUEUE_OK);
    assert_int_equal(joined("a", KEY_A), QUEUE_OK);
    assert_int_equal(joined("a", KEY_A), QUEUE_DUP);
    assert_string_equal(list(), "a worker A 5000 1\n");
    struct queue_key key = {.expires_ms = 5000};
    assert_false(queue_key_expired(&key, 5000));
    assert_true(queue_key_expired(&key, 5001));
    key.joined = true;
    assert_false(queue_key_expired(&key, 5001));
    key = (struct queue_key){.expires_ms = 0};
    assert_false(queue_key_expired(&key, 5001));
}

static void a_removed_or_replaced_key_is_not_brought_back_by_having_been_seen(void **state)
{
    (void)state;
    assert_int_equal(joined("a", KEY_A), QUEUE_GONE);
    assert_int_equal(put("a", KEY_B, 5), QUEUE_OK);
    assert_int_equal(joined("a", KEY_A), QUEUE_GONE);
    assert_string_equal(list(), "a worker B 5 0\n");
}

static void every_change_is_counted_and_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(changes(), 0);
    put("a", KEY_A, 5);
    assert_int_equal(changes(), 1);
    joined("a", KEY_A);
    assert_int_equal(changes(), 2);
    joined("a", KEY_A);
    removed("b");
    list();
    assert_int_equal(changes(), 2);
    removed("a");
    assert_int_equal(changes(), 3);
}

static void damaged_fields_allow_nobody_and_are_told(void **state)
{
    (void)state;
    static const char *const damaged[] = {"",
                                          "worker",
                                          "worker " KEY_A,
                                          "worker " KEY_A " x 0",
                                          "king " KEY_A " 0 0",
                                          "worker AAAA 0 0",
                                          "worker " KEY_A " 0 0 0"};
    put("good", KEY_A, 0);
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        redis_command(queue_redis(probe.queue), NULL, NULL, 4,
                      (const char *[]){"HSET", QUEUE_KEYS_KEY, "bad", damaged[i]}, NULL);
        assert_string_equal(list(), "good worker A 0 0\n");
        assert_non_null(strstr(probe.err, "bad"));
    }
    assert_int_equal(removed("bad"), QUEUE_OK);
    list();
    assert_string_equal(probe.err, "");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(keys_are_put_replaced_and_removed),
        TEST(a_key_that_was_seen_does_not_expire),
        TEST(a_removed_or_replaced_key_is_not_brought_back_by_having_been_seen),
        TEST(every_change_is_counted_and_nothing_else),
        TEST(damaged_fields_allow_nobody_and_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
