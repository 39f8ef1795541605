/* What is known of models by their provider's names: windows, prices, capabilities. The shipped
 * registry, model_registry.yaml, is built in; a configuration takes from it what it does not set.
 * Lookups are pure. */
#ifndef COMMON_MODEL_REGISTRY_H
#define COMMON_MODEL_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/err.h"

/* What a row does not say is 0, NULL or empty, as in struct config_model. */
struct model_registry_row {
    char *api;   /* one of the configuration's apis, or MODEL_REGISTRY_OPEN */
    char *as_of; /* date of its figures; NULL: the registry's */
    bool sure;   /* false: from secondary sources, or derived */
    char **efforts;
    size_t n_efforts;          /* of reasoning that it takes; 0: not known */
    bool pattern;              /* its name has * */
    struct config_model model; /* its name, context, max_output, prices, capabilities, refuses,
                                  endpoint */
};
#define MODEL_REGISTRY_OPEN "open" /* families with open weights, whoever serves them */

struct model_registry;

/* The built-in one, read at the first call and kept. NULL when memory is out. */
const struct model_registry *model_registry_shipped(void);
/* From text, for tests. 0; -EINVAL with file:line:column; -ENOMEM. */
int model_registry_read(struct model_registry **ret, const char *name, const char *text, size_t len,
                        struct err *err);
void model_registry_free(struct model_registry **registry); /* accepts NULL */

const char *model_registry_as_of(const struct model_registry *registry); /* "2026-11-20" */
const struct model_registry_row *model_registry_rows(const struct model_registry *registry,
                                                     size_t *ret_count);

/* The row of a provider's model: its exact name, then without what model_registry_name_core()
 * leaves out, then the first pattern of the api, then of MODEL_REGISTRY_OPEN. NULL: not known. */
const struct model_registry_row *model_registry_find(const struct model_registry *registry,
                                                     const char *api, const char *name);

/* Finds in name[0..*ret_len) what names the model: without `models/` before it, and without the
 * date (-2026-09-22, -20250929) or -latest behind it; with huggingface without `:provider`.
 * Borrowed from name. */
const char *model_registry_name_core(const char *api, const char *name, size_t *ret_len);

/* Whether it only makes vectors, so that it is no model for prompts. */
bool model_registry_only_embeds(const struct config_model *model);
bool model_registry_has(char *const *words, size_t count, const char *word);

#endif
