#include "orchestrator/files_path.h"

#include <string.h>
#include <strings.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static struct files_span trim(struct files_span span)
{
    while (span.len > 0 && is_space(span.at[0])) {
        span.at++;
        span.len--;
    }
    while (span.len > 0 && is_space(span.at[span.len - 1]))
        span.len--;
    return span;
}

static bool starts(struct files_span span, const char *prefix)
{
    size_t len = strlen(prefix);
    return span.len >= len && strncasecmp(span.at, prefix, len) == 0;
}

static struct files_span skip(struct files_span span, size_t n)
{
    return (struct files_span){span.at + n, span.len - n};
}

bool files_span_is(struct files_span span, const char *word)
{
    return span.len == strlen(word) && strncasecmp(span.at, word, span.len) == 0;
}

/* Names of languages that look like a file; "text/x-c" and its like are media types. */
static bool is_language(struct files_span word)
{
    static const char *const names[] = {"asp.net", "vb.net", "f#.net",   "node.js", "vue.js",
                                        "next.js", "d3.js",  "three.js", "c.net",   "ml.net"};
    for (size_t i = 0; i < COUNT(names); i++) {
        if (files_span_is(word, names[i]))
            return true;
    }
    return (starts(word, "text/") || starts(word, "application/")) &&
           memchr(word.at, '.', word.len) == NULL;
}

/* A dot with 1..16 letters, digits, _ or + behind it at the end, or a name that starts with a dot
 * (.gitignore); "1.", "e.g." and "3.14" are none. */
static bool has_extension(struct files_span word)
{
    size_t i = word.len;
    bool letter = false;
    while (i > 0 &&
           (is_letter(word.at[i - 1]) || is_digit(word.at[i - 1]) ||
            strchr("_+", word.at[i - 1]) != NULL) &&
           word.at[i - 1] != '\0') {
        letter = letter || is_letter(word.at[i - 1]);
        i--;
    }
    return i > 0 && word.at[i - 1] == '.' && i < word.len && word.len - i <= 16 && letter;
}

bool files_path_like(struct files_span word)
{
    if (word.len < 2 || word.len > 4096 || is_language(word))
        return false;
    if (memmem(word.at, word.len, "://", 3) != NULL)
        return false;
    for (size_t i = 0; i < word.len; i++) {
        if (strchr("<>|?*\"'`()[]{};,=$&!", word.at[i]) != NULL && word.at[i] != '\0')
            return false;
    }
    bool slash = memchr(word.at, '/', word.len) != NULL || memchr(word.at, '\\', word.len) != NULL;
    if (slash) {
        /* "and/or", "//" and "/" are no paths, "src/Makefile" is one: a slash between names. */
        const char *first = memchr(word.at, '/', word.len);
        return !(first != NULL && word.len == 2 && word.at[0] == '/' && word.at[1] == '/');
    }
    return has_extension(word);
}

/* --- info strings --------------------------------------------------------------------------- */

/* The next word of an info string; quotes hold spaces together, braces and commas separate. */
static bool next_word(struct files_span *rest, struct files_span *ret)
{
    struct files_span span = *rest;
    while (span.len > 0 && (is_space(span.at[0]) || strchr("{},", span.at[0]) != NULL))
        span = skip(span, 1);
    size_t len = 0;
    char quote = 0;
    while (len < span.len) {
        char c = span.at[len];
        if (quote == 0 && (is_space(c) || c == ',' || c == '{' || c == '}'))
            break;
        if (quote != 0 ? c == quote : (c == '"' || c == '\''))
            quote = quote != 0 ? 0 : c;
        len++;
    }
    *ret = (struct files_span){span.at, len};
    *rest = skip(span, len);
    return len > 0;
}

static struct files_span unquote(struct files_span word, bool *ret_quoted)
{
    bool quoted = word.len >= 2 && strchr("\"'`", word.at[0]) != NULL && word.at[0] != '\0' &&
                  word.at[word.len - 1] == word.at[0];
    if (ret_quoted != NULL)
        *ret_quoted = quoted;
    return quoted ? (struct files_span){word.at + 1, word.len - 2} : word;
}

/* `path=src/a.c`, `title="a.c"`. For path= and file= the writer said that it is one. */
static bool path_of_attribute(struct files_span word, struct files_span *ret)
{
    static const struct {
        const char *key;
        bool sure;
    } keys[] = {{"path=", true},     {"file=", true},  {"filename=", true},
                {"filepath=", true}, {"name=", false}, {"title=", false}};
    for (size_t i = 0; i < COUNT(keys); i++) {
        if (!starts(word, keys[i].key))
            continue;
        *ret = unquote(skip(word, strlen(keys[i].key)), NULL);
        return ret->len > 0 && (keys[i].sure || files_path_like(*ret));
    }
    return false;
}

/* `c:src/a.c`: a language in front, a path behind the first colon. */
static bool path_behind_colon(struct files_span word, struct files_span *ret)
{
    const char *colon = memchr(word.at, ':', word.len);
    if (colon == NULL || colon == word.at)
        return false;
    for (const char *at = word.at; at < colon; at++) {
        if (!is_letter(*at) && !is_digit(*at) && strchr("+#_-", *at) == NULL)
            return false;
    }
    *ret = unquote(skip(word, (size_t)(colon - word.at) + 1), NULL);
    return memchr(ret->at, ':', ret->len) == NULL && files_path_like(*ret);
}

bool files_path_in_info(struct files_span info, struct files_span *ret)
{
    struct files_span rest = info, word;
    while (next_word(&rest, &word)) {
        if (path_of_attribute(word, ret))
            return true;
    }
    rest = info;
    for (int i = 0; i < 2 && next_word(&rest, &word); i++) {
        if (path_behind_colon(word, ret))
            return true;
        bool quoted;
        *ret = unquote(word, &quoted);
        if (memchr(ret->at, ':', ret->len) == NULL && files_path_like(*ret))
            return true;
    }
    return false;
}

struct files_span files_info_language(struct files_span info)
{
    struct files_span rest = info, word = {info.at, 0};
    next_word(&rest, &word);
    const char *colon = memchr(word.at, ':', word.len);
    return colon != NULL ? (struct files_span){word.at, (size_t)(colon - word.at)} : word;
}

/* --- the line above ------------------------------------------------------------------------- */

/* Marks of a heading or a list in front: "### ", "- ", "2. ", "2) ". */
static struct files_span strip_marks(struct files_span line)
{
    size_t n = 0;
    while (n < line.len && line.at[n] == '#')
        n++;
    if (n == 0 && line.len > 1 && strchr("-*+", line.at[0]) != NULL && is_space(line.at[1]))
        n = 1;
    if (n == 0) {
        size_t digits = 0;
        while (digits < line.len && digits < 4 && is_digit(line.at[digits]))
            digits++;
        if (digits > 0 && digits + 1 < line.len &&
            (line.at[digits] == '.' || line.at[digits] == ')') && is_space(line.at[digits + 1]))
            n = digits + 1;
    }
    return n > 0 ? trim(skip(line, n)) : line;
}

static struct files_span strip_label(struct files_span line)
{
    static const char *const labels[] = {"file:",     "filename:", "file name:", "file path:",
                                         "filepath:", "path:",     "new file:",  "file "};
    for (size_t i = 0; i < COUNT(labels); i++) {
        if (starts(line, labels[i]))
            return trim(skip(line, strlen(labels[i])));
    }
    return line;
}

/* Emphasis around the line, and a colon at its end. "__" stays: __init__.py is a name. */
static struct files_span strip_emphasis(struct files_span line)
{
    while (line.len >= 2 && line.at[0] == '*')
        line = skip(line, 1);
    /* "File:** a.c" is what is left of "**File:** a.c" once its label is gone. */
    while (line.len > 0 && strchr("*:", line.at[line.len - 1]) != NULL &&
           line.at[line.len - 1] != '\0')
        line.len--;
    return trim(line);
}

/* "`src/a.c` (new)": the note does not belong to the path. */
static struct files_span strip_note(struct files_span line)
{
    if (line.len < 3 || line.at[line.len - 1] != ')')
        return line;
    const char *open = memrchr(line.at, '(', line.len);
    if (open == NULL || open == line.at || !is_space(open[-1]))
        return line;
    return trim((struct files_span){line.at, (size_t)(open - line.at)});
}

bool files_path_in_heading(struct files_span line, struct files_span *ret)
{
    struct files_span span = trim(line), before;
    if (span.len > 4096)
        return false;
    do {
        before = span;
        span = strip_emphasis(strip_note(strip_label(strip_emphasis(strip_marks(span)))));
    } while (span.len != before.len && span.len > 0);
    bool quoted;
    span = unquote(span, &quoted);
    bool spaces = false;
    for (size_t i = 0; i < span.len; i++)
        spaces = spaces || is_space(span.at[i]);
    if ((spaces && !quoted) || memchr(span.at, '`', span.len) != NULL || !files_path_like(span))
        return false;
    /* Only "C:\..." may hold a colon, to be refused as what it is. */
    const char *colon = memchr(span.at, ':', span.len);
    if (colon != NULL && !(colon == span.at + 1 && is_letter(span.at[0])))
        return false;
    *ret = span;
    return true;
}
