/* hiredis parses replies and connects; its async layer is not used, because it asserts on a reply
 * that nobody asked for and copies every command, while the commands must be kept anyway to be sent
 * again. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/redis.h"
/* hiredis has a macro of the same name. */
static const enum redis_type type_error = REDIS_ERR;
#include <hiredis/hiredis.h>

#include "common/clock.h"
#include "common/redis_internal.h"
#include "schemas/mem.h"

#define READ_BYTES ((size_t)32 * 1024)
#define READS_PER_TURN 32  /* then other descriptors have their turn */
#define ARRAY_MAX 10000000 /* elements of one reply; more is nonsense */

/* It outlives redis_link_close() by the turn that libuv needs to close a handle. */
struct redis_link {
    uv_poll_t poll;
    uv_loop_t *loop;
    struct redis_link_callbacks callbacks;
    void *ctx;
    const char *name;                    /* borrowed */
    struct resolve *resolve;             /* NULL: none under way */
    redisContext *context;               /* NULL: not yet, or no more */
    redisReplyObjectFunctions functions; /* of hiredis */
    redisReplyObjectFunctions checked;   /* the same, with a limit */
    int port, events;
    unsigned turn;
    bool tcp, connecting, polled, closed;
    int64_t heard_ms;
};

/* --- values ------------------------------------------------------------------------------- */

static const redisReply nil_reply = {.type = REDIS_REPLY_NIL};

static const redisReply *reply_of(const struct redis_value *value)
{
    return (const redisReply *)(const void *)value;
}

static const struct redis_value *value_of(const redisReply *reply)
{
    return (const struct redis_value *)(const void *)reply;
}

enum redis_type redis_type(const struct redis_value *value)
{
    switch (reply_of(value)->type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        return REDIS_STR;
    case REDIS_REPLY_ARRAY:
        return REDIS_ARRAY;
    case REDIS_REPLY_INTEGER:
        return REDIS_INT;
    case REDIS_REPLY_ERROR:
        return type_error;
    default:
        return REDIS_NIL;
    }
}

const char *redis_str(const struct redis_value *value, size_t *ret_len)
{
    const redisReply *reply = reply_of(value);
    bool has = reply->str != NULL &&
               (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS ||
                reply->type == REDIS_REPLY_ERROR);
    if (ret_len != NULL)
        *ret_len = has ? reply->len : 0;
    return has ? reply->str : "";
}

int64_t redis_int(const struct redis_value *value)
{
    const redisReply *reply = reply_of(value);
    if (reply->type == REDIS_REPLY_INTEGER)
        return reply->integer;
    const char *text = redis_str(value, NULL);
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' ? number : 0;
}

size_t redis_len(const struct redis_value *value)
{
    return reply_of(value)->type == REDIS_REPLY_ARRAY ? reply_of(value)->elements : 0;
}

const struct redis_value *redis_at(const struct redis_value *value, size_t index)
{
    if (index >= redis_len(value) || reply_of(value)->element[index] == NULL)
        return value_of(&nil_reply);
    return value_of(reply_of(value)->element[index]);
}

void redis_value_free(const struct redis_value *value)
{
    if (value != NULL)
        freeReplyObject((void *)(uintptr_t)value);
}

void redis_answer_error(redis_reply_fn *fn, void *ctx, const char *text)
{
    redisReply error = {
        .type = REDIS_REPLY_ERROR, .str = (char *)(uintptr_t)text, .len = strlen(text)};
    if (fn != NULL)
        fn(ctx, value_of(&error));
}

void redis_answer_closed(redis_reply_fn *fn, void *ctx)
{
    redis_answer_error(fn, ctx, "CLOSED the client was closed");
}

bool redis_is_error(const struct redis_value *value, const char *word)
{
    if (redis_type(value) != type_error)
        return false;
    size_t len, word_len = strlen(word);
    const char *text = redis_str(value, &len);
    return len >= word_len && memcmp(text, word, word_len) == 0 &&
           (len == word_len || text[word_len] == ' ');
}

static void *create_array(const redisReadTask *task, int elements)
{
    const struct redis_link *link = task->privdata;
    return elements > ARRAY_MAX ? NULL : link->functions.createArray(task, elements);
}

/* --- ends --------------------------------------------------------------------------------- */

static void __attribute__((format(printf, 2, 3)))
break_link(struct redis_link *link, const char *format, ...)
{
    char why[512];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    link->callbacks.broken(link->ctx, why);
}

static void link_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void redis_link_close(struct redis_link **ret)
{
    struct redis_link *link = *ret;
    *ret = NULL;
    if (link == NULL)
        return;
    link->closed = true;
    if (link->context != NULL)
        redisFree(link->context);
    link->context = NULL;
    if (link->polled)
        uv_close((uv_handle_t *)&link->poll, link_closed);
    else if (link->resolve != NULL)
        uv_cancel((uv_req_t *)link->resolve); /* resolved() frees it */
    else
        free(link);
}

/* --- reading and writing ------------------------------------------------------------------ */

static void poll_event(uv_poll_t *poll, int status, int events);

static void poll_for(struct redis_link *link, int events)
{
    if (link->events == events)
        return;
    link->events = events;
    uv_poll_start(&link->poll, events, poll_event);
}

bool redis_link_full(const struct redis_link *link)
{
    return (link->events & UV_WRITABLE) != 0;
}

int64_t redis_link_heard_ms(const struct redis_link *link)
{
    return link->heard_ms;
}

ssize_t redis_link_write(struct redis_link *link, struct iovec *vectors, int n)
{
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = (size_t)n};
    for (;;) {
        ssize_t sent = sendmsg(link->context->fd, &message, MSG_NOSIGNAL);
        if (sent >= 0)
            return sent;
        int error = errno; /* libuv changes it */
        if (error == EINTR)
            continue;
        if (error == EAGAIN)
            poll_for(link, UV_READABLE | UV_WRITABLE);
        return -error;
    }
}

/* Hands over all replies that are complete. False: the link is gone. */
static bool take_replies(struct redis_link *link)
{
    for (;;) {
        void *reply = NULL;
        if (redisReaderGetReply(link->context->reader, &reply) != REDIS_OK) {
            break_link(link, "Redis at %s sent no valid answer: %s", link->name,
                       link->context->reader->errstr);
            return false;
        }
        if (reply == NULL)
            return true;
        if (!link->callbacks.reply(link->ctx, value_of(reply)))
            freeReplyObject(reply);
        if (link->closed)
            return false;
    }
}

static void read_replies(struct redis_link *link)
{
    static char chunk[READ_BYTES]; /* one thread */
    for (int turn = 0; turn < READS_PER_TURN; turn++) {
        ssize_t len = read(link->context->fd, chunk, sizeof chunk);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0 && errno == EAGAIN)
            return;
        if (len < 0) {
            break_link(link, "cannot read from Redis at %s: %s", link->name, strerror(errno));
            return;
        }
        if (len == 0) {
            break_link(link, "Redis at %s closed the connection", link->name);
            return;
        }
        link->heard_ms = clock_ms();
        redisReaderFeed(link->context->reader, chunk, (size_t)len); /* an error shows below */
        if (!take_replies(link) || (size_t)len < sizeof chunk)
            return;
    }
}

/* What is wrong with the socket. libuv's status, 0 or negative, is the last to be believed: it is
 * EBADF whatever the error is. */
static int socket_error(const struct redis_link *link, int status)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(link->context->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        return errno;
    return error != 0 ? error : status == UV_EBADF ? ECONNRESET : -status;
}

static void poll_event(uv_poll_t *poll, int status, int events)
{
    struct redis_link *link = poll->data;
    if (link->closed)
        return;
    int error = status < 0 || link->connecting ? socket_error(link, status) : 0;
    if (error != 0) {
        break_link(link, "%s Redis at %s: %s", link->connecting ? "cannot connect to" : "lost",
                   link->name, strerror(error));
        return;
    }
    if (link->connecting) {
        link->connecting = false;
        link->heard_ms = clock_ms();
        poll_for(link, UV_READABLE);
        link->callbacks.connected(link->ctx);
        return;
    }
    if ((events & UV_WRITABLE) != 0) {
        poll_for(link, UV_READABLE);
        link->callbacks.writable(link->ctx);
    }
    if (!link->closed && (events & UV_READABLE) != 0)
        read_replies(link);
}

/* --- connecting --------------------------------------------------------------------------- */

/* Watches the descriptor of a connection that is being made. Takes the context. 0 or -errno. */
static int attach(struct redis_link *link, redisContext *context, struct err *err)
{
    if (context == NULL || context->err != 0) {
        err_set(err, 0, "cannot connect to Redis at %s: %s", link->name,
                context != NULL ? context->errstr : "out of memory");
        if (context != NULL)
            redisFree(context);
        return -ECONNREFUSED;
    }
    int rc = uv_poll_init(link->loop, &link->poll, context->fd);
    if (rc != 0) {
        redisFree(context);
        return err_set(err, rc, "cannot watch Redis at %s: %s", link->name, strerror(-rc));
    }
    link->context = context;
    link->functions = *context->reader->fn;
    link->checked = link->functions;
    link->checked.createArray = create_array;
    context->reader->fn = &link->checked;
    context->reader->privdata = link;
    fcntl(context->fd, F_SETFD, FD_CLOEXEC);
    link->poll.data = link;
    link->polled = true;
    link->connecting = true;
    link->heard_ms = clock_ms();
    if (link->tcp)
        redisEnableKeepAlive(context);
    poll_for(link, UV_WRITABLE);
    return 0;
}

struct resolve {
    uv_getaddrinfo_t request; /* the first member */
    struct redis_link *link;
};

static void resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct resolve *resolve = request->data;
    struct redis_link *link = resolve->link;
    free(resolve);
    link->resolve = NULL;
    unsigned n = 0;
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next)
        n++;
    struct err err = {""};
    if (link->closed) {
        free(link);
    } else if (status != 0 || n == 0) {
        break_link(link, "cannot find the host of Redis at %s: %s", link->name,
                   uv_strerror(status != 0 ? status : UV_EAI_NONAME));
    } else {
        const struct addrinfo *at = found;
        for (unsigned skip = link->turn % n; skip > 0; skip--)
            at = at->ai_next;
        char ip[64] = "";
        uv_ip_name(at->ai_addr, ip, sizeof ip);
        if (attach(link, redisConnectNonBlock(ip, link->port), &err) != 0)
            break_link(link, "%s", err.text);
    }
    uv_freeaddrinfo(found);
}

static int begin(struct redis_link *link, const struct redis_place *place, struct err *err)
{
    if (place->socket != NULL)
        return attach(link, redisConnectUnixNonBlock(place->socket), err);
    struct resolve *resolve = mem_must_zalloc(sizeof *resolve);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    resolve->link = link;
    resolve->request.data = resolve;
    link->resolve = resolve;
    int rc = uv_getaddrinfo(link->loop, &resolve->request, resolved, place->host, NULL, &hints);
    if (rc == 0)
        return 0;
    link->resolve = NULL;
    free(resolve);
    return err_set(err, rc, "cannot find the host of Redis at %s: %s", link->name, uv_strerror(rc));
}

struct redis_link *redis_link_open(uv_loop_t *loop, const struct redis_place *place,
                                   const char *name, unsigned turn,
                                   const struct redis_link_callbacks *callbacks, void *ctx,
                                   struct err *err)
{
    struct redis_link *link = mem_must_zalloc(sizeof *link);
    link->loop = loop;
    link->callbacks = *callbacks;
    link->ctx = ctx;
    link->name = name;
    link->turn = turn;
    link->port = place->port;
    link->tcp = place->socket == NULL;
    link->heard_ms = clock_ms();
    if (begin(link, place, err) != 0)
        redis_link_close(&link);
    return link;
}
