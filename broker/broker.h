/* The broker: matches offers with workers and spreads events to taps. It holds nothing that
 * matters: it may be killed and started again at any time. Start reading here, then handlers.c. */
#ifndef BROKER_BROKER_H
#define BROKER_BROKER_H

#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"

struct broker;

struct broker_options {
    const char *endpoint; /* of the ROUTER; borrowed during open */
    const char *taps;     /* of the XPUB */
    int64_t beat_ms;      /* heartbeat interval; three missed = gone. 0: 1,000 */
    int64_t max_offers;   /* most offers held. 0: 10,000 */
    /* Directory of keys (keyring.h) for endpoints on tcp; NULL: nobody is asked for a key. */
    const char *keys;
    int64_t max_rate; /* messages per second of one peer; who sends more is cut off. 0: 50,000 */
    int64_t introduce_ms; /* a peer that has not introduced itself by then is cut off. 0: 15,000 */
    size_t max_connections; /* at once; more are closed. 0: by the limit of descriptors */
};

/* Serves from the loop as soon as it returns; with keys it runs the loop until it has seen that
 * strangers are kept out. 0, or with a sentence: what bus_open(), keyring_load() and
 * bus_self_test() return. */
int broker_open(struct broker **ret, uv_loop_t *loop, const struct broker_options *options,
                struct err *err);
/* Says broker.stopping to the taps and ends. Accepts NULL. */
void broker_close(struct broker **broker);

#endif
