/* The types of values that a configuration has: reading, printing and freeing each. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "schemas/mem.h"

/* The config_member that the field describes; tables make sure that the type is right. */
void *config_member(const struct config_field *field, void *base)
{
    return (char *)base + field->offset;
}

static const void *member_of(const struct config_field *field, const void *base)
{
    return (const char *)base + field->offset;
}

size_t *config_count_of(const struct config_field *field, void *base)
{
    return (size_t *)(void *)((char *)base + field->count_offset);
}

char *config_text(const char *format, ...)
{
    struct buf out = {0};
    va_list args;
    va_start(args, format);
    buf_vprintf(&out, format, args);
    va_end(args);
    char *text = buf_take(&out, NULL);
    if (text == NULL)
        buf_release(&out);
    return text;
}

void config_free_texts(char **texts, size_t count)
{
    for (size_t i = 0; texts != NULL && i < count; i++)
        free(texts[i]);
    free(texts);
}

/* --- printing text ------------------------------------------------------------------------ */

static bool is_plain(const char *text)
{
    static const char *const words[] = {"null", "Null",  "NULL",  "true", "True",
                                        "TRUE", "false", "False", "FALSE"};
    static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-";
    if (*text == '\0' || *text == '-' || *text == '.' || strspn(text, safe) != strlen(text))
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0)
            return false;
    return true;
}

/* Characters beyond ASCII that a YAML reader refuses or takes for line ends. text is UTF-8. */
static unsigned special(const unsigned char *text)
{
    if (text[0] == 0xc2 && text[1] < 0xa0)
        return 0x80u + (text[1] & 0x3fu);
    if (text[0] < 0xe2 || text[0] > 0xef || text[1] == 0 || text[2] == 0)
        return 0;
    unsigned code = (text[0] & 0xfu) << 12 | (text[1] & 0x3fu) << 6 | (text[2] & 0x3fu);
    bool odd = code == 0x2028 || code == 0x2029 || code == 0xfeff || code >= 0xfffe;
    return odd ? code : 0;
}

void config_add_text(struct buf *out, const char *text)
{
    if (is_plain(text)) {
        buf_add_str(out, text);
        return;
    }
    buf_add_char(out, '"');
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        unsigned code = *at >= 0x80 ? special(at) : 0;
        if (*at == '"' || *at == '\\')
            buf_printf(out, "\\%c", *at);
        else if (*at == '\n')
            buf_add_str(out, "\\n");
        else if (*at == '\t')
            buf_add_str(out, "\\t");
        else if (*at < 0x20 || *at == 0x7f)
            buf_printf(out, "\\x%02X", *at);
        else if (code != 0)
            buf_printf(out, "\\u%04X", code);
        else
            buf_add_char(out, (char)*at);
        if (code != 0)
            at += code < 0x800 ? 1 : 2;
    }
    buf_add_char(out, '"');
}

static void print_list(char *const *texts, size_t count, struct buf *out)
{
    buf_add_char(out, '[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_add_str(out, ", ");
        config_add_text(out, texts[i]);
    }
    buf_add_char(out, ']');
}

/* --- text --------------------------------------------------------------------------------- */

int config_replace_text(char **at, const char *text, size_t len)
{
    char *copy = mem_strndup(text, len);
    if (copy == NULL)
        return -ENOMEM;
    free(*at);
    *at = copy;
    return 0;
}

static int set_text(struct config_reader *reader, const struct config_field *field,
                    const struct yaml_node *node, void *base)
{
    const char *text;
    if (!yaml_str(node, &text))
        return config_problem(reader, node, "`%s` must be text", field->key);
    if (*text == '\0' && strcmp(field->key, "system") != 0)
        return config_problem(reader, node, "`%s` must not be empty", field->key);
    return config_replace_text(config_member(field, base), text, node->len);
}

void config_print_text(const struct config_field *field, const void *base, struct buf *out)
{
    const char *text = *(char *const *)member_of(field, base);
    if (text != NULL)
        config_add_text(out, text);
}

void config_release_text(const struct config_field *field, void *base)
{
    char **at = config_member(field, base);
    free(*at);
    *at = NULL;
}

const struct config_kind config_kind_text = {"text", set_text, config_print_text,
                                             config_release_text};

/* --- lists of text ------------------------------------------------------------------------ */

int config_copy_texts(struct config_reader *reader, const struct config_field *field,
                      const struct yaml_node *node, char ***ret, size_t *ret_count)
{
    if (node->type == YAML_MAP)
        return config_problem(reader, node, "`%s` must be a list of texts", field->key);
    size_t count = node->type == YAML_SEQ ? node->count : 1, n = 0;
    if (count > CONFIG_MAX_ITEMS)
        return config_problem(reader, node, "`%s` has more than %d items", field->key,
                              CONFIG_MAX_ITEMS);
    char **texts = mem_zalloc((count + 1) * sizeof *texts); /* an empty list is not NULL */
    if (texts == NULL)
        return -ENOMEM;
    const struct yaml_node *item = node->type == YAML_SEQ ? node->first : node;
    int rc = 0;
    for (; rc == 0 && n < count; item = item->next) {
        const char *text;
        if (!yaml_str(item, &text) || *text == '\0')
            rc = config_problem(reader, item, "`%s` must be a list of texts", field->key);
        else
            rc = config_replace_text(&texts[n++], text, item->len);
    }
    if (rc != 0) {
        config_free_texts(texts, n);
        return rc;
    }
    *ret = texts;
    *ret_count = count;
    return 0;
}

void config_release_texts(const struct config_field *field, void *base)
{
    char ***at = config_member(field, base);
    size_t *count = config_count_of(field, base);
    config_free_texts(*at, *count);
    *at = NULL;
    *count = 0;
}

static int set_texts(struct config_reader *reader, const struct config_field *field,
                     const struct yaml_node *node, void *base)
{
    char **texts = NULL;
    size_t count = 0;
    int rc = config_copy_texts(reader, field, node, &texts, &count);
    if (rc != 0)
        return rc;
    config_release_texts(field, base);
    *(char ***)config_member(field, base) = texts;
    *config_count_of(field, base) = count;
    return 0;
}

void config_print_texts(const struct config_field *field, const void *base, struct buf *out)
{
    size_t count = *(const size_t *)(const void *)((const char *)base + field->count_offset);
    char *const *texts = *(char **const *)member_of(field, base);
    if (texts != NULL) /* an empty list was written: the registry must not fill it */
        print_list(texts, count, out);
}

const struct config_kind config_kind_texts = {"list of text", set_texts, config_print_texts,
                                              config_release_texts};

/* --- numbers and words -------------------------------------------------------------------- */

static int set_int(struct config_reader *reader, const struct config_field *field,
                   const struct yaml_node *node, void *base)
{
    int64_t value;
    if (!yaml_int(node, &value) || (double)value < field->min || (double)value > field->max)
        return config_problem(reader, node, "`%s` must be a whole number from %.0f to %.0f",
                              field->key, field->min, field->max);
    *(int64_t *)config_member(field, base) = value;
    return 0;
}

static void print_int(const struct config_field *field, const void *base, struct buf *out)
{
    buf_printf(out, "%lld", (long long)*(const int64_t *)member_of(field, base));
}

static int set_num(struct config_reader *reader, const struct config_field *field,
                   const struct yaml_node *node, void *base)
{
    double value;
    if (!yaml_num(node, &value) || value < field->min || value > field->max)
        return config_problem(reader, node, "`%s` must be a number from %.15g to %.15g", field->key,
                              field->min, field->max);
    *(double *)config_member(field, base) = value;
    return 0;
}

/* The shortest form that reads back to the same number. */
static void print_num(const struct config_field *field, const void *base, struct buf *out)
{
    double value = *(const double *)member_of(field, base);
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_add_str(out, text);
}

static int set_bool(struct config_reader *reader, const struct config_field *field,
                    const struct yaml_node *node, void *base)
{
    bool value;
    if (!yaml_bool(node, &value))
        return config_problem(reader, node, "`%s` must be true or false", field->key);
    *(bool *)config_member(field, base) = value;
    return 0;
}

static void print_bool(const struct config_field *field, const void *base, struct buf *out)
{
    buf_add_str(out, *(const bool *)member_of(field, base) ? "true" : "false");
}

/* "a, b or c" */
static void list_choices(const char *const *choices, char *out, size_t size)
{
    size_t len = 0;
    for (size_t i = 0; choices[i] != NULL && len < size; i++) {
        const char *before = i == 0 ? "" : choices[i + 1] == NULL ? " or " : ", ";
        int more = snprintf(out + len, size - len, "%s%s", before, choices[i]);
        len += more > 0 ? (size_t)more : 0;
    }
}

/* Checks that the node is one of the choices. */
static int check_choice(struct config_reader *reader, const char *key, const char *const *choices,
                        const struct yaml_node *node)
{
    const char *text = "";
    bool is_text = yaml_str(node, &text);
    for (size_t i = 0; is_text && choices[i] != NULL; i++)
        if (strcmp(choices[i], text) == 0)
            return 0;
    char all[256];
    list_choices(choices, all, sizeof all);
    const char *nearest = is_text ? yaml_nearest(text, choices) : NULL;
    if (nearest != NULL)
        return config_problem(reader, node, "`%s` must be %s, not `%.64s`; did you mean `%s`?", key,
                              all, text, nearest);
    return config_problem(reader, node, "`%s` must be %s", key, all);
}

static int set_choice(struct config_reader *reader, const struct config_field *field,
                      const struct yaml_node *node, void *base)
{
    int rc = check_choice(reader, field->key, field->choices, node);
    return rc != 0 ? rc : set_text(reader, field, node, base);
}

static int set_choices(struct config_reader *reader, const struct config_field *field,
                       const struct yaml_node *node, void *base)
{
    const struct yaml_node *item = node->type == YAML_SEQ ? node->first : node;
    for (; item != NULL; item = node->type == YAML_SEQ ? item->next : NULL) {
        int rc = check_choice(reader, field->key, field->choices, item);
        if (rc != 0)
            return rc;
    }
    return set_texts(reader, field, node, base);
}

/* true: when the prompt asks for it. */
static int set_search(struct config_reader *reader, const struct config_field *field,
                      const struct yaml_node *node, void *base)
{
    bool value;
    if (!yaml_bool(node, &value))
        return set_choice(reader, field, node, base);
    const char *text = value ? "auto" : "never";
    return config_replace_text(config_member(field, base), text, strlen(text));
}

static int set_offline(struct config_reader *reader, const struct config_field *field,
                       const struct yaml_node *node, void *base)
{
    int rc = check_choice(reader, field->key, field->choices, node);
    if (rc == 0)
        *(bool *)config_member(field, base) = strcmp(node->text, "offline") == 0;
    return rc;
}

static void print_offline(const struct config_field *field, const void *base, struct buf *out)
{
    buf_add_str(out, *(const bool *)member_of(field, base) ? "offline" : "online");
}

static int set_api(struct config_reader *reader, const struct config_field *field,
                   const struct yaml_node *node, void *base)
{
    const char *names[32] = {0};
    size_t count;
    const struct config_api *table = config_apis(&count);
    for (size_t i = 0; i < count && i < 31; i++)
        names[i] = table[i].name;
    int rc = check_choice(reader, field->key, names, node);
    return rc != 0 ? rc : set_text(reader, field, node, base);
}

const struct config_kind config_kind_int = {"whole number", set_int, print_int, NULL};
const struct config_kind config_kind_num = {"number", set_num, print_num, NULL};
const struct config_kind config_kind_bool = {"true or false", set_bool, print_bool, NULL};
const struct config_kind config_kind_choice = {"word", set_choice, config_print_text,
                                               config_release_text};
const struct config_kind config_kind_choices = {"list of words", set_choices, config_print_texts,
                                                config_release_texts};
const struct config_kind config_kind_search = {"true or a word", set_search, config_print_text,
                                               config_release_text};
const struct config_kind config_kind_offline = {"word", set_offline, print_offline, NULL};
const struct config_kind config_kind_api = {"word", set_api, config_print_text,
                                            config_release_text};
