/* ZeroMQ sockets on the loop; the only place that knows zmq. */
#ifndef COMMON_BUS_H
#define COMMON_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"

enum bus_kind {
    BUS_DEALER, /* connects; one frame a message */
    BUS_ROUTER, /* binds; peer id + one frame */
    BUS_XPUB,   /* binds; sends events, receives subscriptions */
    BUS_SUB,    /* connects; receives events */
};

/* A peer of a ROUTER, as zmq names it: 5 bytes today, at most 255. */
struct bus_peer {
    uint8_t len;
    uint8_t id[255];
};

struct bus; /* one socket */

/* A frame has come. peer: ROUTER only, else NULL. The bytes are gone when it returns. */
typedef void bus_frame_fn(void *ctx, const struct bus_peer *peer, const uint8_t *data, size_t len);

struct bus_options {
    enum bus_kind kind;
    const char *endpoint;  /* ipc://PATH or tcp://HOST:PORT; borrowed during open */
    int64_t max_bytes;     /* MAXMSGSIZE; 0: MESSAGE_MAX_BYTES */
    int high_water;        /* messages queued per peer; 0: 10,000 */
    const char *subscribe; /* SUB: first topic prefix; NULL: none yet */
};

/* Whether a connection stands on which bus_send() gets through, at every change. */
typedef void bus_link_fn(void *ctx, bool up);

/* LINGER=0, ROUTER_MANDATORY, IMMEDIATE on DEALERs, ZMTP heartbeats on tcp. ipc sockets are 0600.
 * A bound tcp host may be a name of this machine. 0, or with a sentence: -EADDRINUSE when another
 * process serves the endpoint (a stale ipc socket is replaced), -EINVAL, -ENAMETOOLONG,
 * -EADDRNOTAVAIL, -EACCES, or another errno. */
int bus_open(struct bus **ret, uv_loop_t *loop, const struct bus_options *options, bus_frame_fn *fn,
             void *ctx, struct err *err);
/* Accepts NULL; no callback comes after it. What was just sent (a bye, a last event) still gets at
 * most BUS_LINGER_MS to leave, in the background. */
void bus_close(struct bus **bus);
/* DEALER only: fn is called, with bus_open()'s ctx, from the loop. */
void bus_watch(struct bus *bus, bus_link_fn *fn);

/* Never blocks. 0; -EAGAIN when the queue to that peer is full or (DEALER) nobody is connected;
 * -EHOSTUNREACH when the ROUTER doesn't know the peer. A XPUB drops instead. */
int bus_send(struct bus *bus, const struct bus_peer *peer, const void *data, size_t len);
int bus_subscribe(struct bus *bus, const char *prefix); /* SUB only */

/* Frames are read in bursts of at most this many before other handles get their turn. */
#define BUS_BURST 256
#define BUS_LINGER_MS 100

#endif
