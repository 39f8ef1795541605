/* The configuration of a machine without one: keys in the environment, local runtimes on their
 * usual ports, else the simulator. */
#ifndef COMMON_DETECT_H
#define COMMON_DETECT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/err.h"
#include "schemas/buf.h"

/* Most time that looking for local runtimes takes, ms. */
#define DETECT_BUDGET_MS 50

/* A local runtime at a usual place. */
struct detect_runtime {
    const char *provider; /* name it gets in the configuration */
    const char *api;
    const char *path;     /* lists models as JSON */
    const char *port_env; /* tests and odd machines name other ports here */
    int port;
    bool found;
    struct buf models; /* names, each ended by \n; bounded */
};
const struct detect_runtime *detect_runtimes(size_t *ret_count);

/* Asks all of them at once, at most budget_ms; fills found and models. `runtimes` is a copy of the
 * table; detect_release() frees what was learnt. */
void detect_probe(struct detect_runtime *runtimes, size_t count, int budget_ms);
void detect_release(struct detect_runtime *runtimes, size_t count);

/* Appends the configuration as YAML that config_parse() reads. */
void detect_yaml(const struct detect_runtime *runtimes, size_t count, struct buf *out);
/* Looks around and parses what it found. 0, or what config_parse() fails with. */
int detect_config(struct config **ret, struct err *err);

#endif
