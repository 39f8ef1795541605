/* Vectors, as OpenAI's /v1/embeddings gives them, and as bare arrays: Hugging Face's feature
 * extraction and Text Embeddings Inference. */
#include <errno.h>
#include <string.h>

#include "simulator/family_openai.h"
#include "simulator/vectors.h"

#define MAX_INPUTS 2048

/* /v1/embeddings takes "input" and answers with objects; the others take "inputs". */
static bool is_bare(const struct sim_request *request)
{
    return strcmp(request->path, "/v1/embeddings") != 0;
}

int sim_openai_embed_parse(struct sim_request *request, struct sim_error *ret)
{
    const char *name = is_bare(request) ? "inputs" : "input";
    const json_t *inputs = json_get(request->root, name);
    size_t i, n = json_is_array(inputs) ? json_array_size(inputs) : 1;
    if (inputs == NULL)
        return sim_error_set(ret, name, "Missing required parameter: '%s'.", name);
    if (n == 0 || n > MAX_INPUTS)
        return sim_error_set(ret, name, "Invalid '%s': 1 to %d texts are taken.", name, MAX_INPUTS);
    for (i = 0; i < n; i++) {
        const json_t *text = json_is_array(inputs) ? json_array_get(inputs, i) : inputs;
        if (!json_is_string(text) || json_string_length(text) == 0)
            return sim_error_set(ret, name, "Invalid '%s[%zu]': input cannot be an empty string.",
                                 name, i);
        sim_request_add_content(&request->prompt, text);
    }
    const char *format = json_str(request->root, "encoding_format", "float");
    if (strcmp(format, "float") != 0)
        return sim_error_set(ret, "encoding_format", "Only float is simulated.");
    request->dimensions = json_int(request->root, "dimensions", 0);
    if (request->dimensions < 0 || request->dimensions > SIM_VECTORS_MAX_DIMENSIONS)
        return sim_error_set(ret, "dimensions", "Invalid 'dimensions'.");
    request->inputs = inputs;
    return 0;
}

static void add_bare(const struct sim_answer *answer, size_t skip, struct buf *out)
{
    const char *at = answer->text, *end = at + answer->text_len, *vector;
    size_t len, n = 0;
    buf_add_char(out, '[');
    while ((vector = sim_vectors_next(&at, end, &len)) != NULL) {
        if (n++ < skip)
            continue;
        if (n > skip + 1)
            buf_add_char(out, ',');
        buf_add(out, vector, len);
    }
    buf_add_char(out, ']');
}

/* An answer that is not finished lacks its first vector. */
void sim_openai_embed_whole(const struct sim_answer *answer, struct buf *out)
{
    size_t skip = answer->finished ? 0 : 1, len, n = 0;
    if (is_bare(answer->request)) {
        add_bare(answer, skip, out);
        return;
    }
    const char *at = answer->text, *end = at + answer->text_len, *vector;
    long long prompt = answer->request->prompt_tokens;
    buf_add_str(out, "{\"object\":\"list\",\"data\":[");
    while ((vector = sim_vectors_next(&at, end, &len)) != NULL) {
        if (n++ < skip)
            continue;
        buf_printf(out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":",
                   n > skip + 1 ? "," : "", n - 1);
        buf_add(out, vector, len);
        buf_add_char(out, '}');
    }
    buf_add_str(out, "],\"model\":");
    sim_family_add_json(out, answer->model);
    buf_printf(out, ",\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld}}", prompt, prompt);
}
