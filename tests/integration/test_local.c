/* A worker that owns its runtime, with the real programs: how it loads, dies, hangs and ends, what
 * becomes of the work meanwhile, and what people see of it. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/json.h"
#include "tests/lib/testbed.h"

#define WAIT_MS 60000

static struct testbed testbed;
static pid_t worker;
static int port;

/* --- the stage -------------------------------------------------------------------------------- */

static const char *in_dir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", testbed.fixture.dir, name);
    return path;
}

static void tell(const char *what)
{
    fixture_write(&testbed.fixture, what, "");
}

static void untell(const char *what)
{
    unlink(in_dir(what));
}

static void tap(void)
{
    fixture_spawn(&testbed.fixture, "tap.log",
                  (const char *[]){"orchestrator", "tap", "--json", NULL});
}

/* Broker, daemon and a tap that hears them; what the programs read of the environment. */
static void open_stage(const char *yaml, const char *scenario, const char *nvml)
{
    char library[512];
    snprintf(library, sizeof library, "%s/%s", getenv("ORCH_BIN"), nvml);
    setenv("ORCHESTRATOR_NVML", library, 1);
    testbed_init(&testbed, yaml, scenario);
    setenv("ORCHESTRATOR_LOCK_DIR", testbed.fixture.dir, 1);
    setenv("ORCHESTRATOR_CONFIG", testbed.config, 1);
    testbed_start(&testbed, NULL);
    tap();
    assert_true(fixture_wait_text(&testbed.fixture, "tap.log", "{", WAIT_MS));
}

/* One worker `w` whose runtime is the child of a shell, as Ollama's and vLLM's are children. */
static void open_runtime_stage(bool looks)
{
    char yaml[2048], health[128] = "";
    port = fixture_free_port();
    if (looks)
        snprintf(health, sizeof health, "    health: \"http://127.0.0.1:%d/health\"\n", port);
    snprintf(yaml, sizeof yaml,
             "providers: {p: {api: llamacpp, base_url: \"http://127.0.0.1:%d\"}}\n"
             "models: {m: {provider: p, name: local}}\n"
             "workers:\n"
             "  - name: w\n"
             "    provider: p\n"
             "    concurrency: 2\n"
             "    gpu: 0\n"
             "    launch: [/bin/sh, -c, '%s/test-runtime %d $ORCHESTRATOR_HOME & wait $!']\n"
             "%s"
             "    hang_ms: 1000\n"
             "roles: {general: {models: [m]}}\n",
             port, getenv("ORCH_BIN"), port, health);
    open_stage(yaml, NULL, "fake-nvml.so");
}

static void start_worker(const char *name)
{
    worker = fixture_spawn(&testbed.fixture, "worker.log",
                           (const char *[]){"orchestrator-worker", "--name", name, NULL});
}

static bool in_tap(const char *text)
{
    return fixture_wait_text(&testbed.fixture, "tap.log", text, WAIT_MS);
}

static int close_stage(void **state)
{
    (void)state;
    testbed_release(&testbed);
    return 0;
}

/* --- the command line ------------------------------------------------------------------------- */

static json_t *cli_json(const char *const *argv)
{
    struct buf out = {0}, errors = {0};
    fixture_run(&testbed.fixture, argv, &out, &errors);
    json_t *value = json_parse(out.data != NULL ? out.data : "", out.len, NULL);
    buf_release(&out);
    buf_release(&errors);
    return value;
}

static void submit(int n, char id[64])
{
    struct buf plan = {0}, out = {0};
    char path[256];
    buf_add_str(&plan, "title: local\nsynthesize: false\nsubtasks:\n");
    for (int i = 0; i < n; i++)
        buf_printf(&plan, "  - {id: s%d, role: general, prompt: \"part %d\"}\n", i, i);
    snprintf(path, sizeof path, "%s", fixture_write(&testbed.fixture, "plan.yaml", plan.data));
    const char *argv[] = {"orchestrator", "submit", "--plan", path, "--detach", NULL};
    assert_int_equal(fixture_run(&testbed.fixture, argv, &out, NULL), 0);
    snprintf(id, 64, "%.*s", (int)strcspn(out.data, "\n"), out.data);
    buf_release(&plan);
    buf_release(&out);
}

/* The n subtasks of the finished task; each was tried as often. */
static json_t *finished(const char *id, int n, int attempts)
{
    struct buf out = {0}, progress = {0};
    size_t i;
    json_t *sub;
    const char *argv[] = {"orchestrator", "wait", id, NULL};
    assert_int_equal(fixture_run(&testbed.fixture, argv, &out, &progress), 0);
    buf_release(&out);
    buf_release(&progress);
    json_t *shown = cli_json((const char *[]){"orchestrator", "show", "--json", id, NULL});
    const json_t *subs = json_get(shown, "subtasks");
    assert_int_equal(json_array_size(subs), n);
    json_array_foreach (subs, i, sub)
        assert_int_equal(json_int(sub, "attempts", 0), attempts);
    return shown;
}

static void is_done(const char *id, int n, int attempts)
{
    json_decref(finished(id, n, attempts));
}

/* What `status` has to say of the worker, once fn agrees. The caller releases it. */
typedef bool look_fn(const json_t *worker, const void *arg);
static json_t *status_where(const char *name, look_fn *fn, const void *arg)
{
    for (int64_t until = clock_ms() + WAIT_MS;;) {
        size_t i;
        json_t *found = NULL, *item;
        json_t *status = cli_json((const char *[]){"orchestrator", "status", "--json", NULL});
        json_array_foreach (json_get(status, "workers"), i, item) {
            if (strcmp(json_str(item, "name", ""), name) == 0 && fn(item, arg))
                found = json_incref(item);
        }
        if (found == NULL && clock_ms() > until)
            fail_msg("%s: %s", name, json_dumps(status, 0));
        json_decref(status);
        if (found != NULL)
            return found;
    }
}

static bool is_in_state(const json_t *item, const void *state)
{
    const char *arm;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)json_get(item, "states"), arm, value)
        if (strcmp(json_string_value(value), state) == 0)
            return true;
    return false;
}

static void wait_state(const char *name, const char *state)
{
    json_decref(status_where(name, is_in_state, state));
}

static bool has_gpu_figures(const json_t *item, const void *known)
{
    const json_t *gpu = json_get(item, "gpu");
    return json_is_object(gpu) &&
           json_is_integer(json_get(gpu, "memory_total")) == *(const bool *)known;
}

/* --- its processes ---------------------------------------------------------------------------- */

/* The line-th number in the file, from 1; 0: it is not there yet. */
static int number_in(const char *file, int line)
{
    struct buf text = {0};
    int number = 0;
    if (fixture_read(in_dir(file), &text) && text.len > 0) {
        const char *at = text.data;
        while (at != NULL && --line > 0) {
            at = strchr(at, '\n');
            at = at != NULL ? at + 1 : NULL;
        }
        number = at != NULL && strchr(at, '\n') != NULL ? atoi(at) : 0;
    }
    buf_release(&text);
    return number;
}

struct line {
    const char *file;
    int line;
};

static bool is_written(void *ctx)
{
    const struct line *line = ctx;
    return number_in(line->file, line->line) > 0;
}

/* The number in the line, once it is written. */
static int wait_line(const char *file, int line)
{
    assert_true(fixture_wait(is_written, &(struct line){file, line}, WAIT_MS));
    return number_in(file, line);
}

static bool is_gone(void *ctx)
{
    char path[64];
    struct buf stat = {0};
    snprintf(path, sizeof path, "/proc/%d/stat", *(int *)ctx);
    bool gone = !fixture_read(path, &stat) || stat.len == 0 || strstr(stat.data, ") Z") != NULL;
    buf_release(&stat);
    return gone;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void work_waits_while_the_model_loads_and_everyone_sees_that_it_does(void **state)
{
    (void)state;
    char id[64];
    const bool known = true;
    open_runtime_stage(true);
    start_worker("w");
    assert_true(in_tap("worker.w.loading"));
    wait_state("w", "loading");
    json_t *now = status_where("w", has_gpu_figures, &known);
    const json_t *gpu = json_get(now, "gpu");
    assert_int_equal(json_int(now, "credit", -1), 0);
    assert_string_equal(json_str(gpu, "id", ""), "0");
    assert_int_equal(json_int(gpu, "memory_used", 0), 30LL << 30);
    assert_int_equal(json_int(gpu, "memory_total", 0), 80LL << 30);
    assert_int_equal(json_int(gpu, "utilization", 0), 42);
    assert_int_equal(json_int(gpu, "temperature", 0), 61);
    assert_int_equal((int)json_num(gpu, "power_w", 0), 250);
    json_decref(now);
    assert_true(in_tap("\"gpu_temperature\":61"));
    submit(3, id);
    now = cli_json((const char *[]){"orchestrator", "status", "--json", NULL});
    assert_int_equal(json_int(json_get(now, "queue"), "ready", 0), 3);
    json_decref(now);
    tell("loaded");
    is_done(id, 3, 1);
    assert_true(in_tap("worker.w.warm"));
    assert_true(in_tap("healthy after "));
    wait_state("w", "warm");
    assert_int_equal(number_in("calls", 4), 0);
}

static void calls_that_a_runtime_takes_with_it_are_made_again_when_it_is_back(void **state)
{
    (void)state;
    char id[64];
    open_runtime_stage(true);
    tell("loaded");
    tell("slow");
    start_worker("w");
    submit(2, id);
    wait_line("calls", 2);
    tell("die");
    assert_true(in_tap("the runtime ended with status 3, last saying: dying; started again in "));
    untell("slow");
    untell("die");
    is_done(id, 2, 2);
    wait_line("pids", 2);
    wait_state("w", "warm");
}

static void a_runtime_that_hangs_is_replaced(void **state)
{
    (void)state;
    char id[64];
    open_runtime_stage(true);
    tell("loaded");
    start_worker("w");
    wait_state("w", "warm");
    int first = wait_line("pids", 1);
    tell("hang");
    assert_true(in_tap("has not answered for 1000 ms"));
    assert_true(fixture_wait(is_gone, &first, WAIT_MS));
    untell("hang");
    submit(1, id);
    is_done(id, 1, 1);
    assert_int_not_equal(wait_line("pids", 2), first);
}

static void while_its_port_is_taken_it_gets_no_work(void **state)
{
    (void)state;
    char id[64], text[16];
    open_runtime_stage(true);
    tell("loaded");
    snprintf(text, sizeof text, "%d", port);
    pid_t other = fixture_spawn(&testbed.fixture, "other.log",
                                (const char *[]){"test-runtime", text, testbed.fixture.dir, NULL});
    assert_true(fixture_wait_listen(NULL, port, WAIT_MS));
    start_worker("w");
    assert_true(
        fixture_wait_text(&testbed.fixture, "worker.log", "something else answers", WAIT_MS));
    submit(1, id);
    assert_true(in_tap("something else answers"));
    assert_int_equal(number_in("calls", 1), 0);
    fixture_kill(&testbed.fixture, other, SIGKILL);
    is_done(id, 1, 1);
}

static void a_drain_ends_the_calls_first_and_then_all_of_the_runtime(void **state)
{
    (void)state;
    char id[64];
    open_runtime_stage(true);
    tell("loaded");
    tell("slow");
    start_worker("w");
    submit(1, id);
    wait_line("calls", 1);
    int runtime = wait_line("pids", 1);
    kill(worker, SIGTERM);
    assert_true(
        fixture_wait_text(&testbed.fixture, "worker.log", "stops: 1 attempts run", WAIT_MS));
    assert_false(is_gone(&runtime));
    untell("slow");
    assert_int_equal(fixture_wait_exit(&testbed.fixture, worker, WAIT_MS), 0);
    assert_true(fixture_wait(is_gone, &runtime, WAIT_MS));
    is_done(id, 1, 1);
}

static void a_killed_worker_leaves_no_orphan(void **state)
{
    (void)state;
    open_runtime_stage(true);
    tell("loaded");
    start_worker("w");
    wait_state("w", "warm");
    int runtime = wait_line("pids", 1);
    fixture_kill(&testbed.fixture, worker, SIGKILL);
    assert_true(fixture_wait(is_gone, &runtime, WAIT_MS));
}

/* Without a health URL it is usable at once: before the worker knows of any tap. */
static void what_a_runtime_did_before_anyone_listened_is_told(void **state)
{
    (void)state;
    open_runtime_stage(false);
    start_worker("w");
    assert_true(in_tap("healthy after "));
    wait_state("w", "warm");
}

/* Workers without a runtime, of another configuration for the same machine. */
static int start_on_gpu(const char *name, const char *gpu, bool share, const char *log)
{
    char yaml[1024], path[256];
    snprintf(yaml, sizeof yaml,
             "redis: unix://%s\n"
             "bus: {brokers: [local]}\n"
             "providers: {n: {api: noop}}\n"
             "models: {m: {provider: n}}\n"
             "workers: [{name: %s, provider: n, gpu: '%s', share: %s}]\n",
             testbed.fixture.redis_socket, name, gpu, share ? "true" : "false");
    snprintf(path, sizeof path, "%s", fixture_write(&testbed.fixture, name, yaml));
    const char *argv[] = {"orchestrator-worker", "--name", name, "--config", path,
                          "--ready-fd",          "1",      NULL};
    return fixture_spawn(&testbed.fixture, log, argv);
}

static void two_workers_on_one_gpu_are_refused_unless_they_share_it(void **state)
{
    (void)state;
    const bool unknown = false;
    open_stage("providers: {n: {api: noop}}\nmodels: {m: {provider: n}}\n"
               "workers: [{name: w, provider: n}]\n",
               NULL, "no-such-library.so");
    pid_t first = start_on_gpu("first", "GPU-1", false, "first.log");
    assert_true(fixture_wait_text(&testbed.fixture, "first.log", "ready\n", WAIT_MS));
    pid_t second = start_on_gpu("second", "GPU-1", true, "second.log");
    assert_int_equal(fixture_wait_exit(&testbed.fixture, second, WAIT_MS), 1);
    assert_true(fixture_wait_text(&testbed.fixture, "second.log",
                                  "worker second: another worker on this machine uses GPU GPU-1: "
                                  "pin them to different GPUs, or set share: true for both",
                                  WAIT_MS));
    fixture_kill(&testbed.fixture, first, SIGKILL);
    start_on_gpu("third", "GPU-1", true, "third.log");
    start_on_gpu("fourth", "GPU-1", true, "fourth.log");
    assert_true(fixture_wait_text(&testbed.fixture, "third.log", "ready\n", WAIT_MS));
    assert_true(fixture_wait_text(&testbed.fixture, "fourth.log", "ready\n", WAIT_MS));
    json_t *now = status_where("third", has_gpu_figures, &unknown); /* and without NVML */
    const json_t *gpu = json_get(now, "gpu");
    const char *const figures[] = {"memory_used", "memory_total", "utilization", "temperature",
                                   "power_w"};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        assert_true(json_is_null(json_get(gpu, figures[i])));
    json_decref(now);
}

static void where_no_lock_can_be_made_a_worker_says_so_and_serves(void **state)
{
    (void)state;
    open_stage("providers: {n: {api: noop}}\nmodels: {m: {provider: n}}\n"
               "workers: [{name: w, provider: n}]\n",
               NULL, "no-such-library.so");
    setenv("ORCHESTRATOR_LOCK_DIR", "/nonexistent", 1);
    start_on_gpu("first", "0", false, "first.log");
    assert_true(fixture_wait_text(&testbed.fixture, "first.log", "ready\n", WAIT_MS));
    assert_true(fixture_wait_text(&testbed.fixture, "first.log",
                                  "nothing keeps other workers off GPU 0: "
                                  "/nonexistent/orchestrator-gpu-0.lock cannot be opened",
                                  WAIT_MS));
}

/* A server that loads models with a call, as Ollama: nobody has launched it. */
static void open_ollama_stage(const char *keep_alive)
{
    char yaml[1024];
    snprintf(yaml, sizeof yaml,
             "providers: {o: {api: ollama, base_url: \"http://127.0.0.1:%%d\"}}\n"
             "models: {m: {provider: o, name: qwen3, context: 4096%s}}\n"
             "workers: [{name: w, provider: o}]\n"
             "roles: {general: {models: [m]}}\n",
             keep_alive);
    open_stage(yaml, "rules:\n  - {reply: {text: loaded}, timing: {load_ms: 1500}}\n",
               "no-such-library.so");
    start_worker("w");
}

static void a_model_is_loaded_by_a_call_and_cold_after_its_keep_alive(void **state)
{
    (void)state;
    char id[64];
    open_ollama_stage(", keep_alive: 4s");
    wait_state("w", "cold");
    submit(1, id);
    json_t *shown = finished(id, 1, 1);
    const json_t *sub = json_array_get(json_get(shown, "subtasks"), 0);
    assert_true(json_num(sub, "load_ms", -1) >= 1499);
    json_decref(shown);
    assert_true(in_tap(": loaded in 1.5 s"));
    assert_true(in_tap("worker.w.cold"));
    wait_state("w", "cold");
}

static void a_load_in_spite_of_a_warm_model_is_told(void **state)
{
    (void)state;
    char id[64];
    open_ollama_stage("");
    submit(1, id);
    is_done(id, 1, 1);
    wait_state("w", "warm");
    submit(1, id);
    is_done(id, 1, 1);
    assert_true(in_tap("was loaded again in 1.5 s though it was warm (1 times so far)"));
    assert_true(in_tap("worker.w.note"));
}

static void a_server_that_went_away_has_no_model_loaded(void **state)
{
    (void)state;
    char id[64];
    open_ollama_stage("");
    submit(1, id);
    is_done(id, 1, 1);
    assert_true(in_tap("worker.w.warm"));
    fixture_kill(&testbed.fixture, testbed.sim, SIGKILL);
    submit(1, id);
    assert_true(in_tap("worker.w.cold"));
}

#define LOCAL_TEST(test) cmocka_unit_test_teardown(test, close_stage)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOCAL_TEST(work_waits_while_the_model_loads_and_everyone_sees_that_it_does),
        LOCAL_TEST(calls_that_a_runtime_takes_with_it_are_made_again_when_it_is_back),
        LOCAL_TEST(a_runtime_that_hangs_is_replaced),
        LOCAL_TEST(while_its_port_is_taken_it_gets_no_work),
        LOCAL_TEST(a_drain_ends_the_calls_first_and_then_all_of_the_runtime),
        LOCAL_TEST(a_killed_worker_leaves_no_orphan),
        LOCAL_TEST(what_a_runtime_did_before_anyone_listened_is_told),
        LOCAL_TEST(two_workers_on_one_gpu_are_refused_unless_they_share_it),
        LOCAL_TEST(where_no_lock_can_be_made_a_worker_says_so_and_serves),
        LOCAL_TEST(a_model_is_loaded_by_a_call_and_cold_after_its_keep_alive),
        LOCAL_TEST(a_load_in_spite_of_a_warm_model_is_told),
        LOCAL_TEST(a_server_that_went_away_has_no_model_loaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
