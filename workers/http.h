/* HTTP client on the loop, for thousands of calls in flight; the only place that knows curl. */
#ifndef WORKERS_HTTP_H
#define WORKERS_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"
#include "schemas/buf.h"
#include "workers/http_headers.h"

struct http;      /* connections and idle handles, shared by all calls */
struct http_call; /* one request and its response */

/* How a call ended. Without any status, nothing of the answer was seen. */
enum http_end {
    HTTP_END_WELL,     /* the whole response came, whatever its status */
    HTTP_END_CONNECT,  /* no connection: name, address, refused, TLS handshake */
    HTTP_END_BROKEN,   /* the connection broke, or what came is no HTTP */
    HTTP_END_REFUSED,  /* not worth repeating: URL, protocol, certificate */
    HTTP_END_STOPPED,  /* head() or body() returned false */
    HTTP_END_INTERNAL, /* out of memory and the like */
};

struct http_callbacks {
    /* The headers of the final response (no 1xx) are complete; they are gone after the call. False
     * stops the call. */
    bool (*head)(void *ctx, int status, const struct http_headers *headers);
    /* Bytes of the body, len > 0; gone after the call. False stops the call. */
    bool (*body)(void *ctx, const char *data, size_t len);
    /* The last callback; the call may still be asked for its figures, and is freed afterwards. why:
     * curl's words, "" when it ended well; they may quote the URL. */
    void (*done)(void *ctx, enum http_end end, const char *why);
};

/* loop must outlive it. 0 or -ENOMEM. */
int http_open(struct http **ret, uv_loop_t *loop, struct err *err);
void http_close(struct http **http); /* accepts NULL; calls in flight end without callbacks */

/* POST when body is not empty, else GET. headers: "Name: value\n" lines, borrowed; they are wiped
 * from memory when the call ends. body: taken, and freed as soon as it is sent. Redirects are not
 * followed; proxies of the environment are honoured except for loopback addresses. There are no
 * time limits here but curl's 300 s for connecting. No callback before it returns. 0; -EINVAL for
 * an URL that is not http or https; -ENOMEM. */
int http_start(struct http_call **ret, struct http *http, const char *url, const char *headers,
               struct buf *body, const struct http_callbacks *callbacks, void *ctx,
               struct err *err);
/* Ends the call and closes its connection; no callback comes any more. Allowed in any callback,
 * also in the call's own. Accepts NULL. */
void http_cancel(struct http_call **call);

/* Whether a connection stands (or was reused) for this call. */
bool http_connected(const struct http_call *call);

struct http_figures {
    double connect_ms; /* name, TCP and TLS; 0 on a reused connection */
    double wait_ms;    /* start until the request could be sent */
    int64_t sent_bytes;
};
void http_figures(const struct http_call *call, struct http_figures *ret);

#endif
