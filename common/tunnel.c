#include "common/tunnel.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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
#include "common/containers.h"
#include "common/log.h"
#include "common/paths.h"
#include "schemas/buf.h"
#include "schemas/mem.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define TROUBLE_MS 1000 /* how long what it said last explains a lost connection */
#define DIRECTORY PATH_RUN "/tls"
#define SYSTEM_CAS "/etc/ssl/certs/ca-certificates.crt"
#define STALE_S 60

struct tunnel {
    LIST_ENTRY(tunnel) entry;
    int users;
    uv_loop_t *loop;
    char *host, *ca, *cert, *key; /* ca, cert, key: or NULL */
    int port;
    char path[108];
    pid_t pid;       /* 0: none runs */
    uv_poll_t *said; /* its stderr; NULL: closed */
    int said_fd;     /* its end is the process's end */
    struct loop_timer *restart;
    int64_t backoff_ms;
    bool ready;
    char line[512]; /* of stderr, until its end */
    size_t line_len;
    char trouble[640];
    int64_t trouble_ms; /* when it was told */
};

/* All of this process: so that clients of one server share a child. */
static LIST_HEAD(, tunnel) tunnels = LIST_HEAD_INITIALIZER(tunnels);

/* --- what it says ------------------------------------------------------------------------- */

/* Words of stunnel's log, and what they mean. */
static const struct {
    const char *words, *meaning;
} meanings[] = {
    {"unable to get local issuer certificate",
     "its certificate is not signed by a known CA: name the CA's file, as `redis: {url: "
     "rediss://..., ca: FILE}`"},
    {"self-signed certificate",
     "its certificate is not signed by a known CA: name the CA's file, as `redis: {url: "
     "rediss://..., ca: FILE}`"},
    {"certificate signature failure",
     "its certificate is signed by another CA of the same name: correct `ca` in `redis`"},
    {"certificate has expired", "its certificate has expired: renew it on the server"},
    {"certificate is not yet valid",
     "its certificate is not valid yet: look at the clocks of both machines"},
    {"CERT: Subject checks failed",
     "its certificate is for another host: use a name or an address that is in it"},
    {"TLS socket closed (SSL_write)",
     "it ended the connection after the handshake: where it demands a certificate of this "
     "client, set `cert` and `key` in `redis`"},
    {"alert certificate required",
     "it demands a certificate of this client: set `cert` and `key` in `redis`"},
    {"alert unknown ca", "it does not know the CA of this client's certificate: correct `cert`"},
    {"alert bad certificate", "it does not accept this client's certificate: correct `cert`"},
    {"wrong version number", "it speaks no TLS on this port: use its tls-port, or redis://"},
    {"Connection reset: 0 byte(s) sent to TLS, 0 byte(s) sent to socket",
     "it speaks no TLS on this port: use its tls-port, or redis://"},
    {"Connection refused", "nothing listens there"},
    {"No route to host", "there is no route to it"},
    {"Network is unreachable", "there is no network to it"},
    {"timed out", "it does not answer"},
    {"TIMEOUTconnect exceeded", "it does not answer"},
    {"Error resolving", "its name cannot be resolved"},
    {"Cannot open CAfile", "the file `ca` of `redis` cannot be read"},
    {"error loading CA certificates", "the file `ca` of `redis` has no valid certificates"},
    {"Failed to load certificate", "the file `cert` of `redis` cannot be used"},
    {"error loading certificate", "the file `cert` of `redis` cannot be used"},
    {"error loading private key", "the file `key` of `redis` cannot be used"},
};

static void set_trouble(struct tunnel *tunnel, const char *what)
{
    /* The first of several lines is the cause; the others tell what follows from it. */
    if (clock_ms() - tunnel->trouble_ms < TROUBLE_MS / 2 && tunnel->trouble[0] != '\0')
        return;
    snprintf(tunnel->trouble, sizeof tunnel->trouble, "no TLS to Redis at %.200s:%d: %.400s",
             tunnel->host, tunnel->port, what);
    tunnel->trouble_ms = clock_ms();
}

static void hear_line(struct tunnel *tunnel, const char *line)
{
    log_debug("stunnel: %s", line);
    if (strstr(line, "Configuration successful") != NULL) {
        tunnel->ready = true;
        tunnel->backoff_ms = BACKOFF_MIN_MS;
    }
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        if (strcasestr(line, meanings[i].words) != NULL) {
            set_trouble(tunnel, meanings[i].meaning);
            return;
        }
}

static void hear(struct tunnel *tunnel, const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (data[i] == '\n') {
            tunnel->line[tunnel->line_len] = '\0';
            tunnel->line_len = 0;
            hear_line(tunnel, tunnel->line);
        } else if (tunnel->line_len + 1 < sizeof tunnel->line) {
            tunnel->line[tunnel->line_len++] = data[i];
        }
    }
}

static void poll_closed(uv_handle_t *handle)
{
    free(handle);
}

static void stop_hearing(struct tunnel *tunnel)
{
    if (tunnel->said == NULL)
        return;
    tunnel->said->data = NULL;
    uv_close((uv_handle_t *)tunnel->said, poll_closed);
    tunnel->said = NULL;
    close(tunnel->said_fd);
}

/* Ends what may be left of the child, and reaps it. */
static int end_child(struct tunnel *tunnel, int signal_number)
{
    int status = 0;
    if (tunnel->pid == 0)
        return 0;
    kill(tunnel->pid, signal_number);
    while (waitpid(tunnel->pid, &status, 0) < 0 && errno == EINTR)
        ;
    tunnel->pid = 0;
    tunnel->ready = false;
    unlink(tunnel->path);
    return status;
}

/* Its stderr has ended, and so has it. */
static void child_ended(struct tunnel *tunnel)
{
    stop_hearing(tunnel);
    end_child(tunnel, SIGKILL);
    log_warn("the TLS tunnel to Redis at %s:%d has ended; it is started again", tunnel->host,
             tunnel->port);
    set_trouble(tunnel, "the tunnel (stunnel) has ended");
    loop_timer_start(tunnel->restart, tunnel->backoff_ms, 0);
    tunnel->backoff_ms *= 2;
    if (tunnel->backoff_ms > BACKOFF_MAX_MS)
        tunnel->backoff_ms = BACKOFF_MAX_MS;
}

static void drain(struct tunnel *tunnel)
{
    char chunk[4096];
    for (int turn = 0; turn < 64 && tunnel->said != NULL; turn++) {
        ssize_t len = read(tunnel->said_fd, chunk, sizeof chunk);
        if (len > 0)
            hear(tunnel, chunk, (size_t)len);
        else if (len == 0 || (errno != EAGAIN && errno != EINTR))
            child_ended(tunnel);
        else if (errno == EAGAIN)
            return;
    }
}

static void said_something(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct tunnel *tunnel = poll->data;
    if (tunnel != NULL)
        drain(tunnel);
}

const char *tunnel_trouble(struct tunnel *tunnel)
{
    drain(tunnel);
    return clock_ms() - tunnel->trouble_ms < TROUBLE_MS ? tunnel->trouble : "";
}

/* --- starting it -------------------------------------------------------------------------- */

static const char *find_program(void)
{
    static const char *const places[] = {"/usr/bin/stunnel4", "/usr/bin/stunnel",
                                         "/usr/local/bin/stunnel", "/usr/sbin/stunnel"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (access(places[i], X_OK) == 0)
            return places[i];
    return NULL;
}

int tunnel_check(struct err *err)
{
    const char *path = getenv("ORCHESTRATOR_STUNNEL");
    if (path != NULL ? access(path, X_OK) == 0 : find_program() != NULL)
        return 0;
    return err_set(err, -ENOENT,
                   "TLS to Redis needs stunnel, which is not on this machine: apt-get install "
                   "stunnel4");
}

static bool is_address(const char *host)
{
    unsigned char bytes[16];
    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

/* The log goes to stderr and is where errors come from; level 5 has what went wrong, and that it
 * started. */
static void write_config(const struct tunnel *tunnel, struct buf *out)
{
    bool address = is_address(tunnel->host);
    bool v6 = address && strchr(tunnel->host, ':') != NULL;
    buf_printf(out,
               "foreground = yes\npid =\nsyslog = no\ndebug = 5\n[redis]\nclient = yes\n"
               "accept = %s\nconnect = %s%s%s:%d\n"
               "verifyChain = yes\nCAfile = %s\n%s = %s\nsslVersionMin = TLSv1.2\n"
               "TIMEOUTclose = 0\nTIMEOUTconnect = 5\nTIMEOUTbusy = 3\nTIMEOUTidle = 31536000\n"
               "delay = yes\nretry = no\n"
               "socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\nsocket = r:SO_KEEPALIVE=1\n",
               tunnel->path, v6 ? "[" : "", tunnel->host, v6 ? "]" : "", tunnel->port,
               tunnel->ca != NULL ? tunnel->ca : SYSTEM_CAS, address ? "checkIP" : "checkHost",
               tunnel->host);
    if (!address)
        buf_printf(out, "sni = %s\n", tunnel->host);
    if (tunnel->cert != NULL)
        buf_printf(out, "cert = %s\n", tunnel->cert);
    if (tunnel->key != NULL)
        buf_printf(out, "key = %s\n", tunnel->key);
}

/* In the child: only what is safe after fork(). */
static void __attribute__((noreturn))
run_child(const char *program, pid_t parent, int config, int errors)
{
    static const char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
    const char *argv[] = {program, "-fd", "0", NULL};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it has died already */
        _exit(127);
    int null = open("/dev/null", O_WRONLY);
    if (dup2(config, 0) < 0 || dup2(null, 1) < 0 || dup2(errors, 2) < 0)
        _exit(127);
    close_range(3, ~0U, 0);
    execve(program, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)environment);
    _exit(127);
}

/* stunnel reads its configuration from a pipe, which holds it whole. */
static int spawn(struct tunnel *tunnel, struct err *err)
{
    const char *wanted = getenv("ORCHESTRATOR_STUNNEL");
    const char *program = wanted != NULL ? wanted : find_program();
    int config[2] = {-1, -1}, errors[2] = {-1, -1};
    struct buf text = {0};
    int rc = tunnel_check(err);
    if (rc != 0 || program == NULL)
        return rc != 0 ? rc : -ENOENT; /* removed just now */
    write_config(tunnel, &text);
    if (text.failed) {
        buf_release(&text);
        return err_set(err, -ENOMEM, "out of memory");
    }
    if (pipe2(config, O_CLOEXEC) != 0 || pipe2(errors, O_CLOEXEC | O_NONBLOCK) != 0 ||
        write(config[1], text.data, text.len) != (ssize_t)text.len) {
        rc = -errno;
    } else {
        pid_t parent = getpid();
        fcntl(errors[1], F_SETFL, 0);
        unlink(tunnel->path);
        tunnel->pid = fork();
        if (tunnel->pid == 0)
            run_child(program, parent, config[0], errors[1]);
        rc = tunnel->pid < 0 ? -errno : 0;
    }
    int ends[] = {config[0], config[1], errors[1], rc != 0 ? errors[0] : -1};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends[i] >= 0)
            close(ends[i]);
    buf_release(&text);
    if (rc != 0) {
        tunnel->pid = 0;
        return err_set(err, rc, "cannot start %s for TLS to Redis: %s", program, strerror(-rc));
    }
    tunnel->said_fd = errors[0];
    tunnel->said = mem_must_zalloc(sizeof *tunnel->said);
    uv_poll_init(tunnel->loop, tunnel->said, tunnel->said_fd);
    tunnel->said->data = tunnel;
    uv_poll_start(tunnel->said, UV_READABLE, said_something);
    return 0;
}

static void restart(void *ctx)
{
    struct tunnel *tunnel = ctx;
    struct err err = {""};
    if (spawn(tunnel, &err) == 0)
        return;
    set_trouble(tunnel, err.text);
    loop_timer_start(tunnel->restart, BACKOFF_MAX_MS, 0);
}

/* --- where it listens --------------------------------------------------------------------- */

/* Removes sockets that killed processes have left: nobody listens on them, and they are old. */
static void clean(const char *dir)
{
    DIR *entries = opendir(dir);
    struct dirent *entry;
    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        struct stat st;
        int n = snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", dir, entry->d_name);
        if (n >= (int)sizeof address.sun_path || lstat(address.sun_path, &st) != 0 ||
            !S_ISSOCK(st.st_mode) || st.st_mtime > time(NULL) - STALE_S)
            continue;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0 &&
            errno == ECONNREFUSED)
            unlink(address.sun_path);
        if (fd >= 0)
            close(fd);
    }
    if (entries != NULL)
        closedir(entries);
}

static int choose_path(struct tunnel *tunnel, struct err *err)
{
    char *home = path_home(err);
    if (home == NULL)
        return -ENOENT;
    char *dir = path_of(home, DIRECTORY);
    free(home);
    struct stat st;
    uint32_t number = 0;
    int rc = path_make(dir, err), n = 0;
    if (rc == 0 && (lstat(dir, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
                    (st.st_mode & 077) != 0))
        rc = err_set(err, -EPERM,
                     "%s must be a directory of this user alone (mode 0700): others could use "
                     "this process's connection to Redis",
                     dir);
    if (rc == 0 && getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        rc = err_set(err, -EIO, "the system has no random numbers");
    if (rc == 0) {
        clean(dir);
        n = snprintf(tunnel->path, sizeof tunnel->path, "%s/%08x", dir, number);
    }
    if (n >= (int)sizeof tunnel->path)
        rc = err_set(err, -ENAMETOOLONG,
                     "%s is too long for sockets: choose a shorter ORCHESTRATOR_HOME", dir);
    free(dir);
    return rc;
}

/* --- sharing ------------------------------------------------------------------------------ */

static char *copy(const char *text)
{
    return text != NULL ? mem_must_strdup(text) : NULL;
}

static bool same(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static struct tunnel *find(uv_loop_t *loop, const struct tunnel_options *options)
{
    struct tunnel *tunnel;
    LIST_FOREACH (tunnel, &tunnels, entry)
        if (tunnel->loop == loop && tunnel->port == options->port &&
            same(tunnel->host, options->host) && same(tunnel->ca, options->ca) &&
            same(tunnel->cert, options->cert) && same(tunnel->key, options->key))
            return tunnel;
    return NULL;
}

/* A line break in it would be a line of stunnel's configuration. */
static int check_text(const char *what, const char *text, struct err *err)
{
    for (const char *at = text; at != NULL && *at != '\0'; at++)
        if ((unsigned char)*at < ' ' || *at == ';' || *at == '#')
            return err_set(err, -EINVAL, "%s of `redis` must not have the character \"%c\"", what,
                           (unsigned char)*at < ' ' ? ' ' : *at);
    return 0;
}

static int check_options(const struct tunnel_options *options, struct err *err)
{
    const struct {
        const char *name, *text;
        bool file;
    } texts[] = {{"the host", options->host, false},
                 {"`ca`", options->ca, true},
                 {"`cert`", options->cert, true},
                 {"`key`", options->key, true}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int rc = check_text(texts[i].name, texts[i].text, err);
        if (rc != 0)
            return rc;
        if (texts[i].file && texts[i].text != NULL && access(texts[i].text, R_OK) != 0)
            return err_set(err, -errno, "cannot read %s, which is %s of `redis`: %s", texts[i].text,
                           texts[i].name, strerror(errno));
    }
    return 0;
}

static void tunnel_free(struct tunnel *tunnel)
{
    stop_hearing(tunnel);
    end_child(tunnel, SIGKILL);
    loop_timer_free(&tunnel->restart);
    free(tunnel->host);
    free(tunnel->ca);
    free(tunnel->cert);
    free(tunnel->key);
    free(tunnel);
}

int tunnel_open(struct tunnel **ret, uv_loop_t *loop, const struct tunnel_options *options,
                struct err *err)
{
    struct tunnel *tunnel = find(loop, options);
    if (tunnel != NULL) {
        tunnel->users++;
        *ret = tunnel;
        return 0;
    }
    int rc = check_options(options, err);
    if (rc != 0)
        return rc;
    tunnel = mem_must_zalloc(sizeof *tunnel);
    tunnel->users = 1;
    tunnel->loop = loop;
    tunnel->host = copy(options->host);
    tunnel->ca = copy(options->ca);
    tunnel->cert = copy(options->cert);
    tunnel->key = copy(options->key);
    tunnel->port = options->port;
    tunnel->backoff_ms = BACKOFF_MIN_MS;
    tunnel->trouble_ms = -TROUBLE_MS;
    tunnel->restart = loop_timer_new(loop, restart, tunnel);
    rc = choose_path(tunnel, err);
    if (rc == 0)
        rc = spawn(tunnel, err);
    if (rc != 0) {
        tunnel_free(tunnel);
        return rc;
    }
    LIST_INSERT_HEAD(&tunnels, tunnel, entry);
    *ret = tunnel;
    return 0;
}

void tunnel_close(struct tunnel **ret)
{
    struct tunnel *tunnel = *ret;
    *ret = NULL;
    if (tunnel == NULL || --tunnel->users > 0)
        return;
    LIST_REMOVE(tunnel, entry);
    tunnel_free(tunnel);
}

bool tunnel_ready(const struct tunnel *tunnel)
{
    return tunnel->ready;
}

const char *tunnel_path(const struct tunnel *tunnel)
{
    return tunnel->path;
}

int tunnel_pid(const struct tunnel *tunnel)
{
    return (int)tunnel->pid;
}
