/* Completion for shells, made from the tables of commands and options. */
#ifndef ORCHESTRATOR_COMPLETION_H
#define ORCHESTRATOR_COMPLETION_H

#include "schemas/buf.h"

/* shell: "bash" or "zsh". -EINVAL for another one. */
int completion_script(const char *shell, struct buf *out);

#endif
