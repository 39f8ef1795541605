/* Ollama's native API (/api/chat). */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "common/clock.h"
#include "simulator/family.h"
#include "simulator/vectors.h"

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

static bool is_base64(const char *text)
{
    size_t len = strlen(text), plain = 0;
    while (isalnum((unsigned char)text[plain]) || text[plain] == '+' || text[plain] == '/')
        plain++;
    return len > 0 && len % 4 == 0 && len - plain <= 2 && strspn(text + plain, "=") == len - plain;
}

static int parse_images(struct sim_request *request, const json_t *message, struct sim_error *ret)
{
    size_t i;
    json_t *image;
    json_array_foreach (json_get(message, "images"), i, image) {
        if (!json_is_string(image) || !is_base64(json_string_value(image)))
            return sim_error_set(ret, "", "illegal base64 data at input byte 4");
        request->images++;
    }
    return 0;
}

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
        int rc = parse_images(request, message, ret);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* A number of seconds, or Go's text of a duration, which needs a unit. */
static int parse_keep_alive(struct sim_request *request, struct sim_error *ret)
{
    const json_t *keep = json_get(request->root, "keep_alive");
    const char *text = json_string_value(keep);
    request->unload = json_is_integer(keep) && json_integer_value(keep) == 0;
    if (text == NULL)
        return 0;
    size_t len = strlen(text);
    if (len == 0 || strchr("smh", text[len - 1]) == NULL)
        return sim_error_set(ret, "", "time: missing unit in duration \"%.64s\"", text);
    return 0;
}

static int parse_think(struct sim_request *request, struct sim_error *ret)
{
    const json_t *think = json_get(request->root, "think");
    const char *level = json_string_value(think);
    request->thinks = json_is_true(think) || level != NULL;
    if (level != NULL && strncmp(request->model, "gpt-oss", 7) != 0)
        return sim_error_set(ret, "", "think value \"%.32s\" is not supported for this model",
                             level);
    return 0;
}

/* /api/embed: one text or several. */
static int parse_embed(struct sim_request *request, struct sim_error *ret)
{
    const json_t *input = json_get(request->root, "input");
    size_t i;
    json_t *text;
    if (!json_is_string(input) && !json_is_array(input))
        return sim_error_set(ret, "", "invalid input type");
    json_array_foreach (input, i, text)
        if (!json_is_string(text))
            return sim_error_set(ret, "", "invalid input type");
    json_array_foreach (input, i, text)
        sim_request_add_content(&request->prompt, text);
    if (json_is_string(input))
        sim_request_add_content(&request->prompt, input);
    request->dimensions = json_int(request->root, "dimensions", 0);
    if (request->dimensions < 0 || request->dimensions > SIM_VECTORS_MAX_DIMENSIONS)
        return sim_error_set(ret, "", "dimensions must be between 0 and %d",
                             SIM_VECTORS_MAX_DIMENSIONS);
    request->embed = true;
    request->inputs = input;
    return parse_keep_alive(request, ret);
}

/* The options that a model is loaded with have types of their own. */
static int parse_options(struct sim_request *request, struct sim_error *ret)
{
    static const char *const integers[] = {"num_predict", "num_ctx", "seed", "num_gpu"};
    const json_t *options = json_get(request->root, "options");
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        const json_t *option = json_get(options, integers[i]);
        if (option != NULL && !json_is_number(option))
            return sim_error_set(ret, "", "option \"%s\" must be of type integer", integers[i]);
    }
    int64_t tokens = json_int(options, "num_predict", -1);
    request->max_tokens = tokens > 0 ? tokens : 0;
    request->stop = json_get(options, "stop");
    return 0;
}

static int parse(struct sim_request *request, struct sim_error *ret)
{
    const json_t *root = request->root;
    const json_t *model = json_get(root, "model");
    if (!json_is_string(model) || json_string_length(model) == 0)
        return sim_error_set(ret, "", "model is required");
    if (strcmp(request->path, "/api/embed") == 0)
        return parse_embed(request, ret);
    int rc = parse_messages(request, ret);
    if (rc != 0)
        return rc;
    request->stream = json_bool(root, "stream", true);
    if ((rc = parse_options(request, ret)) != 0 || (rc = parse_think(request, ret)) != 0)
        return rc;
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
    return parse_keep_alive(request, ret);
}

static void add_headers(const struct sim_answer *answer, struct buf *out)
{
    (void)answer, (void)out;
}

/* thoughts: NULL for none. */
static void add_head(const struct sim_answer *answer, const char *text, size_t len,
                     const char *thoughts, struct buf *out)
{
    buf_add_str(out, "{\"model\":");
    sim_family_add_json(out, answer->model);
    buf_add_str(out, ",\"created_at\":\"");
    int64_t now_ms = clock_wall_ms();
    sim_family_add_date(out, now_ms / 1000, (int)(now_ms % 1000));
    buf_add_str(out, "\",\"message\":{\"role\":\"assistant\",\"content\":");
    buf_add_json(out, text, len);
    if (thoughts != NULL && thoughts[0] != '\0') {
        buf_add_str(out, ",\"thinking\":");
        sim_family_add_json(out, thoughts);
    }
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
    if (answer->finish != NULL)
        reason = answer->finish;
    buf_add_str(out, ",\"done\":true");
    if (reason[0] != '\0') { /* it may be missing */
        buf_add_str(out, ",\"done_reason\":");
        sim_family_add_json(out, reason);
    }
    if (!request->load_only) {
        add_metric(out, "total_duration", answer->total_ms * 1e6);
        add_metric(out, "load_duration", answer->load_ms * 1e6);
        add_metric(out, "prompt_eval_count", (double)request->prompt_tokens);
        add_metric(out, "prompt_eval_duration", answer->prompt_ms * 1e6);
        add_metric(out, "eval_count", (double)(answer->output_tokens + answer->thought_tokens));
        add_metric(out, "eval_duration", answer->decode_ms * 1e6);
    }
    buf_add_char(out, '}');
}

/* The vectors lie in the text, one a line. */
static void add_vectors(const struct sim_answer *answer, struct buf *out)
{
    const char *at = answer->text, *end = at + answer->text_len, *vector;
    size_t len;
    buf_add_str(out, "{\"model\":");
    sim_family_add_json(out, answer->model);
    buf_add_str(out, ",\"embeddings\":[");
    for (bool any = false; (vector = sim_vectors_next(&at, end, &len)) != NULL; any = true) {
        if (any)
            buf_add_char(out, ',');
        buf_add(out, vector, len);
    }
    buf_add_char(out, ']');
    add_metric(out, "total_duration", answer->total_ms * 1e6);
    add_metric(out, "load_duration", answer->load_ms * 1e6);
    add_metric(out, "prompt_eval_count", (double)answer->request->prompt_tokens);
    buf_add_char(out, '}');
}

static void add_whole(const struct sim_answer *answer, struct buf *out)
{
    if (answer->request->embed) {
        add_vectors(answer, out);
        return;
    }
    add_head(answer, answer->text, answer->text_len, answer->thoughts, out);
    add_tail(answer, out);
}

/* The first line is the first thought, or else the first token. */
static void add_open(const struct sim_answer *answer, struct buf *out)
{
    if (answer->thoughts[0] == '\0')
        return;
    add_head(answer, "", 0, answer->thoughts, out);
    buf_add_str(out, ",\"done\":false}\n");
}

static void add_piece(const struct sim_answer *answer, const char *text, size_t len,
                      struct buf *out)
{
    add_head(answer, text, len, NULL, out);
    buf_add_str(out, ",\"done\":false}\n");
}

static void add_close(const struct sim_answer *answer, struct buf *out)
{
    add_head(answer, "", 0, NULL, out);
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
        buf_printf(&ret->headers, "Retry-After: %.0f\n", ceil(retry_s));
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
