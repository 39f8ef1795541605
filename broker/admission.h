/* Who may connect to this broker, who came, and who was sent away of late. */
#ifndef BROKER_ADMISSION_H
#define BROKER_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bus.h"
#include "common/containers.h"
#include "common/keyring.h"

/* How long an unknown key waits for its answer after the start, rather than being refused:
 * orchestrators have not told yet who was invited. */
#define ADMISSION_LATER_MS 5000
#define ADMISSION_BAN_MS 10000 /* for a key whose peer was expelled */
#define ADMISSION_BANS_MAX 4096
#define ADMISSION_LOOK_MS 1000 /* between looks at the directory */
#define ADMISSION_READ_MS                                                                          \
    60000 /* it is read at the latest then: a file may have changed inside                         \
           */

struct admission_mark;

struct admission {
    struct keyring *keyring;         /* NULL: nobody is asked for a key */
    char *dir;                       /* of keys; owned */
    int64_t looked_ms, read_ms;      /* when it was looked at, and read */
    int64_t stamp;                   /* of its files when it was read */
    struct keyring_pair pair;        /* the brokers' */
    struct admission_mark *admitted; /* keys that came in since the start, and are known still */
    struct admission_mark *tapping;  /* keys that came to the taps since those were opened */
    struct admission_mark *banned;
    int64_t started_ms;
    bool told; /* an orchestrator has told who was invited */
};

/* Reads the brokers' pair and who may connect from the directory; NULL: no keys at all. 0, or what
 * keyring_load() returns. */
int admission_open(struct admission *admission, const char *dir, int64_t now_ms, struct err *err);
void admission_release(struct admission *admission); /* wipes the secret key */

/* Whether the key may come to the taps (or else to the ROUTER) now. *ret_first: it is admitted for
 * the first time. */
enum bus_answer admission_answer(struct admission *admission, const char *public_key, bool taps,
                                 int64_t now_ms, bool *ret_first);
/* Who proved to have that key; NULL: nobody that may be here. Only with a keyring. */
const struct keyring_entry *admission_find(const struct admission *admission,
                                           const char *public_key);
/* The keys that came in since the start and are known still; the caller frees the list alone. */
const char **admission_admitted(const struct admission *admission, size_t *ret_n);

/* Takes over what an orchestrator told; returns how many lines were damaged. */
size_t admission_replace(struct admission *admission, const char *const *lines, size_t n);
/* Reads the files again if they have changed, at most once a second; whether they had. */
bool admission_refresh(struct admission *admission, int64_t now_ms);
/* After either: forgets who may not be here any more. True: one of them came to the taps. */
bool admission_revise(struct admission *admission);
/* The taps were opened anew: nobody is there. */
void admission_forget_taps(struct admission *admission);
/* The key is refused for a while. */
void admission_ban(struct admission *admission, const char *public_key, int64_t now_ms);

#endif
