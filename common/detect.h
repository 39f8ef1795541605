/* The configuration of a machine without one: keys in the environment, local runtimes on their
 * usual ports, else the simulator. */
#ifndef COMMON_DETECT_H
#define COMMON_DETECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "schemas/buf.h"

/* Most time that looking for local runtimes takes, ms. */
#define DETECT_BUDGET_MS 50

#define DETECT_NAME_SIZE 129

struct detect_model {
    char name[DETECT_NAME_SIZE];
    char parameters[16]; /* "8.2B"; "": not told */
    int64_t bytes;       /* on the disk; 0: not told */
};

/* A local runtime at a usual place, or at any other. */
struct detect_runtime {
    const char *provider; /* name it gets in the configuration */
    const char *api;
    const char *path;     /* lists models as JSON */
    const char *port_env; /* tests and odd machines name other ports here; NULL: nobody does */
    uint32_t address;     /* IPv4 in network order; 0: 127.0.0.1 */
    int port;
    int status;     /* of its answer; 0: none came */
    bool found;     /* it answered as runtimes do */
    char owner[32]; /* whom it says its models belong to, which tells what it is; "" */
    struct detect_model *models;
    size_t n_models;
};
const struct detect_runtime *detect_runtimes(size_t *ret_count);

#define DETECT_PROBES 64 /* most runtimes asked at once */
/* Asks all of them at once, at most budget_ms; fills what they are and have. `runtimes` is a copy
 * of the table; detect_release() frees what was learnt. */
void detect_probe(struct detect_runtime *runtimes, size_t count, int budget_ms);
void detect_release(struct detect_runtime *runtimes, size_t count);

/* Appends the configuration as YAML that config_parse() reads. */
void detect_yaml(const struct detect_runtime *runtimes, size_t count, struct buf *out);
/* Looks around and parses what it found. 0, or what config_parse() fails with. */
int detect_config(struct config **ret, struct err *err);

#endif
