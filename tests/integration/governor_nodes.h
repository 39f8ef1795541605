/* What the governor's tests share: workers with a governor each, on one loop and a real Redis. */
#ifndef TESTS_INTEGRATION_GOVERNOR_NODES_H
#define TESTS_INTEGRATION_GOVERNOR_NODES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/governor.h"
#include "tests/lib/fixture.h"

#define WAIT_MS 30000
#define NODES 4
#define ARM "sonnet@claude"

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

static inline int setup(void **state)
{
    (void)state;
    memset(nodes, 0, sizeof nodes);
    fixture_init(&fixture);
    fixture_redis_start(&fixture);
    loop_init(&loop);
    return 0;
}

static inline void node_close(struct node *node)
{
    governor_close(&node->governor);
    queue_close(&node->queue);
}

static inline int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        node_close(&nodes[i]);
    loop_finish(&loop);
    fixture_release(&fixture);
    return 0;
}

static inline void on_up(void *ctx)
{
    ((struct node *)ctx)->up = true;
}

static inline void on_change(void *ctx, enum governor_change change, const char *what,
                             const char *text)
{
    struct node *node = ctx;
    node->changes[change]++;
    if (change == GOVERNOR_ARM_OPEN || change == GOVERNOR_ARM_CLOSED)
        node->open = change == GOVERNOR_ARM_OPEN;
    snprintf(node->what, sizeof node->what, "%s", what);
    snprintf(node->text, sizeof node->text, "%s", text);
}

static inline void turns(int n)
{
    while (n-- > 0)
        uv_run(&loop, UV_RUN_NOWAIT);
}

/* Runs the loop until fn is true of the node. */
static inline void until_at(bool (*fn)(const struct node *node), const struct node *node, int line)
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

static inline void ping_answered(void *ctx, const struct redis_value *value)
{
    (void)value;
    *(bool *)ctx = true;
}

/* What was sent before is done now. */
static inline void settle_down(struct node *node)
{
    bool done = false;
    turns(2);
    redis_simple(queue_redis(node->queue), ping_answered, &done, "PING");
    assert_int_equal(loop_run_until(&loop, &done, WAIT_MS), 0);
}

static inline void node_open(int i, const struct governor_options *options)
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

static inline void answered(void *ctx, const struct governor_permit *permit)
{
    struct node *node = ctx;
    node->permit = *permit;
    node->answered = true;
    node->n_answers++;
    node->n_granted += permit->verdict == GOVERNOR_GRANTED;
}

static inline struct governor_permit ask(int i, const char *arm, int64_t tokens)
{
    nodes[i].answered = false;
    governor_acquire(nodes[i].governor, arm, tokens, answered, &nodes[i]);
    assert_int_equal(loop_run_until(&loop, &nodes[i].answered, WAIT_MS), 0);
    return nodes[i].permit;
}

static inline struct governor_permit granted(int i)
{
    struct governor_permit permit = ask(i, ARM, 0);
    assert_int_equal(permit.verdict, GOVERNOR_GRANTED);
    return permit;
}

static inline void settle(int i, const struct governor_permit *permit, enum error_class class_,
                          int64_t retry_after_ms)
{
    struct governor_report report = well;
    report.class_ = class_;
    report.retry_after_ms = retry_after_ms;
    governor_settle(nodes[i].governor, permit, ARM, &report);
    settle_down(&nodes[i]);
}

/* Asks until the answer is another one. */
static inline struct governor_permit ask_past(int i, enum governor_verdict verdict)
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
static inline void command_done(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    snprintf(command_text, sizeof command_text, "%s", redis_str(value, NULL));
    command_answered = true;
}

static inline const char *command(const char *words)
{
    command_answered = false;
    redis_simple(queue_redis(nodes[0].queue), command_done, NULL, words);
    assert_int_equal(loop_run_until(&loop, &command_answered, WAIT_MS), 0);
    return command_text;
}

static inline bool at_once(const struct node *node)
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
static inline bool is_wary(const struct node *node)
{
    return !at_once(node);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
