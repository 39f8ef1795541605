/* SHA-256 (FIPS 180-4): digests of tasks, files and requests, and fingerprints of keys. */
#ifndef COMMON_SHA256_H
#define COMMON_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32
#define SHA256_HEX_SIZE 65 /* lower case, with the NUL */

struct sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    uint8_t block[64];
};

void sha256_init(struct sha256 *sha);
void sha256_add(struct sha256 *sha, const void *data, size_t len);
/* Ends the computation: init again before the next one. */
void sha256_hex(struct sha256 *sha, char ret[SHA256_HEX_SIZE]);
/* All of it in one call. */
void sha256_hex_of(const void *data, size_t len, char ret[SHA256_HEX_SIZE]);

#endif
