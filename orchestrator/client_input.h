/* Text that a person hands in: arguments, standard input, files; bounded and checked. */
#ifndef ORCHESTRATOR_CLIENT_INPUT_H
#define ORCHESTRATOR_CLIENT_INPUT_H

#include "common/err.h"
#include "schemas/buf.h"

#define CLIENT_INPUT_MOST ((size_t)8 * 1024 * 1024) /* bytes of a task's text, files included */

/* Appends the file's bytes; path "-" is standard input. -EINVAL when it is no regular file, pipe or
 * terminal, -EFBIG when out would exceed CLIENT_INPUT_MOST, or what reading failed with; each with
 * a sentence. */
int client_input_read(struct buf *out, const char *path, struct err *err);
/* Appends the file in a fence, under its path; a file that is no text is refused (-EINVAL). */
int client_input_attach(struct buf *out, const char *path, struct err *err);
/* -EINVAL, with a sentence that says where, unless the text is UTF-8 without NUL. what: "the text",
 * "standard input". */
int client_input_check(const struct buf *text, const char *what, struct err *err);

#endif
