/* One process of the local stack: started, watched, started again with backoff. */
#ifndef ORCHESTRATOR_STACK_CHILD_H
#define ORCHESTRATOR_STACK_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/config.h"
#include "common/loop.h"
#include "schemas/buf.h"

/* In the order of starting; ended in the order of `ends`: workers first, Redis last.
 * X(constant, name, ends, grace_ms after SIGTERM, needed for the stack to be up) */
#define STACK_KINDS(X)                                                                             \
    X(REDIS, "redis", 4, 10000, true)                                                              \
    X(BROKER, "broker", 2, 3000, true)                                                             \
    X(SIMULATOR, "simulator", 3, 3000, true)                                                       \
    X(DAEMON, "daemon", 1, 5000, true)                                                             \
    X(WORKER, "worker", 0, 0, false)
enum stack_kind {
#define X(constant, name, ends, grace_ms, needed) STACK_##constant,
    STACK_KINDS(X)
#undef X
        STACK_KIND_COUNT
};

struct stack_kind_row {
    const char *name;
    int ends;
    int64_t grace_ms; /* workers: what the drain grants */
    bool needed;
};
extern const struct stack_kind_row stack_kinds[STACK_KIND_COUNT];

struct stack_child;

struct stack_child_events {
    void (*ready)(void *ctx, struct stack_child *child);
    /* It said why it cannot get ready, or ended before it was: sentence. Told once per start. */
    void (*failed)(void *ctx, struct stack_child *child, const char *sentence);
    void (*ended)(void *ctx, struct stack_child *child); /* after SIGTERM or SIGKILL of ours */
};

struct stack_child_options {
    enum stack_kind kind;
    const char *name;    /* unique; copied */
    char **argv;         /* ended by NULL; taken over */
    char **environment;  /* ended by NULL; the array is taken over, its strings are borrowed */
    const char *log_dir; /* copied */
    int inherit_fd;      /* the process keeps it open; -1: none */
    const char *socket; /* Redis: ready once PING is answered there; copied; NULL: says so itself */
};

struct stack_child *stack_child_new(uv_loop_t *loop, const struct stack_child_options *options,
                                    const struct stack_child_events *events, void *ctx);
void stack_child_free(struct stack_child **child); /* SIGKILL if it still runs; accepts NULL */

void stack_child_start(struct stack_child *child);
/* Asks for the end: no restart any more. A second time, or with SIGKILL, it is immediate. */
void stack_child_stop(struct stack_child *child, int signal_number);
/* SIGCHLD has come: looks whether this one ended. */
void stack_child_reap(struct stack_child *child);

enum stack_kind stack_child_kind(const struct stack_child *child);
const char *stack_child_name(const struct stack_child *child);
const char *stack_child_log(const struct stack_child *child); /* path */
pid_t stack_child_pid(const struct stack_child *child);       /* 0: does not run */
bool stack_child_is_ready(const struct stack_child *child);
void stack_child_print(const struct stack_child *child, struct buf *out); /* one JSON object */

/* Appends to a log file; false when it cannot be opened. Files past 10 MB are moved to .1 first. */
int stack_log_open(const char *path);

#endif
