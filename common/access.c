#include "common/access.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/queue_keys.h"
#include "common/sha256.h"
#include "schemas/mem.h"

#define LOOK_MS 5000 /* between looks for invitations that have expired */

/* --- rules ------------------------------------------------------------------------------------ */

/* What a worker sends, and what the scripts that it calls send in turn: Redis checks these too. A
 * worker that was broken into can spoil tasks, but not invite, lead, read settings, flush, or stop
 * everybody with another epoch. */
static const char worker_rules[] =
    " resetkeys ~orch:{s* ~orch:{b}:* ~orch:{c}:* %R~orch:{d}:epoch resetchannels &orch:{s* "
    "&orch:{c}:* -@all +ping +select +evalsha +script|load +subscribe +unsubscribe +publish +wait "
    "+time +role +cluster|slots +cluster|shards +asking +readonly +get +set +del +unlink +exists "
    "+mget "
    "+decrby +incrby +pexpire +pttl +hget +hset +hdel +hmget +hgetall +hexists +hincrby +hstrlen "
    "+hlen +zadd +zrem +zscore +zcard +zrange +zrangebyscore +zremrangebyscore +zremrangebyrank "
    "+xadd +xlen +rpush +llen +lrange +ltrim";

/* A daemon and its tools, which is all of ours but users and settings. */
static const char orchestrator_rules[] =
    " resetkeys ~orch:* resetchannels &orch:* -@all +@read +@write +@pubsub +@transaction "
    "-@dangerous -@scripting +ping +select +time +wait +role +eval +evalsha +evalsha_ro "
    "+script|load +script|exists +cluster|slots +cluster|shards +asking +readonly";

void access_rules(enum keyring_role role, const char *const *providers, size_t n_providers,
                  struct buf *out)
{
    buf_add_str(out, role == KEYRING_WORKER ? worker_rules : orchestrator_rules);
    for (size_t i = 0; role == KEYRING_WORKER && i < n_providers; i++)
        buf_printf(out, " ~orch:{l:%s}:* &orch:{l:%s}:*", providers[i], providers[i]);
}

/* A provider's name goes into a pattern. */
static bool is_plain(const char *word)
{
    return *word != '\0' && strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                         "0123456789._-") == strlen(word);
}

void access_password_make(char ret[ACCESS_PASSWORD_SIZE])
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned char random[ACCESS_PASSWORD_SIZE - 1];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        abort(); /* the kernel has none: nothing here may be made */
    for (size_t i = 0; i < sizeof random; i++)
        ret[i] = letters[random[i] % 64];
    ret[sizeof random] = '\0';
    explicit_bzero(random, sizeof random);
}

char *access_user(enum keyring_role role, const char *name)
{
    return mem_must_printf("%s-%s", keyring_role_name(role), name);
}

/* --- what is stored --------------------------------------------------------------------------- */

#define WORDS_MAX 64

struct entry {
    enum keyring_role role;
    char hash[SHA256_HEX_SIZE];
    char *text; /* owned: the words are in it */
    const char *providers[WORDS_MAX];
    size_t n_providers;
};

/* `ROLE HASH PROVIDER...`; false when it is damaged. entry->text is to be freed either way. */
static bool parse(struct entry *ret, const char *text)
{
    char *rest = NULL;
    *ret = (struct entry){.text = mem_must_strdup(text)};
    const char *role = strtok_r(ret->text, " ", &rest);
    const char *hash = role != NULL ? strtok_r(NULL, " ", &rest) : NULL;
    if (hash == NULL || strlen(hash) != sizeof ret->hash - 1 ||
        strspn(hash, "0123456789abcdef") != sizeof ret->hash - 1)
        return false;
    ret->role = keyring_role_parse(role, strlen(role));
    memcpy(ret->hash, hash, sizeof ret->hash);
    for (const char *word; (word = strtok_r(NULL, " ", &rest)) != NULL;) {
        if (!is_plain(word) || ret->n_providers == WORDS_MAX)
            return false;
        ret->providers[ret->n_providers++] = word;
    }
    return ret->role == KEYRING_WORKER || ret->role == KEYRING_ORCHESTRATOR;
}

/* ACL SETUSER, whose words are separated by spaces. */
static void send_user(struct redis *redis, const char *name, const struct entry *entry,
                      redis_reply_fn *fn, void *ctx)
{
    struct buf rules = {0};
    const char *argv[256];
    int argc = 0;
    char *user = access_user(entry->role, name), *rest = NULL;
    buf_printf(&rules, "reset on #%s", entry->hash);
    access_rules(entry->role, entry->providers, entry->n_providers, &rules);
    argv[argc++] = "ACL";
    argv[argc++] = "SETUSER";
    argv[argc++] = user;
    for (char *word = strtok_r(rules.data, " ", &rest); word != NULL && argc < 256;
         word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    redis_command(redis, fn, ctx, argc, argv, NULL);
    buf_release(&rules);
    free(user);
}

static void drop_users(struct redis *redis, const char *name, redis_reply_fn *fn, void *ctx)
{
    char *worker = access_user(KEYRING_WORKER, name);
    char *orchestrator = access_user(KEYRING_ORCHESTRATOR, name);
    redis_command(redis, fn, ctx, 4, (const char *[]){"ACL", "DELUSER", worker, orchestrator},
                  NULL);
    free(worker);
    free(orchestrator);
}

/* --- giving and taking ------------------------------------------------------------------------ */

/* Two commands whose answers are told as one. */
struct change {
    access_fn *fn;
    void *ctx;
    int left;
    char err[512];
};

static void step_answered(void *ctx, const struct redis_value *value)
{
    struct change *change = ctx;
    const char *text = redis_str(value, NULL);
    if (redis_type(value) == REDIS_ERR && change->err[0] == '\0')
        snprintf(change->err, sizeof change->err,
                 strncmp(text, "NOPERM", 6) == 0
                     ? "its user in the configuration may not manage users: %.300s; give it +acl, "
                       "or give --redis a URL with a user that you have made yourself"
                     : "%.400s",
                 text);
    if (--change->left > 0)
        return;
    change->fn(change->ctx, change->err);
    free(change);
}

static struct change *change_new(access_fn *fn, void *ctx)
{
    struct change *change = mem_must_zalloc(sizeof *change);
    change->fn = fn;
    change->ctx = ctx;
    change->left = 2;
    return change;
}

void access_give(struct redis *redis, const struct access_grant *grant, access_fn *fn, void *ctx)
{
    struct change *change = change_new(fn, ctx);
    struct entry entry = {.role = grant->role};
    struct buf line = {0};
    sha256_hex_of(grant->password, strlen(grant->password), entry.hash);
    buf_printf(&line, "%s %s", keyring_role_name(grant->role), entry.hash);
    for (size_t i = 0; i < grant->n_providers && i < WORDS_MAX; i++) {
        if (!is_plain(grant->providers[i]))
            continue;
        buf_printf(&line, " %s", grant->providers[i]);
        entry.providers[entry.n_providers++] = grant->providers[i];
    }
    /* What is to be comes first: a daemon that is asked in between makes the user, too. */
    redis_command(redis, step_answered, change, 4,
                  (const char *[]){"HSET", ACCESS_KEY, grant->name, line.data}, NULL);
    send_user(redis, grant->name, &entry, step_answered, change);
    buf_release(&line);
}

void access_take(struct redis *redis, const char *name, access_fn *fn, void *ctx)
{
    struct change *change = change_new(fn, ctx);
    redis_command(redis, step_answered, change, 3, (const char *[]){"HDEL", ACCESS_KEY, name},
                  NULL);
    drop_users(redis, name, step_answered, change);
}

/* --- keeping ---------------------------------------------------------------------------------- */

struct access {
    struct redis *redis;
    struct loop_timer *timer;
    bool refused; /* this user may not manage users: another daemon does */
};

static void kept(void *ctx, const struct redis_value *value)
{
    struct access *access = ctx;
    const char *text = redis_str(value, NULL);
    if (redis_type(value) != REDIS_ERR || strncmp(text, "CLOSED", 6) == 0 || access->refused)
        return;
    access->refused = strncmp(text, "NOPERM", 6) == 0;
    if (access->refused)
        log_info("Redis does not let this program keep the users of invited workers: another "
                 "orchestrator must");
    else
        log_warn("Redis did not take a user of an invited worker: %s", text);
}

/* Whether who was invited so may still come: `ROLE KEY EXPIRES_MS JOINED`. */
static bool stands(const char *line)
{
    char role[32], key[64];
    long long expires_ms;
    int joined;
    if (sscanf(line, "%31s %63s %lld %d", role, key, &expires_ms, &joined) != 4)
        return false;
    return expires_ms == 0 || joined != 0 || expires_ms > clock_wall_ms();
}

/* One who is entitled, while it is asked whether he is still invited. */
struct looking {
    struct access *access;
    bool make; /* the user, else only drop it */
    char *name, *line;
};

static void got_key(void *ctx, const struct redis_value *value)
{
    struct looking *looking = ctx;
    struct access *access = looking->access;
    struct entry entry = {0};
    if (redis_type(value) == REDIS_ERR) {
        log_debug("who is invited is not known now: %s", redis_str(value, NULL));
    } else if (!stands(redis_str(value, NULL))) {
        redis_command(access->redis, kept, access, 3,
                      (const char *[]){"HDEL", ACCESS_KEY, looking->name}, NULL);
        drop_users(access->redis, looking->name, kept, access);
    } else if (looking->make && parse(&entry, looking->line)) {
        send_user(access->redis, looking->name, &entry, kept, access);
    } else if (looking->make) {
        log_warn("the entry of `%.100s` in " ACCESS_KEY " is damaged: invite it again",
                 looking->name);
    }
    free(entry.text);
    free(looking->name);
    free(looking->line);
    free(looking);
}

static void look(struct access *access, const struct redis_value *value, bool make)
{
    for (size_t i = 0; i + 1 < redis_len(value) && !access->refused; i += 2) {
        struct looking *looking = mem_must_zalloc(sizeof *looking);
        looking->access = access;
        looking->make = make;
        looking->name = mem_must_strdup(redis_str(redis_at(value, i), NULL));
        looking->line = mem_must_strdup(redis_str(redis_at(value, i + 1), NULL));
        redis_command(access->redis, got_key, looking, 3,
                      (const char *[]){"HGET", QUEUE_KEYS_KEY, looking->name}, NULL);
    }
}

static void make_users(void *ctx, const struct redis_value *value)
{
    look(ctx, value, true);
}

static void drop_expired(void *ctx, const struct redis_value *value)
{
    look(ctx, value, false);
}

static void time_to_look(void *ctx)
{
    struct access *access = ctx;
    if (redis_connected(access->redis) && redis_pending(access->redis) == 0)
        redis_simple(access->redis, drop_expired, access, "HGETALL " ACCESS_KEY);
}

static void connected(void *ctx)
{
    struct access *access = ctx;
    access->refused = false;
    redis_simple(access->redis, make_users, access, "HGETALL " ACCESS_KEY);
}

int access_open(struct access **ret, uv_loop_t *loop, const struct redis_options *options,
                struct err *err)
{
    static const struct redis_callbacks callbacks = {.up = connected};
    struct access *access = mem_must_zalloc(sizeof *access);
    int rc = redis_open(&access->redis, loop, options, &callbacks, access, err);
    if (rc != 0) {
        free(access);
        return rc;
    }
    access->timer = loop_timer_new(loop, time_to_look, access);
    loop_timer_start(access->timer, LOOK_MS, LOOK_MS);
    *ret = access;
    return 0;
}

void access_close(struct access **access_ptr)
{
    struct access *access = *access_ptr;
    *access_ptr = NULL;
    if (access == NULL)
        return;
    loop_timer_free(&access->timer);
    redis_close(&access->redis);
    free(access);
}
