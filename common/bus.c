#include "common/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus_internal.h"
#include "schemas/mem.h"

/* --- one context per process, as long as it has sockets ----------------------------------- */

static void *context;
static int context_users;

void *bus_context_use(void)
{
    if (context_users == 0)
        context = zmq_ctx_new();
    if (context != NULL)
        context_users++;
    return context;
}

void bus_context_leave(void)
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

/* Who sent the frame, and over which connection. The ZAP handler names a peer by its key. */
static void describe(struct bus *bus, zmq_msg_t *frame, struct bus_peer *ret)
{
    const char *key = bus->secure ? zmq_msg_gets(frame, "User-Id") : NULL;
    if (key != NULL && strlen(key) < sizeof ret->public_key)
        memcpy(ret->public_key, key, strlen(key) + 1);
    ret->fd = -1;
    if (bus->door != NULL)
        bus_door_frame(bus, zmq_msg_get(frame, ZMQ_SRCFD), ret);
}

/* Reads and delivers one message; a message of another shape is dropped. 0, or -EAGAIN when there
 * is none. */
static int deliver_one(struct bus *bus)
{
    struct bus_peer peer;
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, bus->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return -EAGAIN;
    }
    bool router = bus->kind == BUS_ROUTER;
    peer.public_key[0] = '\0';
    if ((!router || take_peer(bus, &frame, &peer)) && !drop_rest(bus, &frame)) {
        if (router)
            describe(bus, &frame, &peer);
        bus->fn(bus->ctx, router ? &peer : NULL, zmq_msg_data(&frame), zmq_msg_size(&frame));
    }
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
        rc = bus->deliver(bus);
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

void bus_touched(struct bus *bus)
{
    set_dirty(bus, true);
}

/* --- opening ------------------------------------------------------------------------------ */

int bus_set_int(struct bus *bus, int option, int value)
{
    return zmq_setsockopt(bus->socket, option, &value, sizeof value) == 0 ? 0 : -errno;
}

/* Names the bus to the ZAP handler and looks at its connections before there can be any. */
static int guard(struct bus *bus, uv_loop_t *loop, const struct bus_options *options,
                 struct err *err)
{
    int rc = 0;
    bus->secure = options->secret_key != NULL && strncmp(options->endpoint, "tcp://", 6) == 0;
    bus->admit = bus->secure ? options->admit : NULL;
    if (bus->secure)
        rc = bus_zap_enter(bus, loop, err);
    if (rc == 0 && options->max_connections > 0)
        rc = bus_door_open(bus, loop, options->max_connections, err);
    return rc;
}

static int open_socket(struct bus *bus, uv_loop_t *loop, const struct bus_options *options,
                       struct err *err)
{
    static const int types[] = {ZMQ_DEALER, ZMQ_ROUTER, ZMQ_XPUB, ZMQ_SUB};
    bus->socket = zmq_socket(context, types[options->kind]);
    if (bus->socket == NULL)
        return err_set(err, -errno, "cannot open a socket for %s: %s", options->endpoint,
                       zmq_strerror(errno));
    int rc = guard(bus, loop, options, err);
    return rc == 0 ? bus_attach(bus, options, err) : rc;
}

int bus_join_loop(struct bus *bus, uv_loop_t *loop, struct err *err)
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
    bus_door_close(bus);
    if (bus->socket != NULL) {
        bus_set_int(bus, ZMQ_LINGER, BUS_LINGER_MS);
        zmq_close(bus->socket);
    }
    if (bus->bound_ipc)
        ipc_unlisten(&bus->ipc);
    if (bus->secure)
        bus_zap_leave(bus);
    bus_context_leave();
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

int bus_open(struct bus **ret, uv_loop_t *loop, const struct bus_options *options, bus_frame_fn *fn,
             void *ctx, struct err *err)
{
    if (bus_context_use() == NULL)
        return err_set(err, -errno, "cannot start ZeroMQ: %s", zmq_strerror(errno));
    struct bus *bus = mem_must_zalloc(sizeof *bus);
    bus->kind = options->kind;
    bus->deliver = deliver_one;
    bus->fn = fn;
    bus->ctx = ctx;
    int rc = open_socket(bus, loop, options, err);
    if (rc == 0)
        rc = bus_join_loop(bus, loop, err);
    if (rc != 0) {
        close_socket(bus);
        free(bus);
        return rc;
    }
    *ret = bus;
    return 0;
}

int bus_adopt(struct bus **ret, uv_loop_t *loop, void *socket, int (*deliver)(struct bus *bus),
              void *ctx, struct err *err)
{
    struct bus *bus = mem_must_zalloc(sizeof *bus);
    bus->socket = socket;
    bus->deliver = deliver;
    bus->ctx = ctx;
    int rc = bus_join_loop(bus, loop, err);
    if (rc != 0) {
        close_socket(bus);
        free(bus);
        return rc;
    }
    *ret = bus;
    return 0;
}

bool bus_secure(const struct bus *bus)
{
    return bus->secure;
}
