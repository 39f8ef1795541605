/* Redis with sentinels: the master is found, and followed when it is another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/servers.h"

#define WAIT_MS 90000
#define MASTER "mymaster"
enum { FIRST, SECOND, SENTINEL = SERVERS_SENTINEL };
#define SENTINELS SERVERS_SENTINELS

static struct {
    struct fixture fixture;
    struct servers servers;
    uv_loop_t loop;
    struct redis *redis;
    char *list[SENTINELS + 1];
    struct redis_options options;
    bool up, down, done;
    int downs;
    char why[1024], text[1024];
    enum redis_type type;
} c;

static void on_up(void *ctx)
{
    (void)ctx;
    c.up = true;
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

static const char *ask(const char *words)
{
    c.done = false;
    redis_simple(c.redis, keep, NULL, words);
    wait_for(&c.done);
    return c.text;
}

/* The first sentinel is not there, and the others are asked. */
static void use_sentinels(void)
{
    static char nowhere[32], master[] = MASTER;
    snprintf(nowhere, sizeof nowhere, "127.0.0.1:%d", fixture_free_port());
    c.list[0] = nowhere;
    for (int i = 0; i < SENTINELS; i++)
        c.list[1 + i] = c.servers.list[SENTINEL + i];
    c.options =
        (struct redis_options){.sentinels = c.list, .n_sentinels = SENTINELS + 1, .master = master};
}

static void open_client(void)
{
    static const struct redis_callbacks callbacks = {on_up, on_down};
    struct err err = {""};
    c.up = false;
    assert_int_equal(redis_open(&c.redis, &c.loop, &c.options, &callbacks, NULL, &err), 0);
}

/* Which of the two serves the client. */
static int serving(void)
{
    char port[16];
    redis_simple(c.redis, NULL, NULL, "PING");
    ask("INFO server");
    const char *at = strstr(c.text, "tcp_port:");
    snprintf(port, sizeof port, "%d", c.servers.ports[FIRST]);
    assert_non_null(at);
    return atoi(at + strlen("tcp_port:")) == c.servers.ports[FIRST] ? FIRST : SECOND;
}

/* --- finding ------------------------------------------------------------------------------ */

/* Asks for a failover to the first server until it serves: one may be given up half way, and then
 * nobody begins another. */
static bool led_back(void *ctx)
{
    (void)ctx;
    if (serving() == FIRST)
        return true;
    char second[16];
    snprintf(second, sizeof second, "%d", c.servers.ports[SECOND]);
    const char *master =
        servers_ask(&c.servers, SENTINEL, "sentinel get-master-addr-by-name " MASTER);
    if (strstr(master, second) != NULL)
        servers_ask(&c.servers, SENTINEL, "sentinel failover " MASTER);
    return false;
}

static void the_master_is_found_and_followed(void **state)
{
    (void)state;
    servers_start_replicated(&c.servers);
    use_sentinels();
    open_client();
    assert_string_equal(ask("SET k before"), "OK");
    assert_int_equal(serving(), FIRST);
    servers_wait(&c.servers, SECOND, "get k", "before");
    /* What was not answered is repeated to the new one. */
    servers_kill(&c.servers, FIRST, SIGKILL);
    assert_string_equal(ask("APPEND k -after"), "");
    assert_string_equal(ask("GET k"), "before-after");
    assert_int_equal(serving(), SECOND);
    /* The old one comes back as a replica of it, and another failover leads to it again. */
    servers_start(&c.servers, FIRST, NULL);
    servers_wait(&c.servers, FIRST, "info replication", "master_link_status:up");
    for (int i = 0; i < SENTINELS; i++)
        servers_wait(&c.servers, SENTINEL + i, "info sentinel", "status=ok");
    assert_true(fixture_wait(led_back, NULL, WAIT_MS));
    assert_string_equal(ask("GET k"), "before-after");
}

/* The old master is alive but cut off: only the news of the sentinels tells. */
static void a_master_that_hangs_is_left_when_the_sentinels_say_so(void **state)
{
    (void)state;
    servers_start_replicated(&c.servers);
    use_sentinels();
    open_client();
    wait_for(&c.up);
    assert_string_equal(ask("SET k 1"), "OK");
    servers_wait(&c.servers, SECOND, "get k", "1");
    c.up = false;
    servers_signal(&c.servers, FIRST, SIGSTOP);
    wait_for(&c.up); /* though it was asked nothing */
    assert_int_equal(serving(), SECOND);
    assert_non_null(strstr(c.why, "made another server the master"));
    servers_signal(&c.servers, FIRST, SIGCONT);
}

static void sentinels_that_do_not_help_are_told(void **state)
{
    (void)state;
    static char other[] = "other", user[] = "nobody", password[] = "wrong";
    servers_start(&c.servers, FIRST, NULL);
    servers_start_sentinel(&c.servers, SENTINEL, FIRST, 1, NULL);
    c.options = (struct redis_options){
        .sentinels = c.servers.list + SENTINEL, .n_sentinels = 1, .master = other};
    open_client();
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "watches no master called other"));
    redis_close(&c.redis);
    c.down = false;
    static char master[] = MASTER;
    c.options.master = master;
    c.options.sentinel_user = user;
    c.options.sentinel_password = password;
    open_client();
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "no sentinel names the master mymaster"));
    assert_non_null(strstr(c.why, "WRONGPASS"));
    assert_null(strstr(c.why, "wrong\""));
    redis_close(&c.redis);
    c.down = false;
    c.options.sentinel_user = c.options.sentinel_password = NULL;
    servers_kill(&c.servers, SENTINEL, SIGKILL);
    open_client();
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "Connection refused"));
}

static void passwords_of_sentinels_and_master_are_apart(void **state)
{
    (void)state;
    static char of_sentinel[] = "sesame", of_master[] = "open", master[] = MASTER;
    servers_start(&c.servers, FIRST, (const char *[]){"--requirepass", of_master, NULL});
    servers_start_sentinel(
        &c.servers, SENTINEL, FIRST, 1,
        (const char *[]){"sentinel auth-pass mymaster open", "requirepass sesame", NULL});
    c.options = (struct redis_options){.sentinels = c.servers.list + SENTINEL,
                                       .n_sentinels = 1,
                                       .master = master,
                                       .password = of_master,
                                       .sentinel_password = of_sentinel};
    open_client();
    wait_for(&c.up);
    assert_string_equal(ask("SET k 1"), "OK");
}

/* --- a sentinel that is wrong --------------------------------------------------------------- */

/* Answers the first command of each connection with +PONG, all others with the address. */
static pid_t fake_sentinel(int port, int master_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 16), 0);
    pid_t pid = fork();
    if (pid != 0) {
        close(listener);
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN); /* one for each connection */
    char text[96], number[16];
    snprintf(number, sizeof number, "%d", master_port);
    snprintf(text, sizeof text, "*2\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%s\r\n", strlen(number), number);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fork() != 0) {
            close(fd);
            continue;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        char chunk[4096];
        bool greeted = false;
        while (fd >= 0 && read(fd, chunk, sizeof chunk) > 0) {
            const char *answer = greeted ? text : "+PONG\r\n";
            greeted = true;
            if (send(fd, answer, strlen(answer), MSG_NOSIGNAL) < 0)
                break;
        }
        _exit(0);
    }
}

static void a_server_that_is_no_master_is_left(void **state)
{
    (void)state;
    static char master[] = MASTER, address[32];
    char *list[] = {address};
    int port = fixture_free_port();
    servers_start(&c.servers, FIRST, NULL);
    char replicaof[32];
    snprintf(replicaof, sizeof replicaof, "127.0.0.1 %d", c.servers.ports[FIRST]);
    servers_start(&c.servers, SECOND, (const char *[]){"--replicaof", replicaof, NULL});
    servers_wait(&c.servers, SECOND, "info replication", "master_link_status:up");
    pid_t pid = fake_sentinel(port, c.servers.ports[SECOND]);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    c.options = (struct redis_options){.sentinels = list, .n_sentinels = 1, .master = master};
    open_client();
    redis_simple(c.redis, keep, NULL, "GET k"); /* which a replica would answer */
    wait_for(&c.down);
    assert_non_null(strstr(c.why, "is no master: its role is \"slave\""));
    assert_false(c.done);
    /* It becomes one: the same sentinel is right now. */
    servers_ask(&c.servers, SECOND, "replicaof no one");
    wait_for(&c.done);
    fixture_kill(&c.fixture, pid, SIGKILL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_master_is_found_and_followed),
        TEST(a_master_that_hangs_is_left_when_the_sentinels_say_so),
        TEST(sentinels_that_do_not_help_are_told),
        TEST(passwords_of_sentinels_and_master_are_apart),
        TEST(a_server_that_is_no_master_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
