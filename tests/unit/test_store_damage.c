/* A profile store whose bytes have changed: nobody crashes, readers say so, and the writer names it
 * otherwise and goes on with a new one. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "orchestrator/store.h"
#include "orchestrator/store_writer.h"
#include "tests/lib/fixture.h"

static struct fixture fixture;
static uv_loop_t loop;
static char path[512];
static int kept_rc;
static bool answered;

static void kept(void *ctx, int rc)
{
    (void)ctx;
    kept_rc = rc;
    answered = true;
}

static void add(struct store_writer *writer, const char *task, int attempts)
{
    for (int i = 1; i <= attempts; i++) {
        struct message message = {.type = MESSAGE_timing,
                                  .timing = {.task = task,
                                             .sub = "a",
                                             .attempt = i,
                                             .role = "coder",
                                             .arm = "m@p",
                                             .result = "done",
                                             .started_ms = 1000 + i}};
        struct buf bytes = {0};
        assert_int_equal(message_encode(&message, &bytes), 0);
        store_writer_timing(writer, (struct bytes){bytes.data, bytes.len});
        buf_release(&bytes);
    }
}

/* Writes attempts of a task, and waits until they are kept or dropped. */
static int write_attempts(const char *task, int attempts)
{
    struct store_writer *writer = store_writer_new(&loop, path);
    add(writer, task, attempts);
    answered = false;
    store_writer_barrier(writer, kept, NULL);
    while (!answered)
        uv_run(&loop, UV_RUN_ONCE);
    store_writer_close(&writer);
    uv_run(&loop, UV_RUN_NOWAIT);
    return kept_rc;
}

static void count(void *ctx, const struct msg_timing *attempt)
{
    (void)attempt;
    ++*(int *)ctx;
}

/* How many attempts can be read; -1: an error, which has a sentence. */
static int read_attempts(void)
{
    struct store *store = NULL;
    struct err err = {""};
    char *json = NULL;
    int n = 0;
    int rc = store_open_read(&store, path, &err);
    if (rc == 0)
        rc = store_attempts(store, 0, NULL, count, &n, &err);
    assert_true(rc == 0 || err.text[0] != '\0');
    if (store != NULL && store_task_find(store, "t", &json, &err) == 0)
        free(json);
    store_close(&store);
    return rc == 0 ? n : -1;
}

static int damaged_files(void)
{
    int n = 0;
    DIR *dir = opendir(fixture.dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += strstr(entry->d_name, ".damaged-") != NULL && strstr(entry->d_name, "-wal") == NULL &&
             strstr(entry->d_name, "-shm") == NULL;
    closedir(dir);
    return n;
}

static int setup(void **state)
{
    (void)state;
    fixture_init(&fixture);
    snprintf(path, sizeof path, "%s/profile.db", fixture.dir);
    loop_init(&loop);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_finish(&loop);
    fixture_release(&fixture);
    return 0;
}

static void overwrite(long at, const char *bytes, size_t len)
{
    FILE *file = fopen(path, "r+be");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void a_damaged_store_is_set_aside_and_a_new_one_begun(void **state)
{
    (void)state;
    char junk[4096];
    memset(junk, 0x5a, sizeof junk);
    assert_int_equal(write_attempts("old", 200), 0);
    assert_int_equal(read_attempts(), 200);
    for (long page = 1; page < 5; page++) /* behind the header */
        overwrite(page * 4096, junk, sizeof junk);
    assert_int_equal(write_attempts("new", 3), 0);
    assert_int_equal(read_attempts(), 3);
    assert_int_equal(damaged_files(), 1);
}

static void a_healthy_store_is_not_set_aside(void **state)
{
    (void)state;
    char *name = NULL;
    struct err err;
    assert_int_equal(write_attempts("old", 5), 0);
    assert_int_equal(store_set_aside(path, &name, &err), -EEXIST);
    assert_null(name);
    assert_int_equal(read_attempts(), 5);
}

static void what_is_no_store_stays_where_it_is(void **state)
{
    (void)state;
    char text[3000], *name = NULL;
    struct err err;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    fixture_write(&fixture, "profile.db", text);
    assert_int_equal(store_set_aside(path, &name, &err), -EBADMSG);
    assert_int_equal(write_attempts("a", 1), -EBADMSG);
    assert_int_equal(damaged_files(), 0);
}

/* Reads the file, writes it anew with some bytes changed. */
static void flip(const char *whole, size_t len, uint32_t random)
{
    char *copy = malloc(len);
    memcpy(copy, whole, len);
    for (int i = 0; i < 8; i++) {
        random = random * 1664525 + 1013904223;
        copy[(random >> 8) % len] ^= (char)(1 << (random >> 5 & 7));
    }
    FILE *file = fopen(path, "wbe");
    assert_int_equal(fwrite(copy, 1, len, file), len);
    fclose(file);
    free(copy);
}

static void flipped_bits_crash_nobody(void **state)
{
    (void)state;
    static char whole[1 << 20];
    int set_aside = 0, read = 0;
    assert_int_equal(write_attempts("old", 300), 0);
    FILE *file = fopen(path, "rbe");
    size_t len = fread(whole, 1, sizeof whole, file);
    fclose(file);
    assert_true(len > 8192 && len < sizeof whole);
    for (uint32_t round = 0; round < 50; round++) {
        flip(whole, len, round * 7919);
        read += read_attempts() >= 0;
        int before = damaged_files();
        write_attempts("new", 2);
        read_attempts();
        set_aside += damaged_files() - before;
    }
    assert_true(set_aside > 0);
    print_message("of 50: %d could still be read, %d were set aside\n", read, set_aside);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_damaged_store_is_set_aside_and_a_new_one_begun),
        TEST(a_healthy_store_is_not_set_aside),
        TEST(what_is_no_store_stays_where_it_is),
        TEST(flipped_bits_crash_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
