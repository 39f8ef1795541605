/* Which shards are held. Reading their indexes: refilling from the ready index, expired leases, due
 * retries; and the checkpoints of the outboxes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "orchestrator/flow_state.h"

#define CHUNK_MIN 64
#define CHUNK 256             /* entries of one scan */
#define REFILLS 8             /* scans for refilling under way at once */
#define ACTIVE_MS 60000       /* a shard without a sign of life for so long is quiet */
#define FAILED_MS 120000      /* after a failure, retries become due within this */
#define FRONT 8               /* oldest entries that are looked at of a long ready index */
#define WHOLE_MS_PER_ENTRY 64 /* which is read as a whole less often */
#define WHOLE_MS_MAX 60000

void flow_shards_init(struct flow *flow)
{
    for (int i = 0; i < SHARD_COUNT; i++) {
        TAILQ_INIT(&flow->shards[i].entries);
        TAILQ_INIT(&flow->shards[i].expansions);
        flow->shards[i].rewind = true;
        flow->shards[i].failed_ms = -FAILED_MS;
    }
}

void flow_shard_more(struct flow *flow, struct shard *shard, bool more)
{
    flow->n_more += (size_t)more - (size_t)shard->more;
    shard->more = more;
}

/* --- coming and going ------------------------------------------------------------------------ */

/* Scans that are under way stay counted until they are answered. */
static void forget(struct flow *flow, int index, bool withdraw)
{
    struct shard *shard = &flow->shards[index];
    flow_entries_drop_shard(flow, index, withdraw);
    flow_hedges_drop_shard(flow, index, withdraw);
    flow_shard_more(flow, shard, false);
    for (int which = 0; which <= QUEUE_INDEX_DELAY; which++)
        shard->stale[which] = shard->scanning[which];
}

static void become_foreign(struct flow *flow, struct shard *shard)
{
    flow_expand_drop_shard(flow, shard);
    shard->state = SHARD_FOREIGN;
    shard->last = shard->before = shard->candidate = shard->saved = (struct stream_id){0};
}

void flow_shards_gained(struct flow *flow, const struct flow_event *event)
{
    struct shard *shard = &flow->shards[event->shard];
    if (shard->state != SHARD_FOREIGN)
        return;
    shard->state = SHARD_HELD;
    shard->rewind = true;
    shard->active_ms = 0;
    shard->failed_ms = -FAILED_MS;
    shard->next_whole_ms = 0;
    for (int which = 0; which <= QUEUE_INDEX_DELAY; which++)
        shard->next_ms[which] = 0;
    flow_shard_more(flow, shard, flow_any_broker(flow));
}

void flow_shards_leave(struct flow *flow, const struct flow_event *event)
{
    struct shard *shard = &flow->shards[event->shard];
    if (shard->state != SHARD_HELD)
        return;
    forget(flow, event->shard, true);
    shard->state = SHARD_LEAVING;
    flow->leaving = true;
}

/* Whoever holds it now has offered its subtasks anew, in the place of our offers. */
void flow_shards_dropped(struct flow *flow, const struct flow_event *event)
{
    struct shard *shard = &flow->shards[event->shard];
    if (shard->state == SHARD_FOREIGN)
        return;
    forget(flow, event->shard, false);
    become_foreign(flow, shard);
}

/* --- scans ----------------------------------------------------------------------------------- */

static void scan(struct flow *flow, int index, enum queue_index which, int64_t offset,
                 int64_t limit)
{
    struct shard *shard = &flow->shards[index];
    struct flow_action *action = flow_act(flow, FLOW_SCAN);
    shard->scanning[which] = true;
    action->shard = index;
    action->index = which;
    action->offset = offset;
    action->limit = limit;
}

static int64_t usual_ms(const struct flow *flow, const struct shard *shard)
{
    bool active = flow->now_ms - shard->active_ms < ACTIVE_MS;
    return active ? flow->options.scan_ms : flow->options.idle_scan_ms;
}

static void begin_whole(struct flow *flow, struct shard *shard)
{
    int64_t pause_ms = (int64_t)shard->n_known * WHOLE_MS_PER_ENTRY;
    shard->scan++;
    shard->rewind = false;
    shard->next_whole_ms = flow->now_ms + (pause_ms < WHOLE_MS_MAX ? pause_ms : WHOLE_MS_MAX);
    flow_shard_more(flow, shard, false); /* what comes from now on sets it again */
}

static void scan_ready(struct flow *flow, int index, enum scan_kind kind)
{
    struct shard *shard = &flow->shards[index];
    int64_t known = (int64_t)shard->n_known, room = (int64_t)flow_room(flow);
    shard->scan_kind = kind;
    shard->scan_sent_ms = flow->now_ms;
    shard->asked = kind == SCAN_FRONT ? 0
                   : room < CHUNK_MIN ? CHUNK_MIN
                   : room > CHUNK     ? CHUNK
                                      : room;
    shard->scan_limit = kind == SCAN_FRONT   ? FRONT
                        : kind == SCAN_WHOLE ? shard->asked + known * 3 / 2
                                             : shard->asked;
    if (kind == SCAN_WHOLE)
        begin_whole(flow, shard);
    if (kind != SCAN_MORE)
        shard->next_ms[QUEUE_INDEX_READY] = flow->now_ms + usual_ms(flow, shard);
    flow->asked += shard->asked;
    scan(flow, index, QUEUE_INDEX_READY, kind == SCAN_MORE ? known : 0, shard->scan_limit);
}

/* Reads on where there is more, while there is room for what is under way. */
void flow_shards_refill(struct flow *flow)
{
    if (flow->n_more == 0 || flow->n_waiting > 0 || flow->asked >= (int64_t)CHUNK * REFILLS)
        return;
    size_t room = flow_room(flow), limit = 0;
    for (int i = 0; i < flow->options.brokers; i++)
        limit += flow->brokers[i].up ? flow->brokers[i].limit : 0;
    /* Not for each place that becomes free, but for a chunk of them. */
    size_t least = limit < 8 ? 1 : limit / 4 < CHUNK ? limit / 4 : CHUNK;
    for (int i = 0; i < SHARD_COUNT && room >= least + (size_t)flow->asked; i++) {
        int index = flow->next_shard;
        struct shard *shard = &flow->shards[index];
        flow->next_shard = (index + 1) % SHARD_COUNT;
        if (shard->more && !shard->scanning[QUEUE_INDEX_READY])
            scan_ready(flow, index, shard->rewind || shard->n_known == 0 ? SCAN_WHOLE : SCAN_MORE);
        if (flow->asked >= (int64_t)CHUNK * REFILLS)
            return;
    }
}

/* What was offered before the scan and is no longer in the index needs no offer any more. */
static void drop_stale(struct flow *flow, struct shard *shard)
{
    struct entry *entry, *next;
    TAILQ_FOREACH_SAFE (entry, &shard->entries, by_shard, next)
        if (entry->scan != shard->scan && entry->created_ms < shard->scan_sent_ms)
            flow_entry_remove(flow, entry, true);
}

/* Whether the index may hold more than the scan gave. What left the index while it was read is
 * missing, so a scan that gives nearly what was asked for counts. */
static bool is_full(const struct flow_event *event, int64_t limit)
{
    return (int64_t)event->n_items >= limit * 3 / 4;
}

static void ready_items(struct flow *flow, struct shard *shard, const struct flow_event *event)
{
    bool placed = true, full = is_full(event, shard->scan_limit);
    flow->asked -= shard->asked;
    if (event->failed) {
        shard->rewind = true;
        flow_shard_more(flow, shard, true);
        return;
    }
    for (size_t i = 0; i < event->n_items && placed; i++)
        placed = flow_entry_ready(flow, event->shard, &event->items[i]);
    if (!placed)
        flow_shard_more(flow, shard, true);
    if (shard->scan_kind == SCAN_FRONT)
        return;
    if (full || shard->scan_kind == SCAN_MORE)
        flow_shard_more(flow, shard, true);
    shard->rewind = shard->scan_kind == SCAN_MORE && !full && placed;
    if (shard->scan_kind == SCAN_WHOLE && !full && placed)
        drop_stale(flow, shard);
}

static void act_on_items(struct flow *flow, struct shard *shard, enum flow_action_kind kind,
                         const struct flow_event *event)
{
    for (size_t i = 0; i < event->n_items && !event->failed; i++) {
        struct flow_action *action = flow_act(flow, kind);
        action->shard = event->shard;
        action->task = event->items[i].task;
        action->sub = event->items[i].sub;
    }
    if (is_full(event, CHUNK))
        shard->next_ms[event->index] = flow->now_ms;
}

void flow_shards_items(struct flow *flow, const struct flow_event *event)
{
    struct shard *shard = &flow->shards[event->shard];
    bool stale = shard->stale[event->index] || shard->state != SHARD_HELD;
    shard->scanning[event->index] = shard->stale[event->index] = false;
    if (stale) {
        flow->asked -= event->index == QUEUE_INDEX_READY ? shard->asked : 0;
        return;
    }
    if (event->n_items > 0)
        shard->active_ms = flow->now_ms;
    if (event->index == QUEUE_INDEX_READY)
        ready_items(flow, shard, event);
    else
        act_on_items(flow, shard, event->index == QUEUE_INDEX_LEASE ? FLOW_EXPIRE : FLOW_PROMOTE,
                     event);
}

/* --- time ------------------------------------------------------------------------------------ */

static void scan_if_due(struct flow *flow, int index, enum queue_index which, int64_t every_ms)
{
    struct shard *shard = &flow->shards[index];
    if (shard->scanning[which] || flow->now_ms < shard->next_ms[which])
        return;
    shard->next_ms[which] = flow->now_ms + every_ms;
    scan(flow, index, which, 0, CHUNK);
}

static void tick_ready(struct flow *flow, int index)
{
    struct shard *shard = &flow->shards[index];
    if (shard->scanning[QUEUE_INDEX_READY] || !flow_any_broker(flow) ||
        flow->now_ms < shard->next_ms[QUEUE_INDEX_READY])
        return;
    bool whole = shard->n_known <= CHUNK_MIN || flow->now_ms >= shard->next_whole_ms;
    scan_ready(flow, index, whole ? SCAN_WHOLE : SCAN_FRONT);
}

static void tick_shard(struct flow *flow, int index)
{
    struct shard *shard = &flow->shards[index];
    if (shard->state != SHARD_HELD)
        return;
    bool failed = flow->now_ms - shard->failed_ms < FAILED_MS;
    int64_t every_ms = usual_ms(flow, shard);
    scan_if_due(flow, index, QUEUE_INDEX_LEASE, every_ms);
    scan_if_due(flow, index, QUEUE_INDEX_DELAY, failed ? flow->options.delay_scan_ms : every_ms);
    tick_ready(flow, index);
    flow_expand_tick(flow, shard);
}

/* --- checkpoints ----------------------------------------------------------------------------- */

struct stream_id flow_stream_id(const char *text)
{
    struct stream_id id = {0};
    char *end;
    id.ms = strtoull(text, &end, 10);
    if (*end == '-')
        id.seq = strtoull(end + 1, NULL, 10);
    return id;
}

int flow_stream_cmp(struct stream_id a, struct stream_id b)
{
    if (a.ms != b.ms)
        return a.ms < b.ms ? -1 : 1;
    return a.seq < b.seq ? -1 : a.seq > b.seq;
}

/* Up to here everything has been applied. */
static struct stream_id applied(const struct shard *shard)
{
    struct stream_id id = shard->last;
    const struct expansion *expansion;
    TAILQ_FOREACH (expansion, &shard->expansions, link)
        if (flow_stream_cmp(expansion->before, id) < 0)
            id = expansion->before;
    return id;
}

static bool begin_checkpoint(struct flow *flow)
{
    bool any = flow->leaving;
    flow->leaving = false;
    for (int i = 0; i < SHARD_COUNT; i++) {
        struct shard *shard = &flow->shards[i];
        shard->candidate = applied(shard);
        any = any || flow_stream_cmp(shard->candidate, shard->saved) > 0;
        if (shard->state == SHARD_LEAVING)
            shard->state = SHARD_FLUSHING;
    }
    return any;
}

static void end_checkpoint_of(struct flow *flow, int index)
{
    struct shard *shard = &flow->shards[index];
    if (flow_stream_cmp(shard->candidate, shard->saved) > 0) {
        struct flow_action *action = flow_act(flow, FLOW_CHECKPOINT);
        action->shard = index;
        snprintf(action->id, sizeof action->id, "%" PRIu64 "-%" PRIu64, shard->candidate.ms,
                 shard->candidate.seq);
        shard->saved = shard->candidate;
    }
    if (shard->state == SHARD_FLUSHING) {
        flow_act(flow, FLOW_RELEASE)->shard = index;
        become_foreign(flow, shard);
    }
}

static void end_checkpoint(struct flow *flow)
{
    for (int i = 0; i < SHARD_COUNT; i++)
        end_checkpoint_of(flow, i);
}

void flow_shards_durable(struct flow *flow)
{
    if (flow->barrier)
        end_checkpoint(flow);
    flow->barrier = false;
}

void flow_shards_stop(struct flow *flow)
{
    flow->barrier = false;
    begin_checkpoint(flow);
    end_checkpoint(flow);
}

void flow_shards_tick(struct flow *flow)
{
    for (int i = 0; i < SHARD_COUNT; i++)
        tick_shard(flow, i);
    if (flow->barrier || (flow->now_ms < flow->next_checkpoint_ms && !flow->leaving))
        return;
    flow->next_checkpoint_ms = flow->now_ms + flow->options.checkpoint_ms;
    if (!begin_checkpoint(flow))
        return;
    flow->barrier = true;
    flow_act(flow, FLOW_BARRIER);
}
