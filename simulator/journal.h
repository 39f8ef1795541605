/* What the simulator was asked and how each call ended: a bounded log, and counts. */
#ifndef SIMULATOR_JOURNAL_H
#define SIMULATOR_JOURNAL_H

#include <stdint.h>

#include "simulator/request.h"

#define SIM_JOURNAL_MAX 10000 /* requests kept */

/* X(constant, name) */
#define SIM_OUTCOMES(X)                                                                            \
    X(RUNNING, "running")                                                                          \
    X(COMPLETED, "completed") /* the whole, right answer was sent: paid for */                     \
    X(CUT, "cut by client")                                                                        \
    X(LIMITED, "limited") /* over a limit of the scenario: 429 */                                  \
    X(FAULT, "fault")     /* refused, or damaged on purpose */

enum sim_outcome {
#define X(constant, name) SIM_OUTCOME_##constant,
    SIM_OUTCOMES(X)
#undef X
        SIM_OUTCOME_COUNT
};

/* How a request ended. */
struct sim_ending {
    uint64_t seq;
    const struct sim_request *request; /* family, model and prompt_hash are used */
    int status;                        /* 0: the connection was closed before one was sent */
    enum sim_outcome outcome;
    int64_t output_tokens;
    /* What a provider would bill: also of answers that were cut or broke on the way. */
    int64_t billed_prompt_tokens, billed_output_tokens;
    double ms;
};

struct sim_journal;

struct sim_journal *sim_journal_new(void);
void sim_journal_free(struct sim_journal **journal); /* accepts NULL */
/* A request has been read: it gets the next number. task, sub: of the client's headers, may be
 * NULL; rule: index of the scenario's rule, -1: none. */
uint64_t sim_journal_begin(struct sim_journal *journal, const struct sim_request *request,
                           const char *task, const char *sub, int rule);
void sim_journal_end(struct sim_journal *journal, const struct sim_ending *ending);
/* A request that is no model call. */
void sim_journal_other(struct sim_journal *journal);
/* Forgets everything but what is in flight, whose ends are not counted any more. */
void sim_journal_reset(struct sim_journal *journal);

/* Appends a JSON array, oldest first: at most `limit`, of those numbered above `after`. */
void sim_journal_print(const struct sim_journal *journal, uint64_t after, int64_t limit,
                       struct buf *out);
/* Appends a JSON object. connections: open now. */
void sim_journal_print_stats(const struct sim_journal *journal, int64_t connections,
                             struct buf *out);

#endif
