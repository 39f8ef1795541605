/* The supervisor of the local stack; stack_client.c is the side that asks it. */
#include "orchestrator/stack.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/paths.h"
#include "orchestrator/command.h"
#include "orchestrator/stack_child.h"
#include "orchestrator/stack_control.h"
#include "orchestrator/stack_listen.h"
#include "orchestrator/stack_topology.h"
#include "schemas/mem.h"

#define NEEDED_MS 20000        /* redis, broker and daemon must be ready by then */
#define WORKERS_MS 5000        /* how long the rest may keep the stack from being called ready */
#define EARLIER_REDIS_MS 10000 /* for a redis-server whose supervisor was killed to end */
#define LOCK_WAIT_MS 2000      /* for a supervisor that is just ending */
#define IMMEDIATE_MS 1000      /* from the second SIGTERM to SIGKILL */
#define HOME_CHECK_MS 2000

enum stack_state {
    STACK_STARTING,
    STACK_READY,
    STACK_STOPPING,
};

struct stack {
    const struct config *config;
    uv_loop_t loop;
    uv_signal_t child_signal;
    struct stack_child **children;
    bool *settled; /* by child: ready once, or told to be given up waiting for */
    size_t n_children;
    struct stack_control *control;
    struct loop_timer *deadline; /* of starting, then of a phase of ending */
    struct loop_timer *home_check;
    enum stack_state state;
    int64_t started_ms, drain_ms;
    int phase;  /* of ending: kinds with this `ends` are asked to end */
    int urging; /* of the phase: 0 asked, 1 asked twice, 2 killed */
    int lock_fd, redis_lock_fd, ready_fd;
    int exit_code;
    bool done;
};

/* --- telling whoever waits ----------------------------------------------------------------- */

static void tell_line(struct stack *stack, const char *prefix, const char *line)
{
    if (stack->ready_fd >= 0)
        dprintf(stack->ready_fd, "%s%s\n", prefix, line);
}

/* The last word: "ready" or why not. */
static void tell_final(struct stack *stack, const char *line)
{
    tell_line(stack, "", line);
    stack_control_ready(stack->control, line);
    if (stack->ready_fd > STDERR_FILENO)
        close(stack->ready_fd);
    stack->ready_fd = -1;
}

/* --- ending -------------------------------------------------------------------------------- */

static void next_phase(struct stack *stack);

static bool phase_has(const struct stack *stack, size_t i)
{
    const struct stack_child *child = stack->children[i];
    return stack_kinds[stack_child_kind(child)].ends == stack->phase && stack_child_pid(child) != 0;
}

static void phase_signal(struct stack *stack, int signal_number)
{
    for (size_t i = 0; i < stack->n_children; i++)
        if (phase_has(stack, i))
            stack_child_stop(stack->children[i], signal_number);
}

/* The phase takes too long: ask again, which ends a worker at once, then kill. */
static void phase_late(void *ctx)
{
    struct stack *stack = ctx;
    stack->urging++;
    for (size_t i = 0; i < stack->n_children; i++)
        if (phase_has(stack, i))
            log_warn("%s did not end in time: %s", stack_child_name(stack->children[i]),
                     stack->urging == 1 ? "asking again" : "killing it");
    phase_signal(stack, stack->urging == 1 ? SIGTERM : SIGKILL);
    loop_timer_start(stack->deadline, IMMEDIATE_MS, 0);
}

static void next_phase(struct stack *stack)
{
    for (; stack->phase < STACK_KIND_COUNT; stack->phase++) {
        bool any = false;
        int64_t grace_ms = 0;
        for (size_t i = 0; i < stack->n_children; i++)
            if (phase_has(stack, i)) {
                any = true;
                grace_ms = stack_kinds[stack_child_kind(stack->children[i])].grace_ms;
            }
        if (!any)
            continue;
        stack->urging = 0;
        phase_signal(stack, SIGTERM);
        loop_timer_start(stack->deadline, stack->phase == 0 ? stack->drain_ms : grace_ms, 0);
        return;
    }
    stack->done = true;
    uv_stop(&stack->loop);
}

static void stop_all(struct stack *stack, int64_t drain_ms)
{
    if (stack->state == STACK_STOPPING) {
        /* A shorter limit counts from now. */
        if (stack->phase == 0 && stack->urging == 0 && drain_ms < stack->drain_ms) {
            stack->drain_ms = drain_ms;
            loop_timer_start(stack->deadline, drain_ms, 0);
        }
        return;
    }
    stack->state = STACK_STOPPING;
    stack->drain_ms = drain_ms;
    stack_control_ready(stack->control, "stopping");
    /* Signal 0: no end yet, but what dies now stays dead. */
    for (size_t i = 0; i < stack->n_children; i++)
        stack_child_stop(stack->children[i], 0);
    next_phase(stack);
}

static void child_ended(void *ctx, struct stack_child *child)
{
    struct stack *stack = ctx;
    log_info("%s ended", stack_child_name(child));
    for (size_t i = 0; i < stack->n_children; i++)
        if (phase_has(stack, i))
            return;
    if (stack->state == STACK_STOPPING)
        next_phase(stack);
}

/* --- starting ------------------------------------------------------------------------------ */

static void start_failed(struct stack *stack, const char *sentence)
{
    log_error("%s", sentence);
    tell_final(stack, sentence);
    stack->exit_code = EXIT_UNREACHABLE;
    stop_all(stack, 0);
}

static bool needed(const struct stack_child *child)
{
    return stack_kinds[stack_child_kind(child)].needed;
}

static void check_started(struct stack *stack)
{
    bool needed_ready = true, all_settled = true;
    for (size_t i = 0; i < stack->n_children; i++) {
        all_settled &= stack->settled[i];
        needed_ready &= stack->settled[i] || !needed(stack->children[i]);
    }
    if (stack->state != STACK_STARTING)
        return;
    if (all_settled) {
        stack->state = STACK_READY;
        loop_timer_stop(stack->deadline);
        log_info("ready after %lld ms", (long long)(clock_ms() - stack->started_ms));
        tell_final(stack, "ready");
    } else if (needed_ready) {
        loop_timer_start(stack->deadline, WORKERS_MS, 0);
    }
}

static size_t index_of(const struct stack *stack, const struct stack_child *child)
{
    size_t i = 0;
    while (stack->children[i] != child)
        i++;
    return i;
}

static void child_ready(void *ctx, struct stack_child *child)
{
    struct stack *stack = ctx;
    log_info("%s is ready (pid %d)", stack_child_name(child), (int)stack_child_pid(child));
    stack->settled[index_of(stack, child)] = true;
    check_started(stack);
}

static void child_failed(void *ctx, struct stack_child *child, const char *sentence)
{
    struct stack *stack = ctx;
    char what[1200];
    snprintf(what, sizeof what, "%s; its log is %s", sentence, stack_child_log(child));
    log_warn("%s: %s", stack_child_name(child), sentence);
    if (stack->state != STACK_STARTING || stack->settled[index_of(stack, child)])
        return;
    if (needed(child)) {
        start_failed(stack, what);
        return;
    }
    tell_line(stack, "warning: ", what);
    stack->settled[index_of(stack, child)] = true;
    check_started(stack);
}

/* Starting takes too long: fatal for what is needed, a warning for workers. */
static void start_late(struct stack *stack)
{
    for (size_t i = 0; i < stack->n_children && stack->state == STACK_STARTING; i++) {
        const struct stack_child *child = stack->children[i];
        char what[512];
        if (stack->settled[i])
            continue;
        snprintf(what, sizeof what, "%s is not ready after %lld ms; its log is %s",
                 stack_child_name(child), (long long)(clock_ms() - stack->started_ms),
                 stack_child_log(child));
        if (needed(child)) {
            start_failed(stack, what);
            return;
        }
        log_warn("%s", what);
        tell_line(stack, "warning: ", what);
        stack->settled[i] = true;
    }
    check_started(stack);
}

static void deadline_passed(void *ctx)
{
    struct stack *stack = ctx;
    if (stack->state == STACK_STARTING)
        start_late(stack);
    else if (stack->state == STACK_STOPPING)
        phase_late(stack);
}

static const struct stack_child_events child_events = {child_ready, child_failed, child_ended};

static void add_child(void *ctx, const struct stack_child_options *options)
{
    struct stack *stack = ctx;
    size_t n = stack->n_children++;
    stack->children = mem_must_realloc(stack->children, (n + 1) * sizeof *stack->children);
    stack->children[n] = stack_child_new(&stack->loop, options, &child_events, stack);
}

/* --- events -------------------------------------------------------------------------------- */

static void children_changed(uv_signal_t *handle, int signal_number)
{
    struct stack *stack = handle->data;
    (void)signal_number;
    for (size_t i = 0; i < stack->n_children; i++)
        stack_child_reap(stack->children[i]);
}

static void stop_signalled(void *ctx, int signal_number)
{
    struct stack *stack = ctx;
    bool again = stack->state == STACK_STOPPING;
    (void)signal_number;
    log_info(again ? "stopping at once" : "stopping: workers finish what runs");
    stop_all(stack, again ? 0 : STACK_DRAIN_MS);
}

static void control_stop(void *ctx, int64_t drain_ms)
{
    log_info("asked to stop; workers have %lld ms for what runs", (long long)drain_ms);
    stop_all(ctx, drain_ms < 0 ? 0 : drain_ms);
}

static void control_status(void *ctx, struct buf *out)
{
    static const char *const names[] = {"starting", "ready", "stopping"};
    struct stack *stack = ctx;
    buf_printf(out, "{\"pid\":%d,\"state\":\"%s\",\"home\":", (int)getpid(), names[stack->state]);
    buf_add_json(out, stack->config->home, strlen(stack->config->home));
    buf_printf(out, ",\"simulated\":%s,\"processes\":[",
               stack->config->simulated ? "true" : "false");
    for (size_t i = 0; i < stack->n_children; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        stack_child_print(stack->children[i], out);
    }
    buf_add_str(out, "]}");
}

/* Without its home nobody can reach the stack any more. */
static void check_home(void *ctx)
{
    struct stack *stack = ctx;
    struct stat held, named;
    char *path = path_of(stack->config->home, PATH_RUN "/stack.lock");
    bool same = fstat(stack->lock_fd, &held) == 0 && stat(path, &named) == 0 &&
                held.st_ino == named.st_ino && held.st_dev == named.st_dev;
    free(path);
    if (!same && stack->state != STACK_STOPPING) {
        log_error("%s was removed: stopping", stack->config->home);
        stop_all(stack, 0);
    }
}

/* --- the home ------------------------------------------------------------------------------ */

/* The lock, waiting until end of wait_ms; -EWOULDBLOCK when another holds it. */
static int lock_take(const char *home, const char *name, int64_t wait_ms, const char *control)
{
    char *path = path_of(home, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int rc = fd < 0 ? -errno : 0;
    int64_t end_ms = clock_ms() + wait_ms;
    free(path);
    while (rc == 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        struct buf answer = {0};
        rc = errno == EWOULDBLOCK && clock_ms() < end_ms ? 0 : -errno;
        if (rc == 0 && control != NULL && stack_control_ask(control, "status", 1000, &answer) == 0)
            rc = -EWOULDBLOCK; /* it lives, and isn't just ending */
        buf_release(&answer);
        if (rc == 0)
            poll(NULL, 0, 10);
    }
    if (rc == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int write_config(const struct config *config, struct err *err)
{
    struct buf text = {0};
    char *path = path_of(config->home, PATH_RUN_CONFIG);
    char *draft = path_of(config->home, PATH_RUN_CONFIG ".new");
    config_print(config, &text);
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool written = fd >= 0 && !text.failed && write(fd, text.data, text.len) == (ssize_t)text.len;
    int rc = written ? 0 : errno != 0 ? -errno : -EIO;
    if (fd >= 0 && close(fd) != 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && rename(draft, path) != 0)
        rc = -errno;
    if (rc != 0)
        err_set(err, rc, "cannot write %s: %s; make room or choose another ORCHESTRATOR_HOME", path,
                strerror(-rc));
    buf_release(&text);
    free(path);
    free(draft);
    return rc;
}

static int make_folders(const struct config *config, struct err *err)
{
    static const char *const names[] = {PATH_RUN, PATH_LOG, PATH_REDIS, PATH_SPOOL};
    int rc = stack_check_home(config->home, err);
    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof *names; i++) {
        char *path = path_of(config->home, names[i]);
        rc = path_make(path, err);
        free(path);
    }
    return rc;
}

/* Makes this process the only supervisor of the home. */
static int take_home(struct stack *stack, struct err *err)
{
    const struct config *config = stack->config;
    int rc = make_folders(config, err);
    if (rc != 0)
        return rc;
    char *control = path_of(config->home, PATH_STACK_SOCKET);
    stack->lock_fd = lock_take(config->home, PATH_RUN "/stack.lock", LOCK_WAIT_MS, control);
    free(control);
    if (stack->lock_fd == -EWOULDBLOCK)
        return err_set(err, -EALREADY, "running");
    if (stack->lock_fd < 0)
        return err_set(err, stack->lock_fd, "cannot lock %s/" PATH_RUN "/stack.lock: %s",
                       config->home, strerror(-stack->lock_fd));
    stack->redis_lock_fd = lock_take(config->home, PATH_RUN "/redis.lock", EARLIER_REDIS_MS, NULL);
    if (stack->redis_lock_fd < 0)
        return err_set(err, stack->redis_lock_fd,
                       "the redis-server of an earlier stack still runs on %s/" PATH_REDIS
                       ": end it first, two would destroy each other's files",
                       config->home);
    /* redis-server keeps it open: its number must not be one of those that it gets. */
    int moved = fcntl(stack->redis_lock_fd, F_DUPFD_CLOEXEC, 10);
    close(stack->redis_lock_fd);
    stack->redis_lock_fd = moved;
    rc = stack_listen_prepare(config, err);
    return rc != 0 ? rc : write_config(config, err);
}

static int open_all(struct stack *stack, struct err *err)
{
    static const struct stack_control_events events = {control_status, control_stop};
    char *path = path_of(stack->config->home, PATH_STACK_SOCKET);
    loop_on_stop(&stack->loop, stop_signalled, stack);
    uv_signal_init(&stack->loop, &stack->child_signal);
    stack->child_signal.data = stack;
    uv_signal_start(&stack->child_signal, children_changed, SIGCHLD);
    stack->deadline = loop_timer_new(&stack->loop, deadline_passed, stack);
    stack->home_check = loop_timer_new(&stack->loop, check_home, stack);
    int rc = stack_control_open(&stack->control, &stack->loop, path, &events, stack, err);
    free(path);
    return rc;
}

static void start_all(struct stack *stack)
{
    stack_topology(stack->config, stack->redis_lock_fd, add_child, stack);
    stack->settled = mem_must_zalloc(stack->n_children * sizeof *stack->settled);
    loop_timer_start(stack->deadline, NEEDED_MS, 0);
    loop_timer_start(stack->home_check, HOME_CHECK_MS, HOME_CHECK_MS);
    for (size_t i = 0; i < stack->n_children && stack->state == STACK_STARTING; i++) {
        stack_child_start(stack->children[i]);
        log_info("started %s (pid %d), log %s", stack_child_name(stack->children[i]),
                 (int)stack_child_pid(stack->children[i]), stack_child_log(stack->children[i]));
    }
}

static void close_all(struct stack *stack)
{
    for (size_t i = 0; i < stack->n_children; i++)
        stack_child_free(&stack->children[i]);
    free(stack->children);
    free(stack->settled);
    loop_timer_free(&stack->deadline);
    loop_timer_free(&stack->home_check);
    /* The socket goes before the lock: the next supervisor makes its own. */
    stack_control_close(&stack->control);
    if (stack->redis_lock_fd >= 0)
        close(stack->redis_lock_fd);
    if (stack->lock_fd >= 0)
        close(stack->lock_fd);
    loop_finish(&stack->loop);
}

int stack_run(const struct config *config, int ready_fd)
{
    struct stack stack = {.config = config,
                          .lock_fd = -1,
                          .redis_lock_fd = -1,
                          .ready_fd = ready_fd,
                          .started_ms = clock_ms()};
    struct err err = {""};
    if (ready_fd >= 0)
        fcntl(ready_fd, F_SETFD, FD_CLOEXEC);
    setenv("ORCHESTRATOR_HOME", config->home, 1); /* for the processes */
    loop_init(&stack.loop);
    int rc = take_home(&stack, &err);
    if (rc == 0)
        rc = open_all(&stack, &err);
    if (rc == 0) {
        start_all(&stack);
        while (!stack.done)
            uv_run(&stack.loop, UV_RUN_DEFAULT);
    } else {
        if (rc == -EALREADY && ready_fd < 0)
            fprintf(stderr, "orchestrator up: the local stack runs already\n");
        else if (rc != -EALREADY)
            log_error("%s", err.text);
        tell_line(&stack, "", err.text);
        stack.exit_code = rc == -EALREADY ? EXIT_DONE : EXIT_UNREACHABLE;
    }
    close_all(&stack);
    return stack.exit_code;
}
