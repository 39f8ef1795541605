/* Paths in what surrounds a block of a model's answer: info strings and the line above. */
#ifndef ORCHESTRATOR_FILES_PATH_H
#define ORCHESTRATOR_FILES_PATH_H

#include <stdbool.h>
#include <stddef.h>

/* A part of the text. */
struct files_span {
    const char *at;
    size_t len;
};

/* Whether a word would be taken for a path: a slash or an extension, not the name of a language or
 * an address. Dangerous ones are taken too, so that they can be refused aloud. */
bool files_path_like(struct files_span word);
/* The path in a fence's info string, such as `c path=src/a.c`. False: none. */
bool files_path_in_info(struct files_span info, struct files_span *ret);
/* The language of an info string, its first word up to ':'; may be empty. */
struct files_span files_info_language(struct files_span info);
/* The path that a line above a block consists of, such as `### src/a.c:`. False: none. */
bool files_path_in_heading(struct files_span line, struct files_span *ret);
/* Case does not matter. */
bool files_span_is(struct files_span span, const char *word);

#endif
