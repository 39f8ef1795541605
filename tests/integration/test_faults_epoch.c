/* Redis emptied, replaced or put back to an older copy, by mistake: nobody works in it, and nothing
 * that was received is lost, until it is put right or a person says that it is no mistake. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka wants the three above first. */
#include <cmocka.h>

#include "tests/lib/probe.h"
#include "tests/lib/stage.h"

/* --- at the queue ----------------------------------------------------------------------------- */

struct guarded {
    struct probe probe;
    char path[128], why[1024];
    int told;
    bool follows;        /* it does not lead */
    bool known, foreign; /* the last that was told */
};

static void told(void *ctx, const char *why)
{
    struct guarded *guarded = ctx;
    snprintf(guarded->why, sizeof guarded->why, "%s", why);
    guarded->foreign = why[0] != '\0';
    guarded->known = !guarded->foreign;
    guarded->told++;
}

static void guard(struct guarded *guarded)
{
    queue_guard(guarded->probe.queue, guarded->path, !guarded->follows, told, guarded);
}

static void guarded_open(struct guarded *guarded)
{
    memset(guarded, 0, sizeof *guarded);
    probe_open(&guarded->probe);
    snprintf(guarded->path, sizeof guarded->path, "%s/w.epoch", guarded->probe.fixture.dir);
    guard(guarded);
    probe_wait_for(&guarded->probe, &guarded->known);
}

/* The same process starts again: all that it knows is in its file. */
static void guarded_reopen(struct guarded *guarded)
{
    struct probe *probe = &guarded->probe;
    struct redis_options options = fixture_redis_options(&probe->fixture);
    queue_close(&probe->queue);
    assert_int_equal(queue_open(&probe->queue, &probe->loop, &options, NULL, NULL, NULL), 0);
    guarded->known = guarded->foreign = false;
    guard(guarded);
}

static void shell(const struct fixture *fixture, const char *script)
{
    char command[256];
    snprintf(command, sizeof command, "cd %s && %s", fixture->dir, script);
    assert_int_equal(system(command), 0);
}

static void restart_redis(struct fixture *fixture, const char *script)
{
    fixture_redis_kill(fixture, SIGKILL);
    shell(fixture, script);
    fixture_redis_start(fixture);
}

static const struct probe_node one[] = {{.id = "a"}};

static void a_commit_into_an_emptied_redis_is_refused_and_succeeds_when_it_is_restored(void **state)
{
    (void)state;
    struct guarded guarded;
    guarded_open(&guarded);
    struct probe *probe = &guarded.probe;
    char token[128];
    assert_int_equal(probe_submit(probe, "t0000000000000001", "d", one, 1), QUEUE_OK);
    assert_int_equal(probe_claim(probe, "t0000000000000001", "a", "n1"), QUEUE_OK);
    snprintf(token, sizeof token, "%s", probe->token);
    shell(&probe->fixture, "cp -r redis copy");
    probe_redis(probe, "FLUSHALL");
    /* Whichever comes first, before anyone has looked. */
    assert_int_equal(probe_renew(probe, "t0000000000000001", "a", token, 5000), QUEUE_REFUSED);
    assert_int_equal(probe_commit(probe, "t0000000000000001", "a", token), QUEUE_REFUSED);
    assert_non_null(strstr(probe->err, "was emptied"));
    assert_non_null(strstr(probe->err, "--accept-new-epoch"));
    assert_true(guarded.foreign);
    assert_int_equal(probe_submit(probe, "t0000000000000002", "d", one, 1), QUEUE_REFUSED);
    assert_string_equal(probe_redis(probe, "DBSIZE"), "0"); /* nothing was written into it */

    guarded.known = false;
    restart_redis(&probe->fixture, "rm -rf redis && mv copy redis");
    probe_wait_for(probe, &guarded.known);
    assert_int_equal(probe_commit(probe, "t0000000000000001", "a", token), QUEUE_OK);
    assert_int_equal(probe_fsck(probe), 0);
    probe_close(probe);
}

static void a_commit_is_refused_also_when_somebody_gave_the_empty_redis_an_epoch(void **state)
{
    (void)state;
    struct guarded guarded;
    guarded_open(&guarded);
    struct probe *probe = &guarded.probe;
    assert_int_equal(probe_submit(probe, "t0000000000000001", "d", one, 1), QUEUE_OK);
    assert_int_equal(probe_claim(probe, "t0000000000000001", "a", "n1"), QUEUE_OK);
    restart_redis(&probe->fixture, "rm -rf redis && mkdir redis");
    probe_redis(probe, "HSET orch:{d}:epoch id 0123456789abcdef0123456789abcdef time 1 accepted 0");
    assert_int_equal(probe_commit(probe, "t0000000000000001", "a", probe->token), QUEUE_REFUSED);
    assert_true(guarded.foreign);
    probe_close(probe);
}

static void who_starts_on_an_empty_redis_remembers_that_it_knew_another_one(void **state)
{
    (void)state;
    struct guarded guarded;
    guarded_open(&guarded);
    struct probe *probe = &guarded.probe;
    guarded_reopen(&guarded);
    probe_wait_for(probe, &guarded.known);
    probe_redis(probe, "FLUSHALL");
    guarded_reopen(&guarded);
    probe_wait_for(probe, &guarded.foreign);
    assert_string_equal(probe_redis(probe, "DBSIZE"), "0");
    probe_close(probe);
}

static void who_follows_makes_an_epoch_where_none_is_and_otherwise_reads_it(void **state)
{
    (void)state;
    struct guarded guarded;
    guarded_open(&guarded);
    struct probe *probe = &guarded.probe;
    guarded.follows = true;
    guarded_reopen(&guarded);
    probe_wait_for(probe, &guarded.known);
    probe_redis(probe, "FLUSHALL");
    guarded_reopen(&guarded);
    probe_wait_for(probe, &guarded.foreign);
    assert_string_equal(probe_redis(probe, "DBSIZE"), "0");
    assert_int_equal(unlink(guarded.path), 0); /* as if it had never seen one */
    guarded_reopen(&guarded);
    probe_wait_for(probe, &guarded.known);
    assert_string_equal(probe_redis(probe, "DBSIZE"), "1");
    probe_close(probe);
}

static void an_older_copy_is_noticed_and_a_crash_that_lost_seconds_is_not_one(void **state)
{
    (void)state;
    struct guarded guarded;
    guarded_open(&guarded);
    struct probe *probe = &guarded.probe;
    char command[128];
    probe_redis(probe, "HGET orch:{d}:epoch time");
    long long now = atoll(probe->text.data);
    assert_int_equal(probe_submit(probe, "t0000000000000001", "d", one, 1), QUEUE_OK);
    snprintf(command, sizeof command, "HSET orch:{d}:epoch time %lld", now - 30);
    probe_redis(probe, command);
    assert_int_equal(probe_commit(probe, "t0000000000000001", "a", "1-x"), QUEUE_STALE);
    snprintf(command, sizeof command, "HSET orch:{d}:epoch time %lld", now - 3600);
    probe_redis(probe, command);
    assert_int_equal(probe_commit(probe, "t0000000000000001", "a", "1-x"), QUEUE_REFUSED);
    assert_non_null(strstr(probe->err, "older copy"));
    probe_close(probe);
}

static void everyone_goes_on_with_another_redis_once_a_person_has_accepted_it(void **state)
{
    (void)state;
    struct guarded guarded;
    guarded_open(&guarded);
    struct probe *probe = &guarded.probe;
    probe_redis(probe, "FLUSHALL");
    assert_int_equal(probe_commit(probe, "t0000000000000001", "a", "1-x"), QUEUE_REFUSED);
    guarded.known = false;
    const char *argv[] = {"orchestrator", "fsck", "--accept-new-epoch", "--config", NULL, NULL};
    struct buf yaml = {0};
    buf_printf(&yaml, "redis: unix://%s\n", probe->fixture.redis_socket);
    argv[4] = fixture_write(&probe->fixture, "config.yaml", yaml.data);
    buf_release(&yaml);
    assert_int_equal(fixture_run(&probe->fixture, argv, NULL, NULL), 0);
    probe_wait_for(probe, &guarded.known);
    assert_int_equal(probe_commit(probe, "t0000000000000001", "a", "1-x"), QUEUE_GONE);
    assert_int_equal(probe_submit(probe, "t0000000000000001", "d", one, 1), QUEUE_OK);
    guarded_reopen(&guarded); /* it remembers the new one */
    probe_wait_for(probe, &guarded.known);
    probe_close(probe);
}

/* --- the programs ----------------------------------------------------------------------------- */

static const char yaml[] = "providers:\n"
                           "  sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
                           "models:\n"
                           "  m: {provider: sim, name: m, local: true}\n"
                           "workers:\n"
                           "  - {name: w0, provider: sim, concurrency: 4}\n"
                           "roles:\n"
                           "  general: {models: [m]}\n";
static const char scenario[] = "rules:\n"
                               "  - tokens: 20\n"
                               "    timing: {decode_tps: 20, prefill_tps: 0}\n";

static bool has_calls(void *ctx)
{
    struct stage *stage = ctx;
    json_t *calls = stage_calls(stage);
    bool has = json_array_size(calls) >= 4;
    json_decref(calls);
    return has;
}

static void answers_that_arrive_while_redis_is_empty_are_committed_when_it_is_restored(void **state)
{
    (void)state;
    struct stage stage;
    stage_open(&stage, yaml, scenario, (const char *[]){"w0", NULL});
    struct fixture *fixture = &stage.testbed.fixture;
    char id[TASK_ID_SIZE];
    stage_submit(&stage, &(struct stage_task){.mark = "work", .n = 4}, id);
    assert_true(fixture_wait(has_calls, &stage, STAGE_WAIT_MS));
    restart_redis(fixture, "cp -r redis copy && rm -rf redis && mkdir redis");
    assert_true(fixture_wait_text(fixture, "w0.4.log", "was emptied", STAGE_WAIT_MS));
    assert_true(fixture_wait_text(fixture, "daemon.3.log", "was emptied", STAGE_WAIT_MS));
    /* A worker that starts now does not take it for the right one either. */
    fixture_kill(fixture, stage.testbed.workers[0], SIGKILL);
    pid_t pid = fixture_spawn(fixture, "again.log",
                              (const char *[]){"orchestrator-worker", "--name", "w0", "--config",
                                               stage.testbed.config, "--ready-fd", "1", NULL});
    assert_int_not_equal(fixture_wait_exit(fixture, pid, STAGE_WAIT_MS), 0);
    assert_true(fixture_wait_text(fixture, "again.log", "was emptied", 0));

    restart_redis(fixture, "rm -rf redis && mv copy redis");
    testbed_start_worker(&stage.testbed, 0, "w0");
    struct stage_view view = stage_wait(&stage, id);
    assert_int_equal(view.state, TASK_DONE);
    assert_int_equal(view.n_done, 4);
    stage_close(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            a_commit_into_an_emptied_redis_is_refused_and_succeeds_when_it_is_restored),
        cmocka_unit_test(a_commit_is_refused_also_when_somebody_gave_the_empty_redis_an_epoch),
        cmocka_unit_test(who_starts_on_an_empty_redis_remembers_that_it_knew_another_one),
        cmocka_unit_test(who_follows_makes_an_epoch_where_none_is_and_otherwise_reads_it),
        cmocka_unit_test(an_older_copy_is_noticed_and_a_crash_that_lost_seconds_is_not_one),
        cmocka_unit_test(everyone_goes_on_with_another_redis_once_a_person_has_accepted_it),
        cmocka_unit_test(
            answers_that_arrive_while_redis_is_empty_are_committed_when_it_is_restored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
