#include "tests/lib/net_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"

#define REORDER_US 5000
#define FLOWS 4096 /* TCP connections opened on half-open ways; the oldest is forgotten */
#define SETTING_MAX 1e6

struct packet {
    int64_t due_us;
    uint64_t sequence; /* among those that are due at once */
    int from, to;
    size_t len;
    char bytes[];
};

struct way {
    struct wire_rule rule;
    struct wire_counts counts;
    int64_t free_us, last_us; /* the line is idle again; the last packet in order arrives */
    size_t queued_bytes;
};

/* A TCP connection, the same seen from both ends. */
struct flow {
    uint32_t address[2];
    uint16_t port[2];
};

struct wires {
    int hosts;
    uint64_t random, sequence;
    struct way ways[WIRE_HOSTS][WIRE_HOSTS];
    struct packet **heap; /* by due time */
    size_t n, room;
    struct flow fresh[FLOWS]; /* opened since a way became half-open */
    size_t n_fresh;
};

static const struct {
    const char *name;
    size_t offset;
} settings[] = {
#define X(name, unit) {#name, offsetof(struct wire_rule, name)},
    WIRE_SETTINGS(X)
#undef X
};

struct wires *wires_new(int hosts, uint64_t seed)
{
    struct wires *wires = mem_must_zalloc(sizeof *wires);
    wires->hosts = hosts;
    wires->random = seed * 2 + 1;
    return wires;
}

void wires_free(struct wires **wires_ptr)
{
    struct wires *wires = *wires_ptr;
    *wires_ptr = NULL;
    if (wires == NULL)
        return;
    while (wires->n > 0)
        free(wires->heap[--wires->n]);
    free(wires->heap);
    free(wires);
}

int wires_set(struct wires *wires, int from, int to, const char *name, double value)
{
    if (!(value >= 0 && value <= SETTING_MAX))
        return -ERANGE;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        if (strcmp(settings[i].name, name) != 0)
            continue;
        struct wire_rule *rule = &wires->ways[from][to].rule;
        memcpy((char *)rule + settings[i].offset, &value, sizeof value);
        if (strcmp(name, "halfopen") == 0)
            wires->n_fresh = 0;
        return 0;
    }
    return -ENOENT;
}

void wires_heal(struct wires *wires)
{
    for (int from = 0; from < wires->hosts; from++)
        for (int to = 0; to < wires->hosts; to++)
            wires->ways[from][to].rule = (struct wire_rule){0};
}

struct wire_counts wires_counts(const struct wires *wires, int from, int to)
{
    return wires->ways[from][to].counts;
}

/* --- chance ----------------------------------------------------------------------------------- */

/* 0 to below 1; xorshift64*. */
static double chance(struct wires *wires)
{
    wires->random ^= wires->random >> 12;
    wires->random ^= wires->random << 25;
    wires->random ^= wires->random >> 27;
    return (double)((wires->random * 0x2545f4914f6cdd1dULL) >> 11) / 9007199254740992.0;
}

/* Nothing is drawn for what is off, so that a setting does not change the course of another. */
static bool happens(struct wires *wires, double percent)
{
    return percent > 0 && chance(wires) * 100 < percent;
}

/* --- half-open connections -------------------------------------------------------------------- */

/* False: no TCP over IPv4, or cut short. */
static bool read_flow(const unsigned char *at, size_t len, struct flow *ret, bool *ret_opens)
{
    size_t header = len >= 20 ? (size_t)(at[0] & 15) * 4 : 0;
    if (len < 20 || at[0] >> 4 != 4 || at[9] != 6 || len < header + 20)
        return false;
    struct flow flow;
    memcpy(flow.address, at + 12, sizeof flow.address);
    memcpy(flow.port, at + header, sizeof flow.port);
    bool swap = flow.address[0] > flow.address[1] ||
                (flow.address[0] == flow.address[1] && flow.port[0] > flow.port[1]);
    *ret = flow;
    if (swap)
        *ret = (struct flow){{flow.address[1], flow.address[0]}, {flow.port[1], flow.port[0]}};
    *ret_opens = (at[header + 13] & 0x12) == 0x02; /* SYN without ACK */
    return true;
}

static bool is_fresh(const struct wires *wires, const struct flow *flow)
{
    size_t n = wires->n_fresh < FLOWS ? wires->n_fresh : FLOWS;
    for (size_t i = 0; i < n; i++)
        if (memcmp(&wires->fresh[i], flow, sizeof *flow) == 0)
            return true;
    return false;
}

/* Whether it belongs to a connection that is as good as gone. */
static bool is_stale(struct wires *wires, const void *packet, size_t len)
{
    struct flow flow;
    bool opens;
    if (!read_flow(packet, len, &flow, &opens) || is_fresh(wires, &flow))
        return false;
    if (!opens)
        return true;
    wires->fresh[wires->n_fresh++ % FLOWS] = flow;
    return false;
}

/* --- the heap --------------------------------------------------------------------------------- */

static bool is_before(const struct packet *a, const struct packet *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->sequence < b->sequence;
}

static void push(struct wires *wires, struct packet *packet)
{
    if (wires->n == wires->room) {
        wires->room = wires->room * 2 + 64;
        wires->heap = mem_must_realloc(wires->heap, wires->room * sizeof(struct packet *));
    }
    size_t at = wires->n++;
    while (at > 0 && is_before(packet, wires->heap[(at - 1) / 2])) {
        wires->heap[at] = wires->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    wires->heap[at] = packet;
}

static struct packet *pop(struct wires *wires)
{
    struct packet *first = wires->heap[0], *last = wires->heap[--wires->n];
    size_t at = 0;
    for (size_t child = 1; child < wires->n; child = at * 2 + 1) {
        if (child + 1 < wires->n && is_before(wires->heap[child + 1], wires->heap[child]))
            child++;
        if (!is_before(wires->heap[child], last))
            break;
        wires->heap[at] = wires->heap[child];
        at = child;
    }
    wires->heap[at] = last;
    return first;
}

/* --- on the way ------------------------------------------------------------------------------- */

/* When a packet that leaves now arrives. */
static int64_t arrival(struct wires *wires, struct way *way, size_t len, int64_t now_us)
{
    const struct wire_rule *rule = &way->rule;
    int64_t at_us = now_us;
    if (rule->rate > 0) { /* kbit/s: bits / rate is ms */
        if (way->free_us > at_us)
            at_us = way->free_us;
        at_us += (int64_t)((double)len * 8 * 1000 / rule->rate);
        way->free_us = at_us;
    }
    double delay_ms = rule->delay;
    if (rule->jitter > 0)
        delay_ms += (chance(wires) * 2 - 1) * rule->jitter;
    at_us += delay_ms > 0 ? (int64_t)(delay_ms * 1000) : 0;
    if (at_us < way->last_us)
        at_us = way->last_us;
    if (happens(wires, rule->reorder)) {
        way->counts.reordered++;
        return at_us + REORDER_US;
    }
    way->last_us = at_us;
    return at_us;
}

static void enqueue(struct wires *wires, int from, int to, const void *bytes, size_t len,
                    int64_t now_us)
{
    struct way *way = &wires->ways[from][to];
    if (way->queued_bytes + len > WIRE_QUEUE_BYTES) {
        way->counts.overflowed++;
        return;
    }
    struct packet *packet = mem_must_zalloc(sizeof *packet + len);
    packet->due_us = arrival(wires, way, len, now_us);
    packet->sequence = wires->sequence++;
    packet->from = from;
    packet->to = to;
    packet->len = len;
    memcpy(packet->bytes, bytes, len);
    way->queued_bytes += len;
    push(wires, packet);
}

void wires_send(struct wires *wires, int from, int to, const void *packet, size_t len,
                int64_t now_us)
{
    struct way *way = &wires->ways[from][to];
    const struct wire_rule *rule = &way->rule;
    if (len > WIRE_PACKET_BYTES)
        return;
    if (rule->cut > 0 || (rule->halfopen > 0 && is_stale(wires, packet, len))) {
        way->counts.cut++;
        return;
    }
    if (happens(wires, rule->loss)) {
        way->counts.lost++;
        return;
    }
    bool twice = happens(wires, rule->dup);
    way->counts.doubled += twice;
    for (int i = 0; i <= twice; i++)
        enqueue(wires, from, to, packet, len, now_us);
}

int64_t wires_due_us(const struct wires *wires)
{
    return wires->n > 0 ? wires->heap[0]->due_us : -1;
}

size_t wires_take(struct wires *wires, int64_t now_us, int *ret_to, void *ret_packet)
{
    if (wires->n == 0 || wires->heap[0]->due_us > now_us)
        return 0;
    struct packet *packet = pop(wires);
    struct way *way = &wires->ways[packet->from][packet->to];
    size_t len = packet->len;
    way->queued_bytes -= len;
    way->counts.passed++;
    *ret_to = packet->to;
    memcpy(ret_packet, packet->bytes, len);
    free(packet);
    return len;
}
