/* LM Studio's native API. Errors before the stream are those of its compatible one. */
#include <errno.h>
#include <string.h>

#include "simulator/family_openai.h"

/* --- requests ------------------------------------------------------------------------------ */

static const char *const known[] = {"model",          "input",        "system_prompt",
                                    "stream",         "temperature",  "top_p",
                                    "top_k",          "min_p",        "repeat_penalty",
                                    "reasoning",      "store",        "max_output_tokens",
                                    "context_length", "integrations", "previous_response_id"};

static bool is_known(const char *name)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i], name) == 0)
            return true;
    return false;
}

static int parse_input(struct sim_request *request, struct sim_error *ret)
{
    const json_t *input = json_get(request->root, "input");
    size_t i;
    json_t *part;
    if (json_is_string(input)) {
        sim_request_add_content(&request->prompt, input);
        return 0;
    }
    if (!json_is_array(input))
        return sim_error_set(ret, "input", "Invalid input: 'input' is required");
    json_array_foreach (input, i, part) {
        const char *text = json_str(part, "content", NULL);
        if (text != NULL)
            sim_request_add_text(&request->prompt, text, strlen(text));
        else if (json_str(part, "data_url", NULL) != NULL)
            request->images++;
        else
            return sim_error_set(ret, "input", "Invalid input: unknown part of 'input'");
    }
    return 0;
}

static int parse(struct sim_request *request, struct sim_error *ret)
{
    const char *name, *system = json_str(request->root, "system_prompt", "");
    json_t *value;
    json_object_foreach (request->root, name, value)
        if (!is_known(name))
            return sim_error_set(ret, name, "Unrecognized key(s) in object: '%.64s'", name);
    if (!json_is_string(json_get(request->root, "model")))
        return sim_error_set(ret, "model", "Invalid input: 'model' is required");
    if (system[0] != '\0')
        sim_request_add_text(&request->system, system, strlen(system));
    const char *reasoning = json_str(request->root, "reasoning", "off");
    request->thinks = strcmp(reasoning, "off") != 0;
    request->stream = json_bool(request->root, "stream", false);
    request->max_tokens = json_int(request->root, "max_output_tokens", 0);
    if (request->max_tokens < 0)
        return sim_error_set(ret, "max_output_tokens", "Invalid input: below zero");
    return parse_input(request, ret);
}

/* --- answers ------------------------------------------------------------------------------- */

static void add_headers(const struct sim_answer *answer, struct buf *out)
{
    (void)answer;
    (void)out;
}

static void add_stats(const struct sim_answer *answer, struct buf *out)
{
    long long output = answer->output_tokens + answer->thought_tokens;
    double rate = answer->decode_ms > 0 ? (double)output * 1000 / answer->decode_ms : 0;
    buf_printf(out,
               "{\"input_tokens\":%lld,\"total_output_tokens\":%lld,\"reasoning_output_tokens\":"
               "%lld,\"tokens_per_second\":%.6f,\"time_to_first_token_seconds\":%.6f",
               (long long)answer->request->prompt_tokens, output, (long long)answer->thought_tokens,
               rate, answer->prompt_ms / 1000);
    if (answer->load_ms > 0)
        buf_printf(out, ",\"model_load_time_seconds\":%.6f", answer->load_ms / 1000);
    buf_add_char(out, '}');
}

/* Without its end there are no figures. */
static void add_whole(const struct sim_answer *answer, struct buf *out)
{
    buf_add_str(out, "{\"model_instance_id\":");
    sim_family_add_json(out, answer->model);
    buf_add_str(out, ",\"output\":[");
    if (answer->thoughts[0] != '\0') {
        buf_add_str(out, "{\"type\":\"reasoning\",\"content\":");
        sim_family_add_json(out, answer->thoughts);
        buf_add_str(out, "},");
    }
    buf_add_str(out, "{\"type\":\"message\",\"content\":");
    buf_add_json(out, answer->text, answer->text_len);
    buf_add_str(out, "}]");
    if (answer->finished) {
        buf_add_str(out, ",\"stats\":");
        add_stats(answer, out);
    }
    buf_printf(out, ",\"response_id\":\"resp_sim%llu\"}", (unsigned long long)answer->seq);
}

/* --- streams ------------------------------------------------------------------------------- */

static void event_start(const char *type, struct buf *out)
{
    buf_printf(out, "event: %s\ndata: {\"type\":\"%s\"", type, type);
}

static void add_plain(const char *type, struct buf *out)
{
    event_start(type, out);
    buf_add_str(out, "}\n\n");
}

static void add_instance(const char *type, const struct sim_answer *answer, struct buf *out)
{
    event_start(type, out);
    buf_add_str(out, ",\"model_instance_id\":");
    sim_family_add_json(out, answer->model);
}

static void add_open(const struct sim_answer *answer, struct buf *out)
{
    add_instance("chat.start", answer, out);
    buf_add_str(out, "}\n\n");
    if (answer->load_ms > 0) {
        add_instance("model_load.start", answer, out);
        buf_add_str(out, "}\n\n");
        add_instance("model_load.end", answer, out);
        buf_printf(out, ",\"load_time_seconds\":%.6f}\n\n", answer->load_ms / 1000);
    }
    add_plain("prompt_processing.start", out);
    add_plain("prompt_processing.end", out);
    if (answer->thoughts[0] != '\0') {
        add_plain("reasoning.start", out);
        event_start("reasoning.delta", out);
        buf_add_str(out, ",\"content\":");
        sim_family_add_json(out, answer->thoughts);
        buf_add_str(out, "}\n\n");
        add_plain("reasoning.end", out);
    }
    add_plain("message.start", out);
}

static void add_piece(const struct sim_answer *answer, const char *text, size_t len,
                      struct buf *out)
{
    (void)answer;
    event_start("message.delta", out);
    buf_add_str(out, ",\"content\":");
    buf_add_json(out, text, len);
    buf_add_str(out, "}\n\n");
}

static void add_end(const struct sim_answer *answer, struct buf *out)
{
    event_start("chat.end", out);
    buf_add_str(out, ",\"result\":");
    add_whole(answer, out);
    buf_add_str(out, "}\n\n");
}

static void add_close(const struct sim_answer *answer, struct buf *out)
{
    add_plain("message.end", out);
    add_end(answer, out);
}

/* The end still comes behind an error, as if all were well. */
static void add_stream_error(const struct sim_answer *answer, const struct sim_error *error,
                             struct buf *out)
{
    const struct sim_error_row *row = sim_openai_error_row(answer->request, error);
    struct sim_answer ended = *answer;
    struct buf message = {0};
    sim_family_message(&message, answer->request, error, row);
    buf_printf(out,
               "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":",
               row->type);
    buf_add_json(out, message.data, message.len);
    buf_add_str(out, ",\"code\":");
    sim_family_add_json(out, row->code);
    buf_add_str(out, "}}\n\n");
    ended.finished = true;
    add_end(&ended, out);
    buf_release(&message);
}

const struct sim_family sim_family_lmstudio = {
    .name = "lmstudio",
    .base = &sim_family_openai,
    .stream_type = "text/event-stream; charset=utf-8",
    .opens_early = true,
    .parse = parse,
    .headers = add_headers,
    .whole = add_whole,
    .open = add_open,
    .piece = add_piece,
    .close = add_close,
    .error = sim_openai_error,
    .stream_error = add_stream_error,
};
