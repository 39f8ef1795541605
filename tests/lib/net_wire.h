/* What happens to packets between hosts: delay, loss, cuts and the like, from a seed. Pure: the
 * clock is an argument, and nothing is read or sent here. */
#ifndef TESTS_LIB_NET_WIRE_H
#define TESTS_LIB_NET_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_HOSTS 32
#define WIRE_PACKET_BYTES 2048
#define WIRE_QUEUE_BYTES                                                                           \
    ((size_t)256 * 1024) /* on the way from one host to another; the rest is lost */

/* What one direction between two hosts does; 0: nothing of the kind.
 * X(name of the setting, unit for people) */
#define WIRE_SETTINGS(X)                                                                           \
    X(delay, "ms")                                                                                 \
    X(jitter, "ms, to both sides of the delay; the order stays")                                   \
    X(loss, "percent of the packets")                                                              \
    X(dup, "percent of the packets come twice")                                                    \
    X(reorder, "percent of the packets come 5 ms later, behind those that follow")                 \
    X(rate, "kbit/s")                                                                              \
    X(cut, "1: nothing passes")                                                                    \
    X(halfopen, "1: nothing of the TCP connections that are open passes; new ones do")
struct wire_rule {
#define X(name, unit) double name;
    WIRE_SETTINGS(X)
#undef X
};

/* X(name): packets. */
#define WIRE_COUNTS(X) X(passed) X(lost) X(cut) X(doubled) X(reordered) X(overflowed)
struct wire_counts {
#define X(name) uint64_t name;
    WIRE_COUNTS(X)
#undef X
};

struct wires;

struct wires *wires_new(int hosts, uint64_t seed);
void wires_free(struct wires **wires); /* accepts NULL */

/* Sets one setting of the direction. -ENOENT: no such setting; -ERANGE: out of 0 to 1,000,000. */
int wires_set(struct wires *wires, int from, int to, const char *name, double value);
void wires_heal(struct wires *wires); /* all settings are 0 again */
struct wire_counts wires_counts(const struct wires *wires, int from, int to);

/* An IPv4 packet leaves `from` for `to`. Copied. */
void wires_send(struct wires *wires, int from, int to, const void *packet, size_t len,
                int64_t now_us);
/* When the next packet arrives; -1: none is on its way. */
int64_t wires_due_us(const struct wires *wires);
/* Takes a packet that has arrived by now; 0: none has. ret_packet: WIRE_PACKET_BYTES. */
size_t wires_take(struct wires *wires, int64_t now_us, int *ret_to, void *ret_packet);

#endif
