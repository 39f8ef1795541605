/* Which arms may run a subtask, in which order, and from when: the one place that decides. */
#ifndef ORCHESTRATOR_ROUTE_H
#define ORCHESTRATOR_ROUTE_H

#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/queue.h"
#include "schemas/buf.h"
#include "schemas/message.h"

#define ROUTE_MAX 64 /* arms of an offer; what messages.def allows */

struct route {
    /* Model aliases, any place, borrowed from the config; or the arm asked for, from the meta. */
    const char *arms[ROUTE_MAX];
    int64_t after_ms[ROUTE_MAX];
    size_t n_arms;
};

struct route_ask {
    const struct msg_meta *meta;
    /* Arms that it avoids, separated by spaces; `arm=ms` only for so long from now. NULL: none */
    const char *avoid;
    const char *error_class; /* of its last failure; NULL or "": none */
    const char *running;     /* a hedge of what this arm runs; NULL or "": it is none */
    int64_t wall_ms;         /* by which prices count */
};

/* Candidates are the model asked for, or the arm; else the models of the role in its order; else,
 * when it names none, all: local ones first, then by price, those without a known one last.
 *
 * Left out are: models without a tag that the role asks for; those that are not local when the task
 * or the config is offline; those that don't make embeddings, for kind `embed`, or that read no
 * images where some are shown; those whose window is known to be too small, while others remain;
 * for a hedge the model that runs. After a failure of class context_too_long only models with a
 * larger window than the one that failed remain (0, unknown, counts as larger).
 *
 * A model of which an arm is avoided is left out, unless only such ones remain that other workers
 * serve at other places. One of which an arm is avoided for some ms stays a candidate that may be
 * used only then; it stands in front, where a broker never uses it before. What follows a local arm
 * that may be used waits the role's spill_ms for it.
 *
 * -ENOENT with the reason when nothing may run it; when something might, -EMSGSIZE with the reason
 * if no window of that is large enough, -ENODATA if all of it is avoided, or runs already. */
int route_arms(const struct config *config, const struct route_ask *ask, struct route *ret,
               struct err *err);

/* Whether something may run a subtask that is to be submitted. -ENOENT with the reason when nothing
 * may; 0 without models, too: a machine that only submits need not know them. */
int route_check(const struct config *config, const struct queue_node *node, struct err *err);

/* Appends why the subtask waits when no worker serves any of these arms, and what to start. */
void route_unserved(const struct config *config, const struct route *route, struct buf *out);

#endif
