/* An asynchronous Redis client on the loop, which reconnects and repeats: of one server, of the
 * master that sentinels name, or of a cluster. */
#ifndef COMMON_REDIS_H
#define COMMON_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"

struct redis;

/* Where Redis is: one of socket, host, sentinels, cluster. redis_open() copies it. */
struct redis_options {
    char *socket;   /* unix socket path, or NULL */
    char *host;     /* TCP host, or NULL */
    int port;       /* TCP port */
    char *user;     /* ACL user, or NULL */
    char *password; /* or NULL; never logged */
    int database;
    bool tls;         /* through a tunnel (tunnel.h), also to sentinels and a cluster's nodes */
    char *ca;         /* file of the CAs that count; NULL: the system's */
    char *cert, *key; /* files of the client's own certificate and its key; NULL: none */
    char **sentinels; /* "host:port" */
    size_t n_sentinels;
    char *master;                            /* its name, for the sentinels */
    char *sentinel_user, *sentinel_password; /* or NULL */
    char **cluster;                          /* "host:port" of some of its nodes */
    size_t n_cluster;
    int64_t replicas; /* so many must have what survives before it is answered; 0: none */
    int64_t replicas_timeout_ms; /* 0: REDIS_REPLICAS_MS; at most 5000 */
};
#define REDIS_REPLICAS_MS 1000

/* X(member) for each of the strings. */
#define REDIS_OPTION_TEXTS(X)                                                                      \
    X(socket)                                                                                      \
    X(host)                                                                                        \
    X(user)                                                                                        \
    X(password)                                                                                    \
    X(ca)                                                                                          \
    X(cert)                                                                                        \
    X(key)                                                                                         \
    X(master)                                                                                      \
    X(sentinel_user)                                                                               \
    X(sentinel_password)

void redis_options_copy(struct redis_options *ret, const struct redis_options *from);
void redis_options_release(struct redis_options *options);

enum redis_type {
    REDIS_NIL,
    REDIS_INT,
    REDIS_STR, /* also status replies */
    REDIS_ARRAY,
    REDIS_ERR,
};

struct redis_value; /* a reply, or one element of it; borrowed for the callback's time */

enum redis_type redis_type(const struct redis_value *value);
int64_t redis_int(const struct redis_value *value); /* INT, or STR that holds a number; else 0 */
const char *redis_str(const struct redis_value *value, size_t *ret_len); /* STR, ERR; else "" */
size_t redis_len(const struct redis_value *value);                       /* ARRAY; else 0 */
/* An element, or a value of type NIL when there is none; never NULL. */
const struct redis_value *redis_at(const struct redis_value *value, size_t index);

/* value: never NULL. When the client is closed before the answer, it is an ERR "CLOSED ...". */
typedef void redis_reply_fn(void *ctx, const struct redis_value *value);

struct redis_callbacks {
    void (*up)(void *ctx); /* connected (each time); may be NULL */
    /* Connection lost or refused; not again for the same reason before it was up; may be NULL. */
    void (*down)(void *ctx, const char *why);
};

/* Connects in the background; commands may be sent at once. A lost connection comes back with
 * backoff (10 ms up to 1 s), and what was not answered is sent again with the same arguments in the
 * same order: so send only what is safe to repeat. LOADING, BUSY, TRYAGAIN, MASTERDOWN, CLUSTERDOWN
 * and UNBLOCKED answers are retried too; READONLY reconnects; all others reach the caller.
 *
 * With sentinels, each connection begins with their word for the master's address (the first that
 * knows it counts), and ends when they say that it has moved; a server that is no master is left.
 *
 * In a cluster a command goes to the master of its first key's slot, and after MOVED, ASK and the
 * loss of a master to where that slot is then. Order is kept only among commands of the same slot,
 * while it does not move. What has no key goes to any node.
 *
 * With `replicas`, what is said to survive (struct redis_script) is answered when WAIT has counted
 * enough of them; else with an ERR "NOTREPLICATED ...": it is written, may be lost when the master
 * is, and should be repeated. */
int redis_open(struct redis **ret, uv_loop_t *loop, const struct redis_options *options,
               const struct redis_callbacks *callbacks, void *ctx, struct err *err);
void redis_close(struct redis **redis); /* accepts NULL; answers all that is pending with CLOSED */
/* Of a cluster: its map is known, and none of the masters that were used is lost. */
bool redis_connected(const struct redis *redis);
bool redis_is_cluster(const struct redis *redis);
/* Commands sent or waiting without an answer. */
size_t redis_pending(const struct redis *redis);
/* "unix:/path", "host:port" or the like, for messages. */
const char *redis_name(const struct redis *redis);

/* fn may be NULL. lens may be NULL when all arguments are strings. */
void redis_command(struct redis *redis, redis_reply_fn *fn, void *ctx, int argc,
                   const char *const *argv, const size_t *lens);
/* A command that blocks, such as XREAD BLOCK, for less than 10 s. In a cluster it gets a connection
 * on which nothing else waits; one server's client sends it as any other, so that all that comes
 * behind it waits: open a client for it alone. */
void redis_command_blocking(struct redis *redis, redis_reply_fn *fn, void *ctx, int argc,
                            const char *const *argv, const size_t *lens);
/* A command that names no key, such as SCAN: in a cluster it goes where this key would be. */
void redis_command_at(struct redis *redis, const char *key, redis_reply_fn *fn, void *ctx, int argc,
                      const char *const *argv, const size_t *lens);
/* Answers with the ERR of a closed client, for who keeps calls back before they are sent. */
void redis_answer_closed(redis_reply_fn *fn, void *ctx);
/* fn is called once per turn of the loop, before what was sent in it is written. */
void redis_on_turn(struct redis *redis, void (*fn)(void *ctx), void *ctx);
/* Words separated by spaces, for constant commands without data: "PING". */
void redis_simple(struct redis *redis, redis_reply_fn *fn, void *ctx, const char *words);

/* Makes this client a listener: it sends no commands any more, and fn gets ["subscribe", ...] each
 * time that it listens (again), and ["message", channel, text] for each message. Messages are lost
 * while it is not connected. */
void redis_subscribe(struct redis *redis, const char *channel, redis_reply_fn *fn, void *ctx);

/* A Lua script: EVALSHA, after it was loaded once per connection. */
struct redis_script {
    const char *name;
    const char *source;
    bool survives; /* what it writes is promised to someone: see `replicas` */
    char sha[41];  /* filled at first use */
};
/* args: keys first (n_keys of them), then arguments; n_args counts both. In a cluster all keys must
 * be of one slot. */
void redis_eval(struct redis *redis, struct redis_script *script, redis_reply_fn *fn, void *ctx,
                int n_keys, int n_args, const char *const *args, const size_t *lens);

#endif
