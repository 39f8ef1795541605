/* The words by which people ask for what is new, and the company in which such words mean something
 * else. Everything is as search_decide.c folds text: lower case, one blank between words. */
#ifndef WORKERS_SEARCH_WORDS_H
#define WORKERS_SEARCH_WORDS_H

#include <stddef.h>

struct search_words {
    const char *const *words;
    size_t n;
};

/* A * at the end lets the word go on. Those of scripts without blanks are found anywhere. */
extern const struct search_words search_phrases;
/* "current" before or behind one of these is one of programs, or of physics. */
extern const struct search_words search_current_nouns, search_current_kinds;
/* A number before or behind one of these is no year. */
extern const struct search_words search_not_years_before, search_not_years_after;

#endif
