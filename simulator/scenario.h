/* What the simulator should do: a YAML file of rules, of which the first that matches a request
 * decides. docs/simulator.md is its reference. */
#ifndef SIMULATOR_SCENARIO_H
#define SIMULATOR_SCENARIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "simulator/limits.h"
#include "simulator/request.h"

enum sim_reply_kind {
    SIM_REPLY_BUILTIN,
    SIM_REPLY_TEXT,
    SIM_REPLY_ECHO,
};

struct sim_timing {
    double load_ms;
    double prefill_tps; /* tokens per second; 0: at once */
    double decode_tps;
    double jitter;   /* each token's time is varied by this share: 0..1 */
    double burst_ms; /* tokens due within such a period leave together; 0: one by one */
    int64_t ping_ms; /* llama.cpp's comment pings while nothing else is sent; 0: 30 s */
};

#define SIM_NEVER (-1)

/* What goes wrong. All `*_after` count tokens; SIM_NEVER: it does not happen. */
struct sim_fault {
    enum sim_kind kind;   /* answered as an HTTP error; SIM_KIND_NONE: none */
    int64_t status;       /* instead of the kind's own (or html's 502); 0: its own */
    double retry_after_s; /* < 0: the kind's own */
    const char *message;  /* NULL: the kind's own */
    int64_t truncate_after, malformed_after, error_after, stall_after;
    int64_t stall_ms; /* 0: for ever */
    int64_t drip_bytes, drip_ms;
    const char *served_model; /* NULL: the one asked for */
    const char *finish;       /* finish reason, in the API's own word; NULL: the right one */
    bool html, close_before_headers, no_finish, empty;
};

struct sim_rule {
    /* NULL: any. Globs as of fnmatch(3); prompt and system are substrings. */
    const char *path, *model, *key, *prompt, *system;
    const struct sim_family *family; /* NULL: any */
    int64_t after, times;            /* times < 0: no limit */
    double probability;
    enum sim_reply_kind reply;
    const char *text;
    struct sim_timing timing;
    int64_t tokens; /* length of a generated filler; 0: the reply itself */
    const char
        *served; /* model that answers, as an alias's snapshot does; NULL: the one asked for */
    struct sim_fault fault;
    int64_t matched; /* requests that met all conditions so far */
};

struct sim_scenario; /* counted references */

/* name appears in errors, as file:line:column. text NULL: the default, which has no rules. */
int sim_scenario_parse(struct sim_scenario **ret, const char *name, const char *text, size_t len,
                       struct err *err);
/* A running call keeps its scenario when another replaces it. */
struct sim_scenario *sim_scenario_ref(struct sim_scenario *scenario);
void sim_scenario_unref(struct sim_scenario **scenario); /* accepts NULL */

/* The scenario's seed; -1: it names none. */
int64_t sim_scenario_seed(const struct sim_scenario *scenario);
/* The rule for the request, counted as matched; never NULL. index: its place, -1: the default. */
const struct sim_rule *sim_scenario_match(struct sim_scenario *scenario,
                                          const struct sim_request *request, uint64_t *random,
                                          int *ret_index);
/* Forgets how often each rule has matched. */
void sim_scenario_reset(struct sim_scenario *scenario);
/* Whether the key is one that the scenario demands, or it demands none. */
bool sim_scenario_admits(const struct sim_scenario *scenario, const char *key);
/* Whether the scenario lists the model, or lists none. */
bool sim_scenario_serves(const struct sim_scenario *scenario, const char *model);
/* What the key may ask for. */
const struct sim_limit *sim_scenario_limit(const struct sim_scenario *scenario, const char *key);
/* The models to list; the default has two. */
const char *const *sim_scenario_models(const struct sim_scenario *scenario, size_t *ret_count);
/* The dialect mapped to a model, or SIM_DIALECT_COUNT. */
enum sim_dialect sim_scenario_dialect(const struct sim_scenario *scenario, const char *model);

#endif
