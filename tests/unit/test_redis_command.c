/* Hash slots of keys and commands, against the Redis Cluster specification. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/redis_internal.h"

static void slots_are_those_of_the_specification(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        int slot;
    } rows[] = {
        {"123456789", 0x31c3}, /* the check value of CRC-16/XMODEM */
        {"foo", 12182},        {"", 0}, {"{foo}", 12182}, {"a{foo}b{bar}", 12182},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(redis_slot(rows[i].key, strlen(rows[i].key)), rows[i].slot);
    static const char *const pairs[][2] = {
        {"{user1000}.following", "{user1000}.followers"},
        {"orch:{s7}:task:T", "s7"},
        {"foo{{bar}}zap", "{bar"},
        {"foo{bar}{zap}", "bar"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        assert_int_equal(redis_slot(pairs[i][0], strlen(pairs[i][0])),
                         redis_slot(pairs[i][1], strlen(pairs[i][1])));
    /* Nothing between braces, or no end: all of it counts. */
    assert_int_not_equal(redis_slot("foo{}{bar}", 10), redis_slot("bar", 3));
    assert_int_not_equal(redis_slot("foo{bar", 7), redis_slot("bar", 3));
}

static int slot_of(const char *words)
{
    const char *argv[16];
    size_t lens[16];
    int argc = 0;
    for (; *words != '\0'; words += strspn(words, " ")) {
        argv[argc] = words;
        lens[argc] = strcspn(words, " ");
        words += lens[argc++];
    }
    return redis_command_slot(argc, argv, lens);
}

static void the_key_of_a_command_is_found(void **state)
{
    (void)state;
    int foo = redis_slot("foo", 3);
    static const char *const keyed[] = {
        "GET foo",
        "hget foo bar",
        "EVALSHA x 1 foo",
        "evalsha x 2 foo bar",
        "OBJECT freq foo",
        "XREAD COUNT 1 BLOCK 3 STREAMS foo 0",
        "xgroup CREATE foo g 0",
    };
    static const char *const keyless[] = {"PING",
                                          "TIME",
                                          "SCRIPT LOAD foo",
                                          "EVALSHA x 0 foo",
                                          "SCAN 0",
                                          "PUBLISH foo bar",
                                          "INFO foo",
                                          "XREAD COUNT",
                                          "GET",
                                          "WAIT 1 2"};
    for (size_t i = 0; i < sizeof keyed / sizeof *keyed; i++)
        assert_int_equal(slot_of(keyed[i]), foo);
    for (size_t i = 0; i < sizeof keyless / sizeof *keyless; i++)
        assert_int_equal(slot_of(keyless[i]), -1);
}

static void addresses_are_parsed_strictly(void **state)
{
    (void)state;
    struct redis_place place = {0};
    static const char *const bad[] = {
        "",     "h",     ":1",    "h:",     "h:0",   "h:65536",
        "h:1x", "h h:1", "u@h:1", "[::1:1", "h/1:2", "h:99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(redis_place_parse(bad[i], strlen(bad[i]), &place));
    assert_true(redis_place_parse("[::1]:6379", 10, &place));
    assert_string_equal(place.host, "::1");
    assert_int_equal(place.port, 6379);
    char *name = redis_place_name(&place);
    assert_string_equal(name, "[::1]:6379");
    free(name);
    redis_place_release(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_those_of_the_specification),
        cmocka_unit_test(the_key_of_a_command_is_found),
        cmocka_unit_test(addresses_are_parsed_strictly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
