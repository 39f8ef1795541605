/* orchestrator-sim: the providers' HTTP APIs, played on one port. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/log.h"
#include "simulator/sim.h"

#define EXIT_USAGE 2
#define EXIT_SYSTEM 3

struct arguments {
    struct sim_options sim;
    const char *port_file;
    int ready_fd; /* -1: none */
};

static const char usage[] =
    "usage: orchestrator-sim [OPTION]...\n"
    "Plays the HTTP APIs of OpenAI, Anthropic, Gemini and Ollama (and of servers that speak\n"
    "OpenAI's) on one port. Nothing it answers comes from a model. See docs/simulator.md.\n"
    "\n"
    "  --port N         port to listen on; 0: any (default 8089)\n"
    "  --listen ADDR    IPv4 address to listen on (default 127.0.0.1: this machine only)\n"
    "  --scenario FILE  YAML file that says how to behave (default: built-in replies)\n"
    "  --port-file FILE where to write the port once it listens\n"
    "  --ready-fd N     descriptor to write \"ready\" to once it listens\n"
    "  --seed N         seed of everything random (default: the scenario's, or 1)\n"
    "  --quiet          no line on stderr for each call\n"
    "  --help, --version\n";

static int complain(const char *format, const char *value)
{
    fprintf(stderr, format, value);
    fputs("Try 'orchestrator-sim --help'.\n", stderr);
    return EXIT_USAGE;
}

/* 0, or EXIT_USAGE after a sentence. */
static int take_number(const char *name, const char *text, int64_t max, int64_t *ret)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && value >= 0 && value <= max) {
        *ret = value;
        return 0;
    }
    fprintf(stderr, "orchestrator-sim: --%s takes a number from 0 to %lld, not '%s'\n", name,
            (long long)max, text);
    return EXIT_USAGE;
}

enum option_code {
    OPTION_PORT = 256,
    OPTION_LISTEN,
    OPTION_SCENARIO,
    OPTION_PORT_FILE,
    OPTION_READY_FD,
    OPTION_SEED,
    OPTION_QUIET,
    OPTION_HELP,
    OPTION_VERSION,
};

static const struct option long_options[] = {
    {"port", required_argument, NULL, OPTION_PORT},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"scenario", required_argument, NULL, OPTION_SCENARIO},
    {"port-file", required_argument, NULL, OPTION_PORT_FILE},
    {"ready-fd", required_argument, NULL, OPTION_READY_FD},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"quiet", no_argument, NULL, OPTION_QUIET},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {0},
};

/* -1: go on; else the exit status. */
static int take_option(struct arguments *arguments, int option)
{
    int64_t value = 0;
    int rc = 0;
    if (option == OPTION_PORT && (rc = take_number("port", optarg, 65535, &value)) == 0)
        arguments->sim.http.port = (int)value;
    else if (option == OPTION_READY_FD &&
             (rc = take_number("ready-fd", optarg, 65535, &value)) == 0)
        arguments->ready_fd = (int)value;
    else if (option == OPTION_SEED && (rc = take_number("seed", optarg, INT64_MAX, &value)) == 0)
        arguments->sim.seed = value;
    else if (option == OPTION_LISTEN)
        arguments->sim.http.listen = optarg;
    else if (option == OPTION_SCENARIO)
        arguments->sim.scenario_file = optarg;
    else if (option == OPTION_PORT_FILE)
        arguments->port_file = optarg;
    else if (option == OPTION_QUIET)
        arguments->sim.quiet = true;
    return rc != 0 ? rc : -1;
}

static int parse_arguments(struct arguments *ret, int argc, char **argv)
{
    int option, rc;
    *ret = (struct arguments){.sim = {.http = {.listen = "127.0.0.1", .port = 8089}, .seed = -1},
                              .ready_fd = -1};
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == OPTION_HELP || option == OPTION_VERSION) {
            fputs(option == OPTION_HELP ? usage : "orchestrator-sim " ORCH_VERSION "\n", stdout);
            return EXIT_SUCCESS;
        }
        if (option == '?')
            return complain("%s", "");
        if ((rc = take_option(ret, option)) >= 0)
            return rc;
    }
    if (optind < argc)
        return complain("orchestrator-sim: unexpected argument '%s'\n", argv[optind]);
    return -1;
}

/* The file appears with its contents or not at all. */
static int write_port(const char *path, int port, struct err *err)
{
    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.%d", path, (int)getpid()) >=
        (int)sizeof temporary)
        return err_set(err, -ENAMETOOLONG, "the name of the port file is too long");
    FILE *file = fopen(temporary, "we");
    if (file != NULL && fprintf(file, "%d\n", port) > 0 && fclose(file) == 0 &&
        rename(temporary, path) == 0)
        return 0;
    int rc = -errno;
    unlink(temporary);
    return err_set(err, rc, "cannot write the port file %s: %s", path, strerror(-rc));
}

static void say_ready(int fd, const char *text)
{
    if (fd < 0)
        return;
    if (write(fd, text, strlen(text)) < 0)
        log_warn("nobody reads descriptor %d: %s", fd, strerror(errno));
    close(fd);
}

static void stop(void *ctx, int signal_number)
{
    (void)signal_number;
    *(bool *)ctx = true;
}

static int run(const struct arguments *arguments, uv_loop_t *loop, struct err *err)
{
    static bool stopped;
    struct sim sim;
    int rc = sim_open(&sim, loop, &arguments->sim, err);
    if (rc != 0)
        return rc;
    loop_on_stop(loop, stop, &stopped);
    int port = sim_http_port(sim.http);
    if (arguments->port_file != NULL)
        rc = write_port(arguments->port_file, port, err);
    if (rc == 0) {
        log_info("simulated providers on http://%s:%d", arguments->sim.http.listen, port);
        say_ready(arguments->ready_fd, "ready\n");
        while (!stopped)
            uv_run(loop, UV_RUN_ONCE);
    }
    sim_close(&sim);
    return rc;
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    int status = parse_arguments(&arguments, argc, argv);
    if (status >= 0)
        return status;
    log_init("sim", LOG_LEVEL_INFO);
    loop_raise_descriptors();
    if (arguments.ready_fd >= 0)
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* a supervisor that dies takes it along */
    uv_loop_t loop;
    struct err err = {0};
    loop_init(&loop);
    int rc = run(&arguments, &loop, &err);
    loop_finish(&loop);
    if (rc == 0)
        return EXIT_SUCCESS;
    fprintf(stderr, "orchestrator-sim: %s\n", err.text);
    say_ready(arguments.ready_fd, err.text);
    return EXIT_SYSTEM;
}
