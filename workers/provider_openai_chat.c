/* OpenAI's chat completions, and what other servers put into them. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "workers/call.h"
#include "workers/failure.h"
#include "workers/provider_openai.h"
#include "workers/retry_after.h"

/* --- requests ----------------------------------------------------------------------------------
 */

/* Whether OpenAI's strict mode takes the schema: every object closes itself and requires all of its
 * members. Otherwise "strict": true would be an error 400. */
bool openai_schema_is_strict(struct json_view schema)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("type"),
        JSON_VIEW_NAME("properties"),
        JSON_VIEW_NAME("required"),
        JSON_VIEW_NAME("additionalProperties"),
    };
    struct json_view found[4], key, value;
    json_view_members(schema, names, 4, found);
    bool object = json_view_equals(found[0], "object") || found[1].kind == JSON_VIEW_OBJECT;
    if (object && found[3].kind != JSON_VIEW_FALSE)
        return false;
    struct json_view properties = object ? found[1] : (struct json_view){0};
    while (json_view_next(&properties, &key, &value)) {
        struct json_view required = found[2], item;
        bool there = false;
        while (!there && json_view_next(&required, NULL, &item))
            there = item.len == key.len && memcmp(item.text, key.text, key.len) == 0;
        if (!there)
            return false;
    }
    while (json_view_next(&schema, NULL, &value))
        if (!openai_schema_is_strict(value))
            return false;
    return true;
}

static void add_schema(const struct openai_quirks *quirks, struct json_view schema,
                       struct buf *body)
{
    if (schema.kind == JSON_VIEW_NONE)
        return;
    if (quirks->schema == OPENAI_SCHEMA_VALUE) {
        buf_add_str(body, ",\"response_format\":{\"type\":\"json\",\"value\":");
        buf_add(body, schema.text, schema.len);
        buf_add_str(body, "}");
        return;
    }
    buf_add_str(body, ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":"
                      "{\"name\":\"answer\",");
    if (quirks->schema == OPENAI_SCHEMA_STRICT)
        buf_printf(body, "\"strict\":%s,", openai_schema_is_strict(schema) ? "true" : "false");
    buf_add_str(body, "\"schema\":");
    buf_add(body, schema.text, schema.len);
    buf_add_str(body, "}}");
}

int openai_images_check(const struct provider_call *call, struct err *err)
{
    static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                 "0123456789+/=";
    static const char type[] = "abcdefghijklmnopqrstuvwxyz0123456789/+.-";
    for (size_t i = 0; i < call->n_images; i++) {
        const struct provider_image *image = &call->images[i];
        if (image->url[0] != '\0')
            continue;
        if (image->data[0] == '\0' || image->data[strspn(image->data, base64)] != '\0')
            return err_set(err, -EINVAL, "the data of image %zu is no base64", i + 1);
        if (image->media_type[0] == '\0' ||
            image->media_type[strspn(image->media_type, type)] != '\0')
            return err_set(err, -EINVAL, "the media type of image %zu is none, such as image/png",
                           i + 1);
    }
    return 0;
}

void openai_add_image(const struct provider_image *image, struct buf *body)
{
    if (image->url[0] != '\0') {
        buf_add_json(body, image->url, strlen(image->url));
        return;
    }
    buf_printf(body, "\"data:%s;base64,", image->media_type);
    buf_add_str(body, image->data);
    buf_add_char(body, '"');
}

static void add_prompt(const struct provider_call *call, struct buf *body)
{
    buf_add_str(body, ",\"content\":");
    if (call->n_images == 0) {
        call_prompt(call, body);
        return;
    }
    buf_add_str(body, "[{\"type\":\"text\",\"text\":");
    call_prompt(call, body);
    buf_add_char(body, '}');
    for (size_t i = 0; i < call->n_images; i++) {
        buf_add_str(body, ",{\"type\":\"image_url\",\"image_url\":{\"url\":");
        openai_add_image(&call->images[i], body);
        buf_add_str(body, "}}");
    }
    buf_add_char(body, ']');
}

static void add_messages(const struct openai_quirks *quirks, const struct provider_call *call,
                         struct buf *body)
{
    buf_add_str(body, ",\"messages\":[");
    if (call_has_system(call)) {
        buf_printf(body, "{\"role\":\"%s\"", quirks->system_role);
        wire_member(body, "content", call->system, strlen(call->system));
        buf_add_str(body, "},");
    }
    buf_add_str(body, "{\"role\":\"user\"");
    add_prompt(call, body);
    buf_add_str(body, "}]");
}

static void add_effort(const struct openai_quirks *quirks, const struct provider_call *call,
                       struct buf *body)
{
    if (call_thinks_not(call) && quirks->thinking_kwarg)
        buf_add_str(body, ",\"chat_template_kwargs\":{\"enable_thinking\":false}");
    else if (!quirks->no_effort && (call_thinks(call) || call_thinks_not(call)))
        wire_member(body, "reasoning_effort", call->effort, strlen(call->effort));
}

/* "ttl" in seconds, of a duration such as "10m" or a number of seconds; "-1", for ever, is what
 * the server has no word for. */
static void add_ttl(const char *keep_alive, struct buf *body)
{
    if (keep_alive == NULL || !isdigit((unsigned char)keep_alive[0]))
        return;
    char text[32];
    size_t digits = strspn(keep_alive, "0123456789");
    snprintf(text, sizeof text, "%.24s%s", keep_alive, keep_alive[digits] == '\0' ? "s" : "");
    int64_t ms = retry_after_duration(text);
    if (ms >= 0)
        buf_printf(body, ",\"ttl\":%lld", (long long)(ms < 1000 ? 1 : ms / 1000));
}

static void add_options(const struct openai_quirks *quirks, const struct provider_call *call,
                        struct buf *body)
{
    if (call->max_tokens > 0)
        buf_printf(body, ",\"%s\":%lld", quirks->max_tokens, (long long)call->max_tokens);
    if (call->temperature > 0 || (call->temperature == 0 && !quirks->no_zero))
        wire_number(body, "temperature", call->temperature);
    if (call->has_seed)
        buf_printf(body, ",\"seed\":%lld", (long long)call->seed);
    call_stop(call, "stop", body);
    add_effort(quirks, call, body);
    if (quirks->cache_prompt)
        buf_add_str(body, ",\"cache_prompt\":true");
    if (quirks->ttl)
        add_ttl(call->keep_alive, body);
}

static int check(const struct provider *provider, const struct provider_call *call, struct err *err)
{
    const struct openai_quirks *quirks = provider->quirks;
    if (quirks->max_stop > 0 && call->n_stop > quirks->max_stop)
        return err_set(err, -EINVAL, "api %s takes at most %zu stop strings, and here are %zu",
                       provider->api, quirks->max_stop, call->n_stop);
    return openai_images_check(call, err);
}

int openai_chat_build(const struct provider *provider, const struct provider_call *call,
                      struct provider_request *ret, struct err *err)
{
    const struct openai_quirks *quirks = provider->quirks;
    struct json_view schema;
    struct buf *body = &ret->body;
    int rc = wire_schema(call, &schema, err);
    if (rc == 0)
        rc = check(provider, call, err);
    if (rc == 0)
        rc = wire_url(provider, call, "/v1", "/chat/completions", ret, err);
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
    add_messages(quirks, call, body);
    add_options(quirks, call, body);
    add_schema(quirks, schema, body);
    buf_printf(body, ",\"stream\":%s", call->stream ? "true" : "false");
    if (call->stream && !call->no_stream_options)
        buf_printf(body, ",\"stream_options\":{\"include_usage\":true%s}",
                   quirks->no_obfuscation ? ",\"include_obfuscation\":false" : "");
    buf_add_char(body, '}');
    return wire_finish(ret, err);
}

/* --- answers ------------------------------------------------------------------------------------
 */

static const struct wire_stop stops[] = {
    {"stop", FINISH_DONE, CLASS_NONE},
    {"length", FINISH_LENGTH, CLASS_NONE},
    {"tool_calls", FINISH_TOOLS, CLASS_NONE},
    {"function_call", FINISH_TOOLS, CLASS_NONE},
    {"content_filter", FINISH_FILTERED, CLASS_NONE},
    {"eos_token", FINISH_DONE, CLASS_NONE}, /* TGI's own names slip through older versions */
    {"stop_sequence", FINISH_DONE, CLASS_NONE},
    {"error", FINISH_OTHER, CLASS_RETRY}, /* routers, when the provider behind them failed */
    {NULL, FINISH_NONE, CLASS_NONE},
};

/* Content is a string, or with some servers an array of parts: {"type":"text","text":...} and
 * {"type":"thinking","thinking":[...]}. */
static void add_content(struct provider_reply *reply, struct json_view content)
{
    struct json_view part;
    if (json_view_text(content, &reply->text) || content.kind != JSON_VIEW_ARRAY)
        return;
    while (json_view_next(&content, NULL, &part)) {
        json_view_text(json_view_member(part, "text"), &reply->text);
        struct json_view thoughts = json_view_member(part, "thinking"), thought;
        while (json_view_next(&thoughts, NULL, &thought))
            json_view_text(json_view_member(thought, "text"), &reply->reasoning);
    }
}

/* choices[0].delta of a stream, choices[0].message of a whole answer. */
static void read_message(struct provider_reply *reply, struct json_view message)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("content"),
        JSON_VIEW_NAME("reasoning"),
        JSON_VIEW_NAME("reasoning_content"),
        JSON_VIEW_NAME("refusal"),
    };
    struct json_view found[4];
    json_view_members(message, names, 4, found);
    add_content(reply, found[0]);
    /* Two names of one thing: servers that send both send the same text twice. */
    size_t before = reply->reasoning.len;
    json_view_text(found[1], &reply->reasoning);
    if (reply->reasoning.len == before)
        json_view_text(found[2], &reply->reasoning);
    if (found[3].kind == JSON_VIEW_STRING && found[3].len > 2) {
        json_view_text(found[3], &reply->text); /* what error_text will quote */
        reply->finish = FINISH_FILTERED;
    }
}

static void read_choice(struct provider_reply *reply, struct json_view choice)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("delta"),
        JSON_VIEW_NAME("message"),
        JSON_VIEW_NAME("finish_reason"),
    };
    struct json_view found[3];
    json_view_members(choice, names, 3, found);
    read_message(reply, found[found[0].kind == JSON_VIEW_OBJECT ? 0 : 1]);
    wire_stop(reply, stops, found[2]);
}

void openai_usage(struct provider_reply *reply, struct json_view usage,
                  const struct json_view_name names[OPENAI_USAGE])
{
    struct json_view found[OPENAI_USAGE];
    if (usage.kind != JSON_VIEW_OBJECT)
        return;
    json_view_members(usage, names, OPENAI_USAGE, found);
    wire_count(found[0], &reply->prompt_tokens);
    wire_count(found[1], &reply->output_tokens);
    wire_count(json_view_member(found[2], "cached_tokens"), &reply->cached_tokens);
    wire_count(json_view_member(found[2], "cache_write_tokens"), &reply->cache_write_tokens);
    wire_count(json_view_member(found[3], "reasoning_tokens"), &reply->reasoning_tokens);
}

static void read_usage(struct provider_reply *reply, struct json_view usage)
{
    static const struct json_view_name names[OPENAI_USAGE] = {
        JSON_VIEW_NAME("prompt_tokens"),
        JSON_VIEW_NAME("completion_tokens"),
        JSON_VIEW_NAME("prompt_tokens_details"),
        JSON_VIEW_NAME("completion_tokens_details"),
    };
    openai_usage(reply, usage, names);
}

/* llama.cpp: prompt_n tokens were evaluated in prompt_ms, cache_n more were in the cache. */
static void read_timings(struct provider_reply *reply, struct json_view timings)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("cache_n"),     JSON_VIEW_NAME("prompt_n"),     JSON_VIEW_NAME("prompt_ms"),
        JSON_VIEW_NAME("predicted_n"), JSON_VIEW_NAME("predicted_ms"),
    };
    struct json_view found[5];
    int64_t cached = -1, evaluated = -1;
    if (timings.kind != JSON_VIEW_OBJECT)
        return;
    json_view_members(timings, names, 5, found);
    wire_count(found[0], &cached);
    wire_count(found[1], &evaluated);
    wire_ms(found[2], 1, &reply->prompt_ms);
    wire_ms(found[4], 1, &reply->generate_ms);
    if (cached >= 0)
        reply->cached_tokens = cached;
    if (reply->prompt_tokens < 0 && evaluated >= 0)
        reply->prompt_tokens = evaluated + (cached > 0 ? cached : 0);
    if (reply->output_tokens < 0)
        wire_count(found[3], &reply->output_tokens);
}

/* vLLM with --enable-per-request-metrics. */
static void read_metrics(struct provider_reply *reply, struct json_view metrics)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("time_to_first_token_ms"),
        JSON_VIEW_NAME("queue_time_ms"),
        JSON_VIEW_NAME("generation_time_ms"),
    };
    struct json_view found[3];
    double first = -1, queue = 0;
    if (metrics.kind != JSON_VIEW_OBJECT)
        return;
    json_view_members(metrics, names, 3, found);
    wire_ms(found[0], 1, &first);
    wire_ms(found[1], 1, &queue);
    wire_ms(found[2], 1, &reply->generate_ms);
    if (first >= 0)
        reply->prompt_ms = first > queue ? first - queue : 0;
}

void openai_chat_document(struct provider_reply *reply, struct json_view view,
                          enum error_class unknown)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("choices"), JSON_VIEW_NAME("usage"),   JSON_VIEW_NAME("error"),
        JSON_VIEW_NAME("timings"), JSON_VIEW_NAME("metrics"), JSON_VIEW_NAME("model"),
        JSON_VIEW_NAME("id"),      JSON_VIEW_NAME("object"),
    };
    enum { CHOICES, USAGE, ERROR, TIMINGS, METRICS, MODEL, ID, OBJECT, FOUND };
    struct json_view found[FOUND];
    json_view_members(view, names, FOUND, found);
    if (wire_error(reply, view, found[ERROR], unknown))
        return;
    /* Older vLLM has the error's members at the top; and a whole answer must have choices. */
    bool whole = unknown == CLASS_BAD_RESPONSE;
    if (json_view_equals(found[OBJECT], "error") ||
        (whole && json_view_first(found[CHOICES]).kind != JSON_VIEW_OBJECT)) {
        failure_inside(reply, view, unknown);
        return;
    }
    wire_name(found[MODEL], reply->model, sizeof reply->model);
    wire_name(found[ID], reply->request_id, sizeof reply->request_id);
    read_usage(reply, found[USAGE]);
    read_timings(reply, found[TIMINGS]);
    read_metrics(reply, found[METRICS]);
    read_choice(reply, json_view_first(found[CHOICES]));
}
