#include <stdio.h>

#include "orchestrator/client.h"

static const struct command_option options[] = {
    {"budget", 'b', "USD", "most that the task may cost, with what it has cost; 0: no limit",
     false},
    {"budget-tokens", 0, "N", "most tokens that it may use, with those it has used", false},
    {"json", 0, NULL, "print one JSON object: task_id, retried", false},
    {"quiet", 'q', NULL, "say nothing when it worked", false},
    {0},
};

/* Not in Redis, or not in a state to be retried. */
static int explain(struct client *client, const struct invocation *invocation, const char *id,
                   const struct client_answer *answer)
{
    json_t *task;
    if (answer->status == QUEUE_CONFLICT)
        return command_fail(
            invocation, EXIT_USAGE,
            "task %s has spent more than that: `orchestrator show %s` says how much", id, id);
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
    const struct queue_spend *budget = ctx;
    char id[TASK_ID_SIZE];
    struct client_answer answer = {0};
    int code = client_resolve(client, invocation, given, id);
    if (code != EXIT_DONE)
        return code;
    queue_retry_within(client->queue, id, budget, client_answered, &answer);
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
    struct queue_spend budget = {-1, -1}; /* as it is */
    if (invocation_budget(invocation, &budget) != 0)
        return EXIT_USAGE;
    return client_each_task(invocation, retry, &budget);
}

const struct command command_retry = {
    .name = "retry",
    .args = "ID",
    .summary = "run again what failed or was cancelled of a task",
    .details = "ID may be the beginning of an id. What is done stays done and is not paid again.\n"
               "A task that ended because of its budget needs a larger one: --budget.\n",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .exec = exec,
};
