/* swar: without SSE2, as on machines that have none. With it, test_json_view.c covers it. */
#define SWAR_PORTABLE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/swar.h"

/* All values of a byte at each place, between neighbours that could mislead a subtraction. */
static void first_place_of_a_mask_is_exact(void **state)
{
    (void)state;
    static const unsigned char neighbours[] = {0,    1,    0x1f, 0x20, 0x21, 0x22, 0x23,
                                               0x5b, 0x5c, 0x5d, 0x7f, 0x80, 0xff};
    for (size_t n = 0; n < sizeof neighbours; n++)
        for (unsigned value = 0; value < 256; value++)
            for (size_t place = 0; place < SWAR_BYTES; place++) {
                char bytes[SWAR_BYTES];
                memset(bytes, neighbours[n], sizeof bytes);
                bytes[place] = (char)value;
                size_t quote = SWAR_BYTES, control = SWAR_BYTES, high = SWAR_BYTES;
                for (size_t i = SWAR_BYTES; i-- > 0;) {
                    quote = bytes[i] == '"' ? i : quote;
                    control = (unsigned char)bytes[i] < 0x20 ? i : control;
                    high = (unsigned char)bytes[i] >= 0x80 ? i : high;
                }
                swar_block block = swar_load(bytes);
                swar_mask masks[] = {swar_equal(block, '"'), swar_control(block), swar_high(block)};
                size_t expected[] = {quote, control, high};
                for (int i = 0; i < 3; i++) {
                    assert_int_equal(masks[i] != 0, expected[i] < SWAR_BYTES);
                    if (masks[i] != 0)
                        assert_int_equal(swar_first(masks[i]), expected[i]);
                }
                char stored[SWAR_BYTES];
                swar_store(stored, block);
                assert_memory_equal(stored, bytes, sizeof bytes);
            }
}

static void last_place_of_a_mask_is_the_last_byte(void **state)
{
    (void)state;
    assert_int_equal(swar_first(SWAR_LAST), SWAR_BYTES - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_place_of_a_mask_is_exact),
        cmocka_unit_test(last_place_of_a_mask_is_the_last_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
