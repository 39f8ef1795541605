/* What answers where a local runtime should be: asked directly and without a key, for people who
 * look for a fault. The work itself goes through workers. */
#ifndef ORCHESTRATOR_RUNTIME_LOOK_H
#define ORCHESTRATOR_RUNTIME_LOOK_H

#include "common/config.h"
#include "common/detect.h"

/* Fills where and how the provider's runtime lists its models. False, with a runtime that is never
 * asked, when the provider is none of one's own, or is not reached by plain http. Resolves names,
 * which may take a while. */
bool runtime_look_target(struct detect_runtime *ret, const struct config_provider *provider);
/* detect_probe(), however many they are. */
void runtime_look_ask(struct detect_runtime *runtimes, size_t count, int budget_ms);
/* The model as the runtime calls it: a name without a tag is `:latest` to Ollama. NULL: it has
 * none of that name. */
const struct detect_model *runtime_look_model(const struct detect_runtime *runtime,
                                              const char *name);

/* Where http://host:port of the URL is: address as in struct detect_runtime. False for https, and
 * when the name cannot be resolved. */
bool runtime_look_address(const char *url, uint32_t *ret_address, int *ret_port);

#endif
