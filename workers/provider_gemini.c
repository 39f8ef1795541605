/* Google's Generative Language API: generateContent. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "workers/call.h"
#include "workers/failure.h"
#include "workers/names.h"
#include "workers/providers.h"
#include "workers/vectors.h"
#include "workers/wire.h"

/* --- the request -------------------------------------------------------------------------------
 */

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

/* The name without the collection it is in: models/NAME, tunedModels/NAME. */
static const char *base_name(const char *model)
{
    const char *slash = strrchr(model, '/');
    return slash != NULL ? slash + 1 : model;
}

/* How the models that a prefix names are told to think; the first row that fits. From 3 on there
 * are levels, and some models have no minimal one. */
static const struct thinker {
    const char *prefix;
    bool thinks;
    bool levels;        /* else a budget of tokens */
    int64_t least;      /* the smallest budget */
    const char *lowest; /* level */
} thinkers[] = {
    {"gemini-2.5-pro", true, false, 128, NULL}, /* can't be told not to think */
    {"gemini-2.5-", true, false, 0, NULL},      {"gemini-2", false, false, 0, NULL},
    {"gemini-1", false, false, 0, NULL},        {"gemma-", false, false, 0, NULL},
    {"gemini-3-pro", true, true, 0, "LOW"},     {"gemini-3.1-pro", true, true, 0, "LOW"},
    {"gemini-3", true, true, 0, "MINIMAL"},     {"", true, true, 0, "LOW"},
};

static const struct {
    const char *effort;
    const char *level; /* NULL: the model's lowest */
    int64_t budget_tokens;
} efforts[] = {
    {"none", NULL, 0},          {"minimal", NULL, 512},  {"low", "LOW", 1024},
    {"medium", "MEDIUM", 8192}, {"high", "HIGH", 24576}, {"xhigh", "HIGH", 24576},
    {"max", "HIGH", 24576},
};

static void add_thinking(const struct provider_call *call, struct buf *body)
{
    const char *name = base_name(call->model);
    const struct thinker *thinker = thinkers;
    while (strncmp(name, thinker->prefix, strlen(thinker->prefix)) != 0)
        thinker++;
    if (!thinker->thinks || (!call_thinks(call) && !call_thinks_not(call)))
        return;
    size_t i = 0, n = sizeof efforts / sizeof *efforts;
    while (i < n - 1 && strcmp(efforts[i].effort, call->effort) != 0)
        i++;
    buf_printf(body, ",\"thinkingConfig\":{\"includeThoughts\":%s",
               call_thinks(call) ? "true" : "false");
    int64_t budget = efforts[i].budget_tokens;
    if (budget < thinker->least)
        budget = thinker->least;
    if (thinker->levels)
        buf_printf(body, ",\"thinkingLevel\":\"%s\"}",
                   efforts[i].level != NULL ? efforts[i].level : thinker->lowest);
    else
        buf_printf(body, ",\"thinkingBudget\":%lld}", (long long)budget);
}

static void add_generation_config(const struct provider_call *call, struct json_view schema,
                                  struct buf *body)
{
    size_t before = body->len;
    if (call->temperature >= 0)
        wire_number(body, "temperature", call->temperature);
    if (call->max_tokens > 0)
        buf_printf(body, ",\"maxOutputTokens\":%lld", (long long)call->max_tokens);
    call_stop(call, "stopSequences", body);
    if (call->has_seed) /* an int32 there */
        buf_printf(body, ",\"seed\":%lld", (long long)(call->seed & INT32_MAX));
    add_thinking(call, body);
    if (schema.kind != JSON_VIEW_NONE) {
        buf_add_str(body, ",\"responseMimeType\":\"application/json\",\"responseJsonSchema\":");
        buf_add(body, schema.text, schema.len);
    }
    if (body->len > before) /* the first comma belongs to nothing */
        body->data[before] = ' ';
}

static void add_image(const struct provider_image *image, struct buf *body)
{
    bool by_url = image->url[0] != '\0';
    buf_add_str(body, by_url ? "{\"fileData\":{\"fileUri\":" : "{\"inlineData\":{\"data\":");
    const char *data = by_url ? image->url : image->data;
    buf_add_json(body, data, strlen(data));
    if (image->media_type != NULL && image->media_type[0] != '\0')
        wire_member(body, "mimeType", image->media_type, strlen(image->media_type));
    buf_add_str(body, "}},");
}

static void add_chat(const struct provider_call *call, struct json_view schema, struct buf *body)
{
    buf_add_str(body, "{\"contents\":[{\"role\":\"user\",\"parts\":[");
    for (size_t i = 0; i < call->n_images; i++)
        add_image(&call->images[i], body);
    buf_add_str(body, "{\"text\":");
    call_prompt(call, body);
    buf_add_str(body, "}]}]");
    if (call_has_system(call)) {
        buf_add_str(body, ",\"systemInstruction\":{\"parts\":[{\"text\":");
        buf_add_json(body, call->system, strlen(call->system));
        buf_add_str(body, "}]}");
    }
    buf_add_str(body, ",\"generationConfig\":{");
    add_generation_config(call, schema, body);
    buf_add_str(body, "}}");
}

/* Each text is a request of its own that names the model again. */
static void add_embed(const struct provider_call *call, struct buf *body)
{
    struct buf model = {0};
    buf_printf(&model, "%s%s", strchr(call->model, '/') == NULL ? "models/" : "", call->model);
    buf_add_str(body, "{\"requests\":[");
    for (size_t i = 0; i < call->n_inputs && !model.failed; i++) {
        buf_add_str(body, i > 0 ? ",{\"model\":" : "{\"model\":");
        buf_add_json(body, model.data, model.len);
        buf_add_str(body, ",\"content\":{\"parts\":[{\"text\":");
        buf_add_json(body, call->inputs[i], strlen(call->inputs[i]));
        buf_add_str(body, "}]}");
        if (call->dimensions > 0)
            buf_printf(body, ",\"outputDimensionality\":%lld", (long long)call->dimensions);
        buf_add_char(body, '}');
    }
    buf_add_str(body, "]}");
    body->failed |= model.failed;
    buf_release(&model);
}

static int add_url(const struct provider *provider, const struct provider_call *call,
                   struct provider_request *ret, struct err *err)
{
    if (call->kind == PROVIDER_LIST)
        return wire_url(provider, call, "/v1beta", "/models?pageSize=1000", ret, err);
    struct buf path = {0};
    add_path(&path, call->model);
    if (call->kind == PROVIDER_EMBED)
        buf_add_str(&path, ":batchEmbedContents");
    else
        buf_add_str(&path, call->stream ? ":streamGenerateContent?alt=sse" : ":generateContent");
    int rc = path.failed ? err_set(err, -ENOMEM, "out of memory")
                         : wire_url(provider, call, "/v1beta", path.data, ret, err);
    buf_release(&path);
    return rc;
}

static int build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err)
{
    struct json_view schema = {0};
    int rc = 0;
    if (call->kind == PROVIDER_EMBED)
        rc = vectors_check(call, err);
    else if (call->kind == PROVIDER_CHAT)
        rc = wire_schema(call, &schema, err);
    if (rc == 0)
        rc = add_url(provider, call, ret, err);
    if (rc < 0)
        return rc;
    if (call->kind != PROVIDER_LIST)
        wire_json_body(call, ret);
    if ((rc = call_headers(call, ret, err)) < 0 ||
        (rc = wire_key(provider, call, "x-goog-api-key", "", ret, err)) < 0)
        return rc;
    if (call->kind == PROVIDER_EMBED)
        add_embed(call, &ret->body);
    else if (call->kind == PROVIDER_CHAT)
        add_chat(call, schema, &ret->body);
    return wire_finish(ret, err);
}

/* --- the answer ---------------------------------------------------------------------------------
 */

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

/* What a reason other than the usual two says about itself, before it becomes an error. */
static void explain_stop(struct provider_reply *reply, struct json_view reason,
                         struct json_view message)
{
    char text[300];
    const struct wire_stop *stop = stops;
    if (message.kind != JSON_VIEW_STRING)
        return;
    while (stop->word != NULL && !json_view_equals(reason, stop->word))
        stop++;
    bool failed = stop->finish == FINISH_FILTERED || stop->error != CLASS_NONE;
    if (!failed || !json_view_copy(message, text, sizeof text) || text[0] == '\0')
        return;
    reply->finish = stop->finish;
    provider_reply_fail(reply, stop->error != CLASS_NONE ? stop->error : CLASS_REFUSED,
                        "the model stopped with %s: %s", stop->word, text);
}

static void read_candidate(struct provider_reply *reply, struct json_view candidate)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("content"),
        JSON_VIEW_NAME("finishReason"),
        JSON_VIEW_NAME("finishMessage"),
    };
    static const struct json_view_name part_names[] = {
        JSON_VIEW_NAME("text"),
        JSON_VIEW_NAME("thought"),
        JSON_VIEW_NAME("functionCall"),
    };
    struct json_view found[3], part, in_part[3];
    bool tools = false;
    json_view_members(candidate, names, 3, found);
    struct json_view parts = json_view_member(found[0], "parts");
    while (json_view_next(&parts, NULL, &part)) {
        json_view_members(part, part_names, 3, in_part);
        bool thought = in_part[1].kind == JSON_VIEW_TRUE;
        json_view_text(in_part[0], thought ? &reply->reasoning : &reply->text);
        tools |= in_part[2].kind == JSON_VIEW_OBJECT;
    }
    explain_stop(reply, found[1], found[2]);
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

static void embed_document(struct provider_reply *reply, struct json_view view,
                           enum error_class unknown)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("embeddings"),
        JSON_VIEW_NAME("usageMetadata"),
        JSON_VIEW_NAME("error"),
    };
    struct json_view found[3];
    json_view_members(view, names, 3, found);
    if (wire_error(reply, view, found[2], unknown))
        return;
    wire_count(json_view_member(found[1], "promptTokenCount"), &reply->prompt_tokens);
    reply->output_tokens = 0;
    vectors_read(reply, found[0], "values", VECTORS_OF_UNIT_LENGTH); /* cut ones are shorter */
}

static void body(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len)
{
    if (reply->kind == PROVIDER_LIST)
        names_read(reply, data, len, "models", "name", "models/");
    else
        wire_body(provider, reply, data, len,
                  reply->kind == PROVIDER_EMBED ? embed_document : document);
}

static void end(const struct provider *provider, struct provider_reply *reply)
{
    if (reply->error == CLASS_NONE && reply->finish != FINISH_NONE)
        wire_conclude(reply);
    wire_end(provider, reply);
}

const struct provider provider_gemini = {
    .abi = PROVIDER_ABI,
    .api = "gemini",
    .title = "Google Gemini",
    .base_url = "https://generativelanguage.googleapis.com",
    .key_env = "GEMINI_API_KEY",
    .needs_key = true,
    .framing = PROVIDER_SSE,
    .kinds =
        PROVIDER_KIND(PROVIDER_CHAT) | PROVIDER_KIND(PROVIDER_EMBED) | PROVIDER_KIND(PROVIDER_LIST),
    .build = build,
    .event = event,
    .body = body,
    .failure = failure_http,
    .end = end,
};
