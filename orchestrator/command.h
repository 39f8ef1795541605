/* A command of the CLI: one const struct command in one file below commands/, one row in
 * commands.c. Help, usage errors and shell completion come from these tables. */
#ifndef ORCHESTRATOR_COMMAND_H
#define ORCHESTRATOR_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "schemas/buf.h"

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
/* A whole number in min..max given to an option: 1 and *ret when it was given, 0 when not; -EINVAL
 * when it is none, which has been printed. */
int invocation_int(const struct invocation *invocation, const char *option, int64_t min,
                   int64_t max, int64_t *ret);
/* Seconds, with a fraction if need be, as milliseconds; the same returns. */
int invocation_seconds(const struct invocation *invocation, const char *option, int64_t *ret_ms);
struct queue_spend;
/* --budget and --budget-tokens: USD as nano USD, and tokens; what was not given stays as it is. 0;
 * -EINVAL as above. */
int invocation_budget(const struct invocation *invocation, struct queue_spend *ret);

/* Prints "orchestrator NAME: text" on stderr. The sentence says what to do. Returns code. */
int command_fail(const struct invocation *invocation, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Ended by NULL; commands.c has the table. */
extern const struct command *const commands[];
const struct command *command_find(const char *name);

/* Parses the arguments behind the command's name. 0; -EINVAL with a sentence, which names the
 * nearest option where one is unknown; 1 when --help was asked for. The invocation keeps pointing
 * into argv. */
int invocation_parse(struct invocation **ret, const struct command *command, int argc,
                     const char *const *argv, struct err *err);
void invocation_free(struct invocation **invocation); /* accepts NULL */

/* Options that every command has, ended by a row without name. */
extern const struct command_option command_common_options[];

/* Help, from the tables. */
void command_usage(const struct command *command, struct buf *out);
void command_overview(struct buf *out);

/* The name closest to a mistyped one, by edit distance; NULL when none is close. next() gives the
 * i-th name, NULL at the end. */
const char *command_nearest(const char *typed, const char *(*next)(const void *ctx, size_t i),
                            const void *ctx);

/* Flushes stdout; what could not be written is said, and code becomes EXIT_FAILED. A reader that
 * went away (EPIPE) is not an error. */
int command_flush(int code);

/* Parses and runs; the whole of main(). */
int command_run(int argc, char **argv);

#endif
