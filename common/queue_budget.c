/* Budgets: what is reserved before a call and settled after it. */
#include "common/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/task_id.h"
#include "schemas/mem.h"

#define TASK_ROLE "task-role:"
#define ROLE "role:"

/* --- the keys of accounts ------------------------------------------------------------------- */

/* Its place among those that are known. */
static size_t know(struct queue_known *known, const char *name)
{
    for (size_t i = 0; i < known->n; i++)
        if (strcmp(known->names[i], name) == 0)
            return i;
    known->names = mem_must_realloc(known->names, (known->n + 1) * sizeof *known->names);
    known->names[known->n] = mem_must_strdup(name);
    return known->n++;
}

bool queue_known_missing(struct queue *queue, const struct redis_value *value, size_t sent)
{
    bool helps = false;
    if (redis_type(value) != REDIS_ARRAY ||
        strcmp(redis_str(redis_at(value, 0), NULL), "ACCOUNTS") != 0)
        return false;
    for (size_t i = 1; i < redis_len(value); i++)
        helps = know(&queue->known, redis_str(redis_at(value, i), NULL)) >= sent || helps;
    return helps;
}

size_t queue_known_keys(const struct queue *queue, struct queue_args *args)
{
    for (size_t i = 0; i < queue->known.n; i++)
        queue_args_printf(args, QUEUE_ACCOUNT_PREFIX "%s", queue->known.names[i]);
    return queue->known.n;
}

void queue_known_release(struct queue_known *known)
{
    for (size_t i = 0; i < known->n; i++)
        free(known->names[i]);
    free(known->names);
    *known = (struct queue_known){0};
}

/* --- calls that settle ---------------------------------------------------------------------- */

/* A call that may be sent again with further keys. */
struct settling {
    struct queue *queue; /* borrowed */
    enum queue_script script;
    redis_reply_fn *fn;
    void *ctx;
    char task[TASK_ID_SIZE];
    bool known;             /* the keys of known accounts go with it */
    size_t sent;            /* so many */
    struct queue_args args; /* without keys */
};

static void send_settling(struct settling *settling);

static void settled(void *ctx, const struct redis_value *value)
{
    struct settling *settling = ctx;
    if (queue_known_missing(settling->queue, value, settling->sent)) {
        settling->known = true;
        send_settling(settling);
        return;
    }
    settling->fn(settling->ctx, value);
    queue_args_release(&settling->args);
    free(settling);
}

static void send_settling(struct settling *settling)
{
    struct queue *queue = settling->queue;
    struct queue_args *out = &queue->batch_args;
    char keys[QUEUE_KEYS_MAX][QUEUE_KEY_SIZE];
    int n_keys = queue_keys(settling->script, settling->task, keys);
    queue_batch_flush(queue);
    queue_args_clear(out);
    for (int i = 0; i < n_keys; i++)
        queue_args_copy(out, keys[i], strlen(keys[i]));
    settling->sent = settling->known ? queue_known_keys(queue, out) : 0;
    n_keys += (int)settling->sent;
    for (size_t i = 0; i < settling->args.n; i++) {
        size_t len;
        const char *data = queue_arg(&settling->args, i, &len);
        queue_args_bytes(out, data, len);
    }
    queue_eval(queue, out, settling->script, n_keys, settled, settling);
}

void queue_run_settling(struct queue *queue, enum queue_script script, const char *task, bool known,
                        redis_reply_fn *fn, void *ctx)
{
    if (queue_epoch_bars(queue, script, fn, ctx))
        return;
    if (script < QUEUE_BATCH_COUNT) {
        queue_batch_add(queue, script, task, known, fn, ctx);
        return;
    }
    struct settling *settling = mem_must_zalloc(sizeof *settling);
    *settling =
        (struct settling){.queue = queue, .script = script, .fn = fn, .ctx = ctx, .known = known};
    strncat(settling->task, task, sizeof settling->task - 1);
    for (size_t i = 0; i < queue->args.n; i++) {
        size_t len;
        const char *data = queue_arg(&queue->args, i, &len);
        queue_args_copy(&settling->args, data, len);
    }
    send_settling(settling);
}

/* --- reserving ------------------------------------------------------------------------------ */

struct reserving {
    queue_fn *fn;
    void *ctx;
};

/* A role's name as a word of a stored line. */
static void account_word(char *ret, size_t size, const char *name)
{
    size_t at = 0;
    for (; name[at] != '\0' && at + 1 < size; at++)
        ret[at] = (unsigned char)name[at] <= ' ' || name[at] == 0x7f ? '_' : name[at];
    ret[at] = '\0';
}

/* "$1.25", "$0.0003": to the last figure, but at least cents. */
static const char *usd(char ret[40], int64_t nano)
{
    int n = snprintf(ret, 40, "$%lld.%09lld", (long long)(nano / 1000000000),
                     (long long)(nano % 1000000000));
    while (ret[n - 1] == '0' && ret[n - 3] != '.')
        ret[--n] = '\0';
    return ret;
}

/* "the task's budget", as the account's name says. */
static void budget_of_whom(char *ret, size_t size, const char *account)
{
    if (strcmp(account, "task") == 0)
        snprintf(ret, size, "the task's budget");
    else if (strncmp(account, TASK_ROLE, strlen(TASK_ROLE)) == 0)
        snprintf(ret, size, "the budget of role %.100s in this task", account + strlen(TASK_ROLE));
    else if (strncmp(account, ROLE, strlen(ROLE)) == 0)
        snprintf(ret, size, "today's budget of role %.100s", account + strlen(ROLE));
    else
        snprintf(ret, size, "today's budget");
}

/* value: [status, account, usd or tokens, limit, spent, held, this] */
static void say_why(char *ret, size_t size, bool waits, const struct redis_value *value)
{
    bool money = strcmp(redis_str(redis_at(value, 2), NULL), "usd") == 0;
    int64_t limit = redis_int(redis_at(value, 3)), spent = redis_int(redis_at(value, 4)),
            held = redis_int(redis_at(value, 5)), worst = redis_int(redis_at(value, 6));
    int64_t left = limit - spent - (waits ? held : 0);
    char whom[160], texts[4][40], reserved[80] = "";
    left = left > 0 ? left : 0;
    budget_of_whom(whom, sizeof whom, redis_str(redis_at(value, 1), NULL));
    if (money) {
        if (waits)
            snprintf(reserved, sizeof reserved, " beside the %s of calls under way",
                     usd(texts[0], held));
        snprintf(ret, size, "%s of %s has %s left%s, and this call could cost up to %s", whom,
                 usd(texts[1], limit), usd(texts[2], left), reserved, usd(texts[3], worst));
        return;
    }
    if (waits)
        snprintf(reserved, sizeof reserved, " beside the %lld of calls under way", (long long)held);
    snprintf(ret, size, "%s of %lld tokens has %lld left%s, and this call could take up to %lld",
             whom, (long long)limit, (long long)left, reserved, (long long)worst);
}

static void reserved(void *ctx, const struct redis_value *value)
{
    struct reserving reserving = *(struct reserving *)ctx;
    free(ctx);
    struct err err;
    char text[512];
    enum queue_status status = queue_status_of(value, &err);
    if (status == QUEUE_WAIT || status == QUEUE_BUDGET) {
        say_why(text, sizeof text, status == QUEUE_WAIT, value);
        reserving.fn(reserving.ctx, status, text);
        return;
    }
    reserving.fn(reserving.ctx, status, err.text);
}

static void add_words(struct queue_args *args, const struct queue_spend *spend)
{
    struct queue_args one = {0};
    size_t len;
    queue_args_spend(&one, spend);
    const char *text = queue_arg(&one, 0, &len), *space = memchr(text, ' ', len);
    queue_args_copy(args, text, (size_t)(space - text));
    queue_args_copy(args, space + 1, len - (size_t)(space - text) - 1);
    queue_args_release(&one);
}

void queue_reserve(struct queue *queue, const char *task, const char *sub, const char *token,
                   const struct queue_account *accounts, size_t n_accounts,
                   struct queue_spend worst, queue_fn *fn, void *ctx)
{
    struct reserving *reserving = mem_must_zalloc(sizeof *reserving);
    *reserving = (struct reserving){fn, ctx};
    struct queue_args *args = queue_begin(queue, task);
    queue_args_str(args, sub);
    queue_args_str(args, token);
    add_words(args, &worst);
    for (size_t i = 0; i < n_accounts; i++) {
        if (accounts[i].limit.nano_usd <= 0 && accounts[i].limit.tokens <= 0)
            continue;
        char name[160];
        account_word(name, sizeof name, accounts[i].name);
        queue_args_copy(args, name, strlen(name));
        add_words(args, &accounts[i].limit);
        if (strncmp(name, TASK_ROLE, strlen(TASK_ROLE)) != 0)
            know(&queue->known, name);
    }
    queue_run_settling(queue, SCRIPT_reserve, task, true, reserved, reserving);
}

/* --- what was spent ------------------------------------------------------------------------- */

struct accounting {
    queue_spent_fn *fn;
    void *ctx;
    size_t n;
};

/* value: [nano USD and tokens spent, and held] of each; empty where nothing was */
static void accounts_answered(void *ctx, const struct redis_value *value)
{
    struct accounting accounting = *(struct accounting *)ctx;
    free(ctx);
    struct err err = {""};
    if (queue_failed(value, &err)) {
        accounting.fn(accounting.ctx, NULL, NULL, 0, err.text);
        return;
    }
    struct queue_spend *sums = mem_must_zalloc(2 * accounting.n * sizeof *sums);
    struct queue_spend *held = sums + accounting.n;
    for (size_t i = 0; i < accounting.n; i++) {
        const struct redis_value *four = redis_at(value, i);
        sums[i] = (struct queue_spend){redis_int(redis_at(four, 0)), redis_int(redis_at(four, 1))};
        held[i] = (struct queue_spend){redis_int(redis_at(four, 2)), redis_int(redis_at(four, 3))};
    }
    accounting.fn(accounting.ctx, sums, held, accounting.n, "");
    free(sums);
}

void queue_accounts(struct queue *queue, const char *const *names, size_t n, queue_spent_fn *fn,
                    void *ctx)
{
    if (n == 0) {
        fn(ctx, NULL, NULL, 0, "");
        return;
    }
    struct accounting *accounting = mem_must_zalloc(sizeof *accounting);
    *accounting = (struct accounting){fn, ctx, n};
    struct queue_args *args = &queue->args;
    queue_batch_flush(queue);
    queue_args_clear(args);
    for (size_t i = 0; i < n; i++) {
        char name[160];
        account_word(name, sizeof name, names[i]);
        queue_args_printf(args, QUEUE_ACCOUNT_PREFIX "%s", name);
    }
    queue_eval(queue, args, SCRIPT_accounts, (int)n, accounts_answered, accounting);
}
