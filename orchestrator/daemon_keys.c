#include "orchestrator/daemon_keys.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/queue_keys.h"
#include "schemas/mem.h"

#define LOOK_MS 500

struct daemon_keys {
    struct queue *queue;
    struct peer *peer;
    struct loop_timer *timer;
    int64_t changes; /* that the list has; -1: there is no list yet */
    bool looking;    /* answers of Redis are to come */
    bool foreign;
    bool told;               /* lines were sent as they are now */
    struct queue_key *items; /* names are owned */
    size_t n_items;
    char **lines; /* `ROLE NAME KEY` of those that are good */
    size_t n_lines;
};

static void release_lines(char **lines, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(lines[i]);
    free(lines);
}

static void release_items(struct daemon_keys *keys)
{
    for (size_t i = 0; i < keys->n_items; i++)
        free((char *)(uintptr_t)keys->items[i].name);
    free(keys->items);
    keys->items = NULL;
    keys->n_items = 0;
}

/* --- telling brokers -------------------------------------------------------------------------- */

static struct message message_of(struct daemon_keys *keys)
{
    return (struct message){
        .type = MESSAGE_keys,
        .keys = {.keys = (const char **)(uintptr_t)keys->lines, .n_keys = keys->n_lines}};
}

static bool same_lines(const struct daemon_keys *keys, char *const *lines, size_t n)
{
    bool same = n == keys->n_lines;
    for (size_t i = 0; i < n && same; i++)
        same = strcmp(lines[i], keys->lines[i]) == 0;
    return same;
}

/* Those that never came in time are left out as their time passes, without a change in Redis. */
static void tell(struct daemon_keys *keys)
{
    int64_t now_ms = clock_wall_ms();
    char **lines = mem_must_zalloc((keys->n_items + 1) * sizeof *lines);
    size_t n = 0;
    for (size_t i = 0; i < keys->n_items; i++) {
        const struct queue_key *key = &keys->items[i];
        if (!queue_key_expired(key, now_ms))
            lines[n++] = mem_must_printf("%s %s %s", keyring_role_name(key->role), key->name,
                                         key->public_key);
    }
    bool same = keys->told && same_lines(keys, lines, n);
    release_lines(keys->lines, keys->n_lines);
    keys->lines = lines;
    keys->n_lines = n;
    keys->told = true;
    if (same)
        return;
    struct message message = message_of(keys);
    peer_send_all(keys->peer, &message);
    log_debug("brokers are told of %zu invited keys", n);
}

void daemon_keys_welcome(struct daemon_keys *keys, int broker)
{
    if (keys == NULL || !keys->told || keys->foreign)
        return;
    struct message message = message_of(keys);
    peer_send(keys->peer, broker, &message);
}

/* --- who has come ----------------------------------------------------------------------------- */

static void note_joined(struct daemon_keys *keys, const char *public_key)
{
    int64_t now_ms = clock_wall_ms();
    for (size_t i = 0; i < keys->n_items; i++) {
        struct queue_key *key = &keys->items[i];
        if (key->joined || queue_key_expired(key, now_ms) ||
            strcmp(key->public_key, public_key) != 0)
            continue;
        log_info("%s %s, which was invited, has joined", keyring_role_name(key->role), key->name);
        key->joined = true;
        queue_keys_joined(keys->queue, key->name, public_key, NULL, NULL);
    }
}

void daemon_keys_admitted(struct daemon_keys *keys, const struct msg_admitted *admitted)
{
    for (size_t i = 0; keys != NULL && !keys->foreign && i < admitted->n_keys; i++)
        note_joined(keys, admitted->keys[i]);
}

/* --- looking ---------------------------------------------------------------------------------- */

static void got_list(void *ctx, const struct queue_key *items, size_t n, const char *err)
{
    struct daemon_keys *keys = ctx;
    keys->looking = false;
    bool failed = items == NULL && err != NULL && err[0] != '\0';
    if (failed || keys->foreign) {
        keys->changes = -1;
        return;
    }
    if (err != NULL && err[0] != '\0')
        log_warn("%s", err);
    release_items(keys);
    keys->items = mem_must_zalloc((n + 1) * sizeof *keys->items);
    keys->n_items = n;
    for (size_t i = 0; i < n; i++) {
        keys->items[i] = items[i];
        keys->items[i].name = mem_must_strdup(items[i].name);
    }
    tell(keys);
}

static void got_changes(void *ctx, int64_t changes)
{
    struct daemon_keys *keys = ctx;
    keys->looking = false;
    if (changes < 0 || keys->foreign)
        return;
    if (changes == keys->changes) {
        tell(keys);
        return;
    }
    keys->changes = changes;
    keys->looking = true;
    queue_keys_list(keys->queue, got_list, keys);
}

static void look(void *ctx)
{
    struct daemon_keys *keys = ctx;
    if (keys->looking || keys->foreign)
        return;
    keys->looking = true;
    queue_keys_changes(keys->queue, got_changes, keys);
}

void daemon_keys_doubt(struct daemon_keys *keys, bool foreign)
{
    if (keys == NULL)
        return;
    keys->foreign = foreign;
    if (foreign)
        keys->changes = -1; /* what it has is read again once it is the right one */
}

struct daemon_keys *daemon_keys_new(uv_loop_t *loop, const struct config *config,
                                    struct queue *queue, struct peer *peer)
{
    if (!config->curve)
        return NULL;
    struct daemon_keys *keys = mem_must_zalloc(sizeof *keys);
    keys->queue = queue;
    keys->peer = peer;
    keys->changes = -1;
    keys->timer = loop_timer_new(loop, look, keys);
    loop_timer_start(keys->timer, 0, LOOK_MS);
    return keys;
}

void daemon_keys_free(struct daemon_keys **keys_ptr)
{
    struct daemon_keys *keys = *keys_ptr;
    *keys_ptr = NULL;
    if (keys == NULL)
        return;
    loop_timer_free(&keys->timer);
    release_items(keys);
    release_lines(keys->lines, keys->n_lines);
    free(keys);
}
