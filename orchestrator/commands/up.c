#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/paths.h"
#include "orchestrator/command.h"
#include "orchestrator/stack.h"

#define START_MS 60000

static const struct command_option options[] = {
    {"detach", 'd', NULL, "start it in the background and return once it is ready", false},
    {"json", 0, NULL, "with --detach: print what runs as one JSON object", false},
    {"listen", 'l', "ADDRESS",
     "HOST[:PORT] of this machine on which others reach it; see `orchestrator invite`", false},
    {"insecure", 0, NULL, "use a bus beyond this machine that is not encrypted", false},
    {"ready-fd", 0, "N", "for programs: write \"ready\", or why not, to descriptor N", false},
    {0},
};

static void announce(const struct config *config)
{
    fprintf(stderr, "home %s, logs in %s/" PATH_LOG "\n", config->home, config->home);
    if (config->listen != NULL)
        fprintf(
            stderr,
            "listens for other machines on %s (broker), with its taps and Redis on the next two "
            "ports;\n`orchestrator invite` lets them in\n",
            config->listen);
    if (config->simulated)
        fputs(strcmp(config->path, CONFIG_BUILT_IN) == 0
                  ? "no provider is configured or found: answers are SIMULATED; set a key such as "
                    "ANTHROPIC_API_KEY or start Ollama to use real models\n"
                  : "the configuration has a simulator: answers are SIMULATED\n",
              stderr);
}

static int print_status(const struct invocation *invocation, const struct config *config)
{
    struct buf status = {0};
    struct err err = {""};
    int rc = stack_status(config, &status, &err);
    if (rc == 0)
        puts(status.data);
    buf_release(&status);
    return rc == 0 ? EXIT_DONE : command_fail(invocation, EXIT_UNREACHABLE, "%s", err.text);
}

static int up_detached(const struct invocation *invocation, const struct config *config)
{
    struct err err = {""};
    int64_t started_ms = clock_ms();
    bool json = invocation_has(invocation, "json");
    bool ran = stack_running(config);
    if (!json)
        announce(config);
    if (stack_start(config, START_MS, &err) != 0)
        return command_fail(invocation, EXIT_UNREACHABLE, "%s", err.text);
    if (json)
        return print_status(invocation, config);
    if (ran)
        fputs("the local stack runs already; `orchestrator down` ends it\n", stderr);
    else
        fprintf(stderr, "ready after %lld ms; `orchestrator down` ends it\n",
                (long long)(clock_ms() - started_ms));
    return EXIT_DONE;
}

static int up_in_foreground(const struct invocation *invocation, const struct config *config)
{
    int64_t ready_fd = -1;
    if (invocation_int(invocation, "ready-fd", 0, 1000000, &ready_fd) < 0)
        return EXIT_USAGE;
    if (invocation_has(invocation, "json"))
        return command_fail(invocation, EXIT_USAGE, "--json needs --detach");
    if (ready_fd < 0)
        announce(config);
    log_init("stack", LOG_LEVEL_INFO);
    return stack_run(config, (int)ready_fd);
}

static int exec(struct invocation *invocation)
{
    struct config *config;
    struct err err = {""};
    if (config_load(&config, invocation_config(invocation), &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    const char *listen = invocation_value(invocation, "listen");
    if ((listen != NULL && config_listen(config, listen, &err) != 0) ||
        config_check_exposure(config, invocation_has(invocation, "insecure"), &err) != 0) {
        config_free(&config);
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    }
    int code = invocation_has(invocation, "detach") ? up_detached(invocation, config)
                                                    : up_in_foreground(invocation, config);
    config_free(&config);
    return code;
}

const struct command command_up = {
    .name = "up",
    .args = "",
    .summary = "start the local stack: Redis, broker, daemon, workers",
    .details =
        "Runs in the foreground until Ctrl-C, which lets workers finish what runs; a second "
        "Ctrl-C ends at once. Processes that die are started again.\n"
        "With --listen (or `listen:` in the configuration) other machines may take part: bus "
        "and Redis\nare encrypted, and nobody gets in who was not invited.\n",
    .options = options,
    .exec = exec,
};
