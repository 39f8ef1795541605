#include "simulator/limits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/containers.h"
#include "schemas/mem.h"
#include "simulator/family.h"

#define MAX_KEYS 10000
#define MINUTE_MS 60000
#define FULL_RETRY_MS 200 /* when as many calls as may run at once are running */

struct use {
    double ms;
    int64_t tokens;
};

struct sim_limit_key {
    uint64_t hash;
    struct use *uses; /* of the window, oldest first; grows */
    size_t first, count, cap;
    uint64_t numbers; /* of calls admitted so far */
    int64_t tokens;   /* of the window */
    int64_t running;
    int64_t requests, limited, peak_running, peak_requests, peak_tokens;
    UT_hash_handle hh;
};

struct sim_limits {
    struct sim_limit_key *keys;
};

struct sim_limits *sim_limits_new(void)
{
    return mem_must_zalloc(sizeof(struct sim_limits));
}

static void key_free(struct sim_limits *limits, struct sim_limit_key *key)
{
    HASH_DEL(limits->keys, key);
    free(key->uses);
    free(key);
}

void sim_limits_free(struct sim_limits **ref)
{
    struct sim_limits *limits = *ref;
    struct sim_limit_key *key, *next;
    *ref = NULL;
    if (limits == NULL)
        return;
    HASH_ITER (hh, limits->keys, key, next)
        key_free(limits, key);
    free(limits);
}

/* Permits of calls in flight point to their keys. */
void sim_limits_reset(struct sim_limits *limits)
{
    struct sim_limit_key *key, *next;
    HASH_ITER (hh, limits->keys, key, next) {
        if (key->running == 0) {
            key_free(limits, key);
            continue;
        }
        key->first = key->count = 0;
        key->tokens = 0;
        key->requests = key->limited = key->peak_requests = key->peak_tokens = 0;
        key->peak_running = key->running;
    }
}

/* NULL when there are too many. */
static struct sim_limit_key *key_of(struct sim_limits *limits, const char *name)
{
    uint64_t hash = sim_hash(name, strlen(name), SIM_HASH_SEED);
    struct sim_limit_key *key = NULL;
    HASH_FIND(hh, limits->keys, &hash, sizeof hash, key);
    if (key != NULL || HASH_COUNT(limits->keys) >= MAX_KEYS)
        return key;
    key = mem_must_zalloc(sizeof *key);
    key->hash = hash;
    HASH_ADD(hh, limits->keys, hash, sizeof hash, key);
    return key;
}

/* --- the window ---------------------------------------------------------------------------- */

static double window_ms(const struct sim_limit *limit)
{
    return limit->window_ms > 0 ? (double)limit->window_ms : MINUTE_MS;
}

/* Forgets what is older than the window. */
static void slide(struct sim_limit_key *key, const struct sim_limit *limit, double now_ms)
{
    while (key->count > 0 && key->uses[key->first].ms <= now_ms - window_ms(limit)) {
        key->tokens -= key->uses[key->first].tokens;
        key->first++;
        key->count--;
    }
}

static void add_use(struct sim_limit_key *key, double now_ms, int64_t tokens)
{
    if (key->first + key->count == key->cap) {
        if (key->first > key->cap / 2) {
            memmove(key->uses, key->uses + key->first, key->count * sizeof *key->uses);
            key->first = 0;
        } else {
            key->cap = key->cap > 0 ? 2 * key->cap : 64;
            key->uses = mem_must_realloc(key->uses, key->cap * sizeof *key->uses);
        }
    }
    key->uses[key->first + key->count++] = (struct use){now_ms, tokens};
    key->tokens += tokens;
    key->numbers++;
    if ((int64_t)key->count > key->peak_requests)
        key->peak_requests = (int64_t)key->count;
    if (key->tokens > key->peak_tokens)
        key->peak_tokens = key->tokens;
}

/* How long until so many uses, and so many tokens, have left the window. */
static int64_t wait_ms(const struct sim_limit_key *key, const struct sim_limit *limit, int64_t uses,
                       int64_t tokens, double now_ms)
{
    double until_ms = now_ms;
    for (size_t i = 0; i < key->count && (uses > 0 || tokens > 0); i++, uses--) {
        const struct use *use = &key->uses[key->first + i];
        tokens -= use->tokens;
        until_ms = use->ms + window_ms(limit);
    }
    return until_ms > now_ms ? (int64_t)ceil(until_ms - now_ms) : 0;
}

/* --- calls --------------------------------------------------------------------------------- */

/* When there is room; 0: now. */
static int64_t delay_of(struct sim_limit_key *key, const struct sim_limit *limit, int64_t tokens,
                        double now_ms)
{
    int64_t over = 0, over_tokens = 0, full_ms = 0;
    if (limit->requests > 0)
        over = (int64_t)key->count + 1 - limit->requests;
    if (limit->tokens > 0)
        over_tokens = key->tokens + tokens - limit->tokens;
    if (limit->concurrency > 0 && key->running >= limit->concurrency)
        full_ms = FULL_RETRY_MS;
    int64_t ms = wait_ms(key, limit, over, over_tokens, now_ms);
    return ms > full_ms ? ms : full_ms;
}

struct sim_permit sim_limits_admit(struct sim_limits *limits, const struct sim_limit *limit,
                                   const char *name, int64_t tokens)
{
    struct sim_permit permit = {.limit = *limit, .admitted = true};
    bool counts = limit->requests > 0 || limit->tokens > 0 || limit->concurrency > 0;
    double now_ms = clock_ms_f();
    struct sim_limit_key *key = counts ? key_of(limits, name) : NULL;
    if (key == NULL)
        return permit;
    permit.key = key;
    key->requests++;
    slide(key, limit, now_ms);
    permit.retry_ms = delay_of(key, limit, tokens, now_ms);
    if (permit.retry_ms > 0) {
        permit.admitted = false;
        key->limited++;
        return permit;
    }
    permit.number = key->numbers;
    add_use(key, now_ms, tokens);
    if (++key->running > key->peak_running)
        key->peak_running = key->running;
    return permit;
}

void sim_limits_end(struct sim_permit *permit, int64_t tokens)
{
    struct sim_limit_key *key = permit->key;
    permit->key = NULL;
    if (key == NULL || !permit->admitted)
        return;
    key->running--;
    uint64_t oldest = key->numbers - key->count;
    if (permit->number < oldest)
        return; /* it has left the window meanwhile, or was forgotten */
    key->uses[key->first + (size_t)(permit->number - oldest)].tokens += tokens;
    key->tokens += tokens;
    if (key->tokens > key->peak_tokens)
        key->peak_tokens = key->tokens;
}

/* --- what is told --------------------------------------------------------------------------- */

bool sim_limits_told(const struct sim_permit *permit)
{
    return permit->key != NULL && (permit->limit.requests > 0 || permit->limit.tokens > 0);
}

static void add_openai(const char *what, int64_t limit, int64_t left, int64_t reset_ms,
                       struct buf *out)
{
    buf_printf(out,
               "x-ratelimit-limit-%s: %lld\nx-ratelimit-remaining-%s: %lld\n"
               "x-ratelimit-reset-%s: %lldms\n",
               what, (long long)limit, what, (long long)left, what, (long long)reset_ms);
}

/* A date has whole seconds: the next one, so that nobody comes too early. */
static void add_anthropic(const char *what, int64_t limit, int64_t left, int64_t reset_ms,
                          struct buf *out)
{
    buf_printf(out,
               "anthropic-ratelimit-%s-limit: %lld\nanthropic-ratelimit-%s-remaining: %lld\n"
               "anthropic-ratelimit-%s-reset: ",
               what, (long long)limit, what, (long long)left, what);
    sim_family_add_date(out, (clock_wall_ms() + reset_ms + 999) / 1000, -1);
    buf_add_char(out, '\n');
}

void sim_limits_headers(const struct sim_permit *permit, enum sim_limit_style style,
                        struct buf *out)
{
    static void (*const adds[])(const char *, int64_t, int64_t, int64_t, struct buf *) = {
        [SIM_LIMIT_OPENAI] = add_openai, [SIM_LIMIT_ANTHROPIC] = add_anthropic};
    struct sim_limit_key *key = permit->key;
    const struct sim_limit *limit = &permit->limit;
    double now_ms = clock_ms_f();
    if (!sim_limits_told(permit))
        return;
    slide(key, limit, now_ms);
    int64_t used = (int64_t)key->count;
    if (limit->requests > 0)
        adds[style]("requests", limit->requests,
                    used < limit->requests ? limit->requests - used : 0,
                    wait_ms(key, limit, 1, 0, now_ms), out);
    if (limit->tokens > 0)
        adds[style]("tokens", limit->tokens,
                    key->tokens < limit->tokens ? limit->tokens - key->tokens : 0,
                    wait_ms(key, limit, 0, 1, now_ms), out);
}

void sim_limits_print(const struct sim_limits *limits, struct buf *out)
{
    buf_add_char(out, '[');
    for (const struct sim_limit_key *key = limits->keys; key != NULL; key = key->hh.next)
        buf_printf(out,
                   "%s{\"key_hash\":\"%016llx\",\"requests\":%lld,\"limited\":%lld,\"running\":"
                   "%lld,\"peak_running\":%lld,\"peak_requests\":%lld,\"peak_tokens\":%lld}",
                   key == limits->keys ? "" : ",\n", (unsigned long long)key->hash,
                   (long long)key->requests, (long long)key->limited, (long long)key->running,
                   (long long)key->peak_running, (long long)key->peak_requests,
                   (long long)key->peak_tokens);
    buf_add_str(out, "]\n");
}
