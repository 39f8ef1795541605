#include "orchestrator/stack_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "schemas/mem.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define LONG_LIFE_MS 10000 /* after such a life the next death starts with the shortest wait */
#define LOG_MAX_BYTES ((off_t)10 * 1024 * 1024)
#define SAID_MAX 900 /* bytes of a sentence that are kept */
#define PING_EVERY_MS 3
#define READY_FD 3     /* the process's number of its ready pipe */
#define INHERITED_FD 4 /* and of inherit_fd */

const struct stack_kind_row stack_kinds[STACK_KIND_COUNT] = {
#define X(constant, name, ends, grace_ms, needed) {name, ends, grace_ms, needed},
    STACK_KINDS(X)
#undef X
};

struct stack_child {
    uv_loop_t *loop;
    enum stack_kind kind;
    char *name, *log, *socket;
    char **argv;
    char **environment;
    int inherit_fd;
    const struct stack_child_events *events;
    void *ctx;

    pid_t pid; /* 0: does not run */
    bool ready, told, stopping;
    int restarts;
    int64_t started_ms, backoff_ms;
    off_t log_from;             /* where this start's lines begin */
    uv_poll_t *ready_poll;      /* of the ready pipe; NULL: closed */
    int ready_fd;               /* our end of it, or the connection to Redis; -1: none */
    struct buf said;            /* on the ready pipe */
    struct loop_timer *restart; /* waiting to start again */
    struct loop_timer *ping;    /* asking Redis */
};

/* --- logs ---------------------------------------------------------------------------------- */

int stack_log_open(const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > LOG_MAX_BYTES) {
        char *old = mem_must_printf("%s.1", path);
        if (rename(path, old) != 0)
            log_warn("cannot move %s to %s: %s", path, old, strerror(errno));
        free(old);
    }
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* What a log line says behind its time, level and program; Redis's lines begin in another way:
 * "123:M 20 Nov 2026 19:43:05.123 # text". */
static const char *without_stamp(const char *line)
{
    static const char ours[] = "0000-00-00T00:00:00.000Z ";
    const char *text = NULL;
    if (strlen(line) > sizeof ours && line[4] == '-' && line[10] == 'T' && line[23] == 'Z') {
        text = strstr(line, ": ");
        return text != NULL ? text + 2 : line;
    }
    text = strstr(line, " # ");
    return text != NULL && text - line < 48 ? text + 3 : line;
}

/* The last line that the process wrote since it was started. */
static void last_line(const struct stack_child *child, char *out, size_t size)
{
    char tail[4096];
    out[0] = '\0';
    int fd = open(child->log, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    off_t end = lseek(fd, 0, SEEK_END);
    off_t from = end - (off_t)sizeof tail + 1;
    ssize_t len = pread(fd, tail, sizeof tail - 1, from > child->log_from ? from : child->log_from);
    close(fd);
    while (len > 0 && (tail[len - 1] == '\n' || tail[len - 1] == ' '))
        len--;
    if (len <= 0)
        return;
    tail[len] = '\0';
    const char *newline = strrchr(tail, '\n');
    const char *line = newline != NULL ? newline + 1 : tail;
    snprintf(out, size, "%.*s", (int)size - 1, without_stamp(line));
}

/* --- readiness ----------------------------------------------------------------------------- */

static void free_poll(uv_handle_t *handle)
{
    free(handle);
}

static void watch_close(struct stack_child *child)
{
    loop_timer_free(&child->ping);
    if (child->ready_poll != NULL)
        uv_close((uv_handle_t *)child->ready_poll, free_poll);
    child->ready_poll = NULL;
    if (child->ready_fd >= 0)
        close(child->ready_fd);
    child->ready_fd = -1;
}

static void is_ready(struct stack_child *child)
{
    watch_close(child);
    child->ready = true;
    child->events->ready(child->ctx, child);
}

static void has_failed(struct stack_child *child, const char *sentence)
{
    if (child->told || child->stopping)
        return;
    child->told = true;
    child->events->failed(child->ctx, child, sentence);
}

/* A line on the ready pipe: "ready", or why not. */
static void ready_readable(uv_poll_t *poll, int status, int events)
{
    struct stack_child *child = poll->data;
    char chunk[1024];
    (void)status, (void)events;
    ssize_t len = read(child->ready_fd, chunk, sizeof chunk);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (len > 0 && child->said.len < SAID_MAX)
        buf_add(&child->said, chunk, (size_t)len);
    const char *newline = child->said.len > 0 ? strchr(child->said.data, '\n') : NULL;
    if (newline == NULL && len > 0)
        return;
    if (newline != NULL && strncmp(child->said.data, "ready\n", 6) == 0) {
        is_ready(child);
        return;
    }
    watch_close(child); /* without a line: its end is told when it is reaped */
    if (newline != NULL) {
        char sentence[SAID_MAX + 1];
        snprintf(sentence, sizeof sentence, "%.*s", (int)(newline - child->said.data),
                 child->said.data);
        has_failed(child, sentence);
    }
}

static void ready_watch(struct stack_child *child, int fd)
{
    child->ready_fd = fd;
    child->ready_poll = mem_must_zalloc(sizeof *child->ready_poll);
    child->ready_poll->data = child;
    uv_poll_init(child->loop, child->ready_poll, fd);
    uv_poll_start(child->ready_poll, UV_READABLE | UV_DISCONNECT, ready_readable);
}

/* Connects and sends PING in one turn, looks for the answer in the next ones. */
static void redis_ping(void *ctx)
{
    struct stack_child *child = ctx;
    if (child->ready_fd >= 0) {
        char answer[64] = "";
        ssize_t len = recv(child->ready_fd, answer, sizeof answer - 1, MSG_DONTWAIT);
        /* one that listens for other machines asks for a password first */
        if (len > 0 && (strncmp(answer, "+PONG", 5) == 0 || strncmp(answer, "-NOAUTH", 7) == 0)) {
            is_ready(child);
            return;
        }
        if (len < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        close(child->ready_fd); /* -LOADING, or it closed */
        child->ready_fd = -1;
        return;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", child->socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6)
        child->ready_fd = fd;
    else if (fd >= 0)
        close(fd);
}

/* --- start and end ------------------------------------------------------------------------- */

/* Runs in the new process: only what is safe between fork and exec. */
static void become(const struct stack_child *child, pid_t parent, int log_fd, int ready_fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < 32; number++)
        signal(number, SIG_DFL);
    setsid(); /* Ctrl-C at the terminal is for the supervisor, which ends all in order */
    /* Redis ends in order; the others lose nothing by a kill, and free their places at once. */
    prctl(PR_SET_PDEATHSIG, child->kind == STACK_REDIS ? SIGTERM : SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    /* Sources are above INHERITED_FD, so no dup2() overwrites one that is still needed. */
    if (dup2(null, STDIN_FILENO) < 0 || dup2(log_fd, STDOUT_FILENO) < 0 ||
        dup2(log_fd, STDERR_FILENO) < 0 || (ready_fd >= 0 && dup2(ready_fd, READY_FD) < 0) ||
        (child->inherit_fd >= 0 && dup2(child->inherit_fd, INHERITED_FD) < 0))
        _exit(127);
    execvpe(child->argv[0], child->argv, child->environment);
    dprintf(STDERR_FILENO, "cannot run %s: %s\n", child->argv[0], strerror(errno));
    _exit(127);
}

/* A copy of the descriptor that dup2() to the fixed numbers cannot hit; closes the original. */
static int move_up(int fd)
{
    int moved = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, INHERITED_FD + 1);
    if (fd >= 0)
        close(fd);
    return moved;
}

static void plan_restart(struct stack_child *child);

void stack_child_start(struct stack_child *child)
{
    int pipe_fds[2] = {-1, -1};
    if (child->socket == NULL && pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        log_error("cannot make a pipe: %s", strerror(errno));
    int log_fd = move_up(stack_log_open(child->log));
    int ready_end = move_up(pipe_fds[1]);
    struct stat st;
    child->log_from = log_fd >= 0 && fstat(log_fd, &st) == 0 ? st.st_size : 0;
    child->ready = child->told = false;
    child->started_ms = clock_ms();
    buf_clear(&child->said);
    pid_t parent = getpid();
    pid_t pid = log_fd >= 0 ? fork() : -1;
    if (pid == 0)
        become(child, parent, log_fd, ready_end);
    int saved = errno;
    if (log_fd >= 0)
        close(log_fd);
    if (ready_end >= 0)
        close(ready_end);
    if (pid < 0) {
        char sentence[512];
        snprintf(sentence, sizeof sentence, "cannot start %s (log %s): %s", child->name, child->log,
                 strerror(saved));
        if (pipe_fds[0] >= 0)
            close(pipe_fds[0]);
        child->ready_fd = -1;
        has_failed(child, sentence);
        plan_restart(child);
        return;
    }
    child->pid = pid;
    if (child->socket != NULL) {
        child->ping = loop_timer_new(child->loop, redis_ping, child);
        loop_timer_start(child->ping, PING_EVERY_MS, PING_EVERY_MS);
    } else if (pipe_fds[0] >= 0) {
        ready_watch(child, pipe_fds[0]);
    }
}

static void start_again(void *ctx)
{
    struct stack_child *child = ctx;
    loop_timer_free(&child->restart);
    child->restarts++;
    stack_child_start(child);
}

static void plan_restart(struct stack_child *child)
{
    if (child->stopping || child->restart != NULL)
        return;
    if (clock_ms() - child->started_ms >= LONG_LIFE_MS)
        child->backoff_ms = 0;
    child->backoff_ms = child->backoff_ms == 0 ? BACKOFF_MIN_MS : child->backoff_ms * 2;
    if (child->backoff_ms > BACKOFF_MAX_MS)
        child->backoff_ms = BACKOFF_MAX_MS;
    child->restart = loop_timer_new(child->loop, start_again, child);
    loop_timer_start(child->restart, child->backoff_ms, 0);
}

static void describe_end(const struct stack_child *child, int status, char *out, size_t size)
{
    char line[512];
    last_line(child, line, sizeof line);
    if (WIFSIGNALED(status))
        snprintf(out, size, "%s was killed by signal %d%s%s", child->name, WTERMSIG(status),
                 line[0] != '\0' ? ": " : "", line);
    else
        snprintf(out, size, "%s ended with status %d%s%s", child->name, WEXITSTATUS(status),
                 line[0] != '\0' ? ": " : "", line);
}

/* Both the supervisor's log and the process's own tell what happened. */
static void note_end(struct stack_child *child, const char *what)
{
    char note[900];
    snprintf(note, sizeof note, "%s; starting it again in %lld ms", what,
             (long long)child->backoff_ms);
    log_warn("%s", note);
    int fd = open(child->log, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0)
        return;
    dprintf(fd, "--- %s\n", note);
    close(fd);
}

void stack_child_reap(struct stack_child *child)
{
    int status;
    if (child->pid == 0 || waitpid(child->pid, &status, WNOHANG) != child->pid)
        return;
    char what[640];
    describe_end(child, status, what, sizeof what);
    /* What it said before it ended is the better reason. */
    if (child->ready_poll != NULL)
        ready_readable(child->ready_poll, 0, 0);
    bool was_ready = child->ready;
    watch_close(child);
    child->pid = 0;
    child->ready = false;
    if (child->stopping) {
        child->events->ended(child->ctx, child);
        return;
    }
    plan_restart(child);
    note_end(child, what);
    if (!was_ready)
        has_failed(child, what);
}

void stack_child_stop(struct stack_child *child, int signal_number)
{
    child->stopping = true;
    loop_timer_free(&child->restart);
    if (child->pid != 0)
        kill(child->pid, signal_number);
}

struct stack_child *stack_child_new(uv_loop_t *loop, const struct stack_child_options *options,
                                    const struct stack_child_events *events, void *ctx)
{
    struct stack_child *child = mem_must_zalloc(sizeof *child);
    *child = (struct stack_child){
        .loop = loop,
        .kind = options->kind,
        .name = mem_must_strdup(options->name),
        .log = mem_must_printf("%s/%s.log", options->log_dir, options->name),
        .socket = options->socket != NULL ? mem_must_strdup(options->socket) : NULL,
        .argv = options->argv,
        .environment = options->environment,
        .inherit_fd = options->inherit_fd,
        .events = events,
        .ctx = ctx,
        .ready_fd = -1,
    };
    return child;
}

void stack_child_free(struct stack_child **child)
{
    struct stack_child *it = *child;
    if (it == NULL)
        return;
    *child = NULL;
    watch_close(it);
    loop_timer_free(&it->restart);
    if (it->pid != 0) {
        kill(it->pid, SIGKILL);
        waitpid(it->pid, NULL, 0);
    }
    for (size_t i = 0; it->argv[i] != NULL; i++)
        free(it->argv[i]);
    free(it->argv);
    free(it->environment);
    buf_release(&it->said);
    free(it->name);
    free(it->log);
    free(it->socket);
    free(it);
}

enum stack_kind stack_child_kind(const struct stack_child *child)
{
    return child->kind;
}

const char *stack_child_name(const struct stack_child *child)
{
    return child->name;
}

const char *stack_child_log(const struct stack_child *child)
{
    return child->log;
}

pid_t stack_child_pid(const struct stack_child *child)
{
    return child->pid;
}

bool stack_child_is_ready(const struct stack_child *child)
{
    return child->ready;
}

void stack_child_print(const struct stack_child *child, struct buf *out)
{
    const char *state = child->pid == 0 ? (child->stopping ? "ended" : "waiting")
                        : child->ready  ? "ready"
                                        : "starting";
    buf_add_str(out, "{\"name\":");
    buf_add_json(out, child->name, strlen(child->name));
    buf_printf(out,
               ",\"kind\":\"%s\",\"pid\":%d,\"state\":\"%s\",\"restarts\":%d,\"uptime_ms\":%lld",
               stack_kinds[child->kind].name, (int)child->pid, state, child->restarts,
               (long long)(child->pid != 0 ? clock_ms() - child->started_ms : 0));
    buf_add_str(out, ",\"log\":");
    buf_add_json(out, child->log, strlen(child->log));
    buf_add_char(out, '}');
}
