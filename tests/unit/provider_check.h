/* What the tests of the providers share: bytes in, reply out, no network. */
#ifndef TESTS_UNIT_PROVIDER_CHECK_H
#define TESTS_UNIT_PROVIDER_CHECK_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "schemas/mem.h"
#include "workers/framing.h"
#include "workers/http_headers.h"
#include "workers/provider.h"

#define KEY "sk-test-0123456789abcdefghij"

/* What the replies below take from their call; a test that changes it puts it back. */
static struct provider_call expected_call;

static inline void reply_begin(struct provider_reply *reply)
{
    provider_reply_init(reply);
    provider_reply_expect(reply, &expected_call);
}

struct feeding {
    const struct provider *provider;
    struct provider_reply *reply;
};

static bool feed_event(void *ctx, const char *data, size_t len)
{
    struct feeding *feeding = ctx;
    /* A copy of exactly its size, so that a sanitizer sees a byte read too much. */
    char *copy = malloc(len > 0 ? len : 1);
    assert_non_null(copy);
    memcpy(copy, data, len);
    feeding->provider->event(feeding->provider, feeding->reply, copy, len);
    free(copy);
    return true;
}

static inline void feed_pieces(const char *api, struct provider_reply *reply, const char *data,
                               size_t len, size_t piece)
{
    const struct provider *provider = provider_find(api);
    struct feeding feeding = {provider, reply};
    struct framing framing;
    framing_init(&framing, provider->framing);
    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        assert_int_equal(framing_feed(&framing, data + at, n, feed_event, &feeding), 0);
    }
    assert_int_equal(framing_end(&framing, feed_event, &feeding), 0);
    framing_release(&framing);
    provider->end(provider, reply);
}

/* The reply to a stream, which must be the same when its bytes come one by one. The caller releases
 * it. */
static inline struct provider_reply stream(const char *api, const char *text)
{
    struct provider_reply whole, bytes;
    reply_begin(&whole);
    reply_begin(&bytes);
    feed_pieces(api, &whole, text, strlen(text), strlen(text) + 1);
    feed_pieces(api, &bytes, text, strlen(text), 1);
    assert_int_equal(whole.text.len, bytes.text.len);
    if (whole.text.len > 0)
        assert_memory_equal(whole.text.data, bytes.text.data, whole.text.len);
    assert_int_equal(whole.error, bytes.error);
    assert_string_equal(whole.error_text, bytes.error_text);
    assert_int_equal(whole.finished, bytes.finished);
    assert_int_equal(whole.prompt_tokens, bytes.prompt_tokens);
    provider_reply_release(&bytes);
    return whole;
}

static inline struct provider_reply body(const char *api, const char *text)
{
    const struct provider *provider = provider_find(api);
    struct provider_reply reply;
    reply_begin(&reply);
    char *copy = malloc(strlen(text) + 1);
    assert_non_null(copy);
    memcpy(copy, text, strlen(text));
    provider->body(provider, &reply, copy, strlen(text));
    free(copy);
    provider->end(provider, &reply);
    return reply;
}

/* The reply to a call of another kind: vectors of n_inputs texts, or the list of models. */
static inline struct provider_reply body_of(const char *api, enum provider_kind kind,
                                            size_t n_inputs, const char *text)
{
    const struct provider *provider = provider_find(api);
    struct provider_reply reply;
    reply_begin(&reply);
    reply.kind = kind;
    reply.n_inputs = n_inputs;
    char *copy = malloc(strlen(text) + 1);
    assert_non_null(copy);
    memcpy(copy, text, strlen(text));
    provider->body(provider, &reply, copy, strlen(text));
    free(copy);
    provider->end(provider, &reply);
    return reply;
}

/* headers: lines ended by \n, or NULL. */
static inline struct provider_reply failure(const char *api, int status, const char *headers,
                                            const char *text)
{
    const struct provider *provider = provider_find(api);
    struct http_headers parsed = {0};
    struct provider_reply reply;
    reply_begin(&reply);
    for (const char *at = headers; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, "\n");
        http_headers_add(&parsed, at, len);
        at += len + (at[len] == '\n');
    }
    provider->failure(provider, &reply, status, &parsed, text, strlen(text));
    provider->end(provider, &reply);
    http_headers_release(&parsed);
    return reply;
}

static inline const char *text_of(const struct provider_reply *reply)
{
    return reply->text.data != NULL ? reply->text.data : "";
}

static inline const char *reasoning_of(const struct provider_reply *reply)
{
    return reply->reasoning.data != NULL ? reply->reasoning.data : "";
}

#define assert_success(reply, expected_text)                                                       \
    do {                                                                                           \
        assert_string_equal((reply)->error_text, "");                                              \
        assert_int_equal((reply)->error, CLASS_NONE);                                              \
        assert_true((reply)->finished);                                                            \
        assert_string_equal(text_of(reply), expected_text);                                        \
    } while (0)

#define assert_error(reply, class_)                                                                \
    do {                                                                                           \
        assert_string_equal(error_class_name((reply)->error), error_class_name(class_));           \
        assert_false((reply)->finished);                                                           \
        assert_string_not_equal((reply)->error_text, "");                                          \
        assert_null(strstr((reply)->error_text, KEY));                                             \
    } while (0)

static inline void assert_same_text(const struct buf *is, const struct buf *should)
{
    assert_int_equal(is->len, should->len);
    if (is->len > 0)
        assert_memory_equal(is->data, should->data, is->len);
}

static inline void assert_same_reply(const struct provider_reply *is,
                                     const struct provider_reply *should)
{
    assert_same_text(&is->text, &should->text);
    assert_same_text(&is->reasoning, &should->reasoning);
    assert_int_equal(is->finish, should->finish);
    assert_int_equal(is->finished, should->finished);
    assert_int_equal(is->prompt_tokens, should->prompt_tokens);
    assert_int_equal(is->cached_tokens, should->cached_tokens);
    assert_int_equal(is->cache_write_tokens, should->cache_write_tokens);
    assert_int_equal(is->output_tokens, should->output_tokens);
    assert_int_equal(is->reasoning_tokens, should->reasoning_tokens);
    assert_true(is->load_ms == should->load_ms && is->prompt_ms == should->prompt_ms &&
                is->generate_ms == should->generate_ms);
    assert_string_equal(is->model, should->model);
    assert_string_equal(is->request_id, should->request_id);
    assert_int_equal(is->error, should->error);
    assert_string_equal(is->error_text, should->error_text);
    assert_int_equal(is->retry_after_ms, should->retry_after_ms);
}

/* The stream in two pieces, cut at every place, each piece in memory of its own size. */
static inline void check_every_split(const char *api, const char *text)
{
    const struct provider *provider = provider_find(api);
    size_t len = strlen(text);
    struct provider_reply whole;
    reply_begin(&whole);
    feed_pieces(api, &whole, text, len, len + 1);
    for (size_t cut = 0; cut <= len; cut++) {
        struct provider_reply reply;
        struct feeding feeding = {provider, &reply};
        struct framing framing;
        char *first = malloc(cut + 1), *second = malloc(len - cut + 1);
        assert_non_null(first);
        assert_non_null(second);
        memcpy(first, text, cut);
        memcpy(second, text + cut, len - cut);
        reply_begin(&reply);
        framing_init(&framing, provider->framing);
        assert_int_equal(framing_feed(&framing, first, cut, feed_event, &feeding), 0);
        free(first);
        assert_int_equal(framing_feed(&framing, second, len - cut, feed_event, &feeding), 0);
        assert_int_equal(framing_end(&framing, feed_event, &feeding), 0);
        free(second);
        framing_release(&framing);
        provider->end(provider, &reply);
        assert_same_reply(&reply, &whole);
        provider_reply_release(&reply);
    }
    provider_reply_release(&whole);
}

/* One row of a provider's table of errors. */
struct error_case {
    int status;
    const char *headers;
    const char *body;
    enum error_class class_;
    int64_t retry_after_ms;
};

static inline void check_errors(const char *api, const struct error_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct provider_reply reply =
            failure(api, cases[i].status, cases[i].headers, cases[i].body);
        if (reply.error != cases[i].class_ || reply.retry_after_ms != cases[i].retry_after_ms)
            print_message("%s, HTTP %d: %s\n  -> %s\n", api, cases[i].status, cases[i].body,
                          reply.error_text);
        assert_error(&reply, cases[i].class_);
        assert_int_equal(reply.retry_after_ms, cases[i].retry_after_ms);
        provider_reply_release(&reply);
    }
}

static inline struct provider_call plain_call(void)
{
    return (struct provider_call){
        .key = KEY,
        .model = "m",
        .system = "",
        .prompt = "Hi",
        .prompt_len = 2,
        .temperature = -1,
        .stream = true,
    };
}

/* The request of a call that can be expressed. */
static inline struct provider_request build(const char *api, const struct provider_call *call)
{
    const struct provider *provider = provider_find(api);
    struct provider_request request = {0};
    struct err err = {0};
    int rc = provider->build(provider, call, &request, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return request;
}

static inline int build_error(const char *api, const struct provider_call *call, struct err *err)
{
    const struct provider *provider = provider_find(api);
    struct provider_request request = {0};
    *err = (struct err){0};
    int rc = provider->build(provider, call, &request, err);
    provider_request_release(&request);
    return rc;
}

static inline void assert_json(const char *text, size_t len, const char *expected)
{
    struct err err = {0};
    json_t *is = json_parse(text, len, &err),
           *should = json_parse(expected, strlen(expected), &err);
    assert_string_equal(err.text, "");
    if (!json_equal(is, should))
        print_message("is     %.*s\nshould %s\n", (int)len, text, expected);
    assert_true(json_equal(is, should));
    json_decref(is);
    json_decref(should);
}

static inline void check_request(const char *api, const struct provider_call *call, const char *url,
                                 const char *headers, const char *json)
{
    struct provider_request request = build(api, call);
    assert_string_equal(request.url.data, url);
    assert_string_equal(request.headers.data != NULL ? request.headers.data : "", headers);
    assert_json(request.body.data, request.body.len, json);
    provider_request_release(&request);
}

/* Values of all types in the place of every value of the document, one at a time: nothing may
 * crash, and a reply either succeeds or says why not. */
static inline void wrong_types(const char *api, const char *document, bool as_event);

static enum provider_kind wrong_kind; /* of the replies that wrong_types() reads */

static inline void try_document(const char *api, json_t *root, bool as_event)
{
    const struct provider *provider = provider_find(api);
    char *text = json_dumps(root, JSON_COMPACT | JSON_ENCODE_ANY);
    struct provider_reply reply;
    reply_begin(&reply);
    reply.kind = wrong_kind;
    reply.n_inputs = wrong_kind == PROVIDER_EMBED ? 2 : 0;
    if (as_event)
        provider->event(provider, &reply, text, strlen(text));
    else
        provider->body(provider, &reply, text, strlen(text));
    provider->end(provider, &reply);
    assert_true(reply.finished == (reply.error == CLASS_NONE));
    assert_true((reply.error_text[0] != '\0') == (reply.error != CLASS_NONE));
    provider_reply_release(&reply);
    free(text);
}

static inline void replace_each(const char *api, json_t *root, json_t *at, bool as_event)
{
    static const char *const others[] = {"null", "true", "-1",   "1.5", "1e99",   "\"x\"",
                                         "\"\"", "[]",   "[[]]", "{}",  "[null]", "{\"a\":{}}"};
    size_t n = json_is_array(at) ? json_array_size(at) : json_object_size(at);
    void *iter = json_object_iter(at);
    for (size_t i = 0; i < n; i++) {
        const char *key = iter != NULL ? json_object_iter_key(iter) : NULL;
        json_t *old = key != NULL ? json_object_iter_value(iter) : json_array_get(at, i);
        json_incref(old);
        for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
            json_t *other = json_loads(others[k], JSON_DECODE_ANY, NULL);
            if (key != NULL)
                json_object_iter_set_new(at, iter, other);
            else
                json_array_set_new(at, i, other);
            try_document(api, root, as_event);
        }
        if (key != NULL)
            json_object_iter_set_new(at, iter, old);
        else
            json_array_set_new(at, i, old);
        replace_each(api, root, old, as_event);
        iter = iter != NULL ? json_object_iter_next(at, iter) : NULL;
    }
}

static inline void wrong_types(const char *api, const char *document, bool as_event)
{
    json_t *root = json_loads(document, 0, NULL);
    assert_non_null(root);
    replace_each(api, root, root, as_event);
    json_decref(root);
}

/* The same for an answer to a call of another kind; vectors are those of two texts. */
static inline void wrong_types_of(const char *api, enum provider_kind kind, const char *document)
{
    wrong_kind = kind;
    wrong_types(api, document, false);
    wrong_kind = PROVIDER_CHAT;
}

/* Allocation failures while a stream is read: an error or the full answer, never a crash, never a
 * success with half a text. */
static inline void check_memory_failures(const char *api, const char *text, const char *answer)
{
    for (unsigned long k = 1; k < 200; k++) {
        const struct provider *provider = provider_find(api);
        struct provider_reply reply;
        struct feeding feeding = {provider, &reply};
        struct framing framing;
        reply_begin(&reply);
        framing_init(&framing, provider->framing);
        mem_fail_at(k);
        int rc = 0;
        for (size_t at = 0; rc == 0 && at < strlen(text); at += 7) {
            size_t n = strlen(text) - at < 7 ? strlen(text) - at : 7;
            rc = framing_feed(&framing, text + at, n, feed_event, &feeding);
        }
        if (rc == 0)
            rc = framing_end(&framing, feed_event, &feeding);
        mem_fail_at(0);
        provider->end(provider, &reply);
        if (rc == 0 && reply.error == CLASS_NONE)
            assert_success(&reply, answer);
        framing_release(&framing);
        provider_reply_release(&reply);
    }
}

#endif
