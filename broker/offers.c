#include "broker/offers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"

/* Offers of one task, to withdraw them together. */
struct task_group {
    LIST_HEAD(, offer) offers;
    UT_hash_handle hh;
    char task[];
};

struct entry {
    struct offer *offer;
    struct arm *arm;
    int64_t after_ms;
    size_t place; /* in arm->waiting; 0: not usable yet */
};

struct offer {
    struct offer_view view; /* its strings are in text */
    int64_t priority;
    uint64_t order; /* age among equals */
    int64_t since_ms;
    int64_t due_ms; /* when the next entry becomes usable */
    size_t due_place;
    bool told; /* unserved was said */
    struct task_group *group;
    LIST_ENTRY(offer) in_group;
    UT_hash_handle hh; /* by key */
    char *text;        /* key, see make_key(); then trace NUL. Behind the entries */
    size_t key_len;
    size_t n_entries;
    struct entry entries[];
};

struct offers {
    struct registry *registry; /* borrowed */
    const struct offers_hooks *hooks;
    void *ctx;
    size_t max;
    uint64_t order;
    struct offer *by_key;
    struct task_group *groups;
    struct heap due;
};

/* Higher priority first, then first attempts, then older. */
static bool entry_before(const void *a, const void *b)
{
    const struct offer *left = ((const struct entry *)a)->offer;
    const struct offer *right = ((const struct entry *)b)->offer;
    if (left->priority != right->priority)
        return left->priority > right->priority;
    if (left->view.hedge != right->view.hedge)
        return right->view.hedge;
    return left->order < right->order;
}

static bool due_before(const void *a, const void *b)
{
    return ((const struct offer *)a)->due_ms < ((const struct offer *)b)->due_ms;
}

struct offers *offers_new(struct registry *registry, size_t max, const struct offers_hooks *hooks,
                          void *ctx)
{
    struct offers *offers = mem_must_zalloc(sizeof *offers);
    *offers = (struct offers){.registry = registry, .hooks = hooks, .ctx = ctx, .max = max};
    heap_init(&offers->due, due_before, offsetof(struct offer, due_place));
    return offers;
}

size_t offers_count(const struct offers *offers)
{
    return HASH_COUNT(offers->by_key);
}

size_t offers_max(const struct offers *offers)
{
    return offers->max;
}

int64_t offers_due_ms(const struct offers *offers)
{
    const struct offer *first = heap_first(&offers->due);
    return first != NULL ? first->due_ms : -1;
}

/* --- keeping ------------------------------------------------------------------------------ */

/* Writes task NUL sub NUL, and whether it is a hedge; the buffer has room for the ids' limits.
 * Returns its length. */
#define KEY_MAX 256
static size_t make_key(char *key, const char *task, const char *sub, bool hedge)
{
    size_t task_len = strlen(task) + 1, sub_len = strlen(sub) + 1;
    memcpy(key, task, task_len);
    memcpy(key + task_len, sub, sub_len);
    key[task_len + sub_len] = hedge ? 'h' : '-';
    return task_len + sub_len + 1;
}

static bool key_fits(const char *task, const char *sub)
{
    return strlen(task) + strlen(sub) + 3 <= KEY_MAX;
}

static struct offer *find(const struct offers *offers, const char *task, const char *sub,
                          bool hedge)
{
    char key[KEY_MAX];
    struct offer *offer;
    if (!key_fits(task, sub))
        return NULL;
    size_t len = make_key(key, task, sub, hedge);
    HASH_FIND(hh, offers->by_key, key, len, offer);
    return offer;
}

static void join_group(struct offers *offers, struct offer *offer)
{
    struct task_group *group;
    size_t len = strlen(offer->view.task);
    HASH_FIND(hh, offers->groups, offer->view.task, len, group);
    if (group == NULL) {
        group = mem_must_zalloc(sizeof *group + len + 1);
        memcpy(group->task, offer->view.task, len + 1);
        LIST_INIT(&group->offers);
        HASH_ADD(hh, offers->groups, task, len, group);
    }
    offer->group = group;
    LIST_INSERT_HEAD(&group->offers, offer, in_group);
}

static void leave_group(struct offers *offers, struct offer *offer)
{
    LIST_REMOVE(offer, in_group);
    if (!LIST_EMPTY(&offer->group->offers))
        return;
    HASH_DEL(offers->groups, offer->group);
    free(offer->group);
}

static void release_entries(struct offers *offers, struct offer *offer)
{
    for (size_t i = 0; i < offer->n_entries; i++) {
        struct entry *entry = &offer->entries[i];
        heap_remove(&entry->arm->waiting, entry);
        registry_drop(offers->registry, entry->arm);
    }
}

/* Takes the offer out of every index and frees it. */
static void forget(struct offers *offers, struct offer *offer)
{
    heap_remove(&offers->due, offer);
    HASH_DEL(offers->by_key, offer);
    leave_group(offers, offer);
    release_entries(offers, offer);
    free(offer);
}

/* A kept offer with references to its arms, in no index yet. NULL: too many arms. */
static struct offer *offer_make(struct offers *offers, const struct msg_offer *put,
                                const char *trace)
{
    size_t entries = put->n_arms * sizeof(struct entry);
    size_t key_room = strlen(put->task) + strlen(put->sub) + 3, trace_room = strlen(trace) + 1;
    struct offer *offer = mem_must_zalloc(sizeof *offer + entries + key_room + trace_room);
    offer->text = (char *)offer + sizeof *offer + entries;
    offer->key_len = make_key(offer->text, put->task, put->sub, put->hedge);
    memcpy(offer->text + key_room, trace, trace_room);
    offer->view.task = offer->text;
    offer->view.sub = offer->text + strlen(put->task) + 1;
    offer->view.trace = offer->text + key_room;
    for (size_t i = 0; i < put->n_arms; i++) {
        struct arm *arm = registry_hold(offers->registry, put->arms[i]);
        if (arm == NULL) {
            release_entries(offers, offer);
            free(offer);
            return NULL;
        }
        if (arm->waiting.less == NULL)
            heap_init(&arm->waiting, entry_before, offsetof(struct entry, place));
        int64_t after = i < put->n_after_ms ? put->after_ms[i] : 0;
        offer->entries[offer->n_entries++] =
            (struct entry){.offer = offer, .arm = arm, .after_ms = after};
    }
    return offer;
}

void offers_free(struct offers **offers_ptr)
{
    struct offers *offers = *offers_ptr;
    struct offer *offer, *next;
    if (offers == NULL)
        return;
    *offers_ptr = NULL;
    HASH_ITER (hh, offers->by_key, offer, next)
        forget(offers, offer);
    heap_release(&offers->due);
    free(offers);
}

/* --- choosing ----------------------------------------------------------------------------- */

static bool dispatch(struct offers *offers, const struct offer_view *view, struct service *service,
                     int64_t now_ms)
{
    struct worker *worker = service->worker;
    if (!offers->hooks->dispatch(offers->ctx, view, worker, service->full->name)) {
        registry_shut(worker);
        return false;
    }
    registry_spend(offers->registry, worker, now_ms);
    return true;
}

/* Tries the arm's workers, least loaded first, until one takes the offer. */
static bool dispatch_at(struct offers *offers, const struct offer_view *view, const struct arm *arm,
                        int64_t now_ms)
{
    struct service *service;
    while ((service = registry_pick(arm)) != NULL)
        if (dispatch(offers, view, service, now_ms))
            return true;
    return false;
}

static void tell_unserved(struct offers *offers, struct offer *offer)
{
    const char *paused = NULL;
    if (offer->told || offer->view.hedge)
        return;
    offer->told = true;
    for (size_t i = 0; i < offer->n_entries && paused == NULL; i++)
        paused = registry_paused(offers->registry, offer->entries[i].arm->name);
    offers->hooks->unserved(offers->ctx, &offer->view, paused);
}

/* Goes through the entries of an offer in order and says which may be used. */
struct turns {
    int64_t waited_ms; /* since the offer */
    bool begun;        /* an entry that may be used at once has come */
    bool held;         /* and of those from there on, a worker serves one */
    bool served;       /* a worker serves any entry */
};

static bool may_use(struct turns *turns, const struct arm *arm, int64_t after_ms)
{
    bool usable = after_ms <= turns->waited_ms || (turns->begun && !turns->held);
    bool serving = arm != NULL && arm->n_serving > 0;
    turns->begun |= after_ms == 0;
    turns->held |= turns->begun && serving;
    turns->served |= serving;
    return usable;
}

/* Dispatches the offer through the first entry that can, or queues it at every usable one and
 * notes when the next becomes usable. True: it is gone and freed. */
static bool advance(struct offers *offers, struct offer *offer, int64_t now_ms)
{
    int64_t next = INT64_MAX;
    struct turns turns = {.waited_ms = now_ms - offer->since_ms};
    for (size_t i = 0; i < offer->n_entries; i++) {
        struct entry *entry = &offer->entries[i];
        bool usable = may_use(&turns, entry->arm, entry->after_ms);
        if (entry->place != 0)
            continue; /* it waits there, so nobody there has credit */
        if (usable && dispatch_at(offers, &offer->view, entry->arm, now_ms)) {
            forget(offers, offer);
            return true;
        }
        if (usable)
            heap_insert(&entry->arm->waiting, entry);
        else if (offer->since_ms + entry->after_ms < next)
            next = offer->since_ms + entry->after_ms;
    }
    if (offer->due_place == 0 || offer->due_ms != next) {
        heap_remove(&offers->due, offer);
        offer->due_ms = next;
        if (next != INT64_MAX)
            heap_insert(&offers->due, offer);
    }
    if (!turns.served)
        tell_unserved(offers, offer);
    return false;
}

/* The same choice for an offer that is not kept yet: most go out without being stored at all. */
static bool dispatch_now(struct offers *offers, const struct msg_offer *put,
                         const struct offer_view *view, int64_t since_ms, int64_t now_ms)
{
    struct turns turns = {.waited_ms = now_ms - since_ms};
    for (size_t i = 0; i < put->n_arms; i++) {
        const struct arm *arm = registry_find(offers->registry, put->arms[i]);
        int64_t after = i < put->n_after_ms ? put->after_ms[i] : 0;
        if (may_use(&turns, arm, after) && arm != NULL && dispatch_at(offers, view, arm, now_ms))
            return true;
    }
    return false;
}

/* --- putting ------------------------------------------------------------------------------ */

static bool offer_valid(const struct msg_offer *put)
{
    if (put->task[0] == '\0' || put->sub[0] == '\0' || put->n_arms == 0 ||
        put->n_arms > OFFER_MAX_ARMS || put->n_after_ms > put->n_arms || put->shard < 0 ||
        put->shard >= SHARD_COUNT || !key_fits(put->task, put->sub))
        return false;
    for (size_t i = 0; i < put->n_arms; i++)
        if (put->arms[i][0] == '\0' || strlen(put->arms[i]) > ARM_NAME_MAX)
            return false;
    for (size_t i = 0; i < put->n_after_ms; i++)
        if (put->after_ms[i] < 0 || put->after_ms[i] > OFFER_AFTER_MAX_MS)
            return false;
    return true;
}

static bool same_arms(const struct offer *offer, const struct msg_offer *put)
{
    if (offer->n_entries != put->n_arms)
        return false;
    for (size_t i = 0; i < put->n_arms; i++)
        if (strcmp(offer->entries[i].arm->name, put->arms[i]) != 0 ||
            offer->entries[i].after_ms != (i < put->n_after_ms ? put->after_ms[i] : 0))
            return false;
    return true;
}

static int keep(struct offers *offers, const struct msg_offer *put, const struct offer_view *view,
                uint64_t order, int64_t since_ms, int64_t now_ms)
{
    struct offer *offer = offer_make(offers, put, view->trace);
    if (offer == NULL)
        return -ENOSPC;
    offer->view.shard = view->shard;
    offer->view.owner = view->owner;
    offer->view.hedge = view->hedge;
    offer->priority = put->priority;
    offer->order = order;
    offer->since_ms = since_ms;
    HASH_ADD_KEYPTR(hh, offers->by_key, offer->text, offer->key_len, offer);
    join_group(offers, offer);
    advance(offers, offer, now_ms);
    return 0;
}

int offers_put(struct offers *offers, const struct msg_offer *put, const char *trace, void *owner,
               int64_t now_ms)
{
    if (!offer_valid(put))
        return -EINVAL;
    struct offer_view view = {.task = put->task,
                              .sub = put->sub,
                              .trace = trace != NULL ? trace : "",
                              .shard = put->shard,
                              .owner = owner,
                              .hedge = put->hedge};
    int64_t since_ms = now_ms;
    uint64_t order = 0;
    struct offer *old = find(offers, put->task, put->sub, put->hedge);
    if (old != NULL) {
        order = old->order;
        if (same_arms(old, put))
            since_ms = old->since_ms;
        forget(offers, old);
    }
    if (dispatch_now(offers, put, &view, since_ms, now_ms))
        return 0;
    if (offers_count(offers) >= offers->max)
        return -ENOBUFS;
    if (order == 0)
        order = ++offers->order;
    return keep(offers, put, &view, order, since_ms, now_ms);
}

size_t offers_withdraw(struct offers *offers, const char *task, const char *sub)
{
    if (sub[0] != '\0') {
        size_t found = 0;
        for (int hedge = 0; hedge < 2; hedge++) {
            struct offer *offer = find(offers, task, sub, hedge != 0);
            if (offer == NULL)
                continue;
            forget(offers, offer);
            found++;
        }
        return found;
    }
    struct task_group *group;
    HASH_FIND_STR(offers->groups, task, group);
    size_t n = 0;
    for (struct offer *offer = group != NULL ? LIST_FIRST(&group->offers) : NULL, *next;
         offer != NULL; offer = next, n++) {
        next = LIST_NEXT(offer, in_group); /* the last one frees the group */
        forget(offers, offer);
    }
    return n;
}

size_t offers_drop_owner(struct offers *offers, const void *owner)
{
    struct offer *offer, *next;
    size_t n = 0;
    HASH_ITER (hh, offers->by_key, offer, next) {
        if (offer->view.owner != owner)
            continue;
        forget(offers, offer);
        n++;
    }
    return n;
}

/* --- what happens to the kept ------------------------------------------------------------- */

/* An offer that waits at several of the worker's arms goes to the one that it prefers. */
static bool served_before(const struct entry *a, const struct entry *b)
{
    return a->offer == b->offer ? a < b : entry_before(a, b);
}

static struct entry *first_for(const struct worker *worker, struct service **ret_service)
{
    struct entry *best = NULL;
    for (size_t i = 0; i < worker->n_services; i++) {
        struct entry *entry = heap_first(&worker->services[i].arm->waiting);
        if (entry == NULL || (best != NULL && !served_before(entry, best)))
            continue;
        best = entry;
        *ret_service = &worker->services[i];
    }
    return best;
}

void offers_serve(struct offers *offers, struct worker *worker, int64_t now_ms)
{
    struct service *service = NULL;
    while (worker->open) {
        struct entry *entry = first_for(worker, &service);
        if (entry == NULL || !dispatch(offers, &entry->offer->view, service, now_ms))
            return;
        forget(offers, entry->offer);
    }
}

/* Looks at all offers: it happens seldom, and no index is kept for it. */
void offers_arm_lost(struct offers *offers, int64_t now_ms)
{
    struct offer *offer, *next;
    HASH_ITER (hh, offers->by_key, offer, next)
        advance(offers, offer, now_ms);
}

void offers_tick(struct offers *offers, int64_t now_ms)
{
    struct offer *offer;
    while ((offer = heap_first(&offers->due)) != NULL && offer->due_ms <= now_ms)
        advance(offers, offer, now_ms);
}
