/* The command line as a person uses it: the real local stack, started by the first submit, against
 * the simulator. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/sha256.h"
#include "tests/lib/testbed.h"

#define PATIENCE_MS 60000

/* Roles have one model each, so that a rule of the scenario decides what happens to a role. */
static const char config_format[] =
    "redis: local\n"
    "bus: {brokers: [local]}\n"
    "providers:\n"
    "  sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
    "models:\n"
    "  m: {provider: sim, name: m, local: true}\n"
    "  slow: {provider: sim, name: slow, local: true}\n"
    "  flaky: {provider: sim, name: flaky, local: true}\n"
    "  files: {provider: sim, name: files, local: true}\n"
    "  chat: {provider: sim, capabilities: [json_schema]}\n"
    "  vector: {provider: sim, capabilities: [embeddings]}\n"
    "workers:\n"
    "  - {name: w0, provider: sim, concurrency: 16}\n"
    "roles:\n"
    "  planner: {models: [m]}\n"
    "  synthesizer: {models: [m]}\n"
    "  general: {models: [m]}\n"
    "  coder: {models: [m]}\n"
    "  tester: {models: [m]}\n"
    "  writer: {models: [m]}\n"
    "  architect: {models: [m]}\n"
    "  reviewer: {models: [m]}\n"
    "  talker: {models: [chat]}\n"
    "queue: {max_attempts: 1}\n";

static const char scenario[] =
    "models: [m, slow, flaky, files, chat, vector]\n"
    "rules:\n"
    "  - match: {model: slow}\n"
    "    reply: {text: \"one two three four five six seven eight nine ten\"}\n"
    "    fault: {stall_after: 3}\n"
    "  - match: {model: flaky, times: 1}\n"
    "    fault: {status: 400, message: \"the \\e[31mmodel\\e[0m is not well\"}\n"
    "  - match: {model: flaky}\n"
    "    reply: {text: \"well again\"}\n"
    "  - match: {model: files}\n"
    "    reply:\n"
    "      text: |\n"
    "        Here:\n"
    "\n"
    "        ```c path=src/a.c\n"
    "        int a;\n"
    "        ```\n"
    "\n"
    "        ```c path=../evil.c\n"
    "        int b;\n"
    "        ```\n"
    "  - match: {model: m}\n"
    "    timing: {decode_tps: 2000, prefill_tps: 0}\n";

static struct testbed testbed;
static struct fixture *const fixture = &testbed.fixture;
static struct buf out, errors;

/* Runs `orchestrator ARGS...` to its end; what it printed is in out and errors. */
#define RUN(...) run((const char *const[]){"orchestrator", __VA_ARGS__, NULL})
static int run(const char *const *argv)
{
    buf_clear(&out);
    buf_clear(&errors);
    int code = fixture_run(fixture, argv, &out, &errors);
    buf_add_str(&out, "");
    buf_add_str(&errors, "");
    return code;
}

/* The same through a shell, for standard input; "$ORCH" is the program. */
static int run_shell(const char *command)
{
    return run((const char *const[]){"/bin/sh", "-c", command, NULL});
}

static bool in(const struct buf *text, const char *part)
{
    bool found = text->data != NULL && strstr(text->data, part) != NULL;
    if (!found)
        print_error("\"%s\" is not in:\n%s\n", part, text->data != NULL ? text->data : "");
    return found;
}

/* What was printed as one JSON value; the caller releases it. */
static json_t *parsed(void)
{
    struct err err = {0};
    json_t *value = json_parse(out.data != NULL ? out.data : "", out.len, &err);
    if (value == NULL)
        print_error("%s in:\n%s\n%s\n", err.text, out.data, errors.data);
    assert_non_null(value);
    return value;
}

/* Submits with --detach; the id is valid until the next call. */
static const char *submit_detached(const char *text, const char *model)
{
    static char id[32];
    assert_int_equal(RUN("submit", text, "--no-plan", "--model", model, "--detach"), 0);
    snprintf(id, sizeof id, "%.17s", out.data);
    assert_int_equal(strlen(id), 17);
    assert_string_equal(out.data + 17, "\n");
    return id;
}

static char *path_in(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", fixture->dir, name);
    return path;
}

static bool exists(const char *name)
{
    struct stat st;
    return lstat(path_in(name), &st) == 0;
}

static int set_up(void **state)
{
    (void)state;
    fixture_init(fixture);
    testbed_start_simulator(&testbed, scenario);
    char config[4096];
    snprintf(config, sizeof config, config_format, testbed.sim_port);
    const char *path = fixture_write(fixture, "config.yaml", config);
    setenv("ORCHESTRATOR_CONFIG", path, 1);
    char program[512];
    snprintf(program, sizeof program, "%s/orchestrator", getenv("ORCH_BIN"));
    setenv("ORCH", program, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    RUN("down");
    testbed_release(&testbed);
    buf_release(&out);
    buf_release(&errors);
    return 0;
}

/* --- before anything runs -----------------------------------------------------------------------
 */

static void usage_errors_exit_with_2_and_one_sentence(void **state)
{
    (void)state;
    assert_int_equal(RUN("sumbit"), 2);
    assert_true(in(&errors, "did you mean submit?"));
    assert_int_equal(RUN("submit", "x", "--no-paln"), 2);
    assert_true(in(&errors, "there is no option --no-paln; did you mean --no-plan?"));
    assert_int_equal(RUN("show"), 2);
    assert_true(in(&errors, "ID is missing"));
    assert_int_equal(RUN("--config", "/nowhere.yaml", "list"), 2);
    assert_true(in(&errors, "/nowhere.yaml"));
    assert_int_equal(RUN("--help"), 0);
    assert_true(in(&out, "exit codes:"));
    assert_int_equal(RUN("help", "submit"), 0);
    assert_true(in(&out, "--no-synthesis"));
    assert_int_equal(RUN("version"), 0);
    assert_true(in(&out, "orchestrator "));
    assert_int_equal(RUN("completion"), 0);
    assert_true(in(&out, "complete -o filenames"));
    assert_int_equal(out.failed, 0);
}

static void without_a_stack_commands_say_how_to_start_one(void **state)
{
    (void)state;
    assert_int_equal(RUN("list"), 3);
    assert_true(in(&errors, "orchestrator up -d"));
    assert_int_equal(RUN("status", "--json"), 3);
    json_t *status = parsed();
    assert_true(json_is_null(json_get(status, "queue")));
    assert_int_equal(json_array_size(json_get(status, "brokers")), 1);
    assert_false(json_bool(json_path(status, "brokers.0"), "reachable", true));
    json_decref(status);
}

static void an_unreachable_redis_is_named(void **state)
{
    (void)state;
    char *path = path_in("remote.yaml");
    char port[64];
    snprintf(port, sizeof port, "redis: redis://127.0.0.1:%d\nbus: {brokers: [local]}\n",
             fixture_free_port());
    fixture_write(fixture, "remote.yaml", port);
    assert_int_equal(RUN("list", "--config", path), 3);
    assert_true(in(&errors, "Redis at 127.0.0.1:"));
    assert_true(in(&errors, "remote.yaml"));
}

static void bad_input_is_refused_before_anything_starts(void **state)
{
    (void)state;
    fixture_write(fixture, "cycle.yaml",
                  "subtasks:\n"
                  "  - {id: a, prompt: x, depends_on: [b]}\n"
                  "  - {id: b, prompt: y, depends_on: [a]}\n");
    assert_int_equal(RUN("submit", "--plan", path_in("cycle.yaml")), 2);
    assert_true(in(&errors, "cycle.yaml:2"));
    assert_true(in(&errors, "cycle"));
    assert_int_equal(RUN("submit", "--plan", path_in("none.yaml")), 2);
    assert_true(in(&errors, "none.yaml: No such file"));
    assert_int_equal(run_shell("printf 'a\\377b' | $ORCH submit -"), 2);
    assert_true(in(&errors, "standard input is not UTF-8 at offset 1 (byte 0xff)"));
    assert_int_equal(run_shell("head -c 9000000 /dev/zero | tr '\\0' a | $ORCH submit"), 2);
    assert_true(in(&errors, "more than 8 MiB"));
    assert_int_equal(RUN("submit", "-f", "/bin/sh", "what is this?"), 2);
    assert_true(in(&errors, "/bin/sh is not text"));
    assert_int_equal(RUN("submit", "-f", "/tmp", "what is this?"), 2);
    assert_true(in(&errors, "/tmp is a directory"));
    assert_int_equal(RUN("submit", " \n\t "), 2);
    assert_true(in(&errors, "the task is empty"));
    assert_int_equal(RUN("submit", "x", "--no-plan", "--model", "nope"), 2);
    assert_true(in(&errors, "there is no model \"nope\""));
    assert_int_equal(RUN("submit", "x", "--model", "m"), 2);
    assert_true(in(&errors, "--model needs --no-plan"));
    assert_int_equal(RUN("submit", "x", "--role", "nope"), 2);
    assert_int_equal(RUN("submit", "x", "--id", "nope"), 2);
    assert_int_equal(RUN("submit", "x", "--plan", "p", "--no-plan"), 2);
    assert_int_equal(RUN("submit", "x", "--timeout", "soon"), 2);
    assert_int_equal(RUN("submit", "x", "--out", path_in("cycle.yaml")), 2);
    assert_true(in(&errors, "that is no directory"));
    assert_false(exists("run/redis.sock"));
}

/* --- tasks --------------------------------------------------------------------------------------
 */

static void submit_starts_the_stack_and_plans_runs_and_synthesizes(void **state)
{
    (void)state;
    assert_int_equal(
        RUN("submit", "write a word counter in C, with tests", "--json", "--out", path_in("wc")),
        0);
    assert_true(in(&errors, "starting the local stack"));
    json_t *task = parsed(), *subtask, *file;
    size_t i;
    assert_string_equal(json_str(task, "state", ""), "DONE");
    assert_true(json_is_string(json_get(task, "result")));
    assert_true(json_num(task, "wall_ms", -1) > 0);
    assert_true(json_num(task, "cost_usd", -1) >= 0);
    assert_true(json_is_false(json_get(task, "simulated")));
    assert_true(json_array_size(json_get(task, "subtasks")) >= 4);
    json_array_foreach (json_get(task, "subtasks"), i, subtask) {
        static const char *const fields[] = {
            "id",     "title",  "role",     "state",         "depends_on",   "provider",
            "model",  "worker", "attempts", "queue_ms",      "ttft_ms",      "total_ms",
            "output", "error",  "cost_usd", "prompt_tokens", "output_tokens"};
        for (size_t j = 0; j < sizeof fields / sizeof *fields; j++)
            assert_non_null(json_get(subtask, fields[j]));
        assert_string_equal(json_str(subtask, "state", ""), "DONE");
        assert_string_equal(json_str(subtask, "worker", ""), "w0");
        assert_true(json_num(subtask, "total_ms", -1) > 0);
    }
    assert_true(json_array_size(json_get(task, "files")) > 0);
    json_array_foreach (json_get(task, "files"), i, file) {
        struct buf contents = {0};
        char name[256], hex[SHA256_HEX_SIZE];
        snprintf(name, sizeof name, "wc/%s", json_str(file, "path", "?"));
        assert_true(json_bool(file, "written", false));
        assert_true(fixture_read(path_in(name), &contents));
        assert_int_equal(contents.len, json_int(file, "bytes", -1));
        sha256_hex_of(contents.data, contents.len, hex);
        assert_string_equal(hex, json_str(file, "sha256", ""));
        buf_release(&contents);
    }
    json_decref(task);
}

static void newest_task(char ret[32], const char *state)
{
    assert_int_equal(RUN("list", "--json", "--limit", "1"), 0);
    json_t *list = parsed();
    snprintf(ret, 32, "%s", json_str(json_array_get(list, 0), "task_id", ""));
    assert_string_equal(json_str(json_array_get(list, 0), "state", ""), state);
    json_decref(list);
}

/* The first call of the model fails, all others are well. */
static void a_failed_task_says_why_and_is_retried(void **state)
{
    (void)state;
    char id[32];
    assert_int_equal(RUN("submit", "say something", "--no-plan", "--model", "flaky"), 1);
    assert_string_equal(out.data, "");
    assert_true(in(&errors, "bad_request"));
    assert_true(in(&errors, "is not well"));
    assert_true(in(&errors, "what to do: "));
    assert_true(in(&errors, "orchestrator retry t"));
    assert_null(strchr(errors.data, '\033'));
    newest_task(id, "FAILED");
    assert_int_equal(RUN("result", id), 1);
    assert_int_equal(RUN("retry", id), 0);
    assert_int_equal(RUN("wait", id), 0);
    assert_string_equal(out.data, "well again\n");
}

static void what_nothing_may_run_is_refused_at_once(void **state)
{
    (void)state;
    assert_int_equal(RUN("submit", "hi", "--no-plan", "--offline", "--model", "chat"), 2);
    assert_true(in(&errors, "offline and model `chat` is not local"));
    assert_int_equal(RUN("submit", "hi", "--no-plan", "--offline", "--role", "talker"), 2);
    assert_true(in(&errors, "role `talker` has no local model"));
    assert_int_equal(RUN("submit", "hi", "--no-plan", "--embed", "--model", "chat"), 2);
    assert_true(in(&errors, "makes no embeddings"));
}

static void a_vector_is_made_by_a_model_that_makes_vectors(void **state)
{
    (void)state;
    assert_int_equal(RUN("submit", "hi", "--no-plan", "--embed", "--role", "talker", "--json"), 0);
    json_t *task = parsed();
    assert_string_equal(json_str(json_path(task, "subtasks.0"), "model", ""), "vector");
    assert_int_equal(strncmp(json_str(task, "result", ""), "[[", 2), 0);
    json_decref(task);
}

static void the_result_is_alone_on_standard_output(void **state)
{
    (void)state;
    assert_int_equal(run_shell("echo 'say something' | $ORCH submit --no-plan --model flaky"), 0);
    assert_string_equal(out.data, "well again\n");
    assert_true(in(&errors, "submitted"));
    assert_true(in(&errors, "tok/s"));
    assert_null(strchr(errors.data, '\033'));
    assert_int_equal(RUN("submit", "again", "--no-plan", "--model", "flaky", "--quiet"), 0);
    assert_string_equal(out.data, "well again\n");
    assert_string_equal(errors.data, "");
}

static void a_plan_of_a_person_runs_as_it_is(void **state)
{
    (void)state;
    fixture_write(fixture, "plan.yaml",
                  "title: three parts\n"
                  "synthesize: false\n"
                  "subtasks:\n"
                  "  - {id: one, model: flaky, prompt: first}\n"
                  "  - {id: two, model: flaky, prompt: second, depends_on: [one]}\n"
                  "  - {id: three, model: flaky, prompt: third, depends_on: [one]}\n");
    assert_int_equal(RUN("submit", "--plan", path_in("plan.yaml"), "--json"), 0);
    json_t *task = parsed();
    assert_string_equal(json_str(task, "title", ""), "three parts");
    assert_int_equal(json_array_size(json_get(task, "subtasks")), 3);
    assert_string_equal(json_str(json_path(task, "subtasks.1"), "model", ""), "flaky");
    assert_non_null(strstr(json_str(task, "result", ""), "## second"));
    json_decref(task);
}

static void files_leave_the_directory_never(void **state)
{
    (void)state;
    assert_int_equal(RUN("submit", "x", "--no-plan", "--model", "files", "--out", path_in("f")), 1);
    assert_true(in(&errors, "1 file written below"));
    assert_true(in(&errors, "not written: ../evil.c"));
    assert_true(exists("f/src/a.c"));
    assert_false(exists("evil.c"));
    char id[32];
    newest_task(id, "DONE");
    assert_int_equal(RUN("result", id, "--out", path_in("f")), 1);
    assert_true(in(&errors, "src/a.c (of"));
    assert_true(in(&errors, "--force"));
    assert_int_equal(RUN("show", id, "--json"), 0);
    json_t *task = parsed();
    assert_int_equal(json_array_size(json_get(task, "files")), 1);
    assert_string_equal(json_str(json_path(task, "files.0"), "path", ""), "src/a.c");
    assert_int_equal(json_array_size(json_get(task, "files_skipped")), 1);
    json_decref(task);
}

static void detach_wait_show_and_result_tell_of_one_task(void **state)
{
    (void)state;
    const char *id = submit_detached("hello", "flaky");
    assert_int_equal(RUN("wait", id, "--json"), 0);
    json_t *task = parsed();
    assert_string_equal(json_str(task, "task_id", ""), id);
    assert_string_equal(json_str(task, "result", ""), "well again");
    const char *sub = json_str(json_path(task, "subtasks.0"), "id", "");
    assert_int_equal(RUN("show", id, "--output", sub), 0);
    assert_string_equal(out.data, "well again\n");
    json_decref(task);
    assert_int_equal(RUN("result", id), 0);
    assert_string_equal(out.data, "well again\n");
    assert_int_equal(RUN("show", id, "--log", "--json"), 0);
    task = parsed();
    json_t *log = json_get(task, "log");
    assert_string_equal(json_str(json_array_get(log, 0), "what", ""), "submitted");
    assert_string_equal(json_str(json_array_get(log, json_array_size(log) - 1), "what", ""),
                        "task-done");
    json_decref(task);
    assert_int_equal(RUN("show", id, "--log"), 0);
    assert_true(in(&out, "running"));
    assert_int_equal(RUN("show", id, "--output", "nope"), 2);
    assert_int_equal(RUN("result", "t0000000000000000"), 2);
    assert_int_equal(RUN("show", "zzz"), 2);
    assert_int_equal(RUN("show", "t"), 2);
    assert_true(in(&errors, "more than one"));
}

static void the_same_id_and_content_is_the_same_task(void **state)
{
    (void)state;
    static const char id[] = "t1111111111111111";
    assert_int_equal(RUN("submit", "twice", "--no-plan", "--model", "flaky", "--id", id, "--quiet"),
                     0);
    assert_int_equal(RUN("submit", "twice", "--no-plan", "--model", "flaky", "--id", id), 0);
    assert_true(in(&errors, "was submitted before"));
    assert_string_equal(out.data, "well again\n");
    assert_int_equal(RUN("submit", "other", "--no-plan", "--model", "flaky", "--id", id), 2);
    assert_true(in(&errors, "another content"));
}

static void a_running_task_is_left_cancelled_and_taken_up_again(void **state)
{
    (void)state;
    assert_int_equal(RUN("submit", "slow", "--no-plan", "--model", "slow", "--timeout", "0.5"), 4);
    assert_true(in(&errors, "goes on: `orchestrator wait t"));
    char id[32];
    newest_task(id, "RUNNING");
    assert_int_equal(RUN("show", id, "--json"), 0);
    json_t *task = parsed(), *subtask = json_path(task, "subtasks.0");
    assert_string_equal(json_str(subtask, "worker", ""), "w0");
    assert_int_equal(strncmp(json_str(subtask, "arm", ""), "slow@", 5), 0);
    assert_string_equal(json_str(subtask, "model", ""), "slow");
    assert_true(json_is_real(json_get(subtask, "queue_ms")));
    json_decref(task);
    assert_int_equal(RUN("result", id), 1);
    assert_int_equal(RUN("retry", id), 1);
    assert_true(in(&errors, "only failed and cancelled"));
    assert_int_equal(RUN("cancel", id), 0);
    assert_int_equal(RUN("cancel", id, "--json"), 0);
    assert_true(in(&out, "\"cancelled\": true"));
    assert_int_equal(RUN("wait", id), 4);
    assert_true(in(&errors, "was cancelled"));
    assert_int_equal(RUN("retry", id), 0);
    assert_int_equal(RUN("wait", id, "--timeout", "0.3", "--quiet"), 4);
    assert_int_equal(RUN("cancel", id), 0);
}

/* --- live ---------------------------------------------------------------------------------------
 */

static void status_knows_every_process(void **state)
{
    (void)state;
    assert_int_equal(RUN("status", "--json"), 0);
    json_t *status = parsed(), *worker = json_path(status, "workers.0");
    assert_int_equal(json_array_size(json_get(status, "orchestrators")), 1);
    assert_true(json_bool(json_path(status, "brokers.0"), "reachable", false));
    assert_true(json_int(json_path(status, "brokers.0"), "pid", 0) > 1);
    assert_int_equal(json_array_size(json_get(status, "workers")), 1);
    assert_string_equal(json_str(worker, "name", ""), "w0");
    assert_string_equal(json_str(worker, "provider", ""), "sim");
    assert_true(json_int(worker, "pid", 0) > 1);
    assert_int_equal(json_array_size(json_get(worker, "arms")), 6);
    assert_int_equal(json_int(worker, "concurrency", 0), 16);
    assert_true(json_int(worker, "credit", -1) >= 0);
    assert_non_null(json_get(worker, "gpu"));
    assert_int_equal(json_int(json_get(status, "queue"), "ready", -1), 0);
    assert_non_null(json_get(json_get(status, "queue"), "dead"));
    json_decref(status);
    assert_int_equal(RUN("status"), 0);
    assert_true(in(&out, "w0"));
}

/* A subscription takes a moment to arrive: tasks are submitted until the tap has had its events. */
static int submit_until_heard(pid_t tap)
{
    int code = -1;
    for (int i = 0; i < 100 && code == -1; i++) {
        submit_detached("for the tap", "flaky");
        code = fixture_wait_exit(fixture, tap, 200);
    }
    return code;
}

static void tap_prints_and_records_events(void **state)
{
    (void)state;
    const char *record = path_in("events.jsonl");
    const char *const argv[] = {"orchestrator", "tap",  "task.*.done", "--json", "--count", "2",
                                "--record",     record, "--timeout",   "60",     NULL};
    pid_t tap = fixture_spawn(fixture, "tap.log", argv);
    assert_int_equal(submit_until_heard(tap), 0);
    struct buf log = {0}, kept = {0};
    assert_true(fixture_read(path_in("tap.log"), &log));
    assert_true(fixture_read(path_in("events.jsonl"), &kept));
    assert_string_equal(log.data, kept.data);
    char *newline = strchr(log.data, '\n');
    json_t *event = json_parse(log.data, (size_t)(newline - log.data), NULL);
    assert_non_null(event);
    assert_int_equal(strncmp(json_str(event, "topic", ""), "task.t", 6), 0);
    assert_true(json_int(event, "ts", 0) > 0);
    assert_true(json_int(event, "seq", 0) > 0);
    assert_non_null(json_get(event, "source"));
    assert_non_null(json_get(event, "type"));
    json_decref(event);
    buf_release(&log);
    buf_release(&kept);
    assert_int_equal(RUN("tap", "nothing.like.this", "--count", "1", "--timeout", "0.2"), 4);
    assert_int_equal(RUN("tap", "nothing.like.this", "--timeout", "0.2"), 0);
    assert_int_equal(RUN("tap", "--record", "/nowhere/file"), 2);
}

static void ctrl_c_cancels_the_task_and_sigterm_does_not(void **state)
{
    (void)state;
    static const struct {
        int signal;
        const char *want;
    } cases[] = {{SIGINT, "CANCELLED"}, {SIGTERM, "RUNNING"}};
    for (size_t i = 0; i < 2; i++) {
        char log[32], id[32] = "t2222222222222222";
        id[16] = (char)('3' + i);
        snprintf(log, sizeof log, "signal.%zu.log", i);
        const char *const argv[] = {"orchestrator", "submit", "x", "--no-plan", "--model",
                                    "slow",         "--id",   id,  NULL};
        pid_t pid = fixture_spawn(fixture, log, argv);
        assert_true(fixture_wait_text(fixture, log, "running on slow", PATIENCE_MS));
        kill(pid, cases[i].signal);
        assert_int_equal(fixture_wait_exit(fixture, pid, PATIENCE_MS), 4);
        assert_int_equal(RUN("show", id, "--json"), 0);
        json_t *task = parsed();
        assert_string_equal(json_str(task, "state", ""), cases[i].want);
        json_decref(task);
        RUN("cancel", id);
    }
}

/* The pid of a process of the local stack. */
static pid_t pid_of(const char *kind)
{
    pid_t pid = 0;
    assert_int_equal(RUN("up", "-d", "--json"), 0);
    json_t *stack = parsed(), *process;
    size_t i;
    json_array_foreach (json_get(stack, "processes"), i, process) {
        if (strcmp(json_str(process, "kind", ""), kind) == 0)
            pid = (pid_t)json_int(process, "pid", 0);
    }
    json_decref(stack);
    assert_true(pid > 1);
    return pid;
}

static void a_redis_that_is_killed_is_waited_for(void **state)
{
    (void)state;
    static const char id[] = "t3333333333333333";
    const char *const argv[] = {"orchestrator", "submit", "x", "--no-plan", "--model",
                                "slow",         "--id",   id,  NULL};
    pid_t pid = fixture_spawn(fixture, "lost.log", argv);
    assert_true(fixture_wait_text(fixture, "lost.log", "running on slow", PATIENCE_MS));
    kill(pid_of("redis"), SIGKILL);
    assert_true(
        fixture_wait_text(fixture, "lost.log", "waiting for it; the task is safe", PATIENCE_MS));
    assert_true(fixture_wait_text(fixture, "lost.log", "Redis is back", PATIENCE_MS));
    kill(pid, SIGINT);
    assert_int_equal(fixture_wait_exit(fixture, pid, PATIENCE_MS), 4);
    assert_true(fixture_wait_text(fixture, "lost.log", "was cancelled", PATIENCE_MS));
}

/* A bare root directory may come without /dev/pts. */
static bool has_terminals(void)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    bool has = fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0;
    const char *name = has ? ptsname(fd) : NULL;
    has = name != NULL && access(name, R_OK | W_OK) == 0;
    close(fd);
    return has;
}

static void a_terminal_gets_rows_that_are_redrawn_and_a_file_does_not(void **state)
{
    (void)state;
    if (!has_terminals()) {
        print_message("no pseudo-terminal can be had here: skipped\n");
        skip();
    }
    setenv("TERM", "xterm", 1);
    assert_int_equal(run_shell("script -qec \"$ORCH submit x --no-plan --model slow --timeout 1 "
                               "--id t4444444444444444\" /dev/null"),
                     4);
    assert_true(in(&out, "running   x"));
    assert_true(in(&out, "slow@"));
    assert_true(in(&out, "\033[1A\r\033[J"));
    assert_null(strstr(out.data, "\033[3")); /* NO_COLOR */
    assert_int_equal(RUN("cancel", "t4444444444444444"), 0);
    setenv("TERM", "dumb", 1);
    assert_int_equal(run_shell("script -qec \"$ORCH submit x --no-plan --model flaky\" /dev/null"),
                     0);
    assert_null(strchr(out.data, '\033'));
    assert_true(in(&out, "main: running on flaky"));
}

static void a_full_disk_below_standard_output_is_said(void **state)
{
    (void)state;
    assert_int_equal(run_shell("$ORCH list --all --json > /dev/full"), 1);
    assert_true(in(&errors, "cannot write to standard output: No space left"));
    assert_int_equal(run_shell("$ORCH show t3333333333333333 --json | true"), 0);
    assert_string_equal(errors.data, "");
}

/* What a program opens must not become the standard output that it was started without. */
static void closed_standard_descriptors_are_survived(void **state)
{
    (void)state;
    assert_int_equal(run_shell("$ORCH submit x --no-plan --model m >&-"), 1);
    assert_true(in(&errors, "cannot write to standard output"));
    assert_int_equal(run_shell("$ORCH submit - <&- 2>&-"), 2);
    assert_int_equal(run_shell("$ORCH submit x --no-plan --model m 2>&-"), 0);
    assert_true(in(&out, "(simulated)"));
    assert_int_equal(run_shell("$ORCH status >&- 2>&- <&-"), 1);
}

static void list_shows_the_newest_first(void **state)
{
    (void)state;
    assert_int_equal(RUN("list", "--all", "--json"), 0);
    json_t *list = parsed();
    assert_true(json_array_size(list) > 5);
    for (size_t i = 1; i < json_array_size(list); i++)
        assert_true(json_int(json_array_get(list, i - 1), "created_ms", 0) >=
                    json_int(json_array_get(list, i), "created_ms", 0));
    json_decref(list);
    assert_int_equal(RUN("list", "--limit", "2"), 0);
    assert_true(in(&out, "title"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_errors_exit_with_2_and_one_sentence),
        cmocka_unit_test(without_a_stack_commands_say_how_to_start_one),
        cmocka_unit_test(an_unreachable_redis_is_named),
        cmocka_unit_test(bad_input_is_refused_before_anything_starts),
        cmocka_unit_test(submit_starts_the_stack_and_plans_runs_and_synthesizes),
        cmocka_unit_test(a_failed_task_says_why_and_is_retried),
        cmocka_unit_test(what_nothing_may_run_is_refused_at_once),
        cmocka_unit_test(a_vector_is_made_by_a_model_that_makes_vectors),
        cmocka_unit_test(the_result_is_alone_on_standard_output),
        cmocka_unit_test(a_plan_of_a_person_runs_as_it_is),
        cmocka_unit_test(files_leave_the_directory_never),
        cmocka_unit_test(detach_wait_show_and_result_tell_of_one_task),
        cmocka_unit_test(the_same_id_and_content_is_the_same_task),
        cmocka_unit_test(a_running_task_is_left_cancelled_and_taken_up_again),
        cmocka_unit_test(status_knows_every_process),
        cmocka_unit_test(tap_prints_and_records_events),
        cmocka_unit_test(ctrl_c_cancels_the_task_and_sigterm_does_not),
        cmocka_unit_test(a_redis_that_is_killed_is_waited_for),
        cmocka_unit_test(a_terminal_gets_rows_that_are_redrawn_and_a_file_does_not),
        cmocka_unit_test(a_full_disk_below_standard_output_is_said),
        cmocka_unit_test(closed_standard_descriptors_are_survived),
        cmocka_unit_test(list_shows_the_newest_first),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
