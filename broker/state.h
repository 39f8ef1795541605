/* What the files of the broker share: its state, and how it speaks. Only for broker/. */
#ifndef BROKER_STATE_H
#define BROKER_STATE_H

#include "broker/admission.h"
#include "broker/broker.h"
#include "broker/dispatches.h"
#include "broker/members.h"
#include "broker/offers.h"
#include "broker/registry.h"
#include "broker/taps.h"
#include "common/bus.h"
#include "common/clock.h"

#define MISSED_BEATS 3
#define BROKER_BLAME_MAX                                                                           \
    100 /* messages that were rejected, over one connection, less one a beat                       \
         */

/* Something that is counted, and told at most once a second. */
struct complaint {
    int64_t count, told, told_ms;
};

struct broker {
    struct bus *router;
    struct bus *xpub;
    struct members members;
    struct registry registry;
    struct offers *offers;
    struct dispatches *dispatches;
    struct taps taps;
    struct admission admission;
    struct dispatches *seen; /* tasks by worker, for their events; NULL: no keys, or none yet */
    char *taps_endpoint;     /* owned */
    uv_loop_t *loop;
    size_t max_taps;
    int64_t max_rate;             /* messages per second of one peer */
    int64_t introduce_ms;         /* until a peer must have introduced itself */
    struct keyring_pair stranger; /* of our own test whether strangers are kept out */
    char host[129];
    char source[160]; /* broker/HOST */
    char boot[17];
    int64_t beat_ms;
    int64_t started_ms;
    int64_t ticked_ms;
    int64_t now_ms; /* of the turn: read once per frame or timer */
    struct loop_timer *beat_timer;
    struct loop_timer *due_timer;    /* set to due_ms while an offer waits for its time */
    struct loop_timer *topics_timer; /* gathers changes of subscriptions */
    struct loop_timer *reopen_timer; /* until the taps' socket is open again */
    int64_t due_ms;
    bool full;     /* an offer was refused and room was not announced since */
    bool any_gone; /* a member is marked as gone */
    bool told_started;
    int64_t dispatched, events, rejected;
    int64_t rejected_told, rejected_told_ms; /* as of the last line in the log */
    struct complaint refused, foreign, expelled;
    int64_t refused_taps; /* of the refused: at the taps */
    int64_t sequence;     /* of the broker's own events */
    struct buf out;       /* reused by every send */
};

/* --- handlers.c: what each message does --------------------------------------------------- */

/* One control message. member: NULL for a peer that did not introduce itself. */
void broker_handle(struct broker *broker, const struct bus_peer *id, struct member *member,
                   const uint8_t *data, size_t len);
/* Forgets a member and what hangs on it. what: "left" or "lost", for the taps. */
void broker_remove(struct broker *broker, struct member *member, const char *what,
                   const char *reason);

/* --- broker.c ------------------------------------------------------------------------------ */

int broker_open_taps(struct broker *broker, struct err *err);

/* --- gate.c: who gets in, what they may say, who is sent away ------------------------------- */

enum bus_answer broker_admit_peer(void *ctx, const char *public_key, const char *address);
enum bus_answer broker_admit_tap(void *ctx, const char *public_key, const char *address);
/* Whether strangers are kept out of the sockets that ask for keys. */
int broker_self_test(struct broker *broker, uv_loop_t *loop, struct err *err);
/* Answers those whose key is not known yet. */
void broker_reconsider(struct broker *broker);
/* Whether the peer's key may send this message; roles: 1 << keyring_role of those that may. What it
 * may not is counted and told. */
bool broker_may(struct broker *broker, const struct bus_peer *id, const struct member *member,
                unsigned roles, const struct message *message);
bool broker_may_publish(struct broker *broker, const struct bus_peer *id, const uint8_t *data,
                        size_t len);
/* The worker gets something of the task: it may publish events of it. */
void broker_seen(struct broker *broker, const char *task, const char *worker);
/* Counts and tells a message that its key may not send. */
void broker_foreign(struct broker *broker, const struct bus_peer *id, const char *what);
/* Ends the connection, forgets the member, and keeps the key out for a while. */
void broker_expel(struct broker *broker, const struct bus_peer *id, const char *why);
/* Something bad came from the peer; too much of it, and it is expelled. */
void broker_blame(struct broker *broker, const struct bus_peer *id, const char *why);
/* Whether the peer sends far too much; it is expelled then. */
bool broker_floods(struct broker *broker, const struct bus_peer *id);
/* Looks whether the directory of keys has changed. */
void broker_refresh_keys(struct broker *broker);
/* Timer: opens the taps again. */
void broker_try_taps(void *ctx);
/* The list of who was invited; who is not on it any more is cut off. */
void broker_take_keys(struct broker *broker, struct member *from, const struct msg_keys *keys);

/* --- send.c: messages, events and complaints ---------------------------------------------- */

/* False when it could not be sent; a worker that can't be reached is then marked as gone. */
bool broker_send(struct broker *broker, struct member *member, struct message *message);
/* The same message to all members of a role; worker: only to workers of that name; "": to all. */
void broker_send_workers(struct broker *broker, struct message *message, const char *worker);
void broker_send_orchestrators(struct broker *broker, struct message *message);
void broker_send_everybody(struct broker *broker, struct message *message);
void broker_send_who(struct broker *broker, const struct bus_peer *id);
void broker_send_topics(struct broker *broker, struct member *member);
/* refused: the offer that found no room, or NULL when there is room again. */
void broker_send_window(struct broker *broker, struct member *member,
                        const struct msg_offer *refused);

void broker_tell(struct broker *broker, const char *what, const char *text);
void broker_tell_worker(struct broker *broker, const struct worker *worker, const char *what,
                        const char *text);
/* Counts a dropped message; says so at most once a second. */
void broker_reject(struct broker *broker, const char *why);

#endif
