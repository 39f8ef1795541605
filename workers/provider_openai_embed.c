/* Vectors of texts: OpenAI's /v1/embeddings, Hugging Face's feature extraction and TEI's /embed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"
#include "workers/call.h"
#include "workers/failure.h"
#include "workers/provider_openai.h"
#include "workers/vectors.h"

/* --- requests ----------------------------------------------------------------------------------
 */

static void add_inputs(const struct provider_call *call, const char *name, struct buf *body)
{
    buf_printf(body, "\"%s\":[", name);
    for (size_t i = 0; i < call->n_inputs; i++) {
        if (i > 0)
            buf_add_char(body, ',');
        buf_add_json(body, call->inputs[i], strlen(call->inputs[i]));
    }
    buf_add_char(body, ']');
}

static void add_dimensions(const struct provider_call *call, struct buf *body)
{
    if (call->dimensions > 0)
        buf_printf(body, ",\"dimensions\":%lld", (long long)call->dimensions);
}

static int v1_build(const struct provider *provider, const struct provider_call *call,
                    struct provider_request *ret, struct err *err)
{
    buf_add_str(&ret->body, "{\"model\":");
    buf_add_json(&ret->body, call->model, strlen(call->model));
    buf_add_char(&ret->body, ',');
    add_inputs(call, "input", &ret->body);
    add_dimensions(call, &ret->body);
    buf_add_str(&ret->body, ",\"encoding_format\":\"float\"}");
    return wire_url(provider, call, "/v1", "/embeddings", ret, err);
}

/* A model's name as a part of a path: its slashes stay. */
static void add_path(const char *name, struct buf *path)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789-._~/";
    for (; *name != '\0'; name++) {
        if (strchr(plain, *name) != NULL)
            buf_add_char(path, *name);
        else
            buf_printf(path, "%%%02X", (unsigned char)*name);
    }
}

/* Without "truncate": false what is too long would be cut without a word. */
static int pipeline_build(const struct provider *provider, const struct provider_call *call,
                          struct provider_request *ret, struct err *err)
{
    if (call->dimensions > 0)
        return err_set(err, -EINVAL,
                       "feature extraction at Hugging Face takes no dimensions: leave them out");
    struct buf path = {0};
    buf_add_str(&path, "/hf-inference/models/");
    add_path(call->model, &path);
    buf_add_str(&path, "/pipeline/feature-extraction");
    int rc = path.failed ? err_set(err, -ENOMEM, "out of memory")
                         : wire_url(provider, call, "", path.data, ret, err);
    buf_release(&path);
    buf_add_char(&ret->body, '{');
    add_inputs(call, "inputs", &ret->body);
    buf_add_str(&ret->body, ",\"normalize\":true,\"truncate\":false}");
    return rc;
}

static int tei_build(const struct provider *provider, const struct provider_call *call,
                     struct provider_request *ret, struct err *err)
{
    buf_add_char(&ret->body, '{');
    add_inputs(call, "inputs", &ret->body);
    add_dimensions(call, &ret->body);
    buf_add_str(&ret->body, ",\"normalize\":true,\"truncate\":false}");
    return wire_url(provider, call, "", "/embed", ret, err);
}

/* An inference endpoint is a server for one model, and no router: it speaks as OpenAI does. */
static bool is_endpoint(const struct provider_call *call)
{
    return call->base_url != NULL && strstr(call->base_url, ".endpoints.huggingface.") != NULL;
}

int openai_embed_build(const struct provider *provider, const struct provider_call *call,
                       struct provider_request *ret, struct err *err)
{
    static int (*const builds[])(const struct provider *, const struct provider_call *,
                                 struct provider_request *, struct err *) = {
        [OPENAI_VECTORS_V1] = v1_build,
        [OPENAI_VECTORS_PIPELINE] = pipeline_build,
        [OPENAI_VECTORS_TEI] = tei_build,
    };
    const struct openai_quirks *quirks = provider->quirks;
    enum openai_vectors form = is_endpoint(call) ? OPENAI_VECTORS_V1 : quirks->vectors;
    int rc = vectors_check(call, err);
    if (rc == 0 && quirks->max_inputs > 0 && call->n_inputs > quirks->max_inputs)
        rc = err_set(err, -EINVAL, "api %s takes at most %zu texts in a call, and here are %zu",
                     provider->api, quirks->max_inputs, call->n_inputs);
    if (rc < 0)
        return rc;
    buf_add_str(&ret->headers, "Content-Type: application/json\n");
    if ((rc = builds[form](provider, call, ret, err)) == 0)
        rc = call_headers(call, ret, err);
    if (rc == 0)
        rc = wire_key(provider, call, "Authorization", "Bearer ", ret, err);
    return rc == 0 ? wire_finish(ret, err) : rc;
}

/* --- answers ------------------------------------------------------------------------------------
 */

/* Each item's place is its "index". 0; -EBADMSG when they are not one for each text; -ENOMEM. */
static int sort_items(struct json_view data, struct json_view *sorted, size_t n)
{
    struct json_view item;
    size_t count = 0;
    for (; json_view_next(&data, NULL, &item); count++) {
        int64_t at = json_view_int(json_view_member(item, "index"), (int64_t)count);
        if (at < 0 || (uint64_t)at >= n || sorted[at].kind != JSON_VIEW_NONE)
            return -EBADMSG;
        sorted[at] = item;
    }
    return count == n ? 0 : -EBADMSG;
}

/* Some servers answer in the order in which they were done. */
static void read_data(struct provider_reply *reply, struct json_view data)
{
    struct json_view *sorted = mem_alloc((reply->n_inputs + 1) * sizeof *sorted);
    struct buf text = {0};
    if (sorted == NULL) {
        provider_reply_fail(reply, CLASS_RETRY, "out of memory while reading the vectors");
        return;
    }
    memset(sorted, 0, (reply->n_inputs + 1) * sizeof *sorted);
    if (sort_items(data, sorted, reply->n_inputs) != 0)
        provider_reply_fail(reply, CLASS_BAD_RESPONSE,
                            "the answer does not hold one vector for each of the %zu texts",
                            reply->n_inputs);
    buf_add_char(&text, '[');
    for (size_t i = 0; reply->error == CLASS_NONE && i < reply->n_inputs; i++) {
        if (i > 0)
            buf_add_char(&text, ',');
        buf_add(&text, sorted[i].text, sorted[i].len);
    }
    buf_add_char(&text, ']');
    free(sorted);
    if (text.failed)
        provider_reply_fail(reply, CLASS_RETRY, "out of memory while reading the vectors");
    else if (reply->error == CLASS_NONE && json_view_parse(&data, text.data, text.len))
        vectors_read(reply, data, "embedding", VECTORS_AS_SENT);
    buf_release(&text);
}

/* [[...],[...]]; for one text also [...]. A model without pooling gives a vector to each token. */
static void read_arrays(struct provider_reply *reply, struct json_view arrays)
{
    struct json_view first = json_view_first(arrays);
    if (json_view_first(first).kind == JSON_VIEW_ARRAY) {
        provider_reply_fail(reply, CLASS_BAD_REQUEST,
                            "the model gives a vector to each token and none to the whole text: "
                            "choose one that is made for sentences");
        return;
    }
    struct buf wrapped = {0};
    if (first.kind == JSON_VIEW_NUMBER && reply->n_inputs == 1) {
        buf_add_char(&wrapped, '[');
        buf_add(&wrapped, arrays.text, arrays.len);
        buf_add_char(&wrapped, ']');
        if (wrapped.failed || !json_view_parse(&arrays, wrapped.data, wrapped.len))
            provider_reply_fail(reply, CLASS_RETRY, "out of memory while reading the vectors");
    }
    if (reply->error == CLASS_NONE)
        vectors_read(reply, arrays, NULL, VECTORS_AS_SENT);
    buf_release(&wrapped);
}

static void read_usage(struct provider_reply *reply, struct json_view usage)
{
    int64_t tokens = 0;
    wire_count(json_view_member(usage, "prompt_tokens"), &tokens);
    if (tokens > 0) /* LM Studio does not count */
        reply->prompt_tokens = tokens;
    reply->output_tokens = 0;
}

static void read_object(struct provider_reply *reply, struct json_view document)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("data"),  JSON_VIEW_NAME("usage"), JSON_VIEW_NAME("model"),
        JSON_VIEW_NAME("error"), JSON_VIEW_NAME("id"),
    };
    struct json_view found[5];
    json_view_members(document, names, 5, found);
    if (wire_error(reply, document, found[3], CLASS_BAD_RESPONSE))
        return;
    if (found[0].kind != JSON_VIEW_ARRAY) {
        failure_inside(reply, document, CLASS_BAD_RESPONSE);
        return;
    }
    wire_name(found[2], reply->model, sizeof reply->model);
    wire_name(found[4], reply->request_id, sizeof reply->request_id);
    read_usage(reply, found[1]);
    read_data(reply, found[0]);
}

void openai_embed_body(struct provider_reply *reply, const char *data, size_t len)
{
    struct json_view document;
    if (reply->error != CLASS_NONE)
        return;
    if (!json_view_parse(&document, data, len))
        failure_no_json(reply, "the answer", data, len);
    else if (document.kind == JSON_VIEW_ARRAY)
        read_arrays(reply, document);
    else
        read_object(reply, document);
}
