/* What becomes of calls that fail, and of those that were made before: other arms, other keys, the
 * response cache. The real programs run; the simulator counts the calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/stage.h"

static struct stage stage_, *const stage = &stage_;

static int teardown(void **state)
{
    (void)state;
    stage_close(stage);
    return 0;
}

/* --- helpers ---------------------------------------------------------------------------------- */

static json_t *run_task(const struct stage_task *task)
{
    char id[TASK_ID_SIZE];
    stage_submit(stage, task, id);
    stage_wait(stage, id);
    return stage_show(stage, id);
}

static void assert_state(const json_t *shown, const char *state)
{
    if (strcmp(json_str(shown, "state", ""), state) != 0)
        fail_msg("it is %s: %s", json_str(shown, "state", ""), json_str(shown, "error", ""));
}

/* How many subtasks have that value. */
static int shown_with(const json_t *shown, const char *key, const char *value)
{
    int count = 0;
    size_t i;
    json_t *sub;
    json_array_foreach (json_get(shown, "subtasks"), i, sub)
        count += strcmp(json_str(sub, key, ""), value) == 0;
    return count;
}

static int shown_cached(const json_t *shown)
{
    int count = 0;
    size_t i;
    json_t *sub;
    json_array_foreach (json_get(shown, "subtasks"), i, sub)
        count += json_bool(sub, "cached", false);
    return count;
}

/* Lines of the shown log with that state and class. */
static int shown_log(const json_t *shown, const char *what, const char *class_)
{
    int count = 0;
    size_t i;
    json_t *line;
    json_array_foreach (json_get(shown, "log"), i, line)
        count += strcmp(json_str(line, "what", ""), what) == 0 &&
                 strcmp(json_str(line, "error_class", ""), class_) == 0;
    return count;
}

static void assert_tapped(const char *text)
{
    assert_true(fixture_wait_text(&stage->testbed.fixture, "tap.log", text, STAGE_WAIT_MS));
}

/* --- the response cache ----------------------------------------------------------------------- */

#define EQUAL 50

static const char cache_config[] =
    "providers: {a: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}}\n"
    "models: {m: {provider: a, max_output: 60, price: {input: 100, output: 500}}}\n"
    "workers:\n"
    "  - {name: w0, provider: a, concurrency: 25}\n"
    "  - {name: w1, provider: a, concurrency: 25}\n"
    "roles: {general: {models: [m], temperature: 0}}\n";
static const char slow_scenario[] = "rules: [{tokens: 10, timing: {load_ms: 1000}}]\n";

static json_t *run_plan(const struct stage_task *task, const char *option, const char *value)
{
    char id[TASK_ID_SIZE];
    stage_submit_plan(stage, task, option, value, id);
    stage_wait(stage, id);
    json_t *shown = stage_show(stage, id);
    assert_state(shown, "DONE");
    return shown;
}

static void assert_calls(size_t n)
{
    json_t *calls = stage_calls(stage);
    assert_int_equal(json_array_size(calls), n);
    json_decref(calls);
}

static void equal_calls_at_once_are_one_call(void **state)
{
    (void)state;
    const struct stage_task task = {.mark = "the same", .same = true, .n = EQUAL};
    stage_open(stage, cache_config, slow_scenario, (const char *[]){"w0", "w1", NULL});
    json_t *shown = run_plan(&task, NULL, NULL);
    assert_calls(1);
    assert_int_equal(shown_cached(shown), EQUAL - 1);
    assert_int_equal(shown_with(shown, "arm", "m@a"), EQUAL);
    assert_true(shown_with(shown, "worker", "w0") > 0 && shown_with(shown, "worker", "w1") > 0);
    json_t *calls = stage_calls(stage);
    struct queue_spend bill = stage_bill(stage, calls, NULL);
    assert_true(bill.nano_usd > 0);
    assert_int_equal((int64_t)(json_num(shown, "cost_usd", -1) * 1e9 + 0.5), bill.nano_usd);
    json_decref(calls);
    json_decref(shown);
    shown = run_plan(&task, NULL, NULL); /* and later ones are none */
    assert_calls(1);
    assert_int_equal(shown_cached(shown), EQUAL);
    json_decref(shown);
    shown = run_plan(&task, "--no-cache", NULL);
    assert_calls(1 + EQUAL);
    assert_int_equal(shown_cached(shown), 0);
    json_decref(shown);
}

/* --- other arms ------------------------------------------------------------------------------- */

static const char arms_config[] =
    "providers:\n"
    "  a: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\",\n"
    "      timeouts: {first_token_ms: 300}, breaker: {failures: 3, open_ms: 600000}}\n"
    "  b: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
    "  keys: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\",\n"
    "         key: [env:KEY_BAD, env:KEY_GOOD]}\n"
    "  slowed: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\",\n"
    "           key: [env:KEY_SLOW, env:KEY_GOOD]}\n"
    "models:\n"
    "  cheap: {provider: a, context: 8000, price: {input: 1, output: 5}}\n"
    "  other: {provider: b, context: 8000, price: {input: 1, output: 5}}\n"
    "  hangs: {provider: a}\n"
    "  dear: {provider: b, context: 200000, price: {input: 10, output: 50}}\n"
    "  pooled: {provider: keys}\n"
    "  slowed: {provider: slowed}\n"
    "workers:\n"
    "  - {name: wa, provider: a, concurrency: 1}\n"
    "  - {name: wb, provider: b, concurrency: 8}\n"
    "  - {name: wk, provider: keys, concurrency: 4}\n"
    "  - {name: ws, provider: slowed, concurrency: 4}\n"
    "roles:\n"
    "  general: {models: [cheap, dear]}\n"
    "  long: {models: [cheap, other, dear]}\n"
    "  patient: {models: [hangs, dear]}\n"
    "  pooled: {models: [pooled]}\n"
    "  slowed: {models: [slowed]}\n";
static const char arms_scenario[] =
    "rules:\n"
    "  - {match: {key: the-bad}, fault: auth}\n"
    "  - {match: {key: the-slow}, fault: {kind: rate_limit, retry_after: 600}}\n"
    "  - {match: {prompt: limited, model: cheap}, fault: {kind: rate_limit, retry_after: 600}}\n"
    "  - {match: {prompt: long, model: cheap}, fault: context_too_long}\n"
    "  - {match: {model: hangs}, timing: {load_ms: 600000}}\n"
    "  - {tokens: 5}\n";

static void open_arms(void)
{
    setenv("KEY_BAD", "the-bad", 1);
    setenv("KEY_SLOW", "the-slow", 1);
    setenv("KEY_GOOD", "the-good", 1);
    stage_open(stage, arms_config, arms_scenario, (const char *[]){"wa", "wb", "wk", "ws", NULL});
    stage_tap(stage);
}

/* The server wants ten minutes of patience. */
static void what_is_rate_limited_moves_to_the_dear_arm_at_once(void **state)
{
    (void)state;
    open_arms();
    json_t *shown = run_task(&(struct stage_task){.mark = "limited", .n = 1});
    json_t *calls = stage_calls(stage);
    assert_state(shown, "DONE");
    assert_int_equal(stage_count(calls, "cheap", -2), 1);
    assert_int_equal(stage_count(calls, "dear", -2), 1);
    assert_int_equal(shown_with(shown, "arm", "dear@b"), 1);
    assert_int_equal(shown_log(shown, "retry", "rate_limited"), 1);
    assert_tapped("rate_limited");
    json_decref(calls);
    json_decref(shown);
}

static void what_is_too_long_goes_to_a_larger_window_only(void **state)
{
    (void)state;
    static const char *const roles[] = {"long"};
    open_arms();
    json_t *shown =
        run_task(&(struct stage_task){.mark = "long", .roles = roles, .n_roles = 1, .n = 1});
    json_t *calls = stage_calls(stage);
    assert_state(shown, "DONE");
    assert_int_equal(stage_count(calls, "cheap", -2), 1);
    assert_int_equal(stage_count(calls, "other", -2), 0);
    assert_int_equal(stage_count(calls, "dear", -2), 1);
    assert_int_equal(shown_with(shown, "arm", "dear@b"), 1);
    assert_int_equal(shown_log(shown, "retry", "context_too_long"), 1);
    json_decref(calls);
    json_decref(shown);
}

/* Until all know that it is out, calls at once may meet it. */
static void a_key_that_is_refused_leaves_everything_to_the_other(void **state)
{
    (void)state;
    static const char *const roles[] = {"pooled"};
    open_arms();
    json_t *shown =
        run_task(&(struct stage_task){.mark = "keys", .roles = roles, .n_roles = 1, .n = 40});
    json_t *calls = stage_calls(stage);
    assert_state(shown, "DONE");
    int refused = stage_count(calls, "pooled", 0);
    assert_in_range(refused, 1, 8);
    assert_int_equal(stage_count(calls, "pooled", -2), 40 + refused);
    assert_int_equal(shown_log(shown, "retry", "auth"), refused);
    assert_tapped("key-out");
    assert_tapped("KEY_BAD");
    json_decref(calls);
    json_decref(shown);
}

/* Ten minutes of patience with one key, none with the other. */
static void a_key_that_is_limited_leaves_everything_to_the_other(void **state)
{
    (void)state;
    static const char *const roles[] = {"slowed"};
    open_arms();
    json_t *shown =
        run_task(&(struct stage_task){.mark = "keys", .roles = roles, .n_roles = 1, .n = 40});
    json_t *calls = stage_calls(stage);
    assert_state(shown, "DONE");
    int limited = stage_count(calls, "slowed", 1);
    assert_in_range(limited, 1, 8);
    assert_int_equal(stage_count(calls, "slowed", -2), 40 + limited);
    assert_int_equal(shown_log(shown, "retry", "rate_limited"), limited);
    json_decref(calls);
    json_decref(shown);
}

/* One at a time: the breaker opens with the third, and nothing more is sent there. */
static void what_times_out_moves_once_the_breaker_is_open(void **state)
{
    (void)state;
    static const char *const roles[] = {"patient"};
    open_arms();
    struct stage_task task = {.mark = "patience", .roles = roles, .n_roles = 1, .n = 40};
    json_t *shown = run_task(&task);
    assert_state(shown, "DONE");
    assert_int_equal(shown_with(shown, "arm", "dear@b"), 40);
    json_decref(shown);
    task.mark = "later"; /* also what comes when nobody waits for anything else */
    for (int i = 0; i < 20; i++) {
        task.n = 1;
        shown = run_task(&task);
        assert_state(shown, "DONE");
        json_decref(shown);
    }
    json_t *calls = stage_calls(stage);
    assert_int_equal(stage_count(calls, "hangs", -2), 3);
    assert_tapped("arm-open");
    json_decref(calls);
    struct buf out = {0};
    assert_int_equal(stage_cli(stage, (const char *[]){"status", "--json", NULL}, &out), 0);
    assert_non_null(strstr(out.data, "hangs@a: "));
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(equal_calls_at_once_are_one_call, teardown),
        cmocka_unit_test_teardown(what_is_rate_limited_moves_to_the_dear_arm_at_once, teardown),
        cmocka_unit_test_teardown(what_is_too_long_goes_to_a_larger_window_only, teardown),
        cmocka_unit_test_teardown(a_key_that_is_refused_leaves_everything_to_the_other, teardown),
        cmocka_unit_test_teardown(a_key_that_is_limited_leaves_everything_to_the_other, teardown),
        cmocka_unit_test_teardown(what_times_out_moves_once_the_breaker_is_open, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
