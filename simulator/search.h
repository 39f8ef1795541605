/* The web search engines: DuckDuckGo's page, SearXNG's and Google's JSON. */
#ifndef SIMULATOR_SEARCH_H
#define SIMULATOR_SEARCH_H

#include "simulator/call.h"

/* Answers when the request (method and path filled in) is a search; then it returns true. The
 * exchange's data is a call, which sim_call_done() ends. Scenario rules count for searches only
 * where they say `api: search`. */
bool sim_search_answer(struct sim *sim, struct sim_exchange *exchange,
                       const struct sim_request *request);

#endif
