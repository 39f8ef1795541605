#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "broker/state.h"
#include "common/clock.h"
#include "common/failpoint.h"
#include "common/log.h"

/* --- messages ----------------------------------------------------------------------------- */

static bool encode(struct broker *broker, struct message *message)
{
    message->source = broker->source;
    message->time_ms = clock_wall_ms();
    buf_clear(&broker->out);
    FAILPOINT_OF("bus.send", message_name(message->type));
    return message_encode(message, &broker->out) == 0;
}

static bool send_encoded(struct broker *broker, struct member *member)
{
    int rc = bus_send(broker->router, &member->id, broker->out.data, broker->out.len);
    /* A worker whose connection is gone gets nothing more; one that lives comes back by itself. An
     * orchestrator's offers stay good for as long as it may be coming back. */
    if (rc == -EHOSTUNREACH && member->role == MEMBER_WORKER)
        member->gone = broker->any_gone = true;
    return rc == 0;
}

bool broker_send(struct broker *broker, struct member *member, struct message *message)
{
    return encode(broker, message) && send_encoded(broker, member);
}

void broker_send_workers(struct broker *broker, struct message *message, const char *worker)
{
    if (!encode(broker, message))
        return;
    struct worker *at;
    TAILQ_FOREACH (at, &broker->registry.workers, entry)
        if (at->member != NULL && (worker[0] == '\0' || strcmp(at->name, worker) == 0))
            send_encoded(broker, at->member);
}

void broker_send_orchestrators(struct broker *broker, struct message *message)
{
    if (!encode(broker, message))
        return;
    for (struct member *at = broker->members.by_id; at != NULL; at = at->hh.next)
        if (at->orchestrator)
            send_encoded(broker, at);
}

void broker_send_everybody(struct broker *broker, struct message *message)
{
    if (!encode(broker, message))
        return;
    for (struct member *at = broker->members.by_id; at != NULL; at = at->hh.next)
        send_encoded(broker, at);
}

void broker_send_who(struct broker *broker, const struct bus_peer *id)
{
    struct message who = {.type = MESSAGE_who, .who = {.boot = broker->boot}};
    if (encode(broker, &who))
        bus_send(broker->router, id, broker->out.data, broker->out.len);
}

void broker_send_topics(struct broker *broker, struct member *member)
{
    struct message topics = {.type = MESSAGE_topics};
    taps_fill(&broker->taps, &topics.topics);
    if (member != NULL)
        broker_send(broker, member, &topics);
    else
        broker_send_everybody(broker, &topics);
}

void broker_send_window(struct broker *broker, struct member *member,
                        const struct msg_offer *refused)
{
    struct message window = {.type = MESSAGE_window,
                             .window = {.limit = (int64_t)offers_max(broker->offers),
                                        .held = (int64_t)offers_count(broker->offers)}};
    if (refused != NULL) {
        window.window.task = refused->task;
        window.window.sub = refused->sub;
    }
    broker_send(broker, member, &window);
}

/* --- the broker's own events -------------------------------------------------------------- */

static void publish(struct broker *broker, const char *topic, struct message *event)
{
    if (broker->xpub == NULL || !taps_want(&broker->taps, topic))
        return;
    event->source = broker->source;
    event->time_ms = clock_wall_ms();
    event->sequence = broker->sequence + 1;
    buf_clear(&broker->out);
    if (event_encode(topic, event, &broker->out) != 0)
        return;
    broker->sequence++;
    broker->events++;
    bus_send(broker->xpub, NULL, broker->out.data, broker->out.len);
}

void broker_tell(struct broker *broker, const char *what, const char *text)
{
    char topic[TOPIC_MAX_BYTES];
    struct message event = {.type = MESSAGE_broker_event,
                            .broker_event = {.name = broker->host, .what = what, .text = text}};
    snprintf(topic, sizeof topic, "broker.%s", what);
    publish(broker, topic, &event);
}

void broker_tell_worker(struct broker *broker, const struct worker *worker, const char *what,
                        const char *text)
{
    char topic[TOPIC_MAX_BYTES];
    struct message event = {.type = MESSAGE_worker_event,
                            .worker_event = {.name = worker->name,
                                             .what = what,
                                             .provider = worker->provider,
                                             .host = worker->host,
                                             .running = worker->running,
                                             .credit = worker->credit,
                                             .text = text,
                                             .gpu = worker->gpu,
                                             .gpu_memory_used = worker->gpu_memory_used,
                                             .gpu_memory_total = worker->gpu_memory_total,
                                             .gpu_utilization = worker->gpu_utilization,
                                             .gpu_temperature = worker->gpu_temperature,
                                             .gpu_power_mw = worker->gpu_power_mw}};
    snprintf(topic, sizeof topic, "worker.%s.%s", worker->name, what);
    publish(broker, topic, &event);
}

void broker_reject(struct broker *broker, const char *why)
{
    char text[256];
    broker->rejected++;
    if (broker->rejected_told_ms != 0 && broker->now_ms - broker->rejected_told_ms < 1000)
        return;
    snprintf(text, sizeof text,
             "dropped %lld messages that were malformed or not allowed; last: %s",
             (long long)(broker->rejected - broker->rejected_told), why);
    broker->rejected_told = broker->rejected;
    broker->rejected_told_ms = broker->now_ms;
    log_warn("%s", text);
    broker_tell(broker, "rejected", text);
}
