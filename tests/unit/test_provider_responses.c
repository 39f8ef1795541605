/* OpenAI's Responses API: bytes in, reply out. */
#include <stdio.h>

#include "tests/unit/provider_check.h"

#define EVENT(type, rest) "event: " type "\ndata: {\"type\":\"" type "\"," rest "}\n\n"
#define HEAD                                                                                       \
    EVENT("response.created",                                                                      \
          "\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"object\":\"response\","         \
          "\"status\":\"in_progress\",\"model\":\"gpt-6.1-sol\",\"output\":[]}")                   \
    EVENT("response.output_item.added",                                                            \
          "\"sequence_number\":2,\"output_index\":0,\"item\":{\"type\":\"message\",\"id\":"        \
          "\"msg_1\",\"role\":\"assistant\",\"content\":[]}")
#define TEXT(text)                                                                                 \
    EVENT("response.output_text.delta",                                                            \
          "\"sequence_number\":4,\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,"    \
          "\"delta\":\"" text "\",\"logprobs\":[]")
#define USAGE                                                                                      \
    "\"usage\":{\"input_tokens\":60,\"input_tokens_details\":{\"cached_tokens\":40,"               \
    "\"cache_write_tokens\":8},\"output_tokens\":30,\"output_tokens_details\":"                    \
    "{\"reasoning_tokens\":18},\"total_tokens\":90}"
#define END(type, members)                                                                         \
    EVENT("response." type, "\"sequence_number\":9,\"response\":{\"id\":\"resp_1\",\"object\":"    \
                            "\"response\",\"model\":\"gpt-6.1-sol\"," members "," USAGE "}")
#define COMPLETED END("completed", "\"status\":\"completed\",\"error\":null,\"output\":[]")
#define WHOLE(members)                                                                             \
    "{\"id\":\"resp_1\",\"object\":\"response\",\"model\":\"gpt-6.1-sol\"," members "," USAGE "}"
#define MESSAGE(content)                                                                           \
    "{\"type\":\"message\",\"id\":\"msg_1\",\"role\":\"assistant\",\"status\":\"completed\","      \
    "\"content\":[" content "]}"
#define OUTPUT_TEXT(text) "{\"type\":\"output_text\",\"text\":\"" text "\",\"annotations\":[]}"

static int setup(void **state)
{
    (void)state;
    expected_call.responses = true;
    return 0;
}

static void stream_succeeds_with_its_terminal_event(void **state)
{
    (void)state;
    struct provider_reply reply = stream("openai", HEAD TEXT("4 C") TEXT(" and rain.") COMPLETED);
    assert_success(&reply, "4 C and rain.");
    assert_int_equal(reply.finish, FINISH_DONE);
    assert_string_equal(reply.model, "gpt-6.1-sol");
    assert_string_equal(reply.request_id, "resp_1");
    provider_reply_release(&reply);
}

static void usage_includes_cached_written_and_reasoning_tokens(void **state)
{
    (void)state;
    struct provider_reply reply = stream("openai", HEAD TEXT("Hi") COMPLETED);
    assert_int_equal(reply.prompt_tokens, 60);
    assert_int_equal(reply.cached_tokens, 40);
    assert_int_equal(reply.cache_write_tokens, 8);
    assert_int_equal(reply.output_tokens, 30);
    assert_int_equal(reply.reasoning_tokens, 18);
    provider_reply_release(&reply);
}

static void text_that_the_terminal_event_repeats_is_not_read_twice(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "openai", HEAD TEXT("Hi") EVENT("response.output_text.done", "\"text\":\"Hi\"")
                      END("completed",
                          "\"status\":\"completed\",\"output\":[" MESSAGE(OUTPUT_TEXT("Hi")) "]"));
    assert_success(&reply, "Hi");
    provider_reply_release(&reply);
    /* Some servers send no deltas. */
    reply =
        stream("openai-compatible",
               HEAD END("completed",
                        "\"status\":\"completed\",\"output\":[" MESSAGE(OUTPUT_TEXT("Hi")) "]"));
    assert_success(&reply, "Hi");
    provider_reply_release(&reply);
}

static void whole_answer_is_read(void **state)
{
    (void)state;
    struct provider_reply reply = body(
        "openai",
        WHOLE("\"status\":\"completed\",\"error\":null,\"incomplete_details\":null,\"output\":["
              "{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[{\"type\":\"summary_text\","
              "\"text\":\"hm\"}],\"encrypted_content\":\"gAAA\"}," MESSAGE(
                  OUTPUT_TEXT("4 C") "," OUTPUT_TEXT(" and rain.")) "]"));
    assert_success(&reply, "4 C and rain.");
    assert_string_equal(reasoning_of(&reply), "hm");
    assert_int_equal(reply.output_tokens, 30);
    provider_reply_release(&reply);
}

static void reasoning_summaries_are_kept_apart(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "openai", HEAD EVENT("response.reasoning_summary_part.added", "\"summary_index\":0")
                      EVENT("response.reasoning_summary_text.delta", "\"delta\":\"a\"")
                          EVENT("response.reasoning_summary_part.added", "\"summary_index\":1")
                              EVENT("response.reasoning_summary_text.delta", "\"delta\":\"b\"")
                                  TEXT("Hi") COMPLETED);
    assert_success(&reply, "Hi");
    assert_string_equal(reasoning_of(&reply), "a\n\nb");
    provider_reply_release(&reply);
}

static void incomplete_has_its_reasons(void **state)
{
    (void)state;
    static const struct {
        const char *reason;
        enum finish finish;
        enum error_class class_;
    } cases[] = {
        {"{\"reason\":\"max_output_tokens\"}", FINISH_LENGTH, CLASS_NONE},
        {"{\"reason\":\"content_filter\"}", FINISH_FILTERED, CLASS_REFUSED},
        {"{\"reason\":\"new\"}", FINISH_OTHER, CLASS_NONE},
        {"null", FINISH_OTHER, CLASS_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[4096];
        snprintf(text, sizeof text,
                 "%sevent: response.incomplete\ndata: {\"type\":"
                 "\"response.incomplete\",\"response\":{\"status\":\"incomplete\","
                 "\"incomplete_details\":%s,\"output\":[]}}\n\n",
                 HEAD TEXT("Hi"), cases[i].reason);
        struct provider_reply reply = stream("openai", text);
        assert_int_equal(reply.finish, cases[i].finish);
        assert_int_equal(reply.error, cases[i].class_);
        provider_reply_release(&reply);
    }
}

static void reasoning_that_eats_the_output_budget_is_no_answer(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("openai", HEAD END("incomplete",
                                  "\"status\":\"incomplete\",\"incomplete_details\":{\"reason\":"
                                  "\"max_output_tokens\"},\"output\":[{\"type\":\"reasoning\","
                                  "\"summary\":[]}]"));
    assert_error(&reply, CLASS_BAD_REQUEST);
    assert_non_null(strstr(reply.error_text, "max_tokens"));
    provider_reply_release(&reply);
}

static void quirk_failed_with_status_200_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *error;
        enum error_class class_;
    } cases[] = {
        {"{\"code\":\"server_error\",\"message\":\"oops\"}", CLASS_RETRY},
        {"{\"code\":\"rate_limit_exceeded\",\"message\":\"slow\"}", CLASS_RATE_LIMITED},
        {"{\"code\":\"invalid_prompt\",\"message\":\"no\"}", CLASS_REFUSED},
        {"{\"code\":\"bio_policy\",\"message\":\"no\"}", CLASS_REFUSED},
        {"{\"code\":\"data_residency_mismatch\",\"message\":\"no\"}", CLASS_BAD_REQUEST},
        {"{\"code\":\"invalid_image_url\",\"message\":\"no\"}", CLASS_BAD_REQUEST},
        {"{\"code\":\"image_content_policy_violation\",\"message\":\"no\"}", CLASS_REFUSED},
        {"{\"code\":\"insufficient_quota\",\"message\":\"pay\"}", CLASS_QUOTA},
        {"{\"code\":\"new_code\",\"message\":\"who knows\"}", CLASS_RETRY},
        {"null", CLASS_RETRY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[4096];
        snprintf(text, sizeof text,
                 "%sdata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\","
                 "\"error\":%s,\"output\":[]}}\n\n",
                 HEAD TEXT("Hi"), cases[i].error);
        struct provider_reply reply = stream("openai", text);
        assert_error(&reply, cases[i].class_);
        provider_reply_release(&reply);
        snprintf(text, sizeof text, "{\"status\":\"failed\",\"error\":%s,\"output\":[]}",
                 cases[i].error);
        reply = body("openai", text);
        assert_int_equal(reply.finished, false);
        assert_true(reply.error != CLASS_NONE);
        provider_reply_release(&reply);
    }
}

static void error_event_is_flat(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "openai", HEAD TEXT("Hi") EVENT("error", "\"code\":\"rate_limit_exceeded\",\"message\":"
                                                 "\"Please try again in 1.5s.\",\"param\":null,"
                                                 "\"sequence_number\":5"));
    assert_error(&reply, CLASS_RATE_LIMITED);
    assert_int_equal(reply.retry_after_ms, 1500);
    provider_reply_release(&reply);
    reply = stream("openai", HEAD "data: {\"error\":{\"message\":\"nested\",\"code\":500}}\n\n");
    assert_error(&reply, CLASS_RETRY);
    provider_reply_release(&reply);
}

static void stream_without_its_terminal_event_is_no_success(void **state)
{
    (void)state;
    struct provider_reply reply = stream("openai", HEAD TEXT("Hi"));
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
    reply = stream("openai", HEAD TEXT("Hi") "data: [DONE]\n\n"); /* that proves nothing here */
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void done_after_the_terminal_event_is_tolerated(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("openai", HEAD TEXT("Hi") COMPLETED "data: [DONE]\n\n" TEXT("more"));
    assert_success(&reply, "Hi");
    provider_reply_release(&reply);
}

static void refusal_is_refused_with_its_text(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("openai", HEAD EVENT("response.refusal.delta", "\"delta\":\"I can't\"")
                             EVENT("response.refusal.delta", "\"delta\":\" do that.\"") COMPLETED);
    assert_error(&reply, CLASS_REFUSED);
    assert_non_null(strstr(reply.error_text, "I can't do that."));
    assert_int_equal(reply.output_tokens, 30);
    provider_reply_release(&reply);
    reply = body("openai", WHOLE("\"status\":\"completed\",\"output\":[" MESSAGE(
                               "{\"type\":\"refusal\",\"refusal\":\"No.\"}") "]"));
    assert_error(&reply, CLASS_REFUSED);
    provider_reply_release(&reply);
}

static void function_call_alone_is_no_answer(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("openai", EVENT("response.output_item.added",
                               "\"item\":{\"type\":\"function_call\"}") COMPLETED);
    assert_error(&reply, CLASS_BAD_RESPONSE);
    assert_int_equal(reply.finish, FINISH_TOOLS);
    provider_reply_release(&reply);
}

static void response_that_is_to_be_fetched_later_is_no_answer(void **state)
{
    (void)state;
    static const char *const statuses[] = {"in_progress", "queued", "cancelled", ""};
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"status\":\"%s\",\"output\":[]}", statuses[i]);
        struct provider_reply reply = body("openai", text);
        assert_true(reply.error != CLASS_NONE);
        assert_false(reply.finished);
        provider_reply_release(&reply);
    }
    struct provider_reply reply = body("openai", "{}");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void stream_cut_anywhere_reads_the_same(void **state)
{
    (void)state;
    check_every_split("openai", HEAD TEXT("Gr\xc3\xbc\xc3\x9f") TEXT("\\ud83d\\ude00") COMPLETED);
    check_every_split("openai",
                      HEAD TEXT("a") EVENT("error", "\"code\":\"server_error\",\"message\""
                                                    ":\"x\""));
    check_every_split("openai", HEAD EVENT("response.refusal.delta", "\"delta\":\"No\"") COMPLETED
                      "data: [DONE]");
}

static void truncated_stream_is_never_a_success(void **state)
{
    (void)state;
    static const char whole[] = HEAD TEXT("Hi") COMPLETED;
    for (size_t len = 0; len < sizeof whole - 3; len += 3) {
        char *cut = strndup(whole, len);
        struct provider_reply reply;
        reply_begin(&reply);
        feed_pieces("openai", &reply, cut, len, len + 1);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
        free(cut);
    }
}

static void request_is_exact(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    static const struct provider_image image = {
        .url = "", .media_type = "image/png", .data = "AAAA"};
    call.responses = true;
    call.system = "Be terse.";
    call.max_tokens = 800;
    call.temperature = 0.5;
    call.effort = "low";
    call.has_seed = true; /* there are none here */
    call.images = &image;
    call.n_images = 1;
    call.json_schema = "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}";
    check_request(
        "openai", &call, "https://api.openai.com/v1/responses",
        "Content-Type: application/json\nAuthorization: Bearer " KEY "\n",
        "{\"model\":\"m\",\"instructions\":\"Be terse.\",\"input\":[{\"role\":\"user\",\"content\":"
        "[{\"type\":\"input_text\",\"text\":\"Hi\"},{\"type\":\"input_image\",\"image_url\":"
        "\"data:image/png;base64,AAAA\"}]}],\"max_output_tokens\":800,\"temperature\":0.5,"
        "\"reasoning\":{\"effort\":\"low\"},\"text\":{\"format\":{\"type\":\"json_schema\","
        "\"name\":\"answer\",\"strict\":true,\"schema\":{\"type\":\"object\",\"properties\":{},"
        "\"additionalProperties\":false}}},\"store\":false,\"stream\":true,"
        "\"stream_options\":{\"include_obfuscation\":false}}");
}

static void any_compatible_server_can_be_asked_so(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.responses = true;
    call.stream = false;
    call.base_url = "http://h/v1";
    check_request("vllm", &call, "http://h/v1/responses",
                  "Content-Type: application/json\nAuthorization: Bearer " KEY "\n",
                  "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":"
                  "\"input_text\",\"text\":\"Hi\"}]}],\"store\":false,\"stream\":false}");
}

static void stop_strings_are_refused_with_their_cure(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    struct err err;
    call.responses = true;
    call.stop = (const char *const[]){"END"};
    call.n_stop = 1;
    assert_int_equal(build_error("openai", &call, &err), -EINVAL);
    assert_non_null(strstr(err.text, "endpoint: chat"));
}

static void nulls_and_wrong_types_never_crash(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{\"type\":\"response.created\",\"response\":{\"id\":\"i\",\"model\":\"m\"}}",
        "{\"type\":\"response.output_text.delta\",\"delta\":\"x\"}",
        "{\"type\":\"response.output_item.added\",\"item\":{\"type\":\"function_call\"}}",
        "{\"type\":\"error\",\"code\":\"c\",\"message\":\"m\",\"param\":null}",
        "{\"type\":\"response.completed\",\"response\":" WHOLE(
            "\"status\":\"completed\",\"error\":null,\"incomplete_details\":{\"reason\":\"r\"},"
            "\"output\":[{\"type\":\"reasoning\",\"summary\":[{\"type\":\"summary_text\",\"text\":"
            "\"s\"}]}," MESSAGE(
                OUTPUT_TEXT("Hi") ",{\"type\":\"refusal\",\"refusal\":\"n\"}") "]") "}",
    };
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        wrong_types("openai", events[i], true);
    wrong_types("openai",
                WHOLE("\"status\":\"incomplete\",\"error\":null,\"incomplete_details\":"
                      "{\"reason\":\"r\"},\"output\":[" MESSAGE(OUTPUT_TEXT("Hi")) "]"),
                false);
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    check_memory_failures("openai",
                          HEAD TEXT("0123456789012345678901234567890123456789")
                              TEXT("0123456789012345678901234567890123456789") COMPLETED,
                          "0123456789012345678901234567890123456789"
                          "0123456789012345678901234567890123456789");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_succeeds_with_its_terminal_event),
        cmocka_unit_test(usage_includes_cached_written_and_reasoning_tokens),
        cmocka_unit_test(text_that_the_terminal_event_repeats_is_not_read_twice),
        cmocka_unit_test(whole_answer_is_read),
        cmocka_unit_test(reasoning_summaries_are_kept_apart),
        cmocka_unit_test(incomplete_has_its_reasons),
        cmocka_unit_test(reasoning_that_eats_the_output_budget_is_no_answer),
        cmocka_unit_test(quirk_failed_with_status_200_is_an_error),
        cmocka_unit_test(error_event_is_flat),
        cmocka_unit_test(stream_without_its_terminal_event_is_no_success),
        cmocka_unit_test(done_after_the_terminal_event_is_tolerated),
        cmocka_unit_test(refusal_is_refused_with_its_text),
        cmocka_unit_test(function_call_alone_is_no_answer),
        cmocka_unit_test(response_that_is_to_be_fetched_later_is_no_answer),
        cmocka_unit_test(stream_cut_anywhere_reads_the_same),
        cmocka_unit_test(truncated_stream_is_never_a_success),
        cmocka_unit_test(request_is_exact),
        cmocka_unit_test(any_compatible_server_can_be_asked_so),
        cmocka_unit_test(stop_strings_are_refused_with_their_cure),
        cmocka_unit_test(nulls_and_wrong_types_never_crash),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
