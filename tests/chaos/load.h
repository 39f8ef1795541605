/* The work that is under way while processes die: single subtasks, chains, graphs, plans that
 * expand, tasks that are cancelled, calls that the provider fails. What each may end as is told to
 * the oracle. */
#ifndef TESTS_CHAOS_LOAD_H
#define TESTS_CHAOS_LOAD_H

#include "tests/chaos/rig.h"

/* The simulator's scenario: answers take about 80 ms, some of them a second and a half, and some
 * calls fail. text: instead of it; NULL: this one. */
void load_scenario(struct buf *out, uint64_t seed, const char *text);

/* A sequence of numbers from a seed (splitmix64). */
uint64_t load_random(uint64_t *state);
/* 0..n-1 */
int load_pick(uint64_t *state, int n);

struct load {
    struct rig *rig;
    uint64_t random;
    char (*tasks)[24];
    bool *over; /* of each: it has ended, and nothing of it runs */
    size_t n_tasks, n_over;
    size_t asked;               /* questions without an answer */
    size_t next;                /* to be asked about */
    size_t *cancels, n_cancels; /* tasks that are to be cancelled, in order */
    size_t unsubmitted;         /* sent, not answered */
    int refused;
};

void load_open(struct load *load, struct rig *rig, uint64_t seed);
void load_close(struct load *load);
/* Sends so many further tasks. */
void load_add(struct load *load, int n_tasks);
/* The same of single subtasks only. */
void load_add_single(struct load *load, int n_tasks);
/* Asks about some tasks, and cancels one that is to be cancelled now and then. */
void load_turn(struct load *load);
size_t load_unfinished(const struct load *load);

#endif
