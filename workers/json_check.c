#include "workers/json_check.h"

#include <string.h>

#include "workers/swar.h"

/* Value of a hexadecimal digit, -1 when it is none. */
static int hex_digit(char c)
{
    if (json_check_is_digit(c))
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int json_check_hex(const char *at, const char *end)
{
    if (end - at < 4)
        return -1;
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(at[i]);
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The check_ functions take the first byte of a value and return the place behind it; NULL when it
 * is not valid. */

/* The next quote, backslash or control character of a string; `end` when there is none. */
static const char *next_special(const char *at, const char *end)
{
    for (; end - at >= SWAR_BYTES; at += SWAR_BYTES) {
        swar_block block = swar_load(at);
        swar_mask special = swar_equal(block, '"') | swar_equal(block, '\\') | swar_control(block);
        if (special != 0)
            return at + swar_first(special);
    }
    while (at < end && *at != '"' && *at != '\\' && (unsigned char)*at >= 0x20)
        at++;
    return at;
}

/* What stands behind a backslash; returns its last byte. */
static const char *check_escape(const char *at, const char *end)
{
    if (at == end)
        return NULL;
    switch (*at) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return at;
    case 'u':
        return json_check_hex(at + 1, end) >= 0 ? at + 4 : NULL;
    default:
        return NULL;
    }
}

static const char *check_long_string(const char *at, const char *end)
{
    for (at++; (at = next_special(at, end)) < end; at++) {
        if (*at == '"')
            return at + 1;
        if (*at != '\\' || (at = check_escape(at + 1, end)) == NULL)
            return NULL;
    }
    return NULL;
}

/* Most strings are names, which lie in one block without escapes. */
static inline const char *check_string(const char *at, const char *end)
{
    if (end - at > SWAR_BYTES) {
        swar_block block = swar_load(at + 1);
        swar_mask quotes = swar_equal(block, '"');
        swar_mask others = swar_equal(block, '\\') | swar_control(block);
        if (quotes != 0 && (others == 0 || swar_first(others) > swar_first(quotes)))
            return at + 2 + swar_first(quotes);
    }
    return check_long_string(at, end);
}

static const char *check_digits(const char *at, const char *end)
{
    const char *from = at;
    while (at < end && json_check_is_digit(*at))
        at++;
    return at > from ? at : NULL;
}

static const char *check_number(const char *at, const char *end)
{
    if (*at == '-')
        at++;
    if (at < end && *at == '0')
        at++;
    else if ((at = check_digits(at, end)) == NULL)
        return NULL;
    if (at < end && *at == '.' && (at = check_digits(at + 1, end)) == NULL)
        return NULL;
    if (at == end || (*at | 0x20) != 'e')
        return at;
    at++;
    if (at < end && (*at == '+' || *at == '-'))
        at++;
    return check_digits(at, end);
}

static const char *check_word(const char *at, const char *end, const char *word)
{
    size_t len = strlen(word);
    return (size_t)(end - at) >= len && memcmp(at, word, len) == 0 ? at + len : NULL;
}

static const char *check_value(const char *at, const char *end, int depth,
                               struct json_view_ends *ends);

/* `"key" :` with white space around it; NULL when it is not there. */
static const char *check_key(const char *at, const char *end)
{
    if (at == end || *at != '"' || (at = check_string(at, end)) == NULL)
        return NULL;
    at = json_check_skip_space(at, end);
    return at < end && *at == ':' ? json_check_skip_space(at + 1, end) : NULL;
}

static const char *check_items(const char *at, const char *end, int depth,
                               struct json_view_ends *ends)
{
    bool object = *at == '{';
    char close = object ? '}' : ']';
    at = json_check_skip_space(at + 1, end);
    if (at < end && *at == close)
        return at + 1;
    for (;;) {
        if (object && (at = check_key(at, end)) == NULL)
            return NULL;
        if ((at = check_value(at, end, depth + 1, ends)) == NULL)
            return NULL;
        at = json_check_skip_space(at, end);
        if (at < end && *at == close)
            return at + 1;
        if (at == end || *at != ',')
            return NULL;
        at = json_check_skip_space(at + 1, end);
    }
}

static const char *check_container(const char *at, const char *end, int depth,
                                   struct json_view_ends *ends)
{
    if (depth == JSON_VIEW_MAX_DEPTH)
        return NULL;
    if (ends == NULL || ends->n == JSON_VIEW_ENDS)
        return check_items(at, end, depth, ends);
    size_t place = ends->n++;
    ends->list[place].from = at;
    return ends->list[place].to = check_items(at, end, depth, ends);
}

static const char *check_value(const char *at, const char *end, int depth,
                               struct json_view_ends *ends)
{
    if (at == end)
        return NULL;
    switch (*at) {
    case '{':
    case '[':
        return check_container(at, end, depth, ends);
    case '"':
        return check_string(at, end);
    case 'n':
        return check_word(at, end, "null");
    case 't':
        return check_word(at, end, "true");
    case 'f':
        return check_word(at, end, "false");
    default:
        return *at == '-' || json_check_is_digit(*at) ? check_number(at, end) : NULL;
    }
}

const char *json_check_value(const char *at, const char *end, struct json_view_ends *ends)
{
    return check_value(at, end, 0, ends);
}
