#include "workers/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "schemas/mem.h"
#include "workers/process_group.h"
#include "workers/utf8.h"

#define PROBE_MS 250    /* between two looks at a runtime that starts */
#define WATCH_MS 5000   /* at most, at one that is healthy; a look that takes longer has failed */
#define PROBES_MISSED 3 /* in a row: not healthy any more */
#define NEWS_MS 5000    /* between two reports of its loading */
#define BACKOFF_FIRST_MS 500
#define BACKOFF_MAX_MS 30000
#define START_MS 600000
#define HANG_MS 60000
#define DRAIN_MAX_MS 60000 /* a restart for its memory waits so long for calls to end */
#define STEADY_MS 60000    /* who ran so long starts over with the first backoff */
#define STOP_MS 5000

/* What the timer is for. */
enum runtime_state {
    RUNTIME_WAITING,  /* for the next start */
    RUNTIME_CHECKING, /* whether something else answers at its URL */
    RUNTIME_LOADING,  /* runs, not yet healthy */
    RUNTIME_SERVING,  /* was healthy since its start */
    RUNTIME_DRAINING, /* to be restarted once no call is under way */
};

struct runtime {
    struct runtime_options options;
    runtime_health_fn *health;
    void *ctx;
    char **argv; /* ends with NULL; the words are borrowed */
    enum runtime_state state;
    struct process_group group; /* all zero: does not run */
    uv_signal_t *child;
    struct loop_timer *timer;
    struct http_call *probe;
    int64_t started_ms, backoff_ms;
    int64_t well_ms; /* last good answer */
    int64_t told_ms; /* last news of loading */
    int64_t load_ms, drained_ms, memory_bytes;
    off_t log_at;     /* size of the log at the start: what follows is this process's */
    int probe_status; /* 0: no answer */
    int missed;
    bool healthy;
};

static void tell(struct runtime *runtime, const char *what, const char *text)
{
    if (runtime->options.news != NULL)
        runtime->options.news(runtime->ctx, what, text);
}

static void set_health(struct runtime *runtime, bool healthy)
{
    if (runtime->healthy == healthy)
        return;
    runtime->healthy = healthy;
    log_info("runtime of %s is %s", runtime->options.name, healthy ? "healthy" : "not healthy");
    runtime->health(runtime->ctx, healthy);
}

/* The last line that this start of the runtime has written, "" when there is none. */
static void last_words(const struct runtime *runtime, char *out, size_t size)
{
    char tail[1024];
    out[0] = '\0';
    int fd = open(runtime->options.log, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    off_t end = lseek(fd, 0, SEEK_END);
    off_t from =
        end - (off_t)sizeof tail > runtime->log_at ? end - (off_t)sizeof tail : runtime->log_at;
    ssize_t len = end > from ? pread(fd, tail, (size_t)(end - from), from) : 0;
    close(fd);
    while (len > 0 && (unsigned char)tail[len - 1] <= ' ')
        len--;
    ssize_t start = len;
    while (start > 0 && tail[start - 1] != '\n')
        start--;
    if (len > start)
        utf8_excerpt(out, size, tail + start, (size_t)(len - start));
}

/* --- the process ------------------------------------------------------------------------------ */

static void wait_longer(struct runtime *runtime)
{
    runtime->state = RUNTIME_WAITING;
    loop_timer_start(runtime->timer, runtime->backoff_ms, 0);
    runtime->backoff_ms =
        runtime->backoff_ms * 2 < BACKOFF_MAX_MS ? runtime->backoff_ms * 2 : BACKOFF_MAX_MS;
}

static int start_process(struct runtime *runtime)
{
    const struct runtime_options *options = &runtime->options;
    struct stat stat_of_log;
    runtime->log_at = stat(options->log, &stat_of_log) == 0 ? stat_of_log.st_size : 0;
    struct process_options process = {.argv = runtime->argv,
                                      .gpu = options->gpu,
                                      .root = options->root,
                                      .log = options->log,
                                      .hidden = options->hidden,
                                      .n_hidden = options->n_hidden};
    int rc = process_group_start(&runtime->group, &process);
    runtime->started_ms = runtime->well_ms = runtime->told_ms = clock_ms();
    runtime->missed = 0;
    runtime->load_ms = -1;
    if (rc != 0)
        return rc;
    log_info("runtime of %s started: %s, process %d", options->name, runtime->argv[0],
             (int)runtime->group.leader);
    tell(runtime, "loading", "started");
    runtime->state = RUNTIME_LOADING;
    loop_timer_start(runtime->timer, 0, 0);
    return 0;
}

static void start_again(struct runtime *runtime)
{
    int rc = start_process(runtime);
    if (rc == 0)
        return;
    log_error("runtime of %s cannot be started: %s: %s", runtime->options.name, runtime->argv[0],
              strerror(-rc));
    wait_longer(runtime);
}

static void process_ended(struct runtime *runtime, int status)
{
    char words[256], text[512];
    last_words(runtime, words, sizeof words);
    if (WIFSIGNALED(status))
        snprintf(text, sizeof text, "the runtime was ended by signal %d", WTERMSIG(status));
    else
        snprintf(text, sizeof text, "the runtime ended with status %d", WEXITSTATUS(status));
    http_cancel(&runtime->probe);
    if (clock_ms() - runtime->started_ms >= STEADY_MS)
        runtime->backoff_ms = runtime->options.first_backoff_ms;
    size_t len = strlen(text);
    snprintf(text + len, sizeof text - len, "%s%s; started again in %.1f s",
             words[0] != '\0' ? ", last saying: " : "", words, (double)runtime->backoff_ms / 1000);
    log_error("%s: %s; its output is in %s", runtime->options.name, text, runtime->options.log);
    wait_longer(runtime);
    set_health(runtime, false);
    tell(runtime, "note", text);
}

static void child_changed(uv_signal_t *handle, int signal_number)
{
    (void)signal_number;
    struct runtime *runtime = handle->data;
    int status;
    if (process_group_ended(&runtime->group, &status))
        process_ended(runtime, status);
}

/* Its end comes as any other: by the signal. */
static void end_process(struct runtime *runtime, const char *why)
{
    log_error("runtime of %s %s: it is ended and started again; its output is in %s",
              runtime->options.name, why, runtime->options.log);
    tell(runtime, "note", why);
    set_health(runtime, false);
    process_group_kill(&runtime->group);
    loop_timer_stop(runtime->timer);
}

/* --- health ----------------------------------------------------------------------------------- */

static void describe_load(const struct runtime *runtime, char *out, size_t size)
{
    snprintf(out, size, "healthy after %.1f s", (double)runtime->load_ms / 1000);
}

static void became_well(struct runtime *runtime)
{
    char text[96];
    if (runtime->state == RUNTIME_LOADING) {
        runtime->load_ms = clock_ms() - runtime->started_ms;
        runtime->state = RUNTIME_SERVING;
        describe_load(runtime, text, sizeof text);
        tell(runtime, "warm", text);
    }
    set_health(runtime, true);
}

static void tell_loading(struct runtime *runtime, int64_t now_ms)
{
    char words[256], text[320];
    if (runtime->state != RUNTIME_LOADING || now_ms - runtime->told_ms < NEWS_MS)
        return;
    runtime->told_ms = now_ms;
    last_words(runtime, words, sizeof words);
    snprintf(text, sizeof text, "%lld s%s%s", (long long)(now_ms - runtime->started_ms) / 1000,
             words[0] != '\0' ? ": " : "", words);
    log_info("runtime of %s loads: %s", runtime->options.name, text);
    tell(runtime, "loading", text);
}

/* Whether it has been silent for longer than it may. */
static bool is_given_up(struct runtime *runtime, int64_t now_ms)
{
    bool loading = runtime->state == RUNTIME_LOADING;
    int64_t limit_ms = loading ? runtime->options.start_ms : runtime->options.hang_ms;
    char why[128];
    if (now_ms - runtime->well_ms < limit_ms)
        return false;
    snprintf(why, sizeof why,
             loading ? "is not healthy %lld ms after its start" : "has not answered for %lld ms",
             (long long)limit_ms);
    end_process(runtime, why);
    return true;
}

static void watch_memory(struct runtime *runtime)
{
    char text[160];
    runtime->memory_bytes = process_group_memory(&runtime->group);
    if (runtime->options.memory_max_bytes == 0 || runtime->state != RUNTIME_SERVING ||
        runtime->memory_bytes <= runtime->options.memory_max_bytes)
        return;
    snprintf(text, sizeof text, "uses %lld MiB of memory, more than %lld",
             (long long)runtime->memory_bytes >> 20,
             (long long)runtime->options.memory_max_bytes >> 20);
    log_warn("runtime of %s %s: it is started again once it is idle", runtime->options.name, text);
    tell(runtime, "note", text);
    runtime->state = RUNTIME_DRAINING;
    runtime->drained_ms = clock_ms();
    set_health(runtime, false); /* no more calls */
}

static void probed(struct runtime *runtime, bool good)
{
    int64_t now_ms = clock_ms();
    runtime->missed = good ? 0 : runtime->missed + 1;
    if (good) {
        runtime->well_ms = now_ms;
        became_well(runtime);
    } else if (runtime->missed >= PROBES_MISSED) {
        set_health(runtime, false);
    }
    if (is_given_up(runtime, now_ms))
        return;
    tell_loading(runtime, now_ms);
    if (good)
        watch_memory(runtime);
    loop_timer_start(runtime->timer,
                     runtime->healthy && good ? runtime->options.watch_ms : PROBE_MS, 0);
}

/* Answered by someone before it was started: not by it. */
static void checked(struct runtime *runtime, bool taken)
{
    char text[512];
    if (!taken) {
        start_again(runtime);
        return;
    }
    snprintf(text, sizeof text,
             "something else answers at %.200s already: end it, or give the runtime another port",
             runtime->options.health);
    log_error("runtime of %s is not started: %s", runtime->options.name, text);
    tell(runtime, "note", text);
    wait_longer(runtime);
}

static bool probe_head(void *ctx, int status, const struct http_headers *headers)
{
    (void)headers;
    struct runtime *runtime = ctx;
    runtime->probe_status = status;
    return false; /* the body does not matter */
}

static bool probe_body(void *ctx, const char *data, size_t len)
{
    (void)ctx, (void)data, (void)len;
    return false;
}

static void probe_done(void *ctx, enum http_end end, const char *why)
{
    (void)why;
    struct runtime *runtime = ctx;
    runtime->probe = NULL;
    if (runtime->state == RUNTIME_CHECKING)
        checked(runtime, end != HTTP_END_CONNECT);
    else
        probed(runtime, runtime->probe_status >= 200 && runtime->probe_status < 300);
}

static void probe_start(struct runtime *runtime)
{
    static const struct http_callbacks callbacks = {probe_head, probe_body, probe_done};
    struct buf none = {0};
    struct err err = {0};
    runtime->probe_status = 0;
    int rc = http_start(&runtime->probe, runtime->options.http, runtime->options.health, "", &none,
                        &callbacks, runtime, &err);
    if (rc == 0) {
        loop_timer_start(runtime->timer, runtime->options.watch_ms, 0);
        return;
    }
    log_error("health of the runtime of %s: %s", runtime->options.name, err.text);
    if (runtime->state == RUNTIME_CHECKING)
        checked(runtime, false);
    else
        probed(runtime, false);
}

static void drain(struct runtime *runtime)
{
    bool busy = runtime->options.busy != NULL && runtime->options.busy(runtime->ctx);
    if (busy && clock_ms() - runtime->drained_ms < DRAIN_MAX_MS)
        loop_timer_start(runtime->timer, PROBE_MS, 0);
    else
        end_process(runtime, "used too much memory");
}

static void timer_due(void *ctx)
{
    struct runtime *runtime = ctx;
    if (runtime->state == RUNTIME_DRAINING) {
        drain(runtime);
    } else if (runtime->state == RUNTIME_WAITING && runtime->options.health == NULL) {
        start_again(runtime);
    } else if (runtime->options.health == NULL) {
        became_well(runtime);
        watch_memory(runtime);
        loop_timer_start(runtime->timer, runtime->options.watch_ms, 0);
    } else if (runtime->probe != NULL) { /* it took too long */
        http_cancel(&runtime->probe);
        if (runtime->state == RUNTIME_CHECKING)
            checked(runtime, true);
        else
            probed(runtime, false);
    } else {
        if (runtime->state == RUNTIME_WAITING)
            runtime->state = RUNTIME_CHECKING;
        probe_start(runtime);
    }
}

void runtime_tell(struct runtime *runtime)
{
    char text[96];
    int64_t now_ms = clock_ms();
    if (runtime->state == RUNTIME_LOADING) {
        runtime->told_ms = now_ms - NEWS_MS;
        tell_loading(runtime, now_ms);
    } else if (runtime->state == RUNTIME_SERVING) {
        describe_load(runtime, text, sizeof text);
        tell(runtime, "warm", text);
    }
}

/* --- the interface ---------------------------------------------------------------------------- */

static void child_closed(uv_handle_t *handle)
{
    free(handle);
}

static void runtime_free(struct runtime *runtime)
{
    loop_timer_free(&runtime->timer);
    if (runtime->child != NULL)
        uv_close((uv_handle_t *)runtime->child, child_closed);
    free(runtime->argv);
    free(runtime);
}

static int64_t or_default(int64_t value, int64_t fallback)
{
    return value > 0 ? value : fallback;
}

/* Often enough to see in time that it hangs. */
static int64_t watch_often(const struct runtime *runtime)
{
    int64_t quarter_ms = runtime->options.hang_ms / 4;
    if (quarter_ms > WATCH_MS)
        return WATCH_MS;
    return quarter_ms > PROBE_MS ? quarter_ms : PROBE_MS;
}

/* Whether the command can be run at all, which is better told at once than with each attempt. */
static int find_command(const char *command)
{
    char path[4096];
    const char *search = getenv("PATH");
    if (strchr(command, '/') != NULL)
        return access(command, X_OK) == 0 ? 0 : -errno;
    while (search != NULL && *search != '\0') {
        size_t len = strcspn(search, ":");
        snprintf(path, sizeof path, "%.*s/%s", (int)len, search, command);
        if (access(path, X_OK) == 0)
            return 0;
        search += len + (search[len] == ':');
    }
    return -ENOENT;
}

int runtime_open(struct runtime **ret, const struct runtime_options *options,
                 runtime_health_fn *health, void *ctx, struct err *err)
{
    int rc = find_command(options->argv[0]);
    if (rc != 0)
        return err_set(err, rc,
                       "the runtime of %s cannot be started: %s: %s; check its launch: line",
                       options->name, options->argv[0], strerror(-rc));
    struct runtime *runtime = mem_must_zalloc(sizeof *runtime);
    *runtime = (struct runtime){.options = *options, .health = health, .ctx = ctx, .load_ms = -1};
    runtime->options.first_backoff_ms = or_default(options->first_backoff_ms, BACKOFF_FIRST_MS);
    runtime->options.start_ms = or_default(options->start_ms, START_MS);
    runtime->options.hang_ms = or_default(options->hang_ms, HANG_MS);
    runtime->options.watch_ms = or_default(options->watch_ms, watch_often(runtime));
    runtime->backoff_ms = runtime->options.first_backoff_ms;
    runtime->argv = mem_must_zalloc((options->n_argv + 1) * sizeof *runtime->argv);
    for (size_t i = 0; i < options->n_argv; i++)
        runtime->argv[i] = options->argv[i];
    runtime->timer = loop_timer_new(options->loop, timer_due, runtime);
    runtime->child = mem_must_zalloc(sizeof *runtime->child);
    uv_signal_init(options->loop, runtime->child);
    runtime->child->data = runtime;
    uv_signal_start(runtime->child, child_changed, SIGCHLD); /* before it can end */
    loop_timer_start(runtime->timer, 0, 0);
    *ret = runtime;
    return 0;
}

bool runtime_healthy(const struct runtime *runtime)
{
    return runtime->healthy;
}

int64_t runtime_load_ms(const struct runtime *runtime)
{
    return runtime->load_ms;
}

int64_t runtime_memory_bytes(const struct runtime *runtime)
{
    return runtime->memory_bytes;
}

void runtime_close(struct runtime **runtime_ptr)
{
    struct runtime *runtime = *runtime_ptr;
    *runtime_ptr = NULL;
    if (runtime == NULL)
        return;
    http_cancel(&runtime->probe);
    process_group_stop(&runtime->group, STOP_MS);
    runtime_free(runtime);
}
