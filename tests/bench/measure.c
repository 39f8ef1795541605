#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "tests/bench/bench.h"

static void die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(2);
}

double bench_rss_mb(pid_t pid)
{
    char path[64];
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL || fscanf(file, "%*s %ld", &pages) != 1)
        die(path);
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

double bench_cpu_seconds(pid_t pid)
{
    char path[64];
    unsigned long user = 0, system_ticks = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL || fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                               &user, &system_ticks) != 2)
        die(path);
    fclose(file);
    return (double)(user + system_ticks) / (double)sysconf(_SC_CLK_TCK);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_quantile(double *samples, size_t n, double q)
{
    qsort(samples, n, sizeof *samples, compare);
    size_t at = (size_t)(q * (double)n);
    return n == 0 ? NAN : samples[at < n ? at : n - 1];
}

bool bench_bullmq(const char *mode, int jobs, const char *member, double *ret, const char *member2,
                  double *ret2)
{
    const char *dir = getenv("ORCH_BULLMQ"); /* where run.sh installed the packages */
    if (dir == NULL || dir[0] == '\0') {
        fprintf(stderr, "bench: no node or no BullMQ: its column stays empty\n");
        return false;
    }
    struct fixture fixture;
    fixture_init(&fixture);
    fixture_redis_start(&fixture);
    char script[256], count[16];
    snprintf(script, sizeof script, "%s/peer.mjs", dir);
    snprintf(count, sizeof count, "%d", jobs);
    const char *argv[] = {"/usr/bin/env", "node", script, mode, fixture.redis_socket, count, NULL};
    struct buf out = {0};
    int code = fixture_run(&fixture, argv, &out, NULL);
    json_t *result = code == 0 ? json_parse(out.data, out.len, NULL) : NULL;
    *ret = json_num(result, member, 0);
    if (ret2 != NULL)
        *ret2 = json_num(result, member2, 0);
    bool measured = result != NULL;
    json_decref(result);
    buf_release(&out);
    fixture_release(&fixture);
    return measured;
}
