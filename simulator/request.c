#include "simulator/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "simulator/family.h"

static const char *const dialect_names[] = {
#define X(constant, name) name,
    SIM_DIALECTS(X)
#undef X
};

static const char *const kind_names[] = {
#define X(constant, name) name,
    SIM_KINDS(X)
#undef X
};

const char *sim_dialect_name(enum sim_dialect dialect)
{
    return dialect < SIM_DIALECT_COUNT ? dialect_names[dialect] : "";
}

enum sim_dialect sim_dialect_parse(const char *name, size_t len)
{
    int i = 0;
    while (i < SIM_DIALECT_COUNT &&
           (strlen(dialect_names[i]) != len || memcmp(dialect_names[i], name, len) != 0))
        i++;
    return (enum sim_dialect)i;
}

const char *sim_kind_name(enum sim_kind kind)
{
    return kind < SIM_KIND_COUNT ? kind_names[kind] : "none";
}

int sim_error_set(struct sim_error *error, const char *param, const char *format, ...)
{
    *error = (struct sim_error){.kind = SIM_KIND_BAD_REQUEST, .retry_after_s = -1};
    snprintf(error->param, sizeof error->param, "%s", param);
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    return -EINVAL;
}

void sim_request_release(struct sim_request *request)
{
    buf_release(&request->system);
    buf_release(&request->prompt);
    json_decref(request->root);
    request->root = NULL;
    request->schema = NULL;
    request->stop = NULL;
    request->inputs = NULL;
}

int sim_request_load(struct sim_request *request, const struct buf *body, struct sim_error *ret)
{
    struct err err = {0};
    request->root = json_parse(body->data != NULL ? body->data : "", body->len, &err);
    if (request->root == NULL && request->family == &sim_family_openai)
        return sim_error_set(ret, "",
                             "We could not parse the JSON body of your request. (HINT: This likely "
                             "means you aren't using your HTTP library correctly. The API expects "
                             "a JSON payload, but what was sent was not valid JSON.)");
    if (request->root == NULL)
        return sim_error_set(ret, "", "The request body is not valid JSON: %.300s", err.text);
    if (!json_is_object(request->root))
        return sim_error_set(ret, "", "The request body is not a JSON object");
    const char *model = json_str(request->root, "model", "");
    if (request->model[0] == '\0') /* Gemini's is in the path */
        snprintf(request->model, sizeof request->model, "%s", model);
    return 0;
}

int sim_request_check(struct sim_request *request, struct sim_error *ret)
{
    int rc = request->family->parse(request, ret);
    request->prompt_tokens = (int64_t)((request->system.len + request->prompt.len + 3) / 4) +
                             request->images * SIM_IMAGE_TOKENS;
    uint64_t hash = sim_hash(request->system.data, request->system.len, SIM_HASH_SEED);
    hash = sim_hash("", 1, hash); /* the border between the two */
    request->prompt_hash = sim_hash(request->prompt.data, request->prompt.len, hash);
    return rc;
}

void sim_request_add_text(struct buf *out, const char *text, size_t len)
{
    if (out->len > 0)
        buf_add_char(out, '\n');
    buf_add(out, text, len);
}

bool sim_request_add_content(struct buf *out, const json_t *content)
{
    if (json_is_string(content)) {
        sim_request_add_text(out, json_string_value(content), json_string_length(content));
        return true;
    }
    if (json_is_null(content))
        return true;
    if (!json_is_array(content))
        return false;
    size_t i;
    json_t *part;
    json_array_foreach (content, i, part) {
        const json_t *text = json_get(part, "text");
        if (json_is_string(text))
            sim_request_add_text(out, json_string_value(text), json_string_length(text));
        else if (!json_is_object(part))
            return false;
    }
    return true;
}

uint64_t sim_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

double sim_random_unit(uint64_t *state)
{
    return (double)(sim_random(state) >> 11) * 0x1.0p-53;
}

uint64_t sim_hash(const void *data, size_t len, uint64_t seed)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < len; i++)
        seed = (seed ^ at[i]) * 0x100000001b3ull;
    return seed;
}
