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
#define ROUNDS 16
#define STEPS 120
#define LIMIT 1000 /* of the task's budget, in nano USD */

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

/* An attempt that the model knows of. */
struct attempt {
    char token[128]; /* "": none */
    int64_t held;    /* -1: nothing is reserved for it */
};

/* What is known of the task. */
struct model {
    char task[24];
    int n; /* subtasks that exist */
    char ids[MAX_SUBS][16];
    char deps[MAX_SUBS][64];
    struct attempt runs[MAX_SUBS][2]; /* the last attempt, and its hedge */
    struct attempt gone[MAX_SUBS];    /* one that ended beside another, or was taken back */
    bool leased[MAX_SUBS];            /* the lease has not run out */
    int64_t spent;
    bool expands[MAX_SUBS];
    enum task_state state;
    enum sub_state states[MAX_SUBS];
    int64_t remaining;
};

static struct model now, before;
static int64_t seen_spent, seen_held; /* as it is stored */

/* --- watching ----------------------------------------------------------------------------- */

static void viewed(void *ctx, enum queue_status status, const struct queue_task_view *view,
                   const char *err)
{
    (void)ctx;
    if (status != QUEUE_OK)
        fail_msg("the task cannot be read: %s", err);
    now.state = view->state;
    now.remaining = view->remaining;
    seen_spent = view->spent.nano_usd;
    seen_held = view->held.nano_usd;
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

static int64_t sum_held(void)
{
    int64_t sum = 0;
    for (int i = 0; i < now.n; i++) {
        const struct attempt *all[] = {&now.runs[i][0], &now.runs[i][1], &now.gone[i]};
        for (int k = 0; k < 3; k++)
            sum += all[k]->held > 0 ? all[k]->held : 0;
    }
    return sum;
}

static void check_money(const char *call)
{
    if (seen_spent != now.spent || seen_held != sum_held())
        fail_msg("after %s %lld are spent and %lld held, not %lld and %lld", call,
                 (long long)seen_spent, (long long)seen_held, (long long)now.spent,
                 (long long)sum_held());
    assert_true(seen_spent + seen_held <= LIMIT);
}

/* --- money -------------------------------------------------------------------------------- */

static struct queue_spend cost;
static int reserves[QUEUE_ERROR + 1]; /* by their answers */

/* What the attempt will say that it has cost; now and then nothing. */
static void bill(const struct attempt *attempt)
{
    cost = (struct queue_spend){attempt->held > 0 ? below((int)attempt->held / 2 + 1) : 0, 0};
    probe.spent = below(8) != 0 ? &cost : NULL;
}

static void settle(struct attempt *attempt, const struct queue_spend *spent)
{
    if (attempt->held >= 0)
        now.spent += spent != NULL ? spent->nano_usd : attempt->held;
    attempt->held = -1;
}

static void settle_all(int sub)
{
    settle(&now.runs[sub][0], NULL);
    settle(&now.runs[sub][1], NULL);
    settle(&now.gone[sub], NULL);
}

static bool has_hedge(int sub)
{
    return now.runs[sub][1].token[0] != '\0';
}

static void forget_attempt(struct attempt *attempt)
{
    *attempt = (struct attempt){.held = -1};
}

/* One of two ends. */
static void part(int sub, int which)
{
    now.gone[sub] = now.runs[sub][which];
    now.runs[sub][0] = now.runs[sub][1 - which];
    forget_attempt(&now.runs[sub][1]);
}

static int commits_beside; /* another attempt */

/* --- calls -------------------------------------------------------------------------------- */

static int call_claim(int sub)
{
    char nonce[16];
    snprintf(nonce, sizeof nonce, "n%d", below(1000000));
    int64_t lease_ms = below(3) == 0 ? 0 : 60000;
    enum queue_status status = probe_claim_for(&probe, now.task, now.ids[sub], nonce, lease_ms);
    assert_int_equal(status == QUEUE_OK, before.states[sub] == SUB_READY);
    assert_int_equal(status == QUEUE_CANCEL, before.states[sub] == SUB_CANCELLED);
    if (status == QUEUE_OK) {
        forget_attempt(&now.runs[sub][0]);
        forget_attempt(&now.runs[sub][1]);
        snprintf(now.runs[sub][0].token, sizeof now.runs[sub][0].token, "%s", probe.token);
        now.leased[sub] = lease_ms > 0;
    }
    return (int)status;
}

static int call_hedge(int sub)
{
    char nonce[16];
    snprintf(nonce, sizeof nonce, "h%d", below(1000000));
    int64_t lease_ms = below(3) == 0 ? 0 : 60000;
    enum queue_status status = probe_hedge(&probe, now.task, now.ids[sub], nonce, lease_ms);
    assert_int_equal(status == QUEUE_OK, before.states[sub] == SUB_RUNNING && !has_hedge(sub) &&
                                             before.state == TASK_RUNNING);
    if (status == QUEUE_OK) {
        snprintf(now.runs[sub][1].token, sizeof now.runs[sub][1].token, "%s", probe.token);
        now.leased[sub] = now.leased[sub] || lease_ms > 0;
    }
    return (int)status;
}

/* The token of an attempt that owns the subtask, or owned it last, or now and then a wrong one. */
static const char *some_token(int sub, int *ret_which, bool *ret_owner)
{
    static char token[144];
    *ret_which = has_hedge(sub) ? below(2) : 0;
    *ret_owner = now.runs[sub][*ret_which].token[0] != '\0' && below(4) != 0;
    snprintf(token, sizeof token, "%s%s", now.runs[sub][*ret_which].token, *ret_owner ? "" : "x");
    return token;
}

static int call_commit(int sub)
{
    bool owner;
    int which;
    const char *token = some_token(sub, &which, &owner);
    bill(&now.runs[sub][which]);
    enum queue_status status = probe_commit(&probe, now.task, now.ids[sub], token);
    assert_int_equal(status == QUEUE_OK, owner && before.states[sub] == SUB_RUNNING);
    if (!owner)
        assert_true(status == QUEUE_STALE || status == QUEUE_CANCELLED);
    if (before.states[sub] == SUB_DONE && owner)
        assert_int_equal(status, QUEUE_DUP);
    if (status != QUEUE_OK)
        return (int)status;
    settle(&now.runs[sub][which], probe.spent);
    if (has_hedge(sub)) {
        commits_beside++;
        part(sub, 1 - which);
    }
    return (int)status;
}

static int call_fail(int sub)
{
    bool owner;
    int which;
    const char *token = some_token(sub, &which, &owner);
    static const enum error_action actions[] = {ERROR_RETRY, ERROR_RETRY, ERROR_WAIT,
                                                ERROR_MOVE,  ERROR_MOVE,  ERROR_DEAD};
    bill(&now.runs[sub][which]);
    enum queue_status status =
        probe_fail(&probe, now.task, now.ids[sub], token, actions[below(6)], below(2) == 0 ? 0 : 1);
    if (!owner)
        assert_true(status == QUEUE_STALE || status == QUEUE_CANCELLED);
    if (!owner || before.states[sub] != SUB_RUNNING)
        return (int)status;
    settle(&now.runs[sub][which], probe.spent);
    if (has_hedge(sub)) {
        assert_int_equal(status, QUEUE_RETRY);
        part(sub, which);
    }
    return (int)status;
}

static int call_renew(int sub)
{
    bool owner;
    int which;
    const char *token = some_token(sub, &which, &owner);
    int64_t lease_ms = below(3) == 0 ? 0 : 60000;
    enum queue_status status = probe_renew(&probe, now.task, now.ids[sub], token, lease_ms);
    assert_int_equal(status == QUEUE_OK, owner && before.states[sub] == SUB_RUNNING);
    if (status == QUEUE_OK)
        now.leased[sub] = lease_ms > 0 || (has_hedge(sub) && now.leased[sub]);
    return (int)status;
}

static int call_reserve(int sub)
{
    bool owner;
    int which;
    const char *token = some_token(sub, &which, &owner);
    int64_t worst = below(below(2) ? LIMIT / 3 : LIMIT), others = sum_held();
    struct attempt *attempt = &now.runs[sub][which];
    others -= attempt->held > 0 ? attempt->held : 0;
    enum queue_status status = probe_reserve(&probe, now.task, now.ids[sub], token, NULL, 0,
                                             (struct queue_spend){worst, 0});
    if (!owner || before.states[sub] != SUB_RUNNING) {
        assert_true(status == QUEUE_STALE || status == QUEUE_CANCEL);
        return (int)status;
    }
    assert_int_equal(status, now.spent + worst > LIMIT            ? QUEUE_BUDGET
                             : now.spent + others + worst > LIMIT ? QUEUE_WAIT
                                                                  : QUEUE_OK);
    reserves[status]++;
    if (status == QUEUE_OK)
        attempt->held = worst;
    return (int)status;
}

/* One that ended beside another, or did not end itself: what it has cost is told. */
static int call_lose(int sub)
{
    bool cancelled = before.states[sub] == SUB_CANCELLED && below(2) == 0;
    int which = has_hedge(sub) ? below(2) : 0;
    struct attempt *attempt = cancelled ? &now.runs[sub][which] : &now.gone[sub];
    if (attempt->token[0] == '\0')
        return QUEUE_OK;
    bill(attempt);
    enum queue_status status = probe_lose(&probe, now.task, now.ids[sub], attempt->token);
    assert_true(status == QUEUE_OK || status == QUEUE_DUP);
    settle(attempt, probe.spent);
    return (int)status;
}

static int call_expire(int sub)
{
    enum queue_status status =
        (enum queue_status)probe_sub(&probe, queue_expire, now.task, now.ids[sub]);
    bool runs = before.states[sub] == SUB_RUNNING;
    if (!runs || now.leased[sub])
        assert_int_equal(status, QUEUE_STALE);
    if (now.leased[sub])
        return (int)status;
    bool ended = sub_state_terminal(before.states[sub]);
    if (runs || ended)
        settle_all(sub);
    if (runs && has_hedge(sub))
        part(sub, 1);
    return (int)status;
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
    queue_bury(queue, task, sub, avoided[below(4)], below(2) == 0 ? "" : "why", fn, ctx);
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
    enum queue_status status = probe_task(&probe, queue_retry, now.task);
    for (int i = 0; i < now.n && status == QUEUE_OK; i++) {
        if (now.states[i] != SUB_DEAD && now.states[i] != SUB_CANCELLED)
            continue;
        settle_all(i);
        if (now.runs[i][0].token[0] != '\0')
            now.gone[i] = now.runs[i][0];
        forget_attempt(&now.runs[i][0]);
        forget_attempt(&now.runs[i][1]);
    }
    return (int)status;
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
        forget_attempt(&now.runs[sub][0]);
        forget_attempt(&now.runs[sub][1]);
        forget_attempt(&now.gone[sub]);
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
    {"claim", call_claim, 8}, {"commit", call_commit, 6},    {"fail", call_fail, 3},
    {"renew", call_renew, 2}, {"expire", call_expire, 2},    {"promote", call_promote, 3},
    {"hold", call_hold, 1},   {"release", call_release, 2},  {"cancel", call_cancel, 1},
    {"retry", call_retry, 2}, {"expand", call_expand, 3},    {"bury", call_bury, 1},
    {"hedge", call_hedge, 5}, {"reserve", call_reserve, 14}, {"lose", call_lose, 3},
};

static void step(void)
{
    int pick = below(56), at = 0;
    while (pick >= calls[at].weight)
        pick -= calls[at++].weight;
    before = now;
    int sub = below(now.n);
    int status = calls[at].call(sub);
    look();
    check_moves(calls[at].name);
    check_money(calls[at].name);
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
                before.states[i] = SUB_RUNNING;
                while (call_commit(i) != QUEUE_OK)
                    ;
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
        probe.budget = (struct queue_spend){LIMIT, 0};
        assert_int_equal(probe_submit(&probe, now.task, "d", nodes, (size_t)n), QUEUE_OK);
        look();
        for (int i = 0; i < STEPS; i++)
            step();
        finish();
    }
    /* What was to be tested has happened. */
    assert_true(reserves[QUEUE_OK] > 0 && reserves[QUEUE_WAIT] + reserves[QUEUE_BUDGET] > 0);
    assert_true(commits_beside > 0);
    probe_close(&probe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sequence_of_calls_keeps_the_queue_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
