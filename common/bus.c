#include "common/bus.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/ipc.h"
#include "schemas/mem.h"
#include "schemas/message.h"

#define DEFAULT_HIGH_WATER 10000

/* How zmq meets the loop. Its descriptor tells of changes, not of states: it becomes readable once
 * when the socket gets something to do, and any call on the socket may take that signal away. So
 * frames are read until zmq says that there are none. Where that was not reached (the burst ended)
 * or a call came in between (a send), the socket is `dirty`: while it is, an idle handle keeps the
 * poll from blocking, and frames are read after the poll (check). Just before the poll (prepare) a
 * look at the socket usually shows that it is clean again, which spares that extra turn. */
struct bus {
    void *socket; /* zmq's */
    enum bus_kind kind;
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
};

/* --- one context per process, as long as it has sockets ----------------------------------- */

static void *context;
static int context_users;

static void *context_use(void)
{
    if (context_users == 0)
        context = zmq_ctx_new();
    if (context != NULL)
        context_users++;
    return context;
}

static void context_leave(void)
{
    if (--context_users > 0)
        return;
    while (zmq_ctx_term(context) != 0 && errno == EINTR)
        ;
    context = NULL;
}

/* --- reading ------------------------------------------------------------------------------ */

static int events_of(struct bus *bus)
{
    int events = 0;
    size_t size = sizeof events;
    return zmq_getsockopt(bus->socket, ZMQ_EVENTS, &events, &size) == 0 ? events : 0;
}

/* Reads what follows a message's expected frames; true when there was something. */
static bool drop_rest(struct bus *bus, zmq_msg_t *frame)
{
    bool more = zmq_msg_more(frame) != 0;
    for (bool next = more; next;) {
        zmq_msg_t rest;
        zmq_msg_init(&rest);
        next = zmq_msg_recv(&rest, bus->socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&rest) != 0;
        zmq_msg_close(&rest);
    }
    return more;
}

/* The id in front of a ROUTER's message; false when the message has nothing else. */
static bool take_peer(struct bus *bus, zmq_msg_t *frame, struct bus_peer *ret)
{
    size_t len = zmq_msg_size(frame);
    if (!zmq_msg_more(frame) || len > sizeof ret->id) {
        drop_rest(bus, frame);
        return false;
    }
    ret->len = (uint8_t)len;
    memcpy(ret->id, zmq_msg_data(frame), len);
    return zmq_msg_recv(frame, bus->socket, ZMQ_DONTWAIT) >= 0;
}

/* Reads and delivers one message; a message of another shape is dropped. 0, or -EAGAIN when there
 * is none. */
static int deliver_one(struct bus *bus)
{
    struct bus_peer peer = {0};
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, bus->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return -EAGAIN;
    }
    bool router = bus->kind == BUS_ROUTER;
    if ((!router || take_peer(bus, &frame, &peer)) && !drop_rest(bus, &frame))
        bus->fn(bus->ctx, router ? &peer : NULL, zmq_msg_data(&frame), zmq_msg_size(&frame));
    zmq_msg_close(&frame);
    return 0;
}

static bool link_changed(const struct bus *bus, int events)
{
    return bus->link_fn != NULL && ((events & ZMQ_POLLOUT) != 0) != bus->up;
}

static void never_blocks(uv_idle_t *handle)
{
    (void)handle;
}

static void set_dirty(struct bus *bus, bool dirty)
{
    bus->dirty = dirty;
    if (bus->n_handles == 0)
        return; /* not on the loop yet */
    if (dirty)
        uv_idle_start(&bus->idle, never_blocks);
    else
        uv_idle_stop(&bus->idle);
}

static void read_burst(struct bus *bus)
{
    int rc = 0;
    for (int i = 0; i < BUS_BURST && rc == 0 && !bus->closed; i++)
        rc = deliver_one(bus);
    if (bus->closed)
        return;
    set_dirty(bus, rc == 0);
    if (bus->link_fn == NULL)
        return;
    int events = events_of(bus);
    set_dirty(bus, (events & ZMQ_POLLIN) != 0);
    if (link_changed(bus, events)) {
        bus->up = !bus->up;
        bus->link_fn(bus->ctx, bus->up);
    }
}

static void polled(uv_poll_t *handle, int status, int events)
{
    struct bus *bus = handle->data;
    (void)status, (void)events;
    bus->read = true;
    read_burst(bus);
}

static void about_to_block(uv_prepare_t *handle)
{
    struct bus *bus = handle->data;
    if (!bus->dirty)
        return;
    int events = events_of(bus);
    set_dirty(bus, (events & ZMQ_POLLIN) != 0 || link_changed(bus, events));
}

static void polled_others(uv_check_t *handle)
{
    struct bus *bus = handle->data;
    bool read = bus->read;
    bus->read = false;
    if (bus->dirty && !read)
        read_burst(bus);
}

/* --- sending ------------------------------------------------------------------------------ */

static int send_frame(struct bus *bus, const void *data, size_t len, int more)
{
    while (zmq_send(bus->socket, data, len, ZMQ_DONTWAIT | more) < 0)
        if (errno != EINTR)
            return errno == EHOSTUNREACH ? -EHOSTUNREACH : -EAGAIN;
    return 0;
}

int bus_send(struct bus *bus, const struct bus_peer *peer, const void *data, size_t len)
{
    set_dirty(bus, true);
    if (bus->kind == BUS_ROUTER) {
        int rc = send_frame(bus, peer->id, peer->len, ZMQ_SNDMORE);
        if (rc != 0)
            return rc;
    }
    return send_frame(bus, data, len, 0);
}

int bus_subscribe(struct bus *bus, const char *prefix)
{
    set_dirty(bus, true);
    return zmq_setsockopt(bus->socket, ZMQ_SUBSCRIBE, prefix, strlen(prefix)) == 0 ? 0 : -errno;
}

void bus_watch(struct bus *bus, bus_link_fn *fn)
{
    bus->link_fn = fn;
    bus->up = false;
    set_dirty(bus, true); /* the state of now is told from the loop */
}

/* --- opening ------------------------------------------------------------------------------ */

static int set_int(struct bus *bus, int option, int value)
{
    return zmq_setsockopt(bus->socket, option, &value, sizeof value) == 0 ? 0 : -errno;
}

static int set_options(struct bus *bus, const struct bus_options *options, bool tcp)
{
    int high_water = options->high_water > 0 ? options->high_water : DEFAULT_HIGH_WATER;
    int64_t max_bytes = options->max_bytes > 0 ? options->max_bytes : (int64_t)MESSAGE_MAX_BYTES;
    const struct {
        bool applies;
        int option, value;
    } table[] = {
        {true, ZMQ_LINGER, 0},
        {true, ZMQ_SNDHWM, high_water},
        {true, ZMQ_RCVHWM, high_water},
        {true, ZMQ_BACKLOG, 1024},
        {true, ZMQ_RECONNECT_IVL, tcp ? 20 : 10},
        {true, ZMQ_RECONNECT_IVL_MAX, tcp ? 500 : 100},
        {strchr(options->endpoint, '[') != NULL, ZMQ_IPV6, 1},
        {tcp, ZMQ_CONNECT_TIMEOUT, 5000},
        {tcp, ZMQ_HEARTBEAT_IVL, 2000},
        {tcp, ZMQ_HEARTBEAT_TIMEOUT, 6000},
        {tcp, ZMQ_HEARTBEAT_TTL, 6000},
        {options->kind == BUS_ROUTER, ZMQ_ROUTER_MANDATORY, 1},
        {options->kind == BUS_DEALER, ZMQ_IMMEDIATE, 1},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table && rc == 0; i++)
        if (table[i].applies)
            rc = set_int(bus, table[i].option, table[i].value);
    if (rc == 0 && zmq_setsockopt(bus->socket, ZMQ_MAXMSGSIZE, &max_bytes, sizeof max_bytes) != 0)
        rc = -errno;
    /* With a ZAP domain, zmq refuses the first two versions of its protocol, whose handshake lets
     * noise pass for frames, and aborts when a socket is closed in the middle of it (4.3.4,
     * zmtp_engine.cpp: process_routing_id_msg). Without a ZAP handler it has no other effect. */
    if (rc == 0 && zmq_setsockopt(bus->socket, ZMQ_ZAP_DOMAIN, "orchestrator", 12) != 0)
        rc = -errno;
    return rc;
}

/* zmq binds addresses and interfaces only; a configuration names hosts. Writes the endpoint with
 * the address of the host, or as it was when the name is unknown: zmq then explains. */
static void resolve_tcp(const char *endpoint, char *ret, size_t size)
{
    char host[256], address[256];
    const char *rest = endpoint + strlen("tcp://");
    const char *colon = strrchr(rest, ':');
    snprintf(ret, size, "%s", endpoint);
    if (colon == NULL || rest[0] == '*' || rest[0] == '[' || (size_t)(colon - rest) >= sizeof host)
        return;
    snprintf(host, sizeof host, "%.*s", (int)(colon - rest), rest);
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return;
    if (getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof address, NULL, 0,
                    NI_NUMERICHOST) == 0)
        snprintf(ret, size, "tcp://%s%s", address, colon);
    freeaddrinfo(found);
}

static int bind_failed(const char *endpoint, int error, struct err *err)
{
    static const struct {
        int error;
        const char *advice;
    } table[] = {
        {EADDRINUSE, "another process uses it: stop that one, or choose another endpoint"},
        {EADDRNOTAVAIL, "this machine has no such address: use one of its own, or tcp://*:PORT"},
        {ENODEV, "this machine has no such address: use one of its own, or tcp://*:PORT"},
        {EACCES, "not allowed: use a port above 1023, or run with the rights for it"},
        {EINVAL, "this is no endpoint: use tcp://HOST:PORT or ipc:///PATH"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].error == error)
            return err_set(err, error == ENODEV ? -EADDRNOTAVAIL : -error,
                           "cannot listen on %s: %s", endpoint, table[i].advice);
    return err_set(err, -error, "cannot listen on %s: %s", endpoint, zmq_strerror(error));
}

static int bind_ipc(struct bus *bus, const char *endpoint, struct err *err)
{
    int rc = ipc_listen(&bus->ipc, endpoint + strlen("ipc://"), err);
    if (rc != 0)
        return rc;
    bus->bound_ipc = true;
    /* zmq owns the descriptor from here on, and leaves the file to us. */
    if (set_int(bus, ZMQ_USE_FD, bus->ipc.fd) != 0 || zmq_bind(bus->socket, endpoint) != 0)
        return bind_failed(endpoint, errno, err);
    return 0;
}

static int attach(struct bus *bus, const struct bus_options *options, bool tcp, struct err *err)
{
    char resolved[512];
    const char *endpoint = options->endpoint;
    if (options->kind == BUS_DEALER || options->kind == BUS_SUB) {
        if (zmq_connect(bus->socket, endpoint) == 0)
            return 0;
        return err_set(err, -errno, "cannot connect to %s: %s; use tcp://HOST:PORT or ipc:///PATH",
                       endpoint, zmq_strerror(errno));
    }
    if (!tcp)
        return bind_ipc(bus, endpoint, err);
    resolve_tcp(endpoint, resolved, sizeof resolved);
    return zmq_bind(bus->socket, resolved) == 0 ? 0 : bind_failed(endpoint, errno, err);
}

/* zmq takes a port modulo 65536, and other schemes that nobody has tested here. */
static bool endpoint_valid(const char *endpoint)
{
    if (strncmp(endpoint, "ipc://", 6) == 0)
        return true; /* ipc_listen() and zmq_connect() look at the rest */
    const char *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) != 0 || colon <= endpoint + 6)
        return false;
    char *end;
    long port = strtol(colon + 1, &end, 10);
    return colon[1] >= '0' && colon[1] <= '9' && *end == '\0' && port >= 1 && port <= 65535;
}

static int open_socket(struct bus *bus, const struct bus_options *options, struct err *err)
{
    static const int types[] = {ZMQ_DEALER, ZMQ_ROUTER, ZMQ_XPUB, ZMQ_SUB};
    bool tcp = strncmp(options->endpoint, "tcp://", 6) == 0;
    if (!endpoint_valid(options->endpoint))
        return err_set(err, -EINVAL, "%s is no endpoint: use tcp://HOST:PORT or ipc:///PATH",
                       options->endpoint);
    bus->socket = zmq_socket(context, types[options->kind]);
    if (bus->socket == NULL)
        return err_set(err, -errno, "cannot open a socket for %s: %s", options->endpoint,
                       zmq_strerror(errno));
    int rc = set_options(bus, options, tcp);
    if (rc == 0 && options->subscribe != NULL)
        rc = bus_subscribe(bus, options->subscribe);
    if (rc != 0)
        return err_set(err, rc, "cannot set up a socket for %s: %s", options->endpoint,
                       zmq_strerror(-rc));
    return attach(bus, options, tcp, err);
}

static int join_loop(struct bus *bus, uv_loop_t *loop, struct err *err)
{
    int fd = -1;
    size_t size = sizeof fd;
    int rc = zmq_getsockopt(bus->socket, ZMQ_FD, &fd, &size) == 0 ? 0 : -errno;
    if (rc == 0)
        rc = uv_poll_init(loop, &bus->poll, fd);
    if (rc != 0)
        return err_set(err, rc, "cannot watch a bus socket: %s", strerror(-rc));
    uv_prepare_init(loop, &bus->prepare);
    uv_check_init(loop, &bus->check);
    uv_idle_init(loop, &bus->idle);
    bus->poll.data = bus->prepare.data = bus->check.data = bus->idle.data = bus;
    bus->n_handles = 4;
    uv_poll_start(&bus->poll, UV_READABLE, polled);
    uv_prepare_start(&bus->prepare, about_to_block);
    uv_check_start(&bus->check, polled_others);
    set_dirty(bus, true); /* what came before the descriptor was watched */
    return 0;
}

static void close_socket(struct bus *bus)
{
    if (bus->socket != NULL) {
        set_int(bus, ZMQ_LINGER, BUS_LINGER_MS);
        zmq_close(bus->socket);
    }
    if (bus->bound_ipc)
        ipc_unlisten(&bus->ipc);
    context_leave();
}

int bus_open(struct bus **ret, uv_loop_t *loop, const struct bus_options *options, bus_frame_fn *fn,
             void *ctx, struct err *err)
{
    if (context_use() == NULL)
        return err_set(err, -errno, "cannot start ZeroMQ: %s", zmq_strerror(errno));
    struct bus *bus = mem_must_zalloc(sizeof *bus);
    bus->kind = options->kind;
    bus->fn = fn;
    bus->ctx = ctx;
    int rc = open_socket(bus, options, err);
    if (rc == 0)
        rc = join_loop(bus, loop, err);
    if (rc != 0) {
        close_socket(bus);
        free(bus);
        return rc;
    }
    *ret = bus;
    return 0;
}

static void handle_closed(uv_handle_t *handle)
{
    struct bus *bus = handle->data;
    if (--bus->n_handles == 0)
        free(bus);
}

void bus_close(struct bus **bus_ptr)
{
    struct bus *bus = *bus_ptr;
    if (bus == NULL)
        return;
    *bus_ptr = NULL;
    bus->closed = true;
    uv_close((uv_handle_t *)&bus->poll, handle_closed);
    uv_close((uv_handle_t *)&bus->prepare, handle_closed);
    uv_close((uv_handle_t *)&bus->check, handle_closed);
    uv_close((uv_handle_t *)&bus->idle, handle_closed);
    close_socket(bus);
}
