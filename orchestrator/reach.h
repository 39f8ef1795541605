/* Whether TCP connections can be made to a set of addresses, all tried at once. */
#ifndef ORCHESTRATOR_REACH_H
#define ORCHESTRATOR_REACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reach_target {
    char host[256];
    int port;
    bool reached;
    char why[128]; /* when it was not */
};

/* Host and port of an http:// or https:// URL; false when it has none. */
bool reach_target_of_url(struct reach_target *ret, const char *url);
/* Resolves and connects; returns when all are decided or timeout_ms passed, and the resolver came
 * back. */
void reach_all(struct reach_target *targets, size_t count, int64_t timeout_ms);

#endif
