/* Real workers, a real broker and Redis; the test itself is orchestrator, provider and tap. */
#ifndef TESTS_LIB_WORKBENCH_H
#define TESTS_LIB_WORKBENCH_H

#include "common/bus.h"
#include "common/peer.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "tests/lib/fixture.h"
#include "tests/lib/http_server.h"

struct workbench {
    struct fixture fixture;
    uv_loop_t loop;
    struct http_server *server;
    struct config *config;
    struct queue *queue;
    struct peer *peer;
    struct bus *tap;
    char config_path[128];
    int starts; /* numbers the logs: worker-<n>.log */
    bool welcomed;
    struct buf events;       /* all that was on the bus: a JSON object a line */
    char task[TASK_ID_SIZE]; /* submitted last, with the one subtask "a" */
    /* the last answer of the queue */
    bool answered;
    enum queue_status status;
    /* what workbench_read() has seen of the subtask */
    enum sub_state state;
    int64_t attempts_made;
    char error_class[64], reason[600];
    struct message outcome, timing; /* type MESSAGE_NONE: none */
    struct queue_spend spent, held; /* of the task */
    /* the last decline that came */
    int declines;
    int64_t decline_ms;
    char decline_arm[128], decline_reason[256];
    /* what workbench_status() has seen */
    int workers;
    int64_t credit, running;
    char arms[512], paused[2048]; /* of the last worker, separated by newlines */
    bool status_done;
};

/* Starts Redis, the HTTP server and a broker. yaml: providers, models, workers, ...; in it, %d is
 * the server's port, %p a free one, and %s the fixture's directory. Nothing else runs yet. */
void workbench_open(struct workbench *bench, const char *yaml);
void workbench_close(struct workbench *bench);
pid_t workbench_spawn(struct workbench *bench, const char *const *argv, const char *log,
                      int *ret_ready);
/* The line that a program writes to its ready descriptor, which is closed. */
const char *workbench_ready_line(struct workbench *bench, int fd);
pid_t workbench_start_worker_with(struct workbench *bench, const char *name, const char *drain_ms,
                                  int *ret_ready);
/* Returns when it is ready. */
pid_t workbench_start_worker(struct workbench *bench, const char *name);

/* What is asked for when the test does not mind. */
struct msg_work workbench_work(void);
/* A task of the one subtask "a". budget: NULL: none. */
void workbench_submit(struct workbench *bench, const struct msg_work *work,
                      const struct queue_spend *budget);
void workbench_offer(struct workbench *bench, const char *model, bool hedge);
/* The answer to the last call of the queue with workbench_answered(). */
queue_fn workbench_answered;
enum queue_status workbench_answer(struct workbench *bench);
void workbench_read(struct workbench *bench);
/* False when it does not come to it. */
bool workbench_reaches(struct workbench *bench, enum sub_state state);
/* Submits, offers and waits for the state; fails the test when it does not come to it. */
void workbench_run(struct workbench *bench, const struct msg_work *work, const char *model,
                   enum sub_state state);
void workbench_wait_requests(struct workbench *bench, size_t n);
void workbench_status(struct workbench *bench);
bool workbench_credit_becomes(struct workbench *bench, int64_t credit);
/* Runs the loop until fn(bench); fails the test when that takes too long. */
void workbench_wait(struct workbench *bench, bool (*fn)(struct workbench *bench));
/* Waits until the text was in an event. */
void workbench_wait_event(struct workbench *bench, const char *text);
/* The text of the outcome; "" when there is none. */
const char *workbench_text(const struct workbench *bench);

#endif
