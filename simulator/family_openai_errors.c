/* What OpenAI and the servers that speak its chat completions say when they refuse. */
#include <math.h>
#include <string.h>

#include "simulator/family_openai.h"

/* Shapes of an error's body. */
enum style {
    STYLE_OPENAI,   /* {"error":{message,type,param,code}} */
    STYLE_TEXT,     /* {"error":"text"} */
    STYLE_VLLM,     /* {"error":{message,type,param,code: number}} */
    STYLE_LLAMACPP, /* {"error":{code: number,message,type,...}} */
    STYLE_TGI,      /* {"error":"text","error_type":"type"} */
};

#define LIMIT "8192"
#define INVALID "invalid_request_error"

/* clang-format off */
static const struct sim_error_row openai[SIM_KIND_COUNT] = {
    [SIM_KIND_RATE_LIMIT] = {429, "requests", "rate_limit_exceeded", "Rate limit reached for {model} in organization org-simulated on requests per min (RPM): Limit 500, Used 500, Requested 1. Please try again in {retry}s."},
    [SIM_KIND_QUOTA] = {429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."},
    [SIM_KIND_OVERLOADED] = {503, "service_unavailable_error", "server_is_overloaded", "The server is currently overloaded with other requests. Sorry about that! You can retry your request."},
    [SIM_KIND_AUTH] = {401, INVALID, "invalid_api_key", "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys."},
    [SIM_KIND_CONTEXT_TOO_LONG] = {400, INVALID, "context_length_exceeded", "This model's maximum context length is " LIMIT " tokens. However, your messages resulted in {tokens} tokens. Please reduce the length of the messages."},
    [SIM_KIND_BAD_REQUEST] = {400, INVALID, "unsupported_value", "Unsupported value: 'temperature' does not support this value with this model. Only the default (1) value is supported."},
    [SIM_KIND_SERVER_ERROR] = {500, "server_error", NULL, "The server had an error while processing your request. Sorry about that!"},
    [SIM_KIND_NO_MODEL] = {404, INVALID, "model_not_found", "The model `{model}` does not exist or you do not have access to it."},
    [SIM_KIND_NO_ROUTE] = {404, INVALID, NULL, "Invalid URL ({method} {path})"},
    [SIM_KIND_NO_METHOD] = {405, INVALID, "method_not_supported", "Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)"},
    [SIM_KIND_TOO_LARGE] = {413, INVALID, NULL, "Maximum content size limit exceeded."},
};
static const struct sim_error_row huggingface[SIM_KIND_COUNT] = {
    [SIM_KIND_RATE_LIMIT] = {429, "", NULL, "Too many requests: rate limit reached. Please try again in {retry}s."},
    [SIM_KIND_QUOTA] = {402, "", NULL, "You have exceeded your monthly included credits for Inference Providers. Subscribe to PRO to get 20x more monthly included credits."},
    [SIM_KIND_OVERLOADED] = {503, "", NULL, "Model {model} is overloaded, please try again later."},
    [SIM_KIND_AUTH] = {401, "", NULL, "Invalid username or password."},
    [SIM_KIND_CONTEXT_TOO_LONG] = {400, "", NULL, "This model's maximum context length is " LIMIT " tokens. However, your request has {tokens} input tokens."},
    [SIM_KIND_BAD_REQUEST] = {400, "", NULL, "The requested parameter is not supported by this model."},
    [SIM_KIND_SERVER_ERROR] = {500, "", NULL, "Internal Server Error"},
    [SIM_KIND_NO_MODEL] = {404, "", NULL, "The requested model '{model}' does not exist"},
    [SIM_KIND_NO_ROUTE] = {404, "", NULL, "Not Found"},
    [SIM_KIND_NO_METHOD] = {405, "", NULL, "Method Not Allowed"},
    [SIM_KIND_TOO_LARGE] = {413, "", NULL, "Payload Too Large"},
};
static const struct sim_error_row lmstudio[SIM_KIND_COUNT] = {
    [SIM_KIND_RATE_LIMIT] = {429, INVALID, "rate_limit_exceeded", "Too many requests."},
    [SIM_KIND_QUOTA] = {429, INVALID, "insufficient_quota", "Quota exceeded."},
    [SIM_KIND_OVERLOADED] = {503, "internal_error", NULL, "The model is busy."},
    [SIM_KIND_AUTH] = {401, INVALID, "invalid_api_key", "Malformed LM Studio API token provided."},
    [SIM_KIND_CONTEXT_TOO_LONG] = {400, INVALID, NULL, "Trying to keep the first {tokens} tokens when context the overflows. However, the model is loaded with context length of only " LIMIT " tokens, which is not enough. Try to load the model with a larger context length, or provide a shorter input"},
    [SIM_KIND_BAD_REQUEST] = {400, INVALID, NULL, "Invalid request."},
    [SIM_KIND_SERVER_ERROR] = {500, "internal_error", NULL, "The model has crashed without additional information. (Exit code: null)"},
    [SIM_KIND_NO_MODEL] = {404, INVALID, "model_not_found", "Model \"{model}\" not found. Please specify a valid model."},
    /* LM Studio answers unknown routes with status 200. */
    [SIM_KIND_NO_ROUTE] = {200, "", NULL, "Unexpected endpoint or method. ({method} {path})"},
    [SIM_KIND_NO_METHOD] = {200, "", NULL, "Unexpected endpoint or method. ({method} {path})"},
    [SIM_KIND_TOO_LARGE] = {413, INVALID, NULL, "request entity too large"},
};
static const struct sim_error_row vllm[SIM_KIND_COUNT] = {
    [SIM_KIND_RATE_LIMIT] = {429, "TooManyRequestsError", NULL, "Too many requests."},
    [SIM_KIND_QUOTA] = {429, "TooManyRequestsError", NULL, "Quota exceeded."},
    [SIM_KIND_OVERLOADED] = {503, "ServiceUnavailableError", NULL, "The server is overloaded, please retry later."},
    [SIM_KIND_AUTH] = {401, "", NULL, "Unauthorized"},
    [SIM_KIND_CONTEXT_TOO_LONG] = {400, "BadRequestError", NULL, "This model's maximum context length is " LIMIT " tokens. However, your request has {tokens} input tokens. Please reduce the length of the input messages."},
    [SIM_KIND_BAD_REQUEST] = {400, "BadRequestError", NULL, "The request is not valid for this model."},
    [SIM_KIND_SERVER_ERROR] = {500, "InternalServerError", NULL, "EngineCore encountered an issue. See stack trace (above) for the root cause."},
    [SIM_KIND_NO_MODEL] = {404, "NotFoundError", NULL, "The model `{model}` does not exist."},
    [SIM_KIND_NO_ROUTE] = {404, "NotFoundError", NULL, "Not Found"},
    [SIM_KIND_NO_METHOD] = {405, "MethodNotAllowedError", NULL, "Method Not Allowed"},
    [SIM_KIND_TOO_LARGE] = {413, "RequestEntityTooLargeError", NULL, "Request Entity Too Large"},
};
static const struct sim_error_row llamacpp[SIM_KIND_COUNT] = {
    [SIM_KIND_RATE_LIMIT] = {429, "unavailable_error", NULL, "Too many requests."},
    [SIM_KIND_QUOTA] = {429, "unavailable_error", NULL, "Quota exceeded."},
    [SIM_KIND_OVERLOADED] = {503, "unavailable_error", NULL, "Loading model"},
    [SIM_KIND_AUTH] = {401, "authentication_error", NULL, "Invalid API Key"},
    [SIM_KIND_CONTEXT_TOO_LONG] = {400, "exceed_context_size_error", NULL, "request ({tokens} tokens) exceeds the available context size (" LIMIT " tokens), try increasing it"},
    [SIM_KIND_BAD_REQUEST] = {400, INVALID, NULL, "Failed to parse grammar"},
    [SIM_KIND_SERVER_ERROR] = {500, "server_error", NULL, "Compute error."},
    [SIM_KIND_NO_MODEL] = {404, "not_found_error", NULL, "model '{model}' not found"},
    [SIM_KIND_NO_ROUTE] = {404, "not_found_error", NULL, "File Not Found"},
    [SIM_KIND_NO_METHOD] = {404, "not_found_error", NULL, "File Not Found"},
    [SIM_KIND_TOO_LARGE] = {413, INVALID, NULL, "Payload Too Large"},
};
static const struct sim_error_row tgi[SIM_KIND_COUNT] = {
    [SIM_KIND_RATE_LIMIT] = {429, "overloaded", NULL, "Model is overloaded"},
    [SIM_KIND_QUOTA] = {429, "overloaded", NULL, "Model is overloaded"},
    [SIM_KIND_OVERLOADED] = {429, "overloaded", NULL, "Model is overloaded"},
    [SIM_KIND_AUTH] = {401, "validation", NULL, "Unauthorized"},
    [SIM_KIND_CONTEXT_TOO_LONG] = {422, "validation", NULL, "Input validation error: `inputs` must have less than " LIMIT " tokens. Given: {tokens}"},
    [SIM_KIND_BAD_REQUEST] = {422, "validation", NULL, "Input validation error: `temperature` must be strictly positive"},
    [SIM_KIND_SERVER_ERROR] = {424, "generation", NULL, "Request failed during generation: Server error: CUDA out of memory"},
    [SIM_KIND_NO_MODEL] = {404, "validation", NULL, "Model {model} not found"},
    [SIM_KIND_NO_ROUTE] = {404, "validation", NULL, "Not Found"},
    [SIM_KIND_NO_METHOD] = {405, "validation", NULL, "Method Not Allowed"},
    [SIM_KIND_TOO_LARGE] = {413, "validation", NULL, "Failed to buffer the request body: length limit exceeded"},
};
/* clang-format on */

static const struct {
    const struct sim_error_row *rows;
    enum style style;
} dialects[SIM_DIALECT_COUNT] = {
    [SIM_DIALECT_OPENAI] = {openai, STYLE_OPENAI},
    [SIM_DIALECT_HUGGINGFACE] = {huggingface, STYLE_TEXT},
    [SIM_DIALECT_LMSTUDIO] = {lmstudio, STYLE_OPENAI},
    [SIM_DIALECT_VLLM] = {vllm, STYLE_VLLM},
    [SIM_DIALECT_LLAMACPP] = {llamacpp, STYLE_LLAMACPP},
    [SIM_DIALECT_TGI] = {tgi, STYLE_TGI},
};

/* What a check of the request found is no lack of support: the code follows the field. */
static const char *code_of(const struct sim_error *error, const struct sim_error_row *row)
{
    if (error->kind != SIM_KIND_BAD_REQUEST || error->message[0] == '\0')
        return row->code;
    if (strncmp(error->message, "Missing required", 16) == 0)
        return "missing_required_parameter";
    return strncmp(error->message, "Invalid", 7) == 0 ? "invalid_value" : NULL;
}

static void add_object(const struct sim_request *request, const struct sim_error *error,
                       const struct sim_error_row *row, int status, const struct buf *message,
                       struct buf *out)
{
    enum style style = dialects[request->dialect].style;
    if (style == STYLE_LLAMACPP) {
        buf_printf(out, "{\"code\":%d,\"message\":", status);
        buf_add_json(out, message->data, message->len);
        buf_printf(out, ",\"type\":\"%s\"", row->type);
        if (error->kind == SIM_KIND_CONTEXT_TOO_LONG)
            buf_printf(out, ",\"n_prompt_tokens\":%lld,\"n_ctx\":" LIMIT,
                       (long long)request->prompt_tokens);
        buf_add_char(out, '}');
        return;
    }
    buf_add_str(out, "{\"message\":");
    buf_add_json(out, message->data, message->len);
    buf_printf(out, ",\"type\":\"%s\",\"param\":", row->type);
    sim_family_add_json(out, error->param[0] != '\0' ? error->param : NULL);
    buf_add_str(out, ",\"code\":");
    if (style == STYLE_VLLM)
        buf_printf(out, "%d", status);
    else
        sim_family_add_json(out, code_of(error, row));
    buf_add_char(out, '}');
}

static void add_error_headers(const struct sim_request *request, const struct sim_error *error,
                              struct buf *out)
{
    double retry_s = sim_family_retry_s(error);
    if (request->dialect == SIM_DIALECT_OPENAI) {
        buf_add_str(out, "x-request-id: req_simulated\n");
        if (retry_s >= 0)
            buf_printf(out, "retry-after-ms: %.0f\n", retry_s * 1000);
        if (error->kind == SIM_KIND_RATE_LIMIT && !error->limited)
            buf_printf(out,
                       "x-ratelimit-limit-requests: 500\nx-ratelimit-remaining-requests: 0\n"
                       "x-ratelimit-reset-requests: %.0fms\n",
                       retry_s * 1000);
    }
    if (retry_s >= 0)
        buf_printf(out, "retry-after: %.0f\n", ceil(retry_s));
}

const struct sim_error_row *sim_openai_error_row(const struct sim_request *request,
                                                 const struct sim_error *error)
{
    return &dialects[request->dialect].rows[error->kind];
}

void sim_openai_error(const struct sim_request *request, const struct sim_error *error,
                      struct sim_failure *ret)
{
    const struct sim_error_row *row = sim_openai_error_row(request, error);
    enum style style = dialects[request->dialect].style;
    struct buf message = {0};
    sim_family_message(&message, request, error, row);
    ret->status = error->status != 0 ? error->status : row->status;
    ret->type = "application/json";
    add_error_headers(request, error, &ret->headers);
    buf_add_str(&ret->body, "{\"error\":");
    if (style == STYLE_TEXT || style == STYLE_TGI || row->type[0] == '\0')
        buf_add_json(&ret->body, message.data, message.len);
    else
        add_object(request, error, row, ret->status, &message, &ret->body);
    if (style == STYLE_TGI)
        buf_printf(&ret->body, ",\"error_type\":\"%s\"", row->type);
    buf_add_char(&ret->body, '}');
    buf_release(&message);
}
