/* Web searches over real HTTP, against the simulator's engines and their faults. */
#include <errno.h>
#include <stdint.h>

#include "tests/integration/sim_client.h"
#include "workers/search.h"

#define KEY "AIza-secret-1234567890"

static uv_loop_t loop;
static struct http *http;
static struct searches *searches;
static char base[64];

struct outcome {
    bool done;
    size_t n;
    struct search_result *results; /* a copy */
    char why[1024];
};

static void take(void *ctx, const struct search_result *results, size_t n, const char *why)
{
    struct outcome *outcome = ctx;
    assert_false(outcome->done);
    outcome->done = true;
    outcome->n = n;
    outcome->results = search_results_copy(results, n);
    snprintf(outcome->why, sizeof outcome->why, "%s", why);
}

static struct config_provider settings_of(const char *engine)
{
    return (struct config_provider){.engine = (char *)engine,
                                    .engine_url = base,
                                    .engine_cx = "cx",
                                    .search = "always",
                                    .max_results = 5};
}

static struct search *begin(struct outcome *outcome, const struct config_provider *settings,
                            const char *question)
{
    struct search *search = NULL;
    struct err err = {0};
    *outcome = (struct outcome){0};
    if (search_start(&search, searches, settings, KEY, question, strlen(question), take, outcome,
                     &err) != 0)
        fail_msg("%s", err.text);
    assert_false(outcome->done); /* never before it returns */
    return search;
}

static void wait_for(const struct outcome *outcome)
{
    assert_int_equal(loop_run_until(&loop, &outcome->done, WAIT_MS), 0);
}

/* One search of the engine; the copy of its results is released with the next. */
static struct outcome last;
static const struct outcome *ask_settings(const struct config_provider *settings,
                                          const char *question)
{
    free(last.results);
    begin(&last, settings, question);
    wait_for(&last);
    return &last;
}

static const struct outcome *ask(const char *engine, const char *question)
{
    struct config_provider settings = settings_of(engine);
    return ask_settings(&settings, question);
}

static void assert_why(const struct outcome *outcome, const char *part)
{
    assert_int_equal(outcome->n, 0);
    if (strstr(outcome->why, part) == NULL)
        fail_msg("\"%s\" is not in: %s", part, outcome->why);
}

/* A rule for searches alone. */
static void set_rule(const char *rest)
{
    char yaml[1024];
    snprintf(yaml, sizeof yaml, "rules:\n  - match: {api: search}\n    %s\n", rest);
    scenario_set(yaml);
}

static const char *const engines[] = {"duckduckgo", "searxng", "google"};

static void every_engine_finds_what_there_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct outcome *outcome = ask(engines[i], "copper & \"tin\" prices?");
        assert_string_equal(outcome->why, "");
        assert_int_equal(outcome->n, 3); /* and not the ad */
        assert_string_equal(outcome->results[0].title,
                            "Page 1 on copper & \"tin\" prices? (simulated)");
        assert_string_equal(outcome->results[1].url, "https://www2.example/page?n=2&lang=en");
        assert_string_equal(outcome->results[2].snippet,
                            "What page 3 says about \"copper & \"tin\" prices?\" & more.");
    }
}

static void no_more_results_than_asked_for(void **state)
{
    (void)state;
    struct config_provider settings = settings_of("searxng");
    settings.max_results = 2;
    assert_int_equal(ask_settings(&settings, "two of three")->n, 2);
}

static void the_scenario_decides_what_is_found(void **state)
{
    (void)state;
    set_rule(
        "reply: {text: \"One | https://one.example/ | <b>1</b>\\nTwo | ftp://two.example/ | 2\"}");
    const struct outcome *outcome = ask("duckduckgo", "what the rule says");
    assert_int_equal(outcome->n, 1);
    assert_string_equal(outcome->results[0].title, "One");
    /* DuckDuckGo escaped what was markup in the rule: it is text of the page. */
    assert_string_equal(outcome->results[0].snippet, "<b>1</b>");
    scenario_set("rules: [{reply: {text: \"an answer of a model\"}}]");
    assert_int_equal(ask("searxng", "rules for models are not for searches")->n, 3);
}

static void nothing_found_is_said(void **state)
{
    (void)state;
    set_rule("fault: empty");
    for (size_t i = 0; i < 3; i++)
        assert_why(ask(engines[i], "nothing there"), "found nothing");
}

static void quirk_18_a_bot_check_is_a_failure(void **state)
{
    (void)state;
    set_rule("fault: rate_limit");
    assert_why(ask("duckduckgo", "blocked"), "blocks this machine");
    assert_why(ask("searxng", "blocked"), "limits this machine (HTTP 429)");
    assert_why(ask("google", "blocked"), "quota is used up (HTTP 429)");
}

static void quirk_18_searxng_without_json_is_told_its_cure(void **state)
{
    (void)state;
    set_rule("fault: auth");
    assert_why(ask("searxng", "forbidden"), "`search: formats: [html, json]`");
    set_rule("fault: overloaded");
    assert_why(ask("searxng", "nobody answered"), "google (timeout), duckduckgo (CAPTCHA)");
}

static void the_key_is_in_no_sentence(void **state)
{
    (void)state;
    set_rule("fault: {kind: auth, message: \"the key " KEY " is not valid\"}");
    assert_why(ask("google", "wrong key"), "the key *** is not valid");
    struct config_provider settings = settings_of("google");
    settings.engine_url = "http://[::bad/";
    struct search *search;
    struct err err = {0};
    struct outcome outcome = {0};
    int rc = search_start(&search, searches, &settings, KEY, "bad url", 7, take, &outcome, &err);
    if (rc == 0)
        wait_for(&outcome);
    assert_null(strstr(rc == 0 ? outcome.why : err.text, "secret"));
}

static void broken_answers_are_failures(void **state)
{
    (void)state;
    set_rule("fault: malformed_json");
    assert_why(ask("searxng", "half an answer"), "did not answer with JSON");
    assert_why(ask("google", "half an answer"), "did not answer with a JSON object");
    set_rule("fault: {truncate_after: 0}");
    assert_why(ask("searxng", "cut"), "broke the connection off");
    set_rule("fault: close_before_headers");
    assert_why(ask("duckduckgo", "closed"), "broke the connection off");
    set_rule("fault: html");
    assert_why(ask("google", "a gateway"), "HTTP 502");
    set_rule("fault: {html: true, status: 200}");
    assert_why(ask("duckduckgo", "another page"), "no results can be found");
}

static void a_server_that_is_not_there_is_said(void **state)
{
    (void)state;
    struct config_provider settings = settings_of("searxng");
    char nowhere[64];
    snprintf(nowhere, sizeof nowhere, "http://127.0.0.1:%d", fixture_free_port());
    settings.engine_url = nowhere;
    assert_why(ask_settings(&settings, "nobody"), "SearXNG cannot be reached");
}

static void an_answer_without_bounds_is_cut_off(void **state)
{
    (void)state;
    struct buf yaml = {0};
    buf_add_str(&yaml, "rules: [{match: {api: search}, reply: {text: \"T | http://h/ | ");
    for (int i = 0; i < 300000; i++)
        buf_add_str(&yaml, "0123456789");
    buf_add_str(&yaml, "\"}}]\n");
    scenario_set(yaml.data);
    buf_release(&yaml);
    assert_why(ask("searxng", "large"), "larger than 2 MiB");
}

static void silence_ends_at_the_deadline(void **state)
{
    (void)state;
    set_rule("fault: {stall_after: 0}");
    assert_why(ask("searxng", "silence"), "did not answer within 10 s");
}

static void a_cancelled_search_is_silent(void **state)
{
    (void)state;
    struct config_provider settings = settings_of("searxng");
    struct outcome cancelled, after;
    set_rule("fault: {stall_after: 0}");
    struct search *search = begin(&cancelled, &settings, "to be cancelled");
    search_cancel(&search);
    assert_null(search);
    search_cancel(&search); /* accepts NULL */
    search = begin(&cancelled, &settings, "to be cancelled in flight");
    bool asked = false;
    while (!asked) {
        uv_run(&loop, UV_RUN_NOWAIT);
        asked = stat_now("by_api.search.requests") > 0;
    }
    search_cancel(&search);
    scenario_set("rules: []");
    begin(&after, &settings, "another");
    wait_for(&after);
    assert_false(cancelled.done);
    free(after.results);
}

/* What a callback may do to its own search, and to all of them. */
struct cancelling {
    struct search *search;
    bool done;
};

static void cancel_inside(void *ctx, const struct search_result *results, size_t n, const char *why)
{
    struct cancelling *cancelling = ctx;
    (void)results, (void)n, (void)why;
    search_cancel(&cancelling->search);
    searches_free(&searches);
    cancelling->done = true;
}

static void a_callback_may_cancel_and_free(void **state)
{
    (void)state;
    struct config_provider settings = settings_of("searxng");
    struct cancelling cancelling = {0};
    struct outcome other;
    struct err err;
    scenario_set("rules: [{match: {api: search, prompt: under way}, timing: {load_ms: 60000}}]");
    assert_int_equal(search_start(&cancelling.search, searches, &settings, NULL, "inside", 6,
                                  cancel_inside, &cancelling, &err),
                     0);
    begin(&other, &settings, "still under way");
    assert_int_equal(loop_run_until(&loop, &cancelling.done, WAIT_MS), 0);
    assert_false(other.done);
}

static void the_same_question_is_asked_once(void **state)
{
    (void)state;
    scenario_set("rules: []");
    assert_int_equal(ask("searxng", "asked twice")->n, 3);
    assert_int_equal(ask("searxng", "asked twice")->n, 3);
    assert_string_equal(last.results[0].title, "Page 1 on asked twice (simulated)");
    assert_int_equal(stat_now("by_api.search.requests"), 1);
    set_rule("fault: {status: 500}");
    assert_int_equal(ask("searxng", "asked twice")->n, 3);
    assert_why(ask("searxng", "failures are not kept"), "HTTP 500");
    scenario_set("rules: []");
    assert_int_equal(ask("searxng", "failures are not kept")->n, 3);
}

/* By the simulator's own clock. */
static void duckduckgo_is_asked_once_a_second(void **state)
{
    (void)state;
    struct config_provider settings = settings_of("duckduckgo");
    struct outcome outcomes[3];
    scenario_set("rules: []");
    begin(&outcomes[0], &settings, "first of three");
    begin(&outcomes[1], &settings, "second of three");
    begin(&outcomes[2], &settings, "third of three");
    for (size_t i = 0; i < 3; i++) {
        wait_for(&outcomes[i]);
        assert_int_equal(outcomes[i].n, 3);
        free(outcomes[i].results);
    }
    struct answer answer = get("/sim/requests");
    json_t *requests = body_json(&answer);
    assert_int_equal(json_array_size(requests), 3);
    int64_t from = json_int(json_array_get(requests, 0), "time_ms", 0);
    int64_t to = json_int(json_array_get(requests, 2), "time_ms", 0);
    assert_string_equal(json_str(json_array_get(requests, 1), "prompt", ""), "second of three");
    assert_true(to - from >= 1900);
    json_decref(requests);
    answer_release(&answer);
}

static void who_would_wait_past_the_deadline_is_told_at_once(void **state)
{
    (void)state;
    struct config_provider settings = settings_of("duckduckgo");
    struct outcome waiting[11], late;
    char question[32];
    scenario_set("rules: []");
    for (int i = 0; i < 11; i++) { /* the last one's turn may come in time, should this be slow */
        snprintf(question, sizeof question, "question %d", i);
        begin(&waiting[i], &settings, question);
    }
    begin(&late, &settings, "one too many");
    wait_for(&late);
    assert_why(&late, "too many searches wait for DuckDuckGo");
    assert_false(waiting[9].done);
    free(waiting[0].results);
}

static void assert_refused(const struct config_provider *settings, const char *key,
                           const char *prompt, const char *says)
{
    struct search *search = NULL;
    struct err err = {0};
    assert_int_equal(
        search_start(&search, searches, settings, key, prompt, strlen(prompt), take, NULL, &err),
        -EINVAL);
    assert_null(search);
    if (strstr(err.text, says) == NULL)
        fail_msg("%s", err.text);
}

static void what_cannot_be_asked_is_refused_at_once(void **state)
{
    (void)state;
    struct config_provider google = settings_of("google"), searxng = settings_of("searxng");
    struct config_provider unknown = settings_of("altavista");
    assert_refused(&google, NULL, "x", "needs `engine_key`");
    google.engine_cx = NULL;
    assert_refused(&google, KEY, "x", "needs `engine_cx`");
    searxng.engine_url = NULL;
    assert_refused(&searxng, NULL, "x", "needs `engine_url`");
    assert_refused(&unknown, NULL, "x", "no search engine `altavista`");
    struct config_provider sound = settings_of("searxng");
    assert_refused(&sound, NULL, "```\ncode\n```", "no words to search for");
}

/* An engine's pace and what is remembered are of the test before. */
static int forget(void **state)
{
    (void)state;
    searches_free(&searches);
    searches = searches_new(&loop, http);
    return 0;
}

static int setup(void **state)
{
    struct err err;
    sim_group_setup(state);
    snprintf(base, sizeof base, "http://127.0.0.1:%d", sim_port);
    loop_init(&loop);
    assert_int_equal(http_open(&http, &loop, &err), 0);
    return 0;
}

static int teardown(void **state)
{
    free(last.results);
    searches_free(&searches);
    http_close(&http);
    loop_finish(&loop);
    return sim_group_teardown(state);
}

#define TEST(name) cmocka_unit_test_setup(name, forget)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_engine_finds_what_there_is),
        TEST(no_more_results_than_asked_for),
        TEST(the_scenario_decides_what_is_found),
        TEST(nothing_found_is_said),
        TEST(quirk_18_a_bot_check_is_a_failure),
        TEST(quirk_18_searxng_without_json_is_told_its_cure),
        TEST(the_key_is_in_no_sentence),
        TEST(broken_answers_are_failures),
        TEST(a_server_that_is_not_there_is_said),
        TEST(an_answer_without_bounds_is_cut_off),
        TEST(silence_ends_at_the_deadline),
        TEST(a_cancelled_search_is_silent),
        TEST(a_callback_may_cancel_and_free),
        TEST(the_same_question_is_asked_once),
        TEST(duckduckgo_is_asked_once_a_second),
        TEST(who_would_wait_past_the_deadline_is_told_at_once),
        TEST(what_cannot_be_asked_is_refused_at_once),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
