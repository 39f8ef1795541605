/* What an attempt was told to do: the claimed records, read and composed. */
#ifndef WORKERS_BRIEF_H
#define WORKERS_BRIEF_H

#include <stdint.h>

#include "common/queue.h"
#include "schemas/message.h"

struct brief {
    struct message message;    /* the record `work`; owned */
    struct buf prompt, system; /* valid UTF-8 without NUL */
};

/* Reads work and, for what is answered to a prompt, the dependencies' outcomes; texts to embed, and
 * what only lists models, are taken as they are. context: the model's window in tokens, 0: unknown.
 * 0; -ENOMEM; what message_decode() returns for a damaged record. brief_release() also after a
 * failure. */
int brief_read(struct brief *ret, const struct queue_claim *claim, int64_t context);
void brief_release(struct brief *brief);

#endif
