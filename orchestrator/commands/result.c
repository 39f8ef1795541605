#include <string.h>

#include "common/queue.h"
#include "orchestrator/client.h"
#include "orchestrator/client_result.h"

static const struct command_option options[] = {
    {"out", 'o', "DIR", "write the files of the answers below DIR", false},
    {"force", 0, NULL, "replace files that exist below DIR", false},
    {"json", 0, NULL, "print one JSON object", false},
    {"quiet", 'q', NULL, "only the result and what went wrong", false},
    {0},
};

static int result(struct client *client, const struct invocation *invocation, const char *given,
                  void *ctx)
{
    (void)ctx;
    char id[TASK_ID_SIZE];
    json_t *task;
    int code = client_resolve(client, invocation, given, id);
    if (code == EXIT_DONE)
        code = client_task(client, invocation, id, &task);
    if (code != EXIT_DONE)
        return code;
    const char *name = json_str(task, "state", "");
    enum task_state state = task_state_parse(name, strlen(name));
    const struct client_delivery delivery = {
        .out = invocation_value(invocation, "out"),
        .force = invocation_has(invocation, "force"),
        .json = invocation_has(invocation, "json"),
        .quiet = invocation_has(invocation, "quiet"),
        .simulated = client->config->simulated,
    };
    if (state == TASK_STATE_COUNT || !task_state_terminal(state))
        code = command_fail(invocation, EXIT_FAILED,
                            "task %s has no result yet, it is %s: `orchestrator wait %s`", id, name,
                            id);
    else
        code = client_deliver(invocation, task, &delivery);
    json_decref(task);
    return code;
}

static int exec(struct invocation *invocation)
{
    return client_each_task(invocation, result, NULL);
}

const struct command command_result = {
    .name = "result",
    .args = "ID",
    .summary = "the result of a task that has ended, and its files",
    .details =
        "ID may be the beginning of an id. A task that has not ended yet gives exit code 1.\n"
        "Of a failed task, --out writes the files of the parts that are done.\n",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .exec = exec,
};
