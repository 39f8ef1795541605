/* The HTTP server under the simulator: whole requests in, timed answers out; the only place that
 * knows libmicrohttpd. It runs inside the loop, without threads. */
#ifndef SIMULATOR_HTTP_H
#define SIMULATOR_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"
#include "schemas/buf.h"

#define SIM_HTTP_MAX_BODY ((size_t)32 * 1024 * 1024)
#define SIM_HTTP_MAX_CONNECTIONS 20000

struct sim_http;
struct sim_exchange; /* one request and its answer */

struct sim_http_options {
    const char *listen; /* IPv4 address to bind */
    int port;           /* 0: any */
};

struct sim_http_handlers {
    /* A whole request has come. Must call exactly one of reply, stream, wait or cut. */
    void (*request)(void *ctx, struct sim_exchange *exchange);
    /* The exchange is over. sent: the whole answer was handed to the kernel. Frees its data. */
    void (*done)(void *ctx, struct sim_exchange *exchange, bool sent);
};

/* 0, or negative errno with a sentence (-EADDRINUSE names the port). */
int sim_http_open(struct sim_http **ret, uv_loop_t *loop, const struct sim_http_options *options,
                  const struct sim_http_handlers *handlers, void *ctx, struct err *err);
/* Cuts what is in flight (done() is called for each); accepts NULL. The loop must run once more
 * before it is closed. */
void sim_http_close(struct sim_http **http);
int sim_http_port(const struct sim_http *http);
int64_t sim_http_connections(const struct sim_http *http);

/* What came. Strings are borrowed and valid until done(). */
const char *sim_exchange_method(const struct sim_exchange *exchange);
const char *sim_exchange_path(const struct sim_exchange *exchange); /* percent-decoded, no query */
const char *sim_exchange_header(const struct sim_exchange *exchange, const char *name);
const char *sim_exchange_query(const struct sim_exchange *exchange, const char *name);
/* The body; the caller may take or release it to give its memory back early. */
struct buf *sim_exchange_body(struct sim_exchange *exchange);
/* The body exceeded SIM_HTTP_MAX_BODY and was dropped. */
bool sim_exchange_too_large(const struct sim_exchange *exchange);

void sim_exchange_set_data(struct sim_exchange *exchange, void *data);
void *sim_exchange_data(const struct sim_exchange *exchange);

/* Answers at once. headers: "Name: value" lines ended by \n, may be NULL; body is taken. */
void sim_exchange_reply(struct sim_exchange *exchange, int status, const char *type,
                        const struct buf *headers, struct buf *body);

enum sim_fill {
    SIM_FILL_MORE, /* call again when *ret_wait_ms has passed (< 0: never by itself) */
    SIM_FILL_END,  /* what was added is the end of the body */
    SIM_FILL_CUT,  /* the connection is closed after what was added, in the middle of the body */
};
/* Appends what is due to `out`. Called only when all earlier bytes were taken by the kernel, so a
 * slow reader slows the answer instead of filling memory. */
typedef enum sim_fill sim_fill_fn(void *ctx, struct sim_exchange *exchange, struct buf *out,
                                  double *ret_wait_ms);
/* Answers with a chunked body that is produced over time. */
void sim_exchange_stream(struct sim_exchange *exchange, int status, const char *type,
                         const struct buf *headers, sim_fill_fn *fill);
/* The body of the stream trickles: at most `bytes` every `every_ms`. Before sim_exchange_stream().
 */
void sim_exchange_drip(struct sim_exchange *exchange, int64_t bytes, int64_t every_ms);

/* Nothing happens on the wire for wait_ms, then fn is called and must answer. */
typedef void sim_exchange_fn(void *ctx, struct sim_exchange *exchange);
void sim_exchange_wait(struct sim_exchange *exchange, double wait_ms, sim_exchange_fn *fn);
/* Closes the connection without a word. */
void sim_exchange_cut(struct sim_exchange *exchange);

#endif
