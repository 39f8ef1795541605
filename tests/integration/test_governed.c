#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/lib/workbench.h"

/* Limits, keys, breakers, budgets, cache and search, as workers keep them. */
static struct workbench bench_, *const bench = &bench_;

static const char yaml[] =
    "providers:\n"
    "  slow:  {api: openai, base_url: 'http://127.0.0.1:%d/ok', key: 'env:KEY_GOOD',\n"
    "          limits: {requests_per_minute: 2}}\n"
    "  spent: {api: openai, base_url: 'http://127.0.0.1:%d/spent', key: 'env:KEY_GOOD'}\n"
    "  calls: {api: openai, base_url: 'http://127.0.0.1:%d/hold', key: 'env:KEY_GOOD',\n"
    "          limits: {concurrency: 2}}\n"
    "  pool:  {api: openai, base_url: 'http://127.0.0.1:%d/pool',\n"
    "          key: ['env:KEY_BAD', 'env:KEY_GOOD']}\n"
    "  bad:   {api: openai, base_url: 'http://127.0.0.1:%d/pool', key: 'file:%s/key'}\n"
    "  ok:    {api: openai, base_url: 'http://127.0.0.1:%d/ok', key: 'env:KEY_GOOD'}\n"
    "  hold:  {api: openai, base_url: 'http://127.0.0.1:%d/hold', key: 'env:KEY_GOOD'}\n"
    "  other: {api: openai, base_url: 'http://127.0.0.1:%d/other', key: 'env:KEY_GOOD'}\n"
    "  quiet: {api: openai, base_url: 'http://127.0.0.1:%d/uncounted', key: 'env:KEY_GOOD'}\n"
    "  cut:   {api: openai, base_url: 'http://127.0.0.1:%d/truncate', key: 'env:KEY_GOOD'}\n"
    "  full:  {api: openai, base_url: 'http://127.0.0.1:%d/overloaded', key: 'env:KEY_GOOD',\n"
    "          breaker: {failures: 2, open_ms: 300}}\n"
    "  vec:   {api: openai, base_url: 'http://127.0.0.1:%d/vectors', key: 'env:KEY_GOOD'}\n"
    "  list:  {api: openai, base_url: 'http://127.0.0.1:%d/models', key: 'env:KEY_GOOD'}\n"
    "  claude: {api: anthropic, base_url: 'http://127.0.0.1:%d/ok', key: 'env:KEY_GOOD'}\n"
    "  web:   {api: search, base: ok, engine: searxng,\n"
    "          engine_url: 'http://127.0.0.1:%d/found', auto: always}\n"
    "  dark:  {api: search, base: ok, engine: searxng, engine_url: 'http://127.0.0.1:%p',\n"
    "          auto: always}\n"
    "models:\n"
    "  m-slow:  {provider: slow, name: test-model}\n"
    "  m-spent: {provider: spent, name: test-model}\n"
    "  m-calls: {provider: calls, name: test-model}\n"
    "  m-pool:  {provider: pool, name: test-model}\n"
    "  m-bad:   {provider: bad, name: test-model}\n"
    "  m-ok:    {provider: ok, name: test-model, price: {input: 1, output: 10}}\n"
    "  m-shy:   {provider: ok, name: test-model, capabilities: [embeddings],\n"
    "            refuses: [temperature, system, stream_options, max_tokens]}\n"
    "  m-hold:  {provider: hold, name: test-model, price: {input: 1, output: 10}}\n"
    "  m-other: {provider: other, name: test-model}\n"
    "  m-strict: {provider: other, name: test-model, strict: true}\n"
    "  m-alias: {provider: other, name: test-model, served: [another-model], strict: true}\n"
    "  m-quiet: {provider: quiet, name: test-model, price: {input: 1, output: 10}}\n"
    "  m-cut:   {provider: cut, name: test-model, price: {input: 1, output: 10}}\n"
    "  m-full:  {provider: full, name: test-model}\n"
    "  m-vec:   {provider: vec, name: test-model, price: {input: 1, output: 0}}\n"
    "  m-list:  {provider: list, name: test-model}\n"
    "  m-claude: {provider: claude, name: claude-x}\n"
    "  m-web:   {provider: web, name: test-model}\n"
    "  m-dark:  {provider: dark, name: test-model}\n"
    "roles:\n"
    "  coder:  {models: [m-ok]}\n"
    "  frugal: {models: [m-ok], budget: {task_usd: 0.001}}\n"
    "workers:\n"
    "  - {name: w-slow, provider: slow, concurrency: 8}\n"
    "  - {name: w-slow-2, provider: slow, concurrency: 8}\n"
    "  - {name: w-spent, provider: spent, concurrency: 8}\n"
    "  - {name: w-calls, provider: calls, concurrency: 8}\n"
    "  - {name: w-pool, provider: pool}\n"
    "  - {name: w-bad, provider: bad}\n"
    "  - {name: w-ok, provider: ok}\n"
    "  - {name: w-hold, provider: hold, concurrency: 4}\n"
    "  - {name: w-other, provider: other}\n"
    "  - {name: w-quiet, provider: quiet}\n"
    "  - {name: w-cut, provider: cut}\n"
    "  - {name: w-full, provider: full}\n"
    "  - {name: w-vec, provider: vec}\n"
    "  - {name: w-list, provider: list}\n"
    "  - {name: w-claude, provider: claude}\n"
    "  - {name: w-web, provider: web}\n"
    "  - {name: w-dark, provider: dark}\n";

static int setup(void **state)
{
    (void)state;
    setenv("KEY_GOOD", "good-1234567890", 1);
    setenv("KEY_BAD", "bad-1234567890", 1);
    workbench_open(bench, yaml);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    workbench_close(bench);
    return 0;
}

/* --- helpers ------------------------------------------------------------------------------------
 */

static struct msg_work work_of(const char *kind)
{
    struct msg_work work = workbench_work();
    work.kind = kind;
    return work;
}

static struct bytes text(const char *value)
{
    return (struct bytes){value, strlen(value)};
}

static void run(const char *model, enum sub_state state)
{
    struct msg_work work = workbench_work();
    workbench_run(bench, &work, model, state);
}

static void run_with_budget(const char *model, const struct queue_spend *budget,
                            enum sub_state state)
{
    struct msg_work work = workbench_work();
    workbench_submit(bench, &work, budget);
    workbench_offer(bench, model, false);
    if (!workbench_reaches(bench, state))
        fail_msg("%s: %s", sub_state_name(bench->state), bench->reason);
}

static const struct msg_timing *timing(void)
{
    assert_int_equal(bench->timing.type, MESSAGE_timing);
    return &bench->timing.timing;
}

/* The last request holds the text. */
static void assert_sent(const char *what, bool sent)
{
    struct buf last = {0};
    http_server_last(bench->server, &last);
    if ((strstr(last.data, what) != NULL) != sent)
        fail_msg("%s is %sin the request: %s", what, sent ? "not " : "", last.data);
    buf_release(&last);
}

static bool was_declined(struct workbench *own)
{
    return own->declines > 0;
}

static bool is_paused(struct workbench *own)
{
    workbench_status(own);
    return own->paused[0] != '\0';
}

static bool is_served(struct workbench *own)
{
    workbench_status(own);
    return own->workers > 0 && own->paused[0] == '\0' && own->arms[0] != '\0';
}

/* --- limits -------------------------------------------------------------------------------------
 */

static void a_dispatch_that_would_wait_for_long_is_declined(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-slow");
    run("m-slow", SUB_DONE);
    run("m-slow", SUB_DONE);
    struct msg_work work = workbench_work();
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "m-slow", false);
    bool never = false;
    loop_run_until(&bench->loop, &never, 300);
    workbench_read(bench);
    assert_int_equal(bench->state, SUB_READY); /* never claimed */
    assert_int_equal(bench->attempts_made, 0);
    assert_int_equal(http_server_requests(bench->server), 2);
    if (bench->declines > 0) { /* else the broker had no credit to send it with */
        assert_string_equal(bench->decline_arm, "m-slow@slow");
        assert_true(bench->decline_ms > 250);
        assert_true(bench->decline_reason[0] != '\0');
    }
}

static void what_two_workers_are_sent_beyond_their_limit_is_declined_with_the_reason(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-slow");
    workbench_start_worker(bench, "w-slow-2");
    struct msg_work work = workbench_work();
    for (int i = 0; i < 8; i++) { /* each of them has credit for the two */
        workbench_submit(bench, &work, NULL);
        workbench_offer(bench, "m-slow", false);
    }
    workbench_wait(bench, was_declined);
    assert_string_equal(bench->decline_arm, "m-slow@slow");
    assert_true(bench->decline_ms > 250);
    assert_true(bench->decline_reason[0] != '\0');
    workbench_wait_requests(bench, 2);
    assert_int_equal(http_server_requests(bench->server), 2);
}

static void credit_is_held_back_while_the_limits_have_no_room(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-calls");
    struct msg_work work = workbench_work();
    for (int i = 0; i < 2; i++) {
        workbench_submit(bench, &work, NULL);
        workbench_offer(bench, "m-calls", false);
        workbench_wait_requests(bench, (size_t)i + 1);
    }
    assert_true(workbench_credit_becomes(bench, 0));
    http_server_release(bench->server);
    assert_true(workbench_reaches(bench, SUB_DONE));
    run("m-calls", SUB_DONE); /* there is credit again */
}

static void a_server_that_says_that_nothing_is_left_is_believed(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-spent");
    run("m-spent", SUB_DONE);
    struct msg_work work = workbench_work();
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "m-spent", false);
    workbench_wait(bench, was_declined);
    assert_in_range(bench->decline_ms, 30000, 60000);
    assert_int_equal(http_server_requests(bench->server), 1);
}

/* --- keys ---------------------------------------------------------------------------------------
 */

static bool is_done_or_refused(struct workbench *own)
{
    workbench_read(own);
    return own->state == SUB_DONE || own->error_class[0] != '\0';
}

static void a_key_that_is_refused_leaves_the_pool(void **state)
{
    (void)state;
    int refused = 0;
    workbench_start_worker(bench, "w-pool");
    for (int i = 0; i < 6; i++) {
        struct msg_work work = workbench_work();
        workbench_submit(bench, &work, NULL);
        workbench_offer(bench, "m-pool", false);
        workbench_wait(bench, is_done_or_refused);
        if (bench->state == SUB_DONE)
            continue;
        assert_string_equal(bench->error_class, "auth");
        refused++;
        workbench_wait_event(bench, "key-out");
    }
    assert_int_equal(refused, 1); /* of the two keys, from then on the good one */
    workbench_wait_event(bench, "env:KEY_BAD");
    assert_null(strstr(bench->events.data, "bad-1234567890"));
    workbench_status(bench);
    assert_string_equal(bench->paused, "");
}

static void without_a_key_left_all_arms_pause_until_the_key_is_put_right(void **state)
{
    (void)state;
    fixture_write(&bench->fixture, "key", "bad-1234567890\n");
    pid_t worker = workbench_start_worker(bench, "w-bad");
    struct msg_work work = workbench_work();
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "m-bad", false);
    workbench_wait(bench, is_paused);
    assert_non_null(strstr(bench->paused, "m-bad@bad"));
    assert_non_null(strstr(bench->paused, "no key of bad is left"));
    assert_string_equal(bench->arms, "");
    fixture_write(&bench->fixture, "key", "good-1234567890\n");
    kill(worker, SIGHUP);
    workbench_wait(bench, is_served);
    run("m-bad", SUB_DONE);
}

/* --- breakers -----------------------------------------------------------------------------------
 */

static void an_arm_with_an_open_breaker_pauses_and_comes_back(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-full");
    for (int i = 0; i < 2; i++) {
        struct msg_work work = workbench_work();
        workbench_submit(bench, &work, NULL);
        workbench_offer(bench, "m-full", false);
        workbench_wait_requests(bench, (size_t)i + 1);
    }
    workbench_wait_event(bench, "arm-open");
    http_server_release(bench->server);
    workbench_wait(bench, is_served); /* for the probe */
    run("m-full", SUB_DONE);
    workbench_wait_event(bench, "arm-closed");
}

/* --- budgets ------------------------------------------------------------------------------------
 */

static void a_call_that_no_budget_has_room_for_is_never_made(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-ok");
    struct queue_spend budget = {.nano_usd = 1000};
    struct msg_work work = workbench_work();
    workbench_submit(bench, &work, &budget);
    workbench_offer(bench, "m-ok", false);
    workbench_wait(bench, is_done_or_refused);
    assert_string_equal(bench->error_class, "budget");
    assert_non_null(strstr(bench->reason, "budget"));
    assert_int_equal(bench->state, SUB_READY); /* for another arm, which may be cheaper */
    assert_int_equal(http_server_requests(bench->server), 0);
    assert_int_equal(bench->spent.nano_usd, 0);
    workbench_wait_event(bench, "task.");
}

static void what_a_call_has_cost_is_settled_and_the_rest_is_free_again(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-ok");
    struct queue_spend budget = {.nano_usd = 1000000000};
    run_with_budget("m-ok", &budget, SUB_DONE);
    assert_int_equal(bench->spent.nano_usd, 10 * 1000 + 3 * 10000);
    assert_int_equal(bench->spent.tokens, 13);
    assert_int_equal(bench->held.nano_usd, 0);
    assert_true(timing()->reserved_usd > timing()->cost_usd);
    assert_sent("\"max_completion_tokens\":4096", true);
}

static void what_nobody_has_counted_costs_what_was_reserved(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-quiet");
    struct queue_spend budget = {.nano_usd = 1000000000};
    run_with_budget("m-quiet", &budget, SUB_DONE);
    assert_float_equal(timing()->cost_usd, timing()->reserved_usd, 1e-12);
    assert_true(bench->spent.nano_usd >= 4096 * 10000);
    assert_int_equal(bench->held.nano_usd, 0);
}

static void a_call_that_broke_costs_what_was_reserved(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-cut");
    struct queue_spend budget = {.nano_usd = 1000000000};
    run_with_budget("m-cut", &budget, SUB_DELAYED);
    workbench_wait_event(bench, "the text that was streamed so far is void");
    assert_true(bench->spent.nano_usd >= 4096 * 10000);
    assert_int_equal(bench->held.nano_usd, 0);
}

static void a_call_that_was_refused_costs_nothing(void **state)
{
    (void)state;
    fixture_write(&bench->fixture, "key", "bad-1234567890\n");
    workbench_start_worker(bench, "w-bad");
    struct msg_work work = workbench_work();
    workbench_submit(bench, &work, &(struct queue_spend){.tokens = 1000000});
    workbench_offer(bench, "m-bad", false);
    workbench_wait_requests(bench, 1);
    assert_true(workbench_reaches(bench, SUB_READY));
    assert_int_equal(bench->spent.tokens, 0);
    assert_int_equal(bench->held.tokens, 0);
}

static void run_until_killed(const char *failpoint)
{
    struct msg_work work = workbench_work();
    setenv("ORCH_FAILPOINT", failpoint, 1);
    pid_t worker = workbench_start_worker(bench, "w-ok");
    unsetenv("ORCH_FAILPOINT");
    workbench_submit(bench, &work, &(struct queue_spend){.nano_usd = 1000000000});
    workbench_offer(bench, "m-ok", false);
    bool never = false;
    int status = -1;
    for (int i = 0; i < 2000 && status == -1; i++) {
        loop_run_until(&bench->loop, &never, 10);
        status = fixture_wait_exit(&bench->fixture, worker, 0);
    }
    assert_int_equal(status, 128 + SIGKILL);
    workbench_read(bench);
    assert_true(bench->held.nano_usd > 0);
}

static void an_answer_of_before_a_kill_costs_what_it_has_cost(void **state)
{
    (void)state;
    run_until_killed("spooled:1");
    workbench_start_worker(bench, "w-ok");
    assert_true(workbench_reaches(bench, SUB_DONE));
    assert_int_equal(bench->spent.nano_usd, 10 * 1000 + 3 * 10000);
    assert_int_equal(bench->held.nano_usd, 0);
    assert_int_equal(http_server_requests(bench->server), 1);
}

static bool is_not_running(struct workbench *own)
{
    workbench_read(own);
    return own->state != SUB_RUNNING;
}

static void a_kill_after_the_reservation_costs_what_was_reserved(void **state)
{
    (void)state;
    run_until_killed("reserved:1");
    int64_t held = bench->held.nano_usd;
    workbench_start_worker(bench, "w-ok");
    workbench_wait(bench, is_not_running);
    assert_int_equal(bench->spent.nano_usd, held); /* the call may have been made */
    assert_int_equal(bench->held.nano_usd, 0);
}

static void a_roles_budget_in_a_task_counts(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-ok");
    struct msg_work work = workbench_work();
    work.role = "frugal";
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "m-ok", false);
    workbench_wait(bench, is_done_or_refused);
    assert_string_equal(bench->error_class, "budget");
    assert_non_null(strstr(bench->reason, "frugal"));
}

/* --- the response cache -------------------------------------------------------------------------
 */

static void an_equal_call_is_answered_from_the_cache(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-ok");
    struct msg_work work = workbench_work();
    work.temperature = 0;
    workbench_run(bench, &work, "m-ok", SUB_DONE);
    assert_false(timing()->cached);
    workbench_run(bench, &work, "m-ok", SUB_DONE);
    assert_true(timing()->cached);
    assert_true(bench->outcome.outcome.cached);
    assert_string_equal(workbench_text(bench), "one two three");
    assert_string_equal(bench->outcome.outcome.worker, "w-ok");
    assert_float_equal(timing()->cost_usd, 0, 0);
    assert_int_equal(http_server_requests(bench->server), 1);
    workbench_wait_event(bench, ".cached");
    work.cache = "off";
    workbench_run(bench, &work, "m-ok", SUB_DONE);
    assert_int_equal(http_server_requests(bench->server), 2);
    work.cache = "";
    work.temperature = 0.5;
    workbench_run(bench, &work, "m-ok", SUB_DONE);
    workbench_run(bench, &work, "m-ok", SUB_DONE);
    assert_int_equal(http_server_requests(bench->server), 4);
}

static void equal_calls_in_flight_are_joined(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-hold");
    struct msg_work work = workbench_work();
    work.cache = "on";
    char first[TASK_ID_SIZE];
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "m-hold", false);
    workbench_wait_requests(bench, 1);
    snprintf(first, sizeof first, "%s", bench->task);
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "m-hold", false);
    assert_true(workbench_reaches(bench, SUB_RUNNING));
    http_server_release(bench->server);
    assert_true(workbench_reaches(bench, SUB_DONE));
    assert_true(timing()->cached);
    assert_string_equal(workbench_text(bench), "one two three");
    assert_int_equal(http_server_requests(bench->server), 1);
    snprintf(bench->task, sizeof bench->task, "%s", first);
    assert_true(workbench_reaches(bench, SUB_DONE));
    assert_false(timing()->cached);
}

static void when_the_call_of_an_owner_is_cancelled_the_next_one_makes_it(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-hold");
    struct msg_work work = workbench_work();
    work.cache = "on";
    char first[TASK_ID_SIZE];
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "m-hold", false);
    workbench_wait_requests(bench, 1);
    snprintf(first, sizeof first, "%s", bench->task);
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "m-hold", false);
    assert_true(workbench_reaches(bench, SUB_RUNNING));
    queue_cancel(bench->queue, first, workbench_answered, bench);
    assert_int_equal(workbench_answer(bench), QUEUE_OK);
    struct message message = {.type = MESSAGE_cancel, .cancel = {.task = first, .sub = ""}};
    peer_send(bench->peer, 0, &message);
    workbench_wait_requests(bench, 2);
    http_server_release(bench->server);
    assert_true(workbench_reaches(bench, SUB_DONE));
    assert_false(timing()->cached);
}

/* --- the served model ---------------------------------------------------------------------------
 */

static void another_model_is_an_event_and_where_it_is_strict_an_error(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-other");
    run("m-other", SUB_DONE);
    assert_true(timing()->model_mismatch);
    workbench_wait_event(bench, ".mismatch");
    workbench_wait_event(bench, "test-model was asked for, and another-model answered");
    run("m-alias", SUB_DONE);
    assert_false(timing()->model_mismatch);
    run("m-strict", SUB_DELAYED);
    assert_string_equal(bench->error_class, "bad_response");
    assert_non_null(strstr(bench->reason, "another-model"));
    assert_int_equal(bench->outcome.type, MESSAGE_NONE);
}

/* --- kinds of calls -----------------------------------------------------------------------------
 */

static void texts_are_embedded(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-vec");
    struct msg_work work = work_of("embed");
    work.inputs = text("[\"first text\", \"second text\"]");
    workbench_run(bench, &work, "m-vec", SUB_DONE);
    assert_string_equal(workbench_text(bench), "[[0.25,-1],[1,0.5]]");
    assert_sent("/embeddings", true);
    assert_sent("second text", true);
    assert_float_equal(timing()->cost_usd, 5e-6, 1e-9);
    workbench_run(bench, &work, "m-vec", SUB_DONE); /* vectors of a text do not change */
    assert_true(timing()->cached);
    assert_int_equal(http_server_requests(bench->server), 1);
}

static void models_are_listed(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-list");
    struct msg_work work = work_of("list");
    workbench_run(bench, &work, "m-list", SUB_DONE);
    assert_non_null(strstr(workbench_text(bench), "test-model\nother-model"));
    assert_sent("GET ", true);
}

static void a_kind_that_the_provider_lacks_is_refused_with_those_that_have_it(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-claude");
    struct msg_work work = work_of("embed");
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "m-claude", false);
    workbench_wait_event(bench, "embeddings");
    workbench_read(bench);
    assert_string_equal(bench->error_class, "bad_request");
    assert_non_null(strstr(bench->reason, "has no embeddings"));
    assert_non_null(strstr(bench->reason, "openai"));
    assert_int_equal(http_server_requests(bench->server), 0);
}

static void what_a_model_refuses_is_not_sent(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-ok");
    struct msg_work work = workbench_work();
    work.system = text("be brief");
    work.temperature = 0.5;
    work.max_tokens = 77;
    work.has_seed = true;
    work.seed = 42;
    work.json_schema = text("{\"type\":\"object\"}");
    workbench_run(bench, &work, "m-shy", SUB_DONE);
    assert_sent("temperature", false);
    assert_sent("stream_options", false);
    assert_sent("max_tokens", false);
    assert_sent("max_completion_tokens", false);
    assert_sent("\"system\"", false);
    assert_sent("be brief", true);
    assert_sent("response_format", false);
    assert_sent("follows this JSON schema", true);
    assert_sent("\"seed\":42", true);
    work.images = text("[{\"url\":\"https://example.org/a.png\"}]");
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "m-shy", false);
    workbench_wait_event(bench, "reads no images");
}

/* --- search -------------------------------------------------------------------------------------
 */

static void a_search_comes_before_the_call_and_its_sources_after_the_answer(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-web");
    run("m-web", SUB_DONE);
    assert_int_equal(http_server_requests(bench->server), 2);
    assert_sent("A snippet of the page", true);
    assert_non_null(strstr(workbench_text(bench), "one two three"));
    assert_non_null(
        strstr(workbench_text(bench), "Sources:\n[1] A title: https://example.org/page"));
    assert_non_null(strstr(bench->outcome.outcome.citations.data, "https://example.org/page"));
    assert_string_equal(bench->outcome.outcome.note, "");
    assert_true(timing()->search_ms >= 0);
    assert_string_equal(timing()->provider, "web");
}

static void a_search_that_fails_leaves_the_plain_call_and_says_so(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-dark");
    run("m-dark", SUB_DONE);
    assert_string_equal(workbench_text(bench), "one two three");
    assert_non_null(strstr(bench->outcome.outcome.note, "web search failed: "));
    assert_non_null(strstr(bench->outcome.outcome.note, "answered without it"));
    assert_int_equal(bench->outcome.outcome.citations.len, 0);
}

/* --- hedges -------------------------------------------------------------------------------------
 */

static void the_loser_of_a_hedge_is_stopped_and_its_cost_counted(void **state)
{
    (void)state;
    workbench_start_worker(bench, "w-hold");
    workbench_start_worker(bench, "w-ok");
    struct msg_work work = workbench_work();
    struct queue_spend budget = {.nano_usd = 1000000000};
    workbench_submit(bench, &work, &budget);
    workbench_offer(bench, "m-hold", false);
    workbench_wait_requests(bench, 1);
    workbench_offer(bench, "m-ok", true);
    assert_true(workbench_reaches(bench, SUB_DONE));
    assert_true(timing()->hedge);
    assert_string_equal(timing()->arm, "m-ok@ok");
    int64_t winner = bench->spent.nano_usd;
    struct message message = {.type = MESSAGE_cancel, .cancel = {.task = bench->task, .sub = "a"}};
    peer_send(bench->peer, 0, &message); /* what the orchestrator does once one has won */
    for (int i = 0; i < 2000 && (bench->held.nano_usd > 0 || bench->spent.nano_usd <= winner);
         i++) {
        bool never = false;
        loop_run_until(&bench->loop, &never, 5);
        workbench_read(bench);
    }
    assert_int_equal(bench->held.nano_usd, 0);
    assert_true(bench->spent.nano_usd >= 4096 * 10000); /* nobody knows better */
    assert_true(http_server_wait_hangups(bench->server, 1));
}

#define GOVERNED_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        GOVERNED_TEST(a_dispatch_that_would_wait_for_long_is_declined),
        GOVERNED_TEST(what_two_workers_are_sent_beyond_their_limit_is_declined_with_the_reason),
        GOVERNED_TEST(credit_is_held_back_while_the_limits_have_no_room),
        GOVERNED_TEST(a_server_that_says_that_nothing_is_left_is_believed),
        GOVERNED_TEST(a_key_that_is_refused_leaves_the_pool),
        GOVERNED_TEST(without_a_key_left_all_arms_pause_until_the_key_is_put_right),
        GOVERNED_TEST(an_arm_with_an_open_breaker_pauses_and_comes_back),
        GOVERNED_TEST(a_call_that_no_budget_has_room_for_is_never_made),
        GOVERNED_TEST(what_a_call_has_cost_is_settled_and_the_rest_is_free_again),
        GOVERNED_TEST(what_nobody_has_counted_costs_what_was_reserved),
        GOVERNED_TEST(a_call_that_broke_costs_what_was_reserved),
        GOVERNED_TEST(a_call_that_was_refused_costs_nothing),
        GOVERNED_TEST(an_answer_of_before_a_kill_costs_what_it_has_cost),
        GOVERNED_TEST(a_kill_after_the_reservation_costs_what_was_reserved),
        GOVERNED_TEST(a_roles_budget_in_a_task_counts),
        GOVERNED_TEST(an_equal_call_is_answered_from_the_cache),
        GOVERNED_TEST(equal_calls_in_flight_are_joined),
        GOVERNED_TEST(when_the_call_of_an_owner_is_cancelled_the_next_one_makes_it),
        GOVERNED_TEST(another_model_is_an_event_and_where_it_is_strict_an_error),
        GOVERNED_TEST(texts_are_embedded),
        GOVERNED_TEST(models_are_listed),
        GOVERNED_TEST(a_kind_that_the_provider_lacks_is_refused_with_those_that_have_it),
        GOVERNED_TEST(what_a_model_refuses_is_not_sent),
        GOVERNED_TEST(a_search_comes_before_the_call_and_its_sources_after_the_answer),
        GOVERNED_TEST(a_search_that_fails_leaves_the_plain_call_and_says_so),
        GOVERNED_TEST(the_loser_of_a_hedge_is_stopped_and_its_cost_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
