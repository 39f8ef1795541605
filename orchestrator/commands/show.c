#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/client.h"
#include "orchestrator/client_log.h"
#include "orchestrator/client_result.h"
#include "orchestrator/render.h"
#include "orchestrator/render_task.h"
#include "orchestrator/task_json.h"

static const struct command_option options[] = {
    {"log", 'l', NULL, "also what happened, line by line", false},
    {"output", 'o', "SUB", "print the answer of this subtask and nothing else", false},
    {"json", 0, NULL, "print one JSON object", false},
    {0},
};

static int print_output(const struct invocation *invocation, const json_t *task, const char *id)
{
    json_t *subtask;
    size_t i;
    json_array_foreach (json_get(task, "subtasks"), i, subtask) {
        if (strcmp(json_str(subtask, "id", ""), id) != 0)
            continue;
        json_t *output = json_get(subtask, "output");
        if (!json_is_string(output))
            return command_fail(invocation, EXIT_FAILED, "subtask %s has no answer: it is %s", id,
                                json_str(subtask, "state", "?"));
        render_model_text(stdout, json_string_value(output), json_string_length(output));
        return EXIT_DONE;
    }
    return command_fail(invocation, EXIT_USAGE,
                        "task %s has no subtask \"%.64s\"; `orchestrator show %s` lists them",
                        json_str(task, "task_id", ""), id, json_str(task, "task_id", ""));
}

static void print_task(const struct client *client, const struct invocation *invocation,
                       json_t *task)
{
    if (!invocation_has(invocation, "json")) {
        render_task_summary(task, stdout);
        client_log_print(json_get(task, "log"), stdout);
        return;
    }
    client_list_files(task);
    json_object_set_new(task, "simulated", json_boolean(client->config->simulated));
    char *text = task_json_dump(task, true);
    puts(text);
    free(text);
}

static int show(struct client *client, const struct invocation *invocation, const char *given,
                void *ctx)
{
    (void)ctx;
    char id[TASK_ID_SIZE];
    json_t *task, *log = NULL;
    const char *output = invocation_value(invocation, "output");
    int code = client_resolve(client, invocation, given, id);
    if (code == EXIT_DONE)
        code = client_task(client, invocation, id, &task);
    if (code != EXIT_DONE)
        return code;
    if (output != NULL) {
        code = print_output(invocation, task, output);
    } else {
        if (invocation_has(invocation, "log"))
            code = client_log_read(client, invocation, task, &log);
        if (log != NULL)
            json_object_set_new(task, "log", log);
        if (code == EXIT_DONE)
            print_task(client, invocation, task);
    }
    json_decref(task);
    return code;
}

static int exec(struct invocation *invocation)
{
    return client_each_task(invocation, show, NULL);
}

const struct command command_show = {
    .name = "show",
    .args = "ID",
    .summary = "what is known of a task and its subtasks",
    .details =
        "ID may be the beginning of an id. Archived tasks are found too; their log is gone.\n"
        "`files` of the JSON object lists the file blocks in the answers; "
        "`orchestrator result ID --out DIR` writes them.\n",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .exec = exec,
};
