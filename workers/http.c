#include "workers/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/containers.h"
#include "schemas/mem.h"
#include "workers/watch.h"

/* Small buffers: a token is some 200 bytes, and there may be 10,000 calls. */
#define RECEIVE_BUFFER_BYTES 1024L
#define UPLOAD_BUFFER_BYTES 16384L
#define IDLE_HANDLES_MAX 256
#define KEEPALIVE_S 15L
#define KEEPALIVE_EVERY_S 5L
#define SILENCE_MS 40000 /* until a host that does not even acknowledge is taken to be gone */
#define DNS_CACHE_S 300L
/* For every call curl walks through all connections of its multi handle to the same host: with
 * thousands on one handle it would do little else. */
#define LANE_CALLS 256
#define LANES_MAX 256
#define CONNECTS_MAX 128 /* at once: a server's queue of new connections is short */

/* A multi handle of curl's with its connections. Lanes are opened as calls need them; the first one
 * with room is taken, so that idle connections are found again. */
struct lane {
    struct http *http; /* borrowed */
    CURLM *multi;
    struct loop_timer *timer;
    bool in_timer; /* it is firing */
    size_t calls;
};

struct http {
    uv_loop_t *loop; /* borrowed */
    struct lane *lanes[LANES_MAX];
    size_t n_lanes;
    CURLSH *share;               /* names and TLS sessions, for all lanes */
    int depth;                   /* > 0 while curl runs: it must not be called again */
    char error[CURL_ERROR_SIZE]; /* curl's words about what failed last */
    struct watches *watches;     /* curl's descriptors */
    CURL *idle[IDLE_HANDLES_MAX];
    size_t n_idle;
    LIST_HEAD(, http_call) calls;
    LIST_HEAD(, http_call) doomed;   /* cancelled while curl ran */
    TAILQ_HEAD(, http_call) waiting; /* not yet given to curl */
    size_t connecting;               /* calls that curl has no connection for yet */
};

struct http_call {
    struct http *http; /* borrowed */
    struct lane *lane; /* borrowed; NULL while it waits */
    CURL *easy;
    struct curl_slist *headers;
    struct buf body;
    size_t body_bytes;
    struct http_headers response;
    struct http_callbacks callbacks;
    void *ctx;
    bool sent, again, head_done, stopped, dead; /* again: curl wanted to send it once more */
    LIST_ENTRY(http_call) link;
    TAILQ_ENTRY(http_call) turn;
};

/* --- descriptors ------------------------------------------------------------------------- */

static void reap(struct lane *lane);

/* curl tells what it wants to know of a descriptor. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
    (void)easy, (void)socket_ctx;
    struct lane *lane = ctx;
    uint32_t events = 0;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
        events |= EPOLLIN;
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
        events |= EPOLLOUT;
    watches_set(lane->http->watches, fd, events, lane);
    return 0;
}

static curl_socket_t open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)purpose;
    struct http *http = ctx;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    address->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    int silence_ms = SILENCE_MS;
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof silence_ms);
    watches_begin(http->watches, fd);
    return fd;
}

static int close_socket(void *ctx, curl_socket_t fd)
{
    struct http *http = ctx;
    watches_end(http->watches, fd);
    return close(fd);
}

static void socket_active(void *ctx, int fd, uint32_t events, void *owner)
{
    struct http *http = ctx;
    struct lane *lane = owner;
    int mask = events & EPOLLERR ? CURL_CSELECT_ERR : 0;
    if (events & (EPOLLIN | EPOLLHUP))
        mask |= CURL_CSELECT_IN;
    if (events & EPOLLOUT)
        mask |= CURL_CSELECT_OUT;
    int running;
    http->depth++;
    curl_multi_socket_action(lane->multi, fd, mask, &running);
    http->depth--;
    reap(lane);
}

static int set_timer(CURLM *multi, long timeout_ms, void *ctx)
{
    (void)multi;
    struct lane *lane = ctx;
    /* Where data comes faster than it is read, curl wants to go on at once, again and again. But
     * libuv runs what is due before it looks at any descriptor: not even Redis would be heard. */
    if (timeout_ms == 0 && lane->in_timer)
        timeout_ms = 1;
    if (timeout_ms < 0)
        loop_timer_stop(lane->timer);
    else
        loop_timer_start(lane->timer, timeout_ms, 0);
    return 0;
}

static void timer_fired(void *ctx)
{
    struct lane *lane = ctx;
    int running;
    lane->http->depth++;
    lane->in_timer = true;
    curl_multi_socket_action(lane->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    lane->in_timer = false;
    lane->http->depth--;
    reap(lane);
}

/* --- what comes in ------------------------------------------------------------------------- */

static void drop_headers(struct http_call *call)
{
    for (struct curl_slist *line = call->headers; line != NULL; line = line->next)
        explicit_bzero(line->data, strlen(line->data));
    curl_slist_free_all(call->headers);
    call->headers = NULL;
}

/* Once an answer comes, a request that is wholly sent is never needed again. */
static void drop_sent(struct http_call *call)
{
    curl_off_t sent = 0;
    if (call->headers == NULL)
        return;
    curl_easy_getinfo(call->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
    if (sent < (curl_off_t)call->body_bytes)
        return;
    buf_release(&call->body);
    curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, NULL);
    drop_headers(call);
}

static bool is_status_line(const char *line, size_t len)
{
    return len >= 5 && memcmp(line, "HTTP/", 5) == 0;
}

static size_t take_header(char *line, size_t size, size_t count, void *ctx)
{
    struct http_call *call = ctx;
    size_t len = size * count;
    if (call->dead)
        return CURL_WRITEFUNC_ERROR;
    if (call->head_done)
        return len; /* trailers */
    if (is_status_line(line, len)) {
        http_headers_clear(&call->response);
        return len;
    }
    if (len > 0 && line[0] != '\r' && line[0] != '\n') {
        http_headers_add(&call->response, line, len);
        return len;
    }
    long status = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200)
        return len;
    call->head_done = true;
    call->stopped = !call->callbacks.head(call->ctx, (int)status, &call->response);
    http_headers_release(&call->response);
    return call->stopped ? CURL_WRITEFUNC_ERROR : len;
}

static size_t take_body(char *data, size_t size, size_t count, void *ctx)
{
    struct http_call *call = ctx;
    size_t len = size * count;
    if (call->dead)
        return CURL_WRITEFUNC_ERROR;
    if (len == 0)
        return 0;
    drop_sent(call);
    if (call->callbacks.body(call->ctx, data, len))
        return len;
    call->stopped = true;
    return CURL_WRITEFUNC_ERROR;
}

/* Before the request leaves. curl would send it again, up to five times and untold, when a
 * connection that was used before ends without an answer. But the server may have done its work:
 * whether it is asked again is for the queue to decide and to count. */
static int may_send(void *ctx, char *local_ip, char *remote_ip, int local_port, int remote_port)
{
    (void)local_ip, (void)remote_ip, (void)local_port, (void)remote_port;
    struct http_call *call = ctx;
    call->again = call->sent;
    if (!call->sent)
        call->http->connecting--;
    call->sent = true;
    return call->again ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

/* --- calls ----------------------------------------------------------------------------------- */

static const struct {
    CURLcode code;
    enum http_end end;
} ends[] = {
    {CURLE_OK, HTTP_END_WELL},
    {CURLE_COULDNT_RESOLVE_PROXY, HTTP_END_CONNECT},
    {CURLE_COULDNT_RESOLVE_HOST, HTTP_END_CONNECT},
    {CURLE_COULDNT_CONNECT, HTTP_END_CONNECT},
    {CURLE_SSL_CONNECT_ERROR, HTTP_END_CONNECT},
    {CURLE_OPERATION_TIMEDOUT, HTTP_END_CONNECT},
    {CURLE_URL_MALFORMAT, HTTP_END_REFUSED},
    {CURLE_PEER_FAILED_VERIFICATION, HTTP_END_REFUSED},
    {CURLE_SSL_CACERT_BADFILE, HTTP_END_REFUSED},
    {CURLE_SSL_CERTPROBLEM, HTTP_END_REFUSED},
    {CURLE_OUT_OF_MEMORY, HTTP_END_INTERNAL},
    {CURLE_FAILED_INIT, HTTP_END_INTERNAL},
};

static enum http_end end_of(const struct http_call *call, CURLcode code)
{
    if (call->stopped)
        return HTTP_END_STOPPED;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends[i].code == code)
            return call->head_done && code != CURLE_OK ? HTTP_END_BROKEN : ends[i].end;
    return HTTP_END_BROKEN;
}

/* Takes the call off curl; its easy handle goes back to the idle ones. */
static void call_detach(struct http_call *call)
{
    struct http *http = call->http;
    LIST_REMOVE(call, link);
    if (call->lane == NULL) {
        TAILQ_REMOVE(&http->waiting, call, turn);
    } else {
        curl_multi_remove_handle(call->lane->multi, call->easy);
        call->lane->calls--;
        http->connecting -= !call->sent;
    }
    curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, NULL);
    curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, NULL);
    curl_easy_setopt(call->easy, CURLOPT_ERRORBUFFER, NULL);
    if (http->n_idle < IDLE_HANDLES_MAX)
        http->idle[http->n_idle++] = call->easy;
    else
        curl_easy_cleanup(call->easy);
    call->easy = NULL;
}

static void call_free(struct http_call *call)
{
    drop_headers(call);
    http_headers_release(&call->response);
    buf_release(&call->body);
    free(call);
}

/* alone: what the error buffer says is about this call. */
static void call_finish(struct http_call *call, CURLcode code, bool alone)
{
    enum http_end end = end_of(call, code);
    const char *words = call->http->error;
    const char *why = "";
    if (end != HTTP_END_WELL)
        why = alone && words[0] != '\0' ? words : curl_easy_strerror(code);
    if (call->again)
        why = "the server closed it without a word";
    LIST_REMOVE(call, link);
    LIST_INSERT_HEAD(&call->http->doomed, call, link); /* a cancel from now on changes nothing */
    call->dead = true;
    call->callbacks.done(call->ctx, end, why);
    call_detach(call);
    call_free(call);
}

static void admit(struct http *http);

/* Ends what has been cancelled or has come to its end while curl ran. */
static void reap(struct lane *lane)
{
    struct http *http = lane->http;
    if (http->depth > 0)
        return;
    struct http_call *call;
    while ((call = LIST_FIRST(&http->doomed)) != NULL) {
        call_detach(call);
        call_free(call);
    }
    CURLMsg *message;
    int left;
    for (bool first = true; (message = curl_multi_info_read(lane->multi, &left)) != NULL;
         first = false) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        call_finish(call, code, first && left == 0);
    }
    http->error[0] = '\0';
    admit(http);
}

static CURL *handle_new(struct http *http)
{
    if (http->n_idle > 0)
        return http->idle[--http->n_idle];
    CURL *easy = curl_easy_init();
    if (easy == NULL)
        return NULL;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "orchestrator/" ORCH_VERSION);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_S);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_EVERY_S);
    curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, DNS_CACHE_S);
    curl_easy_setopt(easy, CURLOPT_SHARE, http->share);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, http);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, http);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, may_send);
    return easy;
}

static struct lane *lane_open(struct http *http)
{
    CURLM *multi = curl_multi_init();
    if (multi == NULL)
        return NULL;
    struct lane *lane = mem_must_zalloc(sizeof *lane);
    *lane = (struct lane){.http = http, .multi = multi};
    lane->timer = loop_timer_new(http->loop, timer_fired, lane);
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, lane);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, lane);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)LANE_CALLS);
    curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    http->lanes[http->n_lanes++] = lane;
    return lane;
}

static void lane_close(struct lane *lane)
{
    curl_multi_cleanup(lane->multi);
    loop_timer_free(&lane->timer);
    free(lane);
}

static struct lane *lane_with_room(struct http *http)
{
    for (size_t i = 0; i < http->n_lanes; i++)
        if (http->lanes[i]->calls < LANE_CALLS)
            return http->lanes[i];
    if (http->n_lanes < LANES_MAX)
        return lane_open(http);
    struct lane *least = http->lanes[0];
    for (size_t i = 1; i < http->n_lanes; i++)
        if (http->lanes[i]->calls < least->calls)
            least = http->lanes[i];
    return least;
}

static bool is_loopback(const char *url)
{
    const char *host = strstr(url, "://");
    if (host == NULL)
        return false;
    host += 3;
    size_t len = strcspn(host, "/?#");
    const char *at = memrchr(host, '@', len);
    if (at != NULL) {
        len -= (size_t)(at + 1 - host);
        host = at + 1;
    }
    if (len >= 5 && strncmp(host, "[::1]", 5) == 0)
        return true;
    size_t name_len = strcspn(host, ":/?#");
    return (name_len == 9 && strncasecmp(host, "localhost", 9) == 0) ||
           (name_len > 4 && strncmp(host, "127.", 4) == 0 &&
            strspn(host, "0123456789.") == name_len);
}

static bool add_line(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer == NULL)
        return false;
    *list = longer;
    return true;
}

static bool call_headers(struct http_call *call, const char *lines, bool post)
{
    bool typed = false, good = true;
    struct buf line = {0};
    for (const char *at = lines; good && *at != '\0';) {
        size_t len = strcspn(at, "\n");
        size_t kept = len > 0 && at[len - 1] == '\r' ? len - 1 : len;
        buf_clear(&line);
        buf_add(&line, at, kept);
        typed = typed || strncasecmp(at, "content-type:", 13) == 0;
        if (kept > 0)
            good = !line.failed && add_line(&call->headers, line.data);
        at += len + (at[len] == '\n');
    }
    if (line.data != NULL)
        explicit_bzero(line.data, line.cap);
    buf_release(&line);
    if (post && good)
        good = add_line(&call->headers, "Expect:") &&
               (typed || add_line(&call->headers, "Content-Type: application/json"));
    return good;
}

static CURLcode call_options(struct http_call *call, const char *url)
{
    CURL *easy = call->easy;
    CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROXY, is_loopback(url) ? "" : NULL);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
    if (call->body.len > 0) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body.data);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.len);
    } else {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, call);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->http->error);
    return code;
}

/* Gives the call to curl. */
static int call_add(struct http_call *call)
{
    struct lane *lane = lane_with_room(call->http);
    if (lane == NULL || curl_multi_add_handle(lane->multi, call->easy) != CURLM_OK)
        return -ENOMEM;
    call->lane = lane;
    lane->calls++;
    call->http->connecting++;
    return 0;
}

/* Lets in who waits, as connections get ready. */
static void admit(struct http *http)
{
    struct http_call *call;
    while (http->connecting < CONNECTS_MAX && (call = TAILQ_FIRST(&http->waiting)) != NULL) {
        if (call_add(call) != 0) {
            call_finish(call, CURLE_OUT_OF_MEMORY, false);
            continue;
        }
        TAILQ_REMOVE(&http->waiting, call, turn);
    }
}

int http_start(struct http_call **ret, struct http *http, const char *url, const char *headers,
               struct buf *body, const struct http_callbacks *callbacks, void *ctx, struct err *err)
{
    if (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0)
        return err_set(err, -EINVAL, "%s is no http or https URL", url);
    struct http_call *call = mem_must_zalloc(sizeof *call);
    *call = (struct http_call){.http = http, .callbacks = *callbacks, .ctx = ctx, .body = *body};
    *body = (struct buf){0};
    call->body_bytes = call->body.len;
    call->easy = handle_new(http);
    bool waits = http->connecting >= CONNECTS_MAX || http->depth > 0;
    if (call->easy == NULL || !call_headers(call, headers, call->body.len > 0) ||
        call_options(call, url) != CURLE_OK || (!waits && call_add(call) != 0)) {
        if (call->easy != NULL)
            curl_easy_cleanup(call->easy);
        call_free(call);
        return err_set(err, -ENOMEM, "out of memory for an HTTP call");
    }
    if (waits)
        TAILQ_INSERT_TAIL(&http->waiting, call, turn);
    LIST_INSERT_HEAD(&http->calls, call, link);
    *ret = call;
    return 0;
}

void http_cancel(struct http_call **call_ptr)
{
    struct http_call *call = *call_ptr;
    *call_ptr = NULL;
    if (call == NULL || call->dead)
        return;
    struct http *http = call->http;
    call->dead = true;
    if (http->depth > 0) {
        LIST_REMOVE(call, link);
        LIST_INSERT_HEAD(&http->doomed, call, link);
        return;
    }
    call_detach(call);
    call_free(call);
    admit(http);
}

bool http_connected(const struct http_call *call)
{
    return call->sent;
}

void http_figures(const struct http_call *call, struct http_figures *ret)
{
    curl_off_t name_us = 0, tcp_us = 0, tls_us = 0, pretransfer_us = 0, sent = 0;
    long connects = 0;
    *ret = (struct http_figures){0};
    if (call->lane == NULL)
        return;
    curl_easy_getinfo(call->easy, CURLINFO_NAMELOOKUP_TIME_T, &name_us);
    curl_easy_getinfo(call->easy, CURLINFO_CONNECT_TIME_T, &tcp_us);
    curl_easy_getinfo(call->easy, CURLINFO_APPCONNECT_TIME_T, &tls_us);
    curl_easy_getinfo(call->easy, CURLINFO_PRETRANSFER_TIME_T, &pretransfer_us);
    curl_easy_getinfo(call->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
    curl_easy_getinfo(call->easy, CURLINFO_NUM_CONNECTS, &connects);
    curl_off_t connect_us = tls_us > tcp_us ? tls_us : tcp_us;
    *ret = (struct http_figures){
        .connect_ms = connects > 0 ? (double)connect_us / 1e3 : 0,
        .wait_ms = (double)pretransfer_us / 1e3,
        .sent_bytes = call->again ? (int64_t)call->body_bytes : sent,
    };
}

/* --- all of it ---------------------------------------------------------------------------------
 */

static void http_free(struct http *http)
{
    for (size_t i = 0; i < http->n_lanes; i++)
        lane_close(http->lanes[i]);
    if (http->share != NULL)
        curl_share_cleanup(http->share);
    watches_close(&http->watches);
    free(http);
    curl_global_cleanup();
}

int http_open(struct http **ret, uv_loop_t *loop, struct err *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(err, -ENOMEM, "libcurl cannot be initialised");
    struct http *http = mem_must_zalloc(sizeof *http);
    http->loop = loop;
    LIST_INIT(&http->calls);
    LIST_INIT(&http->doomed);
    TAILQ_INIT(&http->waiting);
    int rc = watches_open(&http->watches, loop, socket_active, http);
    http->share = curl_share_init();
    if (rc == 0 && (http->share == NULL || lane_open(http) == NULL))
        rc = -ENOMEM;
    if (rc != 0) {
        http_free(http);
        return err_set(err, rc, "libcurl cannot be set up: %s", strerror(-rc));
    }
    curl_share_setopt(http->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    curl_share_setopt(http->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    *ret = http;
    return 0;
}

void http_close(struct http **http_ptr)
{
    struct http *http = *http_ptr;
    *http_ptr = NULL;
    if (http == NULL)
        return;
    struct http_call *call;
    while ((call = LIST_FIRST(&http->calls)) != NULL ||
           (call = LIST_FIRST(&http->doomed)) != NULL) {
        call->dead = true;
        call_detach(call);
        call_free(call);
    }
    while (http->n_idle > 0)
        curl_easy_cleanup(http->idle[--http->n_idle]);
    http_free(http);
}
