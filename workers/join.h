/* A worker that joins: its token taken, and hidden from who lists processes. */
#ifndef WORKERS_JOIN_H
#define WORKERS_JOIN_H

#include "common/err.h"

/* Takes the token (as invitation_fetch() takes it; NULL: that of the environment, if there is one)
 * and overwrites it where it was given. name: "" or the name that the worker must have. 0 and the
 * worker's name and configuration, which the caller frees; both are NULL when there is no token.
 * With a sentence: -EINVAL (no token, another name or role), -ETIME (expired), or another errno. */
int join_accept(char *token, const char *name, char **ret_name, char **ret_config, struct err *err);
/* The configuration that NAME has joined with before, or NULL; the caller frees. */
char *join_config(const char *name);

#endif
