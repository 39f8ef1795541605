#include "workers/replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "common/log.h"
#include "schemas/mem.h"

#define REPEAT_MS 500
#define REPEAT_ERRORS 10

struct item {
    struct replay *replay; /* borrowed */
    enum spool_kind kind;
    char *task, *sub, *token, *arm;
    struct buf outcome, timing;
    struct queue_spend cost; /* of an answer, as its timing says */
    bool cost_known;
    bool lost; /* the answer came too late: only its cost is to be settled */
    int errors;
    bool waiting; /* for the next try */
    LIST_ENTRY(item) link;
};

struct replay {
    struct queue *queue; /* borrowed */
    struct spool *spool; /* borrowed */
    replay_done_fn *done;
    void *ctx;
    struct loop_timer *timer;
    LIST_HEAD(, item) items;
    size_t left, committed, failed, late;
};

static void item_free(struct item *item)
{
    LIST_REMOVE(item, link);
    free(item->task);
    free(item->sub);
    free(item->token);
    free(item->arm);
    buf_release(&item->outcome);
    buf_release(&item->timing);
    free(item);
}

static void item_done(struct item *item)
{
    struct replay *replay = item->replay;
    item_free(item);
    if (--replay->left > 0)
        return;
    log_info("spool replayed: %zu answers committed, %zu attempts given back, %zu were settled "
             "already",
             replay->committed, replay->failed, replay->late);
    loop_timer_stop(replay->timer);
    replay->done(replay->ctx);
}

static void settle(struct item *item);

static void answered(void *ctx, enum queue_status status, const char *err)
{
    struct item *item = ctx;
    struct replay *replay = item->replay;
    if (status == QUEUE_REFUSED || (status == QUEUE_ERROR && ++item->errors < REPEAT_ERRORS)) {
        item->waiting = true;
        if (!loop_timer_active(replay->timer))
            loop_timer_start(replay->timer, REPEAT_MS, 0);
        return;
    }
    if (status == QUEUE_ERROR) {
        log_error("%s/%s stays in the spool: Redis: %s", item->task, item->sub, err);
        item_done(item);
        return;
    }
    if (item->kind == SPOOL_RESPONSE && !item->lost &&
        (status == QUEUE_STALE || status == QUEUE_CANCELLED)) {
        item->lost = true;
        settle(item);
        return;
    }
    if (item->lost)
        replay->late++;
    else if (status == QUEUE_OK || status == QUEUE_DUP)
        replay->committed++;
    else if (status == QUEUE_RETRY || status == QUEUE_DEAD)
        replay->failed++;
    else
        replay->late++;
    spool_end(replay->spool, item->token);
    item_done(item);
}

/* What the timing of an answer says that it has cost. What the provider did not count stays
 * unknown: the queue then keeps what was reserved. */
static void take_cost(struct item *item)
{
    struct message message;
    if (message_decode_as(&message, MESSAGE_timing, item->timing.data, item->timing.len) != 0)
        return;
    const struct msg_timing *timing = &message.timing;
    int64_t prompt = timing->prompt_tokens, output = timing->output_tokens;
    bool embeds = strcmp(timing->kind, "embed") == 0;
    item->cost_known = timing->cached || (prompt >= 0 && (output >= 0 || embeds));
    item->cost = (struct queue_spend){
        .nano_usd = llround(timing->cost_usd * 1e9),
        .tokens = (prompt > 0 ? prompt : 0) + (output > 0 ? output : 0),
    };
    message_release(&message);
}

/* What the worker died of uses up one of its attempts; the others that ran beside it are only lost
 * with it. */
static void give_back(struct item *item, struct bytes timing)
{
    struct blame_for culprit = blame_last(spool_blame(item->replay->spool));
    bool guilty = strcmp(culprit.token, item->token) == 0;
    if (guilty)
        log_warn("%s/%s was being worked on when this worker died", item->task, item->sub);
    queue_fail(item->replay->queue, item->task, item->sub, item->token, CLASS_WORKER_LOST,
               guilty ? ERROR_RETRY : error_class_action(CLASS_WORKER_LOST),
               guilty ? "the worker died while it worked on this" : "the worker died in the middle",
               item->arm, 0, timing, NULL, answered, item);
}

static void settle(struct item *item)
{
    struct queue *queue = item->replay->queue;
    struct bytes outcome = {item->outcome.data, item->outcome.len};
    struct bytes timing = {item->timing.data != NULL ? item->timing.data : "", item->timing.len};
    const struct queue_spend *spent = item->cost_known ? &item->cost : NULL;
    item->waiting = false;
    if (item->lost)
        queue_lose(queue, item->task, item->sub, item->token, timing, spent, answered, item);
    else if (item->kind == SPOOL_RESPONSE)
        queue_commit(queue, item->task, item->sub, item->token, outcome, timing, spent, answered,
                     item);
    else
        give_back(item, timing);
}

static void try_again(void *ctx)
{
    struct replay *replay = ctx;
    struct item *item, *next;
    for (item = LIST_FIRST(&replay->items); item != NULL; item = next) {
        next = LIST_NEXT(item, link);
        if (item->waiting)
            settle(item);
    }
}

static void take(void *ctx, const struct spool_record *record)
{
    struct replay *replay = ctx;
    struct item *item = mem_must_zalloc(sizeof *item);
    *item = (struct item){.replay = replay,
                          .kind = record->kind,
                          .task = mem_must_strdup(record->task),
                          .sub = mem_must_strdup(record->sub),
                          .token = mem_must_strdup(record->token),
                          .arm = mem_must_strdup(record->arm)};
    buf_add(&item->outcome, record->outcome.data, record->outcome.len);
    buf_add(&item->timing, record->timing.data, record->timing.len);
    if (record->kind == SPOOL_RESPONSE)
        take_cost(item);
    LIST_INSERT_HEAD(&replay->items, item, link);
    replay->left++;
}

/* An attempt that killed the worker in the very turn of its claim is not in the spool. */
static void take_culprit(struct replay *replay)
{
    struct blame_for culprit = blame_last(spool_blame(replay->spool));
    const struct item *item;
    LIST_FOREACH (item, &replay->items, link)
        if (strcmp(item->token, culprit.token) == 0)
            return;
    if (culprit.token[0] != '\0')
        take(replay, &(struct spool_record){.kind = SPOOL_CLAIM,
                                            .task = culprit.task,
                                            .sub = culprit.sub,
                                            .token = culprit.token,
                                            .arm = ""});
}

struct replay *replay_new(uv_loop_t *loop, struct queue *queue, struct spool *spool,
                          replay_done_fn *done, void *ctx)
{
    struct replay *replay = mem_must_zalloc(sizeof *replay);
    *replay = (struct replay){.queue = queue, .spool = spool, .done = done, .ctx = ctx};
    replay->timer = loop_timer_new(loop, try_again, replay);
    LIST_INIT(&replay->items);
    spool_replay(spool, take, replay);
    take_culprit(replay);
    struct item *item, *next;
    for (item = LIST_FIRST(&replay->items); item != NULL; item = next) {
        next = LIST_NEXT(item, link);
        settle(item);
    }
    if (replay->left == 0)
        done(ctx);
    return replay;
}

void replay_free(struct replay **replay_ptr)
{
    struct replay *replay = *replay_ptr;
    *replay_ptr = NULL;
    if (replay == NULL)
        return;
    struct item *item;
    while ((item = LIST_FIRST(&replay->items)) != NULL)
        item_free(item);
    loop_timer_free(&replay->timer);
    free(replay);
}
