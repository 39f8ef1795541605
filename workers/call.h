/* What the families share in writing a provider_call down. */
#ifndef WORKERS_CALL_H
#define WORKERS_CALL_H

#include <stdbool.h>

#include "common/err.h"
#include "schemas/buf.h"
#include "workers/provider.h"

/* Appends the call's own request headers; one that is there already is replaced. To be called
 * before the key's header is written. -EINVAL with a sentence when one would break the request. */
int call_headers(const struct provider_call *call, struct provider_request *ret, struct err *err);
/* Whether the system prompt goes where the API has a place for it. */
bool call_has_system(const struct provider_call *call);
/* The prompt as a JSON string; behind the system prompt where the model takes none of its own. */
void call_prompt(const struct provider_call *call, struct buf *body);
/* `,"name":["a","b"]` of the strings that end the answer, without empty ones; nothing when there
 * are none. */
void call_stop(const struct provider_call *call, const char *name, struct buf *body);
/* Whether thinking is asked for, and not asked to be left out. */
bool call_thinks(const struct provider_call *call);
bool call_thinks_not(const struct provider_call *call); /* effort "none" */

#endif
