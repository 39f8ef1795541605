#include "workers/search.h"

#include <errno.h>
#include <stdlib.h>

#include "schemas/mem.h"

struct searches {
    uv_loop_t *loop;
    struct http *http;
};

struct searches *searches_new(uv_loop_t *loop, struct http *http)
{
    struct searches *searches = mem_must_zalloc(sizeof *searches);
    searches->loop = loop;
    searches->http = http;
    return searches;
}

void searches_free(struct searches **searches)
{
    free(*searches);
    *searches = NULL;
}

bool search_wanted(const struct config_provider *settings, const char *prompt, size_t len,
                   int64_t wall_ms)
{
    (void)settings, (void)prompt, (void)len, (void)wall_ms;
    return false;
}

int search_start(struct search **ret, struct searches *searches,
                 const struct config_provider *settings, const char *key, const char *prompt,
                 size_t len, search_fn *fn, void *ctx, struct err *err)
{
    (void)ret, (void)searches, (void)settings, (void)key, (void)prompt, (void)len, (void)fn;
    (void)ctx;
    return err_set(err, -EINVAL, "no engine");
}

void search_cancel(struct search **search)
{
    *search = NULL;
}

struct search_result *search_results_copy(const struct search_result *results, size_t n)
{
    (void)results, (void)n;
    return NULL;
}

void search_prompt(struct buf *out, const struct search_result *results, size_t n,
                   const char *prompt, size_t len, int64_t wall_ms)
{
    (void)results, (void)n, (void)wall_ms;
    buf_add(out, prompt, len);
}

void search_citations(struct buf *out, const struct search_result *results, size_t n,
                      const char *answer, size_t len)
{
    (void)results, (void)n, (void)answer, (void)len;
    buf_add_str(out, "[]");
}
