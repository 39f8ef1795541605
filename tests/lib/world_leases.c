/* Who holds which shard: leases that another may have taken before their holder knows. */
#include <string.h>

#include "tests/lib/world.h"

static void forget_offers(struct world_daemon *daemon, int shard)
{
    for (int i = shard; i < WORLD_TASKS; i += WORLD_SHARDS)
        memset(daemon->known[i], 0, sizeof daemon->known[i]);
}

static void gain(struct world *world, int index, int shard)
{
    struct world_daemon *daemon = &world->daemons[index];
    world_say(world, "daemon %d gains shard %d", index, shard);
    daemon->holds[shard] = true;
    daemon->term[shard]++;
    daemon->applied[shard] = world->outboxes[shard].checkpoint;
    world->outboxes[shard].owner = daemon->boot;
    world_daemon_step(world, index, (struct flow_event){.kind = FLOW_EVENT_GAINED, .shard = shard});
}

static void drop(struct world *world, int index, int shard)
{
    struct world_daemon *daemon = &world->daemons[index];
    world_say(world, "daemon %d drops shard %d", index, shard);
    daemon->holds[shard] = false;
    forget_offers(daemon, shard);
    world_daemon_step(world, index,
                      (struct flow_event){.kind = FLOW_EVENT_DROPPED, .shard = shard});
}

static bool lives(const struct world *world, int boot)
{
    for (int i = 0; i < WORLD_DAEMONS; i++)
        if (world->daemons[i].flow != NULL && world->daemons[i].boot == boot)
            return true;
    return false;
}

void world_leases_learn(struct world *world, int index)
{
    struct world_daemon *daemon = &world->daemons[index];
    for (int i = 0; i < WORLD_SHARDS; i++) {
        int owner = world->outboxes[i].owner;
        if (owner != daemon->boot && lives(world, owner)) {
            if (daemon->holds[i])
                drop(world, index, i);
        } else if (!daemon->holds[i] && owner != daemon->boot) {
            gain(world, index, i);
        }
    }
}

void world_leases_take(struct world *world, int index, int shard)
{
    if (!world->daemons[index].holds[shard])
        gain(world, index, shard);
}

void world_leases_leave(struct world *world, int index, int shard)
{
    struct world_daemon *daemon = &world->daemons[index];
    if (!daemon->holds[shard])
        return;
    world_say(world, "daemon %d leaves shard %d", index, shard);
    world_daemon_step(world, index, (struct flow_event){.kind = FLOW_EVENT_LEAVE, .shard = shard});
}

void world_leases_released(struct world *world, int index, int shard)
{
    struct world_daemon *daemon = &world->daemons[index];
    world_say(world, "daemon %d gives shard %d back", index, shard);
    if (flow_holds(daemon->flow, shard))
        world_wrong(world, "shard %d is given back and held", shard);
    daemon->holds[shard] = false;
    forget_offers(daemon, shard);
    if (world->outboxes[shard].owner == daemon->boot)
        world->outboxes[shard].owner = 0;
}
