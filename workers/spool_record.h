/* The records of a spool file and their bytes.
 *
 *     0  4  "OSP1"                     a change of the format changes the 1; old files are then
 *     4  1  kind                       drained with the old version before an update
 *     5  3  zero
 *     8  4  bytes of payload, little endian
 *    12  4  CRC-32C of bytes 4..11 and the payload, little endian
 *    16     payload
 *
 * Payload, with string = length (1 byte), bytes, NUL:
 *     CLAIM     task, sub, token, arm
 *     RESPONSE  task, sub, token, arm, length of outcome (4 bytes), outcome, timing
 *     END       token */
#ifndef WORKERS_SPOOL_RECORD_H
#define WORKERS_SPOOL_RECORD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "schemas/buf.h"
#include "schemas/message.h"

#define SPOOL_HEADER_BYTES 16
#define SPOOL_PAYLOAD_MAX ((size_t)48 * 1024 * 1024)
#define SPOOL_MAGIC "OSP1"

enum spool_kind {
    SPOOL_CLAIM = 1, /* an attempt began */
    SPOOL_RESPONSE,  /* its result is here */
    SPOOL_END,       /* the queue knows: nothing is left to do */
};

struct spool_record {
    enum spool_kind kind;
    const char *task, *sub; /* "" in an END */
    const char *token;
    const char *arm;
    struct bytes outcome, timing; /* records, RESPONSE only */
};

/* Appends everything of the record but the bytes of outcome and timing, which follow it in the
 * file. 0; -E2BIG when a string or the record is too long; -ENOMEM. */
int spool_record_encode(struct buf *out, const struct spool_record *record);
/* Reads the record at data, into which *ret then points. Returns its whole length, or -EBADMSG
 * when there is no complete, undamaged record. */
ssize_t spool_record_decode(struct spool_record *ret, const char *data, size_t len);

/* CRC-32C (Castagnoli, RFC 3720) of more bytes; start with 0. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
