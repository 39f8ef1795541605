/* Redis over TLS: a tunnel of this process, certificates that are right and wrong, and the tunnel's
 * end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/redis.h"
#include "common/tunnel.h"
#include "tests/lib/fixture.h"

#define WAIT_MS 30000

static struct fixture fixture; /* of all: certificates and two servers */
static int port, port_demanding;
static char ca[128], other_ca[128], cert[128], key[128];

static struct {
    uv_loop_t loop;
    struct redis *redis;
    bool up, down, done;
    int downs;
    char why[1024], text[512];
    enum redis_type type;
} c;

/* --- certificates ------------------------------------------------------------------------- */

static const char *path(const char *name)
{
    static char text[4][160];
    static int turn;
    char *at = text[turn++ % 4];
    snprintf(at, 160, "%s/%s", fixture.dir, name);
    return at;
}

static void openssl(const char *const *argv)
{
    struct buf errors = {0};
    if (fixture_run(&fixture, argv, NULL, &errors) != 0)
        print_error("%s\n", errors.data != NULL ? errors.data : "openssl failed");
    buf_release(&errors);
}

static void make_ca(const char *name)
{
    char key_file[64], cert_file[64];
    snprintf(key_file, sizeof key_file, "%s.key", name);
    snprintf(cert_file, sizeof cert_file, "%s.crt", name);
    openssl((const char *[]){"/usr/bin/openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                             "ec_paramgen_curve:P-256", "-nodes", "-keyout", path(key_file), "-out",
                             path(cert_file), "-days", "2", "-subj", "/CN=Test CA", NULL});
}

/* A certificate that `authority` has signed, for these names ("DNS:localhost,IP:127.0.0.1"). */
static void make_cert(const char *name, const char *authority, const char *names)
{
    char key_file[64], cert_file[64], request[64], ext[64], text[128], ca_key[64], ca_crt[64];
    snprintf(key_file, sizeof key_file, "%s.key", name);
    snprintf(cert_file, sizeof cert_file, "%s.crt", name);
    snprintf(request, sizeof request, "%s.csr", name);
    snprintf(ext, sizeof ext, "%s.ext", name);
    snprintf(ca_key, sizeof ca_key, "%s.key", authority);
    snprintf(ca_crt, sizeof ca_crt, "%s.crt", authority);
    snprintf(text, sizeof text, "subjectAltName=%s\n", names);
    fixture_write(&fixture, ext, text);
    openssl((const char *[]){"/usr/bin/openssl", "req", "-newkey", "ec", "-pkeyopt",
                             "ec_paramgen_curve:P-256", "-nodes", "-keyout", path(key_file), "-out",
                             path(request), "-subj", "/CN=somebody", NULL});
    char *in = strdup(path(request)), *out = strdup(path(cert_file));
    char *from = strdup(path(ca_crt)), *with = strdup(path(ca_key));
    openssl((const char *[]){"/usr/bin/openssl", "x509", "-req", "-in", in, "-out", out, "-CA",
                             from, "-CAkey", with, "-CAcreateserial", "-days", "2", "-extfile",
                             path(ext), NULL});
    free(in);
    free(out);
    free(from);
    free(with);
}

/* A redis-server that speaks TLS alone. */
static int start_server(const char *log, const char *auth_clients)
{
    int at = fixture_free_port();
    char text[16], dir[160];
    snprintf(text, sizeof text, "%d", at);
    snprintf(dir, sizeof dir, "%s", fixture.dir);
    char *crt = strdup(path("server.crt")), *server_key = strdup(path("server.key"));
    fixture_spawn(&fixture, log,
                  (const char *[]){"/usr/bin/redis-server",
                                   "--port",
                                   "0",
                                   "--tls-port",
                                   text,
                                   "--bind",
                                   "127.0.0.1",
                                   "--save",
                                   "",
                                   "--dir",
                                   dir,
                                   "--tls-cert-file",
                                   crt,
                                   "--tls-key-file",
                                   server_key,
                                   "--tls-ca-cert-file",
                                   ca,
                                   "--tls-auth-clients",
                                   auth_clients,
                                   NULL});
    free(crt);
    free(server_key);
    return fixture_wait_listen(NULL, at, WAIT_MS) ? at : 0;
}

static int setup_all(void **state)
{
    (void)state;
    fixture_init(&fixture);
    make_ca("ca");
    make_ca("other");
    make_cert("server", "ca", "DNS:localhost,IP:127.0.0.1");
    make_cert("client", "ca", "DNS:client");
    snprintf(ca, sizeof ca, "%s/ca.crt", fixture.dir);
    snprintf(other_ca, sizeof other_ca, "%s/other.crt", fixture.dir);
    snprintf(cert, sizeof cert, "%s/client.crt", fixture.dir);
    snprintf(key, sizeof key, "%s/client.key", fixture.dir);
    port = start_server("redis-tls.log", "no");
    port_demanding = start_server("redis-mtls.log", "yes");
    return port > 0 && port_demanding > 0 ? 0 : -1;
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
    memset(&c, 0, sizeof c);
    loop_init(&c.loop);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    redis_close(&c.redis);
    loop_finish(&c.loop);
    return 0;
}

/* --- the client --------------------------------------------------------------------------- */

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

static void wait_for(const bool *flag)
{
    if (loop_run_until(&c.loop, flag, WAIT_MS) != 0)
        print_error("the last that went wrong: %s\n", c.why);
    assert_true(*flag);
}

static void keep(void *ctx, const struct redis_value *value)
{
    (void)ctx;
    c.type = redis_type(value);
    snprintf(c.text, sizeof c.text, "%s", redis_str(value, NULL));
    c.done = true;
}

static void open_client(const char *host, int at, const char *authority)
{
    static const struct redis_callbacks callbacks = {on_up, on_down};
    struct err err = {""};
    c.done = false;
    struct redis_options options = {.host = (char *)(uintptr_t)host,
                                    .port = at,
                                    .tls = true,
                                    .ca = (char *)(uintptr_t)authority};
    assert_int_equal(redis_open(&c.redis, &c.loop, &options, &callbacks, NULL, &err), 0);
}

static const char *ask(const char *words)
{
    c.done = false;
    redis_simple(c.redis, keep, NULL, words);
    wait_for(&c.done);
    return c.text;
}

static void commands_go_through_the_tunnel(void **state)
{
    (void)state;
    open_client("127.0.0.1", port, ca);
    assert_string_equal(ask("SET k secret"), "OK");
    assert_string_equal(ask("GET k"), "secret");
    assert_int_equal(c.downs, 0); /* the tunnel's start is no news */
}

static void a_host_name_is_checked_too(void **state)
{
    (void)state;
    if (!fixture_has_localhost())
        skip();
    open_client("localhost", port, ca);
    assert_string_equal(ask("PING"), "PONG");
}

static void clients_of_one_server_share_a_tunnel(void **state)
{
    (void)state;
    struct tunnel_options options = {.host = "127.0.0.1", .port = port, .ca = ca};
    struct tunnel *first, *second;
    struct err err = {""};
    assert_int_equal(tunnel_open(&first, &c.loop, &options, &err), 0);
    open_client("127.0.0.1", port, ca);
    assert_string_equal(ask("PING"), "PONG");
    assert_int_equal(tunnel_open(&second, &c.loop, &options, &err), 0);
    assert_ptr_equal(first, second);
    /* Nobody else of this machine can use it. */
    struct stat st;
    char dir[128];
    snprintf(dir, sizeof dir, "%s", tunnel_path(first));
    *strrchr(dir, '/') = '\0';
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    int pid = tunnel_pid(first);
    assert_true(pid > 0);
    redis_close(&c.redis);
    tunnel_close(&first);
    assert_int_equal(kill(pid, 0), 0); /* the second still has it */
    tunnel_close(&second);
    assert_int_equal(kill(pid, 0), -1); /* ended and reaped */
}

/* --- what is refused ------------------------------------------------------------------------ */

static void expect_refusal(const char *words)
{
    redis_simple(c.redis, keep, NULL, "PING");
    wait_for(&c.down);
    if (strstr(c.why, words) == NULL)
        print_error("%s\n", c.why);
    assert_non_null(strstr(c.why, words));
    assert_false(c.done);
}

static void a_certificate_of_another_ca_is_refused(void **state)
{
    (void)state;
    open_client("127.0.0.1", port, other_ca);
    expect_refusal("is not signed by a known CA");
    assert_non_null(strstr(c.why, "ca: FILE"));
}

static void without_a_ca_the_systems_count(void **state)
{
    (void)state;
    if (access("/etc/ssl/certs/ca-certificates.crt", R_OK) != 0)
        skip();
    open_client("127.0.0.1", port, NULL);
    expect_refusal("is not signed by a known CA");
}

static void a_certificate_for_another_host_is_refused(void **state)
{
    (void)state;
    open_client("127.0.0.2", 1, ca); /* nothing is there: that is told first */
    expect_refusal("nothing listens there");
    redis_close(&c.redis);
    c.down = false;
    /* The same server under a name that its certificate does not have. */
    make_cert("server", "ca", "DNS:elsewhere.example");
    int elsewhere = start_server("redis-elsewhere.log", "no");
    assert_true(elsewhere > 0);
    open_client("127.0.0.1", elsewhere, ca);
    expect_refusal("its certificate is for another host");
    redis_close(&c.redis);
    if (!fixture_has_localhost())
        return;
    c.down = false;
    open_client("localhost", elsewhere, ca);
    expect_refusal("its certificate is for another host");
}

static void a_server_that_demands_a_certificate_gets_one(void **state)
{
    (void)state;
    open_client("127.0.0.1", port_demanding, ca);
    expect_refusal("set `cert` and `key`");
    redis_close(&c.redis);
    static const struct redis_callbacks callbacks = {on_up, on_down};
    struct err err = {""};
    struct redis_options options = {.host = (char[]){"127.0.0.1"},
                                    .port = port_demanding,
                                    .tls = true,
                                    .ca = ca,
                                    .cert = cert,
                                    .key = key};
    c.up = false;
    assert_int_equal(redis_open(&c.redis, &c.loop, &options, &callbacks, NULL, &err), 0);
    wait_for(&c.up);
}

static void a_server_without_tls_is_told(void **state)
{
    (void)state;
    char text[16];
    int plain = fixture_free_port();
    snprintf(text, sizeof text, "%d", plain);
    fixture_spawn(&fixture, "redis-plain.log",
                  (const char *[]){"/usr/bin/redis-server", "--port", text, "--bind", "127.0.0.1",
                                   "--save", "", NULL});
    assert_true(fixture_wait_listen(NULL, plain, WAIT_MS));
    open_client("127.0.0.1", plain, ca);
    expect_refusal("it speaks no TLS on this port");
}

static void options_that_would_change_the_configuration_are_refused(void **state)
{
    (void)state;
    struct tunnel *tunnel;
    static const char *const hosts[] = {"h\nverifyChain = no", "h;x", "h#x"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        struct err err = {""};
        struct tunnel_options options = {.host = hosts[i], .port = 1, .ca = ca};
        assert_int_equal(tunnel_open(&tunnel, &c.loop, &options, &err), -EINVAL);
        assert_non_null(strstr(err.text, "must not have the character"));
    }
    struct err err = {""};
    struct tunnel_options none = {.host = "h", .port = 1, .ca = "/nowhere/ca.crt"};
    assert_int_equal(tunnel_open(&tunnel, &c.loop, &none, &err), -ENOENT);
    assert_non_null(strstr(err.text, "cannot read /nowhere/ca.crt"));
}

static void a_missing_stunnel_is_told_with_the_cure(void **state)
{
    (void)state;
    struct err err = {""};
    struct redis_options options = {.host = (char[]){"127.0.0.1"}, .port = port, .tls = true};
    setenv("ORCHESTRATOR_STUNNEL", "/nowhere/stunnel", 1);
    int rc = redis_open(&c.redis, &c.loop, &options, NULL, NULL, &err);
    unsetenv("ORCHESTRATOR_STUNNEL");
    assert_int_equal(rc, -ENOENT);
    assert_non_null(strstr(err.text, "apt-get install stunnel4"));
}

/* Its map names addresses, and each of them gets a tunnel. */
static void a_cluster_is_reached_over_tls(void **state)
{
    (void)state;
    static const struct redis_callbacks callbacks = {on_up, on_down};
    int at = fixture_free_port();
    char text[16], bus[16], address[32], dir[160];
    char *list[] = {address};
    make_cert("server", "ca", "IP:127.0.0.1");
    char *crt = strdup(path("server.crt")), *server_key = strdup(path("server.key"));
    snprintf(text, sizeof text, "%d", at);
    snprintf(bus, sizeof bus, "%d", at + 1);
    snprintf(address, sizeof address, "127.0.0.1:%d", at);
    snprintf(dir, sizeof dir, "%s", path("cluster"));
    mkdir(dir, 0700);
    fixture_spawn(&fixture, "redis-cluster.log",
                  (const char *[]){"/usr/bin/redis-server",
                                   "--port",
                                   "0",
                                   "--tls-port",
                                   text,
                                   "--bind",
                                   "127.0.0.1",
                                   "--save",
                                   "",
                                   "--dir",
                                   dir,
                                   "--tls-cert-file",
                                   crt,
                                   "--tls-key-file",
                                   server_key,
                                   "--tls-ca-cert-file",
                                   ca,
                                   "--tls-auth-clients",
                                   "no",
                                   "--tls-cluster",
                                   "yes",
                                   "--cluster-enabled",
                                   "yes",
                                   "--cluster-port",
                                   bus,
                                   NULL});
    free(crt);
    free(server_key);
    assert_true(fixture_wait_listen(NULL, at, WAIT_MS));
    struct err err = {""};
    struct redis_options options = {.cluster = list, .n_cluster = 1, .tls = true, .ca = ca};
    assert_int_equal(redis_open(&c.redis, &c.loop, &options, &callbacks, NULL, &err), 0);
    assert_string_equal(ask("CLUSTER ADDSLOTSRANGE 0 16383"), "OK");
    assert_string_equal(ask("SET k 1"), "OK");
    assert_string_equal(ask("GET k"), "1");
}

/* --- its end ------------------------------------------------------------------------------ */

static void a_tunnel_that_dies_is_started_again(void **state)
{
    (void)state;
    struct tunnel_options options = {.host = "127.0.0.1", .port = port, .ca = ca};
    struct tunnel *tunnel;
    struct err err = {""};
    assert_int_equal(tunnel_open(&tunnel, &c.loop, &options, &err), 0);
    open_client("127.0.0.1", port, ca);
    ask("SET n 1");
    int pid = tunnel_pid(tunnel);
    kill(pid, SIGKILL);
    for (int i = 0; i < 100; i++) /* what is not answered is repeated through the next one */
        redis_simple(c.redis, NULL, NULL, "PING");
    assert_string_equal(ask("GET n"), "1");
    assert_int_not_equal(tunnel_pid(tunnel), pid);
    tunnel_close(&tunnel);
}

static bool is_gone(void *ctx)
{
    return kill(*(pid_t *)ctx, 0) != 0;
}

static void a_tunnel_dies_with_its_process(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork(), pid = 0;
    if (child == 0) {
        struct tunnel_options options = {.host = "127.0.0.1", .port = port, .ca = ca};
        struct tunnel *tunnel;
        uv_loop_t loop;
        loop_init(&loop);
        if (tunnel_open(&tunnel, &loop, &options, NULL) != 0)
            _exit(1);
        pid = tunnel_pid(tunnel);
        if (write(fds[1], &pid, sizeof pid) != (ssize_t)sizeof pid)
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(fds[0], &pid, sizeof pid), sizeof pid);
    assert_int_equal(kill(pid, 0), 0);
    kill(child, SIGKILL); /* nothing of it can clean up */
    waitpid(child, NULL, 0);
    assert_true(fixture_wait(is_gone, &pid, WAIT_MS));
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    if (access("/usr/bin/stunnel4", X_OK) != 0 && access("/usr/bin/stunnel", X_OK) != 0) {
        fprintf(stderr, "stunnel is not installed: deploy/packages.sh test\n");
        return 1;
    }
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(commands_go_through_the_tunnel),
        TEST(a_host_name_is_checked_too),
        TEST(clients_of_one_server_share_a_tunnel),
        TEST(a_certificate_of_another_ca_is_refused),
        TEST(without_a_ca_the_systems_count),
        TEST(a_certificate_for_another_host_is_refused),
        TEST(a_server_that_demands_a_certificate_gets_one),
        TEST(a_server_without_tls_is_told),
        TEST(options_that_would_change_the_configuration_are_refused),
        TEST(a_missing_stunnel_is_told_with_the_cure),
        TEST(a_cluster_is_reached_over_tls),
        TEST(a_tunnel_that_dies_is_started_again),
        TEST(a_tunnel_dies_with_its_process),
    };
    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
