#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "broker/state.h"
#include "common/failpoint.h"
#include "common/log.h"

typedef void handler_fn(struct broker *broker, struct member *member,
                        const struct message *message);
typedef void introduction_fn(struct broker *broker, const struct bus_peer *id,
                             struct member *member, const struct message *message);

/* --- coming and going --------------------------------------------------------------------- */

void broker_remove(struct broker *broker, struct member *member, const char *what,
                   const char *reason)
{
    struct worker *worker = member->worker;
    if (worker == NULL) {
        offers_drop_owner(broker->offers, member);
        if (member->orchestrator)
            dispatches_forget(broker->dispatches, member);
        members_remove(&broker->members, member);
        return;
    }
    log_info("worker %s on %s %s: %s", worker->name, worker->host, what, reason);
    broker_tell_worker(broker, worker, what, reason);
    members_remove(&broker->members, member);
    dispatches_forget(broker->dispatches, worker);
    if (registry_leave(&broker->registry, worker))
        offers_arm_lost(broker->offers, broker->now_ms);
}

static void greet(struct broker *broker, struct member *member)
{
    struct message welcome = {.type = MESSAGE_welcome,
                              .welcome = {.name = broker->host,
                                          .boot = broker->boot,
                                          .max_offers = (int64_t)offers_max(broker->offers),
                                          .beat_ms = broker->beat_ms}};
    broker_send(broker, member, &welcome);
    broker_send_topics(broker, member);
}

static void on_hello(struct broker *broker, const struct bus_peer *id, struct member *member,
                     const struct message *message)
{
    struct members *members = &broker->members;
    if (message->hello.boot[0] == '\0' || message->hello.name[0] == '\0') {
        broker_reject(broker, "a hello without name or boot");
        return;
    }
    struct member *known = members_find_client(members, message->hello.boot);
    if (member != NULL && member != known)
        broker_remove(broker, member, "left", "it became somebody else");
    if (known == NULL)
        known = members_add(members, id, MEMBER_CLIENT, message->hello.boot, broker->now_ms);
    else if (known != member)
        members_move(members, known, id);
    if (known == NULL) {
        broker_reject(broker, "a hello past the limit of members");
        return;
    }
    known->heard_ms = broker->now_ms;
    known->refused = false;
    members->n_orchestrators -= known->orchestrator ? 1 : 0;
    known->orchestrator = strncmp(message->source, "orchestrator/", 13) == 0;
    members->n_orchestrators += known->orchestrator ? 1 : 0;
    bus_settle(broker->router, id);
    greet(broker, known);
}

/* Connects the worker with the connection its ready came over; NULL at the limit of members. */
static struct member *seat(struct broker *broker, const struct bus_peer *id, struct member *member,
                           struct worker *worker, const char *boot)
{
    struct members *members = &broker->members;
    struct member *seated = worker->member;
    if (member != NULL && member != seated)
        broker_remove(broker, member, "left", "it became another worker");
    if (seated == NULL)
        seated = members_add(members, id, MEMBER_WORKER, boot, broker->now_ms);
    else if (seated != member)
        members_move(members, seated, id);
    if (seated == NULL)
        return NULL;
    seated->worker = worker;
    seated->heard_ms = broker->now_ms;
    seated->gone = false;
    worker->member = seated;
    return seated;
}

static void on_ready(struct broker *broker, const struct bus_peer *id, struct member *member,
                     const struct message *message)
{
    struct worker *worker;
    enum registry_change change;
    bool lost;
    int rc = registry_join(&broker->registry, &message->ready, &worker, &change, &lost);
    if (rc != 0) {
        broker_reject(broker, rc == -ENOSPC ? "a ready past the limit of workers or arms"
                                            : "a ready without name or arms, or with bad figures");
        return;
    }
    struct member *seated = seat(broker, id, member, worker, message->ready.boot);
    if (seated == NULL) {
        registry_leave(&broker->registry, worker);
        broker_reject(broker, "a ready past the limit of members");
        return;
    }
    bus_settle(broker->router, id);
    greet(broker, seated);
    if (registry_boasts(worker, message->ready.credit, message->ready.running))
        broker_reject(broker, "a ready with credit that the worker cannot have");
    if (change != REGISTRY_UPDATED) {
        log_info("worker %s on %s joined", worker->name, worker->host);
        broker_tell_worker(broker, worker, "joined",
                           change == REGISTRY_RESTARTED ? "it was started again" : "");
    }
    offers_serve(broker->offers, worker, broker->now_ms);
    if (lost)
        offers_arm_lost(broker->offers, broker->now_ms);
}

static void on_bye(struct broker *broker, struct member *member, const struct message *message)
{
    broker_remove(broker, member, "left", message->bye.reason);
}

/* --- workers ------------------------------------------------------------------------------ */

static void on_credit(struct broker *broker, struct member *member, const struct message *message)
{
    struct worker *worker = member->worker;
    if (registry_boasts(worker, message->credit.grant, worker->credit))
        broker_reject(broker, "a grant of credit that the worker cannot have");
    if (registry_grant(worker, message->credit.grant) != 0)
        broker_reject(broker, "a negative grant of credit");
    else
        offers_serve(broker->offers, worker, broker->now_ms);
}

static void on_beat(struct broker *broker, struct member *member, const struct message *message)
{
    struct worker *worker = member->worker;
    if (worker == NULL)
        return;
    if (registry_boasts(worker, message->beat.credit, message->beat.running))
        broker_reject(broker, "a heartbeat with credit that the worker cannot have");
    registry_beat(worker, &message->beat, broker->now_ms, broker->beat_ms);
    broker_tell_worker(broker, worker, "beat", "");
    offers_serve(broker->offers, worker, broker->now_ms);
}

/* It gives no credit back: the worker grants anew. */
static void on_decline(struct broker *broker, struct member *member, const struct message *message)
{
    struct message decline = {.type = MESSAGE_decline, .trace = message->trace};
    struct msg_decline *copy = &decline.decline;
    *copy = message->decline;
    void *owner;
    if (!dispatches_take(broker->dispatches,
                         &(struct dispatch_key){.task = copy->task,
                                                .sub = copy->sub,
                                                .arm = copy->arm,
                                                .hedge = copy->hedge,
                                                .worker = member->worker},
                         &owner)) {
        broker_reject(broker, "a decline of what was not dispatched to the worker");
        return;
    }
    copy->after_ms = copy->after_ms < 0                    ? 0
                     : copy->after_ms > OFFER_AFTER_MAX_MS ? OFFER_AFTER_MAX_MS
                                                           : copy->after_ms;
    if (owner != NULL)
        broker_send(broker, owner, &decline);
    else
        broker_send_orchestrators(broker, &decline);
}

/* --- orchestrators and tools -------------------------------------------------------------- */

static void on_offer(struct broker *broker, struct member *member, const struct message *message)
{
    const struct msg_offer *offer = &message->offer;
    int rc = offers_put(broker->offers, offer, message->trace, member, broker->now_ms);
    if (rc == 0)
        return;
    if (rc != -ENOBUFS) {
        broker_reject(broker, rc == -ENOSPC ? "an offer past the limit of arms"
                                            : "an offer without task, subtask or arms, or with bad "
                                              "figures");
        return;
    }
    member->refused = true;
    broker_send_window(broker, member, offer);
    if (broker->full)
        return;
    broker->full = true;
    broker_tell(broker, "full", "an offer was refused: orchestrators hold back");
}

static void on_withdraw(struct broker *broker, struct member *member, const struct message *message)
{
    (void)member;
    offers_withdraw(broker->offers, message->withdraw.task, message->withdraw.sub);
}

/* Who runs the subtask is not remembered: a restarted broker would not know either. */
static void on_cancel(struct broker *broker, struct member *member, const struct message *message)
{
    (void)member;
    struct message cancel = {.type = MESSAGE_cancel, .trace = message->trace};
    cancel.cancel = message->cancel;
    offers_withdraw(broker->offers, message->cancel.task, message->cancel.sub);
    broker_send_workers(broker, &cancel, "");
}

static void on_drain(struct broker *broker, struct member *member, const struct message *message)
{
    (void)member;
    const char *name = message->drain.worker;
    struct message drain = {.type = MESSAGE_drain, .trace = message->trace};
    struct worker *worker;
    bool lost = false;
    drain.drain = message->drain;
    TAILQ_FOREACH (worker, &broker->registry.workers, entry)
        if (name[0] == '\0' || strcmp(worker->name, name) == 0)
            lost |= registry_drain(worker);
    broker_send_workers(broker, &drain, name);
    if (lost)
        offers_arm_lost(broker->offers, broker->now_ms);
}

static void send_worker_info(struct broker *broker, struct member *to, const struct worker *worker)
{
    const struct member *member = worker->member;
    struct message info = {
        .type = MESSAGE_worker_info,
        .worker_info = {.name = worker->name,
                        .provider = worker->provider,
                        .host = worker->host,
                        .pid = worker->pid,
                        .arms = (const char **)worker->arms,
                        .n_arms = worker->n_arms,
                        .credit = worker->credit,
                        .concurrency = worker->concurrency,
                        .running = worker->running,
                        .gpu = worker->gpu,
                        .local = worker->local,
                        .gpu_memory_used = worker->gpu_memory_used,
                        .gpu_memory_total = worker->gpu_memory_total,
                        .gpu_utilization = worker->gpu_utilization,
                        .gpu_temperature = worker->gpu_temperature,
                        .gpu_power_mw = worker->gpu_power_mw,
                        .states = worker->states,
                        .n_states = worker->states != NULL ? worker->n_arms : 0,
                        .paused = (const char **)worker->paused,
                        .n_paused = worker->n_paused,
                        .idle_ms = broker->now_ms - member->heard_ms},
    };
    broker_send(broker, to, &info);
}

static void on_status(struct broker *broker, struct member *member, const struct message *message)
{
    struct worker *worker;
    struct bus_counts counts;
    (void)message;
    TAILQ_FOREACH (worker, &broker->registry.workers, entry)
        send_worker_info(broker, member, worker);
    bus_counts(broker->router, &counts);
    struct message info = {
        .type = MESSAGE_broker_info,
        .broker_info = {.name = broker->host,
                        .host = broker->host,
                        .pid = getpid(),
                        .uptime_ms = broker->now_ms - broker->started_ms,
                        .workers = (int64_t)broker->registry.n_workers,
                        .orchestrators = (int64_t)broker->members.n_orchestrators,
                        .offers = (int64_t)offers_count(broker->offers),
                        .max_offers = (int64_t)offers_max(broker->offers),
                        .dispatched = broker->dispatched,
                        .events = broker->events,
                        .rejected = broker->rejected,
                        .connections = (int64_t)counts.open,
                        .refused = broker->refused_taps + (int64_t)counts.failed,
                        .foreign = broker->foreign.count,
                        .cut = (int64_t)counts.cut},
    };
    broker_send(broker, member, &info);
}

static void on_keys(struct broker *broker, struct member *member, const struct message *message)
{
    broker_take_keys(broker, member, &message->keys); /* the member may be gone afterwards */
}

/* --- who may say what --------------------------------------------------------------------- */

enum speaker {
    NOBODY, /* not a message to a broker */
    FROM_WORKER,
    FROM_CLIENT,
    FROM_MEMBER,   /* either */
    FROM_STRANGER, /* it introduces itself */
};

#define W (1u << KEYRING_WORKER)
#define O (1u << KEYRING_ORCHESTRATOR)

/* roles: of the keys that may send it, where keys are asked for. */
static const struct {
    enum speaker speaker;
    unsigned roles;
    handler_fn *fn;
    introduction_fn *introduce; /* FROM_STRANGER */
} handlers[MESSAGE_TYPE_COUNT] = {
    [MESSAGE_hello] = {FROM_STRANGER, O, NULL, on_hello},
    [MESSAGE_ready] = {FROM_STRANGER, W, NULL, on_ready},
    [MESSAGE_credit] = {FROM_WORKER, W, on_credit, NULL},
    [MESSAGE_decline] = {FROM_WORKER, W, on_decline, NULL},
    [MESSAGE_beat] = {FROM_MEMBER, W | O, on_beat, NULL},
    [MESSAGE_bye] = {FROM_MEMBER, W | O, on_bye, NULL},
    [MESSAGE_offer] = {FROM_CLIENT, O, on_offer, NULL},
    [MESSAGE_withdraw] = {FROM_CLIENT, O, on_withdraw, NULL},
    [MESSAGE_cancel] = {FROM_CLIENT, O, on_cancel, NULL},
    [MESSAGE_drain] = {FROM_CLIENT, O, on_drain, NULL},
    [MESSAGE_status] = {FROM_CLIENT, O, on_status, NULL},
    [MESSAGE_keys] = {FROM_CLIENT, O, on_keys, NULL},
};

#undef W
#undef O

static bool may_say(const struct member *member, enum speaker speaker)
{
    return speaker == FROM_MEMBER ||
           speaker == (member->role == MEMBER_WORKER ? FROM_WORKER : FROM_CLIENT);
}

static void handle(struct broker *broker, const struct bus_peer *id, struct member *member,
                   const struct message *message)
{
    enum speaker speaker = handlers[message->type].speaker;
    char why[128];
    if (speaker == NOBODY ||
        (speaker != FROM_STRANGER && member != NULL && !may_say(member, speaker))) {
        snprintf(why, sizeof why, "%s is not for its sender to say", message_name(message->type));
        broker_reject(broker, why);
    } else if (!broker_may(broker, id, member, handlers[message->type].roles, message)) {
        return;
    } else if (speaker == FROM_STRANGER) {
        handlers[message->type].introduce(broker, id, member, message);
    } else if (member != NULL) {
        handlers[message->type].fn(broker, member, message);
    } else if (message->type != MESSAGE_bye) {
        broker_send_who(broker, id);
    }
}

void broker_handle(struct broker *broker, const struct bus_peer *id, struct member *member,
                   const uint8_t *data, size_t len)
{
    struct message message;
    if (message_decode(&message, data, len) != 0) {
        broker_reject(broker, "bytes that are no message");
        return;
    }
    FAILPOINT_OF("bus.got", message_name(message.type));
    handle(broker, id, member, &message);
    FAILPOINT_OF("bus.handled", message_name(message.type));
    message_release(&message);
}
