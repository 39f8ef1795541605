/* Asks local runtimes for their models: one small HTTP request each, all at once, bounded in time
 * and bytes. What answers may be anything. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/detect.h"
#include "common/json.h"
#include "schemas/mem.h"

#define MAX_ANSWER ((size_t)1024 * 1024)
#define MAX_MODELS 1000

struct probe {
    struct detect_runtime *runtime;
    int fd; /* -1: over */
    bool sent;
    struct buf answer;
};

static void probe_open(struct probe *probe, struct detect_runtime *runtime)
{
    *probe = (struct probe){.runtime = runtime, .fd = -1};
    const char *port = runtime->port_env != NULL ? getenv(runtime->port_env) : NULL;
    if (port != NULL)
        runtime->port = (int)strtol(port, NULL, 10);
    if (runtime->port <= 0 || runtime->port > 65535)
        return;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)runtime->port)};
    address.sin_addr.s_addr = runtime->address != 0 ? runtime->address : htonl(INADDR_LOOPBACK);
    probe->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe->fd < 0)
        return;
    if (connect(probe->fd, (struct sockaddr *)&address, sizeof address) != 0 &&
        errno != EINPROGRESS) {
        close(probe->fd);
        probe->fd = -1;
    }
}

static void probe_close(struct probe *probe)
{
    if (probe->fd >= 0)
        close(probe->fd);
    probe->fd = -1;
}

/* HTTP/1.0: the answer is not chunked and ends with the connection. */
static void probe_send(struct probe *probe)
{
    char request[256];
    int len = snprintf(request, sizeof request,
                       "GET %s HTTP/1.0\r\nHost: 127.0.0.1:%d\r\nAccept: application/json\r\n"
                       "Connection: close\r\n\r\n",
                       probe->runtime->path, probe->runtime->port);
    if (send(probe->fd, request, (size_t)len, MSG_NOSIGNAL) != len)
        probe_close(probe);
    probe->sent = true;
}

/* Servers that keep the connection open say how long the body is. */
static bool answer_is_whole(const struct buf *answer)
{
    const char *end = answer->len > 0 ? strstr(answer->data, "\r\n\r\n") : NULL;
    const char *field = end != NULL ? strcasestr(answer->data, "\r\ncontent-length:") : NULL;
    if (field == NULL || field > end)
        return false;
    unsigned long body = strtoul(field + strlen("\r\ncontent-length:"), NULL, 10);
    return answer->len - (size_t)(end + 4 - answer->data) >= body;
}

static void probe_read(struct probe *probe)
{
    char chunk[16384];
    ssize_t got = recv(probe->fd, chunk, sizeof chunk, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0)
        buf_add(&probe->answer, chunk, (size_t)got);
    if (got <= 0 || probe->answer.len > MAX_ANSWER || probe->answer.failed ||
        answer_is_whole(&probe->answer))
        probe_close(probe);
}

static bool name_is_usable(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > DETECT_NAME_SIZE - 1)
        return false;
    for (const char *at = name; *at != '\0'; at++)
        if (*at <= ' ' || *at > '~')
            return false;
    return true;
}

/* One model of the list: Ollama names it `name`, the others `id`. */
static void learn_model(struct detect_runtime *runtime, const json_t *item, bool ollama)
{
    const char *name = json_str(item, ollama ? "name" : "id", "");
    struct detect_model *model = &runtime->models[runtime->n_models];
    if (!name_is_usable(name))
        return;
    snprintf(model->name, sizeof model->name, "%s", name);
    snprintf(model->parameters, sizeof model->parameters, "%s",
             json_str(json_get(item, "details"), "parameter_size", ""));
    model->bytes = json_int(item, "size", 0);
    if (model->bytes == 0) /* llama-server */
        model->bytes = json_int(json_get(item, "meta"), "size", 0);
    if (runtime->owner[0] == '\0')
        snprintf(runtime->owner, sizeof runtime->owner, "%s", json_str(item, "owned_by", ""));
    runtime->n_models++;
}

/* Ollama: {"models": [{"name": ...}]}; the others: {"data": [{"id": ...}]}. */
static void probe_learn(struct probe *probe)
{
    const struct buf *answer = &probe->answer;
    struct detect_runtime *runtime = probe->runtime;
    const char *body =
        answer->len > 12 && !answer->failed ? strstr(answer->data, "\r\n\r\n") : NULL;
    if (body == NULL || strncmp(answer->data, "HTTP/1.", 7) != 0)
        return;
    runtime->status = (int)strtol(answer->data + 9, NULL, 10);
    const char *start = strchr(body, '{'), *end = strrchr(body, '}');
    if (runtime->status / 100 != 2 || start == NULL || end == NULL || end < start)
        return;
    json_t *value = json_parse(start, (size_t)(end - start) + 1, NULL);
    bool ollama = strcmp(runtime->api, "ollama") == 0;
    const json_t *list = json_get(value, ollama ? "models" : "data");
    runtime->found = json_is_array(list);
    size_t count = json_array_size(list);
    if (count > MAX_MODELS)
        count = MAX_MODELS;
    runtime->models = mem_must_zalloc((count + 1) * sizeof *runtime->models);
    for (size_t i = 0; i < count; i++)
        learn_model(runtime, json_array_get(list, i), ollama);
    json_decref(value);
}

/* One turn of poll; false when all are over or the time is. */
static bool probe_turn(struct probe *probes, size_t count, int64_t end_ms)
{
    struct pollfd polls[DETECT_PROBES];
    size_t open = 0;
    for (size_t i = 0; i < count; i++) {
        short events = probes[i].sent ? POLLIN : POLLOUT;
        polls[i] = (struct pollfd){.fd = probes[i].fd, .events = events};
        open += probes[i].fd >= 0;
    }
    int64_t left = end_ms - clock_ms();
    if (open == 0 || left <= 0)
        return false;
    if (poll(polls, count, (int)left) < 0)
        return errno == EINTR;
    for (size_t i = 0; i < count; i++) {
        if (polls[i].fd < 0 || polls[i].revents == 0)
            continue;
        if (probes[i].sent)
            probe_read(&probes[i]);
        else if ((polls[i].revents & (POLLERR | POLLHUP)) != 0)
            probe_close(&probes[i]);
        else
            probe_send(&probes[i]);
    }
    return true;
}

void detect_probe(struct detect_runtime *runtimes, size_t count, int budget_ms)
{
    struct probe probes[DETECT_PROBES];
    int64_t end_ms = clock_ms() + budget_ms;
    if (count > DETECT_PROBES)
        count = DETECT_PROBES;
    for (size_t i = 0; i < count; i++)
        probe_open(&probes[i], &runtimes[i]);
    while (probe_turn(probes, count, end_ms))
        ;
    for (size_t i = 0; i < count; i++) {
        probe_close(&probes[i]);
        probe_learn(&probes[i]);
        buf_release(&probes[i].answer);
    }
}
