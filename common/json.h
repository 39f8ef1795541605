/* JSON: jansson, with lookups that never fail hard on a stranger's document. */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* Parses exactly len bytes as one JSON value (any type); depth-limited by jansson. NULL on error,
 * with line and column in err. Strings may hold NULs (json_string_length() tells). The caller
 * json_decref()s it. */
json_t *json_parse(const char *text, size_t len, struct err *err);

/* Members of an object; the fallback when `object` is no object, the key is missing or the value
 * has another type. Strings are borrowed from the object. */
const char *json_str(const json_t *object, const char *key, const char *fallback);
int64_t json_int(const json_t *object, const char *key, int64_t fallback); /* also whole reals */
double json_num(const json_t *object, const char *key, double fallback);   /* also ints */
bool json_bool(const json_t *object, const char *key, bool fallback);
json_t *json_get(const json_t *object, const char *key); /* borrowed; NULL when not there */
/* "a.b.0.c": members and array positions; borrowed, NULL when not there. */
json_t *json_path(const json_t *value, const char *path);

#endif
