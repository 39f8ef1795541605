/* CURVE keys of the bus, and who may do what with which.
 *
 * A directory of keys (bus.curve.keys, mode 0700) holds, one key a file, Z85 text of 40 characters
 * and a newline:
 *   broker.key, broker.pub              the brokers' own pair; all brokers of a system share it
 *   orchestrator.key, orchestrator.pub  of this host's daemon and tools
 *   worker-NAME.key, worker-NAME.pub    of a worker on this host
 *   allow/ROLE-NAME.pub                 who may connect, besides those that orchestrators tell of
 * Only broker.pub is needed where only peers run; orchestrator.pub of the same directory is always
 * allowed. Secret files are 0600; one that others may read is refused. */
#ifndef COMMON_KEYRING_H
#define COMMON_KEYRING_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

#define KEYRING_KEY_SIZE 41 /* Z85, with its NUL */

/* X(constant, text): what a key is good for. A worker may introduce itself under the key's name
 * only; a tap may only subscribe; an orchestrator may do all that orchestrators and tools do. */
#define KEYRING_ROLES(X)                                                                           \
    X(ORCHESTRATOR, "orchestrator")                                                                \
    X(WORKER, "worker")                                                                            \
    X(TAP, "tap")
enum keyring_role {
#define X(constant, text) KEYRING_##constant,
    KEYRING_ROLES(X)
#undef X
        KEYRING_ROLE_COUNT
};
const char *keyring_role_name(enum keyring_role role);
enum keyring_role keyring_role_parse(const char *text, size_t len); /* ROLE_COUNT: none of them */

struct keyring_pair {
    char public_key[KEYRING_KEY_SIZE];
    char secret_key[KEYRING_KEY_SIZE]; /* never logged; wiped by who holds it when done */
};

/* A new random pair. 0 or -ENOTSUP with a sentence (libzmq without CURVE). */
int keyring_make(struct keyring_pair *ret, struct err *err);
/* Whether the text is a public key in Z85. */
bool keyring_valid(const char *text, size_t len);
/* Whether a worker, orchestrator or tap may be called so: 1 to 128 printable ASCII characters
 * without spaces and slashes, the first no dot. */
bool keyring_name_valid(const char *name, size_t len);

/* Writes NAME.key and NAME.pub below dir, which is made if need be; never replaces a file: -EEXIST.
 */
int keyring_save(const char *dir, const char *name, const struct keyring_pair *pair,
                 struct err *err);
/* Reads NAME.key and NAME.pub. 0, or with a sentence that says what to do: -ENOENT, -EPERM (others
 * may read the secret), -EINVAL (no key). */
int keyring_load(const char *dir, const char *name, struct keyring_pair *ret, struct err *err);
/* Reads NAME.pub alone. */
int keyring_load_public(const char *dir, const char *name, char ret[KEYRING_KEY_SIZE],
                        struct err *err);
/* Makes broker and orchestrator pairs where they are missing: what `orchestrator keys init` does.
 */
int keyring_init(const char *dir, struct err *err);

/* Who may connect. */
struct keyring_entry {
    enum keyring_role role;
    char name[129]; /* of the worker, orchestrator or tap */
    char public_key[KEYRING_KEY_SIZE];
};
struct keyring; /* a set of entries, by public key */

struct keyring *keyring_new(void);
void keyring_free(struct keyring **keyring); /* accepts NULL */
/* Reads dir's orchestrator.pub and allow/; replaces what came from files before. A damaged file is
 * told in err (-EINVAL) and skipped. */
int keyring_read(struct keyring *keyring, const char *dir, struct err *err);
/* Replaces what orchestrators told: `ROLE NAME KEY` each. Damaged ones are skipped; returns how
 * many were. */
size_t keyring_replace(struct keyring *keyring, const char *const *lines, size_t n);
const struct keyring_entry *keyring_find(const struct keyring *keyring, const char *public_key);
size_t keyring_size(const struct keyring *keyring);

#endif
