/* The life of subtasks and tasks, script by script. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "tests/lib/probe.h"

#define T "t0000000000000001"
#define U "t0000000000000002"

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
/* a, b -> c -> d */
static const struct probe_node dag[] = {
    {.id = "a"}, {.id = "b"}, {.id = "c", .deps = "a b"}, {.id = "d", .deps = "c"}};

static void submit_one(void)
{
    assert_int_equal(probe_submit(&probe, T, "digest", one, 1), QUEUE_OK);
}

static void submit_dag(void)
{
    assert_int_equal(probe_submit(&probe, T, "digest", dag, 4), QUEUE_OK);
}

/* --- submit ------------------------------------------------------------------------------- */

static void submit_makes_the_roots_ready(void **state)
{
    (void)state;
    submit_dag();
    assert_string_equal(probe_read(&probe, T), "RUNNING 4/4 a=READY b=READY c=BLOCKED d=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void submit_again_with_the_same_digest_changes_nothing(void **state)
{
    (void)state;
    submit_dag();
    probe_run(&probe, T, "a");
    assert_int_equal(probe_submit(&probe, T, "digest", dag, 4), QUEUE_DUP);
    assert_string_equal(probe_read(&probe, T), "RUNNING 3/4 a=DONE b=READY c=BLOCKED d=BLOCKED");
}

static void submit_with_another_digest_is_a_conflict(void **state)
{
    (void)state;
    submit_one();
    assert_int_equal(probe_submit(&probe, T, "other", dag, 4), QUEUE_CONFLICT);
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=READY");
}

static void an_unknown_task_is_gone(void **state)
{
    (void)state;
    assert_string_equal(probe_read(&probe, T), "GONE");
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_GONE);
    assert_int_equal(probe_renew(&probe, T, "a", "1-n", 1000), QUEUE_GONE);
    assert_int_equal(probe_commit(&probe, T, "a", "1-n"), QUEUE_GONE);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_RETRY, 0), QUEUE_GONE);
    assert_int_equal(probe_expand(&probe, T, "a", one, 1), QUEUE_GONE);
    probe_sub_fn *subs[] = {queue_expire, queue_promote, queue_hold, queue_release};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(probe_sub(&probe, subs[i], T, "a"), QUEUE_GONE);
    probe_task_fn *tasks[] = {queue_cancel, queue_retry, queue_forget};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(probe_task(&probe, tasks[i], T), QUEUE_GONE);
}

/* --- claim, renew, commit ----------------------------------------------------------------- */

static void a_claim_gives_token_and_work(void **state)
{
    (void)state;
    submit_one();
    assert_int_equal(probe_claim(&probe, T, "a", "nonce"), QUEUE_OK);
    assert_string_equal(probe.token, "1-nonce");
    assert_int_equal(probe.attempt, 1);
    assert_true(probe.queue_ms >= 0 && probe.queue_ms < 60000);
    struct message work = {0};
    assert_int_equal(message_decode_as(&work, MESSAGE_work, probe.work.data, probe.work.len), 0);
    assert_string_equal(work.work.prompt.data, "a");
    message_release(&work);
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=RUNNING");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_repeated_claim_gets_the_same_answer(void **state)
{
    (void)state;
    submit_one();
    assert_int_equal(probe_claim(&probe, T, "a", "nonce"), QUEUE_OK);
    double queue_ms = probe.queue_ms;
    assert_int_equal(probe_claim(&probe, T, "a", "nonce"), QUEUE_OK);
    assert_string_equal(probe.token, "1-nonce");
    assert_true(probe.queue_ms == queue_ms);
    assert_int_equal(probe_claim(&probe, T, "a", "other"), QUEUE_TAKEN);
}

static void blocked_done_and_held_subtasks_cannot_be_claimed(void **state)
{
    (void)state;
    submit_dag();
    assert_int_equal(probe_claim(&probe, T, "c", "n"), QUEUE_TAKEN);
    probe_run(&probe, T, "a");
    assert_int_equal(probe_claim(&probe, T, "a", "run"), QUEUE_TAKEN);
    assert_int_equal(probe_sub(&probe, queue_hold, T, "b"), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_TAKEN);
    assert_int_equal(probe_claim(&probe, T, "none", "n"), QUEUE_GONE);
}

static void count_claim(void *ctx, enum queue_status status, const struct queue_claim *claim,
                        const char *err)
{
    (void)claim, (void)err;
    ((int *)ctx)[status]++;
    if (++((int *)ctx)[20] == 20)
        probe.done = true;
}

static void of_many_clients_that_claim_one_wins(void **state)
{
    (void)state;
    submit_one();
    struct queue *other;
    struct err err;
    struct redis_options options = fixture_redis_options(&probe.fixture);
    assert_int_equal(queue_open(&other, &probe.loop, &options, NULL, NULL, &err), 0);
    int counts[21] = {0};
    for (int i = 0; i < 20; i++) {
        char nonce[16];
        snprintf(nonce, sizeof nonce, "n%d", i);
        queue_claim(i % 2 ? other : probe.queue, T, "a", "w", "m@p", nonce, 1000, false,
                    count_claim, counts);
    }
    probe_wait(&probe);
    assert_int_equal(counts[QUEUE_OK], 1);
    assert_int_equal(counts[QUEUE_TAKEN], 19);
    queue_close(&other);
}

static void a_join_is_ready_after_its_last_dependency_and_gets_results_in_order(void **state)
{
    (void)state;
    submit_dag();
    probe_run(&probe, T, "b");
    assert_string_equal(probe_read(&probe, T), "RUNNING 3/4 a=READY b=DONE c=BLOCKED d=BLOCKED");
    probe_run(&probe, T, "a");
    assert_string_equal(probe_read(&probe, T), "RUNNING 2/4 a=DONE b=DONE c=READY d=BLOCKED");
    assert_int_equal(probe_claim(&probe, T, "c", "n"), QUEUE_OK);
    assert_string_equal(probe.deps.data, "result of a\nresult of b\n");
    assert_int_equal(probe_commit(&probe, T, "c", probe.token), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
    probe_run(&probe, T, "d");
    assert_string_equal(probe_read(&probe, T), "DONE 0/4 a=DONE b=DONE c=DONE d=DONE");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_second_commit_with_the_same_token_is_a_dup(void **state)
{
    (void)state;
    submit_dag();
    probe_run(&probe, T, "a");
    assert_int_equal(probe_commit(&probe, T, "a", "1-run"), QUEUE_DUP);
    assert_string_equal(probe_read(&probe, T), "RUNNING 3/4 a=DONE b=READY c=BLOCKED d=BLOCKED");
}

static void a_stale_token_changes_nothing(void **state)
{
    (void)state;
    submit_one();
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    static const char *const tokens[] = {"1-x", "2-n", "1-", "-", "", "1-n "};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        assert_int_equal(probe_commit(&probe, T, "a", tokens[i]), QUEUE_STALE);
        assert_int_equal(probe_renew(&probe, T, "a", tokens[i], 1000), QUEUE_STALE);
        assert_int_equal(probe_fail(&probe, T, "a", tokens[i], ERROR_DEAD, 0), QUEUE_STALE);
    }
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=RUNNING");
    assert_int_equal(probe_commit(&probe, T, "a", "1-n"), QUEUE_OK);
    assert_int_equal(probe_commit(&probe, T, "a", "1-x"), QUEUE_STALE);
}

static void nothing_is_owned_before_the_first_claim(void **state)
{
    (void)state;
    submit_one();
    static const char *const tokens[] = {"-", "", "0--", "0-"};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        assert_int_equal(probe_commit(&probe, T, "a", tokens[i]), QUEUE_STALE);
        assert_int_equal(probe_fail(&probe, T, "a", tokens[i], ERROR_DEAD, 0), QUEUE_STALE);
    }
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=READY");
}

/* --- fail, expire, promote ---------------------------------------------------------------- */

static void a_failure_with_backoff_waits_for_its_time(void **state)
{
    (void)state;
    submit_one();
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_RETRY, 60000), QUEUE_RETRY);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_RETRY, 60000), QUEUE_RETRY);
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=DELAYED");
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_sub(&probe, queue_promote, T, "a"), QUEUE_STALE);
    assert_int_equal(probe_commit(&probe, T, "a", "1-n"), QUEUE_STALE);
}

static void a_delayed_subtask_is_promoted_once_due(void **state)
{
    (void)state;
    submit_one();
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_RETRY, 1), QUEUE_RETRY);
    while (probe_sub(&probe, queue_promote, T, "a") != QUEUE_OK)
        ;
    assert_int_equal(probe_sub(&probe, queue_promote, T, "a"), QUEUE_STALE);
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=READY");
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_string_equal(probe.token, "2-n");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_move_is_ready_at_once_and_avoids_the_arm(void **state)
{
    (void)state;
    submit_one();
    probe_follow(&probe);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_MOVE, 60000), QUEUE_RETRY);
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=READY");
    probe_wait_text(&probe, &probe.events, "READY " T "/a avoid model@place");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void attempts_run_out(void **state)
{
    (void)state;
    const struct probe_node node[] = {{.id = "a", .max_attempts = 2}};
    assert_int_equal(probe_submit(&probe, T, "d", node, 1), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "2-n", ERROR_MOVE, 0), QUEUE_DEAD);
    assert_int_equal(probe_fail(&probe, T, "a", "2-n", ERROR_MOVE, 0), QUEUE_DEAD);
    assert_string_equal(probe_read(&probe, T), "FAILED 1/1 a=DEAD");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void waiting_does_not_use_attempts_up(void **state)
{
    (void)state;
    const struct probe_node node[] = {{.id = "a", .max_attempts = 2}};
    char token[16];
    assert_int_equal(probe_submit(&probe, T, "d", node, 1), QUEUE_OK);
    for (int i = 1; i <= 10; i++) {
        snprintf(token, sizeof token, "%d-n", i);
        assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
        assert_int_equal(probe_fail(&probe, T, "a", token, ERROR_WAIT, 0), QUEUE_RETRY);
        assert_int_equal(probe_fail(&probe, T, "a", token, ERROR_WAIT, 0), QUEUE_RETRY);
    }
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "11-n", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "12-n", ERROR_RETRY, 0), QUEUE_DEAD);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void waited(void *ctx, enum queue_status status, const char *err)
{
    assert_string_equal(err, "");
    assert_int_equal(status, QUEUE_RETRY);
    *(bool *)ctx = true;
}

static void waiting_for_a_budget_never_ends_a_subtask(void **state)
{
    (void)state;
    char token[16];
    submit_one();
    for (int i = 1; i <= QUEUE_WAITS_MAX + 1; i++) {
        snprintf(token, sizeof token, "%d-n", i);
        assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
        bool answered = false;
        queue_fail(probe.queue, T, "a", token, CLASS_BUDGET, ERROR_WAIT, "no room", "model@place",
                   0, (struct bytes){"", 0}, NULL, waited, &answered);
        probe_wait_for(&probe, &answered);
    }
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=READY");
}

static void waiting_ends_and_begins_anew_when_a_person_retries(void **state)
{
    (void)state;
    char token[16];
    submit_one();
    for (int i = 1; i <= QUEUE_WAITS_MAX + 1; i++) {
        snprintf(token, sizeof token, "%d-n", i);
        assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
        assert_int_equal(probe_fail(&probe, T, "a", token, ERROR_WAIT, 0),
                         i == QUEUE_WAITS_MAX ? QUEUE_DEAD : QUEUE_RETRY);
        if (i == QUEUE_WAITS_MAX)
            assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    }
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=READY");
    assert_int_equal(probe_fsck(&probe), 0);
}

/* What is stored of the arms to avoid. */
static const char *avoids(void)
{
    char words[128];
    snprintf(words, sizeof words, "HGET orch:{s%d}:task:" T " avoid:a", task_shard(T));
    return probe_redis(&probe, words);
}

static void fail_on(const char *arm, const char *token, enum error_action action,
                    int64_t backoff_ms)
{
    probe.arm = arm;
    assert_int_equal(probe_fail(&probe, T, "a", token, action, backoff_ms), QUEUE_RETRY);
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=READY");
    assert_int_equal(probe_fsck(&probe), 0);
}

/* Times are what is left of those that are expected, of which little can have passed. */
static void assert_avoids(const char *expected)
{
    char stored[256], wanted[256], *ours = NULL, *theirs = NULL;
    snprintf(stored, sizeof stored, "%s", avoids());
    snprintf(wanted, sizeof wanted, "%s", expected);
    const char *a = strtok_r(stored, " ", &ours), *b = strtok_r(wanted, " ", &theirs);
    for (; a != NULL && b != NULL;
         a = strtok_r(NULL, " ", &ours), b = strtok_r(NULL, " ", &theirs)) {
        size_t len = strcspn(b, "=");
        int64_t left_ms = a[len] == '=' ? atoll(a + len + 1) : -1;
        int64_t ms = b[len] == '=' ? atoll(b + len + 1) : -1;
        if (strncmp(a, b, len + 1) != 0 || left_ms > ms || left_ms < ms - 2 * PROBE_WAIT_MS)
            fail_msg("it avoids %s, not %s", avoids(), expected);
    }
    if (a != NULL || b != NULL)
        fail_msg("it avoids %s, not %s", avoids(), expected);
}

static void who_waits_for_an_arm_is_ready_for_others_at_once(void **state)
{
    (void)state;
    const struct probe_node node[] = {{.id = "a", .max_attempts = 9}};
    assert_int_equal(probe_submit(&probe, T, "d", node, 1), QUEUE_OK);
    probe_follow(&probe);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    fail_on("x@p", "1-n", ERROR_WAIT, 700000);
    assert_avoids("x@p=700000");
    probe_wait_text(&probe, &probe.events, "READY " T "/a avoid x@p=");
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    fail_on("y@p", "2-n", ERROR_MOVE, 0);
    assert_avoids("x@p=700000 y@p");
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    fail_on("x@p", "3-n", ERROR_WAIT, 500000);
    assert_avoids("y@p x@p=500000");
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    fail_on("y@p", "4-n", ERROR_WAIT, 50); /* which it avoids for good */
    assert_avoids("y@p x@p=500000");
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    fail_on("z@p", "5-n", ERROR_WAIT, 0);
    assert_avoids("y@p x@p=500000");
}

static void nobody_waits_for_an_arm_longer_than_it_was_told(void **state)
{
    (void)state;
    const struct probe_node node[] = {{.id = "a", .max_attempts = 9}};
    assert_int_equal(probe_submit(&probe, T, "d", node, 1), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    fail_on("x@p", "1-n", ERROR_WAIT, 1);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    bool never = false;
    loop_run_until(&probe.loop, &never, 10); /* both clocks go on */
    fail_on("y@p", "2-n", ERROR_WAIT, 900000);
    assert_avoids("y@p=900000");
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    loop_run_until(&probe.loop, &never, 10);
    fail_on("x@p", "3-n", ERROR_WAIT, 900000);
    assert_avoids("y@p=899990 x@p=900000");
}

static void both_of_two_attempts_may_wait_for_their_arms(void **state)
{
    (void)state;
    submit_one();
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "a", "h", 60000), QUEUE_OK);
    probe.arm = "x@p";
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_WAIT, 100000), QUEUE_RETRY);
    fail_on("y@p", "2-h", ERROR_WAIT, 200000);
    assert_avoids("x@p=100000 y@p=200000");
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "a", "h", 60000), QUEUE_OK);
    probe.arm = "x@p";
    assert_int_equal(probe_fail(&probe, T, "a", "3-n", ERROR_WAIT, 300000), QUEUE_RETRY);
    assert_int_equal(probe_hedge(&probe, T, "a", "i", 60000), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "4-h", ERROR_WAIT, 400000), QUEUE_RETRY);
    fail_on("x@p", "5-i", ERROR_MOVE, 0);
    assert_avoids("y@p=200000 x@p");
}

static const char *avoided;

static void bury_avoiding(struct queue *queue, const char *task, const char *sub, queue_fn *fn,
                          void *ctx)
{
    queue_bury(queue, task, sub, avoided, "", fn, ctx);
}

static enum queue_status bury(const char *sub, const char *avoid)
{
    avoided = avoid;
    return probe_sub(&probe, bury_avoiding, T, sub);
}

static void a_ready_subtask_that_nobody_is_left_for_is_dead(void **state)
{
    (void)state;
    submit_dag();
    probe_follow(&probe);
    assert_int_equal(bury("x", ""), QUEUE_GONE);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(bury("a", "model@place"), QUEUE_STALE);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_MOVE, 0), QUEUE_RETRY);
    assert_int_equal(bury("a", ""), QUEUE_STALE);
    assert_int_equal(bury("a", "model@place"), QUEUE_OK);
    assert_int_equal(bury("a", "model@place"), QUEUE_DUP);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_TAKEN);
    assert_string_equal(probe_read(&probe, T),
                        "FAILED 4/4 a=DEAD b=CANCELLED c=CANCELLED d=CANCELLED");
    probe_wait_text(&probe, &probe.events, "DEAD " T "/a");
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    assert_int_equal(bury("a", "model@place"), QUEUE_STALE);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_death_cancels_what_does_not_run(void **state)
{
    (void)state;
    submit_dag();
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_DEAD, 0), QUEUE_DEAD);
    assert_string_equal(probe_read(&probe, T),
                        "FAILED 4/4 a=DEAD b=RUNNING c=CANCELLED d=CANCELLED");
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_renew(&probe, T, "b", "1-n", 1000), QUEUE_OK);
    assert_int_equal(probe_commit(&probe, T, "b", "1-n"), QUEUE_OK);
    assert_string_equal(probe_read(&probe, T), "FAILED 3/4 a=DEAD b=DONE c=CANCELLED d=CANCELLED");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_failure_in_a_failed_task_has_no_further_attempt(void **state)
{
    (void)state;
    submit_dag();
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_DEAD, 0), QUEUE_DEAD);
    assert_int_equal(probe_fail(&probe, T, "b", "1-n", ERROR_RETRY, 0), QUEUE_CANCELLED);
    assert_string_equal(probe_read(&probe, T),
                        "FAILED 4/4 a=DEAD b=CANCELLED c=CANCELLED d=CANCELLED");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_lease_that_ran_out_is_taken_back(void **state)
{
    (void)state;
    submit_one();
    assert_int_equal(probe_claim_for(&probe, T, "a", "n", 60000), QUEUE_OK);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_STALE);
    assert_int_equal(probe_renew(&probe, T, "a", "1-n", 0), QUEUE_OK);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_RETRY);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_STALE);
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 a=READY");
    assert_int_equal(probe_commit(&probe, T, "a", "1-n"), QUEUE_STALE);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_renewed_lease_is_not_taken_back(void **state)
{
    (void)state;
    submit_one();
    assert_int_equal(probe_claim_for(&probe, T, "a", "n", 0), QUEUE_OK);
    assert_int_equal(probe_renew(&probe, T, "a", "1-n", 60000), QUEUE_OK);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_STALE);
    assert_int_equal(probe_commit(&probe, T, "a", "1-n"), QUEUE_OK);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_STALE);
}

/* --- hold and release --------------------------------------------------------------------- */

static void held_subtasks_wait_for_release(void **state)
{
    (void)state;
    submit_dag();
    assert_int_equal(probe_sub(&probe, queue_hold, T, "a"), QUEUE_OK);
    assert_int_equal(probe_sub(&probe, queue_hold, T, "a"), QUEUE_DUP);
    assert_int_equal(probe_sub(&probe, queue_hold, T, "c"), QUEUE_STALE);
    assert_string_equal(probe_read(&probe, T), "RUNNING 4/4 a=HELD b=READY c=BLOCKED d=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_sub(&probe, queue_release, T, "a"), QUEUE_OK);
    assert_int_equal(probe_sub(&probe, queue_release, T, "a"), QUEUE_DUP);
    assert_int_equal(probe_sub(&probe, queue_release, T, "c"), QUEUE_STALE);
    probe_run(&probe, T, "a");
    assert_int_equal(probe_fsck(&probe), 0);
}

/* --- cancel, retry, forget ---------------------------------------------------------------- */

static void cancel_ends_subtasks_in_every_state(void **state)
{
    (void)state;
    const struct probe_node nodes[] = {{.id = "ready"},   {.id = "running"},
                                       {.id = "delayed"}, {.id = "held"},
                                       {.id = "done"},    {.id = "blocked", .deps = "running"}};
    assert_int_equal(probe_submit(&probe, T, "d", nodes, 6), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "running", "n"), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "delayed", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "delayed", "1-n", ERROR_RETRY, 60000), QUEUE_RETRY);
    assert_int_equal(probe_sub(&probe, queue_hold, T, "held"), QUEUE_OK);
    probe_run(&probe, T, "done");
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_DUP);
    assert_string_equal(probe_read(&probe, T),
                        "CANCELLED 5/6 ready=CANCELLED running=CANCELLED delayed=CANCELLED "
                        "held=CANCELLED done=DONE blocked=CANCELLED");
    assert_int_equal(probe_renew(&probe, T, "running", "1-n", 1000), QUEUE_CANCEL);
    assert_int_equal(probe_commit(&probe, T, "running", "1-n"), QUEUE_CANCELLED);
    assert_int_equal(probe_fail(&probe, T, "running", "1-n", ERROR_RETRY, 0), QUEUE_CANCELLED);
    assert_int_equal(probe_claim(&probe, T, "ready", "n"), QUEUE_CANCEL);
    assert_int_equal(probe_sub(&probe, queue_promote, T, "delayed"), QUEUE_STALE);
    assert_int_equal(probe_sub(&probe, queue_release, T, "held"), QUEUE_STALE);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "running"), QUEUE_STALE);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_finished_task_cannot_be_cancelled(void **state)
{
    (void)state;
    submit_one();
    probe_run(&probe, T, "a");
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_STALE);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_STALE);
    assert_string_equal(probe_read(&probe, T), "DONE 0/1 a=DONE");
}

static void retry_after_a_failure_keeps_what_is_done(void **state)
{
    (void)state;
    submit_dag();
    probe_run(&probe, T, "a");
    for (int i = 1; i <= 3; i++) {
        char token[16];
        snprintf(token, sizeof token, "%d-n", i);
        assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
        assert_int_equal(probe_fail(&probe, T, "b", token, ERROR_RETRY, 0),
                         i < 3 ? QUEUE_RETRY : QUEUE_DEAD);
    }
    assert_string_equal(probe_read(&probe, T), "FAILED 3/4 a=DONE b=DEAD c=CANCELLED d=CANCELLED");
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_STALE);
    assert_string_equal(probe_read(&probe, T), "RUNNING 3/4 a=DONE b=READY c=BLOCKED d=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
    assert_string_equal(probe.token, "4-n");
    assert_int_equal(probe_commit(&probe, T, "b", "3-n"), QUEUE_STALE);
    assert_int_equal(probe_fail(&probe, T, "b", "4-n", ERROR_RETRY, 0), QUEUE_RETRY);
    probe_run(&probe, T, "b");
    probe_run(&probe, T, "c");
    probe_run(&probe, T, "d");
    assert_string_equal(probe_read(&probe, T), "DONE 0/4 a=DONE b=DONE c=DONE d=DONE");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void retry_after_a_cancel_runs_the_rest(void **state)
{
    (void)state;
    submit_dag();
    probe_run(&probe, T, "b");
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    assert_int_equal(probe_commit(&probe, T, "a", "1-n"), QUEUE_STALE);
    assert_string_equal(probe_read(&probe, T), "RUNNING 3/4 a=READY b=DONE c=BLOCKED d=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
    probe_run(&probe, T, "a");
    probe_run(&probe, T, "c");
    probe_run(&probe, T, "d");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void retry_waits_for_what_still_runs(void **state)
{
    (void)state;
    submit_dag();
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "b", "1-n", ERROR_DEAD, 0), QUEUE_DEAD);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    assert_string_equal(probe_read(&probe, T), "RUNNING 4/4 a=RUNNING b=READY c=BLOCKED d=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
    probe_run(&probe, T, "b");
    assert_int_equal(probe_commit(&probe, T, "a", "1-n"), QUEUE_OK);
    assert_string_equal(probe_read(&probe, T), "RUNNING 2/4 a=DONE b=DONE c=READY d=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void retry_counts_what_was_committed_after_the_failure(void **state)
{
    (void)state;
    submit_dag();
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "b", "1-n", ERROR_DEAD, 0), QUEUE_DEAD);
    assert_int_equal(probe_commit(&probe, T, "a", "1-n"), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    assert_string_equal(probe_read(&probe, T), "RUNNING 3/4 a=DONE b=READY c=BLOCKED d=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
    probe_run(&probe, T, "b");
    assert_string_equal(probe_read(&probe, T), "RUNNING 2/4 a=DONE b=DONE c=READY d=BLOCKED");
}

static void forget_removes_every_key(void **state)
{
    (void)state;
    submit_dag();
    assert_int_equal(probe_submit(&probe, U, "d", one, 1), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_forget, T), QUEUE_STALE);
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_DEAD, 0), QUEUE_DEAD);
    assert_int_equal(probe_task(&probe, queue_forget, T), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_forget, T), QUEUE_GONE);
    assert_int_equal(probe_commit(&probe, T, "b", "1-n"), QUEUE_GONE);
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_task(&probe, queue_cancel, U), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_forget, U), QUEUE_OK);
    const char *outboxes = probe_redis(
        &probe, "EVAL return(#redis.call('keys','orch:*')-#redis.call('keys','orch:*:ev')) 0");
    assert_string_equal(outboxes, "0");
}

/* --- expand ------------------------------------------------------------------------------- */

static const struct probe_node planner[] = {{.id = "plan", .expands = true}};
static const struct probe_node children[] = {
    {.id = "x", .deps = "plan"}, {.id = "y"}, {.id = "z", .deps = "x y"}};

static void a_plan_is_expanded_once(void **state)
{
    (void)state;
    assert_int_equal(probe_submit(&probe, T, "d", planner, 1), QUEUE_OK);
    assert_int_equal(probe_expand(&probe, T, "plan", children, 3), QUEUE_STALE);
    probe_run(&probe, T, "plan");
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 plan=DONE");
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_expand(&probe, T, "plan", children, 3), QUEUE_OK);
    assert_int_equal(probe_expand(&probe, T, "plan", children, 3), QUEUE_DUP);
    assert_string_equal(probe_read(&probe, T), "RUNNING 3/4 plan=DONE x=READY y=READY z=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
    probe_run(&probe, T, "x");
    probe_run(&probe, T, "y");
    probe_run(&probe, T, "z");
    assert_string_equal(probe_read(&probe, T), "DONE 0/4 plan=DONE x=DONE y=DONE z=DONE");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void an_empty_plan_finishes_the_task(void **state)
{
    (void)state;
    assert_int_equal(probe_submit(&probe, T, "d", planner, 1), QUEUE_OK);
    probe_run(&probe, T, "plan");
    assert_int_equal(probe_expand(&probe, T, "plan", NULL, 0), QUEUE_OK);
    assert_string_equal(probe_read(&probe, T), "DONE 0/1 plan=DONE");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_plan_may_contain_a_plan(void **state)
{
    (void)state;
    const struct probe_node repair[] = {{.id = "plan2", .deps = "plan", .expands = true}};
    assert_int_equal(probe_submit(&probe, T, "d", planner, 1), QUEUE_OK);
    probe_run(&probe, T, "plan");
    assert_int_equal(probe_expand(&probe, T, "plan", repair, 1), QUEUE_OK);
    probe_run(&probe, T, "plan2");
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/2 plan=DONE plan2=DONE");
    assert_int_equal(probe_expand(&probe, T, "plan2", one, 1), QUEUE_OK);
    probe_run(&probe, T, "a");
    assert_string_equal(probe_read(&probe, T), "DONE 0/3 plan=DONE plan2=DONE a=DONE");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void children_that_do_not_fit_change_nothing(void **state)
{
    (void)state;
    assert_int_equal(probe_submit(&probe, T, "d", planner, 1), QUEUE_OK);
    probe_run(&probe, T, "plan");
    const struct probe_node twice[] = {{.id = "x"}, {.id = "x"}}, taken[] = {{.id = "plan"}},
                            lost[] = {{.id = "x", .deps = "nowhere"}};
    assert_int_equal(probe_expand(&probe, T, "plan", twice, 2), QUEUE_CONFLICT);
    assert_int_equal(probe_expand(&probe, T, "plan", taken, 1), QUEUE_CONFLICT);
    assert_int_equal(probe_expand(&probe, T, "plan", lost, 1), QUEUE_ERROR);
    assert_non_null(strstr(probe.err, "nowhere"));
    assert_string_equal(probe_read(&probe, T), "RUNNING 1/1 plan=DONE");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_plan_of_a_cancelled_task_is_told_again_by_retry(void **state)
{
    (void)state;
    assert_int_equal(probe_submit(&probe, T, "d", planner, 1), QUEUE_OK);
    probe_run(&probe, T, "plan");
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_int_equal(probe_expand(&probe, T, "plan", children, 3), QUEUE_STALE);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    probe_follow(&probe);
    probe_wait_text(&probe, &probe.events, "TASK " T " RUNNING\nDONE " T "/plan expands\n");
    assert_int_equal(probe_expand(&probe, T, "plan", children, 3), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(submit_makes_the_roots_ready),
        TEST(submit_again_with_the_same_digest_changes_nothing),
        TEST(submit_with_another_digest_is_a_conflict),
        TEST(an_unknown_task_is_gone),
        TEST(a_claim_gives_token_and_work),
        TEST(a_repeated_claim_gets_the_same_answer),
        TEST(blocked_done_and_held_subtasks_cannot_be_claimed),
        TEST(of_many_clients_that_claim_one_wins),
        TEST(a_join_is_ready_after_its_last_dependency_and_gets_results_in_order),
        TEST(a_second_commit_with_the_same_token_is_a_dup),
        TEST(a_stale_token_changes_nothing),
        TEST(nothing_is_owned_before_the_first_claim),
        TEST(a_failure_with_backoff_waits_for_its_time),
        TEST(a_delayed_subtask_is_promoted_once_due),
        TEST(a_move_is_ready_at_once_and_avoids_the_arm),
        TEST(attempts_run_out),
        TEST(a_ready_subtask_that_nobody_is_left_for_is_dead),
        TEST(waiting_does_not_use_attempts_up),
        TEST(who_waits_for_an_arm_is_ready_for_others_at_once),
        TEST(nobody_waits_for_an_arm_longer_than_it_was_told),
        TEST(both_of_two_attempts_may_wait_for_their_arms),
        TEST(waiting_for_a_budget_never_ends_a_subtask),
        TEST(waiting_ends_and_begins_anew_when_a_person_retries),
        TEST(a_death_cancels_what_does_not_run),
        TEST(a_failure_in_a_failed_task_has_no_further_attempt),
        TEST(a_lease_that_ran_out_is_taken_back),
        TEST(a_renewed_lease_is_not_taken_back),
        TEST(held_subtasks_wait_for_release),
        TEST(cancel_ends_subtasks_in_every_state),
        TEST(a_finished_task_cannot_be_cancelled),
        TEST(retry_after_a_failure_keeps_what_is_done),
        TEST(retry_after_a_cancel_runs_the_rest),
        TEST(retry_waits_for_what_still_runs),
        TEST(retry_counts_what_was_committed_after_the_failure),
        TEST(forget_removes_every_key),
        TEST(a_plan_is_expanded_once),
        TEST(an_empty_plan_finishes_the_task),
        TEST(a_plan_may_contain_a_plan),
        TEST(children_that_do_not_fit_change_nothing),
        TEST(a_plan_of_a_cancelled_task_is_told_again_by_retry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
