#include "workers/providers.h"

#include <string.h>

static const struct provider *const table[] = {
    &provider_anthropic,         &provider_openai, &provider_gemini,
    &provider_huggingface,       &provider_ollama, &provider_lmstudio,
    &provider_llamacpp,          &provider_vllm,   &provider_tgi,
    &provider_openai_compatible, &provider_noop,
};

const struct provider *const *provider_table(size_t *ret_count)
{
    *ret_count = sizeof table / sizeof *table;
    return table;
}

const struct provider *provider_find(const char *api)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i]->api, api) == 0)
            return table[i];
    return NULL;
}
