#include "common/governor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/governor_internal.h"
#include "common/task_id.h"
#include "schemas/mem.h"

#define WINDOW_MS 60000
#define LEASE_MS 30000
#define TICK_MS 500
#define AWAY_MS 200            /* until Redis is looked for again */
#define QUOTA_MS (3600 * 1000) /* without a word of the server */
#define LIMITED_MS 2000        /* likewise */
#define DELAY_MAX_MS (86400 * 1000)
#define REMAINING_MAX 1000000000000LL
#define RESET_MS 1000 /* of what remains, where the server does not say */
#define FIRST_ROOM_MS 20
#define RENEW_IDS 200 /* in one operation */

/* What a call that ended so says of its arm: good (the server answers), bad, weak (bad for a probe,
 * else nothing), "-" (nothing); and what it does to its key. */
static const struct {
    const char *arm, *key;
    int64_t key_ms; /* when the server says nothing */
} effects[CLASS_COUNT] = {
    [CLASS_NONE] = {"good", "-", 0},
    [CLASS_RETRY] = {"weak", "-", 0},
    [CLASS_RATE_LIMITED] = {"-", "limited", LIMITED_MS},
    [CLASS_QUOTA] = {"-", "quota", QUOTA_MS},
    [CLASS_OVERLOADED] = {"bad", "-", 0},
    [CLASS_CONTEXT_TOO_LONG] = {"good", "-", 0},
    [CLASS_REFUSED] = {"good", "-", 0},
    [CLASS_BAD_REQUEST] = {"good", "-", 0},
    [CLASS_AUTH] = {"-", "auth", 0},
    [CLASS_TIMEOUT] = {"bad", "-", 0},
    [CLASS_BAD_RESPONSE] = {"weak", "-", 0},
    [CLASS_WORKER_LOST] = {"-", "-", 0},
    [CLASS_BUDGET] = {"-", "-", 0},
    [CLASS_INTERNAL] = {"-", "-", 0},
};

/* --- permits ------------------------------------------------------------------------------ */

struct governor_held *governor_hold(struct governor *governor, const char *id, const char *key,
                                    bool stored)
{
    struct governor_held *held = mem_must_zalloc(sizeof *held);
    snprintf(held->id, sizeof held->id, "%s", id);
    held->key = mem_must_strdup(key);
    held->stored = stored;
    HASH_ADD_STR(governor->held, id, held);
    if (stored)
        governor_tick(governor);
    return held;
}

static void held_free(struct governor *governor, struct governor_held *held)
{
    HASH_DEL(governor->held, held);
    free(held->key);
    free(held);
}

static void renew(struct governor *governor)
{
    struct governor_held *held, *next;
    const char *words[2 * RENEW_IDS];
    int n = 0;
    HASH_ITER (hh, governor->held, held, next) {
        if (held->stored) {
            words[n++] = held->id;
            words[n++] = held->key;
        }
        if (n == 0 || (n < 2 * RENEW_IDS && next != NULL))
            continue;
        struct queue_args *args = governor_turn_add(governor, n + 1, "renew");
        for (int i = 0; i < n; i++)
            queue_args_copy(args, words[i], strlen(words[i]));
        n = 0;
    }
}

static bool holds_stored(const struct governor *governor)
{
    for (const struct governor_held *held = governor->held; held != NULL; held = held->hh.next)
        if (held->stored)
            return true;
    return false;
}

static void tick(void *ctx)
{
    struct governor *governor = ctx;
    governor_keep(governor);
    governor_turns_expire(governor);
    bool holds = !governor->closed && holds_stored(governor);
    if (holds && clock_ms() - governor->renewed_ms >= governor->lease_ms / 3) {
        governor->renewed_ms = clock_ms();
        renew(governor);
    }
    if (!governor->closed && !holds && TAILQ_EMPTY(&governor->sent))
        loop_timer_stop(governor->tick);
    governor_drop(governor);
}

void governor_tick(struct governor *governor)
{
    if (governor->closed || loop_timer_active(governor->tick))
        return;
    int64_t ms = governor->lease_ms / 6 < TICK_MS ? governor->lease_ms / 6 + 1 : TICK_MS;
    governor->renewed_ms = clock_ms();
    loop_timer_start(governor->tick, ms, ms);
}

/* --- acquiring ---------------------------------------------------------------------------- */

bool governor_limited(const struct governor *governor)
{
    const struct governor_limits *limits[] = {&governor->limits, &governor->key_limits};
    for (size_t i = 0; i < 2; i++)
        if (limits[i]->requests_per_minute > 0 || limits[i]->tokens_per_minute > 0 ||
            limits[i]->concurrency > 0)
            return true;
    return false;
}

void governor_acquire(struct governor *governor, const char *arm, int64_t tokens, governor_fn *fn,
                      void *ctx)
{
    struct governor_permit permit = {.room = INT64_MAX, .reason = ""};
    snprintf(permit.id, sizeof permit.id, "%s-%llx", governor->nonce,
             (unsigned long long)++governor->last_id);
    if (governor_normal(governor, arm)) {
        permit.key = governor->next_key++ % governor->n_keys;
        governor_hold(governor, permit.id, governor->keys[permit.key].name, false);
        fn(ctx, &permit);
    } else if (redis_connected(governor->redis)) {
        governor_turn_acquire(governor, permit.id, arm, tokens > 0 ? tokens : 0, fn, ctx);
    } else {
        permit = (struct governor_permit){.verdict = GOVERNOR_WAIT,
                                          .delay_ms = AWAY_MS,
                                          .room = governor_room(governor, &(int64_t){0}),
                                          .reason = "Redis cannot be reached"};
        fn(ctx, &permit);
    }
}

void governor_forget(struct governor *governor, void *ctx)
{
    governor_turns_forget(governor, ctx);
}

/* --- settling ----------------------------------------------------------------------------- */

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* Two words: what remains, -1 when nothing is said; for how many ms. */
static void add_remaining(struct queue_args *args, int64_t remaining, int64_t reset_ms)
{
    if (reset_ms < 0)
        reset_ms = RESET_MS;
    queue_args_printf(args, "%lld", (long long)clamp(remaining, -1, REMAINING_MAX));
    queue_args_printf(args, "%lld", (long long)clamp(reset_ms, 0, DELAY_MAX_MS));
}

static void add_settle(struct governor *governor, const char *id, const char *key, const char *arm,
                       const struct governor_report *report)
{
    enum error_class class_ = report->called ? report->class_ : CLASS_INTERNAL;
    int64_t delay_ms =
        report->retry_after_ms >= 0 ? report->retry_after_ms : effects[class_].key_ms;
    struct queue_args *args = governor_turn_add(governor, 14, "settle");
    queue_args_copy(args, id, strlen(id));
    queue_args_copy(args, arm, strlen(arm));
    queue_args_copy(args, key, strlen(key));
    queue_args_str(args, report->called ? "1" : "0");
    queue_args_printf(args, "%lld", (long long)clamp(report->tokens, -1, REMAINING_MAX));
    queue_args_str(args, effects[class_].arm);
    queue_args_str(args, error_class_name(class_));
    /* Without a key there is none to take out, and the next call may be a correct one. */
    bool none = class_ == CLASS_AUTH && strcmp(key, GOVERNOR_KEY_NONE) == 0;
    queue_args_str(args, none ? "-" : effects[class_].key);
    queue_args_printf(args, "%lld", (long long)clamp(delay_ms, 0, DELAY_MAX_MS));
    add_remaining(args, report->server.remaining_requests, report->server.reset_requests_ms);
    add_remaining(args, report->server.remaining_tokens, report->server.reset_tokens_ms);
}

void governor_give_back(struct governor *governor, const char *id, const char *key)
{
    static const struct governor_report unused = {
        .class_ = CLASS_NONE,
        .tokens = -1,
        .retry_after_ms = -1,
        .server = {-1, -1, -1, -1, -1, -1},
    };
    add_settle(governor, id, key, "", &unused);
}

/* Whether Redis has to hear of it although it does not know the permit. */
static bool matters(const struct governor *governor, const char *arm,
                    const struct governor_report *report)
{
    if (!report->called)
        return false;
    const struct governor_server *server = &report->server;
    if ((server->remaining_requests == 0 && server->reset_requests_ms > 0) ||
        (server->remaining_tokens == 0 && server->reset_tokens_ms > 0))
        return true;
    if (strcmp(effects[report->class_].key, "-") != 0)
        return true;
    if (governor->breaker_failures == 0)
        return false;
    const struct governor_arm *known = governor_arm(governor, arm);
    bool troubled = known != NULL && (known->failures > 0 || known->open);
    return strcmp(effects[report->class_].arm, "bad") == 0 || troubled;
}

void governor_settle(struct governor *governor, const struct governor_permit *permit,
                     const char *arm, const struct governor_report *report)
{
    struct governor_held *held;
    HASH_FIND_STR(governor->held, permit->id, held);
    if (held == NULL || (unsigned)report->class_ >= CLASS_COUNT)
        return;
    if (held->stored || matters(governor, arm, report))
        add_settle(governor, held->id, held->key, arm, report);
    if (held->stored && governor->calls_room >= 0)
        governor->calls_room++;
    held_free(governor, held);
}

/* --- what is known ------------------------------------------------------------------------ */

bool governor_arm_open(const struct governor *governor, const char *arm)
{
    const struct governor_arm *known = governor_arm(governor, arm);
    return known != NULL && known->open && clock_ms() < known->until_ms;
}

int64_t governor_room(const struct governor *governor, int64_t *ret_delay_ms)
{
    *ret_delay_ms = 0;
    if (!governor_limited(governor)) {
        *ret_delay_ms = governor_keys_ms(governor);
        return *ret_delay_ms > 0 ? 0 : INT64_MAX;
    }
    int64_t rate = governor->rate_room < 0 ? INT64_MAX : governor->rate_room;
    int64_t calls = governor->calls_room < 0 ? INT64_MAX : governor->calls_room;
    int64_t room = rate < calls ? rate : calls;
    if (room > 0)
        return room;
    /* Once the time has come, one call may find out. */
    *ret_delay_ms = governor->room_ms - clock_ms();
    if (*ret_delay_ms > 0)
        return 0;
    *ret_delay_ms = 0;
    return 1;
}

/* What was just read may be good again, whatever was known of it. */
static void clear_keys(struct governor *governor)
{
    for (size_t i = 0; i < governor->n_keys; i++) {
        struct queue_args *args = governor_turn_add(governor, 2, "clear");
        queue_args_copy(args, governor->keys[i].name, strlen(governor->keys[i].name));
    }
}

void governor_set_keys(struct governor *governor, const char *const *keys, size_t n_keys)
{
    governor_keys_replace(governor, keys, n_keys);
    clear_keys(governor);
}

/* --- opening and closing ------------------------------------------------------------------ */

void governor_keep(struct governor *governor)
{
    governor->uses++;
}

void governor_drop(struct governor *governor)
{
    if (--governor->uses > 0)
        return;
    struct governor_held *held, *next;
    HASH_ITER (hh, governor->held, held, next)
        held_free(governor, held);
    for (size_t i = 0; i < governor->n_keys; i++)
        free(governor->keys[i].name);
    free(governor->keys);
    for (size_t i = 0; i < governor->n_arms; i++)
        free(governor->arms[i].name);
    free(governor->arms);
    free(governor->provider);
    free(governor->worker);
    free(governor->channel);
    free(governor);
}

/* In names of keys braces would move the hash tag. */
static char *provider_copy(const char *name)
{
    char *copy = mem_must_strdup(name);
    for (char *at = copy; (at = strpbrk(at, "{}")) != NULL;)
        *at = '_';
    return copy;
}

static void copy_arms(struct governor *governor, const struct governor_options *options)
{
    if (options->n_arms == 0)
        return;
    governor->arms = mem_must_zalloc(options->n_arms * sizeof *governor->arms);
    governor->n_arms = options->n_arms;
    for (size_t i = 0; i < options->n_arms; i++)
        governor->arms[i].name = mem_must_strdup(options->arms[i]);
}

int governor_open(struct governor **ret, uv_loop_t *loop, struct queue *queue,
                  const struct governor_options *options,
                  const struct governor_callbacks *callbacks, void *ctx, struct err *err)
{
    struct governor *governor = mem_must_zalloc(sizeof *governor);
    *governor = (struct governor){
        .loop = loop,
        .redis = queue_redis(queue),
        .ctx = ctx,
        .provider = provider_copy(options->provider),
        .worker = mem_must_strdup(options->worker),
        .limits = options->limits,
        .key_limits = options->key_limits,
        .breaker_failures = options->breaker_failures,
        .breaker_open_ms = options->breaker_open_ms,
        .window_ms = options->window_ms > 0 ? options->window_ms : WINDOW_MS,
        .lease_ms = options->lease_ms > 0 ? options->lease_ms : LEASE_MS,
        .uses = 1,
    };
    if (callbacks != NULL)
        governor->callbacks = *callbacks;
    boot_nonce_make(governor->nonce);
    TAILQ_INIT(&governor->sent);
    governor_keys_replace(governor, options->keys, options->n_keys);
    copy_arms(governor, options);
    governor->send = loop_timer_new(loop, governor_turn_send, governor);
    governor->tick = loop_timer_new(loop, tick, governor);
    governor->wake = loop_timer_new(loop, governor_state_expire, governor);
    int rc = governor_listen(governor, queue, err);
    if (rc != 0) {
        governor_close(&governor);
        return rc;
    }
    clear_keys(governor); /* its answer says what room there is */
    governor->room_ms = clock_ms() + FIRST_ROOM_MS;
    *ret = governor;
    return 0;
}

/* Calls that are not settled end with this worker: what they were charged stays, but they are under
 * way no longer. */
static void let_go(struct governor *governor)
{
    static const struct governor_report ended = {
        .class_ = CLASS_INTERNAL,
        .called = true,
        .tokens = -1,
        .retry_after_ms = -1,
        .server = {-1, -1, -1, -1, -1, -1},
    };
    for (struct governor_held *held = governor->held; held != NULL; held = held->hh.next)
        if (held->stored)
            add_settle(governor, held->id, held->key, "", &ended);
}

void governor_close(struct governor **ret)
{
    struct governor *governor = *ret;
    *ret = NULL;
    if (governor == NULL)
        return;
    governor->closed = true;
    governor_turns_forget(governor, NULL);
    redis_close(&governor->listener);
    loop_timer_free(&governor->send);
    loop_timer_free(&governor->tick);
    loop_timer_free(&governor->wake);
    let_go(governor);
    governor_turn_send(governor);
    governor_drop(governor);
}
