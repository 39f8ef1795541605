#include "orchestrator/roster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/peer.h"
#include "common/task_id.h"
#include "schemas/mem.h"

struct asking {
    struct roster *roster;
    struct peer *peer;
    char boot[17];
    bool done;
};

static void introduce(void *ctx, int broker)
{
    struct asking *asking = ctx;
    char host[128] = "";
    gethostname(host, sizeof host - 1);
    struct message hello = {
        .type = MESSAGE_hello,
        .hello = {.name = "roster", .boot = asking->boot, .host = host, .pid = getpid()},
    };
    struct message status = {.type = MESSAGE_status};
    peer_send(asking->peer, broker, &hello);
    peer_send(asking->peer, broker, &status);
}

static char **copy_texts(const char *const *texts, size_t n)
{
    char **copy = mem_must_zalloc((n + 1) * sizeof *copy);
    for (size_t i = 0; i < n; i++)
        copy[i] = mem_must_strdup(texts[i]);
    return copy;
}

static void free_texts(char **texts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(texts[i]);
    free(texts);
}

static void add_worker(struct roster *roster, const struct msg_worker_info *info)
{
    for (size_t i = 0; i < roster->n_workers; i++)
        if (strcmp(roster->workers[i].name, info->name) == 0)
            return; /* another broker told of it already */
    size_t n = roster->n_workers++;
    roster->workers = mem_must_realloc(roster->workers, (n + 1) * sizeof *roster->workers);
    roster->workers[n] = (struct roster_worker){
        .name = mem_must_strdup(info->name),
        .provider = mem_must_strdup(info->provider),
        .host = mem_must_strdup(info->host),
        .arms = copy_texts(info->arms, info->n_arms),
        .n_arms = info->n_arms,
        .states = copy_texts(info->states, info->n_states),
        .n_states = info->n_states,
        .paused = copy_texts(info->paused, info->n_paused),
        .n_paused = info->n_paused,
        .running = info->running,
        .concurrency = info->concurrency,
    };
}

static void on_message(void *ctx, int broker, const struct message *message)
{
    struct asking *asking = ctx;
    (void)broker;
    if (message->type == MESSAGE_worker_info)
        add_worker(asking->roster, &message->worker_info);
    if (message->type == MESSAGE_broker_info &&
        ++asking->roster->brokers >= peer_brokers(asking->peer))
        asking->done = true;
}

int roster_ask(struct roster *ret, uv_loop_t *loop, const struct config *config, int64_t timeout_ms,
               struct err *err)
{
    static const struct peer_callbacks callbacks = {.introduce = introduce, .message = on_message};
    struct asking asking = {.roster = ret};
    char source[32];
    *ret = (struct roster){0};
    boot_nonce_make(asking.boot);
    snprintf(source, sizeof source, "tool/%d", (int)getpid());
    int rc = peer_open(&asking.peer, loop, config, source, asking.boot, &callbacks, &asking, err);
    if (rc != 0)
        return rc;
    loop_run_until(loop, &asking.done, timeout_ms);
    peer_close(&asking.peer);
    return 0;
}

void roster_release(struct roster *roster)
{
    for (size_t i = 0; i < roster->n_workers; i++) {
        struct roster_worker *worker = &roster->workers[i];
        free_texts(worker->arms, worker->n_arms);
        free_texts(worker->states, worker->n_states);
        free_texts(worker->paused, worker->n_paused);
        free(worker->name);
        free(worker->provider);
        free(worker->host);
    }
    free(roster->workers);
    *roster = (struct roster){0};
}

/* Whether the text begins with `alias@`. */
static bool is_of(const char *arm, const char *alias)
{
    size_t len = strlen(alias);
    return strncmp(arm, alias, len) == 0 && arm[len] == '@';
}

bool roster_serves(const struct roster_worker *worker, const char *alias)
{
    for (size_t i = 0; i < worker->n_arms; i++)
        if (is_of(worker->arms[i], alias))
            return true;
    return false;
}

const char *roster_paused(const struct roster_worker *worker, const char *alias)
{
    for (size_t i = 0; i < worker->n_paused; i++) {
        const char *reason = strstr(worker->paused[i], ": ");
        if (is_of(worker->paused[i], alias))
            return reason != NULL ? reason + 2 : "";
    }
    return NULL;
}

const char *roster_state(const struct roster_worker *worker, const char *alias)
{
    for (size_t i = 0; i < worker->n_arms && i < worker->n_states; i++)
        if (is_of(worker->arms[i], alias))
            return worker->states[i];
    return "";
}
