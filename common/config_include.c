/* Models from other files: `include`. What is in the configuration itself comes first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "schemas/mem.h"

#define INCLUDE_MAX 64

static int set_include(struct config_reader *reader, const struct config_field *field,
                       const struct yaml_node *node, void *base)
{
    char **names = NULL;
    size_t count = 0;
    (void)base;
    int rc = config_copy_texts(reader, field, node, &names, &count);
    if (rc == 0 && count > INCLUDE_MAX)
        rc = config_problem(reader, node, "`include` has more than %d files", INCLUDE_MAX);
    config_free_texts(names, count);
    return rc;
}

/* What was included is printed where it belongs. */
static void print_include(const struct config_field *field, const void *base, struct buf *out)
{
    (void)field;
    (void)base;
    (void)out;
}

const struct config_kind config_kind_include = {"file, or a list", set_include, print_include,
                                                NULL};

static const struct config_section *models_section(void)
{
    size_t i = 0;
    while (strcmp(config_sections[i].key, "models") != 0)
        i++;
    return &config_sections[i];
}

/* Room for so many more models and their places. */
static int reserve(struct config_reader *reader, size_t more)
{
    struct config *config = reader->config;
    size_t count = config->n_models + more;
    struct config_model *models = mem_realloc(config->models, (count + 1) * sizeof *models);
    if (models == NULL)
        return -ENOMEM;
    config->models = models;
    struct config_place *places = mem_realloc(reader->models, (count + 1) * sizeof *places);
    if (places == NULL)
        return -ENOMEM;
    reader->models = places;
    return 0;
}

/* The place of an alias that an included file has; NULL: none has. */
static const struct config_place *included_before(const struct config_reader *reader,
                                                  const char *alias, size_t n_own)
{
    for (size_t i = n_own; i < reader->config->n_models; i++)
        if (strcmp(reader->config->models[i].alias, alias) == 0)
            return &reader->models[i];
    return NULL;
}

static int add_models(struct config_reader *reader, const struct yaml_node *own,
                      const struct yaml_node *models, size_t n_own)
{
    struct config *config = reader->config;
    if (models->count > CONFIG_MAX_ITEMS || config->n_models + models->count > CONFIG_MAX_ITEMS)
        return config_problem(reader, models, "there are more than %d models", CONFIG_MAX_ITEMS);
    int rc = reserve(reader, models->count);
    for (const struct yaml_node *node = models->first; rc == 0 && node != NULL; node = node->next) {
        const char *alias = node->key->text;
        const struct config_place *before = included_before(reader, alias, n_own);
        if (yaml_map_get(own, alias) != NULL)
            continue;
        if (before != NULL) {
            config_problem(reader, node->key, "model `%.64s` is in %s:%d:%d too", alias,
                           yaml_name(before->yaml), before->node->key->line,
                           before->node->key->column);
            continue;
        }
        size_t n = config->n_models++; /* before it is filled: config_free() frees what there is */
        config->models[n] = (struct config_model){0};
        reader->models[n] = (struct config_place){reader->yaml, node};
        if (config_read_item(reader, models_section(), node, (char *)config->models, n) == -ENOMEM)
            rc = -ENOMEM;
    }
    return rc;
}

/* The folder of the file that includes, and the name. */
static char *path_beside(const char *file, const char *name)
{
    const char *slash = strrchr(file, '/');
    if (name[0] == '/' || slash == NULL)
        return mem_strndup(name, strlen(name));
    return config_text("%.*s/%s", (int)(slash - file), file, name);
}

static int read_yaml(struct config_reader *reader, const struct yaml_node *at, const char *path,
                     struct yaml **ret)
{
    struct buf text = {0};
    struct err err = {""};
    int rc = config_read_file(path, true, &text);
    if (rc != 0 && rc != -ENOMEM)
        rc = config_problem(reader, at, "cannot include %.256s: %s", path,
                            rc == -EINVAL ? "it is no regular file" : strerror(-rc));
    else if (rc == 0)
        rc = yaml_read(ret, path, text.len > 0 ? text.data : "", text.len, &err);
    buf_release(&text);
    if (err.text[0] != '\0' && rc != -ENOMEM) { /* it names the included file already */
        reader->errors++;
        if (reader->errors == 1 && reader->err != NULL)
            *reader->err = err;
        if (reader->fn != NULL)
            reader->fn(reader->ctx, false, err.text);
        rc = -EINVAL;
    }
    return rc;
}

static int check_root(struct config_reader *reader, const struct yaml_node *root)
{
    if (root->type != YAML_MAP)
        return config_problem(reader, root, "an included file must be `models: {alias: {...}}`");
    for (const struct yaml_node *child = root->first; child != NULL; child = child->next) {
        if (strcmp(child->key->text, "as_of") == 0)
            return config_problem(reader, child->key,
                                  "this is the shipped registry, which is built in: include files "
                                  "with `models: {alias: {provider: ..., name: ...}}`");
        if (strcmp(child->key->text, "models") != 0)
            return config_problem(reader, child->key,
                                  "unknown key `%.64s` in an included file; there is models",
                                  child->key->text);
        if (child->type != YAML_MAP && !yaml_is_null(child))
            return config_problem(reader, child, "`models` must be a map: `name: {...}` for each");
    }
    return 0;
}

static int include_file(struct config_reader *reader, const struct yaml_node *at,
                        const struct yaml_node *own, size_t n_own)
{
    const struct yaml *outer = reader->yaml;
    struct yaml *yaml = NULL;
    char *path = path_beside(yaml_name(outer), at->text);
    int rc = path != NULL ? read_yaml(reader, at, path, &yaml) : -ENOMEM;
    free(path);
    if (rc != 0)
        return rc;
    reader->included[reader->n_included++] = yaml;
    reader->yaml = yaml;
    rc = check_root(reader, yaml_root(yaml));
    const struct yaml_node *models = yaml_map_get(yaml_root(yaml), "models");
    if (rc == 0 && !yaml_is_null(models))
        rc = add_models(reader, own, models, n_own);
    reader->yaml = outer;
    return rc;
}

int config_include(struct config_reader *reader, const struct yaml_node *root)
{
    const struct yaml_node *own = yaml_map_get(root, "models");
    const struct yaml_node *files = yaml_map_get(root, "include");
    size_t n_own = reader->config->n_models;
    if (reserve(reader, 0) != 0)
        return -ENOMEM;
    const struct yaml_node *node = own != NULL ? own->first : NULL;
    for (size_t i = 0; i < n_own && node != NULL; i++, node = node->next)
        reader->models[i] = (struct config_place){reader->yaml, node};
    if (yaml_is_null(files) || files->type == YAML_MAP)
        return 0; /* set_include() has told what is wrong */
    size_t count = files->type == YAML_SEQ ? files->count : 1;
    if (count > INCLUDE_MAX)
        return 0;
    reader->included = mem_zalloc((count + 1) * sizeof *reader->included);
    if (reader->included == NULL)
        return -ENOMEM;
    const struct yaml_node *at = files->type == YAML_SEQ ? files->first : files;
    for (size_t i = 0; i < count; i++, at = at->next)
        if (at->type == YAML_SCALAR && include_file(reader, at, own, n_own) == -ENOMEM)
            return -ENOMEM;
    return 0;
}

void config_include_release(struct config_reader *reader)
{
    for (size_t i = 0; i < reader->n_included; i++)
        yaml_release(&reader->included[i]);
    free(reader->included);
    free(reader->models);
    reader->included = NULL;
    reader->models = NULL;
    reader->n_included = 0;
}
