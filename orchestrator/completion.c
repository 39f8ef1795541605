#include "orchestrator/completion.h"

#include <errno.h>
#include <string.h>

#include "orchestrator/command.h"

static void add_options(struct buf *out, const struct command_option *option, bool with_value)
{
    for (; option != NULL && option->name != NULL; option++) {
        if (with_value && option->value == NULL)
            continue;
        buf_printf(out, " --%s", option->name);
        if (option->letter != 0)
            buf_printf(out, " -%c", option->letter);
    }
}

static void add_case(struct buf *out, const struct command *command, bool with_value)
{
    buf_printf(out, "    %s) %s=\"", command->name, with_value ? "valued" : "options");
    add_options(out, command->options, with_value);
    add_options(out, command_common_options, with_value);
    buf_add_str(out, " \" ;;\n");
}

/* Which word is the command: the first one that is neither an option nor the value of --config.
 * Behind an option that takes a value, and for arguments, file names are offered. */
static const char head[] = "_orchestrator() {\n"
                           "  local word=${COMP_WORDS[COMP_CWORD]} command= options= valued= i\n"
                           "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
                           "    case ${COMP_WORDS[i]} in\n"
                           "    --config) ((i++)) ;;\n"
                           "    -*) ;;\n"
                           "    *) command=${COMP_WORDS[i]}; break ;;\n"
                           "    esac\n"
                           "  done\n"
                           "  COMPREPLY=()\n"
                           "  case $command in\n"
                           "    '') options=\"";

static const char middle[] = "  esac\n"
                             "  case $command in\n"
                             "    '') valued=' --config ' ;;\n";

static const char tail[] = "  esac\n"
                           "  local previous=${COMP_WORDS[COMP_CWORD-1]}\n"
                           "  if [[ $previous == -* && $valued == *\" $previous \"* ]]; then\n"
                           "    COMPREPLY=($(compgen -f -- \"$word\"))\n"
                           "  elif [[ -z $command || $word == -* ]]; then\n"
                           "    COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
                           "  elif [[ $command == help ]]; then\n"
                           "    COMPREPLY=($(compgen -W \"$names\" -- \"$word\"))\n"
                           "  else\n"
                           "    COMPREPLY=($(compgen -f -- \"$word\"))\n"
                           "  fi\n"
                           "}\n"
                           "complete -o filenames -F _orchestrator orchestrator\n";

static void add_names(struct buf *out)
{
    for (const struct command *const *at = commands; *at != NULL; at++)
        buf_printf(out, "%s%s", at == commands ? "" : " ", (*at)->name);
}

int completion_script(const char *shell, struct buf *out)
{
    bool zsh = strcmp(shell, "zsh") == 0;
    if (!zsh && strcmp(shell, "bash") != 0)
        return -EINVAL;
    if (zsh) /* its own reader of bash's scripts */
        buf_add_str(out, "autoload -U +X bashcompinit && bashcompinit\n");
    buf_add_str(out, head);
    add_names(out);
    buf_add_str(out, " --config --help --version\" ;;\n");
    for (const struct command *const *at = commands; *at != NULL; at++)
        add_case(out, *at, false);
    buf_add_str(out, middle);
    for (const struct command *const *at = commands; *at != NULL; at++)
        add_case(out, *at, true);
    const char *names = strstr(tail, "$names");
    buf_add(out, tail, (size_t)(names - tail));
    add_names(out);
    buf_add_str(out, names + strlen("$names"));
    return 0;
}
