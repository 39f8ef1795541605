/* One benchmark a file; each prints its figures beside a peer or a floor measured in the same run.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/lib/testbed.h"

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
    benchmark_streams, benchmark_idle, benchmark_backlog, benchmark_path, benchmark_parse,
    benchmark_scale;

/* Runs BullMQ's script on a fresh redis-server of the same settings. False, with a note on stderr,
 * when node or the packages are missing. */
bool bench_bullmq(const char *mode, int jobs, const char *member, double *ret, const char *member2,
                  double *ret2);

/* 100 bytes of prompt. */
#define BENCH_PROMPT                                                                               \
    "Write one line about each of the parts of a queue: "                                          \
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx."

double bench_rss_mb(pid_t pid);                             /* resident memory */
double bench_cpu_seconds(pid_t pid);                        /* user + system time so far */
double bench_quantile(double *samples, size_t n, double q); /* sorts them */

#endif
