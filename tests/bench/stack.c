#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/paths.h"
#include "tests/bench/bench.h"

static void die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(2);
}

static void start_simulator(struct bench_stack *stack, const char *scenario)
{
    char port_file[128], text[16];
    snprintf(port_file, sizeof port_file, "%s/sim.port", stack->fixture.dir);
    char scenario_file[256];
    snprintf(scenario_file, sizeof scenario_file, "%s",
             fixture_write(&stack->fixture, "scenario.yaml", scenario));
    const char *argv[] = {"orchestrator-sim", "--port",     "0",           "--port-file",
                          port_file,          "--scenario", scenario_file, NULL};
    stack->sim = fixture_spawn(&stack->fixture, "sim.log", argv);
    if (!fixture_wait_text(&stack->fixture, port_file, "\n", 10000))
        die("the simulator did not start");
    FILE *file = fopen(port_file, "re");
    if (file == NULL || fgets(text, sizeof text, file) == NULL)
        die("no port file");
    fclose(file);
    stack->sim_port = atoi(text);
}

static void start_program(struct bench_stack *stack, pid_t *pid, const char *log,
                          const char *const *argv)
{
    /* ready-fd of each is its log: stdout, which fixture_spawn() appends to the log */
    *pid = fixture_spawn(&stack->fixture, log, argv);
    if (!fixture_wait_text(&stack->fixture, log, "ready", 20000)) {
        fprintf(stderr, "bench: %s did not get ready, see %s/%s\n", argv[0], stack->fixture.dir,
                log);
        exit(2);
    }
}

/* The first %d of the text becomes the number, and so does every later one. */
static void replace_port(const char *yaml, int port, struct buf *out)
{
    for (const char *at; (at = strstr(yaml, "%d")) != NULL; yaml = at + 2) {
        buf_add(out, yaml, (size_t)(at - yaml));
        buf_printf(out, "%d", port);
    }
    buf_add_str(out, yaml);
}

void bench_stack_begin_simulator(struct bench_stack *stack, const char *scenario)
{
    *stack = (struct bench_stack){0};
    fixture_init(&stack->fixture);
    start_simulator(stack, scenario);
}

void bench_stack_begin(struct bench_stack *stack, const char *yaml, const char *scenario,
                       const char *const *workers)
{
    *stack = (struct bench_stack){0};
    fixture_init(&stack->fixture);
    fixture_redis_start(&stack->fixture);
    if (scenario != NULL)
        start_simulator(stack, scenario);
    struct buf text = {0};
    buf_printf(&text, "redis: unix://%s\nbus: {brokers: [local]}\n", stack->fixture.redis_socket);
    replace_port(yaml, stack->sim_port, &text);
    snprintf(stack->config, sizeof stack->config, "%s",
             fixture_write(&stack->fixture, "config.yaml", text.data));
    buf_release(&text);
    char run[128];
    snprintf(run, sizeof run, "%s/run", stack->fixture.dir);
    path_make(run, NULL);
    start_program(stack, &stack->broker, "broker.log",
                  (const char *[]){"orchestrator-broker", "--config", stack->config, "--ready-fd",
                                   "1", NULL});
    start_program(stack, &stack->daemon, "daemon.log",
                  (const char *[]){"orchestrator", "serve", "--config", stack->config, "--ready-fd",
                                   "1", NULL});
    for (size_t i = 0; i < 4 && workers != NULL && workers[i] != NULL; i++) {
        char log[64];
        snprintf(log, sizeof log, "%s.log", workers[i]);
        start_program(stack, &stack->workers[i], log,
                      (const char *[]){"orchestrator-worker", "--name", workers[i], "--config",
                                       stack->config, "--ready-fd", "1", NULL});
    }
}

void bench_stack_end(struct bench_stack *stack)
{
    fixture_release(&stack->fixture);
}

static struct bytes encode_record(const struct message *message)
{
    struct buf out = {0};
    struct bytes bytes;
    if (message_encode(message, &out) != 0)
        die("cannot encode a record");
    bytes.data = buf_take(&out, &bytes.len);
    return bytes;
}

struct queue_node bench_node(const char *id)
{
    static char prompt[100];
    memset(prompt, 'x', sizeof prompt);
    struct message work = {.type = MESSAGE_work,
                           .work = {.kind = "run",
                                    .title = "bench",
                                    .role = "general",
                                    .prompt = {prompt, sizeof prompt},
                                    .temperature = -1}};
    struct message meta = {.type = MESSAGE_meta,
                           .meta = {.kind = "run", .role = "general", .title = "bench"}};
    return (struct queue_node){
        .id = id, .max_attempts = 3, .work = encode_record(&work), .meta = encode_record(&meta)};
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
