/* File blocks out of models' answers: found, put together in order, written below one directory.
 *
 * Forms that count as a file, with PATH a relative path (an extension or a slash, no spaces unless
 * quoted, not the name of a language alone):
 *   - a fenced block (``` or ~~~, three or more) with the path in its info string: `c src/a.c`,
 *     `src/a.c`, `c:src/a.c`, `c path=src/a.c`, also file=, filename=, filepath=, name=, title=
 *   - a fenced block with the path on the line above (one empty line may be between): `PATH`,
 * PATH:,
 *     **PATH**, ### PATH, - PATH, 1. PATH, File: PATH, PATH (a note)
 *   - <file path="PATH"> ... </file>, each tag on a line of its own
 *   - SEARCH/REPLACE edits, in a fence or bare, with the path as above or on the line before them:
 *         <<<<<<< SEARCH
 *         =======
 *         >>>>>>> REPLACE
 *     applied to the file as it is so far, else to the one that exists below the directory. The
 *     searched text must occur exactly once; an empty one makes a new file.
 * A later block of the same path replaces an earlier one. Everything that does not become a file
 * is kept as a problem with its reason. */
#ifndef ORCHESTRATOR_FILES_H
#define ORCHESTRATOR_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/json.h"
#include "common/sha256.h"

#define FILES_MOST 1000
#define FILES_MAX_BYTES ((size_t)16 * 1024 * 1024)
#define FILES_PATH_MAX 1024
#define FILES_NAME_MAX 255

/* One SEARCH/REPLACE edit. */
struct files_edit {
    char *search, *replace;
    size_t search_len, replace_len;
    char *source;
};

struct files_entry {
    char *path;   /* relative, checked, without "." and empty components */
    char *source; /* id of the subtask that had the last block */
    char *data;   /* NULL: only edits of a file that is not among the blocks */
    size_t len;
    struct files_edit *edits; /* that wait for the file below the directory */
    size_t n_edits;
    size_t n_edits_seen;          /* waiting and applied ones */
    bool written;                 /* by files_write() */
    char sha256[SHA256_HEX_SIZE]; /* of data; "" while there is none */
};

struct files_problem {
    char *path;   /* as the model wrote it, harmless characters only; may be "" */
    char *source; /* id of the subtask */
    char *why;    /* a sentence part: "the path is absolute" */
};

struct files {
    struct files_entry *entries; /* in order of first appearance */
    size_t n_entries;
    struct files_problem *problems;
    size_t n_problems;
};

struct files *files_new(void);
void files_free(struct files **files); /* accepts NULL */
/* Finds the blocks of one text; source: id of the subtask it is from. The text may be anything. */
void files_scan(struct files *files, const char *source, const char *text, size_t len);
/* Scans the outputs of a task (the object of task_json.h): dependencies before what depends on
 * them, the synthesis last, plans not at all. */
void files_scan_task(struct files *files, const json_t *task);

/* For those who will not write: a file that only exists below some directory becomes a problem, one
 * that the edits make from nothing gets its data. */
void files_settle(struct files *files);

/* NULL when the path may be written below a directory, else why not: absolute, "..", "~", a drive,
 * backslash, control characters, no name at the end, too long. */
const char *files_path_problem(const char *path);

/* Writes every entry below dir, which is made when missing; a file that exists is kept unless
 * `force`. Symbolic links are never followed. Each file is complete or not there at all. What was
 * not written becomes a problem. 0; negative errno with a sentence when dir itself is unusable. */
int files_write(struct files *files, const char *dir, bool force, struct err *err);

/* [{path, bytes, sha256, source, written}], and [{path, source, why}]. New references. */
json_t *files_json(const struct files *files);
json_t *files_problems_json(const struct files *files);

/* Shared by the parts of this module: the entry of the path, NULL when there is none. */
struct files_entry *files_find(struct files *files, const char *path);
void files_complain(struct files *files, const char *path, size_t path_len, const char *source,
                    const char *format, ...) __attribute__((format(printf, 5, 6)));
/* A block was found. path: as the model wrote it. */
void files_add_whole(struct files *files, const char *source, const char *path, size_t path_len,
                     const char *data, size_t len);
void files_add_edit(struct files *files, const char *source, const char *path, size_t path_len,
                    const char *search, size_t search_len, const char *replace, size_t replace_len);
/* Applies one edit to *data (malloc'ed, replaced). NULL, or why not. */
const char *files_edit_apply(char **data, size_t *len, const struct files_edit *edit);
/* Makes the entry's data of `base` and its waiting edits. NULL, or why not: then nothing changed.
 */
const char *files_entry_edit(struct files_entry *entry, const char *base, size_t base_len);

#endif
