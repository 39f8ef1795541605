/* OpenAI, and everybody who speaks as it does: one row of quirks for each. What differs on the wire
 * has a file of its own: chat completions, the Responses API, embeddings, LM Studio's native API.
 */
#include "workers/provider_openai.h"

#include <string.h>

#include "workers/call.h"
#include "workers/failure.h"
#include "workers/names.h"
#include "workers/providers.h"

static int list_build(const struct provider *provider, const struct provider_call *call,
                      struct provider_request *ret, struct err *err)
{
    int rc = wire_url(provider, call, "/v1", "/models", ret, err);
    if (rc == 0)
        rc = call_headers(call, ret, err);
    if (rc == 0)
        rc = wire_key(provider, call, "Authorization", "Bearer ", ret, err);
    return rc == 0 ? wire_finish(ret, err) : rc;
}

int openai_build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err)
{
    if (call->kind == PROVIDER_LIST)
        return list_build(provider, call, ret, err);
    if (call->kind == PROVIDER_EMBED)
        return openai_embed_build(provider, call, ret, err);
    return call->responses ? openai_responses_build(provider, call, ret, err)
                           : openai_chat_build(provider, call, ret, err);
}

void openai_event(const struct provider *provider, struct provider_reply *reply, const char *data,
                  size_t len)
{
    const struct openai_quirks *quirks = provider->quirks;
    if (reply->scratch[OPENAI_DONE_SEEN])
        return;
    if (reply->responses) {
        openai_responses_event(reply, data, len);
        return;
    }
    if (wire_is_done(data, len)) {
        reply->scratch[OPENAI_DONE_SEEN] = true;
        if (reply->error == CLASS_NONE)
            wire_conclude(reply);
        return;
    }
    wire_event(reply, data, len, quirks->document);
    if (!quirks->needs_done)
        wire_prove(reply);
}

void openai_body(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len)
{
    const struct openai_quirks *quirks = provider->quirks;
    if (reply->kind == PROVIDER_LIST)
        names_read(reply, data, len, "data", "id", "");
    else if (reply->kind == PROVIDER_EMBED)
        openai_embed_body(reply, data, len);
    else if (reply->responses)
        openai_responses_body(provider, reply, data, len);
    else
        wire_body(provider, reply, data, len, quirks->document);
}

void openai_end(const struct provider *provider, struct provider_reply *reply)
{
    const struct openai_quirks *quirks = provider->quirks;
    bool proves = !quirks->needs_done && !reply->responses && reply->kind == PROVIDER_CHAT;
    if (proves && reply->error == CLASS_NONE && reply->finish != FINISH_NONE)
        wire_conclude(reply);
    wire_end(provider, reply);
}

#define ALL_KINDS                                                                                  \
    PROVIDER_KIND(PROVIDER_CHAT) | PROVIDER_KIND(PROVIDER_EMBED) | PROVIDER_KIND(PROVIDER_LIST)

#define FUNCTIONS                                                                                  \
    .abi = PROVIDER_ABI, .framing = PROVIDER_SSE, .kinds = ALL_KINDS, .build = openai_build,       \
    .event = openai_event, .body = openai_body, .failure = failure_http, .end = openai_end

const struct provider provider_openai = {
    FUNCTIONS,
    .api = "openai",
    .title = "OpenAI",
    .base_url = "https://api.openai.com",
    .key_env = "OPENAI_API_KEY",
    .needs_key = true,
    .quirks =
        &(const struct openai_quirks){
            .document = openai_chat_document,
            .system_role = "developer",
            .max_tokens = "max_completion_tokens",
            .schema = OPENAI_SCHEMA_STRICT,
            .max_stop = 4,
            .max_inputs = 2048,
            .needs_done = true,
            .no_obfuscation = true,
        },
};

const struct provider provider_huggingface = {
    FUNCTIONS,
    .api = "huggingface",
    .title = "Hugging Face Inference Providers",
    .base_url = "https://router.huggingface.co",
    .key_env = "HF_TOKEN",
    .needs_key = true,
    .quirks =
        &(const struct openai_quirks){
            .document = openai_chat_document,
            .system_role = "system",
            .max_tokens = "max_tokens",
            .schema = OPENAI_SCHEMA_STRICT,
            .vectors = OPENAI_VECTORS_PIPELINE,
            .max_stop = 4,
        },
};

const struct provider provider_llamacpp = {
    FUNCTIONS,
    .api = "llamacpp",
    .title = "llama.cpp's llama-server",
    .base_url = "http://127.0.0.1:8080",
    .local = true,
    .quirks =
        &(const struct openai_quirks){
            .document = openai_chat_document,
            .system_role = "system",
            .max_tokens = "max_tokens",
            .schema = OPENAI_SCHEMA_NAMED,
            .needs_done = true,
            .thinking_kwarg = true,
            .cache_prompt = true,
        },
};

const struct provider provider_vllm = {
    FUNCTIONS,
    .api = "vllm",
    .title = "vLLM",
    .base_url = "http://127.0.0.1:8000",
    .local = true,
    .quirks =
        &(const struct openai_quirks){
            .document = openai_chat_document,
            .system_role = "system",
            .max_tokens = "max_tokens",
            .schema = OPENAI_SCHEMA_STRICT,
            .needs_done = true,
            .thinking_kwarg = true,
        },
};

const struct provider provider_tgi = {
    FUNCTIONS,
    .api = "tgi",
    .title = "Hugging Face Text Generation (and Embeddings) Inference",
    .local = true,
    .quirks =
        &(const struct openai_quirks){
            .document = openai_chat_document,
            .system_role = "system",
            .max_tokens = "max_tokens",
            .schema = OPENAI_SCHEMA_VALUE,
            .vectors = OPENAI_VECTORS_TEI,
            .max_stop = 4,
            .no_zero = true,
            .no_effort = true,
        },
};

const struct provider provider_openai_compatible = {
    FUNCTIONS,
    .api = "openai-compatible",
    .title = "any server that speaks OpenAI's chat completions",
    .quirks =
        &(const struct openai_quirks){
            .document = openai_chat_document,
            .system_role = "system",
            .max_tokens = "max_tokens",
            .schema = OPENAI_SCHEMA_STRICT,
        },
};
