/* The table of commands, in the order of the help. A new command is one file below commands/ and
 * one row here. */
#include <string.h>

#include "orchestrator/command.h"

#define COMMANDS(X)                                                                                \
    X(up)                                                                                          \
    X(down)                                                                                        \
    X(submit)                                                                                      \
    X(wait)                                                                                        \
    X(show)                                                                                        \
    X(list)                                                                                        \
    X(cancel)                                                                                      \
    X(retry)                                                                                       \
    X(result)                                                                                      \
    X(status)                                                                                      \
    X(tap)                                                                                         \
    X(models)                                                                                      \
    X(providers)                                                                                   \
    X(stats)                                                                                       \
    X(check_config)                                                                                \
    X(doctor)                                                                                      \
    X(fsck)                                                                                        \
    X(keys)                                                                                        \
    X(invite)                                                                                      \
    X(join)                                                                                        \
    X(revoke)                                                                                      \
    X(serve)                                                                                       \
    X(completion)                                                                                  \
    X(version)                                                                                     \
    X(help)

/* extern const struct command command_up; ... */
#define X(name) extern const struct command command_##name;
COMMANDS(X)
#undef X

const struct command *const commands[] = {
#define X(name) &command_##name,
    COMMANDS(X)
#undef X
        NULL,
};

const struct command *command_find(const char *name)
{
    for (const struct command *const *at = commands; *at != NULL; at++) {
        if (strcmp((*at)->name, name) == 0)
            return *at;
    }
    return NULL;
}
