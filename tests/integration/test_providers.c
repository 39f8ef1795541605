/* `orchestrator providers`: what is there, what is usable here, and what stands in the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/config.h"
#include "common/json.h"
#include "tests/lib/http_server.h"
#include "tests/lib/testbed.h"

static struct fixture *fixture;
static struct testbed testbed;
static struct http_server *server;
static struct buf out, errors;

static int run(const char *yaml, bool json)
{
    char config[512];
    snprintf(config, sizeof config, "%s", fixture_write(fixture, "c.yaml", yaml));
    const char *argv[] = {"orchestrator",         "providers", "--config", config,
                          json ? "--json" : NULL, NULL};
    buf_clear(&out);
    buf_clear(&errors);
    int code = fixture_run(fixture, argv, &out, &errors);
    buf_add_str(&out, "");
    return code;
}

static json_t *run_json(const char *yaml)
{
    if (run(yaml, true) != 0)
        fail_msg("%s", errors.data);
    json_t *report = json_parse(out.data, out.len, NULL);
    assert_non_null(report);
    return report;
}

static const json_t *item(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_str(json_array_get(list, i), "name", ""), name) == 0)
            return json_array_get(list, i);
    fail_msg("there is no %s", name);
    return NULL;
}

static void assert_usable(const json_t *report, const char *name)
{
    const json_t *provider = item(json_get(report, "providers"), name);
    assert_string_equal(json_str(provider, "why", "?"), "");
    assert_true(json_bool(provider, "usable", false));
}

static void assert_why(const json_t *report, const char *name, const char *part)
{
    const json_t *provider = item(json_get(report, "providers"), name);
    assert_false(json_bool(provider, "usable", true));
    if (strstr(json_str(provider, "why", ""), part) == NULL)
        fail_msg("\"%s\" is not in: %s", part, json_str(provider, "why", ""));
}

static void each_obstacle_is_said_with_its_cure(void **state)
{
    (void)state;
    char yaml[2048];
    int nowhere = fixture_free_port();
    setenv("ORCH_TEST_KEY", "sk-planted-key-value", 1);
    unsetenv("ORCH_NO_SUCH_KEY");
    snprintf(yaml, sizeof yaml,
             "providers:\n"
             "  ready:  {api: openai-compatible, base_url: 'http://127.0.0.1:%d',\n"
             "           key: 'env:ORCH_TEST_KEY'}\n"
             "  keyless: {api: anthropic, key: 'env:ORCH_NO_SUCH_KEY',\n"
             "            base_url: 'http://127.0.0.1:%d'}\n"
             "  filed:  {api: anthropic, key: 'file:/nowhere/key',\n"
             "           base_url: 'http://127.0.0.1:%d'}\n"
             "  away:   {api: ollama, base_url: 'http://127.0.0.1:%d'}\n"
             "  theirs: {api: plugin, plugin: /nowhere/theirs.so,\n"
             "           base_url: 'http://127.0.0.1:%d'}\n"
             "  web:    {api: search, base: ready, engine: duckduckgo}\n"
             "  xng:    {api: search, base: ready, engine: searxng,\n"
             "           engine_url: 'http://127.0.0.1:%d'}\n"
             "  google: {api: search, base: ready, engine: google, engine_cx: x,\n"
             "           engine_key: 'env:ORCH_NO_SUCH_KEY'}\n"
             "  lame:   {api: search, base: away, engine: duckduckgo}\n"
             "  'null': {api: noop}\n",
             http_server_port(server), http_server_port(server), http_server_port(server), nowhere,
             http_server_port(server), nowhere);
    json_t *report = run_json(yaml);
    assert_usable(report, "ready");
    assert_usable(report, "web");
    assert_usable(report, "null");
    assert_why(report, "keyless", "its key is missing: export ORCH_NO_SUCH_KEY");
    assert_why(report, "filed", "its key is missing: it is looked for in file:/nowhere/key");
    assert_why(report, "away", "connection refused): start it, or correct `base_url`");
    assert_why(report, "theirs", "/nowhere/theirs.so cannot be read: No such file or directory");
    assert_why(report, "xng", "the search engine does not answer at 127.0.0.1:");
    assert_why(report, "google", "the engine's key is missing: export ORCH_NO_SUCH_KEY");
    assert_why(report, "lame", "its base is not usable: away: the server does not answer");
    assert_null(strstr(out.data, "sk-planted"));
    json_decref(report);
}

static void limits_and_engines_are_listed(void **state)
{
    (void)state;
    json_t *report =
        run_json("providers:\n"
                 "  n: {api: noop, limits: {requests_per_minute: 50, tokens_per_minute: 40000}}\n"
                 "  s: {api: search, base: n}\n");
    const json_t *n = item(json_get(report, "providers"), "n");
    assert_int_equal(json_int(json_get(n, "limits"), "requests_per_minute", 0), 50);
    assert_int_equal(json_int(json_get(n, "limits"), "tokens_per_minute", 0), 40000);
    assert_int_equal(json_int(json_get(n, "limits"), "key_concurrency", -1), 0);
    const json_t *s = item(json_get(report, "providers"), "s");
    assert_string_equal(json_str(s, "base", ""), "n");
    assert_string_equal(json_str(s, "engine", ""), "duckduckgo");
    json_decref(report);
}

static void every_api_comes_with_the_line_that_configures_it(void **state)
{
    (void)state;
    json_t *report = run_json("providers: {n: {api: noop}}\n");
    const json_t *apis = json_get(report, "apis");
    size_t count;
    config_apis(&count);
    assert_int_equal(json_array_size(apis), count);
    assert_true(json_bool(item(apis, "noop"), "configured", false));
    assert_false(json_bool(item(apis, "anthropic"), "configured", true));
    /* What is recommended can be configured. */
    for (size_t i = 0; i < json_array_size(apis); i++) {
        struct config *config = NULL;
        struct err err = {0};
        struct buf yaml = {0};
        buf_printf(&yaml, "providers:\n  PROVIDER: {api: noop}\n  %s\n",
                   json_str(json_array_get(apis, i), "recipe", ""));
        if (config_parse(&config, "recipe", yaml.data, yaml.len, &err) != 0)
            fail_msg("%s: %s", yaml.data, err.text);
        config_free(&config);
        buf_release(&yaml);
    }
    json_decref(report);
}

static void people_get_a_table_and_sentences(void **state)
{
    (void)state;
    assert_int_equal(run("providers:\n  keyless: {api: openai, key: 'env:ORCH_NO_SUCH_KEY'}\n"
                         "  n: {api: noop, limits: {requests_per_minute: 50}}\n",
                         false),
                     0);
    assert_non_null(strstr(out.data, "50 requests/min"));
    assert_non_null(strstr(out.data, "keyless: its key is missing: export ORCH_NO_SUCH_KEY\n"));
    assert_non_null(strstr(out.data, "not configured:\n"));
    assert_non_null(strstr(out.data, "gemini: {api: gemini, key: env:GEMINI_API_KEY}"));
}

static void a_wrong_configuration_is_an_error_of_usage(void **state)
{
    (void)state;
    assert_int_equal(run("providers: {n: {api: nope}}\n", true), 2);
}

static void workers_on_the_bus_are_named(void **state)
{
    (void)state;
    testbed_start_broker(&testbed);
    testbed_start_worker(&testbed, 0, "w-null");
    const char *argv[] = {"orchestrator", "providers", "--json", "--config", testbed.config, NULL};
    buf_clear(&out);
    assert_int_equal(fixture_run(fixture, argv, &out, NULL), 0);
    json_t *report = json_parse(out.data, out.len, NULL);
    const json_t *workers = json_get(item(json_get(report, "providers"), "n"), "workers");
    assert_int_equal(json_array_size(workers), 1);
    assert_string_equal(json_string_value(json_array_get(workers, 0)), "w-null");
    json_decref(report);
}

static int set_up(void **state)
{
    (void)state;
    char bus[1024];
    testbed_init(&testbed, "", NULL);
    fixture = &testbed.fixture;
    snprintf(bus, sizeof bus,
             "redis: unix://%s\n"
             "bus: {brokers: ['tcp://127.0.0.1:%d']}\n"
             "providers: {n: {api: noop}}\n"
             "models: {m: {provider: n, name: m}}\n"
             "workers: [{name: w-null, provider: n}]\n",
             fixture->redis_socket, fixture_free_port());
    snprintf(testbed.config, sizeof testbed.config, "%s", fixture_write(fixture, "bus.yaml", bus));
    server = http_server_start();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    buf_release(&out);
    buf_release(&errors);
    http_server_stop(&server);
    testbed_release(&testbed);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_obstacle_is_said_with_its_cure),
        cmocka_unit_test(limits_and_engines_are_listed),
        cmocka_unit_test(every_api_comes_with_the_line_that_configures_it),
        cmocka_unit_test(people_get_a_table_and_sentences),
        cmocka_unit_test(a_wrong_configuration_is_an_error_of_usage),
        cmocka_unit_test(workers_on_the_bus_are_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
