/* Endpoints of the bus: options, keys, binding, connecting. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus_internal.h"
#include "schemas/message.h"

/* Announced as a draft, but understood by every libzmq 4.3. */
#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

#define DEFAULT_HIGH_WATER 10000
#define HANDSHAKE_MS 5000 /* a connection that has not become one of zmq's by then is closed */

/* --- options ------------------------------------------------------------------------------ */

static int set_numbers(struct bus *bus, const struct bus_options *options, bool tcp)
{
    int high_water = options->high_water > 0 ? options->high_water : DEFAULT_HIGH_WATER;
    const struct {
        bool applies;
        int option, value;
    } table[] = {
        {true, ZMQ_LINGER, 0},
        {true, ZMQ_SNDHWM, high_water},
        {true, ZMQ_RCVHWM, high_water},
        {true, ZMQ_BACKLOG, 1024},
        {true, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
        {true, ZMQ_RECONNECT_IVL, tcp ? 20 : 10},
        {true, ZMQ_RECONNECT_IVL_MAX, tcp ? 500 : 100},
        {strchr(options->endpoint, '[') != NULL, ZMQ_IPV6, 1},
        {tcp, ZMQ_CONNECT_TIMEOUT, 5000},
        {tcp, ZMQ_HEARTBEAT_IVL, 2000},
        {tcp, ZMQ_HEARTBEAT_TIMEOUT, 6000},
        {tcp, ZMQ_HEARTBEAT_TTL, 6000},
        {options->kind == BUS_ROUTER, ZMQ_ROUTER_MANDATORY, 1},
        {options->kind == BUS_DEALER, ZMQ_IMMEDIATE, 1},
        {bus->secure, ZMQ_CURVE_SERVER, 1},
        /* Else zmq lets everybody in where nobody answers its question. */
        {bus->secure, ZMQ_ZAP_ENFORCE_DOMAIN, 1},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table && rc == 0; i++)
        if (table[i].applies)
            rc = bus_set_int(bus, table[i].option, table[i].value);
    return rc;
}

static int set_options(struct bus *bus, const struct bus_options *options, bool tcp)
{
    int64_t max_bytes = options->max_bytes > 0 ? options->max_bytes : (int64_t)MESSAGE_MAX_BYTES;
    const struct bus_keys *keys = tcp ? options->keys : NULL;
    /* With a ZAP domain, zmq refuses the first two versions of its protocol, whose handshake lets
     * noise pass for frames, and aborts when a socket is closed in the middle of it (4.3.4,
     * zmtp_engine.cpp: process_routing_id_msg). Without a ZAP handler it has no other effect. */
    const char *domain = bus->secure ? bus->domain : "orchestrator";
    const struct {
        bool applies;
        int option;
        const void *value;
        size_t size;
    } table[] = {
        {true, ZMQ_MAXMSGSIZE, &max_bytes, sizeof max_bytes},
        {true, ZMQ_ZAP_DOMAIN, domain, strlen(domain)},
        {bus->secure, ZMQ_CURVE_SECRETKEY, options->secret_key, KEYRING_KEY_SIZE},
        {keys != NULL, ZMQ_CURVE_SERVERKEY, keys != NULL ? keys->server : "", KEYRING_KEY_SIZE},
        {keys != NULL, ZMQ_CURVE_PUBLICKEY, keys != NULL ? keys->own.public_key : "",
         KEYRING_KEY_SIZE},
        {keys != NULL, ZMQ_CURVE_SECRETKEY, keys != NULL ? keys->own.secret_key : "",
         KEYRING_KEY_SIZE},
        {options->subscribe != NULL, ZMQ_SUBSCRIBE, options->subscribe,
         options->subscribe != NULL ? strlen(options->subscribe) : 0},
    };
    int rc = set_numbers(bus, options, tcp);
    for (size_t i = 0; i < sizeof table / sizeof *table && rc == 0; i++)
        if (table[i].applies &&
            zmq_setsockopt(bus->socket, table[i].option, table[i].value, table[i].size) != 0)
            rc = -errno;
    return rc;
}

/* --- binding and connecting --------------------------------------------------------------- */

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
    if (bus_set_int(bus, ZMQ_USE_FD, bus->ipc.fd) != 0 || zmq_bind(bus->socket, endpoint) != 0)
        return bind_failed(endpoint, errno, err);
    return 0;
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

int bus_attach(struct bus *bus, const struct bus_options *options, struct err *err)
{
    bool tcp = strncmp(options->endpoint, "tcp://", 6) == 0;
    if (!endpoint_valid(options->endpoint))
        return err_set(err, -EINVAL, "%s is no endpoint: use tcp://HOST:PORT or ipc:///PATH",
                       options->endpoint);
    int rc = set_options(bus, options, tcp);
    if (rc != 0)
        return err_set(err, rc, "cannot set up a socket for %s: %s", options->endpoint,
                       zmq_strerror(-rc));
    return attach(bus, options, tcp, err);
}
