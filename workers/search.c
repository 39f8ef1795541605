#include "workers/search.h"

#include <errno.h>

bool search_wanted(const struct config_provider *settings, const char *prompt, size_t len,
                   int64_t wall_ms)
{
    (void)settings, (void)prompt, (void)len, (void)wall_ms;
    return false;
}

int search_start(struct search **ret, uv_loop_t *loop, struct http *http,
                 const struct config_provider *settings, const char *key, const char *prompt,
                 size_t len, search_fn *fn, void *ctx, struct err *err)
{
    (void)ret, (void)loop, (void)http, (void)settings, (void)key, (void)prompt, (void)len, (void)fn;
    (void)ctx;
    return err_set(err, -EINVAL, "no engine");
}

void search_cancel(struct search **search)
{
    *search = NULL;
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
