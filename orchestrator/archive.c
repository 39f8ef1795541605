#include "orchestrator/archive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/queue_daemon.h"
#include "common/task_id.h"
#include "orchestrator/task_json.h"
#include "schemas/mem.h"

#define TURN_MS 1000
#define PAUSE_MS 10000  /* after a failure */
#define SHARDS_A_TURN 4 /* all shards within 16 s, when all are held */
#define TASKS_AT_ONCE 64

struct archive {
    struct archive_options options;
    char *where;
    int64_t retain_ms;
    int64_t next_ms;
    int next_shard;
    int asked;  /* questions about shards without an answer */
    int moving; /* tasks under way */
    bool again; /* a shard had more than was taken */
    bool stopped;
    int64_t told_ms;
};

struct moving {
    struct archive *archive;
    char task[TASK_ID_SIZE];
};

struct archive *archive_new(const struct archive_options *options)
{
    struct archive *archive = mem_must_zalloc(sizeof *archive);
    archive->options = *options;
    archive->options.where = archive->where = mem_must_strdup(options->where);
    archive->retain_ms = options->retain_s > 0 ? options->retain_s * 1000 : 0;
    return archive;
}

void archive_free(struct archive **archive)
{
    if (*archive != NULL)
        free((*archive)->where);
    free(*archive);
    *archive = NULL;
}

void archive_stop(struct archive *archive)
{
    archive->stopped = true;
}

static void turn(struct archive *archive);

static bool may_move(const struct archive *archive, const char *task)
{
    return !archive->stopped && archive->options.holds(archive->options.ctx, task_shard(task));
}

static void complain(struct archive *archive, const char *task, const char *why)
{
    int64_t now = clock_ms();
    if (archive->stopped)
        return;
    archive->again = false;
    archive->next_ms = now + PAUSE_MS;
    if (archive->told_ms != 0 && now - archive->told_ms < 60000)
        return;
    archive->told_ms = now;
    log_warn("finished task %s stays in Redis: %s", task, why);
}

/* --- one task: read, keep, forget ------------------------------------------------------------ */

static void moved(struct moving *moving)
{
    struct archive *archive = moving->archive;
    archive->moving--;
    free(moving);
    if (archive->again)
        turn(archive);
}

static void forgotten(void *ctx, enum queue_status status, const char *err)
{
    struct moving *moving = ctx;
    if (status == QUEUE_REFUSED || status == QUEUE_ERROR)
        complain(moving->archive, moving->task, err);
    moved(moving);
}

static void kept(void *ctx, int rc)
{
    struct moving *moving = ctx;
    struct archive *archive = moving->archive;
    if (rc != 0) {
        complain(archive, moving->task, "the profile store does not take it");
        moved(moving);
    } else if (!may_move(archive, moving->task)) {
        moved(moving); /* it is archived once more later, which changes nothing */
    } else {
        queue_archived(archive->options.queue, moving->task, archive->where);
        queue_forget(archive->options.queue, moving->task, forgotten, moving);
    }
}

static void task_read(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    struct moving *moving = ctx;
    struct archive *archive = moving->archive;
    bool finished = view != NULL && task_state_terminal(view->state);
    if (status == QUEUE_REFUSED || status == QUEUE_ERROR)
        complain(archive, moving->task, err);
    if (!finished || !may_move(archive, moving->task)) {
        moved(moving);
        return;
    }
    struct store_task task = {.id = moving->task,
                              .state = task_state_name(view->state),
                              .title = view->title,
                              .created_ms = view->created_ms,
                              .finished_ms = view->finished_ms};
    json_t *object = task_json(view);
    char *text = task_json_dump(object, false);
    store_writer_task(archive->options.store, &task, text, kept, moving);
    free(text);
    json_decref(object);
}

static void move(struct archive *archive, const char *task)
{
    struct moving *moving = mem_must_zalloc(sizeof *moving);
    moving->archive = archive;
    snprintf(moving->task, sizeof moving->task, "%s", task);
    archive->moving++;
    queue_read(archive->options.queue, task, false, task_read, moving);
}

/* --- which tasks ----------------------------------------------------------------------------- */

static void shard_answered(void *ctx, const struct queue_task_item *items, size_t n_items,
                           const char *err)
{
    struct archive *archive = ctx;
    archive->asked--;
    if (archive->stopped || (err != NULL && *err != '\0'))
        return;
    archive->again = archive->again || n_items >= TASKS_AT_ONCE;
    for (size_t i = 0; i < n_items; i++)
        if (task_id_valid(items[i].id) && may_move(archive, items[i].id))
            move(archive, items[i].id);
}

static void turn(struct archive *archive)
{
    if (archive->stopped || archive->asked > 0 || archive->moving > 0)
        return;
    archive->next_ms = clock_ms() + TURN_MS;
    archive->again = false;
    const struct archive_options *options = &archive->options;
    for (int i = 0, asked = 0; i < SHARD_COUNT && asked < SHARDS_A_TURN; i++) {
        int shard = archive->next_shard;
        archive->next_shard = (shard + 1) % SHARD_COUNT;
        if (!options->holds(options->ctx, shard))
            continue;
        asked++;
        archive->asked++;
        queue_finished(options->queue, shard, archive->retain_ms, TASKS_AT_ONCE, shard_answered,
                       archive);
    }
}

void archive_tick(struct archive *archive)
{
    archive->stopped = false;
    if (clock_ms() >= archive->next_ms)
        turn(archive);
}
