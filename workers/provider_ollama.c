/* Ollama's own API, /api/chat and /api/embed: newline-delimited JSON, durations in nanoseconds. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/call.h"
#include "workers/failure.h"
#include "workers/names.h"
#include "workers/providers.h"
#include "workers/vectors.h"
#include "workers/wire.h"

/* --- the request ------------------------------------------------------------------------------ */

/* Go's durations: numbers with a unit each, "1h30m". */
static bool is_duration(const char *text)
{
    static const char *const units[] = {"ns", "us", "ms", "s", "m", "h"};
    text += *text == '-' || *text == '+';
    if (*text == '\0')
        return false;
    while (*text != '\0') {
        size_t digits = strspn(text, "0123456789.");
        text += digits;
        size_t i = 0, n = sizeof units / sizeof *units;
        while (i < n && strncmp(text, units[i], strlen(units[i])) != 0)
            i++;
        if (digits == 0 || i == n)
            return false;
        text += strlen(units[i]);
    }
    return true;
}

/* A text needs a unit: a bare number, which stands for seconds, must be sent as one. */
static int add_keep_alive(const struct provider_call *call, struct buf *body, struct err *err)
{
    const char *text = call->keep_alive;
    if (text == NULL || text[0] == '\0')
        return 0;
    char *end;
    errno = 0;
    long long seconds = strtoll(text, &end, 10);
    if (*end == '\0' && errno == 0)
        buf_printf(body, ",\"keep_alive\":%lld", seconds);
    else if (is_duration(text))
        wire_member(body, "keep_alive", text, strlen(text));
    else
        return err_set(err, -EINVAL,
                       "keep_alive \"%s\" is no duration: write it as 10m, 300s, or -1 for ever",
                       text);
    return 0;
}

/* Of gpt-oss alone thinking has levels, and no off; other models know only on and off, and refuse a
 * level. */
static void add_think(const struct provider_call *call, struct buf *body)
{
    static const struct {
        const char *effort, *level;
    } levels[] = {{"medium", "medium"}, {"high", "high"}, {"xhigh", "high"}, {"max", "high"}};
    if (!call_thinks(call) && !call_thinks_not(call))
        return;
    const char *slash = strrchr(call->model, '/');
    if (strncmp(slash != NULL ? slash + 1 : call->model, "gpt-oss", 7) != 0) {
        buf_printf(body, ",\"think\":%s", call_thinks(call) ? "true" : "false");
        return;
    }
    const char *level = "low";
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (strcmp(call->effort, levels[i].effort) == 0)
            level = levels[i].level;
    buf_printf(body, ",\"think\":\"%s\"", level);
}

/* The context must be the same in every call of a model: another value makes the server load the
 * model again. */
static void add_options(const struct provider_call *call, struct buf *body)
{
    buf_add_str(body, ",\"options\":{");
    size_t before = body->len;
    if (call->context > 0)
        buf_printf(body, ",\"num_ctx\":%lld", (long long)call->context);
    if (call->kind == PROVIDER_CHAT) {
        if (call->max_tokens > 0)
            buf_printf(body, ",\"num_predict\":%lld", (long long)call->max_tokens);
        if (call->temperature >= 0)
            wire_number(body, "temperature", call->temperature);
        if (call->has_seed)
            buf_printf(body, ",\"seed\":%lld", (long long)call->seed);
        call_stop(call, "stop", body);
    }
    if (body->len > before) /* the first comma belongs to nothing */
        body->data[before] = ' ';
    buf_add_char(body, '}');
}

static int add_images(const struct provider_call *call, struct buf *body, struct err *err)
{
    for (size_t i = 0; i < call->n_images; i++) {
        const struct provider_image *image = &call->images[i];
        if (image->url[0] != '\0')
            return err_set(err, -EINVAL,
                           "Ollama takes no image by its URL (%.200s): give it as a file",
                           image->url);
        buf_add_str(body, i == 0 ? ",\"images\":[" : ",");
        buf_add_json(body, image->data, strlen(image->data));
    }
    if (call->n_images > 0)
        buf_add_char(body, ']');
    return 0;
}

static int add_chat(const struct provider_call *call, struct json_view schema, struct buf *body,
                    struct err *err)
{
    buf_add_str(body, ",\"messages\":[");
    if (call_has_system(call)) {
        buf_add_str(body, "{\"role\":\"system\"");
        wire_member(body, "content", call->system, strlen(call->system));
        buf_add_str(body, "},");
    }
    buf_add_str(body, "{\"role\":\"user\",\"content\":");
    call_prompt(call, body);
    int rc = add_images(call, body, err);
    if (rc < 0)
        return rc;
    buf_add_str(body, "}]");
    if (schema.kind != JSON_VIEW_NONE) {
        buf_add_str(body, ",\"format\":");
        buf_add(body, schema.text, schema.len);
    }
    add_think(call, body);
    buf_printf(body, ",\"stream\":%s", call->stream ? "true" : "false"); /* true if not said */
    return 0;
}

static int add_embed(const struct provider_call *call, struct buf *body, struct err *err)
{
    int rc = vectors_check(call, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < call->n_inputs; i++) {
        buf_add_str(body, i == 0 ? ",\"input\":[" : ",");
        buf_add_json(body, call->inputs[i], strlen(call->inputs[i]));
    }
    buf_add_char(body, ']');
    if (call->dimensions > 0)
        buf_printf(body, ",\"dimensions\":%lld", (long long)call->dimensions);
    return 0;
}

static int add_body(const struct provider_call *call, struct json_view schema, struct buf *body,
                    struct err *err)
{
    buf_add_str(body, "{\"model\":");
    buf_add_json(body, call->model, strlen(call->model));
    int rc = call->kind == PROVIDER_EMBED ? add_embed(call, body, err)
                                          : add_chat(call, schema, body, err);
    if (rc < 0)
        return rc;
    /* Without truncate:false what is too long for the model is cut without a word. */
    buf_add_str(body, ",\"truncate\":false");
    add_options(call, body);
    rc = add_keep_alive(call, body, err);
    buf_add_char(body, '}');
    return rc;
}

static int build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err)
{
    static const char *const paths[PROVIDER_KIND_COUNT] = {
        [PROVIDER_CHAT] = "/chat",
        [PROVIDER_EMBED] = "/embed",
        [PROVIDER_LIST] = "/tags",
    };
    struct json_view schema = {0};
    int rc = call->kind == PROVIDER_CHAT ? wire_schema(call, &schema, err) : 0;
    if (rc == 0)
        rc = wire_url(provider, call, "/api", paths[call->kind], ret, err);
    if (rc < 0)
        return rc;
    if (call->kind != PROVIDER_LIST)
        wire_json_body(call, ret);
    if ((rc = call_headers(call, ret, err)) < 0 ||
        (rc = wire_key(provider, call, "Authorization", "Bearer ", ret, err)) < 0)
        return rc;
    if (call->kind != PROVIDER_LIST && (rc = add_body(call, schema, &ret->body, err)) < 0)
        return rc;
    return wire_finish(ret, err);
}

/* --- the answer ------------------------------------------------------------------------------- */

static const struct wire_stop stops[] = {
    {"stop", FINISH_DONE, CLASS_NONE},
    {"length", FINISH_LENGTH, CLASS_NONE},
    {"load", FINISH_OTHER, CLASS_BAD_RESPONSE}, /* the model came or went; nothing was said */
    {"unload", FINISH_OTHER, CLASS_BAD_RESPONSE},
    {NULL, FINISH_NONE, CLASS_NONE},
};

static bool read_message(struct provider_reply *reply, struct json_view message)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("content"),
        JSON_VIEW_NAME("thinking"),
        JSON_VIEW_NAME("tool_calls"),
    };
    struct json_view found[3];
    json_view_members(message, names, 3, found);
    json_view_text(found[0], &reply->text);
    json_view_text(found[1], &reply->reasoning);
    return json_view_first(found[2]).kind == JSON_VIEW_OBJECT;
}

#define NS_TO_MS 1e-6

enum {
    MESSAGE,
    DONE,
    DONE_REASON,
    MODEL,
    REMOTE_MODEL,
    REMOTE_HOST,
    ERROR,
    EMBEDDINGS,
    LOAD,
    PROMPT_N,
    PROMPT,
    EVAL_N,
    EVAL,
    FOUND
};

/* A document's members, in a table that serves both APIs. */
static void read_members(struct json_view view, struct json_view ret[FOUND])
{
    static const struct json_view_name names[] = {
        [MESSAGE] = JSON_VIEW_NAME("message"),
        [DONE] = JSON_VIEW_NAME("done"),
        [DONE_REASON] = JSON_VIEW_NAME("done_reason"),
        [MODEL] = JSON_VIEW_NAME("model"),
        [REMOTE_MODEL] = JSON_VIEW_NAME("remote_model"),
        [REMOTE_HOST] = JSON_VIEW_NAME("remote_host"),
        [ERROR] = JSON_VIEW_NAME("error"),
        [EMBEDDINGS] = JSON_VIEW_NAME("embeddings"),
        [LOAD] = JSON_VIEW_NAME("load_duration"),
        [PROMPT_N] = JSON_VIEW_NAME("prompt_eval_count"),
        [PROMPT] = JSON_VIEW_NAME("prompt_eval_duration"),
        [EVAL_N] = JSON_VIEW_NAME("eval_count"),
        [EVAL] = JSON_VIEW_NAME("eval_duration"),
    };
    json_view_members(view, names, FOUND, ret);
}

/* The name of the model in `model "NAME" not found, try pulling it first`; false when the text says
 * something else. Older servers quote with apostrophes. */
static bool missing_model(const char *text, char *ret, size_t cap)
{
    const char *model = strstr(text, "model ");
    if (model == NULL || strstr(model, "not found") == NULL)
        return false;
    char quote = model[6];
    const char *name = model + 7;
    const char *end = quote == '"' || quote == '\'' ? strchr(name, quote) : NULL;
    if (end == NULL || end == name || (size_t)(end - name) >= cap)
        return false;
    memcpy(ret, name, (size_t)(end - name));
    ret[end - name] = '\0';
    return true;
}

/* What people can do about it stands in the error: nobody pulls gigabytes without being asked. */
static void explain_missing(struct provider_reply *reply, struct json_view error)
{
    char text[600], name[200];
    if (json_view_copy(error, text, sizeof text) && missing_model(text, name, sizeof name))
        provider_reply_fail(reply, CLASS_BAD_REQUEST,
                            "the server has no model %s: run `ollama pull %s` there", name, name);
}

/* A model of Ollama's cloud is served elsewhere. Its usual name says so; where it does not, the
 * served model is another than the one that was asked for. */
static void read_model(struct provider_reply *reply, const struct json_view *found)
{
    char host[64], remote[48];
    if (reply->model[0] != '\0')
        return;
    wire_name(found[MODEL], reply->model, sizeof reply->model);
    size_t len = strlen(reply->model);
    bool says_so = len >= 5 && strcmp(reply->model + len - 5, "cloud") == 0;
    if (says_so || !json_view_copy(found[REMOTE_HOST], host, sizeof host) || host[0] == '\0')
        return;
    if (!json_view_copy(found[REMOTE_MODEL], remote, sizeof remote) || remote[0] == '\0')
        snprintf(remote, sizeof remote, "%.47s", reply->model);
    snprintf(reply->model, sizeof reply->model, "%s at %s", remote, host);
}

/* The last object. Metrics that are zero are left out of it, so what is missing is zero once any of
 * them is there. */
static void read_metrics(struct provider_reply *reply, const struct json_view *found)
{
    bool any = false;
    for (int i = LOAD; i <= EVAL; i++)
        any |= found[i].kind == JSON_VIEW_NUMBER;
    if (any) {
        reply->load_ms = reply->prompt_ms = reply->generate_ms = 0;
        reply->prompt_tokens = reply->output_tokens = 0;
    }
    wire_ms(found[LOAD], NS_TO_MS, &reply->load_ms);
    wire_ms(found[PROMPT], NS_TO_MS, &reply->prompt_ms);
    wire_ms(found[EVAL], NS_TO_MS, &reply->generate_ms);
    wire_count(found[PROMPT_N], &reply->prompt_tokens);
    wire_count(found[EVAL_N], &reply->output_tokens);
}

enum { TOOLS_SEEN }; /* in scratch */

static void document(struct provider_reply *reply, struct json_view view, enum error_class unknown)
{
    struct json_view found[FOUND];
    read_members(view, found);
    explain_missing(reply, found[ERROR]);
    if (wire_error(reply, view, found[ERROR], unknown))
        return;
    read_model(reply, found);
    reply->scratch[TOOLS_SEEN] |= read_message(reply, found[MESSAGE]);
    if (found[DONE].kind != JSON_VIEW_TRUE)
        return;
    read_metrics(reply, found);
    reply->finish = FINISH_DONE; /* the reason may be missing */
    wire_stop(reply, stops, found[DONE_REASON]);
    if (reply->scratch[TOOLS_SEEN] && reply->finish == FINISH_DONE)
        reply->finish = FINISH_TOOLS;
    wire_conclude(reply);
}

static void event(const struct provider *provider, struct provider_reply *reply, const char *data,
                  size_t len)
{
    (void)provider;
    if (!reply->finished)
        wire_event(reply, data, len, document);
}

static void embed_document(struct provider_reply *reply, struct json_view view,
                           enum error_class unknown)
{
    struct json_view found[FOUND];
    read_members(view, found);
    explain_missing(reply, found[ERROR]);
    if (wire_error(reply, view, found[ERROR], unknown))
        return;
    read_model(reply, found);
    read_metrics(reply, found);
    reply->output_tokens = 0;
    vectors_read(reply, found[EMBEDDINGS], NULL, VECTORS_AS_SENT);
}

static void body(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len)
{
    if (reply->kind == PROVIDER_LIST)
        names_read(reply, data, len, "models", "name", "");
    else
        wire_body(provider, reply, data, len,
                  reply->kind == PROVIDER_EMBED ? embed_document : document);
}

static void failure(const struct provider *provider, struct provider_reply *reply, int status,
                    const struct http_headers *headers, const char *data, size_t len)
{
    struct json_view document;
    if (status == 404 && json_view_parse(&document, data, len))
        explain_missing(reply, json_view_member(document, "error"));
    failure_http(provider, reply, status, headers, data, len);
}

const struct provider provider_ollama = {
    .abi = PROVIDER_ABI,
    .api = "ollama",
    .title = "Ollama",
    .base_url = "http://127.0.0.1:11434",
    .local = true,
    .framing = PROVIDER_NDJSON,
    .kinds =
        PROVIDER_KIND(PROVIDER_CHAT) | PROVIDER_KIND(PROVIDER_EMBED) | PROVIDER_KIND(PROVIDER_LIST),
    .build = build,
    .event = event,
    .body = body,
    .failure = failure,
    .end = wire_end,
};
