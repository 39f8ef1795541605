/* Machines that join with a token, as a person does it: two homes stand for two machines, and the
 * local stack listens on another loopback address. */
#include <errno.h>
#include <fcntl.h>
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
#include "common/invitation.h"
#include "common/json.h"
#include "common/redis.h"
#include "orchestrator/stack.h"
#include "schemas/mem.h"
#include "tests/lib/fixture.h"

#define PATIENCE_MS 30000

struct bench {
    struct fixture fixture; /* its directory is the home of the inviting machine */
    struct config *config;  /* as tools there read it */
    char there[96];         /* home of the joining machine */
    int starts;             /* numbers the logs of workers */
    char log[64];           /* of the last worker */
    char *token;            /* last one */
};
static struct bench *bench;

/* --- the inviting machine --------------------------------------------------------------------- */

/* Runs a command there (NULL ends the words); its stdout, or NULL. */
static int run(struct buf *out, struct buf *errors, ...)
{
    const char *argv[16] = {"orchestrator"};
    struct buf dropped = {0};
    va_list words;
    va_start(words, errors);
    for (size_t n = 1; n < 15; n++)
        if ((argv[n] = va_arg(words, const char *)) == NULL)
            break;
    va_end(words);
    int code = fixture_run(&bench->fixture, argv, out, errors != NULL ? errors : &dropped);
    if (code != 0 && errors == NULL)
        print_message("%s: %s", argv[1], dropped.len > 0 ? dropped.data : "\n");
    buf_release(&dropped);
    return code;
}

/* Invites a worker and keeps its token. */
static void invite_for(const char *provider, const char *name, const char *expires)
{
    struct buf out = {0};
    assert_int_equal(run(&out, NULL, "invite", "--worker", name, "--provider", provider,
                         "--expires", expires, "--json", NULL),
                     0);
    json_t *object = json_parse(out.data, out.len, NULL);
    free(bench->token);
    bench->token = mem_must_strdup(json_str(object, "token", ""));
    json_decref(object);
    buf_release(&out);
}

static void invite(const char *name, const char *expires)
{
    invite_for("none", name, expires);
}

static json_t *run_json(const char *command, const char *word)
{
    struct buf out = {0};
    assert_int_equal(word != NULL ? run(&out, NULL, command, word, "--json", NULL)
                                  : run(&out, NULL, command, "--json", NULL),
                     0);
    json_t *value = json_parse(out.data, out.len, NULL);
    buf_release(&out);
    assert_non_null(value);
    return value;
}

/* Runs one subtask; which worker did it. */
static void run_task(char ret_worker[64])
{
    struct buf out = {0};
    char id[64];
    assert_int_equal(run(&out, NULL, "submit", "--no-plan", "--detach", "say ok", NULL), 0);
    snprintf(id, sizeof id, "%.*s", (int)strcspn(out.data, "\n"), out.data);
    buf_release(&out);
    assert_int_equal(run(NULL, NULL, "wait", id, NULL), 0);
    json_t *task = run_json("show", id);
    const json_t *sub = json_path(task, "subtasks.0");
    snprintf(ret_worker, 64, "%s", json_str(sub, "worker", "?"));
    json_decref(task);
}

/* How many workers brokers know, by name; "": all. */
static int n_workers(const char *name)
{
    json_t *status = run_json("status", NULL), *worker;
    int n = 0;
    size_t i;
    json_array_foreach (json_get(status, "workers"), i, worker)
        n += *name == '\0' || strcmp(json_str(worker, "name", ""), name) == 0;
    json_decref(status);
    return n;
}

struct expected {
    const char *name;
    int n;
};

static bool has_workers(void *ctx)
{
    const struct expected *expected = ctx;
    return n_workers(expected->name) == expected->n;
}

static bool has_joined(void *ctx)
{
    json_t *keys = run_json("keys", "list"), *key;
    bool joined = false;
    size_t i;
    json_array_foreach (keys, i, key)
        joined |= strcmp(json_str(key, "name", ""), ctx) == 0 && json_bool(key, "joined", false);
    json_decref(keys);
    return joined;
}

/* --- Redis ------------------------------------------------------------------------------------ */

struct asked {
    bool done;
    size_t len;
    struct buf text; /* of all elements, each on a line */
};

static void add_value(struct buf *out, const struct redis_value *value)
{
    for (size_t i = 0; i < redis_len(value); i++)
        add_value(out, redis_at(value, i));
    if (redis_type(value) == REDIS_STR || redis_type(value) == REDIS_ERR)
        buf_printf(out, "%s\n", redis_str(value, NULL));
}

static void answered(void *ctx, const struct redis_value *value)
{
    struct asked *asked = ctx;
    asked->len = redis_len(value);
    add_value(&asked->text, value);
    asked->done = true;
}

/* As the stack's own user, over the unix socket. */
static struct asked ask(const char *words)
{
    struct asked asked = {0};
    struct redis *redis = NULL;
    struct redis_callbacks callbacks = {0};
    struct err err = {""};
    uv_loop_t loop;
    loop_init(&loop);
    if (redis_open(&redis, &loop, &bench->config->redis, &callbacks, NULL, &err) != 0)
        fail_msg("%s", err.text);
    redis_simple(redis, answered, &asked, words);
    assert_int_equal(loop_run_until(&loop, &asked.done, PATIENCE_MS), 0);
    redis_close(&redis);
    loop_finish(&loop);
    return asked;
}

static void assert_nothing_refused(const char *user)
{
    struct asked log = ask("ACL LOG");
    if (strstr(log.text.len > 0 ? log.text.data : "", user) != NULL)
        fail_msg("Redis refused something: %s", log.text.data);
    buf_release(&log.text);
}

static bool has_user(const char *user)
{
    struct asked asked = ask("ACL USERS");
    char line[96];
    snprintf(line, sizeof line, "%s\n", user);
    bool has = strstr(asked.text.data, line) != NULL;
    buf_release(&asked.text);
    return has;
}

static void kill_redis(void)
{
    struct buf text = {0};
    pid_t pid = 0;
    size_t i;
    json_t *process;
    assert_int_equal(stack_status(bench->config, &text, NULL), 0);
    json_t *status = json_parse(text.data, text.len, NULL);
    json_array_foreach (json_get(status, "processes"), i, process)
        if (strcmp(json_str(process, "name", ""), "redis") == 0)
            pid = (pid_t)json_int(process, "pid", 0);
    assert_true(pid > 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    json_decref(status);
    buf_release(&text);
}

/* --- the joining machine ---------------------------------------------------------------------- */

/* Starts a worker there; argv as for execv(). */
static pid_t start_there(const char *const *argv)
{
    char *config = mem_must_strdup(getenv("ORCHESTRATOR_CONFIG"));
    snprintf(bench->log, sizeof bench->log, "there.%d.log", ++bench->starts);
    setenv("ORCHESTRATOR_HOME", bench->there, 1);
    unsetenv("ORCHESTRATOR_CONFIG");
    pid_t pid = fixture_spawn(&bench->fixture, bench->log, argv);
    setenv("ORCHESTRATOR_HOME", bench->fixture.dir, 1);
    setenv("ORCHESTRATOR_CONFIG", config, 1);
    free(config);
    return pid;
}

static pid_t start_joining(const char *token)
{
    return start_there((const char *[]){"orchestrator-worker", "--join", token, NULL});
}

static bool log_has(const char *text)
{
    return fixture_wait_text(&bench->fixture, bench->log, text, PATIENCE_MS);
}

static void assert_refused(const char *token, const char *why)
{
    assert_int_equal(fixture_wait_exit(&bench->fixture, start_joining(token), PATIENCE_MS), 2);
    assert_true(log_has(why));
}

/* --- the bench -------------------------------------------------------------------------------- */

static bool stack_starts(void)
{
    char text[1024], listen[64], log[64];
    int sim = fixture_free_port();
    snprintf(listen, sizeof listen, "127.0.0.2:%d", fixture_free_port());
    snprintf(text, sizeof text,
             "bus: {curve: {enabled: true}}\n"
             "simulator: {port: %d, scenario: scenario.yaml}\n"
             "providers:\n"
             "  none: {api: noop}\n"
             "  sim: {api: openai-compatible, base_url: 'http://127.0.0.1:%d',\n"
             "        limits: {requests_per_minute: 1000}, breaker: {failures: 2, open_ms: 100}}\n"
             "models:\n"
             "  echo: {provider: none}\n"
             "  dear: {provider: sim, name: sim-medium, price: {input: 1, output: 1}}\n"
             "workers: [{name: box, provider: none}]\n"
             "roles:\n"
             "  general: {models: [echo]}\n"
             "  poet: {models: [dear], cache: 'on', hedge: auto, budget: {task_usd: 1}}\n"
             "budget: {day_usd: 5}\n"
             "listen: '%s'\n",
             sim, sim, listen);
    fixture_write(&bench->fixture, "scenario.yaml",
                  "rules:\n"
                  "  - {match: {prompt: flaky, times: 3}, fault: overloaded}\n"
                  "  - {match: {prompt: slow}, timing: {load_ms: 600000}}\n");
    setenv("ORCHESTRATOR_CONFIG", fixture_write(&bench->fixture, "c.yaml", text), 1);
    snprintf(log, sizeof log, "up.%d.log", ++bench->starts);
    pid_t pid = fixture_spawn(&bench->fixture, log, /* so that it ends with the test */
                              (const char *[]){"orchestrator", "up", "--ready-fd", "1", NULL});
    return fixture_wait_text(&bench->fixture, log, "ready\n", PATIENCE_MS) && kill(pid, 0) == 0;
}

static int open_bench(void **state)
{
    struct err err = {""};
    bench = mem_must_zalloc(sizeof *bench);
    fixture_init(&bench->fixture);
    snprintf(bench->there, sizeof bench->there, "%s/there", bench->fixture.dir);
    assert_int_equal(mkdir(bench->there, 0700), 0);
    bool up = false;
    for (int i = 0; i < 3 && !up; i++) /* another test may just have taken a port */
        up = stack_starts();
    assert_true(up);
    if (config_load(&bench->config, NULL, &err) != 0)
        fail_msg("%s", err.text);
    *state = bench;
    return 0;
}

static int close_bench(void **state)
{
    (void)state;
    run(NULL, NULL, "down", "--timeout", "0", NULL);
    config_free(&bench->config);
    fixture_release(&bench->fixture);
    free(bench->token);
    free(bench);
    return 0;
}

static unsigned mode_there(const char *name)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", bench->there, name);
    if (stat(path, &st) != 0)
        fail_msg("%s: %s", path, strerror(errno));
    return st.st_mode & 0777;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void joined_worker_runs_tasks_until_it_is_revoked(void **state)
{
    char worker[64];
    (void)state;
    invite("guest", "1h");
    assert_true(has_user("worker-guest"));
    struct asked log = ask("ACL LOG RESET");
    buf_release(&log.text);
    pid_t guest = start_joining(bench->token);
    assert_true(log_has("serves"));
    struct expected one = {"guest", 1}, none = {"guest", 0};
    assert_true(fixture_wait(has_workers, &one, PATIENCE_MS));
    assert_true(fixture_wait(has_joined, (void *)(uintptr_t) "guest", PATIENCE_MS));
    for (worker[0] = '\0'; strcmp(worker, "guest") != 0;) /* both serve it */
        run_task(worker);
    assert_nothing_refused("worker-guest");

    json_t *told = run_json("revoke", "guest");
    assert_true(json_bool(told, "connected", false));
    json_decref(told);
    assert_true(fixture_wait(has_workers, &none, PATIENCE_MS));
    assert_false(has_user("worker-guest"));
    for (int i = 0; i < 3; i++) {
        run_task(worker);
        assert_string_equal(worker, "box");
    }
    /* nor with what it has on its disk */
    fixture_kill(&bench->fixture, guest, SIGKILL);
    guest = start_there((const char *[]){"orchestrator-worker", "--name", "guest", NULL});
    assert_true(log_has("WRONGPASS"));
    assert_int_equal(n_workers("guest"), 0);
    fixture_kill(&bench->fixture, guest, SIGKILL);
    assert_int_equal(run(NULL, NULL, "revoke", "guest", NULL), 2);
}

static bool is_running(void *ctx)
{
    json_t *task = run_json("show", ctx);
    bool running = strcmp(json_str(json_path(task, "subtasks.0"), "state", ""), "RUNNING") == 0;
    json_decref(task);
    return running;
}

/* Limits, breaker, retries, cache, budgets, a call that is stopped: all that a worker does. */
static void user_of_a_worker_suffices_for_all_that_it_does(void **state)
{
    static const char *const prompts[] = {"one", "one", "flaky", "two"};
    struct buf out = {0};
    char id[64];
    (void)state;
    invite_for("sim", "rich", "1h");
    pid_t pid = start_joining(bench->token);
    assert_true(log_has("serves"));
    struct asked log = ask("ACL LOG RESET");
    buf_release(&log.text);
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++)
        assert_int_equal(run(NULL, NULL, "submit", "--no-plan", "--role", "poet", "--budget", "1",
                             prompts[i], NULL),
                         0);
    assert_int_equal(
        run(&out, NULL, "submit", "--no-plan", "--detach", "--role", "poet", "slow", NULL), 0);
    snprintf(id, sizeof id, "%.*s", (int)strcspn(out.data, "\n"), out.data);
    assert_true(fixture_wait(is_running, id, PATIENCE_MS));
    assert_int_equal(run(NULL, NULL, "cancel", id, NULL), 0);
    fixture_kill(&bench->fixture, pid, SIGTERM);
    assert_nothing_refused("worker-rich");
    buf_release(&out);
    assert_int_equal(run(NULL, NULL, "revoke", "rich", NULL), 0);
}

/* Over the unix socket, too: Redis knows no difference. */
static void redis_that_listens_asks_everybody_for_a_password(void **state)
{
    const struct redis_options *redis = &bench->config->redis;
    struct buf out = {0};
    (void)state;
    assert_non_null(redis->password);
    fixture_run(&bench->fixture,
                (const char *[]){"/usr/bin/redis-cli", "-s", redis->socket, "PING", NULL}, &out,
                NULL);
    assert_non_null(strstr(out.data, "NOAUTH"));
    struct asked asked = ask("CONFIG GET port"); /* TLS alone */
    assert_string_equal(asked.text.data, "port\n0\n");
    buf_release(&asked.text);
    buf_release(&out);
}

static void doctor_sees_keys_that_others_may_read(void **state)
{
    char path[256];
    struct buf out = {0};
    (void)state;
    snprintf(path, sizeof path, "%s/keys/orchestrator.key", bench->fixture.dir);
    assert_int_equal(chmod(path, 0644), 0);
    run(&out, NULL, "doctor", "--json", NULL);
    assert_non_null(strstr(out.data, "others may read the secret key"));
    assert_int_equal(chmod(path, 0600), 0);
    buf_clear(&out);
    run(&out, NULL, "doctor", "--json", NULL);
    assert_null(strstr(out.data, "others may read"));
    buf_release(&out);
}

static void token_is_not_to_be_seen_and_its_files_are_private(void **state)
{
    char path[64];
    struct buf text = {0};
    (void)state;
    invite("shy", "1h");
    pid_t pid = start_joining(bench->token);
    assert_true(log_has("serves"));
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    assert_true(fixture_read(path, &text));
    for (size_t i = 0; i + 1 < text.len; i++)
        if (text.data[i] == '\0')
            text.data[i] = ' ';
    assert_non_null(strstr(text.data, "--join ***"));
    assert_null(strstr(text.data, bench->token + 20));
    assert_int_equal(mode_there("joined/shy"), 0700);
    assert_int_equal(mode_there("joined/shy/config.yaml"), 0600);
    assert_int_equal(mode_there("joined/shy/keys/worker-shy.key"), 0600);
    fixture_kill(&bench->fixture, pid, SIGTERM);
    /* from now on the name is enough */
    pid = start_there((const char *[]){"orchestrator-worker", "--name", "shy", NULL});
    assert_true(log_has("serves"));
    fixture_kill(&bench->fixture, pid, SIGTERM);
    buf_release(&text);
}

static void token_in_the_environment_is_taken_and_hidden(void **state)
{
    char path[64];
    struct buf text = {0};
    (void)state;
    invite("quiet", "1h");
    setenv(INVITATION_ENV, bench->token, 1);
    pid_t pid = start_there((const char *[]){"orchestrator-worker", NULL});
    unsetenv(INVITATION_ENV);
    assert_true(log_has("worker quiet serves"));
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    assert_true(fixture_read(path, &text));
    assert_null(memmem(text.data, text.len, bench->token + 20, 40));
    fixture_kill(&bench->fixture, pid, SIGTERM);
    buf_release(&text);
}

/* One worker in two places, as several containers of one service are. */
static void token_used_twice_makes_one_worker_of_two_processes(void **state)
{
    char first[96];
    struct expected none = {"twin", 0};
    (void)state;
    invite("twin", "1h");
    start_joining(bench->token);
    assert_true(log_has("serves"));
    snprintf(first, sizeof first, "%s", bench->there);
    snprintf(bench->there, sizeof bench->there, "%s/elsewhere", bench->fixture.dir);
    assert_int_equal(mkdir(bench->there, 0700), 0);
    start_joining(bench->token);
    assert_true(log_has("serves"));
    snprintf(bench->there, sizeof bench->there, "%s", first);
    assert_true(n_workers("twin") > 0);
    assert_int_equal(run(NULL, NULL, "revoke", "twin", NULL), 0);
    assert_true(fixture_wait(has_workers, &none, PATIENCE_MS));
}

static void new_token_for_a_name_makes_the_old_one_worthless(void **state)
{
    (void)state;
    invite("moved", "1h");
    char *old = mem_must_strdup(bench->token);
    invite("moved", "1h");
    pid_t pid = start_joining(old);
    assert_true(log_has("WRONGPASS"));
    fixture_kill(&bench->fixture, pid, SIGKILL);
    pid = start_joining(bench->token); /* replaces what the old one has left */
    assert_true(log_has("serves"));
    fixture_kill(&bench->fixture, pid, SIGTERM);
    free(old);
}

static bool is_over(void *ctx)
{
    return clock_wall_ms() > *(const int64_t *)ctx;
}

static void bad_tokens_are_refused_with_the_reason(void **state)
{
    struct message message;
    struct err err;
    (void)state;
    invite("late", "1s");
    assert_int_equal(invitation_read(&message, bench->token, strlen(bench->token), &err), 0);
    int64_t expires_ms = message.invitation.expires_ms;
    assert_true(fixture_wait(is_over, &expires_ms, PATIENCE_MS));
    assert_refused(bench->token, "has expired");
    /* a program that doesn't look at the time gets no further */
    struct buf text = {0};
    message.invitation.expires_ms = 0;
    assert_int_equal(invitation_write(&message.invitation, &text), 0);
    start_joining(text.data);
    assert_true(log_has("trying again"));
    assert_int_equal(n_workers("late"), 0);
    buf_clear(&text);
    message.invitation.version = INVITATION_VERSION + 1;
    assert_int_equal(invitation_write_as(&message.invitation, &text), 0);
    assert_refused(text.data, "same release");
    message_release(&message);
    buf_release(&text);
    bench->token[strlen(bench->token) - 30] = '\0';
    assert_refused(bench->token, "cut off");
    assert_refused("hello", "no token");
}

static void invitations_say_what_is_missing(void **state)
{
    static const struct {
        const char *words[4];
        const char *sentence;
    } rows[] = {
        {{"--worker", "x"}, "there is no worker `x` under `workers`"},
        {{"--worker", "x", "--provider", "gone"}, "there is no provider `gone`"},
        {{"--worker", "a/b"}, "is no name"},
        {{"--tap", "x", "--provider", "none"}, "--provider and --concurrency are for --worker"},
        {{"--worker", "box", "--expires", "soon"}, "--expires takes a time"},
        {{"--worker", "box", "--tap", "x"}, "say who is invited"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf errors = {0};
        const char *const *words = rows[i].words;
        assert_int_equal(run(NULL, &errors, "invite", words[0], words[1], words[2], words[3], NULL),
                         2);
        if (strstr(errors.data, rows[i].sentence) == NULL)
            fail_msg("%s", errors.data);
        buf_release(&errors);
    }
}

/* Redis forgets users when it restarts. */
static void joined_worker_goes_on_when_redis_was_restarted(void **state)
{
    struct expected one = {"steady", 1};
    char worker[64] = "";
    (void)state;
    invite("steady", "1h");
    start_joining(bench->token);
    assert_true(log_has("serves"));
    assert_true(fixture_wait(has_workers, &one, PATIENCE_MS));
    kill_redis(); /* the stack starts it again */
    while (strcmp(worker, "steady") != 0)
        run_task(worker);
    assert_true(has_user("worker-steady"));
    assert_int_equal(run(NULL, NULL, "revoke", "steady", NULL), 0);
}

static void tap_joins_and_listens(void **state)
{
    struct buf out = {0}, errors = {0};
    (void)state;
    assert_int_equal(run(&out, NULL, "invite", "--tap", "ear", NULL), 0);
    char *home = mem_must_strdup(bench->fixture.dir);
    char *config = mem_must_strdup(getenv("ORCHESTRATOR_CONFIG"));
    setenv("ORCHESTRATOR_HOME", bench->there, 1);
    unsetenv("ORCHESTRATOR_CONFIG");
    out.data[strcspn(out.data, "\n")] = '\0';
    int joined = run(NULL, &errors, "join", out.data, NULL);
    pid_t tap = fixture_spawn(&bench->fixture, "tap.log",
                              (const char *[]){"orchestrator", "tap", "--json", NULL});
    setenv("ORCHESTRATOR_HOME", home, 1);
    setenv("ORCHESTRATOR_CONFIG", config, 1);
    assert_int_equal(joined, 0);
    char worker[64];
    for (int i = 0; i < 100; i++) { /* events before it was let in are not for it */
        run_task(worker);
        if (fixture_wait_text(&bench->fixture, "tap.log", "task.", 200))
            break;
    }
    assert_true(fixture_wait_text(&bench->fixture, "tap.log", "task.", PATIENCE_MS));
    fixture_kill(&bench->fixture, tap, SIGTERM);
    free(home);
    free(config);
    buf_release(&out);
    buf_release(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joined_worker_runs_tasks_until_it_is_revoked),
        cmocka_unit_test(user_of_a_worker_suffices_for_all_that_it_does),
        cmocka_unit_test(redis_that_listens_asks_everybody_for_a_password),
        cmocka_unit_test(doctor_sees_keys_that_others_may_read),
        cmocka_unit_test(token_is_not_to_be_seen_and_its_files_are_private),
        cmocka_unit_test(token_in_the_environment_is_taken_and_hidden),
        cmocka_unit_test(token_used_twice_makes_one_worker_of_two_processes),
        cmocka_unit_test(new_token_for_a_name_makes_the_old_one_worthless),
        cmocka_unit_test(bad_tokens_are_refused_with_the_reason),
        cmocka_unit_test(invitations_say_what_is_missing),
        cmocka_unit_test(joined_worker_goes_on_when_redis_was_restarted),
        cmocka_unit_test(tap_joins_and_listens),
    };
    return cmocka_run_group_tests(tests, open_bench, close_bench);
}
