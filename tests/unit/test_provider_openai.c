/* OpenAI's chat completions and those who speak them: bytes in, reply out. */
#include <stdio.h>

#include "tests/unit/provider_check.h"

#define CHUNK(delta, finish)                                                                       \
    "data: {\"id\":\"chatcmpl-A1\",\"object\":\"chat.completion.chunk\",\"created\":1795000000,"   \
    "\"model\":\"gpt-6-sol\",\"choices\":[{\"index\":0,\"delta\":" delta                           \
    ",\"finish_reason\":" finish "}],\"usage\":null}\n\n"
#define USAGE                                                                                      \
    "data: {\"id\":\"chatcmpl-A1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-6-sol\","  \
    "\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":6,\"total_tokens\":26,"  \
    "\"prompt_tokens_details\":{\"cached_tokens\":16,\"cache_write_tokens\":0},"                   \
    "\"completion_tokens_details\":{\"reasoning_tokens\":4}}}\n\n"
#define DONE "data: [DONE]\n\n"
#define HI                                                                                         \
    CHUNK("{\"role\":\"assistant\",\"content\":\"\"}", "null")                                     \
    CHUNK("{\"content\":\"Hi\"}", "nul"                                                            \
                                  "l")
#define STOP CHUNK("{}", "\"stop\"")

static const char *const family[] = {"openai", "huggingface", "lmstudio",         "llamacpp",
                                     "vllm",   "tgi",         "openai-compatible"};
#define FAMILY (sizeof family / sizeof *family)

static void stream_succeeds_with_finish_reason_and_done(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILY; i++) {
        struct provider_reply reply =
            stream(family[i], HI CHUNK("{\"content\":\" there\"}", "null") STOP USAGE DONE);
        assert_success(&reply, "Hi there");
        assert_int_equal(reply.finish, FINISH_DONE);
        assert_int_equal(reply.prompt_tokens, 20);
        assert_int_equal(reply.cached_tokens, 16);
        assert_int_equal(reply.output_tokens, 6);
        assert_int_equal(reply.reasoning_tokens, 4);
        assert_string_equal(reply.model, "gpt-6-sol");
        assert_string_equal(reply.request_id, "chatcmpl-A1");
        provider_reply_release(&reply);
    }
}

static void usage_chunk_with_empty_choices_is_read(void **state)
{
    (void)state;
    struct provider_reply reply = stream("openai", HI STOP USAGE DONE);
    assert_success(&reply, "Hi");
    assert_int_equal(reply.prompt_tokens, 20);
    provider_reply_release(&reply);
}

static void missing_usage_is_unknown_and_no_error(void **state)
{
    (void)state;
    struct provider_reply reply = stream("openai", HI STOP DONE);
    assert_success(&reply, "Hi");
    assert_int_equal(reply.prompt_tokens, -1);
    assert_int_equal(reply.output_tokens, -1);
    assert_int_equal(reply.reasoning_tokens, -1);
    provider_reply_release(&reply);
}

static void done_without_finish_reason_is_no_success(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILY; i++) {
        struct provider_reply reply = stream(family[i], HI DONE);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
    }
}

static void truncated_stream_is_never_a_success(void **state)
{
    (void)state;
    static const char whole[] = HI STOP USAGE DONE;
    const char *finish = strstr(whole, "\"stop\"");
    const char *done = strstr(whole, DONE) + 1; /* before that, what is cut off is no [DONE] */
    static const struct {
        const char *api;
        bool needs_done;
    } cases[] = {{"openai", true},   {"vllm", true},         {"llamacpp", true},
                 {"lmstudio", true}, {"huggingface", false}, {"tgi", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (const char *end = whole; end < done; end++) {
            if (!cases[i].needs_done && end > finish)
                break;
            char *cut = strndup(whole, (size_t)(end - whole));
            struct provider_reply reply = stream(cases[i].api, cut);
            assert_error(&reply, CLASS_BAD_RESPONSE);
            provider_reply_release(&reply);
            free(cut);
        }
}

static void some_servers_need_no_done(void **state)
{
    (void)state;
    struct provider_reply reply = stream("tgi", HI STOP USAGE);
    assert_success(&reply, "Hi");
    assert_int_equal(reply.prompt_tokens, 20);
    provider_reply_release(&reply);
    reply = stream("openai", HI STOP USAGE);
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void finish_reason_is_proof_where_done_is_not_needed(void **state)
{
    (void)state;
    const struct provider *provider = provider_find("huggingface");
    struct provider_reply reply;
    provider_reply_init(&reply);
    static const char finish[] =
        "{\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}";
    static const char usage[] = "{\"choices\":[],\"usage\":{\"prompt_tokens\":20}}";
    static const char error[] = "{\"error\":{\"message\":\"late\"}}";
    provider->event(provider, &reply, finish, sizeof finish - 1);
    assert_success(&reply, "Hi"); /* a connection that breaks from now on does no harm */
    provider->event(provider, &reply, usage, sizeof usage - 1);
    assert_int_equal(reply.prompt_tokens, 20);
    provider->event(provider, &reply, error, sizeof error - 1);
    assert_error(&reply, CLASS_RETRY);
    provider_reply_release(&reply);
}

static void error_inside_a_stream_with_status_200_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *api, *stream;
        enum error_class class_;
        const char *says;
        int64_t retry_after_ms;
    } cases[] = {
        /* vLLM: [DONE] follows the error; the code is an integer */
        {"vllm",
         HI "data: {\"error\":{\"message\":\"KV cache gone\",\"type\":\"InternalServerError\","
            "\"param\":null,\"code\":500}}\n\n" DONE,
         CLASS_RETRY, "KV cache gone", -1},
        {"vllm",
         "data: {\"object\":\"error\",\"message\":\"This model's maximum context length is 8192 "
         "tokens.\",\"type\":\"BadRequestError\",\"code\":400}\n\n" DONE,
         CLASS_CONTEXT_TOO_LONG, "8192", -1},
        /* llama-server: no [DONE] follows */
        {"llamacpp",
         HI "data: {\"error\":{\"code\":500,\"message\":\"slot broke\",\"type\":\"server_error\"}}"
            "\n\n",
         CLASS_RETRY, "slot broke", -1},
        {"llamacpp",
         "data: {\"error\":{\"code\":400,\"type\":\"exceed_context_size_error\",\"message\":"
         "\"request (9000 tokens) exceeds the available context size (8192 tokens)\"}}\n\n",
         CLASS_CONTEXT_TOO_LONG, "9000", -1},
        {"openai",
         HI "data: {\"error\":{\"message\":\"The server is overloaded\",\"type\":"
            "\"service_unavailable_error\",\"code\":\"server_is_overloaded\"}}\n\n" DONE,
         CLASS_OVERLOADED, "overloaded", -1},
        {"openai",
         "data: {\"error\":{\"message\":\"Rate limit reached. Please try again in 1.5s.\","
         "\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}\n\n",
         CLASS_RATE_LIMITED, "Rate limit", 1500},
        {"openai", HI STOP "data: {\"error\":{\"message\":\"late\"}}\n\n" DONE, CLASS_RETRY, "late",
         -1},
        {"tgi", HI "data:{\"error\":\"Request failed\",\"error_type\":\"generation\"}\n\n",
         CLASS_RETRY, "Request failed", -1},
        {"tgi", "data:{\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}\n\n",
         CLASS_OVERLOADED, "Model is overloaded", -1},
        {"huggingface", HI "data: {\"error\":\"provider gave up\"}\n\n", CLASS_RETRY, "gave up",
         -1},
        {"lmstudio", HI "event: error\ndata: {\"error\":{\"message\":\"model crashed\"}}\n\n",
         CLASS_RETRY, "crashed", -1},
        /* raw JSON, no event at all */
        {"openai-compatible", HI "{\"error\":{\"message\":\"upstream\",\"code\":502}}\n",
         CLASS_RETRY, "upstream", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = stream(cases[i].api, cases[i].stream);
        assert_error(&reply, cases[i].class_);
        assert_non_null(strstr(reply.error_text, cases[i].says));
        assert_int_equal(reply.retry_after_ms, cases[i].retry_after_ms);
        provider_reply_release(&reply);
    }
}

static void finish_reasons_are_mapped_and_unknown_ones_are_other(void **state)
{
    (void)state;
    static const struct {
        const char *stream;
        enum finish finish;
        enum error_class class_;
    } cases[] = {
        {HI CHUNK("{}", "\"stop\"") DONE, FINISH_DONE, CLASS_NONE},
        {HI CHUNK("{}", "\"length\"") DONE, FINISH_LENGTH, CLASS_NONE},
        {HI CHUNK("{}", "\"tool_calls\"") DONE, FINISH_TOOLS, CLASS_NONE},
        {HI CHUNK("{}", "\"function_call\"") DONE, FINISH_TOOLS, CLASS_NONE},
        {HI CHUNK("{}", "\"content_filter\"") DONE, FINISH_FILTERED, CLASS_REFUSED},
        {HI CHUNK("{}", "\"tired\"") DONE, FINISH_OTHER, CLASS_NONE},
        {HI CHUNK("{}", "\"\"") DONE, FINISH_NONE, CLASS_BAD_RESPONSE},
        {HI CHUNK("{}", "7") DONE, FINISH_NONE, CLASS_BAD_RESPONSE},
        {CHUNK("{}", "\"stop\"") DONE, FINISH_DONE, CLASS_NONE},
        {CHUNK("{}", "\"tool_calls\"") DONE, FINISH_TOOLS, CLASS_BAD_RESPONSE},
        {CHUNK("{}", "\"tired\"") DONE, FINISH_OTHER, CLASS_BAD_RESPONSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = stream("openai", cases[i].stream);
        assert_int_equal(reply.finish, cases[i].finish);
        assert_int_equal(reply.error, cases[i].class_);
        assert_int_equal(reply.finished, cases[i].class_ == CLASS_NONE);
        provider_reply_release(&reply);
    }
}

static void refusal_is_refused_with_its_text(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("openai", CHUNK("{\"refusal\":\"I can't\"}", "null")
                             CHUNK("{\"refusal\":\" do that.\"}", "null") STOP USAGE DONE);
    assert_error(&reply, CLASS_REFUSED);
    assert_int_equal(reply.finish, FINISH_FILTERED);
    assert_non_null(strstr(reply.error_text, "I can't do that."));
    assert_int_equal(reply.output_tokens, 6);
    provider_reply_release(&reply);
    reply = body("openai", "{\"choices\":[{\"index\":0,\"finish_reason\":\"stop\",\"message\":"
                           "{\"content\":null,\"refusal\":\"No.\"}}]}");
    assert_error(&reply, CLASS_REFUSED);
    provider_reply_release(&reply);
}

static void reasoning_that_eats_the_output_budget_is_no_answer(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("vllm", CHUNK("{\"reasoning\":\"hm\"}", "null") CHUNK("{}", "\"length\"") DONE);
    assert_error(&reply, CLASS_BAD_REQUEST);
    assert_non_null(strstr(reply.error_text, "max_tokens"));
    provider_reply_release(&reply);
}

static void reasoning_is_read_under_both_names_and_kept_apart(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "vllm",
        CHUNK("{\"reasoning\":\"a\"}", "null") CHUNK("{\"reasoning_content\":\"b\"}", "null")
            CHUNK("{\"reasoning\":\"c\",\"reasoning_content\":\"c\"}", "null")
                CHUNK("{\"reasoning\":null,\"reasoning_content\":\"d\"}", "null") HI STOP DONE);
    assert_success(&reply, "Hi");
    assert_string_equal(reasoning_of(&reply), "abcd");
    provider_reply_release(&reply);
}

static void content_may_be_an_array_of_parts(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "openai-compatible",
        CHUNK("{\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":"
              "\"hm\"}]},{\"type\":\"text\",\"text\":\"Hi\"}]}",
              "null") STOP DONE);
    assert_success(&reply, "Hi");
    assert_string_equal(reasoning_of(&reply), "hm");
    provider_reply_release(&reply);
}

static void llamacpp_timings_give_durations_and_counts(void **state)
{
    (void)state;
#define TIMINGS                                                                                    \
    "\"timings\":{\"cache_n\":236,\"prompt_n\":4,\"prompt_ms\":30.9,\"prompt_per_token_ms\":7.7,"  \
    "\"predicted_n\":35,\"predicted_ms\":661.0}"
    struct provider_reply reply = stream(
        "llamacpp", ": ping\n\n" CHUNK("{\"role\":\"assistant\",\"content\":null}", "null")
                        CHUNK("{\"content\":\"Hi\"}",
                              "null") "data: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,"
                                      "\"delta\":{}}]," TIMINGS "}\n\n" DONE);
    assert_success(&reply, "Hi");
    assert_int_equal(reply.prompt_tokens, 240);
    assert_int_equal(reply.cached_tokens, 236);
    assert_int_equal(reply.output_tokens, 35);
    assert_true(reply.prompt_ms == 30.9);
    assert_true(reply.generate_ms == 661.0);
    assert_true(reply.load_ms == -1);
    provider_reply_release(&reply);
    reply = body("llamacpp",
                 "{\"id\":\"c\",\"model\":\"q\",\"choices\":[{\"index\":0,\"finish_reason\":"
                 "\"stop\",\"message\":{\"content\":\"Hi\",\"reasoning_content\":\"short\"}}],"
                 "\"usage\":{\"prompt_tokens\":240,\"completion_tokens\":35,"
                 "\"prompt_tokens_details\":{\"cached_tokens\":236}}," TIMINGS "}");
    assert_success(&reply, "Hi");
    assert_int_equal(reply.prompt_tokens, 240);
    assert_string_equal(reasoning_of(&reply), "short");
    assert_true(reply.prompt_ms == 30.9);
    provider_reply_release(&reply);
}

static void vllm_metrics_give_durations(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("vllm", "{\"model\":\"q\",\"choices\":[{\"finish_reason\":\"stop\",\"message\":"
                     "{\"content\":\"Hi\",\"reasoning\":null}}],\"metrics\":"
                     "{\"time_to_first_token_ms\":85.0,\"generation_time_ms\":640.0,"
                     "\"queue_time_ms\":2.0}}");
    assert_success(&reply, "Hi");
    assert_true(reply.prompt_ms == 83.0);
    assert_true(reply.generate_ms == 640.0);
    provider_reply_release(&reply);
}

static void whole_answer_is_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILY; i++) {
        struct provider_reply reply = body(
            family[i],
            "\n{\"id\": \"chatcmpl-A1\", \"object\": \"chat.completion\", \"model\": \"gpt-6\",\n"
            "\"choices\": [{\"index\": 0, \"finish_reason\": \"stop\", \"logprobs\": null,\n"
            "\"message\": {\"role\": \"assistant\", \"content\": \"Hi \\ud83d\\ude00\","
            "\"refusal\": null, \"annotations\": []}}],\n"
            "\"usage\": {\"prompt_tokens\": 20, \"completion_tokens\": 6}, \"error\": null}\n");
        assert_success(&reply, "Hi \xf0\x9f\x98\x80");
        assert_int_equal(reply.prompt_tokens, 20);
        assert_int_equal(reply.cached_tokens, -1);
        assert_string_equal(reply.model, "gpt-6");
        provider_reply_release(&reply);
    }
}

static void whole_answer_without_finish_reason_is_no_success(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"choices\":[{\"message\":{\"content\":\"Hi\"},\"finish_reason\":null}]}",
        "{\"choices\":[]}",
        "{\"choices\":null}",
        "{}",
        "[]",
        "null",
        "\"Hi\"",
        "",
        "   ",
        "not JSON",
        "{\"choices\":[{\"message\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct provider_reply reply = body("openai", bodies[i]);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
    }
}

static void lmstudio_unknown_endpoint_with_status_200_is_bad_response(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("lmstudio", "{\"error\":\"Unexpected endpoint or method. (POST /chat/completions)\"}");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    assert_non_null(strstr(reply.error_text, "Unexpected endpoint"));
    provider_reply_release(&reply);
}

static void error_as_a_whole_answer_with_status_200_is_classified(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("openai", "{\"error\":{\"message\":\"no money\",\"type\":\"insufficient_quota\"}}");
    assert_error(&reply, CLASS_QUOTA);
    provider_reply_release(&reply);
    reply = body("openai", "{\"error\":{\"message\":\"who knows\"}}");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void page_instead_of_an_answer_is_bad_response_with_its_title(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("openai", "<!DOCTYPE html>\n<html><head><title>Sign in\n to the\tWiFi</title></head>"
                       "<body>\x01\x02</body></html>");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    assert_non_null(strstr(reply.error_text, "Sign in to the WiFi"));
    provider_reply_release(&reply);
}

static void stream_that_does_not_say_so_is_read_as_one(void **state)
{
    (void)state;
    struct provider_reply reply = body("openai", HI STOP USAGE DONE);
    assert_success(&reply, "Hi");
    provider_reply_release(&reply);
    reply = body("openai", HI);
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void damaged_event_is_bad_response(void **state)
{
    (void)state;
    struct provider_reply reply = stream("openai", HI "data: {\"choices\":[\n\n" STOP DONE);
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void what_follows_done_is_ignored(void **state)
{
    (void)state;
    struct provider_reply reply = stream("openai", HI STOP DONE HI "data: junk\n\n" DONE);
    assert_success(&reply, "Hi");
    provider_reply_release(&reply);
}

static void openai_errors_have_their_classes(void **state)
{
    (void)state;
#define E(message, type, code)                                                                     \
    "{\"error\":{\"message\":\"" message "\",\"type\":\"" type "\",\"param\":null,\"code\":" code  \
    "}}"
    static const struct error_case cases[] = {
        {400, NULL, E("bad", "invalid_request_error", "null"), CLASS_BAD_REQUEST, -1},
        {400, NULL, E("too long", "invalid_request_error", "\"context_length_exceeded\""),
         CLASS_CONTEXT_TOO_LONG, -1},
        {400, NULL,
         E("This model's maximum context length is 8192 tokens", "invalid_request_error", "null"),
         CLASS_CONTEXT_TOO_LONG, -1},
        {400, NULL, E("flagged", "invalid_request_error", "\"content_policy_violation\""),
         CLASS_REFUSED, -1},
        {400, NULL, E("flagged", "invalid_request_error", "\"invalid_prompt\""), CLASS_REFUSED, -1},
        {401, NULL, E("Incorrect API key provided: " KEY, "x", "\"invalid_api_key\""), CLASS_AUTH,
         -1},
        {403, NULL, E("country", "x", "\"unsupported_country_region_territory\""), CLASS_AUTH, -1},
        {404, NULL, E("no such model", "x", "\"model_not_found\""), CLASS_BAD_REQUEST, -1},
        {408, NULL, "", CLASS_TIMEOUT, -1},
        {409, NULL, "{}", CLASS_RETRY, -1},
        {413, NULL, "", CLASS_CONTEXT_TOO_LONG, -1},
        {422, NULL, E("odd", "x", "null"), CLASS_BAD_REQUEST, -1},
        {429, "retry-after: 2\n", E("slow", "requests", "\"rate_limit_exceeded\""),
         CLASS_RATE_LIMITED, 2000},
        {429, "retry-after: 2\nretry-after-ms: 1500\n", E("slow", "x", "\"slow_down\""),
         CLASS_RATE_LIMITED, 1500},
        {429, NULL, E("Please try again in 6m0s.", "tokens", "\"rate_limit_exceeded\""),
         CLASS_RATE_LIMITED, 360000},
        {429, "x-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 1m30s\n",
         E("slow", "tokens", "\"rate_limit_exceeded\""), CLASS_RATE_LIMITED, 90000},
        {429, "retry-after: 7200\n", E("slow", "x", "null"), CLASS_RATE_LIMITED, 7200000},
        {429, NULL, E("Request too large for gpt-6", "tokens", "\"rate_limit_exceeded\""),
         CLASS_CONTEXT_TOO_LONG, -1},
        {429, NULL, E("quota", "insufficient_quota", "\"insufficient_quota\""), CLASS_QUOTA, -1},
        {429, NULL, E("x", "x", "\"credit_balance_exhausted\""), CLASS_QUOTA, -1},
        {429, NULL, E("x", "x", "\"organization_spend_limit_exceeded\""), CLASS_QUOTA, -1},
        {429, NULL, E("x", "x", "\"project_spend_limit_exceeded\""), CLASS_QUOTA, -1},
        {429, NULL, E("x", "x", "\"organization_usage_limit_exceeded\""), CLASS_QUOTA, -1},
        {429, "x-should-retry: false\n", E("x", "x", "null"), CLASS_QUOTA, -1},
        {500, NULL, E("oops", "server_error", "null"), CLASS_RETRY, -1},
        {500, "x-should-retry: false\n", "", CLASS_BAD_REQUEST, -1},
        {400, "x-should-retry: true\n", "", CLASS_RETRY, -1},
        {401, "x-should-retry: false\n", "", CLASS_AUTH, -1},
        {502, NULL, "<html><title>502 Bad Gateway</title></html>", CLASS_RETRY, -1},
        {503, NULL, E("busy", "service_unavailable_error", "\"server_is_overloaded\""),
         CLASS_OVERLOADED, -1},
        {504, NULL, "upstream request timeout", CLASS_TIMEOUT, -1},
        {599, NULL, "", CLASS_RETRY, -1},
        {600, NULL, "", CLASS_BAD_RESPONSE, -1},
    };
    check_errors("openai", cases, sizeof cases / sizeof *cases);
}

static void local_servers_errors_have_their_classes(void **state)
{
    (void)state;
    static const struct error_case llamacpp[] = {
        {400, NULL,
         "{\"error\":{\"code\":400,\"type\":\"exceed_context_size_error\",\"message\":\"request "
         "(9000 tokens) exceeds the available context size (8192 tokens), try increasing it\","
         "\"n_prompt_tokens\":9000,\"n_ctx\":8192}}",
         CLASS_CONTEXT_TOO_LONG, -1},
        {503, NULL,
         "{\"error\":{\"code\":503,\"message\":\"Loading model\",\"type\":\"unavailable_error\"}}",
         CLASS_OVERLOADED, -1},
        {401, NULL,
         "{\"error\":{\"code\":401,\"message\":\"Invalid API Key\",\"type\":"
         "\"authentication_error\"}}",
         CLASS_AUTH, -1},
        {501, NULL, "{\"error\":{\"code\":501,\"message\":\"x\",\"type\":\"not_supported_error\"}}",
         CLASS_RETRY, -1},
    };
    static const struct error_case vllm[] = {
        {400, NULL,
         "{\"error\":{\"message\":\"This model's maximum context length is 16384 tokens. However, "
         "you requested 20000 tokens\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}}",
         CLASS_CONTEXT_TOO_LONG, -1},
        {404, NULL,
         "{\"error\":{\"message\":\"The model `x` does not exist.\",\"type\":\"NotFoundError\","
         "\"code\":404}}",
         CLASS_BAD_REQUEST, -1},
        {503, NULL, "{\"error\":{\"message\":\"EngineDeadError\",\"code\":503}}", CLASS_RETRY, -1},
    };
    static const struct error_case tgi[] = {
        {422, NULL, "{\"error\":\"bad grammar\",\"error_type\":\"validation\"}", CLASS_BAD_REQUEST,
         -1},
        {422, NULL,
         "{\"error\":\"Input validation error: `inputs` tokens + `max_new_tokens` must be <= "
         "4096\","
         "\"error_type\":\"validation\"}",
         CLASS_CONTEXT_TOO_LONG, -1},
        {424, NULL,
         "{\"error\":\"Request failed during generation\",\"error_type\":\"generation\"}",
         CLASS_RETRY, -1},
        {429, NULL, "{\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}",
         CLASS_OVERLOADED, -1},
        {500, NULL, "{\"error\":\"x\",\"error_type\":\"incomplete_generation\"}", CLASS_RETRY, -1},
    };
    check_errors("llamacpp", llamacpp, sizeof llamacpp / sizeof *llamacpp);
    check_errors("vllm", vllm, sizeof vllm / sizeof *vllm);
    check_errors("tgi", tgi, sizeof tgi / sizeof *tgi);
}

static void huggingface_error_bodies_of_every_shape_are_understood(void **state)
{
    (void)state;
    static const struct error_case cases[] = {
        {402, NULL, "{\"error\":\"You have exceeded your monthly included credits\"}", CLASS_QUOTA,
         -1},
        {400, NULL, "{\"error\":{\"message\":\"shape 2\"}}", CLASS_BAD_REQUEST, -1},
        {422, NULL, "{\"detail\":\"shape 3\"}", CLASS_BAD_REQUEST, -1},
        {422, NULL, "{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"shape 3b\"}]}", CLASS_BAD_REQUEST,
         -1},
        {500, NULL, "{\"message\":\"shape 4\"}", CLASS_RETRY, -1},
        {503, NULL, "shape 5, plain text", CLASS_OVERLOADED, -1},
        {403, NULL, "{\"type\":\"about:blank\",\"title\":\"shape 6\",\"status\":403}", CLASS_AUTH,
         -1},
        {400, NULL, "{\"error\":[],\"message\":\"shape 7\"}", CLASS_BAD_REQUEST, -1},
        {403, NULL, "{\"message\":\"NOT_ENOUGH_BALANCE\"}", CLASS_QUOTA, -1},
        {413, NULL,
         "{\"error\":{\"message\":\"Request too large\",\"code\":\"rate_limit_exceeded\"}}",
         CLASS_CONTEXT_TOO_LONG, -1},
    };
    check_errors("huggingface", cases, sizeof cases / sizeof *cases);
    for (size_t i = 1; i < 8; i++) {
        struct provider_reply reply = failure("huggingface", cases[i].status, NULL, cases[i].body);
        assert_non_null(strstr(reply.error_text, "shape"));
    }
}

static void error_text_is_one_clean_line_without_keys(void **state)
{
    (void)state;
    struct provider_reply reply =
        failure("openai", 500, "X-Request-Id: req_1\n", "bad\x01\x02\n\tgate\xffway\x7f\x1b[31m");
    assert_error(&reply, CLASS_RETRY);
    assert_string_equal(reply.error_text, "HTTP 500: bad gate\xef\xbf\xbdway [31m");
    assert_string_equal(reply.request_id, "req_1");
    static const char *const echoes[] = {
        "{\"error\":{\"message\":\"Incorrect API key provided: sk-proj-abcdefghijklmnop.\"}}",
        "{\"error\":\"token hf_abcdefghijklmnopqrstuvwx is bad\"}",
        "no access with Authorization: Bearer abcdef0123456789",
        "API key AIzaSyA-1234567890abcdefg not valid",
        "{\"error\":{\"type\":\"sk-ant-api03-abcdefghijklmnop\"}}",
    };
    static const char *const secrets[] = {"abcdefghijklmnop", "abcdefghijkl", "abcdef01234",
                                          "1234567890", "abcdefghijklm"};
    for (size_t i = 0; i < sizeof echoes / sizeof *echoes; i++) {
        reply = failure("openai", 401, NULL, echoes[i]);
        assert_error(&reply, CLASS_AUTH);
        assert_null(strstr(reply.error_text, secrets[i]));
        assert_non_null(strstr(reply.error_text, "***"));
    }
    reply = failure("openai", 400, NULL, "{\"error\":\"the task-oriented-model is gone\"}");
    assert_non_null(strstr(reply.error_text, "task-oriented-model"));
}

static void long_error_text_is_cut(void **state)
{
    (void)state;
    char page[20000];
    memset(page, 'x', sizeof page - 1);
    page[sizeof page - 1] = '\0';
    struct provider_reply reply = failure("openai", 500, NULL, page);
    assert_error(&reply, CLASS_RETRY);
    assert_true(strlen(reply.error_text) < 300);
}

static void models_are_listed(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        enum error_class class_;
        const char *names;
    } cases[] = {
        {"{\"object\":\"list\",\"data\":[{\"id\":\"a\"},{\"id\":\"org/b:c\"}]}", CLASS_NONE,
         "a\norg/b:c\n"},
        {"[{\"id\":\"a\"}]", CLASS_NONE, "a\n"},
        {"{\"data\":[]}", CLASS_NONE, ""},
        {"{\"data\":null}", CLASS_NONE, ""},
        {"{\"data\":[{\"id\":7},{},null,{\"id\":\"x\\ny\"},{\"id\":\"\"},{\"id\":\"b\"}]}",
         CLASS_NONE, "b\n"},
        {"{\"error\":\"Unexpected endpoint or method.\"}", CLASS_BAD_RESPONSE, ""},
        {"{\"error\":{\"code\":\"invalid_api_key\"}}", CLASS_AUTH, ""},
        {"<html>", CLASS_BAD_RESPONSE, ""},
        {"", CLASS_BAD_RESPONSE, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < FAMILY; k++) {
            struct provider_reply reply = body_of(family[k], PROVIDER_LIST, 0, cases[i].body);
            if (cases[i].class_ == CLASS_NONE)
                assert_success(&reply, cases[i].names);
            else
                assert_error(&reply, cases[i].class_);
            provider_reply_release(&reply);
        }
}

static void cache_writes_are_counted(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("openai", HI STOP "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2000,"
                                 "\"completion_tokens\":6,\"prompt_tokens_details\":"
                                 "{\"cached_tokens\":500,\"cache_write_tokens\":1400}}}\n\n" DONE);
    assert_success(&reply, "Hi");
    assert_int_equal(reply.prompt_tokens, 2000); /* all of them */
    assert_int_equal(reply.cached_tokens, 500);
    assert_int_equal(reply.cache_write_tokens, 1400);
    provider_reply_release(&reply);
}

static void model_that_is_not_there_is_bad_request_with_its_cure(void **state)
{
    (void)state;
    static const struct {
        const char *api, *body, *cure;
    } cases[] = {
        {"openai", E("The model `x` does not exist", "x", "\"model_not_found\""),
         "orchestrator models --refresh"},
        {"vllm",
         "{\"error\":{\"message\":\"The model `x` does not exist.\",\"type\":\"NotFoundError\","
         "\"code\":404}}",
         "pull the model"},
        {"lmstudio", "{\"error\":{\"message\":\"no x\",\"code\":\"model_not_found\"}}",
         "pull the model"},
        {"openai", "{\"error\":{\"message\":\"Invalid URL (POST /v1/v1/chat)\"}}",
         "check base_url"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = failure(cases[i].api, 404, NULL, cases[i].body);
        assert_error(&reply, CLASS_BAD_REQUEST);
        assert_non_null(strstr(reply.error_text, cases[i].cure));
    }
    char long_body[2000] = "{\"error\":\"model ";
    memset(long_body + strlen(long_body), 'x', 1200);
    strcat(long_body, "\"}");
    struct provider_reply reply = failure("openai", 404, NULL, long_body);
    assert_non_null(strstr(reply.error_text, "models --refresh)")); /* a long text leaves room */
}

static void unknown_endpoint_with_200_names_its_cure(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("lmstudio", "{\"error\":\"Unexpected endpoint or method. (POST /api/v1/chat)\"}");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    assert_non_null(strstr(reply.error_text, "0.4"));
}

static void should_retry_false_is_obeyed_whatever_the_words_are(void **state)
{
    (void)state;
    static const struct error_case cases[] = {
        {500, "x-should-retry: false\n", E("oops", "server_error", "null"), CLASS_BAD_REQUEST, -1},
        {429, "x-should-retry: false\n", E("x", "requests", "\"rate_limit_exceeded\""), CLASS_QUOTA,
         -1},
        {503, "x-should-retry: false\n", E("x", "x", "\"server_is_overloaded\""), CLASS_BAD_REQUEST,
         -1},
        /* what is out of money stays so */
        {429, "x-should-retry: true\n", E("x", "insufficient_quota", "null"), CLASS_QUOTA, -1},
        {400, "x-should-retry: true\n", E("x", "x", "\"context_length_exceeded\""),
         CLASS_CONTEXT_TOO_LONG, -1},
        {409, "x-should-retry: true\n", "{}", CLASS_RETRY, -1},
    };
    check_errors("openai", cases, sizeof cases / sizeof *cases);
}

static void window_that_llamacpp_names_is_told(void **state)
{
    (void)state;
    struct provider_reply reply =
        failure("llamacpp", 400, NULL,
                "{\"error\":{\"code\":400,\"type\":\"exceed_context_size_error\",\"message\":"
                "\"too many\",\"n_prompt_tokens\":9000,\"n_ctx\":8192}}");
    assert_error(&reply, CLASS_CONTEXT_TOO_LONG);
    assert_non_null(strstr(reply.error_text, "8192 tokens"));
}

/* --- the quirks that cost client writers most, by name ------------------------------------------
 */

static void quirk_http_200_is_not_success(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILY; i++) {
        struct provider_reply reply =
            stream(family[i], HI "data: {\"error\":{\"message\":\"broke\",\"code\":500}}\n\n");
        assert_error(&reply, CLASS_RETRY);
        provider_reply_release(&reply);
        reply = body(family[i], "{\"error\":{\"message\":\"broke\"}}");
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
    }
}

static void quirk_done_means_different_things(void **state)
{
    (void)state;
    struct provider_reply reply = /* vLLM says it after an error */
        stream("vllm", HI STOP "data: {\"error\":{\"message\":\"x\",\"code\":500}}\n\n" DONE);
    assert_error(&reply, CLASS_RETRY);
    provider_reply_release(&reply);
    reply = /* llama-server leaves it out after one */
        stream("llamacpp", HI "data: {\"error\":{\"code\":500,\"message\":\"x\"}}\n\n");
    assert_error(&reply, CLASS_RETRY);
    provider_reply_release(&reply);
    reply = stream("openai-compatible", HI); /* Ollama's /v1 just ends */
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void quirk_429_of_openai_has_two_meanings(void **state)
{
    (void)state;
    static const char *const money[] = {
        "insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded", "organization_usage_limit_exceeded"};
    for (size_t i = 0; i < sizeof money / sizeof *money; i++) {
        char text[200];
        snprintf(text, sizeof text, "{\"error\":{\"message\":\"x\",\"code\":\"%s\"}}", money[i]);
        struct provider_reply reply = failure("openai", 429, "retry-after: 1\n", text);
        assert_error(&reply, CLASS_QUOTA);
        assert_int_equal(error_class_action(reply.error), ERROR_MOVE);
    }
    struct provider_reply reply =
        failure("openai", 429, "retry-after: 1\n", E("x", "requests", "\"rate_limit_exceeded\""));
    assert_int_equal(error_class_action(reply.error), ERROR_WAIT);
}

static void quirk_error_codes_may_be_integers(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("llamacpp", "data: {\"error\":{\"code\":503,\"message\":\"x\"}}\n\n");
    assert_error(&reply, CLASS_OVERLOADED);
}

static void quirk_comment_pings_are_no_events(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("llamacpp", ":\n\n" HI ":\n\n: ping\n\n" STOP ":\n\n" DONE);
    assert_success(&reply, "Hi");
    provider_reply_release(&reply);
}

static void quirk_arguments_of_tools_are_strings_in_fragments(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "openai",
        CHUNK(
            "{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":"
            "\"\"}}]}",
            "null")
            CHUNK("{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\"}}]}",
                  "null") CHUNK("{}", "\"tool_calls\"") DONE);
    assert_error(&reply, CLASS_BAD_RESPONSE); /* none was offered */
    assert_int_equal(reply.finish, FINISH_TOOLS);
    provider_reply_release(&reply);
}

static void stream_cut_anywhere_reads_the_same(void **state)
{
    (void)state;
    static const char *const streams[] = {
        HI CHUNK("{\"reasoning\":\"h\xc3\xbc\"}", "null") STOP USAGE DONE,
        "data:{\"choices\":[{\"delta\":{\"content\":\"Gr\xc3\xbc\xc3\x9f\"},\"finish_reason\":null}"
        "]}\r\n\r\n:\r\n\r\ndata:{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n"
        "data:[DONE]\r\n\r\n",
        HI "data: {\"error\":{\"message\":\"Please try again in 1.5s.\",\"code\":"
           "\"rate_limit_exceeded\"}}\n\n" DONE,
        HI STOP "data: [DONE]",
    };
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        for (size_t k = 0; k < FAMILY; k++)
            check_every_split(family[k], streams[i]);
}

static void nulls_and_wrong_types_never_crash(void **state)
{
    (void)state;
    static const char document[] =
        "{\"id\":\"i\",\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{\"index\":0,"
        "\"delta\":{\"content\":\"Hi\",\"reasoning\":\"r\",\"reasoning_content\":\"q\",\"refusal\":"
        "null},\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"x\",\"thinking\":[{\"text\":"
        "\"t\"}]}]},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,"
        "\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":3},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":4}},\"timings\":{\"cache_n\":1,"
        "\"prompt_n\":2,\"prompt_ms\":3.5,\"predicted_n\":4,\"predicted_ms\":5.5},\"metrics\":"
        "{\"time_to_first_token_ms\":1.5,\"queue_time_ms\":1,\"generation_time_ms\":2},"
        "\"error\":null}";
    static const char error[] =
        "{\"error\":{\"message\":\"m\",\"type\":\"t\",\"code\":400,\"status\":\"S\",\"details\":"
        "[{\"reason\":\"R\",\"retryDelay\":\"1s\",\"violations\":[{\"quotaId\":\"q\"}]}],"
        "\"request_id\":\"r\"},\"detail\":[{\"msg\":\"x\"}],\"message\":\"m\",\"title\":\"t\"}";
    for (size_t i = 0; i < FAMILY; i++) {
        wrong_types(family[i], document, true);
        wrong_types(family[i], document, false);
        wrong_types(family[i], error, true);
        wrong_types(family[i], error, false);
    }
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    check_memory_failures("openai",
                          HI CHUNK("{\"reasoning\":\"hm\"}", "null")
                              CHUNK("{\"content\":\" there, and more text than fits at first: "
                                    "0123456789012345678901234567890123456789\"}",
                                    "null") STOP USAGE DONE,
                          "Hi there, and more text than fits at first: "
                          "0123456789012345678901234567890123456789");
    for (unsigned long k = 1; k < 20; k++) {
        const struct provider *provider = provider_find("openai");
        struct provider_call call = plain_call();
        struct provider_request request = {0};
        struct err err = {0};
        mem_fail_at(k);
        int rc = provider->build(provider, &call, &request, &err);
        mem_fail_at(0);
        assert_true(rc == 0 || rc == -ENOMEM);
        assert_true(rc == 0 || k < 10);
        provider_request_release(&request);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_succeeds_with_finish_reason_and_done),
        cmocka_unit_test(usage_chunk_with_empty_choices_is_read),
        cmocka_unit_test(missing_usage_is_unknown_and_no_error),
        cmocka_unit_test(done_without_finish_reason_is_no_success),
        cmocka_unit_test(truncated_stream_is_never_a_success),
        cmocka_unit_test(some_servers_need_no_done),
        cmocka_unit_test(finish_reason_is_proof_where_done_is_not_needed),
        cmocka_unit_test(error_inside_a_stream_with_status_200_is_an_error),
        cmocka_unit_test(finish_reasons_are_mapped_and_unknown_ones_are_other),
        cmocka_unit_test(refusal_is_refused_with_its_text),
        cmocka_unit_test(reasoning_that_eats_the_output_budget_is_no_answer),
        cmocka_unit_test(reasoning_is_read_under_both_names_and_kept_apart),
        cmocka_unit_test(content_may_be_an_array_of_parts),
        cmocka_unit_test(llamacpp_timings_give_durations_and_counts),
        cmocka_unit_test(vllm_metrics_give_durations),
        cmocka_unit_test(whole_answer_is_read),
        cmocka_unit_test(whole_answer_without_finish_reason_is_no_success),
        cmocka_unit_test(lmstudio_unknown_endpoint_with_status_200_is_bad_response),
        cmocka_unit_test(error_as_a_whole_answer_with_status_200_is_classified),
        cmocka_unit_test(page_instead_of_an_answer_is_bad_response_with_its_title),
        cmocka_unit_test(stream_that_does_not_say_so_is_read_as_one),
        cmocka_unit_test(damaged_event_is_bad_response),
        cmocka_unit_test(what_follows_done_is_ignored),
        cmocka_unit_test(openai_errors_have_their_classes),
        cmocka_unit_test(local_servers_errors_have_their_classes),
        cmocka_unit_test(huggingface_error_bodies_of_every_shape_are_understood),
        cmocka_unit_test(error_text_is_one_clean_line_without_keys),
        cmocka_unit_test(long_error_text_is_cut),
        cmocka_unit_test(models_are_listed),
        cmocka_unit_test(cache_writes_are_counted),
        cmocka_unit_test(model_that_is_not_there_is_bad_request_with_its_cure),
        cmocka_unit_test(unknown_endpoint_with_200_names_its_cure),
        cmocka_unit_test(should_retry_false_is_obeyed_whatever_the_words_are),
        cmocka_unit_test(window_that_llamacpp_names_is_told),
        cmocka_unit_test(quirk_http_200_is_not_success),
        cmocka_unit_test(quirk_done_means_different_things),
        cmocka_unit_test(quirk_429_of_openai_has_two_meanings),
        cmocka_unit_test(quirk_error_codes_may_be_integers),
        cmocka_unit_test(quirk_comment_pings_are_no_events),
        cmocka_unit_test(quirk_arguments_of_tools_are_strings_in_fragments),
        cmocka_unit_test(stream_cut_anywhere_reads_the_same),
        cmocka_unit_test(nulls_and_wrong_types_never_crash),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
