/* The simulator's wire shapes: each API, each dialect, whole and streamed, and what it refuses. */
#include "tests/integration/sim_client.h"

#define FOUR_TOKENS                                                                                \
    "timing: {prefill_tps: 0, decode_tps: 0}\nrules: [{reply: {text: 'one two three four'}}]\n"
#define TEXT "one two three four"

static int with_four_tokens(void **state)
{
    (void)state;
    scenario_set(FOUR_TOKENS);
    return 0;
}

/* --- whole answers ------------------------------------------------------------------------- */

static void openai_whole_answers_have_the_fields_of_a_chat_completion(void **state)
{
    (void)state;
    struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
    json_t *body = body_json(&answer);
    assert_int_equal(answer.status, 200);
    assert_true(answer.whole);
    assert_has(&answer.head, "application/json");
    assert_has(&answer.head, "x-request-id: ");
    assert_has(&answer.head, "openai-processing-ms: ");
    assert_string_equal(path_str(body, "object"), "chat.completion");
    assert_string_equal(path_str(body, "model"), "m");
    assert_string_equal(path_str(body, "choices.0.message.content"), TEXT);
    assert_string_equal(path_str(body, "choices.0.message.role"), "assistant");
    assert_string_equal(path_str(body, "choices.0.finish_reason"), "stop");
    assert_true(json_is_null(json_path(body, "choices.0.message.refusal")));
    assert_int_equal(path_int(body, "usage.prompt_tokens"), 2); /* 6 bytes */
    assert_int_equal(path_int(body, "usage.completion_tokens"), 4);
    assert_int_equal(path_int(body, "usage.total_tokens"), 6);
    assert_int_equal(path_int(body, "usage.prompt_tokens_details.cached_tokens"), 0);
    json_decref(body);
    answer_release(&answer);
}

static void anthropic_whole_answers_have_the_fields_of_a_message(void **state)
{
    (void)state;
    struct answer answer = post(ANTHROPIC_PATH, ANTHROPIC_HI "}");
    json_t *body = body_json(&answer);
    assert_int_equal(answer.status, 200);
    assert_has(&answer.head, "request-id: ");
    assert_has(&answer.head, "anthropic-ratelimit-requests-remaining: ");
    assert_string_equal(path_str(body, "type"), "message");
    assert_string_equal(path_str(body, "content.0.type"), "text");
    assert_string_equal(path_str(body, "content.0.text"), TEXT);
    assert_string_equal(path_str(body, "stop_reason"), "end_turn");
    assert_int_equal(path_int(body, "usage.input_tokens"), 2);
    assert_int_equal(path_int(body, "usage.cache_read_input_tokens"), 0);
    assert_int_equal(path_int(body, "usage.output_tokens"), 4);
    json_decref(body);
    answer_release(&answer);
}

static void gemini_whole_answers_have_candidates_and_usage(void **state)
{
    (void)state;
    struct answer answer = post(GEMINI_PATH, GEMINI_HI "}");
    json_t *body = body_json(&answer);
    assert_int_equal(answer.status, 200);
    assert_string_equal(path_str(body, "candidates.0.content.parts.0.text"), TEXT);
    assert_string_equal(path_str(body, "candidates.0.content.role"), "model");
    assert_string_equal(path_str(body, "candidates.0.finishReason"), "STOP");
    assert_string_equal(path_str(body, "modelVersion"), "m");
    assert_int_equal(path_int(body, "usageMetadata.promptTokenCount"), 2);
    assert_int_equal(path_int(body, "usageMetadata.candidatesTokenCount"), 4);
    assert_int_equal(path_int(body, "usageMetadata.totalTokenCount"), 6);
    json_decref(body);
    answer_release(&answer);
}

static void ollama_durations_follow_the_simulated_rates(void **state)
{
    (void)state;
    scenario_set("rules: [{reply: {text: 'one two three four'}, timing: {load_ms: 20, prefill_tps: "
                 "100, decode_tps: 100}}]");
    struct answer answer = post(OLLAMA_PATH, OLLAMA_HI ",\"stream\":false}");
    json_t *body = body_json(&answer);
    assert_string_equal(path_str(body, "message.content"), TEXT);
    assert_string_equal(path_str(body, "done_reason"), "stop");
    assert_true(json_is_true(json_path(body, "done")));
    assert_int_equal(path_int(body, "load_duration"), 20000000);
    assert_int_equal(path_int(body, "prompt_eval_count"), 2);
    assert_int_equal(path_int(body, "prompt_eval_duration"), 20000000);
    assert_int_equal(path_int(body, "eval_count"), 4);
    assert_int_equal(path_int(body, "eval_duration"), 40000000);
    assert_int_equal(path_int(body, "total_duration"), 80000000);
    json_decref(body);
    answer_release(&answer);
}

static void ollama_without_messages_only_loads_the_model(void **state)
{
    (void)state;
    struct answer answer = post(OLLAMA_PATH, "{\"model\":\"m\",\"messages\":[]}");
    json_t *body = body_json(&answer);
    assert_string_equal(path_str(body, "done_reason"), "load");
    assert_string_equal(path_str(body, "message.content"), "");
    assert_null(json_path(body, "eval_count")); /* zeroes are left out */
    json_decref(body);
    answer_release(&answer);
}

static void max_tokens_ends_an_answer_with_the_finish_of_each_api(void **state)
{
    static const struct {
        const char *path, *body, *finish_at, *finish, *text_at;
    } cases[] = {
        {OPENAI_PATH, OPENAI_HI ",\"max_tokens\":2}", "choices.0.finish_reason", "length",
         "choices.0.message.content"},
        {OPENAI_PATH, OPENAI_HI ",\"max_completion_tokens\":2}", "choices.0.finish_reason",
         "length", "choices.0.message.content"},
        {ANTHROPIC_PATH,
         "{\"model\":\"m\",\"max_tokens\":2,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
         "stop_reason", "max_tokens", "content.0.text"},
        {GEMINI_PATH, GEMINI_HI ",\"generationConfig\":{\"maxOutputTokens\":2}}",
         "candidates.0.finishReason", "MAX_TOKENS", "candidates.0.content.parts.0.text"},
        {OLLAMA_PATH, OLLAMA_HI ",\"stream\":false,\"options\":{\"num_predict\":2}}", "done_reason",
         "length", "message.content"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct answer answer = post(cases[i].path, cases[i].body);
        json_t *body = body_json(&answer);
        assert_string_equal(path_str(body, cases[i].finish_at), cases[i].finish);
        assert_string_equal(path_str(body, cases[i].text_at), "one two");
        json_decref(body);
        answer_release(&answer);
    }
}

/* --- streams ------------------------------------------------------------------------------- */

static void openai_streams_end_with_a_finish_usage_and_done(void **state)
{
    (void)state;
    struct answer answer = post(OPENAI_PATH, OPENAI_HI
                                ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    json_t *events = stream_json(&answer, true);
    assert_true(answer.whole);
    assert_has(&answer.head, "text/event-stream");
    assert_int_equal(json_array_size(events), 1 + 4 + 1 + 1 + 1);
    assert_string_equal(path_str(events, "0.object"), "chat.completion.chunk");
    assert_string_equal(path_str(events, "0.choices.0.delta.role"), "assistant");
    assert_string_equal(path_str(events, "1.choices.0.delta.content"), "one");
    assert_string_equal(path_str(events, "2.choices.0.delta.content"), " two");
    assert_true(json_is_null(json_path(events, "2.usage")));
    assert_true(json_is_string(json_path(events, "2.obfuscation")));
    assert_string_equal(path_str(events, "5.choices.0.finish_reason"), "stop");
    assert_int_equal(json_array_size(json_path(events, "6.choices")), 0);
    assert_int_equal(path_int(events, "6.usage.completion_tokens"), 4);
    assert_string_equal(path_str(events, "7"), "[DONE]");
    json_decref(events);
    answer_release(&answer);
}

static void every_dialect_of_openai_has_its_own_accent(void **state)
{
    static const struct {
        const char *dialect, *present, *absent;
    } cases[] = {
        {"openai", "\"obfuscation\":", "\"timings\":"},
        {"huggingface", "data: {\"id\"", "\"obfuscation\":"},
        {"lmstudio", "\"system_fingerprint\":\"simulated\"", "\"timings\":"},
        {"vllm", "\"stop_reason\":null", "\"timings\":"},
        {"llamacpp", "\"predicted_per_second\":", "\"obfuscation\":"},
        {"llamacpp", "\"role\":\"assistant\",\"content\":null", "\"stop_reason\""},
        {"tgi", "data:{\"id\":\"\"", "data: {"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[96], header[64];
        snprintf(path, sizeof path, "/%s" OPENAI_PATH, cases[i].dialect);
        snprintf(header, sizeof header, "x-sim-dialect: %s\r\n", cases[i].dialect);
        struct answer by_path = post(path, OPENAI_HI ",\"stream\":true}");
        struct answer by_header =
            http_do("POST", OPENAI_PATH, header, OPENAI_HI ",\"stream\":true}");
        assert_has(&by_path.body, cases[i].present);
        assert_false(has(&by_path.body, cases[i].absent));
        assert_has(&by_path.body, "[DONE]");
        assert_has(&by_header.body, cases[i].present);
        answer_release(&by_path);
        answer_release(&by_header);
    }
}

static void a_scenario_maps_models_to_dialects(void **state)
{
    (void)state;
    scenario_set("dialects: {'m*': llamacpp}\nrules: [{reply: {text: hi}, timing: {prefill_tps: "
                 "1000, decode_tps: 500}}]");
    struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
    json_t *body = body_json(&answer);
    assert_int_equal(path_int(body, "timings.prompt_n"), 2);
    assert_int_equal(path_int(body, "timings.prompt_ms"), 2);
    assert_int_equal(path_int(body, "timings.predicted_n"), 1);
    assert_int_equal(path_int(body, "timings.predicted_ms"), 2);
    assert_int_equal(path_int(body, "timings.prompt_per_second"), 1000);
    assert_int_equal(path_int(body, "timings.predicted_per_second"), 500);
    json_decref(body);
    answer_release(&answer);
}

static void llamacpp_pings_with_comments_while_it_evaluates_the_prompt(void **state)
{
    (void)state;
    scenario_set("dialects: {m: llamacpp}\nrules: [{reply: {text: hi}, timing: {prefill_tps: 10, "
                 "decode_tps: 0, ping_ms: 30}}]");
    struct answer answer = post(OPENAI_PATH, OPENAI_HI ",\"stream\":true}");
    assert_true(strncmp(answer.body.data, ":\n\n:\n\n", 6) == 0);
    assert_has(&answer.body, "data: [DONE]");
    answer_release(&answer);
}

static void anthropic_streams_have_named_events_in_order(void **state)
{
    static const char *const names[] = {
        "message_start",       "content_block_start", "ping",
        "content_block_delta", "content_block_delta", "content_block_delta",
        "content_block_delta", "content_block_stop",  "message_delta",
        "message_stop",
    };
    (void)state;
    struct answer answer = post(ANTHROPIC_PATH, ANTHROPIC_HI ",\"stream\":true}");
    json_t *events = stream_json(&answer, true);
    const char *at = answer.body.data;
    assert_int_equal(json_array_size(events), sizeof names / sizeof *names);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char name[64];
        snprintf(name, sizeof name, "event: %s\n", names[i]);
        assert_string_equal(json_str(json_array_get(events, i), "type", ""), names[i]);
        at = strstr(at, name);
        assert_non_null(at);
        at++;
    }
    assert_int_equal(path_int(events, "0.message.usage.input_tokens"), 2);
    assert_string_equal(path_str(events, "3.delta.type"), "text_delta");
    assert_string_equal(path_str(events, "4.delta.text"), " two");
    assert_string_equal(path_str(events, "8.delta.stop_reason"), "end_turn");
    assert_int_equal(path_int(events, "8.usage.output_tokens"), 4);
    json_decref(events);
    answer_release(&answer);
}

static void gemini_streams_are_events_or_one_array(void **state)
{
    (void)state;
    struct answer sse = post(GEMINI_SSE, GEMINI_HI "}");
    struct answer array = post(GEMINI_ARRAY, GEMINI_HI "}");
    json_t *of_sse = stream_json(&sse, true), *of_array = body_json(&array);
    json_t *both[] = {of_sse, of_array};
    assert_has(&sse.head, "text/event-stream");
    assert_has(&array.head, "application/json");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(json_array_size(both[i]), 5);
        assert_string_equal(path_str(both[i], "1.candidates.0.content.parts.0.text"), " two");
        assert_int_equal(path_int(both[i], "1.usageMetadata.candidatesTokenCount"), 2);
        assert_null(json_path(both[i], "3.candidates.0.finishReason"));
        assert_string_equal(path_str(both[i], "4.candidates.0.finishReason"), "STOP");
        json_decref(both[i]);
    }
    assert_false(has(&sse.body, "[DONE]"));
    answer_release(&sse);
    answer_release(&array);
}

static void ollama_streams_lines_unless_told_not_to(void **state)
{
    (void)state;
    struct answer answer = post(OLLAMA_PATH, OLLAMA_HI "}");
    json_t *lines = stream_json(&answer, false);
    assert_has(&answer.head, "application/x-ndjson");
    assert_int_equal(json_array_size(lines), 5);
    assert_string_equal(path_str(lines, "0.message.content"), "one");
    assert_true(json_is_false(json_path(lines, "3.done")));
    assert_true(json_is_true(json_path(lines, "4.done")));
    assert_string_equal(path_str(lines, "4.message.content"), "");
    assert_int_equal(path_int(lines, "4.eval_count"), 4);
    json_decref(lines);
    answer_release(&answer);
}

/* --- refusals ------------------------------------------------------------------------------ */

static void requests_are_checked_as_the_real_servers_do(void **state)
{
    static const struct {
        const char *path, *body;
        int status;
        const char *says;
    } cases[] = {
        {OPENAI_PATH, "{", 400, "We could not parse the JSON body"},
        {OPENAI_PATH, "", 400, "invalid_request_error"},
        {OPENAI_PATH, "[]", 400, "not a JSON object"},
        {OPENAI_PATH, "{}", 400, "you must provide a model parameter"},
        {OPENAI_PATH, "{\"model\":\"m\"}", 400, "missing_required_parameter"},
        {OPENAI_PATH, "{\"model\":\"m\",\"messages\":[]}", 400, "empty array"},
        {OPENAI_PATH, OPENAI_HI ",\"max_tokens\":1,\"max_completion_tokens\":1}", 400, "same time"},
        {OPENAI_PATH, OPENAI_HI ",\"max_tokens\":0}", 400, "below minimum"},
        {OPENAI_PATH, OPENAI_HI ",\"temperature\":3}", 400, "\"param\":\"temperature\""},
        {OPENAI_PATH, OPENAI_HI ",\"response_format\":{\"type\":\"json_object\"}}", 400, "'json'"},
        {"/vllm" OPENAI_PATH, "{", 400, "\"code\":400"},
        {"/llamacpp" OPENAI_PATH, "{", 400, "\"code\":400"},
        {"/tgi" OPENAI_PATH, "{", 422, "\"error_type\":\"validation\""},
        {ANTHROPIC_PATH, "{", 400, "\"type\":\"error\""},
        {ANTHROPIC_PATH, "{\"model\":\"m\",\"messages\":[]}", 400, "max_tokens: Field required"},
        {ANTHROPIC_PATH, "{\"model\":\"m\",\"max_tokens\":0}", 400, "max_tokens: must be"},
        {ANTHROPIC_PATH, ANTHROPIC_HI ",\"temperature\":1.5}", 400, "temperature: range"},
        {GEMINI_PATH, "{}", 400, "INVALID_ARGUMENT"},
        {GEMINI_PATH, "{\"contents\":[{\"parts\":[]}]}", 400, "must not be empty"},
        {OLLAMA_PATH, "{", 400, "{\"error\":\""},
        {OLLAMA_PATH, "{}", 400, "model is required"},
        {OLLAMA_PATH, OLLAMA_HI ",\"format\":\"xml\"}", 400, "invalid format"},
        {OLLAMA_PATH, OLLAMA_HI ",\"options\":{\"num_predict\":\"2\"}}", 400, "num_predict"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct answer answer = post(cases[i].path, cases[i].body);
        print_message("%s %s\n", cases[i].path, cases[i].body);
        assert_int_equal(answer.status, cases[i].status);
        assert_has(&answer.body, cases[i].says);
        answer_release(&answer);
    }
    assert_int_equal(stat_now("completed"), 0);
}

static void unknown_paths_and_methods_are_refused_in_the_shape_of_their_api(void **state)
{
    static const struct {
        const char *method, *path, *headers;
        int status;
        const char *says;
    } cases[] = {
        {"POST", "/v1/nothing", "", 404, "Invalid URL (POST /v1/nothing)"},
        {"GET", OPENAI_PATH, "", 405, "Not allowed to GET"},
        {"POST", "/v1/messages/batches", "", 404, "not_found_error"},
        {"GET", "/v1/x", "anthropic-version: 2023-06-01\r\n", 404, "not_found_error"},
        {"POST", "/v1beta/models/m:fly", "", 404, "NOT_FOUND"},
        {"POST", "/api/nothing", "", 404, "404 page not found"},
        {"POST", "/lmstudio/nothing", "", 200, "Unexpected endpoint or method. (POST /nothing)"},
        {"DELETE", "/sim/stats", "", 404, "Invalid URL"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct answer answer = http_do(cases[i].method, cases[i].path, cases[i].headers, "");
        assert_int_equal(answer.status, cases[i].status);
        assert_has(&answer.body, cases[i].says);
        answer_release(&answer);
    }
}

static void a_body_above_the_limit_is_413_and_leaves_no_memory_behind(void **state)
{
    (void)state;
    size_t len = (size_t)33 * 1024 * 1024;
    char *body = malloc(len);
    memset(body, ' ', len);
    int fd = http_connect();
    http_send(fd, "POST", ANTHROPIC_PATH, "", body, len);
    struct answer answer = http_read(fd);
    close(fd);
    free(body);
    assert_int_equal(answer.status, 413);
    assert_has(&answer.body, "request_too_large");
    answer_release(&answer);
}

static void lists_of_models_have_the_shape_of_each_api(void **state)
{
    static const struct {
        const char *path, *headers, *at;
    } cases[] = {
        {"/v1/models", "", "data.1.id"},
        {"/v1/models", "anthropic-version: 2023-06-01\r\n", "data.1.display_name"},
        {"/v1beta/models", "", "models.1.displayName"},
        {"/api/tags", "", "models.1.name"},
        {"/api/ps", "", "models.1.model"},
    };
    (void)state;
    scenario_set("models: [one, two]");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct answer answer = http_do("GET", cases[i].path, cases[i].headers, "");
        json_t *body = body_json(&answer);
        assert_string_equal(path_str(body, cases[i].at), "two");
        json_decref(body);
        answer_release(&answer);
    }
    struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
    assert_int_equal(answer.status, 404);
    assert_has(&answer.body, "model_not_found");
    answer_release(&answer);
}

static void a_demanded_key_is_accepted_in_any_form_and_others_are_refused(void **state)
{
    static const struct {
        const char *path, *headers;
        int status;
    } cases[] = {
        {OPENAI_PATH, "Authorization: Bearer right\r\n", 200},
        {OPENAI_PATH, "x-api-key: right\r\n", 200},
        {OPENAI_PATH, "x-goog-api-key: right\r\n", 200},
        {OPENAI_PATH "?key=right", "", 200},
        {OPENAI_PATH, "Authorization: Bearer wrong\r\n", 401},
        {OPENAI_PATH, "", 401},
        {ANTHROPIC_PATH, "x-api-key: wrong\r\n", 401},
        {GEMINI_PATH, "x-goog-api-key: wrong\r\n", 400},
        {OLLAMA_PATH, "", 401},
    };
    (void)state;
    scenario_set("keys: [other, right]");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct answer answer = http_do("POST", cases[i].path, cases[i].headers, OPENAI_HI "}");
        assert_int_equal(answer.status, cases[i].status);
        assert_false(has(&answer.body, "right"));
        answer_release(&answer);
    }
}

/* --- built-in replies ---------------------------------------------------------------------- */

static void a_schema_with_subtasks_gets_a_plan_in_every_api(void **state)
{
#define SCHEMA "{\"type\":\"object\",\"properties\":{\"subtasks\":{\"type\":\"array\"}}}"
    static const struct {
        const char *path, *body, *text_at;
    } cases[] = {
        {OPENAI_PATH,
         OPENAI_HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"p\","
                   "\"schema\":" SCHEMA "}}}",
         "choices.0.message.content"},
        {ANTHROPIC_PATH,
         ANTHROPIC_HI ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":" SCHEMA
                      "}}}",
         "content.0.text"},
        {GEMINI_PATH,
         GEMINI_HI ",\"generationConfig\":{\"responseMimeType\":\"application/json\","
                   "\"responseJsonSchema\":" SCHEMA "}}",
         "candidates.0.content.parts.0.text"},
        {OLLAMA_PATH, OLLAMA_HI ",\"stream\":false,\"format\":" SCHEMA "}", "message.content"},
    };
    (void)state;
    scenario_set("timing: {prefill_tps: 0, decode_tps: 0}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct answer answer = post(cases[i].path, cases[i].body);
        json_t *body = body_json(&answer);
        const char *text = path_str(body, cases[i].text_at);
        json_t *plan = json_parse(text, strlen(text), NULL);
        assert_true(json_array_size(json_path(plan, "subtasks")) >= 4);
        assert_string_not_equal(path_str(plan, "subtasks.0.prompt"), "");
        json_decref(plan);
        json_decref(body);
        answer_release(&answer);
    }
}

int main(void)
{
#define SHAPE(name) cmocka_unit_test_setup(name, with_four_tokens)
    const struct CMUnitTest tests[] = {
        SHAPE(openai_whole_answers_have_the_fields_of_a_chat_completion),
        SHAPE(anthropic_whole_answers_have_the_fields_of_a_message),
        SHAPE(gemini_whole_answers_have_candidates_and_usage),
        SHAPE(ollama_durations_follow_the_simulated_rates),
        SHAPE(ollama_without_messages_only_loads_the_model),
        SHAPE(max_tokens_ends_an_answer_with_the_finish_of_each_api),
        SHAPE(openai_streams_end_with_a_finish_usage_and_done),
        SHAPE(every_dialect_of_openai_has_its_own_accent),
        SHAPE(a_scenario_maps_models_to_dialects),
        SHAPE(llamacpp_pings_with_comments_while_it_evaluates_the_prompt),
        SHAPE(anthropic_streams_have_named_events_in_order),
        SHAPE(gemini_streams_are_events_or_one_array),
        SHAPE(ollama_streams_lines_unless_told_not_to),
        SHAPE(requests_are_checked_as_the_real_servers_do),
        SHAPE(unknown_paths_and_methods_are_refused_in_the_shape_of_their_api),
        SHAPE(a_body_above_the_limit_is_413_and_leaves_no_memory_behind),
        SHAPE(lists_of_models_have_the_shape_of_each_api),
        SHAPE(a_demanded_key_is_accepted_in_any_form_and_others_are_refused),
        SHAPE(a_schema_with_subtasks_gets_a_plan_in_every_api),
    };
    return cmocka_run_group_tests(tests, sim_group_setup, sim_group_teardown);
}
