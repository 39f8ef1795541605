/* OpenAI's Responses API, which some models need. Nothing is stored at the provider. */
#include <errno.h>
#include <string.h>

#include "workers/call.h"
#include "workers/failure.h"
#include "workers/provider_openai.h"

/* --- the request -------------------------------------------------------------------------------
 */

static void add_input(const struct provider_call *call, struct buf *body)
{
    buf_add_str(body, ",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\","
                      "\"text\":");
    call_prompt(call, body);
    buf_add_char(body, '}');
    for (size_t i = 0; i < call->n_images; i++) {
        buf_add_str(body, ",{\"type\":\"input_image\",\"image_url\":");
        openai_add_image(&call->images[i], body);
        buf_add_char(body, '}');
    }
    buf_add_str(body, "]}]");
}

/* Flat here, where chat completions nest it. */
static void add_schema(struct json_view schema, struct buf *body)
{
    if (schema.kind == JSON_VIEW_NONE)
        return;
    buf_printf(body,
               ",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"answer\","
               "\"strict\":%s,\"schema\":",
               openai_schema_is_strict(schema) ? "true" : "false");
    buf_add(body, schema.text, schema.len);
    buf_add_str(body, "}}");
}

/* There are no seeds here: those are a wish only. A string that ends the answer is more. */
static int check(const struct provider_call *call, struct err *err)
{
    if (call->n_stop > 0)
        return err_set(err, -EINVAL,
                       "the Responses API takes no stop strings: leave them out, or give the model "
                       "endpoint: chat");
    return openai_images_check(call, err);
}

int openai_responses_build(const struct provider *provider, const struct provider_call *call,
                           struct provider_request *ret, struct err *err)
{
    const struct openai_quirks *quirks = provider->quirks;
    struct json_view schema;
    struct buf *body = &ret->body;
    int rc = wire_schema(call, &schema, err);
    if (rc == 0)
        rc = check(call, err);
    if (rc == 0)
        rc = wire_url(provider, call, "/v1", "/responses", ret, err);
    if (rc < 0)
        return rc;
    wire_json_body(call, ret);
    rc = call_headers(call, ret, err);
    if (rc == 0)
        rc = wire_key(provider, call, "Authorization", "Bearer ", ret, err);
    if (rc < 0)
        return rc;
    buf_add_str(body, "{\"model\":");
    buf_add_json(body, call->model, strlen(call->model));
    if (call_has_system(call))
        wire_member(body, "instructions", call->system, strlen(call->system));
    add_input(call, body);
    if (call->max_tokens > 0)
        buf_printf(body, ",\"max_output_tokens\":%lld", (long long)call->max_tokens);
    if (call->temperature >= 0)
        wire_number(body, "temperature", call->temperature);
    if (call_thinks(call) || call_thinks_not(call)) {
        buf_add_str(body, ",\"reasoning\":{\"effort\":");
        buf_add_json(body, call->effort, strlen(call->effort));
        buf_add_char(body, '}');
    }
    add_schema(schema, body);
    buf_printf(body, ",\"store\":false,\"stream\":%s", call->stream ? "true" : "false");
    if (call->stream && quirks->no_obfuscation && !call->no_stream_options)
        buf_add_str(body, ",\"stream_options\":{\"include_obfuscation\":false}");
    buf_add_char(body, '}');
    return wire_finish(ret, err);
}

/* --- the answer -------------------------------------------------------------------------------
 */

static void read_usage(struct provider_reply *reply, struct json_view usage)
{
    static const struct json_view_name names[OPENAI_USAGE] = {
        JSON_VIEW_NAME("input_tokens"),
        JSON_VIEW_NAME("output_tokens"),
        JSON_VIEW_NAME("input_tokens_details"),
        JSON_VIEW_NAME("output_tokens_details"),
    };
    openai_usage(reply, usage, names);
}

static void refuse(struct provider_reply *reply, struct json_view text)
{
    json_view_text(text, &reply->text); /* what error_text will quote */
    reply->finish = FINISH_FILTERED;
}

/* The texts of a message's parts, or of a reasoning item's summary. */
static void read_parts(struct provider_reply *reply, struct json_view parts)
{
    struct json_view part;
    while (json_view_next(&parts, NULL, &part)) {
        static const struct json_view_name names[] = {
            JSON_VIEW_NAME("type"),
            JSON_VIEW_NAME("text"),
            JSON_VIEW_NAME("refusal"),
        };
        struct json_view found[3];
        json_view_members(part, names, 3, found);
        if (json_view_equals(found[0], "output_text"))
            json_view_text(found[1], &reply->text);
        else if (json_view_equals(found[0], "refusal"))
            refuse(reply, found[2]);
        else if (json_view_equals(found[0], "summary_text") ||
                 json_view_equals(found[0], "reasoning_text"))
            json_view_text(found[1], &reply->reasoning);
    }
}

static void read_output(struct provider_reply *reply, struct json_view output)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("type"),
        JSON_VIEW_NAME("content"),
        JSON_VIEW_NAME("summary"),
    };
    struct json_view item, found[3];
    bool parts_seen = reply->scratch[OPENAI_PARTS_SEEN];
    while (json_view_next(&output, NULL, &item)) {
        json_view_members(item, names, 3, found);
        if (json_view_equals(found[0], "function_call"))
            reply->scratch[OPENAI_TOOLS_SEEN] = true;
        if (parts_seen)
            continue;
        read_parts(reply, found[2]);
        read_parts(reply, found[1]);
    }
}

/* Why the response ended: its status, and for "incomplete" the reason. */
static const struct wire_stop statuses[] = {
    {"completed", FINISH_DONE, CLASS_NONE},
    {"max_output_tokens", FINISH_LENGTH, CLASS_NONE},
    {"content_filter", FINISH_FILTERED, CLASS_NONE},
    {"incomplete", FINISH_OTHER, CLASS_NONE},
    {"in_progress", FINISH_NONE, CLASS_BAD_RESPONSE}, /* to be fetched later: not asked for */
    {"queued", FINISH_NONE, CLASS_BAD_RESPONSE},
    {"cancelled", FINISH_OTHER, CLASS_RETRY},
    {NULL, FINISH_NONE, CLASS_NONE},
};

static void read_status(struct provider_reply *reply, struct json_view response,
                        struct json_view status)
{
    struct json_view reason = {0};
    if (json_view_equals(status, "incomplete"))
        reason = json_view_member(json_view_member(response, "incomplete_details"), "reason");
    wire_stop(reply, statuses, reason.kind == JSON_VIEW_STRING ? reason : status);
    if (reply->finish == FINISH_DONE && reply->scratch[OPENAI_TOOLS_SEEN])
        reply->finish = FINISH_TOOLS;
}

/* What the first events say of the response. */
static void read_head(struct provider_reply *reply, struct json_view response)
{
    wire_name(json_view_member(response, "id"), reply->request_id, sizeof reply->request_id);
    wire_name(json_view_member(response, "model"), reply->model, sizeof reply->model);
}

/* The whole response: a body, or what a terminal event holds. */
static void read_response(struct provider_reply *reply, struct json_view response,
                          enum error_class unknown)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("status"),
        JSON_VIEW_NAME("error"),
        JSON_VIEW_NAME("output"),
        JSON_VIEW_NAME("usage"),
    };
    struct json_view found[4];
    json_view_members(response, names, 4, found);
    read_head(reply, response);
    read_usage(reply, found[3]);
    if (wire_error(reply, response, found[1], unknown))
        return;
    bool failed = json_view_equals(found[0], "failed");
    if (failed || found[0].kind != JSON_VIEW_STRING) {
        failure_inside(reply, response, failed ? CLASS_RETRY : unknown);
        return;
    }
    read_output(reply, found[2]);
    read_status(reply, response, found[0]);
    wire_conclude(reply);
}

static void on_text(struct provider_reply *reply, struct json_view event)
{
    reply->scratch[OPENAI_PARTS_SEEN] = true;
    json_view_text(json_view_member(event, "delta"), &reply->text);
}

static void on_refusal(struct provider_reply *reply, struct json_view event)
{
    reply->scratch[OPENAI_PARTS_SEEN] = true;
    refuse(reply, json_view_member(event, "delta"));
}

static void on_reasoning(struct provider_reply *reply, struct json_view event)
{
    reply->scratch[OPENAI_PARTS_SEEN] = true;
    json_view_text(json_view_member(event, "delta"), &reply->reasoning);
}

/* A summary has paragraphs. */
static void on_reasoning_part(struct provider_reply *reply, struct json_view event)
{
    (void)event;
    if (reply->reasoning.len > 0)
        buf_add_str(&reply->reasoning, "\n\n");
}

static void on_item(struct provider_reply *reply, struct json_view event)
{
    struct json_view item = json_view_member(event, "item");
    if (json_view_equals(json_view_member(item, "type"), "function_call"))
        reply->scratch[OPENAI_TOOLS_SEEN] = true;
}

static void on_head(struct provider_reply *reply, struct json_view event)
{
    read_head(reply, json_view_member(event, "response"));
}

static void on_terminal(struct provider_reply *reply, struct json_view event)
{
    reply->scratch[OPENAI_DONE_SEEN] = true;
    read_response(reply, json_view_member(event, "response"), CLASS_RETRY);
}

/* Events that are not here only repeat what these have said. */
static const struct {
    const char *type;
    void (*handle)(struct provider_reply *reply, struct json_view event);
} events[] = {
    {"response.output_text.delta", on_text},
    {"response.reasoning_summary_text.delta", on_reasoning},
    {"response.reasoning_text.delta", on_reasoning},
    {"response.reasoning_summary_part.added", on_reasoning_part},
    {"response.refusal.delta", on_refusal},
    {"response.output_item.added", on_item},
    {"response.created", on_head},
    {"response.in_progress", on_head},
    {"response.queued", on_head},
    {"response.completed", on_terminal},
    {"response.incomplete", on_terminal},
    {"response.failed", on_terminal},
    {"response.cancelled", on_terminal},
};

/* An error is flat: {"type":"error","code":...,"message":...}. */
static void document(struct provider_reply *reply, struct json_view view, enum error_class unknown)
{
    struct json_view type = json_view_member(view, "type");
    if (json_view_equals(type, "error")) {
        failure_inside(reply, view, unknown);
        return;
    }
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (json_view_equals(type, events[i].type)) {
            events[i].handle(reply, view);
            return;
        }
    wire_error(reply, view, json_view_member(view, "error"), unknown);
}

void openai_responses_event(struct provider_reply *reply, const char *data, size_t len)
{
    if (!wire_is_done(data, len)) /* no part of this API; proxies add it, and it proves nothing */
        wire_event(reply, data, len, document);
}

void openai_responses_body(const struct provider *provider, struct provider_reply *reply,
                           const char *data, size_t len)
{
    wire_body(provider, reply, data, len, read_response);
}
