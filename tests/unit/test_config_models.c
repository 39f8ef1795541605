/* Models of the configuration: filled from the registry, included from files; and what is checked
 * of providers, workers, roles and budgets beyond the types of their keys. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/config.h"
#include "common/model_registry.h"
#include "schemas/mem.h"
#include "tests/lib/fixture.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct fixture fixture;

static struct config *parse(const char *text)
{
    struct config *config = NULL;
    struct err err = {""};
    if (config_parse(&config, "t", text, strlen(text), &err) != 0)
        fail_msg("%s", err.text);
    return config;
}

/* All sentences, a line each; warnings begin with "warning ". */
struct told {
    struct buf text;
};

static void tell(void *ctx, bool warning, const char *sentence)
{
    struct told *told = ctx;
    buf_printf(&told->text, "%s%s\n", warning ? "warning " : "", sentence);
}

/* What is told about the text, which is the file c.yaml; the folder's name is left out. */
static char *check(const char *text)
{
    struct told told = {{0}};
    struct config *config = NULL;
    const char *path = fixture_write(&fixture, "c.yaml", text);
    config_check(&config, path, tell, &told, NULL);
    config_free(&config);
    struct buf out = {0};
    size_t dir = strlen(fixture.dir);
    for (const char *at = told.text.len > 0 ? told.text.data : ""; *at != '\0';) {
        bool here = strncmp(at, fixture.dir, dir) == 0;
        at += here ? dir + 1 : 0;
        buf_add_char(&out, *at++);
    }
    buf_release(&told.text);
    return buf_take(&out, NULL);
}

/* --- the registry ------------------------------------------------------------------------- */

#define CLOUDS "providers: {a: {api: anthropic}, o: {api: openai}, l: {api: ollama}}\n"

static void models_get_from_the_registry_what_they_do_not_say(void **state)
{
    (void)state;
    struct config *config = parse(CLOUDS "models:\n"
                                         "  haiku: {provider: a, name: claude-haiku-5-5}\n"
                                         "  pro: {provider: o, name: gpt-5-pro}\n"
                                         "  qwen: {provider: l, name: 'qwen3:8b'}\n"
                                         "  mine: {provider: l, name: 'my-own:7b'}\n");
    const struct config_model *haiku = config_model(config, "haiku");
    assert_int_equal(haiku->context, 1000000);
    assert_int_equal(haiku->max_output, 128000);
    assert_int_equal(haiku->n_prices, 2);
    assert_int_equal(haiku->prices[1].above_tokens, 100000);
    assert_true(model_registry_has(haiku->refuses, haiku->n_refuses, "temperature"));
    assert_true(model_registry_has(haiku->capabilities, haiku->n_capabilities, "images"));
    assert_string_equal(haiku->endpoint, "auto");
    assert_string_equal(config_model(config, "pro")->endpoint, "responses");
    const struct config_model *qwen = config_model(config, "qwen");
    assert_true(model_registry_has(qwen->capabilities, qwen->n_capabilities, "thinking"));
    assert_int_equal(qwen->context, 0); /* the runtime decides: a large one would take its memory */
    assert_int_equal(qwen->n_prices, 0);
    assert_int_equal(config_model(config, "mine")->n_capabilities, 0);
    config_free(&config);
}

static void what_the_file_says_of_a_model_wins(void **state)
{
    (void)state;
    struct config *config =
        parse(CLOUDS "models:\n"
                     "  a: {provider: a, name: claude-haiku-5-5, context: 5000, max_output: 0, "
                     "refuses: [], capabilities: [tools], price: {input: 7}}\n"
                     "  free: {provider: a, name: claude-haiku-5-5, price: {}}\n"
                     "  none: {provider: a, name: claude-haiku-5-5, price: []}\n"
                     "  local: {provider: a, name: claude-haiku-5-5, local: true}\n"
                     "  chat: {provider: o, name: gpt-5-pro, endpoint: chat}\n");
    const struct config_model *model = config_model(config, "a");
    assert_int_equal(model->context, 5000);
    assert_int_equal(model->max_output, 0);
    assert_int_equal(model->n_refuses, 0);
    assert_int_equal(model->n_capabilities, 1);
    assert_int_equal(model->n_prices, 1);
    assert_true(model->prices[0].input == 7);
    model = config_model(config, "free");
    assert_int_equal(model->n_prices, 1);
    assert_true(model->prices[0].input == 0);
    assert_int_equal(config_model(config, "none")->n_prices, 0);
    assert_int_equal(config_model(config, "local")->n_prices, 0);
    assert_string_equal(config_model(config, "chat")->endpoint, "chat");
    config_free(&config);
}

static void a_completed_configuration_reads_back_to_the_same(void **state)
{
    (void)state;
    struct config *first =
        parse(CLOUDS "models:\n"
                     "  haiku: {provider: a, name: claude-haiku-5-5}\n"
                     "  bare: {provider: a, name: claude-haiku-5-5, refuses: [], capabilities: [], "
                     "price: [], context: 0}\n"
                     "  sonnet: {provider: a, name: claude-sonnet-5-5, tags: [private], "
                     "served: [x], keep_alive: -1}\n");
    struct buf once = {0}, twice = {0};
    config_print(first, &once);
    struct config *second = parse(once.data);
    config_print(second, &twice);
    assert_string_equal(once.data, twice.data);
    const struct config_model *bare = config_model(second, "bare");
    assert_int_equal(bare->n_refuses + bare->n_capabilities + bare->n_prices, 0);
    assert_int_equal(bare->context, 0);
    assert_int_equal(config_model(second, "sonnet")->n_prices, 2);
    buf_release(&once);
    buf_release(&twice);
    config_free(&first);
    config_free(&second);
}

static void models_of_a_search_are_those_of_its_base(void **state)
{
    (void)state;
    struct config *config =
        parse("providers: {a: {api: anthropic}, l: {api: ollama}, r: {api: search, base: a},\n"
              "  s: {api: search, base: l}}\n"
              "models: {cloud: {provider: r, name: claude-haiku-5-5}, own: {provider: s, name: "
              "'qwen3:8b'}}");
    assert_false(config_model(config, "cloud")->local);
    assert_int_equal(config_model(config, "cloud")->n_prices, 2);
    assert_true(config_model(config, "own")->local);
    assert_int_equal(config_model(config, "own")->n_prices, 0);
    /* no key or address of its own is asked for */
    assert_int_equal(config_provider(config, "r")->n_keys, 0);
    assert_null(config_provider(config, "r")->base_url);
    config_free(&config);
}

/* --- include ------------------------------------------------------------------------------ */

#define OLLAMA "providers: {p: {api: ollama}}\nworkers: [{name: w, provider: p}]\n"

static void included_models_stand_beside_those_of_the_file(void **state)
{
    (void)state;
    struct config *config = NULL;
    struct err err = {""};
    fixture_write(
        &fixture, "more/a.yaml",
        "models:\n  one: {provider: p, name: theirs}\n  two: {provider: p, context: 7}\n");
    fixture_write(&fixture, "more/b.yaml", "models: {three: {provider: p}}");
    fixture_write(&fixture, "more/c.yaml", "models:\n");
    const char *path = fixture_write(
        &fixture, "c.yaml",
        OLLAMA
        "include: [more/a.yaml, more/b.yaml, more/c.yaml]\n"
        "models: {one: {provider: p, name: ours}}\nroles: {coder: {models: [three, two]}}\n");
    if (config_load(&config, path, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(config->n_models, 3);
    assert_string_equal(config_model(config, "one")->name, "ours");
    assert_int_equal(config_model(config, "two")->context, 7);
    assert_true(config_model(config, "three")->local);
    /* printed whole: it needs the files no more */
    struct buf out = {0};
    config_print(config, &out);
    assert_null(strstr(out.data, "include"));
    struct config *again = parse(out.data);
    assert_int_equal(again->n_models, 3);
    buf_release(&out);
    config_free(&again);
    config_free(&config);
}

static void errors_of_included_files_name_their_place(void **state)
{
    static const struct {
        const char *included, *told;
    } cases[] = {
        {"models: {x: {provider: q}}",
         "more.yaml:1:24: there is no provider `q` under `providers`; did you mean `p`?\n"},
        {"models: {x: {provider: p, contxt: 1}}",
         "more.yaml:1:27: unknown key `contxt` of a model; did you mean `context`?\n"},
        {"models: {x: {provider: p, keep_alive: soon}}",
         "more.yaml:1:39: `keep_alive` must be a duration such as 10m or 300s, a number of "
         "seconds, "
         "or -1\n"},
        {"roles: {}", "more.yaml:1:1: unknown key `roles` in an included file; there is models\n"},
        {"models: [1]", "more.yaml:1:9: `models` must be a map: `name: {...}` for each\n"},
        {"- 1", "more.yaml:1:1: an included file must be `models: {alias: {...}}`\n"},
        {"models: {x: {provider: p, x: ", "more.yaml:2:1: did not find"},
        {"as_of: x\nmodels: {}",
         "more.yaml:1:1: this is the shipped registry, which is built in: include files with "
         "`models: {alias: {provider: ..., name: ...}}`\n"},
        {"models: {y: {provider: p}}", "more.yaml:1:10: model `y` is in other.yaml:1:10 too\n"},
    };
    (void)state;
    fixture_write(&fixture, "other.yaml", "models: {y: {provider: p}}");
    for (size_t i = 0; i < COUNT(cases); i++) {
        fixture_write(&fixture, "more.yaml", cases[i].included);
        char *told = check(OLLAMA "include: [other.yaml, more.yaml]\n");
        if (strncmp(told, cases[i].told, strlen(cases[i].told)) != 0)
            fail_msg("%s", told);
        free(told);
    }
    char *told = check(OLLAMA "include: nothing.yaml\n");
    assert_non_null(strstr(told, "c.yaml:3:10: cannot include "));
    assert_non_null(strstr(told, "nothing.yaml: No such file or directory"));
    free(told);
}

/* Nobody writes to it: reading it would wait for ever. */
static void a_pipe_is_not_included(void **state)
{
    char path[128];
    (void)state;
    snprintf(path, sizeof path, "%s/pipe", fixture.dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    char *told = check(OLLAMA "include: pipe\n");
    assert_non_null(strstr(told, "it is no regular file"));
    free(told);
}

static void including_without_memory_leaks_nothing(void **state)
{
    struct config *config = NULL;
    int rc = -ENOMEM;
    unsigned long k = 0;
    (void)state;
    fixture_write(&fixture, "more.yaml", "models: {x: {provider: p}, y: {provider: p}}");
    char path[256];
    snprintf(path, sizeof path, "%s",
             fixture_write(&fixture, "c.yaml", OLLAMA "include: [more.yaml]\n"));
    while (rc == -ENOMEM) {
        mem_fail_at(++k);
        rc = config_load(&config, path, NULL);
        mem_fail_at(0);
        config_free(&config);
    }
    assert_int_equal(rc, 0);
}

/* --- checks ------------------------------------------------------------------------------- */

#define SEARCH "providers:\n  p: {api: anthropic, key: none}\n  r: {api: search, base: p"
static const struct {
    const char *text, *told;
} wrong[] = {
    /* search */
    {"providers: {r: {api: search}}", "c.yaml:1:16: a provider with `api: search` needs `base`"},
    {"providers: {r: {api: search, base: q}}",
     "c.yaml:1:36: there is no provider `q` under `providers`; did you mean `r`?"},
    {"providers: {r: {api: search, base: r}}",
     "c.yaml:1:36: `base` must be a provider that answers itself: `r` searches"},
    {SEARCH ", engine: searxng}", "c.yaml:3:37: `engine: searxng` needs `engine_url`"},
    {SEARCH ", engine: google, engine_cx: x}", "c.yaml:3:37: `engine: google` needs `engine_key`"},
    {SEARCH ", engine: google, engine_key: env:X}",
     "c.yaml:3:37: `engine: google` needs `engine_cx`, the id of a search engine"},
    {SEARCH ", engine_cx: x}",
     "warning c.yaml:3:6: `engine_key` and `engine_cx` do nothing with `engine: duckduckgo`"},
    {"providers: {o: {api: openai, base: o}}",
     "warning c.yaml:1:36: `base` does nothing with `api: openai`: it belongs to `api: search`"},
    /* plug-ins */
    {"providers: {x: {api: plugin}}",
     "c.yaml:1:16: a provider with `api: plugin` needs `plugin`, a shared object"},
    {"providers: {x: {api: plugin, plugin: no.so}}",
     "warning c.yaml:1:38: cannot read the plug-in "},
    /* headers */
    {"providers: {o: {api: openai, headers: [a, 'X-A: b']}}",
     "c.yaml:1:40: each of `headers` must be `Name: value`"},
    {"providers: {o: {api: openai, headers: ['X-A: b', \"X: a\\nb\"]}}",
     "c.yaml:1:50: each of `headers` must be `Name: value`"},
    {"providers: {o: {api: openai, headers: 'AUTHORIZATION: Bearer sk-1'}}",
     "c.yaml:1:39: `headers`: AUTHORIZATION: keys belong under `key`"},
    {"providers: {o: {api: openai, headers: 'X-Api-Key: sk-1'}}",
     "c.yaml:1:39: `headers`: X-Api-Key: keys belong under `key`"},
    {"providers: {o: {api: openai, headers: 'x-goog-api-key: sk-1'}}",
     "c.yaml:1:39: `headers`: x-goog-api-key: keys belong under `key`"},
    {"providers: {o: {api: openai, headers: 'Content-Length: 5'}}",
     "c.yaml:1:39: `headers`: Content-Length is set for each request"},
    /* models */
    {OLLAMA "models: {m: {provider: p, keep_alive: 10x}}",
     "c.yaml:3:39: `keep_alive` must be a duration such as 10m or 300s, a number of seconds, or "
     "-1"},
    {OLLAMA "models: {m: {provider: p, price: [{from: '2026-12-01'}, {input: 2}]}}",
     "c.yaml:3:57: prices must be in the order of their dates: `from` must be later than that of "
     "the prices before"},
    {OLLAMA "models: {m: {provider: p, price: [{from: '2026-02-01'}, {from: '2026-01-01'}]}}",
     "c.yaml:3:57: prices must be in the order"},
    {OLLAMA "models: {m: {provider: p, price: {from: '2026-13-01'}}}",
     "c.yaml:3:41: `from` must be a date such as \"2026-12-01\""},
    {OLLAMA "models: {m: {provider: p, name: 'qwen3-coder:30b', effort: low}}",
     "warning c.yaml:3:60: `effort` does nothing: model `m` has no capability `thinking`"},
    {CLOUDS "models: {m: {provider: o, name: gpt-6-astra, effort: none}}\n"
            "workers: [{name: w, provider: o}]",
     "warning c.yaml:2:54: `gpt-6-astra` refuses `effort: none`, as far as the registry knows"},
    {CLOUDS "models: {m: {provider: o, name: gpt-4o-mini, effort: low}}\n"
            "workers: [{name: w, provider: o}]",
     "warning c.yaml:2:54: model `m` takes no `effort`: it is left out"},
    {OLLAMA "models: {m: {provider: p, context: 5, max_output: 6}}",
     "warning c.yaml:3:51: `max_output` is more than the `context` of 5"},
    {OLLAMA "models: {m: {provider: p, name: x, served: [y, x]}}",
     "warning c.yaml:3:44: `served` has the model's own name: it only needs further ones"},
    /* workers */
    {"providers: {p: {api: ollama}, q: {api: vllm}}\n"
     "workers: [{name: a, provider: p, gpu: 0}, {name: b, provider: q, gpu: '0', share: true}]",
     "c.yaml:2:71: workers `a` and `b` are both pinned to GPU `0`: give one of them another, or "
     "set "
     "`share: true` on both"},
    /* roles */
    {OLLAMA "models: {m: {provider: p}}\nroles: {coder: {stop: [a, b, c, d, e]}}",
     "c.yaml:4:23: `stop` has more than 4 strings"},
    {OLLAMA "models: {m: {provider: p, tags: [x]}}\nroles: {coder: {tags: [privat]}}",
     "warning c.yaml:4:23: no model has the tag `privat`"},
    {OLLAMA "models: {m: {provider: p, tags: [x]}, n: {provider: p}}\n"
            "roles: {coder: {models: [m, n], tags: [x]}}",
     "warning c.yaml:4:25: role `coder` never uses model `n`, which lacks one of its tags"},
    {OLLAMA "models: {m: {provider: p, name: 'llava:7b'}}\nroles: {coder: {effort: low}}",
     "warning c.yaml:4:25: `effort` does nothing: no model of role `coder` has the capability "
     "`thinking`"},
    {OLLAMA "models: {m: {provider: p, name: bge-m3}}\nroles: {coder: {models: [m]}}",
     "warning c.yaml:4:25: model `m` of role `coder` makes embeddings and answers no prompts"},
    /* routing and budgets */
    {CLOUDS "models: {m: {provider: o, price: {}}, n: {provider: l}}\n"
            "workers: [{name: w, provider: o}, {name: v, provider: l}]\n"
            "routing: {mode: offline}\nroles: {coder: {models: [m]}}",
     "warning c.yaml:5:25: `routing.mode` is offline and role `coder` has no local model: nothing "
     "can run its subtasks"},
    {CLOUDS "models: {m: {provider: o, price: {}}}\nworkers: [{name: w, provider: o}]\n"
            "routing: {mode: offline}",
     "warning c.yaml:4:17: `routing.mode` is offline and no model is local: nothing can run"},
    {"budget: {task_usd: 5, day_usd: 1}",
     "warning c.yaml:1:20: `budget.task_usd` is more than `budget.day_usd`: it is never reached"},
    {"budget: {task_usd: 5}\nroles: {coder: {budget: {task_usd: 6}}}",
     "warning c.yaml:2:25: the `budget` of role `coder` is more than that of everything: it is "
     "never reached"},
    {CLOUDS "models: {m: {provider: o, name: unheard-of}}\nworkers: [{name: w, provider: o}]\n"
            "roles: {coder: {budget: {day_usd: 6}}}",
     "warning c.yaml:2:10: the price of model `m` is not known, so its calls count as free in "
     "every "
     "`budget`: give it a `price`"},
};

static void mistakes_are_told_with_their_place(void **state)
{
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        char *told = check(wrong[i].text);
        const char *at = strstr(told, wrong[i].told);
        if (at == NULL || (at != told && at[-1] != '\n' && at[-1] != ' ')) {
            print_message("told: %snot: %s\n", told, wrong[i].told);
            bad++;
        }
        assert_null(strstr(told, "sk-1"));
        free(told);
    }
    assert_int_equal(bad, 0);
}

static const char *const right[] = {
    SEARCH ", auto: always}\nmodels: {m: {provider: r, name: claude-haiku-5-5}}\n"
           "workers: [{name: w, provider: r}]",
    SEARCH ", engine: searxng, engine_url: 'http://127.0.0.1:8888'}\n"
           "models: {m: {provider: r}}\nworkers: [{name: w, provider: r}]",
    SEARCH ", engine: google, engine_key: env:X, engine_cx: y}\n"
           "models: {m: {provider: r}}\nworkers: [{name: w, provider: r}]",
    OLLAMA "models: {a: {provider: p, keep_alive: 10m}, b: {provider: p, keep_alive: '-1'},\n"
           "  c: {provider: p, keep_alive: 1h30m}, d: {provider: p, keep_alive: -1s},\n"
           "  e: {provider: p, keep_alive: 300}, f: {provider: p, keep_alive: 1.5h}}",
    OLLAMA "models: {m: {provider: p, price: [{input: 1}, {above_tokens: 5, input: 2},\n"
           "  {from: '2026-01-01', input: 3}, {from: '2026-01-01', above_tokens: 5, input: 4}]}}",
    /* one GPU each, one shared by both, one of another machine */
    "providers: {p: {api: ollama}, q: {api: vllm}, r: {api: vllm, base_url: 'http://10.0.0.2'}}\n"
    "models: {m: {provider: p}}\n"
    "workers: [{name: a, provider: p, gpu: 0, share: true}, {name: c, provider: p, gpu: 1},\n"
    "  {name: b, provider: q, gpu: 0, share: true}, {name: d, provider: r, gpu: 1}]",
    "providers: {o: {api: openai, key: none, headers: ['OpenAI-Organization: org-1', 'X-Empty:  "
    "x']}}\nmodels: {m: {provider: o}}\nworkers: [{name: w, provider: o}]",
    OLLAMA "models: {m: {provider: p, tags: [private, x]}}\n"
           "roles: {coder: {tags: [private], stop: [a, b, c, d]}}\nrouting: {mode: offline}",
    CLOUDS "models: {m: {provider: o, name: gpt-6-sol}}\nworkers: [{name: w, provider: o}]\n"
           "budget: {task_usd: 1, day_usd: 10}",
};

static void what_is_right_is_not_remarked_on(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(right); i++) {
        char *told = check(right[i]);
        assert_string_equal(told, "");
        free(told);
    }
}

static void roles_with_tags_prefer_only_models_that_have_them(void **state)
{
    (void)state;
    struct config *config =
        parse(CLOUDS "models: {a: {provider: o}, b: {provider: o, tags: [private]},\n"
                     "  c: {provider: l, tags: [private, fast]}, v: {provider: l, name: bge-m3}}\n"
                     "roles: {coder: {tags: [private]}}");
    const struct config_role *coder = config_role(config, "coder");
    assert_int_equal(coder->n_models, 2);
    assert_string_equal(coder->models[0], "c"); /* local first */
    assert_string_equal(coder->models[1], "b");
    assert_int_equal(config_role(config, "writer")->n_models, 3);
    config_free(&config);
}

static int set_up(void **state)
{
    (void)state;
    fixture_init(&fixture);
    assert_non_null(model_registry_shipped()); /* read once, before memory is made to fail */
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
        cmocka_unit_test(models_get_from_the_registry_what_they_do_not_say),
        cmocka_unit_test(what_the_file_says_of_a_model_wins),
        cmocka_unit_test(a_completed_configuration_reads_back_to_the_same),
        cmocka_unit_test(models_of_a_search_are_those_of_its_base),
        cmocka_unit_test(included_models_stand_beside_those_of_the_file),
        cmocka_unit_test(errors_of_included_files_name_their_place),
        cmocka_unit_test(a_pipe_is_not_included),
        cmocka_unit_test(including_without_memory_leaks_nothing),
        cmocka_unit_test(mistakes_are_told_with_their_place),
        cmocka_unit_test(what_is_right_is_not_remarked_on),
        cmocka_unit_test(roles_with_tags_prefer_only_models_that_have_them),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
