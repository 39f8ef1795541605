/* chaos: kills the real programs and judges what is left. run.sh builds and starts it. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/chaos/chaos.h"

#define ROWS_MAX 8

static const char usage[] =
    "usage: chaos [--short] [--sweep] [--random] [--figures] [OPTION...]\n"
    "  --short        a choice of all that takes under three minutes\n"
    "  --sweep        each failpoint of worker, broker and daemon: SIGKILL at the k-th passage,\n"
    "                 and SIGSTOP for longer than a lease at the first\n"
    "  --random       kills at random over all of them and Redis\n"
    "  --figures      how long the work of what was killed stands still\n"
    "                 (without any of these: all three)\n"
    "  --seed N       everything is drawn from it; default: 1\n"
    "  --kills N      of the random sweep; default: 1000\n"
    "  --tasks N      of the random sweep; default: 2000\n"
    "  --workers N    default: 4\n"
    "  --brokers N    default: 2\n"
    "  --daemons N    default: 2\n"
    "  --only P       of the sweep: worker, broker or daemon alone\n"
    "  --passages N   of the sweep: the 1st, 2nd, 5th and 20th; default: 3\n"
    "  --sweep-s N    longest time of the sweep of one program, s; default: 1200\n"
    "  --stop-s N     the same with SIGSTOP; default: 400\n"
    "  --max-s N      longest time of the random sweep, s; default: 3600\n";

struct plan {
    bool brief, sweep, random, figures;
    int only; /* program of the sweep; -1: all */
    struct chaos_options options;
};

/* X(name, letter, member) */
#define NUMBERS(X)                                                                                 \
    X("kills", 'k', options.kills)                                                                 \
    X("tasks", 't', options.tasks)                                                                 \
    X("workers", 'w', options.workers)                                                             \
    X("brokers", 'b', options.brokers)                                                             \
    X("daemons", 'd', options.daemons)                                                             \
    X("passages", 'p', options.passages)                                                           \
    X("sweep-s", 's', options.sweep_s)                                                             \
    X("stop-s", 'z', options.stop_s)                                                               \
    X("max-s", 'm', options.max_s)

static int *number_of(struct plan *plan, int letter)
{
    switch (letter) {
#define X(name, key, member)                                                                       \
    case key:                                                                                      \
        return &plan->member;
        NUMBERS(X)
#undef X
    default:
        return NULL;
    }
}

static bool parse(struct plan *plan, int argc, char **argv)
{
    static const struct option longs[] = {
        {"short", no_argument, NULL, 'q'},
        {"sweep", no_argument, NULL, 'S'},
        {"random", no_argument, NULL, 'R'},
        {"figures", no_argument, NULL, 'F'},
        {"seed", required_argument, NULL, 'x'},
        {"only", required_argument, NULL, 'o'},
#define X(name, letter, member) {name, required_argument, NULL, letter},
        NUMBERS(X)
#undef X
            {0},
    };
    int key;
    while ((key = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
        int *number = number_of(plan, key);
        plan->brief |= key == 'q';
        plan->sweep |= key == 'S';
        plan->random |= key == 'R';
        plan->figures |= key == 'F';
        for (int i = 0; key == 'o' && i <= RIG_DAEMON; i++)
            if (strcmp(optarg, rig_program_name((enum rig_program)i)) == 0)
                plan->only = i;
        if (key == 'x')
            plan->options.seed = strtoull(optarg, NULL, 10);
        if (number != NULL)
            *number = atoi(optarg);
        if (key == '?' || (number != NULL && *number < 1))
            return false;
    }
    if (!plan->sweep && !plan->random && !plan->figures)
        plan->sweep = plan->random = plan->figures = true;
    return optind == argc;
}

static void shorten(struct plan *plan)
{
    plan->options.kills = 40;
    plan->options.tasks = 120;
    plan->options.passages = 1;
    plan->options.sweep_s = 12;
    plan->options.stop_s = 6;
    plan->options.max_s = 40;
}

static int64_t wrong(const struct chaos_row *row)
{
    return row->verdict.wrong + row->surprises;
}

static void print_row(const struct chaos_row *row)
{
    const struct oracle_verdict *verdict = &row->verdict;
    const int64_t *bad = verdict->violations;
    int64_t unexpected = bad[ORACLE_UNEXPECTED] + bad[ORACLE_FSCK] + row->surprises;
    int64_t paid = bad[ORACLE_PAID] + bad[ORACLE_PAID_TWICE];
    char phase[64];
    snprintf(phase, sizeof phase, "%s", row->phase);
    if (row->points > 0)
        snprintf(phase, sizeof phase, "%s (%d/%d)", row->phase, row->reached, row->points);
    printf(
        "| %s | %llu | %d | %d | %d | %d | %d | %lld | %lld | %lld | %lld | %lld | %lld | %lld | "
        "%lld | %lld | %lld | %.0f |\n",
        phase, (unsigned long long)row->seed, row->kills[RIG_WORKER], row->kills[RIG_BROKER],
        row->kills[RIG_DAEMON], row->kills[RIG_REDIS], row->stops, (long long)verdict->tasks,
        (long long)verdict->subtasks, (long long)verdict->commits, (long long)verdict->calls,
        (long long)verdict->provider_faults, (long long)verdict->lost_attempts,
        (long long)bad[ORACLE_LOST], (long long)bad[ORACLE_DUPLICATED], (long long)unexpected,
        (long long)paid, row->wall_s);
    fflush(stdout);
}

static void print_head(void)
{
    printf("| phase | seed | killed: worker | broker | daemon | redis | stopped | tasks | subtasks "
           "| commits | calls | provider faults | lost attempts | lost | duplicated | unexpected | "
           "paid twice | s |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
           "---|\n");
    fflush(stdout);
}

static int run(const struct plan *plan)
{
    int64_t bad = 0;
    struct chaos_row row;
    if (plan->sweep || plan->random)
        print_head();
    for (int i = 0; plan->sweep && i <= 2 * RIG_DAEMON + 1; i++) {
        enum rig_program program = (enum rig_program)(i / 2);
        bool stops = i % 2 == 1;
        if (plan->only >= 0 && plan->only != (int)program)
            continue;
        fprintf(stderr, "chaos: %s at failpoints of the %s, seed %llu\n",
                stops ? "SIGSTOP" : "SIGKILL", rig_program_name(program),
                (unsigned long long)plan->options.seed);
        if (sweep_run(&plan->options, program, stops, &row) != 0)
            return 1;
        print_row(&row);
        bad += wrong(&row);
    }
    if (plan->random) {
        fprintf(stderr, "chaos: %d random kills, %d tasks, seed %llu\n", plan->options.kills,
                plan->options.tasks, (unsigned long long)plan->options.seed);
        if (random_run(&plan->options, &row) != 0)
            return 1;
        print_row(&row);
        bad += wrong(&row);
    }
    if (plan->figures && figures_run(&plan->options) != 0)
        return 1;
    if (bad > 0)
        fprintf(stderr, "chaos: %lld violations with seed %llu: see above\n", (long long)bad,
                (unsigned long long)plan->options.seed);
    return bad > 0;
}

int main(int argc, char **argv)
{
    struct plan plan = {.only = -1,
                        .options = {.seed = 1,
                                    .kills = 1000,
                                    .tasks = 2000,
                                    .workers = 4,
                                    .brokers = 2,
                                    .daemons = 2,
                                    .passages = 3,
                                    .sweep_s = 1200,
                                    .stop_s = 400,
                                    .max_s = 3600,
                                    .with_stops = true}};
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--short") == 0)
            shorten(&plan); /* what else is said wins */
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse(&plan, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    rig_catch_signals();
    int rc = run(&plan);
    if (rig_interrupted())
        fprintf(stderr, "chaos: interrupted\n");
    return rig_interrupted() ? 130 : rc;
}
