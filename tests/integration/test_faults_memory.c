/* Redis reaches maxmemory while subtasks run: what comes in is refused with a cure, what was
 * received stays in the spool, and all is finished when there is memory again. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants the three above first. */
#include <cmocka.h>

#include "tests/lib/stage.h"

#define N 4

static const char yaml[] = "providers:\n"
                           "  sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
                           "models:\n"
                           "  m: {provider: sim, name: m, local: true}\n"
                           "workers:\n"
                           "  - {name: w0, provider: sim, concurrency: 4}\n"
                           "roles:\n"
                           "  general: {models: [m]}\n";
static const char scenario[] = "rules:\n"
                               "  - tokens: 60\n"
                               "    timing: {decode_tps: 20, prefill_tps: 0}\n";

static int n_calls(struct stage *stage)
{
    json_t *calls = stage_calls(stage);
    int n = (int)json_array_size(calls);
    json_decref(calls);
    return n;
}

static bool all_called(void *ctx)
{
    return n_calls(ctx) >= N;
}

static void configured(void *ctx, const struct redis_value *value)
{
    assert_string_equal(redis_str(value, NULL), "OK");
    *(bool *)ctx = true;
}

static void set_memory(struct stage *stage, const char *command)
{
    bool done = false;
    redis_simple(queue_redis(stage->queue), configured, &done, command);
    assert_int_equal(loop_run_until(&stage->loop, &done, STAGE_WAIT_MS), 0);
}

static void answers_wait_in_the_spool_until_there_is_memory_again(void **state)
{
    (void)state;
    struct stage stage;
    struct buf errors = {0};
    stage_open(&stage, yaml, scenario, (const char *[]){"w0", NULL});
    struct fixture *fixture = &stage.testbed.fixture;
    char id[TASK_ID_SIZE];
    stage_submit(&stage, &(struct stage_task){.mark = "work", .n = N}, id);
    assert_true(fixture_wait(all_called, &stage, STAGE_WAIT_MS));
    set_memory(&stage, "CONFIG SET maxmemory 1");
    const char *submit[] = {"orchestrator", "submit", "--no-plan", "--detach", "hello", NULL};
    assert_int_not_equal(fixture_run(fixture, submit, NULL, &errors), 0);
    assert_non_null(strstr(errors.data, "raise maxmemory"));
    for (int i = 0; i < N; i++) {
        char refused[64];
        snprintf(refused, sizeof refused, "%s/s%d: Redis: Redis has reached", id, i);
        assert_true(fixture_wait_text(fixture, "w0.4.log", refused, STAGE_WAIT_MS));
    }
    /* A kill does not lose what waits for the commit, and nobody pays for it again. */
    fixture_kill(fixture, stage.testbed.workers[0], SIGKILL);
    set_memory(&stage, "CONFIG SET maxmemory 0");
    testbed_start_worker(&stage.testbed, 0, "w0");
    struct stage_view view = stage_wait(&stage, id);
    assert_int_equal(view.state, TASK_DONE);
    assert_int_equal(view.n_done, N);
    assert_int_equal(n_calls(&stage), N);
    assert_int_equal(fixture_run(fixture, submit, NULL, NULL), 0);
    buf_release(&errors);
    stage_close(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_wait_in_the_spool_until_there_is_memory_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
