/* A provider from outside: the example of the documentation, built against the generated header
 * alone, serves a subtask in a real worker; and what is no such provider is refused with a
 * sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/workbench.h"
#include "workers/failure.h"
#include "workers/json_view.h"
#include "workers/plugin.h"
#include "workers/wire.h"

static struct workbench bench_, *const bench = &bench_;

/* --- the server that says everything twice ------------------------------------------------------
 */

static struct {
    int fd, port;
    pthread_t thread;
    pthread_mutex_t lock;
    char last[8192]; /* request, whole */
} echo = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool is_whole(const char *request)
{
    const char *body = strstr(request, "\r\n\r\n");
    const char *length = strcasestr(request, "\r\nContent-Length: ");
    return body != NULL && length != NULL && strlen(body + 4) >= (size_t)atol(length + 18);
}

static void answer(int fd)
{
    char request[8192] = "", reply[1024];
    size_t len = 0;
    ssize_t n;
    while (len + 1 < sizeof request && !is_whole(request) &&
           (n = recv(fd, request + len, sizeof request - 1 - len, 0)) > 0) {
        len += (size_t)n;
        request[len] = '\0';
    }
    bool refused = strstr(request, "refuse me") != NULL;
    const char *body = refused ? "{\"error\":{\"message\":\"the parrot is resting\"}}"
                               : "{\"text\":\"twice \"}\n{\"text\":\"twice\"}\n"
                                 "{\"done\":true,\"model\":\"parrot\",\"tokens_in\":3,"
                                 "\"tokens_out\":2}\n";
    snprintf(
        reply, sizeof reply,
        "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
        refused ? "400 Bad Request" : "200 OK",
        refused ? "application/json" : "application/x-ndjson", strlen(body), body);
    pthread_mutex_lock(&echo.lock);
    memcpy(echo.last, request, sizeof request);
    pthread_mutex_unlock(&echo.lock);
    send(fd, reply, strlen(reply), MSG_NOSIGNAL);
    close(fd);
}

static void *serve(void *ctx)
{
    (void)ctx;
    for (int fd; (fd = accept(echo.fd, NULL, NULL)) >= 0;)
        answer(fd);
    return NULL;
}

static void start_echo(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    echo.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(echo.fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(echo.fd, 16), 0);
    getsockname(echo.fd, (struct sockaddr *)&address, &len);
    echo.port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&echo.thread, NULL, serve, NULL), 0);
}

static void stop_echo(void)
{
    shutdown(echo.fd, SHUT_RDWR);
    pthread_join(echo.thread, NULL);
    close(echo.fd);
}

/* --- building -----------------------------------------------------------------------------------
 */

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", bench->fixture.dir, name);
    return path;
}

static void run(const char *const *argv)
{
    struct buf output = {0};
    int code = fixture_run(&bench->fixture, argv, &output, &output);
    if (code != 0)
        fail_msg("%s ended with %d: %s", argv[0], code, output.len > 0 ? output.data : "");
    buf_release(&output);
}

/* The folder of the example, with nothing of the tree beside it, as its own comment says to. */
static void build_example(void)
{
    char source[512], target[300], prefix[600];
    snprintf(source, sizeof source, "%s/docs/examples/plugin", getenv("ORCH_SOURCE"));
    snprintf(target, sizeof target, "%s/echo", bench->fixture.dir);
    snprintf(prefix, sizeof prefix, "-DCMAKE_PREFIX_PATH=%s/..", getenv("ORCH_BIN"));
    run((const char *[]){"/usr/bin/env", "cmake", "-G", "Ninja", "-S", source, "-B", target, prefix,
                         "-DCMAKE_C_FLAGS=-Werror", NULL});
    run((const char *[]){"/usr/bin/env", "cmake", "--build", target, NULL});
}

/* A shared object of a few lines; its path is valid until the next call. */
static const char *build_object(const char *code)
{
    static char object[256];
    char include[600];
    const char *source = fixture_write(&bench->fixture, "odd.c", code);
    snprintf(object, sizeof object, "%s/odd.so", bench->fixture.dir);
    snprintf(include, sizeof include, "-I%s/../include", getenv("ORCH_BIN"));
    unlink(object);
    run((const char *[]){"/usr/bin/env", "cc", "-w", "-shared", "-fPIC", include, "-o", object,
                         source, NULL});
    return object;
}

/* --- in a worker --------------------------------------------------------------------------------
 */

static void a_plugin_serves_a_subtask(void **state)
{
    (void)state;
    struct msg_work work = workbench_work();
    work.prompt = (struct bytes){"say it twice", 12};
    workbench_start_worker(bench, "w-echo");
    workbench_run(bench, &work, "parrot", SUB_DONE);
    assert_string_equal(workbench_text(bench), "twice twice");
    assert_string_equal(bench->timing.timing.served_model, "parrot");
    assert_int_equal(bench->timing.timing.prompt_tokens, 3);
    assert_int_equal(bench->timing.timing.output_tokens, 2);
    pthread_mutex_lock(&echo.lock);
    assert_non_null(strstr(echo.last, "POST /v1/echo HTTP/1.1\r\n"));
    assert_non_null(strstr(echo.last, "\r\nX-Parrot: yes\r\n"));
    assert_non_null(strstr(echo.last, "say it twice"));
    assert_non_null(strstr(echo.last, "\"stream\":true,\"model\":\"parrot\"}"));
    pthread_mutex_unlock(&echo.lock);
}

static void what_a_plugin_refuses_has_a_class(void **state)
{
    (void)state;
    struct msg_work work = workbench_work();
    work.prompt = (struct bytes){"refuse me", 9};
    workbench_submit(bench, &work, NULL);
    workbench_offer(bench, "parrot", false);
    workbench_wait_event(bench, "the parrot is resting");
    workbench_read(bench);
    assert_string_equal(bench->error_class, "bad_request");
}

static void a_worker_says_why_it_loads_no_plugin(void **state)
{
    (void)state;
    int ready;
    workbench_start_worker_with(bench, "w-none", "1000", &ready);
    const char *line = workbench_ready_line(bench, ready);
    if (strstr(line, "cannot open the plug-in /nowhere/none.so") == NULL)
        fail_msg("%s", line);
}

/* --- refusals -----------------------------------------------------------------------------------
 */

static void assert_refused(const char *path, int code, const char *says)
{
    struct plugin *plugin = NULL;
    const struct provider *provider = NULL;
    struct err err = {0};
    int rc = plugin_open(&plugin, path, &provider, &err);
    if (rc == 0 || strstr(err.text, says) == NULL)
        fail_msg("%d, \"%s\" is not in: %s", rc, says, err.text);
    assert_int_equal(rc, code);
    assert_null(plugin);
    assert_null(provider);
}

#define HEAD                                                                                       \
    "#include <orchestrator/provider.h>\n"                                                         \
    "static void f() {}\n"                                                                         \
    "static int g() { return 0; }\n"                                                               \
    "static struct provider p = {.abi = PROVIDER_ABI, .api = \"odd\", .title = \"odd\",\n"         \
    "  .kinds = PROVIDER_KIND(PROVIDER_CHAT), .build = g, .event = f, .body = f, .failure = f,\n"  \
    "  .end = f};\n"
#define ODD(statements)                                                                            \
    HEAD "const struct provider *orchestrator_provider(uint32_t abi) { " statements                \
         "; return &p; }\n"

static void a_sound_plugin_is_opened(void **state)
{
    (void)state;
    struct plugin *plugin = NULL;
    const struct provider *provider = NULL;
    struct err err = {0};
    if (plugin_open(&plugin, build_object(ODD("")), &provider, &err) != 0)
        fail_msg("%s", err.text);
    assert_string_equal(provider->api, "odd");
    plugin_close(&plugin);
    assert_null(plugin);
    plugin_close(&plugin); /* accepts NULL */
    /* Without HTTP, as noop, body() is all there is. */
    const char *path = build_object(ODD("p.build = 0, p.event = 0, p.failure = 0, p.end = 0"));
    assert_int_equal(plugin_open(&plugin, path, &provider, &err), 0);
    plugin_close(&plugin);
}

static void objects_that_are_no_provider_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *code, *says;
    } rows[] = {
        {"int x;", "does not export orchestrator_provider()"},
        {"void nobody_has_this(void); void *orchestrator_provider() { nobody_has_this(); }",
         "undefined symbol: nobody_has_this"},
        {"void *orchestrator_provider(int abi) { return 0; }", "does not know version"},
        {ODD("p.abi = 1"), "was built for version 1 of the provider ABI"},
        {ODD("p.api = 0"), "has no name (api)"},
        {ODD("p.api = \"\""), "has no name (api)"},
        {ODD("p.api = \"0123456789012345678901234567890123456789012345678901234567890123\""),
         "of more than 63 bytes"},
        {ODD("p.api = \"a b\""), "other characters than"},
        {ODD("p.title = 0"), "has no `title`"},
        {ODD("p.kinds = 0"), "has no `kinds`"},
        {ODD("p.event = 0"), "has no `event`"},
        {ODD("p.body = 0"), "has no `body`"},
        {ODD("p.failure = 0"), "has no `failure`"},
        {ODD("p.end = 0"), "has no `end`"},
        {ODD("p.framing = 7"), "has an unknown framing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_refused(build_object(rows[i].code), -EINVAL, rows[i].says);
}

static void files_that_cannot_be_trusted_are_refused(void **state)
{
    (void)state;
    char path[256], folder[256], moved[600];
    snprintf(path, sizeof path, "%s", build_object(ODD("")));
    assert_refused("odd.so", -EINVAL, "is no absolute path");
    assert_refused(path_of("nowhere.so"), -ENOENT, "No such file or directory");
    assert_refused(bench->fixture.dir, -EINVAL, "is no regular file");
    assert_refused(fixture_write(&bench->fixture, "text.so", "no ELF"), -EINVAL,
                   "cannot be loaded");
    chmod(path, 0757);
    assert_refused(path, -EPERM, "can be written by everybody: chmod o-w ");
    chmod(path, 0700);
    snprintf(folder, sizeof folder, "%s", path_of("open"));
    snprintf(moved, sizeof moved, "%s/odd.so", folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(chmod(folder, 0777), 0);
    assert_int_equal(rename(path, moved), 0);
    assert_refused(moved, -EPERM, "can be written by everybody");
    if (geteuid() == 0) {
        assert_int_equal(chmod(folder, 0700), 0);
        assert_int_equal(chown(moved, 12345, 12345), 0);
        assert_refused(moved, -EPERM, "belongs to user 12345");
    }
}

/* A built object holds these structs: one that grows, or moves, is another ABI. */
static void the_abi_number_grows_with_the_structs(void **state)
{
    (void)state;
    static const size_t now[] = {PROVIDER_ABI,
                                 sizeof(struct provider_call),
                                 sizeof(struct provider_request),
                                 sizeof(struct provider_reply),
                                 sizeof(struct provider),
                                 sizeof(struct provider_image),
                                 sizeof(struct buf),
                                 sizeof(struct err),
                                 sizeof(struct json_view),
                                 sizeof(struct json_view_name),
                                 sizeof(struct wire_stop),
                                 sizeof(struct failure)};
    static const size_t known[] = {3, 200, 96, 992, 104, 24, 32, 1024, 32, 16, 16, 1200};
    if (sizeof(void *) != 8)
        skip();
    for (size_t i = 0; i < sizeof now / sizeof *now; i++)
        if (now[i] != known[i])
            fail_msg("raise PROVIDER_ABI (docs/providers.md, \"Versions\") unless this one was "
                     "never released, and write %zu instead of %zu at place %zu here",
                     now[i], known[i], i);
}

static int setup(void **state)
{
    (void)state;
    char yaml[1024];
    start_echo();
    snprintf(yaml, sizeof yaml,
             "providers:\n"
             "  echo: {api: plugin, plugin: '%%s/echo/echo_provider.so',\n"
             "         base_url: 'http://127.0.0.1:%d', headers: ['X-Parrot: yes']}\n"
             "  none: {api: plugin, plugin: '/nowhere/none.so', base_url: 'http://127.0.0.1:1'}\n"
             "models:\n"
             "  parrot: {provider: echo, name: parrot, local: true}\n"
             "  silent: {provider: none, name: silent, local: true}\n"
             "workers:\n"
             "  - {name: w-echo, provider: echo}\n"
             "  - {name: w-none, provider: none}\n",
             echo.port);
    workbench_open(bench, yaml);
    build_example();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    workbench_close(bench);
    stop_echo();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plugin_serves_a_subtask),
        cmocka_unit_test(what_a_plugin_refuses_has_a_class),
        cmocka_unit_test(a_worker_says_why_it_loads_no_plugin),
        cmocka_unit_test(a_sound_plugin_is_opened),
        cmocka_unit_test(objects_that_are_no_provider_are_refused),
        cmocka_unit_test(the_abi_number_grows_with_the_structs),
        cmocka_unit_test(files_that_cannot_be_trusted_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
