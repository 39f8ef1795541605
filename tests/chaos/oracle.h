/* Judges a run: what was submitted, and the faults that were injected, against what the queue, the
 * logs of the tasks, the profile store and the simulator tell of it afterwards. It does no I/O: it
 * is fed, in any order, and then says what is wrong. Nothing may be lost, nothing committed twice,
 * nothing be there that nobody asked for, and no call be made that no fault explains. */
#ifndef TESTS_CHAOS_ORACLE_H
#define TESTS_CHAOS_ORACLE_H

#include "common/queue.h"

struct oracle;

struct oracle *oracle_new(void);
void oracle_free(struct oracle **oracle); /* accepts NULL */

/* --- what was done to the system -------------------------------------------------------------- */

/* How a task may end, besides DONE. */
struct oracle_plan {
    bool cancelled; /* it was cancelled, perhaps too late */
    int dead_after; /* a subtask may be dead after so many provider faults; 0: none may */
};
void oracle_submitted(struct oracle *oracle, const char *task, const struct oracle_plan *plan);

/* A process was killed, or did not run, from one moment to another (wall clock, ms). Attempts of a
 * worker that were under way at the time may be lost: those of `worker`, or of all where it is
 * NULL, as when Redis stood still for longer than a lease. */
void oracle_fault(struct oracle *oracle, const char *worker, int64_t from_ms, int64_t to_ms);

/* A worker was killed at `ms` with this response in its spool, and started again before its lease
 * ran out: nobody may pay for it again. */
void oracle_received(struct oracle *oracle, const char *task, const char *sub, int64_t ms);

/* --- what is there afterwards ------------------------------------------------------------------
 */

/* The task as the queue has it, when nothing runs any more. */
void oracle_task(struct oracle *oracle, const struct queue_task_view *view);
/* Its log, in order. */
void oracle_log(struct oracle *oracle, const char *task, const struct queue_log_entry *entry);
/* A row of the profile store. */
void oracle_row(struct oracle *oracle, const struct msg_timing *row);

enum oracle_call_end {
    ORACLE_CALL_COMPLETED, /* the whole, right answer was sent */
    ORACLE_CALL_CUT,       /* the client went away */
    ORACLE_CALL_FAULT,     /* the simulator was told to fail */
};
/* A call that the simulator has seen. */
void oracle_call(struct oracle *oracle, const char *task, const char *sub, int64_t started_ms,
                 enum oracle_call_end end);
/* Something that fsck has found. */
void oracle_finding(struct oracle *oracle, const char *task, const char *sub, const char *text);

/* --- the verdict ------------------------------------------------------------------------------ */

/* X(constant, word)
 * LOST: submitted, and has not ended, or has no commit where it is done. DUPLICATED: committed or
 * kept twice, or run again after its commit. UNEXPECTED: what nobody asked for, or ended as it may
 * not, or failed without a fault. PAID: more calls than 1 + the faults injected into it.
 * PAID_TWICE: called again although the response was in a spool. */
#define ORACLE_RULES(X)                                                                            \
    X(LOST, "lost")                                                                                \
    X(DUPLICATED, "duplicated")                                                                    \
    X(UNEXPECTED, "unexpected")                                                                    \
    X(PAID, "paid too often")                                                                      \
    X(PAID_TWICE, "paid twice")                                                                    \
    X(FSCK, "fsck")
enum oracle_rule {
#define X(constant, word) ORACLE_##constant,
    ORACLE_RULES(X)
#undef X
        ORACLE_RULE_COUNT
};
const char *oracle_rule_name(enum oracle_rule rule);

/* Called for each violation. sub: "" where it is one of the task. */
typedef void oracle_violation_fn(void *ctx, enum oracle_rule rule, const char *task,
                                 const char *sub, const char *text);

struct oracle_verdict {
    int64_t tasks, done, failed, cancelled; /* submitted, and how they ended */
    int64_t subtasks, commits, attempts, calls;
    int64_t provider_faults; /* calls that the simulator failed on purpose */
    int64_t lost_attempts;   /* explained by faults of processes */
    int64_t received;        /* responses that were in the spool of a killed worker */
    int64_t violations[ORACLE_RULE_COUNT];
    int64_t wrong; /* all of them */
};
/* stored: the rows of the profile store were fed too, and each commit must have one. */
struct oracle_verdict oracle_judge(struct oracle *oracle, bool stored, oracle_violation_fn *fn,
                                   void *ctx);

#endif
