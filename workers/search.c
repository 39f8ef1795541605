#include "workers/search.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/containers.h"
#include "schemas/mem.h"
#include "workers/search_cache.h"
#include "workers/search_engine.h"

#define ANSWER_MAX ((size_t)2 * 1024 * 1024) /* bytes of an engine's answer */
#define PACES 8                              /* engines that are told apart, at least */

/* When an engine at a place may be asked again. */
struct pace {
    const struct search_engine *engine; /* NULL: free */
    int64_t next_ms;
};

struct searches {
    uv_loop_t *loop;   /* borrowed */
    struct http *http; /* borrowed */
    struct search_cache *cache;
    struct pace paces[PACES];
    LIST_HEAD(, search) running;
};

struct search {
    struct searches *searches; /* borrowed */
    const struct search_engine *engine;
    search_fn *fn;
    void *ctx;
    char *key;       /* of the engine; NULL: none */
    char *cache_key; /* all that decides about the results */
    struct provider_request request;
    struct loop_timer *begin;    /* its turn, or that of what is known already */
    struct loop_timer *deadline; /* of all of it */
    struct http_call *call;
    int status;
    struct buf answer;
    bool crowded;         /* so many wait for the engine that there is no turn in time */
    bool too_large, told; /* told: fn is being called, or was */
    struct search_hits hits;
    struct search_result *known; /* of the cache; NULL: not there */
    size_t n_known;
    LIST_ENTRY(search) link;
};

struct searches *searches_new(uv_loop_t *loop, struct http *http)
{
    struct searches *searches = mem_must_zalloc(sizeof *searches);
    searches->loop = loop;
    searches->http = http;
    searches->cache = search_cache_new();
    LIST_INIT(&searches->running);
    return searches;
}

void searches_free(struct searches **searches_ptr)
{
    struct searches *searches = *searches_ptr;
    *searches_ptr = NULL;
    if (searches == NULL)
        return;
    while (!LIST_EMPTY(&searches->running)) {
        struct search *search = LIST_FIRST(&searches->running);
        search_cancel(&search);
    }
    search_cache_free(&searches->cache);
    free(searches);
}

/* --- the end ----------------------------------------------------------------------------------
 */

static void free_secret(char *secret)
{
    if (secret != NULL)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

static void release(struct search *search)
{
    if (!search->told)
        LIST_REMOVE(search, link);
    http_cancel(&search->call);
    loop_timer_free(&search->begin);
    loop_timer_free(&search->deadline);
    if (search->request.url.data != NULL) /* Google's key is in it */
        explicit_bzero(search->request.url.data, search->request.url.cap);
    provider_request_release(&search->request);
    buf_release(&search->answer);
    search_hits_release(&search->hits);
    free_secret(search->key);
    free(search->cache_key);
    free(search->known);
    free(search);
}

void search_cancel(struct search **search_ptr)
{
    struct search *search = *search_ptr;
    *search_ptr = NULL;
    if (search != NULL && !search->told) /* else it is gone as soon as fn returns */
        release(search);
}

static void mask(char *text, const char *secret)
{
    size_t len = strlen(secret);
    for (char *at; len >= 4 && (at = strstr(text, secret)) != NULL;) {
        memcpy(at, "***", 3);
        memmove(at + 3, at + len, strlen(at + len) + 1);
    }
}

/* What a server or curl says may quote the URL, and in it the key. */
static void mask_key(const struct search *search, char *text)
{
    struct buf encoded = {0};
    if (search->key == NULL)
        return;
    mask(text, search->key);
    search_encode(&encoded, search->key);
    if (!encoded.failed && encoded.len > 0) {
        mask(text, encoded.data);
        explicit_bzero(encoded.data, encoded.len);
    }
    buf_release(&encoded);
}

static void tell(struct search *search, const struct search_result *results, size_t n,
                 const char *why)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", why);
    mask_key(search, text);
    search->told = true;
    LIST_REMOVE(search, link); /* fn may free `searches` */
    search->fn(search->ctx, results, n, text);
    release(search);
}

/* --- asking -----------------------------------------------------------------------------------
 */

static void finish(struct search *search)
{
    struct err err = {0};
    search_hits_release(&search->hits);
    int rc =
        search->engine->parse(search->status, search->answer.len > 0 ? search->answer.data : "",
                              search->answer.len, &search->hits, &err);
    if (rc == 0 && search->hits.n == 0)
        err_set(&err, 0, "%s found nothing", search->engine->title);
    size_t n = rc == 0 ? search->hits.n : 0;
    if (n > 0)
        search_cache_put(search->searches->cache, search->cache_key, search->hits.items, n,
                         clock_ms());
    tell(search, search->hits.items, n, n > 0 ? "" : err.text);
}

static bool take_head(void *ctx, int status, const struct http_headers *headers)
{
    struct search *search = ctx;
    (void)headers;
    search->status = status;
    return true;
}

static bool take_body(void *ctx, const char *data, size_t len)
{
    struct search *search = ctx;
    search->too_large = len > ANSWER_MAX - search->answer.len;
    if (!search->too_large)
        buf_add(&search->answer, data, len);
    return !search->too_large && !search->answer.failed;
}

static void take_end(void *ctx, enum http_end end, const char *why)
{
    struct search *search = ctx;
    struct err err = {0};
    search->call = NULL;
    if (end == HTTP_END_WELL && !search->answer.failed) {
        finish(search);
        return;
    }
    if (search->too_large)
        err_set(&err, 0, "%s's answer is larger than %zu MiB", search->engine->title,
                ANSWER_MAX >> 20);
    else if (search->answer.failed)
        err_set(&err, 0, "out of memory");
    else
        err_set(&err, 0, "%s %s: %s", search->engine->title,
                end == HTTP_END_CONNECT ? "cannot be reached" : "broke the connection off", why);
    tell(search, NULL, 0, err.text);
}

static void begin(void *ctx)
{
    static const struct http_callbacks callbacks = {take_head, take_body, take_end};
    struct search *search = ctx;
    struct err err = {0};
    if (search->known != NULL) {
        tell(search, search->known, search->n_known, "");
        return;
    }
    if (search->crowded) {
        err_set(&err, 0, "too many searches wait for %s, which is asked every %lld ms",
                search->engine->title, (long long)search->engine->pace_ms);
        tell(search, NULL, 0, err.text);
        return;
    }
    if (http_start(&search->call, search->searches->http, search->request.url.data,
                   search->request.headers.data, &search->request.body, &callbacks, search,
                   &err) != 0)
        tell(search, NULL, 0, err.text);
}

static void run_out(void *ctx)
{
    struct search *search = ctx;
    char why[256];
    snprintf(why, sizeof why, "%s did not answer within %d s", search->engine->title,
             SEARCH_DEADLINE_MS / 1000);
    tell(search, NULL, 0, why);
}

/* Ms until the engine may be asked; its next turn is later. -1: not before the deadline. */
static int64_t take_turn(struct searches *searches, const struct search_engine *engine)
{
    int64_t now_ms = clock_ms();
    struct pace *pace = searches->paces;
    if (engine->pace_ms == 0)
        return 0;
    while (pace < searches->paces + PACES - 1 && pace->engine != NULL && pace->engine != engine)
        pace++;
    pace->engine = engine;
    int64_t turn_ms = pace->next_ms > now_ms ? pace->next_ms : now_ms;
    if (turn_ms - now_ms >= SEARCH_DEADLINE_MS)
        return -1;
    pace->next_ms = turn_ms + engine->pace_ms;
    return turn_ms - now_ms;
}

static void plan(struct search *search)
{
    struct searches *searches = search->searches;
    int64_t wait_ms = 0;
    search->known =
        search_cache_get(searches->cache, search->cache_key, &search->n_known, clock_ms());
    if (search->known == NULL)
        wait_ms = take_turn(searches, search->engine);
    search->crowded = wait_ms < 0;
    search->begin = loop_timer_new(searches->loop, begin, search);
    search->deadline = loop_timer_new(searches->loop, run_out, search);
    loop_timer_start(search->begin, search->crowded ? 0 : wait_ms, 0);
    loop_timer_start(search->deadline, SEARCH_DEADLINE_MS, 0);
}

/* --- the start --------------------------------------------------------------------------------
 */

static int check(const struct config_provider *settings, const struct search_engine *engine,
                 const char *key, struct err *err)
{
    if (engine == NULL)
        return err_set(err, -EINVAL, "there is no search engine `%s`", settings->engine);
    if (engine->base == NULL && settings->engine_url == NULL)
        return err_set(err, -EINVAL, "the search engine %s needs `engine_url`", engine->name);
    if (engine->needs_key && (key == NULL || key[0] == '\0' || settings->engine_cx == NULL))
        return err_set(err, -EINVAL, "the search engine %s needs `%s`", engine->name,
                       settings->engine_cx == NULL ? "engine_cx" : "engine_key");
    return 0;
}

static int build(struct search *search, const struct config_provider *settings, const char *prompt,
                 size_t len, struct err *err)
{
    struct buf query = {0}, cache_key = {0};
    struct search_ask ask = {
        .base = settings->engine_url != NULL ? settings->engine_url : search->engine->base,
        .key = search->key,
        .cx = settings->engine_cx,
        .max_results = (int64_t)search->hits.max,
    };
    search_query(&query, prompt, len, clock_wall_ms());
    int rc = query.failed     ? err_set(err, -ENOMEM, "out of memory")
             : query.len == 0 ? err_set(err, -EINVAL, "the prompt has no words to search for")
                              : 0;
    if (rc == 0) {
        ask.query = query.data;
        search->engine->build(&ask, &search->request);
        buf_printf(&cache_key, "%s\n%s\n%s\n%zu\n%s", search->engine->name, ask.base,
                   ask.cx != NULL ? ask.cx : "", search->hits.max, ask.query);
        if (cache_key.failed || search->request.url.failed || search->request.headers.failed ||
            search->request.body.failed)
            rc = err_set(err, -ENOMEM, "out of memory");
    }
    if (rc == 0)
        search->cache_key = buf_take(&cache_key, NULL);
    buf_release(&cache_key);
    buf_release(&query);
    return rc;
}

int search_start(struct search **ret, struct searches *searches,
                 const struct config_provider *settings, const char *key, const char *prompt,
                 size_t len, search_fn *fn, void *ctx, struct err *err)
{
    const struct search_engine *engine = search_engine_find(settings->engine);
    int rc = check(settings, engine, key, err);
    if (rc != 0)
        return rc;
    struct search *search = mem_must_zalloc(sizeof *search);
    int64_t max = settings->max_results > 0 ? settings->max_results : 5;
    search->searches = searches;
    search->engine = engine;
    search->fn = fn;
    search->ctx = ctx;
    search->key = engine->needs_key ? mem_must_strdup(key) : NULL;
    search->hits.max = max < SEARCH_MAX_RESULTS ? (size_t)max : SEARCH_MAX_RESULTS;
    LIST_INSERT_HEAD(&searches->running, search, link);
    rc = build(search, settings, prompt, len, err);
    if (rc != 0) {
        release(search);
        return rc;
    }
    plan(search);
    *ret = search;
    return 0;
}
