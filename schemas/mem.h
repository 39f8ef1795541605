/* Allocation that a test can make fail at the k-th call; parsers of hostile input use it. */
#ifndef SCHEMAS_MEM_H
#define SCHEMAS_MEM_H

#include <stdbool.h>
#include <stddef.h>

/* Like malloc, calloc, realloc, strndup; NULL when out of memory. Freed with free(). */
void *mem_alloc(size_t size);
void *mem_zalloc(size_t size);
void *mem_realloc(void *old, size_t size);
char *mem_strndup(const char *text, size_t len);

/* The same, but the program ends when memory is out: leases recover its work. For code that
 * handles no input from outside. */
void *mem_must_zalloc(size_t size);
void *mem_must_realloc(void *old, size_t size);
char *mem_must_strdup(const char *text);
char *mem_must_strndup(const char *text, size_t len);
char *mem_must_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#ifdef ORCH_TESTING
/* The k-th allocation from now on fails, once (k counts from 1); 0 switches it off. */
void mem_fail_at(unsigned long k);
/* Whether it has come to the last one that was to fail. */
bool mem_fail_reached(void);
#endif

#endif
