/* When the second attempts come: after what the arms have shown to take, by the profile store and
 * what has happened since. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/daemon_state.h"
#include "orchestrator/pace.h"
#include "orchestrator/plan_check.h"
#include "orchestrator/store.h"
#include "schemas/mem.h"

#define LOOK_BACK_MS ((int64_t)7 * 24 * 3600 * 1000)
#define LOOK_BACK_ROWS 100000

/* What is read in the thread pool. */
struct reading {
    uv_work_t work;
    struct daemon *daemon;
    char *path;
    struct pace *pace;
};

static bool wants_hedges(const struct config_role *role)
{
    return role->hedge != NULL && strcmp(role->hedge, "auto") == 0;
}

static void add_answer(void *ctx, const struct msg_timing *attempt)
{
    pace_add(ctx, attempt);
}

static void read_store(uv_work_t *work)
{
    struct reading *reading = work->data;
    struct store *store = NULL;
    struct err err;
    if (store_open_read(&store, reading->path, &err) == 0)
        store_answers(store, clock_wall_ms() - LOOK_BACK_MS, LOOK_BACK_ROWS, add_answer,
                      reading->pace, &err);
    store_close(&store);
}

/* What came meanwhile is in the store too, or one of few. */
static void store_was_read(uv_work_t *work, int status)
{
    struct reading *reading = work->data;
    struct daemon *daemon = reading->daemon;
    (void)status;
    daemon->reading_pace = false;
    if (daemon->pace != NULL && !daemon->stopped) {
        pace_free(&daemon->pace);
        daemon->pace = reading->pace;
        reading->pace = NULL;
    }
    pace_free(&reading->pace);
    free(reading->path);
    free(reading);
}

void daemon_hedges_start(struct daemon *daemon)
{
    for (size_t i = 0; i < daemon->config->n_roles && daemon->pace == NULL; i++)
        if (wants_hedges(&daemon->config->roles[i]))
            daemon->pace = pace_new();
    if (daemon->pace == NULL || daemon->reading_pace)
        return;
    struct reading *reading = mem_must_zalloc(sizeof *reading);
    reading->work.data = reading;
    reading->daemon = daemon;
    reading->path = mem_must_strdup(daemon->config->store);
    reading->pace = pace_new();
    daemon->reading_pace = true;
    uv_queue_work(&daemon->loop, &reading->work, read_store, store_was_read);
}

void daemon_hedges_record(struct daemon *daemon, struct bytes timing)
{
    struct message message;
    if (daemon->pace == NULL ||
        message_decode_as(&message, MESSAGE_timing, timing.data, timing.len) != 0)
        return;
    pace_add(daemon->pace, &message.timing);
    message_release(&message);
}

int64_t daemon_hedge_ms(void *ctx, struct bytes meta, const char *arm)
{
    struct daemon *daemon = ctx;
    struct message message;
    int64_t after_ms = -1;
    if (daemon->pace == NULL || message_decode_as(&message, MESSAGE_meta, meta.data, meta.len) != 0)
        return -1;
    const struct config_role *role = config_role(daemon->config, message.meta.role);
    if (wants_hedges(role != NULL ? role : plan_default_role(daemon->config)))
        after_ms = pace_p95_ms(daemon->pace, message.meta.role, arm);
    message_release(&message);
    return after_ms;
}
