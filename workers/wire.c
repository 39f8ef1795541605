#include "workers/wire.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "workers/failure.h"
#include "workers/framing.h"
#include "workers/utf8.h"

/* "v1", "v4", "v1beta" */
static bool is_version(const char *segment, size_t len)
{
    if (len < 2 || segment[0] != 'v' || !isdigit((unsigned char)segment[1]))
        return false;
    for (size_t i = 2; i < len; i++)
        if (!isalnum((unsigned char)segment[i]))
            return false;
    return true;
}

static bool ends_with(const char *text, size_t len, const char *suffix)
{
    size_t suffix_len = strlen(suffix);
    return len >= suffix_len && memcmp(text + len - suffix_len, suffix, suffix_len) == 0;
}

static bool has_control(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text <= ' ' || *text == 0x7f)
            return true;
    return false;
}

int wire_url(const struct provider *provider, const struct provider_call *call, const char *version,
             const char *path, struct provider_request *ret, struct err *err)
{
    const char *base = call->base_url != NULL ? call->base_url : provider->base_url;
    if (base == NULL)
        return err_set(err, -EINVAL, "api %s has no usual address: set base_url", provider->api);
    if ((strncasecmp(base, "http://", 7) != 0 && strncasecmp(base, "https://", 8) != 0) ||
        has_control(base))
        return err_set(err, -EINVAL, "base_url \"%s\" is no http:// or https:// URL", base);
    size_t len = strlen(base);
    while (len > 0 && base[len - 1] == '/')
        len--;
    const char *slash = memrchr(base, '/', len);
    const char *segment = slash != NULL ? slash + 1 : base;
    size_t segment_len = len - (size_t)(segment - base);
    bool usual = ends_with(base, len, "/v1") || ends_with(base, len, "/v1beta") ||
                 (version[0] != '\0' && ends_with(base, len, version));
    if (usual)
        len -= segment_len + 1;
    else if (is_version(segment, segment_len) || ends_with(base, len, "/v1beta/openai"))
        version = "";
    buf_add(&ret->url, base, len);
    buf_add_str(&ret->url, version);
    buf_add_str(&ret->url, path);
    return 0;
}

int wire_key(const struct provider *provider, const struct provider_call *call, const char *name,
             const char *prefix, struct provider_request *ret, struct err *err)
{
    if (call->key == NULL || call->key[0] == '\0') {
        if (!provider->needs_key)
            return 0;
        return err_set(err, -EINVAL, "api %s needs a key: set key: env:%s in the configuration",
                       provider->api, provider->key_env);
    }
    if (has_control(call->key))
        return err_set(err, -EINVAL, "the key of api %s holds a space or a control character",
                       provider->api);
    size_t add = strlen(name) + strlen(prefix) + strlen(call->key) + 4;
    buf_reserve(&ret->headers, add); /* no copy of the key is left behind by growing */
    buf_add_str(&ret->headers, name);
    buf_add_str(&ret->headers, ": ");
    buf_add_str(&ret->headers, prefix);
    buf_add_str(&ret->headers, call->key);
    buf_add_char(&ret->headers, '\n');
    return 0;
}

void wire_json_body(const struct provider_call *call, struct provider_request *ret)
{
    size_t schema = call->json_schema != NULL ? strlen(call->json_schema) : 0;
    buf_reserve(&ret->headers, 1024);
    buf_add_str(&ret->headers, "Content-Type: application/json\n");
    buf_reserve(&ret->body,
                call->prompt_len + call->prompt_len / 16 + strlen(call->system) + schema + 1024);
}

void wire_member(struct buf *body, const char *name, const char *text, size_t len)
{
    buf_printf(body, ",\"%s\":", name);
    buf_add_json(body, text, len);
}

void wire_number(struct buf *body, const char *name, double number)
{
    char digits[64];
    snprintf(digits, sizeof digits, "%.10g", number);
    for (char *at = digits; *at != '\0'; at++)
        if (*at == ',')
            *at = '.';
    buf_printf(body, ",\"%s\":%s", name, digits);
}

int wire_schema(const struct provider_call *call, struct json_view *ret, struct err *err)
{
    *ret = (struct json_view){0};
    if (call->json_schema == NULL)
        return 0;
    if (!json_view_parse(ret, call->json_schema, strlen(call->json_schema)) ||
        ret->kind != JSON_VIEW_OBJECT)
        return err_set(err, -EINVAL, "the schema of the answer is no JSON object");
    return 0;
}

int wire_finish(const struct provider_request *request, struct err *err)
{
    if (request->url.failed || request->headers.failed || request->body.failed)
        return err_set(err, -ENOMEM, "out of memory");
    return 0;
}

void wire_stop(struct provider_reply *reply, const struct wire_stop *stops, struct json_view word)
{
    char text[64];
    if (!json_view_copy(word, text, sizeof text) || text[0] == '\0')
        return;
    const struct wire_stop *stop = stops;
    while (stop->word != NULL && strcasecmp(stop->word, text) != 0)
        stop++;
    if (reply->finish != FINISH_FILTERED)
        reply->finish = stop->word != NULL ? stop->finish : FINISH_OTHER;
    if (stop->word != NULL && stop->error != CLASS_NONE)
        provider_reply_fail(reply, stop->error, "the model stopped with \"%s\"", text);
}

/* An answer that is empty is none, unless the model itself chose to say nothing. */
static void check_empty(struct provider_reply *reply)
{
    if (reply->finish == FINISH_LENGTH)
        provider_reply_fail(reply, CLASS_BAD_REQUEST,
                            "the output limit was used up before any text came%s: raise max_tokens",
                            reply->reasoning.len > 0 ? " (by reasoning)" : "");
    else if (reply->finish == FINISH_TOOLS)
        provider_reply_fail(reply, CLASS_BAD_RESPONSE,
                            "the model called a tool, and none was offered");
    else if (reply->finish == FINISH_OTHER)
        provider_reply_fail(reply, CLASS_BAD_RESPONSE,
                            "the model stopped without text, for a reason not known");
}

void wire_conclude(struct provider_reply *reply)
{
    if (reply->finish == FINISH_NONE)
        provider_reply_fail(reply, CLASS_BAD_RESPONSE, "the answer ended without a finish reason");
    if (reply->finish == FINISH_FILTERED) {
        char said[200] = "";
        if (reply->text.len > 0)
            utf8_excerpt(said, sizeof said, reply->text.data, reply->text.len);
        provider_reply_fail(reply, CLASS_REFUSED, "the model or a filter declined to answer%s%s",
                            said[0] != '\0' ? ": " : "", said);
    }
    if (reply->text.len == 0)
        check_empty(reply);
    if (reply->error == CLASS_NONE)
        reply->finished = true;
}

void wire_prove(struct provider_reply *reply)
{
    if (reply->error == CLASS_NONE && reply->finish != FINISH_NONE &&
        reply->finish != FINISH_FILTERED && reply->text.len > 0)
        reply->finished = true;
}

void wire_end(const struct provider *provider, struct provider_reply *reply)
{
    (void)provider;
    if (reply->finished || reply->error != CLASS_NONE)
        return;
    if (reply->finish == FINISH_FILTERED)
        wire_conclude(reply);
    provider_reply_fail(reply, CLASS_BAD_RESPONSE, "the answer ended before it was complete%s",
                        reply->finish == FINISH_NONE ? "" : ": its last event is missing");
}

#define MAX_COUNT 1000000000000 /* no request has more tokens; keeps sums far from overflow */

void wire_count(struct json_view view, int64_t *count)
{
    int64_t value = json_view_int(view, -1);
    if (value >= 0 && value <= MAX_COUNT)
        *count = value;
}

void wire_ms(struct json_view view, double scale, double *ms)
{
    double value = json_view_num(view, -1);
    if (value >= 0)
        *ms = value * scale;
}

void wire_name(struct json_view view, char *name, size_t cap)
{
    if (name[0] == '\0')
        json_view_copy(view, name, cap);
}

bool wire_error(struct provider_reply *reply, struct json_view document, struct json_view error,
                enum error_class unknown)
{
    bool is_error = error.kind == JSON_VIEW_OBJECT || error.kind == JSON_VIEW_ARRAY ||
                    (error.kind == JSON_VIEW_STRING && error.len > 2);
    if (is_error)
        failure_inside(reply, document, unknown);
    return is_error;
}

static void trim(const char **data, size_t *len)
{
    while (*len > 0 && isspace((unsigned char)**data)) {
        ++*data;
        --*len;
    }
    while (*len > 0 && isspace((unsigned char)(*data)[*len - 1]))
        --*len;
}

bool wire_is_done(const char *data, size_t len)
{
    trim(&data, &len);
    return len == 6 && memcmp(data, "[DONE]", 6) == 0;
}

/* After every document: half a text must not pass for an answer. */
static void check_memory(struct provider_reply *reply)
{
    if (reply->text.failed || reply->reasoning.failed)
        provider_reply_fail(reply, CLASS_RETRY, "out of memory while reading the answer");
}

void wire_event(struct provider_reply *reply, const char *data, size_t len, wire_document *document)
{
    struct json_view view;
    struct json_view_ends ends;
    if (reply->error != CLASS_NONE)
        return;
    if (reply->kind != PROVIDER_CHAT) { /* its words would pass for vectors */
        provider_reply_fail(reply, CLASS_BAD_RESPONSE, "a stream came that was not asked for");
        return;
    }
    if (json_view_parse_ends(&view, data, len, &ends))
        document(reply, view, CLASS_RETRY);
    else if (trim(&data, &len), len > 0)
        failure_no_json(reply, "an event of the answer", data, len);
    check_memory(reply);
}

struct inner {
    const struct provider *provider;
    struct provider_reply *reply;
};

static bool inner_event(void *ctx, const char *data, size_t len)
{
    struct inner *inner = ctx;
    inner->provider->event(inner->provider, inner->reply, data, len);
    return inner->reply->error == CLASS_NONE;
}

/* A body that looks like the provider's stream, though its type did not say so. */
static bool is_stream(const struct provider *provider, const char *data, size_t len)
{
    static const char *const fields[] = {"data:", "event:", "id:", "retry:", ":"};
    if (provider->framing == PROVIDER_NDJSON)
        return len > 0 && data[0] == '{';
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (len >= strlen(fields[i]) && memcmp(data, fields[i], strlen(fields[i])) == 0)
            return true;
    return false;
}

static void read_stream(const struct provider *provider, struct provider_reply *reply,
                        const char *data, size_t len)
{
    struct inner inner = {provider, reply};
    struct framing framing;
    framing_init(&framing, provider->framing);
    int rc = framing_feed(&framing, data, len, inner_event, &inner);
    if (rc == 0)
        rc = framing_end(&framing, inner_event, &inner);
    framing_release(&framing);
    if (rc < 0)
        provider_reply_fail(reply, rc == -ENOMEM ? CLASS_RETRY : CLASS_BAD_RESPONSE,
                            "reading the answer: %s", strerror(-rc));
    provider->end(provider, reply);
}

void wire_body(const struct provider *provider, struct provider_reply *reply, const char *data,
               size_t len, wire_document *document)
{
    struct json_view view, item;
    if (reply->error != CLASS_NONE)
        return;
    if (len >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
        data += 3;
        len -= 3;
    }
    trim(&data, &len);
    if (!json_view_parse(&view, data, len)) {
        if (is_stream(provider, data, len))
            read_stream(provider, reply, data, len);
        else
            failure_no_json(reply, "the answer", data, len);
        return;
    }
    if (view.kind == JSON_VIEW_ARRAY)
        while (reply->error == CLASS_NONE && json_view_next(&view, NULL, &item))
            document(reply, item, CLASS_BAD_RESPONSE);
    else
        document(reply, view, CLASS_BAD_RESPONSE);
    check_memory(reply);
    wire_conclude(reply);
}

static bool add_name(struct json_view item, const char *name, const char *prefix, struct buf *names)
{
    char text[256];
    if (!json_view_copy(json_view_member(item, name), text, sizeof text) || text[0] == '\0')
        return false;
    for (const char *at = text; *at != '\0'; at++)
        if ((unsigned char)*at < ' ')
            return false; /* it would break the list */
    size_t skip = strlen(prefix);
    if (strncmp(text, prefix, skip) != 0)
        skip = 0;
    buf_add_str(names, text + skip);
    buf_add_char(names, '\n');
    return true;
}

int wire_list(const char *data, size_t len, const char *list, const char *name, const char *prefix,
              struct buf *names)
{
    struct json_view document, item;
    if (!json_view_parse(&document, data, len))
        return -EBADMSG;
    struct json_view items =
        document.kind == JSON_VIEW_ARRAY ? document : json_view_member(document, list);
    if (items.kind == JSON_VIEW_NULL) /* Go's empty list */
        return 0;
    if (items.kind != JSON_VIEW_ARRAY)
        return -EBADMSG;
    while (json_view_next(&items, NULL, &item))
        add_name(item, name, prefix, names);
    return names->failed ? -ENOMEM : 0;
}
