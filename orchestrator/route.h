/* Which arms may run a subtask, in which order, and from when: the one place that decides. */
#ifndef ORCHESTRATOR_ROUTE_H
#define ORCHESTRATOR_ROUTE_H

#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "schemas/buf.h"
#include "schemas/message.h"

#define ROUTE_MAX 64 /* arms of an offer; what messages.def allows */

struct route {
    const char *arms[ROUTE_MAX]; /* model aliases, any place; borrowed from the config */
    int64_t after_ms[ROUTE_MAX];
    size_t n_arms;
};

/* An explicit model, else the models of the role in its order (all models when it names none).
 * Offline leaves only local ones. What follows a local arm waits the role's spill_ms for it. A
 * model of which an arm is in `avoid` (arms, separated by spaces) is left out, unless only such
 * ones remain that other workers serve at other places. -ENOENT with the reason when nothing may
 * run it; -ENODATA when something might, but all of that is avoided. */
int route_arms(const struct config *config, const struct msg_meta *meta, const char *avoid,
               struct route *ret, struct err *err);

/* Appends why the subtask waits when no worker serves any of these arms, and what to start. */
void route_unserved(const struct config *config, const struct route *route, struct buf *out);

#endif
