/* Web search for the search-augmented provider: whether to search, asking an engine, and what is
 * put into the prompt. What an engine returns was written by strangers: it is data for the model,
 * bounded and stripped of markup and of what cannot be seen, and the prompt says so. */
#ifndef WORKERS_SEARCH_H
#define WORKERS_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/loop.h"
#include "schemas/buf.h"
#include "workers/http.h"

#define SEARCH_MAX_RESULTS 20
#define SEARCH_DEADLINE_MS 10000 /* from search_start() to the callback, whatever happens */

struct searches; /* what the searches of a process share: recent results, and an engine's pace */
struct search;   /* one search under way */

struct search_result {
    const char *title, *url, *snippet; /* UTF-8, one line each, unescaped, without markup */
};

/* loop and http are borrowed and must outlive it. */
struct searches *searches_new(uv_loop_t *loop, struct http *http);
/* Accepts NULL; searches under way are cancelled. The loop must run once more afterwards. */
void searches_free(struct searches **searches);

/* Whether the prompt is to be searched for: by `auto`, words that ask for what is new (latest,
 * today, news, ...) or a year that is this one or later. Results of earlier subtasks, code and
 * quotations in the prompt do not count. */
bool search_wanted(const struct config_provider *settings, const char *prompt, size_t len,
                   int64_t wall_ms);
/* Once, never before search_start() returns; the search is gone afterwards. why: "" or the sentence
 * why there are no results, without the engine's key. Everything is valid during the call: see
 * search_results_copy(). */
typedef void search_fn(void *ctx, const struct search_result *results, size_t n, const char *why);
/* key: value of the engine's key, borrowed during the call; NULL: none. 0; -EINVAL with a sentence
 * (no such engine, a key, cx or engine_url missing, no question in the prompt); -ENOMEM. */
int search_start(struct search **ret, struct searches *searches,
                 const struct config_provider *settings, const char *key, const char *prompt,
                 size_t len, search_fn *fn, void *ctx, struct err *err);
void search_cancel(struct search **search); /* accepts NULL; no callback comes any more */

/* A copy in one block, which the caller frees with free(); NULL when n is 0 or memory is out. */
struct search_result *search_results_copy(const struct search_result *results, size_t n);

/* Appends the numbered results, the date, and how to cite them, then the prompt. n == 0: the
 * prompt alone. */
void search_prompt(struct buf *out, const struct search_result *results, size_t n,
                   const char *prompt, size_t len, int64_t wall_ms);
/* JSON array of {n, title, url} of the results that the answer cites as [n]; of all of them when it
 * cites none. */
void search_citations(struct buf *out, const struct search_result *results, size_t n,
                      const char *answer, size_t len);

#endif
