/* Any answer of a model: the files that are found in it have paths that stay below the directory,
 * and all else is told with a reason. The bytes before a 0xff are the answer of one subtask, the
 * others of the next. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void scan(struct files *files, const char *source, const uint8_t *data, size_t size)
{
    char *copy = malloc(size + 1);
    memcpy(copy, data, size);
    char *exact = realloc(copy, size > 0 ? size : 1);
    files_scan(files, source, exact, size);
    free(exact);
}

static void check(const struct files *files)
{
    size_t bytes = 0;
    if (files->n_entries > FILES_MOST)
        abort();
    for (size_t i = 0; i < files->n_entries; i++) {
        const struct files_entry *entry = &files->entries[i];
        if (files_path_problem(entry->path) != NULL || *entry->source == '\0')
            abort();
        if (entry->data == NULL && entry->n_edits == 0)
            abort();
        bytes += entry->len;
    }
    if (bytes > FILES_MAX_BYTES * FILES_MOST)
        abort();
    for (size_t i = 0; i < files->n_problems; i++)
        if (*files->problems[i].why == '\0')
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct files *files = files_new();
    const uint8_t *cut = size > 0 ? memchr(data, 0xff, size) : NULL;
    size_t first = cut != NULL ? (size_t)(cut - data) : size;
    scan(files, "one", data, first);
    if (cut != NULL)
        scan(files, "two", cut + 1, size - first - 1);
    check(files);
    files_settle(files);
    check(files);
    json_t *list = files_json(files), *problems = files_problems_json(files);
    if (json_array_size(list) > files->n_entries || json_array_size(problems) != files->n_problems)
        abort();
    json_decref(list);
    json_decref(problems);
    files_free(&files);
    return 0;
}
