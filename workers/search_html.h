/* HTML as search engines send it, read in place and forgiving: a run of tags and texts, without a
 * tree. No recursion and no allocation but for the texts taken: whatever comes, it ends in time
 * proportional to its length. */
#ifndef WORKERS_SEARCH_HTML_H
#define WORKERS_SEARCH_HTML_H

#include <stdbool.h>
#include <stddef.h>

#include "schemas/buf.h"

enum search_html_kind {
    SEARCH_HTML_TEXT,
    SEARCH_HTML_OPEN,  /* <name attributes>, also the self-closed ones */
    SEARCH_HTML_CLOSE, /* </name> */
};

struct search_html_token {
    enum search_html_kind kind;
    const char *text; /* TEXT: raw, entities and all; OPEN, CLOSE: the name */
    size_t len;
    const char *attributes; /* OPEN: what stands between the name and > */
    size_t attributes_len;
};

/* {html, html + len} at first. */
struct search_html {
    const char *at, *end;
    const char
        *raw; /* name of the element (script, style) whose content is no markup; NULL: none */
};

/* The next piece; comments, declarations and what is in scripts and styles are left out. False at
 * the end. */
bool search_html_next(struct search_html *html, struct search_html_token *ret);
/* Whether the token is that kind of tag; names are lower case. */
bool search_html_is(const struct search_html_token *token, enum search_html_kind kind,
                    const char *name);
/* Appends the value of an attribute, its entities decoded; false when it is not there. */
bool search_html_attribute(const struct search_html_token *token, const char *name,
                           struct buf *out);
/* Whether one of the words of class="..." is `name` (or has it as a part). */
bool search_html_has_class(const struct search_html_token *token, const char *name, bool part);

/* Appends text with its entities decoded. */
void search_html_decode(struct buf *out, const char *text, size_t len);
/* The same, and what looks like a tag left out: for engines whose "plain" text has some. */
void search_html_strip(struct buf *out, const char *text, size_t len);

#endif
