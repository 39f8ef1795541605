/* The rows of messages.def as data, for the codec, the printer and the reference. */
#ifndef SCHEMAS_TABLE_H
#define SCHEMAS_TABLE_H

#include "schemas/message.h"

enum field_kind {
    KIND_STR,
    KIND_TEXT,
    KIND_I64,
    KIND_F64,
    KIND_BOOL,
    KIND_STRS,
    KIND_I64S,
};

struct field {
    enum field_kind kind;
    const char *name;
    size_t name_len;
    size_t offset;   /* of the member in struct msg_<message> */
    size_t n_offset; /* of its n_<name>; lists only */
    size_t limit;
    const char *text;
};

struct message_row {
    const char *name;
    const char *flow;
    const char *text;
    const struct field *(*fields)(size_t *ret_count);
};

/* Most fields that one message may have: the decoder notes the seen ones in 64 bits. */
#define FIELDS_MAX 64
/* Bytes of one element of a STRS. */
#define STRS_ITEM_MAX 1024

/* NULL for MESSAGE_NONE and what is out of range. */
const struct message_row *message_row(enum message_type type);
/* The member of a message's body: where the union starts, all bodies start. */
void *field_of(const struct message *message, const struct field *field);
size_t *field_count_of(const struct message *message, const struct field *field);

#endif
