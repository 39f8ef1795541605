#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "orchestrator/client.h"
#include "orchestrator/render.h"
#include "orchestrator/task_json.h"

#define LIMIT 20
#define LIMIT_MOST 1000000

static const struct command_option options[] = {
    {"all", 'a', NULL, "all tasks, not only the newest 20", false},
    {"limit", 'n', "N", "at most N tasks", false},
    {"json", 0, NULL, "print a JSON array", false},
    {0},
};

static void add_duration(struct render_table *table, const json_t *task)
{
    int64_t created_ms = json_int(task, "created_ms", 0);
    int64_t finished_ms = json_int(task, "finished_ms", 0);
    struct buf text = {0};
    int64_t end_ms = finished_ms > 0 ? finished_ms : clock_wall_ms();
    render_duration(&text,
                    created_ms > 0 && end_ms >= created_ms ? (double)(end_ms - created_ms) : -1);
    render_table_add(table, text.data);
    buf_release(&text);
}

static void print_table(const json_t *tasks)
{
    static const struct render_column columns[] = {
        {"id", false, 0},
        {"state", false, 0},
        {"created", false, 0},
        {"time", true, 0},
        {"done", true, 0},
        {"title", false, 80},
        {0},
    };
    struct render_table *table = render_table_new(columns);
    json_t *task;
    size_t i;
    json_array_foreach (tasks, i, task) {
        struct buf created = {0};
        int64_t total = json_int(task, "total", -1);
        int64_t done = total - json_int(task, "remaining", 0);
        render_time(&created, json_int(task, "created_ms", 0));
        render_table_add(table, json_str(task, "task_id", ""));
        render_table_add(table, json_str(task, "state", ""));
        render_table_add(table, created.data);
        add_duration(table, task);
        if (total >= 0)
            /* A planner counts twice until its plan is there. */
            render_table_addf(table, "%lld/%lld", (long long)(done > 0 ? done : 0),
                              (long long)total);
        else
            render_table_add(table, "-");
        render_table_add(table, json_str(task, "title", ""));
        buf_release(&created);
    }
    render_table_print(&table, stdout, 0);
}

static int exec(struct invocation *invocation)
{
    struct client client;
    json_t *tasks;
    int64_t limit = invocation_has(invocation, "all") ? LIMIT_MOST : LIMIT;
    if (invocation_int(invocation, "limit", 1, LIMIT_MOST, &limit) < 0)
        return EXIT_USAGE;
    int code = client_open(&client, invocation);
    if (code != EXIT_DONE)
        return code;
    code = client_connect(&client, invocation, false);
    if (code == EXIT_DONE)
        code = client_list(&client, invocation, limit, &tasks);
    if (code == EXIT_DONE && invocation_has(invocation, "json")) {
        char *text = task_json_dump(tasks, true);
        puts(text);
        free(text);
    } else if (code == EXIT_DONE && json_array_size(tasks) == 0) {
        fputs("there are no tasks yet\n", stderr);
    } else if (code == EXIT_DONE) {
        print_table(tasks);
    }
    if (code == EXIT_DONE)
        json_decref(tasks);
    client_close(&client);
    return code;
}

const struct command command_list = {
    .name = "list",
    .args = "",
    .summary = "tasks, newest first, archived ones too",
    .options = options,
    .exec = exec,
};
