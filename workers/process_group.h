/* A process group of a child: its start, its output, its memory, its end. */
#ifndef WORKERS_PROCESS_GROUP_H
#define WORKERS_PROCESS_GROUP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct process_options {
    char *const *argv; /* ends with NULL; the first is searched in PATH */
    const char *gpu;   /* index or UUID that is all it sees, and near whose CPUs it runs; NULL */
    const char *log;   /* file that its output is appended to */
    const char *const *hidden; /* names of environment variables that it does not get */
    size_t n_hidden;
};

/* Starts it in a group of its own; it is killed when this process ends. 0, or what fork, the log
 * file or exec said, negative. */
int process_group_start(pid_t *ret, const struct process_options *options);
/* Resident bytes of all processes of the group; 0: unknown. */
int64_t process_group_memory(pid_t group);
/* SIGTERM, and SIGKILL after stop_ms; blocks until the leader is gone. */
void process_group_stop(pid_t group, int64_t stop_ms);

#endif
