#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/paths.h"
#include "orchestrator/client.h"
#include "orchestrator/stack.h"
#include "schemas/mem.h"

static const struct command_option options[] = {
    {"accept-new-epoch", 0, NULL,
     "go on with what Redis has now, although it was emptied, replaced or put back", false},
    {"json", 0, NULL, "print one JSON object: tasks, findings", false},
    {0},
};

struct check {
    bool json, done;
    int64_t tasks, n_findings;
    json_t *findings;
    char err[512];
};

static void found(void *ctx, const char *task, const char *sub, const char *finding)
{
    struct check *check = ctx;
    if (check->json)
        json_array_append_new(check->findings, json_pack("{s:s, s:s, s:s}", "task_id", task, "sub",
                                                         sub, "finding", finding));
    else
        printf("%s%s%s: %s\n", task, *sub != '\0' ? "/" : "", sub, finding);
}

static void checked(void *ctx, int64_t tasks, int64_t findings, const char *err)
{
    struct check *check = ctx;
    check->done = true;
    check->tasks = tasks;
    check->n_findings = findings;
    snprintf(check->err, sizeof check->err, "%s", err != NULL ? err : "");
}

static void print_end(const struct check *check)
{
    if (!check->json) {
        fprintf(stderr, "%lld tasks checked, %lld findings\n", (long long)check->tasks,
                (long long)check->n_findings);
        return;
    }
    json_t *object =
        json_pack("{s:I, s:O}", "tasks", (json_int_t)check->tasks, "findings", check->findings);
    json_dumpf(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
}

static int accept_epoch(struct client *client, struct invocation *invocation)
{
    struct client_answer answer = {0};
    queue_accept_epoch(client->queue, client_answered, &answer);
    int code = client_wait(client, invocation, &answer.done);
    if (code != EXIT_DONE)
        return code;
    if (answer.status != QUEUE_OK)
        return command_fail(invocation, EXIT_UNREACHABLE, "%s", answer.err);
    fprintf(stderr, "Redis has a new epoch: workers and orchestrators go on within 5 s\n");
    return EXIT_DONE;
}

/* What the programs of this home remember of the Redis that they have worked with: NAME.epoch. */
static int forget_epochs(const char *directory, struct err *err)
{
    DIR *dir = opendir(directory);
    if (dir == NULL)
        return errno == ENOENT
                   ? 0
                   : err_set(err, -errno, "cannot read %s: %s", directory, strerror(errno));
    int rc = 0;
    for (const struct dirent *entry; rc == 0 && (entry = readdir(dir)) != NULL;) {
        const char *dot = strrchr(entry->d_name, '.');
        if (dot != NULL && strcmp(dot, ".epoch") == 0 &&
            unlinkat(dirfd(dir), entry->d_name, 0) != 0 && errno != ENOENT)
            rc = err_set(err, -errno, "cannot remove %s/%s: %s", directory, entry->d_name,
                         strerror(errno));
    }
    closedir(dir);
    return rc;
}

/* The local stack does not run, and would not start with a Redis that it does not know: it takes
 * the one that it finds at its next start. */
static int accept_at_start(const struct client *client, const struct invocation *invocation)
{
    char *spool = path_of(client->config->home, PATH_SPOOL);
    char *store = mem_must_strdup(client->config->store);
    struct err err = {""};
    int rc = forget_epochs(dirname(store), &err);
    if (rc == 0)
        rc = forget_epochs(spool, &err);
    free(spool);
    free(store);
    if (rc != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    fprintf(stderr,
            "the local stack goes on with what Redis has: `orchestrator up -d` starts it\n");
    return EXIT_DONE;
}

static int run(struct client *client, struct invocation *invocation, struct check *check)
{
    queue_fsck(client->queue, found, checked, check);
    int code = client_wait(client, invocation, &check->done);
    if (code != EXIT_DONE)
        return code;
    if (check->err[0] != '\0')
        return command_fail(invocation, EXIT_UNREACHABLE, "%s", check->err);
    print_end(check);
    return check->n_findings > 0 ? EXIT_FAILED : EXIT_DONE;
}

static int exec(struct invocation *invocation)
{
    struct client client;
    struct check check = {.json = invocation_has(invocation, "json"), .findings = json_array()};
    int code = client_open(&client, invocation);
    bool accepts = invocation_has(invocation, "accept-new-epoch");
    if (code == EXIT_DONE && accepts && client.config->redis_local &&
        !stack_running(client.config)) {
        code = accept_at_start(&client, invocation);
        client_close(&client);
        json_decref(check.findings);
        return code;
    }
    if (code == EXIT_DONE)
        code = client_connect(&client, invocation, false);
    if (code == EXIT_DONE && accepts)
        code = accept_epoch(&client, invocation);
    if (code == EXIT_DONE)
        code = run(&client, invocation, &check);
    client_close(&client);
    json_decref(check.findings);
    return code;
}

const struct command command_fsck = {
    .name = "fsck",
    .args = "",
    .summary = "check every stored task against the queue's invariants",
    .details =
        "Changes no task. Exit code 1 when something was found.\n"
        "\n"
        "Workers and orchestrators remember which Redis they work with, and stop when they\n"
        "find an empty one, another one or an older copy in its place. If that is no mistake,\n"
        "--accept-new-epoch makes them go on; work that it does not know is lost.\n"
        "Where the local stack does not run, it makes it start with what Redis has.\n",
    .options = options,
    .exec = exec,
};
