#include "tests/chaos/oracle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "common/task_id.h"
#include "schemas/mem.h"

#define WORKER_BYTES 64

/* An attempt that ended as worker_lost. */
struct loss {
    char worker[WORKER_BYTES];
    int64_t from_ms, to_ms;
    int64_t attempt;
};

struct sub {
    struct task *task; /* borrowed */
    bool seen;         /* in the queue's view */
    enum sub_state state;
    bool has_outcome;
    int attempts, commits, runs_after_commit, failures;
    int64_t claimed_ms; /* by the log, of the last attempt */
    struct loss *losses;
    size_t n_losses;
    int calls, completed, faults;
    int64_t *call_ms; /* of each call */
    int64_t received_ms;
    uint64_t rows, rows_twice; /* a bit for each attempt, by its number */
    int64_t commit_attempt;
    UT_hash_handle hh;
    char id[];
};

struct task {
    bool submitted, seen;
    struct oracle_plan plan;
    enum task_state state;
    int64_t remaining;
    struct sub *subs;
    UT_hash_handle hh;
    char id[];
};

struct fault {
    char worker[WORKER_BYTES]; /* "": of all */
    int64_t from_ms, to_ms;
};

struct finding {
    char task[TASK_ID_SIZE], sub[SUB_ID_MAX + 1];
    char *text;
};

struct oracle {
    struct task *tasks;
    struct fault *faults;
    size_t n_faults;
    struct finding *findings;
    size_t n_findings;
};

/* What a verdict is made with. */
struct judge {
    struct oracle *oracle;
    oracle_violation_fn *fn;
    void *ctx;
    bool stored;
    struct oracle_verdict verdict;
};

const char *oracle_rule_name(enum oracle_rule rule)
{
    static const char *const names[] = {
#define X(constant, word) word,
        ORACLE_RULES(X)
#undef X
    };
    return rule < ORACLE_RULE_COUNT ? names[rule] : "?";
}

struct oracle *oracle_new(void)
{
    return mem_must_zalloc(sizeof(struct oracle));
}

static void sub_free(struct sub *sub)
{
    free(sub->losses);
    free(sub->call_ms);
    free(sub);
}

static void task_free(struct task *task)
{
    struct sub *sub, *next;
    HASH_ITER (hh, task->subs, sub, next) {
        HASH_DEL(task->subs, sub);
        sub_free(sub);
    }
    free(task);
}

void oracle_free(struct oracle **ret)
{
    struct oracle *oracle = *ret;
    *ret = NULL;
    if (oracle == NULL)
        return;
    struct task *task, *next;
    HASH_ITER (hh, oracle->tasks, task, next) {
        HASH_DEL(oracle->tasks, task);
        task_free(task);
    }
    for (size_t i = 0; i < oracle->n_findings; i++)
        free(oracle->findings[i].text);
    free(oracle->findings);
    free(oracle->faults);
    free(oracle);
}

static struct task *task_of(struct oracle *oracle, const char *id)
{
    struct task *task;
    HASH_FIND_STR(oracle->tasks, id, task);
    if (task != NULL)
        return task;
    size_t len = strlen(id);
    task = mem_must_zalloc(sizeof *task + len + 1);
    memcpy(task->id, id, len);
    HASH_ADD_KEYPTR(hh, oracle->tasks, task->id, len, task);
    return task;
}

static struct sub *sub_of(struct oracle *oracle, const char *task_id, const char *id)
{
    struct task *task = task_of(oracle, task_id);
    struct sub *sub;
    HASH_FIND_STR(task->subs, id, sub);
    if (sub != NULL)
        return sub;
    size_t len = strlen(id);
    sub = mem_must_zalloc(sizeof *sub + len + 1);
    sub->task = task;
    memcpy(sub->id, id, len);
    HASH_ADD_KEYPTR(hh, task->subs, sub->id, len, sub);
    return sub;
}

/* --- feeding ---------------------------------------------------------------------------------- */

void oracle_submitted(struct oracle *oracle, const char *id, const struct oracle_plan *plan)
{
    struct task *task = task_of(oracle, id);
    task->submitted = true;
    task->plan = *plan;
}

void oracle_fault(struct oracle *oracle, const char *worker, int64_t from_ms, int64_t to_ms)
{
    oracle->faults =
        mem_must_realloc(oracle->faults, (oracle->n_faults + 1) * sizeof *oracle->faults);
    struct fault *fault = &oracle->faults[oracle->n_faults++];
    *fault = (struct fault){.from_ms = from_ms, .to_ms = to_ms};
    snprintf(fault->worker, sizeof fault->worker, "%s", worker != NULL ? worker : "");
}

void oracle_received(struct oracle *oracle, const char *task, const char *id, int64_t ms)
{
    struct sub *sub = sub_of(oracle, task, id);
    if (sub->received_ms == 0)
        sub->received_ms = ms;
}

void oracle_task(struct oracle *oracle, const struct queue_task_view *view)
{
    struct task *task = task_of(oracle, view->id);
    task->seen = true;
    task->state = view->state;
    task->remaining = view->remaining;
    for (size_t i = 0; i < view->n_subs; i++) {
        struct sub *sub = sub_of(oracle, view->id, view->subs[i].id);
        sub->seen = true;
        sub->state = view->subs[i].state;
        sub->has_outcome = view->subs[i].outcome.len > 0;
    }
}

static void note_loss(struct sub *sub, const struct queue_log_entry *entry, int64_t ms)
{
    sub->losses = mem_must_realloc(sub->losses, (sub->n_losses + 1) * sizeof *sub->losses);
    struct loss *loss = &sub->losses[sub->n_losses++];
    *loss = (struct loss){.from_ms = sub->claimed_ms, .to_ms = ms, .attempt = entry->attempt};
    snprintf(loss->worker, sizeof loss->worker, "%s", entry->worker);
}

void oracle_log(struct oracle *oracle, const char *task, const struct queue_log_entry *entry)
{
    if (entry->sub[0] == '\0')
        return;
    struct sub *sub = sub_of(oracle, task, entry->sub);
    int64_t ms = strtoll(entry->id, NULL, 10);
    if (strcmp(entry->what, "running") == 0) {
        sub->attempts++;
        sub->claimed_ms = ms;
        sub->runs_after_commit += sub->commits > 0;
    } else if (strcmp(entry->what, "done") == 0) {
        sub->commits++;
        sub->commit_attempt = entry->attempt;
    } else if (strcmp(entry->what, "retry") == 0 || strcmp(entry->what, "dead") == 0) {
        if (strcmp(entry->error_class, "worker_lost") == 0)
            note_loss(sub, entry, ms);
        else
            sub->failures++;
    }
}

void oracle_row(struct oracle *oracle, const struct msg_timing *row)
{
    struct sub *sub = sub_of(oracle, row->task, row->sub);
    uint64_t bit = (uint64_t)1 << (row->attempt & 63);
    sub->rows_twice |= sub->rows & bit;
    sub->rows |= bit;
}

void oracle_call(struct oracle *oracle, const char *task, const char *id, int64_t started_ms,
                 enum oracle_call_end end)
{
    struct sub *sub = sub_of(oracle, task, id);
    sub->call_ms = mem_must_realloc(sub->call_ms, (size_t)(sub->calls + 1) * sizeof *sub->call_ms);
    sub->call_ms[sub->calls++] = started_ms;
    sub->completed += end == ORACLE_CALL_COMPLETED;
    sub->faults += end == ORACLE_CALL_FAULT;
}

void oracle_finding(struct oracle *oracle, const char *task, const char *sub, const char *text)
{
    oracle->findings =
        mem_must_realloc(oracle->findings, (oracle->n_findings + 1) * sizeof *oracle->findings);
    struct finding *finding = &oracle->findings[oracle->n_findings++];
    *finding = (struct finding){.text = mem_must_strdup(text)};
    snprintf(finding->task, sizeof finding->task, "%s", task);
    snprintf(finding->sub, sizeof finding->sub, "%s", sub);
}

/* --- judging ---------------------------------------------------------------------------------- */

__attribute__((format(printf, 5, 6))) static void say(struct judge *judge, enum oracle_rule rule,
                                                      const char *task, const char *sub,
                                                      const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    judge->verdict.violations[rule]++;
    judge->verdict.wrong++;
    if (judge->fn != NULL)
        judge->fn(judge->ctx, rule, task, sub, text);
}

static bool is_explained(const struct oracle *oracle, const struct loss *loss)
{
    for (size_t i = 0; i < oracle->n_faults; i++) {
        const struct fault *fault = &oracle->faults[i];
        if ((fault->worker[0] == '\0' || strcmp(fault->worker, loss->worker) == 0) &&
            fault->from_ms <= loss->to_ms && fault->to_ms >= loss->from_ms)
            return true;
    }
    return false;
}

/* Attempts that ended without a commit, each of which a fault must explain. Returns how many of
 * them were lost with their worker. */
static int judge_attempts(struct judge *judge, const struct sub *sub)
{
    const char *task = sub->task->id;
    int explained = 0;
    for (size_t i = 0; i < sub->n_losses; i++) {
        const struct loss *loss = &sub->losses[i];
        if (is_explained(judge->oracle, loss))
            explained++;
        else
            say(judge, ORACLE_UNEXPECTED, task, sub->id,
                "attempt %lld by %s was lost though nothing happened to that worker",
                (long long)loss->attempt, loss->worker);
    }
    if (sub->failures > sub->faults)
        say(judge, ORACLE_UNEXPECTED, task, sub->id,
            "%d attempts failed, but only %d faults were injected into its calls", sub->failures,
            sub->faults);
    return explained;
}

static void judge_calls(struct judge *judge, const struct sub *sub, int lost)
{
    const char *task = sub->task->id;
    int most = 1 + sub->faults + lost, after = 0;
    if (sub->calls > most)
        say(judge, ORACLE_PAID, task, sub->id,
            "%d calls were made: 1, %d provider faults and %d lost attempts allow %d", sub->calls,
            sub->faults, lost, most);
    for (int i = 0; i < sub->calls && sub->received_ms > 0; i++)
        after += sub->call_ms[i] > sub->received_ms;
    if (after > 0)
        say(judge, ORACLE_PAID_TWICE, task, sub->id,
            "%d calls were made after its response was in a spool", after);
}

static void judge_done(struct judge *judge, const struct sub *sub)
{
    const char *task = sub->task->id;
    if (sub->commits == 0)
        say(judge, ORACLE_LOST, task, sub->id, "it is DONE, and its log has no commit");
    if (!sub->has_outcome)
        say(judge, ORACLE_LOST, task, sub->id, "it is DONE, and has no outcome");
    if (sub->completed == 0)
        say(judge, ORACLE_UNEXPECTED, task, sub->id, "it is DONE, and no call of it was answered");
    if (judge->stored && (sub->rows >> (sub->commit_attempt & 63) & 1) == 0)
        say(judge, ORACLE_LOST, task, sub->id, "its commit has no row in the profile store");
    if (sub->rows_twice != 0)
        say(judge, ORACLE_DUPLICATED, task, sub->id, "the profile store has an attempt twice");
}

static void judge_sub(struct judge *judge, const struct sub *sub)
{
    const struct task *task = sub->task;
    judge->verdict.subtasks++;
    judge->verdict.commits += sub->commits;
    judge->verdict.attempts += sub->attempts;
    judge->verdict.calls += sub->calls;
    judge->verdict.provider_faults += sub->faults;
    judge->verdict.received += sub->received_ms > 0;
    if (!sub->seen) {
        say(judge, ORACLE_UNEXPECTED, task->id, sub->id,
            "it was called or logged, but the task has no such subtask");
        return;
    }
    if (!sub_state_terminal(sub->state))
        say(judge, ORACLE_LOST, task->id, sub->id, "it is still %s", sub_state_name(sub->state));
    if (sub->commits > 1)
        say(judge, ORACLE_DUPLICATED, task->id, sub->id, "its log has %d commits", sub->commits);
    if (sub->runs_after_commit > 0)
        say(judge, ORACLE_DUPLICATED, task->id, sub->id, "it was claimed again after its commit");
    if (sub->state == SUB_DONE)
        judge_done(judge, sub);
    else if (sub->commits > 0)
        say(judge, ORACLE_LOST, task->id, sub->id, "it was committed, and is %s",
            sub_state_name(sub->state));
    int lost = judge_attempts(judge, sub);
    judge->verdict.lost_attempts += lost;
    judge_calls(judge, sub, lost);
    if (sub->state == SUB_DEAD &&
        (task->plan.dead_after == 0 || sub->faults < task->plan.dead_after))
        say(judge, ORACLE_UNEXPECTED, task->id, sub->id,
            "it is DEAD after %d provider faults and %d lost attempts", sub->faults, lost);
}

static bool has_dead(const struct task *task)
{
    for (const struct sub *sub = task->subs; sub != NULL; sub = sub->hh.next)
        if (sub->state == SUB_DEAD)
            return true;
    return false;
}

static void judge_end(struct judge *judge, const struct task *task)
{
    judge->verdict.done += task->state == TASK_DONE;
    judge->verdict.failed += task->state == TASK_FAILED;
    judge->verdict.cancelled += task->state == TASK_CANCELLED;
    if (!task_state_terminal(task->state))
        say(judge, ORACLE_LOST, task->id, "", "it is still %s, with %lld subtasks to go",
            task_state_name(task->state), (long long)task->remaining);
    if (task->state == TASK_CANCELLED && !task->plan.cancelled)
        say(judge, ORACLE_UNEXPECTED, task->id, "", "it is CANCELLED, and nobody did that");
    if (task->state == TASK_FAILED && !has_dead(task))
        say(judge, ORACLE_UNEXPECTED, task->id, "", "it is FAILED, and no subtask is dead");
}

static void judge_task(struct judge *judge, const struct task *task)
{
    judge->verdict.tasks += task->submitted;
    if (!task->submitted) {
        say(judge, ORACLE_UNEXPECTED, task->id, "", "nobody submitted this task");
        return;
    }
    if (!task->seen) {
        say(judge, ORACLE_LOST, task->id, "", "it was submitted, and the queue does not have it");
        return;
    }
    judge_end(judge, task);
    for (const struct sub *sub = task->subs; sub != NULL; sub = sub->hh.next)
        judge_sub(judge, sub);
}

struct oracle_verdict oracle_judge(struct oracle *oracle, bool stored, oracle_violation_fn *fn,
                                   void *ctx)
{
    struct judge judge = {.oracle = oracle, .fn = fn, .ctx = ctx, .stored = stored};
    for (const struct task *task = oracle->tasks; task != NULL; task = task->hh.next)
        judge_task(&judge, task);
    for (size_t i = 0; i < oracle->n_findings; i++)
        say(&judge, ORACLE_FSCK, oracle->findings[i].task, oracle->findings[i].sub, "%s",
            oracle->findings[i].text);
    return judge.verdict;
}
