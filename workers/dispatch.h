/* What a broker told this worker to run. */
#ifndef WORKERS_DISPATCH_H
#define WORKERS_DISPATCH_H

#include <stdbool.h>

#include "common/task_id.h"
#include "workers/arms.h"

struct dispatch {
    char task[TASK_ID_SIZE];
    char sub[SUB_ID_MAX + 1];
    const struct arm *arm; /* borrowed */
    int broker;            /* that it came from */
    bool hedge;            /* a second attempt, beside the one that runs */
    double arrived_ms;     /* monotonic */
};

#endif
