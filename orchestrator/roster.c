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

static void add_worker(struct roster *roster, const struct msg_worker_info *info)
{
    for (size_t i = 0; i < roster->n_workers; i++)
        if (strcmp(roster->workers[i].name, info->name) == 0)
            return; /* another broker told of it already */
    size_t n = roster->n_workers++;
    roster->workers = mem_must_realloc(roster->workers, (n + 1) * sizeof *roster->workers);
    struct roster_worker *worker = &roster->workers[n];
    *worker = (struct roster_worker){
        .name = mem_must_strdup(info->name),
        .provider = mem_must_strdup(info->provider),
        .host = mem_must_strdup(info->host),
        .arms = mem_must_zalloc((info->n_arms + 1) * sizeof(char *)),
        .n_arms = info->n_arms,
        .running = info->running,
        .concurrency = info->concurrency,
    };
    for (size_t i = 0; i < info->n_arms; i++)
        worker->arms[i] = mem_must_strdup(info->arms[i]);
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
        for (size_t arm = 0; arm < worker->n_arms; arm++)
            free(worker->arms[arm]);
        free(worker->arms);
        free(worker->name);
        free(worker->provider);
        free(worker->host);
    }
    free(roster->workers);
    *roster = (struct roster){0};
}

bool roster_serves(const struct roster_worker *worker, const char *alias)
{
    size_t len = strlen(alias);
    for (size_t i = 0; i < worker->n_arms; i++)
        if (strncmp(worker->arms[i], alias, len) == 0 && worker->arms[i][len] == '@')
            return true;
    return false;
}
