/* A command of the CLI: one const struct command in one file below commands/, one row in
 * commands.c. Help, usage errors and shell completion come from these tables. */
#ifndef ORCHESTRATOR_COMMAND_H
#define ORCHESTRATOR_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

/* Exit codes of every command. */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,      /* the task failed, or the check found something */
    EXIT_USAGE = 2,       /* wrong arguments, config or input */
    EXIT_UNREACHABLE = 3, /* Redis, broker or daemon cannot be reached */
    EXIT_STOPPED = 4,     /* the task was cancelled, or a time limit passed */
};

struct command_option {
    const char *name;  /* long name, without the dashes */
    char letter;       /* short name; 0: none */
    const char *value; /* placeholder such as FILE; NULL: a flag */
    const char *help;
    bool repeats; /* may be given several times */
};

struct invocation;

struct command {
    const char *name;
    const char *args;                     /* of the usage line: "[TEXT]", "ID..." ; "" when none */
    const char *summary;                  /* one line, for the list of commands */
    const char *details;                  /* more for --help of the command; may be NULL */
    const struct command_option *options; /* ended by a row without name; may be NULL */
    int min_args, max_args;               /* positional arguments; max -1: any number */
    int (*exec)(struct invocation *invocation); /* returns an enum exit_code */
};
/* Every command also has --config FILE, --help; those whose options have "json" print data. */

/* The arguments of one run. Values are borrowed from argv. */
size_t invocation_args(const struct invocation *invocation, const char *const **ret_args);
bool invocation_has(const struct invocation *invocation, const char *option);
const char *invocation_value(const struct invocation *invocation,
                             const char *option); /* last; NULL */
size_t invocation_values(const struct invocation *invocation, const char *option,
                         const char *const **ret_values);
const char *invocation_config(const struct invocation *invocation); /* --config; NULL: not given */
const struct command *invocation_command(const struct invocation *invocation);

/* Prints "orchestrator NAME: text" on stderr and, for EXIT_USAGE, how to get help. Returns code. */
int command_fail(const struct invocation *invocation, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Ended by NULL; commands.c has the table. */
extern const struct command *const commands[];
const struct command *command_find(const char *name);

/* Parses and runs; the whole of main(). */
int command_run(int argc, char **argv);

#endif
