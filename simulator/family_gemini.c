/* Google's Gemini API (generateContent). */
#include <string.h>

#include "simulator/family.h"
#include "simulator/vectors.h"

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

/* Images among the parts, checked and counted. */
static int parse_images(struct sim_request *request, const json_t *parts, struct sim_error *ret)
{
    size_t i;
    json_t *part;
    json_array_foreach (parts, i, part) {
        const json_t *data = either(part, "inlineData", "inline_data");
        const json_t *file = either(part, "fileData", "file_data");
        if (data == NULL && file == NULL)
            continue;
        const json_t *type = either(data, "mimeType", "mime_type");
        if (data != NULL && (!json_is_string(type) || json_string_length(type) == 0))
            return sim_error_set(ret, "", "Unable to process input image: mime_type is required.");
        if (data != NULL && json_str(data, "data", "")[0] == '\0')
            return sim_error_set(ret, "", "Unable to process input image. Please retry or report.");
        const json_t *uri = either(file, "fileUri", "file_uri");
        if (file != NULL && (!json_is_string(uri) || json_string_length(uri) == 0))
            return sim_error_set(ret, "", "Invalid value at 'contents.parts.file_data.file_uri'");
        request->images++;
    }
    return 0;
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
        int rc = parse_images(request, parts, ret);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int parse_thinking(struct sim_request *request, const json_t *config, struct sim_error *ret)
{
    const json_t *thinking = either(config, "thinkingConfig", "thinking_config");
    const json_t *level = either(thinking, "thinkingLevel", "thinking_level");
    const json_t *budget = either(thinking, "thinkingBudget", "thinking_budget");
    bool budgets = strncmp(request->model, "gemini-2.5-", 11) == 0;
    if (level != NULL && budget != NULL)
        return sim_error_set(ret, "", "You can only set one of thinking budget or thinking level.");
    if (level != NULL && budgets)
        return sim_error_set(ret, "", "Thinking level is not supported for this model.");
    request->thinks = json_is_true(either(thinking, "includeThoughts", "include_thoughts")) &&
                      !(json_is_integer(budget) && json_integer_value(budget) == 0);
    return 0;
}

/* The texts of a call for vectors: each of a batch has a model of its own, which must be the one of
 * the path. */
static int parse_embed(struct sim_request *request, struct sim_error *ret)
{
    const json_t *requests = json_get(request->root, "requests");
    json_t *texts = json_array();
    size_t i, n = json_is_array(requests) ? json_array_size(requests) : 1;
    for (i = 0; i < n; i++) {
        const json_t *item = requests != NULL ? json_array_get(requests, i) : request->root;
        const char *model = json_str(item, "model", requests != NULL ? "" : request->model);
        const json_t *dimensions = either(item, "outputDimensionality", "output_dimensionality");
        struct buf text = {0};
        if (strncmp(model, "models/", 7) == 0)
            model += 7;
        bool good = strcmp(model, request->model) == 0 &&
                    sim_request_add_content(&text, json_path(item, "content.parts")) &&
                    text.len > 0;
        request->dimensions = json_is_integer(dimensions) ? json_integer_value(dimensions) : 0;
        good =
            good && request->dimensions >= 0 && request->dimensions <= SIM_VECTORS_MAX_DIMENSIONS;
        if (good) {
            sim_request_add_text(&request->prompt, text.data, text.len);
            json_array_append_new(texts, json_stringn(text.data, text.len));
        }
        buf_release(&text);
        if (!good)
            break;
    }
    json_object_set_new(request->root, "texts", texts); /* released with it */
    request->inputs = texts;
    request->single = requests == NULL;
    if (i == n && n > 0)
        return 0;
    return sim_error_set(ret, "",
                         "* BatchEmbedContentsRequest.requests[%zu]: content is empty, or model "
                         "is not the one of the path",
                         i);
}

static int parse(struct sim_request *request, struct sim_error *ret)
{
    if (request->embed)
        return parse_embed(request, ret);
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
    request->stop = either(config, "stopSequences", "stop_sequences");
    const json_t *seed = json_get(config, "seed");
    if (seed != NULL && (!json_is_integer(seed) || json_integer_value(seed) > INT32_MAX))
        return sim_error_set(ret, "", "Invalid value at 'generation_config.seed' (TYPE_INT32)");
    return parse_thinking(request, config, ret);
}

static void add_headers(const struct sim_answer *answer, struct buf *out)
{
    buf_printf(out, "server-timing: gfet4t7; dur=%.0f\n", answer->total_ms);
}

static void add_usage(const struct sim_answer *answer, struct buf *out)
{
    long long prompt = answer->request->prompt_tokens, output = answer->output_tokens;
    long long cached = answer->request->cached_tokens, thought = answer->thought_tokens;
    buf_printf(out, ",\"usageMetadata\":{\"promptTokenCount\":%lld", prompt);
    if (cached > 0) /* zero counts are omitted */
        buf_printf(out, ",\"cachedContentTokenCount\":%lld", cached);
    if (output > 0)
        buf_printf(out, ",\"candidatesTokenCount\":%lld", output);
    if (thought > 0)
        buf_printf(out, ",\"thoughtsTokenCount\":%lld", thought);
    buf_printf(out, ",\"totalTokenCount\":%lld}", prompt + output + thought);
    buf_add_str(out, ",\"modelVersion\":");
    sim_family_add_json(out, answer->model);
    buf_printf(out, ",\"responseId\":\"sim%llu\"}", (unsigned long long)answer->seq);
}

/* The finish reasons that a scenario names with this before them block the prompt: then there is no
 * candidate at all. */
#define BLOCK "block:"

static bool is_blocked(const struct sim_answer *answer)
{
    return answer->finish != NULL && strncmp(answer->finish, BLOCK, sizeof BLOCK - 1) == 0;
}

static void add_blocked(const struct sim_answer *answer, struct buf *out)
{
    buf_add_str(out, "{\"promptFeedback\":{\"blockReason\":");
    sim_family_add_json(out, answer->finish + sizeof BLOCK - 1);
    buf_add_char(out, '}');
    add_usage(answer, out);
}

enum part { PART_THOUGHT, PART_TEXT, PART_LAST, PART_ALL };

static void add_object(const struct sim_answer *answer, const char *text, size_t len,
                       enum part part, struct buf *out)
{
    if (is_blocked(answer)) {
        add_blocked(answer, out);
        return;
    }
    buf_add_str(out, "{\"candidates\":[{\"content\":{\"parts\":[");
    if (answer->thoughts[0] != '\0' && (part == PART_THOUGHT || part == PART_ALL)) {
        buf_add_str(out, "{\"text\":");
        sim_family_add_json(out, answer->thoughts);
        buf_add_str(out, part == PART_ALL ? ",\"thought\":true}," : ",\"thought\":true}");
    }
    if (part != PART_THOUGHT) {
        buf_add_str(out, "{\"text\":");
        buf_add_json(out, text, len);
        buf_add_char(out, '}');
    }
    buf_add_str(out, "],\"role\":\"model\"}");
    if (part >= PART_LAST && answer->finished) {
        buf_add_str(out, ",\"finishReason\":");
        sim_family_add_json(out, answer->finish != NULL ? answer->finish
                                 : answer->length       ? "MAX_TOKENS"
                                                        : "STOP");
    }
    buf_add_str(out, ",\"index\":0}]");
    add_usage(answer, out);
}

/* The vectors lie in the text, one a line. */
static void add_vectors(const struct sim_answer *answer, struct buf *out)
{
    const char *at = answer->text, *end = at + answer->text_len, *vector;
    bool single = answer->request->single, any = false;
    size_t len;
    buf_add_str(out, single ? "{\"embedding\":" : "{\"embeddings\":[");
    while ((vector = sim_vectors_next(&at, end, &len)) != NULL) {
        buf_add_str(out, any ? ",{\"values\":" : "{\"values\":");
        buf_add(out, vector, len);
        buf_add_char(out, '}');
        any = true;
    }
    buf_add_str(out, single ? "}" : "]}");
}

static void add_whole(const struct sim_answer *answer, struct buf *out)
{
    if (answer->request->embed)
        add_vectors(answer, out);
    else
        add_object(answer, answer->text, answer->text_len, PART_ALL, out);
}

/* One chunk of the stream, as an event or as the next element of the array. */
static void add_chunk(const struct sim_answer *answer, const char *text, size_t len, enum part part,
                      struct buf *out)
{
    bool thought = answer->thoughts[0] != '\0';
    bool first =
        part == PART_THOUGHT || (part == PART_TEXT && answer->output_tokens <= 1 && !thought);
    if (!answer->request->array)
        buf_add_str(out, "data: ");
    else if (!first && (answer->output_tokens > 0 || thought))
        buf_add_str(out, ",\r\n");
    add_object(answer, text, len, part, out);
    buf_add_str(out, answer->request->array ? "\n" : "\r\n\r\n");
}

static void add_open(const struct sim_answer *answer, struct buf *out)
{
    if (answer->request->array)
        buf_add_char(out, '[');
    if (answer->thoughts[0] != '\0')
        add_chunk(answer, "", 0, PART_THOUGHT, out);
}

static void add_piece(const struct sim_answer *answer, const char *text, size_t len,
                      struct buf *out)
{
    add_chunk(answer, text, len, PART_TEXT, out);
}

static void add_close(const struct sim_answer *answer, struct buf *out)
{
    add_chunk(answer, "", 0, PART_LAST, out);
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

/* The status word that belongs to a status, where a scenario names one. */
static const char *error_type(const struct sim_error *error)
{
    static const struct {
        int status;
        const char *type;
    } types[] = {
        {401, "UNAUTHENTICATED"}, {403, "PERMISSION_DENIED"},  {404, "NOT_FOUND"},
        {409, "ABORTED"},         {429, "RESOURCE_EXHAUSTED"}, {499, "CANCELLED"},
        {501, "UNIMPLEMENTED"},   {503, "UNAVAILABLE"},        {504, "DEADLINE_EXCEEDED"},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (error->status == types[i].status)
            return types[i].type;
    return rows[error->kind].type;
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
    buf_printf(out, ",\n    \"status\": \"%s\"", error_type(error));
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
    if (answer->request->array && (answer->output_tokens > 0 || answer->thought_tokens > 0))
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
