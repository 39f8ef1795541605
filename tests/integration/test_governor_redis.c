/* The governor when Redis goes away, is slow or damaged, and calls in any order. */
#include <signal.h>

#include "common/governor_internal.h"
#include "tests/integration/governor_nodes.h"

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
        "60000000", "30000", "10", "1000", "5", "10", "1000", "5", "3", "1000", "w", "news", "1",
        "-"};
    int n = 20;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
