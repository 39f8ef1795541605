/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef SCHEMAS_UTF8_H
#define SCHEMAS_UTF8_H

#include <stddef.h>

/* Length of the valid sequence that starts at text, 1..4; 0 when there is none. len > 0. */
size_t utf8_sequence(const char *text, size_t len);

#endif
