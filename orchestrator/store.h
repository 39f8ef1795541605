/* The profile store: one row per attempt and per routing decision, and the archive of finished
 * tasks, in SQLite. The only place that knows sqlite3. Everything here blocks: the daemon writes
 * through store_writer.h, in the thread pool. */
#ifndef ORCHESTRATOR_STORE_H
#define ORCHESTRATOR_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/containers.h"
#include "common/err.h"
#include "schemas/message.h"

struct store;

/* --- writing -------------------------------------------------------------------------------- */

typedef void store_kept_fn(void *ctx, int rc); /* 0; negative: it was dropped */

enum store_row_kind {
    STORE_TIMING,   /* data: a record `timing`, as the worker wrote it */
    STORE_DECISION, /* id: task, other: subtask, text: candidates; attempt */
    STORE_TASK,     /* id: task, other: state, text: title, data: its JSON; created_ms, finished_ms
                     */
    STORE_BARRIER,  /* nothing: only fn is called when all before it is kept */
};
struct store_row {
    STAILQ_ENTRY(store_row) link;
    enum store_row_kind kind;
    int64_t attempt, created_ms, finished_ms;
    const char *id, *other, *text; /* NULL or inside of bytes */
    struct bytes data;             /* likewise */
    size_t size;                   /* of the whole row */
    store_kept_fn *fn;             /* NULL: nobody waits */
    void *ctx;
    char bytes[];
};
STAILQ_HEAD(store_rows, store_row);

/* Opens, creates or migrates. 0; -EBUSY: locked; -EUCLEAN: damaged;
 * -EBADMSG: no store, or one of a newer version; -EIO and others; each with a sentence. */
int store_open(struct store **ret, const char *path, struct err *err);
void store_close(struct store **store); /* accepts NULL */
/* Makes room for a new store where the one at path is damaged: its files are given the suffix
 * ".damaged-<Unix time in ms>". 0 and the new name, which the caller frees; -EEXIST: what is there
 * is not damaged (any more); another errno. */
int store_set_aside(const char *path, char **ret_name, struct err *err);
/* All rows in one transaction. A batch with a task is on the disk when this returns; others are
 * safe against a crash of the process at once, against one of the machine soon. Undecodable timing
 * records are counted in *ret_bad. Errors as above; then nothing of the batch was kept. */
int store_write(struct store *store, const struct store_rows *rows, int64_t *ret_bad,
                struct err *err);

/* --- reading -------------------------------------------------------------------------------- */

/* For reading only. -ENOENT when there is no store yet. */
int store_open_read(struct store **ret, const char *path, struct err *err);

/* The JSON of one archived task, as task_json() made it, by its id or the beginning of it; caller
 * frees. -ENOENT; -ENOTUNIQ when several begin so. */
int store_task_find(struct store *store, const char *id, char **ret_json, struct err *err);

struct store_task {
    const char *id, *state, *title;
    int64_t created_ms, finished_ms;
};
typedef void store_task_fn(void *ctx, const struct store_task *task);
/* Newest first; at most limit. */
int store_task_list(struct store *store, int64_t limit, store_task_fn *fn, void *ctx,
                    struct err *err);

typedef void store_attempt_fn(void *ctx, const struct msg_timing *attempt);
/* Attempts since a time (wall clock, ms), of one role or all (NULL). Fields that an older program
 * did not keep read as it would have written them. */
int store_attempts(struct store *store, int64_t since_ms, const char *role, store_attempt_fn *fn,
                   void *ctx, struct err *err);
/* How long answers took since a time: which attempt, role, arm, result, started_ms and total_ms of
 * calls that were answered, and not by the response cache; the last `limit` of them, oldest first.
 */
int store_answers(struct store *store, int64_t since_ms, int64_t limit, store_attempt_fn *fn,
                  void *ctx, struct err *err);

#endif
