/* What is not a model call: /sim/..., lists of models, health. */
#ifndef SIMULATOR_CONTROL_H
#define SIMULATOR_CONTROL_H

#include "simulator/call.h"

/* Answers when the path is one of its own; false when it is not. dialect, or SIM_DIALECT_COUNT. */
bool sim_control_answer(struct sim *sim, struct sim_exchange *exchange, const char *path,
                        enum sim_dialect dialect);

#endif
