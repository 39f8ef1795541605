/* The system under chaos: real programs that are killed and started again as a supervisor would,
 * the queue's client that loads them, and what the simulator has been asked. Faults are told to the
 * oracle as they happen. One thread; a turn of everything is rig_turn(). */
#ifndef TESTS_CHAOS_RIG_H
#define TESTS_CHAOS_RIG_H

#include "tests/chaos/oracle.h"
#include "tests/lib/testbed.h"

#define RIG_LEASE_MS 6000
#define RIG_PROCESSES 16
#define RIG_NAME 24

/* X(constant, word) */
#define RIG_PROGRAMS(X)                                                                            \
    X(WORKER, "worker")                                                                            \
    X(BROKER, "broker")                                                                            \
    X(DAEMON, "daemon")                                                                            \
    X(REDIS, "redis-server")
enum rig_program {
#define X(constant, word) RIG_##constant,
    RIG_PROGRAMS(X)
#undef X
        RIG_PROGRAM_COUNT
};
const char *rig_program_name(enum rig_program program);

enum rig_state {
    RIG_DOWN,     /* until it is started again: at once, unless it is held down */
    RIG_STARTING, /* has not said that it is ready */
    RIG_UP,
    RIG_STOPPED, /* by SIGSTOP */
};

struct rig_process {
    enum rig_program program;
    int index; /* among those of its program */
    char name[RIG_NAME];
    enum rig_state state;
    pid_t pid;
    bool held_down;         /* not started again */
    bool rests;             /* the same for now: a kill sweep begins its lives one by one */
    bool armed;             /* this life began with a failpoint */
    bool was_starting;      /* when it was stopped */
    bool was_stopped;       /* in this life */
    bool was_killed;        /* by us: its end is no surprise */
    int64_t down_ms;        /* wall clock since when it has not been ready; 0: it is */
    int64_t started_ms;     /* monotonic */
    int64_t continue_ms;    /* monotonic; 0: not stopped */
    int64_t stopped_ms;     /* wall clock */
    int64_t ready_after_ms; /* what the last start took */
    char log[48];
    char failpoint[96];     /* ORCH_FAILPOINT of the next start; "": none */
    char failpoint_log[64]; /* file below the directory; "": none */
};

/* A call that the simulator has seen. */
struct rig_call {
    char task[24], sub[65];
    int64_t time_ms;
    enum oracle_call_end end;
    bool running;
};

struct rig_options {
    int workers, brokers, daemons;
    int concurrency; /* of each worker */
    uint64_t seed;
    int lease_ms;         /* 0: RIG_LEASE_MS */
    const char *scenario; /* NULL: that of load.h */
};

struct rig {
    struct testbed testbed;
    uv_loop_t loop;
    struct queue *queue;
    struct oracle *oracle;
    struct rig_options options;
    struct rig_process processes[RIG_PROCESSES];
    size_t n_processes;
    struct rig_call *calls; /* by sequence, from 1 */
    size_t n_calls;
    size_t settled;             /* calls up to here have ended */
    int64_t journal_ms;         /* monotonic: it was last read */
    int64_t redis_disturbed_ms; /* wall clock: it was away for long; 0: never */
    int starts;
    int kills[RIG_PROGRAM_COUNT], stops[RIG_PROGRAM_COUNT];
    int surprises; /* processes that ended by themselves */
};

/* True once SIGINT or SIGTERM has come: everything is to be ended. */
bool rig_interrupted(void);
void rig_catch_signals(void);

/* Everything runs and is ready when it returns; 0, or -1 with a line on stderr. */
int rig_open(struct rig *rig, const struct rig_options *options);
void rig_close(struct rig *rig); /* ends everything and removes the directory */

struct rig_process *rig_process(struct rig *rig, enum rig_program program, int index);
/* SIGKILL; it is started again with the next turn. */
void rig_kill(struct rig *rig, struct rig_process *process);
/* SIGSTOP, and SIGCONT after so long. */
void rig_stop(struct rig *rig, struct rig_process *process, int64_t for_ms);
/* Ends it well, for good. Its exit status; -1: it did not end in time. */
int rig_end(struct rig *rig, struct rig_process *process, int64_t timeout_ms);

/* Lets the loop run for a moment, starts again what is down, continues what has stood still for
 * long enough, and reads the simulator's journal. */
void rig_turn(struct rig *rig);
/* Turns until fn(ctx); false when that took too long, or on a signal. */
bool rig_wait(struct rig *rig, bool (*fn)(void *ctx), void *ctx, int64_t timeout_ms);
bool rig_all_up(void *rig);
/* What `orchestrator status` and the logs say goes to stderr. */
void rig_status(struct rig *rig);

/* Everything that was and is there goes to the oracle. Nothing may run any more. */
int rig_collect(struct rig *rig, const char (*tasks)[24], size_t n_tasks);

#endif
