/* YAML documents (JSON is a subset) as a small tree of nodes that know their line and column.
 *
 * Input is hostile: size, depth and number of nodes are bounded; anchors, aliases, tags, duplicate
 * keys, several documents and NUL characters are errors. Sentences read "file:line:column: what".
 */
#ifndef COMMON_YAML_H
#define COMMON_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define YAML_MAX_BYTES ((size_t)16 * 1024 * 1024)
#define YAML_MAX_NODES 200000
#define YAML_MAX_DEPTH 32

enum yaml_type {
    YAML_SCALAR,
    YAML_SEQ,
    YAML_MAP,
};

/* Read only; lives as long as its document. Children are a list:
 * for (child = node->first; child != NULL; child = child->next) */
struct yaml_node {
    enum yaml_type type;
    bool plain;       /* scalar without quotes: only then null, true and 1.5 are no strings */
    int line, column; /* from 1; columns count characters */
    const char *text; /* scalar: UTF-8 without NUL inside, text[len] is 0; else "" */
    size_t len;
    size_t count;                  /* items of a sequence, pairs of a map */
    const struct yaml_node *key;   /* of a value in a map: its key, a scalar; else NULL */
    const struct yaml_node *first; /* child */
    const struct yaml_node *next;  /* sibling */
};

struct yaml; /* a document; owns its nodes */

/* Reads one document. name: of the file, for errors, copied. An empty document has a null scalar as
 * its root. 0; -EINVAL with a sentence; -E2BIG over a limit, with a sentence; -ENOMEM. */
int yaml_read(struct yaml **ret, const char *name, const char *text, size_t len, struct err *err);
void yaml_release(struct yaml **yaml); /* accepts NULL */
const struct yaml_node *yaml_root(const struct yaml *yaml);
const char *yaml_name(const struct yaml *yaml);

/* Sets "name:line:column: text"; returns -EINVAL, so that `return yaml_fail(...)` reads well. */
int yaml_fail(const struct yaml *yaml, const struct yaml_node *at, struct err *err,
              const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The value of a key; NULL when there is none or node is no map (or NULL). */
const struct yaml_node *yaml_map_get(const struct yaml_node *node, const char *key);
/* The index-th child; NULL when there is none or node is NULL. */
const struct yaml_node *yaml_at(const struct yaml_node *node, size_t index);
bool yaml_is_null(const struct yaml_node *node); /* plain null, ~ or nothing; also NULL */

/* The value of a scalar; false, with *ret as it was, when it is something else. A plain `null` is
 * no string; a quoted "5" is no number; `yes` is no bool (YAML 1.2). */
bool yaml_str(const struct yaml_node *node, const char **ret); /* borrowed */
bool yaml_int(const struct yaml_node *node, int64_t *ret);
bool yaml_num(const struct yaml_node *node, double *ret); /* finite */
bool yaml_bool(const struct yaml_node *node, bool *ret);

/* Members of a map, with the sentence when the type is wrong. A missing or null member leaves *ret
 * as it was. 0 or -EINVAL. */
int yaml_get_str(const struct yaml *yaml, const struct yaml_node *map, const char *key,
                 const char **ret, struct err *err);
int yaml_get_int(const struct yaml *yaml, const struct yaml_node *map, const char *key, int64_t min,
                 int64_t max, int64_t *ret, struct err *err);
int yaml_get_num(const struct yaml *yaml, const struct yaml_node *map, const char *key, double min,
                 double max, double *ret, struct err *err);
int yaml_get_bool(const struct yaml *yaml, const struct yaml_node *map, const char *key, bool *ret,
                  struct err *err);
/* A sequence of strings, or one string: *ret becomes an array of borrowed strings, which the caller
 * frees. 0, -EINVAL, -ENOMEM. */
int yaml_get_strs(const struct yaml *yaml, const struct yaml_node *map, const char *key,
                  const char ***ret, size_t *ret_count, struct err *err);
/* -EINVAL with "unknown key ...; did you mean ...?" when node is no map or has a key that is not in
 * `keys` (ended by NULL). what: of the map, such as "a subtask". */
int yaml_check_keys(const struct yaml *yaml, const struct yaml_node *node, const char *what,
                    const char *const *keys, struct err *err);
/* The choice (list ended by NULL) with the smallest edit distance to word, if it is near enough to
 * be meant; else NULL. */
const char *yaml_nearest(const char *word, const char *const *choices);

#endif
