/* Texts that came from outside: where they are UTF-8, and what to do where they are not. */
#ifndef WORKERS_UTF8_H
#define WORKERS_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#include "schemas/buf.h"
#include "schemas/utf8.h"

#define UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* Length of the longest valid text at the start that has no NUL. */
size_t utf8_valid(const char *text, size_t len);
/* Appends the text, with U+FFFD for each byte that belongs to no valid sequence and for NUL. */
void utf8_add_repaired(struct buf *out, const char *text, size_t len);
/* The largest n <= at that does not lie inside a sequence of the (valid) text. */
size_t utf8_floor(const char *text, size_t len, size_t at);
/* A text for a message to people, NUL-terminated, in at most cap bytes: runs of blanks and control
 * characters become one space, what is no UTF-8 becomes U+FFFD, and what is too long is cut between
 * characters and ends with "...". cap > 3. */
void utf8_excerpt(char *ret, size_t cap, const char *text, size_t len);

#endif
