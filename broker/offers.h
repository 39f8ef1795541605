/* The offers that wait for a worker, and who gets them.
 *
 * An offer names arms in order of preference. Entry i may be used once its after_ms has passed
 * since the offer. Behind the first entry that may be used at once (after_ms 0) it only waits for
 * those from there on: when no worker serves any of them, it may be used at once too. In front of
 * it, it waits in any case: there stand arms that must not be used before. An offer goes to the
 * least loaded worker with credit of its first usable entry; without one it waits at all its usable
 * arms. A worker with credit gets what waits at its arms by priority, first attempts before hedges,
 * then by age. An offer of a hedge stands beside the one of the same subtask.
 *
 * Invariant between calls: no offer waits at an arm that has a worker with credit. */
#ifndef BROKER_OFFERS_H
#define BROKER_OFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/registry.h"
#include "schemas/message.h"

#define OFFER_MAX_ARMS 64
#define OFFER_AFTER_MAX_MS ((int64_t)7 * 24 * 3600 * 1000)

struct offers;

/* What a hook is told of an offer; the strings live until it returns. */
struct offer_view {
    const char *task, *sub, *trace;
    int64_t shard;
    void *owner;
    bool hedge;
};

struct offers_hooks {
    /* Sends it to the worker. False: the worker can't be reached; it is then shut. */
    bool (*dispatch)(void *ctx, const struct offer_view *offer, struct worker *worker,
                     const char *arm);
    /* No worker serves any of its arms. Called once for each offer put, but not for hedges.
     * paused: what a worker says of the first of them that it does not serve for now; NULL: none
     * does. */
    void (*unserved)(void *ctx, const struct offer_view *offer, const char *paused);
};

/* The hooks must not call back into offers. registry and hooks are borrowed. */
struct offers *offers_new(struct registry *registry, size_t max, const struct offers_hooks *hooks,
                          void *ctx);
void offers_free(struct offers **offers);

/* Dispatches the offer or keeps it. One of the same task and subtask, and as much a hedge, is
 * replaced: it keeps its place, and its age when the arms are the same. 0; -ENOBUFS when `max` are
 * held; -EINVAL when it makes no sense; -ENOSPC when it names too many new arms. */
int offers_put(struct offers *offers, const struct msg_offer *offer, const char *trace, void *owner,
               int64_t now_ms);
/* Forgets the offer, and that of its hedge; sub "" means all of the task. Returns how many there
 * were. */
size_t offers_withdraw(struct offers *offers, const char *task, const char *sub);
size_t offers_drop_owner(struct offers *offers, const void *owner);
/* The worker came or has new credit. */
void offers_serve(struct offers *offers, struct worker *worker, int64_t now_ms);
/* An arm lost its last worker. */
void offers_arm_lost(struct offers *offers, int64_t now_ms);
/* Time passed: uses entries whose after_ms is over. */
void offers_tick(struct offers *offers, int64_t now_ms);
int64_t offers_due_ms(const struct offers *offers); /* when to tick next; -1: never */
size_t offers_count(const struct offers *offers);
size_t offers_max(const struct offers *offers);

#endif
