/* What a failover may lose: with `replicas`, no commit that was acknowledged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>

#include "common/queue.h"
#include "common/task_id.h"
#include "schemas/mem.h"
#include "tests/lib/probe.h"
#include "tests/lib/servers.h"

#define WAIT_MS 90000
enum { FIRST, SECOND };

static struct {
    struct fixture fixture;
    struct servers servers;
    uv_loop_t loop;
} c;

#define SUBS 200
#define AT_ONCE 16
#define KILL_AT 40                        /* acknowledged commits */
#define OUTCOME_BYTES ((size_t)64 * 1024) /* so that they don't all fit into a socket's buffer */

enum { TO_CLAIM, CLAIMING, TO_COMMIT, COMMITTING, ACKNOWLEDGED, REREAD };

struct sub {
    int state;
    bool was_acknowledged, there;
    char token[128];
    char id[16];
};

static struct {
    struct queue *queue;
    struct sub subs[SUBS];
    char task[TASK_ID_SIZE];
    struct buf outcome, work, meta, timing;
    int acknowledged, refused, under_way, reread, limit;
    int standing; /* acknowledged while the replica stood still */
    bool failed, submitted, reached, done;
    char why[1024];
} load;

static void advance(void);

static void claimed(void *ctx, enum queue_status status, const struct queue_claim *claim,
                    const char *err)
{
    struct sub *sub = ctx;
    load.under_way--;
    sub->state = TO_CLAIM;
    if (status == QUEUE_OK) {
        snprintf(sub->token, sizeof sub->token, "%s", claim->token);
        sub->state = TO_COMMIT;
    } else if (status != QUEUE_REFUSED && status != QUEUE_TAKEN) {
        load.failed = true;
        snprintf(load.why, sizeof load.why, "claim of %s: %s %s", sub->id,
                 queue_status_name(status), err);
    }
}

static void committed(void *ctx, enum queue_status status, const char *err)
{
    struct sub *sub = ctx;
    load.under_way--;
    switch (status) {
    case QUEUE_OK:
    case QUEUE_DUP:
        sub->state = ACKNOWLEDGED;
        sub->was_acknowledged = true;
        load.acknowledged++;
        load.reached = load.reached || load.acknowledged >= KILL_AT;
        break;
    case QUEUE_REFUSED: /* not replicated yet, or nothing is written now: repeat */
        sub->state = TO_COMMIT;
        load.refused++;
        snprintf(load.why, sizeof load.why, "%s", err);
        break;
    case QUEUE_STALE: /* the claim was lost with the master */
        sub->state = TO_CLAIM;
        break;
    default:
        load.failed = true;
        snprintf(load.why, sizeof load.why, "commit of %s: %s %s", sub->id,
                 queue_status_name(status), err);
    }
}

static void advance_one(struct sub *sub)
{
    char nonce[24];
    if (sub->state == TO_CLAIM) {
        snprintf(nonce, sizeof nonce, "n%s", sub->id);
        sub->state = CLAIMING;
        load.under_way++;
        queue_claim(load.queue, load.task, sub->id, "worker", "model@place", nonce, 600000, false,
                    claimed, sub);
    } else if (sub->state == TO_COMMIT) {
        sub->state = COMMITTING;
        load.under_way++;
        struct bytes outcome = {load.outcome.data, load.outcome.len};
        queue_commit(load.queue, load.task, sub->id, sub->token, outcome,
                     (struct bytes){load.timing.data, load.timing.len}, NULL, committed, sub);
    }
}

static void advance(void)
{
    for (int i = 0; i < load.limit && load.under_way < AT_ONCE; i++)
        advance_one(&load.subs[i]);
}

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx;
    load.submitted = status == QUEUE_OK || status == QUEUE_DUP;
    if (!load.submitted)
        snprintf(load.why, sizeof load.why, "%s: %s", queue_status_name(status), err);
}

/* Goes on until the flag, or for that long. */
static void run_load(const bool *flag, int64_t ms)
{
    bool tick = false;
    for (int64_t at = 0; at < ms && !*flag && !load.failed; at += 5) {
        advance();
        loop_run_until(&c.loop, &tick, 5);
    }
    if (load.failed)
        print_error("%s\n", load.why);
    assert_false(load.failed);
}

static void reread(void *ctx, enum queue_status status, struct bytes record, const char *err)
{
    struct sub *sub = ctx;
    (void)err;
    sub->there = status == QUEUE_OK && record.len == load.outcome.len;
    load.done = ++load.reread == SUBS;
}

/* Acknowledged commits that are not there. */
static int count_lost(void)
{
    int lost = 0;
    load.reread = 0;
    load.done = false;
    for (int i = 0; i < SUBS; i++)
        queue_result(load.queue, load.task, load.subs[i].id, reread, &load.subs[i]);
    assert_int_equal(loop_run_until(&c.loop, &load.done, WAIT_MS), 0);
    for (int i = 0; i < SUBS; i++)
        lost += load.subs[i].was_acknowledged && !load.subs[i].there;
    return lost;
}

static void open_load(int replicas)
{
    memset(&load, 0, sizeof load);
    load.limit = SUBS;
    char master[] = "mymaster";
    struct redis_options options = {.sentinels = c.servers.list + SERVERS_SENTINEL,
                                    .n_sentinels = SERVERS_SENTINELS,
                                    .master = master,
                                    .replicas = replicas,
                                    .replicas_timeout_ms = 100};
    struct err err = {""};
    assert_int_equal(queue_open(&load.queue, &c.loop, &options, NULL, NULL, &err), 0);
    probe_record(&load.work, MESSAGE_work, "w");
    probe_record(&load.meta, MESSAGE_meta, "m");
    probe_record(&load.timing, MESSAGE_timing, "t");
    struct queue_node *nodes = mem_must_zalloc(SUBS * sizeof *nodes);
    for (int i = 0; i < SUBS; i++) {
        struct sub *sub = &load.subs[i];
        snprintf(sub->id, sizeof sub->id, "s%d", i);
        nodes[i] = (struct queue_node){.id = sub->id,
                                       .work = {load.work.data, load.work.len},
                                       .meta = {load.meta.data, load.meta.len},
                                       .max_attempts = 100};
    }
    char *filler = mem_must_zalloc(OUTCOME_BYTES + 1);
    memset(filler, 'x', OUTCOME_BYTES);
    probe_record(&load.outcome, MESSAGE_outcome, filler);
    free(filler);
    task_id_make(load.task);
    struct queue_task task = {.id = load.task,
                              .digest = "d",
                              .title = "t",
                              .info = {"{}", 2},
                              .nodes = nodes,
                              .n_nodes = SUBS};
    queue_submit(load.queue, &task, submitted, NULL);
    assert_int_equal(loop_run_until(&c.loop, &load.submitted, WAIT_MS), 0);
    free(nodes);
}

static void close_load(void)
{
    queue_close(&load.queue);
    struct buf *bufs[] = {&load.outcome, &load.work, &load.meta, &load.timing};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++)
        buf_release(bufs[i]);
}

/* The worst moment: the replica lags, commits go on for a while, then the master is killed and the
 * replica, which is awake again, takes its place. Returns how many acknowledged commits are lost.
 */
static int lose_master(void)
{
    run_load(&load.reached, WAIT_MS);
    assert_true(load.acknowledged >= KILL_AT);
    servers_signal(&c.servers, SECOND, SIGSTOP);
    bool never = false;
    run_load(&never, 200); /* what was on its way is answered */
    int before = load.acknowledged;
    run_load(&never, 400); /* in all shorter than the sentinels' patience with the replica */
    load.standing = load.acknowledged - before;
    servers_kill(&c.servers, FIRST, SIGKILL);
    servers_signal(&c.servers, SECOND, SIGCONT);
    load.limit = 0; /* what is under way is answered, and no more */
    while (load.under_way > 0)
        loop_run_until(&c.loop, &never, 5);
    servers_wait(&c.servers, SECOND, "role", "master");
    int lost = count_lost();
    print_message("%d commits acknowledged before the replica stood still, %d while it did; %d "
                  "were told to be repeated; %d of those acknowledged are lost\n",
                  before, load.standing, load.refused, lost);
    return lost;
}

/* All is done in the end, also by those that have to do it again. */
static void finish_load(void)
{
    int all = 0;
    bool done = false;
    load.limit = SUBS;
    for (int i = 0; i < SUBS; i++)
        if (load.subs[i].was_acknowledged && !load.subs[i].there)
            load.subs[i].state = TO_CLAIM; /* an expired lease would do it */
    for (int64_t ms = 0; ms < WAIT_MS && all < SUBS; ms += 50) {
        run_load(&done, 50);
        all = 0;
        for (int i = 0; i < SUBS; i++)
            all += load.subs[i].state == ACKNOWLEDGED;
    }
    assert_int_equal(all, SUBS);
}

static void finding(void *ctx, const char *task, const char *sub, const char *text)
{
    (void)ctx;
    print_error("%s %s: %s\n", task, sub, text);
}

static void fsck_done(void *ctx, int64_t tasks, int64_t findings, const char *err)
{
    bool *done = ctx;
    assert_string_equal(err, "");
    assert_int_equal(findings, 0);
    assert_int_equal(tasks, 1);
    *done = true;
}

static void with_replicas_no_acknowledged_commit_is_lost_with_the_master(void **state)
{
    (void)state;
    servers_start_replicated(&c.servers);
    /* As docs/operations.md says: a master without replicas takes nothing. */
    for (int i = FIRST; i <= SECOND; i++)
        servers_ask(&c.servers, i, "config set min-replicas-to-write 1 min-replicas-max-lag 10");
    open_load(1);
    assert_int_equal(lose_master(), 0);
    assert_int_equal(load.standing, 0);
    assert_true(load.refused > 0); /* the test had something to lose */
    /* The old master comes back with what nobody has; it becomes a replica and drops that. */
    servers_start(&c.servers, FIRST, (const char *[]){"--min-replicas-to-write", "1", NULL});
    servers_wait(&c.servers, FIRST, "role", "slave");
    finish_load();
    assert_int_equal(count_lost(), 0);
    bool done = false;
    queue_fsck(load.queue, finding, fsck_done, &done);
    assert_int_equal(loop_run_until(&c.loop, &done, WAIT_MS), 0);
}

static void without_replicas_what_is_lost_with_the_master_is_run_again(void **state)
{
    (void)state;
    servers_start_replicated(&c.servers);
    open_load(0);
    lose_master(); /* may lose what was acknowledged: that is what `replicas` is for */
    finish_load();
    bool done = false;
    queue_fsck(load.queue, finding, fsck_done, &done);
    assert_int_equal(loop_run_until(&c.loop, &done, WAIT_MS), 0);
}

static int setup(void **state)
{
    (void)state;
    memset(&c, 0, sizeof c);
    fixture_init(&c.fixture);
    servers_init(&c.servers, &c.fixture);
    loop_init(&c.loop);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close_load();
    loop_finish(&c.loop);
    fixture_release(&c.fixture);
    return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(with_replicas_no_acknowledged_commit_is_lost_with_the_master),
        TEST(without_replicas_what_is_lost_with_the_master_is_run_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
