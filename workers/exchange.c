#include "workers/exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/containers.h"
#include "common/failpoint.h"
#include "schemas/mem.h"
#include "workers/framing.h"
#include "workers/http.h"
#include "workers/rate_headers.h"
#include "workers/retry_after.h"

#define SWEEP_MS 50

struct exchanges {
    uv_loop_t *loop; /* borrowed */
    struct http *http;
    struct loop_timer *sweep;
    size_t running;
    LIST_HEAD(exchange_list, exchange) list;
};

/* What the response body is, once its head has been read. */
enum body_kind {
    BODY_UNKNOWN,
    BODY_STREAM,
    BODY_WHOLE,   /* 2xx, no stream */
    BODY_FAILURE, /* status >= 400 */
    BODY_NONE,    /* the head alone decided */
};

struct exchange {
    struct exchanges *all; /* borrowed */
    const struct provider *provider;
    struct http_call *http;
    struct key *key;
    exchange_done_fn *done;
    void *ctx;
    struct blame *blame;      /* borrowed */
    struct blame_for attempt; /* borrowed */
    struct exchange_limits limits;
    double started_ms, first_ms, last_ms; /* monotonic; first and last token, 0: none yet */
    int64_t begun_ms, heard_ms;           /* the loop's clock; heard: last bytes */
    int64_t proven_ms;       /* when a stream's proof of a complete answer came; 0: not yet */
    bool connected, streams; /* streams: one was asked for */
    enum body_kind kind;
    int status;
    int64_t received_bytes;
    int64_t asked_delay_ms; /* by the headers; -1: none */
    struct governor_server server;
    size_t seen;                 /* bytes of text and reasoning after the last event */
    struct http_headers headers; /* of a failure, until its body is here */
    struct framing framing;
    struct buf body; /* of BODY_WHOLE and BODY_FAILURE */
    struct provider_reply reply;
    LIST_ENTRY(exchange) link;
};

/* --- the end ---------------------------------------------------------------------------------- */

static void exchange_free(struct exchange *exchange)
{
    struct exchanges *all = exchange->all;
    LIST_REMOVE(exchange, link);
    if (--all->running == 0)
        loop_timer_stop(all->sweep);
    key_drop(&exchange->key);
    http_headers_release(&exchange->headers);
    framing_release(&exchange->framing);
    buf_release(&exchange->body);
    provider_reply_release(&exchange->reply);
    free(exchange);
}

static double generate_ms(const struct exchange *exchange)
{
    if (exchange->reply.generate_ms >= 0)
        return exchange->reply.generate_ms;
    bool several = exchange->first_ms > 0 && exchange->last_ms > exchange->first_ms;
    return several ? exchange->last_ms - exchange->first_ms : -1;
}

void exchange_peek(struct exchange *exchange, struct exchange_report *ret)
{
    struct http_figures figures = {0};
    if (exchange->http != NULL)
        http_figures(exchange->http, &figures);
    double ttft_ms =
        exchange->first_ms > 0 ? exchange->first_ms - exchange->started_ms - figures.wait_ms : -1;
    *ret = (struct exchange_report){
        .reply = &exchange->reply,
        .http_status = exchange->status,
        .connect_ms = figures.connect_ms,
        .ttft_ms = ttft_ms >= 0 || exchange->first_ms <= 0 ? ttft_ms : 0,
        .generate_ms = generate_ms(exchange),
        .total_ms = clock_ms_f() - exchange->started_ms,
        .sent_bytes = figures.sent_bytes,
        .received_bytes = exchange->received_bytes,
        .server = exchange->server,
    };
}

/* Gives the report and frees the exchange. */
static void conclude(struct exchange *exchange)
{
    struct provider_reply *reply = &exchange->reply;
    if (reply->text.failed || reply->reasoning.failed)
        provider_reply_fail(reply, CLASS_RETRY, "out of memory for the answer");
    if (exchange->seen > EXCHANGE_MAX_TEXT || reply->text.len > EXCHANGE_MAX_TEXT ||
        reply->reasoning.len > EXCHANGE_MAX_TEXT)
        provider_reply_fail(reply, CLASS_BAD_REQUEST, /* the same again would cost the same */
                            "the answer is larger than %zu MiB: set max_tokens, or ask for less",
                            EXCHANGE_MAX_TEXT >> 20);
    if (reply->error == CLASS_NONE && !reply->finished)
        provider_reply_fail(reply, CLASS_BAD_RESPONSE,
                            "the answer ended without its finish signal");
    if (reply->error != CLASS_NONE && reply->retry_after_ms < 0)
        reply->retry_after_ms = exchange->asked_delay_ms;
    key_scrub(exchange->key, reply->model); /* names that a server makes up are kept, too */
    key_scrub(exchange->key, reply->request_id);
    struct exchange_report report;
    exchange_peek(exchange, &report);
    exchange->done(exchange->ctx, &report);
    http_cancel(&exchange->http);
    exchange_free(exchange);
}

void exchange_cancel(struct exchange **exchange_ptr)
{
    struct exchange *exchange = *exchange_ptr;
    *exchange_ptr = NULL;
    if (exchange == NULL)
        return;
    http_cancel(&exchange->http);
    exchange_free(exchange);
}

/* --- what comes in ---------------------------------------------------------------------------- */

static bool type_is(const char *type, const char *name)
{
    size_t len = strlen(name);
    return strncasecmp(type, name, len) == 0 && (type[len] == '\0' || strchr("; \t", type[len]));
}

/* Decides by the content type; a server that gives none sends what was asked for. */
static enum body_kind body_kind(struct exchange *exchange, const char *type)
{
    static const struct {
        const char *type;
        enum provider_framing framing;
    } streams[] = {
        {"text/event-stream", PROVIDER_SSE},      {"application/x-ndjson", PROVIDER_NDJSON},
        {"application/ndjson", PROVIDER_NDJSON},  {"application/jsonl", PROVIDER_NDJSON},
        {"application/x-jsonl", PROVIDER_NDJSON},
    };
    if (type == NULL || type[0] == '\0') {
        if (!exchange->streams)
            return BODY_WHOLE;
        framing_init(&exchange->framing, exchange->provider->framing);
        return BODY_STREAM;
    }
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        if (type_is(type, streams[i].type)) {
            framing_init(&exchange->framing, streams[i].framing);
            return BODY_STREAM;
        }
    return BODY_WHOLE;
}

static void keep_headers(struct exchange *exchange, const struct http_headers *headers)
{
    buf_add(&exchange->headers.pairs, headers->pairs.data, headers->pairs.len);
    exchange->asked_delay_ms = retry_after_headers(headers, clock_wall_ms());
}

static bool take_head(void *ctx, int status, const struct http_headers *headers)
{
    struct exchange *exchange = ctx;
    exchange->connected = true;
    exchange->status = status;
    exchange->heard_ms = (int64_t)uv_now(exchange->all->loop);
    rate_headers_read(&exchange->server, headers, clock_wall_ms());
    if (status >= 400) {
        exchange->kind = BODY_FAILURE;
        keep_headers(exchange, headers);
        return true;
    }
    if (status >= 300) {
        const char *to = http_header(headers, "location");
        exchange->kind = BODY_NONE;
        provider_reply_fail(&exchange->reply, CLASS_BAD_REQUEST,
                            "the server answered %d and points to %s: put the right address into "
                            "base_url",
                            status, to != NULL ? to : "nothing");
        return false;
    }
    exchange->kind = body_kind(exchange, http_header(headers, "content-type"));
    return true;
}

/* Room for an event's text, which is never longer than the event. A text grows by a quarter, not by
 * doubling as other buffers do: with thousands of long answers in flight, their empty halves would
 * be most of the memory. */
static void make_room(struct buf *text, size_t more)
{
    if (text->failed || text->cap - text->len > more)
        return;
    size_t cap = text->len + text->len / 4 + more + 64;
    char *data = mem_realloc(text->data, cap);
    if (data == NULL)
        return; /* the provider's own attempt to add decides */
    data[text->len] = '\0';
    text->data = data;
    text->cap = cap;
}

/* One streamed event. */
static bool take_event(void *ctx, const char *data, size_t len)
{
    struct exchange *exchange = ctx;
    struct provider_reply *reply = &exchange->reply;
    FAILPOINT("call.event");
    make_room(&reply->text, len);
    exchange->provider->event(exchange->provider, reply, data, len);
    size_t seen = reply->text.len + reply->reasoning.len;
    if (seen > exchange->seen) {
        exchange->last_ms = clock_ms_f();
        if (exchange->first_ms <= 0)
            exchange->first_ms = exchange->last_ms;
        exchange->seen = seen;
    }
    if (reply->finished && exchange->proven_ms == 0)
        exchange->proven_ms = exchange->heard_ms;
    return reply->error == CLASS_NONE && seen <= EXCHANGE_MAX_TEXT;
}

static bool take_stream(struct exchange *exchange, const char *data, size_t len)
{
    struct framing *framing = &exchange->framing;
    int rc = framing_feed(framing, data, len, take_event, exchange);
    if (framing->pending.len == 0) /* between tokens thousands of streams only wait */
        buf_release(&framing->pending);
    if (!framing->has_data)
        buf_release(&framing->data);
    if (rc == -ENOMEM)
        provider_reply_fail(&exchange->reply, CLASS_RETRY, "out of memory for the answer");
    else if (rc != 0)
        provider_reply_fail(&exchange->reply, CLASS_BAD_RESPONSE,
                            "an event of the stream is larger than %zu MiB",
                            FRAMING_MAX_EVENT >> 20);
    return exchange->reply.error == CLASS_NONE && exchange->seen <= EXCHANGE_MAX_TEXT;
}

static bool take_body(void *ctx, const char *data, size_t len)
{
    struct exchange *exchange = ctx;
    exchange->heard_ms = (int64_t)uv_now(exchange->all->loop);
    exchange->received_bytes += (int64_t)len;
    int64_t most = exchange->kind == BODY_STREAM ? EXCHANGE_MAX_STREAM : EXCHANGE_MAX_BYTES;
    if (exchange->received_bytes > most) {
        bool failure = exchange->kind == BODY_FAILURE;
        provider_reply_fail(&exchange->reply, failure ? CLASS_BAD_RESPONSE : CLASS_BAD_REQUEST,
                            "the response is larger than %d MiB: set max_tokens, or ask for less",
                            (int)(most >> 20));
        return false;
    }
    if (exchange->kind == BODY_STREAM)
        return take_stream(exchange, data, len);
    size_t room = exchange->kind == BODY_FAILURE ? EXCHANGE_MAX_FAILURE - exchange->body.len : len;
    buf_add(&exchange->body, data, len < room ? len : room);
    return true;
}

/* The transfer came to its good end. */
static void finish_well(struct exchange *exchange)
{
    const struct provider *provider = exchange->provider;
    struct provider_reply *reply = &exchange->reply;
    const struct buf *body = &exchange->body;
    if (body->failed)
        provider_reply_fail(reply, CLASS_RETRY, "out of memory for the answer");
    if (exchange->kind == BODY_FAILURE) {
        provider->failure(provider, reply, exchange->status, &exchange->headers,
                          body->data != NULL ? body->data : "", body->len);
        provider_reply_fail(reply, CLASS_BAD_RESPONSE, "the server answered with status %d",
                            exchange->status);
        return;
    }
    if (exchange->kind == BODY_STREAM && framing_end(&exchange->framing, take_event, exchange) != 0)
        provider_reply_fail(reply, CLASS_BAD_RESPONSE, "the end of the stream cannot be read");
    if (exchange->kind == BODY_WHOLE)
        provider->body(provider, reply, body->data != NULL ? body->data : "", body->len);
    if (reply->error == CLASS_NONE && provider->end != NULL)
        provider->end(provider, reply);
}

static void finish_broken(struct exchange *exchange, enum http_end end, const char *why)
{
    struct provider_reply *reply = &exchange->reply;
    if (exchange->kind == BODY_FAILURE) { /* the status says more than the loss */
        finish_well(exchange);
        return;
    }
    if (end == HTTP_END_REFUSED)
        provider_reply_fail(reply, CLASS_BAD_REQUEST, "the address cannot be used: %s", why);
    else if (end == HTTP_END_CONNECT)
        provider_reply_fail(reply, CLASS_RETRY, "no connection: %s", why);
    else if (exchange->kind == BODY_UNKNOWN)
        provider_reply_fail(reply, CLASS_RETRY, "the connection broke before an answer: %s", why);
    else
        provider_reply_fail(reply, CLASS_BAD_RESPONSE,
                            "the connection broke in the middle of the answer: %s", why);
}

static void take_end(void *ctx, enum http_end end, const char *why)
{
    struct exchange *exchange = ctx;
    /* What follows the proof of a complete answer does not matter. */
    bool complete = exchange->reply.finished && exchange->kind == BODY_STREAM;
    if (end == HTTP_END_WELL || (complete && end != HTTP_END_STOPPED))
        finish_well(exchange);
    else if (end != HTTP_END_STOPPED)
        finish_broken(exchange, end, why);
    conclude(exchange);
}

/* --- who is to blame ---------------------------------------------------------------------------
 *
 * What comes from outside, and a provider's code, may kill the worker: while they are at work, it
 * is written down for whom. */

static bool blamed_head(void *ctx, int status, const struct http_headers *headers)
{
    struct exchange *exchange = ctx;
    blame_enter(exchange->blame, &exchange->attempt);
    bool more = take_head(exchange, status, headers);
    blame_leave(exchange->blame);
    return more;
}

static bool blamed_body(void *ctx, const char *data, size_t len)
{
    struct exchange *exchange = ctx;
    blame_enter(exchange->blame, &exchange->attempt);
    bool more = take_body(exchange, data, len);
    blame_leave(exchange->blame);
    return more;
}

static void blamed_end(void *ctx, enum http_end end, const char *why)
{
    struct exchange *exchange = ctx;
    struct blame *blame = exchange->blame;
    blame_enter(blame, &exchange->attempt);
    take_end(exchange, end, why);
    blame_leave(blame);
}

/* --- time limits ------------------------------------------------------------------------------ */

static bool is_over(int64_t limit_ms, int64_t since_ms, int64_t now_ms)
{
    return limit_ms > 0 && now_ms - since_ms >= limit_ms;
}

/* Until a stream's first token, that is waited for; then gaps count. */
static bool check_silence(struct exchange *exchange, int64_t now_ms)
{
    const struct exchange_limits *limits = &exchange->limits;
    if (exchange->streams && exchange->first_ms <= 0 && exchange->kind <= BODY_STREAM) {
        if (!is_over(limits->first_token_ms, exchange->begun_ms, now_ms))
            return false;
        provider_reply_fail(&exchange->reply, CLASS_TIMEOUT, "no token within %lld ms",
                            (long long)limits->first_token_ms);
        return true;
    }
    if (exchange->kind == BODY_UNKNOWN || !is_over(limits->gap_ms, exchange->heard_ms, now_ms))
        return false;
    provider_reply_fail(&exchange->reply, CLASS_TIMEOUT, "nothing came for %lld ms",
                        (long long)limits->gap_ms);
    return true;
}

/* Sets the error when a limit is over; false when none is. */
static bool check_limits(struct exchange *exchange, int64_t now_ms)
{
    const struct exchange_limits *limits = &exchange->limits;
    if (is_over(limits->total_ms, exchange->begun_ms, now_ms)) {
        provider_reply_fail(&exchange->reply, CLASS_TIMEOUT, "not finished within %lld ms",
                            (long long)limits->total_ms);
        return true;
    }
    if (!exchange->connected && is_over(limits->connect_ms, exchange->begun_ms, now_ms)) {
        exchange->connected = http_connected(exchange->http);
        if (!exchange->connected) {
            provider_reply_fail(&exchange->reply, CLASS_TIMEOUT, "no connection within %lld ms",
                                (long long)limits->connect_ms);
            return true;
        }
    }
    return check_silence(exchange, now_ms);
}

/* Whether the answer is complete and only the server's goodbye is missing for too long. */
static bool is_lingering(const struct exchange *exchange, int64_t now_ms)
{
    return exchange->proven_ms > 0 && now_ms - exchange->proven_ms >= EXCHANGE_LINGER_MS;
}

static void sweep(void *ctx)
{
    struct exchanges *all = ctx;
    int64_t now_ms = (int64_t)uv_now(all->loop);
    struct exchange_list over = LIST_HEAD_INITIALIZER(over);
    struct exchange *exchange, *next;
    for (exchange = LIST_FIRST(&all->list); exchange != NULL; exchange = next) {
        next = LIST_NEXT(exchange, link);
        if (is_lingering(exchange, now_ms))
            finish_well(exchange);
        else if (exchange->proven_ms > 0 || !check_limits(exchange, now_ms))
            continue;
        LIST_REMOVE(exchange, link);
        LIST_INSERT_HEAD(&over, exchange, link);
    }
    while ((exchange = LIST_FIRST(&over)) != NULL) /* done() may start and cancel others */
        conclude(exchange);
}

/* --- the start -------------------------------------------------------------------------------- */

static int send_request(struct exchange *exchange, const struct provider_call *call,
                        struct err *err)
{
    static const struct http_callbacks callbacks = {blamed_head, blamed_body, blamed_end};
    struct provider_request request = {0};
    blame_enter(exchange->blame, &exchange->attempt);
    int rc = exchange->provider->build(exchange->provider, call, &request, err);
    blame_leave(exchange->blame);
    if (rc == 0 && (request.url.failed || request.headers.failed || request.body.failed))
        rc = err_set(err, -ENOMEM, "out of memory for the request");
    if (rc == 0)
        rc = http_start(&exchange->http, exchange->all->http, request.url.data,
                        request.headers.data != NULL ? request.headers.data : "", &request.body,
                        &callbacks, exchange, err);
    provider_request_release(&request);
    if (rc != 0 && err != NULL)
        key_scrub(exchange->key, err->text);
    return rc;
}

int exchange_start(struct exchange **ret, struct exchanges *exchanges,
                   const struct exchange_options *options, exchange_done_fn *done, void *ctx,
                   struct err *err)
{
    struct exchange *exchange = mem_must_zalloc(sizeof *exchange);
    *exchange = (struct exchange){
        .all = exchanges,
        .provider = options->provider,
        .key = key_keep(options->key),
        .done = done,
        .ctx = ctx,
        .limits = options->limits,
        .blame = options->blame,
        .attempt = options->attempt,
        .streams = options->call.stream,
        .started_ms = clock_ms_f(),
        .asked_delay_ms = -1,
        .server = {-1, -1, -1, -1, -1, -1},
    };
    uv_update_time(exchanges->loop);
    exchange->begun_ms = exchange->heard_ms = (int64_t)uv_now(exchanges->loop);
    provider_reply_init(&exchange->reply);
    exchange->reply.key = exchange->key;
    provider_reply_expect(&exchange->reply, &options->call);
    LIST_INSERT_HEAD(&exchanges->list, exchange, link);
    exchanges->running++;
    if (options->provider->build == NULL) {
        *ret = exchange;
        exchange->kind = BODY_WHOLE;
        blame_enter(exchange->blame, &exchange->attempt);
        finish_well(exchange);
        blame_leave(exchange->blame);
        conclude(exchange);
        return 0;
    }
    struct provider_call call = options->call;
    call.key = key_value(options->key);
    int rc = send_request(exchange, &call, err);
    if (rc != 0) {
        exchange_free(exchange);
        return rc;
    }
    if (!loop_timer_active(exchanges->sweep))
        loop_timer_start(exchanges->sweep, SWEEP_MS, SWEEP_MS);
    *ret = exchange;
    return 0;
}

const struct provider_reply *exchange_reply(const struct exchange *exchange)
{
    return &exchange->reply;
}

double exchange_elapsed_ms(const struct exchange *exchange)
{
    return clock_ms_f() - exchange->started_ms;
}

/* --- all of them --------------------------------------------------------------------------------
 */

int exchanges_open(struct exchanges **ret, uv_loop_t *loop, struct err *err)
{
    struct exchanges *exchanges = mem_must_zalloc(sizeof *exchanges);
    exchanges->loop = loop;
    LIST_INIT(&exchanges->list);
    int rc = http_open(&exchanges->http, loop, err);
    if (rc != 0) {
        free(exchanges);
        return rc;
    }
    exchanges->sweep = loop_timer_new(loop, sweep, exchanges);
    *ret = exchanges;
    return 0;
}

void exchanges_close(struct exchanges **exchanges_ptr)
{
    struct exchanges *exchanges = *exchanges_ptr;
    *exchanges_ptr = NULL;
    if (exchanges == NULL)
        return;
    struct exchange *exchange;
    while ((exchange = LIST_FIRST(&exchanges->list)) != NULL)
        exchange_cancel(&exchange);
    http_close(&exchanges->http);
    loop_timer_free(&exchanges->sweep);
    free(exchanges);
}

struct http *exchanges_http(struct exchanges *exchanges)
{
    return exchanges->http;
}

size_t exchanges_running(const struct exchanges *exchanges)
{
    return exchanges->running;
}
