/* Finds the blocks of a text, line by line. Nothing here fails: what is no block is prose. */
#include <string.h>

#include "orchestrator/files.h"
#include "orchestrator/files_path.h"
#include "schemas/buf.h"

struct scanner {
    struct files *files;
    const char *source;
    const char *at, *end;    /* the line to look at next */
    struct files_span above; /* last line of prose; len 0: none near */
    int blank;               /* empty lines since then */
    bool unbalanced;         /* a search for nested fences failed: the next would too */
};

struct fence {
    char mark; /* '`' or '~' */
    size_t run;
    size_t indent;
    struct files_span info;
};

/* The line at `at`, without its end; *ret_next: the start of the next one. */
static struct files_span line_at(const char *at, const char *end, const char **ret_next)
{
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    *ret_next = newline != NULL ? newline + 1 : end;
    size_t len = (size_t)((newline != NULL ? newline : end) - at);
    if (len > 0 && at[len - 1] == '\r')
        len--;
    return (struct files_span){at, len};
}

static size_t indent_of(struct files_span line)
{
    size_t n = 0;
    while (n < line.len && (line.at[n] == ' ' || line.at[n] == '\t'))
        n++;
    return n;
}

static bool is_blank(struct files_span line)
{
    return indent_of(line) == line.len;
}

/* CommonMark 0.30, section 4.5; any indentation, because lists indent their blocks. */
static bool fence_opens(struct files_span line, struct fence *ret)
{
    size_t indent = indent_of(line), run = 0;
    if (indent == line.len || (line.at[indent] != '`' && line.at[indent] != '~'))
        return false;
    char mark = line.at[indent];
    while (indent + run < line.len && line.at[indent + run] == mark)
        run++;
    struct files_span info = {line.at + indent + run, line.len - indent - run};
    if (run < 3 || (mark == '`' && memchr(info.at, '`', info.len) != NULL))
        return false;
    *ret = (struct fence){.mark = mark, .run = run, .indent = indent, .info = info};
    return true;
}

static bool fence_closes(struct files_span line, const struct fence *fence)
{
    size_t indent = indent_of(line), run = 0;
    while (indent + run < line.len && line.at[indent + run] == fence->mark)
        run++;
    struct files_span rest = {line.at + indent + run, line.len - indent - run};
    return run >= fence->run && indent <= fence->indent + 3 && is_blank(rest);
}

/* Where the fence's contents end; NULL when nothing closes it. nested: a fence with an info string
 * opens a block of its own, as in a README that was put in a fence of the same length. */
static const char *fence_end(const char *at, const char *end, const struct fence *fence,
                             bool nested, const char **ret_next)
{
    size_t depth = 0;
    for (const char *next; at < end; at = next) {
        struct files_span line = line_at(at, end, &next);
        struct fence inner;
        if (fence_closes(line, fence)) {
            if (depth == 0) {
                *ret_next = next;
                return at;
            }
            depth--;
        } else if (nested && fence_opens(line, &inner) && inner.mark == fence->mark &&
                   inner.run >= fence->run) {
            depth++;
        }
    }
    return NULL;
}

/* The block's contents with the fence's own indentation taken off; data is malloc'ed by buf. */
static void unindent(struct buf *out, const char *at, const char *end, size_t indent)
{
    for (const char *next; at < end; at = next) {
        struct files_span line = line_at(at, end, &next);
        size_t cut = indent_of(line);
        cut = cut < indent ? cut : indent;
        buf_add(out, at + cut, (size_t)(next - at) - cut);
    }
}

/* --- SEARCH/REPLACE ------------------------------------------------------------------------- */

enum { EDIT_MARK = 7 };

/* "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE" */
static bool is_mark(struct files_span line, char mark, const char *word)
{
    size_t len = strlen(word);
    while (line.len > 0 && (line.at[line.len - 1] == ' ' || line.at[line.len - 1] == '\t'))
        line.len--;
    if (line.len != EDIT_MARK + (len > 0 ? len + 1 : 0))
        return false;
    for (size_t i = 0; i < EDIT_MARK; i++) {
        if (line.at[i] != mark)
            return false;
    }
    return len == 0 ||
           (line.at[EDIT_MARK] == ' ' && memcmp(line.at + EDIT_MARK + 1, word, len) == 0);
}

static bool opens_edit(struct files_span line)
{
    return is_mark(line, '<', "SEARCH");
}

/* The start of the line with the mark; end when there is none. */
static const char *find_mark(const char *at, const char *end, char mark, const char *word,
                             const char **ret_next)
{
    for (const char *next; at < end; at = next) {
        struct files_span line = line_at(at, end, &next);
        if (is_mark(line, mark, word)) {
            *ret_next = next;
            return at;
        }
        if (opens_edit(line))
            break;
    }
    return NULL;
}

/* One edit whose SEARCH line has been read; at: behind it. Returns where to go on. */
static const char *scan_edit(struct scanner *scanner, const char *at, const char *end,
                             struct files_span path)
{
    const char *replace, *next;
    const char *middle = find_mark(at, end, '=', "", &replace);
    const char *close = middle != NULL ? find_mark(replace, end, '>', "REPLACE", &next) : NULL;
    if (close == NULL) {
        files_complain(scanner->files, path.at, path.len, scanner->source,
                       "an edit has no line \"%s\" behind its SEARCH line",
                       middle == NULL ? "=======" : ">>>>>>> REPLACE");
        return middle == NULL ? at : replace;
    }
    if (path.len == 0)
        files_complain(scanner->files, "", 0, scanner->source,
                       "a SEARCH/REPLACE edit does not say which file it is for");
    else
        files_add_edit(scanner->files, scanner->source, path.at, path.len, at,
                       (size_t)(middle - at), replace, (size_t)(close - replace));
    return next;
}

/* Whether the contents of a fence are edits; the path may be the line before the first one. */
static bool holds_edits(const char *at, const char *end, struct files_span *path)
{
    struct files_span before = {at, 0};
    for (const char *next; at < end; at = next) {
        struct files_span line = line_at(at, end, &next);
        if (opens_edit(line)) {
            struct files_span found;
            if (before.len > 0 && files_path_in_heading(before, &found))
                *path = found;
            return before.len == 0 || path->len > 0;
        }
        if (is_blank(line))
            continue;
        if (before.len > 0)
            return false;
        before = line;
    }
    return false;
}

static void scan_edits(struct scanner *scanner, const char *at, const char *end,
                       struct files_span path)
{
    for (const char *next; at < end; at = next) {
        struct files_span line = line_at(at, end, &next), found;
        if (opens_edit(line))
            next = scan_edit(scanner, next, end, path);
        else if (files_path_in_heading(line, &found))
            path = found;
    }
}

/* --- blocks --------------------------------------------------------------------------------- */

static struct files_span path_above(const struct scanner *scanner)
{
    struct files_span path = {"", 0};
    if (scanner->above.len > 0 && scanner->blank <= 1)
        files_path_in_heading(scanner->above, &path);
    return path;
}

static bool ends_with(struct files_span span, const char *suffix)
{
    size_t len = strlen(suffix);
    return span.len >= len && memcmp(span.at + span.len - len, suffix, len) == 0;
}

static bool is_diff(struct files_span language, struct files_span path)
{
    return (files_span_is(language, "diff") || files_span_is(language, "patch")) &&
           !ends_with(path, ".diff") && !ends_with(path, ".patch");
}

static void add_block(struct scanner *scanner, const struct fence *fence, struct files_span path,
                      const char *at, const char *end)
{
    struct buf contents = {0};
    unindent(&contents, at, end, fence->indent);
    const char *data = contents.data != NULL ? contents.data : "";
    if (contents.failed)
        files_complain(scanner->files, path.at, path.len, scanner->source, "memory is out");
    else if (holds_edits(data, data + contents.len, &path))
        scan_edits(scanner, data, data + contents.len, path);
    else if (path.len > 0 && is_diff(files_info_language(fence->info), path))
        files_complain(scanner->files, path.at, path.len, scanner->source,
                       "the block is a diff, not the whole file and not SEARCH/REPLACE");
    else if (path.len > 0)
        files_add_whole(scanner->files, scanner->source, path.at, path.len, data, contents.len);
    buf_release(&contents);
}

static const char *scan_fence(struct scanner *scanner, const struct fence *fence, const char *at)
{
    struct files_span path = {"", 0}, language = files_info_language(fence->info);
    if (!files_path_in_info(fence->info, &path))
        path = path_above(scanner);
    bool markdown = files_span_is(language, "markdown") || files_span_is(language, "md") ||
                    ends_with(path, ".md");
    const char *next = scanner->end, *close = NULL;
    if (markdown && !scanner->unbalanced)
        close = fence_end(at, scanner->end, fence, true, &next);
    scanner->unbalanced = scanner->unbalanced || (markdown && close == NULL);
    if (close == NULL)
        close = fence_end(at, scanner->end, fence, false, &next);
    if (close == NULL) {
        if (path.len > 0)
            files_complain(scanner->files, path.at, path.len, scanner->source,
                           "the answer ends in the middle of the block");
        return scanner->end;
    }
    add_block(scanner, fence, path, at, close);
    return next;
}

/* `<file path="src/a.c">` alone on its line. */
static bool opens_tag(struct files_span line, struct files_span *ret_path)
{
    static const char start[] = "<file ";
    size_t indent = indent_of(line);
    while (line.len > 0 && (line.at[line.len - 1] == ' ' || line.at[line.len - 1] == '\t'))
        line.len--;
    if (line.len < indent + sizeof start ||
        memcmp(line.at + indent, start, sizeof start - 1) != 0 || line.at[line.len - 1] != '>' ||
        line.at[line.len - 2] == '/')
        return false;
    struct files_span inside = {line.at + indent + sizeof start - 1,
                                line.len - indent - sizeof start};
    return files_path_in_info(inside, ret_path);
}

static bool closes_tag(struct files_span line)
{
    size_t indent = indent_of(line);
    struct files_span rest = {line.at + indent, line.len - indent};
    while (rest.len > 0 && (rest.at[rest.len - 1] == ' ' || rest.at[rest.len - 1] == '\t'))
        rest.len--;
    return files_span_is(rest, "</file>");
}

/* A fence right inside the tags belongs to the writing, not to the file. */
static void add_tagged(struct scanner *scanner, struct files_span path, const char *at,
                       const char *end)
{
    const char *next, *after;
    struct fence fence;
    struct files_span first = line_at(at, end, &next);
    if (at < end && fence_opens(first, &fence)) {
        const char *last = next;
        for (const char *line = next; line < end; line = after) {
            struct files_span span = line_at(line, end, &after);
            if (!is_blank(span))
                last = line;
        }
        if (last > at && fence_closes(line_at(last, end, &after), &fence)) {
            add_block(scanner, &fence, path, next, last);
            return;
        }
    }
    fence = (struct fence){.mark = '`', .run = 3, .info = {"", 0}};
    add_block(scanner, &fence, path, at, end);
}

static const char *scan_tag(struct scanner *scanner, struct files_span path, const char *at)
{
    const char *next;
    for (const char *line = at; line < scanner->end; line = next) {
        if (!closes_tag(line_at(line, scanner->end, &next)))
            continue;
        add_tagged(scanner, path, at, line);
        return next;
    }
    files_complain(scanner->files, path.at, path.len, scanner->source,
                   "the answer ends in the middle of the block");
    return scanner->end;
}

void files_scan(struct files *files, const char *source, const char *text, size_t len)
{
    struct scanner scanner = {.files = files, .source = source, .at = text, .end = text + len};
    struct files_span edited = {"", 0}; /* file of the last bare edit: more of it may follow */
    while (scanner.at < scanner.end) {
        const char *next;
        struct files_span line = line_at(scanner.at, scanner.end, &next), path;
        struct fence fence;
        bool block = true;
        if (fence_opens(line, &fence)) {
            next = scan_fence(&scanner, &fence, next);
        } else if (opens_tag(line, &path)) {
            next = scan_tag(&scanner, path, next);
        } else if (opens_edit(line)) {
            path = path_above(&scanner);
            edited = path.len > 0 || scanner.above.len > 0 ? path : edited;
            next = scan_edit(&scanner, next, scanner.end, edited);
        } else {
            block = false;
        }
        if (block || !is_blank(line)) {
            scanner.above = block ? (struct files_span){"", 0} : line;
            scanner.blank = 0;
        } else {
            scanner.blank++;
        }
        scanner.at = next;
    }
}
