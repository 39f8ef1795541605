/* LM Studio: its native API for its figures (load time, time to first token, tokens per second),
 * and chat completions for what the native one has no words for. */
#include <errno.h>
#include <string.h>

#include "workers/call.h"
#include "workers/failure.h"
#include "workers/provider_openai.h"
#include "workers/providers.h"

/* --- the request -------------------------------------------------------------------------------
 */

/* The native API knows no schemas, seeds, stop strings, images by URL or idle times. */
static bool is_native(const struct provider_call *call)
{
    bool keeps = call->keep_alive != NULL && call->keep_alive[0] != '\0';
    return call->kind == PROVIDER_CHAT && !call->responses && call->json_schema == NULL &&
           !call->has_seed && call->n_stop == 0 && call->n_images == 0 && !keeps;
}

static void add_reasoning(const struct provider_call *call, struct buf *body)
{
    bool minimal = call_thinks(call) && strcmp(call->effort, "minimal") == 0;
    if (call_thinks_not(call))
        buf_add_str(body, ",\"reasoning\":\"off\"");
    else if (call_thinks(call))
        wire_member(body, "reasoning", minimal ? "low" : call->effort,
                    strlen(minimal ? "low" : call->effort));
}

static int native_build(const struct provider *provider, const struct provider_call *call,
                        struct provider_request *ret, struct err *err)
{
    struct buf *body = &ret->body;
    int rc = wire_url(provider, call, "/api/v1", "/chat", ret, err);
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
        wire_member(body, "system_prompt", call->system, strlen(call->system));
    buf_add_str(body, ",\"input\":");
    call_prompt(call, body);
    if (call->temperature >= 0)
        wire_number(body, "temperature", call->temperature);
    if (call->max_tokens > 0)
        buf_printf(body, ",\"max_output_tokens\":%lld", (long long)call->max_tokens);
    add_reasoning(call, body);
    buf_printf(body, ",\"store\":false,\"stream\":%s}", call->stream ? "true" : "false");
    return wire_finish(ret, err);
}

/* The address as users know it: with or without what its APIs begin with. */
static void trim_base(struct buf *base)
{
    static const char *const ends[] = {"/v1", "/v0", "/api"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        while (base->len > 0 && base->data[base->len - 1] == '/')
            base->len--;
        size_t len = strlen(ends[i]);
        if (base->len >= len && memcmp(base->data + base->len - len, ends[i], len) == 0)
            base->len -= len;
    }
    base->data[base->len] = '\0';
}

static int build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err)
{
    struct provider_call trimmed = *call;
    struct buf base = {0};
    buf_add_str(&base, call->base_url != NULL ? call->base_url : provider->base_url);
    if (base.failed)
        return err_set(err, -ENOMEM, "out of memory");
    trim_base(&base);
    trimmed.base_url = base.data;
    int rc = is_native(call) ? native_build(provider, &trimmed, ret, err)
                             : openai_build(provider, &trimmed, ret, err);
    buf_release(&base);
    return rc;
}

/* --- the answer --------------------------------------------------------------------------------
 */

#define S_TO_MS 1e3

/* "qwen3-8b:2" is the second instance of qwen3-8b. */
static void read_model(struct provider_reply *reply, struct json_view instance)
{
    wire_name(instance, reply->model, sizeof reply->model);
    char *colon = strrchr(reply->model, ':');
    if (colon != NULL && colon[1] != '\0' && colon[1 + strspn(colon + 1, "0123456789")] == '\0')
        *colon = '\0';
}

/* A model that was loaded already took no time to load. */
static void read_stats(struct provider_reply *reply, struct json_view stats)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("input_tokens"),
        JSON_VIEW_NAME("total_output_tokens"),
        JSON_VIEW_NAME("reasoning_output_tokens"),
        JSON_VIEW_NAME("tokens_per_second"),
        JSON_VIEW_NAME("time_to_first_token_seconds"),
        JSON_VIEW_NAME("model_load_time_seconds"),
    };
    struct json_view found[6];
    if (stats.kind != JSON_VIEW_OBJECT)
        return;
    json_view_members(stats, names, 6, found);
    wire_count(found[0], &reply->prompt_tokens);
    wire_count(found[1], &reply->output_tokens);
    wire_count(found[2], &reply->reasoning_tokens);
    wire_ms(found[4], S_TO_MS, &reply->prompt_ms);
    if (reply->load_ms < 0)
        reply->load_ms = 0;
    wire_ms(found[5], S_TO_MS, &reply->load_ms);
    double rate = json_view_num(found[3], 0);
    if (rate > 0 && reply->output_tokens >= 0)
        reply->generate_ms = (double)reply->output_tokens / rate * 1000;
}

static void read_output(struct provider_reply *reply, struct json_view output)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("type"),
        JSON_VIEW_NAME("content"),
    };
    struct json_view item, found[2];
    bool parts_seen = reply->scratch[OPENAI_PARTS_SEEN];
    while (json_view_next(&output, NULL, &item)) {
        json_view_members(item, names, 2, found);
        if (json_view_equals(found[0], "tool_call") ||
            json_view_equals(found[0], "invalid_tool_call"))
            reply->scratch[OPENAI_TOOLS_SEEN] = true;
        else if (!parts_seen && json_view_equals(found[0], "message"))
            json_view_text(found[1], &reply->text);
        else if (!parts_seen && json_view_equals(found[0], "reasoning"))
            json_view_text(found[1], &reply->reasoning);
    }
}

/* The API gives no reason: whether the limit ended the answer is told by the count, and an answer
 * of nothing but reasoning did not come to its end. */
static enum finish finish_of(const struct provider_reply *reply)
{
    bool full = reply->max_tokens > 0 && reply->output_tokens >= reply->max_tokens;
    if (full || (reply->text.len == 0 && reply->reasoning.len > 0))
        return FINISH_LENGTH;
    return reply->text.len == 0 && reply->scratch[OPENAI_TOOLS_SEEN] ? FINISH_TOOLS : FINISH_DONE;
}

/* A whole answer, or chat.end's result. */
static void read_result(struct provider_reply *reply, struct json_view result,
                        enum error_class unknown)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("model_instance_id"),
        JSON_VIEW_NAME("output"),
        JSON_VIEW_NAME("stats"),
        JSON_VIEW_NAME("response_id"),
    };
    struct json_view found[4];
    json_view_members(result, names, 4, found);
    if (found[1].kind != JSON_VIEW_ARRAY || found[2].kind != JSON_VIEW_OBJECT) {
        failure_inside(reply, result, unknown);
        return;
    }
    read_model(reply, found[0]);
    wire_name(found[3], reply->request_id, sizeof reply->request_id);
    read_output(reply, found[1]);
    read_stats(reply, found[2]);
    reply->finish = finish_of(reply);
    wire_conclude(reply);
}

static void on_start(struct provider_reply *reply, struct json_view event)
{
    read_model(reply, json_view_member(event, "model_instance_id"));
}

static void on_loaded(struct provider_reply *reply, struct json_view event)
{
    wire_ms(json_view_member(event, "load_time_seconds"), S_TO_MS, &reply->load_ms);
}

static void on_message(struct provider_reply *reply, struct json_view event)
{
    reply->scratch[OPENAI_PARTS_SEEN] = true;
    json_view_text(json_view_member(event, "content"), &reply->text);
}

static void on_reasoning(struct provider_reply *reply, struct json_view event)
{
    reply->scratch[OPENAI_PARTS_SEEN] = true;
    json_view_text(json_view_member(event, "content"), &reply->reasoning);
}

static void on_end(struct provider_reply *reply, struct json_view event)
{
    reply->scratch[OPENAI_DONE_SEEN] = true;
    read_result(reply, json_view_member(event, "result"), CLASS_BAD_RESPONSE);
}

/* Progress of loading and of the prompt, and the beginnings and ends of parts, say nothing more. */
static const struct {
    const char *type;
    void (*handle)(struct provider_reply *reply, struct json_view event);
} events[] = {
    {"message.delta", on_message}, {"reasoning.delta", on_reasoning},
    {"chat.start", on_start},      {"model_load.end", on_loaded},
    {"chat.end", on_end},
};

/* An error comes as an event of its own, before chat.end. */
static void native_document(struct provider_reply *reply, struct json_view view,
                            struct json_view type, enum error_class unknown)
{
    if (wire_error(reply, view, json_view_member(view, "error"), unknown))
        return;
    if (type.kind != JSON_VIEW_STRING) {
        read_result(reply, view, unknown);
        return;
    }
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (json_view_equals(type, events[i].type)) {
            events[i].handle(reply, view);
            return;
        }
}

/* Which API was asked is told by its answers. */
static void document(struct provider_reply *reply, struct json_view view, enum error_class unknown)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("type"),
        JSON_VIEW_NAME("output"),
        JSON_VIEW_NAME("choices"),
    };
    struct json_view found[3];
    json_view_members(view, names, 3, found);
    bool is_native = found[0].kind == JSON_VIEW_STRING || found[1].kind == JSON_VIEW_ARRAY;
    if (is_native && found[2].kind == JSON_VIEW_NONE)
        native_document(reply, view, found[0], unknown);
    else
        openai_chat_document(reply, view, unknown);
}

const struct provider provider_lmstudio = {
    .abi = PROVIDER_ABI,
    .api = "lmstudio",
    .title = "LM Studio",
    .base_url = "http://127.0.0.1:1234",
    .local = true,
    .framing = PROVIDER_SSE,
    .kinds =
        PROVIDER_KIND(PROVIDER_CHAT) | PROVIDER_KIND(PROVIDER_EMBED) | PROVIDER_KIND(PROVIDER_LIST),
    .quirks =
        &(const struct openai_quirks){
            .document = document,
            .system_role = "system",
            .max_tokens = "max_tokens",
            .schema = OPENAI_SCHEMA_STRICT,
            .needs_done = true,
            .ttl = true,
        },
    .build = build,
    .event = openai_event,
    .body = openai_body,
    .failure = failure_http,
    .end = openai_end,
};
