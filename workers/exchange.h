/* One call of a provider: request, HTTP, framing, time limits, until there is an answer or an error
 * class. */
#ifndef WORKERS_EXCHANGE_H
#define WORKERS_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/governor.h"
#include "common/loop.h"
#include "workers/blame.h"
#include "workers/keys.h"
#include "workers/provider.h"

#define EXCHANGE_MAX_BYTES ((int64_t)64 * 1024 * 1024) /* of a body that is kept whole */
/* Of a stream: some servers wrap each token of a few bytes in half a KiB. */
#define EXCHANGE_MAX_STREAM ((int64_t)1024 * 1024 * 1024)
#define EXCHANGE_MAX_TEXT ((size_t)16 * 1024 * 1024) /* of an answer: what an outcome holds */
#define EXCHANGE_MAX_FAILURE ((size_t)1024 * 1024)   /* of an error body; the rest is dropped */
#define EXCHANGE_LINGER_MS 2000 /* how long the end of a finished stream is waited for */

struct exchanges; /* what the calls of a process share: connections and the clock of the limits */
struct exchange;  /* one call in flight */

/* In ms; 0: none. Checked every 50 ms. Any byte, also of an SSE comment, ends a gap. What is not
 * asked for as a stream has no first token, and no gap before its headers. */
struct exchange_limits {
    int64_t connect_ms;
    int64_t first_token_ms; /* from the request on, until text or reasoning */
    int64_t gap_ms;
    int64_t total_ms;
};

struct exchange_report {
    struct provider_reply *reply; /* error is CLASS_NONE for an answer; its buffers may be taken */
    int http_status;              /* 0: no answer */
    double connect_ms;            /* 0 on a reused connection */
    double ttft_ms;               /* request sent until first token; -1: none, or not streamed */
    double generate_ms;           /* the runtime's figure, else first to last token; -1: unknown */
    double total_ms;
    int64_t sent_bytes, received_bytes;
    struct governor_server server; /* its limits, by the headers */
};
/* Once per call, unless it is cancelled; the report is gone afterwards, and so is the exchange. */
typedef void exchange_done_fn(void *ctx, struct exchange_report *report);

int exchanges_open(struct exchanges **ret, uv_loop_t *loop, struct err *err);
void exchanges_close(struct exchanges **exchanges); /* accepts NULL; cancels what is in flight */
struct http *exchanges_http(struct exchanges *exchanges);
size_t exchanges_running(const struct exchanges *exchanges);

struct exchange_options {
    const struct provider *provider; /* borrowed until the end */
    struct provider_call call;       /* borrowed during the start; its key is filled in from key */
    struct key *key;                 /* a reference of its own is kept; NULL: none */
    struct exchange_limits limits;
    struct blame *blame;      /* borrowed; NULL: nobody asks which call killed the worker */
    struct blame_for attempt; /* for it; borrowed until the end */
};
/* *ret is set before done() comes, which may be before this returns (a provider without HTTP). 0;
 * -EINVAL with a sentence when the provider can't express the call; -ENOMEM. Without 0, no done().
 */
int exchange_start(struct exchange **ret, struct exchanges *exchanges,
                   const struct exchange_options *options, exchange_done_fn *done, void *ctx,
                   struct err *err);
void exchange_cancel(struct exchange **exchange); /* accepts NULL */

/* What has come so far. */
const struct provider_reply *exchange_reply(const struct exchange *exchange);
/* The report as it would be now, for a call that is about to be cancelled; its reply lives as long
 * as the exchange. */
void exchange_peek(struct exchange *exchange, struct exchange_report *ret);
double exchange_elapsed_ms(const struct exchange *exchange);

#endif
