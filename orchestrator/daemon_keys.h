/* Tells brokers whose invited keys are good, and Redis who has come. */
#ifndef ORCHESTRATOR_DAEMON_KEYS_H
#define ORCHESTRATOR_DAEMON_KEYS_H

#include "common/config.h"
#include "common/loop.h"
#include "common/peer.h"
#include "common/queue.h"

struct daemon_keys;

/* Looks for changes twice a second. queue and peer are borrowed. NULL where the bus asks nobody for
 * a key. */
struct daemon_keys *daemon_keys_new(uv_loop_t *loop, const struct config *config,
                                    struct queue *queue, struct peer *peer);
/* When the queue is closed: its last answers come here. Accepts NULL. */
void daemon_keys_free(struct daemon_keys **keys);
/* A broker has welcomed us: it may have been away. keys may be NULL, here and below. */
void daemon_keys_welcome(struct daemon_keys *keys, int broker);
/* A broker has told who came. */
void daemon_keys_admitted(struct daemon_keys *keys, const struct msg_admitted *admitted);
/* While Redis is not the one that it should be, nothing of it is believed. */
void daemon_keys_doubt(struct daemon_keys *keys, bool foreign);

#endif
