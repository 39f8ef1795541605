/* Help, generated from the tables of commands, options, exit codes and environment. */
#include <stdio.h>
#include <string.h>

#include "common/yaml.h"
#include "orchestrator/command.h"

static const struct {
    int code;
    const char *text;
} exit_codes[] = {
    {EXIT_DONE, "done"},
    {EXIT_FAILED, "the task failed, or the check found something"},
    {EXIT_USAGE, "wrong arguments, configuration or input"},
    {EXIT_UNREACHABLE, "Redis, broker or daemon cannot be reached"},
    {EXIT_STOPPED, "the task was cancelled, or a time limit passed"},
};

static const struct {
    const char *name, *text;
} environment[] = {
    {"ORCHESTRATOR_CONFIG", "configuration file, where --config is not given"},
    {"ORCHESTRATOR_HOME", "state: sockets, logs, spool, Redis' files, profile store"},
    {"ORCHESTRATOR_JOIN", "token of `orchestrator invite`, where none is an argument"},
    {"ORCHESTRATOR_LOG", "how much is logged on stderr: error, warn, info, debug"},
    {"XDG_CONFIG_HOME", "orchestrator/config.yaml below it is the next choice; ~/.config"},
    {"XDG_STATE_HOME", "orchestrator below it is the home by default; ~/.local/state"},
    {"NO_COLOR", "when set and not empty, no colours"},
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

static void add_row(struct buf *out, int width, const char *left, const char *right)
{
    buf_printf(out, "  %-*s  %s\n", width, left, right);
}

static void add_codes_and_environment(struct buf *out)
{
    buf_add_str(out, "\nexit codes:\n");
    for (size_t i = 0; i < COUNT(exit_codes); i++) {
        char code[8];
        snprintf(code, sizeof code, "%d", exit_codes[i].code);
        add_row(out, 2, code, exit_codes[i].text);
    }
    buf_add_str(out, "\nenvironment:\n");
    for (size_t i = 0; i < COUNT(environment); i++)
        add_row(out, 20, environment[i].name, environment[i].text);
}

static void add_option(struct buf *out, const struct command_option *option)
{
    char left[64];
    char letter[8] = "    ";
    if (option->letter != 0)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, option->name,
             option->value != NULL ? " " : "", option->value != NULL ? option->value : "");
    char help[256];
    snprintf(help, sizeof help, "%s%s", option->help,
             option->repeats ? " (may be given several times)" : "");
    add_row(out, 22, left, help);
}

void command_usage(const struct command *command, struct buf *out)
{
    buf_printf(out, "usage: orchestrator %s [OPTION]...%s%s\n\n%s\n", command->name,
               command->args[0] != '\0' ? " " : "", command->args, command->summary);
    if (command->details != NULL)
        buf_printf(out, "\n%s%s", command->details,
                   command->details[strlen(command->details) - 1] == '\n' ? "" : "\n");
    buf_add_str(out, "\noptions:\n");
    for (const struct command_option *option = command->options;
         option != NULL && option->name != NULL; option++)
        add_option(out, option);
    for (const struct command_option *option = command_common_options; option->name != NULL;
         option++)
        add_option(out, option);
    add_codes_and_environment(out);
}

void command_overview(struct buf *out)
{
    buf_add_str(out, "usage: orchestrator [--config FILE] COMMAND [OPTION]... [ARGUMENT]...\n\n"
                     "Gives tasks to language models: plans them, runs the parts in parallel on "
                     "local and\nremote models, and puts the result together.\n\ncommands:\n");
    for (const struct command *const *at = commands; *at != NULL; at++)
        add_row(out, 13, (*at)->name, (*at)->summary);
    buf_add_str(out, "\n`orchestrator COMMAND --help` says more about one of them.\n");
    add_codes_and_environment(out);
}

#define NAMES_MOST 64
const char *command_nearest(const char *typed, const char *(*next)(const void *ctx, size_t i),
                            const void *ctx)
{
    const char *names[NAMES_MOST + 1] = {NULL};
    size_t len = strlen(typed);
    for (size_t i = 0; i < NAMES_MOST && (names[i] = next(ctx, i)) != NULL; i++) {
        if (len >= 2 && strncmp(names[i], typed, len) == 0)
            return names[i];
    }
    return yaml_nearest(typed, names);
}
