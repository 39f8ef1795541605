/* The shipped registry: complete, readable, and found by the names that providers use. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/model_registry.h"
#include "common/price.h"
#include "schemas/mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define DAY_MS (24 * 3600 * 1000LL)
/* Unix days of 2026-11-20, -10-06 and -12-01 */
#define NOVEMBER_20 (20777 * DAY_MS)
#define OCTOBER_6 (20732 * DAY_MS)
#define DECEMBER_1 (20788 * DAY_MS)

static const struct model_registry_row *find(const char *api, const char *name)
{
    return model_registry_find(model_registry_shipped(), api, name);
}

static const struct config_model *known(const char *api, const char *name)
{
    const struct model_registry_row *row = find(api, name);
    if (row == NULL)
        fail_msg("%s is not in the registry of %s", name, api);
    return &row->model;
}

static bool refuses(const char *api, const char *name, const char *parameter)
{
    const struct config_model *model = known(api, name);
    return model_registry_has(model->refuses, model->n_refuses, parameter);
}

static bool can(const char *api, const char *name, const char *capability)
{
    const struct config_model *model = known(api, name);
    return model_registry_has(model->capabilities, model->n_capabilities, capability);
}

static void every_row_of_the_shipped_registry_is_complete(void **state)
{
    size_t count;
    (void)state;
    const struct model_registry_row *rows = model_registry_rows(model_registry_shipped(), &count);
    assert_string_equal(model_registry_as_of(model_registry_shipped()), "2026-11-20");
    assert_true(count > 80);
    for (size_t i = 0; i < count; i++) {
        const struct config_model *model = &rows[i].model;
        bool vendor = strcmp(rows[i].api, MODEL_REGISTRY_OPEN) != 0 &&
                      strcmp(rows[i].api, "huggingface") != 0;
        if (model->n_capabilities == 0)
            fail_msg("%s has no capabilities", model->name);
        if (vendor && !rows[i].pattern && model->n_prices == 0)
            fail_msg("%s has no price", model->name);
        if (!vendor && model->n_prices > 0)
            fail_msg("%s has a price, which depends on who serves it", model->name);
        if (strcmp(rows[i].api, MODEL_REGISTRY_OPEN) == 0 && model->context > 0)
            fail_msg("%s has a context, which its runtime decides", model->name);
        for (size_t p = 0; p < model->n_prices; p++)
            assert_true(model->prices[p].cached <= model->prices[p].input);
        for (size_t j = 0; j < i; j++)
            if (strcmp(rows[j].api, rows[i].api) == 0 &&
                strcmp(rows[j].model.name, model->name) == 0)
                fail_msg("%s is there twice", model->name);
    }
}

/* Whatever suffix a provider puts behind its names. */
static void models_are_found_by_all_their_names(void **state)
{
    static const struct {
        const char *api, *name, *row;
    } cases[] = {
        {"anthropic", "claude-haiku-4-5", "claude-haiku-4-5"},
        {"anthropic", "claude-haiku-4-5-20251001", "claude-haiku-4-5"},
        {"anthropic", "claude-opus-5-5-latest", "claude-opus-5-5"},
        {"openai", "gpt-6-sol-2026-09-22", "gpt-6-sol"},
        {"openai", "gpt-5.4-mini-2026-03-01", "gpt-5.4-mini"},
        {"openai", "gpt-5.4-2026-03-01", "gpt-5.4"},
        {"gemini", "models/gemini-2.5-pro", "gemini-2.5-pro"},
        {"gemini", "gemini-2.5-pro", "gemini-2.5-pro"},
        {"huggingface", "openai/gpt-oss-120b:groq", "openai/gpt-oss-120b"},
        {"huggingface", "openai/gpt-oss-120b:cheapest", "openai/gpt-oss-120b"},
        {"huggingface", "Qwen/Qwen3-Coder-480B-A35B-Instruct:novita", "*qwen3-coder*"},
        {"openai", "gpt-5-pro", "gpt-*-pro*"},
        {"openai", "gpt-5.2", "gpt-[56]*"},
        {"ollama", "nomic-embed-text:latest", "*nomic-embed*"},
        {"lmstudio", "text-embedding-nomic-embed-text-v1.5", "*nomic-embed*"},
        {"vllm", "BAAI/bge-m3", "*bge-[mslb]*"},
        {"ollama", "qwen3:8b", "*qwen3*"},
        {"ollama", "hf.co/unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF:Q4_K_M", "*qwen3-coder*"},
        {"llamacpp", "/models/gpt-oss-20b-mxfp4.gguf", "*gpt-oss*"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_string_equal(known(cases[i].api, cases[i].name)->name, cases[i].row);
    /* a name of one vendor is nothing to another; a tag is no date */
    assert_null(find("anthropic", "gpt-6-sol"));
    assert_null(find("openai", "qwen3:8b"));
    assert_null(find("anthropic", "claude-haiku-4-5-2025"));
    assert_null(find("ollama", "my-own-model:7b"));
    assert_null(find("ollama", ""));
    assert_null(find("openai", "-20250929"));
}

/* Sampling parameters cause 400s on the newer Claude and GPT models. */
static void sampling_parameters_are_refused_where_they_cause_a_400(void **state)
{
    static const char *const claudes[] = {
        "claude-opus-4-7",  "claude-opus-4-8", "claude-opus-5-5",   "claude-fable-5",
        "claude-fable-5-1", "claude-sonnet-5", "claude-sonnet-5-5", "claude-haiku-5-5"};
    static const char *const older[] = {"claude-opus-4-5", "claude-opus-4-6", "claude-sonnet-4-6",
                                        "claude-haiku-4-5"};
    static const char *const gpts[] = {"gpt-6.2-astra", "gpt-6-luna", "gpt-5.4", "gpt-5-mini",
                                       "gpt-5.9-future"};
    (void)state;
    for (size_t i = 0; i < COUNT(claudes); i++)
        assert_true(refuses("anthropic", claudes[i], "temperature"));
    for (size_t i = 0; i < COUNT(older); i++)
        assert_false(refuses("anthropic", older[i], "temperature"));
    for (size_t i = 0; i < COUNT(gpts); i++)
        assert_true(refuses("openai", gpts[i], "temperature"));
    assert_false(refuses("openai", "gpt-4o-mini", "temperature"));
    assert_true(refuses("openai", "gpt-4o-mini", "effort"));
    assert_true(refuses("openai", "o4-mini", "stop"));
    assert_false(refuses("gemini", "gemini-2.5-pro", "temperature"));
}

static void models_that_refuse_an_effort_say_which_they_take(void **state)
{
    static const char *const names[] = {"gpt-6-astra", "gpt-6.1-sol", "gpt-6.2-astra"};
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        const struct model_registry_row *row = find("openai", names[i]);
        assert_true(row->n_efforts > 0);
        assert_false(model_registry_has(row->efforts, row->n_efforts, "none"));
    }
    assert_int_equal(find("openai", "gpt-6-sol")->n_efforts, 0);
}

static void models_that_chat_completions_refuse_are_asked_through_responses(void **state)
{
    (void)state;
    assert_string_equal(known("openai", "gpt-5-pro")->endpoint, "responses");
    assert_string_equal(known("openai", "gpt-5.1-codex-mini")->endpoint, "responses");
    assert_null(known("openai", "gpt-6-sol")->endpoint);
}

static int64_t cost(const char *api, const char *name, int64_t wall_ms, struct price_usage usage)
{
    return price_nano_usd(known(api, name), wall_ms, &usage);
}

static void prices_follow_dates_and_bands(void **state)
{
    (void)state;
    const struct price_usage short_ = {.prompt = 100000, .output = 1000};
    const struct price_usage long_ = {.prompt = 100001, .output = 1000};
    const struct price_usage cached = {.prompt = 1000000, .cached = 1000000};
    /* the whole call is priced in the band */
    assert_int_equal(cost("anthropic", "claude-haiku-5-5", NOVEMBER_20, short_),
                     100000 * 100 + 1000 * 500);
    assert_int_equal(cost("anthropic", "claude-haiku-5-5", NOVEMBER_20, long_),
                     100001LL * 500 + 1000 * 2500);
    assert_int_equal(cost("anthropic", "claude-sonnet-5-5", OCTOBER_6, cached), 200000000);
    assert_int_equal(cost("anthropic", "claude-sonnet-5-5", NOVEMBER_20, cached), 100000000);
    assert_int_equal(cost("gemini", "gemini-4-argon", NOVEMBER_20, cached), 100000000);
    assert_int_equal(cost("gemini", "gemini-4-argon", DECEMBER_1, cached), 200000000);
    const struct price_usage huge = {.prompt = 272001, .output = 1000};
    assert_int_equal(cost("openai", "gpt-5.4", NOVEMBER_20, huge), 272001LL * 5000 + 1000 * 22500);
}

static void embedding_models_answer_no_prompts(void **state)
{
    (void)state;
    assert_true(model_registry_only_embeds(known("ollama", "nomic-embed-text")));
    assert_true(model_registry_only_embeds(known("openai", "text-embedding-3-small")));
    assert_true(model_registry_only_embeds(known("gemini", "models/gemini-embedding-001")));
    assert_true(model_registry_only_embeds(known("ollama", "all-minilm:l6-v2")));
    assert_false(model_registry_only_embeds(known("ollama", "qwen3:8b")));
    assert_true(can("ollama", "qwen3:8b", "thinking"));
    assert_true(can("ollama", "gpt-oss:20b", "thinking"));
    assert_false(can("ollama", "qwen3-coder:30b", "thinking"));
    assert_true(can("ollama", "llava:13b", "images"));
}

static void errors_of_a_registry_say_where_and_what(void **state)
{
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"models: {nope: {x: {}}}", "r:1:10: `nope` is no api"},
        {"as_of: x", "r:1:1: a registry needs `models`: `api: {name: {...}}`"},
        {"models: {openai: {x: {contxt: 1}}}",
         "r:1:23: unknown key `contxt` of a model; did you mean `context`?"},
        {"models: {openai: {x: 5}}",
         "r:1:22: a model of the registry must be a map of `key: value`"},
        {"models: {openai: {x: {capabilities: [think]}}}",
         "r:1:38: `capabilities` must be "
         "json_schema, tools, images, embeddings or thinking, not `think`; did you mean "
         "`thinking`?"},
        {"modles: {}", "r:1:1: unknown key `modles` in a registry; did you mean `models`?"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct model_registry *registry = NULL;
        struct err err = {""};
        assert_int_equal(
            model_registry_read(&registry, "r", cases[i].text, strlen(cases[i].text), &err),
            -EINVAL);
        assert_string_equal(err.text, cases[i].sentence);
        assert_null(registry);
    }
}

static void a_registry_without_memory_leaks_nothing(void **state)
{
    static const char text[] =
        "as_of: x\nmodels: {openai: {a: {context: 5, refuses: [seed], sure: false, efforts: [low], "
        "price: [{input: 1}, {from: '2026-01-01', input: 2}]}}, open: {'*b*': {as_of: y}}}";
    int rc = -ENOMEM;
    unsigned long k = 0;
    (void)state;
    while (rc == -ENOMEM) {
        struct model_registry *registry = NULL;
        mem_fail_at(++k);
        rc = model_registry_read(&registry, "r", text, sizeof text - 1, NULL);
        mem_fail_at(0);
        model_registry_free(&registry);
    }
    assert_int_equal(rc, 0);
    assert_true(k > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_the_shipped_registry_is_complete),
        cmocka_unit_test(models_are_found_by_all_their_names),
        cmocka_unit_test(sampling_parameters_are_refused_where_they_cause_a_400),
        cmocka_unit_test(models_that_refuse_an_effort_say_which_they_take),
        cmocka_unit_test(models_that_chat_completions_refuse_are_asked_through_responses),
        cmocka_unit_test(prices_follow_dates_and_bands),
        cmocka_unit_test(embedding_models_answer_no_prompts),
        cmocka_unit_test(errors_of_a_registry_say_where_and_what),
        cmocka_unit_test(a_registry_without_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
