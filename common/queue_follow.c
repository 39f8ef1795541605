/* Follows the outboxes of all shards: one connection, one XREAD that blocks over all of them. In a
 * Redis Cluster a command is about one slot: there each shard has an XREAD and a connection of its
 * own. */
#include "common/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "schemas/mem.h"

#define BATCH "100"     /* entries of one shard in one answer; each can be many events */
#define BLOCK_MS "3000" /* below what the client takes for a dead server */
#define DAMAGED_LOG_MS 1000

/* An XREAD, under way or to be sent. */
struct reading {
    struct queue_follow *follow;
    int first, n; /* shards */
    bool sent;
};

struct queue_follow {
    struct redis *redis;
    struct queue_args args;
    queue_event_fn *fn;
    void *ctx;
    char keys[SHARD_COUNT][QUEUE_KEY_SIZE];
    char seen[SHARD_COUNT][48]; /* id of the last entry */
    struct reading readings[SHARD_COUNT];
    int n_readings;
    int missing; /* checkpoints that are still asked for */
    int64_t damaged, damaged_told_ms;
    struct loop_timer *again; /* after an error */
    bool *closed;             /* set when it is closed within a callback; NULL: outside */
    struct queue_entry entry;
};

static void read_more(struct reading *reading);

/* Delivers one of an entry's events, which can stand for more of them. */
static void deliver(struct queue_follow *follow, int shard, const struct redis_value *value,
                    size_t at, const bool *closed)
{
    struct queue_entry *entry = &follow->entry;
    if (!queue_entry_parse(entry, shard, value, at)) {
        follow->damaged++;
        int64_t now = clock_ms();
        if (follow->damaged_told_ms == 0 || now - follow->damaged_told_ms >= DAMAGED_LOG_MS) {
            log_warn("skipped a damaged entry of %s, the %lldth so far; `orchestrator doctor` "
                     "checks the queue",
                     follow->keys[shard], (long long)follow->damaged);
            follow->damaged_told_ms = now;
        }
        return;
    }
    struct queue_event event = entry->event, other = entry->event;
    other.sub = "";
    other.meta = other.timing = (struct bytes){"", 0};
    other.avoid = other.reason = other.error_class = "";
    if (entry->submitted_first) {
        other.kind = QUEUE_EVENT_SUBMITTED;
        follow->fn(follow->ctx, &other);
    }
    if (!*closed)
        follow->fn(follow->ctx, &event);
    if (!*closed && entry->task_after) {
        other.kind = QUEUE_EVENT_TASK;
        follow->fn(follow->ctx, &other);
    }
}

static int shard_of(const struct queue_follow *follow, const char *key)
{
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        if (strcmp(follow->keys[shard], key) == 0)
            return shard;
    return -1;
}

/* value: [key, [entry, ...]] */
static void deliver_shard(struct queue_follow *follow, const struct redis_value *value,
                          const bool *closed)
{
    int shard = shard_of(follow, redis_str(redis_at(value, 0), NULL));
    const struct redis_value *entries = redis_at(value, 1);
    for (size_t i = 0; shard >= 0 && i < redis_len(entries) && !*closed; i++) {
        const struct redis_value *entry = redis_at(entries, i);
        const char *id = redis_str(redis_at(entry, 0), NULL);
        snprintf(follow->seen[shard], sizeof follow->seen[shard], "%.40s", id);
        for (size_t at = 0; at < queue_entry_events(entry) && !*closed; at++)
            deliver(follow, shard, entry, at, closed);
    }
}

static void entries_answered(void *ctx, const struct redis_value *value)
{
    struct reading *reading = ctx;
    struct queue_follow *follow = reading->follow;
    reading->sent = false;
    if (redis_type(value) == REDIS_ERR) {
        const char *text = redis_str(value, NULL);
        if (strncmp(text, "CLOSED", 6) == 0)
            return;
        log_warn("cannot read the outboxes: %s", text);
        loop_timer_start(follow->again, 1000, 0);
        return;
    }
    bool closed = false;
    follow->closed = &closed;
    for (size_t i = 0; i < redis_len(value) && !closed; i++)
        deliver_shard(follow, redis_at(value, i), &closed);
    if (closed)
        return;
    follow->closed = NULL;
    read_more(reading);
}

static void read_more(struct reading *reading)
{
    struct queue_follow *follow = reading->follow;
    queue_args_clear(&follow->args);
    static const char *const head[] = {"XREAD", "COUNT", BATCH, "BLOCK", BLOCK_MS, "STREAMS"};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        queue_args_str(&follow->args, head[i]);
    for (int i = 0; i < reading->n; i++)
        queue_args_str(&follow->args, follow->keys[reading->first + i]);
    for (int i = 0; i < reading->n; i++)
        queue_args_str(&follow->args, follow->seen[reading->first + i]);
    reading->sent = true;
    queue_send_blocking(follow->redis, &follow->args, entries_answered, reading);
}

static void read_again(void *ctx)
{
    struct queue_follow *follow = ctx;
    for (int i = 0; i < follow->n_readings; i++)
        if (!follow->readings[i].sent)
            read_more(&follow->readings[i]);
}

struct checkpoint {
    struct queue_follow *follow;
    int shard;
};

static void checkpoint_answered(void *ctx, const struct redis_value *value)
{
    struct checkpoint checkpoint = *(struct checkpoint *)ctx;
    free(ctx);
    struct queue_follow *follow = checkpoint.follow;
    if (redis_type(value) == REDIS_ERR && strncmp(redis_str(value, NULL), "CLOSED", 6) == 0)
        return;
    size_t len;
    const char *id = redis_str(value, &len);
    bool usable =
        redis_type(value) == REDIS_STR && len > 0 && len < 42 && strspn(id, "0123456789-") == len;
    snprintf(follow->seen[checkpoint.shard], sizeof follow->seen[0], "%s", usable ? id : "0");
    if (--follow->missing == 0)
        read_again(follow);
}

int queue_follow(struct queue *queue, queue_event_fn *fn, void *ctx, struct err *err)
{
    queue_follow_close(&queue->follow);
    struct redis *redis;
    int rc = redis_open(&redis, queue->loop, &queue->options, NULL, NULL, err);
    if (rc != 0)
        return rc;
    struct queue_follow *follow = mem_must_zalloc(sizeof *follow);
    follow->redis = redis;
    follow->fn = fn;
    follow->ctx = ctx;
    follow->again = loop_timer_new(queue->loop, read_again, follow);
    follow->missing = SHARD_COUNT;
    follow->n_readings = redis_is_cluster(redis) ? SHARD_COUNT : 1;
    for (int i = 0; i < follow->n_readings; i++)
        follow->readings[i] =
            (struct reading){.follow = follow, .first = i, .n = SHARD_COUNT / follow->n_readings};
    for (int shard = 0; shard < SHARD_COUNT; shard++) {
        queue_shard_key(follow->keys[shard], shard, "ev");
        struct checkpoint *checkpoint = mem_must_zalloc(sizeof *checkpoint);
        *checkpoint = (struct checkpoint){follow, shard};
        char key[QUEUE_KEY_SIZE];
        queue_shard_key(key, shard, "ckpt");
        redis_command(redis, checkpoint_answered, checkpoint, 2, (const char *[]){"GET", key},
                      NULL);
    }
    queue->follow = follow;
    return 0;
}

void queue_follow_close(struct queue_follow **ret)
{
    struct queue_follow *follow = *ret;
    *ret = NULL;
    if (follow == NULL)
        return;
    if (follow->closed != NULL)
        *follow->closed = true;
    redis_close(&follow->redis);
    loop_timer_free(&follow->again);
    queue_args_release(&follow->args);
    free(follow);
}

void queue_checkpoint(struct queue *queue, int shard, const char *id)
{
    char key[QUEUE_KEY_SIZE];
    FAILPOINT("queue.checkpoint");
    queue_shard_key(key, shard, "ckpt");
    redis_command(queue->redis, NULL, NULL, 3, (const char *[]){"SET", key, id}, NULL);
    queue_shard_key(key, shard, "ev");
    redis_command(queue->redis, NULL, NULL, 5, (const char *[]){"XTRIM", key, "MINID", "~", id},
                  NULL);
}
