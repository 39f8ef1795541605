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

static void child_run(const struct child *child)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != child->parent)
        _exit(127);
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

int process_group_start(pid_t *ret, const struct process_options *options)
{
    cpu_set_t cpus;
    pid_t pid = 0;
    char *gpu;
    bool pinned = options->gpu != NULL && gpu_cpus(&cpus, "", options->gpu) == 0;
    int log_fd = open(options->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return -errno;
    char **environment = environment_new(options, &gpu);
    struct child child = {.argv = options->argv,
                          .environment = environment,
                          .cpus = pinned ? &cpus : NULL,
                          .log_fd = log_fd};
    int error = spawn(&pid, &child);
    close(log_fd);
    free(gpu);
    free(environment);
    if (error == 0)
        *ret = pid;
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

int64_t process_group_memory(pid_t group)
{
    DIR *dir = opendir("/proc");
    if (dir == NULL)
        return 0;
    int64_t pages = 0;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        long its_group, its_pages;
        if (isdigit((unsigned char)entry->d_name[0]) &&
            read_stat(entry->d_name, &its_group, &its_pages) && its_group == group)
            pages += its_pages;
    }
    closedir(dir);
    return pages * sysconf(_SC_PAGESIZE);
}

/* --- end -------------------------------------------------------------------------------------- */

void process_group_stop(pid_t group, int64_t stop_ms)
{
    int64_t deadline_ms = clock_ms() + stop_ms;
    kill(-group, SIGTERM);
    while (waitpid(group, NULL, WNOHANG) == 0 && clock_ms() < deadline_ms)
        poll(NULL, 0, 10);
    kill(-group, SIGKILL);
    waitpid(group, NULL, 0); /* -ECHILD when it is reaped already */
}
