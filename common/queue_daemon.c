/* Orchestrators among themselves: who lives, who has which shards, what they tell each other. */
#include "common/queue_daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/queue_internal.h"
#include "common/task_id.h"
#include "schemas/mem.h"

#define TIMINGS_KEPT "256"      /* entries of the stream, of up to TIMINGS_TOLD records each */
#define TIMINGS_READ 20         /* entries at once */
#define ARCHIVED_MS "604800000" /* a week */
#define ARCHIVED_MOST "500"     /* of a shard */

/* A call whose answer is a status. */
struct asking {
    queue_fn *fn;
    void *ctx;
};

static struct asking *asking_new(queue_fn *fn, void *ctx)
{
    struct asking *asking = mem_must_zalloc(sizeof *asking);
    *asking = (struct asking){fn, ctx};
    return asking;
}

static void status_answered(void *ctx, const struct redis_value *value)
{
    struct asking asking = *(struct asking *)ctx;
    free(ctx);
    struct err err;
    enum queue_status status = queue_status_of(value, &err);
    asking.fn(asking.ctx, status, err.text);
}

static void announce(struct queue *queue, const char *name, const char *json, int64_t ttl_ms,
                     redis_reply_fn *fn, void *ctx)
{
    struct queue_args *args = &queue->args;
    queue_args_clear(args);
    queue_args_str(args, QUEUE_EXPIRY_KEY);
    queue_args_str(args, QUEUE_DAEMONS_KEY);
    queue_args_str(args, name);
    queue_args_str(args, json);
    queue_args_printf(args, "%lld", (long long)ttl_ms);
    queue_eval(queue, &queue->args, SCRIPT_announce, 2, fn, ctx);
}

void queue_announce(struct queue *queue, const char *name, const char *json, int64_t ttl_ms)
{
    announce(queue, name, json, ttl_ms, NULL, NULL);
}

void queue_withdraw(struct queue *queue, const char *name, queue_fn *fn, void *ctx)
{
    announce(queue, name, "", 0, status_answered, asking_new(fn, ctx));
}

struct naming {
    queue_names_fn *fn;
    void *ctx;
};

static void names_answered(void *ctx, const struct redis_value *value)
{
    struct naming naming = *(struct naming *)ctx;
    free(ctx);
    struct err err = {""};
    if (queue_failed(value, &err)) {
        naming.fn(naming.ctx, NULL, 0, err.text);
        return;
    }
    const char **jsons = mem_must_zalloc((redis_len(value) + 1) * sizeof *jsons);
    size_t n = 0;
    for (size_t i = 0; i < redis_len(value); i++)
        if (redis_type(redis_at(value, i)) == REDIS_STR)
            jsons[n++] = redis_str(redis_at(value, i), NULL);
    naming.fn(naming.ctx, jsons, n, "");
    free(jsons);
}

void queue_orchestrators(struct queue *queue, queue_names_fn *fn, void *ctx)
{
    struct naming *naming = mem_must_zalloc(sizeof *naming);
    *naming = (struct naming){fn, ctx};
    queue_args_clear(&queue->args);
    queue_args_str(&queue->args, QUEUE_EXPIRY_KEY);
    queue_args_str(&queue->args, QUEUE_DAEMONS_KEY);
    queue_eval(queue, &queue->args, SCRIPT_orchestrators, 2, names_answered, naming);
}

/* --- shards ---------------------------------------------------------------------------------- */

struct sharing {
    queue_share_fn *fn;
    void *ctx;
};

/* {members, due, free, shard, term, shard, term, ...} */
static void share_answered(void *ctx, const struct redis_value *value)
{
    struct sharing sharing = *(struct sharing *)ctx;
    free(ctx);
    struct err err = {""};
    if (queue_failed(value, &err)) {
        sharing.fn(sharing.ctx, queue_status_of(value, &err), NULL, err.text);
        return;
    }
    struct queue_share share = {.members = redis_int(redis_at(value, 0)),
                                .due = redis_int(redis_at(value, 1)),
                                .free = redis_int(redis_at(value, 2))};
    for (size_t i = 3; i + 1 < redis_len(value); i += 2) {
        int64_t shard = redis_int(redis_at(value, i)), term = redis_int(redis_at(value, i + 1));
        if (shard < 0 || shard >= SHARD_COUNT || term <= 0 || share.terms[shard] != 0)
            continue; /* what is stored is damaged */
        share.terms[shard] = term;
        share.held++;
    }
    sharing.fn(sharing.ctx, QUEUE_OK, &share, "");
}

void queue_share(struct queue *queue, const char *member, int64_t lease_ms, const int *given,
                 size_t n_given, queue_share_fn *fn, void *ctx)
{
    struct queue_args *args = &queue->args;
    struct sharing *sharing = mem_must_zalloc(sizeof *sharing);
    *sharing = (struct sharing){fn, ctx};
    queue_args_clear(args);
    queue_args_str(args, QUEUE_MEMBERS_KEY);
    queue_args_str(args, QUEUE_SHARDS_KEY);
    queue_args_str(args, member);
    queue_args_printf(args, "%lld", (long long)lease_ms);
    for (size_t i = 0; i < n_given; i++)
        queue_args_printf(args, "%d", given[i]);
    queue_eval(queue, args, SCRIPT_shards, 2, share_answered, sharing);
}

/* --- timings --------------------------------------------------------------------------------- */

void queue_timings_tell(struct queue *queue, const char *member, const struct bytes *records,
                        size_t n_records)
{
    struct queue_args *args = &queue->args;
    static const char *const head[] = {"XADD", QUEUE_TIMINGS_KEY, "MAXLEN", "~", TIMINGS_KEPT, "*"};
    queue_args_clear(args);
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        queue_args_str(args, head[i]);
    queue_args_str(args, "by");
    queue_args_str(args, member);
    for (size_t i = 0; i < n_records; i++) {
        queue_args_str(args, "timing");
        queue_args_bytes(args, records[i].data, records[i].len);
    }
    queue_send(queue->redis, args, NULL, NULL);
}

struct reading {
    queue_timings_fn *fn;
    void *ctx;
    char *member;
    char after[48];
};

/* value: [id, ["by", member, "timing", record, ...]] */
static void tell_entry(struct reading *reading, const struct redis_value *value)
{
    const struct redis_value *fields = redis_at(value, 1);
    const char *id = redis_str(redis_at(value, 0), NULL);
    snprintf(reading->after, sizeof reading->after, "%.40s", id);
    if (strcmp(redis_str(redis_at(fields, 1), NULL), reading->member) == 0)
        return;
    for (size_t i = 2; i + 1 < redis_len(fields); i += 2) {
        struct bytes record;
        record.data = redis_str(redis_at(fields, i + 1), &record.len);
        if (strcmp(redis_str(redis_at(fields, i), NULL), "timing") == 0)
            reading->fn(reading->ctx, &(struct queue_timings){.record = &record});
    }
}

/* An error counts as nothing new: it is asked again soon. */
static void timings_answered(void *ctx, const struct redis_value *value)
{
    struct reading *reading = ctx;
    bool closed =
        redis_type(value) == REDIS_ERR && strncmp(redis_str(value, NULL), "CLOSED", 6) == 0;
    const struct redis_value *entries = redis_at(redis_at(value, 0), 1);
    size_t n = redis_type(value) == REDIS_ARRAY ? redis_len(entries) : 0;
    for (size_t i = 0; i < n; i++)
        tell_entry(reading, redis_at(entries, i));
    if (!closed)
        reading->fn(reading->ctx,
                    &(struct queue_timings){.after = reading->after, .more = n >= TIMINGS_READ});
    free(reading->member);
    free(reading);
}

void queue_timings_read(struct queue *queue, const char *member, const char *after,
                        queue_timings_fn *fn, void *ctx)
{
    struct reading *reading = mem_must_zalloc(sizeof *reading);
    reading->fn = fn;
    reading->ctx = ctx;
    reading->member = mem_must_strdup(member);
    snprintf(reading->after, sizeof reading->after, "%s", after);
    queue_args_clear(&queue->args);
    queue_args_str(&queue->args, "XREAD");
    queue_args_str(&queue->args, "COUNT");
    queue_args_printf(&queue->args, "%d", TIMINGS_READ);
    queue_args_str(&queue->args, "STREAMS");
    queue_args_str(&queue->args, QUEUE_TIMINGS_KEY);
    queue_args_str(&queue->args, after);
    queue_send(queue->redis, &queue->args, timings_answered, reading);
}

/* --- archives -------------------------------------------------------------------------------- */

void queue_archived(struct queue *queue, const char *task, const char *archive)
{
    struct queue_args *args = &queue->args;
    char by_task[QUEUE_KEY_SIZE], by_time[QUEUE_KEY_SIZE];
    queue_shard_key(by_task, task_shard(task), "archived");
    queue_shard_key(by_time, task_shard(task), "archived-at");
    queue_args_clear(args);
    queue_args_str(args, by_task);
    queue_args_str(args, by_time);
    queue_args_str(args, task);
    queue_args_str(args, archive);
    queue_args_str(args, ARCHIVED_MS);
    queue_args_str(args, ARCHIVED_MOST);
    queue_eval(queue, args, SCRIPT_archived, 2, NULL, NULL);
}

struct finding {
    queue_bytes_fn *fn;
    void *ctx;
};

static void archive_answered(void *ctx, const struct redis_value *value)
{
    struct finding finding = *(struct finding *)ctx;
    free(ctx);
    struct err err = {""};
    struct bytes text = {"", 0};
    enum queue_status status = QUEUE_OK;
    if (queue_failed(value, &err))
        status = queue_status_of(value, &err);
    else if (redis_type(value) != REDIS_STR)
        status = QUEUE_GONE;
    else
        text.data = redis_str(value, &text.len);
    finding.fn(finding.ctx, status, text, err.text);
}

void queue_archive_of(struct queue *queue, const char *task, queue_bytes_fn *fn, void *ctx)
{
    struct finding *finding = mem_must_zalloc(sizeof *finding);
    *finding = (struct finding){fn, ctx};
    char key[QUEUE_KEY_SIZE];
    queue_shard_key(key, task_shard(task), "archived");
    redis_command(queue->redis, archive_answered, finding, 3, (const char *[]){"HGET", key, task},
                  NULL);
}
