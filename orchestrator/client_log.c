#include "orchestrator/client_log.h"

#include <stdlib.h>
#include <string.h>

#include "orchestrator/render.h"
#include "orchestrator/task_json.h"

/* The queue follows logs and never says "that was all": the id of the last entry is asked for
 * first, and following stops there. */
struct reading {
    bool asked;    /* the answer about the end has come */
    bool done;     /* the last entry has come, or there is none */
    bool exists;   /* Redis has the task */
    char last[48]; /* id of the last entry; "": the log is empty */
    json_t *log;
};

static void end_answered(void *ctx, const struct redis_value *value)
{
    struct reading *reading = ctx;
    const struct redis_value *last = redis_at(redis_at(value, 0), 0);
    snprintf(reading->last, sizeof reading->last, "%.40s", redis_str(last, NULL));
}

static void exists_answered(void *ctx, const struct redis_value *value)
{
    struct reading *reading = ctx;
    reading->exists = redis_int(value) > 0;
    reading->asked = true;
}

static void ask_for_end(struct client *client, const char *task, struct reading *reading)
{
    char log_key[64], task_key[64];
    snprintf(log_key, sizeof log_key, "orch:{s%d}:log:%s", task_shard(task), task);
    snprintf(task_key, sizeof task_key, "orch:{s%d}:task:%s", task_shard(task), task);
    struct redis *redis = queue_redis(client->queue);
    redis_command(redis, end_answered, reading, 6,
                  (const char *[]){"XREVRANGE", log_key, "+", "-", "COUNT", "1"}, NULL);
    redis_command(redis, exists_answered, reading, 2, (const char *[]){"EXISTS", task_key}, NULL);
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
    json_object_set_new(object, "ts", json_integer(strtoll(entry->id, NULL, 10)));
    set_text(object, "what", entry->what);
    set_text(object, "sub", entry->sub);
    set_text(object, "worker", entry->worker);
    set_text(object, "arm", entry->arm);
    json_object_set_new(object, "attempt", json_integer(entry->attempt));
    set_text(object, "error_class", entry->error_class);
    set_text(object, "text", entry->text);
    json_array_append_new(reading->log, object);
    reading->done =
        reading->done || *reading->last == '\0' || strcmp(entry->id, reading->last) == 0;
}

int client_log_read(struct client *client, const struct invocation *invocation, const char *task,
                    json_t **ret)
{
    struct reading reading = {.log = json_array()};
    struct queue_log_follow *follow = NULL;
    struct err err = {0};
    ask_for_end(client, task, &reading);
    int code = client_wait(client, invocation, &reading.asked);
    if (code == EXIT_DONE && reading.exists) {
        if (queue_log_open(&follow, client->queue, task, "0", log_entry, &reading, &err) != 0)
            code = command_fail(invocation, EXIT_UNREACHABLE, "%s", err.text);
        else
            code = client_wait(client, invocation, &reading.done);
        queue_log_close(&follow);
    }
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
