/* A call while it runs; what the parts of call.h's implementation share. */
#ifndef SIMULATOR_CALL_STATE_H
#define SIMULATOR_CALL_STATE_H

#include "simulator/call.h"
#include "simulator/family.h"

enum sim_stage {
    SIM_STAGE_OPEN,
    SIM_STAGE_PIECES,
    SIM_STAGE_CLOSE,
};

struct sim_call {
    struct sim *sim;
    struct sim_scenario *scenario; /* keeps the rule alive */
    const struct sim_rule *rule;
    struct sim_request request;
    struct sim_answer answer;
    struct sim_permit permit;
    struct buf text;
    uint64_t random;
    enum sim_stage stage;
    size_t at;         /* in text */
    size_t next_len;   /* of the piece at `at`; 0: not looked at yet */
    double start_ms;   /* clock when the request had come */
    double open_ms;    /* after the start: when the first bytes of a stream leave */
    double ready_ms;   /* after the start: load and prompt are done */
    double next_ms;    /* after the start: the piece at `at` is due */
    double stalled_ms; /* by which a stall has shifted everything */
    double last_ms;    /* clock when bytes were produced last */
    bool stalled;
    bool fault;     /* what was sent is no right answer */
    bool limited;   /* 429 by the scenario's limits */
    bool generates; /* the model was asked: that costs */
    int status;
};

/* Makes the answer's text, cut to max_tokens. */
void sim_call_make_text(struct sim_call *call);
/* When the answer begins and its first token is due. */
void sim_call_schedule(struct sim_call *call);
/* Whether there is another piece; then its length is in next_len. */
bool sim_call_more(struct sim_call *call);
/* When the piece behind the last one may leave, in ms after the start. */
double sim_call_due_ms(const struct sim_call *call);
/* Enters that piece in the answer's counts and schedules the one behind it. */
void sim_call_advance(struct sim_call *call);
/* What the fault says; overloaded where it names no kind. */
struct sim_error sim_call_error(const struct sim_fault *fault);

/* Appends the headers of the limits that count for the call. */
void sim_call_limit_headers(const struct sim_call *call, struct buf *out);
/* The two ways of answering (sim_exchange_fn). */
void sim_call_send_stream(void *ctx, struct sim_exchange *exchange);
void sim_call_send_whole(void *ctx, struct sim_exchange *exchange);

#endif
