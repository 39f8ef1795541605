/* Commands as bytes, and the hash slot of what they are about. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/redis_internal.h"
#include "schemas/mem.h"

static size_t digits_of(size_t number)
{
    size_t digits = 1;
    while (number >= 10) {
        number /= 10;
        digits++;
    }
    return digits;
}

/* In RESP: *argc CRLF, then $len CRLF bytes CRLF for each argument. */
struct redis_command *redis_command_new(int argc, const char *const *argv, const size_t *lens)
{
    size_t total = 1 + digits_of((size_t)argc) + 2;
    for (int i = 0; i < argc; i++) {
        size_t len = lens != NULL ? lens[i] : strlen(argv[i]);
        total += 1 + digits_of(len) + 2 + len + 2;
    }
    struct redis_command *command = mem_must_realloc(NULL, sizeof *command + total + 1);
    *command = (struct redis_command){.len = total, .slot = -1};
    char *at = command->bytes + sprintf(command->bytes, "*%d\r\n", argc);
    for (int i = 0; i < argc; i++) {
        size_t len = lens != NULL ? lens[i] : strlen(argv[i]);
        at += sprintf(at, "$%zu\r\n", len);
        if (len > 0)
            memcpy(at, argv[i], len);
        at += len;
        *at++ = '\r';
        *at++ = '\n';
    }
    return command;
}

struct redis_command *redis_command_load(struct redis_script *script)
{
    const char *argv[] = {"SCRIPT", "LOAD", script->source};
    struct redis_command *command = redis_command_new(3, argv, NULL);
    command->script = script;
    command->kind = COMMAND_LOAD;
    return command;
}

#ifdef ORCH_TESTING
const char *redis_command_label(const struct redis_command *command)
{
    static char word[24];
    if (command->script != NULL)
        return command->kind == COMMAND_LOAD ? "LOAD" : command->script->name;
    const char *at = strchr(command->bytes, '$');
    at = at != NULL ? strchr(at, '\n') : NULL;
    at = at != NULL ? at + 1 : "";
    snprintf(word, sizeof word, "%.*s", (int)strcspn(at, "\r"), at);
    return word;
}
#endif

/* --- slots -------------------------------------------------------------------------------- */

/* CRC-16/XMODEM, as the Redis Cluster specification says. */
static unsigned crc16(const char *data, size_t len)
{
    unsigned crc = 0;
    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned)(unsigned char)data[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 0x8000) != 0 ? (crc << 1 ^ 0x1021) & 0xffff : crc << 1;
    }
    return crc;
}

int redis_slot(const char *key, size_t len)
{
    /* What is between the first { and the next } counts alone, unless that is nothing. */
    const char *open = memchr(key, '{', len);
    size_t left = open != NULL ? len - (size_t)(open + 1 - key) : 0;
    const char *close = open != NULL ? memchr(open + 1, '}', left) : NULL;
    if (close != NULL && close > open + 1) {
        key = open + 1;
        len = (size_t)(close - key);
    }
    return (int)(crc16(key, len) % REDIS_SLOTS);
}

/* Where a command's first key is, if not in argv[1]; 0: it has none. */
static const struct {
    const char *name;
    int key;
} key_places[] = {
    {"EVALSHA", 3},   {"EVAL", 3},    {"PING", 0},     {"PUBLISH", 0},   {"SCRIPT", 0},
    {"TIME", 0},      {"INFO", 0},    {"CONFIG", 0},   {"CLUSTER", 0},   {"SCAN", 0},
    {"DBSIZE", 0},    {"CLIENT", 0},  {"ACL", 0},      {"WAIT", 0},      {"ROLE", 0},
    {"ECHO", 0},      {"COMMAND", 0}, {"LATENCY", 0},  {"SLOWLOG", 0},   {"LASTSAVE", 0},
    {"SUBSCRIBE", 0}, {"DEBUG", 0},   {"FLUSHALL", 0}, {"FLUSHDB", 0},   {"BGREWRITEAOF", 0},
    {"OBJECT", 2},    {"MEMORY", 2},  {"XGROUP", 2},   {"XINFO", 2},     {"HELLO", 0},
    {"SAVE", 0},      {"BGSAVE", 0},  {"SHUTDOWN", 0}, {"REPLICAOF", 0}, {"READONLY", 0},
};

static bool is_word(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && strncasecmp(text, word, len) == 0;
}

int redis_command_slot(int argc, const char *const *argv, const size_t *lens)
{
#define LEN(at) (lens != NULL ? lens[at] : strlen(argv[at]))
    int key = 1;
    for (size_t i = 0; i < sizeof key_places / sizeof *key_places; i++)
        if (is_word(argv[0], LEN(0), key_places[i].name))
            key = key_places[i].key;
    if (key == 3 && argc > 2 && is_word(argv[2], LEN(2), "0"))
        key = 0; /* a script without keys */
    if (is_word(argv[0], LEN(0), "XREAD")) {
        while (key < argc && !is_word(argv[key], LEN(key), "STREAMS"))
            key++;
        key++;
    }
    return key > 0 && key < argc ? redis_slot(argv[key], LEN(key)) : -1;
#undef LEN
}
