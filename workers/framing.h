/* Cuts a streamed body into events: server-sent events or newline-delimited JSON, split anywhere.
 */
#ifndef WORKERS_FRAMING_H
#define WORKERS_FRAMING_H

#include <stdbool.h>
#include <stddef.h>

#include "schemas/buf.h"
#include "workers/provider.h"

#define FRAMING_MAX_EVENT ((size_t)8 * 1024 * 1024)

/* One event's payload: SSE data lines joined by \n, or one NDJSON line; not NUL-terminated, gone
 * after the call. Return false to stop feeding. */
typedef bool framing_fn(void *ctx, const char *data, size_t len);

struct framing {
    enum provider_framing kind;
    struct buf pending; /* a line, or an event's data, not yet complete */
    struct buf data;
    bool last_was_cr;
    bool has_data;
    bool stopped;
};

void framing_init(struct framing *framing, enum provider_framing kind);
void framing_release(struct framing *framing);
/* 0; -EMSGSIZE when an event exceeds FRAMING_MAX_EVENT; -ENOMEM. The result does not depend on how
 * the bytes are cut. An event that lies whole in `data` is passed without being copied. */
int framing_feed(struct framing *framing, const char *data, size_t len, framing_fn *fn, void *ctx);
/* The body ended: what is buffered is one last event. */
int framing_end(struct framing *framing, framing_fn *fn, void *ctx);

#endif
