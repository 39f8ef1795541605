/* Redis users of who was invited: each may do what its role needs, on our keys, and nothing else.
 *
 * Redis forgets users when it restarts, and replicas don't get them. So who is entitled is in Redis
 * itself, HASH ACCESS_KEY by name: `ROLE PASSWORD-SHA256 PROVIDER...`; what that means in terms of
 * commands and keys is known here alone. Daemons make the users anew on each connection, with the
 * rules of their own version, and drop those whose invitation is gone or has expired unused. */
#ifndef COMMON_ACCESS_H
#define COMMON_ACCESS_H

#include <stddef.h>

#include "common/err.h"
#include "common/keyring.h"
#include "common/loop.h"
#include "common/redis.h"
#include "schemas/buf.h"

#define ACCESS_KEY "orch:{d}:access"
#define ACCESS_PASSWORD_SIZE 44 /* with its NUL */

struct access_grant {
    enum keyring_role role; /* WORKER or ORCHESTRATOR; a tap has no business in Redis */
    const char *name;
    const char *password;         /* stored and sent as its SHA-256 only */
    const char *const *providers; /* workers: whose limits it takes part in */
    size_t n_providers;
};

/* Random letters and digits. */
void access_password_make(char ret[ACCESS_PASSWORD_SIZE]);
/* "worker-NAME"; the caller frees. */
char *access_user(enum keyring_role role, const char *name);

/* err: "", or a sentence. */
typedef void access_fn(void *ctx, const char *err);
/* Makes the user or replaces it. */
void access_give(struct redis *redis, const struct access_grant *grant, access_fn *fn, void *ctx);
/* Drops the user of that name, and with it its connections. */
void access_take(struct redis *redis, const char *name, access_fn *fn, void *ctx);

/* Keeps the users as they are to be, on a connection of its own. */
struct access;
int access_open(struct access **ret, uv_loop_t *loop, const struct redis_options *options,
                struct err *err);
void access_close(struct access **access); /* accepts NULL */

/* The rules of a role as words of ACL SETUSER, behind the password; for tests and for who makes
 * users by hand. Appends them, each behind a space. */
void access_rules(enum keyring_role role, const char *const *providers, size_t n_providers,
                  struct buf *out);

#endif
