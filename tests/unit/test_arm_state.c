/* When a model counts as loaded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/arm_state.h"

#define IS(state, now, expected)                                                                   \
    assert_string_equal(arm_state_text(arm_state_at(&(state), now)), expected)

static void a_model_is_warm_from_its_first_token_until_its_runtime_unloads_it(void **ctx)
{
    (void)ctx;
    struct arm_state state;
    arm_state_init(&state, "ollama", NULL, true, false);
    IS(state, 0, "cold");
    arm_state_call(&state, 10);
    IS(state, 10, "loading");
    arm_state_token(&state);
    IS(state, 20, "warm");
    arm_state_end(&state, 1000);
    IS(state, 1000 + 299999, "warm");
    IS(state, 1000 + 300000, "cold");
    arm_state_call(&state, 1000 + 300000);
    IS(state, 1000 + 300000, "loading");
}

static void a_call_under_way_keeps_it_warm(void **ctx)
{
    (void)ctx;
    struct arm_state state;
    arm_state_init(&state, "ollama", "1s", true, false);
    arm_state_call(&state, 0);
    arm_state_token(&state);
    arm_state_call(&state, 1);
    arm_state_end(&state, 2);
    IS(state, 100000, "warm");
    arm_state_end(&state, 100000);
    IS(state, 101000, "cold");
}

static void a_call_that_failed_warms_nothing(void **ctx)
{
    (void)ctx;
    struct arm_state state;
    arm_state_init(&state, "llamacpp", NULL, true, false);
    arm_state_call(&state, 0);
    arm_state_end(&state, 5);
    IS(state, 6, "cold");
}

static void a_runtime_of_our_own_is_loading_until_it_is_healthy(void **ctx)
{
    (void)ctx;
    struct arm_state server, ollama;
    arm_state_init(&server, "llamacpp", NULL, true, true);
    arm_state_init(&ollama, "ollama", NULL, true, true);
    IS(server, 0, "loading");
    server.healthy = ollama.healthy = true;
    IS(server, 0, "warm");
    IS(ollama, 0, "cold");
}

static void a_load_counts_as_a_reload_only_where_the_model_was_warm(void **ctx)
{
    (void)ctx;
    struct arm_state state;
    arm_state_init(&state, "ollama", NULL, true, false);
    bool warm = arm_state_call(&state, 0);
    assert_false(warm);
    assert_false(arm_state_call(&state, 1)); /* waits for the same load */
    arm_state_load(&state, warm, 3000);
    assert_int_equal(state.reloads, 0);
    arm_state_token(&state);
    arm_state_end(&state, 3000);
    warm = arm_state_call(&state, 4000);
    assert_true(warm);
    arm_state_load(&state, warm, 80); /* Ollama says so much of a model that is loaded */
    arm_state_load(&state, warm, -1);
    assert_int_equal(state.reloads, 0);
    assert_true(state.load_ms == 3000);
    arm_state_load(&state, warm, 2500);
    assert_int_equal(state.reloads, 1);
    assert_true(state.load_ms == 2500);
}

static void a_load_after_keep_alive_is_none(void **ctx)
{
    (void)ctx;
    struct arm_state state;
    arm_state_init(&state, "ollama", "1s", true, false);
    arm_state_call(&state, 0);
    arm_state_token(&state);
    arm_state_end(&state, 10);
    bool warm = arm_state_call(&state, 1010);
    assert_false(warm);
    arm_state_load(&state, warm, 3000);
    assert_int_equal(state.reloads, 0);
}

static void a_server_that_does_not_listen_has_loaded_nothing(void **ctx)
{
    (void)ctx;
    struct arm_state state;
    arm_state_init(&state, "ollama", NULL, true, false);
    arm_state_call(&state, 0);
    arm_state_token(&state);
    arm_state_end(&state, 10);
    IS(state, 20, "warm");
    arm_state_call(&state, 20);
    arm_state_lost(&state);
    arm_state_end(&state, 21);
    IS(state, 21, "cold");
}

static void what_is_not_local_has_no_state(void **ctx)
{
    (void)ctx;
    struct arm_state state;
    arm_state_init(&state, "openai", "5m", false, false);
    IS(state, 0, "");
}

static void keep_alive_is_read_as_the_runtimes_write_it(void **ctx)
{
    (void)ctx;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {{"10m", 600000}, {"300s", 300000}, {"1h30m", 5400000},
                 {"250ms", 250},  {"300", 300000},  {"0", 0},
                 {"1.5s", 1500},  {"-1", -1},       {"-1s", -1},
                 {"", -2},        {"m", -2},        {"10x", -2},
                 {"10m5", -2},    {"-", -2},        {"99999999h", 86400000000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(arm_state_keep_ms(cases[i].text), cases[i].ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_is_warm_from_its_first_token_until_its_runtime_unloads_it),
        cmocka_unit_test(a_call_under_way_keeps_it_warm),
        cmocka_unit_test(a_call_that_failed_warms_nothing),
        cmocka_unit_test(a_runtime_of_our_own_is_loading_until_it_is_healthy),
        cmocka_unit_test(a_load_counts_as_a_reload_only_where_the_model_was_warm),
        cmocka_unit_test(a_load_after_keep_alive_is_none),
        cmocka_unit_test(a_server_that_does_not_listen_has_loaded_nothing),
        cmocka_unit_test(what_is_not_local_has_no_state),
        cmocka_unit_test(keep_alive_is_read_as_the_runtimes_write_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
