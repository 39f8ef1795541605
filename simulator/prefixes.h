/* The prompts' beginnings that were seen lately, as a provider's prompt cache would have them. */
#ifndef SIMULATOR_PREFIXES_H
#define SIMULATOR_PREFIXES_H

#include <stddef.h>
#include <stdint.h>

#include "schemas/buf.h"

#define SIM_PREFIXES_BLOCK 512  /* bytes: a prefix is known in steps of 128 tokens */
#define SIM_PREFIXES_LEAST 4096 /* bytes: shorter ones are not cached, as with real providers */

struct sim_prefixes;

struct sim_prefixes *sim_prefixes_new(void);
void sim_prefixes_free(struct sim_prefixes **prefixes); /* accepts NULL */
void sim_prefixes_reset(struct sim_prefixes *prefixes);
/* How many bytes at the beginning of system and prompt, asked of that model, were seen before; they
 * are remembered from now on. ret_new: how many more bytes the cache holds now. */
size_t sim_prefixes_seen(struct sim_prefixes *prefixes, const char *model, const struct buf *system,
                         const struct buf *prompt, size_t *ret_new);

#endif
