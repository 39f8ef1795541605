/* Whether a bound socket really keeps strangers out: tried, not assumed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/bus_internal.h"
#include "common/clock.h"

#define PATIENCE_MS 5000
#define LET_IN ZMQ_EVENT_HANDSHAKE_SUCCEEDED
#define KEPT_OUT                                                                                   \
    (ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |                       \
     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_DISCONNECTED)

/* Where this process reaches the socket: a wildcard is bound on the loopback too. */
static void own_endpoint(struct bus *bus, char *ret, size_t size)
{
    char bound[256] = "";
    size_t bound_size = sizeof bound;
    zmq_getsockopt(bus->socket, ZMQ_LAST_ENDPOINT, bound, &bound_size);
    const char *colon = strrchr(bound, ':');
    bool any4 = strncmp(bound, "tcp://0.0.0.0:", 14) == 0;
    bool any6 = strncmp(bound, "tcp://[::]:", 11) == 0;
    if (colon != NULL && (any4 || any6))
        snprintf(ret, size, "tcp://%s%s", any6 ? "[::1]" : "127.0.0.1", colon);
    else
        snprintf(ret, size, "%s", bound);
}

/* The event that decides; 0: none yet. */
static int read_event(void *monitor)
{
    uint8_t bytes[6];
    uint16_t event = 0;
    zmq_pollitem_t item = {.socket = monitor, .events = ZMQ_POLLIN};
    if (zmq_poll(&item, 1, 2) <= 0 ||
        zmq_recv(monitor, bytes, sizeof bytes, ZMQ_DONTWAIT) != (int)sizeof bytes)
        return 0;
    zmq_recv(monitor, NULL, 0, ZMQ_DONTWAIT);
    memcpy(&event, bytes, sizeof event);
    return event;
}

static int wait_for_event(void *monitor, uv_loop_t *loop)
{
    int64_t until_ms = clock_ms() + PATIENCE_MS;
    int event = 0;
    while (event == 0 && clock_ms() < until_ms) {
        uv_run(loop, UV_RUN_NOWAIT); /* the answer to zmq's question comes from here */
        event = read_event(monitor);
    }
    return event == 0 ? -ETIMEDOUT : event == LET_IN ? -EACCES : 0;
}

static int set_up(void *stranger, void *monitor, const char *where, const struct bus_keys *keys)
{
    static unsigned tests;
    char endpoint[32];
    int version6 = strchr(where, '[') != NULL, linger_ms = 0;
    snprintf(endpoint, sizeof endpoint, "inproc://self-test-%u", ++tests);
    if (keys != NULL &&
        (zmq_setsockopt(stranger, ZMQ_CURVE_SERVERKEY, keys->server, KEYRING_KEY_SIZE) != 0 ||
         zmq_setsockopt(stranger, ZMQ_CURVE_PUBLICKEY, keys->own.public_key, KEYRING_KEY_SIZE) !=
             0 ||
         zmq_setsockopt(stranger, ZMQ_CURVE_SECRETKEY, keys->own.secret_key, KEYRING_KEY_SIZE) !=
             0))
        return -errno;
    if (zmq_setsockopt(stranger, ZMQ_IPV6, &version6, sizeof version6) != 0 ||
        zmq_setsockopt(stranger, ZMQ_LINGER, &linger_ms, sizeof linger_ms) != 0 ||
        zmq_socket_monitor(stranger, endpoint, LET_IN | KEPT_OUT) != 0 ||
        zmq_connect(monitor, endpoint) != 0 || zmq_connect(stranger, where) != 0)
        return -errno;
    return 0;
}

/* keys: NULL: without encryption. */
static int try_to_enter(struct bus *bus, uv_loop_t *loop, const char *where,
                        const struct bus_keys *keys)
{
    static const int types[] = {
        [BUS_DEALER] = ZMQ_ROUTER, [BUS_ROUTER] = ZMQ_DEALER, [BUS_XPUB] = ZMQ_SUB};
    void *context = bus_context_use();
    void *stranger = zmq_socket(context, types[bus->kind]);
    void *monitor = stranger != NULL ? zmq_socket(context, ZMQ_PAIR) : NULL;
    bus_door_forgive(bus);
    int rc = monitor != NULL ? set_up(stranger, monitor, where, keys) : -errno;
    if (rc == 0)
        rc = wait_for_event(monitor, loop);
    if (stranger != NULL) {
        zmq_socket_monitor(stranger, NULL, 0);
        bus_touched(bus);
        zmq_close(stranger);
    }
    if (monitor != NULL)
        zmq_close(monitor);
    bus_context_leave();
    return rc;
}

int bus_self_test(struct bus *bus, uv_loop_t *loop, const struct keyring_pair *stranger,
                  struct err *err)
{
    struct bus_keys keys = {.own = *stranger};
    char where[300], secret[KEYRING_KEY_SIZE];
    size_t size = sizeof secret;
    own_endpoint(bus, where, sizeof where);
    if (zmq_getsockopt(bus->socket, ZMQ_CURVE_SECRETKEY, secret, &size) != 0 ||
        zmq_curve_public(keys.server, secret) != 0)
        return err_set(err, -errno, "cannot test the keys at %s: %s", where, zmq_strerror(errno));
    explicit_bzero(secret, sizeof secret);
    const char *what = "with a key that nobody knows";
    int rc = try_to_enter(bus, loop, where, &keys);
    if (rc == 0) {
        what = "without a key";
        rc = try_to_enter(bus, loop, where, NULL);
    }
    if (rc == -EACCES)
        err_set(err, rc, "%s lets a stranger in %s: it is not opened", where, what);
    else if (rc != 0)
        err_set(err, rc, "%s cannot be tested, and is not opened: a stranger %s got no answer: %s",
                where, what, strerror(-rc));
    return rc;
}
