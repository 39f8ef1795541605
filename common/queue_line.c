/* Reads what the scripts store: subtasks' lines, outbox entries, log entries. All of it is checked,
 * for it may be damaged. */
#include "common/queue_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool queue_split(const char *text, size_t len, struct queue_word *words, size_t n,
                 struct queue_word *ret_rest)
{
    const char *at = text, *end = text + len;
    for (size_t i = 0; i < n; i++) {
        const char *space = memchr(at, ' ', (size_t)(end - at));
        bool last = i + 1 == n && ret_rest == NULL;
        if ((space == NULL) != last)
            return false;
        const char *stop = space != NULL ? space : end;
        words[i] = (struct queue_word){at, (size_t)(stop - at)};
        if (words[i].len == 0)
            return false;
        at = stop + 1;
    }
    if (ret_rest != NULL)
        *ret_rest = (struct queue_word){at, (size_t)(end - at)};
    return true;
}

bool queue_word_is(const struct queue_word *word, const char *text)
{
    return strlen(text) == word->len && memcmp(word->text, text, word->len) == 0;
}

bool queue_word_int(const struct queue_word *word, int64_t *ret)
{
    char digits[24];
    if (word->len == 0 || word->len >= sizeof digits)
        return false;
    memcpy(digits, word->text, word->len);
    digits[word->len] = '\0';
    char *end;
    errno = 0;
    long long number = strtoll(digits, &end, 10);
    if (errno != 0 || *end != '\0' || (digits[0] != '-' && (digits[0] < '0' || digits[0] > '9')))
        return false;
    *ret = number;
    return true;
}

bool queue_word_copy(char *ret, size_t size, const struct queue_word *word)
{
    size_t len = queue_word_is(word, "-") ? 0 : word->len;
    if (len >= size || memchr(word->text, '\0', word->len) != NULL)
        return false;
    memcpy(ret, word->text, len);
    ret[len] = '\0';
    return true;
}

static void dash_to_empty(struct queue_word *word)
{
    if (queue_word_is(word, "-"))
        word->len = 0;
}

/* Where the blank is behind which a record begins, which no word begins as: len when there is none.
 */
static size_t meta_at(const char *text, size_t len)
{
    for (size_t i = 1; i < len; i++)
        if ((unsigned char)text[i] >= 0x80)
            return text[i - 1] == ' ' ? i - 1 : len;
    return len;
}

bool queue_line_parse(struct queue_line *ret, const char *text, size_t len)
{
    struct queue_word words[QUEUE_LINE_WORDS];
    struct queue_line line = {0};
    size_t words_len = meta_at(text, len);
    if (words_len < len)
        line.meta = (struct queue_word){text + words_len + 1, len - words_len - 1};
    if (memchr(text, '\0', words_len) != NULL ||
        !queue_split(text, words_len, words, QUEUE_LINE_WORDS, NULL))
        return false;
    line.state = sub_state_parse(words[0].text, words[0].len);
    line.error_class = words[6];
    dash_to_empty(&line.error_class);
    int64_t *numbers[QUEUE_LINE_WORDS] = {
        [1] = &line.attempts, [2] = &line.left,     [3] = &line.indegree,
        [4] = &line.ready_us, [5] = &line.queue_us, [7] = &line.max,
        [8] = &line.priority, [9] = &line.expands,  [10] = &line.order,
    };
    for (size_t i = 0; i < QUEUE_LINE_WORDS; i++)
        if (numbers[i] != NULL && !queue_word_int(&words[i], numbers[i]))
            return false;
    if (line.state == SUB_STATE_COUNT || line.expands < 0 || line.expands > 2)
        return false;
    *ret = line;
    return true;
}

/* "token worker arm", the same of a hedge, and "$" when something is reserved. */
bool queue_run_parse(struct queue_run_line *ret, const char *text, size_t len)
{
    struct queue_word words[7];
    size_t n = 1;
    for (size_t i = 0; i < len; i++)
        n += text[i] == ' ';
    bool fits = n == 3 || n == 4 || n == 6 || n == 7;
    if (!fits || memchr(text, '\0', len) != NULL || !queue_split(text, len, words, n, NULL))
        return false;
    for (size_t i = 0; i < n; i++)
        dash_to_empty(&words[i]);
    *ret = (struct queue_run_line){.n_attempts = n / 3, .held = n % 3 != 0};
    for (size_t i = 0; i < n / 3; i++)
        ret->attempts[i] =
            (struct queue_attempt_words){words[3 * i], words[3 * i + 1], words[3 * i + 2]};
    return !ret->held || queue_word_is(&words[n - 1], "$");
}

/* "limit spent held", each in nano USD and tokens, and "over". */
bool queue_budget_parse(struct queue_budget *ret, const char *text, size_t len)
{
    static const char over[] = " over";
    struct queue_word words[6];
    struct queue_budget budget = {0};
    int64_t *numbers[] = {&budget.limit.nano_usd, &budget.limit.tokens,  &budget.spent.nano_usd,
                          &budget.spent.tokens,   &budget.held.nano_usd, &budget.held.tokens};
    size_t over_len = sizeof over - 1;
    budget.over = len > over_len && memcmp(text + len - over_len, over, over_len) == 0;
    if (!queue_split(text, budget.over ? len - over_len : len, words, 6, NULL))
        return false;
    for (size_t i = 0; i < 6; i++)
        if (!queue_word_int(&words[i], numbers[i]) || *numbers[i] < 0)
            return false;
    *ret = budget;
    return true;
}

const struct redis_value *queue_field(const struct redis_value *flat, const char *name)
{
    size_t n = redis_len(flat), name_len = strlen(name), len;
    for (size_t i = 0; i + 1 < n; i += 2) {
        const char *field = redis_str(redis_at(flat, i), &len);
        if (len == name_len && memcmp(field, name, len) == 0)
            return redis_at(flat, i + 1);
    }
    return redis_at(flat, n); /* NIL */
}

/* The id of a stream entry; false when it has none. */
static bool stream_id(const struct redis_value *value, char *id, size_t id_size)
{
    size_t len;
    const char *text = redis_str(redis_at(value, 0), &len);
    if (len == 0 || len >= id_size || strspn(text, "0123456789-") != len)
        return false;
    memcpy(id, text, len + 1);
    return true;
}

static const struct {
    const char *word;
    enum queue_event_kind kind;
} event_kinds[] = {
    {"READY", QUEUE_EVENT_READY}, {"DONE", QUEUE_EVENT_DONE}, {"FAIL", QUEUE_EVENT_FAIL},
    {"DEAD", QUEUE_EVENT_DEAD},   {"TASK", QUEUE_EVENT_TASK}, {"LOST", QUEUE_EVENT_LOST},
};

static bool event_kind(const struct queue_word *word, enum queue_event_kind *ret)
{
    for (size_t i = 0; i < sizeof event_kinds / sizeof *event_kinds; i++)
        if (queue_word_is(word, event_kinds[i].word)) {
            *ret = event_kinds[i].kind;
            return true;
        }
    return false;
}

static bool event_state(struct queue_entry *entry, const struct queue_word *word)
{
    struct queue_event *event = &entry->event;
    event->state = TASK_STATE_COUNT;
    if (queue_word_is(word, "-"))
        return event->kind != QUEUE_EVENT_TASK;
    if (event->kind == QUEUE_EVENT_READY) {
        entry->submitted_first = true;
        event->state = TASK_RUNNING;
        return queue_word_is(word, "SUBMITTED");
    }
    entry->task_after = event->kind != QUEUE_EVENT_TASK;
    event->state = task_state_parse(word->text, word->len);
    return event->state != TASK_STATE_COUNT;
}

size_t queue_entry_events(const struct redis_value *value)
{
    size_t n = redis_len(redis_at(value, 1)) / 2;
    return n > 0 ? n : 1; /* one that is damaged */
}

/* A field is "KIND task sub attempt priority expands class state text", text being arms to avoid or
 * the reason; its value is meta or timing. */
bool queue_entry_parse(struct queue_entry *ret, int shard, const struct redis_value *value,
                       size_t at)
{
    const struct redis_value *fields = redis_at(value, 1);
    struct queue_word words[8], rest;
    struct queue_event *event = &ret->event;
    size_t len;
    *event =
        (struct queue_event){.shard = shard, .id = ret->id, .task = ret->task, .sub = ret->sub};
    ret->submitted_first = ret->task_after = false;
    if (!stream_id(value, ret->id, sizeof ret->id) || 2 * at + 1 >= redis_len(fields))
        return false;
    const char *text = redis_str(redis_at(fields, 2 * at), &len);
    int64_t expands;
    if (!queue_split(text, len, words, 8, &rest) || !event_kind(&words[0], &event->kind) ||
        !queue_word_copy(ret->task, sizeof ret->task, &words[1]) || ret->task[0] == '\0' ||
        !queue_word_copy(ret->sub, sizeof ret->sub, &words[2]) ||
        !queue_word_int(&words[3], &event->attempt) ||
        !queue_word_int(&words[4], &event->priority) || !queue_word_int(&words[5], &expands) ||
        !queue_word_copy(ret->error_class, sizeof ret->error_class, &words[6]) ||
        !event_state(ret, &words[7]))
        return false;
    if ((ret->sub[0] == '\0') != (event->kind == QUEUE_EVENT_TASK))
        return false;
    snprintf(ret->text, sizeof ret->text, "%.*s", (int)(rest.len < 2000 ? rest.len : 2000),
             rest.text);
    event->expands = expands == 1;
    event->error_class = ret->error_class;
    event->avoid = event->kind == QUEUE_EVENT_READY ? ret->text : "";
    event->reason = event->kind == QUEUE_EVENT_READY ? "" : ret->text;
    struct bytes blob;
    blob.data = redis_str(redis_at(fields, 2 * at + 1), &blob.len);
    event->meta = event->timing = (struct bytes){"", 0};
    if (event->kind == QUEUE_EVENT_READY)
        event->meta = blob;
    else
        event->timing = blob;
    return true;
}

/* Entry: "ms what sub attempt token worker arm class state text" */
bool queue_log_parse(struct queue_log_line *ret, int64_t number, const char *text, size_t len)
{
    struct queue_word words[9], rest;
    int64_t ms;
    struct queue_log_entry *entry = &ret->entry;
    if (!queue_split(text, len, words, 9, &rest) || !queue_word_int(&words[0], &ms) ||
        !queue_word_copy(ret->what, sizeof ret->what, &words[1]) ||
        !queue_word_copy(ret->sub, sizeof ret->sub, &words[2]) ||
        !queue_word_int(&words[3], &entry->attempt) ||
        !queue_word_copy(ret->worker, sizeof ret->worker, &words[5]) ||
        !queue_word_copy(ret->arm, sizeof ret->arm, &words[6]) ||
        !queue_word_copy(ret->error_class, sizeof ret->error_class, &words[7]))
        return false;
    ret->task_after = queue_word_is(&words[8], "DONE");
    snprintf(ret->id, sizeof ret->id, "%lld-%lld", (long long)ms, (long long)number + 1);
    entry->id = ret->id;
    entry->what = ret->what;
    entry->sub = ret->sub;
    entry->worker = ret->worker;
    entry->arm = ret->arm;
    entry->error_class = ret->error_class;
    entry->text = rest.text; /* which is terminated */
    return true;
}
