/* The queue, as the scripts have it: every move is checked against the table of legal ones. */
#include <limits.h>
#include <string.h>

#include "tests/lib/world.h"

enum { PLAN, REPAIR, FIRST };

static int shard_of(int task)
{
    return task % WORLD_SHARDS;
}

struct world_sub *world_sub(struct world *world, struct world_name name)
{
    return &world->tasks[name.task].subs[name.sub];
}

/* --- what every script does ------------------------------------------------------------------- */

static void begin(struct world *world)
{
    world->entry_open = false;
}

static struct world_event *emit(struct world *world, enum queue_event_kind kind,
                                struct world_name name)
{
    struct world_outbox *outbox = &world->outboxes[shard_of(name.task)];
    if (outbox->n_events == WORLD_EVENTS)
        world_wrong(world, "the outbox of the model is full");
    if (!world->entry_open)
        outbox->n_entries++;
    world->entry_open = true;
    struct world_event *event = &outbox->events[outbox->n_events++];
    *event = (struct world_event){.kind = kind, .name = name, .entry = outbox->n_entries};
    if (name.sub >= 0) {
        const struct world_sub *sub = world_sub(world, name);
        event->attempt = sub->attempt;
        event->priority = sub->priority;
        event->expands = sub->expands == 1;
        event->moves = sub->moves;
    }
    return event;
}

static void move(struct world *world, struct world_name name, enum sub_state to)
{
    struct world_sub *sub = world_sub(world, name);
    if (!sub_state_may_move(sub->state, to))
        world_wrong(world, "%s/%s moves from %s to %s", world_task_name(name.task),
                    world_sub_name(name.sub), sub_state_name(sub->state), sub_state_name(to));
    sub->state = to;
}

static void make_ready(struct world *world, struct world_name name)
{
    struct world_sub *sub = world_sub(world, name);
    move(world, name, SUB_READY);
    sub->order = ++world->order;
    emit(world, QUEUE_EVENT_READY, name);
}

static void finish(struct world *world, int task, enum task_state state)
{
    world->tasks[task].state = state;
    emit(world, QUEUE_EVENT_TASK, (struct world_name){task, -1})->state = state;
}

static void cancel_rest(struct world *world, int task, bool running_too)
{
    for (int i = 0; i < WORLD_SUBS; i++) {
        struct world_name name = {task, i};
        struct world_sub *sub = world_sub(world, name);
        if (sub->exists && !sub_state_terminal(sub->state) &&
            (running_too || sub->state != SUB_RUNNING))
            move(world, name, SUB_CANCELLED);
    }
}

static void die(struct world *world, struct world_name name)
{
    struct world_task *task = &world->tasks[name.task];
    move(world, name, SUB_DEAD);
    emit(world, QUEUE_EVENT_DEAD, name);
    if (task->state != TASK_RUNNING)
        return;
    cancel_rest(world, name.task, false);
    finish(world, name.task, TASK_FAILED);
}

/* --- submitting ------------------------------------------------------------------------------- */

/* Depends on some of those before it, from `first` on. */
static void add(struct world *world, struct world_name name, int expands, int first)
{
    struct world_sub *sub = world_sub(world, name);
    *sub = (struct world_sub){.exists = true,
                              .state = SUB_BLOCKED,
                              .expands = expands,
                              .bad_plan = world_chance(world, 3) == 0,
                              .max = 1 + world_chance(world, 3),
                              .priority = (int64_t)world_chance(world, 3) - 1};
    sub->left = sub->max;
    for (int i = first; i < name.sub; i++) {
        const struct world_sub *other = &world->tasks[name.task].subs[i];
        if (!other->exists || world_chance(world, 2) != 0)
            continue;
        sub->deps |= 1U << i;
        sub->indegree += other->state != SUB_DONE;
    }
    world->tasks[name.task].remaining += 1 + (expands == 1);
    if (sub->indegree == 0)
        make_ready(world, name);
}

void world_submit(struct world *world, int index)
{
    struct world_task *task = &world->tasks[index];
    begin(world);
    task->state = TASK_RUNNING;
    emit(world, QUEUE_EVENT_SUBMITTED, (struct world_name){index, -1});
    if (world_chance(world, 2) == 0) {
        add(world, (struct world_name){index, PLAN}, 1, PLAN);
        return;
    }
    int n = 1 + (int)world_chance(world, 4);
    for (int i = FIRST; i < FIRST + n; i++)
        add(world, (struct world_name){index, i}, 0, FIRST);
}

static int free_sub(const struct world_task *task)
{
    for (int i = FIRST; i < WORLD_SUBS; i++)
        if (!task->subs[i].exists)
            return i;
    return -1;
}

static void add_children(struct world *world, struct world_name name, enum flow_expand how)
{
    struct world_task *task = &world->tasks[name.task];
    if (how == FLOW_EXPAND_REPAIR) {
        add(world, (struct world_name){name.task, REPAIR}, 1, REPAIR);
        return;
    }
    unsigned n = how == FLOW_EXPAND_SINGLE ? 1 : world_chance(world, 4);
    for (int at; n > 0 && (at = free_sub(task)) >= 0; n--)
        add(world, (struct world_name){name.task, at}, 0, FIRST);
}

enum queue_status world_expand(struct world *world, struct world_name name, enum flow_expand how)
{
    struct world_task *task = &world->tasks[name.task];
    struct world_sub *parent = world_sub(world, name);
    begin(world);
    if (!parent->exists)
        return QUEUE_GONE;
    if (parent->expands == 2)
        return QUEUE_DUP;
    if (task->state != TASK_RUNNING || parent->state != SUB_DONE || parent->expands != 1)
        return QUEUE_STALE;
    if (how == FLOW_EXPAND_REPAIR && task->subs[REPAIR].exists)
        return QUEUE_CONFLICT;
    parent->expands = 2;
    task->remaining--;
    add_children(world, name, how);
    if (task->remaining == 0)
        finish(world, name.task, TASK_DONE);
    return QUEUE_OK;
}

enum flow_verdict world_judge(struct world *world, struct world_name name)
{
    const struct world_sub *sub = world_sub(world, name);
    if (world->tasks[name.task].state != TASK_RUNNING || sub->state != SUB_DONE)
        return FLOW_VERDICT_MOOT;
    return sub->bad_plan ? FLOW_VERDICT_BAD : FLOW_VERDICT_PLAN;
}

/* --- working ---------------------------------------------------------------------------------- */

static int token_place(const struct world_sub *sub, int64_t token)
{
    for (int i = 0; i < sub->n_tokens; i++)
        if (sub->tokens[i] == token)
            return i;
    return -1;
}

enum queue_status world_claim(struct world *world, struct world_name name, bool hedge,
                              int64_t *ret_token)
{
    struct world_sub *sub = world_sub(world, name);
    begin(world);
    if (!sub->exists)
        return QUEUE_GONE;
    if (sub->state == SUB_CANCELLED)
        return QUEUE_CANCEL;
    bool open = world->tasks[name.task].state == TASK_RUNNING;
    if (sub->state != (hedge ? SUB_RUNNING : SUB_READY) || (hedge && (!open || sub->n_tokens != 1)))
        return QUEUE_TAKEN;
    if (!hedge) {
        move(world, name, SUB_RUNNING);
        sub->left -= sub->left > 0;
        sub->n_tokens = 0;
    }
    *ret_token = sub->tokens[sub->n_tokens++] = ++sub->attempt;
    sub->lease_ms = world->now_ms + 400;
    return QUEUE_OK;
}

void world_renew(struct world *world, struct world_name name, int64_t token)
{
    struct world_sub *sub = world_sub(world, name);
    if (sub->state == SUB_RUNNING && token_place(sub, token) >= 0)
        sub->lease_ms = world->now_ms + 400;
}

static void unblock(struct world *world, struct world_name done)
{
    struct world_task *task = &world->tasks[done.task];
    for (int i = 0; i < WORLD_SUBS; i++) {
        struct world_sub *sub = &task->subs[i];
        if (!sub->exists || (sub->deps >> done.sub & 1) == 0 || sub->state != SUB_BLOCKED)
            continue;
        if (--sub->indegree == 0)
            make_ready(world, (struct world_name){done.task, i});
    }
}

enum queue_status world_commit(struct world *world, struct world_name name, int64_t token)
{
    struct world_task *task = &world->tasks[name.task];
    struct world_sub *sub = world_sub(world, name);
    begin(world);
    if (sub->state == SUB_CANCELLED)
        return QUEUE_CANCELLED;
    if (sub->state == SUB_DONE)
        return sub->tokens[0] == token ? QUEUE_DUP : QUEUE_STALE;
    if (sub->state != SUB_RUNNING || token_place(sub, token) < 0)
        return QUEUE_STALE;
    move(world, name, SUB_DONE);
    sub->tokens[0] = token;
    sub->n_tokens = 1;
    if (++sub->commits > 1)
        world_wrong(world, "%s/%s is committed twice", world_task_name(name.task),
                    world_sub_name(name.sub));
    emit(world, QUEUE_EVENT_DONE, name)->timing = true;
    task->remaining--;
    unblock(world, name);
    if (task->remaining == 0 && task->state == TASK_RUNNING)
        finish(world, name.task, TASK_DONE);
    return QUEUE_OK;
}

static void tell_failure(struct world *world, struct world_name name, int64_t token)
{
    struct world_event *event = emit(world, QUEUE_EVENT_FAIL, name);
    event->attempt = token;
    event->timing = true;
}

/* One of two attempts ends; the other goes on. */
static enum queue_status fail_beside(struct world *world, struct world_name name, int place)
{
    struct world_sub *sub = world_sub(world, name);
    tell_failure(world, name, sub->tokens[place]);
    sub->tokens[0] = sub->tokens[1 - place];
    sub->n_tokens = 1;
    return QUEUE_RETRY;
}

static enum queue_status fail_last(struct world *world, struct world_name name,
                                   enum error_action action, int64_t backoff_ms)
{
    struct world_sub *sub = world_sub(world, name);
    bool waits = action == ERROR_WAIT, dead = action == ERROR_DEAD || (sub->left == 0 && !waits);
    for (int i = sub->n_tokens; i > 0; i--)
        tell_failure(world, name, sub->tokens[i - 1]);
    sub->n_tokens = 0;
    if (dead) {
        die(world, name);
        return QUEUE_DEAD;
    }
    if (world->tasks[name.task].state != TASK_RUNNING) {
        move(world, name, SUB_CANCELLED);
        return QUEUE_CANCELLED;
    }
    sub->left += waits;
    sub->moves += action == ERROR_MOVE;
    move(world, name, SUB_DELAYED);
    sub->due_ms = world->now_ms + backoff_ms;
    if (action != ERROR_RETRY || backoff_ms == 0)
        make_ready(world, name);
    return QUEUE_RETRY;
}

enum queue_status world_fail(struct world *world, struct world_name name, int64_t token,
                             enum error_action action, int64_t backoff_ms)
{
    struct world_sub *sub = world_sub(world, name);
    begin(world);
    if (sub->state != SUB_RUNNING)
        return QUEUE_STALE;
    if (token == 0) {
        if (sub->lease_ms > world->now_ms)
            return QUEUE_STALE;
        return fail_last(world, name, ERROR_RETRY, 0);
    }
    int place = token_place(sub, token);
    if (place < 0)
        return QUEUE_STALE;
    if (sub->n_tokens == 2)
        return fail_beside(world, name, place);
    return fail_last(world, name, action, backoff_ms);
}

enum queue_status world_promote(struct world *world, struct world_name name)
{
    struct world_sub *sub = world_sub(world, name);
    begin(world);
    if (sub->state != SUB_DELAYED || sub->due_ms > world->now_ms)
        return QUEUE_STALE;
    make_ready(world, name);
    return QUEUE_OK;
}

enum queue_status world_bury(struct world *world, struct world_name name, int moves)
{
    struct world_sub *sub = world_sub(world, name);
    begin(world);
    if (sub->state != SUB_READY || sub->moves != moves)
        return QUEUE_STALE;
    die(world, name);
    return QUEUE_OK;
}

/* --- people ----------------------------------------------------------------------------------- */

void world_cancel(struct world *world, int task)
{
    begin(world);
    if (world->tasks[task].state != TASK_RUNNING)
        return;
    world->tasks[task].was_cancelled = true;
    cancel_rest(world, task, true);
    finish(world, task, TASK_CANCELLED);
}

/* A subtask that runs in spite of its task's failure goes on. */
void world_retry(struct world *world, int index)
{
    struct world_task *task = &world->tasks[index];
    begin(world);
    if (task->state != TASK_FAILED && task->state != TASK_CANCELLED)
        return;
    task->state = TASK_RUNNING;
    task->was_cancelled = false;
    task->retries++;
    emit(world, QUEUE_EVENT_TASK, (struct world_name){index, -1})->state = TASK_RUNNING;
    for (int i = 0; i < WORLD_SUBS; i++) {
        struct world_sub *sub = &task->subs[i];
        if (!sub->exists || (sub->state != SUB_DEAD && sub->state != SUB_CANCELLED))
            continue;
        sub->state = SUB_BLOCKED; /* the one way back: a person asks for it */
        sub->left = sub->max;
        sub->moves = sub->indegree = sub->n_tokens = 0;
        for (int j = 0; j < WORLD_SUBS; j++)
            sub->indegree += (sub->deps >> j & 1) != 0 && task->subs[j].state != SUB_DONE;
        if (sub->indegree == 0)
            make_ready(world, (struct world_name){index, i});
    }
    for (int i = 0; i < WORLD_SUBS; i++)
        if (task->subs[i].exists && task->subs[i].state == SUB_DONE && task->subs[i].expands == 1)
            emit(world, QUEUE_EVENT_DONE, (struct world_name){index, i});
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool in_index(const struct world *world, const struct world_sub *sub, enum queue_index index)
{
    if (!sub->exists)
        return false;
    if (index == QUEUE_INDEX_READY)
        return sub->state == SUB_READY;
    if (index == QUEUE_INDEX_LEASE)
        return sub->state == SUB_RUNNING && sub->lease_ms <= world->now_ms;
    return sub->state == SUB_DELAYED && sub->due_ms <= world->now_ms;
}

static bool comes_before(const struct world_sub *left, const struct world_sub *right)
{
    if (left->priority != right->priority)
        return left->priority > right->priority;
    return left->order < right->order;
}

int world_index(struct world *world, int shard, enum queue_index index, int64_t offset,
                int64_t limit, struct world_item *items)
{
    struct world_name found[WORLD_TASKS * WORLD_SUBS];
    int n = 0, n_items = 0;
    for (int i = shard; i < WORLD_TASKS; i += WORLD_SHARDS)
        for (int j = 0; j < WORLD_SUBS; j++) {
            struct world_name name = {i, j};
            const struct world_sub *sub = world_sub(world, name);
            int at = n;
            if (!in_index(world, sub, index))
                continue;
            for (; at > 0 && comes_before(sub, world_sub(world, found[at - 1])); at--)
                found[at] = found[at - 1];
            found[at] = name;
            n++;
        }
    for (int64_t i = offset; i < n && n_items < limit; i++) {
        const struct world_sub *sub = world_sub(world, found[i]);
        items[n_items++] = (struct world_item){found[i], sub->attempt, sub->priority, sub->moves};
    }
    return n_items;
}

bool world_finished(const struct world *world)
{
    for (int i = 0; i < WORLD_TASKS; i++) {
        const struct world_task *task = &world->tasks[i];
        if (!task_state_terminal(task->state))
            return false;
        for (int j = 0; j < WORLD_SUBS; j++)
            if (task->subs[j].exists && !sub_state_terminal(task->subs[j].state))
                return false;
    }
    return true;
}
