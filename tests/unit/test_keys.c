#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/lib/fixture.h"
#include "workers/keys.h"

static struct fixture fixture;

static void assert_key(const char *source, const char *expected)
{
    struct key *key = NULL;
    struct err err = {0};
    if (key_read(&key, source, &err) != 0)
        fail_msg("%s", err.text);
    assert_string_equal(key_value(key), expected);
    key_drop(&key);
}

static void assert_no_key(const char *source, int rc, const char *says)
{
    struct key *key = NULL;
    struct err err = {0};
    assert_int_equal(key_read(&key, source, &err), rc);
    assert_null(key);
    if (strstr(err.text, says) == NULL)
        fail_msg("%s", err.text);
}

static void a_key_comes_from_the_environment(void **state)
{
    (void)state;
    setenv("TEST_KEY", " sk-abc \n", 1);
    assert_key("env:TEST_KEY", "sk-abc");
    unsetenv("TEST_KEY");
    assert_no_key("env:TEST_KEY", -ENOENT, "TEST_KEY is not set");
}

static void a_key_is_the_first_line_of_a_file(void **state)
{
    (void)state;
    char source[300];
    snprintf(source, sizeof source, "file:%s",
             fixture_write(&fixture, "key", "first-line\r\nsecond\n"));
    assert_key(source, "first-line");
    fixture_write(&fixture, "key", "");
    assert_no_key(source, -EINVAL, "is empty");
    assert_no_key("file:/nonexistent/key", -ENOENT, "/nonexistent/key");
}

static void a_key_is_the_first_line_of_a_command(void **state)
{
    (void)state;
    assert_key("cmd:echo from-command; echo more", "from-command");
    assert_no_key("cmd:exit 3", -EINVAL, "status 3");
    assert_no_key("cmd:true", -EINVAL, "is empty");
}

static void a_command_that_goes_on_after_its_line_is_ended(void **state)
{
    (void)state;
    assert_key("cmd:echo quick; sleep 1000", "quick");
}

static void keys_that_would_break_a_header_are_refused_and_not_shown(void **state)
{
    (void)state;
    setenv("TEST_KEY", "se cret", 1);
    struct key *key = NULL;
    struct err err = {0};
    assert_int_equal(key_read(&key, "env:TEST_KEY", &err), -EINVAL);
    assert_null(strstr(err.text, "cret"));
    char *large = malloc(KEY_MAX_BYTES + 2);
    memset(large, 'k', KEY_MAX_BYTES + 1);
    large[KEY_MAX_BYTES + 1] = '\0';
    setenv("TEST_KEY", large, 1);
    assert_no_key("env:TEST_KEY", -EINVAL, "longer than");
    free(large);
    assert_no_key("sk-written-out", -EINVAL, "env:NAME");
}

static void scrubbing_replaces_every_occurrence(void **state)
{
    (void)state;
    setenv("TEST_KEY", "sk-12345", 1);
    struct key *key = NULL;
    assert_int_equal(key_read(&key, "env:TEST_KEY", NULL), 0);
    char text[] = "key sk-12345 (sk-12345sk-12345) is wrong, not sk-1234";
    key_scrub(key, text);
    assert_string_equal(text, "key *** (******) is wrong, not ***");
    key_scrub(NULL, text);
    key_drop(&key);
    setenv("TEST_KEY", "ab", 1);
    assert_int_equal(key_read(&key, "env:TEST_KEY", NULL), 0);
    char shorter[] = "ab cab";
    key_scrub(key, shorter);
    assert_string_equal(shorter, "** c**");
    key_drop(&key);
}

static void what_a_cut_leaves_of_a_key_is_replaced_too(void **state)
{
    (void)state;
    static const struct {
        const char *text, *scrubbed;
    } cases[] = {
        {"no such key: Secret/0", "no such key: ***"},
        {"no such key: Secr", "no such key: ***"},
        {"no such key: Sec", "no such key: Sec"}, /* might be any word */
        {"no such key: Secret/012...", "no such key: ***..."},
        {"Secret/0: no such key", "***: no such key"},
        {"Secrets are Secret", "Secrets are ***"},
        {"SecSecret/0123456789Secret/0", "Sec******"},
        {"", ""},
    };
    setenv("TEST_KEY", "Secret/0123456789", 1);
    struct key *key = NULL;
    assert_int_equal(key_read(&key, "env:TEST_KEY", NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[64];
        strcpy(text, cases[i].text);
        key_scrub(key, text);
        assert_string_equal(text, cases[i].scrubbed);
    }
    key_drop(&key);
}

static void keys_of_a_pool_take_turns_and_missing_ones_are_left_out(void **state)
{
    (void)state;
    uv_loop_t loop;
    loop_init(&loop);
    setenv("KEY_A", "a", 1);
    setenv("KEY_B", "b", 1);
    unsetenv("KEY_C");
    const char *sources[] = {"env:KEY_A", "env:KEY_C", "env:KEY_B"};
    struct keys *keys;
    struct err err = {0};
    assert_int_equal(keys_open(&keys, &loop, sources, 3, false, &err), 0);
    assert_int_equal(keys_count(keys), 2);
    const char expected[] = "abab";
    for (size_t i = 0; expected[i] != '\0'; i++) {
        struct key *key = keys_at(keys, i);
        assert_int_equal(key_value(key)[0], expected[i]);
        key_drop(&key);
    }
    keys_close(&keys);
    assert_int_equal(keys_open(&keys, &loop, sources + 1, 1, false, &err), -ENOENT);
    assert_non_null(strstr(err.text, "KEY_C"));
    assert_int_equal(keys_open(&keys, &loop, sources + 1, 1, true, &err), 0);
    assert_int_equal(keys_count(keys), 0);
    keys_close(&keys);
    assert_int_equal(keys_open(&keys, &loop, NULL, 0, false, &err), 0);
    assert_null(keys_at(keys, 0));
    keys_close(&keys);
    loop_finish(&loop);
}

static void count_change(void *ctx)
{
    ++*(int *)ctx;
}

static void a_reload_takes_new_values_and_keeps_old_ones_that_fail(void **state)
{
    (void)state;
    uv_loop_t loop;
    loop_init(&loop);
    char first[300], second[300];
    snprintf(first, sizeof first, "file:%s", fixture_write(&fixture, "key1", "old1\n"));
    snprintf(second, sizeof second, "file:%s", fixture_write(&fixture, "key2", "old2\n"));
    const char *sources[] = {first, second};
    struct keys *keys;
    assert_int_equal(keys_open(&keys, &loop, sources, 2, false, NULL), 0);
    struct key *held = keys_at(keys, 0);
    fixture_write(&fixture, "key1", "new1\n");
    remove(second + 5);
    int changes = 0;
    keys_reload(keys, count_change, &changes);
    keys_reload(keys, count_change, &changes);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(changes, 2); /* the second signal came while the first was served */
    struct key *other = keys_at(keys, 1), *fresh = keys_at(keys, 0);
    assert_string_equal(key_value(held), "old1");
    assert_string_equal(key_value(other), "old2");
    assert_string_equal(key_value(fresh), "new1");
    key_drop(&held);
    key_drop(&other);
    key_drop(&fresh);
    keys_reload(keys, count_change, &changes);
    keys_close(&keys);
    loop_finish(&loop);
    assert_int_equal(changes, 2);
}

static void a_fingerprint_names_a_key_and_does_not_show_it(void **state)
{
    (void)state;
    setenv("KEY_A", "sk-aaaaaaaaaaaa", 1);
    setenv("KEY_B", "sk-bbbbbbbbbbbb", 1);
    struct key *first, *same, *other;
    assert_int_equal(key_read(&first, "env:KEY_A", NULL), 0);
    assert_int_equal(key_read(&same, "cmd:echo $KEY_A", NULL), 0);
    assert_int_equal(key_read(&other, "env:KEY_B", NULL), 0);
    assert_int_equal(strlen(key_fingerprint(first)), KEY_FINGERPRINT_SIZE - 1);
    assert_string_equal(key_fingerprint(first), key_fingerprint(same));
    assert_string_not_equal(key_fingerprint(first), key_fingerprint(other));
    assert_null(strstr(key_value(first), key_fingerprint(first)));
    assert_string_equal(key_fingerprint(NULL), "");
    key_drop(&first);
    key_drop(&same);
    key_drop(&other);
}

static void a_key_is_shown_by_its_source_but_not_by_its_command(void **state)
{
    (void)state;
    uv_loop_t loop;
    loop_init(&loop);
    setenv("KEY_A", "sk-aaaaaaaaaaaa", 1);
    const char *sources[] = {"env:KEY_A", "cmd:echo sk-cccccccccccc"};
    struct keys *keys;
    assert_int_equal(keys_open(&keys, &loop, sources, 2, false, NULL), 0);
    struct key *first = keys_at(keys, 0), *second = keys_at(keys, 1);
    assert_string_equal(keys_source(keys, key_fingerprint(first)), "env:KEY_A");
    assert_string_equal(keys_source(keys, key_fingerprint(second)), "cmd:");
    assert_string_equal(keys_source(keys, "0123456789ab"), "");
    key_drop(&first);
    key_drop(&second);
    keys_close(&keys);
    loop_finish(&loop);
}

static int setup(void **state)
{
    (void)state;
    fixture_init(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_release(&fixture);
    return 0;
}

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_comes_from_the_environment),
        cmocka_unit_test(a_key_is_the_first_line_of_a_file),
        cmocka_unit_test(a_key_is_the_first_line_of_a_command),
        cmocka_unit_test(a_command_that_goes_on_after_its_line_is_ended),
        cmocka_unit_test(keys_that_would_break_a_header_are_refused_and_not_shown),
        cmocka_unit_test(scrubbing_replaces_every_occurrence),
        cmocka_unit_test(what_a_cut_leaves_of_a_key_is_replaced_too),
        cmocka_unit_test(keys_of_a_pool_take_turns_and_missing_ones_are_left_out),
        cmocka_unit_test(a_reload_takes_new_values_and_keeps_old_ones_that_fail),
        cmocka_unit_test(a_fingerprint_names_a_key_and_does_not_show_it),
        cmocka_unit_test(a_key_is_shown_by_its_source_but_not_by_its_command),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
