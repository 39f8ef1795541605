/* Tasks of ten thousand subtasks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/queue_internal.h"
#include "tests/lib/probe.h"

#define T "t0000000000000001"
#define N 10000

static struct probe probe;
static char ids[N][16];
static struct probe_node nodes[N];

static int setup(void **state)
{
    (void)state;
    probe_open(&probe);
    for (int i = 0; i < N; i++) {
        snprintf(ids[i], sizeof ids[i], "n%d", i);
        nodes[i] = (struct probe_node){.id = ids[i]};
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    probe_close(&probe);
    return 0;
}

/* What runs: everything that the outbox says is ready. */
struct runner {
    struct buf outcome, timing;
    int running, done, failed;
    bool finished;
};

static struct runner runner;

static void committed(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx, (void)err;
    runner.failed += status != QUEUE_OK;
    runner.done++;
    runner.running--;
}

static void claimed(void *ctx, enum queue_status status, const struct queue_claim *claim,
                    const char *err)
{
    char *sub = ctx;
    if (status != QUEUE_OK) {
        committed(NULL, status, err);
        return;
    }
    queue_commit(probe.queue, T, sub, claim->token,
                 (struct bytes){runner.outcome.data, runner.outcome.len},
                 (struct bytes){runner.timing.data, runner.timing.len}, NULL, committed, NULL);
}

static char *id_of(const char *sub)
{
    return ids[atoi(sub + 1)];
}

static void on_event(void *ctx, const struct queue_event *event)
{
    (void)ctx;
    if (event->kind == QUEUE_EVENT_READY) {
        runner.running++;
        queue_claim(probe.queue, T, id_of(event->sub), "w", "m@p", "n", 60000, false, claimed,
                    id_of(event->sub));
    }
    runner.finished =
        runner.finished || (event->kind == QUEUE_EVENT_TASK && event->state == TASK_DONE);
}

static void run_all(int n)
{
    struct err err;
    memset(&runner, 0, sizeof runner);
    probe_record(&runner.outcome, MESSAGE_outcome, "outcome");
    probe_record(&runner.timing, MESSAGE_timing, "timing");
    assert_int_equal(queue_follow(probe.queue, on_event, NULL, &err), 0);
    probe_wait_for(&probe, &runner.finished);
    while (runner.running > 0)
        uv_run(&probe.loop, UV_RUN_ONCE);
    assert_int_equal(runner.done, n);
    assert_int_equal(runner.failed, 0);
    assert_int_equal(probe_fsck(&probe), 0);
    buf_release(&runner.outcome);
    buf_release(&runner.timing);
}

static void independent_subtasks_are_submitted_in_chunks_and_run(void **state)
{
    (void)state;
    assert_int_equal(probe_submit(&probe, T, "d", nodes, N), QUEUE_OK);
    assert_int_equal(probe_submit(&probe, T, "d", nodes, N), QUEUE_DUP);
    assert_int_equal(probe_submit(&probe, T, "e", nodes, N), QUEUE_CONFLICT);
    assert_int_equal(probe_fsck(&probe), 0);
    run_all(N);
}

static void a_chain_and_a_wide_join_run_to_their_end(void **state)
{
    (void)state;
    /* n0 -> n1..n4999 -> n5000 -> a chain of n5001..n5099, and all others at once. */
    struct buf deps = {0};
    for (int i = 1; i < 5000; i++) {
        nodes[i].deps = "n0";
        buf_printf(&deps, "n%d ", i);
    }
    nodes[5000].deps = deps.data;
    for (int i = 5001; i < 5100; i++)
        nodes[i].deps = ids[i - 1];
    assert_int_equal(probe_submit(&probe, T, "d", nodes, N), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
    run_all(N);
    buf_release(&deps);
}

static void an_interrupted_submit_is_resumed_by_repeating_it(void **state)
{
    (void)state;
    /* The connection is closed while chunks are on their way: some arrive, some do not. */
    probe_send_submit(&probe, T, "d", nodes, N);
    uv_run(&probe.loop, UV_RUN_NOWAIT);
    fixture_redis_kill(&probe.fixture, SIGKILL);
    queue_close(&probe.queue);
    assert_int_equal(probe.status, QUEUE_ERROR);
    probe.done = false;
    fixture_redis_start(&probe.fixture);
    struct redis_options options = fixture_redis_options(&probe.fixture);
    struct err err;
    assert_int_equal(queue_open(&probe.queue, &probe.loop, &options, NULL, NULL, &err), 0);
    assert_int_equal(probe_submit(&probe, T, "d", nodes, N), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
    run_all(N);
}

/* --- chunks -------------------------------------------------------------------------------- */

static void chunk_answered(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    snprintf(probe.err, sizeof probe.err, "%s", redis_str(value, NULL));
    probe.done = true;
}

/* Chunk number `chunk` of three, of one node each: c depends on a and b. */
static const char *send_chunk(int chunk)
{
    static const char *const deps[] = {"c b", "", ""};
    static const char *const names[] = {"a", "b", "c"};
    struct buf work = {0}, meta = {0};
    probe_record(&work, MESSAGE_work, "w");
    probe_record(&meta, MESSAGE_meta, "m");
    struct queue_args *args = queue_begin(probe.queue, T);
    static const char *const head[] = {"digest", "title", "{}", "3"};
    for (size_t i = 0; i < 4; i++)
        queue_args_str(args, head[i]);
    queue_args_printf(args, "%d", chunk);
    queue_args_printf(args, "%d", chunk);
    queue_args_str(args, ""); /* no budget */
    queue_args_str(args, names[chunk]);
    queue_args_str(args, "3 0 0");
    queue_args_str(args, deps[chunk]);
    queue_args_bytes(args, work.data, work.len);
    queue_args_bytes(args, meta.data, meta.len);
    queue_run(probe.queue, SCRIPT_submit, T, chunk_answered, NULL);
    buf_release(&work);
    buf_release(&meta);
    probe_wait(&probe);
    return probe.err;
}

static void chunks_may_come_in_any_order_and_again(void **state)
{
    (void)state;
    assert_string_equal(send_chunk(2), "MORE");
    assert_string_equal(send_chunk(2), "MORE");
    assert_string_equal(send_chunk(0), "MORE");
    assert_string_equal(send_chunk(0), "MORE");
    assert_string_equal(probe_read(&probe, T), "LOADING 2/2 a=BLOCKED c=BLOCKED");
    assert_int_equal(probe_claim(&probe, T, "c", "n"), QUEUE_TAKEN);
    assert_string_equal(send_chunk(1), "OK");
    assert_string_equal(send_chunk(1), "DUP");
    assert_string_equal(probe_read(&probe, T), "RUNNING 3/3 a=BLOCKED b=READY c=READY");
    assert_int_equal(probe_fsck(&probe), 0);
    probe_run(&probe, T, "b");
    probe_run(&probe, T, "c");
    probe_run(&probe, T, "a");
    assert_string_equal(probe_read(&probe, T), "DONE 0/3 a=DONE b=DONE c=DONE");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_task_that_still_loads_can_be_cancelled_but_not_retried(void **state)
{
    (void)state;
    assert_string_equal(send_chunk(2), "MORE");
    assert_int_equal(probe_task(&probe, queue_forget, T), QUEUE_STALE);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_string_equal(send_chunk(0), "DUP");
    assert_string_equal(probe_read(&probe, T), "CANCELLED 1/1 c=CANCELLED");
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_STALE);
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_task(&probe, queue_forget, T), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void cancel_and_retry_of_ten_thousand(void **state)
{
    (void)state;
    assert_int_equal(probe_submit(&probe, T, "d", nodes, N), QUEUE_OK);
    for (int i = 0; i < 10; i++)
        assert_int_equal(probe_claim(&probe, T, ids[i], "n"), QUEUE_OK);
    probe_run(&probe, T, ids[10]);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_commit(&probe, T, ids[0], "1-n"), QUEUE_CANCELLED);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_claim(&probe, T, ids[0], "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, ids[0], "2-n", ERROR_DEAD, 0), QUEUE_DEAD);
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_task(&probe, queue_forget, T), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_plan_of_ten_thousand_is_expanded_at_once(void **state)
{
    (void)state;
    const struct probe_node planner[] = {{.id = "plan", .expands = true}};
    assert_int_equal(probe_submit(&probe, T, "d", planner, 1), QUEUE_OK);
    probe_run(&probe, T, "plan");
    assert_int_equal(probe_expand(&probe, T, "plan", nodes, N), QUEUE_OK);
    assert_int_equal(probe_expand(&probe, T, "plan", nodes, N), QUEUE_DUP);
    assert_int_equal(probe_fsck(&probe), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(independent_subtasks_are_submitted_in_chunks_and_run),
        TEST(a_chain_and_a_wide_join_run_to_their_end),
        TEST(an_interrupted_submit_is_resumed_by_repeating_it),
        TEST(chunks_may_come_in_any_order_and_again),
        TEST(a_task_that_still_loads_can_be_cancelled_but_not_retried),
        TEST(cancel_and_retry_of_ten_thousand),
        TEST(a_plan_of_ten_thousand_is_expanded_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
