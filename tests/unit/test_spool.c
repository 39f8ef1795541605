#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/lib/fixture.h"
#include "workers/spool.h"

static struct fixture fixture;
static uv_loop_t loop;

static int setup(void **state)
{
    (void)state;
    fixture_init(&fixture);
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

static struct spool *open_spool(const char *name)
{
    struct spool *spool;
    struct err err = {0};
    struct spool_options options = {.home = fixture.dir, .name = name};
    int rc = spool_open(&spool, &loop, &options, &err);
    if (rc != 0)
        fail_msg("%s", err.text);
    return spool;
}

static void shut(struct spool **spool)
{
    spool_close(spool);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static char *spool_path(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/spool/%s.spool", fixture.dir, name);
    return path;
}

static struct bytes text(const char *value)
{
    return (struct bytes){value, strlen(value)};
}

/* What a replay tells: "C:token " or "R:token=outcome/timing " each. */
static void note(void *ctx, const struct spool_record *record)
{
    struct buf *out = ctx;
    if (record->kind == SPOOL_CLAIM)
        buf_printf(out, "C:%s ", record->token);
    else
        buf_printf(out, "R:%s=%.*s/%.*s ", record->token, (int)record->outcome.len,
                   record->outcome.data, (int)record->timing.len, record->timing.data);
    assert_string_equal(record->task, "task");
    assert_string_equal(record->arm, "model@place");
}

static void assert_replay(struct spool *spool, const char *expected)
{
    struct buf out = {0};
    spool_replay(spool, note, &out);
    assert_string_equal(out.data != NULL ? out.data : "", expected);
    buf_release(&out);
}

static void claim(struct spool *spool, const char *token)
{
    spool_claim(spool, "task", "sub", token, "model@place");
}

static void respond(struct spool *spool, const char *token, const char *outcome)
{
    spool_response(spool, "task", "sub", token, "model@place", text(outcome), text("t"));
}

/* As if the process had been killed: a copy of the file under another name. */
static void copy_file(const char *to, size_t len, const struct buf *contents)
{
    FILE *file = fopen(spool_path(to), "we");
    assert_non_null(file);
    assert_int_equal(fwrite(contents->data, 1, len, file), len);
    fclose(file);
}

static void crc_is_castagnoli(void **state)
{
    (void)state;
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
}

static void what_has_not_ended_is_replayed_after_a_kill(void **state)
{
    (void)state;
    struct spool *spool = open_spool("a");
    claim(spool, "1-x");
    claim(spool, "2-x");
    claim(spool, "3-x");
    respond(spool, "2-x", "answer");
    spool_end(spool, "1-x");
    spool_flush(spool);
    struct buf contents = {0};
    assert_true(fixture_read(spool_path("a"), &contents));
    copy_file("b", contents.len, &contents);
    struct spool *again = open_spool("b");
    assert_int_equal(spool_outstanding(again), 2);
    assert_replay(again, "R:2-x=answer/t C:3-x ");
    shut(&again);
    shut(&spool);
    buf_release(&contents);
}

static void a_response_is_in_the_file_when_the_call_returns(void **state)
{
    (void)state;
    struct spool *spool = open_spool("a");
    claim(spool, "1-x");
    respond(spool, "1-x", "paid for");
    struct buf contents = {0};
    assert_true(fixture_read(spool_path("a"), &contents));
    copy_file("b", contents.len, &contents);
    struct spool *again = open_spool("b");
    assert_replay(again, "R:1-x=paid for/t ");
    shut(&again);
    shut(&spool);
    buf_release(&contents);
}

static void claims_reach_the_file_with_the_turn_of_the_loop(void **state)
{
    (void)state;
    struct spool *spool = open_spool("a");
    claim(spool, "1-x");
    assert_int_equal(spool_file_bytes(spool), 0);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_true(spool_file_bytes(spool) > 0);
    shut(&spool);
}

static void an_end_leaves_nothing_to_replay(void **state)
{
    (void)state;
    struct spool *spool = open_spool("a");
    claim(spool, "1-x");
    respond(spool, "1-x", "answer");
    spool_end(spool, "1-x");
    spool_end(spool, "1-x");
    spool_end(spool, "never seen");
    shut(&spool);
    struct stat st;
    assert_int_equal(stat(spool_path("a"), &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    spool = open_spool("a");
    assert_replay(spool, "");
    shut(&spool);
}

static void a_tail_torn_at_any_byte_loses_only_the_last_record(void **state)
{
    (void)state;
    struct spool *spool = open_spool("a");
    claim(spool, "1-x");
    respond(spool, "1-x", "first");
    size_t before = spool_file_bytes(spool);
    respond(spool, "2-x", "second");
    struct buf contents = {0};
    assert_true(fixture_read(spool_path("a"), &contents));
    for (size_t len = before; len < contents.len; len++) {
        copy_file("b", len, &contents);
        struct spool *again = open_spool("b");
        assert_replay(again, "R:1-x=first/t ");
        assert_int_equal(spool_file_bytes(again), before);
        respond(again, "3-x", "later");
        assert_replay(again, "R:1-x=first/t R:3-x=later/t ");
        shut(&again);
        unlink(spool_path("b"));
    }
    shut(&spool);
    buf_release(&contents);
}

static void a_flipped_byte_loses_only_its_record(void **state)
{
    (void)state;
    struct spool *spool = open_spool("a");
    respond(spool, "1-x", "first");
    size_t first = spool_file_bytes(spool);
    respond(spool, "2-x", "second");
    size_t second = spool_file_bytes(spool);
    respond(spool, "3-x", "third");
    struct buf contents = {0};
    assert_true(fixture_read(spool_path("a"), &contents));
    for (size_t at = 0; at < contents.len; at++) {
        contents.data[at] = (char)(contents.data[at] ^ 0x41);
        copy_file("b", contents.len, &contents);
        contents.data[at] = (char)(contents.data[at] ^ 0x41);
        struct spool *again = open_spool("b");
        assert_replay(again, at < first    ? "R:2-x=second/t R:3-x=third/t "
                             : at < second ? "R:1-x=first/t R:3-x=third/t "
                                           : "R:1-x=first/t R:2-x=second/t ");
        shut(&again);
        unlink(spool_path("b"));
    }
    shut(&spool);
    buf_release(&contents);
}

static void two_workers_of_one_name_refuse(void **state)
{
    (void)state;
    struct spool *spool = open_spool("a"), *other = NULL;
    struct err err = {0};
    struct spool_options options = {.home = fixture.dir, .name = "a"};
    assert_int_equal(spool_open(&other, &loop, &options, &err), -EBUSY);
    char pid[64];
    snprintf(pid, sizeof pid, "(process %d)", (int)getpid());
    assert_non_null(strstr(err.text, pid));
    shut(&spool);
    spool = open_spool("a");
    shut(&spool);
}

static void names_that_are_no_file_names_are_refused(void **state)
{
    (void)state;
    const char *const names[] = {"", "..", "a/b", ".x"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct spool *spool = NULL;
        struct err err = {0};
        struct spool_options options = {.home = fixture.dir, .name = names[i]};
        assert_int_equal(spool_open(&spool, &loop, &options, &err), -EINVAL);
        assert_true(err.text[0] != '\0');
    }
}

static void the_file_is_cut_when_nothing_is_outstanding(void **state)
{
    (void)state;
    struct spool *spool = open_spool("a");
    struct buf large = {0};
    for (int i = 0; i < 1000; i++)
        buf_add_str(&large, "0123456789");
    for (int i = 0; i < 100; i++) {
        char token[16];
        snprintf(token, sizeof token, "%d-x", i);
        claim(spool, token);
        respond(spool, token, large.data);
        spool_end(spool, token);
        assert_true(spool_file_bytes(spool) < 300 * 1024);
    }
    shut(&spool);
    buf_release(&large);
}

static void history_is_rewritten_and_what_lives_stays(void **state)
{
    (void)state;
    struct spool *spool = open_spool("a");
    struct buf large = {0};
    buf_reserve(&large, 1 << 20);
    for (int i = 0; i < 1 << 20; i++)
        buf_add_char(&large, 'x');
    claim(spool, "keep-1");
    respond(spool, "keep-2", "precious");
    for (int i = 0; i < 40; i++) {
        char token[16];
        snprintf(token, sizeof token, "%d-x", i);
        respond(spool, token, large.data);
        spool_end(spool, token);
        assert_true(spool_file_bytes(spool) < (size_t)20 << 20);
    }
    assert_replay(spool, "C:keep-1 R:keep-2=precious/t ");
    spool_flush(spool);
    struct buf contents = {0};
    assert_true(fixture_read(spool_path("a"), &contents));
    copy_file("b", contents.len, &contents);
    struct spool *again = open_spool("b");
    assert_replay(again, "C:keep-1 R:keep-2=precious/t ");
    shut(&again);
    shut(&spool);
    buf_release(&contents);
    buf_release(&large);
}

static void a_full_disk_stops_nothing(void **state)
{
    (void)state;
    struct spool *spool = open_spool("a");
    claim(spool, "1-x");
    respond(spool, "1-x", "fits");
    struct rlimit old, tight;
    getrlimit(RLIMIT_FSIZE, &old);
    tight = old;
    tight.rlim_cur = spool_file_bytes(spool) + 20;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    respond(spool, "2-x", "does not fit, whatever happens");
    claim(spool, "3-x");
    spool_flush(spool);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_replay(spool, "R:1-x=fits/t ");
    spool_end(spool, "2-x");
    respond(spool, "4-x", "fits again");
    struct buf contents = {0};
    assert_true(fixture_read(spool_path("a"), &contents));
    copy_file("b", contents.len, &contents);
    struct spool *again = open_spool("b");
    assert_replay(again, "R:1-x=fits/t R:4-x=fits again/t ");
    shut(&again);
    shut(&spool);
    buf_release(&contents);
}

static void a_durable_spool_closes_while_its_thread_syncs(void **state)
{
    (void)state;
    struct spool *spool;
    struct err err = {0};
    struct spool_options options = {.home = fixture.dir, .name = "d", .durable = true};
    assert_int_equal(spool_open(&spool, &loop, &options, &err), 0);
    respond(spool, "1-x", "answer");
    int64_t end_ms = (int64_t)(uv_hrtime() / 1000000) + 3 * SPOOL_SYNC_DELAY_MS;
    while ((int64_t)(uv_hrtime() / 1000000) < end_ms)
        uv_run(&loop, UV_RUN_ONCE);
    respond(spool, "2-x", "answer");
    spool_end(spool, "1-x");
    uv_run(&loop, UV_RUN_ONCE);
    shut(&spool);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(spool_open(&spool, &loop, &options, &err), 0);
    assert_replay(spool, "R:2-x=answer/t ");
    shut(&spool);
}

static void records_that_are_too_long_are_refused(void **state)
{
    (void)state;
    char name[400];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    struct buf out = {0};
    struct spool_record record = {
        .kind = SPOOL_CLAIM, .task = name, .sub = "s", .token = "t", .arm = "a"};
    assert_int_equal(spool_record_encode(&out, &record), -E2BIG);
    record.task = "t";
    record.kind = SPOOL_RESPONSE;
    record.outcome = (struct bytes){"", SPOOL_PAYLOAD_MAX};
    assert_int_equal(spool_record_encode(&out, &record), -E2BIG);
    assert_int_equal(out.len, 0);
    buf_release(&out);
}

#define SPOOL_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        SPOOL_TEST(crc_is_castagnoli),
        SPOOL_TEST(what_has_not_ended_is_replayed_after_a_kill),
        SPOOL_TEST(a_response_is_in_the_file_when_the_call_returns),
        SPOOL_TEST(claims_reach_the_file_with_the_turn_of_the_loop),
        SPOOL_TEST(an_end_leaves_nothing_to_replay),
        SPOOL_TEST(a_tail_torn_at_any_byte_loses_only_the_last_record),
        SPOOL_TEST(a_flipped_byte_loses_only_its_record),
        SPOOL_TEST(two_workers_of_one_name_refuse),
        SPOOL_TEST(names_that_are_no_file_names_are_refused),
        SPOOL_TEST(the_file_is_cut_when_nothing_is_outstanding),
        SPOOL_TEST(history_is_rewritten_and_what_lives_stays),
        SPOOL_TEST(a_full_disk_stops_nothing),
        SPOOL_TEST(a_durable_spool_closes_while_its_thread_syncs),
        SPOOL_TEST(records_that_are_too_long_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
