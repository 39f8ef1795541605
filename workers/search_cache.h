/* Results of recent searches, for the next subtask that asks the same. */
#ifndef WORKERS_SEARCH_CACHE_H
#define WORKERS_SEARCH_CACHE_H

#include "workers/search.h"

#define SEARCH_CACHE_MS ((int64_t)5 * 60 * 1000)
#define SEARCH_CACHE_MAX 128 /* searches; the oldest makes room */

struct search_cache;

struct search_cache *search_cache_new(void);
void search_cache_free(struct search_cache **cache); /* accepts NULL */
/* Keeps a copy, unless memory is out. key: whatever decides about the results. */
void search_cache_put(struct search_cache *cache, const char *key,
                      const struct search_result *results, size_t n, int64_t now_ms);
/* A copy of the results (see search_results_copy()); NULL when there is none that is recent. */
struct search_result *search_cache_get(struct search_cache *cache, const char *key, size_t *ret_n,
                                       int64_t now_ms);

#endif
