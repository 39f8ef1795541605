/* OpenAI's Responses API. Errors before the stream are those of chat completions. */
#include <errno.h>
#include <string.h>

#include "simulator/family_openai.h"

/* --- requests ------------------------------------------------------------------------------ */

/* What chat completions have and this API has not. */
static const char *const unknown[] = {"messages",
                                      "stop",
                                      "seed",
                                      "max_tokens",
                                      "max_completion_tokens",
                                      "response_format",
                                      "n",
                                      "reasoning_effort"};

static int parse_content(struct sim_request *request, const json_t *item, size_t i,
                         struct sim_error *ret)
{
    const char *role = json_str(item, "role", NULL);
    const json_t *content = json_get(item, "content"), *part;
    size_t k;
    if (role == NULL)
        return sim_error_set(ret, "input", "Missing required parameter: 'input[%zu].role'.", i);
    bool system = strcmp(role, "system") == 0 || strcmp(role, "developer") == 0;
    json_array_foreach (content, k, part) {
        const char *type = json_str(part, "type", "");
        if (strcmp(type, "input_image") == 0 && json_str(part, "image_url", "")[0] != '\0')
            request->images++;
        else if (strcmp(type, "input_text") != 0 && strcmp(type, "output_text") != 0)
            return sim_error_set(ret, "input",
                                 "Invalid value: '%.32s'. Supported values are: 'input_text', "
                                 "'input_image', 'output_text'.",
                                 type);
    }
    if (content == NULL ||
        !sim_request_add_content(system ? &request->system : &request->prompt, content))
        return sim_error_set(ret, "input", "Invalid type for 'input[%zu].content'.", i);
    return 0;
}

static int parse_input(struct sim_request *request, struct sim_error *ret)
{
    const json_t *input = json_get(request->root, "input");
    const char *instructions = json_str(request->root, "instructions", "");
    size_t i;
    json_t *item;
    if (instructions[0] != '\0')
        sim_request_add_text(&request->system, instructions, strlen(instructions));
    if (json_is_string(input)) {
        sim_request_add_content(&request->prompt, input);
        return 0;
    }
    if (!json_is_array(input) || json_array_size(input) == 0)
        return sim_error_set(ret, "input", "Missing required parameter: 'input'.");
    json_array_foreach (input, i, item) {
        int rc = parse_content(request, item, i, ret);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int parse_format(struct sim_request *request, struct sim_error *ret)
{
    const json_t *format = json_path(request->root, "text.format");
    const char *type = json_str(format, "type", "text");
    if (strcmp(type, "json_schema") != 0)
        return 0;
    if (json_str(format, "name", NULL) == NULL)
        return sim_error_set(ret, "text.format.name",
                             "Missing required parameter: 'text.format.name'.");
    request->schema = json_get(format, "schema");
    if (!json_is_object(request->schema))
        return sim_error_set(ret, "text.format.schema",
                             "Missing required parameter: 'text.format.schema'.");
    return 0;
}

static int parse(struct sim_request *request, struct sim_error *ret)
{
    const json_t *root = request->root;
    if (!json_is_string(json_get(root, "model")))
        return sim_error_set(ret, "model", "Missing required parameter: 'model'.");
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        if (json_get(root, unknown[i]) != NULL)
            return sim_error_set(ret, unknown[i], "Unknown parameter: '%s'.", unknown[i]);
    const json_t *limit = json_get(root, "max_output_tokens");
    if (json_is_integer(limit) && json_integer_value(limit) < 16)
        return sim_error_set(ret, "max_output_tokens",
                             "Invalid 'max_output_tokens': integer below minimum value. Expected a "
                             "value >= 16, but got %lld instead.",
                             (long long)json_integer_value(limit));
    request->max_tokens = json_is_integer(limit) ? json_integer_value(limit) : 0;
    request->stream = json_bool(root, "stream", false);
    const char *effort = json_str(json_get(root, "reasoning"), "effort", "none");
    request->thinks = strcmp(effort, "none") != 0;
    int rc = parse_input(request, ret);
    return rc != 0 ? rc : parse_format(request, ret);
}

/* --- answers ------------------------------------------------------------------------------- */

static void add_usage(const struct sim_answer *answer, struct buf *out)
{
    const struct sim_request *request = answer->request;
    long long prompt = request->prompt_tokens;
    long long output = answer->output_tokens + answer->thought_tokens;
    buf_printf(out,
               "{\"input_tokens\":%lld,\"input_tokens_details\":{\"cached_tokens\":%lld,"
               "\"cache_write_tokens\":%lld},\"output_tokens\":%lld,\"output_tokens_details\":"
               "{\"reasoning_tokens\":%lld},\"total_tokens\":%lld}",
               prompt, (long long)request->cached_tokens, (long long)request->cache_write_tokens,
               output, (long long)answer->thought_tokens, prompt + output);
}

static const char *status_of(const struct sim_answer *answer)
{
    return !answer->finished ? "in_progress" : answer->length ? "incomplete" : "completed";
}

static void add_output(const struct sim_answer *answer, struct buf *out)
{
    unsigned long long seq = answer->seq;
    buf_add_char(out, '[');
    if (answer->thoughts[0] != '\0')
        buf_printf(out, "{\"type\":\"reasoning\",\"id\":\"rs_sim%llu\",\"summary\":[]},", seq);
    buf_printf(out,
               "{\"type\":\"message\",\"id\":\"msg_sim%llu\",\"role\":\"assistant\",\"status\":"
               "\"%s\",\"content\":[{\"type\":\"output_text\",\"text\":",
               seq, status_of(answer));
    buf_add_json(out, answer->text, answer->text_len);
    buf_add_str(out, ",\"annotations\":[]}]}]");
}

/* The response object; while it runs, without output and usage. */
static void add_response(const struct sim_answer *answer, const char *status, bool whole,
                         struct buf *out)
{
    buf_printf(out,
               "{\"id\":\"resp_sim%llu\",\"object\":\"response\",\"created_at\":%lld,\"status\":"
               "\"%s\",\"error\":null,\"incomplete_details\":%s,\"model\":",
               (unsigned long long)answer->seq, (long long)answer->created_s, status,
               strcmp(status, "incomplete") == 0 ? "{\"reason\":\"max_output_tokens\"}" : "null");
    sim_family_add_json(out, answer->model);
    buf_add_str(out, ",\"store\":false,\"output\":");
    if (!whole) {
        buf_add_str(out, "[],\"usage\":null}");
        return;
    }
    add_output(answer, out);
    buf_add_str(out, ",\"usage\":");
    add_usage(answer, out);
    buf_add_char(out, '}');
}

static void add_whole(const struct sim_answer *answer, struct buf *out)
{
    add_response(answer, status_of(answer), true, out);
}

/* --- streams ------------------------------------------------------------------------------- */

#define FIRST_SEQUENCE 4 /* of the text's pieces, behind what open() writes */

static void event_start(const char *type, int64_t sequence, struct buf *out)
{
    buf_printf(out, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%lld", type, type,
               (long long)sequence);
}

static void add_place(const struct sim_answer *answer, struct buf *out)
{
    buf_printf(out, ",\"item_id\":\"msg_sim%llu\",\"output_index\":0,\"content_index\":0",
               (unsigned long long)answer->seq);
}

static void add_open(const struct sim_answer *answer, struct buf *out)
{
    static const char *const heads[] = {"response.created", "response.in_progress"};
    for (int i = 0; i < 2; i++) {
        event_start(heads[i], i, out);
        buf_add_str(out, ",\"response\":");
        add_response(answer, "in_progress", false, out);
        buf_add_str(out, "}\n\n");
    }
    event_start("response.output_item.added", 2, out);
    buf_printf(out,
               ",\"output_index\":0,\"item\":{\"type\":\"message\",\"id\":\"msg_sim%llu\","
               "\"role\":\"assistant\",\"status\":\"in_progress\",\"content\":[]}}\n\n",
               (unsigned long long)answer->seq);
    event_start("response.content_part.added", 3, out);
    add_place(answer, out);
    buf_add_str(out, ",\"part\":{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[]}}\n\n");
}

static void add_piece(const struct sim_answer *answer, const char *text, size_t len,
                      struct buf *out)
{
    event_start("response.output_text.delta", FIRST_SEQUENCE + answer->output_tokens - 1, out);
    add_place(answer, out);
    buf_add_str(out, ",\"delta\":");
    buf_add_json(out, text, len);
    buf_add_str(out, ",\"logprobs\":[]}\n\n");
}

static void add_close(const struct sim_answer *answer, struct buf *out)
{
    int64_t sequence = FIRST_SEQUENCE + answer->output_tokens;
    event_start("response.output_text.done", sequence++, out);
    add_place(answer, out);
    buf_add_str(out, ",\"text\":");
    buf_add_json(out, answer->text, answer->text_len);
    buf_add_str(out, "}\n\n");
    event_start(answer->length ? "response.incomplete" : "response.completed", sequence, out);
    buf_add_str(out, ",\"response\":");
    add_response(answer, status_of(answer), true, out);
    buf_add_str(out, "}\n\n");
}

/* A server's own failure ends the response as failed; others are an event "error", which is flat.
 */
static void add_stream_error(const struct sim_answer *answer, const struct sim_error *error,
                             struct buf *out)
{
    const struct sim_error_row *row = sim_openai_error_row(answer->request, error);
    int64_t sequence = FIRST_SEQUENCE + answer->output_tokens;
    bool fails = error->kind == SIM_KIND_SERVER_ERROR;
    struct buf message = {0};
    sim_family_message(&message, answer->request, error, row);
    event_start(fails ? "response.failed" : "error", sequence, out);
    if (fails)
        buf_printf(out, ",\"response\":{\"id\":\"resp_sim%llu\",\"status\":\"failed\",\"error\":{",
                   (unsigned long long)answer->seq);
    buf_printf(out, "%s\"code\":", fails ? "" : ",");
    sim_family_add_json(out, row->code != NULL ? row->code : row->type);
    buf_add_str(out, ",\"message\":");
    buf_add_json(out, message.data, message.len);
    buf_add_str(out, fails ? "},\"output\":[]}}\n\n" : ",\"param\":null}\n\n");
    buf_release(&message);
}

const struct sim_family sim_family_responses = {
    .name = "responses",
    .base = &sim_family_openai,
    .stream_type = "text/event-stream; charset=utf-8",
    .opens_early = true,
    .parse = parse,
    .headers = sim_openai_headers,
    .whole = add_whole,
    .open = add_open,
    .piece = add_piece,
    .close = add_close,
    .error = sim_openai_error,
    .stream_error = add_stream_error,
};
