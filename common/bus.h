/* ZeroMQ sockets on the loop; the only place that knows zmq. */
#ifndef COMMON_BUS_H
#define COMMON_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/keyring.h"
#include "common/loop.h"

enum bus_kind {
    BUS_DEALER, /* connects; one frame a message */
    BUS_ROUTER, /* binds; peer id + one frame */
    BUS_XPUB,   /* binds; sends events, receives subscriptions */
    BUS_SUB,    /* connects; receives events */
};

/* A peer of a ROUTER, as zmq names it: 5 bytes today, at most 255. What follows is of the
 * connection over which a frame came. */
struct bus_peer {
    uint8_t len;
    uint8_t id[255];
    char public_key[KEYRING_KEY_SIZE]; /* that it has proved to have; "": it is not encrypted */
    int fd;                            /* of the connection; -1: not known */
    uint64_t serial;                   /* tells it from others with the same descriptor */
    uint32_t frames;                   /* that came over it since the last bus_sweep() */
};

struct bus; /* one socket */

/* A frame has come. peer: ROUTER only, else NULL. The bytes are gone when it returns. */
typedef void bus_frame_fn(void *ctx, const struct bus_peer *peer, const uint8_t *data, size_t len);

/* Whether a peer may connect. */
enum bus_answer {
    BUS_ADMIT,
    BUS_LATER,  /* it waits: asked again by bus_reconsider(), until zmq closes it (5 s) */
    BUS_REFUSE, /* its socket gives up */
};
/* Asked at each connection, with the key that the peer has proved to have. address: of its host. */
typedef enum bus_answer bus_admit_fn(void *ctx, const char *public_key, const char *address);

/* The keys with which a peer connects. */
struct bus_keys {
    char server[KEYRING_KEY_SIZE]; /* the brokers' public key */
    struct keyring_pair own;
};

struct bus_options {
    enum bus_kind kind;
    const char *endpoint;  /* ipc://PATH or tcp://HOST:PORT; borrowed during open */
    int64_t max_bytes;     /* MAXMSGSIZE; 0: MESSAGE_MAX_BYTES */
    int high_water;        /* messages queued per peer; 0: 10,000 */
    const char *subscribe; /* SUB: first topic prefix; NULL: none yet */

    /* CURVE, on tcp only: ipc is never encrypted. Borrowed during open; NULL: plain. */
    const struct bus_keys *keys; /* DEALER, SUB */
    const char *secret_key;      /* ROUTER, XPUB: the brokers' */
    bus_admit_fn *admit;         /* with secret_key; gets bus_open()'s ctx */
    /* ROUTER, XPUB: most connections at once, the next ones are closed; 0: not looked at, and then
     * bus_cut() and the like do nothing. */
    size_t max_connections;
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
/* Whether peers of a bound socket are encrypted and asked for keys. */
bool bus_secure(const struct bus *bus);
/* DEALER only: fn is called, with bus_open()'s ctx, from the loop. */
void bus_watch(struct bus *bus, bus_link_fn *fn);

/* Never blocks. 0; -EAGAIN when the queue to that peer is full or (DEALER) nobody is connected;
 * -EHOSTUNREACH when the ROUTER doesn't know the peer. A XPUB drops instead. */
int bus_send(struct bus *bus, const struct bus_peer *peer, const void *data, size_t len);
int bus_subscribe(struct bus *bus, const char *prefix); /* SUB only */

/* --- the connections of a bound socket that has max_connections --------------------------------
 */

struct bus_counts {
    size_t open;
    uint64_t cut;     /* by us, since the start: too many, too silent, or by bus_cut() */
    uint64_t failed;  /* that ended without having sent a frame, and not by us: were refused, spoke
                         another language, broke off (and subscribers, of a XPUB) */
    uint64_t starved; /* times that there was no descriptor for one */
};
void bus_counts(const struct bus *bus, struct bus_counts *ret);
/* The peer has introduced itself: bus_sweep() leaves its connection alone. */
void bus_settle(struct bus *bus, const struct bus_peer *peer);
/* Counts something bad that came over the connection; returns how much that was. */
unsigned bus_blame(struct bus *bus, const struct bus_peer *peer);
/* Ends the connection; the peer may come again. False: it has ended already, or is not looked at.
 */
bool bus_cut(struct bus *bus, const struct bus_peer *peer);
/* Ends the connections that are not settled silent_ms after they came, and counts frames anew. */
void bus_sweep(struct bus *bus, int64_t silent_ms);

/* Asks `admit` again for those who wait. */
void bus_reconsider(struct bus *bus);
/* Tries to get in at a socket that was opened with secret_key, with the stranger's key and without
 * any, while the loop runs. 0 when both were refused; -EACCES: let in; -ETIMEDOUT: no answer. */
int bus_self_test(struct bus *bus, uv_loop_t *loop, const struct keyring_pair *stranger,
                  struct err *err);

/* Frames are read in bursts of at most this many before other handles get their turn. */
#define BUS_BURST 256
#define BUS_LINGER_MS 100

#endif
