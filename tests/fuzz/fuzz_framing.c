/* Any bytes, cut in any way, give the same events. The first byte chooses the framing, the second
 * one how the bytes are cut. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/framing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool hear(void *ctx, const char *data, size_t len)
{
    struct buf *heard = ctx;
    buf_printf(heard, "%zu:", len);
    buf_add(heard, data, len);
    return true;
}

/* Pieces of 1..limit bytes, by a generator that starts with seed. */
static void feed(enum provider_framing kind, const char *data, size_t size, size_t limit,
                 uint32_t seed, struct buf *heard)
{
    struct framing framing;
    framing_init(&framing, kind);
    for (size_t at = 0; at < size;) {
        seed = seed * 1664525 + 1013904223;
        size_t piece = 1 + (seed >> 16) % limit;
        if (piece > size - at)
            piece = size - at;
        char *copy = malloc(piece);
        memcpy(copy, data + at, piece);
        if (framing_feed(&framing, copy, piece, hear, heard) != 0)
            abort();
        free(copy);
        at += piece;
    }
    if (framing_end(&framing, hear, heard) != 0)
        abort();
    framing_release(&framing);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    enum provider_framing kind = data[0] % 2 == 0 ? PROVIDER_NDJSON : PROVIDER_SSE;
    const char *bytes = (const char *)data + 2;
    struct buf whole = {0}, cut = {0}, single = {0};
    struct framing framing;
    framing_init(&framing, kind);
    if (framing_feed(&framing, bytes, size - 2, hear, &whole) != 0 ||
        framing_end(&framing, hear, &whole) != 0)
        abort();
    framing_release(&framing);
    feed(kind, bytes, size - 2, 1 + data[1] / 4U, data[1], &cut);
    feed(kind, bytes, size - 2, 1, 0, &single);
    if (whole.len != cut.len || whole.len != single.len ||
        (whole.len > 0 && (memcmp(whole.data, cut.data, whole.len) != 0 ||
                           memcmp(whole.data, single.data, whole.len) != 0)))
        abort();
    buf_release(&whole);
    buf_release(&cut);
    buf_release(&single);
    return 0;
}
