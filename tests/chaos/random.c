/* Kills at random. Everything is drawn from the seed: how many requests the simulator sees between
 * one fault and the next, whom it hits, and what it is. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "tests/chaos/chaos.h"

#define QUIET_MS 3000 /* no request for so long: the next fault comes at once */
#define MORE_TASKS 100

/* Whom a fault hits: shares of 100. */
static const struct {
    enum rig_program program;
    bool stop;
    int share;
} kinds[] = {
    {RIG_WORKER, false, 58}, {RIG_BROKER, false, 14}, {RIG_DAEMON, false, 12},
    {RIG_REDIS, false, 12},  {RIG_WORKER, true, 2},   {RIG_DAEMON, true, 1},
    {RIG_BROKER, true, 1},
};

struct plan {
    uint64_t random;
    int mean; /* requests between two faults */
};

static void strike(struct rig *rig, struct plan *plan, bool with_stops)
{
    const int counts[] = {[RIG_WORKER] = rig->options.workers,
                          [RIG_BROKER] = rig->options.brokers,
                          [RIG_DAEMON] = rig->options.daemons,
                          [RIG_REDIS] = 1};
    size_t kind = 0;
    for (int at = load_pick(&plan->random, 100); at >= kinds[kind].share; kind++)
        at -= kinds[kind].share;
    enum rig_program program = kinds[kind].program;
    struct rig_process *victim =
        rig_process(rig, program, load_pick(&plan->random, counts[program]));
    int64_t pause_ms = rig->options.lease_ms + 500 + load_pick(&plan->random, 1500);
    if (kinds[kind].stop && with_stops)
        rig_stop(rig, victim, pause_ms);
    else if (!kinds[kind].stop || victim->state != RIG_STOPPED)
        rig_kill(rig, victim);
}

static int total_kills(const struct rig *rig)
{
    int total = 0;
    for (int i = 0; i < RIG_PROGRAM_COUNT; i++)
        total += rig->kills[i];
    return total;
}

/* Runs until so many further requests have come. */
static void let_run(struct rig *rig, struct load *load, size_t requests)
{
    size_t until = rig->n_calls + requests, seen = rig->n_calls;
    int64_t seen_ms = clock_ms();
    while (rig->n_calls < until && !rig_interrupted()) {
        chaos_turn(rig, load);
        int64_t now = clock_ms();
        if (rig->n_calls != seen)
            seen_ms = now;
        seen = rig->n_calls;
        if (now - seen_ms > QUIET_MS)
            return;
    }
}

/* So many are under way until the last kill: at least half of what began. */
static void fill_up(struct load *load, int tasks)
{
    if ((int)load_unfinished(load) < tasks / 2)
        load_add(load, MORE_TASKS);
}

static void kill_them(struct rig *rig, struct load *load, const struct chaos_options *options)
{
    struct plan plan = {.random = options->seed * 3 + 1};
    int64_t begun_ms = clock_ms(), told_ms = begun_ms;
    /* A subtask is called about 1.3 times under this rain, and a task has about 2.9 of them. */
    plan.mean = options->tasks * 7 / 2 / options->kills;
    plan.mean = plan.mean < 2 ? 2 : plan.mean;
    while (total_kills(rig) < options->kills && !rig_interrupted()) {
        size_t requests = (size_t)load_pick(&plan.random, 2 * plan.mean) + 1;
        let_run(rig, load, requests);
        strike(rig, &plan, options->with_stops);
        fill_up(load, options->tasks);
        int64_t now = clock_ms();
        if (now - told_ms > 10000) {
            told_ms = now;
            fprintf(stderr, "chaos:   %d kills, %zu calls, %zu of %zu tasks to go\n",
                    total_kills(rig), rig->n_calls, load_unfinished(load), load->n_tasks);
        }
        if (now - begun_ms > (int64_t)options->max_s * 1000) {
            fprintf(stderr, "chaos:   %d s are over after %d kills\n", options->max_s,
                    total_kills(rig));
            return;
        }
    }
}

int random_run(const struct chaos_options *options, struct chaos_row *ret)
{
    struct rig rig;
    struct load load;
    int64_t begun_ms = clock_ms();
    *ret = (struct chaos_row){.phase = "random", .seed = options->seed};
    int rc = rig_open(&rig, &(struct rig_options){.workers = options->workers,
                                                  .brokers = options->brokers,
                                                  .daemons = options->daemons,
                                                  .concurrency = 8,
                                                  .seed = options->seed});
    load_open(&load, &rig, options->seed);
    if (rc == 0) {
        load_add(&load, options->tasks);
        kill_them(&rig, &load, options);
        rc = chaos_finish(&rig, &load, ret);
    }
    ret->wall_s = (double)(clock_ms() - begun_ms) / 1000;
    load_close(&load);
    rig_close(&rig);
    return rc;
}
