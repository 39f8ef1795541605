/* Questions of the system's own to single arms, such as whether they answer: each a task of one
 * subtask, so that the failure of one ends no other; all run at once. */
#ifndef ORCHESTRATOR_QUESTIONS_H
#define ORCHESTRATOR_QUESTIONS_H

#include <stdint.h>

#include "orchestrator/client.h"

struct question {
    const char *kind;   /* run, embed, list */
    const char *arm;    /* who is asked: model@place */
    const char *title;  /* of the task; "test of ARM" */
    const char *prompt; /* list: anything */
    int64_t max_tokens; /* of the answer; 0: no limit */
    char task[TASK_ID_SIZE];
    json_t *answer; /* the subtask as in task_json.h, once it has ended; NULL: it has not */
};

/* When an answer has come. */
typedef void question_fn(void *ctx, const struct question *question);
/* Submits all and waits until all have ended, at most until_ms (monotonic clock). Then, or at the
 * first Ctrl-C, what is left is cancelled. EXIT_DONE, also when the time is up: see answer;
 * EXIT_STOPPED after a signal; what client_wait() fails with, which has been printed. */
int questions_ask(struct client *client, const struct invocation *invocation,
                  struct question *questions, size_t count, int64_t until_ms, question_fn *fn,
                  void *ctx);
void questions_release(struct question *questions, size_t count); /* the answers */

#endif
