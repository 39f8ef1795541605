#include "simulator/prefixes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"
#include "simulator/request.h"

#define SLOTS 65536 /* a newer prefix takes the slot of an older one */

struct sim_prefixes {
    uint64_t slots[SLOTS]; /* hashes; 0: none */
};

struct sim_prefixes *sim_prefixes_new(void)
{
    return mem_must_zalloc(sizeof(struct sim_prefixes));
}

void sim_prefixes_free(struct sim_prefixes **prefixes)
{
    free(*prefixes);
    *prefixes = NULL;
}

void sim_prefixes_reset(struct sim_prefixes *prefixes)
{
    memset(prefixes->slots, 0, sizeof prefixes->slots);
}

static bool remember(struct sim_prefixes *prefixes, uint64_t hash)
{
    uint64_t *slot = &prefixes->slots[hash % SLOTS];
    bool known = *slot == hash;
    *slot = hash;
    return known;
}

/* The hash goes on from text to text; whole blocks are looked up as they fill. */
struct walk {
    struct sim_prefixes *prefixes;
    uint64_t hash;
    size_t bytes, seen;
    bool broken; /* a block was new: what follows is, too */
};

static void walk_text(struct walk *walk, const char *text, size_t len)
{
    while (len > 0) {
        size_t room = SIM_PREFIXES_BLOCK - walk->bytes % SIM_PREFIXES_BLOCK;
        size_t n = len < room ? len : room;
        walk->hash = sim_hash(text, n, walk->hash);
        walk->bytes += n;
        text += n;
        len -= n;
        if (walk->bytes % SIM_PREFIXES_BLOCK != 0)
            return;
        if (!remember(walk->prefixes, walk->hash))
            walk->broken = true;
        if (!walk->broken)
            walk->seen = walk->bytes;
    }
}

size_t sim_prefixes_seen(struct sim_prefixes *prefixes, const char *model, const struct buf *system,
                         const struct buf *prompt, size_t *ret_new)
{
    *ret_new = 0;
    if (system->len + prompt->len < SIM_PREFIXES_LEAST)
        return 0;
    struct walk walk = {.prefixes = prefixes,
                        .hash = sim_hash(model, strlen(model) + 1, SIM_HASH_SEED)};
    if (system->len > 0)
        walk_text(&walk, system->data, system->len);
    if (prompt->len > 0)
        walk_text(&walk, prompt->data, prompt->len);
    if (walk.seen < SIM_PREFIXES_LEAST)
        walk.seen = 0;
    *ret_new = walk.bytes / SIM_PREFIXES_BLOCK * SIM_PREFIXES_BLOCK - walk.seen;
    return walk.seen;
}
