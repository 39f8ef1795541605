#include "workers/retry_after.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* Longest spelling first: "m" would match where "ms" or "min" is meant. */
static const struct {
    const char *word;
    double ms;
} units[] = {
    {"milliseconds", 1}, {"minutes", 60e3}, {"minute", 60e3}, {"seconds", 1e3}, {"second", 1e3},
    {"hours", 3600e3},   {"hour", 3600e3},  {"mins", 60e3},   {"min", 60e3},    {"secs", 1e3},
    {"sec", 1e3},        {"ms", 1},         {"us", 1e-3},     {"µs", 1e-3},     {"ns", 1e-6},
    {"d", 24 * 3600e3},  {"h", 3600e3},     {"m", 60e3},      {"s", 1e3},
};

static int64_t to_ms(double ms)
{
    if (!(ms > 0)) /* also NaN */
        return 0;
    return ms < (double)RETRY_AFTER_MAX_MS ? (int64_t)ceil(ms - 1e-6) : RETRY_AFTER_MAX_MS;
}

/* Plain decimal digits with at most one point; strtod() alone would take hex, "inf" and more.
 * Returns what follows, NULL when no number is there. */
static const char *parse_number(const char *text, double *ret)
{
    size_t len = strspn(text, "0123456789");
    if (len == 0)
        return NULL;
    if (text[len] == '.' && isdigit((unsigned char)text[len + 1]))
        len += 1 + strspn(text + len + 1, "0123456789");
    char digits[64];
    if (len >= sizeof digits)
        return NULL;
    memcpy(digits, text, len);
    digits[len] = '\0';
    *ret = strtod(digits, NULL);
    return text + len;
}

/* Amount and unit; NULL when they are not there. */
static const char *parse_part(const char *text, double *ret_ms)
{
    double number;
    const char *at = parse_number(text, &number);
    if (at == NULL)
        return NULL;
    if (*at == ' ')
        at++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t len = strlen(units[i].word);
        if (strncasecmp(at, units[i].word, len) == 0) {
            *ret_ms = number * units[i].ms;
            return at + len;
        }
    }
    return NULL;
}

/* As many amounts with units as there are. */
static const char *parse_duration(const char *text, double *ret_ms)
{
    double sum = 0, part;
    const char *at = parse_part(text, &part);
    if (at == NULL)
        return NULL;
    for (const char *next = at; next != NULL; next = parse_part(at, &part)) {
        at = next;
        sum += part;
    }
    *ret_ms = sum;
    return at;
}

int64_t retry_after_duration(const char *text)
{
    double ms;
    const char *end = parse_duration(text, &ms);
    return end != NULL && *end == '\0' ? to_ms(ms) : -1;
}

int64_t retry_after_message(const char *message)
{
    static const char *const phrases[] = {"try again in ", "retry in ", "retry after ",
                                          "try again after ", "wait "};
    for (size_t i = 0; i < sizeof phrases / sizeof *phrases; i++) {
        const char *at = strcasestr(message, phrases[i]);
        double ms;
        if (at != NULL && parse_duration(at + strlen(phrases[i]), &ms) != NULL)
            return to_ms(ms);
    }
    return -1;
}

/* What may follow the seconds in RFC 3339: ".123", then Z or an offset. -1 when it is neither. */
static double parse_zone(const char *text)
{
    double fraction = 0;
    if (*text == '.') {
        char *end;
        if (!isdigit((unsigned char)text[1]))
            return -1;
        fraction = strtod(text, &end);
        text = end;
    }
    if (strcasecmp(text, "Z") == 0)
        return fraction;
    int hours, minutes, used = 0;
    char sign;
    if (sscanf(text, "%c%2d:%2d%n", &sign, &hours, &minutes, &used) != 3 || text[used] != '\0')
        return -1;
    double offset = hours * 3600.0 + minutes * 60.0;
    return sign == '-' ? fraction + offset : sign == '+' ? fraction - offset : -1;
}

/* Unix time in ms, NAN when the text is no time. */
static double parse_date(const char *text)
{
    static const struct {
        const char *format;
        bool zone; /* a zone follows; otherwise the text ends */
    } forms[] = {
        {"%a, %d %b %Y %H:%M:%S GMT", false}, /* the preferred form of RFC 9110 */
        {"%A, %d-%b-%y %H:%M:%S GMT", false}, /* and the two obsolete ones */
        {"%a %b %e %H:%M:%S %Y", false},
        {"%Y-%m-%dT%H:%M:%S", true},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct tm parts = {0};
        const char *rest = strptime(text, forms[i].format, &parts);
        if (rest == NULL || (!forms[i].zone && *rest != '\0'))
            continue;
        double zone = forms[i].zone ? parse_zone(rest) : 0;
        if (zone == -1)
            continue;
        return ((double)timegm(&parts) + zone) * 1000;
    }
    return NAN;
}

/* A plain number this large is a point in time, not a delay: it would be over thirty years. */
#define UNIX_TIME_S 1e9
#define UNIX_TIME_MS 1e12

int64_t retry_after_value(const char *value, int64_t now_ms)
{
    double number;
    const char *end = parse_number(value, &number);
    if (end != NULL && *end == '\0') {
        if (number >= UNIX_TIME_S)
            return to_ms((number >= UNIX_TIME_MS ? number : number * 1000) - (double)now_ms);
        return to_ms(number * 1000);
    }
    int64_t duration = retry_after_duration(value);
    if (duration >= 0)
        return duration;
    double date = parse_date(value);
    return isnan(date) ? -1 : to_ms(date - (double)now_ms);
}

int64_t retry_after_now(const struct http_headers *headers, int64_t wall_ms)
{
    const char *value = http_header(headers, "date");
    double date = value != NULL ? parse_date(value) : NAN;
    return isnan(date) ? wall_ms : (int64_t)date;
}

int64_t retry_after_headers(const struct http_headers *headers, int64_t wall_ms)
{
    const char *value = http_header(headers, "retry-after-ms");
    double ms;
    const char *end = value != NULL ? parse_number(value, &ms) : NULL;
    if (end != NULL && *end == '\0')
        return to_ms(ms);
    value = http_header(headers, "retry-after");
    return value != NULL ? retry_after_value(value, retry_after_now(headers, wall_ms)) : -1;
}

int64_t retry_after_resets(const struct http_headers *headers, int64_t wall_ms)
{
    static const struct {
        const char *remaining;
        const char *reset;
    } limits[] = {
        {"x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"},
        {"x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"},
        {"anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"},
        {"anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"},
        {"anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"},
        {"anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"},
    };
    int64_t latest = -1;
    int64_t now = retry_after_now(headers, wall_ms);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const char *remaining = http_header(headers, limits[i].remaining);
        const char *reset = http_header(headers, limits[i].reset);
        if (remaining == NULL || strcmp(remaining, "0") != 0 || reset == NULL)
            continue;
        int64_t delay = retry_after_value(reset, now);
        if (delay > latest)
            latest = delay;
    }
    return latest;
}
