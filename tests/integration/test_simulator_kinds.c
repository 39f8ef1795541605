/* The simulator's other APIs: Responses, LM Studio's native one, and vectors. */
#include "tests/integration/sim_client.h"

#define FOUR_TOKENS                                                                                \
    "timing: {prefill_tps: 0, decode_tps: 0}\nrules: [{reply: {text: 'one two three four'}}]\n"
#define TEXT "one two three four"
#define RESPONSES_PATH "/v1/responses"
#define RESPONSES_HI                                                                               \
    "{\"model\":\"m\",\"instructions\":\"Be terse.\",\"input\":[{\"role\":\"user\",\"content\":"   \
    "[{\"type\":\"input_text\",\"text\":\"Hi you\"}]}]"
#define NATIVE_PATH "/api/v1/chat"
#define NATIVE_HI "{\"model\":\"m\",\"system_prompt\":\"Be terse.\",\"input\":\"Hi you\""

static int with_four_tokens(void **state)
{
    (void)state;
    scenario_set(FOUR_TOKENS);
    return 0;
}

static json_t *whole(const char *path, const char *text)
{
    struct answer answer = post(path, text);
    if (answer.status != 200)
        fail_msg("%s: %d %s", path, answer.status, answer.body.data);
    json_t *body = body_json(&answer);
    answer_release(&answer);
    return body;
}

static void responses_are_objects_with_output_and_usage(void **state)
{
    (void)state;
    json_t *body = whole(RESPONSES_PATH, RESPONSES_HI "}");
    assert_string_equal(path_str(body, "object"), "response");
    assert_string_equal(path_str(body, "status"), "completed");
    assert_string_equal(path_str(body, "output.0.type"), "message");
    assert_string_equal(path_str(body, "output.0.content.0.text"), TEXT);
    assert_int_equal(path_int(body, "usage.input_tokens"), 4);
    assert_int_equal(path_int(body, "usage.output_tokens"), 4);
    json_decref(body);
    scenario_set("timing: {prefill_tps: 0, decode_tps: 0}\ntokens: 40\n");
    body = whole(RESPONSES_PATH, RESPONSES_HI ",\"max_output_tokens\":16}");
    assert_string_equal(path_str(body, "status"), "incomplete");
    assert_string_equal(path_str(body, "incomplete_details.reason"), "max_output_tokens");
    json_decref(body);
}

static void responses_stream_named_events_in_sequence(void **state)
{
    (void)state;
    struct answer answer = post(RESPONSES_PATH, RESPONSES_HI ",\"stream\":true}");
    json_t *events = stream_json(&answer, true), *event;
    struct buf text = {0};
    size_t i;
    assert_true(answer.whole);
    assert_has(&answer.head, "text/event-stream");
    json_array_foreach (events, i, event) {
        assert_int_equal(path_int(event, "sequence_number"), (int64_t)i);
        if (strcmp(path_str(event, "type"), "response.output_text.delta") == 0)
            buf_add_str(&text, path_str(event, "delta"));
    }
    assert_string_equal(text.data, TEXT);
    event = json_array_get(events, json_array_size(events) - 1);
    assert_string_equal(path_str(event, "type"), "response.completed");
    assert_string_equal(path_str(event, "response.status"), "completed");
    assert_false(has(&answer.body, "[DONE]"));
    buf_release(&text);
    json_decref(events);
    answer_release(&answer);
}

static void responses_refuse_what_belongs_to_chat_completions(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        RESPONSES_HI ",\"seed\":1}",
        RESPONSES_HI ",\"stop\":[\"x\"]}",
        RESPONSES_HI ",\"max_tokens\":9}",
        OPENAI_HI "}",
        RESPONSES_HI ",\"text\":{\"format\":{\"type\":\"json_schema\",\"schema\":{}}}}",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct answer answer = post(RESPONSES_PATH, wrong[i]);
        assert_int_equal(answer.status, 400);
        answer_release(&answer);
    }
}

static void failures_in_responses_are_flat_errors_or_failed_responses(void **state)
{
    (void)state;
    scenario_set(FOUR_TOKENS "\n");
    scenario_set("rules: [{tokens: 9, fault: {error_in_stream: 2, kind: rate_limit}}]");
    struct answer answer = post(RESPONSES_PATH, RESPONSES_HI ",\"stream\":true}");
    assert_has(&answer.body, "event: error\n");
    assert_has(&answer.body, "\"code\":\"rate_limit_exceeded\",\"message\":");
    assert_false(has(&answer.body, "response.completed"));
    answer_release(&answer);
    scenario_set("rules: [{tokens: 9, fault: {error_in_stream: 2, kind: server_error}}]");
    answer = post(RESPONSES_PATH, RESPONSES_HI ",\"stream\":true}");
    assert_has(&answer.body, "event: response.failed\n");
    assert_has(&answer.body, "\"status\":\"failed\"");
    answer_release(&answer);
}

static void native_answers_of_lmstudio_have_their_figures(void **state)
{
    (void)state;
    scenario_set("rules: [{reply: {text: 'one two three four'}, timing: {load_ms: 50, prefill_tps: "
                 "0, decode_tps: 1000}}]");
    json_t *body = whole(NATIVE_PATH, NATIVE_HI "}");
    assert_string_equal(path_str(body, "model_instance_id"), "m");
    assert_string_equal(path_str(body, "output.0.content"), TEXT);
    assert_int_equal(path_int(body, "stats.input_tokens"), 4);
    assert_int_equal(path_int(body, "stats.total_output_tokens"), 4);
    assert_true(json_num(json_get(body, "stats"), "model_load_time_seconds", 0) == 0.05);
    assert_true(json_num(json_get(body, "stats"), "tokens_per_second", 0) > 900);
    json_decref(body);
    struct answer answer = post(NATIVE_PATH, NATIVE_HI ",\"stream\":true}");
    assert_has(&answer.body, "event: chat.start\n");
    assert_has(&answer.body, "event: model_load.end\n");
    assert_has(&answer.body, "event: message.delta\n");
    assert_has(&answer.body, "event: chat.end\n");
    answer_release(&answer);
}

static void native_error_of_lmstudio_is_followed_by_chat_end(void **state)
{
    (void)state;
    scenario_set("rules: [{tokens: 9, fault: {error_in_stream: 2}}]");
    struct answer answer = post(NATIVE_PATH, NATIVE_HI ",\"stream\":true}");
    const char *error = strstr(answer.body.data, "event: error\n");
    assert_non_null(error);
    assert_non_null(strstr(error, "event: chat.end\n"));
    answer_release(&answer);
}

static void native_api_of_lmstudio_refuses_keys_that_it_does_not_know(void **state)
{
    (void)state;
    struct answer answer = post(NATIVE_PATH, NATIVE_HI ",\"seed\":1}");
    assert_int_equal(answer.status, 400);
    assert_has(&answer.body, "Unrecognized key(s) in object: 'seed'");
    answer_release(&answer);
    answer = post("/lmstudio/api/v1/nothing", "{}");
    assert_int_equal(answer.status, 200); /* as the real one */
    assert_has(&answer.body, "Unexpected endpoint or method");
    answer_release(&answer);
}

#define INPUTS "[\"the red house\",\"the red house\",\"a blue sea\"]"
#define PIPELINE_PATH "/hf-inference/models/org/m/pipeline/feature-extraction"

/* The n-th vector of an answer, wherever the API has it. */
static const json_t *vector_at(const json_t *body, size_t i)
{
    const json_t *list = json_is_array(body) ? body : json_get(body, "data");
    if (list == NULL)
        list = json_get(body, "embeddings");
    const json_t *item = json_array_get(list, i);
    if (json_is_array(item))
        return item;
    const json_t *vector = json_get(item, "embedding");
    return vector != NULL ? vector : json_get(item, "values");
}

static double product(const json_t *a, const json_t *b)
{
    double sum = 0;
    for (size_t i = 0; i < json_array_size(a); i++)
        sum += json_number_value(json_array_get(a, i)) * json_number_value(json_array_get(b, i));
    return sum;
}

static void vectors_follow_from_their_texts_in_every_api(void **state)
{
    static const struct {
        const char *path, *body;
    } cases[] = {
        {"/v1/embeddings", "{\"model\":\"m\",\"input\":" INPUTS "}"},
        {"/vllm/v1/embeddings", "{\"model\":\"m\",\"input\":" INPUTS "}"},
        {"/embed", "{\"inputs\":" INPUTS ",\"truncate\":false}"},
        {PIPELINE_PATH, "{\"inputs\":" INPUTS "}"},
        {"/api/embed", "{\"model\":\"m\",\"input\":" INPUTS "}"},
        {"/v1beta/models/m:batchEmbedContents",
         "{\"requests\":[{\"model\":\"models/m\",\"content\":{\"parts\":[{\"text\":\"the red "
         "house\"}]}},{\"model\":\"models/m\",\"content\":{\"parts\":[{\"text\":\"the red "
         "house\"}]}},{\"model\":\"models/m\",\"content\":{\"parts\":[{\"text\":\"a blue "
         "sea\"}]}}]}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *body = whole(cases[i].path, cases[i].body);
        const json_t *a = vector_at(body, 0), *b = vector_at(body, 1), *c = vector_at(body, 2);
        assert_true(json_array_size(a) > 0 && json_array_size(a) == json_array_size(c));
        assert_true(json_equal(a, b));
        assert_true(product(a, b) > 0.999);
        assert_true(product(a, c) < 0.9);
        json_decref(body);
    }
    assert_int_equal(stat_now("completed"), 6);
    assert_int_equal(stat_now("output_tokens"), 0);
}

static void vectors_have_the_dimensions_asked_for_and_are_counted(void **state)
{
    (void)state;
    json_t *body = whole("/v1/embeddings", "{\"model\":\"m\",\"input\":\"four\",\"dimensions\":7}");
    assert_int_equal(json_array_size(vector_at(body, 0)), 7);
    assert_int_equal(path_int(body, "usage.prompt_tokens"), 1);
    json_decref(body);
    assert_int_equal(stat_now("billed_prompt_tokens"), 1);
    struct answer answer = post("/v1/embeddings", "{\"model\":\"m\",\"input\":[\"a\",\"\"]}");
    assert_int_equal(answer.status, 400);
    answer_release(&answer);
    scenario_set("rules: [{fault: no_finish}]");
    body = whole("/v1/embeddings", "{\"model\":\"m\",\"input\":[\"a\",\"b\"]}");
    assert_int_equal(json_array_size(json_get(body, "data")), 1);
    json_decref(body);
}

static void rules_for_openai_count_for_what_else_it_offers(void **state)
{
    (void)state;
    scenario_set("rules: [{match: {api: openai}, fault: {status: 418, message: tea}}]");
    static const char *const paths[] = {OPENAI_PATH, RESPONSES_PATH, NATIVE_PATH};
    static const char *const bodies[] = {OPENAI_HI "}", RESPONSES_HI "}", NATIVE_HI "}"};
    for (size_t i = 0; i < 3; i++) {
        struct answer answer = post(paths[i], bodies[i]);
        assert_int_equal(answer.status, 418);
        answer_release(&answer);
    }
    scenario_set("rules: [{match: {api: responses}, fault: {status: 418}}]");
    for (size_t i = 0; i < 3; i++) {
        struct answer answer = post(paths[i], bodies[i]);
        assert_int_equal(answer.status, i == 1 ? 418 : 200);
        answer_release(&answer);
    }
    assert_int_equal(stat_now("by_api.responses.faults"), 1);
    assert_int_equal(stat_now("by_api.lmstudio.completed"), 1);
}

static void stop_strings_end_answers_and_options_are_remembered(void **state)
{
    (void)state;
    json_t *body = whole(OPENAI_PATH, OPENAI_HI ",\"stop\":[\" three\"],\"seed\":7,\"max_tokens\":"
                                                "99}");
    assert_string_equal(path_str(body, "choices.0.message.content"), "one two");
    assert_string_equal(path_str(body, "choices.0.finish_reason"), "stop");
    json_decref(body);
    struct answer answer = get("/sim/requests");
    json_t *list = body_json(&answer);
    assert_int_equal(path_int(list, "0.seed"), 7);
    assert_int_equal(path_int(list, "0.max_tokens"), 99);
    assert_string_equal(path_str(list, "0.stop.0"), " three");
    assert_true(json_is_false(json_path(list, "0.embed")));
    json_decref(list);
    answer_release(&answer);
    body = whole(OLLAMA_PATH, OLLAMA_HI ",\"stream\":false,\"options\":{\"seed\":-3}}");
    json_decref(body);
    answer = get("/sim/requests");
    list = body_json(&answer);
    assert_int_equal(path_int(list, "1.seed"), -3);
    assert_true(json_is_null(json_path(list, "1.stop")));
    json_decref(list);
    answer_release(&answer);
}

static void finish_reason_may_be_the_scenarios(void **state)
{
    (void)state;
    scenario_set("rules: [{reply: {text: hi}, fault: {finish: content_filter}}]");
    json_t *body = whole(OPENAI_PATH, OPENAI_HI "}");
    assert_string_equal(path_str(body, "choices.0.finish_reason"), "content_filter");
    json_decref(body);
}

static void images_of_openai_are_checked_and_counted(void **state)
{
    (void)state;
#define IMAGE(url)                                                                                 \
    "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"  \
    "\"Hi\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"" url "\"}}]}]}"
    json_t *body = whole(OPENAI_PATH, IMAGE("data:image/png;base64,AAAA"));
    assert_true(path_int(body, "usage.prompt_tokens") > 100);
    json_decref(body);
    struct answer answer = post(OPENAI_PATH, IMAGE("ftp://x"));
    assert_int_equal(answer.status, 400);
    answer_release(&answer);
}

int main(void)
{
#define KIND(name) cmocka_unit_test_setup(name, with_four_tokens)
    const struct CMUnitTest tests[] = {
        KIND(responses_are_objects_with_output_and_usage),
        KIND(responses_stream_named_events_in_sequence),
        KIND(responses_refuse_what_belongs_to_chat_completions),
        KIND(failures_in_responses_are_flat_errors_or_failed_responses),
        KIND(native_answers_of_lmstudio_have_their_figures),
        KIND(native_error_of_lmstudio_is_followed_by_chat_end),
        KIND(native_api_of_lmstudio_refuses_keys_that_it_does_not_know),
        KIND(vectors_follow_from_their_texts_in_every_api),
        KIND(vectors_have_the_dimensions_asked_for_and_are_counted),
        KIND(rules_for_openai_count_for_what_else_it_offers),
        KIND(stop_strings_end_answers_and_options_are_remembered),
        KIND(finish_reason_may_be_the_scenarios),
        KIND(images_of_openai_are_checked_and_counted),
    };
    return cmocka_run_group_tests(tests, sim_group_setup, sim_group_teardown);
}
