/* Plans: what is accepted, what is refused and with which words, and the nodes made from them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/task_id.h"
#include "orchestrator/plan.h"
#include "orchestrator/plan_check.h"
#include "orchestrator/prompt.h"

/* A configuration by hand: these tests need roles and models, nothing else. */
static struct config_role roles[] = {
    {.name = "planner", .system = "", .temperature = 0.2, .max_tokens = 4096},
    {.name = "synthesizer", .system = "", .temperature = -1},
    {.name = "writer", .system = "You write.\nMore.", .temperature = -1},
    {.name = "coder", .system = "You write code.", .temperature = 0.5, .max_tokens = 77},
};
static struct config_model models[] = {{.alias = "qwen-coder"}, {.alias = "sonnet"}};
static struct config config = {.path = "test.yaml",
                               .max_subtasks = 20,
                               .max_attempts = 3,
                               .roles = roles,
                               .n_roles = sizeof roles / sizeof *roles,
                               .models = models,
                               .n_models = sizeof models / sizeof *models};

static struct err err;

static struct plan *from_file(const char *text)
{
    struct plan *plan = NULL;
    err = (struct err){0};
    int rc = plan_parse_file(&plan, &config, "p.yaml", text, strlen(text), &err);
    assert_true((rc == 0) == (plan != NULL));
    return plan;
}

static struct plan *from_answer(const char *text)
{
    struct plan *plan = NULL;
    err = (struct err){0};
    int rc = plan_parse_answer(&plan, &config, text, strlen(text), &err);
    assert_true((rc == 0) == (plan != NULL));
    return plan;
}

static void assert_refused(struct plan *plan, const char *words)
{
    if (plan != NULL || strstr(err.text, words) == NULL)
        fail_msg("expected a refusal with \"%s\", got \"%s\"", words, err.text);
}

static void a_file_in_yaml_is_read_with_all_its_fields(void **state)
{
    (void)state;
    struct plan *plan = from_file("title: T\n"
                                  "subtasks:\n"
                                  "  - {id: api, title: The API, role: coder, prompt: do it}\n"
                                  "  - {id: tests, model: sonnet, prompt: test it,\n"
                                  "     depends_on: [api, api]}\n"
                                  "synthesize: false\n");
    assert_non_null(plan);
    assert_string_equal(plan->title, "T");
    assert_false(plan->synthesize);
    assert_int_equal(plan->n_subtasks, 2);
    assert_string_equal(plan->subtasks[0].role, "coder");
    assert_string_equal(plan->subtasks[1].model, "sonnet");
    assert_string_equal(plan->subtasks[1].title, "test it");
    assert_int_equal(plan->subtasks[1].n_deps, 1);
    assert_string_equal(plan->subtasks[1].deps[0], "api");
    plan_free(&plan);
}

static void a_file_in_json_is_read_too(void **state)
{
    (void)state;
    struct plan *plan = from_file("{\"subtasks\": [{\"id\": \"a\", \"prompt\": \"x\"}]}");
    assert_non_null(plan);
    assert_true(plan->synthesize);
    plan_free(&plan);
}

static void a_bad_file_is_refused_with_its_place_and_the_nearest_word(void **state)
{
    (void)state;
    assert_refused(from_file("subtasks: [{id: a, prompt: x, role: codr}]"), "did you mean `coder`");
    assert_refused(from_file("subtasks:\n  - {id: a, prompt: x, model: sonet}"), "p.yaml:2:");
    assert_refused(from_file("subtasks: [{id: a, promt: x}]"), "promt");
    assert_refused(from_file("subtasks: [{id: a, prompt: ''}]"), "`a` has an empty prompt");
    assert_refused(from_file("subtasks: [{id: _a, prompt: x}]"), "start with `_`");
    assert_refused(from_file("subtasks: [{id: 'a b', prompt: x}]"), "`a b` is not valid");
    assert_refused(from_file("subtasks: [{prompt: x}]"), "no id");
    assert_refused(from_file("subtasks: []"), "at least one");
    assert_refused(from_file("title: x"), "at least one");
    assert_refused(from_file("- a"), "p.yaml:1:");
    assert_refused(from_file("subtasks: [{id: a, prompt: x}, {id: a, prompt: y}]"),
                   "two subtasks have the id `a`");
    assert_refused(from_file("subtasks: [{id: api, prompt: x}, {id: b, prompt: x, "
                             "depends_on: [apj]}]"),
                   "did you mean `api`");
    assert_refused(from_file("subtasks: [{id: a, prompt: x, depends_on: [a]}]"), "itself");
}

static void a_cycle_is_named(void **state)
{
    (void)state;
    assert_refused(from_file("subtasks:\n"
                             "  - {id: a, prompt: x, depends_on: [b]}\n"
                             "  - {id: b, prompt: x, depends_on: [a]}\n"),
                   "a -> b -> a");
    assert_refused(from_file("subtasks:\n"
                             "  - {id: out, prompt: x, depends_on: [c]}\n"
                             "  - {id: c, prompt: x, depends_on: [free, d]}\n"
                             "  - {id: d, prompt: x, depends_on: [c]}\n"
                             "  - {id: free, prompt: x}\n"),
                   "c -> d -> c");
}

static void add_chain(struct buf *out, int count, bool json)
{
    buf_add_str(out, json ? "{\"subtasks\":[" : "subtasks:\n");
    for (int i = 0; i < count; i++) {
        buf_printf(out,
                   json ? "%s{\"id\":\"n%d\",\"prompt\":\"x\",\"depends_on\":["
                        : "%s- {\"id\": \"n%d\", \"prompt\": \"x\", \"depends_on\": [",
                   json && i > 0 ? "," : "", i);
        if (i > 0)
            buf_printf(out, "\"n%d\"", i - 1);
        buf_add_str(out, json ? "]}" : "]}\n");
    }
    if (json)
        buf_add_str(out, "]}");
}

static void sizes_are_limited(void **state)
{
    (void)state;
    struct buf text = {0};
    add_chain(&text, 10000, false);
    struct plan *plan = from_file(text.data);
    assert_non_null(plan);
    plan_free(&plan);
    buf_clear(&text);
    add_chain(&text, 10001, false);
    assert_refused(from_file(text.data), "more than 10000");
    buf_clear(&text);
    add_chain(&text, 21, true);
    assert_refused(from_answer(text.data), "more than 20");
    config.max_subtasks = 200;
    buf_clear(&text);
    add_chain(&text, PLAN_ANSWER_DEPTH, true);
    plan = from_answer(text.data);
    assert_non_null(plan);
    plan_free(&plan);
    buf_clear(&text);
    add_chain(&text, PLAN_ANSWER_DEPTH + 1, true);
    assert_refused(from_answer(text.data), "deep");
    config.max_subtasks = 20;
    buf_release(&text);
}

static void an_answer_is_found_in_prose_and_fences(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "{\"subtasks\":[{\"id\":\"a\",\"prompt\":\"x\"}]}",
        "Here {you} are:\n```json\n{\"subtasks\":[{\"id\":\"a\",\"prompt\":\"x\"}]}\n```\nDone.",
        ("<think>{\"subtasks\":[{\"id\":\"draft\",\"prompt\":\"y\"}]}</think>"
         "{\"title\":\"T\",\"subtasks\":[{\"id\":\"a\",\"prompt\":\"x\"}]} Good luck {}!"),
        "{\"note\": {\"subtasks\": 1}} {\"subtasks\":[{\"id\":\"a\",\"prompt\":\"x\"}]}",
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct plan *plan = from_answer(answers[i]);
        if (plan == NULL)
            fail_msg("%s: %s", answers[i], err.text);
        assert_int_equal(plan->n_subtasks, 1);
        assert_string_equal(plan->subtasks[0].id, "a");
        plan_free(&plan);
    }
}

static void an_answer_that_is_no_plan_is_refused_with_a_reason(void **state)
{
    (void)state;
    assert_refused(from_answer(""), "no JSON object");
    assert_refused(from_answer("I can't."), "no JSON object");
    assert_refused(from_answer("{\"subtasks\":[{\"id\":\"a\","), "no valid JSON object");
    assert_refused(from_answer("{\"subtasks\":[]}"), "no subtasks");
    assert_refused(from_answer("{\"subtasks\":[7]}"), "empty prompt");
    assert_refused(from_answer("{\"subtasks\":[{\"id\":\"a\",\"prompt\":\"x\","
                               "\"depends_on\":[\"b\"]},{\"id\":\"b\",\"prompt\":\"x\","
                               "\"depends_on\":[\"a\"]}]}"),
                   "a -> b -> a");
    assert_refused(from_answer("{\"subtasks\":[{\"id\":\"a\",\"prompt\":\"x\"},"
                               "{\"id\":\"a\",\"prompt\":\"x\"}]}"),
                   "two subtasks");
}

static void a_bomb_of_braces_ends_soon(void **state)
{
    (void)state;
    struct buf text = {0};
    for (int i = 0; i < 1000000; i++)
        buf_add_str(&text, "{\"a\":");
    assert_refused(from_answer(text.data), "no valid JSON");
    buf_release(&text);
}

static void ids_of_an_answer_are_made_valid_and_stay_distinct(void **state)
{
    (void)state;
    struct plan *plan = from_answer("{\"subtasks\":["
                                    "{\"id\":1,\"prompt\":\"x\"},"
                                    "{\"id\":\"_plan\",\"prompt\":\"x\",\"depends_on\":[1]},"
                                    "{\"id\":\"A b!\",\"prompt\":\"x\",\"depends_on\":[\"_plan\"]},"
                                    "{\"id\":\"A-b\",\"prompt\":\"x\",\"depends_on\":[\"A b!\"]},"
                                    "{\"id\":\"\\u00e9\",\"prompt\":\"x\"},"
                                    "{\"prompt\":\"x\"}]}");
    assert_non_null(plan);
    static const char *const ids[] = {"1", "plan", "A-b", "A-b-2", "s5", "s6"};
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(plan->subtasks[i].id, ids[i]);
        assert_true(sub_id_valid(plan->subtasks[i].id));
    }
    assert_string_equal(plan->subtasks[1].deps[0], "1");
    assert_string_equal(plan->subtasks[2].deps[0], "plan");
    assert_string_equal(plan->subtasks[3].deps[0], "A-b");
    plan_free(&plan);
}

static void an_unknown_role_of_an_answer_becomes_the_default(void **state)
{
    (void)state;
    struct plan *plan = from_answer("{\"subtasks\":["
                                    "{\"id\":\"a\",\"role\":\"wizard\",\"prompt\":\"x\"},"
                                    "{\"id\":\"b\",\"role\":\"planner\",\"prompt\":\"x\"},"
                                    "{\"id\":\"c\",\"role\":\"coder\",\"prompt\":\"x\"}]}");
    assert_non_null(plan);
    assert_string_equal(plan->subtasks[0].role, "writer");
    assert_string_equal(plan->subtasks[1].role, "writer");
    assert_string_equal(plan->subtasks[2].role, "coder");
    plan_free(&plan);
}

static struct message decoded(enum message_type type, struct bytes bytes)
{
    struct message message;
    assert_int_equal(message_decode_as(&message, type, bytes.data, bytes.len), 0);
    return message;
}

static void nodes_carry_settings_of_their_role_and_end_in_the_synthesis(void **state)
{
    (void)state;
    struct plan *plan = from_file("subtasks:\n"
                                  "  - {id: a, title: First, role: coder, prompt: pa}\n"
                                  "  - {id: b, prompt: pb, depends_on: [a]}\n"
                                  "  - {id: c, prompt: pc}\n");
    struct plan_nodes nodes = {0};
    assert_int_equal(plan_to_nodes(&nodes, plan, &config, "the task", &err), 0);
    assert_int_equal(nodes.n_nodes, 4);
    struct message work = decoded(MESSAGE_work, nodes.nodes[0].work);
    assert_string_equal(work.work.kind, "run");
    assert_string_equal(work.work.system.data, "You write code.");
    assert_int_equal(work.work.max_tokens, 77);
    assert_true(work.work.temperature > 0.49 && work.work.temperature < 0.51);
    message_release(&work);
    work = decoded(MESSAGE_work, nodes.nodes[1].work);
    assert_string_equal(work.work.role, "writer");
    assert_string_equal(work.work.dep_ids[0], "a");
    assert_string_equal(work.work.dep_titles[0], "First");
    message_release(&work);
    const struct queue_node *last = &nodes.nodes[3];
    assert_string_equal(last->id, PLAN_SYNTHESIS_NODE);
    assert_int_equal(last->n_deps, 2);
    assert_string_equal(last->deps[0], "b");
    assert_string_equal(last->deps[1], "c");
    assert_int_equal(last->max_attempts, 3);
    work = decoded(MESSAGE_work, last->work);
    assert_string_equal(work.work.kind, "synthesize");
    assert_string_equal(work.work.task_text.data, "the task");
    assert_non_null(strstr(work.work.system.data, "synthesize"));
    message_release(&work);
    struct message meta = decoded(MESSAGE_meta, last->meta);
    assert_string_equal(meta.meta.role, "synthesizer");
    message_release(&meta);
    plan_nodes_release(&nodes);
    plan_free(&plan);
}

static void one_subtask_needs_no_synthesis(void **state)
{
    (void)state;
    struct plan *plan = NULL;
    struct plan_nodes nodes = {0};
    assert_int_equal(plan_single(&plan, &config, "do it\nwell", NULL, "sonnet", &err), 0);
    assert_int_equal(plan_to_nodes(&nodes, plan, &config, "do it\nwell", &err), 0);
    assert_int_equal(nodes.n_nodes, 1);
    struct message meta = decoded(MESSAGE_meta, nodes.nodes[0].meta);
    assert_string_equal(meta.meta.model, "sonnet");
    assert_string_equal(meta.meta.role, "writer");
    assert_string_equal(meta.meta.title, "do it");
    message_release(&meta);
    plan_nodes_release(&nodes);
    plan_free(&plan);
    assert_int_equal(plan_single(&plan, &config, "x", "wrter", NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "did you mean `writer`"));
    assert_int_equal(plan_single(&plan, &config, " \n", NULL, NULL, &err), -EINVAL);
}

static void the_planner_is_asked_with_roles_and_a_strict_schema(void **state)
{
    (void)state;
    struct plan_nodes nodes = {0};
    assert_int_equal(plan_to_planner_nodes(&nodes, &config, "the task", NULL, NULL, &err), 0);
    assert_int_equal(nodes.n_nodes, 1);
    assert_string_equal(nodes.nodes[0].id, PLAN_NODE);
    assert_true(nodes.nodes[0].expands);
    assert_int_equal(nodes.nodes[0].n_deps, 0);
    struct message work = decoded(MESSAGE_work, nodes.nodes[0].work);
    assert_string_equal(work.work.prompt.data, "the task");
    assert_non_null(strstr(work.work.system.data, "decompose"));
    assert_non_null(strstr(work.work.system.data, "- coder: You write code.\n"));
    assert_null(strstr(work.work.system.data, "- planner"));
    json_t *schema = json_parse(work.work.json_schema.data, work.work.json_schema.len, &err);
    assert_non_null(schema);
    assert_true(json_is_false(json_get(schema, "additionalProperties")));
    assert_int_equal(json_array_size(json_path(schema, "properties.subtasks.items.required")), 5);
    assert_int_equal(
        json_array_size(json_path(schema, "properties.subtasks.items.properties.role.enum")), 2);
    json_decref(schema);
    message_release(&work);
    plan_nodes_release(&nodes);
}

static void a_repair_sees_the_refused_plan_and_the_complaint(void **state)
{
    (void)state;
    struct plan_nodes nodes = {0};
    assert_int_equal(
        plan_to_planner_nodes(&nodes, &config, "the task", PLAN_NODE, "it has a cycle", &err), 0);
    assert_string_equal(nodes.nodes[0].id, PLAN_REPAIR_NODE);
    assert_int_equal(nodes.nodes[0].n_deps, 1);
    assert_string_equal(nodes.nodes[0].deps[0], PLAN_NODE);
    struct message work = decoded(MESSAGE_work, nodes.nodes[0].work);
    assert_non_null(strstr(work.work.prompt.data, "it has a cycle"));
    assert_string_equal(work.work.dep_ids[0], PLAN_NODE);
    message_release(&work);
    plan_nodes_release(&nodes);
}

static void titles_are_cut_between_characters(void **state)
{
    (void)state;
    struct buf text = {0};
    for (int i = 0; i < 100; i++)
        buf_add_str(&text, "\xc3\xa9");
    char *title = prompt_title(text.data);
    assert_true(strlen(title) <= 80);
    assert_int_equal((strlen(title) - 3) % 2, 0);
    free(title);
    buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_in_yaml_is_read_with_all_its_fields),
        cmocka_unit_test(a_file_in_json_is_read_too),
        cmocka_unit_test(a_bad_file_is_refused_with_its_place_and_the_nearest_word),
        cmocka_unit_test(a_cycle_is_named),
        cmocka_unit_test(sizes_are_limited),
        cmocka_unit_test(an_answer_is_found_in_prose_and_fences),
        cmocka_unit_test(an_answer_that_is_no_plan_is_refused_with_a_reason),
        cmocka_unit_test(a_bomb_of_braces_ends_soon),
        cmocka_unit_test(ids_of_an_answer_are_made_valid_and_stay_distinct),
        cmocka_unit_test(an_unknown_role_of_an_answer_becomes_the_default),
        cmocka_unit_test(nodes_carry_settings_of_their_role_and_end_in_the_synthesis),
        cmocka_unit_test(one_subtask_needs_no_synthesis),
        cmocka_unit_test(the_planner_is_asked_with_roles_and_a_strict_schema),
        cmocka_unit_test(a_repair_sees_the_refused_plan_and_the_complaint),
        cmocka_unit_test(titles_are_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
