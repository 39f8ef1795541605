/* Outboxes, logs, indexes, lists: what others read of the queue. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "tests/lib/probe.h"

#define T "t0000000000000001"
#define U "t0000000000000002"

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

static const struct probe_node one[] = {{.id = "a"}};
static const struct probe_node join[] = {{.id = "a"}, {.id = "b"}, {.id = "c", .deps = "a b"}};

/* --- outbox ------------------------------------------------------------------------------- */

static void events_are_complete_and_in_order(void **state)
{
    (void)state;
    probe_follow(&probe);
    probe_submit(&probe, T, "d", join, 3);
    probe_run(&probe, T, "a");
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "b", "1-n", ERROR_RETRY, 0), QUEUE_RETRY);
    probe_run(&probe, T, "b");
    probe_run(&probe, T, "c");
    probe_wait_text(&probe, &probe.events, "TASK " T " DONE\n");
    assert_string_equal(probe.events.data, "SUBMITTED " T "\n"
                                           "READY " T "/a\n"
                                           "READY " T "/b\n"
                                           "DONE " T "/a\n"
                                           "FAIL " T "/b timeout (it took too long)\n"
                                           "READY " T "/b\n"
                                           "DONE " T "/b\n"
                                           "READY " T "/c\n"
                                           "DONE " T "/c\n"
                                           "TASK " T " DONE\n");
}

static void a_death_is_told_with_its_reason(void **state)
{
    (void)state;
    probe_follow(&probe);
    probe_submit(&probe, T, "d", one, 1);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_DEAD, 0), QUEUE_DEAD);
    probe_wait_text(&probe, &probe.events, "TASK " T " FAILED\n");
    assert_non_null(strstr(probe.events.data, "FAIL " T "/a timeout (it took too long)\n"
                                              "DEAD " T "/a timeout (it took too long)\n"));
}

static void checkpoint_all(void)
{
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        if (probe.last_event[shard][0] != '\0')
            queue_checkpoint(probe.queue, shard, probe.last_event[shard]);
}

static void following_resumes_behind_the_checkpoint(void **state)
{
    (void)state;
    probe_follow(&probe);
    probe_submit(&probe, T, "d", join, 3);
    probe_wait_text(&probe, &probe.events, "READY " T "/b\n");
    checkpoint_all();
    probe_run(&probe, T, "a");
    probe_wait_text(&probe, &probe.events, "DONE " T "/a\n");
    buf_clear(&probe.events);
    probe_follow(&probe); /* anew, as another daemon would */
    probe_wait_text(&probe, &probe.events, "DONE " T "/a\n");
    assert_string_equal(probe.events.data, "DONE " T "/a\n");
}

static void following_survives_a_restart_of_redis(void **state)
{
    (void)state;
    probe_follow(&probe);
    probe_submit(&probe, T, "d", join, 3);
    probe_wait_text(&probe, &probe.events, "READY " T "/b\n");
    fixture_redis_kill(&probe.fixture, SIGKILL);
    fixture_redis_start(&probe.fixture);
    probe_run(&probe, T, "a");
    probe_run(&probe, T, "b");
    probe_wait_text(&probe, &probe.events, "READY " T "/c\n");
    assert_string_equal(probe.events.data, "SUBMITTED " T "\n"
                                           "READY " T "/a\n"
                                           "READY " T "/b\n"
                                           "DONE " T "/a\n"
                                           "DONE " T "/b\n"
                                           "READY " T "/c\n");
}

static void damaged_entries_are_skipped(void **state)
{
    (void)state;
    char words[256];
    for (size_t i = 0; i < 2; i++) {
        snprintf(words, sizeof words,
                 i == 0 ? "XADD orch:{s%d}:ev * nonsense x" : "XADD orch:{s%d}:ev * a b c d",
                 task_shard(T));
        probe_redis(&probe, words);
    }
    char key[64];
    snprintf(key, sizeof key, "orch:{s%d}:ev", task_shard(T));
    static const char *const headers[] = {
        "READY " T " a 0 0 0 - SUBMITTED",
        "READY " T " a x 0 0 - - ",
        "READY " T "  0 0 0 - - ",
        "FLY " T " a 0 0 0 - - ",
        "TASK " T " - 0 0 0 - NOWHERE ",
        "TASK " T " a 0 0 0 - DONE ",
        "READY " T " a 99999999999999999999 0 0 - - ",
        "",
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        const char *argv[] = {"XADD", key, "*", headers[i], "\x81\xff"};
        redis_command(queue_redis(probe.queue), NULL, NULL, 5, argv, NULL);
    }
    probe_follow(&probe);
    probe_submit(&probe, T, "d", one, 1);
    probe_wait_text(&probe, &probe.events, "READY " T "/a\n");
    assert_string_equal(probe.events.data, "SUBMITTED " T "\nREADY " T "/a\n");
}

static void a_checkpoint_trims_the_outbox(void **state)
{
    (void)state;
    probe_follow(&probe);
    probe_submit(&probe, T, "d", one, 1);
    for (int i = 0; i < 500; i++) {
        probe_sub(&probe, queue_hold, T, "a");
        probe_sub(&probe, queue_release, T, "a");
    }
    while (probe.n_events < 502)
        uv_run(&probe.loop, UV_RUN_ONCE);
    checkpoint_all();
    char words[64];
    snprintf(words, sizeof words, "XLEN orch:{s%d}:ev", task_shard(T));
    assert_true(atoi(probe_redis(&probe, words)) < 200);
}

/* --- log ---------------------------------------------------------------------------------- */

static void the_log_tells_the_life_of_a_task(void **state)
{
    (void)state;
    probe_submit(&probe, T, "d", join, 3);
    probe_follow_log(&probe, T, "0");
    probe_run(&probe, T, "a");
    queue_log_note(probe.queue, T, "", "someone looks");
    probe_run(&probe, T, "b");
    assert_int_equal(probe_claim(&probe, T, "c", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "c", "1-n", ERROR_RETRY, 0), QUEUE_RETRY);
    probe_run(&probe, T, "c");
    probe_wait_text(&probe, &probe.log, "task-done\n");
    assert_string_equal(probe.log.data, "submitted\n"
                                        "running a\ndone a\n"
                                        "note\n"
                                        "running b\ndone b\n"
                                        "ready c\nrunning c\nretry c\nready c\n"
                                        "running c\ndone c\ntask-done\n");
}

static void the_log_of_the_past_is_read_as_well(void **state)
{
    (void)state;
    probe_submit(&probe, T, "d", one, 1);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_retry, T), QUEUE_OK);
    assert_int_equal(probe_task(&probe, queue_cancel, T), QUEUE_OK);
    probe_follow_log(&probe, T, "0");
    probe_wait_text(&probe, &probe.log,
                    "submitted\nrunning a\ncancelled a\ntask-cancelled\nretried\nready a\n"
                    "task-cancelled\n");
    queue_log_close(&probe.follow);
    buf_clear(&probe.log);
    probe_follow_log(&probe, T, "1700000000000-3"); /* the id of the third entry */
    probe_wait_text(&probe, &probe.log, "retried\nready a\ntask-cancelled\n");
    assert_null(strstr(probe.log.data, "running"));
}

static void following_a_log_survives_a_restart_of_redis(void **state)
{
    (void)state;
    probe_submit(&probe, T, "d", join, 3);
    probe_follow_log(&probe, T, "0");
    probe_run(&probe, T, "a");
    probe_wait_text(&probe, &probe.log, "done a\n");
    fixture_redis_kill(&probe.fixture, SIGKILL);
    fixture_redis_start(&probe.fixture);
    probe_run(&probe, T, "b");
    probe_run(&probe, T, "c");
    probe_wait_text(&probe, &probe.log, "task-done\n");
    assert_string_equal(probe.log.data, "submitted\nrunning a\ndone a\nrunning b\ndone b\nready c\n"
                                        "running c\ndone c\ntask-done\n");
}

static void a_log_is_bounded(void **state)
{
    (void)state;
    probe_submit(&probe, T, "d", one, 1);
    char script[512], key[64], task_key[64];
    snprintf(key, sizeof key, "orch:{s%d}:log:" T, task_shard(T));
    snprintf(task_key, sizeof task_key, "orch:{s%d}:task:" T, task_shard(T));
    snprintf(script, sizeof script,
             "for i = 1, 60000 do redis.call('RPUSH', KEYS[1], '1 note - 0 - - - - - ' .. i) end");
    const char *argv[] = {"EVAL", script, "1", key};
    redis_command(queue_redis(probe.queue), NULL, NULL, 4, argv, NULL);
    queue_log_note(probe.queue, T, "", "the last one");
    char words[128];
    snprintf(words, sizeof words, "LLEN %s", key);
    assert_string_equal(probe_redis(&probe, words), "50000");
    snprintf(words, sizeof words, "HGET %s dropped", task_key);
    assert_string_equal(probe_redis(&probe, words), "10001");
    probe_follow_log(&probe, T, "0");
    while (probe.log.len < 50000 * strlen("note\n") + strlen("submitted\n"))
        uv_run(&probe.loop, UV_RUN_ONCE);
    assert_int_equal(probe.log.len, 50000 * strlen("note\n") + strlen("submitted\n"));
}

/* --- indexes and lists -------------------------------------------------------------------- */

static void scanned(void *ctx, int shard, const struct queue_item *items, size_t n, const char *err)
{
    assert_int_equal(shard, task_shard(T));
    buf_clear(&probe.text);
    buf_add_str(&probe.text, err);
    for (size_t i = 0; i < n; i++)
        buf_printf(&probe.text, "%s/%s:%lld:%lld:%d:%s:%s ", items[i].task, items[i].sub,
                   (long long)items[i].attempt, (long long)items[i].priority, items[i].meta.len > 0,
                   items[i].avoid, items[i].error_class);
    probe.done = true;
    (void)ctx;
}

static const char *scan(enum queue_index index, int64_t offset, int64_t limit)
{
    queue_scan(probe.queue, task_shard(T), index, offset, limit, scanned, NULL);
    probe_wait(&probe);
    return probe.text.data;
}

static void ready_entries_come_by_priority_then_sequence(void **state)
{
    (void)state;
    const struct probe_node nodes[] = {{.id = "z", .priority = 0},
                                       {.id = "low", .priority = -500},
                                       {.id = "a", .priority = 0},
                                       {.id = "high", .priority = 5},
                                       {.id = "top", .priority = 127}};
    probe_submit(&probe, T, "d", nodes, 5);
    assert_string_equal(scan(QUEUE_INDEX_READY, 0, 10),
                        T "/top:0:127:1:: " T "/high:0:5:1:: " T "/z:0:0:1:: " T "/a:0:0:1:: " T
                          "/low:0:-127:1:: ");
    assert_string_equal(scan(QUEUE_INDEX_READY, 1, 2), T "/high:0:5:1:: " T "/z:0:0:1:: ");
    assert_int_equal(probe_claim(&probe, T, "top", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "top", "1-n", ERROR_MOVE, 0), QUEUE_RETRY);
    assert_string_equal(scan(QUEUE_INDEX_READY, 0, 1), T "/top:1:127:1:model@place:timeout ");
}

static void only_what_is_due_is_scanned(void **state)
{
    (void)state;
    const struct probe_node nodes[] = {{.id = "a"}, {.id = "b"}, {.id = "c"}, {.id = "d"}};
    probe_submit(&probe, T, "d", nodes, 4);
    assert_int_equal(probe_claim_for(&probe, T, "a", "n", 0), QUEUE_OK);
    assert_int_equal(probe_claim_for(&probe, T, "b", "n", 60000), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "c", "n"), QUEUE_OK);
    assert_int_equal(probe_claim(&probe, T, "d", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "c", "1-n", ERROR_RETRY, 1), QUEUE_RETRY);
    assert_int_equal(probe_fail(&probe, T, "d", "1-n", ERROR_RETRY, 60000), QUEUE_RETRY);
    assert_string_equal(scan(QUEUE_INDEX_LEASE, 0, 10), T "/a:1:0:0:: ");
    while (strcmp(scan(QUEUE_INDEX_DELAY, 0, 10), T "/c:1:0:0::timeout ") != 0)
        assert_string_equal(probe.text.data, "");
}

static struct buf why; /* a READY event's arms to avoid and class, in lines */

static void hear_why(void *ctx, const struct queue_event *event)
{
    (void)ctx;
    if (event->kind == QUEUE_EVENT_READY)
        buf_printf(&why, "%s:%s\n", event->avoid, event->error_class);
}

static void what_is_ready_again_says_what_it_avoids_and_why(void **state)
{
    (void)state;
    const struct probe_node node[] = {{.id = "a"}};
    struct err err;
    assert_int_equal(queue_follow(probe.queue, hear_why, NULL, &err), 0);
    probe_submit(&probe, T, "d", node, 1);
    assert_int_equal(probe_claim(&probe, T, "a", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "a", "1-n", ERROR_WAIT, 5000), QUEUE_RETRY);
    probe_wait_text(&probe, &why, ":\nmodel@place=5000:timeout\n");
    assert_string_equal(scan(QUEUE_INDEX_READY, 0, 1), T "/a:1:0:1:model@place=5000:timeout ");
    buf_release(&why);
}

static void counted(void *ctx, const struct queue_depths *depths, const char *err)
{
    assert_string_equal(err, "");
    *(struct queue_depths *)ctx = *depths;
    probe.done = true;
}

static void depths_count_all_shards(void **state)
{
    (void)state;
    for (int i = 0; i < 40; i++) {
        char task[TASK_ID_SIZE];
        task_id_make(task);
        const struct probe_node nodes[] = {{.id = "a"}, {.id = "b"}, {.id = "c"}};
        probe_submit(&probe, task, "d", nodes, 3);
        assert_int_equal(probe_claim(&probe, task, "a", "n"), QUEUE_OK);
        assert_int_equal(probe_sub(&probe, queue_hold, task, "b"), QUEUE_OK);
    }
    struct queue_depths depths;
    queue_depths(probe.queue, counted, &depths);
    probe_wait(&probe);
    assert_int_equal(depths.ready, 40);
    assert_int_equal(depths.running, 40);
    assert_int_equal(depths.held, 40);
    assert_int_equal(depths.delayed + depths.dead, 0);
    assert_int_equal(depths.tasks, 40);
}

static void listed(void *ctx, const struct queue_task_item *items, size_t n, const char *err)
{
    (void)ctx;
    buf_clear(&probe.text);
    buf_add_str(&probe.text, err);
    for (size_t i = 0; i < n; i++)
        buf_printf(&probe.text, "%s:%s:%s:%lld/%lld ", items[i].id, task_state_name(items[i].state),
                   items[i].title, (long long)items[i].remaining, (long long)items[i].total);
    probe.done = true;
}

static void the_list_is_newest_first(void **state)
{
    (void)state;
    char want[4096] = "";
    for (int i = 0; i < 30; i++) {
        char task[32], entry[128], all[4096];
        snprintf(task, sizeof task, "t00000000000000%02d", i);
        probe_submit(&probe, task, "d", one, 1);
        if (i >= 20) {
            snprintf(entry, sizeof entry, "%s:RUNNING:a title:1/1 ", task);
            snprintf(all, sizeof all, "%.100s%.3900s", entry, want);
            memcpy(want, all, sizeof want);
        }
    }
    queue_list(probe.queue, 10, listed, NULL);
    probe_wait(&probe);
    assert_string_equal(probe.text.data, want);
}

static void finished_tasks_are_found_by_age(void **state)
{
    (void)state;
    probe_submit(&probe, T, "d", one, 1);
    probe_submit(&probe, U, "d", one, 1);
    probe_run(&probe, T, "a");
    queue_finished(probe.queue, task_shard(T), 60000, 10, listed, NULL);
    probe_wait(&probe);
    assert_string_equal(probe.text.data, "");
    queue_finished(probe.queue, task_shard(T), 0, 10, listed, NULL);
    probe_wait(&probe);
    assert_string_equal(probe.text.data, T ":DONE:a title:0/1 ");
    assert_int_equal(probe_task(&probe, queue_forget, T), QUEUE_OK);
    queue_finished(probe.queue, task_shard(T), 0, 10, listed, NULL);
    probe_wait(&probe);
    assert_string_equal(probe.text.data, "");
}

/* --- results ------------------------------------------------------------------------------ */

static void got_bytes(void *ctx, enum queue_status status, struct bytes bytes, const char *err)
{
    (void)ctx, (void)err;
    probe.status = status;
    buf_clear(&probe.text);
    buf_add(&probe.text, bytes.data, bytes.len);
    probe.done = true;
}

static void a_result_is_there_after_the_commit(void **state)
{
    (void)state;
    probe_submit(&probe, T, "d", one, 1);
    queue_result(probe.queue, T, "a", got_bytes, NULL);
    probe_wait(&probe);
    assert_int_equal(probe.status, QUEUE_GONE);
    probe_run(&probe, T, "a");
    queue_result(probe.queue, T, "a", got_bytes, NULL);
    probe_wait(&probe);
    assert_int_equal(probe.status, QUEUE_OK);
    struct message outcome = {0};
    assert_int_equal(message_decode_as(&outcome, MESSAGE_outcome, probe.text.data, probe.text.len),
                     0);
    assert_string_equal(outcome.outcome.text.data, "result of a");
    message_release(&outcome);
    queue_work(probe.queue, T, "a", got_bytes, NULL);
    probe_wait(&probe);
    assert_int_equal(probe.status, QUEUE_OK);
}

static void viewed(void *ctx, enum queue_status status, const struct queue_task_view *view,
                   const char *err)
{
    (void)ctx, (void)err;
    assert_int_equal(status, QUEUE_OK);
    assert_string_equal(view->title, "a title");
    assert_string_equal(view->digest, "d");
    assert_int_equal(view->info.len, 2);
    assert_true(view->created_ms > 1600000000000);
    assert_int_equal(view->n_subs, 3);
    assert_int_equal(view->subs[2].n_deps, 2);
    assert_string_equal(view->subs[2].deps[1], "b");
    assert_string_equal(view->subs[0].owner, "worker");
    assert_string_equal(view->subs[0].arm, "model@place");
    assert_true(view->subs[0].outcome.len > 0 && view->subs[0].timing.len > 0);
    assert_true(view->subs[1].meta.len > 0 && view->subs[1].work.len > 0);
    assert_string_equal(view->subs[1].error_class, "timeout");
    assert_string_equal(view->subs[1].reason, "it took too long");
    probe.done = true;
}

static void viewed_without_work(void *ctx, enum queue_status status,
                                const struct queue_task_view *view, const char *err)
{
    (void)ctx, (void)err;
    assert_int_equal(status, QUEUE_OK);
    for (size_t i = 0; i < view->n_subs; i++)
        assert_true(view->subs[i].meta.len > 0);
    probe.done = true;
}

static void a_view_shows_everything(void **state)
{
    (void)state;
    probe_submit(&probe, T, "d", join, 3);
    probe_run(&probe, T, "a");
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "b", "1-n", ERROR_RETRY, 60000), QUEUE_RETRY);
    queue_read(probe.queue, T, true, viewed, NULL);
    probe_wait(&probe);
}

/* The release before this one kept `meta` in a field of its own. */
static void store_as_the_release_before(void)
{
    static const char script[] = "for _, id in ipairs({'a', 'b', 'c'}) do "
                                 "local line = redis.call('HGET', KEYS[1], 'sub:' .. id) "
                                 "local words, meta = line:match('^(.-%d) ([\\128-\\255].*)$') "
                                 "redis.call('HSET', KEYS[1], 'sub:' .. id, words) "
                                 "redis.call('HSET', KEYS[2], 'meta:' .. id, meta) end";
    char task_key[64], data_key[64];
    snprintf(task_key, sizeof task_key, "orch:{s%d}:task:" T, task_shard(T));
    snprintf(data_key, sizeof data_key, "orch:{s%d}:data:" T, task_shard(T));
    const char *argv[] = {"EVAL", script, "2", task_key, data_key};
    redis_command(queue_redis(probe.queue), NULL, NULL, 5, argv, NULL);
}

static void what_the_release_before_stored_keeps_its_meta(void **state)
{
    (void)state;
    probe_submit(&probe, T, "d", join, 3);
    store_as_the_release_before();
    assert_string_equal(scan(QUEUE_INDEX_READY, 0, 10), T "/a:0:0:1:: " T "/b:0:0:1:: ");
    assert_int_equal(probe_fsck(&probe), 0);
    probe_run(&probe, T, "a");
    assert_int_equal(probe_claim(&probe, T, "b", "n"), QUEUE_OK);
    assert_int_equal(probe_fail(&probe, T, "b", "1-n", ERROR_RETRY, 0), QUEUE_RETRY);
    queue_read(probe.queue, T, true, viewed, NULL);
    probe_wait(&probe);
    queue_read(probe.queue, T, false, viewed_without_work, NULL);
    probe_wait(&probe);
    probe_follow(&probe);
    probe_run(&probe, T, "b");
    probe_wait_text(&probe, &probe.events, "READY " T "/c\n");
    assert_null(strstr(probe.events.data, "no meta"));
    assert_string_equal(scan(QUEUE_INDEX_READY, 0, 10), T "/c:0:0:1:: ");
    assert_int_equal(probe_fsck(&probe), 0);
}

/* --- orchestrators ------------------------------------------------------------------------ */

static void named(void *ctx, const char *const *jsons, size_t n, const char *err)
{
    (void)ctx;
    buf_clear(&probe.text);
    buf_add_str(&probe.text, err);
    for (size_t i = 0; i < n; i++)
        buf_printf(&probe.text, "%s ", jsons[i]);
    probe.done = true;
}

static const char *orchestrators(void)
{
    queue_orchestrators(probe.queue, named, NULL);
    probe_wait(&probe);
    return probe.text.data;
}

static void orchestrators_are_known_while_they_live(void **state)
{
    (void)state;
    assert_string_equal(orchestrators(), "");
    queue_announce(probe.queue, "a", "{1}", 60000);
    queue_announce(probe.queue, "b", "{2}", 60001);
    queue_announce(probe.queue, "b", "{3}", 70000);
    assert_string_equal(orchestrators(), "{1} {3} ");
    queue_announce(probe.queue, "a", "{1}", 0);
    assert_string_equal(orchestrators(), "{3} ");
    assert_int_equal(probe_task(&probe, queue_withdraw, "b"), QUEUE_OK);
    assert_string_equal(orchestrators(), "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(events_are_complete_and_in_order),
        TEST(a_death_is_told_with_its_reason),
        TEST(following_resumes_behind_the_checkpoint),
        TEST(following_survives_a_restart_of_redis),
        TEST(damaged_entries_are_skipped),
        TEST(a_checkpoint_trims_the_outbox),
        TEST(the_log_tells_the_life_of_a_task),
        TEST(the_log_of_the_past_is_read_as_well),
        TEST(following_a_log_survives_a_restart_of_redis),
        TEST(a_log_is_bounded),
        TEST(ready_entries_come_by_priority_then_sequence),
        TEST(only_what_is_due_is_scanned),
        TEST(what_is_ready_again_says_what_it_avoids_and_why),
        TEST(depths_count_all_shards),
        TEST(the_list_is_newest_first),
        TEST(finished_tasks_are_found_by_age),
        TEST(a_result_is_there_after_the_commit),
        TEST(a_view_shows_everything),
        TEST(what_the_release_before_stored_keeps_its_meta),
        TEST(orchestrators_are_known_while_they_live),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
