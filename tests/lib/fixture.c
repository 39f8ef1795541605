#include "tests/lib/fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

static void die(const char *what)
{
    fprintf(stderr, "fixture: %s: %s\n", what, strerror(errno));
    exit(2);
}

void fixture_init(struct fixture *fixture)
{
    *fixture = (struct fixture){0};
    const char *tmp = getenv("TMPDIR");
    if (tmp == NULL || strlen(tmp) > 30)
        tmp = "/tmp"; /* a unix socket's path has at most 107 bytes */
    snprintf(fixture->dir, sizeof fixture->dir, "%s/orch-XXXXXX", tmp);
    if (mkdtemp(fixture->dir) == NULL)
        die(fixture->dir);
    snprintf(fixture->redis_socket, sizeof fixture->redis_socket, "%s/redis.sock", fixture->dir);
    setenv("ORCHESTRATOR_HOME", fixture->dir, 1);
    setenv("ORCHESTRATOR_LOCK_DIR", fixture->dir, 1);
    setenv("NO_COLOR", "1", 1);
    unsetenv("ORCHESTRATOR_CONFIG");
    signal(SIGPIPE, SIG_IGN);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

void fixture_release(struct fixture *fixture)
{
    for (size_t i = 0; i < sizeof fixture->pids / sizeof *fixture->pids; i++)
        if (fixture->pids[i] != 0)
            fixture_kill(fixture, fixture->pids[i], SIGKILL);
    if (fixture->redis_pid != 0)
        fixture_redis_kill(fixture, SIGKILL);
    for (int tries = 0; tries < 3; tries++)
        if (nftw(fixture->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0)
            break;
}

static pid_t start(const char *const *argv, int out, int errors)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    if (out >= 0)
        dup2(out, STDOUT_FILENO);
    if (errors >= 0)
        dup2(errors, STDERR_FILENO);
    signal(SIGPIPE, SIG_DFL);
    char path[512];
    const char *bin = getenv("ORCH_BIN");
    if (strchr(argv[0], '/') != NULL || bin == NULL || strcmp(argv[0], "redis-server") == 0)
        snprintf(path, sizeof path, "%s", argv[0]);
    else
        snprintf(path, sizeof path, "%s/%s", bin, argv[0]);
    execvp(path, (char *const *)(uintptr_t)argv);
    fprintf(stderr, "fixture: cannot run %s: %s\n", path, strerror(errno));
    _exit(127);
}

pid_t fixture_spawn(struct fixture *fixture, const char *log, const char *const *argv)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", fixture->dir, log);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        die(path);
    pid_t pid = start(argv, fd, fd);
    close(fd);
    for (size_t i = 0; i < sizeof fixture->pids / sizeof *fixture->pids; i++)
        if (fixture->pids[i] == 0) {
            fixture->pids[i] = pid;
            return pid;
        }
    errno = EMFILE;
    die("too many processes");
    return -1;
}

static void forget(struct fixture *fixture, pid_t pid)
{
    for (size_t i = 0; i < sizeof fixture->pids / sizeof *fixture->pids; i++)
        if (fixture->pids[i] == pid)
            fixture->pids[i] = 0;
}

void fixture_kill(struct fixture *fixture, pid_t pid, int signal_number)
{
    kill(pid, signal_number);
    waitpid(pid, NULL, 0);
    forget(fixture, pid);
}

static int exit_code(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int fixture_wait_exit(struct fixture *fixture, pid_t pid, int64_t timeout_ms)
{
    int64_t end = clock_ms() + timeout_ms;
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (clock_ms() > end)
            return -1;
        poll(NULL, 0, 2);
    }
    forget(fixture, pid);
    return exit_code(status);
}

/* Reads both pipes until the program closes them. */
static void collect(int fds[2], struct buf *bufs[2])
{
    struct pollfd polls[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
    while (polls[0].fd >= 0 || polls[1].fd >= 0) {
        if (poll(polls, 2, -1) < 0)
            continue;
        for (int i = 0; i < 2; i++) {
            char chunk[4096];
            if (polls[i].fd < 0 || polls[i].revents == 0)
                continue;
            ssize_t len = read(polls[i].fd, chunk, sizeof chunk);
            if (len <= 0)
                polls[i].fd = -1;
            else if (bufs[i] != NULL)
                buf_add(bufs[i], chunk, (size_t)len);
            else if (i == 1 && write(STDERR_FILENO, chunk, (size_t)len) < 0)
                continue;
        }
    }
}

int fixture_run(struct fixture *fixture, const char *const *argv, struct buf *out,
                struct buf *errors)
{
    (void)fixture;
    int out_pipe[2], error_pipe[2];
    if (pipe2(out_pipe, O_CLOEXEC) != 0 || pipe2(error_pipe, O_CLOEXEC) != 0)
        die("pipe");
    pid_t pid = start(argv, out_pipe[1], error_pipe[1]);
    close(out_pipe[1]);
    close(error_pipe[1]);
    collect((int[2]){out_pipe[0], error_pipe[0]}, (struct buf *[2]){out, errors});
    close(out_pipe[0]);
    close(error_pipe[0]);
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return exit_code(status);
}

void fixture_redis_start(struct fixture *fixture)
{
    char data[96];
    snprintf(data, sizeof data, "%s/redis", fixture->dir);
    mkdir(data, 0700);
    const char *argv[] = {"redis-server",
                          "--port",
                          "0",
                          "--unixsocket",
                          fixture->redis_socket,
                          "--dir",
                          data,
                          "--appendonly",
                          "yes",
                          "--appendfsync",
                          "always",
                          "--save",
                          "",
                          "--maxmemory-policy",
                          "noeviction",
                          "--auto-aof-rewrite-min-size",
                          "256mb",
                          "--hash-max-listpack-value",
                          "1024",
                          "--hash-max-listpack-entries",
                          "64",
                          NULL};
    char path[96];
    snprintf(path, sizeof path, "%s/redis.log", fixture->dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    fixture->redis_pid = start(argv, fd, fd);
    close(fd);
    if (!fixture_wait_listen(fixture->redis_socket, 0, 10000)) {
        errno = ETIMEDOUT;
        die("redis-server did not start");
    }
}

void fixture_redis_kill(struct fixture *fixture, int signal_number)
{
    if (fixture->redis_pid == 0) { /* kill(0) would end the caller, and its whole group */
        errno = ESRCH;
        die("no redis-server runs");
    }
    kill(fixture->redis_pid, signal_number);
    waitpid(fixture->redis_pid, NULL, 0);
    fixture->redis_pid = 0;
}

struct redis_options fixture_redis_options(struct fixture *fixture)
{
    return (struct redis_options){.socket = fixture->redis_socket};
}

bool fixture_wait(bool (*fn)(void *ctx), void *ctx, int64_t timeout_ms)
{
    int64_t end = clock_ms() + timeout_ms;
    while (!fn(ctx)) {
        if (clock_ms() > end)
            return false;
        poll(NULL, 0, 5);
    }
    return true;
}

struct wait_text {
    char path[512];
    const char *text;
};

static bool has_text(void *ctx)
{
    struct wait_text *wait = ctx;
    struct buf contents = {0};
    bool found = fixture_read(wait->path, &contents) && contents.len > 0 &&
                 memmem(contents.data, contents.len, wait->text, strlen(wait->text)) != NULL;
    buf_release(&contents);
    return found;
}

bool fixture_wait_text(struct fixture *fixture, const char *file, const char *text,
                       int64_t timeout_ms)
{
    struct wait_text wait = {.text = text};
    if (file[0] == '/')
        snprintf(wait.path, sizeof wait.path, "%s", file);
    else
        snprintf(wait.path, sizeof wait.path, "%s/%s", fixture->dir, file);
    return fixture_wait(has_text, &wait, timeout_ms);
}

struct wait_listen {
    const char *path;
    int port;
};

static bool listens(void *ctx)
{
    const struct wait_listen *wait = ctx;
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wait->port)};
    tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (wait->path != NULL)
        snprintf(local.sun_path, sizeof local.sun_path, "%s", wait->path);
    int fd = socket(wait->port != 0 ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = wait->port != 0 ? connect(fd, (struct sockaddr *)&tcp, sizeof tcp)
                             : connect(fd, (struct sockaddr *)&local, sizeof local);
    close(fd);
    return rc == 0;
}

bool fixture_wait_listen(const char *path, int port, int64_t timeout_ms)
{
    struct wait_listen wait = {path, port};
    return fixture_wait(listens, &wait, timeout_ms);
}

static bool port_is_free(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_free = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return is_free;
}

/* Below the ports that the system gives to connections, so that none of these takes it. */
#define PORT_FIRST 12000
#define PORT_COUNT 20000

int fixture_free_port(void)
{
    for (int tries = 0; tries < 1000; tries++) {
        uint32_t bits;
        if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
            break;
        int port = PORT_FIRST + (int)(bits % PORT_COUNT);
        if (port_is_free(port) && port_is_free(port + 1))
            return port;
    }
    die("no free port");
    return -1;
}

bool fixture_has_localhost(void)
{
    struct addrinfo *found = NULL;
    bool has = getaddrinfo("localhost", NULL, NULL, &found) == 0;
    if (has)
        freeaddrinfo(found);
    return has;
}

const char *fixture_write(struct fixture *fixture, const char *name, const char *text)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", fixture->dir, name);
    for (char *at = path + strlen(fixture->dir) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = '\0';
        mkdir(path, 0700);
        *at = '/';
    }
    FILE *file = fopen(path, "we");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0)
        die(path);
    return path;
}

bool fixture_read(const char *path, struct buf *out)
{
    buf_clear(out);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    char chunk[4096];
    size_t len;
    while ((len = fread(chunk, 1, sizeof chunk, file)) > 0)
        buf_add(out, chunk, len);
    fclose(file);
    return true;
}
