/* What the simulator does on purpose: faults, timing, rules; and what it tells about itself. */
#include <poll.h>
#include <sys/resource.h>

#include "tests/integration/sim_client.h"

#define AT_ONCE "timing: {prefill_tps: 0, decode_tps: 0}\n"
#define TEN "reply: {text: 'a b c d e f g h i j'}"

static int reset(void **state)
{
    (void)state;
    scenario_set(AT_ONCE);
    return 0;
}

/* The scenario has one rule: ten tokens and the fault. */
static void fault_set(const char *fault)
{
    char yaml[1024];
    snprintf(yaml, sizeof yaml, AT_ONCE "rules: [{" TEN ", fault: %s}]", fault);
    scenario_set(yaml);
}

static const struct {
    const char *path, *whole_path, *whole, *stream;
} apis[] = {
    {OPENAI_PATH, OPENAI_PATH, OPENAI_HI "}", OPENAI_HI ",\"stream\":true}"},
    {ANTHROPIC_PATH, ANTHROPIC_PATH, ANTHROPIC_HI "}", ANTHROPIC_HI ",\"stream\":true}"},
    {GEMINI_SSE, GEMINI_PATH, GEMINI_HI "}", GEMINI_HI "}"},
    {OLLAMA_PATH, OLLAMA_PATH, OLLAMA_HI ",\"stream\":false}", OLLAMA_HI "}"},
};
#define N_APIS (sizeof apis / sizeof *apis)

/* What proves a whole answer in each API. */
static const char *const proofs[N_APIS] = {"[DONE]", "message_stop", "finishReason",
                                           "\"done\":true"};

/* --- HTTP errors --------------------------------------------------------------------------- */

static void errors_have_the_status_body_and_headers_of_each_api(void **state)
{
    static const struct {
        const char *fault, *path, *body;
        int status;
        const char *says, *header;
    } cases[] = {
        {"{kind: rate_limit, retry_after: 3}", OPENAI_PATH, OPENAI_HI "}", 429,
         "\"code\":\"rate_limit_exceeded\"", "retry-after: 3\r\n"},
        {"{kind: rate_limit, retry_after: 0.5}", OPENAI_PATH, OPENAI_HI "}", 429, "in 0.5s",
         "retry-after-ms: 500\r\n"},
        {"quota", OPENAI_PATH, OPENAI_HI "}", 429, "insufficient_quota", ""},
        {"overloaded", OPENAI_PATH, OPENAI_HI "}", 503, "server_is_overloaded", ""},
        {"auth", OPENAI_PATH, OPENAI_HI "}", 401, "invalid_api_key", ""},
        {"context_too_long", OPENAI_PATH, OPENAI_HI "}", 400, "context_length_exceeded", ""},
        {"bad_request", OPENAI_PATH, OPENAI_HI "}", 400, "unsupported_value", ""},
        {"server_error", OPENAI_PATH, OPENAI_HI "}", 500, "server_error", ""},
        {"no_model", OPENAI_PATH, OPENAI_HI "}", 404, "The model `m` does not exist", ""},
        {"{status: 408}", OPENAI_PATH, OPENAI_HI "}", 408, "invalid_request_error", ""},
        {"{status: 502}", OPENAI_PATH, OPENAI_HI "}", 502, "server_error", ""},
        {"{kind: overloaded, message: 'go away'}", OPENAI_PATH, OPENAI_HI "}", 503, "go away", ""},
        {"rate_limit", ANTHROPIC_PATH, ANTHROPIC_HI "}", 429, "rate_limit_error",
         "retry-after: 1\r\n"},
        {"quota", ANTHROPIC_PATH, ANTHROPIC_HI "}", 402, "billing_error", "request-id: "},
        {"overloaded", ANTHROPIC_PATH, ANTHROPIC_HI "}", 529, "overloaded_error",
         "x-should-retry: true"},
        {"context_too_long", ANTHROPIC_PATH, ANTHROPIC_HI "}", 400, "prompt is too long: 2", ""},
        {"server_error", ANTHROPIC_PATH, ANTHROPIC_HI "}", 500, "api_error", ""},
        {"{kind: rate_limit, retry_after: 12.5}", GEMINI_PATH, GEMINI_HI "}", 429,
         "\"retryDelay\": \"12.5s\"", ""},
        {"quota", GEMINI_PATH, GEMINI_HI "}", 429, "limit: 0", ""},
        {"auth", GEMINI_PATH, GEMINI_HI "}", 400, "API_KEY_INVALID", ""},
        {"overloaded", GEMINI_PATH, GEMINI_HI "}", 503, "UNAVAILABLE", ""},
        {"server_error", GEMINI_ARRAY, GEMINI_HI "}", 500, "[{", ""},
        {"overloaded", OLLAMA_PATH, OLLAMA_HI "}", 503, "server busy, please try again.  maximum",
         ""},
        {"no_model", OLLAMA_PATH, OLLAMA_HI "}", 404, "model 'm' not found, try pulling it first",
         ""},
        {"rate_limit", OLLAMA_PATH, OLLAMA_HI "}", 429, "{\"error\":\"", "Retry-After: 1\r\n"},
        {"quota", "/huggingface" OPENAI_PATH, OPENAI_HI "}", 402, "monthly included credits", ""},
        {"context_too_long", "/llamacpp" OPENAI_PATH, OPENAI_HI "}", 400,
         "\"type\":\"exceed_context_size_error\",\"n_prompt_tokens\":2", ""},
        {"overloaded", "/llamacpp" OPENAI_PATH, OPENAI_HI "}", 503, "Loading model", ""},
        {"context_too_long", "/vllm" OPENAI_PATH, OPENAI_HI "}", 400,
         "\"type\":\"BadRequestError\",\"param\":null,\"code\":400", ""},
        {"auth", "/vllm" OPENAI_PATH, OPENAI_HI "}", 401, "{\"error\":\"Unauthorized\"}", ""},
        {"context_too_long", "/tgi" OPENAI_PATH, OPENAI_HI "}", 422,
         "\"error_type\":\"validation\"", ""},
        {"overloaded", "/tgi" OPENAI_PATH, OPENAI_HI "}", 429, "\"error_type\":\"overloaded\"", ""},
        {"context_too_long", "/lmstudio" OPENAI_PATH, OPENAI_HI "}", 400, "keep the first 2", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fault_set(cases[i].fault);
        struct answer answer = post(cases[i].path, cases[i].body);
        print_message("%s %s\n", cases[i].path, cases[i].fault);
        assert_int_equal(answer.status, cases[i].status);
        assert_true(answer.whole);
        assert_has(&answer.body, cases[i].says);
        assert_has(&answer.head, cases[i].header);
        json_t *body = body_json(&answer);
        json_decref(body);
        answer_release(&answer);
    }
}

/* --- damage -------------------------------------------------------------------------------- */

static void a_truncated_stream_breaks_behind_its_tokens(void **state)
{
    (void)state;
    fault_set("{truncate_after: 3}");
    for (size_t i = 0; i < N_APIS; i++) {
        struct answer answer = post(apis[i].path, apis[i].stream);
        assert_int_equal(answer.status, 200);
        assert_false(answer.whole);
        assert_has(&answer.body, "\" c\"");
        assert_false(has(&answer.body, "\" d\""));
        assert_false(has(&answer.body, proofs[i]));
        answer_release(&answer);
        answer = post(apis[i].whole_path, apis[i].whole);
        assert_false(answer.whole);
        assert_true(answer.body.len > 10);
        answer_release(&answer);
    }
    assert_int_equal(stat_now("faults"), 2 * N_APIS);
}

static void a_stream_without_finish_ends_well_but_proves_nothing(void **state)
{
    (void)state;
    fault_set("no_finish");
    for (size_t i = 0; i < N_APIS; i++) {
        struct answer answer = post(apis[i].path, apis[i].stream);
        assert_true(answer.whole);
        assert_has(&answer.body, "\" j\"");
        assert_false(has(&answer.body, proofs[i]));
        answer_release(&answer);
    }
    struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
    assert_has(&answer.body, "\"finish_reason\":null");
    answer_release(&answer);
}

static void malformed_json_breaks_one_event_and_half_of_a_whole_answer(void **state)
{
    (void)state;
    fault_set("{malformed_json: 2}");
    for (size_t i = 0; i < N_APIS; i++) {
        struct answer answer = post(apis[i].path, apis[i].stream);
        json_t *events = stream_json(&answer, i != 3);
        size_t index, broken = 0;
        json_t *event;
        json_array_foreach (events, index, event) {
            broken += json_is_string(event) && strcmp(json_string_value(event), "[DONE]") != 0;
        }
        assert_int_equal(broken, 1);
        assert_true(answer.whole);
        assert_has(&answer.body, proofs[i]);
        json_decref(events);
        answer_release(&answer);
        answer = post(apis[i].whole_path, apis[i].whole);
        assert_null(json_parse(answer.body.data, answer.body.len, NULL));
        assert_true(answer.whole);
        answer_release(&answer);
    }
}

static void an_error_inside_a_stream_has_each_servers_own_shape(void **state)
{
    static const struct {
        const char *path, *body, *says;
        bool done; /* [DONE] follows */
    } cases[] = {
        {OPENAI_PATH, OPENAI_HI ",\"stream\":true}", "data: {\"error\":{\"message\":", false},
        {"/vllm" OPENAI_PATH, OPENAI_HI ",\"stream\":true}",
         "data: {\"error\":{\"message\":", true},
        {"/llamacpp" OPENAI_PATH, OPENAI_HI ",\"stream\":true}", "data: {\"error\":{\"code\":503",
         false},
        {"/tgi" OPENAI_PATH, OPENAI_HI ",\"stream\":true}", "data:{\"error\":\"", false},
        {ANTHROPIC_PATH, ANTHROPIC_HI ",\"stream\":true}",
         "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"", false},
        {GEMINI_SSE, GEMINI_HI "}", "\n\r\n{\n  \"error\": {\n    \"code\": 503", false},
        {OLLAMA_PATH, OLLAMA_HI "}", "\n{\"error\":\"server busy", false},
    };
    (void)state;
    fault_set("{error_in_stream: 2}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct answer answer = post(cases[i].path, cases[i].body);
        assert_int_equal(answer.status, 200);
        assert_true(answer.whole);
        assert_has(&answer.body, "\" b\"");
        assert_has(&answer.body, cases[i].says);
        assert_int_equal(has(&answer.body, "[DONE]"), cases[i].done);
        answer_release(&answer);
    }
    struct answer answer = post(ANTHROPIC_PATH, ANTHROPIC_HI "}");
    assert_int_equal(answer.status, 529);
    answer_release(&answer);
    fault_set("{error_in_stream: true, kind: server_error}");
    answer = post(ANTHROPIC_PATH, ANTHROPIC_HI ",\"stream\":true}");
    assert_has(&answer.body, "api_error");
    assert_false(has(&answer.body, "text_delta"));
    answer_release(&answer);
}

static void other_damage_is_what_it_says(void **state)
{
    (void)state;
    fault_set("{wrong_model: impostor}");
    for (size_t i = 0; i < N_APIS; i++) {
        struct answer answer = post(apis[i].path, apis[i].stream);
        assert_has(&answer.body, "\"impostor\"");
        assert_has(&answer.body, proofs[i]);
        answer_release(&answer);
    }
    fault_set("html");
    struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
    assert_int_equal(answer.status, 502);
    assert_has(&answer.head, "text/html");
    answer_release(&answer);
    fault_set("{html: true, status: 200}");
    answer = post(OPENAI_PATH, OPENAI_HI "}");
    assert_int_equal(answer.status, 200);
    assert_has(&answer.body, "<html>");
    answer_release(&answer);
    fault_set("empty");
    for (size_t i = 0; i < N_APIS; i++) {
        answer = post(apis[i].path, apis[i].stream);
        assert_int_equal(answer.status, 200);
        assert_true(answer.whole);
        assert_int_equal(answer.body.len, 0);
        answer_release(&answer);
    }
    fault_set("close_before_headers");
    answer = post(OPENAI_PATH, OPENAI_HI "}");
    assert_int_equal(answer.status, 0);
    answer_release(&answer);
}

static void a_dripping_answer_is_slow_and_right(void **state)
{
    (void)state;
    fault_set("{drip: {bytes: 100, every_ms: 10}}");
    for (size_t i = 0; i < N_APIS; i++) {
        double start_ms = clock_ms_f();
        struct answer answer = post(apis[i].whole_path, apis[i].whole);
        json_t *body = body_json(&answer);
        assert_true(answer.whole);
        assert_true(clock_ms_f() - start_ms >= 10.0 * ((double)answer.body.len / 100 - 1));
        json_decref(body);
        answer_release(&answer);
    }
    assert_int_equal(stat_now("completed"), N_APIS);
}

/* --- stalls, and clients that leave -------------------------------------------------------- */

static bool one_was_cut(void *ctx)
{
    (void)ctx;
    return stat_now("cut") == 1 && stat_now("in_flight") == 0;
}

static bool one_is_in_flight(void *ctx)
{
    (void)ctx;
    return stat_now("in_flight") == 1;
}

static bool three_are_in_flight(void *ctx)
{
    (void)ctx;
    return stat_now("in_flight") == 3;
}

static void read_until(int fd, const char *text)
{
    struct buf seen = {0};
    char chunk[4096];
    ssize_t n;
    while (!has(&seen, text) && (n = recv(fd, chunk, sizeof chunk, 0)) > 0)
        buf_add(&seen, chunk, (size_t)n);
    assert_has(&seen, text);
    buf_release(&seen);
}

static void a_stall_lasts_until_the_client_leaves_which_is_noticed(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_APIS; i++) {
        fault_set("{stall_after: 4}");
        int fd = http_connect();
        http_send(fd, "POST", apis[i].path, "", apis[i].stream, strlen(apis[i].stream));
        read_until(fd, "\" d\"");
        assert_int_equal(stat_now("in_flight"), 1);
        close(fd);
        assert_true(fixture_wait(one_was_cut, NULL, WAIT_MS));
        assert_int_equal(stat_now("completed"), 0);
    }
    struct answer answer = get("/sim/requests");
    assert_has(&answer.body, "\"outcome\":\"cut by client\"");
    answer_release(&answer);
}

static void a_short_stall_goes_on(void **state)
{
    (void)state;
    fault_set("{stall_after: 4, stall_ms: 60}");
    for (size_t i = 0; i < N_APIS; i++) {
        double start_ms = clock_ms_f();
        struct answer streamed = post(apis[i].path, apis[i].stream);
        struct answer whole = post(apis[i].whole_path, apis[i].whole);
        assert_true(streamed.whole && whole.whole);
        assert_has(&streamed.body, proofs[i]);
        assert_true(clock_ms_f() - start_ms >= 120);
        json_t *body = body_json(&whole);
        json_decref(body);
        answer_release(&streamed);
        answer_release(&whole);
    }
}

static void a_client_that_leaves_while_nothing_was_sent_is_noticed(void **state)
{
    (void)state;
    scenario_set("rules: [{" TEN ", timing: {load_ms: 3600000}}]");
    int fd = http_connect();
    http_send(fd, "POST", OLLAMA_PATH, "", apis[3].stream, strlen(apis[3].stream));
    assert_true(fixture_wait(one_is_in_flight, NULL, WAIT_MS));
    close(fd);
    assert_true(fixture_wait(one_was_cut, NULL, WAIT_MS));
}

/* --- timing -------------------------------------------------------------------------------- */

static void tokens_leave_at_the_simulated_rates(void **state)
{
    (void)state;
    scenario_set("rules: [{" TEN ", timing: {load_ms: 30, prefill_tps: 50, decode_tps: 100}}]");
    for (size_t i = 0; i < N_APIS; i++) {
        double start_ms = clock_ms_f();
        struct answer answer = post(apis[i].path, apis[i].stream);
        double ms = clock_ms_f() - start_ms;
        assert_has(&answer.body, proofs[i]);
        assert_true(ms >= 30 + 40 + 100);
        answer_release(&answer);
        start_ms = clock_ms_f();
        answer = post(apis[i].whole_path, apis[i].whole);
        assert_true(clock_ms_f() - start_ms >= 30 + 40 + 100);
        answer_release(&answer);
    }
}

static void bursts_put_tokens_into_few_chunks(void **state)
{
    (void)state;
    scenario_set("rules: [{" TEN ", timing: {prefill_tps: 0, decode_tps: 100, burst_ms: 1000}}]");
    int fd = http_connect();
    http_send(fd, "POST", OLLAMA_PATH, "", apis[3].stream, strlen(apis[3].stream));
    read_until(fd, "\r\n\r\n"); /* the headers come a second before the tokens */
    char chunk[16384] = "";
    assert_true(recv(fd, chunk, sizeof chunk - 1, 0) > 0);
    assert_non_null(strstr(chunk, "\"a\""));
    assert_non_null(strstr(chunk, "\" j\""));
    close(fd);
}

/* --- rules --------------------------------------------------------------------------------- */

static void the_first_rule_that_matches_decides(void **state)
{
    static const struct {
        const char *path, *body, *says;
    } cases[] = {
        {OPENAI_PATH, OPENAI_HI "}", "fallback"},
        {ANTHROPIC_PATH, ANTHROPIC_HI "}", "by api"},
        {OPENAI_PATH,
         "{\"model\":\"llama-3\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}",
         "by model"},
        {OPENAI_PATH,
         "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"the magic word\"}]}",
         "by prompt"},
        {OPENAI_PATH,
         "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"A pirate.\"},"
         "{\"role\":\"user\",\"content\":\"Hi\"}]}",
         "by system"},
        {OLLAMA_PATH, OLLAMA_HI ",\"stream\":false}", "by path"},
        {GEMINI_PATH, GEMINI_HI "}", "Hi you"}, /* echo */
    };
    (void)state;
    scenario_set(AT_ONCE "rules:\n"
                         "  - {match: {api: anthropic}, reply: {text: by api}}\n"
                         "  - {match: {model: 'llama-*'}, reply: {text: by model}}\n"
                         "  - {match: {prompt: magic}, reply: {text: by prompt}}\n"
                         "  - {match: {system: pirate}, reply: {text: by system}}\n"
                         "  - {match: {path: '/api/*'}, reply: {text: by path}}\n"
                         "  - {match: {api: gemini}, reply: {echo: true}}\n"
                         "  - {reply: {text: fallback}}\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct answer answer = post(cases[i].path, cases[i].body);
        assert_has(&answer.body, cases[i].says);
        answer_release(&answer);
    }
}

static void after_and_times_choose_which_matches_count(void **state)
{
    static const int expected[] = {200, 503, 503, 200, 200};
    (void)state;
    scenario_set(AT_ONCE "rules: [{match: {after: 1, times: 2}, fault: overloaded}]");
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 5; i++) {
            struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
            assert_int_equal(answer.status, expected[i]);
            answer_release(&answer);
        }
        struct answer answer = post("/sim/reset", ""); /* counts start again */
        answer_release(&answer);
    }
}

static void probability_follows_the_seed(void **state)
{
    char seen[2][41] = {"", ""};
    (void)state;
    for (int round = 0; round < 2; round++) {
        scenario_set("seed: 42\n" AT_ONCE
                     "rules: [{match: {probability: 0.5}, fault: overloaded}]");
        for (int i = 0; i < 40; i++) {
            struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
            strcat(seen[round], answer.status == 200 ? "." : "x");
            answer_release(&answer);
        }
    }
    assert_string_equal(seen[0], seen[1]);
    assert_non_null(strchr(seen[0], 'x'));
    assert_non_null(strchr(seen[0], '.'));
}

static void a_wrong_scenario_is_refused_and_the_old_one_stays(void **state)
{
    static const struct {
        const char *yaml, *says;
    } cases[] = {
        {"ruels: []", "scenario:1:1: unknown key `ruels`"},
        {"rules:\n  - {matsch: {}}", "scenario:2:6:"},
        {"rules:\n  - match: {modle: x}", "scenario:2:13:"},
        {"rules: [{fault: rate_limt}]", "did you mean `rate_limit`"},
        {"rules: [{fault: {retry_after: soon}}]", "scenario:1:"},
        {"rules: [{fault: {status: 200}}]", "400 to 599"},
        {"rules: [{timing: {jitter: 2}}]", "scenario:1:"},
        {"rules: [{reply: {}}]", "a reply is one of"},
        {"rules: [{match: {api: openia}}]", "unknown api `openia`"},
        {"dialects: {m: klingon}", "unknown dialect `klingon`"},
        {"rules: 5", "rules is a list"},
        {"tokens: -1", "scenario:1:"},
        {"a: [", "scenario:"},
    };
    (void)state;
    fault_set("overloaded");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct answer answer = post("/sim/scenario", cases[i].yaml);
        assert_int_equal(answer.status, 400);
        print_message("%s", answer.body.data);
        assert_has(&answer.body, cases[i].says);
        answer_release(&answer);
    }
    struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
    assert_int_equal(answer.status, 503);
    answer_release(&answer);
}

/* --- journal ------------------------------------------------------------------------------- */

static void the_journal_proves_what_was_paid_for_twice(void **state)
{
    (void)state;
    scenario_set(AT_ONCE "rules: [{match: {times: 1}, fault: overloaded}]");
    for (int i = 0; i < 2; i++) { /* refused, then answered: paid for once */
        struct answer answer = http_do(
            "POST", OPENAI_PATH, "x-orch-task: t1\r\nx-orch-subtask: code\r\n", OPENAI_HI "}");
        answer_release(&answer);
    }
    assert_int_equal(stat_now("repeated_prompts"), 1);
    assert_int_equal(stat_now("repeated.0.requests"), 2);
    assert_int_equal(stat_now("repeated.0.completed"), 1);
    assert_int_equal(stat_now("completed_twice"), 0);
    struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
    answer_release(&answer);
    assert_int_equal(stat_now("completed_twice"), 1);
    assert_int_equal(stat_now("by_status.200"), 2);
    assert_int_equal(stat_now("by_status.503"), 1);
    assert_int_equal(stat_now("by_api.openai.completed"), 2);
    assert_int_equal(stat_now("by_model.m.faults"), 1);
    answer = get("/sim/requests");
    json_t *list = body_json(&answer);
    assert_int_equal(json_array_size(list), 3);
    assert_string_equal(path_str(list, "0.outcome"), "fault");
    assert_string_equal(path_str(list, "0.task"), "t1");
    assert_string_equal(path_str(list, "0.subtask"), "code");
    assert_string_equal(path_str(list, "1.outcome"), "completed");
    assert_string_equal(path_str(list, "1.prompt"), "Hi you");
    assert_int_equal(path_int(list, "1.status"), 200);
    assert_int_equal(path_int(list, "0.rule"), 0);
    int64_t last = path_int(list, "2.seq");
    json_decref(list);
    answer_release(&answer);
    char path[64];
    snprintf(path, sizeof path, "/sim/requests?after=%lld", (long long)last - 1);
    answer = get(path);
    list = body_json(&answer);
    assert_int_equal(json_array_size(list), 1);
    json_decref(list);
    answer_release(&answer);
    answer = post("/sim/reset", "");
    answer_release(&answer);
    assert_int_equal(stat_now("requests"), 0);
}

/* --- many at once -------------------------------------------------------------------------- */

#define MANY 1000

static void a_thousand_streams_run_side_by_side(void **state)
{
    static int fds[MANY];
    struct rlimit limit;
    (void)state;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    scenario_set("rules: [{tokens: 60, timing: {prefill_tps: 0, decode_tps: 30, burst_ms: 300}}]");
    for (int i = 0; i < MANY; i++) {
        fds[i] = http_connect();
        http_send(fds[i], "POST", apis[i % (int)N_APIS].path, "", apis[i % (int)N_APIS].stream,
                  strlen(apis[i % (int)N_APIS].stream));
    }
    for (int i = 0; i < MANY; i++) {
        struct answer answer = http_read(fds[i]);
        assert_int_equal(answer.status, 200);
        assert_true(answer.whole);
        assert_has(&answer.body, proofs[i % (int)N_APIS]);
        answer_release(&answer);
        close(fds[i]);
    }
    assert_int_equal(stat_now("completed"), MANY);
    assert_int_equal(stat_now("output_tokens"), MANY * 60);
    assert_true(stat_now("peak_in_flight") > MANY / 2);
}

/* --- the process --------------------------------------------------------------------------- */

static void a_port_in_use_and_a_bad_scenario_end_it_with_a_sentence(void **state)
{
    char port[16];
    struct buf errors = {0};
    (void)state;
    snprintf(port, sizeof port, "%d", sim_port);
    const char *in_use[] = {"orchestrator-sim", "--port", port, NULL};
    assert_int_equal(fixture_run(&fixture, in_use, NULL, &errors), 3);
    assert_has(&errors, "Address already in use; choose another with --port");
    buf_clear(&errors);
    const char *file = fixture_write(&fixture, "bad.yaml", "rules:\n  - {fault: [}\n");
    const char *bad[] = {"orchestrator-sim", "--port", "0", "--scenario", file, NULL};
    assert_int_equal(fixture_run(&fixture, bad, NULL, &errors), 3);
    assert_has(&errors, "bad.yaml:2:");
    buf_clear(&errors);
    const char *usage[] = {"orchestrator-sim", "--port", "99999", NULL};
    assert_int_equal(fixture_run(&fixture, usage, NULL, &errors), 2);
    assert_has(&errors, "--port takes a number from 0 to 65535");
    buf_release(&errors);
}

static void sigterm_ends_it_cleanly_with_calls_of_every_kind_in_flight(void **state)
{
    int fds[3];
    (void)state;
    scenario_set("rules:\n"
                 "  - {match: {api: ollama}, timing: {load_ms: 3600000}}\n"
                 "  - {match: {api: anthropic}, reply: {text: hi}, fault: {stall_after: 1}}\n"
                 "  - {tokens: 1000, timing: {decode_tps: 5}}\n");
    static const size_t which[] = {0, 1, 3};
    for (int i = 0; i < 3; i++) {
        fds[i] = http_connect();
        http_send(fds[i], "POST", apis[which[i]].path, "", apis[which[i]].stream,
                  strlen(apis[which[i]].stream));
    }
    read_until(fds[1], "text_delta");
    assert_true(fixture_wait(three_are_in_flight, NULL, WAIT_MS));
    kill(sim_pid, SIGTERM);
    assert_int_equal(fixture_wait_exit(&fixture, sim_pid, WAIT_MS), 0);
    for (int i = 0; i < 3; i++) {
        struct answer answer = http_read(fds[i]);
        assert_false(answer.whole);
        answer_release(&answer);
        close(fds[i]);
    }
    sim_start(NULL);
}

int main(void)
{
#define FAULT(name) cmocka_unit_test_setup(name, reset)
    const struct CMUnitTest tests[] = {
        FAULT(errors_have_the_status_body_and_headers_of_each_api),
        FAULT(a_truncated_stream_breaks_behind_its_tokens),
        FAULT(a_stream_without_finish_ends_well_but_proves_nothing),
        FAULT(malformed_json_breaks_one_event_and_half_of_a_whole_answer),
        FAULT(an_error_inside_a_stream_has_each_servers_own_shape),
        FAULT(other_damage_is_what_it_says),
        FAULT(a_dripping_answer_is_slow_and_right),
        FAULT(a_stall_lasts_until_the_client_leaves_which_is_noticed),
        FAULT(a_short_stall_goes_on),
        FAULT(a_client_that_leaves_while_nothing_was_sent_is_noticed),
        FAULT(tokens_leave_at_the_simulated_rates),
        FAULT(bursts_put_tokens_into_few_chunks),
        FAULT(the_first_rule_that_matches_decides),
        FAULT(after_and_times_choose_which_matches_count),
        FAULT(probability_follows_the_seed),
        FAULT(a_wrong_scenario_is_refused_and_the_old_one_stays),
        FAULT(the_journal_proves_what_was_paid_for_twice),
        FAULT(a_thousand_streams_run_side_by_side),
        FAULT(a_port_in_use_and_a_bad_scenario_end_it_with_a_sentence),
        FAULT(sigterm_ends_it_cleanly_with_calls_of_every_kind_in_flight),
    };
    return cmocka_run_group_tests(tests, sim_group_setup, sim_group_teardown);
}
