/* What a prompt asks, and the query that asks an engine for it. */
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"
#include "workers/search_engine.h"
#include "workers/utf8.h"

#define QUESTION_HALF ((size_t)16 * 1024) /* bytes kept of each end of a long question */
#define SENTENCES_MAX 256

/* --- the question -----------------------------------------------------------------------------
 */

/* compose.c puts the results of earlier subtasks before this heading. They may be full of words
 * that ask for what is new, but they ask nothing. */
static const char heading[] = "## Your subtask\n\n";

static void skip_results(const char **prompt, size_t *len)
{
    const char *at = *prompt, *end = at + *len, *found = NULL;
    size_t n = sizeof heading - 1;
    if (*len < n || memcmp(at, "## ", 3) != 0)
        return;
    for (; (at = memmem(at, (size_t)(end - at), heading, n)) != NULL; at += n)
        if (at == *prompt || at[-1] == '\n')
            found = at + n;
    if (found == NULL)
        return;
    *len = (size_t)(end - found);
    *prompt = found;
}

/* The character that a fence (at least three of it) on this line is made of; 0: no fence. */
static char fence_of(const char *line, size_t len)
{
    size_t at = 0;
    while (at < len && at < 4 && line[at] == ' ')
        at++;
    if (len - at < 3 || (line[at] != '`' && line[at] != '~'))
        return 0;
    return line[at + 1] == line[at] && line[at + 2] == line[at] ? line[at] : 0;
}

static bool is_quoted(const char *line, size_t len)
{
    size_t at = 0;
    while (at < len && line[at] == ' ')
        at++;
    return at < len && line[at] == '>';
}

static void add_lines(struct buf *out, const char *text, size_t len)
{
    char fence = 0; /* inside a block of code */
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        size_t line = newline != NULL ? (size_t)(newline - text) : len;
        char mark = fence_of(text, line);
        if (mark != 0 && (fence == 0 || fence == mark))
            fence = fence == 0 ? mark : 0;
        else if (fence == 0 && !is_quoted(text, line)) {
            buf_add(out, text, line);
            buf_add_char(out, '\n');
        }
        line += newline != NULL;
        text += line;
        len -= line;
    }
}

void search_question(struct buf *out, const char *prompt, size_t len)
{
    skip_results(&prompt, &len);
    if (len <= 2 * QUESTION_HALF) {
        add_lines(out, prompt, len);
        return;
    }
    size_t tail = utf8_floor(prompt, len, len - QUESTION_HALF);
    add_lines(out, prompt, utf8_floor(prompt, len, QUESTION_HALF));
    add_lines(out, prompt + tail, len - tail);
}

/* --- the query --------------------------------------------------------------------------------
 */

struct sentence {
    size_t start, len; /* in the text */
    size_t chars;
    int weight;
    bool kept;
};

static size_t count_chars(const char *text, size_t len)
{
    size_t chars = 0;
    for (size_t i = 0; i < len; i++)
        chars += ((unsigned char)text[i] & 0xc0) != 0x80;
    return chars;
}

/* Length of the end of a sentence at `at`, with what closes it; 0: none. */
static size_t sentence_end(const char *text, size_t len)
{
    static const char *const marks[] = {"。", "？", "！", "؟", "।"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (len >= strlen(marks[i]) && memcmp(text, marks[i], strlen(marks[i])) == 0)
            return strlen(marks[i]);
    if (strchr(".?!", text[0]) == NULL || text[0] == '\0')
        return text[0] == '\n';
    size_t n = 1;
    while (n < len && strchr(".?!\"')", text[n]) != NULL && text[n] != '\0')
        n++;
    return n == len || text[n] == ' ' || text[n] == '\n' ? n : 0;
}

/* Marks of lists and headings say nothing to an engine. */
static size_t skip_marks(const char *text, size_t len)
{
    size_t at = 0;
    while (at < len && strchr(" \t\n#*-+|_=", text[at]) != NULL && text[at] != '\0')
        at++;
    return at;
}

static bool is_question(const char *text, size_t len)
{
    return memchr(text, '?', len) != NULL || memmem(text, len, "？", 3) != NULL ||
           memmem(text, len, "؟", 2) != NULL;
}

static size_t split(const char *text, size_t len, struct sentence *ret, int64_t wall_ms)
{
    size_t n = 0;
    for (size_t at = 0; at < len && n < SENTENCES_MAX;) {
        size_t start = at + skip_marks(text + at, len - at), stop = 0;
        for (at = start; at < len && stop == 0; at += stop > 0 ? stop : 1)
            stop = sentence_end(text + at, len - at);
        size_t size = at - start;
        while (size > 0 && (unsigned char)text[start + size - 1] <= ' ')
            size--;
        if (size == 0)
            continue;
        ret[n] = (struct sentence){.start = start, .len = size};
        ret[n].chars = count_chars(text + start, size);
        ret[n].weight = 4 * is_question(text + start, size) +
                        2 * search_asks_for_news(text + start, size, wall_ms);
        n++;
    }
    if (n > 0) { /* tasks are told first or last */
        ret[0].weight++;
        ret[n - 1].weight++;
    }
    return n;
}

/* Keeps the weightiest sentences that fit; the first one always, cut if need be. */
static void choose(struct sentence *sentences, size_t n)
{
    size_t room = SEARCH_QUERY_CHARS;
    for (;;) {
        struct sentence *best = NULL;
        for (size_t i = 0; i < n; i++)
            if (!sentences[i].kept && sentences[i].weight > 0 &&
                (best == NULL || sentences[i].weight > best->weight))
                best = &sentences[i];
        if (best == NULL)
            return;
        best->kept = best->chars <= room || room == SEARCH_QUERY_CHARS;
        best->weight = 0;
        if (best->kept)
            room -= best->chars + 1 < room ? best->chars + 1 : room;
    }
}

/* Appends the text on one line: blanks become one space, what cannot be seen goes. Stops at the
 * last word that fits into `room` characters; returns what is left of them. */
static size_t add_line(struct buf *out, const char *text, size_t len, size_t room)
{
    size_t word = out->len; /* where the last word ended */
    for (size_t at = 0; at < len;) {
        unsigned char c = (unsigned char)text[at];
        size_t step = utf8_sequence(text + at, len - at);
        bool blank = c <= ' ' || c == 0x7f;
        if (blank)
            word = out->len;
        if (room == 0) {
            if (!blank && word > 0)
                out->len = word; /* in the middle of a word */
            break;
        }
        if (blank && out->len > 0 && out->data[out->len - 1] != ' ') {
            buf_add_char(out, ' ');
            room--;
        } else if (!blank && step > 0) {
            buf_add(out, text + at, step);
            room--;
        }
        at += step > 0 ? step : 1;
    }
    return room;
}

static void add_chosen(struct buf *out, const char *text, const struct sentence *sentences,
                       size_t n)
{
    size_t room = SEARCH_QUERY_CHARS;
    for (size_t i = 0; i < n && !out->failed; i++) {
        if (!sentences[i].kept)
            continue;
        if (out->len > 0)
            room = add_line(out, " ", 1, room);
        room = add_line(out, text + sentences[i].start, sentences[i].len, room);
    }
}

void search_query(struct buf *out, const char *prompt, size_t len, int64_t wall_ms)
{
    struct buf text = {0}, query = {0};
    struct sentence *sentences = mem_zalloc(SENTENCES_MAX * sizeof *sentences);
    search_question(&text, prompt, len);
    out->failed |= text.failed || sentences == NULL;
    if (!out->failed && text.len > 0) {
        size_t n = split(text.data, text.len, sentences, wall_ms);
        size_t chars = 0;
        for (size_t i = 0; i < n; i++)
            chars += sentences[i].chars + 1;
        if (chars <= SEARCH_QUERY_CHARS + 1)
            for (size_t i = 0; i < n; i++)
                sentences[i].kept = true;
        else
            choose(sentences, n);
        add_chosen(&query, text.data, sentences, n);
        while (query.len > 0 && query.data[query.len - 1] == ' ')
            query.len--;
        buf_add(out, query.data, query.len);
        out->failed |= query.failed;
    }
    free(sentences);
    buf_release(&text);
    buf_release(&query);
}
