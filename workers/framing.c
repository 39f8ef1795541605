#include "workers/framing.h"

#include <errno.h>
#include <string.h>

void framing_init(struct framing *framing, enum provider_framing kind)
{
    *framing = (struct framing){.kind = kind};
}

void framing_release(struct framing *framing)
{
    buf_release(&framing->pending);
    buf_release(&framing->data);
}

static int fail(struct framing *framing, int rc)
{
    framing->failed = rc;
    return rc;
}

static void call(struct framing *framing, const char *data, size_t len, framing_fn *fn, void *ctx)
{
    if (!fn(ctx, data, len))
        framing->stopped = true;
}

/* The event is complete: passes it on. */
static void dispatch(struct framing *framing, framing_fn *fn, void *ctx)
{
    if (framing->has_data) {
        const char *data = framing->data.data;
        size_t len = framing->data.len;
        if (framing->whole != NULL) {
            data = framing->whole;
            len = framing->whole_len;
        }
        call(framing, data, len, fn, ctx);
    }
    framing->has_data = false;
    framing->raw = false;
    framing->whole = NULL;
    buf_clear(&framing->data);
}

/* Moves the borrowed line into `data`, before its bytes go away or another line joins it. */
static int keep_whole(struct framing *framing)
{
    if (framing->whole == NULL)
        return 0;
    buf_add(&framing->data, framing->whole, framing->whole_len);
    framing->whole = NULL;
    return framing->data.failed ? fail(framing, -ENOMEM) : 0;
}

/* One more line of the event's data. borrowed: it stays where it is while this feed lasts. */
static int add_data(struct framing *framing, const char *line, size_t len, bool borrowed)
{
    if (!framing->has_data && borrowed) {
        framing->whole = line;
        framing->whole_len = len;
        framing->has_data = true;
        return 0;
    }
    if (keep_whole(framing) < 0)
        return framing->failed;
    if (framing->data.len + framing->has_data + len > FRAMING_MAX_EVENT)
        return fail(framing, -EMSGSIZE);
    if (framing->has_data)
        buf_add_char(&framing->data, '\n');
    buf_add(&framing->data, line, len);
    framing->has_data = true;
    return framing->data.failed ? fail(framing, -ENOMEM) : 0;
}

/* Whether the line is the SSE field of that name; its value is what follows, without one space. */
static bool is_field(const char *line, size_t len, const char *name, const char **ret_value)
{
    size_t name_len = strlen(name);
    if (len < name_len || memcmp(line, name, name_len) != 0)
        return false;
    if (len > name_len && line[name_len] != ':')
        return false;
    const char *value = line + name_len + (len > name_len);
    if (value < line + len && *value == ' ')
        value++;
    *ret_value = value;
    return true;
}

static bool is_other_field(const char *line, size_t len)
{
    const char *value;
    return line[0] == ':' || is_field(line, len, "event", &value) ||
           is_field(line, len, "id", &value) || is_field(line, len, "retry", &value);
}

static int sse_line(struct framing *framing, const char *line, size_t len, bool borrowed,
                    framing_fn *fn, void *ctx)
{
    const char *value;
    if (len == 0) {
        if (!framing->raw) /* the JSON goes on behind a blank line */
            dispatch(framing, fn, ctx);
        return 0;
    }
    if (is_field(line, len, "data", &value)) {
        if (framing->raw)
            dispatch(framing, fn, ctx);
        if (framing->stopped)
            return 0;
        return add_data(framing, value, (size_t)(line + len - value), borrowed);
    }
    if (is_other_field(line, len)) {
        if (framing->raw)
            dispatch(framing, fn, ctx);
        return 0;
    }
    if (!framing->raw) {
        if (line[0] != '{' && line[0] != '[')
            return 0; /* an unknown field */
        dispatch(framing, fn, ctx);
        framing->raw = true;
    }
    return framing->stopped ? 0 : add_data(framing, line, len, borrowed);
}

/* One line without its end. borrowed: it lies in the bytes being fed, not in `pending`. */
static int take_line(struct framing *framing, const char *line, size_t len, bool borrowed,
                     framing_fn *fn, void *ctx)
{
    if (len > FRAMING_MAX_EVENT)
        return fail(framing, -EMSGSIZE);
    if (!framing->started && len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3;
        len -= 3;
    }
    framing->started = true;
    if (framing->kind == PROVIDER_SSE)
        return sse_line(framing, line, len, borrowed, fn, ctx);
    if (len > 0 && line[len - 1] == '\r')
        len--;
    size_t blank = 0;
    while (blank < len && (line[blank] == ' ' || line[blank] == '\t'))
        blank++;
    if (blank < len)
        call(framing, line, len, fn, ctx);
    return 0;
}

/* The line ends here: the piece at hand completes what is pending. */
static int end_line(struct framing *framing, const char *piece, size_t len, framing_fn *fn,
                    void *ctx)
{
    if (framing->pending.len == 0)
        return take_line(framing, piece, len, true, fn, ctx);
    buf_add(&framing->pending, piece, len);
    if (framing->pending.failed)
        return fail(framing, -ENOMEM);
    int rc = take_line(framing, framing->pending.data, framing->pending.len, false, fn, ctx);
    buf_clear(&framing->pending);
    return rc;
}

/* Where a line may end. The places of the next line feed and of the next carriage return are kept
 * apart, so that a body full of one of them is still searched only once for the other. */
struct ends {
    const char *line_feed;
    const char *carriage_return;
};

static const char *find(const char *at, const char *end, char c)
{
    const char *found = memchr(at, c, (size_t)(end - at));
    return found != NULL ? found : end;
}

static const char *next_end(struct ends *ends, enum provider_framing kind, const char *at,
                            const char *end)
{
    if (ends->line_feed == NULL || ends->line_feed < at)
        ends->line_feed = find(at, end, '\n');
    if (kind == PROVIDER_NDJSON)
        return ends->line_feed;
    if (ends->carriage_return == NULL || ends->carriage_return < at)
        ends->carriage_return = find(at, end, '\r');
    return ends->line_feed < ends->carriage_return ? ends->line_feed : ends->carriage_return;
}

int framing_feed(struct framing *framing, const char *data, size_t len, framing_fn *fn, void *ctx)
{
    if (framing->failed != 0 || framing->stopped || len == 0)
        return framing->failed;
    const char *at = data, *end = data + len;
    struct ends ends = {NULL, NULL};
    if (framing->last_was_cr && *at == '\n')
        at++;
    framing->last_was_cr = false;
    while (at < end) {
        const char *stop = next_end(&ends, framing->kind, at, end);
        if (stop == end)
            break;
        if (end_line(framing, at, (size_t)(stop - at), fn, ctx) < 0)
            return framing->failed;
        if (framing->stopped)
            return 0;
        at = stop + 1;
        if (*stop == '\r') {
            framing->last_was_cr = at == end;
            at += at < end && *at == '\n';
        }
    }
    if (at < end) {
        if (framing->pending.len + (size_t)(end - at) > FRAMING_MAX_EVENT)
            return fail(framing, -EMSGSIZE);
        buf_add(&framing->pending, at, (size_t)(end - at));
        if (framing->pending.failed)
            return fail(framing, -ENOMEM);
    }
    return keep_whole(framing);
}

int framing_end(struct framing *framing, framing_fn *fn, void *ctx)
{
    if (framing->failed != 0 || framing->stopped)
        return framing->failed;
    if (framing->pending.len > 0 && end_line(framing, "", 0, fn, ctx) < 0)
        return framing->failed;
    if (!framing->stopped)
        dispatch(framing, fn, ctx);
    return 0;
}
