/* Ollama's own /api/chat: newline-delimited JSON, and durations in nanoseconds. */
#include <errno.h>
#include <string.h>

#include "workers/failure.h"
#include "workers/providers.h"
#include "workers/wire.h"

static int build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err)
{
    struct json_view schema;
    struct buf *body = &ret->body;
    int rc = wire_schema(call, &schema, err);
    if (rc == 0)
        rc = wire_url(provider, call, "/api", "/chat", ret, err);
    if (rc < 0)
        return rc;
    wire_json_body(call, ret);
    if ((rc = wire_key(provider, call, "Authorization", "Bearer ", ret, err)) < 0)
        return rc;
    buf_add_str(body, "{\"model\":");
    buf_add_json(body, call->model, strlen(call->model));
    buf_add_str(body, ",\"messages\":[");
    if (call->system[0] != '\0') {
        buf_add_str(body, "{\"role\":\"system\"");
        wire_member(body, "content", call->system, strlen(call->system));
        buf_add_str(body, "},");
    }
    buf_add_str(body, "{\"role\":\"user\"");
    wire_member(body, "content", call->prompt, call->prompt_len);
    buf_add_str(body, "}]");
    if (schema.kind != JSON_VIEW_NONE) {
        buf_add_str(body, ",\"format\":");
        buf_add(body, schema.text, schema.len);
    }
    /* Without truncate:false a prompt that is too long is cut silently. The context must be the
     * same in every call of a model: another value makes the server load the model again. */
    buf_add_str(body, ",\"truncate\":false,\"options\":{");
    size_t before = body->len;
    if (call->context > 0)
        buf_printf(body, ",\"num_ctx\":%lld", (long long)call->context);
    if (call->max_tokens > 0)
        buf_printf(body, ",\"num_predict\":%lld", (long long)call->max_tokens);
    if (call->temperature >= 0)
        wire_number(body, "temperature", call->temperature);
    if (body->len > before) /* the first comma belongs to nothing */
        body->data[before] = ' ';
    buf_printf(body, "},\"stream\":%s}", call->stream ? "true" : "false");
    return wire_finish(ret, err);
}

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

enum { MESSAGE, DONE, DONE_REASON, MODEL, ERROR, LOAD, PROMPT_N, PROMPT, EVAL_N, EVAL, FOUND };

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
    static const struct json_view_name names[] = {
        [MESSAGE] = JSON_VIEW_NAME("message"),
        [DONE] = JSON_VIEW_NAME("done"),
        [DONE_REASON] = JSON_VIEW_NAME("done_reason"),
        [MODEL] = JSON_VIEW_NAME("model"),
        [ERROR] = JSON_VIEW_NAME("error"),
        [LOAD] = JSON_VIEW_NAME("load_duration"),
        [PROMPT_N] = JSON_VIEW_NAME("prompt_eval_count"),
        [PROMPT] = JSON_VIEW_NAME("prompt_eval_duration"),
        [EVAL_N] = JSON_VIEW_NAME("eval_count"),
        [EVAL] = JSON_VIEW_NAME("eval_duration"),
    };
    struct json_view found[FOUND];
    json_view_members(view, names, FOUND, found);
    if (wire_error(reply, view, found[ERROR], unknown))
        return;
    wire_name(found[MODEL], reply->model, sizeof reply->model);
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

static void body(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len)
{
    wire_body(provider, reply, data, len, document);
}

static int list(const struct provider *provider, const struct provider_call *call,
                struct provider_request *ret, struct err *err)
{
    int rc = wire_url(provider, call, "/api", "/tags", ret, err);
    if (rc == 0)
        rc = wire_key(provider, call, "Authorization", "Bearer ", ret, err);
    return rc == 0 ? wire_finish(ret, err) : rc;
}

static int list_parse(const struct provider *provider, const char *data, size_t len,
                      struct buf *names)
{
    (void)provider;
    return wire_list(data, len, "models", "name", "", names);
}

const struct provider provider_ollama = {
    .abi = PROVIDER_ABI,
    .api = "ollama",
    .title = "Ollama",
    .base_url = "http://127.0.0.1:11434",
    .local = true,
    .framing = PROVIDER_NDJSON,
    .build = build,
    .event = event,
    .body = body,
    .failure = failure_http,
    .end = wire_end,
    .list = list,
    .list_parse = list_parse,
};
