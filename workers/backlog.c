#include "workers/backlog.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/containers.h"
#include "schemas/mem.h"

#define DECLINE_MS 1000 /* when nobody knows how long the arm cannot be used */

struct entry {
    struct backlog *backlog; /* borrowed */
    struct dispatch dispatch;
    int64_t waits_ms; /* since when it waits for the limits; 0: it does not */
    TAILQ_ENTRY(entry) link;
};
TAILQ_HEAD(entry_list, entry);

struct backlog {
    struct backlog_options options;
    struct loop_timer *timer;
    struct entry_list waiting, asking; /* oldest first; asking: the governor has not answered */
    size_t n_waiting, n_asking;
    int64_t until_ms; /* nothing is asked before; 0: ask */
    bool pumping;
};

static void pump_again(void *ctx)
{
    backlog_pump(ctx);
}

struct backlog *backlog_new(const struct backlog_options *options)
{
    struct backlog *backlog = mem_must_zalloc(sizeof *backlog);
    backlog->options = *options;
    backlog->timer = loop_timer_new(options->loop, pump_again, backlog);
    TAILQ_INIT(&backlog->waiting);
    TAILQ_INIT(&backlog->asking);
    return backlog;
}

void backlog_free(struct backlog **backlog_ptr)
{
    struct backlog *backlog = *backlog_ptr;
    struct dispatch dispatch;
    *backlog_ptr = NULL;
    if (backlog == NULL)
        return;
    while (backlog_remove(backlog, "", "", &dispatch))
        ;
    loop_timer_free(&backlog->timer);
    free(backlog);
}

size_t backlog_size(const struct backlog *backlog)
{
    return backlog->n_waiting + backlog->n_asking;
}

void backlog_push(struct backlog *backlog, const struct dispatch *dispatch)
{
    struct entry *entry = mem_must_zalloc(sizeof *entry);
    *entry = (struct entry){.backlog = backlog, .dispatch = *dispatch};
    TAILQ_INSERT_TAIL(&backlog->waiting, entry, link);
    backlog->n_waiting++;
}

/* --- permits ---------------------------------------------------------------------------------- */

/* It keeps its turn: nobody behind it would be let through before it. */
static void wait(struct backlog *backlog, struct entry *entry, int64_t now_ms, int64_t delay_ms)
{
    if (entry->waits_ms == 0)
        entry->waits_ms = now_ms;
    TAILQ_INSERT_HEAD(&backlog->waiting, entry, link);
    backlog->n_waiting++;
    backlog->until_ms = now_ms + delay_ms;
}

static bool waits_too_long(const struct entry *entry, int64_t now_ms, int64_t delay_ms)
{
    int64_t waited_ms = entry->waits_ms > 0 ? now_ms - entry->waits_ms : 0;
    return waited_ms + delay_ms > BACKLOG_WAIT_MS;
}

static void permit_answered(void *ctx, const struct governor_permit *permit)
{
    struct entry *entry = ctx;
    struct backlog *backlog = entry->backlog;
    const struct backlog_options *options = &backlog->options;
    int64_t now_ms = clock_ms();
    int64_t delay_ms = permit->delay_ms > 0 ? permit->delay_ms : 1;
    TAILQ_REMOVE(&backlog->asking, entry, link);
    backlog->n_asking--;
    if (permit->verdict == GOVERNOR_WAIT && !waits_too_long(entry, now_ms, delay_ms)) {
        wait(backlog, entry, now_ms, delay_ms);
    } else {
        struct dispatch dispatch = entry->dispatch;
        free(entry);
        if (permit->verdict == GOVERNOR_GRANTED)
            options->start(options->ctx, &dispatch, permit);
        else
            options->decline(options->ctx, &dispatch,
                             permit->delay_ms > 0 ? permit->delay_ms : DECLINE_MS, permit->reason);
    }
    backlog_pump(backlog);
}

static void ask(struct backlog *backlog, struct entry *entry)
{
    TAILQ_REMOVE(&backlog->waiting, entry, link);
    backlog->n_waiting--;
    TAILQ_INSERT_TAIL(&backlog->asking, entry, link);
    backlog->n_asking++;
    governor_acquire(backlog->options.governor, entry->dispatch.arm->name, 0, permit_answered,
                     entry);
}

void backlog_pump(struct backlog *backlog)
{
    if (backlog->pumping) /* an answer came at once: the loop below goes on */
        return;
    backlog->pumping = true;
    while (backlog->n_waiting > 0 &&
           backlog->options.has_place(backlog->options.ctx, backlog->n_asking)) {
        int64_t left_ms = backlog->until_ms - clock_ms();
        if (backlog->until_ms > 0 && left_ms > 0) {
            loop_timer_start(backlog->timer, left_ms, 0);
            break;
        }
        backlog->until_ms = 0;
        ask(backlog, TAILQ_FIRST(&backlog->waiting));
    }
    backlog->pumping = false;
}

/* --- taking out ------------------------------------------------------------------------------- */

static struct entry *find(struct entry_list *list, const char *task, const char *sub)
{
    struct entry *entry;
    TAILQ_FOREACH (entry, list, link) {
        const struct dispatch *dispatch = &entry->dispatch;
        if ((task[0] == '\0' || strcmp(dispatch->task, task) == 0) &&
            (sub[0] == '\0' || strcmp(dispatch->sub, sub) == 0))
            return entry;
    }
    return NULL;
}

bool backlog_remove(struct backlog *backlog, const char *task, const char *sub,
                    struct dispatch *ret)
{
    struct entry *entry = find(&backlog->waiting, task, sub);
    if (entry != NULL) {
        TAILQ_REMOVE(&backlog->waiting, entry, link);
        backlog->n_waiting--;
    } else {
        entry = find(&backlog->asking, task, sub);
        if (entry == NULL)
            return false;
        governor_forget(backlog->options.governor, entry);
        TAILQ_REMOVE(&backlog->asking, entry, link);
        backlog->n_asking--;
    }
    *ret = entry->dispatch;
    free(entry);
    return true;
}
