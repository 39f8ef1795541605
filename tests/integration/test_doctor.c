/* doctor and check-config: what they find, what they advise, and their exit codes. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/paths.h"
#include "common/peer.h"
#include "orchestrator/doctor.h"
#include "tests/lib/fixture.h"

static struct fixture fixture;

static int run_argv(const char *const *argv, json_t **ret)
{
    struct buf out = {0}, errors = {0};
    int code = fixture_run(&fixture, argv, &out, &errors);
    *ret = json_parse(out.len > 0 ? out.data : "", out.len, NULL);
    if (*ret == NULL)
        fail_msg("%s", errors.len > 0 ? errors.data : "no output");
    buf_release(&out);
    buf_release(&errors);
    return code;
}

/* Runs `orchestrator COMMAND --json` with the configuration; the exit code, and what it printed. */
static int run(const char *command, const char *yaml, json_t **ret)
{
    char config[512];
    snprintf(config, sizeof config, "%s", fixture_write(&fixture, "c.yaml", yaml));
    const char *argv[] = {"orchestrator", command, "--json", "--config", config, NULL};
    return run_argv(argv, ret);
}

/* The check of that name; NULL when there is none. */
static const json_t *check(const json_t *report, const char *name)
{
    const json_t *checks = json_get(report, "checks");
    for (size_t i = 0; i < json_array_size(checks); i++)
        if (strcmp(json_str(json_array_get(checks, i), "check", ""), name) == 0)
            return json_array_get(checks, i);
    return NULL;
}

static void doctor_is_content_with_a_sound_machine(void **state)
{
    (void)state;
    json_t *report;
    assert_int_equal(run("doctor",
                         "providers: {n: {api: noop}}\nmodels: {m: {provider: n}}\n"
                         "workers: [{name: w, provider: n}]\n",
                         &report),
                     0);
    assert_true(json_bool(report, "ok", false));
    static const char *const names[] = {"configuration", "programs", "redis-server", "home"};
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(json_str(check(report, names[i]), "level", ""), "ok");
    assert_string_equal(json_str(check(report, "stack"), "level", ""), "note");
    json_decref(report);
}

static void doctor_says_why_the_home_takes_no_file(void **state)
{
    (void)state;
    json_t *report;
    const char *config = fixture_write(&fixture, "c.yaml", "redis: local\n");
    char command[1024];
    snprintf(command, sizeof command,
             "ulimit -f 0; exec \"$ORCH_BIN\"/orchestrator doctor --json --config '%s'", config);
    assert_int_equal(run_argv((const char *const[]){"/bin/sh", "-c", command, NULL}, &report), 1);
    assert_string_equal(json_str(check(report, "home"), "level", ""), "bad");
    assert_non_null(strstr(json_str(check(report, "home"), "detail", ""), ": File too large"));
    json_decref(report);
}

static void doctor_finds_missing_keys_and_servers(void **state)
{
    (void)state;
    json_t *report;
    char yaml[512];
    snprintf(yaml, sizeof yaml,
             "redis: redis://127.0.0.1:%d\n"
             "providers:\n  cloud: {api: openai, key: 'env:ORCH_NO_SUCH_KEY', base_url: "
             "'http://127.0.0.1:%d'}\n",
             fixture_free_port(), fixture_free_port());
    assert_int_equal(run("doctor", yaml, &report), 1);
    assert_false(json_bool(report, "ok", true));
    static const char *const names[] = {"key cloud", "provider cloud", "redis"};
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(json_str(check(report, names[i]), "level", ""), "bad");
        assert_string_not_equal(json_str(check(report, names[i]), "cure", ""), "");
    }
    assert_non_null(
        strstr(json_str(check(report, "provider cloud"), "detail", ""), "connection refused"));
    json_decref(report);
}

static void doctor_tells_errors_of_the_configuration(void **state)
{
    (void)state;
    json_t *report;
    assert_int_equal(run("doctor", "reids: local\n", &report), 1);
    assert_non_null(strstr(json_str(check(report, "configuration"), "detail", ""),
                           "c.yaml:1:1: unknown key `reids`; did you mean `redis`?"));
    json_decref(report);
}

/* --- keys --------------------------------------------------------------------------------- */

static const char *level(const json_t *report, const char *name)
{
    return json_str(check(report, name), "level", "");
}

static bool tells(const json_t *report, const char *name, const char *key, const char *part)
{
    bool found = strstr(json_str(check(report, name), key, ""), part) != NULL;
    if (!found)
        print_error("%s of %s: \"%s\" is not in \"%s\"\n", key, name, part,
                    json_str(check(report, name), key, ""));
    return found;
}

static void doctor_tries_each_place_of_a_key(void **state)
{
    (void)state;
    json_t *report;
    fixture_write(&fixture, "full", "sk-1\n");
    fixture_write(&fixture, "empty", "");
    assert_int_equal(run("doctor",
                         "providers:\n"
                         "  a: {api: noop, key: 'file:no-such-file'}\n"
                         "  b: {api: noop, key: 'file:empty'}\n"
                         "  c: {api: noop, key: 'cmd:echo secret-word; exit 3'}\n"
                         "  d: {api: noop, key: 'cmd:true'}\n"
                         "  e: {api: noop, key: 'cmd:echo secret-word'}\n"
                         "  f: {api: noop, key: ['file:full', 'env:ORCH_NO_SUCH_KEY']}\n",
                         &report),
                     1);
    assert_string_equal(level(report, "key a"), "bad");
    assert_true(tells(report, "key a", "detail", "no-such-file cannot be read: No such file"));
    assert_string_equal(level(report, "key b"), "bad");
    assert_true(tells(report, "key b", "detail", "empty is empty"));
    assert_string_equal(level(report, "key c"), "bad");
    assert_true(tells(report, "key c", "detail", "its command failed with exit status 3"));
    assert_true(tells(report, "key c", "cure", "run the command by hand"));
    assert_true(tells(report, "key d", "detail", "its command prints nothing"));
    assert_string_equal(level(report, "key e"), "ok");
    /* one key of a pool is enough */
    assert_string_equal(level(report, "key f"), "note");
    assert_true(tells(report, "key f", "cure", "export ORCH_NO_SUCH_KEY"));
    char *all = json_dumps(report, 0);
    assert_null(strstr(all, "secret-word")); /* neither what a command prints nor its words */
    free(all);
    json_decref(report);
}

/* --- runtimes ----------------------------------------------------------------------------- */

/* Answers one path with a document and all others with 404. */
struct server {
    int fd, port;
    const char *path, *status, *body;
    pthread_t thread;
};

static void *serve(void *ctx)
{
    const struct server *server = ctx;
    for (;;) {
        char request[1024] = "", wanted[128], answer[2048];
        int fd = accept(server->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        ssize_t got = recv(fd, request, sizeof request - 1, 0);
        snprintf(wanted, sizeof wanted, "GET %s ", server->path);
        bool found = got > 0 && strncmp(request, wanted, strlen(wanted)) == 0;
        snprintf(answer, sizeof answer, "HTTP/1.0 %s\r\n\r\n%s",
                 found ? server->status : "404 Not Found", found ? server->body : "");
        if (got > 0)
            send(fd, answer, strlen(answer), MSG_NOSIGNAL);
        close(fd);
    }
}

static void server_start(struct server *server, const char *path, const char *status,
                         const char *body)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *server = (struct server){.path = path, .status = status, .body = body};
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(server->fd, 8), 0);
    assert_int_equal(getsockname(server->fd, (struct sockaddr *)&address, &len), 0);
    server->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void server_stop(struct server *server)
{
    shutdown(server->fd, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->fd);
}

/* The report about a provider of that api at the port, with one model. */
static json_t *report_on(const char *api, int port, const char *model)
{
    json_t *report;
    char yaml[512];
    snprintf(yaml, sizeof yaml,
             "providers: {p: {api: %s, base_url: 'http://127.0.0.1:%d'}}\n"
             "models: {m: {provider: p, name: '%s'}}\nworkers: [{name: w, provider: p}]\n",
             api, port, model);
    run("doctor", yaml, &report);
    return report;
}

static void doctor_says_how_to_get_a_model_that_is_missing(void **state)
{
    static const struct {
        const char *api, *path, *body, *model, *level, *detail, *cure;
    } cases[] = {
        {"ollama", "/api/tags", "{\"models\":[{\"name\":\"qwen3:8b\"}]}", "qwen3:4b", "bad",
         "`qwen3:4b` is not pulled at 127.0.0.1:", "ollama pull qwen3:4b; or set `name: qwen3:8b`"},
        {"lmstudio", "/v1/models", "{\"data\":[]}", "gemma", "bad", "`gemma` is not there at",
         "download it: lms get gemma"},
        {"vllm", "/v1/models", "{\"data\":[{\"id\":\"big/one\"}]}", "two", "bad",
         "it has `big/one`", "--served-model-name two; or set `name: big/one`"},
        {"llamacpp", "/v1/models", "{\"data\":[{\"id\":\"x.gguf\"}]}", "two", "note",
         "`two` is not what it serves", "start llama-server with --alias two"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct server server;
        server_start(&server, cases[i].path, "200 OK", cases[i].body);
        json_t *report = report_on(cases[i].api, server.port, cases[i].model);
        assert_string_equal(level(report, "provider p"), "ok");
        assert_string_equal(level(report, "model m"), cases[i].level);
        assert_true(tells(report, "model m", "detail", cases[i].detail));
        assert_true(tells(report, "model m", "cure", cases[i].cure));
        json_decref(report);
        server_stop(&server);
    }
}

static void doctor_knows_that_no_tag_means_latest(void **state)
{
    (void)state;
    struct server server;
    server_start(&server, "/api/tags", "200 OK", "{\"models\":[{\"name\":\"qwen3:latest\"}]}");
    json_t *report = report_on("ollama", server.port, "qwen3");
    assert_null(check(report, "model m"));
    json_decref(report);
    server_stop(&server);
}

/* The usual port of one is taken by another; the runtime itself is elsewhere. */
static void doctor_tells_a_wrong_port_from_a_runtime_that_does_not_run(void **state)
{
    (void)state;
    struct server server;
    char port[16], wanted[128];
    server_start(&server, "/v1/models", "200 OK",
                 "{\"data\":[{\"id\":\"x\",\"owned_by\":\"llamacpp\"}]}");
    json_t *report = report_on("ollama", server.port, "x");
    assert_string_equal(level(report, "provider p"), "bad");
    assert_true(tells(report, "provider p", "detail", "answers, but as `api: llamacpp`"));
    assert_true(tells(report, "provider p", "cure", "set `api: llamacpp`"));
    json_decref(report);
    report = report_on("vllm", server.port, "x");
    assert_string_equal(level(report, "provider p"), "note");
    assert_true(tells(report, "provider p", "detail", "says that it is llamacpp, not vllm"));
    json_decref(report);
    snprintf(port, sizeof port, "%d", server.port);
    setenv("ORCHESTRATOR_LLAMACPP_PORT", port, 1);
    int silent = fixture_free_port();
    report = report_on("llamacpp", silent, "x");
    assert_string_equal(level(report, "provider p"), "bad");
    assert_true(tells(report, "provider p", "detail", "nothing answers at 127.0.0.1:"));
    snprintf(wanted, sizeof wanted, "set `base_url: \"http://127.0.0.1:%d\"`", server.port);
    assert_true(tells(report, "provider p", "cure", wanted));
    json_decref(report);
    report = report_on("ollama", silent, "x");
    assert_true(tells(report, "provider p", "cure", "answers llamacpp: for that set `api: "));
    json_decref(report);
    setenv("ORCHESTRATOR_LLAMACPP_PORT", "0", 1);
    report = report_on("ollama", silent, "x");
    assert_true(tells(report, "provider p", "cure", "start the runtime, or correct `base_url`"));
    json_decref(report);
    server_stop(&server);
}

static void doctor_tells_what_else_may_answer(void **state)
{
    (void)state;
    struct server server;
    server_start(&server, "/v1/models", "401 Unauthorized", "{}");
    json_t *report = report_on("vllm", server.port, "x");
    assert_string_equal(level(report, "provider p"), "note");
    assert_true(tells(report, "provider p", "detail", "wants a key (HTTP 401)"));
    json_decref(report);
    server_stop(&server);
    server_start(&server, "/", "200 OK", "<html>");
    report = report_on("vllm", server.port, "x");
    assert_string_equal(level(report, "provider p"), "bad");
    assert_true(
        tells(report, "provider p", "detail", "answers (HTTP 404), but not as `api: vllm`"));
    json_decref(report);
    server_stop(&server);
}

static void doctor_does_not_miss_a_runtime_that_a_worker_starts(void **state)
{
    (void)state;
    json_t *report;
    char yaml[512];
    snprintf(yaml, sizeof yaml,
             "providers: {p: {api: llamacpp, base_url: 'http://127.0.0.1:%d'}}\n"
             "models: {m: {provider: p}}\n"
             "workers: [{name: w, provider: p, launch: [llama-server]}]\n",
             fixture_free_port());
    assert_int_equal(run("doctor", yaml, &report), 0);
    assert_string_equal(level(report, "provider p"), "note");
    assert_true(tells(report, "provider p", "cure", "worker `w` starts it"));
    json_decref(report);
}

/* --- search and plug-ins ------------------------------------------------------------------ */

static json_t *report_on_searxng(int port)
{
    json_t *report;
    char yaml[512];
    snprintf(yaml, sizeof yaml,
             "providers:\n  n: {api: noop}\n"
             "  r: {api: search, base: n, engine: searxng, engine_url: 'http://127.0.0.1:%d/s'}\n"
             "models: {m: {provider: r}}\nworkers: [{name: w, provider: r}]\n",
             port);
    run("doctor", yaml, &report);
    return report;
}

static void doctor_says_how_searxng_learns_json(void **state)
{
    (void)state;
    struct server server;
    server_start(&server, "/s/search?format=json", "403 Forbidden", "");
    json_t *report = report_on_searxng(server.port);
    assert_string_equal(level(report, "search r"), "bad");
    assert_true(tells(report, "search r", "cure", "formats: [html, json]"));
    json_decref(report);
    server_stop(&server);
    server_start(&server, "/s/search?format=json", "400 Bad Request", "No query");
    report = report_on_searxng(server.port);
    assert_string_equal(level(report, "search r"), "ok");
    json_decref(report);
    server_stop(&server);
    report = report_on_searxng(fixture_free_port());
    assert_string_equal(level(report, "search r"), "bad");
    assert_true(tells(report, "search r", "detail", "does not answer"));
    json_decref(report);
}

static void doctor_misses_a_plugin_and_a_price(void **state)
{
    (void)state;
    json_t *report;
    assert_int_equal(run("doctor",
                         "providers: {x: {api: plugin, plugin: no.so}, c: {api: openai, key: "
                         "'cmd:echo k', base_url: 'http://127.0.0.1:1'}}\n"
                         "models: {m: {provider: x}, n: {provider: c, name: unheard-of}}\n"
                         "workers: [{name: w, provider: x}, {name: v, provider: c}]\n"
                         "budget: {task_usd: 1}\n",
                         &report),
                     1);
    assert_string_equal(level(report, "plug-in x"), "bad");
    assert_true(tells(report, "plug-in x", "cure", "orchestrator providers"));
    char *all = json_dumps(report, 0);
    assert_non_null(strstr(all, "the price of model `n` is not known"));
    free(all);
    json_decref(report);
}

/* --- GPUs --------------------------------------------------------------------------------- */

static struct doctor gpus_of(const char *workers, const char *root)
{
    struct doctor doctor = {0};
    struct config *config = NULL;
    struct err err = {""};
    char yaml[512];
    snprintf(yaml, sizeof yaml, "providers: {p: {api: ollama}}\nworkers: [%s]", workers);
    if (config_parse(&config, "t", yaml, strlen(yaml), &err) != 0)
        fail_msg("%s", err.text);
    doctor_gpus(&doctor, config, root);
    config_free(&config);
    return doctor;
}

static void assert_found(const struct doctor *doctor, const char *name, enum doctor_level wanted,
                         const char *detail)
{
    for (size_t i = 0; i < doctor->n_checks; i++)
        if (strcmp(doctor->checks[i].name, name) == 0) {
            assert_int_equal(doctor->checks[i].level, wanted);
            assert_non_null(strstr(doctor->checks[i].detail, detail));
            return;
        }
    fail_msg("nothing was said of %s", name);
}

static void doctor_looks_for_the_gpus_that_workers_want(void **state)
{
    (void)state;
    char root[128];
    snprintf(root, sizeof root, "%s/machine", fixture.dir);
    struct doctor doctor = gpus_of("{name: a, provider: p, gpu: 0}", root);
    assert_found(&doctor, "gpu a", DOCTOR_NOTE, "this machine has no NVIDIA driver");
    assert_false(doctor.bad);
    doctor_release(&doctor);
    fixture_write(&fixture, "machine/proc/driver/nvidia/gpus/0000:01:00.0/information",
                  "Model: \t X\nGPU UUID: \t GPU-aaaa-1\n");
    fixture_write(&fixture, "machine/proc/driver/nvidia/gpus/0000:02:00.0/information",
                  "GPU UUID: \t GPU-bbbb-2\n");
    doctor = gpus_of("{name: a, provider: p, gpu: 1}, {name: b, provider: p, gpu: GPU-cccc},\n"
                     "{name: c, provider: p, gpu: 2}, {name: d, provider: p, gpu: GPU-bbbb-2}",
                     root);
    assert_found(&doctor, "gpu a", DOCTOR_OK, "GPU 1 is there");
    assert_found(&doctor, "gpu b", DOCTOR_BAD, "GPU `GPU-cccc` is not there");
    assert_found(&doctor, "gpu c", DOCTOR_BAD, "GPU `2` is not there");
    /* the same one by its number and by its UUID */
    assert_found(&doctor, "gpu d", DOCTOR_BAD, "GPU 1 is that of worker `a` too");
    assert_true(doctor.bad);
    doctor_release(&doctor);
    doctor = gpus_of("{name: a, provider: p, gpu: 0, share: true},\n"
                     "{name: b, provider: p, gpu: GPU-aaaa-1, share: true}",
                     root);
    assert_found(&doctor, "gpu b", DOCTOR_NOTE, "GPU 0 is that of worker `a` too");
    doctor_release(&doctor);
}

/* --- Redis and arms ----------------------------------------------------------------------- */

static void set_redis(const char *key, const char *value)
{
    const char *argv[] = {"/bin/sh", "-c", NULL, NULL};
    char command[512];
    snprintf(command, sizeof command, "redis-cli -s '%s' config set %s %s >/dev/null",
             fixture.redis_socket, key, value);
    argv[2] = command;
    assert_int_equal(fixture_run(&fixture, argv, NULL, NULL), 0);
}

static void doctor_reads_the_settings_of_redis(void **state)
{
    (void)state;
    json_t *report;
    char yaml[512];
    fixture_redis_start(&fixture);
    snprintf(yaml, sizeof yaml, "redis: 'unix://%s'\nproviders: {n: {api: noop}}\n",
             fixture.redis_socket);
    set_redis("appendfsync", "always");
    assert_int_equal(run("doctor", yaml, &report), 0);
    assert_string_equal(level(report, "redis version"), "ok");
    assert_null(check(report, "redis eviction"));
    assert_null(check(report, "redis durability"));
    json_decref(report);
    set_redis("maxmemory-policy", "allkeys-lru");
    set_redis("appendfsync", "everysec");
    assert_int_equal(run("doctor", yaml, &report), 1);
    assert_string_equal(level(report, "redis eviction"), "bad");
    assert_true(tells(report, "redis eviction", "cure", "config set maxmemory-policy noeviction"));
    assert_string_equal(level(report, "redis durability"), "note");
    json_decref(report);
    set_redis("maxmemory-policy", "noeviction");
    set_redis("appendonly", "no");
    assert_int_equal(run("doctor", yaml, &report), 1);
    assert_string_equal(level(report, "redis durability"), "bad");
    json_decref(report);
    fixture_redis_kill(&fixture, SIGKILL);
}

/* A worker by hand: it serves one arm and has paused another. */
struct by_hand {
    struct peer *peer;
    bool welcome;
};

static void introduce(void *ctx, int broker)
{
    static const char *arms[] = {"m@n"}, *paused[] = {"x:7b@n: its breaker is open for 20 s"};
    struct by_hand *worker = ctx;
    struct message ready = {.type = MESSAGE_ready,
                            .ready = {.name = "w",
                                      .boot = "0123456789abcdef",
                                      .host = "h",
                                      .pid = 1,
                                      .provider = "n",
                                      .arms = arms,
                                      .n_arms = 1,
                                      .credit = 1,
                                      .concurrency = 1,
                                      .gpu = "",
                                      .paused = paused,
                                      .n_paused = 1}};
    peer_send(worker->peer, broker, &ready);
}

static void take_message(void *ctx, int broker, const struct message *message)
{
    (void)ctx, (void)broker, (void)message;
}

static void welcomed(void *ctx, int broker, const struct msg_welcome *welcome)
{
    (void)broker, (void)welcome;
    ((struct by_hand *)ctx)->welcome = true;
}

static void doctor_tells_of_arms_that_are_paused(void **state)
{
    static const struct peer_callbacks callbacks = {
        .introduce = introduce, .message = take_message, .welcome = welcomed};
    static const char yaml[] = "bus: {brokers: [local], heartbeat_ms: 30000}\n"
                               "providers: {n: {api: noop}}\nworkers: [{name: w, provider: n}]\n"
                               "models: {m: {provider: n}, 'x:7b': {provider: n}}\n";
    (void)state;
    struct by_hand worker = {0};
    struct config *config = NULL;
    struct err err = {""};
    json_t *report;
    char path[256];
    snprintf(path, sizeof path, "%s/" PATH_RUN, fixture.dir);
    path_make(path, NULL);
    snprintf(path, sizeof path, "%s", fixture_write(&fixture, "bus.yaml", yaml));
    assert_int_equal(config_load(&config, path, &err), 0);
    pid_t broker = fixture_spawn(&fixture, "broker.log",
                                 (const char *[]){"orchestrator-broker", "--config", path, NULL});
    uv_loop_t loop;
    loop_init(&loop);
    assert_int_equal(peer_open(&worker.peer, &loop, config, "worker/w", "0123456789abcdef",
                               &callbacks, &worker, &err),
                     0);
    assert_int_equal(loop_run_until(&loop, &worker.welcome, 20000), 0);
    /* the broker was started without the stack: it is asked all the same */
    assert_int_equal(
        run_argv((const char *const[]){"orchestrator", "doctor", "--json", "--config", path, NULL},
                 &report),
        1);
    assert_string_equal(level(report, "arm x:7b@n"), "bad");
    assert_true(tells(report, "arm x:7b@n", "detail", "its breaker is open for 20 s"));
    json_decref(report);
    peer_close(&worker.peer);
    loop_finish(&loop);
    config_free(&config);
    fixture_kill(&fixture, broker, SIGKILL);
}

static void check_config_lists_every_problem(void **state)
{
    (void)state;
    json_t *report;
    assert_int_equal(run("check-config", "a: 1\nb: 2\n", &report), 2);
    assert_false(json_bool(report, "ok", true));
    const json_t *problems = json_get(report, "problems");
    size_t errors = 0, warnings = 0;
    for (size_t i = 0; i < json_array_size(problems); i++) {
        bool warning = json_bool(json_array_get(problems, i), "warning", false);
        warnings += warning;
        errors += !warning;
    }
    assert_int_equal(errors, 2);
    assert_int_equal(warnings, 1); /* that there are no models */
    json_decref(report);
    assert_int_equal(run("check-config", "redis: local\n", &report), 0);
    assert_true(json_bool(report, "ok", false));
    json_decref(report);
}

/* Whatever runs on the machine of the test is none of its business. */
static int set_up(void **state)
{
    static const char *const ports[] = {"ORCHESTRATOR_OLLAMA_PORT", "ORCHESTRATOR_LMSTUDIO_PORT",
                                        "ORCHESTRATOR_LLAMACPP_PORT", "ORCHESTRATOR_LLAMACPP2_PORT",
                                        "ORCHESTRATOR_VLLM_PORT"};
    (void)state;
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++)
        setenv(ports[i], "0", 1);
    fixture_init(&fixture);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fixture_release(&fixture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doctor_is_content_with_a_sound_machine),
        cmocka_unit_test(doctor_says_why_the_home_takes_no_file),
        cmocka_unit_test(doctor_finds_missing_keys_and_servers),
        cmocka_unit_test(doctor_tells_errors_of_the_configuration),
        cmocka_unit_test(doctor_tries_each_place_of_a_key),
        cmocka_unit_test(doctor_says_how_to_get_a_model_that_is_missing),
        cmocka_unit_test(doctor_knows_that_no_tag_means_latest),
        cmocka_unit_test(doctor_tells_a_wrong_port_from_a_runtime_that_does_not_run),
        cmocka_unit_test(doctor_tells_what_else_may_answer),
        cmocka_unit_test(doctor_does_not_miss_a_runtime_that_a_worker_starts),
        cmocka_unit_test(doctor_says_how_searxng_learns_json),
        cmocka_unit_test(doctor_misses_a_plugin_and_a_price),
        cmocka_unit_test(doctor_looks_for_the_gpus_that_workers_want),
        cmocka_unit_test(doctor_reads_the_settings_of_redis),
        cmocka_unit_test(doctor_tells_of_arms_that_are_paused),
        cmocka_unit_test(check_config_lists_every_problem),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
