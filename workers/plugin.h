/* A provider from a shared object: opened, checked, and closed again. The object exports
 *
 *     const struct provider *orchestrator_provider(uint32_t abi);
 *
 * and is built against the installed header <orchestrator/provider.h> alone (docs/providers.md, "A
 * provider from outside"). What it calls of this program is exported by the worker: abi.cmake. */
#ifndef WORKERS_PLUGIN_H
#define WORKERS_PLUGIN_H

#include "common/err.h"
#include "workers/provider.h"

#define PLUGIN_SYMBOL "orchestrator_provider"
#define PLUGIN_API_MAX ((size_t)63) /* bytes of provider.api */

struct plugin;

/* path: absolute. The file and its directory must belong to root or to this user, and not be
 * writable by everybody: what is loaded is run. The provider lives as long as the plugin. 0;
 * -EINVAL, -EPERM, or what opening the file failed with, each with a sentence. */
int plugin_open(struct plugin **ret, const char *path, const struct provider **ret_provider,
                struct err *err);
void plugin_close(struct plugin **plugin); /* accepts NULL */

#endif
