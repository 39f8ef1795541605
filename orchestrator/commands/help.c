#include <stdio.h>

#include "orchestrator/command.h"

static int exec(struct invocation *invocation)
{
    const char *const *args;
    struct buf help = {0};
    if (invocation_args(invocation, &args) == 0) {
        command_overview(&help);
    } else {
        const struct command *command = command_find(args[0]);
        if (command == NULL)
            return command_fail(invocation, EXIT_USAGE, "there is no command \"%.60s\"", args[0]);
        command_usage(command, &help);
    }
    fwrite(help.data, 1, help.len, stdout);
    buf_release(&help);
    return EXIT_DONE;
}

const struct command command_help = {
    .name = "help",
    .args = "[COMMAND]",
    .summary = "what there is, or how one command is used",
    .max_args = 1,
    .exec = exec,
};
