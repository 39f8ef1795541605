/* A subtask that kills its worker each time it runs ends, and takes no other with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/lib/stage.h"

#define WORKERS 2
#define HEALTHY 300
#define MAX_ATTEMPTS 3
#define WAIT_MS 90000

static const char yaml_of[] = "providers:\n"
                              "  p: {api: plugin, plugin: \"%s/poison_provider.so\",\n"
                              "      base_url: \"http://127.0.0.1:%%d\"}\n"
                              "models:\n"
                              "  m: {provider: p, name: m, local: true}\n"
                              "workers:\n"
                              "  - {name: w0, provider: p, concurrency: 16}\n"
                              "  - {name: w1, provider: p, concurrency: 16}\n"
                              "roles:\n"
                              "  general: {models: [m]}\n"
                              "queue: {lease_ms: 3000, renew_ms: 500, abandon_ms: 2000}\n";
/* 40 ms: when a worker dies there are always healthy calls under way. */
static const char scenario[] = "rules:\n"
                               "  - reply: {echo: true}\n"
                               "    timing: {load_ms: 40, prefill_tps: 0, decode_tps: 0}\n";

static const char *const poisons[] = {"#kill-in-request", "#kill-in-answer"};
#define POISONS (sizeof poisons / sizeof *poisons)

struct poisoned {
    struct stage stage;
    char healthy[TASK_ID_SIZE], poison[POISONS][TASK_ID_SIZE];
    int deaths;
};

static void answered(void *ctx, enum queue_status status, const char *err)
{
    if (status != QUEUE_OK)
        fail_msg("submit: %s %s", queue_status_name(status), err);
    *(bool *)ctx = true;
}

static void submit(struct poisoned *test, const struct queue_node *nodes, size_t n, char *id)
{
    bool done = false;
    task_id_make(id);
    struct queue_task task = {
        .id = id, .digest = "d", .title = "t", .info = {"{}", 2}, .nodes = nodes, .n_nodes = n};
    queue_submit(test->stage.queue, &task, answered, &done);
    assert_int_equal(loop_run_until(&test->stage.loop, &done, WAIT_MS), 0);
}

static void submit_healthy(struct poisoned *test)
{
    static struct queue_node nodes[HEALTHY];
    static char ids[HEALTHY][16];
    for (int i = 0; i < HEALTHY; i++) {
        snprintf(ids[i], sizeof ids[i], "h%d", i);
        nodes[i] = testbed_node(ids[i], ids[i]);
        nodes[i].max_attempts = MAX_ATTEMPTS;
    }
    submit(test, nodes, HEALTHY, test->healthy);
}

static void submit_poison(struct poisoned *test, size_t at)
{
    struct queue_node node = testbed_node("p", poisons[at]);
    node.max_attempts = MAX_ATTEMPTS;
    submit(test, &node, 1, test->poison[at]);
}

/* As a supervisor would. */
static void restart_the_dead(struct poisoned *test)
{
    static const char *const names[WORKERS] = {"w0", "w1"};
    struct testbed *testbed = &test->stage.testbed;
    for (int i = 0; i < WORKERS; i++)
        if (fixture_wait_exit(&testbed->fixture, testbed->workers[i], 0) >= 0) {
            test->deaths++;
            testbed_start_worker(testbed, i, names[i]);
        }
}

static struct stage_view end_of(struct poisoned *test, const char *id)
{
    struct stage_view view = stage_read(&test->stage, id);
    for (int64_t until = clock_ms() + WAIT_MS; !task_state_terminal(view.state);) {
        bool never = false;
        if (clock_ms() > until)
            fail_msg("%s is %s: %d subtasks are done", id, task_state_name(view.state),
                     view.n_done);
        restart_the_dead(test);
        loop_run_until(&test->stage.loop, &never, 20);
        view = stage_read(&test->stage, id);
    }
    return view;
}

/* What `show` tells of the poison: each attempt that it ended, and perhaps some that the other
 * poison ended, which do not count. */
static void assert_history(struct poisoned *test, const char *id)
{
    json_t *shown = stage_show(&test->stage, id);
    char *text = json_dumps(shown, 0);
    json_t *sub = json_array_get(json_get(shown, "subtasks"), 0);
    assert_true(json_int(sub, "attempts", 0) >= MAX_ATTEMPTS);
    assert_non_null(strstr(text, "the worker died while it worked on this"));
    free(text);
    json_decref(shown);
    assert_int_equal(stage_count_log(&test->stage, id, "retry", "died while it worked on this"),
                     MAX_ATTEMPTS - 1);
    assert_int_equal(stage_count_log(&test->stage, id, "dead", "died while it worked on this"), 1);
}

static void a_subtask_that_kills_its_workers_is_dead_and_takes_none_with_it(void **state)
{
    (void)state;
    static struct poisoned test;
    char yaml[1024];
    snprintf(yaml, sizeof yaml, yaml_of, getenv("ORCH_BIN"));
    stage_open(&test.stage, yaml, scenario, (const char *[]){"w0", "w1", NULL});
    submit_healthy(&test);
    for (size_t i = 0; i < POISONS; i++)
        submit_poison(&test, i);
    for (size_t i = 0; i < POISONS; i++) {
        struct stage_view view = end_of(&test, test.poison[i]);
        assert_int_equal(view.state, TASK_FAILED);
        assert_int_equal(view.n_dead, 1);
        assert_string_equal(view.error_class, "worker_lost");
        assert_history(&test, test.poison[i]);
    }
    struct stage_view view = end_of(&test, test.healthy);
    assert_int_equal(view.state, TASK_DONE);
    assert_int_equal(view.n_done, HEALTHY);
    assert_int_equal(view.n_dead, 0);
    assert_int_equal(test.deaths, POISONS * MAX_ATTEMPTS);
    stage_close(&test.stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_subtask_that_kills_its_workers_is_dead_and_takes_none_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
