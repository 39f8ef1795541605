#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "schemas/mem.h"
#include "workers/attempt_internal.h"
#include "workers/backoff.h"
#include "workers/news.h"
#include "workers/request_key.h"
#include "workers/utf8.h"

#define NOTE_WHY_MAX 440  /* bytes; a note holds 512 */
#define KEY_TRIES 3       /* attempts of a subtask that may take a key out of the pool */
#define RESULT_BYTES 2048 /* what a search result may add to a prompt that is to be paid for */

static void reserve(struct attempt *attempt);
static void search(struct attempt *attempt);
static void call(struct attempt *attempt);

/* --- the answer that is there already ----------------------------------------------------------
 */

static void cache_answered(void *ctx, enum answer_status status, struct bytes answer)
{
    struct attempt *attempt = ctx;
    attempt->looking = false;
    attempt->owner = status == ANSWER_MISS;
    if (status == ANSWER_HIT) {
        if (attempt_succeed_cached(attempt, answer) == 0)
            return;
        log_warn("%s/%s: what the response cache has for it is damaged, and is not used",
                 attempt->dispatch.task, attempt->dispatch.sub);
    }
    reserve(attempt);
}

/* What the web says today is not what it says tomorrow: only who asks for it gets it cached. */
static bool is_cacheable(const struct attempt *attempt)
{
    const struct ask *ask = attempt->ask;
    return attempt->all->options.cache != NULL && ask_cacheable(ask) &&
           (!attempt->searches || strcmp(ask_work(ask)->cache, "on") == 0);
}

static void look_up(struct attempt *attempt)
{
    const struct attempts_options *options = &attempt->all->options;
    if (!is_cacheable(attempt)) {
        reserve(attempt);
        return;
    }
    request_key(options->provider, &attempt->ask->call, attempt->searches ? options->search : NULL,
                attempt->cache_key);
    attempt_enter(attempt, ATTEMPT_LOOKING);
    attempt->looking = true;
    answer_cache_get(options->cache, attempt->cache_key, attempt->token, cache_answered, attempt);
}

/* --- the budgets ------------------------------------------------------------------------------ */

static void add_account(struct attempt_accounts *accounts, const char *kind, const char *role,
                        double usd, int64_t tokens)
{
    if (usd <= 0 && tokens <= 0)
        return;
    char *name = accounts->names[accounts->n];
    snprintf(name, sizeof accounts->names[0], "%s%s", kind, role);
    accounts->list[accounts->n++] = (struct queue_account){
        .name = name,
        .limit = {.nano_usd = (int64_t)(usd * 1e9), .tokens = tokens},
    };
}

void attempt_accounts(const struct attempt *attempt, struct attempt_accounts *ret)
{
    const struct config *config = attempt->all->options.config;
    ret->n = 0;
    if (config == NULL)
        return;
    add_account(ret, "day", "", config->budget.day_usd, config->budget.day_tokens);
    const struct config_role *role =
        attempt->role != NULL ? config_role(config, attempt->role) : NULL;
    if (role == NULL)
        return;
    const struct config_budget *budget = &role->budget;
    add_account(ret, "role:", role->name, budget->day_usd, budget->day_tokens);
    add_account(ret, "task-role:", role->name, budget->task_usd, budget->task_tokens);
}

static void reserve(struct attempt *attempt)
{
    struct ask *ask = attempt->ask;
    struct attempt_accounts accounts;
    attempt_accounts(attempt, &accounts);
    if ((!attempt->budgeted && accounts.n == 0) || ask->call.kind == PROVIDER_LIST) {
        search(attempt);
        return;
    }
    ask_bound_answer(ask);
    if (attempt->searches)
        ask->more_bytes = RESULT_BYTES * (attempt->all->options.search->max_results + 1);
    attempt->worst = ask_worst(ask, clock_wall_ms());
    attempt_enter(attempt, ATTEMPT_RESERVING);
    attempt_send_reserve(attempt);
}

void attempt_reserved(struct attempt *attempt)
{
    search(attempt);
}

/* --- the search ------------------------------------------------------------------------------- */

static void degrade(struct attempt *attempt, const char *why)
{
    size_t len = strlen(why);
    if (len > NOTE_WHY_MAX)
        len = utf8_floor(why, len, NOTE_WHY_MAX);
    free(attempt->note);
    attempt->note = mem_must_printf("web search failed: %.*s; answered without it", (int)len, why);
    log_info("%s/%s: %s", attempt->dispatch.task, attempt->dispatch.sub, attempt->note);
}

/* Puts as many of the results into the prompt as were reserved for. */
static void use_results(struct attempt *attempt, const struct search_result *results, size_t n)
{
    struct ask *ask = attempt->ask;
    const struct provider_call *call_ = &ask->call;
    struct buf prompt = {0};
    size_t most = call_->prompt_len + (size_t)ask->more_bytes;
    int64_t now_ms = clock_wall_ms();
    search_prompt(&prompt, results, n, call_->prompt, call_->prompt_len, now_ms);
    while (attempt->reserved && n > 0 && prompt.len > most) {
        buf_clear(&prompt);
        search_prompt(&prompt, results, --n, call_->prompt, call_->prompt_len, now_ms);
    }
    attempt->sources.results = search_results_copy(results, n);
    attempt->sources.n = attempt->sources.results != NULL ? n : 0;
    if (attempt->sources.n > 0 && !prompt.failed)
        ask_set_prompt(ask, &prompt);
    else
        degrade(attempt, n > 0 ? "out of memory" : "no result fits into the budget");
    buf_release(&prompt);
}

static void search_answered(void *ctx, const struct search_result *results, size_t n,
                            const char *why)
{
    struct attempt *attempt = ctx;
    attempt->search = NULL;
    attempt->search_ms = clock_ms_f() - attempt->search_from_ms;
    if (n > 0)
        use_results(attempt, results, n);
    else
        degrade(attempt, why[0] != '\0' ? why : "nothing was found");
    call(attempt);
}

static void search(struct attempt *attempt)
{
    const struct attempts_options *options = &attempt->all->options;
    if (!attempt->searches) {
        call(attempt);
        return;
    }
    struct bytes question = ask_work(attempt->ask)->prompt;
    struct key *key = options->search_keys != NULL ? keys_at(options->search_keys, 0) : NULL;
    struct err err = {0};
    attempt_enter(attempt, ATTEMPT_SEARCHING);
    attempt->search_from_ms = clock_ms_f();
    int rc = search_start(&attempt->search, options->searches, options->search, key_value(key),
                          question.data, question.len, search_answered, attempt, &err);
    if (rc != 0) {
        key_scrub(key, err.text);
        degrade(attempt, err.text);
    }
    key_drop(&key);
    if (rc != 0)
        call(attempt);
}

/* --- the call --------------------------------------------------------------------------------- */

static int64_t tokens_of(const struct provider_reply *reply)
{
    int64_t prompt = reply->prompt_tokens, output = reply->output_tokens;
    if (prompt < 0 && output < 0)
        return -1;
    return (prompt > 0 ? prompt : 0) + (output > 0 ? output : 0);
}

static void check_model(struct attempt *attempt, struct provider_reply *reply)
{
    char text[400];
    const struct config_model *model = attempt->dispatch.arm->model;
    if (reply->model[0] == '\0' || arms_serves(model, reply->model))
        return;
    snprintf(text, sizeof text, "%.128s was asked for, and %.128s answered", model->name,
             reply->model);
    attempt_publish(attempt, "mismatch", text);
    if (model->strict)
        provider_reply_fail(reply, CLASS_BAD_RESPONSE,
                            "%s: add that name to served: of the model %s, or drop its strict: "
                            "true, if that is right",
                            text, model->alias);
}

/* What is wrong with a key is not wrong with the arm: while the pool has another one, the subtask
 * may run there again at once. But what takes a key out of the pool may be the call's own fault (a
 * model that no key may use): one subtask must not use up the pool. */
static bool may_use_other_key(const struct attempt *attempt, enum error_class class_)
{
    const struct governor *governor = attempt->all->options.governor;
    bool refused = class_ == CLASS_AUTH || class_ == CLASS_QUOTA;
    bool of_key = class_ == CLASS_RATE_LIMITED || (refused && attempt->attempt < KEY_TRIES);
    return of_key && governor != NULL && attempt->key != NULL &&
           governor_has_other_key(governor, key_fingerprint(attempt->key));
}

static void call_done(void *ctx, struct exchange_report *report)
{
    struct attempt *attempt = ctx;
    struct attempts *all = attempt->all;
    struct provider_reply *reply = report->reply;
    attempt->exchange = NULL;
    FAILPOINT("call.done");
    attempt_call_reports(attempt, report);
    attempt_call_ends(attempt);
    struct governor_report settled = {
        .class_ = reply->error,
        .called = true,
        .tokens = tokens_of(reply),
        .retry_after_ms = reply->retry_after_ms,
        .server = report->server,
    };
    attempt_settle_permit(attempt, &settled);
    if (all->peer != NULL) {
        struct record_facts facts = attempt_facts(attempt);
        news_chunk(all->peer, &facts, reply, report->total_ms, &attempt->chunk_at);
    }
    check_model(attempt, reply);
    if (reply->error == CLASS_NONE) {
        attempt_succeed(attempt, report);
        return;
    }
    bool again = may_use_other_key(attempt, reply->error);
    attempt_fail_with(
        attempt,
        &(struct attempt_verdict){
            .result = "failed",
            .class_ = reply->error,
            .action = again ? ERROR_WAIT : error_class_action(reply->error),
            .backoff_ms = again ? 0
                                : backoff_failed(&all->random, reply->error, reply->retry_after_ms,
                                                 attempt->attempt),
            .reason = reply->error_text,
        },
        report);
}

/* The smaller of two limits of which 0 is none. */
static int64_t tighter(int64_t a, int64_t b)
{
    if (a <= 0 || b <= 0)
        return a > b ? a : b;
    return a < b ? a : b;
}

static void call(struct attempt *attempt)
{
    const struct attempts_options *options = &attempt->all->options;
    const struct config_provider *settings = options->settings;
    struct ask *ask = attempt->ask; /* done() may come before the return */
    attempt->ask = NULL;
    struct exchange_options exchange = {
        .provider = options->provider,
        .key = attempt->key,
        .limits = {.connect_ms = settings->connect_ms,
                   .first_token_ms = settings->first_token_ms,
                   .gap_ms = settings->gap_ms,
                   .total_ms = tighter(settings->total_ms, ask_work(ask)->timeout_ms)},
        .call = ask->call,
        .blame = spool_blame(options->spool),
        .attempt = {attempt->dispatch.task, attempt->dispatch.sub, attempt->token},
    };
    struct err err = {0};
    FAILPOINT("call.begin");
    attempt_enter(attempt, ATTEMPT_CALLING);
    attempt_call_begins(attempt);
    int rc =
        exchange_start(&attempt->exchange, options->exchanges, &exchange, call_done, attempt, &err);
    if (rc != 0)
        attempt_call_ends(attempt);
    if (rc != 0)
        attempt_fail(attempt, rc == -EINVAL ? CLASS_BAD_REQUEST : CLASS_RETRY, ATTEMPT_BACKOFF_MS,
                     err.text);
    ask_release(ask);
    free(ask);
}

/* --- the claimed records ------------------------------------------------------------------------
 */

static char *copy_of(const char *text)
{
    return mem_must_strdup(text != NULL ? text : "");
}

static bool wants_search(const struct attempt *attempt)
{
    const struct attempts_options *options = &attempt->all->options;
    const struct ask *ask = attempt->ask;
    return options->search != NULL && ask->call.kind == PROVIDER_CHAT &&
           search_wanted(options->search, ask_work(ask)->prompt.data, ask_work(ask)->prompt.len,
                         clock_wall_ms());
}

void attempt_run(struct attempt *attempt, const struct queue_claim *claim)
{
    const struct attempts_options *options = &attempt->all->options;
    struct ask_options ask_options = {.provider = options->provider,
                                      .settings = options->settings,
                                      .model = attempt->dispatch.arm->model};
    struct err err = {0};
    attempt->ask = mem_must_zalloc(sizeof *attempt->ask);
    int rc = ask_read(attempt->ask, &ask_options, claim, &err);
    const struct msg_work *work = ask_work(attempt->ask);
    attempt->kind = copy_of(work->kind);
    attempt->role = copy_of(work->role);
    attempt->title = copy_of(work->title);
    if (rc == -ENOMEM) {
        attempt_fail(attempt, CLASS_RETRY, ATTEMPT_BACKOFF_MS, "out of memory for the prompt");
    } else if (rc == -EBADMSG) {
        attempt_fail(attempt, CLASS_INTERNAL, 0,
                     "its input, or a result that it builds on, is a damaged record in Redis");
    } else if (rc != 0) {
        attempt_fail(attempt, CLASS_BAD_REQUEST, ATTEMPT_BACKOFF_MS, err.text);
    } else {
        attempt_publish(attempt, "running", NULL);
        attempt->searches = wants_search(attempt);
        attempt->structured = work->json_schema.len > 0;
        look_up(attempt);
    }
}
