#include "tests/lib/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/containers.h"
#include "schemas/mem.h"

#define MODEL "test-model"

struct connection {
    struct http_server *server;
    int fd;
    bool ended;
    pthread_t thread;
    struct buf in; /* the request, then what follows it */
    char key[256];
    LIST_ENTRY(connection) link;
};

struct http_server {
    int fd, port;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopping, released;
    size_t requests, hangups, accepted;
    struct buf last;
    LIST_HEAD(, connection) connections;
};

/* --- writing -----------------------------------------------------------------------------------
 */

/* All of these return false when the client is gone (or the server stops). */
static bool write_bytes(struct connection *connection, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t done = send(connection->fd, data, len, MSG_NOSIGNAL);
        if (done <= 0)
            return false;
        data += done;
        len -= (size_t)done;
    }
    return true;
}

static bool write_text(struct connection *connection, const char *text)
{
    return write_bytes(connection, text, strlen(text));
}

static bool write_chunk(struct connection *connection, const char *text)
{
    char size[32];
    snprintf(size, sizeof size, "%zx\r\n", strlen(text));
    return write_text(connection, size) && write_text(connection, text) &&
           write_text(connection, "\r\n");
}

static bool write_head(struct connection *connection)
{
    return write_text(connection, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                  "Transfer-Encoding: chunked\r\n\r\n");
}

static bool write_token(struct connection *connection, const char *model, const char *token)
{
    char event[512];
    snprintf(event, sizeof event,
             "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"%s\","
             "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"finish_reason\":null}]}"
             "\n\n",
             model, token);
    return write_chunk(connection, event);
}

static bool write_finish(struct connection *connection, const char *model)
{
    char event[512];
    snprintf(event, sizeof event,
             "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"%s\","
             "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
             "data: {\"id\":\"c1\",\"model\":\"%s\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,"
             "\"completion_tokens\":3,\"total_tokens\":13}}\n\n"
             "data: [DONE]\n\n",
             model, model);
    return write_chunk(connection, event);
}

static bool write_end(struct connection *connection)
{
    return write_text(connection, "0\r\n\r\n");
}

static bool write_document(struct connection *connection, const char *status, const char *headers,
                           const char *type, const char *body)
{
    char head[512];
    snprintf(head, sizeof head, "HTTP/1.1 %s\r\n%sContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
             status, headers, type, strlen(body));
    return write_text(connection, head) && write_text(connection, body);
}

/* Waits while nothing is to be written; -1: until the client goes. */
static bool idle(struct connection *connection, int ms)
{
    struct pollfd ready = {.fd = connection->fd, .events = POLLRDHUP};
    return poll(&ready, 1, ms) == 0;
}

static bool wait_release(struct connection *connection)
{
    struct http_server *server = connection->server;
    for (;;) {
        pthread_mutex_lock(&server->lock);
        bool released = server->released;
        pthread_mutex_unlock(&server->lock);
        if (released)
            return true;
        if (!idle(connection, 5))
            return false;
    }
}

/* --- manners ------------------------------------------------------------------------------------
 */

enum after {
    KEEP,   /* the connection serves the next request */
    CLOSE,  /* as it should */
    HUNGUP, /* the client went away first */
};

static enum after document(struct connection *connection, const char *status, const char *body)
{
    return write_document(connection, status, "", "application/json", body) ? KEEP : HUNGUP;
}

static enum after stream(struct connection *connection, const char *model)
{
    return write_head(connection) && write_token(connection, model, "one ") &&
                   write_token(connection, model, "two ") &&
                   write_token(connection, model, "three") && write_finish(connection, model) &&
                   write_end(connection)
               ? KEEP
               : HUNGUP;
}

static enum after serve_ok(struct connection *connection)
{
    return stream(connection, MODEL);
}

static enum after serve_other(struct connection *connection)
{
    return stream(connection, "another-model");
}

static enum after write_whole(struct connection *connection, const char *headers)
{
    bool good = write_document(
        connection, "200 OK", headers, "application/json",
        "{\"id\":\"c1\",\"object\":\"chat.completion\",\"model\":\"" MODEL "\",\"choices\":[{"
        "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"one two three\"},"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3}}");
    return good ? KEEP : HUNGUP;
}

static enum after serve_whole(struct connection *connection)
{
    return write_whole(connection, "");
}

static enum after serve_spent(struct connection *connection)
{
    return write_whole(connection, "x-ratelimit-limit-requests: 10\r\n"
                                   "x-ratelimit-remaining-requests: 0\r\n"
                                   "x-ratelimit-reset-requests: 1m0s\r\n");
}

static enum after serve_hold(struct connection *connection)
{
    return write_head(connection) && write_token(connection, MODEL, "one ") &&
                   wait_release(connection) && write_token(connection, MODEL, "two ") &&
                   write_token(connection, MODEL, "three") && write_finish(connection, MODEL) &&
                   write_end(connection)
               ? KEEP
               : HUNGUP;
}

static enum after serve_stall(struct connection *connection)
{
    idle(connection, -1);
    return HUNGUP;
}

static enum after serve_comments(struct connection *connection)
{
    bool good = write_head(connection);
    while (good)
        good = write_chunk(connection, ": ping\n\n") && idle(connection, 20);
    return HUNGUP;
}

static enum after serve_gap(struct connection *connection)
{
    if (write_head(connection) && write_token(connection, MODEL, "one "))
        idle(connection, -1);
    return HUNGUP;
}

static enum after serve_drip(struct connection *connection)
{
    bool good = write_head(connection) && write_token(connection, MODEL, "one two ");
    for (int i = 0; good && i < 20; i++)
        good = idle(connection, 40) && write_chunk(connection, ": ping\n\n");
    return good && write_token(connection, MODEL, "three") && write_finish(connection, MODEL) &&
                   write_end(connection)
               ? KEEP
               : HUNGUP;
}

static enum after serve_torrent(struct connection *connection)
{
    char comments[32768];
    for (size_t i = 0; i < sizeof comments; i++)
        comments[i] = ":ping\n\n"[i % 7];
    comments[sizeof comments - 1] = '\0';
    bool good = write_head(connection);
    while (good)
        good = write_chunk(connection, comments);
    return HUNGUP;
}

static enum after serve_bulky(struct connection *connection)
{
    size_t len = (size_t)1 << 20;
    char *comment = malloc(len + 1);
    if (comment == NULL)
        return HUNGUP;
    memset(comment, 'x', len);
    memcpy(comment, ": ", 2);
    memcpy(comment + len - 2, "\n\n", 3);
    bool good = write_head(connection) && write_token(connection, MODEL, "one two ");
    for (int i = 0; good && i < 72; i++)
        good = write_chunk(connection, comment);
    free(comment);
    return good && write_token(connection, MODEL, "three") && write_finish(connection, MODEL) &&
                   write_end(connection)
               ? KEEP
               : HUNGUP;
}

static enum after serve_truncate(struct connection *connection)
{
    write_head(connection);
    write_token(connection, MODEL, "one ");
    return CLOSE;
}

static enum after serve_unfinished(struct connection *connection)
{
    bool good =
        write_head(connection) && write_token(connection, MODEL, "one ") && write_end(connection);
    return good ? KEEP : HUNGUP;
}

static enum after serve_linger(struct connection *connection)
{
    if (write_head(connection) && write_token(connection, MODEL, "one two three") &&
        write_finish(connection, MODEL))
        idle(connection, -1);
    return HUNGUP;
}

static enum after serve_reset(struct connection *connection)
{
    (void)connection;
    return CLOSE;
}

static enum after serve_garbage(struct connection *connection)
{
    write_text(connection, "220 mail.example ESMTP ready\r\n");
    return CLOSE;
}

static enum after serve_html(struct connection *connection)
{
    return write_document(connection, "200 OK", "", "text/html",
                          "<html><head><title>Welcome to nginx!</title></head></html>")
               ? KEEP
               : HUNGUP;
}

static enum after serve_limited(struct connection *connection)
{
    return write_document(connection, "429 Too Many Requests", "Retry-After: 7\r\n",
                          "application/json",
                          "{\"error\":{\"message\":\"Rate limit reached\",\"type\":\"requests\","
                          "\"code\":\"rate_limit_exceeded\"}}")
               ? KEEP
               : HUNGUP;
}

static enum after serve_broken(struct connection *connection)
{
    return write_document(connection, "500 Internal Server Error", "", "application/json",
                          "{\"error\":{\"message\":\"boom\",\"type\":\"server_error\"}}")
               ? KEEP
               : HUNGUP;
}

static enum after serve_moved(struct connection *connection)
{
    return write_document(connection, "302 Found", "Location: /ok/v1/chat/completions\r\n",
                          "text/plain", "")
               ? KEEP
               : HUNGUP;
}

static enum after serve_unauthorized(struct connection *connection)
{
    char body[512];
    snprintf(body, sizeof body,
             "{\"error\":{\"message\":\"Incorrect API key provided: %s.\",\"code\":"
             "\"invalid_api_key\"}}",
             connection->key);
    return write_document(connection, "401 Unauthorized", "", "application/json", body) ? KEEP
                                                                                        : HUNGUP;
}

static enum after serve_error(struct connection *connection)
{
    bool good = write_head(connection) && write_token(connection, MODEL, "one ") &&
                write_chunk(connection, "data: {\"error\":{\"message\":\"the engine died\","
                                        "\"type\":\"server_error\",\"code\":500}}\n\n");
    while (good)
        good = write_token(connection, MODEL, "more ") && idle(connection, 20);
    return HUNGUP;
}

static enum after serve_talkative(struct connection *connection)
{
    char *much = mem_must_zalloc(65537);
    memset(much, 'x', 65536);
    bool good = write_head(connection);
    while (good)
        good =
            write_chunk(connection, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"") &&
            write_chunk(connection, much) && write_chunk(connection, "\"}}]}\n\n");
    free(much);
    return HUNGUP;
}

static enum after serve_endless(struct connection *connection)
{
    char *much = mem_must_zalloc(65537);
    memset(much, 'x', 65536);
    bool good = write_text(connection, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                                       "Transfer-Encoding: chunked\r\n\r\n") &&
                write_chunk(connection, "{\"x\": \"");
    while (good)
        good = write_chunk(connection, much);
    free(much);
    return HUNGUP;
}

static enum after serve_flood(struct connection *connection)
{
    char *much = mem_must_zalloc(65537);
    memset(much, 'x', 65536);
    bool good = write_head(connection) && write_chunk(connection, "data: ");
    while (good)
        good = write_chunk(connection, much);
    free(much);
    return HUNGUP;
}

static enum after serve_pool(struct connection *connection)
{
    static const char poor[] = "{\"error\":{\"message\":\"You exceeded your current quota\","
                               "\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}";
    if (strncmp(connection->key, "bad-", 4) == 0)
        return serve_unauthorized(connection);
    if (strncmp(connection->key, "poor-", 5) == 0)
        return document(connection, "429 Too Many Requests", poor);
    return stream(connection, MODEL);
}

static enum after serve_overloaded(struct connection *connection)
{
    struct http_server *server = connection->server;
    pthread_mutex_lock(&server->lock);
    bool released = server->released;
    pthread_mutex_unlock(&server->lock);
    if (released)
        return stream(connection, MODEL);
    return document(connection, "503 Service Unavailable",
                    "{\"error\":{\"message\":\"The engine is overloaded\",\"type\":"
                    "\"server_error\"}}");
}

static enum after serve_uncounted(struct connection *connection)
{
    return write_head(connection) && write_token(connection, MODEL, "one") &&
                   write_chunk(
                       connection,
                       "data: {\"id\":\"c1\",\"model\":\"" MODEL "\",\"choices\":[{\"index\":"
                       "0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n") &&
                   write_end(connection)
               ? KEEP
               : HUNGUP;
}

static enum after serve_vectors(struct connection *connection)
{
    return document(connection, "200 OK",
                    "{\"object\":\"list\",\"model\":\"" MODEL "\",\"data\":[{\"object\":"
                    "\"embedding\",\"index\":0,\"embedding\":[0.25,-1]},{\"object\":\"embedding\","
                    "\"index\":1,\"embedding\":[1,0.5]}],\"usage\":{\"prompt_tokens\":5,"
                    "\"total_tokens\":5}}");
}

static enum after serve_models(struct connection *connection)
{
    return document(connection, "200 OK",
                    "{\"object\":\"list\",\"data\":[{\"id\":\"" MODEL "\",\"object\":\"model\"},"
                    "{\"id\":\"other-model\",\"object\":\"model\"}]}");
}

static enum after serve_found(struct connection *connection)
{
    return document(connection, "200 OK",
                    "{\"query\":\"q\",\"results\":[{\"title\":\"A title\",\"url\":"
                    "\"https://example.org/page\",\"content\":\"A snippet of the page\"}]}");
}

static enum after serve_mirror(struct connection *connection)
{
    struct buf body = {0};
    const char *head = connection->in.data, *end = strstr(head, "\r\n\r\n");
    buf_add_str(&body, "{\"error\":{\"type\":\"invalid_request_error\",\"message\":");
    buf_add_json(&body, head, (size_t)(end - head));
    buf_add_str(&body, "}}");
    enum after after = document(connection, "400 Bad Request", body.data);
    buf_release(&body);
    return after;
}

static enum after serve_torn(struct connection *connection)
{
    char body[1024];
    snprintf(body, sizeof body, "{\"id\":\"%s\",\"choices\":[{\"key %s", connection->key,
             connection->key);
    return document(connection, "200 OK", body);
}

static enum after serve_away(struct connection *connection)
{
    char header[512];
    snprintf(header, sizeof header, "Location: http://127.0.0.1:1/%s\r\n", connection->key);
    return write_document(connection, "302 Found", header, "text/plain", "") ? KEEP : HUNGUP;
}

static const struct {
    const char *path;
    enum after (*serve)(struct connection *connection);
} manners[] = {
#define X(path, text) {"/" #path "/", serve_##path},
    HTTP_SERVER_MANNERS(X)
#undef X
};

/* --- requests ------------------------------------------------------------------------------------
 */

static const char *header(const char *head, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = strchr(head, '\n'); at != NULL; at = strchr(at + 1, '\n'))
        if (strncasecmp(at + 1, name, len) == 0)
            return at + 1 + len + strspn(at + 1 + len, " ");
    return NULL;
}

/* Reads until a whole request is in connection->in; 0 at the end. Returns its length. */
static size_t read_request(struct connection *connection)
{
    struct buf *in = &connection->in;
    for (;;) {
        const char *end = in->len > 0 ? strstr(in->data, "\r\n\r\n") : NULL;
        if (end != NULL) {
            const char *length = header(in->data, "content-length:");
            size_t total = (size_t)(end + 4 - in->data);
            total += length != NULL && length < end ? strtoul(length, NULL, 10) : 0;
            if (in->len >= total)
                return total;
        }
        char data[16384];
        ssize_t len = recv(connection->fd, data, sizeof data, 0);
        if (len <= 0)
            return 0;
        buf_add(in, data, (size_t)len);
    }
}

static void note_request(struct connection *connection, size_t len)
{
    struct http_server *server = connection->server;
    const char *key = header(connection->in.data, "authorization: bearer");
    snprintf(connection->key, sizeof connection->key, "%.*s",
             key != NULL ? (int)strcspn(key, "\r") : 0, key != NULL ? key : "");
    pthread_mutex_lock(&server->lock);
    server->requests++;
    buf_clear(&server->last);
    buf_add(&server->last, connection->in.data, len);
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static enum after answer(struct connection *connection)
{
    const char *path = strchr(connection->in.data, ' ');
    for (size_t i = 0; path != NULL && i < sizeof manners / sizeof *manners; i++)
        if (strncmp(path + 1, manners[i].path, strlen(manners[i].path)) == 0)
            return manners[i].serve(connection);
    return write_document(connection, "404 Not Found", "", "text/plain", "no such path") ? KEEP
                                                                                         : HUNGUP;
}

static void *connection_run(void *ctx)
{
    struct connection *connection = ctx;
    struct http_server *server = connection->server;
    enum after after = KEEP;
    size_t len;
    while (after == KEEP && (len = read_request(connection)) > 0) {
        note_request(connection, len);
        after = answer(connection);
        buf_consume(&connection->in, len);
    }
    shutdown(connection->fd, SHUT_RDWR);
    pthread_mutex_lock(&server->lock);
    server->hangups += after == HUNGUP && !server->stopping;
    connection->ended = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

/* Joins what has ended; at the stop, all. */
static void collect(struct http_server *server, bool all)
{
    struct connection *connection, *next;
    for (connection = LIST_FIRST(&server->connections); connection != NULL; connection = next) {
        next = LIST_NEXT(connection, link);
        pthread_mutex_lock(&server->lock);
        bool ended = connection->ended;
        if (all && !ended)
            shutdown(connection->fd, SHUT_RDWR);
        pthread_mutex_unlock(&server->lock);
        if (!ended && !all)
            continue;
        pthread_join(connection->thread, NULL);
        close(connection->fd);
        LIST_REMOVE(connection, link);
        buf_release(&connection->in);
        free(connection);
    }
}

static void *server_run(void *ctx)
{
    struct http_server *server = ctx;
    int fd;
    while ((fd = accept(server->fd, NULL, NULL)) >= 0) {
        collect(server, false);
        struct connection *connection = mem_must_zalloc(sizeof *connection);
        *connection = (struct connection){.server = server, .fd = fd};
        LIST_INSERT_HEAD(&server->connections, connection, link);
        pthread_mutex_lock(&server->lock);
        server->accepted++;
        pthread_mutex_unlock(&server->lock);
        pthread_create(&connection->thread, NULL, connection_run, connection);
    }
    collect(server, true);
    return NULL;
}

/* --- the interface ------------------------------------------------------------------------------
 */

struct http_server *http_server_start(void)
{
    struct http_server *server = mem_must_zalloc(sizeof *server);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server->fd < 0 || bind(server->fd, (struct sockaddr *)&address, len) != 0 ||
        listen(server->fd, 1024) != 0 ||
        getsockname(server->fd, (struct sockaddr *)&address, &len) != 0) {
        perror("http_server");
        exit(2);
    }
    server->port = ntohs(address.sin_port);
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->changed, NULL);
    LIST_INIT(&server->connections);
    pthread_create(&server->thread, NULL, server_run, server);
    return server;
}

void http_server_stop(struct http_server **server_ptr)
{
    struct http_server *server = *server_ptr;
    *server_ptr = NULL;
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    pthread_mutex_unlock(&server->lock);
    shutdown(server->fd, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->fd);
    pthread_mutex_destroy(&server->lock);
    pthread_cond_destroy(&server->changed);
    buf_release(&server->last);
    free(server);
}

int http_server_port(const struct http_server *server)
{
    return server->port;
}

static size_t read_count(struct http_server *server, const size_t *count)
{
    pthread_mutex_lock(&server->lock);
    size_t value = *count;
    pthread_mutex_unlock(&server->lock);
    return value;
}

size_t http_server_requests(struct http_server *server)
{
    return read_count(server, &server->requests);
}

size_t http_server_hangups(struct http_server *server)
{
    return read_count(server, &server->hangups);
}

size_t http_server_connections(struct http_server *server)
{
    return read_count(server, &server->accepted);
}

void http_server_release(struct http_server *server)
{
    pthread_mutex_lock(&server->lock);
    server->released = true;
    pthread_mutex_unlock(&server->lock);
}

void http_server_last(struct http_server *server, struct buf *out)
{
    pthread_mutex_lock(&server->lock);
    buf_clear(out);
    buf_add(out, server->last.data, server->last.len);
    pthread_mutex_unlock(&server->lock);
}

static bool wait_count(struct http_server *server, const size_t *count, size_t n)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    int rc = 0;
    pthread_mutex_lock(&server->lock);
    while (*count < n && rc == 0)
        rc = pthread_cond_timedwait(&server->changed, &server->lock, &until);
    bool reached = *count >= n;
    pthread_mutex_unlock(&server->lock);
    return reached;
}

bool http_server_wait_requests(struct http_server *server, size_t n)
{
    return wait_count(server, &server->requests, n);
}

bool http_server_wait_hangups(struct http_server *server, size_t n)
{
    return wait_count(server, &server->hangups, n);
}
