/* What the files of the governor share. */
#ifndef COMMON_GOVERNOR_INTERNAL_H
#define COMMON_GOVERNOR_INTERNAL_H

#include "common/containers.h"
#include "common/governor.h"
#include "common/queue_internal.h"
#include "common/redis.h"

#define GOVERNOR_KEY_NONE "-" /* stands for the key of calls that are made without one */

/* How a key is, by what this worker knows. */
#define GOVERNOR_KEY_STATES(X)                                                                     \
    X(OK, "ok")                                                                                    \
    X(LIMITED, "limited")                                                                          \
    X(QUOTA, "quota")                                                                              \
    X(AUTH, "auth")
enum governor_key_state {
#define X(constant, text) GOVERNOR_KEY_##constant,
    GOVERNOR_KEY_STATES(X)
#undef X
        GOVERNOR_KEY_STATE_COUNT
};

struct governor_key {
    char *name; /* fingerprint */
    enum governor_key_state state;
    int64_t until_ms; /* monotonic; 0: no end */
    bool told;        /* it was in the lines that are being taken over */
};

struct governor_arm {
    char *name;
    bool open;
    int64_t failures, trips;
    int64_t until_ms; /* monotonic: then a probe may start */
    bool told;
};

/* A permit that was granted and is not settled. */
struct governor_held {
    UT_hash_handle hh;
    char id[GOVERNOR_ID_SIZE];
    char *key;
    bool stored; /* by the script: it is renewed */
};

struct governor_turn;
TAILQ_HEAD(governor_turns, governor_turn);

struct governor {
    uv_loop_t *loop;
    struct redis *redis;    /* borrowed */
    struct redis *listener; /* a connection of its own, for what others see */
    struct governor_callbacks callbacks;
    void *ctx;
    char *provider, *worker;
    char *channel; /* of the database: others may have a provider of the same name */
    struct governor_limits limits, key_limits;
    int64_t breaker_failures, breaker_open_ms, window_ms, lease_ms;
    struct governor_key *keys;
    size_t n_keys, next_key; /* without keys it is one, GOVERNOR_KEY_NONE */
    struct governor_arm *arms;
    size_t n_arms;
    char nonce[17];
    uint64_t last_id;
    struct governor_held *held;    /* by id */
    struct governor_turn *filling; /* NULL: nothing to be sent */
    struct governor_turns sent;    /* without answer */
    struct loop_timer *send, *tick, *wake;
    int64_t renewed_ms;
    int64_t rate_room, calls_room; /* -1: no limit */
    int64_t room_ms;               /* monotonic: there may be more then; 0: nothing to wait for */
    int64_t version;               /* of the state below */
    bool known;                    /* the state was read once */
    bool closed;                   /* only waits for answers */
    int uses;                      /* the owner, turns without answer, callbacks under way */
};
/* One use more or less; with the last one it is freed. */
void governor_keep(struct governor *governor);
void governor_drop(struct governor *governor);

/* The script with its libraries. */
struct redis_script *governor_script(void);

/* --- turns: what is asked in one turn of the loop (governor_turn.c) --------------------------- */

/* Starts an operation of n words in the turn that is being filled; the caller adds the others. */
struct queue_args *governor_turn_add(struct governor *governor, int n, const char *operation);
/* Adds an acquire of that id. */
void governor_turn_acquire(struct governor *governor, const char *id, const char *arm,
                           int64_t tokens, governor_fn *fn, void *ctx);
/* Asks for nothing but the state. */
void governor_turn_read(struct governor *governor);
void governor_turns_forget(struct governor *governor, void *ctx);
/* Tells those whose answer is overdue to wait. */
void governor_turns_expire(struct governor *governor);
/* Sends what was added; a loop_timer_fn. */
void governor_turn_send(void *governor);

/* --- state: what is known of arms and keys (governor_state.c) --------------------------------- */

int governor_listen(struct governor *governor, struct queue *queue, struct err *err);
/* Takes over all lines, or (all false) those that changed. Lines: "k state ms key",
 * "a state failures trips ms class arm". */
void governor_state_apply(struct governor *governor, int64_t version, bool all,
                          const struct queue_word *lines, size_t n_lines);
/* Ends what is over by now. */
void governor_state_expire(void *governor);
struct governor_arm *governor_arm(const struct governor *governor, const char *name);
/* The place of a key in the pool; n_keys: it is not there. */
size_t governor_key_place(const struct governor *governor, const char *name);
void governor_keys_replace(struct governor *governor, const char *const *keys, size_t n_keys);
/* Whether calls of the arm need not ask Redis, by what is known. */
bool governor_normal(const struct governor *governor, const char *arm);
/* ms until a key can be used, by what is known; 0: one can. */
int64_t governor_keys_ms(const struct governor *governor);

/* --- permits (governor.c) --------------------------------------------------------------------- */

struct governor_held *governor_hold(struct governor *governor, const char *id, const char *key,
                                    bool stored);
/* The call that it was for will not be made. */
void governor_give_back(struct governor *governor, const char *id, const char *key);
bool governor_limited(const struct governor *governor); /* whether there is any limit */
void governor_tick(struct governor *governor);          /* sees to it that the timer runs */

#endif
