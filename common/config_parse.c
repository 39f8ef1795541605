/* Walks a YAML tree by the tables and fills the structs. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "common/paths.h"
#include "schemas/mem.h"

#define KEY_MAX 128

static void tell(struct config_reader *reader, bool warning, const struct yaml_node *at,
                 const char *format, va_list args)
{
    struct err what, sentence = {""};
    vsnprintf(what.text, sizeof what.text, format, args);
    yaml_fail(reader->yaml, at, &sentence, "%s", what.text);
    if (!warning && reader->errors++ == 0 && reader->err != NULL)
        *reader->err = sentence;
    if (reader->fn != NULL)
        reader->fn(reader->ctx, warning, sentence.text);
}

int config_problem(struct config_reader *reader, const struct yaml_node *at, const char *format,
                   ...)
{
    va_list args;
    va_start(args, format);
    tell(reader, false, at, format, args);
    va_end(args);
    return -EINVAL;
}

void config_warning(struct config_reader *reader, const struct yaml_node *at, const char *format,
                    ...)
{
    va_list args;
    va_start(args, format);
    tell(reader, true, at, format, args);
    va_end(args);
}

int config_defaults(struct config_reader *reader, const struct config_field *fields,
                    size_t n_fields, void *base)
{
    for (size_t i = 0; i < n_fields; i++) {
        if (fields[i].fallback == NULL)
            continue;
        struct yaml_node node = {
            .plain = true, .text = fields[i].fallback, .len = strlen(fields[i].fallback)};
        int rc = fields[i].kind->set(reader, &fields[i], &node, base);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* One map: its keys are those fields (and groups of fields) whose names begin with the prefix. */
struct scope {
    const char *what; /* "provider", for errors; "" at the top */
    const struct config_field *fields;
    size_t n_fields;
    const char *prefix; /* "" or ending with a dot */
};

/* The parts of names that may stand in this scope; repeated ones don't matter. */
static void list_keys(const struct scope *scope, char (*names)[KEY_MAX], const char **list,
                      size_t room)
{
    size_t n = 0, prefix = strlen(scope->prefix);
    for (size_t i = 0; i < scope->n_fields && n + 1 < room; i++) {
        const char *key = scope->fields[i].key;
        if (strncmp(key, scope->prefix, prefix) != 0)
            continue;
        snprintf(names[n], KEY_MAX, "%.*s", (int)strcspn(key + prefix, "."), key + prefix);
        list[n] = names[n];
        n++;
    }
    for (size_t i = 0; *scope->what == '\0' && prefix == 0 && i < config_n_sections; i++)
        if (n + 1 < room)
            list[n++] = config_sections[i].key;
    list[n] = NULL;
}

static int unknown_key(struct config_reader *reader, const struct scope *scope,
                       const struct yaml_node *key)
{
    char names[64][KEY_MAX];
    const char *list[64];
    char where[KEY_MAX + 16] = "";
    list_keys(scope, names, list, 64);
    size_t prefix = strlen(scope->prefix);
    if (prefix > 0)
        snprintf(where, sizeof where, " in `%.*s`", (int)prefix - 1, scope->prefix);
    else if (*scope->what != '\0')
        snprintf(where, sizeof where, " of a %s", scope->what);
    const char *nearest = yaml_nearest(key->text, list);
    if (nearest != NULL)
        return config_problem(reader, key, "unknown key `%.64s`%s; did you mean `%s`?", key->text,
                              where, nearest);
    char known[512] = "";
    for (size_t i = 0, len = 0; list[i] != NULL && len < sizeof known; i++)
        if (i == 0 || strcmp(list[i], list[i - 1]) != 0) /* members of a group are neighbours */
            len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i == 0 ? "" : ", ",
                                    list[i]);
    return config_problem(reader, key, "unknown key `%.64s`%s; there are %s", key->text, where,
                          known);
}

static int read_map(struct config_reader *reader, const struct scope *scope,
                    const struct yaml_node *node, void *base);

static int read_member(struct config_reader *reader, const struct scope *scope,
                       const struct yaml_node *child, void *base)
{
    char key[KEY_MAX];
    size_t len = (size_t)snprintf(key, sizeof key, "%s%.100s", scope->prefix, child->key->text);
    for (size_t i = 0; i < scope->n_fields; i++) {
        const struct config_field *field = &scope->fields[i];
        if (strcmp(field->key, key) == 0)
            return yaml_is_null(child) ? 0 : field->kind->set(reader, field, child, base);
        if (strncmp(field->key, key, len) == 0 && field->key[len] == '.') {
            struct scope inner = *scope;
            memcpy(key + len, ".", 2);
            inner.prefix = key;
            if (child->type != YAML_MAP && !yaml_is_null(child))
                return config_problem(reader, child, "`%s` must be a map of `key: value`",
                                      child->key->text);
            return read_map(reader, &inner, child, base);
        }
    }
    for (size_t i = 0; *scope->what == '\0' && i < config_n_sections; i++)
        if (strcmp(config_sections[i].key, key) == 0)
            return 0; /* read by read_sections() */
    return unknown_key(reader, scope, child->key);
}

/* Goes on after an error, so that all are told; stops only without memory. */
static int read_map(struct config_reader *reader, const struct scope *scope,
                    const struct yaml_node *node, void *base)
{
    for (const struct yaml_node *child = node->first; child != NULL; child = child->next)
        if (read_member(reader, scope, child, base) == -ENOMEM)
            return -ENOMEM;
    for (size_t i = 0; *scope->prefix == '\0' && i < scope->n_fields; i++)
        if (scope->fields[i].required && yaml_is_null(yaml_map_get(node, scope->fields[i].key)))
            config_problem(reader, node, "a %s needs `%s`", scope->what, scope->fields[i].key);
    return 0;
}

static bool name_is_valid(const struct config_section *section, const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > 64 || name[0] == '.' || name[0] == '-')
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool usual = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!usual && strchr("._-", c) == NULL &&
            (section->extra == NULL || strchr(section->extra, c) == NULL))
            return false;
    }
    return true;
}

static int check_name(struct config_reader *reader, const struct config_section *section,
                      const struct yaml_node *at, const char *items, size_t index)
{
    char *name, *other;
    memcpy(&name, items + index * section->size, sizeof name);
    if (name == NULL)
        return 0; /* told already: it is required */
    if (!name_is_valid(section, name))
        return config_problem(reader, at,
                              "`%.80s` is no name for a %s: 1 to 64 letters, digits and . _ -%s%s, "
                              "beginning with a letter, digit or _",
                              name, section->what, section->extra != NULL ? " " : "",
                              section->extra != NULL ? section->extra : "");
    for (size_t i = 0; section->list && i < index; i++) {
        memcpy(&other, items + i * section->size, sizeof other);
        if (other != NULL && strcmp(other, name) == 0)
            return config_problem(reader, at, "there is a %s `%s` already", section->what, name);
    }
    return 0;
}

int config_read_map(struct config_reader *reader, const char *what,
                    const struct config_field *fields, size_t n_fields,
                    const struct yaml_node *node, void *base)
{
    struct scope scope = {what, fields, n_fields, ""};
    return read_map(reader, &scope, node, base);
}

int config_read_item(struct config_reader *reader, const struct config_section *section,
                     const struct yaml_node *child, char *items, size_t index)
{
    char *item = items + index * section->size;
    const struct yaml_node *name = section->list ? yaml_map_get(child, "name") : child->key;
    int rc = config_defaults(reader, section->fields, section->n_fields, item);
    if (rc != 0)
        return rc;
    if (!section->list) {
        char *copy = mem_strndup(child->key->text, child->key->len);
        if (copy == NULL)
            return -ENOMEM;
        memcpy(item, &copy, sizeof copy);
    }
    if (child->type != YAML_MAP && (section->list || !yaml_is_null(child)))
        return config_problem(reader, child, "a %s must be a map of `key: value`", section->what);
    rc = config_read_map(reader, section->what, section->fields, section->n_fields, child, item);
    if (rc == 0)
        rc = check_name(reader, section, name != NULL ? name : child, items, index);
    return rc;
}

static int read_section(struct config_reader *reader, const struct config_section *section,
                        const struct yaml_node *node)
{
    enum yaml_type type = section->list ? YAML_SEQ : YAML_MAP;
    if (yaml_is_null(node))
        return 0;
    if (node->type != type)
        return config_problem(reader, node, "`%s` must be a %s", section->key,
                              section->list ? "list: `- {name: ...}` for each"
                                            : "map: `name: {...}` for each");
    if (node->count > CONFIG_MAX_ITEMS)
        return config_problem(reader, node, "`%s` has more than %d items", section->key,
                              CONFIG_MAX_ITEMS);
    char *items = mem_zalloc(node->count * section->size);
    if (items == NULL)
        return -ENOMEM;
    char *base = (char *)reader->config;
    memcpy(base + section->offset, &items, sizeof items);
    size_t count = 0;
    for (const struct yaml_node *child = node->first; child != NULL; child = child->next) {
        count++; /* before it is filled: config_free() frees what there is */
        memcpy(base + section->count_offset, &count, sizeof count);
        if (config_read_item(reader, section, child, items, count - 1) == -ENOMEM)
            return -ENOMEM;
    }
    return 0;
}

static int read_root(struct config_reader *reader, const struct yaml_node *root)
{
    struct scope top = {"", config_fields, config_n_fields, ""};
    if (root->type != YAML_MAP && !yaml_is_null(root))
        return config_problem(reader, root, "a configuration must be a map of `key: value`");
    int rc = read_map(reader, &top, root, reader->config);
    for (size_t i = 0; rc == 0 && i < config_n_sections; i++)
        if (read_section(reader, &config_sections[i], yaml_map_get(root, config_sections[i].key)) ==
            -ENOMEM)
            rc = -ENOMEM;
    if (rc == 0)
        rc = config_include(reader, root);
    if (rc == 0 && config_complete(reader, root) == -ENOMEM)
        rc = -ENOMEM;
    return rc != 0 ? rc : reader->errors > 0 ? -EINVAL : 0;
}

int config_read(struct config **ret, const char *name, const char *text, size_t len,
                config_problem_fn *fn, void *ctx, struct err *err)
{
    struct err local = {""};
    struct config_reader reader = {.fn = fn, .ctx = ctx, .err = err != NULL ? err : &local};
    struct yaml *yaml = NULL;
    int rc = yaml_read(&yaml, name, text, len, reader.err);
    if (rc != 0) {
        if (fn != NULL)
            fn(ctx, false, reader.err->text);
        return rc == -E2BIG ? -EINVAL : rc;
    }
    reader.yaml = yaml;
    reader.config = mem_zalloc(sizeof *reader.config);
    if (reader.config == NULL)
        rc = -ENOMEM;
    else if ((reader.config->home = path_home(reader.err)) == NULL)
        rc = -EINVAL;
    else if ((reader.config->path = mem_strndup(name, strlen(name))) == NULL)
        rc = -ENOMEM;
    if (rc == 0)
        rc = config_defaults(&reader, config_fields, config_n_fields, reader.config);
    if (rc == 0)
        rc = read_root(&reader, yaml_root(yaml));
    config_include_release(&reader);
    yaml_release(&yaml);
    if (rc == -ENOMEM)
        err_set(err, rc, "%s: out of memory", name);
    if (rc != 0)
        config_free(&reader.config);
    else
        *ret = reader.config;
    return rc;
}
