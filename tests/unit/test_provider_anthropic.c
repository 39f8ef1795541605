/* Anthropic's Messages API: bytes in, reply out. */
#include "tests/unit/provider_check.h"

#define START                                                                                      \
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01X\","     \
    "\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-opus-5-5\",\"content\":[],"    \
    "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":12,"                  \
    "\"cache_creation_input_tokens\":100,\"cache_read_input_tokens\":2048,\"output_tokens\":1}}}"  \
    "\n\n"
#define BLOCK(type, rest)                                                                          \
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"             \
    "\"content_block\":{\"type\":\"" type "\"," rest "}}\n\n"
#define DELTA(rest)                                                                                \
    "event: content_block_delta\ndata: "                                                           \
    "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{" rest "}}\n\n"
#define TEXT(text) DELTA("\"type\":\"text_delta\",\"text\":\"" text "\"")
#define BLOCK_STOP                                                                                 \
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
#define PING "event: ping\ndata: {\"type\":\"ping\"}\n\n"
#define STOP_WITH(delta, usage)                                                                    \
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{" delta                    \
    "},\"usage\":{" usage "}}\n\n"
#define STOP STOP_WITH("\"stop_reason\":\"end_turn\",\"stop_sequence\":null", "\"output_tokens\":9")
#define END "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
#define HI START BLOCK("text", "\"text\":\"\"") PING TEXT("2, ") TEXT("3") BLOCK_STOP

static void stream_succeeds_with_message_stop(void **state)
{
    (void)state;
    struct provider_reply reply = stream("anthropic", HI STOP END);
    assert_success(&reply, "2, 3");
    assert_int_equal(reply.finish, FINISH_DONE);
    assert_string_equal(reply.model, "claude-opus-5-5");
    assert_string_equal(reply.request_id, "msg_01X");
    assert_int_equal(reply.output_tokens, 9);
    provider_reply_release(&reply);
}

static void stream_may_end_without_a_blank_line(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("anthropic", HI STOP "event: message_stop\ndata: {\"type\":\"message_stop\"}");
    assert_success(&reply, "2, 3");
    provider_reply_release(&reply);
}

static void prompt_tokens_are_the_sum_of_three(void **state)
{
    (void)state;
    struct provider_reply reply = stream("anthropic", HI STOP END);
    assert_int_equal(reply.prompt_tokens, 12 + 100 + 2048);
    assert_int_equal(reply.cached_tokens, 2048);
    provider_reply_release(&reply);
}

static void usage_of_message_delta_is_cumulative_and_overwrites(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "anthropic", HI STOP_WITH("\"stop_reason\":null", "\"output_tokens\":5") STOP_WITH(
                         "\"stop_reason\":\"end_turn\"",
                         "\"input_tokens\":20,\"cache_read_input_tokens\":null,\"output_tokens\":9,"
                         "\"output_tokens_details\":{\"thinking_tokens\":4}") END);
    assert_success(&reply, "2, 3");
    assert_int_equal(reply.prompt_tokens, 20 + 100 + 2048);
    assert_int_equal(reply.output_tokens, 9);
    assert_int_equal(reply.reasoning_tokens, 4);
    provider_reply_release(&reply);
}

static void thinking_goes_to_reasoning_and_other_blocks_nowhere(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "anthropic",
        START BLOCK("thinking", "\"thinking\":\"\",\"signature\":\"\"")
            DELTA("\"type\":\"thinking_delta\",\"thinking\":\"hm\"")
                DELTA("\"type\":\"signature_delta\",\"signature\":\"Er0B\"")
                    BLOCK_STOP BLOCK("redacted_thinking", "\"data\":\"x\"")
                        BLOCK("tool_use", "\"id\":\"t\",\"name\":\"n\",\"input\":{}")
                            DELTA("\"type\":\"input_json_delta\",\"partial_json\":\"{}\"") BLOCK(
                                "text", "\"text\":\"A\"") TEXT("B")
                                DELTA("\"type\":\"citations_delta\",\"citation\":{}") DELTA(
                                    "\"type\":\"new_delta\",\"text\":\"no\"") "event: news\ndata: "
                                                                              "{\"type\":\"news\","
                                                                              "\"text\":\"x\"}"
                                                                              "\n\n" STOP END);
    assert_success(&reply, "AB");
    assert_string_equal(reasoning_of(&reply), "hm");
    provider_reply_release(&reply);
}

static void type_need_not_be_the_first_member(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("anthropic", START "data: {\"delta\":{\"text\":\"Hi\",\"type\":\"text_delta\"},"
                                  "\"index\":0,\"type\":\"content_block_delta\"}\n\n" STOP END);
    assert_success(&reply, "Hi");
    provider_reply_release(&reply);
}

static void truncated_stream_is_never_a_success(void **state)
{
    (void)state;
    static const char whole[] = HI STOP END;
    const char *last = strstr(whole, "\"message_stop\"}");
    for (const char *end = whole; end < last; end++) {
        char *cut = strndup(whole, (size_t)(end - whole));
        struct provider_reply reply = stream("anthropic", cut);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
        free(cut);
    }
}

static void message_stop_without_stop_reason_is_no_success(void **state)
{
    (void)state;
    struct provider_reply reply = stream("anthropic", HI END);
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
    reply = stream("anthropic", HI "data: [DONE]\n\n");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void error_event_in_a_stream_with_status_200_is_an_error(void **state)
{
    (void)state;
#define ERROR(type, message)                                                                       \
    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"" type                          \
    "\",\"message\":\"" message "\",\"details\":null},\"request_id\":\"req_01Z\"}\n\n"
    static const struct {
        const char *stream;
        enum error_class class_;
    } cases[] = {
        {ERROR("overloaded_error", "Overloaded"), CLASS_OVERLOADED}, /* the very first event */
        {HI ERROR("overloaded_error", "Overloaded"), CLASS_OVERLOADED},
        {HI ERROR("overloaded_error", "Overloaded") END, CLASS_OVERLOADED},
        {HI ERROR("api_error", "Internal server error"), CLASS_RETRY},
        {HI ERROR("rate_limit_error", "slow"), CLASS_RATE_LIMITED},
        {HI ERROR("timeout_error", "late"), CLASS_TIMEOUT},
        {HI ERROR("authentication_error", "no"), CLASS_AUTH},
        {HI ERROR("billing_error", "no"), CLASS_QUOTA},
        {HI ERROR("invalid_request_error", "no"), CLASS_BAD_REQUEST},
        {HI ERROR("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
         CLASS_CONTEXT_TOO_LONG},
        {HI ERROR("new_error", "no"), CLASS_RETRY},
        {HI "data: {\"type\":\"error\"}\n\n", CLASS_RETRY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = stream("anthropic", cases[i].stream);
        assert_error(&reply, cases[i].class_);
        provider_reply_release(&reply);
    }
    struct provider_reply reply = stream("anthropic", ERROR("api_error", "x"));
    assert_string_equal(reply.request_id, "req_01Z");
    provider_reply_release(&reply);
}

static void stop_reasons_are_mapped_and_unknown_ones_are_other(void **state)
{
    (void)state;
#define REASON(reason) HI STOP_WITH("\"stop_reason\":\"" reason "\"", "\"output_tokens\":9") END
    static const struct {
        const char *stream;
        enum finish finish;
        enum error_class class_;
    } cases[] = {
        {REASON("end_turn"), FINISH_DONE, CLASS_NONE},
        {REASON("stop_sequence"), FINISH_DONE, CLASS_NONE},
        {REASON("max_tokens"), FINISH_LENGTH, CLASS_NONE},
        {REASON("model_context_window_exceeded"), FINISH_LENGTH, CLASS_NONE},
        {REASON("tool_use"), FINISH_TOOLS, CLASS_NONE},
        {REASON("refusal"), FINISH_FILTERED, CLASS_REFUSED},
        {REASON("pause_turn"), FINISH_OTHER, CLASS_BAD_RESPONSE},
        {REASON("bored"), FINISH_OTHER, CLASS_NONE},
        {START STOP_WITH("\"stop_reason\":\"max_tokens\"", "\"output_tokens\":9") END,
         FINISH_LENGTH, CLASS_BAD_REQUEST},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = stream("anthropic", cases[i].stream);
        assert_int_equal(reply.finish, cases[i].finish);
        assert_int_equal(reply.error, cases[i].class_);
        assert_int_equal(reply.finished, cases[i].class_ == CLASS_NONE);
        provider_reply_release(&reply);
    }
}

static void refusal_tells_its_category(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("anthropic",
               START STOP_WITH("\"stop_reason\":\"refusal\",\"stop_details\":{\"type\":\"refusal\","
                               "\"category\":\"cyber\",\"explanation\":\"too sharp\"}",
                               "\"output_tokens\":3") END);
    assert_error(&reply, CLASS_REFUSED);
    assert_int_equal(reply.finish, FINISH_FILTERED);
    assert_non_null(strstr(reply.error_text, "cyber"));
    assert_non_null(strstr(reply.error_text, "too sharp"));
    assert_int_equal(reply.output_tokens, 3);
    provider_reply_release(&reply);
}

static void whole_answer_is_read(void **state)
{
    (void)state;
    struct provider_reply reply = body(
        "anthropic",
        "{\"id\":\"msg_01X\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude\","
        "\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"E\"},"
        "{\"type\":\"text\",\"text\":\"2, 3\"},{\"type\":\"tool_use\",\"text\":\"no\"},"
        "{\"type\":\"text\",\"text\":\", 5\"}],\"stop_reason\":\"end_turn\",\"stop_details\":null,"
        "\"usage\":{\"input_tokens\":12,\"cache_creation_input_tokens\":0,"
        "\"cache_read_input_tokens\":2048,\"output_tokens\":40,"
        "\"output_tokens_details\":{\"thinking_tokens\":25}}}");
    assert_success(&reply, "2, 3, 5");
    assert_string_equal(reasoning_of(&reply), "hm");
    assert_int_equal(reply.prompt_tokens, 2060);
    assert_int_equal(reply.cached_tokens, 2048);
    assert_int_equal(reply.output_tokens, 40);
    assert_int_equal(reply.reasoning_tokens, 25);
    provider_reply_release(&reply);
}

static void whole_answer_that_is_no_message_is_bad_response(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}",
        "{}",
        "[]",
        "null",
        "",
        "<html><title>Maintenance</title>",
        "{\"type\":\"ping\"}",
        "{\"type\":\"error\",\"error\":{\"message\":\"what\"}}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct provider_reply reply = body("anthropic", bodies[i]);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
    }
}

static void stream_that_does_not_say_so_is_read_as_one(void **state)
{
    (void)state;
    struct provider_reply reply = body("anthropic", HI STOP END);
    assert_success(&reply, "2, 3");
    provider_reply_release(&reply);
}

static void errors_have_their_classes(void **state)
{
    (void)state;
#define E(type, message)                                                                           \
    "{\"type\":\"error\",\"error\":{\"type\":\"" type "\",\"message\":\"" message                  \
    "\"},\"request_id\":\"req_01Z\"}"
    static const struct error_case cases[] = {
        {400, NULL, E("invalid_request_error", "max_tokens: Field required"), CLASS_BAD_REQUEST,
         -1},
        {400, NULL,
         E("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
         CLASS_CONTEXT_TOO_LONG, -1},
        {400, NULL,
         E("invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2"),
         CLASS_CONTEXT_TOO_LONG, -1},
        {400, NULL, E("invalid_request_error", "Your credit balance is too low to access"),
         CLASS_QUOTA, -1},
        {400, NULL, E("invalid_request_error", "You have reached your specified API usage limits."),
         CLASS_QUOTA, -1},
        {401, NULL, E("authentication_error", "invalid x-api-key " KEY), CLASS_AUTH, -1},
        {402, NULL, E("billing_error", "x"), CLASS_QUOTA, -1},
        {403, NULL, E("permission_error", "x"), CLASS_AUTH, -1},
        {404, NULL, E("not_found_error", "model: x"), CLASS_BAD_REQUEST, -1},
        {409, NULL, E("conflict_error", "x"), CLASS_RETRY, -1},
        {413, NULL, E("request_too_large", "x"), CLASS_CONTEXT_TOO_LONG, -1},
        {413, NULL, "<html><head><title>413 Payload Too Large</title></head>",
         CLASS_CONTEXT_TOO_LONG, -1},
        {429, "retry-after: 17\n", E("rate_limit_error", "slow"), CLASS_RATE_LIMITED, 17000},
        {429, "retry-after: 90\n", E("rate_limit_error", "slow"), CLASS_RATE_LIMITED, 90000},
        {429,
         "Date: Fri, 20 Nov 2026 12:40:00 GMT\n"
         "anthropic-ratelimit-input-tokens-remaining: 0\n"
         "anthropic-ratelimit-input-tokens-reset: 2026-11-20T12:40:59Z\n",
         E("rate_limit_error", "slow"), CLASS_RATE_LIMITED, 59000},
        {429, NULL,
         "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"limit\","
         "\"details\":{\"error_code\":\"enforced_spend_limit_reached\"}}}",
         CLASS_QUOTA, -1},
        {500, NULL, E("api_error", "x"), CLASS_RETRY, -1},
        {504, NULL, E("timeout_error", "x"), CLASS_TIMEOUT, -1},
        {529, NULL, E("overloaded_error", "Overloaded"), CLASS_OVERLOADED, -1},
        {529, "x-should-retry: false\n", "", CLASS_BAD_REQUEST, -1},
        {529, NULL, "", CLASS_OVERLOADED, -1},
    };
    check_errors("anthropic", cases, sizeof cases / sizeof *cases);
    struct provider_reply reply =
        failure("anthropic", 500, "Request-Id: req_02\n", E("api_error", "x"));
    assert_string_equal(reply.request_id, "req_02");
    assert_string_equal(reply.error_text, "HTTP 500 api_error: x");
}

static void request_is_exact(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.system = "Be terse.";
    call.temperature = 0.5;
    call.max_tokens = 512;
    call.json_schema = "{\"type\":\"object\"}";
    check_request("anthropic", &call, "https://api.anthropic.com/v1/messages",
                  "Content-Type: application/json\nanthropic-version: 2023-06-01\nx-api-key: " KEY
                  "\n",
                  "{\"model\":\"m\",\"max_tokens\":512,\"system\":\"Be terse.\",\"messages\":"
                  "[{\"role\":\"user\",\"content\":\"Hi\"}],\"temperature\":0.5,"
                  "\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":"
                  "{\"type\":\"object\"}}},\"stream\":true}");
}

static void plain_request_has_max_tokens_and_no_sampling(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.stream = false;
    call.base_url = "http://127.0.0.1:9/v1/";
    check_request("anthropic", &call, "http://127.0.0.1:9/v1/messages",
                  "Content-Type: application/json\nanthropic-version: 2023-06-01\nx-api-key: " KEY
                  "\n",
                  "{\"model\":\"m\",\"max_tokens\":4096,\"messages\":[{\"role\":\"user\","
                  "\"content\":\"Hi\"}],\"stream\":false}");
}

static void calls_that_cannot_be_expressed_are_refused(void **state)
{
    (void)state;
    struct err err;
    struct provider_call call = plain_call();
    call.temperature = 1.5;
    assert_int_equal(build_error("anthropic", &call, &err), -EINVAL);
    assert_non_null(strstr(err.text, "temperature"));
    call.temperature = 1;
    call.key = NULL;
    assert_int_equal(build_error("anthropic", &call, &err), -EINVAL);
    assert_non_null(strstr(err.text, "ANTHROPIC_API_KEY"));
}

static void models_are_listed(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.kind = PROVIDER_LIST;
    struct provider_request request = build("anthropic", &call);
    assert_string_equal(request.url.data, "https://api.anthropic.com/v1/models?limit=1000");
    assert_string_equal(request.headers.data,
                        "anthropic-version: 2023-06-01\nx-api-key: " KEY "\n");
    assert_int_equal(request.body.len, 0);
    provider_request_release(&request);
    struct provider_reply reply = body_of("anthropic", PROVIDER_LIST, 0,
                                          "{\"data\":[{\"type\":\"model\",\"id\":\"claude-a\"},"
                                          "{\"id\":\"claude-b\"}],\"has_more\":false}");
    assert_success(&reply, "claude-a\nclaude-b\n");
    provider_reply_release(&reply);
    reply = body_of("anthropic", PROVIDER_LIST, 0, "{\"data\":[]}");
    assert_success(&reply, "");
    provider_reply_release(&reply);
}

static void list_that_is_none_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        enum error_class class_;
    } cases[] = {
        {"{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}",
         CLASS_OVERLOADED},
        {"{}", CLASS_BAD_RESPONSE},
        {"{\"data\":1}", CLASS_BAD_RESPONSE},
        {"<html>", CLASS_BAD_RESPONSE},
        {"", CLASS_BAD_RESPONSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = body_of("anthropic", PROVIDER_LIST, 0, cases[i].body);
        assert_error(&reply, cases[i].class_);
        provider_reply_release(&reply);
    }
}

static void embeddings_do_not_exist_here(void **state)
{
    (void)state;
    struct err err;
    struct provider_call call = plain_call();
    call.kind = PROVIDER_EMBED;
    assert_int_equal(provider_find("anthropic")->kinds & PROVIDER_KIND(PROVIDER_EMBED), 0);
    assert_int_equal(build_error("anthropic", &call, &err), -EINVAL);
    assert_non_null(strstr(err.text, "embeddings"));
}

#define HEADERS                                                                                    \
    "Content-Type: application/json\nanthropic-version: 2023-06-01\nx-api-key: " KEY "\n"
#define BASE "{\"model\":\"m\",\"max_tokens\":4096,\"messages\":[{\"role\":\"user\",\"content\":"

static void stop_strings_are_sent_and_a_seed_never(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.stop = (const char *const[]){"END", "", "\n\n"};
    call.n_stop = 3;
    call.has_seed = true;
    call.seed = 7;
    check_request("anthropic", &call, "https://api.anthropic.com/v1/messages", HEADERS,
                  BASE "\"Hi\"}],\"stop_sequences\":[\"END\",\"\\n\\n\"],\"stream\":true}");
}

static void images_stand_before_the_text(void **state)
{
    (void)state;
    static const struct provider_image images[] = {
        {.url = "https://h/a.png", .media_type = "", .data = ""},
        {.url = "", .media_type = "image/png", .data = "aGk="},
    };
    struct provider_call call = plain_call();
    call.images = images;
    call.n_images = 2;
    check_request("anthropic", &call, "https://api.anthropic.com/v1/messages", HEADERS,
                  BASE "[{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":"
                       "\"https://h/a.png\"}},{\"type\":\"image\",\"source\":{\"type\":\"base64\","
                       "\"media_type\":\"image/png\",\"data\":\"aGk=\"}},{\"type\":\"text\","
                       "\"text\":\"Hi\"}]}],\"stream\":true}");
}

static void effort_is_adaptive_thinking_or_a_budget_for_older_models(void **state)
{
    (void)state;
    static const struct {
        const char *model, *effort;
        int64_t max_tokens;
        const char *rest;
    } cases[] = {
        {"claude-opus-5-5", "medium", 4096,
         ",\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"medium\"}"},
        {"claude-opus-5-5", "minimal", 4096,
         ",\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"low\"}"},
        {"claude-sonnet-4-6", "max", 4096,
         ",\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"max\"}"},
        {"claude-sonnet-4-6", "none", 4096, ",\"thinking\":{\"type\":\"disabled\"}"},
        {"claude-sonnet-4-6", "", 4096, ""},
        /* These refuse "disabled". */
        {"claude-opus-5-5", "none", 4096, ",\"output_config\":{\"effort\":\"low\"}"},
        {"claude-fable-5-1", "none", 4096, ",\"output_config\":{\"effort\":\"low\"}"},
        /* These take a budget, which must be 1024 at least and leave room for the answer. */
        {"claude-sonnet-4-5-20250929", "high", 20000,
         ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":15000}"},
        {"claude-haiku-4-5", "low", 20000,
         ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2048}"},
        {"claude-sonnet-4-5", "high", 1000, ""},
        {"claude-sonnet-4-5", "none", 4096, ",\"thinking\":{\"type\":\"disabled\"}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_call call = plain_call();
        struct buf expected = {0};
        call.model = cases[i].model;
        call.effort = cases[i].effort;
        call.max_tokens = cases[i].max_tokens;
        buf_printf(&expected,
                   "{\"model\":\"%s\",\"max_tokens\":%lld,\"messages\":[{\"role\":\"user\","
                   "\"content\":\"Hi\"}]%s,\"stream\":true}",
                   call.model, (long long)call.max_tokens, cases[i].rest);
        check_request("anthropic", &call, "https://api.anthropic.com/v1/messages", HEADERS,
                      expected.data);
        buf_release(&expected);
    }
}

static void model_that_thinks_gets_no_temperature(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.model = "claude-sonnet-4-6";
    call.temperature = 0.5;
    call.effort = "low";
    struct provider_request request = build("anthropic", &call);
    assert_null(strstr(request.body.data, "temperature"));
    provider_request_release(&request);
    call.effort = "none";
    request = build("anthropic", &call);
    assert_non_null(strstr(request.body.data, "\"temperature\":0.5"));
    provider_request_release(&request);
}

static void effort_and_schema_share_output_config(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.effort = "high";
    call.json_schema = "{\"type\":\"object\"}";
    check_request("anthropic", &call, "https://api.anthropic.com/v1/messages", HEADERS,
                  BASE "\"Hi\"}],\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{"
                       "\"effort\":\"high\",\"format\":{\"type\":\"json_schema\",\"schema\":"
                       "{\"type\":\"object\"}}},\"stream\":true}");
}

static void long_answer_is_streamed_regardless(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.stream = false;
    call.max_tokens = 21333;
    struct provider_request request = build("anthropic", &call);
    assert_non_null(strstr(request.body.data, "\"stream\":false"));
    provider_request_release(&request);
    call.max_tokens = 21334;
    request = build("anthropic", &call);
    assert_non_null(strstr(request.body.data, "\"stream\":true"));
    provider_request_release(&request);
}

static void headers_of_the_provider_are_sent_and_replace_our_own(void **state)
{
    (void)state;
    struct err err;
    struct provider_call call = plain_call();
    call.headers =
        (const char *const[]){"anthropic-beta: a-1,b-2", "Anthropic-Version: 2027-01-01"};
    call.n_headers = 2;
    struct provider_request request = build("anthropic", &call);
    assert_string_equal(request.headers.data,
                        "Content-Type: application/json\n"
                        "anthropic-beta: a-1,b-2\n"
                        "Anthropic-Version: 2027-01-01\nx-api-key: " KEY "\n");
    provider_request_release(&request);
    static const char *const bad[] = {"no colon", ": x", "a b: c", "a: b\nx: y", "a: b\r", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        call.headers = &bad[i];
        call.n_headers = 1;
        assert_int_equal(build_error("anthropic", &call, &err), -EINVAL);
    }
}

static void model_without_system_prompt_gets_it_before_the_prompt(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.system = "Be \"terse\".";
    call.no_system = true;
    check_request("anthropic", &call, "https://api.anthropic.com/v1/messages", HEADERS,
                  BASE "\"Be \\\"terse\\\".\\n\\nHi\"}],\"stream\":true}");
}

#define THINKING                                                                                   \
    START BLOCK("thinking", "\"thinking\":\"\",\"signature\":\"\"")                                \
        DELTA("\"type\":\"thinking_delta\",\"thinking\":\"let \"")                                 \
            DELTA("\"type\":\"thinking_delta\",\"thinking\":\"me\"")                               \
                DELTA("\"type\":\"signature_delta\",\"signature\":\"E\"") BLOCK_STOP BLOCK(        \
                    "redacted_thinking", "\"data\":\"xyz\"")                                       \
                    BLOCK_STOP BLOCK("text", "\"text\":\"\"") TEXT("2, 3") BLOCK_STOP STOP_WITH(   \
                        "\"stop_reason\":\"end_turn\"",                                            \
                        "\"output_tokens\":30,\"output_tokens_details\":{\"thinking_tokens\":25}") \
                        END

static void first_block_may_be_thinking_and_redacted_ones_are_skipped(void **state)
{
    (void)state;
    struct provider_reply reply = stream("anthropic", THINKING);
    assert_success(&reply, "2, 3");
    assert_string_equal(reasoning_of(&reply), "let me");
    assert_int_equal(reply.output_tokens, 30); /* thinking included */
    assert_int_equal(reply.reasoning_tokens, 25);
    provider_reply_release(&reply);
}

static void cache_writes_and_reads_are_told_apart(void **state)
{
    (void)state;
    struct provider_reply reply = stream("anthropic", HI STOP END);
    assert_int_equal(reply.cached_tokens, 2048);
    assert_int_equal(reply.cache_write_tokens, 100);
    provider_reply_release(&reply);
}

static void thinking_that_eats_the_output_limit_says_so(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("anthropic",
               START BLOCK("thinking", "\"thinking\":\"\"")
                   DELTA("\"type\":\"thinking_delta\",\"thinking\":\"hm\"")
                       STOP_WITH("\"stop_reason\":\"max_tokens\"", "\"output_tokens\":9") END);
    assert_error(&reply, CLASS_BAD_REQUEST);
    assert_non_null(strstr(reply.error_text, "max_tokens"));
    assert_non_null(strstr(reply.error_text, "reasoning"));
    provider_reply_release(&reply);
}

static void structured_output_arrives_as_text(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("anthropic", START BLOCK("text", "\"text\":\"\"") TEXT("{\\\"label\\\":")
                                TEXT(" \\\"good\\\"}") BLOCK_STOP STOP END);
    assert_success(&reply, "{\"label\": \"good\"}");
    provider_reply_release(&reply);
}

static void served_model_is_the_one_that_the_answer_names(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("anthropic", "{\"type\":\"message\",\"model\":\"claude-other\",\"content\":[{\"type\":"
                          "\"text\",\"text\":\"x\"}],\"stop_reason\":\"end_turn\"}");
    assert_success(&reply, "x");
    assert_string_equal(reply.model, "claude-other");
    provider_reply_release(&reply);
}

static void every_split_of_a_stream_gives_the_same(void **state)
{
    (void)state;
    check_every_split("anthropic", HI STOP END);
    check_every_split("anthropic", THINKING);
    check_every_split("anthropic", START TEXT("Gr\xc3\xbc\xc3\x9f"
                                              "e \\u00fc \\ud83c\\udf89") STOP END);
    check_every_split("anthropic", HI "event: error\r\ndata: {\"type\":\"error\",\"error\":{"
                                      "\"type\":\"overloaded_error\",\"message\":\"x\"}}\r\n\r\n");
}

static void nulls_and_wrong_types_never_crash(void **state)
{
    (void)state;
    static const char *const documents[] = {
        "{\"type\":\"message\",\"id\":\"i\",\"model\":\"m\",\"content\":[{\"type\":\"text\","
        "\"text\":\"x\"},{\"type\":\"thinking\",\"thinking\":\"y\"}],\"stop_reason\":\"refusal\","
        "\"stop_details\":{\"category\":\"c\",\"explanation\":\"e\"},\"usage\":{\"input_tokens\":1,"
        "\"cache_creation_input_tokens\":2,\"cache_read_input_tokens\":3,\"output_tokens\":4,"
        "\"output_tokens_details\":{\"thinking_tokens\":5}}}",
        "{\"type\":\"message_start\",\"message\":{\"content\":[],\"usage\":{\"input_tokens\":1}}}",
        "{\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"x\"}}",
        "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}",
        "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":"
        "{\"output_tokens\":4}}",
        "{\"type\":\"error\",\"error\":{\"type\":\"t\",\"message\":\"m\",\"details\":"
        "{\"error_code\":\"e\"}},\"request_id\":\"r\"}",
    };
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        wrong_types("anthropic", documents[i], true);
        wrong_types("anthropic", documents[i], false);
    }
    wrong_types_of("anthropic", PROVIDER_LIST, "{\"data\":[{\"id\":\"a\"}],\"error\":null}");
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    check_memory_failures(
        "anthropic", HI DELTA("\"type\":\"thinking_delta\",\"thinking\":\"x\"") STOP END, "2, 3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_succeeds_with_message_stop),
        cmocka_unit_test(stream_may_end_without_a_blank_line),
        cmocka_unit_test(prompt_tokens_are_the_sum_of_three),
        cmocka_unit_test(usage_of_message_delta_is_cumulative_and_overwrites),
        cmocka_unit_test(thinking_goes_to_reasoning_and_other_blocks_nowhere),
        cmocka_unit_test(type_need_not_be_the_first_member),
        cmocka_unit_test(truncated_stream_is_never_a_success),
        cmocka_unit_test(message_stop_without_stop_reason_is_no_success),
        cmocka_unit_test(error_event_in_a_stream_with_status_200_is_an_error),
        cmocka_unit_test(stop_reasons_are_mapped_and_unknown_ones_are_other),
        cmocka_unit_test(refusal_tells_its_category),
        cmocka_unit_test(whole_answer_is_read),
        cmocka_unit_test(whole_answer_that_is_no_message_is_bad_response),
        cmocka_unit_test(stream_that_does_not_say_so_is_read_as_one),
        cmocka_unit_test(errors_have_their_classes),
        cmocka_unit_test(request_is_exact),
        cmocka_unit_test(plain_request_has_max_tokens_and_no_sampling),
        cmocka_unit_test(calls_that_cannot_be_expressed_are_refused),
        cmocka_unit_test(models_are_listed),
        cmocka_unit_test(list_that_is_none_is_an_error),
        cmocka_unit_test(embeddings_do_not_exist_here),
        cmocka_unit_test(stop_strings_are_sent_and_a_seed_never),
        cmocka_unit_test(images_stand_before_the_text),
        cmocka_unit_test(effort_is_adaptive_thinking_or_a_budget_for_older_models),
        cmocka_unit_test(model_that_thinks_gets_no_temperature),
        cmocka_unit_test(effort_and_schema_share_output_config),
        cmocka_unit_test(long_answer_is_streamed_regardless),
        cmocka_unit_test(headers_of_the_provider_are_sent_and_replace_our_own),
        cmocka_unit_test(model_without_system_prompt_gets_it_before_the_prompt),
        cmocka_unit_test(first_block_may_be_thinking_and_redacted_ones_are_skipped),
        cmocka_unit_test(cache_writes_and_reads_are_told_apart),
        cmocka_unit_test(thinking_that_eats_the_output_limit_says_so),
        cmocka_unit_test(structured_output_arrives_as_text),
        cmocka_unit_test(served_model_is_the_one_that_the_answer_names),
        cmocka_unit_test(every_split_of_a_stream_gives_the_same),
        cmocka_unit_test(nulls_and_wrong_types_never_crash),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
