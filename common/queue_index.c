/* The indexes of the shards: what is ready, expired, due, stored, finished, and how many. */
#include "common/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/task_id.h"
#include "schemas/mem.h"

/* --- items -------------------------------------------------------------------------------- */

#define TEXTS 5 /* of an item */
#define SCORE_MAX_MS 9e15
#define COUNT_MAX ((int64_t)1 << 40)

/* One queue_scan(), until the details of all entries are there. */
struct scan {
    struct queue *queue;
    queue_items_fn *fn;
    void *ctx;
    int shard;
    bool with_meta;
    struct queue_item *items;
    char **texts; /* TEXTS per item: task, sub, avoid, meta, error_class */
    size_t n_items, missing;
    struct err err;
};

/* One of the answers of a scan. */
struct detail {
    struct scan *scan;
    size_t at;
};

static void scan_end(struct scan *scan)
{
    bool failed = scan->err.text[0] != '\0';
    /* What left the index meanwhile has no line any more, and is left out. */
    size_t n = 0;
    for (size_t i = 0; i < scan->n_items && !failed; i++)
        if (scan->items[i].attempt >= 0)
            scan->items[n++] = scan->items[i];
    scan->fn(scan->ctx, scan->shard, failed ? NULL : scan->items, n, scan->err.text);
    for (size_t i = 0; i < TEXTS * scan->n_items; i++)
        free(scan->texts[i]);
    free(scan->texts);
    free(scan->items);
    free(scan);
}

static void scan_step(struct scan *scan, const struct redis_value *value)
{
    queue_failed(value, &scan->err);
    if (--scan->missing == 0)
        scan_end(scan);
}

static const char *keep(struct scan *scan, size_t at, size_t place, const char *text, size_t len)
{
    free(scan->texts[TEXTS * at + place]);
    return scan->texts[TEXTS * at + place] = mem_must_strndup(text, len);
}

static void meta_answered(void *ctx, const struct redis_value *value)
{
    struct detail detail = *(struct detail *)ctx;
    free(ctx);
    struct queue_item *item = &detail.scan->items[detail.at];
    const char *text = redis_str(value, &item->meta.len);
    item->meta.data = keep(detail.scan, detail.at, 3, text, item->meta.len);
    scan_step(detail.scan, value);
}

static struct detail *detail_new(struct scan *scan, size_t at)
{
    struct detail *detail = mem_must_zalloc(sizeof *detail);
    *detail = (struct detail){scan, at};
    scan->missing++;
    return detail;
}

/* Releases before this one kept the record in a field of its own. */
static void ask_meta(struct scan *scan, size_t at)
{
    const struct queue_item *item = &scan->items[at];
    char key[QUEUE_KEY_SIZE], field[SUB_ID_MAX + 8];
    queue_task_key(key, item->task, "data");
    snprintf(field, sizeof field, "meta:%s", item->sub);
    redis_command(scan->queue->redis, meta_answered, detail_new(scan, at), 3,
                  (const char *[]){"HGET", key, field}, NULL);
}

/* value: line and arms to avoid */
static void line_answered(void *ctx, const struct redis_value *value)
{
    struct detail detail = *(struct detail *)ctx;
    free(ctx);
    struct queue_item *item = &detail.scan->items[detail.at];
    struct queue_line line;
    size_t len;
    const char *text = redis_str(redis_at(value, 0), &len);
    if (queue_line_parse(&line, text, len)) {
        item->attempt = line.attempts;
        item->priority = line.priority;
        text = redis_str(redis_at(value, 1), &len);
        item->avoid = keep(detail.scan, detail.at, 2, text, len);
        item->meta.len = detail.scan->with_meta ? line.meta.len : 0;
        item->meta.data = keep(detail.scan, detail.at, 3, line.meta.text, item->meta.len);
        item->error_class =
            keep(detail.scan, detail.at, 4, line.error_class.text, line.error_class.len);
        if (detail.scan->with_meta && line.meta.len == 0)
            ask_meta(detail.scan, detail.at);
    }
    scan_step(detail.scan, value);
}

static void ask_details(struct scan *scan, size_t at)
{
    const struct queue_item *item = &scan->items[at];
    char key[QUEUE_KEY_SIZE], field[SUB_ID_MAX + 8], avoid[SUB_ID_MAX + 8];
    queue_task_key(key, item->task, "task");
    snprintf(field, sizeof field, "sub:%s", item->sub);
    snprintf(avoid, sizeof avoid, "avoid:%s", item->sub);
    redis_command(scan->queue->redis, line_answered, detail_new(scan, at), 4,
                  (const char *[]){"HMGET", key, field, avoid}, NULL);
}

/* value: member, score, ... */
static void members_answered(void *ctx, const struct redis_value *value)
{
    struct scan *scan = ctx;
    size_t n = redis_len(value) / 2;
    scan->items = mem_must_zalloc((n + 1) * sizeof *scan->items);
    scan->texts = mem_must_zalloc((TEXTS * n + 1) * sizeof *scan->texts);
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *member = redis_str(redis_at(value, 2 * i), &len);
        const char *slash = memchr(member, '/', len);
        size_t task_len = slash != NULL ? (size_t)(slash - member) : 0;
        if (task_len == 0 || task_len >= TASK_ID_SIZE || len - task_len - 1 > SUB_ID_MAX)
            continue; /* damaged; fsck tells */
        size_t at = scan->n_items++;
        struct queue_item *item = &scan->items[at];
        *item = (struct queue_item){.attempt = -1, .meta = {"", 0}, .avoid = "", .error_class = ""};
        item->task = keep(scan, at, 0, member, task_len);
        item->sub = keep(scan, at, 1, slash + 1, len - task_len - 1);
        item->score = strtod(redis_str(redis_at(value, 2 * i + 1), NULL), NULL);
    }
    for (size_t i = 0; i < scan->n_items && !queue_failed(value, &scan->err); i++)
        ask_details(scan, i);
    scan_step(scan, value);
}

/* value: what the next call is to say of the clock, members_answered()'s */
static void overdue_answered(void *ctx, const struct redis_value *value)
{
    struct scan *scan = ctx;
    if (redis_type(value) != REDIS_ARRAY) {
        members_answered(ctx, value);
        return;
    }
    struct queue_clock *clock = &scan->queue->clocks[scan->shard];
    const char *said = redis_str(redis_at(value, 0), NULL);
    if (strcmp(clock->said, said) != 0) {
        snprintf(clock->said, sizeof clock->said, "%s", said);
        clock->at_ms = clock_ms();
    }
    members_answered(ctx, redis_at(value, 1));
}

/* See overdue.lua. Time counts from the answer of one call to the sending of the next: when Redis
 * was slow or away meanwhile, leases live so much longer, for they could not be renewed. */
static void ask_overdue(struct scan *scan, const char *index, int64_t offset, int64_t limit)
{
    static const char *const others[] = {"clock", "lease", "delay"};
    struct queue *queue = scan->queue;
    struct queue_args *args = &queue->args;
    const struct queue_clock *clock = &queue->clocks[scan->shard];
    char key[QUEUE_KEY_SIZE];
    queue_shard_key(key, scan->shard, index);
    queue_args_copy(args, key, strlen(key));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        queue_shard_key(key, scan->shard, others[i]);
        queue_args_copy(args, key, strlen(key));
    }
    queue_args_str(args, clock->said);
    queue_args_printf(args, "%lld", (long long)(clock_ms() - clock->at_ms));
    queue_args_str(args, queue->nonce);
    queue_args_printf(args, "%lld", (long long)offset);
    queue_args_printf(args, "%lld", (long long)limit);
    queue_eval(queue, args, SCRIPT_overdue, 4, overdue_answered, scan);
}

void queue_scan(struct queue *queue, int shard, enum queue_index index, int64_t offset,
                int64_t limit, queue_items_fn *fn, void *ctx)
{
    static const char *const names[] = {[QUEUE_INDEX_READY] = "ready",
                                        [QUEUE_INDEX_LEASE] = "lease",
                                        [QUEUE_INDEX_DELAY] = "delay"};
    struct scan *scan = mem_must_zalloc(sizeof *scan);
    *scan = (struct scan){.queue = queue,
                          .fn = fn,
                          .ctx = ctx,
                          .shard = shard,
                          .missing = 1,
                          .with_meta = index == QUEUE_INDEX_READY};
    char key[QUEUE_KEY_SIZE];
    queue_shard_key(key, shard, names[index]);
    struct queue_args *args = &queue->args;
    queue_args_clear(args);
    if (index == QUEUE_INDEX_READY) {
        queue_args_str(args, "ZRANGE");
        queue_args_str(args, key);
        queue_args_printf(args, "%lld", (long long)offset);
        queue_args_printf(args, "%lld", (long long)(offset + limit - 1));
        queue_args_str(args, "WITHSCORES");
        queue_send(queue->redis, args, members_answered, scan);
    } else {
        ask_overdue(scan, names[index], offset, limit);
    }
}

/* --- depths ------------------------------------------------------------------------------- */

struct counting {
    queue_depths_fn *fn;
    void *ctx;
    struct queue_depths depths;
    size_t missing;
    struct err err;
};

/* The answer to one ZCARD. */
struct count {
    struct counting *counting;
    int64_t *sum;
};

static void count_answered(void *ctx, const struct redis_value *value)
{
    struct count count = *(struct count *)ctx;
    free(ctx);
    struct counting *counting = count.counting;
    queue_failed(value, &counting->err);
    int64_t number = redis_int(value);
    *count.sum += number > 0 && number < COUNT_MAX ? number : 0;
    if (--counting->missing > 0)
        return;
    bool failed = counting->err.text[0] != '\0';
    counting->fn(counting->ctx, failed ? NULL : &counting->depths, counting->err.text);
    free(counting);
}

void queue_depths(struct queue *queue, queue_depths_fn *fn, void *ctx)
{
    struct counting *counting = mem_must_zalloc(sizeof *counting);
    counting->fn = fn;
    counting->ctx = ctx;
    struct queue_depths *depths = &counting->depths;
    const struct {
        const char *name;
        int64_t *sum;
    } indexes[] = {
        {"ready", &depths->ready}, {"lease", &depths->running}, {"delay", &depths->delayed},
        {"held", &depths->held},   {"dead", &depths->dead},     {"tasks", &depths->tasks},
    };
    size_t n = sizeof indexes / sizeof *indexes;
    counting->missing = n * SHARD_COUNT;
    for (size_t i = 0; i < n * SHARD_COUNT; i++) {
        struct count *count = mem_must_zalloc(sizeof *count);
        *count = (struct count){counting, indexes[i % n].sum};
        char key[QUEUE_KEY_SIZE];
        queue_shard_key(key, (int)(i / n), indexes[i % n].name);
        redis_command(queue->redis, count_answered, count, 2, (const char *[]){"ZCARD", key}, NULL);
    }
}

/* --- lists of tasks ----------------------------------------------------------------------- */

/* One list, until all shards and then the details of all tasks are there. */
struct listing {
    struct queue *queue;
    queue_list_fn *fn;
    void *ctx;
    int64_t limit;
    bool newest_first;
    struct queue_task_item *items;
    char **texts; /* per item: id, title */
    size_t n_items, cap_items, missing;
    struct err err;
};

/* The answer about one task. */
struct about {
    struct listing *listing;
    size_t at;
};

static void list_end(struct listing *listing)
{
    bool failed = listing->err.text[0] != '\0';
    size_t n = 0;
    for (size_t i = 0; i < listing->n_items && !failed; i++)
        if (listing->items[i].state != TASK_STATE_COUNT)
            listing->items[n++] = listing->items[i];
    listing->fn(listing->ctx, failed ? NULL : listing->items, n, listing->err.text);
    for (size_t i = 0; i < listing->n_items; i++) {
        free(listing->texts[2 * i]);
        free(listing->texts[2 * i + 1]);
    }
    free(listing->texts);
    free(listing->items);
    free(listing);
}

static void list_step(struct listing *listing, const struct redis_value *value)
{
    queue_failed(value, &listing->err);
    if (--listing->missing == 0)
        list_end(listing);
}

/* It is in one of the task's two hashes. */
static void take_title(const struct about *about, const struct redis_value *value)
{
    size_t len;
    const char *title = redis_str(value, &len);
    if (len == 0)
        return;
    char **text = &about->listing->texts[2 * about->at + 1];
    free(*text);
    about->listing->items[about->at].title = *text = mem_must_strndup(title, len);
}

static void task_answered(void *ctx, const struct redis_value *value)
{
    struct about about = *(struct about *)ctx;
    free(ctx);
    struct queue_task_item *item = &about.listing->items[about.at];
    size_t len;
    const char *state = redis_str(redis_at(value, 0), &len);
    item->state = task_state_parse(state, len);
    item->created_ms = redis_int(redis_at(value, 1));
    item->finished_ms = redis_int(redis_at(value, 2));
    item->total = redis_int(redis_at(value, 3));
    item->remaining = redis_int(redis_at(value, 4));
    take_title(&about, redis_at(value, 5));
    list_step(about.listing, value);
}

static void title_answered(void *ctx, const struct redis_value *value)
{
    struct about about = *(struct about *)ctx;
    free(ctx);
    take_title(&about, value);
    list_step(about.listing, value);
}

static struct about *about_new(struct listing *listing, size_t at)
{
    struct about *about = mem_must_zalloc(sizeof *about);
    *about = (struct about){listing, at};
    listing->missing++;
    return about;
}

static void ask_about(struct listing *listing, size_t at)
{
    char key[QUEUE_KEY_SIZE];
    struct redis *redis = listing->queue->redis;
    queue_task_key(key, listing->items[at].id, "task");
    const char *argv[] = {"HMGET",    key,     "state",     "created",
                          "finished", "total", "remaining", "title"};
    redis_command(redis, task_answered, about_new(listing, at), 8, argv, NULL);
    queue_task_key(key, listing->items[at].id, "data");
    redis_command(redis, title_answered, about_new(listing, at), 3,
                  (const char *[]){"HGET", key, "title"}, NULL);
}

static int newest_first(const void *a, const void *b)
{
    const struct queue_task_item *left = a, *right = b;
    if (left->created_ms != right->created_ms)
        return left->created_ms < right->created_ms ? 1 : -1;
    return strcmp(right->id, left->id);
}

/* All ids are there: the first `limit` of them are asked about. */
static void ids_complete(struct listing *listing)
{
    if (listing->newest_first && listing->n_items > 0)
        qsort(listing->items, listing->n_items, sizeof *listing->items, newest_first);
    size_t n = listing->n_items;
    listing->texts = mem_must_zalloc((2 * n + 1) * sizeof *listing->texts);
    for (size_t i = 0; i < n; i++) {
        listing->texts[2 * i] = (char *)(uintptr_t)listing->items[i].id;
        listing->items[i].title = "";
    }
    size_t wanted = n;
    if (listing->limit >= 0 && wanted > (size_t)listing->limit)
        wanted = (size_t)listing->limit;
    listing->missing = 1;
    for (size_t i = 0; i < wanted && listing->err.text[0] == '\0'; i++)
        ask_about(listing, i);
    if (--listing->missing == 0)
        list_end(listing);
}

/* A score may be any double. */
static int64_t score_ms(const struct redis_value *value)
{
    double ms = strtod(redis_str(value, NULL), NULL);
    return ms > -SCORE_MAX_MS && ms < SCORE_MAX_MS ? (int64_t)ms : 0;
}

/* value: id, score, ... */
static void ids_answered(void *ctx, const struct redis_value *value)
{
    struct listing *listing = ctx;
    queue_failed(value, &listing->err);
    for (size_t i = 0; i + 1 < redis_len(value); i += 2) {
        size_t len;
        const char *id = redis_str(redis_at(value, i), &len);
        if (len == 0 || len >= TASK_ID_SIZE)
            continue; /* damaged; fsck tells */
        if (listing->n_items == listing->cap_items) {
            listing->cap_items = listing->cap_items > 0 ? listing->cap_items * 2 : 64;
            listing->items =
                mem_must_realloc(listing->items, listing->cap_items * sizeof *listing->items);
        }
        listing->items[listing->n_items++] = (struct queue_task_item){
            .id = mem_must_strndup(id, len),
            .state = TASK_STATE_COUNT,
            .created_ms = score_ms(redis_at(value, i + 1)),
        };
    }
    if (--listing->missing == 0)
        ids_complete(listing);
}

static struct listing *listing_new(struct queue *queue, int64_t limit, queue_list_fn *fn, void *ctx)
{
    struct listing *listing = mem_must_zalloc(sizeof *listing);
    *listing = (struct listing){.queue = queue, .fn = fn, .ctx = ctx, .limit = limit};
    return listing;
}

void queue_list(struct queue *queue, int64_t limit, queue_list_fn *fn, void *ctx)
{
    struct listing *listing = listing_new(queue, limit, fn, ctx);
    listing->newest_first = true;
    listing->missing = SHARD_COUNT;
    char last[24];
    snprintf(last, sizeof last, "%lld", (long long)(limit > 0 ? limit - 1 : 0));
    for (int shard = 0; shard < SHARD_COUNT; shard++) {
        char key[QUEUE_KEY_SIZE];
        queue_shard_key(key, shard, "tasks");
        redis_command(queue->redis, ids_answered, listing, 5,
                      (const char *[]){"ZREVRANGE", key, "0", last, "WITHSCORES"}, NULL);
    }
}

void queue_finished(struct queue *queue, int shard, int64_t older_than_ms, int64_t limit,
                    queue_list_fn *fn, void *ctx)
{
    struct listing *listing = listing_new(queue, limit, fn, ctx);
    listing->missing = 1;
    char key[QUEUE_KEY_SIZE];
    queue_shard_key(key, shard, "fin");
    struct queue_args *args = &queue->args;
    queue_args_clear(args);
    queue_args_str(args, key);
    queue_args_printf(args, "%lld", (long long)older_than_ms);
    queue_args_str(args, "0");
    queue_args_printf(args, "%lld", (long long)limit);
    queue_eval(queue, &queue->args, SCRIPT_due, 1, ids_answered, listing);
}
