/* Keys of providers: whether each place has one, without showing it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "orchestrator/doctor.h"

#define COMMAND_MS 10000 /* what workers grant it too */

struct finding {
    bool good;
    char detail[256], cure[256];
};

static void look_env(const char *name, struct finding *ret)
{
    const char *value = getenv(name);
    ret->good = value != NULL && value[0] != '\0';
    snprintf(ret->detail, sizeof ret->detail, "the environment variable %.128s is %s", name,
             ret->good       ? "set"
             : value == NULL ? "missing"
                             : "empty");
    snprintf(ret->cure, sizeof ret->cure, "export %.128s where the workers are started", name);
}

static void look_file(const char *path, struct finding *ret)
{
    char first = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t got = fd >= 0 ? read(fd, &first, 1) : -1;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    explicit_bzero(&first, 1);
    ret->good = got == 1;
    snprintf(ret->detail, sizeof ret->detail, "the file %.180s %s%s", path,
             got == 1   ? "has one"
             : got == 0 ? "is empty"
                        : "cannot be read: ",
             got < 0 ? strerror(saved) : "");
    snprintf(ret->cure, sizeof ret->cure,
             "put the key into it, readable by the user that runs the workers");
}

/* Runs in the child: its output is the pipe, its process group its own, so that all of it can be
 * ended. */
static void become_command(const char *command, int out)
{
    setpgid(0, 0);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

/* Bytes that it prints until it ends; -1 when it does not in time. What it prints is not kept. */
static ssize_t drain(int fd, int64_t end_ms)
{
    ssize_t sum = 0;
    for (;;) {
        char chunk[512];
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int64_t left = end_ms - clock_ms();
        int ready = left > 0 ? poll(&wait, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return -1;
        ssize_t got = read(fd, chunk, sizeof chunk);
        explicit_bzero(chunk, sizeof chunk);
        if (got <= 0)
            return sum;
        sum += got;
    }
}

static void look_command(const char *command, struct finding *ret)
{
    int fds[2], status = 0;
    snprintf(ret->cure, sizeof ret->cure,
             "run the command by hand: it must print the key and end within %d s",
             COMMAND_MS / 1000);
    pid_t pid = pipe2(fds, O_CLOEXEC) == 0 ? fork() : -1;
    if (pid < 0) {
        snprintf(ret->detail, sizeof ret->detail, "its command cannot be run: %s", strerror(errno));
        return;
    }
    if (pid == 0)
        become_command(command, fds[1]);
    close(fds[1]);
    ssize_t printed = drain(fds[0], clock_ms() + COMMAND_MS);
    close(fds[0]);
    if (printed < 0) {
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL); /* before it has a group of its own */
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    ret->good = printed > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (printed < 0)
        snprintf(ret->detail, sizeof ret->detail, "its command did not end within %d s",
                 COMMAND_MS / 1000);
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        snprintf(ret->detail, sizeof ret->detail, "its command failed with %s %d",
                 WIFEXITED(status) ? "exit status" : "signal",
                 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    else
        snprintf(ret->detail, sizeof ret->detail, "its command prints %s",
                 printed > 0 ? "one" : "nothing");
}

static struct finding look(const char *place)
{
    static const struct {
        const char *prefix;
        void (*look)(const char *what, struct finding *ret);
    } places[] = {{"env:", look_env}, {"file:", look_file}, {"cmd:", look_command}};
    struct finding finding = {0};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (strncmp(place, places[i].prefix, strlen(places[i].prefix)) == 0)
            places[i].look(place + strlen(places[i].prefix), &finding);
    return finding;
}

/* One key of a pool is enough to work, so the others are only noted. */
static void check_pool(struct doctor *doctor, const char *what, const char *provider,
                       char *const *keys, size_t n_keys)
{
    char name[80], cure[512];
    struct finding good = {0}, bad = {0};
    size_t n_good = 0;
    for (size_t i = 0; i < n_keys; i++) {
        struct finding finding = look(keys[i]);
        n_good += finding.good;
        *(finding.good ? &good : &bad) = finding;
    }
    snprintf(name, sizeof name, "%s %.56s", what, provider);
    snprintf(cure, sizeof cure, "%s; or remove it from the configuration", bad.cure);
    if (n_good == n_keys)
        doctor_add(doctor, DOCTOR_OK, name, good.detail, "");
    else
        doctor_add(doctor, n_good > 0 ? DOCTOR_NOTE : DOCTOR_BAD, name, bad.detail, cure);
}

void doctor_keys(struct doctor *doctor, const struct config *config)
{
    for (size_t i = 0; i < config->n_providers; i++) {
        const struct config_provider *provider = &config->providers[i];
        if (provider->n_keys > 0)
            check_pool(doctor, "key", provider->name, provider->keys, provider->n_keys);
        if (provider->n_engine_keys > 0)
            check_pool(doctor, "engine key", provider->name, provider->engine_keys,
                       provider->n_engine_keys);
    }
}
