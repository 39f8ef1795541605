/* Thousands of descriptors on the loop, fairly: in an epoll of their own, of which the loop takes a
 * few events in a turn. libuv alone would serve 48 times 1,024 of them before it looks at its
 * timers again, and leases must be renewed meanwhile. */
#ifndef WORKERS_WATCH_H
#define WORKERS_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "common/loop.h"

struct watches;

/* events: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP. owner: as given to watches_set(). */
typedef void watches_fn(void *ctx, int fd, uint32_t events, void *owner);

/* 0 or a negative errno. */
int watches_open(struct watches **ret, uv_loop_t *loop, watches_fn *fn, void *ctx);
void watches_close(struct watches **watches); /* accepts NULL; fn is never called after it */

/* A socket begins its life: what was known of its number is void. */
void watches_begin(struct watches *watches, int fd);
/* It is about to be closed. */
void watches_end(struct watches *watches, int fd);
/* What is wanted of it from now on: EPOLLIN, EPOLLOUT or 0. A socket between begin and end that
 * wants nothing after it was read from stays in the epoll until something happens there: usually it
 * is read from again soon, and two system calls are saved. */
void watches_set(struct watches *watches, int fd, uint32_t events, void *owner);

#endif
