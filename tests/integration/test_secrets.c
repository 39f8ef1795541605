/* Keys with known values are planted; then every way is taken in which a call can go wrong, with a
 * provider that tells the key to whoever listens. Afterwards they are looked for wherever the
 * system leaves traces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/log.h"
#include "tests/lib/fixture.h"
#include "tests/lib/http_server.h"

#define MARK "PLANTED" /* what all keys begin with: also what is cut off of one is found */

static const char yaml[] =
    "queue: {max_attempts: 2}\n"
    "providers:\n"
    "  ok:     {api: openai, base_url: 'http://127.0.0.1:%d/ok', key: 'env:SECRET_ENV'}\n"
    "  denied: {api: openai, base_url: 'http://127.0.0.1:%d/unauthorized', key: 'env:SECRET_ENV'}\n"
    "  mirror: {api: openai, base_url: 'http://127.0.0.1:%d/mirror', key: 'file:%s/key'}\n"
    "  claude: {api: anthropic, base_url: 'http://127.0.0.1:%d/mirror', key: 'cmd:cat %s/key'}\n"
    "  gemini: {api: gemini, base_url: 'http://127.0.0.1:%d/mirror', key: 'cmd:cat %s/key'}\n"
    "  cut:    {api: openai, base_url: 'http://127.0.0.1:%d/truncate', key: 'env:SECRET_ENV'}\n"
    "  error:  {api: openai, base_url: 'http://127.0.0.1:%d/error', key: 'env:SECRET_ENV'}\n"
    "  torn:   {api: openai, base_url: 'http://127.0.0.1:%d/torn', key: 'file:%s/key'}\n"
    "  away:   {api: openai, base_url: 'http://127.0.0.1:%d/away', key: 'env:SECRET_ENV'}\n"
    "  closed: {api: openai, base_url: 'http://127.0.0.1:%p', key: 'env:SECRET_ENV'}\n"
    "  web:    {api: search, base: ok, engine: google, engine_key: 'env:SECRET_ENGINE',\n"
    "           engine_cx: cx1, engine_url: 'http://127.0.0.1:%d/mirror', auto: always}\n"
    "  here:   {api: openai-compatible, base_url: 'http://127.0.0.1:%p', key: 'env:SECRET_ENV'}\n"
    "models:\n"
    "  m-ok:     {provider: ok, name: test-model}\n"
    "  m-denied: {provider: denied, name: test-model}\n"
    "  m-mirror: {provider: mirror, name: test-model}\n"
    "  m-claude: {provider: claude, name: claude-x}\n"
    "  m-gemini: {provider: gemini, name: gemini-x}\n"
    "  m-cut:    {provider: cut, name: test-model}\n"
    "  m-error:  {provider: error, name: test-model}\n"
    "  m-torn:   {provider: torn, name: test-model}\n"
    "  m-away:   {provider: away, name: test-model}\n"
    "  m-closed: {provider: closed, name: test-model}\n"
    "  m-web:    {provider: web, name: test-model}\n"
    "  m-here:   {provider: here, name: test-model}\n"
    "workers:\n"
    "  - {name: w-ok, provider: ok}\n"
    "  - {name: w-denied, provider: denied}\n"
    "  - {name: w-mirror, provider: mirror}\n"
    "  - {name: w-claude, provider: claude}\n"
    "  - {name: w-gemini, provider: gemini}\n"
    "  - {name: w-cut, provider: cut}\n"
    "  - {name: w-error, provider: error}\n"
    "  - {name: w-torn, provider: torn}\n"
    "  - {name: w-away, provider: away}\n"
    "  - {name: w-closed, provider: closed}\n"
    "  - {name: w-web, provider: web}\n"
    "  - {name: w-here, provider: here,\n"
    "     launch: [/bin/sh, -c, 'env > %h/runtime.env; exec $ORCH_BIN/test-runtime %q %h'],\n"
    "     health: 'http://127.0.0.1:%q/health'}\n";
static const char *const models[] = {"m-ok",     "m-denied", "m-mirror", "m-claude",
                                     "m-gemini", "m-cut",    "m-error",  "m-torn",
                                     "m-away",   "m-closed", "m-web"};

struct bench {
    struct fixture fixture;
    struct http_server *server;
    char keys_dir[64]; /* outside of what is searched */
    char config[128];
};
static struct bench bench_, *const bench = &bench_;

/* --- the stage ----------------------------------------------------------------------------------
 */

/* %d: the server's port, %p and %q: free ones, %s: where the keys are, %h: the home. */
static void write_config(void)
{
    struct buf text = {0};
    int closed = fixture_free_port(), runtime = fixture_free_port();
    for (const char *at = yaml; *at != '\0'; at++) {
        if (*at != '%') {
            buf_add_char(&text, *at);
            continue;
        }
        at++;
        if (*at == 's' || *at == 'h')
            buf_add_str(&text, *at == 's' ? bench->keys_dir : bench->fixture.dir);
        else
            buf_printf(&text, "%d",
                       *at == 'd'   ? http_server_port(bench->server)
                       : *at == 'p' ? closed
                                    : runtime);
    }
    snprintf(bench->config, sizeof bench->config, "%s",
             fixture_write(&bench->fixture, "config.yaml", text.data));
    buf_release(&text);
}

/* Runs the CLI; what it prints is kept in the directory that is searched. */
static int cli(const char *const *words, struct buf *out)
{
    const char *argv[16] = {"orchestrator"};
    struct buf printed = {0}, errors = {0};
    char name[64];
    static int runs;
    for (size_t i = 0; words[i] != NULL; i++)
        argv[i + 1] = words[i];
    int status = fixture_run(&bench->fixture, argv, &printed, &errors);
    snprintf(name, sizeof name, "cli-%d.out", ++runs);
    fixture_write(&bench->fixture, name, printed.data != NULL ? printed.data : "");
    snprintf(name, sizeof name, "cli-%d.err", runs);
    fixture_write(&bench->fixture, name, errors.data != NULL ? errors.data : "");
    if (out != NULL && printed.len > 0)
        buf_add(out, printed.data, printed.len);
    if (status > 1)
        print_message("%s: %s\n", words[0], errors.data);
    buf_release(&printed);
    buf_release(&errors);
    return status;
}

static int setup(void **state)
{
    (void)state;
    fixture_init(&bench->fixture);
    bench->server = http_server_start();
    strcpy(bench->keys_dir, "/tmp/orch-keys-XXXXXX");
    assert_non_null(mkdtemp(bench->keys_dir));
    char path[96];
    snprintf(path, sizeof path, "%s/key", bench->keys_dir);
    FILE *key = fopen(path, "we");
    assert_non_null(key);
    fputs(MARK "-file-0123456789abcdef\n", key);
    fclose(key);
    fixture_write(&bench->fixture, "loaded", "");
    write_config();
    setenv("ORCHESTRATOR_CONFIG", bench->config, 1);
    setenv("ORCHESTRATOR_LOG", "debug", 1);
    setenv("SECRET_ENV", MARK "-env-0123456789abcdef", 1);
    setenv("SECRET_ENGINE", MARK "-engine-0123456789abcdef", 1);
    assert_int_equal(cli((const char *[]){"up", "-d", NULL}, NULL), 0);
    unsetenv("SECRET_ENV");
    unsetenv("SECRET_ENGINE");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cli((const char *[]){"down", NULL}, NULL);
    char path[96];
    snprintf(path, sizeof path, "%s/key", bench->keys_dir);
    unlink(path);
    rmdir(bench->keys_dir);
    fixture_release(&bench->fixture);
    http_server_stop(&bench->server);
    return 0;
}

/* --- what happens -------------------------------------------------------------------------------
 */

static void run_task(const char *model, struct buf *id)
{
    buf_clear(id);
    assert_int_equal(cli((const char *[]){"submit", "--no-plan", "--detach", "--model", model,
                                          "what is the latest news?", NULL},
                         id),
                     0);
    id->data[strcspn(id->data, "\n")] = '\0';
    if (cli((const char *[]){"wait", "--timeout", "60", id->data, NULL}, NULL) > 1)
        print_message("the task of %s did not end\n", model);
    cli((const char *[]){"show", "--log", id->data, NULL}, NULL);
    cli((const char *[]){"show", "--json", id->data, NULL}, NULL);
}

/* --- looking ------------------------------------------------------------------------------------
 */

static void assert_no_file_has_it(void)
{
    struct buf found = {0};
    char command[160];
    snprintf(command, sizeof command, "grep -rl " MARK " %s", bench->fixture.dir);
    const char *argv[] = {"/bin/sh", "-c", command, NULL};
    int status = fixture_run(&bench->fixture, argv, &found, NULL);
    if (status != 1)
        fail_msg("a key is in %s", found.data);
    buf_release(&found);
}

static bool proc_holds(const char *pid, const char *file, const char *what, size_t len)
{
    char path[300];
    struct buf text = {0};
    snprintf(path, sizeof path, "/proc/%s/%s", pid, file);
    bool has =
        fixture_read(path, &text) && text.len > 0 && memmem(text.data, text.len, what, len) != NULL;
    buf_release(&text);
    return has;
}

static bool proc_has(const char *pid, const char *file, const char *what)
{
    return proc_holds(pid, file, what, strlen(what));
}

/* The stack itself: it hands the keys to the workers that it starts. */
static bool is_stack(const char *pid)
{
    static const char words[] = "orchestrator\0up";
    return proc_holds(pid, "cmdline", words, sizeof words);
}

/* Our processes are those that have the fixture's directory in their environment. */
static void assert_processes_hide_it(void)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    int ours = 0, workers = 0;
    assert_non_null(proc);
    while ((entry = readdir(proc)) != NULL) {
        const char *pid = entry->d_name;
        bool own = isdigit((unsigned char)pid[0]) && atoi(pid) != getpid() &&
                   proc_has(pid, "environ", bench->fixture.dir);
        if (!own)
            continue;
        ours++;
        assert_false(proc_has(pid, "cmdline", MARK));
        bool worker = proc_has(pid, "cmdline", "orchestrator-worker");
        workers += worker;
        if (!worker && !is_stack(pid) && proc_has(pid, "environ", MARK))
            fail_msg("process %s needs no key, but has it in its environment", pid);
        if (worker && !proc_has(pid, "limits", "Max core file size        0"))
            fail_msg("a worker may leave a core file");
    }
    closedir(proc);
    assert_true(ours > workers + 2); /* broker, daemon, the stack itself, a runtime */
    assert_true(workers >= 12); /* or one more: a fork of it that is about to run a key command */
}

/* A worker that crashes leaves no core file, here or where it runs. */
static void crash_a_worker(void)
{
    struct buf text = {0};
    assert_int_equal(cli((const char *[]){"status", "--json", NULL}, &text), 0);
    json_t *status = json_parse(text.data, text.len, NULL);
    json_t *workers = json_get(status, "workers");
    assert_true(json_array_size(workers) > 0);
    pid_t pid = (pid_t)json_int(json_array_get(workers, 0), "pid", 0);
    assert_true(pid > 1);
    assert_int_equal(kill(pid, SIGABRT), 0);
    for (int i = 0; i < 2000 && kill(pid, 0) == 0; i++)
        usleep(5000);
    json_decref(status);
    buf_release(&text);
}

/* --- the test -----------------------------------------------------------------------------------
 */

static void a_key_is_nowhere_but_in_its_worker_and_in_the_request(void **state)
{
    (void)state;
    struct buf id = {0}, last = {0};
    fixture_spawn(&bench->fixture, "tap.log",
                  (const char *[]){"orchestrator", "tap", "--json", NULL});
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        run_task(models[i], &id);
    http_server_last(bench->server, &last);
    assert_non_null(strstr(last.data, MARK)); /* they are used */
    assert_true(fixture_wait_text(&bench->fixture, "tap.log", "\"key-out\"", 20000));
    assert_true(fixture_wait_text(&bench->fixture, "tap.log", "env:SECRET_ENV", 20000));
    assert_true(fixture_wait_text(&bench->fixture, "runtime.env", "ORCHESTRATOR_HOME", 20000));
    static const char *const looks[] = {"status", "models", "doctor", "check-config", "providers"};
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++)
        cli((const char *[]){looks[i], NULL}, NULL);
    assert_processes_hide_it();
    crash_a_worker();
    assert_no_file_has_it(); /* logs, events, Redis' and SQLite's files, spools, what was printed */
    buf_release(&id);
    buf_release(&last);
}

int main(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_key_is_nowhere_but_in_its_worker_and_in_the_request,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
