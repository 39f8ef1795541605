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
#include "common/log.h"
#include "common/task_id.h"
#include "tests/lib/fixture.h"
#include "tests/lib/http_server.h"
#include "workers/attempt.h"

/* One worker's inside: everything but the process, the peer and the broker. */
struct bench {
    struct fixture fixture;
    uv_loop_t loop;
    struct http_server *server;
    struct queue *queue;
    struct spool *spool;
    struct exchanges *exchanges;
    struct keys *keys;
    struct attempts *attempts;
    struct config_provider settings;
    struct config_model model;
    struct config_price prices[1];
    struct arm arm;
    char base_url[64], task[TASK_ID_SIZE];
    size_t ended;
    /* the last answer of the queue */
    bool answered;
    enum queue_status status;
    /* what show_sub() read */
    enum sub_state state;
    int64_t attempts_made;
    char error_class[64], reason[600], avoid[200];
    struct message outcome, timing;
};

static struct bench *bench;
static char provider_name[] = "cloud", model_alias[] = "tm", model_name[] = "test-model",
            arm_name[] = "tm@cloud";

static void attempt_ended(void *ctx, int broker)
{
    struct bench *own = ctx;
    assert_int_equal(broker, 3);
    own->ended++;
}

static void open_attempts(int64_t lease_ms, int64_t renew_ms, int64_t abandon_ms)
{
    struct attempts_options options = {
        .loop = &bench->loop,
        .queue = bench->queue,
        .spool = bench->spool,
        .exchanges = bench->exchanges,
        .provider = provider_find("openai"),
        .settings = &bench->settings,
        .name = provider_name,
        .worker = "w1",
        .host = "host1",
        .boot = "0123456789abcdef",
        .lease_ms = lease_ms,
        .renew_ms = renew_ms,
        .abandon_ms = abandon_ms,
        .end = attempt_ended,
        .ctx = bench,
    };
    attempts_free(&bench->attempts);
    bench->attempts = attempts_new(&options);
}

static int setup(void **state)
{
    (void)state;
    struct err err = {0};
    bench = calloc(1, sizeof *bench);
    fixture_init(&bench->fixture);
    fixture_redis_start(&bench->fixture);
    loop_init(&bench->loop);
    bench->server = http_server_start();
    struct redis_options redis = fixture_redis_options(&bench->fixture);
    struct spool_options spool = {.home = bench->fixture.dir, .name = "w1", .durable = true};
    setenv("ATTEMPT_KEY", "sk-secret-1234567890", 1);
    const char *sources[] = {"env:ATTEMPT_KEY"};
    if (queue_open(&bench->queue, &bench->loop, &redis, NULL, NULL, &err) != 0 ||
        spool_open(&bench->spool, &bench->loop, &spool, &err) != 0 ||
        exchanges_open(&bench->exchanges, &bench->loop, &err) != 0 ||
        keys_open(&bench->keys, &bench->loop, sources, 1, false, &err) != 0)
        fail_msg("%s", err.text);
    bench->settings = (struct config_provider){
        .name = provider_name, .base_url = bench->base_url, .stream = true};
    bench->model = (struct config_model){.alias = model_alias,
                                         .name = model_name,
                                         .context = 8192,
                                         .prices = bench->prices,
                                         .n_prices = 1};
    bench->prices[0] =
        (struct config_price){.input = 1, .output = 10, .cached = -1, .cache_write = -1};
    bench->arm = (struct arm){.name = arm_name, .model = &bench->model};
    open_attempts(15000, 5000, 10000);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    attempts_closing(bench->attempts);
    queue_close(&bench->queue);
    attempts_free(&bench->attempts);
    exchanges_close(&bench->exchanges);
    spool_close(&bench->spool);
    keys_close(&bench->keys);
    http_server_stop(&bench->server);
    message_release(&bench->outcome);
    message_release(&bench->timing);
    loop_finish(&bench->loop);
    fixture_release(&bench->fixture);
    free(bench);
    return 0;
}

/* --- helpers ------------------------------------------------------------------------------------
 */

static void wait_for(bool (*fn)(void))
{
    bool never = false;
    for (int tries = 0; !fn() && tries < 4000; tries++)
        loop_run_until(&bench->loop, &never, 5);
    assert_true(fn());
}

static bool is_answered(void)
{
    return bench->answered;
}

static void answered(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx, (void)err;
    bench->answered = true;
    bench->status = status;
}

static enum queue_status answer(void)
{
    wait_for(is_answered);
    bench->answered = false;
    return bench->status;
}

static bool has_ended(void)
{
    return bench->ended > 0;
}

static bool is_streaming(void)
{
    return http_server_requests(bench->server) > 0;
}

static bool has_hung_up(void)
{
    return http_server_hangups(bench->server) > 0;
}

static struct bytes text(const char *value)
{
    return (struct bytes){value, strlen(value)};
}

static void encode_work(struct buf *out, const char *prompt, const char *dep)
{
    struct message work = {.type = MESSAGE_work,
                           .work = {.kind = "run",
                                    .title = "Title",
                                    .role = "coder",
                                    .system = text("be brief"),
                                    .prompt = text(prompt),
                                    .task_text = text(""),
                                    .json_schema = text(""),
                                    .dep_ids = &dep,
                                    .n_dep_ids = dep != NULL,
                                    .dep_titles = &dep,
                                    .n_dep_titles = dep != NULL,
                                    .temperature = -1}};
    assert_int_equal(message_encode(&work, out), 0);
}

/* A task of the node "a" and, with `second`, "b" that depends on it. */
static void submit(bool second)
{
    struct buf first = {0}, next = {0};
    const char *dep = "a";
    encode_work(&first, "first prompt", NULL);
    encode_work(&next, "second prompt", "a");
    struct queue_node nodes[] = {
        {.id = "a", .work = {first.data, first.len}, .meta = text(""), .max_attempts = 3},
        {.id = "b",
         .deps = &dep,
         .n_deps = 1,
         .work = {next.data, next.len},
         .meta = text(""),
         .max_attempts = 3},
    };
    task_id_make(bench->task);
    struct queue_task task = {.id = bench->task,
                              .digest = "d",
                              .title = "t",
                              .info = text(""),
                              .nodes = nodes,
                              .n_nodes = second ? 2 : 1};
    queue_submit(bench->queue, &task, answered, NULL);
    assert_int_equal(answer(), QUEUE_OK);
    buf_release(&first);
    buf_release(&next);
}

static void dispatch(const char *sub)
{
    struct dispatch dispatch = {.arm = &bench->arm, .broker = 3, .arrived_ms = clock_ms_f()};
    struct governor_permit permit = {.verdict = GOVERNOR_GRANTED};
    struct key *key = keys_at(bench->keys, 0);
    snprintf(dispatch.task, sizeof dispatch.task, "%s", bench->task);
    snprintf(dispatch.sub, sizeof dispatch.sub, "%s", sub);
    attempts_start(bench->attempts, &dispatch, &permit, &key);
}

static void start(const char *manner, const char *sub)
{
    snprintf(bench->base_url, sizeof bench->base_url, "http://127.0.0.1:%d/%s",
             http_server_port(bench->server), manner);
    bench->ended = 0;
    dispatch(sub);
}

static void take_record(struct message *message, enum message_type type, struct bytes bytes)
{
    message_release(message);
    *message = (struct message){0};
    if (bytes.len > 0)
        assert_int_equal(message_decode_as(message, type, bytes.data, bytes.len), 0);
}

static void take_view(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    const char *sub = ctx;
    (void)err;
    assert_int_equal(status, QUEUE_OK);
    for (size_t i = 0; i < view->n_subs; i++) {
        if (strcmp(view->subs[i].id, sub) != 0)
            continue;
        bench->state = view->subs[i].state;
        bench->attempts_made = view->subs[i].attempts;
        snprintf(bench->error_class, sizeof bench->error_class, "%s", view->subs[i].error_class);
        snprintf(bench->reason, sizeof bench->reason, "%s", view->subs[i].reason);
        take_record(&bench->outcome, MESSAGE_outcome, view->subs[i].outcome);
        take_record(&bench->timing, MESSAGE_timing, view->subs[i].timing);
    }
    bench->answered = true;
}

static void read_sub(const char *sub)
{
    bench->state = SUB_STATE_COUNT;
    queue_read(bench->queue, bench->task, false, take_view, (void *)(uintptr_t)sub);
    answer();
}

static void assert_state(const char *sub, enum sub_state state)
{
    read_sub(sub);
    if (bench->state != state)
        fail_msg("%s is %s: %s", sub, sub_state_name(bench->state), bench->reason);
}

static void finish(const char *manner, const char *sub)
{
    start(manner, sub);
    wait_for(has_ended);
}

/* --- tests --------------------------------------------------------------------------------------
 */

static void an_answer_is_committed_with_its_timing(void **state)
{
    (void)state;
    submit(false);
    finish("ok", "a");
    assert_state("a", SUB_DONE);
    const struct msg_outcome *outcome = &bench->outcome.outcome;
    assert_int_equal(outcome->text.len, 13);
    assert_memory_equal(outcome->text.data, "one two three", 13);
    assert_string_equal(outcome->finish, "done");
    assert_string_equal(outcome->provider, "cloud");
    assert_string_equal(outcome->model, "tm");
    assert_string_equal(outcome->served_model, "test-model");
    assert_string_equal(outcome->worker, "w1");
    assert_string_equal(outcome->arm, "tm@cloud");
    const struct msg_timing *timing = &bench->timing.timing;
    assert_string_equal(timing->task, bench->task);
    assert_string_equal(timing->kind, "run");
    assert_string_equal(timing->role, "coder");
    assert_string_equal(timing->host, "host1");
    assert_string_equal(timing->result, "done");
    assert_string_equal(timing->error_class, "");
    assert_int_equal(timing->attempt, 1);
    assert_int_equal(timing->http_status, 200);
    assert_true(timing->started_ms > 1500000000000);
    assert_true(timing->queue_ms >= 0 && timing->claim_ms > 0 && timing->connect_ms > 0);
    assert_true(timing->ttft_ms >= 0 && timing->total_ms >= timing->ttft_ms);
    assert_true(timing->load_ms < 0 && timing->prompt_ms < 0);
    assert_int_equal(timing->prompt_tokens, 10);
    assert_int_equal(timing->output_tokens, 3);
    assert_true(timing->sent_bytes > 0 && timing->received_bytes > 0);
    assert_float_equal(timing->cost_usd, 40e-6, 1e-9);
    assert_false(timing->model_mismatch);
    assert_int_equal(spool_outstanding(bench->spool), 0);
    assert_int_equal(attempts_running(bench->attempts), 0);
}

static void another_model_than_asked_for_is_noted(void **state)
{
    (void)state;
    submit(false);
    finish("other", "a");
    assert_state("a", SUB_DONE);
    assert_string_equal(bench->timing.timing.served_model, "another-model");
    assert_true(bench->timing.timing.model_mismatch);
}

static void results_of_dependencies_are_in_the_prompt(void **state)
{
    (void)state;
    submit(true);
    finish("ok", "a");
    finish("ok", "b");
    assert_state("b", SUB_DONE);
    struct buf last = {0};
    http_server_last(bench->server, &last);
    assert_non_null(strstr(last.data, "## Result of a (a)\\n\\none two three"));
    assert_non_null(strstr(last.data, "second prompt"));
    buf_release(&last);
}

static void a_subtask_that_is_not_ready_is_left_alone(void **state)
{
    (void)state;
    submit(true);
    finish("ok", "b");
    finish("ok", "unknown");
    start("ok", "a");
    dispatch("a");
    while (bench->ended < 2)
        uv_run(&bench->loop, UV_RUN_ONCE);
    assert_state("a", SUB_DONE);
    assert_int_equal(http_server_requests(bench->server), 1);
}

static void take_avoid(void *ctx, int shard, const struct queue_item *items, size_t n_items,
                       const char *err)
{
    (void)ctx, (void)shard, (void)err;
    assert_int_equal(n_items, 1);
    snprintf(bench->avoid, sizeof bench->avoid, "%s", items[0].avoid);
    bench->answered = true;
}

static void a_rate_limit_keeps_the_arm_away_as_long_as_the_server_says(void **state)
{
    (void)state;
    submit(false);
    finish("limited", "a");
    assert_state("a", SUB_READY); /* for other arms */
    assert_string_equal(bench->error_class, "rate_limited");
    queue_scan(bench->queue, task_shard(bench->task), QUEUE_INDEX_READY, 0, 10, take_avoid, NULL);
    wait_for(is_answered);
    assert_string_equal(bench->avoid, "tm@cloud=7000");
}

static void failures_keep_their_class_and_never_the_key(void **state)
{
    (void)state;
    submit(false);
    finish("unauthorized", "a");
    read_sub("a");
    assert_string_equal(bench->error_class, "auth");
    assert_non_null(strstr(bench->reason, "Incorrect API key"));
    assert_null(strstr(bench->reason, "secret"));
    assert_int_equal(bench->attempts_made, 1);
    assert_int_equal(spool_outstanding(bench->spool), 0);
}

static void an_unfinished_answer_is_not_committed(void **state)
{
    (void)state;
    submit(false);
    finish("truncate", "a");
    assert_state("a", SUB_DELAYED);
    assert_string_equal(bench->error_class, "bad_response");
}

static void a_time_limit_of_the_subtask_ends_the_call(void **state)
{
    (void)state;
    bench->settings.total_ms = 200;
    submit(false);
    finish("comments", "a");
    assert_state("a", SUB_DELAYED);
    assert_string_equal(bench->error_class, "timeout");
}

static void a_cancelled_task_stops_the_call_at_once(void **state)
{
    (void)state;
    submit(false);
    start("hold", "a");
    wait_for(is_streaming);
    attempts_cancel(bench->attempts, bench->task, ""); /* a false hint changes nothing */
    queue_cancel(bench->queue, "t0000000000000000", answered, NULL);
    assert_int_equal(answer(), QUEUE_GONE);
    assert_int_equal(bench->ended, 0);
    queue_cancel(bench->queue, bench->task, answered, NULL);
    assert_int_equal(answer(), QUEUE_OK);
    attempts_cancel(bench->attempts, bench->task, "a");
    wait_for(has_ended);
    wait_for(has_hung_up);
    assert_state("a", SUB_CANCELLED);
    assert_int_equal(spool_outstanding(bench->spool), 0);
}

static void a_cancel_whose_hint_was_lost_is_noticed_at_the_renewal(void **state)
{
    (void)state;
    open_attempts(2000, 100, 1500);
    submit(false);
    start("hold", "a");
    wait_for(is_streaming);
    queue_cancel(bench->queue, bench->task, answered, NULL);
    assert_int_equal(answer(), QUEUE_OK);
    wait_for(has_ended);
    wait_for(has_hung_up);
}

static void renewals_keep_a_slow_call_alive(void **state)
{
    (void)state;
    open_attempts(600, 100, 500);
    submit(false);
    start("hold", "a");
    wait_for(is_streaming);
    bool never = false;
    for (int i = 0; i < 8; i++) { /* far longer than the lease */
        loop_run_until(&bench->loop, &never, 200);
        queue_expire(bench->queue, bench->task, "a", answered, NULL);
        assert_int_equal(answer(), QUEUE_STALE);
    }
    http_server_release(bench->server);
    wait_for(has_ended);
    assert_state("a", SUB_DONE);
    assert_int_equal(http_server_requests(bench->server), 1);
}

static void a_restart_of_redis_in_the_middle_costs_nothing(void **state)
{
    (void)state;
    submit(false);
    start("hold", "a");
    wait_for(is_streaming);
    fixture_redis_kill(&bench->fixture, SIGKILL);
    http_server_release(bench->server);
    struct bench *own = bench;
    bool never = false;
    for (int i = 0; i < 2000 && spool_outstanding(own->spool) == 0; i++)
        loop_run_until(&own->loop, &never, 5);
    fixture_redis_start(&bench->fixture);
    wait_for(has_ended);
    assert_state("a", SUB_DONE);
    assert_int_equal(http_server_requests(bench->server), 1);
    assert_int_equal(spool_outstanding(bench->spool), 0);
}

static void without_redis_for_too_long_the_call_is_abandoned(void **state)
{
    (void)state;
    open_attempts(1000, 100, 500);
    submit(false);
    start("hold", "a");
    wait_for(is_streaming);
    fixture_redis_kill(&bench->fixture, SIGKILL);
    wait_for(has_hung_up);
    fixture_redis_start(&bench->fixture);
    wait_for(has_ended);
    read_sub("a");
    assert_true(bench->state == SUB_DELAYED || bench->state == SUB_READY);
    assert_string_equal(bench->error_class, "worker_lost");
}

static bool is_claimed(void)
{
    return attempts_running(bench->attempts) == 1 && redis_pending(queue_redis(bench->queue)) > 0;
}

static void a_claim_that_was_long_on_its_way_is_renewed_before_the_call(void **state)
{
    (void)state;
    submit(false);
    open_attempts(60000, 250, 1000);
    kill(bench->fixture.redis_pid, SIGSTOP);
    start("hold", "a");
    wait_for(is_claimed);
    int64_t until_ms = clock_ms() + 1100;
    bool never = false;
    while (clock_ms() < until_ms)
        loop_run_until(&bench->loop, &never, 100);
    kill(bench->fixture.redis_pid, SIGCONT);
    wait_for(is_streaming);
    loop_run_until(&bench->loop, &never, 300); /* the sweep would find the lease too old */
    http_server_release(bench->server);
    wait_for(has_ended);
    assert_state("a", SUB_DONE);
    assert_int_equal(http_server_requests(bench->server), 1);
    assert_int_equal(bench->attempts_made, 1);
}

static void set_memory_limit(const char *bytes)
{
    const char *argv[] = {"CONFIG", "SET", "maxmemory", bytes};
    redis_command(queue_redis(bench->queue), NULL, NULL, 4, argv, NULL);
}

static bool is_spooled(void)
{
    return spool_file_bytes(bench->spool) > 400;
}

static void a_commit_that_redis_refuses_is_repeated(void **state)
{
    (void)state;
    submit(false);
    start("hold", "a");
    wait_for(is_streaming);
    set_memory_limit("1");
    http_server_release(bench->server);
    wait_for(is_spooled);
    assert_int_equal(spool_outstanding(bench->spool), 1);
    bool never = false;
    loop_run_until(&bench->loop, &never, 300);
    assert_int_equal(bench->ended, 0);
    set_memory_limit("0");
    wait_for(has_ended);
    assert_state("a", SUB_DONE);
    assert_int_equal(spool_outstanding(bench->spool), 0);
    assert_int_equal(http_server_requests(bench->server), 1);
}

static void a_worker_that_must_go_gives_its_attempts_back(void **state)
{
    (void)state;
    submit(false);
    start("hold", "a");
    wait_for(is_streaming);
    attempts_abort(bench->attempts);
    wait_for(has_ended);
    wait_for(has_hung_up);
    read_sub("a");
    assert_string_equal(bench->error_class, "worker_lost");
    queue_promote(bench->queue, bench->task, "a", answered, NULL);
    answer(); /* where no backoff already made it ready: stale */
    assert_state("a", SUB_READY);
}

static void a_damaged_record_is_dead_and_said_so(void **state)
{
    (void)state;
    struct queue_node node = {
        .id = "a", .work = text("\x81junk"), .meta = text(""), .max_attempts = 3};
    task_id_make(bench->task);
    struct queue_task task = {.id = bench->task,
                              .digest = "d",
                              .title = "t",
                              .info = text(""),
                              .nodes = &node,
                              .n_nodes = 1};
    queue_submit(bench->queue, &task, answered, NULL);
    assert_int_equal(answer(), QUEUE_OK);
    finish("ok", "a");
    assert_state("a", SUB_DEAD);
    assert_string_equal(bench->error_class, "internal");
    assert_int_equal(http_server_requests(bench->server), 0);
}

static void closing_in_the_middle_leaves_the_claim_in_the_spool(void **state)
{
    (void)state;
    submit(false);
    start("hold", "a");
    wait_for(is_streaming);
    assert_int_equal(spool_outstanding(bench->spool), 1);
    /* teardown closes everything with the call in flight */
}

#define ATTEMPT_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        ATTEMPT_TEST(an_answer_is_committed_with_its_timing),
        ATTEMPT_TEST(another_model_than_asked_for_is_noted),
        ATTEMPT_TEST(results_of_dependencies_are_in_the_prompt),
        ATTEMPT_TEST(a_subtask_that_is_not_ready_is_left_alone),
        ATTEMPT_TEST(a_rate_limit_keeps_the_arm_away_as_long_as_the_server_says),
        ATTEMPT_TEST(failures_keep_their_class_and_never_the_key),
        ATTEMPT_TEST(an_unfinished_answer_is_not_committed),
        ATTEMPT_TEST(a_time_limit_of_the_subtask_ends_the_call),
        ATTEMPT_TEST(a_cancelled_task_stops_the_call_at_once),
        ATTEMPT_TEST(a_cancel_whose_hint_was_lost_is_noticed_at_the_renewal),
        ATTEMPT_TEST(renewals_keep_a_slow_call_alive),
        ATTEMPT_TEST(a_restart_of_redis_in_the_middle_costs_nothing),
        ATTEMPT_TEST(without_redis_for_too_long_the_call_is_abandoned),
        ATTEMPT_TEST(a_claim_that_was_long_on_its_way_is_renewed_before_the_call),
        ATTEMPT_TEST(a_commit_that_redis_refuses_is_repeated),
        ATTEMPT_TEST(a_worker_that_must_go_gives_its_attempts_back),
        ATTEMPT_TEST(a_damaged_record_is_dead_and_said_so),
        ATTEMPT_TEST(closing_in_the_middle_leaves_the_claim_in_the_spool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
