#include "orchestrator/progress_watch.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bus.h"
#include "common/clock.h"
#include "common/peer.h"
#include "orchestrator/progress.h"
#include "orchestrator/task_json.h"
#include "schemas/mem.h"

#define DRAW_MS 100
#define HINT_MS 5000 /* a task of which nothing has run for so long: say what may be missing */

struct watch {
    struct client *client;
    const struct invocation *invocation;
    const char *task;
    struct watch_options options;
    struct progress *progress;
    struct queue_log_follow *log;
    struct bus **taps;
    size_t n_taps;
    struct loop_timer *draw, *hint;
    json_t *ended; /* the task's object, once it has ended */
    int pending;   /* answers of the queue that still come */
    bool closed;   /* the last of them frees */
    bool reading, read_again;
    bool ran;     /* some subtask was run */
    bool gone;    /* Redis does not have the task: the archive may */
    bool stopped; /* a signal: leave the task */
    bool cancelling;
    bool over; /* one of the above, or an error: the loop is to be left */
    char err[512];
};

static void watch_unref(struct watch *watch)
{
    if (--watch->pending == 0 && watch->closed)
        free(watch);
}

/* --- the task's state ---------------------------------------------------------------------------
 */

static void read_task(struct watch *watch);

static void take_view(struct watch *watch, const struct queue_task_view *view)
{
    progress_view(watch->progress, view);
    if (task_state_terminal(view->state)) {
        watch->ended = task_json(view);
        watch->over = true;
    } else if (watch->read_again) {
        read_task(watch);
    }
}

static void task_read(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    struct watch *watch = ctx;
    watch->reading = false;
    if (watch->over) {
        ;
    } else if (view == NULL) {
        watch->gone = status == QUEUE_GONE;
        snprintf(watch->err, sizeof watch->err, "%s", err != NULL ? err : "");
        watch->over = true;
    } else {
        take_view(watch, view);
    }
    watch_unref(watch);
}

/* One reading at a time; what happens meanwhile asks for another one. */
static void read_task(struct watch *watch)
{
    watch->read_again = watch->reading;
    if (watch->reading)
        return;
    watch->reading = true;
    watch->pending++;
    queue_read(watch->client->queue, watch->task, false, task_read, watch);
}

/* The log says when to look: it may be the log of an earlier run of a task that was retried, so the
 * task itself decides. */
static void log_entry(void *ctx, const struct queue_log_entry *entry)
{
    struct watch *watch = ctx;
    if (watch->over)
        return;
    progress_entry(watch->progress, entry, clock_wall_ms());
    watch->ran = watch->ran || strcmp(entry->what, "running") == 0;
    if (strncmp(entry->what, "task-", 5) == 0 || strcmp(entry->what, "expanded") == 0)
        read_task(watch);
}

/* --- live figures -------------------------------------------------------------------------------
 */

static void tap_frame(void *ctx, const struct bus_peer *peer, const uint8_t *data, size_t len)
{
    struct watch *watch = ctx;
    struct message message;
    const char *topic;
    (void)peer;
    if (event_decode(&message, &topic, data, len) != 0)
        return;
    if (message.type == MESSAGE_chunk && strcmp(message.chunk.task, watch->task) == 0)
        progress_chunk(watch->progress, message.chunk.sub, message.chunk.attempt,
                       message.chunk.tokens, message.chunk.elapsed_ms);
    message_release(&message);
}

/* A broker that can't be tapped only costs the tokens per second. */
static void open_taps(struct watch *watch)
{
    const struct config *config = watch->client->config;
    char prefix[TASK_ID_SIZE + 16];
    snprintf(prefix, sizeof prefix, "task.%s.chunk", watch->task);
    watch->taps = mem_must_zalloc((config->n_brokers + 1) * sizeof *watch->taps);
    struct bus_keys store;
    const struct bus_keys *keys;
    bool has_keys = peer_keys(config, "tap", &store, &keys, NULL) == 0;
    for (size_t i = 0; i < config->n_brokers && has_keys; i++) {
        struct bus_options options = {
            .kind = BUS_SUB, .endpoint = config->taps[i], .subscribe = prefix, .keys = keys};
        if (bus_open(&watch->taps[watch->n_taps], &watch->client->loop, &options, tap_frame, watch,
                     NULL) == 0)
            watch->n_taps++;
    }
    explicit_bzero(&store, sizeof store);
}

static void draw_due(void *ctx)
{
    struct watch *watch = ctx;
    progress_draw(watch->progress, clock_wall_ms());
}

/* --- when nothing happens -----------------------------------------------------------------------
 */

static void daemons_came(void *ctx, const char *const *jsons, size_t n, const char *err)
{
    struct watch *watch = ctx;
    (void)jsons;
    bool known = err == NULL || *err == '\0';
    if (known && !watch->over && n == 0)
        progress_note(watch->progress, "no daemon is alive, so nothing offers the task to workers: "
                                       "`orchestrator serve` starts one");
    else if (known && !watch->over)
        progress_note(watch->progress,
                      "nothing of the task has run yet: its workers are busy, or none serves its "
                      "models: `orchestrator status` shows them");
    watch_unref(watch);
}

static void hint_due(void *ctx)
{
    struct watch *watch = ctx;
    if (watch->ran || !watch->client->up)
        return;
    watch->pending++;
    queue_orchestrators(watch->client->queue, daemons_came, watch);
}

/* --- interruptions ------------------------------------------------------------------------------
 */

static void cancelled(void *ctx, enum queue_status status, const char *err)
{
    struct watch *watch = ctx;
    (void)err;
    if (!watch->over && (status == QUEUE_OK || status == QUEUE_DUP || status == QUEUE_STALE))
        read_task(watch);
    watch_unref(watch);
}

static void stop_signalled(void *ctx, int signal_number)
{
    struct watch *watch = ctx;
    if (signal_number == SIGINT && watch->options.cancels && !watch->cancelling) {
        watch->cancelling = true;
        progress_note(watch->progress, "cancelling task %s; Ctrl-C again leaves at once",
                      watch->task);
        watch->pending++;
        queue_cancel(watch->client->queue, watch->task, cancelled, watch);
        return;
    }
    watch->stopped = watch->over = true;
}

static void redis_changed(void *ctx, bool up, const char *why)
{
    struct watch *watch = ctx;
    if (up) {
        progress_note(watch->progress, "Redis is back: going on");
        read_task(watch);
    } else {
        progress_note(watch->progress,
                      "Redis does not answer (%s): waiting for it; the task is safe", why);
    }
}

/* --- all of it ----------------------------------------------------------------------------------
 */

static int watch_open(struct watch *watch)
{
    struct err err = {0};
    struct progress_options options = {.terminal = render_terminal(STDERR_FILENO),
                                       .fd = STDERR_FILENO,
                                       .quiet = watch->options.quiet};
    watch->progress = progress_new(&options);
    watch->client->on_redis = redis_changed;
    watch->client->on_redis_ctx = watch;
    loop_on_stop(&watch->client->loop, stop_signalled, watch);
    if (queue_log_open(&watch->log, watch->client->queue, watch->task, "0", log_entry, watch,
                       &err) != 0)
        return command_fail(watch->invocation, EXIT_UNREACHABLE, "%s", err.text);
    if (options.terminal.live && !options.quiet) {
        open_taps(watch);
        watch->draw = loop_timer_new(&watch->client->loop, draw_due, watch);
        loop_timer_start(watch->draw, DRAW_MS, DRAW_MS);
    }
    watch->hint = loop_timer_new(&watch->client->loop, hint_due, watch);
    loop_timer_start(watch->hint, HINT_MS, 0);
    read_task(watch);
    return EXIT_DONE;
}

static void watch_close(struct watch *watch)
{
    watch->over = true;
    watch->client->on_redis = NULL;
    loop_stop_release(&watch->client->loop);
    queue_log_close(&watch->log);
    for (size_t i = 0; i < watch->n_taps; i++)
        bus_close(&watch->taps[i]);
    free(watch->taps);
    loop_timer_free(&watch->draw);
    loop_timer_free(&watch->hint);
    progress_free(&watch->progress);
}

/* How it ended; only what is no end of the task is printed. */
static int watch_verdict(struct watch *watch, bool late)
{
    const struct invocation *invocation = watch->invocation;
    if (watch->ended != NULL)
        return EXIT_DONE;
    if (watch->gone)
        return client_task(watch->client, invocation, watch->task, &watch->ended);
    if (late)
        return command_fail(invocation, EXIT_STOPPED,
                            "the time limit passed; task %s goes on: `orchestrator wait %s`",
                            watch->task, watch->task);
    if (watch->stopped && watch->cancelling)
        return command_fail(invocation, EXIT_STOPPED, "left while task %s is being cancelled",
                            watch->task);
    if (watch->stopped)
        return command_fail(invocation, EXIT_STOPPED,
                            "left; task %s goes on: `orchestrator wait %s`", watch->task,
                            watch->task);
    return command_fail(invocation, EXIT_UNREACHABLE, "task %s cannot be read: %s", watch->task,
                        watch->err);
}

int watch_task(struct client *client, const struct invocation *invocation, const char *task,
               const struct watch_options *options, json_t **ret)
{
    /* On the heap: an answer that comes after a time-out still points to it. */
    struct watch *watch = mem_must_zalloc(sizeof *watch);
    watch->client = client;
    watch->invocation = invocation;
    watch->task = task;
    watch->options = *options;
    bool late = false;
    int code = watch_open(watch);
    if (code == EXIT_DONE) {
        int64_t left_ms = options->until_ms > 0 ? options->until_ms - clock_ms() : -1;
        if (options->until_ms > 0 && left_ms < 0)
            left_ms = 0;
        late = loop_run_until(&client->loop, &watch->over, left_ms) != 0;
    }
    watch_close(watch);
    if (code == EXIT_DONE)
        code = watch_verdict(watch, late);
    if (code == EXIT_DONE) {
        *ret = watch->ended;
        watch->ended = NULL;
    }
    watch->closed = true; /* what still is pending is answered when the queue is closed */
    watch->pending++;
    watch_unref(watch);
    return code;
}
