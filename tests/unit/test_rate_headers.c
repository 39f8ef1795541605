/* rate_headers: what servers say of their rate limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "workers/rate_headers.h"
#include "workers/retry_after.h"

#define NOW INT64_C(1795000000000) /* 2026-11-18T11:06:40Z */

static struct governor_server read_lines(const char *const *lines)
{
    struct http_headers headers = {{0}};
    struct governor_server server;
    memset(&server, 0x55, sizeof server);
    for (; *lines != NULL; lines++)
        http_headers_add(&headers, *lines, strlen(*lines));
    rate_headers_read(&server, &headers, NOW);
    http_headers_release(&headers);
    return server;
}
#define read(...) read_lines((const char *const[]){__VA_ARGS__, NULL})

static void check(struct governor_server server, int64_t limit_requests, int64_t requests,
                  int64_t requests_ms, int64_t limit_tokens, int64_t tokens, int64_t tokens_ms)
{
    assert_int_equal(server.limit_requests, limit_requests);
    assert_int_equal(server.remaining_requests, requests);
    assert_int_equal(server.reset_requests_ms, requests_ms);
    assert_int_equal(server.limit_tokens, limit_tokens);
    assert_int_equal(server.remaining_tokens, tokens);
    assert_int_equal(server.reset_tokens_ms, tokens_ms);
}

static void without_headers_nothing_is_said(void **state)
{
    (void)state;
    check(read("content-type: text/plain"), -1, -1, -1, -1, -1, -1);
}

static void openai_resets_are_durations(void **state)
{
    (void)state;
    check(read("x-ratelimit-limit-requests: 500", "x-ratelimit-remaining-requests: 499",
               "x-ratelimit-reset-requests: 120ms", "X-RateLimit-Limit-Tokens: 30000",
               "X-RateLimit-Remaining-Tokens: 0", "X-RateLimit-Reset-Tokens: 6m0s"),
          500, 499, 120, 30000, 0, 360000);
    assert_int_equal(read("x-ratelimit-reset-requests: 1h2m3.5s").reset_requests_ms, 3723500);
}

static void anthropic_resets_are_points_in_time(void **state)
{
    (void)state;
    check(read("date: Wed, 18 Nov 2026 11:06:40 GMT", "anthropic-ratelimit-requests-limit: 50",
               "anthropic-ratelimit-requests-remaining: 3",
               "anthropic-ratelimit-requests-reset: 2026-11-18T11:07:10Z",
               "anthropic-ratelimit-tokens-limit: 40000",
               "anthropic-ratelimit-tokens-remaining: 39000",
               "anthropic-ratelimit-tokens-reset: 2026-11-18T11:06:42Z"),
          50, 3, 30000, 40000, 39000, 2000);
}

static void points_in_time_are_compared_with_the_servers_own_clock(void **state)
{
    (void)state;
    assert_int_equal(read("date: Wed, 18 Nov 2026 10:00:00 GMT",
                          "anthropic-ratelimit-requests-reset: 2026-11-18T10:00:05Z")
                         .reset_requests_ms,
                     5000);
    assert_int_equal(
        read("anthropic-ratelimit-requests-reset: 2026-11-18T11:06:45Z").reset_requests_ms, 5000);
    assert_int_equal(
        read("anthropic-ratelimit-requests-reset: 2020-01-01T00:00:00Z").reset_requests_ms, 0);
}

static void the_tightest_of_several_limits_counts(void **state)
{
    (void)state;
    check(read("anthropic-ratelimit-tokens-limit: 40000",
               "anthropic-ratelimit-tokens-remaining: 30000",
               "anthropic-ratelimit-tokens-reset: 2026-11-18T11:06:41Z",
               "anthropic-ratelimit-input-tokens-limit: 40000",
               "anthropic-ratelimit-input-tokens-remaining: 10000",
               "anthropic-ratelimit-input-tokens-reset: 2026-11-18T11:06:42Z",
               "anthropic-ratelimit-output-tokens-limit: 8000",
               "anthropic-ratelimit-output-tokens-remaining: 7900",
               "anthropic-ratelimit-output-tokens-reset: 2026-11-18T11:06:43Z"),
          -1, -1, -1, 40000, 10000, 2000);
    check(read("anthropic-ratelimit-input-tokens-remaining: 0",
               "anthropic-ratelimit-input-tokens-reset: 2026-11-18T11:06:42Z",
               "anthropic-ratelimit-output-tokens-remaining: 0",
               "anthropic-ratelimit-output-tokens-reset: 2026-11-18T11:06:43Z"),
          -1, -1, -1, -1, 0, 3000);
    assert_int_equal(read("anthropic-ratelimit-input-tokens-remaining: 900",
                          "anthropic-ratelimit-output-tokens-remaining: 100")
                         .remaining_tokens,
                     100);
}

static void plain_resets_are_seconds_or_unix_times(void **state)
{
    (void)state;
    check(read("ratelimit-limit: 100", "ratelimit-remaining: 7", "ratelimit-reset: 30"), 100, 7,
          30000, -1, -1, -1);
    check(read("x-ratelimit-limit: 100, 100;w=60", "x-ratelimit-remaining: 7",
               "x-ratelimit-reset: 1795000012"),
          100, 7, 12000, -1, -1, -1);
    assert_int_equal(read("x-ratelimit-reset: 1795000012500").reset_requests_ms, 12500);
}

static void hostile_values_are_ignored(void **state)
{
    (void)state;
    static const char *const counts[] = {
        "-1",     "",    "nan",  "0x10", "1e9", "9999999999999999999999999999999999999",
        "12tons", "1.5", " \t ", "+5",   "٣",   "12'34",
    };
    static const char *const resets[] = {"soon", "-5", "1..2s", "", "2026-99-99T99:99:99Z", "1x"};
    char line[128];
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        snprintf(line, sizeof line, "x-ratelimit-remaining-requests: %s", counts[i]);
        assert_int_equal(read(line).remaining_requests, -1);
        snprintf(line, sizeof line, "x-ratelimit-limit-tokens: %s", counts[i]);
        assert_int_equal(read(line).limit_tokens, -1);
    }
    for (size_t i = 0; i < sizeof resets / sizeof *resets; i++) {
        snprintf(line, sizeof line, "x-ratelimit-reset-tokens: %s", resets[i]);
        assert_int_equal(read(line).reset_tokens_ms, -1);
    }
    int64_t far = read("x-ratelimit-reset-requests: 99999999999999999h").reset_requests_ms;
    assert_true(far >= 0 && far <= RETRY_AFTER_MAX_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_headers_nothing_is_said),
        cmocka_unit_test(openai_resets_are_durations),
        cmocka_unit_test(anthropic_resets_are_points_in_time),
        cmocka_unit_test(points_in_time_are_compared_with_the_servers_own_clock),
        cmocka_unit_test(the_tightest_of_several_limits_counts),
        cmocka_unit_test(plain_resets_are_seconds_or_unix_times),
        cmocka_unit_test(hostile_values_are_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
