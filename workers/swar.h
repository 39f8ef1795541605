/* A block of bytes at a time: finds the first of a few bytes without looking at each. With SSE2,
 * which every x86-64 has, a block is 16 bytes; elsewhere 8 in an ordinary register (SWAR).
 *
 * SWAR_PORTABLE leaves SSE2 out, for a test of the rest. Of a mask only the first place is exact:
 * in an ordinary register a subtraction borrows from the bytes behind a match. */
#ifndef WORKERS_SWAR_H
#define WORKERS_SWAR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__) && !defined(SWAR_PORTABLE)
#include <emmintrin.h>

#define SWAR_BYTES 16
typedef __m128i swar_block;
typedef unsigned swar_mask;
#define SWAR_LAST ((swar_mask)1 << 15) /* the mask of the last byte */

static inline swar_block swar_load(const char *at)
{
    return _mm_loadu_si128((const __m128i *)(const void *)at);
}

static inline void swar_store(char *to, swar_block block)
{
    _mm_storeu_si128((__m128i *)(void *)to, block);
}

static inline swar_mask swar_equal(swar_block block, char c)
{
    return (swar_mask)_mm_movemask_epi8(_mm_cmpeq_epi8(block, _mm_set1_epi8(c)));
}

/* Control characters of ASCII, but DEL. */
static inline swar_mask swar_control(swar_block block)
{
    __m128i most = _mm_set1_epi8(0x1f);
    return (swar_mask)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(block, most), most));
}

/* What is no ASCII. */
static inline swar_mask swar_high(swar_block block)
{
    return (swar_mask)_mm_movemask_epi8(block);
}

/* Where the first byte of a mask is; the mask is not 0. */
static inline size_t swar_first(swar_mask mask)
{
    return (size_t)__builtin_ctz(mask);
}

#else

#define SWAR_BYTES 8
#define SWAR_ONES UINT64_C(0x0101010101010101)
#define SWAR_HIGH UINT64_C(0x8080808080808080)
typedef uint64_t swar_block; /* the first byte is the lowest, on any machine */
typedef uint64_t swar_mask;
#define SWAR_LAST ((swar_mask)1 << 63)

static inline swar_block swar_load(const char *at)
{
    uint64_t block;
    memcpy(&block, at, sizeof block);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    block = __builtin_bswap64(block);
#endif
    return block;
}

static inline void swar_store(char *to, swar_block block)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    block = __builtin_bswap64(block);
#endif
    memcpy(to, &block, sizeof block);
}

static inline swar_mask swar_below(swar_block block, unsigned char limit)
{
    return (block - SWAR_ONES * limit) & ~block & SWAR_HIGH;
}

static inline swar_mask swar_equal(swar_block block, char c)
{
    return swar_below(block ^ SWAR_ONES * (unsigned char)c, 1);
}

static inline swar_mask swar_control(swar_block block)
{
    return swar_below(block, 0x20);
}

static inline swar_mask swar_high(swar_block block)
{
    return block & SWAR_HIGH;
}

static inline size_t swar_first(swar_mask mask)
{
    return (size_t)__builtin_ctzll(mask) / 8;
}

#endif
#endif
