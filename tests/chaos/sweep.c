/* For one program: SIGKILL (or SIGSTOP for longer than a lease) at the k-th passage of each
 * failpoint that it reaches. Which these are is not listed anywhere: the program says it, in each
 * of its lives. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/failpoint.h"
#include "schemas/mem.h"
#include "tests/chaos/chaos.h"

#define LEARN_TASKS 60
#define UNFINISHED_MIN 40 /* tasks that are kept under way */
#define MORE_TASKS 20
#define POINT_MS 4000 /* a point that is not reached in this time is left */
#define STOP_LEASE_MS 3000
#define AFTER_MS 300
#define LOG "failpoints"

static const unsigned long passages[] = {1, 2, 5, 20};
#define PASSAGES (sizeof passages / sizeof *passages)

struct point {
    char name[FAILPOINT_LINE];
    unsigned long most; /* passages that one life has had */
};

struct sweep {
    struct rig *rig;
    struct load *load;
    struct rig_process *target;
    bool stops; /* SIGSTOP */
    struct point *points;
    size_t n_points;
};

static void note_point(struct sweep *sweep, const char *name, unsigned long count)
{
    for (size_t i = 0; i < sweep->n_points; i++)
        if (strcmp(sweep->points[i].name, name) == 0) {
            if (sweep->points[i].most < count)
                sweep->points[i].most = count;
            return;
        }
    sweep->points = mem_must_realloc(sweep->points, (sweep->n_points + 1) * sizeof *sweep->points);
    struct point *point = &sweep->points[sweep->n_points++];
    *point = (struct point){.most = count};
    snprintf(point->name, sizeof point->name, "%s", name);
}

/* What the target has reached in its present, or last, life. */
static void read_points(struct sweep *sweep)
{
    char path[192];
    struct buf text = {0};
    snprintf(path, sizeof path, "%s/" LOG, sweep->rig->testbed.fixture.dir);
    if (!fixture_read(path, &text))
        return;
    for (size_t at = 0; at + FAILPOINT_LINE <= text.len; at += FAILPOINT_LINE) {
        char name[FAILPOINT_LINE];
        unsigned long count;
        if (sscanf(text.data + at, "%63s %lu", name, &count) == 2)
            note_point(sweep, name, count);
    }
    buf_release(&text);
}

static void fill_up(struct sweep *sweep)
{
    if (load_unfinished(sweep->load) < UNFINISHED_MIN)
        load_add(sweep->load, MORE_TASKS);
}

static bool learned(void *ctx)
{
    struct load *load = ctx;
    load_turn(load);
    return load_unfinished(load) < LEARN_TASKS / 4;
}

/* One life in which nothing is injected, begun with a restart so that the replay is in it, too. */
static void learn(struct sweep *sweep)
{
    snprintf(sweep->target->failpoint_log, sizeof sweep->target->failpoint_log, LOG);
    load_add(sweep->load, LEARN_TASKS);
    for (int i = 0; i < 30; i++)
        chaos_turn(sweep->rig, sweep->load);
    rig_kill(sweep->rig, sweep->target);
    rig_wait(sweep->rig, learned, sweep->load, 60000);
    read_points(sweep);
}

static int strikes(const struct sweep *sweep)
{
    const struct rig *rig = sweep->rig;
    enum rig_program program = sweep->target->program;
    return sweep->stops ? rig->stops[program] : rig->kills[program];
}

/* What was stopped goes on, and has some time to do what is too late now. */
static void let_go_on(struct sweep *sweep)
{
    while (sweep->target->state == RIG_STOPPED && !rig_interrupted())
        chaos_turn(sweep->rig, sweep->load);
    for (int64_t until = clock_ms() + AFTER_MS; clock_ms() < until && !rig_interrupted();)
        chaos_turn(sweep->rig, sweep->load);
}

/* The next life of the target ends, or stands still, at that passage. False: it did not come to
 * it. */
static bool strike_at(struct sweep *sweep, const char *name, unsigned long passage)
{
    struct rig_process *target = sweep->target;
    struct rig *rig = sweep->rig;
    snprintf(target->failpoint, sizeof target->failpoint, "%s:%lu%s", name, passage,
             sweep->stops ? ":stop" : "");
    int kills = rig->kills[target->program], before = strikes(sweep);
    rig_kill(rig, target); /* one that lives: it counts for nothing */
    rig->kills[target->program] = kills;
    target->rests = false;
    int64_t until = clock_ms() + POINT_MS;
    while (strikes(sweep) == before && clock_ms() < until && !rig_interrupted()) {
        fill_up(sweep);
        chaos_turn(rig, sweep->load);
        target->rests = !sweep->stops; /* this life is the one */
    }
    bool struck = strikes(sweep) > before;
    if (sweep->stops)
        let_go_on(sweep);
    read_points(sweep);
    target->failpoint[0] = '\0';
    return struck;
}

static void shuffle(size_t *order, size_t n, uint64_t *random)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)load_pick(random, (int)i), at = order[i - 1];
        order[i - 1] = order[j];
        order[j] = at;
    }
}

/* All points with the k-th passage, in an order drawn from the seed: when the time is over, those
 * that were tried are a fair choice. */
static void sweep_passage(struct sweep *sweep, unsigned long passage, int64_t until_ms,
                          uint64_t *random, struct chaos_row *row)
{
    size_t n = sweep->n_points;
    size_t *order = mem_must_zalloc((n + 1) * sizeof *order);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    shuffle(order, n, random);
    for (size_t i = 0; i < n && clock_ms() < until_ms && !rig_interrupted(); i++) {
        struct point point = sweep->points[order[i]];
        if (point.most < passage)
            continue;
        row->points++;
        if (strike_at(sweep, point.name, passage))
            row->reached++;
        else
            fprintf(stderr, "chaos:   %s: %s was not reached for the %luth time\n",
                    sweep->target->name, point.name, passage);
    }
    free(order);
}

static void sweep_all(struct sweep *sweep, const struct chaos_options *options,
                      struct chaos_row *row)
{
    uint64_t random = options->seed;
    int64_t until_ms =
        clock_ms() + (int64_t)(sweep->stops ? options->stop_s : options->sweep_s) * 1000;
    learn(sweep);
    size_t known = sweep->n_points;
    for (int k = 0; k < (sweep->stops ? 1 : options->passages) && k < (int)PASSAGES; k++)
        sweep_passage(sweep, passages[k], until_ms, &random, row);
    sweep->target->rests = false;
    fprintf(
        stderr, "chaos:   %s: %zu failpoints (%zu found while it was killed), %d of %d struck\n",
        sweep->target->name, sweep->n_points, sweep->n_points - known, row->reached, row->points);
}

int sweep_run(const struct chaos_options *options, enum rig_program program, bool stops,
              struct chaos_row *ret)
{
    static const char *const phases[][2] = {{"kill worker", "stop worker"},
                                            {"kill broker", "stop broker"},
                                            {"kill daemon", "stop daemon"}};
    struct rig rig;
    struct load load;
    int64_t begun_ms = clock_ms();
    *ret = (struct chaos_row){.phase = phases[program][stops], .seed = options->seed};
    int rc = rig_open(&rig, &(struct rig_options){.workers = 2,
                                                  .brokers = options->brokers,
                                                  .daemons = options->daemons,
                                                  .concurrency = 8,
                                                  .lease_ms = stops ? STOP_LEASE_MS : 0,
                                                  .seed = options->seed});
    load_open(&load, &rig, options->seed);
    struct sweep sweep = {
        .rig = &rig, .load = &load, .target = rig_process(&rig, program, 0), .stops = stops};
    if (rc == 0) {
        sweep_all(&sweep, options, ret);
        rc = chaos_finish(&rig, &load, ret);
    }
    ret->wall_s = (double)(clock_ms() - begun_ms) / 1000;
    free(sweep.points);
    load_close(&load);
    rig_close(&rig);
    return rc;
}
