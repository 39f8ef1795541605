/* What most commands need: configuration, loop and queue, opened and closed together. */
#ifndef ORCHESTRATOR_CLIENT_H
#define ORCHESTRATOR_CLIENT_H

#include "common/config.h"
#include "common/json.h"
#include "common/loop.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "orchestrator/command.h"

struct client {
    uv_loop_t loop;
    struct config *config;
    struct queue *queue; /* NULL before client_connect() */
    bool open;           /* the loop is */
    bool up;             /* Redis answers */
    char why[256];       /* why it doesn't; "" */
    bool judged;         /* whether it is the one that this home knows */
    char foreign[512];   /* why it is not; "" */
    /* Told when Redis goes away and comes back after client_connect(); may be NULL. */
    void (*on_redis)(void *ctx, bool up, const char *why);
    void *on_redis_ctx;
};

/* Reads the configuration; an error is printed. Returns EXIT_DONE or the exit code. */
int client_open(struct client *client, const struct invocation *invocation);
/* Connects to Redis and waits until it answers, at most timeout_ms. With start_stack, a configured
 * local stack that does not run is started first. Errors are printed. */
int client_connect(struct client *client, const struct invocation *invocation, bool start_stack);
void client_close(struct client *client); /* accepts one that was only partly opened */
/* The exec of a command that works on tasks given as arguments: calls fn for each with a connected
 * client, stops when Redis is lost or a limit is reached (EXIT_UNREACHABLE, EXIT_STOPPED), and
 * returns the first code that is not EXIT_DONE. */
typedef int client_task_fn(struct client *client, const struct invocation *invocation,
                           const char *given, void *ctx);
int client_each_task(const struct invocation *invocation, client_task_fn *fn, void *ctx);

/* --- answers, waited for ------------------------------------------------------------------- */

#define CLIENT_ANSWER_MS 30000 /* for what should take a moment */

/* What a queue call answered; pass client_answered and &answer as its callback. */
struct client_answer {
    bool done;
    enum queue_status status;
    char err[512];
};
void client_answered(void *ctx, enum queue_status status, const char *err);
/* Waits for a flag that a callback sets. EXIT_DONE, or EXIT_UNREACHABLE, which has been printed;
 * then the queue is closed. */
int client_wait(struct client *client, const struct invocation *invocation, const bool *done);
/* Prints what a status other than OK and DUP means; returns the exit code. */
int client_explain(struct client *client, const struct invocation *invocation, const char *task,
                   const struct client_answer *answer);

/* --- tasks ---------------------------------------------------------------------------------- */

/* Every function here waits, prints what goes wrong, and returns an exit code. */

/* A task id from an id or a unique beginning of one. */
int client_resolve(struct client *client, const struct invocation *invocation, const char *given,
                   char ret[TASK_ID_SIZE]);
/* The task as an object of task_json.h, from Redis or else from the archive. The caller
 * json_decref()s it. */
int client_task(struct client *client, const struct invocation *invocation, const char *id,
                json_t **ret);
/* An array of {task_id, state, title, created_ms, finished_ms, total, remaining, archived}, newest
 * first, of Redis and archive together. */
int client_list(struct client *client, const struct invocation *invocation, int64_t limit,
                json_t **ret);

#endif
