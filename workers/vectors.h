/* Vectors of texts (embeddings): what a call must hold, and how an answer becomes the reply's text.
 */
#ifndef WORKERS_VECTORS_H
#define WORKERS_VECTORS_H

#include <stdbool.h>

#include "common/err.h"
#include "workers/json_view.h"
#include "workers/provider.h"

/* For provider.build(): -EINVAL with a sentence when there are no texts, or one of them is empty,
 * which some providers refuse and others answer with a vector that means nothing. */
int vectors_check(const struct provider_call *call, struct err *err);

enum vectors_length {
    VECTORS_AS_SENT,
    VECTORS_OF_UNIT_LENGTH, /* scaled to length 1 where they are not */
};
/* For provider.body(): `list` is an array of vectors in the order of the texts, or of objects that
 * have theirs in `member` (NULL: none). Makes the reply's text, a JSON array of arrays of numbers
 * without blanks, and sets `finished`; CLASS_BAD_RESPONSE when the vectors are not as many as the
 * texts, not all of one size, or not made of finite numbers; CLASS_BAD_REQUEST when they have not
 * the dimensions that were asked for. */
void vectors_read(struct provider_reply *reply, struct json_view list, const char *member,
                  enum vectors_length length);

#endif
