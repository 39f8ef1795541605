/* What the files of the broker share: its state, and how it speaks. Only for broker/. */
#ifndef BROKER_STATE_H
#define BROKER_STATE_H

#include "broker/broker.h"
#include "broker/dispatches.h"
#include "broker/members.h"
#include "broker/offers.h"
#include "broker/registry.h"
#include "broker/taps.h"
#include "common/bus.h"

#define MISSED_BEATS 3

struct broker {
    struct bus *router;
    struct bus *xpub;
    struct members members;
    struct registry registry;
    struct offers *offers;
    struct dispatches *dispatches;
    struct taps taps;
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
    int64_t due_ms;
    bool full;     /* an offer was refused and room was not announced since */
    bool any_gone; /* a member is marked as gone */
    bool told_started;
    int64_t dispatched, events, rejected;
    int64_t rejected_told, rejected_told_ms; /* as of the last line in the log */
    int64_t sequence;                        /* of the broker's own events */
    struct buf out;                          /* reused by every send */
};

/* --- handlers.c: what each message does --------------------------------------------------- */

/* One control message. member: NULL for a peer that did not introduce itself. */
void broker_handle(struct broker *broker, const struct bus_peer *id, struct member *member,
                   const uint8_t *data, size_t len);
/* Forgets a member and what hangs on it. what: "left" or "lost", for the taps. */
void broker_remove(struct broker *broker, struct member *member, const char *what,
                   const char *reason);

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
