/* What an idle stack costs: memory and CPU of broker, daemon and one worker over ten seconds. */
#include <poll.h>

#include "common/clock.h"
#include "tests/bench/bench.h"

static const char yaml[] = "providers:\n  noop: {api: noop}\n"
                           "models:\n  noop: {provider: noop, name: noop, local: true}\n"
                           "workers:\n  - {name: noop-0, provider: noop, concurrency: 8}\n"
                           "roles:\n  general: {models: [noop]}\n";

static double cpu(const struct testbed *stack)
{
    return bench_cpu_seconds(stack->broker) + bench_cpu_seconds(stack->daemon) +
           bench_cpu_seconds(stack->workers[0]);
}

static void run(void)
{
    struct testbed stack;
    testbed_init(&stack, yaml, NULL);
    testbed_start(&stack, (const char *[]){"noop-0", NULL});
    poll(NULL, 0, 2000); /* the start is over */
    double before = cpu(&stack), started = clock_ms_f();
    poll(NULL, 0, 10000);
    double percent = (cpu(&stack) - before) / ((clock_ms_f() - started) / 1000) * 100;
    double rss =
        bench_rss_mb(stack.broker) + bench_rss_mb(stack.daemon) + bench_rss_mb(stack.workers[0]);
    figure_print(&(struct figure){"idle: broker + daemon + worker", rss, "MB", NULL, 0, true,
                                  "<= 30 MB", rss <= 30});
    figure_print(&(struct figure){"idle: CPU of the three", percent, "% of a core", NULL, 0, true,
                                  "< 1 %", percent < 1});
    testbed_release(&stack);
}

const struct benchmark benchmark_idle = {"idle", "memory and CPU of an idle stack", run};
