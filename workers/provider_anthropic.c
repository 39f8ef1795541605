/* Anthropic's Messages API. */
#include <errno.h>
#include <string.h>

#include "workers/failure.h"
#include "workers/providers.h"
#include "workers/wire.h"

#define VERSION_HEADER "anthropic-version: 2023-06-01\n"
#define DEFAULT_MAX_TOKENS 4096 /* the field is required */
#define MAX_TEMPERATURE 1.0

static int build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err)
{
    struct json_view schema;
    struct buf *body = &ret->body;
    if (call->temperature > MAX_TEMPERATURE)
        return err_set(err, -EINVAL, "temperature %g is above 1, the most that Anthropic takes",
                       call->temperature);
    int rc = wire_schema(call, &schema, err);
    if (rc == 0)
        rc = wire_url(provider, call, "/v1", "/messages", ret, err);
    if (rc < 0)
        return rc;
    wire_json_body(call, ret);
    buf_add_str(&ret->headers, VERSION_HEADER);
    if ((rc = wire_key(provider, call, "x-api-key", "", ret, err)) < 0)
        return rc;
    buf_add_str(body, "{\"model\":");
    buf_add_json(body, call->model, strlen(call->model));
    buf_printf(body, ",\"max_tokens\":%lld",
               call->max_tokens > 0 ? (long long)call->max_tokens : (long long)DEFAULT_MAX_TOKENS);
    if (call->system[0] != '\0')
        wire_member(body, "system", call->system, strlen(call->system));
    buf_add_str(body, ",\"messages\":[{\"role\":\"user\"");
    wire_member(body, "content", call->prompt, call->prompt_len);
    buf_add_str(body, "}]");
    if (call->temperature >= 0)
        wire_number(body, "temperature", call->temperature);
    if (schema.kind != JSON_VIEW_NONE) {
        buf_add_str(body, ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":");
        buf_add(body, schema.text, schema.len);
        buf_add_str(body, "}}");
    }
    buf_printf(body, ",\"stream\":%s}", call->stream ? "true" : "false");
    return wire_finish(ret, err);
}

static const struct wire_stop stops[] = {
    {"end_turn", FINISH_DONE, CLASS_NONE},
    {"stop_sequence", FINISH_DONE, CLASS_NONE},
    {"max_tokens", FINISH_LENGTH, CLASS_NONE},
    {"model_context_window_exceeded", FINISH_LENGTH, CLASS_NONE},
    {"tool_use", FINISH_TOOLS, CLASS_NONE},
    {"refusal", FINISH_FILTERED, CLASS_NONE},
    {"pause_turn", FINISH_OTHER, CLASS_BAD_RESPONSE}, /* half a turn; only with server tools */
    {NULL, FINISH_NONE, CLASS_NONE},
};

/* The three parts of the prompt are disjoint. Each usage object overwrites the parts it names: the
 * stream's are cumulative. */
enum { INPUT, CACHE_CREATION, CACHE_READ, PARTS };

static void read_usage(struct provider_reply *reply, struct json_view usage)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("input_tokens"),
        JSON_VIEW_NAME("cache_creation_input_tokens"),
        JSON_VIEW_NAME("cache_read_input_tokens"),
        JSON_VIEW_NAME("output_tokens"),
        JSON_VIEW_NAME("output_tokens_details"),
    };
    struct json_view found[5];
    if (usage.kind != JSON_VIEW_OBJECT)
        return;
    json_view_members(usage, names, 5, found);
    bool known = false;
    for (int i = 0; i < PARTS; i++) {
        wire_count(found[i], &reply->scratch[i]);
        known |= found[i].kind == JSON_VIEW_NUMBER;
    }
    if (known) {
        reply->prompt_tokens =
            reply->scratch[INPUT] + reply->scratch[CACHE_CREATION] + reply->scratch[CACHE_READ];
        reply->cached_tokens = reply->scratch[CACHE_READ];
    }
    wire_count(found[3], &reply->output_tokens);
    wire_count(json_view_member(found[4], "thinking_tokens"), &reply->reasoning_tokens);
}

/* A refusal explains itself here, and may come without any text. */
static void read_stop(struct provider_reply *reply, struct json_view holder)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("stop_reason"),
        JSON_VIEW_NAME("stop_details"),
    };
    struct json_view found[2];
    json_view_members(holder, names, 2, found);
    wire_stop(reply, stops, found[0]);
    if (reply->finish != FINISH_FILTERED)
        return;
    char category[64] = "", explanation[256] = "";
    json_view_copy(json_view_member(found[1], "category"), category, sizeof category);
    json_view_copy(json_view_member(found[1], "explanation"), explanation, sizeof explanation);
    if (category[0] != '\0' || explanation[0] != '\0')
        provider_reply_fail(reply, CLASS_REFUSED, "the model refused (%s) %s", category,
                            explanation);
}

/* A block of a whole answer, the beginning of one in a stream, or a delta: what it is tells its
 * members. Other kinds (tools, signatures, citations) carry nothing that is asked for here. */
static void read_block(struct provider_reply *reply, struct json_view block)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("type"),
        JSON_VIEW_NAME("text"),
        JSON_VIEW_NAME("thinking"),
    };
    struct json_view found[3];
    json_view_members(block, names, 3, found);
    if (json_view_equals(found[0], "text_delta") || json_view_equals(found[0], "text"))
        json_view_text(found[1], &reply->text);
    else if (json_view_equals(found[0], "thinking_delta") || json_view_equals(found[0], "thinking"))
        json_view_text(found[2], &reply->reasoning);
}

/* A message: the whole answer, or what message_start holds. */
static void read_message(struct provider_reply *reply, struct json_view message)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("id"),
        JSON_VIEW_NAME("model"),
        JSON_VIEW_NAME("content"),
        JSON_VIEW_NAME("usage"),
    };
    struct json_view found[4], block;
    json_view_members(message, names, 4, found);
    wire_name(found[0], reply->request_id, sizeof reply->request_id);
    wire_name(found[1], reply->model, sizeof reply->model);
    read_usage(reply, found[3]);
    while (json_view_next(&found[2], NULL, &block))
        read_block(reply, block);
    read_stop(reply, message);
}

static void on_message_start(struct provider_reply *reply, struct json_view event)
{
    read_message(reply, json_view_member(event, "message"));
}

static void on_block_start(struct provider_reply *reply, struct json_view event)
{
    read_block(reply, json_view_member(event, "content_block"));
}

static void on_block_delta(struct provider_reply *reply, struct json_view event)
{
    read_block(reply, json_view_member(event, "delta"));
}

static void on_message_delta(struct provider_reply *reply, struct json_view event)
{
    read_usage(reply, json_view_member(event, "usage"));
    read_stop(reply, json_view_member(event, "delta"));
}

static void on_message_stop(struct provider_reply *reply, struct json_view event)
{
    (void)event;
    wire_conclude(reply);
}

/* Events that are not here, such as ping, say nothing. */
static const struct {
    const char *type;
    void (*handle)(struct provider_reply *reply, struct json_view event);
} events[] = {
    {"content_block_delta", on_block_delta}, {"content_block_start", on_block_start},
    {"message_start", on_message_start},     {"message_delta", on_message_delta},
    {"message_stop", on_message_stop},       {"message", read_message},
};

static void document(struct provider_reply *reply, struct json_view view, enum error_class unknown)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("type"),
        JSON_VIEW_NAME("error"),
    };
    struct json_view found[2];
    json_view_members(view, names, 2, found);
    if (json_view_equals(found[0], "error")) {
        failure_inside(reply, view, unknown);
        return;
    }
    if (wire_error(reply, view, found[1], unknown))
        return;
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (json_view_equals(found[0], events[i].type)) {
            events[i].handle(reply, view);
            return;
        }
}

static void event(const struct provider *provider, struct provider_reply *reply, const char *data,
                  size_t len)
{
    (void)provider;
    if (reply->finished || wire_is_done(data, len)) /* proxies add it; it proves nothing */
        return;
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
    int rc = wire_url(provider, call, "/v1", "/models?limit=1000", ret, err);
    buf_add_str(&ret->headers, VERSION_HEADER);
    if (rc == 0)
        rc = wire_key(provider, call, "x-api-key", "", ret, err);
    return rc == 0 ? wire_finish(ret, err) : rc;
}

static int list_parse(const struct provider *provider, const char *data, size_t len,
                      struct buf *names)
{
    (void)provider;
    return wire_list(data, len, "data", "id", "", names);
}

const struct provider provider_anthropic = {
    .abi = PROVIDER_ABI,
    .api = "anthropic",
    .title = "Anthropic",
    .base_url = "https://api.anthropic.com",
    .key_env = "ANTHROPIC_API_KEY",
    .needs_key = true,
    .framing = PROVIDER_SSE,
    .build = build,
    .event = event,
    .body = body,
    .failure = failure_http,
    .end = wire_end,
    .list = list,
    .list_parse = list_parse,
};
