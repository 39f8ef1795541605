/* Which arms a subtask is offered to. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/route.h"

static char *coder_models[] = {"qwen", "sonnet", "haiku"}, *remote_models[] = {"sonnet"};
static struct config_model models[] = {
    {.alias = "sonnet", .provider = "claude"},
    {.alias = "haiku", .provider = "claude"},
    {.alias = "qwen", .provider = "ollama", .local = true},
    {.alias = "orphan", .provider = "nobody"},
};
static struct config_role roles[] = {
    {.name = "planner", .system = "", .models = remote_models, .n_models = 1},
    {.name = "general", .system = ""},
    {.name = "coder", .system = "", .models = coder_models, .n_models = 3, .spill_ms = 800},
};
static char *qwen_only[] = {"qwen"};
static struct config_worker workers[] = {
    {.name = "claude", .provider = "claude"},
    {.name = "ollama-0", .provider = "ollama", .models = qwen_only, .n_models = 1},
    {.name = "ollama-1", .provider = "ollama"}, /* not in every test */
};
static struct config config = {.path = "test.yaml",
                               .models = models,
                               .n_models = 4,
                               .roles = roles,
                               .n_roles = 3,
                               .workers = workers,
                               .n_workers = 2};

static struct route route;
static struct err err;

static int route_of(const char *role, const char *model, const char *avoid)
{
    struct msg_meta meta = {.kind = "run", .role = role, .model = model, .title = ""};
    err.text[0] = '\0';
    return route_arms(&config, &meta, avoid, &route, &err);
}

static void assert_arms(const char *expected)
{
    char text[256] = "";
    for (size_t i = 0; i < route.n_arms; i++) {
        strcat(text, i > 0 ? " " : "");
        strcat(text, route.arms[i]);
    }
    assert_string_equal(text, expected);
}

static void the_role_decides_the_order_and_what_follows_a_local_model_waits(void **state)
{
    (void)state;
    assert_int_equal(route_of("coder", "", ""), 0);
    assert_arms("qwen sonnet haiku");
    assert_int_equal(route.after_ms[0], 0);
    assert_int_equal(route.after_ms[1], 800);
    assert_int_equal(route.after_ms[2], 800);
}

static void a_role_without_models_may_use_all(void **state)
{
    (void)state;
    assert_int_equal(route_of("general", "", ""), 0);
    assert_arms("sonnet haiku qwen orphan");
    assert_int_equal(route_of("unknown", "", ""), 0);
    assert_int_equal(route.n_arms, 4);
}

static void an_explicit_model_is_the_only_one(void **state)
{
    (void)state;
    assert_int_equal(route_of("coder", "haiku", ""), 0);
    assert_arms("haiku");
    assert_int_equal(route_of("coder", "gone", ""), -ENOENT);
    assert_non_null(strstr(err.text, "`gone`"));
}

static void offline_leaves_only_local_models(void **state)
{
    (void)state;
    config.offline = true;
    assert_int_equal(route_of("coder", "", ""), 0);
    assert_arms("qwen");
    assert_int_equal(route_of("planner", "", ""), -ENOENT);
    assert_non_null(strstr(err.text, "offline"));
    assert_int_equal(route_of("coder", "sonnet", ""), -ENOENT);
    assert_non_null(strstr(err.text, "sonnet"));
    config.offline = false;
}

static void avoided_arms_are_left_out(void **state)
{
    (void)state;
    assert_int_equal(route_of("coder", "", "qwen@box/gpu0"), 0);
    assert_arms("sonnet haiku");
    assert_int_equal(route.after_ms[0], 0);
    assert_int_equal(route_of("coder", "", "qwe@a qwen2@a"), 0);
    assert_arms("qwen sonnet haiku");
}

static void nothing_is_left_when_every_arm_is_avoided(void **state)
{
    (void)state;
    assert_int_equal(route_of("coder", "", "qwen@a sonnet@claude haiku@claude"), -ENODATA);
    assert_int_equal(route_of("coder", "", "qwen@a sonnet@claude"), 0);
    assert_arms("haiku");
    assert_int_equal(route_of("coder", "sonnet", "sonnet@claude"), -ENODATA);
    config.offline = true; /* what was not allowed at all is still what is said first */
    assert_int_equal(route_of("planner", "", "sonnet@claude"), -ENOENT);
    config.offline = false;
}

static void an_avoided_local_model_is_left_when_it_has_other_places(void **state)
{
    (void)state;
    config.n_workers = 3;
    assert_int_equal(route_of("coder", "qwen", "qwen@a/gpu0"), 0);
    assert_arms("qwen");
    assert_int_equal(route_of("coder", "", "qwen@a/gpu0 sonnet@claude"), 0);
    assert_arms("haiku");
    assert_int_equal(route_of("coder", "qwen", "qwen@a/gpu0 qwen@b/gpu0"), -ENODATA);
    config.n_workers = 2;
}

static void what_is_unserved_says_which_worker_to_start(void **state)
{
    (void)state;
    struct buf text = {0};
    assert_int_equal(route_of("coder", "", ""), 0);
    route_unserved(&config, &route, &text);
    assert_string_equal(text.data, "no worker serves qwen, sonnet or haiku; start one: "
                                   "orchestrator-worker --name ollama-0");
    buf_clear(&text);
    assert_int_equal(route_of("coder", "orphan", ""), 0);
    route_unserved(&config, &route, &text);
    assert_non_null(strstr(text.data, "no worker serves orphan; add a worker"));
    buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_role_decides_the_order_and_what_follows_a_local_model_waits),
        cmocka_unit_test(a_role_without_models_may_use_all),
        cmocka_unit_test(an_explicit_model_is_the_only_one),
        cmocka_unit_test(offline_leaves_only_local_models),
        cmocka_unit_test(avoided_arms_are_left_out),
        cmocka_unit_test(nothing_is_left_when_every_arm_is_avoided),
        cmocka_unit_test(an_avoided_local_model_is_left_when_it_has_other_places),
        cmocka_unit_test(what_is_unserved_says_which_worker_to_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
