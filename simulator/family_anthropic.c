/* Anthropic's Messages API. */
#include <math.h>
#include <string.h>

#include "simulator/family.h"

/* clang-format off */
static const struct sim_error_row rows[SIM_KIND_COUNT] = {
    [SIM_KIND_RATE_LIMIT] = {429, "rate_limit_error", NULL, "This request would exceed your organization's rate limit of 50 requests per minute. Please try again in {retry} seconds."},
    [SIM_KIND_QUOTA] = {402, "billing_error", NULL, "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."},
    [SIM_KIND_OVERLOADED] = {529, "overloaded_error", NULL, "Overloaded"},
    [SIM_KIND_AUTH] = {401, "authentication_error", NULL, "invalid x-api-key"},
    [SIM_KIND_CONTEXT_TOO_LONG] = {400, "invalid_request_error", NULL, "prompt is too long: {tokens} tokens > 200000 maximum"},
    [SIM_KIND_BAD_REQUEST] = {400, "invalid_request_error", NULL, "temperature: this value is not supported by this model"},
    [SIM_KIND_SERVER_ERROR] = {500, "api_error", NULL, "Internal server error"},
    [SIM_KIND_NO_MODEL] = {404, "not_found_error", NULL, "model: {model}"},
    [SIM_KIND_NO_ROUTE] = {404, "not_found_error", NULL, "Not Found"},
    [SIM_KIND_NO_METHOD] = {405, "invalid_request_error", NULL, "Method Not Allowed"},
    [SIM_KIND_TOO_LARGE] = {413, "request_too_large", NULL, "Request exceeds the maximum size"},
};
/* clang-format on */

/* An image's place among the content, checked and counted. */
static int parse_image(struct sim_request *request, const json_t *part, struct sim_error *ret)
{
    const json_t *source = json_get(part, "source");
    const char *type = json_str(source, "type", "");
    if (strcmp(json_str(part, "type", ""), "image") != 0)
        return 0;
    if (strcmp(type, "url") == 0 && strncmp(json_str(source, "url", ""), "http", 4) != 0)
        return sim_error_set(ret, "",
                             "messages.content.image.source.url: Only HTTPS URLs are "
                             "supported.");
    if (strcmp(type, "base64") == 0 &&
        strncmp(json_str(source, "media_type", ""), "image/", 6) != 0)
        return sim_error_set(ret, "",
                             "messages.content.image.source.base64.media_type: Input "
                             "should be 'image/jpeg', 'image/png', 'image/gif' or "
                             "'image/webp'");
    if (strcmp(type, "base64") == 0 && json_str(source, "data", "")[0] == '\0')
        return sim_error_set(ret, "", "messages.content.image.source.base64.data: Field required");
    if (strcmp(type, "url") != 0 && strcmp(type, "base64") != 0)
        return sim_error_set(ret, "",
                             "messages.content.image.source: Input tag '%s' found using "
                             "'type' does not match any of the expected tags: 'base64', "
                             "'url'",
                             type);
    request->images++;
    return 0;
}

static int parse_images(struct sim_request *request, const json_t *content, struct sim_error *ret)
{
    size_t i;
    json_t *part;
    int rc = 0;
    json_array_foreach (content, i, part)
        if (rc == 0)
            rc = parse_image(request, part, ret);
    return rc;
}

static int parse_thinking(struct sim_request *request, struct sim_error *ret)
{
    const json_t *thinking = json_get(request->root, "thinking");
    const char *type = json_str(thinking, "type", "disabled");
    if (strcmp(type, "disabled") == 0)
        return 0;
    int64_t budget = json_int(thinking, "budget_tokens", 0);
    if (strcmp(type, "enabled") == 0 && budget < 1024)
        return sim_error_set(ret, "",
                             "thinking.enabled.budget_tokens: Input should be greater "
                             "than or equal to 1024");
    if (strcmp(type, "enabled") == 0 && budget >= request->max_tokens)
        return sim_error_set(ret, "",
                             "`max_tokens` must be greater than "
                             "`thinking.budget_tokens`.");
    if (strcmp(type, "enabled") != 0 && strcmp(type, "adaptive") != 0)
        return sim_error_set(ret, "",
                             "thinking: Input tag '%s' found using 'type' does not match "
                             "any of the expected tags: 'adaptive', 'disabled', "
                             "'enabled'",
                             type);
    if (json_num(request->root, "temperature", 1) != 1)
        return sim_error_set(ret, "",
                             "`temperature` may only be set to 1 when thinking is "
                             "enabled.");
    request->thinks = true;
    return 0;
}

static int parse_messages(struct sim_request *request, struct sim_error *ret)
{
    const json_t *messages = json_get(request->root, "messages");
    if (messages == NULL)
        return sim_error_set(ret, "", "messages: Field required");
    if (!json_is_array(messages))
        return sim_error_set(ret, "", "messages: Input should be a valid list");
    if (json_array_size(messages) == 0)
        return sim_error_set(ret, "", "messages: at least one message is required");
    size_t i;
    json_t *message;
    json_array_foreach (messages, i, message) {
        const char *role = json_str(message, "role", "");
        if (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)
            return sim_error_set(ret, "",
                                 "messages: Unexpected role \"%s\". The Messages API accepts a "
                                 "top-level `system` parameter, not \"system\" as an input message "
                                 "role.",
                                 role);
        const json_t *content = json_get(message, "content");
        if (content == NULL)
            return sim_error_set(ret, "", "messages.%zu.content: Field required", i);
        if (!sim_request_add_content(&request->prompt, content))
            return sim_error_set(ret, "", "messages.%zu.content: Input should be a valid list", i);
        int rc = parse_images(request, content, ret);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int parse(struct sim_request *request, struct sim_error *ret)
{
    const json_t *root = request->root;
    if (json_get(root, "model") == NULL)
        return sim_error_set(ret, "", "model: Field required");
    if (!json_is_string(json_get(root, "model")))
        return sim_error_set(ret, "", "model: Input should be a valid string");
    const json_t *limit = json_get(root, "max_tokens");
    if (limit == NULL)
        return sim_error_set(ret, "", "max_tokens: Field required");
    if (!json_is_integer(limit))
        return sim_error_set(ret, "", "max_tokens: Input should be a valid integer");
    request->max_tokens = json_integer_value(limit);
    if (request->max_tokens < 1)
        return sim_error_set(ret, "", "max_tokens: must be greater than or equal to 1");
    const json_t *system = json_get(root, "system");
    if (system != NULL && !sim_request_add_content(&request->system, system))
        return sim_error_set(ret, "", "system: Input should be a valid list");
    int rc = parse_messages(request, ret);
    if (rc != 0)
        return rc;
    double temperature = json_num(root, "temperature", 1);
    if (temperature < 0 || temperature > 1)
        return sim_error_set(ret, "", "temperature: range: 0..1");
    request->stream = json_bool(root, "stream", false);
    request->stop = json_get(root, "stop_sequences");
    if (request->stop != NULL && !json_is_array(request->stop))
        return sim_error_set(ret, "", "stop_sequences: Input should be a valid list");
    if (json_get(root, "seed") != NULL)
        return sim_error_set(ret, "", "seed: Extra inputs are not permitted");
    if ((rc = parse_thinking(request, ret)) != 0)
        return rc;
    const json_t *format = json_path(root, "output_config.format");
    if (strcmp(json_str(format, "type", ""), "json_schema") == 0) {
        request->schema = json_get(format, "schema");
        if (!json_is_object(request->schema))
            return sim_error_set(ret, "", "output_config.format.schema: Field required");
    }
    return 0;
}

static void add_headers(const struct sim_answer *answer, struct buf *out)
{
    buf_printf(out, "request-id: req_sim%llu\nanthropic-organization-id: org-simulated\n",
               (unsigned long long)answer->seq);
    if (answer->limited)
        return;
    buf_add_str(out, "anthropic-ratelimit-requests-limit: 10000\n"
                     "anthropic-ratelimit-requests-remaining: 9999\n"
                     "anthropic-ratelimit-tokens-limit: 2000000\n"
                     "anthropic-ratelimit-tokens-remaining: 1999000\n"
                     "anthropic-ratelimit-requests-reset: ");
    sim_family_add_date(out, answer->created_s + 1, -1);
    buf_add_char(out, '\n');
}

static void add_usage(const struct sim_answer *answer, struct buf *out)
{
    const struct sim_request *request = answer->request;
    long long cached = request->cached_tokens, written = request->cache_write_tokens;
    long long thought = answer->output_tokens > 0 || answer->finished ? answer->thought_tokens : 0;
    buf_printf(out,
               "{\"input_tokens\":%lld,\"cache_creation_input_tokens\":%lld,"
               "\"cache_read_input_tokens\":%lld,\"cache_creation\":{"
               "\"ephemeral_5m_input_tokens\":%lld,\"ephemeral_1h_input_tokens\":0},"
               "\"output_tokens\":%lld,",
               (long long)request->prompt_tokens - cached - written, written, cached, written,
               (long long)answer->output_tokens + thought);
    if (answer->thought_tokens > 0)
        buf_printf(out, "\"output_tokens_details\":{\"thinking_tokens\":%lld},", thought);
    buf_add_str(out, "\"service_tier\":\"standard\"}");
}

/* `"stop_reason":...,"stop_sequence":...` */
static void add_stop(const struct sim_answer *answer, struct buf *out)
{
    const char *reason = answer->finish;
    bool stopped = answer->finished && reason == NULL && answer->stop[0] != '\0';
    if (reason == NULL)
        reason = answer->length ? "max_tokens" : stopped ? "stop_sequence" : "end_turn";
    buf_add_str(out, "\"stop_reason\":");
    sim_family_add_json(out, answer->finished ? reason : NULL);
    buf_add_str(out, ",\"stop_sequence\":");
    sim_family_add_json(out, stopped ? answer->stop : NULL);
    bool refused = answer->finished && strcmp(reason, "refusal") == 0;
    if (refused)
        buf_add_str(out, ",\"stop_details\":{\"type\":\"refusal\",\"category\":"
                         "\"general_harms\",\"explanation\":\"(simulated) I would rather not.\"}");
}

static void add_head(const struct sim_answer *answer, struct buf *out)
{
    buf_printf(out,
               "{\"id\":\"msg_sim%llu\",\"type\":\"message\",\"role\":\"assistant\",\"model\":",
               (unsigned long long)answer->seq);
    sim_family_add_json(out, answer->model);
}

static void add_whole(const struct sim_answer *answer, struct buf *out)
{
    add_head(answer, out);
    buf_add_str(out, ",\"content\":[");
    if (answer->thoughts[0] != '\0') {
        buf_add_str(out, "{\"type\":\"thinking\",\"thinking\":");
        sim_family_add_json(out, answer->thoughts);
        buf_add_str(out, ",\"signature\":\"c2ltdWxhdGVk\"},"
                         "{\"type\":\"redacted_thinking\",\"data\":\"c2ltdWxhdGVk\"},");
    }
    buf_add_str(out, "{\"type\":\"text\",\"text\":");
    buf_add_json(out, answer->text, answer->text_len);
    buf_add_str(out, "}],");
    add_stop(answer, out);
    buf_add_str(out, ",\"usage\":");
    add_usage(answer, out);
    buf_add_char(out, '}');
}

static void add_block(int index, const char *rest, struct buf *out)
{
    buf_printf(out,
               "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":%d,"
               "\"content_block\":{%s}}\n\n",
               index, rest);
}

static void add_block_stop(int index, struct buf *out)
{
    buf_printf(out,
               "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":%d}\n"
               "\n",
               index);
}

/* Two blocks that come before the text, of which one can't be read. */
static void add_thoughts(const struct sim_answer *answer, struct buf *out)
{
    add_block(0, "\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"", out);
    buf_add_str(out, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\","
                     "\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":");
    sim_family_add_json(out, answer->thoughts);
    buf_add_str(out, "}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\","
                     "\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":"
                     "\"c2ltdWxhdGVk\"}}\n\n");
    add_block_stop(0, out);
    add_block(1, "\"type\":\"redacted_thinking\",\"data\":\"c2ltdWxhdGVk\"", out);
    add_block_stop(1, out);
}

/* Of the block that holds the text. */
static int text_index(const struct sim_answer *answer)
{
    return answer->thoughts[0] != '\0' ? 2 : 0;
}

static void add_open(const struct sim_answer *answer, struct buf *out)
{
    buf_add_str(out, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
    add_head(answer, out);
    buf_add_str(out, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
    add_usage(answer, out);
    buf_add_str(out, "}}\n\n");
    if (answer->thoughts[0] != '\0')
        add_thoughts(answer, out);
    add_block(text_index(answer), "\"type\":\"text\",\"text\":\"\"", out);
    buf_add_str(out, "event: ping\ndata: {\"type\": \"ping\"}\n\n");
}

static void add_piece(const struct sim_answer *answer, const char *text, size_t len,
                      struct buf *out)
{
    buf_printf(out,
               "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":%d,"
               "\"delta\":{\"type\":\"text_delta\",\"text\":",
               text_index(answer));
    buf_add_json(out, text, len);
    buf_add_str(out, "}}\n\n");
}

static void add_close(const struct sim_answer *answer, struct buf *out)
{
    add_block_stop(text_index(answer), out);
    buf_add_str(out, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{");
    add_stop(answer, out);
    buf_add_str(out, "},\"usage\":");
    add_usage(answer, out);
    buf_add_str(out, "}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

/* The type that belongs to a status, where a scenario names one. */
static const char *error_type(const struct sim_error *error)
{
    static const struct {
        int status;
        const char *type;
    } types[] = {
        {401, "authentication_error"}, {402, "billing_error"},  {403, "permission_error"},
        {404, "not_found_error"},      {409, "conflict_error"}, {413, "request_too_large"},
        {429, "rate_limit_error"},     {504, "timeout_error"},  {529, "overloaded_error"},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (error->status == types[i].status)
            return types[i].type;
    return rows[error->kind].type;
}

static void add_body(const struct sim_request *request, const struct sim_error *error,
                     struct buf *out)
{
    struct buf message = {0};
    /* A spend limit comes as a rate limit, and only the details tell. */
    bool spend = error->kind == SIM_KIND_QUOTA && error->status == 429;
    sim_family_message(&message, request, error, &rows[error->kind]);
    buf_printf(out,
               "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", error_type(error));
    buf_add_json(out, message.data, message.len);
    buf_printf(out, ",\"details\":%s},\"request_id\":\"req_simulated\"}",
               spend ? "{\"error_code\":\"enforced_spend_limit_reached\"}" : "null");
    buf_release(&message);
}

static void write_error(const struct sim_request *request, const struct sim_error *error,
                        struct sim_failure *ret)
{
    double retry_s = sim_family_retry_s(error);
    ret->status = error->status != 0 ? error->status : rows[error->kind].status;
    ret->type = "application/json";
    buf_add_str(&ret->headers, "request-id: req_simulated\n");
    if (retry_s >= 0)
        buf_printf(&ret->headers, "retry-after: %.0f\n", ceil(retry_s));
    if (error->kind == SIM_KIND_RATE_LIMIT)
        buf_add_str(&ret->headers, "anthropic-ratelimit-requests-limit: 50\n"
                                   "anthropic-ratelimit-requests-remaining: 0\n");
    if (error->kind == SIM_KIND_RATE_LIMIT || error->kind == SIM_KIND_OVERLOADED ||
        error->kind == SIM_KIND_SERVER_ERROR)
        buf_add_str(&ret->headers, "x-should-retry: true\n");
    add_body(request, error, &ret->body);
}

static void add_stream_error(const struct sim_answer *answer, const struct sim_error *error,
                             struct buf *out)
{
    buf_add_str(out, "event: error\ndata: ");
    add_body(answer->request, error, out);
    buf_add_str(out, "\n\n");
}

const struct sim_family sim_family_anthropic = {
    .name = "anthropic",
    .stream_type = "text/event-stream; charset=utf-8",
    .opens_early = true,
    .parse = parse,
    .headers = add_headers,
    .whole = add_whole,
    .open = add_open,
    .piece = add_piece,
    .close = add_close,
    .error = write_error,
    .stream_error = add_stream_error,
};
