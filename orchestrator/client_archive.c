#include "orchestrator/client_archive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/store.h"
#include "orchestrator/task_json.h"

int client_archive_task(const struct config *config, const char *id, json_t **ret, struct err *err)
{
    struct store *store;
    char *text;
    int rc = store_open_read(&store, config->store, err);
    if (rc != 0)
        return rc;
    rc = store_task_find(store, id, &text, err);
    store_close(&store);
    if (rc != 0)
        return rc;
    *ret = json_parse(text, strlen(text), err);
    free(text);
    if (*ret == NULL)
        return err_prefix(err, -EBADMSG, "task %s in %s is damaged", id, config->store);
    return 0;
}

static json_t *time_json(int64_t ms)
{
    return ms > 0 ? json_integer(ms) : json_null();
}

static void add_task(void *ctx, const struct store_task *task)
{
    json_t *array = ctx, *object = json_object();
    json_object_set_new(object, "task_id", task_json_text(task->id, strlen(task->id)));
    json_object_set_new(object, "state", task_json_text(task->state, strlen(task->state)));
    json_object_set_new(object, "title", task_json_text(task->title, strlen(task->title)));
    json_object_set_new(object, "created_ms", time_json(task->created_ms));
    json_object_set_new(object, "finished_ms", time_json(task->finished_ms));
    json_object_set_new(object, "total", json_null());
    json_object_set_new(object, "remaining", json_null());
    json_object_set_new(object, "archived", json_true());
    json_array_append_new(array, object);
}

json_t *client_archive_list(const struct config *config, int64_t limit)
{
    struct store *store;
    json_t *array = json_array();
    if (store_open_read(&store, config->store, NULL) != 0)
        return array;
    store_task_list(store, limit, add_task, array, NULL);
    store_close(&store);
    return array;
}
