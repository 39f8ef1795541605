#include "common/price.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DAY_MS (24 * 3600 * 1000)

/* Unix time as the date in UTC, which compares like a text. */
static void date_of(char ret[16], int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    strftime(ret, 16, "%Y-%m-%d", &tm);
}

const struct config_price *price_at(const struct config_model *model, int64_t wall_ms,
                                    int64_t prompt_tokens)
{
    const struct config_price *found = NULL;
    char today[16];
    date_of(today, wall_ms);
    for (size_t i = 0; i < model->n_prices; i++) {
        const struct config_price *price = &model->prices[i];
        bool begun = price->from == NULL || strcmp(price->from, today) <= 0;
        if (begun && (price->above_tokens == 0 || prompt_tokens > price->above_tokens))
            found = price;
    }
    return found;
}

static double at_least_zero(int64_t tokens)
{
    return tokens > 0 ? (double)tokens : 0;
}

static double or_input(double price, const struct config_price *prices)
{
    return price >= 0 ? price : prices->input;
}

/* USD per million tokens are 1e-6 USD a token, which is 1000 units of 1e-9. */
static int64_t nano(double micro_usd)
{
    return (int64_t)ceil(micro_usd * 1000 - 1e-6);
}

int64_t price_nano_usd(const struct config_model *model, int64_t wall_ms,
                       const struct price_usage *usage)
{
    const struct config_price *price = price_at(model, wall_ms, usage->prompt);
    if (price == NULL)
        return 0;
    double prompt = at_least_zero(usage->prompt);
    double cached = fmin(at_least_zero(usage->cached), prompt);
    double written = fmin(at_least_zero(usage->cache_write), prompt - cached);
    return nano((prompt - cached - written) * price->input +
                cached * or_input(price->cached, price) +
                written * or_input(price->cache_write, price) +
                at_least_zero(usage->output) * price->output);
}

int64_t price_worst_nano_usd(const struct config_model *model, int64_t wall_ms,
                             int64_t prompt_tokens, int64_t output_tokens)
{
    double worst = 0;
    char tomorrow[16];
    date_of(tomorrow, wall_ms + DAY_MS); /* a call may last until then */
    for (size_t i = 0; i < model->n_prices; i++) {
        const struct config_price *price = &model->prices[i];
        if ((price->from != NULL && strcmp(price->from, tomorrow) > 0) ||
            (price->above_tokens > 0 && prompt_tokens <= price->above_tokens))
            continue;
        double dearest = fmax(price->input, fmax(price->cached, price->cache_write));
        worst = fmax(worst, at_least_zero(prompt_tokens) * dearest +
                                at_least_zero(output_tokens) * price->output);
    }
    return nano(worst);
}
