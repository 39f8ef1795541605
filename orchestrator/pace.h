/* How long arms take to answer, as far as hedges need it: the p95 of the last answers of each arm,
 * and of each arm for each role. */
#ifndef ORCHESTRATOR_PACE_H
#define ORCHESTRATOR_PACE_H

#include <stdint.h>

#include "schemas/message.h"

#define PACE_LEAST 20 /* answers without which nothing is said of an arm */

struct pace;

struct pace *pace_new(void);
void pace_free(struct pace **pace); /* accepts NULL */
/* An attempt that is over. Only calls that were answered count: neither failures, nor what the
 * response cache had; and an attempt counts once, however often it is told (after a takeover, by
 * other orchestrators). */
void pace_add(struct pace *pace, const struct msg_timing *attempt);
/* Of total_ms, rounded up: of the arm for that role, else for all roles. -1: too few answers. */
int64_t pace_p95_ms(struct pace *pace, const char *role, const char *arm);

#endif
