#include "workers/rate_headers.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "workers/retry_after.h"

#define DIGITS_MAX 15 /* more of them are nonsense */

struct row {
    const char *limit, *remaining, *reset;
};

#define OPENAI(kind)                                                                               \
    {                                                                                              \
        "x-ratelimit-limit-" kind, "x-ratelimit-remaining-" kind, "x-ratelimit-reset-" kind        \
    }
#define ANTHROPIC(kind)                                                                            \
    {                                                                                              \
        "anthropic-ratelimit-" kind "-limit", "anthropic-ratelimit-" kind "-remaining",            \
            "anthropic-ratelimit-" kind "-reset"                                                   \
    }
#define PLAIN(prefix)                                                                              \
    {                                                                                              \
        prefix "ratelimit-limit", prefix "ratelimit-remaining", prefix "ratelimit-reset"           \
    }

static const struct row requests[] = {
    OPENAI("requests"),
    ANTHROPIC("requests"),
    PLAIN("x-"),
    PLAIN(""),
};
static const struct row tokens[] = {
    OPENAI("tokens"),
    ANTHROPIC("tokens"),
    ANTHROPIC("input-tokens"),
    ANTHROPIC("output-tokens"),
};

struct limit {
    int64_t limit, remaining, reset_ms; /* -1: not said */
};

/* A count, before what some servers add: "100;w=60", "100, 100;w=60". */
static int64_t read_count(const struct http_headers *headers, const char *name)
{
    const char *text = http_header(headers, name);
    if (text == NULL)
        return -1;
    size_t len = strspn(text, "0123456789");
    if (len == 0 || len > DIGITS_MAX || (text[len] != '\0' && strchr(",; ", text[len]) == NULL))
        return -1;
    return strtoll(text, NULL, 10);
}

static struct limit read_row(const struct http_headers *headers, const struct row *row,
                             int64_t now_ms)
{
    const char *reset = http_header(headers, row->reset);
    return (struct limit){
        .limit = read_count(headers, row->limit),
        .remaining = read_count(headers, row->remaining),
        .reset_ms = reset != NULL ? retry_after_value(reset, now_ms) : -1,
    };
}

static bool is_tighter(const struct limit *a, const struct limit *b)
{
    if (a->remaining < 0 && b->remaining < 0)
        return a->reset_ms >= 0 && b->reset_ms < 0;
    if (a->remaining < 0 || b->remaining < 0)
        return b->remaining < 0;
    if (a->remaining == 0 || b->remaining == 0)
        return a->remaining == 0 && (b->remaining > 0 || a->reset_ms > b->reset_ms);
    if (a->limit > 0 && b->limit > 0)
        return (double)a->remaining / (double)a->limit < (double)b->remaining / (double)b->limit;
    return a->remaining < b->remaining;
}

static struct limit read_tightest(const struct http_headers *headers, const struct row *rows,
                                  size_t n_rows, int64_t now_ms)
{
    struct limit tightest = read_row(headers, &rows[0], now_ms);
    for (size_t i = 1; i < n_rows; i++) {
        struct limit limit = read_row(headers, &rows[i], now_ms);
        if (is_tighter(&limit, &tightest))
            tightest = limit;
    }
    return tightest;
}

void rate_headers_read(struct governor_server *ret, const struct http_headers *headers,
                       int64_t now_wall_ms)
{
    int64_t now_ms = retry_after_now(headers, now_wall_ms);
    struct limit calls =
        read_tightest(headers, requests, sizeof requests / sizeof *requests, now_ms);
    struct limit amount = read_tightest(headers, tokens, sizeof tokens / sizeof *tokens, now_ms);
    *ret = (struct governor_server){
        .limit_requests = calls.limit,
        .remaining_requests = calls.remaining,
        .reset_requests_ms = calls.reset_ms,
        .limit_tokens = amount.limit,
        .remaining_tokens = amount.remaining,
        .reset_tokens_ms = amount.reset_ms,
    };
}
