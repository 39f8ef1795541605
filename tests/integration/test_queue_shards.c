/* How orchestrators share the shards in Redis, and what they tell each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/queue_daemon.h"
#include "common/task_id.h"
#include "tests/lib/probe.h"

#define LONG_MS 60000

static struct probe probe;
static struct queue_share share; /* the last answer */

static int setup(void **state)
{
    (void)state;
    memset(&share, 0, sizeof share);
    probe_open(&probe);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    probe_close(&probe);
    return 0;
}

static void shared(void *ctx, enum queue_status status, const struct queue_share *answer,
                   const char *err)
{
    (void)ctx;
    if (status != QUEUE_OK)
        fail_msg("%s: %s", queue_status_name(status), err);
    share = *answer;
    probe.done = true;
}

/* Asks for a share and gives n shards back, the first ones that the member had in `from`. */
static void ask_giving(const char *member, int64_t ms, const struct queue_share *from, size_t n)
{
    int given[SHARD_COUNT];
    size_t n_given = 0;
    for (int shard = 0; shard < SHARD_COUNT && n_given < n; shard++)
        if (from->terms[shard] != 0)
            given[n_given++] = shard;
    assert_int_equal(n_given, n);
    queue_share(probe.queue, member, ms, given, n, shared, NULL);
    probe_wait(&probe);
}

static void ask(const char *member, int64_t ms)
{
    ask_giving(member, ms, NULL, 0);
}

/* Asks again and again until it has them all. */
static void ask_until_all_are_held(const char *member, int64_t ms)
{
    int64_t end_ms = clock_ms() + PROBE_WAIT_MS;
    do
        ask(member, ms);
    while (share.held < SHARD_COUNT && clock_ms() < end_ms);
    assert_int_equal(share.held, SHARD_COUNT);
}

/* --- shares ---------------------------------------------------------------------------------- */

static void one_takes_all_and_keeps_the_terms(void **state)
{
    (void)state;
    ask("a", LONG_MS);
    assert_int_equal(share.members, 1);
    assert_int_equal(share.due, SHARD_COUNT);
    assert_int_equal(share.held, SHARD_COUNT);
    assert_int_equal(share.free, 0);
    struct queue_share first = share;
    ask("a", LONG_MS);
    assert_memory_equal(&first, &share, sizeof share);
}

static void a_second_one_gets_what_the_first_gives_back_and_no_shard_is_anothers(void **state)
{
    (void)state;
    ask("a", LONG_MS);
    struct queue_share a = share;
    ask("b", LONG_MS);
    assert_int_equal(share.members, 2);
    assert_int_equal(share.due, 32);
    assert_int_equal(share.held, 0); /* nothing is taken from who acts on it */
    assert_int_equal(share.free, 0);
    ask_giving("a", LONG_MS, &a, 32);
    assert_int_equal(share.held, 32);
    assert_int_equal(share.free, 32); /* what it gives back it does not take again */
    struct queue_share rest = share;
    ask("b", LONG_MS);
    assert_int_equal(share.held, 32);
    for (int shard = 0; shard < SHARD_COUNT; shard++) {
        assert_true((share.terms[shard] != 0) != (rest.terms[shard] != 0));
        if (share.terms[shard] != 0)
            assert_true(share.terms[shard] > a.terms[shard]); /* each holder has a term */
    }
}

static void what_was_given_back_may_come_back_with_another_term(void **state)
{
    (void)state;
    ask("a", LONG_MS);
    struct queue_share a = share;
    ask_giving("a", LONG_MS, &a, 10);
    assert_int_equal(share.held, SHARD_COUNT - 10);
    assert_int_equal(share.free, 10);
    ask("a", LONG_MS);
    assert_int_equal(share.held, SHARD_COUNT);
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        assert_true(shard < 10 ? share.terms[shard] > a.terms[shard]
                               : share.terms[shard] == a.terms[shard]);
}

static void three_divide_what_does_not_divide(void **state)
{
    (void)state;
    int64_t held = 0;
    ask("a", LONG_MS);
    ask("b", LONG_MS);
    ask("c", LONG_MS);
    static const char *const names[] = {"a", "b", "c"};
    static const int64_t due[] = {22, 21, 21};
    struct queue_share all = {0};
    ask("a", LONG_MS);
    all = share;
    ask_giving("a", LONG_MS, &all, 42);
    for (int i = 0; i < 3; i++) {
        ask(names[i], LONG_MS);
        assert_int_equal(share.due, due[i]);
        assert_int_equal(share.held, due[i]);
        held += share.held;
    }
    assert_int_equal(held, SHARD_COUNT);
}

static void what_a_dead_one_had_is_taken_when_its_lease_has_ended(void **state)
{
    (void)state;
    ask("a", 50);
    struct queue_share a = share;
    ask_until_all_are_held("b", LONG_MS);
    assert_int_equal(share.members, 1);
    for (int shard = 0; shard < SHARD_COUNT; shard++)
        assert_true(share.terms[shard] > a.terms[shard]);
    ask("a", LONG_MS); /* it wakes up: nothing is its own any more */
    assert_int_equal(share.held, 0);
}

static void who_leaves_gives_all_back_at_once(void **state)
{
    (void)state;
    ask("a", LONG_MS);
    ask("a", 0);
    assert_int_equal(share.held, 0);
    assert_int_equal(share.free, SHARD_COUNT);
    assert_int_equal(share.members, 0);
    ask("b", LONG_MS);
    assert_int_equal(share.held, SHARD_COUNT);
    ask("a", 0); /* it is said twice when the first answer was lost */
    ask("b", LONG_MS);
    assert_int_equal(share.held, SHARD_COUNT);
}

static void a_lease_does_not_outlast_a_clock_that_was_set_back(void **state)
{
    (void)state;
    ask("a", 3600 * 1000); /* as if Redis's clock had been an hour ahead */
    ask_until_all_are_held("b", 100);
    assert_int_equal(share.members, 1);
}

static void terms_grow_even_when_the_clock_does_not(void **state)
{
    (void)state;
    char command[128];
    int64_t term = 4000000000000000; /* in the year 2096 */
    snprintf(command, sizeof command, "HSET orch:{d}:shards 7 %lld", (long long)term);
    probe_redis(&probe, command);
    ask("a", LONG_MS);
    assert_int_equal(share.terms[7], term + 1);
    ask("a", 0);
    ask("b", LONG_MS);
    assert_int_equal(share.terms[7], term + 2);
}

static void damaged_shares_are_taken_anew(void **state)
{
    (void)state;
    probe_redis(&probe, "HSET orch:{d}:shards 1 x 2 -5 3 12x 64 99 word y");
    ask("a", LONG_MS);
    assert_int_equal(share.held, SHARD_COUNT);
}

static void shares_and_checkpoints_work_when_memory_is_out(void **state)
{
    (void)state;
    probe_redis(&probe, "CONFIG SET maxmemory 1");
    ask("a", LONG_MS);
    assert_int_equal(share.held, SHARD_COUNT);
    queue_checkpoint(probe.queue, 3, "5-1");
    assert_string_equal(probe_redis(&probe, "GET orch:{s3}:ckpt"), "5-1");
}

/* --- checkpoints ----------------------------------------------------------------------------- */

static void ignore(void *ctx, const struct queue_event *event)
{
    (void)ctx, (void)event;
}

static const char *checkpoint(void)
{
    return probe_redis(&probe, "GET orch:{s3}:ckpt");
}

static bool is_fenced(void *ctx)
{
    const char *term = ctx;
    bool never = false;
    loop_run_until(&probe.loop, &never, 5);
    return strcmp(probe_redis(&probe, "GET orch:{s3}:fence"), term) == 0;
}

static void gain(struct queue *queue, int64_t term)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)term);
    queue_follow_gain(queue, 3, term);
    assert_true(fixture_wait(is_fenced, text, PROBE_WAIT_MS));
}

static void a_checkpoint_never_moves_back(void **state)
{
    (void)state;
    queue_checkpoint(probe.queue, 3, "7-2");
    queue_checkpoint(probe.queue, 3, "7-1");
    assert_string_equal(checkpoint(), "7-2");
    queue_checkpoint(probe.queue, 3, "6-9");
    assert_string_equal(checkpoint(), "7-2");
    queue_checkpoint(probe.queue, 3, "10-0"); /* as numbers, not as text */
    assert_string_equal(checkpoint(), "10-0");
}

static void the_checkpoint_of_a_former_holder_is_refused(void **state)
{
    (void)state;
    struct err err;
    struct queue *other = NULL;
    struct redis_options options = fixture_redis_options(&probe.fixture);
    assert_int_equal(queue_open(&other, &probe.loop, &options, NULL, NULL, &err), 0);
    assert_int_equal(queue_follow_begin(probe.queue, ignore, NULL, &err), 0);
    assert_int_equal(queue_follow_begin(other, ignore, NULL, &err), 0);
    gain(probe.queue, 100);
    queue_checkpoint(probe.queue, 3, "1-1");
    assert_string_equal(checkpoint(), "1-1");
    gain(other, 101);
    queue_checkpoint(probe.queue, 3, "2-1"); /* late */
    assert_string_equal(checkpoint(), "1-1");
    queue_checkpoint(other, 3, "3-1");
    while (strcmp(checkpoint(), "3-1") != 0)
        uv_run(&probe.loop, UV_RUN_NOWAIT);
    queue_close(&other);
}

/* --- following ------------------------------------------------------------------------------- */

static struct buf heard;

static void hear(void *ctx, const struct queue_event *event)
{
    (void)ctx;
    if (event->kind == QUEUE_EVENT_SUBMITTED)
        buf_printf(&heard, "%s ", event->task);
}

/* A task of that shard, in id. */
static void submit_to(int shard, char id[TASK_ID_SIZE])
{
    static const struct probe_node node = {.id = "n"};
    do
        task_id_make(id);
    while (task_shard(id) != shard);
    assert_int_equal(probe_submit(&probe, id, "d", &node, 1), QUEUE_OK);
}

static void only_shards_that_were_gained_are_followed_and_at_once(void **state)
{
    (void)state;
    struct err err;
    char ids[4][TASK_ID_SIZE];
    buf_release(&heard);
    assert_int_equal(queue_follow_begin(probe.queue, hear, NULL, &err), 0);
    queue_follow_gain(probe.queue, 1, 10);
    submit_to(1, ids[0]);
    submit_to(2, ids[1]);
    probe_wait_text(&probe, &heard, ids[0]);
    assert_null(strstr(heard.data, ids[1]));
    bool never = false; /* it blocks in its XREAD now */
    loop_run_until(&probe.loop, &never, 50);
    int64_t start_ms = clock_ms();
    queue_follow_gain(probe.queue, 2, 10);
    probe_wait_text(&probe, &heard, ids[1]); /* also from before */
    print_message("a gained shard was followed after %lld ms\n",
                  (long long)(clock_ms() - start_ms));
    queue_follow_drop(probe.queue, 1);
    submit_to(1, ids[2]);
    submit_to(2, ids[3]);
    probe_wait_text(&probe, &heard, ids[3]);
    assert_null(strstr(heard.data, ids[2]));
    queue_follow_gain(probe.queue, 1, 11); /* it comes back: from the checkpoint */
    probe_wait_text(&probe, &heard, ids[2]);
    buf_release(&heard);
}

static void a_shard_that_a_later_holder_has_is_not_followed(void **state)
{
    (void)state;
    struct err err;
    char ids[2][TASK_ID_SIZE];
    buf_release(&heard);
    probe_redis(&probe, "SET orch:{s1}:fence 50");
    submit_to(1, ids[0]);
    submit_to(2, ids[1]);
    assert_int_equal(queue_follow_begin(probe.queue, hear, NULL, &err), 0);
    queue_follow_gain(probe.queue, 1, 49);
    queue_follow_gain(probe.queue, 2, 49);
    probe_wait_text(&probe, &heard, ids[1]);
    assert_null(strstr(heard.data, ids[0]));
    queue_follow_gain(probe.queue, 1, 51);
    probe_wait_text(&probe, &heard, ids[0]);
    buf_release(&heard);
}

/* --- what they tell each other --------------------------------------------------------------- */

static char position[48];
static bool more;

static void learned(void *ctx, const struct queue_timings *timings)
{
    (void)ctx;
    if (timings->record != NULL) {
        buf_printf(&heard, "%.*s ", (int)timings->record->len, timings->record->data);
        return;
    }
    snprintf(position, sizeof position, "%s", timings->after);
    more = timings->more;
    probe.done = true;
}

static const char *learn(const char *member, const char *after)
{
    buf_clear(&heard);
    buf_add_str(&heard, "");
    queue_timings_read(probe.queue, member, after, learned, NULL);
    probe_wait(&probe);
    return heard.len > 0 ? heard.data : "";
}

static void tell(const char *member, const char *one, const char *two)
{
    struct bytes records[] = {{one, strlen(one)}, {two, strlen(two)}};
    queue_timings_tell(probe.queue, member, records, 2);
}

static void timings_are_told_to_the_others_once(void **state)
{
    (void)state;
    assert_string_equal(learn("a", "0"), "");
    assert_string_equal(position, "0");
    tell("a", "1", "2");
    tell("b", "3", "4");
    assert_string_equal(learn("a", "0"), "3 4 ");
    assert_string_equal(learn("b", "0"), "1 2 ");
    assert_false(more);
    char after[48];
    snprintf(after, sizeof after, "%s", position);
    assert_string_equal(learn("b", after), "");
    tell("c", "5", "6");
    assert_string_equal(learn("b", after), "5 6 ");
    for (int i = 0; i < 1000; i++)
        tell("c", "x", "y");
    learn("b", after);
    assert_true(more);
    assert_true(atoi(probe_redis(&probe, "XLEN orch:{d}:timings")) < 400);
    buf_release(&heard);
}

static void archive_told(void *ctx, enum queue_status status, struct bytes text, const char *err)
{
    (void)ctx, (void)err;
    buf_clear(&heard);
    buf_add(&heard, text.data, text.len);
    probe.status = status;
    probe.done = true;
}

static enum queue_status archive_of(const char *task)
{
    queue_archive_of(probe.queue, task, archive_told, NULL);
    probe_wait(&probe);
    return probe.status;
}

static void whose_archive_has_a_task_is_remembered_for_the_last_ones(void **state)
{
    (void)state;
    char first[TASK_ID_SIZE], id[TASK_ID_SIZE];
    task_id_make(first);
    int shard = task_shard(first);
    assert_int_equal(archive_of(first), QUEUE_GONE);
    queue_archived(probe.queue, first, "one on host");
    assert_int_equal(archive_of(first), QUEUE_OK);
    assert_string_equal(heard.data, "one on host");
    for (int i = 0; i < 520;) {
        task_id_make(id);
        if (task_shard(id) != shard)
            continue;
        queue_archived(probe.queue, id, "two on host");
        i++;
    }
    assert_int_equal(archive_of(id), QUEUE_OK);
    assert_string_equal(heard.data, "two on host");
    assert_int_equal(archive_of(first), QUEUE_GONE);
    char command[64];
    snprintf(command, sizeof command, "HLEN orch:{s%d}:archived", shard);
    assert_string_equal(probe_redis(&probe, command), "500");
    buf_release(&heard);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(one_takes_all_and_keeps_the_terms),
        TEST(a_second_one_gets_what_the_first_gives_back_and_no_shard_is_anothers),
        TEST(what_was_given_back_may_come_back_with_another_term),
        TEST(three_divide_what_does_not_divide),
        TEST(what_a_dead_one_had_is_taken_when_its_lease_has_ended),
        TEST(who_leaves_gives_all_back_at_once),
        TEST(a_lease_does_not_outlast_a_clock_that_was_set_back),
        TEST(terms_grow_even_when_the_clock_does_not),
        TEST(damaged_shares_are_taken_anew),
        TEST(shares_and_checkpoints_work_when_memory_is_out),
        TEST(a_checkpoint_never_moves_back),
        TEST(the_checkpoint_of_a_former_holder_is_refused),
        TEST(only_shards_that_were_gained_are_followed_and_at_once),
        TEST(a_shard_that_a_later_holder_has_is_not_followed),
        TEST(timings_are_told_to_the_others_once),
        TEST(whose_archive_has_a_task_is_remembered_for_the_last_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
