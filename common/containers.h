/* The one place that includes uthash and sys/queue.h. */
#ifndef COMMON_CONTAINERS_H
#define COMMON_CONTAINERS_H

#include <sys/queue.h>
#include <uthash.h>

#ifndef TAILQ_FOREACH_SAFE
#define TAILQ_FOREACH_SAFE(var, head, field, next)                                                 \
    for ((var) = TAILQ_FIRST(head); (var) && ((next) = TAILQ_NEXT(var, field), 1); (var) = (next))
#endif

#endif
