/* Two hundred subtasks at once: whatever happens to them, a budget is never exceeded, and in the
 * end exactly what was charged is spent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/lib/probe.h"

#define T "t0000000000000001"
#define CENT INT64_C(10000000) /* in nano USD */

static struct probe probe;

static int setup(void **state)
{
    (void)state;
    probe_open(&probe);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    probe_close(&probe);
    return 0;
}

#define SUBS 200
#define CLIENTS 4
#define TASK_CENTS 3000
#define DAY_CENTS 2900
#define MOST_LOSSES 2

/* Two hundred subtasks on several connections. Each claims, reserves at random, ends in a random
 * way (some calls twice, and at the same time as the expiry of the lease), and begins anew, until
 * it has committed or a budget has no room. */
struct runner {
    int sub;
    int missing; /* answers of this step */
    char token[128];
    int64_t worst, actual; /* nano USD */
    bool settled_by_worker, expired;
    int losses;          /* of its lease; a third one would make it wait */
    bool reserved, over; /* over: done, or there is no room */
};

static struct {
    struct queue *clients[CLIENTS];
    struct runner runners[SUBS];
    struct buf outcome, timing;
    int running;
    int64_t charged; /* what must be spent in the end */
    int64_t most;    /* seen as spent and held */
    int64_t waits, refusals, attempts, expiries;
    uint64_t seed;
    bool over;
} storm;

static int below(int n)
{
    storm.seed ^= storm.seed << 13;
    storm.seed ^= storm.seed >> 7;
    storm.seed ^= storm.seed << 17;
    return (int)(storm.seed % (uint64_t)n);
}

static struct queue *any_client(void)
{
    return storm.clients[below(CLIENTS)];
}

static const char *name_of(const struct runner *runner)
{
    static char name[16];
    snprintf(name, sizeof name, "s%d", runner->sub);
    return name;
}

static void runner_claim(struct runner *runner);

static void runner_next(struct runner *runner)
{
    if (!runner->over) {
        runner_claim(runner);
        return;
    }
    if (--storm.running == 0)
        storm.over = true;
}

/* All answers of how the attempt ended are there. */
static void runner_ended(struct runner *runner)
{
    if (runner->reserved)
        storm.charged += runner->expired ? runner->worst : runner->actual;
    if (runner->expired == runner->settled_by_worker)
        fail_msg("s%d: attempt %s ended %s", runner->sub, runner->token,
                 runner->expired ? "twice" : "never");
    runner_next(runner);
}

static void committed(void *ctx, enum queue_status status, const char *err)
{
    struct runner *runner = ctx;
    if (status != QUEUE_OK && status != QUEUE_DUP && status != QUEUE_STALE)
        fail_msg("commit: %s %s", queue_status_name(status), err);
    if (status == QUEUE_OK)
        runner->over = runner->settled_by_worker = true;
    if (--runner->missing == 0)
        runner_ended(runner);
}

/* RETRY is also the answer when the lease was taken back before, so it does not tell who did. */
static void failed(void *ctx, enum queue_status status, const char *err)
{
    struct runner *runner = ctx;
    if (status != QUEUE_RETRY && status != QUEUE_STALE)
        fail_msg("fail: %s %s", queue_status_name(status), err);
    if (--runner->missing == 0) {
        runner->settled_by_worker = !runner->expired;
        runner_ended(runner);
    }
}

static void expired(void *ctx, enum queue_status status, const char *err)
{
    struct runner *runner = ctx;
    if (status != QUEUE_RETRY && status != QUEUE_STALE)
        fail_msg("expire: %s %s", queue_status_name(status), err);
    runner->expired = runner->expired || status == QUEUE_RETRY;
    runner->losses += status == QUEUE_RETRY;
    storm.expiries += status == QUEUE_RETRY;
    if (--runner->missing > 0)
        return;
    if (!runner->expired)
        runner->settled_by_worker = true;
    runner_ended(runner);
}

static void send_commit(struct runner *runner)
{
    struct queue_spend spent = {runner->actual, runner->actual / 1000};
    runner->missing++;
    queue_commit(any_client(), T, name_of(runner), runner->token,
                 (struct bytes){storm.outcome.data, storm.outcome.len},
                 (struct bytes){storm.timing.data, storm.timing.len}, &spent, committed, runner);
}

static void send_fail(struct runner *runner)
{
    static const enum error_action actions[] = {ERROR_RETRY, ERROR_WAIT, ERROR_MOVE};
    struct queue_spend spent = {runner->actual, runner->actual / 1000};
    runner->missing++;
    queue_fail(any_client(), T, name_of(runner), runner->token, CLASS_TIMEOUT, actions[below(3)],
               "so it goes", "m@p", 0, (struct bytes){storm.timing.data, storm.timing.len}, &spent,
               failed, runner);
}

static void send_expire(struct runner *runner)
{
    runner->missing++;
    queue_expire(any_client(), T, name_of(runner), expired, runner);
}

static void runner_end(struct runner *runner)
{
    runner->settled_by_worker = runner->expired = false;
    bool may_expire = runner->losses < MOST_LOSSES;
    bool commits = below(4) == 0, races = below(4) == 0 && may_expire;
    if (below(6) == 0 && may_expire) { /* the worker is gone */
        for (int i = below(2); i >= 0; i--)
            send_expire(runner);
        return;
    }
    for (int i = below(3) == 0; i >= 0; i--)
        commits ? send_commit(runner) : send_fail(runner);
    if (races)
        send_expire(runner);
}

static void reserved(void *ctx, enum queue_status status, const char *err)
{
    struct runner *runner = ctx;
    runner->reserved = status == QUEUE_OK;
    storm.waits += status == QUEUE_WAIT;
    storm.refusals += status == QUEUE_BUDGET;
    if (status == QUEUE_BUDGET || status == QUEUE_WAIT)
        assert_true(strlen(err) > 0);
    else if (status != QUEUE_OK)
        fail_msg("reserve: %s %s", queue_status_name(status), err);
    if (--runner->missing > 0)
        return;
    if (runner->reserved) {
        runner_end(runner);
        return;
    }
    runner->over = status == QUEUE_BUDGET;
    runner->actual = 0; /* the call was not made */
    runner->settled_by_worker = runner->expired = false;
    send_fail(runner);
}

/* The figures may change with a further call of the same attempt; the last ones count. */
static void send_reserve(struct runner *runner, struct queue *client)
{
    static const struct queue_account accounts[] = {{"day", {DAY_CENTS * CENT, 0}},
                                                    {"task-role:coder", {TASK_CENTS * CENT, 0}},
                                                    {"role:coder", {0, 100000000}}};
    runner->worst = 1 + (int64_t)below(30) * CENT + below(1000);
    runner->missing++;
    queue_reserve(client, T, name_of(runner), runner->token, accounts, 3,
                  (struct queue_spend){runner->worst, runner->worst / 1000}, reserved, runner);
}

static void storm_claimed(void *ctx, enum queue_status status, const struct queue_claim *claimed,
                          const char *err)
{
    struct runner *runner = ctx;
    if (status != QUEUE_OK)
        fail_msg("claim: %s %s", queue_status_name(status), err);
    storm.attempts++;
    snprintf(runner->token, sizeof runner->token, "%s", claimed->token);
    struct queue *client = any_client();
    for (int i = below(4) == 0; i >= 0; i--)
        send_reserve(runner, client);
    runner->actual = (int64_t)(storm.seed % (uint64_t)(runner->worst + 1));
}

static void runner_claim(struct runner *runner)
{
    queue_claim(any_client(), T, name_of(runner), "w", "m@p", "n", 0, false, storm_claimed, runner);
}

static void watch(void);

static void watched(void *ctx, enum queue_status status, const struct queue_task_view *view,
                    const char *err)
{
    (void)ctx;
    if (status != QUEUE_OK)
        fail_msg("read: %s %s", queue_status_name(status), err);
    int64_t sum = view->spent.nano_usd + view->held.nano_usd;
    storm.most = sum > storm.most ? sum : storm.most;
    assert_true(sum <= TASK_CENTS * CENT);
    if (!storm.over)
        watch();
}

static void watched_day(void *ctx, const struct queue_spend *spent, const struct queue_spend *held,
                        size_t n, const char *err)
{
    (void)ctx;
    assert_string_equal(err, "");
    assert_int_equal(n, 1);
    assert_true(spent->nano_usd + held->nano_usd <= DAY_CENTS * CENT);
}

static void watch(void)
{
    static const char *const day = "day";
    queue_accounts(probe.queue, &day, 1, watched_day, NULL);
    queue_read(probe.queue, T, false, watched, NULL);
}

static void submit(void)
{
    static char ids[SUBS][16];
    struct probe_node nodes[SUBS];
    for (int i = 0; i < SUBS; i++) {
        snprintf(ids[i], sizeof ids[i], "s%d", i);
        nodes[i] = (struct probe_node){.id = ids[i], .max_attempts = 1000};
    }
    probe.budget = (struct queue_spend){TASK_CENTS * CENT, 0};
    assert_int_equal(probe_submit(&probe, T, "d", nodes, SUBS), QUEUE_OK);
}

static void two_hundred_at_once_never_overspend(void **state)
{
    (void)state;
    memset(&storm, 0, sizeof storm);
    const char *given = getenv("ORCH_SEED");
    storm.seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)clock_ns() | 1;
    fprintf(stderr, "ORCH_SEED=%llu\n", (unsigned long long)storm.seed);
    probe_record(&storm.outcome, MESSAGE_outcome, "o");
    probe_record(&storm.timing, MESSAGE_timing, "t");
    struct redis_options options = fixture_redis_options(&probe.fixture);
    struct err err;
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(queue_open(&storm.clients[i], &probe.loop, &options, NULL, NULL, &err), 0);
    submit();
    watch();
    storm.running = SUBS;
    for (int i = 0; i < SUBS; i++) {
        storm.runners[i].sub = i;
        runner_claim(&storm.runners[i]);
    }
    probe_wait_for(&probe, &storm.over);
    probe_read(&probe, T);
    assert_true(probe.view_held.nano_usd == 0);
    assert_true(probe.view_spent.nano_usd == storm.charged);
    probe_account(&probe, "day");
    assert_true(probe.view_spent.nano_usd == storm.charged && probe.view_held.nano_usd == 0);
    assert_int_equal(probe_fsck(&probe), 0);
    /* What was to be tested has happened. */
    assert_true(storm.attempts > SUBS && storm.waits > 0 && storm.refusals > 0);
    assert_true(storm.expiries > 0 && storm.most > DAY_CENTS * CENT * 9 / 10);
    for (int i = 0; i < CLIENTS; i++)
        queue_close(&storm.clients[i]);
    buf_release(&storm.outcome);
    buf_release(&storm.timing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(two_hundred_at_once_never_overspend, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
