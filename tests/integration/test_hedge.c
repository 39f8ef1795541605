/* Second attempts and declined dispatches through the real programs: what the slow arm is given is
 * hedged where its role wants it, the first answer counts, the other attempt is stopped at once and
 * what it has cost is kept. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/task_id.h"
#include "orchestrator/store.h"
#include "schemas/mem.h"
#include "tests/lib/testbed.h"

#define WAIT_MS 30000
#define BUDGET_NANO_USD (1000 * INT64_C(1000000000)) /* enough: what counts is that it is kept */

#define YAML(limits, role)                                                                         \
    "providers:\n"                                                                                 \
    "  a: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"" limits "}\n"                 \
    "  b: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"                           \
    "models:\n"                                                                                    \
    "  slow: {provider: a, name: slow, max_output: 100, price: {input: 1000, output: 1000}}\n"     \
    "  fast: {provider: b, name: fast, max_output: 100, price: {input: 1000, output: 1000}}\n"     \
    "workers:\n"                                                                                   \
    "  - {name: wa, provider: a, concurrency: 4}\n"                                                \
    "  - {name: wb, provider: b, concurrency: 4}\n"                                                \
    "  - {name: wa2, provider: a, concurrency: 4}\n"                                               \
    "roles:\n"                                                                                     \
    "  general: {" role "}\n"

struct stage {
    struct testbed testbed;
    uv_loop_t loop;
    struct config *config;
    struct queue *queue;
    char task[TASK_ID_SIZE];
};
static struct stage stage;

/* --- what arms have shown so far -------------------------------------------------------------- */

/* 25 answers of 100 ms each on the slow arm: its p95 is 100 ms. */
static void write_history(void)
{
    struct store *store = NULL;
    struct err err = {""};
    int64_t bad;
    if (store_open(&store, stage.config->store, &err) != 0)
        fail_msg("%s", err.text);
    for (int i = 0; i < 25; i++) {
        struct buf record = {0};
        struct message timing = {.type = MESSAGE_timing,
                                 .timing = {.task = "earlier",
                                            .sub = "a",
                                            .attempt = i + 1,
                                            .role = "general",
                                            .arm = "slow@a",
                                            .result = "done",
                                            .started_ms = clock_wall_ms() - 60000,
                                            .total_ms = 100}};
        assert_int_equal(message_encode(&timing, &record), 0);
        struct store_row *row = mem_must_zalloc(sizeof *row);
        row->kind = STORE_TIMING;
        row->data = (struct bytes){record.data, record.len};
        struct store_rows rows = STAILQ_HEAD_INITIALIZER(rows);
        STAILQ_INSERT_TAIL(&rows, row, link);
        assert_int_equal(store_write(store, &rows, &bad, &err), 0);
        free(row);
        buf_release(&record);
    }
    store_close(&store);
}

/* --- the stage -------------------------------------------------------------------------------- */

static void begin_with(const char *yaml, const char *scenario, bool history,
                       const char *const *workers)
{
    struct err err;
    memset(&stage, 0, sizeof stage);
    testbed_init(&stage.testbed, yaml, scenario);
    loop_init(&stage.loop);
    struct redis_options options = fixture_redis_options(&stage.testbed.fixture);
    if (config_load(&stage.config, stage.testbed.config, &err) != 0)
        fail_msg("%s", err.text);
    if (history)
        write_history();
    testbed_start(&stage.testbed, workers);
    assert_int_equal(queue_open(&stage.queue, &stage.loop, &options, NULL, NULL, &err), 0);
}

static void begin(const char *yaml, const char *scenario, bool history)
{
    begin_with(yaml, scenario, history, (const char *[]){"wa", "wb", NULL});
}

static void end(void)
{
    kill(stage.testbed.daemon, SIGTERM);
    assert_int_equal(fixture_wait_exit(&stage.testbed.fixture, stage.testbed.daemon, WAIT_MS), 0);
    queue_close(&stage.queue);
    loop_finish(&stage.loop);
    config_free(&stage.config);
    testbed_release(&stage.testbed);
}

/* From when it returns, all events are in tap.log. */
static void start_tap(void)
{
    const char *argv[] = {"orchestrator", "tap", "--json", "--config", stage.testbed.config, NULL};
    fixture_spawn(&stage.testbed.fixture, "tap.log", argv);
    assert_true(fixture_wait_text(&stage.testbed.fixture, "tap.log", "beat", WAIT_MS));
}

static void assert_tapped(const char *text)
{
    assert_true(fixture_wait_text(&stage.testbed.fixture, "tap.log", text, WAIT_MS));
}

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    (void)err;
    assert_int_equal(status, QUEUE_OK);
    *(bool *)ctx = true;
}

static void submit(void)
{
    struct queue_node node = testbed_node("a", "Say something of some length to whom it concerns.");
    bool done = false;
    task_id_make(stage.task);
    struct queue_task task = {.id = stage.task,
                              .digest = "d",
                              .title = "t",
                              .info = {"{}", 2},
                              .budget = {.nano_usd = BUDGET_NANO_USD},
                              .nodes = &node,
                              .n_nodes = 1};
    queue_submit(stage.queue, &task, submitted, &done);
    assert_int_equal(loop_run_until(&stage.loop, &done, WAIT_MS), 0);
}

struct seen {
    bool done;
    enum task_state state;
    struct queue_spend spent, held;
    char arm[64], text[256];
};

static void task_seen(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    struct seen *seen = ctx;
    struct message outcome;
    (void)err;
    assert_int_equal(status, QUEUE_OK);
    *seen = (struct seen){.done = true, .state = view->state};
    seen->spent = view->spent;
    seen->held = view->held;
    const struct bytes *bytes = &view->subs[0].outcome;
    if (message_decode_as(&outcome, MESSAGE_outcome, bytes->data, bytes->len) != 0)
        return;
    snprintf(seen->arm, sizeof seen->arm, "%s", outcome.outcome.arm);
    snprintf(seen->text, sizeof seen->text, "%.*s", (int)outcome.outcome.text.len,
             outcome.outcome.text.data);
    message_release(&outcome);
}

static struct seen read_task(void)
{
    struct seen seen = {0};
    queue_read(stage.queue, stage.task, false, task_seen, &seen);
    assert_int_equal(loop_run_until(&stage.loop, &seen.done, WAIT_MS), 0);
    return seen;
}

static struct seen wait_until_done(void)
{
    struct seen seen = read_task();
    for (int64_t until = clock_ms() + WAIT_MS; seen.state != TASK_DONE && clock_ms() < until;) {
        bool never = false;
        loop_run_until(&stage.loop, &never, 10);
        seen = read_task();
    }
    assert_int_equal(seen.state, TASK_DONE);
    return seen;
}

/* --- the log ---------------------------------------------------------------------------------- */

struct line {
    const char *what, *part;
    bool found;
    char text[512];
};

static void on_log(void *ctx, const struct queue_log_entry *entry)
{
    struct line *line = ctx;
    if (line->found || strcmp(entry->what, line->what) != 0 ||
        strstr(entry->text, line->part) == NULL)
        return;
    line->found = true;
    snprintf(line->text, sizeof line->text, "%s", entry->text);
}

/* The first such line whose text has the part; found is false when it does not come in time. */
static struct line log_line(const char *what, const char *part, int64_t timeout_ms)
{
    struct queue_log_follow *follow;
    struct line line = {.what = what, .part = part};
    assert_int_equal(queue_log_open(&follow, stage.queue, stage.task, "0", on_log, &line, NULL), 0);
    loop_run_until(&stage.loop, &line.found, timeout_ms);
    queue_log_close(&follow);
    return line;
}

/* Whether the log has such a line now; the line that is waited for is there already. */
static bool log_has(const char *what, const char *part)
{
    struct line end = log_line("task-done", "", WAIT_MS);
    assert_true(end.found);
    return log_line(what, part, 100).found;
}

/* --- rows ------------------------------------------------------------------------------------- */

struct row {
    const char *arm;
    int count;
    struct msg_timing last;
    char result[32];
};

static void find_row(void *ctx, const struct msg_timing *attempt)
{
    struct row *row = ctx;
    if (strcmp(attempt->task, stage.task) != 0 || strcmp(attempt->arm, row->arm) != 0)
        return;
    row->count++;
    row->last = *attempt;
    snprintf(row->result, sizeof row->result, "%s", attempt->result);
}

static bool is_kept(void *ctx)
{
    struct row *row = ctx;
    struct store *store = NULL;
    row->count = 0;
    if (store_open_read(&store, stage.config->store, NULL) == 0)
        store_attempts(store, 0, NULL, find_row, row, NULL);
    store_close(&store);
    return row->count > 0;
}

/* The attempt on that arm, once the daemon has kept its timing. */
static struct row row_of(const char *arm)
{
    struct row row = {.arm = arm};
    assert_true(fixture_wait(is_kept, &row, WAIT_MS));
    assert_int_equal(row.count, 1);
    return row;
}

static int64_t requests(void)
{
    json_t *stats = testbed_sim(&stage.testbed, "stats");
    int64_t count = json_int(stats, "requests", -1);
    json_decref(stats);
    return count;
}

/* --- hedges ----------------------------------------------------------------------------------- */

static const char stalls[] = "rules:\n"
                             "  - match: {model: slow}\n"
                             "    tokens: 50\n"
                             "    timing: {decode_tps: 100, prefill_tps: 0}\n"
                             "    fault: {stall_after: 10}\n"
                             "  - match: {model: fast}\n"
                             "    reply: {text: \"the fast answer\"}\n";

static void a_slow_arm_is_hedged_and_the_loser_is_stopped_and_paid_for(void **state)
{
    (void)state;
    begin(YAML("", "models: [slow, fast], hedge: auto"), stalls, true);
    start_tap();
    submit();
    struct seen seen = wait_until_done();
    assert_string_equal(seen.arm, "fast@b");
    assert_string_equal(seen.text, "the fast answer");
    struct line note = log_line("note", "hedged on fast@b", WAIT_MS);
    assert_non_null(strstr(note.text, "slow@a has taken"));
    assert_tapped(".hedged\"");
    assert_true(log_line("lost", "", WAIT_MS).found);
    struct row won = row_of("fast@b"), lost = row_of("slow@a");
    assert_string_equal(won.result, "done");
    assert_true(won.last.hedge && won.last.cost_usd > 0);
    assert_string_equal(lost.result, "cancelled");
    assert_false(lost.last.hedge);
    assert_true(lost.last.cost_usd > 0);
    assert_true(lost.last.total_ms < WAIT_MS); /* not by the provider's timeout */
    assert_int_equal(requests(), 2);
    seen = read_task(); /* both are in the task's sum */
    assert_int_equal(seen.held.nano_usd, 0);
    double usd = (double)seen.spent.nano_usd / 1e9;
    double sum = won.last.cost_usd + lost.last.cost_usd;
    if (usd < sum - 1e-6 || usd > sum + 1e-6)
        fail_msg("%f USD were spent, not %f", usd, sum);
    end();
}

static const char lingers[] = "rules:\n"
                              "  - match: {model: slow}\n"
                              "    tokens: 20\n"
                              "    timing: {decode_tps: 10, prefill_tps: 0}\n"
                              "  - match: {model: fast}\n"
                              "    reply: {text: \"the fast answer\"}\n";

static void nothing_is_hedged_without_the_roles_wish(void **state)
{
    (void)state;
    begin(YAML("", "models: [slow, fast]"), lingers, true);
    submit();
    assert_string_equal(wait_until_done().arm, "slow@a"); /* 2 s, twenty times its p95 */
    assert_int_equal(requests(), 1);
    assert_false(log_has("note", "hedged"));
    end();
}

static void nothing_is_hedged_on_an_arm_of_which_nothing_is_known(void **state)
{
    (void)state;
    begin(YAML("", "models: [slow, fast], hedge: auto"), lingers, false);
    submit();
    assert_string_equal(wait_until_done().arm, "slow@a");
    assert_int_equal(requests(), 1);
    assert_false(log_has("note", "hedged"));
    end();
}

static void a_slow_arm_without_another_is_left_alone(void **state)
{
    (void)state;
    begin(YAML("", "models: [slow], hedge: auto"), lingers, true);
    submit();
    assert_string_equal(wait_until_done().arm, "slow@a");
    assert_int_equal(requests(), 1);
    assert_false(log_has("note", "hedged"));
    end();
}

/* --- declined dispatches ---------------------------------------------------------------------- */

static const char answers[] = "rules:\n"
                              "  - reply: {text: \"an answer\"}\n";

/* Two workers share the limit, and each has room for a call by what it knows. */
static void submit_two(char first[TASK_ID_SIZE])
{
    submit();
    memcpy(first, stage.task, TASK_ID_SIZE);
    submit();
}

static void what_a_limit_declines_moves_to_another_arm_at_once(void **state)
{
    (void)state;
    char first[TASK_ID_SIZE];
    begin_with(YAML(", limits: {requests_per_minute: 1}", "models: [slow, fast]"), answers, false,
               (const char *[]){"wa", "wa2", "wb", NULL});
    submit_two(first);
    assert_string_equal(wait_until_done().arm, "fast@b"); /* the minute is not over */
    assert_false(log_has("note", "waits"));
    memcpy(stage.task, first, sizeof first);
    assert_string_equal(wait_until_done().arm, "slow@a");
    end();
}

static void what_a_limit_declines_says_for_what_it_waits(void **state)
{
    (void)state;
    char first[TASK_ID_SIZE];
    begin_with(YAML(", limits: {requests_per_minute: 1}", "models: [slow]"), answers, false,
               (const char *[]){"wa", "wa2", NULL});
    start_tap();
    submit_two(first);
    struct line note = log_line("note", "for slow@a: ", WAIT_MS);
    assert_true(note.found);
    assert_memory_equal(note.text, "waits ", 6);
    assert_tapped(note.text);
    assert_int_equal(read_task().state, TASK_RUNNING);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_arm_is_hedged_and_the_loser_is_stopped_and_paid_for),
        cmocka_unit_test(nothing_is_hedged_without_the_roles_wish),
        cmocka_unit_test(nothing_is_hedged_on_an_arm_of_which_nothing_is_known),
        cmocka_unit_test(a_slow_arm_without_another_is_left_alone),
        cmocka_unit_test(what_a_limit_declines_moves_to_another_arm_at_once),
        cmocka_unit_test(what_a_limit_declines_says_for_what_it_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
