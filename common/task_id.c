#include "common/task_id.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"
#include "schemas/message.h"

static const char base32[] = "0123456789abcdefghjkmnpqrstvwxyz";

#define TIME_DIGITS 9   /* 45 bits of ms: until the year 3084 */
#define RANDOM_DIGITS 7 /* 35 bits */

static uint64_t random_bits(void)
{
    uint64_t bits;
    if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        abort();
    return bits;
}

static void put_base32(char *at, int digits, uint64_t value)
{
    for (int i = digits - 1; i >= 0; i--) {
        at[i] = base32[value & 31];
        value >>= 5;
    }
}

void task_id_make(char ret[TASK_ID_SIZE])
{
    ret[0] = 't';
    put_base32(ret + 1, TIME_DIGITS, (uint64_t)clock_wall_ms());
    put_base32(ret + 1 + TIME_DIGITS, RANDOM_DIGITS, random_bits());
    ret[1 + TIME_DIGITS + RANDOM_DIGITS] = '\0';
}

bool task_id_valid(const char *id)
{
    size_t len = strlen(id);
    return len == 1 + TIME_DIGITS + RANDOM_DIGITS && id[0] == 't' &&
           strspn(id + 1, base32) == len - 1;
}

bool sub_id_valid(const char *id)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(id);
    return len >= 1 && len <= SUB_ID_MAX && strspn(id, allowed) == len;
}

int task_shard(const char *id)
{
    uint32_t hash = 2166136261u;
    for (; *id != '\0'; id++)
        hash = (hash ^ (unsigned char)*id) * 16777619u;
    return (int)(hash % SHARD_COUNT);
}

void boot_nonce_make(char ret[17])
{
    snprintf(ret, 17, "%016llx", (unsigned long long)random_bits());
}
