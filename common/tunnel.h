/* A TLS tunnel to one server, for clients that speak none: a `stunnel` child of this process, which
 * listens on a unix socket in a directory that nobody else can enter. */
#ifndef COMMON_TUNNEL_H
#define COMMON_TUNNEL_H

#include <stdbool.h>

#include "common/err.h"
#include "common/loop.h"

struct tunnel;

/* Strings are copied. The server's certificate must be signed by a CA that counts and be for
 * `host`. */
struct tunnel_options {
    const char *host;
    int port;
    const char *ca;         /* file of CAs; NULL: the system's */
    const char *cert, *key; /* files of this client's certificate and its key; NULL: none */
};

/* Whether there can be tunnels on this machine: 0, or -ENOENT with a sentence. The program is the
 * one that ORCHESTRATOR_STUNNEL names, else Debian's. */
int tunnel_check(struct err *err);
/* One process and one tunnel serve all that ask for the same. It is started again when it ends,
 * with backoff (100 ms to 5 s), and ends with this process, whatever ends that. 0, or a negative
 * errno with a sentence. */
int tunnel_open(struct tunnel **ret, uv_loop_t *loop, const struct tunnel_options *options,
                struct err *err);
void tunnel_close(struct tunnel **tunnel); /* accepts NULL */
/* Whether it accepts connections. */
bool tunnel_ready(const struct tunnel *tunnel);
const char *tunnel_path(const struct tunnel *tunnel); /* of the unix socket */
/* What went wrong in the last second, as a sentence with the cure; "" when nothing did. Valid until
 * the next call. */
const char *tunnel_trouble(struct tunnel *tunnel);
/* The process of the tunnel; 0: none runs. For tests. */
int tunnel_pid(const struct tunnel *tunnel);

#endif
