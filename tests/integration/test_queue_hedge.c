/* Two attempts of one subtask side by side: whatever happens to them, in whatever order, exactly
 * one commits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/probe.h"

#define T "t0000000000000001"

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

/* A task of a and b, which depends on it; a runs twice, as 1-a and 2-h. */
static void run_twice(int64_t lease_ms)
{
    const struct probe_node nodes[] = {{.id = "a"}, {.id = "b", .deps = "a"}};
    assert_int_equal(probe_submit(&probe, T, "d", nodes, 2), QUEUE_OK);
    assert_int_equal(probe_claim_for(&probe, T, "a", "a", lease_ms), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "a", "h", lease_ms), QUEUE_OK);
    assert_string_equal(probe.token, "2-h");
    assert_int_equal(probe.attempt, 2);
    assert_true(probe.work.len > 0);
    assert_int_equal(probe_fsck(&probe), 0);
}

static enum queue_status fail_with(const char *token, enum error_action action, int64_t backoff_ms)
{
    return probe_fail(&probe, T, "a", token, action, backoff_ms);
}

/* --- claiming ----------------------------------------------------------------------------- */

static void a_hedge_needs_an_attempt_that_runs_and_no_other(void **state)
{
    (void)state;
    const struct probe_node nodes[] = {{.id = "a"}, {.id = "b", .deps = "a"}};
    assert_int_equal(probe_hedge(&probe, T, "a", "h", 1000), QUEUE_GONE);
    assert_int_equal(probe_submit(&probe, T, "d", nodes, 2), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "a", "h", 1000), QUEUE_TAKEN);
    assert_int_equal(probe_hedge(&probe, T, "b", "h", 1000), QUEUE_TAKEN);
    assert_int_equal(probe_hedge(&probe, T, "x", "h", 1000), QUEUE_GONE);
    assert_int_equal(probe_claim(&probe, T, "a", "a"), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "a", "h", 1000), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "a", "i", 1000), QUEUE_TAKEN);
    assert_int_equal(probe_claim(&probe, T, "a", "h"), QUEUE_TAKEN);
    assert_int_equal(probe_commit(&probe, T, "a", "2-h"), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "a", "i", 1000), QUEUE_TAKEN);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "b", "i", 1000), QUEUE_CANCEL);
}

static void a_failed_task_is_not_hedged(void **state)
{
    (void)state;
    const struct probe_node nodes[] = {{.id = "a"}, {.id = "b"}};
    assert_int_equal(probe_submit(&probe, T, "d", nodes, 2), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "b", "1-n", ERROR_DEAD, 0), QUEUE_DEAD);
    assert_int_equal(probe_hedge(&probe, T, "a", "h", 1000), QUEUE_TAKEN);
}

static void both_claims_may_be_repeated(void **state)
{
    (void)state;
    run_twice(60000);
    assert_int_equal(probe_hedge(&probe, T, "a", "h", 60000), QUEUE_OK);
    assert_string_equal(probe.token, "2-h");
    assert_int_equal(probe_claim(&probe, T, "a", "a"), QUEUE_OK);
    assert_string_equal(probe.token, "1-a");
    assert_int_equal(probe.attempt, 1);
    assert_int_equal(fail_with("1-a", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_int_equal(probe_hedge(&probe, T, "a", "h", 60000), QUEUE_OK);
    assert_string_equal(probe.token, "2-h");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_third_attempt_may_run_beside_the_one_that_is_left(void **state)
{
    (void)state;
    run_twice(60000);
    assert_int_equal(fail_with("2-h", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_int_equal(probe_hedge(&probe, T, "a", "i", 60000), QUEUE_OK);
    assert_string_equal(probe.token, "3-i");
    assert_int_equal(probe_claim(&probe, T, "a", "a"), QUEUE_OK);
    assert_string_equal(probe.token, "1-a");
    assert_int_equal(probe_commit(&probe, T, "a", "1-a"), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
}

/* --- ending ------------------------------------------------------------------------------- */

static int64_t told_attempt; /* of the last DONE, FAIL or LOST */
static enum queue_event_kind told_kind;
static bool told;

static void tell(void *ctx, const struct queue_event *event)
{
    (void)ctx;
    bool wanted = event->kind == QUEUE_EVENT_DONE || event->kind == QUEUE_EVENT_FAIL ||
                  event->kind == QUEUE_EVENT_LOST;
    if (!wanted)
        return;
    assert_true(event->timing.len > 0);
    told_kind = event->kind;
    told_attempt = event->attempt;
    told = true;
}

static void assert_told(enum queue_event_kind kind, int64_t attempt)
{
    probe_wait_for(&probe, &told);
    told = false;
    assert_int_equal(told_kind, kind);
    assert_int_equal(told_attempt, attempt);
}

static void whoever_commits_first_wins(void **state)
{
    (void)state;
    static const char *const tokens[] = {"1-a", "2-h"};
    struct err err;
    assert_int_equal(queue_follow(probe.queue, tell, NULL, &err), 0);
    for (int winner = 0; winner < 2; winner++) {
        const char *first = tokens[winner], *second = tokens[1 - winner];
        probe_redis(&probe, "FLUSHALL");
        run_twice(60000);
        assert_int_equal(probe_commit(&probe, T, "a", first), QUEUE_OK);
        assert_int_equal(probe_commit(&probe, T, "a", second), QUEUE_STALE);
        assert_int_equal(probe_commit(&probe, T, "a", first), QUEUE_DUP);
        assert_int_equal(probe_renew(&probe, T, "a", second, 1000), QUEUE_STALE);
        assert_int_equal(fail_with(second, ERROR_RETRY, 0), QUEUE_STALE);
        assert_string_equal(probe_read(&probe, T), "RUNNING 1/2 a=DONE b=READY");
        assert_told(QUEUE_EVENT_DONE, winner + 1);
        assert_int_equal(probe_lose(&probe, T, "a", second), QUEUE_OK);
        assert_told(QUEUE_EVENT_LOST, 2 - winner);
        assert_int_equal(probe_lose(&probe, T, "a", second), QUEUE_DUP);
        assert_int_equal(probe_lose(&probe, T, "a", first), QUEUE_DUP);
        assert_int_equal(probe_lose(&probe, T, "a", "3-x"), QUEUE_GONE);
        assert_int_equal(probe_lose(&probe, T, "a", "x"), QUEUE_GONE);
        assert_int_equal(probe_fsck(&probe), 0);
        queue_follow(probe.queue, tell, NULL, &err);
    }
}

static void when_one_fails_the_other_goes_on(void **state)
{
    (void)state;
    static const char *const tokens[] = {"1-a", "2-h"};
    static const enum error_action actions[] = {ERROR_RETRY, ERROR_WAIT, ERROR_MOVE, ERROR_DEAD};
    struct err err;
    for (int i = 0; i < 8; i++) {
        const char *first = tokens[i % 2], *second = tokens[1 - i % 2];
        probe_redis(&probe, "FLUSHALL");
        run_twice(60000);
        assert_int_equal(queue_follow(probe.queue, tell, NULL, &err), 0);
        assert_int_equal(fail_with(first, actions[i / 2], 5000), QUEUE_RETRY);
        assert_told(QUEUE_EVENT_FAIL, i % 2 + 1);
        assert_string_equal(probe_read(&probe, T), "RUNNING 2/2 a=RUNNING b=BLOCKED");
        assert_int_equal(fail_with(first, actions[i / 2], 5000), QUEUE_RETRY);
        assert_int_equal(probe_renew(&probe, T, "a", first, 1000), QUEUE_STALE);
        assert_int_equal(probe_commit(&probe, T, "a", first), QUEUE_STALE);
        assert_int_equal(probe_lose(&probe, T, "a", first), QUEUE_DUP);
        assert_int_equal(probe_lose(&probe, T, "a", second), QUEUE_STALE);
        assert_int_equal(probe_renew(&probe, T, "a", second, 60000), QUEUE_OK);
        assert_int_equal(probe_fsck(&probe), 0);
        assert_int_equal(probe_commit(&probe, T, "a", second), QUEUE_OK);
        assert_told(QUEUE_EVENT_DONE, 2 - i % 2);
        assert_int_equal(probe_fsck(&probe), 0);
    }
}

static void when_both_fail_the_subtask_is_tried_again(void **state)
{
    (void)state;
    run_twice(60000);
    probe_follow(&probe);
    assert_int_equal(fail_with("2-h", ERROR_MOVE, 0), QUEUE_RETRY);
    assert_int_equal(fail_with("1-a", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_int_equal(fail_with("1-a", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_int_equal(fail_with("2-h", ERROR_MOVE, 0), QUEUE_RETRY);
    probe_wait_text(&probe, &probe.events, "READY " T "/a avoid model@place");
    assert_string_equal(probe_read(&probe, T), "RUNNING 2/2 a=READY b=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_claim(&probe, T, "a", "b"), QUEUE_OK);
    assert_string_equal(probe.token, "3-b");
    assert_int_equal(probe_commit(&probe, T, "a", "3-b"), QUEUE_OK);
}

static void a_hedge_uses_up_no_attempt(void **state)
{
    (void)state;
    const struct probe_node node[] = {{.id = "a", .max_attempts = 2}};
    assert_int_equal(probe_submit(&probe, T, "d", node, 1), QUEUE_OK);
    for (int i = 0; i < 2; i++) {
        char first[8], second[8];
        snprintf(first, sizeof first, "%d-a", 2 * i + 1);
        snprintf(second, sizeof second, "%d-h", 2 * i + 2);
        assert_int_equal(probe_claim(&probe, T, "a", "a"), QUEUE_OK);
        assert_int_equal(probe_hedge(&probe, T, "a", "h", 60000), QUEUE_OK);
        assert_int_equal(fail_with(first, ERROR_RETRY, 0), QUEUE_RETRY);
        assert_int_equal(fail_with(second, ERROR_RETRY, 0), i == 0 ? QUEUE_RETRY : QUEUE_DEAD);
    }
    assert_string_equal(probe_read(&probe, T), "FAILED 1/1 a=DEAD");
    assert_int_equal(probe_fsck(&probe), 0);
}

/* Each turn is three attempts, so that the hundredth runs alone, first or second. */
static void waiting_ends_with_hedges_too(void **state)
{
    (void)state;
    const struct probe_node node[] = {{.id = "a"}};
    assert_int_equal(probe_submit(&probe, T, "d", node, 1), QUEUE_OK);
    enum queue_status status = QUEUE_RETRY;
    int attempts = 0;
    while (status == QUEUE_RETRY && attempts <= QUEUE_WAITS_MAX) {
        char first[64], second[64];
        assert_int_equal(probe_claim(&probe, T, "a", "a"), QUEUE_OK);
        snprintf(first, sizeof first, "%.60s", probe.token);
        attempts = (int)probe.attempt;
        for (int i = 0; i < 2 && probe_hedge(&probe, T, "a", "h", 60000) == QUEUE_OK; i++) {
            snprintf(second, sizeof second, "%.60s", probe.token);
            attempts = (int)probe.attempt;
            assert_int_equal(fail_with(second, ERROR_WAIT, 0), QUEUE_RETRY);
        }
        status = fail_with(first, ERROR_WAIT, 0);
    }
    assert_int_equal(status, QUEUE_DEAD);
    assert_int_equal(attempts, QUEUE_WAITS_MAX);
    assert_int_equal(probe_fsck(&probe), 0);
}

/* --- leases ------------------------------------------------------------------------------- */

static void the_later_expiry_counts(void **state)
{
    (void)state;
    static const char *const tokens[] = {"1-a", "2-h"};
    for (int i = 0; i < 2; i++) {
        probe_redis(&probe, "FLUSHALL");
        run_twice(0);
        assert_int_equal(probe_renew(&probe, T, "a", tokens[i], 60000), QUEUE_OK);
        assert_int_equal(probe_renew(&probe, T, "a", tokens[1 - i], 0), QUEUE_OK);
        assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_STALE);
        assert_int_equal(probe_claim_for(&probe, T, "a", "a", 0), QUEUE_OK);
        assert_int_equal(probe_hedge(&probe, T, "a", "h", 0), QUEUE_OK);
        assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_STALE);
    }
}

static void a_hedge_does_not_shorten_the_lease(void **state)
{
    (void)state;
    const struct probe_node node[] = {{.id = "a"}};
    assert_int_equal(probe_submit(&probe, T, "d", node, 1), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "a", "a"), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "a", "h", 0), QUEUE_OK);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_STALE);
}

static void an_expired_lease_ends_both(void **state)
{
    (void)state;
    run_twice(0);
    probe_follow(&probe);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_RETRY);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "a"), QUEUE_STALE);
    probe_wait_text(&probe, &probe.events, "READY " T "/a\n");
    static const char fail[] = "FAIL " T "/a worker_lost";
    const char *one = strstr(probe.events.data, fail);
    assert_non_null(one);
    assert_non_null(strstr(one + 1, fail));
    assert_int_equal(probe_commit(&probe, T, "a", "1-a"), QUEUE_STALE);
    assert_int_equal(probe_commit(&probe, T, "a", "2-h"), QUEUE_STALE);
    assert_int_equal(probe_lose(&probe, T, "a", "2-h"), QUEUE_OK);
    assert_string_equal(probe_read(&probe, T), "RUNNING 2/2 a=READY b=BLOCKED");
    assert_int_equal(probe_fsck(&probe), 0);
}

static void a_cancel_stops_both(void **state)
{
    (void)state;
    run_twice(60000);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    static const char *const tokens[] = {"1-a", "2-h"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(probe_renew(&probe, T, "a", tokens[i], 1000), QUEUE_CANCEL);
        assert_int_equal(probe_commit(&probe, T, "a", tokens[i]), QUEUE_CANCELLED);
        assert_int_equal(fail_with(tokens[i], ERROR_RETRY, 0), QUEUE_CANCELLED);
        assert_int_equal(probe_lose(&probe, T, "a", tokens[i]), QUEUE_OK);
        assert_int_equal(probe_lose(&probe, T, "a", tokens[i]), QUEUE_DUP);
    }
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    assert_int_equal(probe_fsck(&probe), 0);
    assert_int_equal(probe_claim(&probe, T, "a", "b"), QUEUE_OK);
    assert_string_equal(probe.token, "3-b");
}

static void the_marks_of_a_run_are_nobodys_token(void **state)
{
    (void)state;
    run_twice(60000);
    static const char *const tokens[] = {"$",       "model@place",     "worker", "hedger",
                                         "1-a w m", "model@place 2-h", "-",      ""};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        assert_int_equal(probe_renew(&probe, T, "a", tokens[i], 1000), QUEUE_STALE);
        assert_int_equal(probe_commit(&probe, T, "a", tokens[i]), QUEUE_STALE);
        assert_int_equal(fail_with(tokens[i], ERROR_DEAD, 0), QUEUE_STALE);
    }
    assert_int_equal(probe_commit(&probe, T, "a", "1-a"), QUEUE_OK);
}

/* --- every order -------------------------------------------------------------------------- */

enum call {
    HEDGE,
    COMMIT_A,
    COMMIT_H,
    FAIL_A,
    FAIL_H,
    RENEW_A,
    RENEW_H,
    EXPIRE,
    CANCEL,
    LOSE_A,
    LOSE_H,
    CALLS
};
#define LENGTH 4

static char task[24], hedge[128]; /* token of the last hedge */
static int commits;

static enum queue_status call(int which)
{
    enum queue_status status;
    switch ((enum call)which) {
    case HEDGE:
        status = probe_hedge(&probe, task, "a", "h", 0);
        if (status == QUEUE_OK)
            snprintf(hedge, sizeof hedge, "%s", probe.token);
        return status;
    case COMMIT_A:
    case COMMIT_H:
        return probe_commit(&probe, task, "a", which == COMMIT_A ? "1-a" : hedge);
    case FAIL_A:
    case FAIL_H:
        return probe_fail(&probe, task, "a", which == FAIL_A ? "1-a" : hedge, ERROR_RETRY, 0);
    case RENEW_A:
    case RENEW_H:
        return probe_renew(&probe, task, "a", which == RENEW_A ? "1-a" : hedge, 60000);
    case EXPIRE:
        return probe_sub(&probe, queue_expire, task, "a");
    case CANCEL:
        return probe_task(&probe, queue_cancel, task);
    case LOSE_A:
    case LOSE_H:
        return probe_lose(&probe, task, "a", which == LOSE_A ? "1-a" : hedge);
    case CALLS:
        break;
    }
    return QUEUE_ERROR;
}

/* Reserves for both, when there are two. */
static void reserve_both(void)
{
    static const struct queue_spend worst = {1000, 10};
    probe_reserve(&probe, task, "a", "1-a", NULL, 0, worst);
    probe_reserve(&probe, task, "a", hedge, NULL, 0, worst);
}

static void run_order(const int *order, bool budgeted)
{
    const struct probe_node node[] = {{.id = "a", .max_attempts = 9}};
    static int64_t number;
    snprintf(task, sizeof task, "t%016lld", (long long)++number);
    probe.budget = budgeted ? (struct queue_spend){2000, 0} : (struct queue_spend){0, 0};
    assert_int_equal(probe_submit(&probe, task, "d", node, 1), QUEUE_OK);
    assert_int_equal(probe_claim_for(&probe, task, "a", "a", 0), QUEUE_OK);
    commits = 0;
    strcpy(hedge, "2-h");
    for (int i = 0; i < LENGTH; i++) {
        if (budgeted)
            reserve_both();
        commits += call(order[i]) == QUEUE_OK && (order[i] == COMMIT_A || order[i] == COMMIT_H);
    }
    const char *text = probe_read(&probe, task);
    bool done = strstr(text, "a=DONE") != NULL;
    if (commits != done)
        fail_msg("%s committed %d times; it is %s", task, commits, text);
    if (budgeted && probe.view_spent.nano_usd + probe.view_held.nano_usd > 2000)
        fail_msg("%s has spent more than its budget", task);
}

/* Brings the task to its end. */
static void finish_order(const int *order)
{
    call(LOSE_A);
    call(LOSE_H);
    const char *text = probe_read(&probe, task);
    if (strstr(text, "a=RUNNING") != NULL) {
        commits += call(COMMIT_A) == QUEUE_OK;
        commits += call(COMMIT_H) == QUEUE_OK;
        call(LOSE_A);
        call(LOSE_H);
    } else if (strstr(text, "a=READY") != NULL) {
        assert_int_equal(probe_claim(&probe, task, "a", "z"), QUEUE_OK);
        char token[64];
        snprintf(token, sizeof token, "%.60s", probe.token);
        commits += probe_commit(&probe, task, "a", token) == QUEUE_OK;
        commits += call(COMMIT_A) == QUEUE_OK;
        commits += call(COMMIT_H) == QUEUE_OK;
    }
    text = probe_read(&probe, task);
    bool cancelled = strstr(text, "a=CANCELLED") != NULL;
    if (commits != !cancelled || (!cancelled && strstr(text, "a=DONE") == NULL))
        fail_msg("%d %d %d %d: %d commits; it is %s", order[0], order[1], order[2], order[3],
                 commits, text);
    if (probe.view_held.nano_usd != 0)
        fail_msg("%s holds something for nobody", task);
}

/* The number's digits are the calls. */
static void in_every_order_exactly_one_commits(void **state)
{
    (void)state;
    int n = 1;
    for (int i = 0; i < LENGTH; i++)
        n *= CALLS;
    for (int number = 0; number < n; number++) {
        int order[LENGTH];
        for (int i = 0, rest = number; i < LENGTH; i++, rest /= CALLS)
            order[i] = rest % CALLS;
        if (order[0] != HEDGE && number % 8 != 0)
            continue; /* little happens without a hedge */
        run_order(order, number % 3 == 0);
        finish_order(order);
        if (number % 1331 == 0) {
            assert_int_equal(probe_fsck(&probe), 0);
            probe_redis(&probe, "FLUSHALL");
        }
    }
    assert_int_equal(probe_fsck(&probe), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_hedge_needs_an_attempt_that_runs_and_no_other),
        TEST(a_failed_task_is_not_hedged),
        TEST(both_claims_may_be_repeated),
        TEST(a_third_attempt_may_run_beside_the_one_that_is_left),
        TEST(whoever_commits_first_wins),
        TEST(when_one_fails_the_other_goes_on),
        TEST(when_both_fail_the_subtask_is_tried_again),
        TEST(a_hedge_uses_up_no_attempt),
        TEST(waiting_ends_with_hedges_too),
        TEST(the_later_expiry_counts),
        TEST(a_hedge_does_not_shorten_the_lease),
        TEST(an_expired_lease_ends_both),
        TEST(a_cancel_stops_both),
        TEST(the_marks_of_a_run_are_nobodys_token),
        TEST(in_every_order_exactly_one_commits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
