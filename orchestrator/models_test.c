/* `models --test`: a trivial question to each arm, and how it went. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/model_registry.h"
#include "common/price.h"
#include "common/yaml.h"
#include "orchestrator/models.h"
#include "orchestrator/questions.h"
#include "orchestrator/render.h"
#include "orchestrator/task_json.h"
#include "schemas/mem.h"

#define PROMPT "Answer with the one word: ok"
#define ANSWER_TOKENS 512 /* thinking may take most of them */

/* An arm under test, or a model that has none. */
struct trial {
    const struct config_model *model;
    const char *arm;          /* the alias, when there is none */
    const char *why;          /* why it is not asked; NULL: it is */
    struct question question; /* asked only without why */
};

struct trials {
    struct trial *items;
    size_t n_items;
    struct question *questions; /* of those that are asked */
    size_t n_questions;
    struct models_sizes *sizes;
    bool quiet;
};

/* --- what is tested ----------------------------------------------------------------------- */

static bool is_wanted(const char *wanted, const struct config_model *model, const char *arm)
{
    return wanted == NULL || strcmp(wanted, model->alias) == 0 || strcmp(wanted, arm) == 0;
}

static void add(struct trials *trials, const struct config_model *model, const char *arm,
                const char *why)
{
    trials->items = mem_must_realloc(trials->items, (trials->n_items + 1) * sizeof *trials->items);
    trials->items[trials->n_items++] = (struct trial){.model = model, .arm = arm, .why = why};
}

static void choose(struct trials *trials, const struct config *config,
                   const struct models_arms *arms, const char *wanted)
{
    for (size_t m = 0; m < config->n_models; m++) {
        const struct config_model *model = &config->models[m];
        bool any = false;
        for (size_t i = 0; i < arms->n_items; i++) {
            const struct models_arm *arm = &arms->items[i];
            if (arm->model != model)
                continue;
            any = true;
            if (is_wanted(wanted, model, arm->arm))
                add(trials, model, arm->arm, arm->paused);
        }
        if (!any && is_wanted(wanted, model, model->alias))
            add(trials, model, model->alias, "no connected worker serves it");
    }
}

/* The place is only known from the bus, so that aliases alone are compared. */
static int unknown(const struct invocation *invocation, const struct config *config,
                   const char *wanted)
{
    const char **names = mem_must_zalloc((config->n_models + 1) * sizeof *names);
    for (size_t i = 0; i < config->n_models; i++)
        names[i] = config->models[i].alias;
    const char *nearest = yaml_nearest(wanted, names);
    free(names);
    if (nearest != NULL)
        return command_fail(invocation, EXIT_USAGE,
                            "there is no model or arm \"%.128s\"; did you mean %s?", wanted,
                            nearest);
    return command_fail(invocation, EXIT_USAGE,
                        "there is no model or arm \"%.128s\"; `orchestrator models` lists them",
                        wanted);
}

static void make_questions(struct trials *trials)
{
    trials->questions = mem_must_zalloc((trials->n_items + 1) * sizeof *trials->questions);
    for (size_t i = 0; i < trials->n_items; i++) {
        const struct trial *trial = &trials->items[i];
        bool embeds = model_registry_only_embeds(trial->model);
        if (trial->why != NULL)
            continue;
        trials->questions[trials->n_questions++] =
            (struct question){.kind = embeds ? "embed" : "run",
                              .arm = trial->arm,
                              .title = mem_must_printf("test of %s", trial->arm),
                              .prompt = PROMPT,
                              .max_tokens = embeds ? 0 : ANSWER_TOKENS};
    }
}

/* The answer about a trial; NULL: it was not asked, or has not answered. */
static const json_t *answer_of(const struct trials *trials, const struct trial *trial)
{
    for (size_t i = 0; i < trials->n_questions; i++)
        if (trials->questions[i].arm == trial->arm)
            return trials->questions[i].answer;
    return NULL;
}

/* --- what came of it ---------------------------------------------------------------------- */

static bool went_well(const json_t *answer)
{
    return strcmp(json_str(answer, "state", ""), "DONE") == 0;
}

/* Why an arm is no good; "" when it is. */
static const char *complaint(const struct trial *trial, const json_t *answer)
{
    if (trial->why != NULL)
        return trial->why;
    if (answer == NULL)
        return "no answer within the time limit";
    return went_well(answer) ? "" : json_str(answer, "error", "it failed");
}

static double tokens_per_s(const json_t *answer)
{
    double generate_ms = json_num(answer, "generate_ms", -1);
    int64_t tokens = json_int(answer, "output_tokens", -1);
    return generate_ms > 0 && tokens > 0 ? (double)tokens * 1000 / generate_ms : -1;
}

static void answered(void *ctx, const struct question *question)
{
    const struct trials *trials = ctx;
    if (trials->quiet)
        return;
    struct buf line = {0};
    const char *error = json_str(question->answer, "error", "");
    bool well = went_well(question->answer);
    buf_printf(&line, "%-6s %s  ", well ? "ok" : "failed", question->arm);
    if (well)
        render_duration(&line, json_num(question->answer, "total_ms", -1));
    else
        render_safe(&line, error, strlen(error), true);
    fprintf(stderr, "%s\n", line.data);
    buf_release(&line);
}

static void set(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

static json_t *number(double value)
{
    return value >= 0 ? json_real(value) : json_null();
}

static json_t *trial_json(const struct trials *trials, const struct trial *trial)
{
    static const char *const copied[] = {
        "worker",        "error_class",   "served_model", "model_mismatch", "queue_ms",
        "ttft_ms",       "load_ms",       "prompt_ms",    "generate_ms",    "total_ms",
        "prompt_tokens", "output_tokens", "cost_usd",     "finish",         "note"};
    const json_t *answer = answer_of(trials, trial);
    const char *why = complaint(trial, answer);
    struct models_size size = models_size_of(trials->sizes, trial->model);
    json_t *object = json_object();
    set(object, "arm", task_json_text(trial->arm, strlen(trial->arm)));
    set(object, "model", json_string(trial->model->alias));
    set(object, "ok", json_boolean(*why == '\0'));
    set(object, "error", *why != '\0' ? task_json_text(why, strlen(why)) : json_null());
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
        json_t *value = json_get(answer, copied[i]);
        set(object, copied[i], value != NULL ? json_incref(value) : json_null());
    }
    set(object, "tokens_per_s", number(tokens_per_s(answer)));
    set(object, "parameters",
        size.parameters[0] != '\0' ? json_string(size.parameters) : json_null());
    set(object, "bytes", size.bytes > 0 ? json_integer(size.bytes) : json_null());
    return object;
}

static void print_json(const struct trials *trials)
{
    json_t *list = json_array();
    for (size_t i = 0; i < trials->n_items; i++)
        json_array_append_new(list, trial_json(trials, &trials->items[i]));
    char *text = task_json_dump(list, false);
    puts(text);
    free(text);
    json_decref(list);
}

static void add_duration(struct render_table *table, double ms)
{
    struct buf out = {0};
    render_duration(&out, ms);
    render_table_add(table, out.data);
    buf_release(&out);
}

static void add_size(struct render_table *table, struct models_size size)
{
    struct buf out = {0};
    buf_add_str(&out, size.parameters);
    if (size.bytes > 0) {
        buf_add_str(&out, out.len > 0 ? ", " : "");
        render_bytes(&out, (uint64_t)size.bytes);
    }
    render_table_add(table, out.len > 0 ? out.data : "-");
    buf_release(&out);
}

static void add_row(struct render_table *table, const struct trials *trials,
                    const struct trial *trial)
{
    const json_t *answer = answer_of(trials, trial);
    const char *why = complaint(trial, answer);
    double speed = tokens_per_s(answer), usd = json_num(answer, "cost_usd", -1);
    render_table_add(table, trial->arm);
    render_table_add(table, *why == '\0' ? "ok" : why);
    add_duration(table, json_num(answer, "total_ms", -1));
    add_duration(table, json_num(answer, "ttft_ms", -1));
    if (speed >= 0)
        render_table_addf(table, "%.1f", speed);
    else
        render_table_add(table, "-");
    add_duration(table, json_num(answer, "load_ms", -1));
    add_size(table, models_size_of(trials->sizes, trial->model));
    bool priced = trial->model->local || price_at(trial->model, clock_wall_ms(), 0) != NULL;
    if (usd >= 0 && priced)
        render_table_addf(table, "%.6f", usd);
    else
        render_table_add(table, "-");
}

static void print_table(const struct trials *trials)
{
    static const struct render_column columns[] = {
        {"arm", false, 60},       {"result", false, 60}, {"latency", true, 0},
        {"first token", true, 0}, {"tokens/s", true, 0}, {"load", true, 0},
        {"size", false, 0},       {"USD", true, 0},      {0},
    };
    struct render_table *table = render_table_new(columns);
    for (size_t i = 0; i < trials->n_items; i++)
        add_row(table, trials, &trials->items[i]);
    render_table_print(&table, stdout, 0);
}

/* --- all of it ---------------------------------------------------------------------------- */

static int run(struct client *client, const struct invocation *invocation, struct trials *trials,
               int64_t timeout_ms)
{
    make_questions(trials);
    if (!trials->quiet)
        fprintf(stderr, "asking %zu arm%s\n", trials->n_questions,
                trials->n_questions == 1 ? "" : "s");
    int code = questions_ask(client, invocation, trials->questions, trials->n_questions,
                             clock_ms() + timeout_ms, answered, trials);
    if (code != EXIT_DONE)
        return code;
    trials->sizes = models_sizes_ask(client->config);
    if (invocation_has(invocation, "json"))
        print_json(trials);
    else
        print_table(trials);
    for (size_t i = 0; i < trials->n_items; i++)
        if (*complaint(&trials->items[i], answer_of(trials, &trials->items[i])) != '\0')
            code = EXIT_FAILED;
    return code;
}

int models_test(struct client *client, const struct invocation *invocation, const char *wanted,
                int64_t timeout_ms)
{
    struct trials trials = {.quiet = invocation_has(invocation, "quiet")};
    struct models_arms arms = {0};
    struct roster roster = {0};
    int code = models_ask_roster(client, invocation, &roster);
    if (code == EXIT_DONE) {
        models_arms_find(&arms, client->config, &roster);
        choose(&trials, client->config, &arms, wanted);
        code = trials.n_items == 0 && wanted != NULL ? unknown(invocation, client->config, wanted)
                                                     : run(client, invocation, &trials, timeout_ms);
    }
    for (size_t i = 0; i < trials.n_questions; i++)
        free((void *)(uintptr_t)trials.questions[i].title);
    questions_release(trials.questions, trials.n_questions);
    free(trials.questions);
    free(trials.items);
    models_sizes_free(&trials.sizes);
    models_arms_release(&arms);
    roster_release(&roster);
    return code;
}
