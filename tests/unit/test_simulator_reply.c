/* The simulator's texts: plans, files, schemas, pieces; and its scenario rules, without a server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "simulator/family.h"
#include "simulator/reply.h"
#include "simulator/scenario.h"

/* The answer to a request; the caller releases it. */
static struct buf reply(const char *system, const char *prompt)
{
    struct sim_request request = {.family = &sim_family_openai, .model = "m"};
    struct buf out = {0};
    buf_add_str(&request.system, system);
    buf_add_str(&request.prompt, prompt);
    sim_reply_builtin(&request, &out);
    sim_request_release(&request);
    return out;
}

static void assert_has(const struct buf *text, const char *part)
{
    if (text->data == NULL || strstr(text->data, part) == NULL)
        fail_msg("'%s' is not in: %.2000s", part, text->data != NULL ? text->data : "");
}

static json_t *plan_of(const char *task)
{
    struct buf text = reply("Decompose the task.", task);
    json_t *plan = json_parse(text.data, text.len, NULL);
    assert_non_null(plan);
    buf_release(&text);
    return plan;
}

static const json_t *subtask(const json_t *plan, const char *id)
{
    size_t i;
    json_t *item;
    json_array_foreach (json_get(plan, "subtasks"), i, item) {
        if (strcmp(json_str(item, "id", ""), id) == 0)
            return item;
    }
    return NULL;
}

/* --- pieces -------------------------------------------------------------------------------- */

static void pieces_put_together_are_the_text(void **state)
{
    static const char *const texts[] = {"",
                                        "one two",
                                        "  leading",
                                        "trailing \n\n",
                                        "averyveryverylongwordthatgoesonandon",
                                        "zwölf Grüße — ünïcödé ünïcödéünïcödé 漢字漢字漢字漢字漢字",
                                        "\t\n\n\n\n                      x"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t len = strlen(texts[i]), at = 0, n;
        while ((n = sim_piece(texts[i] + at, len - at)) > 0) {
            at += n;
            assert_true(((unsigned char)texts[i][at] & 0xc0) != 0x80); /* on a border */
        }
        assert_int_equal(at, len);
    }
}

static void a_filler_has_as_many_pieces_as_asked_for(void **state)
{
    (void)state;
    for (int64_t want = 0; want < 100; want += 7) {
        struct buf text = {0};
        size_t at = 0, n;
        int64_t count = 0;
        sim_reply_filler(want, &text);
        buf_reserve(&text, 1);
        while ((n = sim_piece(text.data + at, text.len - at)) > 0) {
            at += n;
            count++;
        }
        assert_int_equal(count, want);
        buf_release(&text);
    }
}

/* --- plans --------------------------------------------------------------------------------- */

static void a_plan_is_a_graph_of_at_least_four_subtasks(void **state)
{
    static const char *const tasks[] = {
        "Write a small command line todo app in Python with tests",
        "Build a C library that parses dates. Keep a history in a database.",
        "Compare three ways to store energy and write an essay",
        "",
        "\xf0\x9f\x8e\x89 \xf0\x9f\x8e\x89",
        "\"quoted\"; `odd` \\ {title}\n\nsecond line",
    };
    (void)state;
    for (size_t k = 0; k < sizeof tasks / sizeof *tasks; k++) {
        json_t *plan = plan_of(tasks[k]);
        const json_t *list = json_get(plan, "subtasks");
        size_t i, j, roots = 0, joins = 0;
        json_t *item, *dep;
        assert_true(json_array_size(list) >= 4);
        assert_non_null(strstr(json_str(plan, "title", ""), "(simulated)"));
        json_array_foreach (list, i, item) {
            const json_t *deps = json_get(item, "depends_on");
            roots += json_array_size(deps) == 0;
            joins += json_array_size(deps) > 1;
            assert_string_not_equal(json_str(item, "role", ""), "");
            assert_string_not_equal(json_str(item, "title", ""), "");
            assert_string_not_equal(json_str(item, "prompt", ""), "");
            json_array_foreach (deps, j, dep) {
                assert_non_null(subtask(plan, json_string_value(dep)));
            }
        }
        assert_true(roots >= 1 && joins >= 1);
        json_decref(plan);
    }
}

static void a_plan_follows_the_tasks_words(void **state)
{
    (void)state;
    json_t *plan = plan_of("Please write a tiny web server in C");
    const char *prompt = json_str(subtask(plan, "code"), "prompt", "");
    assert_non_null(strstr(prompt, "Project: tiny web server in C; package: tiny_web_server; "
                                   "language: c\n"));
    assert_null(subtask(plan, "storage"));
    json_decref(plan);
    plan = plan_of("Write a todo app in Python that keeps a history in sqlite");
    assert_non_null(subtask(plan, "storage"));
    json_decref(plan);
    plan = plan_of("Explain why the sky is blue");
    assert_non_null(subtask(plan, "draft"));
    assert_null(subtask(plan, "code"));
    json_decref(plan);
}

/* --- answers of the roles ------------------------------------------------------------------ */

static void files_of_one_plan_have_names_that_agree(void **state)
{
    static const struct {
        const char *task, *code, *tests;
    } cases[] = {
        {"Write a date parser in Python", "```python path=date_parser.py\n",
         "from date_parser import Entries"},
        {"Write a date parser in C", "```c path=date_parser.c\n", "#include \"date_parser.h\""},
        {"Make a web page in HTML", "```html path=index.html\n", "TESTING.md"},
        {"Write a date parser in JavaScript", "```javascript path=date_parser.js\n",
         "require('./date_parser.js')"},
        {"Write a date parser as a shell script", "```shell path=date_parser", "sh date_parser"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *plan = plan_of(cases[i].task);
        struct buf code = reply("You are a senior programmer. Write code.",
                                json_str(subtask(plan, "code"), "prompt", ""));
        struct buf tests = reply("You are a test engineer. Write tests.",
                                 json_str(subtask(plan, "tests"), "prompt", ""));
        struct buf docs = reply("You are a writer of clear, exact prose.",
                                json_str(subtask(plan, "docs"), "prompt", ""));
        assert_has(&code, cases[i].code);
        assert_has(&tests, cases[i].tests);
        assert_has(&docs, "```markdown path=README.md\n");
        assert_has(&code, "(simulated)");
        assert_has(&tests, "(simulated)");
        assert_has(&docs, "(simulated)");
        assert_null(strstr(code.data, "{package}"));
        buf_release(&code);
        buf_release(&tests);
        buf_release(&docs);
        json_decref(plan);
    }
}

#define RESULTS                                                                                    \
    "## The whole task\n\nWrite a date parser in Python\n\n"                                       \
    "## Result of Code: date parser (code)\n\nText.\n```python path=date_parser.py\nx = "          \
    "1\n```\n\n"                                                                                   \
    "## Result of Tests: date parser (tests)\n\nMore text.\n\n"                                    \
    "## Your subtask\n\n"

static void reviews_and_syntheses_name_every_result(void **state)
{
    static const struct {
        const char *system, *own, *says;
    } cases[] = {
        {"You are an exacting reviewer. Look for what is wrong.", "Review it.", "verdict: accept"},
        {"You turn the results of several specialists into one answer.", "Answer the user.",
         "# date parser in Python"},
        {"", "", "# date parser in Python"}, /* several results and nothing else */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf prompt = {0};
        buf_printf(&prompt, "%s%s", RESULTS, cases[i].own);
        struct buf text = reply(cases[i].system, prompt.data);
        assert_has(&text, cases[i].says);
        assert_has(&text, "Code: date parser (code): ");
        assert_has(&text, "Tests: date parser (tests): ");
        assert_has(&text, "1 file");
        assert_has(&text, "(simulated)");
        buf_release(&text);
        buf_release(&prompt);
    }
}

static void anything_else_gets_one_honest_sentence(void **state)
{
    (void)state;
    struct buf text = reply("You are a careful, capable expert.", "Hello. How are you?");
    assert_string_equal(text.data, "(simulated) No model runs here. You asked m: \"Hello\".");
    buf_release(&text);
    text = reply("", "");
    assert_has(&text, "(simulated)");
    buf_release(&text);
}

/* --- schemas ------------------------------------------------------------------------------- */

static void a_schema_is_followed_with_its_smallest_value(void **state)
{
    static const struct {
        const char *schema, *value;
    } cases[] = {
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":3},\"b\":{"
         "\"type\":\"string\"},\"c\":{\"enum\":[\"x\",\"y\"]},\"d\":{\"const\":5}}}",
         "{\"a\":3,\"b\":\"(simulated)\",\"c\":\"x\",\"d\":5}"},
        {"{\"type\":\"ARRAY\",\"items\":{\"type\":\"NUMBER\"},\"minItems\":2}", "[0,0]"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"boolean\"}]}", "true"},
        {"{\"type\":[\"integer\",\"null\"]}", "0"},
        {"{\"$ref\":\"#/$defs/x\",\"$defs\":{\"x\":{\"type\":\"boolean\"}}}", "true"},
        {"{\"$ref\":\"#\"}", NULL}, /* refers to itself: ends all the same */
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"},\"b\":{\"$ref\":\"#\"}}}",
         NULL},
        {"true", "\"(simulated)\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf text = {0};
        json_t *schema = json_parse(cases[i].schema, strlen(cases[i].schema), NULL);
        sim_reply_schema(schema, &text);
        json_t *value = json_parse(text.data, text.len, NULL);
        assert_true(text.len < 1 << 20);
        assert_non_null(value);
        if (cases[i].value != NULL)
            assert_string_equal(text.data, cases[i].value);
        json_decref(value);
        json_decref(schema);
        buf_release(&text);
    }
}

/* --- scenarios ----------------------------------------------------------------------------- */

static void rules_match_by_every_condition(void **state)
{
    static const char yaml[] = "rules:\n"
                               "  - {match: {model: 'a*', key: 'k?', prompt: p, system: s}}\n"
                               "  - {match: {api: gemini}}\n";
    static const struct {
        const char *model, *key, *prompt, *system;
        const struct sim_family *family;
        int rule;
    } cases[] = {
        {"ab", "k1", "xpx", "s", &sim_family_openai, 0},
        {"b", "k1", "p", "s", &sim_family_openai, -1},
        {"a", "k", "p", "s", &sim_family_openai, -1},
        {"a", "k1", "x", "s", &sim_family_openai, -1},
        {"a", "k1", "p", "", &sim_family_openai, -1},
        {"a", "k1", "p", "", &sim_family_gemini, 1},
    };
    struct sim_scenario *scenario;
    uint64_t random = 1;
    (void)state;
    assert_int_equal(sim_scenario_parse(&scenario, "t", yaml, strlen(yaml), NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sim_request request = {.family = cases[i].family, .path = "/x"};
        int index = -2;
        strcpy(request.model, cases[i].model);
        strcpy(request.key, cases[i].key);
        buf_add_str(&request.prompt, cases[i].prompt);
        buf_add_str(&request.system, cases[i].system);
        assert_non_null(sim_scenario_match(scenario, &request, &random, &index));
        assert_int_equal(index, cases[i].rule);
        sim_request_release(&request);
    }
    sim_scenario_unref(&scenario);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_put_together_are_the_text),
        cmocka_unit_test(a_filler_has_as_many_pieces_as_asked_for),
        cmocka_unit_test(a_plan_is_a_graph_of_at_least_four_subtasks),
        cmocka_unit_test(a_plan_follows_the_tasks_words),
        cmocka_unit_test(files_of_one_plan_have_names_that_agree),
        cmocka_unit_test(reviews_and_syntheses_name_every_result),
        cmocka_unit_test(anything_else_gets_one_honest_sentence),
        cmocka_unit_test(a_schema_is_followed_with_its_smallest_value),
        cmocka_unit_test(rules_match_by_every_condition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
