/* A search engine: how it is asked and how its answer is read. One file each, one row in
 * search_engine.c; pure functions, like a provider's. */
#ifndef WORKERS_SEARCH_ENGINE_H
#define WORKERS_SEARCH_ENGINE_H

#include "common/config.h"
#include "workers/json_view.h"
#include "workers/provider.h"
#include "workers/search.h"

#define SEARCH_URL_MAX ((size_t)2048) /* bytes of a result's URL; longer ones are left out */
#define SEARCH_TITLE_MAX ((size_t)300)
#define SEARCH_SNIPPET_MAX ((size_t)1000)
#define SEARCH_QUERY_CHARS 400 /* characters of a query */

/* Results as they are found: cleaned, bounded, none twice. */
struct search_hits {
    struct search_result items[SEARCH_MAX_RESULTS]; /* strings are owned */
    size_t n, max;
    bool failed; /* out of memory */
};
/* Takes the result over if its URL is http(s) and new and there is room. Texts may have control
 * characters, invalid UTF-8 and be of any length. */
void search_hits_add(struct search_hits *hits, const char *url, size_t url_len, const char *title,
                     size_t title_len, const char *snippet, size_t snippet_len);
/* The same for the members of a JSON object. */
void search_hits_add_json(struct search_hits *hits, struct json_view item, const char *url,
                          const char *title, const char *snippet);
void search_hits_release(struct search_hits *hits);

struct search_ask {
    const char *base;  /* URL without a trailing slash */
    const char *query; /* UTF-8 */
    const char *key;   /* NULL: none */
    const char *cx;    /* NULL: none */
    int64_t max_results;
};

struct search_engine {
    const char *name;  /* engine: NAME */
    const char *title; /* for people */
    const char *base;  /* NULL: engine_url must be configured */
    bool needs_key;    /* and cx */
    int64_t pace_ms;   /* least time between two queries of a worker */
    void (*build)(const struct search_ask *ask, struct provider_request *ret);
    /* An answer, whole. 0 with what was found, perhaps nothing; -EBADMSG, -EAGAIN (blocked,
     * limits), -EACCES, -EIO with a sentence. */
    int (*parse)(int status, const char *data, size_t len, struct search_hits *hits,
                 struct err *err);
};

extern const struct search_engine search_engine_duckduckgo, search_engine_searxng,
    search_engine_google;
const struct search_engine *
search_engine_find(const char *name); /* NULL: the first; NULL when none */

/* Appends base, and path unless base ends with it (or with its beginning, at a slash). */
void search_engine_url(struct buf *out, const char *base, const char *path);
/* Appends text for a query string or a form: everything but letters, digits and -._~ as %XX, a
 * space as +. */
void search_encode(struct buf *out, const char *text);
/* "HTTP 500", as a sentence of what answered; returns -EIO. */
int search_engine_status(const char *title, int status, struct err *err);

/* Query of at most SEARCH_QUERY_CHARS characters that asks for what the prompt asks: its questions
 * rather than its whole text. Empty when there is nothing to ask for. */
void search_query(struct buf *out, const char *prompt, size_t len, int64_t wall_ms);
/* Appends what the prompt itself says: without results of earlier subtasks, code blocks and quoted
 * lines; the beginning and the end where it is long. */
void search_question(struct buf *out, const char *prompt, size_t len);
/* Whether the text (of a question) asks for what is new. */
bool search_asks_for_news(const char *text, size_t len, int64_t wall_ms);

#endif
