/* What a provider allows, shared by all workers on all machines through Redis: requests and tokens
 * per minute and calls at once, of the provider and of each key; keys that are out; and a circuit
 * breaker for each arm. One script decides, by Redis's clock.
 *
 * A worker acquires a permit for a dispatch before it claims, and settles it when the call is over.
 * Without limits, and while every key and breaker is fine, permits cost nothing: they are granted
 * here without asking Redis. */
#ifndef COMMON_GOVERNOR_H
#define COMMON_GOVERNOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"
#include "common/queue.h"
#include "schemas/error_class.h"

#define GOVERNOR_ID_SIZE 48

struct governor;

struct governor_limits {         /* 0: none */
    int64_t requests_per_minute; /* in any 60 s, the moment of the permit counts */
    int64_t tokens_per_minute;
    int64_t concurrency;
};

/* Something that others should hear of. */
enum governor_change {
    GOVERNOR_ARM_OPEN,   /* its breaker opened: text says why and for how long */
    GOVERNOR_ARM_CLOSED, /* its probe went well */
    GOVERNOR_KEY_OUT,    /* auth or quota: the key is out of the pool */
    GOVERNOR_KEY_BACK,
};
struct governor_callbacks {
    /* what: the arm, or the fingerprint of the key. Told in each worker of the provider, also for
     * what another one saw. */
    void (*change)(void *ctx, enum governor_change change, const char *what, const char *text);
};

/* Everything is copied. */
struct governor_options {
    const char *provider; /* name in the config: what the limits are shared by */
    const char *worker;   /* names the holders of permits */
    struct governor_limits limits, key_limits;
    const char *const *keys; /* fingerprints, never keys; n_keys 0: calls are made without one */
    size_t n_keys;
    const char *const *arms;
    size_t n_arms;
    int64_t breaker_failures; /* 0: breakers never open */
    int64_t breaker_open_ms;  /* doubled with each probe that fails, up to ten times of it */
    int64_t window_ms;        /* 0: a minute; a shorter one makes tests short */
    int64_t lease_ms;         /* 0: 30 s, after which permits of a dead worker are free again */
};

/* queue: its connection to Redis is used, and must outlive it. What others see comes over a further
 * one. */
int governor_open(struct governor **ret, uv_loop_t *loop, struct queue *queue,
                  const struct governor_options *options,
                  const struct governor_callbacks *callbacks, void *ctx, struct err *err);
void governor_close(struct governor **governor); /* accepts NULL; no callback comes any more */
/* The pool was read again: other keys, and those that were out may be good now. A worker that
 * starts has read it, too. */
void governor_set_keys(struct governor *governor, const char *const *keys, size_t n_keys);

enum governor_verdict {
    GOVERNOR_GRANTED,
    GOVERNOR_WAIT,   /* a limit, or all keys that are left are blocked for a while */
    GOVERNOR_OPEN,   /* the arm's breaker is open */
    GOVERNOR_NO_KEY, /* every key of the pool is out */
};
struct governor_permit {
    enum governor_verdict verdict;
    char id[GOVERNOR_ID_SIZE]; /* GRANTED: to be settled; else "" */
    size_t key;                /* GRANTED: which key of the pool is to be used */
    int64_t delay_ms;          /* otherwise: when to ask again */
    int64_t room;              /* calls that could start now besides; INT64_MAX: no limit */
    const char *reason;        /* for people: which limit; "" */
};
/* Valid during the call, which may come before governor_acquire() returns. When Redis cannot be
 * asked the verdict is WAIT. */
typedef void governor_fn(void *ctx, const struct governor_permit *permit);

/* tokens: what the call will use, as far as it is known; 0: what calls of this provider have used
 * on average. */
void governor_acquire(struct governor *governor, const char *arm, int64_t tokens, governor_fn *fn,
                      void *ctx);
/* Forgets the callback of what was acquired with this ctx; what is granted meanwhile is given back.
 */
void governor_forget(struct governor *governor, void *ctx);

/* What a server says of its limits in the headers of an answer; -1: it doesn't. */
struct governor_server {
    int64_t limit_requests, remaining_requests, reset_requests_ms; /* reset: from now */
    int64_t limit_tokens, remaining_tokens, reset_tokens_ms;
};
struct governor_report {
    enum error_class class_; /* CLASS_NONE: the call went well */
    bool called;             /* false: no call was made, the permit is given back whole */
    int64_t tokens;          /* used; -1: not known */
    int64_t retry_after_ms;  /* the server's own delay; -1: none */
    struct governor_server server;
};
/* The call is over; a second time changes nothing. auth takes the key out of the pool until
 * governor_set_keys(); quota likewise, for retry_after_ms or an hour; rate_limited blocks the key
 * for retry_after_ms; overloaded and timeout count for the arm's breaker. permit: as it was
 * granted. */
void governor_settle(struct governor *governor, const struct governor_permit *permit,
                     const char *arm, const struct governor_report *report);

/* Whether the pool has a key besides this one (a fingerprint) that may be used now, by what this
 * worker knows. */
bool governor_has_other_key(const struct governor *governor, const char *key);
/* Whether the arm's breaker is open now, by what this worker knows. */
bool governor_arm_open(const struct governor *governor, const char *arm);
/* Calls that could start now, by what this worker knows: credit beyond it would only wait.
 * INT64_MAX without limits. *ret_delay_ms: when it may be more; 0: nothing to wait for. */
int64_t governor_room(const struct governor *governor, int64_t *ret_delay_ms);

#endif
