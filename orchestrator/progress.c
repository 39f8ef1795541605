#include "orchestrator/progress.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/containers.h"
#include "common/task_id.h"
#include "schemas/mem.h"

struct row {
    char *id, *title, *arm;
    enum sub_state state;
    int64_t attempt;
    int64_t started_ms, ended_ms; /* by Redis's clock; 0: not yet */
    int64_t tokens;               /* of the running attempt; 0: unknown */
    double tokens_per_s;
    UT_hash_handle hh;
};

struct progress {
    struct progress_options options;
    struct row *rows;      /* by id, in the order in which they came */
    int64_t first_ms;      /* of the log, by Redis's clock; 0: none came */
    int64_t clock_skew_ms; /* what is to be added to our clock so that it is not behind Redis's */
    int drawn;             /* lines on the screen that the next drawing replaces */
    struct buf out;
};

struct progress *progress_new(const struct progress_options *options)
{
    struct progress *progress = mem_must_zalloc(sizeof *progress);
    progress->options = *options;
    return progress;
}

/* --- writing -------------------------------------------------------------------------------- */

static void flush(struct progress *progress)
{
    const char *at = progress->out.data;
    size_t len = progress->out.len;
    if (progress->options.fd < 0)
        return;
    while (len > 0) {
        ssize_t n = write(progress->options.fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* nobody to tell */
        at += n;
        len -= (size_t)n;
    }
    buf_clear(&progress->out);
}

/* Takes the rows off the screen; the cursor is where they began. */
static void erase(struct progress *progress)
{
    if (progress->drawn > 0)
        buf_printf(&progress->out, "\033[%dA\r\033[J", progress->drawn);
    progress->drawn = 0;
}

void progress_note(struct progress *progress, const char *format, ...)
{
    struct buf text = {0};
    va_list args;
    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    erase(progress);
    render_safe(&progress->out, text.data != NULL ? text.data : "", text.len, true);
    buf_add_char(&progress->out, '\n');
    buf_release(&text);
    flush(progress);
}

void progress_free(struct progress **progress_ptr)
{
    struct progress *progress = *progress_ptr;
    if (progress == NULL)
        return;
    erase(progress);
    flush(progress);
    struct row *row, *next;
    HASH_ITER (hh, progress->rows, row, next) {
        HASH_DEL(progress->rows, row);
        free(row->id);
        free(row->title);
        free(row->arm);
        free(row);
    }
    buf_release(&progress->out);
    free(progress);
    *progress_ptr = NULL;
}

const struct buf *progress_out(const struct progress *progress)
{
    return &progress->out;
}

/* --- what is known ---------------------------------------------------------------------------- */

static struct row *row_of(struct progress *progress, const char *id)
{
    struct row *row;
    HASH_FIND_STR(progress->rows, id, row);
    if (row != NULL)
        return row;
    row = mem_must_zalloc(sizeof *row);
    row->id = mem_must_strdup(id);
    row->title = mem_must_strdup("");
    row->arm = mem_must_strdup("");
    row->state = SUB_BLOCKED;
    HASH_ADD_KEYPTR(hh, progress->rows, row->id, strlen(row->id), row);
    return row;
}

static void replace(char **text, const char *with)
{
    if (with == NULL || *with == '\0')
        return;
    free(*text);
    *text = mem_must_strdup(with);
}

void progress_view(struct progress *progress, const struct queue_task_view *view)
{
    for (size_t i = 0; i < view->n_subs; i++) {
        const struct queue_sub_view *sub = &view->subs[i];
        struct row *row = row_of(progress, sub->id);
        struct message meta;
        if (sub->meta.len > 0 &&
            message_decode_as(&meta, MESSAGE_meta, sub->meta.data, sub->meta.len) == 0) {
            replace(&row->title, meta.meta.title);
            message_release(&meta);
        }
        /* The log tells of the rest, in order. */
        if (row->started_ms == 0)
            row->state = sub->state;
    }
}

/* What the log calls a transition, and the state that the subtask has then. */
static const struct {
    const char *what;
    enum sub_state state;
} transitions[] = {
    {"ready", SUB_READY},   {"running", SUB_RUNNING}, {"done", SUB_DONE},
    {"retry", SUB_DELAYED}, {"dead", SUB_DEAD},       {"cancelled", SUB_CANCELLED},
};

static int64_t entry_ms(const struct queue_log_entry *entry)
{
    return strtoll(entry->id, NULL, 10);
}

static void move(struct row *row, enum sub_state state, const struct queue_log_entry *entry)
{
    int64_t ms = entry_ms(entry);
    row->state = state;
    if (state == SUB_RUNNING) {
        row->started_ms = ms;
        row->ended_ms = 0;
        row->tokens = 0;
        row->tokens_per_s = 0;
    } else if (row->started_ms > 0 && state != SUB_READY && row->ended_ms == 0) {
        row->ended_ms = ms;
    }
    if (entry->attempt > 0)
        row->attempt = entry->attempt;
    replace(&row->arm, entry->arm);
}

static void add_part(struct buf *out, const char *before, const char *text)
{
    if (text == NULL || *text == '\0')
        return;
    buf_add_str(out, before);
    render_cut(out, text, strlen(text), 300);
}

/* One line: "[   2.4 s] api: running on qwen@host/gpu0, attempt 2". */
static void print_transition(struct progress *progress, const struct row *row,
                             const struct queue_log_entry *entry)
{
    struct buf *out = &progress->out;
    buf_printf(out, "[%7.1f s] ", (double)(entry_ms(entry) - progress->first_ms) / 1000);
    if (row != NULL) {
        render_cut(out, row->id, strlen(row->id), SUB_ID_MAX);
        buf_add_str(out, ": ");
    }
    render_cut(out, entry->what, strlen(entry->what), 40);
    bool running = row != NULL && row->state == SUB_RUNNING;
    add_part(out, " on ", running ? (*entry->arm != '\0' ? entry->arm : entry->worker) : "");
    if (running && entry->attempt > 1)
        buf_printf(out, ", attempt %lld", (long long)entry->attempt);
    if (row != NULL && strcmp(entry->what, "done") == 0 && row->started_ms > 0) {
        buf_add_str(out, " in ");
        render_duration(out, (double)(row->ended_ms - row->started_ms));
    }
    add_part(out, ": ", entry->error_class);
    add_part(out, ": ", entry->text);
    buf_add_char(out, '\n');
}

void progress_entry(struct progress *progress, const struct queue_log_entry *entry, int64_t wall_ms)
{
    int64_t ms = entry_ms(entry);
    if (progress->first_ms == 0)
        progress->first_ms = ms;
    if (ms - wall_ms > progress->clock_skew_ms)
        progress->clock_skew_ms = ms - wall_ms;
    struct row *row = *entry->sub != '\0' ? row_of(progress, entry->sub) : NULL;
    for (size_t i = 0; row != NULL && i < sizeof transitions / sizeof *transitions; i++) {
        if (strcmp(transitions[i].what, entry->what) == 0)
            move(row, transitions[i].state, entry);
    }
    /* "ready" of every subtask says little: what runs says more. */
    if (!progress->options.quiet && !progress->options.terminal.live &&
        strcmp(entry->what, "ready") != 0) {
        print_transition(progress, row, entry);
        flush(progress);
    }
}

void progress_chunk(struct progress *progress, const char *sub, int64_t attempt, int64_t tokens,
                    double elapsed_ms)
{
    struct row *row;
    HASH_FIND_STR(progress->rows, sub, row);
    if (row == NULL || row->state != SUB_RUNNING || attempt < row->attempt || tokens < row->tokens)
        return;
    row->tokens = tokens;
    row->tokens_per_s = elapsed_ms > 0 ? (double)tokens * 1000 / elapsed_ms : 0;
}

/* --- rows --------------------------------------------------------------------------------------
 */

/* Colour and order of drawing by state: what runs and what failed is worth the lines of a small
 * screen more than what waits. */
static const struct {
    const char *color;
    int rank;
} looks[SUB_STATE_COUNT] = {
    [SUB_BLOCKED] = {"2", 4},  [SUB_READY] = {"0", 2},     [SUB_RUNNING] = {"36", 0},
    [SUB_DELAYED] = {"33", 1}, [SUB_HELD] = {"33", 1},     [SUB_DONE] = {"32", 3},
    [SUB_DEAD] = {"31", 0},    [SUB_CANCELLED] = {"2", 4},
};
#define RANKS 5

static const char *state_word(enum sub_state state)
{
    static const char *const words[SUB_STATE_COUNT] = {
        [SUB_BLOCKED] = "waits",   [SUB_READY] = "ready",         [SUB_RUNNING] = "running",
        [SUB_DELAYED] = "delayed", [SUB_HELD] = "held",           [SUB_DONE] = "done",
        [SUB_DEAD] = "dead",       [SUB_CANCELLED] = "cancelled",
    };
    return words[state];
}

static void add_rate(struct buf *out, const struct row *row)
{
    if (row->tokens_per_s > 0)
        buf_printf(out, "%.1f tok/s", row->tokens_per_s);
}

static void add_elapsed(struct buf *out, const struct row *row, int64_t now_ms)
{
    if (row->started_ms == 0)
        return;
    int64_t end_ms = row->ended_ms > 0 ? row->ended_ms : now_ms;
    render_duration(out, (double)(end_ms > row->started_ms ? end_ms - row->started_ms : 0));
}

/* A field of a row: right-aligned numbers are filled from the left. */
static void add_right(struct buf *out, const struct buf *text, int columns)
{
    int width = render_width(text->data != NULL ? text->data : "", text->len);
    for (int i = width; i < columns; i++)
        buf_add_char(out, ' ');
    buf_add(out, text->data, text->len);
}

/* state 9, title the rest, arm up to 30, rate 12, elapsed 11: what has no room is left out. */
static void draw_row(struct progress *progress, const struct row *row, int64_t now_ms)
{
    enum { STATE = 9, RATE = 12, ELAPSED = 12 };
    struct buf *out = &progress->out, rate = {0}, elapsed = {0};
    int columns = progress->options.terminal.columns - 1; /* the last column would wrap */
    int left = columns - STATE - 1;
    bool with_elapsed = left > 25, with_rate = left > 45;
    left -= (with_elapsed ? ELAPSED : 0) + (with_rate ? RATE : 0);
    int arm = left > 30 ? (left / 2 < 34 ? left / 2 : 34) : 0;
    const char *title = *row->title != '\0' ? row->title : row->id;
    bool color = progress->options.terminal.color;
    if (color)
        buf_printf(out, "\033[%sm", looks[row->state].color);
    render_fit(out, state_word(row->state), strlen(state_word(row->state)),
               columns < STATE ? columns : STATE);
    if (color)
        buf_add_str(out, "\033[0m");
    if (left - arm > 0) {
        buf_add_char(out, ' ');
        render_fit(out, title, strlen(title), left - arm - (arm > 0 ? 1 : 0));
    }
    if (arm > 0) {
        buf_add_char(out, ' ');
        render_fit(out, row->arm, strlen(row->arm), arm);
    }
    add_rate(&rate, row);
    add_elapsed(&elapsed, row, now_ms);
    if (with_rate)
        add_right(out, &rate, RATE);
    if (with_elapsed)
        add_right(out, &elapsed, ELAPSED);
    buf_release(&rate);
    buf_release(&elapsed);
    buf_add_char(out, '\n');
}

/* A sign per row for those that have room; small screens leave out the least interesting. */
static int pick_rank(const struct progress *progress, int room, int *ret_partial)
{
    int counts[RANKS] = {0}, used = 0, rank = 0;
    for (const struct row *row = progress->rows; row != NULL; row = row->hh.next)
        counts[looks[row->state].rank]++;
    while (rank < RANKS && used + counts[rank] <= room)
        used += counts[rank++];
    *ret_partial = rank < RANKS ? room - used : 0;
    return rank;
}

static void draw_summary(struct progress *progress, int hidden)
{
    int counts[SUB_STATE_COUNT] = {0};
    for (const struct row *row = progress->rows; row != NULL; row = row->hh.next)
        counts[row->state]++;
    struct buf text = {0};
    buf_printf(&text, "%d more;", hidden);
    for (int state = 0; state < SUB_STATE_COUNT; state++) {
        if (counts[state] > 0)
            buf_printf(&text, " %d %s", counts[state], state_word((enum sub_state)state));
    }
    render_cut(&progress->out, text.data, text.len, progress->options.terminal.columns - 1);
    buf_add_char(&progress->out, '\n');
    buf_release(&text);
}

void progress_draw(struct progress *progress, int64_t wall_ms)
{
    if (!progress->options.terminal.live || progress->options.quiet)
        return;
    if (progress->options.fd >= 0) {
        struct render_terminal now = render_terminal(progress->options.fd);
        progress->options.terminal.columns = now.columns;
        progress->options.terminal.rows = now.rows;
    }
    erase(progress);
    int total = (int)HASH_COUNT(progress->rows), room = progress->options.terminal.rows - 2;
    room = room < 1 ? 1 : room;
    int partial, rank = pick_rank(progress, total <= room ? total : room - 1, &partial), hidden = 0;
    for (const struct row *row = progress->rows; row != NULL; row = row->hh.next) {
        int mine = looks[row->state].rank;
        if (mine > rank || (mine == rank && partial-- <= 0)) {
            hidden++;
            continue;
        }
        draw_row(progress, row, wall_ms + progress->clock_skew_ms);
        progress->drawn++;
    }
    if (hidden > 0) {
        draw_summary(progress, hidden);
        progress->drawn++;
    }
    flush(progress);
}
