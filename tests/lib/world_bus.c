/* Brokers, workers, and the messages between them and the orchestrators. */
#include <string.h>

#include "tests/lib/world.h"

enum { OFFERS_MAX = sizeof((struct world_broker *)0)->offers / sizeof(struct world_offer) };

void world_send(struct world *world, struct world_message message)
{
    if (world->n_messages == WORLD_MESSAGES || world_rarely(world, 25))
        return; /* lost */
    message.broker_boot = world->brokers[message.broker].boot;
    if (message.kind < WORLD_WELCOME)
        message.daemon_boot = world->daemons[message.daemon].boot;
    world->messages[world->n_messages++] = message;
}

/* What the broker tells the owner of an offer. */
static void tell_owner(struct world *world, int broker, const struct world_offer *offer,
                       struct world_message message)
{
    message.broker = broker;
    message.daemon = offer->daemon;
    message.daemon_boot = offer->daemon_boot;
    message.name = offer->name;
    message.hedge = offer->hedge;
    world_send(world, message);
}

/* --- brokers ---------------------------------------------------------------------------------- */

static void drop_offer(struct world_broker *broker, int at)
{
    broker->offers[at] = broker->offers[--broker->n_offers];
}

static int free_slot(const struct world *world)
{
    for (int i = 0; i < WORLD_SLOTS && world->workers; i++)
        if (world->slots[i].state == WORLD_FREE)
            return i;
    return -1;
}

static void dispatch(struct world *world, int broker, const struct world_offer *offer, int slot)
{
    bool slow = world_chance(world, 2) == 0;
    world->slots[slot] = (struct world_slot){.state = WORLD_DISPATCHED,
                                             .name = offer->name,
                                             .daemon = offer->daemon,
                                             .daemon_boot = offer->daemon_boot,
                                             .broker = broker,
                                             .hedge = offer->hedge,
                                             .slow = slow};
    tell_owner(world, broker, offer, (struct world_message){.kind = WORLD_TAKEN, .slow = slow});
}

static void tell_of_room(struct world *world, int index)
{
    struct world_broker *broker = &world->brokers[index];
    for (int i = 0; i < WORLD_DAEMONS; i++) {
        if (!broker->refused[i] || broker->n_offers >= broker->max)
            continue;
        broker->refused[i] = false;
        world_send(world,
                   (struct world_message){
                       .kind = WORLD_WINDOW, .broker = index, .daemon = i, .name = {-1, -1}});
    }
}

void world_broker_serve(struct world *world, int index)
{
    struct world_broker *broker = &world->brokers[index];
    int slot = free_slot(world);
    if (broker->n_offers == 0 || slot < 0)
        return;
    int at = (int)world_chance(world, (unsigned)broker->n_offers);
    struct world_offer offer = broker->offers[at];
    drop_offer(broker, at);
    dispatch(world, index, &offer, slot);
    tell_of_room(world, index);
}

static void withdraw(struct world_broker *broker, struct world_name name)
{
    for (int i = broker->n_offers - 1; i >= 0; i--)
        if (broker->offers[i].name.task == name.task &&
            (name.sub < 0 || broker->offers[i].name.sub == name.sub))
            drop_offer(broker, i);
}

static bool replace(struct world_broker *broker, const struct world_offer *offer)
{
    for (int i = 0; i < broker->n_offers; i++) {
        struct world_offer *old = &broker->offers[i];
        if (old->name.task != offer->name.task || old->name.sub != offer->name.sub ||
            old->hedge != offer->hedge)
            continue;
        *old = *offer;
        return true;
    }
    return false;
}

static void put(struct world *world, int index, const struct world_offer *offer)
{
    struct world_broker *broker = &world->brokers[index];
    if (replace(broker, offer))
        return;
    if (broker->n_offers >= broker->max) {
        broker->refused[offer->daemon] = true;
        tell_owner(world, index, offer, (struct world_message){.kind = WORLD_WINDOW});
        return;
    }
    broker->offers[broker->n_offers++] = *offer;
    if (!world->workers && !offer->hedge)
        tell_owner(world, index, offer, (struct world_message){.kind = WORLD_UNSERVED});
}

static void greet(struct world *world, const struct world_message *message)
{
    struct world_broker *broker = &world->brokers[message->broker];
    if (message->daemon_boot < broker->knows[message->daemon])
        return;                                                 /* of one that is gone */
    if (broker->knows[message->daemon] != message->daemon_boot) /* the former one is gone */
        for (int i = broker->n_offers - 1; i >= 0; i--)
            if (broker->offers[i].daemon == message->daemon)
                drop_offer(broker, i);
    broker->knows[message->daemon] = message->daemon_boot;
    world_send(world, (struct world_message){.kind = WORLD_WELCOME,
                                             .broker = message->broker,
                                             .daemon = message->daemon,
                                             .daemon_boot = message->daemon_boot,
                                             .name = {-1, -1}});
}

static void stop_attempts(struct world *world, struct world_name name)
{
    for (int i = 0; i < WORLD_SLOTS; i++) {
        struct world_slot *slot = &world->slots[i];
        if (slot->state == WORLD_FREE || slot->name.task != name.task ||
            (name.sub >= 0 && slot->name.sub != name.sub) || world_rarely(world, 10))
            continue;
        if (slot->state == WORLD_RUNS) /* it may have been needed after all */
            world_fail(world, slot->name, slot->token, ERROR_RETRY, 0);
        slot->state = WORLD_FREE;
    }
}

static void broker_hear(struct world *world, const struct world_message *message)
{
    struct world_broker *broker = &world->brokers[message->broker];
    if (message->broker_boot != broker->boot)
        return; /* its connection is gone */
    if (message->kind == WORLD_HELLO) {
        greet(world, message);
        return;
    }
    if (broker->knows[message->daemon] != message->daemon_boot)
        return;
    if (message->kind == WORLD_OFFER)
        put(world, message->broker,
            &(struct world_offer){message->name, message->daemon, message->daemon_boot,
                                  message->hedge});
    if (message->kind == WORLD_WITHDRAW || message->kind == WORLD_CANCEL)
        withdraw(broker, message->name);
    if (message->kind == WORLD_CANCEL)
        stop_attempts(world, message->name);
    tell_of_room(world, message->broker);
}

void world_broker_restart(struct world *world, int index)
{
    struct world_broker *broker = &world->brokers[index];
    int max = broker->max;
    memset(broker, 0, sizeof *broker);
    broker->max = max > 0 ? max : 1 + (int)world_chance(world, OFFERS_MAX);
    broker->boot = ++world->boots;
    world_say(world, "broker %d starts, window %d", index, broker->max);
}

void world_message_deliver(struct world *world, int at, bool keep)
{
    struct world_message message = world->messages[at];
    if (!keep) {
        world->n_messages--;
        memmove(&world->messages[at], &world->messages[at + 1],
                (size_t)(world->n_messages - at) * sizeof *world->messages);
    }
    static const char *const names[] = {
        [WORLD_HELLO] = "hello",       [WORLD_OFFER] = "offer",       [WORLD_WITHDRAW] = "withdraw",
        [WORLD_CANCEL] = "cancel",     [WORLD_WELCOME] = "welcome",   [WORLD_TAKEN] = "taken",
        [WORLD_DECLINED] = "declined", [WORLD_UNSERVED] = "unserved", [WORLD_WINDOW] = "window"};
    bool named = message.name.task >= 0 && message.kind != WORLD_HELLO;
    world_say(world, "%s broker %d, daemon %d: %s%s %s/%s",
              message.kind <= WORLD_CANCEL ? "to" : "of", message.broker, message.daemon,
              names[message.kind], message.hedge ? " (hedge)" : "",
              named ? world_task_name(message.name.task) : "-",
              named ? world_sub_name(message.name.sub) : "-");
    if (message.kind <= WORLD_CANCEL)
        broker_hear(world, &message);
    else
        world_daemon_hear(world, &message);
}

/* --- workers ---------------------------------------------------------------------------------- */

static void decline(struct world *world, const struct world_slot *slot)
{
    world_send(world, (struct world_message){.kind = WORLD_DECLINED,
                                             .broker = slot->broker,
                                             .daemon = slot->daemon,
                                             .daemon_boot = slot->daemon_boot,
                                             .name = slot->name,
                                             .hedge = slot->hedge,
                                             .slow = slot->slow,
                                             .after_ms = world_chance(world, 300)});
}

static void claim(struct world *world, struct world_slot *slot)
{
    if (world_rarely(world, 8)) {
        decline(world, slot);
        slot->state = WORLD_FREE;
        return;
    }
    if (world_rarely(world, 12)) { /* it dies, or the dispatch is lost */
        slot->state = WORLD_FREE;
        return;
    }
    enum queue_status status = world_claim(world, slot->name, slot->hedge, &slot->token);
    slot->state = status == QUEUE_OK ? WORLD_RUNS : WORLD_FREE;
    world_say(world, "%s/%s is claimed%s: %s", world_task_name(slot->name.task),
              world_sub_name(slot->name.sub), slot->hedge ? " (hedge)" : "",
              queue_status_name(status));
}

static void fail(struct world *world, const struct world_slot *slot)
{
    static const enum error_action actions[] = {ERROR_RETRY, ERROR_RETRY, ERROR_WAIT, ERROR_MOVE,
                                                ERROR_DEAD};
    enum error_action action = actions[world_chance(world, sizeof actions / sizeof *actions)];
    enum queue_status status =
        world_fail(world, slot->name, slot->token, action, world_chance(world, 3) * 100);
    world_say(world, "%s/%s fails (%d): %s", world_task_name(slot->name.task),
              world_sub_name(slot->name.sub), (int)action, queue_status_name(status));
}

static void commit(struct world *world, const struct world_slot *slot)
{
    enum queue_status status = world_commit(world, slot->name, slot->token);
    world_say(world, "%s/%s is committed: %s", world_task_name(slot->name.task),
              world_sub_name(slot->name.sub), queue_status_name(status));
    if (world_rarely(world, 4) && /* the answer was lost, the call is repeated */
        status == QUEUE_OK && world_commit(world, slot->name, slot->token) != QUEUE_DUP)
        world_wrong(world, "a repeated commit is not DUP");
}

void world_slot_move(struct world *world, int index)
{
    struct world_slot *slot = &world->slots[index];
    if (slot->state == WORLD_DISPATCHED) {
        claim(world, slot);
        return;
    }
    if (slot->state != WORLD_RUNS)
        return;
    if (world_rarely(world, 4)) {
        world_renew(world, slot->name, slot->token);
        return;
    }
    if (world_rarely(world, 4))
        fail(world, slot);
    else if (!world_rarely(world, 10)) /* else it dies */
        commit(world, slot);
    slot->state = WORLD_FREE;
}

void world_workers_die(struct world *world)
{
    for (int i = 0; i < WORLD_SLOTS; i++)
        world->slots[i].state = WORLD_FREE;
    world->workers = false;
    world_say(world, "all workers die");
}
