/* What a worker knows of its arms and keys: from the answers of the script, and from what the
 * script tells all workers of the provider. */
#include "common/governor_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "schemas/mem.h"

#define OUT_MS 60000    /* until a new key is looked for */
#define REFRESH_MS 20   /* until news has been followed by an answer about the room */
#define LINES_MAX 10000 /* of one message */

static const char *const key_states[] = {
#define X(constant, text) text,
    GOVERNOR_KEY_STATES(X)
#undef X
};

/* Callbacks come after all is taken over: they may call anything. */
struct change {
    enum governor_change change;
    char *what;
    char text[200];
};
struct changes {
    struct change *items;
    size_t n, cap;
};

static struct change *add_change(struct changes *changes, enum governor_change change,
                                 const char *what)
{
    if (changes->n == changes->cap) {
        changes->cap = changes->cap > 0 ? changes->cap * 2 : 8;
        changes->items = mem_must_realloc(changes->items, changes->cap * sizeof *changes->items);
    }
    struct change *item = &changes->items[changes->n++];
    *item = (struct change){.change = change, .what = mem_must_strdup(what)};
    return item;
}

static void tell_changes(struct governor *governor, struct changes *changes)
{
    governor_keep(governor);
    for (size_t i = 0; i < changes->n; i++) {
        struct change *item = &changes->items[i];
        if (!governor->closed && governor->callbacks.change != NULL)
            governor->callbacks.change(governor->ctx, item->change, item->what, item->text);
        free(item->what);
    }
    free(changes->items);
    governor_drop(governor);
}

/* --- keys --------------------------------------------------------------------------------- */

static bool key_is_over(const struct governor_key *key, int64_t now)
{
    return key->state != GOVERNOR_KEY_OK && key->until_ms > 0 && now >= key->until_ms;
}

static bool key_is_out(enum governor_key_state state)
{
    return state == GOVERNOR_KEY_QUOTA || state == GOVERNOR_KEY_AUTH;
}

size_t governor_key_place(const struct governor *governor, const char *name)
{
    size_t i = 0;
    while (i < governor->n_keys && strcmp(governor->keys[i].name, name) != 0)
        i++;
    return i;
}

void governor_keys_replace(struct governor *governor, const char *const *keys, size_t n_keys)
{
    static const char *const none[] = {GOVERNOR_KEY_NONE};
    if (n_keys == 0) {
        keys = none;
        n_keys = 1;
    }
    struct governor_key *new = mem_must_zalloc(n_keys * sizeof *new);
    for (size_t i = 0; i < n_keys; i++) {
        size_t old = governor_key_place(governor, keys[i]);
        if (old < governor->n_keys)
            new[i] = governor->keys[old];
        new[i].name = mem_must_strdup(keys[i]);
    }
    for (size_t i = 0; i < governor->n_keys; i++)
        free(governor->keys[i].name);
    free(governor->keys);
    governor->keys = new;
    governor->n_keys = n_keys;
}

static void key_change(struct governor_key *key, enum governor_key_state state, int64_t until_ms,
                       struct changes *changes)
{
    bool was_out = key_is_out(key->state), is_out = key_is_out(state);
    key->state = state;
    key->until_ms = until_ms;
    if (!is_out && was_out)
        add_change(changes, GOVERNOR_KEY_BACK, key->name);
    if (!is_out || was_out)
        return;
    struct change *change = add_change(changes, GOVERNOR_KEY_OUT, key->name);
    if (state == GOVERNOR_KEY_AUTH)
        snprintf(change->text, sizeof change->text,
                 "the provider refuses the key: it is not used until the keys are read again");
    else
        snprintf(change->text, sizeof change->text,
                 "the key's credit or quota is used up: it is not used for %lld s",
                 (long long)(until_ms - clock_ms() + 999) / 1000);
}

int64_t governor_keys_ms(const struct governor *governor)
{
    int64_t now = clock_ms(), least = INT64_MAX;
    for (size_t i = 0; i < governor->n_keys; i++) {
        const struct governor_key *key = &governor->keys[i];
        if (key->state == GOVERNOR_KEY_OK || key_is_over(key, now))
            return 0;
        int64_t wait = key->until_ms > 0 ? key->until_ms - now : OUT_MS;
        if (wait < least)
            least = wait;
    }
    return least;
}

bool governor_has_other_key(const struct governor *governor, const char *name)
{
    int64_t now = clock_ms();
    for (size_t i = 0; i < governor->n_keys; i++) {
        const struct governor_key *key = &governor->keys[i];
        if ((key->state == GOVERNOR_KEY_OK || key_is_over(key, now)) &&
            strcmp(key->name, name) != 0)
            return true;
    }
    return false;
}

/* --- arms --------------------------------------------------------------------------------- */

struct governor_arm *governor_arm(const struct governor *governor, const char *name)
{
    for (size_t i = 0; i < governor->n_arms; i++)
        if (strcmp(governor->arms[i].name, name) == 0)
            return &governor->arms[i];
    return NULL;
}

bool governor_normal(const struct governor *governor, const char *name)
{
    if (!governor->known || governor_limited(governor))
        return false;
    int64_t now = clock_ms();
    for (size_t i = 0; i < governor->n_keys; i++)
        if (governor->keys[i].state != GOVERNOR_KEY_OK && !key_is_over(&governor->keys[i], now))
            return false;
    const struct governor_arm *arm = governor_arm(governor, name);
    return arm == NULL || !arm->open;
}

static void arm_change(struct governor_arm *arm, const struct governor_arm *now, const char *class_,
                       struct changes *changes)
{
    bool opened = now->open && (!arm->open || arm->trips != now->trips);
    bool closed = arm->open && !now->open;
    arm->open = now->open;
    arm->failures = now->failures;
    arm->trips = now->trips;
    arm->until_ms = now->until_ms;
    if (closed)
        snprintf(add_change(changes, GOVERNOR_ARM_CLOSED, arm->name)->text,
                 sizeof changes->items->text, "a probe went well");
    if (!opened)
        return;
    long long s = (now->until_ms - clock_ms() + 999) / 1000;
    struct change *change = add_change(changes, GOVERNOR_ARM_OPEN, arm->name);
    if (now->trips > 1)
        snprintf(change->text, sizeof change->text,
                 "the probe failed too (%s): no calls for %lld s", class_, s);
    else
        snprintf(change->text, sizeof change->text,
                 "%lld failures in a row, the last one %s: no calls for %lld s",
                 (long long)now->failures, class_, s);
}

/* --- lines -------------------------------------------------------------------------------- */

/* Copies a name that ends the line. False when it is longer than any of ours. */
static bool name_copy(char ret[512], const struct queue_word *rest)
{
    if (rest->len >= 512)
        return false;
    memcpy(ret, rest->text, rest->len);
    ret[rest->len] = '\0';
    return true;
}

/* "k state ms key" */
static void take_key(struct governor *governor, const char *text, size_t len,
                     struct changes *changes)
{
    struct queue_word words[3], rest;
    char name[512];
    int64_t ms;
    if (!queue_split(text, len, words, 3, &rest) || !queue_word_int(&words[2], &ms) ||
        !name_copy(name, &rest))
        return;
    size_t place = governor_key_place(governor, name);
    int state = 0;
    while (state < GOVERNOR_KEY_STATE_COUNT && !queue_word_is(&words[1], key_states[state]))
        state++;
    if (place == governor->n_keys || state == GOVERNOR_KEY_STATE_COUNT)
        return;
    bool ends = state == GOVERNOR_KEY_LIMITED || state == GOVERNOR_KEY_QUOTA;
    governor->keys[place].told = true;
    key_change(&governor->keys[place], (enum governor_key_state)state, ends ? clock_ms() + ms : 0,
               changes);
}

/* "a state failures trips ms class arm" */
static void take_arm(struct governor *governor, const char *text, size_t len,
                     struct changes *changes)
{
    struct queue_word words[6], rest;
    char name[512], class_[64];
    struct governor_arm now = {0};
    int64_t ms;
    if (!queue_split(text, len, words, 6, &rest) || !queue_word_int(&words[2], &now.failures) ||
        !queue_word_int(&words[3], &now.trips) || !queue_word_int(&words[4], &ms) ||
        !queue_word_copy(class_, sizeof class_, &words[5]) || !name_copy(name, &rest))
        return;
    struct governor_arm *arm = governor_arm(governor, name);
    if (arm == NULL)
        return;
    arm->told = true;
    now.open = queue_word_is(&words[1], "open");
    now.until_ms = clock_ms() + ms;
    arm_change(arm, &now, class_, changes);
}

/* What a full answer does not mention is well. */
static void settle_untold(struct governor *governor, struct changes *changes)
{
    static const struct governor_arm well = {0};
    for (size_t i = 0; i < governor->n_keys; i++)
        if (!governor->keys[i].told)
            key_change(&governor->keys[i], GOVERNOR_KEY_OK, 0, changes);
    for (size_t i = 0; i < governor->n_arms; i++)
        if (!governor->arms[i].told)
            arm_change(&governor->arms[i], &well, "", changes);
}

/* Wakes when the first key is good again. */
static void plan_wake(struct governor *governor)
{
    int64_t first = 0;
    for (size_t i = 0; i < governor->n_keys; i++) {
        const struct governor_key *key = &governor->keys[i];
        if (key_is_out(key->state) && key->until_ms > 0 && (first == 0 || key->until_ms < first))
            first = key->until_ms;
    }
    if (governor->closed)
        return;
    int64_t now = clock_ms();
    if (first > 0)
        loop_timer_start(governor->wake, first > now ? first - now : 1, 0);
    else
        loop_timer_stop(governor->wake);
}

void governor_state_apply(struct governor *governor, int64_t version, bool all,
                          const struct queue_word *lines, size_t n_lines)
{
    /* One may be older than what is known: they come over different connections. */
    if (all ? version < governor->version : version <= governor->version)
        return;
    governor->version = version;
    governor->known = governor->known || all;
    struct changes changes = {0};
    for (size_t i = 0; i < governor->n_keys; i++)
        governor->keys[i].told = false;
    for (size_t i = 0; i < governor->n_arms; i++)
        governor->arms[i].told = false;
    for (size_t i = 0; i < n_lines; i++) {
        if (lines[i].len > 0 && lines[i].text[0] == 'k')
            take_key(governor, lines[i].text, lines[i].len, &changes);
        else if (lines[i].len > 0 && lines[i].text[0] == 'a')
            take_arm(governor, lines[i].text, lines[i].len, &changes);
    }
    if (all)
        settle_untold(governor, &changes);
    plan_wake(governor);
    tell_changes(governor, &changes);
}

/* The room is another one now: it is asked for, and until then nobody waits for long. */
static void refresh(struct governor *governor)
{
    if (!governor_limited(governor))
        return;
    governor->room_ms = clock_ms() + REFRESH_MS;
    governor_turn_read(governor);
}

void governor_state_expire(void *ctx)
{
    struct governor *governor = ctx;
    struct changes changes = {0};
    int64_t now = clock_ms();
    for (size_t i = 0; i < governor->n_keys; i++)
        if (key_is_over(&governor->keys[i], now))
            key_change(&governor->keys[i], GOVERNOR_KEY_OK, 0, &changes);
    plan_wake(governor);
    refresh(governor);
    tell_changes(governor, &changes);
}

/* --- listening ---------------------------------------------------------------------------- */

/* text: the version, then lines. */
static void take_message(struct governor *governor, const char *text, size_t len)
{
    struct queue_word *lines = NULL;
    size_t n = 0;
    int64_t version = 0;
    bool first = true;
    for (const char *at = text, *end = text + len; at < end && n < LINES_MAX;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t line_len = (size_t)((newline != NULL ? newline : end) - at);
        struct queue_word line = {at, line_len};
        if (first && !queue_word_int(&line, &version))
            return;
        if (!first) {
            lines = mem_must_realloc(lines, (n + 1) * sizeof *lines);
            lines[n++] = line;
        }
        first = false;
        at += line_len + 1;
    }
    governor_keep(governor);
    if (n > 0)
        refresh(governor);
    governor_state_apply(governor, version, false, lines, n);
    free(lines);
    governor_drop(governor);
}

/* ["subscribe", ...] each time that it listens, ["message", channel, text] */
static void heard(void *ctx, const struct redis_value *value)
{
    struct governor *governor = ctx;
    const char *kind = redis_str(redis_at(value, 0), NULL);
    if (strcmp(kind, "subscribe") == 0) { /* what it missed; Redis may have lost all it knew */
        governor->version = 0;
        governor_turn_read(governor);
    }
    if (strcmp(kind, "message") != 0)
        return;
    size_t len;
    const char *text = redis_str(redis_at(value, 2), &len);
    take_message(governor, text, len);
}

int governor_listen(struct governor *governor, struct queue *queue, struct err *err)
{
    governor->channel =
        mem_must_printf("orch:{l:%s}:news:%d", governor->provider, queue->options.database);
    int rc = redis_open(&governor->listener, governor->loop, &queue->options, NULL, NULL, err);
    if (rc != 0)
        return rc;
    redis_subscribe(governor->listener, governor->channel, heard, governor);
    return 0;
}
