#include "orchestrator/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/failpoint.h"
#include "schemas/mem.h"

/* The version is PRAGMA user_version. To change a table: raise it, and add the statements that lead
 * from the version before to the end of `migrations`. New fields of the message `timing` need
 * nothing, unless 0 is not what an older program would have written: their columns are added when
 * the store is opened, between the two statements of a migration. */
#define STORE_VERSION 2
#define BUSY_MS 5000

#define COLUMN_STR "TEXT NOT NULL DEFAULT ''"
#define COLUMN_I64 "INTEGER NOT NULL DEFAULT 0"
#define COLUMN_F64 "REAL NOT NULL DEFAULT 0"
#define COLUMN_BOOL "INTEGER NOT NULL DEFAULT 0"

/* {"task", "TEXT ..."}, {"sub", ...}, ...: the columns of `attempts` are the fields of `timing`. */
static const struct {
    const char *name, *type;
} columns[] = {
#define F(kind, name, limit, text) {#name, COLUMN_##kind},
    TIMING_FIELDS(F)
#undef F
};
#define N_COLUMNS (sizeof columns / sizeof *columns)

static const struct {
    const char *before, *after; /* the columns of `attempts` are complete */
} migrations[STORE_VERSION] = {
    {"CREATE TABLE attempts (task TEXT NOT NULL, sub TEXT NOT NULL, attempt INTEGER NOT NULL,"
     " UNIQUE (task, sub, attempt));"
     "CREATE TABLE decisions (task TEXT NOT NULL, sub TEXT NOT NULL, attempt INTEGER NOT NULL,"
     " time_ms INTEGER NOT NULL, candidates TEXT NOT NULL, PRIMARY KEY (task, sub, attempt))"
     " WITHOUT ROWID;"
     "CREATE TABLE archive (task TEXT PRIMARY KEY, state TEXT NOT NULL, title TEXT NOT NULL,"
     " created_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL, json TEXT NOT NULL);"
     "CREATE INDEX archive_created ON archive (created_ms);",
     ""},
    {"", "UPDATE attempts SET cache_write_tokens = -1, search_ms = -1, cost_known = cost_usd > 0"},
};

/* Fields that read otherwise than 0 when the file is older than they are. */
static const struct {
    const char *name, *value;
} absent[] = {
    {"cache_write_tokens", "-1"},
    {"search_ms", "-1"},
    {"cost_known", "cost_usd > 0"},
};

struct store {
    sqlite3 *db;
    char *path;
    bool has_column[N_COLUMNS]; /* of `attempts`, when it was opened */
    sqlite3_stmt *add_attempt, *add_decision, *add_task;
};

/* --- errors --------------------------------------------------------------------------------- */

static int fail(const struct store *store, int code, struct err *err)
{
    static const struct {
        int code, rc;
        const char *advice;
    } table[] = {
        {SQLITE_BUSY, -EBUSY, "another process holds it locked"},
        {SQLITE_LOCKED, -EBUSY, "another process holds it locked"},
        {SQLITE_FULL, -ENOSPC, "the disk is full: make room"},
        {SQLITE_CORRUPT, -EUCLEAN, "it is damaged: move the file away, or restore a copy"},
        {SQLITE_NOTADB, -EBADMSG, "it is no SQLite file: move it away"},
        {SQLITE_CANTOPEN, -EACCES, "check its directory and permissions"},
        {SQLITE_READONLY, -EACCES, "it cannot be written: check its permissions"},
        {SQLITE_NOMEM, -ENOMEM, "memory is out"},
    };
    const char *text = store->db != NULL ? sqlite3_errmsg(store->db) : sqlite3_errstr(code);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].code == (code & 0xff))
            return err_set(err, table[i].rc, "profile store %s: %s (%s)", store->path, text,
                           table[i].advice);
    return err_set(err, -EIO, "profile store %s: %s", store->path, text);
}

static int run(const struct store *store, const char *sql, struct err *err)
{
    int code = sqlite3_exec(store->db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? 0 : fail(store, code, err);
}

static int prepare(const struct store *store, sqlite3_stmt **ret, const char *sql, struct err *err)
{
    int code = sqlite3_prepare_v2(store->db, sql, -1, ret, NULL);
    return code == SQLITE_OK ? 0 : fail(store, code, err);
}

/* --- opening -------------------------------------------------------------------------------- */

void store_close(struct store **ret)
{
    struct store *store = *ret;
    *ret = NULL;
    if (store == NULL)
        return;
    sqlite3_finalize(store->add_attempt);
    sqlite3_finalize(store->add_decision);
    sqlite3_finalize(store->add_task);
    sqlite3_close(store->db);
    free(store->path);
    free(store);
}

/* It has prompts and results: for its user only, also where the home is not. SQLite gives its other
 * files the same mode. */
static void make_private(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
}

static int open_file(struct store **ret, const char *path, int flags, struct err *err)
{
    struct store *store = mem_must_zalloc(sizeof *store);
    store->path = mem_must_strdup(path);
    if ((flags & SQLITE_OPEN_CREATE) != 0)
        make_private(path);
    int code = sqlite3_open_v2(path, &store->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        int rc = fail(store, code, err);
        store_close(&store);
        return rc;
    }
    sqlite3_busy_timeout(store->db, BUSY_MS);
    *ret = store;
    return 0;
}

static int read_version(const struct store *store, int *ret, struct err *err)
{
    sqlite3_stmt *statement = NULL;
    int rc = prepare(store, &statement, "PRAGMA user_version", err);
    if (rc == 0) {
        int code = sqlite3_step(statement);
        rc = code == SQLITE_ROW ? 0 : fail(store, code, err);
        *ret = sqlite3_column_int(statement, 0);
    }
    sqlite3_finalize(statement);
    return rc;
}

static int check_version(const struct store *store, int *ret, struct err *err)
{
    int rc = read_version(store, ret, err);
    if (rc == 0 && *ret > STORE_VERSION)
        return err_set(err, -EBADMSG,
                       "profile store %s is of version %d, which is newer than this program's %d: "
                       "use the newer program, or another file",
                       store->path, *ret, STORE_VERSION);
    return rc;
}

static int read_columns(struct store *store, struct err *err)
{
    sqlite3_stmt *statement = NULL;
    int rc = prepare(store, &statement, "SELECT name FROM pragma_table_info('attempts')", err);
    while (rc == 0 && sqlite3_step(statement) == SQLITE_ROW)
        for (size_t i = 0; i < N_COLUMNS; i++)
            if (strcmp(columns[i].name, (const char *)sqlite3_column_text(statement, 0)) == 0)
                store->has_column[i] = true;
    sqlite3_finalize(statement);
    return rc;
}

static int add_columns(struct store *store, struct err *err)
{
    int rc = read_columns(store, err);
    for (size_t i = 0; i < N_COLUMNS && rc == 0; i++) {
        char sql[256];
        snprintf(sql, sizeof sql, "ALTER TABLE attempts ADD COLUMN %s %s", columns[i].name,
                 columns[i].type);
        if (!store->has_column[i])
            rc = run(store, sql, err);
        store->has_column[i] = true;
    }
    if (rc == 0)
        rc =
            run(store, "CREATE INDEX IF NOT EXISTS attempts_started ON attempts (started_ms)", err);
    return rc;
}

/* Several processes may open a new store at once: the version is read again within the lock. */
static int migrate_locked(struct store *store, struct err *err)
{
    int from = STORE_VERSION;
    int rc = check_version(store, &from, err);
    for (int version = from; rc == 0 && version < STORE_VERSION; version++)
        rc = run(store, migrations[version].before, err);
    if (rc == 0)
        rc = add_columns(store, err);
    for (int version = from; rc == 0 && version < STORE_VERSION; version++)
        rc = run(store, migrations[version].after, err);
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA user_version = %d; COMMIT", STORE_VERSION);
    return rc == 0 ? run(store, sql, err) : rc;
}

static bool is_complete(const struct store *store)
{
    for (size_t i = 0; i < N_COLUMNS; i++)
        if (!store->has_column[i])
            return false;
    return true;
}

static int migrate(struct store *store, struct err *err)
{
    int version;
    int rc = check_version(store, &version, err);
    if (rc == 0)
        rc = read_columns(store, err);
    if (rc != 0 || (version == STORE_VERSION && is_complete(store)))
        return rc;
    rc = run(store, "BEGIN IMMEDIATE", err);
    if (rc == 0)
        rc = migrate_locked(store, err);
    if (rc != 0)
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

static int prepare_inserts(struct store *store, struct err *err)
{
    char sql[2048] = "INSERT OR IGNORE INTO attempts (";
    char marks[256] = "";
    for (size_t i = 0; i < N_COLUMNS; i++) {
        size_t len = strlen(sql);
        snprintf(sql + len, sizeof sql - len, "%s%s", i > 0 ? "," : "", columns[i].name);
        strcat(marks, i > 0 ? ",?" : "?");
    }
    size_t len = strlen(sql);
    snprintf(sql + len, sizeof sql - len, ") VALUES (%s)", marks);
    int rc = prepare(store, &store->add_attempt, sql, err);
    if (rc == 0)
        rc = prepare(store, &store->add_decision,
                     "INSERT OR IGNORE INTO decisions (task, sub, attempt, time_ms, candidates) "
                     "VALUES (?,?,?,?,?)",
                     err);
    if (rc == 0)
        rc = prepare(store, &store->add_task,
                     "INSERT OR REPLACE INTO archive (task, state, title, created_ms, finished_ms, "
                     "json) VALUES (?,?,?,?,?,?)",
                     err);
    return rc;
}

int store_open(struct store **ret, const char *path, struct err *err)
{
    struct store *store = NULL;
    int rc = open_file(&store, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err);
    if (rc == 0)
        rc = run(store, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", err);
    if (rc == 0)
        rc = migrate(store, err);
    if (rc == 0)
        rc = prepare_inserts(store, err);
    if (rc == 0)
        *ret = store;
    else
        store_close(&store);
    return rc;
}

/* --- damage -------------------------------------------------------------------------------- */

/* 0; -EUCLEAN: SQLite finds it damaged; another errno: it cannot be looked at. */
static int look_for_damage(const char *path, struct err *err)
{
    struct store *store = NULL;
    sqlite3_stmt *statement = NULL;
    int rc = open_file(&store, path, SQLITE_OPEN_READWRITE, err);
    if (rc == 0)
        rc = prepare(store, &statement, "PRAGMA quick_check(1)", err);
    if (rc == 0) {
        int code = sqlite3_step(statement);
        const char *word = (const char *)sqlite3_column_text(statement, 0);
        if (code != SQLITE_ROW)
            rc = fail(store, code, err);
        else if (word != NULL && strcmp(word, "ok") != 0)
            rc = fail(store, SQLITE_CORRUPT, err);
    }
    sqlite3_finalize(statement);
    store_close(&store);
    return rc;
}

int store_set_aside(const char *path, char **ret_name, struct err *err)
{
    static const char *const parts[] = {"-wal", "-shm", ""}; /* the log goes with its file */
    int rc = look_for_damage(path, err);
    if (rc != -EUCLEAN)
        return rc == 0 ? err_set(err, -EEXIST, "profile store %s is not damaged", path) : rc;
    char *name = mem_must_printf("%s.damaged-%lld", path, (long long)clock_wall_ms());
    rc = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && rc == 0; i++) {
        char *from = mem_must_printf("%s%s", path, parts[i]);
        char *to = mem_must_printf("%s%s", name, parts[i]);
        if (rename(from, to) != 0 && (errno != ENOENT || *parts[i] == '\0'))
            rc = err_set(err, -errno, "cannot rename %s: %s", from, strerror(errno));
        free(from);
        free(to);
    }
    if (rc == 0)
        *ret_name = name;
    else
        free(name);
    return rc;
}

int store_open_read(struct store **ret, const char *path, struct err *err)
{
    struct store *store = NULL;
    int version;
    if (access(path, F_OK) != 0)
        return err_set(err, -ENOENT, "profile store %s: there is none yet", path);
    /* WAL needs its side files also for reading, so the file is opened for writing if possible. */
    int rc = open_file(&store, path, SQLITE_OPEN_READWRITE, err);
    if (rc == -EACCES)
        rc = open_file(&store, path, SQLITE_OPEN_READONLY, err);
    if (rc == 0)
        rc = run(store, "PRAGMA query_only = 1", err);
    if (rc == 0)
        rc = check_version(store, &version, err);
    if (rc == 0 && version == 0)
        rc = err_set(err, -ENOENT, "profile store %s: it is empty", path);
    if (rc == 0)
        rc = read_columns(store, err);
    if (rc == 0)
        *ret = store;
    else
        store_close(&store);
    return rc;
}

/* --- writing -------------------------------------------------------------------------------- */

static void bind_str(sqlite3_stmt *statement, int at, const char *text)
{
    sqlite3_bind_text(statement, at, text != NULL ? text : "", -1, SQLITE_STATIC);
}

#define BIND_STR(name) bind_str(statement, ++at, timing->name);
#define BIND_I64(name) sqlite3_bind_int64(statement, ++at, timing->name);
#define BIND_F64(name) sqlite3_bind_double(statement, ++at, timing->name);
#define BIND_BOOL(name) sqlite3_bind_int(statement, ++at, timing->name);

static int insert(sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int write_timing(struct store *store, const struct store_row *row, int64_t *bad)
{
    struct message message;
    sqlite3_stmt *statement = store->add_attempt;
    if (message_decode_as(&message, MESSAGE_timing, row->data.data, row->data.len) != 0) {
        ++*bad;
        return SQLITE_OK;
    }
    const struct msg_timing *timing = &message.timing;
    int at = 0;
#define F(kind, name, limit, text) BIND_##kind(name)
    TIMING_FIELDS(F)
#undef F
    int code = insert(statement);
    message_release(&message);
    return code;
}

static int write_decision(struct store *store, const struct store_row *row, int64_t *bad)
{
    sqlite3_stmt *statement = store->add_decision;
    (void)bad;
    bind_str(statement, 1, row->id);
    bind_str(statement, 2, row->other);
    sqlite3_bind_int64(statement, 3, row->attempt);
    sqlite3_bind_int64(statement, 4, row->created_ms);
    bind_str(statement, 5, row->text);
    return insert(statement);
}

static int write_task(struct store *store, const struct store_row *row, int64_t *bad)
{
    sqlite3_stmt *statement = store->add_task;
    (void)bad;
    bind_str(statement, 1, row->id);
    bind_str(statement, 2, row->other);
    bind_str(statement, 3, row->text);
    sqlite3_bind_int64(statement, 4, row->created_ms);
    sqlite3_bind_int64(statement, 5, row->finished_ms);
    sqlite3_bind_text64(statement, 6, row->data.data, row->data.len, SQLITE_STATIC, SQLITE_UTF8);
    return insert(statement);
}

static int write_barrier(struct store *store, const struct store_row *row, int64_t *bad)
{
    (void)store, (void)row, (void)bad;
    return SQLITE_OK;
}

static int write_rows(struct store *store, const struct store_rows *rows, int64_t *bad,
                      struct err *err)
{
    static int (*const writers[])(struct store *, const struct store_row *, int64_t *) = {
        [STORE_TIMING] = write_timing,
        [STORE_DECISION] = write_decision,
        [STORE_TASK] = write_task,
        [STORE_BARRIER] = write_barrier,
    };
    const struct store_row *row;
    STAILQ_FOREACH (row, rows, link) {
        int code = writers[row->kind](store, row, bad);
        if (code != SQLITE_OK)
            return fail(store, code, err);
    }
    return 0;
}

int store_write(struct store *store, const struct store_rows *rows, int64_t *ret_bad,
                struct err *err)
{
    bool forever = false; /* Redis forgets an archived task: it must be on the disk */
    int64_t bad = 0;
    const struct store_row *row;
    STAILQ_FOREACH (row, rows, link)
        forever = forever || row->kind == STORE_TASK;
    int rc = run(store,
                 forever ? "PRAGMA synchronous = FULL; BEGIN IMMEDIATE"
                         : "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
                 err);
    if (rc != 0)
        return rc;
    FAILPOINT("store.write");
    rc = write_rows(store, rows, &bad, err);
    FAILPOINT("store.commit");
    if (rc == 0)
        rc = run(store, "COMMIT", err);
    FAILPOINT("store.committed");
    if (rc != 0)
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    else
        *ret_bad = bad;
    return rc;
}

/* --- reading -------------------------------------------------------------------------------- */

static const char *column_str(sqlite3_stmt *statement, int at)
{
    const char *text = (const char *)sqlite3_column_text(statement, at);
    return text != NULL ? text : "";
}

int store_task_find(struct store *store, const char *id, char **ret_json, struct err *err)
{
    sqlite3_stmt *statement = NULL;
    char *json = NULL;
    /* An exact id sorts before those it begins. */
    int rc = prepare(store, &statement,
                     "SELECT task, json FROM archive WHERE task >= ?1 AND task < ?1 || '~' "
                     "ORDER BY task LIMIT 2",
                     err);
    if (rc != 0)
        return rc;
    bind_str(statement, 1, id);
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        bool exact = strcmp(column_str(statement, 0), id) == 0;
        json = mem_must_strdup(column_str(statement, 1));
        code = exact ? SQLITE_DONE : sqlite3_step(statement);
    }
    if (code == SQLITE_ROW)
        rc = err_set(err, -ENOTUNIQ, "several archived tasks begin with %s: give more of the id",
                     id);
    else if (code != SQLITE_DONE)
        rc = fail(store, code, err);
    else if (json == NULL)
        rc = err_set(err, -ENOENT, "no archived task %s", id);
    sqlite3_finalize(statement);
    if (rc == 0)
        *ret_json = json;
    else
        free(json);
    return rc;
}

int store_task_list(struct store *store, int64_t limit, store_task_fn *fn, void *ctx,
                    struct err *err)
{
    sqlite3_stmt *statement = NULL;
    int rc = prepare(store, &statement,
                     "SELECT task, state, title, created_ms, finished_ms FROM archive "
                     "ORDER BY created_ms DESC, task DESC LIMIT ?",
                     err);
    if (rc != 0)
        return rc;
    sqlite3_bind_int64(statement, 1, limit);
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct store_task task = {
            .id = column_str(statement, 0),
            .state = column_str(statement, 1),
            .title = column_str(statement, 2),
            .created_ms = sqlite3_column_int64(statement, 3),
            .finished_ms = sqlite3_column_int64(statement, 4),
        };
        fn(ctx, &task);
    }
    if (code != SQLITE_DONE)
        rc = fail(store, code, err);
    sqlite3_finalize(statement);
    return rc;
}

#define READ_STR(name) attempt.name = column_str(statement, at++);
#define READ_I64(name) attempt.name = sqlite3_column_int64(statement, at++);
#define READ_F64(name) attempt.name = sqlite3_column_double(statement, at++);
#define READ_BOOL(name) attempt.name = sqlite3_column_int(statement, at++) != 0;

/* What stands for the column in a SELECT. */
static const char *column_expression(const struct store *store, size_t column)
{
    if (store->has_column[column])
        return columns[column].name;
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        if (strcmp(absent[i].name, columns[column].name) == 0)
            return absent[i].value;
    return strcmp(columns[column].type, COLUMN_STR) == 0 ? "''" : "0";
}

int store_attempts(struct store *store, int64_t since_ms, const char *role, store_attempt_fn *fn,
                   void *ctx, struct err *err)
{
    char sql[2048] = "SELECT ";
    for (size_t i = 0; i < N_COLUMNS; i++) {
        size_t len = strlen(sql);
        snprintf(sql + len, sizeof sql - len, "%s%s", i > 0 ? "," : "",
                 column_expression(store, i));
    }
    strcat(sql, " FROM attempts WHERE started_ms >= ?1 AND (?2 = '' OR role = ?2)");
    sqlite3_stmt *statement = NULL;
    int rc = prepare(store, &statement, sql, err);
    if (rc != 0)
        return rc;
    sqlite3_bind_int64(statement, 1, since_ms);
    bind_str(statement, 2, role);
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct msg_timing attempt;
        int at = 0;
#define F(kind, name, limit, text) READ_##kind(name)
        TIMING_FIELDS(F)
#undef F
        fn(ctx, &attempt);
    }
    if (code != SQLITE_DONE)
        rc = fail(store, code, err);
    sqlite3_finalize(statement);
    return rc;
}

static const char *expression_of(const struct store *store, const char *name)
{
    for (size_t i = 0; i < N_COLUMNS; i++)
        if (strcmp(columns[i].name, name) == 0)
            return column_expression(store, i);
    return "0";
}

int store_answers(struct store *store, int64_t since_ms, int64_t limit, store_attempt_fn *fn,
                  void *ctx, struct err *err)
{
    char sql[512];
    sqlite3_stmt *statement = NULL;
    snprintf(sql, sizeof sql,
             "SELECT role, arm, result, started_ms, total_ms, task, sub, attempt "
             "FROM (SELECT * FROM attempts "
             "WHERE started_ms >= ? AND result = 'done' AND NOT %s "
             "ORDER BY started_ms DESC LIMIT ?) ORDER BY started_ms",
             expression_of(store, "cached"));
    int rc = prepare(store, &statement, sql, err);
    if (rc != 0)
        return rc;
    sqlite3_bind_int64(statement, 1, since_ms);
    sqlite3_bind_int64(statement, 2, limit);
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct msg_timing attempt = {
            .role = column_str(statement, 0),
            .arm = column_str(statement, 1),
            .result = column_str(statement, 2),
            .started_ms = sqlite3_column_int64(statement, 3),
            .total_ms = sqlite3_column_double(statement, 4),
            .task = column_str(statement, 5),
            .sub = column_str(statement, 6),
            .attempt = sqlite3_column_int64(statement, 7),
        };
        fn(ctx, &attempt);
    }
    if (code != SQLITE_DONE)
        rc = fail(store, code, err);
    sqlite3_finalize(statement);
    return rc;
}
