/* The queue when Redis dies, restarts, or takes no writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "tests/lib/probe.h"

#define T "t0000000000000001"
#define N 1000

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

static const struct probe_node one[] = {{.id = "a"}};

/* A thousand tasks of one subtask, or a subtask each of one task. */
struct many {
    char tasks[N][TASK_ID_SIZE];
    int counts[16]; /* by status */
    int answers;
    bool done, some; /* all, the first 100 answered */
};

static struct many many;

static void counted(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx, (void)err;
    many.counts[status]++;
    many.answers++;
    many.some = many.answers >= 100;
    many.done = many.answers == N;
}

static void claim_counted(void *ctx, enum queue_status status, const struct queue_claim *claim,
                          const char *err)
{
    (void)claim;
    counted(ctx, status, err);
}

static void begin(void)
{
    memset(many.counts, 0, sizeof many.counts);
    many.answers = 0;
    many.done = many.some = false;
}

static void submit_all(void)
{
    struct buf work = {0}, meta = {0};
    probe_record(&work, MESSAGE_work, "work");
    probe_record(&meta, MESSAGE_meta, "meta");
    const struct queue_node node = {
        .id = "a", .work = {work.data, work.len}, .meta = {meta.data, meta.len}, .max_attempts = 3};
    begin();
    for (int i = 0; i < N; i++) {
        task_id_make(many.tasks[i]);
        struct queue_task task = {
            .id = many.tasks[i], .digest = "d", .title = "", .nodes = &node, .n_nodes = 1};
        queue_submit(probe.queue, &task, counted, NULL);
    }
    buf_release(&work);
    buf_release(&meta);
}

static void commit_all(void)
{
    struct buf outcome = {0}, timing = {0};
    probe_record(&outcome, MESSAGE_outcome, "outcome");
    probe_record(&timing, MESSAGE_timing, "timing");
    begin();
    for (int i = 0; i < N; i++)
        queue_commit(probe.queue, many.tasks[i], "a", "1-n",
                     (struct bytes){outcome.data, outcome.len},
                     (struct bytes){timing.data, timing.len}, NULL, counted, NULL);
    buf_release(&outcome);
    buf_release(&timing);
}

static void claim_all(void)
{
    begin();
    for (int i = 0; i < N; i++)
        queue_claim(probe.queue, many.tasks[i], "a", "w", "m@p", "n", 60000, false, claim_counted,
                    NULL);
}

/* Kills Redis when some answers are there, and starts it again. */
static void kill_in_the_middle(void)
{
    probe_wait_for(&probe, &many.some);
    fixture_redis_kill(&probe.fixture, SIGKILL);
    fixture_redis_start(&probe.fixture);
    probe_wait_for(&probe, &many.done);
}

static void count_done(void *ctx, enum queue_status status, const struct queue_task_view *view,
                       const char *err)
{
    (void)ctx, (void)err;
    many.counts[0] += status == QUEUE_OK && view->state == TASK_DONE && view->subs[0].attempts == 1;
    many.done = ++many.answers == N;
}

static void killed_in_the_middle_nothing_is_lost_or_doubled(void **state)
{
    (void)state;
    probe_follow(&probe);
    submit_all();
    kill_in_the_middle();
    assert_int_equal(many.counts[QUEUE_OK] + many.counts[QUEUE_DUP], N);
    claim_all();
    kill_in_the_middle();
    assert_int_equal(many.counts[QUEUE_OK], N);
    commit_all();
    kill_in_the_middle();
    assert_int_equal(many.counts[QUEUE_OK] + many.counts[QUEUE_DUP], N);
    begin();
    for (int i = 0; i < N; i++)
        queue_read(probe.queue, many.tasks[i], false, count_done, NULL);
    probe_wait_for(&probe, &many.done);
    assert_int_equal(many.counts[0], N);
    assert_int_equal(probe_fsck(&probe), 0);
    /* SUBMITTED, READY, DONE, TASK: each exactly once, over all restarts. */
    while (probe.n_events < 4 * N)
        uv_run(&probe.loop, UV_RUN_ONCE);
    assert_int_equal(probe.n_events, 4 * N);
}

static void a_lost_script_cache_is_no_problem(void **state)
{
    (void)state;
    submit_all();
    probe_redis(&probe, "SCRIPT FLUSH");
    probe_wait_for(&probe, &many.done);
    assert_int_equal(many.counts[QUEUE_OK], N);
    probe_redis(&probe, "SCRIPT FLUSH");
    claim_all();
    probe_wait_for(&probe, &many.done);
    assert_int_equal(many.counts[QUEUE_OK], N);
}

static void full_memory_is_refused_before_anything_is_written(void **state)
{
    (void)state;
    assert_int_equal(probe_submit(&probe, T, "d", one, 1), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_string_equal(probe_redis(&probe, "CONFIG SET maxmemory 1"), "OK");
    assert_int_equal(probe_submit(&probe, "t0000000000000002", "d", one, 1), QUEUE_REFUSED);
    assert_non_null(strstr(probe.err, "maxmemory"));
    assert_int_equal(probe_commit(&probe, T, "a", "1-n"), QUEUE_REFUSED);
    assert_int_equal(probe_renew(&probe, T, "a", "1-n", 1000), QUEUE_REFUSED);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_REFUSED);
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=RUNNING");
    assert_string_equal(probe_read(&probe, "t0000000000000002"), "GONE");
    assert_int_equal(probe_fsck(&probe), 0);
    assert_string_equal(probe_redis(&probe, "CONFIG SET maxmemory 0"), "OK");
    assert_int_equal(probe_commit(&probe, T, "a", "1-n"), QUEUE_OK);
    assert_string_equal(probe_redis(&probe, "CONFIG SET maxmemory 1"), "OK");
    assert_int_equal(probe_task(&probe, queue_forget, T), QUEUE_OK); /* frees memory */
    assert_string_equal(probe_read(&probe, T), "GONE");
}

static void missing_replicas_are_refused(void **state)
{
    (void)state;
    assert_string_equal(probe_redis(&probe, "CONFIG SET min-replicas-to-write 1"), "OK");
    assert_int_equal(probe_submit(&probe, T, "d", one, 1), QUEUE_REFUSED);
    assert_non_null(strstr(probe.err, "replicas"));
    assert_string_equal(probe_redis(&probe, "CONFIG SET min-replicas-to-write 0"), "OK");
    assert_int_equal(probe_submit(&probe, T, "d", one, 1), QUEUE_OK);
}

static void a_closed_queue_answers_everything(void **state)
{
    (void)state;
    submit_all();
    probe_follow(&probe);
    queue_close(&probe.queue);
    assert_int_equal(many.answers, N);
    assert_int_equal(many.counts[QUEUE_ERROR], N);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(killed_in_the_middle_nothing_is_lost_or_doubled),
        TEST(a_lost_script_cache_is_no_problem),
        TEST(full_memory_is_refused_before_anything_is_written),
        TEST(missing_replicas_are_refused),
        TEST(a_closed_queue_answers_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
