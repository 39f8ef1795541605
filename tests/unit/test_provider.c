/* The provider table, and what all replies share. */
#include "common/config.h"
#include "tests/unit/provider_check.h"

static void every_row_of_the_table_is_complete_and_found_by_its_name(void **state)
{
    (void)state;
    size_t n;
    const struct provider *const *table = provider_table(&n);
    assert_true(n >= 11);
    for (size_t i = 0; i < n; i++) {
        const struct provider *provider = table[i];
        assert_ptr_equal(provider_find(provider->api), provider);
        assert_int_equal(provider->abi, PROVIDER_ABI);
        assert_non_null(provider->title);
        assert_non_null(provider->event);
        assert_non_null(provider->body);
        assert_non_null(provider->failure);
        assert_non_null(provider->end);
        assert_true(provider->kinds & PROVIDER_KIND(PROVIDER_CHAT));
        assert_true(provider->kinds < PROVIDER_KIND(PROVIDER_KIND_COUNT));
        assert_true(!provider->needs_key || provider->key_env != NULL);
    }
    assert_null(provider_find("nobody"));
    assert_null(provider_find(""));
}

/* Layers keep the two tables apart; this keeps them the same. */
static void configuration_knows_the_same_providers(void **state)
{
    (void)state;
    size_t n, n_apis;
    const struct provider *const *table = provider_table(&n);
    const struct config_api *apis = config_apis(&n_apis);
    size_t own = 0;
    for (size_t i = 0; i < n_apis; i++)
        own += !apis[i].wraps;
    assert_int_equal(n, own);
    for (size_t i = 0; i < n; i++) {
        const struct config_api *api = config_api(table[i]->api);
        assert_non_null(api);
        assert_int_equal(api->local, table[i]->local);
        assert_int_equal(api->key_env != NULL, table[i]->needs_key);
        if (api->key_env != NULL)
            assert_string_equal(api->key_env, table[i]->key_env);
        assert_int_equal(api->base_url != NULL, table[i]->base_url != NULL);
        if (api->base_url != NULL)
            assert_string_equal(api->base_url, table[i]->base_url);
    }
}

static void limits_of_rate_and_of_money_are_told_apart_at_429(void **state)
{
    (void)state;
    static const struct {
        const char *api, *rate, *money;
    } cases[] = {
        {"openai", "{\"error\":{\"message\":\"x\",\"code\":\"rate_limit_exceeded\"}}",
         "{\"error\":{\"message\":\"x\",\"type\":\"insufficient_quota\"}}"},
        {"anthropic", "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\"}}",
         "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"details\":"
         "{\"error_code\":\"enforced_spend_limit_reached\"}}}"},
        {"gemini", "{\"error\":{\"code\":429,\"message\":\"limit: 10\"}}",
         "{\"error\":{\"code\":429,\"message\":\"limit: 0\"}}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply rate = failure(cases[i].api, 429, NULL, cases[i].rate);
        struct provider_reply money = failure(cases[i].api, 429, NULL, cases[i].money);
        assert_error(&rate, CLASS_RATE_LIMITED);
        assert_error(&money, CLASS_QUOTA);
        assert_int_equal(error_class_action(money.error), ERROR_MOVE);
    }
}

static void delays_are_read_as_each_vendor_gives_them(void **state)
{
    (void)state;
    struct provider_reply reply =
        failure("openai", 429,
                "x-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 6m0s\n", "{}");
    assert_int_equal(reply.retry_after_ms, 360000);
    reply = failure("anthropic", 429,
                    "date: Fri, 20 Nov 2026 12:40:00 GMT\n"
                    "anthropic-ratelimit-requests-remaining: 0\n"
                    "anthropic-ratelimit-requests-reset: 2026-11-20T12:40:59Z\n",
                    "{}");
    assert_int_equal(reply.retry_after_ms, 59000);
    reply = failure("gemini", 429, NULL, "{\"error\":{\"details\":[{\"retryDelay\":\"12.5s\"}]}}");
    assert_int_equal(reply.retry_after_ms, 12500);
}

static void temperature_is_sent_only_when_asked(void **state)
{
    (void)state;
    size_t n;
    const struct provider *const *table = provider_table(&n);
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    for (size_t i = 0; i < n; i++) {
        if (table[i]->build == NULL)
            continue;
        call.temperature = -1;
        struct provider_request request = build(table[i]->api, &call);
        assert_null(strstr(request.body.data, "temperature"));
        provider_request_release(&request);
        call.temperature = 0.25;
        request = build(table[i]->api, &call);
        assert_non_null(strstr(request.body.data, "\"temperature\":0.25"));
        provider_request_release(&request);
    }
}

static void key_is_in_the_headers_alone(void **state)
{
    (void)state;
    size_t n;
    const struct provider *const *table = provider_table(&n);
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    for (size_t i = 0; i < n; i++) {
        if (table[i]->build == NULL)
            continue;
        struct provider_request request = build(table[i]->api, &call);
        assert_non_null(strstr(request.headers.data, KEY));
        assert_null(strstr(request.url.data, KEY));
        assert_null(strstr(request.body.data, KEY));
        provider_request_release(&request);
    }
}

static void noop_answers_at_once(void **state)
{
    (void)state;
    const struct provider *provider = provider_find("noop");
    struct provider_reply reply;
    assert_null(provider->build);
    provider_reply_init(&reply);
    provider->body(provider, &reply, NULL, 0);
    provider->end(provider, &reply);
    assert_success(&reply, "ok");
    assert_int_equal(reply.finish, FINISH_DONE);
    assert_int_equal(reply.output_tokens, 0);
    provider_reply_release(&reply);
}

static void noop_makes_a_vector_of_each_text_and_lists_itself(void **state)
{
    (void)state;
    struct provider_reply reply = body_of("noop", PROVIDER_EMBED, 3, "");
    assert_success(&reply, "[[1],[1],[1]]");
    provider_reply_release(&reply);
    reply = body_of("noop", PROVIDER_LIST, 0, "");
    assert_success(&reply, "noop\n");
    provider_reply_release(&reply);
}

static void reply_takes_over_what_it_is_read_by(void **state)
{
    (void)state;
    struct provider_call call = {.kind = PROVIDER_EMBED,
                                 .responses = true,
                                 .n_inputs = 7,
                                 .dimensions = 512,
                                 .max_tokens = 9};
    struct provider_reply reply;
    provider_reply_init(&reply);
    provider_reply_expect(&reply, &call);
    assert_int_equal(reply.kind, PROVIDER_EMBED);
    assert_true(reply.responses);
    assert_int_equal(reply.n_inputs, 7);
    assert_int_equal(reply.dimensions, 512);
    assert_int_equal(reply.max_tokens, 9);
}

static void finish_names_are_those_of_the_stored_outcome(void **state)
{
    (void)state;
    assert_string_equal(finish_name(FINISH_NONE), "");
    assert_string_equal(finish_name(FINISH_DONE), "done");
    assert_string_equal(finish_name(FINISH_LENGTH), "length");
    assert_string_equal(finish_name(FINISH_TOOLS), "tools");
    assert_string_equal(finish_name(FINISH_FILTERED), "filtered");
    assert_string_equal(finish_name(FINISH_OTHER), "other");
}

static void first_cause_of_a_failure_stands(void **state)
{
    (void)state;
    struct provider_reply reply;
    provider_reply_init(&reply);
    provider_reply_fail(&reply, CLASS_QUOTA, "first %d", 1);
    provider_reply_fail(&reply, CLASS_RETRY, "second");
    assert_int_equal(reply.error, CLASS_QUOTA);
    assert_string_equal(reply.error_text, "first 1");
    provider_reply_release(&reply);
}

static void failed_reply_is_never_finished(void **state)
{
    (void)state;
    struct provider_reply reply;
    provider_reply_init(&reply);
    reply.finished = true;
    provider_reply_fail(&reply, CLASS_RETRY, "x");
    assert_false(reply.finished);
    provider_reply_release(&reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_the_table_is_complete_and_found_by_its_name),
        cmocka_unit_test(configuration_knows_the_same_providers),
        cmocka_unit_test(limits_of_rate_and_of_money_are_told_apart_at_429),
        cmocka_unit_test(delays_are_read_as_each_vendor_gives_them),
        cmocka_unit_test(temperature_is_sent_only_when_asked),
        cmocka_unit_test(key_is_in_the_headers_alone),
        cmocka_unit_test(noop_answers_at_once),
        cmocka_unit_test(noop_makes_a_vector_of_each_text_and_lists_itself),
        cmocka_unit_test(reply_takes_over_what_it_is_read_by),
        cmocka_unit_test(finish_names_are_those_of_the_stored_outcome),
        cmocka_unit_test(first_cause_of_a_failure_stands),
        cmocka_unit_test(failed_reply_is_never_finished),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
