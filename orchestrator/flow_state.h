/* What the parts of the flow share; nobody else includes this. */
#ifndef ORCHESTRATOR_FLOW_STATE_H
#define ORCHESTRATOR_FLOW_STATE_H

#include "common/containers.h"
#include "orchestrator/flow.h"
#include "schemas/message.h"

/* Where a ready subtask that we know of stands. */
enum entry_state {
    ENTRY_OFFERED,    /* with a broker, counted against its window */
    ENTRY_WAITING,    /* there is no room; goes to the first broker that has some */
    ENTRY_TAKEN,      /* dispatched; forgotten when the claim shows, or after grace_ms */
    ENTRY_PARKED,     /* nobody serves it; offered again now and then */
    ENTRY_UNROUTABLE, /* no arm may run it */
    ENTRY_STATE_COUNT
};

#define FLOW_ID_MAX 64 /* bytes of a task or subtask id; what messages.def allows */

struct entry_key { /* task NUL sub */
    char bytes[2 * FLOW_ID_MAX + 1];
    size_t len;
};

struct entry {
    UT_hash_handle hh; /* by key: task NUL sub */
    TAILQ_ENTRY(entry) by_shard;
    TAILQ_ENTRY(entry) by_state; /* in its broker's list when OFFERED */
    enum entry_state state;
    int broker, shard;
    bool noted, unserved, buried;
    int declines;
    struct blocks *blocks; /* NULL: none */
    int64_t attempt, priority;
    int64_t created_ms, since_ms, repeat_ms, noted_ms;
    uint64_t scan; /* the last full scan of the shard that had it */
    struct bytes meta;
    const char *task, *sub, *avoid, *error_class; /* inside of data */
    char data[];
};
TAILQ_HEAD(entry_list, entry);

/* Arms that must not run a subtask before a time, by what the queue and the workers said. */
#define BLOCKS_MAX 8
struct block {
    int64_t until_ms;
    char *arm;
};
struct blocks {
    size_t n;
    struct block items[BLOCKS_MAX];
};

enum hedge_state {
    HEDGE_LATER,   /* offered at due_ms, unless the subtask is finished before */
    HEDGE_OFFERED, /* with a broker, counted against its window */
    HEDGE_RUNS,    /* beside the attempt that was there first */
};

/* A subtask that runs and whose role wants a second attempt when the first takes long. */
struct hedge {
    UT_hash_handle hh; /* by key */
    enum hedge_state state;
    int broker, shard;
    int64_t attempt, priority, taken_ms, due_ms; /* due: for the next offer */
    struct bytes meta;
    const char *task, *sub, *avoid, *arm; /* inside of data */
    char data[];
};

struct stream_id {
    uint64_t ms, seq;
};

enum expansion_state { EXPANSION_ASKED, EXPANSION_WAITS };

struct expansion {
    TAILQ_ENTRY(expansion) link;
    enum expansion_state state;
    bool again;     /* a person had the task retried meanwhile: its end is not the last word */
    int64_t serial; /* of the READ that is under way, or of the EXPAND that followed */
    int64_t again_ms;
    struct stream_id before; /* the shard's checkpoint must not pass this */
    char *task, *sub;
};
TAILQ_HEAD(expansion_list, expansion);

enum scan_kind {
    SCAN_MORE,  /* behind those we know, which are at the front */
    SCAN_FRONT, /* the oldest: dispatches that led to no claim are there */
    SCAN_WHOLE, /* everything: finds every gap, and offers that are void */
};

enum shard_state {
    SHARD_FOREIGN, /* nothing is known of it, and nothing done */
    SHARD_HELD,
    SHARD_LEAVING,  /* nothing is done any more; waits for a barrier to begin */
    SHARD_FLUSHING, /* until that barrier is answered */
};

struct shard {
    enum shard_state state;
    struct entry_list entries;
    size_t n_known; /* entries that are not TAKEN: at the front of the ready index */
    bool more;      /* the ready index may hold entries that we don't know */
    bool rewind;    /* the next scan of the ready index starts at 0 */
    bool scanning[QUEUE_INDEX_DELAY + 1];
    bool stale[QUEUE_INDEX_DELAY + 1]; /* the scan under way is of an earlier time of holding it */
    int64_t next_ms[QUEUE_INDEX_DELAY + 1];
    int64_t active_ms;        /* last sign of life */
    int64_t failed_ms;        /* last failure: retries become due soon */
    enum scan_kind scan_kind; /* of the ready index, under way or last */
    int64_t scan_limit, scan_sent_ms, asked, next_whole_ms;
    uint64_t scan;
    struct stream_id last;      /* applied, but for the expansions */
    struct stream_id before;    /* the entry before that one; an entry can be many events */
    struct stream_id candidate; /* becomes the checkpoint when the barrier is answered */
    struct stream_id saved;
    struct expansion_list expansions;
    size_t n_expansions;
};

struct flow_broker {
    struct entry_list offered;
    size_t n_offered, n_hedges, n_unserved, limit;
    bool up, full;
};

struct flow {
    struct flow_options options;
    int64_t now_ms;
    struct entry *entries;
    struct entry_list lists[ENTRY_STATE_COUNT]; /* OFFERED: see the brokers */
    size_t n_parked, n_waiting;
    struct entry_list graveyard; /* freed at the next step: actions may point to them */
    struct expansion_list done;  /* likewise */
    char **texts;                /* likewise */
    size_t n_texts, cap_texts;
    struct hedge *hedges, *dead_hedges; /* the latter: freed at the next step */
    struct shard shards[SHARD_COUNT];
    struct flow_broker *brokers;
    size_t n_more;  /* shards with more */
    bool leaving;   /* a shard waits for a barrier to begin */
    int next_shard; /* where the next refill begins */
    int64_t asked;  /* items asked for by scans under way for refilling */
    bool barrier;   /* one is under way */
    int64_t serial; /* the last one given */
    int64_t next_checkpoint_ms, next_second_ms;
    struct flow_action *actions;
    size_t n_actions, cap_actions;
};

/* flow.c */
struct flow_action *flow_act(struct flow *flow, enum flow_action_kind kind);
/* A text that lives until the next step. */
const char *flow_text(struct flow *flow, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* flow_offers.c: entries and brokers */
void flow_offers_init(struct flow *flow);
void flow_offers_release(struct flow *flow);
void flow_offers_bury(struct flow *flow);
struct entry *flow_entry_find(struct flow *flow, const char *task, const char *sub);
/* False when an id is longer than a message may carry. */
bool flow_key_make(struct entry_key *key, const char *task, const char *sub);
struct flow_action *flow_entry_act(struct flow *flow, enum flow_action_kind kind,
                                   const struct entry *entry);
/* The broker for a subtask: by its hash, so that its offers meet; the next one with room when that
 * one has none. -1: none has. */
int flow_choose_broker(const struct flow *flow, unsigned hash);
/* A subtask is ready, as an event or a scan says: offers it unless it is known. False when there
 * is no room. */
bool flow_entry_ready(struct flow *flow, int shard, const struct queue_item *item);
void flow_entry_remove(struct flow *flow, struct entry *entry, bool withdraw);
void flow_entry_finished(struct flow *flow, const char *task, const char *sub, int64_t attempt);
void flow_entries_drop_task(struct flow *flow, int shard, const char *task);
/* All of the shard; `withdraw`: brokers are told too. */
void flow_entries_drop_shard(struct flow *flow, int shard, bool withdraw);
void flow_entry_taken(struct flow *flow, const struct flow_event *event);
void flow_entry_declined(struct flow *flow, const struct flow_event *event);
void flow_entry_unserved(struct flow *flow, const struct flow_event *event);
void flow_entry_unsent(struct flow *flow, const struct flow_event *event);
void flow_entry_unroutable(struct flow *flow, const struct flow_event *event);
void flow_entry_exhausted(struct flow *flow, const struct flow_event *event);
void flow_broker_gone(struct flow *flow, int broker);
void flow_broker_welcome(struct flow *flow, const struct flow_event *event);
void flow_broker_window(struct flow *flow, const struct flow_event *event);
void flow_offers_tick(struct flow *flow);
size_t flow_room(const struct flow *flow);
bool flow_any_broker(const struct flow *flow);

/* flow_blocks.c: arms that must wait */
/* The words `arm=ms` of what a subtask avoids, from now; NULL: none. */
struct blocks *flow_blocks_parse(const char *avoid, int64_t now_ms);
void flow_blocks_add(struct blocks **blocks, const char *arm, int64_t until_ms);
void flow_blocks_free(struct blocks **blocks); /* accepts NULL */
/* What it avoids now: the plain words of `avoid`, and `arm=ms` with the ms that are left. Lives as
 * long as the entry or until the next step, whichever is shorter. */
const char *flow_blocks_avoid(struct flow *flow, const struct blocks *blocks, const char *avoid);

/* flow_hedges.c: second attempts */
/* The entry was taken by the arm. */
void flow_hedges_watch(struct flow *flow, const struct entry *entry, const char *arm);
void flow_hedges_taken(struct flow *flow, const struct flow_event *event);
void flow_hedges_declined(struct flow *flow, const struct flow_event *event);
/* The broker did not take the offer: later again. False: no hedge of that subtask is with it. */
bool flow_hedges_unsent(struct flow *flow, const struct flow_event *event);
void flow_hedges_unhedged(struct flow *flow, const struct flow_event *event);
/* It is not running any more, or is offered as ready again: without a hedge. */
void flow_hedges_forget(struct flow *flow, const char *task, const char *sub);
/* An attempt ended; the number is of one that is over. */
void flow_hedges_failed(struct flow *flow, const char *task, const char *sub, int64_t attempt);
/* One attempt won: the other one is to stop. */
void flow_hedges_finished(struct flow *flow, const char *task, const char *sub);
/* No subtask of the task is hedged any more; `running`: nor are those that run already. */
void flow_hedges_drop_task(struct flow *flow, const char *task, bool running);
void flow_hedges_drop_shard(struct flow *flow, int shard, bool withdraw);
void flow_hedges_broker_gone(struct flow *flow, int broker);
void flow_hedges_tick(struct flow *flow);
void flow_hedges_bury(struct flow *flow);
void flow_hedges_release(struct flow *flow);

/* flow_shards.c: whose they are, scans, checkpoints */
void flow_shards_init(struct flow *flow);
void flow_shards_gained(struct flow *flow, const struct flow_event *event);
void flow_shards_leave(struct flow *flow, const struct flow_event *event);
void flow_shards_dropped(struct flow *flow, const struct flow_event *event);
void flow_shard_more(struct flow *flow, struct shard *shard, bool more);
void flow_shards_refill(struct flow *flow);
void flow_shards_items(struct flow *flow, const struct flow_event *event);
void flow_shards_tick(struct flow *flow);
void flow_shards_durable(struct flow *flow);
void flow_shards_stop(struct flow *flow);
struct stream_id flow_stream_id(const char *text);
int flow_stream_cmp(struct stream_id a, struct stream_id b);

/* flow_expand.c: plans */
void flow_expand_start(struct flow *flow, struct shard *shard, const char *task, const char *sub,
                       struct stream_id before);
void flow_expand_judged(struct flow *flow, const struct flow_event *event);
void flow_expand_finished(struct flow *flow, const struct flow_event *event);
void flow_expand_tick(struct flow *flow, struct shard *shard);
void flow_expand_drop_shard(struct flow *flow, struct shard *shard);
void flow_expand_release(struct flow *flow);
void flow_expand_bury(struct flow *flow);

#endif
