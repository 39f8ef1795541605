#include "workers/json_view.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "workers/utf8.h"

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    return at;
}

/* Value of a hexadecimal digit, -1 when it is none. */
static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits of \uXXXX; -1 when they are not four. */
static int hex_four(const char *at, const char *end)
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

static const char *check_string(const char *at, const char *end)
{
    for (at++; at < end; at++) {
        if (*at == '"')
            return at + 1;
        if ((unsigned char)*at < 0x20)
            return NULL;
        if (*at != '\\')
            continue;
        if (++at == end)
            return NULL;
        if (*at == 'u') {
            if (hex_four(at + 1, end) < 0)
                return NULL;
            at += 4;
        } else if (*at == '\0' || strchr("\"\\/bfnrt", *at) == NULL) {
            return NULL;
        }
    }
    return NULL;
}

static const char *check_digits(const char *at, const char *end)
{
    const char *from = at;
    while (at < end && is_digit(*at))
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

static const char *check_value(const char *at, const char *end, int depth);

/* `"key" :` with white space around it; NULL when it is not there. */
static const char *check_key(const char *at, const char *end)
{
    if (at == end || *at != '"' || (at = check_string(at, end)) == NULL)
        return NULL;
    at = skip_space(at, end);
    return at < end && *at == ':' ? skip_space(at + 1, end) : NULL;
}

static const char *check_container(const char *at, const char *end, int depth)
{
    bool object = *at == '{';
    char close = object ? '}' : ']';
    if (depth == JSON_VIEW_MAX_DEPTH)
        return NULL;
    at = skip_space(at + 1, end);
    if (at < end && *at == close)
        return at + 1;
    for (;;) {
        if (object && (at = check_key(at, end)) == NULL)
            return NULL;
        if ((at = check_value(at, end, depth + 1)) == NULL)
            return NULL;
        at = skip_space(at, end);
        if (at < end && *at == close)
            return at + 1;
        if (at == end || *at != ',')
            return NULL;
        at = skip_space(at + 1, end);
    }
}

static const char *check_value(const char *at, const char *end, int depth)
{
    if (at == end)
        return NULL;
    switch (*at) {
    case '{':
    case '[':
        return check_container(at, end, depth);
    case '"':
        return check_string(at, end);
    case 'n':
        return check_word(at, end, "null");
    case 't':
        return check_word(at, end, "true");
    case 'f':
        return check_word(at, end, "false");
    default:
        return *at == '-' || is_digit(*at) ? check_number(at, end) : NULL;
    }
}

static enum json_view_kind kind_of(char first)
{
    switch (first) {
    case '{':
        return JSON_VIEW_OBJECT;
    case '[':
        return JSON_VIEW_ARRAY;
    case '"':
        return JSON_VIEW_STRING;
    case 'n':
        return JSON_VIEW_NULL;
    case 't':
        return JSON_VIEW_TRUE;
    case 'f':
        return JSON_VIEW_FALSE;
    default:
        return JSON_VIEW_NUMBER;
    }
}

bool json_view_parse(struct json_view *ret, const char *text, size_t len)
{
    *ret = (struct json_view){0};
    if (len == 0)
        return false;
    const char *end = text + len;
    const char *from = skip_space(text, end);
    const char *to = check_value(from, end, 0);
    if (to == NULL || skip_space(to, end) != end)
        return false;
    *ret = (struct json_view){from, (size_t)(to - from), kind_of(*from)};
    return true;
}

/* The skip_ functions walk over bytes that json_view_parse() has checked. */

static const char *skip_string(const char *at)
{
    for (at++; *at != '"'; at++)
        if (*at == '\\')
            at++;
    return at + 1;
}

static const char *skip_value(const char *at, const char *end)
{
    if (*at == '"')
        return skip_string(at);
    if (*at != '{' && *at != '[') {
        while (at < end && *at != ',' && *at != '}' && *at != ']' && !is_space(*at))
            at++;
        return at;
    }
    for (int depth = 0;;) {
        if (*at == '"') {
            at = skip_string(at);
            continue;
        }
        if (*at == '{' || *at == '[')
            depth++;
        else if ((*at == '}' || *at == ']') && --depth == 0)
            return at + 1;
        at++;
    }
}

bool json_view_next(struct json_view *rest, struct json_view *key, struct json_view *value)
{
    if (rest->kind != JSON_VIEW_OBJECT && rest->kind != JSON_VIEW_ARRAY)
        return false;
    /* rest starts at the opening bracket, or at what follows the last value: a comma or the end. */
    const char *end = rest->text + rest->len;
    const char *at = rest->text;
    if (*at == '}' || *at == ']')
        return false;
    at = skip_space(at + 1, end);
    if (*at == '}' || *at == ']')
        return false;
    struct json_view name = {0};
    if (rest->kind == JSON_VIEW_OBJECT) {
        const char *to = skip_string(at);
        name = (struct json_view){at, (size_t)(to - at), JSON_VIEW_STRING};
        at = skip_space(skip_space(to, end) + 1, end); /* over the colon */
    }
    const char *to = skip_value(at, end);
    *value = (struct json_view){at, (size_t)(to - at), kind_of(*at)};
    if (key != NULL)
        *key = name;
    at = skip_space(to, end);
    *rest = (struct json_view){at, (size_t)(end - at), rest->kind};
    return true;
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
        static const char escapes[] = "b\bf\fn\nr\rt\t";
        const char *found = strchr(escapes, from[1]);
        ret[0] = found != NULL ? found[1] : from[1];
        *at = from + 2;
        return 1;
    }
    code = (unsigned)hex_four(from + 2, end);
    *at = from + 6;
    if (code >= 0xd800 && code < 0xdc00 && end - *at >= 6 && from[6] == '\\' && from[7] == 'u') {
        unsigned low = (unsigned)hex_four(from + 8, end);
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

bool json_view_text(struct json_view view, struct buf *out)
{
    if (view.kind != JSON_VIEW_STRING)
        return false;
    const char *at = view.text + 1, *end = view.text + view.len - 1;
    buf_reserve(out, (size_t)(end - at)); /* an escape is never shorter than what it stands for */
    while (at < end) {
        const char *escape = memchr(at, '\\', (size_t)(end - at));
        const char *plain_end = escape != NULL ? escape : end;
        utf8_add_repaired(out, at, (size_t)(plain_end - at));
        at = plain_end;
        if (escape != NULL) {
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
    if (memchr(at, '\\', (size_t)(end - at)) == NULL)
        return (size_t)(end - at) == len && memcmp(at, text, len) == 0;
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

void json_view_members(struct json_view object, const struct json_view_name *names, size_t n,
                       struct json_view *ret)
{
    memset(ret, 0, n * sizeof *ret);
    if (object.kind != JSON_VIEW_OBJECT)
        return;
    struct json_view rest = object, key, value;
    while (json_view_next(&rest, &key, &value))
        for (size_t i = 0; i < n; i++)
            if (name_equals(key, names[i].text, names[i].len)) {
                ret[i] = value;
                break;
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
    for (at += negative; at < end && is_digit(*at); at++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_sub_overflow(value, *at - '0', &value)) /* negative: INT64_MIN fits */
            return fallback;
    if (at == end)
        return negative ? value : value == INT64_MIN ? fallback : -value;
    double real = json_view_num(view, NAN);
    return real >= -9e15 && real <= 9e15 && real == floor(real) ? (int64_t)real : fallback;
}
