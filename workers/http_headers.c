#include "workers/http_headers.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

void http_headers_release(struct http_headers *headers)
{
    buf_release(&headers->pairs);
}

void http_headers_clear(struct http_headers *headers)
{
    buf_clear(&headers->pairs);
}

void http_headers_add(struct http_headers *headers, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len);
    if (colon == NULL || colon == line || memchr(line, '\0', len) != NULL)
        return;
    const char *value = colon + 1, *end = line + len;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && isspace((unsigned char)end[-1]))
        end--;
    size_t name_len = (size_t)(colon - line), value_len = (size_t)(end - value);
    if (headers->pairs.len + name_len + value_len + 2 > HTTP_HEADERS_MAX ||
        !buf_reserve(&headers->pairs, name_len + value_len + 2))
        return;
    buf_add(&headers->pairs, line, name_len);
    buf_add_char(&headers->pairs, '\0');
    buf_add(&headers->pairs, value, value_len);
    buf_add_char(&headers->pairs, '\0');
}

const char *http_header(const struct http_headers *headers, const char *name)
{
    const char *found = NULL;
    const char *at = headers->pairs.data, *end = at + headers->pairs.len;
    while (at < end) {
        const char *value = at + strlen(at) + 1;
        if (strcasecmp(at, name) == 0)
            found = value;
        at = value + strlen(value) + 1;
    }
    return found;
}

/* A decimal number of units of unit_ms; -1 when the text is anything else. */
static int64_t parse_number(const char *text, double unit_ms)
{
    size_t len = strspn(text, "0123456789.");
    if (len == 0 || text[len] != '\0' || !isdigit((unsigned char)text[0]))
        return -1;
    double ms = strtod(text, NULL) * unit_ms;
    return ms < (double)HTTP_RETRY_AFTER_MAX_MS ? (int64_t)ms : HTTP_RETRY_AFTER_MAX_MS;
}

/* RFC 9110, 5.6.7: the preferred form and the two that old servers send. */
static int64_t parse_date(const char *text, int64_t wall_ms)
{
    static const char *const forms[] = {
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct tm parts = {0};
        const char *end = strptime(text, forms[i], &parts);
        if (end == NULL || *end != '\0')
            continue;
        int64_t delay = (int64_t)timegm(&parts) * 1000 - wall_ms;
        if (delay < 0)
            return 0;
        return delay < HTTP_RETRY_AFTER_MAX_MS ? delay : HTTP_RETRY_AFTER_MAX_MS;
    }
    return -1;
}

int64_t http_retry_after_ms(const struct http_headers *headers, int64_t wall_ms)
{
    const char *value = http_header(headers, "retry-after-ms");
    int64_t delay = value != NULL ? parse_number(value, 1) : -1;
    if (delay >= 0)
        return delay;
    value = http_header(headers, "retry-after");
    if (value == NULL)
        return -1;
    delay = parse_number(value, 1000);
    return delay >= 0 ? delay : parse_date(value, wall_ms);
}
