#include "common/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/log.h"
#include "schemas/mem.h"

void loop_guard_standard(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO); /* the lowest closed one is taken each time */
    if (fd >= 0)
        close(fd);
}

void loop_init(uv_loop_t *loop)
{
    loop_guard_standard();
    int rc = uv_loop_init(loop);
    loop->data = NULL; /* libuv leaves it as it was */
    if (rc == 0)
        return;
    log_error("cannot start an event loop: %s", uv_strerror(rc));
    exit(1);
}

struct stop {
    uv_signal_t term, interrupt;
    loop_stop_fn *fn;
    void *ctx;
    int open; /* handles not yet closed */
};

static void stop_signalled(uv_signal_t *handle, int signal_number)
{
    struct stop *stop = handle->data;
    stop->fn(stop->ctx, signal_number);
}

void loop_on_stop(uv_loop_t *loop, loop_stop_fn *fn, void *ctx)
{
    signal(SIGPIPE, SIG_IGN);
    struct stop *stop = mem_must_zalloc(sizeof *stop);
    *stop = (struct stop){.fn = fn, .ctx = ctx, .open = 2};
    stop->term.data = stop->interrupt.data = stop;
    if (uv_signal_init(loop, &stop->term) != 0 || uv_signal_init(loop, &stop->interrupt) != 0 ||
        uv_signal_start(&stop->term, stop_signalled, SIGTERM) != 0 ||
        uv_signal_start(&stop->interrupt, stop_signalled, SIGINT) != 0) {
        log_error("cannot watch signals");
        exit(1);
    }
    loop->data = stop;
}

static void stop_closed(uv_handle_t *handle)
{
    struct stop *stop = handle->data;
    if (--stop->open == 0)
        free(stop);
}

void loop_stop_release(uv_loop_t *loop)
{
    struct stop *stop = loop->data;
    if (stop == NULL)
        return;
    loop->data = NULL;
    uv_close((uv_handle_t *)&stop->term, stop_closed);
    uv_close((uv_handle_t *)&stop->interrupt, stop_closed);
}

struct loop_timer {
    uv_timer_t uv;
    loop_timer_fn *fn;
    void *ctx;
};

static void timer_fired(uv_timer_t *uv)
{
    struct loop_timer *timer = uv->data;
    timer->fn(timer->ctx);
}

struct loop_timer *loop_timer_new(uv_loop_t *loop, loop_timer_fn *fn, void *ctx)
{
    struct loop_timer *timer = mem_must_zalloc(sizeof *timer);
    timer->fn = fn;
    timer->ctx = ctx;
    uv_timer_init(loop, &timer->uv);
    timer->uv.data = timer;
    return timer;
}

void loop_timer_start(struct loop_timer *timer, int64_t after_ms, int64_t every_ms)
{
    /* libuv counts from the start of the loop's turn, which a long callback can leave behind. */
    uv_update_time(timer->uv.loop);
    uv_timer_start(&timer->uv, timer_fired, (uint64_t)(after_ms > 0 ? after_ms : 0),
                   (uint64_t)(every_ms > 0 ? every_ms : 0));
}

void loop_timer_stop(struct loop_timer *timer)
{
    uv_timer_stop(&timer->uv);
}

bool loop_timer_active(const struct loop_timer *timer)
{
    return uv_is_active((const uv_handle_t *)&timer->uv) != 0;
}

static void timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void loop_timer_free(struct loop_timer **timer)
{
    if (*timer == NULL)
        return;
    uv_close((uv_handle_t *)&(*timer)->uv, timer_closed);
    *timer = NULL;
}

static void ran_out(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

static void mark_closed(uv_handle_t *handle)
{
    *(bool *)handle->data = true;
}

int loop_run_until(uv_loop_t *loop, const bool *flag, int64_t timeout_ms)
{
    bool late = false, closed = false;
    uv_timer_t timer;
    uv_update_time(loop);
    uv_timer_init(loop, &timer);
    timer.data = &late;
    if (timeout_ms >= 0)
        uv_timer_start(&timer, ran_out, (uint64_t)timeout_ms, 0);
    while (!*flag && !late && uv_run(loop, UV_RUN_ONCE) != 0)
        ;
    timer.data = &closed;
    uv_close((uv_handle_t *)&timer, mark_closed);
    while (!closed)
        uv_run(loop, UV_RUN_NOWAIT);
    return *flag ? 0 : -ETIMEDOUT;
}

static void close_handle(uv_handle_t *handle, void *ctx)
{
    (void)ctx;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void loop_finish(uv_loop_t *loop)
{
    loop_stop_release(loop);
    uv_run(loop, UV_RUN_NOWAIT);
    uv_walk(loop, close_handle, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
}

void loop_raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}
