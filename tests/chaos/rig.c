#include "tests/chaos/rig.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/task_id.h"
#include "schemas/mem.h"
#include "tests/chaos/load.h"
#include "workers/spool_record.h"

#define TURN_MS 10
#define JOURNAL_MS 30
#define READY_MS 60000
#define AWAY_MS(rig) ((rig)->options.lease_ms / 2) /* longer, and leases may run out */

static volatile sig_atomic_t interrupted;

static void note_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void rig_catch_signals(void)
{
    struct sigaction action = {.sa_handler = note_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

bool rig_interrupted(void)
{
    return interrupted != 0;
}

const char *rig_program_name(enum rig_program program)
{
    static const char *const names[] = {
#define X(constant, word) word,
        RIG_PROGRAMS(X)
#undef X
    };
    return names[program];
}

struct rig_process *rig_process(struct rig *rig, enum rig_program program, int index)
{
    for (size_t i = 0; i < rig->n_processes; i++)
        if (rig->processes[i].program == program && rig->processes[i].index == index)
            return &rig->processes[i];
    return NULL;
}

/* --- starting --------------------------------------------------------------------------------- */

static void set_or_unset(const char *name, const char *value)
{
    if (value[0] != '\0')
        setenv(name, value, 1);
    else
        unsetenv(name);
}

static pid_t spawn(struct rig *rig, struct rig_process *process)
{
    struct fixture *fixture = &rig->testbed.fixture;
    const char *config = rig->testbed.config;
    char endpoint[128], taps[128];
    if (process->program == RIG_WORKER)
        return fixture_spawn(fixture, process->log,
                             (const char *[]){"orchestrator-worker", "--name", process->name,
                                              "--config", config, "--ready-fd", "1", NULL});
    if (process->program == RIG_DAEMON)
        return fixture_spawn(fixture, process->log,
                             (const char *[]){"orchestrator", "serve", "--name", process->name,
                                              "--config", config, "--ready-fd", "1", NULL});
    snprintf(endpoint, sizeof endpoint, "ipc://%s/%s", fixture->dir, process->name);
    snprintf(taps, sizeof taps, "ipc://%s/%s.taps", fixture->dir, process->name);
    return fixture_spawn(fixture, process->log,
                         (const char *[]){"orchestrator-broker", "--config", config, "--endpoint",
                                          endpoint, "--taps", taps, "--ready-fd", "1", NULL});
}

static void start(struct rig *rig, struct rig_process *process)
{
    char path[192], log[256] = "";
    struct fixture *fixture = &rig->testbed.fixture;
    process->started_ms = clock_ms();
    process->was_stopped = process->was_killed = false;
    process->armed = process->failpoint[0] != '\0';
    if (process->program == RIG_REDIS) {
        fixture_redis_start(fixture);
        process->pid = fixture->redis_pid;
        process->state = RIG_UP;
        return;
    }
    snprintf(path, sizeof path, "%s/%s", fixture->dir, process->log);
    if (process->log[0] != '\0')
        unlink(path); /* a thousand lives: only the last one's is kept */
    snprintf(process->log, sizeof process->log, "%s.%d.log", process->name, ++rig->starts);
    if (process->failpoint_log[0] != '\0')
        snprintf(log, sizeof log, "%s/%s", fixture->dir, process->failpoint_log);
    set_or_unset("ORCH_FAILPOINT", process->failpoint);
    set_or_unset("ORCH_FAILPOINT_LOG", log);
    process->pid = spawn(rig, process);
    set_or_unset("ORCH_FAILPOINT", "");
    set_or_unset("ORCH_FAILPOINT_LOG", "");
    process->state = RIG_STARTING;
}

static bool says_ready(struct rig *rig, const struct rig_process *process)
{
    return fixture_wait_text(&rig->testbed.fixture, process->log, "ready\n", -1);
}

static void print_log(struct rig *rig, const struct rig_process *process)
{
    struct buf text = {0};
    char path[192];
    snprintf(path, sizeof path, "%s/%s", rig->testbed.fixture.dir, process->log);
    if (fixture_read(path, &text) && text.len > 0) {
        size_t from = text.len > 2000 ? text.len - 2000 : 0;
        fprintf(stderr, "%s\n", text.data + from);
    }
    buf_release(&text);
}

/* --- a killed worker -------------------------------------------------------------------------- */

/* Responses without END in its spool: fed to the oracle once it is back in time. */
struct received {
    char task[TASK_ID_SIZE], sub[SUB_ID_MAX + 1], token[128];
    bool ended;
};

static void take_record(const struct spool_record *record, struct received **list, size_t *n)
{
    if (record->kind == SPOOL_RESPONSE) {
        *list = mem_must_realloc(*list, (*n + 1) * sizeof **list);
        struct received *received = &(*list)[(*n)++];
        *received = (struct received){.ended = false};
        snprintf(received->task, sizeof received->task, "%s", record->task);
        snprintf(received->sub, sizeof received->sub, "%s", record->sub);
        snprintf(received->token, sizeof received->token, "%s", record->token);
    }
    for (size_t i = 0; i < *n && record->kind == SPOOL_END; i++)
        if (strcmp((*list)[i].token, record->token) == 0)
            (*list)[i].ended = true;
}

static void note_received(struct rig *rig, const struct rig_process *process)
{
    char path[192];
    struct buf bytes = {0};
    struct received *list = NULL;
    size_t n = 0, at = 0;
    snprintf(path, sizeof path, "%s/spool/%s.spool", rig->testbed.fixture.dir, process->name);
    if (fixture_read(path, &bytes))
        while (at < bytes.len) {
            struct spool_record record;
            ssize_t len = spool_record_decode(&record, bytes.data + at, bytes.len - at);
            if (len <= 0)
                break;
            take_record(&record, &list, &n);
            at += (size_t)len;
        }
    for (size_t i = 0; i < n; i++)
        if (!list[i].ended)
            oracle_received(rig->oracle, list[i].task, list[i].sub, clock_wall_ms());
    free(list);
    buf_release(&bytes);
}

/* --- killing and stopping --------------------------------------------------------------------- */

static void ended(struct rig *rig, struct rig_process *process)
{
    process->state = RIG_DOWN;
    process->pid = 0;
    if (process->down_ms == 0)
        process->down_ms = clock_wall_ms();
    int64_t now = clock_wall_ms();
    bool calm =
        rig->redis_disturbed_ms == 0 || now - rig->redis_disturbed_ms > 3 * rig->options.lease_ms;
    if (process->program == RIG_WORKER && !process->was_stopped && !process->held_down && calm)
        note_received(rig, process);
}

void rig_kill(struct rig *rig, struct rig_process *process)
{
    if (process->state == RIG_DOWN)
        return;
    rig->kills[process->program]++;
    process->was_killed = true;
    process->continue_ms = 0;
    if (process->program == RIG_REDIS)
        fixture_redis_kill(&rig->testbed.fixture, SIGKILL);
    else
        fixture_kill(&rig->testbed.fixture, process->pid, SIGKILL);
    ended(rig, process);
}

void rig_stop(struct rig *rig, struct rig_process *process, int64_t for_ms)
{
    if (process->state != RIG_UP)
        return;
    rig->stops[process->program]++;
    kill(process->pid, SIGSTOP);
    process->state = RIG_STOPPED;
    process->was_stopped = true;
    process->stopped_ms = clock_wall_ms();
    process->continue_ms = clock_ms() + for_ms;
}

/* An attempt may be given up for a while after a pause. */
static void continued(struct rig *rig, struct rig_process *process)
{
    int64_t now = clock_wall_ms();
    kill(process->pid, SIGCONT);
    process->state = process->was_starting ? RIG_STARTING : RIG_UP;
    process->was_starting = false;
    process->continue_ms = 0;
    if (process->program == RIG_REDIS) {
        oracle_fault(rig->oracle, NULL, process->stopped_ms, now + rig->options.lease_ms);
        rig->redis_disturbed_ms = now;
    } else if (process->program == RIG_WORKER) {
        oracle_fault(rig->oracle, process->name, process->stopped_ms, now + 1000);
    }
}

int rig_end(struct rig *rig, struct rig_process *process, int64_t timeout_ms)
{
    process->held_down = true;
    kill(process->pid, SIGTERM);
    int status = fixture_wait_exit(&rig->testbed.fixture, process->pid, timeout_ms);
    if (status < 0)
        fixture_kill(&rig->testbed.fixture, process->pid, SIGKILL);
    process->state = RIG_DOWN;
    process->pid = 0;
    return status;
}

/* --- a turn ----------------------------------------------------------------------------------- */

/* It has ended by itself: by a failpoint, or by a fault of its own. */
static void reap(struct rig *rig, struct rig_process *process)
{
    if (process->pid == 0 || process->program == RIG_REDIS)
        return;
    int status = fixture_wait_exit(&rig->testbed.fixture, process->pid, 0);
    if (status < 0)
        return;
    if (status == 128 + SIGKILL && process->armed) {
        rig->kills[process->program]++;
    } else {
        rig->surprises++;
        fprintf(stderr, "chaos: %s ended by itself with status %d; its log:\n", process->name,
                status);
        print_log(rig, process);
    }
    ended(rig, process);
}

static void became_ready(struct rig *rig, struct rig_process *process)
{
    process->state = RIG_UP;
    process->ready_after_ms = clock_ms() - process->started_ms;
    if (process->program == RIG_WORKER && process->down_ms > 0)
        oracle_fault(rig->oracle, process->name, process->down_ms, clock_wall_ms());
    process->down_ms = 0;
}

/* Whether a failpoint has stopped it. */
static bool has_stopped(const struct rig_process *process)
{
    char path[64];
    struct buf text = {0};
    snprintf(path, sizeof path, "/proc/%d/stat", (int)process->pid);
    const char *state = fixture_read(path, &text) && text.len > 0 ? strrchr(text.data, ')') : NULL;
    bool stopped = state != NULL && strncmp(state, ") T", 3) == 0;
    buf_release(&text);
    return stopped;
}

static void look_after(struct rig *rig, struct rig_process *process)
{
    reap(rig, process);
    if (process->armed && process->pid != 0 && strstr(process->failpoint, ":stop") != NULL &&
        has_stopped(process)) {
        process->armed = false;
        process->was_starting = process->state == RIG_STARTING;
        process->state = RIG_UP;
        rig_stop(rig, process, rig->options.lease_ms + 1000);
    }
    if (process->state == RIG_STOPPED && clock_ms() >= process->continue_ms)
        continued(rig, process);
    if (process->state == RIG_DOWN && !process->held_down && !process->rests)
        start(rig, process);
    if (process->state == RIG_STARTING && says_ready(rig, process))
        became_ready(rig, process);
    if (process->program != RIG_REDIS || process->state != RIG_UP || process->down_ms == 0)
        return;
    int64_t now = clock_wall_ms();
    if (now - process->down_ms > AWAY_MS(rig)) {
        oracle_fault(rig->oracle, NULL, process->down_ms, now + rig->options.lease_ms);
        rig->redis_disturbed_ms = now;
    }
    process->down_ms = 0;
}

/* Reads "<<task/sub>>"; false when there is none at `at`. */
static bool read_mark(struct rig_call *call, const char *at)
{
    if (at == NULL)
        return false;
    size_t len = strcspn(at += 2, "/>");
    size_t sub_len = at[len] == '/' ? strcspn(at + len + 1, ">") : 0;
    snprintf(call->task, sizeof call->task, "%.*s", (int)len, at);
    snprintf(call->sub, sizeof call->sub, "%.*s", (int)sub_len, at + len + 1);
    return true;
}

/* Whose call it is. A prompt begins with its own mark or, where it is of a plan, with that of the
 * whole task, <<task/?>>, behind which the subtask's own comes last; a synthesis has none. */
static void read_marks(struct rig_call *call, const char *prompt)
{
    const char *last = NULL;
    if (!read_mark(call, strstr(prompt, "<<")) || strcmp(call->sub, "?") != 0)
        return;
    for (const char *at = prompt; (at = strstr(at, "<<")) != NULL; at += 2)
        last = at;
    read_mark(call, last);
    if (strcmp(call->sub, "?") == 0)
        snprintf(call->sub, sizeof call->sub, "_synthesis");
}

static void take_call(struct rig *rig, const json_t *entry)
{
    size_t seq = (size_t)json_int(entry, "seq", 0);
    const char *outcome = json_str(entry, "outcome", "");
    if (seq == 0 || seq > rig->n_calls + 100000)
        return;
    if (seq > rig->n_calls) {
        rig->calls = mem_must_realloc(rig->calls, (seq + 1) * sizeof *rig->calls);
        memset(rig->calls + rig->n_calls + 1, 0, (seq - rig->n_calls) * sizeof *rig->calls);
        rig->n_calls = seq;
    }
    struct rig_call *call = &rig->calls[seq];
    call->running = strcmp(outcome, "running") == 0;
    call->time_ms = json_int(entry, "time_ms", 0);
    call->end = strcmp(outcome, "completed") == 0 ? ORACLE_CALL_COMPLETED
                : strcmp(outcome, "fault") == 0   ? ORACLE_CALL_FAULT
                                                  : ORACLE_CALL_CUT;
    read_marks(call, json_str(entry, "prompt", ""));
}

static void read_journal(struct rig *rig)
{
    char what[64];
    snprintf(what, sizeof what, "requests?after=%zu", rig->settled);
    json_t *entries = testbed_sim(&rig->testbed, what);
    size_t i;
    json_t *entry;
    json_array_foreach (entries, i, entry)
        take_call(rig, entry);
    json_decref(entries);
    while (rig->settled < rig->n_calls && !rig->calls[rig->settled + 1].running)
        rig->settled++;
}

void rig_turn(struct rig *rig)
{
    bool never = false;
    loop_run_until(&rig->loop, &never, TURN_MS);
    for (size_t i = 0; i < rig->n_processes; i++)
        look_after(rig, &rig->processes[i]);
    if (clock_ms() - rig->journal_ms >= JOURNAL_MS) {
        rig->journal_ms = clock_ms();
        read_journal(rig);
    }
}

bool rig_wait(struct rig *rig, bool (*fn)(void *ctx), void *ctx, int64_t timeout_ms)
{
    int64_t end = clock_ms() + timeout_ms;
    while (!fn(ctx)) {
        if (clock_ms() > end || rig_interrupted())
            return false;
        rig_turn(rig);
    }
    return true;
}

bool rig_all_up(void *ctx)
{
    const struct rig *rig = ctx;
    for (size_t i = 0; i < rig->n_processes; i++)
        if (rig->processes[i].state != RIG_UP && !rig->processes[i].held_down)
            return false;
    return true;
}

/* --- opening and closing ---------------------------------------------------------------------- */

static void add_process(struct rig *rig, enum rig_program program, int index, const char *name)
{
    struct rig_process *process = &rig->processes[rig->n_processes++];
    *process = (struct rig_process){.program = program, .index = index, .state = RIG_DOWN};
    snprintf(process->name, sizeof process->name, "%s", name);
}

static void add_processes(struct rig *rig)
{
    static const char *const prefixes[] = {
        [RIG_WORKER] = "w", [RIG_BROKER] = "b", [RIG_DAEMON] = "d"};
    const int counts[] = {[RIG_WORKER] = rig->options.workers,
                          [RIG_BROKER] = rig->options.brokers,
                          [RIG_DAEMON] = rig->options.daemons};
    add_process(rig, RIG_REDIS, 0, "redis-server");
    rig->processes[0].state = RIG_UP;
    rig->processes[0].pid = rig->testbed.fixture.redis_pid;
    for (int program = 0; program < RIG_REDIS; program++)
        for (int i = 0; i < counts[program]; i++) {
            char name[RIG_NAME];
            snprintf(name, sizeof name, "%s%d", prefixes[program], i);
            add_process(rig, (enum rig_program)program, i, name);
        }
}

static void write_config(struct rig *rig)
{
    const struct rig_options *options = &rig->options;
    struct fixture *fixture = &rig->testbed.fixture;
    struct buf yaml = {0};
    buf_printf(&yaml, "redis: unix://%s\nbus: {brokers: [", fixture->redis_socket);
    for (int i = 0; i < options->brokers; i++)
        buf_printf(&yaml, "%s\"ipc://%s/b%d\"", i > 0 ? ", " : "", fixture->dir, i);
    buf_printf(&yaml,
               "]}\nproviders:\n"
               "  sim: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\"}\n"
               "models:\n  m: {provider: sim, name: m, local: true}\n"
               "roles:\n  general: {models: [m]}\n"
               "queue: {lease_ms: %d, renew_ms: %d, abandon_ms: %d, retain_s: 100000}\n"
               "workers:\n",
               rig->testbed.sim_port, options->lease_ms, options->lease_ms / 10,
               options->lease_ms * 2 / 3);
    for (int i = 0; i < options->workers; i++)
        buf_printf(&yaml, "  - {name: w%d, provider: sim, concurrency: %d}\n", i,
                   options->concurrency);
    snprintf(rig->testbed.config, sizeof rig->testbed.config, "%s",
             fixture_write(fixture, "chaos.yaml", yaml.data));
    buf_release(&yaml);
}

int rig_open(struct rig *rig, const struct rig_options *options)
{
    struct err err = {0};
    *rig = (struct rig){.options = *options};
    if (rig->options.lease_ms == 0)
        rig->options.lease_ms = RIG_LEASE_MS;
    rig->oracle = oracle_new();
    rig->calls = mem_must_zalloc(sizeof *rig->calls);
    struct buf scenario = {0};
    load_scenario(&scenario, rig->options.seed, rig->options.scenario);
    testbed_init(&rig->testbed, "", scenario.data);
    buf_release(&scenario);
    loop_init(&rig->loop);
    write_config(rig);
    struct redis_options redis = fixture_redis_options(&rig->testbed.fixture);
    if (queue_open(&rig->queue, &rig->loop, &redis, NULL, NULL, &err) != 0) {
        fprintf(stderr, "chaos: %s\n", err.text);
        return -1;
    }
    add_processes(rig);
    if (rig_wait(rig, rig_all_up, rig, READY_MS))
        return 0;
    for (size_t i = 0; i < rig->n_processes; i++)
        if (rig->processes[i].state != RIG_UP && !rig_interrupted()) {
            fprintf(stderr, "chaos: %s is not ready; its log:\n", rig->processes[i].name);
            print_log(rig, &rig->processes[i]);
        }
    return -1;
}

void rig_close(struct rig *rig)
{
    for (size_t i = 0; i < rig->n_processes; i++)
        if (rig->processes[i].state == RIG_STOPPED)
            kill(rig->processes[i].pid, SIGCONT);
    if (rig->queue != NULL)
        queue_close(&rig->queue);
    loop_finish(&rig->loop);
    oracle_free(&rig->oracle);
    free(rig->calls);
    testbed_release(&rig->testbed);
}

void rig_status(struct rig *rig)
{
    struct buf text = {0};
    fixture_run(&rig->testbed.fixture,
                (const char *[]){"orchestrator", "status", "--config", rig->testbed.config, NULL},
                &text, &text);
    fprintf(stderr, "%s", text.data != NULL ? text.data : "");
    for (size_t i = 0; i < rig->n_processes; i++)
        if (rig->processes[i].log[0] != '\0') {
            fprintf(stderr, "chaos: the log of %s:\n", rig->processes[i].name);
            print_log(rig, &rig->processes[i]);
        }
    buf_release(&text);
}
