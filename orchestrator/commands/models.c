#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/config.h"
#include "common/loop.h"
#include "common/paths.h"
#include "orchestrator/client.h"
#include "orchestrator/models.h"

#define TIMEOUT_MS 300000 /* a large local model may have to be loaded first */

static const struct command_option options[] = {
    {"test", 0, NULL, "ask each arm, or those of ID (a model or an arm), a trivial question",
     false},
    {"refresh", 0, NULL, "ask each provider, or the one named ID, what it really serves", false},
    {"timeout", 't', "S", "with --test and --refresh: wait at most S seconds; 300 is usual", false},
    {"quiet", 'q', NULL, "no progress", false},
    {"json", 0, NULL, "print a JSON array", false},
    {0},
};

/* A broker may have been started without the stack. */
static bool may_be_there(const struct config *config)
{
    char *path = path_of(config->home, PATH_BROKER_SOCKET);
    bool there = !config->broker_local || config->n_brokers > 1 || access(path, F_OK) == 0;
    free(path);
    return there;
}

/* What the configuration has, and who serves it, without starting anything. */
static int list(const struct invocation *invocation)
{
    struct config *config;
    struct err err = {""};
    struct roster roster = {0};
    if (config_load(&config, invocation_config(invocation), &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    if (may_be_there(config)) {
        uv_loop_t loop;
        loop_init(&loop);
        roster_ask(&roster, &loop, config, MODELS_ASK_MS, NULL);
        loop_finish(&loop);
    }
    if (invocation_has(invocation, "json"))
        models_print_json(config, &roster);
    else if (config->n_models == 0)
        fprintf(stderr, "there are no models in %s\n", config->path);
    else
        models_print(config, &roster);
    if (config->simulated)
        fputs("these models are SIMULATED\n", stderr);
    if (roster.brokers == 0)
        fputs("no broker answers, so no worker serves them now; `orchestrator up -d` starts the "
              "local stack\n",
              stderr);
    roster_release(&roster);
    config_free(&config);
    return EXIT_DONE;
}

static int ask(const struct invocation *invocation, const char *wanted)
{
    struct client client;
    int64_t timeout_ms = TIMEOUT_MS;
    if (invocation_seconds(invocation, "timeout", &timeout_ms) < 0)
        return EXIT_USAGE;
    int code = client_open(&client, invocation);
    if (code != EXIT_DONE)
        return code;
    code = client_connect(&client, invocation, true);
    if (code == EXIT_DONE && client.config->simulated)
        fputs("these models are SIMULATED\n", stderr);
    if (code == EXIT_DONE)
        code = invocation_has(invocation, "test")
                   ? models_test(&client, invocation, wanted, timeout_ms)
                   : models_refresh(&client, invocation, wanted, timeout_ms);
    client_close(&client);
    return code;
}

static int exec(struct invocation *invocation)
{
    const char *const *args;
    size_t n_args = invocation_args(invocation, &args);
    bool test = invocation_has(invocation, "test"), refresh = invocation_has(invocation, "refresh");
    if (test && refresh)
        return command_fail(invocation, EXIT_USAGE, "--test and --refresh exclude each other");
    if (!test && !refresh && n_args > 0)
        return command_fail(invocation, EXIT_USAGE, "an ID needs --test or --refresh");
    if (!test && !refresh)
        return list(invocation);
    return ask(invocation, n_args > 0 ? args[0] : NULL);
}

const struct command command_models = {
    .name = "models",
    .args = "[ID]",
    .summary = "the models that are configured or found, who serves them now, and how well",
    .details =
        "Without options: names, windows, prices of today, abilities, and the arms that serve\n"
        "them. --test and --refresh start the local stack when none runs, and exit with 1 when an\n"
        "arm fails, or when something that is configured is not served.\n\n"
        "examples:\n"
        "  orchestrator models --test\n"
        "  orchestrator models --test sonnet --json\n"
        "  orchestrator models --refresh ollama\n",
    .options = options,
    .max_args = 1,
    .exec = exec,
};
