#include "orchestrator/files.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "orchestrator/render.h"
#include "orchestrator/task_json.h"
#include "schemas/mem.h"

struct files *files_new(void)
{
    return mem_must_zalloc(sizeof(struct files));
}

static void edits_release(struct files_entry *entry)
{
    for (size_t i = 0; i < entry->n_edits; i++) {
        free(entry->edits[i].search);
        free(entry->edits[i].replace);
        free(entry->edits[i].source);
    }
    free(entry->edits);
    entry->edits = NULL;
    entry->n_edits = 0;
}

void files_free(struct files **files)
{
    if (*files == NULL)
        return;
    for (size_t i = 0; i < (*files)->n_entries; i++) {
        struct files_entry *entry = &(*files)->entries[i];
        edits_release(entry);
        free(entry->path);
        free(entry->source);
        free(entry->data);
    }
    for (size_t i = 0; i < (*files)->n_problems; i++) {
        free((*files)->problems[i].path);
        free((*files)->problems[i].source);
        free((*files)->problems[i].why);
    }
    free((*files)->entries);
    free((*files)->problems);
    free(*files);
    *files = NULL;
}

void files_complain(struct files *files, const char *path, size_t path_len, const char *source,
                    const char *format, ...)
{
    if (files->n_problems > FILES_MOST)
        return;
    if (files->n_problems == FILES_MOST) {
        path_len = 0;
        format = "there are more such blocks, which are not listed";
    }
    char why[512];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    struct buf safe = {0};
    render_cut(&safe, path, path_len, 120);
    files->problems =
        mem_must_realloc(files->problems, (files->n_problems + 1) * sizeof *files->problems);
    files->problems[files->n_problems++] = (struct files_problem){
        .path = mem_must_strndup(safe.data != NULL ? safe.data : "", safe.len),
        .source = mem_must_strdup(source),
        .why = mem_must_strdup(why),
    };
    buf_release(&safe);
}

/* --- paths ---------------------------------------------------------------------------------- */

static bool drive(const char *path)
{
    bool letter = (path[0] >= 'a' && path[0] <= 'z') || (path[0] >= 'A' && path[0] <= 'Z');
    return letter && path[1] == ':';
}

static const char *component_problem(const char *name, size_t len)
{
    if (len == 2 && memcmp(name, "..", 2) == 0)
        return "the path leads out of the directory (..)";
    if (len > FILES_NAME_MAX)
        return "a name in the path is longer than 255 bytes";
    if (len == 4 && strncasecmp(name, ".git", 4) == 0)
        return "the path is in git's own directory, whose files run commands";
    return NULL;
}

const char *files_path_problem(const char *path)
{
    size_t len = strlen(path);
    if (len == 0)
        return "the path is empty";
    if (len > FILES_PATH_MAX)
        return "the path is longer than 1024 bytes";
    if (path[0] == '/')
        return "the path is absolute";
    if (path[0] == '~')
        return "the path starts in a home directory (~)";
    if (drive(path) || strchr(path, '\\') != NULL)
        return "the path is one of another system (drive or backslash)";
    for (const char *at = path; *at != '\0'; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return "the path has control characters";
    }
    for (const char *at = path, *end; *at != '\0'; at = *end != '\0' ? end + 1 : end) {
        end = strchrnul(at, '/');
        const char *problem = component_problem(at, (size_t)(end - at));
        if (problem != NULL)
            return problem;
    }
    const char *last = strrchr(path, '/');
    last = last != NULL ? last + 1 : path;
    if (*last == '\0' || strcmp(last, ".") == 0)
        return "the path names a directory, not a file";
    return NULL;
}

/* Without "." and empty components, so that ./a.c and a.c are one file. In place. */
static void tidy_path(char *path)
{
    char *out = path;
    for (const char *at = path, *end; *at != '\0'; at = *end != '\0' ? end + 1 : end) {
        end = strchrnul(at, '/');
        size_t len = (size_t)(end - at);
        if (len == 0 || (len == 1 && *at == '.'))
            continue;
        if (out != path)
            *out++ = '/';
        memmove(out, at, len);
        out += len;
    }
    *out = '\0';
}

/* --- entries -------------------------------------------------------------------------------- */

struct files_entry *files_find(struct files *files, const char *path)
{
    for (size_t i = 0; i < files->n_entries; i++) {
        if (strcmp(files->entries[i].path, path) == 0)
            return &files->entries[i];
    }
    return NULL;
}

/* The entry to put a block in; NULL, and complained, when the path may not be written. */
static struct files_entry *entry_for(struct files *files, const char *source, const char *path,
                                     size_t path_len)
{
    const char *problem = memchr(path, '\0', path_len) != NULL ? "the path has control characters"
                          : path_len > FILES_PATH_MAX ? "the path is longer than 1024 bytes"
                                                      : NULL;
    char *copy = mem_must_strndup(path, problem != NULL ? 0 : path_len);
    if (problem == NULL)
        problem = files_path_problem(copy);
    if (problem == NULL) {
        tidy_path(copy);
        problem = files_path_problem(copy); /* of "./~", too */
    }
    if (problem != NULL) {
        files_complain(files, path, path_len, source, "%s", problem);
        free(copy);
        return NULL;
    }
    struct files_entry *entry = files_find(files, copy);
    if (entry == NULL && files->n_entries >= FILES_MOST) {
        files_complain(files, path, path_len, source, "the task has more than %d files already",
                       FILES_MOST);
        free(copy);
        return NULL;
    }
    if (entry != NULL) {
        free(copy);
        return entry;
    }
    files->entries =
        mem_must_realloc(files->entries, (files->n_entries + 1) * sizeof *files->entries);
    entry = &files->entries[files->n_entries++];
    *entry = (struct files_entry){.path = copy, .source = mem_must_strdup(source)};
    return entry;
}

static void entry_changed(struct files_entry *entry, const char *source)
{
    char *copy = mem_must_strdup(source); /* source may be the entry's own */
    free(entry->source);
    entry->source = copy;
    if (entry->data != NULL)
        sha256_hex_of(entry->data, entry->len, entry->sha256);
}

void files_add_whole(struct files *files, const char *source, const char *path, size_t path_len,
                     const char *data, size_t len)
{
    if (len > FILES_MAX_BYTES) {
        files_complain(files, path, path_len, source, "it is larger than 16 MiB");
        return;
    }
    struct files_entry *entry = entry_for(files, source, path, path_len);
    if (entry == NULL)
        return;
    edits_release(entry);
    free(entry->data);
    entry->data = mem_must_zalloc(len + 1);
    memcpy(entry->data, data, len);
    entry->len = len;
    entry_changed(entry, source);
}

const char *files_edit_apply(char **data, size_t *len, const struct files_edit *edit)
{
    if (edit->search_len == 0 && *len > 0)
        return "the SEARCH part of an edit is empty, but the file is not";
    const char *found =
        edit->search_len == 0 ? *data : memmem(*data, *len, edit->search, edit->search_len);
    if (found == NULL)
        return "the text of a SEARCH part is not in the file";
    size_t before = (size_t)(found - *data), after = before + edit->search_len;
    if (edit->search_len > 0 &&
        memmem(found + 1, *len - before - 1, edit->search, edit->search_len) != NULL)
        return "the text of a SEARCH part is in the file more than once";
    size_t made_len = *len - edit->search_len + edit->replace_len;
    if (made_len > FILES_MAX_BYTES)
        return "it is larger than 16 MiB";
    char *made = mem_must_zalloc(made_len + 1);
    memcpy(made, *data, before);
    memcpy(made + before, edit->replace, edit->replace_len);
    memcpy(made + before + edit->replace_len, *data + after, *len - after);
    free(*data);
    *data = made;
    *len = made_len;
    return NULL;
}

void files_add_edit(struct files *files, const char *source, const char *path, size_t path_len,
                    const char *search, size_t search_len, const char *replace, size_t replace_len)
{
    struct files_entry *entry = entry_for(files, source, path, path_len);
    if (entry == NULL)
        return;
    if (entry->n_edits_seen++ >= FILES_MOST) {
        files_complain(files, path, path_len, source, "it has more than %d edits", FILES_MOST);
        return;
    }
    struct files_edit edit = {
        .search = mem_must_zalloc(search_len + 1),
        .search_len = search_len,
        .replace = mem_must_zalloc(replace_len + 1),
        .replace_len = replace_len,
        .source = mem_must_strdup(source),
    };
    memcpy(edit.search, search, search_len);
    memcpy(edit.replace, replace, replace_len);
    if (entry->data == NULL) {
        entry->edits = mem_must_realloc(entry->edits, (entry->n_edits + 1) * sizeof *entry->edits);
        entry->edits[entry->n_edits++] = edit;
        entry_changed(entry, source);
        return;
    }
    const char *problem = files_edit_apply(&entry->data, &entry->len, &edit);
    if (problem != NULL)
        files_complain(files, path, path_len, source, "%s", problem);
    else
        entry_changed(entry, source);
    free(edit.search);
    free(edit.replace);
    free(edit.source);
}

void files_settle(struct files *files)
{
    for (size_t i = 0; i < files->n_entries; i++) {
        struct files_entry *entry = &files->entries[i];
        if (entry->data != NULL)
            continue;
        const char *problem = "it edits a file that is not among the answers: write with --out DIR "
                              "--force where it exists";
        if (entry->n_edits > 0 && entry->edits[0].search_len == 0)
            problem = files_entry_edit(entry, "", 0);
        if (problem != NULL)
            files_complain(files, entry->path, strlen(entry->path), entry->source, "%s", problem);
    }
}

const char *files_entry_edit(struct files_entry *entry, const char *base, size_t base_len)
{
    char *data = mem_must_zalloc(base_len + 1);
    size_t len = base_len;
    memcpy(data, base, base_len);
    for (size_t i = 0; i < entry->n_edits; i++) {
        const char *problem = files_edit_apply(&data, &len, &entry->edits[i]);
        if (problem != NULL) {
            free(data);
            return problem;
        }
    }
    edits_release(entry);
    entry->data = data;
    entry->len = len;
    sha256_hex_of(data, len, entry->sha256);
    return NULL;
}

/* --- a whole task --------------------------------------------------------------------------- */

struct order {
    struct files *files;
    json_t *subtasks;
    json_t *places;       /* id -> index */
    unsigned char *seen;  /* by index */
    size_t *stack, *next; /* walk in depth without recursion: a chain may be 10,000 long */
};

static void scan_subtask(struct files *files, const json_t *subtask)
{
    json_t *output = json_get(subtask, "output");
    if (json_is_string(output) && strcmp(json_str(subtask, "kind", ""), "plan") != 0)
        files_scan(files, json_str(subtask, "id", ""), json_string_value(output),
                   json_string_length(output));
}

/* The next dependency of the subtask on top that has not been seen; n_subtasks when none is left.
 */
static size_t next_dependency(struct order *order, size_t index, size_t none)
{
    json_t *deps = json_get(json_array_get(order->subtasks, index), "depends_on");
    while (order->next[index] < json_array_size(deps)) {
        const char *id = json_string_value(json_array_get(deps, order->next[index]++));
        json_t *place = id != NULL ? json_get(order->places, id) : NULL;
        if (place != NULL && !order->seen[json_integer_value(place)])
            return (size_t)json_integer_value(place);
    }
    return none;
}

static void scan_from(struct order *order, size_t root)
{
    size_t n = json_array_size(order->subtasks), depth = 0;
    order->seen[root] = 1;
    order->stack[depth++] = root;
    while (depth > 0) {
        size_t top = order->stack[depth - 1], dep = next_dependency(order, top, n);
        if (dep < n) {
            order->seen[dep] = 1;
            order->stack[depth++] = dep;
            continue;
        }
        scan_subtask(order->files, json_array_get(order->subtasks, top));
        depth--;
    }
}

void files_scan_task(struct files *files, const json_t *task)
{
    json_t *subtasks = json_get(task, "subtasks"), *places = json_object(), *subtask;
    size_t n = json_array_size(subtasks), i;
    struct order order = {
        .files = files,
        .subtasks = subtasks,
        .places = places,
        .seen = mem_must_zalloc(n + 1),
        .stack = mem_must_zalloc((n + 1) * sizeof *order.stack),
        .next = mem_must_zalloc((n + 1) * sizeof *order.next),
    };
    json_array_foreach (subtasks, i, subtask)
        json_object_set_new(places, json_str(subtask, "id", ""), json_integer((json_int_t)i));
    for (i = 0; i < n; i++) {
        const char *kind = json_str(json_array_get(subtasks, i), "kind", "");
        if (!order.seen[i] && strcmp(kind, "synthesize") != 0)
            scan_from(&order, i);
    }
    for (i = 0; i < n; i++) {
        if (!order.seen[i])
            scan_from(&order, i);
    }
    json_decref(places);
    free(order.seen);
    free(order.stack);
    free(order.next);
}

/* --- as JSON -------------------------------------------------------------------------------- */

json_t *files_json(const struct files *files)
{
    json_t *array = json_array();
    for (size_t i = 0; i < files->n_entries; i++) {
        const struct files_entry *entry = &files->entries[i];
        if (entry->data == NULL)
            continue;
        json_t *object = json_object();
        json_object_set_new(object, "path", task_json_text(entry->path, strlen(entry->path)));
        json_object_set_new(object, "bytes", json_integer((json_int_t)entry->len));
        json_object_set_new(object, "sha256", json_string(entry->sha256));
        json_object_set_new(object, "source", json_string(entry->source));
        json_object_set_new(object, "written", json_boolean(entry->written));
        json_array_append_new(array, object);
    }
    return array;
}

json_t *files_problems_json(const struct files *files)
{
    json_t *array = json_array();
    for (size_t i = 0; i < files->n_problems; i++) {
        const struct files_problem *problem = &files->problems[i];
        json_t *object = json_object();
        json_object_set_new(object, "path", task_json_text(problem->path, strlen(problem->path)));
        json_object_set_new(object, "source", json_string(problem->source));
        json_object_set_new(object, "why", task_json_text(problem->why, strlen(problem->why)));
        json_array_append_new(array, object);
    }
    return array;
}
