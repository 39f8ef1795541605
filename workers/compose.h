/* Writes the prompt of an attempt: what to do, and the results that it builds on, within what the
 * model can read. */
#ifndef WORKERS_COMPOSE_H
#define WORKERS_COMPOSE_H

#include <stddef.h>
#include <stdint.h>

#include "schemas/buf.h"
#include "schemas/message.h"

#define COMPOSE_BYTES_PER_TOKEN 4
#define COMPOSE_UNKNOWN_TOKENS 100000 /* window of a model whose context is not known */
#define COMPOSE_MIN_SHARE 256         /* bytes of every result that are kept whatever happens */

/* Appends the prompt to `out`, as valid UTF-8 without NUL. results: the texts of the dependencies,
 * in the order of work->dep_ids; where there are fewer of them than ids, or more, only pairs count.
 * context, max_tokens: of the model and the call, in tokens; 0: unknown.
 *
 * Without results and task text it is the prompt itself. Else:
 *
 *     ## The whole task            (only where work->task_text is set)
 *     ## Result of <title> (<id>)  (each dependency)
 *     ## Your subtask
 *
 * The window less the answer's room, the system prompt and the prompt is shared fairly: what is
 * shorter than its share leaves the rest to the others; what is longer is cut in its middle, with a
 * note that says how much is missing. The prompt itself is never cut. */
void compose_prompt(struct buf *out, const struct msg_work *work, const struct bytes *results,
                    size_t n_results, int64_t context, int64_t max_tokens);

#endif
