/* A listening unix socket that belongs to one process: never stolen from a living one, never left
 * open to others. */
#ifndef COMMON_IPC_H
#define COMMON_IPC_H

#include <sys/types.h>

#include "common/err.h"

struct ipc_listener {
    int fd;         /* listening, non-blocking, close-on-exec */
    int lock_fd;    /* held on PATH.lock while we serve: two that start at once can't both win */
    char path[108]; /* as long as struct sockaddr_un allows */
    dev_t device;   /* of the socket file we made: a successor's is not ours to remove */
    ino_t inode;
};

/* Binds path with mode 0600. A socket file whose owner is gone is replaced. 0, or with a sentence:
 * -EADDRINUSE (somebody serves it), -ENAMETOOLONG, -EEXIST (the path is no socket), or another
 * errno. */
int ipc_listen(struct ipc_listener *ret, const char *path, struct err *err);
/* Removes the socket file if it is still ours and gives up the lock. Leaves fd to its user. */
void ipc_unlisten(struct ipc_listener *listener);

#endif
