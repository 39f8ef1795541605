/* Follows the outboxes of the shards that are held: one connection, one XREAD that blocks over all
 * of them. When a shard comes, the connection is opened anew: what was not answered is read again
 * from where each shard stands, and nobody waits until the XREAD ends. In a Redis Cluster a command
 * is about one slot: there each shard has an XREAD and a connection of its own. */
#include "common/queue_daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/queue_internal.h"
#include "schemas/mem.h"

#define BATCH "100"     /* entries of one shard in one answer; each can be many events */
#define BLOCK_MS "3000" /* below what the client takes for a dead server */
#define AGAIN_MS 1000   /* after an error */
#define DAMAGED_LOG_MS 1000

enum following {
    NOT_FOLLOWED,
    WANTED,   /* its checkpoint is to be asked for */
    ASKED,    /* and was */
    FOLLOWED, /* behind `seen` */
};

struct followed {
    enum following state;
    uint64_t turn;      /* counts gains */
    uint64_t read_turn; /* the one at which the XREAD under way was sent */
    int64_t term;
    char key[QUEUE_KEY_SIZE];
    char seen[48]; /* id of the last entry */
};

/* An XREAD, under way or to be sent. */
struct reading {
    struct queue_follow *follow;
    int first, n; /* shards */
    bool sent;
};

struct queue_follow {
    struct queue *queue; /* borrowed */
    struct redis *redis;
    struct queue_args args;
    queue_event_fn *fn;
    void *ctx;
    struct followed shards[SHARD_COUNT];
    struct reading readings[SHARD_COUNT];
    int n_readings;
    int asked; /* checkpoints without an answer */
    bool told; /* that it cannot read */
    int64_t damaged, damaged_told_ms;
    struct loop_timer *ask, *again;
    bool *closed; /* set when it is closed within a callback; NULL: outside */
    struct queue_entry entry;
};

static void read_more(struct reading *reading);

static void complain(struct queue_follow *follow, const char *text)
{
    if (!follow->told)
        log_warn("cannot read the outboxes: %s; trying again until it works", text);
    follow->told = true;
}

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
                     follow->shards[shard].key, (long long)follow->damaged);
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
        if (strcmp(follow->shards[shard].key, key) == 0)
            return shard;
    return -1;
}

/* value: [key, [entry, ...]] */
static void deliver_shard(struct queue_follow *follow, const struct redis_value *value,
                          const bool *closed)
{
    int shard = shard_of(follow, redis_str(redis_at(value, 0), NULL));
    const struct redis_value *entries = redis_at(value, 1);
    if (shard < 0)
        return;
    struct followed *followed = &follow->shards[shard];
    for (size_t i = 0; i < redis_len(entries); i++) {
        const struct redis_value *entry = redis_at(entries, i);
        for (size_t at = 0; at < queue_entry_events(entry); at++) {
            if (*closed || followed->state != FOLLOWED || followed->turn != followed->read_turn)
                return;
            const char *id = redis_str(redis_at(entry, 0), NULL);
            snprintf(followed->seen, sizeof followed->seen, "%.40s", id);
            deliver(follow, shard, entry, at, closed);
        }
    }
}

static void entries_answered(void *ctx, const struct redis_value *value)
{
    struct reading *reading = ctx;
    struct queue_follow *follow = reading->follow;
    if (redis_type(value) == REDIS_ERR) {
        const char *text = redis_str(value, NULL);
        if (strncmp(text, "CLOSED", 6) == 0)
            return;
        reading->sent = false;
        complain(follow, text);
        loop_timer_start(follow->again, AGAIN_MS, 0);
        return;
    }
    bool closed = false;
    reading->sent = follow->told = false;
    follow->closed = &closed;
    for (size_t i = 0; i < redis_len(value) && !closed; i++)
        deliver_shard(follow, redis_at(value, i), &closed);
    if (closed)
        return;
    follow->closed = NULL;
    read_more(reading);
}

/* One XREAD over all shards waits until it knows where each of them begins. */
static void read_more(struct reading *reading)
{
    struct queue_follow *follow = reading->follow;
    bool any = false;
    if (reading->sent || (reading->n > 1 && follow->asked > 0))
        return;
    queue_args_clear(&follow->args);
    static const char *const head[] = {"XREAD", "COUNT", BATCH, "BLOCK", BLOCK_MS, "STREAMS"};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        queue_args_str(&follow->args, head[i]);
    struct followed *end = &follow->shards[reading->first + reading->n];
    for (struct followed *at = end - reading->n; at < end; at++) {
        if (at->state != FOLLOWED)
            continue;
        queue_args_str(&follow->args, at->key);
        at->read_turn = at->turn;
        any = true;
    }
    for (struct followed *at = end - reading->n; at < end; at++)
        if (at->state == FOLLOWED)
            queue_args_str(&follow->args, at->seen);
    if (!any)
        return;
    reading->sent = true;
    queue_send_blocking(follow->redis, &follow->args, entries_answered, reading);
}

static void read_all(void *ctx)
{
    struct queue_follow *follow = ctx;
    for (int i = 0; i < follow->n_readings; i++)
        read_more(&follow->readings[i]);
}

/* --- checkpoints ----------------------------------------------------------------------------- */

struct asking {
    struct queue_follow *follow;
    int shard;
    uint64_t turn;
};

/* {OK, checkpoint}, or STALE: somebody else holds it by now, as the next queue_share() tells. */
static void take_checkpoint(struct followed *followed, const struct redis_value *value)
{
    size_t len;
    const char *id = redis_str(redis_at(value, 1), &len);
    bool usable = len > 0 && len < 42 && strspn(id, "0123456789-") == len;
    snprintf(followed->seen, sizeof followed->seen, "%s", usable ? id : "0");
    followed->state = redis_type(value) == REDIS_ARRAY ? FOLLOWED : NOT_FOLLOWED;
}

static void checkpoint_answered(void *ctx, const struct redis_value *value)
{
    struct asking asking = *(struct asking *)ctx;
    free(ctx);
    struct queue_follow *follow = asking.follow;
    const char *text = redis_str(value, NULL);
    if (redis_type(value) == REDIS_ERR && strncmp(text, "CLOSED", 6) == 0)
        return;
    struct followed *followed = &follow->shards[asking.shard];
    bool wanted = followed->state == ASKED && followed->turn == asking.turn;
    follow->asked--;
    if (wanted && redis_type(value) == REDIS_ERR) {
        followed->state = WANTED;
        complain(follow, text);
        loop_timer_start(follow->ask, AGAIN_MS, 0);
    } else if (wanted) {
        take_checkpoint(followed, value);
    }
    read_all(follow);
}

static void ask(struct queue_follow *follow, int shard)
{
    struct followed *followed = &follow->shards[shard];
    char checkpoint[QUEUE_KEY_SIZE], fence[QUEUE_KEY_SIZE], term[32];
    struct asking *asking = mem_must_zalloc(sizeof *asking);
    *asking = (struct asking){follow, shard, followed->turn};
    queue_shard_key(checkpoint, shard, "ckpt");
    queue_shard_key(fence, shard, "fence");
    snprintf(term, sizeof term, "%lld", (long long)followed->term);
    followed->state = ASKED;
    follow->asked++;
    redis_eval(follow->redis, queue_script(SCRIPT_fence), checkpoint_answered, asking, 2, 3,
               (const char *[]){checkpoint, fence, term}, NULL);
}

/* Leaves the XREAD that would keep others waiting. */
static int reopen(struct queue_follow *follow)
{
    struct err err;
    struct redis *redis;
    int rc = redis_open(&redis, follow->queue->loop, &follow->queue->options, NULL, NULL, &err);
    if (rc != 0) {
        complain(follow, err.text);
        return rc;
    }
    redis_close(&follow->redis);
    follow->redis = redis;
    follow->readings[0].sent = false;
    follow->asked = 0;
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        if (follow->shards[shard].state == ASKED)
            follow->shards[shard].state = WANTED;
    return 0;
}

static void ask_all(void *ctx)
{
    struct queue_follow *follow = ctx;
    bool waits = follow->n_readings == 1 && follow->readings[0].sent;
    if (waits && reopen(follow) != 0) {
        loop_timer_start(follow->ask, AGAIN_MS, 0);
        return;
    }
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        if (follow->shards[shard].state == WANTED)
            ask(follow, shard);
    read_all(follow);
}

/* --- which shards ---------------------------------------------------------------------------- */

int queue_follow_begin(struct queue *queue, queue_event_fn *fn, void *ctx, struct err *err)
{
    queue_follow_close(&queue->follow);
    struct redis *redis;
    int rc = redis_open(&redis, queue->loop, &queue->options, NULL, NULL, err);
    if (rc != 0)
        return rc;
    struct queue_follow *follow = mem_must_zalloc(sizeof *follow);
    follow->queue = queue;
    follow->redis = redis;
    follow->fn = fn;
    follow->ctx = ctx;
    follow->ask = loop_timer_new(queue->loop, ask_all, follow);
    follow->again = loop_timer_new(queue->loop, read_all, follow);
    follow->n_readings = redis_is_cluster(redis) ? SHARD_COUNT : 1;
    for (int i = 0; i < follow->n_readings; i++)
        follow->readings[i] =
            (struct reading){.follow = follow, .first = i, .n = SHARD_COUNT / follow->n_readings};
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        queue_shard_key(follow->shards[shard].key, shard, "ev");
    queue->follow = follow;
    return 0;
}

int queue_follow(struct queue *queue, queue_event_fn *fn, void *ctx, struct err *err)
{
    int rc = queue_follow_begin(queue, fn, ctx, err);
    for (int shard = 0; shard < SHARD_COUNT && rc == 0; shard++)
        queue_follow_gain(queue, shard, 0);
    return rc;
}

/* Those that come in one turn of the loop are asked for together. */
void queue_follow_gain(struct queue *queue, int shard, int64_t term)
{
    struct queue_follow *follow = queue->follow;
    if (follow == NULL)
        return;
    follow->shards[shard].state = WANTED;
    follow->shards[shard].turn++;
    follow->shards[shard].term = term;
    loop_timer_start(follow->ask, 0, 0);
}

void queue_follow_drop(struct queue *queue, int shard)
{
    if (queue->follow != NULL)
        queue->follow->shards[shard].state = NOT_FOLLOWED;
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
    loop_timer_free(&follow->ask);
    loop_timer_free(&follow->again);
    queue_args_release(&follow->args);
    free(follow);
}

void queue_checkpoint(struct queue *queue, int shard, const char *id)
{
    struct queue_args *args = &queue->args;
    char checkpoint[QUEUE_KEY_SIZE], fence[QUEUE_KEY_SIZE], outbox[QUEUE_KEY_SIZE];
    queue_shard_key(checkpoint, shard, "ckpt");
    queue_shard_key(fence, shard, "fence");
    queue_shard_key(outbox, shard, "ev");
    queue_args_clear(args);
    queue_args_str(args, checkpoint);
    queue_args_str(args, fence);
    queue_args_str(args, outbox);
    queue_args_printf(args, "%lld",
                      (long long)(queue->follow != NULL ? queue->follow->shards[shard].term : 0));
    queue_args_str(args, id);
    queue_eval(queue, args, SCRIPT_checkpoint, 3, NULL, NULL);
}
