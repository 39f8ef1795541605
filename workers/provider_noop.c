/* A provider that answers at once, without a model or a network: for benchmarks and trials. */
#include "workers/providers.h"

static void body(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len)
{
    (void)provider;
    (void)data;
    (void)len;
    buf_add_str(&reply->text, "ok");
    if (reply->text.failed) {
        provider_reply_fail(reply, CLASS_RETRY, "out of memory");
        return;
    }
    reply->prompt_tokens = 0;
    reply->output_tokens = 0;
    reply->finish = FINISH_DONE;
    reply->finished = true;
}

static void event(const struct provider *provider, struct provider_reply *reply, const char *data,
                  size_t len)
{
    (void)provider;
    (void)data;
    (void)len;
    provider_reply_fail(reply, CLASS_BAD_RESPONSE, "the noop provider has no stream");
}

static void failure(const struct provider *provider, struct provider_reply *reply, int status,
                    const struct http_headers *headers, const char *data, size_t len)
{
    (void)provider;
    (void)headers;
    (void)data;
    (void)len;
    provider_reply_fail(reply, CLASS_BAD_RESPONSE, "HTTP %d for a provider without HTTP", status);
}

static void end(const struct provider *provider, struct provider_reply *reply)
{
    (void)provider;
    if (!reply->finished)
        provider_reply_fail(reply, CLASS_BAD_RESPONSE, "the noop provider was not asked");
}

const struct provider provider_noop = {
    .abi = PROVIDER_ABI,
    .api = "noop",
    .title = "nothing: answers \"ok\" at once",
    .base_url = "http://127.0.0.1", /* never called */
    .local = true,
    .body = body,
    .event = event,
    .failure = failure,
    .end = end,
};
