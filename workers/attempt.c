#include "workers/attempt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "schemas/mem.h"
#include "workers/attempt_internal.h"
#include "workers/news.h"

#define SWEEP_MAX_MS 100 /* also the least time between two chunk events of an attempt */

static const struct {
    bool stoppable;
    void (*send)(struct attempt *attempt); /* the state's request to the queue; NULL: none */
} states[] = {
#define X(state, stoppable, send) {stoppable, send},
    ATTEMPT_STATES(X)
#undef X
};

void attempt_enter(struct attempt *attempt, enum attempt_state state)
{
    attempt->state = state;
    attempt->asked = false;
    attempt->repeats = 0;
    attempt->again_ms = 0;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void drop_ask(struct attempt *attempt)
{
    if (attempt->ask != NULL)
        ask_release(attempt->ask);
    free(attempt->ask);
    attempt->ask = NULL;
}

static void attempt_free(struct attempt *attempt)
{
    LIST_REMOVE(attempt, link);
    drop_ask(attempt);
    key_drop(&attempt->key);
    free(attempt->sources.results);
    free(attempt->note);
    free(attempt->kind);
    free(attempt->role);
    free(attempt->title);
    free(attempt->failure.reason);
    buf_release(&attempt->citations);
    buf_release(&attempt->outcome);
    buf_release(&attempt->timing);
    free(attempt);
}

void attempt_call_begins(struct attempt *attempt)
{
    struct arm_state *state = attempt->dispatch.arm->state;
    attempt->calling = state != NULL;
    if (attempt->calling)
        attempt->warm = arm_state_call(state, clock_ms());
}

void attempt_call_speaks(struct attempt *attempt)
{
    if (attempt->calling)
        arm_state_token(attempt->dispatch.arm->state);
}

void attempt_call_reports(struct attempt *attempt, const struct exchange_report *report)
{
    struct arm_state *state = attempt->dispatch.arm->state;
    const struct provider_reply *reply = report->reply;
    if (!attempt->calling)
        return;
    arm_state_load(state, attempt->warm, reply->load_ms);
    if (reply->error == CLASS_NONE)
        arm_state_token(state);
    else if (report->http_status == 0 && report->sent_bytes == 0)
        arm_state_lost(state);
}

void attempt_call_ends(struct attempt *attempt)
{
    if (attempt->calling)
        arm_state_end(attempt->dispatch.arm->state, clock_ms());
    attempt->calling = false;
}

void attempt_settle_permit(struct attempt *attempt, const struct governor_report *report)
{
    struct governor *governor = attempt->all->options.governor;
    /* A call that was stopped says nothing of the provider. */
    struct governor_report stopped = {
        .class_ = CLASS_WORKER_LOST,
        .called = attempt->exchange != NULL,
        .tokens = -1,
        .retry_after_ms = -1,
        .server = {-1, -1, -1, -1, -1, -1},
    };
    if (attempt->permitted && governor != NULL)
        governor_settle(governor, &attempt->permit, attempt->dispatch.arm->name,
                        report != NULL ? report : &stopped);
    attempt->permitted = false;
}

void attempt_halt(struct attempt *attempt)
{
    struct answer_cache *cache = attempt->all->options.cache;
    attempt_settle_permit(attempt, NULL);
    search_cancel(&attempt->search);
    exchange_cancel(&attempt->exchange);
    attempt_call_ends(attempt);
    if (attempt->looking && cache != NULL)
        answer_cache_forget(cache, attempt);
    attempt->looking = false;
    if (attempt->owner && cache != NULL)
        answer_cache_give_up(cache, attempt->cache_key, attempt->token);
    attempt->owner = false;
    drop_ask(attempt);
}

void attempt_over(struct attempt *attempt)
{
    struct attempts *all = attempt->all;
    if (attempt->state == ATTEMPT_OVER)
        return;
    attempt->state = ATTEMPT_OVER;
    attempt_halt(attempt);
    if (attempt->in_line) {
        TAILQ_REMOVE(&all->line, attempt, line);
        attempt->in_line = false;
    }
    if (--all->running == 0)
        loop_timer_stop(all->sweep);
    if (all->options.end != NULL)
        all->options.end(all->options.ctx, attempt->dispatch.broker);
    if (attempt->pending == 0)
        attempt_free(attempt);
}

void attempt_finish(struct attempt *attempt)
{
    if (attempt->token[0] != '\0')
        spool_end(attempt->all->options.spool, attempt->token);
    attempt_over(attempt);
}

bool attempt_answered(struct attempt *attempt)
{
    attempt->pending--;
    if (attempt->state == ATTEMPT_OVER) {
        if (attempt->pending == 0)
            attempt_free(attempt);
        return false;
    }
    if (attempt->all->closing) {
        attempt_over(attempt);
        return false;
    }
    return true;
}

/* --- what others see of it -------------------------------------------------------------------- */

struct record_facts attempt_facts(const struct attempt *attempt)
{
    const struct attempts_options *options = &attempt->all->options;
    return (struct record_facts){
        .task = attempt->dispatch.task,
        .sub = attempt->dispatch.sub,
        .kind = attempt->kind,
        .role = attempt->role,
        .title = attempt->title,
        .arm = attempt->dispatch.arm,
        .worker = options->worker,
        .host = options->host,
        .provider = options->name,
        .attempt = attempt->attempt,
        .started_ms = attempt->started_ms,
        .queue_ms = attempt->queue_ms,
        .claim_ms = attempt->claim_ms,
        .total_ms = clock_ms_f() - attempt->claimed_ms,
        .limit_ms = attempt->limit_ms,
        .search_ms = attempt->search_ms,
        .cost_nano_usd = attempt->cost.nano_usd,
        .reserved_nano_usd = attempt->reserved ? attempt->worst.nano_usd : 0,
        .cached = attempt->cached,
        .hedge = attempt->dispatch.hedge,
        .key = key_fingerprint(attempt->key),
        .citations = attempt_bytes(&attempt->citations),
        .note = attempt->note != NULL ? attempt->note : "",
    };
}

void attempt_publish(const struct attempt *attempt, const char *what, const char *text)
{
    if (attempt->all->peer == NULL)
        return;
    struct record_facts facts = attempt_facts(attempt);
    news_sub(attempt->all->peer, what, &facts, attempt_bytes(&attempt->timing), text);
}

/* --- the lease -------------------------------------------------------------------------------- */

/* Redis was away for too long: by now someone else may run the subtask. Should the lease still be
 * ours when Redis is back, the failure makes it run again at once. */
static void lease_lost(struct attempt *attempt)
{
    char reason[128];
    snprintf(reason, sizeof reason, "the lease could not be renewed for %lld ms",
             (long long)attempt->all->options.abandon_ms);
    log_warn("%s/%s attempt %lld is abandoned: %s", attempt->dispatch.task, attempt->dispatch.sub,
             (long long)attempt->attempt, reason);
    attempt_abandon(attempt, reason);
}

static void tend(struct attempt *attempt, int64_t now_ms)
{
    struct attempts *all = attempt->all;
    if (attempt->again_ms > 0 && now_ms >= attempt->again_ms) {
        attempt->again_ms = 0;
        states[attempt->state].send(attempt);
    }
    if (attempt->state == ATTEMPT_OVER || attempt->state == ATTEMPT_CLAIMING ||
        attempt->state == ATTEMPT_LOSING)
        return;
    if (attempt->exchange != NULL && exchange_reply(attempt->exchange)->text.len > 0)
        attempt_call_speaks(attempt);
    if (attempt->exchange != NULL && all->peer != NULL) {
        struct record_facts facts = attempt_facts(attempt);
        news_chunk(all->peer, &facts, exchange_reply(attempt->exchange),
                   exchange_elapsed_ms(attempt->exchange), &attempt->chunk_at);
    }
    if (!attempt->renewing && now_ms - attempt->asked_ms >= all->options.renew_ms)
        attempt_send_renew(attempt, now_ms);
    if (states[attempt->state].stoppable && now_ms - attempt->renewed_ms >= all->options.abandon_ms)
        lease_lost(attempt);
}

static void sweep(void *ctx)
{
    struct attempts *all = ctx;
    int64_t now_ms = clock_ms();
    struct attempt *attempt, *next;
    for (attempt = LIST_FIRST(&all->list); attempt != NULL; attempt = next) {
        next = LIST_NEXT(attempt, link); /* tending frees no other attempt */
        tend(attempt, now_ms);
    }
}

/* --- all of them -------------------------------------------------------------------------------
 */

struct attempts *attempts_new(const struct attempts_options *options)
{
    struct attempts *all = mem_must_zalloc(sizeof *all);
    all->options = *options;
    all->random = strtoull(options->boot, NULL, 16) | 1;
    int64_t quarter_ms = options->renew_ms / 4;
    all->sweep_ms = quarter_ms < SWEEP_MAX_MS ? quarter_ms + 1 : SWEEP_MAX_MS;
    all->sweep = loop_timer_new(options->loop, sweep, all);
    LIST_INIT(&all->list);
    TAILQ_INIT(&all->line);
    return all;
}

void attempts_closing(struct attempts *attempts)
{
    struct attempt *attempt;
    LIST_FOREACH (attempt, &attempts->list, link)
        attempt_halt(attempt);
    attempts->closing = true;
    attempts->options.governor = NULL;
    attempts->options.cache = NULL;
}

void attempts_free(struct attempts **all_ptr)
{
    struct attempts *all = *all_ptr;
    *all_ptr = NULL;
    if (all == NULL)
        return;
    all->options.end = NULL;
    struct attempt *attempt;
    while ((attempt = LIST_FIRST(&all->list)) != NULL) {
        attempt_halt(attempt);
        attempt_free(attempt);
    }
    loop_timer_free(&all->sweep);
    free(all);
}

void attempts_publish(struct attempts *attempts, struct peer *peer)
{
    attempts->peer = peer;
}

size_t attempts_running(const struct attempts *attempts)
{
    return attempts->running;
}

void attempts_start(struct attempts *attempts, const struct dispatch *dispatch,
                    const struct governor_permit *permit, struct key **key)
{
    struct attempt *attempt = mem_must_zalloc(sizeof *attempt);
    *attempt = (struct attempt){
        .all = attempts,
        .state = ATTEMPT_CLAIMING,
        .dispatch = *dispatch,
        .permit = *permit,
        .permitted = true,
        .limit_ms = clock_ms_f() - dispatch->arrived_ms,
        .search_ms = -1,
        .key = *key,
    };
    *key = NULL;
    attempt->permit.reason = ""; /* the other was valid only as long as the permit's callback */
    snprintf(attempt->nonce, sizeof attempt->nonce, "%.16s%llx", attempts->options.boot,
             (unsigned long long)++attempts->claims);
    LIST_INSERT_HEAD(&attempts->list, attempt, link);
    if (attempts->running++ == 0)
        loop_timer_start(attempts->sweep, attempts->sweep_ms, attempts->sweep_ms);
    attempt_send_claim(attempt);
}

void attempts_cancel(struct attempts *attempts, const char *task, const char *sub)
{
    int64_t now_ms = clock_ms();
    struct attempt *attempt, *next;
    for (attempt = LIST_FIRST(&attempts->list); attempt != NULL; attempt = next) {
        next = LIST_NEXT(attempt, link);
        if (states[attempt->state].stoppable && !attempt->renewing &&
            strcmp(attempt->dispatch.task, task) == 0 &&
            (sub[0] == '\0' || strcmp(attempt->dispatch.sub, sub) == 0))
            attempt_send_renew(attempt, now_ms);
    }
}

void attempts_abort(struct attempts *attempts)
{
    attempts->aborting = true;
    struct attempt *attempt, *next;
    for (attempt = LIST_FIRST(&attempts->list); attempt != NULL; attempt = next) {
        next = LIST_NEXT(attempt, link);
        if (states[attempt->state].stoppable)
            attempt_abandon(attempt, "the worker was stopped");
    }
}
