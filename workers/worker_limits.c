#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "schemas/mem.h"
#include "workers/worker_internal.h"

#define PAUSE_LOOK_MS 250 /* between two looks at breakers that should have let a probe through */

/* --- which keys are left -----------------------------------------------------------------------
 */

static size_t find_out(const struct worker *worker, const char *fingerprint)
{
    size_t i = 0;
    while (i < worker->n_keys_out && strcmp(worker->keys_out[i], fingerprint) != 0)
        i++;
    return i;
}

static bool has_key(const struct worker *worker)
{
    size_t n = keys_count(worker->keys);
    bool found = n == 0; /* calls are made without one */
    for (size_t i = 0; i < n && !found; i++) {
        struct key *key = keys_at(worker->keys, i);
        found = find_out(worker, key_fingerprint(key)) == worker->n_keys_out;
        key_drop(&key);
    }
    return found;
}

/* --- arms --------------------------------------------------------------------------------------
 */

/* An arm whose breaker lets a probe through, or is closed, is served again; others are looked at
 * again later. */
static void look_at_pauses(void *ctx)
{
    struct worker *worker = ctx;
    bool changed = false, paused = false;
    if (!has_key(worker)) /* then a key must come back first */
        return;
    for (size_t i = 0; i < worker->arms.n; i++) {
        const struct arm *arm = &worker->arms.items[i];
        if (arm->paused == NULL)
            continue;
        if (governor_arm_open(worker->governor, arm->name))
            paused = true;
        else
            changed |= arms_resume(&worker->arms, arm->name);
    }
    if (changed && worker->peer != NULL)
        worker_introduce(worker);
    if (paused)
        loop_timer_start(worker->pause_timer, PAUSE_LOOK_MS, 0);
}

static void arm_opened(struct worker *worker, const char *arm, const char *text)
{
    if (!arms_pause(&worker->arms, arm, text))
        return;
    if (worker->peer != NULL)
        worker_introduce(worker);
    loop_timer_start(worker->pause_timer, worker->settings->breaker_open_ms, 0);
}

static void arm_closed(struct worker *worker, const char *arm, const char *text)
{
    (void)text;
    if (arms_resume(&worker->arms, arm) && worker->peer != NULL)
        worker_introduce(worker);
}

/* --- keys --------------------------------------------------------------------------------------
 */

/* Without a key left, no arm can be served. */
static void pause_all(struct worker *worker, const char *text)
{
    char reason[900];
    snprintf(reason, sizeof reason,
             "no key of %s is left; the last one: %.600s. Put the key right and send SIGHUP to the "
             "worker",
             worker->settings->name, text);
    log_warn("%s", reason);
    for (size_t i = 0; i < worker->arms.n; i++)
        arms_pause(&worker->arms, worker->arms.items[i].name, reason);
    if (worker->peer != NULL)
        worker_introduce(worker);
}

static void key_out(struct worker *worker, const char *fingerprint, const char *text)
{
    size_t at = find_out(worker, fingerprint);
    if (at == worker->n_keys_out) {
        size_t size = (worker->n_keys_out + 1) * sizeof *worker->keys_out;
        worker->keys_out = mem_must_realloc(worker->keys_out, size);
        snprintf(worker->keys_out[worker->n_keys_out++], KEY_FINGERPRINT_SIZE, "%s", fingerprint);
    }
    log_warn("key %s (%s) is out of the pool: %s", fingerprint,
             keys_source(worker->keys, fingerprint), text);
    if (!has_key(worker))
        pause_all(worker, text);
}

static void key_back(struct worker *worker, const char *fingerprint, const char *text)
{
    (void)text;
    size_t at = find_out(worker, fingerprint);
    if (at == worker->n_keys_out)
        return;
    memmove(worker->keys_out + at, worker->keys_out + at + 1,
            (--worker->n_keys_out - at) * sizeof *worker->keys_out);
    log_info("key %s (%s) is back in the pool", fingerprint,
             keys_source(worker->keys, fingerprint));
    look_at_pauses(worker);
}

/* The fingerprints of the pool, in its order; *ret is the caller's, with borrowed strings. */
static size_t list_keys(const struct worker *worker, const char ***ret)
{
    size_t n = keys_count(worker->keys);
    *ret = mem_must_zalloc((n + 1) * sizeof **ret);
    for (size_t i = 0; i < n; i++) {
        struct key *key = keys_at(worker->keys, i);
        (*ret)[i] = key_fingerprint(key);
        key_drop(&key); /* the pool holds it */
    }
    return n;
}

static void keys_changed(void *ctx)
{
    struct worker *worker = ctx;
    const char **keys;
    size_t n = list_keys(worker, &keys);
    worker->n_keys_out = 0; /* those that were out may be good now */
    governor_set_keys(worker->governor, keys, n);
    free(keys);
    look_at_pauses(worker);
    backlog_pump(worker->backlog);
}

void worker_reload_keys(struct worker *worker)
{
    keys_reload(worker->keys, keys_changed, worker);
    if (worker->search_keys != NULL)
        keys_reload(worker->search_keys, NULL, NULL);
}

/* --- the governor ------------------------------------------------------------------------------
 */

static void changed(void *ctx, enum governor_change change, const char *what, const char *text)
{
    static const struct {
        const char *event;
        void (*take)(struct worker *worker, const char *what, const char *text);
    } changes[] = {
        [GOVERNOR_ARM_OPEN] = {"arm-open", arm_opened},
        [GOVERNOR_ARM_CLOSED] = {"arm-closed", arm_closed},
        [GOVERNOR_KEY_OUT] = {"key-out", key_out},
        [GOVERNOR_KEY_BACK] = {"key-back", key_back},
    };
    struct worker *worker = ctx;
    char news[1024];
    const char *source = keys_source(worker->keys, what);
    snprintf(news, sizeof news, "%.256s%s%.200s%s%s%.500s", what, source[0] != '\0' ? " (" : "",
             source, source[0] != '\0' ? ")" : "", text[0] != '\0' ? ": " : "", text);
    changes[change].take(worker, what, text);
    worker_news(worker, changes[change].event, news);
}

static struct governor_limits limits_of(int64_t requests, int64_t tokens, int64_t concurrency)
{
    return (struct governor_limits){requests, tokens, concurrency};
}

int worker_open_limits(struct worker *worker, struct err *err)
{
    static const struct governor_callbacks callbacks = {.change = changed};
    const struct config_provider *settings = worker->settings;
    const char *arms[ARMS_MAX], **keys;
    size_t n_keys = list_keys(worker, &keys);
    for (size_t i = 0; i < worker->arms.n; i++)
        arms[i] = worker->arms.items[i].name;
    struct governor_options options = {
        .provider = settings->name,
        .worker = worker->self->name,
        .limits = limits_of(settings->requests_per_minute, settings->tokens_per_minute,
                            settings->concurrency),
        .key_limits = limits_of(settings->key_requests_per_minute, settings->key_tokens_per_minute,
                                settings->key_concurrency),
        .keys = keys,
        .n_keys = n_keys,
        .arms = arms,
        .n_arms = worker->arms.n,
        .breaker_failures = settings->breaker_failures,
        .breaker_open_ms = settings->breaker_open_ms,
    };
    worker->pause_timer = loop_timer_new(worker->loop, look_at_pauses, worker);
    int rc = governor_open(&worker->governor, worker->loop, worker->queue, &options, &callbacks,
                           worker, err);
    free(keys);
    return rc;
}
