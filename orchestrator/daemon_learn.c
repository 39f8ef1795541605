/* Daemons learn from each other: each tells the others the timing records of its shards, and keeps
 * theirs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/queue_daemon.h"
#include "orchestrator/daemon_state.h"
#include "schemas/mem.h"

#define TELL_MOST 64 /* records in one entry */
#define READ_MS 1000 /* how often what others told is read */
#define ALONE_MS                                                                                   \
    600000              /* so long those that were there may come back, and read what they missed  \
                         */
#define RECORD_MAX 8192 /* bytes; what is larger is no timing record */

static void keep(struct daemon *daemon, struct bytes record)
{
    store_writer_timing(daemon->store, record);
    daemon_hedges_record(daemon, record);
}

void daemon_record(struct daemon *daemon, struct bytes record)
{
    struct daemon_learn *learn = &daemon->learn;
    keep(daemon, record);
    if (clock_ms() >= learn->tell_until_ms || record.len > RECORD_MAX)
        return; /* nobody listens */
    if (learn->n == learn->cap) {
        learn->cap = learn->cap == 0 ? TELL_MOST : learn->cap * 2;
        learn->records = mem_must_realloc(learn->records, learn->cap * sizeof *learn->records);
    }
    char *copy = mem_must_zalloc(record.len + 1);
    memcpy(copy, record.data, record.len);
    learn->records[learn->n++] = (struct bytes){copy, record.len};
    if (learn->n >= TELL_MOST)
        daemon_tell_records(daemon);
}

static void forget(struct daemon_learn *learn)
{
    for (size_t i = 0; i < learn->n; i++)
        free((char *)learn->records[i].data);
    learn->n = 0;
}

void daemon_tell_records(struct daemon *daemon)
{
    struct daemon_learn *learn = &daemon->learn;
    if (learn->n > 0)
        queue_timings_tell(daemon->queue, daemon->id, learn->records, learn->n);
    forget(learn);
}

static void ask(struct daemon *daemon);

static void told(void *ctx, const struct queue_timings *timings)
{
    struct daemon *daemon = ctx;
    struct daemon_learn *learn = &daemon->learn;
    if (daemon->stopping)
        return;
    if (timings->record != NULL) {
        keep(daemon, *timings->record);
        return;
    }
    snprintf(learn->after, sizeof learn->after, "%s", timings->after);
    learn->asking = false;
    if (timings->more)
        ask(daemon);
}

static void ask(struct daemon *daemon)
{
    struct daemon_learn *learn = &daemon->learn;
    learn->asking = true;
    learn->next_ms = clock_ms() + READ_MS;
    queue_timings_read(daemon->queue, daemon->id, *learn->after != '\0' ? learn->after : "0", told,
                       daemon);
}

void daemon_learn_tick(struct daemon *daemon)
{
    struct daemon_learn *learn = &daemon->learn;
    int64_t now = clock_ms();
    daemon_tell_records(daemon);
    if (daemon->shards.members < 2)
        return;
    learn->tell_until_ms = now + ALONE_MS;
    if (!learn->asking && now >= learn->next_ms)
        ask(daemon);
}

void daemon_learn_release(struct daemon *daemon)
{
    forget(&daemon->learn);
    free(daemon->learn.records);
}
