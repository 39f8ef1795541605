/* What the two halves of the OpenAI family share. */
#ifndef SIMULATOR_FAMILY_OPENAI_H
#define SIMULATOR_FAMILY_OPENAI_H

#include "simulator/family.h"

/* The error of the request's dialect. */
void sim_openai_error(const struct sim_request *request, const struct sim_error *error,
                      struct sim_failure *ret);

#endif
