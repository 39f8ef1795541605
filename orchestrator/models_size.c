/* How large models are: asked of local runtimes, or read from their names. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/detect.h"
#include "orchestrator/models.h"
#include "orchestrator/runtime_look.h"
#include "schemas/mem.h"

#define ASK_MS 1000

struct models_sizes {
    const struct config *config;
    struct detect_runtime *runtimes; /* of each provider; found only when it is a local runtime */
};

struct models_sizes *models_sizes_ask(const struct config *config)
{
    struct models_sizes *sizes = mem_must_zalloc(sizeof *sizes);
    sizes->config = config;
    sizes->runtimes = mem_must_zalloc((config->n_providers + 1) * sizeof *sizes->runtimes);
    for (size_t i = 0; i < config->n_providers; i++)
        runtime_look_target(&sizes->runtimes[i], &config->providers[i]);
    runtime_look_ask(sizes->runtimes, config->n_providers, ASK_MS);
    return sizes;
}

void models_sizes_free(struct models_sizes **sizes)
{
    if (*sizes == NULL)
        return;
    detect_release((*sizes)->runtimes, (*sizes)->config->n_providers);
    free((*sizes)->runtimes);
    free(*sizes);
    *sizes = NULL;
}

/* A number of parameters within a name, "8b", "0.6b", "8x7b", "a3b" not: it begins after a mark
 * and ends with the word. */
static void size_in_name(const char *name, struct models_size *ret)
{
    for (const char *at = name; *at != '\0'; at++) {
        bool begins = isdigit((unsigned char)*at) && (at == name || strchr("-:_/", at[-1]) != NULL);
        size_t len = begins ? strspn(at, "0123456789.x") : 0;
        if (len == 0 || len + 2 > sizeof ret->parameters || strchr("bB", at[len]) == NULL ||
            at[len] == '\0' || isalnum((unsigned char)at[len + 1]))
            continue;
        snprintf(ret->parameters, sizeof ret->parameters, "%.*sB", (int)len, at);
        return;
    }
}

struct models_size models_size_of(const struct models_sizes *sizes,
                                  const struct config_model *model)
{
    struct models_size size = {.bytes = 0};
    const struct config *config = sizes->config;
    for (size_t i = 0; i < config->n_providers; i++) {
        if (strcmp(config->providers[i].name, model->provider) != 0)
            continue;
        const struct detect_model *found = runtime_look_model(&sizes->runtimes[i], model->name);
        if (found != NULL) {
            snprintf(size.parameters, sizeof size.parameters, "%s", found->parameters);
            size.bytes = found->bytes;
        }
    }
    if (size.parameters[0] == '\0')
        size_in_name(model->name, &size);
    return size;
}
