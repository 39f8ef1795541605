#include "common/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

json_t *json_parse(const char *text, size_t len, struct err *err)
{
    json_error_t error;
    json_t *value =
        json_loadb(text, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (value == NULL)
        err_set(err, -1, "line %d column %d: %s", error.line, error.column, error.text);
    return value;
}

json_t *json_get(const json_t *object, const char *key)
{
    return json_object_get(object, key); /* NULL when it is no object */
}

const char *json_str(const json_t *object, const char *key, const char *fallback)
{
    const char *text = json_string_value(json_get(object, key));
    return text != NULL ? text : fallback;
}

int64_t json_int(const json_t *object, const char *key, int64_t fallback)
{
    const json_t *value = json_get(object, key);
    if (json_is_integer(value))
        return json_integer_value(value);
    double real = json_is_real(value) ? json_real_value(value) : NAN;
    return real >= -9e15 && real <= 9e15 && real == floor(real) ? (int64_t)real : fallback;
}

double json_num(const json_t *object, const char *key, double fallback)
{
    const json_t *value = json_get(object, key);
    return json_is_number(value) ? json_number_value(value) : fallback;
}

bool json_bool(const json_t *object, const char *key, bool fallback)
{
    const json_t *value = json_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

json_t *json_path(const json_t *value, const char *path)
{
    json_t *at = (json_t *)(uintptr_t)value;
    while (at != NULL && *path != '\0') {
        size_t len = strcspn(path, ".");
        char key[128];
        if (len >= sizeof key)
            return NULL;
        memcpy(key, path, len);
        key[len] = '\0';
        at = json_is_array(at) ? json_array_get(at, strtoul(key, NULL, 10))
                               : json_object_get(at, key);
        path += len + (path[len] == '.');
    }
    return at;
}
