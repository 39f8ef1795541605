/* Cuts a streamed body into events: server-sent events or newline-delimited JSON, split anywhere.
 */
#ifndef WORKERS_FRAMING_H
#define WORKERS_FRAMING_H

#include <stdbool.h>
#include <stddef.h>

#include "schemas/buf.h"
#include "workers/provider.h"

#define FRAMING_MAX_EVENT ((size_t)8 * 1024 * 1024)

/* One event's payload: SSE data lines joined by \n (HTML standard, "Server-sent events"), or one
 * NDJSON line that is not blank; not NUL-terminated, gone after the call. Some servers write a raw
 * JSON error, of one line or many, between the events: lines from one that begins with { or [ up
 * to the next field or the end of the body are one payload, too. Return false to stop feeding. */
typedef bool framing_fn(void *ctx, const char *data, size_t len);

struct framing {
    enum provider_framing kind;
    struct buf pending; /* a line not yet complete */
    struct buf data;    /* of an event not yet complete */
    const char *whole;  /* borrowed from the bytes being fed: an event's only data line so far */
    size_t whole_len;
    bool started;     /* the first line was seen: only there a byte order mark may be */
    bool last_was_cr; /* a line feed that comes next ends no line */
    bool has_data;    /* in `whole` when that is set, else in `data` */
    bool raw;         /* the event is raw JSON */
    bool stopped;     /* the callback wants no more */
    int failed;       /* what framing_feed() returned and returns from now on; 0: nothing */
};

void framing_init(struct framing *framing, enum provider_framing kind);
void framing_release(struct framing *framing);
/* 0; -EMSGSIZE when a line or an event exceeds FRAMING_MAX_EVENT; -ENOMEM. After a failure every
 * later call returns it again. The result does not depend on how the bytes are cut. An event that
 * lies whole in `data` is passed without being copied. */
int framing_feed(struct framing *framing, const char *data, size_t len, framing_fn *fn, void *ctx);
/* The body ended: what is buffered is one last event. */
int framing_end(struct framing *framing, framing_fn *fn, void *ctx);

#endif
