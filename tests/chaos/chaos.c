#include "tests/chaos/chaos.h"

#include <stdio.h>

#include "common/clock.h"

#define STALL_MS 90000 /* nothing has moved for so long: it never will */
#define END_MS 30000
#define SHOWN 40 /* violations that are printed */
#define SETTLE_MS 500

void chaos_turn(struct rig *rig, struct load *load)
{
    rig_turn(rig);
    load_turn(load);
}

static bool drain(struct rig *rig, struct load *load)
{
    size_t calls = 0, over = 0;
    int64_t moved_ms = clock_ms(), told_ms = moved_ms;
    while (load_unfinished(load) > 0 || load->unsubmitted > 0 || load->asked > 0 ||
           !rig_all_up(rig)) {
        chaos_turn(rig, load);
        int64_t now = clock_ms();
        if (rig->n_calls != calls || load->n_over != over)
            moved_ms = now;
        calls = rig->n_calls;
        over = load->n_over;
        if (now - told_ms > 10000) {
            told_ms = now;
            fprintf(stderr, "chaos:   draining: %zu of %zu tasks to go, %zu calls\n",
                    load_unfinished(load), load->n_tasks, calls);
        }
        if (rig_interrupted() || now - moved_ms > STALL_MS)
            return false;
    }
    return true;
}

/* The last outbox entries and rows are on their way; then the daemons end well. */
static void settle(struct rig *rig, struct load *load)
{
    for (int64_t until = clock_ms() + SETTLE_MS; clock_ms() < until;)
        chaos_turn(rig, load);
    for (size_t i = 0; i < rig->n_processes; i++) {
        struct rig_process *process = &rig->processes[i];
        if (process->program != RIG_DAEMON || process->pid == 0)
            continue;
        int status = rig_end(rig, process, END_MS);
        if (status == 0)
            continue;
        fprintf(stderr, "chaos: %s ended with status %d after SIGTERM\n", process->name, status);
        rig->surprises++;
    }
    while (load->asked > 0 && !rig_interrupted())
        rig_turn(rig);
}

static void show(void *ctx, enum oracle_rule rule, const char *task, const char *sub,
                 const char *text)
{
    int *shown = ctx;
    if ((*shown)++ < SHOWN)
        fprintf(stderr, "chaos: %s: %s/%s: %s\n", oracle_rule_name(rule), task, sub, text);
}

int chaos_finish(struct rig *rig, struct load *load, struct chaos_row *row)
{
    int shown = 0;
    bool drained = drain(rig, load);
    if (rig_interrupted())
        return -1;
    if (!drained)
        rig_status(rig);
    if (!drained)
        fprintf(stderr, "chaos: nothing has moved for %d s; %zu of %zu tasks have not ended\n",
                STALL_MS / 1000, load_unfinished(load), load->n_tasks);
    settle(rig, load);
    if (rig_collect(rig, load->tasks, load->n_tasks) != 0)
        return -1;
    row->verdict = oracle_judge(rig->oracle, true, show, &shown);
    if (shown > SHOWN)
        fprintf(stderr, "chaos: and %d violations more\n", shown - SHOWN);
    if (load->refused > 0)
        fprintf(stderr, "chaos: %d submits were refused\n", load->refused);
    for (int i = 0; i < RIG_PROGRAM_COUNT; i++) {
        row->kills[i] = rig->kills[i];
        row->stops += rig->stops[i];
    }
    row->surprises = rig->surprises + load->refused;
    return 0;
}
