/* accept4() as this process's libraries get it: when there is no descriptor for a new connection,
 * the connection is dropped. Else libzmq ends the program on a unix socket and spins on a TCP one,
 * for the connection stays where it is and makes the listener readable. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

extern const char accept_linked[];
const char accept_linked[] = "named by the linker's options, so that this file is linked";

/* Kept so that there is one to accept with; -1: lost to another thread for now. */
static atomic_int spare = -1;

static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

__attribute__((constructor)) static void keep_spare(void)
{
    atomic_store(&spare, open_spare());
}

static void drop_one(int listener)
{
    int reserve = atomic_exchange(&spare, -1);
    if (reserve < 0)
        return;
    close(reserve);
    int fd = (int)syscall(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    atomic_store(&spare, open_spare());
}

__attribute__((visibility("default"))) int accept4(int listener, struct sockaddr *address,
                                                   socklen_t *len, int flags)
{
    int fd = (int)syscall(SYS_accept4, listener, address, len, flags);
    if (fd >= 0 || (errno != EMFILE && errno != ENFILE))
        return fd;
    drop_one(listener);
    errno = ECONNABORTED; /* which is what it looks like to the other side */
    return -1;
}
