/* A growable byte buffer whose failures are sticky: append freely, check buf.failed once. */
#ifndef SCHEMAS_BUF_H
#define SCHEMAS_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data; /* NULL while empty; otherwise data[len] is always 0 */
    size_t len;
    size_t cap;
    bool failed; /* an allocation failed: the contents are incomplete and must not be used */
};

/* All zero bytes is an empty buffer: `struct buf b = {0}`. */
void buf_release(struct buf *buf);              /* frees the memory; the buffer is empty again */
void buf_clear(struct buf *buf);                /* keeps the memory, drops contents and failure */
bool buf_reserve(struct buf *buf, size_t more); /* room for `more` bytes; false sets failed */
void buf_add(struct buf *buf, const void *data, size_t len);
void buf_add_str(struct buf *buf, const char *text);
void buf_add_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *buf, const char *format, va_list args);
/* The text as a JSON string, quotes included. Invalid UTF-8 becomes U+FFFD, so the result is
 * always valid JSON. */
void buf_add_json(struct buf *buf, const char *text, size_t len);
void buf_consume(struct buf *buf, size_t len); /* drops the first len bytes */
/* Hands the bytes over to the caller, who frees them with free(). Never NULL unless failed. */
char *buf_take(struct buf *buf, size_t *ret_len);

#endif
