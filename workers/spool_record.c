#include "workers/spool_record.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define CRC32C_POLYNOMIAL 0x82f63b78u /* reflected */

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
    static uint32_t table[256];
    if (table[1] == 0)
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? value >> 1 ^ CRC32C_POLYNOMIAL : value >> 1;
            table[i] = value;
        }
    const unsigned char *at = data;
    crc = ~crc;
    while (len-- > 0)
        crc = table[(crc ^ *at++) & 0xff] ^ crc >> 8;
    return ~crc;
}

/* --- writing -----------------------------------------------------------------------------------
 */

static void put_u32(char *at, size_t value)
{
    uint32_t little = htole32((uint32_t)value);
    memcpy(at, &little, sizeof little);
}

static bool add_string(struct buf *out, const char *text)
{
    size_t len = strlen(text);
    if (len > UINT8_MAX)
        return false;
    buf_add_char(out, (char)len);
    buf_add(out, text, len + 1);
    return true;
}

static bool add_strings(struct buf *out, const struct spool_record *record)
{
    if (record->kind == SPOOL_END)
        return add_string(out, record->token);
    return add_string(out, record->task) && add_string(out, record->sub) &&
           add_string(out, record->token) && add_string(out, record->arm);
}

int spool_record_encode(struct buf *out, const struct spool_record *record)
{
    char header[SPOOL_HEADER_BYTES] = SPOOL_MAGIC;
    size_t start = out->len, more = 0;
    buf_add(out, header, sizeof header);
    bool fits = add_strings(out, record);
    if (record->kind == SPOOL_RESPONSE) {
        char length[4];
        more = record->outcome.len + record->timing.len;
        put_u32(length, record->outcome.len);
        buf_add(out, length, sizeof length);
    }
    size_t prefix = out->failed ? 0 : out->len - start - sizeof header;
    if (out->failed || !fits || more > SPOOL_PAYLOAD_MAX - prefix) {
        int rc = out->failed ? -ENOMEM : -E2BIG;
        if (!out->failed)
            out->len = start;
        return rc;
    }
    char *at = out->data + start;
    at[4] = (char)record->kind;
    put_u32(at + 8, prefix + more);
    uint32_t crc = crc32c(0, at + 4, 8);
    crc = crc32c(crc, at + SPOOL_HEADER_BYTES, prefix);
    if (record->kind == SPOOL_RESPONSE) {
        crc = crc32c(crc, record->outcome.data, record->outcome.len);
        crc = crc32c(crc, record->timing.data, record->timing.len);
    }
    put_u32(at + 12, crc);
    return 0;
}

/* --- reading -----------------------------------------------------------------------------------
 */

struct cursor {
    const char *at, *end;
    bool bad;
};

static uint32_t get_u32(const char *at)
{
    uint32_t little;
    memcpy(&little, at, sizeof little);
    return le32toh(little);
}

static const char *take_string(struct cursor *cursor)
{
    size_t left = (size_t)(cursor->end - cursor->at);
    size_t len = left > 0 ? (unsigned char)cursor->at[0] : 0;
    if (left < len + 2 || cursor->at[len + 1] != '\0' || strlen(cursor->at + 1) != len) {
        cursor->bad = true;
        cursor->at = cursor->end;
        return "";
    }
    const char *text = cursor->at + 1;
    cursor->at += len + 2;
    return text;
}

static void take_response(struct cursor *cursor, struct spool_record *ret)
{
    size_t left = (size_t)(cursor->end - cursor->at);
    size_t outcome_len = left >= 4 ? get_u32(cursor->at) : 0;
    if (left < 4 || outcome_len > left - 4) {
        cursor->bad = true;
        return;
    }
    ret->outcome = (struct bytes){cursor->at + 4, outcome_len};
    ret->timing = (struct bytes){cursor->at + 4 + outcome_len, left - 4 - outcome_len};
    cursor->at = cursor->end;
}

ssize_t spool_record_decode(struct spool_record *ret, const char *data, size_t len)
{
    if (len < SPOOL_HEADER_BYTES || memcmp(data, SPOOL_MAGIC, 4) != 0)
        return -EBADMSG;
    size_t payload = get_u32(data + 8);
    if (payload > SPOOL_PAYLOAD_MAX || payload > len - SPOOL_HEADER_BYTES)
        return -EBADMSG;
    const char *at = data + SPOOL_HEADER_BYTES;
    if (crc32c(crc32c(0, data + 4, 8), at, payload) != get_u32(data + 12))
        return -EBADMSG;
    struct cursor cursor = {.at = at, .end = at + payload};
    struct spool_record record = {
        .kind = (enum spool_kind)data[4], .task = "", .sub = "", .token = "", .arm = ""};
    if (record.kind != SPOOL_END) {
        record.task = take_string(&cursor);
        record.sub = take_string(&cursor);
    }
    record.token = take_string(&cursor);
    if (record.kind != SPOOL_END)
        record.arm = take_string(&cursor);
    if (record.kind == SPOOL_RESPONSE && !cursor.bad)
        take_response(&cursor, &record);
    bool known = record.kind >= SPOOL_CLAIM && record.kind <= SPOOL_END;
    if (!known || cursor.bad || cursor.at != cursor.end)
        return -EBADMSG;
    *ret = record;
    return (ssize_t)(SPOOL_HEADER_BYTES + payload);
}
