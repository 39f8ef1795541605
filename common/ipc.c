#include "common/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "schemas/mem.h"

#define BACKLOG 1024

static int in_use(const char *path, struct err *err)
{
    return err_set(err, -EADDRINUSE,
                   "%s is served by another process: stop that one, or use another endpoint "
                   "(bus.brokers in the configuration, or ORCHESTRATOR_HOME)",
                   path);
}

static int failed(const char *path, const char *what, struct err *err)
{
    int rc = -errno;
    return err_set(err, rc, "cannot listen on %s: %s: %s", path, what, strerror(-rc));
}

static int take_lock(const char *path, int *ret_fd, struct err *err)
{
    char *name = mem_must_printf("%s.lock", path);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    free(name);
    if (fd < 0)
        return failed(path, "cannot create its lock file", err);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int rc = errno == EWOULDBLOCK ? in_use(path, err) : failed(path, "cannot lock it", err);
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

/* Whether somebody accepts connections there; a full backlog counts. */
static bool answers(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool yes = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ||
               errno == EAGAIN || errno == EINPROGRESS;
    close(fd);
    return yes;
}

static int remove_stale(const struct sockaddr_un *address, struct err *err)
{
    struct stat st;
    const char *path = address->sun_path;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? 0 : failed(path, "cannot look at it", err);
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, -EEXIST,
                       "%s exists and is no socket: move it away, or use another endpoint", path);
    if (answers(address))
        return in_use(path, err);
    if (unlink(path) != 0 && errno != ENOENT)
        return failed(path, "cannot remove the stale socket", err);
    return 0;
}

static int listen_at(struct ipc_listener *listener, const struct sockaddr_un *address,
                     struct err *err)
{
    struct stat st;
    const char *path = address->sun_path;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return failed(path, "no socket", err);
    /* Linux makes the file with the socket's mode: it is never open to others, not for a moment. */
    if (fchmod(fd, 0600) != 0 || bind(fd, (const struct sockaddr *)address, sizeof *address) != 0 ||
        lstat(path, &st) != 0 || listen(fd, BACKLOG) != 0) {
        int rc = errno == EADDRINUSE ? in_use(path, err) : failed(path, "cannot bind", err);
        close(fd);
        return rc;
    }
    listener->fd = fd;
    listener->device = st.st_dev;
    listener->inode = st.st_ino;
    return 0;
}

int ipc_listen(struct ipc_listener *ret, const char *path, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path[0] == '\0' || path[0] == '@')
        return err_set(err, -EINVAL, "ipc://%s names no file: use ipc:///path/of/a/socket", path);
    if (strlen(path) >= sizeof address.sun_path)
        return err_set(err, -ENAMETOOLONG,
                       "the path of the socket %s has %zu bytes, and the system allows %zu: use a "
                       "shorter ORCHESTRATOR_HOME",
                       path, strlen(path), sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    struct ipc_listener listener = {.fd = -1, .lock_fd = -1};
    memcpy(listener.path, address.sun_path, sizeof listener.path);
    int rc = take_lock(path, &listener.lock_fd, err);
    if (rc != 0)
        return rc;
    rc = remove_stale(&address, err);
    if (rc == 0)
        rc = listen_at(&listener, &address, err);
    if (rc != 0) {
        close(listener.lock_fd);
        return rc;
    }
    *ret = listener;
    return 0;
}

void ipc_unlisten(struct ipc_listener *listener)
{
    struct stat st;
    if (lstat(listener->path, &st) == 0 && st.st_dev == listener->device &&
        st.st_ino == listener->inode)
        unlink(listener->path);
    /* The lock file stays: to remove it would let two processes lock two files of one name. */
    close(listener->lock_fd);
    listener->lock_fd = -1;
}
