#include "workers/utf8.h"

#include <string.h>

#include "workers/swar.h"

size_t utf8_valid(const char *text, size_t len)
{
    size_t at = 0;
    while (at < len) {
        while (len - at >= SWAR_BYTES) { /* most text is ASCII */
            swar_block block = swar_load(text + at);
            if ((swar_high(block) | swar_equal(block, '\0')) != 0)
                break;
            at += SWAR_BYTES;
        }
        if (at == len)
            break;
        size_t sequence = text[at] == '\0' ? 0 : utf8_sequence(text + at, len - at);
        if (sequence == 0)
            break;
        at += sequence;
    }
    return at;
}

void utf8_add_repaired(struct buf *out, const char *text, size_t len)
{
    while (len > 0) {
        size_t valid = utf8_valid(text, len);
        buf_add(out, text, valid);
        text += valid;
        len -= valid;
        if (len == 0)
            break;
        buf_add_str(out, UTF8_REPLACEMENT);
        text++;
        len--;
    }
}

size_t utf8_floor(const char *text, size_t len, size_t at)
{
    if (at >= len)
        return len;
    for (int back = 0; back < 3 && at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80; back++)
        at--;
    return at;
}

/* The next character of an excerpt; returns how many bytes of the text it stands for. */
static size_t excerpt_char(const char **ret, size_t *ret_len, const char *text, size_t len)
{
    size_t blanks = 0;
    while (blanks < len && ((unsigned char)text[blanks] <= ' ' || text[blanks] == 0x7f))
        blanks++;
    if (blanks > 0) {
        *ret = " ";
        *ret_len = 1;
        return blanks;
    }
    size_t sequence = utf8_sequence(text, len);
    *ret = sequence > 0 ? text : UTF8_REPLACEMENT;
    *ret_len = sequence > 0 ? sequence : strlen(UTF8_REPLACEMENT);
    return sequence > 0 ? sequence : 1;
}

void utf8_excerpt(char *ret, size_t cap, const char *text, size_t len)
{
    size_t used = 0, fits = 0; /* fits: where the dots go if it must be cut */
    while (len > 0) {
        const char *character;
        size_t size, taken = excerpt_char(&character, &size, text, len);
        text += taken;
        len -= taken;
        if (character[0] == ' ' && (used == 0 || len == 0))
            continue;
        if (used + size >= cap) {
            memcpy(ret + fits, "...", 3);
            used = fits + 3;
            break;
        }
        memcpy(ret + used, character, size);
        used += size;
        if (used + 3 < cap)
            fits = used;
    }
    ret[used] = '\0';
}
