/* retry_after: the many ways in which a server says how long to wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "workers/retry_after.h"

#define NOW INT64_C(1795000000000) /* 2026-11-18T11:06:40Z */

struct spoken {
    const char *text;
    int64_t ms;
};

static void durations_are_understood(void **state)
{
    (void)state;
    static const struct spoken cases[] = {
        {"6m0s", 360000}, {"20ms", 20},
        {"2s", 2000},     {"1h2m3.5s", 3723500},
        {"12.5s", 12500}, {"0s", 0},
        {"500us", 1},     {"1.2ms", 2},
        {"1d", 86400000}, {"30 seconds", 30000},
        {"1m30s", 90000}, {"37.123456789s", 37124},
        {"", -1},         {"5", -1},
        {"s", -1},        {"1x", -1},
        {"1s2", -1},      {"-1s", -1},
        {"inf", -1},      {"0x10s", -1},
        {"1..2s", -1},    {"99999999999h", RETRY_AFTER_MAX_MS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (retry_after_duration(cases[i].text) != cases[i].ms)
            print_message("%s\n", cases[i].text);
        assert_int_equal(retry_after_duration(cases[i].text), cases[i].ms);
    }
}

static void sentences_are_understood(void **state)
{
    (void)state;
    static const struct spoken cases[] = {
        {"Rate limit reached. Please try again in 20ms. Visit ...", 20},
        {"Please try again in 1m30.5s.", 90500},
        {"Quota exceeded. Please retry in 12.5s.", 12500},
        {"Please retry after 26 seconds.", 26000},
        {"Requests exceeded. TRY AGAIN IN 7.66s", 7660},
        {"Please try again in a while", -1},
        {"Please try again later", -1},
        {"", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(retry_after_message(cases[i].text), cases[i].ms);
}

static void values_are_seconds_dates_or_durations(void **state)
{
    (void)state;
    static const struct spoken cases[] = {
        {"2", 2000},
        {"1.5", 1500},
        {"0", 0},
        {"3600", 3600000},
        {"6m0s", 360000},
        {"1795000010", 10000},
        {"1795000010500", 10500},
        {"1794999999", 0},
        {"Wed, 18 Nov 2026 11:06:50 GMT", 10000},
        {"Wed, 18 Nov 2026 11:06:30 GMT", 0},
        {"Wednesday, 18-Nov-26 11:06:50 GMT", 10000},
        {"Wed Nov 18 11:06:50 2026", 10000},
        {"2026-11-18T11:06:50Z", 10000},
        {"2026-11-18T11:06:50.25Z", 10250},
        {"2026-11-18T12:06:50+01:00", 10000},
        {"2026-11-18T10:06:50-01:00", 10000},
        {"2026-11-18T11:06:50", -1},
        {"2026-11-18T11:06:50+x", -1},
        {"soon", -1},
        {"", -1},
        {"-5", -1},
        {"1e9", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (retry_after_value(cases[i].text, NOW) != cases[i].ms)
            print_message("%s\n", cases[i].text);
        assert_int_equal(retry_after_value(cases[i].text, NOW), cases[i].ms);
    }
}

static int64_t headers(int64_t (*read)(const struct http_headers *, int64_t), const char *lines)
{
    struct http_headers headers = {0};
    while (*lines != '\0') {
        size_t len = strcspn(lines, "\n");
        http_headers_add(&headers, lines, len);
        lines += len + (lines[len] == '\n');
    }
    int64_t ms = read(&headers, NOW);
    http_headers_release(&headers);
    return ms;
}

static void milliseconds_win_over_seconds(void **state)
{
    (void)state;
    assert_int_equal(headers(retry_after_headers, "Retry-After: 2\nRetry-After-Ms: 1500\n"), 1500);
    assert_int_equal(headers(retry_after_headers, "retry-after-ms: x\nretry-after: 2\n"), 2000);
    assert_int_equal(headers(retry_after_headers, "date: x\n"), -1);
    assert_int_equal(headers(retry_after_headers, ""), -1);
}

static void delay_above_a_minute_is_kept(void **state)
{
    (void)state;
    assert_int_equal(headers(retry_after_headers, "retry-after: 7200\n"), 7200000);
}

static void date_is_compared_with_the_servers_own_clock(void **state)
{
    (void)state;
    assert_int_equal(headers(retry_after_headers, "Date: Thu, 01 Jan 2026 00:00:00 GMT\n"
                                                  "Retry-After: Thu, 01 Jan 2026 00:00:30 GMT\n"),
                     30000);
}

static void resets_count_for_limits_that_are_used_up(void **state)
{
    (void)state;
    assert_int_equal(headers(retry_after_resets, "x-ratelimit-remaining-requests: 0\n"
                                                 "x-ratelimit-reset-requests: 6m0s\n"
                                                 "x-ratelimit-remaining-tokens: 10\n"
                                                 "x-ratelimit-reset-tokens: 1h\n"),
                     360000);
    assert_int_equal(headers(retry_after_resets,
                             "anthropic-ratelimit-requests-remaining: 0\n"
                             "anthropic-ratelimit-requests-reset: 2026-11-18T11:06:50Z\n"
                             "anthropic-ratelimit-input-tokens-remaining: 0\n"
                             "anthropic-ratelimit-input-tokens-reset: 2026-11-18T11:07:00Z\n"),
                     20000);
    assert_int_equal(headers(retry_after_resets, "x-ratelimit-remaining-requests: 1\n"
                                                 "x-ratelimit-reset-requests: 6m0s\n"),
                     -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_understood),
        cmocka_unit_test(sentences_are_understood),
        cmocka_unit_test(values_are_seconds_dates_or_durations),
        cmocka_unit_test(milliseconds_win_over_seconds),
        cmocka_unit_test(delay_above_a_minute_is_kept),
        cmocka_unit_test(date_is_compared_with_the_servers_own_clock),
        cmocka_unit_test(resets_count_for_limits_that_are_used_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
