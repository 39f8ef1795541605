/* Keys and breakers that several workers share, and what servers say of their limits. */
#include <sys/wait.h>
#include <unistd.h>

#include "tests/integration/governor_nodes.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
