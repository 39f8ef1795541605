#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/json.h"
#include "common/log.h"
#include "common/price.h"
#include "schemas/mem.h"
#include "workers/attempt_internal.h"
#include "workers/utf8.h"

#define REASON_MAX 511          /* what a record holds */
#define UNKNOWN_BYTES_A_TOKEN 4 /* of what was never counted, where no budget needs a bound */

/* --- what it has cost ------------------------------------------------------------------------- */

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* What a call has used that came to no good end: of what the provider has not counted, as much as
 * has been seen. */
static void estimate(struct price_usage *usage, const struct exchange_report *report)
{
    const struct provider_reply *reply = report->reply;
    int64_t seen = (int64_t)(reply->text.len + reply->reasoning.len) / UNKNOWN_BYTES_A_TOKEN;
    if (usage->prompt < 0)
        usage->prompt = report->sent_bytes / UNKNOWN_BYTES_A_TOKEN;
    usage->output = larger(usage->output, seen);
}

/* Nothing for what the provider has refused or never got. When it has not said what it counted,
 * budgets take the worst case that was reserved: spending is never reported too low. */
static struct queue_spend cost_of(const struct attempt *attempt,
                                  const struct exchange_report *report)
{
    const struct provider_reply *reply = report->reply;
    bool embeds = reply->kind == PROVIDER_EMBED && reply->output_tokens < 0;
    struct price_usage usage = {.prompt = reply->prompt_tokens,
                                .cached = reply->cached_tokens,
                                .cache_write = reply->cache_write_tokens,
                                .output = embeds ? 0 : reply->output_tokens};
    bool known = reply->finished && usage.prompt >= 0 && usage.output >= 0;
    bool unheard = report->http_status == 0 && report->sent_bytes == 0;
    if (report->http_status >= 300 || (unheard && !known) || reply->kind == PROVIDER_LIST)
        return (struct queue_spend){0};
    if (!known && attempt->reserved)
        return attempt->worst;
    if (!known)
        estimate(&usage, report);
    return (struct queue_spend){
        .nano_usd = price_nano_usd(attempt->dispatch.arm->model, attempt->started_ms, &usage),
        .tokens = larger(usage.prompt, 0) + larger(usage.output, 0),
    };
}

/* --- records ---------------------------------------------------------------------------------- */

static void encode_timing(struct attempt *attempt, const struct msg_timing *timing)
{
    buf_clear(&attempt->timing);
    int rc = record_encode_timing(&attempt->timing, timing);
    if (rc != 0)
        log_error("%s/%s: its timing cannot be recorded: %s", attempt->dispatch.task,
                  attempt->dispatch.sub, strerror(-rc));
}

/* Makes the timing record. report NULL: of what is under way now. */
static void note_timing(struct attempt *attempt, const struct exchange_report *report,
                        const char *result, enum error_class class_, const char *error)
{
    struct exchange_report now;
    struct provider_reply silence;
    if (report == NULL && attempt->exchange != NULL)
        exchange_peek(attempt->exchange, &now);
    else if (report == NULL)
        record_no_report(&now, &silence);
    else
        now = *report;
    attempt->cost = cost_of(attempt, &now);
    struct record_facts facts = attempt_facts(attempt);
    struct msg_timing timing;
    record_timing(&timing, &facts, &now, result, class_, error);
    encode_timing(attempt, &timing);
}

/* The same record for an attempt whose result was not wanted in the end. */
static void mark_cancelled(struct attempt *attempt)
{
    struct message message = {0};
    if (message_decode_as(&message, MESSAGE_timing, attempt->timing.data, attempt->timing.len) != 0)
        return;
    message.timing.result = "cancelled";
    encode_timing(attempt, &message.timing);
    message_release(&message);
}

/* --- good ends -------------------------------------------------------------------------------- */

static void spool_and_commit(struct attempt *attempt)
{
    const struct dispatch *dispatch = &attempt->dispatch;
    spool_response(attempt->all->options.spool, dispatch->task, dispatch->sub, attempt->token,
                   dispatch->arm->name, attempt_bytes(&attempt->outcome),
                   attempt_bytes(&attempt->timing));
    FAILPOINT("spooled");
    attempt_enter(attempt, ATTEMPT_COMMITTING);
    attempt_send_commit(attempt);
}

/* Only a whole answer of the model that was asked for, to the whole question, is anybody else's. */
static void share_answer(struct attempt *attempt, const struct provider_reply *reply)
{
    struct answer_cache *cache = attempt->all->options.cache;
    bool matches =
        reply->model[0] == '\0' || arms_serves(attempt->dispatch.arm->model, reply->model);
    if (!attempt->owner || cache == NULL || reply->finish != FINISH_DONE || !matches ||
        attempt->note != NULL || attempt->outcome.len > ANSWER_MAX_BYTES)
        return; /* given up when the attempt halts */
    attempt->owner = false;
    answer_cache_store(cache, attempt->cache_key, attempt->token, attempt_bytes(&attempt->outcome));
}

/* Behind the answer as text too, but for one that must stay a JSON document. */
static void add_sources(struct attempt *attempt, struct buf *text)
{
    const struct attempt_sources *sources = &attempt->sources;
    if (sources->n == 0)
        return;
    search_citations(&attempt->citations, sources->results, sources->n,
                     text->data != NULL ? text->data : "", text->len);
    json_t *list = json_parse(attempt->citations.data, attempt->citations.len, NULL);
    size_t i;
    json_t *source;
    if (!attempt->structured && json_array_size(list) > 0) {
        buf_add_str(text, "\n\nSources:\n");
        json_array_foreach (list, i, source)
            buf_printf(text, "[%lld] %s: %s\n", (long long)json_int(source, "n", 0),
                       json_str(source, "title", ""), json_str(source, "url", ""));
    }
    json_decref(list);
}

void attempt_succeed(struct attempt *attempt, struct exchange_report *report)
{
    add_sources(attempt, &report->reply->text);
    note_timing(attempt, report, "done", CLASS_NONE, "");
    struct record_facts facts = attempt_facts(attempt);
    int rc = report->reply->text.failed
                 ? -ENOMEM
                 : record_encode_outcome(&attempt->outcome, &facts, report->reply);
    if (rc != 0) {
        enum error_class class_ = rc == -ENOMEM ? CLASS_RETRY : CLASS_BAD_REQUEST;
        attempt_fail_with(attempt,
                          &(struct attempt_verdict){
                              .result = "failed",
                              .class_ = class_,
                              .action = error_class_action(class_),
                              .backoff_ms = ATTEMPT_BACKOFF_MS,
                              .reason = rc == -ENOMEM
                                            ? "out of memory for the answer"
                                            : "the answer does not fit into a record: set "
                                              "max_tokens, or ask for less",
                          },
                          report);
        return;
    }
    share_answer(attempt, report->reply);
    attempt_halt(attempt);
    spool_and_commit(attempt);
}

int attempt_succeed_cached(struct attempt *attempt, struct bytes outcome)
{
    struct message message = {0};
    struct exchange_report report;
    struct provider_reply reply;
    if (message_decode_as(&message, MESSAGE_outcome, outcome.data, outcome.len) != 0)
        return -EBADMSG;
    record_no_report(&report, &reply);
    reply.prompt_tokens = reply.output_tokens = 0;
    reply.finish = FINISH_DONE;
    reply.finished = true;
    snprintf(reply.model, sizeof reply.model, "%s", message.outcome.served_model);
    attempt->cached = true;
    attempt_halt(attempt);
    note_timing(attempt, &report, "done", CLASS_NONE, "");
    message.outcome.cached = true;
    message.outcome.model = attempt->dispatch.arm->model->alias;
    message.outcome.provider = attempt->all->options.name;
    message.outcome.worker = attempt->all->options.worker;
    message.outcome.arm = attempt->dispatch.arm->name;
    int rc = message_encode(&message, &attempt->outcome);
    message_release(&message);
    attempt_publish(attempt, "cached", NULL);
    if (rc == 0)
        spool_and_commit(attempt);
    else
        attempt_fail(attempt, CLASS_RETRY, ATTEMPT_BACKOFF_MS, "out of memory for the answer");
    return 0;
}

/* --- other ends ------------------------------------------------------------------------------- */

void attempt_fail_with(struct attempt *attempt, const struct attempt_verdict *verdict,
                       const struct exchange_report *report)
{
    size_t len = strlen(verdict->reason);
    if (len > REASON_MAX)
        len = utf8_floor(verdict->reason, len, REASON_MAX);
    char *reason = mem_must_strndup(verdict->reason, len);
    note_timing(attempt, report, verdict->result, verdict->class_, reason);
    free(attempt->failure.reason);
    attempt->failure = (struct attempt_failure){
        .class_ = verdict->class_,
        .action = verdict->action,
        .backoff_ms = verdict->backoff_ms,
        .reason = reason,
    };
    log_debug("%s/%s attempt %lld: %s: %s", attempt->dispatch.task, attempt->dispatch.sub,
              (long long)attempt->attempt, error_class_name(verdict->class_), reason);
    attempt_halt(attempt);
    attempt_enter(attempt, ATTEMPT_FAILING);
    attempt_send_fail(attempt);
}

void attempt_fail(struct attempt *attempt, enum error_class class_, int64_t backoff_ms,
                  const char *reason)
{
    attempt_fail_with(attempt,
                      &(struct attempt_verdict){
                          .result = "failed",
                          .class_ = class_,
                          .action = error_class_action(class_),
                          .backoff_ms = backoff_ms,
                          .reason = reason,
                      },
                      NULL);
}

void attempt_abandon(struct attempt *attempt, const char *reason)
{
    attempt_fail_with(attempt,
                      &(struct attempt_verdict){
                          .result = "abandoned",
                          .class_ = CLASS_WORKER_LOST,
                          .action = error_class_action(CLASS_WORKER_LOST),
                          .backoff_ms = 0,
                          .reason = reason,
                      },
                      NULL);
}

void attempt_lose(struct attempt *attempt, const char *reason)
{
    struct attempts *all = attempt->all;
    if (attempt->timing.len > 0) /* its call is over: what it has cost is known */
        mark_cancelled(attempt);
    else
        note_timing(attempt, NULL, "cancelled", CLASS_NONE, reason);
    if (attempt->in_line) {
        TAILQ_REMOVE(&all->line, attempt, line);
        attempt->in_line = false;
    }
    attempt_halt(attempt);
    attempt_enter(attempt, ATTEMPT_LOSING);
    attempt_send_lose(attempt);
}
