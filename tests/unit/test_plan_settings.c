/* What subtasks of a plan's file may say of their call, and what a submitter asks of all of them:
 * read, checked, and put into the records. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/plan.h"
#include "orchestrator/plan_images.h"
#include "schemas/mem.h"
#include "tests/lib/fixture.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct fixture fixture;
static struct config *config;
static struct err err;

static const char settings[] =
    "providers: {o: {api: openai, key: none}, l: {api: ollama}}\n"
    "models: {gpt: {provider: o, name: gpt-6-sol}, text: {provider: l, name: qwen2.5-coder},\n"
    "  far: {provider: o, name: text-embedding-3-small}, near: {provider: l, name: bge-m3}}\n"
    "roles:\n"
    "  general: {seed: 5, stop: [A, B], effort: low, cache: on, temperature: 0.5, max_tokens: 10}\n"
    "  writer: {}\n";

/* A file in the fixture's folder. */
static struct plan *read_plan(const char *text)
{
    struct plan *plan = NULL;
    char path[256];
    snprintf(path, sizeof path, "%s/p.yaml", fixture.dir);
    err = (struct err){""};
    int rc = plan_parse_file(&plan, config, path, text, strlen(text), &err);
    assert_true((rc == 0) == (plan != NULL));
    return plan;
}

static struct plan_nodes nodes_of(const char *text)
{
    struct plan_nodes nodes = {0};
    struct plan *plan = read_plan(text);
    if (plan == NULL)
        fail_msg("%s", err.text);
    assert_int_equal(plan_to_nodes(&nodes, plan, config, "task", &err), 0);
    plan_free(&plan);
    return nodes;
}

static struct message decoded(enum message_type type, struct bytes bytes)
{
    struct message message;
    assert_int_equal(message_decode_as(&message, type, bytes.data, bytes.len), 0);
    return message;
}

static void settings_of_the_role_reach_the_worker(void **state)
{
    (void)state;
    struct plan_nodes nodes =
        nodes_of("subtasks: [{id: a, prompt: '12345'}, {id: b, role: writer, prompt: x}]");
    struct message work = decoded(MESSAGE_work, nodes.nodes[0].work);
    assert_true(work.work.has_seed);
    assert_int_equal(work.work.seed, 5);
    assert_int_equal(work.work.n_stop, 2);
    assert_string_equal(work.work.stop[1], "B");
    assert_string_equal(work.work.effort, "low");
    assert_string_equal(work.work.cache, "on");
    assert_int_equal(work.work.max_tokens, 10);
    size_t bytes = work.work.system.len + work.work.prompt.len;
    message_release(&work);
    struct message meta = decoded(MESSAGE_meta, nodes.nodes[0].meta);
    assert_int_equal(meta.meta.prompt_tokens, (bytes + 3) / 4);
    assert_false(meta.meta.offline);
    message_release(&meta);
    work = decoded(MESSAGE_work, nodes.nodes[1].work);
    assert_false(work.work.has_seed);
    assert_int_equal(work.work.n_stop, 0);
    assert_string_equal(work.work.effort, "");
    assert_string_equal(work.work.cache, "");
    message_release(&work);
    plan_nodes_release(&nodes);
}

static void what_a_subtask_says_itself_wins(void **state)
{
    (void)state;
    struct plan_nodes nodes =
        nodes_of("subtasks: [{id: a, prompt: p, temperature: 0, max_tokens: 7, seed: 0, "
                 "stop: END, effort: high, cache: auto}]");
    struct message work = decoded(MESSAGE_work, nodes.nodes[0].work);
    assert_true(work.work.temperature == 0);
    assert_int_equal(work.work.max_tokens, 7);
    assert_true(work.work.has_seed);
    assert_int_equal(work.work.seed, 0);
    assert_int_equal(work.work.n_stop, 1);
    assert_string_equal(work.work.stop[0], "END");
    assert_string_equal(work.work.effort, "high");
    assert_string_equal(work.work.cache, "");
    message_release(&work);
    plan_nodes_release(&nodes);
}

static void a_cache_that_is_off_is_off_for_everything(void **state)
{
    (void)state;
    config->cache = false;
    struct plan_nodes nodes = nodes_of("subtasks: [{id: a, prompt: p, cache: on}]");
    config->cache = true;
    struct message work = decoded(MESSAGE_work, nodes.nodes[0].work);
    assert_string_equal(work.work.cache, "off");
    message_release(&work);
    plan_nodes_release(&nodes);
}

#define S "subtasks: [{id: a, prompt: p, "
static const struct {
    const char *text, *sentence;
} bad[] = {
    {S "temperature: 3}]", ":1:44: `temperature` must be between 0 and 2"},
    {S "max_tokens: 0}]", ":1:43: `max_tokens` must be between 1 and 1000000000"},
    {S "seed: x}]", ":1:37: `seed` must be a whole number"},
    {S "stop: [a, b, c, d, e]}]", ":1:37: `stop` has more than 4 strings"},
    {S "stop: ['']}]", ":1:37: each of `stop` must have 1 to 1024 bytes"},
    {S "effort: much}]", ":1:39: `effort` must be none, minimal, low, medium or high"},
    {S "cache: maybe}]", ":1:38: `cache` must be auto, on or off"},
    {S "kind: plan}]", ":1:37: `kind` must be run or embed"},
    {S "kind: embed, seed: 1}]", ":1:50: `seed` does nothing with `kind: embed`"},
    {S "kind: embed, model: gpt}]", "subtask `a`: model `gpt` makes no embeddings"},
    {S "model: text, images: ['http://x/y.png']}]", "subtask `a`: model `text` takes no images"},
    {S "images: [no.png]}]", ":1:40: cannot read the image "},
    {S "images: ['http://a/b c']}]",
     ":1:40: image http://a/b c: the address has a character that none has"},
    {S "images: ['https://']}]", ":1:40: image https://: that is no usable address"},
    {S "temprature: 1}]", "unknown key `temprature` in a subtask; did you mean `temperature`?"},
};

static void mistakes_are_refused_with_their_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_null(read_plan(bad[i].text));
        if (strstr(err.text, bad[i].sentence) == NULL)
            fail_msg("%s\nnot: %s", err.text, bad[i].sentence);
    }
}

/* --- vectors ------------------------------------------------------------------------------ */

static void vectors_are_made_by_a_model_that_makes_them(void **state)
{
    (void)state;
    struct plan_nodes nodes =
        nodes_of("subtasks: [{id: a, kind: embed, prompt: p}, {id: b, prompt: q},\n"
                 "  {id: c, kind: embed, model: far, prompt: r}]");
    struct message work = decoded(MESSAGE_work, nodes.nodes[0].work);
    struct message meta = decoded(MESSAGE_meta, nodes.nodes[0].meta);
    assert_string_equal(work.work.kind, "embed");
    assert_string_equal(meta.meta.kind, "embed");
    assert_string_equal(meta.meta.model, "near"); /* local first */
    assert_int_equal(work.work.system.len, 0);
    message_release(&work);
    message_release(&meta);
    meta = decoded(MESSAGE_meta, nodes.nodes[2].meta);
    assert_string_equal(meta.meta.model, "far");
    message_release(&meta);
    /* vectors are nothing to synthesize from */
    assert_int_equal(nodes.n_nodes, 4);
    assert_int_equal(nodes.nodes[3].n_deps, 1);
    assert_string_equal(nodes.nodes[3].deps[0], "b");
    plan_nodes_release(&nodes);
    nodes =
        nodes_of("subtasks: [{id: a, kind: embed, prompt: p}, {id: b, kind: embed, prompt: q}]");
    assert_int_equal(nodes.n_nodes, 2);
    plan_nodes_release(&nodes);
}

static void a_whole_plan_can_be_of_vectors(void **state)
{
    (void)state;
    struct plan *plan = NULL;
    assert_int_equal(plan_single(&plan, config, "text", NULL, NULL, &err), 0);
    assert_int_equal(plan_embed(plan, config, &err), 0);
    assert_string_equal(plan->subtasks[0].model, "near");
    plan_free(&plan);
    assert_int_equal(plan_single(&plan, config, "text", NULL, "gpt", &err), 0);
    assert_int_equal(plan_embed(plan, config, &err), -EINVAL);
    assert_string_equal(err.text, "model `gpt` makes no embeddings");
    plan_free(&plan);
}

/* --- images ------------------------------------------------------------------------------- */

static void images_are_known_by_their_first_bytes(void **state)
{
    (void)state;
    assert_string_equal(plan_image_type("\x89PNG\r\n\x1a\n", 8), "image/png");
    assert_string_equal(plan_image_type("\xff\xd8\xff\xe0", 4), "image/jpeg");
    assert_string_equal(plan_image_type("GIF89a", 6), "image/gif");
    assert_string_equal(plan_image_type("RIFF\1\2\3\4WEBP", 12), "image/webp");
    assert_null(plan_image_type("RIFF\1\2\3\4WAVE", 12));
    assert_null(plan_image_type("\x89PNG", 4));
    assert_null(plan_image_type("", 0));
}

static void images_are_put_beside_the_prompt(void **state)
{
    (void)state;
    fixture_write(&fixture, "a.dat", "\xff\xd8\xffjpg"); /* whatever it is called */
    struct plan_nodes nodes =
        nodes_of("subtasks: [{id: a, prompt: p, images: [a.dat, 'https://x/y.png']}]");
    struct message work = decoded(MESSAGE_work, nodes.nodes[0].work);
    assert_string_equal(work.work.images.data,
                        "[{\"media_type\":\"image/jpeg\",\"data\":\"/9j/anBn\"},"
                        "{\"url\":\"https://x/y.png\"}]");
    message_release(&work);
    plan_nodes_release(&nodes);
}

static void base64_is_padded(void **state)
{
    static const struct {
        const char *data, *text;
    } cases[] = {{"GIF89a", "R0lGODlh"}, {"GIF89ab", "R0lGODlhYg=="}, {"GIF89abc", "R0lGODlhYmM="}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct plan_images images = {0};
        fixture_write(&fixture, "x.gif", cases[i].data);
        assert_int_equal(plan_images_add(&images, "x.gif", fixture.dir, &err), 0);
        char *text = plan_images_take(&images);
        assert_non_null(strstr(text, cases[i].text));
        free(text);
    }
}

static void images_together_are_limited(void **state)
{
    (void)state;
    struct plan_images images = {0};
    size_t half = PLAN_IMAGES_MAX_BYTES / 2;
    char *big = mem_must_zalloc(half + 1);
    memset(big, 'x', half);
    memcpy(big, "GIF89a", 6);
    fixture_write(&fixture, "half.gif", big);
    free(big);
    assert_int_equal(plan_images_add(&images, "half.gif", fixture.dir, &err), 0);
    assert_int_equal(plan_images_add(&images, "half.gif", fixture.dir, &err), 0);
    fixture_write(&fixture, "x.gif", "GIF89a");
    assert_int_equal(plan_images_add(&images, "x.gif", fixture.dir, &err), -EINVAL);
    assert_non_null(strstr(err.text, "may have 8 MiB together"));
    plan_images_release(&images);
    fixture_write(&fixture, "x.txt", "text");
    assert_int_equal(plan_images_add(&images, "x.txt", fixture.dir, &err), -EINVAL);
    assert_non_null(strstr(err.text, "it is no PNG, JPEG, GIF or WebP"));
    assert_int_equal(plan_images_add(&images, fixture.dir, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "it is no regular file"));
    char *none = plan_images_take(&images);
    assert_string_equal(none, "");
    free(none);
}

/* --- overrides ---------------------------------------------------------------------------- */

static void overrides_win_over_roles_and_plans(void **state)
{
    (void)state;
    struct plan_nodes nodes = nodes_of("subtasks: [{id: a, prompt: p, cache: on, effort: high},\n"
                                       "  {id: b, prompt: q}]");
    const struct plan_overrides overrides = {.no_cache = true,
                                             .offline = true,
                                             .has_seed = true,
                                             .seed = 77,
                                             .effort = "minimal",
                                             .images = "[{\"url\":\"http://x\"}]"};
    assert_int_equal(plan_overrides_apply(&nodes, &overrides, &err), 0);
    for (size_t i = 0; i < nodes.n_nodes; i++) {
        struct message work = decoded(MESSAGE_work, nodes.nodes[i].work);
        struct message meta = decoded(MESSAGE_meta, nodes.nodes[i].meta);
        assert_string_equal(work.work.cache, "off");
        assert_string_equal(work.work.effort, "minimal");
        assert_int_equal(work.work.seed, 77);
        assert_true(work.work.has_seed);
        assert_true(meta.meta.offline);
        /* the synthesizer sees results, not images */
        assert_true((work.work.images.len > 0) == (i < 2));
        assert_true(meta.meta.images == (i < 2));
        message_release(&work);
        message_release(&meta);
    }
    plan_nodes_release(&nodes);
}

static void overrides_leave_alone_what_they_do_not_name(void **state)
{
    (void)state;
    struct plan_nodes nodes = nodes_of("subtasks: [{id: a, prompt: p}]");
    const struct plan_overrides offline = {.offline = true};
    assert_int_equal(plan_overrides_apply(&nodes, &offline, &err), 0);
    struct message work = decoded(MESSAGE_work, nodes.nodes[0].work);
    assert_string_equal(work.work.cache, "on");
    assert_string_equal(work.work.effort, "low");
    assert_int_equal(work.work.seed, 5);
    assert_int_equal(work.work.images.len, 0);
    message_release(&work);
    plan_nodes_release(&nodes);
}

static void overrides_travel_with_the_task(void **state)
{
    (void)state;
    const struct plan_overrides sent = {.no_cache = true,
                                        .offline = true,
                                        .has_seed = true,
                                        .seed = 1LL << 40,
                                        .effort = "high",
                                        .images = "[]"};
    json_t *info = json_object();
    json_object_set_new(info, PLAN_INFO_OVERRIDES, plan_overrides_json(&sent));
    struct plan_overrides got = plan_overrides_of(info);
    assert_true(got.no_cache && got.offline && got.has_seed);
    assert_true(got.seed == sent.seed);
    assert_string_equal(got.effort, "high");
    assert_null(got.images); /* too large to be given to every subtask of a plan */
    json_decref(info);
    got = plan_overrides_of(NULL); /* what an older version submitted */
    assert_false(got.no_cache || got.offline || got.has_seed);
    assert_string_equal(got.effort, "");
}

static void efforts_are_checked(void **state)
{
    (void)state;
    assert_int_equal(plan_check_effort("minimal", &err), 0);
    assert_int_equal(plan_check_effort("max", &err), -EINVAL);
    assert_string_equal(err.text, "`max` is no effort: none, minimal, low, medium or high");
}

static int set_up(void **state)
{
    (void)state;
    fixture_init(&fixture);
    if (config_parse(&config, "t", settings, sizeof settings - 1, &err) != 0)
        fail_msg("%s", err.text);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    config_free(&config);
    fixture_release(&fixture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_of_the_role_reach_the_worker),
        cmocka_unit_test(what_a_subtask_says_itself_wins),
        cmocka_unit_test(a_cache_that_is_off_is_off_for_everything),
        cmocka_unit_test(mistakes_are_refused_with_their_place),
        cmocka_unit_test(vectors_are_made_by_a_model_that_makes_them),
        cmocka_unit_test(a_whole_plan_can_be_of_vectors),
        cmocka_unit_test(images_are_known_by_their_first_bytes),
        cmocka_unit_test(images_are_put_beside_the_prompt),
        cmocka_unit_test(base64_is_padded),
        cmocka_unit_test(images_together_are_limited),
        cmocka_unit_test(overrides_win_over_roles_and_plans),
        cmocka_unit_test(overrides_leave_alone_what_they_do_not_name),
        cmocka_unit_test(overrides_travel_with_the_task),
        cmocka_unit_test(efforts_are_checked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
