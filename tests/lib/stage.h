/* The real programs (testbed.h) and a client of their queue: tasks are submitted, waited for and
 * judged by what the simulator has recorded. */
#ifndef TESTS_LIB_STAGE_H
#define TESTS_LIB_STAGE_H

#include "common/config.h"
#include "common/task_id.h"
#include "tests/lib/testbed.h"

#define STAGE_WAIT_MS 90000

struct stage {
    struct testbed testbed;
    uv_loop_t loop;
    struct config *config;
    struct queue *queue;
};

/* Redis, simulator, broker, daemon and the workers (which NULL ends) are ready, and
 * ORCHESTRATOR_CONFIG names their configuration. */
void stage_open(struct stage *stage, const char *yaml, const char *scenario,
                const char *const *workers);
void stage_close(struct stage *stage); /* the daemon ends well */

/* --- tasks ------------------------------------------------------------------------------------ */

/* A task of n equal subtasks without dependencies, each with the prompt "<mark> <number>". */
struct stage_task {
    const char *mark;
    bool same;                /* the prompt is the mark alone */
    const char *const *roles; /* of the subtasks, in turn */
    size_t n_roles, n;
    struct queue_spend budget;
};
/* Writes the id. */
void stage_submit(struct stage *stage, const struct stage_task *task, char id[TASK_ID_SIZE]);
/* The same through `orchestrator submit --plan --detach` and two further words, such as a budget.
 * NULL: fewer. */
void stage_submit_plan(struct stage *stage, const struct stage_task *task, const char *option,
                       const char *value, char id[TASK_ID_SIZE]);

struct stage_view {
    bool done;
    enum task_state state;
    struct queue_spend budget, spent, held;
    int n_done, n_dead;
    char error_class[32], reason[512]; /* of the first dead subtask */
};
struct stage_view stage_read(struct stage *stage, const char *id);
/* Until it is over and holds nothing; what it has cost is settled then. */
struct stage_view stage_wait(struct stage *stage, const char *id);

/* Lines of the task's log: how many have `what` and, in their text, `part`. */
int stage_count_log(struct stage *stage, const char *id, const char *what, const char *part);

/* --- the command line ------------------------------------------------------------------------- */

/* Runs the CLI (without "orchestrator"; NULL ends the words) and returns its exit code. `out` may
 * be NULL; what goes wrong is printed. */
int stage_cli(struct stage *stage, const char *const *words, struct buf *out);
/* `show --json ID`; the caller releases it. */
json_t *stage_show(struct stage *stage, const char *id);
/* From when it returns, all events are in tap.log. */
void stage_tap(struct stage *stage);

/* --- the simulator's record ------------------------------------------------------------------- */

/* All calls since it started, oldest first; the caller releases the array. The test fails when it
 * has forgotten some. */
json_t *stage_calls(struct stage *stage);
/* Whether the call's prompt begins with the mark (and a blank or its end); NULL: any. */
bool stage_is_of(const json_t *call, const char *mark);
/* What the provider bills for these calls by the configuration's prices. */
struct queue_spend stage_bill(const struct stage *stage, const json_t *calls, const char *mark);
/* How many calls are of that model and met that rule; NULL, -2: any. */
int stage_count(const json_t *calls, const char *model, int rule);

#endif
