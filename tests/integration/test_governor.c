/* Limits, keys and breakers that several workers share through a real Redis. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/governor.h"
#include "common/governor_internal.h"
#include "tests/lib/fixture.h"

#define WAIT_MS 30000
#define NODES 4
#define ARM "sonnet@claude"
#define GRANTS_MAX 20000

/* A worker of its own: its connection, its governor, and what it was told. */
struct node {
    struct queue *queue;
    struct governor *governor;
    bool up, answered;
    struct governor_permit permit; /* the last answer */
    int n_answers, n_granted;
    bool open; /* the arm, by the last change */
    int changes[4];
    char what[64], text[256];
};

static struct fixture fixture;
static uv_loop_t loop;
static struct node nodes[NODES];
static const char *const two_keys[] = {"aaaa", "bbbb"};
static const char *const one_arm[] = {ARM};

static const struct governor_report well = {
    .class_ = CLASS_NONE,
    .called = true,
    .tokens = -1,
    .retry_after_ms = -1,
    .server = {-1, -1, -1, -1, -1, -1},
};

static int setup(void **state)
{
    (void)state;
    memset(nodes, 0, sizeof nodes);
    fixture_init(&fixture);
    fixture_redis_start(&fixture);
    loop_init(&loop);
    return 0;
}

static void node_close(struct node *node)
{
    governor_close(&node->governor);
    queue_close(&node->queue);
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        node_close(&nodes[i]);
    loop_finish(&loop);
    fixture_release(&fixture);
    return 0;
}

static void on_up(void *ctx)
{
    ((struct node *)ctx)->up = true;
}

static void on_change(void *ctx, enum governor_change change, const char *what, const char *text)
{
    struct node *node = ctx;
    node->changes[change]++;
    if (change == GOVERNOR_ARM_OPEN || change == GOVERNOR_ARM_CLOSED)
        node->open = change == GOVERNOR_ARM_OPEN;
    snprintf(node->what, sizeof node->what, "%s", what);
    snprintf(node->text, sizeof node->text, "%s", text);
}

static void turns(int n)
{
    while (n-- > 0)
        uv_run(&loop, UV_RUN_NOWAIT);
}

/* Runs the loop until fn is true of the node. */
static void until_at(bool (*fn)(const struct node *node), const struct node *node, int line)
{
    int64_t end = clock_ms() + WAIT_MS;
    while (!fn(node)) {
        if (clock_ms() >= end)
            fail_msg("what is waited for in line %d does not happen", line);
        bool never = false;
        loop_run_until(&loop, &never, 2);
    }
}
#define until(fn, node) until_at(fn, node, __LINE__)

static void ping_answered(void *ctx, const struct redis_value *value)
{
    (void)value;
    *(bool *)ctx = true;
}

/* What was sent before is done now. */
static void settle_down(struct node *node)
{
    bool done = false;
    turns(2);
    redis_simple(queue_redis(node->queue), ping_answered, &done, "PING");
    assert_int_equal(loop_run_until(&loop, &done, WAIT_MS), 0);
}

static void node_open(int i, const struct governor_options *options)
{
    struct node *node = &nodes[i];
    struct redis_options redis = fixture_redis_options(&fixture);
    struct redis_callbacks up = {on_up, NULL};
    struct governor_callbacks callbacks = {on_change};
    struct governor_options mine = *options;
    struct err err = {""};
    char name[16];
    snprintf(name, sizeof name, "w%d", i);
    mine.provider = "p";
    mine.worker = name;
    if (mine.arms == NULL) {
        mine.arms = one_arm;
        mine.n_arms = 1;
    }
    assert_int_equal(queue_open(&node->queue, &loop, &redis, &up, node, &err), 0);
    assert_int_equal(
        governor_open(&node->governor, &loop, node->queue, &mine, &callbacks, node, &err), 0);
    assert_int_equal(loop_run_until(&loop, &node->up, WAIT_MS), 0);
}

static void answered(void *ctx, const struct governor_permit *permit)
{
    struct node *node = ctx;
    node->permit = *permit;
    node->answered = true;
    node->n_answers++;
    node->n_granted += permit->verdict == GOVERNOR_GRANTED;
}

static struct governor_permit ask(int i, const char *arm, int64_t tokens)
{
    nodes[i].answered = false;
    governor_acquire(nodes[i].governor, arm, tokens, answered, &nodes[i]);
    assert_int_equal(loop_run_until(&loop, &nodes[i].answered, WAIT_MS), 0);
    return nodes[i].permit;
}

static struct governor_permit granted(int i)
{
    struct governor_permit permit = ask(i, ARM, 0);
    assert_int_equal(permit.verdict, GOVERNOR_GRANTED);
    return permit;
}

static void settle(int i, const struct governor_permit *permit, enum error_class class_,
                   int64_t retry_after_ms)
{
    struct governor_report report = well;
    report.class_ = class_;
    report.retry_after_ms = retry_after_ms;
    governor_settle(nodes[i].governor, permit, ARM, &report);
    settle_down(&nodes[i]);
}

/* Asks until the answer is another one. */
static struct governor_permit ask_past(int i, enum governor_verdict verdict)
{
    int64_t end = clock_ms() + WAIT_MS;
    for (;;) {
        struct governor_permit permit = ask(i, ARM, 0);
        if (permit.verdict != verdict)
            return permit;
        assert_true(clock_ms() < end);
        bool never = false;
        loop_run_until(&loop, &never, permit.delay_ms < 50 ? permit.delay_ms : 50);
    }
}

static bool command_answered;
static char command_text[8192];
static void command_done(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    snprintf(command_text, sizeof command_text, "%s", redis_str(value, NULL));
    command_answered = true;
}

static const char *command(const char *words)
{
    command_answered = false;
    redis_simple(queue_redis(nodes[0].queue), command_done, NULL, words);
    assert_int_equal(loop_run_until(&loop, &command_answered, WAIT_MS), 0);
    return command_text;
}

/* --- without limits ----------------------------------------------------------------------- */

static bool at_once(const struct node *node)
{
    struct node *asker = (struct node *)(uintptr_t)node;
    asker->answered = false;
    governor_acquire(asker->governor, ARM, 0, answered, asker);
    bool at_once = asker->answered;
    assert_int_equal(loop_run_until(&loop, &asker->answered, WAIT_MS), 0);
    governor_settle(asker->governor, &asker->permit, ARM, &well);
    return at_once;
}

/* It has heard that something is wrong, so it asks Redis. */
static bool is_wary(const struct node *node)
{
    return !at_once(node);
}

static void without_limits_a_permit_costs_no_command(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.keys = two_keys, .n_keys = 2});
    until(at_once, &nodes[0]);
    settle_down(&nodes[0]);
    size_t places[2] = {0};
    for (int i = 0; i < 10; i++) {
        assert_true(at_once(&nodes[0]));
        places[nodes[0].permit.key]++;
        assert_int_equal(redis_pending(queue_redis(nodes[0].queue)), 0);
    }
    turns(3);
    assert_int_equal(redis_pending(queue_redis(nodes[0].queue)), 0);
    assert_int_equal(places[0], 5);
    int64_t delay_ms;
    assert_true(governor_room(nodes[0].governor, &delay_ms) == INT64_MAX && delay_ms == 0);
}

static void without_keys_a_provider_that_asks_to_wait_is_left_alone(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){0});
    node_open(1, &(struct governor_options){0});
    until(at_once, &nodes[0]);
    until(at_once, &nodes[1]);
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_RATE_LIMITED, 3000);
    until(is_wary, &nodes[1]);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_WAIT);
    assert_true(nodes[1].permit.delay_ms > 0 && nodes[1].permit.delay_ms <= 3000);
    assert_string_equal(nodes[1].permit.reason, "the provider asked to wait");
    int64_t delay_ms;
    assert_int_equal(governor_room(nodes[1].governor, &delay_ms), 0);
    assert_true(delay_ms > 0 && delay_ms <= 3000);
    assert_int_equal(ask_past(1, GOVERNOR_WAIT).verdict, GOVERNOR_GRANTED);
}

/* --- windows ------------------------------------------------------------------------------ */

/* The moment of a permit lies between asking and being answered. Everything is judged by what is
 * certain: too many, when all of them lie within one window for sure; too few, when somebody had to
 * wait although even all that may lie in the last window are fewer than the limit. */
struct drive {
    int64_t limit;
    double window_ms, end_ms;
    bool tokens; /* count these, not requests */
    bool done;
    int64_t waits;
    size_t n;
    struct {
        double asked_ms, answered_ms;
        int64_t amount;
    } grants[GRANTS_MAX];
};
static struct drive drive;

struct driver {
    int node;
    bool asks; /* it may have been granted already, but not been told yet */
    double asked_ms;
    int64_t amount;
    struct loop_timer *timer;
};
static struct driver drivers[NODES];

static void drive_ask(void *ctx);

static void check_wait(const struct driver *driver, double now)
{
    int64_t most = driver->amount;
    for (int i = 0; i < NODES; i++)
        most += drivers[i].asks ? drivers[i].amount : 0;
    for (size_t i = 0; i < drive.n; i++)
        if (drive.grants[i].answered_ms >= driver->asked_ms - drive.window_ms * 1.005 &&
            drive.grants[i].asked_ms <= now)
            most += drive.grants[i].amount;
    assert_true(most > drive.limit * 99 / 100);
    drive.waits++;
}

static void drive_answered(void *ctx, const struct governor_permit *permit)
{
    struct driver *driver = ctx;
    double now = clock_ms_f();
    driver->asks = false;
    if (now > drive.end_ms || drive.n == GRANTS_MAX) {
        drive.done = true;
        return;
    }
    if (permit->verdict == GOVERNOR_GRANTED) {
        drive.grants[drive.n].asked_ms = driver->asked_ms;
        drive.grants[drive.n].answered_ms = now;
        drive.grants[drive.n++].amount = driver->amount;
        struct governor_report report = well;
        report.tokens = drive.tokens ? driver->amount : -1;
        governor_settle(nodes[driver->node].governor, permit, ARM, &report);
        drive_ask(driver);
        return;
    }
    assert_int_equal(permit->verdict, GOVERNOR_WAIT);
    assert_true(permit->delay_ms <= (int64_t)(drive.window_ms * 1.01) + 1);
    check_wait(driver, now);
    loop_timer_start(driver->timer, permit->delay_ms, 0);
}

static void drive_ask(void *ctx)
{
    struct driver *driver = ctx;
    driver->amount = drive.tokens ? 1 + rand() % 40 : 1;
    driver->asked_ms = clock_ms_f();
    driver->asks = true;
    governor_acquire(nodes[driver->node].governor, ARM, driver->amount, drive_answered, driver);
}

/* All nodes ask as often as they may, for so many windows. */
static void drive_all(int64_t limit, bool tokens, int64_t window_ms, int windows)
{
    drive = (struct drive){.limit = limit, .window_ms = (double)window_ms, .tokens = tokens};
    struct governor_options options = {.window_ms = window_ms};
    if (tokens)
        options.limits.tokens_per_minute = limit;
    else
        options.limits.requests_per_minute = limit;
    for (int i = 0; i < NODES; i++)
        node_open(i, &options);
    drive.end_ms = clock_ms_f() + (double)(window_ms * windows);
    for (int i = 0; i < NODES; i++) {
        drivers[i] =
            (struct driver){.node = i, .timer = loop_timer_new(&loop, drive_ask, &drivers[i])};
        drive_ask(&drivers[i]);
    }
    assert_int_equal(loop_run_until(&loop, &drive.done, WAIT_MS), 0);
    for (int i = 0; i < NODES; i++) {
        governor_forget(nodes[i].governor, &drivers[i]);
        loop_timer_free(&drivers[i].timer);
    }
}

static void check_never_too_many(void)
{
    for (size_t i = 0; i < drive.n; i++) {
        int64_t sum = 0;
        for (size_t j = 0; j < drive.n; j++)
            if (drive.grants[j].asked_ms >= drive.grants[i].asked_ms &&
                drive.grants[j].answered_ms < drive.grants[i].asked_ms + drive.window_ms)
                sum += drive.grants[j].amount;
        assert_true(sum <= drive.limit);
    }
}

static void four_workers_use_all_requests_of_a_window_and_never_more(void **state)
{
    (void)state;
    drive_all(200, false, 700, 5);
    check_never_too_many();
    assert_true(drive.n >= 400 && drive.waits > 0);
}

static void four_workers_use_all_tokens_of_a_window_and_never_more(void **state)
{
    (void)state;
    drive_all(4000, true, 700, 5);
    check_never_too_many();
    assert_true(drive.n >= 200 && drive.waits > 0);
}

static void acquires_of_one_turn_are_one_script_call(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.requests_per_minute = 30}});
    granted(0);
    settle_down(&nodes[0]);
    command("CONFIG RESETSTAT");
    nodes[0].n_answers = nodes[0].n_granted = 0;
    for (int i = 0; i < 50; i++)
        governor_acquire(nodes[0].governor, ARM, 0, answered, &nodes[0]);
    settle_down(&nodes[0]);
    assert_int_equal(nodes[0].n_answers, 50);
    assert_int_equal(nodes[0].n_granted, 29);
    assert_non_null(strstr(command("INFO commandstats"), "cmdstat_evalsha:calls=1,"));
    int64_t delay_ms;
    assert_int_equal(governor_room(nodes[0].governor, &delay_ms), 0);
    assert_true(delay_ms > 0 && delay_ms <= 60200);
    assert_string_equal(nodes[0].permit.reason, "the provider's requests per minute are used up");
}

static void more_acquires_than_a_turn_takes_are_all_answered(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.requests_per_minute = 1000}});
    for (int i = 0; i < 1100; i++)
        governor_acquire(nodes[0].governor, ARM, 0, answered, &nodes[0]);
    settle_down(&nodes[0]);
    assert_int_equal(nodes[0].n_answers, 1100);
    assert_int_equal(nodes[0].n_granted, 1000);
}

static void the_room_counts_what_others_took(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        node_open(i, &(struct governor_options){.limits = {.requests_per_minute = 10}});
    for (int i = 0; i < 4; i++)
        granted(0);
    assert_int_equal(granted(1).room, 5);
    int64_t delay_ms;
    assert_int_equal(governor_room(nodes[1].governor, &delay_ms), 5);
}

static void the_limit_of_each_key_and_of_the_provider_both_hold(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.keys = two_keys,
                                            .n_keys = 2,
                                            .limits = {.requests_per_minute = 8},
                                            .key_limits = {.requests_per_minute = 5}});
    size_t places[2] = {0};
    struct governor_permit permit;
    while ((permit = ask(0, ARM, 0)).verdict == GOVERNOR_GRANTED)
        places[permit.key]++;
    assert_int_equal(places[0] + places[1], 8);
    assert_true(places[0] == 4 && places[1] == 4);
}

static void a_key_at_its_limit_is_passed_over(void **state)
{
    (void)state;
    struct governor_options one = {
        .keys = two_keys, .n_keys = 1, .key_limits = {.requests_per_minute = 3}};
    struct governor_options both = one;
    both.n_keys = 2;
    node_open(0, &one);
    node_open(1, &both);
    for (int i = 0; i < 3; i++)
        granted(0);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
    for (int i = 0; i < 3; i++)
        assert_int_equal(granted(1).key, 1);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_WAIT);
}

static void a_permit_of_a_call_that_was_not_made_is_given_back(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){
                     .limits = {.requests_per_minute = 2, .tokens_per_minute = 100}});
    struct governor_permit permits[2] = {ask(0, ARM, 50), ask(0, ARM, 50)};
    assert_int_equal(ask(0, ARM, 50).verdict, GOVERNOR_WAIT);
    struct governor_report unused = well;
    unused.called = false;
    governor_settle(nodes[0].governor, &permits[0], ARM, &unused);
    assert_int_equal(ask(0, ARM, 50).verdict, GOVERNOR_GRANTED);
    assert_int_equal(ask(0, ARM, 50).verdict, GOVERNOR_WAIT);
}

static void a_permit_that_is_settled_twice_is_given_back_once(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.requests_per_minute = 3}});
    struct governor_permit permit = granted(0);
    granted(0);
    granted(0);
    struct governor_report unused = well;
    unused.called = false;
    governor_settle(nodes[0].governor, &permit, ARM, &unused);
    governor_settle(nodes[0].governor, &permit, ARM, &unused);
    granted(0);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
}

static void tokens_are_corrected_by_what_was_used(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.tokens_per_minute = 1000}});
    struct governor_permit permit = ask(0, ARM, 900);
    assert_int_equal(ask(0, ARM, 200).verdict, GOVERNOR_WAIT);
    struct governor_report report = well;
    report.tokens = 100;
    governor_settle(nodes[0].governor, &permit, ARM, &report);
    permit = ask(0, ARM, 900);
    assert_int_equal(permit.verdict, GOVERNOR_GRANTED);
    assert_int_equal(ask(0, ARM, 1).verdict, GOVERNOR_WAIT);
    report.tokens = 950;
    governor_settle(nodes[0].governor, &permit, ARM, &report);
    settle_down(&nodes[0]);
    assert_string_equal(command("HGET orch:{l:p}:window tokens"), "1050");
}

static void a_correction_leaves_the_window_with_what_it_corrects(void **state)
{
    (void)state;
    node_open(0,
              &(struct governor_options){.limits = {.tokens_per_minute = 1000}, .window_ms = 2000});
    struct governor_permit permit = ask(0, ARM, 900);
    bool never = false;
    loop_run_until(&loop, &never, 1000);
    struct governor_report report = well;
    report.tokens = 100;
    governor_settle(nodes[0].governor, &permit, ARM, &report);
    while ((permit = ask(0, ARM, 1000)).verdict == GOVERNOR_WAIT)
        loop_run_until(&loop, &never, permit.delay_ms);
    assert_int_equal(ask(0, ARM, 1).verdict, GOVERNOR_WAIT);
}

static void calls_without_a_figure_are_charged_the_average(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.tokens_per_minute = 100000}});
    struct governor_permit permit = ask(0, ARM, 500);
    struct governor_report report = well;
    report.tokens = 300;
    governor_settle(nodes[0].governor, &permit, ARM, &report);
    granted(0);
    assert_string_equal(command("HGET orch:{l:p}:window tokens"), "600");
    assert_int_equal(nodes[0].permit.room, (100000 - 600) / 300);
}

static void a_call_larger_than_the_limit_gets_a_window_of_its_own(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.tokens_per_minute = 1000}});
    assert_int_equal(ask(0, ARM, 5000).verdict, GOVERNOR_GRANTED);
    assert_int_equal(ask(0, ARM, 1).verdict, GOVERNOR_WAIT);
}

static void an_idle_window_begins_anew(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.requests_per_minute = 2}, .window_ms = 60});
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask_past(0, GOVERNOR_WAIT).verdict, GOVERNOR_GRANTED);
        bool never = false;
        loop_run_until(&loop, &never, 150);
        granted(0);
    }
}

/* --- calls at once ------------------------------------------------------------------------ */

static void calls_at_once_are_limited_over_all_workers(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        node_open(i, &(struct governor_options){.limits = {.concurrency = 3}});
    struct governor_permit first = granted(0);
    granted(0);
    assert_int_equal(granted(1).room, 0);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_WAIT);
    settle(0, &first, CLASS_NONE, -1);
    granted(1);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
}

static void calls_at_once_are_limited_for_each_key(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){
                     .keys = two_keys, .n_keys = 2, .key_limits = {.concurrency = 2}});
    struct governor_permit permits[4];
    for (int i = 0; i < 4; i++)
        permits[i] = granted(0);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
    governor_settle(nodes[0].governor, &permits[2], ARM, &well);
    assert_int_equal(granted(0).key, permits[2].key);
}

/* In a process of its own: takes a permit, says so, and waits for its end. */
static void child_worker(int fd, const struct governor_options *options)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    loop_init(&loop);
    memset(nodes, 0, sizeof nodes);
    node_open(0, options);
    struct governor_permit permit = ask(0, ARM, 0);
    char byte = permit.verdict == GOVERNOR_GRANTED ? 'y' : 'n';
    if (write(fd, &byte, 1) != 1)
        _exit(1);
    uv_run(&loop, UV_RUN_DEFAULT);
    _exit(0);
}

static void the_permit_of_a_killed_worker_expires_and_that_of_a_living_one_does_not(void **state)
{
    (void)state;
    const struct governor_options options = {.limits = {.concurrency = 1}, .lease_ms = 1500};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0)
        child_worker(ends[1], &options);
    char byte = 0;
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    node_open(1, &options);
    int64_t end = clock_ms() + 2000; /* longer than the lease */
    while (clock_ms() < end) {
        assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_WAIT);
        bool never = false;
        loop_run_until(&loop, &never, 100);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_WAIT);
    assert_int_equal(ask_past(1, GOVERNOR_WAIT).verdict, GOVERNOR_GRANTED);
    close(ends[0]);
    close(ends[1]);
}

static void a_worker_that_ends_lets_its_permits_go(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        node_open(i, &(struct governor_options){.limits = {.concurrency = 1}});
    granted(0);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_WAIT);
    governor_close(&nodes[0].governor);
    settle_down(&nodes[0]);
    granted(1);
}

/* --- keys --------------------------------------------------------------------------------- */

static bool key_is_out(const struct node *node)
{
    return node->changes[GOVERNOR_KEY_OUT] > node->changes[GOVERNOR_KEY_BACK];
}
static bool key_is_back(const struct node *node)
{
    return node->changes[GOVERNOR_KEY_OUT] <= node->changes[GOVERNOR_KEY_BACK];
}

static void open_two(const struct governor_options *options)
{
    for (int i = 0; i < 2; i++) {
        node_open(i, options);
        ask(i, ARM, 0);
        governor_settle(nodes[i].governor, &nodes[i].permit, ARM, &well);
    }
    until(at_once, &nodes[0]);
    until(at_once, &nodes[1]);
}

static void a_key_that_is_refused_is_out_for_all_workers_until_the_keys_are_read_again(void **state)
{
    (void)state;
    open_two(&(struct governor_options){.keys = two_keys, .n_keys = 2});
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_AUTH, -1);
    until(key_is_out, &nodes[0]);
    until(key_is_out, &nodes[1]);
    assert_string_equal(nodes[1].what, two_keys[permit.key]);
    assert_non_null(strstr(nodes[1].text, "refuses the key"));
    for (int i = 0; i < 4; i++)
        assert_int_equal(granted(1).key, 1 - permit.key);
    permit = granted(1);
    settle(1, &permit, CLASS_AUTH, -1);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_NO_KEY);
    assert_true(nodes[0].permit.delay_ms > 0);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_NO_KEY);
    governor_set_keys(nodes[0].governor, two_keys, 2);
    until(key_is_back, &nodes[0]);
    until(key_is_back, &nodes[1]);
    granted(0);
    granted(1);
    assert_int_equal(nodes[1].changes[GOVERNOR_KEY_OUT], 2);
}

static void a_new_key_takes_the_place_of_one_that_is_out(void **state)
{
    (void)state;
    static const char *const other[] = {"cccc"};
    open_two(&(struct governor_options){.keys = two_keys, .n_keys = 1});
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_AUTH, -1);
    until(key_is_out, &nodes[1]);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_NO_KEY);
    governor_set_keys(nodes[1].governor, other, 1);
    assert_int_equal(granted(1).key, 0);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_NO_KEY);
}

static void a_key_without_quota_is_out_for_as_long_as_the_server_says(void **state)
{
    (void)state;
    open_two(&(struct governor_options){.keys = two_keys, .n_keys = 1});
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_QUOTA, 3000);
    until(key_is_out, &nodes[1]);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_NO_KEY);
    assert_true(nodes[0].permit.delay_ms > 0 && nodes[0].permit.delay_ms <= 3000);
    until(key_is_back, &nodes[0]);
    until(key_is_back, &nodes[1]);
    granted(1);
}

static void a_key_without_quota_is_out_for_an_hour_when_nothing_is_said(void **state)
{
    (void)state;
    open_two(&(struct governor_options){.keys = two_keys, .n_keys = 1});
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_QUOTA, -1);
    until(key_is_out, &nodes[1]);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_NO_KEY);
    governor_set_keys(nodes[0].governor, two_keys, 1);
    until(key_is_back, &nodes[1]);
    granted(1);
}

static void a_rate_limited_key_is_blocked_for_all_workers(void **state)
{
    (void)state;
    open_two(&(struct governor_options){.keys = two_keys, .n_keys = 2});
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_RATE_LIMITED, 3000);
    until(is_wary, &nodes[1]);
    for (int i = 0; i < 4; i++)
        assert_int_equal(granted(1).key, 1 - permit.key);
    struct governor_permit other = granted(1);
    settle(1, &other, CLASS_RATE_LIMITED, 60000);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
    assert_true(nodes[0].permit.delay_ms <= 3000);
    assert_int_equal(ask_past(0, GOVERNOR_WAIT).key, permit.key);
    assert_int_equal(nodes[0].changes[GOVERNOR_KEY_OUT], 0);
}

static void settling_twice_counts_a_failure_once(void **state)
{
    (void)state;
    open_two(&(struct governor_options){.breaker_failures = 2, .breaker_open_ms = 60000});
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_TIMEOUT, -1);
    settle(0, &permit, CLASS_TIMEOUT, -1);
    granted(0);
    assert_int_equal(nodes[0].changes[GOVERNOR_ARM_OPEN], 0);
}

/* --- what servers say --------------------------------------------------------------------- */

static void settle_server(int i, const struct governor_permit *permit,
                          const struct governor_server *server)
{
    struct governor_report report = well;
    report.server = *server;
    governor_settle(nodes[i].governor, permit, ARM, &report);
    settle_down(&nodes[i]);
}

static void a_server_that_has_nothing_left_is_left_alone_until_its_reset(void **state)
{
    (void)state;
    open_two(&(struct governor_options){0});
    struct governor_permit permit = granted(0);
    settle_server(0, &permit, &(struct governor_server){50, 0, 3000, -1, -1, -1});
    until(is_wary, &nodes[1]);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_WAIT);
    assert_true(nodes[1].permit.delay_ms <= 3000);
    assert_int_equal(ask_past(1, GOVERNOR_WAIT).verdict, GOVERNOR_GRANTED);
}

static void a_server_that_has_less_left_lowers_the_room_and_never_raises_it(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        node_open(i, &(struct governor_options){.limits = {.requests_per_minute = 10}});
    struct governor_permit permit = granted(0);
    settle_server(0, &permit, &(struct governor_server){100, 3, 60000, -1, -1, -1});
    permit = granted(1);
    assert_int_equal(permit.room, 2);
    settle_server(1, &permit, &(struct governor_server){100, 90, 60000, -1, -1, -1});
    assert_int_equal(granted(0).room, 7);
    permit = granted(0);
    settle_server(0, &permit, &(struct governor_server){100, 1, 60000, -1, -1, -1});
    granted(1);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_WAIT);
    assert_string_equal(nodes[1].permit.reason, "the provider says that its limit is reached");
}

static void a_server_that_has_few_tokens_left_takes_only_small_calls(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.tokens_per_minute = 10000}});
    struct governor_permit permit = ask(0, ARM, 100);
    settle_server(0, &permit, &(struct governor_server){-1, -1, -1, 10000, 500, 60000});
    assert_int_equal(ask(0, ARM, 600).verdict, GOVERNOR_WAIT);
    assert_int_equal(ask(0, ARM, 400).verdict, GOVERNOR_GRANTED);
    assert_int_equal(ask(0, ARM, 200).verdict, GOVERNOR_WAIT);
}

static void hostile_figures_of_a_server_do_no_harm(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){
                     .limits = {.requests_per_minute = 10, .tokens_per_minute = 100000}});
    struct governor_permit permit = granted(0);
    struct governor_report report = well;
    report.class_ = CLASS_RATE_LIMITED;
    report.tokens = INT64_MAX;
    report.retry_after_ms = INT64_MAX;
    report.server =
        (struct governor_server){INT64_MAX, INT64_MAX, INT64_MAX, INT64_MIN, INT64_MIN, INT64_MIN};
    governor_settle(nodes[0].governor, &permit, ARM, &report);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
    assert_true(nodes[0].permit.delay_ms > 0 && nodes[0].permit.delay_ms <= 86400000);
}

/* --- breakers ----------------------------------------------------------------------------- */

static bool arm_open(const struct node *node)
{
    return node->open;
}
static bool arm_closed(const struct node *node)
{
    return !node->open;
}
static bool arm_opened_twice(const struct node *node)
{
    return node->changes[GOVERNOR_ARM_OPEN] == 2;
}

static const struct governor_options breaking = {.breaker_failures = 3, .breaker_open_ms = 700};

static void fail_calls(int i, int n)
{
    while (n-- > 0) {
        struct governor_permit permit = granted(i);
        settle(i, &permit, n % 2 == 0 ? CLASS_OVERLOADED : CLASS_TIMEOUT, -1);
    }
}

static void a_breaker_opens_for_all_workers_and_a_good_probe_closes_it(void **state)
{
    (void)state;
    open_two(&breaking);
    fail_calls(0, 2);
    fail_calls(1, 1);
    until(arm_open, &nodes[0]);
    until(arm_open, &nodes[1]);
    assert_string_equal(nodes[1].what, ARM);
    assert_non_null(strstr(nodes[1].text, "3 failures in a row, the last one overloaded"));
    assert_true(governor_arm_open(nodes[1].governor, ARM));
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_OPEN);
    assert_int_equal(ask(1, "other@claude", 0).verdict, GOVERNOR_GRANTED);
    struct governor_permit probe = ask_past(0, GOVERNOR_OPEN);
    assert_int_equal(probe.verdict, GOVERNOR_GRANTED);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_OPEN);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_OPEN);
    settle(0, &probe, CLASS_NONE, -1);
    until(arm_closed, &nodes[0]);
    until(arm_closed, &nodes[1]);
    granted(0);
    granted(1);
    assert_int_equal(nodes[1].changes[GOVERNOR_ARM_OPEN], 1);
}

static void a_failed_probe_opens_the_breaker_for_twice_as_long(void **state)
{
    (void)state;
    open_two(&breaking);
    fail_calls(0, 3);
    until(arm_open, &nodes[0]);
    until(arm_open, &nodes[1]);
    struct governor_permit probe = ask_past(1, GOVERNOR_OPEN);
    settle(1, &probe, CLASS_RETRY, -1);
    until(arm_opened_twice, &nodes[0]);
    until(arm_opened_twice, &nodes[1]);
    assert_non_null(strstr(nodes[0].text, "the probe failed too (retry)"));
    assert_string_equal(command("HGET orch:{l:p}:state a:sonnet@claude"), command_text);
    int64_t trips = 0;
    assert_int_equal(sscanf(command_text, "open 3 %ld", &trips), 1);
    assert_int_equal(trips, 2);
    probe = ask_past(0, GOVERNOR_OPEN);
    settle(0, &probe, CLASS_NONE, -1);
    until(arm_closed, &nodes[1]);
}

static bool arm_asked(const struct node *node)
{
    (void)node;
    return ask(1, ARM, 0).verdict == GOVERNOR_GRANTED;
}

static void a_probe_that_was_not_made_or_says_nothing_lets_another_one_start(void **state)
{
    (void)state;
    open_two(&breaking);
    fail_calls(0, 3);
    until(arm_open, &nodes[0]);
    until(arm_open, &nodes[1]);
    struct governor_permit probe = ask_past(0, GOVERNOR_OPEN);
    struct governor_report unused = well;
    unused.called = false;
    governor_settle(nodes[0].governor, &probe, ARM, &unused);
    until(arm_asked, &nodes[1]);
    settle(1, &nodes[1].permit, CLASS_RATE_LIMITED, 0);
    assert_int_equal(ask_past(0, GOVERNOR_OPEN).verdict, GOVERNOR_GRANTED);
}

static void a_probe_that_is_lost_expires(void **state)
{
    (void)state;
    struct governor_options options = breaking;
    options.lease_ms = 400;
    options.breaker_open_ms = 100;
    open_two(&options);
    fail_calls(1, 3);
    until(arm_open, &nodes[0]);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        loop_init(&loop);
        memset(nodes, 0, sizeof nodes);
        node_open(2, &options);
        char byte = ask_past(2, GOVERNOR_OPEN).verdict == GOVERNOR_GRANTED ? 'y' : 'n';
        _exit(write(ends[1], &byte, 1) == 1 ? 0 : 1);
    }
    char byte = 0;
    assert_int_equal(read(ends[0], &byte, 1), 1);
    waitpid(pid, NULL, 0);
    assert_int_equal(byte, 'y');
    assert_int_equal(ask_past(0, GOVERNOR_OPEN).verdict, GOVERNOR_GRANTED);
    close(ends[0]);
    close(ends[1]);
}

static bool arm_troubled(const struct node *node)
{
    (void)node;
    return strncmp(command("HGET orch:{l:p}:state a:sonnet@claude"), "closed", 6) == 0;
}

static void a_success_in_between_starts_the_count_again(void **state)
{
    (void)state;
    open_two(&breaking);
    fail_calls(0, 2);
    until(arm_troubled, &nodes[0]);
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_BAD_REQUEST, -1);
    assert_string_equal(command("HGET orch:{l:p}:state a:sonnet@claude"), "");
    fail_calls(0, 2);
    granted(0);
    assert_int_equal(nodes[0].changes[GOVERNOR_ARM_OPEN], 0);
}

static void the_success_of_a_call_from_before_does_not_close_a_breaker(void **state)
{
    (void)state;
    open_two(&(struct governor_options){.breaker_failures = 3, .breaker_open_ms = 60000});
    struct governor_permit before = granted(1);
    fail_calls(0, 3);
    until(arm_open, &nodes[1]);
    settle(1, &before, CLASS_NONE, -1);
    assert_int_equal(ask(1, ARM, 0).verdict, GOVERNOR_OPEN);
}

static void a_worker_that_starts_later_knows_what_is_open(void **state)
{
    (void)state;
    const struct governor_options options = {
        .keys = two_keys, .n_keys = 2, .breaker_failures = 3, .breaker_open_ms = 60000};
    open_two(&options);
    fail_calls(0, 3);
    struct governor_permit permit = ask(0, "other@claude", 0);
    settle(0, &permit, CLASS_RATE_LIMITED, 60000);
    node_open(2, &options);
    assert_int_equal(ask(2, ARM, 0).verdict, GOVERNOR_OPEN);
    until(arm_open, &nodes[2]);
    for (int i = 0; i < 4; i++)
        assert_int_equal(ask(2, "other@claude", 0).key, 1 - permit.key);
}

static void a_worker_that_starts_has_read_its_keys_and_tries_them(void **state)
{
    (void)state;
    const struct governor_options options = {.keys = two_keys, .n_keys = 1};
    open_two(&options);
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_AUTH, -1);
    until(key_is_out, &nodes[1]);
    node_open(2, &options);
    until(key_is_back, &nodes[0]);
    until(key_is_back, &nodes[1]);
    granted(2);
}

static void a_provider_without_keys_that_demands_one_is_asked_again(void **state)
{
    (void)state;
    open_two(&(struct governor_options){0});
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_AUTH, -1);
    granted(0);
    granted(1);
    assert_int_equal(nodes[0].changes[GOVERNOR_KEY_OUT], 0);
}

/* --- failures of Redis and of order ------------------------------------------------------- */

static bool is_down(const struct node *node)
{
    return !redis_connected(queue_redis(node->queue));
}

static void without_redis_one_waits_and_afterwards_nothing_is_forgotten(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.requests_per_minute = 3}});
    struct governor_permit permit = granted(0);
    granted(0);
    governor_acquire(nodes[0].governor, ARM, 0, answered, &nodes[0]);
    fixture_redis_kill(&fixture, SIGKILL);
    until(is_down, &nodes[0]);
    nodes[0].answered = false;
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
    assert_true(nodes[0].permit.delay_ms > 0 && nodes[0].permit.delay_ms <= 1000);
    governor_settle(nodes[0].governor, &permit, ARM, &well);
    int answers = nodes[0].n_answers;
    fixture_redis_start(&fixture);
    governor_forget(nodes[0].governor, &nodes[0]);
    while (is_down(&nodes[0]))
        turns(1);
    settle_down(&nodes[0]);
    assert_int_equal(nodes[0].n_answers, answers); /* forgotten: given back */
    granted(0);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
}

static void an_answer_that_is_overdue_is_to_wait_and_the_permit_goes_back(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.requests_per_minute = 2}});
    granted(0);
    kill(fixture.redis_pid, SIGSTOP);
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
    kill(fixture.redis_pid, SIGCONT);
    settle_down(&nodes[0]);
    settle_down(&nodes[0]);
    granted(0);
}

static void what_is_forgotten_is_given_back(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.limits = {.requests_per_minute = 3}});
    for (int i = 0; i < 3; i++)
        governor_acquire(nodes[0].governor, ARM, 0, answered, &nodes[0]);
    governor_forget(nodes[0].governor, &nodes[0]); /* not sent yet */
    turns(1);
    for (int i = 0; i < 3; i++)
        governor_acquire(nodes[0].governor, ARM, 0, answered, &nodes[0]);
    turns(1);
    governor_forget(nodes[0].governor, &nodes[0]); /* sent */
    settle_down(&nodes[0]);
    settle_down(&nodes[0]);
    assert_int_equal(nodes[0].n_answers, 0);
    for (int i = 0; i < 3; i++)
        granted(0);
    governor_forget(nodes[0].governor, &nodes[0]); /* answered: nothing to forget */
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
}

static void close_within(void *ctx, const struct governor_permit *permit)
{
    struct node *node = ctx;
    (void)permit;
    node->n_answers++;
    governor_close(&node->governor);
}

static void it_may_be_closed_with_answers_outstanding_and_within_one(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        node_open(i, &(struct governor_options){.limits = {.requests_per_minute = 5}});
    for (int i = 0; i < 4; i++)
        governor_acquire(nodes[0].governor, ARM, 0, answered, &nodes[0]);
    turns(1);
    governor_close(&nodes[0].governor);
    for (int i = 0; i < 4; i++)
        governor_acquire(nodes[1].governor, ARM, 0, close_within, &nodes[1]);
    settle_down(&nodes[0]);
    settle_down(&nodes[1]);
    settle_down(&nodes[1]);
    settle_down(&nodes[0]);
    assert_int_equal(nodes[0].n_answers, 0);
    assert_int_equal(nodes[1].n_answers, 1);
    for (int i = 0; i < 4; i++) /* the fifth was granted and its call was under way */
        granted(2);
    assert_int_equal(ask(2, ARM, 0).verdict, GOVERNOR_WAIT);
    governor_acquire(nodes[2].governor, ARM, 0, answered, &nodes[2]);
    turns(1);
    node_close(&nodes[2]); /* and the queue at once */
}

static void keys_may_change_while_an_answer_is_outstanding(void **state)
{
    (void)state;
    static const char *const other[] = {"cccc"};
    node_open(0, &(struct governor_options){
                     .keys = two_keys, .n_keys = 2, .limits = {.requests_per_minute = 1}});
    nodes[0].answered = false;
    governor_acquire(nodes[0].governor, ARM, 0, answered, &nodes[0]);
    turns(1);
    governor_set_keys(nodes[0].governor, other, 1);
    assert_int_equal(loop_run_until(&loop, &nodes[0].answered, WAIT_MS), 0);
    assert_int_equal(nodes[0].permit.verdict, GOVERNOR_WAIT);
    assert_int_equal(granted(0).key, 0);
}

static void damaged_state_is_a_wait_or_a_fresh_start(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){
                     .keys = two_keys, .n_keys = 1, .limits = {.requests_per_minute = 2}});
    granted(0);
    command("HSET orch:{l:p}:state k:aaaa nonsense a:sonnet@claude x version y sequence z");
    command("HSET orch:{l:p}:window head x 5 y requests z");
    granted(0);
    command("DEL orch:{l:p}:window");
    command("SET orch:{l:p}:window text");
    assert_int_equal(ask(0, ARM, 0).verdict, GOVERNOR_WAIT);
    command("DEL orch:{l:p}:window");
    granted(0);
}

static char first_answer[64];
static void script_answered(void *ctx, const struct redis_value *value)
{
    assert_int_equal(redis_type(value), REDIS_ARRAY);
    snprintf(first_answer, sizeof first_answer, "%s",
             redis_str(redis_at(redis_at(value, 5), 0), NULL));
    *(bool *)ctx = true;
}

/* As a client does that lost the connection before the answer. */
static void run_twice(const char *const *operation)
{
    const char *args[64] = {
        "orch:{l:p}:state", "orch:{l:p}:permits", "orch:{l:p}:hold", "orch:{l:p}:told",
        "orch:{l:p}:window", "orch:{l:p}:window:-",
        /* a minute, 30 s, limits of the provider and of a key, breaker, worker, keys */
        "60000000", "30000", "10", "1000", "5", "10", "1000", "5", "3", "1000", "w", "1", "-"};
    int n = 19;
    while (*operation != NULL)
        args[n++] = *operation++;
    for (int i = 0; i < 2; i++) {
        bool done = false;
        redis_eval(queue_redis(nodes[0].queue), governor_script(), script_answered, &done, 6, n,
                   args, NULL);
        assert_int_equal(loop_run_until(&loop, &done, WAIT_MS), 0);
    }
}

static void what_redis_did_already_may_be_asked_again(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){0});
    run_twice((const char *[]){"4", "acquire", "id-1", ARM, "100", NULL});
    assert_string_equal(first_answer, "GRANTED");
    assert_string_equal(command("HGET orch:{l:p}:window requests"), "1");
    assert_string_equal(command("HGET orch:{l:p}:window:- tokens"), "100");
    run_twice((const char *[]){"14", "settle", "id-1", ARM, "-", "1", "130", "bad", "overloaded",
                               "-", "0", "-1", "0", "-1", "0", NULL});
    assert_string_equal(command("HGET orch:{l:p}:window tokens"), "130");
    assert_int_equal(strncmp(command("HGET orch:{l:p}:state a:sonnet@claude"), "closed 1 ", 9), 0);
    run_twice((const char *[]){"4", "acquire", "id-2", ARM, "100", NULL});
    run_twice((const char *[]){"14", "settle", "id-2", ARM, "-", "0", "-1", "-", "internal", "-",
                               "0", "-1", "0", "-1", "0", NULL});
    assert_string_equal(command("HGET orch:{l:p}:window requests"), "1");
    assert_string_equal(command("HGET orch:{l:p}:window:- requests"), "1");
    assert_string_equal(command("HGET orch:{l:p}:window tokens"), "130");
    assert_int_equal(strncmp(command("HGET orch:{l:p}:state k:-"), "2 0 ok ", 7), 0);
}

static void all_keys_of_a_provider_have_one_hash_tag(void **state)
{
    (void)state;
    node_open(0, &(struct governor_options){.keys = two_keys,
                                            .n_keys = 2,
                                            .limits = {1, 2, 3},
                                            .key_limits = {1, 2, 3},
                                            .breaker_failures = 1,
                                            .breaker_open_ms = 10});
    struct governor_permit permit = granted(0);
    settle(0, &permit, CLASS_TIMEOUT, -1);
    struct buf list = {0};
    const char *argv[] = {"/usr/bin/redis-cli", "-s", fixture.redis_socket, "KEYS", "*", NULL};
    assert_int_equal(fixture_run(&fixture, argv, &list, NULL), 0);
    int n = 0;
    for (char *line = strtok(list.data, "\n"); line != NULL; line = strtok(NULL, "\n"), n++)
        assert_int_equal(strncmp(line, "orch:{l:p}:", 11), 0);
    assert_true(n >= 4);
    buf_release(&list);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_limits_a_permit_costs_no_command),
        TEST(without_keys_a_provider_that_asks_to_wait_is_left_alone),
        TEST(four_workers_use_all_requests_of_a_window_and_never_more),
        TEST(four_workers_use_all_tokens_of_a_window_and_never_more),
        TEST(acquires_of_one_turn_are_one_script_call),
        TEST(more_acquires_than_a_turn_takes_are_all_answered),
        TEST(the_room_counts_what_others_took),
        TEST(the_limit_of_each_key_and_of_the_provider_both_hold),
        TEST(a_key_at_its_limit_is_passed_over),
        TEST(a_permit_of_a_call_that_was_not_made_is_given_back),
        TEST(a_permit_that_is_settled_twice_is_given_back_once),
        TEST(tokens_are_corrected_by_what_was_used),
        TEST(a_correction_leaves_the_window_with_what_it_corrects),
        TEST(calls_without_a_figure_are_charged_the_average),
        TEST(a_call_larger_than_the_limit_gets_a_window_of_its_own),
        TEST(an_idle_window_begins_anew),
        TEST(calls_at_once_are_limited_over_all_workers),
        TEST(calls_at_once_are_limited_for_each_key),
        TEST(the_permit_of_a_killed_worker_expires_and_that_of_a_living_one_does_not),
        TEST(a_worker_that_ends_lets_its_permits_go),
        TEST(a_key_that_is_refused_is_out_for_all_workers_until_the_keys_are_read_again),
        TEST(a_new_key_takes_the_place_of_one_that_is_out),
        TEST(a_key_without_quota_is_out_for_as_long_as_the_server_says),
        TEST(a_key_without_quota_is_out_for_an_hour_when_nothing_is_said),
        TEST(a_rate_limited_key_is_blocked_for_all_workers),
        TEST(settling_twice_counts_a_failure_once),
        TEST(a_server_that_has_nothing_left_is_left_alone_until_its_reset),
        TEST(a_server_that_has_less_left_lowers_the_room_and_never_raises_it),
        TEST(a_server_that_has_few_tokens_left_takes_only_small_calls),
        TEST(hostile_figures_of_a_server_do_no_harm),
        TEST(a_breaker_opens_for_all_workers_and_a_good_probe_closes_it),
        TEST(a_failed_probe_opens_the_breaker_for_twice_as_long),
        TEST(a_probe_that_was_not_made_or_says_nothing_lets_another_one_start),
        TEST(a_probe_that_is_lost_expires),
        TEST(a_success_in_between_starts_the_count_again),
        TEST(the_success_of_a_call_from_before_does_not_close_a_breaker),
        TEST(a_worker_that_starts_later_knows_what_is_open),
        TEST(a_worker_that_starts_has_read_its_keys_and_tries_them),
        TEST(a_provider_without_keys_that_demands_one_is_asked_again),
        TEST(without_redis_one_waits_and_afterwards_nothing_is_forgotten),
        TEST(an_answer_that_is_overdue_is_to_wait_and_the_permit_goes_back),
        TEST(what_is_forgotten_is_given_back),
        TEST(it_may_be_closed_with_answers_outstanding_and_within_one),
        TEST(keys_may_change_while_an_answer_is_outstanding),
        TEST(damaged_state_is_a_wait_or_a_fresh_start),
        TEST(what_redis_did_already_may_be_asked_again),
        TEST(all_keys_of_a_provider_have_one_hash_tag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
