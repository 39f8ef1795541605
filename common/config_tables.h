/* The tables behind the configuration: what may be written, its type, default, limits and help.
 * Private to common/config*.c and common/model_registry.c. */
#ifndef COMMON_CONFIG_TABLES_H
#define COMMON_CONFIG_TABLES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/yaml.h"

/* Where something stands that may be in an included file. */
struct config_place {
    const struct yaml *yaml;
    const struct yaml_node *node;
};

struct config_reader {
    const struct yaml *yaml; /* the file that is read now: errors name it */
    struct config *config;
    struct config_place *models; /* of each of config->models */
    struct yaml **included;      /* owned: the places are in them */
    size_t n_included;
    config_problem_fn *fn; /* may be NULL */
    void *ctx;
    struct err *err; /* the first error */
    int errors;
};

/* Tells an error (or a warning) at the node. Returns -EINVAL. */
int config_problem(struct config_reader *reader, const struct yaml_node *at, const char *format,
                   ...) __attribute__((format(printf, 3, 4)));
void config_warning(struct config_reader *reader, const struct yaml_node *at, const char *format,
                    ...) __attribute__((format(printf, 3, 4)));

struct config_field;

/* A type of value: how it is read into its struct, printed from it, and freed. */
struct config_kind {
    const char *title; /* for the reference */
    /* 0; -EINVAL after config_problem(); -ENOMEM. Replaces what was there. */
    int (*set)(struct config_reader *reader, const struct config_field *field,
               const struct yaml_node *node, void *base);
    /* Appends the value as YAML on one line; nothing when there is no value to print. */
    void (*print)(const struct config_field *field, const void *base, struct buf *out);
    void (*release)(const struct config_field *field, void *base); /* may be NULL */
};

extern const struct config_kind config_kind_text;
extern const struct config_kind config_kind_texts; /* a list */
extern const struct config_kind config_kind_int;
extern const struct config_kind config_kind_num;
extern const struct config_kind config_kind_bool;
extern const struct config_kind config_kind_choice;  /* one of field->choices */
extern const struct config_kind config_kind_choices; /* a list of such */
extern const struct config_kind config_kind_prices;  /* one map, or a list of them */
extern const struct config_kind config_kind_search;  /* auto, always, never; true is auto */
extern const struct config_kind config_kind_api;
extern const struct config_kind config_kind_url;
extern const struct config_kind config_kind_keys;
extern const struct config_kind config_kind_redis;   /* offset 0 of struct config */
extern const struct config_kind config_kind_brokers; /* offset 0 of struct config */
extern const struct config_kind config_kind_listen;  /* HOST[:PORT]; the port is filled in */
extern const struct config_kind config_kind_offline; /* routing.mode */
extern const struct config_kind config_kind_include; /* names of files; nothing is kept */

struct config_field {
    const char *key; /* dots for nested maps: "timeouts.gap_ms" */
    const struct config_kind *kind;
    size_t offset;        /* of the member in the section's struct */
    size_t count_offset;  /* of a list's count */
    const char *fallback; /* default, as it would be written; NULL: none */
    double min, max;      /* numbers */
    const char *const *choices;
    bool required;
    bool quiet; /* not printed while it has its default */
    const char *help;
};

/* A map of named things, or a list of them. */
struct config_section {
    const char *key;   /* "providers" */
    const char *what;  /* "provider" */
    const char *extra; /* characters that names may have besides letters, digits and . _ - */
    size_t size;       /* of one struct; its first member is the name */
    size_t offset;     /* of the array in struct config */
    size_t count_offset;
    bool list; /* `- {name: ...}` instead of `name: {...}` */
    const struct config_field *fields;
    size_t n_fields;
    const char *help;
};

extern const struct config_field config_fields[]; /* of the top level */
extern const size_t config_n_fields;
extern const struct config_section config_sections[];
extern const size_t config_n_sections;

struct config_role_preset {
    const char *name;
    const char *help;
    const char *system;
};
extern const struct config_role_preset config_role_presets[];
extern const size_t config_n_role_presets;

/* What the kinds share; config_values.c has them. The member that the field describes: tables make
 * sure that its type is right. */
void *config_member(const struct config_field *field, void *base);
size_t *config_count_of(const struct config_field *field, void *base);
int config_replace_text(char **at, const char *text, size_t len); /* 0 or -ENOMEM */
void config_free_texts(char **texts, size_t count);
/* Copies a list, or a single text. 0; -EINVAL after config_problem(); -ENOMEM. */
int config_copy_texts(struct config_reader *reader, const struct config_field *field,
                      const struct yaml_node *node, char ***ret, size_t *ret_count);
void config_print_text(const struct config_field *field, const void *base, struct buf *out);
void config_print_texts(const struct config_field *field, const void *base, struct buf *out);
void config_release_text(const struct config_field *field, void *base);
void config_release_texts(const struct config_field *field, void *base);

/* The array of a section's structs in config, and their number. */
void *config_items(const struct config *config, const struct config_section *section, size_t *ret);

#define CONFIG_MAX_ITEMS 4096 /* of a section or a list */

/* Sets a new struct's members to their defaults. 0 or -ENOMEM. */
int config_defaults(struct config_reader *reader, const struct config_field *fields,
                    size_t n_fields, void *base);
/* One map by a table; goes on after an error, so that all are told. what: "model". 0 or -ENOMEM:
 * whether there were errors is in reader->errors. */
int config_read_map(struct config_reader *reader, const char *what,
                    const struct config_field *fields, size_t n_fields,
                    const struct yaml_node *node, void *base);
/* The index-th of a section's items, which are zero; the same returns. */
int config_read_item(struct config_reader *reader, const struct config_section *section,
                     const struct yaml_node *child, char *items, size_t index);
/* Fills reader->models, and adds the models of the files under `include`. 0 or -ENOMEM. */
int config_include(struct config_reader *reader, const struct yaml_node *root);
void config_include_release(struct config_reader *reader);
/* The whole file, at most YAML_MAX_BYTES and one more. 0; -errno; -EINVAL when only a regular file
 * will do and it is none. */
int config_read_file(const char *path, bool regular, struct buf *text);

/* Takes over where the running local stack was told to listen, if it was (PATH_RUN_LISTEN). 0 or
 * -ENOMEM. */
int config_follow_listen(struct config *config);

/* What the tables cannot say: references, defaults that depend on other values, built-in roles.
 * 0; -EINVAL when something was reported; -ENOMEM. */
int config_complete(struct config_reader *reader, const struct yaml_node *root);
/* The parts of it that have files of their own; the same returns. */
int config_complete_bus(struct config_reader *reader, const struct yaml_node *root);
int config_complete_provider(struct config_reader *reader, struct config_provider *provider,
                             const struct yaml_node *node);
int config_complete_model(struct config_reader *reader, struct config_model *model,
                          const struct yaml_node *node);
int config_complete_worker(struct config_reader *reader, struct config_worker *worker,
                           const struct yaml_node *node);
/* Built-in roles that the file did not set, and role preferences. 0 or -ENOMEM. */
int config_complete_roles(struct config_reader *reader);
/* Warnings and errors about what is complete: roles and their models; budgets and routing. */
void config_check_roles(struct config_reader *reader, const struct yaml_node *roles);
void config_check_limits(struct config_reader *reader, const struct yaml_node *root);
void config_check_redis(struct config_reader *reader, const struct yaml_node *root);
/* Parses into a new config; fn may be NULL. */
int config_read(struct config **ret, const char *name, const char *text, size_t len,
                config_problem_fn *fn, void *ctx, struct err *err);

/* Helpers of the completion. A node to point at: the member of a map, else the map itself. */
const struct yaml_node *config_node_of(const struct yaml_node *map, const char *key);
/* Tells that `name` is none of the names of the section, and which is near. Returns -EINVAL. */
int config_dangling(struct config_reader *reader, const struct yaml_node *at, const char *what,
                    const char *name, const char *section_key);
/* Relative paths are relative to the folder of the file that is read. What is before the path is
 * kept: the first `prefix` bytes. 0 or -ENOMEM. */
int config_make_absolute(const struct config_reader *reader, char **path, size_t prefix);

/* Formats into memory of its own; NULL when there is none. */
char *config_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Checks http:// or https:// with a host and without user, query and fragment; false with a reason
 * that completes "must be a URL: ". */
bool config_url_check(const char *url, const char **ret_reason);
/* redis://, rediss:// or unix:// into options (zeroed before); reason as above. 0, -EINVAL,
 * -ENOMEM. */
int config_redis_url(const char *url, struct redis_options *ret, const char **ret_reason);
void config_redis_print(const struct redis_options *options, bool show_password, struct buf *out);
/* The configuration without what is as by default; config_parse() reads it back to the same. */
void config_print_terse(const struct config *config, struct buf *out);
/* The same as YAML, a map where a URL does not say all. */
void config_redis_value(const struct redis_options *options, bool show_password, struct buf *out);
/* Fields of that map. */
const struct config_field *config_redis_fields(size_t *ret_count);
/* Text as YAML: plain where that is safe, else in double quotes. */
void config_add_text(struct buf *out, const char *text);

#endif
