/* What an attempt asks of the provider: the claimed records, made into a call that the model takes.
 * What the model refuses is left out, or said in the prompt instead. */
#ifndef WORKERS_ASK_H
#define WORKERS_ASK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/json.h"
#include "common/queue.h"
#include "workers/brief.h"
#include "workers/provider.h"

#define ASK_IMAGE_TOKENS 16384 /* more than any family counts for one image */
#define ASK_ANSWER_TOKENS 4096 /* where a budget asks for a bound and nothing else gives one */

/* Borrowed for the life of the ask. */
struct ask_options {
    const struct provider *provider;
    const struct config_provider *settings; /* base_url, stream, headers */
    const struct config_model *model;
};

struct ask {
    struct ask_options options;
    struct brief brief;      /* owned, and so is what follows; the call points into it */
    json_t *images, *inputs; /* parsed; NULL: none */
    struct provider_image *image_list;
    const char **input_list;
    struct provider_call call; /* without its key */
    int64_t more_bytes;        /* what may still be put into the prompt */
};

/* Reads the claim. 0; -ENOMEM; -EBADMSG for a damaged record; -EINVAL with a sentence when the
 * model or the provider cannot do what is asked. ask_release() also after a failure. */
int ask_read(struct ask *ret, const struct ask_options *options, const struct queue_claim *claim,
             struct err *err);
void ask_release(struct ask *ask);

/* The record of what was asked for. */
const struct msg_work *ask_work(const struct ask *ask);
/* Takes another prompt, which is moved here. */
void ask_set_prompt(struct ask *ask, struct buf *prompt);
/* Bounds the length of the answer where nothing else does: for budgets. */
void ask_bound_answer(struct ask *ask);
/* The most that the call can use, after ask_bound_answer(): a byte is at most a token. */
struct queue_spend ask_worst(const struct ask *ask, int64_t wall_ms);
/* Whether an equal call may be answered with the same answer: as the work says, else where the
 * temperature is 0, and for embeddings. */
bool ask_cacheable(const struct ask *ask);

#endif
