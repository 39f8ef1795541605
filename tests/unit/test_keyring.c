#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/keyring.h"
#include "tests/lib/fixture.h"

static struct fixture fixture;
static char keys[96];
static struct err err;

static int setup(void **state)
{
    (void)state;
    fixture_init(&fixture);
    snprintf(keys, sizeof keys, "%s/keys", fixture.dir);
    err.text[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_release(&fixture);
    return 0;
}

static const char *path_in(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", keys, name);
    return path;
}

static struct keyring_pair made(void)
{
    struct keyring_pair pair;
    assert_int_equal(keyring_make(&pair, &err), 0);
    return pair;
}

static void write_in(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "keys/%s", name);
    fixture_write(&fixture, path, text);
}

static void allow(const char *file, const char *key)
{
    char name[200], text[64];
    snprintf(name, sizeof name, "allow/%s", file);
    snprintf(text, sizeof text, "%s\n", key);
    write_in(name, text);
}

static void assert_entry(const struct keyring *keyring, const char *key, enum keyring_role role,
                         const char *name)
{
    const struct keyring_entry *entry = keyring_find(keyring, key);
    assert_non_null(entry);
    assert_int_equal(entry->role, role);
    assert_string_equal(entry->name, name);
    assert_string_equal(entry->public_key, key);
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 0777;
}

/* --- keys --------------------------------------------------------------------------------- */

static void roles_have_names_that_can_be_read_back(void **state)
{
    (void)state;
    for (int role = 0; role < KEYRING_ROLE_COUNT; role++) {
        const char *name = keyring_role_name((enum keyring_role)role);
        assert_int_equal(keyring_role_parse(name, strlen(name)), role);
    }
    assert_int_equal(keyring_role_parse("tapper", 6), KEYRING_ROLE_COUNT);
    assert_int_equal(keyring_role_parse("tap", 2), KEYRING_ROLE_COUNT);
    assert_int_equal(keyring_role_parse("", 0), KEYRING_ROLE_COUNT);
}

static void a_made_pair_is_valid_and_no_two_are_alike(void **state)
{
    (void)state;
    struct keyring_pair one = made(), two = made();
    assert_true(keyring_valid(one.public_key, 40));
    assert_true(keyring_valid(one.secret_key, 40));
    assert_string_not_equal(one.public_key, two.public_key);
    assert_string_not_equal(one.public_key, one.secret_key);
}

static void what_is_no_key_is_recognized(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "0",
        "000000000000000000000000000000000000000",   /* 39 */
        "00000000000000000000000000000000000000000", /* 41 */
        "000000000000000000000000000000000000000 ",
        "000000000000000000000000000000000000000\"",
        "000000000000000000000000000000000000000\xc3",
        "#####00000000000000000000000000000000000", /* more than 32 bits */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (keyring_valid(bad[i], strlen(bad[i])))
            fail_msg("taken for a key: %s", bad[i]);
    assert_true(keyring_valid("0000000000000000000000000000000000000000 and more", 40));
}

/* --- files -------------------------------------------------------------------------------- */

static void a_saved_pair_is_read_back_and_its_secret_is_private(void **state)
{
    (void)state;
    struct keyring_pair pair = made(), back;
    char public_key[KEYRING_KEY_SIZE];
    assert_int_equal(keyring_save(keys, "worker-a", &pair, &err), 0);
    assert_int_equal(mode_of(keys), 0700);
    assert_int_equal(mode_of(path_in("worker-a.key")), 0600);
    assert_int_equal(keyring_load(keys, "worker-a", &back, &err), 0);
    assert_memory_equal(&pair, &back, sizeof pair);
    assert_int_equal(keyring_load_public(keys, "worker-a", public_key, &err), 0);
    assert_string_equal(public_key, pair.public_key);
}

static void saving_replaces_no_file_and_leaves_nothing_behind(void **state)
{
    (void)state;
    struct keyring_pair pair = made(), other = made(), back;
    assert_int_equal(keyring_save(keys, "worker-a", &pair, &err), 0);
    assert_int_equal(keyring_save(keys, "worker-a", &other, &err), -EEXIST);
    assert_non_null(strstr(err.text, "worker-a.key"));
    assert_int_equal(keyring_load(keys, "worker-a", &back, &err), 0);
    assert_memory_equal(&pair, &back, sizeof pair);
    /* A public key of that name alone is in the way too: then there is no secret key either. */
    write_in("worker-b.pub", "x\n");
    assert_int_equal(keyring_save(keys, "worker-b", &other, &err), -EEXIST);
    assert_int_equal(access(path_in("worker-b.key"), F_OK), -1);
}

static void a_secret_key_that_others_may_read_is_refused(void **state)
{
    (void)state;
    struct keyring_pair pair = made(), back;
    static const mode_t modes[] = {0640, 0604, 0644, 0620};
    assert_int_equal(keyring_save(keys, "broker", &pair, &err), 0);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        assert_int_equal(chmod(path_in("broker.key"), modes[i]), 0);
        assert_int_equal(keyring_load(keys, "broker", &back, &err), -EPERM);
        assert_non_null(strstr(err.text, "chmod 600"));
    }
    assert_int_equal(chmod(path_in("broker.key"), 0400), 0);
    assert_int_equal(keyring_load(keys, "broker", &back, &err), 0);
}

static void damaged_and_missing_keys_are_told_and_not_taken(void **state)
{
    (void)state;
    struct keyring_pair pair = made(), back;
    char text[128];
    assert_int_equal(keyring_load(keys, "broker", &back, &err), -ENOENT);
    assert_non_null(strstr(err.text, "orchestrator keys init"));
    assert_int_equal(keyring_save(keys, "broker", &pair, &err), 0);
    static const char *const damaged[] = {
        "", "\n", "%.39s\n", "%s\n\n", "%s0\n", " %.39s\n", "%s\nmore than a line of it"};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        snprintf(text, sizeof text, damaged[i], pair.secret_key);
        write_in("broker.key", text);
        assert_int_equal(chmod(path_in("broker.key"), 0600), 0);
        assert_int_equal(keyring_load(keys, "broker", &back, &err), -EINVAL);
        assert_null(strstr(err.text, pair.secret_key));
    }
    assert_int_equal(mkdir(path_in("tap-x.pub"), 0700), 0);
    assert_int_equal(keyring_load_public(keys, "tap-x", text, &err), -EINVAL);
    assert_int_equal(mkfifo(path_in("tap-y.pub"), 0600), 0);
    assert_int_equal(keyring_load_public(keys, "tap-y", text, &err), -EINVAL);
}

static void a_pair_whose_parts_do_not_belong_together_is_refused(void **state)
{
    (void)state;
    struct keyring_pair pair = made(), other = made(), back;
    char text[64];
    assert_int_equal(keyring_save(keys, "broker", &pair, &err), 0);
    snprintf(text, sizeof text, "%s\n", other.public_key);
    write_in("broker.pub", text);
    assert_int_equal(keyring_load(keys, "broker", &back, &err), -EINVAL);
    assert_non_null(strstr(err.text, "broker.pub"));
    /* A crash between the two files leaves the secret one alone: it is enough. */
    assert_int_equal(unlink(path_in("broker.pub")), 0);
    assert_int_equal(keyring_load(keys, "broker", &back, &err), 0);
    assert_memory_equal(&pair, &back, sizeof pair);
}

static void init_makes_what_is_missing_and_keeps_what_is_there(void **state)
{
    (void)state;
    struct keyring_pair broker, orchestrator, back;
    assert_int_equal(keyring_init(keys, &err), 0);
    assert_int_equal(keyring_load(keys, "broker", &broker, &err), 0);
    assert_int_equal(keyring_load(keys, "orchestrator", &orchestrator, &err), 0);
    assert_int_equal(unlink(path_in("orchestrator.pub")), 0);
    assert_int_equal(keyring_init(keys, &err), 0);
    assert_int_equal(keyring_load(keys, "broker", &back, &err), 0);
    assert_memory_equal(&broker, &back, sizeof back);
    assert_int_equal(access(path_in("orchestrator.pub"), F_OK), 0);
    assert_int_equal(keyring_load(keys, "orchestrator", &back, &err), 0);
    assert_memory_equal(&orchestrator, &back, sizeof back);
}

static void init_makes_no_second_pair_for_the_brokers_of_another_host(void **state)
{
    (void)state;
    struct keyring_pair broker = made(), back;
    char text[64];
    snprintf(text, sizeof text, "%s\n", broker.public_key);
    write_in("broker.pub", text);
    assert_int_equal(keyring_init(keys, &err), 0);
    assert_int_equal(access(path_in("broker.key"), F_OK), -1);
    assert_int_equal(keyring_load(keys, "orchestrator", &back, &err), 0);
}

/* --- who may connect ---------------------------------------------------------------------- */

static void files_say_who_may_connect(void **state)
{
    (void)state;
    struct keyring_pair own, worker = made(), tap = made(), other = made();
    struct keyring *keyring = keyring_new();
    assert_int_equal(keyring_read(keyring, keys, &err), 0); /* no directory: nobody */
    assert_int_equal(keyring_size(keyring), 0);
    assert_int_equal(keyring_init(keys, &err), 0);
    assert_int_equal(keyring_load(keys, "orchestrator", &own, &err), 0);
    allow("worker-gpu-1.pub", worker.public_key);
    allow("tap-screen.pub", tap.public_key);
    allow("orchestrator-b.pub", other.public_key);
    allow(".worker-c.pub.swp", "an editor's");
    assert_int_equal(keyring_read(keyring, keys, &err), 0);
    assert_int_equal(keyring_size(keyring), 4);
    assert_entry(keyring, own.public_key, KEYRING_ORCHESTRATOR, "orchestrator");
    assert_entry(keyring, worker.public_key, KEYRING_WORKER, "gpu-1");
    assert_entry(keyring, tap.public_key, KEYRING_TAP, "screen");
    assert_entry(keyring, other.public_key, KEYRING_ORCHESTRATOR, "b");
    assert_null(keyring_find(keyring, made().public_key));
    assert_null(keyring_find(keyring, ""));
    assert_null(keyring_find(keyring, own.secret_key));
    keyring_free(&keyring);
    keyring_free(&keyring);
}

static void a_damaged_file_allows_nobody_and_harms_no_other(void **state)
{
    (void)state;
    struct keyring_pair worker = made(), tap = made();
    static const char *const names[] = {
        "worker-.pub", "worker.pub", "boss-a.pub", "worker-a.txt",
        "-a.pub",      ".pub.pub",   "x",          "worker-a b.pub"};
    struct keyring *keyring = keyring_new();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        allow(names[i], tap.public_key);
        allow("worker-good.pub", worker.public_key);
        bool hidden = names[i][0] == '.';
        assert_int_equal(keyring_read(keyring, keys, &err), hidden ? 0 : -EINVAL);
        if (!hidden && strstr(err.text, names[i]) == NULL)
            fail_msg("does not name %s: %s", names[i], err.text);
        assert_int_equal(keyring_size(keyring), 1);
        assert_entry(keyring, worker.public_key, KEYRING_WORKER, "good");
        char path[64];
        snprintf(path, sizeof path, "allow/%s", names[i]);
        assert_int_equal(unlink(path_in(path)), 0);
    }
    allow("worker-bad.pub", "no key");
    write_in("orchestrator.pub", "no key either\n");
    assert_int_equal(keyring_read(keyring, keys, &err), -EINVAL);
    assert_int_equal(keyring_size(keyring), 1);
    keyring_free(&keyring);
}

static void one_key_is_good_for_one_name_only(void **state)
{
    (void)state;
    struct keyring_pair pair = made();
    struct keyring *keyring = keyring_new();
    allow("tap-a.pub", pair.public_key);
    allow("worker-b.pub", pair.public_key);
    assert_int_equal(keyring_read(keyring, keys, &err), -EINVAL);
    assert_entry(keyring, pair.public_key, KEYRING_TAP, "a");
    keyring_free(&keyring);
}

static void what_orchestrators_tell_replaces_only_what_they_told_before(void **state)
{
    (void)state;
    struct keyring_pair file = made(), one = made(), two = made();
    char first[200], second[200];
    struct keyring *keyring = keyring_new();
    allow("worker-file.pub", file.public_key);
    assert_int_equal(keyring_read(keyring, keys, &err), 0);
    snprintf(first, sizeof first, "worker one %s", one.public_key);
    snprintf(second, sizeof second, "tap two %s", two.public_key);
    assert_int_equal(keyring_replace(keyring, (const char *[]){first, second}, 2), 0);
    assert_int_equal(keyring_size(keyring), 3);
    assert_entry(keyring, one.public_key, KEYRING_WORKER, "one");
    assert_int_equal(keyring_replace(keyring, (const char *[]){second}, 1), 0);
    assert_null(keyring_find(keyring, one.public_key));
    assert_entry(keyring, two.public_key, KEYRING_TAP, "two");
    assert_entry(keyring, file.public_key, KEYRING_WORKER, "file");
    assert_int_equal(unlink(path_in("allow/worker-file.pub")), 0);
    assert_int_equal(keyring_read(keyring, keys, &err), 0);
    assert_null(keyring_find(keyring, file.public_key));
    assert_entry(keyring, two.public_key, KEYRING_TAP, "two");
    assert_int_equal(keyring_replace(keyring, NULL, 0), 0);
    assert_int_equal(keyring_size(keyring), 0);
    keyring_free(&keyring);
}

static void a_key_of_a_file_keeps_its_role_whatever_is_told(void **state)
{
    (void)state;
    struct keyring_pair pair = made();
    char line[200];
    struct keyring *keyring = keyring_new();
    allow("tap-a.pub", pair.public_key);
    assert_int_equal(keyring_read(keyring, keys, &err), 0);
    snprintf(line, sizeof line, "orchestrator b %s", pair.public_key);
    keyring_replace(keyring, (const char *[]){line}, 1);
    assert_entry(keyring, pair.public_key, KEYRING_TAP, "a");
    keyring_free(&keyring);
}

static void damaged_lines_are_counted_and_skipped(void **state)
{
    (void)state;
    struct keyring_pair pair = made();
    char good[200], text[400];
    struct keyring *keyring = keyring_new();
    static const char *const damaged[] = {"",
                                          "worker",
                                          "worker a",
                                          "worker a ",
                                          "worker  %s",
                                          "king a %s",
                                          "worker a/b %s",
                                          "worker .a %s",
                                          "worker a %s ",
                                          "worker a b %s",
                                          " worker a %s",
                                          "worker\ta\t%s",
                                          "worker a\x01 %s",
                                          "worker a %.39s",
                                          "Worker a %s"};
    snprintf(good, sizeof good, "worker good %s", pair.public_key);
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        snprintf(text, sizeof text, damaged[i], pair.secret_key);
        if (keyring_replace(keyring, (const char *[]){text, good}, 2) != 1)
            fail_msg("taken: %s", text);
        assert_int_equal(keyring_size(keyring), 1);
    }
    memset(text, 'a', 200);
    snprintf(text + 200, sizeof text - 200, " %s", pair.secret_key);
    memcpy(text, "worker ", 7);
    assert_int_equal(keyring_replace(keyring, (const char *[]){text, good, good}, 3), 2);
    keyring_free(&keyring);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(roles_have_names_that_can_be_read_back),
        TEST(a_made_pair_is_valid_and_no_two_are_alike),
        TEST(what_is_no_key_is_recognized),
        TEST(a_saved_pair_is_read_back_and_its_secret_is_private),
        TEST(saving_replaces_no_file_and_leaves_nothing_behind),
        TEST(a_secret_key_that_others_may_read_is_refused),
        TEST(damaged_and_missing_keys_are_told_and_not_taken),
        TEST(a_pair_whose_parts_do_not_belong_together_is_refused),
        TEST(init_makes_what_is_missing_and_keeps_what_is_there),
        TEST(init_makes_no_second_pair_for_the_brokers_of_another_host),
        TEST(files_say_who_may_connect),
        TEST(a_damaged_file_allows_nobody_and_harms_no_other),
        TEST(one_key_is_good_for_one_name_only),
        TEST(what_orchestrators_tell_replaces_only_what_they_told_before),
        TEST(a_key_of_a_file_keeps_its_role_whatever_is_told),
        TEST(damaged_lines_are_counted_and_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
