#include <stdio.h>

#include "orchestrator/command.h"

static int exec(struct invocation *invocation)
{
    (void)invocation;
    puts("orchestrator " ORCH_VERSION);
    return EXIT_DONE;
}

const struct command command_version = {
    .name = "version",
    .args = "",
    .summary = "which version this is",
    .exec = exec,
};
