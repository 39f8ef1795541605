#include "common/queue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/queue_internal.h"
#include "common/task_id.h"
#include "schemas/mem.h"

/* --- states ------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    bool terminal;
} sub_states[SUB_STATE_COUNT] =
    {
#define X(constant, text, terminal) {text, terminal},
        SUB_STATES(X)
#undef X
},
  task_states[TASK_STATE_COUNT] = {
#define X(constant, text, terminal) {text, terminal},
      TASK_STATES(X)
#undef X
};

/* Moves of one life of a subtask; queue_retry() starts a new one. */
#define MOVE(to) (1u << SUB_##to)
static const unsigned moves[SUB_STATE_COUNT] = {
    [SUB_BLOCKED] = MOVE(READY) | MOVE(CANCELLED),
    [SUB_READY] = MOVE(RUNNING) | MOVE(HELD) | MOVE(DEAD) | MOVE(CANCELLED),
    [SUB_RUNNING] = MOVE(DONE) | MOVE(DELAYED) | MOVE(DEAD) | MOVE(CANCELLED),
    [SUB_DELAYED] = MOVE(READY) | MOVE(CANCELLED),
    [SUB_HELD] = MOVE(READY) | MOVE(CANCELLED),
};

const char *sub_state_name(enum sub_state state)
{
    return state < SUB_STATE_COUNT ? sub_states[state].name : "?";
}

enum sub_state sub_state_parse(const char *text, size_t len)
{
    for (int i = 0; i < SUB_STATE_COUNT; i++)
        if (strlen(sub_states[i].name) == len && memcmp(sub_states[i].name, text, len) == 0)
            return (enum sub_state)i;
    return SUB_STATE_COUNT;
}

bool sub_state_terminal(enum sub_state state)
{
    return state < SUB_STATE_COUNT && sub_states[state].terminal;
}

bool sub_state_may_move(enum sub_state from, enum sub_state to)
{
    return from < SUB_STATE_COUNT && to < SUB_STATE_COUNT && (moves[from] >> to & 1) != 0;
}

const char *task_state_name(enum task_state state)
{
    return state < TASK_STATE_COUNT ? task_states[state].name : "?";
}

enum task_state task_state_parse(const char *text, size_t len)
{
    for (int i = 0; i < TASK_STATE_COUNT; i++)
        if (strlen(task_states[i].name) == len && memcmp(task_states[i].name, text, len) == 0)
            return (enum task_state)i;
    return TASK_STATE_COUNT;
}

bool task_state_terminal(enum task_state state)
{
    return state < TASK_STATE_COUNT && task_states[state].terminal;
}

/* --- answers ------------------------------------------------------------------------------ */

static const char *const statuses[] = {
    [QUEUE_OK] = "OK",
    [QUEUE_DUP] = "DUP",
    [QUEUE_CONFLICT] = "CONFLICT",
    [QUEUE_TAKEN] = "TAKEN",
    [QUEUE_GONE] = "GONE",
    [QUEUE_CANCEL] = "CANCEL",
    [QUEUE_STALE] = "STALE",
    [QUEUE_WAIT] = "WAIT",
    [QUEUE_BUDGET] = "BUDGET",
    [QUEUE_CANCELLED] = "CANCELLED",
    [QUEUE_RETRY] = "RETRY",
    [QUEUE_DEAD] = "DEAD",
    [QUEUE_REFUSED] = "REFUSED",
    [QUEUE_ERROR] = "ERROR",
};
#define STATUSES (sizeof statuses / sizeof *statuses)

/* Errors of a Redis that takes no writes for now, and what to do about it. */
static const struct {
    const char *code, *sentence;
} refusals[] = {
    {"OOM", "Redis has reached its memory limit and takes no more work: raise maxmemory, or let "
            "finished tasks be archived"},
    {"MISCONF", "Redis cannot write to its disk and takes no more work: look at its log and at the "
                "free space of its disk"},
    {"NOREPLICAS", "Redis misses replicas that its configuration demands and takes no more work"},
    {"NOTREPLICATED", "Redis has it, but not yet enough of its replicas: repeat it until they do; "
                      "what is only in a master that dies is lost"},
    {"FOREIGN", NULL}, /* queue_epoch.c: it is a sentence */
};

const char *queue_status_name(enum queue_status status)
{
    return (size_t)status < STATUSES ? statuses[status] : "?";
}

/* The index of the refusal that the error is, or -1. */
static int refusal_of(const char *text)
{
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        size_t len = strlen(refusals[i].code);
        if (strncmp(text, refusals[i].code, len) == 0 && text[len] == ' ')
            return (int)i;
    }
    return -1;
}

bool queue_failed(const struct redis_value *value, struct err *err)
{
    if (redis_type(value) != REDIS_ERR)
        return false;
    const char *text = redis_str(value, NULL);
    int refusal = refusal_of(text);
    if (refusal >= 0 && refusals[refusal].sentence == NULL)
        err_set(err, 0, "%.500s", text + strlen(refusals[refusal].code) + 1);
    else if (refusal >= 0)
        err_set(err, 0, "%s (%.200s)", refusals[refusal].sentence, text);
    else
        err_set(err, 0, "Redis answered: %.500s", text);
    return true;
}

enum queue_status queue_status_of(const struct redis_value *value, struct err *err)
{
    err->text[0] = '\0';
    if (queue_failed(value, err))
        return refusal_of(redis_str(value, NULL)) >= 0 ? QUEUE_REFUSED : QUEUE_ERROR;
    if (redis_type(value) == REDIS_ARRAY)
        value = redis_at(value, 0);
    const char *text = redis_str(value, NULL);
    for (size_t i = 0; i < QUEUE_REFUSED; i++) /* the others are no script's to say */
        if (strcmp(text, statuses[i]) == 0)
            return (enum queue_status)i;
    err_set(err, 0, "Redis answered a script with \"%.100s\", which is no answer of it", text);
    return QUEUE_ERROR;
}

/* --- calls -------------------------------------------------------------------------------- */

void queue_shard_key(char ret[QUEUE_KEY_SIZE], int shard, const char *name)
{
    snprintf(ret, QUEUE_KEY_SIZE, "orch:{s%d}:%s", shard, name);
}

void queue_task_key(char ret[QUEUE_KEY_SIZE], const char *task, const char *name)
{
    snprintf(ret, QUEUE_KEY_SIZE, "orch:{s%d}:%s:%s", task_shard(task), name, task);
}

static const char *const task_keys[] = {"task", "data", "log"};

static bool is_task_key(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof task_keys / sizeof *task_keys; i++)
        if (strlen(task_keys[i]) == len && memcmp(task_keys[i], name, len) == 0)
            return true;
    return false;
}

struct queue_args *queue_begin(struct queue *queue, const char *task)
{
    queue_args_clear(&queue->args);
    queue_args_str(&queue->args, task);
    return &queue->args;
}

int queue_keys(enum queue_script script, const char *task, char (*ret)[QUEUE_KEY_SIZE])
{
    static const char *const names[SCRIPT_COUNT] = {
#define X(name, keys) keys,
        QUEUE_SCRIPTS(X)
#undef X
    };
    char prefix[24];
    int n = 0;
    size_t prefix_len = (size_t)snprintf(prefix, sizeof prefix, "orch:{s%d}:", task_shard(task));
    size_t task_len = strnlen(task, QUEUE_KEY_SIZE - sizeof prefix - 16);
    for (const char *at = names[script]; *at != '\0'; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        char *key = ret[n++];
        memcpy(key, prefix, prefix_len);
        memcpy(key += prefix_len, at, len);
        key += len;
        if (is_task_key(at, len)) {
            *key++ = ':';
            memcpy(key, task, task_len);
            key += task_len;
        }
        *key = '\0';
        at += len;
    }
    return n;
}

/* Puts the arguments behind the strings in `head` and passes them on as arrays. */
struct arrays {
    const char **argv;
    size_t *lens;
    int n;
};

static struct arrays arrays_make(const struct queue_args *args, char (*head)[QUEUE_KEY_SIZE],
                                 int n_head)
{
    size_t n = args->n + (size_t)n_head;
    struct arrays arrays = {mem_must_realloc(NULL, n * sizeof(char *)),
                            mem_must_realloc(NULL, n * sizeof(size_t)), (int)n};
    for (int i = 0; i < n_head; i++) {
        arrays.argv[i] = head[i];
        arrays.lens[i] = strlen(head[i]);
    }
    for (size_t i = 0; i < args->n; i++)
        arrays.argv[(size_t)n_head + i] = queue_arg(args, i, &arrays.lens[(size_t)n_head + i]);
    return arrays;
}

static void arrays_release(struct arrays *arrays)
{
    free(arrays->argv);
    free(arrays->lens);
}

void queue_run(struct queue *queue, enum queue_script script, const char *task, redis_reply_fn *fn,
               void *ctx)
{
    if (queue_epoch_bars(queue, script, fn, ctx))
        return;
    if (script < QUEUE_BATCH_COUNT) {
        queue_batch_add(queue, script, task, false, fn, ctx);
        return;
    }
    queue_batch_flush(queue);
    char keys[QUEUE_KEYS_MAX][QUEUE_KEY_SIZE];
    int n_keys = queue_keys(script, task, keys);
    struct arrays arrays = arrays_make(&queue->args, keys, n_keys);
    redis_eval(queue->redis, queue_script(script), fn, ctx, n_keys, arrays.n, arrays.argv,
               arrays.lens);
    arrays_release(&arrays);
}

void queue_eval(struct queue *queue, const struct queue_args *args, enum queue_script script,
                int n_keys, redis_reply_fn *fn, void *ctx)
{
    struct arrays arrays = arrays_make(args, NULL, 0);
    redis_eval(queue->redis, queue_script(script), fn, ctx, n_keys, arrays.n, arrays.argv,
               arrays.lens);
    arrays_release(&arrays);
}

void queue_send(struct redis *redis, struct queue_args *args, redis_reply_fn *fn, void *ctx)
{
    struct arrays arrays = arrays_make(args, NULL, 0);
    redis_command(redis, fn, ctx, arrays.n, arrays.argv, arrays.lens);
    arrays_release(&arrays);
}

void queue_send_blocking(struct redis *redis, struct queue_args *args, redis_reply_fn *fn,
                         void *ctx)
{
    struct arrays arrays = arrays_make(args, NULL, 0);
    redis_command_blocking(redis, fn, ctx, arrays.n, arrays.argv, arrays.lens);
    arrays_release(&arrays);
}

struct plain {
    struct queue *queue; /* borrowed */
    queue_fn *fn;
    void *ctx;
};

static void plain_answered(void *ctx, const struct redis_value *value)
{
    struct plain plain = *(struct plain *)ctx;
    free(ctx);
    struct err err;
    enum queue_status status = queue_status_of(value, &err);
    if (plain.fn != NULL && !queue_epoch_verify(plain.queue, status, plain.fn, plain.ctx))
        plain.fn(plain.ctx, status, err.text);
}

void queue_run_plain(struct queue *queue, enum queue_script script, const char *task, queue_fn *fn,
                     void *ctx)
{
    struct plain *plain = mem_must_zalloc(sizeof *plain);
    *plain = (struct plain){queue, fn, ctx};
    queue_run(queue, script, task, plain_answered, plain);
}

void queue_settle_plain(struct queue *queue, enum queue_script script, const char *task, bool known,
                        queue_fn *fn, void *ctx)
{
    struct plain *plain = mem_must_zalloc(sizeof *plain);
    *plain = (struct plain){queue, fn, ctx};
    queue_run_settling(queue, script, task, known, plain_answered, plain);
}

/* --- arguments ---------------------------------------------------------------------------- */

void queue_args_clear(struct queue_args *args)
{
    args->n = 0;
    buf_clear(&args->text);
}

void queue_args_release(struct queue_args *args)
{
    free(args->items);
    buf_release(&args->text);
    *args = (struct queue_args){0};
}

static void add(struct queue_args *args, struct queue_arg arg)
{
    if (args->n == args->cap) {
        args->cap = args->cap > 0 ? args->cap * 2 : 32;
        args->items = mem_must_realloc(args->items, args->cap * sizeof *args->items);
    }
    args->items[args->n++] = arg;
}

void queue_args_bytes(struct queue_args *args, const char *data, size_t len)
{
    add(args, (struct queue_arg){.data = data != NULL ? data : "", .len = len});
}

void queue_args_str(struct queue_args *args, const char *text)
{
    queue_args_bytes(args, text, text != NULL ? strlen(text) : 0);
}

const char *queue_arg(const struct queue_args *args, size_t at, size_t *ret_len)
{
    const struct queue_arg *arg = &args->items[at];
    *ret_len = arg->len;
    if (arg->data != NULL)
        return arg->data;
    return args->text.data != NULL ? args->text.data + arg->offset : "";
}

/* buf's failure is out of memory: the program ends, as with mem_must_*(). */
static void own(struct queue_args *args, size_t offset)
{
    if (args->text.failed)
        abort();
    add(args, (struct queue_arg){.offset = offset, .len = args->text.len - offset});
}

void queue_args_copy(struct queue_args *args, const char *data, size_t len)
{
    size_t offset = args->text.len;
    if (len > 0)
        buf_add(&args->text, data, len);
    own(args, offset);
}

void queue_args_printf(struct queue_args *args, const char *format, ...)
{
    size_t offset = args->text.len;
    va_list list;
    va_start(list, format);
    buf_vprintf(&args->text, format, list);
    va_end(list);
    own(args, offset);
}

void queue_args_word(struct queue_args *args, const char *text)
{
    size_t offset = args->text.len;
    for (const char *at = text != NULL ? text : ""; *at != '\0' && at - text < 200; at++)
        buf_add_char(&args->text, (unsigned char)*at <= ' ' || *at == 0x7f ? '_' : *at);
    if (args->text.len == offset)
        buf_add_char(&args->text, '-');
    own(args, offset);
}

/* Lua counts in doubles: up to 2^53 they are exact. */
void queue_args_spend(struct queue_args *args, const struct queue_spend *spend)
{
    const int64_t most = (INT64_C(1) << 53) - 1, numbers[] = {spend->nano_usd, spend->tokens};
    int64_t kept[2];
    for (size_t i = 0; i < 2; i++)
        kept[i] = numbers[i] < 0 ? 0 : numbers[i] > most ? most : numbers[i];
    queue_args_printf(args, "%lld %lld", (long long)kept[0], (long long)kept[1]);
}

/* --- opening ------------------------------------------------------------------------------ */

static void turn_ends(void *ctx)
{
    queue_batch_flush(ctx);
}

static void redis_up(void *ctx)
{
    struct queue *queue = ctx;
    if (queue->epoch != NULL)
        queue_epoch_up(queue->epoch);
    if (queue->callbacks.up != NULL)
        queue->callbacks.up(queue->callbacks_ctx);
}

static void redis_down(void *ctx, const char *why)
{
    struct queue *queue = ctx;
    if (queue->callbacks.down != NULL)
        queue->callbacks.down(queue->callbacks_ctx, why);
}

int queue_open(struct queue **ret, uv_loop_t *loop, const struct redis_options *options,
               const struct redis_callbacks *callbacks, void *ctx, struct err *err)
{
    static const struct redis_callbacks own = {.up = redis_up, .down = redis_down};
    struct queue *queue = mem_must_zalloc(sizeof *queue);
    int rc = redis_open(&queue->redis, loop, options, &own, queue, err);
    if (rc != 0) {
        free(queue);
        return rc;
    }
    if (callbacks != NULL)
        queue->callbacks = *callbacks;
    queue->callbacks_ctx = ctx;
    boot_nonce_make(queue->nonce);
    queue->loop = loop;
    redis_options_copy(&queue->options, options);
    redis_on_turn(queue->redis, turn_ends, queue);
    *ret = queue;
    return 0;
}

void queue_close(struct queue **ret)
{
    struct queue *queue = *ret;
    *ret = NULL;
    if (queue == NULL)
        return;
    queue_follow_close(&queue->follow);
    queue_batch_close(queue);
    redis_close(&queue->redis);
    queue_epoch_free(&queue->epoch);
    queue_args_release(&queue->args);
    queue_args_release(&queue->batch_args);
    queue_known_release(&queue->known);
    redis_options_release(&queue->options);
    free(queue);
}

struct redis *queue_redis(struct queue *queue)
{
    return queue->redis;
}
