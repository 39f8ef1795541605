/* Budgets are promises: what may be spent is reserved before, and settled after, call by call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "tests/lib/probe.h"

#define T "t0000000000000001"
#define U "t0000000000000002"
#define CENT INT64_C(10000000) /* in nano USD */

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

/* A task of n subtasks s0, s1, ... */
static void submit(const char *task, int n, struct queue_spend budget)
{
    struct probe_node nodes[256];
    static char ids[256][16];
    for (int i = 0; i < n; i++) {
        snprintf(ids[i], sizeof ids[i], "s%d", i);
        nodes[i] = (struct probe_node){.id = ids[i], .max_attempts = 9};
    }
    probe.budget = budget;
    assert_int_equal(probe_submit(&probe, task, "d", nodes, (size_t)n), QUEUE_OK);
}

static void claim(const char *task, const char *sub)
{
    assert_int_equal(probe_claim(&probe, task, sub, "n"), QUEUE_OK);
}

static enum queue_status reserve(const char *sub, const char *token, int64_t cents, int64_t tokens)
{
    return probe_reserve(&probe, T, sub, token, NULL, 0,
                         (struct queue_spend){cents * CENT, tokens});
}

static enum queue_status __attribute__((unused))
reserve_of(const char *task, const char *sub, const char *account, int64_t limit_cents,
           int64_t cents)
{
    struct queue_account accounts[] = {{account, {limit_cents * CENT, 0}}};
    return probe_reserve(&probe, task, sub, "1-n", accounts, 1,
                         (struct queue_spend){cents * CENT, 0});
}

static void spends(int64_t cents, int64_t tokens)
{
    static struct queue_spend spent;
    spent = (struct queue_spend){cents * CENT, tokens};
    probe.spent = &spent;
}

static void assert_sums(int64_t spent_cents, int64_t held_cents)
{
    assert_true(probe.view_spent.nano_usd == spent_cents * CENT);
    assert_true(probe.view_held.nano_usd == held_cents * CENT);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void assert_task(int64_t spent_cents, int64_t held_cents)
{
    probe_read(&probe, T);
    assert_sums(spent_cents, held_cents);
}

static void __attribute__((unused))
assert_account(const char *name, int64_t spent_cents, int64_t held_cents)
{
    probe_account(&probe, name);
    assert_sums(spent_cents, held_cents);
}

static void a_call_is_reserved_and_settled(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){100 * CENT, 1000});
    claim(T, "s0");
    assert_true(probe.budgeted);
    assert_int_equal(reserve("s0", "1-n", 40, 500), QUEUE_OK);
    assert_task(0, 40);
    spends(25, 300);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_task(25, 0);
    assert_int_equal(probe.view_spent.tokens, 300);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_DUP);
    assert_task(25, 0);
}

static void a_task_without_a_budget_reserves_nothing(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){0, 0});
    claim(T, "s0");
    assert_false(probe.budgeted);
    assert_int_equal(reserve("s0", "1-n", 4000000, 500), QUEUE_OK);
    assert_task(0, 0);
    spends(25, 300);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_task(0, 0);
}

static void what_attempts_have_cost_is_added_up_without_a_budget_too(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){0, 0});
    claim(T, "s0");
    claim(T, "s1");
    spends(7, 10);
    assert_int_equal(probe_fail(&probe, T, "s0", "1-n", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_int_equal(probe_fail(&probe, T, "s0", "1-n", ERROR_RETRY, 0), QUEUE_RETRY);
    spends(25, 300);
    assert_int_equal(probe_commit(&probe, T, "s1", "1-n"), QUEUE_OK);
    assert_int_equal(probe_commit(&probe, T, "s1", "1-n"), QUEUE_DUP);
    assert_task(0, 0);
    assert_true(probe.view_cost == 32 * CENT);
    claim(T, "s0");
    spends(1, 0);
    assert_int_equal(probe_commit(&probe, T, "s0", "2-n"), QUEUE_OK);
    assert_task(0, 0);
    assert_true(probe.view_cost == 33 * CENT);
}

static void what_does_not_fit_now_waits_and_what_never_fits_is_told(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){100 * CENT, 0});
    claim(T, "s0");
    claim(T, "s1");
    assert_int_equal(reserve("s0", "1-n", 97, 0), QUEUE_OK);
    assert_int_equal(reserve("s1", "1-n", 12, 0), QUEUE_WAIT);
    assert_string_equal(probe.err, "the task's budget of $1.00 has $0.03 left beside the $0.97 of "
                                   "calls under way, and this call could cost up to $0.12");
    assert_task(0, 97);
    spends(97, 0);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_int_equal(reserve("s1", "1-n", 12, 0), QUEUE_BUDGET);
    assert_string_equal(
        probe.err,
        "the task's budget of $1.00 has $0.03 left, and this call could cost up to $0.12");
    assert_int_equal(reserve("s1", "1-n", 3, 0), QUEUE_OK);
    assert_task(97, 3);
}

static void tokens_have_a_limit_too(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){0, 10000});
    claim(T, "s0");
    claim(T, "s1");
    assert_int_equal(reserve("s0", "1-n", 0, 9700), QUEUE_OK);
    assert_int_equal(reserve("s1", "1-n", 500, 4000), QUEUE_WAIT);
    assert_string_equal(probe.err,
                        "the task's budget of 10000 tokens has 300 left beside the 9700 of calls "
                        "under way, and this call could take up to 4000");
    assert_int_equal(reserve("s1", "1-n", 500, 10001), QUEUE_BUDGET);
    assert_string_equal(probe.err, "the task's budget of 10000 tokens has 10000 left, and this "
                                   "call could take up to 10001");
    spends(0, 100);
    assert_int_equal(probe_fail(&probe, T, "s0", "1-n", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_int_equal(reserve("s1", "1-n", 500, 9900), QUEUE_OK);
    assert_task(0, 500);
}

static void a_token_reserves_once(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){100 * CENT, 0});
    claim(T, "s0");
    assert_int_equal(reserve("s0", "1-n", 60, 0), QUEUE_OK);
    assert_int_equal(reserve("s0", "1-n", 60, 0), QUEUE_OK);
    assert_task(0, 60);
    assert_int_equal(reserve("s0", "1-n", 100, 0), QUEUE_OK);
    assert_task(0, 100);
    assert_int_equal(reserve("s0", "1-n", 101, 0), QUEUE_BUDGET);
    assert_task(0, 100);
    assert_int_equal(reserve("s0", "1-n", 10, 0), QUEUE_OK);
    assert_task(0, 10);
}

static void only_who_owns_the_attempt_reserves(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){100 * CENT, 0});
    assert_int_equal(reserve("s9", "1-n", 1, 0), QUEUE_GONE);
    assert_int_equal(reserve("s0", "1-n", 1, 0), QUEUE_STALE);
    claim(T, "s0");
    claim(T, "s1");
    static const char *const tokens[] = {"1-x", "", "-", "worker", "1-n worker", "$"};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        assert_int_equal(reserve("s0", tokens[i], 1, 0), QUEUE_STALE);
    assert_int_equal(reserve("s0", "1-n", 1, 0), QUEUE_OK);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_int_equal(reserve("s0", "1-n", 1, 0), QUEUE_STALE);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_int_equal(reserve("s1", "1-n", 1, 0), QUEUE_CANCEL);
    assert_task(1, 0);
}

static void what_nobody_knows_counts_as_reserved(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){100 * CENT, 0});
    claim(T, "s0");
    claim(T, "s1");
    assert_int_equal(reserve("s0", "1-n", 30, 0), QUEUE_OK);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_task(30, 0);
    assert_int_equal(reserve("s1", "1-n", 20, 0), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "s1", "1-n", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_task(50, 0);
    assert_int_equal(probe_claim_for(&probe, T, "s1", "m", 0), QUEUE_OK);
    assert_int_equal(reserve("s1", "2-m", 25, 0), QUEUE_OK);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "s1"), QUEUE_RETRY);
    assert_task(75, 0);
    spends(1, 0); /* too late */
    assert_int_equal(probe_commit(&probe, T, "s1", "2-m"), QUEUE_STALE);
    assert_int_equal(probe_lose(&probe, T, "s1", "2-m"), QUEUE_OK);
    assert_task(75, 0);
}

/* --- accounts ----------------------------------------------------------------------------- */

static void a_day_is_shared_by_all_tasks(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){0, 0});
    submit(U, 1, (struct queue_spend){0, 0});
    claim(T, "s0");
    claim(U, "s0");
    assert_int_equal(reserve_of(T, "s0", "day", 100, 70), QUEUE_OK);
    assert_int_equal(reserve_of(U, "s0", "day", 100, 40), QUEUE_WAIT);
    assert_string_equal(probe.err, "today's budget of $1.00 has $0.30 left beside the $0.70 of "
                                   "calls under way, and this call could cost up to $0.40");
    assert_account("day", 0, 70);
    spends(65, 0);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_account("day", 65, 0);
    assert_int_equal(reserve_of(U, "s0", "day", 100, 40), QUEUE_BUDGET);
    assert_int_equal(reserve_of(U, "s0", "day", 200, 40), QUEUE_OK);
    assert_account("day", 65, 40);
}

static void a_role_has_budgets_of_the_task_and_of_the_day(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){0, 0});
    claim(T, "s0");
    claim(T, "s1");
    assert_int_equal(reserve_of(T, "s0", "task-role:coder", 100, 70), QUEUE_OK);
    assert_int_equal(reserve_of(T, "s1", "task-role:coder", 100, 40), QUEUE_WAIT);
    assert_non_null(strstr(probe.err, "the budget of role coder in this task of $1.00 has $0.30"));
    assert_int_equal(reserve_of(T, "s1", "task-role:planner", 100, 40), QUEUE_OK);
    assert_int_equal(reserve_of(T, "s0", "role:coder", 50, 40), QUEUE_OK);
    assert_int_equal(reserve_of(T, "s1", "role:coder", 50, 60), QUEUE_BUDGET);
    assert_non_null(strstr(probe.err, "today's budget of role coder of $0.50 has $0.50 left"));
    assert_account("role:coder", 0, 40);
    spends(10, 0);
    assert_int_equal(probe_fail(&probe, T, "s0", "1-n", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_account("role:coder", 10, 0);
}

static void all_budgets_have_room_or_none_is_touched(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){100 * CENT, 0});
    claim(T, "s0");
    const struct queue_account accounts[] = {{"task-role:coder", {90 * CENT, 0}},
                                             {"role:coder", {80 * CENT, 0}},
                                             {"day", {50 * CENT, 0}},
                                             {"role:free", {0, 0}}};
    struct queue_spend worst = {60 * CENT, 0};
    assert_int_equal(probe_reserve(&probe, T, "s0", "1-n", accounts, 4, worst), QUEUE_BUDGET);
    assert_task(0, 0);
    assert_account("role:coder", 0, 0);
    worst.nano_usd = 50 * CENT;
    assert_int_equal(probe_reserve(&probe, T, "s0", "1-n", accounts, 4, worst), QUEUE_OK);
    assert_task(0, 50);
    assert_account("role:coder", 0, 50);
    assert_account("day", 0, 50);
    assert_account("role:free", 0, 0);
    spends(50, 0);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_task(50, 0);
    assert_account("role:coder", 50, 0);
    assert_account("day", 50, 0);
}

/* As if it had been reserved on the day before. */
static void let_a_day_pass(void)
{
    probe_redis(&probe, "HINCRBY orch:{b}:account:day day -1");
}

static void a_new_day_starts_at_zero(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){100 * CENT, 0});
    claim(T, "s0");
    claim(T, "s1");
    assert_int_equal(reserve_of(T, "s0", "day", 50, 40), QUEUE_OK);
    let_a_day_pass();
    assert_account("day", 0, 0);
    spends(30, 0);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_account("day", 0, 0); /* it belongs to the day of its reservation */
    assert_task(30, 0);
    assert_int_equal(reserve_of(T, "s1", "day", 50, 50), QUEUE_OK);
    assert_account("day", 0, 50);
    let_a_day_pass();
    assert_int_equal(reserve_of(T, "s1", "day", 50, 50), QUEUE_OK);
    assert_account("day", 0, 50);
    assert_task(30, 50);
    assert_int_equal(probe_commit(&probe, T, "s1", "1-n"), QUEUE_OK);
    assert_account("day", 30, 0);
    assert_string_equal(probe_redis(&probe, "HLEN orch:{b}:account:day"), "2");
}

static void a_bill_of_yesterday_is_not_charged_today(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){0, 0});
    claim(T, "s0");
    claim(T, "s1");
    assert_int_equal(reserve_of(T, "s0", "day", 50, 40), QUEUE_OK);
    let_a_day_pass();
    assert_int_equal(reserve_of(T, "s1", "day", 50, 45), QUEUE_OK);
    spends(30, 0);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_account("day", 0, 45);
    assert_int_equal(probe_commit(&probe, T, "s1", "1-n"), QUEUE_OK);
    assert_account("day", 30, 0);
}

static void settled(void *ctx, enum queue_status status, const char *err)
{
    int *missing = ctx;
    if (status != QUEUE_OK)
        fail_msg("%s: %s", queue_status_name(status), err);
    probe.done = --*missing == 0;
}

/* A client that has reserved nothing itself learns the accounts from Redis. */
static void anyone_may_settle(void **state)
{
    (void)state;
    enum { N = 60 };
    static const struct queue_spend spent = {CENT, 0};
    submit(T, N, (struct queue_spend){0, 0});
    char sub[16], account[16];
    for (int i = 0; i < N; i++) {
        snprintf(sub, sizeof sub, "s%d", i);
        snprintf(account, sizeof account, "role:r%d", i % 3);
        claim(T, sub);
        if (i % 7 != 0)
            assert_int_equal(reserve_of(T, sub, i % 2 ? account : "day", 1000, 3), QUEUE_OK);
    }
    struct queue *other;
    struct err err;
    struct redis_options options = fixture_redis_options(&probe.fixture);
    assert_int_equal(queue_open(&other, &probe.loop, &options, NULL, NULL, &err), 0);
    struct buf outcome = {0}, timing = {0};
    probe_record(&outcome, MESSAGE_outcome, "o");
    probe_record(&timing, MESSAGE_timing, "t");
    int missing = N;
    for (int i = 0; i < N; i++) {
        snprintf(sub, sizeof sub, "s%d", i);
        queue_commit(other, T, sub, "1-n", (struct bytes){outcome.data, outcome.len},
                     (struct bytes){timing.data, timing.len}, i % 3 ? &spent : NULL, settled,
                     &missing);
    }
    probe_wait(&probe);
    queue_close(&other);
    buf_release(&outcome);
    buf_release(&timing);
    int64_t wanted[4] = {0}; /* r0, r1, r2, day */
    for (int i = 0; i < N; i++)
        if (i % 7 != 0)
            wanted[i % 2 ? i % 3 : 3] += i % 3 ? 1 : 3;
    for (int i = 0; i < 4; i++) {
        snprintf(account, sizeof account, "role:r%d", i);
        assert_account(i < 3 ? account : "day", wanted[i], 0);
    }
    assert_memory_equal(probe_read(&probe, T), "DONE 0/60", 9);
}

/* --- what ends without a bill ------------------------------------------------------------- */

/* s0 of T runs, and holds 40 cents of the task and of the day; its lease is over. */
static void hold_forty(void)
{
    submit(T, 2, (struct queue_spend){100 * CENT, 0});
    assert_int_equal(probe_claim_for(&probe, T, "s0", "n", 0), QUEUE_OK);
    assert_int_equal(reserve_of(T, "s0", "day", 100, 40), QUEUE_OK);
}

static void a_cancelled_call_is_settled_by_its_worker(void **state)
{
    (void)state;
    hold_forty();
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_task(0, 40);
    spends(15, 0);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_CANCELLED);
    assert_task(0, 40);
    assert_int_equal(probe_lose(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_int_equal(probe_lose(&probe, T, "s0", "1-n"), QUEUE_DUP);
    assert_task(15, 0);
    assert_account("day", 15, 0);
}

static void or_counts_as_reserved_when_its_lease_runs_out(void **state)
{
    (void)state;
    hold_forty();
    assert_int_equal(probe_renew(&probe, T, "s0", "1-n", 60000), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "s0"), QUEUE_STALE);
    assert_task(0, 40);
    char words[128];
    snprintf(words, sizeof words, "ZADD orch:{s%d}:lease 1 " T "/s0", task_shard(T));
    probe_redis(&probe, words);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "s0"), QUEUE_STALE);
    assert_task(40, 0);
    assert_account("day", 40, 0);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "s0"), QUEUE_STALE);
    spends(15, 0);
    assert_int_equal(probe_lose(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_task(40, 0);
    assert_account("day", 40, 0);
    assert_string_equal(probe_read(&probe, T), "CANCELLED 2/2 s0=CANCELLED s1=CANCELLED");
}

static void or_when_the_task_is_retried(void **state)
{
    (void)state;
    hold_forty();
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    assert_task(40, 0);
    assert_account("day", 40, 0);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "s0"), QUEUE_STALE);
    assert_string_equal(probe_read(&probe, T), "RUNNING 2/2 s0=READY s1=READY");
}

static void or_when_the_task_is_forgotten(void **state)
{
    (void)state;
    hold_forty();
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_forget, T), QUEUE_OK);
    assert_account("day", 40, 0);
    assert_string_equal(probe_read(&probe, T), "GONE");
}

static void the_loser_of_two_is_paid_too(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){100 * CENT, 0});
    claim(T, "s0");
    assert_int_equal(probe_hedge(&probe, T, "s0", "h", 60000), QUEUE_OK);
    assert_int_equal(reserve("s0", "1-n", 50, 0), QUEUE_OK);
    assert_int_equal(reserve("s0", "2-h", 51, 0), QUEUE_WAIT);
    assert_int_equal(reserve("s0", "2-h", 50, 0), QUEUE_OK);
    assert_task(0, 100);
    spends(20, 0);
    assert_int_equal(probe_commit(&probe, T, "s0", "2-h"), QUEUE_OK);
    assert_task(20, 50);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_STALE);
    assert_task(20, 50);
    spends(5, 0);
    assert_int_equal(probe_lose(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_task(25, 0);
}

static void one_of_two_that_fails_is_settled_alone(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){100 * CENT, 0});
    assert_int_equal(probe_claim_for(&probe, T, "s0", "n", 0), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "s0", "h", 0), QUEUE_OK);
    assert_int_equal(reserve("s0", "1-n", 50, 0), QUEUE_OK);
    assert_int_equal(reserve("s0", "2-h", 30, 0), QUEUE_OK);
    spends(20, 0);
    assert_int_equal(probe_fail(&probe, T, "s0", "2-h", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_int_equal(probe_fail(&probe, T, "s0", "2-h", ERROR_RETRY, 0), QUEUE_RETRY);
    assert_task(20, 50);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "s0"), QUEUE_RETRY);
    assert_task(70, 0);
}

static void both_of_two_count_when_their_lease_runs_out(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){100 * CENT, 0});
    assert_int_equal(probe_claim_for(&probe, T, "s0", "n", 0), QUEUE_OK);
    assert_int_equal(probe_hedge(&probe, T, "s0", "h", 0), QUEUE_OK);
    assert_int_equal(reserve("s0", "1-n", 50, 0), QUEUE_OK);
    assert_int_equal(reserve("s0", "2-h", 30, 0), QUEUE_OK);
    assert_int_equal(probe_sub(&probe, queue_expire, T, "s0"), QUEUE_RETRY);
    assert_task(80, 0);
}

/* --- the end of a budget ------------------------------------------------------------------ */

static void an_exhausted_budget_fails_the_task_and_keeps_what_is_done(void **state)
{
    (void)state;
    submit(T, 3, (struct queue_spend){10 * CENT, 0});
    for (int i = 0; i < 2; i++)
        claim(T, i == 0 ? "s0" : "s1");
    assert_int_equal(reserve("s0", "1-n", 10, 0), QUEUE_OK);
    spends(8, 0);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_int_equal(reserve("s1", "1-n", 5, 0), QUEUE_BUDGET);
    probe.spent = NULL;
    assert_int_equal(probe_fail(&probe, T, "s1", "1-n", ERROR_DEAD, 0), QUEUE_DEAD);
    assert_string_equal(probe_read(&probe, T), "FAILED 2/3 s0=DONE s1=DEAD s2=CANCELLED");
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    assert_task(8, 0); /* as before */
    assert_int_equal(probe_claim(&probe, T, "s1", "m"), QUEUE_OK);
    assert_int_equal(reserve("s1", "2-m", 3, 0), QUEUE_BUDGET);
    assert_int_equal(reserve("s1", "2-m", 2, 0), QUEUE_OK);
    assert_int_equal(reserve("s1", "2-m", 0, 0), QUEUE_OK);
    assert_task(8, 0);
}

static int64_t raised_cents;

static void retry_raised(struct queue *queue, const char *task, queue_fn *fn, void *ctx)
{
    queue_retry_within(queue, task, &(struct queue_spend){raised_cents * CENT, -1}, fn, ctx);
}

static enum queue_status retry_with(int64_t cents)
{
    raised_cents = cents;
    return probe_task(&probe, retry_raised, T);
}

static void a_task_is_retried_with_a_larger_budget(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){10 * CENT, 1000});
    claim(T, "s0");
    claim(T, "s1");
    assert_int_equal(reserve("s0", "1-n", 10, 100), QUEUE_OK);
    spends(8, 100);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    probe.spent = NULL;
    assert_int_equal(reserve("s1", "1-n", 5, 100), QUEUE_BUDGET);
    assert_int_equal(probe_fail(&probe, T, "s1", "1-n", ERROR_DEAD, 0), QUEUE_DEAD);
    assert_int_equal(retry_with(7), QUEUE_CONFLICT);
    assert_string_equal(probe_read(&probe, T), "FAILED 1/2 s0=DONE s1=DEAD");
    assert_int_equal(retry_with(13), QUEUE_OK);
    assert_task(8, 0);
    assert_int_equal(probe_claim(&probe, T, "s1", "m"), QUEUE_OK);
    assert_int_equal(reserve("s1", "2-m", 6, 100), QUEUE_BUDGET);
    assert_int_equal(reserve("s1", "2-m", 5, 901), QUEUE_BUDGET); /* tokens stay as they were */
    assert_int_equal(reserve("s1", "2-m", 5, 900), QUEUE_OK);
    assert_task(8, 5);
}

static void a_budget_that_comes_with_the_retry_counts_what_was_spent(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){0, 0});
    claim(T, "s0");
    claim(T, "s1");
    spends(8, 100);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    probe.spent = NULL;
    assert_int_equal(probe_fail(&probe, T, "s1", "1-n", ERROR_DEAD, 0), QUEUE_DEAD);
    assert_int_equal(retry_with(7), QUEUE_CONFLICT);
    assert_int_equal(retry_with(10), QUEUE_OK);
    assert_task(8, 0);
    assert_int_equal(probe_claim(&probe, T, "s1", "m"), QUEUE_OK);
    assert_int_equal(reserve("s1", "2-m", 3, 0), QUEUE_BUDGET);
    assert_int_equal(reserve("s1", "2-m", 2, 0), QUEUE_OK);
}

static void a_provider_that_charges_more_is_told_of(void **state)
{
    (void)state;
    submit(T, 2, (struct queue_spend){10 * CENT, 0});
    claim(T, "s0");
    claim(T, "s1");
    assert_int_equal(reserve_of(T, "s0", "day", 11, 10), QUEUE_OK);
    spends(12, 0);
    probe_follow_log(&probe, T, "0");
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    assert_task(12, 0);
    assert_account("day", 12, 0);
    probe_wait_text(&probe, &probe.log, "note s0\ndone s0\n");
    assert_int_equal(reserve("s1", "1-n", 1, 0), QUEUE_BUDGET);
    assert_string_equal(
        probe.err,
        "the task's budget of $0.10 has $0.00 left, and this call could cost up to $0.01");
}

static void sums_stay_exact(void **state)
{
    (void)state;
    const int64_t most = (INT64_C(1) << 53) - 1;
    submit(T, 2, (struct queue_spend){most, most});
    claim(T, "s0");
    claim(T, "s1");
    struct queue_spend spent = {most - 3, 1}, worst = {most - 2, 2};
    assert_int_equal(probe_reserve(&probe, T, "s0", "1-n", NULL, 0, worst), QUEUE_OK);
    assert_int_equal(probe_reserve(&probe, T, "s1", "1-n", NULL, 0, (struct queue_spend){3, 0}),
                     QUEUE_WAIT);
    assert_int_equal(probe_reserve(&probe, T, "s1", "1-n", NULL, 0, (struct queue_spend){2, 0}),
                     QUEUE_OK);
    probe.spent = &spent;
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    probe_read(&probe, T);
    assert_true(probe.view_spent.nano_usd == most - 3 && probe.view_held.nano_usd == 2);
    assert_int_equal(
        probe_reserve(&probe, T, "s1", "1-n", NULL, 0, (struct queue_spend){INT64_MAX, 0}),
        QUEUE_BUDGET);
    assert_int_equal(probe_reserve(&probe, T, "s1", "1-n", NULL, 0, (struct queue_spend){-5, 0}),
                     QUEUE_OK);
    probe_read(&probe, T);
    assert_true(probe.view_held.nano_usd == 0);
    assert_int_equal(probe_fsck(&probe), 0);
}

/* How often scripts have called the command since the statistics began. */
static int calls_of(const char *command)
{
    char name[48];
    snprintf(name, sizeof name, "cmdstat_%s:calls=", command);
    const char *at = strstr(probe_redis(&probe, "INFO commandstats"), name);
    return at != NULL ? atoi(at + strlen(name)) : 0;
}

/* The whole of what claim, renew and commit do: whoever adds a command here slows every attempt. */
static void attempts_without_a_budget_pay_nothing_for_it(void **state)
{
    (void)state;
    submit(T, 1, (struct queue_spend){0, 0});
    probe_redis(&probe, "CONFIG RESETSTAT");
    claim(T, "s0");
    assert_int_equal(probe_renew(&probe, T, "s0", "1-n", 1000), QUEUE_OK);
    assert_int_equal(probe_commit(&probe, T, "s0", "1-n"), QUEUE_OK);
    static const struct {
        const char *command;
        int calls;
    } all[] = {{"evalsha", 3}, {"time", 3},  {"hmget", 3}, {"hget", 0},    {"hgetall", 0},
               {"hexists", 0}, {"hset", 3},  {"hdel", 0},  {"zadd", 3},    {"zrem", 2},
               {"zscore", 0},  {"rpush", 2}, {"xadd", 1},  {"publish", 2}, {"del", 0}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (calls_of(all[i].command) != all[i].calls)
            fail_msg("%s was called %d times", all[i].command, calls_of(all[i].command));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_call_is_reserved_and_settled),
        TEST(what_attempts_have_cost_is_added_up_without_a_budget_too),
        TEST(a_task_without_a_budget_reserves_nothing),
        TEST(what_does_not_fit_now_waits_and_what_never_fits_is_told),
        TEST(tokens_have_a_limit_too),
        TEST(a_token_reserves_once),
        TEST(only_who_owns_the_attempt_reserves),
        TEST(what_nobody_knows_counts_as_reserved),
        TEST(a_day_is_shared_by_all_tasks),
        TEST(a_role_has_budgets_of_the_task_and_of_the_day),
        TEST(all_budgets_have_room_or_none_is_touched),
        TEST(a_new_day_starts_at_zero),
        TEST(a_bill_of_yesterday_is_not_charged_today),
        TEST(anyone_may_settle),
        TEST(a_cancelled_call_is_settled_by_its_worker),
        TEST(or_counts_as_reserved_when_its_lease_runs_out),
        TEST(or_when_the_task_is_retried),
        TEST(or_when_the_task_is_forgotten),
        TEST(the_loser_of_two_is_paid_too),
        TEST(one_of_two_that_fails_is_settled_alone),
        TEST(both_of_two_count_when_their_lease_runs_out),
        TEST(an_exhausted_budget_fails_the_task_and_keeps_what_is_done),
        TEST(a_task_is_retried_with_a_larger_budget),
        TEST(a_budget_that_comes_with_the_retry_counts_what_was_spent),
        TEST(a_provider_that_charges_more_is_told_of),
        TEST(sums_stay_exact),
        TEST(attempts_without_a_budget_pay_nothing_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
