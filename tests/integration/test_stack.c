/* The local stack, as a person uses it: up, status, what dies comes back, down, and what goes
 * wrong at the start. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/json.h"
#include "common/paths.h"
#include "orchestrator/stack.h"
#include "tests/lib/fixture.h"

#define PATIENCE_MS 30000

/* Answers at once and needs nothing from outside. */
static const char noop[] = "providers: {none: {api: noop}}\n"
                           "models: {echo: {provider: none}}\n"
                           "workers: [{name: w, provider: none}, {name: v, provider: none}]\n";

struct context {
    struct fixture fixture;
    struct config *config;
};

static void use(struct context *context, const char *yaml)
{
    struct err err = {""};
    setenv("ORCHESTRATOR_CONFIG", fixture_write(&context->fixture, "c.yaml", yaml), 1);
    config_free(&context->config);
    if (config_load(&context->config, NULL, &err) != 0)
        fail_msg("%s", err.text);
}

/* Runs the CLI and returns its exit code; out and errors may be NULL. */
static int cli(struct context *context, struct buf *out, struct buf *errors, const char *command,
               const char *option)
{
    const char *argv[] = {"orchestrator", command, option, NULL};
    struct buf dropped = {0};
    int code = fixture_run(&context->fixture, argv, out, errors != NULL ? errors : &dropped);
    if (code != 0 && errors == NULL)
        fprintf(stderr, "%s: %s", command, dropped.len > 0 ? dropped.data : "\n");
    buf_release(&dropped);
    return code;
}

static json_t *status(const struct context *context)
{
    struct buf text = {0};
    json_t *value = NULL;
    if (stack_status(context->config, &text, NULL) == 0)
        value = json_parse(text.data, text.len, NULL);
    buf_release(&text);
    return value;
}

/* A field of one process; -1 when there is none. state: 1 when it is ready. */
static int64_t process(const struct context *context, const char *name, const char *field)
{
    json_t *value = status(context);
    const json_t *list = json_get(value, "processes");
    int64_t found = -1;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        if (strcmp(json_str(one, "name", ""), name) != 0)
            continue;
        found = strcmp(field, "state") == 0 ? strcmp(json_str(one, "state", ""), "ready") == 0
                                            : json_int(one, field, -1);
    }
    json_decref(value);
    return found;
}

static bool exists(const struct context *context, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", context->fixture.dir, name);
    return access(path, F_OK) == 0;
}

static unsigned mode_of(const struct context *context, const char *name)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", context->fixture.dir, name);
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 0777;
}

static bool gone(void *ctx)
{
    return kill((pid_t) * (int64_t *)ctx, 0) != 0;
}

static void assert_gone(int64_t pid)
{
    assert_true(pid > 0);
    assert_true(fixture_wait(gone, &pid, PATIENCE_MS));
}

static bool is_down(void *ctx)
{
    return !stack_running(((struct context *)ctx)->config);
}

/* --- the ordinary way ---------------------------------------------------------------------- */

static void stack_comes_up_and_goes_down(void **state)
{
    static const char *const names[] = {"redis", "broker", "daemon", "worker-w", "worker-v"};
    struct context *context = *state;
    int64_t pids[5];
    use(context, noop);
    assert_false(stack_running(context->config));
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    assert_true(stack_running(context->config));
    for (size_t i = 0; i < 5; i++) {
        pids[i] = process(context, names[i], "pid");
        assert_int_equal(process(context, names[i], "state"), 1);
        assert_int_equal(process(context, names[i], "restarts"), 0);
    }
    assert_int_equal(mode_of(context, PATH_RUN), 0700);
    assert_int_equal(mode_of(context, PATH_RUN_CONFIG), 0600);
    assert_int_equal(mode_of(context, PATH_STACK_SOCKET), 0600);
    assert_int_equal(mode_of(context, PATH_REDIS_SOCKET), 0700);
    /* A second one finds it running. */
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    assert_int_equal(process(context, "redis", "pid"), pids[0]);
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
    for (size_t i = 0; i < 5; i++)
        assert_gone(pids[i]);
    assert_false(exists(context, PATH_STACK_SOCKET));
    /* Down again is fine, and so is up. */
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    assert_int_equal(cli(context, NULL, NULL, "down", "--json"), 0);
}

struct restarted {
    struct context *context;
    const char *name;
    int64_t old_pid;
};

static bool is_back(void *ctx)
{
    struct restarted *wait = ctx;
    int64_t pid = process(wait->context, wait->name, "pid");
    return pid > 0 && pid != wait->old_pid && process(wait->context, wait->name, "state") == 1;
}

static void stack_starts_again_what_dies(void **state)
{
    static const char *const names[] = {"broker", "worker-w", "daemon", "redis"};
    struct context *context = *state;
    use(context, noop);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    for (size_t i = 0; i < 4; i++) {
        struct restarted wait = {context, names[i], process(context, names[i], "pid")};
        char log[64];
        assert_int_equal(kill((pid_t)wait.old_pid, SIGKILL), 0);
        assert_true(fixture_wait(is_back, &wait, PATIENCE_MS));
        assert_true(process(context, names[i], "restarts") >= 1);
        snprintf(log, sizeof log, "log/%s.log", names[i]);
        assert_true(
            fixture_wait_text(&context->fixture, log, "was killed by signal 9", PATIENCE_MS));
    }
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
}

static void stack_moves_long_logs_aside(void **state)
{
    struct context *context = *state;
    char path[256];
    use(context, noop);
    snprintf(path, sizeof path, "%s",
             fixture_write(&context->fixture, "log/broker.log", "the old log\n"));
    assert_int_equal(truncate(path, 11 * 1024 * 1024), 0);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    struct stat now, old;
    assert_int_equal(stat(path, &now), 0);
    strcat(path, ".1");
    assert_int_equal(stat(path, &old), 0);
    assert_true(old.st_size > 10 * 1024 * 1024);
    assert_true(now.st_size < 1024 * 1024);
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
}

static void stack_is_one_however_many_start_it(void **state)
{
    struct context *context = *state;
    const char *argv[] = {"orchestrator", "up", "-d", NULL};
    pid_t pids[4];
    use(context, noop);
    for (int i = 0; i < 4; i++)
        pids[i] = fixture_spawn(&context->fixture, "ups.log", argv);
    for (int i = 0; i < 4; i++)
        assert_int_equal(fixture_wait_exit(&context->fixture, pids[i], PATIENCE_MS), 0);
    json_t *value = status(context);
    assert_string_equal(json_str(value, "state", ""), "ready");
    assert_int_equal(json_array_size(json_get(value, "processes")), 5);
    json_decref(value);
    struct buf log = {0};
    char path[128];
    snprintf(path, sizeof path, "%s/log/stack.log", context->fixture.dir);
    assert_true(fixture_read(path, &log));
    const char *first = strstr(log.data, "started redis");
    assert_non_null(first);
    assert_null(strstr(first + 1, "started redis"));
    buf_release(&log);
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
}

static void stack_dies_with_its_supervisor_and_starts_anew(void **state)
{
    static const char *const names[] = {"broker", "worker-w", "daemon", "redis"};
    struct context *context = *state;
    int64_t pids[4];
    use(context, noop);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    json_t *value = status(context);
    pid_t supervisor = (pid_t)json_int(value, "pid", 0);
    json_decref(value);
    for (size_t i = 0; i < 4; i++)
        pids[i] = process(context, names[i], "pid");
    assert_true(supervisor > 0);
    assert_int_equal(kill(supervisor, SIGKILL), 0);
    /* At once: the new one waits for the old redis-server to leave its files. */
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    for (size_t i = 0; i < 4; i++)
        assert_gone(pids[i]);
    assert_int_equal(process(context, "redis", "state"), 1);
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
}

static void stack_in_the_foreground_ends_on_a_signal(void **state)
{
    struct context *context = *state;
    const char *argv[] = {"orchestrator", "up", NULL};
    use(context, noop);
    pid_t pid = fixture_spawn(&context->fixture, "up.log", argv);
    assert_true(fixture_wait_text(&context->fixture, "up.log", "ready after", PATIENCE_MS));
    int64_t redis = process(context, "redis", "pid");
    assert_int_equal(kill(pid, SIGINT), 0);
    assert_int_equal(fixture_wait_exit(&context->fixture, pid, PATIENCE_MS), 0);
    assert_gone(redis);
}

static void stack_ends_when_its_home_is_removed(void **state)
{
    struct context *context = *state;
    char path[256];
    use(context, noop);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    int64_t redis = process(context, "redis", "pid");
    snprintf(path, sizeof path, "%s/run/stack.lock", context->fixture.dir);
    assert_int_equal(unlink(path), 0);
    assert_true(fixture_wait(is_down, context, PATIENCE_MS));
    assert_gone(redis);
}

static void stack_config_is_what_other_commands_use_while_it_runs(void **state)
{
    struct context *context = *state;
    struct buf out = {0}, running = {0};
    unsetenv("ORCHESTRATOR_CONFIG");
    setenv("XDG_CONFIG_HOME", context->fixture.dir, 1);
    setenv("ORCHESTRATOR_DETECT", "simulator", 1);
    struct err err = {""};
    config_free(&context->config);
    assert_int_equal(config_load(&context->config, NULL, &err), 0);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    assert_int_equal(process(context, "simulator", "state"), 1);
    struct config *found = NULL;
    assert_int_equal(config_load(&found, NULL, &err), 0);
    assert_true(found->simulated);
    assert_non_null(strstr(found->path, PATH_RUN_CONFIG));
    assert_int_equal(cli(context, &out, &running, "models", "--json"), 0);
    json_t *models = json_parse(out.data, out.len, NULL);
    assert_int_equal(json_array_size(models), 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(json_array_size(json_get(json_array_get(models, i), "workers")), 1);
    json_decref(models);
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
    config_free(&found);
    buf_release(&out);
    buf_release(&running);
    unsetenv("ORCHESTRATOR_DETECT");
}

struct watched {
    struct context *context;
    const char *id, *state;
    int64_t attempts;
};

/* Whether the task's only subtask is in the state. */
static bool is_in_state(void *ctx)
{
    struct watched *watched = ctx;
    const char *argv[] = {"orchestrator", "show", watched->id, "--json", NULL};
    struct buf out = {0}, errors = {0};
    fixture_run(&watched->context->fixture, argv, &out, &errors);
    json_t *task = json_parse(out.len > 0 ? out.data : "", out.len, NULL);
    const json_t *subtask = json_path(task, "subtasks.0");
    bool found = strcmp(json_str(subtask, "state", ""), watched->state) == 0;
    watched->attempts = json_int(subtask, "attempts", -1);
    json_decref(task);
    buf_release(&out);
    buf_release(&errors);
    return found;
}

static void stack_down_lets_what_runs_finish(void **state)
{
    struct context *context = *state;
    char config[512];
    int port = fixture_free_port();
    snprintf(config, sizeof config,
             "simulator: {port: %d, scenario: s.yaml}\n"
             "providers: {o: {api: ollama, base_url: 'http://127.0.0.1:%d'}}\n"
             "models: {m: {provider: o}}\nworkers: [{name: w, provider: o}]\n",
             port, port);
    fixture_write(&context->fixture, "s.yaml",
                  "rules:\n  - reply: {text: finished}\n    timing: {load_ms: 3000}\n");
    use(context, config);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    const char *submit[] = {"orchestrator", "submit", "--no-plan", "--detach", "--json", "x", NULL};
    struct buf out = {0}, errors = {0};
    assert_int_equal(fixture_run(&context->fixture, submit, &out, &errors), 0);
    json_t *task = json_parse(out.data, out.len, NULL);
    struct watched watched = {context, json_str(task, "task_id", ""), "RUNNING", -1};
    assert_true(fixture_wait(is_in_state, &watched, PATIENCE_MS));
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    watched.state = "DONE";
    assert_true(fixture_wait(is_in_state, &watched, PATIENCE_MS));
    assert_int_equal(watched.attempts, 1); /* not given back and run again */
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
    json_decref(task);
    buf_release(&out);
    buf_release(&errors);
}

/* --- what goes wrong ----------------------------------------------------------------------- */

static void assert_up_fails_with(struct context *context, const char *sentence)
{
    struct buf errors = {0};
    assert_int_equal(cli(context, NULL, &errors, "up", "-d"), 3);
    if (strstr(errors.data, sentence) == NULL)
        fail_msg("%s", errors.data);
    buf_release(&errors);
    assert_true(fixture_wait(is_down, context, PATIENCE_MS)); /* it ends what it had started */
}

static void stack_takes_nothing_while_its_redis_is_an_emptied_one(void **state)
{
    struct context *context = *state;
    struct buf errors = {0};
    char command[256];
    use(context, noop);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    snprintf(command, sizeof command, "redis-cli -s %s/" PATH_REDIS_SOCKET " flushall >/dev/null",
             context->fixture.dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(cli(context, NULL, &errors, "submit", "x"), 3);
    assert_non_null(strstr(errors.data, "was emptied or is another one"));
    assert_int_equal(cli(context, NULL, NULL, "status", NULL), 3);
    assert_int_equal(cli(context, NULL, NULL, "fsck", NULL), 3);
    assert_int_equal(cli(context, NULL, NULL, "fsck", "--accept-new-epoch"), 0);
    assert_int_equal(cli(context, NULL, NULL, "submit", "x"), 0);
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
    buf_release(&errors);
}

static void stack_starts_with_an_emptied_redis_once_that_is_accepted(void **state)
{
    struct context *context = *state;
    use(context, noop);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
    char command[256];
    snprintf(command, sizeof command, "rm -r %s/" PATH_REDIS, context->fixture.dir);
    assert_int_equal(system(command), 0);
    assert_up_fails_with(context, "fsck --accept-new-epoch");
    assert_int_equal(cli(context, NULL, NULL, "fsck", "--accept-new-epoch"), 0);
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    assert_int_equal(process(context, "daemon", "state"), 1);
    assert_int_equal(process(context, "worker-w", "state"), 1);
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
}

static void stack_says_when_redis_is_not_installed(void **state)
{
    struct context *context = *state;
    char *path = strdup(getenv("PATH"));
    use(context, noop);
    setenv("PATH", "/nowhere", 1);
    assert_up_fails_with(context, "cannot run redis-server: No such file or directory");
    setenv("PATH", path, 1);
    free(path);
}

static void stack_says_why_redis_does_not_start(void **state)
{
    struct context *context = *state;
    use(context, noop);
    fixture_write(&context->fixture, "run/redis.sock/in-the-way", "");
    assert_up_fails_with(context, "redis ended with status 1: Failed opening Unix socket: bind");
}

static void stack_says_when_the_home_is_unusable(void **state)
{
    struct context *context = *state;
    struct buf errors = {0};
    use(context, noop);
    setenv("ORCHESTRATOR_HOME", "/dev/null/x", 1);
    assert_int_equal(cli(context, NULL, &errors, "up", "-d"), 2);
    assert_non_null(strstr(errors.data, "cannot create the directory /dev/null/x"));
    assert_non_null(strstr(errors.data, "ORCHESTRATOR_HOME"));
    buf_clear(&errors);
    char longer[256];
    snprintf(longer, sizeof longer, "%s/%0100d", context->fixture.dir, 0);
    setenv("ORCHESTRATOR_HOME", longer, 1);
    assert_int_equal(cli(context, NULL, &errors, "up", "-d"), 3);
    assert_non_null(strstr(errors.data, "is too long for unix sockets"));
    setenv("ORCHESTRATOR_HOME", context->fixture.dir, 1);
    buf_release(&errors);
}

static void stack_comes_up_with_a_warning_when_a_worker_cannot(void **state)
{
    struct context *context = *state;
    struct buf errors = {0};
    use(context, "providers: {p: {api: openai, key: 'env:ORCH_NO_SUCH_KEY'}}\n"
                 "models: {m: {provider: p}}\nworkers: [{name: w, provider: p}]\n");
    assert_int_equal(cli(context, NULL, &errors, "up", "-d"), 0);
    assert_non_null(strstr(errors.data, "ORCH_NO_SUCH_KEY"));
    assert_int_equal(process(context, "daemon", "state"), 1);
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
    buf_release(&errors);
}

static int set_up(void **state)
{
    struct context *context = calloc(1, sizeof *context);
    fixture_init(&context->fixture);
    *state = context;
    return 0;
}

static int tear_down(void **state)
{
    struct context *context = *state;
    if (context->config != NULL)
        stack_stop(context->config, 0, NULL);
    config_free(&context->config);
    fixture_release(&context->fixture);
    free(context);
    return 0;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static bool environment_has(int64_t pid, const char *text)
{
    char path[64];
    struct buf environment = {0};
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    assert_true(fixture_read(path, &environment));
    bool has = memmem(environment.data, environment.len, text, strlen(text)) != NULL;
    buf_release(&environment);
    return has;
}

static void stack_gives_a_key_to_the_workers_of_its_provider_alone(void **state)
{
    struct context *context = *state;
    setenv("ORCH_KEY_P", "secret-of-p", 1);
    setenv("ORCH_KEY_Q", "secret-of-q", 1);
    use(context, "providers:\n  p: {api: noop, key: 'env:ORCH_KEY_P'}\n"
                 "  q: {api: noop, key: 'env:ORCH_KEY_Q'}\n"
                 "models: {m: {provider: p}, n: {provider: q}}\n"
                 "workers: [{name: w, provider: p}, {name: v, provider: q}]\n");
    assert_int_equal(cli(context, NULL, NULL, "up", "-d"), 0);
    static const char *const others[] = {"redis", "broker", "daemon"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(environment_has(process(context, others[i], "pid"), "secret-of-"));
    int64_t w = process(context, "worker-w", "pid"), v = process(context, "worker-v", "pid");
    assert_true(environment_has(w, "secret-of-p"));
    assert_false(environment_has(w, "secret-of-q"));
    assert_true(environment_has(v, "secret-of-q"));
    assert_false(environment_has(v, "secret-of-p"));
    assert_int_equal(cli(context, NULL, NULL, "down", NULL), 0);
    unsetenv("ORCH_KEY_P");
    unsetenv("ORCH_KEY_Q");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stack_comes_up_and_goes_down),
        TEST(stack_starts_again_what_dies),
        TEST(stack_moves_long_logs_aside),
        TEST(stack_is_one_however_many_start_it),
        TEST(stack_dies_with_its_supervisor_and_starts_anew),
        TEST(stack_in_the_foreground_ends_on_a_signal),
        TEST(stack_ends_when_its_home_is_removed),
        TEST(stack_config_is_what_other_commands_use_while_it_runs),
        TEST(stack_down_lets_what_runs_finish),
        TEST(stack_takes_nothing_while_its_redis_is_an_emptied_one),
        TEST(stack_starts_with_an_emptied_redis_once_that_is_accepted),
        TEST(stack_says_when_redis_is_not_installed),
        TEST(stack_says_why_redis_does_not_start),
        TEST(stack_says_when_the_home_is_unusable),
        TEST(stack_comes_up_with_a_warning_when_a_worker_cannot),
        TEST(stack_gives_a_key_to_the_workers_of_its_provider_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
