/* Who got what of late: a bounded memory of dispatches, by which a decline is checked and finds the
 * orchestrator that offered. */
#ifndef BROKER_DISPATCHES_H
#define BROKER_DISPATCHES_H

#include <stdbool.h>
#include <stddef.h>

struct dispatches;

/* What one dispatch is told apart by; borrowed during a call. */
struct dispatch_key {
    const char *task, *sub, *arm;
    bool hedge;
    const void *worker; /* only compared */
};

/* Remembers the last `max` of them. */
struct dispatches *dispatches_new(size_t max);
void dispatches_free(struct dispatches **dispatches); /* accepts NULL */

void dispatches_add(struct dispatches *dispatches, const struct dispatch_key *key, void *owner);
/* Forgets one such dispatch, so that it can be declined once. False: none is remembered. The owner
 * is NULL when it is gone. */
bool dispatches_take(struct dispatches *dispatches, const struct dispatch_key *key,
                     void **ret_owner);
/* Whether one is remembered. */
bool dispatches_has(const struct dispatches *dispatches, const struct dispatch_key *key);
/* A worker or an owner that is gone: its address may soon be another's. */
void dispatches_forget(struct dispatches *dispatches, const void *who);

#endif
