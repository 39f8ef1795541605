#include <string.h>

#include "common/clock.h"
#include "orchestrator/client.h"
#include "orchestrator/client_result.h"
#include "orchestrator/progress_watch.h"

static const struct command_option options[] = {
    {"timeout", 't', "S", "wait at most S seconds for all of them", false},
    {"out", 'o', "DIR", "write the files of the answers below DIR (one ID only)", false},
    {"force", 0, NULL, "replace files that exist below DIR", false},
    {"json", 0, NULL, "print one JSON object; of several tasks, one a line", false},
    {"quiet", 'q', NULL, "no progress", false},
    {0},
};

struct waiting {
    struct watch_options watch;
    bool several; /* tasks are waited for */
};

static int wait_one(struct client *client, const struct invocation *invocation, const char *given,
                    void *ctx)
{
    const struct waiting *waiting = ctx;
    char id[TASK_ID_SIZE];
    json_t *task;
    int code = client_resolve(client, invocation, given, id);
    if (code == EXIT_DONE)
        code = watch_task(client, invocation, id, &waiting->watch, &task);
    if (code != EXIT_DONE)
        return code;
    const struct client_delivery delivery = {
        .out = invocation_value(invocation, "out"),
        .force = invocation_has(invocation, "force"),
        .json = invocation_has(invocation, "json"),
        .lines = waiting->several,
        .quiet = waiting->watch.quiet,
        .timing = true,
        .simulated = client->config->simulated,
    };
    code = client_deliver(invocation, task, &delivery);
    json_decref(task);
    return code;
}

static int exec(struct invocation *invocation)
{
    const char *const *ids;
    size_t n_ids = invocation_args(invocation, &ids);
    int64_t timeout_ms = 0;
    int limited = invocation_seconds(invocation, "timeout", &timeout_ms);
    if (limited < 0)
        return EXIT_USAGE;
    if (n_ids > 1 && invocation_has(invocation, "out"))
        return command_fail(invocation, EXIT_USAGE, "--out takes the files of one task only");
    struct waiting waiting = {
        .watch = {.quiet = invocation_has(invocation, "quiet"),
                  .until_ms = limited > 0 ? clock_ms() + timeout_ms : 0},
        .several = n_ids > 1,
    };
    return client_each_task(invocation, wait_one, &waiting);
}

const struct command command_wait = {
    .name = "wait",
    .args = "ID...",
    .summary = "wait until tasks have ended, print their results",
    .details = "ID may be the beginning of an id. Ctrl-C ends the waiting, not the task.\n"
               "Of several tasks, the first one that was not done gives the exit code.\n",
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .exec = exec,
};
