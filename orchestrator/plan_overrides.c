/* What a submitter asks of all subtasks of a task: put into their records, carried in its info. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/plan.h"

static bool is_empty(const char *text)
{
    return text == NULL || *text == '\0';
}

/* The images are for the planner and for what runs. */
static bool shows_images(const struct plan_overrides *overrides, const char *kind)
{
    return !is_empty(overrides->images) && (strcmp(kind, "run") == 0 || strcmp(kind, "plan") == 0);
}

/* Encodes the record anew in place of the old one. */
static int replace(struct bytes *record, const struct message *message, const char *id,
                   struct err *err)
{
    struct buf out = {0};
    size_t len = 0;
    int rc = message_encode(message, &out);
    if (rc != 0) {
        buf_release(&out);
        return err_set(err, rc, "subtask `%s` is too large with its images: at most 16 MiB", id);
    }
    free((void *)(uintptr_t)record->data);
    record->data = buf_take(&out, &len);
    record->len = len;
    return 0;
}

static int change_work(struct queue_node *node, const struct plan_overrides *overrides,
                       struct err *err)
{
    struct message message;
    int rc = message_decode_as(&message, MESSAGE_work, node->work.data, node->work.len);
    if (rc != 0)
        return err_set(err, rc, "subtask `%s` cannot be read", node->id);
    struct msg_work *work = &message.work;
    if (overrides->no_cache)
        work->cache = "off";
    if (overrides->has_seed) {
        work->has_seed = true;
        work->seed = overrides->seed;
    }
    if (!is_empty(overrides->effort))
        work->effort = overrides->effort;
    if (shows_images(overrides, work->kind))
        work->images = (struct bytes){overrides->images, strlen(overrides->images)};
    rc = replace(&node->work, &message, node->id, err);
    message_release(&message);
    return rc;
}

static int change_meta(struct queue_node *node, const struct plan_overrides *overrides,
                       struct err *err)
{
    struct message message;
    int rc = message_decode_as(&message, MESSAGE_meta, node->meta.data, node->meta.len);
    if (rc != 0)
        return err_set(err, rc, "subtask `%s` cannot be read", node->id);
    message.meta.offline |= overrides->offline;
    message.meta.images |= shows_images(overrides, message.meta.kind);
    rc = replace(&node->meta, &message, node->id, err);
    message_release(&message);
    return rc;
}

static bool asks_for_nothing(const struct plan_overrides *overrides)
{
    return !overrides->no_cache && !overrides->offline && !overrides->has_seed &&
           is_empty(overrides->effort) && is_empty(overrides->images);
}

int plan_overrides_apply(struct plan_nodes *nodes, const struct plan_overrides *overrides,
                         struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < nodes->n_nodes && !asks_for_nothing(overrides); i++) {
        rc = change_work(&nodes->nodes[i], overrides, err);
        if (rc == 0)
            rc = change_meta(&nodes->nodes[i], overrides, err);
    }
    return rc;
}

json_t *plan_overrides_json(const struct plan_overrides *overrides)
{
    json_t *object = json_object();
    if (overrides->no_cache)
        json_object_set_new(object, "no_cache", json_true());
    if (overrides->offline)
        json_object_set_new(object, "offline", json_true());
    if (overrides->has_seed)
        json_object_set_new(object, "seed", json_integer(overrides->seed));
    if (!is_empty(overrides->effort))
        json_object_set_new(object, "effort", json_string(overrides->effort));
    return object;
}

struct plan_overrides plan_overrides_of(const json_t *info)
{
    const json_t *object = json_get(info, PLAN_INFO_OVERRIDES);
    return (struct plan_overrides){
        .no_cache = json_bool(object, "no_cache", false),
        .offline = json_bool(object, "offline", false),
        .has_seed = json_get(object, "seed") != NULL,
        .seed = json_int(object, "seed", 0),
        .effort = json_str(object, "effort", ""),
    };
}
