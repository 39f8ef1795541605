#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/lib/http_server.h"
#include "workers/exchange.h"

#define KEY "sk-secret-1234567890"

struct outcome {
    bool done;
    enum error_class error;
    char error_text[512];
    char text[128];
    char model[128];
    int64_t retry_after_ms, prompt_tokens;
    struct exchange_report report; /* reply is gone */
};

static uv_loop_t loop;
static struct exchanges *exchanges;
static struct http_server *server;
static struct key *key;

static int setup(void **state)
{
    (void)state;
    struct err err;
    setenv("EXCHANGE_KEY", KEY, 1);
    loop = (uv_loop_t){0};
    loop_init(&loop);
    server = http_server_start();
    assert_int_equal(exchanges_open(&exchanges, &loop, &err), 0);
    assert_int_equal(key_read(&key, "env:EXCHANGE_KEY", &err), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    exchanges_close(&exchanges);
    http_server_stop(&server);
    key_drop(&key);
    loop_finish(&loop);
    return 0;
}

static void finished(void *ctx, struct exchange_report *report)
{
    struct outcome *outcome = ctx;
    const struct provider_reply *reply = report->reply;
    assert_false(outcome->done);
    outcome->done = true;
    outcome->error = reply->error;
    snprintf(outcome->error_text, sizeof outcome->error_text, "%s", reply->error_text);
    snprintf(outcome->text, sizeof outcome->text, "%s",
             reply->text.data != NULL ? reply->text.data : "");
    snprintf(outcome->model, sizeof outcome->model, "%s", reply->model);
    outcome->retry_after_ms = reply->retry_after_ms;
    outcome->prompt_tokens = reply->prompt_tokens;
    outcome->report = *report;
}

static struct exchange *begin(struct outcome *outcome, const char *base_url,
                              struct exchange_limits limits)
{
    struct exchange *exchange = NULL;
    struct err err = {0};
    struct exchange_options options = {
        .provider = provider_find("openai"),
        .key = key,
        .limits = limits,
        .call = {.base_url = base_url,
                 .model = "test-model",
                 .system = "",
                 .prompt = "say it",
                 .prompt_len = 6,
                 .temperature = -1,
                 .stream = true},
    };
    *outcome = (struct outcome){0};
    if (exchange_start(&exchange, exchanges, &options, finished, outcome, &err) != 0)
        fail_msg("%s", err.text);
    return exchange;
}

static const char *url_of(const char *manner)
{
    static char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/%s", http_server_port(server), manner);
    return url;
}

static struct outcome ask(const char *manner, struct exchange_limits limits)
{
    struct outcome outcome;
    begin(&outcome, url_of(manner), limits);
    assert_int_equal(loop_run_until(&loop, &outcome.done, 20000), 0);
    return outcome;
}

static struct outcome assert_fails(const char *manner, struct exchange_limits limits,
                                   enum error_class class_, const char *says)
{
    struct outcome outcome = ask(manner, limits);
    if (outcome.error != class_ || strstr(outcome.error_text, says) == NULL)
        fail_msg("%s: %s", error_class_name(outcome.error), outcome.error_text);
    return outcome;
}

static void a_stream_gives_text_usage_and_times(void **state)
{
    (void)state;
    struct outcome outcome = ask("ok", (struct exchange_limits){0});
    assert_int_equal(outcome.error, CLASS_NONE);
    assert_string_equal(outcome.text, "one two three");
    assert_string_equal(outcome.model, "test-model");
    assert_int_equal(outcome.prompt_tokens, 10);
    assert_int_equal(outcome.report.http_status, 200);
    assert_true(outcome.report.ttft_ms >= 0);
    assert_true(outcome.report.connect_ms > 0);
    assert_true(outcome.report.total_ms >= outcome.report.ttft_ms);
    assert_true(outcome.report.received_bytes > 500);
    assert_true(outcome.report.sent_bytes > 50);
}

static void the_request_has_the_key_and_the_prompt(void **state)
{
    (void)state;
    struct buf last = {0};
    ask("ok", (struct exchange_limits){0});
    http_server_last(server, &last);
    assert_non_null(strstr(last.data, "POST /ok/v1/chat/completions HTTP/1.1\r\n"));
    assert_non_null(strstr(last.data, "Bearer " KEY "\r\n"));
    assert_non_null(strcasestr(last.data, "content-type: application/json\r\n"));
    assert_null(strcasestr(last.data, "expect:"));
    assert_non_null(strstr(last.data, "say it"));
    buf_release(&last);
}

static void connections_are_used_again(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct outcome outcome = ask("ok", (struct exchange_limits){0});
        assert_int_equal(outcome.error, CLASS_NONE);
        assert_int_equal(outcome.report.connect_ms > 0, i == 0);
    }
    assert_int_equal(http_server_connections(server), 1);
}

static void a_whole_document_is_taken_though_a_stream_was_asked_for(void **state)
{
    (void)state;
    struct outcome outcome = ask("whole", (struct exchange_limits){0});
    assert_int_equal(outcome.error, CLASS_NONE);
    assert_string_equal(outcome.text, "one two three");
    assert_true(outcome.report.ttft_ms < 0);
}

static void an_answer_that_never_comes_times_out(void **state)
{
    (void)state;
    assert_fails("stall", (struct exchange_limits){.first_token_ms = 200}, CLASS_TIMEOUT,
                 "no token within 200 ms");
    assert_true(http_server_wait_hangups(server, 1));
}

static void comments_are_no_tokens(void **state)
{
    (void)state;
    assert_fails("comments", (struct exchange_limits){.first_token_ms = 300, .gap_ms = 250},
                 CLASS_TIMEOUT, "no token within 300 ms");
}

static void silence_between_tokens_times_out(void **state)
{
    (void)state;
    struct outcome outcome = assert_fails("gap", (struct exchange_limits){.gap_ms = 200},
                                          CLASS_TIMEOUT, "nothing came for 200 ms");
    assert_true(outcome.report.ttft_ms >= 0);
}

static void comments_end_a_gap(void **state)
{
    (void)state;
    struct outcome outcome = ask("drip", (struct exchange_limits){.gap_ms = 500});
    assert_int_equal(outcome.error, CLASS_NONE);
    assert_true(outcome.report.generate_ms >= 600); /* longer than the gap allowed */
}

static void a_stream_may_be_bulky_as_long_as_its_text_is_not(void **state)
{
    (void)state;
    struct outcome outcome = ask("bulky", (struct exchange_limits){0});
    assert_string_equal(outcome.error_text, "");
    assert_string_equal(outcome.text, "one two three");
    assert_true(outcome.report.received_bytes > EXCHANGE_MAX_BYTES);
}

/* bad_request moves on; bad_response would have it made and paid for again. */
static void an_answer_that_is_too_large_is_not_asked_for_again(void **state)
{
    (void)state;
    struct exchange_limits none = {0};
    assert_fails("talkative", none, CLASS_BAD_REQUEST, "larger than 16 MiB: set max_tokens");
    assert_fails("endless", none, CLASS_BAD_REQUEST, "larger than 64 MiB: set max_tokens");
}

static void a_stream_that_never_pauses_holds_up_no_other(void **state)
{
    (void)state;
    struct outcome torrent;
    struct exchange *exchange = begin(&torrent, url_of("torrent"), (struct exchange_limits){0});
    for (int i = 0; i < 3 && !torrent.done; i++)
        assert_int_equal(ask("ok", (struct exchange_limits){.total_ms = 10000}).error, CLASS_NONE);
    assert_false(torrent.done);
    exchange_cancel(&exchange);
}

static void the_whole_call_has_a_limit(void **state)
{
    (void)state;
    assert_fails("comments", (struct exchange_limits){.total_ms = 250}, CLASS_TIMEOUT,
                 "not finished within 250 ms");
}

/* A listener whose queue is full answers no more connections. */
static void a_connection_that_does_not_come_times_out(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0), fillers[8];
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 0), 0);
    getsockname(listener, (struct sockaddr *)&address, &len);
    for (size_t i = 0; i < 8; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fillers[i], (struct sockaddr *)&address, len);
    }
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", ntohs(address.sin_port));
    struct outcome outcome;
    begin(&outcome, url, (struct exchange_limits){.connect_ms = 200});
    assert_int_equal(loop_run_until(&loop, &outcome.done, 20000), 0);
    assert_int_equal(outcome.error, CLASS_TIMEOUT);
    assert_string_equal(outcome.error_text, "no connection within 200 ms");
    for (size_t i = 0; i < 8; i++)
        close(fillers[i]);
    close(listener);
}

static void nobody_listening_is_worth_a_retry(void **state)
{
    (void)state;
    struct outcome outcome;
    begin(&outcome, "http://127.0.0.1:1", (struct exchange_limits){0});
    assert_int_equal(loop_run_until(&loop, &outcome.done, 20000), 0);
    assert_int_equal(outcome.error, CLASS_RETRY);
    assert_non_null(strstr(outcome.error_text, "no connection"));
}

static void broken_answers_are_never_success(void **state)
{
    (void)state;
    struct exchange_limits none = {0};
    assert_fails("truncate", none, CLASS_BAD_RESPONSE, "in the middle of the answer");
    assert_fails("unfinished", none, CLASS_BAD_RESPONSE, "");
    assert_fails("html", none, CLASS_BAD_RESPONSE, "");
    assert_fails("garbage", none, CLASS_RETRY, "");
    assert_fails("reset", none, CLASS_RETRY, "before an answer");
    assert_fails("flood", none, CLASS_BAD_RESPONSE, "larger than 8 MiB");
}

static void an_error_inside_a_stream_stops_it(void **state)
{
    (void)state;
    struct outcome outcome = ask("error", (struct exchange_limits){0});
    assert_int_not_equal(outcome.error, CLASS_NONE);
    assert_non_null(strstr(outcome.error_text, "the engine died"));
    assert_true(http_server_wait_hangups(server, 1));
}

static void statuses_become_classes(void **state)
{
    (void)state;
    struct exchange_limits none = {0};
    struct outcome outcome = assert_fails("limited", none, CLASS_RATE_LIMITED, "Rate limit");
    assert_int_equal(outcome.retry_after_ms, 7000);
    assert_int_equal(outcome.report.http_status, 429);
    assert_fails("broken", none, CLASS_RETRY, "boom");
    assert_fails("moved", none, CLASS_BAD_REQUEST, "base_url");
}

static void a_key_that_the_server_quotes_is_not_shown(void **state)
{
    (void)state;
    struct outcome outcome =
        assert_fails("unauthorized", (struct exchange_limits){0}, CLASS_AUTH, "Incorrect API key");
    assert_null(strstr(outcome.error_text, "secret"));
}

static void a_stream_that_lingers_after_its_finish_is_success(void **state)
{
    (void)state;
    struct outcome outcome = ask("linger", (struct exchange_limits){.gap_ms = 100});
    assert_int_equal(outcome.error, CLASS_NONE);
    assert_string_equal(outcome.text, "one two three");
}

static void a_cancelled_call_hangs_up_and_says_nothing(void **state)
{
    (void)state;
    struct outcome outcome, other;
    struct exchange *exchange = begin(&outcome, url_of("hold"), (struct exchange_limits){0});
    while (exchange_reply(exchange)->text.len == 0)
        uv_run(&loop, UV_RUN_ONCE);
    exchange_cancel(&exchange);
    assert_null(exchange);
    assert_true(http_server_wait_hangups(server, 1));
    begin(&other, url_of("ok"), (struct exchange_limits){0});
    assert_int_equal(loop_run_until(&loop, &other.done, 20000), 0);
    assert_false(outcome.done);
    assert_int_equal(exchanges_running(exchanges), 0);
}

static void closing_ends_what_is_in_flight(void **state)
{
    (void)state;
    struct outcome outcome;
    struct err err;
    struct exchange *exchange = begin(&outcome, url_of("hold"), (struct exchange_limits){0});
    while (exchange_reply(exchange)->text.len == 0)
        uv_run(&loop, UV_RUN_ONCE);
    exchanges_close(&exchanges);
    assert_false(outcome.done);
    assert_int_equal(exchanges_open(&exchanges, &loop, &err), 0);
}

static void many_calls_run_at_once(void **state)
{
    (void)state;
    static struct outcome outcomes[200];
    for (size_t i = 0; i < 200; i++)
        begin(&outcomes[i], url_of("hold"), (struct exchange_limits){.gap_ms = 60000});
    assert_int_equal(exchanges_running(exchanges), 200);
    bool never = false;
    for (int tries = 0; tries < 1000 && http_server_requests(server) < 200; tries++)
        loop_run_until(&loop, &never, 10);
    http_server_release(server);
    for (size_t i = 0; i < 200; i++) {
        assert_int_equal(loop_run_until(&loop, &outcomes[i].done, 30000), 0);
        assert_int_equal(outcomes[i].error, CLASS_NONE);
    }
}

static void a_provider_without_http_answers_at_once(void **state)
{
    (void)state;
    struct outcome outcome = {0};
    struct exchange *exchange = NULL;
    struct exchange_options options = {.provider = provider_find("noop"),
                                       .call = {.prompt = "x", .prompt_len = 1, .system = ""}};
    assert_int_equal(exchange_start(&exchange, exchanges, &options, finished, &outcome, NULL), 0);
    assert_true(outcome.done);
    assert_int_equal(outcome.error, CLASS_NONE);
    assert_string_equal(outcome.text, "ok");
    assert_int_equal(exchanges_running(exchanges), 0);
}

static void an_address_that_is_none_is_refused_at_once(void **state)
{
    (void)state;
    struct outcome outcome = {0};
    struct exchange *exchange = NULL;
    struct err err = {0};
    struct exchange_options options = {
        .provider = provider_find("openai"),
        .key = key,
        .call = {
            .base_url = "ftp://x", .model = "m", .system = "", .prompt = "p", .prompt_len = 1}};
    assert_int_equal(exchange_start(&exchange, exchanges, &options, finished, &outcome, &err),
                     -EINVAL);
    assert_true(err.text[0] != '\0');
    assert_false(outcome.done);
    assert_int_equal(exchanges_running(exchanges), 0);
}

#define EXCHANGE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    log_init("test", LOG_LEVEL_WARN);
    const struct CMUnitTest tests[] = {
        EXCHANGE_TEST(a_stream_gives_text_usage_and_times),
        EXCHANGE_TEST(the_request_has_the_key_and_the_prompt),
        EXCHANGE_TEST(connections_are_used_again),
        EXCHANGE_TEST(a_whole_document_is_taken_though_a_stream_was_asked_for),
        EXCHANGE_TEST(an_answer_that_never_comes_times_out),
        EXCHANGE_TEST(comments_are_no_tokens),
        EXCHANGE_TEST(silence_between_tokens_times_out),
        EXCHANGE_TEST(comments_end_a_gap),
        EXCHANGE_TEST(a_stream_may_be_bulky_as_long_as_its_text_is_not),
        EXCHANGE_TEST(a_stream_that_never_pauses_holds_up_no_other),
        EXCHANGE_TEST(an_answer_that_is_too_large_is_not_asked_for_again),
        EXCHANGE_TEST(the_whole_call_has_a_limit),
        EXCHANGE_TEST(a_connection_that_does_not_come_times_out),
        EXCHANGE_TEST(nobody_listening_is_worth_a_retry),
        EXCHANGE_TEST(broken_answers_are_never_success),
        EXCHANGE_TEST(an_error_inside_a_stream_stops_it),
        EXCHANGE_TEST(statuses_become_classes),
        EXCHANGE_TEST(a_key_that_the_server_quotes_is_not_shown),
        EXCHANGE_TEST(a_stream_that_lingers_after_its_finish_is_success),
        EXCHANGE_TEST(a_cancelled_call_hangs_up_and_says_nothing),
        EXCHANGE_TEST(closing_ends_what_is_in_flight),
        EXCHANGE_TEST(many_calls_run_at_once),
        EXCHANGE_TEST(a_provider_without_http_answers_at_once),
        EXCHANGE_TEST(an_address_that_is_none_is_refused_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
