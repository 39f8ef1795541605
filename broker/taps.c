#include "broker/taps.h"

#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "schemas/mem.h"

struct tap_prefix {
    UT_hash_handle hh;
    size_t len;
    char text[TOPIC_MAX_BYTES + 1];
};

static void remove_prefix(struct taps *taps, struct tap_prefix *prefix)
{
    HASH_DEL(taps->prefixes, prefix);
    free(prefix);
}

void taps_release(struct taps *taps)
{
    struct tap_prefix *prefix, *next;
    HASH_ITER (hh, taps->prefixes, prefix, next)
        remove_prefix(taps, prefix);
}

static bool add(struct taps *taps, const void *text, size_t len)
{
    if (HASH_COUNT(taps->prefixes) >= TAPS_KEPT_MAX) {
        taps->overflowed = true;
        return true;
    }
    struct tap_prefix *prefix = mem_must_zalloc(sizeof *prefix);
    memcpy(prefix->text, text, len);
    prefix->len = len;
    HASH_ADD(hh, taps->prefixes, text, len, prefix);
    return true;
}

bool taps_frame(struct taps *taps, const uint8_t *data, size_t len)
{
    /* A longer prefix, or one with a NUL, is a prefix of no topic. */
    if (len == 0 || data[0] > 1 || len - 1 > TOPIC_MAX_BYTES || memchr(data + 1, 0, len - 1))
        return false;
    struct tap_prefix *known;
    HASH_FIND(hh, taps->prefixes, data + 1, len - 1, known);
    if ((known != NULL) == (data[0] == 1))
        return false;
    if (data[0] == 1)
        return add(taps, data + 1, len - 1);
    remove_prefix(taps, known);
    if (taps->prefixes == NULL)
        taps->overflowed = false;
    return true;
}

bool taps_want(const struct taps *taps, const char *topic)
{
    for (const struct tap_prefix *at = taps->prefixes; at != NULL; at = at->hh.next)
        if (strncmp(topic, at->text, at->len) == 0)
            return true;
    return taps->overflowed;
}

void taps_fill(struct taps *taps, struct msg_topics *ret)
{
    *ret = (struct msg_topics){.all = taps->overflowed};
    for (struct tap_prefix *at = taps->prefixes; at != NULL; at = at->hh.next) {
        if (at->len == 0 || ret->n_prefixes == TAPS_LISTED_MAX)
            ret->all = true;
        if (ret->all)
            break;
        taps->listed[ret->n_prefixes++] = at->text;
    }
    ret->prefixes = taps->listed;
    if (ret->all)
        ret->n_prefixes = 0;
}
