#include "orchestrator/store_writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "schemas/mem.h"

#define BATCH_ROWS 1000
#define BATCH_MS 200
#define MAX_ROWS 100000
#define MAX_BYTES ((size_t)64 * 1024 * 1024)
#define AGAIN_MS 1000    /* after a failed batch */
#define GIVE_UP_MS 10000 /* a batch that fails for so long is dropped: the work goes on */

struct store_writer {
    uv_loop_t *loop;
    char *path;
    struct loop_timer *timer;
    struct store_rows rows; /* waiting */
    size_t n_rows, n_bytes, n_barriers;
    struct store_counts counts;
    bool busy, closed, complained;

    /* The batch, which belongs to the thread while busy. */
    uv_work_t work;
    struct store *store; /* NULL: not open */
    struct store_rows batch;
    size_t n_batch;
    bool in_batch; /* it holds rows, of which the writing may have failed */
    int64_t failing_since_ms;
    int rc;
    int64_t bad;
    struct err err;
};

static void start_batch(void *ctx);
static void arrange_batch(struct store_writer *writer);

struct store_writer *store_writer_new(uv_loop_t *loop, const char *path)
{
    struct store_writer *writer = mem_must_zalloc(sizeof *writer);
    writer->loop = loop;
    writer->path = mem_must_strdup(path);
    writer->timer = loop_timer_new(loop, start_batch, writer);
    STAILQ_INIT(&writer->rows);
    STAILQ_INIT(&writer->batch);
    return writer;
}

/* Tells who waits for them. */
static void answer_rows(struct store_rows *rows, int rc)
{
    struct store_row *row;
    while ((row = STAILQ_FIRST(rows)) != NULL) {
        STAILQ_REMOVE_HEAD(rows, link);
        if (row->fn != NULL)
            row->fn(row->ctx, rc);
        free(row);
    }
}

static void destroy(struct store_writer *writer)
{
    answer_rows(&writer->batch, -ECANCELED);
    answer_rows(&writer->rows, -ECANCELED);
    store_close(&writer->store);
    free(writer->path);
    free(writer);
}

void store_writer_close(struct store_writer **ret)
{
    struct store_writer *writer = *ret;
    *ret = NULL;
    if (writer == NULL)
        return;
    writer->closed = true;
    loop_timer_free(&writer->timer);
    if (!writer->busy)
        destroy(writer); /* else the end of the batch does it */
}

struct store_counts store_writer_counts(const struct store_writer *writer)
{
    return writer->counts;
}

/* --- batches -------------------------------------------------------------------------------- */

/* Time changes nothing about it. */
static bool is_of_the_file(int rc)
{
    return rc == -EBADMSG || rc == -EUCLEAN;
}

static int open_and_write(struct store_writer *writer)
{
    int rc = 0;
    if (writer->store == NULL)
        rc = store_open(&writer->store, writer->path, &writer->err);
    return rc == 0 ? store_write(writer->store, &writer->batch, &writer->bad, &writer->err) : rc;
}

/* The file is damaged. Whether there is another one now, or room for it. */
static bool make_room(struct store_writer *writer)
{
    char *name = NULL;
    struct err err = {""};
    store_close(&writer->store);
    int rc = store_set_aside(writer->path, &name, &err);
    if (rc == 0)
        log_error("profile store %s is damaged: it is named %s now, and history begins anew; "
                  "`sqlite3 %s .recover` may save what is in it",
                  writer->path, name, name);
    else if (rc != -EEXIST)
        log_error("%s", err.text);
    free(name);
    return rc == 0 || rc == -EEXIST;
}

/* In the thread pool. */
static void write_batch(uv_work_t *work)
{
    struct store_writer *writer = work->data;
    const struct store_row *row;
    bool any = false;
    STAILQ_FOREACH (row, &writer->batch, link)
        any = any || row->kind != STORE_BARRIER;
    writer->rc = 0;
    writer->bad = 0;
    if (any)
        writer->rc = open_and_write(writer);
    if (writer->rc == -EUCLEAN && make_room(writer))
        writer->rc = open_and_write(writer);
    if (is_of_the_file(writer->rc) || writer->rc == -EIO)
        store_close(&writer->store); /* perhaps the file is exchanged */
}

static void finish_batch(struct store_writer *writer, int rc)
{
    struct store_rows done = STAILQ_HEAD_INITIALIZER(done);
    STAILQ_CONCAT(&done, &writer->batch);
    *(rc == 0 ? &writer->counts.kept : &writer->counts.dropped) += (int64_t)writer->n_batch;
    writer->counts.batches++;
    writer->in_batch = false;
    answer_rows(&done, rc);
}

/* True when the batch is worth another try later. */
static bool handle_failure(struct store_writer *writer)
{
    int64_t now = clock_ms();
    if (writer->failing_since_ms == 0)
        writer->failing_since_ms = now;
    if (!writer->complained)
        log_error("%s; timing rows are dropped until it works again", writer->err.text);
    writer->complained = true;
    return !is_of_the_file(writer->rc) && now - writer->failing_since_ms < GIVE_UP_MS;
}

static void batch_written(uv_work_t *work, int status)
{
    struct store_writer *writer = work->data;
    (void)status; /* the work is never cancelled */
    writer->busy = false;
    if (writer->closed) {
        if (writer->rc == 0)
            answer_rows(&writer->batch, 0);
        destroy(writer);
        return;
    }
    if (writer->rc != 0 && handle_failure(writer)) {
        loop_timer_start(writer->timer, AGAIN_MS, 0);
        return;
    }
    if (writer->rc == 0 && writer->complained) {
        log_info("profile store %s works again; %lld rows were dropped", writer->path,
                 (long long)writer->counts.dropped);
        writer->complained = false;
    }
    if (writer->rc == 0)
        writer->failing_since_ms = 0;
    if (writer->bad > 0)
        log_warn("%lld timing records could not be read", (long long)writer->bad);
    writer->busy = true; /* callbacks may add rows: they must not start a batch within */
    finish_batch(writer, writer->rc);
    writer->busy = false;
    if (writer->closed)
        destroy(writer);
    else
        arrange_batch(writer);
}

/* At once when it is worth it or somebody waits, else soon. */
static void arrange_batch(struct store_writer *writer)
{
    if (writer->n_rows >= BATCH_ROWS || writer->n_barriers > 0)
        start_batch(writer);
    else if (writer->n_rows > 0 && !loop_timer_active(writer->timer))
        loop_timer_start(writer->timer, BATCH_MS, 0);
}

static void take_rows(struct store_writer *writer)
{
    struct store_row *row;
    writer->n_batch = 0;
    while (writer->n_batch < BATCH_ROWS && (row = STAILQ_FIRST(&writer->rows)) != NULL) {
        STAILQ_REMOVE_HEAD(&writer->rows, link);
        STAILQ_INSERT_TAIL(&writer->batch, row, link);
        writer->n_batch++;
        writer->n_rows--;
        writer->n_bytes -= row->size;
        writer->n_barriers -= row->kind == STORE_BARRIER;
    }
    writer->in_batch = writer->n_batch > 0;
}

static void start_batch(void *ctx)
{
    struct store_writer *writer = ctx;
    if (writer->busy || writer->closed)
        return;
    if (!writer->in_batch)
        take_rows(writer);
    if (!writer->in_batch)
        return;
    loop_timer_stop(writer->timer);
    writer->busy = true;
    writer->work.data = writer;
    uv_queue_work(writer->loop, &writer->work, write_batch, batch_written);
}

/* --- rows ----------------------------------------------------------------------------------- */

static struct store_row *row_new(enum store_row_kind kind, size_t bytes)
{
    struct store_row *row = mem_must_zalloc(sizeof *row + bytes);
    row->kind = kind;
    row->size = sizeof *row + bytes;
    return row;
}

static const char *put(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    char *start = memcpy(*at, text, size);
    *at += size;
    return start;
}

static void add(struct store_writer *writer, struct store_row *row)
{
    bool full = writer->n_rows >= MAX_ROWS || writer->n_bytes + row->size > MAX_BYTES;
    if (full && row->fn == NULL) {
        if (!writer->complained)
            log_error("profile store %s: rows come faster than they can be written; some are "
                      "dropped",
                      writer->path);
        writer->complained = true;
        writer->counts.dropped++;
        free(row);
        return;
    }
    STAILQ_INSERT_TAIL(&writer->rows, row, link);
    writer->n_rows++;
    writer->n_bytes += row->size;
    writer->n_barriers += row->kind == STORE_BARRIER;
    if (!writer->busy && !writer->in_batch)
        arrange_batch(writer);
}

void store_writer_timing(struct store_writer *writer, struct bytes record)
{
    struct store_row *row = row_new(STORE_TIMING, record.len);
    if (record.len > 0)
        memcpy(row->bytes, record.data, record.len);
    row->data = (struct bytes){row->bytes, record.len};
    add(writer, row);
}

void store_writer_decision(struct store_writer *writer, const char *task, const char *sub,
                           int64_t attempt, const char *candidates)
{
    struct store_row *row =
        row_new(STORE_DECISION, strlen(task) + strlen(sub) + strlen(candidates) + 3);
    char *at = row->bytes;
    row->id = put(&at, task);
    row->other = put(&at, sub);
    row->text = put(&at, candidates);
    row->attempt = attempt;
    row->created_ms = clock_wall_ms();
    add(writer, row);
}

void store_writer_task(struct store_writer *writer, const struct store_task *task, const char *json,
                       store_kept_fn *fn, void *ctx)
{
    size_t size = strlen(task->id) + strlen(task->state) + strlen(task->title) + strlen(json) + 4;
    struct store_row *row = row_new(STORE_TASK, size);
    char *at = row->bytes;
    row->id = put(&at, task->id);
    row->other = put(&at, task->state);
    row->text = put(&at, task->title);
    row->data = (struct bytes){put(&at, json), strlen(json)};
    row->created_ms = task->created_ms;
    row->finished_ms = task->finished_ms;
    row->fn = fn;
    row->ctx = ctx;
    add(writer, row);
}

void store_writer_barrier(struct store_writer *writer, store_kept_fn *fn, void *ctx)
{
    struct store_row *row = row_new(STORE_BARRIER, 0);
    row->fn = fn;
    row->ctx = ctx;
    add(writer, row);
}
