/* Reading values out of a YAML tree; yaml.c builds it. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/yaml.h"
#include "schemas/mem.h"

const struct yaml_node *yaml_map_get(const struct yaml_node *node, const char *key)
{
    if (node == NULL || node->type != YAML_MAP)
        return NULL;
    for (const struct yaml_node *child = node->first; child != NULL; child = child->next)
        if (strcmp(child->key->text, key) == 0)
            return child;
    return NULL;
}

const struct yaml_node *yaml_at(const struct yaml_node *node, size_t index)
{
    const struct yaml_node *child = node != NULL ? node->first : NULL;
    while (child != NULL && index-- > 0)
        child = child->next;
    return child;
}

/* Whether the node is a plain scalar that reads like one of the words (ended by NULL). */
static bool is_word(const struct yaml_node *node, const char *const *words)
{
    if (node->type != YAML_SCALAR || !node->plain)
        return false;
    for (; *words != NULL; words++)
        if (strcmp(node->text, *words) == 0)
            return true;
    return false;
}

bool yaml_is_null(const struct yaml_node *node)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    return node == NULL || is_word(node, nulls);
}

bool yaml_str(const struct yaml_node *node, const char **ret)
{
    if (node == NULL || node->type != YAML_SCALAR || yaml_is_null(node))
        return false;
    *ret = node->text;
    return true;
}

static bool is_number(const struct yaml_node *node)
{
    return node != NULL && node->type == YAML_SCALAR && node->plain && node->len > 0 &&
           strspn(node->text, "0123456789+-.eE") == node->len;
}

bool yaml_int(const struct yaml_node *node, int64_t *ret)
{
    if (!is_number(node))
        return false;
    char *end;
    errno = 0;
    long long value = strtoll(node->text, &end, 10);
    if (errno != 0 || end == node->text || *end != '\0')
        return false;
    *ret = value;
    return true;
}

bool yaml_num(const struct yaml_node *node, double *ret)
{
    if (!is_number(node))
        return false;
    char *end;
    double value = strtod(node->text, &end);
    if (end == node->text || *end != '\0' || !isfinite(value))
        return false;
    *ret = value;
    return true;
}

bool yaml_bool(const struct yaml_node *node, bool *ret)
{
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    if (node == NULL || (!is_word(node, trues) && !is_word(node, falses)))
        return false;
    *ret = is_word(node, trues);
    return true;
}

int yaml_get_str(const struct yaml *yaml, const struct yaml_node *map, const char *key,
                 const char **ret, struct err *err)
{
    const struct yaml_node *node = yaml_map_get(map, key);
    if (yaml_is_null(node) || yaml_str(node, ret))
        return 0;
    return yaml_fail(yaml, node, err, "`%s` must be text", key);
}

int yaml_get_int(const struct yaml *yaml, const struct yaml_node *map, const char *key, int64_t min,
                 int64_t max, int64_t *ret, struct err *err)
{
    const struct yaml_node *node = yaml_map_get(map, key);
    int64_t value;
    if (yaml_is_null(node))
        return 0;
    if (!yaml_int(node, &value))
        return yaml_fail(yaml, node, err, "`%s` must be a whole number", key);
    if (value < min || value > max)
        return yaml_fail(yaml, node, err, "`%s` must be between %lld and %lld", key, (long long)min,
                         (long long)max);
    *ret = value;
    return 0;
}

int yaml_get_num(const struct yaml *yaml, const struct yaml_node *map, const char *key, double min,
                 double max, double *ret, struct err *err)
{
    const struct yaml_node *node = yaml_map_get(map, key);
    double value;
    if (yaml_is_null(node))
        return 0;
    if (!yaml_num(node, &value))
        return yaml_fail(yaml, node, err, "`%s` must be a number", key);
    if (value < min || value > max)
        return yaml_fail(yaml, node, err, "`%s` must be between %g and %g", key, min, max);
    *ret = value;
    return 0;
}

int yaml_get_bool(const struct yaml *yaml, const struct yaml_node *map, const char *key, bool *ret,
                  struct err *err)
{
    const struct yaml_node *node = yaml_map_get(map, key);
    if (yaml_is_null(node) || yaml_bool(node, ret))
        return 0;
    return yaml_fail(yaml, node, err, "`%s` must be true or false", key);
}

int yaml_get_strs(const struct yaml *yaml, const struct yaml_node *map, const char *key,
                  const char ***ret, size_t *ret_count, struct err *err)
{
    const struct yaml_node *node = yaml_map_get(map, key);
    if (yaml_is_null(node))
        return 0;
    size_t count = node->type == YAML_SEQ ? node->count : 1, n = 0;
    const char **texts = mem_zalloc(count * sizeof *texts);
    if (texts == NULL)
        return err_set(err, -ENOMEM, "%s: out of memory", yaml_name(yaml));
    const struct yaml_node *item = node->type == YAML_SEQ ? node->first : node;
    for (; n < count; item = item->next)
        if (!yaml_str(item, &texts[n++])) {
            free(texts);
            return yaml_fail(yaml, item, err, "`%s` must be a list of texts", key);
        }
    *ret = texts;
    *ret_count = count;
    return 0;
}

int yaml_check_keys(const struct yaml *yaml, const struct yaml_node *node, const char *what,
                    const char *const *keys, struct err *err)
{
    if (node->type != YAML_MAP)
        return yaml_fail(yaml, node, err, "%s must be a map of `key: value`", what);
    for (const struct yaml_node *child = node->first; child != NULL; child = child->next) {
        size_t i = 0;
        while (keys[i] != NULL && strcmp(keys[i], child->key->text) != 0)
            i++;
        if (keys[i] != NULL)
            continue;
        const char *nearest = yaml_nearest(child->key->text, keys);
        if (nearest != NULL)
            return yaml_fail(yaml, child->key, err, "unknown key `%.64s` in %s; did you mean `%s`?",
                             child->key->text, what, nearest);
        return yaml_fail(yaml, child->key, err, "unknown key `%.64s` in %s", child->key->text,
                         what);
    }
    return 0;
}

#define NEAREST_MAX 64 /* longer words are not compared */

/* Damerau-Levenshtein (optimal string alignment): a swap of neighbours costs one. */
static size_t edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t rows[3][NEAREST_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= b_len; j++)
        last[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        now[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        size_t *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[b_len];
}

const char *yaml_nearest(const char *word, const char *const *choices)
{
    const char *nearest = NULL;
    size_t len = strlen(word), best = (len + 2) / 3; /* about a third may be wrong */
    for (; len <= NEAREST_MAX && *choices != NULL; choices++) {
        size_t choice_len = strlen(*choices);
        if (choice_len > NEAREST_MAX)
            continue;
        bool begins = len >= 3 && strncmp(word, *choices, len) == 0;
        size_t distance = begins ? 1 : edit_distance(word, len, *choices, choice_len);
        if (distance < best || (distance == best && nearest == NULL)) {
            best = distance;
            nearest = *choices;
        }
    }
    return nearest;
}
