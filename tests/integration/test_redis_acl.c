/* Users of Redis: what is refused is told with what to do, and nobody knocks without end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>

#include "common/redis.h"
#include "tests/lib/servers.h"

#define WAIT_MS 30000

static struct {
    struct fixture fixture;
    struct servers servers;
    uv_loop_t loop;
    struct redis *redis;
    bool up, down, done;
    int ups, downs;
    char why[1024], text[1024];
    enum redis_type type;
} c;

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
    servers_init(&c.servers, &c.fixture);
    servers_start(&c.servers, 0, NULL);
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

static void wait_for(const bool *flag)
{
    assert_int_equal(loop_run_until(&c.loop, flag, WAIT_MS), 0);
}

static void keep(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    c.type = redis_type(value);
    snprintf(c.text, sizeof c.text, "%s", redis_str(value, NULL));
    c.done = true;
}

static void open_as(const char *user, const char *password)
{
    static const struct redis_callbacks callbacks = {on_up, on_down};
    struct err err = {""};
    struct redis_options options = {.host = (char[]){"127.0.0.1"},
                                    .port = c.servers.ports[0],
                                    .user = (char *)(uintptr_t)user,
                                    .password = (char *)(uintptr_t)password};
    c.down = c.up = false;
    assert_int_equal(redis_open(&c.redis, &c.loop, &options, &callbacks, NULL, &err), 0);
}

static const char *ask(const char *words)
{
    c.done = false;
    redis_simple(c.redis, keep, NULL, words);
    wait_for(&c.done);
    return c.text;
}

static void make_user(void)
{
    servers_ask(&c.servers, 0, "acl setuser w on >secret ~orch:* +ping +get +set");
}

static void a_user_may_do_what_it_is_allowed(void **state)
{
    (void)state;
    make_user();
    open_as("w", "secret");
    assert_string_equal(ask("SET orch:x 1"), "OK");
    assert_string_equal(ask("GET orch:x"), "1");
    ask("GET other");
    assert_int_equal(c.type, REDIS_ERR);
    assert_non_null(strstr(c.text, "NOPERM"));
    assert_non_null(strstr(c.text, "docs/operations.md"));
    ask("INCR orch:x");
    assert_non_null(strstr(c.text, "incr"));
    assert_non_null(strstr(c.text, "docs/operations.md"));
    assert_int_equal(c.downs, 0);
}

static void a_password_that_is_missing_is_told(void **state)
{
    (void)state;
    servers_ask(&c.servers, 0, "config set requirepass sesame");
    open_as(NULL, NULL);
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "refuses this client: NOAUTH"));
    assert_non_null(strstr(c.why, "redis://user:password@host"));
}

static void a_wrong_password_is_told_without_showing_it(void **state)
{
    (void)state;
    make_user();
    open_as("w", "mistaken");
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "WRONGPASS"));
    assert_null(strstr(c.why, "mistaken"));
}

static void a_user_that_may_not_even_ping_is_told(void **state)
{
    (void)state;
    servers_ask(&c.servers, 0, "acl setuser w on >secret ~orch:* +get");
    open_as("w", "secret");
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "NOPERM"));
    assert_non_null(strstr(c.why, "docs/operations.md"));
}

static int connections(void)
{
    const char *text = servers_ask(&c.servers, 0, "info stats");
    const char *at = strstr(text, "total_connections_received:");
    assert_non_null(at);
    return atoi(at + strlen("total_connections_received:"));
}

/* ACL DELUSER ends the connections of the user. */
static void a_user_that_was_removed_says_so_and_does_not_knock_on(void **state)
{
    (void)state;
    make_user();
    open_as("w", "secret");
    wait_for(&c.up);
    c.down = false;
    servers_ask(&c.servers, 0, "acl deluser w");
    redis_simple(c.redis, keep, NULL, "SET orch:x 1");
    while (strstr(c.why, "WRONGPASS") == NULL) {
        c.down = false;
        wait_for(&c.down);
    }
    assert_non_null(strstr(c.why, "the user was removed"));
    assert_non_null(strstr(c.why, "orchestrator invite"));
    bool never = false;
    int before = connections(), downs = c.downs;
    loop_run_until(&c.loop, &never, 2500);
    assert_true(connections() - before <= 8); /* a client that spins comes thousands of times */
    assert_int_equal(c.downs, downs);         /* told once */
    assert_false(c.done);
    /* Invited again it goes on where it was. */
    make_user();
    wait_for(&c.done);
    assert_string_equal(c.text, "OK");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_user_may_do_what_it_is_allowed),
        TEST(a_password_that_is_missing_is_told),
        TEST(a_wrong_password_is_told_without_showing_it),
        TEST(a_user_that_may_not_even_ping_is_told),
        TEST(a_user_that_was_removed_says_so_and_does_not_knock_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
