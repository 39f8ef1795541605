#include <stdio.h>

#include "orchestrator/client.h"

static const struct command_option options[] = {
    {"json", 0, NULL, "print one JSON object: task_id, retried", false},
    {"quiet", 'q', NULL, "say nothing when it worked", false},
    {0},
};

/* Not in Redis, or not in a state to be retried. */
static int explain(struct client *client, const struct invocation *invocation, const char *id,
                   const struct client_answer *answer)
{
    json_t *task;
    if (answer->status != QUEUE_GONE && answer->status != QUEUE_STALE)
        return client_explain(client, invocation, id, answer);
    int code = client_task(client, invocation, id, &task);
    if (code != EXIT_DONE)
        return code;
    if (answer->status == QUEUE_GONE)
        code = command_fail(invocation, EXIT_FAILED,
                            "task %s is in the archive only: submit it again", id);
    else
        code = command_fail(invocation, EXIT_FAILED,
                            "task %s is %s: only failed and cancelled tasks are retried", id,
                            json_str(task, "state", "?"));
    json_decref(task);
    return code;
}

static int retry(struct client *client, const struct invocation *invocation, const char *given,
                 void *ctx)
{
    (void)ctx;
    char id[TASK_ID_SIZE];
    struct client_answer answer = {0};
    int code = client_resolve(client, invocation, given, id);
    if (code != EXIT_DONE)
        return code;
    queue_retry(client->queue, id, client_answered, &answer);
    code = client_wait(client, invocation, &answer.done);
    if (code == EXIT_DONE)
        code = explain(client, invocation, id, &answer);
    if (code == EXIT_DONE && invocation_has(invocation, "json"))
        printf("{\"task_id\": \"%s\", \"retried\": true}\n", id);
    else if (code == EXIT_DONE && !invocation_has(invocation, "quiet"))
        fprintf(stderr, "task %s runs again: `orchestrator wait %s`\n", id, id);
    return code;
}

static int exec(struct invocation *invocation)
{
    return client_each_task(invocation, retry, NULL);
}

const struct command command_retry = {
    .name = "retry",
    .args = "ID",
    .summary = "run again what failed or was cancelled of a task",
    .details = "ID may be the beginning of an id. What is done stays done and is not paid again.\n",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .exec = exec,
};
