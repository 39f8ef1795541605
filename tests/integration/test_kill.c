/* SIGKILL of each process while 200 tasks run: every task ends done, every subtask is committed
 * once, and no call whose result was committed is made again. The task logs and the simulator's own
 * count are the witnesses. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "tests/lib/testbed.h"

#define TASKS 200
#define WIDE_EVERY 4 /* each fourth task is a graph of four */
#define SUBTASKS (TASKS + TASKS / WIDE_EVERY * 3)
#define KILL_AFTER 60 /* requests that the simulator has seen */
#define PATIENCE_MS 90000

static const char yaml[] = "providers:\n"
                           "  sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
                           "models:\n"
                           "  m: {provider: sim, name: m, local: true}\n"
                           "workers:\n"
                           "  - {name: w0, provider: sim, concurrency: 16}\n"
                           "  - {name: w1, provider: sim, concurrency: 16}\n"
                           "roles:\n"
                           "  general: {models: [m]}\n"
                           "queue: {lease_ms: 3000, renew_ms: 500, abandon_ms: 2000}\n";
/* 30 tokens at 100 a second: each call takes about 300 ms. */
static const char scenario[] = "rules:\n"
                               "  - tokens: 30\n"
                               "    timing: {decode_tps: 100, prefill_tps: 0}\n";

struct load {
    struct testbed testbed;
    uv_loop_t loop;
    struct queue *queue;
    char tasks[TASKS][TASK_ID_SIZE];
    int unanswered, refused;
};

struct audit {
    int running, done, running_after_done; /* of one subtask */
};

/* What the log of one task tells: subtasks a, b, c, d are 0..3. */
struct task_audit {
    struct audit subs[4];
    bool ended;
    char end[32];
};

static void answered(void *ctx, enum queue_status status, const char *err)
{
    (void)err;
    struct load *load = ctx;
    load->unanswered--;
    load->refused += status != QUEUE_OK && status != QUEUE_DUP;
}

static void submit_one(struct load *load, int index)
{
    char *id = load->tasks[index];
    task_id_make(id);
    static const char *const names[] = {"a", "b", "c", "d"};
    static const char *const after_a[] = {"a"}, *const after_bc[] = {"b", "c"};
    struct queue_node nodes[4];
    size_t n = index % WIDE_EVERY == 0 ? 4 : 1;
    for (size_t i = 0; i < n; i++) {
        char prompt[80];
        snprintf(prompt, sizeof prompt, "Do part %s of job %s.", names[i], id);
        nodes[i] = testbed_node(names[i], prompt);
    }
    if (n == 4) {
        nodes[1].deps = nodes[2].deps = after_a;
        nodes[1].n_deps = nodes[2].n_deps = 1;
        nodes[3].deps = after_bc;
        nodes[3].n_deps = 2;
    }
    struct queue_task task = {
        .id = id, .digest = "d", .title = "kill", .info = {"{}", 2}, .nodes = nodes, .n_nodes = n};
    load->unanswered++;
    queue_submit(load->queue, &task, answered, load);
}

static void load_begin(struct load *load)
{
    *load = (struct load){0};
    testbed_init(&load->testbed, yaml, scenario);
    testbed_start(&load->testbed, (const char *[]){"w0", "w1", NULL});
    loop_init(&load->loop);
    struct redis_options options = fixture_redis_options(&load->testbed.fixture);
    assert_int_equal(queue_open(&load->queue, &load->loop, &options, NULL, NULL, NULL), 0);
    for (int i = 0; i < TASKS; i++)
        submit_one(load, i);
    while (load->unanswered > 0)
        uv_run(&load->loop, UV_RUN_ONCE);
    assert_int_equal(load->refused, 0);
}

static void load_end(struct load *load)
{
    queue_close(&load->queue);
    loop_finish(&load->loop);
    testbed_release(&load->testbed);
}

static int64_t requests_seen(const struct load *load)
{
    json_t *stats = testbed_sim(&load->testbed, "stats");
    int64_t requests = json_int(stats, "requests", -1);
    json_decref(stats);
    return requests;
}

static bool in_the_middle(void *ctx)
{
    return requests_seen(ctx) >= KILL_AFTER;
}

static void logged(void *ctx, const struct queue_log_entry *entry)
{
    struct task_audit *audit = ctx;
    if (strncmp(entry->what, "task-", 5) == 0) {
        audit->ended = true;
        snprintf(audit->end, sizeof audit->end, "%s", entry->what);
        return;
    }
    if (entry->sub[0] < 'a' || entry->sub[0] > 'd')
        return;
    struct audit *sub = &audit->subs[entry->sub[0] - 'a'];
    bool running = strcmp(entry->what, "running") == 0;
    sub->running += running;
    sub->running_after_done += running && sub->done > 0;
    sub->done += strcmp(entry->what, "done") == 0;
}

/* Reads every task's log to its end and judges it; returns how many attempts there were beyond the
 * first of each subtask. */
static int audit(struct load *load)
{
    int again = 0;
    for (int i = 0; i < TASKS; i++) {
        struct task_audit task = {0};
        struct queue_log_follow *follow;
        assert_int_equal(
            queue_log_open(&follow, load->queue, load->tasks[i], "0", logged, &task, NULL), 0);
        if (loop_run_until(&load->loop, &task.ended, PATIENCE_MS) != 0)
            fail_msg("task %s has not ended", load->tasks[i]);
        queue_log_close(&follow);
        assert_string_equal(task.end, "task-done");
        for (int sub = 0; sub < (i % WIDE_EVERY == 0 ? 4 : 1); sub++) {
            assert_int_equal(task.subs[sub].done, 1);
            assert_int_equal(task.subs[sub].running_after_done, 0);
            assert_true(task.subs[sub].running >= 1);
            again += task.subs[sub].running - 1;
        }
    }
    return again;
}

static void fsck_done(void *ctx, int64_t tasks, int64_t findings, const char *err)
{
    assert_string_equal(err, "");
    assert_int_equal(tasks, TASKS);
    assert_int_equal(findings, 0);
    *(bool *)ctx = true;
}

static void print_finding(void *ctx, const char *task, const char *sub, const char *finding)
{
    (void)ctx;
    print_error("fsck: %s/%s: %s\n", task, sub, finding);
}

/* The calls made beyond one for each subtask; fails when a claim made more than one call. */
static int64_t judge(struct load *load)
{
    int again = audit(load);
    bool checked = false;
    queue_fsck(load->queue, print_finding, fsck_done, &checked);
    assert_int_equal(loop_run_until(&load->loop, &checked, PATIENCE_MS), 0);
    int64_t extra = requests_seen(load) - SUBTASKS;
    assert_true(extra >= 0);
    assert_true(extra <= again);
    print_message("%d attempts and %lld calls beyond the first\n", again, (long long)extra);
    return extra;
}

static void a_worker_killed_in_mid_attempt_loses_and_doubles_nothing(void **state)
{
    (void)state;
    struct load load;
    load_begin(&load);
    assert_true(fixture_wait(in_the_middle, &load, PATIENCE_MS));
    fixture_kill(&load.testbed.fixture, load.testbed.workers[0], SIGKILL);
    testbed_start_worker(&load.testbed, 0, "w0");
    int64_t extra = judge(&load);
    assert_true(extra <= 16); /* what it had in flight */
    load_end(&load);
}

static void a_worker_killed_for_good_is_replaced_by_the_others(void **state)
{
    (void)state;
    struct load load;
    load_begin(&load);
    assert_true(fixture_wait(in_the_middle, &load, PATIENCE_MS));
    fixture_kill(&load.testbed.fixture, load.testbed.workers[0], SIGKILL);
    int64_t extra = judge(&load);
    assert_true(extra <= 16);
    load_end(&load);
}

static void a_killed_broker_costs_no_call(void **state)
{
    (void)state;
    struct load load;
    load_begin(&load);
    assert_true(fixture_wait(in_the_middle, &load, PATIENCE_MS));
    fixture_kill(&load.testbed.fixture, load.testbed.broker, SIGKILL);
    testbed_start_broker(&load.testbed);
    assert_int_equal(judge(&load), 0);
    load_end(&load);
}

static void a_killed_daemon_costs_no_call(void **state)
{
    (void)state;
    struct load load;
    load_begin(&load);
    assert_true(fixture_wait(in_the_middle, &load, PATIENCE_MS));
    fixture_kill(&load.testbed.fixture, load.testbed.daemon, SIGKILL);
    testbed_start_daemon(&load.testbed);
    assert_int_equal(judge(&load), 0);
    load_end(&load);
}

static void a_killed_redis_costs_no_call(void **state)
{
    (void)state;
    struct load load;
    load_begin(&load);
    assert_true(fixture_wait(in_the_middle, &load, PATIENCE_MS));
    fixture_redis_kill(&load.testbed.fixture, SIGKILL);
    fixture_redis_start(&load.testbed.fixture);
    assert_int_equal(judge(&load), 0);
    load_end(&load);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_killed_in_mid_attempt_loses_and_doubles_nothing),
        cmocka_unit_test(a_worker_killed_for_good_is_replaced_by_the_others),
        cmocka_unit_test(a_killed_broker_costs_no_call),
        cmocka_unit_test(a_killed_daemon_costs_no_call),
        cmocka_unit_test(a_killed_redis_costs_no_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
