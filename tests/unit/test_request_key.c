#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "workers/request_key.h"

static const char *const stop[] = {"ab", "c"};
static const char *const other_stop[] = {"a", "bc"};
static const char *const inputs[] = {"one", "two"};
static const char *const headers[] = {"X-Team: a"};
static const struct provider_image image = {.url = "https://example.org/a.png"};

static struct provider_call call_of_test(void)
{
    return (struct provider_call){
        .base_url = "https://api.example.org",
        .key = "sk-1",
        .model = "m",
        .system = "be",
        .prompt = "brief",
        .prompt_len = 5,
        .temperature = 0,
        .effort = "",
        .keep_alive = "",
        .stream = true,
        .stop = stop,
        .n_stop = 2,
        .headers = headers,
        .n_headers = 1,
    };
}

static void key_of(const struct provider_call *call, const struct config_provider *search,
                   char ret[ANSWER_KEY_SIZE])
{
    request_key(provider_find("openai"), call, search, ret);
}

static void how_an_answer_travels_makes_no_difference(void **state)
{
    (void)state;
    char key[ANSWER_KEY_SIZE], other[ANSWER_KEY_SIZE], prompt[] = "brief and more";
    struct provider_call call = call_of_test();
    key_of(&call, NULL, key);
    assert_int_equal(strspn(key, "0123456789abcdef"), ANSWER_KEY_SIZE - 1);
    call.stream = false;
    call.key = "sk-2";
    call.keep_alive = "10m";
    call.prompt = prompt; /* only its first bytes count */
    call.temperature = -0.0;
    call.seed = 7; /* not sent */
    key_of(&call, NULL, other);
    assert_string_equal(key, other);
}

static void whatever_decides_the_answer_makes_another_key(void **state)
{
    (void)state;
    struct config_provider search = {.engine = (char[]){"searxng"}, .search = (char[]){"auto"}};
    struct provider_call base = call_of_test();
    struct {
        const char *what;
        struct provider_call call;
    } others[] = {
        {"nothing", base},   {"base_url", base},    {"model", base},    {"kind", base},
        {"system", base},    {"prompt", base},      {"boundary", base}, {"schema", base},
        {"empty", base},     {"temperature", base}, {"unsent", base},   {"max_tokens", base},
        {"context", base},   {"seed", base},        {"stop", base},     {"fewer", base},
        {"effort", base},    {"image", base},       {"inputs", base},   {"dimensions", base},
        {"responses", base}, {"no_system", base},   {"headers", base},
    };
    size_t n = sizeof others / sizeof *others, i = 1;
    others[i++].call.base_url = "https://api.example.com";
    others[i++].call.model = "m2";
    others[i++].call.kind = PROVIDER_EMBED;
    others[i++].call.system = "bE";
    others[i++].call.prompt = "briEf";
    others[i].call.system = "beb"; /* the same bytes, cut elsewhere */
    others[i].call.prompt = "rief";
    others[i++].call.prompt_len = 4;
    others[i++].call.json_schema = "{}";
    others[i++].call.json_schema = "";
    others[i++].call.temperature = 0.5;
    others[i++].call.temperature = -1;
    others[i++].call.max_tokens = 5;
    others[i++].call.context = 4096;
    others[i++].call.has_seed = true;
    others[i++].call.stop = other_stop;
    others[i++].call.n_stop = 1;
    others[i++].call.effort = "low";
    others[i].call.images = &image;
    others[i++].call.n_images = 1;
    others[i].call.inputs = inputs;
    others[i++].call.n_inputs = 2;
    others[i++].call.dimensions = 3;
    others[i++].call.responses = true;
    others[i++].call.no_system = true;
    others[i++].call.n_headers = 0;
    assert_int_equal(i, n);
    char keys[32][ANSWER_KEY_SIZE];
    for (size_t k = 0; k < n; k++)
        key_of(&others[k].call, NULL, keys[k]);
    key_of(&base, &search, keys[n++]);
    for (size_t a = 0; a < n; a++)
        for (size_t b = a + 1; b < n; b++)
            if (strcmp(keys[a], keys[b]) == 0)
                fail_msg("%s and %s have one key", others[a].what,
                         b + 1 < n ? others[b].what : "search");
}

static void another_family_is_another_key(void **state)
{
    (void)state;
    char key[ANSWER_KEY_SIZE], other[ANSWER_KEY_SIZE];
    struct provider_call call = call_of_test();
    request_key(provider_find("openai"), &call, NULL, key);
    request_key(provider_find("anthropic"), &call, NULL, other);
    assert_string_not_equal(key, other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(how_an_answer_travels_makes_no_difference),
        cmocka_unit_test(whatever_decides_the_answer_makes_another_key),
        cmocka_unit_test(another_family_is_another_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
