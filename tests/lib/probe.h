/* The queue, called and waited for: what tests of the queue are written in. */
#ifndef TESTS_LIB_PROBE_H
#define TESTS_LIB_PROBE_H

#include "common/queue.h"
#include "tests/lib/fixture.h"

#define PROBE_WAIT_MS 30000

struct probe {
    struct fixture fixture;
    uv_loop_t loop;
    struct queue *queue;
    bool up;
    /* The last answer. */
    bool done;
    enum queue_status status;
    char err[1024];
    char token[128];
    int64_t attempt;
    double queue_ms;
    bool budgeted;
    struct buf work, deps; /* of a claim; deps: the outcomes' texts, each with a newline */
    struct buf text;       /* of a result; of a view: see probe_read() */
    /* What was followed: one line each. */
    struct buf events, log;
    int64_t n_events;
    char last_event[64][48]; /* per shard */
    struct queue_log_follow *follow;
    int64_t findings;
    bool quiet;                      /* findings are expected: not printed, but in text */
    struct queue_spend budget;       /* of what is submitted next */
    const char *arm;                 /* of what fails next; NULL: "model@place" */
    const struct queue_spend *spent; /* by what is committed, failed and lost next; NULL: unknown */
    int64_t view_cost;               /* in nano USD, of the last probe_read() */
    struct queue_spend view_spent, view_held; /* of the last probe_read() or probe_account() */
};

/* A node for probe_submit(): deps separated by spaces. */
struct probe_node {
    const char *id;
    const char *deps;
    int priority;
    int max_attempts; /* 0: 3 */
    bool expands;
};

void probe_open(struct probe *probe); /* fixture, redis-server, queue */
void probe_close(struct probe *probe);
/* Runs the loop until probe->done, which it resets; fails the test when it takes too long. */
void probe_wait(struct probe *probe);
/* Runs the loop until *flag. */
void probe_wait_for(struct probe *probe, const bool *flag);

enum queue_status probe_submit(struct probe *probe, const char *task, const char *digest,
                               const struct probe_node *nodes, size_t n_nodes);
/* Sends without waiting; `probe->done` tells. */
void probe_send_submit(struct probe *probe, const char *task, const char *digest,
                       const struct probe_node *nodes, size_t n_nodes);
enum queue_status probe_expand(struct probe *probe, const char *task, const char *parent,
                               const struct probe_node *nodes, size_t n_nodes);
/* token, attempt, work and deps are set by OK. */
enum queue_status probe_claim(struct probe *probe, const char *task, const char *sub,
                              const char *nonce);
enum queue_status probe_claim_for(struct probe *probe, const char *task, const char *sub,
                                  const char *nonce, int64_t lease_ms);
enum queue_status probe_hedge(struct probe *probe, const char *task, const char *sub,
                              const char *nonce, int64_t lease_ms);
enum queue_status probe_reserve(struct probe *probe, const char *task, const char *sub,
                                const char *token, const struct queue_account *accounts,
                                size_t n_accounts, struct queue_spend worst);
enum queue_status probe_lose(struct probe *probe, const char *task, const char *sub,
                             const char *token);
enum queue_status probe_renew(struct probe *probe, const char *task, const char *sub,
                              const char *token, int64_t lease_ms);
/* The outcome's text is "result of <sub>". */
enum queue_status probe_commit(struct probe *probe, const char *task, const char *sub,
                               const char *token);
enum queue_status probe_fail(struct probe *probe, const char *task, const char *sub,
                             const char *token, enum error_action action, int64_t backoff_ms);
/* Claims and commits. */
void probe_run(struct probe *probe, const char *task, const char *sub);
typedef void probe_sub_fn(struct queue *queue, const char *task, const char *sub, queue_fn *fn,
                          void *ctx);
enum queue_status probe_sub(struct probe *probe, probe_sub_fn *call, const char *task,
                            const char *sub);
typedef void probe_task_fn(struct queue *queue, const char *task, queue_fn *fn, void *ctx);
enum queue_status probe_task(struct probe *probe, probe_task_fn *call, const char *task);

/* "RUNNING 2/3 a=DONE b=READY c=BLOCKED" (state, remaining/total, subtasks); "GONE"; "ERROR". */
const char *probe_read(struct probe *probe, const char *task);
/* Sets view_spent and view_held to those of an account. */
void probe_account(struct probe *probe, const char *name);
/* One field of the answer to a Redis command, as text; words separated by spaces. */
const char *probe_redis(struct probe *probe, const char *words);
int64_t probe_fsck(struct probe *probe); /* number of findings, which are printed */
/* Starts following; events and log lines are collected. */
void probe_follow(struct probe *probe);
void probe_follow_log(struct probe *probe, const char *task, const char *after);
/* Runs the loop until the collected text contains it. */
void probe_wait_text(struct probe *probe, const struct buf *text, const char *want);

/* Records that fsck accepts; the bytes belong to the caller (buf_release). */
void probe_record(struct buf *out, enum message_type type, const char *text);

#endif
