#include "workers/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "schemas/mem.h"
#include "workers/gpu.h"

#define PROBE_MS 250          /* between two looks at a runtime that starts */
#define WATCH_MS 5000         /* at one that is healthy */
#define PROBE_TIMEOUT_MS 5000 /* a look without an answer has failed */
#define PROBES_MISSED 3       /* in a row: not healthy any more */
#define BACKOFF_FIRST_MS 500
#define BACKOFF_MAX_MS 30000
#define STEADY_MS 60000 /* who ran so long starts over with the first backoff */
#define STOP_MS 5000

struct runtime {
    struct runtime_options options;
    runtime_health_fn *health;
    void *ctx;
    char **argv; /* ends with NULL; the words are borrowed */
    pid_t pid;   /* 0: does not run */
    uv_signal_t *child;
    struct loop_timer *timer; /* next look, or next start */
    struct http_call *probe;
    int64_t probed_ms, started_ms, backoff_ms;
    int probe_status; /* 0: no answer */
    int missed;
    bool healthy;
};

static void set_health(struct runtime *runtime, bool healthy)
{
    if (runtime->healthy == healthy)
        return;
    runtime->healthy = healthy;
    log_info("runtime of %s is %s", runtime->options.name, healthy ? "healthy" : "not healthy");
    runtime->health(runtime->ctx, healthy);
}

/* --- the process -------------------------------------------------------------------------------
 */

/* Runs in the child between fork and exec: only calls that are safe there. */
static void child_run(const struct runtime *runtime, int log_fd, pid_t parent,
                      const cpu_set_t *cpus, char *const *environment, int report_fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    if (cpus != NULL)
        sched_setaffinity(0, sizeof *cpus, cpus);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    execvpe(runtime->argv[0], runtime->argv, environment);
    int error = errno;
    if (write(report_fd, &error, sizeof error) < 0)
        _exit(126);
    _exit(127);
}

/* The environment with the GPU chosen; the array is the caller's, and so is its first string. */
static char **environment_new(const char *gpu)
{
    size_t n = 0;
    while (environ[n] != NULL)
        n++;
    char **copy = mem_must_zalloc((n + 3) * sizeof *copy);
    size_t used = 0;
    if (gpu != NULL) {
        static char order[] = "CUDA_DEVICE_ORDER=PCI_BUS_ID";
        copy[used++] = mem_must_printf("CUDA_VISIBLE_DEVICES=%s", gpu);
        copy[used++] = order;
    }
    for (size_t i = 0; i < n; i++)
        if (gpu == NULL || (strncmp(environ[i], "CUDA_VISIBLE_DEVICES=", 21) != 0 &&
                            strncmp(environ[i], "CUDA_DEVICE_ORDER=", 18) != 0))
            copy[used++] = environ[i];
    return copy;
}

/* fork and exec; 0 or what exec said. */
static int process_start(struct runtime *runtime)
{
    const struct runtime_options *options = &runtime->options;
    cpu_set_t cpus;
    bool pinned = options->gpu != NULL && gpu_cpus(&cpus, "", options->gpu) == 0;
    int report[2], error = 0;
    int log_fd = open(options->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return -errno;
    if (pipe2(report, O_CLOEXEC) != 0) {
        error = errno;
        close(log_fd);
        return -error;
    }
    char **environment = environment_new(options->gpu);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        child_run(runtime, log_fd, parent, pinned ? &cpus : NULL, environment, report[1]);
    if (pid < 0)
        error = errno;
    close(report[1]);
    close(log_fd);
    if (pid > 0 && read(report[0], &error, sizeof error) > 0) /* exec succeeded: end of file */
        waitpid(pid, NULL, 0);
    close(report[0]);
    if (options->gpu != NULL)
        free(environment[0]);
    free(environment);
    if (error == 0)
        runtime->pid = pid;
    return -error;
}

static void runtime_start(struct runtime *runtime)
{
    int rc = process_start(runtime);
    runtime->started_ms = clock_ms();
    runtime->missed = 0;
    if (rc != 0) {
        log_error("runtime of %s cannot be started: %s: %s", runtime->options.name,
                  runtime->argv[0], strerror(-rc));
        loop_timer_start(runtime->timer, BACKOFF_MAX_MS, 0);
        return;
    }
    log_info("runtime of %s started: %s, process %d", runtime->options.name, runtime->argv[0],
             (int)runtime->pid);
    loop_timer_start(runtime->timer, 0, 0);
}

static void process_ended(struct runtime *runtime, int status)
{
    if (WIFSIGNALED(status))
        log_error("runtime of %s was ended by signal %d; its output is in %s",
                  runtime->options.name, WTERMSIG(status), runtime->options.log);
    else
        log_error("runtime of %s ended with status %d; its output is in %s", runtime->options.name,
                  WEXITSTATUS(status), runtime->options.log);
    kill(-runtime->pid, SIGKILL); /* what it left behind */
    runtime->pid = 0;
    http_cancel(&runtime->probe);
    if (clock_ms() - runtime->started_ms >= STEADY_MS)
        runtime->backoff_ms = runtime->options.first_backoff_ms;
    loop_timer_start(runtime->timer, runtime->backoff_ms, 0);
    runtime->backoff_ms =
        runtime->backoff_ms * 2 < BACKOFF_MAX_MS ? runtime->backoff_ms * 2 : BACKOFF_MAX_MS;
    set_health(runtime, false);
}

static void child_changed(uv_signal_t *handle, int signal_number)
{
    (void)signal_number;
    struct runtime *runtime = handle->data;
    int status;
    if (runtime->pid > 0 && waitpid(runtime->pid, &status, WNOHANG) == runtime->pid)
        process_ended(runtime, status);
}

/* --- health ------------------------------------------------------------------------------------
 */

static void probed(struct runtime *runtime, bool good)
{
    runtime->missed = good ? 0 : runtime->missed + 1;
    if (good)
        set_health(runtime, true);
    else if (runtime->missed >= PROBES_MISSED)
        set_health(runtime, false);
    loop_timer_start(runtime->timer, runtime->healthy && good ? WATCH_MS : PROBE_MS, 0);
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
    (void)end, (void)why;
    struct runtime *runtime = ctx;
    runtime->probe = NULL;
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
        loop_timer_start(runtime->timer, PROBE_TIMEOUT_MS, 0);
        return;
    }
    log_error("health of the runtime of %s: %s", runtime->options.name, err.text);
    probed(runtime, false);
}

static void timer_due(void *ctx)
{
    struct runtime *runtime = ctx;
    if (runtime->pid == 0) {
        runtime_start(runtime);
    } else if (runtime->options.health == NULL) {
        set_health(runtime, true);
    } else if (runtime->probe != NULL) {
        http_cancel(&runtime->probe);
        probed(runtime, false);
    } else {
        probe_start(runtime);
    }
}

/* --- the interface ------------------------------------------------------------------------------
 */

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

int runtime_open(struct runtime **ret, const struct runtime_options *options,
                 runtime_health_fn *health, void *ctx, struct err *err)
{
    struct runtime *runtime = mem_must_zalloc(sizeof *runtime);
    *runtime = (struct runtime){.options = *options, .health = health, .ctx = ctx};
    if (runtime->options.first_backoff_ms <= 0)
        runtime->options.first_backoff_ms = BACKOFF_FIRST_MS;
    runtime->backoff_ms = runtime->options.first_backoff_ms;
    runtime->argv = mem_must_zalloc((options->n_argv + 1) * sizeof *runtime->argv);
    for (size_t i = 0; i < options->n_argv; i++)
        runtime->argv[i] = options->argv[i];
    runtime->timer = loop_timer_new(options->loop, timer_due, runtime);
    runtime->child = mem_must_zalloc(sizeof *runtime->child);
    uv_signal_init(options->loop, runtime->child);
    runtime->child->data = runtime;
    uv_signal_start(runtime->child, child_changed, SIGCHLD); /* before it can end */
    int rc = process_start(runtime);
    if (rc != 0) {
        err_set(err, rc, "the runtime of %s cannot be started: %s: %s; check its launch: line",
                options->name, runtime->argv[0], strerror(-rc));
        runtime_free(runtime);
        return rc;
    }
    log_info("runtime of %s started: %s, process %d", options->name, runtime->argv[0],
             (int)runtime->pid);
    runtime->started_ms = clock_ms();
    loop_timer_start(runtime->timer, 0, 0);
    *ret = runtime;
    return 0;
}

bool runtime_healthy(const struct runtime *runtime)
{
    return runtime->healthy;
}

void runtime_close(struct runtime **runtime_ptr)
{
    struct runtime *runtime = *runtime_ptr;
    *runtime_ptr = NULL;
    if (runtime == NULL)
        return;
    http_cancel(&runtime->probe);
    if (runtime->pid > 0) {
        int64_t deadline_ms = clock_ms() + STOP_MS;
        kill(-runtime->pid, SIGTERM);
        while (waitpid(runtime->pid, NULL, WNOHANG) == 0 && clock_ms() < deadline_ms)
            poll(NULL, 0, 10);
        kill(-runtime->pid, SIGKILL);
        waitpid(runtime->pid, NULL, 0); /* -ECHILD when it is reaped already */
    }
    runtime_free(runtime);
}
