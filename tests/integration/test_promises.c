/* Budgets are promises: whatever fails, is retried, hedged or killed, what the provider bills never
 * exceeds them. The real programs run; the simulator's own bill is the witness. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "tests/lib/stage.h"

#define NANO INT64_C(1000000000)
#define SUBTASKS 200
#define DAY_S 86400

/* An answer of cheap costs 20 to 23 thousandths of a USD, and at worst 61; dear costs three times
 * of it. */
#define PROVIDERS                                                                                  \
    "providers:\n"                                                                                 \
    "  a: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\", breaker: {failures: 0},\n"   \
    "      timeouts: {first_token_ms: 3000, gap_ms: 2000}}\n"                                      \
    "  b: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\", breaker: {failures: 0},\n"   \
    "      timeouts: {first_token_ms: 3000, gap_ms: 2000}, stream: false}\n"                       \
    "models:\n"                                                                                    \
    "  cheap: {provider: a, max_output: 60, price: {input: 100, output: 500}}\n"                   \
    "  dear: {provider: b, max_output: 60, price: {input: 300, output: 1500}}\n"                   \
    "workers:\n"                                                                                   \
    "  - {name: wa, provider: a, concurrency: 16}\n"                                               \
    "  - {name: wb, provider: b, concurrency: 16}\n"                                               \
    "queue: {lease_ms: 3000, renew_ms: 500, abandon_ms: 2000, max_attempts: 90}\n"

static const char config[] = PROVIDERS "roles:\n"
                                       "  general: {models: [cheap, dear]}\n"
                                       "  hasty: {models: [cheap, dear], hedge: auto}\n"
                                       "  spoilt: {models: [dear, cheap]}\n";

/* What begins with "good" goes well, and "slow" never comes to an end on cheap. Of the rest about a
 * third fails, in every way. */
static const char scenario[] =
    "seed: 11\n"
    "timing: {decode_tps: 200, prefill_tps: 0, jitter: 0.2}\n"
    "rules:\n"
    "  - {tokens: 40, match: {prompt: good}}\n"
    "  - {tokens: 40, match: {prompt: slow, model: cheap}, fault: {stall_after: 9}}\n"
    "  - {tokens: 40, match: {prompt: slow}}\n"
    "  - {tokens: 40, match: {probability: 0.05}, fault: {kind: rate_limit, retry_after: 0.1}}\n"
    "  - {tokens: 40, match: {probability: 0.05}, fault: server_error}\n"
    "  - {tokens: 40, match: {probability: 0.03}, fault: overloaded}\n"
    "  - {tokens: 40, match: {probability: 0.04}, fault: {truncate_after: 20}}\n"
    "  - {tokens: 40, match: {probability: 0.04}, fault: {stall_after: 9}}\n"
    "  - {tokens: 40, match: {probability: 0.03}, fault: {error_in_stream: 5}}\n"
    "  - {tokens: 40, match: {probability: 0.03}, fault: {malformed_json: 7}}\n"
    "  - {tokens: 40, match: {probability: 0.03}, fault: no_finish}\n"
    "  - {tokens: 40, match: {probability: 0.03}, fault: close_before_headers}\n"
    "  - {tokens: 40, match: {probability: 0.02}, fault: empty}\n"
    "  - {tokens: 40, match: {probability: 0.02}, fault: html}\n"
    "  - {tokens: 40, match: {probability: 0.03}, fault: {wrong_model: other}}\n"
    "  - {tokens: 40}\n";

static struct stage stage_, *const stage = &stage_;
static const char *const both[] = {"wa", "wb", NULL};
static const char *const mixed_roles[] = {"general", "hasty"};

static int teardown(void **state)
{
    (void)state;
    stage_close(stage);
    return 0;
}

/* --- what holds of every budget --------------------------------------------------------------- */

/* limit 0: none. */
static void assert_within(const char *what, struct queue_spend sum, struct queue_spend limit)
{
    if ((limit.nano_usd > 0 && sum.nano_usd > limit.nano_usd) ||
        (limit.tokens > 0 && sum.tokens > limit.tokens))
        fail_msg("%s: %lld nano USD and %lld tokens exceed %lld nano USD, %lld tokens", what,
                 (long long)sum.nano_usd, (long long)sum.tokens, (long long)limit.nano_usd,
                 (long long)limit.tokens);
}

/* What is known to have been spent covers the bill. */
static void assert_covers(const char *what, struct queue_spend spent, struct queue_spend bill)
{
    if (spent.nano_usd < bill.nano_usd || spent.tokens < bill.tokens)
        fail_msg("%s: the bill is %lld nano USD and %lld tokens, but only %lld and %lld are known",
                 what, (long long)bill.nano_usd, (long long)bill.tokens, (long long)spent.nano_usd,
                 (long long)spent.tokens);
}

static struct queue_spend plus(struct queue_spend a, struct queue_spend b)
{
    return (struct queue_spend){a.nano_usd + b.nano_usd, a.tokens + b.tokens};
}

/* At one moment while it runs: what was billed before is spent or held, within the limit. */
static void look_at(const char *id, const char *mark)
{
    json_t *calls = stage_calls(stage);
    struct stage_view view = stage_read(stage, id);
    struct queue_spend bill = stage_bill(stage, calls, mark), known = plus(view.spent, view.held);
    assert_covers(mark, known, bill);
    assert_within(mark, known, view.budget);
    json_decref(calls);
}

/* It has ended because of its budget, and kept what was done. */
static struct stage_view assert_used_up(const char *id, const char *mark)
{
    struct stage_view view = stage_wait(stage, id);
    json_t *calls = stage_calls(stage);
    struct queue_spend bill = stage_bill(stage, calls, mark);
    assert_int_equal(view.state, TASK_FAILED);
    assert_string_equal(view.error_class, "budget");
    assert_non_null(strstr(view.reason, "budget"));
    assert_true(view.n_done > 0);
    assert_covers(mark, view.spent, bill);
    assert_within(mark, bill, view.budget);
    assert_within(mark, view.spent, view.budget);
    print_message("%s: %d done; billed %.4f USD, %lld tokens; spent %.4f USD, %lld tokens; %s\n",
                  mark, view.n_done, (double)bill.nano_usd / 1e9, (long long)bill.tokens,
                  (double)view.spent.nano_usd / 1e9, (long long)view.spent.tokens, view.reason);
    json_decref(calls);
    return view;
}

struct arrivals {
    int64_t at_least;
};

static bool have_come(void *ctx)
{
    const struct arrivals *arrivals = ctx;
    json_t *stats = testbed_sim(&stage->testbed, "stats");
    int64_t requests = json_int(stats, "requests", 0);
    json_decref(stats);
    return requests >= arrivals->at_least;
}

static void wait_for_calls(int64_t at_least)
{
    struct arrivals arrivals = {at_least};
    assert_true(fixture_wait(have_come, &arrivals, STAGE_WAIT_MS));
}

/* --- tasks ------------------------------------------------------------------------------------ */

/* That is, in 1e-9 USD: doubles of cmocka are floats. */
static int64_t nano_of(const json_t *object, const char *key)
{
    return llround(json_num(object, key, -1) * 1e9);
}

static void a_task_that_fits_finishes_and_costs_what_is_billed(void **state)
{
    (void)state;
    char id[TASK_ID_SIZE];
    /* 60 answers cost 1.212, of which 16 at once may cost up to 0.9 by themselves. */
    struct stage_task task = {.mark = "good", .n = 60, .budget = {.nano_usd = 125 * NANO / 100}};
    stage_open(stage, config, scenario, (const char *[]){"wa", NULL});
    stage_submit(stage, &task, id);
    struct stage_view view = stage_wait(stage, id);
    if (view.state != TASK_DONE)
        fail_msg("%d done; %s: %s", view.n_done, view.error_class, view.reason);
    json_t *calls = stage_calls(stage), *shown = stage_show(stage, id);
    struct queue_spend bill = stage_bill(stage, calls, "good");
    assert_int_equal(json_array_size(calls), 60);
    assert_true(stage_count_log(stage, id, "retry", "this call could cost") > 0); /* it waited */
    assert_int_equal(view.spent.nano_usd, bill.nano_usd);
    assert_int_equal(view.spent.tokens, bill.tokens);
    assert_within("good", bill, view.budget);
    assert_int_equal(nano_of(shown, "cost_usd"), bill.nano_usd);
    json_decref(shown);
    json_decref(calls);
}

static void what_would_be_too_dear_is_done_by_a_cheaper_arm(void **state)
{
    (void)state;
    static const char *const spoilt[] = {"spoilt"};
    char id[TASK_ID_SIZE];
    struct stage_task task = {
        .mark = "good", .roles = spoilt, .n_roles = 1, .n = 1, .budget = {.nano_usd = NANO / 10}};
    stage_open(stage, config, scenario, both);
    stage_submit(stage, &task, id);
    struct stage_view view = stage_wait(stage, id);
    json_t *calls = stage_calls(stage);
    assert_int_equal(view.state, TASK_DONE);
    assert_int_equal(json_array_size(calls), 1);
    assert_int_equal(stage_count(calls, "cheap", -2), 1);
    assert_int_equal(stage_count_log(stage, id, "retry", "this call could cost"), 1);
    json_decref(calls);
}

/* A little less than what the cheapest call could cost: what a subtask ended for may have been a
 * dearer one, because the cheaper arm had failed for good. */
#define CHEAPEST (56 * NANO / 1000)

/* It ends in the same way, and where nothing is left for even the cheapest call none is made. */
static void assert_retry_is_refused(const char *id, const char *mark)
{
    struct stage_view first = stage_wait(stage, id);
    bool left = first.budget.nano_usd - first.spent.nano_usd >= CHEAPEST;
    json_t *before = stage_calls(stage);
    assert_int_equal(stage_cli(stage, (const char *[]){"retry", id, NULL}, NULL), 0);
    struct stage_view view = stage_wait(stage, id);
    json_t *after = stage_calls(stage);
    assert_int_equal(view.state, TASK_FAILED);
    assert_string_equal(view.error_class, "budget");
    if (!left)
        assert_int_equal(json_array_size(after), json_array_size(before));
    assert_within(mark, view.spent, view.budget);
    json_decref(before);
    json_decref(after);
}

static void assert_shown(const char *id, const struct stage_view *view)
{
    json_t *shown = stage_show(stage, id);
    const json_t *budget = json_get(shown, "budget");
    assert_string_equal(json_str(shown, "state", ""), "FAILED");
    assert_non_null(strstr(json_str(shown, "error", ""), "budget"));
    assert_int_equal(nano_of(json_get(budget, "spent"), "usd"), view->spent.nano_usd);
    assert_int_equal(nano_of(json_get(budget, "limit"), "usd"), view->budget.nano_usd);
    assert_int_equal(nano_of(json_get(budget, "held"), "usd"), 0);
    json_decref(shown);
}

/* Two tasks at once, one from the command line; the workers of one provider is killed and comes
 * back. */
static void whatever_fails_the_bill_stays_within_the_budget(void **state)
{
    (void)state;
    char ids[2][TASK_ID_SIZE];
    static const char *const marks[2] = {"first", "second"};
    struct stage_task task = {.mark = marks[0],
                              .roles = mixed_roles,
                              .n_roles = 2,
                              .n = SUBTASKS,
                              .budget = {.nano_usd = 8 * NANO}};
    stage_open(stage, config, scenario, both);
    stage_submit(stage, &task, ids[0]);
    task.mark = marks[1];
    stage_submit_plan(stage, &task, "--budget", "6.00", ids[1]);
    for (int64_t calls = 20; calls <= 100; calls += 20) {
        wait_for_calls(calls);
        look_at(ids[0], marks[0]);
        look_at(ids[1], marks[1]);
        if (calls == 40)
            fixture_kill(&stage->testbed.fixture, stage->testbed.workers[0], SIGKILL);
        if (calls == 60)
            testbed_start_worker(&stage->testbed, 0, "wa");
    }
    for (int i = 0; i < 2; i++) {
        struct stage_view view = assert_used_up(ids[i], marks[i]);
        assert_int_equal(view.budget.nano_usd, (8 - 2 * i) * NANO);
        assert_shown(ids[i], &view);
        assert_retry_is_refused(ids[i], marks[i]);
    }
}

/* Nothing but the kill goes wrong: what is known to have been spent is exact for all other calls.
 */
static void what_a_killed_worker_has_spent_is_counted(void **state)
{
    (void)state;
    char id[TASK_ID_SIZE];
    struct stage_task task = {.mark = "good", .n = 60, .budget = {.nano_usd = 20 * NANO}};
    stage_open(stage, config, scenario, (const char *[]){"wa", NULL});
    stage_submit(stage, &task, id);
    wait_for_calls(20);
    fixture_kill(&stage->testbed.fixture, stage->testbed.workers[0], SIGKILL);
    testbed_start_worker(&stage->testbed, 0, "wa");
    struct stage_view view = stage_wait(stage, id);
    json_t *calls = stage_calls(stage), *stats = testbed_sim(&stage->testbed, "stats");
    assert_int_equal(view.state, TASK_DONE);
    assert_true(json_int(stats, "cut", 0) > 0);
    assert_covers("good", view.spent, stage_bill(stage, calls, "good"));
    json_decref(stats);
    json_decref(calls);
}

/* Every answer of cheap stalls; what dear then does instead costs three times as much. */
static void hedges_are_paid_for_out_of_the_budget(void **state)
{
    (void)state;
    static const char *const hasty[] = {"hasty"};
    char id[TASK_ID_SIZE];
    struct stage_task good = {.mark = "good", .roles = hasty, .n_roles = 1, .n = 80};
    struct stage_task slow = {.mark = "slow",
                              .roles = hasty,
                              .n_roles = 1,
                              .n = 16, /* as many as cheap takes at once */
                              .budget = {.nano_usd = 2 * NANO}};
    stage_open(stage, config, scenario, both);
    stage_submit(stage, &good, id); /* shows how long cheap takes */
    assert_int_equal(stage_wait(stage, id).state, TASK_DONE);
    stage_submit(stage, &slow, id);
    assert_used_up(id, "slow");
    assert_true(stage_count_log(stage, id, "note", "hedged") > 0);
    assert_true(stage_count_log(stage, id, "lost", "") > 0);
}

static void tokens_are_kept_to_likewise(void **state)
{
    (void)state;
    char ids[2][TASK_ID_SIZE];
    struct stage_task task = {.mark = "first", .n = SUBTASKS, .budget = {.tokens = 10000}};
    stage_open(stage, config, scenario, both);
    stage_submit(stage, &task, ids[0]);
    task.mark = "second";
    stage_submit_plan(stage, &task, "--budget-tokens", "6000", ids[1]);
    assert_used_up(ids[0], "first");
    assert_int_equal(assert_used_up(ids[1], "second").budget.tokens, 6000);
    assert_retry_is_refused(ids[0], "first");
    assert_retry_is_refused(ids[1], "second");
}

/* --- several tasks ---------------------------------------------------------------------------- */

static const char accounts_config[] =
    PROVIDERS "roles:\n"
              "  general: {models: [cheap, dear]}\n"
              "  thrifty: {models: [cheap, dear], budget: {day_usd: 2.5, task_usd: 1.5}}\n"
              "budget: {day_usd: 6}\n";
static const char *const accounts[] = {"day", "role:thrifty"};

struct sums {
    bool done;
    struct queue_spend spent[2], held[2];
};

static void summed(void *ctx, const struct queue_spend *spent, const struct queue_spend *held,
                   size_t n, const char *err)
{
    struct sums *sums = ctx;
    assert_string_equal(err, "");
    assert_int_equal(n, 2);
    memcpy(sums->spent, spent, sizeof sums->spent);
    memcpy(sums->held, held, sizeof sums->held);
    sums->done = true;
}

static struct sums read_sums(void)
{
    struct sums sums = {0};
    queue_accounts(stage->queue, accounts, 2, summed, &sums);
    assert_int_equal(loop_run_until(&stage->loop, &sums.done, STAGE_WAIT_MS), 0);
    return sums;
}

static bool are_settled(void *ctx)
{
    struct sums *sums = ctx;
    *sums = read_sums();
    return sums->held[0].nano_usd == 0 && sums->held[1].nano_usd == 0;
}

/* When nothing is under way any more: what ran when its task failed is settled, too. */
static struct sums wait_for_sums(void)
{
    struct sums sums;
    assert_true(fixture_wait(are_settled, &sums, STAGE_WAIT_MS));
    return sums;
}

static struct queue_spend bill_of(const char *mark)
{
    json_t *calls = stage_calls(stage);
    struct queue_spend bill = stage_bill(stage, calls, mark);
    json_decref(calls);
    print_message("%s: billed %.6f USD\n", mark, (double)bill.nano_usd / 1e9);
    return bill;
}

/* A task without a budget of its own ends because of another one. */
static void assert_ended_by_budget(const char *id)
{
    struct stage_view view = stage_wait(stage, id);
    assert_int_equal(view.state, TASK_FAILED);
    assert_string_equal(view.error_class, "budget");
    print_message("%d done; %s\n", view.n_done, view.reason);
}

static void a_day_and_a_role_have_budgets_over_all_tasks(void **state)
{
    (void)state;
    static const char *const thrifty[] = {"thrifty"};
    static const char *const marks[4] = {"one", "two", "three", "four"};
    char ids[4][TASK_ID_SIZE];
    struct queue_spend bills[4];
    if (DAY_S - time(NULL) % DAY_S < 2 * STAGE_WAIT_MS / 1000)
        skip(); /* a new day has a new budget */
    stage_open(stage, accounts_config, scenario, both);
    struct stage_task task = {.roles = thrifty, .n_roles = 1, .n = SUBTASKS};
    for (int i = 0; i < 4; i++) {
        task.mark = marks[i];
        task.n_roles = i < 2 ? 1 : 0;
        stage_submit(stage, &task, ids[i]);
        if (i % 2 == 0)
            continue;
        assert_ended_by_budget(ids[i - 1]);
        assert_ended_by_budget(ids[i]);
    }
    struct sums sums = wait_for_sums();
    for (int i = 0; i < 4; i++)
        bills[i] = bill_of(marks[i]);
    struct queue_spend of_role = plus(bills[0], bills[1]);
    struct queue_spend of_day = plus(of_role, plus(bills[2], bills[3]));
    assert_within("a task of the role", bills[0], (struct queue_spend){.nano_usd = 15 * NANO / 10});
    assert_within("a task of the role", bills[1], (struct queue_spend){.nano_usd = 15 * NANO / 10});
    assert_within("the role", sums.spent[1], (struct queue_spend){.nano_usd = 25 * NANO / 10});
    assert_within("the day", sums.spent[0], (struct queue_spend){.nano_usd = 6 * NANO});
    assert_covers("the role", sums.spent[1], of_role);
    assert_covers("the day", sums.spent[0], of_day);
    assert_true(bills[2].nano_usd + bills[3].nano_usd > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_task_that_fits_finishes_and_costs_what_is_billed, teardown),
        cmocka_unit_test_teardown(what_would_be_too_dear_is_done_by_a_cheaper_arm, teardown),
        cmocka_unit_test_teardown(whatever_fails_the_bill_stays_within_the_budget, teardown),
        cmocka_unit_test_teardown(what_a_killed_worker_has_spent_is_counted, teardown),
        cmocka_unit_test_teardown(hedges_are_paid_for_out_of_the_budget, teardown),
        cmocka_unit_test_teardown(tokens_are_kept_to_likewise, teardown),
        cmocka_unit_test_teardown(a_day_and_a_role_have_budgets_over_all_tasks, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
