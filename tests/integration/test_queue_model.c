/* Random calls on random tasks: every move is legal, every answer fits, and the stored state is
 * whole after each call. The seed is printed; ORCH_SEED repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/lib/probe.h"

#define MAX_SUBS 12
#define ROUNDS 12
#define STEPS 120

static struct probe probe;
static uint64_t seed;

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static int below(int n)
{
    return (int)(random_bits() % (uint64_t)n);
}

/* What is known of the task. */
struct model {
    char task[24];
    int n; /* subtasks that exist */
    char ids[MAX_SUBS][16];
    char deps[MAX_SUBS][64];
    char tokens[MAX_SUBS][128]; /* of the last claim; "": none */
    bool expands[MAX_SUBS];
    enum task_state state;
    enum sub_state states[MAX_SUBS];
    int64_t remaining;
};

static struct model now, before;

/* --- watching ----------------------------------------------------------------------------- */

static void viewed(void *ctx, enum queue_status status, const struct queue_task_view *view,
                   const char *err)
{
    (void)ctx;
    if (status != QUEUE_OK)
        fail_msg("the task cannot be read: %s", err);
    now.state = view->state;
    now.remaining = view->remaining;
    assert_int_equal(view->n_subs, now.n);
    for (size_t i = 0; i < view->n_subs; i++) {
        assert_string_equal(view->subs[i].id, now.ids[i]);
        now.states[i] = view->subs[i].state;
    }
    probe.done = true;
}

static void look(void)
{
    queue_read(probe.queue, now.task, false, viewed, NULL);
    probe_wait(&probe);
}

/* One call makes at most two moves of a life: RUNNING, DELAYED, READY. */
static bool legal(enum sub_state from, enum sub_state to)
{
    if (from == to || sub_state_may_move(from, to))
        return true;
    for (int by = 0; by < SUB_STATE_COUNT; by++)
        if (sub_state_may_move(from, (enum sub_state)by) &&
            sub_state_may_move((enum sub_state)by, to))
            return true;
    return false;
}

static void check_moves(const char *call)
{
    for (int i = 0; i < before.n; i++) {
        enum sub_state from = before.states[i], to = now.states[i];
        bool new_life = strcmp(call, "retry") == 0 && (from == SUB_DEAD || from == SUB_CANCELLED) &&
                        (to == SUB_READY || to == SUB_BLOCKED);
        if (!new_life && (!legal(from, to) || (sub_state_terminal(from) && from != to)))
            fail_msg("%s moved %s from %s to %s", call, now.ids[i], sub_state_name(from),
                     sub_state_name(to));
    }
    if (task_state_terminal(before.state) && before.state != now.state)
        assert_true(strcmp(call, "retry") == 0 && before.state != TASK_DONE);
}

/* --- calls -------------------------------------------------------------------------------- */

static int call_claim(int sub)
{
    char nonce[16];
    snprintf(nonce, sizeof nonce, "n%d", below(1000000));
    enum queue_status status =
        probe_claim_for(&probe, now.task, now.ids[sub], nonce, below(3) == 0 ? 0 : 60000);
    assert_int_equal(status == QUEUE_OK, before.states[sub] == SUB_READY);
    assert_int_equal(status == QUEUE_CANCEL, before.states[sub] == SUB_CANCELLED);
    if (status == QUEUE_OK)
        snprintf(now.tokens[sub], sizeof now.tokens[sub], "%s", probe.token);
    return (int)status;
}

/* The owner's token, or now and then a wrong one. */
static const char *some_token(int sub, bool *ret_owner)
{
    static char token[144];
    *ret_owner = now.tokens[sub][0] != '\0' && below(4) != 0;
    snprintf(token, sizeof token, "%s%s", now.tokens[sub], *ret_owner ? "" : "x");
    return token;
}

static int call_commit(int sub)
{
    bool owner;
    const char *token = some_token(sub, &owner);
    enum queue_status status = probe_commit(&probe, now.task, now.ids[sub], token);
    assert_int_equal(status == QUEUE_OK, owner && before.states[sub] == SUB_RUNNING);
    if (!owner)
        assert_true(status == QUEUE_STALE || status == QUEUE_CANCELLED);
    if (before.states[sub] == SUB_DONE && owner)
        assert_int_equal(status, QUEUE_DUP);
    return (int)status;
}

static int call_fail(int sub)
{
    bool owner;
    const char *token = some_token(sub, &owner);
    static const enum error_action actions[] = {ERROR_RETRY, ERROR_RETRY, ERROR_WAIT,
                                                ERROR_MOVE,  ERROR_MOVE,  ERROR_DEAD};
    enum queue_status status =
        probe_fail(&probe, now.task, now.ids[sub], token, actions[below(6)], below(2) == 0 ? 0 : 1);
    if (!owner)
        assert_true(status == QUEUE_STALE || status == QUEUE_CANCELLED);
    return (int)status;
}

static int call_renew(int sub)
{
    bool owner;
    const char *token = some_token(sub, &owner);
    enum queue_status status =
        probe_renew(&probe, now.task, now.ids[sub], token, below(3) == 0 ? 0 : 60000);
    assert_int_equal(status == QUEUE_OK, owner && before.states[sub] == SUB_RUNNING);
    return (int)status;
}

static int call_expire(int sub)
{
    return (int)probe_sub(&probe, queue_expire, now.task, now.ids[sub]);
}

static int call_promote(int sub)
{
    return (int)probe_sub(&probe, queue_promote, now.task, now.ids[sub]);
}

static int call_hold(int sub)
{
    return (int)probe_sub(&probe, queue_hold, now.task, now.ids[sub]);
}

/* With what it avoids, or now and then with something else. */
static void bury_avoiding(struct queue *queue, const char *task, const char *sub, queue_fn *fn,
                          void *ctx)
{
    static const char *const avoided[] = {"", "model@place", "model@place", "x@y"};
    queue_bury(queue, task, sub, avoided[below(4)], fn, ctx);
}

static int call_bury(int sub)
{
    return below(3) != 0 ? QUEUE_OK : (int)probe_sub(&probe, bury_avoiding, now.task, now.ids[sub]);
}

static int call_release(int sub)
{
    return (int)probe_sub(&probe, queue_release, now.task, now.ids[sub]);
}

static int call_cancel(int sub)
{
    (void)sub;
    return below(8) != 0 ? QUEUE_OK : (int)probe_task(&probe, queue_cancel, now.task);
}

static int call_retry(int sub)
{
    (void)sub;
    return (int)probe_task(&probe, queue_retry, now.task);
}

/* The next subtasks of the task: each may depend on those before it. */
static int add_nodes(struct probe_node *nodes, int n)
{
    int made = 0;
    for (; made < n && now.n < MAX_SUBS; made++) {
        int sub = now.n++;
        snprintf(now.ids[sub], sizeof now.ids[sub], "s%d", sub);
        now.deps[sub][0] = '\0';
        for (int dep = 0; dep < sub; dep++)
            if (below(3) == 0)
                snprintf(now.deps[sub] + strlen(now.deps[sub]),
                         sizeof now.deps[sub] - strlen(now.deps[sub]), "s%d ", dep);
        now.expands[sub] = below(4) == 0;
        now.states[sub] = SUB_BLOCKED;
        nodes[made] = (struct probe_node){.id = now.ids[sub],
                                          .deps = now.deps[sub],
                                          .priority = below(5) - 2,
                                          .max_attempts = 1 + below(3),
                                          .expands = now.expands[sub]};
    }
    return made;
}

static int call_expand(int sub)
{
    struct probe_node nodes[MAX_SUBS];
    int before_n = now.n, n = add_nodes(nodes, below(3));
    enum queue_status status = probe_expand(&probe, now.task, now.ids[sub], nodes, (size_t)n);
    if (status != QUEUE_OK)
        now.n = before_n;
    return (int)status;
}

static const struct {
    const char *name;
    int (*call)(int sub);
    int weight;
} calls[] = {
    {"claim", call_claim, 8}, {"commit", call_commit, 6},   {"fail", call_fail, 3},
    {"renew", call_renew, 2}, {"expire", call_expire, 2},   {"promote", call_promote, 3},
    {"hold", call_hold, 1},   {"release", call_release, 2}, {"cancel", call_cancel, 1},
    {"retry", call_retry, 2}, {"expand", call_expand, 3},   {"bury", call_bury, 1},
};

static void step(void)
{
    int pick = below(34), at = 0;
    while (pick >= calls[at].weight)
        pick -= calls[at++].weight;
    before = now;
    int sub = below(now.n);
    int status = calls[at].call(sub);
    look();
    check_moves(calls[at].name);
    if (probe_fsck(&probe) != 0)
        fail_msg("after %s of %s: %s", calls[at].name, now.ids[sub],
                 queue_status_name((enum queue_status)status));
}

/* Whatever happened, the task can be brought to its end. */
static void finish(void)
{
    for (int turn = 0; turn < 2000 && now.state != TASK_DONE; turn++) {
        before = now;
        if (now.state != TASK_RUNNING)
            call_retry(0);
        for (int i = 0; i < before.n; i++) {
            if (before.states[i] == SUB_READY) {
                probe_run(&probe, now.task, now.ids[i]);
            } else if (before.states[i] == SUB_RUNNING) {
                assert_int_equal(probe_commit(&probe, now.task, now.ids[i], now.tokens[i]),
                                 QUEUE_OK);
            } else if (before.states[i] == SUB_DELAYED) {
                call_promote(i);
            } else if (before.states[i] == SUB_HELD) {
                call_release(i);
            } else if (before.states[i] == SUB_DONE && now.expands[i]) {
                probe_expand(&probe, now.task, now.ids[i], NULL, 0);
            }
            look();
            if (memcmp(before.states, now.states, sizeof now.states) != 0)
                break; /* look again at what is what */
        }
    }
    assert_int_equal(now.state, TASK_DONE);
    assert_int_equal(now.remaining, 0);
    assert_int_equal(probe_fsck(&probe), 0);
}

static void every_sequence_of_calls_keeps_the_queue_whole(void **state)
{
    (void)state;
    const char *given = getenv("ORCH_SEED");
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)clock_ns() | 1;
    fprintf(stderr, "ORCH_SEED=%llu\n", (unsigned long long)seed);
    probe_open(&probe);
    for (int round = 0; round < ROUNDS; round++) {
        memset(&now, 0, sizeof now);
        snprintf(now.task, sizeof now.task, "t%016d", round);
        struct probe_node nodes[MAX_SUBS];
        int n = add_nodes(nodes, 1 + below(6));
        assert_int_equal(probe_submit(&probe, now.task, "d", nodes, (size_t)n), QUEUE_OK);
        look();
        for (int i = 0; i < STEPS; i++)
            step();
        finish();
    }
    probe_close(&probe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sequence_of_calls_keeps_the_queue_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
