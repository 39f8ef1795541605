/* Runs with one thing wrong in each: the oracle reports exactly that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/chaos/oracle.h"

#define TASK "t00000000000000aa"

/* What was reported: "rule sub; " each. */
static char reported[1024];

static void report(void *ctx, enum oracle_rule rule, const char *task, const char *sub,
                   const char *text)
{
    (void)ctx, (void)text;
    size_t len = strlen(reported);
    assert_string_equal(task, TASK);
    snprintf(reported + len, sizeof reported - len, "%s%s %s", len > 0 ? "; " : "",
             oracle_rule_name(rule), sub);
}

static int setup(void **state)
{
    *state = oracle_new();
    return 0;
}

static int teardown(void **state)
{
    struct oracle *oracle = *state;
    oracle_free(&oracle);
    return 0;
}

/* --- what is fed ------------------------------------------------------------------------------ */

static void submitted(struct oracle *oracle, const struct oracle_plan *plan)
{
    oracle_submitted(oracle, TASK, plan != NULL ? plan : &(struct oracle_plan){0});
}

static void stored(struct oracle *oracle, enum task_state state, enum sub_state a, enum sub_state b)
{
    struct bytes outcome = {"x", 1};
    struct queue_sub_view subs[] = {
        {.id = "a", .state = a, .outcome = a == SUB_DONE ? outcome : (struct bytes){0}},
        {.id = "b", .state = b, .outcome = b == SUB_DONE ? outcome : (struct bytes){0}},
    };
    oracle_task(oracle, &(struct queue_task_view){
                            .id = TASK, .state = state, .total = 2, .subs = subs, .n_subs = 2});
}

static void logged(struct oracle *oracle, int64_t ms, const char *what, const char *sub,
                   int64_t attempt, const char *error_class)
{
    char id[32];
    snprintf(id, sizeof id, "%lld-0", (long long)ms);
    oracle_log(oracle, TASK,
               &(struct queue_log_entry){.id = id,
                                         .what = what,
                                         .sub = sub,
                                         .worker = "w0",
                                         .arm = "m@p",
                                         .attempt = attempt,
                                         .error_class = error_class,
                                         .text = ""});
}

static void called(struct oracle *oracle, int64_t ms, const char *sub, enum oracle_call_end end)
{
    oracle_call(oracle, TASK, sub, ms, end);
}

static void kept(struct oracle *oracle, const char *sub, int64_t attempt)
{
    oracle_row(oracle, &(struct msg_timing){
                           .task = TASK, .sub = sub, .attempt = attempt, .result = "done"});
}

/* Subtask `sub` is claimed, called and committed at the first attempt. */
static void good(struct oracle *oracle, const char *sub)
{
    logged(oracle, 1000, "running", sub, 1, "");
    called(oracle, 1010, sub, ORACLE_CALL_COMPLETED);
    logged(oracle, 1020, "done", sub, 1, "");
    kept(oracle, sub, 1);
}

/* All is well with both, but for what the test adds. */
static void all_good(struct oracle *oracle)
{
    submitted(oracle, NULL);
    stored(oracle, TASK_DONE, SUB_DONE, SUB_DONE);
    good(oracle, "a");
    good(oracle, "b");
}

static struct oracle_verdict judged(struct oracle *oracle, const char *want)
{
    reported[0] = '\0';
    struct oracle_verdict verdict = oracle_judge(oracle, true, report, NULL);
    assert_string_equal(reported, want);
    assert_true((verdict.wrong > 0) == (want[0] != '\0'));
    return verdict;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void a_good_run_has_no_violation(void **state)
{
    struct oracle *oracle = *state;
    all_good(oracle);
    struct oracle_verdict verdict = judged(oracle, "");
    assert_int_equal(verdict.tasks, 1);
    assert_int_equal(verdict.done, 1);
    assert_int_equal(verdict.subtasks, 2);
    assert_int_equal(verdict.commits, 2);
    assert_int_equal(verdict.calls, 2);
}

static void a_task_that_is_gone_is_lost(void **state)
{
    submitted(*state, NULL);
    judged(*state, "lost ");
}

static void a_task_and_a_subtask_that_still_run_are_lost(void **state)
{
    struct oracle *oracle = *state;
    submitted(oracle, NULL);
    stored(oracle, TASK_RUNNING, SUB_DONE, SUB_RUNNING);
    good(oracle, "a");
    logged(oracle, 1000, "running", "b", 1, "");
    called(oracle, 1010, "b", ORACLE_CALL_COMPLETED);
    judged(oracle, "lost ; lost b");
}

static void a_subtask_that_is_done_without_a_commit_is_lost(void **state)
{
    struct oracle *oracle = *state;
    submitted(oracle, NULL);
    stored(oracle, TASK_DONE, SUB_DONE, SUB_DONE);
    good(oracle, "a");
    logged(oracle, 1000, "running", "b", 1, "");
    called(oracle, 1010, "b", ORACLE_CALL_COMPLETED);
    kept(oracle, "b", 0);
    judged(oracle, "lost b");
}

static void a_commit_without_a_row_is_lost(void **state)
{
    struct oracle *oracle = *state;
    submitted(oracle, NULL);
    stored(oracle, TASK_DONE, SUB_DONE, SUB_DONE);
    good(oracle, "a");
    logged(oracle, 1000, "running", "b", 1, "");
    called(oracle, 1010, "b", ORACLE_CALL_COMPLETED);
    logged(oracle, 1020, "done", "b", 1, "");
    judged(oracle, "lost b");
}

static void a_commit_of_what_is_not_done_is_lost(void **state)
{
    struct oracle *oracle = *state;
    submitted(oracle, &(struct oracle_plan){.cancelled = true});
    stored(oracle, TASK_CANCELLED, SUB_DONE, SUB_CANCELLED);
    good(oracle, "a");
    good(oracle, "b");
    judged(oracle, "lost b");
}

static void a_second_commit_is_a_duplicate(void **state)
{
    all_good(*state);
    logged(*state, 1030, "done", "b", 1, "");
    judged(*state, "duplicated b");
}

static void a_second_row_is_a_duplicate(void **state)
{
    all_good(*state);
    kept(*state, "a", 1);
    judged(*state, "duplicated a");
}

static void a_run_after_the_commit_is_a_duplicate(void **state)
{
    all_good(*state);
    logged(*state, 1030, "running", "a", 2, "");
    judged(*state, "duplicated a");
}

static void a_call_that_no_fault_explains_is_reported(void **state)
{
    all_good(*state);
    called(*state, 1015, "a", ORACLE_CALL_COMPLETED);
    judged(*state, "paid too often a");
}

static void a_provider_fault_allows_one_more_call_and_one_failure(void **state)
{
    struct oracle *oracle = *state;
    all_good(oracle);
    called(oracle, 1005, "a", ORACLE_CALL_FAULT);
    logged(oracle, 1006, "retry", "a", 1, "overloaded");
    struct oracle_verdict verdict = judged(oracle, "");
    assert_int_equal(verdict.provider_faults, 1);
    called(oracle, 1007, "a", ORACLE_CALL_COMPLETED);
    logged(oracle, 1008, "retry", "a", 2, "overloaded");
    judged(oracle, "unexpected a; paid too often a");
}

static void a_lost_attempt_needs_a_fault_of_its_worker_at_the_time(void **state)
{
    struct oracle *oracle = *state;
    submitted(oracle, NULL);
    stored(oracle, TASK_DONE, SUB_DONE, SUB_DONE);
    good(oracle, "a");
    logged(oracle, 900, "running", "b", 1, "");
    called(oracle, 910, "b", ORACLE_CALL_CUT);
    logged(oracle, 950, "retry", "b", 1, "worker_lost");
    logged(oracle, 1000, "running", "b", 2, "");
    called(oracle, 1010, "b", ORACLE_CALL_COMPLETED);
    logged(oracle, 1020, "done", "b", 2, "");
    kept(oracle, "b", 2);
    oracle_fault(oracle, "w1", 920, 930);   /* another worker */
    oracle_fault(oracle, "w0", 1000, 1100); /* later */
    judged(oracle, "unexpected b; paid too often b");
    oracle_fault(oracle, "w0", 920, 930);
    struct oracle_verdict verdict = judged(oracle, "");
    assert_int_equal(verdict.lost_attempts, 1);
}

static void a_fault_of_all_explains_the_loss_of_any_worker(void **state)
{
    struct oracle *oracle = *state;
    all_good(oracle);
    logged(oracle, 1030, "retry", "a", 1, "worker_lost");
    oracle_fault(oracle, NULL, 900, 2000);
    judged(oracle, "");
}

static void a_call_behind_a_spooled_response_is_paid_twice(void **state)
{
    struct oracle *oracle = *state;
    all_good(oracle);
    oracle_received(oracle, TASK, "a", 1015);
    struct oracle_verdict verdict = judged(oracle, "");
    assert_int_equal(verdict.received, 1);
    oracle_fault(oracle, "w0", 1012, 1018);
    logged(oracle, 1016, "retry", "a", 1, "worker_lost");
    called(oracle, 1017, "a", ORACLE_CALL_COMPLETED);
    judged(oracle, "paid twice a");
}

static void a_dead_subtask_needs_the_faults_of_its_plan(void **state)
{
    struct oracle *oracle = *state;
    submitted(oracle, &(struct oracle_plan){.dead_after = 2});
    stored(oracle, TASK_FAILED, SUB_DONE, SUB_DEAD);
    good(oracle, "a");
    logged(oracle, 1000, "running", "b", 1, "");
    called(oracle, 1010, "b", ORACLE_CALL_FAULT);
    logged(oracle, 1020, "dead", "b", 1, "overloaded");
    judged(oracle, "unexpected b");
    called(oracle, 1012, "b", ORACLE_CALL_FAULT);
    judged(oracle, "");
    submitted(oracle, NULL);
    judged(oracle, "unexpected b");
}

static void a_cancelled_task_was_to_be_cancelled(void **state)
{
    struct oracle *oracle = *state;
    submitted(oracle, NULL);
    stored(oracle, TASK_CANCELLED, SUB_DONE, SUB_CANCELLED);
    good(oracle, "a");
    judged(oracle, "unexpected ");
    submitted(oracle, &(struct oracle_plan){.cancelled = true});
    judged(oracle, "");
}

static void what_nobody_submitted_is_unexpected(void **state)
{
    stored(*state, TASK_DONE, SUB_DONE, SUB_DONE);
    judged(*state, "unexpected ");
}

static void a_call_for_no_subtask_is_unexpected(void **state)
{
    all_good(*state);
    called(*state, 1000, "c", ORACLE_CALL_COMPLETED);
    judged(*state, "unexpected c");
}

static void what_is_done_was_answered(void **state)
{
    struct oracle *oracle = *state;
    submitted(oracle, NULL);
    stored(oracle, TASK_DONE, SUB_DONE, SUB_DONE);
    good(oracle, "a");
    logged(oracle, 1000, "running", "b", 1, "");
    called(oracle, 1010, "b", ORACLE_CALL_CUT);
    logged(oracle, 1020, "done", "b", 1, "");
    kept(oracle, "b", 1);
    judged(oracle, "unexpected b");
}

static void what_fsck_finds_is_a_violation(void **state)
{
    all_good(*state);
    oracle_finding(*state, TASK, "a", "something is damaged");
    judged(*state, "fsck a");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_good_run_has_no_violation),
        TEST(a_task_that_is_gone_is_lost),
        TEST(a_task_and_a_subtask_that_still_run_are_lost),
        TEST(a_subtask_that_is_done_without_a_commit_is_lost),
        TEST(a_commit_without_a_row_is_lost),
        TEST(a_commit_of_what_is_not_done_is_lost),
        TEST(a_second_commit_is_a_duplicate),
        TEST(a_second_row_is_a_duplicate),
        TEST(a_run_after_the_commit_is_a_duplicate),
        TEST(a_call_that_no_fault_explains_is_reported),
        TEST(a_provider_fault_allows_one_more_call_and_one_failure),
        TEST(a_lost_attempt_needs_a_fault_of_its_worker_at_the_time),
        TEST(a_fault_of_all_explains_the_loss_of_any_worker),
        TEST(a_call_behind_a_spooled_response_is_paid_twice),
        TEST(a_dead_subtask_needs_the_faults_of_its_plan),
        TEST(a_cancelled_task_was_to_be_cancelled),
        TEST(what_nobody_submitted_is_unexpected),
        TEST(a_call_for_no_subtask_is_unexpected),
        TEST(what_is_done_was_answered),
        TEST(what_fsck_finds_is_a_violation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
