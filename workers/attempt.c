#include "workers/attempt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/containers.h"
#include "common/log.h"
#include "common/task_id.h"
#include "schemas/mem.h"
#include "workers/backoff.h"
#include "workers/brief.h"
#include "workers/failpoint.h"
#include "workers/news.h"
#include "workers/record.h"

#define SWEEP_MAX_MS 100 /* also the least time between two chunk events of an attempt */
#define BACKOFF_FIRST_MS 500
#define REPEAT_FIRST_MS 100
#define REPEAT_MAX_MS 2000
#define REPEAT_ERRORS 10 /* how often an answer that is an error is asked for again */
#define TOKEN_SIZE 64
#define COMMITS_MAX 256 /* sent and not answered; the others' answers are not copied meanwhile */

enum attempt_state {
    ATTEMPT_CLAIMING,
    ATTEMPT_CALLING,
    ATTEMPT_COMMITTING,
    ATTEMPT_FAILING,
    ATTEMPT_OVER, /* only waits for answers of the queue */
};

struct failure_facts {
    enum error_class class_;
    enum error_action action;
    int64_t backoff_ms;
    char *reason;
};

struct attempt {
    struct attempts *all; /* borrowed */
    enum attempt_state state;
    int broker;
    int pending;      /* answers of the queue to come */
    bool asked;       /* the state's own request is one of them */
    bool renewing;    /* a renewal is one of them */
    int repeats;      /* of the state's request */
    int64_t again_ms; /* when it is repeated; 0: not waiting */
    const struct arm *arm;
    char task[TASK_ID_SIZE];
    char sub[SUB_ID_MAX + 1];
    char nonce[40];
    char token[TOKEN_SIZE];
    char *kind, *role, *title;
    int64_t attempt, started_ms;
    double queue_ms, claim_ms;
    double dispatched_ms, claimed_ms; /* monotonic */
    int64_t asked_ms, renewed_ms;     /* sent: the claim or renewal under way, the last good one */
    struct exchange *exchange;        /* NULL: none in flight */
    size_t chunk_at;                  /* bytes of the text that taps have had */
    int64_t tokens;                   /* used of the provider; -1: unknown */
    struct failure_facts failure;
    struct buf outcome, timing; /* encoded, while they are committed */
    LIST_ENTRY(attempt) link;
    TAILQ_ENTRY(attempt) line;
    bool in_line; /* waits for its turn to commit */
};

struct attempts {
    struct attempts_options options;
    struct peer *peer; /* borrowed; NULL: nobody listens */
    struct loop_timer *sweep;
    int64_t sweep_ms;
    LIST_HEAD(, attempt) list;
    TAILQ_HEAD(, attempt) line;
    size_t running, commits; /* commits: under way */
    uint64_t claims;         /* so far: makes nonces unique */
    uint64_t random;
    bool aborting, closing;
};

/* --- the end ---------------------------------------------------------------------------------- */

static void attempt_free(struct attempt *attempt)
{
    LIST_REMOVE(attempt, link);
    free(attempt->kind);
    free(attempt->role);
    free(attempt->title);
    free(attempt->failure.reason);
    buf_release(&attempt->outcome);
    buf_release(&attempt->timing);
    free(attempt);
}

static void leave_line(struct attempt *attempt)
{
    TAILQ_REMOVE(&attempt->all->line, attempt, line);
    attempt->in_line = false;
}

/* The attempt's place is free; its memory is, once the queue has answered everything. */
static void attempt_over(struct attempt *attempt, int64_t tokens)
{
    struct attempts *all = attempt->all;
    if (attempt->state == ATTEMPT_OVER)
        return;
    attempt->state = ATTEMPT_OVER;
    exchange_cancel(&attempt->exchange);
    if (attempt->in_line)
        leave_line(attempt);
    if (--all->running == 0)
        loop_timer_stop(all->sweep);
    if (all->options.end != NULL)
        all->options.end(all->options.ctx, attempt->broker, tokens);
    if (attempt->pending == 0)
        attempt_free(attempt);
}

/* The queue needs nothing more of it: forgets it in the spool, too. */
static void attempt_settle(struct attempt *attempt, int64_t tokens)
{
    if (attempt->token[0] != '\0')
        spool_end(attempt->all->options.spool, attempt->token);
    attempt_over(attempt, tokens);
}

/* To be called first for every answer of the queue. False when nobody waits for it any more. */
static bool answer_taken(struct attempt *attempt)
{
    attempt->pending--;
    if (attempt->state == ATTEMPT_OVER) {
        if (attempt->pending == 0)
            attempt_free(attempt);
        return false;
    }
    if (attempt->all->closing) {
        attempt_over(attempt, -1);
        return false;
    }
    return true;
}

static struct record_facts facts_of(const struct attempt *attempt)
{
    const struct attempts_options *options = &attempt->all->options;
    return (struct record_facts){
        .task = attempt->task,
        .sub = attempt->sub,
        .kind = attempt->kind,
        .role = attempt->role,
        .title = attempt->title,
        .arm = attempt->arm,
        .worker = options->worker,
        .host = options->host,
        .provider = options->settings->name,
        .attempt = attempt->attempt,
        .started_ms = attempt->started_ms,
        .queue_ms = attempt->queue_ms,
        .claim_ms = attempt->claim_ms,
        .total_ms = clock_ms_f() - attempt->claimed_ms,
    };
}

static struct bytes bytes_of(const struct buf *buf)
{
    return (struct bytes){buf->data != NULL ? buf->data : "", buf->len};
}

static void publish(const struct attempt *attempt, const char *what)
{
    if (attempt->all->peer == NULL)
        return;
    struct record_facts facts = facts_of(attempt);
    news_sub(attempt->all->peer, what, &facts, bytes_of(&attempt->timing));
}

/* --- asking the queue ------------------------------------------------------------------------- */

/* Whether the queue did not do what it was asked: then it is asked again later, and after too many
 * errors the attempt is left to the spool and the lease. */
static bool not_done(struct attempt *attempt, enum queue_status status, const char *err)
{
    attempt->asked = false;
    if (status != QUEUE_REFUSED && status != QUEUE_ERROR)
        return false;
    if (attempt->repeats == 0)
        log_warn("%s/%s: Redis: %s", attempt->task, attempt->sub, err);
    if (status == QUEUE_ERROR &&
        (attempt->state == ATTEMPT_CLAIMING || attempt->repeats >= REPEAT_ERRORS)) {
        log_error("%s/%s is given up for now: Redis: %s", attempt->task, attempt->sub, err);
        attempt_over(attempt, -1);
        return true;
    }
    int64_t delay_ms = backoff_ms(REPEAT_FIRST_MS, REPEAT_MAX_MS, attempt->repeats++);
    attempt->again_ms = clock_ms() + backoff_jitter(&attempt->all->random, delay_ms);
    return true;
}

static void enter(struct attempt *attempt, enum attempt_state state)
{
    attempt->state = state;
    attempt->repeats = 0;
    attempt->again_ms = 0;
}

static void commit_settled(struct attempt *attempt, enum queue_status status)
{
    FAILPOINT("committed");
    if (status == QUEUE_OK || status == QUEUE_DUP)
        publish(attempt, "done");
    else
        log_info("%s/%s: the answer came too late: %s", attempt->task, attempt->sub,
                 queue_status_name(status));
    attempt_settle(attempt, attempt->tokens);
}

static void send_commit(struct attempt *attempt);

static void commit_answered(void *ctx, enum queue_status status, const char *err)
{
    struct attempt *attempt = ctx;
    struct attempts *all = attempt->all;
    all->commits--;
    if (answer_taken(attempt) && !not_done(attempt, status, err))
        commit_settled(attempt, status);
    struct attempt *next = TAILQ_FIRST(&all->line);
    if (next != NULL && !all->closing) {
        leave_line(next);
        send_commit(next);
    }
}

static void send_commit(struct attempt *attempt)
{
    struct attempts *all = attempt->all;
    if (all->commits >= COMMITS_MAX) {
        TAILQ_INSERT_TAIL(&all->line, attempt, line);
        attempt->in_line = true;
        return;
    }
    all->commits++;
    attempt->pending++;
    attempt->asked = true;
    queue_commit(all->options.queue, attempt->task, attempt->sub, attempt->token,
                 bytes_of(&attempt->outcome), bytes_of(&attempt->timing), NULL, commit_answered,
                 attempt);
}

static void fail_answered(void *ctx, enum queue_status status, const char *err)
{
    struct attempt *attempt = ctx;
    if (!answer_taken(attempt) || not_done(attempt, status, err))
        return;
    if (status == QUEUE_RETRY)
        publish(attempt, "retry");
    else if (status == QUEUE_DEAD)
        publish(attempt, "dead");
    attempt_settle(attempt, attempt->tokens);
}

static void send_fail(struct attempt *attempt)
{
    const struct failure_facts *failure = &attempt->failure;
    attempt->pending++;
    attempt->asked = true;
    queue_fail(attempt->all->options.queue, attempt->task, attempt->sub, attempt->token,
               failure->class_, failure->action, failure->reason, attempt->arm->name,
               failure->backoff_ms, bytes_of(&attempt->timing), NULL, fail_answered, attempt);
}

/* --- results ---------------------------------------------------------------------------------- */

static void encode_timing(struct attempt *attempt, const struct exchange_report *report,
                          const char *result, enum error_class class_, const char *error)
{
    struct record_facts facts = facts_of(attempt);
    struct msg_timing timing;
    record_timing(&timing, &facts, report, result, class_, error);
    buf_clear(&attempt->timing);
    int rc = record_encode_timing(&attempt->timing, &timing);
    if (rc != 0)
        log_error("%s/%s: its timing cannot be recorded: %s", attempt->task, attempt->sub,
                  strerror(-rc));
    int64_t prompt = report->reply->prompt_tokens, output = report->reply->output_tokens;
    attempt->tokens =
        prompt < 0 && output < 0 ? -1 : (prompt > 0 ? prompt : 0) + (output > 0 ? output : 0);
}

/* report NULL: no call was made, or it was stopped. */
static void fail(struct attempt *attempt, const char *result, enum error_class class_,
                 int64_t backoff_ms, const char *reason, const struct exchange_report *report)
{
    struct exchange_report none;
    struct provider_reply silence;
    if (report == NULL)
        record_no_report(&none, &silence);
    encode_timing(attempt, report != NULL ? report : &none, result, class_, reason);
    free(attempt->failure.reason);
    attempt->failure = (struct failure_facts){
        .class_ = class_,
        .action = error_class_action(class_),
        .backoff_ms = backoff_ms,
        .reason = mem_must_strdup(reason),
    };
    log_debug("%s/%s attempt %lld: %s: %s", attempt->task, attempt->sub,
              (long long)attempt->attempt, error_class_name(class_), reason);
    enter(attempt, ATTEMPT_FAILING);
    send_fail(attempt);
}

static void commit(struct attempt *attempt, const struct exchange_report *report)
{
    struct record_facts facts = facts_of(attempt);
    encode_timing(attempt, report, "done", CLASS_NONE, "");
    int rc = record_encode_outcome(&attempt->outcome, &facts, report->reply);
    if (rc != 0) {
        fail(attempt, "failed", rc == -ENOMEM ? CLASS_RETRY : CLASS_BAD_REQUEST, BACKOFF_FIRST_MS,
             rc == -ENOMEM ? "out of memory for the answer"
                           : "the answer does not fit into a record: set max_tokens, or ask for "
                             "less",
             report);
        return;
    }
    spool_response(attempt->all->options.spool, attempt->task, attempt->sub, attempt->token,
                   attempt->arm->name, bytes_of(&attempt->outcome), bytes_of(&attempt->timing));
    FAILPOINT("spooled");
    enter(attempt, ATTEMPT_COMMITTING);
    send_commit(attempt);
}

/* --- the call --------------------------------------------------------------------------------- */

static void call_done(void *ctx, struct exchange_report *report)
{
    struct attempt *attempt = ctx;
    struct attempts *all = attempt->all;
    attempt->exchange = NULL;
    const struct provider_reply *reply = report->reply;
    if (all->peer != NULL) {
        struct record_facts facts = facts_of(attempt);
        news_chunk(all->peer, &facts, reply, report->total_ms, &attempt->chunk_at);
    }
    if (reply->error == CLASS_NONE) {
        commit(attempt, report);
        return;
    }
    int64_t delay_ms =
        backoff_failed(&all->random, reply->error, reply->retry_after_ms, attempt->attempt);
    fail(attempt, "failed", reply->error, delay_ms, reply->error_text, report);
}

/* The smaller of two limits of which 0 is none. */
static int64_t tighter(int64_t a, int64_t b)
{
    if (a <= 0 || b <= 0)
        return a > b ? a : b;
    return a < b ? a : b;
}

static void call(struct attempt *attempt, const struct brief *brief)
{
    const struct msg_work *work = &brief->message.work;
    const struct attempts_options *options = &attempt->all->options;
    const struct config_provider *settings = options->settings;
    const struct config_model *model = attempt->arm->model;
    struct key *key = keys_next(options->keys);
    struct exchange_options exchange = {
        .provider = options->provider,
        .key = key,
        .limits = {.connect_ms = settings->connect_ms,
                   .first_token_ms = settings->first_token_ms,
                   .gap_ms = settings->gap_ms,
                   .total_ms = tighter(settings->total_ms, work->timeout_ms)},
        .call = {.base_url =
                     settings->base_url != NULL ? settings->base_url : options->provider->base_url,
                 .model = model->name,
                 .system = brief->system.data != NULL ? brief->system.data : "",
                 .prompt = brief->prompt.data != NULL ? brief->prompt.data : "",
                 .prompt_len = brief->prompt.len,
                 .json_schema = work->json_schema.len > 0 ? work->json_schema.data : NULL,
                 .temperature = work->temperature,
                 .max_tokens = work->max_tokens > 0 ? tighter(work->max_tokens, model->max_output)
                                                    : model->max_output,
                 .context = model->context,
                 .stream = settings->stream},
    };
    struct err err = {0};
    enter(attempt, ATTEMPT_CALLING);
    int rc = exchange_start(&attempt->exchange, attempt->all->options.exchanges, &exchange,
                            call_done, attempt, &err);
    key_drop(&key);
    if (rc != 0)
        fail(attempt, "failed", rc == -EINVAL ? CLASS_BAD_REQUEST : CLASS_RETRY, BACKOFF_FIRST_MS,
             err.text, NULL);
}

static void run(struct attempt *attempt, const struct queue_claim *claim)
{
    struct brief brief;
    int rc = brief_read(&brief, claim, attempt->arm->model->context);
    if (rc == 0) {
        const struct msg_work *work = &brief.message.work;
        attempt->kind = mem_must_strdup(work->kind);
        attempt->role = mem_must_strdup(work->role);
        attempt->title = mem_must_strdup(work->title);
        publish(attempt, "running");
        call(attempt, &brief);
    } else if (rc == -ENOMEM) {
        fail(attempt, "failed", CLASS_RETRY, BACKOFF_FIRST_MS, "out of memory for the prompt",
             NULL);
    } else {
        fail(attempt, "failed", CLASS_INTERNAL, 0,
             "its input, or a result that it builds on, is a damaged record in Redis", NULL);
    }
    brief_release(&brief);
}

static void claim_answered(void *ctx, enum queue_status status, const struct queue_claim *claim,
                           const char *err)
{
    struct attempt *attempt = ctx;
    if (!answer_taken(attempt) || not_done(attempt, status, err))
        return;
    if (status == QUEUE_OK && strlen(claim->token) >= sizeof attempt->token)
        status = QUEUE_STALE; /* not ours: the nonce in it is short */
    if (status != QUEUE_OK) {
        log_debug("%s/%s: not claimed: %s", attempt->task, attempt->sub, queue_status_name(status));
        attempt_over(attempt, -1);
        return;
    }
    attempt->claimed_ms = clock_ms_f();
    attempt->claim_ms = attempt->claimed_ms - attempt->dispatched_ms;
    attempt->started_ms = clock_wall_ms();
    attempt->queue_ms = claim->queue_ms;
    attempt->attempt = claim->attempt;
    attempt->renewed_ms = attempt->asked_ms;
    snprintf(attempt->token, sizeof attempt->token, "%s", claim->token);
    spool_claim(attempt->all->options.spool, attempt->task, attempt->sub, attempt->token,
                attempt->arm->name);
    FAILPOINT("claimed");
    if (attempt->all->aborting)
        fail(attempt, "abandoned", CLASS_WORKER_LOST, 0, "the worker is going", NULL);
    else
        run(attempt, claim);
}

static void send_claim(struct attempt *attempt)
{
    const struct attempts_options *options = &attempt->all->options;
    attempt->pending++;
    attempt->asked = true;
    attempt->asked_ms = clock_ms();
    queue_claim(options->queue, attempt->task, attempt->sub, options->worker, attempt->arm->name,
                attempt->nonce, options->lease_ms, false, claim_answered, attempt);
}

/* --- the lease -------------------------------------------------------------------------------- */

/* The queue says that the attempt is no longer this worker's. */
static void stop(struct attempt *attempt, enum queue_status status)
{
    if (attempt->state != ATTEMPT_CALLING && attempt->asked)
        return; /* the answer to the commit or the failure decides */
    log_info("%s/%s attempt %lld is stopped: %s", attempt->task, attempt->sub,
             (long long)attempt->attempt, queue_status_name(status));
    attempt_settle(attempt, -1);
}

static void renew_answered(void *ctx, enum queue_status status, const char *err)
{
    (void)err;
    struct attempt *attempt = ctx;
    attempt->renewing = false;
    if (!answer_taken(attempt))
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

static void send_renew(struct attempt *attempt, int64_t now_ms)
{
    const struct attempts_options *options = &attempt->all->options;
    attempt->pending++;
    attempt->renewing = true;
    attempt->asked_ms = now_ms;
    queue_renew(options->queue, attempt->task, attempt->sub, attempt->token, options->lease_ms,
                renew_answered, attempt);
}

/* Redis was away for too long: by now someone else may run the subtask. Should the lease still be
 * ours when Redis is back, the failure makes it run again at once. */
static void abandon(struct attempt *attempt)
{
    char reason[128];
    snprintf(reason, sizeof reason, "the lease could not be renewed for %lld ms",
             (long long)attempt->all->options.abandon_ms);
    log_warn("%s/%s attempt %lld is abandoned: %s", attempt->task, attempt->sub,
             (long long)attempt->attempt, reason);
    exchange_cancel(&attempt->exchange);
    fail(attempt, "abandoned", CLASS_WORKER_LOST, 0, reason, NULL);
}

static void repeat(struct attempt *attempt)
{
    static void (*const sends[])(struct attempt * attempt) = {
        [ATTEMPT_CLAIMING] = send_claim,
        [ATTEMPT_COMMITTING] = send_commit,
        [ATTEMPT_FAILING] = send_fail,
    };
    attempt->again_ms = 0;
    sends[attempt->state](attempt);
}

static void tend(struct attempt *attempt, int64_t now_ms)
{
    struct attempts *all = attempt->all;
    if (attempt->again_ms > 0 && now_ms >= attempt->again_ms)
        repeat(attempt);
    if (attempt->state == ATTEMPT_OVER || attempt->state == ATTEMPT_CLAIMING)
        return;
    if (attempt->exchange != NULL && all->peer != NULL) {
        struct record_facts facts = facts_of(attempt);
        news_chunk(all->peer, &facts, exchange_reply(attempt->exchange),
                   exchange_elapsed_ms(attempt->exchange), &attempt->chunk_at);
    }
    if (!attempt->renewing && now_ms - attempt->asked_ms >= all->options.renew_ms)
        send_renew(attempt, now_ms);
    if (attempt->state == ATTEMPT_CALLING &&
        now_ms - attempt->renewed_ms >= all->options.abandon_ms)
        abandon(attempt);
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
    attempts->closing = true;
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
        exchange_cancel(&attempt->exchange);
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

void attempts_start(struct attempts *attempts, const char *task, const char *sub,
                    const struct arm *arm, int broker)
{
    struct attempt *attempt = mem_must_zalloc(sizeof *attempt);
    *attempt = (struct attempt){
        .all = attempts,
        .state = ATTEMPT_CLAIMING,
        .broker = broker,
        .arm = arm,
        .dispatched_ms = clock_ms_f(),
        .tokens = -1,
    };
    snprintf(attempt->task, sizeof attempt->task, "%s", task);
    snprintf(attempt->sub, sizeof attempt->sub, "%s", sub);
    snprintf(attempt->nonce, sizeof attempt->nonce, "%.16s%llx", attempts->options.boot,
             (unsigned long long)++attempts->claims);
    LIST_INSERT_HEAD(&attempts->list, attempt, link);
    if (attempts->running++ == 0)
        loop_timer_start(attempts->sweep, attempts->sweep_ms, attempts->sweep_ms);
    send_claim(attempt);
}

void attempts_cancel(struct attempts *attempts, const char *task, const char *sub)
{
    int64_t now_ms = clock_ms();
    struct attempt *attempt, *next;
    for (attempt = LIST_FIRST(&attempts->list); attempt != NULL; attempt = next) {
        next = LIST_NEXT(attempt, link);
        if (attempt->state == ATTEMPT_CALLING && !attempt->renewing &&
            strcmp(attempt->task, task) == 0 && (sub[0] == '\0' || strcmp(attempt->sub, sub) == 0))
            send_renew(attempt, now_ms);
    }
}

void attempts_abort(struct attempts *attempts)
{
    attempts->aborting = true;
    struct attempt *attempt, *next;
    for (attempt = LIST_FIRST(&attempts->list); attempt != NULL; attempt = next) {
        next = LIST_NEXT(attempt, link);
        if (attempt->state != ATTEMPT_CALLING)
            continue;
        exchange_cancel(&attempt->exchange);
        fail(attempt, "abandoned", CLASS_WORKER_LOST, 0, "the worker was stopped", NULL);
    }
}
