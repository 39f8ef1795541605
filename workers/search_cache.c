#include "workers/search_cache.h"

#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "schemas/mem.h"

struct entry {
    char *key;
    struct search_result *results;
    size_t n;
    int64_t expires_ms;
    TAILQ_ENTRY(entry) link;
};

struct search_cache {
    TAILQ_HEAD(, entry) entries; /* oldest first, so they expire in this order */
    size_t n;
};

struct search_cache *search_cache_new(void)
{
    struct search_cache *cache = mem_must_zalloc(sizeof *cache);
    TAILQ_INIT(&cache->entries);
    return cache;
}

static void drop(struct search_cache *cache, struct entry *entry)
{
    TAILQ_REMOVE(&cache->entries, entry, link);
    cache->n--;
    free(entry->key);
    free(entry->results);
    free(entry);
}

void search_cache_free(struct search_cache **cache_ptr)
{
    struct search_cache *cache = *cache_ptr;
    *cache_ptr = NULL;
    if (cache == NULL)
        return;
    while (!TAILQ_EMPTY(&cache->entries))
        drop(cache, TAILQ_FIRST(&cache->entries));
    free(cache);
}

static struct entry *find(struct search_cache *cache, const char *key, int64_t now_ms)
{
    struct entry *entry;
    while ((entry = TAILQ_FIRST(&cache->entries)) != NULL && entry->expires_ms <= now_ms)
        drop(cache, entry);
    TAILQ_FOREACH (entry, &cache->entries, link)
        if (strcmp(entry->key, key) == 0)
            return entry;
    return NULL;
}

void search_cache_put(struct search_cache *cache, const char *key,
                      const struct search_result *results, size_t n, int64_t now_ms)
{
    struct entry *entry = find(cache, key, now_ms);
    struct search_result *copy = search_results_copy(results, n);
    if (copy == NULL)
        return;
    if (entry != NULL)
        drop(cache, entry);
    if (cache->n == SEARCH_CACHE_MAX)
        drop(cache, TAILQ_FIRST(&cache->entries));
    entry = mem_must_zalloc(sizeof *entry);
    entry->key = mem_must_strdup(key);
    entry->results = copy;
    entry->n = n;
    entry->expires_ms = now_ms + SEARCH_CACHE_MS;
    TAILQ_INSERT_TAIL(&cache->entries, entry, link);
    cache->n++;
}

struct search_result *search_cache_get(struct search_cache *cache, const char *key, size_t *ret_n,
                                       int64_t now_ms)
{
    const struct entry *entry = find(cache, key, now_ms);
    struct search_result *copy =
        entry != NULL ? search_results_copy(entry->results, entry->n) : NULL;
    if (copy != NULL)
        *ret_n = entry->n;
    return copy;
}

struct search_result *search_results_copy(const struct search_result *results, size_t n)
{
    size_t bytes = n * sizeof *results;
    for (size_t i = 0; i < n; i++)
        bytes += strlen(results[i].title) + strlen(results[i].url) + strlen(results[i].snippet) + 3;
    struct search_result *copy = n > 0 ? mem_alloc(bytes) : NULL;
    if (copy == NULL)
        return NULL;
    char *at = (char *)(copy + n);
    for (size_t i = 0; i < n; i++) {
        copy[i].title = at;
        at = stpcpy(at, results[i].title) + 1;
        copy[i].url = at;
        at = stpcpy(at, results[i].url) + 1;
        copy[i].snippet = at;
        at = stpcpy(at, results[i].snippet) + 1;
    }
    return copy;
}
