/* What a provider says about a failure, in any of their shapes, and the class that follows.
 *
 * One set of tables serves all families: their words do not contradict each other, and proxies and
 * routers pass the words of one family on in the shape of another. */
#ifndef WORKERS_FAILURE_H
#define WORKERS_FAILURE_H

#include <stddef.h>
#include <stdint.h>

#include "workers/json_view.h"
#include "workers/provider.h"

/* Plain data; "" is not said. */
struct failure {
    int status; /* of HTTP, or the one an error inside a stream names; 0: none */
    char type[96];
    char code[96];
    char detail[256]; /* the vendor's finer reasons, separated by spaces */
    char message[600];
    char request_id[128];
    int64_t retry_after_ms; /* the body's own; -1: not said */
    int64_t context;        /* the model's window in tokens, where llama-server says it; 0: not */
};

/* From an error document: {"error": {...}}, {"error": "text"}, {"type": "error", ...}, {"detail":
 * ...}, {"message": ...}, problem+json, or an array around one of them. */
void failure_read(struct failure *ret, struct json_view document);
/* CLASS_NONE when nothing in it is known. */
enum error_class failure_class(const struct failure *failure);

/* provider.failure() of every family: an answer with status >= 400. */
void failure_http(const struct provider *provider, struct provider_reply *reply, int status,
                  const struct http_headers *headers, const char *data, size_t len);
/* An error document in an answer with status 200; `unknown` is the class when it says nothing that
 * is known: CLASS_RETRY inside a stream, CLASS_BAD_RESPONSE instead of an answer. */
void failure_inside(struct provider_reply *reply, struct json_view document,
                    enum error_class unknown);
/* A 2xx body that is no JSON at all. */
void failure_no_json(struct provider_reply *reply, const char *what, const char *data, size_t len);

#endif
