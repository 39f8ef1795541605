/* The ready subtasks that are with brokers, and the brokers' windows. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/flow_state.h"
#include "schemas/mem.h"

#define REPEAT_MAX_MS 60000 /* between repetitions of one offer */
#define UNPARK_BATCH 100    /* parked subtasks offered again each second */
#define NOTE_MS 10000       /* between two sentences about why one subtask waits */
#define BACKOFF_MS 10       /* least time after a decline; doubles */
#define BACKOFF_MAX_MS 1000

void flow_offers_init(struct flow *flow)
{
    TAILQ_INIT(&flow->graveyard);
    for (int i = 0; i < ENTRY_STATE_COUNT; i++)
        TAILQ_INIT(&flow->lists[i]);
    for (int i = 0; i < flow->options.brokers; i++)
        TAILQ_INIT(&flow->brokers[i].offered);
}

static void entry_free(struct entry *entry)
{
    flow_blocks_free(&entry->blocks);
    free(entry);
}

void flow_offers_bury(struct flow *flow)
{
    struct entry *entry, *next;
    TAILQ_FOREACH_SAFE (entry, &flow->graveyard, by_state, next)
        entry_free(entry);
    TAILQ_INIT(&flow->graveyard);
}

void flow_offers_release(struct flow *flow)
{
    struct entry *entry, *next;
    flow_offers_bury(flow);
    HASH_ITER (hh, flow->entries, entry, next) {
        HASH_DEL(flow->entries, entry);
        entry_free(entry);
    }
}

/* --- states ---------------------------------------------------------------------------------- */

static struct entry_list *list_of(struct flow *flow, const struct entry *entry)
{
    return entry->state == ENTRY_OFFERED ? &flow->brokers[entry->broker].offered
                                         : &flow->lists[entry->state];
}

/* Takes the entry out of its state's list and counts; it must enter another one. */
static void leave_state(struct flow *flow, struct entry *entry)
{
    struct flow_broker *broker = &flow->brokers[entry->broker];
    TAILQ_REMOVE(list_of(flow, entry), entry, by_state);
    if (entry->state == ENTRY_OFFERED) {
        broker->n_offered--;
        broker->n_unserved -= entry->unserved;
    }
    flow->n_parked -= entry->state == ENTRY_PARKED || entry->state == ENTRY_UNROUTABLE;
    flow->n_waiting -= entry->state == ENTRY_WAITING;
    flow->shards[entry->shard].n_known -= entry->state != ENTRY_TAKEN;
}

static void enter_state(struct flow *flow, struct entry *entry, enum entry_state state)
{
    entry->state = state;
    entry->since_ms = flow->now_ms;
    struct entry_list *list = list_of(flow, entry);
    const struct entry *first = TAILQ_FIRST(list);
    if (state == ENTRY_WAITING && first != NULL && first->priority < entry->priority)
        TAILQ_INSERT_HEAD(list, entry, by_state);
    else
        TAILQ_INSERT_TAIL(list, entry, by_state);
    flow->brokers[entry->broker].n_offered += state == ENTRY_OFFERED;
    flow->n_parked += state == ENTRY_PARKED || state == ENTRY_UNROUTABLE;
    flow->n_waiting += state == ENTRY_WAITING;
    flow->shards[entry->shard].n_known += state != ENTRY_TAKEN;
}

static void move(struct flow *flow, struct entry *entry, enum entry_state state)
{
    leave_state(flow, entry);
    enter_state(flow, entry, state);
}

struct flow_action *flow_entry_act(struct flow *flow, enum flow_action_kind kind,
                                   const struct entry *entry)
{
    const char *avoid = flow_blocks_avoid(flow, entry->blocks, entry->avoid);
    struct flow_action *action = flow_act(flow, kind);
    action->broker = entry->broker;
    action->shard = entry->shard;
    action->task = entry->task;
    action->sub = entry->sub;
    action->priority = entry->priority;
    action->attempt = entry->attempt;
    action->meta = entry->meta;
    action->avoid = kind == FLOW_BURY ? entry->avoid : avoid;
    action->error_class = entry->error_class;
    return action;
}

/* --- entries --------------------------------------------------------------------------------- */

bool flow_key_make(struct entry_key *key, const char *task, const char *sub)
{
    size_t task_len = strnlen(task, FLOW_ID_MAX + 1);
    size_t sub_len = strnlen(sub, FLOW_ID_MAX + 1);
    if (task_len > FLOW_ID_MAX || sub_len > FLOW_ID_MAX)
        return false;
    memcpy(key->bytes, task, task_len + 1);
    memcpy(key->bytes + task_len + 1, sub, sub_len);
    key->len = task_len + 1 + sub_len;
    return true;
}

static struct entry *find(struct flow *flow, const struct entry_key *key)
{
    struct entry *entry;
    HASH_FIND(hh, flow->entries, key->bytes, key->len, entry);
    return entry;
}

struct entry *flow_entry_find(struct flow *flow, const char *task, const char *sub)
{
    struct entry_key key;
    return flow_key_make(&key, task, sub) ? find(flow, &key) : NULL;
}

/* One block: key, NUL, avoid, NUL, error class, NUL, meta. Not yet in a state's list. */
static struct entry *entry_new(struct flow *flow, const struct entry_key *key, int shard,
                               const struct queue_item *item)
{
    const char *avoid = item->avoid != NULL ? item->avoid : "";
    const char *error_class = item->error_class != NULL ? item->error_class : "";
    size_t avoid_len = strlen(avoid), class_len = strlen(error_class);
    struct entry *entry = mem_must_zalloc(sizeof *entry + key->len + 1 + avoid_len + 1 + class_len +
                                          1 + item->meta.len);
    char *avoid_at = entry->data + key->len + 1, *class_at = avoid_at + avoid_len + 1;
    char *meta_at = class_at + class_len + 1;
    memcpy(entry->data, key->bytes, key->len);
    memcpy(avoid_at, avoid, avoid_len);
    memcpy(class_at, error_class, class_len);
    if (item->meta.len > 0)
        memcpy(meta_at, item->meta.data, item->meta.len);
    entry->task = entry->data;
    entry->sub = entry->data + strlen(entry->data) + 1;
    entry->avoid = avoid_at;
    entry->error_class = class_at;
    entry->blocks = flow_blocks_parse(avoid, flow->now_ms);
    entry->meta = (struct bytes){meta_at, item->meta.len};
    entry->shard = shard;
    entry->attempt = item->attempt;
    entry->priority = item->priority;
    entry->created_ms = flow->now_ms;
    HASH_ADD_KEYPTR(hh, flow->entries, entry->data, key->len, entry);
    TAILQ_INSERT_TAIL(&flow->shards[shard].entries, entry, by_shard);
    return entry;
}

void flow_entry_remove(struct flow *flow, struct entry *entry, bool withdraw)
{
    if (withdraw && entry->state == ENTRY_OFFERED)
        flow_entry_act(flow, FLOW_WITHDRAW, entry);
    leave_state(flow, entry);
    TAILQ_REMOVE(&flow->shards[entry->shard].entries, entry, by_shard);
    HASH_DEL(flow->entries, entry);
    TAILQ_INSERT_TAIL(&flow->graveyard, entry, by_state);
}

/* --- offering -------------------------------------------------------------------------------- */

static size_t room_of(const struct flow_broker *broker)
{
    size_t used = broker->n_offered + broker->n_hedges;
    return broker->up && !broker->full && used < broker->limit ? broker->limit - used : 0;
}

size_t flow_room(const struct flow *flow)
{
    size_t room = 0;
    for (int i = 0; i < flow->options.brokers; i++)
        room += room_of(&flow->brokers[i]);
    return room;
}

bool flow_any_broker(const struct flow *flow)
{
    for (int i = 0; i < flow->options.brokers; i++)
        if (flow->brokers[i].up)
            return true;
    return false;
}

int flow_choose_broker(const struct flow *flow, unsigned hash)
{
    int count = flow->options.brokers;
    for (int i = 0; i < count; i++) {
        int broker = (int)((hash + (unsigned)i) % (unsigned)count);
        if (room_of(&flow->brokers[broker]) > 0)
            return broker;
    }
    return -1;
}

static void offer(struct flow *flow, struct entry *entry, int broker)
{
    entry->broker = broker;
    entry->repeat_ms = flow->options.reoffer_ms;
    entry->unserved = false;
    enter_state(flow, entry, ENTRY_OFFERED);
    flow_entry_act(flow, FLOW_OFFER, entry);
}

/* Offers an entry of another state again, if there is room. */
static bool offer_again(struct flow *flow, struct entry *entry)
{
    int broker = flow_choose_broker(flow, entry->hh.hashv);
    if (broker < 0)
        return false;
    leave_state(flow, entry);
    offer(flow, entry, broker);
    return true;
}

static void offer_waiting(struct flow *flow)
{
    struct entry *entry, *next;
    TAILQ_FOREACH_SAFE (entry, &flow->lists[ENTRY_WAITING], by_state, next) {
        if (!offer_again(flow, entry))
            return;
    }
}

static void repeat_if_due(struct flow *flow, struct entry *entry)
{
    if (entry->state != ENTRY_OFFERED || flow->now_ms - entry->since_ms < entry->repeat_ms)
        return;
    entry->since_ms = flow->now_ms;
    entry->repeat_ms = entry->repeat_ms < REPEAT_MAX_MS / 2 ? entry->repeat_ms * 2 : REPEAT_MAX_MS;
    flow_entry_act(flow, FLOW_OFFER, entry);
}

bool flow_entry_ready(struct flow *flow, int shard, const struct queue_item *item)
{
    struct entry_key key;
    if (!flow_key_make(&key, item->task, item->sub))
        return true; /* no message can carry it */
    struct entry *entry = find(flow, &key);
    if (entry != NULL && item->attempt <= entry->attempt) {
        entry->scan = flow->shards[shard].scan;
        repeat_if_due(flow, entry);
        return true;
    }
    if (entry != NULL)
        flow_entry_remove(flow, entry, true);        /* of an earlier round */
    flow_hedges_forget(flow, item->task, item->sub); /* nobody runs it */
    bool room = flow_room(flow) > 0;
    if (!room && (!flow_any_broker(flow) || flow->n_waiting >= flow->options.reserve_max))
        return false;
    entry = entry_new(flow, &key, shard, item);
    entry->scan = flow->shards[shard].scan;
    if (room)
        offer(flow, entry, flow_choose_broker(flow, entry->hh.hashv));
    else
        enter_state(flow, entry, ENTRY_WAITING);
    return true;
}

/* --- what becomes of them -------------------------------------------------------------------- */

void flow_entry_finished(struct flow *flow, const char *task, const char *sub, int64_t attempt)
{
    struct entry *entry = flow_entry_find(flow, task, sub);
    if (entry != NULL && entry->attempt < attempt)
        flow_entry_remove(flow, entry, true);
}

void flow_entries_drop_task(struct flow *flow, int shard, const char *task)
{
    struct entry *entry, *next;
    TAILQ_FOREACH_SAFE (entry, &flow->shards[shard].entries, by_shard, next)
        if (strcmp(entry->task, task) == 0)
            flow_entry_remove(flow, entry, true);
}

void flow_entries_drop_shard(struct flow *flow, int shard, bool withdraw)
{
    struct entry *entry, *next;
    TAILQ_FOREACH_SAFE (entry, &flow->shards[shard].entries, by_shard, next)
        flow_entry_remove(flow, entry, withdraw);
}

static void unpark(struct flow *flow, size_t most)
{
    struct entry *entry, *next;
    TAILQ_FOREACH_SAFE (entry, &flow->lists[ENTRY_PARKED], by_state, next) {
        if (most-- == 0 || !offer_again(flow, entry))
            return;
    }
}

void flow_entry_taken(struct flow *flow, const struct flow_event *event)
{
    struct entry *entry = flow_entry_find(flow, event->task, event->sub);
    flow->brokers[event->broker].full = false;
    if (event->hedge)
        flow_hedges_taken(flow, event);
    if (event->hedge || entry == NULL || entry->state == ENTRY_TAKEN)
        return;
    if (entry->state == ENTRY_OFFERED && entry->broker != event->broker)
        flow_entry_act(flow, FLOW_WITHDRAW, entry);
    bool was_unserved = entry->unserved;
    move(flow, entry, ENTRY_TAKEN);
    flow_hedges_watch(flow, entry, event->arm);
    flow->shards[entry->shard].active_ms = flow->now_ms;
    if (was_unserved) { /* someone serves it after all: others that wait may follow */
        entry->unserved = false;
        unpark(flow, 2);
    }
    offer_waiting(flow);
}

/* Why a subtask waits is said once, and what may have changed meanwhile now and then. */
static bool may_note(struct flow *flow, struct entry *entry, const char *text)
{
    if (entry->noted && (*text == '\0' || flow->now_ms - entry->noted_ms < NOTE_MS))
        return false;
    entry->noted = true;
    entry->noted_ms = flow->now_ms;
    return true;
}

static void note(struct flow *flow, struct entry *entry, const char *text)
{
    if (!may_note(flow, entry, text))
        return;
    flow_entry_act(flow, FLOW_NOTE, entry)->text = text;
    struct flow_action *publish = flow_entry_act(flow, FLOW_PUBLISH, entry);
    publish->what = "unserved";
    publish->text = text;
}

static const char *duration(struct flow *flow, int64_t ms)
{
    if (ms < 120 * 1000)
        return flow_text(flow, "%lld s", (long long)((ms + 999) / 1000));
    if (ms < 120 * 60 * 1000)
        return flow_text(flow, "%lld min", (long long)((ms + 59999) / 60000));
    return flow_text(flow, "%lld h", (long long)((ms + 3599999) / 3600000));
}

static void note_decline(struct flow *flow, struct entry *entry, const struct flow_event *event,
                         int64_t after_ms)
{
    const char *text = flow_text(flow, "waits %s for %s%s%s", duration(flow, after_ms), event->arm,
                                 *event->text != '\0' ? ": " : "", event->text);
    if (after_ms >= 1000 && may_note(flow, entry, text))
        flow_entry_act(flow, FLOW_WAIT, entry)->text = text;
}

/* Nobody has claimed it: another arm may run it at once, this one after a while. */
void flow_entry_declined(struct flow *flow, const struct flow_event *event)
{
    struct entry *entry = flow_entry_find(flow, event->task, event->sub);
    if (event->hedge)
        flow_hedges_declined(flow, event);
    if (event->hedge || entry == NULL || entry->buried)
        return;
    flow_hedges_forget(flow, event->task, event->sub);
    int64_t least_ms = BACKOFF_MS << (entry->declines < 7 ? entry->declines : 7);
    least_ms = least_ms < BACKOFF_MAX_MS ? least_ms : BACKOFF_MAX_MS;
    int64_t after_ms = event->after_ms > least_ms ? event->after_ms : least_ms;
    entry->declines++;
    flow_blocks_add(&entry->blocks, event->arm, flow->now_ms + after_ms);
    note_decline(flow, entry, event, after_ms);
    if (entry->state == ENTRY_OFFERED)
        flow_entry_act(flow, FLOW_OFFER, entry); /* it is offered again already: not to that arm */
    else if (entry->state == ENTRY_TAKEN && !offer_again(flow, entry))
        move(flow, entry, ENTRY_WAITING);
}

/* Those that nobody serves may fill half of a broker's window, not more: the rest is for those that
 * somebody does. */
void flow_entry_unserved(struct flow *flow, const struct flow_event *event)
{
    struct flow_broker *broker = &flow->brokers[event->broker];
    struct entry *entry = flow_entry_find(flow, event->task, event->sub);
    if (entry == NULL || entry->state != ENTRY_OFFERED || entry->broker != event->broker)
        return;
    if (!entry->unserved)
        broker->n_unserved++;
    entry->unserved = true;
    note(flow, entry, event->text);
    if (broker->n_unserved <= broker->limit / 2)
        return;
    bool remember = flow->n_parked < flow->options.parked_max;
    if (!remember) {
        flow_shard_more(flow, &flow->shards[entry->shard], true);
        flow_entry_remove(flow, entry, true);
        return;
    }
    flow_entry_act(flow, FLOW_WITHDRAW, entry);
    move(flow, entry, ENTRY_PARKED);
}

/* The broker's queue is full of what was sent: it is offered again when there is room. */
void flow_entry_unsent(struct flow *flow, const struct flow_event *event)
{
    struct entry *entry = flow_entry_find(flow, event->task, event->sub);
    flow->brokers[event->broker].full = true;
    if ((event->hedge || entry == NULL || entry->state != ENTRY_OFFERED) &&
        flow_hedges_unsent(flow, event))
        return;
    if (!event->hedge && entry != NULL && entry->state == ENTRY_OFFERED &&
        entry->broker == event->broker)
        move(flow, entry, ENTRY_WAITING);
}

void flow_entry_unroutable(struct flow *flow, const struct flow_event *event)
{
    struct entry *entry = flow_entry_find(flow, event->task, event->sub);
    if (entry == NULL)
        return;
    note(flow, entry, event->text);
    if (flow->n_parked < flow->options.parked_max)
        move(flow, entry, ENTRY_UNROUTABLE);
    else
        flow_entry_remove(flow, entry, false);
}

/* Like one that was dispatched it is forgotten when its end shows, or else looked at again. */
void flow_entry_exhausted(struct flow *flow, const struct flow_event *event)
{
    struct entry *entry = flow_entry_find(flow, event->task, event->sub);
    if (entry == NULL)
        return;
    flow_entry_act(flow, FLOW_BURY, entry)->text = event->text;
    entry->buried = true;
    move(flow, entry, ENTRY_TAKEN);
}

/* --- brokers --------------------------------------------------------------------------------- */

/* What it dispatched last has perhaps reached nobody: the queue is asked at the next tick, rather
 * than once the grace is over. */
static void look_again(struct flow *flow, struct entry *entry)
{
    struct shard *shard = &flow->shards[entry->shard];
    shard->next_ms[QUEUE_INDEX_READY] = shard->next_whole_ms = flow->now_ms;
    flow_entry_remove(flow, entry, false);
}

void flow_broker_gone(struct flow *flow, int index)
{
    struct flow_broker *broker = &flow->brokers[index];
    struct entry *entry, *next;
    broker->up = broker->full = false;
    flow_hedges_broker_gone(flow, index);
    TAILQ_FOREACH_SAFE (entry, &flow->lists[ENTRY_TAKEN], by_state, next)
        if (entry->broker == index && !entry->buried)
            look_again(flow, entry);
    while ((entry = TAILQ_FIRST(&broker->offered)) != NULL)
        move(flow, entry, ENTRY_WAITING);
    offer_waiting(flow);
}

void flow_broker_welcome(struct flow *flow, const struct flow_event *event)
{
    struct flow_broker *broker = &flow->brokers[event->broker];
    bool was_up = broker->up;
    broker->up = true;
    broker->full = false;
    broker->limit = event->limit > 0 ? (size_t)event->limit : 1;
    offer_waiting(flow);
    for (int i = 0; i < SHARD_COUNT && !was_up; i++)
        if (flow->shards[i].state == SHARD_HELD)
            flow_shard_more(flow, &flow->shards[i], true);
}

void flow_broker_window(struct flow *flow, const struct flow_event *event)
{
    struct flow_broker *broker = &flow->brokers[event->broker];
    broker->full = *event->task != '\0';
    if (broker->full) {
        flow_entry_unsent(flow, event);
        return;
    }
    offer_waiting(flow);
}

void flow_offers_tick(struct flow *flow)
{
    struct entry *entry;
    while ((entry = TAILQ_FIRST(&flow->lists[ENTRY_TAKEN])) != NULL &&
           flow->now_ms - entry->since_ms >= flow->options.grace_ms)
        flow_entry_remove(flow, entry, false);
    if (flow->now_ms < flow->next_second_ms)
        return;
    flow->next_second_ms = flow->now_ms + 1000;
    for (int i = 0; i < flow->options.brokers; i++)
        flow->brokers[i].full = false; /* in case the message that says so was lost */
    offer_waiting(flow);
    unpark(flow, UNPARK_BATCH);
}
