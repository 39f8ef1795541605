#include "broker/members.h"

#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"

void members_release(struct members *members)
{
    struct member *member, *next;
    HASH_ITER (hh, members->by_id, member, next)
        members_remove(members, member);
}

struct member *members_find(const struct members *members, const struct bus_peer *id)
{
    struct member *member;
    HASH_FIND(hh, members->by_id, id->id, id->len, member);
    return member;
}

struct member *members_find_client(const struct members *members, const char *boot)
{
    for (struct member *member = members->by_id; member != NULL; member = member->hh.next)
        if (member->role == MEMBER_CLIENT && strcmp(member->boot, boot) == 0)
            return member;
    return NULL;
}

struct member *members_add(struct members *members, const struct bus_peer *id,
                           enum member_role role, const char *boot, int64_t now_ms)
{
    if (HASH_COUNT(members->by_id) >= MEMBERS_MAX)
        return NULL;
    struct member *member = mem_must_zalloc(sizeof *member);
    member->id = *id;
    member->role = role;
    member->boot = mem_must_strdup(boot);
    member->heard_ms = now_ms;
    HASH_ADD(hh, members->by_id, id.id, member->id.len, member);
    return member;
}

void members_move(struct members *members, struct member *member, const struct bus_peer *id)
{
    HASH_DEL(members->by_id, member);
    member->id = *id;
    HASH_ADD(hh, members->by_id, id.id, member->id.len, member);
}

void members_remove(struct members *members, struct member *member)
{
    HASH_DEL(members->by_id, member);
    members->n_orchestrators -= member->orchestrator ? 1 : 0;
    free(member->boot);
    free(member);
}
