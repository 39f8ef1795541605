/* Reading one task: the whole of it, one result, one input. */
#include "common/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "schemas/mem.h"

/* A subtask while the view is put together. */
struct assembly {
    UT_hash_handle hh;
    struct queue_sub_view view;
    int64_t order;
    const char *id; /* key of the hash, not terminated */
    size_t id_len;
};

/* What a view points into, besides the reply. */
struct builder {
    struct assembly *by_id; /* hash */
    struct assembly *items;
    size_t n_items;
    char **texts; /* strings made for it */
    size_t n_texts, cap_texts;
    struct queue_sub_view *views;
};

static const char *keep(struct builder *builder, const char *text, size_t len)
{
    if (len == 0)
        return "";
    if (builder->n_texts == builder->cap_texts) {
        builder->cap_texts = builder->cap_texts > 0 ? builder->cap_texts * 2 : 64;
        builder->texts =
            mem_must_realloc(builder->texts, builder->cap_texts * sizeof *builder->texts);
    }
    return builder->texts[builder->n_texts++] = mem_must_strndup(text, len);
}

static struct bytes bytes_of(const struct redis_value *value)
{
    struct bytes bytes;
    bytes.data = redis_str(value, &bytes.len);
    return bytes;
}

/* Adds the lines of the hash; false when one of them is damaged. */
static bool add_lines(struct builder *builder, const struct redis_value *sub)
{
    size_t n = redis_len(sub) / 2;
    builder->items = mem_must_zalloc((n + 1) * sizeof *builder->items);
    for (size_t i = 0; i < n; i++) {
        struct bytes field = bytes_of(redis_at(sub, 2 * i));
        struct bytes text = bytes_of(redis_at(sub, 2 * i + 1));
        if (memchr(field.data, ':', field.len) != NULL)
            continue;
        struct queue_line line;
        if (!queue_line_parse(&line, text.data, text.len))
            return false;
        struct assembly *item = &builder->items[builder->n_items++];
        item->id = field.data;
        item->id_len = field.len;
        item->order = line.order;
        item->view = (struct queue_sub_view){
            .id = field.data,
            .state = line.state,
            .attempts = line.attempts,
            .owner = keep(builder, line.owner.text, line.owner.len),
            .arm = keep(builder, line.arm.text, line.arm.len),
            .queue_ms = (double)line.queue_us / 1000,
            .error_class = keep(builder, line.error_class.text, line.error_class.len),
            .reason = "",
            .meta = {"", 0},
            .work = {"", 0},
            .outcome = {"", 0},
            .timing = {"", 0},
        };
        HASH_ADD_KEYPTR(hh, builder->by_id, item->id, item->id_len, item);
    }
    return true;
}

static void set_deps(struct builder *builder, struct queue_sub_view *view, struct bytes text)
{
    if (view->deps != NULL)
        return;
    size_t n = 1;
    for (size_t i = 0; i < text.len; i++)
        n += text.data[i] == ' ';
    const char **deps = mem_must_zalloc(n * sizeof *deps);
    view->deps = deps;
    for (size_t at = 0; at < text.len;) {
        size_t len = strcspn(text.data + at, " ");
        if (len > 0 && view->n_deps < n)
            deps[view->n_deps++] = keep(builder, text.data + at, len);
        at += len + 1;
    }
}

/* A field of the hashes `sub`, `in` or `res`: an id, maybe with a colon and what it is. */
static void set_field(struct builder *builder, struct bytes field, struct bytes value, char hash)
{
    const char *colon = memchr(field.data, ':', field.len);
    size_t id_len = colon != NULL ? (size_t)(colon - field.data) : field.len;
    const char *what = colon != NULL ? colon + 1 : "";
    struct assembly *item;
    HASH_FIND(hh, builder->by_id, field.data, id_len, item);
    if (item == NULL)
        return;
    struct queue_sub_view *view = &item->view;
    if (hash == 's' && strcmp(what, "d") == 0)
        set_deps(builder, view, value);
    else if (hash == 's' && strcmp(what, "e") == 0)
        view->reason = value.data;
    else if (hash == 'i' && strcmp(what, "m") == 0)
        view->meta = value;
    else if (hash == 'i' && colon == NULL)
        view->work = value;
    else if (hash == 'r' && strcmp(what, "t") == 0)
        view->timing = value;
    else if (hash == 'r' && colon == NULL)
        view->outcome = value;
}

static void set_fields(struct builder *builder, const struct redis_value *flat, char hash)
{
    for (size_t i = 0; i + 1 < redis_len(flat); i += 2)
        set_field(builder, bytes_of(redis_at(flat, i)), bytes_of(redis_at(flat, i + 1)), hash);
}

static int by_order(const void *a, const void *b)
{
    const struct assembly *left = a, *right = b;
    return (left->order > right->order) - (left->order < right->order);
}

static void builder_release(struct builder *builder)
{
    HASH_CLEAR(hh, builder->by_id);
    for (size_t i = 0; i < builder->n_items; i++)
        free((void *)(uintptr_t)builder->items[i].view.deps);
    for (size_t i = 0; i < builder->n_texts; i++)
        free(builder->texts[i]);
    free(builder->texts);
    free(builder->items);
    free(builder->views);
}

struct reading {
    queue_task_fn *fn;
    void *ctx;
    char *task;
};

static bool build(struct builder *builder, struct queue_task_view *view, const char *id,
                  const struct redis_value *value)
{
    const struct redis_value *task = redis_at(value, 0), *sub = redis_at(value, 1);
    const struct redis_value *inputs = redis_at(value, 2);
    struct bytes state = bytes_of(queue_field(task, "state"));
    *view = (struct queue_task_view){
        .id = id,
        .state = task_state_parse(state.data, state.len),
        .title = redis_str(queue_field(inputs, ":title"), NULL),
        .digest = redis_str(queue_field(task, "digest"), NULL),
        .info = bytes_of(queue_field(inputs, ":info")),
        .created_ms = redis_int(queue_field(task, "created")),
        .finished_ms = redis_int(queue_field(task, "finished")),
        .total = redis_int(queue_field(task, "total")),
        .remaining = redis_int(queue_field(task, "remaining")),
    };
    if (view->state == TASK_STATE_COUNT || !add_lines(builder, sub))
        return false;
    set_fields(builder, sub, 's');
    set_fields(builder, inputs, 'i');
    set_fields(builder, redis_at(value, 3), 'r');
    HASH_CLEAR(hh, builder->by_id); /* sorting moves what it points to */
    if (builder->n_items > 0)
        qsort(builder->items, builder->n_items, sizeof *builder->items, by_order);
    builder->views = mem_must_zalloc((builder->n_items + 1) * sizeof *builder->views);
    for (size_t i = 0; i < builder->n_items; i++)
        builder->views[i] = builder->items[i].view;
    view->subs = builder->views;
    view->n_subs = builder->n_items;
    return true;
}

static void read_answered(void *ctx, const struct redis_value *value)
{
    struct reading reading = *(struct reading *)ctx;
    free(ctx);
    struct err err = {""};
    if (queue_failed(value, &err)) {
        reading.fn(reading.ctx, queue_status_of(value, &err), NULL, err.text);
    } else if (redis_len(value) == 0) {
        reading.fn(reading.ctx, QUEUE_GONE, NULL, "");
    } else {
        struct builder builder = {0};
        struct queue_task_view view;
        if (build(&builder, &view, reading.task, value)) {
            reading.fn(reading.ctx, QUEUE_OK, &view, "");
        } else {
            err_set(&err, 0, "what Redis has of task %s is damaged", reading.task);
            reading.fn(reading.ctx, QUEUE_ERROR, NULL, err.text);
        }
        builder_release(&builder);
    }
    free(reading.task);
}

void queue_read(struct queue *queue, const char *task, bool with_work, queue_task_fn *fn, void *ctx)
{
    struct reading *reading = mem_must_zalloc(sizeof *reading);
    *reading = (struct reading){fn, ctx, mem_must_strdup(task)};
    struct queue_args *args = queue_begin(queue, task);
    queue_args_str(args, with_work ? "1" : "0");
    queue_run(queue, SCRIPT_read, task, read_answered, reading);
}

/* --- one record --------------------------------------------------------------------------- */

struct fetching {
    queue_bytes_fn *fn;
    void *ctx;
};

static void record_answered(void *ctx, const struct redis_value *value)
{
    struct fetching fetching = *(struct fetching *)ctx;
    free(ctx);
    struct err err = {""};
    if (queue_failed(value, &err))
        fetching.fn(fetching.ctx, queue_status_of(value, &err), (struct bytes){"", 0}, err.text);
    else
        fetching.fn(fetching.ctx, redis_type(value) == REDIS_STR ? QUEUE_OK : QUEUE_GONE,
                    bytes_of(value), "");
}

static void fetch(struct queue *queue, const char *task, const char *sub, const char *name,
                  queue_bytes_fn *fn, void *ctx)
{
    struct fetching *fetching = mem_must_zalloc(sizeof *fetching);
    *fetching = (struct fetching){fn, ctx};
    char key[QUEUE_KEY_SIZE];
    queue_task_key(key, task, name);
    redis_command(queue->redis, record_answered, fetching, 3, (const char *[]){"HGET", key, sub},
                  NULL);
}

void queue_result(struct queue *queue, const char *task, const char *sub, queue_bytes_fn *fn,
                  void *ctx)
{
    fetch(queue, task, sub, "res", fn, ctx);
}

void queue_work(struct queue *queue, const char *task, const char *sub, queue_bytes_fn *fn,
                void *ctx)
{
    fetch(queue, task, sub, "in", fn, ctx);
}
