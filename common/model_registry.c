#include "common/model_registry.h"

#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "common/log.h"
#include "schemas/mem.h"

extern const char shipped_model_registry[];

struct model_registry {
    char *as_of;
    struct model_registry_row *rows;
    size_t n_rows;
};

/* --- reading ------------------------------------------------------------------------------ */

static const char *const capability_choices[] = {CONFIG_CAPABILITIES, NULL};
static const char *const parameter_choices[] = {CONFIG_PARAMETERS, NULL};
static const char *const effort_choices[] = {CONFIG_EFFORTS, NULL};
static const char *const endpoint_choices[] = {"auto", "chat", "responses", NULL};

#define MEMBER(member) .offset = offsetof(struct model_registry_row, member)
#define LIST(base, member)                                                                         \
    .offset = offsetof(struct model_registry_row, base member),                                    \
    .count_offset = offsetof(struct model_registry_row, base n_##member)
static const struct config_field row_fields[] = {
    {"context", &config_kind_int, MEMBER(model.context), .fallback = "0", .min = 0, .max = 1e9},
    {"max_output", &config_kind_int, MEMBER(model.max_output), .fallback = "0", .min = 0,
     .max = 1e9},
    {"capabilities", &config_kind_choices, LIST(model., capabilities),
     .choices = capability_choices},
    {"refuses", &config_kind_choices, LIST(model., refuses), .choices = parameter_choices},
    {"endpoint", &config_kind_choice, MEMBER(model.endpoint), .choices = endpoint_choices},
    {"price", &config_kind_prices, .offset = offsetof(struct model_registry_row, model.prices),
     .count_offset = offsetof(struct model_registry_row, model.n_prices)},
    {"efforts", &config_kind_choices, LIST(, efforts), .choices = effort_choices},
    {"as_of", &config_kind_text, MEMBER(as_of)},
    {"sure", &config_kind_bool, MEMBER(sure), .fallback = "true"},
};
#define N_ROW_FIELDS (sizeof row_fields / sizeof *row_fields)

static int read_row(struct config_reader *reader, const char *api, const struct yaml_node *node,
                    struct model_registry_row *row)
{
    row->api = mem_strndup(api, strlen(api));
    row->model.name = mem_strndup(node->key->text, node->key->len);
    if (row->api == NULL || row->model.name == NULL)
        return -ENOMEM;
    row->pattern = strchr(row->model.name, '*') != NULL;
    int rc = config_defaults(reader, row_fields, N_ROW_FIELDS, row);
    if (rc == 0 && node->type != YAML_MAP)
        rc = config_problem(reader, node, "a model of the registry must be a map of `key: value`");
    return rc != 0 ? rc : config_read_map(reader, "model", row_fields, N_ROW_FIELDS, node, row);
}

static int read_api(struct config_reader *reader, const struct yaml_node *api,
                    struct model_registry *registry)
{
    const char *name = api->key->text;
    if (strcmp(name, MODEL_REGISTRY_OPEN) != 0 && config_api(name) == NULL)
        return config_problem(reader, api->key, "`%.64s` is no api", name);
    if (api->type != YAML_MAP || api->count == 0)
        return config_problem(reader, api, "`%s` must be a map: `name: {...}` for each model",
                              name);
    struct model_registry_row *rows =
        mem_realloc(registry->rows, (registry->n_rows + api->count) * sizeof *rows);
    if (rows == NULL)
        return -ENOMEM;
    registry->rows = rows;
    for (const struct yaml_node *node = api->first; node != NULL; node = node->next) {
        struct model_registry_row *row = &rows[registry->n_rows++];
        *row = (struct model_registry_row){0};
        int rc = read_row(reader, name, node, row);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int read_root(struct config_reader *reader, const struct yaml_node *root,
                     struct model_registry *registry)
{
    static const char *const keys[] = {"as_of", "models", NULL};
    const struct yaml_node *models = yaml_map_get(root, "models");
    const char *as_of = "";
    int rc = yaml_check_keys(reader->yaml, root, "a registry", keys, reader->err);
    if (rc == 0)
        rc = yaml_get_str(reader->yaml, root, "as_of", &as_of, reader->err);
    if (rc == 0 && (models == NULL || models->type != YAML_MAP))
        rc = config_problem(reader, root, "a registry needs `models`: `api: {name: {...}}`");
    if (rc == 0 && (registry->as_of = mem_strndup(as_of, strlen(as_of))) == NULL)
        rc = -ENOMEM;
    for (const struct yaml_node *api = rc == 0 ? models->first : NULL; rc == 0 && api != NULL;
         api = api->next)
        rc = read_api(reader, api, registry);
    return rc == 0 && reader->errors > 0 ? -EINVAL : rc;
}

int model_registry_read(struct model_registry **ret, const char *name, const char *text, size_t len,
                        struct err *err)
{
    struct err local = {""};
    struct config_reader reader = {.err = err != NULL ? err : &local};
    struct yaml *yaml = NULL;
    int rc = yaml_read(&yaml, name, text, len, reader.err);
    if (rc != 0)
        return rc == -E2BIG ? -EINVAL : rc;
    reader.yaml = yaml;
    struct model_registry *registry = mem_zalloc(sizeof *registry);
    rc = registry != NULL ? read_root(&reader, yaml_root(yaml), registry) : -ENOMEM;
    yaml_release(&yaml);
    if (rc == -ENOMEM)
        err_set(err, rc, "%s: out of memory", name);
    if (rc != 0)
        model_registry_free(&registry);
    else
        *ret = registry;
    return rc;
}

void model_registry_free(struct model_registry **registry)
{
    if (*registry == NULL)
        return;
    for (size_t i = 0; i < (*registry)->n_rows; i++) {
        struct model_registry_row *row = &(*registry)->rows[i];
        for (size_t f = 0; f < N_ROW_FIELDS; f++)
            if (row_fields[f].kind->release != NULL)
                row_fields[f].kind->release(&row_fields[f], row);
        free(row->api);
        free(row->model.name);
    }
    free((*registry)->rows);
    free((*registry)->as_of);
    free(*registry);
    *registry = NULL;
}

const struct model_registry *model_registry_shipped(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct model_registry *shipped; /* never changes once it is there */
    struct err err = {""};
    pthread_mutex_lock(&lock);
    if (shipped == NULL &&
        model_registry_read(&shipped, "model_registry.yaml", shipped_model_registry,
                            strlen(shipped_model_registry), &err) == -EINVAL) {
        log_error("the built-in registry of models cannot be read: %s", err.text);
        abort(); /* our own bug: test_registry reads it */
    }
    const struct model_registry *found = shipped;
    pthread_mutex_unlock(&lock);
    return found;
}

const char *model_registry_as_of(const struct model_registry *registry)
{
    return registry->as_of;
}

const struct model_registry_row *model_registry_rows(const struct model_registry *registry,
                                                     size_t *ret_count)
{
    *ret_count = registry->n_rows;
    return registry->rows;
}

/* --- finding ------------------------------------------------------------------------------ */

/* Length of name[0..len) without a tail of this form, in which d is a digit. */
static size_t without(const char *name, size_t len, const char *form)
{
    size_t tail = strlen(form);
    if (len <= tail)
        return len;
    for (size_t i = 0; i < tail; i++) {
        char c = name[len - tail + i];
        if (form[i] == 'd' ? c < '0' || c > '9' : c != form[i])
            return len;
    }
    return len - tail;
}

const char *model_registry_name_core(const char *api, const char *name, size_t *ret_len)
{
    /* `latest` has no d in it */
    static const char *const tails[] = {"-dddd-dd-dd", "-dddddddd", "-latest"};
    if (strncmp(name, "models/", 7) == 0)
        name += 7;
    size_t len = strlen(name);
    if (strcmp(api, "huggingface") == 0)
        len = strcspn(name, ":");
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        size_t less = without(name, len, tails[i]);
        if (less < len) {
            len = less;
            break;
        }
    }
    *ret_len = len;
    return name;
}

static const struct model_registry_row *find_exact(const struct model_registry *registry,
                                                   const char *api, const char *name, size_t len)
{
    for (size_t i = 0; i < registry->n_rows; i++) {
        const struct model_registry_row *row = &registry->rows[i];
        if (!row->pattern && strcmp(row->api, api) == 0 && strlen(row->model.name) == len &&
            memcmp(row->model.name, name, len) == 0)
            return row;
    }
    return NULL;
}

static const struct model_registry_row *find_pattern(const struct model_registry *registry,
                                                     const char *api, const char *name)
{
    for (size_t i = 0; i < registry->n_rows; i++) {
        const struct model_registry_row *row = &registry->rows[i];
        if (row->pattern && strcmp(row->api, api) == 0 &&
            fnmatch(row->model.name, name, FNM_CASEFOLD | FNM_NOESCAPE) == 0)
            return row;
    }
    return NULL;
}

/* Vendors that serve nothing but their own models. */
static bool is_closed(const char *api)
{
    return strcmp(api, "anthropic") == 0 || strcmp(api, "openai") == 0 ||
           strcmp(api, "gemini") == 0;
}

const struct model_registry_row *model_registry_find(const struct model_registry *registry,
                                                     const char *api, const char *name)
{
    size_t len;
    const char *core = model_registry_name_core(api, name, &len);
    const struct model_registry_row *row = find_exact(registry, api, name, strlen(name));
    if (row == NULL)
        row = find_exact(registry, api, core, len);
    if (row == NULL)
        row = find_pattern(registry, api, core);
    if (row == NULL && !is_closed(api))
        row = find_pattern(registry, MODEL_REGISTRY_OPEN, core);
    return row;
}

bool model_registry_has(char *const *words, size_t count, const char *word)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(words[i], word) == 0)
            return true;
    return false;
}

bool model_registry_only_embeds(const struct config_model *model)
{
    return model->n_capabilities == 1 && strcmp(model->capabilities[0], "embeddings") == 0;
}
