/* LM Studio: its native API, and when chat completions are asked instead. */
#include <stdio.h>

#include "tests/unit/provider_check.h"

#define EVENT(type, rest) "event: " type "\ndata: {\"type\":\"" type "\"" rest "}\n\n"
#define START EVENT("chat.start", ",\"model_instance_id\":\"qwen3-8b:2\"")
#define LOADED                                                                                     \
    EVENT("model_load.start", ",\"model_instance_id\":\"qwen3-8b:2\"")                             \
    EVENT("model_load.progress", ",\"progress\":0.5")                                              \
    EVENT("model_load.end", ",\"load_time_seconds\":3.25")
#define TEXT(text)                                                                                 \
    EVENT("message.start", "")                                                                     \
    EVENT("message.delta", ",\"content\":\"" text "\"") EVENT("message.end", "")
#define STATS                                                                                      \
    "\"stats\":{\"input_tokens\":24,\"total_output_tokens\":5,\"reasoning_output_tokens\":2,"      \
    "\"tokens_per_second\":50.0,\"time_to_first_token_seconds\":0.125"
#define RESULT(output, more)                                                                       \
    "{\"model_instance_id\":\"qwen3-8b:2\",\"output\":[" output "]," STATS more                    \
    "},\"response_id\":\"resp_1\"}"
#define MESSAGE "{\"type\":\"message\",\"content\":\"Hi\"}"
#define END(more) EVENT("chat.end", ",\"result\":" RESULT(MESSAGE, more))

static void native_stream_succeeds_with_chat_end(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("lmstudio", START EVENT("prompt_processing.progress", ",\"progress\":1")
                               EVENT("reasoning.delta", ",\"content\":\"hm\"") TEXT("Hi") END(""));
    assert_success(&reply, "Hi");
    assert_string_equal(reasoning_of(&reply), "hm");
    assert_int_equal(reply.finish, FINISH_DONE);
    assert_string_equal(reply.model, "qwen3-8b"); /* its second instance */
    assert_string_equal(reply.request_id, "resp_1");
    provider_reply_release(&reply);
}

static void figures_of_the_native_api_are_taken(void **state)
{
    (void)state;
    struct provider_reply reply = stream("lmstudio", START TEXT("Hi") END(""));
    assert_int_equal(reply.prompt_tokens, 24);
    assert_int_equal(reply.output_tokens, 5);
    assert_int_equal(reply.reasoning_tokens, 2);
    assert_true(reply.prompt_ms == 125);
    assert_true(reply.generate_ms == 100); /* 5 tokens at 50 a second */
    assert_true(reply.load_ms == 0);       /* it was loaded */
    provider_reply_release(&reply);
}

static void load_time_comes_as_an_event_or_in_the_figures(void **state)
{
    (void)state;
    struct provider_reply reply = stream("lmstudio", START LOADED TEXT("Hi") END(""));
    assert_success(&reply, "Hi");
    assert_true(reply.load_ms == 3250);
    provider_reply_release(&reply);
    reply = body("lmstudio", RESULT(MESSAGE, ",\"model_load_time_seconds\":1.5"));
    assert_success(&reply, "Hi");
    assert_true(reply.load_ms == 1500);
    provider_reply_release(&reply);
}

static void native_whole_answer_is_read(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("lmstudio", RESULT("{\"type\":\"reasoning\",\"content\":\"short\"}," MESSAGE, ""));
    assert_success(&reply, "Hi");
    assert_string_equal(reasoning_of(&reply), "short");
    assert_int_equal(reply.prompt_tokens, 24);
    provider_reply_release(&reply);
}

static void error_before_chat_end_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *error;
        enum error_class class_;
    } cases[] = {
        {"{\"type\":\"internal_error\",\"message\":\"crashed\"}", CLASS_RETRY},
        {"{\"type\":\"invalid_request\",\"message\":\"odd\"}", CLASS_BAD_REQUEST},
        {"{\"type\":\"model_not_found\",\"message\":\"no x\"}", CLASS_BAD_REQUEST},
        {"{\"type\":\"not_implemented\",\"message\":\"odd\"}", CLASS_BAD_REQUEST},
        {"{\"type\":\"job_not_found\",\"message\":\"odd\"}", CLASS_BAD_REQUEST},
        {"{\"type\":\"unknown\",\"message\":\"odd\"}", CLASS_RETRY},
        {"{\"type\":\"unknown\",\"message\":\"Model loading was stopped due to insufficient system "
         "resources.\"}",
         CLASS_BAD_REQUEST},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[2048];
        snprintf(text, sizeof text, "%sevent: error\ndata: {\"type\":\"error\",\"error\":%s}\n\n%s",
                 START TEXT("Hi"), cases[i].error, END(""));
        struct provider_reply reply = stream("lmstudio", text);
        assert_error(&reply, cases[i].class_);
        provider_reply_release(&reply);
    }
}

static void answer_that_filled_its_limit_ended_by_length(void **state)
{
    (void)state;
    expected_call.max_tokens = 5;
    struct provider_reply reply = stream("lmstudio", START TEXT("Hi") END(""));
    assert_success(&reply, "Hi");
    assert_int_equal(reply.finish, FINISH_LENGTH);
    provider_reply_release(&reply);
    expected_call.max_tokens = 6;
    reply = stream("lmstudio", START TEXT("Hi") END(""));
    assert_int_equal(reply.finish, FINISH_DONE);
    provider_reply_release(&reply);
    expected_call.max_tokens = 0;
}

static void reasoning_alone_is_no_answer(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("lmstudio", RESULT("{\"type\":\"reasoning\",\"content\":\"hm\"}", ""));
    assert_error(&reply, CLASS_BAD_REQUEST);
    assert_non_null(strstr(reply.error_text, "max_tokens"));
    provider_reply_release(&reply);
    reply = body("lmstudio", RESULT("{\"type\":\"tool_call\",\"tool\":\"f\"}", ""));
    assert_error(&reply, CLASS_BAD_RESPONSE);
    assert_int_equal(reply.finish, FINISH_TOOLS);
    provider_reply_release(&reply);
}

static void native_stream_without_chat_end_is_no_success(void **state)
{
    (void)state;
    static const char whole[] = START LOADED TEXT("Hi") END("");
    struct provider_reply reply = stream("lmstudio", START TEXT("Hi") "data: [DONE]\n\n");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
    for (size_t len = 0; len < sizeof whole - 3; len++) {
        reply_begin(&reply);
        feed_pieces("lmstudio", &reply, whole, len, len + 1);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
    }
}

static void chat_end_without_a_result_is_no_success(void **state)
{
    (void)state;
    struct provider_reply reply = stream("lmstudio", START TEXT("Hi") EVENT("chat.end", ""));
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
    reply = body("lmstudio", "{\"output\":[]}");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void stream_cut_anywhere_reads_the_same(void **state)
{
    (void)state;
    check_every_split("lmstudio", START LOADED TEXT("Gr\xc3\xbc\xc3\x9f \\ud83d\\ude00") END(""));
    check_every_split("lmstudio",
                      START "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":"
                            "\"internal_error\",\"message\":\"x\"}}\n\n" END(""));
}

static void plain_chat_goes_to_the_native_api(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.key = NULL;
    call.system = "Be terse.";
    call.temperature = 0.25;
    call.max_tokens = 200;
    check_request("lmstudio", &call, "http://127.0.0.1:1234/api/v1/chat",
                  "Content-Type: application/json\n",
                  "{\"model\":\"m\",\"system_prompt\":\"Be terse.\",\"input\":\"Hi\","
                  "\"temperature\":0.25,\"max_output_tokens\":200,\"store\":false,"
                  "\"stream\":true}");
    call = plain_call();
    call.key = NULL;
    call.stream = false;
    call.system = "Be terse.";
    call.no_system = true;
    check_request("lmstudio", &call, "http://127.0.0.1:1234/api/v1/chat",
                  "Content-Type: application/json\n",
                  "{\"model\":\"m\",\"input\":\"Be terse.\\n\\nHi\",\"store\":false,"
                  "\"stream\":false}");
}

static void what_the_native_api_has_no_word_for_goes_to_chat_completions(void **state)
{
    (void)state;
    static const struct provider_image image = {.url = "http://h/a", .media_type = "", .data = ""};
    static const char *const stop[] = {"END"};
    struct provider_call calls[6];
    for (size_t i = 0; i < 6; i++)
        calls[i] = plain_call();
    calls[0].json_schema = "{}";
    calls[1].has_seed = true;
    calls[2].stop = stop;
    calls[2].n_stop = 1;
    calls[3].images = &image;
    calls[3].n_images = 1;
    calls[4].keep_alive = "10m";
    calls[5].responses = true;
    for (size_t i = 0; i < 6; i++) {
        struct provider_request request = build("lmstudio", &calls[i]);
        assert_string_equal(request.url.data, i == 5 ? "http://127.0.0.1:1234/v1/responses"
                                                     : "http://127.0.0.1:1234/v1/chat/completions");
        provider_request_release(&request);
    }
}

static void address_may_name_either_api(void **state)
{
    (void)state;
    static const char *const bases[] = {"http://h:1",        "http://h:1/",
                                        "http://h:1/v1",     "http://h:1/api",
                                        "http://h:1/api/v1", "http://h:1/api/v0/"};
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
        struct provider_call call = plain_call();
        call.base_url = bases[i];
        struct provider_request request = build("lmstudio", &call);
        assert_string_equal(request.url.data, "http://h:1/api/v1/chat");
        provider_request_release(&request);
        call.has_seed = true;
        request = build("lmstudio", &call);
        assert_string_equal(request.url.data, "http://h:1/v1/chat/completions");
        provider_request_release(&request);
    }
}

static void keep_alive_becomes_ttl_in_seconds(void **state)
{
    (void)state;
    static const struct {
        const char *keep_alive, *ttl;
    } cases[] = {
        {"10m", "\"ttl\":600,"}, {"90", "\"ttl\":90,"}, {"1h30m", "\"ttl\":5400,"},
        {"0", "\"ttl\":1,"},     {"-1", NULL},          {"soon", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_call call = plain_call();
        call.keep_alive = cases[i].keep_alive;
        struct provider_request request = build("lmstudio", &call);
        assert_int_equal(strstr(request.body.data, "ttl") != NULL, cases[i].ttl != NULL);
        if (cases[i].ttl != NULL)
            assert_non_null(strstr(request.body.data, cases[i].ttl));
        provider_request_release(&request);
    }
}

static void nulls_and_wrong_types_never_crash(void **state)
{
    (void)state;
    wrong_types(
        "lmstudio",
        RESULT("{\"type\":\"reasoning\",\"content\":\"r\"},{\"type\":\"tool_call\"}," MESSAGE,
               ",\"model_load_time_seconds\":3.2"),
        false);
    wrong_types("lmstudio", "{\"type\":\"chat.end\",\"result\":" RESULT(MESSAGE, "") "}", true);
    wrong_types("lmstudio", "{\"type\":\"message.delta\",\"content\":\"x\"}", true);
    wrong_types("lmstudio", "{\"type\":\"model_load.end\",\"load_time_seconds\":3}", true);
    wrong_types("lmstudio", "{\"type\":\"error\",\"error\":{\"type\":\"t\",\"message\":\"m\"}}",
                true);
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    check_memory_failures("lmstudio",
                          START TEXT("0123456789012345678901234567890123456789")
                              TEXT("0123456789012345678901234567890123456789") END(""),
                          "0123456789012345678901234567890123456789"
                          "0123456789012345678901234567890123456789");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(native_stream_succeeds_with_chat_end),
        cmocka_unit_test(figures_of_the_native_api_are_taken),
        cmocka_unit_test(load_time_comes_as_an_event_or_in_the_figures),
        cmocka_unit_test(native_whole_answer_is_read),
        cmocka_unit_test(error_before_chat_end_is_an_error),
        cmocka_unit_test(answer_that_filled_its_limit_ended_by_length),
        cmocka_unit_test(reasoning_alone_is_no_answer),
        cmocka_unit_test(native_stream_without_chat_end_is_no_success),
        cmocka_unit_test(chat_end_without_a_result_is_no_success),
        cmocka_unit_test(stream_cut_anywhere_reads_the_same),
        cmocka_unit_test(plain_chat_goes_to_the_native_api),
        cmocka_unit_test(what_the_native_api_has_no_word_for_goes_to_chat_completions),
        cmocka_unit_test(address_may_name_either_api),
        cmocka_unit_test(keep_alive_becomes_ttl_in_seconds),
        cmocka_unit_test(nulls_and_wrong_types_never_crash),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
