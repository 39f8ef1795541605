/* The response cache on a real Redis: hits, joining of equal calls, and its bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/answer_cache.h"
#include "common/clock.h"
#include "tests/lib/fixture.h"

#define WAIT_MS 30000
#define NODES 3
#define KEY "00000000000000000000000000000000000000000000000000000000000000aa"
#define OTHER "00000000000000000000000000000000000000000000000000000000000000bb"

static struct fixture fixture;
static uv_loop_t loop;
static struct node {
    struct queue *queue;
    struct answer_cache *cache;
    bool up;
} nodes[NODES];

/* One who asks. */
struct asker {
    char owner[16];
    int hits, misses;
    char text[64];
    size_t len;
    bool done;
};
#define ASKERS 100
static struct asker askers[ASKERS];

static int setup(void **state)
{
    (void)state;
    memset(nodes, 0, sizeof nodes);
    memset(askers, 0, sizeof askers);
    for (int i = 0; i < ASKERS; i++)
        snprintf(askers[i].owner, sizeof askers[i].owner, "1-%d", i);
    fixture_init(&fixture);
    fixture_redis_start(&fixture);
    loop_init(&loop);
    return 0;
}

static void node_close(struct node *node)
{
    answer_cache_free(&node->cache);
    queue_close(&node->queue);
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        node_close(&nodes[i]);
    loop_finish(&loop);
    fixture_release(&fixture);
    return 0;
}

static void on_up(void *ctx)
{
    ((struct node *)ctx)->up = true;
}

static void open_with(int i, const struct answer_cache_options *options)
{
    struct node *node = &nodes[i];
    struct redis_options redis = fixture_redis_options(&fixture);
    struct redis_callbacks up = {on_up, NULL};
    struct err err = {""};
    assert_int_equal(queue_open(&node->queue, &loop, &redis, &up, node, &err), 0);
    node->cache = answer_cache_new(&loop, node->queue, options);
    assert_int_equal(loop_run_until(&loop, &node->up, WAIT_MS), 0);
}

static void open_all(int64_t flight_ms)
{
    for (int i = 0; i < NODES; i++)
        open_with(i, &(struct answer_cache_options){60, 10000000, flight_ms});
}

static void told(void *ctx, enum answer_status status, struct bytes answer)
{
    struct asker *asker = ctx;
    if (status == ANSWER_MISS) {
        asker->misses++;
    } else {
        asker->hits++;
        asker->len = answer.len;
        snprintf(asker->text, sizeof asker->text, "%.*s", (int)(answer.len < 60 ? answer.len : 60),
                 answer.data);
    }
    asker->done = true;
}

static void get(int node, int asker, const char *key)
{
    askers[asker].done = false;
    answer_cache_get(nodes[node].cache, key, askers[asker].owner, told, &askers[asker]);
}

static void wait_done(int asker)
{
    assert_int_equal(loop_run_until(&loop, &askers[asker].done, WAIT_MS), 0);
}

static enum answer_status ask(int node, int asker, const char *key)
{
    int hits = askers[asker].hits;
    get(node, asker, key);
    wait_done(asker);
    return askers[asker].hits > hits ? ANSWER_HIT : ANSWER_MISS;
}

static void store(int node, int asker, const char *key, const char *text)
{
    struct bytes answer = {text, strlen(text)};
    answer_cache_store(nodes[node].cache, key, askers[asker].owner, answer);
}

static bool command_done;
static char command_text[256];
static void command_answered(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    snprintf(command_text, sizeof command_text, "%s", redis_str(value, NULL));
    if (redis_type(value) == REDIS_INT)
        snprintf(command_text, sizeof command_text, "%lld", (long long)redis_int(value));
    command_done = true;
}

static const char *command(int node, const char *words)
{
    command_done = false;
    redis_simple(queue_redis(nodes[node].queue), command_answered, NULL, words);
    assert_int_equal(loop_run_until(&loop, &command_done, WAIT_MS), 0);
    return command_text;
}

/* All that was sent is done. */
static void settle_down(void)
{
    for (int i = 0; i < NODES; i++)
        if (nodes[i].queue != NULL)
            command(i, "PING");
}

/* As many as there are wait now for somebody else's call. */
static bool somebody_waits(int first, int n)
{
    for (int i = first; i < first + n; i++)
        if (askers[i].done)
            return false;
    return true;
}

static int count_done(void)
{
    int n = 0;
    for (int i = 0; i < ASKERS; i++)
        n += askers[i].done;
    return n;
}

static void until_done(int n)
{
    int64_t end = clock_ms() + WAIT_MS;
    while (count_done() < n) {
        assert_true(clock_ms() < end);
        bool never = false;
        loop_run_until(&loop, &never, 2);
    }
}

/* --- hits and misses ---------------------------------------------------------------------- */

static void what_was_stored_is_a_hit_for_all_workers(void **state)
{
    (void)state;
    open_all(10000);
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    store(0, 0, KEY, "forty-two");
    assert_int_equal(ask(1, 1, KEY), ANSWER_HIT);
    assert_string_equal(askers[1].text, "forty-two");
    assert_int_equal(ask(0, 2, KEY), ANSWER_HIT);
    assert_int_equal(ask(2, 3, OTHER), ANSWER_MISS);
}

static void an_empty_answer_is_an_answer(void **state)
{
    (void)state;
    open_all(10000);
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    store(0, 0, KEY, "");
    assert_int_equal(ask(1, 1, KEY), ANSWER_HIT);
    assert_int_equal(askers[1].len, 0);
}

static void the_owner_of_a_flight_gets_its_miss_again(void **state)
{
    (void)state;
    open_all(10000);
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    assert_int_equal(ask(1, 0, KEY), ANSWER_MISS); /* started anew elsewhere */
    get(2, 1, OTHER);
    get(2, 1, OTHER);
    settle_down();
    settle_down();
    assert_int_equal(askers[1].misses, 2);
}

/* --- joining ------------------------------------------------------------------------------ */

static void a_hundred_equal_gets_make_one_miss(void **state)
{
    (void)state;
    open_all(10000);
    for (int i = 0; i < ASKERS; i++)
        get(i % NODES, i, KEY);
    until_done(1);
    settle_down();
    settle_down();
    assert_int_equal(count_done(), 1);
    int owner = 0;
    while (!askers[owner].done)
        owner++;
    assert_int_equal(askers[owner].misses, 1);
    store(owner % NODES, owner, KEY, "one for all");
    until_done(ASKERS);
    for (int i = 0; i < ASKERS; i++) {
        assert_int_equal(askers[i].hits, i != owner);
        assert_int_equal(askers[i].misses, i == owner);
    }
}

static void joins_in_one_process_ask_redis_once(void **state)
{
    (void)state;
    open_with(0, &(struct answer_cache_options){60, 1000000, 10000});
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    size_t pending = redis_pending(queue_redis(nodes[0].queue));
    for (int i = 1; i < ASKERS; i++)
        get(0, i, KEY);
    assert_int_equal(redis_pending(queue_redis(nodes[0].queue)), pending);
    store(0, 0, KEY, "x");
    assert_int_equal(count_done(), ASKERS); /* without a word of Redis */
}

static void a_call_that_is_given_up_passes_to_one_of_those_who_wait(void **state)
{
    (void)state;
    open_all(10000);
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    for (int i = 1; i < 10; i++)
        get(i % NODES, i, KEY);
    settle_down();
    for (int round = 0; round < 10; round++) {
        until_done(round + 1);
        settle_down();
        assert_int_equal(count_done(), round + 1);
        int owner = 0;
        while (askers[owner].misses != 1)
            owner++;
        askers[owner].misses++;
        answer_cache_give_up(nodes[owner % NODES].cache, KEY, askers[owner].owner);
    }
    assert_int_equal(ask(0, 50, KEY), ANSWER_MISS);
}

static void an_answer_too_large_to_keep_is_given_to_those_who_wait_here(void **state)
{
    (void)state;
    open_all(10000);
    static char large[ANSWER_MAX_BYTES + 1];
    memset(large, 'x', sizeof large);
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    get(0, 1, KEY);
    get(1, 2, KEY);
    settle_down();
    assert_true(somebody_waits(1, 2));
    answer_cache_store(nodes[0].cache, KEY, askers[0].owner, (struct bytes){large, sizeof large});
    wait_done(1);
    assert_int_equal(askers[1].hits, 1);
    assert_int_equal(askers[1].len, sizeof large);
    wait_done(2);
    assert_int_equal(askers[2].misses, 1);
    assert_string_equal(command(0, "EXISTS orch:{c}:answers"), "0");
}

/* In a process of its own: becomes the owner, says so, and is killed. */
static void own_and_wait(int fd)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    loop_init(&loop);
    memset(nodes, 0, sizeof nodes);
    open_with(0, &(struct answer_cache_options){60, 1000000, 1500});
    char byte = ask(0, 0, KEY) == ANSWER_MISS ? 'y' : 'n';
    if (write(fd, &byte, 1) != 1)
        _exit(1);
    uv_run(&loop, UV_RUN_DEFAULT);
    _exit(0);
}

static void when_the_owner_dies_one_of_those_who_wait_makes_the_call(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0)
        own_and_wait(ends[1]);
    char byte = 0;
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    open_all(1500);
    for (int i = 1; i < 7; i++)
        get(i % NODES, i, KEY);
    bool never = false;
    loop_run_until(&loop, &never, 2500); /* longer than a flight: it is renewed */
    assert_true(somebody_waits(1, 6));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    until_done(1);
    settle_down();
    assert_int_equal(count_done(), 1);
    int owner = 1;
    while (!askers[owner].done)
        owner++;
    assert_int_equal(askers[owner].misses, 1);
    store(owner % NODES, owner, KEY, "late");
    until_done(6);
    close(ends[0]);
    close(ends[1]);
}

static void who_is_forgotten_is_not_told_and_blocks_nobody(void **state)
{
    (void)state;
    open_all(10000);
    get(0, 0, KEY); /* asked for, then forgotten: the next one gets the call */
    get(0, 1, KEY);
    answer_cache_forget(nodes[0].cache, &askers[0]);
    wait_done(1);
    assert_int_equal(askers[1].misses, 1);
    get(1, 2, KEY);
    get(1, 3, KEY);
    settle_down();
    answer_cache_forget(nodes[1].cache, &askers[2]);
    store(0, 1, KEY, "x");
    wait_done(3);
    assert_int_equal(askers[3].hits, 1);
    get(0, 4, OTHER); /* nobody is left */
    answer_cache_forget(nodes[0].cache, &askers[4]);
    assert_int_equal(ask(1, 5, OTHER), ANSWER_MISS);
    assert_true(askers[0].hits + askers[0].misses + askers[2].hits + askers[4].misses == 0);
}

static void forget_two(void *ctx, enum answer_status status, struct bytes answer)
{
    told(ctx, status, answer);
    answer_cache_forget(nodes[0].cache, &askers[2]);
}

static void forgetting_within_a_callback_holds(void **state)
{
    (void)state;
    open_all(10000);
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    answer_cache_get(nodes[0].cache, KEY, "1-1", forget_two, &askers[1]);
    get(0, 2, KEY);
    get(0, 3, KEY);
    store(0, 0, KEY, "x");
    assert_true(askers[1].hits == 1 && askers[2].hits == 0 && askers[3].hits == 1);
}

static void free_cache(void *ctx, enum answer_status status, struct bytes answer)
{
    told(ctx, status, answer);
    answer_cache_free(&nodes[0].cache);
}

static void it_may_be_freed_within_a_callback_and_with_answers_outstanding(void **state)
{
    (void)state;
    open_all(10000);
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    answer_cache_get(nodes[0].cache, KEY, "1-1", free_cache, &askers[1]);
    get(0, 2, KEY);
    get(0, 3, OTHER);
    store(0, 0, KEY, "x");
    assert_true(askers[1].hits == 1 && askers[2].hits == 0);
    get(1, 4, OTHER);
    answer_cache_free(&nodes[1].cache);
    settle_down();
    assert_false(askers[3].done || askers[4].done);
    assert_int_equal(ask(2, 5, OTHER), ANSWER_MISS); /* nobody's flight is left behind */
}

/* --- bounds ------------------------------------------------------------------------------- */

static bool is_gone(void *ctx)
{
    (void)ctx;
    askers[9].done = false;
    bool hit = ask(0, 9, KEY) == ANSWER_HIT;
    if (!hit)
        answer_cache_give_up(nodes[0].cache, KEY, askers[9].owner);
    return !hit;
}

static void answers_live_as_long_as_they_may(void **state)
{
    (void)state;
    open_with(0, &(struct answer_cache_options){1, 1000000, 10000});
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    store(0, 0, KEY, "short-lived");
    assert_int_equal(ask(0, 1, KEY), ANSWER_HIT);
    assert_true(fixture_wait(is_gone, NULL, WAIT_MS));
    assert_string_equal(command(0, "GET orch:{c}:bytes"), "0");
    assert_string_equal(command(0, "ZCARD orch:{c}:used"), "0");
    assert_string_equal(command(0, "ZCARD orch:{c}:expiry"), "0");
}

static void key_number(char ret[ANSWER_KEY_SIZE], int number)
{
    snprintf(ret, ANSWER_KEY_SIZE, "%064x", (unsigned)number);
}

static void what_was_not_used_for_longest_makes_room(void **state)
{
    (void)state;
    char key[ANSWER_KEY_SIZE], text[1001];
    memset(text, 'x', 1000);
    text[1000] = '\0';
    /* Each takes 1000 + 64 + 256 bytes. */
    open_with(0, &(struct answer_cache_options){60, 10 * 1320 + 100, 10000});
    for (int i = 0; i < 10; i++) {
        key_number(key, i);
        assert_int_equal(ask(0, i, key), ANSWER_MISS);
        store(0, i, key, text);
        bool never = false; /* the clock that orders them counts milliseconds */
        loop_run_until(&loop, &never, 3);
    }
    key_number(key, 0);
    assert_int_equal(ask(0, 20, key), ANSWER_HIT); /* used again */
    for (int i = 10; i < 15; i++) {
        key_number(key, i);
        assert_int_equal(ask(0, i, key), ANSWER_MISS);
        store(0, i, key, text);
    }
    assert_string_equal(command(0, "GET orch:{c}:bytes"), "13200");
    assert_string_equal(command(0, "HLEN orch:{c}:answers"), "10");
    for (int i = 0; i < 15; i++) {
        key_number(key, i);
        bool kept = i == 0 || i > 5;
        assert_int_equal(ask(0, 30 + i, key), kept ? ANSWER_HIT : ANSWER_MISS);
    }
}

static void an_answer_that_is_stored_again_counts_once(void **state)
{
    (void)state;
    open_with(0, &(struct answer_cache_options){60, 1000000, 10000});
    store(0, 0, KEY, "four");
    store(0, 0, KEY, "four and more");
    assert_string_equal(command(0, "GET orch:{c}:bytes"), "333");
    assert_int_equal(ask(0, 1, KEY), ANSWER_HIT);
    assert_string_equal(askers[1].text, "four and more");
}

static void an_answer_larger_than_all_room_is_not_kept(void **state)
{
    (void)state;
    open_with(0, &(struct answer_cache_options){60, 300, 10000});
    assert_int_equal(ask(0, 0, KEY), ANSWER_MISS);
    store(0, 0, KEY, "does not fit");
    assert_int_equal(ask(0, 1, KEY), ANSWER_MISS);
    assert_string_equal(command(0, "GET orch:{c}:bytes"), "0");
}

static void damaged_answers_are_a_miss(void **state)
{
    (void)state;
    static const char *const damages[] = {
        ("HSET orch:{c}:answers " KEY " short"),
        ("HSET orch:{c}:answers " KEY " " OTHER "wrong"), /* with another sum */
        "DEL orch:{c}:answers",
        "DEL orch:{c}:expiry",
        ("ZADD orch:{c}:expiry 1 " KEY),
    };
    open_with(0, &(struct answer_cache_options){60, 1000000, 10000});
    for (int i = 0; i < (int)(sizeof damages / sizeof *damages); i++) {
        assert_int_equal(ask(0, 2 * i, KEY), ANSWER_MISS);
        store(0, 2 * i, KEY, "good");
        assert_int_equal(ask(0, 2 * i + 1, KEY), ANSWER_HIT);
        command(0, damages[i]);
        assert_int_equal(ask(0, 2 * i + 1, KEY), ANSWER_MISS);
        answer_cache_give_up(nodes[0].cache, KEY, askers[2 * i + 1].owner);
    }
    command(0, "EVAL redis.call('HSET','orch:{c}:answers','" KEY
               "',string.rep('x',2000000));redis.call('ZADD','orch:{c}:expiry',9e15,'" KEY "') 0");
    assert_int_equal(ask(0, 20, KEY), ANSWER_MISS);
    answer_cache_give_up(nodes[0].cache, KEY, askers[20].owner);
    command(0, "DEL orch:{c}:answers");
    command(0, "SET orch:{c}:answers text");
    assert_int_equal(ask(0, 21, KEY), ANSWER_MISS); /* Redis answers an error */
}

/* --- failures of Redis -------------------------------------------------------------------- */

static void without_redis_a_get_is_a_miss_and_equal_ones_are_joined_still(void **state)
{
    (void)state;
    open_with(0, &(struct answer_cache_options){60, 1000000, 10000});
    fixture_redis_kill(&fixture, SIGKILL);
    while (redis_connected(queue_redis(nodes[0].queue)))
        uv_run(&loop, UV_RUN_ONCE);
    get(0, 0, KEY);
    assert_int_equal(askers[0].misses, 1);
    get(0, 1, KEY);
    assert_false(askers[1].done);
    store(0, 0, KEY, "x");
    assert_int_equal(askers[1].hits, 1);
    fixture_redis_start(&fixture);
    command(0, "PING");
    assert_int_equal(ask(0, 2, KEY), ANSWER_HIT); /* it was kept once Redis was back */
}

static void a_redis_that_does_not_answer_is_a_miss(void **state)
{
    (void)state;
    open_all(10000);
    kill(fixture.redis_pid, SIGSTOP);
    get(0, 0, KEY);
    get(0, 1, OTHER);
    answer_cache_forget(nodes[0].cache, &askers[1]);
    wait_done(0);
    assert_int_equal(askers[0].misses, 1);
    kill(fixture.redis_pid, SIGCONT);
    settle_down();
    get(1, 2, KEY);
    settle_down();
    settle_down();
    assert_false(askers[2].done); /* its flight began, if late */
    store(0, 0, KEY, "x");
    wait_done(2);
    assert_int_equal(askers[2].hits, 1);
    assert_int_equal(ask(1, 3, OTHER), ANSWER_MISS); /* the forgotten one holds nothing */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_stored_is_a_hit_for_all_workers),
        TEST(an_empty_answer_is_an_answer),
        TEST(the_owner_of_a_flight_gets_its_miss_again),
        TEST(a_hundred_equal_gets_make_one_miss),
        TEST(joins_in_one_process_ask_redis_once),
        TEST(a_call_that_is_given_up_passes_to_one_of_those_who_wait),
        TEST(an_answer_too_large_to_keep_is_given_to_those_who_wait_here),
        TEST(when_the_owner_dies_one_of_those_who_wait_makes_the_call),
        TEST(who_is_forgotten_is_not_told_and_blocks_nobody),
        TEST(forgetting_within_a_callback_holds),
        TEST(it_may_be_freed_within_a_callback_and_with_answers_outstanding),
        TEST(answers_live_as_long_as_they_may),
        TEST(what_was_not_used_for_longest_makes_room),
        TEST(an_answer_that_is_stored_again_counts_once),
        TEST(an_answer_larger_than_all_room_is_not_kept),
        TEST(damaged_answers_are_a_miss),
        TEST(without_redis_a_get_is_a_miss_and_equal_ones_are_joined_still),
        TEST(a_redis_that_does_not_answer_is_a_miss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
