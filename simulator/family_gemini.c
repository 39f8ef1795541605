/* Google's Gemini API (generateContent). */
#include <string.h>

#include "simulator/family.h"

#define REASON "type.googleapis.com/google.rpc."

/* code: what the details say, if anything. */
/* clang-format off */
static const struct sim_error_row rows[SIM_KIND_COUNT] = {
    [SIM_KIND_RATE_LIMIT] = {429, "RESOURCE_EXHAUSTED", "GenerateRequestsPerMinutePerProjectPerModel", "You exceeded your current quota, please check your plan and billing details. * Quota exceeded for metric: generate_content_requests, limit: 10, model: {model}\nPlease retry in {retry}s."},
    [SIM_KIND_QUOTA] = {429, "RESOURCE_EXHAUSTED", "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "You exceeded your current quota, please check your plan and billing details. * Quota exceeded for metric: generate_content_free_tier_requests, limit: 0, model: {model}"},
    [SIM_KIND_OVERLOADED] = {503, "UNAVAILABLE", NULL, "The model is overloaded. Please try again later."},
    [SIM_KIND_AUTH] = {400, "INVALID_ARGUMENT", "API_KEY_INVALID", "API key not valid. Please pass a valid API key."},
    [SIM_KIND_CONTEXT_TOO_LONG] = {400, "INVALID_ARGUMENT", NULL, "The input token count ({tokens}) exceeds the maximum number of tokens allowed (1048576)."},
    [SIM_KIND_BAD_REQUEST] = {400, "INVALID_ARGUMENT", NULL, "Request contains an invalid argument."},
    [SIM_KIND_SERVER_ERROR] = {500, "INTERNAL", NULL, "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting"},
    [SIM_KIND_NO_MODEL] = {404, "NOT_FOUND", NULL, "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call ListModels to see the list of available models and their supported methods."},
    [SIM_KIND_NO_ROUTE] = {404, "NOT_FOUND", NULL, "Requested entity was not found."},
    [SIM_KIND_NO_METHOD] = {405, "METHOD_NOT_ALLOWED", NULL, "Method not allowed."},
    [SIM_KIND_TOO_LARGE] = {413, "INVALID_ARGUMENT", NULL, "Request payload size exceeds the limit."},
};
/* clang-format on */

static const json_t *either(const json_t *object, const char *camel, const char *snake)
{
    const json_t *value = json_get(object, camel);
    return value != NULL ? value : json_get(object, snake);
}

static int parse_contents(struct sim_request *request, struct sim_error *ret)
{
    const json_t *contents = json_get(request->root, "contents");
    if (!json_is_array(contents) || json_array_size(contents) == 0)
        return sim_error_set(ret, "",
                             "* GenerateContentRequest.contents: contents is not specified");
    size_t i;
    json_t *content;
    json_array_foreach (contents, i, content) {
        const char *role = json_str(content, "role", "user");
        if (strcmp(role, "user") != 0 && strcmp(role, "model") != 0)
            return sim_error_set(ret, "", "Please use a valid role: user, model.");
        const json_t *parts = json_get(content, "parts");
        if (!json_is_array(parts) || json_array_size(parts) == 0)
            return sim_error_set(ret, "",
                                 "* GenerateContentRequest.contents[%zu].parts: contents.parts "
                                 "must not be empty.",
                                 i);
        if (!sim_request_add_content(&request->prompt, parts))
            return sim_error_set(ret, "",
                                 "Invalid JSON payload received. Unknown name at "
                                 "'contents[%zu].parts'",
                                 i);
    }
    return 0;
}

static int parse(struct sim_request *request, struct sim_error *ret)
{
    int rc = parse_contents(request, ret);
    if (rc != 0)
        return rc;
    const json_t *system = either(request->root, "systemInstruction", "system_instruction");
    if (system != NULL && !sim_request_add_content(&request->system, json_get(system, "parts")))
        return sim_error_set(ret, "", "Invalid value at 'system_instruction'");
    const json_t *config = either(request->root, "generationConfig", "generation_config");
    const json_t *limit = either(config, "maxOutputTokens", "max_output_tokens");
    if (limit != NULL && (!json_is_integer(limit) || json_integer_value(limit) < 1))
        return sim_error_set(ret, "",
                             "Invalid value at 'generation_config.max_output_tokens' (TYPE_INT32)");
    request->max_tokens = json_is_integer(limit) ? json_integer_value(limit) : 0;
    const json_t *type = either(config, "responseMimeType", "response_mime_type");
    request->json_mode =
        json_is_string(type) && strcmp(json_string_value(type), "application/json") == 0;
    const json_t *schema = either(config, "responseJsonSchema", "response_json_schema");
    if (schema == NULL)
        schema = either(config, "responseSchema", "response_schema");
    if (schema != NULL && !request->json_mode)
        return sim_error_set(ret, "",
                             "response_schema is only supported with response_mime_type "
                             "'application/json'");
    request->schema = schema;
    return 0;
}

static void add_headers(const struct sim_answer *answer, struct buf *out)
{
    buf_printf(out, "server-timing: gfet4t7; dur=%.0f\n", answer->total_ms);
}

static void add_usage(const struct sim_answer *answer, struct buf *out)
{
    long long prompt = answer->request->prompt_tokens, output = answer->output_tokens;
    buf_printf(out, ",\"usageMetadata\":{\"promptTokenCount\":%lld", prompt);
    if (output > 0) /* zero counts are omitted */
        buf_printf(out, ",\"candidatesTokenCount\":%lld", output);
    buf_printf(out, ",\"totalTokenCount\":%lld}", prompt + output);
    buf_add_str(out, ",\"modelVersion\":");
    sim_family_add_json(out, answer->model);
    buf_printf(out, ",\"responseId\":\"sim%llu\"}", (unsigned long long)answer->seq);
}

static void add_object(const struct sim_answer *answer, const char *text, size_t len, bool last,
                       struct buf *out)
{
    buf_add_str(out, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":");
    buf_add_json(out, text, len);
    buf_add_str(out, "}],\"role\":\"model\"}");
    if (last && answer->finished)
        buf_printf(out, ",\"finishReason\":\"%s\"", answer->length ? "MAX_TOKENS" : "STOP");
    buf_add_str(out, ",\"index\":0}]");
    add_usage(answer, out);
}

static void add_whole(const struct sim_answer *answer, struct buf *out)
{
    add_object(answer, answer->text, answer->text_len, true, out);
}

static void add_open(const struct sim_answer *answer, struct buf *out)
{
    if (answer->request->array)
        buf_add_char(out, '[');
}

/* One chunk of the stream, as an event or as the next element of the array. */
static void add_chunk(const struct sim_answer *answer, const char *text, size_t len, bool last,
                      struct buf *out)
{
    bool first = answer->output_tokens <= 1 && !last;
    if (!answer->request->array)
        buf_add_str(out, "data: ");
    else if (!first && answer->output_tokens > 0)
        buf_add_str(out, ",\r\n");
    add_object(answer, text, len, last, out);
    buf_add_str(out, answer->request->array ? "\n" : "\r\n\r\n");
}

static void add_piece(const struct sim_answer *answer, const char *text, size_t len,
                      struct buf *out)
{
    add_chunk(answer, text, len, false, out);
}

static void add_close(const struct sim_answer *answer, struct buf *out)
{
    add_chunk(answer, "", 0, true, out);
    if (answer->request->array)
        buf_add_str(out, "]\n");
}

static void add_details(const struct sim_error *error, struct buf *out)
{
    const char *code = rows[error->kind].code;
    double retry_s = sim_family_retry_s(error);
    if (code == NULL)
        return;
    buf_add_str(out, ",\n    \"details\": [\n");
    if (error->kind == SIM_KIND_AUTH)
        buf_printf(out,
                   "      {\"@type\": \"" REASON "ErrorInfo\", \"reason\": \"%s\", "
                   "\"domain\": \"googleapis.com\"}",
                   code);
    else
        buf_printf(out,
                   "      {\"@type\": \"" REASON "QuotaFailure\", \"violations\": "
                   "[{\"quotaId\": \"%s\"}]}",
                   code);
    if (retry_s >= 0)
        buf_printf(out, ",\n      {\"@type\": \"" REASON "RetryInfo\", \"retryDelay\": \"%gs\"}",
                   retry_s);
    buf_add_str(out, "\n    ]");
}

/* Google pretty-prints its errors, so that they span lines: also in the middle of a stream. */
static void add_body(const struct sim_request *request, const struct sim_error *error,
                     struct buf *out)
{
    struct buf message = {0};
    const struct sim_error_row *row = &rows[error->kind];
    sim_family_message(&message, request, error, row);
    buf_printf(out, "{\n  \"error\": {\n    \"code\": %d,\n    \"message\": ",
               error->status != 0 ? error->status : row->status);
    buf_add_json(out, message.data, message.len);
    buf_printf(out, ",\n    \"status\": \"%s\"", row->type);
    add_details(error, out);
    buf_add_str(out, "\n  }\n}\n");
    buf_release(&message);
}

static void write_error(const struct sim_request *request, const struct sim_error *error,
                        struct sim_failure *ret)
{
    ret->status = error->status != 0 ? error->status : rows[error->kind].status;
    ret->type = "application/json; charset=UTF-8";
    if (request->array)
        buf_add_char(&ret->body, '[');
    add_body(request, error, &ret->body);
    if (request->array)
        buf_add_str(&ret->body, "]\n");
}

static void add_stream_error(const struct sim_answer *answer, const struct sim_error *error,
                             struct buf *out)
{
    if (answer->request->array && answer->output_tokens > 0)
        buf_add_str(out, ",\r\n");
    add_body(answer->request, error, out);
    if (answer->request->array)
        buf_add_str(out, "]\n");
}

const struct sim_family sim_family_gemini = {
    .name = "gemini",
    .stream_type = "text/event-stream",
    .parse = parse,
    .headers = add_headers,
    .whole = add_whole,
    .open = add_open,
    .piece = add_piece,
    .close = add_close,
    .error = write_error,
    .stream_error = add_stream_error,
};
