/* orchestrator-worker: one process per provider, or per local runtime on one GPU. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/config.h"
#include "common/invitation.h"
#include "common/log.h"
#include "common/loop.h"
#include "workers/join.h"
#include "workers/worker.h"

#define EXIT_USAGE 2
#define EXIT_UNREACHABLE 3

static const char usage[] =
    "usage: orchestrator-worker --name NAME [--config FILE] [--ready-fd N] [--drain-ms N]\n"
    "       orchestrator-worker --join TOKEN\n"
    "\n"
    "Serves the provider of the worker NAME of the configuration.\n"
    "\n"
    "  --name NAME      which entry under workers: this process is\n"
    "  --join TOKEN     take part with what `orchestrator invite --worker` printed elsewhere; `-`\n"
    "                   reads it from standard input, `@FILE` from a file, and without --join it\n"
    "                   may be in ORCHESTRATOR_JOIN. Later, --name NAME is enough.\n"
    "  --config FILE    configuration; else what NAME has joined with, else ORCHESTRATOR_CONFIG\n"
    "                   and the usual places\n"
    "  --insecure       use a bus beyond this machine that is not encrypted\n"
    "  --ready-fd N     write \"ready\" to descriptor N once it can serve, or why it cannot\n"
    "  --drain-ms N     on SIGTERM, let running attempts finish for so long (30000); a second\n"
    "                   SIGTERM gives them back at once\n"
    "  --version        print the version\n"
    "  --help           print this\n"
    "\n"
    "SIGHUP reads the provider's keys again.\n";

struct arguments {
    const char *config;
    char *join; /* token, in argv */
    bool insecure;
    char *owned[2]; /* name and configuration of who has joined */
    struct worker_options worker;
};

static bool parse_number(const char *text, long long max, long long *ret)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 0 || value > max)
        return false;
    *ret = value;
    return true;
}

/* -1: go on; else the exit status. */
static int parse_arguments(struct arguments *ret, int argc, char **argv)
{
    static const struct option options[] = {
        {"name", required_argument, NULL, 'n'},
        {"config", required_argument, NULL, 'c'},
        {"join", required_argument, NULL, 'j'},
        {"insecure", no_argument, NULL, 'i'},
        {"ready-fd", required_argument, NULL, 'r'},
        {"drain-ms", required_argument, NULL, 'd'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    long long number = -1;
    bool good = true;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h' || option == 'v') {
            fputs(option == 'h' ? usage : "orchestrator-worker " ORCH_VERSION "\n", stdout);
            return 0;
        }
        if (option == 'n') {
            ret->worker.name = optarg;
        } else if (option == 'c') {
            ret->config = optarg;
        } else if (option == 'j') {
            ret->join = optarg;
        } else if (option == 'i') {
            ret->insecure = true;
        } else if (option == 'r') {
            good = good && parse_number(optarg, 1 << 20, &number);
            ret->worker.ready_fd = (int)number;
        } else if (option == 'd') {
            good = good && parse_number(optarg, 24LL * 3600 * 1000, &number);
            ret->worker.drain_ms = number;
        } else {
            good = false;
        }
    }
    const char *token = getenv(INVITATION_ENV);
    bool joins = ret->join != NULL || (token != NULL && *token != '\0');
    if (good && optind == argc && (ret->worker.name != NULL || joins) &&
        (ret->join == NULL || ret->config == NULL))
        return -1;
    fputs(usage, stderr);
    return EXIT_USAGE;
}

/* Keys are in this process's memory: no core dump, and no end when the supervisor dies but its own.
 */
static void protect(bool supervised)
{
    int signal_number = 0;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
#ifndef __SANITIZE_ADDRESS__ /* its leak check reads the process like a debugger */
    prctl(PR_SET_DUMPABLE, 0);
#endif
    if (supervised && prctl(PR_GET_PDEATHSIG, &signal_number) == 0 && signal_number == 0)
        prctl(PR_SET_PDEATHSIG, SIGTERM);
}

static void stop_signalled(void *ctx, int signal_number)
{
    (void)signal_number;
    worker_stop(ctx);
}

static int refuse(const struct arguments *arguments, int status, const char *why)
{
    log_error("%s", why);
    if (arguments->worker.ready_fd >= 0 && dprintf(arguments->worker.ready_fd, "%s\n", why) < 0)
        log_debug("nobody waits for this worker to be ready");
    return status;
}

static int serve(const struct arguments *arguments, const struct config *config)
{
    struct arguments own = *arguments;
    struct worker *worker;
    struct err err = {0};
    uv_loop_t loop;
    int status = 0;
    own.worker.config = config;
    loop_init(&loop);
    if (worker_open(&worker, &loop, &own.worker, &err) != 0) {
        loop_finish(&loop);
        return refuse(arguments, 1, err.text);
    }
    loop_on_stop(&loop, stop_signalled, worker);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (worker_failure(worker)[0] != '\0')
        status = refuse(arguments, EXIT_UNREACHABLE, worker_failure(worker));
    worker_close(&worker);
    loop_finish(&loop);
    return status;
}

/* Who joins, or has joined, has a configuration of its own. 0 or a negative errno. */
static int take_part(struct arguments *arguments, struct err *err)
{
    const char *name = arguments->worker.name;
    if (arguments->config != NULL)
        return 0;
    int rc = join_accept(arguments->join, name != NULL ? name : "", &arguments->owned[0],
                         &arguments->owned[1], err);
    if (rc == 0 && arguments->owned[0] != NULL)
        arguments->worker.name = arguments->owned[0];
    else if (rc == 0)
        arguments->owned[1] = join_config(name);
    if (rc == 0)
        arguments->config = arguments->owned[1];
    return rc;
}

/* 0, or the exit status. */
static int run(struct arguments *arguments)
{
    struct config *config = NULL;
    struct err err = {0};
    if (take_part(arguments, &err) != 0 || config_load(&config, arguments->config, &err) != 0)
        return refuse(arguments, EXIT_USAGE, err.text);
    int status = config_check_exposure(config, arguments->insecure, &err) == 0
                     ? serve(arguments, config)
                     : refuse(arguments, EXIT_USAGE, err.text);
    config_free(&config);
    return status;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {.worker = {.ready_fd = -1, .drain_ms = WORKER_DRAIN_MS}};
    int status = parse_arguments(&arguments, argc, argv);
    if (status >= 0)
        return status;
    log_init("worker", LOG_LEVEL_INFO);
    protect(arguments.worker.ready_fd >= 0);
    loop_raise_descriptors();
    status = run(&arguments);
    free(arguments.owned[0]);
    free(arguments.owned[1]);
    return status;
}
