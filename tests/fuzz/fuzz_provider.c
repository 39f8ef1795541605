/* Any answer to any provider: a success or a failure with a sentence, never both or none. The first
 * byte chooses the provider ('a' is the first of the table), the second one what was asked and what
 * is fed: of a chat s a stream, b a body; of the Responses API r a stream, R a body; e vectors (the
 * third byte says of how many texts, from '0'); l a list of models; f an HTTP error. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/framing.h"
#include "workers/http_headers.h"
#include "workers/json_view.h"
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

/* What the call was, by the second byte. */
static struct provider_call call_of(uint8_t what)
{
    bool embeds = what == 'e', lists = what == 'l';
    return (struct provider_call){
        .kind = embeds  ? PROVIDER_EMBED
                : lists ? PROVIDER_LIST
                        : PROVIDER_CHAT,
        .responses = what == 'r' || what == 'R',
        .max_tokens = 5,
    };
}

/* Vectors are what they say: as many as the texts. */
static void check_vectors(const struct provider_reply *reply)
{
    struct json_view vectors, vector;
    size_t n = 0;
    if (!reply->finished || reply->kind != PROVIDER_EMBED)
        return;
    if (!json_view_parse(&vectors, reply->text.data, reply->text.len) ||
        vectors.kind != JSON_VIEW_ARRAY)
        abort();
    for (; json_view_next(&vectors, NULL, &vector); n++)
        if (json_view_first(vector).kind != JSON_VIEW_NUMBER)
            abort();
    if (n != reply->n_inputs)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t n;
    const struct provider *const *table = provider_table(&n);
    if (size < 3)
        return 0;
    const struct provider *provider = table[(uint8_t)(data[0] - 'a') % n];
    const char *bytes = (const char *)data + 2;
    size_t len = size - 2;
    struct provider_call call = call_of(data[1]);
    struct provider_reply reply;
    if (call.kind == PROVIDER_EMBED) {
        call.n_inputs = (uint8_t)(data[2] - '0') % 16;
        bytes++;
        len--;
    }
    provider_reply_init(&reply);
    provider_reply_expect(&reply, &call);
    if (data[1] == 's' || data[1] == 'r')
        stream(provider, &reply, bytes, len);
    else if (data[1] == 'f')
        failure(provider, &reply, bytes, len);
    else if (data[1] != '\0')
        provider->body(provider, &reply, bytes, len);
    provider->end(provider, &reply);
    check(&reply);
    check_vectors(&reply);
    provider_reply_release(&reply);
    return 0;
}
