/* `orchestrator models`: the registry with live state, tests of arms, what providers really
 * serve. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/config.h"
#include "tests/lib/testbed.h"

static const char config_format[] =
    "providers:\n"
    "  sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
    "  cloud: {api: openai, key: 'cmd:echo k', base_url: \"http://127.0.0.1:%d\"}\n"
    "  tags: {api: ollama, base_url: \"http://127.0.0.1:%d\"}\n"
    "  idle: {api: ollama, base_url: \"http://127.0.0.1:%d\"}\n"
    "models:\n"
    "  good: {provider: sim, name: 'good:8b', local: true, tags: [private]}\n"
    "  bad: {provider: sim, name: bad, local: true}\n"
    "  vectors: {provider: sim, name: bge-m3, local: true}\n"
    "  mini: {provider: cloud, name: gpt-4o-mini}\n"
    "  gone: {provider: cloud, name: gpt-4o-mimi}\n"
    "  pulled: {provider: tags, name: extra}\n"
    "  alone: {provider: idle, name: alone}\n"
    "workers:\n"
    "  - {name: w0, provider: sim, concurrency: 16}\n"
    "  - {name: w1, provider: cloud, models: [mini, gone]}\n"
    "  - {name: w2, provider: tags}\n"
    "  - {name: w3, provider: idle}\n"
    "roles: {general: {stop: [ok], temperature: 0.5}}\n";

static const char scenario[] =
    "models: ['good:8b', bad, bge-m3, gpt-4o-mini, gpt-4o-mini-2024-07-18, extra, "
    "'org/new one', 'extra:latest']\n"
    "rules:\n"
    "  - match: {model: bad}\n"
    "    fault: {status: 400, message: \"the model is not well\"}\n"
    "  - match: {model: 'good:8b'}\n"
    "    reply: {text: ok}\n"
    "    timing: {decode_tps: 2000, prefill_tps: 0}\n"
    "  - match: {model: extra}\n"
    "    reply: {text: \"one two three\"}\n"
    "    fault: {stall_after: 1}\n";

static struct testbed testbed;
static struct buf out, errors;

#define RUN(...) run((const char *const[]){"orchestrator", "models", __VA_ARGS__, NULL})
static int run(const char *const *argv)
{
    buf_clear(&out);
    buf_clear(&errors);
    int code = fixture_run(&testbed.fixture, argv, &out, &errors);
    buf_add_str(&out, "");
    buf_add_str(&errors, "");
    return code;
}

static json_t *parsed(void)
{
    struct err err = {0};
    json_t *value = json_parse(out.data != NULL ? out.data : "", out.len, &err);
    if (value == NULL)
        fail_msg("%s in:\n%s\n%s", err.text, out.data, errors.data);
    return value;
}

/* The element whose member has the value; NULL: none. */
static const json_t *with(const json_t *list, const char *key, const char *value)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_str(json_array_get(list, i), key, ""), value) == 0)
            return json_array_get(list, i);
    return NULL;
}

static bool said(const struct buf *text, const char *part)
{
    bool found = text->data != NULL && strstr(text->data, part) != NULL;
    if (!found)
        print_error("\"%s\" is not in:\n%s\n", part, text->data != NULL ? text->data : "");
    return found;
}

static void models_tell_what_is_known_and_who_serves_them(void **state)
{
    (void)state;
    assert_int_equal(RUN("--json", "--config", testbed.config), 0);
    json_t *list = parsed();
    const json_t *mini = with(list, "alias", "mini");
    assert_int_equal(json_int(mini, "context", 0), 128000);
    assert_true(json_num(json_get(mini, "price"), "input", 0) == 0.15);
    assert_string_equal(json_string_value(json_array_get(json_get(mini, "refuses"), 0)), "effort");
    assert_string_equal(json_str(json_get(mini, "registry"), "as_of", ""), "2026-11-20");
    assert_string_equal(json_str(json_array_get(json_get(mini, "arms"), 0), "arm", ""),
                        "mini@cloud");
    const json_t *good = with(list, "alias", "good");
    assert_string_equal(json_string_value(json_array_get(json_get(good, "tags"), 0)), "private");
    assert_true(json_is_null(json_get(good, "price")));
    assert_int_equal(json_array_size(json_get(good, "workers")), 1);
    assert_int_equal(json_array_size(json_get(with(list, "alias", "alone"), "arms")), 0);
    json_decref(list);
    assert_int_equal(RUN("--config", testbed.config), 0);
    assert_true(said(&out, "0.15 / 0.6"));
    assert_true(said(&out, "json_schema,tools,images"));
}

static void a_test_asks_each_arm_and_one_failure_ends_no_other(void **state)
{
    (void)state;
    assert_int_equal(RUN("--test", "--json", "--timeout", "5", "--config", testbed.config), 1);
    json_t *list = parsed();
    assert_int_equal(json_array_size(list), 7);
    const json_t *good = with(list, "model", "good");
    assert_true(json_bool(good, "ok", false));
    assert_true(json_num(good, "total_ms", -1) > 0);
    assert_true(json_num(good, "ttft_ms", -1) > 0);
    assert_int_equal(json_int(good, "output_tokens", 0), 1);
    assert_string_equal(json_str(good, "parameters", ""), "8B");
    assert_string_equal(json_str(good, "worker", ""), "w0");
    const json_t *bad = with(list, "model", "bad");
    assert_false(json_bool(bad, "ok", true));
    assert_non_null(strstr(json_str(bad, "error", ""), "the model is not well"));
    assert_string_equal(json_str(bad, "error_class", ""), "bad_request");
    /* a model that makes vectors is asked for one */
    assert_true(json_bool(with(list, "model", "vectors"), "ok", false));
    assert_true(json_bool(with(list, "arm", "mini@cloud"), "ok", false));
    assert_true(json_num(with(list, "arm", "mini@cloud"), "cost_usd", 0) > 0);
    assert_string_equal(json_str(with(list, "arm", "alone"), "error", ""),
                        "no connected worker serves it");
    assert_string_equal(json_str(with(list, "model", "pulled"), "error", ""),
                        "no answer within the time limit");
    json_decref(list);
    /* what nobody waits for is cancelled; progress went to standard error */
    assert_true(said(&errors, "asking 6 arms"));
    assert_true(said(&errors, "failed bad@"));
    buf_clear(&out);
    assert_int_equal(run((const char *const[]){"orchestrator", "list", "--json", "--config",
                                               testbed.config, NULL}),
                     0);
    json_t *tasks = parsed();
    size_t cancelled = 0;
    for (size_t i = 0; i < json_array_size(tasks); i++)
        cancelled += strcmp(json_str(json_array_get(tasks, i), "state", ""), "CANCELLED") == 0;
    assert_int_equal(cancelled, 1);
    json_decref(tasks);
}

static void a_test_can_be_of_one_model_or_arm(void **state)
{
    (void)state;
    assert_int_equal(RUN("--test", "good", "--json", "--config", testbed.config), 0);
    json_t *list = parsed();
    assert_int_equal(json_array_size(list), 1);
    json_decref(list);
    assert_int_equal(RUN("--test", "mini@cloud", "--config", testbed.config), 0);
    assert_true(said(&out, "mini@cloud  ok"));
    assert_int_equal(RUN("--test", "goood", "--config", testbed.config), 2);
    assert_true(said(&errors, "there is no model or arm \"goood\"; did you mean good?"));
    assert_int_equal(RUN("--test", "--refresh", "--config", testbed.config), 2);
    assert_int_equal(RUN("good", "--config", testbed.config), 2);
    assert_true(said(&errors, "an ID needs --test or --refresh"));
}

/* Neither the role's stop strings nor its prompt have a say in whether an arm answers. */
static void a_test_is_asked_without_a_role(void **state)
{
    (void)state;
    assert_int_equal(RUN("--test", "good", "-q", "--config", testbed.config), 0);
    assert_string_equal(errors.data, "");
    json_t *journal = testbed_sim(&testbed, "requests");
    const json_t *calls = json_is_array(journal) ? journal : json_get(journal, "requests");
    const json_t *last = json_array_get(calls, json_array_size(calls) - 1);
    assert_string_equal(json_str(last, "model", ""), "good:8b");
    assert_string_equal(json_str(last, "prompt", ""), "Answer with the one word: ok");
    assert_true(json_array_size(json_get(last, "stop")) == 0);
    json_decref(journal);
}

static void a_refresh_compares_what_is_served_with_what_is_configured(void **state)
{
    (void)state;
    assert_int_equal(RUN("--refresh", "cloud", "--json", "--config", testbed.config), 1);
    json_t *list = parsed();
    const json_t *cloud = with(list, "provider", "cloud");
    assert_int_equal(json_array_size(list), 1);
    assert_true(json_bool(cloud, "ok", false));
    assert_int_equal(json_int(cloud, "served", 0), 8);
    const json_t *gone = json_get(cloud, "not_served");
    assert_int_equal(json_array_size(gone), 1); /* the dated name is mini's */
    assert_string_equal(json_str(json_array_get(gone, 0), "alias", ""), "gone");
    assert_string_equal(json_str(json_array_get(gone, 0), "nearest", ""), "gpt-4o-mini");
    const json_t *fresh = with(json_get(cloud, "not_configured"), "name", "org/new one");
    assert_string_equal(json_str(fresh, "yaml", ""),
                        "new-one: {provider: cloud, name: \"org/new one\"}");
    assert_null(with(json_get(cloud, "not_configured"), "name", "gpt-4o-mini-2024-07-18"));
    json_decref(list);
}

/* Each line is one that the configuration takes. */
static void lines_of_a_refresh_can_be_pasted(void **state)
{
    (void)state;
    assert_int_equal(RUN("--refresh", "sim", "--json", "--config", testbed.config), 0);
    json_t *list = parsed();
    const json_t *fresh = json_get(json_array_get(list, 0), "not_configured");
    struct buf text = {0};
    buf_add_str(&text, "providers: {sim: {api: ollama}}\nmodels:\n");
    assert_int_equal(json_array_size(fresh), 5);
    for (size_t i = 0; i < json_array_size(fresh); i++)
        buf_printf(&text, "  %s\n", json_str(json_array_get(fresh, i), "yaml", ""));
    struct config *config = NULL;
    struct err err = {""};
    if (config_parse(&config, "t", text.data, text.len, &err) != 0)
        fail_msg("%s in\n%s", err.text, text.data);
    config_free(&config);
    buf_release(&text);
    json_decref(list);
}

static void a_refresh_of_all_says_who_cannot_be_asked(void **state)
{
    (void)state;
    assert_int_equal(RUN("--refresh", "--config", testbed.config), 1);
    assert_true(said(&out, "sim: serves 8 models\n  all that is configured is served\n"));
    assert_true(said(&out, "  not served: gone (gpt-4o-mimi); the nearest is gpt-4o-mini"));
    assert_true(said(&out, "idle: cannot be asked: no connected worker serves one of its models"));
    assert_int_equal(RUN("--refresh", "clout", "--config", testbed.config), 2);
    assert_true(said(&errors, "did you mean cloud?"));
}

static void without_a_broker_nobody_is_asked(void **state)
{
    (void)state;
    char config[256];
    snprintf(config, sizeof config, "%s",
             fixture_write(&testbed.fixture, "far.yaml",
                           "redis: redis://127.0.0.1:1\nbus: {brokers: ['tcp://127.0.0.1:1']}\n"));
    assert_int_equal(RUN("--test", "--config", config), 3);
    assert_int_equal(RUN("--json", "--config", config), 0);
    assert_string_equal(out.data, "[]\n");
}

static int set_up(void **state)
{
    static const char *const workers[] = {"w0", "w1", "w2", NULL};
    (void)state;
    testbed_init(&testbed, config_format, scenario);
    testbed_start(&testbed, workers);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    testbed_release(&testbed);
    buf_release(&out);
    buf_release(&errors);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_tell_what_is_known_and_who_serves_them),
        cmocka_unit_test(a_test_asks_each_arm_and_one_failure_ends_no_other),
        cmocka_unit_test(a_test_can_be_of_one_model_or_arm),
        cmocka_unit_test(a_test_is_asked_without_a_role),
        cmocka_unit_test(a_refresh_compares_what_is_served_with_what_is_configured),
        cmocka_unit_test(lines_of_a_refresh_can_be_pasted),
        cmocka_unit_test(a_refresh_of_all_says_who_cannot_be_asked),
        cmocka_unit_test(without_a_broker_nobody_is_asked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
