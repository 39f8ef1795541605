/* Ollama's native API (/api/chat). */
#include <string.h>

#include "common/clock.h"
#include "simulator/family.h"

/* clang-format off */
static const struct sim_error_row rows[SIM_KIND_COUNT] = {
    [SIM_KIND_RATE_LIMIT] = {429, "", NULL, "too many requests, please retry in {retry}s"},
    [SIM_KIND_QUOTA] = {429, "", NULL, "you have reached your weekly usage limit, upgrade for higher limits: https://ollama.com/upgrade"},
    [SIM_KIND_OVERLOADED] = {503, "", NULL, "server busy, please try again.  maximum pending requests exceeded"},
    [SIM_KIND_AUTH] = {401, "", NULL, "unauthorized"},
    [SIM_KIND_CONTEXT_TOO_LONG] = {400, "", NULL, "the input length exceeds the context length"},
    [SIM_KIND_BAD_REQUEST] = {400, "", NULL, "\"{model}\" does not support thinking"},
    [SIM_KIND_SERVER_ERROR] = {500, "", NULL, "llama runner process has terminated: CUDA error: out of memory"},
    [SIM_KIND_NO_MODEL] = {404, "", NULL, "model '{model}' not found, try pulling it first"},
    [SIM_KIND_NO_ROUTE] = {404, "", NULL, "404 page not found"},
    [SIM_KIND_NO_METHOD] = {405, "", NULL, "405 method not allowed"},
    [SIM_KIND_TOO_LARGE] = {413, "", NULL, "http: request body too large"},
};
/* clang-format on */

static int parse_messages(struct sim_request *request, struct sim_error *ret)
{
    const json_t *messages = json_get(request->root, "messages");
    if (messages == NULL || json_array_size(messages) == 0) {
        request->load_only = true;
        return 0;
    }
    size_t i;
    json_t *message;
    json_array_foreach (messages, i, message) {
        const char *role = json_str(message, "role", "");
        const json_t *content = json_get(message, "content");
        if (content != NULL && !json_is_string(content))
            return sim_error_set(ret, "",
                                 "json: cannot unmarshal %s into Go struct field "
                                 "ChatRequest.messages.content of type string",
                                 json_is_array(content) ? "array" : "object");
        if (content != NULL)
            sim_request_add_content(
                strcmp(role, "system") == 0 ? &request->system : &request->prompt, content);
    }
    return 0;
}

static int parse(struct sim_request *request, struct sim_error *ret)
{
    const json_t *root = request->root;
    const json_t *model = json_get(root, "model");
    if (!json_is_string(model) || json_string_length(model) == 0)
        return sim_error_set(ret, "", "model is required");
    int rc = parse_messages(request, ret);
    if (rc != 0)
        return rc;
    request->stream = json_bool(root, "stream", true);
    const json_t *limit = json_path(root, "options.num_predict");
    if (limit != NULL && !json_is_number(limit))
        return sim_error_set(ret, "", "option \"num_predict\" must be of type integer");
    int64_t tokens = json_int(json_get(root, "options"), "num_predict", -1);
    request->max_tokens = tokens > 0 ? tokens : 0;
    const json_t *format = json_get(root, "format");
    if (json_is_object(format))
        request->schema = format;
    else if (json_is_string(format) && strcmp(json_string_value(format), "json") == 0)
        request->json_mode = true;
    else if (json_is_string(format) && json_string_length(format) > 0)
        return sim_error_set(ret, "",
                             "invalid format: \"%.64s\"; expected \"json\" or a valid JSON Schema "
                             "object",
                             json_string_value(format));
    const json_t *keep = json_get(root, "keep_alive");
    request->unload = json_is_integer(keep) && json_integer_value(keep) == 0;
    return 0;
}

static void add_headers(const struct sim_answer *answer, struct buf *out)
{
    (void)answer, (void)out;
}

static void add_head(const struct sim_answer *answer, const char *text, size_t len, struct buf *out)
{
    buf_add_str(out, "{\"model\":");
    sim_family_add_json(out, answer->model);
    buf_add_str(out, ",\"created_at\":\"");
    int64_t now_ms = clock_wall_ms();
    sim_family_add_date(out, now_ms / 1000, (int)(now_ms % 1000));
    buf_add_str(out, "\",\"message\":{\"role\":\"assistant\",\"content\":");
    buf_add_json(out, text, len);
    buf_add_char(out, '}');
}

/* All metric fields are omitempty: a zero is not sent. */
static void add_metric(struct buf *out, const char *name, double value)
{
    if (value >= 1)
        buf_printf(out, ",\"%s\":%.0f", name, value);
}

static void add_tail(const struct sim_answer *answer, struct buf *out)
{
    const struct sim_request *request = answer->request;
    if (!answer->finished) {
        buf_add_str(out, ",\"done\":false}");
        return;
    }
    const char *reason = answer->length ? "length" : "stop";
    if (request->load_only)
        reason = request->unload ? "unload" : "load";
    buf_printf(out, ",\"done\":true,\"done_reason\":\"%s\"", reason);
    if (!request->load_only) {
        add_metric(out, "total_duration", answer->total_ms * 1e6);
        add_metric(out, "load_duration", answer->load_ms * 1e6);
        add_metric(out, "prompt_eval_count", (double)request->prompt_tokens);
        add_metric(out, "prompt_eval_duration", answer->prompt_ms * 1e6);
        add_metric(out, "eval_count", (double)answer->output_tokens);
        add_metric(out, "eval_duration", answer->decode_ms * 1e6);
    }
    buf_add_char(out, '}');
}

static void add_whole(const struct sim_answer *answer, struct buf *out)
{
    add_head(answer, answer->text, answer->text_len, out);
    add_tail(answer, out);
}

static void add_open(const struct sim_answer *answer, struct buf *out)
{
    (void)answer, (void)out; /* the first line is the first token */
}

static void add_piece(const struct sim_answer *answer, const char *text, size_t len,
                      struct buf *out)
{
    add_head(answer, text, len, out);
    buf_add_str(out, ",\"done\":false}\n");
}

static void add_close(const struct sim_answer *answer, struct buf *out)
{
    add_head(answer, "", 0, out);
    add_tail(answer, out);
    buf_add_char(out, '\n');
}

static void add_body(const struct sim_request *request, const struct sim_error *error,
                     struct buf *out)
{
    struct buf message = {0};
    sim_family_message(&message, request, error, &rows[error->kind]);
    buf_add_str(out, "{\"error\":");
    buf_add_json(out, message.data, message.len);
    buf_add_char(out, '}');
    buf_release(&message);
}

static void write_error(const struct sim_request *request, const struct sim_error *error,
                        struct sim_failure *ret)
{
    double retry_s = sim_family_retry_s(error);
    ret->status = error->status != 0 ? error->status : rows[error->kind].status;
    if (retry_s >= 0)
        buf_printf(&ret->headers, "Retry-After: %.0f\n", retry_s < 1 && retry_s > 0 ? 1 : retry_s);
    if (error->kind == SIM_KIND_NO_ROUTE || error->kind == SIM_KIND_NO_METHOD) {
        ret->type = "text/plain"; /* of the router under Ollama, not of Ollama */
        buf_add_str(&ret->body, rows[error->kind].message);
        return;
    }
    ret->type = "application/json; charset=utf-8";
    add_body(request, error, &ret->body);
}

static void add_stream_error(const struct sim_answer *answer, const struct sim_error *error,
                             struct buf *out)
{
    add_body(answer->request, error, out);
    buf_add_char(out, '\n');
}

const struct sim_family sim_family_ollama = {
    .name = "ollama",
    .stream_type = "application/x-ndjson",
    .waits_for_headers = true,
    .parse = parse,
    .headers = add_headers,
    .whole = add_whole,
    .open = add_open,
    .piece = add_piece,
    .close = add_close,
    .error = write_error,
    .stream_error = add_stream_error,
};
