/* Web search for the search-augmented provider: whether to search, asking an engine, and what is
 * put into the prompt. */
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

struct search; /* one search under way */

struct search_result {
    const char *title, *url, *snippet; /* UTF-8, unescaped, without markup */
};

/* Whether the prompt is to be searched for: by `auto`, words that ask for what is new (latest,
 * today, news, ...) or a year that is this one or later. */
bool search_wanted(const struct config_provider *settings, const char *prompt, size_t len,
                   int64_t wall_ms);
/* Once, never before search_start() returns. why: "" or the sentence why there are no results.
 * Everything is valid during the call. */
typedef void search_fn(void *ctx, const struct search_result *results, size_t n, const char *why);
/* key: value of the engine's key; NULL: none. 0; -EINVAL with a sentence; -ENOMEM. */
int search_start(struct search **ret, uv_loop_t *loop, struct http *http,
                 const struct config_provider *settings, const char *key, const char *prompt,
                 size_t len, search_fn *fn, void *ctx, struct err *err);
void search_cancel(struct search **search); /* accepts NULL; no callback comes any more */

/* Appends the numbered results, and how to cite them, then the prompt. */
void search_prompt(struct buf *out, const struct search_result *results, size_t n,
                   const char *prompt, size_t len, int64_t wall_ms);
/* JSON array of {n, title, url} of the results that the answer cites as [n]; of all of them when it
 * cites none. */
void search_citations(struct buf *out, const struct search_result *results, size_t n,
                      const char *answer, size_t len);

#endif
