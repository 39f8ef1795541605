/* Equal gets of one process share an entry: the first one asks Redis, the others wait here. Whoever
 * waits for a call of another process is told by a message, and asks again when the flight could
 * have ended without one.
 *
 * An answer is stored behind the SHA-256 of its bytes. */
#include "common/answer_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/containers.h"
#include "common/log.h"
#include "common/queue_internal.h"
#include "common/sha256.h"
#include "schemas/mem.h"

#define SUM_BYTES (SHA256_HEX_SIZE - 1)
#define STORED_MAX (ANSWER_MAX_BYTES + SUM_BYTES)
#define OVERDUE_MS 2000             /* Redis does not answer: the call is made */
#define TICK_MS 250                 /* at most between two looks at what is due */
#define FLIGHT_MAX_MS (3600 * 1000) /* an owner that neither stored nor gave up is forgotten */
#define RENEW_FLIGHTS 200           /* in one script call */
#define CHANNEL "orch:{c}:news"

extern const char script_answer_get[], script_answer_store[], script_answer_give_up[],
    script_answer_renew[];
static struct redis_script get_script = {.name = "answer_get", .source = script_answer_get};
static struct redis_script store_script = {.name = "answer_store", .source = script_answer_store};
static struct redis_script give_up_script = {.name = "answer_give_up",
                                             .source = script_answer_give_up};
static struct redis_script renew_script = {.name = "answer_renew", .source = script_answer_renew};

enum entry_state {
    ENTRY_ASKING,  /* Redis was asked for `owner` */
    ENTRY_WAITING, /* another process makes the call */
    ENTRY_OWNED,   /* `owner`, who is here, makes the call */
};

struct waiter {
    TAILQ_ENTRY(waiter) entry;
    char *owner;
    answer_fn *fn;
    void *ctx;
};
TAILQ_HEAD(waiters, waiter);

/* What is known of one key while somebody here cares. */
struct entry {
    UT_hash_handle hh;
    TAILQ_ENTRY(entry) done; /* out of the hash: its waiters are being told */
    char key[ANSWER_KEY_SIZE];
    enum entry_state state;
    char *owner;
    struct waiters waiters;
    uint64_t ask;   /* number of the question that is under way */
    int64_t due_ms; /* ASKING: overdue; WAITING: ask again; OWNED: forgotten */
};
TAILQ_HEAD(entries, entry);

struct answer_cache {
    uv_loop_t *loop;
    struct queue *queue;    /* borrowed */
    struct redis *redis;    /* borrowed, the queue's */
    struct redis *listener; /* NULL until the first wait for another process */
    struct answer_cache_options options;
    struct entry *entries; /* by key */
    struct entries done;
    struct loop_timer *tick;
    int64_t renewed_ms;
    uint64_t asks;
    bool closed;
    int uses; /* the owner, questions under way, callbacks under way */
};

/* A question under way. */
struct ask {
    struct answer_cache *cache;
    char key[ANSWER_KEY_SIZE];
    uint64_t number;
    char owner[];
};

static void ask_redis(struct answer_cache *cache, struct entry *entry, bool damaged);

static void cache_drop(struct answer_cache *cache)
{
    if (--cache->uses == 0)
        free(cache);
}

/* --- entries ------------------------------------------------------------------------------ */

static struct entry *entry_find(struct answer_cache *cache, const char *key)
{
    struct entry *entry;
    HASH_FIND_STR(cache->entries, key, entry);
    return entry;
}

static struct entry *entry_new(struct answer_cache *cache, const char *key)
{
    struct entry *entry = mem_must_zalloc(sizeof *entry);
    strncat(entry->key, key, sizeof entry->key - 1);
    TAILQ_INIT(&entry->waiters);
    HASH_ADD_STR(cache->entries, key, entry);
    if (!loop_timer_active(cache->tick)) {
        int64_t ms = cache->options.flight_ms / 6 + 1;
        ms = ms < TICK_MS ? ms : TICK_MS;
        cache->renewed_ms = clock_ms();
        loop_timer_start(cache->tick, ms, ms);
    }
    return entry;
}

static void waiter_free(struct entry *entry, struct waiter *waiter)
{
    TAILQ_REMOVE(&entry->waiters, waiter, entry);
    free(waiter->owner);
    free(waiter);
}

static void entry_free(struct answer_cache *cache, struct entry *entry)
{
    struct waiter *waiter;
    HASH_DEL(cache->entries, entry);
    while ((waiter = TAILQ_FIRST(&entry->waiters)) != NULL)
        waiter_free(entry, waiter);
    free(entry->owner);
    free(entry);
}

static void entry_own(struct entry *entry, enum entry_state state, const char *owner,
                      int64_t due_in_ms)
{
    char *copy = mem_must_strdup(owner); /* it may be the entry's own */
    free(entry->owner);
    entry->owner = copy;
    entry->state = state;
    entry->due_ms = clock_ms() + due_in_ms;
}

static struct waiter *waiter_of(struct entry *entry, const char *owner)
{
    struct waiter *waiter;
    TAILQ_FOREACH (waiter, &entry->waiters, entry)
        if (strcmp(waiter->owner, owner) == 0)
            return waiter;
    return NULL;
}

static struct entry *entry_owned_by(struct answer_cache *cache, const char *key, const char *owner)
{
    struct entry *entry = entry_find(cache, key);
    bool owned = entry != NULL && entry->state == ENTRY_OWNED && strcmp(entry->owner, owner) == 0;
    return owned ? entry : NULL;
}

/* Calls back the owner, as often as it asked; the entry must not be used afterwards. */
static void tell_owner(struct answer_cache *cache, struct entry *entry)
{
    char key[ANSWER_KEY_SIZE];
    char *owner = mem_must_strdup(entry->owner);
    memcpy(key, entry->key, sizeof key);
    cache->uses++;
    struct waiter *waiter;
    while (!cache->closed && (entry = entry_owned_by(cache, key, owner)) != NULL &&
           (waiter = waiter_of(entry, owner)) != NULL) {
        answer_fn *fn = waiter->fn;
        void *ctx = waiter->ctx;
        waiter_free(entry, waiter);
        fn(ctx, ANSWER_MISS, (struct bytes){0});
    }
    free(owner);
    cache_drop(cache);
}

/* Calls back all who wait, and frees the entry. */
static void tell_hit(struct answer_cache *cache, struct entry *entry, struct bytes answer)
{
    HASH_DEL(cache->entries, entry);
    TAILQ_INSERT_TAIL(&cache->done, entry, done);
    cache->uses++;
    struct waiter *waiter;
    while ((waiter = TAILQ_FIRST(&entry->waiters)) != NULL) {
        answer_fn *fn = waiter->fn;
        void *ctx = waiter->ctx;
        waiter_free(entry, waiter);
        if (!cache->closed)
            fn(ctx, ANSWER_HIT, answer);
    }
    TAILQ_REMOVE(&cache->done, entry, done);
    free(entry->owner);
    free(entry);
    cache_drop(cache);
}

/* --- scripts ------------------------------------------------------------------------------ */

#define KEY_NAMES "orch:{c}:answers", "orch:{c}:used", "orch:{c}:expiry", "orch:{c}:bytes"
#define FLIGHT_SIZE (ANSWER_KEY_SIZE + 32)

static const char *flight_key(char ret[FLIGHT_SIZE], const char *key)
{
    snprintf(ret, FLIGHT_SIZE, "orch:{c}:flight:%s", key);
    return ret;
}

static const char *decimal(char ret[24], int64_t number)
{
    snprintf(ret, 24, "%lld", (long long)number);
    return ret;
}

static void give_up(struct answer_cache *cache, const char *key, const char *owner)
{
    char flight[FLIGHT_SIZE];
    const char *args[] = {flight_key(flight, key), key, owner, CHANNEL};
    redis_eval(cache->redis, &give_up_script, NULL, NULL, 1, 4, args, NULL);
}

static void store_answered(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    const char *text = redis_str(value, NULL);
    if (redis_type(value) == REDIS_ERR && strncmp(text, "CLOSED", 6) != 0)
        log_warn("cannot keep an answer in the response cache: %.300s", text);
}

static void store(struct answer_cache *cache, const char *key, const char *owner,
                  struct bytes answer)
{
    char flight[FLIGHT_SIZE], ttl[24], most[24];
    struct buf stored = {0};
    char sum[SHA256_HEX_SIZE];
    sha256_hex_of(answer.data, answer.len, sum);
    buf_add(&stored, sum, SUM_BYTES);
    buf_add(&stored, answer.data, answer.len);
    if (stored.failed) {
        buf_release(&stored);
        give_up(cache, key, owner);
        return;
    }
    const char *args[] = {KEY_NAMES,
                          flight_key(flight, key),
                          key,
                          owner,
                          stored.data,
                          decimal(ttl, cache->options.ttl_s * 1000),
                          decimal(most, cache->options.max_bytes),
                          CHANNEL};
    size_t lens[sizeof args / sizeof *args];
    for (size_t i = 0; i < sizeof args / sizeof *args; i++)
        lens[i] = args[i] == stored.data ? stored.len : strlen(args[i]);
    redis_eval(cache->redis, &store_script, store_answered, NULL, 5, sizeof args / sizeof *args,
               args, lens);
    buf_release(&stored);
}

/* --- asking ------------------------------------------------------------------------------- */

/* Nobody else makes the call that Redis was asked about: he who asked does it. When he was
 * forgotten meanwhile, the next one asks. */
static void miss(struct answer_cache *cache, struct entry *entry)
{
    if (waiter_of(entry, entry->owner) != NULL) {
        entry_own(entry, ENTRY_OWNED, entry->owner, FLIGHT_MAX_MS);
        tell_owner(cache, entry);
        return;
    }
    give_up(cache, entry->key, entry->owner);
    if (TAILQ_EMPTY(&entry->waiters))
        entry_free(cache, entry);
    else
        ask_redis(cache, entry, false);
}

static void wait_for(struct answer_cache *cache, struct entry *entry, int64_t left_ms);

/* What is stored, without its sum. False: it is damaged. */
static bool stored_answer(const struct redis_value *value, struct bytes *ret)
{
    size_t len;
    const char *data = redis_str(value, &len);
    if (len < SUM_BYTES || len > STORED_MAX)
        return false;
    char sum[SHA256_HEX_SIZE];
    sha256_hex_of(data + SUM_BYTES, len - SUM_BYTES, sum);
    *ret = (struct bytes){data + SUM_BYTES, len - SUM_BYTES};
    return memcmp(sum, data, SUM_BYTES) == 0;
}

static void take_answer(struct answer_cache *cache, struct entry *entry,
                        const struct redis_value *value)
{
    const char *word = redis_str(redis_at(value, 0), NULL);
    struct bytes answer;
    if (strcmp(word, "HIT") == 0 && stored_answer(redis_at(value, 1), &answer))
        tell_hit(cache, entry, answer);
    else if (strcmp(word, "HIT") == 0)
        ask_redis(cache, entry, true);
    else if (strcmp(word, "WAIT") == 0)
        wait_for(cache, entry, redis_int(redis_at(value, 1)));
    else
        miss(cache, entry); /* also when Redis answers an error */
}

static void get_answered(void *ctx, const struct redis_value *value)
{
    struct ask *ask = ctx;
    struct answer_cache *cache = ask->cache;
    bool lost = redis_type(value) == REDIS_ERR && strncmp(redis_str(value, NULL), "CLOSED", 6) == 0;
    bool is_miss = strcmp(redis_str(redis_at(value, 0), NULL), "MISS") == 0;
    struct entry *entry = cache->closed ? NULL : entry_find(cache, ask->key);
    if (entry != NULL && entry->state == ENTRY_ASKING && entry->ask == ask->number && !lost) {
        take_answer(cache, entry, value);
    } else if (is_miss && !lost) {
        /* It came too late. Its owner may make the call meanwhile; else nobody does. */
        bool owned =
            entry != NULL && entry->state == ENTRY_OWNED && strcmp(entry->owner, ask->owner) == 0;
        if (!owned)
            give_up(cache, ask->key, ask->owner);
    }
    free(ask);
    cache_drop(cache);
}

/* Asks for the first one who waits. */
static void ask_redis(struct answer_cache *cache, struct entry *entry, bool damaged)
{
    const char *owner = TAILQ_FIRST(&entry->waiters)->owner;
    entry_own(entry, ENTRY_ASKING, owner, OVERDUE_MS);
    if (!redis_connected(cache->redis)) {
        miss(cache, entry);
        return;
    }
    struct ask *ask = mem_must_zalloc(sizeof *ask + strlen(owner) + 1);
    ask->cache = cache;
    ask->number = entry->ask = ++cache->asks;
    memcpy(ask->key, entry->key, sizeof ask->key);
    memcpy(ask->owner, owner, strlen(owner) + 1);
    cache->uses++;
    char flight[FLIGHT_SIZE], ms[24], most[24];
    const char *args[] = {KEY_NAMES,
                          flight_key(flight, entry->key),
                          entry->key,
                          owner,
                          decimal(ms, cache->options.flight_ms),
                          decimal(most, (int64_t)STORED_MAX),
                          damaged ? "1" : "0"};
    redis_eval(cache->redis, &get_script, get_answered, ask, 5, sizeof args / sizeof *args, args,
               NULL);
}

/* Asks again for one who waits for another process. */
static void ask_again(struct answer_cache *cache, struct entry *entry)
{
    if (TAILQ_EMPTY(&entry->waiters))
        entry_free(cache, entry);
    else
        ask_redis(cache, entry, false);
}

/* --- waiting for other processes ---------------------------------------------------------- */

/* The keys of all entries that wait, since asking may change what there is. */
static void ask_all_again(struct answer_cache *cache)
{
    struct entry *entry, *next;
    size_t n = 0;
    char(*keys)[ANSWER_KEY_SIZE] =
        mem_must_zalloc((HASH_COUNT(cache->entries) + (size_t)1) * sizeof *keys);
    HASH_ITER (hh, cache->entries, entry, next)
        if (entry->state == ENTRY_WAITING)
            memcpy(keys[n++], entry->key, sizeof *keys);
    for (size_t i = 0; i < n && !cache->closed; i++) {
        entry = entry_find(cache, keys[i]);
        if (entry != NULL && entry->state == ENTRY_WAITING)
            ask_again(cache, entry);
    }
    free(keys);
}

/* ["subscribe", ...] each time that it listens, ["message", channel, key] */
static void heard(void *ctx, const struct redis_value *value)
{
    struct answer_cache *cache = ctx;
    const char *kind = redis_str(redis_at(value, 0), NULL);
    cache->uses++;
    if (strcmp(kind, "subscribe") == 0) {
        ask_all_again(cache); /* what it missed */
    } else if (strcmp(kind, "message") == 0) {
        struct entry *entry = entry_find(cache, redis_str(redis_at(value, 2), NULL));
        if (entry != NULL && entry->state == ENTRY_WAITING)
            ask_again(cache, entry);
    }
    cache_drop(cache);
}

static void wait_for(struct answer_cache *cache, struct entry *entry, int64_t left_ms)
{
    int64_t most_ms = cache->options.flight_ms;
    entry->state = ENTRY_WAITING;
    entry->due_ms = clock_ms() + (left_ms > 0 && left_ms < most_ms ? left_ms : most_ms) + 1;
    struct err err;
    if (cache->listener == NULL &&
        redis_open(&cache->listener, cache->loop, &cache->queue->options, NULL, NULL, &err) == 0)
        redis_subscribe(cache->listener, CHANNEL, heard, cache);
}

/* --- time --------------------------------------------------------------------------------- */

static void renew(struct answer_cache *cache)
{
    struct entry *entry, *next;
    static char flights[RENEW_FLIGHTS][FLIGHT_SIZE]; /* one thread */
    const char *args[2 * RENEW_FLIGHTS + 1], *owners[RENEW_FLIGHTS];
    char ms[24];
    int n = 0;
    HASH_ITER (hh, cache->entries, entry, next) {
        if (entry->state == ENTRY_OWNED) {
            args[n] = flight_key(flights[n], entry->key);
            owners[n++] = entry->owner;
        }
        if (n == 0 || (n < RENEW_FLIGHTS && next != NULL))
            continue;
        args[n] = decimal(ms, cache->options.flight_ms);
        memcpy(args + n + 1, owners, (size_t)n * sizeof *owners);
        redis_eval(cache->redis, &renew_script, NULL, NULL, n, 2 * n + 1, args, NULL);
        n = 0;
    }
}

/* An entry whose time has come; NULL: there is none. */
static struct entry *first_due(struct answer_cache *cache)
{
    int64_t now = clock_ms();
    for (struct entry *entry = cache->entries; entry != NULL; entry = entry->hh.next)
        if (now >= entry->due_ms)
            return entry;
    return NULL;
}

static void handle_due(struct answer_cache *cache, struct entry *entry)
{
    switch (entry->state) {
    case ENTRY_ASKING:
        miss(cache, entry);
        return;
    case ENTRY_WAITING:
        ask_again(cache, entry);
        return;
    case ENTRY_OWNED:
        give_up(cache, entry->key, entry->owner);
        ask_again(cache, entry);
        return;
    }
}

static void tick(void *ctx)
{
    struct answer_cache *cache = ctx;
    struct entry *entry;
    cache->uses++;
    while (!cache->closed && (entry = first_due(cache)) != NULL)
        handle_due(cache, entry);
    bool owned = false;
    for (entry = cache->entries; entry != NULL && !owned; entry = entry->hh.next)
        owned = entry->state == ENTRY_OWNED;
    if (owned && clock_ms() - cache->renewed_ms >= cache->options.flight_ms / 3) {
        cache->renewed_ms = clock_ms();
        renew(cache);
    }
    if (!cache->closed && cache->entries == NULL)
        loop_timer_stop(cache->tick);
    cache_drop(cache);
}

/* --- the four calls ----------------------------------------------------------------------- */

void answer_cache_get(struct answer_cache *cache, const char *key, const char *owner, answer_fn *fn,
                      void *ctx)
{
    struct entry *entry = entry_find(cache, key);
    if (entry != NULL && entry->state == ENTRY_OWNED && strcmp(entry->owner, owner) == 0) {
        fn(ctx, ANSWER_MISS, (struct bytes){0});
        return;
    }
    bool is_new = entry == NULL;
    if (is_new)
        entry = entry_new(cache, key);
    struct waiter *waiter = mem_must_zalloc(sizeof *waiter);
    *waiter = (struct waiter){.owner = mem_must_strdup(owner), .fn = fn, .ctx = ctx};
    TAILQ_INSERT_TAIL(&entry->waiters, waiter, entry);
    if (is_new)
        ask_redis(cache, entry, false);
}

static void forget_in(struct entry *entry, const void *ctx)
{
    struct waiter *waiter, *next;
    TAILQ_FOREACH_SAFE (waiter, &entry->waiters, entry, next)
        if (waiter->ctx == ctx)
            waiter_free(entry, waiter);
}

/* Entries that nobody waits for any more end when they are due or answered. */
void answer_cache_forget(struct answer_cache *cache, void *ctx)
{
    struct entry *entry;
    for (entry = cache->entries; entry != NULL; entry = entry->hh.next)
        forget_in(entry, ctx);
    TAILQ_FOREACH (entry, &cache->done, done)
        forget_in(entry, ctx);
}

void answer_cache_store(struct answer_cache *cache, const char *key, const char *owner,
                        struct bytes answer)
{
    struct entry *entry = entry_owned_by(cache, key, owner);
    if (answer.len > ANSWER_MAX_BYTES)
        give_up(cache, key, owner);
    else
        store(cache, key, owner, answer);
    if (entry != NULL)
        tell_hit(cache, entry, answer);
}

void answer_cache_give_up(struct answer_cache *cache, const char *key, const char *owner)
{
    struct entry *entry = entry_owned_by(cache, key, owner);
    give_up(cache, key, owner);
    if (entry != NULL)
        ask_again(cache, entry);
}

struct answer_cache *answer_cache_new(uv_loop_t *loop, struct queue *queue,
                                      const struct answer_cache_options *options)
{
    struct answer_cache *cache = mem_must_zalloc(sizeof *cache);
    *cache = (struct answer_cache){
        .loop = loop,
        .queue = queue,
        .redis = queue_redis(queue),
        .options = *options,
        .uses = 1,
    };
    TAILQ_INIT(&cache->done);
    cache->tick = loop_timer_new(loop, tick, cache);
    return cache;
}

void answer_cache_free(struct answer_cache **ret)
{
    struct answer_cache *cache = *ret;
    *ret = NULL;
    if (cache == NULL)
        return;
    cache->closed = true;
    redis_close(&cache->listener);
    loop_timer_free(&cache->tick);
    struct entry *entry, *next;
    HASH_ITER (hh, cache->entries, entry, next) {
        if (entry->state == ENTRY_OWNED)
            give_up(cache, entry->key, entry->owner);
        entry_free(cache, entry);
    }
    cache_drop(cache);
}
