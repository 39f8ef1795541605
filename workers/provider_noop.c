/* A provider that answers at once, without a model or a network: for benchmarks and trials. */
#include "workers/providers.h"

static void chat(struct provider_reply *reply)
{
    buf_add_str(&reply->text, "ok");
    reply->prompt_tokens = 0;
    reply->output_tokens = 0;
}

static void embed(struct provider_reply *reply)
{
    for (size_t i = 0; i < reply->n_inputs; i++)
        buf_add_str(&reply->text, i == 0 ? "[[1]" : ",[1]");
    buf_add_str(&reply->text, reply->n_inputs > 0 ? "]" : "[]");
    reply->prompt_tokens = 0;
}

static void list(struct provider_reply *reply)
{
    buf_add_str(&reply->text, "noop\n");
}

static void body(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len)
{
    static void (*const answers[PROVIDER_KIND_COUNT])(struct provider_reply *) = {
        [PROVIDER_CHAT] = chat, [PROVIDER_EMBED] = embed, [PROVIDER_LIST] = list};
    (void)provider;
    (void)data;
    (void)len;
    answers[reply->kind](reply);
    if (reply->text.failed) {
        provider_reply_fail(reply, CLASS_RETRY, "out of memory");
        return;
    }
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
    .kinds =
        PROVIDER_KIND(PROVIDER_CHAT) | PROVIDER_KIND(PROVIDER_EMBED) | PROVIDER_KIND(PROVIDER_LIST),
    .body = body,
    .event = event,
    .failure = failure,
    .end = end,
};
