/* Goes through all that Redis stores of tasks: what any key or index names is checked by
 * queue_check(), each task at one moment, so that the system may run meanwhile. */
#include "common/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "common/task_id.h"
#include "schemas/mem.h"

#define SCAN_COUNT "1000"
#define OUTBOX_PAGE "1000"
#define AT_ONCE 16 /* tasks asked for at a time: an answer may be large */

static const char *const sub_indexes[] = {"ready", "lease", "delay", "held", "dead"};
static const char *const task_indexes[] = {"tasks", "fin"};
#define SUB_INDEXES (sizeof sub_indexes / sizeof *sub_indexes)
#define TASK_INDEXES (sizeof task_indexes / sizeof *task_indexes)

/* A task that some key or index names, with the subtasks that indexes name. */
struct suspect {
    UT_hash_handle hh;
    char **subs;
    size_t n_subs;
    char task[TASK_ID_SIZE];
};

struct fsck {
    struct queue *queue;
    queue_finding_fn *finding;
    queue_fsck_fn *done;
    void *ctx;
    struct suspect *suspects; /* hash by task */
    struct suspect *next;     /* to be asked for */
    size_t missing;           /* answers awaited */
    int64_t tasks, findings;
    struct err err;
};

static void found(void *ctx, const char *task, const char *sub, const char *text)
{
    struct fsck *fsck = ctx;
    fsck->findings++;
    if (fsck->finding != NULL)
        fsck->finding(fsck->ctx, task, sub, text);
}

static void fsck_end(struct fsck *fsck)
{
    fsck->done(fsck->ctx, fsck->tasks, fsck->findings, fsck->err.text);
    struct suspect *suspect, *next;
    HASH_ITER (hh, fsck->suspects, suspect, next) {
        HASH_DEL(fsck->suspects, suspect);
        for (size_t i = 0; i < suspect->n_subs; i++)
            free(suspect->subs[i]);
        free(suspect->subs);
        free(suspect);
    }
    free(fsck);
}

/* --- the tasks, one after another ----------------------------------------------------------- */

static void check_more(struct fsck *fsck);

/* The task asked for. */
struct asked {
    struct fsck *fsck;
    const struct suspect *suspect;
};

static void task_answered(void *ctx, const struct redis_value *value)
{
    struct asked asked = *(struct asked *)ctx;
    free(ctx);
    struct fsck *fsck = asked.fsck;
    if (!queue_failed(value, &fsck->err))
        fsck->tasks += queue_check(asked.suspect->task, value, found, fsck);
    fsck->missing--;
    check_more(fsck);
}

static void check_more(struct fsck *fsck)
{
    while (fsck->next != NULL && fsck->missing < AT_ONCE && fsck->err.text[0] == '\0') {
        struct asked *asked = mem_must_zalloc(sizeof *asked);
        *asked = (struct asked){fsck, fsck->next};
        struct queue_args *args = queue_begin(fsck->queue, fsck->next->task);
        for (size_t i = 0; i < fsck->next->n_subs; i++)
            queue_args_str(args, fsck->next->subs[i]);
        fsck->next = fsck->next->hh.next;
        fsck->missing++;
        queue_run(fsck->queue, SCRIPT_check, asked->suspect->task, task_answered, asked);
    }
    if (fsck->missing == 0)
        fsck_end(fsck);
}

/* --- what there is -------------------------------------------------------------------------- */

static void step(struct fsck *fsck)
{
    if (--fsck->missing > 0)
        return;
    fsck->next = fsck->suspects;
    check_more(fsck);
}

/* NULL when it is no task id; then that is a finding. */
static struct suspect *suspect_of(struct fsck *fsck, const char *task, size_t len,
                                  const char *where)
{
    char id[TASK_ID_SIZE] = "", text[256];
    if (len < sizeof id)
        memcpy(id, task, len);
    if (!task_id_valid(id)) {
        snprintf(text, sizeof text, "%s names \"%.100s\", which is no task id", where, task);
        found(fsck, "", "", text);
        return NULL;
    }
    struct suspect *suspect;
    HASH_FIND_STR(fsck->suspects, id, suspect);
    if (suspect == NULL) {
        suspect = mem_must_zalloc(sizeof *suspect);
        memcpy(suspect->task, id, sizeof id);
        HASH_ADD_STR(fsck->suspects, task, suspect);
    }
    return suspect;
}

static void check_shard(struct fsck *fsck, const struct suspect *suspect, int shard,
                        const char *where)
{
    char text[256];
    if (task_shard(suspect->task) == shard)
        return;
    snprintf(text, sizeof text, "%s of shard %d names it, but its shard is %d", where, shard,
             task_shard(suspect->task));
    found(fsck, suspect->task, "", text);
}

/* The answer from one index or outbox. */
struct source {
    struct fsck *fsck;
    const char *name;
    int shard;
};

static struct source *source_new(struct fsck *fsck, const char *name, int shard)
{
    struct source *source = mem_must_zalloc(sizeof *source);
    *source = (struct source){fsck, name, shard};
    fsck->missing++;
    return source;
}

/* value: "T/id", ... */
static void members_answered(void *ctx, const struct redis_value *value)
{
    struct source source = *(struct source *)ctx;
    free(ctx);
    queue_failed(value, &source.fsck->err);
    for (size_t i = 0; i < redis_len(value); i++) {
        size_t len;
        const char *member = redis_str(redis_at(value, i), &len);
        const char *slash = memchr(member, '/', len);
        size_t task_len = slash != NULL ? (size_t)(slash - member) : len;
        struct suspect *suspect = suspect_of(source.fsck, member, task_len, source.name);
        if (suspect == NULL)
            continue;
        check_shard(source.fsck, suspect, source.shard, source.name);
        if (slash == NULL || !sub_id_valid(slash + 1)) {
            found(source.fsck, suspect->task, "", "an index names no valid subtask of it");
            continue;
        }
        suspect->subs = mem_must_realloc(suspect->subs, (suspect->n_subs + 1) * sizeof(char *));
        suspect->subs[suspect->n_subs++] = mem_must_strdup(slash + 1);
    }
    step(source.fsck);
}

/* value: T, ... */
static void tasks_answered(void *ctx, const struct redis_value *value)
{
    struct source source = *(struct source *)ctx;
    free(ctx);
    queue_failed(value, &source.fsck->err);
    for (size_t i = 0; i < redis_len(value); i++) {
        size_t len;
        const char *task = redis_str(redis_at(value, i), &len);
        struct suspect *suspect = suspect_of(source.fsck, task, len, source.name);
        if (suspect != NULL)
            check_shard(source.fsck, suspect, source.shard, source.name);
    }
    step(source.fsck);
}

static void ask_outbox(struct source *source, const char *from);

/* value: [entry, ...]; asks for the next page while there is one. */
static void outbox_answered(void *ctx, const struct redis_value *value)
{
    struct source *source = ctx;
    struct fsck *fsck = source->fsck;
    struct queue_entry *entry = mem_must_zalloc(sizeof *entry);
    char last[64] = "(";
    queue_failed(value, &fsck->err);
    for (size_t i = 0; i < redis_len(value); i++) {
        const char *id = redis_str(redis_at(redis_at(value, i), 0), NULL);
        char text[256];
        snprintf(last, sizeof last, "(%.48s", id);
        size_t at = 0, n = queue_entry_events(redis_at(value, i));
        while (at < n && queue_entry_parse(entry, source->shard, redis_at(value, i), at))
            at++;
        if (at == n)
            continue;
        snprintf(text, sizeof text, "entry %.48s of the outbox of shard %d is not readable", id,
                 source->shard);
        found(fsck, "", "", text);
    }
    free(entry);
    if (redis_len(value) > 0) {
        ask_outbox(source, last);
        return;
    }
    free(source);
    step(fsck);
}

static void ask_outbox(struct source *source, const char *from)
{
    char key[QUEUE_KEY_SIZE];
    queue_shard_key(key, source->shard, "ev");
    redis_command(source->fsck->queue->redis, outbox_answered, source, 6,
                  (const char *[]){"XRANGE", key, from, "+", "COUNT", OUTBOX_PAGE}, NULL);
}

/* An account that is asked for. */
struct account {
    struct fsck *fsck;
    char name[];
};

static void account_answered(void *ctx, const struct redis_value *value)
{
    struct account *account = ctx;
    if (!queue_failed(value, &account->fsck->err))
        queue_check_account(account->name, value, found, account->fsck);
    step(account->fsck);
    free(account);
}

static void ask_account(struct fsck *fsck, const char *key, const char *name)
{
    size_t size = strlen(name) + 1;
    struct account *account = mem_must_zalloc(sizeof *account + size);
    account->fsck = fsck;
    memcpy(account->name, name, size);
    fsck->missing++;
    redis_command(fsck->queue->redis, account_answered, account, 2,
                  (const char *[]){"HGETALL", key}, NULL);
}

/* orch:{s3}:task:T: the task must be in that shard. */
static void check_key(struct fsck *fsck, const char *key)
{
    size_t prefix = strlen(QUEUE_ACCOUNT_PREFIX);
    if (strncmp(key, QUEUE_ACCOUNT_PREFIX, prefix) == 0) {
        ask_account(fsck, key, key + prefix);
        return;
    }
    static const char *const names[] = {"task:", "data:", "log:"};
    char *end;
    long shard = strtol(key + strlen("orch:{s"), &end, 10);
    if (strncmp(end, "}:", 2) != 0)
        return;
    end += 2;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t len = strlen(names[i]);
        if (strncmp(end, names[i], len) != 0)
            continue;
        struct suspect *suspect = suspect_of(fsck, end + len, strlen(end + len), "a key");
        if (suspect != NULL)
            check_shard(fsck, suspect, (int)shard, "a key");
    }
}

/* All keys: of one server, or in a cluster, of the shard's tasks where that shard is. */
struct keys {
    struct fsck *fsck;
    int shard; /* -1: one server */
};

static void ask_keys(struct keys *keys, const char *cursor);

/* value: [cursor, [key, ...]] */
static void keys_answered(void *ctx, const struct redis_value *value)
{
    struct keys *keys = ctx;
    struct fsck *fsck = keys->fsck;
    queue_failed(value, &fsck->err);
    const struct redis_value *names = redis_at(value, 1);
    for (size_t i = 0; i < redis_len(names); i++)
        check_key(fsck, redis_str(redis_at(names, i), NULL));
    const char *cursor = redis_str(redis_at(value, 0), NULL);
    if (fsck->err.text[0] == '\0' && strcmp(cursor, "0") != 0 && cursor[0] != '\0') {
        ask_keys(keys, cursor);
        return;
    }
    free(keys);
    step(fsck);
}

static void ask_keys(struct keys *keys, const char *cursor)
{
    char shard[QUEUE_KEY_SIZE], pattern[QUEUE_KEY_SIZE] = "orch:{[sb]*";
    queue_shard_key(shard, keys->shard, "");
    if (keys->shard >= 0)
        snprintf(pattern, sizeof pattern, "%.64s*", shard);
    redis_command_at(keys->fsck->queue->redis, shard, keys_answered, keys, 6,
                     (const char *[]){"SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT}, NULL);
}

static void ask_all_keys(struct fsck *fsck)
{
    bool cluster = redis_is_cluster(fsck->queue->redis);
    for (int shard = cluster ? 0 : -1; shard < (cluster ? SHARD_COUNT : 0); shard++) {
        struct keys *keys = mem_must_zalloc(sizeof *keys);
        *keys = (struct keys){fsck, shard};
        fsck->missing++;
        ask_keys(keys, "0");
    }
}

void queue_fsck(struct queue *queue, queue_finding_fn *finding, queue_fsck_fn *done, void *ctx)
{
    struct fsck *fsck = mem_must_zalloc(sizeof *fsck);
    *fsck = (struct fsck){.queue = queue, .finding = finding, .done = done, .ctx = ctx};
    for (int shard = 0; shard < SHARD_COUNT; shard++) {
        char key[QUEUE_KEY_SIZE];
        const char *argv[] = {"ZRANGE", key, "0", "-1"};
        for (size_t i = 0; i < SUB_INDEXES; i++) {
            queue_shard_key(key, shard, sub_indexes[i]);
            redis_command(queue->redis, members_answered, source_new(fsck, sub_indexes[i], shard),
                          4, argv, NULL);
        }
        for (size_t i = 0; i < TASK_INDEXES; i++) {
            queue_shard_key(key, shard, task_indexes[i]);
            redis_command(queue->redis, tasks_answered, source_new(fsck, task_indexes[i], shard), 4,
                          argv, NULL);
        }
        ask_outbox(source_new(fsck, "ev", shard), "-");
    }
    ask_all_keys(fsck);
}
