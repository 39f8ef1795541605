/* Workers come, go and grant; what they say is not believed further than it makes sense. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/registry.h"

static const char *arms[] = {"m@h", "n@h"};

static struct msg_ready ready_of(const char *name, const char *boot)
{
    return (struct msg_ready){.name = name,
                              .boot = boot,
                              .host = "h",
                              .provider = "p",
                              .gpu = "",
                              .arms = arms,
                              .n_arms = 2,
                              .credit = 2,
                              .concurrency = 4};
}

static int setup(void **state)
{
    struct registry *registry = malloc(sizeof *registry);
    registry_init(registry);
    *state = registry;
    return 0;
}

static int teardown(void **state)
{
    struct registry *registry = *state;
    registry_release(registry);
    assert_null(registry->arms);
    free(registry);
    return 0;
}

static struct worker *join(struct registry *registry, const struct msg_ready *ready,
                           enum registry_change expected)
{
    struct worker *worker = NULL;
    enum registry_change change;
    bool lost;
    assert_int_equal(registry_join(registry, ready, &worker, &change, &lost), 0);
    assert_int_equal(change, expected);
    return worker;
}

static void worker_serves_its_arms_and_their_models(void **state)
{
    struct registry *registry = *state;
    struct msg_ready ready = ready_of("w", "b");
    join(registry, &ready, REGISTRY_JOINED);
    const char *names[] = {"m@h", "n@h", "m", "n"};
    for (size_t i = 0; i < 4; i++) {
        struct service *service = registry_pick(registry_find(registry, names[i]));
        assert_non_null(service);
        assert_string_equal(service->full->name, i % 2 == 0 ? "m@h" : "n@h");
    }
    assert_null(registry_find(registry, "h"));
}

static void worker_of_the_same_name_and_host_replaces_the_old_entry(void **state)
{
    struct registry *registry = *state;
    struct msg_ready ready = ready_of("w", "b1");
    struct worker *worker = join(registry, &ready, REGISTRY_JOINED);
    assert_ptr_equal(join(registry, &ready, REGISTRY_UPDATED), worker);
    ready.boot = "b2";
    ready.running = 3;
    assert_ptr_equal(join(registry, &ready, REGISTRY_RESTARTED), worker);
    assert_int_equal(worker->running, 3);
    assert_int_equal(registry->n_workers, 1);
    ready.host = "elsewhere";
    assert_ptr_not_equal(join(registry, &ready, REGISTRY_JOINED), worker);
    assert_int_equal(registry->n_workers, 2);
    assert_int_equal(registry_find(registry, "m@h")->n_serving, 2);
}

static void ready_without_sense_changes_nothing(void **state)
{
    struct registry *registry = *state;
    const char *bad_arm[] = {""};
    char long_name[ARM_NAME_MAX + 2];
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const char *long_arm[] = {long_name};
    struct msg_ready good = ready_of("w", "b");
    struct msg_ready bad[] = {good, good, good, good, good, good, good, good, good};
    bad[0].name = "";
    bad[1].name = "two words";
    bad[2].name = "\xc3\xa9";
    bad[3].n_arms = 0;
    bad[4].arms = bad_arm, bad[4].n_arms = 1;
    bad[5].arms = long_arm, bad[5].n_arms = 1;
    bad[6].credit = -1;
    bad[7].concurrency = -1;
    bad[8].running = INT64_MIN;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct worker *worker;
        enum registry_change change;
        bool lost;
        assert_int_equal(registry_join(registry, &bad[i], &worker, &change, &lost), -EINVAL);
    }
    assert_int_equal(registry->n_workers, 0);
    assert_null(registry->arms);
}

static void absurd_figures_are_clamped(void **state)
{
    struct registry *registry = *state;
    struct msg_ready ready = ready_of("w", "b");
    ready.credit = ready.running = INT64_MAX;
    struct worker *worker = join(registry, &ready, REGISTRY_JOINED);
    assert_int_equal(worker->credit, 4);
    assert_int_equal(registry_grant(worker, INT64_MAX), 0);
    assert_int_equal(worker->credit, 4);
    assert_int_equal(registry_grant(worker, -1), -EINVAL);
    assert_int_equal(worker->credit, 4);
    ready.concurrency = INT64_MAX;
    join(registry, &ready, REGISTRY_UPDATED);
    assert_int_equal(worker->concurrency, WORKER_MAX_CONCURRENCY);
    assert_int_equal(worker->credit, WORKER_MAX_CONCURRENCY);
    ready.concurrency = 0;
    join(registry, &ready, REGISTRY_UPDATED);
    assert_int_equal(worker->concurrency, 1);
    assert_int_equal(worker->credit, 1);
}

static void worker_without_credit_is_not_picked(void **state)
{
    struct registry *registry = *state;
    struct msg_ready ready = ready_of("w", "b");
    struct worker *worker = join(registry, &ready, REGISTRY_JOINED);
    const struct arm *arm = registry_find(registry, "m");
    registry_spend(registry, worker, 0);
    assert_non_null(registry_pick(arm));
    registry_spend(registry, worker, 0);
    assert_null(registry_pick(arm));
    registry_grant(worker, 1);
    assert_non_null(registry_pick(arm));
    assert_int_equal(worker->running, 1);
}

static void draining_worker_is_not_picked_and_does_not_serve(void **state)
{
    struct registry *registry = *state;
    struct msg_ready ready = ready_of("w", "b");
    struct worker *worker = join(registry, &ready, REGISTRY_JOINED);
    const struct arm *arm = registry_find(registry, "m");
    assert_true(registry_drain(worker));
    assert_false(registry_drain(worker));
    assert_int_equal(arm->n_serving, 0);
    registry_grant(worker, 2);
    assert_null(registry_pick(arm));
    assert_false(registry_leave(registry, worker));
}

static void lost_credit_comes_back_with_a_heartbeat_when_it_is_quiet(void **state)
{
    struct registry *registry = *state;
    struct msg_ready ready = ready_of("w", "b");
    struct msg_beat beat = {.credit = 2, .running = 1, .gpu_memory_used = 5};
    struct worker *worker = join(registry, &ready, REGISTRY_JOINED);
    registry_spend(registry, worker, 1000);
    registry_spend(registry, worker, 1000);
    registry_beat(worker, &beat, 1500, 1000); /* it may not have seen the dispatches */
    assert_int_equal(worker->credit, 0);
    assert_int_equal(worker->running, 2);
    assert_int_equal(worker->gpu_memory_used, 5);
    registry_beat(worker, &beat, 2000, 1000);
    assert_int_equal(worker->credit, 2);
    assert_int_equal(worker->running, 1);
    assert_true(worker->open);
    beat.credit = beat.running = INT64_MIN;
    registry_beat(worker, &beat, 9000, 1000);
    assert_int_equal(worker->credit, 2);
    assert_int_equal(worker->running, 0);
}

static void worker_may_have_nothing_but_paused_arms(void **state)
{
    struct registry *registry = *state;
    const char *paused[] = {"m@h: 5 timeouts in a row, next try in 20 s", "n@h"};
    struct msg_ready ready = ready_of("w", "b");
    struct worker *worker = join(registry, &ready, REGISTRY_JOINED);
    assert_null(registry_paused(registry, "m@h"));
    ready.n_arms = 0;
    ready.paused = paused;
    ready.n_paused = 2;
    join(registry, &ready, REGISTRY_UPDATED);
    assert_null(registry_find(registry, "m@h")); /* nobody serves it any more */
    assert_string_equal(registry_paused(registry, "m@h"), paused[0]);
    assert_string_equal(registry_paused(registry, "m"), paused[0]);
    assert_string_equal(registry_paused(registry, "n"), "n@h");
    assert_null(registry_paused(registry, "m@"));
    assert_null(registry_paused(registry, "m@h2"));
    assert_null(registry_paused(registry, ""));
    ready.n_arms = 2;
    ready.n_paused = 0;
    assert_ptr_equal(join(registry, &ready, REGISTRY_UPDATED), worker);
    assert_non_null(registry_pick(registry_find(registry, "m@h")));
    assert_null(registry_paused(registry, "m@h"));
}

static void states_are_believed_only_when_each_arm_has_one(void **state)
{
    struct registry *registry = *state;
    const char *states[] = {"warm", "on fire"}, *too_many[] = {"warm", "cold", "cold"};
    struct msg_ready ready = ready_of("w", "b");
    ready.states = states;
    ready.n_states = 2;
    struct worker *worker = join(registry, &ready, REGISTRY_JOINED);
    assert_string_equal(worker->states[0], "warm");
    assert_string_equal(worker->states[1], "");
    ready.states = too_many;
    ready.n_states = 3;
    join(registry, &ready, REGISTRY_UPDATED);
    assert_null(worker->states);
}

static void reasons_of_pauses_are_cut_to_a_size_between_characters(void **state)
{
    struct registry *registry = *state;
    char text[1024] = "m@h: ";
    for (size_t at = 5; at + 2 < sizeof text; at += 2)
        memcpy(text + at, "\xc3\xa9", 2);
    const char *paused[] = {text};
    struct msg_ready ready = ready_of("w", "b");
    ready.paused = paused;
    ready.n_paused = 1;
    struct worker *worker = join(registry, &ready, REGISTRY_JOINED);
    size_t len = strlen(worker->paused[0]);
    assert_int_equal(len, PAUSED_MAX - 1); /* 5 bytes and pairs are an odd number */
    assert_int_equal((unsigned char)worker->paused[0][len - 1], 0xa9);
}

static void workers_are_bounded(void **state)
{
    struct registry *registry = *state;
    struct msg_ready ready = ready_of("w", "b");
    char name[32];
    for (int i = 0; i < REGISTRY_MAX_WORKERS; i++) {
        snprintf(name, sizeof name, "w%d", i);
        ready.name = name;
        join(registry, &ready, REGISTRY_JOINED);
    }
    struct worker *worker;
    enum registry_change change;
    bool lost;
    ready.name = "one-more";
    assert_int_equal(registry_join(registry, &ready, &worker, &change, &lost), -ENOSPC);
    assert_int_equal(registry->n_workers, REGISTRY_MAX_WORKERS);
}

static void arms_are_bounded(void **state)
{
    struct registry *registry = *state;
    static char names[256][32];
    const char *list[256];
    char name[32] = "";
    struct msg_ready ready = ready_of(name, "b");
    struct worker *worker;
    enum registry_change change;
    bool lost;
    int rc = 0, n = 0;
    for (int i = 0; i < 256; i++)
        list[i] = names[i];
    ready.arms = list;
    ready.n_arms = 256;
    for (; rc == 0 && n < 1000; n++) {
        snprintf(name, sizeof name, "w%d", n);
        for (int i = 0; i < 256; i++)
            snprintf(names[i], sizeof names[i], "m%d@h%d", i, n);
        rc = registry_join(registry, &ready, &worker, &change, &lost);
    }
    assert_int_equal(rc, -ENOSPC);
    assert_true(HASH_COUNT(registry->arms) <= REGISTRY_MAX_ARMS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(worker_serves_its_arms_and_their_models),
        TEST(worker_of_the_same_name_and_host_replaces_the_old_entry),
        TEST(ready_without_sense_changes_nothing),
        TEST(absurd_figures_are_clamped),
        TEST(worker_without_credit_is_not_picked),
        TEST(draining_worker_is_not_picked_and_does_not_serve),
        TEST(lost_credit_comes_back_with_a_heartbeat_when_it_is_quiet),
        TEST(worker_may_have_nothing_but_paused_arms),
        TEST(states_are_believed_only_when_each_arm_has_one),
        TEST(reasons_of_pauses_are_cut_to_a_size_between_characters),
        TEST(workers_are_bounded),
        TEST(arms_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
