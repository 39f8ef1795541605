/* OpenAI's chat completions, and the accents of the servers that speak them. Shapes as of the
 * vendors' references; errors are in family_openai_errors.c. */
#include "simulator/family_openai.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* How the servers differ in what they send on success. */
struct dialect {
    const char *data;        /* start of a stream's line */
    const char *fingerprint; /* system_fingerprint; NULL: not sent */
    const char *id;          /* prefix of ids */
    const char *first;       /* content of the first chunk's delta */
    bool details;            /* usage has the *_details objects */
    bool stop_reason;        /* choices have stop_reason (vLLM) */
    bool timings;            /* llama.cpp's */
    bool obfuscates;         /* pads chunks unless told not to */
    bool stats;              /* LM Studio's empty "stats" in whole answers */
    const char *reasoning;   /* member that holds thoughts; NULL: they are only counted */
};

static const struct dialect dialects[SIM_DIALECT_COUNT] = {
    [SIM_DIALECT_OPENAI] = {.data = "data: ",
                            .fingerprint = "fp_simulated",
                            .id = "chatcmpl-",
                            .first = "\"\"",
                            .details = true,
                            .obfuscates = true},
    [SIM_DIALECT_HUGGINGFACE] =
        {.data = "data: ", .id = "chatcmpl-", .first = "\"\"", .reasoning = "reasoning"},
    [SIM_DIALECT_LMSTUDIO] = {.data = "data: ",
                              .fingerprint = "simulated",
                              .id = "chatcmpl-",
                              .first = "\"\"",
                              .stats = true,
                              .reasoning = "reasoning"},
    [SIM_DIALECT_VLLM] = {.data = "data: ",
                          .fingerprint = "vllm-0.28.0-tp1-51300000",
                          .id = "chatcmpl-",
                          .first = "\"\"",
                          .stop_reason = true,
                          .reasoning = "reasoning"},
    [SIM_DIALECT_LLAMACPP] = {.data = "data: ",
                              .fingerprint = "b10600-simulated",
                              .id = "chatcmpl-",
                              .first = "null",
                              .timings = true,
                              .reasoning = "reasoning_content"},
    [SIM_DIALECT_TGI] =
        {.data = "data:", .fingerprint = "3.3.6-simulated", .id = "", .first = "\"\""},
};

static const struct dialect *accent(const struct sim_answer *answer)
{
    return &dialects[answer->request->dialect];
}

/* --- requests ------------------------------------------------------------------------------ */

/* Images by URL or as data, checked and counted. */
static int parse_images(struct sim_request *request, const json_t *content, size_t message,
                        struct sim_error *ret)
{
    size_t i;
    json_t *part;
    json_array_foreach (content, i, part) {
        if (strcmp(json_str(part, "type", ""), "image_url") != 0)
            continue;
        const char *url = json_str(json_get(part, "image_url"), "url", "");
        bool data = strncmp(url, "data:image/", 11) == 0 && strstr(url, ";base64,") != NULL;
        if (!data && strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
            return sim_error_set(ret, "messages",
                                 "Invalid 'messages[%zu].content[%zu].image_url.url'. Expected a "
                                 "base64-encoded data URL with an image MIME type, or a URL.",
                                 message, i);
        request->images++;
    }
    return 0;
}

static int parse_messages(struct sim_request *request, struct sim_error *ret)
{
    const json_t *messages = json_get(request->root, "messages");
    if (messages == NULL)
        return sim_error_set(ret, "messages", "Missing required parameter: 'messages'.");
    if (!json_is_array(messages))
        return sim_error_set(ret, "messages",
                             "Invalid type for 'messages': expected an array of objects.");
    if (json_array_size(messages) == 0)
        return sim_error_set(ret, "messages",
                             "Invalid 'messages': empty array. Expected an array with minimum "
                             "length 1, but got an empty array instead.");
    size_t i;
    json_t *message;
    json_array_foreach (messages, i, message) {
        const char *role = json_str(message, "role", NULL);
        if (role == NULL)
            return sim_error_set(ret, "messages",
                                 "Missing required parameter: 'messages[%zu].role'.", i);
        bool system = strcmp(role, "system") == 0 || strcmp(role, "developer") == 0;
        const json_t *content = json_get(message, "content");
        if (content == NULL && json_get(message, "tool_calls") == NULL)
            return sim_error_set(ret, "messages",
                                 "Missing required parameter: 'messages[%zu].content'.", i);
        int rc = parse_images(request, content, i, ret);
        if (rc != 0)
            return rc;
        if (content != NULL &&
            !sim_request_add_content(system ? &request->system : &request->prompt, content))
            return sim_error_set(ret, "messages",
                                 "Invalid type for 'messages[%zu].content': expected one of a "
                                 "string or array of objects.",
                                 i);
    }
    return 0;
}

static bool has_json_word(const struct buf *buf)
{
    return buf->data != NULL && strcasestr(buf->data, "json") != NULL;
}

static int parse_format(struct sim_request *request, struct sim_error *ret)
{
    const json_t *format = json_get(request->root, "response_format");
    const char *type = json_str(format, "type", "text");
    if (strcmp(type, "json_schema") == 0) {
        request->schema = json_path(format, "json_schema.schema");
        if (request->schema == NULL && request->dialect != SIM_DIALECT_OPENAI)
            request->schema = json_get(format, "json_schema"); /* the schema directly */
        if (!json_is_object(request->schema))
            return sim_error_set(ret, "response_format",
                                 "Missing required parameter: 'response_format.json_schema'.");
        if (request->dialect == SIM_DIALECT_OPENAI &&
            json_str(json_get(format, "json_schema"), "name", NULL) == NULL)
            return sim_error_set(ret, "response_format.json_schema.name",
                                 "Missing required parameter: 'response_format.json_schema.name'.");
    } else if (strcmp(type, "json_object") == 0) {
        request->json_mode = true;
        request->schema = json_get(format, "schema");
        if (request->dialect == SIM_DIALECT_OPENAI && !has_json_word(&request->system) &&
            !has_json_word(&request->prompt))
            return sim_error_set(ret, "messages",
                                 "'messages' must contain the word 'json' in some form, to use "
                                 "'response_format' of type 'json_object'.");
    } else if (strcmp(type, "json") == 0 && request->dialect == SIM_DIALECT_TGI) {
        request->schema = json_get(format, "value");
    }
    return 0;
}

static int parse_limits(struct sim_request *request, struct sim_error *ret)
{
    const json_t *old = json_get(request->root, "max_tokens");
    const json_t *new = json_get(request->root, "max_completion_tokens");
    if (request->dialect == SIM_DIALECT_OPENAI && old != NULL && new != NULL)
        return sim_error_set(ret, "max_tokens",
                             "Setting 'max_tokens' and 'max_completion_tokens' at the same time is "
                             "not supported.");
    const json_t *limit = new != NULL ? new : old;
    if (limit == NULL || json_is_null(limit))
        return 0;
    if (!json_is_integer(limit))
        return sim_error_set(ret, "max_tokens",
                             "Invalid type for 'max_tokens': expected an integer.");
    request->max_tokens = json_integer_value(limit);
    bool unlimited = request->max_tokens == -1 && request->dialect != SIM_DIALECT_OPENAI;
    if (request->max_tokens < 1 && !unlimited)
        return sim_error_set(ret, "max_tokens",
                             "Invalid 'max_tokens': integer below minimum value. Expected a value "
                             ">= 1, but got %lld instead.",
                             (long long)request->max_tokens);
    if (unlimited)
        request->max_tokens = 0;
    return 0;
}

/* Strings that end the answer, seed and effort. */
static int parse_options(struct sim_request *request, struct sim_error *ret)
{
    const json_t *root = request->root, *seed = json_get(root, "seed");
    bool strict = request->dialect == SIM_DIALECT_OPENAI ||
                  request->dialect == SIM_DIALECT_HUGGINGFACE ||
                  request->dialect == SIM_DIALECT_TGI;
    request->stop = json_get(root, "stop");
    if (strict && json_is_array(request->stop) && json_array_size(request->stop) > 4)
        return sim_error_set(ret, "stop",
                             "Invalid 'stop': array too long. Expected an array with maximum "
                             "length 4, but got an array with length %zu instead.",
                             json_array_size(request->stop));
    if (seed != NULL && !json_is_null(seed) && !json_is_integer(seed))
        return sim_error_set(ret, "seed", "Invalid type for 'seed': expected an integer.");
    request->thinks = strcmp(json_str(root, "reasoning_effort", "none"), "none") != 0;
    return 0;
}

static int parse(struct sim_request *request, struct sim_error *ret)
{
    const json_t *root = request->root;
    if (request->embed)
        return sim_openai_embed_parse(request, ret);
    if (!json_is_string(json_get(root, "model")))
        return sim_error_set(ret, "", "you must provide a model parameter");
    int rc = parse_messages(request, ret);
    if (rc != 0 || (rc = parse_limits(request, ret)) != 0 ||
        (rc = parse_format(request, ret)) != 0 || (rc = parse_options(request, ret)) != 0)
        return rc;
    double temperature = json_num(root, "temperature", 1);
    if (temperature < 0 || temperature > 2)
        return sim_error_set(ret, "temperature",
                             "Invalid 'temperature': decimal out of range. Expected a value "
                             "between 0 and 2, but got %g instead.",
                             temperature);
    const json_t *options = json_get(root, "stream_options");
    request->stream = json_bool(root, "stream", false);
    request->include_usage = json_bool(options, "include_usage", false);
    request->obfuscate =
        dialects[request->dialect].obfuscates && json_bool(options, "include_obfuscation", true);
    if (request->dialect == SIM_DIALECT_LLAMACPP)
        request->ping_ms = 1000 * json_int(root, "sse_ping_interval", 0);
    return 0;
}

/* --- answers ------------------------------------------------------------------------------- */

void sim_openai_headers(const struct sim_answer *answer, struct buf *out)
{
    enum sim_dialect dialect = answer->request->dialect;
    if (dialect == SIM_DIALECT_OPENAI || dialect == SIM_DIALECT_HUGGINGFACE)
        buf_printf(out, "x-request-id: req_sim%llu\n", (unsigned long long)answer->seq);
    if (dialect == SIM_DIALECT_OPENAI)
        buf_printf(out, "openai-processing-ms: %.0f\nopenai-version: 2020-10-01\n",
                   answer->total_ms);
    if (dialect == SIM_DIALECT_OPENAI && !answer->limited)
        buf_add_str(out, "x-ratelimit-limit-requests: 10000\nx-ratelimit-remaining-requests: 9999\n"
                         "x-ratelimit-reset-requests: 6ms\nx-ratelimit-limit-tokens: 2000000\n"
                         "x-ratelimit-remaining-tokens: 1999000\nx-ratelimit-reset-tokens: 30ms\n");
    if (dialect == SIM_DIALECT_TGI)
        buf_add_str(out, "x-compute-type: simulated\n");
}

static void add_head(const struct sim_answer *answer, const char *object, struct buf *out)
{
    const struct dialect *dialect = accent(answer);
    buf_add_str(out, "{\"id\":\"");
    if (dialect->id[0] != '\0')
        buf_printf(out, "%ssim%llu", dialect->id, (unsigned long long)answer->seq);
    buf_printf(out, "\",\"object\":\"%s\",\"created\":%lld,\"model\":", object,
               (long long)answer->created_s);
    sim_family_add_json(out, answer->model);
    if (dialect->fingerprint != NULL)
        buf_printf(out, ",\"system_fingerprint\":\"%s\"", dialect->fingerprint);
    if (answer->request->dialect == SIM_DIALECT_OPENAI)
        buf_add_str(out, ",\"service_tier\":\"default\"");
}

static void add_usage(const struct sim_answer *answer, struct buf *out)
{
    const struct sim_request *request = answer->request;
    long long prompt = request->prompt_tokens, cached = request->cached_tokens;
    long long output = answer->output_tokens + answer->thought_tokens;
    buf_printf(out, "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld",
               prompt, output, prompt + output);
    if (accent(answer)->details)
        buf_printf(out,
                   ",\"prompt_tokens_details\":{\"cached_tokens\":%lld,\"cache_write_tokens\":%lld,"
                   "\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":%lld,"
                   "\"audio_tokens\":0,\"accepted_prediction_tokens\":0,"
                   "\"rejected_prediction_tokens\":0}",
                   cached, (long long)request->cache_write_tokens,
                   (long long)answer->thought_tokens);
    else if (accent(answer)->timings)
        buf_printf(out, ",\"prompt_tokens_details\":{\"cached_tokens\":%lld}", cached);
    buf_add_char(out, '}');
}

static double rate(double count, double ms)
{
    return ms > 0 ? count * 1000 / ms : 0;
}

static void add_timings(const struct sim_answer *answer, struct buf *out)
{
    double cached = (double)answer->request->cached_tokens;
    double prompt = (double)answer->request->prompt_tokens - cached;
    double output = (double)(answer->output_tokens + answer->thought_tokens);
    buf_printf(out,
               ",\"timings\":{\"cache_n\":%.0f,\"prompt_n\":%.0f,\"prompt_ms\":%.3f,"
               "\"prompt_per_token_ms\":%.6f,\"prompt_per_second\":%.3f,\"predicted_n\":%.0f,"
               "\"predicted_ms\":%.3f,\"predicted_per_token_ms\":%.6f,"
               "\"predicted_per_second\":%.3f}",
               cached, prompt, answer->prompt_ms, prompt > 0 ? answer->prompt_ms / prompt : 0,
               rate(prompt, answer->prompt_ms), output, answer->decode_ms,
               output > 0 ? answer->decode_ms / output : 0, rate(output, answer->decode_ms));
}

static const char *finish_reason(const struct sim_answer *answer)
{
    static char word[64]; /* what the scenario has */
    if (!answer->finished)
        return "null";
    if (answer->finish != NULL) {
        snprintf(word, sizeof word, "\"%.60s\"", answer->finish);
        return word;
    }
    return answer->length ? "\"length\"" : "\"stop\"";
}

/* A member with the thoughts, where the dialect shows them. */
static bool add_thoughts(const struct sim_answer *answer, struct buf *out)
{
    const char *name = accent(answer)->reasoning;
    if (name == NULL || answer->thoughts[0] == '\0')
        return false;
    buf_printf(out, ",\"%s\":", name);
    sim_family_add_json(out, answer->thoughts);
    return true;
}

static void add_whole(const struct sim_answer *answer, struct buf *out)
{
    const struct dialect *dialect = accent(answer);
    if (answer->request->embed) {
        sim_openai_embed_whole(answer, out);
        return;
    }
    add_head(answer, "chat.completion", out);
    buf_printf(out, ",\"choices\":[{\"index\":0,\"finish_reason\":%s,\"logprobs\":null",
               finish_reason(answer));
    if (dialect->stop_reason)
        buf_add_str(out, ",\"stop_reason\":null");
    buf_add_str(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
    buf_add_json(out, answer->text, answer->text_len);
    if (answer->request->dialect == SIM_DIALECT_OPENAI)
        buf_add_str(out, ",\"refusal\":null,\"annotations\":[]");
    if (!add_thoughts(answer, out) && dialect->stop_reason)
        buf_add_str(out, ",\"reasoning\":null");
    if (dialect->stop_reason)
        buf_add_str(out, ",\"tool_calls\":[]");
    buf_add_str(out, "}}],\"usage\":");
    add_usage(answer, out);
    if (dialect->timings)
        add_timings(answer, out);
    if (dialect->stats)
        buf_add_str(out, ",\"stats\":{}");
    buf_add_char(out, '}');
}

/* --- streams ------------------------------------------------------------------------------- */

static void chunk_start(const struct sim_answer *answer, struct buf *out)
{
    buf_add_str(out, accent(answer)->data);
    add_head(answer, "chat.completion.chunk", out);
    buf_add_str(out, ",\"choices\":[{\"index\":0,\"delta\":{");
}

/* reason: NULL while the answer goes on. */
static void chunk_end(const struct sim_answer *answer, const char *reason, struct buf *out)
{
    buf_printf(out, "},\"logprobs\":null,\"finish_reason\":%s", reason != NULL ? reason : "null");
    if (accent(answer)->stop_reason && reason != NULL)
        buf_add_str(out, ",\"stop_reason\":null");
    buf_add_str(out, "}]");
    if (answer->request->include_usage && answer->request->dialect == SIM_DIALECT_OPENAI)
        buf_add_str(out, ",\"usage\":null");
    if (answer->request->obfuscate) {
        static const char letters[] = "kQ7vZr2mXw9LbTn4";
        unsigned pad = (unsigned)((answer->seq * 7 + (uint64_t)answer->output_tokens * 5) % 16);
        buf_printf(out, ",\"obfuscation\":\"%.*s\"", (int)pad + 1, letters);
    }
    if (accent(answer)->timings && reason != NULL)
        add_timings(answer, out);
    buf_add_str(out, "}\n\n");
}

static void add_open(const struct sim_answer *answer, struct buf *out)
{
    chunk_start(answer, out);
    buf_printf(out, "\"role\":\"assistant\",\"content\":%s", accent(answer)->first);
    add_thoughts(answer, out);
    chunk_end(answer, NULL, out);
}

static void add_piece(const struct sim_answer *answer, const char *text, size_t len,
                      struct buf *out)
{
    chunk_start(answer, out);
    if (answer->request->dialect == SIM_DIALECT_TGI)
        buf_add_str(out, "\"role\":\"assistant\",");
    buf_add_str(out, "\"content\":");
    buf_add_json(out, text, len);
    chunk_end(answer, NULL, out);
}

static void add_close(const struct sim_answer *answer, struct buf *out)
{
    chunk_start(answer, out);
    chunk_end(answer, finish_reason(answer), out);
    if (answer->request->include_usage) {
        buf_add_str(out, accent(answer)->data);
        add_head(answer, "chat.completion.chunk", out);
        buf_add_str(out, ",\"choices\":[],\"usage\":");
        add_usage(answer, out);
        if (accent(answer)->timings)
            add_timings(answer, out);
        buf_add_str(out, "}\n\n");
    }
    buf_printf(out, "%s[DONE]\n\n", accent(answer)->data);
}

/* OpenAI and llama.cpp just stop after it, vLLM still says [DONE]. */
static void add_stream_error(const struct sim_answer *answer, const struct sim_error *error,
                             struct buf *out)
{
    struct sim_failure failure = {0};
    sim_openai_error(answer->request, error, &failure);
    buf_add_str(out, accent(answer)->data);
    if (failure.body.data != NULL)
        buf_add(out, failure.body.data, failure.body.len);
    buf_add_str(out, "\n\n");
    if (answer->request->dialect == SIM_DIALECT_VLLM)
        buf_add_str(out, "data: [DONE]\n\n");
    buf_release(&failure.body);
    buf_release(&failure.headers);
}

const struct sim_family sim_family_openai = {
    .name = "openai",
    .stream_type = "text/event-stream; charset=utf-8",
    .parse = parse,
    .headers = sim_openai_headers,
    .whole = add_whole,
    .open = add_open,
    .piece = add_piece,
    .close = add_close,
    .error = sim_openai_error,
    .stream_error = add_stream_error,
};
