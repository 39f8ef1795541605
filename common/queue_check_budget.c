/* Checks the budgets of a task, and accounts, against what is held of them. */
#include "common/queue_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"

#define TASK_ROLE "task-role:"
#define ROLE "role:"
#define HOLD "hold:"

/* What is held, by the name of the budget; "": of the task. */
struct sum {
    struct queue_word name;
    struct queue_spend held;
};

struct check {
    queue_finding_fn *finding;
    void *ctx;
    const char *task;
    struct sum *sums;
    size_t n_sums;
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

static struct bytes bytes_of(const struct redis_value *value)
{
    struct bytes bytes;
    bytes.data = redis_str(value, &bytes.len);
    return bytes;
}

static bool starts(struct bytes text, const char *prefix)
{
    return text.len > strlen(prefix) && memcmp(text.data, prefix, strlen(prefix)) == 0;
}

/* The sum of that name, made when it is new. */
static struct sum *sum_of(struct check *check, struct queue_word name)
{
    for (size_t i = 0; i < check->n_sums; i++)
        if (check->sums[i].name.len == name.len &&
            memcmp(check->sums[i].name.text, name.text, name.len) == 0)
            return &check->sums[i];
    check->sums = mem_must_realloc(check->sums, (check->n_sums + 1) * sizeof *check->sums);
    check->sums[check->n_sums] = (struct sum){.name = name};
    return &check->sums[check->n_sums++];
}

static void hold(struct check *check, struct queue_word name, const struct queue_spend *held)
{
    struct sum *sum = sum_of(check, name);
    sum->held.nano_usd += held->nano_usd;
    sum->held.tokens += held->tokens;
}

/* The next word of the text, which it leaves. */
static bool next_word(struct queue_word *text, struct queue_word *ret)
{
    const char *space = memchr(text->text, ' ', text->len);
    *ret =
        (struct queue_word){text->text, space != NULL ? (size_t)(space - text->text) : text->len};
    size_t taken = ret->len + (space != NULL);
    *text = (struct queue_word){text->text + taken, text->len - taken};
    return ret->len > 0;
}

/* "token nano tokens n account..." of each hold. */
static bool add_holds(struct check *check, struct bytes line)
{
    struct queue_word text = {line.data, line.len}, token, word;
    size_t prefix = strlen(TASK_ROLE);
    while (text.len > 0) {
        struct queue_spend held;
        int64_t n;
        if (!next_word(&text, &token) || !next_word(&text, &word) ||
            !queue_word_int(&word, &held.nano_usd) || !next_word(&text, &word) ||
            !queue_word_int(&word, &held.tokens) || !next_word(&text, &word) ||
            !queue_word_int(&word, &n))
            return false;
        hold(check, (struct queue_word){"", 0}, &held);
        for (; n > 0; n--) {
            if (!next_word(&text, &word))
                return false;
            if (starts((struct bytes){word.text, word.len}, TASK_ROLE))
                hold(check, (struct queue_word){word.text + prefix, word.len - prefix}, &held);
        }
    }
    return true;
}

static void check_limit(const struct check *check, const char *whose, const char *unit,
                        const struct queue_budget *budget, int64_t limit, int64_t sum)
{
    if (limit > 0 && sum > limit && !budget->over)
        find(check, "", "%s: %lld %s are spent or reserved of %lld", whose, (long long)sum, unit,
             (long long)limit);
}

/* name: of the sum; whose: for people. */
static void check_budget(struct check *check, struct queue_word name, const char *whose,
                         struct bytes line)
{
    struct queue_budget budget;
    if (!queue_budget_parse(&budget, line.data, line.len)) {
        find(check, "", "%s is not readable", whose);
        return;
    }
    const struct queue_spend held = sum_of(check, name)->held;
    if (budget.held.nano_usd != held.nano_usd || budget.held.tokens != held.tokens)
        find(check, "",
             "%s counts %lld nano USD and %lld tokens as reserved, but %lld and %lld are", whose,
             (long long)budget.held.nano_usd, (long long)budget.held.tokens,
             (long long)held.nano_usd, (long long)held.tokens);
    check_limit(check, whose, "nano USD", &budget, budget.limit.nano_usd,
                budget.spent.nano_usd + budget.held.nano_usd);
    check_limit(check, whose, "tokens", &budget, budget.limit.tokens,
                budget.spent.tokens + budget.held.tokens);
}

void queue_check_budgets(const char *task, const struct redis_value *flat,
                         queue_finding_fn *finding, void *ctx)
{
    struct check check = {.finding = finding, .ctx = ctx, .task = task};
    for (size_t i = 0; i + 1 < redis_len(flat); i += 2) {
        struct bytes field = bytes_of(redis_at(flat, i));
        if (starts(field, HOLD) && !add_holds(&check, bytes_of(redis_at(flat, i + 1))))
            find(&check, field.data + strlen(HOLD), "what is reserved for it is not readable");
    }
    for (size_t i = 0; i + 1 < redis_len(flat); i += 2) {
        struct bytes field = bytes_of(redis_at(flat, i)), line = bytes_of(redis_at(flat, i + 1));
        struct queue_word role = {field.data + strlen(ROLE), field.len - strlen(ROLE)};
        char whose[160];
        if (starts(field, ROLE)) {
            snprintf(whose, sizeof whose, "its budget of role %.100s", role.text);
            check_budget(&check, role, whose, line);
        } else if (strcmp(field.data, "budget") == 0) {
            check_budget(&check, (struct queue_word){"", 0}, "its budget", line);
        }
    }
    free(check.sums);
}

void queue_check_account(const char *name, const struct redis_value *flat,
                         queue_finding_fn *finding, void *ctx)
{
    struct check check = {.finding = finding, .ctx = ctx, .task = ""};
    char whose[160];
    snprintf(whose, sizeof whose, "account %.100s", name);
    for (size_t i = 0; i + 1 < redis_len(flat); i += 2) {
        struct bytes line = bytes_of(redis_at(flat, i + 1));
        struct queue_word words[2];
        struct queue_spend held;
        if (!starts(bytes_of(redis_at(flat, i)), HOLD))
            continue;
        if (queue_split(line.data, line.len, words, 2, NULL) &&
            queue_word_int(&words[0], &held.nano_usd) && queue_word_int(&words[1], &held.tokens))
            hold(&check, (struct queue_word){"", 0}, &held);
        else
            find(&check, "", "%s: what is reserved of it is not readable", whose);
    }
    if (redis_len(flat) > 0) {
        struct bytes day = bytes_of(queue_field(flat, "day"));
        int64_t number;
        if (!queue_word_int(&(struct queue_word){day.data, day.len}, &number) || number < 0)
            find(&check, "", "%s has no day: what was spent of it today counts as nothing", whose);
        check_budget(&check, (struct queue_word){"", 0}, whose,
                     bytes_of(queue_field(flat, "sums")));
    }
    free(check.sums);
}
