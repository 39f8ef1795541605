#include "workers/json_view.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "workers/json_check.h"
#include "workers/swar.h"
#include "workers/utf8.h"

/* By the first byte of a checked value. */
static enum json_view_kind kind_of(char first)
{
    static const unsigned char kinds[128] = {
        ['{'] = JSON_VIEW_OBJECT, ['['] = JSON_VIEW_ARRAY, ['"'] = JSON_VIEW_STRING,
        ['n'] = JSON_VIEW_NULL,   ['t'] = JSON_VIEW_TRUE,  ['f'] = JSON_VIEW_FALSE,
    };
    unsigned char kind = kinds[first & 0x7f];
    return kind != JSON_VIEW_NONE ? (enum json_view_kind)kind : JSON_VIEW_NUMBER;
}

bool json_view_parse(struct json_view *ret, const char *text, size_t len)
{
    return json_view_parse_ends(ret, text, len, NULL);
}

bool json_view_parse_ends(struct json_view *ret, const char *text, size_t len,
                          struct json_view_ends *ends)
{
    *ret = (struct json_view){0};
    if (ends != NULL)
        ends->n = 0;
    if (len == 0)
        return false;
    const char *end = text + len;
    const char *from = json_check_skip_space(text, end);
    const char *to = json_check_value(from, end, ends);
    if (to == NULL || json_check_skip_space(to, end) != end)
        return false;
    *ret = (struct json_view){from, (size_t)(to - from), kind_of(*from), ends};
    return true;
}

/* The skip_ functions walk over bytes that json_view_parse() has checked. */

/* Whether the byte is escaped: by an odd number of backslashes before it. What is before a string's
 * inside is its quote, so that the search ends there. */
static bool is_escaped(const char *at)
{
    const char *from = at;
    while (from[-1] == '\\')
        from--;
    return (at - from) % 2 != 0;
}

/* The next quote. Names and short texts are searched here; for long ones memchr() is faster. */
static const char *next_quote(const char *at, const char *end)
{
    for (int i = 0; i < 4 && end - at >= SWAR_BYTES; i++, at += SWAR_BYTES) {
        swar_mask quotes = swar_equal(swar_load(at), '"');
        if (quotes != 0)
            return at + swar_first(quotes);
    }
    return memchr(at, '"', (size_t)(end - at));
}

static const char *skip_long_string(const char *at, const char *end)
{
    do
        at = next_quote(at + 1, end);
    while (is_escaped(at));
    return at + 1;
}

/* Most strings are names, which lie in one block. */
static inline const char *skip_string(const char *at, const char *end)
{
    if (end - at > SWAR_BYTES) {
        swar_mask quotes = swar_equal(swar_load(at + 1), '"');
        const char *quote = at + 1 + swar_first(quotes | SWAR_LAST);
        if (quotes != 0 && quote[-1] != '\\')
            return quote + 1;
    }
    return skip_long_string(at, end);
}

/* White space inside a container: its closing bracket ends it. */
static inline const char *skip_blank(const char *at)
{
    while ((unsigned char)*at <= ' ')
        at++;
    return at;
}

/* Searches for the closing bracket. */
static const char *skip_brackets(const char *at, const char *end)
{
    enum { OTHER, OPENS, CLOSES, QUOTE };
    static const unsigned char kinds[256] = {
        ['{'] = OPENS, ['['] = OPENS, ['}'] = CLOSES, [']'] = CLOSES, ['"'] = QUOTE,
    };
    for (int depth = 0;; at++) {
        unsigned char kind = kinds[(unsigned char)*at];
        if (kind == OTHER)
            continue;
        if (kind == QUOTE) {
            at = skip_string(at, end) - 1;
            continue;
        }
        depth += kind == OPENS ? 1 : -1;
        if (depth == 0)
            return at + 1;
    }
}

/* From an opening bracket. */
static const char *skip_container(const char *at, const char *end,
                                  const struct json_view_ends *ends)
{
    for (size_t i = 0; ends != NULL && i < ends->n; i++)
        if (ends->list[i].from == at)
            return ends->list[i].to;
    return skip_brackets(at, end);
}

static inline const char *skip_value(const char *at, const char *end,
                                     const struct json_view_ends *ends)
{
    if (*at == '"')
        return skip_string(at, end);
    if (*at == '{' || *at == '[')
        return skip_container(at, end, ends);
    while (at < end && *at != ',' && *at != '}' && *at != ']' && !json_check_is_space(*at))
        at++;
    return at;
}

/* One step of json_view_next() without its checks. `at` is the opening bracket, or what follows the
 * last value: a comma or the closing bracket. NULL at the end. */
static inline const char *step(const char *at, const struct json_view *container,
                               struct json_view *key, struct json_view *value)
{
    const char *end = container->text + container->len;
    if (*at == '}' || *at == ']')
        return NULL;
    at = skip_blank(at + 1);
    if (*at == '}' || *at == ']')
        return NULL;
    if (container->kind == JSON_VIEW_OBJECT) {
        const char *to = skip_string(at, end);
        *key = (struct json_view){at, (size_t)(to - at), JSON_VIEW_STRING, NULL};
        at = skip_blank(skip_blank(to) + 1); /* over the colon */
    }
    const char *to = skip_value(at, end, container->ends);
    *value = (struct json_view){at, (size_t)(to - at), kind_of(*at), container->ends};
    return skip_blank(to);
}

bool json_view_next(struct json_view *rest, struct json_view *key, struct json_view *value)
{
    struct json_view name = {0};
    if (rest->kind != JSON_VIEW_OBJECT && rest->kind != JSON_VIEW_ARRAY)
        return false;
    const char *at = step(rest->text, rest, &name, value);
    if (at == NULL)
        return false;
    if (key != NULL)
        *key = name;
    rest->len -= (size_t)(at - rest->text);
    rest->text = at;
    return true;
}

/* What a backslash and this letter stand for. */
static char escaped(char letter)
{
    switch (letter) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    default:
        return letter;
    }
}

/* One character of a string's inside, escapes resolved, as UTF-8. Returns its length; *at moves. */
static size_t next_char(const char **at, const char *end, char ret[4])
{
    const char *from = *at;
    unsigned code;
    if (*from != '\\') {
        size_t len = utf8_sequence(from, (size_t)(end - from));
        *at = from + (len > 0 ? len : 1);
        memcpy(ret, len > 0 ? from : UTF8_REPLACEMENT, len > 0 ? len : 3);
        return len > 0 ? len : 3;
    }
    if (from[1] != 'u') {
        ret[0] = escaped(from[1]);
        *at = from + 2;
        return 1;
    }
    code = (unsigned)json_check_hex(from + 2, end);
    *at = from + 6;
    if (code >= 0xd800 && code < 0xdc00 && end - *at >= 6 && from[6] == '\\' && from[7] == 'u') {
        unsigned low = (unsigned)json_check_hex(from + 8, end);
        if (low >= 0xdc00 && low < 0xe000) {
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            *at = from + 12;
        }
    }
    if (code == 0 || (code >= 0xd800 && code < 0xe000))
        code = 0xfffd;
    if (code < 0x80) {
        ret[0] = (char)code;
        return 1;
    }
    size_t len = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len - 1; i > 0; i--, code >>= 6)
        ret[i] = (char)(0x80 | (code & 0x3f));
    ret[0] = (char)(marks[len] | code);
    return len;
}

/* Copies what needs no look: ASCII without escapes. Returns its length. */
static size_t copy_plain(char *to, const char *from, const char *end)
{
    const char *at = from;
    for (; end - at >= SWAR_BYTES; at += SWAR_BYTES, to += SWAR_BYTES) {
        swar_block block = swar_load(at);
        swar_mask special = swar_high(block) | swar_equal(block, '\\');
        swar_store(to, block); /* what follows the special byte is written again */
        if (special != 0)
            return (size_t)(at - from) + swar_first(special);
    }
    while (at < end && *at != '\\' && (unsigned char)*at < 0x80)
        *to++ = *at++;
    return (size_t)(at - from);
}

bool json_view_text(struct json_view view, struct buf *out)
{
    if (view.kind != JSON_VIEW_STRING)
        return false;
    const char *at = view.text + 1, *end = view.text + view.len - 1;
    if (!buf_reserve(out, (size_t)(end - at)))
        return true;
    while (at < end) {
        /* No character is longer than what it is written as, but those that are no UTF-8. */
        if (out->cap - out->len <= (size_t)(end - at) && !buf_reserve(out, (size_t)(end - at)))
            return true;
        size_t plain = copy_plain(out->data + out->len, at, end);
        out->len += plain;
        at += plain;
        out->data[out->len] = '\0';
        if (at < end) {
            char utf8[4];
            size_t len = next_char(&at, end, utf8);
            buf_add(out, utf8, len);
        }
    }
    return true;
}

static bool name_equals(struct json_view key, const char *text, size_t len)
{
    const char *at = key.text + 1, *end = key.text + key.len - 1;
    size_t inside = (size_t)(end - at);
    if (inside == len && memcmp(at, text, len) == 0)
        return true; /* no text that is asked for has a backslash */
    if (memchr(at, '\\', inside) == NULL)
        return false;
    while (at < end) {
        char utf8[4];
        size_t add = next_char(&at, end, utf8);
        if (add > len || memcmp(utf8, text, add) != 0)
            return false;
        text += add;
        len -= add;
    }
    return len == 0;
}

bool json_view_equals(struct json_view view, const char *text)
{
    return view.kind == JSON_VIEW_STRING && name_equals(view, text, strlen(text));
}

bool json_view_copy(struct json_view view, char *ret, size_t cap)
{
    if (view.kind != JSON_VIEW_STRING)
        return false;
    const char *at = view.text + 1, *end = view.text + view.len - 1;
    size_t len = 0;
    while (at < end) {
        char utf8[4];
        size_t add = next_char(&at, end, utf8);
        if (len + add > cap - 1)
            break;
        memcpy(ret + len, utf8, add);
        len += add;
    }
    ret[len] = '\0';
    return true;
}

/* The name's index; n when it is none of them. A key without escapes, as nearly all are, is
 * compared only with names of its length. */
static size_t find_name(struct json_view key, const struct json_view_name *names, size_t n)
{
    const char *text = key.text + 1;
    size_t len = key.len - 2, i = 0;
    while (i < n && (names[i].len != len || memcmp(names[i].text, text, len) != 0))
        i++;
    if (i < n || memchr(text, '\\', len) == NULL)
        return i;
    for (i = 0; i < n && !name_equals(key, names[i].text, names[i].len);)
        i++;
    return i;
}

void json_view_members(struct json_view object, const struct json_view_name *names, size_t n,
                       struct json_view *ret)
{
    memset(ret, 0, n * sizeof *ret);
    if (object.kind != JSON_VIEW_OBJECT)
        return;
    struct json_view key, value;
    const char *at = object.text;
    while ((at = step(at, &object, &key, &value)) != NULL) {
        size_t i = find_name(key, names, n);
        if (i < n)
            ret[i] = value;
    }
}

struct json_view json_view_member(struct json_view object, const char *name)
{
    struct json_view_name one = {name, strlen(name)};
    struct json_view ret;
    json_view_members(object, &one, 1, &ret);
    return ret;
}

struct json_view json_view_first(struct json_view array)
{
    struct json_view item = {0};
    if (array.kind != JSON_VIEW_ARRAY || !json_view_next(&array, NULL, &item))
        return (struct json_view){0};
    return item;
}

/* No number that this program reads comes near this many characters. */
#define NUMBER_MAX 64

double json_view_num(struct json_view view, double fallback)
{
    if (view.kind != JSON_VIEW_NUMBER || view.len >= NUMBER_MAX)
        return fallback;
    char digits[NUMBER_MAX];
    memcpy(digits, view.text, view.len);
    digits[view.len] = '\0';
    double value = strtod(digits, NULL);
    return isfinite(value) ? value : fallback;
}

int64_t json_view_int(struct json_view view, int64_t fallback)
{
    if (view.kind != JSON_VIEW_NUMBER)
        return fallback;
    const char *at = view.text, *end = view.text + view.len;
    bool negative = *at == '-';
    int64_t value = 0;
    for (at += negative; at < end && json_check_is_digit(*at); at++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_sub_overflow(value, *at - '0', &value)) /* negative: INT64_MIN fits */
            return fallback;
    if (at == end)
        return negative ? value : value == INT64_MIN ? fallback : -value;
    double real = json_view_num(view, NAN);
    return real >= -9e15 && real <= 9e15 && real == floor(real) ? (int64_t)real : fallback;
}
