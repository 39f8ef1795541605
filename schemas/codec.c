/* msgpack is used here only. */
#include <errno.h>
#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"
#include "schemas/message.h"
#include "schemas/table.h"

const char *message_name(enum message_type type)
{
    const struct message_row *row = message_row(type);
    return row != NULL ? row->name : "?";
}

enum message_type message_type_of(const char *name, size_t len)
{
    for (int type = MESSAGE_NONE + 1; type < MESSAGE_TYPE_COUNT; type++) {
        const char *candidate = message_row((enum message_type)type)->name;
        if (strlen(candidate) == len && memcmp(candidate, name, len) == 0)
            return (enum message_type)type;
    }
    return MESSAGE_NONE;
}

/* --- encoding -------------------------------------------------------------------------- */

static int pack_write(void *ctx, const char *data, size_t len)
{
    struct buf *out = ctx;
    buf_add(out, data, len);
    return out->failed ? -1 : 0;
}

static void pack_str(msgpack_packer *pk, const char *text, size_t len)
{
    msgpack_pack_str(pk, len);
    msgpack_pack_str_body(pk, text, len);
}

static void pack_key(msgpack_packer *pk, const struct field *field)
{
    pack_str(pk, field->name, field->name_len);
}

static int encode_str(msgpack_packer *pk, const struct field *field, const char *text)
{
    size_t len = text != NULL ? strlen(text) : 0;
    if (len > field->limit)
        return -E2BIG;
    pack_key(pk, field);
    pack_str(pk, text, len);
    return 0;
}

static int encode_strs(msgpack_packer *pk, const struct field *field, const char *const *items,
                       size_t n)
{
    if (n > field->limit)
        return -E2BIG;
    pack_key(pk, field);
    msgpack_pack_array(pk, n);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(items[i]);
        if (len > STRS_ITEM_MAX)
            return -E2BIG;
        pack_str(pk, items[i], len);
    }
    return 0;
}

static int encode_i64s(msgpack_packer *pk, const struct field *field, const int64_t *items,
                       size_t n)
{
    if (n > field->limit)
        return -E2BIG;
    pack_key(pk, field);
    msgpack_pack_array(pk, n);
    for (size_t i = 0; i < n; i++)
        msgpack_pack_int64(pk, items[i]);
    return 0;
}

/* A field that is zero or empty is not sent: it reads as that. */
static bool field_is_empty(const struct message *message, const struct field *field)
{
    const void *at = field_of(message, field);
    switch (field->kind) {
    case KIND_STR: {
        const char *text = *(const char *const *)at;
        return text == NULL || text[0] == '\0';
    }
    case KIND_TEXT:
        return ((const struct bytes *)at)->len == 0;
    case KIND_I64:
        return *(const int64_t *)at == 0;
    case KIND_F64:
        return fpclassify(*(const double *)at) == FP_ZERO;
    case KIND_BOOL:
        return !*(const bool *)at;
    case KIND_STRS:
    case KIND_I64S:
        return *field_count_of(message, field) == 0;
    }
    return true;
}

static int encode_field(msgpack_packer *pk, const struct message *message,
                        const struct field *field)
{
    const void *at = field_of(message, field);
    switch (field->kind) {
    case KIND_STR:
        return encode_str(pk, field, *(const char *const *)at);
    case KIND_TEXT: {
        const struct bytes *bytes = at;
        if (bytes->len > field->limit)
            return -E2BIG;
        pack_key(pk, field);
        pack_str(pk, bytes->data, bytes->len);
        return 0;
    }
    case KIND_I64:
        pack_key(pk, field);
        msgpack_pack_int64(pk, *(const int64_t *)at);
        return 0;
    case KIND_F64:
        if (!isfinite(*(const double *)at))
            return -EINVAL;
        pack_key(pk, field);
        msgpack_pack_double(pk, *(const double *)at);
        return 0;
    case KIND_BOOL:
        pack_key(pk, field);
        msgpack_pack_true(pk);
        return 0;
    case KIND_STRS:
        return encode_strs(pk, field, *(const char *const *const *)at,
                           *field_count_of(message, field));
    case KIND_I64S:
        return encode_i64s(pk, field, *(const int64_t *const *)at, *field_count_of(message, field));
    }
    return -EINVAL;
}

static bool has_text(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static void encode_envelope(msgpack_packer *pk, const struct message *message, const char *name)
{
    pack_str(pk, "v", 1);
    msgpack_pack_int(pk, MESSAGE_VERSION);
    pack_str(pk, "t", 1);
    pack_str(pk, name, strlen(name));
    if (has_text(message->source)) {
        pack_str(pk, "src", 3);
        pack_str(pk, message->source, strlen(message->source));
    }
    if (message->sequence != 0) {
        pack_str(pk, "seq", 3);
        msgpack_pack_int64(pk, message->sequence);
    }
    if (message->time_ms != 0) {
        pack_str(pk, "ts", 2);
        msgpack_pack_int64(pk, message->time_ms);
    }
    if (has_text(message->trace)) {
        pack_str(pk, "tr", 2);
        pack_str(pk, message->trace, strlen(message->trace));
    }
}

static int encode_body(struct buf *out, const struct message *message,
                       const struct message_row *row)
{
    size_t n_fields;
    const struct field *fields = row->fields(&n_fields);
    size_t pairs = 2 + (size_t)has_text(message->source) + (size_t)(message->sequence != 0) +
                   (size_t)(message->time_ms != 0) + (size_t)has_text(message->trace);
    for (size_t i = 0; i < n_fields; i++)
        pairs += field_is_empty(message, &fields[i]) ? 0 : 1;
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, pack_write);
    msgpack_pack_map(&pk, pairs);
    encode_envelope(&pk, message, row->name);
    for (size_t i = 0; i < n_fields; i++) {
        int rc = field_is_empty(message, &fields[i]) ? 0 : encode_field(&pk, message, &fields[i]);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int message_encode(const struct message *message, struct buf *out)
{
    const struct message_row *row = message_row(message->type);
    if (row == NULL)
        return -EINVAL;
    if (out->failed)
        return -ENOMEM;
    size_t before = out->len;
    int rc = encode_body(out, message, row);
    if (rc == 0 && out->failed)
        rc = -ENOMEM;
    if (rc != 0) {
        out->failed = false;
        out->len = before;
        if (out->data != NULL)
            out->data[before] = '\0';
    }
    return rc;
}

/* --- decoding -------------------------------------------------------------------------- */

#define DEPTH_MAX 8

/* Length of a msgpack object's head at p, what follows it in bytes and in nested objects; -1 when
 * it is malformed or exceeds the input. */
struct head {
    size_t head_len;
    uint64_t body_len;
    uint64_t children;
};

static uint64_t big_endian(const uint8_t *p, size_t len)
{
    uint64_t value = 0;
    for (size_t i = 0; i < len; i++)
        value = value << 8 | p[i];
    return value;
}

static int read_head(const uint8_t *p, size_t len, struct head *ret)
{
    /* 0xc0..0xdf: size of the length field, fixed body bytes; -1 in kind: reserved */
    static const struct {
        int kind; /* 0 fixed, 1 length counts bytes, 2 elements, 3 pairs */
        uint8_t len_size;
        uint8_t fixed;
    } codes[32] = {
        {0, 0, 0},  {-1, 0, 0}, {0, 0, 0}, {0, 0, 0}, {1, 1, 0}, {1, 2, 0}, {1, 4, 0}, {1, 1, 1},
        {1, 2, 1},  {1, 4, 1},  {0, 0, 4}, {0, 0, 8}, {0, 0, 1}, {0, 0, 2}, {0, 0, 4}, {0, 0, 8},
        {0, 0, 1},  {0, 0, 2},  {0, 0, 4}, {0, 0, 8}, {0, 0, 2}, {0, 0, 3}, {0, 0, 5}, {0, 0, 9},
        {0, 0, 17}, {1, 1, 0},  {1, 2, 0}, {1, 4, 0}, {2, 2, 0}, {2, 4, 0}, {3, 2, 0}, {3, 4, 0},
    };
    uint8_t code = p[0];
    *ret = (struct head){.head_len = 1};
    if (code < 0x80 || code >= 0xe0)
        return 0;
    if (code < 0x90)
        ret->children = (uint64_t)(code & 0x0f) * 2;
    else if (code < 0xa0)
        ret->children = code & 0x0f;
    else if (code < 0xc0)
        ret->body_len = code & 0x1f;
    else {
        size_t len_size = codes[code - 0xc0].len_size;
        if (codes[code - 0xc0].kind < 0 || len < 1 + len_size)
            return -1;
        uint64_t count = big_endian(p + 1, len_size);
        int kind = codes[code - 0xc0].kind;
        ret->head_len = 1 + len_size;
        ret->body_len = codes[code - 0xc0].fixed + (kind == 1 ? count : 0);
        ret->children = kind == 2 ? count : kind == 3 ? count * 2 : 0;
    }
    return 0;
}

/* Walks the bytes before msgpack-c does: that allocates whatever a header claims. True when they
 * are exactly one object whose containers fit into the input and nest at most DEPTH_MAX deep. */
static bool is_one_object(const uint8_t *p, size_t len)
{
    uint64_t open[DEPTH_MAX] = {1}; /* objects still to come at each depth */
    size_t depth = 0, at = 0;
    for (;;) {
        while (open[depth] == 0) {
            if (depth == 0)
                return at == len;
            depth--;
        }
        struct head head;
        if (at == len || read_head(p + at, len - at, &head) != 0)
            return false;
        size_t left = len - at - head.head_len;
        if (head.body_len > left || head.children > left)
            return false;
        at += head.head_len + (size_t)head.body_len;
        open[depth]--;
        if (head.children > 0) {
            if (++depth == DEPTH_MAX)
                return false;
            open[depth] = head.children;
        }
    }
}

/* The memory that a decoded message's pointers point into: first the lists, then the strings. */
struct arena {
    char *lists;
    char *strings;
};

/* Every string takes at least one byte of input beside its own, so `len` covers their NULs. */
static int arena_init(struct arena *arena, struct message *ret, const msgpack_object_map *map,
                      size_t len)
{
    size_t items = 0;
    for (uint32_t i = 0; i < map->size; i++)
        if (map->ptr[i].val.type == MSGPACK_OBJECT_ARRAY)
            items += map->ptr[i].val.via.array.size;
    size_t lists = items * sizeof(int64_t);
    ret->arena = mem_alloc(lists + len + 1);
    if (ret->arena == NULL)
        return -ENOMEM;
    *arena = (struct arena){.lists = ret->arena, .strings = (char *)ret->arena + lists};
    return 0;
}

static const char *arena_add(struct arena *arena, const msgpack_object_str *str)
{
    char *copy = arena->strings;
    if (str->size > 0)
        memcpy(copy, str->ptr, str->size);
    copy[str->size] = '\0';
    arena->strings += str->size + 1;
    return copy;
}

static int decode_str(struct arena *arena, const msgpack_object *value, size_t limit,
                      const char **ret)
{
    if (value->type != MSGPACK_OBJECT_STR)
        return -EBADMSG;
    const msgpack_object_str *str = &value->via.str;
    if (str->size > limit)
        return -E2BIG;
    if (str->size > 0 && memchr(str->ptr, '\0', str->size) != NULL)
        return -EBADMSG;
    *ret = arena_add(arena, str);
    return 0;
}

static int decode_i64(const msgpack_object *value, int64_t *ret)
{
    if (value->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        *ret = value->via.i64;
    else if (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER && value->via.u64 <= INT64_MAX)
        *ret = (int64_t)value->via.u64;
    else
        return -EBADMSG;
    return 0;
}

static int decode_f64(const msgpack_object *value, double *ret)
{
    int64_t whole;
    if (value->type == MSGPACK_OBJECT_FLOAT64 || value->type == MSGPACK_OBJECT_FLOAT32)
        *ret = value->via.f64;
    else if (decode_i64(value, &whole) == 0)
        *ret = (double)whole;
    else
        return -EBADMSG;
    return isfinite(*ret) ? 0 : -EBADMSG;
}

static int decode_list(struct arena *arena, const struct field *field, const msgpack_object *value,
                       void *at, size_t *count)
{
    if (value->type != MSGPACK_OBJECT_ARRAY)
        return -EBADMSG;
    const msgpack_object_array *array = &value->via.array;
    if (array->size > field->limit)
        return -E2BIG;
    void *items = arena->lists;
    arena->lists += array->size * sizeof(int64_t);
    for (uint32_t i = 0; i < array->size; i++) {
        int rc = field->kind == KIND_STRS
                     ? decode_str(arena, &array->ptr[i], STRS_ITEM_MAX, (const char **)items + i)
                     : decode_i64(&array->ptr[i], (int64_t *)items + i);
        if (rc != 0)
            return rc;
    }
    *(void **)at = items;
    *count = array->size;
    return 0;
}

static int decode_field(struct arena *arena, struct message *message, const struct field *field,
                        const msgpack_object *value)
{
    void *at = field_of(message, field);
    switch (field->kind) {
    case KIND_STR:
        return decode_str(arena, value, field->limit, at);
    case KIND_TEXT: {
        if (value->type != MSGPACK_OBJECT_STR)
            return -EBADMSG;
        if (value->via.str.size > field->limit)
            return -E2BIG;
        struct bytes *bytes = at;
        bytes->data = arena_add(arena, &value->via.str);
        bytes->len = value->via.str.size;
        return 0;
    }
    case KIND_I64:
        return decode_i64(value, at);
    case KIND_F64:
        return decode_f64(value, at);
    case KIND_BOOL:
        if (value->type != MSGPACK_OBJECT_BOOLEAN)
            return -EBADMSG;
        *(bool *)at = value->via.boolean;
        return 0;
    case KIND_STRS:
    case KIND_I64S:
        return decode_list(arena, field, value, at, field_count_of(message, field));
    }
    return -EBADMSG;
}

static bool key_is(const msgpack_object *key, const char *name, size_t len)
{
    return key->type == MSGPACK_OBJECT_STR && key->via.str.size == len &&
           memcmp(key->via.str.ptr, name, len) == 0;
}

static const msgpack_object *map_find(const msgpack_object_map *map, const char *name)
{
    for (uint32_t i = 0; i < map->size; i++)
        if (key_is(&map->ptr[i].key, name, strlen(name)))
            return &map->ptr[i].val;
    return NULL;
}

#define SOURCE_MAX 256
#define TRACE_MAX 64

static int decode_envelope(struct arena *arena, struct message *message,
                           const msgpack_object_map *map)
{
    const msgpack_object *source = map_find(map, "src"), *trace = map_find(map, "tr");
    const msgpack_object *sequence = map_find(map, "seq"), *time = map_find(map, "ts");
    int rc = 0;
    message->source = message->trace = "";
    if (source != NULL)
        rc = decode_str(arena, source, SOURCE_MAX, &message->source);
    if (rc == 0 && trace != NULL)
        rc = decode_str(arena, trace, TRACE_MAX, &message->trace);
    if (rc == 0 && sequence != NULL)
        rc = decode_i64(sequence, &message->sequence);
    if (rc == 0 && time != NULL)
        rc = decode_i64(time, &message->time_ms);
    return rc;
}

static void clear_body(struct message *message, const struct field *fields, size_t n_fields)
{
    for (size_t i = 0; i < n_fields; i++) {
        void *at = field_of(message, &fields[i]);
        if (fields[i].kind == KIND_STR)
            *(const char **)at = "";
        else if (fields[i].kind == KIND_TEXT)
            *(struct bytes *)at = (struct bytes){.data = ""};
    }
}

/* The field of that key, looked for first at *hint: senders write fields in the table's order. */
static const struct field *field_find(const struct field *fields, size_t n_fields,
                                      const msgpack_object *key, size_t *hint)
{
    for (size_t i = 0; i < n_fields; i++) {
        const struct field *field = &fields[(*hint + i) % n_fields];
        if (key_is(key, field->name, field->name_len)) {
            *hint = (size_t)(field - fields) + 1;
            return field;
        }
    }
    return NULL;
}

static int decode_map(struct message *ret, const msgpack_object_map *map, size_t len)
{
    const msgpack_object *version = map_find(map, "v"), *type = map_find(map, "t");
    if (version == NULL || type == NULL || type->type != MSGPACK_OBJECT_STR)
        return -EBADMSG;
    int64_t number;
    if (decode_i64(version, &number) != 0 || number != MESSAGE_VERSION)
        return -EPROTONOSUPPORT;
    ret->type = message_type_of(type->via.str.ptr, type->via.str.size);
    if (ret->type == MESSAGE_NONE)
        return -EPROTONOSUPPORT;
    size_t n_fields, hint = 0;
    const struct field *fields = message_row(ret->type)->fields(&n_fields);
    struct arena arena;
    int rc = arena_init(&arena, ret, map, len);
    if (rc == 0)
        rc = decode_envelope(&arena, ret, map);
    clear_body(ret, fields, n_fields);
    uint64_t seen = 0;
    for (uint32_t i = 0; rc == 0 && i < map->size; i++) {
        const struct field *field = field_find(fields, n_fields, &map->ptr[i].key, &hint);
        if (field == NULL)
            continue; /* the envelope's, or a later version's */
        uint64_t bit = UINT64_C(1) << (field - fields);
        rc = (seen & bit) != 0 ? -EBADMSG : decode_field(&arena, ret, field, &map->ptr[i].val);
        seen |= bit;
    }
    return rc;
}

int message_decode(struct message *ret, const void *data, size_t len)
{
    *ret = (struct message){0};
    if (len == 0 || len > MESSAGE_MAX_BYTES || !is_one_object(data, len))
        return -EBADMSG;
    msgpack_zone zone;
    if (!msgpack_zone_init(&zone, 2048))
        return -ENOMEM;
    msgpack_object object;
    size_t offset = 0;
    msgpack_unpack_return parsed = msgpack_unpack(data, len, &offset, &zone, &object);
    int rc = -EBADMSG;
    if (parsed == MSGPACK_UNPACK_NOMEM_ERROR)
        rc = -ENOMEM;
    else if (parsed == MSGPACK_UNPACK_SUCCESS && object.type == MSGPACK_OBJECT_MAP)
        rc = decode_map(ret, &object.via.map, len);
    msgpack_zone_destroy(&zone);
    if (rc != 0)
        message_release(ret);
    return rc;
}

int message_decode_as(struct message *ret, enum message_type type, const void *data, size_t len)
{
    int rc = message_decode(ret, data, len);
    if (rc == 0 && ret->type != type) {
        message_release(ret);
        rc = -EBADMSG;
    }
    return rc;
}

void message_release(struct message *message)
{
    free(message->arena);
    *message = (struct message){0};
}

/* --- events ------------------------------------------------------------------------------ */

bool frame_is_event(const void *data, size_t len)
{
    const uint8_t *p = data;
    return len > 0 && p[0] < 0x80;
}

size_t event_topic_len(const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t at = 0;
    while (at < len && at < TOPIC_MAX_BYTES && p[at] >= 0x21 && p[at] <= 0x7e)
        at++;
    return at > 0 && at + 1 < len && p[at] == '\0' ? at : 0;
}

int event_encode(const char *topic, const struct message *message, struct buf *out)
{
    size_t before = out->len, topic_len = strlen(topic);
    if (topic_len == 0 || topic_len > TOPIC_MAX_BYTES)
        return -EINVAL;
    buf_add(out, topic, topic_len + 1);
    int rc = message_encode(message, out);
    if (rc != 0) {
        out->len = before;
        if (out->data != NULL)
            out->data[before] = '\0';
    }
    return rc;
}

int event_decode(struct message *ret, const char **ret_topic, const void *data, size_t len)
{
    *ret = (struct message){0};
    size_t topic_len = event_topic_len(data, len);
    if (topic_len == 0)
        return -EBADMSG;
    int rc = message_decode(ret, (const char *)data + topic_len + 1, len - topic_len - 1);
    if (rc == 0)
        *ret_topic = data; /* its NUL is part of the frame */
    return rc;
}
