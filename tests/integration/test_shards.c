/* Several daemons share the shards: real daemons with real Redis and broker, each with a profile
 * store of its own; the worker is a puppet. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/task_id.h"
#include "orchestrator/plan.h"
#include "orchestrator/store.h"
#include "tests/lib/puppet.h"
#include "tests/lib/testbed.h"

#define WAIT_MS 60000
#define DAEMONS 3
#define MAX_TASKS 200
#define PLANNED_SUBS 5 /* the plan, its three subtasks, the synthesis */

static const char yaml[] = "providers:\n"
                           "  p: {api: noop}\n"
                           "models:\n"
                           "  m: {provider: p, local: true}\n"
                           "workers:\n"
                           "  - {name: puppet, provider: p, models: [m]}\n"
                           "roles:\n"
                           "  general: {models: [m]}\n"
                           "  planner: {models: [m]}\n"
                           "  synthesizer: {models: [m]}\n";

struct stage {
    struct testbed testbed;
    uv_loop_t loop;
    struct config *config;
    struct queue *queue;
    struct puppet *puppet;
    pid_t daemons[DAEMONS]; /* 0: it does not run */
    int starts;
    char tasks[MAX_TASKS][TASK_ID_SIZE];
    size_t n_tasks;
    bool flag;
    int64_t held[DAEMONS]; /* as they told last; -1: nothing */
    char logs[DAEMONS][32];
};
static struct stage stage;

static void run_a_little(void)
{
    bool never = false;
    loop_run_until(&stage.loop, &never, 5);
}

/* --- the stage ------------------------------------------------------------------------------- */

static const char *config_of(int daemon, const char *more)
{
    struct buf text = {0};
    char name[32];
    assert_true(fixture_read(stage.testbed.config, &text));
    buf_printf(&text, "store: %s/store%d/profile.db\n%s", stage.testbed.fixture.dir, daemon, more);
    snprintf(name, sizeof name, "config%d.yaml", daemon);
    const char *path = fixture_write(&stage.testbed.fixture, name, text.data);
    buf_release(&text);
    return path;
}

static void start_with(int daemon, const char *more)
{
    char config[256], name[8];
    struct fixture *fixture = &stage.testbed.fixture;
    snprintf(config, sizeof config, "%s", config_of(daemon, more));
    snprintf(name, sizeof name, "d%d", daemon);
    snprintf(stage.logs[daemon], sizeof stage.logs[daemon], "%s.%d.log", name, ++stage.starts);
    stage.daemons[daemon] =
        fixture_spawn(fixture, stage.logs[daemon],
                      (const char *[]){"orchestrator", "serve", "--name", name, "--config", config,
                                       "--ready-fd", "1", NULL});
    assert_true(fixture_wait_text(fixture, stage.logs[daemon], "ready\n", WAIT_MS));
}

static void start(int daemon)
{
    start_with(daemon, "");
}

static void end_daemon(int daemon, int signal_number)
{
    if (signal_number == SIGTERM) {
        kill(stage.daemons[daemon], SIGTERM);
        assert_int_equal(fixture_wait_exit(&stage.testbed.fixture, stage.daemons[daemon], WAIT_MS),
                         0);
    } else {
        fixture_kill(&stage.testbed.fixture, stage.daemons[daemon], signal_number);
    }
    stage.daemons[daemon] = 0;
}

static void begin(void)
{
    struct err err;
    memset(&stage, 0, sizeof stage);
    testbed_init(&stage.testbed, yaml, NULL);
    testbed_start_broker(&stage.testbed);
    loop_init(&stage.loop);
    struct redis_options options = fixture_redis_options(&stage.testbed.fixture);
    if (config_load(&stage.config, stage.testbed.config, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(queue_open(&stage.queue, &stage.loop, &options, NULL, NULL, &err), 0);
    stage.puppet = puppet_new(&stage.loop, stage.config, stage.queue);
}

static void end(void)
{
    for (int i = 0; i < DAEMONS; i++)
        if (stage.daemons[i] != 0)
            end_daemon(i, SIGTERM);
    puppet_free(&stage.puppet);
    queue_close(&stage.queue);
    loop_finish(&stage.loop);
    config_free(&stage.config);
    testbed_release(&stage.testbed);
}

/* --- who has what ---------------------------------------------------------------------------- */

static void named(void *ctx, const char *const *jsons, size_t n, const char *err)
{
    (void)ctx, (void)err;
    for (int i = 0; i < DAEMONS; i++)
        stage.held[i] = -1;
    for (size_t i = 0; i < n; i++) {
        json_t *object = json_parse(jsons[i], strlen(jsons[i]), NULL);
        for (int daemon = 0; daemon < DAEMONS; daemon++)
            if (stage.daemons[daemon] != 0 && json_int(object, "pid", 0) == stage.daemons[daemon])
                stage.held[daemon] = json_int(object, "shards", -1);
        json_decref(object);
    }
    stage.flag = true;
}

/* Waits until the daemons say that they hold so many shards; -1: it does not run, or stands still.
 * Says how long that took. */
static void wait_shares(const char *what, int64_t first, int64_t second, int64_t third)
{
    const int64_t want[DAEMONS] = {first, second, third};
    int64_t start_ms = clock_ms();
    for (bool all = false; !all;) {
        if (clock_ms() - start_ms > WAIT_MS)
            fail_msg("%s: the shards are divided %lld %lld %lld", what, (long long)stage.held[0],
                     (long long)stage.held[1], (long long)stage.held[2]);
        run_a_little();
        stage.flag = false;
        queue_orchestrators(stage.queue, named, NULL);
        assert_int_equal(loop_run_until(&stage.loop, &stage.flag, WAIT_MS), 0);
        all = true;
        for (int i = 0; i < DAEMONS; i++)
            all = all && (want[i] < 0 || stage.held[i] == want[i]);
    }
    print_message("%s: %lld ms\n", what, (long long)(clock_ms() - start_ms));
}

/* --- tasks ----------------------------------------------------------------------------------- */

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx;
    if (status != QUEUE_OK)
        fail_msg("%s: %s", queue_status_name(status), err);
    stage.flag = true;
}

static void submit_planned(int count)
{
    static const char info[] = "{\"text\": \"build a boat\", \"planned\": true}";
    struct plan_nodes nodes = {0};
    struct err err;
    assert_int_equal(plan_to_planner_nodes(&nodes, stage.config, "build a boat", NULL, NULL, &err),
                     0);
    for (int i = 0; i < count; i++) {
        assert_true(stage.n_tasks < MAX_TASKS);
        char *id = stage.tasks[stage.n_tasks++];
        task_id_make(id);
        struct queue_task task = {.id = id,
                                  .digest = "d",
                                  .title = "boat",
                                  .info = {info, sizeof info - 1},
                                  .nodes = nodes.nodes,
                                  .n_nodes = nodes.n_nodes};
        stage.flag = false;
        queue_submit(stage.queue, &task, submitted, NULL);
        assert_int_equal(loop_run_until(&stage.loop, &stage.flag, WAIT_MS), 0);
    }
    plan_nodes_release(&nodes);
}

struct seen {
    bool done;
    enum task_state state;
    size_t n_subs;
};

static void task_seen(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    struct seen *seen = ctx;
    (void)status, (void)err;
    seen->done = true;
    if (view == NULL)
        return;
    seen->state = view->state;
    seen->n_subs = view->n_subs;
}

static struct seen look_at(const char *task)
{
    struct seen seen = {0};
    queue_read(stage.queue, task, false, task_seen, &seen);
    assert_int_equal(loop_run_until(&stage.loop, &seen.done, WAIT_MS), 0);
    return seen;
}

static void wait_until_all_are_done(void)
{
    int64_t start_ms = clock_ms();
    for (size_t i = 0; i < stage.n_tasks;) {
        struct seen seen = look_at(stage.tasks[i]);
        if (clock_ms() - start_ms > WAIT_MS)
            fail_msg("task %s is %s after %d ms", stage.tasks[i], task_state_name(seen.state),
                     WAIT_MS);
        if (seen.state == TASK_DONE)
            i++;
        else
            run_a_little();
    }
    print_message("%zu tasks were done: %lld ms\n", stage.n_tasks,
                  (long long)(clock_ms() - start_ms));
}

static int n_expanded, n_task_done;

static void on_log(void *ctx, const struct queue_log_entry *entry)
{
    (void)ctx;
    n_expanded += strcmp(entry->what, "expanded") == 0;
    n_task_done += strcmp(entry->what, "task-done") == 0;
    stage.flag = n_task_done > 0;
}

static void found(void *ctx, const char *task, const char *sub, const char *finding)
{
    (void)ctx;
    print_error("fsck: %s/%s: %s\n", task, sub, finding);
}

static void checked(void *ctx, int64_t tasks, int64_t findings, const char *err)
{
    (void)ctx, (void)tasks;
    assert_string_equal(err, "");
    assert_int_equal(findings, 0);
    stage.flag = true;
}

/* Each task was expanded once, and each of its subtasks committed once. */
static void check_tasks(void)
{
    struct puppet_counts counts = puppet_counts(stage.puppet);
    for (size_t i = 0; i < stage.n_tasks; i++) {
        struct queue_log_follow *follow;
        assert_int_equal(look_at(stage.tasks[i]).n_subs, PLANNED_SUBS);
        n_expanded = n_task_done = 0;
        stage.flag = false;
        assert_int_equal(
            queue_log_open(&follow, stage.queue, stage.tasks[i], "0", on_log, NULL, NULL), 0);
        assert_int_equal(loop_run_until(&stage.loop, &stage.flag, WAIT_MS), 0);
        queue_log_close(&follow);
        assert_int_equal(n_expanded, 1);
        assert_int_equal(n_task_done, 1);
    }
    assert_int_equal(counts.subtasks, stage.n_tasks * PLANNED_SUBS);
    assert_int_equal(counts.committed, counts.subtasks);
    assert_int_equal(counts.twice, 0);
    stage.flag = false;
    queue_fsck(stage.queue, found, checked, NULL);
    assert_int_equal(loop_run_until(&stage.loop, &stage.flag, WAIT_MS), 0);
}

/* --- what daemons keep ----------------------------------------------------------------------- */

static void count_row(void *ctx, const struct msg_timing *attempt)
{
    (void)attempt;
    ++*(size_t *)ctx;
}

static size_t rows_of(int daemon)
{
    char path[256];
    struct store *store = NULL;
    size_t rows = 0;
    snprintf(path, sizeof path, "%s/store%d/profile.db", stage.testbed.fixture.dir, daemon);
    if (store_open_read(&store, path, NULL) == 0)
        store_attempts(store, 0, NULL, count_row, &rows, NULL);
    store_close(&store);
    return rows;
}

static bool has_all_rows(void *ctx)
{
    return rows_of(*(int *)ctx) >= stage.n_tasks * PLANNED_SUBS;
}

/* Rows are unique by attempt, so as many as there are attempts are all of them, once. */
static void wait_rows(int daemon)
{
    assert_true(fixture_wait(has_all_rows, &daemon, WAIT_MS));
    assert_int_equal(rows_of(daemon), stage.n_tasks * PLANNED_SUBS);
}

static uint64_t checkpoints[SHARD_COUNT];
static int n_checkpoints;

static void checkpoint_read(void *ctx, const struct redis_value *value)
{
    uint64_t *checkpoint = ctx;
    const char *text = redis_str(value, NULL);
    char *end;
    uint64_t ms = strtoull(text, &end, 10);
    *checkpoint = ms * 1000 + (*end == '-' ? strtoull(end + 1, NULL, 10) : 0);
    stage.flag = ++n_checkpoints == SHARD_COUNT;
}

/* None has moved back since the last time. */
static void read_checkpoints(void)
{
    uint64_t now[SHARD_COUNT];
    stage.flag = false;
    n_checkpoints = 0;
    for (int shard = 0; shard < SHARD_COUNT; shard++) {
        char command[64];
        snprintf(command, sizeof command, "GET orch:{s%d}:ckpt", shard);
        redis_simple(queue_redis(stage.queue), checkpoint_read, &now[shard], command);
    }
    assert_int_equal(loop_run_until(&stage.loop, &stage.flag, WAIT_MS), 0);
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        assert_true(now[shard] >= checkpoints[shard]);
    memcpy(checkpoints, now, sizeof now);
}

static void command_answered(void *ctx, const struct redis_value *value)
{
    (void)ctx, (void)value;
    stage.flag = true;
}

static void command(const char *words)
{
    stage.flag = false;
    redis_simple(queue_redis(stage.queue), command_answered, NULL, words);
    assert_int_equal(loop_run_until(&stage.loop, &stage.flag, WAIT_MS), 0);
}

/* --- behaviours ------------------------------------------------------------------------------ */

static void shards_are_divided_anew_when_daemons_come_and_go(void **state)
{
    (void)state;
    begin();
    start(0);
    wait_shares("one starts", 64, -1, -1);
    start(1);
    wait_shares("a second one joins", 32, 32, -1);
    start(2);
    wait_shares("a third one joins", 22, 21, 21);
    end_daemon(1, SIGKILL);
    wait_shares("one is killed", 32, -1, 32);
    end_daemon(2, SIGTERM);
    wait_shares("one ends", 64, -1, -1);
    submit_planned(5);
    wait_until_all_are_done();
    check_tasks();
    end();
}

static void a_daemon_that_was_stopped_does_nothing_of_what_another_one_has_now(void **state)
{
    (void)state;
    begin();
    memset(checkpoints, 0, sizeof checkpoints);
    start(0);
    start(1);
    wait_shares("two start", 32, 32, -1);
    submit_planned(10);
    wait_until_all_are_done();
    wait_rows(0);
    kill(stage.daemons[0], SIGSTOP);
    submit_planned(30); /* of which it hears at once when it wakes up */
    wait_shares("one is stopped", -1, 64, -1);
    wait_until_all_are_done();
    wait_rows(1);
    read_checkpoints();
    struct puppet_counts before = puppet_counts(stage.puppet);
    kill(stage.daemons[0], SIGCONT);
    wait_shares("it goes on", 32, 32, -1);
    submit_planned(10);
    wait_until_all_are_done();
    wait_rows(0);
    wait_rows(1);
    read_checkpoints();
    check_tasks();
    struct puppet_counts after = puppet_counts(stage.puppet);
    assert_int_equal(after.dispatches - before.dispatches, 10 * PLANNED_SUBS);
    end();
}

static void tasks_are_done_while_daemons_come_and_go(void **state)
{
    (void)state;
    begin();
    memset(checkpoints, 0, sizeof checkpoints);
    start(0);
    start(1);
    submit_planned(15);
    end_daemon(0, SIGKILL);
    submit_planned(15);
    start(2);
    read_checkpoints();
    kill(stage.daemons[1], SIGSTOP);
    submit_planned(15);
    start(0);
    wait_shares("one is stopped, another one comes", 32, -1, 32);
    kill(stage.daemons[1], SIGCONT);
    submit_planned(15);
    end_daemon(2, SIGTERM);
    submit_planned(15);
    wait_shares("it goes on, another one ends", 32, 32, -1);
    read_checkpoints();
    wait_until_all_are_done();
    check_tasks();
    read_checkpoints();
    end();
}

static size_t times(const char *log, const char *what)
{
    struct buf text = {0};
    char path[256];
    size_t count = 0;
    snprintf(path, sizeof path, "%s/%s", stage.testbed.fixture.dir, log);
    assert_true(fixture_read(path, &text));
    for (const char *at = text.data; at != NULL && (at = strstr(at, what)) != NULL; at++)
        count++;
    buf_release(&text);
    return count;
}

static void a_redis_that_refuses_writes_is_complained_of_once(void **state)
{
    (void)state;
    begin();
    start(0);
    wait_shares("one starts", 64, -1, -1);
    command("CONFIG SET min-replicas-to-write 1");
    assert_true(fixture_wait_text(&stage.testbed.fixture, stage.logs[0],
                                  "stops until it is; another orchestrator", WAIT_MS));
    assert_int_equal(times(stage.logs[0], "Redis refuses the lease"), 1);
    command("CONFIG SET min-replicas-to-write 0");
    assert_true(fixture_wait_text(&stage.testbed.fixture, stage.logs[0],
                                  "the lease is renewed again", WAIT_MS));
    submit_planned(2);
    wait_until_all_are_done();
    check_tasks();
    assert_int_equal(times(stage.logs[0], "could not be renewed"), 1);
    end();
}

static bool is_gone(void *ctx)
{
    (void)ctx;
    run_a_little();
    return look_at(stage.tasks[0]).n_subs == 0;
}

static void a_task_that_another_hosts_daemon_archived_is_known_everywhere(void **state)
{
    (void)state;
    begin();
    start_with(0, "queue: {retain_s: 0}\n");
    submit_planned(1);
    assert_true(fixture_wait(is_gone, NULL, WAIT_MS));
    char config[256];
    struct buf out = {0}, errors = {0};
    snprintf(config, sizeof config, "%s", config_of(1, ""));
    int code = fixture_run(
        &stage.testbed.fixture,
        (const char *[]){"orchestrator", "show", stage.tasks[0], "--config", config, NULL}, &out,
        &errors);
    assert_int_equal(code, 3);
    assert_non_null(strstr(errors.data, "was archived by orchestrator d0 on "));
    assert_non_null(strstr(errors.data, "store0/profile.db"));
    buf_clear(&errors);
    snprintf(config, sizeof config, "%s", config_of(0, ""));
    code = fixture_run(
        &stage.testbed.fixture,
        (const char *[]){"orchestrator", "show", stage.tasks[0], "--config", config, NULL}, &out,
        &errors);
    assert_int_equal(code, 0);
    assert_non_null(strstr(out.data, "boat"));
    buf_release(&out);
    buf_release(&errors);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_are_divided_anew_when_daemons_come_and_go),
        cmocka_unit_test(a_daemon_that_was_stopped_does_nothing_of_what_another_one_has_now),
        cmocka_unit_test(tasks_are_done_while_daemons_come_and_go),
        cmocka_unit_test(a_redis_that_refuses_writes_is_complained_of_once),
        cmocka_unit_test(a_task_that_another_hosts_daemon_archived_is_known_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
