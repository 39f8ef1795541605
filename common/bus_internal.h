/* What the files of the bus share. Only they know zmq. */
#ifndef COMMON_BUS_INTERNAL_H
#define COMMON_BUS_INTERNAL_H

#include <zmq.h>

#include "common/bus.h"
#include "common/containers.h"
#include "common/ipc.h"

#define BUS_ZAP_DOMAIN_SIZE 32

/* How zmq meets the loop. Its descriptor tells of changes, not of states: it becomes readable once
 * when the socket gets something to do, and any call on the socket may take that signal away. So
 * frames are read until zmq says that there are none. Where that was not reached (the burst ended)
 * or a call came in between (a send), the socket is `dirty`: while it is, an idle handle keeps the
 * poll from blocking, and frames are read after the poll (check). Just before the poll (prepare) a
 * look at the socket usually shows that it is clean again, which spares that extra turn. */
struct bus {
    void *socket; /* zmq's */
    enum bus_kind kind;
    int (*deliver)(struct bus *bus); /* reads one message; -EAGAIN: there is none */
    bus_frame_fn *fn;
    bus_link_fn *link_fn; /* NULL: not watched */
    void *ctx;
    uv_poll_t poll;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle;
    int n_handles; /* not yet closed */
    bool dirty;
    bool read; /* in this turn of the loop: one burst is enough */
    bool up;   /* DEALER: writable, as last told to link_fn */
    bool closed;
    bool bound_ipc;
    struct ipc_listener ipc;
    /* Bound sockets. */
    bool secure;                      /* with CURVE: peers have proved their keys */
    char domain[BUS_ZAP_DOMAIN_SIZE]; /* of the ZAP handler's questions */
    bus_admit_fn *admit;              /* with secure */
    TAILQ_ENTRY(bus) asking;          /* among those that have `admit` */
    struct bus_door *door;            /* its connections; NULL: not looked at */
};

/* --- bus.c ---------------------------------------------------------------------------------- */

/* The process's context; every bus counts as a user of it while it lives. */
void *bus_context_use(void);
void bus_context_leave(void);

/* Puts the bus, whose socket is open, on the loop. */
int bus_join_loop(struct bus *bus, uv_loop_t *loop, struct err *err);
/* A socket for the bus itself: deliver is called when there is something to read. It takes the
 * socket over, also on failure. */
int bus_adopt(struct bus **ret, uv_loop_t *loop, void *socket, int (*deliver)(struct bus *bus),
              void *ctx, struct err *err);
/* The call may have taken the signal of zmq's descriptor away. */
void bus_touched(struct bus *bus);
int bus_set_int(struct bus *bus, int option, int value);

/* --- bus_endpoint.c: options, binding, connecting ------------------------------------------- */

int bus_attach(struct bus *bus, const struct bus_options *options, struct err *err);

/* --- bus_zap.c: who may connect ------------------------------------------------------------- */

/* Before the socket is bound: gives the bus a domain, and answers what zmq asks for it. */
int bus_zap_enter(struct bus *bus, uv_loop_t *loop, struct err *err);
void bus_zap_leave(struct bus *bus); /* after the socket was closed */

/* --- bus_door.c: the connections of a bound socket ------------------------------------------ */

/* Before the socket is bound. */
int bus_door_open(struct bus *bus, uv_loop_t *loop, size_t max_connections, struct err *err);
void bus_door_close(struct bus *bus); /* before the socket is closed */
/* The next connection that ends without a frame is our own: it is not counted. */
void bus_door_forgive(struct bus *bus);
/* Notes that a frame came over descriptor fd, and fills in ret->fd, serial and frames. */
void bus_door_frame(struct bus *bus, int fd, struct bus_peer *ret);

#endif
