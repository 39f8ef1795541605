/* SHA-1, only because Redis names scripts by it; not for security. */
#ifndef COMMON_SHA1_H
#define COMMON_SHA1_H

#include <stddef.h>

/* Writes 40 hex digits and a NUL. FIPS 180-4. */
void sha1_hex(const void *data, size_t len, char ret[41]);

#endif
