/* The keys that were invited to connect to brokers: Redis is the truth, orchestrators tell brokers.
 */
#ifndef COMMON_QUEUE_KEYS_H
#define COMMON_QUEUE_KEYS_H

#include "common/keyring.h"
#include "common/queue.h"

#define QUEUE_KEYS_KEY "orch:{d}:keys" /* HASH, name -> `ROLE PUBLIC-KEY EXPIRES-MS JOINED` */
#define QUEUE_KEYS_CHANGES_KEY "orch:{d}:keys-changes" /* a number that grows with each change */

struct queue_key {
    const char *name;
    enum keyring_role role;
    char public_key[KEYRING_KEY_SIZE];
    int64_t expires_ms; /* Unix epoch: until then it must have joined; 0: it need not */
    bool joined;        /* it was seen at a broker */
};

/* Names a key; one that had the name is replaced. The caller has checked name and key (keyring.h).
 * OK. */
void queue_keys_put(struct queue *queue, const char *name, enum keyring_role role,
                    const char *public_key, int64_t expires_ms, queue_fn *fn, void *ctx);
/* Brokers shut it out within a second. OK, GONE (there is none of that name). */
void queue_keys_remove(struct queue *queue, const char *name, queue_fn *fn, void *ctx);
/* It was seen: it does not expire any more. OK, DUP, GONE (the name has no key, or another one). */
void queue_keys_joined(struct queue *queue, const char *name, const char *public_key, queue_fn *fn,
                       void *ctx);

/* All of them, by name; also those that have expired. Damaged fields are skipped and told in err,
 * with n > 0 or not; keys is NULL when Redis did not answer. */
typedef void queue_keys_fn(void *ctx, const struct queue_key *keys, size_t n, const char *err);
void queue_keys_list(struct queue *queue, queue_keys_fn *fn, void *ctx);
/* Whether it never joined and its time is over, at that wall clock. */
bool queue_key_expired(const struct queue_key *key, int64_t wall_ms);
/* Number of changes so far; -1: Redis did not answer. */
typedef void queue_changes_fn(void *ctx, int64_t changes);
void queue_keys_changes(struct queue *queue, queue_changes_fn *fn, void *ctx);

#endif
