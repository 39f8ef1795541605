#include <stdio.h>

#include "orchestrator/client.h"

static const struct command_option options[] = {
    {"json", 0, NULL, "print one JSON object a line: task_id, cancelled", false},
    {"quiet", 'q', NULL, "say nothing when it worked", false},
    {0},
};

static int cancel(struct client *client, const struct invocation *invocation, const char *given,
                  void *ctx)
{
    (void)ctx;
    char id[TASK_ID_SIZE];
    struct client_answer answer = {0};
    int code = client_resolve(client, invocation, given, id);
    if (code != EXIT_DONE)
        return code;
    queue_cancel(client->queue, id, client_answered, &answer);
    code = client_wait(client, invocation, &answer.done);
    if (code != EXIT_DONE)
        return code;
    bool ended = answer.status == QUEUE_STALE;
    if (answer.status == QUEUE_GONE) {
        json_t *task;
        code = client_task(client, invocation, id, &task); /* the archive may have it */
        if (code != EXIT_DONE)
            return code;
        json_decref(task);
        ended = true;
    }
    if (ended)
        code = command_fail(invocation, EXIT_FAILED, "task %s had ended before", id);
    else
        code = client_explain(client, invocation, id, &answer);
    if (invocation_has(invocation, "json") && code != EXIT_UNREACHABLE && code != EXIT_USAGE)
        printf("{\"task_id\": \"%s\", \"cancelled\": %s}\n", id,
               code == EXIT_DONE ? "true" : "false");
    else if (code == EXIT_DONE && !invocation_has(invocation, "quiet"))
        fprintf(stderr, "task %s %s cancelled; what is done of it stays: `orchestrator show %s`\n",
                id, answer.status == QUEUE_DUP ? "was already" : "is", id);
    return code;
}

static int exec(struct invocation *invocation)
{
    return client_each_task(invocation, cancel, NULL);
}

const struct command command_cancel = {
    .name = "cancel",
    .args = "ID...",
    .summary = "stop tasks: what runs is aborted, what waits never starts",
    .details = "ID may be the beginning of an id. `orchestrator retry ID` takes it up again.\n",
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .exec = exec,
};
