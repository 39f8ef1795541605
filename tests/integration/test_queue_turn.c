/* Calls made in one turn of the loop, which may travel together, do what they do one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "tests/lib/probe.h"

#define N 200

static struct probe probe;
static char tasks[N][24];

static struct {
    int counts[16]; /* by status */
    int wanted;     /* answers that are missing */
    struct buf outcome, timing;
} turn;

static int setup(void **state)
{
    (void)state;
    probe_open(&probe);
    memset(&turn, 0, sizeof turn);
    probe_record(&turn.outcome, MESSAGE_outcome, "outcome");
    probe_record(&turn.timing, MESSAGE_timing, "timing");
    for (int i = 0; i < N; i++)
        snprintf(tasks[i], sizeof tasks[i], "t%016d", i);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_release(&turn.outcome);
    buf_release(&turn.timing);
    probe_close(&probe);
    return 0;
}

static void answered(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx, (void)err;
    turn.counts[status]++;
    probe.done = --turn.wanted == 0;
}

static void claim_answered(void *ctx, enum queue_status status, const struct queue_claim *claim,
                           const char *err)
{
    assert_true((claim != NULL) == (status == QUEUE_OK));
    answered(ctx, status, err);
}

static void begin(void)
{
    memset(turn.counts, 0, sizeof turn.counts);
    turn.wanted = 0;
}

static void claim(const char *task, const char *sub, const char *nonce)
{
    turn.wanted++;
    queue_claim(probe.queue, task, sub, "w", "m@p", nonce, 60000, false, claim_answered, NULL);
}

static void commit(const char *task, const char *sub, const char *token)
{
    turn.wanted++;
    queue_commit(probe.queue, task, sub, token, (struct bytes){turn.outcome.data, turn.outcome.len},
                 (struct bytes){turn.timing.data, turn.timing.len}, NULL, answered, NULL);
}

/* a, b, c -> d -> e, f */
static const struct probe_node dag[] = {{.id = "a"},
                                        {.id = "b"},
                                        {.id = "c"},
                                        {.id = "d", .deps = "a b c"},
                                        {.id = "e", .deps = "d"},
                                        {.id = "f", .deps = "d c"}};

static void submit_all(void)
{
    for (int i = 0; i < N; i++)
        assert_int_equal(probe_submit(&probe, tasks[i], "d", dag, 6), QUEUE_OK);
}

static void claim_and_commit(const char *const *subs, size_t n)
{
    begin();
    for (size_t k = 0; k < n; k++)
        for (int i = 0; i < N; i++)
            claim(tasks[i], subs[k], "n");
    probe_wait(&probe);
    assert_int_equal(turn.counts[QUEUE_OK], (int)n * N);
    begin();
    for (size_t k = 0; k < n; k++)
        for (int i = 0; i < N; i++)
            commit(tasks[i], subs[k], "1-n");
    probe_wait(&probe);
    assert_int_equal(turn.counts[QUEUE_OK], (int)n * N);
}

static void all_dependencies_of_a_join_are_committed_in_one_turn(void **state)
{
    (void)state;
    submit_all();
    claim_and_commit((const char *const[]){"a", "b", "c"}, 3);
    for (int i = 0; i < N; i += 37)
        assert_string_equal(probe_read(&probe, tasks[i]),
                            "RUNNING 3/6 a=DONE b=DONE c=DONE d=READY e=BLOCKED f=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
    claim_and_commit((const char *const[]){"d"}, 1);
    claim_and_commit((const char *const[]){"e", "f"}, 2);
    for (int i = 0; i < N; i += 37)
        assert_string_equal(probe_read(&probe, tasks[i]),
                            "DONE 0/6 a=DONE b=DONE c=DONE d=DONE e=DONE f=DONE");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void events_are_told_once_in_the_order_of_the_calls(void **state)
{
    (void)state;
    assert_int_equal(probe_submit(&probe, tasks[0], "d", dag, 6), QUEUE_OK);
    probe_follow(&probe);
    probe_follow_log(&probe, tasks[0], "0");
    begin();
    claim(tasks[0], "a", "n");
    claim(tasks[0], "b", "n");
    claim(tasks[0], "c", "n");
    probe_wait(&probe);
    begin();
    commit(tasks[0], "b", "1-n");
    commit(tasks[0], "c", "1-n");
    commit(tasks[0], "a", "1-n");
    probe_wait(&probe);
    probe_wait_text(&probe, &probe.events, "READY t0000000000000000/d\n");
    assert_non_null(strstr(probe.events.data, "DONE t0000000000000000/b\n"
                                              "DONE t0000000000000000/c\n"
                                              "DONE t0000000000000000/a\n"
                                              "READY t0000000000000000/d\n"));
    probe_wait_text(&probe, &probe.log, "ready d\n");
    assert_string_equal(probe.log.data, "submitted\nrunning a\nrunning b\nrunning c\n"
                                        "done b\ndone c\ndone a\nready d\n");
}

static void the_same_call_twice_in_one_turn_is_done_once(void **state)
{
    (void)state;
    submit_all();
    begin();
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 5; k++) {
            char nonce[8];
            snprintf(nonce, sizeof nonce, "n%d", k);
            claim(tasks[i], "a", nonce);
        }
    probe_wait(&probe);
    assert_int_equal(turn.counts[QUEUE_OK], N);
    assert_int_equal(turn.counts[QUEUE_TAKEN], 4 * N);
    begin();
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 5; k++) {
            char token[8];
            snprintf(token, sizeof token, "1-n%d", k);
            commit(tasks[i], "a", token);
            commit(tasks[i], "a", token);
        }
    probe_wait(&probe);
    assert_int_equal(turn.counts[QUEUE_OK], N);
    assert_int_equal(turn.counts[QUEUE_DUP], N);
    assert_int_equal(turn.counts[QUEUE_STALE], 8 * N);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_claim_and_its_commit_may_be_sent_together(void **state)
{
    (void)state;
    submit_all();
    begin();
    for (int i = 0; i < N; i++) {
        claim(tasks[i], "a", "n");
        commit(tasks[i], "a", "1-n");
    }
    probe_wait(&probe);
    assert_int_equal(turn.counts[QUEUE_OK], 2 * N);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void calls_of_other_kinds_keep_their_place_behind(void **state)
{
    (void)state;
    submit_all();
    begin();
    for (int i = 0; i < N; i++) {
        claim(tasks[i], "a", "n");
        turn.wanted += 2;
        queue_renew(probe.queue, tasks[i], "a", "1-n", 60000, answered, NULL);
        queue_cancel(probe.queue, tasks[i], answered, NULL);
        commit(tasks[i], "a", "1-n");
    }
    probe_wait(&probe);
    assert_int_equal(turn.counts[QUEUE_OK], 3 * N);
    assert_int_equal(turn.counts[QUEUE_CANCELLED], N);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void one_damaged_task_harms_no_other(void **state)
{
    (void)state;
    submit_all();
    char words[128];
    snprintf(words, sizeof words, "DEL orch:{s%d}:task:%s", task_shard(tasks[7]), tasks[7]);
    assert_string_equal(probe_redis(&probe, words), "1");
    snprintf(words, sizeof words, "SET orch:{s%d}:task:%s x", task_shard(tasks[7]), tasks[7]);
    assert_string_equal(probe_redis(&probe, words), "OK");
    snprintf(words, sizeof words, "HSET orch:{s%d}:task:%s sub:a x", task_shard(tasks[8]),
             tasks[8]);
    assert_string_equal(probe_redis(&probe, words), "0");
    begin();
    for (int i = 0; i < N; i++)
        claim(tasks[i], "a", "n");
    probe_wait(&probe);
    assert_int_equal(turn.counts[QUEUE_OK], N - 2);
    assert_int_equal(turn.counts[QUEUE_ERROR], 2);
    begin();
    for (int i = 0; i < N; i++)
        commit(tasks[i], "a", "1-n");
    probe_wait(&probe);
    /* What was sent with a damaged one is repeated. */
    assert_int_equal(turn.counts[QUEUE_OK] + turn.counts[QUEUE_DUP], N - 2);
    assert_int_equal(turn.counts[QUEUE_ERROR], 2);
}

static void a_full_memory_refuses_the_whole_turn(void **state)
{
    (void)state;
    submit_all();
    assert_string_equal(probe_redis(&probe, "CONFIG SET maxmemory 1"), "OK");
    begin();
    for (int i = 0; i < N; i++)
        claim(tasks[i], "a", "n");
    probe_wait(&probe);
    assert_int_equal(turn.counts[QUEUE_REFUSED], N);
    assert_string_equal(probe_redis(&probe, "CONFIG SET maxmemory 0"), "OK");
    claim_and_commit((const char *const[]){"a"}, 1);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void closing_answers_what_was_not_sent(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < N; i++)
        claim(tasks[i], "a", "n");
    int wanted = turn.wanted;
    queue_close(&probe.queue);
    assert_int_equal(turn.counts[QUEUE_ERROR], wanted);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(all_dependencies_of_a_join_are_committed_in_one_turn),
        TEST(events_are_told_once_in_the_order_of_the_calls),
        TEST(the_same_call_twice_in_one_turn_is_done_once),
        TEST(a_claim_and_its_commit_may_be_sent_together),
        TEST(calls_of_other_kinds_keep_their_place_behind),
        TEST(one_damaged_task_harms_no_other),
        TEST(a_full_memory_refuses_the_whole_turn),
        TEST(closing_answers_what_was_not_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
