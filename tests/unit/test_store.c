/* The profile store on real files in a directory of its own, its writer on a loop, and what
 * `stats` makes of it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "orchestrator/stats.h"
#include "orchestrator/store_writer.h"
#include "tests/lib/fixture.h"

static struct fixture fixture;
static char path[128];
static uv_loop_t loop;
static struct store_writer *writer;

static int set_up(void **state)
{
    (void)state;
    fixture_init(&fixture);
    snprintf(path, sizeof path, "%s/profile.db", fixture.dir);
    loop_init(&loop);
    writer = store_writer_new(&loop, path);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    store_writer_close(&writer);
    loop_finish(&loop);
    fixture_release(&fixture);
    return 0;
}

static struct buf record(const char *sub, int64_t attempt, const char *result)
{
    struct buf out = {0};
    struct message timing = {.type = MESSAGE_timing,
                             .timing = {.task = "t",
                                        .sub = sub,
                                        .attempt = attempt,
                                        .role = "coder",
                                        .arm = "m@p",
                                        .result = result,
                                        .started_ms = 1000 + attempt,
                                        .ttft_ms = 2.5,
                                        .cost_usd = 0.25,
                                        .cost_known = true,
                                        .cache_write_tokens = 3,
                                        .search_ms = 12.5,
                                        .key = "fp1",
                                        .total_ms = 10,
                                        .output_tokens = 7,
                                        .model_mismatch = true}};
    assert_int_equal(message_encode(&timing, &out), 0);
    return out;
}

static void add(const char *sub, int64_t attempt, const char *result)
{
    struct buf timing = record(sub, attempt, result);
    store_writer_timing(writer, (struct bytes){timing.data, timing.len});
    buf_release(&timing);
}

struct kept {
    bool done;
    int rc;
};

static void on_kept(void *ctx, int rc)
{
    struct kept *kept = ctx;
    *kept = (struct kept){true, rc};
}

static int wait_kept(void)
{
    struct kept kept = {0};
    store_writer_barrier(writer, on_kept, &kept);
    assert_false(kept.done); /* never at once */
    assert_int_equal(loop_run_until(&loop, &kept.done, 60000), 0);
    return kept.rc;
}

struct rows {
    int count;
    struct msg_timing last;
};

static void count_row(void *ctx, const struct msg_timing *attempt)
{
    struct rows *rows = ctx;
    rows->count++;
    rows->last = *attempt;
}

static struct rows rows_since(int64_t since_ms, const char *role)
{
    struct rows rows = {0};
    struct store *store = NULL;
    struct err err;
    if (store_open_read(&store, path, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(store_attempts(store, since_ms, role, count_row, &rows, &err), 0);
    store_close(&store);
    return rows;
}

static void an_attempt_is_kept_once_with_all_its_fields(void **state)
{
    (void)state;
    add("a", 1, "done");
    add("a", 1, "done"); /* the outbox may repeat itself */
    add("a", 2, "failed");
    assert_int_equal(wait_kept(), 0);
    struct rows rows = rows_since(0, NULL);
    assert_int_equal(rows.count, 2);
    assert_int_equal(rows.last.attempt, 2);
    assert_true(rows.last.ttft_ms > 2.4 && rows.last.ttft_ms < 2.6);
    assert_int_equal(rows.last.output_tokens, 7);
    assert_true(rows.last.model_mismatch && rows.last.cost_known);
    assert_int_equal(rows.last.cache_write_tokens, 3);
    assert_true(rows.last.search_ms > 12.4 && rows.last.search_ms < 12.6);
    assert_int_equal(rows_since(1002, "coder").count, 1);
    assert_int_equal(rows_since(0, "tester").count, 0);
}

static void rows_are_written_soon_without_a_barrier(void **state)
{
    (void)state;
    add("a", 1, "done");
    int64_t end_ms = clock_ms() + 10000;
    while (store_writer_counts(writer).kept == 0 && clock_ms() < end_ms)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(rows_since(0, NULL).count, 1);
}

static void a_new_file_is_for_its_user_only(void **state)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    (void)state;
    add("a", 1, "done");
    int64_t end_ms = clock_ms() + 10000;
    while (store_writer_counts(writer).kept == 0 && clock_ms() < end_ms)
        uv_run(&loop, UV_RUN_ONCE);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        struct stat st;
        char name[sizeof path + 8];
        snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        if (stat(name, &st) == 0)
            assert_int_equal(st.st_mode & 077, 0);
        else
            assert_true(i > 0);
    }
}

static void many_rows_make_few_batches(void **state)
{
    (void)state;
    for (int i = 0; i < 5000; i++)
        add("a", i, "done");
    assert_int_equal(wait_kept(), 0);
    assert_int_equal(rows_since(0, NULL).count, 5000);
    assert_true(store_writer_counts(writer).batches <= 7);
}

static void a_record_that_cannot_be_read_is_skipped(void **state)
{
    (void)state;
    store_writer_timing(writer, (struct bytes){"\xff\xff garbage", 10});
    store_writer_timing(writer, (struct bytes){"", 0});
    add("a", 1, "done");
    assert_int_equal(wait_kept(), 0);
    assert_int_equal(rows_since(0, NULL).count, 1);
}

static void a_damaged_file_drops_rows_and_answers(void **state)
{
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    fixture_write(&fixture, "profile.db", text);
    add("a", 1, "done");
    assert_int_not_equal(wait_kept(), 0);
    assert_true(store_writer_counts(writer).dropped >= 1);
    /* Once the file is moved away, it works again. */
    assert_int_equal(unlink(path), 0);
    add("a", 2, "done");
    assert_int_equal(wait_kept(), 0);
    assert_int_equal(rows_since(0, NULL).count, 1);
}

static void a_locked_file_is_waited_for(void **state)
{
    (void)state;
    add("a", 1, "done");
    assert_int_equal(wait_kept(), 0);
    const char *argv[] = {"/usr/bin/env",
                          "python3",
                          "-c",
                          "import sqlite3,sys,time\n"
                          "c=sqlite3.connect(sys.argv[1],isolation_level=None)\n"
                          "c.execute('BEGIN EXCLUSIVE')\n"
                          "print('locked',flush=True)\n"
                          "time.sleep(1)\n"
                          "c.execute('COMMIT')\n",
                          path,
                          NULL};
    if (access("/usr/bin/python3", X_OK) != 0)
        skip();
    pid_t pid = fixture_spawn(&fixture, "lock.log", argv);
    assert_true(fixture_wait_text(&fixture, "lock.log", "locked", 10000));
    add("a", 2, "done");
    assert_int_equal(wait_kept(), 0);
    assert_int_equal(fixture_wait_exit(&fixture, pid, 10000), 0);
    assert_int_equal(rows_since(0, NULL).count, 2);
}

static void a_newer_version_is_left_alone(void **state)
{
    (void)state;
    struct store *store = NULL;
    struct err err = {""};
    assert_int_equal(store_open(&store, path, &err), 0);
    store_close(&store);
    /* user_version is the big-endian word at offset 60 of the header. */
    FILE *file = fopen(path, "r+be");
    assert_int_equal(fseek(file, 63, SEEK_SET), 0);
    fputc(99, file);
    fclose(file);
    assert_int_equal(store_open(&store, path, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "newer"));
    assert_int_equal(store_open_read(&store, path, &err), -EBADMSG);
}

/* A file as the first version made it: without what came later. */
static void make_first_version(void)
{
    const char *argv[] = {
        "/usr/bin/env",
        "python3",
        "-c",
        "import sqlite3,sys\n"
        "c=sqlite3.connect(sys.argv[1])\n"
        "c.executescript(\"\"\"CREATE TABLE attempts (task TEXT NOT NULL, sub TEXT NOT NULL,"
        " attempt INTEGER NOT NULL, role TEXT NOT NULL DEFAULT '', arm TEXT NOT NULL DEFAULT '',"
        " result TEXT NOT NULL DEFAULT '', started_ms INTEGER NOT NULL DEFAULT 0,"
        " total_ms REAL NOT NULL DEFAULT 0, cost_usd REAL NOT NULL DEFAULT 0,"
        " UNIQUE (task, sub, attempt));"
        "CREATE TABLE decisions (task TEXT NOT NULL, sub TEXT NOT NULL, attempt INTEGER NOT NULL,"
        " time_ms INTEGER NOT NULL, candidates TEXT NOT NULL, PRIMARY KEY (task, sub, attempt))"
        " WITHOUT ROWID;"
        "CREATE TABLE archive (task TEXT PRIMARY KEY, state TEXT NOT NULL, title TEXT NOT NULL,"
        " created_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL, json TEXT NOT NULL);"
        "INSERT INTO attempts VALUES ('t','paid',1,'coder','m@p','done',5,7.5,0.5);"
        "INSERT INTO attempts VALUES ('t','free',1,'coder','m@p','done',6,7.5,0);"
        "PRAGMA user_version=1;\"\"\")\n",
        path,
        NULL};
    if (access("/usr/bin/python3", X_OK) != 0)
        skip();
    assert_int_equal(fixture_run(&fixture, argv, NULL, NULL), 0);
}

static void check_old_row(void *ctx, const struct msg_timing *attempt)
{
    int *count = ctx;
    if (attempt->started_ms >= 100)
        return;
    ++*count;
    assert_int_equal(attempt->cache_write_tokens, -1);
    assert_true(attempt->search_ms < 0);
    assert_int_equal(attempt->cost_known, strcmp(attempt->sub, "paid") == 0);
    assert_true(attempt->total_ms > 7.4 && attempt->total_ms < 7.6);
    assert_false(attempt->cached || attempt->hedge);
    assert_string_equal(attempt->key, "");
}

static void check_old_rows(void)
{
    struct store *store = NULL;
    struct err err = {""};
    int count = 0;
    struct rows answers = {0};
    assert_int_equal(store_open_read(&store, path, &err), 0);
    assert_int_equal(store_attempts(store, 0, NULL, check_old_row, &count, &err), 0);
    assert_int_equal(count, 2);
    assert_int_equal(store_answers(store, 0, 100, count_row, &answers, &err), 0);
    assert_true(answers.count >= 2);
    store_close(&store);
}

static void a_file_of_the_first_version_is_read_and_brought_up_to_date(void **state)
{
    (void)state;
    make_first_version();
    check_old_rows(); /* a command may come before the daemon that changes the file */
    add("new", 1000, "done");
    assert_int_equal(wait_kept(), 0);
    check_old_rows();
    struct rows rows = rows_since(1000, NULL);
    assert_int_equal(rows.count, 1);
    assert_int_equal(rows.last.cache_write_tokens, 3);
    struct store *store = NULL; /* and once is enough */
    struct err err = {""};
    assert_int_equal(store_open(&store, path, &err), 0);
    store_close(&store);
    assert_int_equal(rows_since(1000, NULL).last.cache_write_tokens, 3);
}

static void answers_are_the_last_calls_that_were_answered_in_their_order(void **state)
{
    (void)state;
    for (int i = 1; i <= 5; i++)
        add("a", i, "done");
    add("a", 6, "failed");
    struct buf out = {0};
    struct message cached = {.type = MESSAGE_timing,
                             .timing = {.task = "t",
                                        .sub = "a",
                                        .attempt = 7,
                                        .arm = "m@p",
                                        .result = "done",
                                        .started_ms = 1007,
                                        .cached = true}};
    assert_int_equal(message_encode(&cached, &out), 0);
    store_writer_timing(writer, (struct bytes){out.data, out.len});
    buf_release(&out);
    assert_int_equal(wait_kept(), 0);
    struct store *store = NULL;
    struct err err;
    struct rows rows = {0};
    assert_int_equal(store_open_read(&store, path, &err), 0);
    assert_int_equal(store_answers(store, 0, 3, count_row, &rows, &err), 0);
    assert_int_equal(rows.count, 3);
    assert_int_equal(rows.last.started_ms, 1005);
    rows = (struct rows){0};
    assert_int_equal(store_answers(store, 1004, 100, count_row, &rows, &err), 0);
    assert_int_equal(rows.count, 2);
    store_close(&store);
}

static void there_is_nothing_to_read_before_the_first_write(void **state)
{
    (void)state;
    struct store *store = NULL;
    struct err err;
    assert_int_equal(store_open_read(&store, path, &err), -ENOENT);
    assert_null(store);
}

static void archive(const char *id, int64_t created_ms, struct kept *kept)
{
    struct store_task task = {
        .id = id, .state = "DONE", .title = "T", .created_ms = created_ms, .finished_ms = 9};
    store_writer_task(writer, &task, "{\"x\": 1}", on_kept, kept);
}

static void list_task(void *ctx, const struct store_task *task)
{
    strcat(ctx, task->id);
    strcat(ctx, " ");
}

static void archived_tasks_are_found_by_id_and_by_its_beginning(void **state)
{
    (void)state;
    struct kept one = {0}, two = {0};
    archive("tabc1", 5, &one);
    archive("tabd2", 6, &two);
    archive("tabc1", 5, &one); /* repeated after a crash */
    assert_int_equal(wait_kept(), 0);
    assert_true(one.done && one.rc == 0 && two.done);
    struct store *store = NULL;
    struct err err;
    char *json = NULL, text[64] = "";
    assert_int_equal(store_open_read(&store, path, &err), 0);
    assert_int_equal(store_task_find(store, "tabc", &json, &err), 0);
    assert_string_equal(json, "{\"x\": 1}");
    free(json);
    assert_int_equal(store_task_find(store, "tabd2", &json, &err), 0);
    free(json);
    assert_int_equal(store_task_find(store, "tab", &json, &err), -ENOTUNIQ);
    assert_int_equal(store_task_find(store, "tx", &json, &err), -ENOENT);
    assert_int_equal(store_task_list(store, 10, list_task, text, &err), 0);
    assert_string_equal(text, "tabd2 tabc1 ");
    store_close(&store);
}

static void who_waits_is_told_when_the_writer_is_closed(void **state)
{
    (void)state;
    struct kept kept = {0};
    archive("t1", 1, &kept);
    store_writer_close(&writer);
    loop_finish(&loop);
    assert_true(kept.done);
    loop_init(&loop);
}

static void decisions_are_kept(void **state)
{
    (void)state;
    store_writer_decision(writer, "t", "a", 1, "qwen:0 sonnet:800");
    assert_int_equal(wait_kept(), 0);
    assert_int_equal(store_writer_counts(writer).dropped, 0);
}

/* --- statistics ------------------------------------------------------------------------------- */

static void the_interval_of_a_success_rate_is_wilsons(void **state)
{
    (void)state;
    double low, high;
    stats_wilson(8, 10, &low, &high); /* Wilson 1927; checked against R's prop.test(correct=F) */
    assert_true(low > 0.4901 && low < 0.4902);
    assert_true(high > 0.9433 && high < 0.9434);
    stats_wilson(0, 5, &low, &high);
    assert_true(low == 0 && high > 0.43 && high < 0.44);
    stats_wilson(0, 0, &low, &high);
    assert_true(low < 0 && high < 0);
}

static void percentiles_are_by_nearest_rank(void **state)
{
    (void)state;
    double values[100];
    for (int i = 0; i < 100; i++)
        values[i] = 100 - i;
    assert_true(stats_percentile(values, 100, 0.5) == 50);
    assert_true(stats_percentile(values, 100, 0.95) == 95);
    assert_true(stats_percentile(values, 1, 0.95) == 1);
    assert_true(stats_percentile(values, 0, 0.5) < 0);
}

static void statistics_tell_arms_apart_and_leave_out_what_is_unknown(void **state)
{
    (void)state;
    struct stats *stats = stats_new();
    struct msg_timing attempt = {.arm = "a",
                                 .result = "done",
                                 .queue_ms = 4,
                                 .ttft_ms = 100,
                                 .total_ms = 1100,
                                 .prompt_ms = 50,
                                 .generate_ms = 1000,
                                 .prompt_tokens = 200,
                                 .cached_tokens = 100,
                                 .output_tokens = 30,
                                 .cost_usd = 0.5};
    stats_add(stats, &attempt);
    stats_add(stats, &attempt);
    attempt.result = "failed";
    attempt.total_ms = 1;
    stats_add(stats, &attempt);
    attempt.result = "cancelled"; /* a hedge that lost */
    attempt.hedge = true;
    stats_add(stats, &attempt);
    attempt.result = "done";
    attempt.cached = true;
    attempt.total_ms = 2;
    attempt.cost_usd = 0;
    stats_add(stats, &attempt);
    attempt = (struct msg_timing){.arm = "b", .result = "done", .ttft_ms = -1, .generate_ms = -1};
    stats_add(stats, &attempt);
    size_t count;
    const struct stats_arm *arms = stats_arms(stats, &count);
    assert_int_equal(count, 2);
    assert_string_equal(arms[0].arm, "a");
    assert_int_equal(arms[0].calls, 4);
    assert_int_equal(arms[0].cancelled, 1);
    assert_int_equal(arms[0].cached, 1);
    assert_true(arms[0].success > 0.66 && arms[0].success < 0.67);
    assert_true(arms[0].total_ms.p50 == 1100);
    assert_true(arms[0].prefill_tps == 2000);
    assert_true(arms[0].decode_tps == 30);
    assert_true(arms[0].cost_usd == 2.0);
    assert_true(arms[1].ttft_ms.p50 < 0 && arms[1].decode_tps < 0);
    stats_free(&stats);
}

#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(an_attempt_is_kept_once_with_all_its_fields),
        STORE_TEST(rows_are_written_soon_without_a_barrier),
        STORE_TEST(a_new_file_is_for_its_user_only),
        STORE_TEST(many_rows_make_few_batches),
        STORE_TEST(a_record_that_cannot_be_read_is_skipped),
        STORE_TEST(a_damaged_file_drops_rows_and_answers),
        STORE_TEST(a_locked_file_is_waited_for),
        STORE_TEST(a_newer_version_is_left_alone),
        STORE_TEST(a_file_of_the_first_version_is_read_and_brought_up_to_date),
        STORE_TEST(answers_are_the_last_calls_that_were_answered_in_their_order),
        STORE_TEST(there_is_nothing_to_read_before_the_first_write),
        STORE_TEST(archived_tasks_are_found_by_id_and_by_its_beginning),
        STORE_TEST(who_waits_is_told_when_the_writer_is_closed),
        STORE_TEST(decisions_are_kept),
        cmocka_unit_test(the_interval_of_a_success_rate_is_wilsons),
        cmocka_unit_test(percentiles_are_by_nearest_rank),
        cmocka_unit_test(statistics_tell_arms_apart_and_leave_out_what_is_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
