#include <errno.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/config.h"
#include "orchestrator/command.h"
#include "orchestrator/stack.h"

static const struct command_option options[] = {
    {"timeout", 't', "SECONDS", "what workers are granted to finish what runs; default 30", false},
    {"json", 0, NULL, "print one JSON object", false},
    {0},
};

static int exec(struct invocation *invocation)
{
    struct config *config;
    struct err err = {""};
    int64_t drain_ms = STACK_DRAIN_MS;
    bool json = invocation_has(invocation, "json");
    if (invocation_seconds(invocation, "timeout", &drain_ms) < 0)
        return EXIT_USAGE;
    if (config_load(&config, invocation_config(invocation), &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    int64_t started_ms = clock_ms();
    int rc = stack_stop(config, drain_ms, &err);
    config_free(&config);
    if (rc != 0 && rc != -ESRCH)
        return command_fail(invocation, EXIT_UNREACHABLE, "%s", err.text);
    int64_t took_ms = clock_ms() - started_ms;
    if (json)
        printf("{\"stopped\":%s,\"took_ms\":%lld}\n", rc == 0 ? "true" : "false",
               (long long)took_ms);
    else if (rc == 0)
        fprintf(stderr, "the local stack ended after %lld ms\n", (long long)took_ms);
    else
        fputs("no local stack runs\n", stderr);
    return EXIT_DONE;
}

const struct command command_down = {
    .name = "down",
    .args = "",
    .summary = "end the local stack; workers finish what runs",
    .details = "What is not finished stays in the queue and goes on at the next start.",
    .options = options,
    .exec = exec,
};
