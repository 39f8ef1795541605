#include "common/queue_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/queue_internal.h"
#include "schemas/mem.h"

extern const char script_keys[];
static struct redis_script script = {.name = "keys", .source = script_keys};

/* --- changes ------------------------------------------------------------------------------ */

struct asking {
    queue_fn *fn;
    void *ctx;
};

static void status_answered(void *ctx, const struct redis_value *value)
{
    struct asking asking = *(struct asking *)ctx;
    free(ctx);
    struct err err;
    enum queue_status status = queue_status_of(value, &err);
    if (asking.fn != NULL)
        asking.fn(asking.ctx, status, err.text);
}

/* Arguments up to the first NULL. */
static void run(struct queue *queue, const char *const *words, queue_fn *fn, void *ctx)
{
    const char *args[8] = {QUEUE_KEYS_KEY, QUEUE_KEYS_CHANGES_KEY};
    int n = 2;
    for (; words[n - 2] != NULL; n++)
        args[n] = words[n - 2];
    struct asking *asking = mem_must_zalloc(sizeof *asking);
    *asking = (struct asking){fn, ctx};
    redis_eval(queue_redis(queue), &script, status_answered, asking, 2, n, args, NULL);
}

void queue_keys_put(struct queue *queue, const char *name, enum keyring_role role,
                    const char *public_key, int64_t expires_ms, queue_fn *fn, void *ctx)
{
    char expires[24];
    snprintf(expires, sizeof expires, "%lld", (long long)expires_ms);
    run(queue, (const char *[]){"put", name, keyring_role_name(role), public_key, expires, NULL},
        fn, ctx);
}

void queue_keys_remove(struct queue *queue, const char *name, queue_fn *fn, void *ctx)
{
    run(queue, (const char *[]){"remove", name, NULL}, fn, ctx);
}

void queue_keys_joined(struct queue *queue, const char *name, const char *public_key, queue_fn *fn,
                       void *ctx)
{
    run(queue, (const char *[]){"joined", name, public_key, NULL}, fn, ctx);
}

/* --- reading ------------------------------------------------------------------------------ */

struct listing {
    queue_keys_fn *fn;
    void *ctx;
};

static bool parse(struct queue_key *ret, const struct redis_value *name,
                  const struct redis_value *value)
{
    size_t name_len, len;
    ret->name = redis_str(name, &name_len);
    const char *text = redis_str(value, &len);
    struct queue_word words[4];
    int64_t joined;
    if (!keyring_name_valid(ret->name, name_len) || !queue_split(text, len, words, 4, NULL) ||
        !queue_word_int(&words[2], &ret->expires_ms) || !queue_word_int(&words[3], &joined) ||
        !keyring_valid(words[1].text, words[1].len))
        return false;
    ret->role = keyring_role_parse(words[0].text, words[0].len);
    ret->joined = joined != 0;
    memcpy(ret->public_key, words[1].text, words[1].len);
    ret->public_key[words[1].len] = '\0';
    return ret->role != KEYRING_ROLE_COUNT;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct queue_key *)a)->name, ((const struct queue_key *)b)->name);
}

static void list_answered(void *ctx, const struct redis_value *value)
{
    struct listing listing = *(struct listing *)ctx;
    free(ctx);
    struct err err = {""};
    if (queue_failed(value, &err)) {
        listing.fn(listing.ctx, NULL, 0, err.text);
        return;
    }
    struct queue_key *keys = mem_must_zalloc((redis_len(value) / 2 + 1) * sizeof *keys);
    size_t n = 0;
    for (size_t i = 0; i + 1 < redis_len(value); i += 2) {
        const struct redis_value *name = redis_at(value, i);
        if (parse(&keys[n], name, redis_at(value, i + 1)))
            n++;
        else
            err_set(&err, 0, "%s has a damaged field %.100s: revoke that name and invite it again",
                    QUEUE_KEYS_KEY, redis_str(name, NULL));
    }
    qsort(keys, n, sizeof *keys, by_name);
    listing.fn(listing.ctx, keys, n, err.text);
    free(keys);
}

void queue_keys_list(struct queue *queue, queue_keys_fn *fn, void *ctx)
{
    struct listing *listing = mem_must_zalloc(sizeof *listing);
    *listing = (struct listing){fn, ctx};
    redis_command(queue_redis(queue), list_answered, listing, 2,
                  (const char *[]){"HGETALL", QUEUE_KEYS_KEY}, NULL);
}

bool queue_key_expired(const struct queue_key *key, int64_t wall_ms)
{
    return !key->joined && key->expires_ms != 0 && wall_ms > key->expires_ms;
}

struct counting {
    queue_changes_fn *fn;
    void *ctx;
};

static void changes_answered(void *ctx, const struct redis_value *value)
{
    struct counting counting = *(struct counting *)ctx;
    free(ctx);
    counting.fn(counting.ctx, redis_type(value) == REDIS_ERR ? -1 : redis_int(value));
}

void queue_keys_changes(struct queue *queue, queue_changes_fn *fn, void *ctx)
{
    struct counting *counting = mem_must_zalloc(sizeof *counting);
    *counting = (struct counting){fn, ctx};
    redis_command(queue_redis(queue), changes_answered, counting, 2,
                  (const char *[]){"GET", QUEUE_KEYS_CHANGES_KEY}, NULL);
}
