#include "broker/dispatches.h"

#include <stdint.h>
#include <stdlib.h>

#include "schemas/mem.h"

#define NONE SIZE_MAX

/* A ring in the order of dispatching, and chains of it by hash. The key is kept as its hash: what
 * a collision could confuse is a hint. */
struct slot {
    uint64_t hash;
    const void *worker; /* NULL: not used any more */
    void *owner;
    size_t next; /* in its chain */
};

struct dispatches {
    size_t max, at; /* the next place in the ring */
    size_t *chains; /* first slot by hash */
    struct slot slots[];
};

struct dispatches *dispatches_new(size_t max)
{
    struct dispatches *dispatches =
        mem_must_zalloc(sizeof *dispatches + max * sizeof *dispatches->slots);
    dispatches->max = max;
    dispatches->chains = mem_must_zalloc(max * sizeof *dispatches->chains);
    for (size_t i = 0; i < max; i++)
        dispatches->chains[i] = NONE;
    return dispatches;
}

void dispatches_free(struct dispatches **dispatches)
{
    if (*dispatches == NULL)
        return;
    free((*dispatches)->chains);
    free(*dispatches);
    *dispatches = NULL;
}

/* FNV-1a, with the terminating NULs. */
static uint64_t add_text(uint64_t hash, const char *text)
{
    do
        hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    while (*text++ != '\0');
    return hash;
}

static uint64_t hash_of(const struct dispatch_key *key)
{
    uint64_t hash = key->hedge ? 14695981039346656037u : 14695981039346656037u ^ 1;
    return add_text(add_text(add_text(hash, key->task), key->sub), key->arm);
}

static void unchain(struct dispatches *dispatches, size_t slot)
{
    size_t *at = &dispatches->chains[dispatches->slots[slot].hash % dispatches->max];
    while (*at != NONE && *at != slot)
        at = &dispatches->slots[*at].next;
    if (*at == slot)
        *at = dispatches->slots[slot].next;
    dispatches->slots[slot].worker = NULL;
}

void dispatches_add(struct dispatches *dispatches, const struct dispatch_key *key, void *owner)
{
    size_t slot = dispatches->at;
    dispatches->at = (slot + 1) % dispatches->max;
    if (dispatches->slots[slot].worker != NULL)
        unchain(dispatches, slot);
    uint64_t hash = hash_of(key);
    size_t *chain = &dispatches->chains[hash % dispatches->max];
    dispatches->slots[slot] = (struct slot){hash, key->worker, owner, *chain};
    *chain = slot;
}

/* NONE when it is not remembered. */
static size_t find(const struct dispatches *dispatches, const struct dispatch_key *key)
{
    uint64_t hash = hash_of(key);
    size_t at = dispatches->chains[hash % dispatches->max];
    while (at != NONE &&
           (dispatches->slots[at].hash != hash || dispatches->slots[at].worker != key->worker))
        at = dispatches->slots[at].next;
    return at;
}

bool dispatches_has(const struct dispatches *dispatches, const struct dispatch_key *key)
{
    return find(dispatches, key) != NONE;
}

bool dispatches_take(struct dispatches *dispatches, const struct dispatch_key *key,
                     void **ret_owner)
{
    size_t at = find(dispatches, key);
    if (at == NONE)
        return false;
    *ret_owner = dispatches->slots[at].owner;
    unchain(dispatches, at);
    return true;
}

void dispatches_forget(struct dispatches *dispatches, const void *who)
{
    for (size_t i = 0; i < dispatches->max; i++) {
        struct slot *slot = &dispatches->slots[i];
        if (slot->owner == who)
            slot->owner = NULL;
        if (slot->worker != NULL && slot->worker == who)
            unchain(dispatches, i);
    }
}
