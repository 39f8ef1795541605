/* Help, generated from the tables of commands, options, exit codes and environment. */
#include <stdio.h>
#include <string.h>

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

/* Damerau-Levenshtein (optimal string alignment) with rows on the stack: names are short. */
#define NAME_MAX_LEN 40
static size_t edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > NAME_MAX_LEN || m > NAME_MAX_LEN)
        return NAME_MAX_LEN;
    size_t d[NAME_MAX_LEN + 1][NAME_MAX_LEN + 1];
    for (size_t i = 0; i <= n; i++)
        d[i][0] = i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *command_nearest(const char *typed, const char *(*next)(const void *ctx, size_t i),
                            const void *ctx)
{
    size_t len = strlen(typed), best = len / 3 + 2; /* one more than what still counts as close */
    const char *nearest = NULL, *name;
    for (size_t i = 0; (name = next(ctx, i)) != NULL; i++) {
        bool prefix = len >= 2 && strncmp(name, typed, len) == 0;
        size_t distance = prefix ? 1 : edit_distance(typed, name);
        if (distance < best) {
            best = distance;
            nearest = name;
        }
    }
    return nearest;
}
