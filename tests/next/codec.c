/* The codec of a later version: to each message and record it adds fields that this version does
 * not know, and every fourth heartbeat is of a type that it does not know. Linked into next-*
 * instead of the codec, for tests of rolling upgrades. */
#define message_encode this_version_encode
#include "schemas/codec.c"
#undef message_encode

#define NEW_FIELDS 4
#define STRANGE_BEATS 4

/* {"v": 1, "t": "beat"} as encode_envelope() writes it. */
static const char beat_head[] = "\xa1v\x01\xa1t\xa4"
                                "beat";
static const char new_head[] = "\xa1v\x01\xa1t\xa9"
                               "next_beat";
/* A string, a list with a map in it, an extension, binary data. */
static const char new_fields[] =
    "\xa9next_text\xa6later!"
    "\xa9next_list\x93\x01\xc0\x81\xa1k\x92\xc3\xcb\x3f\xf0\0\0\0\0\0\0"
    "\xa8next_ext\xd6\x05wxyz"
    "\xa8next_bin\xc4\x03\0\x01\x02";

static size_t pairs_of(const struct buf *buf, size_t *ret_head)
{
    const unsigned char *at = (const unsigned char *)buf->data;
    bool is_short = at[0] < 0x90;
    *ret_head = is_short ? 1 : 3;
    return is_short ? at[0] & 15u : (size_t)at[1] << 8 | at[2];
}

int message_encode(const struct message *message, struct buf *out)
{
    static unsigned beats;
    struct buf plain = {0};
    int rc = this_version_encode(message, &plain);
    if (rc != 0) {
        buf_release(&plain);
        return rc;
    }
    size_t head, pairs = pairs_of(&plain, &head) + NEW_FIELDS;
    const char *body = plain.data + head;
    size_t len = plain.len - head;
    buf_add_char(out, (char)0xde);
    buf_add_char(out, (char)(pairs >> 8));
    buf_add_char(out, (char)(pairs & 255));
    if (message->type == MESSAGE_beat && ++beats % STRANGE_BEATS == 0 &&
        memcmp(body, beat_head, sizeof beat_head - 1) == 0) {
        buf_add(out, new_head, sizeof new_head - 1);
        body += sizeof beat_head - 1;
        len -= sizeof beat_head - 1;
    }
    buf_add(out, body, len);
    buf_add(out, new_fields, sizeof new_fields - 1);
    buf_release(&plain);
    return out->failed ? -ENOMEM : 0;
}
