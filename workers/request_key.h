/* The name of a call in the response cache: equal for calls that ask for the same. */
#ifndef WORKERS_REQUEST_KEY_H
#define WORKERS_REQUEST_KEY_H

#include "common/answer_cache.h"
#include "common/config.h"
#include "workers/provider.h"

/* SHA-256, in hex, of everything that decides the answer: each part is hashed with its length, so
 * that no two calls are written down alike. What only says how the answer travels or where it is
 * paid (key, stream, keep_alive) is not part of it.
 * search: of the search-augmented provider; NULL: none. */
void request_key(const struct provider *provider, const struct provider_call *call,
                 const struct config_provider *search, char ret[ANSWER_KEY_SIZE]);

#endif
