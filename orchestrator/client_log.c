#include "orchestrator/client_log.h"

#include <stdlib.h>
#include <string.h>

#include "orchestrator/render.h"
#include "orchestrator/task_json.h"

/* The queue follows logs and never says "that was all". Of a task that has ended, the end is the
 * entry that says so; of one that runs, a silence. */
#define FIRST_MS 1000 /* for the first entry: an archived task has none */
#define SILENCE_MS 250

struct reading {
    int64_t finished_ms; /* of the task, by Redis's clock; 0: it runs */
    bool done;
    struct loop_timer *silence;
    json_t *log;
};

static void silent(void *ctx)
{
    struct reading *reading = ctx;
    reading->done = true;
}

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key,
                        text == NULL || *text == '\0' ? json_null()
                                                      : task_json_text(text, strlen(text)));
}

static void log_entry(void *ctx, const struct queue_log_entry *entry)
{
    struct reading *reading = ctx;
    json_t *object = json_object();
    int64_t ms = strtoll(entry->id, NULL, 10);
    json_object_set_new(object, "ts", json_integer(ms));
    set_text(object, "what", entry->what);
    set_text(object, "sub", entry->sub);
    set_text(object, "worker", entry->worker);
    set_text(object, "arm", entry->arm);
    json_object_set_new(object, "attempt", json_integer(entry->attempt));
    set_text(object, "error_class", entry->error_class);
    set_text(object, "text", entry->text);
    json_array_append_new(reading->log, object);
    loop_timer_start(reading->silence, SILENCE_MS, 0);
    /* A retried task has ended more than once. */
    reading->done = reading->done || (reading->finished_ms > 0 && ms >= reading->finished_ms &&
                                      strncmp(entry->what, "task-", 5) == 0);
}

int client_log_read(struct client *client, const struct invocation *invocation, const json_t *task,
                    json_t **ret)
{
    struct reading reading = {.finished_ms = json_int(task, "finished_ms", 0)};
    struct queue_log_follow *follow = NULL;
    struct err err = {0};
    int code = EXIT_DONE;
    reading.log = json_array();
    reading.silence = loop_timer_new(&client->loop, silent, &reading);
    loop_timer_start(reading.silence, FIRST_MS, 0);
    if (queue_log_open(&follow, client->queue, json_str(task, "task_id", ""), "0", log_entry,
                       &reading, &err) != 0)
        code = command_fail(invocation, EXIT_UNREACHABLE, "%s", err.text);
    else
        loop_run_until(&client->loop, &reading.done, CLIENT_ANSWER_MS);
    queue_log_close(&follow);
    loop_timer_free(&reading.silence);
    if (code == EXIT_DONE)
        *ret = reading.log;
    else
        json_decref(reading.log);
    return code;
}

void client_log_print(const json_t *log, FILE *stream)
{
    static const struct render_column columns[] = {
        {"time", false, 0},    {"what", false, 0}, {"subtask", false, 28}, {"try", true, 0},
        {"worker", false, 24}, {"arm", false, 36}, {"text", false, 160},   {0},
    };
    json_t *entry;
    size_t i;
    if (log == NULL)
        return;
    struct render_table *table = render_table_new(columns);
    json_array_foreach (log, i, entry) {
        struct buf text = {0};
        int64_t ms = json_int(entry, "ts", 0), attempt = json_int(entry, "attempt", 0);
        render_time(&text, ms);
        render_table_addf(table, "%s.%03d", text.data, (int)(ms % 1000));
        render_table_add(table, json_str(entry, "what", ""));
        render_table_add(table, json_str(entry, "sub", ""));
        if (attempt > 0)
            render_table_addf(table, "%lld", (long long)attempt);
        else
            render_table_add(table, "");
        render_table_add(table, json_str(entry, "worker", ""));
        render_table_add(table, json_str(entry, "arm", ""));
        const char *class_ = json_str(entry, "error_class", "");
        render_table_addf(table, "%s%s%s", class_, *class_ != '\0' ? ": " : "",
                          json_str(entry, "text", ""));
        buf_release(&text);
    }
    fputs("log\n", stream);
    render_table_print(&table, stream, 2);
}
