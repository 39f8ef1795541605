/* The wall clocks of broker, daemon and worker jump by an hour, to both sides, under load: leases,
 * heartbeats and timeouts don't follow them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/lib/stage.h"

#define SUBTASKS 48
#define HOUR_MS 3600000

static const char yaml[] =
    "providers:\n  sim: {api: openai, base_url: \"http://127.0.0.1:%d\", key: 'env:CLOCK_KEY'}\n"
    "models:\n  m: {provider: sim, name: sim}\n"
    "workers:\n  - {name: w1, provider: sim, concurrency: 8}\n"
    "roles:\n  general: {models: [m]}\n";
static const char scenario[] = "rules:\n  - {match: {}, tokens: 10, timing: {decode_tps: 20}}\n";

static struct stage stage;
static volatile int64_t *offset_ms; /* shared with the programs */

static void wait_for_done(const char *id, int n)
{
    bool never = false;
    for (int i = 0; i < STAGE_WAIT_MS / 20 && stage_read(&stage, id).n_done < n; i++)
        loop_run_until(&stage.loop, &never, 20);
    assert_true(stage_read(&stage, id).n_done >= n);
}

/* Whether a program has noted anything of what a jump could break. */
static void assert_quiet(const char *what)
{
    char command[256];
    snprintf(command, sizeof command, "grep -h '%s' %s/*.log", what, stage.testbed.fixture.dir);
    assert_int_equal(fixture_run(&stage.testbed.fixture,
                                 (const char *[]){"/bin/sh", "-c", command, NULL}, NULL, NULL),
                     1);
}

static void jumps_of_the_wall_clock_change_nothing(void **state)
{
    (void)state;
    static const int64_t jumps_ms[] = {HOUR_MS, -HOUR_MS, 0};
    char id[TASK_ID_SIZE];
    stage_submit(&stage, &(struct stage_task){.mark = "jump", .n = SUBTASKS}, id);
    for (int i = 0; i < 3; i++) {
        wait_for_done(id, (i + 1) * SUBTASKS / 5);
        *offset_ms = jumps_ms[i];
    }
    struct stage_view view = stage_wait(&stage, id);
    assert_int_equal(view.state, TASK_DONE);
    json_t *calls = stage_calls(&stage);
    assert_int_equal(json_array_size(calls), SUBTASKS);
    json_decref(calls);
    assert_quiet("silent");
    assert_quiet("abandoned");
    assert_quiet("given up");
}

/* The clock of the programs does jump: else the test above says nothing. */
static void the_clock_that_programs_see_is_the_moved_one(void **state)
{
    (void)state;
    struct buf out = {0};
    *offset_ms = -20LL * 365 * 24 * HOUR_MS; /* 20 years */
    assert_int_equal(stage_cli(&stage, (const char *[]){"list", "--nonsense", NULL}, &out), 2);
    fixture_spawn(&stage.testbed.fixture, "past.log",
                  (const char *[]){"orchestrator-broker", "--endpoint", "nonsense", NULL});
    assert_true(fixture_wait_text(&stage.testbed.fixture, "past.log", "200", STAGE_WAIT_MS));
    *offset_ms = 0;
    buf_release(&out);
}

static int setup(void **state)
{
    (void)state;
    static char path[64], preload[256];
    snprintf(path, sizeof path, "/tmp/orch-clock.XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, sizeof *offset_ms), 0);
    offset_ms = mmap(NULL, sizeof *offset_ms, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    const char *bin = getenv("ORCH_BIN");
    snprintf(preload, sizeof preload, "%s/clock-jump.so", bin != NULL ? bin : "build/bin");
    setenv("ORCH_CLOCK_FILE", path, 1);
    setenv("LD_PRELOAD", preload, 1);
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
    setenv("CLOCK_KEY", "none", 1);
    stage_open(&stage, yaml, scenario, (const char *[]){"w1", NULL});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stage_close(&stage);
    unsetenv("LD_PRELOAD");
    unlink(getenv("ORCH_CLOCK_FILE"));
    munmap((void *)(uintptr_t)offset_ms, sizeof *offset_ms);
    return 0;
}

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(jumps_of_the_wall_clock_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(the_clock_that_programs_see_is_the_moved_one, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
