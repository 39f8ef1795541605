/* `orchestrator revoke`: shuts out who was invited. */
#include <stdio.h>
#include <string.h>

#include "common/access.h"
#include "common/queue_keys.h"
#include "orchestrator/client.h"
#include "orchestrator/key_files.h"
#include "orchestrator/roster.h"

#define BUS_MS 1000 /* for brokers to say who is there */

static const struct command_option options[] = {
    {"json", 0, NULL, "print one JSON object: name, revoked, connected, host, running", false},
    {0},
};

struct taking {
    bool done;
    char err[512];
};

static void taken(void *ctx, const char *err)
{
    struct taking *taking = ctx;
    taking->done = true;
    snprintf(taking->err, sizeof taking->err, "%s", err);
}

/* Whether the worker is connected now; brokers that don't answer leave that open. */
static const struct roster_worker *find_worker(const struct roster *roster, const char *name)
{
    for (size_t i = 0; i < roster->n_workers; i++)
        if (strcmp(roster->workers[i].name, name) == 0)
            return &roster->workers[i];
    return NULL;
}

static void tell(const struct invocation *invocation, const char *name,
                 const struct roster_worker *worker)
{
    const char *host = worker != NULL && worker->host != NULL ? worker->host : "";
    if (invocation_has(invocation, "json")) {
        json_t *object = json_pack("{s:s, s:b, s:b, s:s, s:I}", "name", name, "revoked", true,
                                   "connected", worker != NULL, "host", host, "running",
                                   (json_int_t)(worker != NULL ? worker->running : 0));
        json_dumpf(object, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(object);
    } else if (worker != NULL) {
        fprintf(stderr,
                "%s is shut out; it was connected from %s, and what it ran (%lld) runs elsewhere\n",
                name, host, (long long)worker->running);
    } else {
        fprintf(stderr, "%s is shut out; no worker of that name was connected\n", name);
    }
}

static int shut_out(struct client *client, const struct invocation *invocation, const char *name)
{
    struct client_answer answer = {0};
    struct taking taking = {0};
    struct roster roster = {0};
    struct err err = {""};
    roster_ask(&roster, &client->loop, client->config, BUS_MS, &err);
    bool file = key_files_forbid(client->config->curve_keys, name);
    queue_keys_remove(client->queue, name, client_answered, &answer);
    access_take(queue_redis(client->queue), name, taken, &taking);
    int code = client_wait(client, invocation, &answer.done);
    if (code == EXIT_DONE)
        code = client_wait(client, invocation, &taking.done);
    if (code == EXIT_DONE && answer.status == QUEUE_GONE && !file)
        code =
            command_fail(invocation, EXIT_USAGE,
                         "nobody is invited as `%s`; `orchestrator keys list` shows who is", name);
    else if (code == EXIT_DONE && answer.status != QUEUE_GONE)
        code = client_explain(client, invocation, name, &answer);
    if (code == EXIT_DONE && taking.err[0] != '\0')
        code = command_fail(invocation, EXIT_UNREACHABLE,
                            "its key is revoked, but Redis did not drop its user: %s", taking.err);
    if (code == EXIT_DONE)
        tell(invocation, name, find_worker(&roster, name));
    roster_release(&roster);
    return code;
}

static int exec(struct invocation *invocation)
{
    struct client client;
    const char *const *args;
    invocation_args(invocation, &args);
    int code = client_open(&client, invocation);
    if (code == EXIT_DONE)
        code = client_connect(&client, invocation, false);
    if (code == EXIT_DONE)
        code = shut_out(&client, invocation, args[0]);
    client_close(&client);
    return code;
}

const struct command command_revoke = {
    .name = "revoke",
    .args = "NAME",
    .summary = "shut out at once who was invited",
    .details =
        "Brokers drop NAME's messages and Redis its connections within a second, what it "
        "ran runs\nelsewhere, and its token is worthless. The other machines need nothing.\n",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .exec = exec,
};
