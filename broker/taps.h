/* Which events somebody listens to: the subscriptions of all taps. */
#ifndef BROKER_TAPS_H
#define BROKER_TAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schemas/message.h"

#define TAPS_LISTED_MAX 64 /* more prefixes than that are announced as "all" */
#define TAPS_KEPT_MAX 4096 /* more than that are not remembered: everything counts as wanted */

struct tap_prefix;

struct taps {
    struct tap_prefix *prefixes;
    bool overflowed;                     /* until the last prefix goes */
    const char *listed[TAPS_LISTED_MAX]; /* what taps_fill() pointed into a message */
};

void taps_release(struct taps *taps);
/* A frame of an XPUB socket: 1 or 0, then a prefix; zmq reports the first tap and the last one of
 * each prefix. True when it changed what taps_fill() says. Other frames are ignored. */
bool taps_frame(struct taps *taps, const uint8_t *data, size_t len);
bool taps_want(const struct taps *taps, const char *topic);
/* The announcement; it points into taps. */
void taps_fill(struct taps *taps, struct msg_topics *ret);

#endif
