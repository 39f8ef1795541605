/* A smallest JSON value that follows a JSON schema, for requests with structured output. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "simulator/reply.h"

#define MAX_DEPTH 16
#define MAX_BYTES 65536 /* a schema that refers to itself grows without end otherwise */

struct filler {
    const json_t *root; /* what "#/..." refers to */
    struct buf *out;
};

static void fill(struct filler *filler, const json_t *schema, int depth);

/* "string" for "string", "STRING" (Gemini) and ["string", "null"]. */
static bool has_type(const json_t *schema, const char *name)
{
    const json_t *type = json_get(schema, "type");
    if (json_is_array(type))
        type = json_array_get(type, 0);
    return json_is_string(type) && strcasecmp(json_string_value(type), name) == 0;
}

static const json_t *referred(const struct filler *filler, const char *pointer)
{
    char path[256];
    if (strncmp(pointer, "#/", 2) != 0 || strlen(pointer) >= sizeof path)
        return NULL;
    strcpy(path, pointer + 2);
    for (char *at = path; (at = strchr(at, '/')) != NULL;)
        *at = '.';
    return json_path(filler->root, path);
}

static void fill_object(struct filler *filler, const json_t *schema, int depth)
{
    const char *key;
    json_t *property;
    bool first = true;
    buf_add_char(filler->out, '{');
    json_object_foreach ((json_t *)(uintptr_t)json_get(schema, "properties"), key, property) {
        if (!first)
            buf_add_char(filler->out, ',');
        first = false;
        buf_add_json(filler->out, key, strlen(key));
        buf_add_char(filler->out, ':');
        fill(filler, property, depth + 1);
    }
    buf_add_char(filler->out, '}');
}

static void fill_array(struct filler *filler, const json_t *schema, int depth)
{
    int64_t count = json_int(schema, "minItems", 1);
    int64_t most = json_int(schema, "maxItems", 1);
    if (count < 1 && most > 0)
        count = 1;
    if (count > 100)
        count = 100;
    buf_add_char(filler->out, '[');
    for (int64_t i = 0; i < count && most > 0; i++) {
        if (i > 0)
            buf_add_char(filler->out, ',');
        fill(filler, json_get(schema, "items"), depth + 1);
    }
    buf_add_char(filler->out, ']');
}

static void fill_value(struct filler *filler, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    buf_add_str(filler->out, text != NULL ? text : "null");
    free(text);
}

/* anyOf and its like: the first that is no null. */
static const json_t *chosen(const json_t *schema)
{
    static const char *const names[] = {"anyOf", "oneOf", "allOf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *choices = json_get(schema, names[i]);
        const json_t *first = json_array_get(choices, 0);
        if (first != NULL)
            return has_type(first, "null") && json_array_size(choices) > 1
                       ? json_array_get(choices, 1)
                       : first;
    }
    return NULL;
}

static void fill_plain(struct filler *filler, const json_t *schema)
{
    double low = json_num(schema, "minimum", 0);
    if (has_type(schema, "integer") || has_type(schema, "number"))
        buf_printf(filler->out, "%.15g", low > 0 ? low : 0);
    else if (has_type(schema, "boolean"))
        buf_add_str(filler->out, "true");
    else if (has_type(schema, "null"))
        buf_add_str(filler->out, "null");
    else
        buf_add_str(filler->out, "\"(simulated)\"");
}

static void fill(struct filler *filler, const json_t *schema, int depth)
{
    const json_t *constant = json_get(schema, "const");
    const json_t *values = json_get(schema, "enum");
    const char *reference = json_str(schema, "$ref", NULL);
    const json_t *choice = chosen(schema);
    if (depth > MAX_DEPTH || filler->out->len > MAX_BYTES)
        buf_add_str(filler->out, "null");
    else if (constant != NULL)
        fill_value(filler, constant);
    else if (json_array_size(values) > 0)
        fill_value(filler, json_array_get(values, 0));
    else if (reference != NULL)
        fill(filler, referred(filler, reference), depth + 1);
    else if (choice != NULL)
        fill(filler, choice, depth + 1);
    else if (has_type(schema, "object") || json_get(schema, "properties") != NULL)
        fill_object(filler, schema, depth);
    else if (has_type(schema, "array") || json_get(schema, "items") != NULL)
        fill_array(filler, schema, depth);
    else
        fill_plain(filler, schema);
}

void sim_reply_schema(const json_t *schema, struct buf *out)
{
    struct filler filler = {schema, out};
    fill(&filler, schema, 0);
}
