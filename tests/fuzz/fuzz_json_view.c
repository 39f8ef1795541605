/* Any bytes: what jansson accepts is accepted and read the same, and what is read from the rest is
 * valid UTF-8. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "workers/json_view.h"
#include "workers/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_integer(struct json_view view)
{
    return memchr(view.text, '.', view.len) == NULL && memchr(view.text, 'e', view.len) == NULL &&
           memchr(view.text, 'E', view.len) == NULL;
}

static json_t *number(struct json_view view)
{
    if (is_integer(view))
        return json_integer(json_view_int(view, 0));
    return json_real(json_view_num(view, 0));
}

static json_t *text(struct json_view view)
{
    struct buf out = {0};
    if (!json_view_text(view, &out) || utf8_valid(out.data, out.len) != out.len)
        abort();
    char copy[16];
    if (!json_view_copy(view, copy, sizeof copy) || strncmp(copy, out.data, strlen(copy)) != 0)
        abort();
    /* A comparison does not repair: damaged bytes equal no text. */
    if (utf8_valid(view.text, view.len) == view.len && !json_view_equals(view, out.data))
        abort();
    json_t *node = json_stringn(out.data, out.len);
    buf_release(&out);
    return node;
}

static json_t *tree(struct json_view view)
{
    struct json_view key, value;
    json_t *node, *name;
    switch (view.kind) {
    case JSON_VIEW_OBJECT:
        node = json_object();
        while (json_view_next(&view, &key, &value)) {
            name = text(key);
            json_object_set_new(node, json_string_value(name), tree(value));
            json_decref(name);
        }
        return node;
    case JSON_VIEW_ARRAY:
        node = json_array();
        while (json_view_next(&view, NULL, &value))
            json_array_append_new(node, tree(value));
        return node;
    case JSON_VIEW_STRING:
        return text(view);
    case JSON_VIEW_NUMBER:
        return number(view);
    case JSON_VIEW_NULL:
        return json_null();
    default:
        return json_boolean(view.kind == JSON_VIEW_TRUE);
    }
}

static bool has_long_number(const uint8_t *data, size_t size)
{
    size_t run = 0;
    for (size_t i = 0; i < size; i++) {
        run = memchr("+-.0123456789eE", data[i], 15) != NULL ? run + 1 : 0;
        if (run >= 64) /* read as the fallback, not as jansson does */
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_view view;
    bool valid = json_view_parse(&view, (const char *)data, size);
    json_t *is = valid ? tree(view) : NULL;
    json_t *reference = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
    if (memchr(data, '\0', size) != NULL) { /* jansson takes a NUL byte for the end of the text */
        json_decref(reference);
        reference = NULL;
    }
    if (reference != NULL && !valid && size < 2 * JSON_VIEW_MAX_DEPTH)
        abort();
    if (reference != NULL && valid && !has_long_number(data, size) && !json_equal(is, reference))
        abort();
    json_decref(is);
    json_decref(reference);
    return 0;
}
