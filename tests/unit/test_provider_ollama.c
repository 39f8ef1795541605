/* Ollama's /api/chat: bytes in, reply out. */
#include "tests/unit/provider_check.h"

#define LINE(content)                                                                              \
    "{\"model\":\"qwen3:8b\",\"created_at\":\"2026-11-20T10:00:00.1Z\",\"message\":"               \
    "{\"role\":\"assistant\",\"content\":\"" content "\"},\"done\":false}\n"
#define DONE_WITH(rest)                                                                            \
    "{\"model\":\"qwen3:8b\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":"      \
    "true" rest "}\n"
#define METRICS                                                                                    \
    ",\"total_duration\":900000000,\"load_duration\":50000000,\"prompt_eval_count\":26,"           \
    "\"prompt_eval_duration\":130500000,\"eval_count\":12,\"eval_duration\":600000000"
#define DONE DONE_WITH(",\"done_reason\":\"stop\"" METRICS)

static void stream_succeeds_with_done(void **state)
{
    (void)state;
    struct provider_reply reply = stream("ollama", LINE("4") LINE(" C") DONE);
    assert_success(&reply, "4 C");
    assert_int_equal(reply.finish, FINISH_DONE);
    assert_string_equal(reply.model, "qwen3:8b");
    provider_reply_release(&reply);
}

static void nanoseconds_become_milliseconds(void **state)
{
    (void)state;
    struct provider_reply reply = stream("ollama", LINE("4") DONE);
    assert_true(reply.load_ms > 49.999 && reply.load_ms < 50.001);
    assert_true(reply.prompt_ms > 130.499 && reply.prompt_ms < 130.501);
    assert_true(reply.generate_ms > 599.999 && reply.generate_ms < 600.001);
    assert_int_equal(reply.prompt_tokens, 26);
    assert_int_equal(reply.output_tokens, 12);
    assert_int_equal(reply.cached_tokens, -1);
    provider_reply_release(&reply);
}

static void zero_metrics_that_are_left_out_are_zero(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("ollama", LINE("4") DONE_WITH(",\"done_reason\":\"stop\",\"eval_count\":12"));
    assert_success(&reply, "4");
    assert_int_equal(reply.output_tokens, 12);
    assert_int_equal(reply.prompt_tokens, 0);
    assert_true(reply.load_ms == 0);
    provider_reply_release(&reply);
    reply = stream("ollama", LINE("4") DONE_WITH(""));
    assert_success(&reply, "4");
    assert_int_equal(reply.output_tokens, -1);
    assert_true(reply.load_ms == -1);
    provider_reply_release(&reply);
}

static void last_line_needs_no_line_feed(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "ollama",
        LINE("4") "{\"message\":{\"content\":\"!\"},\"done\":true,\"done_reason\":\"stop\"}");
    assert_success(&reply, "4!");
    provider_reply_release(&reply);
}

static void done_reasons_are_mapped(void **state)
{
    (void)state;
    static const struct {
        const char *stream;
        enum finish finish;
        enum error_class class_;
    } cases[] = {
        {LINE("4") DONE_WITH(",\"done_reason\":\"stop\""), FINISH_DONE, CLASS_NONE},
        {LINE("4") DONE_WITH(",\"done_reason\":\"length\""), FINISH_LENGTH, CLASS_NONE},
        {LINE("4") DONE_WITH(",\"done_reason\":\"new\""), FINISH_OTHER, CLASS_NONE},
        {LINE("4") DONE_WITH(",\"done_reason\":null"), FINISH_DONE, CLASS_NONE},
        {LINE("4") DONE_WITH(""), FINISH_DONE, CLASS_NONE},
        {DONE_WITH(",\"done_reason\":\"length\""), FINISH_LENGTH, CLASS_BAD_REQUEST},
        {"{\"message\":{\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
         "\"arguments\":{}}}]},\"done\":false}\n" DONE,
         FINISH_TOOLS, CLASS_BAD_RESPONSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = stream("ollama", cases[i].stream);
        assert_int_equal(reply.finish, cases[i].finish);
        assert_int_equal(reply.error, cases[i].class_);
        assert_int_equal(reply.finished, cases[i].class_ == CLASS_NONE);
        provider_reply_release(&reply);
    }
}

static void loading_or_unloading_a_model_is_no_success(void **state)
{
    (void)state;
    struct provider_reply reply = stream("ollama", DONE_WITH(",\"done_reason\":\"load\""));
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
    reply = body("ollama", DONE_WITH(",\"done_reason\":\"unload\""));
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void error_line_in_a_stream_with_status_200_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *stream;
        enum error_class class_;
    } cases[] = {
        {LINE("4") "{\"error\":\"an error was encountered while running the model\"}\n",
         CLASS_RETRY},
        {LINE("4") "{\"error\":\"x\"}\n" DONE, CLASS_RETRY},
        {"{\"error\":\"model \\\"x\\\" not found, try pulling it first\"}", CLASS_BAD_REQUEST},
        {"{\"error\":\"server busy, please try again.  maximum pending requests exceeded\"}",
         CLASS_OVERLOADED},
        {"{\"error\":\"the input length exceeds the context length\"}", CLASS_CONTEXT_TOO_LONG},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = stream("ollama", cases[i].stream);
        assert_error(&reply, cases[i].class_);
        provider_reply_release(&reply);
    }
}

static void truncated_stream_is_never_a_success(void **state)
{
    (void)state;
    static const char whole[] = LINE("4") LINE(" C") DONE;
    for (size_t len = 0; len < sizeof whole - 3; len++) {
        char *cut = strndup(whole, len);
        struct provider_reply reply = stream("ollama", cut);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
        free(cut);
    }
}

static void thinking_goes_to_reasoning(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "ollama",
        "{\"message\":{\"content\":\"\",\"thinking\":\"hm\"},\"done\":false}\n" LINE("4") DONE);
    assert_success(&reply, "4");
    assert_string_equal(reasoning_of(&reply), "hm");
    provider_reply_release(&reply);
}

static void whole_answer_is_read(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("ollama", "{\"model\":\"q\",\"message\":{\"role\":\"assistant\",\"content\":\"4 C\"},"
                       "\"done\":true,\"done_reason\":\"stop\"" METRICS "}");
    assert_success(&reply, "4 C");
    assert_int_equal(reply.output_tokens, 12);
    provider_reply_release(&reply);
}

static void stream_that_does_not_say_so_is_read_as_one(void **state)
{
    (void)state;
    struct provider_reply reply = body("ollama", LINE("4") LINE(" C") DONE);
    assert_success(&reply, "4 C");
    provider_reply_release(&reply);
    reply = body("ollama", LINE("4") LINE(" C"));
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void whole_answer_without_done_is_no_success(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"message\":{\"content\":\"x\"},\"done\":false}",
        "{\"message\":{\"content\":\"x\"}}",
        "{\"message\":{\"content\":\"x\"},\"done\":\"true\"}",
        "{}",
        "[]",
        "",
        "Ollama is running",
        "<html><title>x</title>",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct provider_reply reply = body("ollama", bodies[i]);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
    }
}

static void errors_have_their_classes(void **state)
{
    (void)state;
    static const struct error_case cases[] = {
        {400, NULL, "{\"error\":\"option num_ctx must be of type integer\"}", CLASS_BAD_REQUEST,
         -1},
        {400, NULL, "{\"error\":\"\\\"x\\\" does not support thinking\"}", CLASS_BAD_REQUEST, -1},
        {400, NULL, "{\"error\":\"the input length exceeds the context length\"}",
         CLASS_CONTEXT_TOO_LONG, -1},
        {404, NULL, "{\"error\":\"model \\\"x\\\" not found, try pulling it first\"}",
         CLASS_BAD_REQUEST, -1},
        {429, NULL, "{\"error\":\"too many requests\"}", CLASS_RATE_LIMITED, -1},
        {499, NULL, "{\"error\":\"cancelled\"}", CLASS_RETRY, -1},
        {500, NULL, "{\"error\":\"llama runner process has terminated\"}", CLASS_RETRY, -1},
        {500, NULL,
         "{\"error\":\"model requires more system memory (9 GiB) than is available (2 GiB)\"}",
         CLASS_BAD_REQUEST, -1},
        {502, NULL, "{\"error\":\"x\"}", CLASS_RETRY, -1},
        {503, NULL,
         "{\"error\":\"server busy, please try again.  maximum pending requests exceeded\"}",
         CLASS_OVERLOADED, -1},
        {401, NULL, "{\"error\":\"unauthorized " KEY "\"}", CLASS_AUTH, -1},
        {404, NULL, "404 page not found", CLASS_BAD_REQUEST, -1},
    };
    check_errors("ollama", cases, sizeof cases / sizeof *cases);
}

static void request_is_exact(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.system = "Be terse.";
    call.temperature = 0;
    call.max_tokens = 256;
    call.context = 8192;
    call.json_schema = "{\"type\":\"object\"}";
    check_request("ollama", &call, "http://127.0.0.1:11434/api/chat",
                  "Content-Type: application/json\nAuthorization: Bearer " KEY "\n",
                  "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"Be terse.\"},"
                  "{\"role\":\"user\",\"content\":\"Hi\"}],\"format\":{\"type\":\"object\"},"
                  "\"truncate\":false,\"options\":{\"num_ctx\":8192,\"num_predict\":256,"
                  "\"temperature\":0},\"stream\":true}");
}

static void plain_request_says_stream_false_because_the_default_is_true(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.key = NULL;
    call.stream = false;
    call.base_url = "http://127.0.0.1:9/api/";
    check_request("ollama", &call, "http://127.0.0.1:9/api/chat",
                  "Content-Type: application/json\n",
                  "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                  "\"truncate\":false,\"options\":{},\"stream\":false}");
}

static void num_ctx_is_the_models_context_in_every_call(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.context = 4096;
    struct provider_request request = build("ollama", &call);
    assert_non_null(strstr(request.body.data, "\"num_ctx\":4096"));
    provider_request_release(&request);
}

static void models_are_listed(void **state)
{
    (void)state;
    const struct provider *provider = provider_find("ollama");
    struct provider_call call = plain_call();
    struct provider_request request = {0};
    struct buf names = {0};
    struct err err;
    call.key = NULL;
    assert_int_equal(provider->list(provider, &call, &request, &err), 0);
    assert_string_equal(request.url.data, "http://127.0.0.1:11434/api/tags");
    static const char answer[] = "{\"models\":[{\"name\":\"qwen3:8b\",\"model\":\"qwen3:8b\"}]}";
    assert_int_equal(provider->list_parse(provider, answer, sizeof answer - 1, &names), 0);
    assert_string_equal(names.data, "qwen3:8b\n");
    assert_int_equal(provider->list_parse(provider, "{\"models\":null}", 15, &names), 0);
    buf_release(&names);
    provider_request_release(&request);
}

static void nulls_and_wrong_types_never_crash(void **state)
{
    (void)state;
    static const char document[] =
        "{\"model\":\"q\",\"message\":{\"content\":\"x\",\"thinking\":\"y\",\"tool_calls\":"
        "[{\"function\":{}}]},\"done\":true,\"done_reason\":\"stop\"" METRICS ",\"error\":null}";
    wrong_types("ollama", document, true);
    wrong_types("ollama", document, false);
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    check_memory_failures("ollama", LINE("4") LINE(" C") DONE, "4 C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_succeeds_with_done),
        cmocka_unit_test(nanoseconds_become_milliseconds),
        cmocka_unit_test(zero_metrics_that_are_left_out_are_zero),
        cmocka_unit_test(last_line_needs_no_line_feed),
        cmocka_unit_test(done_reasons_are_mapped),
        cmocka_unit_test(loading_or_unloading_a_model_is_no_success),
        cmocka_unit_test(error_line_in_a_stream_with_status_200_is_an_error),
        cmocka_unit_test(truncated_stream_is_never_a_success),
        cmocka_unit_test(thinking_goes_to_reasoning),
        cmocka_unit_test(whole_answer_is_read),
        cmocka_unit_test(stream_that_does_not_say_so_is_read_as_one),
        cmocka_unit_test(whole_answer_without_done_is_no_success),
        cmocka_unit_test(errors_have_their_classes),
        cmocka_unit_test(request_is_exact),
        cmocka_unit_test(plain_request_says_stream_false_because_the_default_is_true),
        cmocka_unit_test(num_ctx_is_the_models_context_in_every_call),
        cmocka_unit_test(models_are_listed),
        cmocka_unit_test(nulls_and_wrong_types_never_crash),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
