#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "schemas/mem.h"
#include "tests/lib/stage.h"

#define LOOK_MS 20      /* between two looks at a task */
#define MAX_ATTEMPTS 90 /* failures must not end what a budget is to end */

void stage_open(struct stage *stage, const char *yaml, const char *scenario,
                const char *const *workers)
{
    struct err err;
    *stage = (struct stage){0};
    testbed_init(&stage->testbed, yaml, scenario);
    setenv("ORCHESTRATOR_CONFIG", stage->testbed.config, 1);
    loop_init(&stage->loop);
    struct redis_options options = fixture_redis_options(&stage->testbed.fixture);
    if (config_load(&stage->config, stage->testbed.config, &err) != 0)
        fail_msg("%s", err.text);
    testbed_start(&stage->testbed, workers);
    assert_int_equal(queue_open(&stage->queue, &stage->loop, &options, NULL, NULL, &err), 0);
}

void stage_close(struct stage *stage)
{
    struct testbed *testbed = &stage->testbed;
    kill(testbed->daemon, SIGTERM);
    assert_int_equal(fixture_wait_exit(&testbed->fixture, testbed->daemon, STAGE_WAIT_MS), 0);
    queue_close(&stage->queue);
    loop_finish(&stage->loop);
    config_free(&stage->config);
    testbed_release(testbed);
}

/* --- tasks ------------------------------------------------------------------------------------ */

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    if (status != QUEUE_OK)
        fail_msg("submit: %s %s", queue_status_name(status), err);
    *(bool *)ctx = true;
}

static const char *role_of(const struct stage_task *task, size_t i)
{
    return task->n_roles > 0 ? task->roles[i % task->n_roles] : "general";
}

static void write_prompt(const struct stage_task *task, size_t i, char *ret, size_t size)
{
    if (task->same)
        snprintf(ret, size, "%s", task->mark);
    else
        snprintf(ret, size, "%s %zu", task->mark, i);
}

void stage_submit(struct stage *stage, const struct stage_task *task, char id[TASK_ID_SIZE])
{
    struct queue_node *nodes = mem_must_zalloc(task->n * sizeof *nodes);
    char(*ids)[32] = mem_must_zalloc(task->n * sizeof *ids);
    bool done = false;
    for (size_t i = 0; i < task->n; i++) {
        char prompt[128];
        snprintf(ids[i], sizeof ids[i], "s%zu", i);
        write_prompt(task, i, prompt, sizeof prompt);
        nodes[i] = testbed_role_node(ids[i], role_of(task, i), prompt);
        nodes[i].max_attempts = MAX_ATTEMPTS;
    }
    task_id_make(id);
    struct queue_task stored = {.id = id,
                                .digest = "d",
                                .title = task->mark,
                                .info = {"{}", 2},
                                .budget = task->budget,
                                .nodes = nodes,
                                .n_nodes = task->n};
    queue_submit(stage->queue, &stored, submitted, &done);
    assert_int_equal(loop_run_until(&stage->loop, &done, STAGE_WAIT_MS), 0);
    free(ids);
    free(nodes);
}

void stage_submit_plan(struct stage *stage, const struct stage_task *task, const char *option,
                       const char *value, char id[TASK_ID_SIZE])
{
    struct buf plan = {0}, out = {0};
    char file[64], path[256];
    buf_printf(&plan, "title: %s\nsynthesize: false\nsubtasks:\n", task->mark);
    for (size_t i = 0; i < task->n; i++) {
        char prompt[128];
        write_prompt(task, i, prompt, sizeof prompt);
        buf_printf(&plan, "  - {id: s%zu, role: %s, prompt: \"%s\"}\n", i, role_of(task, i),
                   prompt);
    }
    snprintf(file, sizeof file, "plan-%d.yaml", ++stage->testbed.starts);
    snprintf(path, sizeof path, "%s", fixture_write(&stage->testbed.fixture, file, plan.data));
    const char *words[] = {"submit", "--plan", path, "--detach", option, value, NULL};
    assert_int_equal(stage_cli(stage, words, &out), 0);
    snprintf(id, TASK_ID_SIZE, "%.*s", (int)strcspn(out.data, "\n"), out.data);
    assert_true(task_id_valid(id));
    buf_release(&plan);
    buf_release(&out);
}

static void seen(void *ctx, enum queue_status status, const struct queue_task_view *view,
                 const char *err)
{
    struct stage_view *ret = ctx;
    if (status != QUEUE_OK)
        fail_msg("read: %s %s", queue_status_name(status), err);
    *ret = (struct stage_view){.done = true,
                               .state = view->state,
                               .budget = view->budget,
                               .spent = view->spent,
                               .held = view->held};
    for (size_t i = 0; i < view->n_subs; i++) {
        const struct queue_sub_view *sub = &view->subs[i];
        ret->n_done += sub->state == SUB_DONE;
        if (sub->state != SUB_DEAD || ret->n_dead++ > 0)
            continue;
        snprintf(ret->error_class, sizeof ret->error_class, "%s", sub->error_class);
        snprintf(ret->reason, sizeof ret->reason, "%s", sub->reason);
    }
}

struct stage_view stage_read(struct stage *stage, const char *id)
{
    struct stage_view view = {0};
    queue_read(stage->queue, id, false, seen, &view);
    assert_int_equal(loop_run_until(&stage->loop, &view.done, STAGE_WAIT_MS), 0);
    return view;
}

static bool is_over(const struct stage_view *view)
{
    return task_state_terminal(view->state) && view->held.nano_usd == 0 && view->held.tokens == 0;
}

struct stage_view stage_wait(struct stage *stage, const char *id)
{
    struct stage_view view = stage_read(stage, id);
    for (int64_t until = clock_ms() + STAGE_WAIT_MS; !is_over(&view);) {
        bool never = false;
        if (clock_ms() > until)
            fail_msg("%s is %s: %d subtasks are done, %lld nano USD and %lld tokens are held", id,
                     task_state_name(view.state), view.n_done, (long long)view.held.nano_usd,
                     (long long)view.held.tokens);
        loop_run_until(&stage->loop, &never, LOOK_MS);
        view = stage_read(stage, id);
    }
    return view;
}

struct lines {
    const char *what, *part;
    int count;
    bool ended;
};

static void count_line(void *ctx, const struct queue_log_entry *entry)
{
    struct lines *lines = ctx;
    lines->ended |= strcmp(entry->what, "note") == 0 && strcmp(entry->text, "counted") == 0;
    lines->count +=
        strcmp(entry->what, lines->what) == 0 && strstr(entry->text, lines->part) != NULL;
}

/* A note of our own is the last line. */
int stage_count_log(struct stage *stage, const char *id, const char *what, const char *part)
{
    struct queue_log_follow *follow;
    struct lines lines = {.what = what, .part = part};
    queue_log_note(stage->queue, id, "", "counted");
    assert_int_equal(queue_log_open(&follow, stage->queue, id, "0", count_line, &lines, NULL), 0);
    assert_int_equal(loop_run_until(&stage->loop, &lines.ended, STAGE_WAIT_MS), 0);
    queue_log_close(&follow);
    return lines.count;
}

/* --- the command line ------------------------------------------------------------------------- */

int stage_cli(struct stage *stage, const char *const *words, struct buf *out)
{
    const char *argv[16] = {"orchestrator"};
    struct buf errors = {0};
    for (size_t i = 0; words[i] != NULL && i + 2 < sizeof argv / sizeof *argv; i++)
        argv[i + 1] = words[i];
    int code = fixture_run(&stage->testbed.fixture, argv, out, &errors);
    if (code > 1)
        print_message("%s: %s\n", words[0], errors.data);
    buf_release(&errors);
    return code;
}

json_t *stage_show(struct stage *stage, const char *id)
{
    struct buf out = {0};
    assert_int_equal(stage_cli(stage, (const char *[]){"show", "--json", "--log", id, NULL}, &out),
                     0);
    json_t *shown = json_parse(out.data, out.len, NULL);
    assert_non_null(shown);
    buf_release(&out);
    return shown;
}

void stage_tap(struct stage *stage)
{
    fixture_spawn(&stage->testbed.fixture, "tap.log",
                  (const char *[]){"orchestrator", "tap", "--json", NULL});
    assert_true(fixture_wait_text(&stage->testbed.fixture, "tap.log", "beat", STAGE_WAIT_MS));
}

/* --- the simulator's record ------------------------------------------------------------------- */

json_t *stage_calls(struct stage *stage)
{
    json_t *calls = testbed_sim(&stage->testbed, "requests");
    assert_true(json_is_array(calls));
    size_t n = json_array_size(calls);
    if (n > 0) /* they are numbered from 1 */
        assert_int_equal(json_int(json_array_get(calls, n - 1), "seq", 0), n);
    return calls;
}

bool stage_is_of(const json_t *call, const char *mark)
{
    const char *prompt = json_str(call, "prompt", "");
    size_t len = mark != NULL ? strlen(mark) : 0;
    return mark == NULL ||
           (strncmp(prompt, mark, len) == 0 && (prompt[len] == ' ' || prompt[len] == '\0'));
}

static const struct config_model *model_named(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->n_models; i++)
        if (strcmp(config->models[i].name, name) == 0)
            return &config->models[i];
    fail_msg("no model has the name %s", name);
    return NULL;
}

/* Done on its own, without the code that is tested: USD per million tokens are 1,000 nano USD a
 * token. */
struct queue_spend stage_bill(const struct stage *stage, const json_t *calls, const char *mark)
{
    struct queue_spend bill = {0};
    size_t i;
    json_t *call;
    json_array_foreach (calls, i, call) {
        if (!stage_is_of(call, mark))
            continue;
        const struct config_model *model = model_named(stage->config, json_str(call, "model", ""));
        int64_t prompt = json_int(call, "billed_prompt_tokens", 0);
        int64_t output = json_int(call, "billed_output_tokens", 0);
        bill.tokens += prompt + output;
        if (model->n_prices > 0)
            bill.nano_usd += prompt * (int64_t)(model->prices[0].input * 1000) +
                             output * (int64_t)(model->prices[0].output * 1000);
    }
    return bill;
}

int stage_count(const json_t *calls, const char *model, int rule)
{
    int count = 0;
    size_t i;
    json_t *call;
    json_array_foreach (calls, i, call)
        count += (model == NULL || strcmp(json_str(call, "model", ""), model) == 0) &&
                 (rule == -2 || json_int(call, "rule", -1) == rule);
    return count;
}
