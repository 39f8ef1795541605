/* What calls cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/price.h"

#define M 1000000
#define USD(amount) ((int64_t)((amount)*1e9 + 0.5))
#define DEC_1 1796083200000 /* 2026-12-01T00:00:00Z */

static struct config_price plain[] = {
    {.input = 3, .output = 15, .cached = 0.3, .cache_write = 3.75}};
static struct config_price without[] = {
    {.input = 3, .output = 15, .cached = -1, .cache_write = -1}};

static int64_t cost(const struct config_model *model, int64_t prompt, int64_t cached,
                    int64_t written, int64_t output)
{
    return price_nano_usd(model, DEC_1, &(struct price_usage){prompt, cached, written, output});
}

static void cost_follows_the_prices(void **state)
{
    (void)state;
    struct config_model model = {.prices = plain, .n_prices = 1};
    assert_int_equal(cost(&model, M, -1, -1, 100000), USD(4.5));
    assert_int_equal(cost(&model, M, 500000, -1, 0), USD(1.65));
    assert_int_equal(cost(&model, M, 500000, 500000, 0), USD(0.15 + 1.875));
    assert_int_equal(cost(&model, 10, 500000, 7, 0), 3000); /* no more than there are */
    assert_int_equal(cost(&model, -1, -1, -1, -1), 0);
    model.prices = without;
    assert_int_equal(cost(&model, M, 500000, 500000, 0), USD(3));
    model.n_prices = 0;
    assert_int_equal(cost(&model, M, 0, 0, M), 0);
}

static void a_price_counts_from_its_day(void **state)
{
    (void)state;
    struct config_price prices[] = {
        {.input = 2, .output = 10, .cached = -1, .cache_write = -1},
        {.from = (char *)"2026-12-01", .input = 4, .output = 20, .cached = -1, .cache_write = -1}};
    struct config_model model = {.prices = prices, .n_prices = 2};
    assert_ptr_equal(price_at(&model, DEC_1 - 1, 0), &prices[0]);
    assert_ptr_equal(price_at(&model, DEC_1, 0), &prices[1]);
}

static void a_long_prompt_has_its_own_price(void **state)
{
    (void)state;
    struct config_price prices[] = {
        {.input = 1, .output = 5, .cached = -1, .cache_write = -1},
        {.above_tokens = 1000, .input = 5, .output = 25, .cached = -1, .cache_write = -1}};
    struct config_model model = {.prices = prices, .n_prices = 2};
    assert_int_equal(cost(&model, 1000, 0, 0, 1000), USD(0.006));
    assert_int_equal(cost(&model, 1001, 0, 0, 1000), USD(0.030005));
}

static void nothing_that_may_happen_costs_more_than_the_worst_case(void **state)
{
    (void)state;
    struct config_price prices[] = {
        {.input = 1, .output = 50, .cached = -1, .cache_write = 1.25},
        {.above_tokens = 1000, .input = 5, .output = 25, .cached = 0.5, .cache_write = 6}};
    struct config_model model = {.prices = prices, .n_prices = 2};
    for (int64_t most = 500; most <= 2000; most += 500) {
        int64_t worst = price_worst_nano_usd(&model, DEC_1, most, 300);
        for (int64_t prompt = 0; prompt <= most; prompt += 250)
            for (int64_t written = 0; written <= prompt; written += 250)
                assert_true(cost(&model, prompt, 0, written, 300) <= worst);
    }
}

static void the_worst_case_knows_the_price_of_tomorrow(void **state)
{
    (void)state;
    struct config_price prices[] = {
        {.input = 1, .output = 1, .cached = -1, .cache_write = -1},
        {.from = (char *)"2026-12-01", .input = 9, .output = 9, .cached = -1, .cache_write = -1}};
    struct config_model model = {.prices = prices, .n_prices = 2};
    assert_int_equal(price_worst_nano_usd(&model, DEC_1 - 1, M, 0), USD(9));
    assert_int_equal(price_worst_nano_usd(&model, DEC_1 - 2LL * 24 * 3600 * 1000, M, 0), USD(1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cost_follows_the_prices),
        cmocka_unit_test(a_price_counts_from_its_day),
        cmocka_unit_test(a_long_prompt_has_its_own_price),
        cmocka_unit_test(nothing_that_may_happen_costs_more_than_the_worst_case),
        cmocka_unit_test(the_worst_case_knows_the_price_of_tomorrow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
