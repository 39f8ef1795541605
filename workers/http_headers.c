#include "workers/http_headers.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

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
    if (headers->pairs.len == 0)
        return NULL;
    const char *at = headers->pairs.data, *end = at + headers->pairs.len;
    while (at < end) {
        const char *value = at + strlen(at) + 1;
        if (strcasecmp(at, name) == 0)
            found = value;
        at = value + strlen(value) + 1;
    }
    return found;
}
