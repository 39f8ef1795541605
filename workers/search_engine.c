#include "workers/search_engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "schemas/mem.h"
#include "workers/search_html.h"
#include "workers/utf8.h"

static const struct search_engine *const engines[] = {
    &search_engine_duckduckgo,
    &search_engine_searxng,
    &search_engine_google,
};

const struct search_engine *search_engine_find(const char *name)
{
    if (name == NULL)
        return engines[0];
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++)
        if (strcmp(engines[i]->name, name) == 0)
            return engines[i];
    return NULL;
}

void search_engine_url(struct buf *out, const char *base, const char *path)
{
    size_t base_len = strlen(base);
    while (base_len > 0 && base[base_len - 1] == '/')
        base_len--;
    buf_add(out, base, base_len);
    /* The longest beginning of the path, up to a slash or its end, that base ends with. */
    for (size_t len = strlen(path); len > 1; len--) {
        bool whole = path[len] == '\0' || path[len] == '/';
        if (whole && base_len >= len && memcmp(base + base_len - len, path, len) == 0) {
            path += len;
            break;
        }
    }
    buf_add_str(out, path);
}

void search_encode(struct buf *out, const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-._~", c) != NULL;
        if (plain) {
            buf_add_char(out, (char)c);
        } else if (c == ' ') {
            buf_add_char(out, '+');
        } else {
            buf_add_char(out, '%');
            buf_add_char(out, hex[c >> 4]);
            buf_add_char(out, hex[c & 15]);
        }
    }
}

int search_engine_status(const char *title, int status, struct err *err)
{
    return err_set(err, -EIO, "%s answered HTTP %d", title, status);
}

/* --- hits -------------------------------------------------------------------------------------
 */

/* Characters that nobody sees, but a model reads: C1 controls, soft hyphen, zero-width and bidi
 * controls, line separators, BOM, tags. Hidden instructions are written in them. */
static bool is_invisible(const char *text, size_t sequence)
{
    const unsigned char *at = (const unsigned char *)text;
    if (sequence == 2)
        return at[0] == 0xc2 && (at[1] < 0xa0 || at[1] == 0xad);
    if (sequence == 3 && at[0] == 0xe2)
        return (at[1] == 0x80 && ((at[2] >= 0x8b && at[2] <= 0x8f) ||   /* U+200B..200F */
                                  (at[2] >= 0xa8 && at[2] <= 0xae))) || /* U+2028..202E */
               (at[1] == 0x81 && at[2] >= 0xa0 && at[2] <= 0xaf);       /* U+2060..206F */
    if (sequence == 3)
        return at[0] == 0xef && at[1] == 0xbb && at[2] == 0xbf; /* U+FEFF */
    return sequence == 4 && at[0] == 0xf3 && at[1] == 0xa0;     /* U+E0000..E0FFF */
}

/* A copy of one line, at most max bytes; NULL when memory is out. */
static char *clean(const char *text, size_t len, size_t max)
{
    struct buf visible = {0};
    char *copy = mem_alloc(max + 1);
    if (len > 8 * max) /* more of it would not be kept anyway */
        len = utf8_floor(text, len, 8 * max);
    for (size_t at = 0; at < len;) {
        size_t sequence = utf8_sequence(text + at, len - at);
        if (sequence < 2 || !is_invisible(text + at, sequence))
            buf_add(&visible, text + at, sequence > 0 ? sequence : 1);
        at += sequence > 0 ? sequence : 1;
    }
    if (copy != NULL && !visible.failed) {
        size_t first = 0;
        while (first < visible.len && (unsigned char)visible.data[first] <= ' ')
            first++;
        utf8_excerpt(copy, max + 1, visible.len > 0 ? visible.data + first : "",
                     visible.len - first);
        for (size_t end = strlen(copy); end > 0 && copy[end - 1] == ' ';)
            copy[--end] = '\0';
    }
    if (visible.failed) {
        free(copy);
        copy = NULL;
    }
    buf_release(&visible);
    return copy;
}

/* http or https, with a host, and nothing in it that would end a line or hide something. */
static bool is_web_url(const char *url, size_t len)
{
    size_t scheme = len >= 8 && strncasecmp(url, "https://", 8) == 0  ? 8
                    : len >= 7 && strncasecmp(url, "http://", 7) == 0 ? 7
                                                                      : 0;
    if (scheme == 0 || len > SEARCH_URL_MAX || utf8_valid(url, len) != len)
        return false;
    for (size_t at = 0; at < len; at += utf8_sequence(url + at, len - at)) {
        unsigned char c = (unsigned char)url[at];
        if (c <= ' ' || c == 0x7f || strchr("<>\"`", c) != NULL ||
            is_invisible(url + at, utf8_sequence(url + at, len - at)))
            return false;
    }
    return scheme < len && strchr("/?#:", url[scheme]) == NULL;
}

/* What tells one page from another: neither the fragment nor a trailing slash does. */
static size_t page_len(const char *url, size_t len)
{
    const char *fragment = memchr(url, '#', len);
    len = fragment != NULL ? (size_t)(fragment - url) : len;
    return len > 0 && url[len - 1] == '/' ? len - 1 : len;
}

static bool is_known(const struct search_hits *hits, const char *url, size_t len)
{
    size_t page = page_len(url, len);
    for (size_t i = 0; i < hits->n; i++) {
        const char *other = hits->items[i].url;
        if (page_len(other, strlen(other)) == page && memcmp(other, url, page) == 0)
            return true;
    }
    return false;
}

void search_hits_add(struct search_hits *hits, const char *url, size_t url_len, const char *title,
                     size_t title_len, const char *snippet, size_t snippet_len)
{
    size_t max = hits->max < SEARCH_MAX_RESULTS ? hits->max : SEARCH_MAX_RESULTS;
    if (hits->n >= max || !is_web_url(url, url_len) || is_known(hits, url, url_len))
        return;
    char *own_url = mem_strndup(url, url_len);
    char *own_title = clean(title, title_len, SEARCH_TITLE_MAX);
    char *own_snippet = clean(snippet, snippet_len, SEARCH_SNIPPET_MAX);
    if (own_title != NULL && own_title[0] == '\0') { /* a link needs a name */
        free(own_title);
        own_title = clean(url, url_len, SEARCH_TITLE_MAX);
    }
    if (own_url == NULL || own_title == NULL || own_snippet == NULL) {
        free(own_url);
        free(own_title);
        free(own_snippet);
        hits->failed = true;
        return;
    }
    hits->items[hits->n++] = (struct search_result){own_title, own_url, own_snippet};
}

/* Some engines' texts have markup in spite of what they say. */
static void add_plain(struct buf *out, struct json_view item, const char *name)
{
    struct buf text = {0};
    json_view_text(json_view_member(item, name), &text);
    search_html_strip(out, text.data, text.len);
    out->failed |= text.failed;
    buf_release(&text);
}

void search_hits_add_json(struct search_hits *hits, struct json_view item, const char *url,
                          const char *title, const char *snippet)
{
    struct buf address = {0}, texts[2] = {{0}};
    if (json_view_text(json_view_member(item, url), &address) && address.len > 0) {
        add_plain(&texts[0], item, title);
        add_plain(&texts[1], item, snippet);
        search_hits_add(hits, address.data, address.len, texts[0].data, texts[0].len, texts[1].data,
                        texts[1].len);
    }
    hits->failed |= address.failed || texts[0].failed || texts[1].failed;
    buf_release(&address);
    buf_release(&texts[0]);
    buf_release(&texts[1]);
}

void search_hits_release(struct search_hits *hits)
{
    for (size_t i = 0; i < hits->n; i++) {
        free((char *)hits->items[i].title);
        free((char *)hits->items[i].url);
        free((char *)hits->items[i].snippet);
    }
    hits->n = 0;
}
