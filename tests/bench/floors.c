/* What the parts cost alone: one fsynced write to Redis, one script, one bus round trip, one HTTP
 * call. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bus.h"
#include "common/clock.h"
#include "common/redis.h"
#include "tests/bench/bench.h"

#define ROUNDS 2000
#define PIPELINED 100000

struct redis_run {
    uv_loop_t loop;
    struct redis *redis;
    bool answered;
    int left;
};

static void answered(void *ctx, const struct redis_value *value)
{
    (void)value;
    struct redis_run *run = ctx;
    run->answered = --run->left <= 0;
}

static const char script[] = "#!lua\nredis.call('HSET', KEYS[1], 'a', ARGV[1])\n"
                             "return redis.call('HINCRBY', KEYS[1], 'n', 1)\n";

static void redis_floors(void)
{
    struct fixture fixture;
    fixture_init(&fixture);
    fixture_redis_start(&fixture);
    struct redis_run run = {0};
    loop_init(&run.loop);
    struct redis_options options = fixture_redis_options(&fixture);
    if (redis_open(&run.redis, &run.loop, &options, NULL, NULL, NULL) != 0)
        abort();
    static double samples[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        run.answered = false;
        run.left = 1;
        double started = clock_ms_f();
        redis_command(run.redis, answered, &run, 3, (const char *[]){"SET", "k", "v"}, NULL);
        loop_run_until(&run.loop, &run.answered, 5000);
        samples[i] = clock_ms_f() - started;
    }
    double p50 = bench_quantile(samples, ROUNDS, 0.5);
    struct redis_script eval = {.name = "floor", .source = script};
    run.answered = false;
    run.left = PIPELINED;
    double started = clock_ms_f();
    for (int i = 0; i < PIPELINED; i++)
        redis_eval(run.redis, &eval, answered, &run, 1, 2, (const char *[]){"h", "v"}, NULL);
    loop_run_until(&run.loop, &run.answered, 60000);
    double rate = PIPELINED / ((clock_ms_f() - started) / 1000);
    redis_close(&run.redis);
    loop_finish(&run.loop);
    fixture_release(&fixture);
    figure_print(
        &(struct figure){"floor: Redis SET, fsynced, p50", p50, "ms", NULL, 0, true, NULL, false});
    figure_print(&(struct figure){"floor: Redis script of two calls", rate, "calls/s", NULL, 0,
                                  false, NULL, false});
}

struct bus_run {
    uv_loop_t loop;
    struct bus *router, *dealer;
    bool back;
};

static void echo(void *ctx, const struct bus_peer *peer, const uint8_t *data, size_t len)
{
    struct bus_run *run = ctx;
    bus_send(run->router, peer, data, len);
}

static void came_back(void *ctx, const struct bus_peer *peer, const uint8_t *data, size_t len)
{
    (void)peer, (void)data, (void)len;
    ((struct bus_run *)ctx)->back = true;
}

static void bus_floor(void)
{
    struct fixture fixture;
    fixture_init(&fixture);
    struct bus_run run = {0};
    loop_init(&run.loop);
    char endpoint[128];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/bus.sock", fixture.dir);
    struct bus_options router = {.kind = BUS_ROUTER, .endpoint = endpoint};
    struct bus_options dealer = {.kind = BUS_DEALER, .endpoint = endpoint};
    if (bus_open(&run.router, &run.loop, &router, echo, &run, NULL) != 0 ||
        bus_open(&run.dealer, &run.loop, &dealer, came_back, &run, NULL) != 0)
        abort();
    while (bus_send(run.dealer, NULL, "x", 1) != 0)
        uv_run(&run.loop, UV_RUN_NOWAIT);
    loop_run_until(&run.loop, &run.back, 5000);
    static double samples[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        run.back = false;
        double started = clock_ms_f();
        bus_send(run.dealer, NULL, "x", 1);
        loop_run_until(&run.loop, &run.back, 5000);
        samples[i] = clock_ms_f() - started;
    }
    figure_print(&(struct figure){"floor: bus round trip, p50",
                                  bench_quantile(samples, ROUNDS, 0.5), "ms", NULL, 0, true, NULL,
                                  false});
    bus_close(&run.dealer);
    bus_close(&run.router);
    loop_finish(&run.loop);
    fixture_release(&fixture);
}

/* A kept-alive connection, one request after the other, no client library: what the wire and the
 * simulator cost. */
static void http_floor(void)
{
    struct testbed stack = {0};
    fixture_init(&stack.fixture);
    testbed_start_simulator(
        &stack, "rules:\n  - reply: {text: ok}\n    timing: {decode_tps: 0, prefill_tps: 0}\n");
    static const char body[] =
        "{\"model\":\"fast\",\"messages\":[{\"role\":\"user\",\"content\":\"Say ok.\"}]}";
    char request[512], answer[8192];
    int len = snprintf(
        request, sizeof request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Content-Length: %zu\r\n\r\n%s",
        sizeof body - 1, body);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)stack.sim_port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        abort();
    static double samples[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        double started = clock_ms_f();
        size_t have = 0;
        if (write(fd, request, (size_t)len) != len)
            abort();
        for (;;) { /* the answer is complete when its JSON ends */
            ssize_t got = read(fd, answer + have, sizeof answer - 1 - have);
            if (got <= 0)
                abort();
            have += (size_t)got;
            answer[have] = '\0';
            const char *json = strstr(answer, "\r\n\r\n");
            const char *length = strcasestr(answer, "content-length:");
            if (json != NULL && length != NULL &&
                have >= (size_t)(json + 4 - answer) + strtoul(length + 15, NULL, 10))
                break;
        }
        samples[i] = clock_ms_f() - started;
    }
    close(fd);
    figure_print(&(struct figure){"floor: HTTP call to the simulator, p50",
                                  bench_quantile(samples, ROUNDS, 0.5), "ms", NULL, 0, true, NULL,
                                  false});
    testbed_release(&stack);
}

static void run(void)
{
    redis_floors();
    bus_floor();
    http_floor();
}

const struct benchmark benchmark_floors = {"floors",
                                           "what Redis, the bus and an HTTP call cost alone", run};
