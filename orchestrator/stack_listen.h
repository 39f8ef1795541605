/* What the local stack needs to be reached from other machines: keys of the bus, a certificate and
 * a password of its redis-server. All of it is made once and kept. */
#ifndef ORCHESTRATOR_STACK_LISTEN_H
#define ORCHESTRATOR_STACK_LISTEN_H

#include "common/config.h"
#include "common/err.h"

/* Makes what is missing, and the file of Redis' users, of which only our own is in it: daemons add
 * the invited ones. Tells where the stack listens in PATH_RUN_LISTEN, or that it does not. 0 or a
 * negative errno with a sentence. */
int stack_listen_prepare(const struct config *config, struct err *err);
/* Files of redis-server's certificate, which signs itself, of its key, and of its users. The caller
 * frees. */
char *stack_listen_certificate(const struct config *config);
char *stack_listen_key(const struct config *config);
char *stack_listen_users(const struct config *config);

#endif
