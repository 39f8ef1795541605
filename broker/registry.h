/* The workers that the broker knows, what they serve, and how much more they take.
 *
 * An arm here is any name that an offer may ask for: a full arm (model@place), or a model alone,
 * which every arm of that model serves. Offers wait at arms; offers.c keeps them there. */
#ifndef BROKER_REGISTRY_H
#define BROKER_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/heap.h"
#include "common/containers.h"
#include "schemas/message.h"

#define REGISTRY_MAX_WORKERS 4096
#define REGISTRY_MAX_ARMS 65536
#define ARM_NAME_MAX 128
#define WORKER_MAX_CONCURRENCY 1000000
#define PAUSED_MAX 384 /* bytes of `arm: reason`; the rest is cut off */

struct worker;

/* One worker at one arm. */
struct service {
    struct worker *worker;
    struct arm *arm;
    const struct arm *full; /* the arm that the worker runs when it is asked for `arm` */
    LIST_ENTRY(service) at_arm;
};

struct arm {
    size_t refs;      /* services, and entries of offers */
    size_t n_serving; /* workers that serve it and don't drain */
    size_t n_open;    /* of them: those with credit */
    LIST_HEAD(, service) services;
    struct heap waiting; /* offers' entries that may run here now; offers.c owns the order */
    UT_hash_handle hh;
    char name[];
};

struct worker {
    char *name, *boot, *host, *provider, *gpu; /* owned */
    int64_t pid;
    int64_t concurrency; /* 1..WORKER_MAX_CONCURRENCY */
    int64_t credit;      /* 0..concurrency */
    int64_t running;     /* by its last message and what was dispatched since */
    int64_t gpu_memory_used, gpu_memory_total, gpu_utilization, gpu_temperature, gpu_power_mw;
    int64_t dispatched_ms; /* when it last got something; 0: never */
    bool local;
    bool draining;
    bool open;     /* counted in its arms' n_open: has credit and doesn't drain */
    uint64_t turn; /* of its last dispatch: among equals, the longest idle is next */
    void *member;  /* borrowed: the caller's connection; NULL: none */
    char **arms;   /* as announced; owned */
    size_t n_arms;
    const char **states; /* of each arm: cold, loading, warm, or ""; owned, its texts are not */
    char **paused;       /* `arm: reason`; owned */
    size_t n_paused;
    struct service *services;
    size_t n_services;
    TAILQ_ENTRY(worker) entry;
};

struct registry {
    struct arm *arms; /* by name */
    TAILQ_HEAD(, worker) workers;
    size_t n_workers;
    uint64_t turn;
};

void registry_init(struct registry *registry);
void registry_release(struct registry *registry); /* no offer may hold an arm any more */

/* How a worker came. */
enum registry_change {
    REGISTRY_JOINED,    /* new */
    REGISTRY_UPDATED,   /* the same start of it, perhaps over a new connection or with other arms */
    REGISTRY_RESTARTED, /* a new start took the place of the old one */
};

/* Enters a worker, or updates the one of the same name and host. 0; -EINVAL when the message makes
 * no sense (no name, neither an arm nor a paused one, negative figures; names that can't be a
 * topic); -ENOSPC over a limit.
 * On failure nothing changed. *ret_lost: an arm may have lost its last worker. */
int registry_join(struct registry *registry, const struct msg_ready *ready, struct worker **ret,
                  enum registry_change *ret_change, bool *ret_lost);
/* Forgets the worker and frees it. True when an arm lost its last worker. */
bool registry_leave(struct registry *registry, struct worker *worker);

/* Whether it claims far more than it can run (what is on its way is counted twice at most); it gets
 * what it can run all the same. */
bool registry_boasts(const struct worker *worker, int64_t credit, int64_t running);
/* More credit, up to the worker's concurrency; what it had dispatched counts as finished. -EINVAL
 * when grant is negative. */
int registry_grant(struct worker *worker, int64_t grant);
/* Takes over a heartbeat's figures. Credit that got lost on the way (the worker believes in more
 * than we know, and nothing was dispatched for quiet_ms) comes back. */
void registry_beat(struct worker *worker, const struct msg_beat *beat, int64_t now_ms,
                   int64_t quiet_ms);
/* It gets nothing more. True when an arm lost its last worker. */
bool registry_drain(struct worker *worker);
/* One dispatch went to it. */
void registry_spend(struct registry *registry, struct worker *worker, int64_t now_ms);
/* It can't be reached: no more dispatches until it grants again. */
void registry_shut(struct worker *worker);

/* The arm of that name, or NULL when nobody serves it and no offer asks for it. */
struct arm *registry_find(const struct registry *registry, const char *name);
/* The same, made when missing, with one more reference. NULL: bad name or too many arms. */
struct arm *registry_hold(struct registry *registry, const char *name);
void registry_drop(struct registry *registry, struct arm *arm); /* gives a reference back */
/* What a worker says of an arm of that name, or of a model of that name, that it does not serve for
 * now: `arm: reason`. NULL: none does. Borrowed from the worker. */
const char *registry_paused(const struct registry *registry, const char *name);
/* The service of the least loaded worker (running/concurrency) with credit, or NULL. */
struct service *registry_pick(const struct arm *arm);

#endif
