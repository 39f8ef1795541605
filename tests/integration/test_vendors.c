/* Anthropic, Gemini and Ollama: what their providers write, the simulator reads as the real servers
 * do, and what it answers, they read. */
#include "tests/integration/sim_client.h"
#include "workers/framing.h"
#include "workers/http_headers.h"
#include "workers/provider.h"

static const char *const vendors[] = {"anthropic", "gemini", "ollama"};
#define COUNT(table) (sizeof table / sizeof *table)

static struct provider_call plain_call(const char *prompt)
{
    return (struct provider_call){
        .key = "sk-test-0123456789",
        .model = "model-1",
        .system = "",
        .prompt = prompt,
        .prompt_len = strlen(prompt),
        .temperature = -1,
        .max_tokens = 4000,
        .stream = true,
    };
}

struct feeding {
    const struct provider *provider;
    struct provider_reply *reply;
};

static bool feed(void *ctx, const char *data, size_t len)
{
    struct feeding *feeding = ctx;
    feeding->provider->event(feeding->provider, feeding->reply, data, len);
    return true;
}

static void read_headers(const struct buf *head, struct http_headers *ret)
{
    for (const char *at = strstr(head->data, "\r\n"); at != NULL && at[2] != '\r';) {
        const char *end = strstr(at + 2, "\r\n");
        http_headers_add(ret, at + 2, (size_t)(end - at) - 2);
        at = end;
    }
}

static void read_answer(const struct provider *provider, struct provider_reply *reply,
                        const struct answer *answer)
{
    struct feeding feeding = {provider, reply};
    struct framing framing;
    struct http_headers headers = {0};
    read_headers(&answer->head, &headers);
    const char *type = http_header(&headers, "content-type");
    bool stream = type != NULL && (strstr(type, "event-stream") || strstr(type, "ndjson"));
    if (answer->status >= 400) {
        provider->failure(provider, reply, answer->status, &headers, answer->body.data,
                          answer->body.len);
    } else if (stream) {
        framing_init(&framing, provider->framing);
        framing_feed(&framing, answer->body.data, answer->body.len, feed, &feeding);
        framing_end(&framing, feed, &feeding);
        framing_release(&framing);
    } else {
        provider->body(provider, reply, answer->body.data, answer->body.len);
    }
    if (reply->error == CLASS_NONE)
        provider->end(provider, reply);
    http_headers_release(&headers);
}

/* The whole way of one call. The caller releases the reply. */
static struct provider_reply ask(const char *api, struct provider_call *call)
{
    const struct provider *provider = provider_find(api);
    struct provider_request request = {0};
    struct provider_reply reply;
    struct err err = {0};
    struct buf lines = {0};
    char base_url[64];
    snprintf(base_url, sizeof base_url, "http://127.0.0.1:%d/%s", sim_port, api);
    call->base_url = base_url;
    if (provider->build(provider, call, &request, &err) != 0)
        fail_msg("%s: %s", api, err.text);
    for (const char *at = request.headers.data; at != NULL && *at != '\0'; at++) {
        if (*at == '\n')
            buf_add_char(&lines, '\r');
        buf_add_char(&lines, *at);
    }
    bool get = request.body.len == 0;
    struct answer answer = http_do(get ? "GET" : "POST", strchr(request.url.data + 7, '/'),
                                   lines.data, get ? "" : request.body.data);
    provider_reply_init(&reply);
    reply.kind = call->kind;
    reply.n_inputs = call->n_inputs;
    read_answer(provider, &reply, &answer);
    answer_release(&answer);
    provider_request_release(&request);
    buf_release(&lines);
    return reply;
}

static const char *text_of(const struct provider_reply *reply)
{
    return reply->text.data != NULL ? reply->text.data : "";
}

#define assert_success(reply, expected)                                                            \
    do {                                                                                           \
        assert_string_equal((reply)->error_text, "");                                              \
        assert_true((reply)->finished);                                                            \
        assert_string_equal(text_of(reply), expected);                                             \
    } while (0)

/* --- answers ------------------------------------------------------------------------------- */

static void every_vendor_answers_streamed_and_whole(void **state)
{
    (void)state;
    scenario_set("rules: [{reply: {text: 'four words of text'}}]");
    for (size_t i = 0; i < 2 * COUNT(vendors); i++) {
        struct provider_call call = plain_call("0123456789abcdef");
        call.system = "Be terse";
        call.temperature = 0.5;
        call.has_seed = true;
        call.seed = 7;
        call.context = 8192;
        call.keep_alive = "300";
        call.stream = i % 2 == 0;
        struct provider_reply reply = ask(vendors[i / 2], &call);
        assert_success(&reply, "four words of text");
        assert_int_equal(reply.finish, FINISH_DONE);
        assert_int_equal(reply.prompt_tokens, (8 + 16) / 4);
        assert_int_equal(reply.output_tokens, 4);
        assert_string_equal(reply.model, "model-1");
        assert_true(i / 2 != 2 || reply.generate_ms >= 0); /* Ollama has timings of its own */
        provider_reply_release(&reply);
    }
}

static void output_limit_ends_an_answer_with_length(void **state)
{
    (void)state;
    scenario_set("rules: [{reply: {text: 'four words of text'}}]");
    for (size_t i = 0; i < 2 * COUNT(vendors); i++) {
        struct provider_call call = plain_call("Hi");
        call.max_tokens = 2;
        call.stream = i % 2 == 0;
        struct provider_reply reply = ask(vendors[i / 2], &call);
        assert_success(&reply, "four words");
        assert_int_equal(reply.finish, FINISH_LENGTH);
        assert_int_equal(reply.output_tokens, 2);
        provider_reply_release(&reply);
    }
}

static void stop_string_ends_an_answer_before_it(void **state)
{
    (void)state;
    scenario_set("rules: [{reply: {text: 'one two three END four'}}]");
    for (size_t i = 0; i < 2 * COUNT(vendors); i++) {
        struct provider_call call = plain_call("Hi");
        call.stop = (const char *const[]){"NEVER", " END"};
        call.n_stop = 2;
        call.stream = i % 2 == 0;
        struct provider_reply reply = ask(vendors[i / 2], &call);
        assert_success(&reply, "one two three");
        assert_int_equal(reply.finish, FINISH_DONE);
        provider_reply_release(&reply);
    }
}

static void structured_output_follows_the_schema(void **state)
{
    (void)state;
    scenario_set("{}");
    for (size_t i = 0; i < 2 * COUNT(vendors); i++) {
        struct provider_call call = plain_call("Hi");
        call.json_schema = "{\"type\":\"object\",\"properties\":{\"label\":{\"type\":\"string\"}},"
                           "\"required\":[\"label\"],\"additionalProperties\":false}";
        call.stream = i % 2 == 0;
        struct provider_reply reply = ask(vendors[i / 2], &call);
        assert_true(reply.finished);
        json_t *value = json_parse(reply.text.data, reply.text.len, NULL);
        assert_true(json_is_string(json_get(value, "label")));
        json_decref(value);
        provider_reply_release(&reply);
    }
}

static void thoughts_are_kept_apart_and_counted(void **state)
{
    (void)state;
    static const char *const models[] = {"claude-opus-5-5",  "claude-sonnet-4-5",
                                         "gemini-3.6-flash", "gemini-2.5-flash",
                                         "qwen3:8b",         "gpt-oss:20b"};
    scenario_set("rules: [{reply: {text: 'four words of text'}}]");
    for (size_t i = 0; i < 2 * COUNT(models); i++) {
        struct provider_call call = plain_call("Hi");
        call.model = models[i / 2];
        call.effort = "low";
        call.stream = i % 2 == 0;
        struct provider_reply reply = ask(vendors[i / 4], &call);
        assert_success(&reply, "four words of text");
        assert_true(reply.reasoning.len > 0);
        assert_non_null(strstr(reply.reasoning.data, "What is asked is clear"));
        assert_true(reply.output_tokens > 4); /* thoughts included */
        if (i / 4 < 2)
            assert_int_equal(reply.output_tokens, 4 + reply.reasoning_tokens);
        provider_reply_release(&reply);
        call.effort = "none";
        reply = ask(vendors[i / 4], &call);
        if (strncmp(call.model, "gpt-oss", 7) != 0) {
            assert_success(&reply, "four words of text");
            assert_int_equal(reply.reasoning.len, 0);
        }
        provider_reply_release(&reply);
    }
}

static void images_are_accepted_and_counted(void **state)
{
    (void)state;
    static const struct provider_image file = {
        .url = "", .media_type = "image/png", .data = "aGk="};
    static const struct provider_image address = {
        .url = "https://h/a.png", .media_type = "image/png", .data = ""};
    scenario_set("{}");
    for (size_t i = 0; i < COUNT(vendors); i++) {
        struct provider_call call = plain_call("0123456789abcdef");
        struct provider_image images[] = {file, i < 2 ? address : file};
        call.images = images;
        call.n_images = 2;
        struct provider_reply reply = ask(vendors[i], &call);
        assert_true(reply.finished);
        assert_int_equal(reply.prompt_tokens, 4 + 2 * 256);
        provider_reply_release(&reply);
    }
}

static void prompt_that_begins_as_one_before_is_partly_cached(void **state)
{
    (void)state;
    struct buf prompt = {0};
    scenario_set("{}");
    for (int i = 0; i < 1000; i++)
        buf_printf(&prompt, "line %d ", i);
    for (size_t i = 0; i < 2; i++) { /* Ollama doesn't tell */
        struct provider_call call = plain_call(prompt.data);
        call.model = vendors[i]; /* a cache belongs to a model */
        struct provider_reply first = ask(vendors[i], &call);
        buf_add_str(&prompt, " and more");
        call = plain_call(prompt.data);
        call.model = vendors[i];
        struct provider_reply second = ask(vendors[i], &call);
        int64_t total = ((int64_t)prompt.len + 3) / 4;
        assert_int_equal(first.cached_tokens, 0);
        assert_int_equal(second.prompt_tokens, total); /* cached ones included */
        assert_true(second.cached_tokens > total * 9 / 10 && second.cached_tokens < total);
        if (i == 0) {
            assert_int_equal(first.cache_write_tokens, second.cached_tokens);
            assert_int_equal(second.cache_write_tokens, 0);
        }
        provider_reply_release(&first);
        provider_reply_release(&second);
    }
    buf_release(&prompt);
}

static void served_model_is_told(void **state)
{
    (void)state;
    scenario_set("rules: [{fault: {wrong_model: other}}]");
    for (size_t i = 0; i < 2 * COUNT(vendors); i++) {
        struct provider_call call = plain_call("Hi");
        call.stream = i % 2 == 0;
        struct provider_reply reply = ask(vendors[i / 2], &call);
        assert_true(reply.finished);
        assert_string_equal(reply.model, "other");
        provider_reply_release(&reply);
    }
}

static void models_are_listed(void **state)
{
    (void)state;
    scenario_set("models: [small, large]");
    for (size_t i = 0; i < COUNT(vendors); i++) {
        struct provider_call call = plain_call("");
        call.kind = PROVIDER_LIST;
        struct provider_reply reply = ask(vendors[i], &call);
        assert_success(&reply, "small\nlarge\n");
        provider_reply_release(&reply);
    }
}

/* --- vectors ------------------------------------------------------------------------------- */

static json_t *vectors(const char *api, const char *const *inputs, size_t n, int64_t dimensions)
{
    struct provider_call call = plain_call("");
    call.kind = PROVIDER_EMBED;
    call.inputs = inputs;
    call.n_inputs = n;
    call.dimensions = dimensions;
    struct provider_reply reply = ask(api, &call);
    assert_string_equal(reply.error_text, "");
    assert_true(reply.finished);
    json_t *value = json_parse(reply.text.data, reply.text.len, NULL);
    assert_int_equal(json_array_size(value), n);
    provider_reply_release(&reply);
    return value;
}

static double product(const json_t *a, const json_t *b)
{
    double sum = 0;
    assert_int_equal(json_array_size(a), json_array_size(b));
    for (size_t i = 0; i < json_array_size(a); i++)
        sum += json_number_value(json_array_get(a, i)) * json_number_value(json_array_get(b, i));
    return sum;
}

static void vectors_come_in_order_and_near_texts_are_near(void **state)
{
    (void)state;
    static const char *const inputs[] = {"a queue in Redis", "the queue lies in Redis",
                                         "bananas are yellow"};
    scenario_set("{}");
    for (size_t i = 1; i < COUNT(vendors); i++) {
        json_t *all = vectors(vendors[i], inputs, 3, 512);
        json_t *one = vectors(vendors[i], inputs + 2, 1, 512);
        const json_t *a = json_array_get(all, 0), *b = json_array_get(all, 1),
                     *c = json_array_get(all, 2);
        assert_int_equal(json_array_size(a), 512);
        assert_true(product(a, a) > 0.999 && product(a, a) < 1.001);
        assert_true(product(a, b) > product(a, c) + 0.2);
        assert_true(json_equal(c, json_array_get(one, 0)));
        json_decref(all);
        json_decref(one);
    }
}

static void faults_strike_vectors_as_they_strike_answers(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        enum error_class class_;
    } cases[] = {
        {"rules: [{fault: rate_limit}]", CLASS_RATE_LIMITED},
        {"rules: [{fault: context_too_long}]", CLASS_CONTEXT_TOO_LONG},
        {"rules: [{fault: malformed_json}]", CLASS_BAD_RESPONSE},
        {"rules: [{fault: empty}]", CLASS_BAD_RESPONSE},
    };
    for (size_t i = 0; i < COUNT(cases) * 2; i++) {
        struct provider_call call = plain_call("");
        scenario_set(cases[i / 2].rule);
        call.kind = PROVIDER_EMBED;
        call.inputs = (const char *const[]){"a", "b"};
        call.n_inputs = 2;
        struct provider_reply reply = ask(vendors[1 + i % 2], &call);
        assert_string_equal(error_class_name(reply.error), error_class_name(cases[i / 2].class_));
        provider_reply_release(&reply);
    }
}

/* --- failures ------------------------------------------------------------------------------ */

static const struct {
    const char *api, *fault;
    enum error_class streamed, whole;
} failures[] = {
#define BOTH(class_) CLASS_##class_, CLASS_##class_
    {"anthropic", "bad_request", BOTH(BAD_REQUEST)},
    {"anthropic", "auth", BOTH(AUTH)},
    {"anthropic", "quota", BOTH(QUOTA)},
    {"anthropic", "{kind: quota, status: 429}", BOTH(QUOTA)}, /* a spend limit */
    {"anthropic", "{status: 403}", BOTH(AUTH)},
    {"anthropic", "no_model", BOTH(BAD_REQUEST)},
    {"anthropic", "{status: 409}", BOTH(RETRY)},
    {"anthropic", "{status: 413}", BOTH(CONTEXT_TOO_LONG)},
    {"anthropic", "{html: true, status: 413}", BOTH(CONTEXT_TOO_LONG)},
    {"anthropic", "rate_limit", BOTH(RATE_LIMITED)},
    {"anthropic", "context_too_long", BOTH(CONTEXT_TOO_LONG)},
    {"anthropic", "server_error", BOTH(RETRY)},
    {"anthropic", "{status: 504}", BOTH(TIMEOUT)},
    {"anthropic", "overloaded", BOTH(OVERLOADED)},
    {"anthropic", "error_in_stream", BOTH(OVERLOADED)}, /* before any output */
    {"anthropic", "{error_in_stream: 2, kind: rate_limit}", BOTH(RATE_LIMITED)},
    {"anthropic", "{error_in_stream: 2, kind: server_error}", BOTH(RETRY)},
    {"anthropic", "{finish: refusal}", BOTH(REFUSED)},
    {"anthropic", "{finish: pause_turn}", BOTH(BAD_RESPONSE)},
    {"anthropic", "{finish: model_context_window_exceeded}", BOTH(NONE)},
    {"anthropic", "{finish: brand_new}", BOTH(NONE)},
    {"gemini", "bad_request", BOTH(BAD_REQUEST)},
    {"gemini", "auth", BOTH(AUTH)}, /* with status 400 */
    {"gemini", "{kind: quota, status: 402}", BOTH(QUOTA)},
    {"gemini", "{status: 403}", BOTH(AUTH)},
    {"gemini", "no_model", BOTH(BAD_REQUEST)},
    {"gemini", "quota", BOTH(QUOTA)},
    {"gemini", "rate_limit", BOTH(RATE_LIMITED)},
    {"gemini", "context_too_long", BOTH(CONTEXT_TOO_LONG)},
    {"gemini", "server_error", BOTH(RETRY)},
    {"gemini", "overloaded", BOTH(OVERLOADED)},
    {"gemini", "{status: 504}", BOTH(TIMEOUT)},
    {"gemini", "error_in_stream", BOTH(OVERLOADED)}, /* raw, of many lines */
    {"gemini", "{error_in_stream: 2, kind: quota}", BOTH(QUOTA)},
    {"gemini", "{finish: SAFETY}", BOTH(REFUSED)},
    {"gemini", "{finish: 'block:PROHIBITED_CONTENT'}", BOTH(REFUSED)},
    {"gemini", "{finish: MALFORMED_FUNCTION_CALL}", BOTH(BAD_RESPONSE)},
    {"gemini", "{finish: OTHER}", BOTH(BAD_RESPONSE)},
    {"ollama", "bad_request", BOTH(BAD_REQUEST)},
    {"ollama", "no_model", BOTH(BAD_REQUEST)},
    {"ollama", "rate_limit", BOTH(RATE_LIMITED)},
    {"ollama", "quota", BOTH(QUOTA)},
    {"ollama", "{status: 499, message: cancelled}", BOTH(RETRY)},
    {"ollama", "server_error", BOTH(RETRY)},
    {"ollama", "{status: 502}", BOTH(RETRY)},
    {"ollama", "overloaded", BOTH(OVERLOADED)},
    {"ollama", "context_too_long", BOTH(CONTEXT_TOO_LONG)},
    {"ollama",
     "{kind: server_error, message: 'model requires more system memory (9 GiB) than is "
     "available (2 GiB)'}",
     BOTH(BAD_REQUEST)},
    {"ollama", "{error_in_stream: 2, kind: server_error}", BOTH(RETRY)},
    {"ollama", "{finish: load}", BOTH(BAD_RESPONSE)},
    {"ollama", "{finish: ''}", BOTH(NONE)}, /* done without a reason */
    {"anthropic", "no_finish", BOTH(BAD_RESPONSE)},
    {"gemini", "no_finish", BOTH(BAD_RESPONSE)},
    {"ollama", "no_finish", BOTH(BAD_RESPONSE)},
    {"anthropic", "{truncate_after: 2}", BOTH(BAD_RESPONSE)},
    {"gemini", "{truncate_after: 2}", BOTH(BAD_RESPONSE)},
    {"ollama", "{truncate_after: 2}", BOTH(BAD_RESPONSE)},
};

static void every_documented_error_has_its_class(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * COUNT(failures); i++) {
        struct buf scenario = {0};
        struct provider_call call = plain_call("Hi");
        buf_printf(&scenario, "rules: [{reply: {text: 'four words of text'}, fault: %s}]",
                   failures[i / 2].fault);
        scenario_set(scenario.data);
        call.stream = i % 2 == 0;
        struct provider_reply reply = ask(failures[i / 2].api, &call);
        enum error_class expected = call.stream ? failures[i / 2].streamed : failures[i / 2].whole;
        if (reply.error != expected)
            print_message("%s, %s, %s: %s\n", failures[i / 2].api, failures[i / 2].fault,
                          call.stream ? "streamed" : "whole", reply.error_text);
        assert_string_equal(error_class_name(reply.error), error_class_name(expected));
        assert_int_equal(reply.finished, expected == CLASS_NONE);
        buf_release(&scenario);
        provider_reply_release(&reply);
    }
}

static void model_that_ollama_lacks_is_named_with_its_cure(void **state)
{
    (void)state;
    scenario_set("models: [other]");
    struct provider_call call = plain_call("Hi");
    call.model = "qwen3:8b";
    struct provider_reply reply = ask("ollama", &call);
    assert_int_equal(reply.error, CLASS_BAD_REQUEST);
    assert_non_null(strstr(reply.error_text, "`ollama pull qwen3:8b`"));
    provider_reply_release(&reply);
}

static void simulator_refuses_what_the_vendors_refuse(void **state)
{
    (void)state;
#define OLLAMA(rest) OLLAMA_HI "," rest "}"
    static const struct {
        const char *path, *body, *says;
    } cases[] = {
        {ANTHROPIC_PATH, ANTHROPIC_HI ",\"seed\":1}", "seed"},
        {ANTHROPIC_PATH, ANTHROPIC_HI ",\"stop_sequences\":\"x\"}", "stop_sequences"},
        {ANTHROPIC_PATH, ANTHROPIC_HI ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":9}}",
         "1024"},
        {ANTHROPIC_PATH,
         ANTHROPIC_HI ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":4000}}", "max_tokens"},
        {ANTHROPIC_PATH, ANTHROPIC_HI ",\"thinking\":{\"type\":\"adaptive\"},\"temperature\":0.5}",
         "temperature"},
        {GEMINI_PATH, GEMINI_HI ",\"generationConfig\":{\"seed\":4294967296}}", "seed"},
        {"/v1beta/models/gemini-2.5-flash:generateContent",
         GEMINI_HI ",\"generationConfig\":{\"thinkingConfig\":{\"thinkingLevel\":\"LOW\"}}}",
         "level"},
        {"/v1beta/models/m:batchEmbedContents",
         "{\"requests\":[{\"model\":\"models/other\",\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}",
         "model"},
        {OLLAMA_PATH, OLLAMA("\"keep_alive\":\"300\""), "missing unit"},
        {OLLAMA_PATH, OLLAMA("\"think\":\"low\""), "think"},
        {OLLAMA_PATH, OLLAMA("\"options\":{\"num_ctx\":\"8\"}"), "num_ctx"},
        {"/api/embed", "{\"model\":\"m\"}", "input"},
    };
    scenario_set("{}");
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct answer answer = post(cases[i].path, cases[i].body);
        assert_int_equal(answer.status, 400);
        assert_has(&answer.body, cases[i].says);
        answer_release(&answer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vendor_answers_streamed_and_whole),
        cmocka_unit_test(output_limit_ends_an_answer_with_length),
        cmocka_unit_test(stop_string_ends_an_answer_before_it),
        cmocka_unit_test(structured_output_follows_the_schema),
        cmocka_unit_test(thoughts_are_kept_apart_and_counted),
        cmocka_unit_test(images_are_accepted_and_counted),
        cmocka_unit_test(prompt_that_begins_as_one_before_is_partly_cached),
        cmocka_unit_test(served_model_is_told),
        cmocka_unit_test(models_are_listed),
        cmocka_unit_test(vectors_come_in_order_and_near_texts_are_near),
        cmocka_unit_test(faults_strike_vectors_as_they_strike_answers),
        cmocka_unit_test(every_documented_error_has_its_class),
        cmocka_unit_test(model_that_ollama_lacks_is_named_with_its_cure),
        cmocka_unit_test(simulator_refuses_what_the_vendors_refuse),
    };
    return cmocka_run_group_tests(tests, sim_group_setup, sim_group_teardown);
}
