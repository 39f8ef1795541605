/* An asynchronous Redis client on the loop, which reconnects and repeats; the only place that knows
 * hiredis. */
#ifndef COMMON_REDIS_H
#define COMMON_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"

struct redis;

/* Where Redis is. Strings are copied by redis_open(). */
struct redis_options {
    char *socket;   /* unix socket path, or NULL */
    char *host;     /* TCP host, or NULL */
    int port;       /* TCP port */
    char *user;     /* ACL user, or NULL */
    char *password; /* or NULL; never logged */
    int database;
    bool tls; /* rediss://: refused with a sentence where hiredis has no TLS */
};

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
 * same order: so send only what is safe to repeat. LOADING, BUSY, TRYAGAIN, MASTERDOWN and
 * CLUSTERDOWN answers are retried too; READONLY reconnects; MOVED is answered as an error that says
 * that Redis Cluster is not supported; all others reach the caller. */
int redis_open(struct redis **ret, uv_loop_t *loop, const struct redis_options *options,
               const struct redis_callbacks *callbacks, void *ctx, struct err *err);
void redis_close(struct redis **redis); /* accepts NULL; answers all that is pending with CLOSED */
bool redis_connected(const struct redis *redis);
/* Commands sent or waiting without an answer. */
size_t redis_pending(const struct redis *redis);
/* "unix:/path" or "host:port", for messages. */
const char *redis_name(const struct redis *redis);

/* fn may be NULL. lens may be NULL when all arguments are strings. */
void redis_command(struct redis *redis, redis_reply_fn *fn, void *ctx, int argc,
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
    char sha[41]; /* filled at first use */
};
/* args: keys first (n_keys of them), then arguments; n_args counts both. */
void redis_eval(struct redis *redis, struct redis_script *script, redis_reply_fn *fn, void *ctx,
                int n_keys, int n_args, const char *const *args, const size_t *lens);

#endif
