/* The records that an attempt leaves: its outcome, and how long every part of it took. */
#ifndef WORKERS_RECORD_H
#define WORKERS_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/task_id.h"
#include "schemas/buf.h"
#include "schemas/message.h"
#include "workers/arms.h"
#include "workers/exchange.h"

/* What is known of an attempt besides its exchange. Strings are borrowed. */
struct record_facts {
    const char *task, *sub;
    const char *kind, *role, *title;
    const struct arm *arm;
    const char *worker, *host, *provider;
    int64_t attempt;
    int64_t started_ms; /* wall clock at the claim */
    double queue_ms, claim_ms;
    double total_ms; /* claim answered until result complete */
    double limit_ms, search_ms;
    int64_t cost_nano_usd, reserved_nano_usd;
    bool cached, hedge;
    const char *key;        /* fingerprint; "": none */
    struct bytes citations; /* JSON array; len 0: none */
    const char *note;       /* "": none */
};

/* The report of an attempt that has made no call: all unknown. */
void record_no_report(struct exchange_report *ret, struct provider_reply *reply);
/* Fills the timing record. result: done, failed, cancelled, abandoned; class_ and error describe
 * the failure, CLASS_NONE and "" when there is none. Its strings are those of the arguments. */
void record_timing(struct msg_timing *ret, const struct record_facts *facts,
                   const struct exchange_report *report, const char *result,
                   enum error_class class_, const char *error);
/* Both return what message_encode() returns. */
int record_encode_timing(struct buf *out, const struct msg_timing *timing);
int record_encode_outcome(struct buf *out, const struct record_facts *facts,
                          const struct provider_reply *reply);

#endif
