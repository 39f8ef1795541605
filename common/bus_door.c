/* The connections of a bound socket, as zmq's monitor tells of them: how many there are, over which
 * of them frames come, and which are to end. zmq has no call to end one; shutting its descriptor
 * down does it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/bus_internal.h"
#include "common/clock.h"
#include "schemas/mem.h"

#define EVENTS                                                                                     \
    (ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_ACCEPT_FAILED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED)

struct slot {
    uint64_t serial; /* of the connection; 0: none */
    int64_t since_ms;
    uint32_t frames; /* since the last sweep */
    unsigned blamed;
    bool spoke; /* a frame came over it */
    bool settled;
    bool cut; /* its end is not yet told */
};

struct bus_door {
    struct bus *monitor;
    struct slot *slots; /* by descriptor */
    size_t n_slots;
    size_t max;
    uint64_t serial; /* of the latest connection */
    struct bus_counts counts;
    unsigned forgiven; /* of those that will break off: not counted */
};

/* --- what the monitor tells --------------------------------------------------------------- */

static struct slot *slot_of(struct bus_door *door, int fd)
{
    return door != NULL && fd >= 0 && (size_t)fd < door->n_slots && door->slots[fd].serial != 0
               ? &door->slots[fd]
               : NULL;
}

static bool cut(struct bus_door *door, int fd)
{
    struct slot *slot = slot_of(door, fd);
    if (slot == NULL || slot->cut)
        return false;
    slot->cut = true;
    door->counts.cut++;
#ifdef ORCH_TESTING
    if (getenv("ORCH_TEST_NO_CUT") != NULL)
        return true; /* what is behind this defence must hold alone too */
#endif
    shutdown(fd, SHUT_RDWR);
    return true;
}

static void gone(struct bus_door *door, int fd)
{
    struct slot *slot = slot_of(door, fd);
    if (slot == NULL)
        return;
    if (!slot->spoke && !slot->cut && door->forgiven > 0)
        door->forgiven--;
    else if (!slot->spoke && !slot->cut)
        door->counts.failed++;
    *slot = (struct slot){0};
    door->counts.open--;
}

static void accepted(struct bus_door *door, int fd)
{
    if (fd < 0)
        return;
    gone(door, fd); /* should its end not have been told */
    if ((size_t)fd >= door->n_slots) {
        size_t n = (size_t)fd * 2 + 64;
        door->slots = mem_must_realloc(door->slots, n * sizeof *door->slots);
        memset(door->slots + door->n_slots, 0, (n - door->n_slots) * sizeof *door->slots);
        door->n_slots = n;
    }
    door->slots[fd] = (struct slot){.serial = ++door->serial, .since_ms = clock_ms()};
    door->counts.open++;
    if (door->counts.open > door->max)
        cut(door, fd);
}

/* A frame with the event (16 bits) and its value (32 bits), then one with the endpoint. */
static int deliver_event(struct bus *monitor)
{
    struct bus_door *door = monitor->ctx;
    uint8_t bytes[6];
    char endpoint[256];
    uint16_t event;
    uint32_t value;
    if (zmq_recv(monitor->socket, bytes, sizeof bytes, ZMQ_DONTWAIT) != (int)sizeof bytes)
        return -EAGAIN;
    zmq_recv(monitor->socket, endpoint, sizeof endpoint, ZMQ_DONTWAIT);
    memcpy(&event, bytes, sizeof event);
    memcpy(&value, bytes + sizeof event, sizeof value);
    if (event == ZMQ_EVENT_ACCEPTED)
        accepted(door, (int)value);
    else if (event == ZMQ_EVENT_DISCONNECTED || event == ZMQ_EVENT_CLOSED)
        gone(door, (int)value);
    else
        door->counts.starved++;
    return 0;
}

/* --- opening and closing ------------------------------------------------------------------ */

static int listen_to(struct bus *bus, void *socket, struct err *err)
{
    static unsigned monitors;
    char endpoint[32];
    int unlimited = 0; /* else zmq's thread would wait for us */
    snprintf(endpoint, sizeof endpoint, "inproc://door-%u", ++monitors);
    if (zmq_setsockopt(socket, ZMQ_RCVHWM, &unlimited, sizeof unlimited) != 0 ||
        zmq_socket_monitor(bus->socket, endpoint, EVENTS) != 0 ||
        zmq_connect(socket, endpoint) != 0)
        return err_set(err, -errno, "cannot watch connections: %s", zmq_strerror(errno));
    return 0;
}

int bus_door_open(struct bus *bus, uv_loop_t *loop, size_t max_connections, struct err *err)
{
    void *socket = zmq_socket(bus_context_use(), ZMQ_PAIR);
    int rc = socket != NULL
                 ? listen_to(bus, socket, err)
                 : err_set(err, -errno, "cannot watch connections: %s", zmq_strerror(errno));
    if (rc != 0) {
        if (socket != NULL)
            zmq_close(socket);
        bus_context_leave();
        return rc;
    }
    struct bus_door *door = mem_must_zalloc(sizeof *door);
    door->max = max_connections;
    rc = bus_adopt(&door->monitor, loop, socket, deliver_event, door, err);
    if (rc != 0)
        free(door);
    else
        bus->door = door;
    return rc;
}

void bus_door_close(struct bus *bus)
{
    if (bus->door == NULL)
        return;
    zmq_socket_monitor(bus->socket, NULL, 0);
    bus_close(&bus->door->monitor);
    free(bus->door->slots);
    free(bus->door);
    bus->door = NULL;
}

/* --- connections -------------------------------------------------------------------------- */

void bus_door_frame(struct bus *bus, int fd, struct bus_peer *ret)
{
    struct slot *slot = slot_of(bus->door, fd);
    ret->fd = fd;
    ret->serial = slot != NULL ? slot->serial : 0;
    ret->frames = slot != NULL ? ++slot->frames : 0;
    if (slot != NULL)
        slot->spoke = true;
}

/* The connection over which the peer's frame came, if it is still there. */
static struct slot *slot_of_peer(struct bus *bus, const struct bus_peer *peer)
{
    struct slot *slot = slot_of(bus->door, peer->fd);
    return slot != NULL && slot->serial == peer->serial ? slot : NULL;
}

void bus_door_forgive(struct bus *bus)
{
    if (bus->door != NULL)
        bus->door->forgiven++;
}

void bus_counts(const struct bus *bus, struct bus_counts *ret)
{
    *ret = bus->door != NULL ? bus->door->counts : (struct bus_counts){0};
}

void bus_settle(struct bus *bus, const struct bus_peer *peer)
{
    struct slot *slot = slot_of_peer(bus, peer);
    if (slot != NULL)
        slot->settled = true;
}

unsigned bus_blame(struct bus *bus, const struct bus_peer *peer)
{
    struct slot *slot = slot_of_peer(bus, peer);
    return slot != NULL ? ++slot->blamed : 0;
}

bool bus_cut(struct bus *bus, const struct bus_peer *peer)
{
    return slot_of_peer(bus, peer) != NULL && cut(bus->door, peer->fd);
}

void bus_sweep(struct bus *bus, int64_t silent_ms)
{
    struct bus_door *door = bus->door;
    int64_t now = clock_ms();
    for (size_t fd = 0; door != NULL && fd < door->n_slots; fd++) {
        struct slot *slot = &door->slots[fd];
        slot->frames = 0;
        if (slot->serial != 0 && !slot->settled && now - slot->since_ms > silent_ms)
            cut(door, (int)fd);
    }
}
