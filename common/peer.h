/* A worker's, an orchestrator's or a tool's side of the bus: a DEALER to every broker, kept
 * introduced and alive. */
#ifndef COMMON_PEER_H
#define COMMON_PEER_H

#include "common/bus.h"
#include "common/config.h"
#include "common/loop.h"
#include "schemas/message.h"

struct peer;

struct peer_callbacks {
    /* A broker answered for the first time, or came back with a new boot: introduce yourself (a
     * worker sends ready, an orchestrator hello and then its offers). broker: 0..peer_brokers()-1.
     */
    void (*introduce)(void *ctx, int broker);
    /* A message from a broker other than who, welcome, beat and topics, which are handled inside.
     */
    void (*message)(void *ctx, int broker, const struct message *message);
    /* welcome has come (max_offers is in it). May be NULL. */
    void (*welcome)(void *ctx, int broker, const struct msg_welcome *welcome);
    /* The connection to a broker is gone, or nothing was heard of it for three of its beats. May be
     * NULL. */
    void (*lost)(void *ctx, int broker);
    /* Fills the heartbeat before it is sent. May be NULL. */
    void (*beat)(void *ctx, struct msg_beat *beat);
};

/* The keys with which `source` connects, for bus_options.keys: worker/NAME with worker-NAME.key,
 * a tap with orchestrator.key or, where that is not, the only tap-*.key; all others with
 * orchestrator.key. Wiped by the caller. Where bus.curve is not enabled there is nothing to read:
 * *ret_keys is NULL then, else it is store. 0, or what keyring_load() returns. */
int peer_keys(const struct config *config, const char *source, struct bus_keys *store,
              const struct bus_keys **ret_keys, struct err *err);

/* source: envelope src, such as "worker/ollama-0"; boot: nonce of this start; both copied. */
int peer_open(struct peer **ret, uv_loop_t *loop, const struct config *config, const char *source,
              const char *boot, const struct peer_callbacks *callbacks, void *ctx, struct err *err);
void peer_close(struct peer **peer); /* accepts NULL */

int peer_brokers(const struct peer *peer);
bool peer_connected(const struct peer *peer, int broker);
/* Fills in the envelope and sends. 0, -EAGAIN (not connected or full: the hint is lost), or what
 * message_encode() returns. */
int peer_send(struct peer *peer, int broker, struct message *message);
void peer_send_all(struct peer *peer, struct message *message);
/* Events of a task go to the broker that dispatched it of late, others to the first that is
 * connected. */
/* Whether any tap wants the topic: check before building an expensive event. */
bool peer_wanted(const struct peer *peer, const char *topic);
/* Numbers the event and sends it; drops it when no tap wants it. */
void peer_event(struct peer *peer, const char *topic, struct message *message);

#endif
