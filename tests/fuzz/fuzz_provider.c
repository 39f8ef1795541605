/* Any answer to any provider: a success or a failure with a sentence, never both or none. The first
 * byte chooses the provider ('a' is the first of the table), the second one what is fed: s a
 * stream, b a body, f an HTTP error, l a list of models. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/framing.h"
#include "workers/http_headers.h"
#include "workers/provider.h"
#include "workers/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct feeding {
    const struct provider *provider;
    struct provider_reply *reply;
};

static bool feed(void *ctx, const char *data, size_t len)
{
    struct feeding *feeding = ctx;
    feeding->provider->event(feeding->provider, feeding->reply, data, len);
    return true;
}

static void stream(const struct provider *provider, struct provider_reply *reply, const char *data,
                   size_t len)
{
    struct feeding feeding = {provider, reply};
    struct framing framing;
    framing_init(&framing, provider->framing);
    framing_feed(&framing, data, len / 2, feed, &feeding);
    framing_feed(&framing, data + len / 2, len - len / 2, feed, &feeding);
    framing_end(&framing, feed, &feeding);
    framing_release(&framing);
}

/* The headers are what stands before the first blank line. */
static void failure(const struct provider *provider, struct provider_reply *reply, const char *data,
                    size_t len)
{
    static const int statuses[] = {400, 401, 402, 404, 413, 422, 429, 500, 503, 529};
    if (len == 0)
        return;
    int status = statuses[(unsigned char)*data % 10];
    struct http_headers headers = {0};
    data++;
    len--;
    for (;;) {
        const char *end = memchr(data, '\n', len);
        if (end == NULL)
            break;
        size_t line = (size_t)(end - data);
        http_headers_add(&headers, data, line);
        data += line + 1;
        len -= line + 1;
        if (line == 0)
            break;
    }
    provider->failure(provider, reply, status, &headers, data, len);
    http_headers_release(&headers);
}

static void check(const struct provider_reply *reply)
{
    size_t text = strlen(reply->error_text);
    if (reply->finished == (reply->error != CLASS_NONE) || (text > 0) == reply->finished)
        abort();
    if (utf8_valid(reply->error_text, text) != text ||
        utf8_valid(reply->text.data, reply->text.len) != reply->text.len ||
        utf8_valid(reply->reasoning.data, reply->reasoning.len) != reply->reasoning.len)
        abort();
    if (reply->finished && (reply->finish == FINISH_NONE || reply->finish == FINISH_FILTERED))
        abort();
    if (reply->prompt_tokens < -1 || reply->cached_tokens < -1 || reply->output_tokens < -1 ||
        reply->reasoning_tokens < -1 || reply->retry_after_ms < -1)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t n;
    const struct provider *const *table = provider_table(&n);
    if (size < 2)
        return 0;
    const struct provider *provider = table[(uint8_t)(data[0] - 'a') % n];
    const char *bytes = (const char *)data + 2;
    size_t len = size - 2;
    struct provider_reply reply;
    struct buf names = {0};
    provider_reply_init(&reply);
    switch (data[1]) {
    case 's':
        stream(provider, &reply, bytes, len);
        break;
    case 'b':
        provider->body(provider, &reply, bytes, len);
        break;
    case 'f':
        failure(provider, &reply, bytes, len);
        break;
    case 'l':
        if (provider->list_parse != NULL)
            provider->list_parse(provider, bytes, len, &names);
        break;
    default:
        break;
    }
    provider->end(provider, &reply);
    check(&reply);
    provider_reply_release(&reply);
    buf_release(&names);
    return 0;
}
