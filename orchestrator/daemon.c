#include "orchestrator/daemon.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/access.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/paths.h"
#include "common/task_id.h"
#include "orchestrator/command.h"
#include "orchestrator/daemon_state.h"
#include "schemas/mem.h"

#define TICK_MS 100
#define STOP_MS 5000            /* most time for the last writes */
#define REDIS_PATIENCE_MS 10000 /* at the start, when someone waits for "ready" */

void daemon_finish(struct daemon *daemon, int exit_code)
{
    daemon->exit_code = exit_code;
    daemon->stopped = true;
    uv_stop(&daemon->loop);
}

/* --- Redis ----------------------------------------------------------------------------------- */

static void redis_up(void *ctx)
{
    struct daemon *daemon = ctx;
    if (daemon->redis_down_ms != 0)
        log_info("Redis answers again");
    daemon->redis_down_ms = 0;
}

static void redis_down(void *ctx, const char *why)
{
    struct daemon *daemon = ctx;
    if (daemon->stopping || daemon->redis_down_ms != 0)
        return;
    daemon->redis_down_ms = clock_ms();
    snprintf(daemon->redis_why, sizeof daemon->redis_why, "%s", why);
    log_warn("Redis cannot be reached: %s; trying again until it answers", why);
}

/* Nothing is done in another Redis than the one that this daemon has worked in. */
static void redis_known(void *ctx, const char *why)
{
    struct daemon *daemon = ctx;
    if (daemon->stopping || daemon->stopped)
        return;
    if (daemon->foreign)
        log_info("Redis is the right one again");
    daemon->foreign = why[0] != '\0';
    daemon_keys_doubt(daemon->keys, daemon->foreign);
    if (!daemon->foreign) {
        daemon_shards_start(daemon);
        return;
    }
    log_error("%s", why);
    daemon_shards_stop(daemon);
    if (daemon->ready_fd >= 0) {
        daemon_say_ready(daemon, why);
        daemon_finish(daemon, EXIT_UNREACHABLE);
    }
}

static const struct redis_callbacks redis_callbacks = {.up = redis_up, .down = redis_down};

static void give_up_on_redis(struct daemon *daemon)
{
    char text[400];
    if (daemon->ready_fd < 0 || daemon->redis_down_ms == 0 ||
        clock_ms() - daemon->redis_down_ms < REDIS_PATIENCE_MS)
        return;
    snprintf(text, sizeof text, "Redis cannot be reached: %s; start it, or correct redis: in %s",
             daemon->redis_why, daemon->config->path);
    daemon_say_ready(daemon, text);
    daemon_finish(daemon, EXIT_UNREACHABLE);
}

static void ticked(void *ctx)
{
    struct daemon *daemon = ctx;
    give_up_on_redis(daemon);
    if (daemon->stopping)
        return;
    daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_TICK});
    if (daemon->foreign)
        return;
    daemon_learn_tick(daemon);
    archive_tick(daemon->archive);
}

/* --- stopping: keep what is known, write the checkpoints, give the shards back, leave -------- */

static void say_bye(struct daemon *daemon)
{
    struct message bye = {.type = MESSAGE_bye, .bye = {.reason = "stopping"}};
    peer_send_all(daemon->peer, &bye);
}

static void withdrawn(void *ctx, enum queue_status status, const char *err)
{
    struct daemon *daemon = ctx;
    (void)status, (void)err;
    if (!daemon->stopped)
        daemon_finish(daemon, EXIT_DONE);
}

static void rows_kept(void *ctx, int rc)
{
    struct daemon *daemon = ctx;
    (void)rc;
    if (daemon->stopped)
        return;
    if (daemon->shards.end_ms == 0 && daemon->redis_down_ms != 0) { /* there is nothing to write */
        daemon_finish(daemon, EXIT_DONE);
        return;
    }
    daemon_tell_records(daemon);
    daemon_step(daemon, (struct flow_event){.kind = FLOW_EVENT_STOP});
    daemon_shards_leave(daemon);
    queue_withdraw(daemon->queue, daemon->id, withdrawn, daemon);
}

static void stop_timed_out(void *ctx)
{
    struct daemon *daemon = ctx;
    log_warn("Redis or the profile store did not take the last writes in %d s; the next start "
             "repeats what was not noted",
             STOP_MS / 1000);
    daemon_finish(daemon, EXIT_DONE);
}

static void stop(void *ctx, int signal_number)
{
    struct daemon *daemon = ctx;
    (void)signal_number;
    if (daemon->stopping) {
        daemon_finish(daemon, EXIT_DONE);
        return;
    }
    daemon->stopping = true;
    loop_timer_stop(daemon->tick);
    loop_timer_free(&daemon->shards.timer);
    archive_stop(daemon->archive);
    loop_timer_start(daemon->stop_timer, STOP_MS, 0);
    say_bye(daemon);
    store_writer_barrier(daemon->store, rows_kept, daemon);
}

/* --- starting -------------------------------------------------------------------------------- */

static void make_names(struct daemon *daemon, const char *name)
{
    if (gethostname(daemon->host, sizeof daemon->host - 1) != 0)
        snprintf(daemon->host, sizeof daemon->host, "unknown");
    boot_nonce_make(daemon->boot);
    snprintf(daemon->name, sizeof daemon->name, "%.100s", name != NULL ? name : daemon->host);
    snprintf(daemon->id, sizeof daemon->id, "%.100s-%s", daemon->name, daemon->boot);
}

/* Beside the profile store is kept which Redis was worked in. */
static void open_store(struct daemon *daemon)
{
    char *copy = mem_must_strdup(daemon->config->store);
    const char *directory = dirname(copy);
    struct err err;
    if (path_make(directory, &err) != 0)
        log_warn("the profile store has no place: %s", err.text);
    daemon->store = store_writer_new(&daemon->loop, daemon->config->store);
    char *path = mem_must_printf("%s/redis.epoch", directory);
    queue_guard(daemon->queue, path, true, redis_known, daemon);
    free(path);
    free(copy);
}

static void open_flow(struct daemon *daemon)
{
    struct flow_options options = flow_defaults;
    options.brokers = peer_brokers(daemon->peer);
    daemon_hedges_start(daemon);
    options.hedge_ms = daemon->pace != NULL ? daemon_hedge_ms : NULL;
    options.hedge_ctx = daemon;
    daemon->flow = flow_new(&options);
}

static struct archive *open_archive(struct daemon *daemon)
{
    char *where =
        mem_must_printf("%s on %s, in %s", daemon->name, daemon->host, daemon->config->store);
    struct archive *archive =
        archive_new(&(struct archive_options){.queue = daemon->queue,
                                              .store = daemon->store,
                                              .where = where,
                                              .retain_s = daemon->config->retain_s,
                                              .holds = daemon_holds,
                                              .ctx = daemon});
    free(where);
    return archive;
}

static int open_all(struct daemon *daemon, struct err *err)
{
    char source[DAEMON_NAME_SIZE + 16];
    snprintf(source, sizeof source, "orchestrator/%s", daemon->name);
    int rc = queue_open(&daemon->queue, &daemon->loop, &daemon->config->redis, &redis_callbacks,
                        daemon, err);
    if (rc == 0)
        rc = peer_open(&daemon->peer, &daemon->loop, daemon->config, source, daemon->boot,
                       &daemon_peer_callbacks, daemon, err);
    if (rc == 0)
        rc = access_open(&daemon->access, &daemon->loop, &daemon->config->redis, err);
    if (rc == 0)
        rc = queue_follow_begin(daemon->queue, daemon_queue_event, daemon, err);
    if (rc != 0)
        return rc;
    daemon->shards.members = 1;
    daemon->brokers =
        mem_must_zalloc(((size_t)peer_brokers(daemon->peer) + 1) * sizeof *daemon->brokers);
    open_flow(daemon);
    open_store(daemon);
    daemon->archive = open_archive(daemon);
    daemon->keys = daemon_keys_new(&daemon->loop, daemon->config, daemon->queue, daemon->peer);
    daemon->tick = loop_timer_new(&daemon->loop, ticked, daemon);
    daemon->stop_timer = loop_timer_new(&daemon->loop, stop_timed_out, daemon);
    loop_timer_start(daemon->tick, TICK_MS, TICK_MS);
    return 0;
}

static void close_all(struct daemon *daemon)
{
    struct store_counts counts = {0};
    daemon->stopping = true; /* answers that come from now on change nothing */
    loop_timer_free(&daemon->shards.timer);
    peer_close(&daemon->peer);
    access_close(&daemon->access);
    queue_close(&daemon->queue);
    daemon_keys_free(&daemon->keys);
    if (daemon->store != NULL)
        counts = store_writer_counts(daemon->store);
    store_writer_close(&daemon->store);
    loop_timer_free(&daemon->tick);
    loop_timer_free(&daemon->stop_timer);
    loop_finish(&daemon->loop); /* a batch that is being written ends here */
    archive_free(&daemon->archive);
    flow_free(&daemon->flow);
    daemon_learn_release(daemon);
    pace_free(&daemon->pace);
    free(daemon->brokers);
    log_info("stopped; %lld rows kept, %lld dropped", (long long)counts.kept,
             (long long)counts.dropped);
}

int daemon_run(const struct config *config, const char *name, int ready_fd)
{
    struct daemon *daemon = mem_must_zalloc(sizeof *daemon);
    struct err err = {""};
    daemon->config = config;
    daemon->ready_fd = ready_fd;
    daemon->started_ms = clock_wall_ms();
    make_names(daemon, name);
    loop_raise_descriptors();
    loop_init(&daemon->loop);
    loop_on_stop(&daemon->loop, stop, daemon);
    if (open_all(daemon, &err) == 0) {
        while (!daemon->stopped && uv_run(&daemon->loop, UV_RUN_ONCE) != 0)
            ;
    } else {
        log_error("%s", err.text);
        daemon_say_ready(daemon, err.text);
        daemon->exit_code = EXIT_UNREACHABLE;
    }
    int exit_code = daemon->exit_code;
    close_all(daemon);
    free(daemon);
    return exit_code;
}
