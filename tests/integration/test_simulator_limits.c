/* The simulator's limits, and what it would bill. */
#include "tests/integration/sim_client.h"

#define AT_ONCE "timing: {prefill_tps: 0, decode_tps: 0}\n"
#define FOUR "rules: [{reply: {text: 'one two three four'}}]\n"

static struct answer ask(const char *key)
{
    char header[128];
    snprintf(header, sizeof header, "Authorization: Bearer %s\r\n", key);
    return http_do("POST", OPENAI_PATH, header, OPENAI_HI "}");
}

static int64_t header_int(const struct answer *answer, const char *name)
{
    const char *head = answer->head.data != NULL ? answer->head.data : "";
    const char *at = strstr(head, name);
    if (at == NULL)
        fail_msg("no header %s in %s", name, head);
    return at != NULL ? atoll(at + strlen(name)) : -1;
}

static void expect(const char *key, int status)
{
    struct answer answer = ask(key);
    if (answer.status != status)
        fail_msg("%d instead of %d: %s", answer.status, status, answer.body.data);
    answer_release(&answer);
}

static void requests_beyond_the_limit_of_a_key_wait_for_the_window(void **state)
{
    (void)state;
    scenario_set(AT_ONCE FOUR "limits: {requests_per_minute: 3}\n");
    for (int i = 0; i < 3; i++) {
        struct answer answer = ask("one");
        assert_int_equal(answer.status, 200);
        assert_int_equal(header_int(&answer, "x-ratelimit-limit-requests: "), 3);
        assert_int_equal(header_int(&answer, "x-ratelimit-remaining-requests: "), 2 - i);
        answer_release(&answer);
    }
    struct answer answer = ask("one");
    assert_int_equal(answer.status, 429);
    assert_has(&answer.body, "rate_limit_exceeded");
    int64_t wait_ms = header_int(&answer, "retry-after-ms: ");
    assert_true(wait_ms > 30000 && wait_ms <= 60000);
    assert_true(header_int(&answer, "retry-after: ") * 1000 >= wait_ms);
    assert_int_equal(header_int(&answer, "x-ratelimit-remaining-requests: "), 0);
    answer_release(&answer);
    expect("two", 200); /* each key has its own */
    assert_int_equal(stat_now("limited"), 1);
    assert_int_equal(stat_now("completed"), 4);
    assert_int_equal(stat_now("faults"), 0);
    assert_int_equal(stat_now("by_status.429"), 1);
}

static void tokens_of_prompts_and_answers_count(void **state)
{
    (void)state;
    scenario_set(AT_ONCE FOUR "limits: {tokens_per_minute: 9}\n");
    struct answer answer = ask("one"); /* 2 + 4 tokens */
    assert_int_equal(answer.status, 200);
    answer_release(&answer);
    answer = ask("one"); /* 2 more fit, and its answer exceeds the limit */
    assert_int_equal(answer.status, 200);
    answer_release(&answer);
    answer = ask("one");
    assert_int_equal(answer.status, 429);
    assert_int_equal(header_int(&answer, "x-ratelimit-remaining-tokens: "), 0);
    answer_release(&answer);
}

static void limit_ends_with_its_window(void **state)
{
    (void)state;
    scenario_set(AT_ONCE FOUR "limits: {requests_per_minute: 1, window_ms: 300}\n");
    expect("one", 200);
    struct answer answer = ask("one");
    assert_int_equal(answer.status, 429);
    int64_t wait_ms = header_int(&answer, "retry-after-ms: ");
    assert_true(wait_ms > 0 && wait_ms <= 300);
    answer_release(&answer);
    bool again = false;
    int64_t until_ms = clock_ms() + WAIT_MS;
    while (!again && clock_ms() < until_ms) {
        answer = ask("one");
        again = answer.status == 200;
        answer_release(&answer);
    }
    assert_true(again);
}

static void calls_at_once_are_limited(void **state)
{
    (void)state;
    scenario_set("rules: [{tokens: 4, fault: {stall_after: 1}}]\nlimits: {concurrency: 2}\n");
    int first = http_connect(), second = http_connect();
    http_send(first, "POST", OPENAI_PATH, "", OPENAI_HI ",\"stream\":true}",
              strlen(OPENAI_HI ",\"stream\":true}"));
    http_send(second, "POST", OPENAI_PATH, "", OPENAI_HI ",\"stream\":true}",
              strlen(OPENAI_HI ",\"stream\":true}"));
    int64_t until_ms = clock_ms() + WAIT_MS;
    while (stat_now("in_flight") < 2 && clock_ms() < until_ms)
        ;
    struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
    assert_int_equal(answer.status, 429);
    answer_release(&answer);
    close(first);
    while (stat_now("in_flight") > 1 && clock_ms() < until_ms)
        ;
    scenario_set(AT_ONCE FOUR "limits: {concurrency: 2}\n");
    answer = post(OPENAI_PATH, OPENAI_HI "}"); /* there is room again */
    assert_int_equal(answer.status, 200);
    answer_release(&answer);
    close(second);
}

static void keys_may_have_limits_of_their_own(void **state)
{
    (void)state;
    scenario_set(AT_ONCE FOUR "limits: {requests_per_minute: 1}\n"
                              "key_limits: {big: {requests_per_minute: 2}, free: "
                              "{requests_per_minute: 0}}\n");
    expect("small", 200);
    expect("small", 429);
    expect("big", 200);
    expect("big", 200);
    expect("big", 429);
    for (int i = 0; i < 4; i++)
        expect("free", 200);
    struct answer answer = get("/sim/keys");
    json_t *keys = body_json(&answer);
    assert_int_equal(json_array_size(keys), 2); /* those with limits */
    assert_int_equal(path_int(keys, "0.requests"), 2);
    assert_int_equal(path_int(keys, "0.limited"), 1);
    assert_int_equal(path_int(keys, "1.peak_requests"), 2);
    assert_false(has(&answer.body, "small")); /* keys are not shown */
    json_decref(keys);
    answer_release(&answer);
}

static void anthropic_tells_its_limits_in_its_own_headers(void **state)
{
    (void)state;
    scenario_set(AT_ONCE FOUR "limits: {requests_per_minute: 1, tokens_per_minute: 100}\n");
    struct answer answer = post(ANTHROPIC_PATH, ANTHROPIC_HI "}");
    assert_int_equal(answer.status, 200);
    assert_int_equal(header_int(&answer, "anthropic-ratelimit-requests-limit: "), 1);
    assert_int_equal(header_int(&answer, "anthropic-ratelimit-tokens-remaining: "), 98);
    assert_has(&answer.head, "anthropic-ratelimit-requests-reset: 20");
    answer_release(&answer);
    answer = post(ANTHROPIC_PATH, ANTHROPIC_HI "}");
    assert_int_equal(answer.status, 429);
    assert_has(&answer.body, "rate_limit_error");
    assert_true(header_int(&answer, "retry-after: ") > 30);
    answer_release(&answer);
}

static void bad_limits_are_refused_with_their_place(void **state)
{
    (void)state;
    static const char *const wrong[] = {"limits: {requests: 1}\n", "limits: {concurrency: -1}\n",
                                        "key_limits: [a]\n", "key_limits: {a: {rpm: 1}}\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct answer answer = post("/sim/scenario", wrong[i]);
        assert_int_equal(answer.status, 400);
        assert_has(&answer.body, "scenario:1:");
        answer_release(&answer);
    }
}

static void what_was_made_is_billed_also_when_it_breaks(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        int64_t prompt, output;
    } cases[] = {
        {"{tokens: 10}", 2, 10},
        {"{tokens: 10, fault: {truncate_after: 4}}", 2, 4},
        {"{tokens: 10, fault: {error_in_stream: 3}}", 2, 3},
        {"{tokens: 10, fault: {no_finish: true}}", 2, 10},
        {"{tokens: 10, fault: rate_limit}", 0, 0},
        {"{tokens: 10, fault: html}", 0, 0},
        {"{tokens: 10, fault: close_before_headers}", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char yaml[256];
        snprintf(yaml, sizeof yaml, AT_ONCE "rules: [%s]\n", cases[i].rule);
        scenario_set(yaml);
        struct answer answer = post(OPENAI_PATH, OPENAI_HI ",\"stream\":true}");
        answer_release(&answer);
        int64_t until_ms = clock_ms() + WAIT_MS;
        while (stat_now("in_flight") > 0 && clock_ms() < until_ms)
            ;
        assert_int_equal(stat_now("billed_prompt_tokens"), cases[i].prompt);
        assert_int_equal(stat_now("billed_output_tokens"), cases[i].output);
    }
}

static void alias_may_be_served_by_its_snapshot(void **state)
{
    (void)state;
    scenario_set(AT_ONCE "rules: [{reply: {text: hi}, served: m-2026-09-22}]\n");
    struct answer answer = post(OPENAI_PATH, OPENAI_HI "}");
    assert_has(&answer.body, "\"model\":\"m-2026-09-22\"");
    answer_release(&answer);
    assert_int_equal(stat_now("completed"), 1); /* that is no fault */
}

static void keys_can_be_refused_or_out_of_money_one_by_one(void **state)
{
    (void)state;
    scenario_set(AT_ONCE "rules:\n  - {match: {key: bad}, fault: auth}\n"
                         "  - {match: {key: broke}, fault: quota}\n  - {reply: {text: hi}}\n");
    expect("good", 200);
    expect("bad", 401);
    struct answer answer = ask("broke");
    assert_int_equal(answer.status, 429);
    assert_has(&answer.body, "insufficient_quota");
    answer_release(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_beyond_the_limit_of_a_key_wait_for_the_window),
        cmocka_unit_test(tokens_of_prompts_and_answers_count),
        cmocka_unit_test(limit_ends_with_its_window),
        cmocka_unit_test(calls_at_once_are_limited),
        cmocka_unit_test(keys_may_have_limits_of_their_own),
        cmocka_unit_test(anthropic_tells_its_limits_in_its_own_headers),
        cmocka_unit_test(bad_limits_are_refused_with_their_place),
        cmocka_unit_test(what_was_made_is_billed_also_when_it_breaks),
        cmocka_unit_test(alias_may_be_served_by_its_snapshot),
        cmocka_unit_test(keys_can_be_refused_or_out_of_money_one_by_one),
    };
    return cmocka_run_group_tests(tests, sim_group_setup, sim_group_teardown);
}
