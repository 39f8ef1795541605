/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef WORKERS_UTF8_H
#define WORKERS_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#include "schemas/buf.h"

/* Length of the valid sequence that starts at text, 1..4; 0 when there is none. len > 0. */
size_t utf8_sequence(const char *text, size_t len);
/* Length of the longest valid text at the start that has no NUL. */
size_t utf8_valid(const char *text, size_t len);
/* Appends the text, with U+FFFD for each byte that belongs to no valid sequence and for NUL. */
void utf8_repair(struct buf *out, const char *text, size_t len);
/* The largest n <= at that does not lie inside a sequence of the (valid) text. */
size_t utf8_floor(const char *text, size_t len, size_t at);

#endif
