/* What costs client writers of Anthropic, Gemini and Ollama most: one test for each trap, by its
 * name. */
#include "tests/unit/provider_check.h"

#define COUNT(table) (sizeof table / sizeof *table)

static const char *const vendors[] = {"anthropic", "gemini", "ollama"};

#define ANTHROPIC_START(usage)                                                                     \
    "data: "                                                                                       \
    "{\"type\":\"message_start\",\"message\":{\"model\":\"c\",\"content\":[],\"usage\":{" usage    \
    "}}}\n\n"
#define ANTHROPIC_TEXT                                                                             \
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","      \
    "\"text\":\"hello\"}}\n\n"
#define ANTHROPIC_DELTA(reason, usage)                                                             \
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":" reason "},\"usage\":{" usage   \
    "}}\n\n"
#define ANTHROPIC_STOP "data: {\"type\":\"message_stop\"}\n\n"
#define GEMINI_CHUNK(parts, rest) "data: {\"candidates\":[{\"content\":{\"parts\":[" parts "]}" rest
#define OLLAMA_LINE "{\"message\":{\"content\":\"hello\"},\"done\":false}\n"

static void http_200_is_not_success(void **state)
{
    (void)state;
    static const struct {
        const char *api, *stream;
        enum error_class class_;
    } cases[] = {
        {"anthropic",
         "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
         "\"message\":\"Overloaded\"}}\n\n",
         CLASS_OVERLOADED},
        {"anthropic",
         ANTHROPIC_START("") ANTHROPIC_TEXT "event: error\ndata: {\"type\":\"error\",\"error\":{"
                                            "\"type\":\"api_error\",\"message\":\"x\"}}\n\n",
         CLASS_RETRY},
        {"anthropic", ANTHROPIC_START("") ANTHROPIC_TEXT, CLASS_BAD_RESPONSE},
        {"gemini", "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n", CLASS_REFUSED},
        {"gemini", GEMINI_CHUNK("{\"text\":\"hello\"}", "}]}\n\n"), CLASS_BAD_RESPONSE},
        {"ollama", OLLAMA_LINE "{\"error\":\"llama runner process has terminated\"}\n",
         CLASS_RETRY},
        {"ollama", OLLAMA_LINE, CLASS_BAD_RESPONSE},
        {"ollama", "", CLASS_BAD_RESPONSE},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct provider_reply reply = stream(cases[i].api, cases[i].stream);
        assert_error(&reply, cases[i].class_);
        provider_reply_release(&reply);
    }
}

static void done_marker_proves_nothing(void **state)
{
    (void)state;
    static const char *const streams[] = {
        ANTHROPIC_START("") ANTHROPIC_TEXT "data: [DONE]\n\n",
        GEMINI_CHUNK("{\"text\":\"hello\"}", "}]}\n\ndata: [DONE]\n\n"),
        OLLAMA_LINE "[DONE]\n",
    };
    for (size_t i = 0; i < COUNT(streams); i++) {
        struct provider_reply reply = stream(vendors[i], streams[i]);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
    }
}

static void usage_arithmetic(void **state)
{
    (void)state;
    /* Anthropic: the three parts are disjoint, and later counts replace earlier ones. */
    struct provider_reply reply = stream(
        "anthropic", ANTHROPIC_START("\"input_tokens\":10,\"cache_creation_input_tokens\":200,"
                                     "\"cache_read_input_tokens\":3000,\"output_tokens\":1")
                         ANTHROPIC_TEXT ANTHROPIC_DELTA("null", "\"output_tokens\":5")
                             ANTHROPIC_DELTA("\"end_turn\"", "\"output_tokens\":9") ANTHROPIC_STOP);
    assert_success(&reply, "hello");
    assert_int_equal(reply.prompt_tokens, 3210);
    assert_int_equal(reply.cached_tokens, 3000);
    assert_int_equal(reply.cache_write_tokens, 200);
    assert_int_equal(reply.output_tokens, 9);
    provider_reply_release(&reply);
    /* Gemini: cached ones are a part of the prompt, thoughts are none of the candidates. */
#define USAGE(prompt, candidates)                                                                  \
    "\"usageMetadata\":{\"promptTokenCount\":" prompt ",\"cachedContentTokenCount\":4,"            \
    "\"candidatesTokenCount\":" candidates ",\"thoughtsTokenCount\":30}}\n\n"
    reply =
        stream("gemini", GEMINI_CHUNK("{\"text\":\"hel\"}", "}]," USAGE("8", "3")) GEMINI_CHUNK(
                             "{\"text\":\"lo\"}", ",\"finishReason\":\"STOP\"}]," USAGE("8", "7")));
    assert_success(&reply, "hello");
    assert_int_equal(reply.prompt_tokens, 8);
    assert_int_equal(reply.cached_tokens, 4);
    assert_int_equal(reply.output_tokens, 37);
    assert_int_equal(reply.reasoning_tokens, 30);
    provider_reply_release(&reply);
}

static void status_429_has_two_meanings(void **state)
{
    (void)state;
    static const struct error_case anthropic[] = {
        {429, "retry-after: 5\n", "{\"error\":{\"type\":\"rate_limit_error\",\"message\":\"x\"}}",
         CLASS_RATE_LIMITED, 5000},
        {429, NULL,
         "{\"error\":{\"type\":\"rate_limit_error\",\"message\":\"x\",\"details\":{"
         "\"error_code\":\"enforced_spend_limit_reached\"}}}",
         CLASS_QUOTA, -1},
    };
    static const struct error_case gemini[] = {
        {429, NULL, "{\"error\":{\"code\":429,\"message\":\"metric: x, limit: 15\"}}",
         CLASS_RATE_LIMITED, -1},
        {429, NULL, "{\"error\":{\"code\":429,\"message\":\"metric: x, limit: 0, model: g\"}}",
         CLASS_QUOTA, -1},
        {429, NULL,
         "{\"error\":{\"code\":429,\"message\":\"x\",\"details\":[{\"violations\":[{\"quotaId\":"
         "\"GenerateRequestsPerDayPerProjectPerModel-FreeTier\"}]}]}}",
         CLASS_QUOTA, -1},
    };
    static const struct error_case ollama[] = {
        {429, NULL, "{\"error\":\"too many requests\"}", CLASS_RATE_LIMITED, -1},
        {429, NULL,
         "{\"error\":\"you have reached your weekly usage limit, upgrade for higher limits\"}",
         CLASS_QUOTA, -1},
    };
    check_errors("anthropic", anthropic, COUNT(anthropic));
    check_errors("gemini", gemini, COUNT(gemini));
    check_errors("ollama", ollama, COUNT(ollama));
}

static void sampling_and_thinking_parameters_are_not_sent_unasked(void **state)
{
    (void)state;
    static const char *const words[] = {"temperature", "top_p",  "top_k",  "topP", "seed",
                                        "thinking",    "effort", "\"stop", "think"};
    for (size_t i = 0; i < COUNT(vendors); i++) {
        struct provider_call call = plain_call();
        call.effort = "";
        struct provider_request request = build(vendors[i], &call);
        for (size_t k = 0; k < COUNT(words); k++)
            assert_null(strstr(request.body.data, words[k]));
        provider_request_release(&request);
    }
}

static void turns_of_the_model_are_never_sent_back(void **state)
{
    (void)state;
    /* So that no thought signature has to be echoed, or dropped with a change of the model. */
    for (size_t i = 0; i < COUNT(vendors); i++) {
        struct provider_call call = plain_call();
        struct provider_request request = build(vendors[i], &call);
        assert_null(strstr(request.body.data, "assistant"));
        assert_null(strstr(request.body.data, "\"model\",\"parts\""));
        assert_null(strstr(request.body.data, "ignature"));
        provider_request_release(&request);
    }
    struct provider_reply reply =
        stream("gemini", GEMINI_CHUNK("{\"text\":\"hello\",\"thoughtSignature\":\"C\"}",
                                      ",\"finishReason\":\"STOP\"}]}\n\n"));
    assert_success(&reply, "hello");
    provider_reply_release(&reply);
}

static void ollama_reloads_when_num_ctx_differs(void **state)
{
    (void)state;
    /* The context is the model's: whatever else a call asks for, it stays. */
    struct provider_call call = plain_call();
    call.context = 16384;
    struct provider_request one = build("ollama", &call);
    char prompt[20000];
    memset(prompt, 'x', sizeof prompt);
    call.prompt = prompt;
    call.prompt_len = sizeof prompt;
    call.max_tokens = 9000;
    call.stream = false;
    struct provider_request other = build("ollama", &call);
    assert_non_null(strstr(one.body.data, "\"num_ctx\":16384"));
    assert_non_null(strstr(other.body.data, "\"num_ctx\":16384"));
    provider_request_release(&one);
    provider_request_release(&other);
}

static void ollama_keep_alive_300_fails_as_a_string(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.keep_alive = "300";
    struct provider_request request = build("ollama", &call);
    assert_non_null(strstr(request.body.data, "\"keep_alive\":300}"));
    provider_request_release(&request);
}

static void ollama_streams_unless_told_not_to(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.stream = false;
    struct provider_request request = build("ollama", &call);
    assert_non_null(strstr(request.body.data, "\"stream\":false"));
    provider_request_release(&request);
}

static void ollama_leaves_out_metrics_that_are_zero(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("ollama", OLLAMA_LINE "{\"done\":true,\"total_duration\":5,\"eval_count\":3}\n");
    assert_success(&reply, "hello");
    assert_int_equal(reply.output_tokens, 3);
    assert_int_equal(reply.prompt_tokens, 0);
    assert_true(reply.load_ms == 0 && reply.prompt_ms == 0);
    provider_reply_release(&reply);
}

static void reasoning_eats_the_output_budget(void **state)
{
    (void)state;
    static const char *const streams[] = {
        ANTHROPIC_START("") "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":"
                            "\"thinking_delta\",\"thinking\":\"hm\"}}\n\n" ANTHROPIC_DELTA(
                                "\"max_tokens\"", "") ANTHROPIC_STOP,
        GEMINI_CHUNK("{\"text\":\"hm\",\"thought\":true}",
                     ",\"finishReason\":\"MAX_TOKENS\"}]}\n\n"),
        "{\"message\":{\"thinking\":\"hm\"},\"done\":true,\"done_reason\":\"length\"}\n",
    };
    for (size_t i = 0; i < COUNT(streams); i++) {
        struct provider_reply reply = stream(vendors[i], streams[i]);
        assert_error(&reply, CLASS_BAD_REQUEST);
        assert_int_equal(reply.finish, FINISH_LENGTH);
        assert_non_null(strstr(reply.error_text, "raise max_tokens"));
        provider_reply_release(&reply);
    }
}

static void reasoning_has_another_name_everywhere_and_may_come_first(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        ("{\"type\":\"message\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\"},"
         "{\"type\":\"redacted_thinking\",\"data\":\"x\"},{\"type\":\"text\",\"text\":\"hello\"}],"
         "\"stop_reason\":\"end_turn\"}"),
        ("{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\",\"thought\":true},"
         "{\"text\":\"hello\"}]},\"finishReason\":\"STOP\"}]}"),
        "{\"message\":{\"thinking\":\"hm\",\"content\":\"hello\"},\"done\":true}",
    };
    for (size_t i = 0; i < COUNT(bodies); i++) {
        struct provider_reply reply = body(vendors[i], bodies[i]);
        assert_success(&reply, "hello");
        assert_string_equal(reasoning_of(&reply), "hm");
        provider_reply_release(&reply);
    }
}

static void tool_arguments_of_any_shape_are_no_text(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"type\":\"message\",\"content\":[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\","
        "\"input\":{\"text\":\"no\"}}],\"stop_reason\":\"tool_use\"}",
        "{\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\",\"args\":"
        "{\"text\":\"no\"}}}]},\"finishReason\":\"STOP\"}]}",
        "{\"message\":{\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
        "\"arguments\":{\"content\":\"no\"}}}]},\"done\":true,\"done_reason\":\"stop\"}",
    };
    for (size_t i = 0; i < COUNT(bodies); i++) {
        struct provider_reply reply = body(vendors[i], bodies[i]);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        assert_int_equal(reply.finish, FINISH_TOOLS);
        assert_int_equal(reply.text.len, 0);
        provider_reply_release(&reply);
    }
}

static void delays_are_times_for_anthropic_and_in_the_body_for_gemini(void **state)
{
    (void)state;
    static const struct error_case anthropic[] = {
        {429,
         "date: Fri, 20 Nov 2026 12:40:00 GMT\nanthropic-ratelimit-tokens-remaining: 0\n"
         "anthropic-ratelimit-tokens-reset: 2026-11-20T12:40:59Z\n",
         "{\"error\":{\"type\":\"rate_limit_error\"}}", CLASS_RATE_LIMITED, 59000},
    };
    static const struct error_case gemini[] = {
        {429, NULL,
         "{\"error\":{\"code\":429,\"message\":\"x\",\"details\":[{\"@type\":"
         "\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"12.5s\"}]}}",
         CLASS_RATE_LIMITED, 12500},
    };
    check_errors("anthropic", anthropic, COUNT(anthropic));
    check_errors("gemini", gemini, COUNT(gemini));
}

static void gemini_without_alt_sse_is_an_array_and_errors_are_raw_json(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    struct provider_request request = build("gemini", &call);
    assert_non_null(strstr(request.url.data, ":streamGenerateContent?alt=sse"));
    provider_request_release(&request);
    struct provider_reply reply =
        stream("gemini", "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hel\"}]}}]},\r\n"
                         "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"lo\"}]},"
                         "\"finishReason\":\"STOP\"}]}]");
    assert_success(&reply, "hello");
    provider_reply_release(&reply);
    reply = stream("gemini", GEMINI_CHUNK("{\"text\":\"hello\"}",
                                          "}]}\n\n") "{\n  \"error\": {\n"
                                                     "    \"code\": 503,\n    \"message\": \"x\",\n"
                                                     "    \"status\": \"UNAVAILABLE\"\n  }\n}\n");
    assert_error(&reply, CLASS_OVERLOADED);
    provider_reply_release(&reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http_200_is_not_success),
        cmocka_unit_test(done_marker_proves_nothing),
        cmocka_unit_test(usage_arithmetic),
        cmocka_unit_test(status_429_has_two_meanings),
        cmocka_unit_test(sampling_and_thinking_parameters_are_not_sent_unasked),
        cmocka_unit_test(turns_of_the_model_are_never_sent_back),
        cmocka_unit_test(ollama_reloads_when_num_ctx_differs),
        cmocka_unit_test(ollama_keep_alive_300_fails_as_a_string),
        cmocka_unit_test(ollama_streams_unless_told_not_to),
        cmocka_unit_test(ollama_leaves_out_metrics_that_are_zero),
        cmocka_unit_test(reasoning_eats_the_output_budget),
        cmocka_unit_test(reasoning_has_another_name_everywhere_and_may_come_first),
        cmocka_unit_test(tool_arguments_of_any_shape_are_no_text),
        cmocka_unit_test(delays_are_times_for_anthropic_and_in_the_body_for_gemini),
        cmocka_unit_test(gemini_without_alt_sse_is_an_array_and_errors_are_raw_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
