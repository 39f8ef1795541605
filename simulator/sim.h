/* The simulator as a whole: one HTTP server, a scenario and a journal. */
#ifndef SIMULATOR_SIM_H
#define SIMULATOR_SIM_H

#include "simulator/call.h"

struct sim_options {
    struct sim_http_options http;
    const char *scenario_file; /* NULL: the default scenario */
    int64_t seed;              /* < 0: the scenario's, or 1 */
    bool quiet;                /* no line on stderr per call */
};

/* 0, or negative errno with a sentence. */
int sim_open(struct sim *sim, uv_loop_t *loop, const struct sim_options *options, struct err *err);
void sim_close(struct sim *sim); /* the loop must run once more before it is closed */

#endif
