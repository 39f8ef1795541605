#include "workers/search_html.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* --- tags -------------------------------------------------------------------------------------
 */

/* Behind the > that ends the tag starting at `at`; quoted values may hold one. */
static const char *tag_end(const char *at, const char *end)
{
    char quote = '\0';
    bool value = false; /* a quote counts only where a value begins */
    for (; at < end; at++) {
        if (quote != '\0') {
            if (*at == quote)
                quote = '\0';
        } else if (*at == '>') {
            return at + 1;
        } else if ((*at == '"' || *at == '\'') && value) {
            quote = *at;
        }
        value = *at == '=' || (value && is_blank(*at));
    }
    return end;
}

/* Past a comment, a declaration or an instruction. */
static const char *skip_declaration(const char *at, const char *end)
{
    if (end - at >= 4 && memcmp(at, "<!--", 4) == 0) {
        const char *close = memmem(at + 4, (size_t)(end - at - 4), "-->", 3);
        return close != NULL ? close + 3 : end;
    }
    const char *close = memchr(at, '>', (size_t)(end - at));
    return close != NULL ? close + 1 : end;
}

/* Inside a script or style: the position of its closing tag. */
static const char *raw_end(const char *at, const char *end, const char *name)
{
    size_t len = strlen(name);
    while ((at = memchr(at, '<', (size_t)(end - at))) != NULL) {
        if ((size_t)(end - at) >= len + 2 && at[1] == '/' && strncasecmp(at + 2, name, len) == 0)
            return at;
        at++;
    }
    return end;
}

static const char *raw_name(const struct search_html_token *token)
{
    static const char *const names[] = {"script", "style", "noscript", "template"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (search_html_is(token, SEARCH_HTML_OPEN, names[i]))
            return names[i];
    return NULL;
}

static void take_tag(struct search_html *html, struct search_html_token *ret)
{
    bool close = html->at[1] == '/';
    const char *name = html->at + (close ? 2 : 1), *at = name;
    const char *end = tag_end(name, html->end);
    while (at < end && !is_blank(*at) && *at != '>' && *at != '/')
        at++;
    size_t rest = (size_t)(end - at);
    if (rest > 0 && end[-1] == '>')
        rest--;
    *ret = (struct search_html_token){close ? SEARCH_HTML_CLOSE : SEARCH_HTML_OPEN, name,
                                      (size_t)(at - name), at, rest};
    html->at = end;
    html->raw = raw_name(ret);
}

static bool starts_tag(const char *at, const char *end)
{
    return end - at >= 2 && *at == '<' &&
           (is_letter(at[1]) || (at[1] == '/' && end - at >= 3 && is_letter(at[2])));
}

static bool starts_declaration(const char *at, const char *end)
{
    return end - at >= 2 && *at == '<' && (at[1] == '!' || at[1] == '?' || at[1] == '/');
}

bool search_html_next(struct search_html *html, struct search_html_token *ret)
{
    if (html->raw != NULL) {
        html->at = raw_end(html->at, html->end, html->raw);
        html->raw = NULL;
    }
    while (html->at < html->end) {
        if (starts_tag(html->at, html->end)) {
            take_tag(html, ret);
            return true;
        }
        if (starts_declaration(html->at, html->end)) {
            html->at = skip_declaration(html->at, html->end);
            continue;
        }
        const char *text = html->at++; /* a < that starts nothing is text */
        const char *next = memchr(html->at, '<', (size_t)(html->end - html->at));
        html->at = next != NULL ? next : html->end;
        *ret =
            (struct search_html_token){SEARCH_HTML_TEXT, text, (size_t)(html->at - text), NULL, 0};
        return true;
    }
    return false;
}

bool search_html_is(const struct search_html_token *token, enum search_html_kind kind,
                    const char *name)
{
    return token->kind == kind && token->len == strlen(name) &&
           strncasecmp(token->text, name, token->len) == 0;
}

/* --- attributes -------------------------------------------------------------------------------
 */

struct attribute {
    const char *name, *value;
    size_t name_len, value_len;
};

static const char *take_value(struct attribute *ret, const char *at, const char *end)
{
    if (at < end && (*at == '"' || *at == '\'')) {
        const char *close = memchr(at + 1, *at, (size_t)(end - at - 1));
        ret->value = at + 1;
        ret->value_len = (size_t)((close != NULL ? close : end) - ret->value);
        return close != NULL ? close + 1 : end;
    }
    ret->value = at;
    while (at < end && !is_blank(*at))
        at++;
    ret->value_len = (size_t)(at - ret->value);
    return at;
}

/* The attribute at or behind *at; false when there is none left. */
static bool next_attribute(const char **at, const char *end, struct attribute *ret)
{
    const char *p = *at;
    while (p < end && (is_blank(*p) || *p == '/' || *p == '='))
        p++;
    if (p == end)
        return false;
    *ret = (struct attribute){.name = p, .value = p};
    while (p < end && !is_blank(*p) && *p != '=' && *p != '/')
        p++;
    ret->name_len = (size_t)(p - ret->name);
    while (p < end && is_blank(*p))
        p++;
    if (p < end && *p == '=') {
        for (p++; p < end && is_blank(*p);)
            p++;
        p = take_value(ret, p, end);
    }
    *at = p;
    return true;
}

static bool find_attribute(const struct search_html_token *token, const char *name,
                           struct attribute *ret)
{
    const char *at = token->attributes;
    size_t len = strlen(name);
    if (token->kind != SEARCH_HTML_OPEN)
        return false;
    while (next_attribute(&at, token->attributes + token->attributes_len, ret))
        if (ret->name_len == len && strncasecmp(ret->name, name, len) == 0)
            return true;
    return false;
}

bool search_html_attribute(const struct search_html_token *token, const char *name, struct buf *out)
{
    struct attribute attribute;
    if (!find_attribute(token, name, &attribute))
        return false;
    search_html_decode(out, attribute.value, attribute.value_len);
    return true;
}

bool search_html_has_class(const struct search_html_token *token, const char *name, bool part)
{
    struct attribute attribute;
    size_t len = strlen(name);
    if (!find_attribute(token, "class", &attribute))
        return false;
    const char *at = attribute.value, *end = at + attribute.value_len;
    if (part)
        return memmem(at, attribute.value_len, name, len) != NULL;
    while (at < end) {
        const char *word = at;
        while (at < end && !is_blank(*at))
            at++;
        if ((size_t)(at - word) == len && memcmp(word, name, len) == 0)
            return true;
        while (at < end && is_blank(*at))
            at++;
    }
    return false;
}

/* --- entities ---------------------------------------------------------------------------------
 */

/* Those that titles and snippets have; others stay as they are. */
static const struct {
    const char *name;
    uint32_t code;
} entities[] = {
    {"amp", '&'},      {"lt", '<'},        {"gt", '>'},       {"quot", '"'},     {"apos", '\''},
    {"nbsp", ' '},     {"hellip", 0x2026}, {"mdash", 0x2014}, {"ndash", 0x2013}, {"lsquo", 0x2018},
    {"rsquo", 0x2019}, {"ldquo", 0x201c},  {"rdquo", 0x201d}, {"sbquo", 0x201a}, {"bdquo", 0x201e},
    {"laquo", 0xab},   {"raquo", 0xbb},    {"bull", 0x2022},  {"middot", 0xb7},  {"copy", 0xa9},
    {"reg", 0xae},     {"trade", 0x2122},  {"deg", 0xb0},     {"times", 0xd7},   {"euro", 0x20ac},
    {"pound", 0xa3},   {"yen", 0xa5},      {"cent", 0xa2},    {"sect", 0xa7},    {"para", 0xb6},
    {"plusmn", 0xb1},  {"frac12", 0xbd},   {"agrave", 0xe0},  {"aacute", 0xe1},  {"acirc", 0xe2},
    {"atilde", 0xe3},  {"auml", 0xe4},     {"aring", 0xe5},   {"aelig", 0xe6},   {"ccedil", 0xe7},
    {"egrave", 0xe8},  {"eacute", 0xe9},   {"ecirc", 0xea},   {"euml", 0xeb},    {"igrave", 0xec},
    {"iacute", 0xed},  {"icirc", 0xee},    {"iuml", 0xef},    {"ntilde", 0xf1},  {"ograve", 0xf2},
    {"oacute", 0xf3},  {"ocirc", 0xf4},    {"otilde", 0xf5},  {"ouml", 0xf6},    {"oslash", 0xf8},
    {"ugrave", 0xf9},  {"uacute", 0xfa},   {"ucirc", 0xfb},   {"uuml", 0xfc},    {"szlig", 0xdf},
    {"Auml", 0xc4},    {"Ouml", 0xd6},     {"Uuml", 0xdc},    {"Eacute", 0xc9},  {"larr", 0x2190},
    {"rarr", 0x2192},  {"minus", 0x2212},  {"thinsp", ' '},   {"ensp", ' '},     {"emsp", ' '},
    {"shy", 0xad},     {"zwnj", 0x200c},
};

/* Numbers 128 to 159 mean what Windows had there (HTML, "numeric character reference end state").
 */
static const uint16_t windows[32] = {
    0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
    0x2039, 0x0152, 0,      0x017d, 0,      0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0,      0x017e, 0x0178,
};

static void add_code(struct buf *out, uint32_t code)
{
    if (code >= 0x80 && code < 0xa0)
        code = windows[code - 0x80];
    if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        code = 0xfffd;
    if (code < 0x80) {
        buf_add_char(out, (char)code);
        return;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint32_t leads[] = {0, 0xc0, 0xe0, 0xf0};
    buf_add_char(out, (char)(leads[more] | code >> (6 * more)));
    while (more-- > 0)
        buf_add_char(out, (char)(0x80 | (code >> (6 * more) & 0x3f)));
}

/* The number in the text behind "&#"; its length, 0 when there is none. */
static size_t number_at(const char *text, size_t len, uint32_t *ret)
{
    bool hex = len > 0 && (*text == 'x' || *text == 'X');
    size_t at = hex ? 1 : 0, first = at;
    *ret = 0;
    for (; at < len; at++) {
        char c = text[at];
        int digit = c >= '0' && c <= '9'          ? c - '0'
                    : hex && c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : hex && c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                  : -1;
        if (digit < 0)
            break;
        *ret = *ret > 0x10ffff ? *ret : *ret * (hex ? 16 : 10) + (uint32_t)digit;
    }
    return at > first ? at : 0;
}

/* The entity at text[0] == '&'; how many bytes it takes, 0 when it is none. */
static size_t entity_at(const char *text, size_t len, uint32_t *ret)
{
    size_t taken;
    if (len > 2 && text[1] == '#') {
        taken = number_at(text + 2, len - 2, ret);
        if (taken == 0)
            return 0;
        taken += 2;
        return taken + (taken < len && text[taken] == ';');
    }
    for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
        taken = strlen(entities[i].name);
        if (len > taken + 1 && text[taken + 1] == ';' &&
            memcmp(text + 1, entities[i].name, taken) == 0) {
            *ret = entities[i].code;
            return taken + 2;
        }
    }
    return 0;
}

void search_html_decode(struct buf *out, const char *text, size_t len)
{
    while (len > 0) {
        const char *next = memchr(text, '&', len);
        size_t plain = next != NULL ? (size_t)(next - text) : len;
        uint32_t code;
        buf_add(out, text, plain);
        text += plain;
        len -= plain;
        if (len == 0)
            return;
        size_t taken = entity_at(text, len, &code);
        if (taken > 0)
            add_code(out, code);
        else
            buf_add_char(out, '&');
        taken = taken > 0 ? taken : 1;
        text += taken;
        len -= taken;
    }
}

void search_html_strip(struct buf *out, const char *text, size_t len)
{
    if (len == 0)
        return; /* text may be NULL */
    struct search_html html = {text, text + len, NULL};
    struct search_html_token token;
    while (search_html_next(&html, &token))
        if (token.kind == SEARCH_HTML_TEXT)
            search_html_decode(out, token.text, token.len);
}
