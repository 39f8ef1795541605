/* What the simulator's tests share: a simulator of their own, and a small HTTP client on a raw
 * socket that shows broken answers as what they are. */
#ifndef TESTS_INTEGRATION_SIM_CLIENT_H
#define TESTS_INTEGRATION_SIM_CLIENT_H

#include <arpa/inet.h>
#include <ctype.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/json.h"
#include "tests/lib/fixture.h"

#define WAIT_MS 20000

static struct fixture fixture;
static pid_t sim_pid;
static int sim_port;

struct answer {
    int status;      /* 0: the connection ended before a status line */
    struct buf head; /* status line and headers */
    struct buf body; /* without chunk framing */
    bool whole;      /* the body ended as HTTP says it must */
};

/* --- the process --------------------------------------------------------------------------- */

static inline void sim_start(const char *scenario)
{
    char port_file[128];
    struct buf text = {0};
    snprintf(port_file, sizeof port_file, "%s/port", fixture.dir);
    unlink(port_file);
    const char *argv[] = {"orchestrator-sim", "--port",     "0",      "--port-file", port_file,
                          "--quiet",          "--scenario", scenario, NULL};
    if (scenario == NULL)
        argv[6] = NULL;
    sim_pid = fixture_spawn(&fixture, "sim.log", argv);
    assert_true(fixture_wait_text(&fixture, "port", "\n", WAIT_MS));
    assert_true(fixture_read(port_file, &text));
    sim_port = atoi(text.data);
    buf_release(&text);
    assert_true(sim_port > 0);
}

static inline int sim_group_setup(void **state)
{
    (void)state;
    fixture_init(&fixture);
    sim_start(NULL);
    return 0;
}

static inline int sim_group_teardown(void **state)
{
    (void)state;
    fixture_release(&fixture);
    return 0;
}

/* --- HTTP ---------------------------------------------------------------------------------- */

static inline int http_connect(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)sim_port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = WAIT_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* headers: "Name: value\r\n" lines. */
static inline void http_send(int fd, const char *method, const char *path, const char *headers,
                             const char *body, size_t len)
{
    struct buf request = {0};
    buf_printf(&request,
               "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
               "Content-Type: application/json\r\n%s",
               method, path, headers);
    if (strcmp(method, "GET") != 0)
        buf_printf(&request, "Content-Length: %zu\r\n", len);
    buf_add_str(&request, "\r\n");
    buf_add(&request, body, len);
    for (size_t sent = 0; sent < request.len;) {
        ssize_t n = send(fd, request.data + sent, request.len - sent, MSG_NOSIGNAL);
        if (n <= 0)
            break; /* the server may answer before it has read everything */
        sent += (size_t)n;
    }
    buf_release(&request);
}

/* Takes the chunk framing away; true when the last chunk was there. */
static inline bool http_dechunk(struct buf *body)
{
    struct buf plain = {0};
    const char *at = body->data, *end = body->data + body->len;
    bool whole = false;
    while (at != NULL && at < end) {
        char *digits_end;
        unsigned long len = strtoul(at, &digits_end, 16);
        const char *line = memmem(digits_end, (size_t)(end - digits_end), "\r\n", 2);
        if (line == NULL)
            break;
        at = line + 2;
        if (len == 0) {
            whole = true;
            break;
        }
        size_t there = (size_t)(end - at) < len ? (size_t)(end - at) : len;
        buf_add(&plain, at, there);
        at += there + 2;
    }
    buf_release(body);
    *body = plain;
    return whole;
}

static inline void http_parse(struct buf *raw, struct answer *ret)
{
    *ret = (struct answer){0};
    const char *end = raw->len > 0 ? memmem(raw->data, raw->len, "\r\n\r\n", 4) : NULL;
    if (end == NULL)
        return;
    size_t head = (size_t)(end - raw->data) + 4;
    buf_add(&ret->head, raw->data, head);
    buf_add(&ret->body, raw->data + head, raw->len - head);
    buf_reserve(&ret->body, 1);
    ret->status = atoi(ret->head.data + 9);
    const char *length = strcasestr(ret->head.data, "\r\nContent-Length: ");
    if (strcasestr(ret->head.data, "Transfer-Encoding: chunked") != NULL)
        ret->whole = http_dechunk(&ret->body);
    else
        ret->whole = length != NULL && (size_t)atol(length + 18) == ret->body.len;
    buf_reserve(&ret->body, 1);
}

/* Reads until the server closes the connection. */
static inline struct answer http_read(int fd)
{
    struct buf raw = {0};
    char chunk[65536];
    ssize_t n;
    while ((n = recv(fd, chunk, sizeof chunk, 0)) > 0)
        buf_add(&raw, chunk, (size_t)n);
    struct answer answer;
    http_parse(&raw, &answer);
    buf_release(&raw);
    return answer;
}

static inline struct answer http_do(const char *method, const char *path, const char *headers,
                                    const char *body)
{
    int fd = http_connect();
    http_send(fd, method, path, headers, body, strlen(body));
    struct answer answer = http_read(fd);
    close(fd);
    return answer;
}

static inline struct answer post(const char *path, const char *body)
{
    return http_do("POST", path, "", body);
}

static inline struct answer get(const char *path)
{
    return http_do("GET", path, "", "");
}

static inline void answer_release(struct answer *answer)
{
    buf_release(&answer->head);
    buf_release(&answer->body);
}

static inline bool has(const struct buf *text, const char *part)
{
    return text->data != NULL && memmem(text->data, text->len, part, strlen(part)) != NULL;
}

static inline void assert_has(const struct buf *text, const char *part)
{
    if (!has(text, part))
        fail_msg("'%s' is not in: %.2000s", part, text->data != NULL ? text->data : "");
}

/* The body as JSON; the caller json_decref()s it. */
static inline json_t *body_json(const struct answer *answer)
{
    struct err err = {0};
    json_t *value = json_parse(answer->body.data, answer->body.len, &err);
    if (value == NULL)
        fail_msg("%s: %.2000s", err.text, answer->body.data);
    return value;
}

static inline const char *path_str(const json_t *value, const char *path)
{
    const char *text = json_string_value(json_path(value, path));
    return text != NULL ? text : "";
}

static inline int64_t path_int(const json_t *value, const char *path)
{
    const json_t *number = json_path(value, path);
    if (!json_is_number(number))
        fail_msg("no number at %s", path);
    return (int64_t)json_number_value(number);
}

/* --- streams ------------------------------------------------------------------------------- */

/* The JSON of every "data:" line (SSE) or every line (NDJSON), as an array; [DONE] and lines that
 * are no JSON become strings. */
static inline json_t *stream_json(const struct answer *answer, bool sse)
{
    json_t *all = json_array();
    const char *at = answer->body.data, *end = at + answer->body.len;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        size_t len = line_end != NULL ? (size_t)(line_end - at) : (size_t)(end - at);
        const char *line = at;
        at += len + 1;
        while (len > 0 && isspace((unsigned char)line[len - 1]))
            len--;
        if (len == 0 || (sse && strncmp(line, "data:", 5) != 0))
            continue;
        size_t skip = sse ? 5 + (line[5] == ' ') : 0;
        json_t *value = json_parse(line + skip, len - skip, NULL);
        json_array_append_new(all, value != NULL ? value : json_stringn(line + skip, len - skip));
    }
    return all;
}

/* --- the simulator's own paths ------------------------------------------------------------- */

static inline void scenario_set(const char *yaml)
{
    struct answer answer = post("/sim/scenario", yaml);
    if (answer.status != 200)
        fail_msg("scenario refused: %s", answer.body.data);
    answer_release(&answer);
    answer = post("/sim/reset", "");
    assert_int_equal(answer.status, 200);
    answer_release(&answer);
}

static inline int64_t stat_now(const char *path)
{
    struct answer answer = get("/sim/stats");
    json_t *stats = body_json(&answer);
    const json_t *value = json_path(stats, path);
    int64_t number = json_is_number(value) ? (int64_t)json_number_value(value) : 0;
    json_decref(stats);
    answer_release(&answer);
    return number;
}

#define OPENAI_HI "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi you\"}]"
#define OPENAI_PATH "/v1/chat/completions"
#define ANTHROPIC_HI                                                                               \
    "{\"model\":\"m\",\"max_tokens\":4000,\"messages\":[{\"role\":\"user\",\"content\":\"Hi "      \
    "you\"}]"
#define ANTHROPIC_PATH "/v1/messages"
#define GEMINI_HI "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Hi you\"}]}]"
#define GEMINI_PATH "/v1beta/models/m:generateContent"
#define GEMINI_SSE "/v1beta/models/m:streamGenerateContent?alt=sse"
#define GEMINI_ARRAY "/v1beta/models/m:streamGenerateContent"
#define OLLAMA_HI "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi you\"}]"
#define OLLAMA_PATH "/api/chat"

#endif
