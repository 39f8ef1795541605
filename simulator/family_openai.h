/* What the parts of the OpenAI family share. */
#ifndef SIMULATOR_FAMILY_OPENAI_H
#define SIMULATOR_FAMILY_OPENAI_H

#include "simulator/family.h"

/* The error of the request's dialect. */
void sim_openai_error(const struct sim_request *request, const struct sim_error *error,
                      struct sim_failure *ret);
const struct sim_error_row *sim_openai_error_row(const struct sim_request *request,
                                                 const struct sim_error *error);
void sim_openai_headers(const struct sim_answer *answer, struct buf *out);

/* Where vectors are asked for. */
int sim_openai_embed_parse(struct sim_request *request, struct sim_error *ret);
void sim_openai_embed_whole(const struct sim_answer *answer, struct buf *out);

#endif
