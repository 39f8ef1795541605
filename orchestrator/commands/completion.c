#include <stdio.h>
#include <string.h>

#include "orchestrator/command.h"
#include "orchestrator/completion.h"

static int exec(struct invocation *invocation)
{
    const char *const *args;
    struct buf script = {0};
    const char *shell = invocation_args(invocation, &args) > 0 ? args[0] : "bash";
    if (completion_script(shell, &script) != 0)
        return command_fail(invocation, EXIT_USAGE, "no completion for \"%.40s\": bash or zsh",
                            shell);
    fwrite(script.data, 1, script.len, stdout);
    buf_release(&script);
    return EXIT_DONE;
}

const struct command command_completion = {
    .name = "completion",
    .args = "[bash|zsh]",
    .summary = "a script that completes commands and options in a shell",
    .details = "  bash: source <(orchestrator completion bash)\n"
               "  zsh:  source <(orchestrator completion zsh)\n",
    .max_args = 1,
    .exec = exec,
};
