/* A Redis Cluster of three masters: the queue's work, slots that move while it goes on, and a
 * master that dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/redis_internal.h"
#include "common/task_id.h"
#include "schemas/mem.h"
#include "tests/lib/probe.h"
#include "tests/lib/servers.h"

#define WAIT_MS 60000
#define MASTERS 3
#define REPLICAS 1 /* of the first; its number is MASTERS */
#define ALONE (MASTERS + REPLICAS)
#define TIMEOUT_MS 2000

/* One cluster for all tests; the last ones kill it. */
static struct fixture fixture;
static struct servers servers;

static struct {
    struct probe probe; /* its fixture is empty */
    bool done, up, down;
    int answers, wanted, errors;
    char why[1024];
    char text[1024];
    int64_t number;
    enum redis_type type;
} c;

static struct redis *redis(void)
{
    return queue_redis(c.probe.queue);
}

static void on_up(void *ctx)
{
    (void)ctx;
    c.up = true;
}

static void on_down(void *ctx, const char *why)
{
    (void)ctx;
    c.down = true;
    snprintf(c.why, sizeof c.why, "%s", why);
}

static int setup_all(void **state)
{
    (void)state;
    fixture_init(&fixture);
    servers_init(&servers, &fixture);
    servers_start_cluster(&servers, MASTERS, REPLICAS, TIMEOUT_MS);
    return 0;
}

static int teardown_all(void **state)
{
    (void)state;
    fixture_release(&fixture);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    static const struct redis_callbacks callbacks = {on_up, on_down};
    memset(&c, 0, sizeof c);
    for (int i = 0; i < MASTERS + REPLICAS; i++)
        servers_ask(&servers, i, "flushall");
    loop_init(&c.probe.loop);
    struct redis_options options = {.cluster = servers.list, .n_cluster = MASTERS};
    struct err err = {""};
    return queue_open(&c.probe.queue, &c.probe.loop, &options, &callbacks, NULL, &err);
}

static int teardown(void **state)
{
    (void)state;
    probe_close(&c.probe);
    return 0;
}

static void wait_for(const bool *flag)
{
    assert_int_equal(loop_run_until(&c.probe.loop, flag, WAIT_MS), 0);
}

static void keep(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    c.type = redis_type(value);
    snprintf(c.text, sizeof c.text, "%s", redis_str(value, NULL));
    c.number = redis_int(value);
    c.done = true;
}

static const char *ask(const char *words)
{
    c.done = false;
    redis_simple(redis(), keep, NULL, words);
    wait_for(&c.done);
    return c.text;
}

static void count(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    c.errors += redis_type(value) == REDIS_ERR;
    if (redis_type(value) == REDIS_ERR)
        snprintf(c.why, sizeof c.why, "%s", redis_str(value, NULL));
    c.done = ++c.answers == c.wanted;
}

/* INCR of n keys in n slots, and waits. */
static void count_up(int n)
{
    char key[32];
    c.done = false;
    c.answers = c.errors = 0;
    c.wanted = n;
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "counter%d", i);
        redis_command(redis(), count, NULL, 2, (const char *[]){"INCR", key}, NULL);
    }
    wait_for(&c.done);
    if (c.errors > 0)
        print_error("%s\n", c.why);
    assert_int_equal(c.errors, 0);
}

static void expect_counters(int n, int64_t value)
{
    char words[32];
    for (int i = 0; i < n; i++) {
        snprintf(words, sizeof words, "GET counter%d", i);
        ask(words);
        assert_int_equal(c.number, value);
    }
}

/* --- the client --------------------------------------------------------------------------- */

static void commands_find_their_servers(void **state)
{
    (void)state;
    count_up(500);
    count_up(500);
    expect_counters(500, 2);
    assert_true(redis_is_cluster(redis()));
    assert_true(redis_connected(redis()));
    assert_string_equal(ask("PING"), "PONG");
    int with = 0;
    for (int i = 0; i < MASTERS; i++)
        with += atoi(servers_ask(&servers, i, "dbsize")) > 100;
    assert_int_equal(with, MASTERS);
    /* Keys of several slots in one command are told with the cure. */
    ask("MSET a 1 b 2");
    assert_int_equal(c.type, REDIS_ERR);
    assert_non_null(strstr(c.text, "several slots"));
}

static struct redis_script incr = {
    .name = "incr", .source = "#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])"};

static void scripts_are_loaded_where_they_run(void **state)
{
    (void)state;
    char key[32];
    for (int round = 0; round < 2; round++) {
        c.done = false;
        c.answers = c.errors = 0;
        c.wanted = 60;
        for (int i = 0; i < 60; i++) {
            snprintf(key, sizeof key, "counter%d", i);
            const char *args[] = {key, "1"};
            redis_eval(redis(), &incr, count, NULL, 1, 2, args, NULL);
        }
        wait_for(&c.done);
        assert_int_equal(c.errors, 0);
        for (int i = 0; i < MASTERS; i++)
            servers_ask(&servers, i, "script flush");
    }
    expect_counters(60, 2);
}

static void a_server_that_is_in_no_cluster_is_told(void **state)
{
    (void)state;
    struct redis_callbacks callbacks = {on_up, on_down};
    struct redis *other;
    struct err err = {""};
    servers_start(&servers, ALONE, NULL);
    struct redis_options options = {.cluster = servers.list + ALONE, .n_cluster = 1};
    c.down = false;
    assert_int_equal(redis_open(&other, &c.probe.loop, &options, &callbacks, NULL, &err), 0);
    redis_simple(other, count, NULL, "GET x");
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "cluster support disabled"));
    c.answers = 0;
    redis_close(&other); /* what waited for the map is answered, too */
    assert_int_equal(c.answers, 1);
    /* The other way round: a client of one server, at a cluster. */
    struct redis_options one = {.host = (char[]){"127.0.0.1"}, .port = servers.ports[0]};
    assert_int_equal(redis_open(&other, &c.probe.loop, &one, NULL, NULL, &err), 0);
    c.done = false;
    int slot = redis_slot("orch:{s2}:x", 11);
    redis_simple(other, keep, NULL,
                 servers_owner(MASTERS, slot) == 0 ? "GET orch:{s0}:x" : "GET orch:{s2}:x");
    wait_for(&c.done);
    redis_close(&other);
    if (c.type == REDIS_ERR) /* unless both are there */
        assert_non_null(strstr(c.text, "redis: {cluster:"));
}

static void hear(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    snprintf(c.text, sizeof c.text, "%s", redis_str(redis_at(value, 0), NULL));
    c.done = true;
}

static void a_listener_hears_what_is_published_anywhere(void **state)
{
    (void)state;
    struct redis *listener;
    struct redis_options options = {.cluster = servers.list, .n_cluster = 1};
    struct err err = {""};
    assert_int_equal(redis_open(&listener, &c.probe.loop, &options, NULL, NULL, &err), 0);
    redis_subscribe(listener, "news", hear, NULL);
    wait_for(&c.done);
    assert_string_equal(c.text, "subscribe");
    for (int i = 0; i < MASTERS; i++) {
        c.done = false;
        servers_ask(&servers, i, "publish news hello");
        wait_for(&c.done);
        assert_string_equal(c.text, "message");
    }
    redis_close(&listener);
}

/* --- slots that move ------------------------------------------------------------------------ */

static void id_of(int server, char id[41])
{
    snprintf(id, 41, "%.40s", servers_ask(&servers, server, "cluster myid"));
}

static void begin_move(int slot, int from, int to)
{
    char words[128], id[41];
    id_of(from, id);
    snprintf(words, sizeof words, "cluster setslot %d importing %s", slot, id);
    servers_wait(&servers, to, words, "OK");
    id_of(to, id);
    snprintf(words, sizeof words, "cluster setslot %d migrating %s", slot, id);
    servers_wait(&servers, from, words, "OK");
}

static void move_keys(int from, int to, const char *keys)
{
    char words[256];
    for (const char *at = keys; *at != '\0'; at += strspn(at, " ")) {
        int len = (int)strcspn(at, " ");
        snprintf(words, sizeof words, "migrate 127.0.0.1 %d %.*s 0 5000", servers.ports[to], len,
                 at);
        servers_wait(&servers, from, words, "OK");
        at += len;
    }
}

static void end_move(int slot, int to)
{
    char words[128], id[41];
    id_of(to, id);
    snprintf(words, sizeof words, "cluster setslot %d node %s", slot, id);
    servers_wait(&servers, to, words, "OK");
    for (int i = 0; i < MASTERS; i++)
        servers_wait(&servers, i, words, "OK");
}

static void ask_and_moved_are_followed(void **state)
{
    (void)state;
    int slot = redis_slot("{k}1", 4), from = servers_owner(MASTERS, slot),
        to = (from + 1) % MASTERS;
    assert_string_equal(ask("SET {k}1 one"), "OK");
    assert_string_equal(ask("SET {k}2 two"), "OK");
    begin_move(slot, from, to);
    move_keys(from, to, "{k}1");
    assert_string_equal(ask("GET {k}1"), "one"); /* ASK */
    assert_string_equal(ask("GET {k}2"), "two"); /* still there */
    const char *args[] = {"{k}3", "5"};
    c.done = false;
    redis_eval(redis(), &incr, keep, NULL, 1, 2, args, NULL); /* ASK, and the script with it */
    wait_for(&c.done);
    assert_int_equal(c.number, 5);
    /* Half here, half there: only later. */
    c.done = false;
    redis_simple(redis(), keep, NULL, "MGET {k}1 {k}2");
    bool never = false;
    loop_run_until(&c.probe.loop, &never, 200);
    assert_false(c.done);
    move_keys(from, to, "{k}2");
    wait_for(&c.done);
    assert_int_equal(c.type, REDIS_ARRAY);
    end_move(slot, to);
    assert_string_equal(ask("GET {k}2"), "two"); /* MOVED */
    assert_string_equal(ask("GET {k}1"), "one");
    assert_int_equal(redis_pending(redis()), 0);
}

/* --- the queue ---------------------------------------------------------------------------- */

/* A task id in that shard. */
static void task_in(int shard, char id[TASK_ID_SIZE])
{
    do
        task_id_make(id);
    while (task_shard(id) != shard);
}

static void all_that_the_queue_does_works(void **state)
{
    (void)state;
    struct probe *probe = &c.probe;
    char tasks[12][TASK_ID_SIZE];
    static const struct probe_node dag[] = {
        {.id = "a"}, {.id = "b"}, {.id = "c", .deps = "a b"}, {.id = "d", .deps = "c"}};
    static const struct probe_node plan[] = {{.id = "_plan", .expands = true}};
    static const struct probe_node children[] = {{.id = "x"}, {.id = "y", .deps = "x"}};
    probe_follow(probe);
    for (int i = 0; i < 12; i++)
        task_in(i * 5, tasks[i]);
    /* A graph in each of 12 shards, so on all servers. */
    for (int i = 0; i < 6; i++) {
        assert_int_equal(probe_submit(probe, tasks[i], "d", dag, 4), QUEUE_OK);
        assert_int_equal(probe_submit(probe, tasks[i], "d", dag, 4), QUEUE_DUP);
    }
    for (int i = 0; i < 6; i++)
        for (size_t sub = 0; sub < 4; sub++)
            probe_run(probe, tasks[i], dag[sub].id);
    assert_string_equal(probe_read(probe, tasks[5]), "DONE 0/4 a=DONE b=DONE c=DONE d=DONE");
    /* A plan that expands; cancel, fail, retry, bury. */
    assert_int_equal(probe_submit(probe, tasks[6], "d", plan, 1), QUEUE_OK);
    probe_run(probe, tasks[6], "_plan");
    assert_int_equal(probe_expand(probe, tasks[6], "_plan", children, 2), QUEUE_OK);
    probe_run(probe, tasks[6], "x");
    probe_run(probe, tasks[6], "y");
    assert_string_equal(probe_read(probe, tasks[6]), "DONE 0/3 _plan=DONE x=DONE y=DONE");
    assert_int_equal(probe_submit(probe, tasks[7], "d", dag, 4), QUEUE_OK);
    assert_int_equal(probe_task(probe, queue_cancel, tasks[7]), QUEUE_OK);
    assert_int_equal(probe_submit(probe, tasks[8], "d", dag, 1), QUEUE_OK);
    assert_int_equal(probe_claim(probe, tasks[8], "a", "n1"), QUEUE_OK);
    assert_int_equal(probe_fail(probe, tasks[8], "a", probe->token, ERROR_DEAD, 0), QUEUE_DEAD);
    assert_int_equal(probe_task(probe, queue_retry, tasks[8]), QUEUE_OK);
    /* A hedge. */
    assert_int_equal(probe_claim(probe, tasks[8], "a", "n2"), QUEUE_OK);
    assert_int_equal(probe_hedge(probe, tasks[8], "a", "n3", 60000), QUEUE_OK);
    assert_int_equal(probe_commit(probe, tasks[8], "a", probe->token), QUEUE_OK);
    /* The budget of a task. */
    probe->budget = (struct queue_spend){1000, 0};
    assert_int_equal(probe_submit(probe, tasks[9], "d", dag, 1), QUEUE_OK);
    assert_int_equal(probe_claim(probe, tasks[9], "a", "n4"), QUEUE_OK);
    assert_int_equal(
        probe_reserve(probe, tasks[9], "a", probe->token, NULL, 0, (struct queue_spend){2000, 0}),
        QUEUE_BUDGET);
    assert_int_equal(
        probe_reserve(probe, tasks[9], "a", probe->token, NULL, 0, (struct queue_spend){900, 0}),
        QUEUE_OK);
    probe->spent = &(struct queue_spend){700, 0};
    assert_int_equal(probe_commit(probe, tasks[9], "a", probe->token), QUEUE_OK);
    probe_read(probe, tasks[9]);
    assert_int_equal(probe->view_spent.nano_usd, 700);
    probe_wait_text(probe, &probe->events, tasks[9]);
    assert_int_equal(probe_fsck(probe), 0);
}

static void one_turn_of_many_shards_is_a_batch_for_each(void **state)
{
    (void)state;
    struct probe *probe = &c.probe;
    for (int i = 0; i < MASTERS; i++)
        servers_ask(&servers, i, "config resetstat");
    char tasks[40][TASK_ID_SIZE];
    static const struct probe_node one[] = {{.id = "a"}};
    for (int i = 0; i < 40; i++) {
        task_in(i % 20, tasks[i]);
        probe_send_submit(probe, tasks[i], "d", one, 1);
    }
    bool never = false;
    do
        loop_run_until(&probe->loop, &never, 25);
    while (redis_pending(redis()) > 0);
    probe->done = false;
    for (int i = 0; i < 40; i++)
        assert_string_equal(probe_read(probe, tasks[i]), "RUNNING 1/1 a=READY");
    for (int i = 0; i < MASTERS; i++) /* none had to be taken apart */
        assert_null(strstr(servers_ask(&servers, i, "info errorstats"), "CROSSSLOT"));
}

static void claimed(void *ctx, enum queue_status status, const struct queue_claim *claim,
                    const char *err)
{
    (void)ctx, (void)err;
    c.number = (int64_t)status;
    snprintf(c.text, sizeof c.text, "%s", claim != NULL ? claim->token : "");
    c.done = true;
}

static void work_goes_on_while_a_shard_moves(void **state)
{
    (void)state;
    struct probe *probe = &c.probe;
    char task[TASK_ID_SIZE], words[64], keys[2048];
    static const struct probe_node chain[] = {
        {.id = "a"}, {.id = "b", .deps = "a"}, {.id = "c", .deps = "b"}};
    task_in(3, task);
    int slot = redis_slot("orch:{s3}:", 10), from = servers_owner(MASTERS, slot);
    int to = (from + 1) % MASTERS;
    probe_follow(probe);
    assert_int_equal(probe_submit(probe, task, "d", chain, 3), QUEUE_OK);
    probe_run(probe, task, "a");
    begin_move(slot, from, to);
    snprintf(words, sizeof words, "cluster getkeysinslot %d 100", slot);
    snprintf(keys, sizeof keys, "%s", servers_ask(&servers, from, words));
    for (char *at = keys; *at != '\0'; at++)
        if (*at == '\n')
            *at = ' ';
    char *rest = strchr(keys, ' ');
    assert_non_null(rest);
    *rest++ = '\0';
    move_keys(from, to, keys);
    /* Some of its keys are here, the others there: a script has to wait for all of them. */
    bool never = false;
    c.done = false;
    queue_claim(probe->queue, task, "b", "worker", "model@place", "run", 60000, false, claimed,
                NULL);
    loop_run_until(&probe->loop, &never, 200);
    assert_false(c.done);
    move_keys(from, to, rest);
    end_move(slot, to);
    wait_for(&c.done);
    assert_int_equal(c.number, QUEUE_OK);
    assert_int_equal(probe_commit(probe, task, "b", c.text), QUEUE_OK);
    probe_run(probe, task, "c");
    assert_string_equal(probe_read(probe, task), "DONE 0/3 a=DONE b=DONE c=DONE");
    probe_wait_text(probe, &probe->events, "TASK");
    assert_int_equal(probe_fsck(probe), 0);
}

static void a_master_that_dies_is_replaced_by_its_replica(void **state)
{
    (void)state;
    struct probe *probe = &c.probe;
    char tasks[12][TASK_ID_SIZE];
    static const struct probe_node pair[] = {{.id = "a"}, {.id = "b", .deps = "a"}};
    probe_follow(probe);
    for (int i = 0; i < 12; i++) {
        task_in(i * 5, tasks[i]);
        assert_int_equal(probe_submit(probe, tasks[i], "d", pair, 2), QUEUE_OK);
        probe_run(probe, tasks[i], "a");
    }
    count_up(100);
    /* Until the replica has it all: what it has not would be lost. */
    ask("PING");
    servers_wait(&servers, MASTERS, "info replication", "master_link_status:up");
    servers_wait(&servers, 0, "wait 1 1000", "1");
    servers_kill(&servers, 0, SIGKILL);
    count_up(100); /* also those of the dead one: once its replica serves them */
    assert_true(c.down);
    for (int i = 0; i < 12; i++)
        probe_run(probe, tasks[i], "b");
    for (int i = 0; i < 12; i++)
        assert_string_equal(probe_read(probe, tasks[i]), "DONE 0/2 a=DONE b=DONE");
    for (int i = 0; i < 12; i++)
        probe_wait_text(probe, &probe->events, tasks[i]);
    assert_true(redis_connected(redis()));
    expect_counters(100, 2);
    assert_int_equal(probe_fsck(probe), 0);
    /* The old master comes back as a replica; nobody needs to know. */
    servers_wait(&servers, MASTERS, "role", "master");
    count_up(100);
}

/* The server hangs, and its connections with it: the others say who serves its slots. */
/* Asks for a failover to the first server until it is the master: one may be given up, after 5 s.
 */
static bool led_back(void *ctx)
{
    int64_t *asked_ms = ctx;
    if (strstr(servers_ask(&servers, 0, "role"), "master") != NULL)
        return true;
    if (*asked_ms == 0 || clock_ms() - *asked_ms > 6000) {
        servers_ask(&servers, 0, "cluster failover");
        *asked_ms = clock_ms();
    }
    return false;
}

static void a_master_that_hangs_is_replaced(void **state)
{
    (void)state;
    count_up(100);
    servers_wait(&servers, 0, "wait 1 1000", "1");
    servers_signal(&servers, 0, SIGSTOP);
    count_up(100);
    assert_non_null(strstr(c.why, "another server is the master now"));
    servers_signal(&servers, 0, SIGCONT);
    expect_counters(100, 2);
    /* Back to where it was: the next test needs it. */
    servers_wait(&servers, 0, "info replication", "master_link_status:up");
    int64_t asked_ms = 0;
    assert_true(fixture_wait(led_back, &asked_ms, SERVERS_WAIT_MS));
    servers_wait(&servers, MASTERS, "info replication", "master_link_status:up");
    count_up(100);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(commands_find_their_servers),
        TEST(scripts_are_loaded_where_they_run),
        TEST(a_server_that_is_in_no_cluster_is_told),
        TEST(a_listener_hears_what_is_published_anywhere),
        TEST(ask_and_moved_are_followed),
        TEST(all_that_the_queue_does_works),
        TEST(one_turn_of_many_shards_is_a_batch_for_each),
        TEST(work_goes_on_while_a_shard_moves),
        TEST(a_master_that_hangs_is_replaced),
        TEST(a_master_that_dies_is_replaced_by_its_replica),
    };
    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
