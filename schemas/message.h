/* Encodes, decodes and prints the messages of messages.def, which bus, taps and Redis share.
 *
 * Two framings:
 *   control message, record:  one msgpack map (first byte 0x80..0x8f, 0xde or 0xdf)
 *   event:                    topic (printable ASCII), NUL, one msgpack map
 * Decoders take hostile bytes: they never assert or over-read, and reject trailing bytes. */
#ifndef SCHEMAS_MESSAGE_H
#define SCHEMAS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schemas/buf.h"

#define MESSAGE_VERSION 1
#define MESSAGE_MAX_BYTES ((size_t)64 * 1024 * 1024)
#define TOPIC_MAX_BYTES 256
#define SHARD_COUNT 64

struct bytes {
    const char *data; /* decoded: data[len] is 0; never NULL after message_decode() */
    size_t len;
};

enum message_type {
    MESSAGE_NONE,
#define MESSAGE(name, flow, FIELDS, text) MESSAGE_##name,
#include "schemas/messages.def"
#undef MESSAGE
    MESSAGE_TYPE_COUNT
};

#define FIELD_STR(name) const char *name;
#define FIELD_TEXT(name) struct bytes name;
#define FIELD_I64(name) int64_t name;
#define FIELD_F64(name) double name;
#define FIELD_BOOL(name) bool name;
#define FIELD_STRS(name)                                                                           \
    const char **name;                                                                             \
    size_t n_##name;
#define FIELD_I64S(name)                                                                           \
    int64_t *name;                                                                                 \
    size_t n_##name;
#define FIELD(kind, name, limit, text) FIELD_##kind(name)
/* struct msg_offer { const char *task; const char *sub; int64_t shard; ... }; */
#define MESSAGE(name, flow, FIELDS, text)                                                          \
    struct msg_##name {                                                                            \
        FIELDS(FIELD)                                                                              \
    };
#include "schemas/messages.def"
#undef MESSAGE
#undef FIELD

struct message {
    enum message_type type;
    const char *source; /* envelope src: who sent it, such as worker/ollama-0 */
    int64_t sequence;   /* envelope seq: counts the source's events from 1; 0 elsewhere */
    int64_t time_ms;    /* envelope ts: sender's wall clock, Unix epoch */
    const char *trace;  /* envelope tr: trace id; may be empty */
    union {
#define MESSAGE(name, flow, FIELDS, text) struct msg_##name name;
#include "schemas/messages.def"
#undef MESSAGE
    };
    void *arena; /* owned; what a decoded message's pointers point into. NULL when built by hand */
};

/* Appends the message to `out`. NULL strings are sent as "". Envelope fields that are zero or
 * empty are left out, so a stored record is small. Returns 0; -EINVAL for an unknown type or a
 * non-finite number; -E2BIG when a field exceeds its limit; -ENOMEM. On failure `out` is as it
 * was. */
int message_encode(const struct message *message, struct buf *out);

/* Reads one whole message. On success the caller calls message_release(). Returns 0; -EBADMSG
 * when the bytes are no message of this table (malformed, wrong field type, trailing bytes);
 * -EPROTONOSUPPORT for another envelope version or an unknown type; -E2BIG over a limit; -ENOMEM.
 */
int message_decode(struct message *ret, const void *data, size_t len);
/* Like message_decode(), and -EBADMSG when the type is another. */
int message_decode_as(struct message *ret, enum message_type type, const void *data, size_t len);
void message_release(struct message *message); /* accepts one that is all zero */

/* Events: `topic NUL map`. The decoder points *ret_topic into `data`. */
int event_encode(const char *topic, const struct message *message, struct buf *out);
int event_decode(struct message *ret, const char **ret_topic, const void *data, size_t len);
bool frame_is_event(const void *data, size_t len);
/* Length of the topic of an event frame, without decoding it; 0 when it is no valid event frame
 * (no NUL within TOPIC_MAX_BYTES, a byte outside 0x21..0x7e, nothing behind it). */
size_t event_topic_len(const void *data, size_t len);

const char *message_name(enum message_type type); /* "offer"; "?" when there is none */
enum message_type message_type_of(const char *name, size_t len); /* MESSAGE_NONE: unknown */

/* Appends the message as one JSON object without newline: ts, source, seq, type, then the fields.
 * `topic` comes first where it is not NULL. Strings that are no UTF-8 are repaired with U+FFFD. */
void message_print_json(const struct message *message, const char *topic, struct buf *out);
/* Appends one line for people: time, topic or type, then field=value for fields that are set. */
void message_print_line(const struct message *message, const char *topic, struct buf *out);
/* Appends docs/messages.md, the reference of the whole table. */
void message_reference(struct buf *out);

#endif
