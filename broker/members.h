/* Who is connected: workers, orchestrators and tools that introduced themselves, by connection. */
#ifndef BROKER_MEMBERS_H
#define BROKER_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/registry.h"
#include "common/bus.h"
#include "common/containers.h"

#define MEMBERS_MAX 8192

enum member_role {
    MEMBER_WORKER,
    MEMBER_CLIENT, /* orchestrator or tool */
};

struct member {
    struct bus_peer id;
    enum member_role role;
    struct worker *worker; /* MEMBER_WORKER; borrowed from the registry */
    char *boot;            /* owned */
    bool orchestrator;     /* a client whose source begins with "orchestrator/" */
    bool refused;          /* an offer of it was refused: it waits for a window message */
    bool tells_keys;       /* it has sent keys, and is told who came with them */
    bool gone;             /* can't be reached; removed before the loop's turn ends */
    int64_t heard_ms;
    UT_hash_handle hh;
};

struct members {
    struct member *by_id;
    size_t n_orchestrators;
};

void members_release(struct members *members);
struct member *members_find(const struct members *members, const struct bus_peer *id);
/* The client of that start of a process, over whatever connection; NULL: none. */
struct member *members_find_client(const struct members *members, const char *boot);
/* NULL when there are MEMBERS_MAX. The id must not be in use. */
struct member *members_add(struct members *members, const struct bus_peer *id,
                           enum member_role role, const char *boot, int64_t now_ms);
/* The same member over a new connection, whose id must not be in use. */
void members_move(struct members *members, struct member *member, const struct bus_peer *id);
void members_remove(struct members *members, struct member *member); /* and frees it */

#endif
