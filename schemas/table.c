#include "schemas/table.h"

/* Where a list keeps its count; the other kinds have none. */
#define COUNT_STR(name) 0
#define COUNT_TEXT(name) 0
#define COUNT_I64(name) 0
#define COUNT_F64(name) 0
#define COUNT_BOOL(name) 0
#define COUNT_STRS(name) offsetof(struct body, n_##name)
#define COUNT_I64S(name) offsetof(struct body, n_##name)
#define FIELD(kind, name, limit, text)                                                             \
    {KIND_##kind,     #name, sizeof #name - 1, offsetof(struct body, name), COUNT_##kind(name),    \
     (size_t)(limit), text},
#define MEMBER(kind, name, limit, text) FIELD_##kind(name)

/* One function a message, so that each has a `struct body` of its own to take offsets of:
 * static const struct field *hello_fields(size_t *ret_count)
 * { struct body { const char *name; ... }; static const struct field rows[] = {{KIND_STR, ... */
#define MESSAGE(message, flow, FIELDS, text)                                                       \
    static const struct field *message##_fields(size_t *ret_count)                                 \
    {                                                                                              \
        struct body {                                                                              \
            FIELDS(MEMBER)                                                                         \
        };                                                                                         \
        static const struct field rows[] = {FIELDS(FIELD)};                                        \
        _Static_assert(sizeof(struct body) == sizeof(struct msg_##message), "same layout");        \
        _Static_assert(sizeof rows / sizeof *rows <= FIELDS_MAX, "too many fields");               \
        *ret_count = sizeof rows / sizeof *rows;                                                   \
        return rows;                                                                               \
    }
#include "schemas/messages.def"
#undef MESSAGE

static const struct message_row table[MESSAGE_TYPE_COUNT] = {
#define MESSAGE(message, flow, FIELDS, text)                                                       \
    [MESSAGE_##message] = {#message, flow, text, message##_fields},
#include "schemas/messages.def"
#undef MESSAGE
};

const struct message_row *message_row(enum message_type type)
{
    return type > MESSAGE_NONE && type < MESSAGE_TYPE_COUNT ? &table[type] : NULL;
}

void *field_of(const struct message *message, const struct field *field)
{
    return (char *)(uintptr_t)&message->hello + field->offset;
}

size_t *field_count_of(const struct message *message, const struct field *field)
{
    return (size_t *)(void *)((char *)(uintptr_t)&message->hello + field->n_offset);
}
