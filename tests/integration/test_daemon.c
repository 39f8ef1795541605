/* The daemon with a real redis-server and broker; the worker is a puppet inside the test, so that
 * every answer and every silence is chosen. */
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
#include "common/peer.h"
#include "common/task_id.h"
#include "orchestrator/plan.h"
#include "orchestrator/store.h"
#include "schemas/mem.h"
#include "tests/lib/testbed.h"

#define WAIT_MS 20000
#define MAX_JOBS 512

static const char yaml[] = "providers:\n"
                           "  p: {api: noop}\n"
                           "models:\n"
                           "  m: {provider: p, local: true}\n"
                           "  unserved: {provider: p, local: true}\n"
                           "workers:\n"
                           "  - {name: puppet, provider: p, models: [m]}\n"
                           "roles:\n"
                           "  general: {models: [m]}\n"
                           "  planner: {models: [m]}\n"
                           "  synthesizer: {models: [m]}\n"
                           "queue: {retain_s: 300}\n";

/* A dispatch that came, and what became of it. */
struct job {
    struct stage *stage;
    char task[TASK_ID_SIZE], sub[SUB_ID_MAX + 1];
    char token[64], prompt[512];
    int64_t attempt, came_ms;
    bool claimed, answered; /* the claim was answered, the commit or fail too */
    enum queue_status status;
};

struct stage {
    struct testbed testbed;
    uv_loop_t loop;
    struct config *config;
    struct queue *queue;
    struct peer *peer;
    char boot[17];
    int64_t lease_ms;
    bool serves_all; /* at the next introduction also the model that nobody serves */
    struct job jobs[MAX_JOBS];
    size_t n_jobs;
    char task[TASK_ID_SIZE];
    bool flag;
    int64_t number;
    char text[8192];
};

static struct stage stage;

/* --- the puppet ------------------------------------------------------------------------------- */

static void claimed(void *ctx, enum queue_status status, const struct queue_claim *claim,
                    const char *err)
{
    struct job *job = ctx;
    struct message work;
    (void)err;
    job->claimed = true;
    job->status = status;
    if (claim == NULL)
        return;
    snprintf(job->token, sizeof job->token, "%s", claim->token);
    job->attempt = claim->attempt;
    assert_int_equal(message_decode_as(&work, MESSAGE_work, claim->work.data, claim->work.len), 0);
    snprintf(job->prompt, sizeof job->prompt, "%.500s", work.work.prompt.data);
    message_release(&work);
}

static void introduce(void *ctx, int broker)
{
    (void)ctx;
    const char *arms[] = {"m@p", "unserved@p"};
    struct message ready = {.type = MESSAGE_ready,
                            .ready = {.name = "puppet",
                                      .boot = stage.boot,
                                      .host = "h",
                                      .pid = getpid(),
                                      .provider = "p",
                                      .arms = arms,
                                      .n_arms = stage.serves_all ? 2 : 1,
                                      .credit = MAX_JOBS,
                                      .concurrency = MAX_JOBS,
                                      .local = true}};
    peer_send(stage.peer, broker, &ready);
}

static void came(void *ctx, int broker, const struct message *message)
{
    (void)ctx, (void)broker;
    if (message->type != MESSAGE_dispatch)
        return;
    assert_true(stage.n_jobs < MAX_JOBS);
    struct job *job = &stage.jobs[stage.n_jobs++];
    *job = (struct job){.stage = &stage, .came_ms = clock_ms()};
    snprintf(job->task, sizeof job->task, "%s", message->dispatch.task);
    snprintf(job->sub, sizeof job->sub, "%s", message->dispatch.sub);
    char nonce[17];
    boot_nonce_make(nonce);
    queue_claim(stage.queue, job->task, job->sub, "puppet", message->dispatch.arm, nonce,
                stage.lease_ms, false, claimed, job);
}

static void answered(void *ctx, enum queue_status status, const char *err)
{
    struct job *job = ctx;
    (void)err;
    job->answered = true;
    job->status = status;
}

static struct buf timing_of(const struct job *job, const char *result)
{
    struct buf out = {0};
    struct message timing = {.type = MESSAGE_timing,
                             .timing = {.task = job->task,
                                        .sub = job->sub,
                                        .attempt = job->attempt,
                                        .role = "general",
                                        .arm = "m@p",
                                        .result = result,
                                        .started_ms = clock_wall_ms(),
                                        .total_ms = 5}};
    assert_int_equal(message_encode(&timing, &out), 0);
    return out;
}

static void commit(struct job *job, const char *text)
{
    struct buf outcome = {0}, timing = timing_of(job, "done");
    struct message message = {.type = MESSAGE_outcome,
                              .outcome = {.text = {text, strlen(text)},
                                          .finish = "done",
                                          .provider = "p",
                                          .model = "m",
                                          .worker = "puppet",
                                          .arm = "m@p"}};
    assert_int_equal(message_encode(&message, &outcome), 0);
    queue_commit(stage.queue, job->task, job->sub, job->token,
                 (struct bytes){outcome.data, outcome.len}, (struct bytes){timing.data, timing.len},
                 NULL, answered, job);
    buf_release(&outcome);
    buf_release(&timing);
    assert_int_equal(loop_run_until(&stage.loop, &job->answered, WAIT_MS), 0);
    assert_int_equal(job->status, QUEUE_OK);
}

static void fail_for(struct job *job, enum error_class class_, const char *reason,
                     int64_t backoff_ms)
{
    struct buf timing = timing_of(job, "failed");
    queue_fail(stage.queue, job->task, job->sub, job->token, class_, error_class_action(class_),
               reason, "m@p", backoff_ms, (struct bytes){timing.data, timing.len}, NULL, answered,
               job);
    buf_release(&timing);
    assert_int_equal(loop_run_until(&stage.loop, &job->answered, WAIT_MS), 0);
    assert_int_equal(job->status, QUEUE_RETRY);
}

static void fail_job(struct job *job, int64_t backoff_ms)
{
    fail_for(job, CLASS_RETRY, "no luck", backoff_ms);
}

/* The first claimed job of that subtask and attempt; waits for it. */
static struct job *job_of(const char *sub, int64_t attempt)
{
    int64_t end = clock_ms() + WAIT_MS;
    while (clock_ms() < end) {
        for (size_t i = 0; i < stage.n_jobs; i++) {
            struct job *job = &stage.jobs[i];
            if (job->claimed && job->attempt == attempt && strcmp(job->sub, sub) == 0 &&
                strcmp(job->task, stage.task) == 0)
                return job;
        }
        bool never = false;
        loop_run_until(&stage.loop, &never, 5);
    }
    fail_msg("subtask %s was not dispatched (attempt %d)", sub, (int)attempt);
    return NULL;
}

static size_t claims_of(const char *sub)
{
    size_t count = 0;
    for (size_t i = 0; i < stage.n_jobs; i++)
        count += strcmp(stage.jobs[i].sub, sub) == 0 && stage.jobs[i].attempt > 0;
    return count;
}

/* --- the stage -------------------------------------------------------------------------------- */

/* Puts `by` in the place of `what` in the configuration. */
static void reconfigure(const char *what, const char *by)
{
    struct buf text = {0}, changed = {0};
    assert_true(fixture_read(stage.testbed.config, &text));
    const char *at = strstr(text.data, what);
    assert_non_null(at);
    buf_add(&changed, text.data, (size_t)(at - text.data));
    buf_add_str(&changed, by);
    buf_add_str(&changed, at + strlen(what));
    fixture_write(&stage.testbed.fixture, "config.yaml", changed.data);
    buf_release(&text);
    buf_release(&changed);
}

static void begin_with(const char *what, const char *by)
{
    static const struct peer_callbacks callbacks = {.introduce = introduce, .message = came};
    struct err err;
    memset(&stage, 0, sizeof stage);
    stage.lease_ms = 30000;
    testbed_init(&stage.testbed, yaml, NULL);
    reconfigure(what, by);
    testbed_start_broker(&stage.testbed);
    loop_init(&stage.loop);
    boot_nonce_make(stage.boot);
    struct redis_options options = fixture_redis_options(&stage.testbed.fixture);
    if (config_load(&stage.config, stage.testbed.config, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(queue_open(&stage.queue, &stage.loop, &options, NULL, NULL, &err), 0);
    assert_int_equal(peer_open(&stage.peer, &stage.loop, stage.config, "worker/puppet", stage.boot,
                               &callbacks, NULL, &err),
                     0);
}

static void begin(void)
{
    begin_with("[local]", "[local]");
}

static void end(void)
{
    if (stage.testbed.daemon != 0) {
        kill(stage.testbed.daemon, SIGTERM);
        assert_int_equal(fixture_wait_exit(&stage.testbed.fixture, stage.testbed.daemon, WAIT_MS),
                         0);
    }
    peer_close(&stage.peer);
    queue_close(&stage.queue);
    loop_finish(&stage.loop);
    config_free(&stage.config);
    testbed_release(&stage.testbed);
}

static void kill_daemon(void)
{
    fixture_kill(&stage.testbed.fixture, stage.testbed.daemon, SIGKILL);
    stage.testbed.daemon = 0;
}

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx, (void)err;
    assert_int_equal(status, QUEUE_OK);
    stage.flag = true;
}

static void submit(const struct queue_node *nodes, size_t n_nodes)
{
    static const char info[] = "{\"text\": \"build a boat\", \"planned\": true}";
    task_id_make(stage.task);
    struct queue_task task = {.id = stage.task,
                              .digest = "d",
                              .title = "boat",
                              .info = {info, sizeof info - 1},
                              .nodes = nodes,
                              .n_nodes = n_nodes};
    stage.flag = false;
    queue_submit(stage.queue, &task, submitted, NULL);
    assert_int_equal(loop_run_until(&stage.loop, &stage.flag, WAIT_MS), 0);
}

static void submit_planned(void)
{
    struct plan_nodes nodes = {0};
    struct err err;
    assert_int_equal(plan_to_planner_nodes(&nodes, stage.config, "build a boat", NULL, NULL, &err),
                     0);
    submit(nodes.nodes, nodes.n_nodes);
    plan_nodes_release(&nodes);
}

static void submit_one(void)
{
    struct queue_node node = testbed_node("a", "do a");
    submit(&node, 1);
}

struct seen {
    bool done;
    enum queue_status status;
    enum task_state state;
    size_t n_subs;
    char result[256];                 /* text of the last subtask with an outcome */
    char error_class[32], reason[64]; /* of the last subtask */
};

static void task_seen(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    struct seen *seen = ctx;
    (void)err;
    seen->done = true;
    seen->status = status;
    if (view == NULL)
        return;
    seen->state = view->state;
    seen->n_subs = view->n_subs;
    for (size_t i = 0; i < view->n_subs; i++) {
        struct message outcome;
        snprintf(seen->error_class, sizeof seen->error_class, "%.31s", view->subs[i].error_class);
        snprintf(seen->reason, sizeof seen->reason, "%.63s", view->subs[i].reason);
        const struct bytes *bytes = &view->subs[i].outcome;
        if (message_decode_as(&outcome, MESSAGE_outcome, bytes->data, bytes->len) != 0)
            continue;
        snprintf(seen->result, sizeof seen->result, "%.200s", outcome.outcome.text.data);
        message_release(&outcome);
    }
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
    int64_t until = clock_ms() + WAIT_MS;
    struct seen seen;
    do {
        seen = read_task();
        bool never = false;
        loop_run_until(&stage.loop, &never, 10);
    } while (seen.state != TASK_DONE && clock_ms() < until);
    assert_int_equal(seen.state, TASK_DONE);
    return seen;
}

static void on_log(void *ctx, const struct queue_log_entry *entry)
{
    const char *what = ctx;
    if (strcmp(entry->what, what) == 0) {
        snprintf(stage.text, sizeof stage.text, "%s", entry->text);
        stage.flag = true;
    }
}

/* Waits for an entry of the task's log and returns its text. */
static const char *wait_log(const char *what)
{
    struct queue_log_follow *follow;
    stage.flag = false;
    assert_int_equal(queue_log_open(&follow, stage.queue, stage.task, "0", on_log,
                                    (void *)(uintptr_t)what, NULL),
                     0);
    int rc = loop_run_until(&stage.loop, &stage.flag, WAIT_MS);
    queue_log_close(&follow);
    if (rc != 0)
        fail_msg("no `%s` in the log", what);
    return stage.text;
}

static const char plan_text[] =
    "```json\n{\"title\":\"Boat\",\"subtasks\":["
    "{\"id\":\"a\",\"title\":\"A\",\"role\":\"coder\",\"prompt\":\"hull\",\"depends_on\":[]},"
    "{\"id\":\"slow\",\"title\":\"S\",\"role\":\"coder\",\"prompt\":\"sail\",\"depends_on\":[]},"
    "{\"id\":\"b\",\"title\":\"B\",\"role\":\"coder\",\"prompt\":\"mast\","
    "\"depends_on\":[\"a\"]}]}\n```";

/* --- behaviours ------------------------------------------------------------------------------- */

static void
a_plan_becomes_subtasks_that_run_as_soon_as_their_own_dependencies_are_done(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    submit_planned();
    struct job *plan = job_of(PLAN_NODE, 1);
    assert_string_equal(plan->prompt, "build a boat");
    commit(plan, plan_text);
    struct job *slow = job_of("slow", 1);
    commit(job_of("a", 1), "the hull");
    commit(job_of("b", 1), "the mast"); /* not in a wave with `slow` */
    assert_int_equal(claims_of(PLAN_SYNTHESIS_NODE), 0);
    commit(slow, "the sail");
    commit(job_of(PLAN_SYNTHESIS_NODE, 1), "a boat");
    struct seen seen = wait_until_done();
    assert_int_equal(seen.n_subs, 5);
    assert_string_equal(seen.result, "a boat");
    end();
}

static void a_bad_plan_is_repaired_once_and_then_carried_out_as_one_subtask(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    submit_planned();
    commit(job_of(PLAN_NODE, 1), "I would rather write a poem.");
    struct job *repair = job_of(PLAN_REPAIR_NODE, 1);
    assert_non_null(strstr(repair->prompt, "build a boat"));
    assert_non_null(strstr(repair->prompt, "no JSON object"));
    commit(repair, "{\"subtasks\": [{\"id\": \"x\", \"prompt\": \"y\", \"depends_on\": [\"x\"]}]}");
    struct job *single = job_of("main", 1);
    assert_string_equal(single->prompt, "build a boat");
    commit(single, "a boat");
    assert_int_equal(wait_until_done().n_subs, 3);
    end();
}

static void a_good_repair_is_expanded(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    submit_planned();
    commit(job_of(PLAN_NODE, 1), "{\"subtasks\": []}");
    commit(job_of(PLAN_REPAIR_NODE, 1), plan_text);
    job_of("a", 1);
    job_of("slow", 1);
    assert_int_equal(read_task().n_subs, 6);
    end();
}

static void a_daemon_killed_between_a_plan_and_its_expansion_expands_it_once(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    submit_planned();
    struct job *plan = job_of(PLAN_NODE, 1);
    kill_daemon();
    commit(plan, plan_text);
    assert_int_equal(read_task().n_subs, 1);
    testbed_start_daemon(&stage.testbed);
    job_of("a", 1);
    /* And at a moment of its own choice, several times. */
    for (int i = 0; i < 5; i++) {
        submit_planned();
        plan = job_of(PLAN_NODE, 1);
        commit(plan, plan_text);
        bool never = false;
        loop_run_until(&stage.loop, &never, i);
        kill_daemon();
        testbed_start_daemon(&stage.testbed);
        commit(job_of("a", 1), "x");
        commit(job_of("slow", 1), "x");
        commit(job_of("b", 1), "x");
        commit(job_of(PLAN_SYNTHESIS_NODE, 1), "x");
        assert_int_equal(wait_until_done().n_subs, 5);
    }
    end();
}

static void a_subtask_whose_lease_runs_out_is_offered_again(void **state)
{
    (void)state;
    begin();
    stage.lease_ms = 300;
    testbed_start_daemon(&stage.testbed);
    submit_one();
    job_of("a", 1);
    stage.lease_ms = 30000;
    commit(job_of("a", 2), "at last");
    wait_until_done();
    end();
}

static void a_retry_is_offered_when_it_is_due(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    submit_one();
    struct job *first = job_of("a", 1);
    int64_t failed_ms = clock_ms();
    fail_job(first, 700);
    struct job *second = job_of("a", 2);
    assert_true(second->came_ms - failed_ms >= 700);
    commit(second, "done");
    wait_until_done();
    end();
}

static void a_subtask_that_avoids_every_arm_is_dead(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    submit_one();
    fail_for(job_of("a", 1), CLASS_AUTH, "no such key", 0);
    struct seen seen = read_task();
    for (int64_t end_ms = clock_ms() + WAIT_MS; seen.state == TASK_RUNNING && clock_ms() < end_ms;)
        seen = read_task();
    assert_int_equal(seen.state, TASK_FAILED);
    assert_string_equal(seen.error_class, "auth");
    assert_string_equal(seen.reason, "no such key");
    assert_int_equal(claims_of("a"), 1);
    end();
}

static void a_prompt_that_fits_no_window_is_dead_with_what_it_would_need(void **state)
{
    (void)state;
    begin_with("m: {provider: p, local: true}", "m: {provider: p, local: true, context: 4096}");
    testbed_start_daemon(&stage.testbed);
    submit_one();
    fail_for(job_of("a", 1), CLASS_CONTEXT_TOO_LONG, "prompt is too long", 0);
    assert_non_null(strstr(wait_log("dead"), "it needs a window of more than 4096 tokens"));
    struct seen seen = read_task();
    assert_int_equal(seen.state, TASK_FAILED);
    assert_string_equal(seen.error_class, "context_too_long");
    assert_non_null(strstr(seen.reason, "does not fit the window of m"));
    end();
}

static void submit_unserved(void)
{
    struct plan *plan = NULL;
    struct plan_nodes nodes = {0};
    struct err err;
    assert_int_equal(plan_single(&plan, stage.config, "x", NULL, "unserved", &err), 0);
    assert_int_equal(plan_to_nodes(&nodes, plan, stage.config, "x", &err), 0);
    submit(nodes.nodes, nodes.n_nodes);
    plan_nodes_release(&nodes);
    plan_free(&plan);
}

static void a_subtask_that_nobody_serves_is_said_in_the_log(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    submit_unserved();
    assert_non_null(strstr(wait_log("note"), "no worker serves unserved"));
    end();
}

static void a_restarted_broker_gets_the_offers_again(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    submit_unserved();
    wait_log("note"); /* the broker has the offer, and takes it along */
    fixture_kill(&stage.testbed.fixture, stage.testbed.broker, SIGKILL);
    stage.serves_all = true;
    testbed_start_broker(&stage.testbed);
    commit(job_of("main", 1), "x");
    wait_until_done();
    end();
}

static void a_lost_redis_is_waited_for(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    submit_one();
    commit(job_of("a", 1), "x");
    fixture_redis_kill(&stage.testbed.fixture, SIGKILL);
    fixture_redis_start(&stage.testbed.fixture);
    submit_one();
    commit(job_of("a", 1), "x");
    wait_until_done();
    end();
}

static void a_second_daemon_takes_over_what_the_first_one_had(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    pid_t first = stage.testbed.daemon;
    testbed_start_daemon(&stage.testbed);
    submit_one();
    commit(job_of("a", 1), "x");
    fixture_kill(&stage.testbed.fixture, first, SIGKILL);
    int64_t killed_ms = clock_ms();
    submit_one();
    struct job *job = job_of("a", 1);
    assert_true(job->came_ms - killed_ms < 10000);
    commit(job, "x");
    wait_until_done();
    end();
}

static size_t n_living, n_holders;

static void named(void *ctx, const char *const *jsons, size_t n, const char *err)
{
    (void)ctx, (void)err;
    n_living = n;
    n_holders = 0;
    for (size_t i = 0; i < n; i++)
        n_holders += strstr(jsons[i], "\"shards\":32") != NULL;
    stage.flag = true;
}

static void look_who_lives(void)
{
    stage.flag = false;
    queue_orchestrators(stage.queue, named, NULL);
    assert_int_equal(loop_run_until(&stage.loop, &stage.flag, WAIT_MS), 0);
}

static void stop_daemon(pid_t pid)
{
    kill(pid, SIGTERM);
    assert_int_equal(fixture_wait_exit(&stage.testbed.fixture, pid, WAIT_MS), 0);
}

static void a_daemon_that_ends_is_no_longer_told(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    pid_t first = stage.testbed.daemon;
    testbed_start_daemon(&stage.testbed);
    pid_t second = stage.testbed.daemon;
    for (int64_t end_ms = clock_ms() + WAIT_MS; n_holders < 2 && clock_ms() < end_ms;)
        look_who_lives();
    assert_int_equal(n_living, 2);
    assert_int_equal(n_holders, 2);
    stop_daemon(second);
    look_who_lives();
    assert_int_equal(n_living, 1);
    stop_daemon(first);
    look_who_lives();
    assert_int_equal(n_living, 0);
    stage.testbed.daemon = 0;
    end();
}

static void collect(void *ctx, const struct msg_timing *attempt)
{
    char *text = ctx;
    snprintf(text + strlen(text), 256 - strlen(text), "%s:%lld:%s ", attempt->sub,
             (long long)attempt->attempt, attempt->result);
}

/* The attempts kept of all tasks, in the order they were written. */
static bool attempts_are(const char *expected)
{
    struct store *store = NULL;
    char text[256] = "";
    if (store_open_read(&store, stage.config->store, NULL) == 0)
        store_attempts(store, 0, NULL, collect, text, NULL);
    store_close(&store);
    return strcmp(text, expected) == 0;
}

static void every_attempt_is_kept_once_also_over_a_kill(void **state)
{
    (void)state;
    begin();
    testbed_start_daemon(&stage.testbed);
    submit_one();
    fail_job(job_of("a", 1), 0);
    struct job *second = job_of("a", 2);
    kill_daemon();
    commit(second, "x");
    testbed_start_daemon(&stage.testbed);
    submit_one();
    commit(job_of("a", 1), "x");
    kill(stage.testbed.daemon, SIGTERM);
    assert_int_equal(fixture_wait_exit(&stage.testbed.fixture, stage.testbed.daemon, WAIT_MS), 0);
    stage.testbed.daemon = 0;
    assert_true(attempts_are("a:1:failed a:2:done a:1:done "));
    end();
}

static bool archived(void *ctx)
{
    struct store *store = NULL;
    char **json = ctx;
    if (store_open_read(&store, stage.config->store, NULL) == 0)
        store_task_find(store, stage.task, json, NULL);
    store_close(&store);
    return *json != NULL;
}

static void a_finished_task_moves_to_the_archive_and_leaves_redis(void **state)
{
    (void)state;
    begin_with("retain_s: 300", "retain_s: 0");
    testbed_start_daemon(&stage.testbed);
    submit_one();
    commit(job_of("a", 1), "a \xc3\xa9 boat \xff");
    char *json = NULL;
    assert_true(fixture_wait(archived, &json, 2 * WAIT_MS));
    int64_t until = clock_ms() + WAIT_MS;
    while (read_task().status != QUEUE_GONE && clock_ms() < until)
        ;
    assert_int_equal(read_task().status, QUEUE_GONE);
    json_t *object = json_parse(json, strlen(json), NULL);
    assert_string_equal(json_str(object, "task_id", ""), stage.task);
    assert_string_equal(json_str(object, "state", ""), "DONE");
    assert_string_equal(json_str(object, "result", ""), "a \xc3\xa9 boat \xef\xbf\xbd");
    assert_int_equal(json_array_size(json_get(object, "subtasks")), 1);
    json_decref(object);
    free(json);
    end();
}

static void a_damaged_store_does_not_stop_the_work(void **state)
{
    (void)state;
    begin();
    FILE *file = fopen(stage.config->store, "we");
    for (int i = 0; i < 10000; i++)
        fputs("this is no database\n", file);
    fclose(file);
    testbed_start_daemon(&stage.testbed);
    submit_one();
    commit(job_of("a", 1), "x");
    wait_until_done();
    assert_true(
        fixture_wait_text(&stage.testbed.fixture, "daemon.2.log", "profile store", WAIT_MS));
    end();
}

static void a_backlog_larger_than_the_window_is_done(void **state)
{
    (void)state;
    begin_with("[local]", "[local], max_offers: 5");
    struct queue_node nodes[200];
    char ids[200][8];
    for (int i = 0; i < 200; i++) {
        snprintf(ids[i], sizeof ids[i], "n%u", (unsigned)i % 1000);
        nodes[i] = testbed_node(ids[i], "x");
    }
    submit(nodes, 200);
    testbed_start_daemon(&stage.testbed);
    for (int i = 0; i < 200; i++)
        commit(job_of(ids[i], 1), "x");
    wait_until_done();
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            a_plan_becomes_subtasks_that_run_as_soon_as_their_own_dependencies_are_done),
        cmocka_unit_test(a_bad_plan_is_repaired_once_and_then_carried_out_as_one_subtask),
        cmocka_unit_test(a_good_repair_is_expanded),
        cmocka_unit_test(a_daemon_killed_between_a_plan_and_its_expansion_expands_it_once),
        cmocka_unit_test(a_subtask_whose_lease_runs_out_is_offered_again),
        cmocka_unit_test(a_retry_is_offered_when_it_is_due),
        cmocka_unit_test(a_subtask_that_avoids_every_arm_is_dead),
        cmocka_unit_test(a_prompt_that_fits_no_window_is_dead_with_what_it_would_need),
        cmocka_unit_test(a_restarted_broker_gets_the_offers_again),
        cmocka_unit_test(a_lost_redis_is_waited_for),
        cmocka_unit_test(a_second_daemon_takes_over_what_the_first_one_had),
        cmocka_unit_test(a_daemon_that_ends_is_no_longer_told),
        cmocka_unit_test(a_subtask_that_nobody_serves_is_said_in_the_log),
        cmocka_unit_test(every_attempt_is_kept_once_also_over_a_kill),
        cmocka_unit_test(a_finished_task_moves_to_the_archive_and_leaves_redis),
        cmocka_unit_test(a_damaged_store_does_not_stop_the_work),
        cmocka_unit_test(a_backlog_larger_than_the_window_is_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
