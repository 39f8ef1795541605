/* Checks one task as it is stored against the invariants of docs/architecture.md. */
#include "common/queue_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "common/task_id.h"
#include "schemas/mem.h"

/* The indexes of a shard in the order of check.lua, and the state of what is in them. */
static const struct {
    const char *name;
    enum sub_state state;
} indexes[] = {
    {"ready", SUB_READY}, {"lease", SUB_RUNNING}, {"delay", SUB_DELAYED},
    {"held", SUB_HELD},   {"dead", SUB_DEAD},
};
#define INDEXES (sizeof indexes / sizeof *indexes)

/* A field of one of the task's hashes. */
struct field {
    UT_hash_handle hh;
    const char *name;
    const struct redis_value *value;
};

/* A hash as Redis gave it, to look up in. */
struct fields {
    struct field *items;
    size_t n;
    struct field *by_name;
};

struct check {
    queue_finding_fn *finding;
    void *ctx;
    const char *task;
    struct fields fields, data;
    const struct redis_value *scores, *none;
    enum task_state state;
    int64_t not_done, unexpanded, subs, dead;
};

static void __attribute__((format(printf, 3, 4)))
find(const struct check *check, const char *sub, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    check->finding(check->ctx, check->task, sub, text);
}

static void fields_make(struct fields *fields, const struct redis_value *flat)
{
    fields->n = redis_len(flat) / 2;
    fields->items = mem_must_zalloc((fields->n + 1) * sizeof *fields->items);
    for (size_t i = 0; i < fields->n; i++) {
        struct field *field = &fields->items[i];
        size_t len;
        field->name = redis_str(redis_at(flat, 2 * i), &len);
        field->value = redis_at(flat, 2 * i + 1);
        HASH_ADD_KEYPTR(hh, fields->by_name, field->name, len, field);
    }
}

static void fields_release(struct fields *fields)
{
    HASH_CLEAR(hh, fields->by_name);
    free(fields->items);
}

/* The value, or NIL. */
static const struct redis_value *field_of(const struct check *check, const struct fields *fields,
                                          const char *name)
{
    struct field *field;
    HASH_FIND_STR(fields->by_name, name, field);
    return field != NULL ? field->value : check->none;
}

static const struct redis_value *sub_field(const struct check *check, const struct fields *fields,
                                           const char *kind, const char *sub)
{
    char name[SUB_ID_MAX + 16];
    snprintf(name, sizeof name, "%s:%s", kind, sub);
    return field_of(check, fields, name);
}

/* --- one subtask -------------------------------------------------------------------------- */

static void check_record(const struct check *check, const char *sub, const char *kind,
                         enum message_type type, bool required)
{
    const struct redis_value *value = sub_field(check, &check->data, kind, sub);
    if (redis_type(value) == REDIS_NIL) /* of a small task */
        value = sub_field(check, &check->fields, kind, sub);
    size_t len;
    const char *data = redis_str(value, &len);
    struct message message = {0};
    if (redis_type(value) == REDIS_NIL || (len == 0 && !required)) {
        if (required)
            find(check, sub, "its record `%s` is missing", kind);
        return;
    }
    if (message_decode_as(&message, type, data, len) != 0)
        find(check, sub, "its record `%s` cannot be decoded", kind);
    message_release(&message);
}

/* Releases before this one kept it in a field of its own. */
static void check_meta(const struct check *check, const char *sub, const struct queue_word *meta)
{
    struct message message = {0};
    if (meta->len == 0)
        check_record(check, sub, "meta", MESSAGE_meta, true);
    else if (message_decode_as(&message, MESSAGE_meta, meta->text, meta->len) != 0)
        find(check, sub, "its record `meta` cannot be decoded");
    message_release(&message);
}

/* Whether the words of `succ:dep`, which a commit of dep counts down, name the subtask. */
static bool is_successor(const struct check *check, const char *dep, const char *sub)
{
    const char *at = redis_str(sub_field(check, &check->fields, "succ", dep), NULL);
    size_t len = strlen(sub);
    while (*at != '\0') {
        size_t word = strcspn(at, " ");
        if (word == len && memcmp(at, sub, len) == 0)
            return true;
        at += word + (at[word] == ' ');
    }
    return false;
}

/* How many of the dependencies are not DONE; reports those that do not exist, and those that
 * do not know of it. */
static int64_t count_waits(const struct check *check, const char *sub)
{
    int64_t waits = 0;
    size_t len;
    const char *deps = redis_str(sub_field(check, &check->fields, "deps", sub), &len);
    for (size_t at = 0; at < len;) {
        size_t word = strcspn(deps + at, " ");
        char dep[SUB_ID_MAX + 1];
        struct queue_line line;
        snprintf(dep, sizeof dep, "%.*s", (int)(word < SUB_ID_MAX ? word : SUB_ID_MAX), deps + at);
        size_t text_len;
        const char *text = redis_str(sub_field(check, &check->fields, "sub", dep), &text_len);
        if (word > 0 && !queue_line_parse(&line, text, text_len))
            find(check, sub, "its dependency %s is not in the task", dep);
        else if (word > 0 && line.state != SUB_DONE) {
            waits++;
            if (!is_successor(check, dep, sub))
                find(check, sub, "its dependency %s does not tell it when it is done", dep);
        }
        at += word + 1;
    }
    return waits;
}

static void check_waits(const struct check *check, const char *sub, const struct queue_line *line)
{
    int64_t waits = count_waits(check, sub);
    if (line->state == SUB_BLOCKED && line->indegree != waits)
        find(check, sub, "it counts %lld dependencies to wait for, but %lld are not done",
             (long long)line->indegree, (long long)waits);
    if (line->state == SUB_BLOCKED && waits == 0 && check->state != TASK_LOADING)
        find(check, sub, "it is BLOCKED, but waits for nothing");
    if (line->state != SUB_BLOCKED && line->state != SUB_CANCELLED && waits != 0)
        find(check, sub, "it is %s, but %lld of its dependencies are not done",
             sub_state_name(line->state), (long long)waits);
}

/* row: [id, score in each index]. state: SUB_STATE_COUNT when there is no such subtask. What an
 * attempt that lost or was cancelled may have cost is reserved until its lease runs out. */
static void check_indexes(const struct check *check, const char *sub, size_t row,
                          enum sub_state state)
{
    bool held = redis_type(sub_field(check, &check->fields, "hold", sub)) != REDIS_NIL;
    for (size_t i = 0; i < INDEXES; i++) {
        bool in = redis_type(redis_at(check->scores, row + 1 + i)) != REDIS_NIL;
        bool kept = indexes[i].state == SUB_RUNNING && held && sub_state_terminal(state);
        if (kept && !in)
            find(check, sub, "something is reserved for it, but it is not in the index `lease`");
        if (kept)
            continue;
        if (in && state == SUB_STATE_COUNT)
            find(check, sub, "the index `%s` names it, but the task has no such subtask",
                 indexes[i].name);
        else if (in && state != indexes[i].state)
            find(check, sub, "it is %s, but in the index `%s`", sub_state_name(state),
                 indexes[i].name);
        else if (!in && state == indexes[i].state)
            find(check, sub, "it is %s, but not in the index `%s`", sub_state_name(state),
                 indexes[i].name);
    }
}

static void check_run(const struct check *check, const char *sub, const struct queue_line *line)
{
    size_t len;
    const struct redis_value *value = sub_field(check, &check->fields, "run", sub);
    const char *text = redis_str(value, &len);
    struct queue_run_line run;
    bool readable = queue_run_parse(&run, text, len);
    if (redis_type(value) != REDIS_NIL && !readable)
        find(check, sub, "its last attempt is not readable");
    bool held = redis_type(sub_field(check, &check->fields, "hold", sub)) != REDIS_NIL;
    if (readable && run.held != held)
        find(check, sub, "its last attempt says that something is %s for it",
             run.held ? "reserved" : "not reserved");
    if (held && line->state != SUB_RUNNING && !sub_state_terminal(line->state))
        find(check, sub, "it is %s, but something is reserved for it", sub_state_name(line->state));
    if (redis_type(value) == REDIS_NIL && (line->state == SUB_RUNNING || line->state == SUB_DONE))
        find(check, sub, "it is %s, but nobody ran it", sub_state_name(line->state));
    for (size_t i = 0; readable && line->state == SUB_RUNNING && i < run.n_attempts; i++) {
        long long number = strtoll(run.attempts[i].token.text, NULL, 10);
        if (number < 1 || number > line->attempts)
            find(check, sub, "its token is of no attempt up to %lld", (long long)line->attempts);
    }
}

static void check_sub(struct check *check, const char *sub, size_t row)
{
    const struct redis_value *value = sub_field(check, &check->fields, "sub", sub);
    size_t len;
    const char *text = redis_str(value, &len);
    struct queue_line line;
    if (redis_type(value) == REDIS_NIL) {
        check_indexes(check, sub, row, SUB_STATE_COUNT);
        return;
    }
    check->subs++;
    if (!queue_line_parse(&line, text, len)) {
        find(check, sub, "its line is not readable: \"%.100s\"", text);
        return;
    }
    if (!sub_id_valid(sub))
        find(check, sub, "its id is not valid");
    check->not_done += line.state != SUB_DONE;
    check->unexpanded += line.expands == 1;
    check->dead += line.state == SUB_DEAD;
    check_indexes(check, sub, row, line.state);
    check_waits(check, sub, &line);
    check_run(check, sub, &line);
    check_record(check, sub, "work", MESSAGE_work, true);
    check_meta(check, sub, &line.meta);
    check_record(check, sub, "outcome", MESSAGE_outcome, line.state == SUB_DONE);
    check_record(check, sub, "timing", MESSAGE_timing, line.state == SUB_DONE);
    if (line.state != SUB_DONE &&
        redis_type(sub_field(check, &check->data, "outcome", sub)) != REDIS_NIL)
        find(check, sub, "it is %s, but has a result", sub_state_name(line.state));
    bool runs_on = line.state == SUB_RUNNING && check->state == TASK_FAILED;
    if (task_state_terminal(check->state) && !sub_state_terminal(line.state) && !runs_on)
        find(check, sub, "it is %s, but the task is %s", sub_state_name(line.state),
             task_state_name(check->state));
}

/* --- one task ----------------------------------------------------------------------------- */

static void check_counts(const struct check *check)
{
    int64_t total = redis_int(field_of(check, &check->fields, "total"));
    int64_t remaining = redis_int(field_of(check, &check->fields, "remaining"));
    if (total != check->subs)
        find(check, "", "it counts %lld subtasks, but has %lld", (long long)total,
             (long long)check->subs);
    if (remaining != check->not_done + check->unexpanded)
        find(check, "", "it counts %lld to do, but %lld are", (long long)remaining,
             (long long)check->not_done + (long long)check->unexpanded);
    if (check->state == TASK_DONE && remaining != 0)
        find(check, "", "it is DONE, but %lld remain", (long long)remaining);
    if (check->state == TASK_RUNNING && remaining == 0)
        find(check, "", "nothing remains, but it is RUNNING");
    if (check->state == TASK_FAILED && check->dead == 0)
        find(check, "", "it is FAILED, but no subtask is dead");
    if (check->state == TASK_RUNNING && check->dead > 0)
        find(check, "", "a subtask is dead, but it is RUNNING");
}

static void check_listed(const struct check *check, const struct redis_value *value)
{
    bool listed = redis_type(redis_at(value, 3)) != REDIS_NIL;
    bool finished = redis_type(redis_at(value, 4)) != REDIS_NIL;
    if (!listed)
        find(check, "", "it is not in the index `tasks`");
    if (task_state_terminal(check->state) != finished)
        find(check, "",
             finished ? "it is %s, but in the index `fin`" : "it is %s, but not in the index `fin`",
             task_state_name(check->state));
    bool has_time = redis_int(field_of(check, &check->fields, "finished")) > 0;
    if (task_state_terminal(check->state) && !has_time)
        find(check, "", "it is %s, but has no time of finishing", task_state_name(check->state));
    if (redis_int(field_of(check, &check->fields, "created")) <= 0)
        find(check, "", "it has no time of creation");
}

static void check_log(const struct check *check, const struct redis_value *log)
{
    struct queue_log_line line;
    for (size_t i = 0; i < redis_len(log); i++) {
        size_t len;
        const char *text = redis_str(redis_at(log, i), &len);
        if (!queue_log_parse(&line, (int64_t)i, text, len))
            find(check, "", "entry %zu of its log is not readable", i);
    }
}

/* Fields of the hashes that belong to no subtask. */
static void check_orphans(const struct check *check, const struct fields *fields)
{
    static const char *const kinds[] = {"deps", "succ",  "run",  "avoid",   "error",
                                        "hold", "ended", "work", "outcome", "timing"};
    for (size_t i = 0; i < fields->n; i++) {
        const char *field = fields->items[i].name;
        const char *colon = strchr(field, ':');
        for (size_t k = 0; colon != NULL && k < sizeof kinds / sizeof *kinds; k++)
            if (strlen(kinds[k]) == (size_t)(colon - field) &&
                memcmp(kinds[k], field, strlen(kinds[k])) == 0 &&
                redis_type(sub_field(check, &check->fields, "sub", colon + 1)) == REDIS_NIL)
                find(check, colon + 1, "`%s` is stored of it, but no subtask", kinds[k]);
    }
}

static void check_missing(const struct check *check, const struct redis_value *value)
{
    for (size_t row = 0; row + INDEXES < redis_len(check->scores); row += INDEXES + 1)
        check_indexes(check, redis_str(redis_at(check->scores, row), NULL), row, SUB_STATE_COUNT);
    if (check->data.n > 0 || redis_len(redis_at(value, 5)) > 0)
        find(check, "", "data or a log is stored of it, but no task");
    static const char *const task_indexes[] = {"tasks", "fin"};
    for (size_t i = 0; i < 2; i++)
        if (redis_type(redis_at(value, 3 + i)) != REDIS_NIL)
            find(check, "", "the index `%s` names it, but there is no such task", task_indexes[i]);
}

static void check_existing(struct check *check, const struct redis_value *value)
{
    size_t len;
    const char *state = redis_str(field_of(check, &check->fields, "state"), &len);
    check->state = task_state_parse(state, len);
    if (check->state == TASK_STATE_COUNT)
        find(check, "", "its state \"%.20s\" is not known", state);
    for (size_t row = 0; row + INDEXES < redis_len(check->scores); row += INDEXES + 1)
        check_sub(check, redis_str(redis_at(check->scores, row), NULL), row);
    check_counts(check);
    check_listed(check, value);
    check_orphans(check, &check->fields);
    check_orphans(check, &check->data);
    check_log(check, redis_at(value, 5));
    queue_check_budgets(check->task, redis_at(value, 0), check->finding, check->ctx);
}

bool queue_check(const char *task, const struct redis_value *value, queue_finding_fn *finding,
                 void *ctx)
{
    struct check check = {.finding = finding, .ctx = ctx, .task = task};
    check.scores = redis_at(value, 2);
    check.none = redis_at(value, redis_len(value));
    fields_make(&check.fields, redis_at(value, 0));
    fields_make(&check.data, redis_at(value, 1));
    bool exists = check.fields.n > 0;
    if (exists)
        check_existing(&check, value);
    else
        check_missing(&check, value);
    fields_release(&check.fields);
    fields_release(&check.data);
    return exists;
}
