/* From a planner's outcome to children in the queue. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/task_id.h"
#include "orchestrator/daemon_state.h"
#include "schemas/mem.h"

#define TELL_MS 60000 /* failures of Redis are logged this often */

struct expanding {
    struct daemon *daemon;
    int64_t serial;
    char task[TASK_ID_SIZE], sub[SUB_ID_MAX + 1];
    size_t n_nodes;
};

static struct expanding *expanding_new(struct daemon *daemon, const struct flow_action *action)
{
    struct expanding *expanding = mem_must_zalloc(sizeof *expanding);
    expanding->daemon = daemon;
    expanding->serial = action->serial;
    snprintf(expanding->task, sizeof expanding->task, "%s", action->task);
    snprintf(expanding->sub, sizeof expanding->sub, "%s", action->sub);
    return expanding;
}

static void tell_failure(struct daemon *daemon, const char *what, const char *task, const char *why)
{
    int64_t now = clock_ms();
    if (daemon->expand_told_ms != 0 && now - daemon->expand_told_ms < TELL_MS)
        return;
    daemon->expand_told_ms = now;
    log_warn("cannot %s the plan of task %s: %s; trying again", what, task, why);
}

/* --- judging --------------------------------------------------------------------------------- */

static const struct queue_sub_view *find_sub(const struct queue_task_view *view, const char *id)
{
    for (size_t i = 0; i < view->n_subs; i++)
        if (strcmp(view->subs[i].id, id) == 0)
            return &view->subs[i];
    return NULL;
}

static enum flow_verdict judge_outcome(struct daemon *daemon, const struct queue_sub_view *sub,
                                       struct plan **ret, struct err *err)
{
    struct message outcome;
    if (message_decode_as(&outcome, MESSAGE_outcome, sub->outcome.data, sub->outcome.len) != 0) {
        err_set(err, -1, "the answer is not readable");
        return FLOW_VERDICT_BAD;
    }
    const struct bytes *text = &outcome.outcome.text;
    int rc = plan_parse_answer(ret, daemon->config, text->data, text->len, err);
    if (rc != 0 && strcmp(outcome.outcome.finish, "length") == 0)
        err_prefix(err, rc, "it was cut off at the limit of tokens");
    message_release(&outcome);
    return rc == 0 ? FLOW_VERDICT_PLAN : FLOW_VERDICT_BAD;
}

static void judge(struct expanding *expanding, const struct queue_task_view *view,
                  struct flow_event *event)
{
    struct daemon *daemon = expanding->daemon;
    const struct queue_sub_view *sub = find_sub(view, expanding->sub);
    if (view->state != TASK_RUNNING || sub == NULL || sub->state != SUB_DONE) {
        event->verdict = FLOW_VERDICT_MOOT;
        daemon_step(daemon, *event);
        return;
    }
    struct err err = {""};
    struct plan *plan = NULL;
    json_t *info = json_parse(view->info.data, view->info.len, NULL);
    event->verdict = judge_outcome(daemon, sub, &plan, &err);
    event->text = err.text;
    struct judged judged = {
        .plan = plan,
        .text = json_str(info, PLAN_INFO_TEXT, view->title),
        .role = json_str(info, PLAN_INFO_ROLE, ""),
        .model = json_str(info, PLAN_INFO_MODEL, ""),
        .synthesize = json_bool(info, PLAN_INFO_SYNTHESIZE, true),
        .priority = json_int(info, PLAN_INFO_PRIORITY, 0),
        .overrides = plan_overrides_of(info),
    };
    daemon->judged = &judged;
    daemon_step(daemon, *event);
    event->text = "";
    daemon->judged = NULL;
    plan_free(&plan);
    json_decref(info);
}

static void task_read(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    struct expanding *expanding = ctx;
    struct flow_event event = {.kind = FLOW_EVENT_PLAN,
                               .serial = expanding->serial,
                               .shard = task_shard(expanding->task),
                               .task = expanding->task,
                               .sub = expanding->sub,
                               .text = "",
                               .verdict = FLOW_VERDICT_LATER};
    if (expanding->daemon->stopping) {
        free(expanding);
        return;
    }
    if (status == QUEUE_GONE)
        event.verdict = FLOW_VERDICT_MOOT;
    if (view != NULL) {
        judge(expanding, view, &event);
    } else {
        if (status != QUEUE_GONE)
            tell_failure(expanding->daemon, "read", expanding->task, err);
        daemon_step(expanding->daemon, event);
    }
    free(expanding);
}

void daemon_read(struct daemon *daemon, const struct flow_action *action)
{
    queue_read(daemon->queue, action->task, false, task_read, expanding_new(daemon, action));
}

/* --- expanding ------------------------------------------------------------------------------- */

static int single_nodes(struct daemon *daemon, const struct judged *judged, struct plan_nodes *ret,
                        struct err *err)
{
    struct plan *plan = NULL;
    int rc = plan_single(&plan, daemon->config, judged->text, judged->role, judged->model, err);
    if (rc != 0) /* the configuration is no longer the one of the submitter */
        rc = plan_single(&plan, daemon->config, judged->text, NULL, NULL, err);
    if (rc == 0)
        rc = plan_to_nodes(ret, plan, daemon->config, judged->text, err);
    plan_free(&plan);
    return rc;
}

static int make_nodes(struct daemon *daemon, const struct flow_action *action,
                      struct plan_nodes *ret, struct err *err)
{
    const struct judged *judged = daemon->judged;
    if (action->expand == FLOW_EXPAND_PLAN) {
        judged->plan->synthesize = judged->synthesize;
        return plan_to_nodes(ret, judged->plan, daemon->config, judged->text, err);
    }
    if (action->expand == FLOW_EXPAND_REPAIR)
        return plan_to_planner_nodes(ret, daemon->config, judged->text, action->sub, action->text,
                                     err);
    return single_nodes(daemon, judged, ret, err);
}

static void expanded(void *ctx, enum queue_status status, const char *err)
{
    struct expanding *expanding = ctx;
    char text[64];
    snprintf(text, sizeof text, "%zu subtasks", expanding->n_nodes);
    if (!expanding->daemon->stopping) {
        if (status == QUEUE_REFUSED || status == QUEUE_ERROR)
            tell_failure(expanding->daemon, "store", expanding->task, err);
        if (status == QUEUE_CONFLICT) /* ours are unique: somebody else added subtasks */
            log_error("the plan of task %s has ids that the task has already; cancel it",
                      expanding->task);
        daemon_step(expanding->daemon, (struct flow_event){.kind = FLOW_EVENT_EXPANDED,
                                                           .serial = expanding->serial,
                                                           .shard = task_shard(expanding->task),
                                                           .task = expanding->task,
                                                           .sub = expanding->sub,
                                                           .status = status,
                                                           .text = text});
    }
    free(expanding);
}

static void note_complaint(struct daemon *daemon, const struct flow_action *action)
{
    char *note = mem_must_printf("the plan cannot be used (%s): %s", action->text,
                                 action->expand == FLOW_EXPAND_REPAIR
                                     ? "the planner is asked once more"
                                     : "the task is carried out as one subtask");
    queue_log_note(daemon->queue, action->task, action->sub, note);
    free(note);
}

void daemon_expand(struct daemon *daemon, const struct flow_action *action)
{
    struct plan_nodes nodes = {0};
    struct err err = {""};
    int rc = make_nodes(daemon, action, &nodes, &err);
    if (rc != 0) {
        log_warn("task %s: %s; it is carried out as one subtask", action->task, err.text);
        rc = single_nodes(daemon, daemon->judged, &nodes, &err);
    }
    if (rc == 0)
        rc = plan_overrides_apply(&nodes, &daemon->judged->overrides, &err);
    if (rc != 0) { /* nothing can be made of it: the task ends with what it has */
        plan_nodes_release(&nodes);
        log_error("task %s cannot be carried out: %s", action->task, err.text);
        queue_log_note(daemon->queue, action->task, action->sub, err.text);
    } else if (action->expand != FLOW_EXPAND_PLAN) {
        note_complaint(daemon, action);
    }
    for (size_t i = 0; i < nodes.n_nodes; i++)
        nodes.nodes[i].priority = daemon->judged->priority;
    struct expanding *expanding = expanding_new(daemon, action);
    expanding->n_nodes = nodes.n_nodes;
    queue_expand(daemon->queue, action->task, action->sub, nodes.nodes, nodes.n_nodes, expanded,
                 expanding);
    plan_nodes_release(&nodes);
}
