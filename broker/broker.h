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
};

/* Serves from the loop as soon as it returns. 0, or what bus_open() returns, with a sentence. */
int broker_open(struct broker **ret, uv_loop_t *loop, const struct broker_options *options,
                struct err *err);
/* Says broker.stopping to the taps and ends. Accepts NULL. */
void broker_close(struct broker **broker);

#endif
