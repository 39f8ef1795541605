/* An invitation: all that a machine needs to take part, as one line of text (a token).
 *
 * A token is "orch_" and base64url, without padding, of the record `invitation` of
 * schemas/messages.def and the first INVITATION_CHECK bytes of its SHA-256. It holds secrets: who
 * has it can join under its name until it expires or is revoked. */
#ifndef COMMON_INVITATION_H
#define COMMON_INVITATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "schemas/message.h"

#define INVITATION_VERSION 1 /* of the record; grows when a joining machine must know more */
#define INVITATION_ENV "ORCHESTRATOR_JOIN" /* a token, where none is given as an argument */
#define INVITATION_REDIS_CA                                                                        \
    "keys/redis-ca.pem"                           /* where redis_ca is written, beside config.yaml \
                                                   */
#define INVITATION_CHECK 8                        /* bytes */
#define INVITATION_MAX_BYTES ((size_t)512 * 1024) /* of a token */

/* Appends the token, of our version. 0, or what message_encode() returns. */
int invitation_write(const struct msg_invitation *invitation, struct buf *out);
/* The same with the version that the record has: for tests. */
int invitation_write_as(const struct msg_invitation *invitation, struct buf *out);

/* Reads a token; blanks and line ends in it do not matter. ret->invitation is set, its fields are
 * checked, and the caller calls message_release(). 0, or with a sentence: -EINVAL (no token),
 * -EBADMSG (a part of it is missing or changed), -EPROTONOSUPPORT (of another version), -ENOMEM. */
int invitation_read(struct message *ret, const char *text, size_t len, struct err *err);

/* The token as it is given: itself, "-" (standard input), "@FILE". 0 or a negative errno with a
 * sentence. */
int invitation_fetch(const char *given, struct buf *ret, struct err *err);

/* Writes what it brings below HOME/joined/NAME: config.yaml, keys/. Replaces what an earlier
 * invitation brought, whole or not at all; the very same one again changes nothing and may have
 * expired, an older one than that changes nothing. 0 and the path of the configuration, which the
 * caller frees; with a sentence: -ETIME (expired), -ESTALE (older than what is there), or another
 * errno. */
int invitation_accept(const char *home, const struct msg_invitation *invitation, int64_t now_ms,
                      char **ret_config, struct err *err);

/* The configuration that NAME has joined with on this machine; NULL: it has not. The caller
 * frees. */
char *invitation_config(const char *home, const char *name);

#endif
