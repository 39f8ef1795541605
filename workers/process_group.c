#include "workers/process_group.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "schemas/mem.h"
#include "workers/gpu.h"

/* --- start ------------------------------------------------------------------------------------ */

/* What the child needs between fork and exec, where only few calls are safe. */
struct child {
    char *const *argv;
    char *const *environment;
    const cpu_set_t *cpus; /* NULL: all */
    int log_fd, report_fd;
    pid_t parent;
};

/* The loop's handlers would write to the parent's pipe. */
static void forget_handlers(void)
{
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
}

static void child_run(const struct child *child)
{
    sigset_t none;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != child->parent)
        _exit(127);
    forget_handlers();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (child->cpus != NULL)
        sched_setaffinity(0, sizeof *child->cpus, child->cpus);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    dup2(child->log_fd, STDOUT_FILENO);
    dup2(child->log_fd, STDERR_FILENO);
    execvpe(child->argv[0], child->argv, child->environment);
    int error = errno;
    if (write(child->report_fd, &error, sizeof error) < 0)
        _exit(126);
    _exit(127);
}

static bool is_named(const char *variable, const char *name)
{
    size_t len = strlen(name);
    return strncmp(variable, name, len) == 0 && variable[len] == '=';
}

static bool is_hidden(const struct process_options *options, const char *variable)
{
    for (size_t i = 0; i < options->n_hidden; i++)
        if (is_named(variable, options->hidden[i]))
            return true;
    return options->gpu != NULL &&
           (is_named(variable, "CUDA_VISIBLE_DEVICES") || is_named(variable, "CUDA_DEVICE_ORDER"));
}

/* The environment less what is hidden, with the GPU chosen; the array is the caller's, and so is
 * *ret_gpu. */
static char **environment_new(const struct process_options *options, char **ret_gpu)
{
    static char order[] = "CUDA_DEVICE_ORDER=PCI_BUS_ID";
    size_t n = 0, used = 0;
    while (environ[n] != NULL)
        n++;
    char **copy = mem_must_zalloc((n + 3) * sizeof *copy);
    *ret_gpu = NULL;
    if (options->gpu != NULL) {
        *ret_gpu = mem_must_printf("CUDA_VISIBLE_DEVICES=%s", options->gpu);
        copy[used++] = *ret_gpu;
        copy[used++] = order;
    }
    for (size_t i = 0; i < n; i++)
        if (!is_hidden(options, environ[i]))
            copy[used++] = environ[i];
    return copy;
}

/* fork and exec; 0 or what exec said, as errno. */
static int spawn(pid_t *ret, struct child *child)
{
    int report[2], error = 0;
    if (pipe2(report, O_CLOEXEC) != 0)
        return errno;
    child->report_fd = report[1];
    child->parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        child_run(child);
    if (pid < 0)
        error = errno;
    close(report[1]);
    if (pid > 0 && read(report[0], &error, sizeof error) > 0) /* exec succeeded: end of file */
        waitpid(pid, NULL, 0);
    close(report[0]);
    *ret = pid;
    return error;
}

/* The leader dies with us by itself, but not what it has started: that is the guard's. Our end of
 * the pipe closes when we are gone, however. The guard becomes a shell, which has nothing of ours:
 * our memory and environment have keys. */
static void guard_run(int lifeline, char *group)
{
    char name[] = "runtime-guard", option[] = "-c",
         script[] = "read -r line; kill -s KILL -- \"-$0\"";
    char *argv[] = {name, option, script, group, NULL}, *nothing[] = {NULL};
    char byte;
    setsid();
    dup2(lifeline, STDIN_FILENO);
    fcntl(STDIN_FILENO, F_SETFD, 0); /* where it was that already */
    close_range(STDIN_FILENO + 1, ~0U, 0);
    execve("/bin/sh", argv, nothing);
    while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR)
        ;
    kill((pid_t)-atoi(group), SIGKILL);
    _exit(0);
}

/* Without one, the leader still dies with us. */
static void start_guard(struct process_group *group)
{
    int lifeline[2];
    char number[16];
    snprintf(number, sizeof number, "%d", (int)group->leader);
    if (pipe2(lifeline, O_CLOEXEC) != 0)
        return;
    group->guard = fork();
    if (group->guard == 0)
        guard_run(lifeline[0], number);
    close(lifeline[0]);
    group->lifeline = lifeline[1];
    if (group->guard > 0)
        return;
    close(lifeline[1]);
    group->guard = 0;
}

static void end_guard(struct process_group *group)
{
    if (group->guard <= 0)
        return;
    kill(group->guard, SIGKILL);
    waitpid(group->guard, NULL, 0);
    close(group->lifeline);
}

int process_group_start(struct process_group *ret, const struct process_options *options)
{
    cpu_set_t cpus;
    sigset_t all, before;
    char *gpu;
    const char *root = options->root != NULL ? options->root : "";
    bool pinned = options->gpu != NULL && gpu_cpus(&cpus, root, options->gpu) == 0;
    int log_fd = open(options->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return -errno;
    char **environment = environment_new(options, &gpu);
    struct child child = {.argv = options->argv,
                          .environment = environment,
                          .cpus = pinned ? &cpus : NULL,
                          .log_fd = log_fd};
    struct process_group group = {0};
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before); /* the guard keeps it so */
    int error = spawn(&group.leader, &child);
    if (error == 0)
        start_guard(&group);
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(log_fd);
    free(gpu);
    free(environment);
    if (error == 0)
        *ret = group;
    return -error;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* The group of the process, and its resident pages; false when it has gone. */
static bool read_stat(const char *pid, long *ret_group, long *ret_pages)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    size_t len = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[len] = '\0';
    const char *at = strrchr(text, ')'); /* names may have spaces and brackets */
    if (at == NULL)
        return false;
    /* proc(5): state ppid pgrp, and 19 fields further rss */
    return sscanf(at + 1,
                  " %*c %*d %ld %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
                  "%*u %*u %ld",
                  ret_group, ret_pages) == 2;
}

int64_t process_group_memory(const struct process_group *group)
{
    DIR *dir = opendir("/proc");
    if (dir == NULL)
        return 0;
    int64_t pages = 0;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        long its_group, its_pages;
        if (isdigit((unsigned char)entry->d_name[0]) &&
            read_stat(entry->d_name, &its_group, &its_pages) && its_group == group->leader)
            pages += its_pages;
    }
    closedir(dir);
    return pages * sysconf(_SC_PAGESIZE);
}

/* --- end -------------------------------------------------------------------------------------- */

/* While the leader is not reaped, nobody else has the group's number. */
static bool has_ended(const struct process_group *group)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)group->leader, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
           info.si_pid != 0;
}

static void reap(struct process_group *group, int *ret_status)
{
    *ret_status = 0;
    process_group_kill(group);
    waitpid(group->leader, ret_status, 0);
    end_guard(group);
    *group = (struct process_group){0};
}

bool process_group_ended(struct process_group *group, int *ret_status)
{
    if (group->leader == 0 || !has_ended(group))
        return false;
    reap(group, ret_status);
    return true;
}

void process_group_kill(const struct process_group *group)
{
    if (group->leader > 0)
        kill(-group->leader, SIGKILL);
}

void process_group_stop(struct process_group *group, int64_t stop_ms)
{
    int64_t deadline_ms = clock_ms() + stop_ms;
    int status;
    if (group->leader == 0)
        return;
    kill(-group->leader, SIGTERM);
    while (!has_ended(group) && clock_ms() < deadline_ms)
        poll(NULL, 0, 10);
    reap(group, &status);
}
