#include "simulator/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/containers.h"
#include "schemas/mem.h"

/* What one connection may hold for headers and buffers: small, because there may be 10,000. */
#define CONNECTION_BYTES 8192
/* A pending buffer that grew beyond this is given back once it is empty. */
#define KEEP_BYTES 2048

struct sim_exchange {
    struct sim_http *http;
    struct MHD_Connection *connection;
    TAILQ_ENTRY(sim_exchange) entry;
    char method[16];
    const char *path;
    struct buf body;
    size_t received;
    bool too_large;
    void *data;
    sim_exchange_fn *next; /* who decides when MHD asks for an answer */
    bool cut;              /* by us, before the headers */
    bool gone;             /* by the client, seen while nothing was on the wire */
    bool suspended;
    sim_fill_fn *fill;
    enum sim_fill state; /* MORE, or how the body ends once `pending` is empty */
    struct buf pending;
    size_t taken;
    int64_t drip_bytes; /* 0: no drip */
    int64_t drip_ms;
    double drip_next_ms;
    uv_timer_t timer;
    uv_poll_t hangup;
    bool timer_open, hangup_open;
    int handles; /* libuv handles not yet closed, and one for the exchange itself */
};

struct sim_http {
    struct MHD_Daemon *daemon;
    uv_loop_t *loop;
    struct sim_http_handlers handlers;
    void *ctx;
    TAILQ_HEAD(, sim_exchange) exchanges;
    uv_poll_t poll; /* MHD's epoll descriptor */
    uv_idle_t idle; /* active while MHD has work that no descriptor announces */
    int port;
    bool stopping;
    int handles;
};

/* --- running MHD inside the loop ----------------------------------------------------------- */

static void pump(struct sim_http *http);

static void pump_idle(uv_idle_t *idle)
{
    pump(idle->data);
}

static void pump(struct sim_http *http)
{
    for (int rounds = 0; rounds < 8; rounds++) {
        MHD_UNSIGNED_LONG_LONG timeout_ms = 1;
        MHD_run(http->daemon);
        if (MHD_get_timeout(http->daemon, &timeout_ms) != MHD_YES || timeout_ms > 0) {
            uv_idle_stop(&http->idle);
            return;
        }
    }
    uv_idle_start(&http->idle, pump_idle); /* let the other handles have their turn */
}

static void pump_readable(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    pump(poll->data);
}

/* --- suspending ---------------------------------------------------------------------------- */

static void exchange_unref(struct sim_exchange *exchange)
{
    if (--exchange->handles == 0)
        free(exchange);
}

static void exchange_handle_closed(uv_handle_t *handle)
{
    exchange_unref(handle->data);
}

static void exchange_resume(struct sim_exchange *exchange)
{
    if (!exchange->suspended)
        return;
    exchange->suspended = false;
    if (exchange->timer_open)
        uv_timer_stop(&exchange->timer);
    MHD_resume_connection(exchange->connection);
    /* Without a thread of its own MHD tells no descriptor of it: one pump for all that are due. */
    uv_idle_start(&exchange->http->idle, pump_idle);
}

static void exchange_timer_fired(uv_timer_t *timer)
{
    exchange_resume(timer->data);
}

static void exchange_hung_up(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct sim_exchange *exchange = poll->data;
    exchange->gone = true;
    uv_poll_stop(poll);
    exchange_resume(exchange);
}

/* MHD does not look at a suspended connection, so the loop watches it: otherwise a client that
 * leaves a stalled stream would never be noticed. */
static void exchange_watch(struct sim_exchange *exchange)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info == NULL || uv_poll_init(exchange->http->loop, &exchange->hangup, info->connect_fd))
        return;
    exchange->hangup.data = exchange;
    exchange->hangup_open = true;
    exchange->handles++;
    uv_poll_start(&exchange->hangup, UV_DISCONNECT, exchange_hung_up);
}

/* wait_ms < 0: until the client leaves or the server stops. */
static void exchange_suspend(struct sim_exchange *exchange, double wait_ms)
{
    if (!exchange->timer_open) {
        uv_timer_init(exchange->http->loop, &exchange->timer);
        exchange->timer.data = exchange;
        exchange->timer_open = true;
        exchange->handles++;
    }
    if (!exchange->hangup_open)
        exchange_watch(exchange);
    exchange->suspended = true;
    MHD_suspend_connection(exchange->connection);
    if (wait_ms >= 0) {
        uv_update_time(exchange->http->loop);
        uv_timer_start(&exchange->timer, exchange_timer_fired, (uint64_t)ceil(wait_ms), 0);
    }
}

/* --- the life of an exchange --------------------------------------------------------------- */

static struct sim_exchange *exchange_new(struct sim_http *http, struct MHD_Connection *connection,
                                         const char *method, const char *path)
{
    struct sim_exchange *exchange = mem_must_zalloc(sizeof *exchange);
    exchange->http = http;
    exchange->connection = connection;
    exchange->path = path;
    exchange->next = http->handlers.request;
    exchange->handles = 1;
    strncpy(exchange->method, method, sizeof exchange->method - 1);
    TAILQ_INSERT_TAIL(&http->exchanges, exchange, entry);
    return exchange;
}

static void exchange_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                               enum MHD_RequestTerminationCode code)
{
    (void)connection;
    struct sim_http *http = cls;
    struct sim_exchange *exchange = *con_cls;
    *con_cls = NULL;
    if (exchange == NULL)
        return;
    http->handlers.done(http->ctx, exchange, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    TAILQ_REMOVE(&http->exchanges, exchange, entry);
    buf_release(&exchange->body);
    buf_release(&exchange->pending);
    /* Before MHD closes the descriptor, so that its number is free for the next connection. */
    if (exchange->hangup_open)
        uv_close((uv_handle_t *)&exchange->hangup, exchange_handle_closed);
    if (exchange->timer_open)
        uv_close((uv_handle_t *)&exchange->timer, exchange_handle_closed);
    exchange_unref(exchange);
}

static enum MHD_Result exchange_receive(struct sim_exchange *exchange, const char *data,
                                        size_t *len)
{
    exchange->received += *len;
    if (exchange->received > SIM_HTTP_MAX_BODY) {
        exchange->too_large = true;
        buf_release(&exchange->body);
        if (exchange->received > 4 * SIM_HTTP_MAX_BODY)
            return MHD_NO; /* it may send for ever: enough was read to answer the honest ones */
    } else {
        buf_add(&exchange->body, data, *len);
        if (exchange->body.failed)
            return MHD_NO;
    }
    *len = 0;
    return MHD_YES;
}

/* MHD calls this when the headers are there, for every piece of the body, at its end, and again
 * each time a connection that has no answer yet is resumed. */
static enum MHD_Result exchange_step(void *cls, struct MHD_Connection *connection, const char *url,
                                     const char *method, const char *version, const char *upload,
                                     size_t *upload_len, void **con_cls)
{
    (void)version;
    struct sim_http *http = cls;
    struct sim_exchange *exchange = *con_cls;
    if (exchange == NULL) {
        *con_cls = exchange_new(http, connection, method, url);
        return MHD_YES;
    }
    if (*upload_len > 0)
        return exchange_receive(exchange, upload, upload_len);
    if (exchange->gone || http->stopping)
        return MHD_NO;
    exchange->next(http->ctx, exchange);
    return exchange->cut ? MHD_NO : MHD_YES;
}

/* --- answering ----------------------------------------------------------------------------- */

static void add_headers(struct MHD_Response *response, const char *type, const struct buf *headers)
{
    if (type != NULL)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    const char *at = headers != NULL && headers->data != NULL ? headers->data : "";
    while (*at != '\0') {
        size_t len = strcspn(at, "\n");
        char line[512];
        char *colon;
        if (len < sizeof line && memcpy(line, at, len) != NULL &&
            (line[len] = '\0', colon = strstr(line, ": ")) != NULL) {
            *colon = '\0';
            MHD_add_response_header(response, line, colon + 2);
        }
        at += len + (at[len] == '\n');
    }
}

static void queue(struct sim_exchange *exchange, int status, struct MHD_Response *response)
{
    if (MHD_queue_response(exchange->connection, (unsigned)status, response) != MHD_YES)
        exchange->cut = true;
    MHD_destroy_response(response);
}

void sim_exchange_reply(struct sim_exchange *exchange, int status, const char *type,
                        const struct buf *headers, struct buf *body)
{
    size_t len;
    char *data = buf_take(body, &len);
    if (data == NULL) {
        exchange->cut = true;
        return;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(data);
        exchange->cut = true;
        return;
    }
    add_headers(response, type, headers);
    queue(exchange, status, response);
}

/* Fills `pending` when it is empty; how long to wait when there is still nothing. */
static double refill(struct sim_exchange *exchange)
{
    double wait_ms = 0;
    exchange->taken = 0;
    if (exchange->pending.cap > KEEP_BYTES)
        buf_release(&exchange->pending);
    buf_clear(&exchange->pending);
    exchange->state = exchange->fill(exchange->http->ctx, exchange, &exchange->pending, &wait_ms);
    if (exchange->pending.failed)
        exchange->gone = true;
    return wait_ms;
}

static ssize_t body_read(void *cls, uint64_t position, char *out, size_t max)
{
    (void)position;
    struct sim_exchange *exchange = cls;
    double wait_ms = 0;
    if (exchange->taken == exchange->pending.len && exchange->state == SIM_FILL_MORE &&
        !exchange->gone && !exchange->http->stopping)
        wait_ms = refill(exchange);
    if (exchange->gone || exchange->http->stopping)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t left = exchange->pending.len - exchange->taken;
    double now_ms = exchange->drip_bytes > 0 ? clock_ms_f() : 0;
    if (left > 0 && now_ms < exchange->drip_next_ms) {
        exchange_suspend(exchange, exchange->drip_next_ms - now_ms);
        return 0;
    }
    if (left > 0) {
        size_t len = left < max ? left : max;
        if (exchange->drip_bytes > 0 && len > (size_t)exchange->drip_bytes)
            len = (size_t)exchange->drip_bytes;
        memcpy(out, exchange->pending.data + exchange->taken, len);
        exchange->taken += len;
        exchange->drip_next_ms = now_ms + (double)exchange->drip_ms;
        return (ssize_t)len;
    }
    if (exchange->state == SIM_FILL_END)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (exchange->state == SIM_FILL_CUT)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    exchange_suspend(exchange, wait_ms);
    return 0;
}

void sim_exchange_stream(struct sim_exchange *exchange, int status, const char *type,
                         const struct buf *headers, sim_fill_fn *fill)
{
    exchange->fill = fill;
    exchange->state = SIM_FILL_MORE;
    /* The block size is used only for bodies that are not chunked: it would be memory for nothing.
     */
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16, body_read, exchange, NULL);
    if (response == NULL) {
        exchange->cut = true;
        return;
    }
    add_headers(response, type, headers);
    queue(exchange, status, response);
}

void sim_exchange_drip(struct sim_exchange *exchange, int64_t bytes, int64_t every_ms)
{
    exchange->drip_bytes = bytes;
    exchange->drip_ms = every_ms;
}

void sim_exchange_wait(struct sim_exchange *exchange, double wait_ms, sim_exchange_fn *fn)
{
    exchange->next = fn;
    exchange_suspend(exchange, wait_ms);
}

void sim_exchange_cut(struct sim_exchange *exchange)
{
    exchange->cut = true;
}

/* --- what came ----------------------------------------------------------------------------- */

const char *sim_exchange_method(const struct sim_exchange *exchange)
{
    return exchange->method;
}

const char *sim_exchange_path(const struct sim_exchange *exchange)
{
    return exchange->path;
}

const char *sim_exchange_header(const struct sim_exchange *exchange, const char *name)
{
    return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

const char *sim_exchange_query(const struct sim_exchange *exchange, const char *name)
{
    return MHD_lookup_connection_value(exchange->connection, MHD_GET_ARGUMENT_KIND, name);
}

struct buf *sim_exchange_body(struct sim_exchange *exchange)
{
    return &exchange->body;
}

bool sim_exchange_too_large(const struct sim_exchange *exchange)
{
    return exchange->too_large;
}

void sim_exchange_set_data(struct sim_exchange *exchange, void *data)
{
    exchange->data = data;
}

void *sim_exchange_data(const struct sim_exchange *exchange)
{
    return exchange->data;
}

/* --- opening and closing ------------------------------------------------------------------- */

static int listen_on(const struct sim_http_options *options, int *ret_port, struct err *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)options->port)};
    socklen_t len = sizeof address;
    if (inet_pton(AF_INET, options->listen, &address.sin_addr) != 1)
        return err_set(err, -EINVAL, "--listen takes an IPv4 address, not '%s'", options->listen);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "no socket: %s", strerror(errno));
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 8192) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &len) == 0) {
        *ret_port = ntohs(address.sin_port);
        return fd;
    }
    int rc = -errno;
    close(fd);
    const char *hint = rc == -EADDRINUSE ? "; choose another with --port, or 0 for any" : "";
    return err_set(err, rc, "cannot listen on %s:%d: %s%s", options->listen, options->port,
                   strerror(-rc), hint);
}

/* MHD reports broken connections on stderr, which are everyday here. */
static void drop_log(void *cls, const char *format, va_list args)
{
    (void)cls, (void)format, (void)args;
}

static struct MHD_Daemon *daemon_start(struct sim_http *http, int fd)
{
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    return MHD_start_daemon(
        flags, 0, NULL, NULL, exchange_step, http, MHD_OPTION_EXTERNAL_LOGGER, drop_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, exchange_completed, http,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)SIM_HTTP_MAX_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_END);
}

int sim_http_open(struct sim_http **ret, uv_loop_t *loop, const struct sim_http_options *options,
                  const struct sim_http_handlers *handlers, void *ctx, struct err *err)
{
    int port = 0;
    int fd = listen_on(options, &port, err);
    if (fd < 0)
        return fd;
    struct sim_http *http = mem_must_zalloc(sizeof *http);
    http->loop = loop;
    http->handlers = *handlers;
    http->ctx = ctx;
    http->port = port;
    TAILQ_INIT(&http->exchanges);
    http->daemon = daemon_start(http, fd);
    if (http->daemon == NULL) {
        close(fd);
        free(http);
        return err_set(err, -EIO, "libmicrohttpd cannot start with epoll");
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    uv_poll_init(loop, &http->poll, info->epoll_fd);
    uv_idle_init(loop, &http->idle);
    http->poll.data = http->idle.data = http;
    http->handles = 2;
    uv_poll_start(&http->poll, UV_READABLE, pump_readable);
    *ret = http;
    return 0;
}

static void http_handle_closed(uv_handle_t *handle)
{
    struct sim_http *http = handle->data;
    if (--http->handles == 0)
        free(http);
}

void sim_http_close(struct sim_http **ref)
{
    struct sim_http *http = *ref;
    if (http == NULL)
        return;
    *ref = NULL;
    http->stopping = true;
    /* MHD must not be stopped while it holds suspended connections. */
    struct sim_exchange *exchange;
    TAILQ_FOREACH (exchange, &http->exchanges, entry)
        exchange_resume(exchange);
    for (int rounds = 0; rounds < 64; rounds++) {
        MHD_UNSIGNED_LONG_LONG timeout_ms = 1;
        MHD_run(http->daemon);
        if (MHD_get_timeout(http->daemon, &timeout_ms) != MHD_YES || timeout_ms > 0)
            break;
    }
    uv_close((uv_handle_t *)&http->poll, http_handle_closed);
    uv_close((uv_handle_t *)&http->idle, http_handle_closed);
    MHD_stop_daemon(http->daemon);
    http->daemon = NULL;
}

int sim_http_port(const struct sim_http *http)
{
    return http->port;
}

int64_t sim_http_connections(const struct sim_http *http)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
    return info != NULL ? (int64_t)info->num_connections : 0;
}
