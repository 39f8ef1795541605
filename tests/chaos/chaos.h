/* What the phases of a run share: options, the row of the table, the end of a phase. */
#ifndef TESTS_CHAOS_CHAOS_H
#define TESTS_CHAOS_CHAOS_H

#include "tests/chaos/load.h"

struct chaos_options {
    uint64_t seed;
    int kills, tasks; /* of the random sweep */
    int workers, brokers, daemons;
    int passages; /* of the kill sweep: kills at the 1st, 2nd, 5th ... passage */
    int sweep_s;  /* longest time of the sweep of one program; points are then drawn */
    int stop_s;   /* the same of the sweep with SIGSTOP */
    int max_s;    /* longest time of the random sweep */
    bool with_stops;
};

/* A row of the table. */
struct chaos_row {
    const char *phase;
    uint64_t seed;
    int kills[RIG_PROGRAM_COUNT], stops;
    int points, reached; /* of a kill sweep: failpoints and passages tried, and those that killed */
    int surprises;
    struct oracle_verdict verdict;
    double wall_s;
};

/* Each opens a system of its own, and returns 0, or -1 when the phase could not be carried out. */
/* stops: SIGSTOP for longer than a lease instead of SIGKILL. */
int sweep_run(const struct chaos_options *options, enum rig_program program, bool stops,
              struct chaos_row *ret);
int random_run(const struct chaos_options *options, struct chaos_row *ret);
/* Prints the figures to stdout. */
int figures_run(const struct chaos_options *options);

/* A turn of the rig and the load. */
void chaos_turn(struct rig *rig, struct load *load);
/* Waits until all tasks have ended, ends the daemons, feeds the oracle and fills in the row. */
int chaos_finish(struct rig *rig, struct load *load, struct chaos_row *row);

#endif
