/* The rows of the provider table, one or more from each provider_*.c. */
#ifndef WORKERS_PROVIDERS_H
#define WORKERS_PROVIDERS_H

#include "workers/provider.h"

extern const struct provider provider_openai;
extern const struct provider provider_openai_compatible;
extern const struct provider provider_huggingface;
extern const struct provider provider_lmstudio;
extern const struct provider provider_llamacpp;
extern const struct provider provider_vllm;
extern const struct provider provider_tgi;
extern const struct provider provider_anthropic;
extern const struct provider provider_gemini;
extern const struct provider provider_ollama;
extern const struct provider provider_noop;

#endif
