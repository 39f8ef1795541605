/* Reading one task: the whole of it, one result, one input. */
#include "common/queue_internal.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "common/task_id.h"
#include "schemas/mem.h"

/* A subtask while the view is put together. */
struct assembly {
    UT_hash_handle hh;
    struct queue_sub_view view;
    int64_t order;
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

/* Whether the field is "<kind>:<id>"; then ret is the id. */
static bool field_is(struct bytes field, const char *kind, struct queue_word *ret)
{
    size_t len = strlen(kind);
    if (field.len <= len + 1 || memcmp(field.data, kind, len) != 0 || field.data[len] != ':')
        return false;
    *ret = (struct queue_word){field.data + len + 1, field.len - len - 1};
    return true;
}

/* Adds the subtasks of the hash; false when one of them is damaged. */
static bool add_lines(struct builder *builder, const struct redis_value *task)
{
    builder->items = mem_must_zalloc((redis_len(task) / 2 + 1) * sizeof *builder->items);
    for (size_t i = 0; i + 1 < redis_len(task); i += 2) {
        struct bytes text = bytes_of(redis_at(task, i + 1));
        struct queue_word id;
        struct queue_line line;
        if (!field_is(bytes_of(redis_at(task, i)), "sub", &id))
            continue;
        if (!queue_line_parse(&line, text.data, text.len))
            return false;
        struct assembly *item = &builder->items[builder->n_items++];
        item->order = line.order;
        item->view = (struct queue_sub_view){
            .id = id.text, /* ends with the field */
            .state = line.state,
            .attempts = line.attempts,
            .owner = "",
            .arm = "",
            .queue_ms = (double)line.queue_us / 1000,
            .error_class = keep(builder, line.error_class.text, line.error_class.len),
            .reason = "",
            .meta = {line.meta.len > 0 ? line.meta.text : "", line.meta.len},
            .work = {"", 0},
            .outcome = {"", 0},
            .timing = {"", 0},
        };
        HASH_ADD_KEYPTR(hh, builder->by_id, item->view.id, id.len, item);
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

static void set_run(struct builder *builder, struct queue_sub_view *view, struct bytes text)
{
    struct queue_run_line run;
    if (!queue_run_parse(&run, text.data, text.len))
        return;
    view->owner = keep(builder, run.attempts[0].worker.text, run.attempts[0].worker.len);
    view->arm = keep(builder, run.attempts[0].arm.text, run.attempts[0].arm.len);
}

static void set_reason(struct builder *builder, struct queue_sub_view *view, struct bytes text)
{
    (void)builder;
    view->reason = text.data;
}

/* What the fields of a task's hashes are for; those with an offset are records. */
static const struct {
    const char *kind;
    void (*set)(struct builder *builder, struct queue_sub_view *view, struct bytes text);
    size_t offset;
} fields[] = {
    {"deps", set_deps, 0},
    {"run", set_run, 0},
    {"error", set_reason, 0},
    {"meta", NULL, offsetof(struct queue_sub_view, meta)}, /* of a release before this one */
    {"work", NULL, offsetof(struct queue_sub_view, work)},
    {"outcome", NULL, offsetof(struct queue_sub_view, outcome)},
    {"timing", NULL, offsetof(struct queue_sub_view, timing)},
};

static void set_field(struct builder *builder, struct bytes field, struct bytes value)
{
    struct queue_word id;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (!field_is(field, fields[i].kind, &id))
            continue;
        struct assembly *item;
        HASH_FIND(hh, builder->by_id, id.text, id.len, item);
        if (item != NULL && fields[i].set != NULL)
            fields[i].set(builder, &item->view, value);
        else if (item != NULL)
            *(struct bytes *)(void *)((char *)&item->view + fields[i].offset) = value;
    }
}

static void set_fields(struct builder *builder, const struct redis_value *flat)
{
    for (size_t i = 0; i + 1 < redis_len(flat); i += 2)
        set_field(builder, bytes_of(redis_at(flat, i)), bytes_of(redis_at(flat, i + 1)));
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

/* A small task of one subtask has all in one hash. */
static const struct redis_value *either(const struct redis_value *task,
                                        const struct redis_value *data, const char *name)
{
    const struct redis_value *value = queue_field(task, name);
    return redis_type(value) != REDIS_NIL ? value : queue_field(data, name);
}

static bool build(struct builder *builder, struct queue_task_view *view, const char *id,
                  const struct redis_value *value)
{
    const struct redis_value *task = redis_at(value, 0), *data = redis_at(value, 1);
    struct bytes state = bytes_of(queue_field(task, "state"));
    struct bytes sums = bytes_of(queue_field(task, "budget"));
    struct queue_budget budget = {0};
    if (sums.len > 0 && !queue_budget_parse(&budget, sums.data, sums.len))
        return false;
    *view = (struct queue_task_view){
        .id = id,
        .state = task_state_parse(state.data, state.len),
        .title = redis_str(either(task, data, "title"), NULL),
        .digest = redis_str(queue_field(task, "digest"), NULL),
        .info = bytes_of(either(task, data, "info")),
        .created_ms = redis_int(queue_field(task, "created")),
        .finished_ms = redis_int(queue_field(task, "finished")),
        .total = redis_int(queue_field(task, "total")),
        .remaining = redis_int(queue_field(task, "remaining")),
        .cost_nano_usd = redis_int(queue_field(task, "cost")),
        .budget = budget.limit,
        .spent = budget.spent,
        .held = budget.held,
    };
    if (view->state == TASK_STATE_COUNT || !add_lines(builder, task))
        return false;
    set_fields(builder, task);
    set_fields(builder, data);
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
    struct bytes found; /* in one of the hashes; owned */
    int missing;        /* answers */
    bool failed;
    enum queue_status status;
    struct err err;
};

static void fetch_end(struct fetching *fetching)
{
    bool found = fetching->found.data != NULL;
    struct bytes bytes = found ? fetching->found : (struct bytes){"", 0};
    enum queue_status status = fetching->failed ? fetching->status : found ? QUEUE_OK : QUEUE_GONE;
    fetching->fn(fetching->ctx, status, bytes, fetching->err.text);
    free((void *)(uintptr_t)fetching->found.data);
    free(fetching);
}

static void record_answered(void *ctx, const struct redis_value *value)
{
    struct fetching *fetching = ctx;
    struct bytes bytes = bytes_of(value);
    if (queue_failed(value, &fetching->err)) {
        fetching->failed = true;
        fetching->status = queue_status_of(value, &fetching->err);
    } else if (redis_type(value) == REDIS_STR && fetching->found.data == NULL) {
        fetching->found = (struct bytes){mem_must_strndup(bytes.data, bytes.len), bytes.len};
    }
    if (--fetching->missing == 0)
        fetch_end(fetching);
}

static void fetch(struct queue *queue, const char *task, const char *sub, const char *kind,
                  queue_bytes_fn *fn, void *ctx)
{
    static const char *const hashes[] = {"task", "data"};
    char key[QUEUE_KEY_SIZE], field[SUB_ID_MAX + 16];
    struct fetching *fetching = mem_must_zalloc(sizeof *fetching);
    *fetching = (struct fetching){.fn = fn, .ctx = ctx, .missing = 2};
    snprintf(field, sizeof field, "%s:%s", kind, sub);
    for (size_t i = 0; i < 2; i++) {
        queue_task_key(key, task, hashes[i]);
        redis_command(queue->redis, record_answered, fetching, 3,
                      (const char *[]){"HGET", key, field}, NULL);
    }
}

void queue_result(struct queue *queue, const char *task, const char *sub, queue_bytes_fn *fn,
                  void *ctx)
{
    fetch(queue, task, sub, "outcome", fn, ctx);
}

void queue_work(struct queue *queue, const char *task, const char *sub, queue_bytes_fn *fn,
                void *ctx)
{
    fetch(queue, task, sub, "work", fn, ctx);
}
