/* doctor and check-config: what they find, what they advise, and their exit codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "tests/lib/fixture.h"

static struct fixture fixture;

static int run_argv(const char *const *argv, json_t **ret)
{
    struct buf out = {0}, errors = {0};
    int code = fixture_run(&fixture, argv, &out, &errors);
    *ret = json_parse(out.len > 0 ? out.data : "", out.len, NULL);
    if (*ret == NULL)
        fail_msg("%s", errors.len > 0 ? errors.data : "no output");
    buf_release(&out);
    buf_release(&errors);
    return code;
}

/* Runs `orchestrator COMMAND --json` with the configuration; the exit code, and what it printed. */
static int run(const char *command, const char *yaml, json_t **ret)
{
    char config[512];
    snprintf(config, sizeof config, "%s", fixture_write(&fixture, "c.yaml", yaml));
    const char *argv[] = {"orchestrator", command, "--json", "--config", config, NULL};
    return run_argv(argv, ret);
}

/* The check of that name; NULL when there is none. */
static const json_t *check(const json_t *report, const char *name)
{
    const json_t *checks = json_get(report, "checks");
    for (size_t i = 0; i < json_array_size(checks); i++)
        if (strcmp(json_str(json_array_get(checks, i), "check", ""), name) == 0)
            return json_array_get(checks, i);
    return NULL;
}

static void doctor_is_content_with_a_sound_machine(void **state)
{
    (void)state;
    json_t *report;
    assert_int_equal(run("doctor",
                         "providers: {n: {api: noop}}\nmodels: {m: {provider: n}}\n"
                         "workers: [{name: w, provider: n}]\n",
                         &report),
                     0);
    assert_true(json_bool(report, "ok", false));
    static const char *const names[] = {"configuration", "programs", "redis-server", "home"};
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(json_str(check(report, names[i]), "level", ""), "ok");
    assert_string_equal(json_str(check(report, "stack"), "level", ""), "note");
    json_decref(report);
}

static void doctor_says_why_the_home_takes_no_file(void **state)
{
    (void)state;
    json_t *report;
    const char *config = fixture_write(&fixture, "c.yaml", "redis: local\n");
    char command[1024];
    snprintf(command, sizeof command,
             "ulimit -f 0; exec \"$ORCH_BIN\"/orchestrator doctor --json --config '%s'", config);
    assert_int_equal(run_argv((const char *const[]){"/bin/sh", "-c", command, NULL}, &report), 1);
    assert_string_equal(json_str(check(report, "home"), "level", ""), "bad");
    assert_non_null(strstr(json_str(check(report, "home"), "detail", ""), ": File too large"));
    json_decref(report);
}

static void doctor_finds_missing_keys_and_servers(void **state)
{
    (void)state;
    json_t *report;
    char yaml[512];
    snprintf(yaml, sizeof yaml,
             "redis: redis://127.0.0.1:%d\n"
             "providers:\n  cloud: {api: openai, key: 'env:ORCH_NO_SUCH_KEY', base_url: "
             "'http://127.0.0.1:%d'}\n",
             fixture_free_port(), fixture_free_port());
    assert_int_equal(run("doctor", yaml, &report), 1);
    assert_false(json_bool(report, "ok", true));
    static const char *const names[] = {"key cloud", "provider cloud", "redis"};
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(json_str(check(report, names[i]), "level", ""), "bad");
        assert_string_not_equal(json_str(check(report, names[i]), "cure", ""), "");
    }
    assert_non_null(
        strstr(json_str(check(report, "provider cloud"), "detail", ""), "connection refused"));
    json_decref(report);
}

static void doctor_tells_errors_of_the_configuration(void **state)
{
    (void)state;
    json_t *report;
    assert_int_equal(run("doctor", "reids: local\n", &report), 1);
    assert_non_null(strstr(json_str(check(report, "configuration"), "detail", ""),
                           "c.yaml:1:1: unknown key `reids`; did you mean `redis`?"));
    json_decref(report);
}

static void check_config_lists_every_problem(void **state)
{
    (void)state;
    json_t *report;
    assert_int_equal(run("check-config", "a: 1\nb: 2\n", &report), 2);
    assert_false(json_bool(report, "ok", true));
    const json_t *problems = json_get(report, "problems");
    size_t errors = 0, warnings = 0;
    for (size_t i = 0; i < json_array_size(problems); i++) {
        bool warning = json_bool(json_array_get(problems, i), "warning", false);
        warnings += warning;
        errors += !warning;
    }
    assert_int_equal(errors, 2);
    assert_int_equal(warnings, 1); /* that there are no models */
    json_decref(report);
    assert_int_equal(run("check-config", "redis: local\n", &report), 0);
    assert_true(json_bool(report, "ok", false));
    json_decref(report);
}

static int set_up(void **state)
{
    (void)state;
    fixture_init(&fixture);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fixture_release(&fixture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doctor_is_content_with_a_sound_machine),
        cmocka_unit_test(doctor_says_why_the_home_takes_no_file),
        cmocka_unit_test(doctor_finds_missing_keys_and_servers),
        cmocka_unit_test(doctor_tells_errors_of_the_configuration),
        cmocka_unit_test(check_config_lists_every_problem),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
