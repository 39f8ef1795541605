#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "workers/ask.h"

static struct config_price price = {.input = 1, .output = 10, .cached = -1, .cache_write = 2};
static struct config_provider settings = {.name = (char[]){"cloud"}, .stream = true};
static char alias[] = "tm", name[] = "test-model";
static struct config_model model;
static struct ask ask;
static struct err err;

static int setup(void **state)
{
    (void)state;
    model = (struct config_model){.alias = alias, .name = name, .prices = &price, .n_prices = 1};
    err = (struct err){0};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ask_release(&ask);
    return 0;
}

static struct bytes text(const char *value)
{
    return (struct bytes){value, strlen(value)};
}

static struct msg_work work_of(const char *kind)
{
    return (struct msg_work){
        .kind = kind,
        .title = "t",
        .role = "coder",
        .system = text("system"),
        .prompt = text("prompt"),
        .task_text = text(""),
        .json_schema = text(""),
        .images = text(""),
        .inputs = text(""),
        .temperature = -1,
    };
}

static int read_with(const char *api, const struct msg_work *work)
{
    struct message message = {.type = MESSAGE_work, .work = *work};
    struct ask_options options = {
        .provider = provider_find(api), .settings = &settings, .model = &model};
    struct buf record = {0};
    assert_int_equal(message_encode(&message, &record), 0);
    struct queue_claim claim = {.work = {record.data, record.len}};
    ask_release(&ask);
    int rc = ask_read(&ask, &options, &claim, &err);
    buf_release(&record);
    return rc;
}

static void read_work(const struct msg_work *work)
{
    if (read_with("openai", work) != 0)
        fail_msg("%s", err.text);
}

static void the_worst_case_counts_every_byte_as_a_token(void **state)
{
    (void)state;
    struct msg_work work = work_of("run");
    work.max_tokens = 100;
    read_work(&work);
    ask_bound_answer(&ask);
    struct queue_spend worst = ask_worst(&ask, 0);
    int64_t prompt = 6 + 6 + 256;
    assert_int_equal(worst.tokens, prompt + 100);
    assert_int_equal(worst.nano_usd, prompt * 2000 + 100 * 10000); /* written to a cache: dearest */
    work.images = text("[{\"url\":\"https://example.org/a\"},{\"data\":\"aaaa\"}]");
    read_work(&work);
    assert_int_equal(ask_worst(&ask, 0).tokens, prompt + 100 + 2 * ASK_IMAGE_TOKENS);
    work = work_of("list");
    read_work(&work);
    assert_int_equal(ask_worst(&ask, 0).tokens, 0);
}

static void an_answer_that_nobody_bounds_is_bounded_for_budgets(void **state)
{
    (void)state;
    struct msg_work work = work_of("run");
    read_work(&work);
    assert_int_equal(ask.call.max_tokens, 0);
    ask_bound_answer(&ask);
    assert_int_equal(ask.call.max_tokens, ASK_ANSWER_TOKENS);
    model.max_output = 64000;
    read_work(&work);
    assert_int_equal(ask.call.max_tokens, 64000);
    ask_bound_answer(&ask);
    assert_int_equal(ask.call.max_tokens, ASK_ANSWER_TOKENS);
    model.max_output = 100;
    read_work(&work);
    ask_bound_answer(&ask);
    assert_int_equal(ask.call.max_tokens, 100);
    work.max_tokens = 50;
    read_work(&work);
    ask_bound_answer(&ask);
    assert_int_equal(ask.call.max_tokens, 50);
}

static void a_model_that_takes_no_bound_is_reserved_its_longest_answer(void **state)
{
    (void)state;
    char *refuses[] = {(char[]){"max_tokens"}};
    struct msg_work work = work_of("run");
    work.max_tokens = 50;
    model.refuses = refuses;
    model.n_refuses = 1;
    model.max_output = 9000;
    read_work(&work);
    ask_bound_answer(&ask);
    assert_int_equal(ask.call.max_tokens, 0);
    assert_int_equal(ask_worst(&ask, 0).tokens, 6 + 6 + 256 + 9000);
    model.max_output = 0;
    read_work(&work);
    assert_true(ask_worst(&ask, 0).tokens > 100000);
}

static void cached_is_what_is_wished_for_or_has_temperature_zero(void **state)
{
    (void)state;
    static const struct {
        const char *kind, *wish;
        double temperature;
        bool cacheable;
    } cases[] = {
        {"run", "", -1, false},      {"run", "", 0, true},     {"run", "", 0.2, false},
        {"run", "on", 1, true},      {"run", "off", 0, false}, {"embed", "", -1, true},
        {"embed", "off", -1, false}, {"list", "on", 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct msg_work work = work_of(cases[i].kind);
        work.cache = cases[i].wish;
        work.temperature = cases[i].temperature;
        read_work(&work);
        if (ask_cacheable(&ask) != cases[i].cacheable)
            fail_msg("case %zu", i);
    }
    char *refuses[] = {(char[]){"temperature"}};
    struct msg_work work = work_of("run");
    work.temperature = 0;
    model.refuses = refuses;
    model.n_refuses = 1;
    read_work(&work);
    assert_false(ask_cacheable(&ask)); /* it is not sent */
}

static void the_roles_effort_goes_before_the_models(void **state)
{
    (void)state;
    struct msg_work work = work_of("run");
    read_work(&work);
    assert_string_equal(ask.call.effort, "");
    model.effort = (char[]){"low"};
    read_work(&work);
    assert_string_equal(ask.call.effort, "low");
    work.effort = "high";
    read_work(&work);
    assert_string_equal(ask.call.effort, "high");
}

static void lists_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const images[] = {"[", "{}", "[]", "[1]", "[{}]", "[{\"url\":7}]", "null"};
    static const char *const inputs[] = {"[", "[]", "[1]", "[\"a\", null]", "[\"a\\u0000b\"]", "1"};
    struct msg_work work = work_of("run");
    for (size_t i = 0; i < sizeof images / sizeof *images; i++) {
        work.images = text(images[i]);
        assert_int_equal(read_with("openai", &work), -EINVAL);
        assert_non_null(strstr(err.text, "image"));
    }
    work = work_of("embed");
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        work.inputs = text(inputs[i]);
        assert_int_equal(read_with("openai", &work), -EINVAL);
        assert_non_null(strstr(err.text, "input"));
    }
}

static void a_capability_that_is_missing_is_named(void **state)
{
    (void)state;
    char *capabilities[] = {(char[]){"tools"}};
    struct msg_work work = work_of("embed");
    model.capabilities = capabilities;
    model.n_capabilities = 1;
    assert_int_equal(read_with("openai", &work), -EINVAL);
    assert_non_null(strstr(err.text, "tm makes no embeddings"));
    work = work_of("run");
    work.images = text("[{\"url\":\"https://example.org/a\"}]");
    assert_int_equal(read_with("openai", &work), -EINVAL);
    assert_non_null(strstr(err.text, "tm reads no images"));
}

static void a_prompt_without_inputs_is_embedded_itself(void **state)
{
    (void)state;
    struct msg_work work = work_of("embed");
    work.dimensions = 64;
    read_work(&work);
    assert_int_equal(ask.call.n_inputs, 1);
    assert_string_equal(ask.call.inputs[0], "prompt");
    assert_int_equal(ask.call.dimensions, 64);
    assert_false(ask.call.stream);
    assert_string_equal(ask.call.system, "");
}

static void a_damaged_record_is_told_apart_from_a_bad_request(void **state)
{
    (void)state;
    struct ask_options options = {
        .provider = provider_find("openai"), .settings = &settings, .model = &model};
    struct queue_claim claim = {.work = text("\x81junk")};
    ask_release(&ask);
    assert_int_equal(ask_read(&ask, &options, &claim, &err), -EBADMSG);
}

#define ASK_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ASK_TEST(the_worst_case_counts_every_byte_as_a_token),
        ASK_TEST(an_answer_that_nobody_bounds_is_bounded_for_budgets),
        ASK_TEST(a_model_that_takes_no_bound_is_reserved_its_longest_answer),
        ASK_TEST(cached_is_what_is_wished_for_or_has_temperature_zero),
        ASK_TEST(the_roles_effort_goes_before_the_models),
        ASK_TEST(lists_that_are_none_are_refused),
        ASK_TEST(a_capability_that_is_missing_is_named),
        ASK_TEST(a_prompt_without_inputs_is_embedded_itself),
        ASK_TEST(a_damaged_record_is_told_apart_from_a_bad_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
