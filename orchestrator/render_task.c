#include "orchestrator/render_task.h"

#include <string.h>

#include "orchestrator/command.h"
#include "orchestrator/render.h"
#include "schemas/error_class.h"

#define FAILURES_SHOWN 5

int render_task_exit(const json_t *task)
{
    const char *state = json_str(task, "state", "");
    if (strcmp(state, "FAILED") == 0)
        return EXIT_FAILED;
    return strcmp(state, "CANCELLED") == 0 ? EXIT_STOPPED : EXIT_DONE;
}

/* --- timing -------------------------------------------------------------------------------------
 */

static void add_duration(struct render_table *table, const json_t *subtask, const char *key)
{
    struct buf text = {0};
    render_duration(&text, json_num(subtask, key, -1));
    render_table_add(table, text.data);
    buf_release(&text);
}

/* Tokens per second of the generation: by the runtime's own figure, else from the first token to
 * the end; below 0: unknown. */
static double decode_rate(const json_t *subtask)
{
    double tokens = json_num(subtask, "output_tokens", -1);
    double ms = json_num(subtask, "generate_ms", -1);
    if (ms <= 0)
        ms = json_num(subtask, "total_ms", -1) - json_num(subtask, "ttft_ms", 0);
    return tokens > 0 && ms > 0 ? tokens * 1000 / ms : -1;
}

static void add_cost(struct render_table *table, double cost_usd)
{
    if (cost_usd > 0)
        render_table_addf(table, "$%.4f", cost_usd);
    else
        render_table_add(table, cost_usd == 0 ? "0" : "-");
}

static void add_tokens(struct render_table *table, const json_t *subtask)
{
    int64_t prompt = json_int(subtask, "prompt_tokens", -1);
    int64_t output = json_int(subtask, "output_tokens", -1);
    if (prompt < 0 && output < 0)
        render_table_add(table, "-");
    else
        render_table_addf(table, "%lld+%lld", (long long)(prompt > 0 ? prompt : 0),
                          (long long)(output > 0 ? output : 0));
}

static void add_timing_row(struct render_table *table, const json_t *subtask)
{
    double rate = decode_rate(subtask);
    render_table_add(table, json_str(subtask, "id", ""));
    render_table_add(table, json_str(subtask, "role", "-"));
    render_table_add(table, json_str(subtask, "arm", "-"));
    add_duration(table, subtask, "queue_ms");
    add_duration(table, subtask, "ttft_ms");
    add_duration(table, subtask, "total_ms");
    if (rate > 0)
        render_table_addf(table, "%.1f", rate);
    else
        render_table_add(table, "-");
    add_tokens(table, subtask);
    add_cost(table, json_num(subtask, "cost_usd", -1));
}

/* What the reader of the figures should know: cached, hedge, other model, search failed. */
static void print_marks(const json_t *task, FILE *stream)
{
    static const struct {
        const char *member, *text;
    } marks[] = {
        {"cached", "the answer came from the response cache"},
        {"hedge", "a second attempt was faster than the first"},
        {"model_mismatch", "another model answered than was asked for"},
    };
    json_t *subtask;
    size_t i;
    json_array_foreach (json_get(task, "subtasks"), i, subtask) {
        const char *id = json_str(subtask, "id", ""), *note = json_str(subtask, "note", NULL);
        struct buf text = {0};
        for (size_t m = 0; m < sizeof marks / sizeof *marks; m++)
            if (json_bool(subtask, marks[m].member, false))
                buf_printf(&text, "%s%s", text.len > 0 ? "; " : "", marks[m].text);
        if (json_bool(subtask, "model_mismatch", false))
            buf_printf(&text, " (%s)", json_str(subtask, "served_model", "?"));
        if (note != NULL)
            buf_printf(&text, "%s%s", text.len > 0 ? "; " : "", note);
        struct buf line = {0};
        if (text.len > 0) {
            render_safe(&line, text.data, text.len, true);
            fprintf(stream, "%s: %s\n", id, line.data != NULL ? line.data : "");
        }
        buf_release(&line);
        buf_release(&text);
    }
}

static void print_budget(const json_t *task, FILE *stream)
{
    const json_t *budget = json_get(task, "budget");
    const json_t *limit = json_get(budget, "limit"), *spent = json_get(budget, "spent");
    if (limit == NULL)
        return;
    if (json_num(limit, "usd", 0) > 0)
        fprintf(stream, "budget: $%.4f of $%.4f spent\n", json_num(spent, "usd", 0),
                json_num(limit, "usd", 0));
    if (json_int(limit, "tokens", 0) > 0)
        fprintf(stream, "budget: %lld of %lld tokens used\n",
                (long long)json_int(spent, "tokens", 0), (long long)json_int(limit, "tokens", 0));
}

static void print_sums(const json_t *task, FILE *stream)
{
    struct buf text = {0};
    size_t n = json_array_size(json_get(task, "subtasks"));
    double cost_usd = json_num(task, "cost_usd", 0);
    buf_printf(&text, "%zu subtask%s in ", n, n == 1 ? "" : "s");
    render_duration(&text, json_num(task, "wall_ms", -1));
    buf_printf(&text, ", %lld+%lld tokens", (long long)json_int(task, "prompt_tokens", 0),
               (long long)json_int(task, "output_tokens", 0));
    if (cost_usd > 0)
        buf_printf(&text, ", $%.4f", cost_usd);
    fprintf(stream, "%s\n", text.data);
    buf_release(&text);
}

void render_task_timing(const json_t *task, FILE *stream)
{
    static const struct render_column columns[] = {
        {"subtask", false, 28}, {"role", false, 14},
        {"arm", false, 36},     {"queue", true, 0},
        {"ttft", true, 0},      {"total", true, 0},
        {"tok/s", true, 0},     {"tokens", true, 0},
        {"cost", true, 0},      {0},
    };
    struct render_table *table = render_table_new(columns);
    json_t *subtask;
    size_t i;
    json_array_foreach (json_get(task, "subtasks"), i, subtask)
        add_timing_row(table, subtask);
    render_table_print(&table, stream, 0);
    print_sums(task, stream);
    print_budget(task, stream);
    print_marks(task, stream);
}

/* --- failures -----------------------------------------------------------------------------------
 */

static const struct {
    enum error_class class_;
    const char *advice;
} advices[] = {
    {CLASS_RATE_LIMITED, "wait a while, or lower requests_per_minute of the provider"},
    {CLASS_QUOTA, "add credit at the provider, or give the role another model"},
    {CLASS_OVERLOADED, "try again later, or give the role another model"},
    {CLASS_CONTEXT_TOO_LONG, "shorten the input, or use a model with a larger window"},
    {CLASS_REFUSED, "rephrase the task, or use another model"},
    {CLASS_BAD_REQUEST, "check the model's name and settings: `orchestrator models`"},
    {CLASS_AUTH, "check the provider's key: `orchestrator doctor`"},
    {CLASS_TIMEOUT, "raise the provider's timeouts, or use a faster model"},
    {CLASS_BUDGET,
     "raise that budget, the task's with `orchestrator retry --budget`; what is done stays done"},
    {CLASS_WORKER_LOST, "look at the workers: `orchestrator status`"},
};

static void print_line(FILE *stream, const char *before, const char *text)
{
    struct buf safe = {0};
    render_safe(&safe, text, strlen(text), true);
    fprintf(stream, "%s%s\n", before, safe.data != NULL ? safe.data : "");
    buf_release(&safe);
}

static void print_failure(const json_t *subtask, FILE *stream)
{
    const char *name = json_str(subtask, "error_class", "");
    enum error_class class_ = error_class_parse(name);
    struct buf text = {0};
    int64_t attempts = json_int(subtask, "attempts", 0);
    buf_printf(&text, "subtask %s", json_str(subtask, "id", ""));
    if (json_str(subtask, "title", NULL) != NULL)
        buf_printf(&text, " (%s)", json_str(subtask, "title", ""));
    buf_printf(&text, " failed after %lld attempt%s", (long long)attempts,
               attempts == 1 ? "" : "s");
    if (*name != '\0')
        buf_printf(&text, ": %s", name);
    if (class_ != CLASS_COUNT && class_ != CLASS_NONE)
        buf_printf(&text, " (%s)", error_class_meaning(class_));
    buf_printf(&text, ": %s", json_str(subtask, "error", "no reason is known"));
    print_line(stream, "", text.data);
    for (size_t i = 0; i < sizeof advices / sizeof *advices; i++) {
        if (advices[i].class_ == class_)
            print_line(stream, "  what to do: ", advices[i].advice);
    }
    buf_release(&text);
}

void render_task_failure(const json_t *task, FILE *stream)
{
    const char *id = json_str(task, "task_id", "");
    json_t *subtask;
    size_t i, dead = 0;
    fprintf(stream, "task %s failed\n", id);
    json_array_foreach (json_get(task, "subtasks"), i, subtask) {
        if (strcmp(json_str(subtask, "state", ""), "DEAD") == 0 && dead++ < FAILURES_SHOWN)
            print_failure(subtask, stream);
    }
    if (dead > FAILURES_SHOWN)
        fprintf(stream, "and %zu more: `orchestrator show %s`\n", dead - FAILURES_SHOWN, id);
    fprintf(stream,
            "`orchestrator retry %s` runs again what failed; what is done stays done and costs "
            "nothing\n",
            id);
}

/* --- summary ------------------------------------------------------------------------------------
 */

static void add_depends(struct render_table *table, const json_t *subtask)
{
    struct buf text = {0};
    json_t *dep;
    size_t i;
    json_array_foreach (json_get(subtask, "depends_on"), i, dep)
        buf_printf(&text, "%s%s", i > 0 ? " " : "", json_string_value(dep));
    render_table_add(table, text.data);
    buf_release(&text);
}

static void print_subtasks(const json_t *task, FILE *stream)
{
    static const struct render_column columns[] = {
        {"subtask", false, 28},    {"state", false, 0},  {"role", false, 14},
        {"arm", false, 36},        {"tries", true, 0},   {"total", true, 0},
        {"depends on", false, 40}, {"title", false, 60}, {0},
    };
    struct render_table *table = render_table_new(columns);
    json_t *subtask;
    size_t i;
    json_array_foreach (json_get(task, "subtasks"), i, subtask) {
        render_table_add(table, json_str(subtask, "id", ""));
        render_table_add(table, json_str(subtask, "state", ""));
        render_table_add(table, json_str(subtask, "role", "-"));
        render_table_add(table, json_str(subtask, "arm", "-"));
        render_table_addf(table, "%lld", (long long)json_int(subtask, "attempts", 0));
        add_duration(table, subtask, "total_ms");
        add_depends(table, subtask);
        render_table_add(table, json_str(subtask, "title", ""));
    }
    render_table_print(&table, stream, 2);
}

void render_task_summary(const json_t *task, FILE *stream)
{
    struct buf text = {0};
    print_line(stream, "task     ", json_str(task, "task_id", ""));
    print_line(stream, "state    ", json_str(task, "state", ""));
    if (json_str(task, "title", NULL) != NULL)
        print_line(stream, "title    ", json_str(task, "title", ""));
    render_time(&text, json_int(task, "created_ms", 0));
    fprintf(stream, "created  %s\n", text.data);
    buf_clear(&text);
    render_time(&text, json_int(task, "finished_ms", 0));
    fprintf(stream, "finished %s\n", text.data);
    buf_clear(&text);
    render_duration(&text, json_num(task, "wall_ms", -1));
    fprintf(stream, "time     %s\n", text.data);
    buf_release(&text);
    fprintf(stream, "tokens   %lld+%lld, $%.4f\n", (long long)json_int(task, "prompt_tokens", 0),
            (long long)json_int(task, "output_tokens", 0), json_num(task, "cost_usd", 0));
    print_budget(task, stream);
    fputs("subtasks\n", stream);
    print_subtasks(task, stream);
    print_marks(task, stream);
    if (render_task_exit(task) == EXIT_FAILED)
        render_task_failure(task, stream);
}
