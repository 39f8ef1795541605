/* orch-bench [--json] [NAME...] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/bench.h"

static const struct benchmark *const benchmarks[] = {&benchmark_floors,  &benchmark_throughput,
                                                     &benchmark_latency, &benchmark_streams,
                                                     &benchmark_idle,    &benchmark_backlog,
                                                     &benchmark_path,    &benchmark_parse,
                                                     &benchmark_scale,   NULL};
static bool as_json;

void figure_print(const struct figure *figure)
{
    double ratio = 0;
    if (figure->peer != NULL && figure->value > 0 && figure->peer_value > 0)
        ratio = figure->lower_is_better ? figure->peer_value / figure->value
                                        : figure->value / figure->peer_value;
    if (as_json)
        printf(
            "{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"peer\":\"%s\",\"peer_value\":%.6g,"
            "\"ratio\":%.4g,\"goal\":\"%s\",\"reached\":%s}\n",
            figure->name, figure->value, figure->unit, figure->peer != NULL ? figure->peer : "",
            figure->peer_value, ratio, figure->goal != NULL ? figure->goal : "",
            figure->goal == NULL ? "null"
            : figure->reached    ? "true"
                                 : "false");
    else
        printf("%-34s %12.5g %-12s %-22s %12.5g %7.2f  %-16s %s\n", figure->name, figure->value,
               figure->unit, figure->peer != NULL ? figure->peer : "-", figure->peer_value, ratio,
               figure->goal != NULL ? figure->goal : "-",
               figure->goal == NULL ? ""
               : figure->reached    ? "reached"
                                    : "NOT REACHED");
    fflush(stdout);
}

static int usage(int code)
{
    fprintf(code == 0 ? stdout : stderr, "usage: orch-bench [--json] [NAME...]\n\n");
    for (size_t i = 0; benchmarks[i] != NULL; i++)
        fprintf(code == 0 ? stdout : stderr, "  %-12s %s\n", benchmarks[i]->name,
                benchmarks[i]->text);
    return code;
}

static bool wanted(const struct benchmark *benchmark, int argc, char **argv)
{
    bool any = false;
    for (int i = 1; i < argc; i++) {
        any = any || argv[i][0] != '-';
        if (strcmp(argv[i], benchmark->name) == 0)
            return true;
    }
    return !any;
}

static bool known(const char *name)
{
    for (size_t i = 0; benchmarks[i] != NULL; i++)
        if (strcmp(benchmarks[i]->name, name) == 0)
            return true;
    return strcmp(name, "--json") == 0;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            return usage(0);
        if (!known(argv[i]))
            return usage(2);
        as_json = as_json || strcmp(argv[i], "--json") == 0;
    }
    if (!as_json)
        printf("%-34s %12s %-12s %-22s %12s %7s  %-16s\n", "name", "value", "unit", "peer",
               "peer_value", "ratio", "goal");
    for (size_t i = 0; benchmarks[i] != NULL; i++)
        if (wanted(benchmarks[i], argc, argv))
            benchmarks[i]->run();
    return 0;
}
