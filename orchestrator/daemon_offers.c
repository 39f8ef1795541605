/* Offers on their way from the flow to a broker. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/daemon_state.h"

int daemon_route(struct daemon *daemon, const struct flow_action *action, struct message *meta,
                 struct route *ret, struct err *err)
{
    if (message_decode_as(meta, MESSAGE_meta, action->meta.data, action->meta.len) != 0) {
        *meta = (struct message){.type = MESSAGE_meta,
                                 .meta = {.kind = "", .role = "", .model = "", .title = ""}};
        log_warn("subtask %s of task %s has a damaged meta record: it is offered by the default "
                 "role",
                 action->sub, action->task);
    }
    struct route_ask ask = {.meta = &meta->meta,
                            .avoid = action->avoid,
                            .error_class = action->error_class,
                            .running = action->running,
                            .wall_ms = clock_wall_ms()};
    return route_arms(daemon->config, &ask, ret, err);
}

static void write_decision(struct daemon *daemon, const struct flow_action *action,
                           const struct route *route)
{
    struct buf text = {0};
    if (route->n_arms < 2)
        return; /* nothing was decided */
    for (size_t i = 0; i < route->n_arms && text.len < 1000; i++)
        buf_printf(&text, "%s%s:%" PRId64, i > 0 ? " " : "", route->arms[i], route->after_ms[i]);
    store_writer_decision(daemon->store, action->task, action->sub,
                          action->attempt + (action->hedge ? 2 : 1), text.data);
    buf_release(&text);
}

static enum flow_event_kind refusal_of(const struct flow_action *action, int rc)
{
    if (action->hedge)
        return FLOW_EVENT_UNHEDGED;
    return rc == -ENOENT ? FLOW_EVENT_UNROUTABLE : FLOW_EVENT_EXHAUSTED;
}

struct refusal daemon_offer(struct daemon *daemon, const struct flow_action *action)
{
    struct refusal refusal = {.kind = DAEMON_NO_REFUSAL};
    struct message meta, offer = {.type = MESSAGE_offer};
    struct route route;
    struct err err;
    int rc = daemon_route(daemon, action, &meta, &route, &err);
    if (rc != 0) {
        refusal.kind = refusal_of(action, rc);
        if (rc != -ENODATA) /* of which the last failure tells more */
            snprintf(refusal.reason, sizeof refusal.reason, "%.255s", err.text);
        message_release(&meta);
        return refusal;
    }
    offer.offer = (struct msg_offer){.task = action->task,
                                     .sub = action->sub,
                                     .shard = action->shard,
                                     .priority = action->priority,
                                     .arms = route.arms,
                                     .n_arms = route.n_arms,
                                     .after_ms = route.after_ms,
                                     .n_after_ms = route.n_arms,
                                     .hedge = action->hedge};
    if (peer_send(daemon->peer, action->broker, &offer) != 0)
        refusal.kind = FLOW_EVENT_UNSENT;
    else
        write_decision(daemon, action, &route);
    message_release(&meta);
    return refusal;
}

void daemon_withdraw(struct daemon *daemon, const struct flow_action *action)
{
    struct message message = {.type = MESSAGE_withdraw,
                              .withdraw = {.task = action->task, .sub = action->sub}};
    peer_send(daemon->peer, action->broker, &message);
}

void daemon_cancel(struct daemon *daemon, const struct flow_action *action)
{
    struct message message = {.type = MESSAGE_cancel,
                              .cancel = {.task = action->task, .sub = action->sub}};
    peer_send_all(daemon->peer, &message);
}
