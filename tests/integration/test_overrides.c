/* What a submitter asks of a task reaches the subtasks that a planner makes of it, too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "orchestrator/plan.h"
#include "tests/lib/testbed.h"

#define WAIT_MS 60000

static const char config_yaml[] =
    "providers: {sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}}\n"
    "models: {m: {provider: sim, local: true}}\n"
    "workers: [{name: w0, provider: sim, concurrency: 8}]\n"
    "roles: {coder: {cache: on, effort: high, seed: 1}}\n";
static const char scenario[] = "rules: [{timing: {decode_tps: 5000, prefill_tps: 0}}]\n";

struct look {
    bool answered, over;
    size_t n_subs, n_planned;
};

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    assert_string_equal(err, "");
    assert_int_equal(status, QUEUE_OK);
    *(bool *)ctx = true;
}

static void check_sub(const struct queue_sub_view *sub, struct look *look)
{
    struct message work, meta;
    assert_int_equal(message_decode_as(&work, MESSAGE_work, sub->work.data, sub->work.len), 0);
    assert_int_equal(message_decode_as(&meta, MESSAGE_meta, sub->meta.data, sub->meta.len), 0);
    assert_string_equal(work.work.cache, "off");
    assert_string_equal(work.work.effort, "low");
    assert_true(work.work.has_seed);
    assert_int_equal(work.work.seed, 42);
    assert_true(meta.meta.offline);
    look->n_planned += strcmp(work.work.kind, "run") == 0;
    message_release(&work);
    message_release(&meta);
}

static void looked(void *ctx, enum queue_status status, const struct queue_task_view *view,
                   const char *err)
{
    struct look *look = ctx;
    (void)err;
    assert_int_equal(status, QUEUE_OK);
    look->over = task_state_terminal(view->state);
    look->n_subs = view->n_subs;
    look->n_planned = 0;
    for (size_t i = 0; look->over && i < view->n_subs; i++)
        check_sub(&view->subs[i], look);
    look->answered = true;
}

static void planned_subtasks_inherit_what_the_submitter_asked_for(void **state)
{
    static const char *const workers[] = {"w0", NULL};
    const struct plan_overrides overrides = {
        .no_cache = true, .offline = true, .has_seed = true, .seed = 42, .effort = "low"};
    struct testbed testbed;
    struct config *config = NULL;
    struct queue *queue = NULL;
    struct plan_nodes nodes = {0};
    struct err err = {""};
    uv_loop_t loop;
    (void)state;
    testbed_init(&testbed, config_yaml, scenario);
    testbed_start(&testbed, workers);
    loop_init(&loop);
    struct redis_options options = fixture_redis_options(&testbed.fixture);
    assert_int_equal(config_load(&config, testbed.config, &err), 0);
    assert_int_equal(queue_open(&queue, &loop, &options, NULL, NULL, &err), 0);
    assert_int_equal(plan_to_planner_nodes(&nodes, config, "build a boat", NULL, NULL, &err), 0);
    assert_int_equal(plan_overrides_apply(&nodes, &overrides, &err), 0);
    json_t *info = json_pack("{s:s, s:b, s:o}", PLAN_INFO_TEXT, "build a boat", PLAN_INFO_PLANNED,
                             1, PLAN_INFO_OVERRIDES, plan_overrides_json(&overrides));
    char *text = json_dumps(info, JSON_COMPACT);
    char id[TASK_ID_SIZE];
    task_id_make(id);
    const struct queue_task task = {.id = id,
                                    .digest = "d",
                                    .title = "boat",
                                    .info = {text, strlen(text)},
                                    .nodes = nodes.nodes,
                                    .n_nodes = nodes.n_nodes};
    bool stored = false;
    queue_submit(queue, &task, submitted, &stored);
    assert_int_equal(loop_run_until(&loop, &stored, WAIT_MS), 0);
    struct look look = {0};
    bool never = false;
    for (int tries = 0; !look.over && tries < WAIT_MS / 20; tries++) {
        look.answered = false;
        queue_read(queue, id, true, looked, &look);
        assert_int_equal(loop_run_until(&loop, &look.answered, WAIT_MS), 0);
        loop_run_until(&loop, &never, look.over ? 0 : 20);
    }
    assert_true(look.over);
    assert_true(look.n_planned >= 2); /* the planner's own children, besides plan and synthesis */
    assert_true(look.n_subs > look.n_planned);
    plan_nodes_release(&nodes);
    free(text);
    json_decref(info);
    queue_close(&queue);
    loop_finish(&loop);
    config_free(&config);
    testbed_release(&testbed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planned_subtasks_inherit_what_the_submitter_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
