/* Names of models: how an answer to PROVIDER_LIST becomes the reply's text. */
#ifndef WORKERS_NAMES_H
#define WORKERS_NAMES_H

#include <stddef.h>

#include "workers/provider.h"

/* For provider.body(): of each item of the array `list` of an object, the member `name`, less
 * `prefix`, one a line. Sets `finished`, also when no model is served; an error that comes instead
 * is classified, and CLASS_BAD_RESPONSE is what is no list. */
void names_read(struct provider_reply *reply, const char *data, size_t len, const char *list,
                const char *name, const char *prefix);

#endif
