#include "orchestrator/reach.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/loop.h"
#include "schemas/mem.h"

struct reaching;

struct attempt_to_reach {
    struct reaching *all;
    struct reach_target *target;
    uv_getaddrinfo_t resolve;
    uv_tcp_t tcp;
    uv_connect_t connect;
    bool resolving, decided;
};

struct reaching {
    struct attempt_to_reach *attempts;
    size_t open;
    bool done;
};

bool reach_target_of_url(struct reach_target *ret, const char *url)
{
    bool tls = strncmp(url, "https://", 8) == 0;
    const char *host = strstr(url, "://");
    if (host == NULL)
        return false;
    host += 3;
    size_t len = strcspn(host, "/?#");
    const char *bracket = host[0] == '[' ? memchr(host, ']', len) : NULL;
    size_t name_len = bracket != NULL ? (size_t)(bracket - host) + 1 : strcspn(host, ":/?#");
    *ret = (struct reach_target){.port = tls ? 443 : 80};
    if (host[name_len] == ':')
        ret->port = (int)strtol(host + name_len + 1, NULL, 10);
    if (bracket != NULL) {
        host++;
        name_len -= 2;
    }
    if (name_len == 0 || name_len >= sizeof ret->host || ret->port <= 0 || ret->port > 65535)
        return false;
    snprintf(ret->host, sizeof ret->host, "%.*s", (int)name_len, host);
    return true;
}

static void decide(struct attempt_to_reach *attempt, int rc)
{
    if (attempt->decided)
        return;
    attempt->decided = true;
    attempt->target->reached = rc == 0;
    if (rc != 0)
        snprintf(attempt->target->why, sizeof attempt->target->why, "%s", uv_strerror(rc));
    attempt->all->done = --attempt->all->open == 0;
}

static void connected(uv_connect_t *connect, int status)
{
    struct attempt_to_reach *attempt = connect->data;
    if (status != UV_ECANCELED)
        decide(attempt, status);
}

static void resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *list)
{
    struct attempt_to_reach *attempt = resolve->data;
    attempt->resolving = false;
    if (status == 0 && !attempt->decided) {
        attempt->connect.data = attempt;
        int rc = uv_tcp_connect(&attempt->connect, &attempt->tcp, list->ai_addr, connected);
        if (rc != 0)
            decide(attempt, rc);
    } else if (status != UV_ECANCELED) {
        decide(attempt, status);
    }
    uv_freeaddrinfo(list);
}

static void attempt_start(uv_loop_t *loop, struct attempt_to_reach *attempt)
{
    char port[16];
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    snprintf(port, sizeof port, "%d", attempt->target->port);
    uv_tcp_init(loop, &attempt->tcp);
    attempt->resolve.data = attempt;
    int rc = uv_getaddrinfo(loop, &attempt->resolve, resolved, attempt->target->host, port, &hints);
    attempt->resolving = rc == 0;
    if (rc != 0)
        decide(attempt, rc);
}

void reach_all(struct reach_target *targets, size_t count, int64_t timeout_ms)
{
    if (count == 0)
        return;
    uv_loop_t loop;
    struct reaching all = {.open = count};
    all.attempts = mem_must_zalloc(count * sizeof *all.attempts);
    loop_init(&loop);
    for (size_t i = 0; i < count; i++) {
        all.attempts[i] = (struct attempt_to_reach){.all = &all, .target = &targets[i]};
        attempt_start(&loop, &all.attempts[i]);
    }
    loop_run_until(&loop, &all.done, timeout_ms);
    for (size_t i = 0; i < count; i++) {
        decide(&all.attempts[i], UV_ETIMEDOUT);
        if (all.attempts[i].resolving)
            uv_cancel((uv_req_t *)&all.attempts[i].resolve);
        uv_close((uv_handle_t *)&all.attempts[i].tcp, NULL);
    }
    /* A resolver that is at work cannot be cancelled: its own time limit ends the wait. */
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    free(all.attempts);
}
