#include "tests/lib/testbed.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/paths.h"
#include "schemas/mem.h"

static void die(const char *what)
{
    fprintf(stderr, "testbed: %s\n", what);
    exit(2);
}

/* Starts a program whose --ready-fd is its log, and waits for the word. */
static pid_t start(struct testbed *testbed, const char *name, const char *const *argv)
{
    char log[96];
    snprintf(log, sizeof log, "%s.%d.log", name, ++testbed->starts);
    pid_t pid = fixture_spawn(&testbed->fixture, log, argv);
    if (!fixture_wait_text(&testbed->fixture, log, "ready\n", 30000)) {
        struct buf text = {0};
        char path[256];
        snprintf(path, sizeof path, "%s/%s", testbed->fixture.dir, log);
        if (fixture_read(path, &text) && text.len > 0)
            fwrite(text.data, 1, text.len, stderr);
        die(name);
    }
    return pid;
}

void testbed_start_simulator(struct testbed *testbed, const char *scenario)
{
    char scenario_file[256], port_file[128], port[16];
    snprintf(port_file, sizeof port_file, "%s/sim.port", testbed->fixture.dir);
    snprintf(scenario_file, sizeof scenario_file, "%s",
             fixture_write(&testbed->fixture, "scenario.yaml", scenario));
    snprintf(port, sizeof port, "%d", testbed->sim_port);
    testbed->sim =
        start(testbed, "sim",
              (const char *[]){"orchestrator-sim", "--port", port, "--port-file", port_file,
                               "--scenario", scenario_file, "--ready-fd", "1", NULL});
    struct buf text = {0};
    if (!fixture_read(port_file, &text) || text.len == 0)
        die("the simulator wrote no port file");
    testbed->sim_port = atoi(text.data);
    buf_release(&text);
}

void testbed_start_broker(struct testbed *testbed)
{
    testbed->broker = start(testbed, "broker",
                            (const char *[]){"orchestrator-broker", "--config", testbed->config,
                                             "--ready-fd", "1", NULL});
}

void testbed_start_daemon(struct testbed *testbed)
{
    testbed->daemon = start(testbed, "daemon",
                            (const char *[]){"orchestrator", "serve", "--config", testbed->config,
                                             "--ready-fd", "1", NULL});
}

void testbed_start_worker(struct testbed *testbed, int index, const char *name)
{
    testbed->workers[index] =
        start(testbed, name,
              (const char *[]){"orchestrator-worker", "--name", name, "--config", testbed->config,
                               "--ready-fd", "1", NULL});
}

void testbed_start(struct testbed *testbed, const char *const *workers)
{
    testbed_start_broker(testbed);
    testbed_start_daemon(testbed);
    for (int i = 0; i < TESTBED_WORKERS && workers != NULL && workers[i] != NULL; i++)
        testbed_start_worker(testbed, i, workers[i]);
}

/* Each %d of the text becomes the number. */
static void replace_port(const char *yaml, int port, struct buf *out)
{
    for (const char *at; (at = strstr(yaml, "%d")) != NULL; yaml = at + 2) {
        buf_add(out, yaml, (size_t)(at - yaml));
        buf_printf(out, "%d", port);
    }
    buf_add_str(out, yaml);
}

void testbed_init(struct testbed *testbed, const char *yaml, const char *scenario)
{
    *testbed = (struct testbed){0};
    fixture_init(&testbed->fixture);
    fixture_redis_start(&testbed->fixture);
    if (scenario != NULL)
        testbed_start_simulator(testbed, scenario);
    struct buf text = {0};
    buf_printf(&text, "redis: unix://%s\nbus: {brokers: [local]}\n", testbed->fixture.redis_socket);
    replace_port(yaml, testbed->sim_port, &text);
    snprintf(testbed->config, sizeof testbed->config, "%s",
             fixture_write(&testbed->fixture, "config.yaml", text.data));
    buf_release(&text);
    char run[128];
    snprintf(run, sizeof run, "%s/" PATH_RUN, testbed->fixture.dir);
    path_make(run, NULL);
}

json_t *testbed_sim(const struct testbed *testbed, const char *what)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)testbed->sim_port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct buf request = {0}, answer = {0};
    buf_printf(&request, "GET /sim/%s HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n", what);
    json_t *value = NULL;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        write(fd, request.data, request.len) == (ssize_t)request.len) {
        char chunk[65536];
        ssize_t got;
        while ((got = read(fd, chunk, sizeof chunk)) > 0)
            buf_add(&answer, chunk, (size_t)got);
        const char *body = answer.len > 0 ? strstr(answer.data, "\r\n\r\n") : NULL;
        if (body != NULL)
            value = json_parse(body + 4, answer.len - (size_t)(body + 4 - answer.data), NULL);
    }
    close(fd);
    buf_release(&request);
    buf_release(&answer);
    return value;
}

/* What testbed_node() made; freed by testbed_release(). */
static char **records;
static size_t n_records;

static struct bytes encode_record(const struct message *message)
{
    struct buf out = {0};
    struct bytes bytes;
    if (message_encode(message, &out) != 0)
        die("cannot encode a record");
    records = mem_must_realloc(records, (n_records + 1) * sizeof *records);
    bytes.data = records[n_records++] = buf_take(&out, &bytes.len);
    return bytes;
}

struct queue_node testbed_node(const char *id, const char *prompt)
{
    return testbed_role_node(id, "general", prompt);
}

struct queue_node testbed_role_node(const char *id, const char *role, const char *prompt)
{
    struct message work = {.type = MESSAGE_work,
                           .work = {.kind = "run",
                                    .title = id,
                                    .role = role,
                                    .prompt = {prompt, strlen(prompt)},
                                    .temperature = -1}};
    struct message meta = {.type = MESSAGE_meta,
                           .meta = {.kind = "run", .role = role, .title = id}};
    return (struct queue_node){
        .id = id, .max_attempts = 3, .work = encode_record(&work), .meta = encode_record(&meta)};
}

void testbed_release(struct testbed *testbed)
{
    fixture_release(&testbed->fixture);
    while (n_records > 0)
        free(records[--n_records]);
    free(records);
    records = NULL;
}
