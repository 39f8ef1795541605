/* What the provider families share: pieces of requests, and how a reply is concluded. */
#ifndef WORKERS_WIRE_H
#define WORKERS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "workers/json_view.h"
#include "workers/provider.h"

/* Requests. Failures of memory are collected in the buffers: wire_finish() tells them. */

/* base + version ("/v1") + path, into ret->url. The version is left out where base ends with one of
 * its own ("/v1", "/v4", "/v1beta"); with version "" the usual ones ("/v1", "/v1beta") are taken
 * off the base instead. base_url NULL stands for the provider's default. -EINVAL when there is
 * none, or when it is no http(s) URL. */
int wire_url(const struct provider *provider, const struct provider_call *call, const char *version,
             const char *path, struct provider_request *ret, struct err *err);
/* `name: prefix key`, nothing when there is no key. -EINVAL when a key is needed and missing, or
 * when it would break the header. */
int wire_key(const struct provider *provider, const struct provider_call *call, const char *name,
             const char *prefix, struct provider_request *ret, struct err *err);
/* Begins the body: room for the prompt, and the header of its type. */
void wire_json_body(const struct provider_call *call, struct provider_request *ret);
/* `"name":` and the text as a JSON string, for a member that is not the first. */
void wire_member(struct buf *body, const char *name, const char *text, size_t len);
/* Appends `,"name":0.2` without the locale's decimal point. */
void wire_number(struct buf *body, const char *name, double number);
/* The schema of the call, checked to be a JSON object; JSON_VIEW_NONE when there is none. */
int wire_schema(const struct provider_call *call, struct json_view *ret, struct err *err);
/* 0; -ENOMEM when a buffer failed. */
int wire_finish(const struct provider_request *request, struct err *err);

/* Replies. */

struct wire_stop {
    const char *word; /* of the wire; ends with NULL */
    enum finish finish;
    enum error_class error; /* CLASS_NONE: an answer */
};
/* Takes over the finish reason, if the view is a string that is not empty. A word that is not in
 * the table is FINISH_OTHER. FINISH_FILTERED, once there, stays. */
void wire_stop(struct provider_reply *reply, const struct wire_stop *stops, struct json_view word);
/* The proof of a complete answer was seen: sets `finished`, or the error that stands in its way. */
void wire_conclude(struct provider_reply *reply);
/* The same for families whose proof, the finish reason, is not the last event: the figures, and
 * even an error, may follow. What is not simply an answer is left to the end. */
void wire_prove(struct provider_reply *reply);
/* The transfer ended: an answer without its proof is CLASS_BAD_RESPONSE. provider.end() of the
 * families that have nothing to add. */
void wire_end(const struct provider *provider, struct provider_reply *reply);
/* A count of tokens: kept in *count when the view is a number that can be one. */
void wire_count(struct json_view view, int64_t *count);
/* A duration: kept, times `scale`, when the view is a number that is not negative. */
void wire_ms(struct json_view view, double scale, double *ms);
/* A name, when none is known yet. */
void wire_name(struct json_view view, char *name, size_t cap);

/* One JSON document of an answer. `unknown` is the class of an error in it that says nothing known:
 * CLASS_RETRY inside a stream, CLASS_BAD_RESPONSE when the document is the whole answer. */
typedef void wire_document(struct provider_reply *reply, struct json_view document,
                           enum error_class unknown);
/* Whether the member is an error; then the reply has failed with what the document says. */
bool wire_error(struct provider_reply *reply, struct json_view document, struct json_view error,
                enum error_class unknown);
/* The payload "[DONE]", which is no JSON. */
bool wire_is_done(const char *data, size_t len);
/* provider.event() of most families: parses and passes on. Blank events are ignored. Only chats are
 * streamed: events in the place of vectors or a list are an error. */
void wire_event(struct provider_reply *reply, const char *data, size_t len,
                wire_document *document);
/* provider.body(): gives `document` the whole body, or each item when it is an array (Gemini
 * without alt=sse), and concludes. A body that is a stream without saying so goes through event()
 * and end(). */
void wire_body(const struct provider *provider, struct provider_reply *reply, const char *data,
               size_t len, wire_document *document);

/* For each item of the array `list` of an object, the member `name`, less
 * `prefix`. 0, -EBADMSG, -ENOMEM. */
int wire_list(const char *data, size_t len, const char *list, const char *name, const char *prefix,
              struct buf *names);

#endif
