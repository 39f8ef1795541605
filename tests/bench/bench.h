/* One benchmark a file; each prints its figures beside a peer or a floor measured in the same run.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/queue.h"
#include "tests/lib/fixture.h"

/* One row of the table. `better` tells which way is good; ratio is how many times better value is
 * than peer_value. */
struct figure {
    const char *name;
    double value;
    const char *unit;
    const char *peer; /* what it stands against; NULL: none was measured */
    double peer_value;
    bool lower_is_better;
    const char *goal; /* in words; NULL: none, a floor */
    bool reached;
};
void figure_print(const struct figure *figure);

struct benchmark {
    const char *name;
    const char *text;
    void (*run)(void);
};
extern const struct benchmark benchmark_floors, benchmark_throughput, benchmark_latency,
    benchmark_streams, benchmark_idle, benchmark_backlog;

/* A stack of real processes in a private directory, made by stack_begin(), ended by stack_end(). */
struct bench_stack {
    struct fixture fixture;
    char config[256];
    int sim_port;
    pid_t broker, daemon, sim, workers[4];
};
/* provider_yaml: the text of providers:, models:, workers: sections; %d in it is replaced by the
 * simulator's port. scenario: of the simulator, NULL: none runs. worker: names of workers to start,
 * ended by NULL. */
void bench_stack_begin(struct bench_stack *stack, const char *yaml, const char *scenario,
                       const char *const *workers);
void bench_stack_begin_simulator(struct bench_stack *stack, const char *scenario); /* only that */
void bench_stack_end(struct bench_stack *stack);

/* Runs BullMQ's script on a fresh redis-server of the same settings. False, with a note on stderr,
 * when node or the packages are missing. */
bool bench_bullmq(const char *mode, int jobs, const char *member, double *ret, const char *member2,
                  double *ret2);

/* A subtask of role general with a prompt of 100 bytes. Its records are never freed. */
struct queue_node bench_node(const char *id);

double bench_rss_mb(pid_t pid);                             /* resident memory */
double bench_cpu_seconds(pid_t pid);                        /* user + system time so far */
double bench_quantile(double *samples, size_t n, double q); /* sorts them */

#endif
