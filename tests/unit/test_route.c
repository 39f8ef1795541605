/* Which arms a subtask is offered to. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
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
static struct config_price cheap = {.input = 1, .output = 2}, dear = {.input = 3, .output = 15};
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
    struct route_ask ask = {.meta = &meta, .avoid = avoid};
    err.text[0] = '\0';
    return route_arms(&config, &ask, &route, &err);
}

/* Of role coder. */
static int route_after(const char *error_class, const char *avoid, int64_t prompt_tokens)
{
    struct msg_meta meta = {
        .kind = "run", .role = "coder", .model = "", .prompt_tokens = prompt_tokens};
    struct route_ask ask = {.meta = &meta, .avoid = avoid, .error_class = error_class};
    err.text[0] = '\0';
    return route_arms(&config, &ask, &route, &err);
}

/* "arm arm/after_ms ..." */
static void assert_arms(const char *expected)
{
    char text[512] = "";
    for (size_t i = 0; i < route.n_arms; i++) {
        size_t len = strlen(text);
        snprintf(text + len, sizeof text - len, "%s%s", i > 0 ? " " : "", route.arms[i]);
        len = strlen(text);
        if (route.after_ms[i] != 0)
            snprintf(text + len, sizeof text - len, "/%d", (int)route.after_ms[i]);
    }
    assert_string_equal(text, expected);
}

static void the_role_decides_the_order_and_what_follows_a_local_model_waits(void **state)
{
    (void)state;
    assert_int_equal(route_of("coder", "", ""), 0);
    assert_arms("qwen sonnet/800 haiku/800");
}

static void a_role_without_models_may_use_all_local_ones_first_then_by_price(void **state)
{
    (void)state;
    models[0].prices = &dear, models[0].n_prices = 1;
    models[1].prices = &cheap, models[1].n_prices = 1;
    assert_int_equal(route_of("general", "", ""), 0);
    assert_arms("qwen haiku sonnet orphan");
    assert_int_equal(route_of("unknown", "", ""), 0);
    assert_int_equal(route.n_arms, 4);
    models[1].n_prices = 0; /* not known: it may be anything */
    assert_int_equal(route_of("general", "", ""), 0);
    assert_arms("qwen sonnet haiku orphan");
    models[0].n_prices = 0;
}

static void a_price_that_has_not_begun_does_not_count(void **state)
{
    (void)state;
    struct config_price rise[] = {cheap, {.from = "2030-01-01", .input = 100, .output = 100}};
    struct msg_meta meta = {.kind = "run", .role = "general", .model = ""};
    struct route_ask ask = {.meta = &meta, .wall_ms = 1900000000000}; /* March 2030 */
    models[0].prices = &dear, models[0].n_prices = 1;
    models[1].prices = rise, models[1].n_prices = 2;
    assert_int_equal(route_arms(&config, &ask, &route, &err), 0);
    assert_arms("qwen sonnet haiku orphan");
    ask.wall_ms = 1800000000000;
    assert_int_equal(route_arms(&config, &ask, &route, &err), 0);
    assert_arms("qwen haiku sonnet orphan");
    models[0].n_prices = models[1].n_prices = 0;
}

static void more_models_than_an_offer_holds_are_no_harm(void **state)
{
    (void)state;
    static struct config_model many[ROUTE_MAX + 20];
    static char aliases[ROUTE_MAX + 20][16];
    struct config large = config;
    char *tags[] = {"private"};
    for (size_t i = 0; i < ROUTE_MAX + 20; i++) {
        snprintf(aliases[i], sizeof aliases[i], "m%zu", i);
        many[i] = (struct config_model){.alias = aliases[i], .provider = "claude"};
    }
    many[ROUTE_MAX + 19].tags = tags, many[ROUTE_MAX + 19].n_tags = 1;
    large.models = many;
    large.n_models = ROUTE_MAX + 20;
    struct msg_meta meta = {.kind = "run", .role = "general", .model = ""};
    struct route_ask ask = {.meta = &meta};
    assert_int_equal(route_arms(&large, &ask, &route, &err), 0);
    assert_int_equal(route.n_arms, ROUTE_MAX);
    roles[1].tags = tags, roles[1].n_tags = 1; /* the last one is found all the same */
    assert_int_equal(route_arms(&large, &ask, &route, &err), 0);
    assert_arms("m83");
    roles[1].n_tags = 0;
}

static void an_explicit_model_is_the_only_one(void **state)
{
    (void)state;
    assert_int_equal(route_of("coder", "haiku", ""), 0);
    assert_arms("haiku");
    assert_int_equal(route_of("coder", "gone", ""), -ENOENT);
    assert_non_null(strstr(err.text, "`gone`"));
}

static void an_arm_asked_for_is_the_only_one(void **state)
{
    (void)state;
    assert_int_equal(route_of("coder", "qwen@box/gpu1", ""), 0);
    assert_arms("qwen@box/gpu1");
    assert_int_equal(route_of("coder", "qwen@box/gpu1", "qwen@box/gpu0"), 0);
    assert_int_equal(route_of("coder", "qwen@box/gpu1", "qwen@box/gpu1"), -ENODATA);
    assert_int_equal(route_of("coder", "qwen@box/gpu1", "qwen@box/gpu1=700"), 0);
    assert_arms("qwen@box/gpu1/700");
    assert_int_equal(route_of("coder", "gone@box", ""), -ENOENT);
    assert_non_null(strstr(err.text, "`gone@box`"));
}

static void an_offline_task_gets_only_local_models(void **state)
{
    (void)state;
    struct msg_meta meta = {.kind = "run", .role = "coder", .model = "", .offline = true};
    struct route_ask ask = {.meta = &meta};
    assert_int_equal(route_arms(&config, &ask, &route, &err), 0);
    assert_arms("qwen");
    meta.role = "planner";
    assert_int_equal(route_arms(&config, &ask, &route, &err), -ENOENT);
    assert_string_equal(err.text,
                        "the task is offline and role `planner` has no local model: give it one");
    meta.model = "sonnet@claude";
    assert_int_equal(route_arms(&config, &ask, &route, &err), -ENOENT);
    assert_non_null(strstr(err.text, "`sonnet@claude` is not local"));
}

static void only_models_with_all_tags_of_the_role_may_run_it(void **state)
{
    (void)state;
    char *wanted[] = {"private", "eu"}, *both[] = {"eu", "fast", "private"}, *one[] = {"private"};
    roles[2].tags = wanted, roles[2].n_tags = 2;
    models[1].tags = both, models[1].n_tags = 3;
    models[2].tags = one, models[2].n_tags = 1;
    assert_int_equal(route_of("coder", "", ""), 0);
    assert_arms("haiku");
    models[1].n_tags = 0;
    assert_int_equal(route_of("coder", "", ""), -ENOENT);
    assert_non_null(strstr(err.text, "`eu`"));
    assert_int_equal(route_of("coder", "sonnet", ""), -ENOENT); /* asked for, and still not */
    assert_non_null(strstr(err.text, "`private`"));
    assert_non_null(strstr(err.text, "`sonnet`"));
    models[2].n_tags = roles[2].n_tags = 0;
}

static void only_models_that_may_read_images_are_shown_some(void **state)
{
    (void)state;
    char *sees[] = {"tools", "images"}, *blind[] = {"tools"};
    struct msg_meta meta = {.kind = "run", .role = "coder", .model = "", .images = true};
    struct route_ask ask = {.meta = &meta};
    models[1].capabilities = sees, models[1].n_capabilities = 2;
    models[2].capabilities = blind, models[2].n_capabilities = 1;
    assert_int_equal(route_arms(&config, &ask, &route, &err), 0);
    assert_arms("sonnet haiku"); /* nothing is known of sonnet */
    meta.model = "qwen";
    assert_int_equal(route_arms(&config, &ask, &route, &err), -ENOENT);
    assert_non_null(strstr(err.text, "`qwen` reads no images"));
    meta.model = "";
    models[0].capabilities = models[1].capabilities = blind;
    models[0].n_capabilities = models[1].n_capabilities = 1;
    assert_int_equal(route_arms(&config, &ask, &route, &err), -ENOENT);
    assert_non_null(strstr(err.text, "role `coder` reads images"));
    for (int i = 0; i < 3; i++)
        models[i].capabilities = NULL, models[i].n_capabilities = 0;
}

static void only_what_may_embed_embeds_and_what_only_embeds_does_nothing_else(void **state)
{
    (void)state;
    char *embeds[] = {"embeddings"}, *talks[] = {"tools"};
    struct msg_meta meta = {.kind = "embed", .role = "coder", .model = ""};
    struct route_ask ask = {.meta = &meta};
    models[0].capabilities = embeds, models[0].n_capabilities = 1;
    models[1].capabilities = talks, models[1].n_capabilities = 1;
    assert_int_equal(route_arms(&config, &ask, &route, &err), 0);
    assert_arms("qwen sonnet/800"); /* qwen: nobody knows */
    meta.kind = "run";
    assert_int_equal(route_arms(&config, &ask, &route, &err), 0);
    assert_arms("qwen haiku/800");
    meta.kind = "embed";
    meta.model = "haiku";
    assert_int_equal(route_arms(&config, &ask, &route, &err), -ENOENT);
    assert_non_null(strstr(err.text, "`haiku` makes no embeddings"));
    models[0].n_capabilities = models[1].n_capabilities = 0;
}

static void an_arm_that_is_blocked_for_a_while_stands_in_front_and_holds_nobody_up(void **state)
{
    (void)state;
    assert_int_equal(route_of("coder", "", "sonnet@claude=5000"), 0);
    assert_arms("sonnet/5000 qwen haiku/800");
    assert_int_equal(route_of("coder", "", "sonnet@claude=300"), 0);
    assert_arms("sonnet/800 qwen haiku/800"); /* it waits for qwen longer than that anyway */
    assert_int_equal(route_of("coder", "", "qwen@a/gpu0=4000"), 0);
    assert_arms("qwen/4000 sonnet haiku"); /* nothing local to wait for */
    assert_int_equal(route_of("coder", "", "haiku@claude=9 qwen@a=0 sonnet@claude"), 0);
    assert_arms("haiku/800 qwen");
    assert_int_equal(route_of("coder", "sonnet", "sonnet@claude=70 sonnet@claude=9"), 0);
    assert_arms("sonnet/70");
    assert_int_equal(route_of("coder", "sonnet", "sonnet@claude=99999999999999999999"), 0);
    assert_true(route.after_ms[0] > 0 && route.after_ms[0] <= 24 * 3600 * 1000);
}

static void words_that_only_look_like_a_time_are_arms(void **state)
{
    (void)state;
    assert_int_equal(route_of("coder", "", "=5 = =x sonnet@claude= haiku@claude=x5"), 0);
    assert_arms("qwen"); /* odd places, but of sonnet and haiku */
}

static void a_model_with_other_places_is_tried_soon_when_one_is_blocked(void **state)
{
    (void)state;
    config.n_workers = 3;
    assert_int_equal(route_of("coder", "qwen", "qwen@a/gpu0=60000"), 0);
    assert_arms("qwen/1000");
    assert_int_equal(route_of("coder", "qwen", "qwen@a/gpu0=60000 qwen@b/gpu0=50000"), 0);
    assert_arms("qwen/60000");
    config.n_workers = 2;
}

static void a_prompt_that_was_too_long_goes_to_larger_windows_only(void **state)
{
    (void)state;
    models[0].context = 200000, models[1].context = 1000000, models[2].context = 32768;
    assert_int_equal(route_after("context_too_long", "sonnet@claude", 0), 0);
    assert_arms("haiku");
    models[1].context = 0; /* not known: it may be larger */
    assert_int_equal(route_after("context_too_long", "sonnet@claude", 0), 0);
    assert_arms("haiku");
    assert_int_equal(route_after("auth", "sonnet@claude", 0), 0);
    assert_arms("qwen haiku/800");
    models[1].context = 200000;
    assert_int_equal(route_after("context_too_long", "sonnet@claude haiku@claude=50", 0),
                     -EMSGSIZE);
    assert_string_equal(err.text,
                        "its prompt does not fit the window of sonnet, and no other model that may "
                        "run it has a larger one: it needs a window of more than 200000 tokens");
    assert_int_equal(route_after("context_too_long", "qwen@a sonnet@claude", 250000), -EMSGSIZE);
    assert_non_null(strstr(err.text, "more than 250000 tokens"));
    models[0].context = models[1].context = models[2].context = 0;
}

static void windows_that_are_too_small_are_left_out_while_there_are_others(void **state)
{
    (void)state;
    models[0].context = 200000, models[2].context = 32768;
    assert_int_equal(route_after("", "", 40000), 0);
    assert_arms("sonnet haiku");
    assert_int_equal(route_after("", "", 300000), 0);
    assert_arms("haiku");
    models[1].context = 1000;
    assert_int_equal(route_after("", "", 300000), 0); /* an estimate: the servers decide */
    assert_arms("qwen sonnet/800 haiku/800");
    models[0].context = models[1].context = models[2].context = 0;
}

static void a_hedge_runs_on_another_model(void **state)
{
    (void)state;
    struct msg_meta meta = {.kind = "run", .role = "coder", .model = ""};
    struct route_ask ask = {.meta = &meta, .avoid = "haiku@claude", .running = "sonnet@claude"};
    assert_int_equal(route_arms(&config, &ask, &route, &err), 0);
    assert_arms("qwen");
    ask.running = "qwen@box/gpu0";
    assert_int_equal(route_arms(&config, &ask, &route, &err), 0);
    assert_arms("sonnet");
    meta.model = "sonnet";
    ask.running = "sonnet@claude";
    assert_int_equal(route_arms(&config, &ask, &route, &err), -ENODATA);
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
    assert_int_equal(route_of("coder", "", "qwe@a qwen2@a"), 0);
    assert_arms("qwen sonnet/800 haiku/800");
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
        cmocka_unit_test(a_role_without_models_may_use_all_local_ones_first_then_by_price),
        cmocka_unit_test(a_price_that_has_not_begun_does_not_count),
        cmocka_unit_test(more_models_than_an_offer_holds_are_no_harm),
        cmocka_unit_test(an_explicit_model_is_the_only_one),
        cmocka_unit_test(an_arm_asked_for_is_the_only_one),
        cmocka_unit_test(an_offline_task_gets_only_local_models),
        cmocka_unit_test(only_models_with_all_tags_of_the_role_may_run_it),
        cmocka_unit_test(only_models_that_may_read_images_are_shown_some),
        cmocka_unit_test(only_what_may_embed_embeds_and_what_only_embeds_does_nothing_else),
        cmocka_unit_test(an_arm_that_is_blocked_for_a_while_stands_in_front_and_holds_nobody_up),
        cmocka_unit_test(words_that_only_look_like_a_time_are_arms),
        cmocka_unit_test(a_model_with_other_places_is_tried_soon_when_one_is_blocked),
        cmocka_unit_test(a_prompt_that_was_too_long_goes_to_larger_windows_only),
        cmocka_unit_test(windows_that_are_too_small_are_left_out_while_there_are_others),
        cmocka_unit_test(a_hedge_runs_on_another_model),
        cmocka_unit_test(offline_leaves_only_local_models),
        cmocka_unit_test(avoided_arms_are_left_out),
        cmocka_unit_test(nothing_is_left_when_every_arm_is_avoided),
        cmocka_unit_test(an_avoided_local_model_is_left_when_it_has_other_places),
        cmocka_unit_test(what_is_unserved_says_which_worker_to_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
