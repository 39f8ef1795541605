#include "orchestrator/stack_control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/containers.h"
#include "schemas/mem.h"

#define LINE_MAX_BYTES 128

struct asker {
    TAILQ_ENTRY(asker) link;
    struct stack_control *control;
    uv_pipe_t pipe;
    uv_write_t write;
    char line[LINE_MAX_BYTES];
    size_t len;
    struct buf answer;
    bool asked, waits_ready, closing;
};

struct stack_control {
    uv_pipe_t listener;
    TAILQ_HEAD(, asker) askers;
    char *path;
    char *ready; /* the answer to `ready`; NULL: not known yet */
    const struct stack_control_events *events;
    void *ctx;
};

static void asker_closed(uv_handle_t *handle)
{
    struct asker *asker = handle->data;
    buf_release(&asker->answer);
    free(asker);
}

static void asker_close(struct asker *asker)
{
    if (asker->closing)
        return;
    asker->closing = true;
    TAILQ_REMOVE(&asker->control->askers, asker, link);
    uv_close((uv_handle_t *)&asker->pipe, asker_closed);
}

static void asker_written(uv_write_t *write, int status)
{
    (void)status;
    asker_close(write->data);
}

static void asker_answer(struct asker *asker)
{
    buf_add_char(&asker->answer, '\n');
    if (asker->answer.failed) {
        asker_close(asker);
        return;
    }
    uv_buf_t out = uv_buf_init(asker->answer.data, (unsigned)asker->answer.len);
    asker->write.data = asker;
    if (uv_write(&asker->write, (uv_stream_t *)&asker->pipe, &out, 1, asker_written) != 0)
        asker_close(asker);
}

static void asker_obey(struct asker *asker)
{
    struct stack_control *control = asker->control;
    char *end = strpbrk(asker->line, "\r\n");
    *end = '\0';
    if (strcmp(asker->line, "status") == 0) {
        control->events->status(control->ctx, &asker->answer);
        asker_answer(asker);
    } else if (strcmp(asker->line, "ready") == 0) {
        asker->waits_ready = control->ready == NULL;
        if (control->ready != NULL) {
            buf_add_str(&asker->answer, control->ready);
            asker_answer(asker);
        }
    } else if (strncmp(asker->line, "stop ", 5) == 0) {
        /* The asker waits until the connection ends with this process. */
        control->events->stop(control->ctx, strtoll(asker->line + 5, NULL, 10));
    } else {
        buf_add_str(&asker->answer, "unknown request");
        asker_answer(asker);
    }
}

static void asker_room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct asker *asker = handle->data;
    (void)suggested;
    *ret = uv_buf_init(asker->line + asker->len, (unsigned)(sizeof asker->line - 1 - asker->len));
}

static void asker_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *data)
{
    struct asker *asker = stream->data;
    (void)data;
    if (len < 0) {
        asker_close(asker); /* gone, or it sent a line without end that fills the room */
        return;
    }
    asker->len += (size_t)len;
    asker->line[asker->len] = '\0';
    if (strpbrk(asker->line, "\r\n") == NULL)
        return;
    asker->len = 0; /* whatever else it sends is dropped */
    if (!asker->asked) {
        asker->asked = true;
        asker_obey(asker);
    }
}

static void listener_connected(uv_stream_t *listener, int status)
{
    struct stack_control *control = listener->data;
    if (status < 0)
        return;
    struct asker *asker = mem_must_zalloc(sizeof *asker);
    asker->control = control;
    uv_pipe_init(listener->loop, &asker->pipe, 0);
    asker->pipe.data = asker;
    TAILQ_INSERT_TAIL(&control->askers, asker, link);
    if (uv_accept(listener, (uv_stream_t *)&asker->pipe) != 0 ||
        uv_read_start((uv_stream_t *)&asker->pipe, asker_room, asker_read) != 0)
        asker_close(asker);
}

int stack_control_open(struct stack_control **ret, uv_loop_t *loop, const char *path,
                       const struct stack_control_events *events, void *ctx, struct err *err)
{
    struct stack_control *control = mem_must_zalloc(sizeof *control);
    control->path = mem_must_strdup(path);
    control->events = events;
    control->ctx = ctx;
    TAILQ_INIT(&control->askers);
    uv_pipe_init(loop, &control->listener, 0);
    control->listener.data = control;
    unlink(path);
    mode_t before = umask(0177);
    int rc = uv_pipe_bind(&control->listener, path);
    umask(before);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&control->listener, 64, listener_connected);
    *ret = control;
    if (rc != 0) {
        stack_control_close(ret);
        return err_set(err, rc, "cannot listen on %s: %s", path, uv_strerror(rc));
    }
    return 0;
}

void stack_control_ready(struct stack_control *control, const char *answer)
{
    if (control->ready != NULL)
        return;
    control->ready = mem_must_strdup(answer);
    struct asker *asker, *next;
    TAILQ_FOREACH_SAFE (asker, &control->askers, link, next) {
        if (!asker->waits_ready)
            continue;
        asker->waits_ready = false;
        buf_add_str(&asker->answer, answer);
        asker_answer(asker);
    }
}

static void listener_closed(uv_handle_t *handle)
{
    struct stack_control *control = handle->data;
    free(control->path);
    free(control->ready);
    free(control);
}

void stack_control_close(struct stack_control **control)
{
    struct stack_control *it = *control;
    if (it == NULL)
        return;
    *control = NULL;
    unlink(it->path);
    while (!TAILQ_EMPTY(&it->askers))
        asker_close(TAILQ_FIRST(&it->askers));
    uv_close((uv_handle_t *)&it->listener, listener_closed);
}

/* --- the other side ------------------------------------------------------------------------ */

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -ESRCH;
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int rc = errno == ENOENT || errno == ECONNREFUSED ? -ESRCH : -errno;
    close(fd);
    return rc;
}

int stack_control_ask(const char *path, const char *line, int64_t timeout_ms, struct buf *answer)
{
    int64_t end_ms = clock_ms() + timeout_ms;
    int fd = connect_to(path);
    if (fd < 0)
        return fd;
    char request[LINE_MAX_BYTES];
    int len = snprintf(request, sizeof request, "%s\n", line);
    int rc = send(fd, request, (size_t)len, MSG_NOSIGNAL) == len ? 0 : -ECONNRESET;
    for (bool open = true; open && rc == 0;) {
        char chunk[4096];
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int64_t left = end_ms - clock_ms();
        if (left <= 0 || poll(&wait, 1, (int)left) == 0) {
            rc = -ETIMEDOUT;
            break;
        }
        ssize_t got = recv(fd, chunk, sizeof chunk, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        open = got > 0;
        if (got > 0)
            buf_add(answer, chunk, (size_t)got);
    }
    close(fd);
    while (answer->len > 0 && answer->data[answer->len - 1] == '\n')
        answer->data[--answer->len] = '\0';
    return rc == 0 && answer->len == 0 ? -ECONNRESET : rc;
}
