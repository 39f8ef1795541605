#include "workers/failure.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "workers/http_headers.h"
#include "workers/keys.h"
#include "workers/retry_after.h"
#include "workers/utf8.h"

/* Words that decide whatever the status is; compared with type, code and each detail. */
static const struct {
    const char *word;
    enum error_class class_;
} words[] = {
    {"insufficient_quota", CLASS_QUOTA},
    {"credit_balance_exhausted", CLASS_QUOTA},
    {"organization_spend_limit_exceeded", CLASS_QUOTA},
    {"project_spend_limit_exceeded", CLASS_QUOTA},
    {"organization_usage_limit_exceeded", CLASS_QUOTA},
    {"enforced_spend_limit_reached", CLASS_QUOTA},
    {"billing_error", CLASS_QUOTA},
    {"billing_hard_limit_reached", CLASS_QUOTA},
    {"billing_not_active", CLASS_QUOTA},
    {"not_enough_balance", CLASS_QUOTA},
    {"context_length_exceeded", CLASS_CONTEXT_TOO_LONG},
    {"exceed_context_size_error", CLASS_CONTEXT_TOO_LONG},
    {"request_too_large", CLASS_CONTEXT_TOO_LONG},
    {"string_above_max_length", CLASS_CONTEXT_TOO_LONG},
    {"content_filter", CLASS_REFUSED},
    {"content_policy_violation", CLASS_REFUSED},
    {"invalid_prompt", CLASS_REFUSED},
    {"bio_policy", CLASS_REFUSED},
    {"image_content_policy_violation", CLASS_REFUSED},
    {"invalid_api_key", CLASS_AUTH},
    {"api_key_invalid", CLASS_AUTH},
    {"authentication_error", CLASS_AUTH},
    {"permission_error", CLASS_AUTH},
    {"overloaded_error", CLASS_OVERLOADED},
    {"server_is_overloaded", CLASS_OVERLOADED},
    {"overloaded", CLASS_OVERLOADED},
    {"unavailable_error", CLASS_OVERLOADED},
    {"unhealthy", CLASS_OVERLOADED}, /* TEI */
    {"rate_limit_error", CLASS_RATE_LIMITED},
    {"rate_limit_exceeded", CLASS_RATE_LIMITED},
    {"timeout_error", CLASS_TIMEOUT},
    {"deadline_exceeded", CLASS_TIMEOUT},
    {"enginedeaderror", CLASS_RETRY},
};

/* Words too general to outweigh a status: for errors inside a stream that name none. */
static const struct {
    const char *word;
    enum error_class class_;
} general_words[] = {
    {"invalid_request_error", CLASS_BAD_REQUEST},
    {"invalid_request", CLASS_BAD_REQUEST},
    {"badrequesterror", CLASS_BAD_REQUEST},
    {"not_found_error", CLASS_BAD_REQUEST},
    {"notfounderror", CLASS_BAD_REQUEST},
    {"model_not_found", CLASS_BAD_REQUEST},
    {"not_supported_error", CLASS_BAD_REQUEST},
    {"not_implemented", CLASS_BAD_REQUEST},
    {"validation", CLASS_BAD_REQUEST},
    {"tokenizer", CLASS_BAD_REQUEST},
    {"empty", CLASS_BAD_REQUEST},
    {"job_not_found", CLASS_BAD_REQUEST},
    {"data_residency_mismatch", CLASS_BAD_REQUEST},
    {"invalid_image", CLASS_BAD_REQUEST},
    {"invalid_image_format", CLASS_BAD_REQUEST},
    {"invalid_image_mode", CLASS_BAD_REQUEST},
    {"invalid_image_url", CLASS_BAD_REQUEST},
    {"invalid_base64_image", CLASS_BAD_REQUEST},
    {"image_parse_error", CLASS_BAD_REQUEST},
    {"image_too_large", CLASS_BAD_REQUEST},
    {"image_too_small", CLASS_BAD_REQUEST},
    {"image_file_too_large", CLASS_BAD_REQUEST},
    {"image_file_not_found", CLASS_BAD_REQUEST},
    {"empty_image_file", CLASS_BAD_REQUEST},
    {"unsupported_image_media_type", CLASS_BAD_REQUEST},
    {"failed_to_download_image", CLASS_BAD_REQUEST},
    {"invalid_argument", CLASS_BAD_REQUEST},
    {"failed_precondition", CLASS_BAD_REQUEST},
    {"not_found", CLASS_BAD_REQUEST},
    {"permission_denied", CLASS_AUTH},
    {"unauthenticated", CLASS_AUTH},
    {"resource_exhausted", CLASS_RATE_LIMITED},
    {"slow_down", CLASS_RATE_LIMITED},
    {"requests", CLASS_RATE_LIMITED},
    {"tokens", CLASS_RATE_LIMITED},
    {"unavailable", CLASS_OVERLOADED},
    {"service_unavailable_error", CLASS_OVERLOADED},
    {"conflict_error", CLASS_RETRY},
    {"api_error", CLASS_RETRY},
    {"server_error", CLASS_RETRY},
    {"internal", CLASS_RETRY},
    {"internal_error", CLASS_RETRY},
    {"internalservererror", CLASS_RETRY},
    {"generation", CLASS_RETRY},
    {"incomplete_generation", CLASS_RETRY},
    {"backend", CLASS_RETRY}, /* TEI */
};

/* For statuses from..to, and for errors inside a stream that name none. Phrases are looked for in
 * the message and the details, ignoring case; they come before the words, because the same word may
 * stand for two causes. */
static const struct {
    int from, to;
    const char *phrase;
    enum error_class class_;
} phrases[] = {
    {429, 429, "limit: 0", CLASS_QUOTA}, /* Gemini: no free tier for this model */
    {429, 429, "PerDay", CLASS_QUOTA},   /* Gemini's quotaId */
    {400, 429, "credit balance is too low", CLASS_QUOTA},
    {400, 429, "specified API usage limits", CLASS_QUOTA},
    {400, 429, "monthly included credits", CLASS_QUOTA},
    {429, 429, "usage limit, upgrade", CLASS_QUOTA}, /* Ollama's cloud: per week or session */
    {400, 429, "NOT_ENOUGH_BALANCE", CLASS_QUOTA},
    {413, 429, "request too large", CLASS_CONTEXT_TOO_LONG},     /* over the per-minute limit */
    {413, 422, "maximum allowed batch size", CLASS_BAD_REQUEST}, /* TEI: too many texts */
    {500, 500, "too large to process", CLASS_CONTEXT_TOO_LONG},  /* llama-server's embeddings */
    {400, 500, "context length", CLASS_CONTEXT_TOO_LONG},
    {400, 500, "context window", CLASS_CONTEXT_TOO_LONG},
    {400, 500, "context size", CLASS_CONTEXT_TOO_LONG},
    {400, 500, "context limit", CLASS_CONTEXT_TOO_LONG},
    {400, 500, "context overflow", CLASS_CONTEXT_TOO_LONG},
    {400, 500, "prompt is too long", CLASS_CONTEXT_TOO_LONG},
    {400, 500, "prompt too long", CLASS_CONTEXT_TOO_LONG},
    {400, 422, "maximum number of tokens allowed", CLASS_CONTEXT_TOO_LONG},   /* Gemini */
    {400, 422, "`inputs` tokens + `max_new_tokens`", CLASS_CONTEXT_TOO_LONG}, /* TGI */
    {400, 422, "`inputs` must have less than", CLASS_CONTEXT_TOO_LONG},       /* TGI, TEI */
    {400, 400, "API key not valid", CLASS_AUTH},                              /* Gemini */
    {400, 400, "API key expired", CLASS_AUTH},
    {500, 503, "EngineDeadError", CLASS_RETRY},
    {0, 599, "loading model", CLASS_OVERLOADED},
    {0, 599, "server busy", CLASS_OVERLOADED},
    {0, 599, "try pulling it first", CLASS_BAD_REQUEST},
    {500, 500, "requires more system memory", CLASS_BAD_REQUEST}, /* Ollama: never fits */
    {0, 599, "insufficient system resources", CLASS_BAD_REQUEST}, /* LM Studio: likewise */
    {400, 500, "does not support", CLASS_BAD_REQUEST},
    {0, 599, "unexpected endpoint or method", CLASS_BAD_RESPONSE}, /* LM Studio, with 200 */
};

/* Phrases for errors that name neither a status nor a known word: some servers put plain sentences
 * into their streams. */
static const struct {
    const char *phrase;
    enum error_class class_;
} general_phrases[] = {
    {"too many requests", CLASS_RATE_LIMITED},
    {"rate limit", CLASS_RATE_LIMITED},
    {"overloaded", CLASS_OVERLOADED},
    {"is busy", CLASS_OVERLOADED},
};

/* The first row that holds the status. */
static const struct {
    int from, to;
    enum error_class class_;
} statuses[] = {
    {401, 401, CLASS_AUTH},
    {402, 402, CLASS_QUOTA},
    {403, 403, CLASS_AUTH},
    {407, 407, CLASS_AUTH},
    {408, 408, CLASS_TIMEOUT},
    {409, 409, CLASS_RETRY},
    {413, 413, CLASS_CONTEXT_TOO_LONG},
    {424, 425, CLASS_RETRY}, /* 424: TGI's generation error */
    {429, 429, CLASS_RATE_LIMITED},
    {499, 499, CLASS_RETRY},
    {400, 499, CLASS_BAD_REQUEST},
    {503, 503, CLASS_OVERLOADED},
    {504, 504, CLASS_TIMEOUT},
    {524, 524, CLASS_TIMEOUT},
    {529, 529, CLASS_OVERLOADED},
    {500, 599, CLASS_RETRY},
};

#define COUNT(table) (sizeof table / sizeof *table)

static void add_detail(struct failure *failure, struct json_view view)
{
    char text[96];
    size_t len = strlen(failure->detail);
    if (json_view_copy(view, text, sizeof text) && text[0] != '\0')
        snprintf(failure->detail + len, sizeof failure->detail - len, "%s%s", len > 0 ? " " : "",
                 text);
}

/* Gemini's details: ErrorInfo.reason, RetryInfo.retryDelay, QuotaFailure.violations[].quotaId. */
static void read_detail(struct failure *failure, struct json_view detail)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("reason"), JSON_VIEW_NAME("retryDelay"), JSON_VIEW_NAME("violations"),
        JSON_VIEW_NAME("error_code"), /* Anthropic's, where details is an object */
    };
    struct json_view found[4], violation;
    json_view_members(detail, names, 4, found);
    add_detail(failure, found[0]);
    add_detail(failure, found[3]);
    char delay[64];
    if (json_view_copy(found[1], delay, sizeof delay))
        failure->retry_after_ms = retry_after_duration(delay);
    while (json_view_next(&found[2], NULL, &violation))
        add_detail(failure, json_view_member(violation, "quotaId"));
}

static void read_details(struct failure *failure, struct json_view details)
{
    struct json_view item;
    if (details.kind == JSON_VIEW_OBJECT)
        read_detail(failure, details);
    else
        while (json_view_next(&details, NULL, &item))
            read_detail(failure, item);
}

/* A status among the members: an integer, or a string of three digits. */
static void read_status(struct failure *failure, struct json_view view)
{
    char digits[8];
    int64_t status = json_view_int(view, 0);
    if (json_view_copy(view, digits, sizeof digits) && strspn(digits, "0123456789") == 3 &&
        digits[3] == '\0')
        status = atoi(digits);
    if (failure->status == 0 && status >= 400 && status <= 599)
        failure->status = (int)status;
}

/* Members that say the same at the top and inside of "error". */
static void read_members(struct failure *failure, struct json_view object)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("message"),    JSON_VIEW_NAME("type"),    JSON_VIEW_NAME("code"),
        JSON_VIEW_NAME("status"),     JSON_VIEW_NAME("details"), JSON_VIEW_NAME("request_id"),
        JSON_VIEW_NAME("error_type"), JSON_VIEW_NAME("n_ctx"),
    };
    struct json_view found[8];
    json_view_members(object, names, 8, found);
    if (failure->message[0] == '\0')
        json_view_copy(found[0], failure->message, sizeof failure->message);
    if (failure->type[0] == '\0' && !json_view_equals(found[1], "error"))
        json_view_copy(found[1], failure->type, sizeof failure->type);
    if (failure->type[0] == '\0')
        json_view_copy(found[6], failure->type, sizeof failure->type); /* TGI */
    if (failure->type[0] == '\0')
        json_view_copy(found[3], failure->type, sizeof failure->type); /* Gemini */
    if (failure->code[0] == '\0')
        json_view_copy(found[2], failure->code, sizeof failure->code);
    read_status(failure, found[2]);
    read_status(failure, found[3]);
    read_details(failure, found[4]);
    if (failure->request_id[0] == '\0')
        json_view_copy(found[5], failure->request_id, sizeof failure->request_id);
    int64_t window = json_view_int(found[7], 0);
    if (window > 0)
        failure->context = window;
}

void failure_read(struct failure *ret, struct json_view document)
{
    if (document.kind == JSON_VIEW_ARRAY)
        document = json_view_first(document);
    struct json_view error = json_view_member(document, "error");
    if (error.kind == JSON_VIEW_ARRAY)
        error = json_view_first(error);
    if (error.kind == JSON_VIEW_STRING)
        json_view_copy(error, ret->message, sizeof ret->message);
    else
        read_members(ret, error);
    read_members(ret, document);
    static const char *const others[] = {"detail", "title"}; /* FastAPI; problem+json */
    for (size_t i = 0; i < COUNT(others) && ret->message[0] == '\0'; i++) {
        struct json_view other = json_view_member(document, others[i]);
        if (other.kind == JSON_VIEW_ARRAY)
            other = json_view_member(json_view_first(other), "msg");
        json_view_copy(other, ret->message, sizeof ret->message);
    }
}

static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = strcasestr(list, word); at != NULL; at = strcasestr(at + 1, word))
        if ((at == list || at[-1] == ' ') && (at[len] == '\0' || at[len] == ' '))
            return true;
    return false;
}

static bool says(const struct failure *failure, const char *word)
{
    return strcasecmp(failure->type, word) == 0 || strcasecmp(failure->code, word) == 0 ||
           has_word(failure->detail, word);
}

/* A phrase that ends with a digit must not be the beginning of a longer number. */
static bool has_phrase(const char *text, const char *phrase)
{
    const char *at = strcasestr(text, phrase);
    size_t len = strlen(phrase);
    return at != NULL &&
           !(isdigit((unsigned char)phrase[len - 1]) && isdigit((unsigned char)at[len]));
}

static enum error_class class_by_text(const struct failure *failure)
{
    int status = failure->status;
    for (size_t i = 0; i < COUNT(phrases); i++) {
        bool applies = status == 0 || (status >= phrases[i].from && status <= phrases[i].to);
        if (applies && (has_phrase(failure->message, phrases[i].phrase) ||
                        has_phrase(failure->detail, phrases[i].phrase)))
            return phrases[i].class_;
    }
    for (size_t i = 0; i < COUNT(words); i++)
        if (says(failure, words[i].word))
            return words[i].class_;
    for (size_t i = 0; status == 0 && i < COUNT(general_words); i++)
        if (says(failure, general_words[i].word))
            return general_words[i].class_;
    for (size_t i = 0; status == 0 && i < COUNT(general_phrases); i++)
        if (has_phrase(failure->message, general_phrases[i].phrase))
            return general_phrases[i].class_;
    return CLASS_NONE;
}

static enum error_class class_by_status(int status)
{
    for (size_t i = 0; i < COUNT(statuses); i++)
        if (status >= statuses[i].from && status <= statuses[i].to)
            return statuses[i].class_;
    return CLASS_NONE;
}

enum error_class failure_class(const struct failure *failure)
{
    enum error_class class_ = class_by_text(failure);
    return class_ != CLASS_NONE ? class_ : class_by_status(failure->status);
}

/* x-should-retry: its "true" outweighs what only the status said, its "false" everything that would
 * be tried again. */
static enum error_class obey_should_retry(enum error_class class_, bool by_status,
                                          const char *should)
{
    enum error_action action = error_class_action(class_);
    bool retries = action == ERROR_RETRY || action == ERROR_WAIT;
    if (should != NULL && strcasecmp(should, "true") == 0 && !retries && by_status)
        return CLASS_RETRY;
    if (should != NULL && strcasecmp(should, "false") == 0 && retries)
        return class_ == CLASS_RATE_LIMITED ? CLASS_QUOTA : CLASS_BAD_REQUEST;
    return class_;
}

/* What a page or a plain text says: its title, or its beginning. */
static void read_text(struct failure *failure, const char *data, size_t len)
{
    char *text = failure->message;
    const char *open = memmem(data, len, "<title>", 7);
    if (open != NULL) {
        open += 7;
        size_t rest = len - (size_t)(open - data);
        const char *close = memmem(open, rest, "</", 2);
        size_t title = close != NULL ? (size_t)(close - open) : rest;
        utf8_excerpt(text, 200, open, title);
        return;
    }
    while (len > 0 && isspace((unsigned char)*data)) {
        data++;
        len--;
    }
    if (len > 0 && *data == '<')
        strcpy(text, "(a page without a title)");
    else
        utf8_excerpt(text, 200, data, len < 4096 ? len : 4096);
}

static bool is_no_model(const struct failure *failure)
{
    if (says(failure, "model_not_found") || has_phrase(failure->message, "try pulling it first"))
        return true;
    bool not_found = failure->status == 404 || says(failure, "not_found_error") ||
                     says(failure, "notfounderror") || says(failure, "not_found");
    return not_found && has_phrase(failure->message, "model");
}

/* What a person can do about it; "" when the message has to say that itself. */
static const char *cure_of(const struct provider *provider, const struct failure *failure,
                           enum error_class class_)
{
    bool local = provider != NULL && provider->local;
    if (has_phrase(failure->message, "unexpected endpoint or method"))
        return "check base_url; LM Studio has this API since 0.4";
    if (class_ != CLASS_BAD_REQUEST)
        return "";
    if (is_no_model(failure))
        return local ? "pull the model, or see what its server has: orchestrator models --refresh"
                     : "see what is served: orchestrator models --refresh";
    return failure->status == 404 || failure->status == 405 ? "check base_url" : "";
}

/* Room for the cure behind a long message. */
#define MAX_CURED_MESSAGE 360

static void report(struct provider_reply *reply, const struct provider *provider,
                   struct failure *failure, enum error_class class_, const char *where)
{
    const char *word = failure->code[0] != '\0' ? failure->code : failure->type;
    const char *cure = cure_of(provider, failure, class_);
    char window[64] = "", message[sizeof failure->message];
    if (reply->error == CLASS_NONE)
        reply->retry_after_ms = failure->retry_after_ms;
    if (reply->request_id[0] == '\0')
        memcpy(reply->request_id, failure->request_id, sizeof reply->request_id);
    if (class_ == CLASS_CONTEXT_TOO_LONG && failure->context > 0)
        snprintf(window, sizeof window, " (the window has %lld tokens)",
                 (long long)failure->context);
    key_scrub(reply->key, failure->message); /* before it is cut */
    utf8_excerpt(message, cure[0] != '\0' ? MAX_CURED_MESSAGE : sizeof message, failure->message,
                 strlen(failure->message));
    provider_reply_fail(reply, class_, "%s%s%s%s%s%s%s%s%s", where, word[0] != '\0' ? " " : "",
                        word, message[0] != '\0' ? ": " : "", message, window,
                        cure[0] != '\0' ? " (" : "", cure, cure[0] != '\0' ? ")" : "");
}

void failure_http(const struct provider *provider, struct provider_reply *reply, int status,
                  const struct http_headers *headers, const char *data, size_t len)
{
    struct failure failure = {.status = status, .retry_after_ms = -1};
    struct json_view document;
    if (json_view_parse(&document, data, len))
        failure_read(&failure, document);
    if (failure.message[0] == '\0')
        read_text(&failure, data, len);
    failure.status = status;

    enum error_class class_ = class_by_text(&failure);
    bool by_status = class_ == CLASS_NONE;
    if (by_status)
        class_ = class_by_status(status);
    if (class_ == CLASS_NONE)
        class_ = CLASS_BAD_RESPONSE;
    class_ = obey_should_retry(class_, by_status, http_header(headers, "x-should-retry"));
    int64_t now = clock_wall_ms(), delay = retry_after_headers(headers, now);
    if (delay >= 0)
        failure.retry_after_ms = delay;
    if (failure.retry_after_ms < 0)
        failure.retry_after_ms = retry_after_message(failure.message);
    if (failure.retry_after_ms < 0)
        failure.retry_after_ms = retry_after_resets(headers, now);
    const char *id = http_header(headers, "request-id");
    if (id == NULL)
        id = http_header(headers, "x-request-id");
    if (id != NULL)
        utf8_excerpt(failure.request_id, sizeof failure.request_id, id, strlen(id));
    char where[32];
    snprintf(where, sizeof where, "HTTP %d", status);
    report(reply, provider, &failure, class_, where);
}

void failure_inside(struct provider_reply *reply, struct json_view document,
                    enum error_class unknown)
{
    struct failure failure = {.retry_after_ms = -1};
    failure_read(&failure, document);
    if (failure.retry_after_ms < 0)
        failure.retry_after_ms = retry_after_message(failure.message);
    if (failure.message[0] == '\0')
        utf8_excerpt(failure.message, 200, document.text,
                     document.len < 4096 ? document.len : 4096);
    enum error_class class_ = failure_class(&failure);
    report(reply, NULL, &failure, class_ != CLASS_NONE ? class_ : unknown, "error in the answer");
}

void failure_no_json(struct provider_reply *reply, const char *what, const char *data, size_t len)
{
    struct failure failure = {.retry_after_ms = -1};
    read_text(&failure, data, len);
    provider_reply_fail(reply, CLASS_BAD_RESPONSE, "%s is no JSON: %s", what,
                        len > 0 ? failure.message : "(empty)");
}
