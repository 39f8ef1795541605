#include "tests/chaos/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/task_id.h"
#include "schemas/mem.h"

#define ASKED_MAX 8 /* a turn */
#define MAX_ATTEMPTS 4
#define NODES_MAX 6

/* --- numbers ---------------------------------------------------------------------------------- */

uint64_t load_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

int load_pick(uint64_t *state, int n)
{
    return (int)(load_random(state) % (uint64_t)n);
}

void load_scenario(struct buf *out, uint64_t seed, const char *text)
{
    static const char rules[] =
        "timing: {load_ms: 80, decode_tps: 1000, prefill_tps: 0, jitter: 0.3}\n"
        "rules:\n"
        "  - match: {prompt: \"#fatal\"}\n"
        "    fault: bad_request\n"
        "  - match: {prompt: \"#plan\", probability: 0.95}\n"
        "    reply: {echo: true}\n"
        "  - {match: {probability: 0.010}, fault: overloaded}\n"
        "  - {match: {probability: 0.010}, fault: server_error}\n"
        "  - {match: {probability: 0.010}, fault: close_before_headers}\n"
        "  - {match: {probability: 0.010}, fault: {truncate_after: 1}}\n"
        "  - {match: {probability: 0.005}, fault: {malformed_json: 1}}\n"
        "  - {match: {probability: 0.005}, fault: {kind: rate_limit, retry_after: 0.2}}\n"
        "  - match: {prompt: \"#plan\"}\n"
        "    reply: {echo: true}\n"
        "  - match: {probability: 0.04}\n"
        "    reply: {text: \"slow\"}\n"
        "    timing: {load_ms: 1500, decode_tps: 1000}\n"
        "  - reply: {text: \"ok, this is done\"}\n";
    buf_printf(out, "seed: %u\n%s", (unsigned)(seed & 0x7fffffff), text != NULL ? text : rules);
}

/* --- shapes of tasks -------------------------------------------------------------------------- */

/* A node of a shape; deps: ids separated by blanks. */
struct shape_node {
    const char *id, *deps, *mark;
};
struct shape {
    int share; /* of 100 */
    bool cancelled;
    int dead_after; /* 0: as random faults may have it */
    bool plans;
    struct shape_node nodes[NODES_MAX];
};

static const struct shape shapes[] = {
    {.share = 40, .nodes = {{"a", "", ""}}},
    {.share = 15, .nodes = {{"a", "", ""}, {"b", "a", ""}, {"c", "b", ""}, {"d", "c", ""}}},
    {.share = 15, .nodes = {{"a", "", ""}, {"b", "a", ""}, {"c", "a", ""}, {"d", "b c", ""}}},
    {.share = 15, .plans = true, .nodes = {{"_plan", "", "#plan"}}},
    {.share = 10,
     .cancelled = true,
     .nodes = {{"a", "", ""}, {"b", "a", ""}, {"c", "a", ""}, {"d", "b", ""}, {"e", "c d", ""}}},
    {.share = 5, .dead_after = 1, .nodes = {{"a", "", ""}, {"b", "a", "#fatal"}, {"c", "b", ""}}},
};

static const struct shape *pick_shape(uint64_t *random)
{
    int at = load_pick(random, 100);
    const struct shape *shape = shapes;
    while (at >= shape->share)
        at -= shape++->share;
    return shape;
}

/* A chain of two and one beside it; then the synthesis. */
static void add_plan(struct buf *out, const char *task)
{
    static const char *const deps[] = {"", "\"x1\"", ""};
    buf_printf(out, " {\"title\":\"<<%s/?>>\",\"subtasks\":[", task);
    for (int i = 0; i < 3; i++)
        buf_printf(out,
                   "%s{\"id\":\"x%d\",\"title\":\"x\",\"role\":\"general\",\"prompt\":"
                   "\"<<%s/x%d>>\",\"depends_on\":[%s]}",
                   i > 0 ? "," : "", i + 1, task, i + 1, deps[i]);
    buf_add_str(out, "]}");
}

/* The ids of a word list, which lives in `text`. */
static size_t split_ids(char *text, const char **ret)
{
    size_t n = 0;
    char *rest = NULL;
    for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
        ret[n++] = word;
    return n;
}

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    struct load *load = ctx;
    load->unsubmitted--;
    if (status == QUEUE_OK || status == QUEUE_DUP)
        return;
    load->refused++;
    fprintf(stderr, "chaos: submit: %s %s\n", queue_status_name(status), err);
}

static void submit(struct load *load, const char *task, const struct shape *shape)
{
    struct queue_node nodes[NODES_MAX];
    const char *deps[NODES_MAX][NODES_MAX];
    char texts[NODES_MAX][32], title[40];
    size_t n = 0;
    for (; n < NODES_MAX && shape->nodes[n].id != NULL; n++) {
        const struct shape_node *node = &shape->nodes[n];
        struct buf prompt = {0};
        buf_printf(&prompt, "<<%s/%s>> %s", task, node->id, node->mark);
        if (shape->plans)
            add_plan(&prompt, task);
        nodes[n] = testbed_node(node->id, prompt.data);
        buf_release(&prompt);
        snprintf(texts[n], sizeof texts[n], "%s", node->deps);
        nodes[n].n_deps = split_ids(texts[n], deps[n]);
        nodes[n].deps = deps[n];
        nodes[n].max_attempts = MAX_ATTEMPTS;
        nodes[n].expands = shape->plans;
    }
    snprintf(title, sizeof title, "<<%s/?>>", task);
    struct queue_task stored = {
        .id = task, .digest = "d", .title = title, .info = {"{}", 2}, .nodes = nodes, .n_nodes = n};
    load->unsubmitted++;
    queue_submit(load->rig->queue, &stored, submitted, load);
}

static void add_one(struct load *load, const struct shape *shape)
{
    struct oracle_plan plan = {.cancelled = shape->cancelled,
                               .dead_after =
                                   shape->dead_after > 0 ? shape->dead_after : MAX_ATTEMPTS};
    size_t at = load->n_tasks++;
    load->tasks = mem_must_realloc(load->tasks, load->n_tasks * sizeof *load->tasks);
    load->over = mem_must_realloc(load->over, load->n_tasks * sizeof *load->over);
    load->over[at] = false;
    task_id_make(load->tasks[at]);
    oracle_submitted(load->rig->oracle, load->tasks[at], &plan);
    submit(load, load->tasks[at], shape);
    if (!shape->cancelled)
        return;
    load->cancels = mem_must_realloc(load->cancels, (load->n_cancels + 1) * sizeof *load->cancels);
    load->cancels[load->n_cancels++] = at;
}

void load_open(struct load *load, struct rig *rig, uint64_t seed)
{
    *load = (struct load){.rig = rig, .random = seed};
}

void load_close(struct load *load)
{
    free(load->tasks);
    free(load->over);
    free(load->cancels);
}

void load_add(struct load *load, int n_tasks)
{
    for (int i = 0; i < n_tasks; i++)
        add_one(load, pick_shape(&load->random));
}

void load_add_single(struct load *load, int n_tasks)
{
    for (int i = 0; i < n_tasks; i++)
        add_one(load, &shapes[0]);
}

/* --- following them --------------------------------------------------------------------------- */

struct asking {
    struct load *load;
    size_t at;
};

static void answered(void *ctx, enum queue_status status, const struct queue_task_view *view,
                     const char *err)
{
    struct asking asking = *(struct asking *)ctx;
    struct load *load = asking.load;
    (void)err;
    free(ctx);
    load->asked--;
    if (status != QUEUE_OK || !task_state_terminal(view->state) || load->over[asking.at])
        return;
    for (size_t i = 0; i < view->n_subs; i++)
        if (!sub_state_terminal(view->subs[i].state))
            return;
    load->over[asking.at] = true;
    load->n_over++;
}

static void cancelled(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx, (void)status, (void)err; /* too late is well, too: the oracle sees */
}

static void cancel_one(struct load *load)
{
    size_t at = load->cancels[--load->n_cancels];
    queue_cancel(load->rig->queue, load->tasks[at], cancelled, NULL);
}

void load_turn(struct load *load)
{
    /* The chance of a turn, so that some wait, some run and some are over. */
    if (load->n_cancels > 0 && load->unsubmitted == 0 && load_pick(&load->random, 4) == 0)
        cancel_one(load);
    for (size_t looked = 0; looked < load->n_tasks && load->asked < ASKED_MAX; looked++) {
        size_t at = load->next++ % load->n_tasks;
        if (load->over[at])
            continue;
        struct asking *asking = mem_must_zalloc(sizeof *asking);
        *asking = (struct asking){load, at};
        load->asked++;
        queue_read(load->rig->queue, load->tasks[at], false, answered, asking);
    }
}

size_t load_unfinished(const struct load *load)
{
    return load->n_tasks - load->n_over;
}
