/* The response cache: answers by the hash of the request, in Redis, shared by all workers. Equal
 * calls in flight are joined: the second one waits for the answer of the first. */
#ifndef COMMON_ANSWER_CACHE_H
#define COMMON_ANSWER_CACHE_H

#include <stdint.h>

#include "common/loop.h"
#include "common/queue.h"

#define ANSWER_KEY_SIZE 65             /* hex digits of a SHA-256 and NUL */
#define ANSWER_MAX_BYTES (1024 * 1024) /* a larger answer is not kept */

struct answer_cache;

struct answer_cache_options {
    int64_t ttl_s;
    int64_t max_bytes; /* of all answers */
    int64_t flight_ms; /* a call in flight is joined for so long after its last sign of life */
};
/* queue: its connection is used, and must outlive it. */
struct answer_cache *answer_cache_new(uv_loop_t *loop, struct queue *queue,
                                      const struct answer_cache_options *options);
void answer_cache_free(struct answer_cache **cache); /* accepts NULL; no callback comes any more */

enum answer_status {
    ANSWER_HIT,  /* answer is set */
    ANSWER_MISS, /* make the call; then store or give up: others may wait for it */
};
/* Valid during the call. A cache that cannot be asked is a MISS. */
typedef void answer_fn(void *ctx, enum answer_status status, struct bytes answer);
/* key: ANSWER_KEY_SIZE - 1 hex digits. owner: unique for this attempt. Waits while an equal call is
 * in flight elsewhere. */
void answer_cache_get(struct answer_cache *cache, const char *key, const char *owner, answer_fn *fn,
                      void *ctx);
/* Forgets the callback of what was asked with this ctx. */
void answer_cache_forget(struct answer_cache *cache, void *ctx);
/* After a MISS: keeps the answer, and lets those who wait have it. */
void answer_cache_store(struct answer_cache *cache, const char *key, const char *owner,
                        struct bytes answer);
/* After a MISS: there is no answer; one of those who wait makes the call. */
void answer_cache_give_up(struct answer_cache *cache, const char *key, const char *owner);

#endif
