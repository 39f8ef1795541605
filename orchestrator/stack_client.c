/* Asking, starting and ending the supervisor of the local stack from another process. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/paths.h"
#include "orchestrator/stack.h"
#include "orchestrator/stack_child.h"
#include "orchestrator/stack_control.h"
#include "orchestrator/stack_topology.h"
#include "schemas/mem.h"

#define ASK_MS 2000
#define RETRY_MS 10

int stack_check_home(const char *home, struct err *err)
{
    static const char longest[] = "/" PATH_BROKER_SOCKET;
    size_t room = sizeof((struct sockaddr_un *)0)->sun_path - sizeof longest;
    if (strlen(home) <= room)
        return 0;
    return err_set(err, -ENAMETOOLONG,
                   "the directory %s is too long for unix sockets below it (%zu bytes, at most "
                   "%zu): set ORCHESTRATOR_HOME to a shorter one",
                   home, strlen(home), room);
}

static int ask(const struct config *config, const char *line, int64_t timeout_ms,
               struct buf *answer)
{
    char *path = path_of(config->home, PATH_STACK_SOCKET);
    int rc = stack_control_ask(path, line, timeout_ms, answer);
    free(path);
    return rc;
}

bool stack_running(const struct config *config)
{
    struct buf answer = {0};
    int rc = ask(config, "status", ASK_MS, &answer);
    buf_release(&answer);
    return rc == 0;
}

int stack_status(const struct config *config, struct buf *out, struct err *err)
{
    int rc = ask(config, "status", ASK_MS, out);
    if (rc == -ESRCH || rc == -ECONNRESET)
        return err_set(err, -ESRCH, "no local stack runs: start it with `orchestrator up -d`");
    if (rc != 0)
        return err_set(err, rc, "the supervisor of the local stack does not answer: %s",
                       strerror(-rc));
    return 0;
}

int stack_stop(const struct config *config, int64_t drain_ms, struct err *err)
{
    struct buf answer = {0};
    char line[64];
    snprintf(line, sizeof line, "stop %lld", (long long)drain_ms);
    /* Beyond the drain, every kind of process has its own grace; see stack_child.h. */
    int64_t limit_ms = drain_ms + 30000;
    int rc = ask(config, line, limit_ms, &answer);
    buf_release(&answer);
    if (rc == -ESRCH)
        return err_set(err, rc, "no local stack runs");
    if (rc == -ETIMEDOUT)
        return err_set(err, rc, "the local stack did not end within %lld s; see %s/" PATH_LOG,
                       (long long)(limit_ms / 1000), config->home);
    return rc == -ECONNRESET ? 0 : rc; /* the connection ended with the supervisor */
}

/* --- start --------------------------------------------------------------------------------- */

/* A file without a name that holds the configuration in effect; -errno. */
static int config_file(const struct config *config)
{
    struct buf text = {0};
    config_print(config, &text);
    int fd = memfd_create("config", MFD_CLOEXEC);
    bool written = fd >= 0 && !text.failed && write(fd, text.data, text.len) == (ssize_t)text.len;
    int rc = written ? fd : -EIO;
    if (!written && fd >= 0)
        close(fd);
    buf_release(&text);
    return rc;
}

/* Twice forked, so that nobody has to wait for the supervisor's end. Only calls that are safe
 * between fork and exec. */
static void become_supervisor(char *const *argv, int config_fd, int ready_fd, int log_fd)
{
    if (setsid() < 0 || fork() != 0)
        _exit(0);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    fcntl(config_fd, F_SETFD, 0);
    fcntl(ready_fd, F_SETFD, 0);
    execv(argv[0], argv);
    dprintf(ready_fd, "cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* Starts the supervisor; returns the descriptor it will write lines to, or -errno. */
static int launch(const struct config *config, struct err *err)
{
    char *log_dir = path_of(config->home, PATH_LOG), *log = path_of(log_dir, "stack.log");
    int rc = path_make(log_dir, err);
    int log_fd = rc == 0 ? stack_log_open(log) : -1;
    if (rc == 0 && log_fd < 0)
        rc = err_set(err, -errno, "cannot write %s: %s", log, strerror(errno));
    free(log_dir);
    free(log);
    if (rc != 0)
        return rc;
    int pipe_fds[2];
    int config_fd = config_file(config);
    if (config_fd < 0 || pipe2(pipe_fds, O_CLOEXEC) != 0) {
        close(log_fd);
        return err_set(err, -EIO, "cannot start the local stack: %s", strerror(errno));
    }
    char *program = stack_program("orchestrator");
    char *config_path = mem_must_printf("/proc/self/fd/%d", config_fd);
    char *ready = mem_must_printf("%d", pipe_fds[1]);
    char *argv[] = {program,     (char[]){"up"},         (char[]){"--config"},
                    config_path, (char[]){"--ready-fd"}, ready,
                    NULL};
    pid_t pid = fork();
    if (pid == 0)
        become_supervisor(argv, config_fd, pipe_fds[1], log_fd);
    rc =
        pid < 0 ? err_set(err, -errno, "cannot start a process: %s", strerror(errno)) : pipe_fds[0];
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    close(config_fd);
    close(pipe_fds[1]);
    close(log_fd);
    if (rc < 0)
        close(pipe_fds[0]);
    free(program);
    free(config_path);
    free(ready);
    return rc;
}

/* Handles the lines that are whole; warnings are for the person at the terminal. 1: ready; 0: none
 * of the last words came; -EALREADY: another supervisor runs; -EIO with the sentence. */
static int take_lines(struct buf *lines, struct err *err)
{
    char *newline;
    while (lines->len > 0 && (newline = strchr(lines->data, '\n')) != NULL) {
        *newline = '\0';
        if (strcmp(lines->data, "ready") == 0)
            return 1;
        if (strcmp(lines->data, "running") == 0)
            return -EALREADY;
        if (strncmp(lines->data, "warning: ", 9) != 0)
            return err_set(err, -EIO, "the local stack did not start: %s", lines->data);
        fprintf(stderr, "%s\n", lines->data);
        buf_consume(lines, (size_t)(newline - lines->data) + 1);
    }
    return 0;
}

static int await_lines(const struct config *config, int fd, int64_t end_ms, struct err *err)
{
    struct buf lines = {0};
    int rc = 0;
    while (rc == 0) {
        char chunk[1024];
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int64_t left = end_ms - clock_ms();
        if (left <= 0 || poll(&wait, 1, (int)left) == 0) {
            rc = -ETIMEDOUT;
            break;
        }
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got > 0)
            buf_add(&lines, chunk, (size_t)got);
        rc = take_lines(&lines, err);
        if (rc == 0 && got <= 0)
            rc = err_set(err, -EIO,
                         "the supervisor of the local stack ended; see %s/" PATH_LOG "/stack.log",
                         config->home);
    }
    buf_release(&lines);
    return rc > 0 ? 0 : rc;
}

/* Waits for a supervisor that runs already. -EAGAIN: it is ending, or gone. */
static int await_running(const struct config *config, int64_t end_ms, struct err *err)
{
    struct buf answer = {0};
    int64_t left = end_ms - clock_ms();
    int rc = ask(config, "ready", left > 0 ? left : 0, &answer);
    const char *text = answer.len > 0 ? answer.data : "";
    if (rc == -ESRCH || rc == -ECONNRESET || strcmp(text, "stopping") == 0)
        rc = -EAGAIN;
    else if (rc == 0 && strcmp(text, "ready") != 0)
        rc = err_set(err, -EIO, "the local stack did not start: %s", text);
    buf_release(&answer);
    return rc;
}

int stack_start(const struct config *config, int64_t timeout_ms, struct err *err)
{
    int64_t end_ms = clock_ms() + timeout_ms;
    int rc = stack_check_home(config->home, err);
    if (rc != 0)
        return rc;
    do {
        rc = await_running(config, end_ms, err);
        if (rc == -EAGAIN) {
            int fd = launch(config, err);
            if (fd < 0)
                return fd;
            rc = await_lines(config, fd, end_ms, err);
            close(fd);
            if (rc == -EALREADY)
                rc = -EAGAIN;
        }
        if (rc == -EAGAIN)
            poll(NULL, 0, RETRY_MS);
    } while (rc == -EAGAIN && clock_ms() < end_ms);
    if (rc == -EAGAIN || rc == -ETIMEDOUT)
        return err_set(err, -ETIMEDOUT,
                       "the local stack is not ready after %lld ms; see the files in %s/" PATH_LOG,
                       (long long)timeout_ms, config->home);
    return rc;
}
