/* Prices of a model, as they are written: one map, or a list of maps. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "schemas/mem.h"

#define PRICE_MAX 1e6

static const struct {
    const char *key;
    size_t offset;
} amounts[] = {
    {"input", offsetof(struct config_price, input)},
    {"output", offsetof(struct config_price, output)},
    {"cached", offsetof(struct config_price, cached)},
    {"cache_write", offsetof(struct config_price, cache_write)},
};

#define N_AMOUNTS (sizeof amounts / sizeof *amounts)

/* 2026-12-01 */
static bool is_date(const char *text)
{
    static const char form[] = "dddd-dd-dd";
    size_t i = 0;
    for (; form[i] != '\0' && text[i] != '\0'; i++)
        if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i])
            return false;
    if (form[i] != '\0' || text[i] != '\0')
        return false;
    int month = (text[5] - '0') * 10 + text[6] - '0', day = (text[8] - '0') * 10 + text[9] - '0';
    return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

static int set_member(struct config_reader *reader, const struct yaml_node *child,
                      struct config_price *price)
{
    static const char *const names[] = {"input", "output",       "cached", "cache_write",
                                        "from",  "above_tokens", NULL};
    const char *key = child->key->text, *text;
    double value;
    if (strcmp(key, "from") == 0) {
        if (!yaml_str(child, &text) || !is_date(text))
            return config_problem(reader, child, "`from` must be a date such as \"2026-12-01\"");
        return config_replace_text(&price->from, text, child->len);
    }
    if (strcmp(key, "above_tokens") == 0)
        return yaml_int(child, &price->above_tokens) && price->above_tokens >= 0
                   ? 0
                   : config_problem(reader, child, "`above_tokens` must be a number of tokens");
    for (size_t i = 0; i < N_AMOUNTS; i++) {
        if (strcmp(key, amounts[i].key) != 0)
            continue;
        if (!yaml_num(child, &value) || value < 0 || value > PRICE_MAX)
            return config_problem(reader, child,
                                  "`%s` must be a price in USD per million tokens, from 0 to %g",
                                  key, PRICE_MAX);
        memcpy((char *)price + amounts[i].offset, &value, sizeof value);
        return 0;
    }
    const char *nearest = yaml_nearest(key, names);
    return config_problem(reader, child->key, "unknown key `%.64s` of a price%s%s%s", key,
                          nearest != NULL ? "; did you mean `" : "", nearest != NULL ? nearest : "",
                          nearest != NULL ? "`?" : "");
}

static int set_price(struct config_reader *reader, const struct yaml_node *node,
                     struct config_price *price)
{
    if (node->type != YAML_MAP)
        return config_problem(reader, node, "`price` must be a map such as {input: 2, output: 10}");
    for (const struct yaml_node *child = node->first; child != NULL; child = child->next) {
        int rc = yaml_is_null(child) ? 0 : set_member(reader, child, price);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* The last that applies counts: of equal bands the later date must come later, or the earlier one
 * would count for ever. */
static int check_order(struct config_reader *reader, const struct yaml_node *list,
                       const struct config_price *prices, size_t count)
{
    for (size_t i = 1; i < count; i++)
        for (size_t before = 0; before < i; before++) {
            const char *earlier = prices[before].from, *later = prices[i].from;
            if (prices[i].above_tokens == prices[before].above_tokens &&
                (later == NULL || (earlier != NULL && strcmp(earlier, later) >= 0)))
                return config_problem(reader, yaml_at(list, i),
                                      "prices must be in the order of their dates: `from` must be "
                                      "later than that of the prices before");
        }
    return 0;
}

static void free_prices(struct config_price *prices, size_t count)
{
    for (size_t i = 0; prices != NULL && i < count; i++)
        free(prices[i].from);
    free(prices);
}

static void release_prices(const struct config_field *field, void *base)
{
    struct config_price **at = config_member(field, base);
    size_t *count = config_count_of(field, base);
    free_prices(*at, *count);
    *at = NULL;
    *count = 0;
}

static int set_prices(struct config_reader *reader, const struct config_field *field,
                      const struct yaml_node *node, void *base)
{
    size_t count = node->type == YAML_SEQ ? node->count : 1;
    if (count > CONFIG_MAX_ITEMS)
        return config_problem(reader, node, "`price` has more than %d items", CONFIG_MAX_ITEMS);
    struct config_price *prices = mem_zalloc((count + 1) * sizeof *prices);
    if (prices == NULL)
        return -ENOMEM;
    const struct yaml_node *item = node->type == YAML_SEQ ? node->first : node;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++, item = item->next) {
        prices[i].cached = prices[i].cache_write = -1;
        rc = set_price(reader, item, &prices[i]);
    }
    if (rc == 0)
        rc = check_order(reader, node, prices, count);
    if (rc != 0) {
        free_prices(prices, count);
        return rc;
    }
    release_prices(field, base);
    *(struct config_price **)config_member(field, base) = prices;
    *config_count_of(field, base) = count;
    return 0;
}

static void print_prices(const struct config_field *field, const void *base, struct buf *out)
{
    const struct config_price *prices;
    size_t count;
    memcpy(&prices, (const char *)base + field->offset, sizeof prices);
    memcpy(&count, (const char *)base + field->count_offset, sizeof count);
    if (prices == NULL)
        return; /* an empty list is printed: the registry must not fill it */
    buf_add_char(out, '[');
    for (size_t i = 0; i < count; i++) {
        buf_add_str(out, i == 0 ? "{" : ", {");
        if (prices[i].from != NULL)
            buf_printf(out, "from: \"%s\", ", prices[i].from);
        if (prices[i].above_tokens > 0)
            buf_printf(out, "above_tokens: %lld, ", (long long)prices[i].above_tokens);
        for (size_t a = 0, n = 0; a < N_AMOUNTS; a++) {
            double value;
            memcpy(&value, (const char *)&prices[i] + amounts[a].offset, sizeof value);
            if (value >= 0)
                buf_printf(out, "%s%s: %.17g", n++ == 0 ? "" : ", ", amounts[a].key, value);
        }
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
}

const struct config_kind config_kind_prices = {"prices", set_prices, print_prices, release_prices};
