#include "orchestrator/task_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "orchestrator/plan.h"
#include "schemas/mem.h"

/* A subtask with its records decoded; a damaged or missing record reads as all zero. */
struct sub_records {
    const struct queue_sub_view *view;
    struct message meta, outcome, timing;
    bool has_outcome, has_timing;
    bool has_dependents;
};

static json_t *must(json_t *value)
{
    if (value == NULL)
        abort(); /* memory is out: programs end */
    return value;
}

json_t *task_json_text(const char *text, size_t len)
{
    json_t *value = json_stringn(text != NULL ? text : "", len);
    if (value != NULL)
        return value;
    struct buf repaired = {0};
    buf_add_json(&repaired, text, len);
    if (!repaired.failed)
        value = json_loadb(repaired.data, repaired.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    buf_release(&repaired);
    return must(value);
}

char *task_json_dump(const json_t *task, bool indent)
{
    /* 1.035, not 1.0349999999999999 */
    size_t flags = JSON_REAL_PRECISION(12) | (indent ? JSON_INDENT(2) : JSON_COMPACT);
    char *text = json_dumps(task, flags);
    if (text == NULL)
        abort();
    return text;
}

static json_t *str_or_null(const char *text)
{
    return text == NULL || *text == '\0' ? json_null() : task_json_text(text, strlen(text));
}

/* Negative means unknown in the records. */
static json_t *num_or_null(bool known, double value)
{
    return known && value >= 0 ? must(json_real(value)) : json_null();
}

static json_t *int_or_null(bool known, int64_t value)
{
    return known && value >= 0 ? must(json_integer(value)) : json_null();
}

static void set(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        abort();
}

static bool decode(struct message *ret, enum message_type type, struct bytes bytes)
{
    return bytes.len > 0 && message_decode_as(ret, type, bytes.data, bytes.len) == 0;
}

static void sub_records_init(struct sub_records *sub, const struct queue_sub_view *view)
{
    *sub = (struct sub_records){.view = view};
    if (!decode(&sub->meta, MESSAGE_meta, view->meta))
        sub->meta = (struct message){.meta = {.kind = "", .role = "", .model = "", .title = ""}};
    sub->has_outcome = decode(&sub->outcome, MESSAGE_outcome, view->outcome);
    /* While it runs again, what the attempt before was is no answer. */
    sub->has_timing =
        view->state != SUB_RUNNING && decode(&sub->timing, MESSAGE_timing, view->timing);
}

static void sub_records_release(struct sub_records *sub)
{
    message_release(&sub->meta);
    message_release(&sub->outcome);
    message_release(&sub->timing);
}

static void set_times(json_t *object, const struct sub_records *sub)
{
    const struct msg_timing *timing = &sub->timing.timing;
    bool known = sub->has_timing, running = sub->view->state == SUB_RUNNING;
    set(object, "queue_ms",
        num_or_null(known || running, running ? sub->view->queue_ms : timing->queue_ms));
    set(object, "ttft_ms", num_or_null(known, timing->ttft_ms));
    set(object, "load_ms", num_or_null(known, timing->load_ms));
    set(object, "prompt_ms", num_or_null(known, timing->prompt_ms));
    set(object, "generate_ms", num_or_null(known, timing->generate_ms));
    set(object, "total_ms", num_or_null(known, timing->total_ms));
    set(object, "prompt_tokens", int_or_null(known, timing->prompt_tokens));
    set(object, "output_tokens", int_or_null(known, timing->output_tokens));
    set(object, "cached_tokens", int_or_null(known, timing->cached_tokens));
    set(object, "reasoning_tokens", int_or_null(known, timing->reasoning_tokens));
    set(object, "cost_usd", num_or_null(known, timing->cost_usd));
    set(object, "cost_known", must(json_boolean(known && timing->cost_known)));
    set(object, "limit_ms", num_or_null(known, timing->limit_ms));
    set(object, "search_ms", num_or_null(known, timing->search_ms));
    set(object, "reserved_usd", num_or_null(known, timing->reserved_usd));
}

/* What distinguishes the attempt that counts. */
static void set_marks(json_t *object, const struct sub_records *sub)
{
    const struct msg_timing *timing = &sub->timing.timing;
    const struct msg_outcome *outcome = &sub->outcome.outcome;
    const struct bytes *citations = &outcome->citations;
    json_t *list = NULL;
    if (sub->has_outcome && citations->len > 0)
        list = json_parse(citations->data, citations->len, NULL);
    set(object, "cached", must(json_boolean(sub->has_outcome && outcome->cached)));
    set(object, "hedge", must(json_boolean(sub->has_timing && timing->hedge)));
    set(object, "model_mismatch", must(json_boolean(sub->has_timing && timing->model_mismatch)));
    set(object, "note", str_or_null(sub->has_outcome ? outcome->note : NULL));
    set(object, "citations", list != NULL ? list : json_null());
}

/* `alias` of `alias@place`; what was asked for when the arm is not known. */
static json_t *model_of_arm(const char *arm, const char *asked)
{
    const char *at = strrchr(arm, '@');
    return at != NULL ? task_json_text(arm, (size_t)(at - arm)) : str_or_null(asked);
}

/* Who ran it: the outcome knows best, then the last attempt's timing, then the queue. */
static void set_places(json_t *object, const struct sub_records *sub)
{
    const struct msg_outcome *outcome = &sub->outcome.outcome;
    const struct msg_timing *timing = &sub->timing.timing;
    bool done = sub->has_outcome, timed = sub->has_timing;
    const char *owner = sub->view->owner, *arm = sub->view->arm;
    set(object, "provider",
        str_or_null(done    ? outcome->provider
                    : timed ? timing->provider
                            : NULL));
    set(object, "model",
        done    ? str_or_null(outcome->model)
        : timed ? str_or_null(timing->model)
                : model_of_arm(arm, sub->meta.meta.model));
    set(object, "served_model",
        str_or_null(done    ? outcome->served_model
                    : timed ? timing->served_model
                            : NULL));
    set(object, "worker", str_or_null(done ? outcome->worker : owner));
    set(object, "arm", str_or_null(done ? outcome->arm : timed ? timing->arm : arm));
}

static json_t *sub_json(const struct sub_records *sub)
{
    const struct queue_sub_view *view = sub->view;
    const struct msg_outcome *outcome = &sub->outcome.outcome;
    bool failed = view->state != SUB_DONE;
    json_t *object = must(json_object()), *deps = must(json_array());
    for (size_t i = 0; i < view->n_deps; i++)
        json_array_append_new(deps, task_json_text(view->deps[i], strlen(view->deps[i])));
    set(object, "id", task_json_text(view->id, strlen(view->id)));
    set(object, "title", str_or_null(sub->meta.meta.title));
    set(object, "kind", str_or_null(sub->meta.meta.kind));
    set(object, "role", str_or_null(sub->meta.meta.role));
    set(object, "state", must(json_string(sub_state_name(view->state))));
    set(object, "depends_on", deps);
    set_places(object, sub);
    set(object, "attempts", must(json_integer(view->attempts)));
    set_times(object, sub);
    set_marks(object, sub);
    set(object, "finish", str_or_null(sub->has_outcome ? outcome->finish : NULL));
    set(object, "output",
        sub->has_outcome ? task_json_text(outcome->text.data, outcome->text.len) : json_null());
    set(object, "error", str_or_null(failed ? view->reason : NULL));
    set(object, "error_class", str_or_null(failed ? view->error_class : NULL));
    return object;
}

static int by_id(const void *a, const void *b)
{
    const struct sub_records *const *left = a, *const *right = b;
    return strcmp((*left)->view->id, (*right)->view->id);
}

static int id_cmp(const void *key, const void *entry)
{
    const struct sub_records *const *sub = entry;
    return strcmp(key, (*sub)->view->id);
}

static void mark_dependents(struct sub_records *subs, size_t n_subs)
{
    struct sub_records **sorted = mem_must_zalloc((n_subs + 1) * sizeof *sorted);
    for (size_t i = 0; i < n_subs; i++)
        sorted[i] = &subs[i];
    qsort(sorted, n_subs, sizeof *sorted, by_id);
    for (size_t i = 0; i < n_subs; i++)
        for (size_t j = 0; j < subs[i].view->n_deps; j++) {
            struct sub_records **dep =
                bsearch(subs[i].view->deps[j], sorted, n_subs, sizeof *sorted, id_cmp);
            if (dep != NULL)
                (*dep)->has_dependents = true;
        }
    free(sorted);
}

static bool is_leaf(const struct sub_records *sub)
{
    return sub->has_outcome && !sub->has_dependents && strcmp(sub->meta.meta.kind, "plan") != 0;
}

static void add_under_heading(struct buf *out, const struct sub_records *sub)
{
    const char *title = sub->meta.meta.title;
    const struct bytes *text = &sub->outcome.outcome.text;
    buf_printf(out, "%s## %s\n\n", out->len > 0 ? "\n" : "",
               *title != '\0' ? title : sub->view->id);
    buf_add(out, text->data, text->len);
    if (out->len > 0 && out->data[out->len - 1] != '\n')
        buf_add_char(out, '\n');
}

static json_t *result_json(const struct sub_records *subs, size_t n_subs)
{
    const struct sub_records *only = NULL;
    size_t leaves = 0;
    for (size_t i = 0; i < n_subs; i++) {
        if (!is_leaf(&subs[i]))
            continue;
        leaves++;
        only = &subs[i];
        if (strcmp(subs[i].view->id, PLAN_SYNTHESIS_NODE) == 0) {
            leaves = 1;
            break;
        }
    }
    if (leaves == 0)
        return json_null();
    if (leaves == 1)
        return task_json_text(only->outcome.outcome.text.data, only->outcome.outcome.text.len);
    struct buf out = {0};
    for (size_t i = 0; i < n_subs; i++)
        if (is_leaf(&subs[i]))
            add_under_heading(&out, &subs[i]);
    if (out.failed)
        abort();
    json_t *result = task_json_text(out.data, out.len);
    buf_release(&out);
    return result;
}

/* The first dead subtask says why the task failed. */
static json_t *error_json(const struct sub_records *subs, size_t n_subs)
{
    for (size_t i = 0; i < n_subs; i++) {
        const struct queue_sub_view *view = subs[i].view;
        if (view->state != SUB_DEAD)
            continue;
        char *text = mem_must_printf("%s: %s%s%s", view->id, view->error_class,
                                     *view->reason != '\0' ? ": " : "", view->reason);
        json_t *error = str_or_null(text);
        free(text);
        return error;
    }
    return json_null();
}

#define NANO 1e9

static json_t *spend_json(const struct queue_spend *spend)
{
    json_t *object = must(json_object());
    set(object, "usd", must(json_real((double)spend->nano_usd / NANO)));
    set(object, "tokens", must(json_integer(spend->tokens)));
    return object;
}

/* null where the task has none of its own. */
static json_t *budget_json(const struct queue_task_view *view)
{
    if (view->budget.nano_usd <= 0 && view->budget.tokens <= 0)
        return json_null();
    json_t *object = must(json_object());
    set(object, "limit", spend_json(&view->budget));
    set(object, "spent", spend_json(&view->spent));
    set(object, "held", spend_json(&view->held));
    return object;
}

/* A worker's figure may be nonsense: it must not overflow the sum. */
static void add_tokens(int64_t *sum, int64_t tokens)
{
    if (tokens > 0 && tokens < INT64_MAX - *sum)
        *sum += tokens;
}

/* What all attempts have cost is known to the queue, and what a budget was charged for attempts of
 * which nobody knows it; the last attempts' timing records say less. */
static void set_sums(json_t *object, const struct queue_task_view *view,
                     const struct sub_records *subs)
{
    size_t n_subs = view->n_subs;
    double cost_usd = 0;
    int64_t prompt_tokens = 0, output_tokens = 0;
    for (size_t i = 0; i < n_subs; i++) {
        const struct msg_timing *timing = &subs[i].timing.timing;
        if (!subs[i].has_timing)
            continue;
        cost_usd += timing->cost_usd > 0 ? timing->cost_usd : 0;
        add_tokens(&prompt_tokens, timing->prompt_tokens);
        add_tokens(&output_tokens, timing->output_tokens);
    }
    cost_usd = fmax(cost_usd, (double)view->cost_nano_usd / NANO);
    cost_usd = fmax(cost_usd, (double)view->spent.nano_usd / NANO);
    set(object, "cost_usd", num_or_null(isfinite(cost_usd), cost_usd));
    set(object, "prompt_tokens", must(json_integer(prompt_tokens)));
    set(object, "output_tokens", must(json_integer(output_tokens)));
}

static json_t *text_of_info(const struct queue_task_view *view)
{
    json_t *info = json_parse(view->info.data, view->info.len, NULL);
    json_t *text = json_get(info, PLAN_INFO_TEXT);
    text = json_is_string(text) ? json_incref(text) : json_null();
    json_decref(info);
    return text;
}

json_t *task_json(const struct queue_task_view *view)
{
    struct sub_records *subs = mem_must_zalloc((view->n_subs + 1) * sizeof *subs);
    for (size_t i = 0; i < view->n_subs; i++)
        sub_records_init(&subs[i], &view->subs[i]);
    mark_dependents(subs, view->n_subs);
    int64_t end_ms = view->finished_ms > 0 ? view->finished_ms : clock_wall_ms();
    int64_t wall_ms = end_ms > view->created_ms ? end_ms - view->created_ms : 0;
    json_t *object = must(json_object()), *array = must(json_array());
    for (size_t i = 0; i < view->n_subs; i++)
        json_array_append_new(array, sub_json(&subs[i]));
    set(object, "task_id", task_json_text(view->id, strlen(view->id)));
    set(object, "title", str_or_null(view->title));
    set(object, "state", must(json_string(task_state_name(view->state))));
    set(object, "text", text_of_info(view));
    set(object, "result", view->state == TASK_DONE ? result_json(subs, view->n_subs) : json_null());
    set(object, "error", view->state == TASK_FAILED ? error_json(subs, view->n_subs) : json_null());
    set(object, "files", must(json_array()));
    set(object, "created_ms", int_or_null(view->created_ms > 0, view->created_ms));
    set(object, "finished_ms", int_or_null(view->finished_ms > 0, view->finished_ms));
    set(object, "wall_ms", must(json_integer(wall_ms)));
    set_sums(object, view, subs);
    set(object, "budget", budget_json(view));
    set(object, "subtasks", array);
    for (size_t i = 0; i < view->n_subs; i++)
        sub_records_release(&subs[i]);
    free(subs);
    return object;
}
