/* Google's Generative Language API: generateContent. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "workers/failure.h"
#include "workers/providers.h"
#include "workers/wire.h"

/* The model is a part of the path: whatever is not plain there is percent-encoded. */
static void add_path(struct buf *path, const char *model)
{
    if (strchr(model, '/') == NULL)
        buf_add_str(path, "/models/");
    else
        buf_add_char(path, '/'); /* models/NAME, tunedModels/NAME */
    for (; *model != '\0'; model++) {
        unsigned char c = (unsigned char)*model;
        if (isalnum(c) || strchr("-._~/@", c) != NULL)
            buf_add_char(path, *model);
        else
            buf_printf(path, "%%%02X", c);
    }
}

static void add_generation_config(const struct provider_call *call, struct json_view schema,
                                  struct buf *body)
{
    size_t before = body->len;
    if (call->temperature >= 0)
        wire_number(body, "temperature", call->temperature);
    if (call->max_tokens > 0)
        buf_printf(body, ",\"maxOutputTokens\":%lld", (long long)call->max_tokens);
    if (schema.kind != JSON_VIEW_NONE) {
        buf_add_str(body, ",\"responseMimeType\":\"application/json\",\"responseJsonSchema\":");
        buf_add(body, schema.text, schema.len);
    }
    if (body->len > before) /* the first comma belongs to nothing */
        body->data[before] = ' ';
}

static int build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err)
{
    struct json_view schema;
    struct buf *body = &ret->body, path = {0};
    int rc = wire_schema(call, &schema, err);
    if (rc < 0)
        return rc;
    add_path(&path, call->model);
    buf_add_str(&path, call->stream ? ":streamGenerateContent?alt=sse" : ":generateContent");
    rc = path.failed ? err_set(err, -ENOMEM, "out of memory")
                     : wire_url(provider, call, "/v1beta", path.data, ret, err);
    buf_release(&path);
    if (rc < 0)
        return rc;
    wire_json_body(call, ret);
    if ((rc = wire_key(provider, call, "x-goog-api-key", "", ret, err)) < 0)
        return rc;
    buf_add_str(body, "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":");
    buf_add_json(body, call->prompt, call->prompt_len);
    buf_add_str(body, "}]}]");
    if (call->system[0] != '\0') {
        buf_add_str(body, ",\"systemInstruction\":{\"parts\":[{\"text\":");
        buf_add_json(body, call->system, strlen(call->system));
        buf_add_str(body, "}]}");
    }
    buf_add_str(body, ",\"generationConfig\":{");
    add_generation_config(call, schema, body);
    buf_add_str(body, "}}");
    return wire_finish(ret, err);
}

static const struct wire_stop stops[] = {
    {"STOP", FINISH_DONE, CLASS_NONE},
    {"MAX_TOKENS", FINISH_LENGTH, CLASS_NONE},
    {"SAFETY", FINISH_FILTERED, CLASS_NONE},
    {"RECITATION", FINISH_FILTERED, CLASS_NONE},
    {"BLOCKLIST", FINISH_FILTERED, CLASS_NONE},
    {"PROHIBITED_CONTENT", FINISH_FILTERED, CLASS_NONE},
    {"SPII", FINISH_FILTERED, CLASS_NONE},
    {"LANGUAGE", FINISH_FILTERED, CLASS_NONE},
    {"IMAGE_SAFETY", FINISH_FILTERED, CLASS_NONE},
    {"IMAGE_PROHIBITED_CONTENT", FINISH_FILTERED, CLASS_NONE},
    {"IMAGE_RECITATION", FINISH_FILTERED, CLASS_NONE},
    {"IMAGE_OTHER", FINISH_FILTERED, CLASS_NONE},
    {"NO_IMAGE", FINISH_FILTERED, CLASS_NONE},
    {"MALFORMED_FUNCTION_CALL", FINISH_OTHER, CLASS_BAD_RESPONSE},
    {"UNEXPECTED_TOOL_CALL", FINISH_OTHER, CLASS_BAD_RESPONSE},
    {"TOO_MANY_TOOL_CALLS", FINISH_OTHER, CLASS_BAD_RESPONSE},
    {"OTHER", FINISH_OTHER, CLASS_BAD_RESPONSE},
    {"FINISH_REASON_UNSPECIFIED", FINISH_NONE, CLASS_NONE}, /* the enum's zero: no reason yet */
    {NULL, FINISH_NONE, CLASS_NONE},
};

/* Each object is a running total that replaces the last one. Zero counts are left out. */
static void read_usage(struct provider_reply *reply, struct json_view usage)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("promptTokenCount"),        JSON_VIEW_NAME("toolUsePromptTokenCount"),
        JSON_VIEW_NAME("candidatesTokenCount"),    JSON_VIEW_NAME("thoughtsTokenCount"),
        JSON_VIEW_NAME("cachedContentTokenCount"),
    };
    struct json_view found[5];
    int64_t count[5] = {0};
    if (usage.kind != JSON_VIEW_OBJECT)
        return;
    json_view_members(usage, names, 5, found);
    for (int i = 0; i < 5; i++)
        wire_count(found[i], &count[i]);
    reply->prompt_tokens = count[0] + count[1];
    reply->output_tokens = count[2] + count[3];
    reply->reasoning_tokens = count[3];
    reply->cached_tokens = count[4];
}

static void read_candidate(struct provider_reply *reply, struct json_view candidate)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("content"),
        JSON_VIEW_NAME("finishReason"),
    };
    static const struct json_view_name part_names[] = {
        JSON_VIEW_NAME("text"),
        JSON_VIEW_NAME("thought"),
        JSON_VIEW_NAME("functionCall"),
    };
    struct json_view found[2], part, in_part[3];
    bool tools = false;
    json_view_members(candidate, names, 2, found);
    struct json_view parts = json_view_member(found[0], "parts");
    while (json_view_next(&parts, NULL, &part)) {
        json_view_members(part, part_names, 3, in_part);
        bool thought = in_part[1].kind == JSON_VIEW_TRUE;
        json_view_text(in_part[0], thought ? &reply->reasoning : &reply->text);
        tools |= in_part[2].kind == JSON_VIEW_OBJECT;
    }
    wire_stop(reply, stops, found[1]);
    if (tools && reply->finish == FINISH_DONE)
        reply->finish = FINISH_TOOLS;
}

static void read_block(struct provider_reply *reply, struct json_view feedback)
{
    char reason[64];
    struct json_view view = json_view_member(feedback, "blockReason");
    if (!json_view_copy(view, reason, sizeof reason) || reason[0] == '\0' ||
        strcmp(reason, "BLOCK_REASON_UNSPECIFIED") == 0)
        return;
    reply->finish = FINISH_FILTERED;
    provider_reply_fail(reply, CLASS_REFUSED, "the prompt was blocked: %s", reason);
}

static void document(struct provider_reply *reply, struct json_view view, enum error_class unknown)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("candidates"),     JSON_VIEW_NAME("usageMetadata"),
        JSON_VIEW_NAME("modelVersion"),   JSON_VIEW_NAME("responseId"),
        JSON_VIEW_NAME("promptFeedback"), JSON_VIEW_NAME("error"),
    };
    enum { CANDIDATES, USAGE, MODEL, ID, FEEDBACK, ERROR, FOUND };
    struct json_view found[FOUND];
    json_view_members(view, names, FOUND, found);
    if (wire_error(reply, view, found[ERROR], unknown))
        return;
    wire_name(found[MODEL], reply->model, sizeof reply->model);
    wire_name(found[ID], reply->request_id, sizeof reply->request_id);
    read_usage(reply, found[USAGE]);
    read_candidate(reply, json_view_first(found[CANDIDATES]));
    read_block(reply, found[FEEDBACK]);
}

/* An event is an object; errors in the middle of a stream, and streams without alt=sse, come as
 * arrays. */
static void event_document(struct provider_reply *reply, struct json_view view,
                           enum error_class unknown)
{
    struct json_view item;
    if (view.kind == JSON_VIEW_ARRAY)
        while (reply->error == CLASS_NONE && json_view_next(&view, NULL, &item))
            document(reply, item, unknown);
    else
        document(reply, view, unknown);
}

static void event(const struct provider *provider, struct provider_reply *reply, const char *data,
                  size_t len)
{
    (void)provider;
    if (wire_is_done(data, len)) /* proxies add it; it proves nothing */
        return;
    wire_event(reply, data, len, event_document);
    wire_prove(reply);
}

static void body(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len)
{
    wire_body(provider, reply, data, len, document);
}

static void end(const struct provider *provider, struct provider_reply *reply)
{
    if (reply->error == CLASS_NONE && reply->finish != FINISH_NONE)
        wire_conclude(reply);
    wire_end(provider, reply);
}

static int list(const struct provider *provider, const struct provider_call *call,
                struct provider_request *ret, struct err *err)
{
    int rc = wire_url(provider, call, "/v1beta", "/models?pageSize=1000", ret, err);
    if (rc == 0)
        rc = wire_key(provider, call, "x-goog-api-key", "", ret, err);
    return rc == 0 ? wire_finish(ret, err) : rc;
}

static int list_parse(const struct provider *provider, const char *data, size_t len,
                      struct buf *names)
{
    (void)provider;
    return wire_list(data, len, "models", "name", "models/", names);
}

const struct provider provider_gemini = {
    .abi = PROVIDER_ABI,
    .api = "gemini",
    .title = "Google Gemini",
    .base_url = "https://generativelanguage.googleapis.com",
    .key_env = "GEMINI_API_KEY",
    .needs_key = true,
    .framing = PROVIDER_SSE,
    .build = build,
    .event = event,
    .body = body,
    .failure = failure_http,
    .end = end,
    .list = list,
    .list_parse = list_parse,
};
