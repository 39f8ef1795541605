/* Any replies of Redis to the calls of the queue, the answer cache and the governor: every call is
 * answered once, and what it is told is within bounds. This program has a Redis client of its own,
 * whose replies come out of the input, one after the other, in Redis's own notation (lines end with
 * a line feed alone); behind the last one the client is closed. The first byte chooses the call. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/answer_cache.h"
#include "common/containers.h"
#include "common/governor.h"
#include "common/log.h"
#include "common/queue.h"
#include "orchestrator/task_json.h"
#include "schemas/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* --- replies ---------------------------------------------------------------------------------- */

#define DEPTH_MAX 7
#define ELEMENTS_MAX 5000

struct redis_value {
    enum redis_type type;
    int64_t number;
    char *text;
    size_t len; /* of the text, or of elements */
    struct redis_value *elements;
};

static const struct redis_value nothing = {.type = REDIS_NIL};
static const uint8_t *input, *input_end;

static size_t line(const char **ret)
{
    const uint8_t *end = memchr(input, '\n', (size_t)(input_end - input));
    size_t len = (size_t)((end != NULL ? end : input_end) - input);
    *ret = (const char *)input;
    input = end != NULL ? end + 1 : input_end;
    return len;
}

static void set_text(struct redis_value *value, enum redis_type type, const char *text, size_t len)
{
    value->type = type;
    value->text = mem_must_strndup(text, len);
    value->len = len;
}

static void set_bulk(struct redis_value *value, int64_t len)
{
    size_t left = (size_t)(input_end - input);
    size_t take = len < 0 ? 0 : (size_t)len < left ? (size_t)len : left;
    if (len < 0)
        return;
    set_text(value, REDIS_STR, (const char *)input, take);
    input += take < left ? take + 1 : take;
}

static void parse(struct redis_value *value, int depth)
{
    const char *text;
    *value = nothing;
    size_t len = line(&text);
    if (len == 0)
        return;
    char digits[24] = "";
    memcpy(digits, text + 1, len - 1 < sizeof digits ? len - 1 : sizeof digits - 1);
    int64_t number = strtoll(digits, NULL, 10);
    if (*text == '+' || *text == '-')
        set_text(value, *text == '+' ? REDIS_STR : REDIS_ERR, text + 1, len - 1);
    else if (*text == ':')
        *value = (struct redis_value){.type = REDIS_INT, .number = number};
    else if (*text == '$')
        set_bulk(value, number);
    if (*text != '*' || number < 0 || number > ELEMENTS_MAX || depth == DEPTH_MAX)
        return;
    value->type = REDIS_ARRAY;
    value->elements = mem_must_zalloc((size_t)number * sizeof *value->elements);
    while (value->len < (size_t)number && input < input_end)
        parse(&value->elements[value->len++], depth + 1);
}

static void release(struct redis_value *value)
{
    for (size_t i = 0; value->elements != NULL && i < value->len; i++)
        release(&value->elements[i]);
    free(value->elements);
    free(value->text);
}

enum redis_type redis_type(const struct redis_value *value)
{
    return value->type;
}

const char *redis_str(const struct redis_value *value, size_t *ret_len)
{
    if (ret_len != NULL)
        *ret_len = value->text != NULL ? value->len : 0;
    return value->text != NULL ? value->text : "";
}

int64_t redis_int(const struct redis_value *value)
{
    char *end;
    if (value->type == REDIS_INT)
        return value->number;
    const char *text = redis_str(value, NULL);
    long long number = strtoll(text, &end, 10);
    return end != text && *end == '\0' ? number : 0;
}

size_t redis_len(const struct redis_value *value)
{
    return value->type == REDIS_ARRAY ? value->len : 0;
}

const struct redis_value *redis_at(const struct redis_value *value, size_t index)
{
    return index < redis_len(value) ? &value->elements[index] : &nothing;
}

/* --- the client ------------------------------------------------------------------------------- */

struct waiting {
    STAILQ_ENTRY(waiting) link;
    struct redis *redis;
    redis_reply_fn *fn;
    void *ctx;
};
STAILQ_HEAD(waitings, waiting);

struct redis {
    void (*turn)(void *ctx);
    void *turn_ctx;
};

static struct waitings waitings = STAILQ_HEAD_INITIALIZER(waitings);
static struct redis *with_turn;

static void ask(struct redis *redis, redis_reply_fn *fn, void *ctx)
{
    struct waiting *waiting = mem_must_zalloc(sizeof *waiting);
    *waiting = (struct waiting){.redis = redis, .fn = fn, .ctx = ctx};
    STAILQ_INSERT_TAIL(&waitings, waiting, link);
}

int redis_open(struct redis **ret, uv_loop_t *loop, const struct redis_options *options,
               const struct redis_callbacks *callbacks, void *ctx, struct err *err)
{
    (void)loop, (void)options, (void)callbacks, (void)ctx, (void)err;
    *ret = mem_must_zalloc(sizeof **ret);
    return 0;
}

void redis_answer_closed(redis_reply_fn *fn, void *ctx)
{
    static char text[] = "CLOSED the client was closed";
    struct redis_value closed = {.type = REDIS_ERR, .text = text, .len = sizeof text - 1};
    if (fn != NULL)
        fn(ctx, &closed);
}

void redis_close(struct redis **redis)
{
    struct waitings kept = STAILQ_HEAD_INITIALIZER(kept), closed = STAILQ_HEAD_INITIALIZER(closed);
    struct waiting *waiting;
    if (*redis == NULL)
        return;
    while ((waiting = STAILQ_FIRST(&waitings)) != NULL) {
        STAILQ_REMOVE_HEAD(&waitings, link);
        if (waiting->redis == *redis)
            STAILQ_INSERT_TAIL(&closed, waiting, link);
        else
            STAILQ_INSERT_TAIL(&kept, waiting, link);
    }
    STAILQ_CONCAT(&waitings, &kept);
    while ((waiting = STAILQ_FIRST(&closed)) != NULL) {
        STAILQ_REMOVE_HEAD(&closed, link);
        redis_answer_closed(waiting->fn, waiting->ctx);
        free(waiting);
    }
    if (with_turn == *redis)
        with_turn = NULL;
    free(*redis);
    *redis = NULL;
}

bool redis_connected(const struct redis *redis)
{
    (void)redis;
    return true;
}

bool redis_is_cluster(const struct redis *redis)
{
    (void)redis;
    return false;
}

size_t redis_pending(const struct redis *redis)
{
    (void)redis;
    return 0;
}

const char *redis_name(const struct redis *redis)
{
    (void)redis;
    return "fuzz";
}

void redis_command(struct redis *redis, redis_reply_fn *fn, void *ctx, int argc,
                   const char *const *argv, const size_t *lens)
{
    (void)argc, (void)argv, (void)lens;
    ask(redis, fn, ctx);
}

void redis_command_blocking(struct redis *redis, redis_reply_fn *fn, void *ctx, int argc,
                            const char *const *argv, const size_t *lens)
{
    redis_command(redis, fn, ctx, argc, argv, lens);
}

void redis_command_at(struct redis *redis, const char *key, redis_reply_fn *fn, void *ctx, int argc,
                      const char *const *argv, const size_t *lens)
{
    (void)key;
    redis_command(redis, fn, ctx, argc, argv, lens);
}

void redis_simple(struct redis *redis, redis_reply_fn *fn, void *ctx, const char *words)
{
    (void)words;
    ask(redis, fn, ctx);
}

void redis_subscribe(struct redis *redis, const char *channel, redis_reply_fn *fn, void *ctx)
{
    (void)channel;
    ask(redis, fn, ctx);
    ask(redis, fn, ctx);
}

void redis_eval(struct redis *redis, struct redis_script *script, redis_reply_fn *fn, void *ctx,
                int n_keys, int n_args, const char *const *args, const size_t *lens)
{
    (void)script, (void)n_keys, (void)n_args, (void)args, (void)lens;
    ask(redis, fn, ctx);
}

void redis_on_turn(struct redis *redis, void (*fn)(void *ctx), void *ctx)
{
    redis->turn = fn;
    redis->turn_ctx = ctx;
    with_turn = redis;
}

/* Answers what waits, as long as there are replies. */
static void pump(void)
{
    for (int i = 0; i < 1000; i++) {
        if (with_turn != NULL && with_turn->turn != NULL)
            with_turn->turn(with_turn->turn_ctx);
        struct waiting *waiting = STAILQ_FIRST(&waitings);
        if (waiting == NULL || input >= input_end)
            return;
        STAILQ_REMOVE_HEAD(&waitings, link);
        struct redis_value value;
        parse(&value, 0);
        if (waiting->fn != NULL)
            waiting->fn(waiting->ctx, &value);
        release(&value);
        free(waiting);
    }
}

/* --- calls ------------------------------------------------------------------------------------ */

#define TASK "01hzy3v7q8k9m2n4p5r6s7t8w9"

static uv_loop_t loop;
static int answers; /* of the call that is answered once */

static void must_hold(bool holds)
{
    if (!holds)
        abort();
}

static void read_bytes(struct bytes bytes)
{
    unsigned sum = 0;
    for (size_t i = 0; i < bytes.len; i++)
        sum += (unsigned char)bytes.data[i];
    must_hold(sum <= 255 * bytes.len);
}

static void told(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx;
    answers++;
    must_hold((*err != '\0') || (status != QUEUE_ERROR && status != QUEUE_REFUSED));
}

static void task_told(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    told(ctx, status, err);
    must_hold((view != NULL) == (status == QUEUE_OK));
    if (view == NULL)
        return;
    json_t *task = task_json(view);
    json_decref(task);
}

static void claimed(void *ctx, enum queue_status status, const struct queue_claim *claim,
                    const char *err)
{
    told(ctx, status, err);
    must_hold((claim != NULL) == (status == QUEUE_OK));
    for (size_t i = 0; claim != NULL && i < claim->n_deps; i++)
        read_bytes(claim->deps[i]);
}

static void bytes_told(void *ctx, enum queue_status status, struct bytes bytes, const char *err)
{
    told(ctx, status, err);
    read_bytes(bytes);
}

static void items_told(void *ctx, int shard, const struct queue_item *items, size_t n_items,
                       const char *err)
{
    (void)ctx, (void)shard, (void)err;
    answers++;
    for (size_t i = 0; i < n_items; i++) {
        must_hold(strlen(items[i].task) < 64 && strlen(items[i].sub) < 80);
        read_bytes(items[i].meta);
        must_hold(items[i].avoid != NULL && items[i].error_class != NULL);
    }
}

static void event_told(void *ctx, const struct queue_event *event)
{
    (void)ctx;
    must_hold(strlen(event->task) <= 64 && event->kind < QUEUE_EVENT_KIND_COUNT);
    must_hold(strlen(event->reason) + strlen(event->avoid) + strlen(event->error_class) < 5000);
    read_bytes(event->meta);
    read_bytes(event->timing);
}

static void log_told(void *ctx, const struct queue_log_entry *entry)
{
    (void)ctx;
    must_hold(strlen(entry->id) + strlen(entry->what) + strlen(entry->sub) + strlen(entry->worker) +
                  strlen(entry->arm) <
              700);
    must_hold(entry->text != NULL && entry->error_class != NULL);
}

static void list_told(void *ctx, const struct queue_task_item *items, size_t n_items,
                      const char *err)
{
    (void)ctx, (void)err;
    answers++;
    for (size_t i = 0; i < n_items; i++)
        must_hold(items[i].id != NULL && items[i].title != NULL);
}

static void depths_told(void *ctx, const struct queue_depths *depths, const char *err)
{
    (void)ctx, (void)err;
    must_hold(depths != NULL || *err != '\0');
    answers++;
}

static void names_told(void *ctx, const char *const *jsons, size_t n, const char *err)
{
    (void)ctx, (void)err;
    answers++;
    for (size_t i = 0; i < n; i++)
        must_hold(strlen(jsons[i]) < SIZE_MAX);
}

static void spent_told(void *ctx, const struct queue_spend *spent, const struct queue_spend *held,
                       size_t n, const char *err)
{
    (void)ctx, (void)err, (void)spent, (void)held, (void)n;
    answers++;
}

static void finding_told(void *ctx, const char *task, const char *sub, const char *finding)
{
    (void)ctx;
    must_hold(task != NULL && sub != NULL && *finding != '\0');
}

static void checked(void *ctx, int64_t tasks, int64_t findings, const char *err)
{
    (void)ctx, (void)err;
    must_hold(tasks >= 0 && findings >= 0);
    answers++;
}

static void answer_told(void *ctx, enum answer_status status, struct bytes answer)
{
    (void)ctx, (void)status;
    read_bytes(answer);
}

static void ask_cache(struct queue *queue)
{
    struct answer_cache_options options = {.ttl_s = 10, .max_bytes = 1000, .flight_ms = 1000};
    struct answer_cache *cache = answer_cache_new(&loop, queue, &options);
    char key[ANSWER_KEY_SIZE];
    memset(key, 'a', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    answer_cache_get(cache, key, "me", answer_told, NULL);
    answer_cache_get(cache, key, "you", answer_told, NULL);
    pump();
    answer_cache_store(cache, key, "me", (struct bytes){"x", 1});
    pump();
    answer_cache_free(&cache);
}

static void reserve(struct queue *queue)
{
    static const struct queue_account accounts[] = {{"day", {1000000000, 0}}, {"role:a", {0, 5}}};
    queue_reserve(queue, TASK, "a", "1-n", accounts, 2, (struct queue_spend){5, 5}, told, NULL);
}

static bool call(struct queue *queue, uint8_t which)
{
    static const char *const names[] = {"day", "role:a"};
    struct queue_spend spent = {1, 1};
    switch (which) {
    case 'r':
        queue_read(queue, TASK, true, task_told, NULL);
        return true;
    case 'c':
        queue_claim(queue, TASK, "a", "w", "m@p", "n", 1000, false, claimed, NULL);
        return true;
    case 'h':
        queue_claim(queue, TASK, "a", "w", "m@p", "n", 1000, true, claimed, NULL);
        return true;
    case 'm':
        queue_commit(queue, TASK, "a", "1-n", (struct bytes){"o", 1}, (struct bytes){"t", 1},
                     &spent, told, NULL);
        return true;
    case 'x':
        queue_fail(queue, TASK, "a", "1-n", CLASS_TIMEOUT, ERROR_RETRY, "why", "m@p", 5,
                   (struct bytes){"t", 1}, &spent, told, NULL);
        return true;
    case 'v':
        reserve(queue);
        return true;
    case 'y':
        queue_retry(queue, TASK, told, NULL);
        return true;
    case 'u':
        queue_result(queue, TASK, "a", bytes_told, NULL);
        return true;
    case 's':
    case 'S':
        queue_scan(queue, 3, which == 's' ? QUEUE_INDEX_READY : QUEUE_INDEX_LEASE, 0, 10,
                   items_told, NULL);
        return true;
    case 'l':
        queue_list(queue, 10, list_told, NULL);
        return true;
    case 'F':
        queue_finished(queue, 3, 1000, 10, list_told, NULL);
        return true;
    case 'd':
        queue_depths(queue, depths_told, NULL);
        return true;
    case 'o':
        queue_orchestrators(queue, names_told, NULL);
        return true;
    case 'a':
        queue_accounts(queue, names, 2, spent_told, NULL);
        return true;
    default:
        queue_fsck(queue, finding_told, checked, NULL);
        return true;
    }
}

static void follow(struct queue *queue, uint8_t which)
{
    struct queue_log_follow *log = NULL;
    struct err err;
    if (which == 'e')
        must_hold(queue_follow(queue, event_told, NULL, &err) == 0);
    if (which == 'g')
        must_hold(queue_log_open(&log, queue, TASK, "0", log_told, NULL, &err) == 0);
    pump();
    queue_log_close(&log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool prepared;
    struct redis_options options = {.socket = NULL};
    struct queue *queue;
    struct err err;
    if (size == 0)
        return 0;
    if (!prepared) {
        log_init("fuzz", LOG_LEVEL_ERROR);
        loop_init(&loop);
        prepared = true;
    }
    input = data + 1;
    input_end = data + size;
    answers = 0;
    must_hold(queue_open(&queue, &loop, &options, NULL, NULL, &err) == 0);
    bool once = false;
    if (data[0] == 'e' || data[0] == 'g')
        follow(queue, data[0]);
    else if (data[0] == 'k')
        ask_cache(queue);
    else
        once = call(queue, data[0]);
    pump();
    queue_close(&queue);
    must_hold(!once || answers == 1);
    uv_run(&loop, UV_RUN_NOWAIT);
    uv_run(&loop, UV_RUN_NOWAIT);
    return 0;
}
