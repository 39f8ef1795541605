/* Limits that several workers share through a real Redis: windows, calls at once. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/integration/governor_nodes.h"

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

#define GRANTS_MAX 20000

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
