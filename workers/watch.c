#include "workers/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "schemas/mem.h"

/* One event may bring 100 KB. What is taken is served: epoll puts all that it has told of behind
 * the others, so whatever is left for later may be left every time. */
#define EVENTS_PER_TURN 16

/* All zero is a descriptor of no interest. */
struct watch {
    void *owner;      /* borrowed */
    uint32_t wanted;  /* by watches_set() */
    uint32_t watched; /* what epoll was told */
    bool ours;        /* between begin and end */
};

struct watches {
    int epoll_fd;
    uv_poll_t *poll; /* of epoll_fd */
    watches_fn *fn;
    void *ctx;
    struct watch *list; /* indexed by descriptor */
    size_t n;
};

static struct watch *watch_of(struct watches *watches, int fd)
{
    if ((size_t)fd >= watches->n) {
        size_t n = (size_t)fd + 64 + watches->n / 2;
        watches->list = mem_must_realloc(watches->list, n * sizeof *watches->list);
        memset(watches->list + watches->n, 0, (n - watches->n) * sizeof *watches->list);
        watches->n = n;
    }
    return &watches->list[fd];
}

static void watch_tell(struct watches *watches, int fd, uint32_t events)
{
    struct watch *watch = watch_of(watches, fd);
    struct epoll_event event = {.events = events, .data.fd = fd};
    int how = events == 0 ? EPOLL_CTL_DEL : watch->watched != 0 ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (watch->watched == events)
        return;
    if (epoll_ctl(watches->epoll_fd, how, fd, &event) != 0 && events != 0) /* it may be closed */
        log_error("cannot watch a connection: %s", strerror(errno));
    watch->watched = events;
}

void watches_set(struct watches *watches, int fd, uint32_t events, void *owner)
{
    struct watch *watch = watch_of(watches, fd);
    watch->owner = owner;
    watch->wanted = events;
    if (events != 0 || !watch->ours || watch->watched != EPOLLIN)
        watch_tell(watches, fd, events);
}

void watches_begin(struct watches *watches, int fd)
{
    *watch_of(watches, fd) = (struct watch){.ours = true};
}

/* The kernel takes it off the epoll by itself. */
void watches_end(struct watches *watches, int fd)
{
    *watch_of(watches, fd) = (struct watch){0};
}

static void epoll_active(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct watches *watches = poll->data;
    struct epoll_event ready[EVENTS_PER_TURN];
    int n = epoll_wait(watches->epoll_fd, ready, EVENTS_PER_TURN, 0);
    for (int i = 0; i < n; i++) {
        int fd = ready[i].data.fd;
        const struct watch *watch = watch_of(watches, fd);
        if (watch->wanted != 0)
            watches->fn(watches->ctx, fd, ready[i].events, watch->owner);
        else
            watch_tell(watches, fd, 0); /* an idle connection that its server closes */
    }
}

static void poll_closed(uv_handle_t *handle)
{
    free(handle);
}

int watches_open(struct watches **ret, uv_loop_t *loop, watches_fn *fn, void *ctx)
{
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        return -errno;
    uv_poll_t *poll = mem_must_zalloc(sizeof *poll);
    int rc = uv_poll_init(loop, poll, epoll_fd);
    if (rc != 0) {
        close(epoll_fd);
        free(poll);
        return rc;
    }
    struct watches *watches = mem_must_zalloc(sizeof *watches);
    *watches = (struct watches){.epoll_fd = epoll_fd, .poll = poll, .fn = fn, .ctx = ctx};
    poll->data = watches;
    uv_poll_start(poll, UV_READABLE, epoll_active);
    *ret = watches;
    return 0;
}

void watches_close(struct watches **watches_ptr)
{
    struct watches *watches = *watches_ptr;
    *watches_ptr = NULL;
    if (watches == NULL)
        return;
    uv_close((uv_handle_t *)watches->poll, poll_closed);
    close(watches->epoll_fd);
    free(watches->list);
    free(watches);
}
