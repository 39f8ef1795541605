#include "orchestrator/questions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "orchestrator/client_archive.h"
#include "orchestrator/plan.h"
#include "orchestrator/task_json.h"
#include "schemas/mem.h"

#define LOOK_MS 100

struct asking;

/* On the heap, and kept until the queue has answered: a reading may come after a time-out. */
struct looking {
    struct asking *asking; /* NULL: nobody waits any more */
    struct question *question;
};

struct asking {
    struct client *client;
    struct question *questions;
    struct looking **looking; /* of each question; NULL: none under way */
    size_t count, left;
    question_fn *fn;
    void *ctx;
    bool stopped, over;
};

/* --- submitting --------------------------------------------------------------------------- */

/* The info that `show` and the archive know tasks by. */
static char *make_info(const struct client *client, const struct question *question)
{
    json_t *info = json_object();
    json_object_set_new(info, PLAN_INFO_TEXT, json_string(question->title));
    json_object_set_new(info, PLAN_INFO_PLANNED, json_false());
    json_object_set_new(info, "simulated", json_boolean(client->config->simulated));
    char *text = json_dumps(info, JSON_COMPACT);
    if (text == NULL)
        abort();
    json_decref(info);
    return text;
}

static struct queue_spend task_budget(const struct config *config)
{
    return (struct queue_spend){.nano_usd = (int64_t)(config->budget.task_usd * 1e9),
                                .tokens = config->budget.task_tokens};
}

static int submit(struct client *client, const struct invocation *invocation,
                  struct question *question)
{
    struct plan_nodes nodes = {0};
    struct err err = {""};
    const struct plan_question asked = {.kind = question->kind,
                                        .title = question->title,
                                        .arm = question->arm,
                                        .prompt = question->prompt,
                                        .max_tokens = question->max_tokens};
    if (plan_to_question_node(&nodes, client->config, &asked, &err) != 0)
        return command_fail(invocation, EXIT_FAILED, "%s", err.text);
    char *info = make_info(client, question);
    task_id_make(question->task);
    const struct queue_task task = {
        .id = question->task,
        .digest = question->task,
        .title = question->title,
        .info = {info, strlen(info)},
        .budget = task_budget(client->config),
        .nodes = nodes.nodes,
        .n_nodes = nodes.n_nodes,
    };
    struct client_answer answer = {0};
    queue_submit(client->queue, &task, client_answered, &answer);
    free(info);
    plan_nodes_release(&nodes);
    int code = client_wait(client, invocation, &answer.done);
    return code != EXIT_DONE ? code : client_explain(client, invocation, question->task, &answer);
}

/* --- waiting ------------------------------------------------------------------------------ */

static void take(struct asking *asking, struct question *question, const json_t *task)
{
    question->answer = json_incref(json_array_get(json_get(task, "subtasks"), 0));
    if (question->answer == NULL)
        question->answer = json_object();
    asking->fn(asking->ctx, question);
    asking->over = --asking->left == 0;
}

/* Where finished tasks are archived at once, Redis may not have it any more. */
static json_t *read_archive(const struct asking *asking, const struct question *question)
{
    json_t *task = NULL;
    struct err err = {""};
    return client_archive_task(asking->client->config, question->task, &task, &err) == 0 ? task
                                                                                         : NULL;
}

static void looked(void *ctx, enum queue_status status, const struct queue_task_view *view,
                   const char *err)
{
    struct looking *looking = ctx;
    struct asking *asking = looking->asking;
    json_t *task = NULL;
    (void)err; /* Redis comes back, or the time is up */
    if (asking != NULL) {
        asking->looking[looking->question - asking->questions] = NULL;
        if (view != NULL && task_state_terminal(view->state))
            task = task_json(view);
        else if (status == QUEUE_GONE)
            task = read_archive(asking, looking->question);
        if (task != NULL)
            take(asking, looking->question, task);
        json_decref(task);
    }
    free(looking);
}

static void look(void *ctx)
{
    struct asking *asking = ctx;
    for (size_t i = 0; i < asking->count; i++) {
        if (asking->questions[i].answer != NULL || asking->looking[i] != NULL)
            continue;
        struct looking *looking = mem_must_zalloc(sizeof *looking);
        *looking = (struct looking){asking, &asking->questions[i]};
        asking->looking[i] = looking;
        queue_read(asking->client->queue, asking->questions[i].task, false, looked, looking);
    }
}

static void signalled(void *ctx, int signal_number)
{
    struct asking *asking = ctx;
    (void)signal_number;
    asking->stopped = asking->over = true;
}

static void forget_looking(struct asking *asking)
{
    for (size_t i = 0; i < asking->count; i++)
        if (asking->looking[i] != NULL)
            asking->looking[i]->asking = NULL;
    free(asking->looking);
    asking->looking = NULL;
}

static void await(struct asking *asking, int64_t until_ms)
{
    uv_loop_t *loop = &asking->client->loop;
    struct loop_timer *timer = loop_timer_new(loop, look, asking);
    asking->looking = mem_must_zalloc((asking->count + 1) * sizeof(struct looking *));
    loop_on_stop(loop, signalled, asking);
    loop_timer_start(timer, LOOK_MS, LOOK_MS);
    int64_t left_ms = until_ms - clock_ms();
    if (asking->left > 0)
        loop_run_until(loop, &asking->over, left_ms > 0 ? left_ms : 0);
    loop_stop_release(loop);
    loop_timer_free(&timer);
    forget_looking(asking);
}

/* What nobody waits for any more is not paid for. */
static int cancel_rest(struct client *client, const struct invocation *invocation,
                       struct question *questions, size_t count)
{
    int code = EXIT_DONE;
    for (size_t i = 0; code == EXIT_DONE && i < count; i++) {
        struct client_answer answer = {0};
        if (questions[i].answer != NULL || questions[i].task[0] == '\0')
            continue;
        queue_cancel(client->queue, questions[i].task, client_answered, &answer);
        code = client_wait(client, invocation, &answer.done);
    }
    return code;
}

int questions_ask(struct client *client, const struct invocation *invocation,
                  struct question *questions, size_t count, int64_t until_ms, question_fn *fn,
                  void *ctx)
{
    struct asking asking = {.client = client,
                            .questions = questions,
                            .count = count,
                            .left = count,
                            .fn = fn,
                            .ctx = ctx};
    int code = EXIT_DONE;
    for (size_t i = 0; code == EXIT_DONE && i < count; i++)
        code = submit(client, invocation, &questions[i]);
    if (code == EXIT_DONE)
        await(&asking, until_ms);
    if (client->queue != NULL) { /* client_wait() closes it when Redis is gone */
        int rest = cancel_rest(client, invocation, questions, count);
        code = code != EXIT_DONE ? code : rest;
    }
    return code == EXIT_DONE && asking.stopped ? EXIT_STOPPED : code;
}

void questions_release(struct question *questions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        json_decref(questions[i].answer);
        questions[i].answer = NULL;
    }
}
