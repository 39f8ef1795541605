/* Tasks that are too large, too wide or too heavy: each is refused with a sentence, and nothing of
 * it is stored. (Answers that are too large: test_exchange.c.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants the three above first. */
#include <cmocka.h>

#include "schemas/mem.h"
#include "tests/lib/probe.h"

#define T "t0000000000000001"

static struct probe probe;

static int setup(void **state)
{
    (void)state;
    probe_open(&probe);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    probe_close(&probe);
    return 0;
}

/* A task of n subtasks, each with the dependencies and a record of so many bytes. */
struct shape {
    size_t n, n_deps, bytes;
    const char *sentence;
};

static void answered(void *ctx, enum queue_status status, const char *err)
{
    probe.status = status;
    snprintf(probe.err, sizeof probe.err, "%s", err);
    *(bool *)ctx = true;
}

static void check_shape(const struct shape *shape)
{
    struct queue_node *nodes = mem_must_zalloc(shape->n * sizeof *nodes);
    const char **deps = mem_must_zalloc((shape->n_deps + 1) * sizeof *deps);
    char(*ids)[24] = mem_must_zalloc(shape->n * sizeof *ids);
    char *record = mem_must_zalloc(shape->bytes + 1);
    bool done = false;
    for (size_t i = 0; i < shape->n_deps; i++)
        deps[i] = "n0";
    for (size_t i = 0; i < shape->n; i++) {
        snprintf(ids[i], sizeof ids[i], "n%zu", i);
        nodes[i] = (struct queue_node){.id = ids[i],
                                       .deps = deps,
                                       .n_deps = shape->n_deps,
                                       .work = {record, shape->bytes},
                                       .meta = {"", 0},
                                       .max_attempts = 1};
    }
    struct queue_task task = {
        .id = T, .digest = "d", .title = "", .nodes = nodes, .n_nodes = shape->n};
    queue_submit(probe.queue, &task, answered, &done);
    probe_wait_for(&probe, &done);
    assert_int_equal(probe.status, QUEUE_ERROR);
    if (strstr(probe.err, shape->sentence) == NULL)
        fail_msg("\"%s\" instead of \"%s\"", probe.err, shape->sentence);
    assert_string_equal(probe_redis(&probe, "DBSIZE"), "0");
    free(record);
    free(ids);
    free((void *)(uintptr_t)deps);
    free(nodes);
}

static void a_task_beyond_a_limit_is_refused_and_not_stored(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {100001, 0, 10, "100001 subtasks are more than the 100000 that a task may have"},
        {2, 10001, 10, "subtask n0 has 10001 dependencies, of 10000 that it may have"},
        {2000, 501, 10, "1002000 dependencies are more than the 1000000 that a task may have"},
        {1, 0, (size_t)65 << 20, "subtask n0 has 65 MiB, of 64 that it may have"},
        {9, 0, (size_t)60 << 20, "540 MiB are more than the 512 that a task may have"},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_shape(&shapes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_task_beyond_a_limit_is_refused_and_not_stored, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
