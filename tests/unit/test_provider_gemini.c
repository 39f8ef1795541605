/* Gemini's generateContent: bytes in, reply out. */
#include "tests/unit/provider_check.h"

#define FIRST                                                                                      \
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"2, 3\"}],\"role\":\"model\"},"    \
    "\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":8,\"totalTokenCount\":8},"              \
    "\"modelVersion\":\"gemini-3.6-flash\",\"responseId\":\"r1\"}\r\n\r\n"
#define LAST_WITH(reason)                                                                          \
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\", 5\"}],\"role\":\"model\"},"     \
    "\"finishReason\":\"" reason "\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":8,"     \
    "\"cachedContentTokenCount\":4,\"candidatesTokenCount\":7,\"thoughtsTokenCount\":30,"          \
    "\"toolUsePromptTokenCount\":2,\"totalTokenCount\":47},"                                       \
    "\"modelVersion\":\"gemini-3.6-flash\",\"responseId\":\"r1\"}\r\n\r\n"
#define LAST LAST_WITH("STOP")

static void stream_succeeds_with_finish_reason(void **state)
{
    (void)state;
    struct provider_reply reply = stream("gemini", FIRST LAST);
    assert_success(&reply, "2, 3, 5");
    assert_int_equal(reply.finish, FINISH_DONE);
    assert_string_equal(reply.model, "gemini-3.6-flash");
    assert_string_equal(reply.request_id, "r1");
    provider_reply_release(&reply);
}

static void output_tokens_add_the_thoughts(void **state)
{
    (void)state;
    struct provider_reply reply = stream("gemini", FIRST LAST);
    assert_int_equal(reply.output_tokens, 7 + 30);
    assert_int_equal(reply.reasoning_tokens, 30);
    assert_int_equal(reply.prompt_tokens, 8 + 2);
    assert_int_equal(reply.cached_tokens, 4);
    provider_reply_release(&reply);
}

static void usage_is_a_running_total_and_may_come_after_the_finish(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("gemini", FIRST FIRST "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n"
                                     "data: {\"usageMetadata\":{\"promptTokenCount\":9,"
                                     "\"candidatesTokenCount\":3}}\n\n");
    assert_success(&reply, "2, 32, 3");
    assert_int_equal(reply.prompt_tokens, 9);
    assert_int_equal(reply.output_tokens, 3);
    assert_int_equal(reply.cached_tokens, 0);
    provider_reply_release(&reply);
}

static void thought_parts_go_to_reasoning(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("gemini", "{\"candidates\":[{\"index\":0,\"finishReason\":\"STOP\",\"content\":"
                       "{\"role\":\"model\",\"parts\":[{\"text\":\"summary\",\"thought\":true},"
                       "{\"text\":\"2, 3, 5\",\"thought\":false},{\"text\":\"\","
                       "\"thoughtSignature\":\"C\"}]}}],\"modelVersion\":\"g\"}");
    assert_success(&reply, "2, 3, 5");
    assert_string_equal(reasoning_of(&reply), "summary");
    assert_int_equal(reply.prompt_tokens, -1);
    provider_reply_release(&reply);
}

static void blocked_prompt_with_status_200_is_refused(void **state)
{
    (void)state;
    static const char text[] =
        "{\"promptFeedback\":{\"blockReason\":\"PROHIBITED_CONTENT\"},\"usageMetadata\":"
        "{\"promptTokenCount\":8}}";
    struct provider_reply reply = body("gemini", text);
    assert_error(&reply, CLASS_REFUSED);
    assert_int_equal(reply.finish, FINISH_FILTERED);
    assert_non_null(strstr(reply.error_text, "PROHIBITED_CONTENT"));
    assert_int_equal(reply.prompt_tokens, 8);
    provider_reply_release(&reply);
    reply = stream("gemini", "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n");
    assert_error(&reply, CLASS_REFUSED);
    provider_reply_release(&reply);
}

static void finish_reasons_are_mapped_and_unknown_ones_are_other(void **state)
{
    (void)state;
    static const struct {
        const char *stream;
        enum finish finish;
        enum error_class class_;
    } cases[] = {
        {FIRST LAST_WITH("STOP"), FINISH_DONE, CLASS_NONE},
        {FIRST LAST_WITH("MAX_TOKENS"), FINISH_LENGTH, CLASS_NONE},
        {FIRST LAST_WITH("SAFETY"), FINISH_FILTERED, CLASS_REFUSED},
        {FIRST LAST_WITH("RECITATION"), FINISH_FILTERED, CLASS_REFUSED},
        {FIRST LAST_WITH("BLOCKLIST"), FINISH_FILTERED, CLASS_REFUSED},
        {FIRST LAST_WITH("PROHIBITED_CONTENT"), FINISH_FILTERED, CLASS_REFUSED},
        {FIRST LAST_WITH("SPII"), FINISH_FILTERED, CLASS_REFUSED},
        {FIRST LAST_WITH("LANGUAGE"), FINISH_FILTERED, CLASS_REFUSED},
        {FIRST LAST_WITH("IMAGE_SAFETY"), FINISH_FILTERED, CLASS_REFUSED},
        {FIRST LAST_WITH("MALFORMED_FUNCTION_CALL"), FINISH_OTHER, CLASS_BAD_RESPONSE},
        {FIRST LAST_WITH("UNEXPECTED_TOOL_CALL"), FINISH_OTHER, CLASS_BAD_RESPONSE},
        {FIRST LAST_WITH("OTHER"), FINISH_OTHER, CLASS_BAD_RESPONSE},
        {FIRST LAST_WITH("BRAND_NEW"), FINISH_OTHER, CLASS_NONE},
        {FIRST LAST LAST_WITH("SAFETY"), FINISH_FILTERED, CLASS_REFUSED},
        {FIRST LAST_WITH(""), FINISH_NONE, CLASS_BAD_RESPONSE},
        {FIRST LAST_WITH("FINISH_REASON_UNSPECIFIED"), FINISH_NONE, CLASS_BAD_RESPONSE},
        {"data: {\"candidates\":[{\"finishReason\":\"MAX_TOKENS\"}]}\n\n", FINISH_LENGTH,
         CLASS_BAD_REQUEST},
        {"data: {\"candidates\":[{\"finishReason\":\"STOP\",\"content\":{\"parts\":"
         "[{\"functionCall\":{\"name\":\"f\",\"args\":{}}}]}}]}\n\n",
         FINISH_TOOLS, CLASS_BAD_RESPONSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = stream("gemini", cases[i].stream);
        assert_int_equal(reply.finish, cases[i].finish);
        assert_int_equal(reply.error, cases[i].class_);
        assert_int_equal(reply.finished, cases[i].class_ == CLASS_NONE);
        provider_reply_release(&reply);
    }
}

static void truncated_stream_is_never_a_success(void **state)
{
    (void)state;
    static const char whole[] = FIRST LAST;
    for (size_t len = 0; len < sizeof whole - 6; len++) {
        char *cut = strndup(whole, len);
        struct provider_reply reply = stream("gemini", cut);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
        free(cut);
    }
    struct provider_reply reply = stream("gemini", FIRST "data: [DONE]\n\n");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

#define UNAVAILABLE                                                                                \
    "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"The model is overloaded.\",\n"      \
    "    \"status\": \"UNAVAILABLE\"\n  }\n}"

static void raw_json_error_inside_a_stream_is_an_error(void **state)
{
    (void)state;
    static const char *const streams[] = {
        FIRST UNAVAILABLE "\n",
        FIRST "[" UNAVAILABLE "]\n",
        FIRST "[" UNAVAILABLE "\n]\n",
        UNAVAILABLE,
        FIRST "data: {\"error\":{\"code\":503,\"message\":\"x\"}}",
        "[" UNAVAILABLE "\n]\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        struct provider_reply reply = stream("gemini", streams[i]);
        assert_error(&reply, CLASS_OVERLOADED);
        provider_reply_release(&reply);
    }
}

static void stream_without_alt_sse_is_a_json_array_and_is_read(void **state)
{
    (void)state;
    static const char array[] =
        "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"2\"}]}}]}\n,\r\n"
        "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\", "
        "3\"}]},\"finishReason\":\"STOP\"}],"
        "\"usageMetadata\":{\"promptTokenCount\":5}}\n]\n";
    struct provider_reply reply = body("gemini", array);
    assert_success(&reply, "2, 3");
    assert_int_equal(reply.prompt_tokens, 5);
    provider_reply_release(&reply);
    reply = stream("gemini", array);
    assert_success(&reply, "2, 3");
    provider_reply_release(&reply);
    reply = body("gemini", "[" UNAVAILABLE "]");
    assert_error(&reply, CLASS_OVERLOADED);
    provider_reply_release(&reply);
}

static void whole_answer_without_finish_reason_is_no_success(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"x\"}]}}]}",
        "{\"candidates\":[]}",
        "{}",
        "[]",
        "null",
        "",
        "<html>",
        "{\"usageMetadata\":{}}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct provider_reply reply = body("gemini", bodies[i]);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
    }
}

static void errors_have_their_classes(void **state)
{
    (void)state;
#define E(code, status, message, details)                                                          \
    "{\"error\":{\"code\":" code ",\"message\":\"" message "\",\"status\":\"" status               \
    "\",\"details\":[" details "]}}"
#define RETRY_INFO(delay)                                                                          \
    "{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"" delay "\"}"
#define QUOTA(id)                                                                                  \
    "{\"@type\":\"type.googleapis.com/"                                                            \
    "google.rpc.QuotaFailure\",\"violations\":[{\"quotaId\":\"" id "\"}]}"
    static const struct error_case cases[] = {
        {429, NULL,
         E("429", "RESOURCE_EXHAUSTED", "Quota exceeded. Please retry in 12.5s.",
           QUOTA("GenerateRequestsPerMinutePerProjectPerModel") "," RETRY_INFO("12.6s")),
         CLASS_RATE_LIMITED, 12600},
        {429, NULL, "[" E("429", "RESOURCE_EXHAUSTED", "x", RETRY_INFO("3600s")) "]",
         CLASS_RATE_LIMITED, 3600000},
        {429, NULL, E("429", "RESOURCE_EXHAUSTED", "Please retry in 12.5s.", ""),
         CLASS_RATE_LIMITED, 12500},
        {429, NULL,
         E("429", "RESOURCE_EXHAUSTED", "x",
           QUOTA("GenerateRequestsPerDayPerProjectPerModel-FreeTier") "," RETRY_INFO("30s")),
         CLASS_QUOTA, 30000},
        {429, NULL,
         E("429", "RESOURCE_EXHAUSTED",
           "You exceeded your current quota\\n* Quota exceeded for metric: x, limit: 0, model: g",
           ""),
         CLASS_QUOTA, -1},
        {429, NULL,
         E("429", "RESOURCE_EXHAUSTED",
           "You exceeded your current quota, please check your plan and billing. limit: 05", ""),
         CLASS_RATE_LIMITED, -1},
        {400, NULL,
         E("400", "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.",
           "{\"reason\":\"API_KEY_INVALID\"}"),
         CLASS_AUTH, -1},
        {400, NULL, E("400", "INVALID_ARGUMENT", "x", "{\"reason\":\"API_KEY_INVALID\"}"),
         CLASS_AUTH, -1},
        {400, NULL, E("400", "INVALID_ARGUMENT", "bad schema", ""), CLASS_BAD_REQUEST, -1},
        {400, NULL,
         E("400", "INVALID_ARGUMENT",
           "The input token count (9) exceeds the maximum number of tokens allowed (8).", ""),
         CLASS_CONTEXT_TOO_LONG, -1},
        {400, NULL, E("400", "FAILED_PRECONDITION", "x", ""), CLASS_BAD_REQUEST, -1},
        {402, NULL, E("402", "x", "x", ""), CLASS_QUOTA, -1},
        {403, NULL, E("403", "PERMISSION_DENIED", "x", ""), CLASS_AUTH, -1},
        {404, NULL, E("404", "NOT_FOUND", "models/x is not found", ""), CLASS_BAD_REQUEST, -1},
        {500, NULL, E("500", "INTERNAL", "x", ""), CLASS_RETRY, -1},
        {503, NULL, E("503", "UNAVAILABLE", "x", ""), CLASS_OVERLOADED, -1},
        {504, NULL, E("504", "DEADLINE_EXCEEDED", "x", ""), CLASS_TIMEOUT, -1},
        {502, NULL, "<html><title>Error 502</title>", CLASS_RETRY, -1},
    };
    check_errors("gemini", cases, sizeof cases / sizeof *cases);
}

static void request_is_exact(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.model = "gemini-3.6-flash";
    call.system = "Be terse.";
    call.temperature = 0.2;
    call.max_tokens = 1024;
    call.json_schema = "{\"type\":\"object\"}";
    check_request("gemini", &call,
                  "https://generativelanguage.googleapis.com/v1beta/models/"
                  "gemini-3.6-flash:streamGenerateContent?alt=sse",
                  "Content-Type: application/json\nx-goog-api-key: " KEY "\n",
                  "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Hi\"}]}],"
                  "\"systemInstruction\":{\"parts\":[{\"text\":\"Be terse.\"}]},"
                  "\"generationConfig\":{\"temperature\":0.2,\"maxOutputTokens\":1024,"
                  "\"responseMimeType\":\"application/json\",\"responseJsonSchema\":"
                  "{\"type\":\"object\"}}}");
}

static void plain_request_goes_to_generate_content(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.stream = false;
    call.base_url = "http://127.0.0.1:9/v1beta";
    check_request("gemini", &call, "http://127.0.0.1:9/v1beta/models/m:generateContent",
                  "Content-Type: application/json\nx-goog-api-key: " KEY "\n",
                  "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Hi\"}]}],"
                  "\"generationConfig\":{}}");
}

static void model_is_encoded_in_the_path(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    call.stream = false;
    call.model = "a?b#c d%\n";
    struct provider_request request = build("gemini", &call);
    assert_string_equal(request.url.data,
                        "http://h/v1beta/models/a%3Fb%23c%20d%25%0A:generateContent");
    provider_request_release(&request);
    call.model = "tunedModels/x-1";
    request = build("gemini", &call);
    assert_string_equal(request.url.data, "http://h/v1beta/tunedModels/x-1:generateContent");
    provider_request_release(&request);
}

#define MODELS_URL "https://generativelanguage.googleapis.com/v1beta/models"
#define HEADERS "Content-Type: application/json\nx-goog-api-key: " KEY "\n"
#define STREAM_URL MODELS_URL "/m:streamGenerateContent?alt=sse"

static void models_are_listed_without_their_prefix(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.kind = PROVIDER_LIST;
    struct provider_request request = build("gemini", &call);
    assert_string_equal(request.url.data, MODELS_URL "?pageSize=1000");
    assert_string_equal(request.headers.data, "x-goog-api-key: " KEY "\n");
    assert_int_equal(request.body.len, 0);
    provider_request_release(&request);
    struct provider_reply reply =
        body_of("gemini", PROVIDER_LIST, 0,
                "{\"models\":[{\"name\":\"models/gemini-a\"},{\"name\":\"tunedModels/b\"}]}");
    assert_success(&reply, "gemini-a\ntunedModels/b\n");
    provider_reply_release(&reply);
}

static void list_that_is_none_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        enum error_class class_;
    } cases[] = {
        {UNAVAILABLE, CLASS_OVERLOADED},
        {"[" UNAVAILABLE "]", CLASS_OVERLOADED},
        {"{}", CLASS_BAD_RESPONSE},
        {"<html>", CLASS_BAD_RESPONSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = body_of("gemini", PROVIDER_LIST, 0, cases[i].body);
        assert_error(&reply, cases[i].class_);
        provider_reply_release(&reply);
    }
}

static void stop_strings_and_seed_are_sent(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.stop = (const char *const[]){"END", ""};
    call.n_stop = 2;
    call.has_seed = true;
    call.seed = 7;
    check_request("gemini", &call, STREAM_URL, HEADERS,
                  "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Hi\"}]}],"
                  "\"generationConfig\":{\"stopSequences\":[\"END\"],\"seed\":7}}");
    call.n_stop = 0;
    call.seed = INT64_MAX; /* it takes an int32 */
    check_request("gemini", &call, STREAM_URL, HEADERS,
                  "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Hi\"}]}],"
                  "\"generationConfig\":{\"seed\":2147483647}}");
}

static void images_are_inline_or_by_their_address(void **state)
{
    (void)state;
    static const struct provider_image images[] = {
        {.url = "https://h/a.png", .media_type = "", .data = ""},
        {.url = "https://h/b", .media_type = "image/webp", .data = ""},
        {.url = "", .media_type = "image/png", .data = "aGk="},
    };
    struct provider_call call = plain_call();
    call.images = images;
    call.n_images = 3;
    check_request("gemini", &call, STREAM_URL, HEADERS,
                  "{\"contents\":[{\"role\":\"user\",\"parts\":["
                  "{\"fileData\":{\"fileUri\":\"https://h/a.png\"}},"
                  "{\"fileData\":{\"fileUri\":\"https://h/b\",\"mimeType\":\"image/webp\"}},"
                  "{\"inlineData\":{\"mimeType\":\"image/png\",\"data\":\"aGk=\"}},"
                  "{\"text\":\"Hi\"}]}],\"generationConfig\":{}}");
}

static void effort_is_a_level_or_a_budget_by_the_models_name(void **state)
{
    (void)state;
#define LEVEL(thoughts, level)                                                                     \
    "{\"thinkingConfig\":{\"includeThoughts\":" thoughts ",\"thinkingLevel\":\"" level "\"}}"
#define BUDGET(thoughts, tokens)                                                                   \
    "{\"thinkingConfig\":{\"includeThoughts\":" thoughts ",\"thinkingBudget\":" tokens "}}"
    static const struct {
        const char *model, *effort, *config;
    } cases[] = {
        {"gemini-3.6-flash", "low", LEVEL("true", "LOW")},
        {"gemini-3.6-flash", "minimal", LEVEL("true", "MINIMAL")},
        {"gemini-3.6-flash", "high", LEVEL("true", "HIGH")},
        {"models/gemini-3.6-flash", "max", LEVEL("true", "HIGH")},
        {"gemini-3.6-flash", "none", LEVEL("false", "MINIMAL")},
        {"gemini-3.1-pro-preview", "none", LEVEL("false", "LOW")},
        {"gemini-4-argon", "minimal", LEVEL("true", "LOW")},
        {"gemini-4-argon", "medium", LEVEL("true", "MEDIUM")},
        {"gemini-2.5-flash", "medium", BUDGET("true", "8192")},
        {"gemini-2.5-flash", "none", BUDGET("false", "0")},
        {"gemini-2.5-pro", "none", BUDGET("false", "128")},
        {"gemini-2.0-flash", "high", "{}"}, /* does not think */
        {"gemini-3.6-flash", "", "{}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_call call = plain_call();
        struct buf expected = {0};
        call.model = cases[i].model;
        call.effort = cases[i].effort;
        struct provider_request request = build("gemini", &call);
        buf_printf(&expected,
                   "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Hi\"}]}],"
                   "\"generationConfig\":%s}",
                   cases[i].config);
        assert_json(request.body.data, request.body.len, expected.data);
        buf_release(&expected);
        provider_request_release(&request);
    }
}

static void model_without_system_prompt_gets_it_before_the_prompt(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.system = "Be terse.";
    call.no_system = true;
    check_request("gemini", &call, STREAM_URL, HEADERS,
                  "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Be terse.\\n\\nHi\"}]}"
                  "],\"generationConfig\":{}}");
}

static void headers_of_the_provider_are_sent(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.headers = (const char *const[]){"X-Server-Timeout: 600"};
    call.n_headers = 1;
    struct provider_request request = build("gemini", &call);
    assert_string_equal(request.headers.data, "Content-Type: application/json\n"
                                              "X-Server-Timeout: 600\nx-goog-api-key: " KEY "\n");
    provider_request_release(&request);
}

static struct provider_call embed_call(void)
{
    struct provider_call call = plain_call();
    static const char *const inputs[] = {"first", "sec\"ond"};
    call.kind = PROVIDER_EMBED;
    call.model = "gemini-embedding-001";
    call.inputs = inputs;
    call.n_inputs = 2;
    return call;
}

static void texts_are_embedded_in_a_batch_that_names_the_model_in_each(void **state)
{
    (void)state;
    struct provider_call call = embed_call();
    call.dimensions = 768;
#define PART(text)                                                                                 \
    "{\"model\":\"models/gemini-embedding-001\",\"content\":{\"parts\":[{\"text\":" text           \
    "}]},\"outputDimensionality\":768}"
    check_request("gemini", &call, MODELS_URL "/gemini-embedding-001:batchEmbedContents", HEADERS,
                  "{\"requests\":[" PART("\"first\"") "," PART("\"sec\\\"ond\"") "]}");
}

static void vectors_come_in_the_order_of_the_texts(void **state)
{
    (void)state;
    struct provider_reply reply =
        body_of("gemini", PROVIDER_EMBED, 2,
                "{ \"embeddings\": [ {\"values\": [ 0.6, -0.8 ]},\n{\"values\":[1, 0.0]}],"
                "\"usageMetadata\":{\"promptTokenCount\":9}}");
    assert_success(&reply, "[[0.6,-0.8],[1,0.0]]");
    assert_int_equal(reply.prompt_tokens, 9);
    assert_int_equal(reply.output_tokens, 0);
    provider_reply_release(&reply);
}

static void vectors_that_were_cut_have_unit_length_again(void **state)
{
    (void)state;
    struct provider_reply reply = body_of(
        "gemini", PROVIDER_EMBED, 2, "{\"embeddings\":[{\"values\":[3,-4]},{\"values\":[0,0]}]}");
    assert_success(&reply, "[[0.6,-0.8],[0,0]]");
    provider_reply_release(&reply);
}

static void vectors_that_do_not_match_the_texts_are_bad_response(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"embeddings\":[{\"values\":[1,2]}]}",
        "{\"embeddings\":[{\"values\":[1,2]},{\"values\":[1,2]},{\"values\":[1,2]}]}",
        "{\"embeddings\":[{\"values\":[1,2]},{\"values\":[1]}]}",
        "{\"embeddings\":[{\"values\":[1,2]},{\"values\":[]}]}",
        "{\"embeddings\":[{\"values\":[1,2]},{\"values\":[1,\"2\"]}]}",
        "{\"embeddings\":[{\"values\":[1,2]},{\"values\":[1,1e999]}]}",
        "{\"embeddings\":[{\"values\":[1,2]},{\"values\":[1,1e300]},{\"values\":[1,1]}]}",
        "{\"embeddings\":[{\"values\":[1,2]},null]}",
        "{\"embeddings\":{\"values\":[1,2]}}",
        "{\"embedding\":{\"values\":[1,2]}}",
        "{}",
        "[]",
        "",
        "<html>",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct provider_reply reply = body_of("gemini", PROVIDER_EMBED, 2, bodies[i]);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        assert_int_equal(reply.text.len, 0);
        provider_reply_release(&reply);
    }
    struct provider_reply reply = body_of("gemini", PROVIDER_EMBED, 2, "[" UNAVAILABLE "]");
    assert_error(&reply, CLASS_OVERLOADED);
    provider_reply_release(&reply);
}

static void vectors_of_another_size_than_asked_for_are_refused(void **state)
{
    (void)state;
    static const char answer[] = "{\"embeddings\":[{\"values\":[1,2]}]}";
    const struct provider *provider = provider_find("gemini");
    struct provider_call call = {.kind = PROVIDER_EMBED, .n_inputs = 1};
    for (int64_t asked = 0; asked <= 3; asked++) {
        struct provider_reply reply;
        provider_reply_init(&reply);
        call.dimensions = asked;
        provider_reply_expect(&reply, &call);
        provider->body(provider, &reply, answer, sizeof answer - 1);
        assert_int_equal(reply.error, asked == 0 || asked == 2 ? CLASS_NONE : CLASS_BAD_REQUEST);
        provider_reply_release(&reply);
    }
}

static void empty_text_is_refused_before_it_is_sent(void **state)
{
    (void)state;
    struct err err;
    struct provider_call call = embed_call();
    call.inputs = (const char *const[]){"a", ""};
    assert_int_equal(build_error("gemini", &call, &err), -EINVAL);
    assert_non_null(strstr(err.text, "text 2 of 2 is empty"));
    call.n_inputs = 0;
    assert_int_equal(build_error("gemini", &call, &err), -EINVAL);
}

static void finish_message_is_told(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "gemini", FIRST "data: {\"candidates\":[{\"finishReason\":\"MALFORMED_FUNCTION_CALL\","
                        "\"finishMessage\":\"no such tool\"}]}\n\n");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    assert_non_null(strstr(reply.error_text, "MALFORMED_FUNCTION_CALL: no such tool"));
    provider_reply_release(&reply);
    reply = body("gemini", "{\"candidates\":[{\"finishReason\":\"RECITATION\","
                           "\"finishMessage\":\"see citation\"}]}");
    assert_error(&reply, CLASS_REFUSED);
    assert_int_equal(reply.finish, FINISH_FILTERED);
    assert_non_null(strstr(reply.error_text, "see citation"));
    provider_reply_release(&reply);
    reply = stream("gemini", FIRST "data: {\"candidates\":[{\"finishReason\":\"STOP\","
                                   "\"finishMessage\":\"fine\"}]}\n\n");
    assert_success(&reply, "2, 3");
    provider_reply_release(&reply);
}

static void thoughts_that_eat_the_output_limit_say_so(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("gemini", "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\","
                         "\"thought\":true}]},\"finishReason\":\"MAX_TOKENS\"}]}\n\n");
    assert_error(&reply, CLASS_BAD_REQUEST);
    assert_non_null(strstr(reply.error_text, "max_tokens"));
    provider_reply_release(&reply);
}

static void structured_output_arrives_as_text(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("gemini", "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"{\\\"label\\\":\"},"
                       "{\"text\":\"1}\"}]},\"finishReason\":\"STOP\"}]}");
    assert_success(&reply, "{\"label\":1}");
    provider_reply_release(&reply);
}

static void every_split_of_a_stream_gives_the_same(void **state)
{
    (void)state;
    check_every_split("gemini", FIRST LAST);
    check_every_split("gemini", FIRST UNAVAILABLE "\n");
    check_every_split("gemini", "[" UNAVAILABLE "\n]\r\n");
    check_every_split("gemini", "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"2\"}]}}]}\n"
                                ",\r\n{\"candidates\":[{\"finishReason\":\"STOP\"}]}\n]\n");
}

static void nulls_and_wrong_types_never_crash(void **state)
{
    (void)state;
    static const char *const documents[] = {
        "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\",\"thought\":true},{\"text\":"
        "\"b\"},{\"functionCall\":{}}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":"
        "{\"promptTokenCount\":1,\"cachedContentTokenCount\":2,\"candidatesTokenCount\":3,"
        "\"thoughtsTokenCount\":4,\"toolUsePromptTokenCount\":5},\"modelVersion\":\"m\","
        "\"responseId\":\"r\",\"promptFeedback\":{\"blockReason\":\"BLOCK_REASON_UNSPECIFIED\"}}",
        "{\"error\":{\"code\":429,\"status\":\"S\",\"message\":\"m\",\"details\":[{\"reason\":"
        "\"r\"}]}}",
        "{\"error\":{\"details\":[{\"retryDelay\":\"1s\"},{\"violations\":[{\"quotaId\":\"q\"}]}]}"
        "}",
        "{\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}",
    };
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        wrong_types("gemini", documents[i], true);
        wrong_types("gemini", documents[i], false);
    }
    wrong_types_of("gemini", PROVIDER_LIST, "{\"models\":[{\"name\":\"models/a\"}]}");
    wrong_types_of("gemini", PROVIDER_EMBED,
                   "{\"embeddings\":[{\"values\":[1,2]},{\"values\":[3,4]}],"
                   "\"usageMetadata\":{\"promptTokenCount\":1},\"error\":null}");
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    check_memory_failures("gemini", FIRST LAST, "2, 3, 5");
    for (unsigned long k = 1; k < 10; k++) {
        const struct provider *provider = provider_find("gemini");
        struct provider_call call = plain_call();
        struct provider_request request = {0};
        struct err err = {0};
        mem_fail_at(k);
        int rc = provider->build(provider, &call, &request, &err);
        mem_fail_at(0);
        assert_true(rc == 0 || rc == -ENOMEM);
        provider_request_release(&request);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_succeeds_with_finish_reason),
        cmocka_unit_test(output_tokens_add_the_thoughts),
        cmocka_unit_test(usage_is_a_running_total_and_may_come_after_the_finish),
        cmocka_unit_test(thought_parts_go_to_reasoning),
        cmocka_unit_test(blocked_prompt_with_status_200_is_refused),
        cmocka_unit_test(finish_reasons_are_mapped_and_unknown_ones_are_other),
        cmocka_unit_test(truncated_stream_is_never_a_success),
        cmocka_unit_test(raw_json_error_inside_a_stream_is_an_error),
        cmocka_unit_test(stream_without_alt_sse_is_a_json_array_and_is_read),
        cmocka_unit_test(whole_answer_without_finish_reason_is_no_success),
        cmocka_unit_test(errors_have_their_classes),
        cmocka_unit_test(request_is_exact),
        cmocka_unit_test(plain_request_goes_to_generate_content),
        cmocka_unit_test(model_is_encoded_in_the_path),
        cmocka_unit_test(models_are_listed_without_their_prefix),
        cmocka_unit_test(list_that_is_none_is_an_error),
        cmocka_unit_test(stop_strings_and_seed_are_sent),
        cmocka_unit_test(images_are_inline_or_by_their_address),
        cmocka_unit_test(effort_is_a_level_or_a_budget_by_the_models_name),
        cmocka_unit_test(model_without_system_prompt_gets_it_before_the_prompt),
        cmocka_unit_test(headers_of_the_provider_are_sent),
        cmocka_unit_test(texts_are_embedded_in_a_batch_that_names_the_model_in_each),
        cmocka_unit_test(vectors_come_in_the_order_of_the_texts),
        cmocka_unit_test(vectors_that_were_cut_have_unit_length_again),
        cmocka_unit_test(vectors_that_do_not_match_the_texts_are_bad_response),
        cmocka_unit_test(vectors_of_another_size_than_asked_for_are_refused),
        cmocka_unit_test(empty_text_is_refused_before_it_is_sent),
        cmocka_unit_test(finish_message_is_told),
        cmocka_unit_test(thoughts_that_eat_the_output_limit_say_so),
        cmocka_unit_test(structured_output_arrives_as_text),
        cmocka_unit_test(every_split_of_a_stream_gives_the_same),
        cmocka_unit_test(nulls_and_wrong_types_never_crash),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
