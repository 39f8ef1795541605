/* The Redis client: reconnecting, repeating, and what a hostile or broken server may do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/redis.h"
#include "tests/lib/fixture.h"

#define WAIT_MS 30000

struct client {
    struct fixture fixture;
    uv_loop_t loop;
    struct redis *redis;
    bool up, down, done;
    int ups, downs;
    int answers, wanted;
    char why[512];
    char text[512];
    enum redis_type type;
    int64_t number;
    size_t len;
    int order[2000];
};

static struct client c;

static void on_up(void *ctx)
{
    (void)ctx;
    c.up = true;
    c.ups++;
}

static void on_down(void *ctx, const char *why)
{
    (void)ctx;
    c.down = true;
    c.downs++;
    snprintf(c.why, sizeof c.why, "%s", why);
}

static int setup(void **state)
{
    (void)state;
    memset(&c, 0, sizeof c);
    fixture_init(&c.fixture);
    loop_init(&c.loop);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    redis_close(&c.redis);
    loop_finish(&c.loop);
    fixture_release(&c.fixture);
    return 0;
}

static void open_with(const struct redis_options *options)
{
    struct redis_callbacks callbacks = {on_up, on_down};
    struct err err = {""};
    assert_int_equal(redis_open(&c.redis, &c.loop, options, &callbacks, NULL, &err), 0);
}

static void open_client(void)
{
    struct redis_options options = fixture_redis_options(&c.fixture);
    open_with(&options);
}

static void wait_for(const bool *flag)
{
    assert_int_equal(loop_run_until(&c.loop, flag, WAIT_MS), 0);
}

static void keep(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    c.type = redis_type(value);
    snprintf(c.text, sizeof c.text, "%s", redis_str(value, NULL));
    c.number = redis_int(value);
    c.len = redis_len(value);
    c.done = true;
}

static const char *ask(const char *words)
{
    c.done = false;
    redis_simple(c.redis, keep, NULL, words);
    wait_for(&c.done);
    return c.text;
}

static void count(void *ctx, const struct redis_value *value)
{
    if (redis_type(value) != REDIS_ERR && c.answers < 2000)
        c.order[c.answers] = (int)(intptr_t)ctx;
    c.done = ++c.answers == c.wanted;
}

/* --- ordinary ----------------------------------------------------------------------------- */

static void values_have_their_types(void **state)
{
    (void)state;
    fixture_redis_start(&c.fixture);
    open_client();
    assert_string_equal(ask("PING"), "PONG");
    assert_int_equal(c.type, REDIS_STR);
    ask("INCRBY n 42");
    assert_true(c.type == REDIS_INT && c.number == 42);
    ask("GET n");
    assert_true(c.type == REDIS_STR && c.number == 42);
    ask("GET none");
    assert_true(c.type == REDIS_NIL && c.number == 0 && c.len == 0);
    ask("MGET n none n");
    assert_true(c.type == REDIS_ARRAY && c.len == 3);
    ask("HGET n x");
    assert_true(c.type == REDIS_ERR && strncmp(c.text, "WRONGTYPE", 9) == 0);
    ask("SET n 12x");
    ask("GET n");
    assert_int_equal(c.number, 0);
}

static void commands_may_be_sent_before_the_connection_is_up(void **state)
{
    (void)state;
    open_client();
    redis_simple(c.redis, keep, NULL, "PING");
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "cannot connect to Redis at unix:"));
    assert_int_equal(redis_pending(c.redis), 1);
    fixture_redis_start(&c.fixture);
    wait_for(&c.done);
    assert_string_equal(c.text, "PONG");
    assert_true(redis_connected(c.redis));
}

static void closing_answers_everything(void **state)
{
    (void)state;
    open_client();
    c.wanted = 3;
    for (int i = 0; i < 3; i++)
        redis_simple(c.redis, count, NULL, "PING");
    redis_simple(c.redis, keep, NULL, "PING");
    redis_close(&c.redis);
    assert_int_equal(c.answers, 3);
    assert_int_equal(c.type, REDIS_ERR);
    assert_int_equal(strncmp(c.text, "CLOSED", 6), 0);
    assert_null(c.redis);
}

static void close_within(void *ctx, const struct redis_value *value)
{
    (void)ctx, (void)value;
    redis_close(&c.redis);
}

static void a_client_may_be_closed_by_its_own_callback(void **state)
{
    (void)state;
    fixture_redis_start(&c.fixture);
    open_client();
    c.wanted = 10;
    redis_simple(c.redis, close_within, NULL, "PING");
    for (int i = 0; i < 10; i++)
        redis_simple(c.redis, count, NULL, "PING");
    wait_for(&c.done);
    assert_null(c.redis);
}

static void arguments_are_binary(void **state)
{
    (void)state;
    fixture_redis_start(&c.fixture);
    open_client();
    const char *argv[] = {"SET", "k", "a\0b\r\nc"};
    const size_t lens[] = {3, 1, 6};
    redis_command(c.redis, NULL, NULL, 3, argv, lens);
    ask("STRLEN k");
    assert_int_equal(c.number, 6);
}

/* --- scripts ------------------------------------------------------------------------------ */

static struct redis_script add = {.name = "add",
                                  .source = "#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])"};

static int64_t run_script(struct redis_script *script)
{
    const char *args[] = {"sum", "5"};
    c.done = false;
    redis_eval(c.redis, script, keep, NULL, 1, 2, args, NULL);
    wait_for(&c.done);
    return c.number;
}

static void a_script_is_loaded_and_loaded_again(void **state)
{
    (void)state;
    fixture_redis_start(&c.fixture);
    open_client();
    assert_int_equal(run_script(&add), 5);
    assert_string_equal(ask("SCRIPT FLUSH"), "OK");
    const char *args[] = {"sum", "5"};
    c.wanted = 100;
    for (int i = 0; i < 100; i++)
        redis_eval(c.redis, &add, count, (void *)(intptr_t)i, 1, 2, args, NULL);
    c.done = false;
    wait_for(&c.done);
    for (int i = 0; i < 100; i++)
        assert_int_equal(c.order[i], i);
    assert_string_equal(ask("GET sum"), "505");
}

static void a_script_that_does_not_compile_is_an_error(void **state)
{
    (void)state;
    static struct redis_script broken = {.name = "broken", .source = "#!lua\nthis is no lua"};
    fixture_redis_start(&c.fixture);
    open_client();
    run_script(&broken);
    assert_int_equal(c.type, REDIS_ERR);
    assert_int_equal(strncmp(c.text, "NOSCRIPT", 8), 0);
    assert_int_equal(run_script(&add), 5);
}

/* --- reconnecting ------------------------------------------------------------------------- */

static void what_was_not_answered_is_sent_again_in_order(void **state)
{
    (void)state;
    fixture_redis_start(&c.fixture);
    open_client();
    wait_for(&c.up);
    run_script(&add);
    ask("DEL list");
    c.wanted = 2000;
    for (int i = 0; i < 2000; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        /* Safe to repeat: the score is the place. */
        const char *argv[] = {"ZADD", "list", number, number};
        redis_command(c.redis, count, (void *)(intptr_t)i, 4, argv, NULL);
    }
    c.done = false;
    while (c.answers < 100)
        uv_run(&c.loop, UV_RUN_ONCE);
    fixture_redis_kill(&c.fixture, SIGKILL);
    c.down = false;
    wait_for(&c.down);
    fixture_redis_start(&c.fixture);
    wait_for(&c.done);
    assert_int_equal(c.answers, 2000);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(c.order[i], i);
    ask("ZCARD list");
    assert_int_equal(c.number, 2000);
    assert_int_equal(redis_pending(c.redis), 0);
    assert_int_equal(run_script(&add), 10);
}

static void down_is_told_once_for_one_reason(void **state)
{
    (void)state;
    open_client();
    redis_simple(c.redis, keep, NULL, "PING");
    wait_for(&c.down);
    bool never = false;
    loop_run_until(&c.loop, &never, 300); /* ten tries and more */
    assert_int_equal(c.downs, 1);
    fixture_redis_start(&c.fixture);
    wait_for(&c.done);
    fixture_redis_kill(&c.fixture, SIGKILL);
    c.down = false;
    wait_for(&c.down);
    assert_true(c.downs >= 2);
}

static void a_killed_connection_comes_back(void **state)
{
    (void)state;
    fixture_redis_start(&c.fixture);
    open_client();
    ask("PING");
    ask("CLIENT KILL TYPE normal SKIPME no");
    assert_string_equal(ask("PING"), "PONG");
    assert_true(c.ups >= 2);
}

/* --- answers that pass -------------------------------------------------------------------- */

static void a_busy_server_is_waited_for(void **state)
{
    (void)state;
    fixture_redis_start(&c.fixture);
    open_client();
    struct redis *other;
    struct redis_options options = fixture_redis_options(&c.fixture);
    struct err err;
    assert_int_equal(redis_open(&other, &c.loop, &options, NULL, NULL, &err), 0);
    ask("CONFIG SET busy-reply-threshold 1");
    redis_simple(other, NULL, NULL, "SET x 1");
    const char *argv[] = {"EVAL", "while true do redis.call('GET', 'x') end", "0"};
    redis_command(other, keep, NULL, 3, argv, NULL);
    bool never = false;
    loop_run_until(&c.loop, &never, 50);
    /* Answered BUSY until the script is killed by a third client. */
    c.wanted = 1;
    redis_simple(c.redis, count, NULL, "GET x");
    loop_run_until(&c.loop, &never, 50);
    assert_int_equal(c.answers, 0);
    const char *kill[] = {
        "/usr/bin/redis-cli", "-s", c.fixture.redis_socket, "SCRIPT", "KILL", NULL};
    struct buf out = {0};
    assert_int_equal(fixture_run(&c.fixture, kill, &out, NULL), 0);
    buf_release(&out);
    while (c.answers == 0)
        uv_run(&c.loop, UV_RUN_ONCE);
    assert_string_equal(ask("GET x"), "1");
    redis_close(&other);
}

static void a_read_only_replica_is_left(void **state)
{
    (void)state;
    fixture_redis_start(&c.fixture);
    open_client();
    ask("REPLICAOF 127.0.0.1 1");
    c.wanted = 1;
    c.down = false;
    redis_simple(c.redis, count, NULL, "SET x 1");
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "read-only"));
    assert_int_equal(c.answers, 0);
    const char *promote[] = {
        "/usr/bin/redis-cli", "-s", c.fixture.redis_socket, "REPLICAOF", "NO", "ONE", NULL};
    struct buf out = {0};
    assert_int_equal(fixture_run(&c.fixture, promote, &out, NULL), 0);
    buf_release(&out);
    while (c.answers == 0)
        uv_run(&c.loop, UV_RUN_ONCE);
    assert_string_equal(ask("GET x"), "1");
}

/* --- authentication ----------------------------------------------------------------------- */

static void a_wrong_password_is_said_without_showing_it(void **state)
{
    (void)state;
    fixture_redis_start(&c.fixture);
    open_client();
    ask("CONFIG SET requirepass right-secret");
    redis_close(&c.redis);
    struct redis_options options = fixture_redis_options(&c.fixture);
    char wrong[] = "wrong-secret", right[] = "right-secret", user[] = "default";
    options.password = wrong;
    c.down = c.up = false;
    open_with(&options);
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "WRONGPASS"));
    assert_null(strstr(c.why, "secret"));
    assert_false(c.up);
    redis_close(&c.redis);

    options.password = NULL;
    c.down = false;
    open_with(&options);
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "NOAUTH"));
    redis_close(&c.redis);

    options.password = right;
    open_with(&options);
    wait_for(&c.up);
    redis_close(&c.redis);
    options.user = user;
    options.database = 3;
    open_with(&options);
    ask("SET here 1");
    ask("SELECT 0");
    ask("EXISTS here");
    assert_int_equal(c.number, 0);
}

static void an_address_must_be_one_of_its_kinds(void **state)
{
    (void)state;
    struct err err = {""};
    char host[] = "localhost", socket[] = "/x", master[] = "m", node[] = "h:1", bad[] = "h";
    char *nodes[] = {node}, *bads[] = {bad};
    const struct redis_options refused[] = {
        {.port = 1},
        {.host = host, .port = 1, .socket = socket},
        {.host = host, .port = 1, .cluster = nodes, .n_cluster = 1},
        {.sentinels = nodes, .n_sentinels = 1}, /* of which master? */
        {.sentinels = bads, .n_sentinels = 1, .master = master},
        {.cluster = bads, .n_cluster = 1},
        {.cluster = nodes, .n_cluster = 1, .database = 1},
        {.socket = socket, .tls = true},
        {.socket = socket, .replicas = -1},
        {.socket = socket, .replicas = 1, .replicas_timeout_ms = 6000},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        err.text[0] = '\0';
        assert_int_equal(redis_open(&c.redis, &c.loop, &refused[i], NULL, NULL, &err), -EINVAL);
        assert_true(strlen(err.text) > 10);
    }
}

static void a_port_where_nothing_listens_refuses_the_connection(void **state)
{
    (void)state;
    char host[] = "127.0.0.1", expected[128];
    struct redis_options options = {.host = host, .port = fixture_free_port()};
    snprintf(expected, sizeof expected,
             "cannot connect to Redis at 127.0.0.1:%d: Connection refused", options.port);
    open_with(&options);
    wait_for(&c.down);
    assert_string_equal(c.why, expected);
}

static void a_host_name_is_resolved(void **state)
{
    if (!fixture_has_localhost())
        skip();
    (void)state;
    int port = fixture_free_port();
    char text[16], host[] = "localhost", unknown[] = "no-such-host.invalid";
    snprintf(text, sizeof text, "%d", port);
    const char *argv[] = {
        "/usr/bin/redis-server", "--port", text, "--bind", "127.0.0.1", "--save", "", NULL};
    fixture_spawn(&c.fixture, "tcp.log", argv);
    struct redis_options options = {.host = host, .port = port};
    open_with(&options);
    assert_string_equal(ask("PING"), "PONG");
    redis_close(&c.redis);
    options.host = unknown;
    c.down = false;
    open_with(&options);
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "no-such-host.invalid"));
    redis_close(&c.redis); /* maybe while a name is asked for */
}

/* --- hostile servers ---------------------------------------------------------------------- */

/* A server that answers everything it reads with the same bytes, the first one with +PONG. */
static pid_t fake_server(const char *path, const char *bytes, size_t len)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    unlink(path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 16), 0);
    pid_t pid = fork();
    if (pid != 0) {
        close(listener);
        return pid;
    }
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        char chunk[4096];
        bool greeted = false;
        while (fd >= 0 && read(fd, chunk, sizeof chunk) > 0) {
            const char *answer = greeted ? bytes : "+PONG\r\n";
            size_t n = greeted ? len : 7;
            greeted = true;
            if (send(fd, answer, n, MSG_NOSIGNAL) < 0)
                break;
        }
        close(fd);
    }
}

static void nonsense_from_a_server_is_survived(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } answers[] = {
#define ANSWER(text) {text, sizeof text - 1}
        ANSWER("hello\r\n"),
        ANSWER("+a\r\n+b\r\n+c\r\n"), /* more than was asked */
        ANSWER("$-5\r\n"),
        ANSWER("$99999999999999999999\r\n"),
        ANSWER("*2147483647\r\n"),
        ANSWER("*-7\r\n"),
        ANSWER("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"),
        ANSWER(":12a\r\n"),
        ANSWER("\0\0\0\0\r\n"),
        ANSWER("-\r\n-\r\n"),
        ANSWER("-MOVED\r\n"),
        ANSWER("-NOSCRIPT\r\n"),
        ANSWER("-LOADING x\r\n"),
        ANSWER("-READONLY x\r\n"),
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        pid_t pid = fake_server(c.fixture.redis_socket, answers[i].bytes, answers[i].len);
        open_client();
        const char *args[] = {"sum", "5"};
        redis_eval(c.redis, &add, NULL, NULL, 1, 2, args, NULL);
        redis_simple(c.redis, NULL, NULL, "PING");
        bool never = false;
        loop_run_until(&c.loop, &never, 100);
        redis_close(&c.redis);
        fixture_kill(&c.fixture, pid, SIGKILL);
    }
}

static void moved_says_that_clusters_are_not_supported(void **state)
{
    (void)state;
    static const char moved[] = "-MOVED 3999 127.0.0.1:6381\r\n";
    pid_t pid = fake_server(c.fixture.redis_socket, moved, sizeof moved - 1);
    open_client();
    ask("GET x");
    assert_int_equal(c.type, REDIS_ERR);
    assert_non_null(strstr(c.text, "Cluster"));
    fixture_kill(&c.fixture, pid, SIGKILL);
}

static void a_server_that_says_nothing_is_left(void **state)
{
    (void)state;
    pid_t pid = fake_server(c.fixture.redis_socket, "", 0);
    open_client();
    redis_simple(c.redis, keep, NULL, "PING");
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "did not answer"));
    fixture_kill(&c.fixture, pid, SIGKILL);
    unlink(c.fixture.redis_socket);
    fixture_redis_start(&c.fixture);
    wait_for(&c.done);
    assert_string_equal(c.text, "PONG");
}

/* --- listening ---------------------------------------------------------------------------- */

static void heard(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    snprintf(c.text, sizeof c.text, "%s", redis_str(redis_at(value, 0), NULL));
    c.answers++;
    c.done = true;
}

static void a_listener_hears_messages_and_comes_back(void **state)
{
    (void)state;
    fixture_redis_start(&c.fixture);
    struct redis *listener;
    struct redis_options options = fixture_redis_options(&c.fixture);
    struct err err;
    assert_int_equal(redis_open(&listener, &c.loop, &options, NULL, NULL, &err), 0);
    redis_subscribe(listener, "news", heard, NULL);
    for (int round = 0; round < 2; round++) {
        c.done = false;
        wait_for(&c.done);
        assert_string_equal(c.text, "subscribe");
        open_client();
        c.done = false;
        redis_simple(c.redis, NULL, NULL, "PUBLISH news hello");
        wait_for(&c.done);
        assert_string_equal(c.text, "message");
        redis_close(&c.redis);
        fixture_redis_kill(&c.fixture, SIGKILL);
        fixture_redis_start(&c.fixture);
    }
    redis_close(&listener);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(values_have_their_types),
        TEST(commands_may_be_sent_before_the_connection_is_up),
        TEST(closing_answers_everything),
        TEST(a_client_may_be_closed_by_its_own_callback),
        TEST(arguments_are_binary),
        TEST(a_script_is_loaded_and_loaded_again),
        TEST(a_script_that_does_not_compile_is_an_error),
        TEST(what_was_not_answered_is_sent_again_in_order),
        TEST(down_is_told_once_for_one_reason),
        TEST(a_killed_connection_comes_back),
        TEST(a_busy_server_is_waited_for),
        TEST(a_read_only_replica_is_left),
        TEST(a_wrong_password_is_said_without_showing_it),
        TEST(an_address_must_be_one_of_its_kinds),
        TEST(a_host_name_is_resolved),
        TEST(a_port_where_nothing_listens_refuses_the_connection),
        TEST(nonsense_from_a_server_is_survived),
        TEST(moved_says_that_clusters_are_not_supported),
        TEST(a_server_that_says_nothing_is_left),
        TEST(a_listener_hears_messages_and_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
