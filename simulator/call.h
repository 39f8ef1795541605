/* One model call: matched with the scenario, answered over simulated time, entered in the journal.
 */
#ifndef SIMULATOR_CALL_H
#define SIMULATOR_CALL_H

#include "simulator/http.h"
#include "simulator/journal.h"
#include "simulator/prefixes.h"
#include "simulator/scenario.h"

/* What the whole simulator shares. */
struct sim {
    uv_loop_t *loop;
    struct sim_http *http;
    struct sim_scenario *scenario;
    struct sim_journal *journal;
    struct sim_prefixes *prefixes;
    struct sim_limits *limits;
    uint64_t random; /* for probabilities and jitter */
    bool quiet;
};

/* The exchange's body is a call to request->family, with method, path, dialect and what the path
 * says already filled in; *request is taken over. The exchange's data is the call until done. */
void sim_call_start(struct sim *sim, struct sim_exchange *exchange, struct sim_request *request);
/* The exchange is over; data: of the exchange, NULL when it was no call. */
void sim_call_done(struct sim *sim, void *data, bool sent);

/* Answers with an error of the request's family; returns its status. */
int sim_call_refuse(struct sim_exchange *exchange, const struct sim_request *request,
                    const struct sim_error *error);
/* The key that came with the exchange, in whatever form; "" when there is none. */
void sim_call_key(const struct sim_exchange *exchange, char *ret, size_t size);

#endif
