#include "workers/request_key.h"

#include <string.h>

#include "common/sha256.h"

/* To be raised when the parts or their order change: answers of before are then not found. */
#define REQUEST_KEY_VERSION "orchestrator request 1"

_Static_assert(ANSWER_KEY_SIZE == SHA256_HEX_SIZE, "a key is a SHA-256 in hex");

static void add_number(struct sha256 *sha, int64_t number)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)number >> (8 * i));
    sha256_add(sha, bytes, sizeof bytes);
}

static void add_bytes(struct sha256 *sha, const char *data, size_t len)
{
    add_number(sha, (int64_t)len);
    sha256_add(sha, data, len);
}

/* NULL and "" differ: no schema is not an empty one. */
static void add_text(struct sha256 *sha, const char *text)
{
    add_number(sha, text != NULL);
    if (text != NULL)
        add_bytes(sha, text, strlen(text));
}

static void add_texts(struct sha256 *sha, const char *const *texts, size_t n)
{
    add_number(sha, (int64_t)n);
    for (size_t i = 0; i < n; i++)
        add_text(sha, texts[i]);
}

static void add_images(struct sha256 *sha, const struct provider_call *call)
{
    add_number(sha, (int64_t)call->n_images);
    for (size_t i = 0; i < call->n_images; i++) {
        add_text(sha, call->images[i].url);
        add_text(sha, call->images[i].media_type);
        add_text(sha, call->images[i].data);
    }
}

static void add_search(struct sha256 *sha, const struct config_provider *search)
{
    add_number(sha, search != NULL);
    if (search == NULL)
        return;
    add_text(sha, search->engine);
    add_text(sha, search->engine_url);
    add_text(sha, search->engine_cx);
    add_text(sha, search->search);
    add_number(sha, search->max_results);
}

void request_key(const struct provider *provider, const struct provider_call *call,
                 const struct config_provider *search, char ret[ANSWER_KEY_SIZE])
{
    struct sha256 sha;
    int64_t temperature = 0; /* its bits: -0 is written as 0, and all below 0 are "not sent" */
    double sent = call->temperature < 0 ? -1 : call->temperature + 0.0;
    memcpy(&temperature, &sent, sizeof temperature);
    sha256_init(&sha);
    add_text(&sha, REQUEST_KEY_VERSION);
    add_text(&sha, provider->api);
    add_text(&sha, call->base_url);
    add_text(&sha, call->model);
    add_number(&sha, call->kind);
    add_text(&sha, call->system);
    add_bytes(&sha, call->prompt, call->prompt_len);
    add_text(&sha, call->json_schema);
    add_number(&sha, temperature);
    add_number(&sha, call->max_tokens);
    add_number(&sha, call->context);
    add_number(&sha, call->has_seed);
    add_number(&sha, call->has_seed ? call->seed : 0);
    add_texts(&sha, call->stop, call->n_stop);
    add_text(&sha, call->effort);
    add_images(&sha, call);
    add_texts(&sha, call->inputs, call->n_inputs);
    add_number(&sha, call->dimensions);
    add_number(&sha, call->responses);
    add_number(&sha, call->no_system);
    add_texts(&sha, call->headers, call->n_headers);
    add_search(&sha, search);
    sha256_hex(&sha, ret);
}
