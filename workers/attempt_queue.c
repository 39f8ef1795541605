#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "schemas/mem.h"
#include "workers/attempt_internal.h"
#include "workers/backoff.h"

#define REPEAT_FIRST_MS 100
#define REPEAT_MAX_MS 2000
#define REPEAT_ERRORS 10 /* how often an answer that is an error is asked for again */
#define COMMITS_MAX 256  /* sent and not answered; the others' answers are not copied meanwhile */
/* Until calls under way may have left room in a budget, which is not to lie idle for long. */
#define BUDGET_WAIT_MS 500
#define BUDGET_WAIT_MAX_MS 8000

static void ask_queue(struct attempt *attempt)
{
    attempt->pending++;
    attempt->asked = true;
}

/* Whether the queue did not do what it was asked: then it is asked again later, and after too many
 * errors the attempt is left to the spool and the lease. */
static bool not_done(struct attempt *attempt, enum queue_status status, const char *err)
{
    const struct dispatch *dispatch = &attempt->dispatch;
    attempt->asked = false;
    if (status != QUEUE_REFUSED && status != QUEUE_ERROR)
        return false;
    if (attempt->repeats == 0)
        log_warn("%s/%s: Redis: %s", dispatch->task, dispatch->sub, err);
    if (status == QUEUE_ERROR &&
        (attempt->state == ATTEMPT_CLAIMING || attempt->repeats >= REPEAT_ERRORS)) {
        log_error("%s/%s is given up for now: Redis: %s", dispatch->task, dispatch->sub, err);
        attempt_over(attempt);
        return true;
    }
    int64_t delay_ms = backoff_ms(REPEAT_FIRST_MS, REPEAT_MAX_MS, attempt->repeats++);
    attempt->again_ms = clock_ms() + backoff_jitter(&attempt->all->random, delay_ms);
    return true;
}

/* NULL: nothing was reserved, and nothing was paid. */
static const struct queue_spend *spent_of(const struct attempt *attempt)
{
    return attempt->reserved || attempt->cost.nano_usd > 0 ? &attempt->cost : NULL;
}

/* --- claim ------------------------------------------------------------------------------------ */

/* An answer that was long on its way says nothing of the lease: it may be over by now, and then the
 * call would be paid for in vain. The same claim again renews it, or finds that it is another's. */
static bool is_late(const struct attempt *attempt)
{
    const struct attempts_options *options = &attempt->all->options;
    return !attempt->reclaimed && clock_ms() - attempt->asked_ms >= options->abandon_ms / 2;
}

/* Its prompt, and the results that it builds on, are composed here. */
static void run(struct attempt *attempt, const struct queue_claim *claim)
{
    struct blame *blame = spool_blame(attempt->all->options.spool);
    const struct dispatch *dispatch = &attempt->dispatch;
    blame_enter(blame, &(struct blame_for){dispatch->task, dispatch->sub, attempt->token});
    attempt_run(attempt, claim);
    blame_leave(blame);
}

static void claim_answered(void *ctx, enum queue_status status, const struct queue_claim *claim,
                           const char *err)
{
    struct attempt *attempt = ctx;
    const struct dispatch *dispatch = &attempt->dispatch;
    if (!attempt_answered(attempt) || not_done(attempt, status, err))
        return;
    if (status == QUEUE_OK && strlen(claim->token) >= sizeof attempt->token)
        status = QUEUE_STALE; /* not ours: the nonce in it is short */
    if (status == QUEUE_OK && is_late(attempt)) {
        attempt->reclaimed = true;
        attempt_send_claim(attempt);
        return;
    }
    if (status != QUEUE_OK) {
        log_debug("%s/%s: not claimed: %s", dispatch->task, dispatch->sub,
                  queue_status_name(status));
        attempt_over(attempt);
        return;
    }
    attempt->claimed_ms = clock_ms_f();
    attempt->claim_ms = attempt->claimed_ms - dispatch->arrived_ms;
    attempt->started_ms = clock_wall_ms();
    attempt->queue_ms = claim->queue_ms;
    attempt->attempt = claim->attempt;
    attempt->budgeted = claim->budgeted;
    attempt->renewed_ms = attempt->asked_ms;
    snprintf(attempt->token, sizeof attempt->token, "%s", claim->token);
    spool_claim(attempt->all->options.spool, dispatch->task, dispatch->sub, attempt->token,
                dispatch->arm->name);
    FAILPOINT("claimed");
    if (attempt->all->aborting)
        attempt_abandon(attempt, "the worker is going");
    else
        run(attempt, claim);
}

void attempt_send_claim(struct attempt *attempt)
{
    const struct attempts_options *options = &attempt->all->options;
    const struct dispatch *dispatch = &attempt->dispatch;
    ask_queue(attempt);
    attempt->asked_ms = clock_ms();
    queue_claim(options->queue, dispatch->task, dispatch->sub, options->worker, dispatch->arm->name,
                attempt->nonce, options->lease_ms, dispatch->hedge, claim_answered, attempt);
}

/* --- reserve ---------------------------------------------------------------------------------- */

static void reserve_answered(void *ctx, enum queue_status status, const char *err)
{
    struct attempt *attempt = ctx;
    if (!attempt_answered(attempt))
        return;
    if (attempt->state != ATTEMPT_RESERVING) /* abandoned meanwhile: what is held is settled then */
        return;
    if (not_done(attempt, status, err))
        return;
    if (status == QUEUE_OK) {
        FAILPOINT("reserved");
        attempt_reserved(attempt);
        return;
    }
    attempt->reserved = false;
    if (status != QUEUE_WAIT && status != QUEUE_BUDGET) {
        attempt_lose(attempt, queue_status_name(status));
        return;
    }
    attempt_publish(attempt, "budget", err);
    attempt_fail_with(attempt,
                      &(struct attempt_verdict){
                          .result = "failed",
                          .class_ = CLASS_BUDGET,
                          /* Another arm may be cheaper. */
                          .action = status == QUEUE_WAIT ? ERROR_WAIT : ERROR_MOVE,
                          .backoff_ms = backoff_jitter(
                              &attempt->all->random,
                              backoff_ms(BUDGET_WAIT_MS, BUDGET_WAIT_MAX_MS, attempt->attempt - 1)),
                          .reason = err,
                      },
                      NULL);
}

void attempt_send_reserve(struct attempt *attempt)
{
    const struct dispatch *dispatch = &attempt->dispatch;
    struct attempt_accounts accounts;
    attempt_accounts(attempt, &accounts);
    attempt->reserved = true; /* from now on: the request may be executed, whatever is answered */
    ask_queue(attempt);
    queue_reserve(attempt->all->options.queue, dispatch->task, dispatch->sub, attempt->token,
                  accounts.list, accounts.n, attempt->worst, reserve_answered, attempt);
}

/* --- commit ----------------------------------------------------------------------------------- */

static void commit_settled(struct attempt *attempt, enum queue_status status)
{
    FAILPOINT("committed");
    if (status == QUEUE_OK || status == QUEUE_DUP) {
        attempt_publish(attempt, "done", NULL);
        attempt_finish(attempt);
        return;
    }
    log_info("%s/%s: the answer came too late: %s", attempt->dispatch.task, attempt->dispatch.sub,
             queue_status_name(status));
    if (status == QUEUE_GONE)
        attempt_finish(attempt);
    else
        attempt_lose(attempt, queue_status_name(status));
}

static void commit_answered(void *ctx, enum queue_status status, const char *err)
{
    struct attempt *attempt = ctx;
    struct attempts *all = attempt->all;
    all->commits--;
    if (attempt_answered(attempt) && !not_done(attempt, status, err))
        commit_settled(attempt, status);
    struct attempt *next = TAILQ_FIRST(&all->line);
    if (next != NULL && !all->closing) {
        TAILQ_REMOVE(&all->line, next, line);
        next->in_line = false;
        attempt_send_commit(next);
    }
}

void attempt_send_commit(struct attempt *attempt)
{
    struct attempts *all = attempt->all;
    if (all->commits >= COMMITS_MAX) {
        TAILQ_INSERT_TAIL(&all->line, attempt, line);
        attempt->in_line = true;
        return;
    }
    all->commits++;
    ask_queue(attempt);
    queue_commit(all->options.queue, attempt->dispatch.task, attempt->dispatch.sub, attempt->token,
                 attempt_bytes(&attempt->outcome), attempt_bytes(&attempt->timing),
                 spent_of(attempt), commit_answered, attempt);
}

/* --- fail ------------------------------------------------------------------------------------- */

/* The result is only what is committed: what taps have seen of the text are hints, so the attempt
 * may be repeated. They are told that its text does not count. */
static void publish_retry(const struct attempt *attempt)
{
    char text[512];
    if (attempt->chunk_at == 0) {
        attempt_publish(attempt, "retry", NULL);
        return;
    }
    snprintf(text, sizeof text, "%.420s (the text that was streamed so far is void)",
             attempt->failure.reason);
    attempt_publish(attempt, "retry", text);
}

static void fail_answered(void *ctx, enum queue_status status, const char *err)
{
    struct attempt *attempt = ctx;
    if (!attempt_answered(attempt) || not_done(attempt, status, err))
        return;
    if (status == QUEUE_RETRY)
        publish_retry(attempt);
    else if (status == QUEUE_DEAD)
        attempt_publish(attempt, "dead", NULL);
    if (status == QUEUE_STALE && attempt->reserved)
        attempt_lose(attempt, queue_status_name(status));
    else
        attempt_finish(attempt);
}

void attempt_send_fail(struct attempt *attempt)
{
    const struct attempt_failure *failure = &attempt->failure;
    const struct dispatch *dispatch = &attempt->dispatch;
    ask_queue(attempt);
    queue_fail(attempt->all->options.queue, dispatch->task, dispatch->sub, attempt->token,
               failure->class_, failure->action, failure->reason, dispatch->arm->name,
               failure->backoff_ms, attempt_bytes(&attempt->timing), spent_of(attempt),
               fail_answered, attempt);
}

/* --- lose ------------------------------------------------------------------------------------- */

static void lose_answered(void *ctx, enum queue_status status, const char *err)
{
    struct attempt *attempt = ctx;
    if (attempt_answered(attempt) && !not_done(attempt, status, err))
        attempt_finish(attempt);
}

void attempt_send_lose(struct attempt *attempt)
{
    const struct dispatch *dispatch = &attempt->dispatch;
    ask_queue(attempt);
    queue_lose(attempt->all->options.queue, dispatch->task, dispatch->sub, attempt->token,
               attempt_bytes(&attempt->timing), spent_of(attempt), lose_answered, attempt);
}

/* --- renew ------------------------------------------------------------------------------------ */

/* The queue says that the attempt is no longer this worker's. */
static void stop(struct attempt *attempt, enum queue_status status)
{
    if (attempt->asked || attempt->again_ms > 0)
        return; /* the answer to what the state has asked decides */
    log_info("%s/%s attempt %lld is stopped: %s", attempt->dispatch.task, attempt->dispatch.sub,
             (long long)attempt->attempt, queue_status_name(status));
    attempt_lose(attempt, queue_status_name(status));
}

static void renew_answered(void *ctx, enum queue_status status, const char *err)
{
    (void)err;
    struct attempt *attempt = ctx;
    attempt->renewing = false;
    if (!attempt_answered(attempt))
        return;
    if (status == QUEUE_OK) {
        attempt->renewed_ms = attempt->asked_ms;
        return;
    }
    if (status == QUEUE_REFUSED || status == QUEUE_ERROR) /* sooner than usual */
        attempt->asked_ms -= attempt->all->options.renew_ms / 2;
    else
        stop(attempt, status);
}

void attempt_send_renew(struct attempt *attempt, int64_t now_ms)
{
    const struct attempts_options *options = &attempt->all->options;
    attempt->pending++;
    attempt->renewing = true;
    attempt->asked_ms = now_ms;
    queue_renew(options->queue, attempt->dispatch.task, attempt->dispatch.sub, attempt->token,
                options->lease_ms, renew_answered, attempt);
}
