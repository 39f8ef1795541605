/* Working: what happens to one subtask. */
#include "common/queue_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"

#define REASON_MAX 512

struct claiming {
    queue_claim_fn *fn;
    void *ctx;
};

static void claim_answered(void *ctx, const struct redis_value *value)
{
    struct claiming claiming = *(struct claiming *)ctx;
    free(ctx);
    struct err err;
    enum queue_status status = queue_status_of(value, &err);
    if (status != QUEUE_OK) {
        claiming.fn(claiming.ctx, status, NULL, err.text);
        return;
    }
    /* OK, token, attempt, queue in us, whether it has a budget, work, outcomes... */
    size_t n_deps = redis_len(value) > 6 ? redis_len(value) - 6 : 0;
    struct bytes *deps = mem_must_zalloc((n_deps + 1) * sizeof *deps);
    for (size_t i = 0; i < n_deps; i++)
        deps[i].data = redis_str(redis_at(value, 6 + i), &deps[i].len);
    struct queue_claim claim = {
        .token = redis_str(redis_at(value, 1), NULL),
        .attempt = redis_int(redis_at(value, 2)),
        .queue_ms = (double)redis_int(redis_at(value, 3)) / 1000,
        .budgeted = redis_int(redis_at(value, 4)) != 0,
        .n_deps = n_deps,
        .deps = deps,
    };
    claim.work.data = redis_str(redis_at(value, 5), &claim.work.len);
    claiming.fn(claiming.ctx, QUEUE_OK, &claim, "");
    free(deps);
}

void queue_claim(struct queue *queue, const char *task, const char *sub, const char *worker,
                 const char *arm, const char *nonce, int64_t lease_ms, bool hedge,
                 queue_claim_fn *fn, void *ctx)
{
    struct claiming *claiming = mem_must_zalloc(sizeof *claiming);
    *claiming = (struct claiming){fn, ctx};
    struct queue_args *args = queue_begin(queue, task);
    queue_args_str(args, sub);
    queue_args_word(args, worker);
    queue_args_word(args, arm);
    queue_args_word(args, nonce);
    queue_args_printf(args, "%lld", (long long)lease_ms);
    queue_run(queue, hedge ? SCRIPT_hedge : SCRIPT_claim, task, claim_answered, claiming);
}

void queue_renew(struct queue *queue, const char *task, const char *sub, const char *token,
                 int64_t lease_ms, queue_fn *fn, void *ctx)
{
    struct queue_args *args = queue_begin(queue, task);
    queue_args_str(args, sub);
    queue_args_str(args, token);
    queue_args_printf(args, "%lld", (long long)lease_ms);
    queue_run_plain(queue, SCRIPT_renew, task, fn, ctx);
}

/* "" when nobody knows. */
static void add_spent(struct queue_args *args, const struct queue_spend *spent)
{
    if (spent != NULL)
        queue_args_spend(args, spent);
    else
        queue_args_str(args, "");
}

void queue_commit(struct queue *queue, const char *task, const char *sub, const char *token,
                  struct bytes outcome, struct bytes timing, const struct queue_spend *spent,
                  queue_fn *fn, void *ctx)
{
    struct queue_args *args = queue_begin(queue, task);
    queue_args_str(args, sub);
    queue_args_str(args, token);
    queue_args_bytes(args, outcome.data, outcome.len);
    queue_args_bytes(args, timing.data, timing.len);
    add_spent(args, spent);
    queue_settle_plain(queue, SCRIPT_commit, task, spent != NULL, fn, ctx);
}

/* token "": an attempt whose lease ran out. */
static void send_fail(struct queue *queue, const char *task, const char *sub, const char *token,
                      enum error_class class_, enum error_action action, const char *reason,
                      const char *arm, int64_t backoff_ms, struct bytes timing,
                      const struct queue_spend *spent, queue_fn *fn, void *ctx)
{
    static const char *const actions[] = {[ERROR_RETRY] = "RETRY",
                                          [ERROR_WAIT] = "WAIT",
                                          [ERROR_MOVE] = "MOVE",
                                          [ERROR_DEAD] = "DEAD"};
    if (reason == NULL)
        reason = "";
    size_t len = strlen(reason);
    struct queue_args *args = queue_begin(queue, task);
    queue_args_str(args, sub);
    queue_args_str(args, token);
    queue_args_word(args, error_class_name(class_));
    queue_args_str(args, actions[action]);
    queue_args_bytes(args, reason, len < REASON_MAX ? len : REASON_MAX);
    queue_args_word(args, arm);
    queue_args_printf(args, "%lld", (long long)(backoff_ms > 0 ? backoff_ms : 0));
    queue_args_bytes(args, timing.data, timing.len);
    add_spent(args, spent);
    queue_settle_plain(queue, SCRIPT_fail, task, spent != NULL, fn, ctx);
}

void queue_fail(struct queue *queue, const char *task, const char *sub, const char *token,
                enum error_class class_, enum error_action action, const char *reason,
                const char *arm, int64_t backoff_ms, struct bytes timing,
                const struct queue_spend *spent, queue_fn *fn, void *ctx)
{
    /* "" would be an expiry, and "-" is what is stored for none: neither is anyone's token. */
    bool none = token[0] == '\0' || strcmp(token, "-") == 0;
    send_fail(queue, task, sub, none ? " " : token, class_, action, reason, arm, backoff_ms, timing,
              spent, fn, ctx);
}

void queue_expire(struct queue *queue, const char *task, const char *sub, queue_fn *fn, void *ctx)
{
    send_fail(queue, task, sub, "", CLASS_WORKER_LOST, error_class_action(CLASS_WORKER_LOST),
              "the worker did not renew its lease", "", 0, (struct bytes){0}, NULL, fn, ctx);
}

static void sub_call(struct queue *queue, enum queue_script script, const char *task,
                     const char *sub, queue_fn *fn, void *ctx)
{
    struct queue_args *args = queue_begin(queue, task);
    if (sub != NULL)
        queue_args_str(args, sub);
    queue_run_plain(queue, script, task, fn, ctx);
}

void queue_promote(struct queue *queue, const char *task, const char *sub, queue_fn *fn, void *ctx)
{
    sub_call(queue, SCRIPT_promote, task, sub, fn, ctx);
}

void queue_bury(struct queue *queue, const char *task, const char *sub, const char *avoid,
                const char *reason, queue_fn *fn, void *ctx)
{
    struct queue_args *args = queue_begin(queue, task);
    queue_args_str(args, sub);
    queue_args_str(args, avoid);
    queue_args_str(args, reason);
    queue_run_plain(queue, SCRIPT_bury, task, fn, ctx);
}

void queue_hold(struct queue *queue, const char *task, const char *sub, queue_fn *fn, void *ctx)
{
    sub_call(queue, SCRIPT_hold, task, sub, fn, ctx);
}

void queue_release(struct queue *queue, const char *task, const char *sub, queue_fn *fn, void *ctx)
{
    sub_call(queue, SCRIPT_release, task, sub, fn, ctx);
}

void queue_cancel(struct queue *queue, const char *task, queue_fn *fn, void *ctx)
{
    sub_call(queue, SCRIPT_cancel, task, NULL, fn, ctx);
}

void queue_retry_within(struct queue *queue, const char *task, const struct queue_spend *budget,
                        queue_fn *fn, void *ctx)
{
    struct queue_args *args = queue_begin(queue, task);
    queue_args_printf(args, "%" PRId64, budget->nano_usd);
    queue_args_printf(args, "%" PRId64, budget->tokens);
    queue_settle_plain(queue, SCRIPT_retry, task, false, fn, ctx);
}

void queue_retry(struct queue *queue, const char *task, queue_fn *fn, void *ctx)
{
    queue_retry_within(queue, task, &(struct queue_spend){-1, -1}, fn, ctx);
}

void queue_forget(struct queue *queue, const char *task, queue_fn *fn, void *ctx)
{
    queue_begin(queue, task);
    queue_settle_plain(queue, SCRIPT_forget, task, false, fn, ctx);
}

void queue_log_note(struct queue *queue, const char *task, const char *sub, const char *text)
{
    struct queue_args *args = queue_begin(queue, task);
    queue_args_word(args, sub);
    size_t len = strlen(text);
    queue_args_bytes(args, text, len < 1024 ? len : 1024);
    queue_run(queue, SCRIPT_note, task, NULL, NULL);
}

void queue_lose(struct queue *queue, const char *task, const char *sub, const char *token,
                struct bytes timing, const struct queue_spend *spent, queue_fn *fn, void *ctx)
{
    struct queue_args *args = queue_begin(queue, task);
    queue_args_str(args, sub);
    queue_args_str(args, token);
    queue_args_bytes(args, timing.data, timing.len);
    add_spent(args, spent);
    queue_settle_plain(queue, SCRIPT_lose, task, spent != NULL, fn, ctx);
}
