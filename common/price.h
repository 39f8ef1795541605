/* What a call costs by a model's prices, and what it can cost at most. */
#ifndef COMMON_PRICE_H
#define COMMON_PRICE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"

/* Tokens of a call; -1: unknown, counted as none. */
struct price_usage {
    int64_t prompt;      /* all of them, cached and written ones included */
    int64_t cached;      /* read from the provider's cache */
    int64_t cache_write; /* written to it */
    int64_t output;      /* reasoning included */
};

/* The price that counts at the time (Unix epoch, ms) for a prompt of so many tokens; NULL: none is
 * known. Borrowed from the model. */
const struct config_price *price_at(const struct config_model *model, int64_t wall_ms,
                                    int64_t prompt_tokens);
/* In 1e-9 USD, rounded up; 0 when no price is known. */
int64_t price_nano_usd(const struct config_model *model, int64_t wall_ms,
                       const struct price_usage *usage);
/* The most that a call can cost with a prompt of at most so many tokens and so long an answer: the
 * dearest of all bands and kinds of prompt tokens that may apply until a day from then. */
int64_t price_worst_nano_usd(const struct config_model *model, int64_t wall_ms,
                             int64_t prompt_tokens, int64_t output_tokens);

#endif
