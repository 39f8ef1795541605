/* orchestrator-broker: options, configuration, loop, until it is told to stop. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "broker/broker.h"
#include "common/config.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/paths.h"
#include "schemas/mem.h"

#define EXIT_USAGE 2
#define EXIT_UNREACHABLE 3

struct options {
    const char *config;
    const char *endpoint;
    const char *taps;
    int ready_fd; /* -1: none */
    bool insecure;
};

static const struct {
    const char *name;
    char key;
    const char *value; /* NULL: takes none */
    const char *help;
} table[] = {
    {"config", 'c', "FILE",
     "configuration file; default: ORCHESTRATOR_CONFIG, then the usual places"},
    {"endpoint", 'e', "ENDPOINT",
     "where orchestrators and workers connect, such as tcp://*:5570; default: the first of "
     "bus.brokers"},
    {"taps", 't', "ENDPOINT",
     "where taps connect; default: the endpoint's port + 1, or its path + .taps"},
    {"ready-fd", 'r', "N", "writes \"ready\" to descriptor N once it serves, else the error"},
    {"insecure", 'i', NULL,
     "asks nobody for a key and encrypts nothing, also beyond this machine: whoever reaches the "
     "endpoint can take part"},
    {"help", 'h', NULL, "prints this"},
    {"version", 'V', NULL, "prints the version"},
};
#define N_OPTIONS (sizeof table / sizeof *table)

static void print_help(void)
{
    printf("usage: orchestrator-broker [OPTION]...\n\n"
           "Matches offers of orchestrators with workers, and spreads events to taps.\n\n");
    for (size_t i = 0; i < N_OPTIONS; i++) {
        char flag[64];
        snprintf(flag, sizeof flag, "--%s %s", table[i].name,
                 table[i].value != NULL ? table[i].value : "");
        printf("  -%c, %-20s %s\n", table[i].key, flag, table[i].help);
    }
}

/* -1: go on; else the exit code. */
static int take_option(struct options *options, int key, const char *value)
{
    char *end;
    switch (key) {
    case 'c':
        options->config = value;
        return -1;
    case 'e':
        options->endpoint = value;
        return -1;
    case 't':
        options->taps = value;
        return -1;
    case 'r':
        options->ready_fd = (int)strtol(value, &end, 10);
        if (*value != '\0' && *end == '\0' && options->ready_fd >= 0)
            return -1;
        fprintf(stderr, "orchestrator-broker: --ready-fd needs the number of an open descriptor\n");
        return EXIT_USAGE;
    case 'i':
        options->insecure = true;
        return -1;
    case 'h':
        print_help();
        return EXIT_SUCCESS;
    case 'V':
        printf("orchestrator-broker %s\n", ORCH_VERSION);
        return EXIT_SUCCESS;
    default:
        fprintf(stderr, "orchestrator-broker: see --help\n");
        return EXIT_USAGE;
    }
}

static int parse_options(struct options *options, int argc, char **argv)
{
    struct option longs[N_OPTIONS + 1] = {0};
    char shorts[2 * N_OPTIONS + 1] = "";
    for (size_t i = 0; i < N_OPTIONS; i++) {
        bool valued = table[i].value != NULL;
        longs[i] = (struct option){table[i].name, valued, NULL, table[i].key};
        snprintf(shorts + strlen(shorts), 3, "%c%s", table[i].key, valued ? ":" : "");
    }
    int key, rc = -1;
    while (rc < 0 && (key = getopt_long(argc, argv, shorts, longs, NULL)) >= 0)
        rc = take_option(options, key, optarg);
    if (rc < 0 && optind < argc) {
        fprintf(stderr, "orchestrator-broker: unexpected %s; see --help\n", argv[optind]);
        rc = EXIT_USAGE;
    }
    return rc;
}

/* The endpoint of the taps: configured beside the same broker, else derived. Caller frees. */
static char *taps_of(const struct config *config, const char *endpoint)
{
    for (size_t i = 0; i < config->n_brokers; i++)
        if (strcmp(config->brokers[i], endpoint) == 0)
            return mem_must_strdup(config->taps[i]);
    const char *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) != 0 || colon == NULL)
        return mem_must_printf("%s.taps", endpoint);
    return mem_must_printf("%.*s:%d", (int)(colon - endpoint), endpoint, atoi(colon + 1) + 1);
}

static int make_place(const char *endpoint, struct err *err)
{
    const char *slash = strrchr(endpoint, '/');
    if (strncmp(endpoint, "ipc:///", 7) != 0 || slash == endpoint + 6)
        return 0;
    char *dir = mem_must_strndup(endpoint + 6, (size_t)(slash - endpoint - 6));
    int rc = path_make(dir, err);
    free(dir);
    return rc;
}

/* Where the keys are; NULL: none are asked for. A configuration that says no to keys for this very
 * endpoint must be confirmed; one that doesn't know of it has nothing to say. */
static int keys_of(const char **ret, const struct config *config, const struct options *options,
                   const char *endpoint, const char *taps, struct err *err)
{
    bool exposed = config_exposed(endpoint) || config_exposed(taps), configured = false;
    *ret = NULL;
    if (options->insecure)
        return 0;
    for (size_t i = 0; i < config->n_brokers; i++)
        configured |= strcmp(config->brokers[i], endpoint) == 0;
    if (exposed && !config->curve && configured)
        return err_set(err, -EPERM,
                       "%s would be open to everybody who reaches it: remove `bus.curve.enabled: "
                       "false` from %s and make keys with `orchestrator keys init`, or say "
                       "--insecure",
                       endpoint, config->path);
    if (config->curve || exposed)
        *ret = config->curve_keys;
    return 0;
}

/* What a missing key means to whom starts a broker. */
static int explain_keys(int rc, const char *keys, struct err *err)
{
    if (keys == NULL || rc != -ENOENT)
        return rc;
    return err_set(err, rc,
                   "the brokers' key is not in %s: make it with `orchestrator keys init`, or say "
                   "--insecure to ask nobody for a key",
                   keys);
}

static int open_broker(struct broker **ret, uv_loop_t *loop, const struct options *options,
                       struct err *err)
{
    struct config *config;
    int rc = config_load(&config, options->config, err);
    if (rc != 0)
        return rc;
    const char *endpoint = options->endpoint != NULL ? options->endpoint : config->brokers[0];
    char *taps = options->taps != NULL ? mem_must_strdup(options->taps) : taps_of(config, endpoint);
    struct broker_options broker = {.endpoint = endpoint,
                                    .taps = taps,
                                    .beat_ms = config->beat_ms,
                                    .max_offers = config->max_offers};
    rc = keys_of(&broker.keys, config, options, endpoint, taps, err);
    if (rc == 0)
        rc = make_place(endpoint, err);
    if (rc == 0)
        rc = make_place(taps, err);
    if (rc == 0)
        rc = explain_keys(broker_open(ret, loop, &broker, err), broker.keys, err);
    free(taps);
    config_free(&config);
    return rc;
}

/* Says to the supervisor how it went; false when there is none any more. */
static bool report(const struct options *options, const char *text)
{
    if (options->ready_fd < 0)
        return true;
    bool sent = dprintf(options->ready_fd, "%s\n", text) > 0;
    close(options->ready_fd);
    return sent;
}

static void stop(void *ctx, int signal_number)
{
    (void)signal_number;
    *(bool *)ctx = true;
}

int main(int argc, char **argv)
{
    struct options options = {.ready_fd = -1};
    struct broker *broker = NULL;
    struct err err = {0};
    uv_loop_t loop;
    bool stopped = false;

    log_init("orchestrator-broker", LOG_LEVEL_INFO);
    int rc = parse_options(&options, argc, argv);
    if (rc >= 0)
        return rc;
    if (options.ready_fd >= 0)
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* who waits for us is our supervisor */
    loop_raise_descriptors();
    loop_init(&loop);
    loop_on_stop(&loop, stop, &stopped);
    rc = open_broker(&broker, &loop, &options, &err);
    if (rc != 0)
        log_error("%s", err.text);
    if (report(&options, rc == 0 ? "ready" : err.text) && rc == 0)
        loop_run_until(&loop, &stopped, -1);
    broker_close(&broker);
    loop_finish(&loop);
    return rc == 0 ? EXIT_SUCCESS : rc == -EINVAL || rc == -EPERM ? EXIT_USAGE : EXIT_UNREACHABLE;
}
