/* A process group of a child: its start, its output, its memory, its end. */
#ifndef WORKERS_PROCESS_GROUP_H
#define WORKERS_PROCESS_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct process_options {
    char *const *argv; /* ends with NULL; the first is searched in PATH */
    const char *gpu;   /* index or UUID that is all it sees, and near whose CPUs it runs; NULL */
    const char *root;  /* of /proc and /sys for those CPUs; NULL: the machine's own */
    const char *log;   /* file that its output is appended to */
    const char *const *hidden; /* names of environment variables that it does not get */
    size_t n_hidden;
};

/* Plain data; all zero: none runs. */
struct process_group {
    pid_t leader;
    pid_t guard;  /* kills the group when this process has ended, however it did */
    int lifeline; /* of the guard: closed by our end */
};

/* Starts it in a group of its own; all of it is killed when this process ends. 0, or what fork, the
 * log file or exec said, negative. */
int process_group_start(struct process_group *ret, const struct process_options *options);
/* Whether its leader has ended, with the status of waitpid(2); what was left of the group is
 * killed, and *group is zero. */
bool process_group_ended(struct process_group *group, int *ret_status);
/* SIGKILL to all of it; its end is told as any other. */
void process_group_kill(const struct process_group *group);
/* Resident bytes of all its processes; 0: unknown. */
int64_t process_group_memory(const struct process_group *group);
/* SIGTERM, and SIGKILL to what is left when the leader has ended or after stop_ms; blocks until the
 * leader is gone. *group is zero then. */
void process_group_stop(struct process_group *group, int64_t stop_ms);

#endif
