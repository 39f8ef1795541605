#include "workers/provider.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "workers/keys.h"
#include "workers/utf8.h"

const char *finish_name(enum finish finish)
{
    static const char *const names[] = {
        [FINISH_NONE] = "",       [FINISH_DONE] = "done",         [FINISH_LENGTH] = "length",
        [FINISH_TOOLS] = "tools", [FINISH_FILTERED] = "filtered", [FINISH_OTHER] = "other",
    };
    return (size_t)finish < sizeof names / sizeof *names ? names[finish] : "other";
}

void provider_request_release(struct provider_request *request)
{
    if (request->headers.data != NULL) /* it may hold the key */
        explicit_bzero(request->headers.data, request->headers.cap);
    buf_release(&request->url);
    buf_release(&request->headers);
    buf_release(&request->body);
}

void provider_reply_init(struct provider_reply *reply)
{
    *reply = (struct provider_reply){
        .prompt_tokens = -1,
        .cached_tokens = -1,
        .cache_write_tokens = -1,
        .output_tokens = -1,
        .reasoning_tokens = -1,
        .load_ms = -1,
        .prompt_ms = -1,
        .generate_ms = -1,
        .retry_after_ms = -1,
    };
}

void provider_reply_expect(struct provider_reply *reply, const struct provider_call *call)
{
    reply->kind = call->kind;
    reply->responses = call->responses;
    reply->n_inputs = call->n_inputs;
    reply->dimensions = call->dimensions;
    reply->max_tokens = call->max_tokens;
}

void provider_reply_release(struct provider_reply *reply)
{
    buf_release(&reply->text);
    buf_release(&reply->reasoning);
}

/* How the keys of well-known vendors begin. Some servers quote the key that they refuse. */
static const char *const key_prefixes[] = {"sk-",  "hf_", "AIza",   "gsk_",
                                           "xai-", "AQ.", "nvapi-", "Bearer "};
#define KEY_MIN_LEN 8 /* what follows the prefix, to be taken for a key */

static size_t key_at(const char *text)
{
    static const char key_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "0123456789-_.*/+=~";
    for (size_t i = 0; i < sizeof key_prefixes / sizeof *key_prefixes; i++) {
        size_t prefix = strlen(key_prefixes[i]);
        if (strncmp(text, key_prefixes[i], prefix) != 0)
            continue;
        size_t rest = strspn(text + prefix, key_chars);
        if (rest >= KEY_MIN_LEN)
            return prefix + rest;
    }
    return 0;
}

/* Puts *** in the place of everything that looks like a key. The worker's own key was replaced by
 * value before: this is the second lock on the same door. */
static void mask_keys(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0';) {
        bool word_begins = from == text || !isalnum((unsigned char)from[-1]);
        size_t key = word_begins ? key_at(from) : 0;
        if (key > 0) {
            memcpy(to, "***", 3); /* never longer than what it replaces */
            to += 3;
            from += key;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

void provider_reply_fail(struct provider_reply *reply, enum error_class class_, const char *format,
                         ...)
{
    if (reply->error != CLASS_NONE)
        return;
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    key_scrub(reply->key, text); /* before anything else could leave only a part of it */
    mask_keys(text);
    utf8_excerpt(reply->error_text, sizeof reply->error_text, text, strlen(text));
    reply->error = class_;
    reply->finished = false;
}
